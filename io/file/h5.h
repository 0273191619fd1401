/* h5.h: what every file that calls serial HDF5 needs: its global lock, silence, and its
 * innermost message.  Only io/ includes it. */
#ifndef MOAI_H5_H
#define MOAI_H5_H

#include "src/base/base.h"

#include <hdf5.h>

/* Serial HDF5 keeps global state: hold this lock around every call of the library.  The first lock also silences the
 * library's error printing of this thread and lets files on file systems without flock() be opened. */
void h5_lock(void);
void h5_unlock(void);

/* Fills err with the message and HDF5's innermost reason; lock held.  Always returns -1. */
int h5_fail(moai_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Scalar attributes of an object; strings are fixed-length.  Lock held; 0, or -1 with HDF5's error stack set. */
int h5_write_int(hid_t object, const char *name, int64_t value);
int h5_write_text(hid_t object, const char *name, const char *value);
/* -1 when missing or of another kind, or when the text does not fit */
int h5_read_int(hid_t object, const char *name, int64_t *value);
int h5_read_text(hid_t object, const char *name, char *value, size_t room);

/* Why the library must not open the data set of an open file without a user block (`fd` its descriptor): an extent of
 * its chunks is 0, or it lies in another file; NULL: nothing is known against it.  Lock held. */
const char *h5_dataset_trap(hid_t file, int fd, const char *name);

#endif
