/* feed.c: see feed.h */
#include "src/train/feed.h"

#include "src/base/watch.h"

void feed_next(loader *l, const moai_grid *grid, int32_t *ids, int64_t n_ids, int64_t *samples, double *waited)
{
    moai_error err;

    watch_files(true);
    const int failed = l ? loader_next(l, ids, samples, waited, &err) : 0;
    watch_files(false);
    CHECK(!failed, "%s", err.text);
    comm_broadcast(&grid->host_tp, ids, (size_t)n_ids, DT_I32, 0);
}
