/* plan.c: see plan.h */
#include "src/train/plan.h"

#include "parallel/pipeline/pipeline.h"
#include "src/train/saver.h"

#include <stdio.h>

model_options model_options_of(const run_config *run, const batch_plan *b, grid_shape size, int stage)
{
    pipe_schedule s = schedule_1f1b(size.pp, stage, (int)b->accumulation);
    model_options opt = {.dt = run->bf16 ? DT_BF16 : run->fp16 ? DT_F16 : DT_F32,
                         .recompute = run->gradient_checkpointing, .micro_batch = b->micro_batch,
                         .seq_len = run->seq_length, .n_slots = s.n_slots, .train = true,
                         .feeds_all = batch_is_divided(&run->batch), .picks = run->batch.mode == MODE_SFT};

    schedule_free(&s);
    return opt;
}

const char *recompute_name(recompute_mode mode)
{
    static const char *const names[] = {"none", "streams", "selective", "keep_attention", "full", "auto"};
    return names[mode];
}

/* NCCL communicators that hold buffers: of every axis in use, two for the pipe's directions (comm_nccl.c).  One that is
 * never called, as `embed` where nothing is tied, takes next to nothing. */
static int n_transports(const moai_model *m)
{
    const moai_grid *g = m->ctx.grid;

    return (g->tp.size > 1) + (g->cp.size > 1) + (g->data.size > 1) + 2 * (g->pp.size > 1) + (g->kv.size > 1) +
           (g->embed.size > 1 && m->cfg.tie_word_embeddings);
}

/* Of attention's backward: cuDNN's fp32 gradient of q, or what its deterministic one keeps. */
static size_t attend_workspace(const moai_model *m, bool deterministic)
{
    const attend_shape s = attend_shape_of(m->ctx.heads, m->opt.micro_batch, m->opt.seq_len);

    if (!deterministic || m->ctx.dt == DT_F32)
        return (size_t)(m->ctx.n_tokens * ctx_q_cols(&m->ctx)) * sizeof(float);
    return attend_keeps_scores(s) ? attend_score_bytes(s) : 0;
}

/* What a GPU's memory holds besides the arenas: the context with the kernels' code, cuBLASLt's workspace and the ops'
 * scratch (cuda.h), attention's, and NCCL's buffers.  The first and the last as measured on pairs of H200 with CUDA
 * 13.0 and NCCL 2.28: beside what one card takes, TP 2 and DP 2 add 863 MiB, PP 2 twice 849. */
static size_t backend_bytes(const moai_model *m, bool deterministic)
{
    const size_t mib = 1 << 20, context = 512 * mib, workspaces = 96 * mib, transport = 860 * mib;

    return context + workspaces + attend_workspace(m, deterministic) + (size_t)n_transports(m) * transport;
}

void plan_stage(plan_memory *p, const run_config *run, const model_config *cfg, grid_shape size,
                const batch_plan *batch, int stage, bool gpu)
{
    const model_options opt = model_options_of(run, batch, size, stage);
    const grid_shape at = {.tp = 0, .cp = 0, .dp = 0, .pp = stage};
    moai_grid grid;
    moai_model m;

    grid_dry(&grid, size, at, (int)cfg->num_key_value_heads);
    model_plan(&m, cfg, &grid, &opt);
    *p = (plan_memory){.first_layer = m.first_layer, .n_layers = m.n_layers, .stream_layers = m.ctx.stream_layers};
    if (gpu) p->backend = backend_bytes(&m, run->deterministic);
    if (plan_copies(run)) p->copy = opt_state_bytes(&m.states);
    p->total = p->backend + (gpu ? 0 : p->copy);
    for (int a = 0; a < N_ARENAS; a++) p->total += p->arenas[a] = model_bytes(&m, a);
    model_free(&m);
}

void plan_say(const run_config *run, const char *fmt, ...)
{
    FILE *to = run->plan ? stdout : stderr;
    va_list ap;

    if (!base_process.printer) return;
    va_start(ap, fmt);
    vfprintf(to, fmt, ap);
    va_end(ap);
    fputc('\n', to);
    if (to == stderr) fflush(to);
}

/* One row a stage. */
static void print_memory(const run_config *run, const model_config *cfg, grid_shape size, const batch_plan *batch,
                         bool gpu, size_t free_bytes)
{
    const bool copies = plan_copies(run);
    size_t worst = 0, copy = 0;

    plan_say(run,
             "memory per rank, GiB:  stage  layers     weights   gradients   optimizer activations     scratch%s"
             "       total",
             gpu      ? "     backend"
             : copies ? "        copy"
                      : "");
    for (int stage = 0; stage < size.pp; stage++) {
        plan_memory p;
        char row[128] = "";
        int n = 0;
        plan_stage(&p, run, cfg, size, batch, stage, gpu);
        for (int a = 0; a < N_ARENAS; a++)
            n += snprintf(row + n, sizeof row - (size_t)n, "%12.4f", gib(p.arenas[a]));
        if (gpu || copies) snprintf(row + n, sizeof row - (size_t)n, "%12.4f", gib(gpu ? p.backend : p.copy));
        plan_say(run, "                       %5d  %3lld-%-3lld%s%12.4f", stage, (long long)p.first_layer,
                 (long long)(p.first_layer + p.n_layers - 1), row, gib(p.total));
        worst = p.total > worst ? p.total : worst;
        copy = p.copy > copy ? p.copy : copy;
    }
    if (copy)
        plan_say(
            run,
            "saves      while training goes on, from a copy: %.4f GiB of host memory a rank%s (--no_async_save: none)",
            gib(copy), gpu ? " beside the above" : "");
    if (run->device_memory > 0)
        plan_say(run, "fit        the largest rank takes %.4f GiB of the %.15g that device_memory gives it", gib(worst),
                 run->device_memory);
    else if (gpu)
        plan_say(run, "fit        the largest rank takes %.4f GiB of the %.1f that are free on its GPU", gib(worst),
                 gib(free_bytes));
    else
        plan_say(run, "fit        the largest rank takes %.4f GiB; a host's ranks share %.1f for each", gib(worst),
                 gib(free_bytes));
}

/* Stages that hold other numbers of micro-batches have groups of other lengths. */
static void print_streams(const run_config *run, const model_config *cfg, grid_shape size, const batch_plan *batch)
{
    int64_t least = INT64_MAX, most = 0;
    char kept[64] = "";

    for (int stage = 0; stage < size.pp; stage++) {
        plan_memory p;
        plan_stage(&p, run, cfg, size, batch, stage, false);
        least = min_i64(least, p.stream_layers);
        most = max_i64(most, p.stream_layers);
    }
    if (most == 1)
        snprintf(kept, sizeof kept, ", kept every layer");
    else if (most && least == most)
        snprintf(kept, sizeof kept, ", kept every %lld layers", (long long)most);
    else if (most)
        snprintf(kept, sizeof kept, ", kept every %lld to %lld layers", (long long)least, (long long)most);
    plan_say(run, "streams    %lld, mixed by %s%s%s", (long long)cfg->hc.mult,
             cfg->hc.mixing == HC_SINKHORN ? "Sinkhorn's iterations" : "permutations", kept,
             cfg->hc.head ? "; the head reads them by coefficients" : "");
}

void plan_print(const run_config *run, const model_config *cfg, grid_shape size, const batch_plan *b, bool gpu,
                size_t free_bytes)
{
    char n[32], tokens[32];
    const double products = model_flops_products(cfg), attention = model_flops_attention(cfg, run->seq_length);

    plan_say(run,
             "model      %s parameters: %lld layers, hidden %lld, heads %lld:%lld of %lld, "
             "intermediate %lld, vocabulary %lld%s",
             with_commas(n, model_n_params(cfg)), (long long)cfg->num_hidden_layers, (long long)cfg->hidden_size,
             (long long)cfg->num_attention_heads, (long long)cfg->num_key_value_heads, (long long)cfg->head_dim,
             (long long)cfg->intermediate_size, (long long)cfg->vocab_size, cfg->tie_word_embeddings ? " (tied)" : "");
    if (cfg->hc.mult > 1) print_streams(run, cfg, size, b);
    if (cfg->lora.rank) {
        char trained[160];
        finetune_describe(trained, cfg);
        plan_say(run, "adapters   rank %lld, scale %g: %s", (long long)cfg->lora.rank, lora_scale(&cfg->lora), trained);
    }
    plan_say(run, "grid       %d ranks = TP %d x CP %d x DP %d x PP %d", size.tp * size.cp * size.dp * size.pp, size.tp,
             size.cp, size.dp, size.pp);
    plan_say(run,
             "batch      %lld samples of %lld tokens (%s tokens) a step = "
             "%lld micro-batch x %lld accumulation x %d data parallel",
             (long long)b->global, (long long)run->seq_length, with_commas(tokens, b->global * run->seq_length),
             (long long)b->micro_batch, (long long)b->accumulation, size.dp);
    if (size.cp > 1)
        plan_say(run, "context    %lld of a sample's %lld tokens a rank: 2 of its %d chunks, and the keys of all",
                 (long long)run->seq_length / size.cp, (long long)run->seq_length, 2 * size.cp);
    plan_say(run, "output     %s", run->output_dir);
    plan_say(run, "numbers    %s, recomputation %s",
             run->bf16   ? "bf16 with fp32 master weights and moments"
             : run->fp16 ? "fp16 with fp32 master weights and moments, dynamic loss scaling"
                         : "fp32",
             recompute_name(run->gradient_checkpointing));
    plan_say(run,
             "FLOPs      %.4g G a token = products %.4g G + causal attention %.4g G, "
             "forward and backward, recomputation not counted",
             (products + attention) * 1e-9, products * 1e-9, attention * 1e-9);
    print_memory(run, cfg, size, b, gpu, free_bytes);
}
