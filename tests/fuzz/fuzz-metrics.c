/* fuzz-metrics.c: metrics.jsonl of a run that goes on.  What stays are whole lines of steps up to the one resumed
 * from, and reading what stayed changes nothing. */
#include "io/metrics/metrics.h"
#include "src/base/files.h"
#include "tests/fuzz/fuzz.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void fuzz_start(void) { mkdir("run", 0777); }

void fuzz_seeds(void)
{
    fuzz_seed_text("lines", "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":null,\"samples\":[1,2]}\n{\"step\":9,"
                            "\"event\":\"stop\",\"text\":\"x\"}\n"
                            "{\"step\":3");
    fuzz_seed("zeros", "{\"step\":1}\n\0\0\0\0\0\0\0\0\n{\"step\":2}\0\n{\"step\":3}\n", 43);
}

static void open_at(int64_t step)
{
    moai_error err;
    metrics *m = metrics_open("run", false, false, step, &err);

    CHECK(m, "%s", err.text);
    metrics_close(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t n, n_again;

    fuzz_write("run/metrics.jsonl", data, size);
    open_at(5);
    char *kept = fuzz_read("run/metrics.jsonl", &n);
    CHECK(n == 0 || kept[n - 1] == '\n', "a torn line stayed");
    for (char *line = kept, *end; line < kept + n; line = end + 1) {
        end = memchr(line, '\n', (size_t)(kept + n - line));
        json_t *o = json_loadb(line, (size_t)(end - line), 0, NULL);
        CHECK(json_is_integer(json_object_get(o, "step")) && json_integer_value(json_object_get(o, "step")) <= 5,
              "a line stayed that should not");
        json_decref(o);
    }
    open_at(5);
    char *again = fuzz_read("run/metrics.jsonl", &n_again);
    CHECK(n == n_again && memcmp(kept, again, n) == 0, "the second time more went");
    free(kept);
    free(again);
    open_at(0);
    return 0;
}
