/* Random single bytes of a data set's files, shards and manifest, are changed: the audit finds each and names the file.
 * Argument: how many (200). */
#include "src/corpus/audit.h"
#include "tests/lib/shards.h"
#include "tests/lib/tap.h"

#include <sys/stat.h>

/* HDF5 asks for as much memory as a damaged header says, and copes with not getting it. */
#ifdef __SANITIZE_ADDRESS__
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
#endif

static char *dir, *report;                    /* report: what the audit prints */

static uint64_t draw(uint64_t n)
{
    static uint64_t draws;
    return (uint64_t)(rng_uniform(5, draws++) * (double)n);
}

/* Faults found, and whether the file is named in what was said; -1 when nothing could be audited. */
static int64_t audit(const char *file, bool *named)
{
    moai_error err = {.text = ""};
    size_t n;
    const int out = dup(STDOUT_FILENO);

    fflush(stdout);
    CHECK(freopen(report, "w", stdout), "%s", report);
    const int64_t n_faults = shards_audit(dir, &err);
    fflush(stdout);
    CHECK(dup2(out, STDOUT_FILENO) >= 0, "stdout");
    close(out);
    char *text = read_whole(report, &n);
    *named = strstr(text, file) || strstr(err.text, file);
    free(text);
    return n_faults;
}

int main(int argc, char **argv)
{
    const char *const names[] = {"manifest.json", "train-00000.h5", "train-00001.h5", "train-00002.h5"};
    const int n = argc > 1 ? atoi(argv[1]) : 200;
    documents d = random_documents(9000, 300, 5000, 11);
    int found = 0, n_named = 0;
    bool named;

    dir = in_tmp("set");
    report = in_tmp("report");
    mkdir(dir, 0777);
    free(write_dataset(dir, &d, 3, 5000));
    ok(audit("x", &named) == 0, "a data set without damage has no faults");
    for (int i = 0; i < n; i++) {
        const char *name = names[i % 4];
        char *path = xasprintf("%s/%s", dir, name);
        size_t size;
        char *data = read_whole(path, &size);
        const size_t at = (size_t)draw(size);
        const char flip = (char)(1 + draw(255));
        data[at] ^= flip;
        write_whole(path, data, size);
        const bool seen = audit(name, &named) != 0;
        if (!seen) printf("# byte %zu of %s\n", at, name);
        found += seen;
        n_named += named;
        data[at] ^= flip;
        write_whole(path, data, size);
        free(data);
        free(path);
    }
    ok(found == n, "bytes changed in 4 files: %d of %d found", found, n);
    ok(n_named == n, "and the file named: %d of %d", n_named, n);
    ok(audit("x", &named) == 0, "and all is well again");
    documents_free(&d);
    free(report);
    free(dir);
    return tap_done();
}
