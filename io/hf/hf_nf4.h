/* hf_nf4.h: matrices that bitsandbytes has stored in 4 bits (nf4.h), as Transformers saves them: beside X.weight, bytes,
 * lie X.weight.absmax, with double quantization X.weight.nested_absmax and X.weight.nested_quant_map, and in
 * X.weight.quant_state.bitsandbytes__nf4 a JSON object as bytes. */
#ifndef MOAI_HF_NF4_H
#define MOAI_HF_NF4_H

#include "io/hf/hf.h"
#include "io/hf/weights.h"

#include <jansson.h>

#define HF_NF4_STATE "quant_state.bitsandbytes__nf4"

typedef struct hf_nf4 {
    int64_t rows, cols;
    safetensors *file;
    const safetensors_entry *codes;
    float *absmax;                            /* of all blocks, after double quantization */
} hf_nf4;

bool hf_is_nf4(const hf_files *, const char *name);
/* -1 naming what is wrong or of another kind; else hf_nf4_close frees. */
int hf_nf4_open(hf_nf4 *, const hf_files *, const char *name, moai_error *err);
/* A block as fp32, row i at dst + i * stride. */
int hf_nf4_read(const hf_nf4 *, int64_t row0, int64_t n_rows, int64_t col0, int64_t n_cols, float *dst, int64_t stride,
                moai_error *err);
void hf_nf4_close(hf_nf4 *);

/* Writing.  Declares a matrix's tensors, then writes them in that order: quantized from the weights of `from` as
 * moai_train --quantization nf4 does it (nf4.h), whole, whose columns are whole blocks. */
bool hf_takes_nf4(const param *);             /* a linear map of a layer */
void hf_nf4_declare(safetensors_writer *, const param *, bool nested);
int hf_nf4_write(safetensors_writer *, weights *from, const param *, bool nested, const char *torch_dtype,
                 moai_error *err);
void hf_nf4_index(json_t *weight_map, const param *, bool nested, const char *file);  /* its names, of this file */
int64_t hf_nf4_bytes(const param *, bool nested);     /* of all of these, about */
json_t *hf_nf4_config(bool nested, const char *torch_dtype);  /* quantization_config of config.json */

#endif
