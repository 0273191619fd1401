/* encode_output.c: see encode_output.h */
#include "src/corpus/encode_output.h"

#include "io/checkpoint/place.h"
#include "io/file/hash.h"
#include "src/base/files.h"
#include "src/config/keys.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char manifest_name[] = "manifest.json";

static char *join(const char *dir, const char *name) { return xasprintf("%s/%s", dir, name); }

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *encode_shard_path(const char *dir, const char *split, int64_t number, int64_t generation)
{
    if (generation == 1) return xasprintf("%s/%s-%05lld.h5", dir, split, (long long)number);
    return xasprintf("%s/%s-%05lld.%lld.h5", dir, split, (long long)number, (long long)generation);
}

char *encode_unfinished_path(const char *parts, const char *path) { return join(parts, name_of(path)); }

/* Of a name that encode_shard_path makes, else 0. */
static int64_t shard_generation(const char *name)
{
    const char *dash = strchr(name, '-');
    long long number, generation = 1;
    int at = 0;

    if (!dash || dash[1] < '0' || dash[1] > '9') return 0;
    const size_t n = (size_t)(dash - name);
    if (!(n == 5 && memcmp(name, "train", n) == 0) && !(n == 10 && memcmp(name, "validation", n) == 0)) return 0;
    if (sscanf(dash + 1, "%lld.h5%n", &number, &at) == 1 && at > 0 && !dash[1 + at]) return 1;
    at = 0;
    if (sscanf(dash + 1, "%lld.%lld.h5%n", &number, &generation, &at) != 2 || at == 0 || dash[1 + at]) return 0;
    return generation > 1 && generation < 1ll << 40 ? generation : 0;
}

/* tokenizer.model, tokenizer.2.model, and so .json: one that encode has put there. */
static bool is_tokenizer_name(const char *name)
{
    long long generation;
    int at = 0, json_at = 0;

    if (strcmp(name, "tokenizer.model") == 0 || strcmp(name, "tokenizer.json") == 0) return true;
    if (sscanf(name, "tokenizer.%lld.model%n", &generation, &at) == 1 && at > 0 && !name[at]) return true;
    return sscanf(name, "tokenizer.%lld.json%n", &generation, &json_at) == 1 && json_at > 0 && !name[json_at];
}

static bool is_named(const manifest *m, const char *name)
{
    if (m->tokenizer && strcmp(name_of(m->tokenizer), name) == 0) return true;
    for (int i = 0; i < m->n_splits; i++)
        for (int k = 0; k < m->splits[i].n; k++)
            if (strcmp(name_of(m->splits[i].list[k].path), name) == 0) return true;
    return false;
}

/* ---- what is new, before it is the set -------------------------------------------------------------------------- */

static void list_names(FILE *to, const manifest *m)
{
    fprintf(to, "%s\n", name_of(m->tokenizer));
    for (int i = 0; i < m->n_splits; i++)
        for (int k = 0; k < m->splits[i].n; k++) fprintf(to, "%s\n", name_of(m->splits[i].list[k].path));
}

static int write_list(const encode_output *o, const manifest *new, moai_error *err)
{
    char *path = join(o->parts, "names"), *tmp = join(o->parts, "names.tmp"), *text = NULL;
    size_t n_bytes;
    FILE *to = open_memstream(&text, &n_bytes);

    CHECK(to, "out of host memory");
    list_names(to, new);
    CHECK(fclose(to) == 0, "out of host memory");
    int rc = file_write(tmp, text, n_bytes, err);
    if (rc == 0 && rename(tmp, path) != 0) rc = error_set(err, "%s: cannot be renamed: %s", tmp, strerror(errno));
    if (rc == 0) rc = dir_sync_parent(path, err);
    free(text);
    free(tmp);
    free(path);
    return rc;
}

static void remove_one(const char *dir, const char *name)
{
    char *path = join(dir, name);

    if (unlink(path) != 0 && errno != ENOENT) warn("%s: cannot be removed: %s", path, strerror(errno));
    free(path);
}

static void remove_listed(const char *dir, const char *parts, const manifest *current)
{
    char *path = join(parts, "names");
    moai_error err;
    size_t n_bytes;
    char *list = file_missing(path) ? NULL : file_read(path, (size_t)1 << 30, &n_bytes, &err), *rest = list;

    for (char *name; (name = strsep(&rest, "\n"));)
        if (name[0] && !strchr(name, '/') && !is_named(current, name)) remove_one(dir, name);
    free(list);
    free(path);
}

/* ---- sets that were replaced ------------------------------------------------------------------------------------ */

static char *replaced_path(const char *dir, int64_t generation)
{
    return xasprintf("%s/.replaced-%lld.json", dir, (long long)generation);
}

static bool is_replaced_name(const char *name)
{
    long long generation;
    int at = 0;

    return sscanf(name, ".replaced-%lld.json%n", &generation, &at) == 1 && at > 0 && !name[at];
}

/* The manifest to be replaced gets a second name, by which its readers and its shards are found later. */
static int keep_old(const encode_output *o, moai_error *err)
{
    char *from = join(o->dir, manifest_name), *to = replaced_path(o->dir, o->generation);
    int rc = 0;

    unlink(to);
    if (o->old.n_splits > 0 && link(from, to) != 0 && file_copy(from, to, err) != 0) rc = -1; /* not all have links */
    free(from);
    free(to);
    return rc;
}

/* A manifest made by hand may name what is no part of a set. */
static void remove_set(const char *dir, const manifest *set, const manifest *current)
{
    const char *tokenizer = set->tokenizer ? name_of(set->tokenizer) : "";

    if (is_tokenizer_name(tokenizer) && !is_named(current, tokenizer)) remove_one(dir, tokenizer);
    for (int i = 0; i < set->n_splits; i++)
        for (int k = 0; k < set->splits[i].n; k++) {
            const char *name = name_of(set->splits[i].list[k].path);
            if (name[0] != '.' && strcmp(name, manifest_name) != 0 && !is_named(current, name)) remove_one(dir, name);
        }
}

/* Removes a replaced set that nobody reads any more.  What was kept by an encode that was killed before it replaced
 * anything is the set itself. */
static void end_replaced(const char *dir, const char *name, const manifest *current)
{
    char *path = join(dir, name), *manifest_path = join(dir, manifest_name);
    manifest set = {0};
    moai_error err;

    if (file_is_same(path, manifest_path))
        unlink(path);
    else if (is_read_locked(path))
        warn("%s: another job still reads the shards that were replaced: they stay until the next encode there", dir);
    else if (manifest_read(&set, path, &err) != 0)
        warn("the shards that it names stay: %s", err.text);
    else {
        remove_set(dir, &set, current);
        unlink(path);
    }
    manifest_free(&set);
    free(path);
    free(manifest_path);
}

static void end_all_replaced(const char *path, const manifest *current)
{
    DIR *dir = opendir(path);

    if (!dir) return;
    for (struct dirent *e; (e = readdir(dir));)
        if (is_replaced_name(e->d_name)) end_replaced(path, e->d_name, current);
    closedir(dir);
}

/* Removes what no set has any more, and .parts. */
static void tidy_up(const char *dir, const char *parts)
{
    char *path = join(dir, manifest_name);
    manifest current = {0};
    moai_error err;

    if (!file_missing(path) && manifest_read(&current, path, &err) != 0) {
        warn("nothing is removed from %s: %s", dir, err.text);
    } else {
        remove_listed(dir, parts, &current);
        end_all_replaced(dir, &current);
    }
    if (dir_remove(parts, &err) != 0) warn("%s", err.text);
    manifest_free(&current);
    free(path);
}

/* ---- begin ------------------------------------------------------------------------------------------------------ */

/* New names are of the generation after the last one there.  Shards of no manifest that can be read are left alone; of
 * those that a replaced set still needs nothing is said. */
static int choose_generation(encode_output *o, moai_error *err)
{
    DIR *dir = opendir(o->dir);
    char *stray = NULL;
    int n_strays = 0, n_replaced = 0;

    if (!dir) return error_set(err, "%s: cannot be read: %s", o->dir, strerror(errno));
    o->generation = 1;
    for (struct dirent *e; (e = readdir(dir));) {
        const int64_t generation = shard_generation(e->d_name);
        n_replaced += is_replaced_name(e->d_name);
        if (generation == 0) continue;
        o->generation = max_i64(o->generation, generation + 1);
        if (is_named(&o->old, e->d_name)) continue;
        n_strays++;
        if (!stray) stray = xstrdup(e->d_name);
    }
    closedir(dir);
    if (stray && n_replaced == 0)
        warn("%s: %d shards there are no manifest's, such as %s: they stay", o->dir, n_strays, stray);
    free(stray);
    return 0;
}

/* A JSON object, and another's: what is damaged is not known to be. */
static bool is_of_others(const char *path)
{
    moai_error why;
    json_t *object = json_read_object(path, &why);
    const char *format = json_string_value(json_object_get(object, "format"));
    const bool theirs = object && (!format || strcmp(format, "moai-manifest") != 0);

    json_decref(object);
    return theirs;
}

static int look_at_old(encode_output *o, bool overwrite, moai_error *err)
{
    char *path = join(o->dir, manifest_name);
    struct stat st;
    moai_error why;
    int rc = 0;

    const bool is_there = lstat(path, &st) == 0;
    if (!is_there && errno != ENOENT)
        rc = error_set(err, "%s: %s", path, strerror(errno));
    else if (is_there && !overwrite)
        rc = error_set(err, "%s: exists already; --overwrite replaces it", path);
    else if (is_there && S_ISDIR(st.st_mode))
        rc = error_set(err, "%s: is a directory", path);
    else if (is_there && manifest_read(&o->old, path, &why) != 0) {
        if (is_of_others(path))
            rc = error_config(err, "%s: is no manifest of token shards, and not overwritten: name another directory",
                              path);
        else
            warn("the shards of the earlier manifest stay, since it cannot be read: %s", why.text);
    }
    manifest_let_go(&o->old);
    o->is_old = is_there && rc == 0;
    free(path);
    return rc;
}

int encode_output_begin(encode_output *o, const char *dir, bool overwrite, moai_error *err)
{
    *o = (encode_output){.dir = xstrdup(dir), .parts = join(dir, ".parts")};
    if (place_check("--output", dir, err) != 0 || dir_make(dir, err) != 0) return -1;
    o->lock = dir_lock(dir, "--output", 0, err);
    if (!o->lock) return -1;
    tidy_up(o->dir, o->parts);
    if (look_at_old(o, overwrite, err) != 0 || choose_generation(o, err) != 0) return -1;
    return dir_make(o->parts, err);
}

/* ---- commit ----------------------------------------------------------------------------------------------------- */

/* The old set's copy where that is the same, else a name that nothing has: no other file there is ours. */
static char *tokenizer_path(const encode_output *o, const manifest *new, bool is_json)
{
    const char *kind = is_json ? "json" : "model";
    char hex[65], *path = xasprintf("%s/tokenizer.%s", o->dir, kind);
    moai_error unused;
    struct stat st;

    if (o->old.tokenizer && file_sha256(o->old.tokenizer, hex, &unused) == 0 &&
        strcmp(hex, new->info.tokenizer_sha256) == 0) {
        free(path);
        return xstrdup(o->old.tokenizer);
    }
    for (int64_t i = max_i64(o->generation, 2); lstat(path, &st) == 0; i++) {
        free(path);
        path = xasprintf("%s/tokenizer.%lld.%s", o->dir, (long long)i, kind);
    }
    return path;
}

static int copy_tokenizer(const encode_output *o, const manifest *new, const char *from, moai_error *err)
{
    char *path = encode_unfinished_path(o->parts, new->tokenizer), hex[65];
    size_t n_bytes;
    char *data = file_read(from, (size_t)1 << 30, &n_bytes, err);
    int rc = data ? 0 : -1;

    if (rc == 0) bytes_sha256(data, n_bytes, hex);
    if (rc == 0 && strcmp(hex, new->info.tokenizer_sha256) != 0)
        rc = error_set(err, "%s: has changed while the text was encoded", from);
    if (rc == 0) rc = file_write(path, data, n_bytes, err);
    free(data);
    free(path);
    return rc;
}

/* From .parts to the name it will have, which nothing has; n_bytes as written, or -1. */
static int move_in(const encode_output *o, const char *path, int64_t n_bytes, moai_error *err)
{
    char *from = encode_unfinished_path(o->parts, path);
    struct stat st;
    int rc = 0;

    if (lstat(path, &st) == 0)
        rc = error_set(err, "%s: somebody else has made it meanwhile", path);
    else if (stat(from, &st) != 0)
        rc = error_set(err, "%s: %s", from, strerror(errno));
    else if (n_bytes >= 0 && st.st_size != n_bytes)
        rc = error_set(err, "%s: %lld bytes, and %lld were written", from, (long long)st.st_size, (long long)n_bytes);
    else if (rename(from, path) != 0)
        rc = error_set(err, "%s: cannot be renamed to %s: %s", from, path, strerror(errno));
    free(from);
    return rc;
}

static int move_all(const encode_output *o, const manifest *new, moai_error *err)
{
    int rc = is_named(&o->old, name_of(new->tokenizer)) ? 0 : move_in(o, new->tokenizer, -1, err);

    for (int i = 0; i < new->n_splits; i++)
        for (int k = 0; rc == 0 && k < new->splits[i].n; k++)
            rc = move_in(o, new->splits[i].list[k].path, new->splits[i].list[k].bytes, err);
    return rc == 0 ? dir_sync_parent(new->tokenizer, err) : rc;
}

/* From here on it is the new set. */
static int switch_manifest(encode_output *o, const char *from, moai_error *err)
{
    char *path = join(o->dir, manifest_name);
    int rc = 0;

    if (rename(from, path) != 0)
        rc = error_set(err, "%s: cannot be renamed to %s: %s", from, path, strerror(errno));
    else if (dir_sync_parent(path, err) != 0)
        rc = -1, o->is_unsure = true;
    o->is_new = rc == 0;
    free(path);
    return rc;
}

/* What says more of a tokenizer.json, its ends and its template of conversations, lies beside that, here too. */
static int copy_settings(const encode_output *o, const char *tokenizer, moai_error *err)
{
    static const char *const names[] = {"tokenizer_config.json", "chat_template.jinja"};
    int rc = 0;

    for (int i = 0; rc == 0 && i < 2; i++) {
        char *from = xasprintf("%.*s%s", (int)(name_of(tokenizer) - tokenizer), tokenizer, names[i]),
             *to = join(o->dir, names[i]);
        if (file_exists(from)) rc = file_copy(from, to, err);
        free(from);
        free(to);
    }
    return rc;
}

int encode_output_commit(encode_output *o, manifest *m, const char *tokenizer, bool is_json, moai_error *err)
{
    char *manifest_path = join(o->parts, manifest_name);

    m->tokenizer = tokenizer_path(o, m, is_json);
    int rc = is_named(&o->old, name_of(m->tokenizer)) ? 0 : copy_tokenizer(o, m, tokenizer, err);
    if (rc == 0) rc = manifest_write(m, manifest_path, err);
    if (rc == 0) rc = write_list(o, m, err);
    if (rc == 0) rc = keep_old(o, err);
    if (rc == 0 && is_json) rc = copy_settings(o, tokenizer, err);
    if (rc == 0) rc = move_all(o, m, err);
    if (rc == 0) rc = switch_manifest(o, manifest_path, err);
    free(manifest_path);
    return rc;
}

void encode_output_end(encode_output *o)
{
    if (o->lock && !o->is_unsure) tidy_up(o->dir, o->parts);
    if (o->is_old && !o->is_new && !o->is_unsure) say("%s: the set of shards from before stays as it was", o->dir);
    job_unlock(o->lock);
    manifest_free(&o->old);
    free(o->dir);
    free(o->parts);
    *o = (encode_output){0};
}
