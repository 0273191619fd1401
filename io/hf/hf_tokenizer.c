/* hf_tokenizer.c: a SentencePiece byte-pair model as tokenizer.json of huggingface/tokenizers, so that AutoTokenizer
 * needs neither SentencePiece nor protobuf; see hf.h.
 *
 * SentencePiece joins the two neighbours whose union is the piece of the lowest id; tokenizer.json wants the joins
 * themselves, in order: for each piece, every way to cut it into two pieces. */
#include "io/hf/hf.h"
#include "io/text/tokenizer.h"
#include "src/base/files.h"
#include "src/config/keys.h"
#include "src/json/json_scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Takes the reference. */
static int write_json(const char *dir, const char *name, json_t *root, moai_error *err)
{
    char *path = xasprintf("%s/%s", dir, name);
    int rc = json_write_file(root, path, err);

    json_decref(root);
    free(path);
    return rc;
}

typedef struct cut {
    int32_t left, right;
    size_t n_left;                            /* bytes */
} cut;

static int by_ids(const void *a, const void *b)
{
    const cut *x = a, *y = b;
    return x->left != y->left ? (x->left > y->left) - (x->left < y->left)
                              : (x->right > y->right) - (x->right < y->right);
}

static int32_t text_id(const tokenizer *t, const char *piece)
{
    piece_kind kind;
    const int32_t id = tokenizer_id(t, piece);

    return id >= 0 && tokenizer_piece(t, id, &kind) && kind == PIECE_TEXT ? id : -1;
}

static void add_merges(json_t *merges, const tokenizer *t, const char *piece)
{
    const size_t n = strlen(piece);
    char *left = xstrdup(piece);
    cut *cuts = xmalloc((n + 1) * sizeof *cuts);
    int n_cuts = 0;

    for (size_t i = 1; i < n; i++) {
        if ((piece[i] & 0xC0) == 0x80) continue;                   /* inside a character */
        left[i] = 0;
        const cut c = {text_id(t, left), text_id(t, piece + i), i};
        left[i] = piece[i];
        if (c.left >= 0 && c.right >= 0) cuts[n_cuts++] = c;
    }
    qsort(cuts, (size_t)n_cuts, sizeof *cuts, by_ids);
    for (int i = 0; i < n_cuts; i++)
        json_array_append_new(merges, json_sprintf("%.*s %s", (int)cuts[i].n_left, piece, piece + cuts[i].n_left));
    free(cuts);
    free(left);
}

static json_t *model_json(const tokenizer *t)
{
    json_t *vocab = json_object(), *merges = json_array();
    const char *unknown = "<unk>";

    for (int32_t id = 0; id < tokenizer_vocab_size(t); id++) {
        piece_kind kind;
        const char *piece = tokenizer_piece(t, id, &kind);
        json_object_set_new(vocab, piece, json_integer(id));
        if (kind == PIECE_TEXT) add_merges(merges, t, piece);
    }
    return json_pack("{s:s, s:n, s:s, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token",
                     unknown, "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 1, "byte_fallback", 1,
                     "ignore_merges", 0, "vocab", vocab, "merges", merges);
}

static json_t *special_json(const tokenizer *t)
{
    json_t *list = json_array();

    for (int32_t id = 0; id < tokenizer_vocab_size(t); id++) {
        piece_kind kind;
        const char *piece = tokenizer_piece(t, id, &kind);
        if (kind != PIECE_SPECIAL) continue;
        json_array_append_new(list,
                              json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)id, "content", piece,
                                        "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1));
    }
    return list;
}

static json_t *replace_json(const char *from, const char *to)
{
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", from, "content", to);
}

static json_t *tokenizer_json(const tokenizer *t)
{
    static const char space[] = "\xE2\x96\x81";                    /* U+2581 */
    json_t *decoder = json_pack("{s:s, s:[o, {s:s}, {s:s}]}", "type", "Sequence", "decoders", replace_json(space, " "),
                                "type", "ByteFallback", "type", "Fuse");

    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:n, s:n, s:o, s:o}", "version", "1.0", "truncation", "padding",
                     "added_tokens", special_json(t), "normalizer", replace_json(" ", space), "pre_tokenizer",
                     "post_processor", "decoder", decoder, "model", model_json(t));
}

static void set_piece(json_t *o, const char *key, const tokenizer *t, int32_t id)
{
    piece_kind kind;

    json_object_set_new(o, key, id >= 0 ? json_string(tokenizer_piece(t, id, &kind)) : json_null());
}

static json_t *settings_json(const tokenizer *t, const model_config *cfg)
{
    json_t *o =
        json_pack("{s:s, s:b, s:I}", "tokenizer_class", "PreTrainedTokenizerFast", "clean_up_tokenization_spaces", 0,
                  "model_max_length", (json_int_t)cfg->max_position_embeddings);

    json_object_set_new(o, "bos_token", json_null());
    set_piece(o, "eos_token", t, tokenizer_eos(t));
    set_piece(o, "pad_token", t, tokenizer_pad(t));
    set_piece(o, "unk_token", t, tokenizer_id(t, "<unk>"));
    return o;
}

int hf_write_tokenizer(const char *dir, const char *model_path, const model_config *cfg, moai_error *err)
{
    char *copy = xasprintf("%s/tokenizer.model", dir);
    tokenizer *t = tokenizer_open(model_path, err);
    int rc = t ? file_copy(model_path, copy, err) : -1;

    if (rc == 0 && tokenizer_is_byte_pair(t)) {
        rc = write_json(dir, "tokenizer.json", tokenizer_json(t), err);
        if (rc == 0) rc = write_json(dir, "tokenizer_config.json", settings_json(t, cfg), err);
    } else if (rc == 0)
        warn("%s: not a byte-pair model of moai_tokenize: no tokenizer.json is written for it", model_path);
    tokenizer_free(t);
    free(copy);
    return rc;
}

/* -- tokenizer.json read -- */

/* Pieces by id, of those below n; owned by the caller. */
static void put_piece(char **pieces, int64_t n, int64_t id, const char *piece)
{
    if (id < 0 || id >= n || !piece) return;
    free(pieces[id]);
    pieces[id] = xstrdup(piece);
}

/* {"piece": id, ...}, or [["piece", score], ...] of a unigram model */
static int read_vocab(char **pieces, int64_t n, const char *name, const json_member *vocab, moai_error *err)
{
    json_members m = {0};
    int rc = 0;

    if (*vocab->text == '{') {
        rc = json_members_scan(&m, name, vocab->text, vocab->n_bytes, err);
        for (size_t i = 0; rc == 0 && i < m.n; i++) put_piece(pieces, n, atoll(m.list[i].text), m.list[i].key);
        json_members_free(&m);
        return rc;
    }
    json_t *list = json_member_value(vocab), *pair;
    size_t id;
    json_array_foreach(list, id, pair) put_piece(pieces, n, (int64_t)id, json_string_value(json_array_get(pair, 0)));
    json_decref(list);
    return rc;
}

static void read_added(char **pieces, int64_t n, const json_member *added)
{
    json_t *list = added ? json_member_value(added) : NULL, *one;
    size_t i;

    json_array_foreach(list, i, one) {
        const json_t *id = json_object_get(one, "id");
        if (json_is_integer(id))
            put_piece(pieces, n, json_integer_value(id), json_string_value(json_object_get(one, "content")));
    }
    json_decref(list);
}

static int read_pieces(char **pieces, int64_t n, const char *name, const char *text, size_t n_bytes, moai_error *err)
{
    const json_member *model = NULL, *vocab = NULL, *added = NULL;
    json_members root = {0}, m = {0};
    int rc = json_members_scan(&root, name, text, n_bytes, err);

    if (rc == 0) rc = json_members_find(&root, "model", &model, err);
    if (rc == 0) rc = json_members_find(&root, "added_tokens", &added, err);
    if (rc == 0 && model && *model->text == '{')
        rc = json_members_scan(&m, name, model->text, model->n_bytes, err);
    if (rc == 0) rc = json_members_find(&m, "vocab", &vocab, err);
    if (rc == 0 && vocab) rc = read_vocab(pieces, n, name, vocab, err);
    if (rc == 0) read_added(pieces, n, added);
    json_members_free(&m);
    json_members_free(&root);
    return rc;
}

int hf_compare_tokens(token_difference *d, const char *name, const char *text, size_t n_bytes, const tokenizer *t,
                      moai_error *err)
{
    const int64_t n = tokenizer_vocab_size(t);
    char **pieces = xmalloc((size_t)n * sizeof *pieces);
    const int rc = read_pieces(pieces, n, name, text, n_bytes, err);

    *d = (token_difference){0};
    for (int64_t id = 0; id < n; id++) {
        piece_kind kind;
        const char *piece = tokenizer_piece(t, (int32_t)id, &kind);
        if (rc != 0 || !pieces[id] || kind != PIECE_TEXT) continue;          /* others are alike everywhere */
        d->n_both++;
        if (strcmp(pieces[id], piece) == 0) continue;
        if (d->n_different++ == 0)
            snprintf(d->first, sizeof d->first, "%lld is \"%.60s\" there and \"%.60s\" here", (long long)id, pieces[id],
                     piece);
    }
    for (int64_t id = 0; id < n; id++) free(pieces[id]);
    free(pieces);
    return rc;
}
