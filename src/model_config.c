/* model_config.c: a Hugging Face config.json of Qwen3ForCausalLM, see config.h */
#include "config.h"
#include "keys.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(f) offsetof(model_config, f)
#define ROWS(t) ((key_table){t, (int)(sizeof(t) / sizeof((t)[0]))})

static const key_spec shape_rows[] = {
    {.name = "num_hidden_layers", .type = KEY_INT, .offset = FIELD(num_hidden_layers), .min = 1, .max = 1024},
    {.name = "hidden_size", .type = KEY_INT, .offset = FIELD(hidden_size), .min = 1, .max = 1 << 20},
    {.name = "intermediate_size", .type = KEY_INT, .offset = FIELD(intermediate_size), .min = 1, .max = 1 << 22},
    {.name = "num_attention_heads", .type = KEY_INT, .offset = FIELD(num_attention_heads), .min = 1, .max = 4096},
    {.name = "num_key_value_heads", .type = KEY_INT, .offset = FIELD(num_key_value_heads), .min = 1, .max = 4096},
    {.name = "head_dim", .type = KEY_INT, .offset = FIELD(head_dim), .initial = "128", .min = 2, .max = 1024},
    {.name = "vocab_size", .type = KEY_INT, .offset = FIELD(vocab_size), .min = 1, .max = INT32_MAX},
    {.name = "max_position_embeddings", .type = KEY_INT, .offset = FIELD(max_position_embeddings), .initial = "32768",
     .min = 1, .max = INT32_MAX},
    {.name = "pad_token_id", .type = KEY_INT, .offset = FIELD(pad_token_id), .initial = "-1", .min = -1,
     .max = INT32_MAX},
    {.name = "bos_token_id", .type = KEY_INT, .offset = FIELD(bos_token_id), .initial = "-1", .min = -1,
     .max = INT32_MAX},
    {.name = "eos_token_id", .type = KEY_INT, .offset = FIELD(eos_token_id), .initial = "-1", .min = -1,
     .max = INT32_MAX},
    {.name = "tie_word_embeddings", .type = KEY_BOOL, .offset = FIELD(tie_word_embeddings), .initial = "false"},
    {.name = "rms_norm_eps", .type = KEY_DOUBLE, .offset = FIELD(rms_norm_eps), .initial = "1e-6", .min = 0, .max = 1},
    {.name = "initializer_range", .type = KEY_DOUBLE, .offset = FIELD(initializer_range), .initial = "0.02", .min = 0,
     .max = 10},
    {.name = "rope_theta", .type = KEY_DOUBLE, .offset = FIELD(rope_theta), .min = 1, .max = 1e12},
};
static const key_table shape_keys = ROWS(shape_rows);

static const key_choice rope_kinds[] = {
    {"default", ROPE_DEFAULT}, {"linear", ROPE_LINEAR}, {"dynamic", ROPE_DYNAMIC}, {"yarn", ROPE_YARN}, {NULL, 0}};

/* of rope_scaling or rope_parameters */
static const key_spec rope_rows[] = {
    {.name = "rope_type", .alias = "type", .type = KEY_CHOICE, .offset = FIELD(rope.kind), .initial = "default",
     .choices = rope_kinds},
    {.name = "rope_theta", .type = KEY_DOUBLE, .offset = FIELD(rope_theta), .min = 1, .max = 1e12},
    {.name = "factor", .type = KEY_DOUBLE, .offset = FIELD(rope.factor), .initial = "1", .min = 1, .max = 1e6},
    {.name = "beta_fast", .alias = "beta", .type = KEY_DOUBLE, .offset = FIELD(rope.beta_fast), .initial = "32",
     .min = 1e-6, .max = 1e6},
    {.name = "beta_slow", .alias = "alpha", .type = KEY_DOUBLE, .offset = FIELD(rope.beta_slow), .initial = "1",
     .min = 1e-6, .max = 1e6},
    {.name = "attention_factor", .type = KEY_DOUBLE, .offset = FIELD(rope.attention_factor), .initial = "0", .min = 0,
     .max = 1e6},
    {.name = "mscale", .type = KEY_DOUBLE, .offset = FIELD(rope.mscale), .initial = "0", .min = 0, .max = 1e6},
    {.name = "mscale_all_dim", .type = KEY_DOUBLE, .offset = FIELD(rope.mscale_all_dim), .initial = "0", .min = 0,
     .max = 1e6},
    {.name = "original_max_position_embeddings", .type = KEY_INT,
     .offset = FIELD(rope.original_max_position_embeddings), .initial = "0", .min = 0, .max = INT32_MAX},
    {.name = "truncate", .type = KEY_BOOL, .offset = FIELD(rope.truncate), .initial = "true"},
};
static const key_table rope_keys = ROWS(rope_rows);

/* Keys whose other values would change the arithmetic: each must be absent, null, or this. */
static const struct {
    const char *name, *json;
} fixed_keys[] = {{"model_type", "\"qwen3\""},     {"hidden_act", "\"silu\""},   {"attention_bias", "false"},
                  {"mlp_bias", "false"},           {"attention_dropout", "0.0"}, {"use_sliding_window", "false"},
                  {"partial_rotary_factor", "1.0"}};

/* Keys of Hugging Face's files that do not touch the training arithmetic.  Others are let through too, unless they
 * look like a slip of the pen for a key that counts. */
static const char *const other_keys[] = {"architectures",  "rope_scaling",     "rope_parameters",      "torch_dtype",
                                         "dtype",          "use_cache",        "transformers_version", "layer_types",
                                         "sliding_window", "max_window_layers"};

static int check_architecture(const json_t *object, const char *path, moai_error *err)
{
    const json_t *list = json_object_get(object, "architectures");
    const char *name;

    if (!list || json_is_null(list)) return 0;
    name = json_string_value(json_array_get(list, 0));
    if (json_array_size(list) == 1 && name && !strcmp(name, "Qwen3ForCausalLM")) return 0;
    char *shown = json_text(list, JSON_COMPACT);
    error_set(err, "%s: architectures is %.200s, must be [\"Qwen3ForCausalLM\"]", path, shown);
    free(shown);
    return -1;
}

static int check_fixed(const json_t *object, const char *path, moai_error *err)
{
    for (size_t i = 0; i < sizeof fixed_keys / sizeof *fixed_keys; i++) {
        const json_t *value = json_object_get(object, fixed_keys[i].name);
        if (!value || json_is_null(value)) continue;
        json_t *wanted = json_loads(fixed_keys[i].json, JSON_DECODE_ANY, NULL);
        bool same = json_is_number(wanted) && json_is_number(value)
                        ? json_number_value(wanted) == json_number_value(value)
                        : json_equal(wanted, value);
        json_decref(wanted);
        if (same) continue;
        char *shown = json_text(value, JSON_COMPACT);
        error_set(err, "%s: %s is %.80s, must be %s", path, fixed_keys[i].name, shown, fixed_keys[i].json);
        free(shown);
        return -1;
    }
    if (json_object_get(object, "quantization_config"))
        return error_set(err, "%s: quantization_config: quantized weights are not supported", path);
    return 0;
}

static int check_layer_types(const json_t *object, const char *path, moai_error *err)
{
    const json_t *list = json_object_get(object, "layer_types"), *kind;
    size_t i;

    json_array_foreach(list, i, kind)
        if (!json_is_string(kind) || strcmp(json_string_value(kind), "full_attention"))
            return error_set(err, "%s: layer_types[%zu] is \"%s\", must be \"full_attention\"", path, i,
                             json_is_string(kind) ? json_string_value(kind) : "?");
    return 0;
}

static bool is_other_key(const char *name)
{
    for (size_t i = 0; i < sizeof other_keys / sizeof *other_keys; i++)
        if (!strcmp(other_keys[i], name)) return true;
    for (size_t i = 0; i < sizeof fixed_keys / sizeof *fixed_keys; i++)
        if (!strcmp(fixed_keys[i].name, name)) return true;
    return false;
}

static int read_shape(model_config *c, const json_t *object, const char *path, moai_error *err)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)object, name, value) {
        const key_spec *k = keys_find(shape_keys, name), *near;
        char label[640];
        if (is_other_key(name) || json_is_null(value)) continue;
        if (!k) {
            near = keys_nearest(shape_keys, name, 2);
            if (!near || json_object_get(object, near->name)) continue;
            return error_set(err, "%s: unknown key \"%s\"; did you mean \"%s\"?", path, name, near->name);
        }
        if (k->offset == FIELD(eos_token_id) && json_array_size(value) == 1) value = json_array_get(value, 0);
        format_elided(label, sizeof label, "%s: %s", path, name);
        if (key_set_json(k, c, label, value, err)) return -1;
    }
    return 0;
}

static int read_rope(model_config *c, const json_t *rope, const char *where, moai_error *err)
{
    const json_t *seen[sizeof rope_rows / sizeof *rope_rows] = {NULL};
    bool factor_given = false;
    const char *name;
    json_t *value;

    if (!json_is_object(rope)) return error_set(err, "%s must be an object", where);
    json_object_foreach((json_t *)rope, name, value) {
        const key_spec *k = keys_find(rope_keys, name);
        char label[640];
        if (!strcmp(name, "partial_rotary_factor") && json_number_value(value) == 1) continue;
        if (!k) return error_set(err, "%s.%s: unknown key; it would change the rotation", where, name);
        if (json_is_null(value)) continue;
        format_elided(label, sizeof label, "%s.%s", where, name);
        if (k->offset == FIELD(rope.attention_factor) && json_is_number(value) && json_number_value(value) == 0)
            return error_set(err, "%s is 0, which would take all positions away", label);
        const json_t **earlier = &seen[k - rope_rows];
        if (*earlier && !json_equal(*earlier, value))
            return error_set(err, "%s and %s.%s differ", label, where, k->name);
        if (key_set_json(k, c, label, value, err)) return -1;
        *earlier = value;
        factor_given |= k->offset == FIELD(rope.factor);
    }
    if (c->rope.kind != ROPE_DEFAULT && !factor_given)
        return error_set(err, "%s.factor is missing, and rope_type is \"%s\"", where, rope_kinds[c->rope.kind].name);
    return 0;
}

/* Transformers 5 moves it from beside the rope keys in among them, 4 does not read it there: two rotations. */
static int check_original(const model_config *c, const json_t *object, const char *path, moai_error *err)
{
    const json_t *beside = json_object_get(object, "original_max_position_embeddings");

    if (!beside || json_is_null(beside) || c->rope.kind != ROPE_YARN) return 0;
    const int64_t among = c->rope.original_max_position_embeddings;
    if (json_integer_value(beside) == (among ? among : c->max_position_embeddings)) return 0;
    char *shown = json_text(beside, JSON_COMPACT | JSON_ENCODE_ANY);
    error_set(err, "%s: original_max_position_embeddings is %.80s, must stand in rope_scaling or rope_parameters", path,
              shown);
    free(shown);
    return -1;
}

/* Transformers 5 prefers rope_scaling, unless it is {}, when a file has both; so do we.  Export writes the same in
 * both. */
static int read_rope_any(model_config *c, const json_t *object, const char *path, moai_error *err)
{
    static const char *const names[] = {"rope_scaling", "rope_parameters"};

    for (int i = 0; i < 2; i++) {
        const json_t *rope = json_object_get(object, names[i]);
        char where[512];
        if (!rope || json_is_null(rope) || (json_is_object(rope) && json_object_size(rope) == 0)) continue;
        format_elided(where, sizeof where, "%s: %s", path, names[i]);
        return read_rope(c, rope, where, err) || check_original(c, object, path, err) ? -1 : 0;
    }
    return 0;
}

static int check_required(const json_t *object, const model_config *c, const char *path, moai_error *err)
{
    for (int i = 0; i < shape_keys.n; i++) {
        const key_spec *k = &shape_keys.list[i];
        const json_t *value = json_object_get(object, k->name);
        bool given = value && !json_is_null(value);
        if (k->offset == FIELD(rope_theta)) given = c->rope_theta > 0;
        if (!k->initial && !given) return error_set(err, "%s: %s is missing", path, k->name);
    }
    return 0;
}

static int check_shape(model_config *c, const char *path, moai_error *err)
{
    int64_t heads = c->num_attention_heads, kv_heads = c->num_key_value_heads;

    if (c->head_dim % 2) return error_set(err, "%s: head_dim is %lld, must be even", path, (long long)c->head_dim);
    if (heads % kv_heads)
        return error_set(err, "%s: num_attention_heads %lld is not a multiple of num_key_value_heads %lld", path,
                         (long long)heads, (long long)kv_heads);
    const struct {
        const char *name;
        int64_t id;
    } tokens[] = {
        {"pad_token_id", c->pad_token_id}, {"bos_token_id", c->bos_token_id}, {"eos_token_id", c->eos_token_id}};
    for (int i = 0; i < 3; i++)
        if (tokens[i].id >= c->vocab_size)
            return error_set(err, "%s: %s is %lld, must be below vocab_size %lld", path, tokens[i].name,
                             (long long)tokens[i].id, (long long)c->vocab_size);
    return 0;
}

int model_config_read(model_config *c, const char *path, moai_error *err)
{
    json_t *object = json_read_object(path, err);
    int status = -1;

    if (!object) return -1;
    memset(c, 0, sizeof *c);
    keys_defaults(shape_keys, c);
    keys_defaults(rope_keys, c);
    if (!check_architecture(object, path, err) && !check_fixed(object, path, err) &&
        !check_layer_types(object, path, err) && !read_shape(c, object, path, err) &&
        !read_rope_any(c, object, path, err) && !check_required(object, c, path, err))
        status = check_shape(c, path, err);
    json_decref(object);
    return status;
}

static json_t *rope_json(const model_config *c, bool with_theta)
{
    json_t *rope = json_object();
    model_config initial = {0};

    keys_defaults(rope_keys, &initial);
    for (int i = 0; i < rope_keys.n; i++) {
        const key_spec *k = &rope_keys.list[i];
        json_t *value = key_get_json(k, c), *unset = key_get_json(k, &initial);
        bool wanted =
            k->offset == FIELD(rope_theta) ? with_theta : k->offset == FIELD(rope.kind) || !json_equal(value, unset);
        if (k->offset == FIELD(rope.factor)) wanted = c->rope.kind != ROPE_DEFAULT;
        if (wanted) json_object_set(rope, k->name, value);
        json_decref(value);
        json_decref(unset);
    }
    return rope;
}

/* Transformers 4 reads rope_theta and rope_scaling and keeps rope_parameters unread; 5 reads either. */
int model_config_write(const model_config *c, const char *path, const char *torch_dtype, moai_error *err)
{
    json_t *object = json_object();

    json_object_set_new(object, "architectures", json_pack("[s]", "Qwen3ForCausalLM"));
    json_object_set_new(object, "model_type", json_string("qwen3"));
    for (int i = 0; i < shape_keys.n; i++) {
        const key_spec *k = &shape_keys.list[i];
        bool no_token = k->initial && !strcmp(k->initial, "-1") && *(const int64_t *)((const char *)c + k->offset) < 0;
        json_object_set_new(object, k->name, no_token ? json_null() : key_get_json(k, c));
    }
    json_object_set_new(object, "rope_scaling", c->rope.kind == ROPE_DEFAULT ? json_null() : rope_json(c, false));
    json_object_set_new(object, "rope_parameters", rope_json(c, true));
    json_object_set_new(object, "hidden_act", json_string("silu"));
    json_object_set_new(object, "attention_bias", json_false());
    json_object_set_new(object, "attention_dropout", json_real(0));
    json_object_set_new(object, "use_sliding_window", json_false());
    json_object_set_new(object, "sliding_window", json_null());
    json_object_set_new(object, "use_cache", json_true());
    json_object_set_new(object, "torch_dtype", json_string(torch_dtype));
    int status = json_write_file(object, path, err);
    json_decref(object);
    return status;
}

/* weights of a layer's seven matrices */
static int64_t layer_products(const model_config *c)
{
    int64_t q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;

    return c->hidden_size * (2 * q + 2 * kv + 3 * c->intermediate_size);
}

int64_t model_n_params(const model_config *c)
{
    int64_t layer = layer_products(c) + 2 * c->hidden_size + 2 * c->head_dim;
    int64_t tables = (c->tie_word_embeddings ? 1 : 2) * c->vocab_size * c->hidden_size;

    return c->num_hidden_layers * layer + tables + c->hidden_size;
}

double model_flops_products(const model_config *c)
{
    return 6.0 * (double)(c->num_hidden_layers * layer_products(c) + c->vocab_size * c->hidden_size);
}

/* Forward: QK^T and PV are 2 * 2 * T * Q a token, halved by the causal mask; backward twice that. */
double model_flops_attention(const model_config *c, int64_t seq_len)
{
    return 6.0 * (double)(c->num_hidden_layers * c->num_attention_heads * c->head_dim) * (double)seq_len;
}

static int compare_keys(key_table t, const char *prefix, const model_config *a, const model_config *b, moai_error *err)
{
    int status = 0;

    for (int i = 0; i < t.n && !status; i++) {
        json_t *x = key_get_json(&t.list[i], a), *y = key_get_json(&t.list[i], b);
        if (!json_equal(x, y)) {
            char *x_text = json_text(x, JSON_COMPACT), *y_text = json_text(y, JSON_COMPACT);
            status = error_set(err, "%s%s is %s in one and %s in the other", prefix, t.list[i].name, x_text, y_text);
            free(x_text);
            free(y_text);
        }
        json_decref(x);
        json_decref(y);
    }
    return status;
}

int model_config_same(const model_config *a, const model_config *b, moai_error *err)
{
    return compare_keys(shape_keys, "", a, b, err) || compare_keys(rope_keys, "rope ", a, b, err) ? -1 : 0;
}
