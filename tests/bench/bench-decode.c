/* Writing against its bound: every weight, and every key and value so far, is read once for each step's tokens.
 *
 *     bench-decode --plan [flags of moai_train: --model --bf16 --device --num_threads
 *                   --batch_size sequences side by side, --seq_length tokens of each one's prompt,
 *                   --quantization nf4]
 *
 * Weights are random, so nothing is loaded.  Sequences write 256 tokens each, with moai_generate's temperature and
 * top-p.  The bound is the bytes over the rate of a large copy, measured here; the embedding's rows are not counted.
 * The prompts are read once before, so that no library is loaded and no product planned on the way. */
#include "src/base/rng.h"
#include "src/device/device.h"
#include "src/ops/nf4.h"
#include "src/serve/generate.h"
#include "src/train/run_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NEW_TOKENS = 256, MOST_ROWS = 4096 };

typedef struct bench {
    run_config run;
    model_config cfg;
    moai_grid grid;
    device device;
    decoder decoder;
} bench;

static void fill_table(decoder *d, const param_table *t, void *flat)
{
    const moai_ctx *c = &d->ctx;

    for (int i = 0; i < t->n; i++) {
        const param *p = &t->list[i];
        if (p->storage == STORE_NF4) continue;
        const tensor x = param_block(p, tensor_of(flat, c->dt, 1, t->n_elem));
        if (p->ndim == 1)
            c->ops->fill(c->dev, x, 1);
        else
            c->ops->fill_normal(c->dev, x, rng_key(1, p->name), 0, 0, p->n_cols, (float)d->cfg.initializer_range);
    }
}

static void fill_weights(decoder *d)
{
    const moai_ctx *c = &d->ctx;
    const int64_t n = d->frozen.n_nf4;

    fill_table(d, &d->params, d->weights);
    fill_table(d, &d->frozen, d->frozen_weights);
    if (n) c->ops->fill_normal(c->dev, tensor_of(d->codes, DT_BF16, 1, n / 4), 5, 0, 0, n / 4, 1);
    if (n) c->ops->fill(c->dev, tensor_of(d->absmax, DT_F32, 1, n / NF4_BLOCK), 0.02f);
    c->ops->sync(c->dev);
}

/* Bytes that a step reads of a table's weights. */
static double bytes_of(const decoder *d, const param_table *t)
{
    double sum = 0;

    for (int i = 0; i < t->n; i++) {
        const param *p = &t->list[i];
        const bool is_looked_up = strcmp(p->name, "model.embed_tokens.weight") == 0 && !d->cfg.tie_word_embeddings;
        const double each = p->storage == STORE_NF4 ? 0.5 + 4.0 / NF4_BLOCK : (double)dtype_size(d->opt.dt);
        if (!is_looked_up) sum += each * (double)(p->n_rows * p->n_cols);
    }
    return sum;
}

/* Bytes a second, read and written, of the best of some copies. */
static double copy_rate(const device *d)
{
    const size_t n_bytes = strcmp(d->ops->name, "cpu") == 0 ? (size_t)256 << 20 : (size_t)2 << 30;
    char *p = d->ops->alloc(d->dev, 2 * n_bytes);
    double best = 1e30;

    CHECK(p, "%zu bytes to copy do not fit", 2 * n_bytes);
    d->ops->zero(d->dev, p, 2 * n_bytes);
    for (int run = 0; run < 5; run++) {
        d->ops->sync(d->dev);
        const double begin = now_seconds();
        d->ops->copy(d->dev, p + n_bytes, p, n_bytes, COPY_ON_DEVICE);
        d->ops->copy(d->dev, p, p + n_bytes, n_bytes, COPY_ON_DEVICE);
        d->ops->sync(d->dev);
        const double seconds = (now_seconds() - begin) / 2;
        if (seconds < best) best = seconds;
    }
    d->ops->free(d->dev, p);
    return 2.0 * (double)n_bytes / best;
}

static void ignore(void *arg, const sequence *list, int64_t i, bool finished)
{
    (void)arg, (void)list, (void)i, (void)finished;
}

static generate_rates write_all(bench *b, int64_t n_sequences, int64_t n_prompt, int64_t n_new, sample_options how)
{
    const generate_options opt = {
        .sample = how, .seed = 1, .max_new_tokens = n_new, .n_vocab = b->cfg.vocab_size};
    sequence *list = xmalloc((size_t)n_sequences * sizeof *list);
    generate_rates rates;

    for (int64_t i = 0; i < n_sequences; i++) {
        list[i] = (sequence){
            .ids = xmalloc((size_t)(n_prompt + n_new) * sizeof *list->ids), .n_prompt = n_prompt, .n = n_prompt};
        for (int64_t t = 0; t < n_prompt; t++)
            list[i].ids[t] = (int32_t)(rng_uniform(7 + (uint64_t)i, (uint64_t)t) * (double)b->cfg.vocab_size);
    }
    generate(&b->decoder, list, n_sequences, &opt, ignore, NULL, &rates);
    for (int64_t i = 0; i < n_sequences; i++) free(list[i].ids);
    free(list);
    return rates;
}

static void measure(bench *b, const char *what, sample_options how, double rate)
{
    const int64_t n = b->run.batch.per_device_train_batch_size, n_prompt = b->run.seq_length;
    const model_config *cfg = &b->cfg;
    const double size = (double)dtype_size(b->decoder.opt.dt);
    const double read_once = bytes_of(&b->decoder, &b->decoder.params) + bytes_of(&b->decoder, &b->decoder.frozen);
    const double cache = (double)(n * (n_prompt + NEW_TOKENS / 2) * cfg->num_hidden_layers * 2 *
                                  cfg->num_key_value_heads * cfg->head_dim) *
                         size;
    const generate_rates r = write_all(b, n, n_prompt, NEW_TOKENS, how);
    const double per_second = (double)r.written_tokens / r.written_seconds, step = (double)n / per_second;

    printf("%-28s read %9.1f tok/s   wrote %8.1f tok/s, %7.3f ms a step; %.2f GB take %.3f ms: %.1f %% of the bound\n",
           what, (double)r.read_tokens / r.read_seconds, per_second, step * 1e3, (read_once + cache) * 1e-9,
           (read_once + cache) / rate * 1e3, 100 * (read_once + cache) / rate / step);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    bench b = {0};
    moai_error err;

    process_start(&argc, &argv);
    if (run_config_read(&b.run, argc, argv, &err) || model_config_read(&b.cfg, b.run.model, &err))
        config_error("%s", err.text);
    b.cfg.quantization.nf4 = b.run.finetune.quantization == QUANTIZATION_NF4;
    const int64_t n = b.run.batch.per_device_train_batch_size, n_prompt = b.run.seq_length;
    const decoder_options opt = {.dt = b.run.bf16 ? DT_BF16 : DT_F32,
                                 .n_sequences = n,
                                 .max_len = n_prompt + NEW_TOKENS,
                                 .max_rows = max_i64(n, min_i64(n * n_prompt, MOST_ROWS)),
                                 .max_wanted = n};
    const device_options on = {.name = b.run.device,
                               .num_threads = b.run.num_threads,
                               .deterministic = true,
                               .decoding = true};
    grid_init(&b.grid, (grid_shape){1, 1, 1, 1}, (int)b.cfg.num_key_value_heads);
    CHECK(device_open(&b.device, &on, &err) == 0, "%s", err.text);
    CHECK(decoder_init(&b.decoder, &b.cfg, &opt, b.device.ops, b.device.dev, &b.grid, &err) == 0, "%s", err.text);
    fill_weights(&b.decoder);
    const double rate = copy_rate(&b.device);
    printf("%s\n%s in %s%s: %lld parameters; %lld sequences, prompts of %lld tokens; a copy moves %.0f GB/s\n",
           b.device.text, b.run.model, dtype_name(opt.dt), b.cfg.quantization.nf4 ? ", layers in 4 bits" : "",
           (long long)model_n_params(&b.cfg), (long long)n,
           (long long)n_prompt, rate * 1e-9);
    write_all(&b, n, n_prompt, 4, (sample_options){0.8, 0, 0.95});
    measure(&b, "greedy", (sample_options){0, 0, 1}, rate);
    measure(&b, "temperature 0.8, top-p 0.95", (sample_options){0.8, 0, 0.95}, rate);
    decoder_free(&b.decoder);
    grid_free(&b.grid);
    device_close(&b.device);
    run_config_free(&b.run);
    process_finish();
    return 0;
}
