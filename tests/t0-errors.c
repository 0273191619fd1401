/* Texts that find no room: what they begin with and the reason at their end stay, whole characters only. */
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);

    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Whole UTF-8 sequences; what we print here has no others. */
static bool is_utf8(const char *s)
{
    while (*s) {
        const unsigned char c = (unsigned char)*s++;
        const int more = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc2 ? 1 : -1;
        if (more < 0) return false;
        for (int i = 0; i < more; i++)
            if (((unsigned char)*s++ & 0xc0) != 0x80) return false;
    }
    return true;
}

/* n times `unit`, a character of 1 to 4 bytes, behind `shift` letters. */
static char *path_of(const char *unit, int n, int shift)
{
    const size_t m = strlen(unit);
    char *path = xmalloc((size_t)n * m + (size_t)shift + 1);

    memset(path, 'p', (size_t)shift);
    for (int i = 0; i < n; i++) memcpy(path + shift + (size_t)i * m, unit, m);
    return path;
}

static void test_long_paths(void)
{
    static const char *const units[] = {"d", "ä", "漢", "🦜"};

    for (size_t u = 0; u < 4; u++) {
        bool good = true;
        for (int shift = 0; shift < 9; shift++) {
            moai_error err;
            char *path = path_of(units[u], 4000, shift);
            memset(&err, 'x', sizeof err);
            error_set(&err, "--data %s: No such file or directory", path);
            const size_t n = strlen(err.text);
            good = good && strncmp(err.text, "--data ", 7) == 0 && ends_with(err.text, ": No such file or directory") &&
                   strstr(err.text, " ... ") && is_utf8(err.text) && n < sizeof err.text && n > sizeof err.text - 8;
            for (size_t i = n; i < sizeof err.text; i++) good = good && !err.text[i];
            free(path);
        }
        ok(good, "a path of 4000 times %s: beginning and reason stay, no character is cut, the rest is zeroed", units[u]);
    }
}

static void test_room(void)
{
    bool good = true;
    char text[40];

    for (int n = 0; n < 120; n++) {
        char *all = path_of("a", n, 0);
        memset(text, 'x', sizeof text);
        format_elided(text, sizeof text, "%s", all);
        good = good && (n < (int)sizeof text ? strcmp(text, all) == 0
                                             : strlen(text) == sizeof text - 1 && strstr(text, "a ... a"));
        free(all);
    }
    ok(good, "what finds room stays as it is, to the last byte");

    char broken[200];
    memset(broken, 0x80, sizeof broken);      /* no character begins anywhere */
    broken[sizeof broken - 1] = '\0';
    format_elided(text, sizeof text, "%s", broken);
    ok(strlen(text) < sizeof text && strlen(text) > sizeof text - 8, "bytes that are no text: %zu of them", strlen(text));
}

static void test_wrapped(void)
{
    moai_error err;
    char *path = path_of("d", 4000, 0);

    error_config(&err, "%s: line 3: not JSON", path);
    for (int i = 0; i < 5; i++) error_set(&err, "rank %d: %s", i, err.text);
    ok(strncmp(err.text, "rank 4: rank 3: rank 2: rank 1: rank 0: ddd", 43) == 0 &&
           ends_with(err.text, "ddd: line 3: not JSON") && !err.config,
       "an error told again and again, each time out of its own text");
    free(path);
}

int main(void)
{
    test_long_paths();
    test_room();
    test_wrapped();
    return tap_done();
}
