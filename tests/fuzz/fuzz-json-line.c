/* fuzz-json-line.c: a line of JSON lines, beside Jansson's reading of it: what Jansson takes is taken, and the same
 * string is found. */
#include "io/text/json_line.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

void fuzz_start(void) {}

void fuzz_seeds(void) { fuzz_json_seeds(); }

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate_json(data, size, max_size, seed);
}

static void compare_string(const json_found *found, const char *text, size_t n)
{
    char *out = xmalloc(found->n_bytes + 1);
    json_fault fault;
    size_t n_out = 0;

    CHECK(json_find_control(found->value, found->n_bytes) < 0, "a control character");
    CHECK(json_unescape(found->value, found->n_bytes, out, &n_out, NULL, &fault) == 0, "%s", fault.why);
    CHECK(n_out == n && memcmp(out, text, n) == 0, "another string");
    CHECK(found->escaped || n_out == found->n_bytes, "an escape that is not told");
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char kinds[] = {[VALUE_NONE] = '-',  [VALUE_STRING] = 's', [VALUE_NUMBER] = 'i', [VALUE_TRUE] = 't',
                                 [VALUE_FALSE] = 'f', [VALUE_NULL] = 'n',   [VALUE_OBJECT] = 'o', [VALUE_ARRAY] = 'a'};
    char *line = xmalloc(size + 1), keys[64], kind = 0;
    json_found found;
    json_fault fault;
    size_t n_text = 0;

    memcpy(line, data, size);
    /* Jansson drops a NUL behind a number */
    char *text = memchr(data, 0, size) ? NULL : fuzz_jansson(line, size, "text", &n_text, &kind);
    const int status = json_find(line, size, "text", &found, &fault);
    CHECK(!kind || status == 0, "Jansson takes it, json_find says %s at %zu", fault.why ? fault.why : "no object",
          fault.at);
    if (kind)
        CHECK(kinds[found.kind] == (kind == 'r' ? 'i' : kind), "'%c', Jansson finds '%c'", kinds[found.kind], kind);
    if (text) compare_string(&found, text, n_text);
    if (status == 0) {
        json_keys(line, size, keys, sizeof keys);
        CHECK(found.kind == VALUE_NONE || (found.value >= line && found.value + found.n_bytes <= line + size),
              "a value outside");
    } else {
        CHECK(fault.at <= size, "a fault outside");
    }
    free(text);
    free(line);
    return 0;
}
