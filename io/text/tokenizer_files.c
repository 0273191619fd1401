/* tokenizer_files.c: see tokenizer_files.h */
#include "io/text/tokenizer_files.h"

#include "io/text/tokenizer.h"
#include "src/base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *unfinished(const char *path) { return xasprintf("%s.tmp", path); }

/* Anything of that name, also a link to nothing. */
static bool is_there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* Behind a killed process: the list of pieces that belongs to the model that is there. */
static void settle_vocab(const tokenizer_files *f)
{
    char *model_tmp = unfinished(f->model), *vocab_tmp = unfinished(f->vocab);
    const bool is_new = !is_there(model_tmp) && is_there(vocab_tmp);

    if (is_there(f->model) && !is_there(f->vocab)) rename(is_new ? vocab_tmp : f->old_vocab, f->vocab);
    free(model_tmp);
    free(vocab_tmp);
}

static int check_free(const char *path, bool overwrite, moai_error *err)
{
    struct stat st;

    if (!is_there(path)) return 0;
    if (!overwrite) return error_set(err, "%s: exists already; --overwrite replaces it", path);
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? error_set(err, "%s: is a directory", path) : 0;
}

/* As much as the model is likely to take; not every file system can say. */
static int reserve(const char *path, int64_t n_bytes, moai_error *err)
{
    char *tmp = unfinished(path);
    const int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int rc = 0;

    if (fd < 0 || (fallocate(fd, 0, 0, (off_t)n_bytes) != 0 && (errno == ENOSPC || errno == EDQUOT)))
        rc = error_set(err, "%s: %s", tmp, strerror(errno));
    if (fd >= 0) close(fd);
    free(tmp);
    return rc;
}

int tokenizer_files_begin(tokenizer_files *f, const char *prefix, int64_t n_pieces, bool overwrite, moai_error *err)
{
    enum { PIECE_BYTES = 20 }; /* of a piece in a model, about */

    *f = (tokenizer_files){.model = xasprintf("%s.model", prefix),
                           .vocab = xasprintf("%s.vocab", prefix),
                           .old_vocab = xasprintf("%s.vocab.old.tmp", prefix)};
    if (dir_make_parent(f->model, err) != 0) return -1;
    f->lock = file_lock(f->model, "--output", 0, err);
    if (!f->lock) return -1;
    settle_vocab(f);
    if (check_free(f->model, overwrite, err) != 0 || check_free(f->vocab, overwrite, err) != 0) return -1;
    return reserve(f->model, PIECE_BYTES * n_pieces, err);
}

static int write_unfinished(const char *path, const void *data, size_t n_bytes, moai_error *err)
{
    char *tmp = unfinished(path);
    int rc = file_write(tmp, data, n_bytes, err);

    free(tmp);
    return rc;
}

/* What was written, read again. */
static int check_model(const char *path, int64_t n_pieces, moai_error *err)
{
    char *tmp = unfinished(path);
    tokenizer *t = tokenizer_open(tmp, err);
    int rc = t ? 0 : -1;

    if (t && tokenizer_vocab_size(t) != n_pieces)
        rc = error_set(err, "%s: holds %lld pieces, not %lld", tmp, (long long)tokenizer_vocab_size(t),
                       (long long)n_pieces);
    tokenizer_free(t);
    free(tmp);
    return rc;
}

static int rename_to(const char *from, const char *to, moai_error *err)
{
    return rename(from, to) == 0 ? 0 : error_set(err, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
}

static int finish(const char *path, moai_error *err)
{
    char *tmp = unfinished(path);
    int rc = rename_to(tmp, path, err);

    free(tmp);
    return rc;
}

int tokenizer_files_commit(const tokenizer_files *f, const void *model, size_t model_bytes, const void *vocab,
                           size_t vocab_bytes, int64_t n_pieces, moai_error *err)
{
    int rc = write_unfinished(f->model, model, model_bytes, err);

    if (rc == 0) rc = write_unfinished(f->vocab, vocab, vocab_bytes, err);
    if (rc == 0) rc = check_model(f->model, n_pieces, err);
    if (rc == 0 && is_there(f->vocab)) rc = rename_to(f->vocab, f->old_vocab, err);
    if (rc != 0) return rc;
    rc = finish(f->model, err);
    if (rc != 0) {
        if (is_there(f->old_vocab)) rename(f->old_vocab, f->vocab);
        return rc;
    }
    rc = finish(f->vocab, err);
    return rc == 0 ? dir_sync_parent(f->model, err) : rc;
}

/* What is unfinished, of this process or of one that was killed. */
static void remove_unfinished(const char *path)
{
    char *tmp = unfinished(path);

    unlink(tmp);
    free(tmp);
}

void tokenizer_files_end(tokenizer_files *f)
{
    if (f->lock) {
        remove_unfinished(f->model);
        remove_unfinished(f->vocab);
        unlink(f->old_vocab);
    }
    job_unlock(f->lock);
    free(f->model);
    free(f->vocab);
    free(f->old_vocab);
    *f = (tokenizer_files){0};
}
