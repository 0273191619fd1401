/* lora_config.c: see lora_config.h */
#include "src/config/lora_config.h"

#include "src/config/keys.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* As a table of keys, so that the nearest name is found as a key's is. */
static const key_spec maps[N_LORA_MAPS] = {
    [LORA_Q] = {.name = "q_proj"},   [LORA_K] = {.name = "k_proj"},       [LORA_V] = {.name = "v_proj"},
    [LORA_O] = {.name = "o_proj"},   [LORA_GATE] = {.name = "gate_proj"}, [LORA_UP] = {.name = "up_proj"},
    [LORA_DOWN] = {.name = "down_proj"},
};

double lora_scale(const lora_config *l)
{
    if (!l->rank) return 0;
    return l->alpha / (l->use_rslora ? sqrt((double)l->rank) : (double)l->rank);
}

int lora_count(const lora_config *l, unsigned which)
{
    int n = 0;

    for (int i = 0; l->rank && i < N_LORA_MAPS; i++) n += (l->targets & which) >> i & 1;
    return n;
}

int64_t lora_room(const lora_config *l, unsigned which) { return round_up(lora_count(l, which) * l->rank, 64); }

const char *lora_map_name(lora_map m) { return maps[m].name; }

int lora_targets_read(unsigned *targets, const char *list, moai_error *err)
{
    const key_table known = {maps, N_LORA_MAPS};
    size_t n;

    *targets = 0;
    for (const char *name; (name = names_next(&list, &n));) {
        char *one = xasprintf("%.*s", (int)n, name);
        const key_spec *k = keys_find(known, one), *near = keys_nearest(known, one);
        const bool all = strcmp(one, "all-linear") == 0;
        if (k) *targets |= 1u << (k - maps);
        if (all) *targets |= LORA_ALL;
        if (!k && !all && near)
            error_set(err, "no linear map of a layer is called \"%s\"; did you mean \"%s\"?", one, near->name);
        else if (!k && !all)
            error_set(err, "no linear map of a layer is called \"%s\": there are q_proj, k_proj, v_proj, o_proj, "
                      "gate_proj, up_proj, down_proj, and all-linear for all", one);
        free(one);
        if (!k && !all) return -1;
    }
    return *targets ? 0 : error_set(err, "no linear map is named");
}

int lora_saved_read(lora_config *l, const char *list, moai_error *err)
{
    size_t n;

    for (const char *name; (name = names_next(&list, &n));) {
        const bool embedding = n == 12 && memcmp(name, "embed_tokens", n) == 0,
                   head = n == 7 && memcmp(name, "lm_head", n) == 0;
        if (!embedding && !head)
            return error_set(err, "\"%.*s\" is no module that can be trained as it is: there are embed_tokens and "
                             "lm_head", (int)n, name);
        l->trains_embedding = l->trains_embedding || embedding;
        l->trains_head = l->trains_head || head;
    }
    return 0;
}

static unsigned saved_of(const lora_config *l) { return l->trains_embedding | (unsigned)l->trains_head << 1; }

int lora_config_same(const lora_config *a, const lora_config *b, moai_error *err)
{
    if (a->rank != b->rank)
        return error_set(err, "lora_rank is %lld in one and %lld in the other", (long long)a->rank,
                         (long long)b->rank);
    if (lora_scale(a) != lora_scale(b))
        return error_set(err, "lora_alpha over the rank is %g in one and %g in the other", lora_scale(a),
                         lora_scale(b));
    for (int i = 0; i < N_LORA_MAPS; i++)
        if ((a->targets ^ b->targets) >> i & 1)
            return error_set(err, "lora_target_modules: %s is in one alone", maps[i].name);
    if (saved_of(a) != saved_of(b)) return error_set(err, "modules_to_save differ");
    return 0;
}
