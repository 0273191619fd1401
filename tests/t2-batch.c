/* What a micro-batch of samples means (batch.h): each token predicts the next and sees its own sample; rows past the
 * samples that count are padding, whatever the batch held before. */
#include "src/model/batch.h"
#include "tests/lib/tap.h"

#include <string.h>

int main(void)
{
    const int32_t samples[] = {1, 2, 3, 4, 5, 6, -1, 8};
    const int32_t ids[] = {1, 2, 3, 5, 6, -1, -1, -1}, targets[] = {2, 3, 4, 6, -1, 8, -1, -1};
    token_batch b;

    batch_init(&b, 8);
    memset(b.ids, 7, 8 * sizeof *b.ids);
    memset(b.targets, 7, 8 * sizeof *b.targets);
    batch_samples(&b, samples, 2, 2, 3);
    ok(!memcmp(b.ids, ids, sizeof ids) && !memcmp(b.targets, targets, sizeof targets), "two samples of three tokens");
    ok(b.n_counted == 5, "five of their targets count (%lld)", (long long)b.n_counted);
    const int32_t positions[] = {0, 1, 2, 0, 1, 2, 0, 1};
    ok(!memcmp(b.positions, positions, sizeof positions) && b.n_segments == 2 && b.segments[0].row == 0 &&
           b.segments[0].n_rows == 3 && b.segments[1].row == 3 && b.segments[1].n_rows == 3,
       "positions begin anew with each, and each sees itself alone");
    batch_samples(&b, samples, 2, 1, 3);
    ok(b.ids[2] == 3 && b.ids[3] == -1 && b.targets[2] == 4 && b.targets[3] == -1 && b.n_counted == 3,
       "the second is padding");
    batch_samples(&b, samples, 2, -4, 3);
    ok(b.ids[0] == -1 && b.targets[0] == -1 && b.targets[7] == -1 && b.n_counted == 0, "nothing counts");
    const int32_t documents[] = {4, 9, 5, 6, 6, 9, 9, 3};       /* of two samples; 9 ends a document */
    const int32_t restarted[] = {0, 1, 0, 0, 1, 2}, as_before[] = {0, 1, 2, 0, 1, 2};
    const attend_segment apart[] = {{0, 2, 0, 2}, {2, 1, 2, 1}, {3, 3, 3, 3}};
    batch_samples(&b, documents, 2, 2, 3);
    b.ids[3] = 6, b.ids[4] = 6, b.ids[5] = 9;
    batch_documents(&b, 2, 3, 9, false);
    ok(!memcmp(b.positions, as_before, sizeof as_before), "documents apart, positions as they were");
    batch_documents(&b, 2, 3, 9, true);
    ok(b.n_segments == 3 && !memcmp(b.segments, apart, sizeof apart) &&
           !memcmp(b.positions, restarted, sizeof restarted),
       "a document ends with its end, or with the sample; the next begins at position 0");
    batch_free(&b);
    return tap_done();
}
