/* fuzz-checkpoint.c: manifest.json of a checkpoint, sealed again after each change, and the piece file beside it.
 * Behind a first byte of '#' stand changes to the piece file, whose hashes the manifest then gets, so that both go
 * the whole way; else the text is the manifest.  Verified, listed, loaded for training and as weights, and its run
 * resumed. */
#include "io/checkpoint/checkpoint.h"
#include "io/checkpoint/checkpoint_manifest.h"
#include "io/hf/hf.h"
#include "io/hf/weights.h"
#include "src/base/files.h"
#include "src/train/resume_keys.h"
#include "src/train/run_state.h"
#include "tests/fuzz/fuzz.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

static model_config cfg;
static param_table params;
static const grid_shape one = {1, 1, 1, 1};
static moai_device *dev;
static uint8_t *pieces, *manifest;
static size_t n_pieces, n_manifest;

void fuzz_start(void)
{
    moai_error err;

    fuzz_model("model");
    CHECK(hf_import(&(hf_import_options){.dir = "model", .output_dir = "run"}, &err) == 0, "%s", err.text);
    CHECK(model_config_read(&cfg, "model/config.json", &err) == 0, "%s", err.text);
    params_whole(&params, &cfg);
    pieces = fuzz_read("run/checkpoint-0/rank-00000.h5", &n_pieces);
    manifest = fuzz_read("run/checkpoint-0/manifest.json", &n_manifest);
    dev = device_open_cpu(1);
}

/* As a run writes it: with a run configuration and a state. */
static void seed_of_a_run(void)
{
    static char *const words[] = {
        "moai_train", "--model", "m", "--data", "d", "--fp16", "--loss_spike_zscore", "3", "--loss_spike_window", "4"};
    json_t *root = json_loadb((const char *)manifest, n_manifest, 0, NULL);
    run_config run;
    moai_error err;

    CHECK(run_config_read(&run, 10, (char **)(uintptr_t)words, &err) == 0, "%s", err.text);
    char *json = run_config_json(&run);
    json_object_set_new(root, "run", json_loads(json, 0, NULL));
    json_object_set_new(
        root, "state",
        json_loads(
            "{\"loss_scale\": {\"value\": 1024.0, \"clean_steps\": 3}, \"spikes\": {\"loss\": [1.5, 2], \"grad_norm\": "
            "[1, 2.5],"
            "\"in_a_row\": 0}, \"left_out\": [{\"step\": 25, \"measure\": \"loss\", \"value\": 9.5, \"mean\": 2.0,"
            "\"zscore\": 8.0, \"back_to\": 20, \"from\": 160, \"samples\": [3, 5]}]}",
            0, NULL));
    json_object_set_new(root, "step", json_integer(5));
    json_object_set_new(root, "samples", json_integer(20));
    json_object_del(root, "xxh3");
    char *text = json_dumps(root, JSON_INDENT(1)), *sealed = json_sealed(text);
    fuzz_seed_text("run", sealed);
    free(sealed);
    free(text);
    free(json);
    json_decref(root);
    run_config_free(&run);
}

void fuzz_seeds(void)
{
    fuzz_seed("imported", manifest, n_manifest);
    seed_of_a_run();
    fuzz_seed_text("pieces", "#\x10\x08__\x40\x06xy");
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    if ((size && data[0] == '#') || fuzz_draw(&seed, 10) == 0) return LLVMFuzzerMutate(data, size, max_size);
    return fuzz_seal(data, fuzz_mutate_json(data, fuzz_unseal(data, size), max_size, seed), max_size);
}

static json_t *hash_of(const void *data, size_t n)
{
    char hex[33];

    file_xxh3_text(data, n, hex);
    return json_string(hex);
}

/* The hashes of pieces in the manifest become those of the file. */
static void trust(const uint8_t *file, size_t n)
{
    json_t *root = json_loadb((const char *)manifest, n_manifest, 0, NULL),
           *f = json_array_get(json_object_get(root, "files"), 0), *p;
    size_t i;

    json_array_foreach(json_object_get(f, "pieces"), i, p)
    {
        const json_int_t at = json_integer_value(json_object_get(p, "address"));
        const json_t *shape = json_object_get(p, "size");
        const size_t n_bytes =
            4 * (size_t)(json_integer_value(json_array_get(shape, 0)) * json_integer_value(json_array_get(shape, 1)));
        if (at >= 0 && (size_t)at + n_bytes <= n) json_object_set_new(p, "xxh3", hash_of(file + at, n_bytes));
    }
    json_object_del(root, "xxh3");
    char *text = json_dumps(root, JSON_INDENT(1)), *sealed = json_sealed(text);
    fuzz_write("run/checkpoint-0/manifest.json", sealed, strlen(sealed));
    free(sealed);
    free(text);
    json_decref(root);
}

/* Pairs of place (16 bits) and value (16 bits); one past the end cuts the file there. */
static void change_pieces(const uint8_t *data, size_t size)
{
    uint8_t *file = malloc(n_pieces);
    size_t n = n_pieces;

    CHECK(file, "out of host memory");
    memcpy(file, pieces, n_pieces);
    for (size_t i = 0; i + 4 <= size; i += 4) {
        const size_t at = (size_t)data[i] | (size_t)data[i + 1] << 8;
        if (at + 2 <= n_pieces)
            memcpy(file + at, data + i + 2, 2);
        else
            n = at % n_pieces;
    }
    fuzz_write("run/checkpoint-0/rank-00000.h5", file, n);
    trust(file, n);
    free(file);
}

static void load(void)
{
    moai_grid grid;
    checkpoint_state st = {.params = &params, .grid = &grid, .ops = &ops_cpu, .dev = dev};
    moai_error err;

    checkpoint_manifest *m = NULL;

    grid_dry(&grid, one, (grid_shape){0, 0, 0, 0}, 1);
    st.states = opt_state_on_host(opt_state_of(adamw_states, params.n_own));
    CHECK(opt_state_take_host(&st.states, &ops_cpu, dev, &err) == 0, "%s", err.text);
    if (checkpoint_open(&m, "run/checkpoint-0", &comm_alone, &err) == 0) {
        checkpoint_load(m, &st, &err);
        checkpoint_check_rest(m, 0, 1, &err);
        checkpoint_close(m);
    }
    opt_state_free_host(&st.states, &ops_cpu, dev);
}

static void resume(void)
{
    static char *const words[] = {
        "moai_train", "--model", "m", "--data", "d", "--fp16", "--loss_spike_zscore", "3", "--loss_spike_window", "4"};
    checkpoint_meta meta;
    run_config run;
    moai_error err;

    CHECK(run_config_read(&run, 10, (char **)(uintptr_t)words, &err) == 0, "%s", err.text);
    if (checkpoint_read_meta("run/checkpoint-0", &meta, &err) == 0) {
        run_state state = run_state_start(&run);
        resume_keys_check(&run, meta.run_json, meta.step, &err);
        if (run_state_read(&state, &run, meta.state_json, "state", &err) == 0) {
            char *json = run_state_json(&state, &run);
            run_state again = run_state_start(&run);
            CHECK(run_state_read(&again, &run, json, "again", &err) == 0, "%s", err.text);
            run_state_free(&again);
            free(json);
        }
        run_state_free(&state);
        checkpoint_meta_free(&meta);
    }
    run_config_free(&run);
}

static void read_weights(void)
{
    moai_error err;
    weights *w = weights_open("run/checkpoint-0", &err);
    float x[512];

    for (int i = 0; w && i < params.n; i++) {
        const param *p = &params.list[i];
        if (p->rows * p->cols <= 512) weights_read(w, p->name, 0, p->rows, 0, p->cols, x, p->cols, &err);
    }
    weights_free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    moai_error err;
    int n;

    if (size && data[0] == '#') {
        change_pieces(data + 1, size - 1);
    } else {
        fuzz_write("run/checkpoint-0/rank-00000.h5", pieces, n_pieces);
        fuzz_write("run/checkpoint-0/manifest.json", data, size);
    }
    checkpoint_info *list = checkpoint_list("run", &n, &err);
    if (list) checkpoint_list_free(list, n);
    checkpoint_verify("run/checkpoint-0", &comm_alone, NULL, NULL, &err);
    load();
    resume();
    read_weights();
    return 0;
}
