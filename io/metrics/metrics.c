/* metrics.c: see metrics.h */
#include "io/metrics/metrics.h"
#include "io/metrics/tensorboard.h"
#include "src/base/files.h"
#include "src/base/watch.h"
#include "src/config/keys.h"
#include "src/host/signals.h"
#include "src/host/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct metrics {
    FILE *screen;                             /* standard output, which is written to in screen_write */
    int screen_fd;
    FILE *lines;                              /* metrics.jsonl */
    off_t whole;                              /* bytes of it that are whole lines */
    char *path, *runs;                        /* runs: TensorBoard's directory; NULL: not wanted */
    tensorboard *board;                       /* NULL: not wanted, or given up */
    terminal terminal;                        /* none: lines are printed, no bar is drawn */
    bool bar_shown, lines_failed, screen_failed;
};

/* What stands on the screen stands in metrics.jsonl too: what cannot be written costs no more than itself. */
static ssize_t screen_failed(metrics *m, const char *why, size_t n)
{
    if (!m->screen_failed) warn("standard output: %s; training goes on, and %s has the record", why, m->path);
    m->screen_failed = true;
    return (ssize_t)n;
}

/* A terminal that is held, or a launcher that ends the run and no longer reads, makes a line wait: but not once the run
 * has been told to go, for then it has a checkpoint to write. */
static ssize_t screen_write(void *of, const char *text, size_t n)
{
    metrics *m = of;

    for (size_t done = 0; done < n;) {
        struct pollfd room = {.fd = m->screen_fd, .events = POLLOUT};
        if (poll(&room, 1, 100) < 1) {
            if (signals_seen()) break;
            continue;
        }
        const ssize_t k = write(m->screen_fd, text + done, n - done < PIPE_BUF ? n - done : PIPE_BUF);
        if (k < 0 && errno != EAGAIN && errno != EINTR) return screen_failed(m, strerror(errno), n);
        done += k > 0 ? (size_t)k : 0;
    }
    m->screen_failed = false;
    return (ssize_t)n;
}

/* A terminal may take a part of a line and make the rest wait: it is opened once more, as one that does not. */
static void open_screen(metrics *m)
{
    m->screen_fd = isatty(STDOUT_FILENO) ? open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -1;
    if (m->screen_fd < 0) m->screen_fd = STDOUT_FILENO;
    m->screen = fopencookie(m, "w", (cookie_io_functions_t){.write = screen_write});
    CHECK(m->screen, "out of host memory");
}

static void close_screen(metrics *m)
{
    fclose(m->screen);
    if (m->screen_fd != STDOUT_FILENO) close(m->screen_fd);
}

/* A line that a resume keeps: whole, and of a step that is not told again. */
static bool line_stays(const char *line, size_t n, int64_t resume_step)
{
    json_t *object = n && line[n - 1] == '\n' && strlen(line) == n ? json_loads(line, 0, NULL) : NULL;
    const json_t *step = json_object_get(object, "step");
    bool stays = json_is_integer(step) && json_integer_value(step) <= resume_step;

    json_decref(object);
    return stays;
}

/* The lines that stay, copied to `kept`.  1: there are others; 0: there are none; -1 with errno. */
static int copy_lines_that_stay(FILE *from, FILE *kept, int64_t resume_step)
{
    bool dropped = false, failed = false;
    char *line = NULL;
    size_t room = 0;

    for (ssize_t n; (n = getline(&line, &room, from)) > 0;)
        if (resume_step > 0 && line_stays(line, (size_t)n, resume_step))
            failed |= fwrite(line, 1, (size_t)n, kept) != (size_t)n;
        else
            dropped = true;
    free(line);
    failed |= ferror(from) != 0;              /* what was not read must not be lost */
    failed |= fflush(kept) || fsync(fileno(kept));
    return failed ? -1 : dropped;
}

/* `kept` takes the name PATH, and what had it is PATH.old; or all is as it was. */
static int take_name(const char *path, const char *kept_path)
{
    char *old_path = xasprintf("%s.old", path);
    moai_error unused;
    int rc = -1;

    unlink(old_path);
    const bool linked = link(path, old_path) == 0;            /* not all file systems have links */
    if (linked || rename(path, old_path) == 0) rc = rename(kept_path, path);
    if (rc != 0 && !linked) rename(old_path, path);
    if (rc == 0) dir_sync_parent(path, &unused);
    free(old_path);
    return rc;
}

/* From resume_step on.  A file that loses lines is written anew beside its name, and that is the one that goes on;
 * where this fails the one from before does. */
static int open_lines(metrics *m, int64_t resume_step, moai_error *err)
{
    char *kept_path = xasprintf("%s.tmp", m->path);
    FILE *from = fopen(m->path, "r"), *kept = NULL;
    int dropped = from || errno == ENOENT ? 0 : -1;

    if (from) {
        unlink(kept_path);
        kept = fopen(kept_path, "a");
        dropped = kept ? copy_lines_that_stay(from, kept, resume_step) : -1;
        fclose(from);
    }
    if (dropped == 1 && take_name(m->path, kept_path) != 0) dropped = -1;
    if (dropped == 0 && !m->lines && !(m->lines = fopen(m->path, "a"))) dropped = -1;
    if (dropped < 0) error_set(err, "%s: %s", m->path, strerror(errno));
    if (dropped == 1) {
        if (m->lines) fclose(m->lines);
        m->lines = kept;
    } else if (kept) {
        fclose(kept);
        unlink(kept_path);
    }
    free(kept_path);
    if (dropped < 0) return -1;
    fseeko(m->lines, 0, SEEK_END);
    m->whole = ftello(m->lines);
    return 0;
}

static int open_board(metrics *m, int64_t resume_step, moai_error *err)
{
    if (dir_make(m->runs, err)) return -1;
    m->board = tensorboard_open(m->runs, resume_step, err);
    return m->board ? 0 : -1;
}

metrics *metrics_open(const char *output_dir, bool tensorboard_wanted, bool progress, int64_t resume_step,
                      moai_error *err)
{
    metrics *m = xmalloc(sizeof *m);

    m->path = xasprintf("%s/metrics.jsonl", output_dir);
    if (tensorboard_wanted) m->runs = xasprintf("%s/runs", output_dir);
    m->terminal = progress ? terminal_open(STDOUT_FILENO) : (terminal){-1};
    open_screen(m);
    if (!dir_make(output_dir, err) && !open_lines(m, resume_step, err) &&
        (!m->runs || !open_board(m, resume_step, err)))
        return m;
    metrics_close(m);
    return NULL;
}

void metrics_go_back(metrics *m, int64_t step)
{
    moai_error err;

    if (!m) return;
    watch_files(true);
    if (open_lines(m, step, &err)) warn("%s; the steps after %lld stay in it", err.text, (long long)step);
    const bool boarded = m->board;
    tensorboard_close(m->board);
    m->board = NULL;
    if (boarded && open_board(m, step, &err)) warn("%s; TensorBoard gets no more of this run", err.text);
    watch_files(false);
}

/* JSON has no NaN: null stands for it. */
static void put_real(FILE *f, const char *key, double value)
{
    if (isfinite(value))
        fprintf(f, ",\"%s\":%.17g", key, value);
    else
        fprintf(f, ",\"%s\":null", key);
}

static void put_spread(FILE *f, const step_spread *s)
{
    put_real(f, "busy_seconds_min", s->min);
    put_real(f, "busy_seconds_median", s->median);
    put_real(f, "busy_seconds_max", s->max);
    fprintf(f, ",\"slowest_rank\":%d", s->slowest);
}

static void put_text(FILE *f, const char *key, const char *text)
{
    json_t *string = json_string_repaired(text);
    char *quoted = json_dumps(string, JSON_ENCODE_ANY);

    fprintf(f, ",\"%s\":%s", key, quoted);
    free(quoted);
    json_decref(string);
}

static void put_numbers(FILE *f, const char *key, const int64_t *numbers, int64_t n)
{
    fprintf(f, ",\"%s\":[", key);
    for (int64_t i = 0; i < n; i++) fprintf(f, "%s%lld", i ? "," : "", (long long)numbers[i]);
    fputc(']', f);
}

/* A line that finds no room is cut off, or its beginning would spoil the next one.  0: it is in the file. */
static int flush_line(metrics *m)
{
    if (!fflush(m->lines) && !ferror(m->lines)) {
        m->whole = ftello(m->lines);
        return 0;
    }
    const int why = errno;
    const bool cut = ftruncate(fileno(m->lines), m->whole) == 0;
    if (!m->lines_failed)
        warn("%s: %s; the record has a gap%s, training goes on", m->path, strerror(why), cut ? "" : " and a torn line");
    return -1;
}

/* A full disk costs the record, not the run. */
static void end_line(metrics *m)
{
    fputs("}\n", m->lines);
    m->lines_failed = flush_line(m) != 0;
    clearerr(m->lines);
}

static void put_board(metrics *m, int64_t step, const tensorboard_scalar *scalars, int n)
{
    moai_error err;

    if (!m->board || !tensorboard_write(m->board, step, scalars, n, &err)) return;
    warn("%s; no more TensorBoard events, training goes on", err.text);
    tensorboard_close(m->board);
    m->board = NULL;
}

static const char *duration(char text[32], double seconds)
{
    long long s = seconds < 0 || !isfinite(seconds) ? 0 : (long long)(seconds + 0.5);

    if (s >= 86400)
        snprintf(text, 32, "%lldd%02lldh", s / 86400, s % 86400 / 3600);
    else if (s >= 3600)
        snprintf(text, 32, "%lld:%02lld:%02lld", s / 3600, s % 3600 / 60, s % 60);
    else
        snprintf(text, 32, "%lld:%02lld", s / 60, s % 60);
    return text;
}

/* three significant digits: 950, 12.3k, 4.56M */
static const char *short_number(char text[32], double x)
{
    static const char suffix[] = " kMGT";
    int i = 0;

    for (; x >= 999.5 && i < 4; i++) x /= 1000;
    snprintf(text, 32, "%.*f%.*s", x >= 99.95 || !i ? 0 : x >= 9.995 ? 1 : 2, x, i > 0, suffix + i);
    return text;
}

static void step_text(char *text, size_t n, const step_metrics *s)
{
    char rate[32], mfu[32] = "", trained[48] = "";

    if (s->trained_tokens > 0)
        snprintf(trained, sizeof trained, " (%.0f%% trained)", 100 * (double)s->trained_tokens / (double)s->tokens);
    if (s->mfu >= 0) snprintf(mfu, sizeof mfu, "  MFU %.1f%%", 100 * s->mfu);
    snprintf(text, n, "loss %.4f  lr %.2e  norm %.3f  %s tok/s%s%s  %.3f s/step  data %.3f s", s->loss, s->lr,
             s->grad_norm, short_number(rate, s->tokens_per_second), trained, mfu, s->step_seconds,
             s->data_wait_seconds);
}

static void clear_bar(metrics *m)
{
    if (m->bar_shown) terminal_wipe(m->screen);
    m->bar_shown = false;
}

static void show_step(metrics *m, const step_metrics *s)
{
    enum { BAR = 20 };
    double done = s->max_steps > 0 ? (double)s->step / (double)s->max_steps : 1;
    char text[256], line[512], bar[BAR + 1], eta[32];

    step_text(text, sizeof text, s);
    duration(eta, s->eta_seconds);
    if (m->terminal.fd < 0) {
        fprintf(m->screen, "step %lld/%lld  %5.1f%%  %s  ETA %s\n", (long long)s->step, (long long)s->max_steps,
                100 * done, text, eta);
        fflush(m->screen);
        return;
    }
    for (int i = 0; i < BAR; i++) bar[i] = i < (int)(done * BAR) ? '#' : '.';
    bar[BAR] = 0;
    snprintf(line, sizeof line, "%3.0f%% [%s] %lld/%lld  ETA %s  %s", 100 * done, bar, (long long)s->step,
             (long long)s->max_steps, eta, text);
    terminal_draw(&m->terminal, m->screen, line);
    m->bar_shown = true;
    fflush(m->screen);
}

void metrics_step(metrics *m, const step_metrics *s)
{
    if (!m) return;
    watch_files(true);
    fprintf(m->lines, "{\"step\":%lld", (long long)s->step);
    put_real(m->lines, "loss", s->loss);
    put_real(m->lines, "lr", s->lr);
    put_real(m->lines, "grad_norm", s->grad_norm);
    if (s->trained_tokens > 0)
        fprintf(m->lines, ",\"tokens\":%lld,\"trained_tokens\":%lld", (long long)s->tokens,
                (long long)s->trained_tokens);
    put_real(m->lines, "tokens_per_second", s->tokens_per_second);
    if (s->mfu >= 0) put_real(m->lines, "mfu", s->mfu);
    put_real(m->lines, "step_seconds", s->step_seconds);
    put_real(m->lines, "data_wait_seconds", s->data_wait_seconds);
    if (s->busy.max > 0) put_spread(m->lines, &s->busy);
    if (s->loss_scale > 0) put_real(m->lines, "loss_scale", s->loss_scale);
    fprintf(m->lines, ",\"samples\":%lld,\"skipped\":%lld", (long long)s->samples, (long long)s->skipped);
    if (s->sample_numbers) put_numbers(m->lines, "sample_numbers", s->sample_numbers, s->n_sample_numbers);
    end_line(m);
    tensorboard_scalar scalars[8] = {
        {"train/loss", s->loss},
        {"train/learning_rate", s->lr},
        {"train/grad_norm", s->grad_norm},
        {"speed/tokens_per_second", s->tokens_per_second},
        {"speed/step_seconds", s->step_seconds},
        {"speed/data_wait_seconds", s->data_wait_seconds},
    };
    int n = 6;
    if (s->mfu >= 0) scalars[n++] = (tensorboard_scalar){"speed/mfu", s->mfu};
    if (s->loss_scale > 0) scalars[n++] = (tensorboard_scalar){"train/loss_scale", s->loss_scale};
    put_board(m, s->step, scalars, n);
    show_step(m, s);
    watch_files(false);
}

void metrics_eval(metrics *m, const eval_metrics *e)
{
    if (!m) return;
    watch_files(true);
    fprintf(m->lines, "{\"step\":%lld", (long long)e->step);
    put_real(m->lines, "eval_loss", e->loss);
    put_real(m->lines, "eval_perplexity", e->perplexity);
    put_real(m->lines, "eval_seconds", e->seconds);
    fprintf(m->lines, ",\"eval_tokens\":%lld", (long long)e->tokens);
    end_line(m);
    const tensorboard_scalar scalars[] = {{"eval/loss", e->loss}, {"eval/perplexity", e->perplexity}};
    put_board(m, e->step, scalars, 2);
    clear_bar(m);
    fprintf(m->screen, "eval at step %lld  loss %.4f  perplexity %.2f  %lld tokens in %.1f s\n", (long long)e->step,
            e->loss, e->perplexity, (long long)e->tokens, e->seconds);
    fflush(m->screen);
    watch_files(false);
}

void metrics_save(metrics *m, const save_metrics *s)
{
    char text[128];

    if (!m) return;
    watch_files(true);
    snprintf(text, sizeof text, "checkpoint-%lld in %.2f s, training waited %.3f s", (long long)s->step, s->seconds,
             s->stall_seconds);
    fprintf(m->lines, "{\"step\":%lld", (long long)s->step);
    put_text(m->lines, "event", "saved");
    put_text(m->lines, "text", text);
    put_real(m->lines, "stall_seconds", s->stall_seconds);
    put_real(m->lines, "save_seconds", s->seconds);
    end_line(m);
    const tensorboard_scalar scalars[] = {{"save/stall_seconds", s->stall_seconds}, {"save/seconds", s->seconds}};
    put_board(m, s->step, scalars, 2);
    clear_bar(m);
    fprintf(m->screen, "saved at step %lld  %s\n", (long long)s->step, text);
    fflush(m->screen);
    watch_files(false);
}

void metrics_event_samples(metrics *m, const char *kind, int64_t step, const char *text, const int64_t *numbers,
                           int64_t n)
{
    enum { SHOWN = 8 };

    if (!m) return;
    watch_files(true);
    fprintf(m->lines, "{\"step\":%lld", (long long)step);
    put_text(m->lines, "event", kind);
    put_text(m->lines, "text", text);
    if (n) put_numbers(m->lines, "sample_numbers", numbers, n);
    end_line(m);
    clear_bar(m);
    fprintf(m->screen, "%s at step %lld  %s", kind, (long long)step, text);
    for (int64_t i = 0; i < min_i64(n, SHOWN); i++)
        fprintf(m->screen, "%s %lld", i ? "," : "; samples", (long long)numbers[i]);
    if (n > SHOWN) fprintf(m->screen, " and %lld more", (long long)(n - SHOWN));
    fputc('\n', m->screen);
    fflush(m->screen);
    watch_files(false);
}

void metrics_event(metrics *m, const char *kind, int64_t step, const char *text)
{
    metrics_event_samples(m, kind, step, text, NULL, 0);
}

void metrics_close(metrics *m)
{
    if (!m) return;
    if (m->bar_shown) fputc('\n', m->screen), fflush(m->screen);
    if (m->lines && fclose(m->lines)) warn("%s: %s; the record may have a gap", m->path, strerror(errno));
    tensorboard_close(m->board);
    terminal_close(&m->terminal);
    close_screen(m);
    free(m->path);
    free(m->runs);
    free(m);
}
