/* the model file and the run file: what is read, what is refused and in which words */
#include "tests/lib/tap.h"

#include "src/config/model_config.h"
#include "src/train/resume_keys.h"
#include "src/train/run_config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[512];

static const char *file_of(const char *text)
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/config.json", dir ? dir : "/tmp");
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && !fclose(f), "%s: cannot write", path);
    return path;
}

#define SHAPE_BUT_POSITIONS                                                                                            \
    "\"num_hidden_layers\": 4, \"hidden_size\": 96, \"intermediate_size\": 64, \"num_attention_heads\": 14, "          \
    "\"num_key_value_heads\": 2, \"head_dim\": 8, \"vocab_size\": 100"
#define SHAPE SHAPE_BUT_POSITIONS ", \"max_position_embeddings\": 128"
#define MODEL(more) "{\"model_type\": \"qwen3\", \"architectures\": [\"Qwen3ForCausalLM\"], " SHAPE ", " more "}"

/* moai-3b.json is the guide's model, number for number */
static void test_moai_3b(void)
{
    model_config c;
    moai_error err = {.text = ""};

    ok(!model_config_read(&c, "configs/moai-3b.json", &err), "configs/moai-3b.json is read%s", err.text);
    ok(model_n_params(&c) == 5167084288, "parameters: %lld", (long long)model_n_params(&c));
    ok_close(model_flops_products(&c), 6.0 * (28.0 * 149422080 + 491520000), 0, 1, "product FLOPs a token");
    ok_close(model_flops_attention(&c, 4096), 6.0 * 28 * 3584 * 4096, 0, 1, "attention FLOPs a token");
    ok_close(model_flops_products(&c) + model_flops_attention(&c, 4096), 30.52e9, 1e-4, 1, "FLOPs a token");
    ok(c.num_attention_heads == 28 && c.num_key_value_heads == 4 && c.head_dim == 128 && !c.tie_word_embeddings &&
           c.pad_token_id == 0,
       "heads 28:4 of 128, untied, pad 0");
    c.tie_word_embeddings = true;
    ok(model_n_params(&c) == 5167084288 - 491520000, "a tied head is counted once");
}

static void test_styles(void)
{
    static const struct {
        const char *what, *text;
        rope_kind kind;
        double factor, fast, slow;
    } cases[] = {
        {"Transformers 4, no scaling", MODEL("\"rope_theta\": 5e5, \"rope_scaling\": null"), ROPE_DEFAULT, 1, 32, 1},
        {"Transformers 4, `type`",
         MODEL("\"rope_theta\": 5e5, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}"), ROPE_LINEAR, 2, 32, 1},
        {"an empty rope_scaling beside rope_parameters",
         MODEL("\"rope_scaling\": {}, "
               "\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"linear\", \"factor\": 3}"),
         ROPE_LINEAR, 3, 32, 1},
        {"Transformers 4, `rope_type`",
         MODEL("\"rope_theta\": 5e5, \"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": 4.0}"), ROPE_DYNAMIC, 4,
         32, 1},
        {"Transformers 4, both spellings",
         MODEL(
             "\"rope_theta\": 5e5, \"rope_scaling\": {\"type\": \"yarn\", \"rope_type\": \"yarn\", "
             "\"factor\": 4, \"beta_fast\": 16}"),
         ROPE_YARN, 4, 16, 1},
        {"Transformers 5",
         MODEL(
             "\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"yarn\", \"factor\": 4, "
             "\"beta\": 24, \"alpha\": 2}"),
         ROPE_YARN, 4, 24, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model_config c;
        moai_error err = {.text = ""};
        bool read = !model_config_read(&c, file_of(cases[i].text), &err);
        ok(read && c.rope_theta == 5e5 && c.rope.kind == cases[i].kind && c.rope.factor == cases[i].factor &&
               c.rope.beta_fast == cases[i].fast && c.rope.beta_slow == cases[i].slow,
           "%s%s%s", cases[i].what, read ? "" : ": ", err.text);
    }
    model_config c;
    moai_error err;
    CHECK(
        !model_config_read(
            &c,
            file_of(
                "{\"num_hidden_layers\": 1, \"hidden_size\": 64, \"intermediate_size\": 8, \"num_attention_heads\": 4,"
                "\"num_key_value_heads\": 4, \"vocab_size\": 9, \"rope_theta\": 10000, \"eos_token_id\": [3]}"),
            &err),
        "%s", err.text);
    ok(c.head_dim == 128 && c.eos_token_id.n == 1 && c.eos_token_id.id[0] == 3 && c.pad_token_id == -1 &&
           c.max_position_embeddings == 32768,
       "what may be left out");
}

static void test_refused(void)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"{\"model_type\": \"llama\", " SHAPE ", \"rope_theta\": 1e6}", "model_type is \"llama\", must be \"qwen3\""},
        {"{\"architectures\": [\"LlamaForCausalLM\"], " SHAPE ", \"rope_theta\": 1e6}",
         "architectures is [\"LlamaForCausalLM\"]"},
        {MODEL("\"rope_theta\": 1e6, \"attention_bias\": true"), "attention_bias is true, must be false"},
        {MODEL("\"use_sliding_window\": true, \"sliding_window\": 4, \"max_window_layers\": 0, \"rope_theta\": 1e6"),
         "must be false: a window (sliding_window 4 of 128 positions, from layer 0 of 4 on)"},
        {"{" SHAPE_BUT_POSITIONS ", \"rope_theta\": 1e6, \"use_sliding_window\": 1, \"max_window_layers\": 0}",
         "a window (sliding_window 4096 of 32768 positions, from layer 0 of 4 on)"},
        {MODEL("\"rope_theta\": 1e6, \"use_sliding_window\": \"true\", \"sliding_window\": 4"),
         "use_sliding_window is \"true\", must be true or false"},
        {MODEL("\"rope_theta\": 1e6, \"use_sliding_window\": []"), "use_sliding_window is [], must be true or false"},
        {MODEL("\"rope_theta\": 1e6, \"use_sliding_window\": 2"), "use_sliding_window is 2, must be true or false"},
        {MODEL("\"rope_theta\": 1e6, \"tie_word_embeddings\": \"false\""),
         "tie_word_embeddings is \"false\", must be true or false"},
        {MODEL("\"rope_theta\": 1e6, \"attention_bias\": \"true\""), "attention_bias is \"true\", must be false"},
        {MODEL("\"rope_theta\": 1e6, \"use_qk_norm\": \"true\""), "use_qk_norm is \"true\", must be true"},
        {MODEL("\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, \"truncate\": \"false\"}"),
         "rope_scaling.truncate is \"false\", must be true or false"},
        {MODEL("\"rope_theta\": 1e6, \"layer_types\": [\"full_attention\", \"sliding_attention\"]"),
         "layer_types[1] is \"sliding_attention\""},
        {MODEL("\"rope_theta\": 1e6, \"use_sliding_window\": true, \"sliding_window\": 127, \"max_window_layers\": 3"),
         "use_sliding_window is true, must be false: a window (sliding_window 127 of 128 positions, from layer 3 of 4 on)"},
        {MODEL("\"rope_theta\": 1e6, \"hidden_act\": \"gelu\""), "hidden_act is \"gelu\", must be \"silu\""},
        {MODEL("\"rope_theta\": 1e6, \"attention_dropout\": 0.1"), "attention_dropout is 0.1, must be 0.0"},
        {MODEL("\"rope_theta\": 1e6, \"quantization_config\": {}"), "quantization_config"},
        {MODEL("\"rope_theta\": 1e6, \"rms_norm_eps\": \"1e-6\""), "rms_norm_eps is \"1e-6\", must be a number"},
        {MODEL("\"rope_theta\": 1e6, \"pad_token_id\": 100"), "pad_token_id is 100, must be below vocab_size 100"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8}"),
         "rope_scaling.type is \"llama3\", must be one of"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"yarn\"}"), "rope_scaling.factor is missing"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"yarn\", \"rope_type\": \"linear\", \"factor\": 2}"),
         "rope_scaling.rope_type is \"linear\" and type is \"yarn\": two values for one meaning"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 0.5}"),
         "rope_scaling.factor is 0.5, must be between 1"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, \"attention_factor\": 0}"),
         "rope_scaling.attention_factor is 0"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2}, "
               "\"original_max_position_embeddings\": 16"),
         "original_max_position_embeddings is 16, must be that of rope_scaling"},
        {"{\"num_hidden_layers\": 2.5}", "num_hidden_layers is 2.5, must be an integer"},
        {"{\"num_hidden_layers\": 0}", "num_hidden_layers is 0, must be between 1 and 1024"},
        {"{\"num_hidden_layers\": 1}", "hidden_size is missing"},
        {"{\"num_hidden_layers\": 1,\n \"hidden_size\" 5}", "line 2, column"},
        {"[1]", "not a JSON object"},
        {"{\"num_hidden_layers\": 1, \"hidden_size\": 64, \"intermediate_size\": 8, "
         "\"num_attention_heads\": 6, \"num_key_value_heads\": 4, "
         "\"vocab_size\": 9, \"head_dim\": 8, \"rope_theta\": 1e4}",
         "num_attention_heads 6 is not a multiple of num_key_value_heads 4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model_config c;
        moai_error err = {.text = ""};
        bool refused = model_config_read(&c, file_of(cases[i].text), &err) < 0;
        ok(refused && strstr(err.text, cases[i].says) && strstr(err.text, "config.json: "), "refused: %s; wanted: %s",
           err.text, cases[i].says);
    }
    model_config c;
    moai_error err;
    ok(model_config_read(&c, "no/such/config.json", &err) < 0 && strstr(err.text, "no/such/config.json: No such file"),
       "%s", err.text);
}

static void test_written(void)
{
    static const char *const texts[] = {
        MODEL(
            "\"rope_theta\": 123456.789, \"rms_norm_eps\": 1e-5, \"initializer_range\": 0.1, "
            "\"tie_word_embeddings\": true, \"bos_token_id\": 7"),
        MODEL(
            "\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, "
            "\"original_max_position_embeddings\": 32, "
            "\"beta_fast\": 0.1, \"attention_factor\": 1.25, \"truncate\": false}"),
        MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"rope_type\": \"default\", \"factor\": 2}"),
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        model_config c, back;
        moai_error err = {.text = ""};
        CHECK(!model_config_read(&c, file_of(texts[i]), &err), "%s", err.text);
        CHECK(!model_config_write(&c, path, "float32", &err), "%s", err.text);
        ok(!model_config_read(&back, path, &err) && !model_config_same(&c, &back, &err),
           "written and read again, case %zu%s", i, err.text);
        back.rope.beta_slow = 3;
        ok(model_config_same(&c, &back, &err) < 0 &&
               strstr(err.text, "rope beta_slow is 1.0 in one and 3.0 in the other"),
           "%s", err.text);
    }
    model_config c = {0};
    moai_error err;
    ok(model_config_write(&c, "no/such/dir/config.json", "float32", &err) < 0 &&
           strstr(err.text, "no/such/dir/config.json"),
       "%s", err.text);
}

enum { MAX_ARGS = 16 };

/* splits at blanks, reads, returns the status */
static int run(run_config *c, const char *line, moai_error *err)
{
    static char text[1024];
    char *argv[MAX_ARGS + 1] = {"moai_train"}, *save;
    int argc = 1;

    snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok_r(text, " ", &save); word && argc < MAX_ARGS; word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    err->text[0] = 0;
    return run_config_read(c, argc, argv, err);
}

#define NEEDED "--model m --data d "

/* What Transformers reads as the plain model, and so is read here. */
static void test_let_through(void)
{
    static const char *const more[] = {
        "\"rope_scaling\": null, \"rope_parameters\": null, \"layer_types\": null, \"quantization_config\": null, "
        "\"bos_token_id\": null, \"pad_token_id\": null, \"sliding_window\": null, \"architectures\": null, "
        "\"tie_word_embeddings\": null, \"rms_norm_eps\": null, "
        "\"hidden_act\": null, \"attention_bias\": null, \"torch_dtype\": null, \"eos_token_id\": null",
        "\"model_max_length\": 1000000000000000019884624838656, \"a\": 1e400, \"b\": NaN, \"c\": -Infinity, "
        "\"d\": \"\\ud800\", \"e\": \"\\u0000\", \"\\u0000\": 1, \"f\": 18446744073709551615, \"g\": -0.0e-0",
        "\"note\": 1, \"note\": \"two\", \"hidden_size\": 96, \"hidden_size\": 96, \"pad_token_id\": null, "
        "\"pad_token_id\": 3, \"note\": null",
        "\"tie_word_embedding\": true, \"hidden_sizes\": [1], \"rope_tetha\": 3, \"num_hidden_layer\": 7",
        "\"use_sliding_window\": false, \"sliding_window\": 4, \"max_window_layers\": 0",
        "\"use_sliding_window\": true, \"sliding_window\": 4, \"max_window_layers\": 4",
        "\"use_sliding_window\": true, \"sliding_window\": 128, \"max_window_layers\": 0",
        "\"use_sliding_window\": true, \"sliding_window\": null",
        "\"use_sliding_window\": true, \"sliding_window\": 4",
        "\"use_sliding_window\": true",
        "\"architectures\": [\"Qwen3Model\"]",
        "\"use_sliding_window\": 1, \"max_window_layers\": 0",
        "\"use_sliding_window\": 0, \"sliding_window\": 4, \"max_window_layers\": 0, \"tie_word_embeddings\": 0",
        "\"use_sliding_window\": null, \"sliding_window\": 4, \"max_window_layers\": 0",
        "\"layer_types\": [\"full_attention\", \"full_attention\", \"full_attention\", \"full_attention\"]",
        "\"hc_mult\": 1, \"num_experts\": 0, \"num_local_experts\": null, \"num_experts_per_tok\": 8, "
        "\"moe_intermediate_size\": 768, \"attn_logit_softcapping\": null, \"final_logit_softcapping\": 0.0, "
        "\"attention_dropout\": 0, \"partial_rotary_factor\": 1, \"embedding_multiplier\": 1.0, \"scale_emb\": 1, "
        "\"dim_model_base\": 96, \"query_pre_attn_scalar\": 8, \"attention_multiplier\": 0.35355339059327373, "
        "\"no_rope_layers\": [1, 1, 1, 1], \"use_qk_norm\": true, \"num_nextn_predict_layers\": 0, "
        "\"hidden_act\": \"swish\", \"text_config\": {}, \"pruned_heads\": {}, \"use_mrope\": false, \"mlp_bias\": false",
        "\"torch_dtype\": \"bfloat16\", \"dtype\": \"torch.bfloat16\", \"auto_map\": {\"AutoConfig\": \"x.Y\"}, "
        "\"id2label\": {\"0\": \"a\"}, \"use_cache\": false, \"transformers_version\": \"5.24.0\", \"pretraining_tp\": 2",
        "\"rope_scaling\": {\"rope_type\": \"default\", \"type\": \"default\", \"rope_theta\": 1e6, \"finetuned\": true, "
        "\"low_freq_factor\": 1, \"attention_factor\": null}, \"rope_parameters\": {\"rope_theta\": 1000000}",
    };
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        char *text = xasprintf("{\"model_type\": \"qwen3\", " SHAPE ", \"rope_theta\": 1000000, %s}", more[i]);
        moai_error err = {.text = ""};
        model_config c;
        const bool read = !model_config_read(&c, file_of(text), &err);
        ok(read && c.hidden_size == 96 && c.vocab_size == 100 && c.rope_theta == 1e6 && c.rope.kind == ROPE_DEFAULT &&
               !c.tie_word_embeddings && c.num_hidden_layers == 4 && c.eos_token_id.n == 0,
           "let through: %.60s... %s", more[i], err.text);
        free(text);
    }
    char *deep = xmalloc(1 << 21), *end = stpcpy(deep, "{" SHAPE ", \"rope_theta\": 1e6, \"note\": ");
    memset(end, '[', 500000);
    memset(end + 500000, ']', 500000);
    strcpy(end + 1000000, "}");
    moai_error err = {.text = ""};
    model_config c;
    ok(!model_config_read(&c, file_of(deep), &err) && c.vocab_size == 100, "half a million brackets %s", err.text);
    free(deep);
}

static void test_defaults_of_transformers(void)
{
    moai_error err = {.text = ""};
    model_config c;

    ok(!model_config_read(&c, file_of(MODEL("\"use_cache\": true")), &err) && c.rope_theta == 10000,
       "without rope_theta 10000 %s", err.text);
    const char *text = "{\"num_hidden_layers\": 1, \"hidden_size\": 64, \"intermediate_size\": 8, "
                       "\"num_attention_heads\": 6, \"num_key_value_heads\": null, \"head_dim\": null, "
                       "\"max_position_embeddings\": null, \"vocab_size\": 9}";
    ok(!model_config_read(&c, file_of(text), &err) && c.num_key_value_heads == 6,
       "num_key_value_heads null: as many as there are heads %s", err.text);
    ok(c.head_dim == 128 && c.max_position_embeddings == 32768, "head_dim and max_position_embeddings null");
    ok(!model_config_read(&c, file_of(MODEL("\"tie_word_embeddings\": 1, \"rope_theta\": 1e6")), &err) &&
           c.tie_word_embeddings, "1 is true %s", err.text);
}

static void test_two_values(void)
{
    static const struct {
        const char *more, *says;
    } cases[] = {
        {"\"rope_theta\": 5e5, \"rope_parameters\": {\"rope_theta\": 1e6}",
         "rope_theta is 500000 and rope_parameters.rope_theta is 1000000"},
        {"\"rope_theta\": 5e5, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2, \"rope_theta\": 1e6}",
         "rope_theta is 500000 and rope_scaling.rope_theta is 1000000"},
        {"\"rope_theta\": 5e5, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, \"rope_parameters\": {}, "
         "\"hidden_size\": 97", "hidden_size is there twice, 96 (line 1) and 97 (line 1)"},
        {"\"rope_theta\": 5e5, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, "
         "\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 4}",
         "rope_scaling.factor is 2.0 and rope_parameters.factor is 4.0"},
        {"\"rope_theta\": 5e5, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2}, "
         "\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"default\"}",
         "rope_scaling.rope_type is \"yarn\" and rope_parameters.rope_type is \"default\""},
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, "
         "\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 2, \"rope_theta\": 5e5}",
         "rope_theta stands in rope_parameters"},
        {"\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"yarn\", \"factor\": 2, \"beta\": 24, "
         "\"beta_fast\": 32}", "rope_parameters.beta_fast is 32 and beta is 24"},
        {"\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_theta\": 6e5}",
         "rope_parameters.rope_theta is there twice, 5e5 (line 1) and 6e5 (line 1)"},
        {"\"rope_theta\": 5e5, \"torch_dtype\": \"float32\", \"dtype\": \"bfloat16\"",
         "torch_dtype is \"float32\" and dtype is \"bfloat16\""},
        {"\"rope_theta\": 5e5, \"layer_types\": [\"full_attention\"]",
         "num_hidden_layers is 4 and layer_types has 1: two values"},
        {"\"rope_theta\": 5e5,\n\"use_qk_norm\": true,\n\"use_qk_norm\": false",
         "use_qk_norm is there twice, true (line 2) and false (line 3)"},
        {"\"rope_theta\": 5e5, \"vocab_size\": null", "vocab_size is there twice, 100 (line 1) and null (line 1)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = xasprintf("{" SHAPE ", %s}", cases[i].more);
        moai_error err = {.text = ""};
        model_config c;
        const bool refused = model_config_read(&c, file_of(text), &err) < 0;
        ok(refused && strstr(err.text, cases[i].says), "refused: %s; wanted: %s", err.text, cases[i].says);
        free(text);
    }
}

/* A key that would change the model, with a value that does: refused by its name. */
static void test_not_implemented(void)
{
    static const char *const keys[] = {
        "\"num_residual_streams\": 4", "\"num_experts\": 128", "\"num_local_experts\": 8", "\"n_routed_experts\": 64",
        "\"moe_num_experts\": 2", "\"mlp_layer_types\": [\"dense\", \"sparse\"]", "\"attn_logit_softcapping\": 50.0",
        "\"final_logit_softcapping\": 30", "\"mlp_bias\": true", "\"use_bias\": true", "\"attention_dropout\": 0.1",
        "\"resid_pdrop\": 0.1", "\"partial_rotary_factor\": 0.5", "\"rotary_dim\": 4", "\"embedding_multiplier\": 12.0",
        "\"residual_multiplier\": 0.22", "\"logits_scaling\": 8", "\"attention_multiplier\": 0.0078125",
        "\"scale_emb\": 12", "\"scale_depth\": 1.4", "\"dim_model_base\": 256", "\"query_pre_attn_scalar\": 256",
        "\"no_rope_layers\": [1, 1, 1, 0]", "\"no_rope_layer_interval\": 4", "\"use_qk_norm\": false",
        "\"is_causal\": false", "\"num_nextn_predict_layers\": 1", "\"quantization_config\": {\"quant_method\": \"fp8\"}",
        "\"per_layer_config\": {\"0\": {}}", "\"kv_lora_rank\": 512", "\"attention_chunk_size\": 64",
        "\"hidden_act\": \"gelu_pytorch_tanh\"", "\"hidden_activation\": \"gelu\"", "\"vision_config\": {\"depth\": 2}",
        "\"clip_qkv\": 8", "\"use_logn_attn\": true", "\"attn_output_gate\": true", "\"num_experts\": Infinity",
        "\"position_embedding_type\": \"absolute\"", "\"alibi\": true", "\"rope_local_base_freq\": 10000",
        "\"full_attention_interval\": 4", "\"is_encoder_decoder\": true", "\"swiglu_limit\": 7.0",
        "\"rope_scaling\": {\"rope_type\": \"default\", \"mrope_section\": [1, 1, 2]}",
        "\"rope_scaling\": {\"full_attention\": {\"rope_theta\": 1e6}}",
        "\"rope_parameters\": {\"rope_theta\": 1e6, \"partial_rotary_factor\": 0.25}",
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char *text = xasprintf("{" SHAPE ", \"rope_theta\": 1e6, %s}", keys[i]), name[64] = "";
        const char *inner = strrchr(keys[i], '{'), *of = strstr(keys[i], "\"rope_") == keys[i] ? inner : NULL;
        moai_error err = {.text = ""};
        model_config c;
        const bool refused = model_config_read(&c, file_of(text), &err) < 0;
        sscanf(of && strstr(keys[i], "mrope") ? strstr(keys[i], "mrope")
               : of && strstr(keys[i], "partial") ? strstr(keys[i], "partial")
               : of ? strstr(keys[i], "full_") : keys[i] + 1, "%60[a-z0-9_]", name);
        strcat(name, " is ");
        ok(refused && strstr(err.text, name) && strstr(err.text, "not implemented"), "refused: %s", err.text);
        free(text);
    }
}

static void test_ends(void)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"[2, 100]", "eos_token_id has 100, must be below vocab_size 100"},
        {"100", "eos_token_id has 100, must be below"},
        {"[2, \"x\"]", "eos_token_id is [2,\"x\"], must be a token or a list of tokens"},
        {"2.5", "eos_token_id is 2.5, must be a token or a list of tokens"},
        {"[2, [3]]", "must be a token or a list"},
        {"true", "must be a token or a list"},
        {"[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", "has 17 tokens, at most 16"},
        {"99999999999999999999", "eos_token_id is 99999999999999999999"},
    };
    model_config c, back, other;
    moai_error err = {.text = ""};

    CHECK(!model_config_read(&c, file_of(MODEL("\"rope_theta\": 1e6, \"eos_token_id\": [15, 43]")), &err), "%s",
          err.text);
    CHECK(!model_config_write(&c, path, "float32", &err), "%s", err.text);
    ok(!model_config_read(&back, path, &err) && back.eos_token_id.n == 2 && back.eos_token_id.id[0] == 15 &&
           back.eos_token_id.id[1] == 43,
       "a list of ends is written and read again %s", err.text);
    CHECK(!model_config_read(&other, file_of(MODEL("\"rope_theta\": 1e6, \"eos_token_id\": 15")), &err), "%s", err.text);
    ok(model_config_same(&c, &other, &err) && strstr(err.text, "eos_token_id is [15,43] in one and 15 in the other"),
       "%s", err.text);
    ok(!model_config_read(&c, file_of(MODEL("\"rope_theta\": 1e6, \"eos_token_id\": []")), &err) &&
           c.eos_token_id.n == 0,
       "an empty list is none %s", err.text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = xasprintf("{" SHAPE ", \"rope_theta\": 1e6, \"eos_token_id\": %s}", cases[i].text);
        const bool refused = model_config_read(&c, file_of(text), &err) < 0;
        ok(refused && strstr(err.text, cases[i].says), "refused: %s; wanted: %s", err.text, cases[i].says);
        free(text);
    }
    token_list ends;
    ok(!generation_config_read_eos(&ends, file_of("{\"eos_token_id\": [7, 100, 3], \"top_k\": NaN}"), 100, &err) &&
           ends.n == 2 && ends.id[0] == 7 && ends.id[1] == 3,
       "a generation_config.json's, without what the vocabulary does not hold %s", err.text);
    ok(!generation_config_read_eos(&ends, "no/such.json", 100, &err) && ends.n == 0, "none without a file");
    ok(generation_config_read_eos(&ends, file_of("[1]"), 100, &err) && strstr(err.text, "not a JSON object"), "%s",
       err.text);
}

static const char *file_of_bytes(const char *text, size_t n)
{
    FILE *f = fopen(file_of(""), "w");
    CHECK(f && fwrite(text, 1, n, f) == n && !fclose(f), "%s: cannot write", path);
    return path;
}

/* What is no JSON file is called what it is, as a model file and as a run file. */
static void test_other_files(void)
{
#define BYTES(t) t, sizeof(t) - 1
    static const struct {
        const char *text;
        size_t n;
        const char *says;
    } cases[] = {
        {BYTES(""), "is empty"},
        {BYTES(" \n\n"), "line"},
        {BYTES("\xEF\xBB\xBF{}"), "begins with a byte order mark"},
        {BYTES("\xFF\xFE{\0}\0"), "is UTF-16"},
        {BYTES("\xFE\xFF\0{\0}"), "is UTF-16"},
        {BYTES("{\0\"\0}\0"), "is UTF-16"},
        {BYTES("\xFF\xFE\0\0{\0\0\0}\0\0\0"), "is UTF-32"},
        {BYTES("{}\n\0\0\0\0"), "ends with 4 NUL bytes, from byte 3 on"},
        {BYTES("\0\0\0\0"), "holds 4 NUL bytes and nothing else"},
        {BYTES("{\"a\0\": 1}"), "byte 3 is NUL"},
        {BYTES("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"), "is a Git LFS pointer"},
        {BYTES("\n<!doctype html><html>"), "is HTML or XML"},
        {BYTES("\x1F\x8B\x08\0\0\0\0"), "is compressed with gzip"},
        {BYTES("{\"a\": \"\xE9t\xE9\"}"), "line 1, column 8: byte 0xE9 is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int as_run = 0; as_run < 2; as_run++) {
            moai_error err = {.text = ""};
            model_config c;
            run_config r;
            char line[640];
            snprintf(line, sizeof line, NEEDED "--config %s", file_of_bytes(cases[i].text, cases[i].n));
            const bool refused = as_run ? run(&r, line, &err) < 0 : model_config_read(&c, path, &err) < 0;
            ok(refused && strstr(err.text, cases[i].says), "%s: %s; wanted: %s", as_run ? "run file" : "model file",
               err.text, cases[i].says);
            if (as_run) run_config_free(&r);
        }
    static const struct {
        const char *text, *says;
    } wrong[] = {
        {"{\"a\": {\"b\": [1, 2", "line 1, column 18: the text ends before the object does: it was cut off"},
        {"{\"a\": \"bcd", "cut off"},
        {"{\"a\": tru", "line 1, column 10: the text ends"},
        {"{\"a\": 1,}", "line 1, column 9: expected a key in quotes"},
        {"{\"a\": [1 2]}", "line 1, column 10: expected ',' or ']'"},
        {"{\"a\": [1}}", "line 1, column 9: expected ',' or ']'"},
        {"{\"a\": 1} x", "line 1, column 10: something follows"},
        {"{'a': 1}", "line 1, column 2: expected a key in quotes"},
        {"{\"a\": 01}", "line 1, column 8: expected ','"},
        {"{\"a\": 1.}", "line 1, column 9: expected a digit"},
        {"{\"a\": \"\\x\"}", "line 1, column 8: an escape that JSON does not have"},
        {"{\"a\": \"\\u12G4\"}", "\\u without four"},
        {"{\"a\": \"b\nc\"}", "a control character in a string"},
        {"{// none\n}", "expected a key in quotes"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        moai_error err = {.text = ""};
        model_config c;
        const bool refused = model_config_read(&c, file_of(wrong[i].text), &err) < 0;
        ok(refused && strstr(err.text, wrong[i].says), "refused: %s; wanted: %s", err.text, wrong[i].says);
    }
}

static void test_flags(void)
{
    run_config c;
    moai_error err;

    ok(!run(&c, NEEDED, &err) && c.tensor_parallel == 1 && c.adamw.adam_beta2 == 0.95 && c.save_on_exit &&
           !*c.tokenizer,
       "defaults %s", err.text);
    run_config_free(&c);
    ok(!run(&c,
            NEEDED
            "--max_steps=7 --learning-rate 2e-3 --bf16 --no_progress --tensorboard false --batch_size 3 --seed 5",
            &err) &&
           c.schedule.max_steps == 7 && c.schedule.learning_rate == 2e-3 && c.bf16 && !c.progress && !c.tensorboard &&
           c.batch.per_device_train_batch_size == 3 && c.seed == 5,
       "forms of a flag %s", err.text);
    run_config_free(&c);
    static const struct {
        const char *word;
        recompute_mode mode;
    } modes[] = {{"", RECOMPUTE_FULL}, {"true", RECOMPUTE_FULL}, {"false", RECOMPUTE_NONE}, {"none", RECOMPUTE_NONE},
                 {"streams", RECOMPUTE_STREAMS}, {"selective", RECOMPUTE_SELECTIVE},
                 {"keep_attention", RECOMPUTE_KEEP_ATTENTION}, {"full", RECOMPUTE_FULL}};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        char line[256];
        snprintf(line, sizeof line, NEEDED "--gradient_checkpointing %s", modes[i].word);
        ok(!run(&c, line, &err) && c.gradient_checkpointing == modes[i].mode, "gradient_checkpointing %s %s",
           modes[i].word, err.text);
        run_config_free(&c);
    }
    ok(!run(&c, NEEDED "--lr_scheduler_type warmup_stable_decay --decay_steps 3", &err) &&
           c.schedule.lr_scheduler_type == SCHEDULE_WSD,
       "a Hugging Face name of a schedule %s", err.text);
    run_config_free(&c);
}

static void test_flags_refused(void)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        {NEEDED "--learning_rat 1", "unknown option --learning_rat; did you mean --learning_rate?"},
        {NEEDED "--pipline_paralel 2", "did you mean --pipeline_parallel?"},
        {NEEDED "--frobnicate 1", "unknown option --frobnicate; --help"},
        {NEEDED "stray", "unexpected argument \"stray\""},
        {NEEDED "--max_steps", "--max_steps needs a value"},
        {NEEDED "--max_steps --bf16", "--max_steps needs a value"},
        {NEEDED "--max_steps ten", "--max_steps is \"ten\", must be an integer"},
        {NEEDED "--max_steps 1.5", "--max_steps is \"1.5\", must be an integer"},
        {NEEDED "--max_steps -1", "--max_steps is -1, must be between 0"},
        {NEEDED "--seed 99999999999999999999",
         "--seed is 99999999999999999999, must be between 0 and 4503599627370496"},
        {NEEDED "--seed 9007199254740993", "--seed is 9007199254740993, must be between 0 and 4503599627370496"},
        {NEEDED "--max_steps -9007199254740993",
         "--max_steps is -9007199254740993, must be between 0 and 1099511627776"},
        {NEEDED "--learning_rate 1000.1", "--learning_rate is 1000.1, must be between 0 and 1000"},
        {NEEDED "--learning_rate nan", "--learning_rate is \"nan\", must be a number"},
        {NEEDED "--learning_rate=-1", "--learning_rate is -1, must be between 0 and 1000"},
        {NEEDED "--tensor_parallel 0", "--tensor_parallel is 0, must be between 1"},
        {NEEDED "--bf16=maybe", "--bf16 is \"maybe\", must be true or false"},
        {NEEDED "--bf16 maybe", "--bf16 is \"maybe\", must be true or false"},
        {NEEDED "--no_bf16=true", "--no_bf16 takes no value, and is given \"true\""},
        {NEEDED "--no_bf16 maybe", "--no_bf16 takes no value, and is given \"maybe\""},
        {NEEDED "--no_max_steps", "unknown option --no_max_steps"},
        {NEEDED "--lr_scheduler_type cosin", "--lr_scheduler_type is \"cosin\", must be one of cosine, wsd"},
        {NEEDED "--bf16 --fp16", "bf16 and fp16 are both true"},
        {NEEDED "--fp16 --min_loss_scale 4 --initial_loss_scale 2", "min_loss_scale is 4, must not exceed"},
        {NEEDED "--fp16 --min_loss_scale 0", "--min_loss_scale is 0, must be between 1"},
        {NEEDED "--context_parallel 2 --seq_length 30",
         "seq_length is 30, must be a multiple of 2 x context_parallel 2: 28 or 32"},
        {NEEDED "--context_parallel 8 --seq_length 15", "a multiple of 2 x context_parallel 8: 16"},
        {NEEDED "--context_parallel 2 --device cuda", "context_parallel is 2, and on a GPU this version has none"},
        {NEEDED "--device tpu", "device is \"tpu\", must be cpu, cuda or auto"},
        {NEEDED "--max_steps 5 --warmup_steps 6", "warmup_steps is 6, must not exceed max_steps 5"},
        {NEEDED "--max_steps 5 --lr_scheduler_type wsd --warmup_steps 3 --decay_steps 3",
         "together exceed max_steps 5"},
        {NEEDED "--config", "--config needs a value"},
        {NEEDED "--config no/such.json", "no/such.json: No such file"},
        {NEEDED "--config configs", "configs: Is a directory"},
        {"--data d", "model is missing"},
        {"--model m", "data is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run_config c;
        moai_error err;
        bool refused = run(&c, cases[i].line, &err) < 0;
        ok(refused && strstr(err.text, cases[i].says), "refused: %s; wanted: %s", err.text, cases[i].says);
        run_config_free(&c);
    }
}

static void test_run_file(void)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"{\"max_step\": 3}", "config.json: unknown key \"max_step\"; did you mean \"max_steps\"?"},
        {"{\"max_steps\": \"3\"}", "config.json: max_steps is \"3\", must be an integer"},
        {"{\"max_steps\": 3.0}", "config.json: max_steps is 3.0, must be an integer"},
        {"{\"bf16\": 1}", "config.json: bf16 is 1, must be true or false"},
        {"{\"model\": 1}", "config.json: model is 1, must be a string"},
        {"{\"adam_beta1\": 1}", "config.json: adam_beta1 is 1, must be between 0 and 0.999999"},
        {"{\"seed\": 1, \"seed\": 2}", "duplicate"},
        {"{\"batch_size\": 1, \"per_device_train_batch_size\": 2}", "are the same key"},
        {"{\"seed\": 1,}", "line 1, column 12: expected a key in quotes; JSON has no comma behind the last"},
        {"{\"seed\": [1, 2,\n ]}", "line 2, column 2: expected a value; JSON has no comma behind the last"},
        {"// of the run\n{\"seed\": 1}", "line 1, column 1: not a JSON object ({...}); JSON has no comments"},
        {"{\"seed\": 1, /* mine */\n\"max_steps\": 1}",
         "line 1, column 13: expected a key in quotes; JSON has no comments"},
        {"{\"seed\": 1 # mine\n}", "line 1, column 12: expected ',' or '}'; JSON has no comments"},
        {"{'seed': 1}", "line 1, column 2: expected a key in quotes; JSON has strings in \" alone"},
        {"{\"bf16\": True}", "line 1, column 10: expected a value; JSON has true, false and null"},
        {"{\"seed\": 9007199254740993}",
         "config.json: seed is 9007199254740993, must be between 0 and 4503599627370496"},
        {"{\"seed\": 99999999999999999999}", "too big integer"},
        {"", "config.json: is empty"},
    };
    run_config c, back;
    moai_error err;
    char line[640];

    file_of(
        "{\"model\": \"m\", \"data\": \"d\", \"max_steps\": 9, \"batch_size\": 2, \"learning_rate\": 1, "
        "\"gradient_checkpointing\": true,\n"
        " \"tokenizer\": null, \"adam_epsilon\": 1.1e-9}");
    snprintf(line, sizeof line, "--max_steps 4 --config %s", path);
    ok(!run(&c, line, &err) && c.schedule.max_steps == 4 && c.batch.per_device_train_batch_size == 2 &&
           c.schedule.learning_rate == 1 &&
           c.gradient_checkpointing == RECOMPUTE_FULL,
       "flags win over the run file %s", err.text);
    char *text = run_config_json(&c);
    snprintf(line, sizeof line, "--config=%s", file_of(text));
    ok(!run(&back, line, &err) && back.schedule.max_steps == 4 && back.adamw.adam_epsilon == 1.1e-9,
       "what is saved is read again %s",
       err.text);
    char *again = run_config_json(&back);
    ok(!strcmp(text, again), "and says the same");
    ok(!resume_keys_check(&back, text, 1ll << 40, &err), "a run of 2^40 steps with the same keys goes on at once %s",
       err.text);
    free(text);
    free(again);
    run_config_free(&c);
    run_config_free(&back);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(line, sizeof line, NEEDED "--config %s", file_of(cases[i].text));
        bool refused = run(&c, line, &err) < 0;
        ok(refused && strstr(err.text, cases[i].says), "refused: %s; wanted: %s", err.text, cases[i].says);
        run_config_free(&c);
    }
}

int main(void)
{
    test_moai_3b();
    test_styles();
    test_let_through();
    test_defaults_of_transformers();
    test_refused();
    test_two_values();
    test_not_implemented();
    test_ends();
    test_other_files();
    test_written();
    test_flags();
    test_flags_refused();
    test_run_file();
    unlink(path);
    return tap_done();
}
