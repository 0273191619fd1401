/* loader.c: micro-batches in step order, read ahead by worker threads; see loader.h
 *
 * Micro-batch k of this rank has its place in a ring of n_workers * prefetch slots.  A worker takes the next number as
 * soon as its slot is free, fills it without the lock, and marks it ready; loader_next waits for the slot of its own
 * number.  Which worker reads what changes nothing: a micro-batch is a function of its number.
 *
 * Why slots are filled and read without the lock.  Numbers are taken under it, each once, and number k is not taken
 * before k - n_slots has been handed out; so from `taken` to `ready` a slot is one worker's, and from `ready` until
 * `next` passes it loader_next's: the two flags, set under the lock, carry the bytes from one thread to the other.
 * Workers may end in any order, but none waits for another: loader_next waits for the lowest number only, whose slot
 * was free when it was taken, so a full ring cannot stop.  Where a step begins is counted up under the lock as well,
 * since left-out samples make it a running sum over the numbers before. */
#include "io/data/loader.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct slot {
    int64_t number;                           /* the micro-batch it holds, or is being filled with */
    int64_t base;                             /* count at which its step begins */
    bool ready;
    int status;                               /* of reading; the reason is in err */
    moai_error err;
    int32_t *ids;                             /* (batch, seq_len + 1) */
    uint8_t *marks;                           /* the same, where samples are packed */
    int64_t *samples;                         /* (batch) */
} slot;

struct loader {
    dataset *data;
    loader_plan plan;
    left_out *left_out;
    data_order order;
    int64_t step, base;                       /* of the last micro-batch begun: its step, and where that begins */
    int64_t next;                             /* micro-batches handed out */
    slot *slots;
    int n_slots;
    /* under the lock */
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    pthread_t *workers;
    int n_workers;                            /* running */
    int64_t taken;                            /* micro-batches that workers have begun */
    bool stopping;
};

/* The count where the step of micro-batch `number` begins; numbers come in order. */
static int64_t base_of(loader *l, int64_t number)
{
    const loader_plan *p = &l->plan;

    for (; l->step < number / p->accumulation; l->step++)
        l->base = order_after(&l->order, l->base, p->accumulation * p->dp_size * p->batch);
    return l->base;
}

/* Micro-batch `number` of this rank: the samples as in loader.h. */
static int read_batch(const loader *l, int64_t number, int64_t base, int32_t *ids, uint8_t *marks, int64_t *samples,
                      moai_error *err)
{
    const loader_plan *p = &l->plan;
    const int64_t m = number % p->accumulation, before = (m * p->dp_size + p->dp_rank) * p->batch;

    order_take(&l->order, order_after(&l->order, base, before), p->batch, samples);
    for (int64_t i = 0; i < p->batch; i++) {
        const int64_t at = i * (p->seq_len + 1);
        if (dataset_sample(l->data, samples[i], p->seq_len, ids + at, marks ? marks + at : NULL, err) != 0) return -1;
    }
    return 0;
}

/* The next number to fill once its slot is free; -1 when the loader stops.  Lock held. */
static int64_t take_number(loader *l)
{
    while (!l->stopping && l->taken >= l->next + l->n_slots) pthread_cond_wait(&l->emptied, &l->lock);
    return l->stopping ? -1 : l->taken++;
}

static void *work(void *arg)
{
    loader *l = arg;
    int64_t number;

    pthread_mutex_lock(&l->lock);
    while ((number = take_number(l)) >= 0) {
        slot *s = &l->slots[number % l->n_slots];
        s->base = base_of(l, number);
        pthread_mutex_unlock(&l->lock);
        int status = read_batch(l, number, s->base, s->ids, s->marks, s->samples, &s->err);
        pthread_mutex_lock(&l->lock);
        s->status = status;
        s->number = number;
        s->ready = true;
        pthread_cond_signal(&l->filled);      /* only loader_next waits for it */
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static int start_workers(loader *l, moai_error *err)
{
    const loader_plan *p = &l->plan;

    l->n_slots = p->n_workers * p->prefetch;
    l->slots = xmalloc((size_t)l->n_slots * sizeof *l->slots);
    l->workers = xmalloc((size_t)p->n_workers * sizeof *l->workers);
    for (int i = 0; i < l->n_slots; i++) {
        const size_t n = (size_t)(p->batch * (p->seq_len + 1));
        l->slots[i].ids = xmalloc(n * sizeof(int32_t));
        if (dataset_is_packed(l->data)) l->slots[i].marks = xmalloc(n);
        l->slots[i].samples = xmalloc((size_t)p->batch * sizeof(int64_t));
    }
    for (; l->n_workers < p->n_workers; l->n_workers++) {
        int failed = pthread_create(&l->workers[l->n_workers], NULL, work, l);
        if (failed)
            return error_set(err, "cannot start data worker %d of %d: %s", l->n_workers + 1, p->n_workers,
                             strerror(failed));
    }
    return 0;
}

loader *loader_start(dataset *d, const loader_plan *p, moai_error *err)
{
    CHECK(p->seq_len > 0 && p->batch > 0 && p->accumulation > 0 && p->dp_rank >= 0 && p->dp_rank < p->dp_size &&
              p->first >= 0 && p->n_workers >= 0 && (p->n_workers == 0 || p->prefetch > 0),
          "loader plan: seq_len %lld batch %lld accumulation %lld dp %lld of %lld first %lld workers %d prefetch %d",
          (long long)p->seq_len, (long long)p->batch, (long long)p->accumulation, (long long)p->dp_rank,
          (long long)p->dp_size, (long long)p->first, p->n_workers, p->prefetch);
    if (dataset_samples(d, p->seq_len) < 1) {
        error_config(err, "%s: a split of %lld tokens has fewer than one sample of seq_length %lld + 1",
                     dataset_manifest(d)->dir, (long long)dataset_tokens(d), (long long)p->seq_len);
        return NULL;
    }
    loader *l = xmalloc(sizeof *l);
    *l = (loader){.data = d, .plan = *p, .base = p->first};
    l->left_out = xmalloc((size_t)p->n_left_out * sizeof *l->left_out);
    if (p->n_left_out) memcpy(l->left_out, p->left_out, (size_t)p->n_left_out * sizeof *l->left_out);
    l->order = (data_order){.seed = p->seed, .shuffle = p->shuffle, .n_samples = dataset_samples(d, p->seq_len),
                            .left_out = l->left_out, .n_left_out = p->n_left_out};
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->filled, NULL);
    pthread_cond_init(&l->emptied, NULL);
    if (p->n_workers == 0 || start_workers(l, err) == 0) return l;
    loader_stop(l);
    return NULL;
}

int loader_next(loader *l, int32_t *ids, uint8_t *marks, int64_t *samples, double *waited, moai_error *err)
{
    const loader_plan *p = &l->plan;
    double begin = now_seconds();
    int status;

    CHECK(marks || !dataset_is_packed(l->data), "a packed dataset is read without marks");
    if (p->n_workers == 0) {
        const int64_t number = l->next++;
        status = read_batch(l, number, base_of(l, number), ids, marks, samples, err);
        *waited += now_seconds() - begin;
        return status;
    }
    slot *s = &l->slots[l->next % l->n_slots];
    pthread_mutex_lock(&l->lock);
    while (!s->ready) pthread_cond_wait(&l->filled, &l->lock);
    pthread_mutex_unlock(&l->lock);
    *waited += now_seconds() - begin;
    CHECK(s->number == l->next, "data loader: slot holds micro-batch %lld, not %lld", (long long)s->number,
          (long long)l->next);

    status = s->status;
    if (status != 0) *err = s->err;
    memcpy(ids, s->ids, (size_t)(p->batch * (p->seq_len + 1)) * sizeof *ids);
    if (s->marks) memcpy(marks, s->marks, (size_t)(p->batch * (p->seq_len + 1)));
    memcpy(samples, s->samples, (size_t)p->batch * sizeof *samples);
    pthread_mutex_lock(&l->lock);
    s->ready = false;
    l->next++;
    pthread_cond_signal(&l->emptied);
    pthread_mutex_unlock(&l->lock);
    return status;
}

void loader_stop(loader *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_broadcast(&l->emptied);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->n_workers; i++) pthread_join(l->workers[i], NULL);
    for (int i = 0; i < l->n_slots; i++) {
        free(l->slots[i].ids);
        free(l->slots[i].marks);
        free(l->slots[i].samples);
    }
    free(l->slots);
    free(l->workers);
    free(l->left_out);
    pthread_cond_destroy(&l->emptied);
    pthread_cond_destroy(&l->filled);
    pthread_mutex_destroy(&l->lock);
    free(l);
}
