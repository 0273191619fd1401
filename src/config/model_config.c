/* model_config.c: a Hugging Face config.json of Qwen3ForCausalLM, see model_config.h */
#include "src/config/model_config.h"
#include "src/config/choices.h"
#include "src/config/model_refused.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Transformers' */
#define DEFAULT_THETA 10000.0
#define DEFAULT_WINDOW 4096
#define DEFAULT_WINDOW_LAYERS 28              /* whole layers before the first that has the window */

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
    {.name = "tie_word_embeddings", .type = KEY_BOOL, .offset = FIELD(tie_word_embeddings), .initial = "false"},
    {.name = "rms_norm_eps", .type = KEY_DOUBLE, .offset = FIELD(rms_norm_eps), .initial = "1e-6", .min = 0, .max = 1},
    {.name = "initializer_range", .type = KEY_DOUBLE, .offset = FIELD(initializer_range), .initial = "0.02", .min = 0,
     .max = 10},
    {.name = "rope_theta", .type = KEY_DOUBLE, .offset = FIELD(rope_theta), .min = 1, .max = 1e12},
};
static const key_table shape_keys = ROWS(shape_rows);

const key_choice hc_mixings[] = {{"sinkhorn", HC_SINKHORN}, {"permutation", HC_PERMUTATION}, {NULL, 0}};
const key_choice weight_quantizations[] = {{"none", QUANTIZATION_NONE}, {"nf4", QUANTIZATION_NF4}, {NULL, 0}};

/* of no config.json of a plain residual */
static const key_spec hc_rows[] = {
    {.name = "hc_mult", .type = KEY_INT, .offset = FIELD(hc.mult), .initial = "1", .min = 1, .max = 8},
    {.name = "hc_sinkhorn_iters", .type = KEY_INT, .offset = FIELD(hc.sinkhorn_iters), .initial = "20", .min = 1,
     .max = 64},
    {.name = "hc_eps", .type = KEY_DOUBLE, .offset = FIELD(hc.eps), .initial = "1e-6", .min = 1e-12, .max = 1},
    {.name = "hc_mixing", .type = KEY_CHOICE, .offset = FIELD(hc.mixing), .initial = "sinkhorn",
     .choices = hc_mixings},
    {.name = "hc_head", .type = KEY_BOOL, .offset = FIELD(hc.head), .initial = "false"},
    {.name = "hc_init_alpha", .type = KEY_DOUBLE, .offset = FIELD(hc.init_alpha), .initial = "0.01", .min = 0,
     .max = 100},
};
static const key_table hc_keys = ROWS(hc_rows);

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

static const char *const rope_names[] = {"rope_scaling", "rope_parameters"};

static char *shown_json(const json_t *value) { return json_text(value, JSON_COMPACT); }

/* "FILE: KEY is VALUE, must be MUST" */
static int wrong_value(const json_members *m, const char *key, const json_t *value, const char *must, moai_error *err)
{
    char *shown = shown_json(value);

    error_set(err, "%s%s%s is %.200s, must be %s", m->name, m->between, key, shown, must);
    free(shown);
    return -1;
}

/* Two keys, one meaning. */
static int check_equal(const json_members *m, const char *key, const json_t *a, const char *other, const json_t *b,
                       moai_error *err)
{
    if (!a || !b || json_same(a, b)) return 0;
    char *x = shown_json(a), *y = shown_json(b);
    error_set(err, "%s%s%s is %.80s and %s is %.80s: two values for one meaning", m->name, m->between, key, x, other,
              y);
    free(x);
    free(y);
    return -1;
}

/* Python takes 1 and 0 for true and false. */
static void settle_switch(json_t **value)
{
    const double number = json_number_value(*value);

    if (!json_is_number(*value) || (number != 0 && number != 1)) return;
    json_decref(*value);
    *value = json_boolean(number != 0);
}

/* The row's key under its name or its alias; *given says whether. */
static int read_key(const json_members *m, const key_spec *k, model_config *c, bool *given, moai_error *err)
{
    json_t *value = NULL, *other = NULL;
    int status = json_members_get(m, k->name, &value, err);

    if (!status && k->alias) status = json_members_get(m, k->alias, &other, err);
    if (!status) status = check_equal(m, k->name, value, k->alias, other, err);
    *given = value || other;
    if (k->type == KEY_BOOL) settle_switch(&value), settle_switch(&other);
    if (!status && *given) {
        char *label = xasprintf("%s%s%s", m->name, m->between, value ? k->name : k->alias);
        status = key_set_json(k, c, label, value ? value : other, err);
        free(label);
    }
    json_decref(value);
    json_decref(other);
    return status;
}

/* -- what kind of model -- */

static int check_model_type(const json_members *m, moai_error *err)
{
    json_t *value;
    int status = json_members_get(m, "model_type", &value, err);

    const char *type = json_string_value(value);
    if (!status && value && (!type || (strcmp(type, "qwen3") && strcmp(type, "moai"))))
        status = wrong_value(m, "model_type", value, "\"qwen3\"", err);
    json_decref(value);
    return status;
}

/* A base model saved alone is the same one, see hf.h; an export with hyper-connections has a name of its own. */
static bool is_architecture(const char *name)
{
    return !strcmp(name, "Qwen3ForCausalLM") || !strcmp(name, "Qwen3Model") || !strcmp(name, "MoaiForCausalLM");
}

static int check_architecture(const json_members *m, moai_error *err)
{
    json_t *list, *one;
    int status = json_members_get(m, "architectures", &list, err);
    bool known = json_is_array(list);
    size_t i;

    json_array_foreach(list, i, one)
        known = known && json_is_string(one) && is_architecture(json_string_value(one));
    if (!status && list && !known)
        status = wrong_value(m, "architectures", list, "[\"Qwen3ForCausalLM\"]", err);
    json_decref(list);
    return status;
}

/* "torch.bfloat16" is "bfloat16" */
static const char *dtype_of(const json_t *value)
{
    const char *name = json_string_value(value);

    return name && !strncmp(name, "torch.", 6) ? name + 6 : name;
}

/* Nobody reads them here, but they are said to be one. */
static int check_dtype(const json_members *m, moai_error *err)
{
    json_t *old = NULL, *new = NULL;
    int status = json_members_get(m, "torch_dtype", &old, err);

    if (!status) status = json_members_get(m, "dtype", &new, err);
    const char *a = dtype_of(old), *b = dtype_of(new);
    if (!status && a && b && strcmp(a, b)) status = check_equal(m, "torch_dtype", old, "dtype", new, err);
    json_decref(old);
    json_decref(new);
    return status;
}

static int check_layer_types(const json_members *m, const model_config *c, moai_error *err)
{
    json_t *list, *kind;
    int status = json_members_get(m, "layer_types", &list, err);
    size_t i;

    if (!status && list && !json_is_array(list)) status = wrong_value(m, "layer_types", list, "a list", err);
    json_array_foreach(list, i, kind) {
        if (status || (json_is_string(kind) && !strcmp(json_string_value(kind), "full_attention"))) continue;
        char *key = xasprintf("layer_types[%zu]", i);
        status = wrong_value(m, key, kind, "\"full_attention\": no other is implemented", err);
        free(key);
    }
    if (!status && list && (int64_t)json_array_size(list) != c->num_hidden_layers)
        status = error_set(err, "%s: num_hidden_layers is %lld and layer_types has %zu: two values for one meaning",
                           m->name, (long long)c->num_hidden_layers, json_array_size(list));
    json_decref(list);
    return status;
}

static bool has_key(const json_members *m, const char *key)
{
    for (size_t i = 0; i < m->n; i++)
        if (!strcmp(m->list[i].key, key)) return true;
    return false;
}

/* The number under a key; `missing` where there is no such key, infinity where it is null. */
static int read_number(const json_members *m, const char *key, double missing, double *number, moai_error *err)
{
    json_t *value;
    int status = json_members_get(m, key, &value, err);

    *number = value ? json_number_value(value) : has_key(m, key) ? INFINITY : missing;
    if (!status && value && !json_is_number(value)) status = wrong_value(m, key, value, "a number", err);
    json_decref(value);
    return status;
}

/* true or false, also as 1 or 0; false where there is no such key, or null. */
static int read_switch(const json_members *m, const char *key, bool *on, moai_error *err)
{
    json_t *value;
    int status = json_members_get(m, key, &value, err);

    settle_switch(&value);
    *on = json_is_true(value);
    if (!status && value && !json_is_boolean(value)) status = wrong_value(m, key, value, "true or false", err);
    json_decref(value);
    return status;
}

/* A window in use counts but where it begins behind the last layer, is null, or is not narrower than the positions
 * reach; what is not given is Transformers' default. */
static int check_window(const json_members *m, const model_config *c, moai_error *err)
{
    double window, layers;
    bool used;

    if (read_switch(m, "use_sliding_window", &used, err)) return -1;
    if (!used) return 0;
    if (read_number(m, "sliding_window", DEFAULT_WINDOW, &window, err)) return -1;
    if (read_number(m, "max_window_layers", DEFAULT_WINDOW_LAYERS, &layers, err)) return -1;
    if ((layers >= (double)c->num_hidden_layers && !isinf(layers)) || isinf(window)) return 0;
    if (window >= (double)c->max_position_embeddings && c->rope.kind == ROPE_DEFAULT) return 0;
    return error_set(err,
                     "%s: use_sliding_window is true, must be false: a window (sliding_window %.0f of %lld positions, "
                     "from layer %.0f of %lld on) is not implemented", m->name, window,
                     (long long)c->max_position_embeddings, layers, (long long)c->num_hidden_layers);
}

/* -- its numbers -- */

static int read_eos(const json_members *m, token_list *list, moai_error *err)
{
    json_t *value, *one;
    int status = json_members_get(m, "eos_token_id", &value, err);
    const size_t n = json_is_array(value) ? json_array_size(value) : value != NULL;

    *list = (token_list){0};
    if (!status && n > MAX_EOS)
        status = error_set(err, "%s: eos_token_id has %zu tokens, at most %d are read", m->name, n, (int)MAX_EOS);
    for (size_t i = 0; !status && i < n; i++) {
        one = json_is_array(value) ? json_array_get(value, i) : value;
        const json_int_t id = json_integer_value(one);
        if (!json_is_integer(one) || id < -1)
            status = wrong_value(m, "eos_token_id", value, "a token or a list of tokens", err);
        else if (id >= 0)
            list->id[list->n++] = id;
    }
    json_decref(value);
    return status;
}

bool token_list_has(const token_list *list, int64_t id)
{
    for (int i = 0; i < list->n; i++)
        if (list->id[i] == id) return true;
    return false;
}

static int read_shape(model_config *c, const json_members *m, moai_error *err)
{
    for (int i = 0; i < shape_keys.n; i++) {
        const key_spec *k = &shape_keys.list[i];
        bool given;
        if (read_key(m, k, c, &given, err)) return -1;
        if (given || k->initial) continue;
        if (k->offset == FIELD(num_key_value_heads) && has_key(m, k->name))   /* null */
            c->num_key_value_heads = c->num_attention_heads;
        else if (k->offset != FIELD(rope_theta))
            return error_set(err, "%s: %s is missing", m->name, k->name);
    }
    for (int i = 0; i < hc_keys.n; i++) {
        bool given;
        if (read_key(m, &hc_keys.list[i], c, &given, err)) return -1;
    }
    return read_eos(m, &c->eos_token_id, err);
}

/* -- its positions -- */

typedef struct rope_given {
    model_config c;                           /* the rope fields and rope_theta */
    bool any, keys[sizeof rope_rows / sizeof *rope_rows];
} rope_given;

static int check_rope(const json_members *m, const rope_given *r, moai_error *err)
{
    bool factor_given = false;

    for (int i = 0; i < rope_keys.n; i++)
        if (rope_rows[i].offset == FIELD(rope.factor)) factor_given = r->keys[i];
        else if (rope_rows[i].offset == FIELD(rope.attention_factor) && r->keys[i] && r->c.rope.attention_factor == 0)
            return error_set(err, "%s.attention_factor is 0, which would take all positions away", m->name);
    if (r->c.rope.kind != ROPE_DEFAULT && !factor_given)
        return error_set(err, "%s.factor is missing, and rope_type is \"%s\"", m->name,
                         rope_kinds[r->c.rope.kind].name);
    return model_refused_check_rope(m, &r->c, err);
}

/* One of rope_names; absent, null and {} are none. */
static int read_rope(rope_given *r, const json_members *file, const char *key, moai_error *err)
{
    const json_member *found;

    *r = (rope_given){0};
    keys_defaults(rope_keys, &r->c);
    if (json_members_find(file, key, &found, err)) return -1;
    if (!found) return 0;
    char *name = xasprintf("%s: %s", file->name, key);
    json_members m = {0};
    int status = *found->text == '{' ? json_members_scan(&m, name, found->text, found->n_bytes, err)
                                     : error_set(err, "%s must be an object", name);
    r->any = !status && m.n > 0;
    for (int i = 0; !status && i < rope_keys.n; i++) status = read_key(&m, &rope_rows[i], &r->c, &r->keys[i], err);
    if (!status) status = check_rope(&m, r, err);
    json_members_free(&m);
    free(name);
    return status;
}

/* Transformers 5 takes rope_scaling alone where both are there, 4 knows no rope_parameters. */
static int check_both_ropes(const json_members *m, const rope_given *a, const rope_given *b, bool theta_beside,
                            moai_error *err)
{
    for (int i = 0; i < rope_keys.n; i++) {
        const key_spec *k = &rope_keys.list[i];
        const bool is_theta = k->offset == FIELD(rope_theta);
        if (is_theta && b->keys[i] && !a->keys[i] && !theta_beside)
            return error_set(err, "%s: rope_theta stands in rope_parameters, which Transformers does not read where "
                                  "there is a rope_scaling: it belongs beside them", m->name);
        if (is_theta && !(a->keys[i] && b->keys[i])) continue;
        json_t *x = key_get_json(k, &a->c), *y = key_get_json(k, &b->c);
        char *x_name = xasprintf("rope_scaling.%s%s", k->name, a->keys[i] ? "" : " (not given)"),
             *y_name = xasprintf("rope_parameters.%s%s", k->name, b->keys[i] ? "" : " (not given)");
        const int status = check_equal(m, x_name, x, y_name, y, err);
        free(x_name);
        free(y_name);
        json_decref(x);
        json_decref(y);
        if (status) return -1;
    }
    return 0;
}

/* rope_theta beside and among the rope keys is one meaning; without any, Transformers' default. */
static int settle_theta(model_config *c, const json_members *m, const rope_given *r, const char *where, moai_error *err)
{
    const double beside = c->rope_theta, among = r->c.rope_theta;

    if (beside > 0 && among > 0 && beside != among)
        return error_set(err, "%s: rope_theta is %.17g and %s.rope_theta is %.17g: two values for one meaning",
                         m->name, beside, where, among);
    c->rope_theta = beside > 0 ? beside : among;
    if (c->rope_theta > 0) return 0;
    c->rope_theta = DEFAULT_THETA;
    warn("%s: rope_theta is not given: it is %g, as in Transformers", m->name, c->rope_theta);
    return 0;
}

/* Transformers 5 moves it from beside the rope keys in among them, 4 does not read it there: two rotations. */
static int check_original(const model_config *c, const json_members *m, moai_error *err)
{
    json_t *beside;

    if (json_members_get(m, "original_max_position_embeddings", &beside, err)) return -1;
    const int64_t among = c->rope.original_max_position_embeddings;
    int status = 0;
    if (beside && c->rope.kind == ROPE_YARN &&
        json_number_value(beside) != (double)(among ? among : c->max_position_embeddings))
        status = wrong_value(m, "original_max_position_embeddings", beside,
                             "that of rope_scaling or rope_parameters", err);
    json_decref(beside);
    return status;
}

static int read_ropes(model_config *c, const json_members *m, moai_error *err)
{
    rope_given given[2];

    for (int i = 0; i < 2; i++)
        if (read_rope(&given[i], m, rope_names[i], err)) return -1;
    if (given[0].any && given[1].any && check_both_ropes(m, &given[0], &given[1], c->rope_theta > 0, err)) return -1;
    const int used = !given[0].any;
    if (settle_theta(c, m, &given[used], rope_names[used], err)) return -1;
    c->rope = given[used].c.rope;
    return check_original(c, m, err);
}

/* -- all together -- */

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
    } tokens[] = {{"pad_token_id", c->pad_token_id}, {"bos_token_id", c->bos_token_id}};
    for (int i = 0; i < 2; i++)
        if (tokens[i].id >= c->vocab_size)
            return error_set(err, "%s: %s is %lld, must be below vocab_size %lld", path, tokens[i].name,
                             (long long)tokens[i].id, (long long)c->vocab_size);
    for (int i = 0; i < c->eos_token_id.n; i++)
        if (c->eos_token_id.id[i] >= c->vocab_size)
            return error_set(err, "%s: eos_token_id has %lld, must be below vocab_size %lld", path,
                             (long long)c->eos_token_id.id[i], (long long)c->vocab_size);
    return 0;
}

/* Weights that bitsandbytes has stored in 4 bits (NF4); every other kind is refused. */
static int read_quantization(model_config *c, const json_members *m, moai_error *err)
{
    json_t *value;
    int status = json_members_get(m, "quantization_config", &value, err);
    const char *method = json_string_value(json_object_get(value, "quant_method")),
               *type = json_string_value(json_object_get(value, "bnb_4bit_quant_type"));

    c->quantization.stored = method && type && !strcmp(method, "bitsandbytes") && !strcmp(type, "nf4") &&
                             json_is_true(json_object_get(value, "load_in_4bit"));
    if (!status && value && !c->quantization.stored)
        status = wrong_value(m, "quantization_config", value,
                             "null, or bitsandbytes' with load_in_4bit and bnb_4bit_quant_type \"nf4\": what it asks for "
                             "is not implemented", err);
    json_decref(value);
    return status;
}

static int read_members(model_config *c, const json_members *m, moai_error *err)
{
    if (check_model_type(m, err) || check_architecture(m, err) || check_dtype(m, err)) return -1;
    if (read_shape(c, m, err) || read_ropes(c, m, err) || check_shape(c, m->name, err)) return -1;
    if (check_layer_types(m, c, err) || check_window(m, c, err)) return -1;
    return read_quantization(c, m, err) ? -1 : model_refused_check(m, c, err);
}

int model_config_read(model_config *c, const char *path, moai_error *err)
{
    json_members m;

    memset(c, 0, sizeof *c);
    keys_defaults(shape_keys, c);
    keys_defaults(hc_keys, c);
    keys_defaults(rope_keys, c);
    const int status = json_members_open(&m, path, err) || read_members(c, &m, err) ? -1 : 0;
    json_members_free(&m);
    return status;
}

int generation_config_read_eos(token_list *list, const char *path, int64_t vocab_size, moai_error *err)
{
    json_members m;

    *list = (token_list){0};
    if (access(path, F_OK) && errno == ENOENT) return 0;
    const int status = json_members_open(&m, path, err) || read_eos(&m, list, err) ? -1 : 0;
    json_members_free(&m);
    int n = 0;
    for (int i = 0; i < list->n; i++)
        if (list->id[i] < vocab_size) list->id[n++] = list->id[i];
    list->n = n;
    return status;
}

void model_config_remark(const model_config *c, const char *path)
{
    const bool yarn = c->rope.kind == ROPE_YARN;

    if (c->rope.kind == ROPE_DEFAULT && c->rope.factor != 1)
        warn("%s: factor %g of the rope keys has no effect: rope_type is \"default\"", path, c->rope.factor);
    if (c->rope.factor == 1 && (c->rope.kind == ROPE_LINEAR || (yarn && c->rope.attention_factor == 0)))
        warn("%s: rope_type \"%s\" has no effect: its factor is 1", path, rope_kinds[c->rope.kind].name);
    if (yarn && c->rope.factor != 1 && !c->rope.original_max_position_embeddings)
        warn("%s: yarn without original_max_position_embeddings: the length that it stretches is "
             "max_position_embeddings, %lld, as in Transformers", path, (long long)c->max_position_embeddings);
}

void model_config_remark_export(const model_config *c, const char *path)
{
    const double original = (double)c->rope.original_max_position_embeddings, reach = c->rope.factor * original;

    if (c->rope.kind != ROPE_YARN) return;
    if (original > 0 && reach != (double)c->max_position_embeddings)
        warn("%s: yarn's factor %g x original_max_position_embeddings %.0f is %.9g, not max_position_embeddings %lld: "
             "Transformers 4.51 to 4.55 would take the factor for %.9g, which is another model; from 4.56 on it is "
             "this one",
             path, c->rope.factor, original, reach, (long long)c->max_position_embeddings,
             (double)c->max_position_embeddings / original);
    if (!c->rope.truncate)
        warn("%s: yarn with truncate false: Transformers 4.51 to 4.54 do not know it, which is another model; from "
             "4.55 on it is this one", path);
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

json_t *token_list_json(const token_list *list)
{
    json_t *array = json_array();

    if (list->n == 1) return json_decref(array), json_integer(list->id[0]);
    for (int i = 0; i < list->n; i++) json_array_append_new(array, json_integer(list->id[i]));
    return list->n ? array : (json_decref(array), json_null());
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
    for (int i = 0; i < hc_keys.n && c->hc.mult > 1; i++)
        json_object_set_new(object, hc_keys.list[i].name, key_get_json(&hc_keys.list[i], c));
    json_object_set_new(object, "eos_token_id", token_list_json(&c->eos_token_id));
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

/* Rows of fn: to read, to write, to mix. */
int64_t model_hc_rows(const model_config *c)
{
    int64_t n_mixing = c->hc.mixing == HC_PERMUTATION ? 1 : c->hc.mult * c->hc.mult;

    for (int64_t k = 2; c->hc.mixing == HC_PERMUTATION && k <= c->hc.mult; k++) n_mixing *= k;
    return 2 * c->hc.mult + n_mixing;
}

/* fn, base and scale of a layer's two */
static int64_t layer_hc(const model_config *c)
{
    return c->hc.mult > 1 ? 2 * (model_hc_rows(c) * (c->hc.mult * c->hidden_size + 1) + 3) : 0;
}

int64_t model_n_params(const model_config *c)
{
    int64_t layer = layer_products(c) + layer_hc(c) + 2 * c->hidden_size + 2 * c->head_dim;
    int64_t tables = (c->tie_word_embeddings ? 1 : 2) * c->vocab_size * c->hidden_size;

    const int64_t head = c->hc.mult > 1 && c->hc.head ? c->hc.mult * (c->hc.mult * c->hidden_size + 1) + 1 : 0;
    return c->num_hidden_layers * layer + tables + c->hidden_size + head;
}

/* Rows and columns of the adapters of a layer, which their rank multiplies. */
static int64_t layer_adapters(const model_config *c)
{
    const int64_t h = c->hidden_size, q = c->num_attention_heads * c->head_dim, i = c->intermediate_size,
                  kv = c->num_key_value_heads * c->head_dim;
    const lora_config *l = &c->lora;

    return lora_count(l, 1 << LORA_Q | 1 << LORA_O) * (h + q) + lora_count(l, 1 << LORA_K | 1 << LORA_V) * (h + kv) +
           lora_count(l, LORA_GATE_UP | 1 << LORA_DOWN) * (h + i);
}

/* Of a frozen matrix there is no third product, its gradient. */
double model_flops_products(const model_config *c)
{
    const bool adapts = c->lora.rank > 0, head = !adapts || c->lora.trains_head ||
                                                 (c->tie_word_embeddings && c->lora.trains_embedding);

    return (adapts ? 4.0 : 6.0) * (double)(c->num_hidden_layers * layer_products(c)) +
           6.0 * (double)(c->num_hidden_layers * layer_adapters(c) * c->lora.rank) +
           (head ? 6.0 : 4.0) * (double)(c->vocab_size * c->hidden_size);
}

/* Forward: QK^T and PV are 2 * 2 * T * Q a token, halved by the causal mask; backward twice that. */
double model_flops_attention(const model_config *c, int64_t seq_len)
{
    return 6.0 * (double)(c->num_hidden_layers * c->num_attention_heads * c->head_dim) * (double)seq_len;
}

static int compare_values(const char *prefix, const char *name, json_t *x, json_t *y, moai_error *err)
{
    int status = 0;

    if (!json_equal(x, y)) {
        char *x_text = shown_json(x), *y_text = shown_json(y);
        status = error_set(err, "%s%s is %s in one and %s in the other", prefix, name, x_text, y_text);
        free(x_text);
        free(y_text);
    }
    json_decref(x);
    json_decref(y);
    return status;
}

static int compare_keys(key_table t, const char *prefix, const model_config *a, const model_config *b, moai_error *err)
{
    int status = 0;

    for (int i = 0; i < t.n && !status; i++)
        status = compare_values(prefix, t.list[i].name, key_get_json(&t.list[i], a), key_get_json(&t.list[i], b), err);
    return status;
}

/* Without what has no effect, as it is written: a factor, how one stream would be mixed. */
static model_config as_written(model_config c)
{
    if (c.hc.mult <= 1) keys_defaults(hc_keys, &c);
    if (c.rope.kind == ROPE_DEFAULT) c.rope.factor = 1;
    return c;
}

int model_config_same(const model_config *a, const model_config *b, moai_error *err)
{
    const model_config x = as_written(*a), y = as_written(*b);

    if (compare_keys(shape_keys, "", &x, &y, err) || compare_keys(rope_keys, "rope ", &x, &y, err) ||
        compare_keys(hc_keys, "", &x, &y, err))
        return -1;
    if (lora_config_same(&a->lora, &b->lora, err)) return -1;
    return compare_values("", "eos_token_id", token_list_json(&a->eos_token_id), token_list_json(&b->eos_token_id),
                          err);
}
