/* encode_inputs.c: the inputs of encode.h, looked at before anything is touched: whether they are text, how many bytes;
 * pipes are copied to where every rank can open them. */
#include "src/base/files.h"
#include "src/corpus/encode_parts.h"

#include <stdlib.h>
#include <string.h>

enum { HUGE_DOCUMENT = 1 << 26 };             /* bytes of one document in a file, from which on it is warned about */

/* What other ranks, or another opening, would not find under the same name. */
static bool is_private(const char *path)
{
    static const char *const begins[] = {"/dev/stdin", "/dev/fd/", "/proc/self/"};

    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        if (strncmp(path, begins[i], strlen(begins[i])) == 0) return true;
    return strcmp(path, "-") == 0;
}

char *encode_input_path(const encode_options *o, const encode_parts *p, int i)
{
    return p->inputs[i].is_copied ? xasprintf("%s/input-%05d", p->directory, i) : xstrdup(o->inputs[i]);
}

static int look_at(const encode_options *o, encode_parts *p, int i, moai_error *err)
{
    char *path = encode_input_path(o, p, i);
    text_file *f = text_open_as(path, o->inputs[i], &o->format, err);
    const int status = f ? text_judge(f, err) : -1;

    if (status == 0) {
        p->inputs[i].n_bytes = text_bytes(f);
        p->inputs[i].is_sequential = text_sequential(f);
        p->inputs[i].is_undivided = text_undivided(f);
        p->inputs[i].is_jsonl = text_is_jsonl(o->inputs[i], &o->format);
    }
    text_close(f);
    free(path);
    return status;
}

static int look_at_files(const encode_options *o, int world, encode_parts *p, moai_error *err)
{
    int n_huge = 0, first = 0;

    for (int i = 0; i < o->n_inputs; i++) {
        encode_input *in = &p->inputs[i];
        in->is_copied = !text_reopens(o->inputs[i]) || (world > 1 && is_private(o->inputs[i]));
        if (!in->is_copied && look_at(o, p, i, err) != 0) return -1;
        if (in->is_undivided && in->n_bytes > HUGE_DOCUMENT && n_huge++ == 0) first = i;
    }
    if (n_huge > 0)
        warn("%s%s: more than %d MiB, and one document, which is held in memory whole: --document_separator divides a "
             "text, --format jsonl makes a document of each line of JSON",
             o->inputs[first], n_huge > 1 ? " and others" : "", HUGE_DOCUMENT >> 20);
    return 0;
}

static int copy_inputs(const encode_options *o, encode_parts *p, moai_error *err)
{
    int status = 0;

    for (int i = 0; status == 0 && i < o->n_inputs; i++) {
        if (!p->inputs[i].is_copied) continue;
        char *copy = encode_input_path(o, p, i);
        status = text_spool(o->inputs[i], copy, &o->format, err);
        free(copy);
        if (status == 0) status = look_at(o, p, i, err);
    }
    return status;
}

/* What rank 0 knows, or why it does not, onto every rank. */
static int share(const encode_options *o, const comm *world, encode_parts *p, int status, moai_error *err)
{
    status = comm_agree(world, status != 0, err);
    if (status == 0) comm_broadcast(world, p->inputs, (size_t)o->n_inputs * sizeof *p->inputs, DT_U8, 0);
    return status;
}

int encode_look(const encode_options *o, const comm *world, encode_parts *p, moai_error *err)
{
    p->inputs = xmalloc((size_t)o->n_inputs * sizeof *p->inputs);
    return share(o, world, p, world->rank == 0 ? look_at_files(o, world->size, p, err) : 0, err);
}

int encode_copy(const encode_options *o, const comm *world, encode_parts *p, moai_error *err)
{
    int n = 0;

    for (int i = 0; i < o->n_inputs; i++) n += p->inputs[i].is_copied;
    return n == 0 ? 0 : share(o, world, p, world->rank == 0 ? copy_inputs(o, p, err) : 0, err);
}
