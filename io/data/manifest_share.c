/* manifest_share.c: see loader.h */
#include "io/data/loader.h"
#include "src/base/pack.h"

#include <stdlib.h>
#include <string.h>

static void pack_manifest(pack *p, const manifest *m)
{
    pack_bytes(p, &m->info, sizeof m->info);
    pack_text(p, m->dir);
    pack_text(p, m->tokenizer);
    pack_int(p, m->n_splits);
    for (int i = 0; i < m->n_splits; i++) {
        const struct manifest_split *split = &m->splits[i];
        pack_text(p, split->name);
        pack_int(p, split->tokens);
        pack_int(p, split->n);
        for (int k = 0; k < split->n; k++) {
            manifest_shard s = split->list[k];
            pack_text(p, s.path);
            s.path = NULL;
            pack_bytes(p, &s, sizeof s);
        }
    }
}

static void unpack_split(unpack *u, struct manifest_split *split)
{
    split->name = unpack_text(u);
    split->tokens = unpack_int(u);
    split->n = (int)unpack_int(u);
    split->list = xmalloc((size_t)split->n * sizeof *split->list);
    for (int k = 0; k < split->n; k++) {
        char *path = unpack_text(u);
        unpack_bytes(u, &split->list[k], sizeof split->list[k]);
        split->list[k].path = path;
    }
}

static void unpack_manifest(unpack *u, manifest *m)
{
    *m = (manifest){0};
    unpack_bytes(u, &m->info, sizeof m->info);
    m->dir = unpack_text(u);
    m->tokenizer = unpack_text(u);
    m->n_splits = (int)unpack_int(u);
    m->splits = xmalloc((size_t)m->n_splits * sizeof *m->splits);
    for (int i = 0; i < m->n_splits; i++) unpack_split(u, &m->splits[i]);
}

void manifest_share(manifest *m, const comm *world)
{
    pack p = {0};

    if (world->rank == 0) pack_manifest(&p, m);
    comm_broadcast_bytes(world, &p.bytes, &p.n_bytes, 0);
    unpack u = unpack_of(p.bytes, p.n_bytes);
    if (world->rank != 0) unpack_manifest(&u, m);
    free(p.bytes);
}
