/* paths.c: see paths.h */
#include "src/config/paths.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct growing {
    char *text;
    size_t n;
} growing;

static void append(growing *g, const char *more, size_t n)
{
    CHECK(g->text = realloc(g->text, g->n + n + 1), "out of host memory: a path of %zu bytes", g->n + n);
    memcpy(g->text + g->n, more, n);
    g->text[g->n += n] = '\0';
}

static int append_variable(growing *g, const char *label, const char *text, const char *name, size_t n,
                           moai_error *err)
{
    char *key = strndup(name, n);
    const char *value = key ? getenv(key) : NULL;
    int rc = 0;

    if (value && *value)
        append(g, value, strlen(value));
    else
        rc = error_config(err, "%s is \"%s\": the environment variable %.*s is %s", label, text, (int)n, name,
                          value ? "empty" : "not set");
    free(key);
    return rc;
}

/* The variable at p, which is a $; 0 when it is none.  Its name is *name, of *n bytes. */
static size_t variable_at(const char *p, const char **name, size_t *n)
{
    const bool braces = p[1] == '{';

    *name = p + 1 + braces;
    for (*n = 0; isalnum((unsigned char)(*name)[*n]) || (*name)[*n] == '_';) ++*n;
    if (*n == 0 || isdigit((unsigned char)**name) || (braces && (*name)[*n] != '}')) return 0;
    return *n + 1 + 2 * braces;
}

static int expand(growing *g, const char *label, const char *text, moai_error *err)
{
    const char *p = text, *name;
    size_t n;

    if (*p == '~' && (p[1] == '/' || !p[1])) {
        if (append_variable(g, label, text, "HOME", 4, err)) return -1;
        p++;
    } else if (*p == '~') {
        return error_config(err, "%s is \"%s\": ~ is put in before a / only; ./~ names a file that begins with ~",
                            label, text);
    }
    while (*p) {
        const size_t plain = strcspn(p, "$");
        append(g, p, plain);
        p += plain;
        if (!*p) break;
        const size_t length = variable_at(p, &name, &n);
        if (!length)
            return error_config(err, "%s is \"%s\": a $ begins the name of a variable, $NAME or ${NAME}", label, text);
        if (append_variable(g, label, text, name, n, err)) return -1;
        p += length;
    }
    return 0;
}

static int check_characters(const char *label, const char *text, moai_error *err)
{
    for (const char *p = text; *p; p++)
        if (iscntrl((unsigned char)*p))
            return error_config(err, "%s holds the control character %d at byte %d, which no path may: \"%.*s\"...",
                                label, *p, (int)(p - text), (int)(p - text), text);
    return 0;
}

char *path_expand(const char *label, const char *text, moai_error *err)
{
    growing g = {0};
    struct stat st;
    moai_error unused;

    if (!*text) {
        error_config(err, "%s is \"\", must name a file or directory", label);
        return NULL;
    }
    append(&g, "", 0);
    if (lstat(text, &st) == 0) {
        if (expand(&g, label, text, &unused) == 0 && strcmp(g.text, text) != 0)
            warn("%s is \"%s\": that name exists, and is taken as it is written", label, text);
        free(g.text);
        return xstrdup(text);
    }
    if (expand(&g, label, text, err) == 0 && check_characters(label, g.text, err) == 0) return g.text;
    free(g.text);
    return NULL;
}
