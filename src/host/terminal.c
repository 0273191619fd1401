/* terminal.c: see terminal.h */
#include "src/host/terminal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* mpirun gives its ranks a terminal of their own, whatever its output is: there the launcher's output decides. */
terminal terminal_open(int fd)
{
    const char *kind = getenv("TERM");
    terminal t = {-1};
    char path[64];

    if (!isatty(fd) || (kind && strcmp(kind, "dumb") == 0)) return t;
    if (getenv("OMPI_COMM_WORLD_SIZE"))
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getppid(), fd);
    else
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    t.fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    if (t.fd >= 0 && !isatty(t.fd)) terminal_close(&t);
    return t;
}

void terminal_close(terminal *t)
{
    if (t->fd >= 0) close(t->fd);
    t->fd = -1;
}

static int columns(const terminal *t)
{
    struct winsize size;

    return !ioctl(t->fd, TIOCGWINSZ, &size) && size.ws_col ? size.ws_col : 80;
}

void terminal_draw(const terminal *t, FILE *f, const char *line)
{
    fprintf(f, "\r%.*s\x1b[K", columns(t) - 1, line);
}

void terminal_wipe(FILE *f) { fputs("\r\x1b[K", f); }
