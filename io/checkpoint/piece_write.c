/* piece_write.c: writing one rank's HDF5 file; see piece_file.h
 *
 * HDF5 1.10 does not survive a full disk: a flush that failed leaves its cache unable to flush or close again, and
 * the process crashes.  So the library never touches the disk here.  It lays the file out in an anonymous file in
 * memory, where only its own structure (headers, groups, attributes: some kB per hundred pieces) is ever written; the
 * data goes from the caller to the disk at the addresses that the library assigned, and the structure follows at the
 * end.  Every write to the disk is then a pwrite whose failure has an errno. */
#include "io/checkpoint/piece_file.h"
#include "io/file/h5.h"
#include "src/base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

struct piece_writer {
    char *path;
    int disk, memory;                         /* the file, and its structure while the library composes it */
    hid_t file, with_groups;                  /* in memory; link creation that makes the groups on the way */
    float *block;
};

/* The library failed without a disk below: this process is out of memory or broken. */
#define H5_CHECK(w, cond, what)                                  \
    do {                                                         \
        if (!(cond)) {                                           \
            moai_error h5_error;                                 \
            h5_fail(&h5_error, "%s: " what, (w)->path);          \
            die("%s", h5_error.text);                            \
        }                                                        \
    } while (0)

static void writer_free(piece_writer *w)
{
    h5_lock();
    if (w->with_groups > 0) H5Pclose(w->with_groups);
    h5_unlock();
    if (w->disk >= 0) close(w->disk);
    if (w->memory >= 0) close(w->memory);
    free(w->block);
    free(w->path);
    free(w);
}

static hid_t open_structure(const char *path, int *fd, moai_error *err)
{
    void *handle = NULL;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);

    H5Pset_fapl_sec2(access);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST);       /* groups in the compact form of 1.8 */
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    if (file < 0) h5_fail(err, "%s: cannot create", path);
    if (file >= 0 && H5Fget_vfd_handle(file, access, &handle) >= 0) *fd = *(int *)handle;
    H5Pclose(access);
    return file;
}

/* The library opens files by name only, so it gets the real one, and then another file under the descriptor it
 * holds. */
static int create_structure(piece_writer *w, moai_error *err)
{
    struct stat st;
    int fd = -1;

    h5_lock();
    w->file = open_structure(w->path, &fd, err);
    w->with_groups = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(w->with_groups, 1);
    h5_unlock();
    if (w->file < 0) return -1;
    w->memory = memfd_create("moai-checkpoint", MFD_CLOEXEC);
    CHECK(fd >= 0 && w->memory >= 0, "%s: memfd_create: %s", w->path, strerror(errno));
    CHECK(fstat(fd, &st) == 0 && sendfile(w->memory, fd, &(off_t){0}, (size_t)st.st_size) == st.st_size &&
              dup2(w->memory, fd) == fd,
          "%s: cannot move to memory: %s", w->path, strerror(errno));
    return 0;
}

piece_writer *piece_file_create(const char *path, moai_error *err)
{
    piece_writer *w = xmalloc(sizeof *w);

    w->path = xstrdup(path);
    w->block = xmalloc((size_t)piece_block_elem * sizeof *w->block);
    w->memory = -1;
    w->disk = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->disk < 0)
        error_set(err, "%s: cannot create: %s", path, strerror(errno));
    else if (create_structure(w, err) == 0)
        return w;
    writer_free(w);
    return NULL;
}

static int write_at(const piece_writer *w, const void *data, size_t n_bytes, int64_t offset, moai_error *err)
{
    for (size_t done = 0; done < n_bytes;) {
        ssize_t n = pwrite(w->disk, (const char *)data + done, n_bytes - done, (off_t)(offset + (int64_t)done));
        if (n < 0 && errno != EINTR) return error_set(err, "%s: cannot write: %s", w->path, strerror(errno));
        if (n > 0) done += (size_t)n;
    }
    return 0;
}

static void write_pair(const piece_writer *w, hid_t object, const char *name, int64_t a, int64_t b)
{
    const int64_t pair[2] = {a, b};
    hid_t space = H5Screate_simple(1, (hsize_t[]){2}, NULL);
    hid_t attribute = H5Acreate2(object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);

    H5_CHECK(w, attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT64, pair) >= 0, "cannot write an attribute");
    H5Aclose(attribute);
    H5Sclose(space);
}

/* Contiguous, its space taken at once and never filled: the address is known, the data one run of bytes.  A piece of
 * zeros takes no space: what was never allocated reads as zero. */
static hid_t create_dataset(const piece_writer *w, const piece *p, bool zeros)
{
    char *path = xasprintf("/%s/%s/%d", adamw_states.list[p->state].name, p->name, p->index);
    hid_t space = H5Screate_simple(2, (hsize_t[]){(hsize_t)p->at.n_rows, (hsize_t)p->at.n_cols}, NULL);
    hid_t how = H5Pcreate(H5P_DATASET_CREATE);

    H5Pset_layout(how, H5D_CONTIGUOUS);
    H5Pset_alloc_time(how, zeros ? H5D_ALLOC_TIME_LATE : H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(how, zeros ? H5D_FILL_TIME_IFSET : H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(how, false);       /* the same state gives the same bytes */
    hid_t set = H5Dcreate2(w->file, path, H5T_IEEE_F32LE, space, w->with_groups, how, H5P_DEFAULT);
    H5_CHECK(w, set >= 0, "cannot create a dataset");
    H5Pclose(how);
    H5Sclose(space);
    free(path);
    return set;
}

static void write_attributes(const piece_writer *w, hid_t set, const piece *p)
{
    write_pair(w, set, "global_shape", p->rows, p->cols);
    write_pair(w, set, "offset", p->at.row0, p->at.col0);
    H5_CHECK(w, h5_write_text(set, "xxh3", p->xxh3) == 0, "cannot write an attribute");
    H5_CHECK(w, H5Dclose(set) >= 0, "cannot close a dataset");
}

/* The disk begins at once, so that neither unwritten pages pile up nor the fsync at the end has everything to do. */
static int write_block(const piece_writer *w, const void *data, size_t n_bytes, int64_t offset, moai_error *err)
{
    if (write_at(w, data, n_bytes, offset, err) != 0) return -1;
    sync_file_range(w->disk, offset, (off64_t)n_bytes, SYNC_FILE_RANGE_WRITE);   /* fsync tells what fails */
    return 0;
}

/* Where there is more than one block, each gets a hash of its own. */
static void prepare_blocks(piece *p, int64_t block_rows)
{
    if (p->at.n_rows <= block_rows) return;
    p->block_rows = block_rows;
    p->blocks = xmalloc((size_t)piece_n_blocks(p) * sizeof *p->blocks);
}

static int write_data(const piece_writer *w, piece *p, piece_fill fill, void *from, moai_error *err)
{
    const int64_t width = p->at.n_cols, step = max_i64(piece_block_elem / width, 1);
    float *x = width <= piece_block_elem ? w->block : xmalloc((size_t)width * sizeof *x);
    XXH3_state_t *whole = hash_begin(), *own = hash_begin();
    int rc = 0;

    prepare_blocks(p, step);
    if (!fill) memset(x, 0, (size_t)(min_i64(step, p->at.n_rows) * width) * sizeof *x);
    for (int64_t row = 0; rc == 0 && row < p->at.n_rows; row += step) {
        const rect rows = {p->at.row0 + row, min_i64(step, p->at.n_rows - row), p->at.col0, width};
        const size_t n_bytes = (size_t)rect_n_elem(rows) * sizeof *x;
        if (fill) rc = fill(from, row * width, rect_n_elem(rows), x, err);
        if (rc == 0 && fill) rc = piece_check_finite(w->path, p, rows, x, err);
        if (rc != 0) break;
        XXH3_128bits_reset(own);
        hash_both(whole, p->blocks ? own : NULL, x, n_bytes);
        if (p->blocks) hash_hex(own, p->blocks[row / step]);
        if (fill) rc = write_block(w, x, n_bytes, p->address + row * width * (int64_t)sizeof *x, err);
    }
    hash_hex(whole, p->xxh3);
    XXH3_freeState(whole);
    XXH3_freeState(own);
    if (x != w->block) free(x);
    return rc;
}

int piece_write(piece_writer *w, piece *p, piece_fill fill, void *from, moai_error *err)
{
    h5_lock();
    hid_t set = create_dataset(w, p, !fill);
    const haddr_t address = fill ? H5Dget_offset(set) : HADDR_UNDEF;
    H5_CHECK(w, !fill || address != HADDR_UNDEF, "a dataset without an address");
    h5_unlock();

    p->address = fill ? (int64_t)address : -1;
    int rc = write_data(w, p, fill, from, err);

    h5_lock();
    write_attributes(w, set, p);
    h5_unlock();
    return rc;
}

/* From memory to disk; the file is then as long as the library made it. */
static int copy_structure(const piece_writer *w, const piece_file *f, moai_error *err)
{
    enum { ROOM = 1 << 16 };
    char *buffer = xmalloc(ROOM);
    int n, rc = 0;
    byte_range *ranges = piece_file_structure(f, &n);

    for (int i = 0; i < n; i++)
        for (int64_t at = ranges[i].begin; rc == 0 && at < ranges[i].end; at += ROOM) {
            const size_t n_bytes = (size_t)min_i64(ROOM, ranges[i].end - at);
            rc = file_read_at(w->memory, "a file in memory", buffer, n_bytes, at, err);
            if (rc == 0) rc = write_at(w, buffer, n_bytes, at, err);
        }
    if (rc == 0 && ftruncate(w->disk, (off_t)f->bytes) != 0)
        rc = error_set(err, "%s: cannot be sized: %s", w->path, strerror(errno));
    free(ranges);
    free(buffer);
    return rc;
}

static int finish(const piece_writer *w, piece_file *f, moai_error *err)
{
    struct stat st;

    CHECK(fstat(w->memory, &st) == 0, "%s: fstat: %s", w->path, strerror(errno));
    f->bytes = st.st_size;
    if (piece_file_hash_structure(w->memory, "a file in memory", f, f->structure_xxh3, err) != 0) return -1;
    if (copy_structure(w, f, err) != 0) return -1;
    if (fsync(w->disk) != 0) return error_set(err, "%s: cannot fsync: %s", w->path, strerror(errno));
    posix_fadvise(w->disk, 0, 0, POSIX_FADV_DONTNEED);        /* so that reading it back asks the disk */
    return 0;
}

int piece_file_close(piece_writer *w, piece_file *f, moai_error *err)
{
    h5_lock();
    H5_CHECK(w, H5Fclose(w->file) >= 0, "HDF5 cannot close a file in memory");
    h5_unlock();

    int rc = f ? finish(w, f, err) : -1;
    if (close(w->disk) != 0 && rc == 0) rc = error_set(err, "%s: cannot close: %s", w->path, strerror(errno));
    w->disk = -1;
    writer_free(w);
    return rc;
}
