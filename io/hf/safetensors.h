/* safetensors.h: the format of huggingface/safetensors: u64 header length, JSON header {name: {dtype, shape,
 * data_offsets}}, data.  A hostile header (absurd lengths, overflowing or overlapping or out-of-file ranges, sizes
 * that do not match shape and dtype) is an error with the file and name, never a crash or a large allocation: the
 * header may not exceed 100 MB or the file. */
#ifndef MOAI_SAFETENSORS_H
#define MOAI_SAFETENSORS_H

#include "src/base/tensor.h"

typedef struct safetensors safetensors;
typedef struct safetensors_entry {
    char *name;
    char type[16];                            /* as the file says it: "BF16", "F8_E4M3" */
    dtype dt;                                 /* F32, BF16, F16; others are listed but cannot be read */
    bool readable;                            /* 1-D or 2-D of a dtype above */
    int ndim;                                 /* may exceed 4 */
    int64_t shape[4];
    uint64_t begin, end;                      /* bytes in the file */
} safetensors_entry;

safetensors *safetensors_open(const char *path, moai_error *err);
int safetensors_count(const safetensors *);
const safetensors_entry *safetensors_get(const safetensors *, int i);
const safetensors_entry *safetensors_find(const safetensors *, const char *name);
/* A block of a 1-D (one row) or 2-D tensor as fp32, row i at dst + i * stride.  Thread-safe. */
int safetensors_read(safetensors *, const safetensors_entry *, int64_t row0, int64_t n_rows, int64_t col0,
                     int64_t n_cols, float *dst, int64_t stride, moai_error *err);
/* Bytes [first, first + n) of a tensor of type U8, of any shape.  Thread-safe. */
int safetensors_read_bytes(safetensors *, const safetensors_entry *, int64_t first, int64_t n, void *dst,
                           moai_error *err);
void safetensors_close(safetensors *);

/* Writing: declare all, then write in the same order; finish checks that every element came, flushes,
 * fsyncs and renames from PATH.tmp.  finish and abandon both free.  More or fewer elements than
 * declared are a broken program (die). */
typedef struct safetensors_writer safetensors_writer;
safetensors_writer *safetensors_create(const char *path, moai_error *err);                  /* NULL on failure */
/* F32, BF16, F16, or U8, which is written by safetensors_write_bytes */
void safetensors_declare(safetensors_writer *, const char *name, dtype, int ndim, const int64_t *shape);
/* the next n elements, rounded to the dtype */
int safetensors_write(safetensors_writer *, const float *x, int64_t n, moai_error *err);
int safetensors_write_bytes(safetensors_writer *, const void *bytes, int64_t n, moai_error *err);
int safetensors_finish(safetensors_writer *, moai_error *err);
void safetensors_abandon(safetensors_writer *);             /* leaves nothing behind; NULL is well */

#endif
