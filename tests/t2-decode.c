/* run: mpirun -np 4 %s */
/* Decoding against the forward of training, on 1, 2 and 4 tensor ranks (4 > 2 KV heads: replicated; odd shares of
 * the vocabulary). */
#include "src/serve/generate.h"
#include "tests/lib/samples.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

enum { T = 24, V = 71, N_SEQUENCES = 3, PER_GENERATION = 12 };

static const model_config plain = {.num_hidden_layers = 3,
                                   .hidden_size = 48,
                                   .intermediate_size = 70,
                                   .num_attention_heads = 8,
                                   .num_key_value_heads = 2,
                                   .head_dim = 16,
                                   .vocab_size = V,
                                   .max_position_embeddings = 64,
                                   .pad_token_id = 0,
                                   .bos_token_id = -1,
                                   .eos_token_id = {{1}, 1},
                                   .rms_norm_eps = 1e-6,
                                   .initializer_range = 0.3,
                                   .rope_theta = 1000,
                                   .rope = {.factor = 1}};
static moai_device *dev;
static moai_grid world;

static bool agree(bool holds)
{
    moai_error err = {.text = ""};
    return comm_agree(&world.host_world, !holds, &err) == 0;
}

static model_config dynamic_config(void)
{
    model_config cfg = plain;
    cfg.max_position_embeddings = T / 2;
    cfg.rope.kind = ROPE_DYNAMIC;
    cfg.rope.factor = 2;
    return cfg;
}

static model_config tied_config(void)
{
    model_config cfg = plain;
    cfg.tie_word_embeddings = true;
    return cfg;
}

static model_config streams_config(void)
{
    model_config cfg = plain;
    cfg.hc.mult = 4, cfg.hc.head = true, cfg.hc.sinkhorn_iters = 20, cfg.hc.eps = 1e-6, cfg.hc.init_alpha = 1;
    return cfg;
}

static void init_model(moai_model *m, const model_config *cfg, const moai_grid *grid, dtype dt)
{
    const model_options opt = {.dt = dt, .micro_batch = N_SEQUENCES, .seq_len = T, .n_slots = 1, .train = true};
    moai_error err;

    model_plan(m, cfg, grid, &opt);
    CHECK(!model_alloc(m, &ops_cpu, dev, grid, &err), "%s", err.text);
    model_init_weights(m, 5);
}

/* A decoder with the weights of a model on the same grid. */
static void init_decoder(decoder *d, const model_config *cfg, const moai_grid *grid, const decoder_options *opt)
{
    moai_model m;
    moai_error err;

    init_model(&m, cfg, grid, opt->dt);
    CHECK(!decoder_init(d, cfg, opt, &ops_cpu, dev, grid, &err), "%s", err.text);
    CHECK(d->params.n_elem == m.params.n_elem, "the tables differ");
    memcpy(d->weights, m.weights, (size_t)m.params.n_elem * dtype_size(opt->dt));
    model_free(&m);
}

static int32_t token(int64_t s, int64_t p) { return (int32_t)((7 + 31 * p + 13 * s + p * p) % V); }

/* logits (N_SEQUENCES, T, V) as training computes them, on one tensor rank */
static float *expected_logits(const model_config *cfg, dtype dt)
{
    int32_t ids[N_SEQUENCES * (T + 1)];
    float *logits = xmalloc(N_SEQUENCES * T * V * sizeof *logits);
    moai_grid alone;
    moai_model m;

    grid_init(&alone, (grid_shape){1, 1, world.world, 1}, (int)cfg->num_key_value_heads);
    init_model(&m, cfg, &alone, dt);
    for (int i = 0; i < N_SEQUENCES * (T + 1); i++) ids[i] = token(i / (T + 1), i % (T + 1));
    set_samples(&m, 0, ids);
    chunk_forward(&m, 0, 0, (tensor){0}, 0);
    model_logits(&m, 0, 0, N_SEQUENCES * T, logits);
    model_free(&m);
    grid_free(&alone);
    return logits;
}

/* Rows of a forward under construction; every row is wanted. */
typedef struct batch {
    int64_t n;
    int32_t ids[N_SEQUENCES * T], seq[N_SEQUENCES * T], pos[N_SEQUENCES * T], wanted[N_SEQUENCES * T];
} batch;

static void add(batch *b, int64_t s, int64_t begin, int64_t end)
{
    for (int64_t p = begin; p < end && p < T; p++, b->n++) {
        b->ids[b->n] = token(s, p);
        b->seq[b->n] = (int32_t)s;
        b->pos[b->n] = (int32_t)p;
        b->wanted[b->n] = (int32_t)b->n;
    }
}

/* Runs the batch and puts each row's logits where expected_logits has them. */
static void run(decoder *d, batch *b, float *logits)
{
    float *rows = xmalloc((size_t)(b->n * V) * sizeof *rows);

    if (b->n) decoder_forward(d, (decode_rows){b->n, b->ids, b->seq, b->pos, b->n, b->wanted}, rows);
    for (int64_t i = 0; i < b->n; i++) memcpy(logits + (b->seq[i] * T + b->pos[i]) * V, rows + i * V, V * sizeof *rows);
    free(rows);
    b->n = 0;
}

/* Sequence 0 in one piece, 1 token by token, 2 in chunks of 5: beside each other, in the same forwards. */
static void decode_all(decoder *d, float *logits)
{
    batch b = {0};

    for (int64_t step = 0; step < T; step++) {
        if (step == 3) add(&b, 0, 0, T);
        add(&b, 2, 5 * step, 5 * step + 5);
        add(&b, 1, step, step + 1);
        run(d, &b, logits);
    }
}

static double worst_difference(const float *a, const float *b, int64_t n)
{
    double worst = 0, scale = 0;

    for (int64_t i = 0; i < n; i++) {
        const double difference = fabs((double)a[i] - b[i]);
        if (!(difference <= worst)) worst = difference; /* a NaN stays */
        scale = fmax(scale, fabs((double)b[i]));
    }
    return worst / scale;
}

static void test_logits(const char *what, const model_config *cfg, const moai_grid *grid, dtype dt, double tolerance)
{
    const decoder_options opt = {
        .dt = dt, .n_sequences = N_SEQUENCES, .max_len = T, .max_rows = N_SEQUENCES * T, .max_wanted = N_SEQUENCES * T};
    float *expected = expected_logits(cfg, dt), *logits = xmalloc(N_SEQUENCES * T * V * sizeof *logits);
    decoder d;

    init_decoder(&d, cfg, grid, &opt);
    decode_all(&d, logits);
    for (int s = 0; s < N_SEQUENCES; s++) {
        static const char *const how[] = {"in one piece", "token by token", "in chunks of 5"};
        const double worst = worst_difference(logits + s * T * V, expected + s * T * V, T * V);
        ok(worst <= tolerance, "%s, %s, TP %d, %s: logits differ by %.2g of the largest, allowed %.2g", what,
           dtype_name(dt), grid->size.tp, how[s], worst, tolerance);
    }
    decoder_free(&d);
    free(expected);
    free(logits);
}

/* -- generate -- */

enum { N_TEXTS = 5 };
static const int64_t prompt_length[N_TEXTS] = {3, 11, 1, 6, 9};

typedef struct texts {
    int32_t ids[N_TEXTS][T];
    sequence list[N_TEXTS];
    int64_t calls[N_TEXTS], finished[N_TEXTS];
} texts;

static void count_call(void *arg, const sequence *list, int64_t i, bool finished)
{
    texts *t = arg;

    t->calls[i]++;
    t->finished[i] += finished;
    if (list != t->list) t->calls[i] = -1000;
}

/* Texts [first, end) with `places` in the cache and forwards of max_rows. */
static void write_texts(texts *t, const moai_grid *grid, int64_t places, int64_t max_rows, const generate_options *opt,
                        generate_rates *rates)
{
    const decoder_options o = {
        .dt = DT_F32, .n_sequences = places, .max_len = T, .max_rows = max_rows, .max_wanted = places};
    decoder d;

    memset(t, 0, sizeof *t);
    for (int i = 0; i < N_TEXTS; i++) {
        for (int p = 0; p < prompt_length[i]; p++) t->ids[i][p] = token(i, p);
        t->list[i] = (sequence){.ids = t->ids[i], .n_prompt = prompt_length[i], .n = prompt_length[i]};
    }
    init_decoder(&d, &plain, grid, &o);
    generate(&d, t->list, N_TEXTS, opt, count_call, t, rates);
    decoder_free(&d);
}

static bool same_texts(const texts *a, const texts *b) { return memcmp(a->ids, b->ids, sizeof a->ids) == 0; }

static void test_generate(const moai_grid *grid, generate_options opt, const char *what, const texts *expected)
{
    const int tp = grid->size.tp;
    generate_rates rates;
    texts one, few, all;
    int64_t read = 0;
    bool complete = true;

    write_texts(&one, grid, 1, 4, &opt, &rates);
    ok(same_texts(&one, expected), "%s, TP %d: the same texts as on one rank", what, tp);
    for (int i = 0; i < N_TEXTS; i++) read += prompt_length[i];
    ok(rates.read_tokens == read && rates.written_tokens == N_TEXTS * (PER_GENERATION - 1),
       "%s, TP %d: %lld tokens read, %lld written beyond the first ones", what, tp, (long long)rates.read_tokens,
       (long long)rates.written_tokens);
    for (int i = 0; i < N_TEXTS; i++)
        complete &= one.calls[i] == PER_GENERATION && one.finished[i] == 1 &&
                    one.list[i].n == prompt_length[i] + PER_GENERATION;
    ok(complete, "%s, TP %d: every token is announced once", what, tp);
    write_texts(&few, grid, 2, 7, &opt, &rates);
    ok(same_texts(&one, &few), "%s, TP %d: two at a time, prompts in pieces, the same texts", what, tp);
    write_texts(&all, grid, N_TEXTS, 64, &opt, &rates);
    ok(same_texts(&one, &all), "%s, TP %d: all at once, the same texts", what, tp);
}

static generate_options options(double temperature, uint64_t seed)
{
    return (generate_options){.sample = {temperature, 0, temperature > 0 ? 0.9 : 1},
                              .seed = seed,
                              .max_new_tokens = PER_GENERATION,
                              .n_vocab = V};
}

static void test_seeds_and_stops(const moai_grid *alone, const texts *greedy, const texts *sampled)
{
    generate_options opt = options(1, 12);
    generate_rates rates;
    texts t;

    write_texts(&t, alone, 2, 8, &opt, &rates);
    ok(!same_texts(&t, sampled), "another seed writes other texts");
    ok(!same_texts(greedy, sampled), "sampling is not greedy");

    opt = options(0, 0);
    opt.stop = (token_list){{V, greedy->ids[1][prompt_length[1] + 4]}, 2};
    int64_t first = 0;
    while (greedy->ids[1][prompt_length[1] + first] != opt.stop.id[1]) first++;
    write_texts(&t, alone, 2, 8, &opt, &rates);
    ok(t.list[1].stopped && t.list[1].n == prompt_length[1] + first + 1,
       "a stop token ends its sequence after %lld tokens, here %lld", (long long)first + 1,
       (long long)(t.list[1].n - prompt_length[1]));

    opt = options(1, 11);
    opt.n_vocab = 9;
    write_texts(&t, alone, 2, 8, &opt, &rates);
    int32_t largest = 0;
    for (int i = 0; i < N_TEXTS; i++)
        for (int64_t p = prompt_length[i]; p < t.list[i].n; p++)
            largest = t.ids[i][p] > largest ? t.ids[i][p] : largest;
    ok(largest < 9, "only ids below n_vocab are drawn, the largest is %d", (int)largest);
}

static void test_reach(void)
{
    model_config cfg = plain;

    ok(decoder_reach(&cfg) == 64, "without scaling positions end at max_position_embeddings");
    cfg.rope.kind = ROPE_YARN, cfg.rope.factor = 4, cfg.rope.original_max_position_embeddings = 32;
    ok(decoder_reach(&cfg) == 128, "yarn stretches the original length: %lld", (long long)decoder_reach(&cfg));
    cfg.rope.kind = ROPE_DYNAMIC;
    ok(decoder_reach(&cfg) == INT32_MAX, "dynamic NTK adapts to any length");
    cfg.rope.kind = ROPE_YARN, cfg.rope.original_max_position_embeddings = 16, cfg.max_position_embeddings = 64;
    ok(decoder_reach(&cfg) == 64, "which max_position_embeddings may count already: %lld",
       (long long)decoder_reach(&cfg));
}

int main(int argc, char **argv)
{
    const int n_ranks = process_start(&argc, &argv);
    const model_config dynamic = dynamic_config(), tied = tied_config(), streams = streams_config();
    const generate_options greedy = options(0, 0), sampling = options(1, 11);
    texts greedy_texts, sampled_texts;
    generate_rates rates;

    grid_init(&world, (grid_shape){n_ranks, 1, 1, 1}, 2);
    tap_agree = agree;
    dev = device_open_cpu(1);
    test_reach();
    for (int tp = 1; tp <= n_ranks; tp *= 2) {
        moai_grid grid;
        grid_init(&grid, (grid_shape){tp, 1, n_ranks / tp, 1}, 2);
        if (tp == 1)
            write_texts(&greedy_texts, &grid, 1, 64, &greedy, &rates),
                write_texts(&sampled_texts, &grid, 1, 64, &sampling, &rates);
        test_logits("plain", &plain, &grid, DT_F32, 1e-5);
        test_logits("dynamic", &dynamic, &grid, DT_F32, 1e-5);
        test_logits("tied", &tied, &grid, DT_F32, 1e-5);
        test_logits("streams", &streams, &grid, DT_F32, 1e-5);
        test_logits("plain", &plain, &grid, DT_BF16, 5e-2);
        test_generate(&grid, greedy, "greedy", &greedy_texts);
        test_generate(&grid, sampling, "sampling", &sampled_texts);
        if (tp == 1) test_seeds_and_stops(&grid, &greedy_texts, &sampled_texts);
        grid_free(&grid);
    }
    device_close_cpu(dev);
    grid_free(&world);
    int status = tap_done();
    process_finish();
    return status;
}
