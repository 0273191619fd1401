/* bpe_file.c: see bpe_file.h */
#include "io/text/bpe_file.h"

#include "src/base/files.h"
#include "src/json/json_scan.h"

#include <stdlib.h>
#include <string.h>

typedef struct reading {
    bpe_file *file;
    const char *path;
    moai_error *err;
    json_int_t most_ids;                      /* what is read for a token takes a byte at least */
} reading;

__attribute__((format(printf, 2, 3))) static int refuse(const reading *r, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return error_config(r->err, "%s: %s", r->path, text);
}

static const char *type_of(const json_t *o)
{
    const char *type = json_string_value(json_object_get(o, "type"));
    return type ? type : "";
}

static bool is(const json_t *o, const char *type) { return strcmp(type_of(o), type) == 0; }

/* -- bytes as characters: those of Latin-1 that can be seen are themselves, the others U+0100 and on, in order -- */

static bool is_itself(int byte) { return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174; }

/* The byte that a character stands for, or -1. */
static int byte_of(int character)
{
    if (character < 256) return is_itself(character) ? character : -1;
    for (int byte = 0, n = 256; byte < 256; byte++)
        if (!is_itself(byte) && n++ == character) return byte;
    return -1;
}

/* In place; the bytes, or -1 where a character stands for none. */
static int64_t to_bytes(char *text)
{
    static int8_t ready;
    static int16_t table[0x200];
    unsigned char *p = (unsigned char *)text, *to = p;

    if (!ready) {
        for (int c = 0; c < 0x200; c++) table[c] = (int16_t)byte_of(c);
        ready = 1;
    }
    for (; *p; p++) {
        int c = *p;
        if (c >= 0xC0 && c < 0xE0) c = (c & 31) << 6 | (*++p & 63);
        if (c >= 0x200 || table[c] < 0) return -1;
        *to++ = (unsigned char)table[c];
    }
    return to - (unsigned char *)text;
}

/* -- the model -- */

static int read_vocab(const reading *r, json_t *vocab)
{
    const char *key;
    json_t *value;

    if (!json_is_object(vocab) || json_object_size(vocab) == 0) return refuse(r, "model.vocab is no list of tokens");
    json_object_foreach(vocab, key, value)
    {
        const json_int_t id = json_integer_value(value);
        char *bytes = xstrdup(key);
        const int64_t n = to_bytes(bytes);
        const bool fine = json_is_integer(value) && id >= 0 && id < r->most_ids && n > 0;
        const bool is_new = fine && bpe_add(r->file->model, (int32_t)id, bytes, (size_t)n);
        free(bytes);
        if (n < 0) return refuse(r, "token \"%s\" is not written as bytes: this is not a byte-level vocabulary", key);
        if (!is_new)
            return refuse(r, "token \"%s\" has the id %lld, which is no number of its own below the file's %lld bytes",
                          key, (long long)id, (long long)r->most_ids);
    }
    return 0;
}

static int32_t find_part(const bpe *b, const char *text, size_t n)
{
    char *bytes = xasprintf("%.*s", (int)n, text);
    const int64_t n_bytes = to_bytes(bytes);
    const int32_t id = n_bytes > 0 ? bpe_find(b, bytes, (size_t)n_bytes) : -1;

    free(bytes);
    return id;
}

/* "a b", or ["a", "b"] */
static int read_merge(const reading *r, const json_t *merge, size_t number)
{
    bpe *b = r->file->model;
    const char *left = json_string_value(json_is_array(merge) ? json_array_get(merge, 0) : merge),
               *right = json_is_array(merge) ? json_string_value(json_array_get(merge, 1)) : NULL;
    size_t n_left = left ? strlen(left) : 0;

    if (left && !right && (right = strchr(left, ' ')) != NULL) n_left = (size_t)(right++ - left);
    if (!left || !right) return refuse(r, "model.merges: number %zu is no pair of tokens", number);
    const int32_t a = find_part(b, left, n_left), c = find_part(b, right, strlen(right));
    char *both = xasprintf("%.*s%s", (int)n_left, left, right);
    const int32_t whole = find_part(b, both, strlen(both));
    free(both);
    if (a < 0 || c < 0 || whole < 0)
        return refuse(r, "model.merges: number %zu, \"%.*s\" and \"%s\", are not all tokens, with what they make",
                      number, (int)n_left, left, right);
    bpe_add_pair(b, a, c, whole);
    return 0;
}

/* What changes tokens and is not implemented; NULL: none. */
static const char *unknown_setting(const json_t *model)
{
    static const char *const empty[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};

    for (int i = 0; i < 3; i++) {
        const json_t *v = json_object_get(model, empty[i]);
        const bool is_zero = json_is_number(v) && json_number_value(v) == 0,
                   is_empty = json_is_string(v) && !*json_string_value(v);
        if (v && !json_is_null(v) && !is_zero && !is_empty) return empty[i];
    }
    return json_is_true(json_object_get(model, "byte_fallback")) ? "byte_fallback" : NULL;
}

static int read_model(const reading *r, const json_t *model)
{
    const json_t *merges = json_object_get(model, "merges");
    const char *setting = unknown_setting(model);
    json_t *merge;
    size_t i;

    if (!is(model, "BPE") && !(*type_of(model) == 0 && json_is_array(merges)))
        return refuse(r, "a model of type \"%s\"; byte-level BPE is read", type_of(model));
    if (setting) return refuse(r, "model.%s is set: byte-level BPE without it is read", setting);
    if (!json_is_array(merges)) return refuse(r, "model.merges is no list");
    r->file->ignores_merges = json_is_true(json_object_get(model, "ignore_merges"));
    if (read_vocab(r, json_object_get(model, "vocab"))) return -1;
    json_array_foreach(merges, i, merge) if (read_merge(r, merge, i)) return -1;
    const int missing = bpe_seal(r->file->model);
    return missing < 0 ? 0 : refuse(r, "no token stands for the byte 0x%02x alone", missing);
}

/* -- before the model -- */

static int read_normalizer(const reading *r, const json_t *o)
{
    const json_t *list = json_object_get(o, "normalizers");

    if (!o || json_is_null(o)) return 0;
    if (is(o, "Sequence")) {
        for (size_t i = 0; i < json_array_size(list); i++)
            if (read_normalizer(r, json_array_get(list, i))) return -1;
        return 0;
    }
    if (!is(o, "NFC")) return refuse(r, "a normalizer of type \"%s\"; NFC is supported, or none", type_of(o));
    r->file->is_nfc = true;
    return 0;
}

static int add_split(const reading *r, const char *pattern, bool is_literal)
{
    bpe_file *f = r->file;
    moai_error why;

    if (f->n_splits == MOST_SPLITS) return refuse(r, "pre_tokenizer: more than %d splits", MOST_SPLITS);
    f->splits[f->n_splits] = split_pattern_new(pattern, is_literal, &why);
    if (!f->splits[f->n_splits]) return refuse(r, "pre_tokenizer: %s", why.text);
    f->n_splits++;
    return 0;
}

static int read_split(const reading *r, const json_t *o)
{
    const json_t *pattern = json_object_get(o, "pattern");
    const char *behavior = json_string_value(json_object_get(o, "behavior")),
               *regex = json_string_value(json_object_get(pattern, "Regex")),
               *literal = json_string_value(json_object_get(pattern, "String"));

    if (!behavior || strcmp(behavior, "Isolated"))
        return refuse(r, "pre_tokenizer: a split of behavior \"%s\"; Isolated is supported", behavior ? behavior : "");
    if (json_is_true(json_object_get(o, "invert")) && regex)
        return refuse(r, "pre_tokenizer: a split that is inverted is not supported");
    if (!regex && !literal) return refuse(r, "pre_tokenizer: a split without a pattern");
    return add_split(r, regex ? regex : literal, !regex);
}

static int read_byte_level(const reading *r, const json_t *o)
{
    static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

    r->file->adds_space = json_is_true(json_object_get(o, "add_prefix_space"));
    if (r->file->adds_space && r->file->n_splits > 0)
        return refuse(r, "pre_tokenizer: add_prefix_space after a split is not supported");
    return json_is_false(json_object_get(o, "use_regex")) ? 0 : add_split(r, gpt2, false);
}

/* *is_bytes: it ends with bytes made characters, as the vocabulary has them. */
static int read_pre_tokenizer(const reading *r, const json_t *o, bool *is_bytes)
{
    const json_t *list = json_object_get(o, "pretokenizers");

    if (*is_bytes) return refuse(r, "pre_tokenizer: \"%s\" after ByteLevel is not supported", type_of(o));
    if (is(o, "Split")) return read_split(r, o);
    if (is(o, "ByteLevel")) {
        *is_bytes = true;
        return read_byte_level(r, o);
    }
    if (!is(o, "Sequence"))
        return refuse(r, "a pre_tokenizer of type \"%s\"; Split and ByteLevel are supported", type_of(o));
    for (size_t i = 0; i < json_array_size(list); i++)
        if (read_pre_tokenizer(r, json_array_get(list, i), is_bytes)) return -1;
    return 0;
}

static int read_ends(const reading *r, const json_t *root)
{
    const json_t *decoder = json_object_get(root, "decoder"), *pre = json_object_get(root, "pre_tokenizer");
    bool is_bytes = false;

    if (!pre || json_is_null(pre)) return refuse(r, "no pre_tokenizer; that of byte-level BPE is ByteLevel");
    if (read_pre_tokenizer(r, pre, &is_bytes)) return -1;
    if (!is_bytes) return refuse(r, "a pre_tokenizer without ByteLevel: this is not byte-level BPE");
    return is(decoder, "ByteLevel") ? 0 : refuse(r, "a decoder of type \"%s\", not ByteLevel", type_of(decoder));
}

/* -- added tokens -- */

static int read_added(const reading *r, const json_t *o)
{
    static const char *const strange[] = {"single_word", "lstrip", "rstrip"};
    bpe_file *f = r->file;
    const char *content = json_string_value(json_object_get(o, "content"));
    const json_int_t id = json_integer_value(json_object_get(o, "id"));

    if (!content || !*content || !json_is_integer(json_object_get(o, "id")) || id < 0 || id >= r->most_ids)
        return refuse(r, "added_tokens: one without a content or an id");
    for (int i = 0; i < 3; i++)
        if (json_is_true(json_object_get(o, strange[i])))
            return refuse(r, "added_tokens: %s of \"%s\" is not supported", strange[i], content);
    const size_t n = strlen(content);
    const bool is_there = id < bpe_n_tokens(f->model) && bpe_token_of(f->model, (int32_t)id)->is_there;
    const bpe_token *t = is_there ? bpe_token_of(f->model, (int32_t)id) : NULL;
    if (is_there ? t->n_bytes != n || memcmp(t->bytes, content, n) : !bpe_add(f->model, (int32_t)id, content, n))
        return refuse(r, "added_tokens: \"%s\" and another token are both %lld, or one text has two ids", content,
                      (long long)id);
    bpe_token *added = bpe_token_of(f->model, (int32_t)id);
    added->is_added = true;
    added->is_special = json_is_true(json_object_get(o, "special"));
    if (json_is_true(json_object_get(o, "normalized")) && f->is_nfc)
        f->normalized[f->n_normalized++] = (int32_t)id;
    else
        f->raw[f->n_raw++] = (int32_t)id;
    return 0;
}

static int read_all_added(const reading *r, const json_t *list)
{
    const size_t n = json_array_size(list);

    r->file->raw = xmalloc(n * sizeof(int32_t));
    r->file->normalized = xmalloc(n * sizeof(int32_t));
    for (size_t i = 0; i < n; i++)
        if (read_added(r, json_array_get(list, i))) return -1;
    return 0;
}

/* -- ends of texts, from the files beside it -- */

static json_t *read_beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    char *beside = xasprintf("%.*s%s", slash ? (int)(slash + 1 - path) : 0, path, name);
    size_t n;
    moai_error ignored;
    char *text = file_exists(beside) ? json_file_read(beside, &n, &ignored) : NULL;
    json_t *o = text ? json_loadb(text, n, 0, NULL) : NULL;

    free(text);
    free(beside);
    return o;
}

/* "eos_token": "<|im_end|>", or an object with this as its content. */
static int32_t named_token(const bpe *b, const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    const char *text = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);

    return text ? bpe_find(b, text, strlen(text)) : -1;
}

/* "eos_token_id": a number, or a list of which the first. */
static int32_t numbered_token(const bpe *b, const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key), *first = json_is_array(v) ? json_array_get(v, 0) : v;
    const json_int_t id = json_is_integer(first) ? json_integer_value(first) : -1;

    return id >= 0 && id < bpe_n_tokens(b) && bpe_token_of(b, (int32_t)id)->is_there ? (int32_t)id : -1;
}

static void find_ends(bpe_file *f, const char *path)
{
    static const char *const configs[] = {"generation_config.json", "config.json"};
    static const char usual[] = "<|endoftext|>";
    json_t *own = read_beside(path, "tokenizer_config.json");

    f->eos = named_token(f->model, own, "eos_token");
    f->pad = named_token(f->model, own, "pad_token");
    json_decref(own);
    for (int i = 0; i < 2 && f->eos < 0; i++) {
        json_t *config = read_beside(path, configs[i]);
        f->eos = numbered_token(f->model, config, "eos_token_id");
        if (f->pad < 0) f->pad = numbered_token(f->model, config, "pad_token_id");
        json_decref(config);
    }
    if (f->eos < 0) f->eos = bpe_find(f->model, usual, strlen(usual));
}

int bpe_file_read(bpe_file *f, const char *path, moai_error *err)
{
    size_t n;

    *f = (bpe_file){.model = bpe_new(), .eos = -1, .pad = -1};
    char *text = json_file_read(path, &n, err);
    if (!text) return -1;
    const reading r = {f, path, err, min_i64((int64_t)n, INT32_MAX / 2)};
    json_error_t fault;
    json_t *root = json_loadb(text, n, 0, &fault);
    free(text);
    if (!root) return refuse(&r, "line %d: %s", fault.line, fault.text);
    int status = read_model(&r, json_object_get(root, "model"));
    if (!status) status = read_normalizer(&r, json_object_get(root, "normalizer"));
    if (!status) status = read_ends(&r, root);
    if (!status) status = read_all_added(&r, json_object_get(root, "added_tokens"));
    json_decref(root);
    if (!status) find_ends(f, path);
    return status;
}

void bpe_file_free(bpe_file *f)
{
    bpe_free(f->model);
    for (int i = 0; i < f->n_splits; i++) split_pattern_free(f->splits[i]);
    free(f->raw);
    free(f->normalized);
    *f = (bpe_file){0};
}
