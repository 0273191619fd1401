/* watch.c: see watch.h */
#include "watch.h"

#include <string.h>

static watch_record alone = {.note = {.step = -1, .micro_batch = -1, .peer = -1}};
static watch_record *own = &alone;
static double wait_began, waited;

/* The version is odd between the two: a reader that saw it, or sees another one afterwards, reads again. */
static watch_note *write_begin(void)
{
    atomic_store_explicit(&own->version, own->version + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    return &own->note;
}

static void write_end(void)
{
    own->note.step = base_step;
    atomic_store_explicit(&own->version, own->version + 1, memory_order_release);
}

void watch_phase(const char *name, int64_t micro_batch)
{
    watch_note *n = write_begin();

    strncpy(n->phase, name, sizeof n->phase - 1);
    n->micro_batch = micro_batch;
    write_end();
}

void watch_enter(const watch_op *op, watch_state state)
{
    if (state == WATCH_WAITS)
        wait_began = now_seconds();
    else if (own->note.state == WATCH_WAITS)
        waited += now_seconds() - wait_began;
    watch_note *n = write_begin();
    strncpy(n->what, op->what, sizeof n->what - 1);
    strncpy(n->axis, op->axis, sizeof n->axis - 1);
    n->number = op->number;
    n->n_elem = op->n_elem;
    n->peer = op->peer;
    n->state = state;
    write_end();
}

double watch_waited(void) { return waited; }
watch_note watch_last(void) { return own->note; }

watch_note watch_read(const watch_record *r)
{
    enum { TRIES = 1000 };                    /* a rank may have been stopped between begin and end */
    watch_note n;

    for (int i = 0; i < TRIES; i++) {
        const uint_fast32_t before = atomic_load_explicit(&r->version, memory_order_acquire);
        n = r->note;
        atomic_thread_fence(memory_order_acquire);
        if (before % 2 == 0 && atomic_load_explicit(&r->version, memory_order_relaxed) == before) break;
    }
    return n;
}

watch_note watch_sound(watch_note n)
{
    n.what[sizeof n.what - 1] = n.axis[sizeof n.axis - 1] = n.phase[sizeof n.phase - 1] = 0;
    if (n.state < WATCH_BEGAN || n.state > WATCH_ENDED) n.state = WATCH_BEGAN;
    return n;
}

void watch_move(watch_record *r)
{
    watch_record *to = r ? r : &alone;

    if (to == own) return;
    to->note = own->note;
    own = to;
}
