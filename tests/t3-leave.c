/* A rank's ways out, for t3-process.sh: t3-leave [die | clogged | thread | config | truncate].  Without a word: a world
 * of one rank. */
#include "parallel/comm/grid.h"
#include "tests/lib/tap.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static moai_grid grid;

/* A transport that fails: the message is longer than the room for it. */
static void truncate_message(void)
{
    static float room[100];

    CHECK(grid.pp.size == 2, "run me on 4 ranks");
    comm_request r = grid.pp.rank == 0 ? send_begin(&grid.pp, room, 100, DT_F32, 1, 0)
                                       : recv_begin(&grid.pp, room, 10, DT_F32, 0, 0);
    comm_end(&r);
    comm_barrier(&grid.host_world);
}

static void test_alone(void)
{
    moai_error err = {.text = "plain"};

    ok(grid.world == 1 && grid.rank == 0 && base_process.printer, "a world of one");
    ok(base_process.identity[0] == '\0', "needs no name");
    ok(comm_agree(&grid.host_world, true, &err) == -1 && strcmp(err.text, "plain") == 0, "agrees with itself");
    comm_barrier(&grid.host_world);
    ok(grid.embed.size == 1 && grid.kv.size == 1 && grid.pp.size == 1, "every axis has one rank");
}

/* A standard output that leads to a full pipe, whose reader does not read, with something to flush. */
static void clog_output(void)
{
    const int flags = fcntl(STDOUT_FILENO, F_GETFL);
    char block[4096] = "";

    fcntl(STDOUT_FILENO, F_SETFL, flags | O_NONBLOCK);
    while (write(STDOUT_FILENO, block, sizeof block) > 0) {}
    while (write(STDOUT_FILENO, block, 1) > 0) {}
    fcntl(STDOUT_FILENO, F_SETFL, flags);
    printf("this will not come through\n");
}

/* Another thread finds out, while the main one is inside MPI. */
static void *broken_thread(void *arg)
{
    (void)arg;
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    die("a thread found the pump of %d bar broken", 3);
}

static void die_in_thread(void)
{
    pthread_t thread;

    if (grid.rank == 2) CHECK(pthread_create(&thread, NULL, broken_thread, NULL) == 0, "no thread");
    for (;;) comm_barrier(&grid.host_world);
}

int main(int argc, char **argv)
{
    int world = process_start(&argc, &argv);
    const char *how = argc > 1 ? argv[1] : "alone";

    grid_init(&grid, world == 4 ? (grid_shape){2, 1, 1, 2} : (grid_shape){1, 1, world, 1}, 2);
    base_step = 42;
    if (!strcmp(how, "clogged")) clog_output(), how = "die";
    if (!strcmp(how, "die") && grid.rank == (world > 1 ? 2 : 0)) die("the pump of %d bar failed", 3);
    if (!strcmp(how, "thread")) die_in_thread();
    if (!strcmp(how, "config")) config_error("tensor_parallel %d is not for us", 3);
    if (!strcmp(how, "truncate")) truncate_message();
    if (!strcmp(how, "alone")) test_alone();
    comm_barrier(&grid.host_world);
    if (strcmp(how, "alone")) printf("rank %d is still here\n", grid.rank);
    grid_free(&grid);
    int status = tap_done();
    process_finish();
    return status;
}
