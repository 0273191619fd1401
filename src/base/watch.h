/* watch.h: what this rank is at, noted where others can read it while its main thread is stuck; see watchdog.h.
 *
 * The main thread makes the notes, a few stores each and no system call.  Nothing here is collective. */
#ifndef MOAI_WATCH_H
#define MOAI_WATCH_H

#include "src/base/base.h"

#include <stdatomic.h>

typedef enum { WATCH_BEGAN, WATCH_WAITS, WATCH_ENDED } watch_state;

/* A collective, for reports. */
typedef struct watch_op {
    const char *what, *axis;                  /* "all_gather", "tp"; of these 15 and 7 characters are told */
    int64_t number;                           /* among those that this rank began over the comm, from 1 */
    int64_t n_elem;
    int peer;                                 /* of a message: the other rank of the comm; else -1 */
} watch_op;

/* The last operation that a rank entered, and where in the run.  No pointers, no padding: it travels, and is compared
 * as bytes. */
typedef struct watch_note {
    char what[16], axis[8];                   /* what "": none yet */
    char phase[16];                           /* "forward", "reading data", "saving" ...; "": none */
    int64_t number, n_elem;
    int64_t step, micro_batch;                /* -1: outside of one */
    int16_t state, files;                     /* files: within so many watch_files */
    int32_t peer;
} watch_note;

/* Shared by the ranks of a host: the note word for word, since another process reads it while it is written. */
enum { WATCH_WORDS = sizeof(watch_note) / sizeof(uint64_t) };
_Static_assert(WATCH_WORDS * sizeof(uint64_t) == sizeof(watch_note), "a note is whole words");
typedef struct watch_record {
    atomic_uint_fast32_t version;             /* odd while the note is being written */
    _Atomic uint64_t words[WATCH_WORDS];
    _Atomic double changed;                   /* now_seconds() when the rank's watchdog last saw another note */
} watch_record;

void watch_phase(const char *name, int64_t micro_batch);      /* up to the next call; "": none */
/* true: what follows, up to the same with false, is about files, or the standard output: it takes as long as it takes,
 * and nobody is late for it.  Those within others count as one. */
void watch_files(bool);
void watch_enter(const watch_op *, watch_state);
double watch_waited(void);                    /* seconds between WATCH_WAITS and what followed, since the start */
watch_note watch_last(void);                  /* the main thread's own reading */

/* Of another thread or another rank. */
watch_note watch_read(const watch_record *);
/* A note that came from outside, made such as can be told: its texts end, its state is one. */
watch_note watch_sound(watch_note);
/* Notes go to `r` from here on, what is noted already too; NULL: back to memory of this process alone. */
void watch_move(watch_record *r);

#endif
