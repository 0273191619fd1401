/* The command line (flags.h): every spelling of a flag, words that stand alone, and what is wrong, in words. */
#include "src/config/flags.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

typedef struct options {
    int64_t count;
    double rate;
    bool loud, quiet;
    char *name;
    int mode;
    char words[128], inputs[128];
} options;

static const key_choice modes[] = {{"off", 0}, {"on", 1}, {"true", 1}, {NULL, 0}};
#define KEYS_OF options
#include "src/config/key_rows.h"

static const key_spec rows[] = {ROW(KEY_INT, count, "1", .alias = "n", .min = 0, .max = 9),
                                ROW(KEY_DOUBLE, rate, "0.5", .min = -1, .max = 1),
                                ROW(KEY_BOOL, loud, "false", .bare = "true"),
                                ROW(KEY_BOOL, quiet, "true", .bare = "true"),
                                ROW(KEY_CHOICE, mode, "off", .choices = modes, .bare = "true"),
                                ROW(KEY_STRING, name, NULL)};
static const key_table keys = {rows, sizeof rows / sizeof *rows};

static int take(char *list, const char *value)
{
    strncat(list, value, 100 - strlen(list));
    strcat(list, ";");
    return 0;
}
static int take_word(void *o, const char *word, moai_error *err)
{
    (void)err;
    return take(((options *)o)->words, word);
}
static int take_input(void *o, const char *label, const char *value, moai_error *err)
{
    (void)label, (void)err;
    return take(((options *)o)->inputs, value);
}
static const flag_own own[] = {{"input", true, take_input}, {"one", false, take_input}, {NULL, false, NULL}};

/* Reads the words of `line`, by blanks. */
static int read_line(options *o, const char *line, bool words_alone, bool needs_name, moai_error *err)
{
    char text[256], *argv[32], *rest = text;
    bool given[sizeof rows / sizeof *rows] = {false};
    int argc = 0;
    const flag_rules rules = {.arg = o, .own = own, .word = words_alone ? take_word : NULL, .no_word = "no words here"};

    snprintf(text, sizeof text, "%s", line);
    for (char *word; (word = strtok_r(rest, " ", &rest));) {
        argv[argc++] = word;
    }
    *o = (options){0};
    keys_defaults(keys, o);
    const int status = flags_read(keys, o, argc, argv, &rules, needs_name ? given : NULL, err);
    return status;
}

static void well(const char *line, bool words_alone, const char *want)
{
    moai_error err = {.text = ""};
    options o;
    const int status = read_line(&o, line, words_alone, false, &err);
    char *got = xasprintf("%lld %g %d%d%d %s %s %s", (long long)o.count, o.rate, o.loud, o.quiet, o.mode, o.name,
                          o.words, o.inputs);

    ok(status == 0 && strcmp(got, want) == 0, "%s: \"%s\", wanted \"%s\" %s", line, got, want, err.text);
    free(got);
    keys_free(keys, &o);
}

static void wrong(const char *line, bool words_alone, const char *words)
{
    moai_error err = {.text = ""};
    options o;
    const int status = read_line(&o, line, words_alone, true, &err);

    ok(status != 0 && strstr(err.text, words), "%s: %s", line, err.text);
    keys_free(keys, &o);
}

int main(void)
{
    const char *value;
    moai_error err;

    well("--count 3 --rate=-0.25 --name x", false, "3 -0.25 010 x  ");
    well("--n 4 --name=--y --loud --no-quiet", false, "4 0.5 100 --y  ");
    well("--loud false --quiet true --mode", false, "1 0.5 011   ");
    well("--mode off --rate -1 --name -z", false, "1 -1 010 -z  ");
    well("--loud a.txt b --no_quiet c", true, "1 0.5 100  a.txt;b;c; ");
    well("--loud true - -- --name x", true, "1 0.5 110 x -;--; ");
    well("--input a b --loud --input=c --one d", false, "1 0.5 110   a;b;c;d;");
    well("--one d e", true, "1 0.5 010  e; d;");
    wrong("--cuont 3 --name x", false, "unknown option --cuont; did you mean --count?");
    wrong("--something 3", false, "unknown option --something; --help lists them");
    wrong("--no_count", false, "unknown option --no_count");
    wrong("--count", false, "--count needs a value");
    wrong("--count --loud", false, "--count needs a value");
    wrong("--count 12", false, "--count is 12, must be between 0 and 9");
    wrong("--loud yes", false, "--loud is \"yes\", must be true or false");
    wrong("--no_loud yes", false, "--no_loud takes no value, and is given \"yes\"");
    wrong("--no_loud=false", true, "--no_loud takes no value, and is given \"false\"");
    wrong("file", false, "unexpected argument \"file\"; no words here");
    wrong("--input", false, "--input needs a value");
    wrong("--loud", false, "--name is needed");

    char *argv[] = {"--count", "3", "--config=a.json", "--x", "b"};
    ok(flags_find("config", 5, argv, &value, &err) == 0 && strcmp(value, "a.json") == 0, "found among others");
    ok(flags_find("y", 5, argv, &value, &err) == 0 && !value, "not there");
    argv[3] = "--config";
    ok(flags_find("config", 5, argv, &value, &err) != 0 && strstr(err.text, "given twice: a.json, b"), "%s", err.text);
    ok(flags_find("config", 4, argv, &value, &err) != 0 && strstr(err.text, "--config needs a value"), "%s", err.text);
    ok(flags_ask_help(2, (char *[]){"x", "-h"}) && !flags_ask_help(1, (char *[]){"--helpful"}), "asked for help");
    return tap_done();
}
