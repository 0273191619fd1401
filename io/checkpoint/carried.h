/* carried.h: files of a Hugging Face directory that nothing here reads, or only looks at: tokenizer.json, vocabularies,
 * chat templates, generation_config.json.  They lie in every checkpoint as they came, and are exported again. */
#ifndef MOAI_CARRIED_H
#define MOAI_CARRIED_H

#include "src/base/base.h"

/* By its name in the directory: "tokenizer.json", "additional_chat_templates/tool_use.jinja". */
bool is_carried(const char *name);
bool is_carried_directory(const char *name);
/* A file by which AutoTokenizer makes its tokens, without tokenizer.model. */
bool is_tokenizer_file(const char *name);

typedef struct name_list {
    char **list;
    int n;
} name_list;
/* Those that are in a directory, in order.  -1 where it cannot be read; free in any case. */
int carried_in(const char *dir, name_list *, moai_error *err);
void name_list_add(name_list *, const char *name);
bool name_list_has(const name_list *, const char *name);
void name_list_free(name_list *);

#endif
