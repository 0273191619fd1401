/* text_spool.c: a copy of what can be read only once; see text.h */
#include "io/text/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int text_spool(const char *path, const char *to, const text_format *format, moai_error *err)
{
    const int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    text_file *f = out < 0 ? NULL : text_open_stream(path, format, err);
    int status = out < 0 ? error_file(err, to) : f ? unpacker_copy_to(f->unpacker, out, to, err) : -1;

    if (status == 0) status = text_judge(f, err);
    if (status == 0) status = unpacker_pass(f->unpacker, err);
    text_close(f);
    if (out >= 0 && close(out) != 0 && status == 0)
        status = error_set(err, "%s: cannot write: %s", to, strerror(errno));
    return status;
}
