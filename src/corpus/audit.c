/* audit.c: see audit.h */
#include "src/corpus/audit.h"

#include "io/data/shard.h"
#include "io/file/hash.h"
#include "io/text/tokenizer.h"
#include "src/base/files.h"
#include "src/corpus/bigram.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { WINDOW = 1 << 20, N_BUCKETS = 63, SHOWN_FAULTS = 10 };
enum { MOST_UNREADABLE = 100 }; /* windows of a shard until the rest is not tried: a header may claim any number */

/* A manifest as read, or one made up around a lone shard. */
typedef struct shard_set {
    manifest manifest;
    bool alone;
    tokenizer *tokenizer;                     /* NULL when none fits */
} shard_set;

static bool names_manifest(const char *path)
{
    struct stat st;
    size_t n = strlen(path);
    return (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) || (n > 5 && strcmp(path + n - 5, ".json") == 0);
}

/* What the manifest beside a lone shard names, else the usual name; whether it fits is seen later. */
static char *tokenizer_beside(const char *dir)
{
    manifest m;
    moai_error ignored;
    char *path = NULL;

    if (manifest_read(&m, dir, &ignored) == 0) {
        path = m.tokenizer ? xstrdup(m.tokenizer) : NULL;
        manifest_free(&m);
    }
    if (path) return path;
    path = xasprintf("%s/tokenizer.model", dir);
    if (file_exists(path)) return path;
    free(path);
    return xasprintf("%s/tokenizer.json", dir);
}

/* A lone shard as a split of its own; the tokenizer may lie beside it. */
static int wrap_shard(shard_set *set, const char *path, moai_error *err)
{
    manifest *m = &set->manifest;
    shard *s = shard_open(path, err);
    const char *slash = strrchr(path, '/');

    if (!s) return -1;
    m->info = *shard_get_info(s);
    m->dir = slash ? xasprintf("%.*s", (int)(slash - path), path) : xstrdup(".");
    m->tokenizer = tokenizer_beside(m->dir);
    m->n_splits = 1;
    m->splits = xmalloc(sizeof *m->splits);
    m->splits[0] = (struct manifest_split){.name = xstrdup("shard"), .n = 1, .list = xmalloc(sizeof(manifest_shard)),
                                           .tokens = shard_tokens(s)};
    m->splits[0].list[0] =
        (manifest_shard){.path = xstrdup(path), .tokens = shard_tokens(s), .documents = shard_documents(s)};
    set->alone = true;
    shard_free(s);
    return 0;
}

static int set_open(shard_set *set, const char *path, moai_error *err)
{
    char hex[65];
    moai_error ignored;

    *set = (shard_set){0};
    if ((names_manifest(path) ? manifest_read(&set->manifest, path, err) : wrap_shard(set, path, err)) != 0) return -1;
    const manifest *m = &set->manifest;
    if (m->tokenizer && file_exists(m->tokenizer) && file_sha256(m->tokenizer, hex, &ignored) == 0 &&
        strcmp(hex, m->info.tokenizer_sha256) == 0)
        set->tokenizer = tokenizer_open(m->tokenizer, &ignored);
    return 0;
}

static void set_close(shard_set *set)
{
    tokenizer_free(set->tokenizer);
    manifest_free(&set->manifest);
}

static void print_byte(unsigned char c)
{
    if (c == '\n')
        fputs("\\n", stdout);
    else if (c < 32 || c == 127)
        printf("\\x%02x", c);
    else
        putchar(c);
}

/* Text of tokens on one line, control characters made visible. */
static void print_text(const shard_set *set, const int32_t *ids, int64_t n)
{
    size_t n_bytes;

    if (!set->tokenizer) {
        printf("    (no tokenizer with sha256 %.12s... to decode with)\n", set->manifest.info.tokenizer_sha256);
        return;
    }
    fputs("    ", stdout);
    for (int64_t begin = 0, end; begin < n; begin = end) {    /* eos decodes to nothing: shown by name */
        for (end = begin; end < n && ids[end] != set->manifest.info.eos; end++) continue;
        char *text = tokenizer_decode(set->tokenizer, ids + begin, end - begin, &n_bytes);
        for (size_t i = 0; i < n_bytes; i++) print_byte((unsigned char)text[i]);
        free(text);
        if (end < n) {
            fputs("<eos>", stdout);
            end++;
        }
    }
    putchar('\n');
}

/* An example, what is trained of it in {+ +}, special tokens by their names. */
static void print_example(const shard_set *set, const int32_t *ids, const uint8_t *trained, int64_t n)
{
    if (!set->tokenizer) return;
    fputs("    example 0, what is trained in {+ +}: ", stdout);
    for (int64_t i = 0; i < n; i++) {
        piece_kind kind;
        size_t n_bytes;
        const char *bytes = tokenizer_bytes(set->tokenizer, ids[i], &n_bytes),
                   *name = tokenizer_piece(set->tokenizer, ids[i], &kind);
        if (trained[i] && (i == 0 || !trained[i - 1])) fputs("{+", stdout);
        if (kind == PIECE_SPECIAL) fputs(name, stdout);
        for (size_t k = 0; k < n_bytes; k++) print_byte((unsigned char)bytes[k]);
        if (trained[i] && (i + 1 == n || !trained[i + 1])) fputs("+}", stdout);
    }
    putchar('\n');
}

static int inspect_example(const shard_set *set, shard *s, moai_error *err)
{
    enum { MOST = 4096 };
    uint64_t offsets[2];

    if (!shard_get_info(s)->is_marked || shard_documents(s) == 0) return 0;
    if (shard_read_documents(s, 0, 2, offsets, err) != 0) return -1;
    const int64_t n = min_i64(MOST, (int64_t)offsets[1]);
    int32_t *ids = xmalloc((size_t)n * sizeof *ids);
    uint8_t *trained = xmalloc((size_t)n);
    const int status = shard_read(s, 0, n, ids, err) || shard_read_trained(s, 0, n, trained, err) ? -1 : 0;
    if (status == 0) print_example(set, ids, trained, n);
    free(ids);
    free(trained);
    return status;
}

static int inspect_shard(const shard_set *set, const manifest_shard *entry, int64_t n_tokens, moai_error *err)
{
    shard *s = shard_open(entry->path, err);

    if (!s) return -1;
    int64_t n = min_i64(n_tokens, shard_tokens(s));
    int32_t *ids = xmalloc((size_t)n * sizeof *ids);
    int status = shard_read(s, 0, n, ids, err);
    printf("  %s: %lld tokens in %lld documents\n", entry->path, (long long)shard_tokens(s),
           (long long)shard_documents(s));
    if (status == 0 && n > 0) {
        fputs("    ids", stdout);
        for (int64_t i = 0; i < n; i++) printf(" %d", ids[i]);
        putchar('\n');
        print_text(set, ids, n);
    }
    if (status == 0) status = inspect_example(set, s, err);
    free(ids);
    shard_free(s);
    return status;
}

static void print_header(const shard_set *set)
{
    const manifest *m = &set->manifest;

    printf("vocab_size %lld, eos %lld, pad %lld, tokens as %s\ntokenizer sha256 %s%s%s\n",
           (long long)m->info.vocab_size, (long long)m->info.eos, (long long)m->info.pad,
           m->info.vocab_size <= 65536 ? "uint16" : "uint32", m->info.tokenizer_sha256, set->tokenizer ? ", " : "",
           set->tokenizer ? m->tokenizer : "");
    for (int i = 0; i < m->n_splits; i++)
        printf("split %s: %lld tokens in %d shard%s\n", m->splits[i].name, (long long)m->splits[i].tokens,
               m->splits[i].n, m->splits[i].n == 1 ? "" : "s");
}

int shards_inspect(const char *path, int64_t n_tokens, moai_error *err)
{
    shard_set set;
    int status = set_open(&set, path, err);

    if (status == 0) {
        print_header(&set);
        for (int i = 0; status == 0 && i < set.manifest.n_splits; i++)
            for (int k = 0; status == 0 && k < set.manifest.splits[i].n; k++)
                status = inspect_shard(&set, &set.manifest.splits[i].list[k], n_tokens, err);
        set_close(&set);
    }
    return status;
}

/* What an audit gathers. */
typedef struct audit {
    const shard_set *set;
    int64_t n_faults, n_tokens, n_counted, n_documents;
    int64_t bucket[N_BUCKETS];                /* bucket i: lengths of [2^i, 2^(i+1)) */
    int64_t n_shard_faults;                   /* of the shard under way */
    int32_t unknown;                          /* id, or -1: no tokenizer tells, or it ends documents too */
    int64_t n_unknown, first_unknown;         /* how many; the first one's place in its shard */
    const char *unknown_in;
} audit;

__attribute__((format(printf, 3, 4))) static void fault(audit *a, const char *path, const char *fmt, ...)
{
    va_list ap;

    a->n_faults++;
    if (++a->n_shard_faults > SHOWN_FAULTS) return;
    printf("FAULT %s: ", path);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

/* The text of an error names its file already. */
static void fault_text(audit *a, const moai_error *err)
{
    a->n_faults++;
    if (++a->n_shard_faults <= SHOWN_FAULTS) printf("FAULT %s\n", err->text);
}

/* The file itself against the manifest. */
static void audit_file(audit *a, const manifest_shard *entry)
{
    moai_error err;
    char hex[33];
    int64_t n_bytes;

    if (a->set->alone) return;
    if (file_xxh3(entry->path, hex, &n_bytes, &err) != 0) {
        fault_text(a, &err);
        return;
    }
    if (n_bytes != entry->bytes)
        fault(a, entry->path, "%lld bytes, the manifest says %lld", (long long)n_bytes, (long long)entry->bytes);
    if (strcmp(hex, entry->xxh3) != 0) fault(a, entry->path, "hash %s, the manifest says %s", hex, entry->xxh3);
}

static void audit_header(audit *a, const shard *s, const manifest_shard *entry)
{
    const shard_info *has = shard_get_info(s), *want = &a->set->manifest.info;

    if (has->vocab_size != want->vocab_size || has->eos != want->eos || has->pad != want->pad)
        fault(a, entry->path, "vocab_size %lld, eos %lld, pad %lld; the manifest says %lld, %lld, %lld",
              (long long)has->vocab_size, (long long)has->eos, (long long)has->pad, (long long)want->vocab_size,
              (long long)want->eos, (long long)want->pad);
    if (strcmp(has->tokenizer_sha256, want->tokenizer_sha256) != 0)
        fault(a, entry->path, "tokenizer %s, the manifest says %s", has->tokenizer_sha256, want->tokenizer_sha256);
    if (has->is_marked != want->is_marked)
        fault(a, entry->path, "its tokens are %smarked as trained or not, the manifest says otherwise",
              has->is_marked ? "" : "not ");
    if (shard_tokens(s) != entry->tokens || shard_documents(s) != entry->documents)
        fault(a, entry->path, "%lld tokens in %lld documents, the manifest says %lld in %lld",
              (long long)shard_tokens(s), (long long)shard_documents(s), (long long)entry->tokens,
              (long long)entry->documents);
}

/* The offsets of all documents, checked; NULL when they cannot be read. */
static uint64_t *audit_documents(audit *a, shard *s, const manifest_shard *entry)
{
    int64_t n = shard_documents(s), n_tokens = shard_tokens(s);
    uint64_t *offsets = calloc((size_t)(n + 1), sizeof *offsets);
    moai_error err;

    if (!offsets) {
        fault(a, entry->path, "claims %lld documents: not enough memory for their offsets", (long long)n);
        return NULL;
    }
    if (shard_read_documents(s, 0, n + 1, offsets, &err) != 0) {
        fault_text(a, &err);
        free(offsets);
        return NULL;
    }
    if (offsets[0] != 0)
        fault(a, entry->path, "document 0 starts at token %llu, not 0", (unsigned long long)offsets[0]);
    if (offsets[n] != (uint64_t)n_tokens)
        fault(a, entry->path, "the last document ends at token %llu of %lld", (unsigned long long)offsets[n],
              (long long)n_tokens);
    for (int64_t d = 0; d < n; d++) {
        if (offsets[d + 1] <= offsets[d] || offsets[d + 1] > (uint64_t)n_tokens) {
            fault(a, entry->path, "document %lld runs from token %llu to %llu", (long long)d,
                  (unsigned long long)offsets[d], (unsigned long long)offsets[d + 1]);
            continue;
        }
        a->bucket[63 - __builtin_clzll(offsets[d + 1] - offsets[d])]++;
    }
    a->n_documents += n;
    return offsets;
}

static void count_unknown(audit *a, const manifest_shard *entry, int64_t begin, const int32_t *ids, int64_t n)
{
    int64_t found = 0, i = 0;

    if (a->unknown < 0) return;
    for (int64_t k = 0; k < n; k++) found += ids[k] == a->unknown;
    if (a->n_unknown == 0 && found > 0) {
        while (ids[i] != a->unknown) i++;
        a->first_unknown = begin + i;
        a->unknown_in = entry->path;
    }
    a->n_unknown += found;
}

/* Every id below the vocabulary size, every document's last one eos. */
static void audit_tokens(audit *a, shard *s, const uint64_t *offsets, const manifest_shard *entry)
{
    int64_t n_tokens = shard_tokens(s), document = 0, inner = 0, n_unreadable = 0;
    const shard_info *info = shard_get_info(s);
    int32_t *ids = xmalloc(WINDOW * sizeof *ids);
    moai_error err;

    for (int64_t begin = 0; begin < n_tokens && n_unreadable < MOST_UNREADABLE; begin += WINDOW) {
        int64_t n = min_i64(WINDOW, n_tokens - begin);
        bool readable = shard_read(s, begin, n, ids, &err) == 0;
        if (!readable)
            fault_text(a, &err), n_unreadable++;
        else
            count_unknown(a, entry, begin, ids, n);
        for (int64_t i = 0; readable && i < n; i++) {
            if ((uint32_t)ids[i] >= info->vocab_size)
                fault(a, entry->path, "token %lld is id %u, not below vocab_size %lld", (long long)(begin + i),
                      (uint32_t)ids[i], (long long)info->vocab_size);
            inner += !info->is_marked && ids[i] == info->eos;
        }
        for (; offsets && document < shard_documents(s) && offsets[document + 1] <= (uint64_t)(begin + n); document++) {
            int64_t last = (int64_t)offsets[document + 1] - 1 - begin;
            if (!readable || last < 0 || info->is_marked) continue;
            if (ids[last] != info->eos)
                fault(a, entry->path, "document %lld ends at token %lld with id %d, not eos %lld", (long long)document,
                      (long long)(begin + last), ids[last], (long long)info->eos);
            inner -= ids[last] == info->eos;
        }
    }
    if (offsets && a->n_shard_faults == 0 && inner > 0)
        fault(a, entry->path, "%lld eos inside documents", (long long)inner);
    a->n_tokens += n_tokens;
    free(ids);
}

/* How many flags of the document at [begin, end) count; `room` has a window's.  A fault where they cannot be read. */
static uint64_t count_trained(audit *a, shard *s, const char *path, int64_t begin, int64_t end, uint8_t *room)
{
    uint64_t sum = 0;
    moai_error err;

    for (int64_t at = begin, n; at < end; at += n) {
        n = min_i64(end - at, WINDOW);
        if (shard_read_trained(s, at, n, room, &err) != 0) return fault_text(a, &err), 0;
        for (int64_t i = 0; i < n; i++) {
            if (room[i] > 1)
                fault(a, path, "flag %d of token %lld is neither 0 nor 1", room[i], (long long)(at + i));
            sum += at + i > begin && room[i];
        }
    }
    return sum;
}

/* The flags of the tokens: as many of each document as it is said to have, and of the shard. */
static void audit_marks(audit *a, shard *s, const uint64_t *offsets, const manifest_shard *entry)
{
    const int64_t n = shard_documents(s);
    uint64_t *counted = calloc((size_t)n + 1, sizeof *counted);
    uint8_t *room = xmalloc(WINDOW);
    int64_t n_counted = 0;
    moai_error err;

    if (!counted)
        fault(a, entry->path, "claims %lld documents: not enough memory for their counts", (long long)n);
    else if (shard_read_counted(s, 0, n, counted, &err) != 0)
        fault_text(a, &err);
    for (int64_t d = 0; offsets && a->n_shard_faults == 0 && d < n; d++) {
        const uint64_t sum =
            count_trained(a, s, entry->path, (int64_t)offsets[d], (int64_t)offsets[d + 1], room);
        if (a->n_shard_faults == 0 && sum != counted[d])
            fault(a, entry->path, "document %lld has %llu trained tokens, it is said to have %llu", (long long)d,
                  (unsigned long long)sum, (unsigned long long)counted[d]);
        n_counted += (int64_t)sum;
    }
    if (a->n_shard_faults == 0 && !a->set->alone && n_counted != entry->counted)
        fault(a, entry->path, "%lld trained tokens, the manifest says %lld", (long long)n_counted,
              (long long)entry->counted);
    a->n_counted += n_counted;
    free(counted);
    free(room);
}

static void audit_shard(audit *a, const manifest_shard *entry)
{
    moai_error err;

    a->n_shard_faults = 0;
    audit_file(a, entry);
    shard *s = shard_open(entry->path, &err);
    if (!s) {
        fault_text(a, &err);
    } else {
        audit_header(a, s, entry);
        uint64_t *offsets = audit_documents(a, s, entry);
        audit_tokens(a, s, offsets, entry);
        if (shard_get_info(s)->is_marked) audit_marks(a, s, offsets, entry);
        free(offsets);
        shard_free(s);
    }
    if (a->n_shard_faults > SHOWN_FAULTS)
        printf("FAULT %s: and %lld more\n", entry->path, (long long)(a->n_shard_faults - SHOWN_FAULTS));
}

static void audit_tokenizer(audit *a)
{
    const manifest *m = &a->set->manifest;
    char hex[65];
    moai_error err;

    a->n_shard_faults = 0;
    if (a->set->alone || !m->tokenizer) return;
    if (file_sha256(m->tokenizer, hex, &err) != 0)
        fault_text(a, &err);
    else if (strcmp(hex, m->info.tokenizer_sha256) != 0)
        fault(a, m->tokenizer, "sha256 %s, the manifest says %s", hex, m->info.tokenizer_sha256);
    else if (!a->set->tokenizer || tokenizer_vocab_size(a->set->tokenizer) != m->info.vocab_size)
        fault(a, m->tokenizer, "not a tokenizer of %lld pieces", (long long)m->info.vocab_size);
}

static void print_histogram(const audit *a)
{
    int64_t largest = 1;

    for (int i = 0; i < N_BUCKETS; i++) largest = max_i64(largest, a->bucket[i]);
    puts("document lengths in tokens, eos counted:");
    for (int i = 0; i < N_BUCKETS; i++)
        if (a->bucket[i])
            printf("  %10lld to %10llu %10lld %.*s\n", 1ll << i, (2ull << i) - 1, (long long)a->bucket[i],
                   (int)(40 * a->bucket[i] / largest), "########################################");
}

/* The beginning of a document from the middle of the first shard. */
static void print_sample(const audit *a)
{
    const manifest *m = &a->set->manifest;
    moai_error err;
    uint64_t offsets[2];
    int32_t ids[64];
    shard *s = m->n_splits > 0 && m->splits[0].n > 0 ? shard_open(m->splits[0].list[0].path, &err) : NULL;
    int64_t d = s ? shard_documents(s) / 2 : 0;

    if (s && shard_documents(s) > 0 && shard_read_documents(s, d, 2, offsets, &err) == 0 && offsets[1] > offsets[0]) {
        int64_t n = min_i64(64, (int64_t)(offsets[1] - offsets[0]));
        if (shard_read(s, (int64_t)offsets[0], n, ids, &err) == 0) {
            printf("document %lld of %s begins:\n", (long long)d, m->splits[0].list[0].path);
            print_text(a->set, ids, n);
        }
    }
    shard_free(s);
}

static int32_t unknown_of(const shard_set *set)
{
    const int32_t unknown = set->tokenizer ? tokenizer_unknown(set->tokenizer) : -1;
    return unknown == set->manifest.info.eos ? -1 : unknown;
}

/* No fault of the files, but text that is lost. */
static void print_unknown(const audit *a)
{
    if (a->n_unknown == 0) return;
    const double share = (double)a->n_unknown / (double)a->n_tokens;
    printf("unknown tokens (<unk>, id %d): %lld, %.4g %%; the first is token %lld of %s\n", a->unknown,
           (long long)a->n_unknown, 100 * share, (long long)a->first_unknown, a->unknown_in);
    if (share > UNKNOWN_SHARE)
        warn("%.2f %% of the tokens are <unk>: the tokenizer has no piece for what stood there, and it is lost",
             100 * share);
}

int64_t shards_audit(const char *path, moai_error *err)
{
    shard_set set;
    audit a = {.set = &set};

    if (set_open(&set, path, err) != 0) return -1;
    a.unknown = unknown_of(&set);
    print_header(&set);
    if (!set.alone && manifest_check(path, err) != 0) fault_text(&a, err);
    audit_tokenizer(&a);
    for (int i = 0; i < set.manifest.n_splits; i++)
        for (int k = 0; k < set.manifest.splits[i].n; k++) audit_shard(&a, &set.manifest.splits[i].list[k]);
    print_histogram(&a);
    print_sample(&a);
    print_unknown(&a);
    printf("%lld tokens", (long long)a.n_tokens);
    if (set.manifest.info.is_marked) printf(", %lld of them trained,", (long long)a.n_counted);
    printf(" in %lld documents: %lld fault%s\n", (long long)a.n_documents, (long long)a.n_faults,
           a.n_faults == 1 ? "" : "s");
    set_close(&set);
    return a.n_faults;
}

/* Calls `use` with every pair of neighbours in a split, across shards. */
static int each_pair(const struct manifest_split *split, int64_t vocab_size, void (*use)(void *, int32_t, int32_t),
                     void *arg, moai_error *err)
{
    int32_t *ids = xmalloc(WINDOW * sizeof *ids), last = -1;
    int status = 0;

    for (int k = 0; status == 0 && k < split->n; k++) {
        shard *s = shard_open(split->list[k].path, err);
        if (!s) status = -1;
        for (int64_t begin = 0; status == 0 && begin < shard_tokens(s); begin += WINDOW) {
            int64_t n = min_i64(WINDOW, shard_tokens(s) - begin);
            status = shard_read(s, begin, n, ids, err);
            for (int64_t i = 0; status == 0 && i < n; i++) {
                if ((uint32_t)ids[i] >= vocab_size)
                    status = error_set(err, "%s: token %lld is id %u, not below vocab_size %lld", split->list[k].path,
                                       (long long)(begin + i), (uint32_t)ids[i], (long long)vocab_size);
                else if (last >= 0)
                    use(arg, last, ids[i]);
                last = ids[i];
            }
        }
        shard_free(s);
    }
    free(ids);
    return status;
}

typedef struct pair_loss {
    const bigram *model;
    double sum;
    int64_t n;
} pair_loss;

static void add_pair(void *model, int32_t a, int32_t b) { bigram_add(model, a, b); }

static void add_loss(void *arg, int32_t a, int32_t b)
{
    pair_loss *l = arg;

    l->sum -= log(bigram_probability(l->model, a, b));
    l->n++;
}

int shards_bigram(const char *manifest_path, double *loss, int64_t *n_train, int64_t *n_validation, int64_t *n_pairs,
                  moai_error *err)
{
    manifest m;

    if (manifest_read(&m, manifest_path, err) != 0) return -1;
    const struct manifest_split *train = manifest_split(&m, "train"), *validation = manifest_split(&m, "validation");
    bigram *model = bigram_new(m.info.vocab_size);
    pair_loss l = {.model = model};
    int status = 0;
    if (!train || !validation || train->tokens < 2 || validation->tokens < 2)
        status = error_set(err, "%s: a bigram needs tokens in the splits `train` and `validation`", manifest_path);
    if (status == 0) status = each_pair(train, m.info.vocab_size, add_pair, model, err);
    if (status == 0) {
        bigram_fit(model);
        status = each_pair(validation, m.info.vocab_size, add_loss, &l, err);
    }
    if (status == 0) {
        *loss = l.sum / (double)l.n;
        *n_train = train->tokens;
        *n_validation = l.n;
        *n_pairs = bigram_kinds(model);
    }
    bigram_free(model);
    manifest_free(&m);
    return status;
}
