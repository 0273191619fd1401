/* shard.c: the reading half of shard.h.
 *
 * HDF5 checks a chunk's Fletcher32 whenever it reads the chunk, which costs 64 KiB of summing for a sample of 2 KiB,
 * under a global lock.  So each chunk is read through HDF5 once, the first time that this process touches it; from
 * then on its tokens are read at their place in the file with pread(), by any number of threads at once.  A shard that
 * was put to sleep and wakes needs no HDF5 for the chunks that it knows, as long as the file is still the same. */
#include "io/data/shard_file.h"
#include "io/file/h5.h"
#include "src/base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tokens are stored little-endian and read as they lie"
#endif

enum { MAX_CHUNK = 1 << 24 };

/* A value for each token. */
typedef struct column {
    const char *name;
    hid_t set;                                /* < 0: not open */
    int width;                                /* bytes per value: 1, 2 or 4 */
    int64_t n, chunk;                         /* values, and those of a chunk */
    /* per chunk: its offset in the file once its checksum was found good, 0 before */
    _Atomic(uint64_t) *verified;
} column;

struct shard {
    char *path;
    shard_info info;
    hid_t file, documents, counted;           /* < 0: not open */
    column tokens, trained;                   /* trained, counted: where info.is_marked */
    int fd;                                   /* < 0: asleep */
    struct stat as_opened;
    int64_t n_documents;
};

static hid_t h5_unsigned(size_t width)
{
    return width == 1 ? H5T_STD_U8LE : width == 2 ? H5T_STD_U16LE : width == 4 ? H5T_STD_U32LE : H5T_STD_U64LE;
}

/* Why the dataset is not 1-D unsigned integers of `width` bytes, chunked, with Fletcher32 as the only filter; NULL
 * when it is.  Lock held. */
static const char *dataset_fault(hid_t dataset, size_t width, int64_t *n, int64_t *chunk)
{
    hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset), plist = H5Dget_create_plist(dataset);
    hsize_t extent = 0, chunk_extent = 0;
    size_t no_values = 0;
    unsigned flags, config;
    const char *fault = NULL;

    if (H5Sget_simple_extent_ndims(space) != 1)
        fault = "is not one-dimensional";
    else if (H5Tequal(type, h5_unsigned(width)) <= 0)
        fault = width == 1   ? "is not uint8"
                : width == 2 ? "is not little-endian uint16"
                : width == 4 ? "is not little-endian uint32"
                             : "is not little-endian uint64";
    else if (H5Pget_layout(plist) != H5D_CHUNKED || H5Pget_chunk(plist, 1, &chunk_extent) != 1 ||
             chunk_extent > MAX_CHUNK)
        fault = "is not in chunks of at most 16777216";
    else if (H5Pget_nfilters(plist) != 1 ||
             H5Pget_filter2(plist, 0, &flags, &no_values, NULL, 0, NULL, &config) != H5Z_FILTER_FLETCHER32)
        fault = "does not have Fletcher32 as its only filter";
    H5Sget_simple_extent_dims(space, &extent, NULL);
    *n = (int64_t)extent;
    *chunk = (int64_t)chunk_extent;
    H5Pclose(plist);
    H5Sclose(space);
    H5Tclose(type);
    return fault;
}

/* Without a cache of chunks, a megabyte for each shard: each is read once.  < 0 with err.  Lock held. */
static hid_t open_named(const shard *s, const char *name, moai_error *err)
{
    const char *trap = h5_dataset_trap(s->file, s->fd, name);

    if (trap) return error_set(err, "%s: /%s %s", s->path, name, trap);
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    H5Pset_chunk_cache(access, 0, 0, H5D_CHUNK_CACHE_W0_DEFAULT);
    hid_t dataset = H5Dopen2(s->file, name, access);
    if (dataset < 0) h5_fail(err, "%s: not a token shard: no /%s", s->path, name);
    H5Pclose(access);
    return dataset;
}

/* < 0 with err when it is not as shard.h says.  Lock held. */
static hid_t open_dataset(const shard *s, const char *name, int width, int64_t *n, int64_t *chunk, moai_error *err)
{
    hid_t dataset = open_named(s, name, err);

    if (dataset < 0) return -1;
    const char *fault = dataset_fault(dataset, (size_t)width, n, chunk);
    if (!fault) return dataset;
    h5_fail(err, "%s: /%s %s", s->path, name, fault);
    H5Dclose(dataset);
    return -1;
}

static int read_header(shard *s, moai_error *err)
{
    char format[32] = "";
    int64_t version;

    if (h5_read_text(s->file, "format", format, sizeof format) != 0 || strcmp(format, SHARD_FORMAT) != 0)
        return h5_fail(err, "%s: not a token shard: attribute `format` is \"%s\", not \"%s\"", s->path, format,
                       SHARD_FORMAT);
    if (h5_read_int(s->file, "version", &version) != 0) return h5_fail(err, "%s: no attribute `version`", s->path);
    if (version != SHARD_VERSION && version != SHARD_MARKED)
        return error_set(err, "%s: format version %lld, this program reads %d and %d", s->path, (long long)version,
                         SHARD_VERSION, SHARD_MARKED);
    s->info.is_marked = version == SHARD_MARKED;
    if (h5_read_int(s->file, "vocab_size", &s->info.vocab_size) != 0)
        return h5_fail(err, "%s: no attribute `vocab_size`", s->path);
    if (h5_read_int(s->file, "eos", &s->info.eos) != 0) return h5_fail(err, "%s: no attribute `eos`", s->path);
    if (h5_read_int(s->file, "pad", &s->info.pad) != 0) return h5_fail(err, "%s: no attribute `pad`", s->path);
    if (h5_read_text(s->file, "tokenizer_sha256", s->info.tokenizer_sha256, sizeof s->info.tokenizer_sha256) != 0)
        return h5_fail(err, "%s: no attribute `tokenizer_sha256` of at most 64 characters", s->path);
    if (s->info.vocab_size < 1 || s->info.vocab_size > INT32_MAX)
        return error_set(err, "%s: vocab_size %lld", s->path, (long long)s->info.vocab_size);
    if (s->info.eos < 0 || s->info.eos >= s->info.vocab_size)
        return error_set(err, "%s: eos %lld with vocab_size %lld", s->path, (long long)s->info.eos,
                         (long long)s->info.vocab_size);
    return 0;
}

/* A file replaced or written to since is another.  Access times do not count. */
static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* The addresses of the library count from behind it. */
static hsize_t user_block(hid_t file)
{
    hid_t plist = H5Fget_create_plist(file);
    hsize_t n_bytes = 0;

    H5Pget_userblock(plist, &n_bytes);
    H5Pclose(plist);
    return n_bytes;
}

/* HDF5 takes a megabyte of memory for a file that it has open: those used last keep it open, the others their
 * descriptor.  Lock held. */
enum { MOST_LIBRARY = 64 };
static shard *with_library[MOST_LIBRARY];     /* n_with of them, the one used last at the end */
static int n_with;

static void close_library(shard *s)
{
    const hid_t sets[] = {s->tokens.set, s->trained.set, s->documents, s->counted};

    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (sets[i] >= 0) H5Dclose(sets[i]);
    if (s->file >= 0) H5Fclose(s->file);
    H5Eclear2(H5E_DEFAULT);
    s->tokens.set = s->trained.set = s->documents = s->counted = s->file = -1;
    for (int i = 0; i < n_with; i++)
        if (with_library[i] == s) {
            memmove(with_library + i, with_library + i + 1, (size_t)(--n_with - i) * sizeof *with_library);
            break;
        }
}

static void note_library(shard *s)
{
    int i = 0;

    while (i < n_with && with_library[i] != s) i++;
    if (i == n_with && n_with == MOST_LIBRARY) {
        close_library(with_library[0]);
        i = n_with;
    }
    if (i == n_with) n_with++;
    memmove(with_library + i, with_library + i + 1, (size_t)(n_with - 1 - i) * sizeof *with_library);
    with_library[n_with - 1] = s;
}

/* The library's descriptor, or -1.  Lock held. */
static int open_library(shard *s, struct stat *st, moai_error *err)
{
    int *fd = NULL;

    s->file = H5Fopen(s->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (s->file < 0) return h5_fail(err, "%s: cannot open as HDF5", s->path);
    if (H5Fget_vfd_handle(s->file, H5P_DEFAULT, (void **)&fd) < 0 || !fd || fstat(*fd, st) != 0)
        return h5_fail(err, "%s: no file descriptor", s->path);
    if (user_block(s->file) != 0)
        return error_set(err, "%s: has a user block of %llu bytes: not a token shard", s->path,
                         (unsigned long long)user_block(s->file));
    return *fd;
}

/* Lock held. */
static int open_column(const shard *s, column *c, const char *name, int width, moai_error *err)
{
    c->name = name;
    c->width = width;
    c->set = open_dataset(s, name, width, &c->n, &c->chunk, err);
    return c->set < 0 ? -1 : 0;
}

/* The flags of the tokens, and how many of each document count.  Lock held. */
static int open_marks(shard *s, moai_error *err)
{
    int64_t n, unused;

    if (!s->info.is_marked) return 0;
    if (open_column(s, &s->trained, "trained", 1, err) != 0) return -1;
    s->counted = open_dataset(s, "counted", 8, &n, &unused, err);
    if (s->counted < 0) return -1;
    if (s->trained.n == s->tokens.n && s->trained.chunk > 0 && n == s->n_documents) return 0;
    return error_set(err, "%s: %lld tokens in %lld documents, but %lld flags in chunks of %lld and %lld counts",
                     s->path, (long long)s->tokens.n, (long long)s->n_documents, (long long)s->trained.n,
                     (long long)s->trained.chunk, (long long)n);
}

/* Lock held. */
static int open_all(shard *s, moai_error *err)
{
    int64_t n_offsets, unused;

    const int fd = open_library(s, &s->as_opened, err);
    if (fd < 0) return -1;
    s->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (s->fd < 0) return error_set(err, "%s: %s", s->path, strerror(errno));
    if (read_header(s, err) != 0) return -1;
    if (open_column(s, &s->tokens, "tokens", shard_width(s->info.vocab_size), err) != 0) return -1;
    s->documents = open_dataset(s, "documents", 8, &n_offsets, &unused, err);
    if (s->documents < 0) return -1;
    s->n_documents = n_offsets - 1;
    const column *t = &s->tokens;
    const int64_t most = s->as_opened.st_size / t->width;
    if (t->chunk < 1 || n_offsets < 1 || s->n_documents > t->n || t->n > most || (t->n > 0 && t->chunk > most))
        return error_set(err, "%s: claims %lld tokens in chunks of %lld and %lld offsets of documents in %lld bytes",
                         s->path, (long long)t->n, (long long)t->chunk, (long long)n_offsets,
                         (long long)s->as_opened.st_size);
    return open_marks(s, err);
}

/* Of a shard that has slept, or was not used for long: the library opens by name, and what it opens has to be what `fd`
 * reads.  Lock held. */
static int open_again(shard *s, moai_error *err)
{
    struct stat st;

    if (s->file >= 0) return note_library(s), 0;
    int status = open_library(s, &st, err) < 0 ? -1 : 0;
    if (status == 0 && !same_file(&st, &s->as_opened))
        status = error_set(err, "%s: has been replaced while it was read", s->path);
    if (status == 0) {
        s->tokens.set = open_named(s, "tokens", err);
        if (s->tokens.set >= 0) s->documents = open_named(s, "documents", err);
        if (s->documents >= 0 && s->info.is_marked) s->trained.set = open_named(s, "trained", err);
        if (s->trained.set >= 0) s->counted = open_named(s, "counted", err);
        if ((s->info.is_marked ? s->counted : s->documents) < 0) status = -1;
    }
    if (status != 0)
        close_library(s);
    else
        note_library(s);
    return status;
}

static int take_places(const shard *s, column *c, moai_error *err)
{
    const size_t n_chunks = (size_t)(c->n / c->chunk + 1);

    c->verified = calloc(n_chunks, sizeof *c->verified);
    if (c->verified) return 0;
    return error_set(err, "%s: claims %zu chunks: not enough memory for their places", s->path, n_chunks);
}

shard *shard_open(const char *path, moai_error *err)
{
    shard *s = xmalloc(sizeof *s);
    int status;

    *s = (shard){.path = xstrdup(path), .file = -1, .documents = -1, .counted = -1, .fd = -1,
                 .tokens.set = -1, .trained.set = -1};
    if (stat(path, &s->as_opened) != 0) {                     /* HDF5 would not say it as plainly */
        status = error_set(err, "%s: %s", path, strerror(errno));
    } else {
        h5_lock();
        status = open_all(s, err);
        if (status == 0) note_library(s);
        h5_unlock();
    }
    if (status == 0) status = take_places(s, &s->tokens, err);
    if (status == 0 && s->info.is_marked) status = take_places(s, &s->trained, err);
    if (status == 0) return s;
    shard_free(s);
    return NULL;
}

void shard_sleep(shard *s)
{
    h5_lock();
    close_library(s);
    h5_unlock();
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

int shard_wake(shard *s, moai_error *err)
{
    struct stat st;
    const int fd = open(s->path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) != 0) {
        error_set(err, "%s: %s", s->path, strerror(errno));
        if (fd >= 0) close(fd);
        return -1;
    }
    if (!same_file(&st, &s->as_opened)) {
        close(fd);
        return SHARD_REPLACED;
    }
    s->fd = fd;
    return 0;
}

void shard_forget_cached(const shard *s)
{
    if (s->fd >= 0) posix_fadvise(s->fd, 0, 0, POSIX_FADV_DONTNEED);
}

void shard_free(shard *s)
{
    if (!s) return;
    shard_sleep(s);
    free(s->tokens.verified);
    free(s->trained.verified);
    free(s->path);
    free(s);
}

const shard_info *shard_get_info(const shard *s) { return &s->info; }
int64_t shard_tokens(const shard *s) { return s->tokens.n; }
int64_t shard_documents(const shard *s) { return s->n_documents; }

/* Elements [begin, begin + n) through HDF5, which checks the sums.  Lock held. */
static int read_through(const shard *s, hid_t dataset, const char *name, int64_t begin, int64_t n, hid_t type,
                        void *dst, moai_error *err)
{
    hsize_t start = (hsize_t)begin, count = (hsize_t)n;
    hid_t memory = H5Screate_simple(1, &count, NULL), space = H5Dget_space(dataset);
    int status = 0;

    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &count, NULL) < 0 ||
        H5Dread(dataset, type, memory, space, H5P_DEFAULT, dst) < 0)
        status = h5_fail(err, "%s: /%s %lld to %lld is damaged or cannot be read", s->path, name, (long long)begin,
                         (long long)(begin + n));
    H5Sclose(space);
    H5Sclose(memory);
    return status;
}

/* Checks the sum of a chunk; its place in the file, or 0.  Lock held. */
static uint64_t check_chunk(shard *s, const column *c, int64_t index, moai_error *err)
{
    int64_t begin = index * c->chunk, n = min_i64(c->chunk, c->n - begin);
    hsize_t coordinate = (hsize_t)begin, size = 0;
    haddr_t address = HADDR_UNDEF;
    unsigned mask = 0;

    if (open_again(s, err) != 0) return 0;
    void *chunk = malloc((size_t)(c->chunk * c->width));
    CHECK(chunk, "out of host memory");
    int status = read_through(s, c->set, c->name, begin, n, h5_unsigned((size_t)c->width), chunk, err);
    free(chunk);
    if (status != 0) return 0;
    if (H5Dget_chunk_info_by_coord(c->set, &coordinate, &mask, &address, &size) >= 0 && address != HADDR_UNDEF &&
        mask == 0 && size == (hsize_t)(c->chunk * c->width + 4))
        return (uint64_t)address;
    h5_fail(err, "%s: /%s %lld to %lld: no checked chunk in the file", s->path, c->name, (long long)begin,
            (long long)(begin + n));
    return 0;
}

/* The first of several threads does the work. */
static uint64_t verify_chunk(shard *s, column *c, int64_t index, moai_error *err)
{
    h5_lock();
    uint64_t address = atomic_load(&c->verified[index]);
    if (address == 0) {
        address = check_chunk(s, c, index, err);
        atomic_store(&c->verified[index], address);
    }
    h5_unlock();
    return address;
}

/* Values [begin, begin + n) of the column as they lie. */
static int read_values(shard *s, column *c, int64_t begin, int64_t n, void *dst, moai_error *err)
{
    for (int64_t done = 0, take; done < n; done += take) {
        const int64_t at = begin + done, index = at / c->chunk;
        take = min_i64(n - done, c->chunk - at % c->chunk);
        uint64_t address = atomic_load_explicit(&c->verified[index], memory_order_acquire);
        if (address == 0 && (address = verify_chunk(s, c, index, err)) == 0) return -1;
        if (file_read_at(s->fd, s->path, (char *)dst + done * c->width, (size_t)(take * c->width),
                         (int64_t)address + at % c->chunk * c->width, err) != 0)
            return -1;
    }
    return 0;
}

static int check_range(const shard *s, int64_t begin, int64_t n, moai_error *err)
{
    if (begin >= 0 && n >= 0 && begin <= s->tokens.n - n) return 0;
    return error_set(err, "%s: %lld tokens from %lld on, of %lld", s->path, (long long)n, (long long)begin,
                     (long long)s->tokens.n);
}

int shard_read(shard *s, int64_t begin, int64_t n, int32_t *dst, moai_error *err)
{
    if (check_range(s, begin, n, err) != 0) return -1;
    if (s->tokens.width == 4) return read_values(s, &s->tokens, begin, n, dst, err);

    uint16_t narrow[2048];
    for (int64_t done = 0; done < n;) {
        int64_t take = min_i64(n - done, (int64_t)(sizeof narrow / sizeof *narrow));
        if (read_values(s, &s->tokens, begin + done, take, narrow, err) != 0) return -1;
        for (int64_t i = 0; i < take; i++) dst[done + i] = narrow[i];
        done += take;
    }
    return 0;
}

int shard_read_trained(shard *s, int64_t begin, int64_t n, uint8_t *dst, moai_error *err)
{
    CHECK(s->info.is_marked, "%s has no flags", s->path);
    return check_range(s, begin, n, err) ? -1 : read_values(s, &s->trained, begin, n, dst, err);
}

/* Of a dataset with a number for each document.  Lock not held. */
static int read_numbers(shard *s, const hid_t *dataset, const char *name, int64_t begin, int64_t n, uint64_t *dst,
                        moai_error *err)
{
    if (n == 0) return 0;
    h5_lock();
    int status = open_again(s, err);
    if (status == 0) status = read_through(s, *dataset, name, begin, n, H5T_NATIVE_UINT64, dst, err);
    h5_unlock();
    return status;
}

int shard_read_documents(shard *s, int64_t begin, int64_t n, uint64_t *offsets, moai_error *err)
{
    if (begin < 0 || n < 0 || begin > s->n_documents + 1 - n)
        return error_set(err, "%s: %lld offsets from %lld on, of %lld", s->path, (long long)n, (long long)begin,
                         (long long)s->n_documents + 1);
    return read_numbers(s, &s->documents, "documents", begin, n, offsets, err);
}

int shard_read_counted(shard *s, int64_t begin, int64_t n, uint64_t *counts, moai_error *err)
{
    CHECK(s->info.is_marked, "%s has no counts", s->path);
    if (begin < 0 || n < 0 || begin > s->n_documents - n)
        return error_set(err, "%s: %lld counts from %lld on, of %lld", s->path, (long long)n, (long long)begin,
                         (long long)s->n_documents);
    return read_numbers(s, &s->counted, "counted", begin, n, counts, err);
}
