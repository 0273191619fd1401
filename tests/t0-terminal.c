/* Bars on terminals of any width: none of their lines is as wide as the terminal, or it would go on in the next one. */
#include "io/metrics/metrics.h"
#include "src/host/progress.h"
#include "tests/lib/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int master, before;                    /* the other end of the terminal; what the stream led to */
static char seen[1 << 16];

static void resize(int columns)
{
    ioctl(master, TIOCSWINSZ, &(struct winsize){.ws_row = 24, .ws_col = (unsigned short)columns});
}

static void take(int fd, int columns)
{
    fflush(NULL);
    before = dup(fd);
    master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0, "no terminal: %s", strerror(errno));
    resize(columns);
    const int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    CHECK(slave >= 0 && dup2(slave, fd) >= 0, "no terminal: %s", strerror(errno));
    close(slave);
}

/* What has been written to it since, in `seen`. */
static void read_all(void)
{
    size_t n = 0;
    ssize_t k;

    fcntl(master, F_SETFL, O_NONBLOCK);
    while ((k = read(master, seen + n, sizeof seen - 1 - n)) > 0) n += (size_t)k;
    seen[n] = '\0';
}

static void give_back(int fd)
{
    read_all();
    dup2(before, fd);
    close(before);
    close(master);
}

/* The widest of what was drawn from one \r to the next; -1 where something else than the end ended a line.  *n: how
 * many there are. */
static int widest(int *n)
{
    int most = 0;

    *n = 0;
    for (const char *at = strchr(seen, '\r'); at && strcmp(at, "\r\n") != 0; at = strchr(at, '\r')) {
        const size_t width = strcspn(++at, "\r\n\x1b");
        if (strncmp(at + width, "\x1b[K", 3) != 0) return -1;
        most = most < (int)width ? (int)width : most;
        *n += width > 0;
    }
    return most;
}

/* Draws a bar three times; `then`: how many columns there are from the second time on, which is what is seen. */
static void show_progress(int columns, int then)
{
    progress p;

    take(STDERR_FILENO, columns);
    progress_start(&p, "encode");
    for (int i = 1; i <= 3; i++) {
        p.printed = -1e9;
        p.begin -= 10000;
        progress_show(&p, 123456789 * i, 9876543210, 123456789);
        if (then && i == 1) read_all(), resize(then);
    }
    progress_end(&p);
    give_back(STDERR_FILENO);
}

static void show_steps(const char *dir, int columns, int then)
{
    moai_error err;

    take(STDOUT_FILENO, columns);
    metrics *m = metrics_open(dir, false, true, 0, &err);
    CHECK(m, "%s", err.text);
    for (int i = 1; i <= 3; i++) {
        metrics_step(m, &(step_metrics){.step = i * 1000, .max_steps = 1000000, .loss = 2.5, .lr = 1e-3,
                                        .grad_norm = 1.25, .tokens_per_second = 123456, .mfu = 0.5, .step_seconds = 1.5,
                                        .eta_seconds = 123456});
        if (then && i == 1) read_all(), resize(then);
    }
    metrics_close(m);
    give_back(STDOUT_FILENO);
}

static void check_width(const char *what, int columns, int taken, int most)
{
    int n;
    const int width = widest(&n);

    ok(width == taken || (taken < 0 && width > 60 && width < columns), "%s on %d columns takes %d", what, columns, width);
    ok(n == most, "drawn %d times", n);
}

int main(void)
{
    static const int widths[] = {40, 20, 2, 1};
    char *dir = xasprintf("%s/run", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");

    setenv("TERM", "xterm", 1);
    unsetenv("OMPI_COMM_WORLD_SIZE");
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        show_progress(widths[i], 0);
        check_width("encode", widths[i], widths[i] - 1, widths[i] == 1 ? 0 : 3);
        show_steps(dir, widths[i], 0);
        check_width("training", widths[i], widths[i] - 1, widths[i] == 1 ? 0 : 3);
    }
    show_progress(200, 0);
    check_width("encode", 200, -1, 3);
    show_steps(dir, 200, 0);
    check_width("training", 200, -1, 3);
    show_progress(80, 30);
    check_width("encode, made smaller,", 30, 29, 2);
    show_steps(dir, 150, 30);
    check_width("training, made smaller,", 30, 29, 2);
    show_steps(dir, 0, 0);
    check_width("training, where nobody knows how many there are,", 0, 79, 3);

    setenv("TERM", "dumb", 1);
    show_progress(20, 0);
    ok(!strchr(seen, '\x1b') && strstr(seen, "encode: 1 %, ") && strchr(seen, '\n'), "TERM=dumb: encode prints lines");
    show_steps(dir, 20, 0);
    ok(!strchr(seen, '\x1b') && strstr(seen, "step 2000/1000000 ") && strchr(seen, '\n'), "training prints lines");
    free(dir);
    return tap_done();
}
