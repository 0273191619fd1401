/* files.c: see files.h */
#include "src/base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xxhash.h>

static int failed(moai_error *err, const char *path, const char *what)
{
    return error_set(err, "%s: %s: %s", path, what, strerror(errno));
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool file_missing(const char *path)
{
    struct stat st;
    return stat(path, &st) != 0 && (errno == ENOENT || errno == ENOTDIR);
}

bool file_is_lost(const char *dir, const char *path) { return file_missing(path) && file_exists(dir); }

int file_given(const char *key, const char *path, moai_error *err)
{
    return file_missing(path) ? error_config(err, "--%s %s: %s", key, path, strerror(errno)) : 0;
}

int file_read_at(int fd, const char *path, void *dst, size_t n_bytes, int64_t offset, moai_error *err)
{
    for (size_t done = 0; done < n_bytes;) {
        ssize_t n = pread(fd, (char *)dst + done, n_bytes - done, (off_t)(offset + (int64_t)done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failed(err, path, "cannot read");
        if (n == 0)
            return error_set(err, "%s: ends at byte %lld, %zu bytes wanted from %lld", path,
                             (long long)(offset + (int64_t)done), n_bytes, (long long)offset);
        done += (size_t)n;
    }
    return 0;
}

char *file_read(const char *path, size_t max_bytes, size_t *n_bytes, moai_error *err)
{
    struct stat st;
    char *data = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        failed(err, path, "cannot open");
        return NULL;
    }
    if (fstat(fd, &st) != 0)
        failed(err, path, "cannot stat");
    else if (!S_ISREG(st.st_mode))
        error_set(err, "%s: not a regular file", path);
    else if ((uint64_t)st.st_size > max_bytes)
        error_set(err, "%s: %lld bytes, at most %zu expected", path, (long long)st.st_size, max_bytes);
    else {
        data = xmalloc((size_t)st.st_size + 1);
        *n_bytes = (size_t)st.st_size;
        if (file_read_at(fd, path, data, *n_bytes, 0, err) != 0) free(data), data = NULL;
    }
    close(fd);
    return data;
}

/* close() reports what a network file system held back, so it counts as a write. */
static int write_sync_close(int fd, const char *path, const void *data, size_t n_bytes, moai_error *err)
{
    int rc = 0;

    for (size_t done = 0; rc == 0 && done < n_bytes;) {
        ssize_t n = write(fd, (const char *)data + done, n_bytes - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            rc = failed(err, path, "cannot write");
    }
    if (rc == 0 && fsync(fd) != 0) rc = failed(err, path, "cannot fsync");
    if (close(fd) != 0 && rc == 0) rc = failed(err, path, "cannot close");
    return rc;
}

int file_write(const char *path, const void *data, size_t n_bytes, moai_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    if (fd < 0) return failed(err, path, "cannot create");
    return write_sync_close(fd, path, data, n_bytes, err);
}

bool file_is_same(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int file_copy(const char *from, const char *to, moai_error *err)
{
    size_t n_bytes;

    if (file_is_same(from, to)) return 0;
    char *data = file_read(from, (size_t)1 << 30, &n_bytes, err);

    if (!data) return -1;
    int rc = file_write(to, data, n_bytes, err);
    free(data);
    return rc;
}

int file_sync(const char *path, moai_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;

    if (fd < 0) return failed(err, path, "cannot open");
    if (fsync(fd) != 0) rc = failed(err, path, "cannot fsync");
    close(fd);
    return rc;
}

void file_xxh3_text(const void *data, size_t n_bytes, char hex[33])
{
    XXH128_hash_t h = XXH3_128bits(data, n_bytes);
    snprintf(hex, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

enum { SEAL_BYTES = 46 };

static void seal_of(const char *body, size_t n_bytes, char seal[SEAL_BYTES + 1])
{
    char hex[33];

    file_xxh3_text(body, n_bytes, hex);
    snprintf(seal, SEAL_BYTES + 1, ",\n\"xxh3\": \"%s\"}\n", hex);
}

char *json_sealed(const char *object)
{
    char seal[SEAL_BYTES + 1];
    size_t body = strlen(object) - 1;         /* the seal brings the closing brace */

    while (body > 0 && object[body - 1] == '\n') body--;
    seal_of(object, body, seal);
    return xasprintf("%.*s%s", (int)body, object, seal);
}

bool json_seal_holds(const char *text, size_t n_bytes)
{
    char seal[SEAL_BYTES + 1];

    if (n_bytes <= SEAL_BYTES) return false;
    seal_of(text, n_bytes - SEAL_BYTES, seal);
    return memcmp(seal, text + n_bytes - SEAL_BYTES, SEAL_BYTES) == 0;
}

int dir_make(const char *path, moai_error *err)
{
    char *part = xstrdup(path);
    int rc = 0;

    for (char *slash = part; rc == 0 && slash;) {
        slash = strchr(slash + 1, '/');
        if (slash) *slash = 0;
        if (mkdir(part, 0777) == 0)
            rc = dir_sync_parent(part, err);
        else if (errno != EEXIST)
            rc = failed(err, part, "cannot create directory");
        if (slash) *slash = '/';
    }
    struct stat st;
    if (rc == 0 && stat(path, &st) != 0) rc = failed(err, path, "cannot stat");
    if (rc == 0 && !S_ISDIR(st.st_mode)) rc = error_set(err, "%s: not a directory", path);
    free(part);
    return rc;
}

int dir_make_parent(const char *path, moai_error *err)
{
    const char *slash = strrchr(path, '/');

    if (!slash || slash == path) return 0;
    char *dir = xasprintf("%.*s", (int)(slash - path), path);
    int rc = dir_make(dir, err);
    free(dir);
    return rc;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st, (void)kind, (void)where;
    return remove(path);
}

int dir_remove(const char *path, moai_error *err)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT && errno != ENOTDIR)
        return failed(err, path, "cannot remove");
    return 0;
}

/* As far as the file system and its permissions let us: not all flush directories, and not all may be read. */
static int dir_sync(const char *path, moai_error *err)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = 0;

    if (fd < 0) return errno == EACCES ? 0 : failed(err, path, "cannot open");
    if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) rc = failed(err, path, "cannot fsync");
    close(fd);
    return rc;
}

int dir_sync_parent(const char *path, moai_error *err)
{
    char *parent = xstrdup(path);
    size_t n = strlen(parent);

    while (n > 1 && parent[n - 1] == '/') parent[--n] = 0;
    char *slash = strrchr(parent, '/');
    if (!slash)
        strcpy(parent, ".");                  /* path is not empty, so two bytes are there */
    else
        slash[slash == parent] = 0;
    int rc = dir_sync(parent, err);
    free(parent);
    return rc;
}

/* renameat2 is Linux's; a network file system may not have it. */
int dir_replace(const char *tmp, const char *name, const char *old, moai_error *err)
{
    enum { EXCHANGE = 2 };                    /* RENAME_EXCHANGE of linux/fs.h */

    if (rename(tmp, name) == 0) return 0;
    if (errno != ENOTEMPTY && errno != EEXIST) return failed(err, tmp, "cannot be renamed");
    if (dir_remove(old, err) != 0) return -1;
    if (syscall(SYS_renameat2, AT_FDCWD, tmp, AT_FDCWD, name, EXCHANGE) == 0) {
        if (rename(tmp, old) != 0) warn("%s: what was replaced keeps this name", tmp);
        return 0;
    }
    if (rename(name, old) != 0) return failed(err, name, "cannot be replaced");
    if (rename(tmp, name) == 0) return 0;
    failed(err, tmp, "cannot be renamed");
    if (rename(old, name) != 0) warn("%s: what was there before is now %s", name, old);
    return -1;
}
