/* fuzz-json.c: a JSON file cut into members, beside Jansson's reading of it: what Jansson takes is taken, and the
 * members have the same values. */
#include "src/json/json_scan.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

void fuzz_start(void) {}

void fuzz_seeds(void) { fuzz_json_seeds(); }

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate_json(data, size, max_size, seed);
}

static void compare_members(const char *text, size_t n, const json_t *root)
{
    json_members m;
    moai_error err;
    const char *key;
    json_t *value, *got;

    if (!json_is_object(root)) return;
    CHECK(json_members_scan(&m, "x", text, n, &err) == 0, "Jansson takes it: %s", err.text);
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        const int status = json_members_get(&m, key, &got, &err);
        if (status != 0) continue; /* the key is there twice with values that differ */
        CHECK(json_is_null(value) ? !got : got && json_same(got, value), "another value of %s", key);
        json_decref(got);
    }
    json_members_free(&m);
}

static void read_alone(const char *text, size_t n)
{
    json_members m;
    moai_error err;
    size_t n_file;

    fuzz_write("x.json", text, n);
    if (json_members_open(&m, "x.json", &err) == 0)
        for (size_t i = 0; i < m.n; i++) {
            json_t *value = json_member_value(&m.list[i]);
            free(json_member_text(&m.list[i], 40));
            json_decref(value);
        }
    json_members_free(&m);
    free(json_file_read("x.json", &n_file, &err));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xmalloc(size + 1);

    memcpy(text, data, size);
    /* Jansson drops a NUL behind a number */
    json_t *root = memchr(data, 0, size) ? NULL : json_loadb(text, size, JSON_ALLOW_NUL, NULL);
    compare_members(text, size, root);
    json_decref(root);
    read_alone(text, size);
    free(text);
    return 0;
}
