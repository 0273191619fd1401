/* watch.c: see watch.h
 *
 * The note is a seqlock: one writer, the rank's main thread, and readers in other threads and processes.  A mutex would
 * not do: a rank that is stopped while it holds one would hang the watchdogs that are to tell of it, and the writer,
 * which passes here for every collective, must not wait for readers.  The version is odd while words change; a reader
 * takes the version, the words, and the version again, and begins anew where the two differ or are odd.  The fences
 * order this: the writer's keeps its words behind the odd version, the reader's keeps its words before the second look.
 * The words are relaxed atomics, since a plain copy that another process changes meanwhile has no meaning in C11.  A
 * writer stopped in the middle leaves an odd version for good: after TRIES a reader takes what it has, which
 * watch_sound makes such as can be printed. */
#include "src/base/watch.h"

#include <string.h>

static watch_note note = {.step = -1, .micro_batch = -1, .peer = -1};  /* as the main thread knows it */
static watch_record alone, *own = &alone;
static double wait_began, waited;

/* The version is odd while words change: a reader that saw it, or sees another one afterwards, reads again. */
static void publish(void)
{
    uint64_t words[WATCH_WORDS];
    const uint_fast32_t version = atomic_load_explicit(&own->version, memory_order_relaxed);

    note.step = base_step;
    memcpy(words, &note, sizeof words);
    atomic_store_explicit(&own->version, version + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (int i = 0; i < WATCH_WORDS; i++) atomic_store_explicit(&own->words[i], words[i], memory_order_relaxed);
    atomic_store_explicit(&own->version, version + 2, memory_order_release);
}

void watch_phase(const char *name, int64_t micro_batch)
{
    strncpy(note.phase, name, sizeof note.phase - 1);
    note.micro_batch = micro_batch;
    publish();
}

void watch_files(bool on)
{
    note.files = (int16_t)(note.files + (on ? 1 : -1));
    publish();
}

void watch_enter(const watch_op *op, watch_state state)
{
    if (state == WATCH_WAITS)
        wait_began = now_seconds();
    else if (note.state == WATCH_WAITS)
        waited += now_seconds() - wait_began;
    strncpy(note.what, op->what, sizeof note.what - 1);
    strncpy(note.axis, op->axis, sizeof note.axis - 1);
    note.number = op->number;
    note.n_elem = op->n_elem;
    note.peer = op->peer;
    note.state = (int16_t)state;
    publish();
}

double watch_waited(void) { return waited; }
watch_note watch_last(void) { return note; }

watch_note watch_read(const watch_record *r)
{
    enum { TRIES = 1000 };                    /* a rank may have been stopped between begin and end */
    uint64_t words[WATCH_WORDS];
    watch_note n;

    for (int t = 0; t < TRIES; t++) {
        const uint_fast32_t before = atomic_load_explicit(&r->version, memory_order_acquire);
        for (int i = 0; i < WATCH_WORDS; i++) words[i] = atomic_load_explicit(&r->words[i], memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire);
        if (before % 2 == 0 && atomic_load_explicit(&r->version, memory_order_relaxed) == before) break;
    }
    memcpy(&n, words, sizeof n);
    return n;
}

watch_note watch_sound(watch_note n)
{
    n.what[sizeof n.what - 1] = n.axis[sizeof n.axis - 1] = n.phase[sizeof n.phase - 1] = 0;
    if (n.state < WATCH_BEGAN || n.state > WATCH_ENDED) n.state = WATCH_BEGAN;
    if (n.files < 0 || n.files > 8) n.files = 0;
    return n;
}

void watch_move(watch_record *r)
{
    own = r ? r : &alone;
    publish();
}
