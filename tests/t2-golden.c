/* t2-golden: the whole model on one rank against Transformers' Qwen3ForCausalLM and torch.optim.AdamW: logits, loss,
 * every gradient and three steps in all recomputation modes, bf16 and fp16; `-d cuda` on a GPU.  With arguments WEIGHTS
 * RESULTS ... it holds the weights of a checkpoint or Hugging Face directory against the results of another
 * (tests/slow/t9-hf-roundtrip.sh). */
#include "tests/golden/golden.h"
#include "tests/lib/samples.h"

static const char *const names[] = {"blocks", "gqa7", "tied", "linear", "dynamic", "yarn", "long",
                                    "streams", "streams-lite"};
/* PEFT's adapters on some of these (make_lora.py). */
static const char *const adapter_names[] = {"lora-all", "lora-some", "qlora-all"};
static const char *const mode_names[] = {"none", "streams", "selective", "keep_attention", "full"};

/* Both spellings of config.json are one model. */
static void check_config(const golden *g)
{
    char *path = xasprintf("tests/golden/%s/config-4x.json", g->name);
    moai_error err = {.text = "yes"};
    model_config older;

    bool same = model_config_read(&older, path, &err) == 0 && model_config_same(g->cfg, &older, &err) == 0;
    ok(same, "%s: Transformers 4 and 5 spell one configuration: %s", g->name, err.text);
    free(path);
}

static void check_logits(moai_model *m, const golden *g)
{
    const int64_t n = GOLDEN_SAMPLES * g->seq_len, n_elem = n * g->cfg->vocab_size;
    float *want = golden_result(g, "logits", n_elem), *got = xmalloc((size_t)n_elem * sizeof *got);

    set_samples(m, 0, golden_batch(g, 0));
    chunk_forward(m, 0, 0, (tensor){0}, 0);
    model_logits(m, 0, 0, n, got);
    const int64_t at = distance_of(got, want, n_elem).at;
    const double apart = fabs((double)got[at] - want[at]);
    ok(apart <= 1e-4, "%s: %lld logits within 1e-4, the farthest %.9g against %.9g (%.1e apart)", g->name,
       (long long)n_elem, got[at], want[at], apart);
    free(want);
    free(got);
}

static double mean_loss(moai_model *m, const golden *g)
{
    double total;

    m->ctx.ops->copy(m->ctx.dev, &total, m->totals, sizeof total, COPY_TO_HOST);
    m->ctx.ops->sync(m->ctx.dev);
    return total / (double)(GOLDEN_SAMPLES * g->seq_len);
}

/* Mean loss of the first batch, leaving its gradients. */
static double run_first(moai_model *m, const golden *g)
{
    golden_run(m, golden_batch(g, 0));
    return mean_loss(m, g);
}

/* Returns the gradients; the caller frees. */
static float *check_gradients(moai_model *m, const golden *g, const char *how)
{
    char what[96];
    double squares = 0;

    snprintf(what, sizeof what, "%s: loss, %s", g->name, how);
    ok_close(run_first(m, g), golden_scalar(g, "", "loss"), 1e-5, 0, what);
    float *grads = golden_host(m, m->grads);
    for (int64_t i = 0; i < m->params.n_elem; i++) squares += (double)grads[i] * grads[i];
    snprintf(what, sizeof what, "%s: gradient norm, %s", g->name, how);
    ok_close(sqrt(squares), golden_scalar(g, "", "grad_norm"), 1e-5, 0, what);
    snprintf(what, sizeof what, "gradients, %s,", how);
    golden_compare(m, g, grads, "grad.", 1e-4, what);
    return grads;
}

/* fp32 in one recomputation mode; `first` receives the first mode's gradients, the others' are the same bit for bit. */
static void check_mode(const golden *g, const moai_grid *grid, const device *dev, recompute_mode mode, float **first)
{
    char how[48];
    moai_model m;

    snprintf(how, sizeof how, "recomputing %s", mode_names[mode]);
    golden_model(&m, g, grid, dev, DT_F32, mode, GOLDEN_SAMPLES);
    const size_t bytes = (size_t)m.params.n_elem * sizeof(float);
    if (!*first) check_logits(&m, g);
    float *grads = check_gradients(&m, g, how);
    if (*first) {
        ok(memcmp(*first, grads, bytes) == 0, "%s: gradients, %s, are those of none bit for bit", g->name, how);
        free(grads);
    } else {
        *first = grads;
    }
    golden_compare_steps(&m, g, how);
    model_free(&m);
}

static void check_accumulation(const golden *g, const moai_grid *grid, const device *dev)
{
    moai_model m;

    golden_model(&m, g, grid, dev, DT_F32, RECOMPUTE_NONE, 1);
    free(check_gradients(&m, g, "2 micro-batches of 1"));
    model_free(&m);
}

/* Rounding moves a gradient by some percent; PyTorch's own bf16 model says by how much. */
static void check_bf16_gradients(const moai_model *m, const golden *g, const char *how)
{
    float *grads = golden_host(m, m->grads);
    double worst = -1, worst_torch = 1;
    const char *worst_name = "";
    bool fine = true;

    for (int i = 0; i < m->params.n; i++) {
        const param *p = &m->params.list[i];
        float *want = golden_block(g, golden_find(g, "grad.", p->name), 0, p->rows, 0, p->cols);
        const double moved = distance_of(grads + p->offset, want, p->rows * p->cols).norm;
        const double torch = golden_scalar(g, "bf16.", p->name);
        fine = fine && moved <= 2 * torch + 0.01;
        if (!(moved / torch <= worst / worst_torch)) worst = moved, worst_torch = torch, worst_name = p->name;
        free(want);
    }
    free(grads);
    ok(fine, "%s: bf16 gradients, %s, as near fp32's as PyTorch's are; worst %s %.1e against %.1e", g->name, how,
       worst_name, worst, worst_torch);
}

/* bfloat16 weights and activations. */
static void check_bf16(const golden *g, const moai_grid *grid, const device *dev, recompute_mode mode)
{
    char how[48], what[96];
    moai_model m;

    snprintf(how, sizeof how, "recomputing %s", mode_names[mode]);
    golden_model(&m, g, grid, dev, DT_BF16, mode, GOLDEN_SAMPLES);
    const double loss = run_first(&m, g);
    snprintf(what, sizeof what, "%s: bf16 loss, %s, against fp32's", g->name, how);
    ok_close(loss, golden_scalar(g, "", "loss"), 1e-2, 0, what);
    snprintf(what, sizeof what, "%s: bf16 loss, %s, against PyTorch's in bf16", g->name, how);
    ok_close(loss, golden_scalar(g, "bf16.", "loss"), 1e-2, 0, what);
    check_bf16_gradients(&m, g, how);
    model_free(&m);
}

/* fp16 under a loss scale, which the gradients carry: by its 3 more bits nearer to fp32's than bf16's are. */
static void check_fp16(const golden *g, const moai_grid *grid, const device *dev)
{
    const double scale = 65536;
    char what[96];
    moai_model m;

    golden_model(&m, g, grid, dev, DT_F16, RECOMPUTE_NONE, GOLDEN_SAMPLES);
    golden_run_scaled(&m, golden_batch(g, 0), scale);
    snprintf(what, sizeof what, "%s: fp16 loss against fp32's", g->name);
    ok_close(mean_loss(&m, g), golden_scalar(g, "", "loss"), 1e-3, 0, what);
    float *grads = golden_host(&m, m.grads);
    for (int64_t i = 0; i < m.params.n_elem; i++) grads[i] /= (float)scale;
    golden_compare(&m, g, grads, "grad.", 2e-2, "fp16 gradients over their scale");
    free(grads);
    model_free(&m);
}

/* As saver.c copies them. */
static void move_states_to_host(moai_model *m)
{
    opt_state host = opt_state_on_host(m->states);
    moai_error err;

    CHECK(opt_state_take_host(&host, m->ctx.ops, m->ctx.dev, &err) == 0, "%s", err.text);
    for (int i = 0; i < host.n; i++)
        m->ctx.ops->copy(m->ctx.dev, host.data[i], m->states.data[i], state_bytes(&host.spec[i], host.n_own),
                         COPY_TO_HOST);
    m->ctx.ops->sync(m->ctx.dev);
    m->states = host;
}

/* Three steps with the masters and moments on the host, which the device reaches, are those with all on the device. */
static void check_states_on_host(const golden *g, const moai_grid *grid, const device *dev)
{
    moai_model m[2];
    int n_wrong = 0;

    for (int at_host = 0; at_host < 2; at_host++) {
        golden_model(&m[at_host], g, grid, dev, DT_BF16, RECOMPUTE_NONE, GOLDEN_SAMPLES);
        if (at_host) move_states_to_host(&m[at_host]);
        for (int step = 0; step < GOLDEN_STEPS; step++) golden_step(&m[at_host], g, step);
    }
    const size_t bytes = (size_t)m[0].params.n_own * sizeof(float);
    float *x = xmalloc(bytes), *y = xmalloc(bytes);
    for (int i = 0; i < m[0].states.n; i++) {
        state_read(&m[0].states, i, 0, m[0].params.n_own, x, dev->ops, dev->dev);
        state_read(&m[1].states, i, 0, m[1].params.n_own, y, dev->ops, dev->dev);
        dev->ops->sync(dev->dev);
        n_wrong += memcmp(x, y, bytes) != 0;
    }
    ok(n_wrong == 0 && m[1].states.n == 3 && m[1].states.spec[STATE_EXP_AVG].place == PLACE_HOST,
       "%s: bf16, optimizer states on the host: %d of 3 have other bits after three steps", g->name, n_wrong);
    free(x);
    free(y);
    for (int i = 0; i < 2; i++) model_free(&m[i]);
}

static void open_alone(golden *g, moai_grid *grid, const char *name, device *dev)
{
    char *dir = xasprintf("tests/golden/%s", name);

    golden_open(g, name, dir, dir);
    grid_init(grid, (grid_shape){1, 1, 1, 1}, (int)g->cfg->num_key_value_heads);
    device_connect(dev, grid);
    free(dir);
}

static void check_golden(const char *name, device *dev)
{
    golden g;
    moai_grid grid;
    float *first = NULL;

    open_alone(&g, &grid, name, dev);
    check_config(&g);
    for (recompute_mode mode = RECOMPUTE_NONE; mode <= RECOMPUTE_FULL; mode++) check_mode(&g, &grid, dev, mode, &first);
    check_accumulation(&g, &grid, dev);
    check_bf16(&g, &grid, dev, RECOMPUTE_NONE);
    check_bf16(&g, &grid, dev, RECOMPUTE_FULL);
    check_fp16(&g, &grid, dev);
    check_states_on_host(&g, &grid, dev);
    grid_free(&grid);
    golden_close(&g);
    free(first);
}

/* fp32 alone: what is frozen has no gradients. */
static void check_adapters(const char *name, device *dev)
{
    golden g;
    moai_grid grid;
    float *first = NULL;

    open_alone(&g, &grid, name, dev);
    for (recompute_mode mode = RECOMPUTE_NONE; mode <= RECOMPUTE_FULL; mode++) check_mode(&g, &grid, dev, mode, &first);
    check_accumulation(&g, &grid, dev);
    grid_free(&grid);
    golden_close(&g);
    free(first);
}

/* Weights that somebody wrote against what Transformers computed from them. */
static void check_directory(const char *weights_dir, const char *results_dir, device *dev)
{
    golden g;
    moai_grid grid;
    moai_model m;

    golden_open(&g, weights_dir, weights_dir, results_dir);
    grid_init(&grid, (grid_shape){1, 1, 1, 1}, (int)g.cfg->num_key_value_heads);
    device_connect(dev, &grid);
    golden_model(&m, &g, &grid, dev, DT_F32, RECOMPUTE_NONE, GOLDEN_SAMPLES);
    check_logits(&m, &g);
    check_gradients(&m, &g, "of the directory");
    model_free(&m);
    grid_free(&grid);
    golden_close(&g);
}

int main(int argc, char **argv)
{
    device dev;
    int first;

    process_start(&argc, &argv);
    golden_device(&dev, argc, argv, 2, &first);
    CHECK((argc - first) % 2 == 0, "usage: t2-golden [-d cpu|cuda] [WEIGHTS RESULTS]...");
    for (int i = first; i < argc; i += 2) check_directory(argv[i], argv[i + 1], &dev);
    for (size_t i = 0; argc == first && i < sizeof names / sizeof *names; i++) check_golden(names[i], &dev);
    for (size_t i = 0; argc == first && i < sizeof adapter_names / sizeof *adapter_names; i++)
        check_adapters(adapter_names[i], &dev);
    device_close(&dev);
    int status = tap_done();
    process_finish();
    return status;
}
