/* fuzz_json.c: changing JSON as a tree; see fuzz.h */
#include "tests/fuzz/fuzz.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

uint64_t fuzz_draw(unsigned *seed, uint64_t n)
{
    uint64_t x = *seed + 0x9E3779B97F4A7C15u;

    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    x ^= x >> 31;
    *seed = (unsigned)(x >> 32);
    return x % n;
}

/* Where a value hangs in the tree. */
typedef struct place {
    json_t *parent;
    const char *key; /* of an object */
    size_t index;    /* of an array */
} place;

typedef struct places {
    place *list;
    size_t n, room;
} places;

static void add_place(places *p, place at)
{
    if (p->n == p->room) {
        p->room = 2 * p->room + 16;
        p->list = realloc(p->list, p->room * sizeof *p->list);
        CHECK(p->list, "out of host memory");
    }
    p->list[p->n++] = at;
}

static void find_places(places *p, json_t *value)
{
    const char *key;
    json_t *v;
    size_t i;

    json_object_foreach(value, key, v)
    {
        add_place(p, (place){value, key, 0});
        find_places(p, v);
    }
    json_array_foreach(value, i, v)
    {
        add_place(p, (place){value, NULL, i});
        find_places(p, v);
    }
}

static json_t *value_at(place p)
{
    return p.key ? json_object_get(p.parent, p.key) : json_array_get(p.parent, p.index);
}

/* Takes the reference. */
static void put(place p, json_t *value)
{
    if (p.key)
        json_object_set_new(p.parent, p.key, value);
    else
        json_array_set_new(p.parent, p.index, value);
}

static void drop(place p)
{
    if (p.key)
        json_object_del(p.parent, p.key);
    else
        json_array_remove(p.parent, p.index);
}

static json_t *edge_value(unsigned *seed)
{
    static const char *const edges[] = {"null",
                                        "true",
                                        "false",
                                        "0",
                                        "-1",
                                        "1",
                                        "2",
                                        "3",
                                        "7",
                                        "64",
                                        "127",
                                        "255",
                                        "256",
                                        "65535",
                                        "65536",
                                        "1048576",
                                        "2147483647",
                                        "2147483648",
                                        "4294967295",
                                        "4294967296",
                                        "9007199254740993",
                                        "9223372036854775807",
                                        "-9223372036854775808",
                                        "0.0",
                                        "-0.0",
                                        "0.5",
                                        "1.0",
                                        "1e-320",
                                        "1e308",
                                        "-1e308",
                                        "1e-6",
                                        "1e19",
                                        "\"\"",
                                        "\"0\"",
                                        "\"x\"",
                                        "\"../x\"",
                                        "\"/x\"",
                                        "\"%s%n\"",
                                        "\"\\u00e9\\u2581\"",
                                        "\"\\ud834\\udd1e\"",
                                        "\"true\"",
                                        "\"auto\"",
                                        "[]",
                                        "[0]",
                                        "[null]",
                                        "[1,2]",
                                        "[1,2,3]",
                                        "{}",
                                        "{\"x\":1}",
                                        "[[[[[[[[[]]]]]]]]]"};

    return json_loads(edges[fuzz_draw(seed, sizeof edges / sizeof *edges)], JSON_DECODE_ANY, NULL);
}

static json_t *near_integer(json_int_t x, unsigned *seed)
{
    const uint64_t how = fuzz_draw(seed, 6), bit = 1ull << fuzz_draw(seed, 64);

    return json_integer(how == 0   ? (json_int_t)((uint64_t)x + 1)
                        : how == 1 ? (json_int_t)((uint64_t)x - 1)
                        : how == 2 ? (json_int_t)((uint64_t)x ^ bit)
                        : how == 3 ? (json_int_t)((uint64_t)x * 2)
                        : how == 4 ? (json_int_t)(0 - (uint64_t)x)
                                   : (json_int_t)fuzz_draw(seed, 100));
}

static json_t *near_text(const json_t *text, unsigned *seed)
{
    uint8_t bytes[512];
    size_t n = json_string_length(text);

    if (n > sizeof bytes / 2) n = sizeof bytes / 2;
    memcpy(bytes, json_string_value(text), n);
    if (fuzz_draw(seed, 8) == 0) { /* long */
        json_t *tail = json_string(json_string_value(text)),
               *whole = json_sprintf("%0*d%s", (int)fuzz_draw(seed, 5000), 0, json_string_value(text));
        json_decref(tail);
        return whole;
    }
    n = LLVMFuzzerMutate(bytes, n, sizeof bytes);
    json_t *near = json_stringn((const char *)bytes, n);
    return near ? near : edge_value(seed);
}

static json_t *near_value(const json_t *v, unsigned *seed)
{
    if (json_is_integer(v) && fuzz_draw(seed, 3)) return near_integer(json_integer_value(v), seed);
    if (json_is_string(v) && fuzz_draw(seed, 3)) return near_text(v, seed);
    if (json_is_real(v) && fuzz_draw(seed, 3)) {
        json_t *x = json_real(json_real_value(v) * (fuzz_draw(seed, 2) ? 1e10 : -0.5));
        return x ? x : json_real(1);
    }
    return edge_value(seed);
}

/* The value again: under a key of its own, or as a further element. */
static void repeat(place p, unsigned *seed)
{
    char key[32];
    json_t *copy = json_deep_copy(value_at(p));

    snprintf(key, sizeof key, "k%u", (unsigned)fuzz_draw(seed, 1000));
    if (p.key)
        json_object_set_new(p.parent, key, copy);
    else
        json_array_insert_new(p.parent, p.index, copy);
}

static void change(json_t *root, unsigned *seed)
{
    places all = {NULL, 0, 0};

    find_places(&all, root);
    if (all.n == 0) {
        json_object_set_new(root, "x", edge_value(seed));
        json_array_append_new(root, edge_value(seed));
    } else {
        const place at = all.list[fuzz_draw(seed, all.n)], other = all.list[fuzz_draw(seed, all.n)];
        switch (fuzz_draw(seed, 8)) {
        case 0: drop(at); break;
        case 1: repeat(at, seed); break;
        case 2: put(at, json_deep_copy(value_at(other))); break;
        case 3: /* under another's name */
            if (at.key && other.key) json_object_set_new(at.parent, other.key, json_deep_copy(value_at(at)));
            break;
        case 4: put(at, edge_value(seed)); break;
        default: put(at, near_value(value_at(at), seed)); break;
        }
    }
    free(all.list);
}

size_t fuzz_mutate_json(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    json_t *root = fuzz_draw(&seed, 4) ? json_loadb((const char *)data, size, 0, NULL) : NULL;

    if (!root) return LLVMFuzzerMutate(data, size, max_size);
    for (uint64_t n = 1 + fuzz_draw(&seed, 3); n > 0; n--) change(root, &seed);
    char *text = json_dumps(root, fuzz_draw(&seed, 2) ? JSON_COMPACT : JSON_INDENT(1));
    const size_t n = text ? strlen(text) : 0;
    if (n && n <= max_size) memcpy(data, text, size = n);
    json_decref(root);
    free(text);
    return size;
}

char *fuzz_jansson(const char *text, size_t n, const char *key, size_t *n_text, char *kind)
{
    json_t *root = json_loadb(text, n, JSON_ALLOW_NUL, NULL);
    const json_t *value = json_object_get(root, key);
    char *copy = NULL;

    *n_text = json_string_length(value);
    *kind = !json_is_object(root) ? 0 : !value ? '-' : "oasirtfn"[json_typeof(value)];
    if (json_is_string(value)) copy = memcpy(xmalloc(*n_text + 1), json_string_value(value), *n_text);
    json_decref(root);
    return copy;
}

void fuzz_json_seeds(void)
{
    fuzz_seed_text("kinds", "{\"text\": \"a\\u00e9\\\\ \\\"b\\\"\", \"n\": [1, -2.5e-3, null, true, false, {\"a\": "
                            "[]}], \"k\\u0065y\": {}}");
    fuzz_seed_text(
        "odd", "{\"a\": NaN, \"b\": [-Infinity, 1e400], \"text\": \"\\ud800\", \"c\": 123456789012345678901234567890}");
    fuzz_seed_text("deep", "[[[[{\"text\": [[{}]]}]]]]");
    fuzz_seed_text("twice", "{\"text\": 1, \"te\\u0078t\": \"\\uD834\\uDD1E\\u0000\"}");
}
