/* run: mpirun -np 4 %s */
/* Damage of every kind is found and named, never believed, and a run goes on from the checkpoint before.  Arguments:
 * flipped bytes, mutated manifests (200 and 300). */
#include "io/checkpoint/piece_file.h"
#include "src/base/files.h"
#include "src/config/keys.h"
#include "src/train/resume.h"
#include "tests/lib/checkpoint_state.h"
#include "tests/lib/scratch.h"
#include "tests/lib/tap.h"

#include <dirent.h>
#include <errno.h>
#include <unistd.h>

static moai_grid grid;
static moai_device *dev;
static model_config cfg;
static char *output_dir, *dir;                /* dir: the newer of two checkpoints, of steps 4 and 5 */
static uint64_t draws;                        /* random numbers used up */

static uint64_t draw(uint64_t n) { return (uint64_t)(rng_uniform(99, draws++) * (double)n); }

static void keep_fault(void *arg, const char *fault) { snprintf(arg, 1024, "%s", fault); }

/* "" when all is well, else the last fault */
static int64_t verify(char fault[1024])
{
    moai_error err;
    fault[0] = 0;
    const int64_t n = checkpoint_verify(dir, &comm_alone, keep_fault, fault, &err);

    if (n < 0) snprintf(fault, 1024, "%s", err.text);
    return n;
}

static int64_t load(moai_error *err) { return state_load_as(dir, &cfg, (grid_shape){1, 1, 1, 1}, 0, dev, err); }

/* What a single rank with resume_from_checkpoint auto begins with: the step, -1 on failure, -2 with wrong weights. */
static int64_t resumed_step(void)
{
    const grid_shape one = {1, 1, 1, 1};
    const checkpoint_meta now = small_meta(&cfg, one, 0);
    const key_table keys = run_config_keys();
    run_config run = {0};
    resume_point from;
    moai_grid alone;
    moai_error err;
    small_state s;

    keys_defaults(keys, &run);
    CHECK(key_set_text(keys_find(keys, "resume_from_checkpoint"), &run, "", "auto", &err) == 0 &&
              key_set_text(keys_find(keys, "output_dir"), &run, "", output_dir, &err) == 0,
          "%s", err.text);
    run.schedule.learning_rate = 0.001;                /* as small_meta says */
    grid_dry(&alone, one, (grid_shape){0, 0, 0, 0}, (int)cfg.num_key_value_heads);
    state_init(&s, &cfg, &alone, dev);
    base_process.printer = false;             /* a warning for each */
    int64_t step = resume_load(&from, &run, &now, &s.st, &err) == 0 && from.dir ? from.meta.step : -1;
    base_process.printer = true;
    if (step >= 0 && state_n_wrong(&s) > 0) step = -2;
    if (step == -1) printf("# %s\n", err.text);
    resume_free(&from);
    state_free(&s);
    keys_free(keys, &run);
    return step;
}

/* Likewise, and what was set aside for it comes back. */
static int64_t resumed_past_damage(void)
{
    const int64_t step = resumed_step();
    char *aside = xasprintf("%s.damaged", dir);
    const bool was_set_aside = rename(aside, dir) == 0;

    free(aside);
    return was_set_aside ? step : -3;
}

static char *path_of(const char *name) { return xasprintf("%s/%s", dir, name); }

/* The names of the checkpoint's files; there are few. */
static int list_files(char names[16][64])
{
    DIR *d = opendir(dir);
    int n = 0;

    CHECK(d, "%s: %s", dir, strerror(errno));
    for (struct dirent *e; n < 16 && (e = readdir(d));)
        if (e->d_name[0] != '.') snprintf(names[n++], 64, "%.63s", e->d_name);
    closedir(d);
    return n;
}

static void flips(int n)
{
    char names[16][64], fault[1024];
    const int n_files = list_files(names);
    int found = 0, believed = 0, fell_back = 0;
    moai_error err;

    ok(resumed_step() == 5, "without damage a run goes on from the newest checkpoint");

    for (int i = 0; i < n; i++) {
        size_t n_bytes;
        char *path = path_of(names[i % n_files]), *data = file_read(path, 1 << 30, &n_bytes, &err);
        CHECK(data, "%s", err.text);
        const size_t at = (size_t)draw(n_bytes);
        const char flip = (char)(1 + draw(255));
        data[at] ^= flip;
        scratch_write(path, data, n_bytes);
        const bool seen = verify(fault) != 0 && strstr(fault, names[i % n_files]);
        if (!seen) printf("# byte %zu of %s: %s\n", at, path, fault);
        found += seen;
        believed += load(&err) > 0;           /* wrong elements, and no complaint */
        fell_back += resumed_past_damage() == 4;
        data[at] ^= flip;
        scratch_write(path, data, n_bytes);
        free(data);
        free(path);
    }
    ok(found == n, "flipped bytes in %d files: %d of %d found and the file named", n_files, found, n);
    ok(believed == 0, "a load never takes damaged data: %d times", believed);
    ok(fell_back == n, "a run goes on from the checkpoint before: %d of %d", fell_back, n);
    ok(verify(fault) == 0, "and all is well again");
}

static void named_piece(void)
{
    char fault[1024], *path = path_of("rank-00001.h5");
    moai_error err;
    size_t n_bytes;
    char *data = file_read(path, 1 << 30, &n_bytes, &err), *copy = xmalloc(n_bytes);
    float first;

    CHECK(data, "%s", err.text);
    memcpy(copy, data, n_bytes);
    first =
        state_value(STATE_EXP_AVG, rng_key(7, "model.layers.1.mlp.up_proj.weight"), 26 * 48); /* tp 1's first element */
    char *there = memmem(data, n_bytes, &first, sizeof first);
    ok(there != NULL, "the moment of an element is found in its rank's file");
    if (there) {
        there[1] ^= 1;
        scratch_write(path, data, n_bytes);
        const int64_t n = verify(fault);
        ok(n == 1 && strstr(fault, "rank-00001.h5") && strstr(fault, "/exp_avg/model.layers.1.mlp.up_proj.weight/0"),
           "the fault names file and piece: %s", fault);
        ok(load(&err) < 0 && strstr(err.text, "/exp_avg/model.layers.1.mlp.up_proj.weight/0"), "so does a load");
    }
    scratch_write(path, copy, n_bytes);
    free(copy);
    free(data);
    free(path);
}

/* Puts `bytes` (NULL: nothing, the file is gone) in the place of a file, looks, and restores it. */
static void instead(const char *name, const char *bytes, size_t n_bytes, const char *words)
{
    char fault[1024], *path = path_of(name);
    moai_error err;
    size_t n_old;
    char *old = file_read(path, 1 << 30, &n_old, &err);

    CHECK(old, "%s", err.text);
    if (bytes)
        scratch_write(path, bytes, n_bytes);
    else
        CHECK(unlink(path) == 0, "%s: %s", path, strerror(errno));
    const bool config = strcmp(name, "config.json") == 0;     /* which only the metadata's reader opens */
    checkpoint_meta meta;
    const bool refused = config ? checkpoint_read_meta(dir, &meta, &err) != 0 : load(&err) < 0;
    const int64_t n = verify(fault);
    ok(n != 0 && refused && strstr(err.text, words) && strstr(fault, words), "%s, %zu bytes: %s", name, n_bytes,
       err.text);
    scratch_write(path, old, n_old);
    free(old);
    free(path);
}

static void files(void)
{
    char *path = path_of("rank-00002.h5"), *manifest = path_of("manifest.json");
    moai_error err;
    size_t n_bytes, n_manifest;
    char *data = file_read(path, 1 << 30, &n_bytes, &err), *json = file_read(manifest, 1 << 30, &n_manifest, &err);

    instead("rank-00002.h5", NULL, 0, "rank-00002.h5: missing");
    instead("rank-00002.h5", data, n_bytes - 1, "the manifest says");
    instead("rank-00002.h5", data, n_bytes + 1, "the manifest says");
    instead("rank-00002.h5", "", 0, "the manifest says");
    instead("manifest.json", NULL, 0, "no manifest.json");
    instead("manifest.json", json, n_manifest / 2, "damaged");
    instead("manifest.json", "", 0, "damaged");
    instead("config.json", NULL, 0, "config.json");
    instead("config.json", "{}", 2, "config.json: damaged");
    free(json);
    free(data);
    free(manifest);
    free(path);
}

/* A link to itself stands for a disk that does not answer: it is there, and cannot be opened. */
static void not_read(const char *name)
{
    char *path = path_of(name), *away = xasprintf("%s/away", output_dir);

    CHECK(rename(path, away) == 0 && symlink(path, path) == 0, "%s: %s", path, strerror(errno));
    ok(resumed_step() == -1, "%s cannot be read: no older checkpoint is taken", name);
    CHECK(rename(away, path) == 0, "%s: %s", path, strerror(errno));
    ok(resumed_step() == 5, "and this one when it can");
    free(path);
    free(away);
}

/* Killed between a second save of step 5 and the removal of the first. */
static void replaced(void)
{
    char *old = xasprintf("%s.old", dir), *copy = xasprintf("cp -r %s %s", dir, old), *path = path_of("rank-00001.h5"),
         *remove = xasprintf("rm -r %s.damaged", dir);

    CHECK(system(copy) == 0, "%s", copy);
    ok(resumed_step() == 5 && access(old, F_OK) == 0, "one that was replaced stays until the next save");
    scratch_write(path, "", 0);
    ok(resumed_step() == 5 && access(old, F_OK) != 0, "and is taken where its successor is damaged");
    CHECK(system(remove) == 0, "%s", remove);
    CHECK(rename(dir, old) == 0, "%s: %s", dir, strerror(errno));
    ok(resumed_step() == 5 && access(old, F_OK) != 0, "without a successor it has its name again");
    free(old);
    free(copy);
    free(path);
    free(remove);
}

/* A manifest whose own hash is right again: what remains is the reader's care. */
static void seal(char *text, size_t n_bytes)
{
    char hex[33];

    if (n_bytes < 46) return;
    file_xxh3_text(text, n_bytes - 46, hex);
    char *line = xasprintf(",\n\"xxh3\": \"%s\"}\n", hex);
    memcpy(text + n_bytes - 46, line, 46);
    free(line);
}

/* Replaces the first `from` after `after` by `to`, which may have another length. */
static void edited(const char *after, const char *from, const char *to, const char *words)
{
    char *path = path_of("manifest.json");
    moai_error err;
    size_t n_bytes;
    char *text = file_read(path, 1 << 30, &n_bytes, &err), *begin = strstr(text, after),
         *at = begin ? strstr(begin, from) : NULL;

    CHECK(at, "manifest.json has no %s after %s", from, after);
    char *hostile = xasprintf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    seal(hostile, strlen(hostile));
    instead("manifest.json", hostile, strlen(hostile), words);
    free(hostile);
    free(text);
    free(path);
}

static void hostile(void)
{
    edited("{", "moai-checkpoint", "moai-tokens", "format");
    edited("{", "\"version\": 1", "\"version\": 2", "version");
    edited("{", "\"step\": 5", "\"step\": -5", "step: out of range");
    edited("{", "\"step\": 5", "\"step\": 1099511627777", "step: out of range");
    edited("{", "\"samples\": ", "\"samples\": 9223372036854775807, \"were\": ", "samples: out of range");
    edited("{", "\"step\": 5", "\"step\": \"5\"", "step: not an integer");
    edited("{", "\"step\": 5,", "", "step: missing");
    edited("{", "\"rank-00001.h5\"", "\"../rank-00001.h5\"", "not a plain file name");
    edited("\"files\"", "\"offset\":[0,", "\"offset\":[1,", "two pieces overlap");
    edited("\"files\"", "\"name\":\"model.norm", "\"name\":\"model.morn", "model.norm.weight");
    edited("\"files\"", "\"address\":", "\"address\": 9223372036854775807, \"was\": ", "address");
    edited("\"files\"", "\"address\":", "\"address\": 1e30, \"was\": ", "address");
    edited("\"files\"", "\"size\":[", "\"size\": [2147483648, 2147483648], \"was\": [", "outside its tensor");
    edited("\"files\"", "\"state\":\"weight\"", "\"state\":\"exp_avg\"", "in no piece");
    edited("\"files\"", "\"pieces\": [", "\"pieces\": [], \"was\": [", "in no piece");
    edited("\"files\"", "\"block_rows\":4", "\"block_rows\":5", "not as many as block_rows tells of");
    edited("\"files\"", "\"block_rows\":4", "\"block_rows\":99999999999", "block_rows: out of range");
    edited("\"files\"", "\"block_rows\":4", "\"block_rows\":0", "block_rows: out of range");
    edited("\"files\"", "\"blocks\":[\"", "\"blocks\":[\"x", "blocks: not an XXH3-128");
    edited("\"files\"", "\"blocks\":[", "\"blocks\":[7,", "not as many as block_rows tells of");
    edited("\"files\"", "\"pieces\": [", "\"pieces\": {}, \"was\": [", "not a list");
}

/* The piece with these names: where its bytes lie. */
static void find_piece(const char *manifest, const char *file, const char *name, int64_t *address, int64_t *n_bytes)
{
    json_t *root = json_loads(manifest, 0, NULL), *entry, *p;
    size_t i, k;

    *address = -1;
    json_array_foreach(json_object_get(root, "files"), i, entry)
    {
        if (strcmp(json_string_value(json_object_get(entry, "file")), file) != 0) continue;
        json_array_foreach(json_object_get(entry, "pieces"), k, p)
        {
            const json_t *size = json_object_get(p, "size");
            if (strcmp(json_string_value(json_object_get(p, "name")), name) != 0 || *address >= 0) continue;
            *address = json_integer_value(json_object_get(p, "address"));
            *n_bytes = 4 * json_integer_value(json_array_get(size, 0)) * json_integer_value(json_array_get(size, 1));
        }
    }
    json_decref(root);
    CHECK(*address >= 0, "%s is not in %s", name, file);
}

static void replace_hash(char *manifest, const char *was, const char *is, size_t n_bytes)
{
    char old[33], new[33];

    file_xxh3_text(was, n_bytes, old);
    file_xxh3_text(is, n_bytes, new);
    char *hash = strstr(manifest, old);
    CHECK(hash, "%s is not in the manifest", old);
    memcpy(hash, new, 32);
}

/* As versions have written it that did not look: every hash is right, and one weight is no number. */
static void not_finite(float value, const char *shown)
{
    static const char name[] = "model.layers.1.mlp.up_proj.weight";
    char *path = path_of("rank-00001.h5"), *manifest = path_of("manifest.json");
    char fault[1024], words[128];
    moai_error err;
    size_t n_data, n_text;
    int64_t at, n_bytes = 0;
    char *data = file_read(path, 1 << 30, &n_data, &err), *text = file_read(manifest, 1 << 30, &n_text, &err),
         *copy = xmalloc(n_data), *sealed = xmalloc(n_text + 1);

    memcpy(copy, data, n_data);
    memcpy(sealed, text, n_text + 1);
    find_piece(text, "rank-00001.h5", name, &at, &n_bytes);
    memcpy(data + at + 4 * 50, &value, sizeof value);         /* row 1, column 2 of 48 */
    replace_hash(sealed, copy + at, data + at, (size_t)n_bytes);
    replace_hash(sealed, copy + at, data + at, 4 * 4 * 48);   /* of the block, of 4 rows */
    seal(sealed, n_text);
    scratch_write(path, data, n_data);
    scratch_write(manifest, sealed, n_text);
    snprintf(words, sizeof words, "rank-00001.h5: weight of %s is %s at row ", name, shown);
    ok(verify(fault) == 1 && strstr(fault, words) && strstr(fault, ", column 2"), "whole, and no checkpoint: %s",
       fault);
    ok(load(&err) < 0 && strstr(err.text, words), "a load says so too");
    ok(resumed_past_damage() == 4, "and a run goes on from the one before");
    scratch_write(path, copy, n_data);
    scratch_write(manifest, text, n_text);
    ok(verify(fault) == 0, "and all is well again");
    free(data), free(text), free(copy), free(sealed);
    free(path), free(manifest);
}

/* As checkpoints were before blocks had hashes. */
static void forget_blocks(void)
{
    char *path = path_of("manifest.json");
    moai_error err;
    size_t n_bytes;
    char *text = file_read(path, 1 << 30, &n_bytes, &err), *to = text;

    CHECK(text, "%s", err.text);
    for (const char *from = text; *from;) {
        if (strncmp(from, ",\"block_rows\":", 14) == 0) from = strchr(strchr(from, '['), ']') + 1;
        *to++ = *from++;
    }
    seal(text, (size_t)(to - text));
    scratch_write(path, text, (size_t)(to - text));
    free(text);
    free(path);
}

/* Of 28 ranks that load: how many are refused, all others have the right elements; -1: they have not. */
static int ranks_refused(const char *words)
{
    moai_error err;
    int n = 0;

    for (int rank = 0; rank < 28; rank++) {
        const int64_t n_wrong = state_load_as(dir, &cfg, (grid_shape){1, 1, 28, 1}, rank, dev, &err);
        if (n_wrong > 0 || (n_wrong < 0 && !strstr(err.text, words))) return -1;
        n += n_wrong < 0;
    }
    return n;
}

/* A rank reads the blocks that it wants part of, and a checkpoint without blocks piece by piece. */
static void blocks(void)
{
    char *path = path_of("rank-00000.h5"), *manifest = path_of("manifest.json"), fault[1024];
    const float first = state_value(STATE_WEIGHT, rng_key(7, "model.embed_tokens.weight"), 9 * 48);
    moai_error err;
    size_t n_bytes, n_json;
    char *data = file_read(path, 1 << 30, &n_bytes, &err), *json = file_read(manifest, 1 << 30, &n_json, &err);
    char *there = data ? memmem(data, n_bytes, &first, sizeof first) : NULL;

    CHECK(json && there, "no such element in %s", path);
    there[1] ^= 1;
    scratch_write(path, data, n_bytes);
    ok(verify(fault) == 1 && strstr(fault, "/weight/model.embed_tokens.weight/0: rows 8 to 11 are damaged"),
       "a block is named: %s", fault);
    const int with = ranks_refused("rows 8 to 11 are damaged");
    ok(with >= 1 && with <= 3, "%d of 28 ranks want part of it", with);
    forget_blocks();
    const int without = ranks_refused("model.embed_tokens.weight/0: damaged");
    ok(without > 2 * with && verify(fault) == 1, "%d read its piece, where blocks have no hashes: %s", without, fault);
    there[1] ^= 1;
    scratch_write(path, data, n_bytes);
    ok(ranks_refused("") == 0 && verify(fault) == 0 && resumed_step() == 5, "without damage this is read as ever %s", fault);
    scratch_write(manifest, json, n_json);
    ok(ranks_refused("") == 0 && verify(fault) == 0, "and so is the other");
    free(data);
    free(json);
    free(path);
    free(manifest);
}

/* Bytes changed at random: the reader may refuse or, where the change means nothing, read; it never takes wrong
 * data. */
static void mutations(int n)
{
    char *path = path_of("manifest.json"), fault[1024];
    moai_error err;
    size_t n_bytes;
    char *text = file_read(path, 1 << 30, &n_bytes, &err), *mutant = xmalloc(n_bytes);
    int refused = 0, wrong = 0;

    for (int i = 0; i < n; i++) {
        static const char *const bits[] = {
            "-", "9", "0", "\"", "{", "}", "[", "]", ",", "e", "99999999999999999999", "null", "\\u0000"};
        memcpy(mutant, text, n_bytes);
        for (uint64_t m = 1 + draw(3); m > 0; m--) {
            const char *with = bits[draw(sizeof bits / sizeof bits[0])];
            memcpy(mutant + draw(n_bytes - 70), with, strlen(with));
        }
        seal(mutant, n_bytes);
        scratch_write(path, mutant, n_bytes);
        verify(fault);
        const int64_t n_wrong = load(&err);
        refused += n_wrong < 0;
        wrong += n_wrong > 0;
    }
    scratch_write(path, text, n_bytes);
    ok(refused > 0 && wrong == 0, "%d mutated manifests: %d refused, %d gave wrong data", n, refused, wrong);
    free(mutant);
    free(text);
    free(path);
}

static void other_model(void)
{
    const model_config right = cfg;
    moai_error err;

    cfg = small_model(3, 14, 2, 103, false);
    ok(load(&err) < 0 && strstr(err.text, "101") && strstr(err.text, "103"), "another vocabulary: %s", err.text);
    cfg = small_model(4, 14, 2, 101, false);
    ok(load(&err) < 0 && strstr(err.text, "model.layers.3."), "more layers: %s", err.text);
    cfg = right;
    ok(load(&err) == 0, "the right model again");
}

int main(int argc, char **argv)
{
    small_state s;
    moai_error err;

    process_start(&argc, &argv);
    grid_init(&grid, (grid_shape){2, 1, 2, 1}, 2);
    dev = device_open_cpu(1);
    piece_block_elem = 200;                   /* 4 rows of most matrices */
    cfg = small_model(3, 14, 2, 101, false);
    output_dir = xasprintf("%s/run", getenv("TMPDIR"));
    dir = xasprintf("%s/checkpoint-5", output_dir);
    state_init(&s, &cfg, &grid, dev);
    state_fill(&s);
    for (int64_t step = 4; step <= 5; step++) {
        const checkpoint_meta meta = small_meta(&cfg, grid.size, step);
        CHECK(checkpoint_save(output_dir, &meta, &s.st, NULL, 0, &err) == 0, "%s", err.text);
    }
    state_free(&s);
    if (grid.rank == 0) {                     /* the others only wrote their files */
        flips(argc > 1 ? atoi(argv[1]) : 200);
        named_piece();
        files();
        not_read("manifest.json");
        not_read("config.json");
        not_read("rank-00001.h5");
        replaced();
        hostile();
        blocks();
        not_finite(NAN, "nan");
        not_finite(-INFINITY, "-inf");
        mutations(argc > 2 ? atoi(argv[2]) : 300);
        other_model();
    }
    comm_barrier(&grid.host_world);
    free(output_dir);
    free(dir);
    device_close_cpu(dev);
    grid_free(&grid);
    int status = tap_done();
    process_finish();
    return status;
}
