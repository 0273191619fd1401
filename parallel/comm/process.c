/* process.c: this process as one rank of many: start, identity, and the two ways out; see grid.h */
#include "parallel/comm/comm_mpi.h"
#include "parallel/comm/grid.h"
#include "parallel/comm/mpi_check.h"
#include "src/host/host_cores.h"

#include <limits.h>
#include <mpi.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

/* Leaks are looked for while MPI's modules are still loaded, so that tests/lib/leaks.supp can tell theirs from ours. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
static void leaks_watch(bool on) { on ? __lsan_enable() : __lsan_disable(); }
static void leaks_report(void) { __lsan_do_leak_check(); }
#else
static void leaks_watch(bool on) { (void)on; }
static void leaks_report(void) {}
#endif

static int world_rank, world_size = 1, host_rank, host_ranks = 1;
static int cores_per_rank;                    /* 0: not looked for yet */
static char cores_limited[160];               /* by what, for the report; "": by no quota */
static MPI_Comm host_comm = MPI_COMM_NULL;    /* the ranks of this host */
static pthread_t main_thread;
static process_hooks alone;                   /* the hooks of a single process, put back by process_finish */

/* Only the main thread calls MPI (MPI_THREAD_FUNNELED), also in the end.  A loader, saver or encoder that dies, and the
 * watchdog, whose main thread may well be stuck inside MPI, leave instead: a rank that ends without MPI_Finalize and
 * with a status of its own makes the launcher end the job, as it does for a rank that the kernel has killed.  Seen with
 * Open MPI 4.1: mpirun ends all ranks and returns the status; so does srun --mpi=pmix, with and without
 * --kill-on-bad-exit, but with the status of the signal that it ends the others with. */
static void abort_mpi(int status)
{
    exit_soon();
    if (pthread_equal(pthread_self(), main_thread)) {
        fflush(stdout);
        MPI_Abort(MPI_COMM_WORLD, status);
    }
    _Exit(status);
}

int64_t process_least(int64_t value)
{
    if (world_size > 1) CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_MIN, MPI_COMM_WORLD));
    return value;
}

int process_agree(bool failed, moai_error *err)
{
    const int64_t teller = process_least(failed ? world_rank : world_size);
    const bool all = process_least(failed) == 1;

    if (teller == world_size) return 0;
    if (world_rank == teller && !all) error_set(err, "%s: %s", base_process.identity, err->text);
    if (world_size > 1) CHECK_MPI(MPI_Bcast(err, sizeof *err, MPI_BYTE, (int)teller, MPI_COMM_WORLD));
    return -1;
}

int process_share(bool failed, char **bytes, size_t *n_bytes, moai_error *err)
{
    int64_t n = failed ? -1 : (int64_t)*n_bytes;

    if (world_size == 1) return failed ? -1 : 0;
    CHECK_MPI(MPI_Bcast(&n, 1, MPI_INT64_T, 0, MPI_COMM_WORLD));
    if (n < 0) {
        CHECK_MPI(MPI_Bcast(err, sizeof *err, MPI_BYTE, 0, MPI_COMM_WORLD));
        return -1;
    }
    CHECK(n <= INT_MAX, "%lld bytes of a file of keys", (long long)n);
    if (world_rank != 0) *bytes = xmalloc((size_t)n + 1), *n_bytes = (size_t)n;
    if (n > 0) CHECK_MPI(MPI_Bcast(*bytes, (int)n, MPI_BYTE, 0, MPI_COMM_WORLD));
    return 0;
}

static void leave_mpi(int status)
{
    process_finish();
    exit(output_end(status));
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

/* Ranks of this host that run in the group, or below it. */
static int ranks_in(uint64_t group, const host_cores *all)
{
    int n = 0;

    for (int r = 0; r < host_ranks; r++)
        for (int i = 0; i < all[r].n; i++)
            if (all[r].limits[i].group == group) {
                n++;
                break;
            }
    return n;
}

/* This rank's share of what its quotas leave; `mine` and all others' are in `all`.  True: ranks are more than cores. */
static bool apply_quotas(const host_cores *mine, const host_cores *all)
{
    bool crowded = false;

    for (int i = 0; i < mine->n; i++) {
        const int ranks = ranks_in(mine->limits[i].group, all), cores = mine->limits[i].cores;
        const int share = cores > ranks ? cores / ranks : 1;
        crowded = crowded || ranks > cores;
        if (share >= cores_per_rank) continue;
        cores_per_rank = share;
        snprintf(cores_limited, sizeof cores_limited, "quota of %d in %s", cores, mine->where[i]);
    }
    return crowded;
}

/* The cores that the ranks of this host may run on, all together, against their number. */
static void find_cores(void)
{
    const size_t n_bytes = CPU_ALLOC_SIZE(HOST_CPUS);
    cpu_set_t *own = host_cpus(), *all_cpus = own;
    host_cores mine, *all = xmalloc((size_t)host_ranks * sizeof *all);

    host_cores_read(&mine, "");
    if (host_ranks > 1) {
        all_cpus = CPU_ALLOC(HOST_CPUS);
        CHECK(all_cpus, "out of host memory");
        CHECK_MPI(MPI_Allreduce(own, all_cpus, (int)n_bytes, MPI_BYTE, MPI_BOR, host_comm));
        CHECK_MPI(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, host_comm));
    } else {
        *all = mine;
    }
    const int cores = CPU_COUNT_S(n_bytes, all_cpus), own_cores = CPU_COUNT_S(n_bytes, own);
    cores_per_rank = cores > host_ranks ? cores / host_ranks : 1;
    if (cores_per_rank > own_cores) cores_per_rank = own_cores;
    const bool crowded = apply_quotas(&mine, all) || host_ranks > cores;
    if (!getenv("OMP_NUM_THREADS")) omp_set_num_threads(cores_per_rank);  /* where nobody opens a device */
    comm_mpi_share_cores(crowded);
    if (crowded) prctl(PR_SET_TIMERSLACK, 1000UL);        /* ns: by default a short sleep takes 50 us longer */
    if (all_cpus != own) CPU_FREE(all_cpus);
    CPU_FREE(own);
    free(all);
}

int process_threads(int64_t num_threads, const char **from, moai_error *err)
{
    *from = "";
    if (num_threads > 0) return (int)num_threads;
    const int asked = threads_asked(err);
    if (asked) {
        *from = "OMP_NUM_THREADS";
        return asked;
    }
    if (!cores_per_rank) find_cores();
    *from = cores_limited;
    return cores_per_rank;
}

/* Where launchers tell a task how many there are, and which of them it is. */
static const struct {
    const char *size, *rank;
} launchers[] = {
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},       /* Open MPI's mpirun */
    {"PMI_SIZE", "PMI_RANK"},                               /* MPICH, Intel MPI, Cray; srun --mpi=pmi2; Flux */
    {"MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"},         /* MVAPICH */
    {"MPI_LOCALNRANKS", "MPI_LOCALRANKID"},                 /* Hydra, of one host */
    {"PALS_SIZE", "PALS_RANKID"},                           /* HPE's mpiexec */
    {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},               /* srun: of the step */
    {"SLURM_NTASKS", "SLURM_PROCID"},                       /* of the step too, in a step; else of the job */
};
enum { N_LAUNCHERS = sizeof launchers / sizeof *launchers };

/* -1: not set, or no number */
static long environment_number(const char *name)
{
    const char *text = getenv(name);
    char *end;
    const long n = text ? strtol(text, &end, 10) : -1;

    return text && end > text && !*end ? n : -1;
}

/* The launcher that says it has started more tasks than this one; -1: none. */
static int find_launcher(void)
{
    for (int i = 0; i < N_LAUNCHERS; i++) {
        const bool of_job = strcmp(launchers[i].size, "SLURM_NTASKS") == 0;
        if (of_job && (!getenv("SLURM_STEP_ID") || getenv("SLURM_STEP_NUM_TASKS"))) continue;
        if (environment_number(launchers[i].size) > 1) return i;
    }
    return -1;
}

/* N tasks that are each a world of one would each do the whole work, into one place.  mpirun -np 1 is what it says,
 * wherever it was started. */
static void check_launcher(void)
{
    const int i = world_size == 1 && environment_number(launchers[0].size) != 1 ? find_launcher() : -1;

    if (i >= 0)
        config_error("started as 1 of %ld tasks by a launcher that this Open MPI does not know (%s is %s, and MPI sees "
                     "one rank): start it with this Open MPI's mpirun, or srun --mpi=pmix",
                     environment_number(launchers[i].size), launchers[i].size, getenv(launchers[i].size));
}

void process_alone(const char *what)
{
    const int i = find_launcher();
    const long rank = i < 0 ? 0 : environment_number(launchers[i].rank);

    if (rank > 0)
        config_error("%s is the work of one process, and this is task %ld of %ld (%s)", what, rank,
                     environment_number(launchers[i].size), launchers[i].rank);
}

int process_start(int *argc, char ***argv)
{
    int provided, n_shown = *argc > 0;
    char host[64] = "?", *name[] = {n_shown ? **argv : NULL, NULL}, **shown = name;

    main_thread = pthread_self();
    avoid_forbidden_copies();
    /* Alone, it would start a daemon to spawn others from, which nobody here does; two starts at once may fail at it */
    setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
    leaks_watch(false); /* modules that MPI tries and closes again keep things nobody can name later */
    /* Open MPI copies what it sees of the command line into one environment variable, for which there are 128 KiB */
    int code = MPI_Init_thread(&n_shown, &shown, MPI_THREAD_FUNNELED, &provided);
    leaks_watch(true);
    CHECK(code == MPI_SUCCESS, "MPI does not start");
    CHECK(provided >= MPI_THREAD_FUNNELED, "this MPI allows no threads beside it (level %d)", provided);
    CHECK_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    CHECK_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &world_rank));
    CHECK_MPI(MPI_Comm_size(MPI_COMM_WORLD, &world_size));

    alone = base_process;
    base_process.abort_all = abort_mpi;
    base_process.leave = leave_mpi;
    base_process.printer = world_rank == 0;
    gethostname(host, sizeof host - 1);
    if (world_size > 1)
        snprintf(base_process.identity, sizeof base_process.identity, "rank %d host %s", world_rank, host);
    CHECK_MPI(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host_comm));
    CHECK_MPI(MPI_Comm_rank(host_comm, &host_rank));
    CHECK_MPI(MPI_Comm_size(host_comm, &host_ranks));
    find_cores();
    check_launcher();
    return world_size;
}

int process_rank(void) { return world_rank; }
int process_world(void) { return world_size; }
int process_host_rank(void) { return host_rank; }
int process_host_ranks(void) { return host_ranks; }

int64_t process_host_sum(int64_t value)
{
    if (host_ranks > 1) CHECK_MPI(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_SUM, host_comm));
    return value;
}

bool process_host_differ(const char id[PROCESS_ID])
{
    if (host_ranks == 1) return true;
    char (*all)[PROCESS_ID] = xmalloc((size_t)host_ranks * sizeof *all);
    bool differ = true;

    CHECK_MPI(MPI_Allgather(id, PROCESS_ID, MPI_BYTE, all, PROCESS_ID, MPI_BYTE, host_comm));
    for (int i = 0; i < host_ranks; i++)
        for (int j = 0; j < i; j++) differ = differ && memcmp(all[i], all[j], PROCESS_ID) != 0;
    free(all);
    return differ;
}

void process_finish(void)
{
    output_flush();
    fflush(stderr);
    leaks_report();
    if (host_comm != MPI_COMM_NULL) CHECK_MPI(MPI_Comm_free(&host_comm));
    CHECK_MPI(MPI_Finalize());
    base_process.abort_all = alone.abort_all;
    base_process.leave = alone.leave;
}
