/* signals.h: what a terminal, a batch system or a broken pipe say to a program. */
#ifndef MOAI_SIGNALS_H
#define MOAI_SIGNALS_H

#include "src/base/base.h"

/* For programs whose product is files: a pipe whose reader has gone (SIGPIPE) costs what they print and no more.  The
 * others leave, as people expect of what stands before `| head`. */
void signals_ignore_pipe(void);

/* SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU (batch systems), SIGHUP and the first SIGINT (terminals) are noted from here on; a
 * second SIGINT ends the process.  One that is ignored now (nohup) stays ignored. */
void signals_catch(void);
int signals_seen(void);                       /* the last one noted; 0: none */
const char *signals_name(int number);         /* "SIGTERM" */

#endif
