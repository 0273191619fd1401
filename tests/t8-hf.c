/* Hugging Face directories in and out: what Transformers wrote becomes a checkpoint and a
 * directory again, element for element. */
#include "io/hf/hf.h"
#include "io/hf/weights.h"
#include "src/base/files.h"
#include "src/params/params.h"
#include "tests/lib/checkpoint_state.h"
#include "tests/lib/scratch.h"
#include "tests/lib/tap.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static int export_to(const char *dir, const char *to, const char *torch_dtype, int64_t max_shard_bytes,
                     moai_error *err)
{
    return hf_export(&(hf_export_options){.dir = dir, .to = to, .torch_dtype = torch_dtype,
                                          .max_shard_bytes = max_shard_bytes}, err);
}

static char *scratch(const char *name) { return xasprintf("%s/%s", getenv("TMPDIR"), name); }

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* To nearest even in the upper half, as bf16 keeps it. */
static float rounded(float x)
{
    uint32_t bits = bits_of(x);
    float y;

    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    memcpy(&y, &bits, sizeof y);
    return y;
}

/* Elements of b that differ from a's, or from a's rounded to bf16; -1 when they cannot be read. */
static int64_t n_different(const char *dir_a, const char *dir_b, bool round, moai_error *err)
{
    weights *a = weights_open(dir_a, err), *b = a ? weights_open(dir_b, err) : NULL;
    int64_t n = b && model_config_same(weights_config(a), weights_config(b), err) == 0 ? 0 : -1;
    param_table t = {0};

    if (n == 0) params_whole(&t, weights_config(a));
    for (int i = 0; n >= 0 && i < t.n; i++) {
        const param *p = &t.list[i];
        float *x = xmalloc((size_t)(p->rows * p->cols) * sizeof *x),
              *y = xmalloc((size_t)(p->rows * p->cols) * sizeof *y);
        if (weights_read(a, p->name, 0, p->rows, 0, p->cols, x, p->cols, err) != 0 ||
            weights_read(b, p->name, 0, p->rows, 0, p->cols, y, p->cols, err) != 0)
            n = -1;
        for (int64_t e = 0; n >= 0 && e < p->rows * p->cols; e++)
            n += bits_of(round ? rounded(x[e]) : x[e]) != bits_of(y[e]);
        free(x);
        free(y);
    }
    params_free(&t);
    weights_free(a);
    weights_free(b);
    return n;
}

/* A block of a tensor that lies in many pieces or in one file. */
static void block(const char *dir)
{
    moai_error err = {.text = ""};
    weights *w = weights_open(dir, &err);
    const model_config *cfg = weights_config(w);
    const int64_t H = cfg->hidden_size;
    float *all = xmalloc((size_t)(cfg->vocab_size * H) * sizeof *all), part[3 * 8];
    const char *name = "model.embed_tokens.weight", *head = cfg->tie_word_embeddings ? "lm_head.weight" : name;
    bool same = weights_read(w, name, 0, cfg->vocab_size, 0, H, all, H, &err) == 0 &&
                weights_read(w, head, 5, 3, 7, 6, part, 8, &err) == 0;

    for (int i = 0; same && i < 3; i++)
        for (int j = 0; j < 6; j++) same = same && part[8 * i + j] == all[(5 + i) * H + 7 + j];
    ok(same, "a block of %s %s", head, err.text);
    ok(weights_read(w, name, cfg->vocab_size - 1, 2, 0, H, all, H, &err) != 0 &&
           weights_read(w, "model.none", 0, 1, 0, 1, all, 1, &err) != 0,
       "a block outside, a name unknown: %s", err.text);
    free(all);
    weights_free(w);
}

typedef struct tally {
    int n_files;
    int64_t largest;
} tally;

static tally safetensors_in(const char *dir)
{
    DIR *d = opendir(dir);
    tally t = {0};

    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        const size_t n = strlen(e->d_name);
        if (n < 12 || strcmp(e->d_name + n - 12, ".safetensors") != 0 || fstatat(dirfd(d), e->d_name, &st, 0) != 0)
            continue;
        t.n_files++;
        t.largest = max_i64(t.largest, st.st_size);
    }
    if (d) closedir(d);
    return t;
}

/* The index names every tensor once and their bytes altogether. */
static void index_of(const char *dir, const model_config *cfg, int64_t element)
{
    char *path = xasprintf("%s/model.safetensors.index.json", dir);
    json_t *root = json_load_file(path, 0, NULL);
    param_table t;

    params_whole(&t, cfg);
    const json_t *map = json_object_get(root, "weight_map");
    const int64_t total = json_integer_value(json_object_get(json_object_get(root, "metadata"), "total_size"));
    ok((int)json_object_size(map) == t.n && total == model_n_params(cfg) * element,
       "the index has %d names of %d, %lld bytes", (int)json_object_size(map), t.n, (long long)total);
    params_free(&t);
    json_decref(root);
    free(path);
}

static void round_trip(const char *name)
{
    char *hf = xasprintf("tests/golden/%s", name), *run = scratch(name),
         *checkpoint = xasprintf("%s/checkpoint-0", run);
    char *plain = xasprintf("%s.plain", run), *sharded = xasprintf("%s.sharded", run),
         *again = xasprintf("%s.again", run);
    moai_error err = {.text = ""};
    checkpoint_meta m = {0};

    ok(hf_import(&(hf_import_options){.dir = hf, .output_dir = run}, &err) == 0, "%s: imported %s", name, err.text);
    ok(checkpoint_verify(checkpoint, &comm_alone, NULL, NULL, &err) == 0, "it verifies %s", err.text);
    ok(checkpoint_read_meta(checkpoint, &m, &err) == 0 && m.step == 0 && m.samples == 0 && m.updates == 0,
       "at step 0 %s", err.text);
    ok(n_different(hf, checkpoint, false, &err) == 0, "every element is the same in the checkpoint %s", err.text);
    ok(export_to(checkpoint, plain, "float32", 5000000000, &err) == 0 && safetensors_in(plain).n_files == 1,
       "exported in one file %s", err.text);
    ok(n_different(hf, plain, false, &err) == 0, "every element is the same there %s", err.text);
    const int rc = export_to(checkpoint, sharded, "bfloat16", 40000, &err);
    const tally t = safetensors_in(sharded);
    ok(rc == 0 && t.n_files > 1 && t.largest < 44000, "exported as bf16 in %d files of at most %lld bytes %s",
       t.n_files, (long long)t.largest, err.text);
    ok(n_different(hf, sharded, true, &err) == 0, "every element is the nearest bf16 %s", err.text);
    index_of(sharded, &m.model, 2);
    ok(hf_import(&(hf_import_options){.dir = sharded, .output_dir = again}, &err) == 0 && n_different(sharded, again, false, &err) < 0,
       "a run's directory is no weights: %s", err.text);
    block(checkpoint);
    block(sharded);
    checkpoint_meta_free(&m);
    free(hf), free(run), free(checkpoint), free(plain), free(sharded), free(again);
}

/* The moments of an import are zero on every layout. */
static void zero_moments(moai_device *dev)
{
    char *dir = scratch("gqa7/checkpoint-0");
    moai_error err = {.text = ""};
    checkpoint_meta m;
    int64_t n_nonzero[MAX_STATES] = {0}, n_weights = 0;

    CHECK(checkpoint_read_meta(dir, &m, &err) == 0, "%s", err.text);
    for (int rank = 0; rank < 4; rank++) {
        moai_grid grid;
        small_state s;
        grid_dry(&grid, (grid_shape){2, 1, 2, 1}, rank_at((grid_shape){2, 1, 2, 1}, rank),
                 (int)m.model.num_key_value_heads);
        state_init(&s, &m.model, &grid, dev);
        for (int state = 0; state < s.st.states.n; state++)
            for (int64_t i = 0; i < s.params.n_own; i++) *state_float(&s, state, i) = 1;
        CHECK(state_load(dir, &s.st, &err) == 0, "%s", err.text);
        for (int state = 0; state < s.st.states.n; state++)
            for (int64_t i = 0; i < s.params.n_own; i++) n_nonzero[state] += *state_float(&s, state, i) != 0;
        n_weights += s.params.n_own;
        state_free(&s);
    }
    ok(n_nonzero[STATE_WEIGHT] > n_weights / 2, "imported weights are loaded as TP2 DP2");
    ok(n_nonzero[STATE_EXP_AVG] == 0 && n_nonzero[STATE_EXP_AVG_SQ] == 0, "with zero moments");
    checkpoint_meta_free(&m);
    free(dir);
}

/* A copy of a sharded directory with one thing wrong. */
static void refused(const char *file, const char *from, const char *to, const char *words)
{
    static const char *const names[] = {"config.json",
                                        "model.safetensors.index.json",
                                        "model-00001-of-00004.safetensors",
                                        "model-00002-of-00004.safetensors",
                                        "model-00003-of-00004.safetensors",
                                        "model-00004-of-00004.safetensors"};
    char *dir = scratch("wrong"), *out = scratch("wrong.run");
    moai_error err = {.text = ""};

    CHECK(dir_remove(dir, &err) == 0 && dir_make(dir, &err) == 0, "%s", err.text);
    for (int i = 0; i < 6; i++) {
        char *source = xasprintf("tests/golden/linear/%s", names[i]), *path = xasprintf("%s/%s", dir, names[i]);
        size_t n_bytes;
        char *data = file_read(source, 1 << 30, &n_bytes, &err), *at = NULL;
        CHECK(data, "%s", err.text);
        if (strcmp(file, names[i]) == 0 && from) {
            CHECK(at = memmem(data, n_bytes, from, strlen(from)), "%s has no %s", source, from);
            char *changed =
                xasprintf("%.*s%s%s", (int)(at - data), data, to, at + strlen(from)); /* only JSON is changed so */
            scratch_write(path, changed, strlen(changed));
            free(changed);
        } else if (strcmp(file, names[i]) != 0)
            scratch_write(path, data, n_bytes);
        free(data);
        free(path);
        free(source);
    }
    ok(hf_import(&(hf_import_options){.dir = dir, .output_dir = out}, &err) != 0 && strstr(err.text, words) && !file_exists(out), "%s: %s",
       from ? from : file, err.text);
    free(dir);
    free(out);
}

static void wrong(void)
{
    moai_error err = {.text = ""};
    char *full = scratch("full"), *file = scratch("full/file"), *run = scratch("tied");

    refused("model-00002-of-00004.safetensors", NULL, NULL, "model-00002-of-00004.safetensors: No such file");
    refused("config.json", NULL, NULL, "config.json");
    refused("model.safetensors.index.json", NULL, NULL, "model.safetensors: No such file or directory; ");
    refused("model.safetensors.index.json", NULL, NULL,
            "holds model-00001-of-00004.safetensors, but not model.safetensors.index.json");
    refused("model.safetensors.index.json", "weight_map", "weights", "weight_map");
    refused("model.safetensors.index.json", "\"model-00004", "\"../model-00004",
            "is in \"../model-00004-of-00004.safetensors\": not a plain file name");
    refused("model.safetensors.index.json", "\"model-00004", "\"./../model-00004", "not a plain file name");
    refused("model.safetensors.index.json", "model-00004", "model-00001",
            " is said to be in model-00001-of-00004.safetensors and is not");
    refused("model.safetensors.index.json", "}", "", "index.json:");
    refused("config.json", "Qwen3ForCausalLM", "LlamaForCausalLM", "LlamaForCausalLM");
    refused("config.json", "\"vocab_size\": 6", "\"vocab_size\": 7", "config.json asks for");
    refused("config.json", "\"num_hidden_layers\": ", "\"num_hidden_layers\": 1", "layer_types has 2");

    CHECK(dir_make(full, &err) == 0, "%s", err.text);
    scratch_write(file, "x", 1);
    ok(export_to("tests/golden/tied", full, "float32", 1000000, &err) != 0 && strstr(err.text, "not an empty"), "%s",
       err.text);
    ok(hf_import(&(hf_import_options){.dir = "tests/golden/tied", .output_dir = run}, &err) != 0 && strstr(err.text, "exists already"), "%s",
       err.text);
    free(full), free(file), free(run);
}

/* A name with `before` in front; "-": without "model.". */
static char *renamed(const char *name, const char *before)
{
    const bool cut = strcmp(before, "-") == 0;

    return xasprintf("%s%s", cut ? "" : before, cut && strncmp(name, "model.", 6) == 0 ? name + 6 : name);
}

static float changed_to = 1;

/* All tensors of `from` in one file, under names with `before`, the one called `changed` all changed_to, and behind
 * them the embedding as `more`. */
static void write_named(const char *from, const char *dir, const char *file, const char *changed, const char *more,
                        const char *before)
{
    char *path = xasprintf("%s/%s", dir, file);
    moai_error err;
    weights *w = weights_open(from, &err);
    safetensors_writer *out = safetensors_create(path, &err);
    param_table t;

    CHECK(w && out, "%s", err.text);
    params_whole(&t, weights_config(w));
    const param *embed = params_find(&t, "model.embed_tokens.weight");
    for (int i = 0; i < t.n + (more != NULL); i++) {
        const param *p = i < t.n ? &t.list[i] : embed;
        char *name = renamed(i < t.n ? p->name : more, before);
        safetensors_declare(out, name, DT_F32, p->ndim, p->ndim == 2 ? (int64_t[]){p->rows, p->cols} : &p->cols);
        free(name);
    }
    for (int i = 0; i < t.n + (more != NULL); i++) {
        const param *p = i < t.n ? &t.list[i] : embed;
        const int64_t n = p->rows * p->cols;
        float *x = xmalloc((size_t)n * sizeof *x);
        CHECK(weights_read(w, p->name, 0, p->rows, 0, p->cols, x, p->cols, &err) == 0, "%s", err.text);
        for (int64_t e = 0; i < t.n && changed && strcmp(p->name, changed) == 0 && e < n; e++)
            x[e] = changed_to;
        CHECK(safetensors_write(out, x, n, &err) == 0, "%s", err.text);
        free(x);
    }
    CHECK(safetensors_finish(out, &err) == 0, "%s", err.text);
    params_free(&t);
    weights_free(w);
    free(path);
}

static void write_copy(const char *from, const char *dir, const char *file, const char *changed, const char *more)
{
    write_named(from, dir, file, changed, more, "");
}

/* A directory with the config.json of `from` and no weights yet. */
static char *new_directory(const char *from)
{
    char *dir = scratch("copy"), *source = xasprintf("%s/config.json", from), *path = xasprintf("%s/config.json", dir);
    moai_error err;

    CHECK(dir_remove(dir, &err) == 0 && dir_make(dir, &err) == 0 && file_copy(source, path, &err) == 0, "%s", err.text);
    free(source), free(path);
    return dir;
}

/* A head beside a tied embedding, and a tensor that is no part of the model. */
static void more_than_asked(void)
{
    const char *tied = "tests/golden/tied", *embed = "model.embed_tokens.weight", *first = "";
    moai_error err = {.text = ""};
    param_table t;

    char *dir = new_directory(tied);
    write_copy(tied, dir, "model.safetensors", NULL, "lm_head.weight");
    ok(n_different(tied, dir, false, &err) == 0, "a tied head that is stored twice %s", err.text);
    write_copy(tied, dir, "model.safetensors", embed, "lm_head.weight");
    ok(!weights_open(dir, &err) && strstr(err.text, "lm_head.weight is not model.embed_tokens.weight"), "%s", err.text);
    write_copy(tied, dir, "model.safetensors", NULL, "model.more.weight");
    weights *w = weights_open(dir, &err);
    hf_files *h = hf_open(dir, &err);
    CHECK(w && h, "%s", err.text);
    params_whole(&t, weights_config(w));
    const int n = hf_unknown(h, &t, &first);
    ok(n == 1 && strcmp(first, "model.more.weight") == 0, "a tensor of no use is counted: %d, %s", n, first);
    params_free(&t);
    hf_close(h);
    weights_free(w);
    free(dir);
}

/* Two copies of a tensor: the index says which one counts; and model.safetensors counts before any index. */
static void stale_copies(void)
{
    const char *from = "tests/golden/gqa7", *norm = "model.norm.weight";
    char *dir = new_directory(from), *index = xasprintf("%s/model.safetensors.index.json", dir);
    json_t *map = json_object(), *root = json_pack("{s:o}", "weight_map", map);
    moai_error err = {.text = ""};

    write_copy(from, dir, "a.safetensors", norm, NULL);
    write_copy(from, dir, "z.safetensors", NULL, NULL);
    json_object_set_new(map, "model.embed_tokens.weight", json_string("a.safetensors"));
    json_object_set_new(map, norm, json_string("z.safetensors"));
    CHECK(json_dump_file(root, index, 0) == 0, "%s", index);
    ok(n_different(from, dir, false, &err) == 0, "the index names the file of a tensor that two files hold %s",
       err.text);
    json_object_set_new(map, norm, json_string("a.safetensors"));
    CHECK(json_dump_file(root, index, 0) == 0, "%s", index);
    ok(n_different(from, dir, false, &err) > 0, "the other one where it names the other");
    static const char odd[] = "{\"metadata\": {\"total_size\": 1e400, \"n\": [99999999999999999999, NaN]}, \"weight_map\": "
                              "{\"model.norm.weight\": \"z.safetensors\", \"model.norm.weight\": \"%s.safetensors\", "
                              "\"model.embed_tokens.weight\": \"a.safetensors\"}}";
    for (int i = 0; i < 2; i++) {
        char *text = xasprintf(odd, i ? "a" : "z");
        scratch_write(index, text, strlen(text));
        free(text);
        const int64_t n = n_different(from, dir, false, &err);
        ok(i ? n < 0 && strstr(err.text, "is there twice, in z.safetensors and a.safetensors") : n == 0,
           "an index whose metadata hold anything, one tensor named twice: %s", err.text);
    }
    write_copy(from, dir, "model.safetensors", NULL, NULL);
    ok(n_different(from, dir, false, &err) == 0, "model.safetensors counts before an index, as in Transformers %s",
       err.text);
    json_decref(root);
    free(index), free(dir);
}

static void no_weights(const char *dir, const char *words)
{
    moai_error err = {.text = ""};
    weights *w = weights_open(dir, &err);

    ok(!w && strstr(err.text, dir) && strstr(err.text, words), "%s", err.text);
    weights_free(w);
}

/* A Qwen3Model's names, and those that wrappers make. */
static void other_names(void)
{
    moai_error err = {.text = ""};
    char *dir = new_directory("tests/golden/tied");

    write_named("tests/golden/tied", dir, "model.safetensors", NULL, NULL, "-");
    ok(n_different("tests/golden/tied", dir, false, &err) == 0, "a base model with a tied head %s", err.text);
    write_named("tests/golden/tied", dir, "model.safetensors", NULL, "lm_head.weight", "-");
    ok(n_different("tests/golden/tied", dir, false, &err) == 0, "that is stored too %s", err.text);
    write_named("tests/golden/tied", dir, "model.safetensors", NULL, NULL, "module.");
    no_weights(dir, ": no model.embed_tokens.weight, but module.model.embed_tokens.weight (F32): the names have "
                    "\"module.\" before them");
    write_named("tests/golden/tied", dir, "model.safetensors", NULL, NULL, "_orig_mod.");
    no_weights(dir, "have \"_orig_mod.\" before");
    write_named("tests/golden/tied", dir, "model.safetensors", NULL, NULL, "x");
    no_weights(dir, "but xmodel.embed_tokens.weight (F32)");
    free(dir);

    dir = new_directory("tests/golden/gqa7");
    write_named("tests/golden/gqa7", dir, "model.safetensors", NULL, NULL, "-");
    ok(n_different("tests/golden/gqa7", dir, false, &err) == 0, "a base model's names with a head beside them %s",
       err.text);
    free(dir);
    char *gqa7 = new_directory("tests/golden/gqa7");
    write_named("tests/golden/tied", gqa7, "model.safetensors", NULL, NULL, "-");
    no_weights(gqa7, "config.json asks for");
    free(gqa7);
}

/* The whole file with each `from` become `to`, as long. */
static void change_bytes(const char *path, const char *from, const char *to)
{
    moai_error err;
    size_t n;
    char *data = file_read(path, 1 << 30, &n, &err);

    CHECK(data, "%s", err.text);
    for (char *at = data; (at = memmem(at, n - (size_t)(at - data), from, strlen(from))); at++)
        memcpy(at, to, strlen(from));
    scratch_write(path, data, n);
    free(data);
}

static void other_values(void)
{
    const char *from = "tests/golden/gqa7", *norm = "model.layers.1.post_attention_layernorm.weight";
    moai_error err = {.text = ""};
    char *dir = new_directory(from), *path = xasprintf("%s/model.safetensors", dir);
    float x[2];

    changed_to = NAN;
    write_copy(from, dir, "model.safetensors", norm, NULL);
    changed_to = 1;
    weights *w = weights_open(dir, &err);
    ok(w && weights_read(w, norm, 0, 1, 1, 2, x, 2, &err) != 0 && strstr(err.text, dir) && strstr(err.text, norm) &&
           strstr(err.text, "is nan at row 0, column 1"), "%s", err.text);
    weights_free(w);
    write_copy(from, dir, "model.safetensors", NULL, NULL);
    change_bytes(path, "\"F32\"", "\"I32\"");
    no_weights(dir, "is I32, must be F32, BF16 or F16");
    write_copy(from, dir, "model.safetensors", NULL, NULL);
    change_bytes(path, "lm_head.weight", "ln_head.weight");
    no_weights(dir, ": no lm_head.weight, and tie_word_embeddings is false");
    write_copy(from, dir, "model.safetensors", NULL, NULL);
    change_bytes(path, "k_norm", "k_nerm");
    no_weights(dir, "no model.layers.0.self_attn.k_norm.weight, which config.json asks for; of its ");
    free(path), free(dir);
}

/* The index names tensors of no use that are nowhere, and a file by "./". */
static void index_of_more(void)
{
    const char *from = "tests/golden/tied";
    char *dir = new_directory(from), *index = xasprintf("%s/model.safetensors.index.json", dir);
    static const char text[] = "{\"weight_map\": {\"model.embed_tokens.weight\": \"./a.safetensors\", "
                               "\"model.rotary_emb.inv_freq\": \"a.safetensors\", "
                               "\"lm_head.weight\": \"a.safetensors\"}}";
    moai_error err = {.text = ""};
    const char *first = "";
    param_table t;

    write_copy(from, dir, "a.safetensors", NULL, NULL);
    scratch_write(index, text, sizeof text - 1);
    ok(n_different(from, dir, false, &err) == 0, "an index that names more than there is %s", err.text);
    weights *w = weights_open(dir, &err);
    hf_files *h = hf_open(dir, &err);
    CHECK(w && h, "%s", err.text);
    params_whole(&t, weights_config(w));
    const int n = hf_lacking(h, &t, &first);
    ok(n == 2, "is said: %d, %s", n, first);
    params_free(&t);
    hf_close(h);
    weights_free(w);
    free(index), free(dir);
}

static void other_forms(void)
{
    static const struct {
        const char *file, *says;
    } cases[] = {
        {"training_args.bin", "holds no weights: was all of it fetched?"},
        {"pytorch_model.bin", "holds pytorch_model.bin, which is not read: in Python, AutoModelForCausalLM"},
        {"pytorch_model-00001-of-00002.bin", "save_pretrained(NEW, safe_serialization=True)"},
        {"adapter_model.safetensors", "adapters, which are no model: `moai_checkpoint merge"},
        {"adapter_config.json", "folds them into their model"},
        {"qwen3-q4_k_m.gguf", "holds qwen3-q4_k_m.gguf, llama.cpp's format"},
        {"model-00002-of-00002.safetensors", "but not model.safetensors.index.json"},
        {"model.fp16.safetensors", "holds model.fp16.safetensors, but only model.safetensors is read"},
        {"consolidated.00.pth", "holds consolidated.00.pth, which is not read"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *dir = new_directory("tests/golden/tied"), *path = xasprintf("%s/%s", dir, cases[i].file),
             *config = xasprintf("%s/config.json", dir);
        scratch_write(path, "x", 1);
        no_weights(dir, cases[i].says);
        CHECK(unlink(config) == 0, "%s", config);
        no_weights(dir, i ? cases[i].says : "is no checkpoint, holds none");
        free(dir), free(path), free(config);
    }
}

int main(void)
{
    static const char *const names[] = {"gqa7", "tied", "linear", "dynamic", "yarn"};
    moai_device *dev = device_open_cpu(1);

    for (int i = 0; i < 5; i++) round_trip(names[i]);
    zero_moments(dev);
    wrong();
    more_than_asked();
    stale_copies();
    other_names();
    other_values();
    index_of_more();
    other_forms();
    device_close_cpu(dev);
    return tap_done();
}
