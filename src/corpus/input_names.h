/* input_names.h: the text files that --input and --input_list stand for.
 *
 * A list has a name a line, or names that end with NUL (find -print0); "-" is standard input.  Names in it are taken as
 * they are, from the directory that the program was started in.  A directory stands for the files below it whose names
 * are of texts or JSON lines (text_kind.h; of the latter alone with --format jsonl), sorted by the bytes of their
 * paths; links are followed.  How many of which ending there are is said.  Hidden files and directories are passed
 * over, files of other names are too and warned about.  A file that is named twice counts twice, with a warning. */
#ifndef MOAI_INPUT_NAMES_H
#define MOAI_INPUT_NAMES_H

#include "io/text/text.h"
#include "parallel/comm/comm.h"

typedef struct input_source {
    char *path;
    bool is_list;
} input_source;

typedef struct input_names {
    char **list;
    int n, capacity;
} input_names;

/* All names, in the order of the sources.  -1: a name that is not there, a list or directory that cannot be read or
 * holds nothing.  Free in either case. */
int input_names_read(input_names *, const input_source *, int n_sources, text_content, moai_error *err);
/* The same, read by rank 0.  Collective. */
int input_names_share(input_names *, const input_source *, int n_sources, text_content, const comm *world,
                      moai_error *err);
void input_names_free(input_names *);

#endif
