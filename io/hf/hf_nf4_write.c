/* hf_nf4_write.c: matrices as bitsandbytes stores them in 4 bits; see hf_nf4.h */
#include "io/hf/hf_nf4.h"
#include "src/ops/nf4.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of the state, whose length the header of the file tells before the offset is known: spaces fill it up. */
enum { STATE_BYTES = 320, CHUNK_ELEM = 1 << 22 };

/* q, k, v, o, gate, up and down of a layer. */
bool hf_takes_nf4(const param *p)
{
    const size_t n = strlen(p->name);

    return p->ndim == 2 && strncmp(p->name, "model.layers.", 13) == 0 && n > 12 &&
           strcmp(p->name + n - 12, "_proj.weight") == 0;
}

static void declare(safetensors_writer *w, const param *p, const char *what, dtype dt, int64_t n)
{
    char *name = xasprintf("%s.%s", p->name, what);

    safetensors_declare(w, name, dt, 1, &n);
    free(name);
}

void hf_nf4_declare(safetensors_writer *w, const param *p, bool nested)
{
    const int64_t n = p->rows * p->cols, blocks = n / NF4_BLOCK;

    safetensors_declare(w, p->name, DT_U8, 2, (int64_t[]){n / 2, 1});
    declare(w, p, "absmax", nested ? DT_U8 : DT_F32, blocks);
    if (nested) declare(w, p, "nested_absmax", DT_F32, (blocks + NF4_NESTED_BLOCK - 1) / NF4_NESTED_BLOCK);
    if (nested) declare(w, p, "nested_quant_map", DT_F32, 256);
    declare(w, p, "quant_map", DT_F32, 16);
    declare(w, p, HF_NF4_STATE, DT_U8, STATE_BYTES);
}

void hf_nf4_index(json_t *weight_map, const param *p, bool nested, const char *file)
{
    static const char *const parts[] = {"absmax", "quant_map", HF_NF4_STATE, "nested_absmax", "nested_quant_map"};

    for (int i = 0; i < (nested ? 5 : 3); i++) {
        char *name = xasprintf("%s.%s", p->name, parts[i]);
        json_object_set_new(weight_map, name, json_string(file));
        free(name);
    }
}

int64_t hf_nf4_bytes(const param *p, bool nested)
{
    const int64_t blocks = p->rows * p->cols / NF4_BLOCK;

    return p->rows * p->cols / 2 + blocks * (nested ? 1 : 4) + (nested ? 4 * (blocks / NF4_NESTED_BLOCK + 257) : 0) +
           64 + STATE_BYTES;
}

static int write_state(safetensors_writer *w, const param *p, bool nested, float offset, const char *torch_dtype,
                       moai_error *err)
{
    json_t *o = json_pack("{s:s, s:i, s:s, s:[I, I]}", "quant_type", "nf4", "blocksize", NF4_BLOCK, "dtype",
                          torch_dtype, "shape", (json_int_t)p->rows, (json_int_t)p->cols);
    char bytes[STATE_BYTES + 1];

    if (nested) {
        json_object_set_new(o, "nested_blocksize", json_integer(NF4_NESTED_BLOCK));
        json_object_set_new(o, "nested_dtype", json_string("float32"));
        json_object_set_new(o, "nested_offset", json_real((double)offset));
    }
    char *text = json_dumps(o, 0);
    json_decref(o);
    CHECK(text && strlen(text) <= STATE_BYTES, "%s: a state of %zu bytes", p->name, text ? strlen(text) : 0);
    snprintf(bytes, sizeof bytes, "%-*s", STATE_BYTES, text);
    free(text);
    return safetensors_write_bytes(w, bytes, STATE_BYTES, err);
}

/* The scales, and what they are read by. */
static int write_scales(safetensors_writer *w, const param *p, bool nested, const float *absmax,
                        const char *torch_dtype, moai_error *err)
{
    const int64_t n = p->rows * p->cols / NF4_BLOCK, n_nested = (n + NF4_NESTED_BLOCK - 1) / NF4_NESTED_BLOCK;
    uint8_t *codes = nested ? xmalloc((size_t)n) : NULL;
    float *scales = nested ? xmalloc((size_t)n_nested * sizeof *scales) : NULL, offset = 0;
    int rc = 0;

    if (nested) {
        nf4_nest(codes, scales, &offset, absmax, n);
        rc = safetensors_write_bytes(w, codes, n, err);
        if (rc == 0) rc = safetensors_write(w, scales, n_nested, err);
        if (rc == 0) rc = safetensors_write(w, nf4_nested_values(), 256, err);
    } else {
        rc = safetensors_write(w, absmax, n, err);
    }
    if (rc == 0) rc = safetensors_write(w, nf4_values, 16, err);
    if (rc == 0) rc = write_state(w, p, nested, offset, torch_dtype, err);
    free(codes);
    free(scales);
    return rc;
}

int hf_nf4_write(safetensors_writer *w, weights *from, const param *p, bool nested, const char *torch_dtype,
                 moai_error *err)
{
    const int64_t step = max_i64(1, CHUNK_ELEM / p->cols), blocks = p->cols / NF4_BLOCK;
    float *x = xmalloc((size_t)(step * p->cols) * sizeof *x),
          *absmax = xmalloc((size_t)(p->rows * blocks) * sizeof *absmax);
    uint8_t *codes = xmalloc((size_t)(step * p->cols) / 2);
    int rc = 0;

    for (int64_t row = 0; rc == 0 && row < p->rows; row += step) {
        const int64_t n = min_i64(step, p->rows - row);
        rc = weights_read(from, p->name, row, n, 0, p->cols, x, p->cols, err);
        if (rc) break;
        nf4_quantize(codes, absmax + row * blocks, x, n * p->cols);
        rc = safetensors_write_bytes(w, codes, n * p->cols / 2, err);
    }
    if (rc == 0) rc = write_scales(w, p, nested, absmax, torch_dtype, err);
    free(x);
    free(absmax);
    free(codes);
    return rc;
}

json_t *hf_nf4_config(bool nested, const char *torch_dtype)
{
    return json_pack("{s:s, s:b, s:b, s:b, s:b, s:s, s:b, s:s, s:s, s:b, s:b, s:n, s:f}", "quant_method",
                     "bitsandbytes", "_load_in_4bit", 1, "_load_in_8bit", 0, "load_in_4bit", 1, "load_in_8bit", 0,
                     "bnb_4bit_quant_type", "nf4", "bnb_4bit_use_double_quant", nested, "bnb_4bit_compute_dtype",
                     torch_dtype, "bnb_4bit_quant_storage", "uint8", "llm_int8_enable_fp32_cpu_offload", 0,
                     "llm_int8_has_fp16_weight", 0, "llm_int8_skip_modules", "llm_int8_threshold", 6.0);
}
