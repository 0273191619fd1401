/* fuzz-config.c: config.json, and the same as generation_config.json.  What is read can be written, and reads as the
 * same again. */
#include "src/config/model_config.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

void fuzz_start(void) {}

void fuzz_seeds(void)
{
    fuzz_model("model");
    fuzz_seed_file("small", "model/config.json");
    fuzz_seed_text(
        "rope_scaling",
        "{\"model_type\": \"qwen3\", \"num_hidden_layers\": 28, \"hidden_size\": 1024, \"intermediate_size\": 3072,\n"
        "\"num_attention_heads\": 16, \"num_key_value_heads\": 8, \"head_dim\": 128, \"vocab_size\": 151936,\n"
        "\"max_position_embeddings\": 40960, \"rope_theta\": 1000000, \"rope_scaling\": {\"rope_type\": \"yarn\",\n"
        "\"factor\": 4.0, \"original_max_position_embeddings\": 32768, \"beta_fast\": 32, \"truncate\": false},\n"
        "\"torch_dtype\": \"bfloat16\", \"eos_token_id\": [151645, 151643], \"bos_token_id\": 151643,\n"
        "\"sliding_window\": null, \"use_sliding_window\": false, \"max_window_layers\": 28, \"use_cache\": true,\n"
        "\"attention_bias\": false, \"hidden_act\": \"silu\", \"layer_types\": [\"full_attention\"]}\n");
    fuzz_seed_text(
        "rope_parameters",
        "{\"num_hidden_layers\": 2, \"hidden_size\": 16, \"intermediate_size\": 32, \"num_attention_heads\": 4,\n"
        "\"num_key_value_heads\": 2, \"vocab_size\": 50, \"rope_parameters\": {\"type\": \"linear\", \"rope_theta\": "
        "1e4,\n"
        "\"factor\": 2, \"partial_rotary_factor\": 1.0, \"attention_factor\": null, \"mscale\": 1, \"alpha\": 1},\n"
        "\"pad_token_id\": null, \"tie_word_embeddings\": true, \"initializer_range\": 0.02, \"mlp_bias\": false}\n");
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate_json(data, size, max_size, seed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    model_config c, again;
    moai_error err;

    token_list eos;

    fuzz_write("config.json", data, size);
    if (generation_config_read_eos(&eos, "config.json", 1000, &err) == 0)
        for (int i = 0; i < eos.n; i++) CHECK(eos.id[i] < 1000, "id %lld", (long long)eos.id[i]);
    if (model_config_read(&c, "config.json", &err) != 0) return 0;
    model_config_remark(&c, "config.json");
    CHECK(model_n_params(&c) > 0 && model_flops_products(&c) > 0, "no parameters");
    CHECK(model_config_write(&c, "again.json", "float32", &err) == 0, "%s", err.text);
    CHECK(model_config_read(&again, "again.json", &err) == 0, "%s", err.text);
    CHECK(model_config_same(&c, &again, &err) == 0, "%s", err.text);
    return 0;
}
