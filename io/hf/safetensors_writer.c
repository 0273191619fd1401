/* safetensors_writer.c: writing; see safetensors.h */
#include "io/hf/safetensors.h"
#include "src/base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_BYTES = 1 << 22 };

struct safetensors_writer {
    char *path, *tmp;
    int fd;
    json_t *header;
    struct declared {
        dtype dt;
        int64_t n_elem;
    } *list;
    int n, room;
    int64_t data_bytes;                       /* declared */
    int at;                                   /* the tensor being written, and how much of it came */
    int64_t at_elem;
    bool headed;
    char *block;
    size_t used;
};

safetensors_writer *safetensors_create(const char *path, moai_error *err)
{
    safetensors_writer *w = xmalloc(sizeof *w);

    w->path = xstrdup(path);
    w->tmp = xasprintf("%s.tmp", path);
    w->block = xmalloc(BLOCK_BYTES);
    w->header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    w->fd = open(w->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd >= 0) return w;
    error_set(err, "%s: cannot create: %s", w->tmp, strerror(errno));
    safetensors_abandon(w);
    return NULL;
}

void safetensors_declare(safetensors_writer *w, const char *name, dtype dt, int ndim, const int64_t *shape)
{
    const char *type = dt == DT_F32 ? "F32" : dt == DT_BF16 ? "BF16" : dt == DT_F16 ? "F16" : "U8";
    json_t *dims = json_array();
    int64_t n_elem = 1;

    CHECK(!w->headed && (dt == DT_F32 || dt == DT_BF16 || dt == DT_F16 || dt == DT_U8), "%s: %s: cannot be declared",
          w->path, name);
    for (int i = 0; i < ndim; i++) {
        json_array_append_new(dims, json_integer(shape[i]));
        n_elem *= shape[i];
    }
    const int64_t end = w->data_bytes + n_elem * (int64_t)dtype_size(dt);
    json_object_set_new(w->header, name,
                        json_pack("{s:s, s:o, s:[I, I]}", "dtype", type, "shape", dims, "data_offsets",
                                  (json_int_t)w->data_bytes, (json_int_t)end));
    if (w->n == w->room) {
        w->room = 2 * w->room + 64;
        CHECK(w->list = realloc(w->list, (size_t)w->room * sizeof *w->list), "out of host memory");
    }
    w->list[w->n++] = (struct declared){dt, n_elem};
    w->data_bytes = end;
}

static int flush(safetensors_writer *w, moai_error *err)
{
    for (size_t done = 0; done < w->used;) {
        ssize_t n = write(w->fd, w->block + done, w->used - done);
        if (n < 0 && errno != EINTR) return error_set(err, "%s: cannot write: %s", w->tmp, strerror(errno));
        if (n > 0) done += (size_t)n;
    }
    w->used = 0;
    return 0;
}

static int put(safetensors_writer *w, const void *data, size_t n_bytes, moai_error *err)
{
    for (size_t done = 0; done < n_bytes;) {
        const size_t n = (size_t)min_i64((int64_t)(n_bytes - done), BLOCK_BYTES - (int64_t)w->used);
        memcpy(w->block + w->used, (const char *)data + done, n);
        w->used += n, done += n;
        if (w->used == BLOCK_BYTES && flush(w, err) != 0) return -1;
    }
    return 0;
}

/* Padded with spaces, so that the data begins at a multiple of 8. */
static int put_header(safetensors_writer *w, moai_error *err)
{
    char *text = json_dumps(w->header, JSON_COMPACT);
    unsigned char prefix[8];

    CHECK(text, "%s: cannot encode the header", w->path);
    const size_t n = strlen(text), padded = (size_t)round_up((int64_t)n, 8);
    for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)(padded >> 8 * i);
    int rc = put(w, prefix, sizeof prefix, err);
    if (rc == 0) rc = put(w, text, n, err);
    if (rc == 0) rc = put(w, "       ", padded - n, err);
    free(text);
    w->headed = true;
    return rc;
}

static uint16_t bf16_bits(float x)            /* to nearest even; a NaN stays one */
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((x != x ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static int put_halves(safetensors_writer *w, const float *x, int64_t n, dtype dt, moai_error *err)
{
    uint16_t out[4096];
    int rc = 0;

    for (int64_t i = 0; rc == 0 && i < n; i += 4096) {
        const int64_t m = min_i64(n - i, 4096);
        for (int64_t j = 0; j < m; j++) {
            const _Float16 half = (_Float16)x[i + j];
            if (dt == DT_BF16)
                out[j] = bf16_bits(x[i + j]);
            else
                memcpy(&out[j], &half, sizeof half);
        }
        rc = put(w, out, (size_t)m * sizeof *out, err);
    }
    return rc;
}

/* The type of the next n elements. */
static int next_elements(safetensors_writer *w, int64_t n, dtype *dt, moai_error *err)
{
    if (!w->headed && put_header(w, err) != 0) return -1;
    while (w->at < w->n && w->list[w->at].n_elem == 0) w->at++;
    CHECK(w->at < w->n && n <= w->list[w->at].n_elem - w->at_elem, "%s: more elements than declared", w->path);
    *dt = w->list[w->at].dt;
    w->at_elem += n;
    if (w->at_elem == w->list[w->at].n_elem) w->at++, w->at_elem = 0;
    return 0;
}

int safetensors_write_bytes(safetensors_writer *w, const void *bytes, int64_t n, moai_error *err)
{
    dtype dt;

    if (next_elements(w, n, &dt, err) != 0) return -1;
    CHECK(dt == DT_U8, "%s: bytes of a tensor of %s", w->path, dtype_name(dt));
    return put(w, bytes, (size_t)n, err);
}

int safetensors_write(safetensors_writer *w, const float *x, int64_t n, moai_error *err)
{
    dtype dt;

    if (next_elements(w, n, &dt, err) != 0) return -1;
    CHECK(dt != DT_U8, "%s: numbers of a tensor of bytes", w->path);
    return dt == DT_F32 ? put(w, x, (size_t)n * sizeof *x, err) : put_halves(w, x, n, dt, err);
}

void safetensors_abandon(safetensors_writer *w)
{
    if (!w) return;
    if (w->fd >= 0) {
        close(w->fd);
        unlink(w->tmp);
    }
    json_decref(w->header);
    free(w->list);
    free(w->block);
    free(w->path);
    free(w->tmp);
    free(w);
}

int safetensors_finish(safetensors_writer *w, moai_error *err)
{
    int rc = w->headed ? 0 : put_header(w, err);

    while (w->at < w->n && w->list[w->at].n_elem == 0) w->at++;
    CHECK(w->at == w->n, "%s: %d of %d tensors were written", w->path, w->at, w->n);
    if (rc == 0) rc = flush(w, err);
    if (rc == 0 && fsync(w->fd) != 0) rc = error_set(err, "%s: cannot fsync: %s", w->tmp, strerror(errno));
    if (rc == 0 && rename(w->tmp, w->path) != 0)
        rc = error_set(err, "%s: cannot be renamed: %s", w->tmp, strerror(errno));
    if (rc == 0) rc = dir_sync_parent(w->path, err);
    safetensors_abandon(w);
    return rc;
}
