/* t7-text.c: documents of text files in blocks of any size, plain and zstd; what is not text is named with its place.
 * */
#include "shards.h"
#include "tap.h"
#include "text.h"
#include "utf8.h"

#include <zstd.h>

static text_format format_of(const char *separator)
{
    text_format f = {.text_key = "text"};
    text_format_parse(&f, separator);
    return f;
}

/* All documents, each behind a byte 1, read in blocks of n_bytes. */
static char *read_all(const char *path, const char *separator, int64_t n_bytes, size_t *n, moai_error *err)
{
    const text_format format = format_of(separator);
    text_file *f = text_open(path, &format, err);
    char *all = xmalloc(1 << 20);
    const char *text;
    text_block b;
    size_t length;
    int got = f ? 1 : -1;

    *n = 0;
    for (int64_t at = 0; got > 0 && (got = text_read_block(f, at, n_bytes, &b, err)) > 0; at += n_bytes) {
        while ((got = text_next(&b, &text, &length, err)) > 0) {
            all[(*n)++] = 1;
            memcpy(all + *n, text, length);
            *n += length;
        }
        text_block_free(&b);
        if (got == 0) got = 1;
    }
    text_close(f);
    if (got == 0) return all;
    free(all);
    return NULL;
}

/* Lines of letters, empty lines and separator lines, some with "\r\n". */
static char *random_text(size_t n, const char *separator, uint64_t seed)
{
    char *text = xmalloc(n + 64);
    size_t at = 0;

    for (uint64_t i = 0; at < n; i++) {
        double u = rng_uniform(seed, 2 * i);
        if (u < 0.2)
            at += (size_t)sprintf(text + at, "%s", separator);
        else if (u < 0.8)
            for (int k = (int)(rng_uniform(seed, 2 * i + 1) * 40); k > 0; k--)
                text[at++] = (char)('a' + (i + (uint64_t)k) % 26);
        if (u > 0.98) text[at++] = '\r';
        text[at++] = '\n';
    }
    text[at] = '\0';
    return text;
}

/* Documents of the text line by line, the plain way: the same form as read_all. */
static char *split_plainly(const char *text, const char *separator, size_t *n)
{
    char *all = xmalloc(2 * strlen(text) + 64), *document = xmalloc(strlen(text) + 2);
    bool by_line = strcmp(separator, "line") == 0, by_blank = strcmp(separator, "blank_line") == 0;
    size_t length = 0;

    *n = 0;
    for (const char *line = text, *next; *line; line = next) {
        const char *newline = strchr(line, '\n');
        next = newline ? newline + 1 : line + strlen(line);
        size_t bare = (size_t)(next - line) - (newline != NULL);
        if (bare > 0 && line[bare - 1] == '\r') bare--;
        bool separates =
            by_line || (by_blank ? bare == 0 : bare == strlen(separator) && memcmp(line, separator, bare) == 0);
        if (by_line || !separates) {
            memcpy(document + length, line, (size_t)(next - line));
            length += (size_t)(next - line);
        }
        if (!separates && *next) continue;
        if (length > 0 && document[length - 1] == '\n') length--;
        if (length > 0 && document[length - 1] == '\r') length--;
        if (length > 0) {
            all[(*n)++] = 1;
            memcpy(all + *n, document, length);
            *n += length;
        }
        length = 0;
    }
    free(document);
    return all;
}

static void write_zstd(const char *path, const char *text, size_t n)
{
    size_t room = ZSTD_compressBound(n), half = n / 2;        /* two frames, as zstd and pzstd write them */
    char *packed = xmalloc(2 * room);
    size_t first = ZSTD_compress(packed, room, text, half, 3);
    size_t second = ZSTD_compress(packed + first, room, text + half, n - half, 3);

    write_whole(path, packed, first + second);
    free(packed);
}

static void test_separator(const char *separator)
{
    static const int64_t sizes[] = {1, 2, 3, 7, 64, 1000, 1 << 20};
    char *plain = in_tmp("text.txt"), *packed = in_tmp("text.txt.zst"), *text = random_text(6000, separator, 17);
    size_t n, want_n;
    char *want = split_plainly(text, separator, &want_n);
    bool same = want_n > 1000;
    moai_error err = {.text = ""};

    write_whole(plain, text, strlen(text));
    write_zstd(packed, text, strlen(text));
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
        char *got = read_all(i % 2 ? packed : plain, separator, sizes[i / 2], &n, &err);
        same &= got && n == want_n && memcmp(got, want, n) == 0;
        free(got);
    }
    ok(same, "separator \"%s\": the same documents in blocks of 1 byte to 1 MiB, plain and zstd %s", separator,
       err.text);
    free(want);
    free(text);
    free(plain);
    free(packed);
}

static bool gives(const char *name, const char *content, size_t n_content, const char *separator, const char *want)
{
    char *path = in_tmp(name);
    moai_error err = {.text = ""};
    size_t n;

    write_whole(path, content, n_content);
    char *got = read_all(path, separator, 5, &n, &err);
    bool right = got && n == strlen(want) && memcmp(got, want, n) == 0;
    free(got);
    free(path);
    return right;
}

static void test_forms(void)
{
    static const char jsonl[] =
        "{\"text\": \"one\\n\\u00e9\", \"n\": 1}\n\n{\"text\": \"\"}\r\n{\"id\": [2], \"text\": \"two\"}";
    static const char marked[] = "\xEF\xBB\xBFone\ntwo\n";

    ok(gives("a.jsonl", jsonl, sizeof jsonl - 1, "file", "\1one\n\xC3\xA9\1two"),
       ".jsonl: a document per line, empty ones skipped");
    ok(gives("a.txt", "one\n\ntwo\n", 9, "file", "\1one\n\ntwo\n"), "a .txt is one document, to the last byte");
    ok(gives("a.txt", marked, sizeof marked - 1, "line", "\1one\1two"), "a byte order mark is not text");
    /* a frame with a window of 2^28 bytes, as zstd --long=28 makes them, and one raw block */
    ok(gives("wide.txt.zst", "\x28\xb5\x2f\xfd\x00\x90\x21\x00\x00one\n", 13, "line", "\1one"),
       "a wide window of zstd");
    ok(gives("a.txt", "", 0, "line", "") && gives("a.txt", "\n\n\n", 3, "blank_line", ""),
       "an empty file and one of empty lines hold nothing");
}

static void refuses(const char *what, const char *name, const char *content, size_t n, const char *separator,
                    const char *want)
{
    char *path = in_tmp(name);
    moai_error err = {.text = ""};
    size_t unused;

    if (content) write_whole(path, content, n);
    char *got = read_all(path, separator, 1 << 16, &unused, &err);
    ok(!got && strstr(err.text, path) && strstr(err.text, want), "%s: %s", what, err.text);
    free(got);
    free(path);
}

static void test_refusals(void)
{
    char *packed = in_tmp("whole.txt.zst"), *text = random_text(20000, "---", 3);
    size_t n;

    refuses("not UTF-8", "bad.txt", "one\ntwo\nthr\xff" "ee\n", 15, "line", "0xff at offset 11 (line 3)");
    refuses("an overlong form", "bad.txt", "a\xC0\xAF", 3, "file", "0xc0 at offset 1");
    refuses("a surrogate", "bad.txt", "ab\xED\xA0\x80", 5, "file", "0xed at offset 2");
    refuses("a character cut short", "bad.txt", "abc\xE2\x82", 5, "file", "0xe2 at offset 3");
    refuses("a malformed line", "bad.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\n", 26, "file",
            "bad.jsonl:2: not JSON");
    refuses("a line without text", "bad.jsonl", "{\"text\": \"a\"}\n\n{\"txt\": \"b\"}\n", 29, "file",
            "bad.jsonl:3: no text under the key `text`");
    refuses("a line that is no object", "bad.jsonl", "[1]\n", 4, "file", "bad.jsonl:1");
    refuses("a missing file", "missing.txt", NULL, 0, "file", "No such file");
    refuses("JSON of no known shape", "a.json", "{}\n", 3, "file", "name it .jsonl");
    refuses("gzip", "a.txt.gz", "\x1f\x8b\x08\x00", 4, "file", "gzip");
    refuses("a .zst that is not", "a.txt.zst", "plain text", 10, "file", "not zstd");
    write_zstd(packed, text, strlen(text));
    char *data = read_whole(packed, &n);
    refuses("truncated zstd", "cut.txt.zst", data, n - 10, "blank_line", "truncated");
    data[n / 3] ^= 0x55;
    data[n / 3 + 1] ^= 0x55;
    moai_error err = {.text = ""};
    char *bad = in_tmp("bad.txt.zst");
    write_whole(bad, data, n);
    size_t unused;
    char *got = read_all(bad, "line", 1 << 16, &unused, &err);
    ok(!got && strstr(err.text, bad), "damaged zstd: %s", err.text);
    free(got);
    free(bad);
    free(data);
    free(text);
    free(packed);
}

static void test_utf8(void)
{
    static const char bad[] = "a\xF0\x9F\x98z\xC0\xAF\xE2\x82\xAC\xED\xA0\x80\xF4\x90\x80\x80",
                      want[] = "a\xEF\xBF\xBDz\xEF\xBF\xBD\xEF\xBF\xBD\xE2\x82\xAC\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
                               "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD";
    size_t n;
    char *got = utf8_repair(bad, sizeof bad - 1, &n);

    ok(n == sizeof want - 1 && memcmp(got, want, n) == 0,
       "U+FFFD for each ill-formed part, as Unicode's table 3-8 does");
    ok(utf8_find_invalid(got, n) < 0 && utf8_find_invalid("\xF4\x8F\xBF\xBF\xC2\x80\xE0\xA0\x80", 9) < 0,
       "well-formed to the last code point");
    free(got);

    char *text = xmalloc(64 + 5);
    bool found = true;
    for (int at = 0; at < 64; at++) {
        memset(text, 'a', 64);
        text[at] = '\x80';
        found &= utf8_find_invalid(text, 64) == at;
    }
    ok(found, "a bad byte is found at each place");
    free(text);
}

int main(void)
{
    test_utf8();
    test_separator("line");
    test_separator("blank_line");
    test_separator("<|endoftext|>");
    test_separator("-");
    test_forms();
    test_refusals();
    return tap_done();
}
