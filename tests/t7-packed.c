/* t7-packed.c: packed texts: read with all members that lie one behind the other; truncated, damaged or followed by
 * something else they are an error with the file's name, never a shorter text. */
#include "io/text/text.h"
#include "io/text/unpack.h"
#include "tests/lib/shards.h"
#include "tests/lib/tap.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <zstd.h>

/* "one\ntwo\nthree\n" and nothing, as the formats' own programs pack them */
#define BYTES(s) s, sizeof s - 1
static const struct {
    const char *what, *name, *packed, *empty;
    size_t n, n_empty;
    bool one_member;                          /* nothing may follow: there are no further members */
} packings[] = {
    {"gzip", "a.txt.gz",
     "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\xcf\x4b\xe5\x2a\x29\xcf\xe7\x2a\xc9\x28\x4a\x4d\xe5\x02\x00\xb6\xd5"
     "\xe6"
     "\x25\x0e\x00\x00\x00",
     "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00", 34, 20, false},
    {"bzip2", "a.txt.bz2",
     "\x42\x5a\x68\x39\x31\x41\x59\x26\x53\x59\x08\x7b\x7d\xd7\x00\x00\x04\xc1\x80\x00\x10\x02\x41\x94\x80\x20\x00\x31"
     "\x0c"
     "\x08\x21\xa3\xd4\xc8\x85\x47\x32\x38\xa8\xf1\x77\x24\x53\x85\x09\x00\x87\xb7\xdd\x70",
     "\x42\x5a\x68\x39\x17\x72\x45\x38\x50\x90\x00\x00\x00\x00", 50, 14, false},
    {"xz", "a.txt.xz",
     "\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3\x01\x00\x0d\x6f"
     "\x6e"
     "\x65\x0a\x74\x77\x6f\x0a\x74\x68\x72\x65\x65\x0a\x00\x00\x00\x94\x84\x92\x2b\xe8\x97\x5b\x7d\x00\x01\x26\x0e\x08"
     "\x1b"
     "\xe0\x04\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a",
     "\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x00\x00\x00\x00\x1c\xdf\x44\x21\x1f\xb6\xf3\x7d\x01\x00\x00\x00"
     "\x00"
     "\x04\x59\x5a",
     72, 32, false},
    {"lzma", "a.txt.lzma",
     "\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x37\x9b\x88\xcc\xf6\xc6\x60\x33\xc5\x47\x91\xf9\xa5\x8c"
     "\x5e"
     "\x4b\x34\x9a\xff\xfd\x7f\x70\x00",
     "\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x83\xff\xfb\xff\xff\xc0\x00\x00\x00", 37, 23, true},
    {"zstd", "a.txt.zst", NULL, NULL, 0, 0, false},
};
static const char text[] = "one\ntwo\nthree\n";

/* The text of the file between "|", or the error, or "?" where there is neither. */
static const char *read_text(const char *path, size_t block)
{
    static char all[1 << 20];
    static moai_error err;
    text_format format = {.text_key = "text", .content = CONTENT_TXT};
    text_format_parse(&format, "line");
    text_file *f = text_open(path, &format, &err);
    text_block b;
    const char *document;
    size_t n, at = 0;
    int got = f && text_judge(f, &err) == 0 ? 1 : -1;

    for (int64_t begin = 0; got > 0 && (got = text_read_block(f, begin, (int64_t)block, &b, &err)) > 0;
         begin += (int64_t)block) {
        while ((got = text_next(&b, &document, &n, &err)) > 0)
            if (at + n + 1 < sizeof all) at += (size_t)sprintf(all + at, "%.*s|", (int)n, document);
        text_block_free(&b);
        if (got == 0) got = 1;
    }
    text_close(f);
    all[at] = '\0';
    return got < 0 ? err.text : all;
}

static bool holds(const char *path, const char *want) { return strcmp(read_text(path, 5), want) == 0; }

static void write_joined(const char *path, const char *a, size_t n_a, const char *b, size_t n_b)
{
    char *both = xmalloc(n_a + n_b);
    memcpy(both, a, n_a);
    memcpy(both + n_a, b, n_b);
    write_whole(path, both, n_a + n_b);
    free(both);
}

/* Where the file is cut, or a byte of it flipped: no cut gives a text, no flip another one. */
static void test_damage(const char *what, const char *path, const char *packed, size_t n)
{
    int shorter = -1, other = -1;
    char *copy = xmalloc(n);

    for (size_t cut = 0; cut < n; cut++) {
        write_whole(path, packed, cut);
        const char *got = read_text(path, 1000);
        if (!strstr(got, path)) shorter = (int)cut;
    }
    ok(shorter < 0, "%s cut anywhere is an error that names the file (%d)", what, shorter);
    memcpy(copy, packed, n);
    for (size_t i = 0; i < n; i++) {
        copy[i] ^= 0x10;
        write_whole(path, copy, n);
        const char *got = read_text(path, 1000);
        if (!strstr(got, path) && strcmp(got, "one|two|three|") != 0) other = (int)i;
        copy[i] ^= 0x10;
    }
    ok(other < 0, "%s with a flipped bit is an error or the same text (%d)", what, other);
    free(copy);
}

static void test_packing(const char *what, const char *name, const char *packed, size_t n, const char *empty,
                         size_t n_empty, bool one_member)
{
    char *path = in_tmp(name), *bare = in_tmp("packed"), *wrong = xasprintf("%s: not %s, though named so", path, what);

    write_whole(path, packed, n);
    write_whole(bare, packed, n);
    ok(holds(path, "one|two|three|") && holds(bare, "one|two|three|"), "%s is read, whatever its name: %s", what,
       read_text(path, 5));
    write_joined(path, packed, n, packed, n);
    if (one_member)
        ok(strstr(read_text(path, 5), "something else follows"), "%s has one member: %s", what, read_text(path, 5));
    else
        ok(holds(path, "one|two|three|one|two|three|"), "two members of %s: %s", what, read_text(path, 5));
    write_whole(path, empty, n_empty);
    ok(holds(path, ""), "%s of nothing is nothing: %s", what, read_text(path, 5));
    if (!one_member) {
        write_joined(path, empty, n_empty, packed, n);
        ok(holds(path, "one|two|three|"), "and before something: %s", read_text(path, 5));
    }
    write_joined(path, packed, n, "garbage behind the data", 23);
    ok(strstr(read_text(path, 5), path) && strstr(read_text(path, 5), "something else follows"),
       "%s with garbage behind it: %s", what, read_text(path, 5));
    write_joined(path, packed, n, "\n", 1);
    ok(strstr(read_text(path, 5), path) && strstr(read_text(path, 5), "something else follows"),
       "and with a line end: %s", read_text(path, 5));
    write_joined(path, packed, n, packed, n - 3);
    ok(strstr(read_text(path, 5), path), "and with another member, cut: %s", read_text(path, 5));
    write_whole(path, text, sizeof text - 1);
    ok(strstr(read_text(path, 5), wrong), "a text named so: %s", read_text(path, 5));
    write_whole(path, "", 0);
    ok(strstr(read_text(path, 5), "it is empty"), "an empty file named so: %s", read_text(path, 5));
    test_damage(what, path, packed, n);
    free(path), free(bare), free(wrong);
}

/* Zeros behind gzip, frames to skip before zstd, as tapes, pzstd and others have them. */
static void test_padding(void)
{
    char *gz = in_tmp("a.gz"), *zst = in_tmp("a.zst"), zeros[1000] = {0}, frame[200];
    size_t n = ZSTD_compress(frame, sizeof frame, text, sizeof text - 1, 3);

    if (packings[0].n) {
        write_joined(gz, packings[0].packed, packings[0].n, zeros, sizeof zeros);
        ok(holds(gz, "one|two|three|") || strstr(read_text(gz, 5), "does not read"), "zeros behind gzip: %s",
           read_text(gz, 5));
        write_joined(gz, packings[2].packed, packings[2].n, zeros, 8);
        ok(holds(gz, "one|two|three|") || strstr(read_text(gz, 5), "does not read"), "and xz: %s", read_text(gz, 5));
    }
    write_joined(zst, "\x5e\x2a\x4d\x18\x04\0\0\0skip", 12, frame, n);
    ok(holds(zst, "one|two|three|"), "a skippable frame before zstd: %s", read_text(zst, 5));
    write_joined(zst, frame, n, "\x50\x2a\x4d\x18\x04\0\0\0skip", 12);
    ok(holds(zst, "one|two|three|"), "and behind it: %s", read_text(zst, 5));
    free(gz), free(zst);
}

/* Sixty bytes can claim a window of many GiB, which a library allocates at once. */
static void test_wide(void)
{
    static const struct {
        const char *name, *bytes, *needs; /* NULL: they are read */
        size_t n, at;                     /* what differs from the packing's bytes */
        int packing;
    } wide[] = {
        {"gib.xz", "\x24\x00\x00\x00\x5e\x1f\xc7\xf9", NULL, 8, 16, 2},
        {"wide.xz", "\x27\x00\x00\x00\xb0\xb0\x72\xeb", "needs 3072 MiB of memory", 8, 16, 2},
        {"widest.xz", "\x28\x00\x00\x00\xe6\xa0\x11\xb3", "needs 4096 MiB of memory", 8, 16, 2},
        {"wide.lzma", "\x00\xc0", "needs 3072 MiB of memory", 2, 3, 3},
    };
    char *zst = in_tmp("wide.zst");

    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        char packed[100], *path = in_tmp(wide[i].name);
        const size_t n = packings[wide[i].packing].n;
        memcpy(packed, packings[wide[i].packing].packed, n);
        memcpy(packed + wide[i].at, wide[i].bytes, wide[i].n);
        write_whole(path, packed, n);
        const char *got = read_text(path, 5);
        ok((wide[i].needs ? strstr(got, path) && strstr(got, wide[i].needs) : strcmp(got, "one|two|three|") == 0) ||
               strstr(got, "does not read"),
           "%s: %s", wide[i].name, got);
        free(path);
    }
    write_whole(zst, "\x28\xb5\x2f\xfd\x00\xb0\x21\x00\x00one\n", 13); /* a window of 2^32 bytes */
    const char *got = read_text(zst, 5);
    ok(strstr(got, zst) && strstr(got, "needs more than 2048 MiB of memory"), "%s", got);
    free(zst);
}

static void test_inside(void)
{
    char *path = in_tmp("a.txt.zst"), *packed = xmalloc(4096), content[1024] = {0};
    static const struct {
        const char *what, *bytes;
        size_t n, at;
    } kinds[] = {{"a tar archive", "ustar", 5, 257},
                 {"Parquet", "PAR1\x15\4\0", 7, 0},
                 {"UTF-16",
                  "\xff\xfe"
                  "a\0",
                  4, 0},
                 {"gzip", "\x1f\x8b\x08\0\0\0", 6, 0},
                 {"zstd", "\x28\xb5\x2f\xfd", 4, 0}};

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        memset(content, 0, sizeof content);
        memcpy(content + kinds[i].at, kinds[i].bytes, kinds[i].n);
        write_whole(path, packed, ZSTD_compress(packed, 4096, content, 600, 3));
        const char *got = read_text(path, 5);
        ok(strstr(got, path) && strstr(got, "inside it is ") && strstr(got, kinds[i].what), "%s", got);
    }
    free(path), free(packed);
}

/* A writer in another process; what the pipe gives is read once, from the front. */
static void test_pipe(void)
{
    char *path = in_tmp("fifo"), frame[200];
    const size_t n = ZSTD_compress(frame, sizeof frame, text, sizeof text - 1, 3);

    CHECK(mkfifo(path, 0600) == 0, "mkfifo");
    for (int packed = 0; packed < 2; packed++) {
        fflush(stdout);
        const pid_t child = fork();
        if (child == 0) {
            const int fd = open(path, O_WRONLY);
            const char *data = packed ? frame : text;
            for (size_t i = 0; i < (packed ? n : sizeof text - 1); i++)
                if (write(fd, data + i, 1) != 1) _exit(1);
            _exit(0);
        }
        const char *got = read_text(path, 5);
        waitpid(child, NULL, 0);
        ok(strcmp(got, "one|two|three|") == 0, "a pipe%s, byte by byte: %s", packed ? " of zstd" : "", got);
    }
    free(path);
}

int main(void)
{
    for (size_t i = 0; i < sizeof packings / sizeof *packings; i++) {
        char packed[200], empty[100];
        size_t n = packings[i].n, n_empty = packings[i].n_empty;
        if (n) {
            memcpy(packed, packings[i].packed, n);
            memcpy(empty, packings[i].empty, n_empty);
        } else {                              /* zstd, with a checksum */
            ZSTD_CCtx *c = ZSTD_createCCtx();
            ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
            n = ZSTD_compress2(c, packed, sizeof packed, text, sizeof text - 1);
            n_empty = ZSTD_compress2(c, empty, sizeof empty, "", 0);
            ZSTD_freeCCtx(c);
        }
        char *path = in_tmp(packings[i].name);
        write_whole(path, packed, n);
        const bool here = !strstr(read_text(path, 5), "this build does not read");
        if (here)
            test_packing(packings[i].what, packings[i].name, packed, n, empty, n_empty, packings[i].one_member);
        else
            ok(strstr(read_text(path, 5), packings[i].what), "%s is not built in, and that is said: %s",
               packings[i].what, read_text(path, 5));
        free(path);
    }
    test_padding();
    test_wide();
    test_inside();
    test_pipe();
    return tap_done();
}
