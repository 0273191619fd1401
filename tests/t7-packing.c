/* t7-packing.c: examples into samples (packing.h): each once, none cut, as best-fit decreasing puts them; and what a
 * packed dataset gives of marked shards. */
#include "io/data/loader.h"
#include "io/data/packing.h"
#include "tests/lib/shards.h"
#include "tests/lib/tap.h"

#include <sys/stat.h>

/* The same by looking at every sample: of those with the least room that takes an example, the one used last. */
static void pack_plainly(int64_t *sample_of, int64_t *n_samples, const int32_t *lengths, int64_t n, int64_t capacity)
{
    int64_t *room = xmalloc((size_t)n * sizeof *room), *used = xmalloc((size_t)n * sizeof *used), now = 0;

    *n_samples = 0;
    for (int64_t i = 0; i < n; i++) sample_of[i] = -1;
    for (int64_t length = capacity; length > 0; length--)
        for (int64_t i = 0; i < n; i++) {
            int64_t best = -1;
            if (lengths[i] != length) continue;
            for (int64_t s = 0; s < *n_samples; s++)
                if (room[s] >= length &&
                    (best < 0 || room[s] < room[best] || (room[s] == room[best] && used[s] > used[best])))
                    best = s;
            if (best < 0) best = (*n_samples)++, room[best] = capacity;
            room[best] -= length;
            used[best] = now++;
            sample_of[i] = best;
        }
    free(room);
    free(used);
}

static void check_random(uint64_t seed, int64_t n, int64_t capacity)
{
    int32_t *lengths = xmalloc((size_t)n * sizeof *lengths);
    int64_t *wanted = xmalloc((size_t)n * sizeof *wanted), n_samples, n_wrong = 0, n_placed = 0, used = 0;

    for (int64_t i = 0; i < n; i++) {
        const double u = rng_uniform(seed, (uint64_t)i);
        lengths[i] = (int32_t)((double)(capacity + 1) * u * (i % 3 ? u * u : 1));
        n_placed += lengths[i] > 0;
        used += lengths[i];
    }
    packing p = packing_make(lengths, n, capacity, true);
    pack_plainly(wanted, &n_samples, lengths, n, capacity);
    for (int64_t s = 0; s < p.n_samples; s++) {
        int64_t sum = 0;
        for (int64_t k = p.begin[s]; k < p.begin[s + 1]; k++) {
            sum += lengths[p.list[k]];
            n_wrong += wanted[p.list[k]] != s;
            wanted[p.list[k]] = -1;
        }
        n_wrong += sum > capacity || sum == 0;
    }
    ok(n_wrong == 0 && p.n_samples == n_samples && p.begin[p.n_samples] == n_placed,
       "%lld examples into %lld samples of %lld, %.1f %% full, as found by looking at each: %lld faults", (long long)n,
       (long long)p.n_samples, (long long)capacity,
       p.n_samples ? 100 * (double)used / (double)(p.n_samples * capacity) : 100, (long long)n_wrong);
    packing_free(&p);
    p = packing_make(lengths, n, capacity, false);
    int64_t next = 0;
    for (int64_t i = 0; i < n; i++)
        if (lengths[i] > 0) n_wrong += p.list[next] != i || p.begin[next] != next, next++;
    ok(n_wrong == 0 && p.n_samples == n_placed, "or each in one of its own, in their order");
    packing_free(&p);
    free(lengths);
    free(wanted);
}

/* Documents of marked shards in samples of 50: all there is of each, in one piece, and no more. */
static void check_dataset(void)
{
    enum { T = 50 };
    char *dir = in_tmp("packed"), *path = xasprintf("%s/a.h5", dir);
    documents d = random_documents(6000, 70, 300, 4);
    uint8_t *trained = xmalloc((size_t)d.n_tokens), *seen = xmalloc((size_t)d.n_documents), marks[T + 1];
    int32_t ids[T + 1];
    int64_t faults = 0, n_seen = 0, counted = 0;
    pack_said said;
    moai_error err;

    mkdir(dir, 0777);
    for (int64_t i = 0; i < d.n_tokens; i++) trained[i] = rng_uniform(8, (uint64_t)i) < 0.5;
    for (int64_t i = d.begin[3]; i < d.begin[4]; i++) trained[i] = i == d.begin[3];
    write_marked(path, &d, trained, 0, d.n_documents, 300);
    struct stat st;
    CHECK(stat(path, &st) == 0, "%s", path);
    manifest_shard list = {.path = path, .tokens = d.n_tokens, .documents = d.n_documents, .bytes = st.st_size};
    struct manifest_split split = {.name = "train", .list = &list, .n = 1, .tokens = d.n_tokens};
    manifest m = {.info = test_info(300), .dir = dir, .splits = &split, .n_splits = 1};
    m.info.is_marked = true;
    dataset *set = dataset_open(&m, "train", &(dataset_readers){.world = &comm_alone, .parts = 1}, &err);
    CHECK(set && !dataset_pack(set, &(pack_plan){T, true, &said}, &comm_alone, &err), "%s", err.text);
    for (int64_t s = 0; s < dataset_samples(set, T); s++) {
        const sample_size size = dataset_sample_size(set, s, T);
        int64_t n = 0, here = 0;
        CHECK(!dataset_sample(set, s, T, ids, marks, &err), "%s", err.text);
        for (int64_t at = 0, end; at <= T && ids[at] >= 0; at = end) {
            int64_t doc = 0;
            for (end = at + 1; end <= T && ids[end] >= 0 && marks[end] != 2; end++) here += marks[end];
            while (doc < d.n_documents && (seen[doc] || d.begin[doc + 1] - d.begin[doc] != end - at ||
                                           memcmp(d.ids + d.begin[doc], ids + at, (size_t)(end - at) * sizeof *ids) ||
                                           memcmp(trained + d.begin[doc] + 1, marks + at + 1, (size_t)(end - at - 1))))
                doc++;
            faults += doc == d.n_documents || marks[at] != 2;
            if (doc < d.n_documents) seen[doc] = 1, n_seen++;
            n = end;
        }
        faults += here != size.counted || min_i64(n, T) != size.tokens;
        counted += here;
    }
    ok(faults == 0 && n_seen == said.n_examples - said.n_long - said.n_untrained && counted == said.n_counted &&
           !seen[3],
       "%lld documents in %lld samples of a dataset, whole and once, their flags with them; %lld too long and %lld "
       "without a trained token are left out", (long long)n_seen, (long long)dataset_samples(set, T),
       (long long)said.n_long, (long long)said.n_untrained);
    dataset_free(set);
    documents_free(&d);
    free(trained), free(seen), free(path), free(dir);
}

int main(void)
{
    check_random(1, 0, 10);
    check_random(2, 1, 1);
    check_random(3, 300, 64);
    check_random(4, 2000, 63);
    check_random(5, 1500, 4097);
    check_random(6, 900, 300000);
    check_dataset();
    return tap_done();
}
