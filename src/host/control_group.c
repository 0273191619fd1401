/* control_group.c: see control_group.h */
#include "src/host/control_group.h"

#include "src/base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A line of /proc/self/mountinfo, taken apart in place:
 * "36 25 0:30 /docker/7 /sys/fs/cgroup/cpu rw shared:3 - cgroup cgroup rw,cpu,cpuacct" */
typedef struct mount_line {
    char *root, *point, *type, *options;      /* root: the part of the hierarchy that is mounted */
} mount_line;

static bool is_octal(char c) { return c >= '0' && c <= '7'; }

/* A blank in a path stands there as \040: always three digits, anything else is itself. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *at = text; *at; to++) {
        const bool escaped = at[0] == '\\' && is_octal(at[1]) && is_octal(at[2]) && is_octal(at[3]);
        *to = (char)(escaped ? (at[1] - '0') * 64 + (at[2] - '0') * 8 + at[3] - '0' : *at);
        at += escaped ? 4 : 1;
    }
    *to = '\0';
}

static bool take_apart(mount_line *m, char *line)
{
    char *rest = strstr(line, " - "), *words[5], *save = NULL;

    if (!rest) return false;
    *rest = '\0';
    for (int i = 0; i < 5; i++)
        if (!(words[i] = strtok_r(i ? NULL : line, " ", &save))) return false;
    *m = (mount_line){.root = words[3], .point = words[4], .type = strtok_r(rest + 3, " ", &save)};
    strtok_r(NULL, " ", &save);               /* the device */
    m->options = strtok_r(NULL, " \n", &save);
    unescape(m->root);
    unescape(m->point);
    return m->type && m->options;
}

/* Is the word in the list "rw,cpu,cpuacct"? */
static bool is_listed(const char *list, const char *word)
{
    const size_t n = strlen(word);

    for (;; list += strcspn(list, ",") + 1) {
        if (strcspn(list, ",") == n && strncmp(list, word, n) == 0) return true;
        if (!list[strcspn(list, ",")]) return false;
    }
}

/* The path of "0::/system.slice/job_7/step_0" or "9:memory:/slurm/job_7" in /proc/self/cgroup; NULL: none.  Caller
 * frees. */
static char *own_group(const char *root, int version, const char *controller)
{
    char *path = xasprintf("%s/proc/self/cgroup", root), *line = NULL, *group = NULL;
    size_t room = 0;
    FILE *f = fopen(path, "r");

    free(path);
    while (f && !group && getline(&line, &room, f) > 0) {
        char *list = strchr(line, ':'), *at = list ? strchr(list + 1, ':') : NULL;
        if (!at) continue;
        *at++ = '\0';
        at[strcspn(at, "\n")] = '\0';
        if (version == 2 ? !list[1] : is_listed(list + 1, controller)) group = xstrdup(at);
    }
    if (f) fclose(f);
    free(line);
    return group;
}

/* What lies between the mounted part and the group.  A group that is not below that part, as seen from a namespace,
 * has no other directory here than the mount point. */
static const char *below(const char *root, const char *group)
{
    const size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);

    if (strncmp(group, root, n) != 0 || (group[n] && group[n] != '/') || strstr(group, "/..")) return "";
    return strcmp(group + n, "/") == 0 ? "" : group + n;
}

static void climb(const char *root, const mount_line *m, const char *group, int version, control_group_visit *visit,
                  void *arg)
{
    char *dir = xasprintf("%s%s%s", root, m->point, below(m->root, group));
    const size_t top = strlen(root) + strlen(m->point);

    for (;;) {                                /* a limit above holds below */
        visit(arg, version, dir);
        if (strlen(dir) <= top) break;
        *strrchr(dir, '/') = '\0';
    }
    free(dir);
}

void control_groups(const char *root, const char *controller, control_group_visit *visit, void *arg)
{
    char *path = xasprintf("%s/proc/self/mountinfo", root), *line = NULL;
    char *group[] = {own_group(root, 1, controller), own_group(root, 2, controller)};
    size_t room = 0;
    FILE *f = fopen(path, "r");
    mount_line m;

    free(path);
    while (f && getline(&line, &room, f) > 0) {
        if (!take_apart(&m, line)) continue;
        if (group[0] && strcmp(m.type, "cgroup") == 0 && is_listed(m.options, controller))
            climb(root, &m, group[0], 1, visit, arg);
        if (group[1] && strcmp(m.type, "cgroup2") == 0) climb(root, &m, group[1], 2, visit, arg);
    }
    if (f) fclose(f);
    free(line);
    free(group[0]);
    free(group[1]);
}

long long control_group_number(const char *dir, const char *file, const char *word)
{
    const size_t n = strlen(word);
    char line[256], *path = xasprintf("%s/%s", dir, file);
    long long value = -1;
    FILE *f = fopen(path, "r");

    free(path);
    while (f && value < 0 && fgets(line, sizeof line, f))
        if (strncmp(line, word, n) != 0 || sscanf(line + n, " %lld", &value) != 1) value = -1;
    if (f) fclose(f);
    return value;
}
