/* needs: perl */
/* metrics.jsonl and the TensorBoard files: full precision, a resume tells one story, bad output directories are
 * named */
#include "tests/lib/tap.h"

#include "io/metrics/metrics.h"
#include "src/config/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[400], path[512];

/* The C library's, with the faults of a test: no hard links, a name that cannot be taken; and which directory was
 * fsynced last. */
static bool no_links;
static const char *untakable;
static ino_t synced;

int link(const char *from, const char *to)
{
    if (no_links) return errno = EPERM, -1;
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int rename(const char *from, const char *to)
{
    if (untakable && strcmp(to, untakable) == 0 && strstr(from, ".tmp")) return errno = EIO, -1;
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int fsync(int fd)
{
    struct stat st;

    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) synced = st.st_ino;
    return 0;
}

static bool is_synced(const char *directory)
{
    struct stat st;
    const bool same = stat(directory, &st) == 0 && st.st_ino == synced;

    synced = 0;
    return same;
}

/* a NUL as '?' */
static char *contents(const char *name)
{
    FILE *f = fopen(name, "r");
    char *text = xmalloc(1 << 16);
    CHECK(f, "%s: cannot read", name);
    size_t n = fread(text, 1, (1 << 16) - 1, f);
    for (size_t i = 0; i < n; i++) text[i] = text[i] ? text[i] : '?';
    text[n] = 0;
    fclose(f);
    return text;
}

static double loss_at(int64_t step) { return exp(-0.1 * (double)step) + 1.0 / 3; }

static void log_steps(int64_t from, int64_t to)
{
    const int64_t samples[] = {5, 3};
    moai_error err;
    metrics *m = metrics_open(dir, true, true, from, &err);

    CHECK(m, "%s", err.text);
    for (int64_t s = from + 1; s <= to; s++)
        metrics_step(m, &(step_metrics){.step = s, .max_steps = to, .loss = loss_at(s), .lr = 1e-3 / (double)s,
                                        .grad_norm = s == 2 ? NAN : 0.1, .tokens_per_second = 12345.6,
                                        .mfu = s == 1 ? -1 : 0.25, .step_seconds = 0.5, .eta_seconds = 3700,
                                        .samples = 2 * s, .sample_numbers = samples, .n_sample_numbers = 2});
    metrics_eval(m, &(eval_metrics){.step = to, .loss = 2, .perplexity = exp(2), .seconds = 1, .tokens = 100});
    metrics_event(m, "checkpoint", to, "a \"quoted\" name");
    metrics_close(m);
}

/* the line of a step, as "...\n"; NULL when there is none; *count is how many there are */
static const char *line_of(const char *text, int64_t step, const char *key, int *count)
{
    char start[64];
    const char *found = NULL;

    snprintf(start, sizeof start, "{\"step\":%lld,\"%s\":", (long long)step, key);
    *count = 0;
    for (const char *p = text; (p = strstr(p, start)); p++) found = p, ++*count;
    return found;
}

static void test_lines(void)
{
    int n;

    log_steps(0, 3);
    char *text = contents(path);
    bool exact = true;
    for (int64_t s = 1; s <= 3; s++) {
        const char *line = line_of(text, s, "loss", &n);
        exact &= n == 1 && strtod(strchr(line, ',') + 8, NULL) == loss_at(s);
    }
    ok(exact, "losses come back bit for bit");
    const char *line = line_of(text, 2, "loss", &n);
    ok(strstr(line, "\"grad_norm\":null"), "a norm that is not finite is null");
    ok(strstr(line, "\"sample_numbers\":[5,3]}\n"), "sample numbers");
    ok(line_of(text, 3, "eval_loss", &n) && strstr(text, "\"text\":\"a \\\"quoted\\\" name\""), "evaluation and event");
    free(text);
}

static void test_resume(void)
{
    int n1, n2, n3, n4, n_event;
    FILE *f = fopen(path, "a");

    fwrite("{\"step\":2}\0\n{\"step\":2\0}\n", 1, 24, f);                  /* zeros, as a power cut leaves them */
    fputs("{\"step\":2,\"loss\":9", f);                                  /* a line cut short by a crash */
    fclose(f);
    log_steps(2, 4);
    char *text = contents(path), *old_path = xasprintf("%s.old", path), *old = contents(old_path);
    line_of(text, 1, "loss", &n1), line_of(text, 2, "loss", &n2), line_of(text, 3, "loss", &n3),
        line_of(text, 4, "loss", &n4);
    line_of(text, 3, "event", &n_event);
    ok(n1 == 1 && n2 == 1 && n3 == 1 && n4 == 1 && n_event == 0,
       "resume at 2: steps told %d %d %d %d times, later event %d", n1, n2, n3, n4, n_event);
    ok(!strstr(text, "}{"), "each line ends where it ended");
    ok(strstr(old, "{\"step\":2,\"loss\":9"), "what was dropped is kept in metrics.jsonl.old");
    free(old);
    free(text);
    log_steps(0, 1);
    text = contents(path);
    line_of(text, 1, "loss", &n1), line_of(text, 4, "loss", &n4);
    ok(n1 == 1 && n4 == 0, "a new start tells a new story");
    old = contents(old_path);
    line_of(old, 4, "loss", &n4);
    ok(n4 == 1, "and the last one is kept beside it");
    free(old);
    free(text);
    free(old_path);
}

/* A directory where the shortened file should be written stands for a full disk. */
static void test_go_back(void)
{
    char *in_the_way = xasprintf("%s.tmp", path);
    moai_error err;
    int n;
    metrics *m = metrics_open(dir, false, false, 1, &err);

    CHECK(m && mkdir(in_the_way, 0777) == 0, "%s", in_the_way);
    metrics_event(m, "spike", 3, "");
    metrics_go_back(m, 1);
    metrics_event(m, "rollback", 1, "");
    char *text = contents(path);
    ok(line_of(text, 3, "event", &n) && line_of(text, 1, "event", &n), "going back without room: the log goes on");
    free(text);
    CHECK(rmdir(in_the_way) == 0, "%s", in_the_way);
    metrics_go_back(m, 1);
    metrics_event(m, "spike", 4, "");
    text = contents(path);
    ok(!line_of(text, 3, "event", &n) && line_of(text, 4, "event", &n), "and with room what came later is dropped");
    free(text);
    metrics_close(m);
    free(in_the_way);
}

/* Where the shortened file does not get its name, the log goes on in the one that has it. */
static void test_name_not_taken(bool links)
{
    moai_error err;
    int n;
    metrics *m = metrics_open(dir, false, false, 1, &err);

    CHECK(m, "%s", err.text);
    metrics_event(m, "spike", 3, "");
    no_links = !links, untakable = path;
    metrics_go_back(m, 1);
    no_links = false, untakable = NULL;
    metrics_event(m, "spike", 6, "");
    char *text = contents(path);
    ok(line_of(text, 3, "event", &n) && line_of(text, 6, "event", &n), "a name that is not taken%s: the log goes on",
       links ? "" : ", without links");
    free(text);
    metrics_go_back(m, 1);
    ok(is_synced(dir), "a name that is taken is on the disk");
    metrics_close(m);
}

static void test_json_file(void)
{
    char *file = xasprintf("%s/some.json", dir);
    json_t *object = json_pack("{s:i}", "a", 1);
    moai_error err;

    ok(json_write_file(object, file, &err) == 0 && is_synced(dir), "a JSON file's name is on the disk");
    untakable = file;
    ok(json_write_file(object, file, &err) < 0 && strstr(err.text, "some.json: cannot write: Input/output error"),
       "or it is an error: %s", err.text);
    untakable = NULL;
    json_decref(object);
    free(file);
}

static void limit_files(rlim_t n_bytes)
{
    struct rlimit limit;

    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0, "getrlimit");
    limit.rlim_cur = n_bytes;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
}

/* A limit on the length of files stands for a full disk: part of a line finds room. */
static void test_no_room(void)
{
    struct stat st;
    moai_error err;
    int n5, n6, n7, n8;
    metrics *m = metrics_open(dir, false, false, 0, &err);

    CHECK(m, "%s", err.text);
    signal(SIGXFSZ, SIG_IGN);
    metrics_event(m, "spike", 5, "");
    CHECK(stat(path, &st) == 0, "%s", path);
    limit_files((rlim_t)st.st_size + 20);
    metrics_event(m, "spike", 6, "");
    metrics_event(m, "spike", 7, "");
    limit_files(RLIM_INFINITY);
    metrics_event(m, "spike", 8, "");
    metrics_close(m);
    char *text = contents(path);
    line_of(text, 5, "event", &n5), line_of(text, 6, "event", &n6), line_of(text, 7, "event", &n7),
        line_of(text, 8, "event", &n8);
    ok(n5 == 1 && n6 == 0 && n7 == 0 && n8 == 1 && strstr(text, "}\n{\"step\":8,"),
       "lines that find no room leave no part of them: steps told %d %d %d %d times", n5, n6, n7, n8);
    free(text);
}

static char *events_of(int resumed_at)
{
    char *pattern = xasprintf("%s/runs/events.out.tfevents.*", dir), *found = NULL;
    glob_t files;

    CHECK(!glob(pattern, 0, NULL, &files), "no %s", pattern);
    for (size_t i = 0; i < files.gl_pathc && !found; i++) {
        char *command = xasprintf("perl tests/lib/tfevents.pl '%s'", files.gl_pathv[i]), *text = xmalloc(1 << 16),
             start[32];
        FILE *pipe = popen(command, "r");
        size_t n = fread(text, 1, (1 << 16) - 1, pipe);
        text[n] = 0;
        snprintf(start, sizeof start, "start %d\n", resumed_at + 1);
        bool good = !pclose(pipe);
        free(command);
        if (good && strstr(text, start))
            found = text;
        else
            free(text);
    }
    globfree(&files);
    free(pattern);
    return found;
}

static void test_board(void)
{
    char line[128], *text = events_of(2);

    ok(text && !strncmp(text, "version brain.Event:2\nstart 3\n", 30), "the event file of the resume opens%s",
       text ? "" : ": none is readable");
    for (int64_t s = 3; s <= 4; s++) {
        snprintf(line, sizeof line, "\n%lld train/loss %.7g\n", (long long)s, (double)(float)loss_at(s));
        ok(text && strstr(text, line), "TensorBoard has the loss of step %lld, %.7g", (long long)s, loss_at(s));
    }
    ok(text && strstr(text, "4 eval/perplexity 7.389056\n") && strstr(text, "4 speed/mfu 0.25\n"),
       "and the other scalars");
    free(text);
}

/* Reading /proc/self/mem from its beginning is an I/O error. */
static void test_unreadable(void)
{
    moai_error err = {.text = ""};

    unlink(path);
    CHECK(symlink("/proc/self/mem", path) == 0, "%s", path);
    ok(!metrics_open(dir, false, false, 1, &err) && strstr(err.text, "metrics.jsonl: Input/output error"),
       "lines that cannot be read are not taken for none: %s", err.text);
}

static void test_bad_directory(void)
{
    moai_error err = {.text = ""};
    char *blocked = xasprintf("%s/metrics.jsonl/deeper", dir);

    ok(!metrics_open(blocked, true, true, 0, &err) &&
           strstr(err.text, "metrics.jsonl/deeper: cannot create directory: Not a directory"),
       "%s", err.text);
    free(blocked);
    unlink(path);
    mkdir(path, 0777);
    ok(!metrics_open(dir, true, true, 0, &err) && strstr(err.text, "metrics.jsonl: Is a directory"), "%s", err.text);
}

int main(void)
{
    const char *scratch = getenv("TMPDIR");

    snprintf(dir, sizeof dir, "%s/run/out", scratch ? scratch : "/tmp");
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    test_lines();
    test_resume();
    test_go_back();
    test_name_not_taken(true);
    test_name_not_taken(false);
    test_json_file();
    test_board();
    test_no_room();
    test_unreadable();
    test_bad_directory();
    return tap_done();
}
