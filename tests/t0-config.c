/* the model file and the run file: what is read, what is refused and in which words */
#include "tap.h"

#include "config.h"

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

#define SHAPE                                                                                                          \
    "\"num_hidden_layers\": 4, \"hidden_size\": 96, \"intermediate_size\": 64, \"num_attention_heads\": 14, "          \
    "\"num_key_value_heads\": 2, \"head_dim\": 8, \"vocab_size\": 100, \"max_position_embeddings\": 128"
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
    ok(c.head_dim == 128 && c.eos_token_id == 3 && c.pad_token_id == -1 && c.max_position_embeddings == 32768,
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
        {MODEL("\"rope_theta\": 1e6, \"use_sliding_window\": true"), "use_sliding_window is true, must be false"},
        {MODEL("\"rope_theta\": 1e6, \"layer_types\": [\"full_attention\", \"sliding_attention\"]"),
         "layer_types[1] is \"sliding_attention\""},
        {MODEL("\"rope_theta\": 1e6, \"hidden_act\": \"gelu\""), "hidden_act is \"gelu\", must be \"silu\""},
        {MODEL("\"rope_theta\": 1e6, \"attention_dropout\": 0.1"), "attention_dropout is 0.1, must be 0.0"},
        {MODEL("\"rope_theta\": 1e6, \"quantization_config\": {}"), "quantization_config"},
        {MODEL("\"rope_theta\": 1e6, \"tie_word_embedding\": true"),
         "unknown key \"tie_word_embedding\"; did you mean \"tie_word_embeddings\"?"},
        {MODEL("\"use_cache\": true"), "rope_theta is missing"},
        {MODEL("\"rope_theta\": 1e6, \"rms_norm_eps\": \"1e-6\""), "rms_norm_eps is \"1e-6\", must be a number"},
        {MODEL("\"rope_theta\": 1e6, \"pad_token_id\": 100"), "pad_token_id is 100, must be below vocab_size 100"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8}"),
         "rope_scaling.type is \"llama3\", must be one of"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"yarn\"}"), "rope_scaling.factor is missing"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"yarn\", \"rope_type\": \"linear\", \"factor\": 2}"),
         "differ"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 0.5}"),
         "rope_scaling.factor is 0.5, must be between 1"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2, \"low_freq_factor\": 1}"),
         "low_freq_factor: unknown key"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2, \"attention_factor\": 0}"),
         "rope_scaling.attention_factor is 0"},
        {MODEL("\"rope_theta\": 1e6, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 2}, "
               "\"original_max_position_embeddings\": 16"),
         "original_max_position_embeddings is 16, must stand in rope_scaling"},
        {MODEL("\"rope_theta\": 1e6, \"hidden_size\": 96"), "duplicate"},
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
    };
    for (int i = 0; i < 2; i++) {
        model_config c, back;
        moai_error err = {.text = ""};
        CHECK(!model_config_read(&c, file_of(texts[i]), &err), "%s", err.text);
        CHECK(!model_config_write(&c, path, "float32", &err), "%s", err.text);
        ok(!model_config_read(&back, path, &err) && !model_config_same(&c, &back, &err),
           "written and read again, case %d%s", i, err.text);
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

static void test_flags(void)
{
    run_config c;
    moai_error err;

    ok(!run(&c, NEEDED, &err) && c.tensor_parallel == 1 && c.adam_beta2 == 0.95 && c.save_on_exit && !*c.tokenizer,
       "defaults %s", err.text);
    run_config_free(&c);
    ok(!run(&c,
            NEEDED
            "--max_steps=7 --learning-rate 2e-3 --bf16 --no_progress --tensorboard false --batch_size 3 --seed 5",
            &err) &&
           c.max_steps == 7 && c.learning_rate == 2e-3 && c.bf16 && !c.progress && !c.tensorboard &&
           c.per_device_train_batch_size == 3 && c.seed == 5,
       "forms of a flag %s", err.text);
    run_config_free(&c);
    static const struct {
        const char *word;
        recompute_mode mode;
    } modes[] = {{"", RECOMPUTE_FULL}, {"true", RECOMPUTE_FULL}, {"false", RECOMPUTE_NONE}, {"none", RECOMPUTE_NONE},
                 {"selective", RECOMPUTE_SELECTIVE}, {"full", RECOMPUTE_FULL}};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        char line[256];
        snprintf(line, sizeof line, NEEDED "--gradient_checkpointing %s", modes[i].word);
        ok(!run(&c, line, &err) && c.gradient_checkpointing == modes[i].mode, "gradient_checkpointing %s %s",
           modes[i].word, err.text);
        run_config_free(&c);
    }
    ok(!run(&c, NEEDED "--lr_scheduler_type warmup_stable_decay --decay_steps 3", &err) &&
           c.lr_scheduler_type == SCHEDULE_WSD,
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
        {NEEDED "--seed 99999999999999999999", "--seed is \"99999999999999999999\", must be an integer"},
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
        {NEEDED "--context_parallel 2", "context_parallel is 2"},
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
        {"{\"adam_beta1\": 1}", "config.json: adam_beta1 is 1, must be between 0 and 0.999999999"},
        {"{\"seed\": 1, \"seed\": 2}", "duplicate"},
        {"{\"batch_size\": 1, \"per_device_train_batch_size\": 2}", "are the same key"},
        {"{\"seed\": 1,}", "line 1, column"},
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
    ok(!run(&c, line, &err) && c.max_steps == 4 && c.per_device_train_batch_size == 2 && c.learning_rate == 1 &&
           c.gradient_checkpointing == RECOMPUTE_FULL,
       "flags win over the run file %s", err.text);
    char *text = run_config_json(&c);
    snprintf(line, sizeof line, "--config=%s", file_of(text));
    ok(!run(&back, line, &err) && back.max_steps == 4 && back.adam_epsilon == 1.1e-9, "what is saved is read again %s",
       err.text);
    char *again = run_config_json(&back);
    ok(!strcmp(text, again), "and says the same");
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
    test_refused();
    test_written();
    test_flags();
    test_flags_refused();
    test_run_file();
    unlink(path);
    return tap_done();
}
