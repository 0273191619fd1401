/* fuzz-text.c: text, JSON lines and packed text.  Four bytes choose the name, the separator, the format and packing,
 * and the size of blocks; the rest is the file, or is packed into it.  However a file is cut into blocks, its
 * documents are the same.  Windows are up to 2 GiB.  options: -malloc_limit_mb=2304 */
#include "io/text/text.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/pack_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static const char *const names[] = {"in.txt",     "in.jsonl",    "in",        "in.json",
                                    "in.txt.zst", "in.jsonl.gz", "in.txt.xz", "in.ndjson.bz2"};
static const char *const separators[] = {"file", "line", "blank_line", "---", "<|endoftext|>"};
enum { N_NAMES = sizeof names / sizeof *names, N_SEPARATORS = sizeof separators / sizeof *separators };
/* of the third byte; the packing in between, the content above */
enum { REPLACE = 1, SKIP = 2, PACKING_SHIFT = 2, CONTENT_SHIFT = 5 };

void fuzz_start(void) {}

static void seed(const char *name, int file, int separator, int how, int block, const char *text)
{
    uint8_t whole[4096] = {(uint8_t)file, (uint8_t)separator, (uint8_t)how, (uint8_t)block};
    const size_t n = strlen(text);

    memcpy(whole + 4, text, n);
    fuzz_seed(name, whole, n + 4);
}

/* The same packed, as bytes to be changed. */
static void seed_packed(const char *name, int file, fuzz_packing packing, const char *text)
{
    uint8_t whole[4096] = {(uint8_t)file, 1, 0, 9};

    fuzz_seed(name, whole, 4 + fuzz_pack(packing, text, strlen(text), whole + 4, sizeof whole - 4));
}

void fuzz_seeds(void)
{
    static const char json[] =
        "{\"text\": \"one \\u00e9\\ud834\\udd1e\", \"n\": [1, 2.5e3, null, {\"a\": true}]}\n\n{\"text\": \"\"}\n"
        "{\"id\": 18446744073709551616, \"x\": 1e400, \"text\": \"two\\n\\u0000\"}\r\n{\"text\": null}\n";

    seed("lines", 0, 1, 0, 3, "one\r\ntwo\n\nthree\xC3\xA9\n");
    seed("file", 0, 0, REPLACE, 9, "\xEF\xBB\xBFone\ntwo \xFF\n");
    seed("blank", 0, 2, REPLACE, 2, "one\ntwo\n\n\n  \nthree\n\nfour");
    seed("literal", 2, 3, 0, 5, "one\n---\n---\ntwo\n----\nthree\r\n---\r\nfour\n---");
    seed("jsonl", 1, 0, REPLACE | SKIP, 7, json);
    seed("array", 2, 0, 0, 7, "[\n {\"text\": \"one\"}, [1, \"two\"]\n]");
    seed("joined", 0, 1, 0, 7, "# a comment\n{}\n{\"text\": \"one\"},{\"cells\": {\n}}\r\x1e[\"two\"]");
    seed("nuls", 0, 1, REPLACE, 7, "one\n--- \t\r\ntwo \n \n<?xml\r");
    seed("surrogate", 1, 0, REPLACE, 7,
         "{\"text\": \"\\ud800 \\udc00\", \"text\": \"\\ud800\\u0041\", \"\\u0074ext\": \"x\"}\n");
    for (int i = 1; i < FUZZ_PACKINGS; i++) {
        char name[32];
        snprintf(name, sizeof name, "packed%d", i);
        seed(name, i % N_NAMES, 2, i << PACKING_SHIFT, 3, "one\ntwo\n\nthree\n");
        snprintf(name, sizeof name, "bytes%d", i);
        seed_packed(name, i % N_NAMES, (fuzz_packing)i, json);
    }
}

typedef struct outcome {
    bool failed;
    int64_t n_documents, n_bytes;
    text_counts counts;
    XXH64_hash_t hash;
} outcome;

/* Reads all blocks in order. */
static outcome read_blocks(const char *path, const text_format *format, int64_t n_bytes)
{
    outcome o = {0};
    moai_error err;
    text_file *f = text_open(path, format, &err);
    XXH64_state_t *hash = XXH64_createState();

    o.failed = !f || text_judge(f, &err) != 0;
    XXH64_reset(hash, 0);
    for (int64_t begin = 0, rc = 1; rc == 1 && !o.failed; begin += n_bytes) {
        text_block block;
        const char *text;
        size_t n;
        rc = text_read_block(f, begin, n_bytes, &block, &err);
        if (rc < 0) o.failed = true;
        if (rc != 1) break;
        while ((rc = text_next(&block, &text, &n, &err)) == 1) {
            XXH64_update(hash, text, n);
            XXH64_update(hash, &n, sizeof n);
            o.n_documents++;
            o.n_bytes += (int64_t)n;
        }
        o.failed = rc < 0;
        text_counts_add(&o.counts, &block.counts);
        text_block_free(&block);
        rc = 1;
        if (text_undivided(f)) break;
    }
    text_close(f);
    o.hash = XXH64_digest(hash);
    XXH64_freeState(hash);
    return o;
}

static bool same(const outcome *a, const outcome *b)
{
    return a->n_documents == b->n_documents && a->hash == b->hash &&
           memcmp(&a->counts, &b->counts, sizeof a->counts) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { ROOM = 1 << 20, MANY = 1 << 15 };
    static uint8_t packed[ROOM];

    if (size < 4 || size > ROOM / 4) return 0;
    const char *path = names[data[0] % N_NAMES];
    const fuzz_packing packing = (fuzz_packing)((data[2] >> PACKING_SHIFT) % 8);
    text_format format = {.text_key = "text",
                          .replace_invalid = data[2] & REPLACE,
                          .skip_bad_lines = data[2] & SKIP,
                          .content = (text_content)((data[2] >> CONTENT_SHIFT) % 3)};
    const int64_t block = 1 + data[3];

    text_format_parse(&format, separators[data[1] % N_SEPARATORS]);
    fuzz_write(path, packed, fuzz_pack(packing, data + 4, size - 4, packed, ROOM));
    const outcome whole = read_blocks(path, &format, INT64_MAX / 2), cut = read_blocks(path, &format, block);
    unlink(path);
    /* a block of many bytes may be refused for how many of them are bad */
    CHECK(whole.failed == cut.failed || (format.replace_invalid && cut.n_bytes > MANY / 2),
          "blocks of %lld bytes: %d, not %d", (long long)block, cut.failed, whole.failed);
    CHECK(whole.failed || cut.failed || same(&whole, &cut), "blocks of %lld bytes: %lld documents, not %lld, or others",
          (long long)block, (long long)cut.n_documents, (long long)whole.n_documents);
    return 0;
}
