/* base.c: see base.h */
#include "src/base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void abort_one(int status)
{
    fflush(stdout);
    _Exit(status);
}

static void leave_one(int status) { exit(output_end(status)); }

process_hooks base_process = {.abort_all = abort_one, .leave = leave_one, .printer = true};
int64_t base_step = -1;

static bool inside_character(char c) { return ((unsigned char)c & 0xc0) == 0x80; }

static void copy_elided(char *text, size_t room, const char *all, size_t n)
{
    enum { LONGEST = 4 };                     /* bytes of a UTF-8 character */
    static const char gap[] = " ... ";
    const size_t kept = room - sizeof gap;    /* that much and the NUL fit beside the gap */
    size_t head = kept / 2, tail = n - (kept - head);

    for (int i = 1; i < LONGEST && head > 0 && inside_character(all[head]); i++) head--;
    for (int i = 1; i < LONGEST && tail < n && inside_character(all[tail]); i++) tail++;
    memcpy(text, all, head);
    memcpy(text + head, gap, sizeof gap - 1);
    memcpy(text + head + sizeof gap - 1, all + tail, n - tail);
    memset(text + head + sizeof gap - 1 + n - tail, 0, room - (head + sizeof gap - 1 + n - tail));
}

static void vformat_elided(char *text, size_t room, const char *fmt, va_list ap)
{
    char *all = NULL;
    const int n = vasprintf(&all, fmt, ap);

    if (n >= 0 && (size_t)n >= room) {
        copy_elided(text, room, all, (size_t)n);
    } else {
        strncpy(text, n >= 0 ? all : fmt, room - 1);        /* which zeroes the rest */
        text[room - 1] = '\0';
    }
    if (n >= 0) free(all);
}

void format_elided(char *text, size_t room, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vformat_elided(text, room, fmt, ap);
    va_end(ap);
}

void exit_soon(void)
{
    signal(SIGALRM, SIG_DFL);
    alarm(5);
}

void die_at(const char *file, int line, const char *fmt, ...)
{
    char text[2048], step[32] = "";
    va_list ap;

    va_start(ap, fmt);
    vformat_elided(text, sizeof text, fmt, ap);
    va_end(ap);
    if (base_step >= 0) snprintf(step, sizeof step, " step %lld", (long long)base_step);
    exit_soon();
    if (base_process.identity[0])
        fprintf(stderr, "[%s%s] %s:%d: %s\n", base_process.identity, step, file, line, text);
    else
        fprintf(stderr, "moai: %s:%d: %s\n", file, line, text);
    fflush(stderr);
    base_process.abort_all(STATUS_FAILED);
    abort();
}

void config_error(const char *fmt, ...)
{
    if (base_process.printer) {
        va_list ap;
        fflush(stdout);
        fputs("moai: ", stderr);
        va_start(ap, fmt);
        vfprintf(stderr, fmt, ap);
        va_end(ap);
        fputc('\n', stderr);
        fflush(stderr);
    }
    base_process.leave(STATUS_CONFIG);
    abort();
}

void error_leave(const moai_error *err)
{
    fflush(stdout);
    if (base_process.printer) fprintf(stderr, "moai: %s\n", err->text);
    fflush(stderr);
    base_process.leave(error_status(err));
    abort();
}

int error_set(moai_error *err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vformat_elided(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    err->config = false;
    return -1;
}

int error_config(moai_error *err, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vformat_elided(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    err->config = true;
    return -1;
}

int error_file(moai_error *err, const char *path)
{
    const int why = errno;

    error_set(err, "%s: %s", path, strerror(why));
    err->config = why == ENOENT || why == ENOTDIR;
    return -1;
}

void base_start(void)
{
    signal(SIGXFSZ, SIG_IGN);
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0) return;
}

static int output_errno;                      /* of the first failure of standard output */

const char *output_flush(void)
{
    if (fflush(stdout) && !output_errno) output_errno = errno;
    if (!ferror(stdout)) return NULL;
    return output_errno ? strerror(output_errno) : "some of it could not be written";
}

/* A network file system may keep an error for the close of a descriptor, of any. */
static void close_a_copy(void)
{
    const int copy = dup(STDOUT_FILENO);

    if (copy >= 0 && close(copy) != 0 && !output_errno) output_errno = errno;
}

int output_end(int status)
{
    const char *fault = output_flush();

    if (!fault) close_a_copy();
    if (!fault && output_errno) fault = strerror(output_errno);
    if (!fault) return status;
    if (output_errno != EPIPE) fprintf(stderr, "moai: standard output: %s\n", fault);
    return status == STATUS_OK ? STATUS_FAILED : status;
}

static void print_line(const char *prefix, const char *fmt, va_list ap)
{
    if (!base_process.printer) return;
    fputs(prefix, stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    fflush(stderr);
}

void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_line("", fmt, ap);
    va_end(ap);
}

void warn(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_line("warning: ", fmt, ap);
    va_end(ap);
}

void warn_here(const char *fmt, ...)
{
    char text[sizeof((moai_error *)0)->text + 256];
    va_list ap;

    va_start(ap, fmt);
    vformat_elided(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "warning: %s%s%s%s\n", base_process.identity[0] ? "[" : "", base_process.identity,
            base_process.identity[0] ? "] " : "", text);
    fflush(stderr);
}

double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void *xmalloc(size_t n_bytes)
{
    void *p = calloc(1, n_bytes ? n_bytes : 1);
    CHECK(p, "out of host memory: %zu bytes", n_bytes);
    return p;
}

char *xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(xmalloc(n), s, n);
}

char *xasprintf(const char *fmt, ...)
{
    va_list ap;
    char *text = NULL;

    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    CHECK(n >= 0, "out of host memory");
    return text;
}

const char *with_commas(char out[32], int64_t n)
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%lld", (long long)n), at = 0;

    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}
