/* One job at a time (dir_lock.h): who is inside is named, a killed holder's file stands in nobody's way, and files that
 * come and go never let two in.  fcntl() is this test's own, so that a file system can be without locks. */
#include "src/base/dir_lock.h"
#include "src/base/files.h"
#include "tests/lib/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int lock_error; /* what F_OFD_SETLK fails with; 0: it does its work */

int fcntl(int fd, int command, ...)
{
    va_list ap;

    va_start(ap, command);
    long argument = va_arg(ap, long);
    va_end(ap);
    if (command == F_OFD_SETLK && lock_error) {
        errno = lock_error;
        return -1;
    }
    return (int)syscall(SYS_fcntl, fd, command, argument);
}

static char *dir, *file; /* file: DIR/.lock */

static void write_lock(const char *text)
{
    moai_error err;
    CHECK(file_write(file, text, strlen(text), &err) == 0, "%s", err.text);
}

static bool is_free(void)
{
    moai_error err;
    job_lock *l = dir_lock(dir, "output_dir", 0, &err);

    job_unlock(l);
    return l != NULL;
}

/* A process that holds DIR, with `text` in the file unless NULL. */
static pid_t start_holder(const char *text)
{
    int ready[2];
    char c;
    moai_error err;

    CHECK(pipe(ready) == 0, "pipe");
    const pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_NAME, "moai_holder");
        job_lock *l = dir_lock(dir, "output_dir", 0, &err);
        if (text) write_lock(text);
        if (l && write(ready[1], "x", 1) == 1) pause();
        _exit(1);
    }
    close(ready[1]);
    CHECK(read(ready[0], &c, 1) == 1, "the holder does not hold");
    close(ready[0]);
    return pid;
}

static void kill_holder(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void test_holder(void)
{
    char host[64], *wanted;
    moai_error err = {.text = ""};
    pid_t pid = start_holder(NULL);

    gethostname(host, sizeof host);
    wanted = xasprintf("--output %s: another job is writing there (host %s pid %d job -)", dir, host, (int)pid);
    ok(!dir_lock(dir, "--output", 0, &err) && strstr(err.text, wanted) && !err.config, "%s", err.text);
    free(wanted);
    kill_holder(pid);
    ok(file_exists(file) && is_free(), "a killed holder's file stands in nobody's way");
    ok(!file_exists(file), "and goes with the next one");
    write_lock("host nowhere pid 1 job 5\n");
    ok(is_free(), "nor does a file of another host that nobody holds");

    pid = start_holder(NULL);
    setenv("SLURM_JOB_ID", "77", 1);
    write_lock("host elsewhere pid 7 job 77 start 0\n");
    ok(!is_free(), "a sibling in the same start of a job keeps others out");
    setenv("SLURM_RESTART_COUNT", "1", 1);
    ok(is_free(), "a start of the job that Slurm has given up does not");
    unsetenv("SLURM_JOB_ID");
    unsetenv("SLURM_RESTART_COUNT");
    kill_holder(pid);
}

static void test_names(void)
{
    char *model = xasprintf("%s/new.model", dir), *beside = xasprintf("%s.lock", model);
    moai_error err = {.text = ""};
    job_lock *l = file_lock(model, "--output", 0, &err), *d = dir_lock(dir, "--output", 0, &err);

    ok(l && d && file_exists(beside) && file_exists(file), "a file's lock lies beside it %s", err.text);
    ok(!file_lock(model, "--output", 0, &err) && strstr(err.text, model), "%s", err.text);
    job_unlock(l);
    job_unlock(d);
    ok(!file_exists(beside) && !file_exists(file), "nothing is left of them");
    free(model);
    free(beside);
    char *missing = xasprintf("%s/missing", dir);
    ok(!dir_lock(missing, "--output", 0, &err) && strstr(err.text, "/missing/.lock: No such file"), "%s", err.text);
    free(missing);
}

static void test_without_locks(void)
{
    moai_error err = {.text = ""};
    char host[64];

    lock_error = ENOLCK;
    ok(is_free() && !file_exists(file), "without locks a directory is taken all the same");
    pid_t pid = start_holder(NULL);
    ok(!is_free() && file_exists(file), "but not a living process of this host");
    kill_holder(pid);
    ok(is_free(), "nor is a dead one waited for");
    gethostname(host, sizeof host);
    char *text = xasprintf("host %s pid %d job -\n", host, (int)getppid());
    write_lock(text);
    ok(is_free(), "nor another program that has its number now");
    job_lock *l = dir_lock(dir, "output_dir", 0, &err);
    write_lock("host elsewhere pid 7 job -\n");
    job_unlock(l);
    ok(file_exists(file), "the file of who came later stays");
    unlink(file);
    free(text);
    lock_error = 0;
}

/* Goes in and out as often as it can; two inside at once see it. */
static int take_turns(const char *inside)
{
    moai_error err;
    int n_in = 0;

    for (int i = 0; n_in < 200 && i < 2000000; i++) {
        job_lock *l = dir_lock(dir, "output_dir", 0, &err);
        if (!l) continue;
        const int fd = open(inside, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (fd < 0) return 1;
        close(fd);
        if (n_in % 7 == 0) usleep(100);
        unlink(inside);
        job_unlock(l);
        n_in++;
    }
    return n_in == 200 ? 0 : 2;
}

static void test_turns(void)
{
    enum { N = 4 };
    char *inside = xasprintf("%s/inside", dir);
    pid_t pids[N];
    int n_alone = 0, status;

    for (int i = 0; i < N; i++)
        if ((pids[i] = fork()) == 0) _exit(take_turns(inside));
    for (int i = 0; i < N; i++) {
        waitpid(pids[i], &status, 0);
        n_alone += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    ok(n_alone == N && !file_exists(file), "%d processes, each in and out 200 times: %d were alone each time", N,
       n_alone);
    free(inside);
}

int main(void)
{
    moai_error err;

    unsetenv("SLURM_JOB_ID");
    unsetenv("SLURM_RESTART_COUNT");
    dir = xasprintf("%s/locked", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    file = xasprintf("%s/.lock", dir);
    CHECK(dir_make(dir, &err) == 0, "%s", err.text);
    test_holder();
    test_names();
    test_without_locks();
    test_turns();
    free(dir);
    free(file);
    return tap_done();
}
