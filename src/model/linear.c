/* linear.c: see linear.h */
#include "src/model/linear.h"

#include "parallel/axes/context_parallel.h"
#include "src/base/rng.h"
#include "src/ops/nf4.h"

#include <stdio.h>
#include <string.h>

typedef struct found {
    const param *p;
    const param_table *table;
    void *weights;
    float *grads;
    bool trains;
} found;

static found find(const flat_params *f, const char *name)
{
    found x = {.p = f->trained ? params_find(f->trained, name) : NULL, .table = f->trained, .weights = f->weights,
               .grads = f->grads, .trains = f->trains};

    if (!x.p && f->frozen)
        x = (found){.p = params_find(f->frozen, name), .table = f->frozen, .weights = f->frozen_weights};
    return x;
}

const param *flat_find(const flat_params *f, const char *name) { return find(f, name).p; }

static tensor view(const found *x, void *flat, dtype dt)
{
    return param_block(x->p, tensor_of(flat, dt, 1, x->table->n_elem));
}

/* "….q_proj.weight" has its adapter in "….q_proj.lora_A.weight" and "….q_proj.lora_B.weight". */
static found find_half(const flat_params *f, const char *name, const char *half)
{
    char full[sizeof f->trained->list->name];
    const size_t n = strlen(name) - strlen("weight");

    snprintf(full, sizeof full, "%.*s%s.weight", (int)n, name, half);
    return find(f, full);
}

linear linear_view(const flat_params *f, const char *name)
{
    const found x = find(f, name);

    if (!x.p) return (linear){0};
    linear l = {.is_trained = x.trains};
    if (x.p->storage == STORE_NF4) {
        l.w = tensor_of(NULL, f->dt, x.p->n_rows, x.p->n_cols);
        l.codes = f->codes ? f->codes + x.p->offset / 2 : NULL;
        l.absmax = f->absmax ? f->absmax + x.p->offset / NF4_BLOCK : NULL;
        l.is_nf4 = true;
    } else {
        l.w = view(&x, x.weights, f->dt), l.dw = view(&x, x.grads, DT_F32);
    }
    const found a = find_half(f, name, "lora_A"), b = find_half(f, name, "lora_B");
    if (!a.p) return l;
    l.a = view(&a, a.weights, f->dt), l.da = view(&a, a.grads, DT_F32);
    l.adapters[l.n_adapters++] = (lora_part){.b = view(&b, b.weights, f->dt), .db = view(&b, b.grads, DT_F32),
                                               .dropout_key = rng_key(1, a.p->name)};
    l.col0 = a.p->col0, l.global_cols = a.p->cols;
    return l;
}

norm_weight norm_view(const flat_params *f, const char *name)
{
    const found x = find(f, name);

    if (!x.p) return (norm_weight){0};
    return (norm_weight){.w = view(&x, x.weights, f->dt), .dw = x.trains ? view(&x, x.grads, DT_F32) : (tensor){0}};
}

static tensor join(tensor a, tensor b)
{
    if (!a.rows) return b;
    CHECK(!b.rows || !a.data || tensor_at(a, a.rows, 0) == b.data, "matrices to be joined are no neighbours");
    return (tensor){a.data, a.rows + b.rows, a.cols, a.stride, a.dt};
}

linear linear_join(linear a, linear b)
{
    linear l = {.w = join(a.w, b.w), .is_nf4 = a.is_nf4, .codes = a.codes, .absmax = a.absmax,
                .dw = join(a.dw, b.dw), .is_trained = a.is_trained, .a = join(a.a, b.a), .da = join(a.da, b.da),
                .n_adapters = a.n_adapters + b.n_adapters,
                .col0 = a.n_adapters ? a.col0 : b.col0,
                .global_cols = a.n_adapters ? a.global_cols : b.global_cols};

    CHECK(l.n_adapters <= MOST_JOINED, "%d adapters of one map, more than %d", l.n_adapters, MOST_JOINED);
    for (int i = 0; i < l.n_adapters; i++)
        if (i < a.n_adapters) {
            l.adapters[i] = a.adapters[i];
        } else {
            l.adapters[i] = b.adapters[i - a.n_adapters];
            l.adapters[i].row0 += a.w.rows;
        }
    return l;
}

tensor linear_input_plan(const moai_ctx *c, arena *kept, int64_t rows, int64_t cols, unsigned maps)
{
    const int64_t room = c->folds_adapters ? lora_room(&c->cfg->lora, maps) : 0;

    return tensor_cols(arena_tensor(kept, c->dt, rows, cols + room), 0, cols);
}

/* x's room. */
static tensor behind(tensor x, int64_t cols)
{
    return (tensor){tensor_at(x, 0, x.cols), x.rows, cols, x.stride, x.dt};
}

void linear_acts_plan(linear_acts *acts, const moai_ctx *c, unsigned maps, tensor x, bool x_stays, arena *kept,
                      arena *shared)
{
    const int64_t cols = lora_count(&c->cfg->lora, maps) * c->cfg->lora.rank;

    *acts = (linear_acts){0};
    if (!cols) return;
    if (!c->folds_adapters || !x_stays) acts->kept = arena_tensor(kept, c->dt, c->n_tokens, cols);
    acts->low = c->folds_adapters ? behind(x, cols) : acts->kept;
    if (c->folds_adapters && x_stays) acts->kept = acts->low;
    acts->dlow = arena_tensor(shared, c->dt, c->n_tokens, cols);
}

/* The i-th adapter's columns of low or dlow, and of y. */
static tensor cols_of(const linear *l, int i, tensor low)
{
    const int64_t rank = l->adapters[i].b.cols;

    return tensor_cols(low, i * rank, rank);
}

static tensor rows_of(const linear *l, int i, tensor y)
{
    return tensor_cols(y, l->adapters[i].row0, l->adapters[i].b.rows);
}

/* W itself; made in scratch, which the caller releases, where it is stored otherwise. */
static tensor dense(const moai_ctx *c, const linear *l)
{
    if (!l->is_nf4) return l->w;
    const int64_t room = round_up(l->a.rows, 64);
    tensor w = tensor_cols(arena_tensor(c->scratch, l->w.dt, l->w.rows, l->w.cols + room), 0, l->w.cols);
    c->ops->dequantize_nf4(c->dev, w, l->codes, l->absmax);
    return w;
}

/* x with low behind it and W with B behind it: (x low) (W B)^T is both products in one.  A row of W has zeros in the
 * columns of adapters that are not its own. */
typedef struct folded {
    tensor x, w;
} folded;

static folded fold(const moai_ctx *c, tensor x, tensor w, const linear *l)
{
    const tensor b = behind(w, l->a.rows);

    if (l->is_nf4 && l->n_adapters > 1) c->ops->fill(c->dev, b, 0);         /* scratch; what is stored stays zero */
    for (int i = 0; i < l->n_adapters; i++) {
        const lora_part *p = &l->adapters[i];
        c->ops->cast(c->dev, cols_of(l, i, tensor_rows(b, p->row0, p->b.rows)), p->b);
    }
    return (folded){tensor_cols(x, 0, x.cols + l->a.rows), tensor_cols(w, 0, w.cols + l->a.rows)};
}

static void scale(const moai_ctx *c, tensor low)
{
    const float factor = (float)lora_scale(&c->cfg->lora);

    if (factor != 1) c->ops->scale(c->dev, low, low, factor);
}

static tensor a_of(const linear *l, int i, tensor a)
{
    const int64_t rank = l->adapters[i].b.cols;

    return tensor_rows(a, i * rank, rank);
}

static bool drops(const moai_ctx *c) { return c->cfg->lora.dropout > 0; }

/* y = what the i-th adapter sees of x, or its gradient of dx: in place too. */
static void drop(const moai_ctx *c, tensor y, tensor x, const linear *l, int i)
{
    const uint64_t key = c->dropout_key ^ l->adapters[i].dropout_key;
    const float p = c->dropout_key ? (float)c->cfg->lora.dropout : 0;
    const int cp = c->grid->cp.size;
    const int64_t chunk = cp > 1 ? c->seq_len / (2 * cp) : x.rows;

    for (int64_t row = 0; row < x.rows; row += chunk) {       /* padding draws as any row */
        const int64_t n = min_i64(chunk, x.rows - row),
                      at = cp > 1 ? max_i64(0, cp_whole_row(c, c->grid->cp.rank, row)) : row;
        c->ops->dropout(c->dev, tensor_rows(y, row, n), tensor_rows(x, row, n), key, c->first_row + at, l->col0,
                        l->global_cols, p);
    }
}

/* low = scale A x.  What is dropped differs from adapter to adapter. */
static void lower(const moai_ctx *c, tensor x, const linear *l, const linear_acts *acts)
{
    const size_t mark = arena_mark(c->scratch);

    if (!drops(c)) {
        c->ops->matmul(c->dev, acts->low, x, l->a);                             /* (N, n_adapters rank)              */
    } else {
        tensor seen = arena_tensor(c->scratch, x.dt, x.rows, x.cols);
        for (int i = 0; i < l->n_adapters; i++) {
            drop(c, seen, x, l, i);
            c->ops->matmul(c->dev, cols_of(l, i, acts->low), seen, a_of(l, i, l->a));
        }
    }
    arena_release(c->scratch, mark);
    scale(c, acts->low);
    if (acts->kept.data != acts->low.data) c->ops->cast(c->dev, acts->kept, acts->low);
}

/* The adapted columns of y = B low, or of z + B low. */
static void raise(const moai_ctx *c, tensor y, bool adds, tensor z, const linear *l, const linear_acts *acts)
{
    for (int i = 0; i < l->n_adapters; i++) {
        const tensor low = cols_of(l, i, acts->low), b = l->adapters[i].b;
        if (adds)
            c->ops->matmul_add(c->dev, rows_of(l, i, y), low, b, rows_of(l, i, z));
        else
            c->ops->matmul(c->dev, rows_of(l, i, y), low, b);
    }
}

static bool all_rows_adapted(const linear *l)
{
    int64_t n = 0;

    for (int i = 0; i < l->n_adapters; i++) n += l->adapters[i].b.rows;
    return n == l->w.rows;
}

/* So few that a matrix in 4 bits is read as it is, and none is made of it. */
static bool is_few(const linear *l, tensor x) { return l->is_nf4 && x.rows <= NF4_FEW_ROWS; }

static void forward_few(const moai_ctx *c, tensor y, tensor z, tensor x, const linear *l, const linear_acts *acts)
{
    c->ops->matmul_nf4(c->dev, y, x, l->codes, l->absmax, z);
    if (!l->n_adapters) return;
    lower(c, x, l, acts);
    raise(c, y, true, y, l, acts);
}

/* The thin products come first where they can: writing y is cheaper for them than adding to it, and the large one adds
 * beside its arithmetic. */
void linear_forward(const moai_ctx *c, tensor y, tensor x, const linear *l, const linear_acts *acts)
{
    const bool first = l->n_adapters && all_rows_adapted(l);
    const size_t mark = arena_mark(c->scratch);

    if (is_few(l, x)) {
        forward_few(c, y, (tensor){0}, x, l, acts);
        return;
    }
    const tensor w = dense(c, l);

    if (l->n_adapters) lower(c, x, l, acts);
    if (l->n_adapters && c->folds_adapters) {
        const folded both = fold(c, x, w, l);
        c->ops->matmul(c->dev, y, both.x, both.w);
    } else if (first) {
        raise(c, y, false, y, l, acts);
        c->ops->matmul_add(c->dev, y, x, w, y);
    } else {
        c->ops->matmul(c->dev, y, x, w);
        raise(c, y, true, y, l, acts);
    }
    arena_release(c->scratch, mark);
}

void linear_add(const moai_ctx *c, tensor y, tensor z, tensor x, const linear *l, const linear_acts *acts)
{
    const size_t mark = arena_mark(c->scratch);

    if (is_few(l, x)) {
        forward_few(c, y, z, x, l, acts);
        return;
    }
    const tensor w = dense(c, l);

    if (l->n_adapters) lower(c, x, l, acts);
    if (l->n_adapters && c->folds_adapters) {
        const folded both = fold(c, x, w, l);
        c->ops->matmul_add(c->dev, y, both.x, both.w, z);
    } else {
        c->ops->matmul_add(c->dev, y, x, w, z);
        raise(c, y, true, y, l, acts);
    }
    arena_release(c->scratch, mark);
}

/* dx = A^T dlow */
static void raise_back(const moai_ctx *c, tensor dx, const linear *l, const linear_acts *acts)
{
    const size_t mark = arena_mark(c->scratch);

    if (!drops(c)) c->ops->matmul_dx(c->dev, dx, acts->dlow, l->a, false);
    for (int i = 0; drops(c) && i < l->n_adapters; i++) {
        tensor part = i == 0 ? dx : arena_tensor(c->scratch, dx.dt, dx.rows, dx.cols);
        c->ops->matmul_dx(c->dev, part, cols_of(l, i, acts->dlow), a_of(l, i, l->a), false);
        drop(c, part, part, l, i);
        if (i > 0) c->ops->add(c->dev, dx, dx, part);
        arena_release(c->scratch, mark);
    }
}

void linear_dx(const moai_ctx *c, tensor dx, tensor dy, const linear *l, const linear_acts *acts)
{
    const size_t mark = arena_mark(c->scratch);

    for (int i = 0; i < l->n_adapters; i++)
        c->ops->lora_backward(c->dev, cols_of(l, i, acts->dlow), l->adapters[i].db, rows_of(l, i, dy),
                              l->adapters[i].b, cols_of(l, i, acts->kept), l->adds);
    if (l->n_adapters) {
        scale(c, acts->dlow);                                                   /* (N, n_adapters rank)              */
        raise_back(c, dx, l, acts);
    }
    c->ops->matmul_dx(c->dev, dx, dy, dense(c, l), l->n_adapters > 0);
    arena_release(c->scratch, mark);
}

void linear_dw(const moai_ctx *c, linear *l, tensor dy, tensor x, const linear_acts *acts)
{
    if (l->is_trained) c->ops->matmul_dw(c->dev, l->dw, dy, x, l->adds);
    if (l->n_adapters && !drops(c)) c->ops->matmul_dw(c->dev, l->da, acts->dlow, x, l->adds);
    for (int i = 0; drops(c) && i < l->n_adapters; i++) {
        const size_t mark = arena_mark(c->scratch);
        tensor seen = arena_tensor(c->scratch, x.dt, x.rows, x.cols);
        drop(c, seen, x, l, i);
        c->ops->matmul_dw(c->dev, a_of(l, i, l->da), cols_of(l, i, acts->dlow), seen, l->adds);
        arena_release(c->scratch, mark);
    }
    l->adds = true;
}
