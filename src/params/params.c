/* params.c: see params.h */
#include "src/params/params.h"

#include "src/ops/nf4.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN_ELEM = 64 };                     /* matrices start at a cache line in every dtype, shares likewise */

/* Layers go one by one to the cheapest stage; the head counts as so many layers as its product costs. */
static void stage_sizes(const model_config *cfg, int pp, int64_t seq_len, int64_t *n_layers)
{
    const double head = 6.0 * (double)cfg->hidden_size * (double)cfg->vocab_size;
    const double layer =
        (model_flops_products(cfg) - head + model_flops_attention(cfg, seq_len)) / (double)cfg->num_hidden_layers;

    for (int s = 0; s < pp; s++) n_layers[s] = 1;
    for (int64_t left = cfg->num_hidden_layers - pp; left > 0; left--) {
        int best = 0;
        double least = 0;
        for (int s = 0; s < pp; s++) {
            double cost = (double)n_layers[s] * layer + (s == pp - 1 ? head : 0);
            if (s == 0 || cost <= least)
                best = s, least = cost; /* ties go to later stages: they keep fewer micro-batches */
        }
        n_layers[best]++;
    }
}

int64_t stage_begin(const model_config *cfg, int pp, int stage, int64_t seq_len)
{
    int64_t *n_layers = xmalloc((size_t)pp * sizeof *n_layers), begin = 0;

    stage_sizes(cfg, pp, seq_len, n_layers);
    for (int s = 0; s < stage; s++) begin += n_layers[s];
    free(n_layers);
    return begin;
}

/* 4-bit blocks are elements of a row, and a rank holds them whole. */
static int check_blocks(const model_config *cfg, grid_shape g, moai_error *err)
{
    const struct {
        const char *key;
        int64_t n;
        int tp;
    } rows[] = {{"hidden_size", cfg->hidden_size, 1},
                {"num_attention_heads x head_dim", cfg->num_attention_heads * cfg->head_dim, g.tp},
                {"intermediate_size", cfg->intermediate_size, g.tp}};

    for (int i = 0; i < 3; i++)
        if (rows[i].n % (NF4_BLOCK * rows[i].tp) != 0)
            return error_set(err, "quantization nf4 keeps blocks of %d elements: %s %lld over tensor_parallel %d cuts "
                             "one", NF4_BLOCK, rows[i].key, (long long)rows[i].n, rows[i].tp);
    return 0;
}

int params_check(const model_config *cfg, grid_shape g, moai_error *err)
{
    const int64_t heads = cfg->num_attention_heads, kv = cfg->num_key_value_heads;

    if (heads % g.tp != 0)
        return error_set(err, "num_attention_heads %lld is not divisible by tensor_parallel %d", (long long)heads,
                         g.tp);
    if (g.tp <= kv ? kv % g.tp != 0 : g.tp % kv != 0)
        return error_set(err, "tensor_parallel %d neither divides num_key_value_heads %lld nor is a multiple of it",
                         g.tp, (long long)kv);
    if (cfg->intermediate_size < g.tp || cfg->vocab_size < g.tp)
        return error_set(err, "tensor_parallel %d is larger than intermediate_size %lld or vocab_size %lld", g.tp,
                         (long long)cfg->intermediate_size, (long long)cfg->vocab_size);
    if (g.pp > cfg->num_hidden_layers)
        return error_set(err, "pipeline_parallel %d is larger than num_hidden_layers %lld", g.pp,
                         (long long)cfg->num_hidden_layers);
    if (cfg->quantization.nf4 && check_blocks(cfg, g, err)) return -1;
    return 0;
}

/* Building the table: a cursor over the flat buffer. */
typedef struct builder {
    param_table *t;
    const model_config *cfg;
    params_part part;
    int64_t tp, tp_rank, data;
    int64_t at, at_nf4;                       /* elements laid out so far */
} builder;

/* Is this one of the table's? */
static bool wants(const builder *b, bool is_trained)
{
    return is_trained == (b->part == PARAMS_TRAINED);
}

static bool trains_base(const builder *b) { return b->cfg->lora.rank == 0 && !b->cfg->quantization.nf4; }

static param *add(builder *b, param_sharing sharing, param_init init, int64_t rows, int64_t cols, const char *name)
{
    param_table *t = b->t;
    param *p = &t->list[t->n++];
    const bool is_vector = init == INIT_ONES || init == INIT_BASE || init == INIT_SCALE;

    *p = (param){.ndim = is_vector ? 1 : 2, .rows = rows, .cols = cols, .n_rows = rows, .n_cols = cols,
                 .bucket = t->n_buckets, .sharing = sharing, .init = init};
    snprintf(p->name, sizeof p->name, "%s", name);
    return p;
}

static void keep_rows(param *p, int64_t begin, int64_t end) { p->row0 = begin, p->n_rows = end - begin; }
static void keep_cols(param *p, int64_t begin, int64_t end) { p->col0 = begin, p->n_cols = end - begin; }
static void split_rows(const builder *b, param *p)
{
    keep_rows(p, share_begin(p->rows, b->tp, b->tp_rank), share_begin(p->rows, b->tp, b->tp_rank + 1));
}
static void split_cols(const builder *b, param *p)
{
    keep_cols(p, share_begin(p->cols, b->tp, b->tp_rank), share_begin(p->cols, b->tp, b->tp_rank + 1));
}

/* Next in the flat buffer; `joined` continues the matrix before it without a gap. */
static void place_with_room(builder *b, param *p, bool joined, int64_t room)
{
    if (p->storage == STORE_NF4) {            /* whole blocks: nothing lies between (params_check) */
        p->offset = b->at_nf4;
        p->stride = p->n_cols;
        b->at_nf4 += p->n_rows * p->n_cols;
        return;
    }
    if (!joined) b->at = round_up(b->at, ALIGN_ELEM);
    p->offset = b->at;
    p->stride = p->n_cols + room;
    b->at += p->n_rows * p->stride;
}

static void place(builder *b, param *p, bool joined) { place_with_room(b, p, joined, 0); }

static bucket *bucket_open(builder *b, const char *name)
{
    bucket *k = &b->t->buckets[b->t->n_buckets];

    snprintf(k->name, sizeof k->name, "%s", name);
    k->offset = b->at;
    return k;
}

static int64_t bucket_mark(const builder *b) { return b->at - b->t->buckets[b->t->n_buckets].offset; }

/* The end of a range, rounded so that what follows is equally long on ranks whose shares differ by a row. */
static int64_t bucket_mark_aligned(builder *b)
{
    b->at = round_up(b->at, ALIGN_ELEM);
    return bucket_mark(b);
}

static void bucket_close(builder *b)
{
    bucket *k = &b->t->buckets[b->t->n_buckets++];

    k->n = b->at - k->offset;
    k->n_padded = round_up(k->n, b->data * ALIGN_ELEM);
    b->at = k->offset + k->n_padded;
}

/* NULL: no table, no norm; with the norm goes what reads the streams for the head. */
static bucket *add_table(builder *b, const char *bucket_name, const char *name, bool is_trained, const char *norm)
{
    const int64_t H = b->cfg->hidden_size, n = b->cfg->hc.mult;
    const bool has_base = norm && wants(b, trains_base(b)), reads = has_base && n > 1 && b->cfg->hc.head;
    bucket *k = bucket_open(b, bucket_name);

    if (name && wants(b, is_trained)) {
        param *p = add(b, PARAM_UNIQUE, INIT_NORMAL, b->cfg->vocab_size, H, name);
        split_rows(b, p);
        place(b, p, false);
    }
    k->n_unique = k->n_kv = k->n_decayed = bucket_mark_aligned(b);
    if (reads) {
        place(b, add(b, PARAM_TP_REPLICATED, INIT_NORMAL, n, n * H, "model.hc_head.hc_fn"), false);
        k->n_decayed = bucket_mark_aligned(b);
        place(b, add(b, PARAM_TP_REPLICATED, INIT_BASE, 1, n, "model.hc_head.hc_base"), false);
        place(b, add(b, PARAM_TP_REPLICATED, INIT_SCALE, 1, 1, "model.hc_head.hc_scale"), false);
    }
    if (has_base) place(b, add(b, PARAM_TP_REPLICATED, INIT_ONES, 1, H, norm), false);
    bucket_close(b);
    return k;
}

/* The linear maps of a layer in the order of memory.  Those of one group make one product. */
typedef enum { SPLIT_ROWS, SPLIT_HEADS, SPLIT_COLS } split;
typedef struct map {
    const char *name;
    lora_map lora;
    int group;
    split how;
    int64_t rows, cols;
} map;
enum { N_MAPS = 7 };
static const unsigned groups[] = {1 << LORA_O, LORA_GATE_UP, 1 << LORA_DOWN, LORA_QKV};

static void list_maps(map maps[N_MAPS], const model_config *cfg)
{
    const int64_t H = cfg->hidden_size, I = cfg->intermediate_size, D = cfg->head_dim;
    const int64_t Q = cfg->num_attention_heads * D, K = cfg->num_key_value_heads * D;
    const map list[N_MAPS] = {{"self_attn.o_proj", LORA_O, 0, SPLIT_COLS, H, Q},
                              {"mlp.gate_proj", LORA_GATE, 1, SPLIT_ROWS, I, H},
                              {"mlp.up_proj", LORA_UP, 1, SPLIT_ROWS, I, H},
                              {"mlp.down_proj", LORA_DOWN, 2, SPLIT_COLS, H, I},
                              {"self_attn.q_proj", LORA_Q, 3, SPLIT_ROWS, Q, H},
                              {"self_attn.k_proj", LORA_K, 3, SPLIT_HEADS, K, H},
                              {"self_attn.v_proj", LORA_V, 3, SPLIT_HEADS, K, H}};

    memcpy(maps, list, sizeof list);
}

/* The rows of this rank's KV heads, which others may hold as well. */
static void split_heads(const builder *b, param *p)
{
    const int64_t n = b->cfg->num_key_value_heads, D = b->cfg->head_dim, first = b->tp_rank * n / b->tp;

    keep_rows(p, first * D, (first + max_i64(n / b->tp, 1)) * D);
}

static void cut(const builder *b, param *p, split how)
{
    if (how == SPLIT_ROWS) split_rows(b, p);
    if (how == SPLIT_HEADS) split_heads(b, p);
    if (how == SPLIT_COLS) split_cols(b, p);
}

static param *add_in_layer(builder *b, param_sharing sharing, param_init init, int64_t rows, int64_t cols,
                           int64_t layer, const char *name, const char *what)
{
    char full[sizeof b->t->list->name];

    snprintf(full, sizeof full, "model.layers.%lld.%s.%s", (long long)layer, name, what);
    return add(b, sharing, init, rows, cols, full);
}

/* A range of a layer's bucket: of the maps' own matrices and of their adapters' those that are so shared.  Of an
 * adapter one half is cut as its map is, the other is replicated: A sees all columns where rows are split, B makes all
 * rows of a partial sum where columns are. */
static void add_range(builder *b, const map *maps, int64_t layer, param_sharing sharing)
{
    const lora_config *lora = &b->cfg->lora;
    int last = -1;                            /* group of the matrix before */

    for (int i = 0; i < N_MAPS && wants(b, trains_base(b)); i++) {
        const map *m = &maps[i];
        if (sharing != (m->how == SPLIT_HEADS ? PARAM_KV : PARAM_UNIQUE)) continue;
        param *p = add_in_layer(b, sharing, INIT_NORMAL, m->rows, m->cols, layer, m->name, "weight");
        if (b->cfg->quantization.nf4) p->storage = STORE_NF4;
        cut(b, p, m->how);
        const bool joined = last == m->group || m->how == SPLIT_HEADS;    /* the q before k ends the range before */
        place_with_room(b, p, joined, lora_room(lora, groups[m->group]));
        last = m->group;
    }
    last = -1;
    for (int i = 0; i < N_MAPS && lora->rank && wants(b, true); i++) {
        const map *m = &maps[i];
        const bool cols = m->how == SPLIT_COLS, replicated = sharing == PARAM_TP_REPLICATED, is_a = cols != replicated;
        if (!(lora->targets & 1u << m->lora)) continue;
        if (!replicated && sharing != (m->how == SPLIT_HEADS ? PARAM_KV : PARAM_UNIQUE)) continue;
        param *p = is_a ? add_in_layer(b, sharing, INIT_KAIMING, lora->rank, m->cols, layer, m->name, "lora_A.weight")
                        : add_in_layer(b, sharing, INIT_ZEROS, m->rows, lora->rank, layer, m->name, "lora_B.weight");
        if (!replicated) cut(b, p, m->how);
        place(b, p, is_a && last == m->group);
        last = m->group;
    }
}

/* fn, which is a matrix, or base and scale of a layer's hyper-connections. */
static void add_streams(builder *b, int64_t layer, bool matrices)
{
    static const char *const names[] = {"attn_hc", "ffn_hc"};
    const int64_t rows = model_hc_rows(b->cfg), cols = b->cfg->hc.mult * b->cfg->hidden_size;

    for (int i = 0; i < 2 && b->cfg->hc.mult > 1 && wants(b, trains_base(b)); i++) {
        if (matrices) {
            place(b, add_in_layer(b, PARAM_TP_REPLICATED, INIT_NORMAL, rows, cols, layer, names[i], "fn"), false);
        } else {
            place(b, add_in_layer(b, PARAM_TP_REPLICATED, INIT_BASE, 1, rows, layer, names[i], "base"), false);
            place(b, add_in_layer(b, PARAM_TP_REPLICATED, INIT_SCALE, 1, 3, layer, names[i], "scale"), false);
        }
    }
}

static void add_layer(builder *b, int64_t layer)
{
    const int64_t H = b->cfg->hidden_size, D = b->cfg->head_dim;
    char name[32];
    map maps[N_MAPS];

    list_maps(maps, b->cfg);
    snprintf(name, sizeof name, "layer %lld", (long long)layer);
    bucket *k = bucket_open(b, name);
    add_range(b, maps, layer, PARAM_UNIQUE);
    k->n_unique = wants(b, trains_base(b)) ? bucket_mark(b) : bucket_mark_aligned(b);  /* q, k, v without a gap */
    add_range(b, maps, layer, PARAM_KV);
    k->n_kv = bucket_mark_aligned(b);
    add_range(b, maps, layer, PARAM_TP_REPLICATED);
    add_streams(b, layer, true);
    k->n_decayed = bucket_mark_aligned(b);
    if (wants(b, trains_base(b))) {
        place(b, add_in_layer(b, PARAM_TP_REPLICATED, INIT_ONES, 1, H, layer, "input_layernorm", "weight"), false);
        place(b, add_in_layer(b, PARAM_TP_REPLICATED, INIT_ONES, 1, H, layer, "post_attention_layernorm", "weight"),
              false);
        place(b, add_in_layer(b, PARAM_TP_REPLICATED, INIT_ONES, 1, D, layer, "self_attn.q_norm", "weight"), false);
        place(b, add_in_layer(b, PARAM_TP_REPLICATED, INIT_ONES, 1, D, layer, "self_attn.k_norm", "weight"), false);
    }
    add_streams(b, layer, false);
    bucket_close(b);
}

void params_init(param_table *t, const model_config *cfg, params_part part, grid_shape size, grid_shape at,
                 int64_t seq_len)
{
    const int64_t first = stage_begin(cfg, size.pp, at.pp, seq_len),
                  end = stage_begin(cfg, size.pp, at.pp + 1, seq_len);
    const bool first_stage = at.pp == 0, last_stage = at.pp == size.pp - 1,
               tied = cfg->tie_word_embeddings && size.pp > 1, adapts = cfg->lora.rank > 0 || cfg->quantization.nf4,
               embedding_trains = !adapts || cfg->lora.trains_embedding, head_trains = !adapts || cfg->lora.trains_head;
    const char *const embed = "model.embed_tokens.weight";
    builder b = {.t = t, .cfg = cfg, .part = part, .tp = size.tp, .tp_rank = at.tp, .data = grid_data_size(size)};

    *t = (param_table){.list = xmalloc((size_t)((4 + 3 * N_MAPS + 6) * (end - first) + 7) * sizeof *t->list),
                       .buckets = xmalloc((size_t)(end - first + 3) * sizeof *t->buckets)};
    if (first_stage) add_table(&b, "embedding", embed, embedding_trains, NULL)->tied = tied;
    for (int64_t layer = first; layer < end; layer++) add_layer(&b, layer);
    if (last_stage && tied) {
        bucket *copy = add_table(&b, "tied embedding", embed, embedding_trains, NULL);
        copy->tied = copy->tied_copy = true;
    }
    if (last_stage)
        add_table(&b, "head", cfg->tie_word_embeddings ? NULL : "lm_head.weight", head_trains, "model.norm.weight");
    t->n_elem = b.at;
    t->n_nf4 = b.at_nf4;
    t->n_own = b.at / b.data;
}

void params_free(param_table *t)
{
    free(t->list);
    free(t->buckets);
    *t = (param_table){0};
}

tensor param_block(const param *p, tensor flat)
{
    return (tensor){tensor_at(flat, 0, p->offset), p->n_rows, p->n_cols, p->stride, flat.dt};
}

bool param_is_adapter(const param *p) { return p->init == INIT_KAIMING || p->init == INIT_ZEROS; }

const param *params_find(const param_table *t, const char *name)
{
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->list[i].name, name) == 0) return &t->list[i];
    return NULL;
}

own_range params_own(const param_table *t, int b, int data_size, int data_rank)
{
    const bucket *k = &t->buckets[b];
    const int64_t share = k->n_padded / data_size;

    return (own_range){.begin = k->offset + data_rank * share, .end = k->offset + (data_rank + 1) * share,
                       .own = k->offset / data_size};
}

void params_whole(param_table *t, const model_config *model)
{
    params_init(t, model, PARAMS_TRAINED, (grid_shape){1, 1, 1, 1}, (grid_shape){0, 0, 0, 0}, 1);
}
