/* hf_nf4.c: see hf_nf4.h */
#include "io/hf/hf_nf4.h"
#include "src/config/keys.h"
#include "src/ops/nf4.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_ROOM = 160 };

/* "X.weight.WHAT" */
static const safetensors_entry *find_part(const hf_files *h, const char *name, const char *what, safetensors **file)
{
    char full[NAME_ROOM];

    snprintf(full, sizeof full, "%s.%s", name, what);
    return hf_find(h, full, file);
}

bool hf_is_nf4(const hf_files *h, const char *name)
{
    safetensors *file;

    return find_part(h, name, HF_NF4_STATE, &file) != NULL;
}

static int64_t n_elem_of(const safetensors_entry *e)
{
    int64_t n = 1;

    for (int i = 0; i < e->ndim && i < 4; i++) n *= e->shape[i];
    return n;
}

/* So many bytes, or fp32 numbers, of a part; caller frees. */
static void *read_part(const hf_files *h, const char *name, const char *what, dtype dt, int64_t n, moai_error *err)
{
    safetensors *file;
    const safetensors_entry *e = find_part(h, name, what, &file);
    const char *type = dt == DT_U8 ? "U8" : "F32";
    void *x = e && strcmp(e->type, type) == 0 && n_elem_of(e) == n ? xmalloc((size_t)n * dtype_size(dt)) : NULL;

    if (!x) {
        error_set(err, "%s.%s: missing, or not %lld numbers of %s", name, what, (long long)n, type);
    } else if (dt == DT_U8 ? safetensors_read_bytes(file, e, 0, n, x, err)
                           : safetensors_read(file, e, 0, 1, 0, n, x, n, err)) {
        free(x);
        x = NULL;
    }
    return x;
}

static json_t *read_state(const hf_files *h, const char *name, moai_error *err)
{
    safetensors *file;
    const safetensors_entry *e = find_part(h, name, HF_NF4_STATE, &file);
    char *text = read_part(h, name, HF_NF4_STATE, DT_U8, e ? min_i64(n_elem_of(e), 1 << 16) : 0, err),
         label[NAME_ROOM];
    json_t *state = NULL;

    snprintf(label, sizeof label, "%s.%s", name, HF_NF4_STATE);
    if (text) state = json_object_of(text, (size_t)n_elem_of(e), label, err);
    free(text);
    return state;
}

static int check_state(hf_nf4 *m, const json_t *state, const char *name, moai_error *err)
{
    const json_t *shape = json_object_get(state, "shape");
    const char *type = json_string_value(json_object_get(state, "quant_type"));
    const int64_t block = json_integer_value(json_object_get(state, "blocksize"));

    if (!type || strcmp(type, "nf4") != 0 || block != NF4_BLOCK)
        return error_set(err, "%s is quantized as %s in blocks of %lld, must be nf4 in blocks of %d", name,
                         type ? type : "nothing known", (long long)block, NF4_BLOCK);
    m->rows = json_integer_value(json_array_get(shape, 0)), m->cols = json_integer_value(json_array_get(shape, 1));
    if (json_array_size(shape) != 2 || m->rows < 1 || m->cols < 1 || m->rows > INT32_MAX || m->cols > INT32_MAX ||
        m->rows * m->cols % NF4_BLOCK != 0)
        return error_set(err, "%s: a shape of %lld x %lld is no matrix of whole blocks", name, (long long)m->rows,
                         (long long)m->cols);
    if (strcmp(m->codes->type, "U8") != 0 || n_elem_of(m->codes) != m->rows * m->cols / 2)
        return error_set(err, "%s: not the %lld bytes of %lld x %lld in 4 bits", name,
                         (long long)(m->rows * m->cols / 2), (long long)m->rows, (long long)m->cols);
    return 0;
}

static int read_nested(hf_nf4 *m, const hf_files *h, const json_t *state, const char *name, moai_error *err)
{
    const int64_t n = m->rows * m->cols / NF4_BLOCK, n_nested = (n + NF4_NESTED_BLOCK - 1) / NF4_NESTED_BLOCK;
    const float offset = (float)json_number_value(json_object_get(state, "nested_offset"));
    uint8_t *codes = read_part(h, name, "absmax", DT_U8, n, err);
    float *nested = codes ? read_part(h, name, "nested_absmax", DT_F32, n_nested, err) : NULL,
          *values = nested ? read_part(h, name, "nested_quant_map", DT_F32, 256, err) : NULL;

    if (json_integer_value(json_object_get(state, "nested_blocksize")) != NF4_NESTED_BLOCK && values) {
        error_set(err, "%s: nested blocks of other than %d", name, NF4_NESTED_BLOCK);
        free(values);
        values = NULL;
    }
    m->absmax = values ? xmalloc((size_t)n * sizeof *m->absmax) : NULL;
    for (int64_t i = 0; values && i < n; i++)
        m->absmax[i] = values[codes[i]] * nested[i / NF4_NESTED_BLOCK] + offset;
    free(codes);
    free(nested);
    free(values);
    return m->absmax ? 0 : -1;
}

int hf_nf4_open(hf_nf4 *m, const hf_files *h, const char *name, moai_error *err)
{
    json_t *state = read_state(h, name, err);
    int rc = state ? 0 : -1;

    *m = (hf_nf4){0};
    m->codes = hf_find(h, name, &m->file);
    if (rc == 0 && !m->codes) rc = error_set(err, "%s: missing", name);
    if (rc == 0) rc = check_state(m, state, name, err);
    if (rc == 0 && json_object_get(state, "nested_blocksize")) {
        rc = read_nested(m, h, state, name, err);
    } else if (rc == 0) {
        m->absmax = read_part(h, name, "absmax", DT_F32, m->rows * m->cols / NF4_BLOCK, err);
        rc = m->absmax ? 0 : -1;
    }
    json_decref(state);
    return rc;
}

int hf_nf4_read(const hf_nf4 *m, int64_t row0, int64_t n_rows, int64_t col0, int64_t n_cols, float *dst, int64_t stride,
                moai_error *err)
{
    uint8_t *bytes = xmalloc((size_t)n_cols / 2 + 2);
    int rc = 0;

    for (int64_t i = 0; rc == 0 && i < n_rows; i++) {
        const int64_t first = (row0 + i) * m->cols + col0, end = first + n_cols;
        rc = safetensors_read_bytes(m->file, m->codes, first / 2, (end + 1) / 2 - first / 2, bytes, err);
        for (int64_t e = first; rc == 0 && e < end; e++) {
            const uint8_t pair = bytes[e / 2 - first / 2];
            dst[i * stride + e - first] = nf4_values[e % 2 ? pair & 15 : pair >> 4] * m->absmax[e / NF4_BLOCK];
        }
    }
    free(bytes);
    return rc;
}

void hf_nf4_close(hf_nf4 *m)
{
    free(m->absmax);
    *m = (hf_nf4){0};
}
