/* profile.h: one step under observation.
 *
 * While a profile is on, the model's context has another table of ops and another grid: they forward to the real ones
 * and note every op and collective on a timeline.  Before and after, the plain tables are used and nothing is paid. */
#ifndef MOAI_PROFILE_H
#define MOAI_PROFILE_H

#include "ctx.h"
#include "timeline.h"

typedef struct profile profile;

/* Observes what goes through the context from here to profile_end.  n_micro sizes the timeline.  A barrier lets all
 * ranks begin together, so that their timelines may be laid side by side: collective over all ranks. */
profile *profile_begin(moai_ctx *, const clock_ops *, int n_micro);
/* Waits for the device, gives the context back what it had and reads the times.  Not collective. */
void profile_end(profile *);
const timeline *profile_timeline(const profile *);
/* Collectives that were begun under observation may end later, so free it after they have. */
void profile_free(profile *);

/* A Chrome trace, for ui.perfetto.dev and chrome://tracing, in OUTPUT_DIR/profile/rank-N.json: pid is the rank, tid the
 * lane, ts and dur are microseconds from the step's begin.  Not collective. */
int profile_write(const profile *, const char *output_dir, moai_error *err);

#endif
