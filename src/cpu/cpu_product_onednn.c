/* cpu_product_onednn.c: products through oneDNN's matmul primitive (C API of 2.x and 3.x).
 *
 * A primitive is compiled for one set of shapes, strides and dtypes; compiled ones are kept in a table by that key. */
#ifdef MOAI_ONEDNN
#include "src/cpu/cpu.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>

#define DNNL_CHECK(call)                                                                          \
    do {                                                                                          \
        dnnl_status_t status_ = (call);                                                           \
        CHECK(status_ == dnnl_success, "oneDNN: %s failed with status %d", #call, (int)status_);  \
    } while (0)

typedef struct operand {
    int64_t rows, cols;                       /* as the product sees it */
    int64_t row_stride, col_stride;           /* elements */
    int64_t dt;
} operand;

typedef struct product_key {
    operand a, b, c;
    int64_t accumulate;
} product_key;

typedef struct compiled {
    product_key key;
    dnnl_primitive_t primitive;               /* NULL: the slot is free */
    dnnl_memory_t a, b, c;                    /* shapes; the pointers are set for each call */
} compiled;

enum { N_SLOTS = 512 };                       /* a later key of the same slot replaces the earlier */

struct products {
    char name[96];
    bool knows[DT_F16 + 1];                   /* by dtype; else the processor lacks what oneDNN needs for it */
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    compiled slot[N_SLOTS];
};

/* -- what differs between 2.x and 3.x -- */

static dnnl_data_type_t data_type(int64_t dt)
{
    return dt == DT_F32 ? dnnl_f32 : dt == DT_BF16 ? dnnl_bf16 : dnnl_f16;
}

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t matrix_desc;

static matrix_desc desc_create(const operand *o)
{
    matrix_desc desc;
    DNNL_CHECK(dnnl_memory_desc_create_with_strides(&desc, 2, (dnnl_dims_t){o->rows, o->cols}, data_type(o->dt),
                                                    (dnnl_dims_t){o->row_stride, o->col_stride}));
    return desc;
}

static void desc_destroy(matrix_desc desc) { DNNL_CHECK(dnnl_memory_desc_destroy(desc)); }

static dnnl_memory_t memory_create(dnnl_engine_t engine, matrix_desc desc)
{
    dnnl_memory_t memory;
    DNNL_CHECK(dnnl_memory_create(&memory, desc, engine, DNNL_MEMORY_NONE));
    return memory;
}

static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *desc, dnnl_engine_t engine, matrix_desc a, matrix_desc b,
                                 matrix_desc c, dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(desc, engine, a, b, NULL, c, attr);
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}
#else
typedef dnnl_memory_desc_t matrix_desc;

static matrix_desc desc_create(const operand *o)
{
    matrix_desc desc;
    DNNL_CHECK(dnnl_memory_desc_init_by_strides(&desc, 2, (dnnl_dims_t){o->rows, o->cols}, data_type(o->dt),
                                                (dnnl_dims_t){o->row_stride, o->col_stride}));
    return desc;
}

static void desc_destroy(matrix_desc desc) { (void)desc; }

static dnnl_memory_t memory_create(dnnl_engine_t engine, matrix_desc desc)
{
    dnnl_memory_t memory;
    DNNL_CHECK(dnnl_memory_create(&memory, &desc, engine, DNNL_MEMORY_NONE));
    return memory;
}

static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *desc, dnnl_engine_t engine, matrix_desc a, matrix_desc b,
                                 matrix_desc c, dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t op;
    DNNL_CHECK(dnnl_matmul_desc_init(&op, &a, &b, NULL, &c));
    return dnnl_primitive_desc_create(desc, &op, attr, engine, NULL);
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops) { return dnnl_post_ops_append_sum(ops, 1.0f); }
#endif

/* -- the same for both -- */

/* bf16 products need AVX-512 or AMX, depending on oneDNN's version; fp16 ones AVX512-FP16 and oneDNN 3.  Weight
 * gradients want an fp32 result of 16-bit operands. */
static bool knows(dnnl_engine_t engine, dtype dt)
{
    const operand o = {.rows = 16, .cols = 16, .row_stride = 16, .col_stride = 1, .dt = dt},
                  sum = {.rows = 16, .cols = 16, .row_stride = 16, .col_stride = 1, .dt = DT_F32};
    matrix_desc square = desc_create(&o), results[] = {desc_create(&o), desc_create(&sum)};
    bool known = true;

    for (int i = 0; i < 2; i++) {
        dnnl_primitive_desc_t desc;
        bool made = matmul_desc(&desc, engine, square, square, results[i], NULL) == dnnl_success;
        if (made) DNNL_CHECK(dnnl_primitive_desc_destroy(desc));
        desc_destroy(results[i]);
        known = known && made;
    }
    desc_destroy(square);
    return known;
}

struct products *products_open(void)
{
    struct products *p = xmalloc(sizeof *p);
    const dnnl_version_t *v = dnnl_version();

    DNNL_CHECK(dnnl_engine_create(&p->engine, dnnl_cpu, 0));
    for (dtype dt = DT_F32; dt <= DT_F16; dt++) p->knows[dt] = knows(p->engine, dt);
    const char *copied[] = {" (fp16 and bf16 through fp32 copies)", " (fp16 through fp32 copies)",
                            " (bf16 through fp32 copies)", ""};
    snprintf(p->name, sizeof p->name, "oneDNN %d.%d.%d%s", v->major, v->minor, v->patch,
             copied[p->knows[DT_BF16] + 2 * p->knows[DT_F16]]);
    DNNL_CHECK(dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags));
    return p;
}

static void slot_clear(compiled *s)
{
    if (!s->primitive) return;
    DNNL_CHECK(dnnl_memory_destroy(s->a));
    DNNL_CHECK(dnnl_memory_destroy(s->b));
    DNNL_CHECK(dnnl_memory_destroy(s->c));
    DNNL_CHECK(dnnl_primitive_destroy(s->primitive));
    s->primitive = NULL;
}

void products_close(struct products *p)
{
    for (int i = 0; i < N_SLOTS; i++) slot_clear(&p->slot[i]);
    DNNL_CHECK(dnnl_stream_destroy(p->stream));
    DNNL_CHECK(dnnl_engine_destroy(p->engine));
    free(p);
}

const char *products_name(const struct products *p) { return p->name; }

static void slot_compile(struct products *p, compiled *s, const product_key *key)
{
    matrix_desc a = desc_create(&key->a), b = desc_create(&key->b), c = desc_create(&key->c);
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t post_ops;

    DNNL_CHECK(dnnl_primitive_attr_create(&attr));
    DNNL_CHECK(dnnl_post_ops_create(&post_ops));
    if (key->accumulate) DNNL_CHECK(append_sum(post_ops));
    DNNL_CHECK(dnnl_primitive_attr_set_post_ops(attr, post_ops));

    dnnl_primitive_desc_t desc;
    DNNL_CHECK(matmul_desc(&desc, p->engine, a, b, c, attr));
    slot_clear(s);
    DNNL_CHECK(dnnl_primitive_create(&s->primitive, desc));
    s->key = *key;
    s->a = memory_create(p->engine, a);
    s->b = memory_create(p->engine, b);
    s->c = memory_create(p->engine, c);

    DNNL_CHECK(dnnl_primitive_desc_destroy(desc));
    DNNL_CHECK(dnnl_post_ops_destroy(post_ops));
    DNNL_CHECK(dnnl_primitive_attr_destroy(attr));
    desc_destroy(a), desc_destroy(b), desc_destroy(c);
}

static compiled *slot_find(struct products *p, const product_key *key)
{
    uint64_t hash = 14695981039346656037u;                    /* FNV-1a over the key's words */
    const int64_t *word = (const int64_t *)key;

    for (size_t i = 0; i < sizeof *key / sizeof *word; i++) hash = (hash ^ (uint64_t)word[i]) * 1099511628211u;
    compiled *s = &p->slot[(hash ^ hash >> 32) % N_SLOTS];
    if (!s->primitive || memcmp(&s->key, key, sizeof *key) != 0) slot_compile(p, s, key);
    return s;
}

static operand operand_of(tensor t, orientation o)
{
    if (o == TRANSPOSED) return (operand){t.cols, t.rows, 1, t.stride, t.dt};
    return (operand){t.rows, t.cols, t.stride, 1, t.dt};
}

static void multiply(moai_device *dev, tensor c, tensor a, orientation a_is, tensor b, orientation b_is,
                     bool accumulate)
{
    struct products *p = dev->products;
    product_key key = {operand_of(a, a_is), operand_of(b, b_is), operand_of(c, AS_STORED), accumulate};

    compiled *s = slot_find(p, &key);
    DNNL_CHECK(dnnl_memory_set_data_handle(s->a, a.data));
    DNNL_CHECK(dnnl_memory_set_data_handle(s->b, b.data));
    DNNL_CHECK(dnnl_memory_set_data_handle(s->c, c.data));
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, s->a}, {DNNL_ARG_WEIGHTS, s->b}, {DNNL_ARG_DST, s->c}};
    DNNL_CHECK(dnnl_primitive_execute(s->primitive, p->stream, 3, args));
    DNNL_CHECK(dnnl_stream_wait(p->stream));
}

void product(moai_device *dev, tensor c, tensor a, orientation a_is, tensor b, orientation b_is, bool accumulate)
{
    if (dev->products->knows[a.dt])
        multiply(dev, c, a, a_is, b, b_is, accumulate);
    else
        product_by_copies(dev, c, a, a_is, b, b_is, accumulate, multiply);
}
#endif
