/* manifest.c: see shard.h.  A manifest is checked whole when it is read: what later code uses is there and sane. */
#include "io/data/shard.h"
#include "src/base/dir_lock.h"
#include "src/base/files.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char manifest_format[] = "moai-manifest";
enum { MANIFEST_VERSION = 1, MANIFEST_MARKED = 2 };

void manifest_let_go(manifest *m)
{
    if (m->held) fclose(m->held);
    m->held = NULL;
}

void manifest_free(manifest *m)
{
    for (int i = 0; i < m->n_splits; i++) {
        for (int k = 0; k < m->splits[i].n; k++) free(m->splits[i].list[k].path);
        free(m->splits[i].list);
        free(m->splits[i].name);
    }
    manifest_let_go(m);
    free(m->splits);
    free(m->dir);
    free(m->tokenizer);
    *m = (manifest){0};
}

const struct manifest_split *manifest_split(const manifest *m, const char *name)
{
    for (int i = 0; i < m->n_splits; i++)
        if (strcmp(m->splits[i].name, name) == 0) return &m->splits[i];
    return NULL;
}

static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? xasprintf("%.*s", (int)(slash - path + (slash == path)), path) : xstrdup(".");
}

/* An integer of [low, INT64_MAX] under `key`; `where` names the object in the message. */
static int get_int(json_t *object, const char *path, const char *where, const char *key, int64_t low, int64_t *value,
                   moai_error *err)
{
    json_t *v = json_object_get(object, key);

    if (!json_is_integer(v)) return error_set(err, "%s: %s`%s` is missing or not an integer", path, where, key);
    *value = json_integer_value(v);
    if (*value < low) return error_set(err, "%s: %s`%s` is %" PRId64, path, where, key, *value);
    return 0;
}

/* Text of at most room - 1 bytes under `key`. */
static int get_text(json_t *object, const char *path, const char *where, const char *key, char *value, size_t room,
                    moai_error *err)
{
    json_t *v = json_object_get(object, key);

    if (!json_is_string(v) || json_string_length(v) >= room)
        return error_set(err, "%s: %s`%s` is missing or not a text of at most %zu characters", path, where, key,
                         room - 1);
    memcpy(value, json_string_value(v), json_string_length(v) + 1);
    return 0;
}

/* A plain name under `key`, as a path into the manifest's directory.  Not one that leads out of it: what a data set
 * names is removed when another takes its place. */
static int get_file(json_t *object, const char *path, const char *where, const char *key, const char *dir, char **file,
                    moai_error *err)
{
    char name[256];

    if (get_text(object, path, where, key, name, sizeof name, err) != 0) return -1;
    if (!name[0] || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return error_set(err, "%s: %s`%s` is \"%s\": must be the plain name of a file beside the manifest", path, where,
                         key, name);
    *file = xasprintf("%s/%s", dir, name);
    return 0;
}

static int read_shard(manifest_shard *s, json_t *j, const manifest *m, const char *path, const char *where,
                      moai_error *err)
{
    const char *dir = m->dir;

    if (m->info.is_marked && get_int(j, path, where, "counted", 0, &s->counted, err) != 0) return -1;
    if (get_file(j, path, where, "file", dir, &s->path, err) != 0 ||
        get_int(j, path, where, "tokens", 1, &s->tokens, err) != 0 ||
        get_int(j, path, where, "documents", 1, &s->documents, err) != 0 ||
        get_int(j, path, where, "bytes", 1, &s->bytes, err) != 0)
        return -1;
    return get_text(j, path, where, "xxh3", s->xxh3, sizeof s->xxh3, err);
}

static int read_split(manifest *m, const char *name, json_t *list, const char *path, moai_error *err)
{
    struct manifest_split *split = &m->splits[m->n_splits++];
    size_t n = json_array_size(list);

    *split = (struct manifest_split){.name = xstrdup(name), .n = (int)n, .list = xmalloc(n * sizeof *split->list)};
    if (!json_is_array(list)) return error_set(err, "%s: split `%s` is not a list of shards", path, name);
    for (size_t k = 0; k < n; k++) {
        char where[160];
        snprintf(where, sizeof where, "split `%.80s`, shard %zu: ", name, k);
        if (read_shard(&split->list[k], json_array_get(list, k), m, path, where, err) != 0) return -1;
        if (__builtin_add_overflow(split->tokens, split->list[k].tokens, &split->tokens))
            return error_set(err, "%s: %sthe sum of the tokens overflows", path, where);
    }
    return 0;
}

static int read_root(manifest *m, json_t *root, const char *path, moai_error *err)
{
    char format[32];
    int64_t version = 0;
    json_t *splits = json_object_get(root, "splits"), *list;
    const char *name;

    if (get_text(root, path, "", "format", format, sizeof format, err) != 0) return -1;
    if (strcmp(format, manifest_format) != 0)
        return error_set(err, "%s: not a manifest of token shards: `format` is \"%s\", not \"%s\"", path, format,
                         manifest_format);
    if (get_int(root, path, "", "version", 1, &version, err) != 0) return -1;
    if (version != MANIFEST_VERSION && version != MANIFEST_MARKED)
        return error_set(err, "%s: version %" PRId64 ", this program reads %d and %d", path, version, MANIFEST_VERSION,
                         MANIFEST_MARKED);
    m->info.is_marked = version == MANIFEST_MARKED;
    if (get_int(root, path, "", "vocab_size", 1, &m->info.vocab_size, err) != 0 ||
        get_int(root, path, "", "eos", 0, &m->info.eos, err) != 0 ||
        get_int(root, path, "", "pad", -1, &m->info.pad, err) != 0 ||
        get_text(root, path, "", "tokenizer_sha256", m->info.tokenizer_sha256, sizeof m->info.tokenizer_sha256, err) !=
            0)
        return -1;
    if (json_object_get(root, "tokenizer") && get_file(root, path, "", "tokenizer", m->dir, &m->tokenizer, err) != 0)
        return -1;
    if (!json_is_object(splits)) return error_set(err, "%s: `splits` is missing or not an object", path);
    m->splits = xmalloc(json_object_size(splits) * sizeof *m->splits);
    json_object_foreach(splits, name, list)
        if (read_split(m, name, list, path, err) != 0) return -1;
    return 0;
}

/* PATH, or PATH/manifest.json; caller frees */
static char *path_of(const char *given)
{
    struct stat st;
    bool is_dir = stat(given, &st) == 0 && S_ISDIR(st.st_mode);

    return is_dir ? xasprintf("%s/manifest.json", given) : xstrdup(given);
}

static int check_keys(json_t *root, const char *path, moai_error *err)
{
    static const char *const known[] = {"format", "version", "vocab_size", "eos", "pad", "tokenizer",
                                        "tokenizer_sha256", "splits", "xxh3"};
    const char *key;
    json_t *value;

    json_object_foreach(root, key, value) {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) found = found || strcmp(key, known[i]) == 0;
        if (!found) return error_set(err, "%s: unknown key `%s`", path, key);
    }
    return 0;
}

static int check_text(const char *path, const char *text, size_t n_bytes, moai_error *err)
{
    json_t *root = json_loadb(text, n_bytes, 0, NULL);
    int status = 0;

    if (!json_object_get(root, "xxh3"))
        status = check_keys(root, path, err);
    else if (!json_seal_holds(text, n_bytes))
        status = error_set(err, "%s: changed since it was written: its last line is not the hash of the lines before",
                           path);
    json_decref(root);
    return status;
}

int manifest_check(const char *given, moai_error *err)
{
    char *path = path_of(given);
    size_t n_bytes;
    char *text = file_read(path, (size_t)1 << 31, &n_bytes, err);
    int status = text ? check_text(path, text, n_bytes, err) : -1;

    free(text);
    free(path);
    return status;
}

/* Is it the file that now has the name? */
static bool is_named(FILE *file, const char *path)
{
    struct stat opened, named;

    return fstat(fileno(file), &opened) == 0 && stat(path, &named) == 0 && opened.st_dev == named.st_dev &&
           opened.st_ino == named.st_ino;
}

/* Open and locked for reading.  One that was replaced before the lock was there may have lost its shards: again. */
static FILE *open_held(const char *path)
{
    FILE *file;

    for (int i = 0; (file = fopen(path, "re")) != NULL; i++) {
        read_lock(fileno(file));
        if (i == 10 || is_named(file, path)) break;
        fclose(file);
    }
    return file;
}

int manifest_read(manifest *m, const char *given, moai_error *err)
{
    json_error_t fault;
    char *path = path_of(given);
    int status = -1;

    *m = (manifest){.dir = directory_of(path)};
    FILE *file = open_held(path);
    m->held = file;
    if (!file) {
        error_file(err, path);
    } else {
        json_t *root = json_loadf(file, JSON_REJECT_DUPLICATES, &fault);
        if (!root)
            error_set(err, "%s:%d: not JSON: %s", path, fault.line, fault.text);
        else
            status = read_root(m, root, path, err);
        json_decref(root);
    }
    free(path);
    if (status != 0) manifest_free(m);
    return status;
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static json_t *shard_json(const manifest_shard *s, bool is_marked)
{
    json_t *o = json_pack("{s:s, s:I, s:I, s:I, s:s}", "file", file_name(s->path), "tokens", (json_int_t)s->tokens,
                          "documents", (json_int_t)s->documents, "bytes", (json_int_t)s->bytes, "xxh3", s->xxh3);

    if (o && is_marked) json_object_set_new(o, "counted", json_integer(s->counted));
    return o;
}

/* NULL when a name is not UTF-8. */
static json_t *manifest_json(const manifest *m)
{
    json_t *splits = json_object(), *root;
    int failed = 0;

    for (int i = 0; i < m->n_splits; i++) {
        json_t *list = json_array();
        for (int k = 0; k < m->splits[i].n; k++)
            failed |= json_array_append_new(list, shard_json(&m->splits[i].list[k], m->info.is_marked));
        failed |= json_object_set_new(splits, m->splits[i].name, list);
    }
    root = json_pack("{s:s, s:i, s:I, s:I, s:I}", "format", manifest_format, "version",
                     m->info.is_marked ? MANIFEST_MARKED : MANIFEST_VERSION, "vocab_size",
                     (json_int_t)m->info.vocab_size, "eos", (json_int_t)m->info.eos, "pad", (json_int_t)m->info.pad);
    if (m->tokenizer) failed |= json_object_set_new(root, "tokenizer", json_string(file_name(m->tokenizer)));
    failed |= json_object_set_new(root, "tokenizer_sha256", json_string(m->info.tokenizer_sha256));
    failed |= json_object_set_new(root, "splits", splits);
    if (failed) json_decref(root);
    return failed ? NULL : root;
}

int manifest_write(const manifest *m, const char *path, moai_error *err)
{
    json_t *root = manifest_json(m);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL, *tmp = xasprintf("%s.tmp", path),
         *sealed = text ? json_sealed(text) : NULL;
    int status = sealed ? file_write(tmp, sealed, strlen(sealed), err)
                        : error_config(err, "%s: a name in the manifest is not UTF-8", path);

    if (status == 0 && rename(tmp, path) != 0)
        status = error_set(err, "%s: cannot rename to %s: %s", tmp, path, strerror(errno));
    if (status == 0) status = dir_sync_parent(path, err);
    if (status != 0) remove(tmp);
    json_decref(root);
    free(sealed);
    free(text);
    free(tmp);
    return status;
}
