/* fuzz-left-out.c: left_out.json.  What is read can be written and is the same again, and the order of samples leaves
 * it out. */
#include "io/data/data_order.h"
#include "src/train/left_out_list.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static const left_out_data what = {.seed = 42, .seq_length = 64, .n_samples = 100};

void fuzz_start(void) {}

void fuzz_seeds(void)
{
    fuzz_seed_text(
        "two",
        "{\"seed\": 42, \"seq_length\": 64, \"n_samples\": 100, \"decisions\": [{\"step\": 25, \"measure\": \"loss\", "
        "\"value\": 9.5,\n"
        "\"mean\": 2.0, \"zscore\": 8.0, \"back_to\": 20, \"from\": 160, \"samples\": [3, 5, 99]}, {\"step\": 30, "
        "\"measure\": \"grad_norm\",\n"
        "\"value\": 9.5, \"mean\": 2.0, \"zscore\": 8.0, \"back_to\": 20, \"from\": 40, \"samples\": [3, 6]}]}\n");
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate_json(data, size, max_size, seed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    left_out_list list = left_out_start(), again = left_out_start();
    moai_error err;

    fuzz_write("left_out.json", data, size);
    if (left_out_read(&list, &what, "left_out.json", &err) == 0) {
        for (int64_t i = 0; i < list.n; i++)
            CHECK(list.list[i].from >= 0 && list.list[i].sample >= 0, "a negative place");
        for (int64_t i = 1; i < list.n; i++) CHECK(list.list[i - 1].sample < list.list[i].sample, "not in order");
        CHECK(left_out_write(&list, &what, "again.json", &err) == 0, "%s", err.text);
        CHECK(left_out_read(&again, &what, "again.json", &err) == 0, "%s", err.text);
        CHECK(list.n == again.n &&
                  (list.n == 0 || memcmp(list.list, again.list, (size_t)list.n * sizeof *list.list) == 0),
              "written, it is another list");
        const data_order order = {
            .seed = 42, .shuffle = true, .n_samples = what.n_samples, .left_out = list.list, .n_left_out = list.n};
        int64_t samples[32];
        if (list.n < what.n_samples) order_take(&order, 150, 32, samples);
    }
    left_out_free(&list);
    left_out_free(&again);
    return 0;
}
