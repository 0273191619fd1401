/* h5.c: see h5.h */
#include "io/file/h5.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

static void prepare(void)
{
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 0);
}

void h5_lock(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, prepare);
    pthread_mutex_lock(&library);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);                    /* per thread where the library was built thread-safe */
}

void h5_unlock(void)
{
    pthread_mutex_unlock(&library);
}

/* Walking upwards, entry 0 is the innermost.  A failed system call is told in a paragraph; what counts is its quoted
 * words: "file write failed: time = .., filename = .., errno = 28, error message = 'No space left on device', ..". */
static herr_t keep_innermost(unsigned n, const H5E_error2_t *entry, void *text)
{
    static const char quote[] = "error message = '";
    const char *said = entry->desc ? strstr(entry->desc, quote) : NULL;

    if (n == 0 && said)
        format_elided(text, 256, "%.*s", (int)strcspn(said + sizeof quote - 1, "'"), said + sizeof quote - 1);
    else if (n == 0)
        format_elided(text, 256, "%s", entry->desc ? entry->desc : "");
    return 0;
}

int h5_fail(moai_error *err, const char *fmt, ...)
{
    char *text = NULL, reason[256] = "";
    va_list ap;

    va_start(ap, fmt);
    CHECK(vasprintf(&text, fmt, ap) >= 0, "out of host memory");
    va_end(ap);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, reason);
    H5Eclear2(H5E_DEFAULT);
    error_set(err, reason[0] ? "%s (HDF5: %s)" : "%s%s", text, reason);
    free(text);
    return -1;
}

static int write_attribute(hid_t object, const char *name, hid_t type, hid_t memory_type, const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    int failed = attribute < 0 || H5Awrite(attribute, memory_type, value) < 0;

    if (attribute >= 0) H5Aclose(attribute);
    H5Sclose(space);
    return failed ? -1 : 0;
}

int h5_write_int(hid_t object, const char *name, int64_t value)
{
    return write_attribute(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

int h5_write_text(hid_t object, const char *name, const char *value)
{
    hid_t type = H5Tcopy(H5T_C_S1);

    H5Tset_size(type, strlen(value) + 1);
    int status = write_attribute(object, name, type, type, value);
    H5Tclose(type);
    return status;
}

/* The attribute, when it exists, is one element, and is of the class; else < 0. */
static hid_t open_attribute(hid_t object, const char *name, H5T_class_t class, hid_t *type)
{
    if (H5Aexists(object, name) <= 0) return -1;
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    if (attribute < 0) return -1;
    hid_t space = H5Aget_space(attribute);
    bool single = H5Sget_simple_extent_npoints(space) == 1;
    H5Sclose(space);
    *type = H5Aget_type(attribute);
    if (single && H5Tget_class(*type) == class) return attribute;
    H5Tclose(*type);
    H5Aclose(attribute);
    return -1;
}

int h5_read_int(hid_t object, const char *name, int64_t *value)
{
    hid_t type, attribute = open_attribute(object, name, H5T_INTEGER, &type);

    if (attribute < 0) return -1;
    int failed = H5Aread(attribute, H5T_NATIVE_INT64, value) < 0;
    H5Tclose(type);
    H5Aclose(attribute);
    return failed ? -1 : 0;
}

static int copy_text(char *value, size_t room, const char *text, size_t n)
{
    if (n >= room) return -1;
    memcpy(value, text, n);
    value[n] = '\0';
    return 0;
}

enum { MOST_TEXT = 1 << 16 };

int h5_read_text(hid_t object, const char *name, char *value, size_t room)
{
    hid_t type, attribute = open_attribute(object, name, H5T_STRING, &type);
    int status = -1;

    if (attribute < 0) return -1;
    if (H5Tis_variable_str(type) > 0) {                       /* as h5py writes them */
        char *text = NULL;
        hid_t memory = H5Tcopy(H5T_C_S1);
        H5Tset_size(memory, H5T_VARIABLE);
        H5Tset_cset(memory, H5Tget_cset(type));
        if (H5Aread(attribute, memory, &text) >= 0 && text) status = copy_text(value, room, text, strlen(text));
        H5free_memory(text);
        H5Tclose(memory);
    } else {
        const size_t n = H5Tget_size(type);   /* with its padding */
        char *text = n <= MOST_TEXT ? xmalloc(n + 1) : NULL;
        if (text && H5Aread(attribute, type, text) >= 0) status = copy_text(value, room, text, strnlen(text, n));
        free(text);
    }
    H5Tclose(type);
    H5Aclose(attribute);
    return status;
}
