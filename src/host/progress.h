/* progress.h: a bar with rate and remaining time on a terminal, a line now and then elsewhere.  Printing rank only. */
#ifndef MOAI_PROGRESS_H
#define MOAI_PROGRESS_H

#include "src/host/terminal.h"

typedef struct progress {
    const char *what;
    double begin, printed;                    /* seconds */
    terminal terminal;
    bool shown;
} progress;

void progress_start(progress *, const char *what);
/* `done` of `all` bytes of input, `text` bytes of text so far. */
void progress_show(progress *, int64_t done, int64_t all, int64_t text);
void progress_end(progress *);                /* wipes the bar */

#endif
