/* run: mpirun -np 4 %s   Host memory is shared: unequal stages fit into what they need together. */
#include "src/train/fit.h"
#include "tests/lib/tap.h"

int main(int argc, char **argv)
{
    char *flags[] = {argv[0], "--model", "configs/nano.json", "--data", "none", "--device", "cpu",
                     "--pipeline_parallel", "4", "--gradient_checkpointing", "none", "--seq_length", "128", NULL};
    const grid_shape size = {1, 1, 1, 4};
    size_t sum = 0, most = 0, copy = 0;
    model_config cfg;
    batch_plan batch;
    run_config run;
    plan_memory p;
    moai_error err;

    CHECK(process_start(&argc, &argv) == 4, "run me on 4 ranks");
    CHECK(run_config_read(&run, sizeof flags / sizeof *flags - 1, flags, &err) == 0, "%s", err.text);
    CHECK(model_config_read(&cfg, run.model, &err) == 0, "%s", err.text);
    CHECK(batch_settle(&batch, &run.batch, 1, &err) == 0, "%s", err.text);
    for (int stage = 0; stage < 4; stage++) {
        plan_stage(&p, &run, &cfg, size, &batch, stage, false);
        sum += p.total, most = p.total > most ? p.total : most, copy = p.copy;
    }
    ok(4 * most > sum && copy > 0, "the largest stage takes %zu of %zu bytes, with its copy for saves", most, sum);

    fit_memory memory = {.bytes = sum / 4, .all = sum / 4, .host = {.available = sum, .total = sum}};
    ok(fit_settle(&run, &cfg, size, &batch, memory, &err) == 0, "what they need together is enough");
    memory.host.available--;
    ok(fit_settle(&run, &cfg, size, &batch, memory, &err) == -1 && err.config, "a byte less is not: %.80s", err.text);
    memory.all = most;
    ok(fit_settle(&run, &cfg, size, &batch, memory, &err) == -1 && !err.config, "others hold it: status 1");

    memory = (fit_memory){.gpu = true, .bytes = (size_t)1 << 40, .all = (size_t)1 << 40,
                          .host = {1000, (size_t)1 << 40}};
    ok(fit_settle(&run, &cfg, size, &batch, memory, &err) == -1 && !err.config, "a GPU's copies: %.80s", err.text);
    memory.host.total = 1000;
    ok(fit_settle(&run, &cfg, size, &batch, memory, &err) == -1 && err.config,
       "and no start will do on a host so small");
    run.async_save = false;
    ok(fit_settle(&run, &cfg, size, &batch, memory, &err) == 0, "without copies it does");
    run_config_free(&run);
    const int status = tap_done();
    process_finish();
    return status;
}
