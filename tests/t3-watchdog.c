/* run: mpirun -np 4 %s   Who is late, from what the ranks have answered. */
#include "parallel/watch/mail.h"
#include "parallel/watch/watchdog.h"
#include "parallel/watch/watchdog_report.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

enum { WORLD = 4, TIMEOUT = 600 };

static moai_grid grid;
static watch_answer answers[WORLD];

/* Rank 3 is at `phase` for some seconds; all others wait for it over the world. */
static void wait_for_last(const char *phase, double seconds)
{
    for (int r = 0; r < WORLD; r++) {
        answers[r] = (watch_answer){.known = true, .alive = true, .seconds = TIMEOUT + 1};
        answers[r].note = (watch_note){.what = "all_reduce", .axis = "world", .peer = -1, .state = WATCH_WAITS};
    }
    answers[3].note.state = WATCH_ENDED;
    answers[3].seconds = seconds;
    strcpy(answers[3].note.phase, phase);
}

static bool says(const char *error, const char *words)
{
    char *text = watchdog_report(&grid, answers, TIMEOUT, error);
    const bool so = words ? text && strstr(text, words) : !text;

    if (!so) fprintf(stderr, "# %s\n", text ? text : "nothing");
    free(text);
    return so;
}

static void test_late(void)
{
    wait_for_last("forward", TIMEOUT + 1);
    ok(says("", "hang: rank 3 is late; 3 of 4 ranks wait"), "a rank as long in one operation as the others wait: late");
    wait_for_last("forward", 5);
    ok(says("", NULL), "one that got on 5 s ago: busy");
    wait_for_last("reading data", TIMEOUT + 1);
    ok(says("", "rank 3 is late"), "too long at what reading brought: late");
    answers[3].note.files = 1;
    ok(says("", NULL), "files take as long as they take");
    answers[3].alive = false;
    ok(says("", "rank 3 is late"), "unless it is dead");
    static const char *const files[] = {"start", "loading", "saving", "end"};
    for (int i = 0; i < 4; i++) {
        wait_for_last(files[i], 100 * TIMEOUT);
        ok(says("", NULL), "%s takes as long as it takes", files[i]);
    }
    ok(says("rank 0: the network is down", "network is down: rank 3 is late"), "after an error it is told");
    answers[3].alive = false;
    ok(says("", "rank 3 is late"), "one that does not answer: late, whatever it was at");
    wait_for_last("", 0);
    answers[3] = answers[0];
    ok(says("", "all ranks wait for each other; 4 of 4"), "nobody is left to wait for");
}

static void test_apart(void)
{
    wait_for_last("forward", 0);
    for (int r = 2; r < WORLD; r++) answers[r] = (watch_answer){.apart = true};
    ok(says("", "hang: nobody who can be asked is late; 2 of 4 ranks wait"), "a firewall makes nobody late");
    ok(says("", "2 ranks of other hosts cannot be asked"), "but told of");
    answers[1].alive = false;
    ok(says("", "rank 1 is late; 1 of 4"), "the silent one of this host is late");
}

/* What comes by datagram may be anything. */
static void test_any_bytes(void)
{
    wait_for_last("forward", TIMEOUT + 1);
    memset(&answers[3].note, 'x', sizeof answers[3].note);
    answers[3].note = watch_sound(answers[3].note);
    ok(strlen(answers[3].note.what) == 15 && strlen(answers[3].note.axis) == 7 && strlen(answers[3].note.phase) == 15,
       "the texts of a note end");
    ok(says("", "rank 3 is late") && says("", "xxxxxxx of 8680820740569200760 elements from its rank 2021161080, begun"),
       "and it can be told");
}

int main(int argc, char **argv)
{
    moai_error err;

    const int world = process_start(&argc, &argv);
    CHECK(world == WORLD, "run me on 4 ranks");
    grid_init(&grid, (grid_shape){2, 1, 2, 1}, 2);
    CHECK(watchdog_start(&grid, 0, &err) == 0, "%s", err.text);
    char *name = mail_peer_name(&grid, 1);
    ok(strncmp(name, "rank 1 tp1 cp0 pp0 dp0 host ", 28) == 0, "hang_timeout 0: ranks know each other: %s", name);
    free(name);
    watchdog_stop();
    ok(watchdog_start(&grid, TIMEOUT, &err) == 0, "it watches");
    test_late();
    test_apart();
    test_any_bytes();
    watchdog_stop();
    grid_free(&grid);
    const int status = tap_done();
    process_finish();
    return status;
}
