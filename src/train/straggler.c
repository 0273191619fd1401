/* straggler.c: see straggler.h */
#include "src/train/straggler.h"

#include "parallel/watch/mail.h"

#include <stdlib.h>

void stragglers_open(stragglers *s, const moai_grid *g)
{
    const size_t n = (size_t)g->world;

    *s = (stragglers){.grid = g, .busy = xmalloc(n * sizeof *s->busy), .stage = xmalloc(n * sizeof *s->stage),
                      .slow_for = xmalloc(n * sizeof *s->slow_for)};
}

void stragglers_free(stragglers *s)
{
    free(s->busy);
    free(s->stage);
    free(s->slow_for);
    *s = (stragglers){0};
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of n > 0; sorts them. */
static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_size);
    return (x[(n - 1) / 2] + x[n / 2]) / 2;
}

static step_spread spread_of(stragglers *s)
{
    const int n = s->grid->world;
    step_spread all = {0};

    for (int r = 0; r < n; r++) {
        s->stage[r] = s->busy[r];
        if (s->busy[r] > s->busy[all.slowest]) all.slowest = r;
    }
    all.median = median(s->stage, n);
    all.min = s->stage[0], all.max = s->stage[n - 1];
    return all;
}

static void name(const moai_grid *g, int rank, double busy, double typical, int64_t step, metrics *m)
{
    char *who = mail_peer_name(g, rank);
    char *text = xasprintf("%s was busy for %.2f times its stage's median (%.4g s against %.4g s) in each of the last "
                           "%d logged steps: the others wait for it",
                           who, busy / typical, busy, typical, SLOW_STEPS);

    warn("step %lld: %s", (long long)step, text);
    metrics_event(m, "straggler", step, text);
    free(text);
    free(who);
}

step_spread stragglers_note(stragglers *s, double busy, int64_t step, metrics *m)
{
    const moai_grid *g = s->grid;
    const int n = g->world / g->size.pp;      /* ranks of a stage, which stand together */
    comm_request r = all_gather_begin(&g->host_world, s->busy, &busy, 1, DT_F64);

    comm_end(&r);
    for (int first = 0; first < g->world; first += n) {
        for (int i = 0; i < n; i++) s->stage[i] = s->busy[first + i];
        const double typical = median(s->stage, n);
        for (int rank = first; rank < first + n; rank++) {
            s->slow_for[rank] = s->busy[rank] > (1 + SLOW_SHARE) * typical ? s->slow_for[rank] + 1 : 0;
            if (s->slow_for[rank] == SLOW_STEPS && m) name(g, rank, s->busy[rank], typical, step, m);
        }
    }
    return spread_of(s);
}
