/* carry.c: see carry.h */
#include "src/train/carry.h"

#include "io/file/hash.h"
#include "io/hf/hf.h"
#include "io/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Some pieces may have been renamed since: another tokenizer has hardly any in common. */
static bool is_other(const token_difference *d) { return d->n_different > d->n_both / 2; }

/* Two of tokenizer.json: whether an id stands for the same in both. */
static int compare_files(token_difference *d, const char *name, const tokenizer *t, moai_error *err)
{
    tokenizer *other = tokenizer_open(name, err);

    if (!other) return -1;
    d->n_both = tokenizer_vocab_size(t);
    for (int32_t id = 0; id < d->n_both; id++) {
        size_t n, n_other;
        const char *bytes = tokenizer_bytes(t, id, &n), *others = tokenizer_bytes(other, id, &n_other);
        if (n == n_other && memcmp(bytes, others, n) == 0) continue;
        if (d->n_different++ == 0)
            snprintf(d->first, sizeof d->first, "%d is \"%.*s\" there and \"%.*s\" here", id,
                     (int)min_i64(60, (int64_t)n_other), others, (int)min_i64(60, (int64_t)n), bytes);
    }
    tokenizer_free(other);
    return 0;
}

static int check_tokens(const struct checkpoint_file *json, const char *name, const char *path, const char *sha256,
                        moai_error *err)
{
    tokenizer *t = path ? tokenizer_open(path, err) : NULL;
    token_difference d = {0};
    char hex[65];

    if (path && !t) return -1;
    bytes_sha256(json->data, json->n_bytes, hex);
    int rc = 0;
    if (t && tokenizer_is_json(t))
        rc = compare_files(&d, name, t, err);
    else if (t)
        rc = hf_compare_tokens(&d, name, json->data, json->n_bytes, t, err);
    if (rc == 0 && is_other(&d))
        rc = error_config(err,
                          "%s is another tokenizer than %s, with which the shards were made: of %lld "
                          "tokens %lld differ, %s.  Imported weights know only their own; to train them on others, "
                          "import them without their tokenizer",
                          name, path, (long long)d.n_both, (long long)d.n_different, d.first);
    if (rc == 0 && d.n_both == 0 && strcmp(hex, sha256) != 0)
        warn("%s goes into each checkpoint; whether the shards have its tokens is not known (they were "
             "made with tokenizer %.12s..., it is %.12s...)", name, sha256, hex);
    if (t) tokenizer_free(t);
    return rc;
}

int carry_files(checkpoint_files *f, resume_point *from, const char *model_path, const char *sha256, moai_error *err)
{
    checkpoint_files_move(f, &from->files);
    const struct checkpoint_file *json = checkpoint_files_find(f, "tokenizer.json");
    if (!json || from->meta.samples > 0 || from->meta.tokenizer_sha256[0]) return 0;
    char *name = xasprintf("%s/tokenizer.json", from->dir);
    const int rc = check_tokens(json, name, model_path, sha256, err);
    free(name);
    return rc;
}
