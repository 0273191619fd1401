/* made_up.h: a directory made up like /proc and /sys, for what is read from there. */
#ifndef MADE_UP_H
#define MADE_UP_H

#include "src/base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char *made_up;

/* Writes MADE_UP/path, with the directories on the way. */
static inline void put(const char *path, const char *text)
{
    char *at = xasprintf("%s/%s", made_up, path);

    for (char *slash = strchr(at + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(at, 0777);
        *slash = '/';
    }
    FILE *f = fopen(at, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s cannot be written", at);
    free(at);
}

/* Another one, for a process in these control groups, which are mounted like this; NULL: there is no such file. */
static inline void begin(const char *name, const char *groups, const char *mounts)
{
    free(made_up);
    made_up = xasprintf("%s/%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", name);
    if (groups) put("proc/self/cgroup", groups);
    if (mounts) put("proc/self/mountinfo", mounts);
}

#endif
