/* files.h: what the C library leaves out about files and directories: everything written, flushed
 * to the disk, or named in an error. */
#ifndef MOAI_FILES_H
#define MOAI_FILES_H

#include "src/base/base.h"

bool file_exists(const char *path);
bool file_missing(const char *path);                                       /* surely: an I/O error is no answer */
bool file_is_lost(const char *dir, const char *path);                      /* missing, though its directory is there */
/* A path that --KEY names: -1 where it is missing, which no other start will mend. */
int file_given(const char *key, const char *path, moai_error *err);
/* The whole file with a NUL behind it, malloc'd; NULL when it cannot be read or is longer than `max_bytes`. */
char *file_read(const char *path, size_t max_bytes, size_t *n_bytes, moai_error *err);
/* Exactly n bytes at `offset`; a file that ends before is an error.  Thread-safe. */
int file_read_at(int fd, const char *path, void *dst, size_t n_bytes, int64_t offset, moai_error *err);
/* Creates or truncates, writes and fsyncs; no rename. */
int file_write(const char *path, const void *data, size_t n_bytes, moai_error *err);
int file_copy(const char *from, const char *to, moai_error *err);          /* fsynced; onto itself: nothing */
bool file_is_same(const char *a, const char *b);                           /* also by links and other spellings */
int file_sync(const char *path, moai_error *err);                          /* a file or a directory */
void file_xxh3_text(const void *data, size_t n_bytes, char hex[33]);       /* XXH3-128 as xxhsum -H2 prints it */

/* A JSON object whose last line is the hash of all before it: ,"xxh3": "..."}  Caller frees. */
char *json_sealed(const char *object);
bool json_seal_holds(const char *text, size_t n_bytes);

int dir_make(const char *path, moai_error *err);           /* with its parents, for good; existing is well */
int dir_make_parent(const char *path, moai_error *err);                    /* likewise, what `path` is to lie in */
int dir_remove(const char *path, moai_error *err);                         /* with all below it; missing is well */
int dir_sync_parent(const char *path, moai_error *err);                    /* fsyncs the directory that holds `path` */
/* Renames `tmp` to `name`; a directory that has the name is then called `old` (what is there goes before).  The two
 * swap names in one step where the file system can, so that one of them has the name at any time. */
int dir_replace(const char *tmp, const char *name, const char *old, moai_error *err);

#endif
