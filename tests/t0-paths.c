/* Paths as people write them: what is put in, what is refused, and that a name that exists is that name. */
#include "src/config/keys.h"
#include "src/config/paths.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_expanded(void)
{
    static const char *const cases[][2] = {{"plain/path", "plain/path"},
                                           {"~", "/home/ada"},
                                           {"~/", "/home/ada/"},
                                           {"~/runs/a", "/home/ada/runs/a"},
                                           {"runs/~/a~", "runs/~/a~"},
                                           {"./~/a", "./~/a"},
                                           {"$SCRATCH/run", "/scratch/ada/run"},
                                           {"${SCRATCH}run", "/scratch/adarun"},
                                           {"/data/$USER_1-$SCRATCH", "/data/u1-/scratch/ada"},
                                           {"$TWICE", "$SCRATCH"},       /* once is enough */
                                           {"caf\xe9/$USER_1", "caf\xe9/u1"},
                                           {"auto", "auto"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        moai_error err = {.text = ""};
        char *path = path_expand("key", cases[i][0], &err);
        ok(path && strcmp(path, cases[i][1]) == 0, "%s is %s %s", cases[i][0], path ? path : "refused", err.text);
        free(path);
    }
}

static void test_refused(void)
{
    static const char *const cases[][2] = {
        {"", "key is \"\", must name"},
        {"~joe/a", "key is \"~joe/a\": ~ is put in before a / only"},
        {"$NOWHERE/a", "key is \"$NOWHERE/a\": the environment variable NOWHERE is not set"},
        {"a/${NOWHERE}", "variable NOWHERE is not set"},
        {"$EMPTY/run", "variable EMPTY is empty"},
        {"$SCRATCHY/run", "SCRATCHY is not set"},
        {"a$/b", "a $ begins the name of a variable"},
        {"$(date)", "a $ begins the name of a variable"},
        {"$1", "a $ begins the name of a variable"},
        {"${SCRATCH", "a $ begins the name of a variable"},
        {"${SCRATCH:-x}", "a $ begins the name of a variable"},
        {"out\r", "key holds the control character 13 at byte 3"},
        {"a\nb", "control character 10 at byte 1"},
        {"$LINES2/a", "control character 10"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        moai_error err = {.text = ""};
        char *path = path_expand("key", cases[i][0], &err);
        ok(!path && err.config && strstr(err.text, cases[i][1]), "refused: %s", err.text);
        free(path);
    }
    moai_error err;
    unsetenv("HOME");
    ok(!path_expand("key", "~/a", &err) && strstr(err.text, "HOME is not set"), "refused: %s", err.text);
}

static void test_existing(void)
{
    static const char *const names[] = {"US$ rates.txt", "$SCRATCH", "~"};
    moai_error err;

    CHECK(chdir(getenv("TMPDIR")) == 0, "TMPDIR");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        FILE *f = fopen(names[i], "w");
        CHECK(f && fclose(f) == 0, "%s", names[i]);
        char *path = path_expand("key", names[i], &err);
        ok(path && strcmp(path, names[i]) == 0, "a file called %s is that file", names[i]);
        free(path);
    }
}

/* rows with and without "" as their default */
typedef struct thing {
    char *needed, *wanted;
} thing;

static void test_rows(void)
{
    static const key_spec rows[] = {
        {.name = "needed", .type = KEY_PATH, .offset = offsetof(thing, needed), .initial = "out"},
        {.name = "wanted", .type = KEY_PATH, .offset = offsetof(thing, wanted), .initial = ""}};
    const key_table table = {rows, 2};
    thing t = {0};
    moai_error err;

    keys_defaults(table, &t);
    ok(!key_set_text(&rows[1], &t, "wanted", "~/x", &err) && strcmp(t.wanted, "/home/ada/x") == 0, "a row expands");
    ok(!key_set_text(&rows[1], &t, "wanted", "", &err) && !*t.wanted, "an empty text is none where that is the default");
    ok(key_set_text(&rows[0], &t, "needed", "", &err) && strcmp(t.needed, "out") == 0, "else refused: %s", err.text);
    CHECK(!key_set_text(&rows[1], &t, "wanted", "caf\xe9", &err), "%s", err.text);
    json_t *value = key_get_json(&rows[1], &t);
    char *text = json_text(value, 0);
    ok(strcmp(text, "\"caf\xEF\xBF\xBD\"") == 0, "what is not UTF-8 is recorded as U+FFFD: %s", text);
    free(text);
    json_decref(value);
    keys_free(table, &t);
}

int main(void)
{
    static const char *const set[][2] = {{"HOME", "/home/ada"}, {"SCRATCH", "/scratch/ada"}, {"USER_1", "u1"},
                                         {"TWICE", "$SCRATCH"}, {"EMPTY", ""},               {"LINES2", "a\nb"}};
    for (size_t i = 0; i < sizeof set / sizeof *set; i++) setenv(set[i][0], set[i][1], 1);
    unsetenv("NOWHERE");
    test_expanded();
    test_rows();
    test_refused();
    test_existing();
    return tap_done();
}
