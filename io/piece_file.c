/* piece_file.c: writing one rank's HDF5 file; see pieces.h
 *
 * HDF5 1.10 cannot close a file whose disk is full: it flushes again, fails again, and keeps the file open for its exit handler,
 * which fails once more.  So everything is flushed and fsynced while failing is still harmless, and after any failure the
 * descriptor under the library is exchanged for an anonymous file in memory, where the close succeeds.              */
#include "pieces.h"
#include "files.h"
#include "h5.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { BLOCK_ELEM = 1 << 22 };                /* 16 MiB of fp32 at a time */

struct piece_writer {
    char *path;
    hid_t file, with_groups;                  /* link creation that makes the groups on the way */
    int fd;                                   /* the descriptor below `file`, HDF5's */
    bool broken;
    float *block;
};

/* Raw data bypasses the library's small buffers, so that a write fails where it is made; groups in the compact form of 1.8. */
static hid_t file_access(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);

    H5Pset_fapl_sec2(access);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    H5Pset_sieve_buf_size(access, 0);
    H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST);
    return access;
}

piece_writer *piece_file_create(const char *path, moai_error *err)
{
    piece_writer *w = xmalloc(sizeof *w);
    void *handle;

    w->path = xstrdup(path);
    w->block = xmalloc(BLOCK_ELEM * sizeof *w->block);
    h5_lock();
    hid_t access = file_access();
    w->with_groups = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(w->with_groups, 1);
    w->file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    if (w->file >= 0 && H5Fget_vfd_handle(w->file, access, &handle) >= 0)
        w->fd = *(int *)handle;
    else
        w->broken = true, w->fd = -1, h5_fail(err, "%s: cannot create", path);
    H5Pclose(access);
    h5_unlock();
    if (!w->broken) return w;
    piece_file_close(w, NULL, err);
    return NULL;
}

/* Lock held; reports and makes the file harmless to close.  Always returns -1. */
static int writer_fail(piece_writer *w, const char *what, moai_error *err)
{
    h5_fail(err, "%s: %s", w->path, what);
    w->broken = true;
    int memory = memfd_create("moai-abandoned", MFD_CLOEXEC);
    if (memory < 0 || dup2(memory, w->fd) < 0)
        if (ftruncate(w->fd, 0) != 0) warn("%s: cannot give up its disk space: %s", w->path, strerror(errno));
    if (memory >= 0) close(memory);
    return -1;
}

static int write_pair(hid_t object, const char *name, int64_t a, int64_t b)
{
    const int64_t pair[2] = {a, b};
    hid_t space = H5Screate_simple(1, (hsize_t[]){2}, NULL);
    hid_t attribute = H5Acreate2(object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    int rc = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT64, pair) >= 0 ? 0 : -1;

    if (attribute >= 0 && H5Aclose(attribute) < 0) rc = -1;
    H5Sclose(space);
    return rc;
}

/* Contiguous, its space taken at once and not filled: the address is known and the data is one run of bytes.  A piece of zeros
 * takes no space at all.                                                                                             */
static hid_t create_dataset(const piece_writer *w, const piece *p, bool zeros)
{
    char *path = xasprintf("/%s/%s/%d", checkpoint_state_names[p->state], p->name, p->index);
    hid_t space = H5Screate_simple(2, (hsize_t[]){(hsize_t)p->at.n_rows, (hsize_t)p->at.n_cols}, NULL);
    hid_t how = H5Pcreate(H5P_DATASET_CREATE);

    H5Pset_layout(how, H5D_CONTIGUOUS);
    H5Pset_alloc_time(how, zeros ? H5D_ALLOC_TIME_LATE : H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(how, zeros ? H5D_FILL_TIME_IFSET : H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(how, false);       /* the same state gives the same bytes */
    hid_t set = H5Dcreate2(w->file, path, H5T_IEEE_F32LE, space, w->with_groups, how, H5P_DEFAULT);
    H5Pclose(how);
    H5Sclose(space);
    free(path);
    return set;
}

static int write_rows(hid_t set, const piece *p, int64_t row, int64_t n_rows, const float *x)
{
    const hsize_t start[2] = {(hsize_t)row, 0}, count[2] = {(hsize_t)n_rows, (hsize_t)p->at.n_cols};
    hid_t in_file = H5Dget_space(set), in_memory = H5Screate_simple(2, count, NULL);
    int rc = H5Sselect_hyperslab(in_file, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
             H5Dwrite(set, H5T_IEEE_F32LE, in_memory, in_file, H5P_DEFAULT, x) >= 0 ? 0 : -1;

    H5Sclose(in_memory);
    H5Sclose(in_file);
    return rc;
}

/* Returns -1 with err set; `fill` runs without the lock, it may itself read a file. */
static int write_data(piece_writer *w, hid_t set, const piece *p, piece_fill fill, void *from, XXH3_state_t *hash, moai_error *err)
{
    const int64_t width = p->at.n_cols, rows_at_once = max_i64(BLOCK_ELEM / width, 1);
    float *x = width <= BLOCK_ELEM ? w->block : xmalloc((size_t)width * sizeof *x);
    int rc = 0;

    for (int64_t row = 0; rc == 0 && row < p->at.n_rows; row += rows_at_once) {
        const int64_t n_rows = min_i64(rows_at_once, p->at.n_rows - row);
        if (fill)
            rc = fill(from, row * width, n_rows * width, x, err);
        else
            memset(x, 0, (size_t)(n_rows * width) * sizeof *x);
        if (rc != 0) break;
        XXH3_128bits_update(hash, x, (size_t)(n_rows * width) * sizeof *x);
        if (!fill) continue;
        h5_lock();
        if (write_rows(set, p, row, n_rows, x) != 0) rc = writer_fail(w, "cannot write", err);
        h5_unlock();
    }
    if (x != w->block) free(x);
    return rc;
}

int piece_write(piece_writer *w, piece *p, piece_fill fill, void *from, moai_error *err)
{
    XXH3_state_t *hash = XXH3_createState();

    CHECK(hash, "out of host memory");
    XXH3_128bits_reset(hash);
    h5_lock();
    hid_t set = create_dataset(w, p, !fill);
    int rc = set < 0 ? writer_fail(w, "cannot create a dataset", err) : 0;
    h5_unlock();

    if (rc == 0) rc = write_data(w, set, p, fill, from, hash, err);
    hash_hex(hash, p->xxh3);
    XXH3_freeState(hash);

    h5_lock();
    if (rc == 0) {
        const haddr_t address = fill ? H5Dget_offset(set) : HADDR_UNDEF;
        p->address = address == HADDR_UNDEF ? -1 : (int64_t)address;
        if ((fill && p->address < 0) || write_pair(set, "global_shape", p->rows, p->cols) != 0 ||
            write_pair(set, "offset", p->at.row0, p->at.col0) != 0 || h5_write_text(set, "xxh3", p->xxh3) != 0)
            rc = writer_fail(w, "cannot write attributes", err);
    }
    if (set >= 0 && H5Dclose(set) < 0 && rc == 0) rc = writer_fail(w, "cannot close a dataset", err);
    h5_unlock();
    return rc;
}

/* Flush and fsync report a full disk or quota; only then is the file closed. */
static int flush_and_close(piece_writer *w, moai_error *err)
{
    int rc = 0;

    h5_lock();
    if (!w->broken && H5Fflush(w->file, H5F_SCOPE_LOCAL) < 0) rc = writer_fail(w, "cannot flush", err);
    if (!w->broken && fsync(w->fd) != 0) {
        error_set(err, "%s: cannot fsync: %s", w->path, strerror(errno));
        moai_error unused;
        rc = writer_fail(w, "", &unused);
    }
    if (w->file >= 0 && H5Fclose(w->file) < 0) {
        rc = writer_fail(w, "cannot close", err);
        H5Fclose(w->file);
    }
    H5Pclose(w->with_groups);
    h5_unlock();
    return rc;
}

static int finish_file(const char *path, piece_file *f, moai_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;

    if (fd < 0 || fsync(fd) != 0 || fstat(fd, &st) != 0)
        rc = error_set(err, "%s: cannot fsync: %s", path, strerror(errno));
    else {
        f->bytes = st.st_size;
        rc = piece_file_structure(fd, path, f, f->structure_xxh3, err);
    }
    if (fd >= 0) close(fd);
    return rc;
}

int piece_file_close(piece_writer *w, piece_file *f, moai_error *err)
{
    const bool was_broken = w->broken || !f;
    int rc = flush_and_close(w, err);

    if (rc == 0 && !was_broken) rc = finish_file(w->path, f, err);
    free(w->block);
    free(w->path);
    free(w);
    return was_broken ? -1 : rc;
}
