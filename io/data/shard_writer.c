/* shard_writer.c: the writing half of shard.h.  Two writers given the same documents make the same bytes: no time
 * stamps. */
#include "io/data/shard_file.h"
#include "io/file/h5.h"
#include "src/base/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct shard_writer {
    char *path, *tmp;
    shard_info info;
    hid_t file, tokens;
    int width;                                /* bytes per token: 2 or 4 */
    unsigned char *chunk;                     /* the tokens not yet written: n_pending of at most SHARD_CHUNK */
    int64_t n_pending, n_tokens;              /* n_tokens counts the pending ones too */
    uint64_t *offsets;                        /* (n_documents + 1) */
    int64_t n_documents, capacity;
};

/* A chunked 1-D dataset with Fletcher32 that can grow.  Lock held. */
static hid_t create_dataset(hid_t file, const char *name, hid_t type, hsize_t n, hsize_t chunk)
{
    hsize_t unlimited = H5S_UNLIMITED;
    hid_t space = H5Screate_simple(1, &n, &unlimited), plist = H5Pcreate(H5P_DATASET_CREATE),
          access = H5Pcreate(H5P_DATASET_ACCESS);

    H5Pset_chunk(plist, 1, &chunk);
    H5Pset_fletcher32(plist);
    H5Pset_obj_track_times(plist, false);
    H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER);
    H5Pset_chunk_cache(access, 0, 0, 1);                      /* chunks come whole */
    hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, access);
    H5Pclose(access);
    H5Pclose(plist);
    H5Sclose(space);
    return dataset;
}

static int write_header(shard_writer *w)
{
    hid_t type = w->width == 2 ? H5T_STD_U16LE : H5T_STD_U32LE;

    w->tokens = create_dataset(w->file, "tokens", type, 0, SHARD_CHUNK);
    return w->tokens < 0 || h5_write_text(w->file, "format", SHARD_FORMAT) != 0 ||
                   h5_write_int(w->file, "version", SHARD_VERSION) != 0 ||
                   h5_write_int(w->file, "vocab_size", w->info.vocab_size) != 0 ||
                   h5_write_int(w->file, "eos", w->info.eos) != 0 || h5_write_int(w->file, "pad", w->info.pad) != 0 ||
                   h5_write_text(w->file, "tokenizer_sha256", w->info.tokenizer_sha256) != 0
               ? -1
               : 0;
}

/* Closes what is open, in either case.  Lock held; -1 when the library could not write the rest. */
static int close_file(shard_writer *w)
{
    int status = 0;

    if (w->tokens >= 0 && H5Dclose(w->tokens) < 0) status = -1;
    if (w->file >= 0 && H5Fclose(w->file) < 0) status = -1;
    w->tokens = w->file = -1;
    return status;
}

static void writer_free(shard_writer *w)
{
    free(w->path);
    free(w->tmp);
    free(w->chunk);
    free(w->offsets);
    free(w);
}

void shard_discard(shard_writer *w)
{
    if (!w) return;
    h5_lock();
    close_file(w);
    H5Eclear2(H5E_DEFAULT);
    h5_unlock();
    unlink(w->tmp);
    writer_free(w);
}

shard_writer *shard_create(const char *path, const shard_info *info, moai_error *err)
{
    shard_writer *w = xmalloc(sizeof *w);

    *w = (shard_writer){
        .path = xstrdup(path), .tmp = xasprintf("%s.tmp", path), .info = *info, .file = -1, .tokens = -1};
    w->width = shard_width(info->vocab_size);
    w->chunk = xmalloc((size_t)SHARD_CHUNK * (size_t)w->width);
    w->capacity = 1024;
    w->offsets = xmalloc((size_t)w->capacity * sizeof *w->offsets);
    h5_lock();
    hid_t plist = H5Pcreate(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_obj_track_times(plist, false);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);        /* headers and indices with checksums */
    w->file = H5Fcreate(w->tmp, H5F_ACC_TRUNC, plist, access);
    int status = 0;
    if (w->file < 0)
        status = h5_fail(err, "%s: cannot create", w->tmp);
    else if (write_header(w) != 0)
        status = h5_fail(err, "%s: cannot write the header", w->tmp);
    H5Pclose(access);
    H5Pclose(plist);
    h5_unlock();
    if (status == 0) return w;
    shard_discard(w);
    return NULL;
}

/* Writes the pending tokens behind those in the file. */
static int flush_chunk(shard_writer *w, moai_error *err)
{
    hsize_t begin = (hsize_t)(w->n_tokens - w->n_pending), n = (hsize_t)w->n_pending, end = begin + n;
    int status = 0;

    if (n == 0) return 0;
    h5_lock();
    hid_t memory = H5Screate_simple(1, &n, NULL), space = -1;
    if (H5Dset_extent(w->tokens, &end) < 0 || (space = H5Dget_space(w->tokens)) < 0 ||
        H5Sselect_hyperslab(space, H5S_SELECT_SET, &begin, NULL, &n, NULL) < 0 ||
        H5Dwrite(w->tokens, w->width == 2 ? H5T_NATIVE_UINT16 : H5T_NATIVE_UINT32, memory, space, H5P_DEFAULT,
                 w->chunk) < 0)
        status = h5_fail(err, "%s: cannot write tokens %lld to %lld", w->tmp, (long long)begin, (long long)end);
    if (space >= 0) H5Sclose(space);
    H5Sclose(memory);
    h5_unlock();
    w->n_pending = 0;
    return status;
}

static void narrow_tokens(unsigned char *dst, int width, const int32_t *ids, int64_t n)
{
    if (width == 2)
        for (int64_t i = 0; i < n; i++) ((uint16_t *)(void *)dst)[i] = (uint16_t)ids[i];
    else
        memcpy(dst, ids, (size_t)n * sizeof *ids);
}

int shard_append(shard_writer *w, const int32_t *ids, int64_t n, moai_error *err)
{
    if (n < 1 || ids[n - 1] != w->info.eos)
        return error_set(err, "%s: document %lld does not end with eos %lld", w->path, (long long)w->n_documents,
                         (long long)w->info.eos);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= w->info.vocab_size)
            return error_set(err, "%s: document %lld: token %d at %lld is not below vocab_size %lld", w->path,
                             (long long)w->n_documents, ids[i], (long long)i, (long long)w->info.vocab_size);

    for (int64_t done = 0; done < n;) {
        int64_t take = min_i64(n - done, SHARD_CHUNK - w->n_pending);
        narrow_tokens(w->chunk + w->n_pending * w->width, w->width, ids + done, take);
        w->n_pending += take;
        w->n_tokens += take;
        done += take;
        if (w->n_pending == SHARD_CHUNK && flush_chunk(w, err) != 0) return -1;
    }
    if (++w->n_documents == w->capacity) {
        w->capacity *= 2;
        w->offsets = realloc(w->offsets, (size_t)w->capacity * sizeof *w->offsets);
        CHECK(w->offsets, "out of host memory: offsets of %lld documents", (long long)w->capacity);
    }
    w->offsets[w->n_documents] = (uint64_t)w->n_tokens;
    return 0;
}

int64_t shard_n_tokens(const shard_writer *w) { return w->n_tokens; }

static int write_documents(shard_writer *w, moai_error *err)
{
    hsize_t n = (hsize_t)w->n_documents + 1;
    int status = 0;

    h5_lock();
    hid_t documents = create_dataset(w->file, "documents", H5T_STD_U64LE, n, SHARD_DOCUMENT_CHUNK);
    if (documents < 0 || H5Dwrite(documents, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, w->offsets) < 0)
        status = h5_fail(err, "%s: cannot write /documents", w->tmp);
    if (documents >= 0 && H5Dclose(documents) < 0 && status == 0)
        status = h5_fail(err, "%s: cannot write /documents", w->tmp);
    if (status == 0 && close_file(w) != 0) status = h5_fail(err, "%s: cannot close", w->tmp);
    h5_unlock();
    return status;
}

int shard_close(shard_writer *w, moai_error *err)
{
    int status = flush_chunk(w, err);

    if (status == 0) status = write_documents(w, err);
    if (status == 0) status = file_sync(w->tmp, err);
    if (status == 0 && rename(w->tmp, w->path) != 0)
        status = error_set(err, "%s: cannot rename to %s: %s", w->tmp, w->path, strerror(errno));
    if (status != 0) {
        shard_discard(w);
        return -1;
    }
    status = dir_sync_parent(w->path, err);
    writer_free(w);
    return status;
}
