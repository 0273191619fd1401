/* terminal.h: the terminal behind a standard stream, for bars that are drawn over themselves. */
#ifndef MOAI_TERMINAL_H
#define MOAI_TERMINAL_H

#include "src/base/base.h"

#include <stdio.h>

typedef struct terminal {
    int fd;                                   /* -1: there is none, or none that a bar can be drawn on (TERM=dumb) */
} terminal;

/* What STDOUT_FILENO or STDERR_FILENO leads to; close it. */
terminal terminal_open(int fd);
void terminal_close(terminal *);
/* Where the cursor is, cut to what the terminal is wide now: a line that is full would go on in the next one. */
void terminal_draw(const terminal *, FILE *, const char *line);
void terminal_wipe(FILE *);                   /* what was drawn */

#endif
