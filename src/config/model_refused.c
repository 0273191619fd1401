/* model_refused.c: see model_refused.h.  Names are those of Transformers' configurations, and of model files that bring
 * their own code. */
#include "src/config/model_refused.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What switches a key off besides null. */
typedef enum {
    OFF_NULL,                                 /* nothing */
    OFF_FALSE,                                /* false, 0, "", [], {} and lists of these, as for the next three */
    OFF_ZERO,
    OFF_EMPTY,
    OFF_COUNT,                                /* and 1 */
    OFF_ONE,
    OFF_TRUE,
    OFF_HEAD_DIM,                             /* the model's own */
    OFF_HIDDEN_SIZE,
    OFF_SOFTMAX_SCALE,                        /* head_dim^-1/2 */
    OFF_ROPE_THETA,
    OFF_POSITIONS,                            /* at least max_position_embeddings */
    OFF_SILU,
    OFF_ROPE,
    OFF_ONES,                                 /* a list of them */
    OFF_DENSE                                 /* a list of "dense" */
} off_kind;

typedef struct refused_key {
    const char *name;
    off_kind off;
} refused_key;

static const refused_key keys[] = {
    /* experts; what only describes them (num_experts_per_tok, moe_intermediate_size) counts with their number */
    {"num_experts", OFF_COUNT},
    {"num_local_experts", OFF_COUNT},
    {"n_routed_experts", OFF_COUNT},
    {"num_routed_experts", OFF_COUNT},
    {"moe_num_experts", OFF_COUNT},
    {"is_moe", OFF_FALSE},
    {"use_moe", OFF_FALSE},
    {"enable_moe_block", OFF_FALSE},
    {"moe_layers", OFF_EMPTY},
    {"mlp_layer_types", OFF_DENSE},
    /* residual streams, loops, layers that differ */
    {"num_residual_streams", OFF_COUNT},
    {"altup_num_inputs", OFF_COUNT},
    {"laurel_rank", OFF_ZERO},
    {"hidden_size_per_layer_input", OFF_ZERO},
    {"num_kv_shared_layers", OFF_ZERO},
    {"loop_num_passes", OFF_COUNT},
    {"n_recurrent_loops", OFF_COUNT},
    {"per_layer_config", OFF_EMPTY},
    {"num_attention_heads_per_layer", OFF_EMPTY},
    {"full_attention_interval", OFF_COUNT},
    {"layers_block_type", OFF_EMPTY},
    {"hybrid_override_pattern", OFF_EMPTY},
    {"attn_layer_period", OFF_COUNT},
    /* prediction of more than the next token */
    {"num_nextn_predict_layers", OFF_ZERO},
    {"num_mtp_layers", OFF_ZERO},
    {"mtp_num_hidden_layers", OFF_ZERO},
    /* biases */
    {"attention_bias", OFF_FALSE},
    {"qkv_bias", OFF_FALSE},
    {"attention_qkv_bias", OFF_FALSE},
    {"add_qkv_bias", OFF_FALSE},
    {"attention_out_bias", OFF_FALSE},
    {"mlp_bias", OFF_FALSE},
    {"use_bias", OFF_FALSE},
    {"add_bias_linear", OFF_FALSE},
    {"lm_head_bias", OFF_FALSE},
    /* dropout */
    {"attention_dropout", OFF_ZERO},
    {"attn_pdrop", OFF_ZERO},
    {"attention_probs_dropout_prob", OFF_ZERO},
    {"resid_pdrop", OFF_ZERO},
    {"residual_dropout", OFF_ZERO},
    {"embd_pdrop", OFF_ZERO},
    {"emb_pdrop", OFF_ZERO},
    {"embedding_dropout", OFF_ZERO},
    {"hidden_dropout", OFF_ZERO},
    {"hidden_dropout_prob", OFF_ZERO},
    {"activation_dropout", OFF_ZERO},
    {"mlp_dropout", OFF_ZERO},
    {"dropout", OFF_ZERO},
    {"layerdrop", OFF_ZERO},
    /* caps */
    {"attn_logit_softcapping", OFF_EMPTY},
    {"attn_logit_softcap", OFF_EMPTY},
    {"final_logit_softcapping", OFF_EMPTY},
    {"final_logit_softcap", OFF_EMPTY},
    {"logits_soft_cap", OFF_EMPTY},
    {"clip_qkv", OFF_EMPTY},
    {"swiglu_limit", OFF_EMPTY},
    {"activation_sparsity_pattern", OFF_EMPTY},
    /* scales */
    {"embedding_multiplier", OFF_ONE},
    {"residual_multiplier", OFF_ONE},
    {"logits_scaling", OFF_ONE},
    {"logit_scale", OFF_ONE},
    {"lm_head_multiplier", OFF_ONE},
    {"attention_in_multiplier", OFF_ONE},
    {"attention_out_multiplier", OFF_ONE},
    {"attention_value_scale", OFF_ONE},
    {"key_multiplier", OFF_ONE},
    {"mlp_multipliers", OFF_ONES},
    {"scale_emb", OFF_ONE},
    {"scale_depth", OFF_EMPTY},
    {"dim_model_base", OFF_HIDDEN_SIZE},
    {"scale_embedding", OFF_FALSE},
    {"mup_enabled", OFF_FALSE},
    {"attention_multiplier", OFF_SOFTMAX_SCALE},
    {"query_pre_attn_scalar", OFF_HEAD_DIM},
    {"scale_attn_by_inverse_layer_idx", OFF_FALSE},
    {"attn_temperature_tuning", OFF_FALSE},
    {"use_logn_attn", OFF_FALSE},
    /* other attention */
    {"use_qk_norm", OFF_TRUE},
    {"qk_norm", OFF_TRUE},
    {"is_causal", OFF_TRUE},
    {"use_bidirectional_attention", OFF_FALSE},
    {"prefix_lm", OFF_FALSE},
    {"is_encoder_decoder", OFF_FALSE},
    {"add_cross_attention", OFF_FALSE},
    {"kv_lora_rank", OFF_ZERO},
    {"q_lora_rank", OFF_ZERO},
    {"v_head_dim", OFF_HEAD_DIM},
    {"index_topk", OFF_ZERO},
    {"attention_k_eq_v", OFF_FALSE},
    {"attn_output_gate", OFF_FALSE},
    {"use_attention_gate", OFF_FALSE},
    {"attention_chunk_size", OFF_POSITIONS},
    {"sliding_window_pattern", OFF_COUNT},
    {"pruned_heads", OFF_EMPTY},
    /* another MLP, other norms, another order */
    {"hidden_act", OFF_SILU},
    {"hidden_activation", OFF_SILU},
    {"activation_function", OFF_SILU},
    {"use_double_wide_mlp", OFF_FALSE},
    {"use_post_norm", OFF_FALSE},
    {"use_sandwich_norm", OFF_FALSE},
    {"use_parallel_residual", OFF_FALSE},
    {"parallel_attn", OFF_FALSE},
    /* positions */
    {"partial_rotary_factor", OFF_ONE},
    {"rotary_pct", OFF_ONE},
    {"rotary_percent", OFF_ONE},
    {"rotary_dim", OFF_HEAD_DIM},
    {"rope_ratio", OFF_ONE},
    {"rope_interleave", OFF_FALSE},
    {"rope_interleaved", OFF_FALSE},
    {"rotary_interleaved", OFF_FALSE},
    {"rope_local_base_freq", OFF_ROPE_THETA},
    {"layer_rope_theta", OFF_EMPTY},
    {"no_rope_layers", OFF_ONES},
    {"no_rope_layer_interval", OFF_ZERO},
    {"nope_layer_interval", OFF_ZERO},
    {"use_rope", OFF_TRUE},
    {"use_nope", OFF_FALSE},
    {"nope", OFF_FALSE},
    {"alibi", OFF_FALSE},
    {"use_alibi", OFF_FALSE},
    {"use_mrope", OFF_FALSE},
    {"use_dynamic_ntk", OFF_FALSE},
    {"position_embedding_type", OFF_ROPE},
    /* quantized weights, parts that are no text model */
    {"compression_config", OFF_NULL},
    {"text_config", OFF_EMPTY},
    {"vision_config", OFF_EMPTY},
    {"audio_config", OFF_EMPTY},
};

static const refused_key rope_keys[] = {
    {"partial_rotary_factor", OFF_ONE}, {"attention_scaling", OFF_ONE}, {"mrope_section", OFF_EMPTY},
    {"mrope_interleaved", OFF_FALSE},   {"full_attention", OFF_EMPTY},   {"sliding_attention", OFF_EMPTY},
};

/* false, 0, "", [], {}, and lists of such */
static bool is_empty(const json_t *v)
{
    size_t i;
    json_t *part;

    if (json_is_number(v)) return json_number_value(v) == 0;
    if (json_is_string(v)) return json_string_length(v) == 0;
    if (json_is_object(v)) return json_object_size(v) == 0;
    if (!json_is_array(v)) return !json_is_true(v);
    json_array_foreach((json_t *)v, i, part)
        if (!is_empty(part)) return false;
    return true;
}

static bool is_number(const json_t *v, double wanted)
{
    return json_is_number(v) && fabs(json_number_value(v) - wanted) <= 1e-6 * fabs(wanted);
}

static bool is_word(const json_t *v, const char *one, const char *other)
{
    const char *word = json_string_value(v);

    return word && (!strcmp(word, one) || !strcmp(word, other));
}

static bool is_list_of(const json_t *v, bool (*is)(const json_t *))
{
    size_t i;
    json_t *part;

    if (!json_is_array(v)) return false;
    json_array_foreach((json_t *)v, i, part)
        if (!is(part)) return false;
    return true;
}

static bool is_one(const json_t *v) { return json_is_true(v) || is_number(v, 1); }
static bool is_dense(const json_t *v) { return is_word(v, "dense", "dense"); }

static bool is_off(const json_t *v, off_kind off, const model_config *c)
{
    switch (off) {
    case OFF_NULL: return false;
    case OFF_FALSE:
    case OFF_ZERO:
    case OFF_EMPTY: return is_empty(v);
    case OFF_COUNT: return is_empty(v) || is_number(v, 1);
    case OFF_ONE: return is_number(v, 1);
    case OFF_TRUE: return is_one(v);
    case OFF_HEAD_DIM: return is_empty(v) || is_number(v, (double)c->head_dim);
    case OFF_HIDDEN_SIZE: return is_empty(v) || is_number(v, (double)c->hidden_size);
    case OFF_SOFTMAX_SCALE: return is_number(v, 1 / sqrt((double)c->head_dim));
    case OFF_ROPE_THETA: return is_number(v, c->rope_theta);
    case OFF_POSITIONS: return is_empty(v) || json_number_value(v) >= (double)c->max_position_embeddings;
    case OFF_SILU: return is_word(v, "silu", "swish");
    case OFF_ROPE: return is_word(v, "rope", "rotary");
    case OFF_ONES: return is_list_of(v, is_one);
    case OFF_DENSE: return is_list_of(v, is_dense);
    }
    return false;
}

static char *wanted(off_kind off, const model_config *c)
{
    switch (off) {
    case OFF_NULL:
    case OFF_EMPTY: return xstrdup("null or absent");
    case OFF_FALSE: return xstrdup("false");
    case OFF_ZERO: return xstrdup("0.0");
    case OFF_COUNT: return xstrdup("at most 1");
    case OFF_ONE: return xstrdup("1.0");
    case OFF_TRUE: return xstrdup("true");
    case OFF_HEAD_DIM: return xasprintf("head_dim, %lld", (long long)c->head_dim);
    case OFF_HIDDEN_SIZE: return xasprintf("hidden_size, %lld", (long long)c->hidden_size);
    case OFF_SOFTMAX_SCALE: return xasprintf("1/sqrt(head_dim), %.9g", 1 / sqrt((double)c->head_dim));
    case OFF_ROPE_THETA: return xasprintf("rope_theta, %g", c->rope_theta);
    case OFF_POSITIONS:
        return xasprintf("at least max_position_embeddings, %lld", (long long)c->max_position_embeddings);
    case OFF_SILU: return xstrdup("\"silu\"");
    case OFF_ROPE: return xstrdup("\"rope\"");
    case OFF_ONES: return xstrdup("a list of ones");
    case OFF_DENSE: return xstrdup("a list of \"dense\"");
    }
    return NULL;
}

static int check(const json_members *m, const refused_key *list, size_t n, const model_config *c, moai_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const json_member *found;
        if (json_members_find(m, list[i].name, &found, err)) return -1;
        json_t *value = found ? json_member_value(found) : NULL;
        const bool off = !found || (value && is_off(value, list[i].off, c));
        json_decref(value);
        if (off) continue;
        char *is = json_member_text(found, 80), *must = wanted(list[i].off, c);
        error_set(err, "%s%s%s is %s, must be %s: what it asks for is not implemented", m->name, m->between,
                  list[i].name, is, must);
        free(is);
        free(must);
        return -1;
    }
    return 0;
}

int model_refused_check(const json_members *m, const model_config *c, moai_error *err)
{
    return check(m, keys, sizeof keys / sizeof *keys, c, err);
}

int model_refused_check_rope(const json_members *m, const model_config *c, moai_error *err)
{
    return check(m, rope_keys, sizeof rope_keys / sizeof *rope_keys, c, err);
}
