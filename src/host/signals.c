/* signals.c: see signals.h */
#include "src/host/signals.h"

#include <signal.h>
#include <unistd.h>

static const struct {
    int number;
    const char *name;
} noted[] = {{SIGTERM, "SIGTERM"}, {SIGUSR1, "SIGUSR1"}, {SIGUSR2, "SIGUSR2"},
             {SIGXCPU, "SIGXCPU"}, {SIGHUP, "SIGHUP"},   {SIGINT, "SIGINT"}};
enum { N_NOTED = sizeof noted / sizeof *noted };

static volatile sig_atomic_t seen;

static void note(int number)
{
    static const char words[] = "\nSIGINT: the step is finished and saved; a second SIGINT ends the run at once\n";

    seen = number;
    if (number == SIGINT && base_process.printer && write(STDERR_FILENO, words, sizeof words - 1) < 0) return;
}

static void set(int number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART | flags}, before;

    sigemptyset(&action.sa_mask);
    if (sigaction(number, NULL, &before) == 0 && before.sa_handler == SIG_IGN) return;
    sigaction(number, &action, NULL);
}

void signals_ignore_pipe(void) { set(SIGPIPE, SIG_IGN, 0); }

void signals_catch(void)
{
    for (int i = 0; i < N_NOTED; i++) set(noted[i].number, note, noted[i].number == SIGINT ? SA_RESETHAND : 0);
}

int signals_seen(void) { return seen; }

const char *signals_name(int number)
{
    for (int i = 0; i < N_NOTED; i++)
        if (noted[i].number == number) return noted[i].name;
    return "a signal";
}
