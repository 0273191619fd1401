/* process.c: this process as one rank of many: start, identity, and the two ways out; see grid.h */
#include "comm_mpi.h"
#include "grid.h"

#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

/* Leaks are looked for while MPI's modules are still loaded, so that tests/leaks.supp can tell theirs from ours. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
static void leaks_watch(bool on) { on ? __lsan_enable() : __lsan_disable(); }
static void leaks_report(void) { __lsan_do_leak_check(); }
#else
static void leaks_watch(bool on) { (void)on; }
static void leaks_report(void) {}
#endif

static int world_rank, world_size, host_rank, host_ranks = 1, cores_per_rank = 1;
static MPI_Comm host_comm = MPI_COMM_NULL;    /* the ranks of this host */
static process_hooks alone;                   /* the hooks of a single process, put back by process_finish */

static void abort_mpi(int status)
{
    fflush(stdout);
    fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, status);
    _Exit(status);
}

int64_t process_least(int64_t value)
{
    if (world_size > 1) MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_MIN, MPI_COMM_WORLD);
    return value;
}

int process_agree(bool failed, moai_error *err)
{
    const int64_t teller = process_least(failed ? world_rank : world_size);
    const bool all = process_least(failed) == 1;

    if (teller == world_size) return 0;
    if (world_rank == teller && !all) error_set(err, "%s: %s", base_process.identity, err->text);
    if (world_size > 1) MPI_Bcast(err, sizeof *err, MPI_BYTE, (int)teller, MPI_COMM_WORLD);
    return -1;
}

static void leave_mpi(int status)
{
    process_finish();
    exit(status);
}

/* Open MPI's shared-memory transport copies with process_vm_readv where the kernel has it, but does not see that a
 * container forbids the call.  Asking for a copy of one byte of ourselves tells; the user's own setting stands. */
static void avoid_forbidden_copies(void)
{
    char from = 1, to = 0;
    struct iovec local = {&to, 1}, remote = {&from, 1};

    if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) != 1)
        setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
}

/* A container's limit on processor time, in cores; `most` when there is none. */
static int quota_cores(int most)
{
    long quota, period;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");

    if (!f) return most;
    int n = fscanf(f, "%ld %ld", &quota, &period);        /* "200000 100000", or "max 100000" */
    fclose(f);
    if (n != 2 || period <= 0) return most;
    int cores = (int)((quota + period - 1) / period);
    return cores < most ? cores : most;
}

/* The cores that the ranks of this host may run on, all together, against their number. */
static void find_cores(void)
{
    cpu_set_t own, all;

    CPU_ZERO(&own);
    CHECK(sched_getaffinity(0, sizeof own, &own) == 0, "sched_getaffinity failed");
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host_comm);
    MPI_Comm_rank(host_comm, &host_rank);
    MPI_Comm_size(host_comm, &host_ranks);
    MPI_Allreduce(&own, &all, sizeof own, MPI_BYTE, MPI_BOR, host_comm);

    int cores = quota_cores(CPU_COUNT(&all));
    cores_per_rank = cores > host_ranks ? cores / host_ranks : 1;
    if (cores_per_rank > CPU_COUNT(&own)) cores_per_rank = CPU_COUNT(&own);
    comm_mpi_share_cores(host_ranks > cores);
    if (host_ranks > cores) prctl(PR_SET_TIMERSLACK, 1000UL);   /* ns: by default a short sleep takes 50 us longer */
}

int process_start(int *argc, char ***argv)
{
    int provided;
    char host[64] = "?";

    avoid_forbidden_copies();
    leaks_watch(false); /* modules that MPI tries and closes again keep things nobody can name later */
    int code = MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
    leaks_watch(true);
    CHECK(code == MPI_SUCCESS, "MPI does not start");
    CHECK(provided >= MPI_THREAD_FUNNELED, "this MPI allows no threads beside it (level %d)", provided);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world_size);

    alone = base_process;
    base_process.abort_all = abort_mpi;
    base_process.leave = leave_mpi;
    base_process.printer = world_rank == 0;
    gethostname(host, sizeof host - 1);
    if (world_size > 1)
        snprintf(base_process.identity, sizeof base_process.identity, "rank %d host %s", world_rank, host);
    find_cores();
    return world_size;
}

int process_rank(void) { return world_rank; }
int process_world(void) { return world_size; }
int process_cores(void) { return cores_per_rank; }
int process_host_rank(void) { return host_rank; }
int process_host_ranks(void) { return host_ranks; }

int64_t process_host_sum(int64_t value)
{
    if (host_ranks > 1) MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_SUM, host_comm);
    return value;
}

bool process_host_differ(const char id[PROCESS_ID])
{
    if (host_ranks == 1) return true;
    char (*all)[PROCESS_ID] = xmalloc((size_t)host_ranks * sizeof *all);
    bool differ = true;

    MPI_Allgather(id, PROCESS_ID, MPI_BYTE, all, PROCESS_ID, MPI_BYTE, host_comm);
    for (int i = 0; i < host_ranks; i++)
        for (int j = 0; j < i; j++) differ = differ && memcmp(all[i], all[j], PROCESS_ID) != 0;
    free(all);
    return differ;
}

void process_finish(void)
{
    fflush(stdout);
    fflush(stderr);
    leaks_report();
    if (host_comm != MPI_COMM_NULL) MPI_Comm_free(&host_comm);
    MPI_Finalize();
    base_process.abort_all = alone.abort_all;
    base_process.leave = alone.leave;
}
