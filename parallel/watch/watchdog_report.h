/* watchdog_report.h: what the watchdog says, from what the ranks have answered. */
#ifndef MOAI_WATCHDOG_REPORT_H
#define MOAI_WATCHDOG_REPORT_H

#include "parallel/comm/grid.h"
#include "src/base/watch.h"

typedef struct watch_answer {
    bool known, alive;                        /* known: by a neighbour at least; alive: it answered itself */
    bool apart;                               /* of a host that cannot be asked: nothing is known */
    watch_note note;
    double seconds;                           /* that the note has not changed */
} watch_answer;

/* The whole text, answers by rank; caller frees.  `error` "": it is about a hang, and NULL when nobody waits for as
 * long as hang_timeout, or only for ranks that are busy; else about that error, and whoever waits counts as waiting too
 * long. */
char *watchdog_report(const moai_grid *, const watch_answer *, double hang_timeout, const char *error);

#endif
