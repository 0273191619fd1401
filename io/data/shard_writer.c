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

/* A value for each token, written by chunks. */
typedef struct column {
    const char *name;
    hid_t set;
    int width;                                /* bytes per value: 1, 2 or 4 */
    unsigned char *chunk;                     /* the values not yet written: n_pending of at most SHARD_CHUNK */
    int64_t n_pending, n;                     /* n counts the pending ones too */
} column;

struct shard_writer {
    char *path, *tmp;
    shard_info info;
    hid_t file;
    column tokens, trained;                   /* trained and counted: of a marked shard */
    uint64_t *offsets, *counted;              /* (n_documents + 1), (n_documents) */
    int64_t n_documents, capacity, n_counted;
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

static hid_t native_type(int width)
{
    return width == 1 ? H5T_NATIVE_UINT8 : width == 2 ? H5T_NATIVE_UINT16 : H5T_NATIVE_UINT32;
}

/* Lock held. */
static int create_column(shard_writer *w, column *c, const char *name, int width)
{
    const hid_t type = width == 1 ? H5T_STD_U8LE : width == 2 ? H5T_STD_U16LE : H5T_STD_U32LE;

    c->name = name;
    c->width = width;
    c->chunk = xmalloc((size_t)SHARD_CHUNK * (size_t)width);
    c->set = create_dataset(w->file, name, type, 0, SHARD_CHUNK);
    return c->set < 0 ? -1 : 0;
}

static int write_header(shard_writer *w)
{
    const shard_info *i = &w->info;

    if (create_column(w, &w->tokens, "tokens", shard_width(i->vocab_size)) != 0) return -1;
    if (i->is_marked && create_column(w, &w->trained, "trained", 1) != 0) return -1;
    return h5_write_text(w->file, "format", SHARD_FORMAT) != 0 ||
                   h5_write_int(w->file, "version", i->is_marked ? SHARD_MARKED : SHARD_VERSION) != 0 ||
                   h5_write_int(w->file, "vocab_size", i->vocab_size) != 0 ||
                   h5_write_int(w->file, "eos", i->eos) != 0 || h5_write_int(w->file, "pad", i->pad) != 0 ||
                   h5_write_text(w->file, "tokenizer_sha256", i->tokenizer_sha256) != 0
               ? -1
               : 0;
}

/* Closes what is open, in either case.  Lock held; -1 when the library could not write the rest. */
static int close_file(shard_writer *w)
{
    int status = 0;

    if (w->tokens.set >= 0 && H5Dclose(w->tokens.set) < 0) status = -1;
    if (w->trained.set >= 0 && H5Dclose(w->trained.set) < 0) status = -1;
    if (w->file >= 0 && H5Fclose(w->file) < 0) status = -1;
    w->tokens.set = w->trained.set = w->file = -1;
    return status;
}

static void writer_free(shard_writer *w)
{
    free(w->path);
    free(w->tmp);
    free(w->tokens.chunk);
    free(w->trained.chunk);
    free(w->offsets);
    free(w->counted);
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

    *w = (shard_writer){.path = xstrdup(path), .tmp = xasprintf("%s.tmp", path), .info = *info, .file = -1,
                        .tokens.set = -1, .trained.set = -1, .capacity = 1024};
    w->offsets = xmalloc((size_t)w->capacity * sizeof *w->offsets);
    w->counted = xmalloc((size_t)w->capacity * sizeof *w->counted);
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

/* Writes the pending values behind those in the file. */
static int flush_chunk(const shard_writer *w, column *c, moai_error *err)
{
    hsize_t begin = (hsize_t)(c->n - c->n_pending), n = (hsize_t)c->n_pending, end = begin + n;
    int status = 0;

    if (n == 0) return 0;
    h5_lock();
    hid_t memory = H5Screate_simple(1, &n, NULL), space = -1;
    if (H5Dset_extent(c->set, &end) < 0 || (space = H5Dget_space(c->set)) < 0 ||
        H5Sselect_hyperslab(space, H5S_SELECT_SET, &begin, NULL, &n, NULL) < 0 ||
        H5Dwrite(c->set, native_type(c->width), memory, space, H5P_DEFAULT, c->chunk) < 0)
        status = h5_fail(err, "%s: cannot write /%s %lld to %lld", w->tmp, c->name, (long long)begin, (long long)end);
    if (space >= 0) H5Sclose(space);
    H5Sclose(memory);
    h5_unlock();
    c->n_pending = 0;
    return status;
}

static void narrow_tokens(unsigned char *dst, int width, const int32_t *ids, int64_t n)
{
    if (width == 2)
        for (int64_t i = 0; i < n; i++) ((uint16_t *)(void *)dst)[i] = (uint16_t)ids[i];
    else
        memcpy(dst, ids, (size_t)n * sizeof *ids);
}

/* Of `ids` or, where the column is of flags, `flags`. */
static int append_values(const shard_writer *w, column *c, const int32_t *ids, const uint8_t *flags, int64_t n,
                         moai_error *err)
{
    for (int64_t done = 0, take; done < n; done += take) {
        unsigned char *to = c->chunk + c->n_pending * c->width;
        take = min_i64(n - done, SHARD_CHUNK - c->n_pending);
        if (c->width == 1)
            memcpy(to, flags + done, (size_t)take);
        else
            narrow_tokens(to, c->width, ids + done, take);
        c->n_pending += take;
        c->n += take;
        if (c->n_pending == SHARD_CHUNK && flush_chunk(w, c, err) != 0) return -1;
    }
    return 0;
}

static int check_document(const shard_writer *w, const int32_t *ids, const uint8_t *trained, int64_t n,
                          moai_error *err)
{
    const long long document = (long long)w->n_documents;

    if (n < 1) return error_set(err, "%s: document %lld has no tokens", w->path, document);
    if (!w->info.is_marked && ids[n - 1] != w->info.eos)
        return error_set(err, "%s: document %lld does not end with eos %lld", w->path, document,
                         (long long)w->info.eos);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= w->info.vocab_size)
            return error_set(err, "%s: document %lld: token %d at %lld is not below vocab_size %lld", w->path,
                             document, ids[i], (long long)i, (long long)w->info.vocab_size);
    for (int64_t i = 0; trained && i < n; i++)
        if (trained[i] > 1)
            return error_set(err, "%s: document %lld: flag %d at %lld is neither 0 nor 1", w->path, document,
                             trained[i], (long long)i);
    return 0;
}

static void *grown(void *list, int64_t capacity)
{
    list = realloc(list, (size_t)capacity * sizeof(uint64_t));
    CHECK(list, "out of host memory: offsets of %lld documents", (long long)capacity);
    return list;
}

int shard_append(shard_writer *w, const int32_t *ids, const uint8_t *trained, int64_t n, moai_error *err)
{
    int64_t counted = 0;

    CHECK(w->info.is_marked == !!trained, "%s: a document %s flags", w->path, trained ? "with" : "without");
    if (check_document(w, ids, trained, n, err) != 0 || append_values(w, &w->tokens, ids, NULL, n, err) != 0 ||
        (trained && append_values(w, &w->trained, NULL, trained, n, err) != 0))
        return -1;
    for (int64_t i = 1; trained && i < n; i++) counted += trained[i];
    w->n_counted += counted;
    w->counted[w->n_documents] = (uint64_t)counted;
    if (++w->n_documents == w->capacity) {
        w->capacity *= 2;
        w->offsets = grown(w->offsets, w->capacity);
        w->counted = grown(w->counted, w->capacity);
    }
    w->offsets[w->n_documents] = (uint64_t)w->tokens.n;
    return 0;
}

int64_t shard_n_counted(const shard_writer *w) { return w->n_counted; }
int64_t shard_n_tokens(const shard_writer *w) { return w->tokens.n; }

/* A number for each document.  Lock held. */
static int write_numbers(const shard_writer *w, const char *name, const uint64_t *numbers, int64_t n, moai_error *err)
{
    hid_t set = create_dataset(w->file, name, H5T_STD_U64LE, (hsize_t)n, SHARD_DOCUMENT_CHUNK);
    bool failed = set < 0 || (n > 0 && H5Dwrite(set, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers) < 0);

    if (set >= 0 && H5Dclose(set) < 0) failed = true;
    return failed ? h5_fail(err, "%s: cannot write /%s", w->tmp, name) : 0;
}

static int write_documents(shard_writer *w, moai_error *err)
{
    h5_lock();
    int status = write_numbers(w, "documents", w->offsets, w->n_documents + 1, err);
    if (status == 0 && w->info.is_marked) status = write_numbers(w, "counted", w->counted, w->n_documents, err);
    if (status == 0 && close_file(w) != 0) status = h5_fail(err, "%s: cannot close", w->tmp);
    h5_unlock();
    return status;
}

int shard_close(shard_writer *w, moai_error *err)
{
    int status = flush_chunk(w, &w->tokens, err);

    if (status == 0) status = flush_chunk(w, &w->trained, err);
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
