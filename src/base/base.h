/* base.h: errors on many ranks, logging, time.  Included by every file; depends on nothing of the project.
 *
 * Three situations, three words (each is safe before a communicator exists; grid_init installs the hooks):
 *   CHECK / die       this rank is broken: one line that names the rank, place and values, then every rank is aborted.
 *   config_error      all ranks know it equally: the printing rank says it once, all leave with status 2.
 *   moai_error        one rank found out: the function returns -1 and fills the text; the caller agrees with the
 *                     others through comm_agree() before anybody branches. */
#ifndef MOAI_BASE_H
#define MOAI_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOAI_VERSION "0.1.0"

enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_CONFIG = 2 };

/* What the process layer supplies; the defaults are those of a single process. */
typedef struct process_hooks {
    void (*abort_all)(int status);   /* end every rank, does not return                                          */
    void (*leave)(int status);       /* orderly exit by output_end; every rank calls it; does not return         */
    bool printer;                    /* this rank speaks for all (rank 0)                                        */
    char identity[160];              /* "rank 11 tp3 pp0 dp1 host node7"; "" in a single process                 */
} process_hooks;

extern process_hooks base_process;
extern int64_t base_step;            /* the training step under way, -1 outside; part of every fatal line         */

/* Printed as "[rank 11 tp3 pp0 dp1 host node7 step 4210] file:line: what failed".  Never returns. */
/* To stderr, at once: what waits in stdout's buffer comes after it, if it can. */
_Noreturn void die_at(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#define die(...) die_at(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(cond, ...)                   \
    do {                                   \
        if (!(cond)) die(__VA_ARGS__);     \
    } while (0)

/* For the ways out: should a stream lead to a pipe that nobody reads, SIGALRM ends the process after a few seconds. */
void exit_soon(void);

/* Every rank calls it with the same words; the printing rank prints "moai: ...".  Leaves with STATUS_CONFIG. */
_Noreturn void config_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Prints to text[room].  What finds no room there loses its middle to " ... ", since a message begins with what it is
 * about and ends with the reason; no UTF-8 character is cut.  The rest of the room is zeroed: texts travel as bytes.
 * Arguments may lie in `text`. */
void format_elided(char *text, size_t room, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* A failure that travels.  Functions that take a moai_error return 0, or -1 with it filled. */
typedef struct moai_error {
    char text[1024];
    bool config;                     /* no other start will do better: STATUS_CONFIG, and nobody tries again          */
} moai_error;
/* All return -1; the text is printed as by format_elided. */
int error_set(moai_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int error_config(moai_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int error_file(moai_error *err, const char *path);     /* "PATH: " and errno; config where there is no such file      */
static inline int error_status(const moai_error *err) { return err->config ? STATUS_CONFIG : STATUS_FAILED; }
/* Every rank calls it with the same error: as config_error, but for the status. */
_Noreturn void error_leave(const moai_error *err);

/* Standard output, which may be a full disk, a pipe whose reader has gone, or closed.
 *   base_start     the first line of every main.  A standard descriptor that the caller has closed is opened, or a file
 *                  of ours would get its number and what is printed; to use it fails all the same.  A file that
 *                  ulimit -f ends is an error of the write, and no death (SIGXFSZ)
 *   output_flush   what is printed goes out now: NULL, or why some of it has not, now or earlier
 *   output_end     the last word of every main whose product is what it prints, and of base_process.leave.  Where some
 *                  of it is lost, that is said, but for a reader that has gone, and STATUS_OK becomes STATUS_FAILED */
void base_start(void);
const char *output_flush(void);
int output_end(int status);

/* Printing rank only, to stderr; others are silent. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));   /* "warning: " in front */
/* Any rank, which is named; for what only it knows and the run survives. */
void warn_here(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

double now_seconds(void);                                                /* monotonic clock */
void *xmalloc(size_t n_bytes);                                           /* zeroed; dies when memory ends */
char *xstrdup(const char *s);
const char *with_commas(char out[32], int64_t n);           /* "29,474,816" */
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Share i of n things over `parts`: [share_begin(n, parts, i), share_begin(n, parts, i + 1));
 * sizes differ by at most 1. */
static inline int64_t share_begin(int64_t n, int64_t parts, int64_t i) { return n * i / parts; }
static inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
static inline int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline double gib(size_t n_bytes) { return (double)n_bytes / (1024.0 * 1024 * 1024); }

#endif
