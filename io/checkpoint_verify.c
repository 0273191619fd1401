/* checkpoint_verify.c: reading everything and believing nothing; see checkpoint.h */
#include "pieces.h"

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

static void verify_file(const checkpoint_manifest *m, const piece_file *f, fault_list *faults)
{
    char *path = xasprintf("%s/%s", m->dir, f->name), hex[33];
    moai_error open_error;
    int fd = piece_file_open(m->dir, f, &open_error);

    if (fd < 0)
        add_fault(faults, open_error.text);
    else if (piece_file_hash_structure(fd, path, f, hex, &open_error) != 0)
        add_fault(faults, open_error.text);
    else if (strcmp(hex, f->structure_xxh3) != 0) {
        error_set(&open_error, "%s: damaged outside the pieces: XXH3 is %s, the manifest says %s", path, hex,
                  f->structure_xxh3);
        add_fault(faults, open_error.text);
    }
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < f->n; i++) {
        moai_error err;
        if (fd >= 0 && piece_scan(fd, m->dir, f, &f->list[i], NULL, NULL, &err) != 0) add_fault(faults, err.text);
    }
    if (fd >= 0) close(fd);
    free(path);
}

int64_t checkpoint_verify(const char *dir, void (*report)(void *, const char *fault), void *arg, moai_error *err)
{
    fault_list faults = {.report = report, .arg = arg};
    checkpoint_manifest m;
    model_config model;
    moai_error fault;

    if (manifest_load(&m, dir, err) != 0) return -1;
    for (int i = 0; i < m.n_small; i++)
        if (manifest_check_small(&m, &m.small[i], &fault) != 0) add_fault(&faults, fault.text);
    if (faults.n == 0) {
        if (manifest_model(&m, &model, &fault) != 0)
            add_fault(&faults, fault.text);
        else
            manifest_check_names(&m, &model, add_fault, &faults);
    }
    for (int i = 0; i < m.n_files; i++) verify_file(&m, &m.files[i], &faults);
    manifest_unload(&m);
    return faults.n;
}
