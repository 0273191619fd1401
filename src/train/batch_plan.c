/* batch_plan.c: see batch_plan.h */
#include "src/train/batch_plan.h"

#define KEYS_OF batch_options
#include "src/config/key_rows.h"

static const key_choice modes[] = {{"pretrain", MODE_PRETRAIN}, {"sft", MODE_SFT}, {NULL, 0}};
static const key_spec rows[] = {
    CHOICE(mode, "pretrain", modes,
           "pretrain: on all tokens of the data; sft: on examples, each by itself, in those of `moai_tokenize chat` on "
           "their trained tokens alone", FIXED),
    BOOL(packing, "true", "sft: as many examples in a sample as it takes; else each in one of its own", FIXED),
    ROW(KEY_INT, per_device_train_batch_size, "1", .alias = "batch_size", .min = 1, .max = 65536,
        .help = "samples per micro-batch"),
    INT(gradient_accumulation_steps, "1", 1, 1 << 20, "micro-batches per step"),
    INT(global_batch_size, "0", 0, 1 << 30, "samples per step; fixes the accumulation; 0: batch x accumulation x DP",
        CONTENT),
    BOOL(document_mask, "false", "attention stays within a document", FIXED),
    BOOL(reset_positions, "true", "with document_mask, positions begin anew in each document", FIXED),
};
const key_table batch_keys = KEY_TABLE(rows);

enum { MOST_ACCUMULATION = 1 << 20, MOST_SAMPLES = 1 << 30 };  /* as of the keys; tokens a step then fit an int64_t */

int batch_settle(batch_plan *b, const batch_options *o, int dp, moai_error *err)
{
    const int64_t once = o->per_device_train_batch_size * dp;

    *b =
        (batch_plan){.micro_batch = o->per_device_train_batch_size, .accumulation = o->gradient_accumulation_steps};
    if (o->global_batch_size) {
        if (o->global_batch_size % once != 0)
            return error_set(
                err, "global_batch_size %lld is not a multiple of per_device_train_batch_size %lld x data_parallel %d",
                (long long)o->global_batch_size, (long long)o->per_device_train_batch_size, dp);
        b->accumulation = o->global_batch_size / once;
        if (b->accumulation > MOST_ACCUMULATION)
            return error_set(err, "global_batch_size %lld is %lld micro-batches a step, more than %d",
                             (long long)o->global_batch_size, (long long)b->accumulation, MOST_ACCUMULATION);
    }
    b->global = once * b->accumulation;
    if (b->global > MOST_SAMPLES)
        return error_set(err, "%lld samples a step, more than %d: per_device_train_batch_size %lld x accumulation %lld "
                         "x data_parallel %d", (long long)b->global, MOST_SAMPLES, (long long)b->micro_batch,
                         (long long)b->accumulation, dp);
    return 0;
}
