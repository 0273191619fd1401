/* bench-manifest [MODEL [TP DP PP [DIR]]]: the manifest of a checkpoint that so many ranks wrote (8 x 64 x 8), without
 * its data: seconds to write and to read it, and what the other ranks of a run that goes on from it get. */
#include "io/checkpoint/checkpoint.h"
#include "io/checkpoint/checkpoint_manifest.h"
#include "src/base/files.h"
#include "src/base/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static grid_shape size = {8, 1, 64, 8};

/* What the rank would write: the pieces of its share, one behind another. */
static char *entry_of(const model_config *cfg, int rank)
{
    piece_file f = {.name = xasprintf("rank-%05d.h5", rank), .bytes = 4096};
    param_table t;
    moai_grid g;
    int n;

    grid_dry(&g, size, grid_coordinates(size, rank), (int)cfg->num_key_value_heads);
    params_init(&t, cfg, PARAMS_TRAINED, size, g.at, 16);
    share *shares = shares_of(&t, g.data.size, g.data.rank, &n);
    f.list = xmalloc((size_t)(n * adamw_states.n) * sizeof *f.list);
    file_xxh3_text(f.name, strlen(f.name), f.structure_xxh3);
    for (int i = 0; i < n * adamw_states.n; i++) {
        const share *s = &shares[i % n];
        if (t.buckets[s->p->bucket].tied_copy || (s->p->sharing == PARAM_TP_REPLICATED && g.at.tp != 0) ||
            (s->p->sharing == PARAM_KV && g.kv.rank != 0))
            continue;
        const bool more = f.n > 0 && i % n > 0 && s[-1].p == s->p;
        piece *p = &f.list[f.n++];
        *p = (piece){.state = i / n, .name = xstrdup(s->p->name), .index = more ? p[-1].index + 1 : 0,
                     .rows = s->p->rows, .cols = s->p->cols, .at = s->at, .address = f.bytes};
        file_xxh3_text(p, sizeof *p, p->xxh3);
        f.bytes += rect_n_elem(s->at) * (int64_t)sizeof(float);
    }
    char *entry = manifest_entry(&f);
    piece_file_free(&f);
    free(shares);
    params_free(&t);
    return entry;
}

static double memory(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1e6;
}

int main(int argc, char **argv)
{
    const char *model = argc > 1 ? argv[1] : "configs/moai-3b.json";
    char *dir = xasprintf("%s/bench-manifest", argc > 5 ? argv[5] : getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    char *config = xasprintf("%s/config.json", dir);
    pack entries = {0}, packed = {0};
    checkpoint_manifest m, other;
    checkpoint_meta meta = {0};
    moai_error err;

    if (argc > 4) size = (grid_shape){atoi(argv[2]), 1, atoi(argv[3]), atoi(argv[4])};
    meta.layout = size;
    CHECK(model_config_read(&meta.model, model, &err) == 0 && dir_make(dir, &err) == 0 &&
              file_copy(model, config, &err) == 0, "%s", err.text);
    const int ranks = size.tp * size.dp * size.pp;
    for (int i = 0; i < ranks; i++) {
        char *entry = entry_of(&meta.model, i);
        pack_bytes(&entries, entry, strlen(entry) + 1);
        free(entry);
    }
    double begin = now_seconds();
    CHECK(manifest_save(dir, &meta, entries.bytes, entries.n_bytes, &err) == 0, "%s", err.text);
    const double written = now_seconds() - begin, before = memory();
    begin = now_seconds();
    CHECK(manifest_load(&m, dir, &err) == 0, "%s", err.text);
    const double read = now_seconds() - begin;
    begin = now_seconds();
    manifest_pack(&packed, &m);
    const double told = now_seconds() - begin;
    begin = now_seconds();
    unpack u = unpack_of(packed.bytes, packed.n_bytes);
    manifest_unpack(&u, &other);
    const double heard = now_seconds() - begin;

    int64_t n_pieces = 0;
    for (int i = 0; i < m.n_files; i++) n_pieces += m.files[i].n;
    printf("manifest of %d ranks, %lld pieces: %.1f MB, written in %.2f s, read in %.2f s (%.2f GB of memory); to the others go "
           "%.1f MB, packed in %.2f s, unpacked in %.2f s\n",
           ranks, (long long)n_pieces, (double)entries.n_bytes / 1e6, written, read, memory() - before,
           (double)packed.n_bytes / 1e6, told, heard);
    manifest_unload(&m);
    manifest_unload(&other);
    CHECK(dir_remove(dir, &err) == 0, "%s", err.text);
    free(entries.bytes);
    free(packed.bytes);
    free(config);
    free(dir);
    return 0;
}
