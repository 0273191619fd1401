/* timeline.c: see timeline.h */
#include "src/observe/timeline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void reserve_events(timeline *t, int n)
{
    timed_event *more = xmalloc((size_t)n * sizeof *more);

    if (t->n) memcpy(more, t->list, (size_t)t->n * sizeof *more);
    free(t->list);
    t->list = more;
    t->reserved = n;
}

static int stamp(timeline *t, void *stream)
{
    if (t->n_stamps == t->stamps_reserved) {
        t->stamps_reserved *= 2;
        t->clock->reserve(t->stamps, t->stamps_reserved);
    }
    t->clock->stamp(t->stamps, t->n_stamps, stream);
    return t->n_stamps++;
}

void timeline_open(timeline *t, const clock_ops *clock, moai_device *dev, int n_events)
{
    *t = (timeline){.clock = clock, .stamps = clock->open(dev), .phase_event = -1, .micro_batch = -1,
                    .stamps_reserved = 2 * n_events + 2};
    clock->reserve(t->stamps, t->stamps_reserved);
    reserve_events(t, n_events);
}

void timeline_close(timeline *t)
{
    t->clock->close(t->stamps);
    free(t->list);
    *t = (timeline){0};
}

void timeline_start(timeline *t)
{
    t->n = t->n_stamps = 0;
    t->on = true;
    stamp(t, NULL);
}

void timeline_stop(timeline *t)
{
    timeline_phase(t, NULL, -1);
    stamp(t, NULL);
    t->on = false;
}

int timeline_begin(timeline *t, timed_event e)
{
    if (!t->on) return -1;
    if (t->n == t->reserved) reserve_events(t, 2 * t->reserved);
    e.phase = t->phase;
    e.micro_batch = t->micro_batch;
    e.first = stamp(t, NULL);
    e.last = -1;
    t->list[t->n] = e;
    return t->n++;
}

void timeline_end(timeline *t, int event, void *stream)
{
    if (!t->on || event < 0) return;
    t->list[event].stream = stream;
    t->list[event].last = stamp(t, stream);
}

void timeline_phase(timeline *t, const char *name, int number)
{
    if (!t->on) return;
    if (t->phase) timeline_end(t, t->phase_event, NULL);
    t->phase = name;
    t->micro_batch = name ? number : -1;
    if (name) t->phase_event = timeline_begin(t, (timed_event){.name = name, .family = FAMILY_PHASE});
}

/* The end of the collective before event i on its stream; 0 where there is none. */
static double stream_free(const timeline *t, int i)
{
    for (int before = i - 1; before >= 0; before--)
        if (t->list[before].stream == t->list[i].stream) return t->list[before].end;
    return 0;
}

void timeline_read(timeline *t)
{
    t->seconds = t->clock->seconds(t->stamps, t->n_stamps - 1);
    for (int i = 0; i < t->n; i++) {
        timed_event *e = &t->list[i];
        e->begin = t->clock->seconds(t->stamps, e->first);
        e->end = e->last < 0 ? t->seconds : fmin(t->clock->seconds(t->stamps, e->last), t->seconds);
        if (e->stream) e->begin = fmax(e->begin, stream_free(t, i));
        e->begin = fmin(e->begin, e->end);
    }
}
