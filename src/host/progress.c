/* progress.c: see progress.h */
#include "src/host/progress.h"

#include <stdio.h>
#include <unistd.h>

void progress_start(progress *p, const char *what)
{
    *p = (progress){.what = what, .begin = now_seconds(), .terminal = terminal_open(STDERR_FILENO)};
    p->printed = p->begin;
}

static void print_time(char *text, size_t room, double seconds)
{
    long s = seconds < 1e9 ? (long)(seconds + 0.5) : 0;

    if (s >= 3600)
        snprintf(text, room, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, room, "%ld:%02ld", s / 60, s % 60);
}

void progress_show(progress *p, int64_t done, int64_t all, int64_t text)
{
    static const char bar[] = "##############################", room[] = "                              ";
    double now = now_seconds(), elapsed = now - p->begin, part = all > 0 ? (double)done / (double)all : 0;
    char eta[32] = "?";

    if (!base_process.printer || now - p->printed < (p->terminal.fd >= 0 ? 0.1 : 10)) return;
    if (done > 0) print_time(eta, sizeof eta, elapsed * (1 / part - 1));
    int n = (int)(30 * part), percent = (int)(100 * part);
    double mb = (double)text / 1e6;
    if (p->terminal.fd >= 0) {
        char line[256];
        snprintf(line, sizeof line, "%s %3d %% |%.*s%.*s| %.1f MB  %.1f MB/s  ETA %s", p->what, percent, n, bar, 30 - n,
                 room, mb, mb / elapsed, eta);
        terminal_draw(&p->terminal, stderr, line);
    } else {
        fprintf(stderr, "%s: %d %%, %.1f MB, %.1f MB/s, ETA %s\n", p->what, percent, mb, mb / elapsed, eta);
    }
    fflush(stderr);
    p->printed = now;
    p->shown = true;
}

void progress_end(progress *p)
{
    if (p->shown && p->terminal.fd >= 0) terminal_wipe(stderr);
    terminal_close(&p->terminal);
}
