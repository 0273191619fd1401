/* carried.c: see carried.h */
#include "io/checkpoint/carried.h"
#include "src/base/files.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const tokenizer_files[] = {"tokenizer.json",    "tokenizer_config.json", "special_tokens_map.json",
                                              "added_tokens.json", "vocab.json",            "merges.txt",
                                              "vocab.txt",         "tekken.json"};
static const char *const other_files[] = {"chat_template.jinja", "chat_template.json", "generation_config.json"};
static const char *const directories[] = {"additional_chat_templates", "chat_templates"};

#define HAS(list, name) has(list, sizeof list / sizeof *list, name)

static bool has(const char *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], name) == 0) return true;
    return false;
}

bool is_carried_directory(const char *name) { return HAS(directories, name); }
bool is_tokenizer_file(const char *name) { return HAS(tokenizer_files, name); }

bool is_carried(const char *name)
{
    const char *slash = strchr(name, '/');

    if (!slash) return is_tokenizer_file(name) || HAS(other_files, name);
    const size_t n = (size_t)(slash - name), n_file = strlen(slash + 1);
    if (slash[1] == '.' || strchr(slash + 1, '/')) return false;
    if (n_file < 7 || strcmp(slash + 1 + n_file - 6, ".jinja") != 0) return false;
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
        if (strlen(directories[i]) == n && strncmp(directories[i], name, n) == 0) return true;
    return false;
}

void name_list_add(name_list *l, const char *name)
{
    CHECK(l->list = realloc(l->list, (size_t)(l->n + 1) * sizeof *l->list), "out of host memory");
    l->list[l->n++] = xstrdup(name);
}

bool name_list_has(const name_list *l, const char *name)
{
    return has((const char *const *)l->list, (size_t)l->n, name);
}

void name_list_free(name_list *l)
{
    for (int i = 0; i < l->n; i++) free(l->list[i]);
    free(l->list);
    *l = (name_list){0};
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Of the directory itself, or below it of DIR/BELOW. */
static int add_from(const char *dir, const char *below, name_list *l, moai_error *err)
{
    char *path = below ? xasprintf("%s/%s", dir, below) : xstrdup(dir);
    DIR *d = opendir(path);
    int rc = d || (below && errno == ENOENT) ? 0 : error_set(err, "%s: cannot be read: %s", path, strerror(errno));

    for (struct dirent *e; d && (errno = 0, e = readdir(d));) {
        char *name = below ? xasprintf("%s/%s", below, e->d_name) : xstrdup(e->d_name);
        if (is_carried(name)) name_list_add(l, name);
        free(name);
    }
    if (d && errno) rc = error_set(err, "%s: cannot be read: %s", path, strerror(errno));
    if (d) closedir(d);
    free(path);
    return rc;
}

int carried_in(const char *dir, name_list *l, moai_error *err)
{
    int rc;

    *l = (name_list){0};
    rc = add_from(dir, NULL, l, err);
    for (size_t i = 0; rc == 0 && i < sizeof directories / sizeof *directories; i++)
        rc = add_from(dir, directories[i], l, err);
    if (l->n) qsort(l->list, (size_t)l->n, sizeof *l->list, by_name);
    return rc;
}
