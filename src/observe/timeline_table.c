/* timeline_table.c: where a step's time went, a row an op */
#include "src/observe/timeline.h"

#include <stdlib.h>
#include <string.h>

typedef struct row {
    const timed_event *like;                  /* the first of its events */
    int n;
    double seconds, work;
} row;

enum { MOST_ROWS = 96 };

static const char *const family_names[N_COMPUTE_FAMILIES] = {
    [FAMILY_PRODUCTS] = "products",           [FAMILY_ATTENTION] = "attention",
    [FAMILY_RMSNORM] = "RMSNorm",             [FAMILY_STREAMS] = "streams",
    [FAMILY_QKNORM_ROPE] = "QK-norm, RoPE",
    [FAMILY_SWIGLU] = "SwiGLU",               [FAMILY_CROSS_ENTROPY] = "cross-entropy",
    [FAMILY_EMBEDDING] = "embedding",         [FAMILY_ELEMENTWISE] = "elementwise",
    [FAMILY_OPTIMIZER] = "optimizer",         [FAMILY_MEMORY] = "zero, copy",
    [FAMILY_EXPOSED] = "communication",
};

static bool same_row(const timed_event *a, const timed_event *b)
{
    if (a->family != b->family || a->wait != b->wait || strcmp(a->name, b->name) != 0) return false;
    return !a->axis || !b->axis ? a->axis == b->axis : strcmp(a->axis, b->axis) == 0;
}

static int add_up(row *rows, const timeline *t)
{
    int n = 0;

    for (int i = 0; i < t->n; i++) {
        const timed_event *e = &t->list[i];
        int at = 0;
        if (e->family >= N_COMPUTE_FAMILIES) continue;
        while (at < n && !same_row(rows[at].like, e)) at++;
        CHECK(at < MOST_ROWS, "more than %d kinds of events", MOST_ROWS);
        if (at == n) rows[n++] = (row){.like = e};
        rows[at].n++;
        rows[at].seconds += e->end - e->begin;
        rows[at].work += e->work;
    }
    return n;
}

/* By family, the longest first. */
static int compare_rows(const void *pa, const void *pb)
{
    const row *a = pa, *b = pb;

    if (a->like->family != b->like->family) return a->like->family < b->like->family ? -1 : 1;
    return (a->seconds < b->seconds) - (a->seconds > b->seconds);
}

static void print_rate(const row *r, FILE *f)
{
    const event_family family = r->like->family;
    const double rate = r->seconds > 0 ? r->work / r->seconds : 0;

    if (rate == 0 || family == FAMILY_EXPOSED) return;
    if (family != FAMILY_PRODUCTS && family != FAMILY_ATTENTION)
        fprintf(f, " %8.1f GB/s", rate * 1e-9);
    else if (rate < 1e12)
        fprintf(f, " %8.1f GFLOP/s", rate * 1e-9);
    else
        fprintf(f, " %8.1f TFLOP/s", rate * 1e-12);
}

static void print_row(const row *r, double all, FILE *f)
{
    const timed_event *e = r->like;
    char name[64];

    if (e->family == FAMILY_EXPOSED)
        snprintf(name, sizeof name, "%s %s %s", e->wait ? "wait" : "start", e->axis, e->name);
    else
        snprintf(name, sizeof name, "%s", e->name);
    fprintf(f, "%-24s %7d x %11.3f ms %6.2f %%", name, r->n, r->seconds * 1e3, 100 * r->seconds / all);
    print_rate(r, f);
    fprintf(f, "\n");
}

void timeline_print(const timeline *t, FILE *f)
{
    row rows[MOST_ROWS];
    const int n = add_up(rows, t);
    double families[N_COMPUTE_FAMILIES] = {0}, nothing = t->seconds;

    qsort(rows, (size_t)n, sizeof *rows, compare_rows);
    for (int i = 0; i < n; i++) families[rows[i].like->family] += rows[i].seconds;
    fprintf(f, "one step, %.3f ms, by what the compute stream does:\n", t->seconds * 1e3);
    for (int i = 0; i < n; i++) {
        const event_family family = rows[i].like->family;
        if (i && rows[i - 1].like->family == family)
            fprintf(f, "  %-14s %8s   ", "", "");
        else
            fprintf(f, "  %-14s %6.2f %%   ", family_names[family], 100 * families[family] / t->seconds);
        print_row(&rows[i], t->seconds, f);
        nothing -= rows[i].seconds;
    }
    fprintf(f, "  %-14s %6.2f %%   %-24s %7s   %11.3f ms %6.2f %%\n", "nothing", 100 * nothing / t->seconds,
            "launch gaps, data, host", "", nothing * 1e3, 100 * nothing / t->seconds);
}
