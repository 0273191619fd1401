/* comm_timed.h: a comm that forwards every collective to another comm and notes it on a timeline. */
#ifndef MOAI_COMM_TIMED_H
#define MOAI_COMM_TIMED_H

#include "parallel/comm/comm.h"
#include "src/observe/timeline.h"

/* Over the ranks of `inner`, which must outlive it, as the timeline must.  A request begun on one may only be ended
 * while it lives.  Freeing it (ops->free) leaves inner alone. */
comm comm_timed(const comm *inner, timeline *);

#endif
