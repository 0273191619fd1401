/* profile.h: one step under observation.
 *
 * While the model's context goes through a profile, it has another table of ops and another grid: they forward to the
 * real ones and note every op and collective on a timeline.  Other steps use the plain tables and pay nothing.  The
 * step before goes through it too, without being noted: what it begins (the gather of the weights) ends in the next. */
#ifndef MOAI_PROFILE_H
#define MOAI_PROFILE_H

#include "src/observe/timeline.h"
#include "src/params/ctx.h"

typedef struct profile profile;

/* n_micro sizes the timeline.  Not collective. */
profile *profile_open(moai_ctx *, const clock_ops *, int n_micro);
/* The context goes through the profile from here to profile_leave, which gives it back what it had.  With `note` a
 * barrier lets all ranks begin together, so that their timelines may be laid side by side, and profile_leave waits for
 * the device and reads the times: collective over all ranks. */
void profile_enter(profile *, bool note);
void profile_leave(profile *);
const timeline *profile_timeline(const profile *);
/* What was begun through the profile must have ended, and its grid and device still be there. */
void profile_free(profile *);

/* A Chrome trace, for ui.perfetto.dev and chrome://tracing, in OUTPUT_DIR/profile/rank-N.json: pid is the rank, tid the
 * lane, ts and dur are microseconds from the step's begin.  Not collective. */
int profile_write(const profile *, const char *output_dir, moai_error *err);

#endif
