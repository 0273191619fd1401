/* generate.c: see generate.h */
#include "src/serve/generate.h"

#include "src/base/rng.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct generator {
    decoder *d;
    const generate_options *opt;
    sequence *list;
    int64_t n, next;          /* sequences, the first one that has not begun */
    int64_t *at;              /* (n_sequences of the cache) the sequence in each place; -1: free */
    int32_t *ids, *seq, *pos; /* (max_rows) rows of the step ... */
    int64_t n_rows, n_prompt_rows;
    int32_t *wanted, *place; /* (n_sequences) ... those whose logits are wanted, and their places */
    int64_t n_wanted;
    double *u;      /* (n_sequences) the random numbers that draw their tokens, */
    int32_t *drawn; /* and these */
} generator;

static void generator_open(generator *g)
{
    const decoder_options *o = &g->d->opt;
    const size_t rows = (size_t)o->max_rows, places = (size_t)o->n_sequences;

    CHECK(o->max_rows >= o->n_sequences && o->max_wanted >= o->n_sequences,
          "%lld sequences in forwards of %lld rows, %lld wanted", (long long)o->n_sequences, (long long)o->max_rows,
          (long long)o->max_wanted);
    g->at = xmalloc(places * sizeof *g->at);
    for (int64_t s = 0; s < o->n_sequences; s++) g->at[s] = -1;
    g->ids = xmalloc(rows * sizeof *g->ids);
    g->seq = xmalloc(rows * sizeof *g->seq);
    g->pos = xmalloc(rows * sizeof *g->pos);
    g->wanted = xmalloc(places * sizeof *g->wanted);
    g->place = xmalloc(places * sizeof *g->place);
    g->u = xmalloc(places * sizeof *g->u);
    g->drawn = xmalloc(places * sizeof *g->drawn);
}

static void generator_close(generator *g)
{
    void *const all[] = {g->at, g->ids, g->seq, g->pos, g->wanted, g->place, g->u, g->drawn};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* What draws token number t of a sequence. */
static double random_number(const generator *g, int64_t number, int64_t t)
{
    char name[40];

    snprintf(name, sizeof name, "sequence %lld", (long long)number);
    return rng_uniform(rng_key(g->opt->seed, name), (uint64_t)t);
}

static bool is_writing(const sequence *q) { return q->n > q->n_prompt; }

/* Rows for what sequence `place` has not been through, as far as there is room. */
static void add_rows(generator *g, int64_t place)
{
    sequence *q = &g->list[g->at[place]];

    for (; q->n_cached < q->n && g->n_rows < g->d->opt.max_rows; q->n_cached++, g->n_rows++) {
        g->n_prompt_rows += !is_writing(q);
        g->ids[g->n_rows] = q->ids[q->n_cached];
        g->seq[g->n_rows] = (int32_t)place;
        g->pos[g->n_rows] = (int32_t)q->n_cached;
    }
    if (q->n_cached < q->n) return;
    g->wanted[g->n_wanted] = (int32_t)g->n_rows - 1;
    g->place[g->n_wanted] = (int32_t)place;
    g->u[g->n_wanted++] = random_number(g, g->at[place], q->n);
}

/* The rows of the next step: those that write first, so that nobody waits for a long prompt.  False: all is done. */
static bool gather_rows(generator *g)
{
    const int64_t places = g->d->opt.n_sequences;

    g->n_rows = g->n_prompt_rows = g->n_wanted = 0;
    for (int64_t s = 0; s < places; s++) {
        if (g->at[s] < 0 && g->next < g->n) g->at[s] = g->next++;
        if (g->at[s] >= 0 && is_writing(&g->list[g->at[s]])) add_rows(g, s);
    }
    for (int64_t s = 0; s < places && g->n_rows < g->d->opt.max_rows; s++)
        if (g->at[s] >= 0 && !is_writing(&g->list[g->at[s]])) add_rows(g, s);
    return g->n_rows > 0;
}

/* Appends the token drawn for the i-th wanted row. */
static void write_token(generator *g, int64_t i, generate_sink sink, void *arg)
{
    const generate_options *o = g->opt;
    const int64_t place = g->place[i], number = g->at[place];
    const int32_t id = g->drawn[i];
    sequence *q = &g->list[number];

    q->ids[q->n++] = id;
    q->stopped = token_list_has(&o->stop, id);
    const bool finished = q->stopped || q->n == q->n_prompt + o->max_new_tokens;
    if (finished) g->at[place] = -1;
    sink(arg, g->list, number, finished);
}

void generate(decoder *d, sequence *list, int64_t n, const generate_options *opt, generate_sink sink, void *arg,
              generate_rates *rates)
{
    generator g = {.d = d, .opt = opt, .list = list, .n = n};

    *rates = (generate_rates){0};
    generator_open(&g);
    while (gather_rows(&g)) {
        const double begin = now_seconds();
        decoder_sample(d, (decode_rows){g.n_rows, g.ids, g.seq, g.pos, g.n_wanted, g.wanted}, opt->sample, opt->n_vocab,
                       g.u, g.drawn);
        for (int64_t i = 0; i < g.n_wanted; i++) write_token(&g, i, sink, arg);
        const double seconds = now_seconds() - begin;
        const double reading = seconds * (double)g.n_prompt_rows / (double)g.n_rows;
        rates->read_tokens += g.n_prompt_rows;
        rates->read_seconds += reading;
        rates->written_tokens += g.n_rows - g.n_prompt_rows;
        rates->written_seconds += seconds - reading;
    }
    generator_close(&g);
}
