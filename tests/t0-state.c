/* What a run remembers from step to step: the loss scale, the window that spikes are judged by, the samples left out;
 * and that all of it comes back from a checkpoint's text. */
#include "src/config/keys.h"
#include "src/train/run_state.h"
#include "tests/lib/tap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static run_config run_with(double zscore, int64_t window)
{
    return (run_config){.fp16 = true,
                        .loss_scale.initial_loss_scale = 1024,
                        .loss_scale.min_loss_scale = 4,
                        .loss_scale.loss_scale_window = 3,
                        .spike.loss_spike_zscore = zscore,
                        .spike.loss_spike_window = window};
}

static void test_loss_scale(void)
{
    /* o: overflow, c: clean */
    static const char *const story = "ccc"
                                     "cco"
                                     "cc"
                                     "o"
                                     "cccccc"
                                     "oooooooooo"
                                     "ccc";
    static const double want[] = {1024, 1024, 2048, 2048, 2048, 1024, 1024, 1024, 512, 512, 512, 1024, 1024, 1024,
                                  2048, 1024, 512,  256,  128,  64,   32,   16,   8,   4,   4,   4,    4,    8};
    const run_config run = run_with(0, 2);
    bool as_wanted = true;

    loss_scale s = loss_scale_start(&run.loss_scale, true);
    for (int i = 0; story[i]; i++) {
        loss_scale_update(&s, &run.loss_scale, true, story[i] == 'o');
        as_wanted = as_wanted && s.value == want[i];
        if (s.value != want[i]) printf("# step %d: %g, wanted %g\n", i, s.value, want[i]);
    }
    ok(as_wanted && strlen(story) == sizeof want / sizeof *want,
       "doubles after 3 clean steps, halves down to its least");
    for (int i = 0; i < 1000; i++) loss_scale_update(&s, &run.loss_scale, true, false);
    ok(s.value == 0x1p40, "ends its growth at 2^40: %g", s.value);
    s = loss_scale_start(&run.loss_scale, false);
    loss_scale_update(&s, &run.loss_scale, false, true);
    ok(s.value == 1, "without fp16 nothing is scaled: %g", s.value);
}

static void test_judgement(void)
{
    const run_config run = run_with(3, 4);
    run_config either = run;
    spike_watch w = spike_watch_start(&run.spike);

    for (int i = 0; i < 3; i++) spike_remember(&w, i, 1);
    ok(!spike_judge(&w, &run.spike, 1e9, 1).measure, "nothing is judged before the window is full");
    spike_remember(&w, 3, 1);
    /* 0 1 2 3: mean 1.5, deviation sqrt(5/3) */
    const spike s = spike_judge(&w, &run.spike, 6, 1);
    ok_close(s.zscore, (6 - 1.5) / sqrt(5.0 / 3), 1e-14, 0, "z-score of 6 after 0 1 2 3");
    ok(s.measure && strcmp(s.measure, "loss") == 0 && s.mean == 1.5 && s.value == 6, "it is a spike of the loss");
    ok(!spike_judge(&w, &run.spike, 5, 1).measure && !spike_judge(&w, &run.spike, -100, 1).measure,
       "2.7 is none, nor is a low loss");
    ok(!spike_judge(&w, &run.spike, NAN, 1).measure && !spike_judge(&w, &run.spike, 1, INFINITY).measure,
       "what is not finite is not judged");
    ok(!spike_judge(&w, &run.spike, 1, 50).measure, "of the gradient norm only when asked");
    either.spike.loss_spike_measure = SPIKE_EITHER;
    const spike of_norm = spike_judge(&w, &either.spike, 1, 1.01);
    ok(of_norm.measure && strcmp(of_norm.measure, "grad_norm") == 0, "the gradient norm");
    ok_close(of_norm.zscore, 10, 1e-9, 0, "a window at rest counts as deviating by 0.1 % of its mean");
    spike_remember(&w, 7, 1);
    ok(spike_judge(&w, &run.spike, 12, 1).mean == 3.25, "the oldest falls out: 1 2 3 7");
    spike_remember(&w, NAN, 1);
    spike_remember(&w, 1, INFINITY);
    ok(spike_judge(&w, &run.spike, 12, 1).mean == 3.25, "what is not finite is not remembered");
    for (int i = 0; i < 4; i++) spike_remember(&w, 0, 0);
    left_out_list l = left_out_start();
    const spike why = spike_judge(&w, &run.spike, 1, 1);
    left_out_add(&l, &(left_out_decision){.from = 1, .why = why, .samples = &w.n, .n_samples = 1});
    ok(l.n == 1, "a spike above nothing but zeros is kept too: %lld left out", (long long)l.n);
    left_out_free(&l);
    ok(!spike_judge(&w, &run.spike, 0, 0).measure, "zeros after zeros are none");
    spike_watch_free(&w);
}

static void test_list(void)
{
    static const int64_t first[] = {9, 2, 5}, second[] = {5, 1};
    left_out_list l = left_out_start();
    const spike why = {"loss", 3, 1, 8};

    left_out_add(
        &l, &(left_out_decision){.step = 30, .back_to = 20, .from = 160, .why = why, .samples = first, .n_samples = 3});
    left_out_add(
        &l, &(left_out_decision){.step = 12, .back_to = 10, .from = 80, .why = why, .samples = second, .n_samples = 2});
    static const left_out want[] = {{1, 80}, {2, 160}, {5, 80}, {9, 160}};
    ok(l.n == 4 && memcmp(l.list, want, sizeof want) == 0, "sorted, each once, from the earlier count on");
    ok(left_out_times(&l, 160) == 1 && left_out_times(&l, 0) == 0, "counts how often it went back to a place");
    left_out_free(&l);
}

static void test_text(void)
{
    static const int64_t samples[] = {4, 3};
    const run_config run = run_with(3, 4), narrow = run_with(3, 2), off = run_with(0, 4);
    run_state s = run_state_start(&run), back = run_state_start(&run), small = run_state_start(&narrow),
              none = run_state_start(&off);
    moai_error err = {.text = ""};

    s.scale = (loss_scale){.value = 1.0 / 3, .clean_steps = 2};
    for (int i = 0; i < 7; i++) spike_remember(&s.spikes, sqrt(i), exp(i));
    skip_row_add(&s.skips, 30, false);
    skip_row_add(&s.skips, 31, true);
    left_out_add(
        &s.left_out,
        &(left_out_decision){
            .step = 9, .back_to = 5, .from = 40, .why = {"loss", 3, 1, 8}, .samples = samples, .n_samples = 2});
    char *text = run_state_json(&s, &run);
    int failed = run_state_read(&back, &run, text, "here", &err);
    char *again = run_state_json(&back, &run);
    ok(back.skips.since == 30 && back.skips.n == 2 && back.skips.n_counted == 1, "a row of steps left out among it");
    ok(!failed && strcmp(text, again) == 0, "a state comes back from its text: %s %s", text, err.text);
    const spike a = spike_judge(&s.spikes, &run.spike, 100, 1), b = spike_judge(&back.spikes, &run.spike, 100, 1);
    ok(a.zscore == b.zscore && back.scale.value == 1.0 / 3, "and judges by the same bits: z %.17g and %.17g", a.zscore,
       b.zscore);
    failed = run_state_read(&back, &run, text, "here", &err);
    ok(!failed && back.left_out.n == 2 && json_array_size(back.left_out.decisions) == 1,
       "read twice, a decision is one decision");
    failed = run_state_read(&small, &narrow, text, "here", &err);
    ok(!failed && spike_judge(&small.spikes, &narrow.spike, 100, 1).mean == (sqrt(5) + sqrt(6)) / 2,
       "a smaller window keeps the newest");
    failed = run_state_read(&none, &off, text, "here", &err);
    ok(!failed && none.left_out.n == 2 && none.spikes.n == 0, "who judges no step still leaves the samples out");
    run_state_reset(&back, &run);
    ok(back.scale.value == 1024 && back.spikes.n == 0 && back.left_out.n == 2,
       "back at the start the samples stay out");

    static const char *const damaged[] = {"{\"loss_scale\":{\"value\":0,\"clean_steps\":1}}",
                                          "{\"loss_scale\":{\"value\":2}}",
                                          "{\"spikes\":{\"loss\":[1],\"grad_norm\":[]}}",
                                          "{\"spikes\":{\"loss\":[1],\"grad_norm\":[\"x\"]}}",
                                          "{\"left_out\":[{\"from\":1,\"samples\":[-1]}]}",
                                          "{\"left_out\":{}}",
                                          "{\"skips\":{\"since\":5,\"steps\":2}}",
                                          "{\"skips\":{\"since\":5,\"steps\":2,\"counted\":3}}"};
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++)
        ok(run_state_read(&back, &run, damaged[i], "here", &err) == -1 && strncmp(err.text, "here: ", 6) == 0,
           "refused: %s", err.text);
    free(text), free(again);
    run_state_free(&s), run_state_free(&back), run_state_free(&small), run_state_free(&none);
}

int main(void)
{
    test_loss_scale();
    test_judgement();
    test_list();
    test_text();
    return tap_done();
}
