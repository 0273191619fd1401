/* fuzz-weights.c: model.safetensors of a Hugging Face directory, or, behind a first byte of '#',
 * model.safetensors.index.json over two files that are good.  Every weight that the directory offers is read. */
#include "io/hf/hf.h"
#include "io/hf/weights.h"
#include "src/params/params.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static param_table names;

/* The model cut in two files with an index, by our own export. */
static void cut_in_two(void)
{
    moai_error err;

    CHECK(hf_export(&(hf_export_options){.dir = "model", .to = "two", .torch_dtype = "float32",
                                         .max_shard_bytes = 400}, &err) == 0, "%s", err.text);
}

void fuzz_start(void)
{
    moai_error err;
    model_config cfg;

    fuzz_model("model");
    cut_in_two();
    CHECK(model_config_read(&cfg, "model/config.json", &err) == 0, "%s", err.text);
    params_whole(&names, &cfg);
}

void fuzz_seeds(void)
{
    size_t n;
    char *index = fuzz_read("two/model.safetensors.index.json", &n), *marked = xasprintf("#%s", index);
    static const char halves[] =
        "{\"lm_head.weight\":{\"dtype\":\"BF16\",\"shape\":[3,2],\"data_offsets\":[0,12]},"
        "\"x\":{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[12,12]},\"y\":{\"dtype\":\"F8_E4M3\",\"shape\":[],"
        "\"data_offsets\":[12,13]},\"__metadata__\":{\"format\":\"pt\"}}";
    uint8_t file[8 + sizeof halves - 1 + 13] = {sizeof halves - 1};

    memcpy(file + 8, halves, sizeof halves - 1);
    fuzz_seed_file("whole", "model/model.safetensors");
    fuzz_seed("halves", file, sizeof file);
    fuzz_seed_text("index", marked);
    free(index);
    free(marked);
}

/* The header as JSON, its length put right and the data as long as before; or bytes. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    uint64_t n = 0;

    if (size && data[0] == '#') return 1 + fuzz_mutate_json(data + 1, size - 1, max_size - 1, seed);
    for (int i = 7; i >= 0 && size > 8; i--) n = n << 8 | data[i];
    if (size <= 8 || n > size - 8 || max_size < size || fuzz_draw(&seed, 8) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    const size_t rest = size - 8 - (size_t)n;
    uint8_t *tail = malloc(rest + 1);
    CHECK(tail, "out of host memory");
    memcpy(tail, data + 8 + n, rest);
    n = fuzz_mutate_json(data + 8, (size_t)n, max_size - 8 - rest, seed);
    for (int i = 0; i < 8; i++) data[i] = (uint8_t)(n >> 8 * i);
    memcpy(data + 8 + n, tail, rest);
    free(tail);
    return 8 + (size_t)n + rest;
}

static void read_all(const char *dir)
{
    moai_error err;
    weights *w = weights_open(dir, &err);
    float x[512];

    for (int i = 0; w && i < names.n; i++) {
        const param *p = &names.list[i];
        CHECK(p->rows * p->cols <= 512, "a small model");
        weights_read(w, p->name, 0, p->rows, 0, p->cols, x, p->cols, &err);
        weights_read(w, p->name, p->rows / 2, 1, p->cols / 2, 1, x, 1, &err);
    }
    weights_free(w);
}

/* Whatever it holds, whether the model wants it or not. */
static void read_every_tensor(const char *path)
{
    moai_error err;
    safetensors *s = safetensors_open(path, &err);
    float x[64];

    for (int i = 0; s && i < safetensors_count(s); i++) {
        const safetensors_entry *e = safetensors_get(s, i);
        const int64_t cols = e->ndim && e->ndim <= 4 ? e->shape[e->ndim - 1] : 0;
        CHECK(safetensors_find(s, e->name), "%s is not found", e->name);
        safetensors_read(s, e, 0, 1, cols > 8 ? cols - 8 : 0, min_i64(cols, 8), x, 8, &err);
        safetensors_read(s, e, INT64_MAX, 1, 0, 1, x, 1, &err);
    }
    safetensors_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && data[0] == '#') {
        fuzz_write("two/model.safetensors.index.json", data + 1, size - 1);
        read_all("two");
    } else {
        fuzz_write("model/model.safetensors", data, size);
        read_all("model");
        read_every_tensor("model/model.safetensors");
    }
    return 0;
}
