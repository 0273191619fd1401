/* paths.h: paths as people write them in run files and after --key=, where no shell has looked at them. */
#ifndef MOAI_PATHS_H
#define MOAI_PATHS_H

#include "src/base/base.h"

/* A copy of `text` with a leading ~/ (or ~ alone) and each $NAME or ${NAME} put in from the environment.  What exists
 * as it is written is meant as it is written (a file that a shell's glob found keeps its $), with a warning where it
 * could mean another.  Refused, as a wrong configuration that names label and text: an empty text, ~user, a variable
 * that is not set or empty, any other $, and control characters, since messages and the reports that scripts read are
 * lines.  malloc'd; NULL when refused. */
char *path_expand(const char *label, const char *text, moai_error *err);

#endif
