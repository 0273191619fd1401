/* tokenizer_byte_level.c: tokenizer.json of the byte-level byte-pair kind (bpe_file.h) as a tokenizer.
 *
 * A text is cut at its added tokens, brought into form C, cut at those that are looked for then, and by the patterns
 * into words; each word is merged by itself, and since most were met before, a table of recent ones answers. */
#include "io/text/bpe_file.h"
#include "io/text/nfc.h"
#include "io/text/recent_units.h"
#include "io/text/tokenizer_kind.h"
#include "src/base/utf8.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Added tokens to look for: the longest that begins at a place, of the first place where one does. */
typedef struct finder {
    int32_t *ids; /* by falling length */
    int n;
    bool begins[256]; /* some token does, with this byte */
    int only;         /* the byte with which all do, or -1 */
} finder;

typedef struct room {
    struct room *next;
    split_room *splits;
    recent_unit *recent;
    int32_t *ids; /* of a word that is not recent */
    size_t n_ids;
} room;

typedef struct byte_level {
    bpe_file file;
    finder raw[2], normalized[2]; /* of all, and without the special ones */
    pthread_mutex_t lock;
    room *idle; /* one is taken for each call */
} byte_level;

typedef struct work {
    const byte_level *model;
    room *room;
    token_row out;
    bool special;
    moai_error *err;
} work;

/* -- added tokens -- */

static finder finder_make(const bpe *b, const int32_t *ids, int n, bool special)
{
    finder f = {.ids = xmalloc((size_t)n * sizeof *f.ids), .only = -1};
    int n_first = 0;

    for (int i = 0; i < n; i++) {
        const bpe_token *t = bpe_token_of(b, ids[i]);
        int at = f.n;
        if (t->is_special && !special) continue;
        for (; at > 0 && bpe_token_of(b, f.ids[at - 1])->n_bytes < t->n_bytes; at--) f.ids[at] = f.ids[at - 1];
        f.ids[at] = ids[i];
        f.n++;
        f.only = (unsigned char)t->bytes[0];
        n_first += !f.begins[f.only];
        f.begins[f.only] = true;
    }
    if (n_first != 1) f.only = -1;
    return f;
}

/* The first token of the text from `at` on, and where it begins; NULL: none. */
static const bpe_token *find_added(const bpe *b, const finder *f, const char *text, size_t n_bytes, size_t *at,
                                   int32_t *id)
{
    for (; f->n && *at < n_bytes; ++*at) {
        if (f->only >= 0) {
            const char *next = memchr(text + *at, f->only, n_bytes - *at);
            if (!next) return NULL;
            *at = (size_t)(next - text);
        } else if (!f->begins[(unsigned char)text[*at]]) {
            continue;
        }
        for (int i = 0; i < f->n; i++) {
            const bpe_token *t = bpe_token_of(b, f->ids[i]);
            *id = f->ids[i];
            if (t->n_bytes <= n_bytes - *at && memcmp(t->bytes, text + *at, t->n_bytes) == 0) return t;
        }
    }
    return NULL;
}

/* Calls `use` for what stands between added tokens, and adds these. */
static int cut_at_added(const work *w, const finder *f, const char *text, size_t n_bytes,
                        int (*use)(const work *, const char *, size_t))
{
    size_t from = 0, at = 0;
    int32_t id;

    for (const bpe_token *t; (t = find_added(w->model->file.model, f, text, n_bytes, &at, &id));) {
        if (at > from && use(w, text + from, at - from) != 0) return -1;
        token_row_add(w->out, &id, 1);
        from = at += t->n_bytes;
    }
    return from < n_bytes ? use(w, text + from, n_bytes - from) : 0;
}

/* -- words -- */

/* A word without the table: its ids, valid until the next. */
static size_t encode_new(const work *w, const char *word, size_t n)
{
    const bpe_file *f = &w->model->file;
    room *r = w->room;
    const int32_t whole = f->ignores_merges ? bpe_find(f->model, word, n) : -1;

    if (n > r->n_ids) {
        free(r->ids);
        r->n_ids = n;
        r->ids = xmalloc(n * sizeof *r->ids);
    }
    if (whole < 0 || bpe_token_of(f->model, whole)->is_added) return bpe_encode(f->model, word, n, r->ids);
    r->ids[0] = whole;
    return 1;
}

static void add_word(const work *w, const char *word, size_t n)
{
    recent_unit *e = w->room->recent && n <= RECENT_BYTES ? recent_units_find(w->room->recent, word, n) : NULL;

    if (e && recent_unit_is(e, word, n)) {
        token_row_reserve(w->out, RECENT_IDS);
        memcpy(*w->out.ids + *w->out.n, e->ids, sizeof e->ids); /* all: one vector store; the rest is overwritten */
        *w->out.n += e->n_ids;
        return;
    }
    const size_t n_ids = encode_new(w, word, n);
    if (e) recent_unit_put(e, word, n, w->room->ids, n_ids);
    token_row_add(w->out, w->room->ids, (int64_t)n_ids);
}

/* A piece that the patterns before `level` have left. */
static int add_piece(const work *w, const char *text, size_t n_bytes, int level)
{
    const bpe_file *f = &w->model->file;
    size_t at = 0, begin, end;
    int found;

    if (level == f->n_splits) return add_word(w, text, n_bytes), 0;
    while (at < n_bytes &&
           (found = split_pattern_next(f->splits[level], w->room->splits, text, n_bytes, at, &begin, &end, w->err))) {
        if (found < 0) return -1;
        if (begin > at && add_piece(w, text + at, begin - at, level + 1) != 0) return -1;
        if (add_piece(w, text + begin, end - begin, level + 1) != 0) return -1;
        at = end;
    }
    return at < n_bytes ? add_piece(w, text + at, n_bytes - at, level + 1) : 0;
}

static bool begins_with_space(const char *text, size_t n)
{
    static const char *const spaces[] = {
        " ",        "\t",           "\n",           "\v",           "\f",           "\r",           "\xC2\x85",
        "\xC2\xA0", "\xE1\x9A\x80", "\xE2\x80\xA8", "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};

    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (n >= strlen(spaces[i]) && memcmp(text, spaces[i], strlen(spaces[i])) == 0) return true;
    return n >= 3 && memcmp(text, "\xE2\x80", 2) == 0 && (unsigned char)text[2] <= 0x8A;
}

static int add_plain(const work *w, const char *text, size_t n_bytes)
{
    if (!w->model->file.adds_space || begins_with_space(text, n_bytes)) return add_piece(w, text, n_bytes, 0);
    char *spaced = xasprintf(" %.*s", (int)n_bytes, text);
    const int status = add_piece(w, spaced, n_bytes + 1, 0);
    free(spaced);
    return status;
}

static int add_normal(const work *w, const char *text, size_t n_bytes)
{
    return cut_at_added(w, &w->model->normalized[!w->special], text, n_bytes, add_plain);
}

static int add_raw(const work *w, const char *text, size_t n_bytes)
{
    char *normal;
    size_t n;

    if (!w->model->file.is_nfc || nfc_is_plain(text, n_bytes)) return add_normal(w, text, n_bytes);
    if (nfc_normalize(text, n_bytes, &normal, &n, w->err) != 0) return -1;
    const int status = add_normal(w, normal, n);
    free(normal);
    return status;
}

/* -- the kind's functions -- */

static room *room_new(bool remembers)
{
    room *r = xmalloc(sizeof *r);

    *r = (room){.splits = split_room_new(), .recent = remembers ? recent_units_new() : NULL};
    return r;
}

static void room_free(room *r)
{
    split_room_free(r->splits);
    free(r->recent);
    free(r->ids);
    free(r);
}

static int encode(const void *model, const char *text, size_t n_bytes, bool special, token_row out, moai_error *err)
{
    byte_level *m = (byte_level *)model;

    pthread_mutex_lock(&m->lock);
    room *r = m->idle;
    if (r) m->idle = r->next;
    pthread_mutex_unlock(&m->lock);
    if (!r) r = room_new(true);
    const work w = {m, r, out, special, err};
    const int status = cut_at_added(&w, &m->raw[!special], text, n_bytes, add_raw);
    pthread_mutex_lock(&m->lock);
    r->next = m->idle;
    m->idle = r;
    pthread_mutex_unlock(&m->lock);
    return status;
}

static int encode_plain(const void *model, const char *text, size_t n_bytes, token_row out, moai_error *err)
{
    room *r = room_new(false);
    const work w = {model, r, out, false, err};
    const int status = cut_at_added(&w, &w.model->raw[1], text, n_bytes, add_raw);

    room_free(r);
    return status;
}

static const char *piece_of(const void *model, int32_t id, piece_kind *kind)
{
    const bpe_token *t = bpe_token_of(((const byte_level *)model)->file.model, id);

    *kind = t->is_special || !t->is_there ? PIECE_SPECIAL : PIECE_TEXT;
    return t->is_there ? t->bytes : "";
}

static const char *bytes_of(const void *model, int32_t id, size_t *n_bytes)
{
    const bpe_token *t = bpe_token_of(((const byte_level *)model)->file.model, id);

    *n_bytes = t->is_special ? 0 : t->n_bytes;
    return t->is_there ? t->bytes : "";
}

static int32_t id_of(const void *model, const char *piece)
{
    return bpe_find(((const byte_level *)model)->file.model, piece, strlen(piece));
}

static char *decode(const void *model, const int32_t *ids, int64_t n, size_t *n_bytes)
{
    static const char unknown[] = "\xEF\xBF\xBD";
    const bpe *b = ((const byte_level *)model)->file.model;
    size_t length = 0, n_token;
    char *text = NULL;

    for (int round = 0; round < 2; round++) { /* measured first */
        char *to = text;
        for (int64_t i = 0; i < n; i++) {
            const bool is_there = ids[i] >= 0 && ids[i] < bpe_n_tokens(b) && bpe_token_of(b, ids[i])->is_there;
            const char *bytes = is_there ? bytes_of(model, ids[i], &n_token) : (n_token = 3, unknown);
            if (to)
                to = (char *)memcpy(to, bytes, n_token) + n_token;
            else
                length += n_token;
        }
        if (!text) text = xmalloc(length + 1);
    }
    if (n_bytes) *n_bytes = length;
    return text;
}

static int normalize(const void *model, const char *text, size_t n_bytes, char **to, size_t *n_to, moai_error *err)
{
    if (((const byte_level *)model)->file.is_nfc) return nfc_normalize(text, n_bytes, to, n_to, err);
    *to = memcpy(xmalloc(n_bytes + 1), text, n_bytes);
    *n_to = n_bytes;
    return 0;
}

static void free_model(void *model)
{
    byte_level *m = model;

    for (room *r; (r = m->idle);) {
        m->idle = r->next;
        room_free(r);
    }
    for (int i = 0; i < 2; i++) free(m->raw[i].ids), free(m->normalized[i].ids);
    bpe_file_free(&m->file);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static void *open_model(const char *path, tokenizer_facts *facts, moai_error *err)
{
    byte_level *m = xmalloc(sizeof *m);

    pthread_mutex_init(&m->lock, NULL);
    if (bpe_file_read(&m->file, path, err) != 0) {
        free_model(m);
        return NULL;
    }
    const bpe_file *f = &m->file;
    for (int i = 0; i < 2; i++) {
        m->raw[i] = finder_make(f->model, f->raw, f->n_raw, i == 0);
        m->normalized[i] = finder_make(f->model, f->normalized, f->n_normalized, i == 0);
    }
    *facts = (tokenizer_facts){.vocab_size = bpe_n_tokens(f->model),
                               .eos = f->eos,
                               .pad = f->pad,
                               .unknown = -1,
                               .gives_back = !f->adds_space};
    return m;
}

const tokenizer_kind tokenizer_byte_level = {.open = open_model,
                                             .free = free_model,
                                             .encode = encode,
                                             .encode_plain = encode_plain,
                                             .decode = decode,
                                             .id = id_of,
                                             .piece = piece_of,
                                             .bytes = bytes_of,
                                             .normalize = normalize};
