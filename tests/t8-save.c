/* run: mpirun -np 4 %s */
/* What a save leaves behind: the last N, nothing half-written, and after a failure (a full disk, an unusable
 * directory) the checkpoints of before. */
#include "tests/lib/checkpoint_state.h"
#include "tests/lib/tap.h"

#include <errno.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static moai_grid grid;
static moai_device *dev;
static model_config cfg;

static bool agree(bool holds)
{
    moai_error err = {.text = "t8-save"};
    return comm_agree(&grid.host_world, !holds, &err) == 0;
}

static int save(const char *dir, int64_t step, int keep, moai_error *err)
{
    const checkpoint_meta meta = small_meta(&cfg, grid.size, step);
    small_state s;

    state_init(&s, &cfg, &grid, dev);
    state_fill(&s);
    err->text[0] = 0;
    int rc = checkpoint_save(dir, &meta, &s.st, NULL, keep, err);
    state_free(&s);
    agree(true);                              /* rank 0 removes the old ones after the others have returned */
    return rc;
}

static bool there(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);
    const bool yes = access(path, F_OK) == 0;

    free(path);
    return yes;
}

static bool loads(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);
    moai_error err;
    const bool yes = state_load_as(path, &cfg, grid.size, grid.rank, dev, &err) == 0;

    free(path);
    return yes;
}

/* Rank 0 alone; the agreement at the end of the next ok() is the barrier. */
static void leave_file(const char *dir, const char *directory, const char *name)
{
    char *path = xasprintf("%s/%s", dir, directory), *file = xasprintf("%s/%s", path, name);

    if (grid.rank == 0) {
        mkdir(path, 0777);
        FILE *f = fopen(file, "w");
        CHECK(f, "%s: %s", file, strerror(errno));
        fclose(f);
    }
    free(path);
    free(file);
}

static void limits(const char *dir)
{
    moai_error err;
    char *latest;
    bool held = true;

    ok(checkpoint_latest(dir) == NULL, "no directory has no latest");
    for (int64_t step = 1; step <= 4; step++) held = held && save(dir, step, 2, &err) == 0;
    ok(held && !there(dir, "checkpoint-1") && !there(dir, "checkpoint-2") && loads(dir, "checkpoint-3") &&
           loads(dir, "checkpoint-4"),
       "save_total_limit 2 keeps the last two of four");
    leave_file(dir, "checkpoint-9", "rank-00000.h5");
    leave_file(dir, "checkpoint-7.tmp", "rank-00000.h5");
    latest = checkpoint_latest(dir);
    ok(latest && strstr(latest, "checkpoint-4"), "without a manifest a directory is not the latest");
    free(latest);
    ok(save(dir, 10, 0, &err) == 0 && there(dir, "checkpoint-3") && there(dir, "checkpoint-4"), "no limit keeps all");
    ok(!there(dir, "checkpoint-7.tmp") && !there(dir, "checkpoint-10.tmp"), "half-written directories are removed");
    ok(save(dir, 5, 1, &err) == 0 && loads(dir, "checkpoint-5"),
       "what was just written stays, though a higher step is there");
    ok(!there(dir, "checkpoint-10") && !there(dir, "checkpoint-4"), "the others are gone");
}

static void replaced(const char *dir)
{
    moai_error err;

    ok(save(dir, 20, 0, &err) == 0, "step 20");
    leave_file(dir, "checkpoint-20", "old");
    ok(agree(true) && save(dir, 20, 0, &err) == 0 && loads(dir, "checkpoint-20"), "a step is saved a second time");
    ok(!there(dir, "checkpoint-20/old") && !there(dir, "checkpoint-20.tmp"), "the second replaces the first");

    char *name = xasprintf("%s/checkpoint-20", dir), *old = xasprintf("%s/checkpoint-20.old", dir);
    if (grid.rank == 0) CHECK(rename(name, old) == 0, "%s: %s", name, strerror(errno));
    ok(agree(true) && save(dir, 21, 0, &err) == 0 && loads(dir, "checkpoint-20"),
       "one set aside by a killed run comes back");
    free(name);
    free(old);
}

static void unusable(const char *dir)
{
    moai_error err;
    char *under_file = xasprintf("%s/file/run", dir);

    leave_file(dir, ".", "file");
    ok(agree(true) && save(under_file, 1, 0, &err) != 0 && strstr(err.text, "/file"),
       "a directory that cannot be made: %s", err.text);
    free(under_file);
}

static bool resize(const char *dir, int64_t n_bytes)
{
    char *how = xasprintf("size=%lld", (long long)n_bytes);
    const bool done = mount("tmpfs", dir, "tmpfs", MS_REMOUNT, how) == 0;

    free(how);
    return done;
}

static int64_t bytes_of(const char *dir)
{
    moai_error err;
    int n;
    checkpoint_info *all = checkpoint_list(dir, &n, &err);
    const int64_t n_bytes = all && n ? all[0].n_bytes : 0;

    if (all) checkpoint_list_free(all, n);
    return n_bytes;
}

/* A second checkpoint on a disk that has room for the first and a growing part of the second. */
static void fill_disk(const char *dir)
{
    const int64_t page = 4096, room = bytes_of(dir) + 64 * page;
    moai_error err = {.text = ""};
    int n_failed = 0, n_told = 0, n_clean = 0, n_tries = 0;
    bool old_loads = true;

    for (int64_t more = 0; more < room; more += 5 * page, n_tries++) {
        bool sized = grid.rank != 0 || resize(dir, room + more);
        CHECK(agree(sized), "tmpfs cannot be resized");
        if (save(dir, 2, 0, &err) == 0) break;
        n_failed++;
        if (!strstr(err.text, "No space left on device") && base_process.printer) printf("# %s\n", err.text);
        n_told += strstr(err.text, "No space left on device") != NULL;
        n_clean += !there(dir, "checkpoint-2.tmp") && !there(dir, "checkpoint-2");
        old_loads = old_loads && loads(dir, "checkpoint-1");
    }
    ok(n_failed > 5 && n_failed == n_tries, "disk full at %d places, then it fits: %s", n_failed, err.text);
    ok(n_told == n_failed, "every rank is told why: %d of %d", n_told, n_failed);
    ok(n_clean == n_failed, "nothing is left of it: %d of %d", n_clean, n_failed);
    ok(old_loads, "the checkpoint before stays loadable");
    ok(loads(dir, "checkpoint-2"), "and with room enough the next one too");
}

static void disk_full(const char *scratch)
{
    char *dir = xasprintf("%s/small", scratch);
    moai_error err;

    if (grid.rank == 0) mkdir(dir, 0777);
    const bool mounted = grid.rank != 0 || mount("tmpfs", dir, "tmpfs", 0, "size=64m") == 0;
    if (!agree(mounted)) {
        ok(true, "# SKIP a full disk: mounting a tmpfs is not permitted");
    } else {
        ok(save(dir, 1, 0, &err) == 0, "a first checkpoint on a small disk %s", err.text);
        fill_disk(dir);
        if (agree(true) && grid.rank == 0) CHECK(umount(dir) == 0, "umount %s: %s", dir, strerror(errno));
    }
    free(dir);
}

int main(int argc, char **argv)
{
    process_start(&argc, &argv);
    grid_init(&grid, (grid_shape){2, 1, 2, 1}, 2);
    tap_agree = agree;
    dev = device_open_cpu(1);
    cfg = small_model(3, 14, 2, 101, false);

    char *dir = xasprintf("%s/run", getenv("TMPDIR"));
    limits(dir);
    replaced(dir);
    unusable(dir);
    disk_full(getenv("TMPDIR"));
    free(dir);
    device_close_cpu(dev);
    grid_free(&grid);
    int status = tap_done();
    process_finish();
    return status;
}
