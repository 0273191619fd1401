/* fuzz-shard.c: token shards.  The first byte of the input chooses: changes to a good shard, eight bytes each; or a
 * file that the rest describes (types, shapes, chunks, filters, attributes, links, data), as HDF5 itself writes it.
 * An audit reads all.  options: -malloc_limit_mb=0
 *
 * A change to HDF5's metadata meets its checksums, as damage does.  With FUZZ_FORGED=1 they always hold, and the
 * oldest form of the file, which has none, is changed too: then it is the library's own decoders that are tried.  HDF5
 * 1.10.8 does not stand that: it reads from nowhere behind addresses that overflow (H5F__accum_read) and in its heap of
 * texts (H5HG_read). */
#include "io/data/shard.h"
#include "src/corpus/audit.h"
#include "tests/fuzz/fuzz.h"

#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

/* It asks for as much memory as a header says, and copes with not getting it. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }

/* The library's own, which compares what a block of metadata says with what it has: forged, it is always the same. */
static bool forged;
herr_t H5F_get_checksums(const uint8_t *block, size_t n, uint32_t *stored, uint32_t *computed);
uint32_t H5_checksum_metadata(const void *data, size_t n, uint32_t seed);
herr_t H5F_get_checksums(const uint8_t *block, size_t n, uint32_t *stored, uint32_t *computed)
{
    enum { SUM = 4 }; /* the last bytes of a block */
    const bool real = !forged && n >= SUM;

    if (stored)
        *stored = real ? block[n - 4] | block[n - 3] << 8 | block[n - 2] << 16 | (uint32_t)block[n - 1] << 24 : 0;
    if (computed) *computed = real ? H5_checksum_metadata(block, n - SUM, 0) : 0;
    return 0;
}

/* A good shard, and where its metadata lies: the bytes that are not tokens or offsets. */
static struct base {
    const char *name;
    uint8_t *data;
    size_t n_bytes, *meta, n_meta; /* meta: where its bytes lie */
} bases[] = {{.name = "narrow"}, {.name = "wide"}, {.name = "old"}};
enum { OLD = 2, N_BASES = sizeof bases / sizeof *bases };

static void make_shard(const char *path, int64_t vocab_size, int n_documents)
{
    shard_info info = {.vocab_size = vocab_size, .eos = 2, .pad = 0};
    moai_error err;

    memset(info.tokenizer_sha256, 'a', 64);
    shard_writer *w = shard_create(path, &info, &err);
    CHECK(w, "%s", err.text);
    for (int i = 0; i < n_documents; i++) {
        const int32_t ids[] = {3 + i % 7, 4, 5, 2};
        CHECK(shard_append(w, ids, NULL, 4, &err) == 0, "%s", err.text);
    }
    CHECK(shard_close(w, &err) == 0, "%s", err.text);
}

static void put(hid_t object, const char *name, hid_t type, const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR), a = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);

    H5Awrite(a, type, value);
    H5Aclose(a);
    H5Sclose(space);
}

static void put_text(hid_t object, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1);

    H5Tset_size(type, H5T_VARIABLE);
    put(object, name, type, &text);
    H5Tclose(type);
}

/* As another program writes it, in the oldest form: no checksums but those of the data, small chunks, strings in the
 * global heap. */
static void make_old(const char *path)
{
    const uint16_t ids[40] = {5, 6, 2, 7, 2};
    const uint64_t offsets[] = {0, 3, 5, 40};
    const int64_t version = 1, vocab = 100, eos = 2, pad = 0;
    hsize_t n = 40, chunk = 16, n_offsets = 4;
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), plist = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(1, &n, NULL), documents = H5Screate_simple(1, &n_offsets, NULL);

    H5Pset_chunk(plist, 1, &chunk);
    H5Pset_fletcher32(plist);
    hid_t d = H5Dcreate2(file, "tokens", H5T_STD_U16LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Dwrite(d, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, ids);
    H5Dclose(d);
    chunk = 4;
    H5Pset_chunk(plist, 1, &chunk);
    d = H5Dcreate2(file, "documents", H5T_STD_U64LE, documents, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Dwrite(d, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, offsets);
    H5Dclose(d);
    put(file, "version", H5T_NATIVE_INT64, &version);
    put(file, "vocab_size", H5T_NATIVE_INT64, &vocab);
    put(file, "eos", H5T_NATIVE_INT64, &eos);
    put(file, "pad", H5T_NATIVE_INT64, &pad);
    put_text(file, "format", "moai-tokens");
    put_text(file, "tokenizer_sha256", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    H5Pclose(plist);
    H5Sclose(space);
    H5Sclose(documents);
    H5Fclose(file);
}

static void mark_chunk(hid_t file, const char *name, uint8_t *is_data)
{
    hid_t d = H5Dopen2(file, name, H5P_DEFAULT);
    hsize_t at = 0, n = 0;
    haddr_t address;
    unsigned mask;

    CHECK(H5Dget_chunk_info_by_coord(d, &at, &mask, &address, &n) >= 0, "no chunk of %s", name);
    memset(is_data + address, 1, n);
    H5Dclose(d);
}

static void read_base(struct base *b)
{
    b->data = fuzz_read(b->name, &b->n_bytes);
    uint8_t *is_data = xmalloc(b->n_bytes);
    hid_t file = H5Fopen(b->name, H5F_ACC_RDONLY, H5P_DEFAULT);

    mark_chunk(file, "tokens", is_data);
    mark_chunk(file, "documents", is_data);
    H5Fclose(file);
    b->meta = xmalloc(b->n_bytes * sizeof *b->meta);
    for (size_t i = 0; i < b->n_bytes; i++)
        if (!is_data[i]) b->meta[b->n_meta++] = i;
    free(is_data);
}

void fuzz_start(void)
{
    forged = getenv("FUZZ_FORGED");
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    make_shard("narrow", 100, 3);
    make_shard("wide", 100000, 5);
    make_old("old");
    for (int i = 0; i < N_BASES; i++) read_base(&bases[i]);
}

void fuzz_seeds(void)
{
    for (int i = 0; i <= N_BASES; i++) fuzz_seed(i < N_BASES ? bases[i].name : "described", &(char){(char)i}, 1);
    fuzz_seed("tokens", "\3\0\0\0\0\0\50\0\0\20\1\0\0\0\0\5\6\2\0\0\4\0\0\4\1", 26);
    fuzz_seed("changes", "\0\0\7\0\1\1\0\0\0\1\40\0\3\377\377\377\377\2\100\0\2\0\1\2\3", 25);
}

/* op, place (16 bits, among the metadata; with bit 3 of op among all bytes), length, value (32 bits) */
static size_t apply(const struct base *b, uint8_t *file, const uint8_t *change)
{
    const size_t where = (size_t)change[1] | (size_t)change[2] << 8, n = 1 + change[3] % 8;
    const size_t at = change[0] & 8 ? (where << 3 | change[3]) % b->n_bytes : b->meta[where % b->n_meta];
    const size_t from = b->meta[((size_t)change[4] | (size_t)change[5] << 8) % b->n_meta];

    for (size_t i = 0; i < n && at + i < b->n_bytes && from + i < b->n_bytes; i++) switch (change[0] & 7) {
        case 0: file[at + i] = change[4 + i % 4]; break;
        case 1: file[at + i] = (uint8_t)(file[at + i] + change[4 + i % 4]); break;
        case 2: file[at + i] = i < 4 ? change[4 + i] : 0; break;
        case 3: file[at + i] = 0xFF; break;
        case 4: file[at + i] = b->data[from + i]; break;
        case 5: file[at + i] ^= (uint8_t)(1 << change[4] % 8); break;
        case 6: file[at + i] = 0; break;
        case 7: return change[4] == 0 && change[5] == 0 ? at : b->n_bytes; /* the file ends there */
        }
    return b->n_bytes;
}

/* ---- a file by description --------------------------------------------------------------------------------------- */
/* The bytes of the input one by one, zeros behind its end. */
typedef struct reader {
    const uint8_t *at, *end;
} reader;

static unsigned take(reader *r) { return r->at < r->end ? *r->at++ : 0; }
static bool odd_one(reader *r) { return take(r) % 8 == 7; } /* mostly not, and zeros make what is well-formed */
static uint64_t take_number(reader *r)
{
    const unsigned how = take(r), low = take(r);
    return how < 250 ? low : how < 252 ? low << 16 : how < 254 ? (uint64_t)low << 40 : (uint64_t)low << 56;
}

static hid_t odd_type(reader *r)
{
    hid_t type;

    switch (take(r) % 12) {
    case 0: return H5Tcopy(H5T_STD_I8LE);
    case 1: return H5Tcopy(H5T_STD_U16BE);
    case 2: return H5Tcopy(H5T_STD_U64LE);
    case 3: return H5Tcopy(H5T_STD_I32BE);
    case 4: return H5Tcopy(H5T_IEEE_F64LE);
    case 5: return H5Tarray_create2(H5T_STD_U16LE, 1, (hsize_t[]){3});
    case 6: return H5Tcreate(H5T_OPAQUE, 1 + take(r));
    case 7: return H5Tenum_create(H5T_STD_U16LE);
    case 8:
        type = H5Tcreate(H5T_COMPOUND, 16);
        H5Tinsert(type, "a", 0, H5T_STD_U64LE);
        H5Tinsert(type, "b", 8, H5T_STD_U16LE);
        return type;
    case 9: return H5Tvlen_create(H5T_STD_U16LE);
    case 10:
        type = H5Tcopy(H5T_C_S1);
        H5Tset_size(type, 1 + take(r) * 64);
        H5Tset_strpad(type, take(r) % 3);
        return type;
    default: /* odd widths within a number */
        type = H5Tcopy(H5T_STD_U32LE);
        H5Tset_precision(type, 1 + take(r) % 32);
        H5Tset_offset(type, take(r) % 8);
        return type;
    }
}

static hid_t odd_space(reader *r)
{
    switch (take(r) % 4) {
    case 0: return H5Screate(H5S_NULL);
    case 1: return H5Screate(H5S_SCALAR);
    case 2: return H5Screate_simple(2, (hsize_t[]){1 + take(r) % 8, 1 + take(r) % 8}, NULL);
    default: return H5Screate_simple(1, (hsize_t[]){take(r) % 8}, NULL);
    }
}

/* One more attribute, in the place of one that is there. */
static void odd_attribute(reader *r, hid_t file)
{
    static const char *const names[] = {"format", "version", "vocab_size", "eos", "pad", "tokenizer_sha256"};
    const char *name = names[take(r) % 6];
    hid_t type = odd_type(r), space = odd_space(r);

    H5Adelete(file, name);
    hid_t a = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (H5Tget_class(type) != H5T_VLEN) {
        const size_t n = H5Tget_size(type) * (size_t)(1 + H5Sget_simple_extent_npoints(space));
        uint8_t *value = xmalloc(n);
        for (size_t i = 0; i < 64 && i < n; i++) value[i] = (uint8_t)take(r);
        H5Awrite(a, type, value);
        free(value);
    }
    H5Aclose(a);
    H5Tclose(type);
    H5Sclose(space);
}

/* n elements of the width from the input. */
static void *take_data(reader *r, hsize_t n, size_t width)
{
    uint8_t *data = xmalloc(n * width);

    for (hsize_t i = 0; i < n; i++) {
        const uint64_t x = take_number(r);
        memcpy(data + i * width, &x, width);
    }
    return data;
}

static void make_dataset(reader *r, hid_t file, const char *name, hid_t type, size_t width)
{
    const bool other_type = odd_one(r), other_space = odd_one(r), unlimited = odd_one(r);
    hsize_t n = take_number(r), chunk = take_number(r) + 1, most = H5S_UNLIMITED;
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    hid_t of = other_type ? odd_type(r) : H5Tcopy(type);
    hid_t space = other_space ? odd_space(r) : H5Screate_simple(1, &n, unlimited ? &most : NULL);
    const unsigned layout = take(r) % 16, filters = take(r);

    H5Pset_layout(plist, layout == 13 ? H5D_COMPACT : layout == 14 ? H5D_CONTIGUOUS : H5D_CHUNKED);
    if (layout < 13) H5Pset_chunk(plist, 1, &chunk);
    if (filters & 8) H5Pset_shuffle(plist);
    if (filters & 16) H5Pset_deflate(plist, 1);
    if (!(filters & 32)) H5Pset_fletcher32(plist);
    if (filters & 64 && n <= 4096) H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY);
    hid_t d = chunk * width < 1 << 20 || n > 4096 || !(filters & 64)
                  ? H5Dcreate2(file, name, of, space, H5P_DEFAULT, plist, H5P_DEFAULT)
                  : -1;
    if (n <= 300 && !other_space && !other_type && !(filters & 128)) {
        void *data = take_data(r, n, width);
        H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
        free(data);
    }
    H5Dclose(d);
    H5Pclose(plist);
    H5Tclose(of);
    H5Sclose(space);
}

static void make_link(reader *r, hid_t file, const char *name, hid_t type, size_t width)
{
    switch (take(r)) {
    case 255: H5Lcreate_soft("/nowhere", file, name, H5P_DEFAULT, H5P_DEFAULT); return;
    case 254: H5Lcreate_soft(name, file, name, H5P_DEFAULT, H5P_DEFAULT); return;
    case 253: H5Lcreate_external("narrow", name, file, name, H5P_DEFAULT, H5P_DEFAULT); return;
    case 252: H5Lcreate_external("shard.h5", name, file, name, H5P_DEFAULT, H5P_DEFAULT); return;
    case 251: H5Gclose(H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)); return;
    case 250: H5Tcommit2(file, name, H5Tcopy(type), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT); return;
    case 249: return;
    default: make_dataset(r, file, name, type, width);
    }
}

static void make_file(const char *path, const uint8_t *data, size_t size)
{
    reader r = {data, data + size};
    const unsigned how = take(&r);
    const int64_t version = 1, vocab = how & 1 ? 70000 : 100, eos = 2, pad = 0;
    hid_t creation = H5Pcreate(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);

    if (how & 2) H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    if ((how & 60) == 60) H5Pset_userblock(creation, 512);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
    put(file, "version", H5T_NATIVE_INT64, &version);
    put(file, "vocab_size", H5T_NATIVE_INT64, &vocab);
    put(file, "eos", H5T_NATIVE_INT64, &eos);
    put(file, "pad", H5T_NATIVE_INT64, &pad);
    put_text(file, "format", "moai-tokens");
    put_text(file, "tokenizer_sha256", "0123");
    make_link(&r, file, "tokens", how & 1 ? H5T_STD_U32LE : H5T_STD_U16LE, how & 1 ? 4 : 2);
    make_link(&r, file, "documents", H5T_STD_U64LE, 8);
    for (int i = 0; i < 4 && odd_one(&r); i++) odd_attribute(&r, file);
    H5Fclose(file);
    H5Pclose(creation);
    H5Pclose(access);
}

static void change_file(const char *path, const struct base *b, const uint8_t *changes, size_t size)
{
    uint8_t *file = xmalloc(b->n_bytes);
    size_t n_bytes = b->n_bytes;

    memcpy(file, b->data, b->n_bytes);
    for (size_t i = 0; i + 8 <= size && n_bytes == b->n_bytes; i += 8) n_bytes = apply(b, file, changes + i);
    fuzz_write(path, file, n_bytes);
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned n_inputs;
    moai_error err;
    int32_t ids[64];

    if (size == 0) return 0;
    const int which = data[0] % (forged ? N_BASES : N_BASES + 1);
    if (which == N_BASES)
        make_file("shard.h5", data + 1, size - 1);
    else
        change_file("shard.h5", &bases[!forged && which == OLD ? 0 : which], data + 1, size - 1);
    shard *s = shard_open("shard.h5", &err);
    if (s && shard_tokens(s) > 0) {
        const int64_t n = shard_tokens(s), take_n = min_i64(n, 64);
        shard_read(s, n - take_n, take_n, ids, &err);
        shard_read(s, n / 2, 1, ids, &err);
        shard_read(s, n, 1, ids, &err);
        shard_read(s, -1, 1, ids, &err);
    }
    shard_free(s);
    shards_audit("shard.h5", &err);
    if (++n_inputs % 1000 == 0) H5close(); /* what it lost on the way */
    return 0;
}
