/* shard_pool.c: see shard_pool.h
 *
 * A place is taken and left by one atomic addition each, so that what is open is read without the lock.  Only who holds
 * the lock opens and closes. */
#include "io/data/shard_pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CLOSED = -(1 << 30) };                 /* added to `users` while the shard is not to be read */

typedef struct place {
    shard *shard;                             /* NULL: never read */
    atomic_int users;
    atomic_bool recent;                       /* read since the hand came by */
} place;

struct shard_pool {
    const manifest_shard *list;
    const shard_info *info;
    place *places;
    int n, most;
    pthread_mutex_t lock;                     /* of what follows, and of opening and closing */
    int *open;                                /* (n) the places that are open: n_open of them, in a circle */
    int n_open, hand;
};

double shard_pool_pause = 1;

shard_pool *shard_pool_new(const manifest_shard *list, int n, const shard_info *info, int most)
{
    shard_pool *p = xmalloc(sizeof *p);

    *p = (shard_pool){.list = list, .info = info, .n = n, .most = most,
                      .places = xmalloc((size_t)n * sizeof *p->places), .open = xmalloc((size_t)n * sizeof *p->open)};
    for (int i = 0; i < n; i++) atomic_init(&p->places[i].users, CLOSED);
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

void shard_pool_free(shard_pool *p)
{
    if (!p) return;
    for (int i = 0; i < p->n; i++) shard_free(p->places[i].shard);
    pthread_mutex_destroy(&p->lock);
    free(p->places);
    free(p->open);
    free(p);
}

/* The shard's header against what the manifest says of it. */
static int check_header(const shard *s, const manifest_shard *entry, const shard_info *info, moai_error *err)
{
    const shard_info *has = shard_get_info(s);

    if (has->vocab_size != info->vocab_size)
        return error_config(err, "%s: vocab_size %lld, the manifest says %lld", entry->path, (long long)has->vocab_size,
                            (long long)info->vocab_size);
    if (has->is_marked != info->is_marked)
        return error_config(err, "%s: its tokens are %smarked as trained or not, the manifest says otherwise",
                            entry->path, has->is_marked ? "" : "not ");
    if (has->eos != info->eos)
        return error_config(err, "%s: eos %lld, the manifest says %lld", entry->path, (long long)has->eos,
                            (long long)info->eos);
    if (strcmp(has->tokenizer_sha256, info->tokenizer_sha256) != 0)
        return error_config(err, "%s: made with tokenizer %s, the manifest says %s", entry->path, has->tokenizer_sha256,
                            info->tokenizer_sha256);
    if (shard_tokens(s) != entry->tokens || shard_documents(s) != entry->documents)
        return error_config(err, "%s: %lld tokens in %lld documents, the manifest says %lld in %lld", entry->path,
                            (long long)shard_tokens(s), (long long)shard_documents(s), (long long)entry->tokens,
                            (long long)entry->documents);
    return 0;
}

static shard *open_checked(const shard_pool *p, int i, moai_error *err)
{
    shard *s = shard_open(p->list[i].path, err);

    if (!s || check_header(s, &p->list[i], p->info, err) == 0) return s;
    shard_free(s);
    return NULL;
}

/* As it was, or, where the file is another by now, from its header on. */
static int open_place(shard_pool *p, int i, moai_error *err)
{
    place *at = &p->places[i];
    const int status = at->shard ? shard_wake(at->shard, err) : SHARD_REPLACED;

    if (status != SHARD_REPLACED) return status;
    shard_free(at->shard);
    at->shard = open_checked(p, i, err);
    return at->shard ? 0 : -1;
}

/* False where somebody reads it.  Lock held. */
static bool close_place(shard_pool *p, int k)
{
    place *at = &p->places[p->open[k]];
    int nobody = 0;

    if (!atomic_compare_exchange_strong(&at->users, &nobody, CLOSED)) return false;
    shard_sleep(at->shard);
    p->open[k] = p->open[--p->n_open];
    return true;
}

/* Lock held. */
static void make_room(shard_pool *p)
{
    for (int passed = 0; p->n_open >= p->most && passed < 2 * p->n_open; passed++) {
        p->hand = p->hand < p->n_open ? p->hand : 0;
        const bool recent = atomic_exchange(&p->places[p->open[p->hand]].recent, false);
        if (recent || !close_place(p, p->hand)) p->hand++;
    }
}

/* The place may be read until it is left. */
static int enter(shard_pool *p, int i, moai_error *err)
{
    place *at = &p->places[i];
    int status = 0;

    if (atomic_fetch_add(&at->users, 1) < 0) {
        atomic_fetch_sub(&at->users, 1);
        pthread_mutex_lock(&p->lock);
        if (atomic_fetch_add(&at->users, 1) < 0) {            /* nobody has opened it meanwhile */
            make_room(p);
            status = open_place(p, i, err);
            atomic_fetch_add(&at->users, status == 0 ? -CLOSED : -1);
            if (status == 0) p->open[p->n_open++] = i;
        }
        pthread_mutex_unlock(&p->lock);
    }
    if (status == 0 && !atomic_load_explicit(&at->recent, memory_order_relaxed))
        atomic_store_explicit(&at->recent, true, memory_order_relaxed);
    return status;
}

static void leave(shard_pool *p, int i) { atomic_fetch_sub(&p->places[i].users, 1); }

int shard_pool_check(shard_pool *p, int i, moai_error *err)
{
    if (enter(p, i, err) != 0) return -1;
    leave(p, i);
    return 0;
}

/* What comes next opens the file anew; while others read it, the last of them has to see to that. */
static void give_up(shard_pool *p, int i)
{
    pthread_mutex_lock(&p->lock);
    for (int k = 0; k < p->n_open; k++)
        if (p->open[k] == i) {
            shard_forget_cached(p->places[i].shard);
            close_place(p, k);
            break;
        }
    pthread_mutex_unlock(&p->lock);
}

/* What is read of a shard: tokens and their flags, or what is known of its documents. */
typedef struct wanted {
    int64_t begin, n;
    int32_t *ids;
    uint8_t *trained;
    uint64_t *offsets, *counted;
} wanted;

static int read_wanted(shard *s, const wanted *w, moai_error *err)
{
    if (w->ids && shard_read(s, w->begin, w->n, w->ids, err) != 0) return -1;
    if (w->trained && shard_read_trained(s, w->begin, w->n, w->trained, err) != 0) return -1;
    if (w->offsets && shard_read_documents(s, 0, shard_documents(s) + 1, w->offsets, err) != 0) return -1;
    return w->counted ? shard_read_counted(s, 0, shard_documents(s), w->counted, err) : 0;
}

static int try_read(shard_pool *p, int i, const wanted *w, moai_error *err)
{
    if (enter(p, i, err) != 0) return -1;
    const int status = read_wanted(p->places[i].shard, w, err);
    leave(p, i);
    if (status != 0) give_up(p, i);
    return status;
}

static int read_patiently(shard_pool *p, int i, const wanted *w, moai_error *err)
{
    double pause = shard_pool_pause;
    int status = try_read(p, i, w, err);

    for (int again = 0; status != 0 && again < 2; again++, pause *= 5) {
        warn_here("%s; trying again in %g s", err->text, pause);
        nanosleep(&(struct timespec){.tv_sec = (time_t)pause, .tv_nsec = (long)((pause - (double)(time_t)pause) * 1e9)},
                  NULL);
        status = try_read(p, i, w, err);
    }
    return status;
}

int shard_pool_read(shard_pool *p, int i, int64_t begin, int64_t n, int32_t *ids, uint8_t *trained, moai_error *err)
{
    return read_patiently(p, i, &(wanted){.begin = begin, .n = n, .ids = ids, .trained = trained}, err);
}

int shard_pool_read_documents(shard_pool *p, int i, uint64_t *offsets, uint64_t *counted, moai_error *err)
{
    return read_patiently(p, i, &(wanted){.offsets = offsets, .counted = counted}, err);
}
