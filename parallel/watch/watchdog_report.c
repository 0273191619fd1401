/* watchdog_report.c: see watchdog_report.h */
#include "parallel/watch/watchdog_report.h"

#include "parallel/watch/mail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINES = 16 };                          /* that a report has for late ranks, and again for waiting ones */

typedef struct hang_report {
    const moai_grid *grid;
    const watch_answer *of;                   /* (world) */
    bool *late;                               /* (world) */
    bool busy;                                /* nobody is late, but one that is waited for has something to do */
    double hang_timeout, longest;
    int n_late, n_waiting, n_apart;
} hang_report;

static bool waits(const watch_answer *a) { return a->alive && a->note.state == WATCH_WAITS; }

/* Does the rank `waiting`, in the operation of its note, wait for what `other` does? */
static bool waits_for(const moai_grid *g, const watch_note *n, int waiting, int other)
{
    const grid_shape a = grid_coordinates(g->size, waiting), b = grid_coordinates(g->size, other);
    const bool tp = a.tp == b.tp, cp = a.cp == b.cp, dp = a.dp == b.dp, pp = a.pp == b.pp;

    if (waiting == other) return false;
    if (strcmp(n->axis, "tp") == 0) return cp && dp && pp;
    if (strcmp(n->axis, "kv") == 0) return cp && dp && pp && a.tp / g->kv.size == b.tp / g->kv.size;
    if (strcmp(n->axis, "cp") == 0) return tp && dp && pp;
    if (strcmp(n->axis, "dp") == 0) return tp && cp && pp;
    if (strcmp(n->axis, "data") == 0) return tp && pp;
    if (strcmp(n->axis, "samples") == 0) return dp && pp;
    if (strcmp(n->axis, "pp") == 0) return tp && cp && dp && (n->peer < 0 || n->peer == b.pp);
    if (strcmp(n->axis, "embed") == 0) return tp && cp && dp && (b.pp == 0 || b.pp == g->size.pp - 1);
    return true;                              /* the world */
}

/* Does one that has waited too long wait for it? */
static bool is_missed(const hang_report *s, int rank)
{
    for (int r = 0; r < s->grid->world; r++)
        if (waits(&s->of[r]) && s->of[r].seconds >= s->hang_timeout &&
            waits_for(s->grid, &s->of[r].note, r, rank))
            return true;
    return false;
}

/* One that answers and has lately got on, or is at what may take longer than any timeout: files. */
static bool is_busy(const hang_report *s, const watch_answer *a)
{
    static const char *const unlimited_phases[] = {"start", "loading", "saving", "end"};

    if (a->seconds < s->hang_timeout) return true;
    if (s->hang_timeout > 0 && a->note.files > 0) return true;
    for (size_t i = 0; s->hang_timeout > 0 && i < sizeof unlimited_phases / sizeof *unlimited_phases; i++)
        if (strcmp(a->note.phase, unlimited_phases[i]) == 0) return true;
    return false;
}

/* The silent ones; when all answer, those that are long at something else while somebody waits for them. */
static void find_late(hang_report *s)
{
    const int world = s->grid->world;

    for (int r = 0; r < world; r++) {
        s->late[r] = !s->of[r].alive && !s->of[r].apart;
        s->n_apart += s->of[r].apart;
        s->n_late += s->late[r];
        s->n_waiting += waits(&s->of[r]);
        if (waits(&s->of[r]) && s->of[r].seconds > s->longest) s->longest = s->of[r].seconds;
    }
    if (s->n_late > 0) return;
    for (int r = 0; r < world; r++) {
        if (waits(&s->of[r]) || s->of[r].apart || !is_missed(s, r)) continue;
        if (is_busy(s, &s->of[r]))
            s->busy = true;
        else
            s->late[r] = true, s->n_late++;
    }
}

static void put_ranks(FILE *f, const hang_report *s, int n, bool (*which)(const hang_report *, int rank, int of),
                      int of)
{
    int n_shown = 0;

    fprintf(f, "rank%s", n == 1 ? "" : "s");
    for (int r = 0; r < s->grid->world && n_shown < LINES; r++)
        if (which(s, r, of)) fprintf(f, "%s %d", n_shown++ ? "," : "", r);
    if (n > n_shown) fprintf(f, " and %d more", n - n_shown);
}

static bool is_late(const hang_report *s, int rank, int of) { return (void)of, s->late[rank]; }
static bool is_awaited(const hang_report *s, int rank, int by)
{
    return s->late[rank] && waits_for(s->grid, &s->of[by].note, by, rank);
}

static int count(const hang_report *s, bool (*which)(const hang_report *, int rank, int of), int of)
{
    int n = 0;

    for (int r = 0; r < s->grid->world; r++) n += which(s, r, of);
    return n;
}

/* "all_gather 118 over tp of 1440 elements" */
static void put_op(FILE *f, const watch_note *n)
{
    fprintf(f, "%s %lld over %s of %lld elements", n->what, (long long)n->number, n->axis, (long long)n->n_elem);
    if (n->peer >= 0) fprintf(f, " %s its rank %d", strcmp(n->what, "send") == 0 ? "to" : "from", n->peer);
}

/* "step 12, forward of micro-batch 1" */
static void put_place(FILE *f, const watch_note *n)
{
    if (n->step >= 0) fprintf(f, "step %lld", (long long)n->step);
    if (n->phase[0]) fprintf(f, "%s%s", n->step >= 0 ? ", " : "", n->phase);
    if (n->micro_batch >= 0) fprintf(f, " of micro-batch %lld", (long long)n->micro_batch);
    if (n->step < 0 && !n->phase[0]) fputs("no step", f);
    if (n->files > 0) fputs(", in its files", f);
}

static void put_name(FILE *f, const moai_grid *grid, const char *label, int rank)
{
    char *name = mail_peer_name(grid, rank);

    fprintf(f, "  %-6s %s: ", label, name);
    free(name);
}

static void put_late(FILE *f, const hang_report *s, int rank)
{
    static const char *const state[] = {[WATCH_BEGAN] = "begun", [WATCH_WAITS] = "not complete",
                                        [WATCH_ENDED] = "ended"};
    const watch_answer *a = &s->of[rank];

    put_name(f, s->grid, "late", rank);
    if (!a->alive) fputs("does not answer, it is stopped or dead; ", f);
    if (!a->known) {
        fputs("nor does a neighbour on its host, so what it did last is not known\n", f);
        return;
    }
    fprintf(f, a->alive ? "for %.1f s in " : "last seen %.1f s ago in ", a->seconds);
    put_place(f, &a->note);
    if (a->note.what[0]) {
        fputs("; its last operation: ", f);
        put_op(f, &a->note);
        fprintf(f, ", %s", state[a->note.state]);
    }
    fputs("\n", f);
}

static void put_waiting(FILE *f, const hang_report *s, int rank)
{
    const watch_answer *a = &s->of[rank];
    const int n = count(s, is_awaited, rank);

    put_name(f, s->grid, "waits", rank);
    if (n > 0) fputs("for ", f), put_ranks(f, s, n, is_awaited, rank), fputs(", ", f);
    fprintf(f, "%.1f s in ", a->seconds);
    put_op(f, &a->note);
    fputs(" in ", f);
    put_place(f, &a->note);
    fputs("\n", f);
}

static void put_headline(FILE *f, const hang_report *s, const char *error)
{
    fprintf(f, "moai: %s: ", error[0] ? error : "hang");
    if (s->n_late > 0) {
        put_ranks(f, s, s->n_late, is_late, 0);
        fprintf(f, " %s late; ", s->n_late == 1 ? "is" : "are");
    } else {
        fputs(s->n_apart ? "nobody who can be asked is late; " : "all ranks wait for each other; ", f);
    }
    fprintf(f, "%d of %d ranks wait, the longest for %.1f s", s->n_waiting, s->grid->world, s->longest);
    fprintf(f, error[0] ? "\n" : " (hang_timeout %g)\n", s->hang_timeout);
}

/* Those that wait for a late rank come first, then the others. */
static void put_all_waiting(FILE *f, const hang_report *s)
{
    int n_shown = 0;

    for (int directly = 1; directly >= 0; directly--)
        for (int r = 0; r < s->grid->world && n_shown < LINES; r++)
            if (waits(&s->of[r]) && (count(s, is_awaited, r) > 0) == directly) put_waiting(f, s, r), n_shown++;
    if (s->n_waiting > n_shown) fprintf(f, "  and %d more wait\n", s->n_waiting - n_shown);
}

char *watchdog_report(const moai_grid *g, const watch_answer *answers, double hang_timeout, const char *error)
{
    hang_report s = {.grid = g, .of = answers, .hang_timeout = error[0] ? 0 : hang_timeout};
    char *text = NULL;
    size_t n = 0;
    int n_shown = 0;

    s.late = xmalloc((size_t)g->world * sizeof *s.late);
    find_late(&s);
    if (s.longest >= s.hang_timeout && (s.n_late > 0 || !s.busy)) {
        FILE *f = open_memstream(&text, &n);
        CHECK(f, "out of host memory");
        put_headline(f, &s, error);
        for (int r = 0; r < g->world && n_shown < LINES; r++)
            if (s.late[r]) put_late(f, &s, r), n_shown++;
        if (s.n_late > n_shown) fprintf(f, "  and %d more are late\n", s.n_late - n_shown);
        put_all_waiting(f, &s);
        if (s.n_apart > 0)
            fprintf(f, "  %d ranks of other hosts cannot be asked: no UDP comes from there\n", s.n_apart);
        fclose(f);
    }
    free(s.late);
    return text;
}
