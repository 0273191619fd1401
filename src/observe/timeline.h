/* timeline.h: what one rank does when, over one step.
 *
 * An event lies between two stamps of the device's clock: an op or a wait on the compute lane, a collective on the
 * lane of its axis, a phase of the step.  Events are noted while the step runs, which waits for nothing; their times
 * are read when it has ended.  Times are seconds from the step's begin. */
#ifndef MOAI_TIMELINE_H
#define MOAI_TIMELINE_H

#include "src/ops/clock.h"

#include <stdio.h>

/* What an event is counted as.  All up to FAMILY_EXPOSED are on the compute lane, one after another. */
typedef enum {
    FAMILY_PRODUCTS, FAMILY_ATTENTION, FAMILY_RMSNORM, FAMILY_STREAMS, FAMILY_QKNORM_ROPE, FAMILY_SWIGLU,
    FAMILY_CROSS_ENTROPY, FAMILY_EMBEDDING, FAMILY_ELEMENTWISE, FAMILY_OPTIMIZER, FAMILY_MEMORY,
    FAMILY_EXPOSED,                           /* the compute stream waits for a collective, or is busy starting one */
    N_COMPUTE_FAMILIES,
    FAMILY_COLLECTIVE = N_COMPUTE_FAMILIES,   /* on the lane of its axis, beside computation */
    FAMILY_PHASE                              /* forward 3, backward 2, optimizer, on a lane of their own */
} event_family;

typedef struct timed_event {
    const char *name;                         /* of the op, collective or phase: static text */
    const char *axis;                         /* "tp": of a collective and of waiting for one; else NULL */
    event_family family;
    bool wait;                                /* FAMILY_EXPOSED: waits for the collective; else starts it */
    int64_t shape[3];                         /* tokens, out and in of a product; rows and columns; 0: none */
    dtype dt;
    double work;                              /* FLOPs of products and attention, bytes moved by the others */
    const char *phase;                        /* under way at the time, NULL: none */
    int micro_batch;                          /* of the phase, -1: none */
    int first, last;                          /* stamps; last -1 until the event has ended */
    void *stream;                             /* of a collective on a GPU */
    double begin, end;                        /* seconds, once the timeline was read */
} timed_event;

typedef struct timeline {
    const clock_ops *clock;
    device_clock *stamps;
    bool on;                                  /* between start and stop; else events are not noted */
    int n_stamps, stamps_reserved;
    timed_event *list;
    int n, reserved;
    const char *phase;
    int phase_event, micro_batch;
    double seconds;                           /* of the whole, once read */
} timeline;

/* Room for n_events is made at once; a step that has more makes more on the way. */
void timeline_open(timeline *, const clock_ops *, moai_device *, int n_events);
void timeline_close(timeline *);
/* The step begins and ends here; both are stamps of the compute stream. */
void timeline_start(timeline *);
void timeline_stop(timeline *);
/* Notes an event whose name, family, shape, work ... are given; it begins where the compute stream is now.  Returns its
 * number, -1 when the timeline is not on. */
int timeline_begin(timeline *, timed_event);
void timeline_end(timeline *, int event, void *stream); /* stream NULL: the compute stream */
void timeline_phase(timeline *, const char *name, int number);
/* The times of all events; waits for them.  A collective on a stream begins when the one before it on
 * that stream has ended; one that is still under way ends with the step. */
void timeline_read(timeline *);

/* The events as a Chrome trace of process `rank`. */
void timeline_write(const timeline *, FILE *, int rank);
/* Where the step's time went: a row an op, its calls, ms, share of the step and rate; the rows add up to the step. */
void timeline_print(const timeline *, FILE *);

#endif
