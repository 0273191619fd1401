/* t7-text.c: documents of text files in blocks of any size, plain and zstd; what is not text is named with its place.
 * */
#include "io/text/text.h"
#include "src/base/utf8.h"
#include "tests/lib/shards.h"
#include "tests/lib/tap.h"

#include <zstd.h>

#define T(text) text, sizeof text - 1

static text_format wanted = {.text_key = "text"};             /* but for the separator: what tests set */
static text_counts counts;                    /* of the last read_all */

/* All documents, each behind a byte 1, read in blocks of n_bytes. */
static char *read_all(const char *path, const char *separator, int64_t n_bytes, size_t *n, moai_error *err)
{
    text_format format = wanted;
    text_format_parse(&format, separator);
    text_file *f = text_open(path, &format, err);
    char *all = xmalloc(1 << 20);
    const char *text;
    text_block b;
    size_t length;
    int got = f && text_judge(f, err) == 0 ? 1 : -1;

    *n = 0;
    counts = (text_counts){0};
    for (int64_t at = 0; got > 0 && (got = text_read_block(f, at, n_bytes, &b, err)) > 0; at += n_bytes) {
        while ((got = text_next(&b, &text, &length, err)) > 0) {
            all[(*n)++] = 1;
            memcpy(all + *n, text, length);
            *n += length;
        }
        text_counts_add(&counts, &b.counts);
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
            at += (size_t)sprintf(text + at, "%s%s", separator, u < 0.05 ? " \t" : "");
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
        while (bare > 0 && strchr(" \t\r", line[bare - 1])) bare--;
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

/* Lines that end in blanks separate too, up to a bound; what has no lines is not taken for one. */
static void test_blanks(void)
{
    char *text = xmalloc(1000), *end = text;

    ok(gives("a.txt", T("one\n \t \r\ntwo\n"), "blank_line", "\1one\1two") && counts.separators == 1,
       "a line of blanks is a blank line");
    ok(gives("a.txt", T("one\n--- \t\r\ntwo\n---- \nthree"), "---", "\1one\1two\n---- \nthree") &&
           counts.separators == 1,
       "blanks behind a separator do not count");
    ok(gives("a.txt", T("one\n---\ntwo\n--- -\n"), "---  ", "\1one\1two\n--- -"), "nor those of the option");
    for (int n = 255; n <= 257; n++) end += sprintf(end, "%d\n%*s\n", n, n - 1, "");
    gives("a.txt", text, (size_t)(end - text), "blank_line", "");
    ok(counts.separators == 2, "256 bytes of them are a blank line, 257 are not: %lld", (long long)counts.separators);
    refuses("lines that end with CR", "a.txt", T("one\rtwo\r\rthree\r"), "blank_line", "CR alone");
    refuses("for each separator", "a.txt", T("one\rtwo\r\rthree\r"), "line", "--document_separator line: tr");
    ok(gives("a.txt", T("one\rtwo\r"), "file", "\1one\rtwo\r"), "which are a document all the same");
    free(text);
}

static void test_refusals(void)
{
    char *packed = in_tmp("whole.txt.zst"), *text = random_text(20000, "---", 3);
    size_t n;

    refuses("not UTF-8", "bad.txt",
            "one\ntwo\nthr\xff"
            "ee\n",
            15, "line", "0xff at offset 11 (line 3)");
    refuses("an overlong form", "bad.txt", "a\xC0\xAF", 3, "file", "0xc0 at offset 1");
    refuses("a surrogate", "bad.txt", "ab\xED\xA0\x80", 5, "file", "0xed at offset 2");
    refuses("a character cut short", "bad.txt", "abc\xE2\x82", 5, "file", "0xe2 at offset 3");
    refuses("a malformed line", "bad.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\n", 26, "file",
            "bad.jsonl:2: not JSON");
    refuses("a line without text", "bad.jsonl", "{\"text\": \"a\"}\n\n{\"txt\": \"b\"}\n", 28, "file",
            "bad.jsonl:3: no text under the key `text`");
    refuses("a line that is no object", "bad.jsonl", "[1]\n", 4, "file", "bad.jsonl:1");
    refuses("a missing file", "missing.txt", NULL, 0, "file", "No such file");
    refuses("JSON of no known shape", "a.json", "{}\n", 3, "file", "name it .jsonl");
    refuses("a .zst that is not", "a.txt.zst", "plain text", 10, "file", "not zstd");
    refuses("a pointer to one", "b.txt.zst", "version https://git-lfs.github.com/spec/v1\n", 43, "file",
            "git lfs pull");
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

/* ---- JSON ---- */

static void test_json(void)
{
    static const struct {
        const char *line, *text;              /* NULL: refused, and `why` is in the words */
        const char *why;
        bool replace;
    } lines[] = {
        {"{\"text\":\"doc\",\"simhash\":18446744073709551616,\"x\":-1e400,\"y\":[NaN,Infinity,-Infinity]}", "doc", 0,
         0},
        {"{\"meta\":{\"a\\u0000b\":\"\\ud800 \x01 \xff\"},\"text\":\"doc\"}", "doc", 0, 0},
        {"{\"meta\":{\"text\":\"no\"},\"t\":[\"text\",{\"text\":1}],\"s\":\"\\\"text\\\":\",\"text\":\"yes\"}", "yes",
         0, 0},
        {" {\t\"te\\u0078t\" : \"escaped key\" } \r", "escaped key", 0, 0},
        {"{\"text\":1,\"text\":\"the last\"}", "the last", 0, 0},
        {"{\"text\":\"the last\",\"text\":null}", "", 0, 0},
        {"{\"text\":null}", "", 0, 0},
        {"{\"text\":\"\"}", "", 0, 0},
        {"\xEF\xBB\xBF{\"text\":\"marked\"}", "marked", 0, 0},
        {"{\"text\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20AC\\ud83d\\ude00\xC3\xA9\"}",
         "\"\\/\b\f\n\r\t\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xC3\xA9", 0, 0},
        {"{\"text\":\"a\\ud800\\ud800\\udc00b\\udfff\"}",
         "a\xEF\xBF\xBD\xF0\x90\x80\x80"
         "b\xEF\xBF\xBD",
         0, 1},
        {"{\"text\":\"a\xff\\nb\"}", "a\xEF\xBF\xBD\nb", 0, 1},
        {"{\"text\":\"a\\ud83d\"}", NULL, "a lone surrogate in the text under the key `text`; --invalid_utf8 replace",
         0},
        {"{\"text\":\"a\\udc00\\ud83dx\"}", NULL, "a lone surrogate", 0},
        {"{\"text\":\"caf\xe9 au lait, tr\xe8s bien, d\xe9j\xe0 vu\"}", NULL,
         "(line 2) is not UTF-8; it looks like Latin-1", 0},
        {"{\"text\":\"a\tb\"}", NULL, "a control character, 0x09, in the text (column 11)", 0},
        {"{\"text\":5}", NULL, "no text under the key `text`: it is a number, 5", 0},
        {"{\"text\":[\"a\"]}", NULL, "it is an array, [\"a\"]", 0},
        {"{\"text\":{\"a\":1}}", NULL, "it is an object", 0},
        {"{\"text\":true}", NULL, "it is true", 0},
        {"{\"text\":\"a\",\"n\":None}", NULL, "does not have near 'None}' (column 17)", 0},
        {"{\"id\":1,\"content\":\"a\"}", NULL, "the object has `id`, `content` (--text_key names another)", 0},
        {"{}", NULL, "the object has no keys", 0},
        {"{\"text\":\"a\"} {\"text\":\"b\"}", NULL, "something follows the object near '{\"text\":\"b\"}' (column 14)",
         0},
        {"{\"text\":\"a\",}", NULL, "expected a key in quotes near '}'", 0},
        {"{\"text\":\"a\" \"b\":1}", NULL, "expected ',' or '}'", 0},
        {"{\"text\":\"a\",\"n\":01}", NULL, "expected ',' or '}' near '1}'", 0},
        {"{\"text\":\"a\",\"n\":1.}", NULL, "expected a digit", 0},
        {"{\"text\":\"a\",\"n\":-}", NULL, "expected a digit", 0},
        {"{\"text\":\"a\",\"n\":+1}", NULL, "expected a value", 0},
        {"{\"text\":\"a\",\"n\":nul}", NULL, "a word that JSON does not have", 0},
        {"{\"text\":\"a\",\"n\":NAN}", NULL, "a word that JSON does not have", 0},
        {"{\"text\":\"\\x41\"}", NULL, "an escape that JSON does not have", 0},
        {"{\"n\":\"\\u00g0\",\"text\":\"a\"}", NULL, "\\u without four hexadecimal digits", 0},
        {"{'text':'a'}", NULL, "expected a key in quotes", 0},
        {"{\"text\":\"a\",\"n\":[1,2}}", NULL, "expected ',' or ']'", 0},
        {"[{\"text\":\"a\"}]", NULL, "not JSON lines: expected an object, found an array", 0},
        {"\"text\"", NULL, "found a string", 0},
        {"a plain line", NULL, "not JSON: expected an object near 'a plain line' (column 1)", 0},
        {"{\"text\":\"cut sho", NULL, "ends inside a string (column 17); it is the last line and has no line end", 0},
        {"{\"text\":\"cut sho\\u00", NULL, "ends inside a string", 0},
        {"{\"text\":\"a\",\"n\":[{\"b\":1", NULL, "ends inside an object", 0},
    };
    char *path = in_tmp("json.jsonl"), *content = xmalloc(4096);

    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        moai_error err = {.text = ""};
        size_t n, n_content = (size_t)sprintf(content, "{\"text\":\"first\"}\n%s", lines[i].line);
        char want[64];
        write_whole(path, content, n_content);
        wanted.replace_invalid = lines[i].replace;
        char *got = read_all(path, "file", 7, &n, &err);
        snprintf(want, sizeof want, "\1first%s%s", lines[i].text && lines[i].text[0] ? "\1" : "",
                 lines[i].text ? lines[i].text : "");
        if (lines[i].text)
            ok(got && n == strlen(want) && memcmp(got, want, n) == 0, "%s %s", lines[i].line, err.text);
        else
            ok(!got && strstr(err.text, path) && strstr(err.text, "2") && strstr(err.text, lines[i].why), "%s",
               err.text);
        free(got);
    }
    wanted.replace_invalid = false;
    free(content);
    free(path);
}

/* Nesting without end, and lines left out. */
static void test_json_extremes(void)
{
    enum { DEEP = 100000 };
    char *text = xmalloc(2 * DEEP + 100), *at = text;
    static const char bad[] =
        "{\"text\":\"a\"}\nno "
        "JSON\n{\"text\":null}\n{\"text\":\"b\"}\n{\"txt\":\"c\"}\n{\"text\":\"\xff\"}\n{\"text\":\"d\"}\n";

    at += sprintf(at, "{\"x\":");
    for (int i = 0; i < DEEP; i++) *at++ = '[';
    for (int i = 0; i < DEEP; i++) *at++ = ']';
    at += sprintf(at, ",\"text\":\"deep\"}\n");
    ok(gives("deep.jsonl", text, (size_t)(at - text), "file", "\1deep"), "a hundred thousand levels under another key");
    free(text);
    wanted.skip_bad_lines = true;
    ok(gives("skip.jsonl", bad, sizeof bad - 1, "file", "\1a\1b\1d") && counts.bad_lines == 3 && counts.null == 1 &&
           counts.empty == 1,
       "lines without a text are left out when that is asked for, and counted");
    wanted.skip_bad_lines = false;
}

/* As a file has them that was given room and lost what should be there, or that a damaged disk gave back. */
static void test_nuls(void)
{
    enum { N_TEXT = 70000, N = 270000 };
    char *text = xmalloc(N), *path = in_tmp("nul.jsonl");
    moai_error err = {.text = ""};
    size_t n;

    memset(text, 'a', N_TEXT);
    refuses("NULs at the end", "nul.txt", text, N, "file", "byte 0x00 at offset 70000 (line 1) is a NUL");
    wanted.replace_invalid = true;
    refuses("which are too many to replace", "nul.txt", text, N, "file", "NUL or not UTF-8: no text to replace");
    memset(text, '\n', N_TEXT - 5);
    memcpy(text + N_TEXT - 5, "\0b\xff\n", 4);
    ok(gives("nul.txt", text, N_TEXT - 1, "blank_line", "\1\xEF\xBF\xBD\x62\xEF\xBF\xBD") && counts.replaced == 2 &&
           counts.nul == 1 && counts.repaired == 1,
       "one is replaced as what is not UTF-8 is, and counted");
    wanted.replace_invalid = false;
    text[N_TEXT - 3] = 'c';
    refuses("or is an error", "nul.txt", text, N_TEXT - 1, "line", "byte 0x00 at offset 69995 (line 69996) is a NUL");
    refuses("in JSON lines too", "nul.jsonl", T("{\"text\":\"a\0b\"}\n"), "file", "NUL bytes");
    write_whole(path, T("{\"text\":\"a\\u0000b\"}\n"));
    char *got = read_all(path, "file", 100, &n, &err);
    ok(got && n == 4 && memcmp(got, "\1a\0b", 4) == 0, "but \\u0000 is what somebody wrote: %s", err.text);
    free(got);
    free(path);
    free(text);
}

static void test_replaced(void)
{
    static const char text[] = "one \xff\xfe\ntwo\nthr\xe2\x82"
                               "ee\n";

    wanted.replace_invalid = true;
    ok(gives("some.txt", text, sizeof text - 1, "line",
             "\1one \xEF\xBF\xBD\xEF\xBF\xBD\1two\1thr\xEF\xBF\xBD"
             "ee") &&
           counts.replaced == 3 && counts.repaired == 2,
       "characters replaced, and the documents that hold them, are counted");
    char *late = xmalloc(400000);
    memset(late, 'a', 200000);
    for (int i = 200000; i < 400000; i++) late[i] = (char)(i % 3 ? 0x80 + i % 64 : 'a');
    for (int i = 99; i < 400000; i += 100) late[i] = '\n';
    refuses("a file that is binary from its middle on", "late.txt", late, 400000, "line",
            "are NUL or not UTF-8: no text");
    wanted.replace_invalid = false;
    free(late);
}

/* ---- what a file is ---- */

/* JSON of any shape is none of the texts, under a name that says text or nothing; what just looks like it is one. */
static void test_shapes(void)
{
    static const struct {
        const char *text, *why; /* why: in the words for .txt and for another name */
    } shapes[] = {
        {"{\"text\": \"a\"}\n{\"text\": \"b\"}\n", "name it .jsonl"},
        {"[{\"text\": \"a\"}, {\"text\": \"b\"}]\n", "jq -c '.[]'"},
        {"[\n  {\n    \"text\": \"a\"\n  },\n", "jq -c '.[]'"},
        {"[\"one text\", \"another\"]\n", "jq -c '.[]'"},
        {"[[\"id\", \"text\"], [1, \"a\"]]", "jq -c '.[]'"},
        {"{\n \"text\": \"a\",\n \"n\": 1\n}\n{\n \"text\": \"b\"\n}\n", "over several lines"},
        {"{\"a\": {\"b\": [\n1,\n", "over several lines"},
        {"{\n \"cells\": [\n  {\n   \"cell_type\": \"markdown\"", "notebook"},
        {"{\"text\": \"a\"}{\"text\": \"b\"}", "on a line"},
        {"{\"text\": \"a\"} {\"text\": \"b\"}\n", "on a line"},
        {"{\"text\": \"a\"},\n{\"text\": \"b\"},\n", "commas"},
        {"{\"text\": \"a\"}\r{\"text\": \"b\"}\r", "CR alone"},
        {"\x1e{\"text\": \"a\"}\n\x1e{\"text\": \"b\"}\n", "record separators"},
        {"{}\n{\"text\": \"b\"}\n", "name it .jsonl"},
        {"null\n{\"text\": \"b\"}\n", "name it .jsonl"},
        {"# made by hand\n// twice\n\n{\"text\": \"b\"}\n", "name it .jsonl"},
        {"\xEF\xBB\xBF\r\n{\"text\": \"a\"}\r\n{\"text\": \"b\"}\r\n", "name it .jsonl"},
        {"{\"n\": 1}\n{\"n\": 2}\nbroken\n{\"n\": 3}\n{\"n\": 4}\n{\"n\": 5", "name it .jsonl"},
    };
    static const char *const texts[] = {"[Illustration]\n\nCHAPTER I",
                                        "[1] see [2]",
                                        "[1, 2, 3]",
                                        "[\"Well,\" he said.] And left",
                                        "{{Infobox person}}",
                                        "{ int x = 1; }",
                                        "{\"quoted\"} words",
                                        "{'a': 1}",
                                        "{\"a\": see below}",
                                        "# Title\n\nText",
                                        "// C\nint x;",
                                        "null and void",
                                        "{}",
                                        "{",
                                        "[",
                                        "[[wiki]] link",
                                        "[{",
                                        "{\"",
                                        "12\n13",
                                        "\"quoted\"\n\"lines\"",
                                        "{\\it TeX}",
                                        "{#if x}{/if}",
                                        "[\"a\" => 1]",
                                        "{\"a\", \"b\"};",
                                        "[[1, 2], x]",
                                        ", and",
                                        "7 {\"a\": 1}"};
    static const char *const names[] = {"shape.txt", "shape", "shape.log"};

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t k = 0; k < 2; k++)
            refuses(k ? "and" : "JSON", names[k], shapes[i].text, strlen(shapes[i].text), "file", shapes[i].why);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char want[64];
        bool read = true;
        snprintf(want, sizeof want, "\1%s", texts[i]);
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            read &= gives(names[k], texts[i], strlen(texts[i]), "file", want);
        ok(read, "a text: %.*s", (int)strcspn(texts[i], "\n"), texts[i]);
    }
    wanted.content = CONTENT_TXT;
    ok(gives("shape.txt", T("[{\"text\": \"a\"}]"), "file", "\1[{\"text\": \"a\"}]"),
       "as is what --format txt says to be one");
    wanted.content = CONTENT_AUTO;
}

/* Files of many kinds that are written as text, by name and by what they begin with. */
static void test_markup(void)
{
    static const struct {
        const char *name, *text, *what;
    } kinds[] = {
        {"a.csv", "id,text\n", "a table (CSV)"},
        {"a.TSV", "id\ttext\n", "a table (TSV)"},
        {"a.xml", "<a>text</a>\n", "XML"},
        {"a.html", "<p>text\n", "HTML"},
        {"a.htm", "<p>text\n", "HTML"},
        {"a.rtf", "text\n", "RTF"},
        {"a.ps", "text\n", "PostScript"},
        {"a.ipynb", "{\n \"cells\": []\n}\n", "a Jupyter notebook"},
        {"a.pkl", "(lp0\nS'text'\n", "a Python pickle"},
        {"a.txt", "<?xml version=\"1.0\"?>\n", "XML"},
        {"a", "\xEF\xBB\xBF<mediawiki xmlns=\n", "MediaWiki"},
        {"a.txt", "\n<!doctype HTML>\n", "HTML"},
        {"a.txt", "<HTML>\n<body>\n", "HTML"},
        {"a.txt", "{\\rtf1\\ansi text}\n", "RTF"},
        {"a", "%!PS-Adobe-3.0\n", "PostScript"},
        {"a", "(lp0\nS'text'\n", "pickle"},
        {"a", "ccopy_reg\n_reconstructor\n", "pickle"},
    };

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        refuses("written as text", kinds[i].name, kinds[i].text, strlen(kinds[i].text), "file", kinds[i].what);
    char *packed = in_tmp("a.csv.zst");
    write_zstd(packed, "id,text\n", 8);
    refuses("packed", "a.csv.zst", NULL, 0, "file", "a table (CSV)");
    free(packed);
    wanted.content = CONTENT_TXT;
    ok(gives("a.csv", "a,b\n", 4, "line", "\1a,b") && gives("a.txt", "<html>\n", 7, "line", "\1<html>"),
       "and taken where --format txt says so");
    wanted.content = CONTENT_AUTO;
    ok(gives("a.txt", "<htmlx>", 7, "line", "\1<htmlx>") && gives("xml", "a", 1, "line", "\1a"), "others are texts");
}

/* The first line of JSON lines is looked at before the work begins: the file is what it is called, or it is not. */
static void test_first_line(void)
{
    static const struct {
        const char *text, *why;
    } lines[] = {
        {"\n \n{\"id\": 1, \"content\": \"a\"}\n", ":3: no text under the key `text`: the object has `id`, `content`"},
        {"id,text\n1,a\n", ":1: not JSON: expected an object near 'id,text'"},
        {"[{\"text\": \"a\"},\n", "jq -c '.[]'"},
        {"{\n", "jq -c ."},
        {"{\"text\": \"a\"}{\"text\": \"b\"}\n", "jq -c . makes a line of each"},
        {"{\"text\": \"a\"}\r{\"text\": \"b\"}\r", "CR alone"},
        {"{\"text\": \"a\"},\n", "takes commas off"},
        {"\x1e{\"text\": \"a\"}\n", "record separators"},
        {"{\"text\": 5}\n", "it is a number, 5"},
    };
    text_format format = {.text_key = "text"};
    char *path = in_tmp("first.jsonl"), *longer = xmalloc(200000);

    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        for (int skip = 0; skip < 2; skip++) {
            moai_error err = {.text = ""};
            format.skip_bad_lines = skip;
            write_whole(path, lines[i].text, strlen(lines[i].text));
            text_file *f = text_open(path, &format, &err);
            const int judged = text_judge(f, &err);
            if (skip)
                ok(judged == 0, "but not where lines may be bad");
            else
                ok(judged != 0 && err.config && strstr(err.text, lines[i].why), "status 2: %s", err.text);
            text_close(f);
        }
    memset(longer, 'x', 200000);
    memcpy(longer, "{\"a\":\"", 6);
    memcpy(longer + 199980, "\",\"text\":\"far\"}\n", 16);
    ok(gives("long.jsonl", longer, 199996, "file", "\1far"), "a first line of which the head is looked at");
    free(longer);
    free(path);
}

static void test_names(void)
{
    static const char line[] = "{\"text\":\"a\"}\n";
    static const char *const json[] = {"a.jsonl",     "a.JSONL",      "a.ndjson", "a.NdJson",
                                       "a.jsonlines", "a.json-lines", "a.ldjson"};
    static const char *const refused[] = {"a.jsonl.bak", "a",     "part-00000", "a.jsonl.1", "a.json",
                                          "a.JSON",      "a.txt", "a.md",       "a.log"};
    bool read = true, named = true;

    for (size_t i = 0; i < sizeof json / sizeof *json; i++)
        read &= gives(json[i], line, sizeof line - 1, "file", "\1a");
    ok(read, "JSON lines by every name of theirs, in any letter case");
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char *path = in_tmp(refused[i]);
        moai_error err = {.text = ""};
        size_t n;
        for (int k = 0; k < 3; k++) {
            wanted.content = (text_content)k;
            write_whole(path, line, sizeof line - 1);
            char *got = read_all(path, "file", 1000, &n, &err);
            named &= k == CONTENT_AUTO ? !got && strstr(err.text, path) && strstr(err.text, "name it .jsonl") &&
                                             strstr(err.text, "--format jsonl") && strstr(err.text, "--format txt")
                     : k == CONTENT_JSONL ? got && n == 2
                                          : got && n == sizeof line;
            free(got);
        }
        wanted.content = CONTENT_AUTO;
        free(path);
    }
    ok(named, "and by another name: refused, but for --format");
    refuses("an array in .json", "a.json", T("[\n {\"text\": 1}]\n"), "file", "jq -c '.[]'");
    refuses("an object over lines in .json", "a.json", T("{\n \"text\": 1}\n"), "file", "jq -c .");
    refuses(
        "and in .jsonl", "a.jsonl", T("{\n \"text\": 1}\n"), "file",
        "a.jsonl:1: not JSON: ends inside an object (column 2); if the file is one object over several lines, jq -c .");
    refuses("an array in .jsonl", "a.jsonl", T("[{\"text\": \"a\"}]\n"), "file",
            "a.jsonl:1: not JSON lines: expected an object, found an array; if the file is one array, jq -c '.[]'");
    refuses("web archive records", "a.warc", T("WARC/1.0\r\n"), "file", "WARC");
    ok(gives("code.txt", T("{\"a\": 1}\nis an object\n"), "file", "\1{\"a\": 1}\nis an object\n") &&
           gives("a.css", T("{}\nb\n"), "line", "\1{}\1b") && gives("a", T("{ x }\n"), "line", "\1{ x }"),
       "a text may begin with a line of JSON, and any other with braces");
    /* a first line longer than what is looked at */
    char *longer = xmalloc(200000);
    memset(longer, 'x', 200000);
    memcpy(longer, "{\"text\":\"", 9);
    memcpy(longer + 199997, "\"}\n", 3);
    refuses("a long line of JSON", "long.bak", longer, 200000, "file", "lines are JSON objects");
    free(longer);
}

static void test_foreign(void)
{
    static const struct {
        const char *bytes, *name;
        size_t n, at;
    } kinds[] = {
#define F(bytes, name) {bytes, name, sizeof bytes - 1, 0}
        F("PAR1\x15\x04\x15\x46", "Parquet"),
        F("ARROW1\0\0", "Arrow"),
        F("FEA1\0\0\0\0", "Feather"),
        F("\xff\xff\xff\xff\x10\1\0\0", "Arrow stream"),
        F("Obj\1\4\x14", "Avro"),
        F("ORC\n\x0b\0\0\0", "ORC"),
        F("SQLite format 3\0\x10\0", "SQLite"),
        F("\x89HDF\r\n\x1a\n\0", "HDF5"),
        F("\x93NUMPY\1\0", "NumPy"),
        F("\x80\4\x95\0\0", "pickle"),
        F("PK\3\4\x14\0", "zip"),
        F("7z\xbc\xaf\x27\x1c\0\4", "7z"),
        F("Rar!\x1a\7\1\0", "RAR"),
        F("\x04\x22\x4d\x18\x64\x40", "lz4"),
        F("\xff\6\0\0sNaPpY", "snappy"),
        F("LZIP\1\x0c", "lzip"),
        F("\x89LZO\0\r\n\x1a\n", "lzop"),
        F("\x1f\x9d\x90", "compress"),
        F("x\x9c\x4b\xca\xcf\4\x80\xff\xfe", "zlib"),
        F("\xff\xfe"
          "a\0b\0",
          "UTF-16"),
        F("\xfe\xff\0a\0b", "UTF-16"),
        F("\xff\xfe\0\0a\0\0\0", "UTF-32"),
        F("\0\0\xfe\xff\0\0\0a", "UTF-32"),
        F("a\0 \0t\0e\0x\0t\0\n\0", "UTF-16LE"),
        F("\0a\0 \0t\0e\0x\0t\0\n", "UTF-16BE"),
        F("a\0\0\0b\0\0\0\n\0\0\0", "UTF-32LE"),
        F("\0\0\0a\0\0\0b\0\0\0\n", "UTF-32BE"),
        F("\x7f"
          "ELF\2\1\1\0",
          "ELF"),
        F("MZ\x90\0\3\0", "Windows"),
        F("\xcf\xfa\xed\xfe\7\0", "Mach-O"),
        F("\xca\xfe\xba\xbe\0\0", "Java"),
        F("\x89PNG\r\n\x1a\n\0", "PNG"),
        F("\xff\xd8\xff\xe0\0\x10JFIF", "JPEG"),
        F("GIF89a\1\0\1\0", "GIF"),
        F("RIFF\x10\0\0\0WEBPVP8 ", "WebP"),
        F("II*\0\x08\0", "TIFF"),
        F("BM\x46\0\0\0\0\0", "BMP"),
        F("%PDF-1.4\n", "PDF"),
        F("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Office"),
        F("!<arch>\n", "ar archive"),
        F("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        F("GGUF\3\0\0\0", "GGUF"),
        F("\x50\0\0\0\0\0\0\0{\"a\":{", "safetensors"),
        F("ID3\4\0\0", "MP3"),
        F("\0\0\0\x18"
          "ftypmp42\0\0",
          "MP4"),
        F("\x1b$B$3\x1b(B\n", "ISO-2022-JP"),
        F("\x4e\x00\x0a\x30\x4a\x30\x0a\0\x53\x30\x0a\0\x53\x30\x0a\0\x53\x30\x0a\0", "UTF-16LE"),
        F("a long text and then\xff \0 some", "NUL"),
        F("ORC\x1d\x0a\x03words", "ORC"),
        F("ab\0cd", "NUL"),
        F("\0\0\0\0\0\0\0\0", "nothing but NUL bytes"),
        F("\x1b\x40\0\xf8\x8d\x94\x6e\xde\x44\x55\x86", "Brotli"),
        F("\x10\x11\x12\x80\x81\xff\xfe", "not UTF-8"),
#undef F
        {"ustar", "tar", 5, 257},
        {"\xde\xc0\xef\xbe", "LMDB", 4, 16},
    };
    int wrong = -1;
    char *path = in_tmp("foreign.txt"), *content = xmalloc(1024);

    for (int i = 0; i < (int)(6 * sizeof kinds / sizeof *kinds); i++) {
        const int k = i / 6;
        moai_error err = {.text = ""};
        size_t n, length = kinds[k].at ? 512 : kinds[k].n;
        memset(content, 0, 1024);
        memcpy(content + kinds[k].at, kinds[k].bytes, kinds[k].n);
        wanted.replace_invalid = i % 2;
        wanted.content = (text_content)(i / 2 % 3);
        write_whole(path, content, length);
        char *got = read_all(path, "line", 100, &n, &err);
        if (got || !strstr(err.text, kinds[k].name) || !strstr(err.text, path) || strstr(err.text, "invalid_utf8")) {
            wrong = k;
            printf("# %s: %s\n", kinds[k].name, err.text);
        }
        free(got);
    }
    wanted.replace_invalid = false;
    wanted.content = CONTENT_AUTO;
    ok(wrong < 0, "%zu kinds of other files are refused by name, whatever is replaced or said",
       sizeof kinds / sizeof *kinds);
    free(content);
    free(path);

    static const char *const texts[] = {"PAR1 is a receptor\n",
                                        "BM 25 f\xC3\xBCr MZ\n",
                                        "MZ\n",
                                        "ORC\n",
                                        "RIFF and GIF89a\n",
                                        "x = 1\n",
                                        "\x1b[31mred\x1b[0m\n",
                                        "ID3 tags\n",
                                        "PACK\f\v\n",
                                        "07070 \n"};
    bool read = true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char want[64];
        snprintf(want, sizeof want, "\1%.*s", (int)strlen(texts[i]) - 1, texts[i]);
        read &= gives("magic.txt", texts[i], strlen(texts[i]), "line", want);
    }
    ok(read, "and texts that begin like one are read");

    static const char latin[] = "La premi\xe8re ann\xe9"
                                "e \xe0 l'\xe9"
                                "cole fut tr\xe8s dure pour les \xe9l\xe8ves.\n",
                      cyrillic[] = "\xcf\xf0\xe8\xe2\xe5\xf2, \xec\xe8\xf0! \xca\xe0\xea \xe4\xe5\xeb\xe0?\n";
    refuses("Latin-1", "latin.txt", latin, sizeof latin - 1, "file",
            "it looks like Latin-1 or Windows-1252, which iconv -f WINDOWS-1252");
    refuses("Windows-1251", "cyrillic.txt", cyrillic, sizeof cyrillic - 1, "file", "another encoding");
    wanted.replace_invalid = true;
    refuses("Windows-1251, which is not replaced away", "cyrillic.txt", cyrillic, sizeof cyrillic - 1, "file",
            "another encoding");
    wanted.replace_invalid = false;
}

int main(void)
{
    test_json();
    test_json_extremes();
    test_replaced();
    test_nuls();
    test_shapes();
    test_markup();
    test_first_line();
    test_names();
    test_foreign();
    test_utf8();
    test_separator("line");
    test_separator("blank_line");
    test_separator("<|endoftext|>");
    test_separator("-");
    test_blanks();
    test_forms();
    test_refusals();
    return tap_done();
}
