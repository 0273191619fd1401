/* adapter_config.c: PEFT's adapter_config.json, see lora_config.h */
#include "src/config/keys.h"
#include "src/config/lora_config.h"
#include "src/json/json_scan.h"

#include <stdlib.h>
#include <string.h>

/* Keys that would make another adapter of the same tensors, and what they are when they do not. */
typedef struct refused_key {
    const char *name, *off;                   /* a text that means nothing besides null, false, 0, "", [] and {} */
} refused_key;

static const refused_key refused[] = {
    {"use_dora", NULL},
    {"lora_bias", NULL},
    {"bias", "none"},
    {"rank_pattern", NULL},
    {"alpha_pattern", NULL},
    {"layers_to_transform", NULL},
    {"layers_pattern", NULL},
    {"layer_replication", NULL},
    {"exclude_modules", NULL},
    {"target_parameters", NULL},
    {"trainable_token_indices", NULL},
    {"fan_in_fan_out", NULL},
    {"use_qalora", NULL},
    {"use_bdlora", NULL},
    {"kasa_config", NULL},
    {"velora_config", NULL},
    {"monteclora_config", NULL},
    {"arrow_config", NULL},
    {"alora_invocation_tokens", NULL},
};

static bool is_off(const json_t *value, const char *off)
{
    if (json_is_string(value))
        return !json_string_value(value)[0] || (off && strcmp(json_string_value(value), off) == 0);
    if (json_is_number(value)) return json_number_value(value) == 0;
    return json_is_null(value) || json_is_false(value) || (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static int wrong(const json_members *m, const char *key, const json_t *value, const char *must, moai_error *err)
{
    char *shown = json_text(value, JSON_COMPACT | JSON_ENCODE_ANY);

    error_set(err, "%s: %s is %.200s, must be %s", m->name, key, shown, must);
    free(shown);
    return -1;
}

static int check_refused(const json_members *m, moai_error *err)
{
    json_t *value;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof refused / sizeof *refused; i++) {
        const refused_key *k = &refused[i];
        rc = json_members_get(m, k->name, &value, err);
        if (rc == 0 && value && !is_off(value, k->off))
            rc = wrong(m, k->name, value, k->off ? "\"none\": nothing else is implemented" : "off: it is not "
                       "implemented", err);
        json_decref(value);
    }
    return rc;
}

/* The text under a key that must be one; NULL: none.  Caller frees. */
static int read_text(const json_members *m, const char *key, char **text, moai_error *err)
{
    json_t *value;
    int rc = json_members_get(m, key, &value, err);

    *text = NULL;
    if (rc == 0 && value && !json_is_string(value)) rc = wrong(m, key, value, "a text", err);
    if (rc == 0 && value) *text = xstrdup(json_string_value(value));
    json_decref(value);
    return rc;
}

static int read_number(const json_members *m, const char *key, double missing, double *x, moai_error *err)
{
    json_t *value;
    int rc = json_members_get(m, key, &value, err);

    *x = value ? json_number_value(value) : missing;
    if (rc == 0 && value && !json_is_number(value)) rc = wrong(m, key, value, "a number", err);
    json_decref(value);
    return rc;
}

/* What the adapter is, and how it began: some starts leave another base behind. */
static int check_kind(const json_members *m, moai_error *err)
{
    char *kind = NULL, *task = NULL;
    json_t *start = NULL;
    int rc = read_text(m, "peft_type", &kind, err);

    if (rc == 0) rc = read_text(m, "task_type", &task, err);
    if (rc == 0) rc = json_members_get(m, "init_lora_weights", &start, err);
    if (rc == 0 && (!kind || strcmp(kind, "LORA") != 0))
        rc = error_set(err, "%s: peft_type is %s, must be \"LORA\": no other is implemented", m->name,
                       kind ? kind : "missing");
    if (rc == 0 && task && task[0] && strcmp(task, "CAUSAL_LM") != 0)
        rc = error_set(err, "%s: task_type is \"%s\", must be \"CAUSAL_LM\"", m->name, task);
    const char *how = json_is_string(start) ? json_string_value(start) : "";
    if (rc == 0 && (strncmp(how, "pissa", 5) == 0 || !strcmp(how, "olora") || !strcmp(how, "corda") ||
                    !strcmp(how, "loftq") || !strcmp(how, "lora_ga")))
        rc = wrong(m, "init_lora_weights", start, "a start that leaves the base as it is: convert the adapter with "
                   "PEFT's save_pretrained(path_initial_model_for_weight_conversion=...)", err);
    json_decref(start);
    free(kind);
    free(task);
    return rc;
}

/* "q_proj", or, as all-linear is saved, "model.layers.0.self_attn.q_proj" for every layer: where one lacks it, its
 * tensors are missing. */
static int add_target(const json_members *m, const char *name, lora_config *l, moai_error *err)
{
    const char *last = strrchr(name, '.');
    unsigned one;
    moai_error why;

    if (lora_targets_read(&one, last ? last + 1 : name, &why))
        return error_set(err, "%s: target_modules: %s", m->name, why.text);
    l->targets |= one;
    return 0;
}

static int read_targets(const json_members *m, lora_config *l, moai_error *err)
{
    json_t *list, *one;
    int rc = json_members_get(m, "target_modules", &list, err);
    size_t i;

    if (rc == 0 && !list) l->targets = 1u << LORA_Q | 1u << LORA_V;         /* PEFT's for Qwen3 */
    if (rc == 0 && list && !json_is_array(list) &&
        (!json_is_string(list) || strcmp(json_string_value(list), "all-linear") != 0))
        rc = wrong(m, "target_modules", list, "a list of names, or \"all-linear\": patterns are not implemented", err);
    if (rc == 0 && json_is_string(list)) l->targets = LORA_ALL;
    json_array_foreach(list, i, one) {
        if (rc) break;
        rc = json_is_string(one) ? add_target(m, json_string_value(one), l, err)
                                 : wrong(m, "target_modules", list, "a list of names", err);
    }
    if (rc == 0 && !l->targets) rc = error_set(err, "%s: target_modules names no linear map", m->name);
    json_decref(list);
    return rc;
}

static int read_saved(const json_members *m, lora_config *l, moai_error *err)
{
    json_t *list, *one;
    int rc = json_members_get(m, "modules_to_save", &list, err);
    size_t i;

    if (rc == 0 && list && !json_is_array(list)) rc = wrong(m, "modules_to_save", list, "a list of names", err);
    json_array_foreach(list, i, one) {
        if (rc) break;
        moai_error why;
        if (lora_saved_read(l, json_is_string(one) ? json_string_value(one) : "", &why))
            rc = error_set(err, "%s: modules_to_save: %s", m->name, why.text);
    }
    json_decref(list);
    return rc;
}

static int read_numbers(const json_members *m, lora_config *l, moai_error *err)
{
    double rank, alpha;
    json_t *rs;

    if (read_number(m, "r", 8, &rank, err) || read_number(m, "lora_alpha", 8, &alpha, err) ||
        json_members_get(m, "use_rslora", &rs, err))
        return -1;
    l->use_rslora = json_is_true(rs);
    json_decref(rs);
    if (!(rank >= 1 && rank <= MOST_LORA_RANK) || rank != (double)(int64_t)rank)
        return error_set(err, "%s: r is %g, must be a whole number from 1 to %d", m->name, rank, MOST_LORA_RANK);
    l->rank = (int64_t)rank, l->alpha = alpha;
    return 0;
}

int adapter_config_read(lora_config *l, char **base, const char *path, moai_error *err)
{
    json_members m = {0};
    int rc = json_members_open(&m, path, err);

    *l = (lora_config){0};
    *base = NULL;
    if (rc == 0) rc = check_kind(&m, err);
    if (rc == 0) rc = check_refused(&m, err);
    if (rc == 0) rc = read_numbers(&m, l, err);
    if (rc == 0) rc = read_targets(&m, l, err);
    if (rc == 0) rc = read_saved(&m, l, err);
    if (rc == 0) rc = read_text(&m, "base_model_name_or_path", base, err);
    json_members_free(&m);
    return rc;
}

int adapter_config_write(const lora_config *l, const char *base, const char *path, moai_error *err)
{
    json_t *targets = json_array(), *saved = json_array();

    for (int i = 0; i < N_LORA_MAPS; i++)
        if (l->targets >> i & 1) json_array_append_new(targets, json_string(lora_map_name(i)));
    if (l->trains_embedding) json_array_append_new(saved, json_string("embed_tokens"));
    if (l->trains_head) json_array_append_new(saved, json_string("lm_head"));
    if (json_array_size(saved) == 0) json_decref(saved), saved = json_null();
    json_t *o = json_pack("{s:o, s:s, s:b, s:b, s:b, s:f, s:f, s:o, s:s, s:I, s:o, s:s, s:b}",
                          "base_model_name_or_path", json_string_repaired(base), "bias", "none", "fan_in_fan_out", 0,
                          "inference_mode", 1, "init_lora_weights", 1, "lora_alpha", l->alpha, "lora_dropout",
                          l->dropout, "modules_to_save", saved, "peft_type", "LORA", "r", (json_int_t)l->rank,
                          "target_modules", targets, "task_type", "CAUSAL_LM", "use_rslora", l->use_rslora);
    const int rc = json_write_file(o, path, err);

    json_decref(o);
    return rc;
}
