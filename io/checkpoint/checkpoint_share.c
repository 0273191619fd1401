/* checkpoint_share.c: a checkpoint's manifest, read by one rank, on its way to the others; see checkpoint_manifest.h.
 * A piece names its tensor by number, so that names and shapes travel once. */
#include "io/checkpoint/checkpoint_manifest.h"
#include "src/base/pack.h"

#include <stdlib.h>
#include <string.h>

static void pack_meta(pack *p, const checkpoint_meta *m)
{
    checkpoint_meta flat = *m;

    flat.run_json = flat.state_json = flat.base = NULL;
    pack_bytes(p, &flat, sizeof flat);
    pack_text(p, m->run_json);
    pack_text(p, m->state_json);
    pack_text(p, m->base);
}

static void unpack_meta(unpack *u, checkpoint_meta *m)
{
    unpack_bytes(u, m, sizeof *m);
    m->run_json = unpack_text(u);
    m->state_json = unpack_text(u);
    m->base = unpack_text(u);
}

static void pack_tensors(pack *p, const checkpoint_manifest *m)
{
    pack_int(p, m->n_tensors);
    for (int i = 0; i < m->n_tensors; i++) {
        pack_int(p, m->tensors[i].state);
        pack_text(p, m->tensors[i].name);
        pack_int(p, m->tensors[i].rows);
        pack_int(p, m->tensors[i].cols);
    }
}

static void unpack_tensors(unpack *u, checkpoint_manifest *m)
{
    m->n_tensors = (int)unpack_int(u);
    m->tensors = xmalloc((size_t)m->n_tensors * sizeof *m->tensors);
    m->names = xmalloc((size_t)m->n_tensors * sizeof *m->names);
    for (int i = 0; i < m->n_tensors; i++) {
        m->tensors[i].state = (int)unpack_int(u);
        m->tensors[i].name = m->names[i] = unpack_text(u);
        m->tensors[i].rows = unpack_int(u);
        m->tensors[i].cols = unpack_int(u);
    }
}

static void pack_piece(pack *p, int number, const piece *from)
{
    pack_bytes(p, &number, sizeof number);
    pack_bytes(p, &from->index, sizeof from->index);
    pack_bytes(p, &from->at, sizeof from->at);
    pack_bytes(p, &from->address, sizeof from->address);
    pack_bytes(p, from->xxh3, sizeof from->xxh3);
    pack_bytes(p, &from->block_rows, sizeof from->block_rows);
    pack_bytes(p, from->blocks, (size_t)piece_n_blocks(from) * sizeof *from->blocks);
}

static void unpack_piece(unpack *u, const checkpoint_manifest *m, piece *to)
{
    int number;

    unpack_bytes(u, &number, sizeof number);
    const stored_tensor *t = &m->tensors[number];
    *to = (piece){.state = t->state, .name = m->names[number], .rows = t->rows, .cols = t->cols};
    unpack_bytes(u, &to->index, sizeof to->index);
    unpack_bytes(u, &to->at, sizeof to->at);
    unpack_bytes(u, &to->address, sizeof to->address);
    unpack_bytes(u, to->xxh3, sizeof to->xxh3);
    unpack_bytes(u, &to->block_rows, sizeof to->block_rows);
    if (!to->block_rows) return;
    to->blocks = xmalloc((size_t)piece_n_blocks(to) * sizeof *to->blocks);
    unpack_bytes(u, to->blocks, (size_t)piece_n_blocks(to) * sizeof *to->blocks);
}

/* The number of each piece's tensor, file by file; caller frees. */
static int *number_tensors(const checkpoint_manifest *m)
{
    int64_t *first = xmalloc((size_t)(m->n_files + 1) * sizeof *first);

    for (int i = 0; i < m->n_files; i++) first[i + 1] = first[i] + m->files[i].n;
    int *tensors = xmalloc((size_t)first[m->n_files] * sizeof *tensors);
    for (int i = 0; i < m->n_tensors; i++)
        for (int k = 0; k < m->tensors[i].n; k++) {
            const struct piece_ref *r = &m->tensors[i].refs[k];
            tensors[first[r->file] + (r->p - m->files[r->file].list)] = i;
        }
    free(first);
    return tensors;
}

static void pack_files(pack *p, const checkpoint_manifest *m)
{
    int *tensors = number_tensors(m), *next = tensors;

    pack_int(p, m->n_files);
    for (int i = 0; i < m->n_files; i++) {
        const piece_file *f = &m->files[i];
        pack_text(p, f->name);
        pack_int(p, f->bytes);
        pack_bytes(p, f->structure_xxh3, sizeof f->structure_xxh3);
        pack_int(p, f->n);
        for (int k = 0; k < f->n; k++) pack_piece(p, *next++, &f->list[k]);
    }
    free(tensors);
}

static void unpack_files(unpack *u, checkpoint_manifest *m)
{
    m->n_files = (int)unpack_int(u);
    m->files = xmalloc((size_t)m->n_files * sizeof *m->files);
    for (int i = 0; i < m->n_files; i++) {
        piece_file *f = &m->files[i];
        f->name = unpack_text(u);
        f->bytes = unpack_int(u);
        unpack_bytes(u, f->structure_xxh3, sizeof f->structure_xxh3);
        f->n = (int)unpack_int(u);
        f->list = xmalloc((size_t)f->n * sizeof *f->list);
        for (int k = 0; k < f->n; k++) unpack_piece(u, m, &f->list[k]);
    }
}

static void pack_small(pack *p, const checkpoint_manifest *m)
{
    pack_int(p, m->n_small);
    for (int i = 0; i < m->n_small; i++) {
        pack_text(p, m->small[i].name);
        pack_int(p, m->small[i].bytes);
        pack_bytes(p, m->small[i].xxh3, sizeof m->small[i].xxh3);
    }
}

static void unpack_small(unpack *u, checkpoint_manifest *m)
{
    m->n_small = (int)unpack_int(u);
    m->small = xmalloc((size_t)m->n_small * sizeof *m->small);
    for (int i = 0; i < m->n_small; i++) {
        m->small[i].name = unpack_text(u);
        m->small[i].bytes = unpack_int(u);
        unpack_bytes(u, m->small[i].xxh3, sizeof m->small[i].xxh3);
    }
}

void manifest_pack(pack *p, const checkpoint_manifest *m)
{
    pack_text(p, m->dir);
    pack_text(p, m->saved_at);
    pack_meta(p, &m->meta);
    pack_tensors(p, m);
    pack_files(p, m);
    pack_small(p, m);
}

/* A tensor's pieces stay with rank 0, which has seen that they tile it. */
void manifest_unpack(unpack *u, checkpoint_manifest *m)
{
    *m = (checkpoint_manifest){.dir = unpack_text(u)};
    m->saved_at = unpack_text(u);
    unpack_meta(u, &m->meta);
    unpack_tensors(u, m);
    unpack_files(u, m);
    unpack_small(u, m);
}

int manifest_load_shared(checkpoint_manifest *m, const char *dir, bool with_model, const comm *world, moai_error *err)
{
    int32_t fault = 0;
    pack p = {0};

    if (world->rank == 0) fault = -manifest_load(m, dir, err);
    if (world->rank == 0 && fault == 0 && with_model && (fault = -manifest_model(m, &m->meta.model, err)) != 0)
        manifest_unload(m);
    comm_broadcast(world, &fault, 1, DT_I32, 0);
    if (fault != 0) {
        comm_broadcast(world, err, sizeof *err, DT_U8, 0);
        return -fault;
    }
    if (world->size == 1) return 0;
    if (world->rank == 0) manifest_pack(&p, m);
    comm_broadcast_bytes(world, &p.bytes, &p.n_bytes, 0);
    unpack u = unpack_of(p.bytes, p.n_bytes);
    if (world->rank != 0) manifest_unpack(&u, m);
    free(p.bytes);
    return 0;
}

int checkpoint_open(checkpoint_manifest **to, const char *dir, const comm *world, moai_error *err)
{
    checkpoint_manifest *m = xmalloc(sizeof *m);
    const int rc = manifest_load_shared(m, dir, true, world, err);

    *to = rc == 0 ? m : NULL;
    if (rc != 0) free(m);
    return rc;
}

const checkpoint_meta *checkpoint_get_meta(const checkpoint_manifest *m) { return &m->meta; }

void checkpoint_close(checkpoint_manifest *m)
{
    if (m) manifest_unload(m);
    free(m);
}
