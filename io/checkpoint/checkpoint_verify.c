/* checkpoint_verify.c: reading everything and believing nothing; see checkpoint.h */
#include "io/checkpoint/checkpoint_manifest.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct fault_list {
    void (*report)(void *, const char *fault);
    void *arg;
    int64_t n;
} fault_list;

static void add_fault(void *to, const char *fault)
{
    fault_list *l = to;

#pragma omp critical(checkpoint_fault)
    {
        l->n++;
        if (l->report) l->report(l->arg, fault);
    }
}

/* Work is dealt out one by one: the structure of each file, then each of its pieces. */
typedef struct dealer {
    int part, parts;
    int64_t next;
} dealer;

static bool is_mine(dealer *d) { return d->next++ % d->parts == d->part; }

static void verify_piece(const checkpoint_manifest *m, const piece_file *f, int i, int fd, fault_list *faults)
{
    moai_error err;

    if (piece_scan(fd, m->dir, f, &f->list[i], NULL, NULL, NULL, &err) != 0) add_fault(faults, err.text);
}

static void verify_file(const checkpoint_manifest *m, const piece_file *f, dealer *d, fault_list *faults)
{
    const bool first = is_mine(d);
    int *mine = xmalloc((size_t)f->n * sizeof *mine), n = 0;
    moai_error err;

    for (int i = 0; i < f->n; i++)
        if (is_mine(d)) mine[n++] = i;
    int fd = first || n ? piece_file_open(m->dir, f, &err) : -1;
    if ((first || n) && fd < 0)
        add_fault(faults, err.text);
    else if (first && piece_file_check_structure(fd, m->dir, f, &err) != 0)
        add_fault(faults, err.text);
#pragma omp parallel for schedule(dynamic)
    for (int k = 0; k < n; k++)
        if (fd >= 0) verify_piece(m, f, mine[k], fd, faults);
    if (fd >= 0) close(fd);
    free(mine);
}

static void verify_small(const checkpoint_manifest *m, fault_list *faults)
{
    model_config model;
    moai_error fault;

    for (int i = 0; i < m->n_small; i++)
        if (manifest_check_small(m, &m->small[i], &fault) != 0) add_fault(faults, fault.text);
    if (faults->n > 0) return;
    if (manifest_model(m, &model, &fault) != 0)
        add_fault(faults, fault.text);
    else
        manifest_check_names(m, &model, add_fault, faults);
}

int64_t checkpoint_verify(const char *dir, const comm *world, void (*report)(void *, const char *fault), void *arg,
                          moai_error *err)
{
    fault_list faults = {.report = report, .arg = arg};
    dealer d = {world->rank, world->size, 0};
    checkpoint_manifest m;

    if (manifest_load_shared(&m, dir, false, world, err) != 0) return -1;
    if (world->rank == 0) verify_small(&m, &faults);
    for (int i = 0; i < m.n_files; i++) verify_file(&m, &m.files[i], &d, &faults);
    manifest_unload(&m);
    return faults.n;
}

int checkpoint_check_rest(const checkpoint_manifest *m, int part, int parts, moai_error *err)
{
    int rc = 0;

    for (int i = 0; part == 0 && rc == 0 && i < m->n_small; i++) rc = manifest_check_small(m, &m->small[i], err);
    for (int i = part; rc == 0 && i < m->n_files; i += parts) {
        int fd = piece_file_open(m->dir, &m->files[i], err);
        rc = fd < 0 ? fd : piece_file_check_structure(fd, m->dir, &m->files[i], err);
        if (fd >= 0) close(fd);
    }
    return rc;
}
