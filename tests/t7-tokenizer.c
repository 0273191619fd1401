/* t7-tokenizer.c: training, text to tokens and back byte for byte, and the same tokens as SentencePiece's. */
#include "io/text/tokenizer.h"
#include "tests/lib/shards.h"
#include "tests/lib/tap.h"

#include <glob.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>

static glob_t sources; /* this repository's own C: real text with tabs and long lines */

typedef struct id_row {
    int32_t *ids;
    int64_t n, capacity;
} id_row;

static bool encode(const tokenizer *t, const char *text, size_t n, id_row *r)
{
    moai_error err;
    r->n = 0;
    if (tokenizer_encode(t, text, n, &r->ids, &r->n, &r->capacity, &err) == 0) return true;
    printf("# %s\n", err.text);
    return false;
}

/* decode(encode(text)) == text */
static bool comes_back(const tokenizer *t, const char *text, size_t n)
{
    id_row r = {0};
    size_t n_back;

    if (!encode(t, text, n, &r)) return false;
    char *back = tokenizer_decode(t, r.ids, r.n, &n_back);
    bool same = n_back == n && memcmp(back, text, n) == 0;
    free(back);
    free(r.ids);
    return same;
}

/* The units and the table of recent ones change nothing: first use and second, against the text whole. */
static bool as_sentencepiece(const tokenizer *t, const char *text, size_t n)
{
    id_row r = {0}, plain = {0};
    moai_error err;
    bool same = tokenizer_encode_plain(t, text, n, &plain.ids, &plain.n, &plain.capacity, &err) == 0;

    for (int round = 0; round < 2; round++)
        same = same && encode(t, text, n, &r) && r.n == plain.n &&
               (r.n == 0 || memcmp(r.ids, plain.ids, (size_t)r.n * sizeof *r.ids) == 0);
    free(r.ids);
    free(plain.ids);
    return same;
}

static void test_pieces(const tokenizer *t)
{
    id_row r = {0};
    const char *text = "say <|im_start|>, <|endoftext|>, <unk>, <0x41> and <|pad|>";
    bool found = false;

    ok(tokenizer_vocab_size(t) == 600 && tokenizer_pad(t) == 0 && tokenizer_eos(t) == 2 &&
           tokenizer_id(t, "<|endoftext|>") == 2 && tokenizer_id(t, "<|im_start|>") == 3 &&
           tokenizer_id(t, "<|im_end|>") == 4 && tokenizer_id(t, "<unk>") == 1,
       "pad 0, unknown 1, end of text 2, im_start 3, im_end 4");
    ok(tokenizer_id(t, "<0x0A>") >= 0 && tokenizer_id(t, "no such piece") == -1,
       "bytes have pieces; a piece that is not there is -1");
    encode(t, text, strlen(text), &r);
    for (int64_t i = 0; i < r.n; i++) found |= r.ids[i] <= 4 || r.ids[i] == tokenizer_id(t, "<0x41>");
    ok(!found && comes_back(t, text, strlen(text)), "control symbols written in a text are text");
    encode(t, "1234", 4, &r);
    ok(r.n == 4, "digits are split: 1234 is %lld tokens", (long long)r.n);
    free(r.ids);
}

static void test_texts(const tokenizer *t)
{
    static const char *const texts[] = {"",
                                        " ",
                                        "  ",
                                        "a",
                                        " leading",
                                        "trailing ",
                                        "two  spaces   three\t\ttabs\n\n\nlines\r\nend\n",
                                        "\n",
                                        "\xC3\xA9t\xC3\xA9 na\xC3\xAFve",
                                        "\xE4\xB8\xAD\xE6\x96\x87\xE6\xB2\xA1\xE6\x9C\x89\xE7\xA9\xBA\xE6\xA0\xBC",
                                        "\xF0\x9F\x98\x80\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x9A\x80",
                                        "\xEF\xBB\xBF bom",
                                        "e\xCC\x81 \xEF\xAC\x81 \xE2\x84\xA2 \xC2\xA0 \xE3\x80\x80",
                                        "\x01\x02\x7f control",
                                        "\xE2\x81\x87 \xEF\xBF\xBD \xEF\xBF\xBF"};
    static const char with_nul[] = "a\0b \0\0 c";
    int bad = -1;

    for (int i = 0; i < (int)(sizeof texts / sizeof *texts); i++)
        if (!comes_back(t, texts[i], strlen(texts[i]))) bad = i;
    ok(bad < 0, "odd texts come back byte for byte (%d)", bad);
    ok(comes_back(t, with_nul, sizeof with_nul - 1), "and one with NULs");

    static const char meta[] = "\xE2\x96\x81meta \xE2\x96\x81\xE2\x96\x81space\xE2\x96\x81",
                      spaced[] = " meta   space ";
    id_row r = {0}, want = {0};
    bool same = encode(t, meta, sizeof meta - 1, &r) && encode(t, spaced, sizeof spaced - 1, &want) && r.n == want.n &&
                memcmp(r.ids, want.ids, (size_t)r.n * sizeof *r.ids) == 0;
    ok(same, "U+2581 is a space, as SentencePiece has it");
    free(r.ids);
    free(want.ids);
}

static void test_files(const tokenizer *t)
{
    bool back = true, same = true;
    size_t n, total = 0;

    for (size_t i = 0; i < sources.gl_pathc; i++) {
        char *text = read_whole(sources.gl_pathv[i], &n);
        back &= comes_back(t, text, n);
        same &= as_sentencepiece(t, text, n);
        total += n;
        free(text);
    }
    ok(back && total > 100000, "%zu real files, %zu bytes, come back", sources.gl_pathc, total);
    ok(same, "and have the tokens that SentencePiece gives the whole text");
}

/* 3 MB without a space or line end, and with: time is linear, or this would take minutes. */
static void test_long_line(const tokenizer *t)
{
    size_t n = 3000000;
    char *text = xmalloc(n);

    for (size_t i = 0; i < n; i++) text[i] = (char)('a' + (i * i / 7 + i / 1000) % 26);
    ok(comes_back(t, text, n), "one line of 3 MB without a space comes back");
    for (size_t i = 0; i + 1 < n; i += 2) memcpy(text + i, "\xC3\xA9", 2);
    ok(comes_back(t, text, n), "cut between its characters only");
    for (size_t i = 5; i < n; i += 10) text[i - 1] = ' ', text[i] = ' ';
    text[n - 1] = ' ';
    for (size_t i = 0; i < n; i++) text[i] = (unsigned char)text[i] < 0x80 ? text[i] : 'x';
    ok(comes_back(t, text, n), "and one with spaces");
    for (size_t i = 0; i < 200000; i++) text[i] = (char)('a' + (i * i / 7 + i / 1000) % 26);
    ok(as_sentencepiece(t, text, 200000), "200 KB without a space have SentencePiece's tokens");
    memset(text, 'e', 100000);
    ok(as_sentencepiece(t, text, 100000), "and so have 100 KB of one letter");
    text = realloc(text, n = 5000000);
    CHECK(text, "no memory");
    memset(text, 'e', n);
    ok(comes_back(t, text, n), "5 MB of one letter come back");
    free(text);
}

/* ---- models made by hand: a ModelProto's fields, written as protobuf has them ---- */
typedef struct proto {
    char *data;
    size_t n;
} proto;

static void put_varint(proto *p, uint64_t v)
{
    for (; v >= 128; v >>= 7) p->data[p->n++] = (char)(v | 128);
    p->data[p->n++] = (char)v;
}

static void put_number(proto *p, int field, uint64_t v)
{
    put_varint(p, (uint64_t)field << 3);
    put_varint(p, v);
}

static void put_bytes(proto *p, int field, const void *data, size_t n)
{
    put_varint(p, (uint64_t)field << 3 | 2);
    put_varint(p, n);
    memcpy(p->data + p->n, data, n);
    p->n += n;
}

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

static void put_piece(proto *p, const char *text, float score, int type)
{
    char room[128];
    proto piece = {room, 0};
    put_bytes(&piece, 1, text, strlen(text));
    put_varint(&piece, 2 << 3 | 5);
    memcpy(piece.data + piece.n, &score, 4);
    piece.n += 4;
    put_number(&piece, 3, (uint64_t)type);
    put_bytes(p, 1, piece.data, piece.n);
}

enum { UNIGRAM = 1, BPE, WORD, CHAR };
typedef struct model_kind {
    const char *what, *pieces; /* joined by ','; '_' is U+2581; '!' in front: user-defined, '?': unused */
    int type;
    bool bytes, adds_space, space_behind, drops_spaces;
} model_kind;

static void write_model(const char *path, const model_kind *k)
{
    proto p = {xmalloc(1 << 16), 0};
    char text[64], rooms[4][64], byte[8];
    proto t = {rooms[0], 0}, m = {rooms[1], 0}, s = {rooms[2], 0}, sample = {rooms[3], 0};
    float score = -1;

    put_piece(&p, "<unk>", 0, UNKNOWN);
    put_piece(&p, "</s>", 0, CONTROL);
    for (int i = 0; k->bytes && i < 256; i++) {
        snprintf(byte, sizeof byte, "<0x%02X>", i);
        put_piece(&p, byte, 0, BYTE);
    }
    for (const char *at = k->pieces; *at; at += *at == ',', score -= 1) {
        int type = *at == '!' ? USER_DEFINED : *at == '?' ? UNUSED : NORMAL;
        size_t n = 0;
        for (at += type != NORMAL; *at && *at != ','; at++)
            n += (size_t)sprintf(text + n, *at == '_' ? "\xE2\x96\x81" : "%c", *at);
        put_piece(&p, text, score, type);
    }
    put_number(&t, 3, (uint64_t)k->type);
    put_number(&t, 24, k->space_behind);
    put_number(&t, 35, k->bytes);
    put_bytes(&p, 2, t.data, t.n);
    put_number(&m, 3, k->adds_space);
    put_number(&m, 4, k->drops_spaces);
    put_bytes(&p, 3, m.data, m.n);
    if (k->type == BPE && k->adds_space && strstr(k->pieces, ",_a,")) {
        put_bytes(&s, 1, "a", 1); /* self_test_data: a text and its pieces, which loading looks at */
        put_bytes(&s, 2,
                  "\xE2\x96\x81"
                  "a",
                  4);
        put_bytes(&sample, 1, s.data, s.n);
        put_bytes(&p, 4, sample.data, sample.n);
    }
    write_whole(path, p.data, p.n);
    free(p.data);
}

/* The characters that the pieces are about, in any order; every tenth text is long. */
static size_t random_characters(char *text, uint64_t seed)
{
    static const char *const characters[] = {"a", "b", "c", " ", "\xE2\x96\x81", "\n", "\t", "\xC3\xA9", "z"};
    const int n_kinds = 3 + (int)(7 * rng_uniform(seed, 0));
    size_t wanted = seed % 10 ? (size_t)(40 * rng_uniform(seed, 1)) : 9000, n = 0;

    for (uint64_t i = 2; n < wanted; i++) {
        const char *c = characters[(seed % 3 ? 0 : 9 - n_kinds) + (int)(n_kinds * rng_uniform(seed, i)) % n_kinds];
        n += (size_t)sprintf(text + n, "%s", c);
    }
    return n;
}

static void test_kinds_of_models(void)
{
    static const model_kind kinds[] = {
        {"no space in front", "ab,_a,__,____,_ab,abc,bc,ca,a,b,c,_", BPE, true, false, false, false},
        {"a space in front", "ab,_a,__,____,_ab,abc,bc,ca,a,b,c,_", BPE, true, true, false, false},
        {"a space behind", "a_,ab,b_,ab_,__,____,abc,a,b,c,_", BPE, true, true, true, false},
        {"pieces across spaces and lines", "a_,a_b,a\n,\na,\n\n,__,ab,\n_,a,b,c,_,\n", BPE, true, true, false, false},
        {"user-defined pieces", "!__,!\n\n,!ab_,!ca,ab,_a,____,_ab,abc,bc,a,b,c,_,\n", BPE, true, true, false, false},
        {"pieces out of use", "ab,?bc,?abc,_a,?__,____,a,b,c,_", BPE, true, true, false, false},
        {"no bytes", "ab,_a,__,____,_ab,abc,a,b,_", BPE, false, true, false, false},
        {"no bytes and no space", "ab,_a,__,____,_ab,abc,a,b,_", BPE, false, false, false, false},
        {"spaces dropped", "ab,_a,__,____,_ab,abc,bc,ca,a,b,c,_", BPE, true, true, false, true},
        {"unigram", "ab,_a,__,____,_ab,abc,bc,ca,a,b,c,_", UNIGRAM, true, true, false, false},
        {"characters", "a,b,!ca,_", CHAR, false, true, false, false},
        {"words", "_a,_ab,_abc,_cab", WORD, false, true, false, false},
    };
    char *path = in_tmp("kind.model"), *text = xmalloc(1 << 14);

    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        moai_error err = {.text = ""};
        int differ = 0, n_texts = 600;
        write_model(path, &kinds[k]);
        tokenizer *t = tokenizer_open(path, &err);
        for (int i = 0; t && i < n_texts; i++) {
            size_t n = random_characters(text, (uint64_t)i + 1);
            differ += !as_sentencepiece(t, text, n);
        }
        ok(t && differ == 0, "%s: %d of %d texts have other tokens than SentencePiece's %s", kinds[k].what, differ,
           n_texts, err.text);
        tokenizer_free(t);
    }
    free(path);
    free(text);
}

#ifndef __SANITIZE_ADDRESS__ /* its allocator ends the program instead */
/* A child with less memory than the text takes: an error that tells, where an exception would end
 * it without a word. */
static void test_exhaustion(const tokenizer *t)
{
    size_t n = 40000000;
    char *text = xmalloc(n);
    int status = 0;

    memset(text, 'e', n);
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (child == 0) {
        const struct rlimit little = {1 << 29, 1 << 29};
        id_row r = {0};
        moai_error err = {.text = ""};
        setrlimit(RLIMIT_AS, &little);
        _exit(tokenizer_encode_plain(t, text, n, &r.ids, &r.n, &r.capacity, &err) == -1 && strstr(err.text, "memory")
                  ? 0
                  : 1);
    }
    waitpid(child, &status, 0);
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "no memory for a text: an error, no exception (status %d)",
       status);
    free(text);
}
#endif

typedef struct job {
    const tokenizer *tokenizer;
    const char *text;
    size_t n;
    const id_row *want;
    bool same;
} job;

static void *encode_again(void *arg)
{
    job *j = arg;
    id_row r = {0};

    j->same = true;
    for (int i = 0; i < 20; i++)
        j->same = encode(j->tokenizer, j->text, j->n, &r) && r.n == j->want->n &&
                  memcmp(r.ids, j->want->ids, (size_t)r.n * 4) == 0 && j->same;
    free(r.ids);
    return NULL;
}

static void test_threads(const tokenizer *t)
{
    size_t n;
    char *text = read_whole(sources.gl_pathv[0], &n);
    id_row want = {0};
    job jobs[4];
    pthread_t threads[4];
    bool same = true;

    encode(t, text, n, &want);
    for (int i = 0; i < 4; i++) {
        jobs[i] = (job){t, text, n, &want, false};
        CHECK(pthread_create(&threads[i], NULL, encode_again, &jobs[i]) == 0, "no thread");
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        same &= jobs[i].same;
    }
    ok(same, "four threads at once get the same tokens");
    free(want.ids);
    free(text);
}

/* What protobuf reads behind a model is merged into it: 3 is normalizer_spec, in it 3 add_dummy_prefix and 4
 * remove_extra_whitespaces. */
static void test_prefix(const char *model)
{
    static const struct {
        const char *what, *more;
        size_t n;
    } kinds[] = {{"puts a space in front (Llama)", "\x1A\x02\x18\x01", 4},
                 {"drops spaces", "\x1A\x02\x20\x01", 4},
                 {"does both", "\x1A\x04\x18\x01\x20\x01", 6}};
    static const char *const texts[] = {"Hello world",
                                        " two  spaces ",
                                        "a\nb\n\nc d\n e",
                                        " ",
                                        "  ",
                                        "\n",
                                        "x ",
                                        "tab\t x",
                                        "\xE2\x96\x81meta \xE2\x96\x81"};
    moai_error err = {.text = ""};
    size_t n, n_long = 40000;
    char *data = read_whole(model, &n), *path = in_tmp("prefix.model"), *longer = xmalloc(n_long);
    char *both = xmalloc(n + 8);

    for (size_t i = 0; i < n_long; i++) longer[i] = (char)(i % 9 || i < 20000 ? 'a' + i * i / 7 % 26 : ' ');
    for (int k = 0; k < 3; k++) {
        int bad = -1;
        memcpy(both, data, n);
        memcpy(both + n, kinds[k].more, kinds[k].n);
        write_whole(path, both, n + kinds[k].n);
        tokenizer *t = tokenizer_open(path, &err);
        CHECK(t, "%s", err.text);
        for (int i = 0; i < (int)(sizeof texts / sizeof *texts); i++)
            if (!as_sentencepiece(t, texts[i], strlen(texts[i]))) bad = i;
        char *text = read_whole(sources.gl_pathv[0], &n_long);
        ok(bad < 0 && as_sentencepiece(t, text, n_long) && as_sentencepiece(t, longer, 40000),
           "a model that %s: SentencePiece's tokens (%d)", kinds[k].what, bad);
        ok(!tokenizer_is_byte_pair(t), "and no tokenizer.json for it");
        free(text);
        tokenizer_free(t);
    }
    free(data), free(both), free(longer), free(path);
}

static bool train(const char *const *inputs, int n, const char *prefix, int64_t vocab_size, moai_error *err)
{
    const tokenizer_train_options o = {
        .vocab_size = vocab_size, .character_coverage = 0.9995, .n_threads = 1, .seed = 1, .text_key = "text"};
    return tokenizer_train(inputs, n, prefix, &o, err) == 0;
}

static void test_refusals(const tokenizer *t)
{
    char *text = in_tmp("text"), *prefix = in_tmp("none");
    const char *const input[] = {text}, *const missing[] = {"/nonexistent/file"};
    moai_error err;
    id_row r = {0};

    write_whole(text, "aa bb aa bb\n", 12);
    ok(!train(input, 1, prefix, 20000, &err) && strstr(err.text, "ocabulary size"),
       "a vocabulary larger than the text gives: %s", err.text);
    ok(!train(input, 1, prefix, 200, &err) && strstr(err.text, "200"), "one smaller than the bytes: %s", err.text);
    ok(!train(missing, 1, prefix, 600, &err) && strstr(err.text, missing[0]), "a missing text: %s", err.text);
    write_whole(text, "\n\n", 2);
    ok(!train(input, 1, prefix, 600, &err) && strstr(err.text, "no text"), "an empty text: %s", err.text);
    write_whole(text, "fine\nbad \xff\n", 11);
    ok(!train(input, 1, prefix, 600, &err) && strstr(err.text, "0xff at offset 9"), "a text that is not UTF-8: %s",
       err.text);
    ok(!tokenizer_open(text, &err) && strstr(err.text, text), "a file that is no model: %s", err.text);
    ok(!tokenizer_open(missing[0], &err) && strstr(err.text, missing[0]), "a missing model: %s", err.text);
    ok(tokenizer_encode(t, "ab\x80", 3, &r.ids, &r.n, &r.capacity, &err) != 0 && strstr(err.text, "0x80 at 2"),
       "text that is not UTF-8: %s", err.text);
    free(r.ids);
    free(text);
    free(prefix);
}

/* What SentencePiece would drop (long lines, lines with tabs) is learnt from: the text has nothing else. */
static void test_training_lines(void)
{
    enum { N = 60000 };
    char *path = in_tmp("line"), *prefix = in_tmp("line"), *model = in_tmp("line.model"), *text = xmalloc(N + 1);
    const char *const input[] = {path}, *const words[] = {"walking", "talking", "walks", "talker"};
    moai_error err = {.text = ""};
    size_t n = 0;

    for (uint64_t i = 0; n + 20 < N; i++)
        n += (size_t)sprintf(text + n, "%s%s", words[(int)(4 * rng_uniform(1, i))], i % 9 ? " " : "\t");
    write_whole(path, text, n);
    bool trained = train(input, 1, prefix, 285, &err);
    tokenizer *t = trained ? tokenizer_open(model, &err) : NULL;
    ok(t && tokenizer_id(t, "\xE2\x96\x81walk") >= 0, "one line of %zu bytes with tabs is trained on %s", n, err.text);
    tokenizer_free(t);
    free(path);
    free(prefix);
    free(model);
    free(text);
}

int main(void)
{
    char *prefix = in_tmp("tokenizer"), *model = in_tmp("tokenizer.model");
    moai_error err = {.text = ""};

    CHECK(glob("src/*/*.[ch]", 0, NULL, &sources) == 0, "run from the top of the repository");
    ok(train((const char *const *)sources.gl_pathv, (int)sources.gl_pathc, prefix, 600, &err),
       "trained on %zu files %s", sources.gl_pathc, err.text);
    tokenizer *t = tokenizer_open(model, &err);
    CHECK(t, "%s", err.text);
    test_pieces(t);
    test_texts(t);
    test_files(t);
    test_long_line(t);
    test_threads(t);
    test_prefix(model);
    test_kinds_of_models();
#ifndef __SANITIZE_ADDRESS__
    test_exhaustion(t);
#endif
    test_refusals(t);
    test_training_lines();
    tokenizer_free(t);
    globfree(&sources);
    free(prefix);
    free(model);
    return tap_done();
}
