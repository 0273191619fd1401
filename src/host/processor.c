/* processor.c: see processor.h */
#include "src/host/processor.h"

#include "src/base/base.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef __x86_64__
#include <cpuid.h>

enum { EAX, EBX, ECX, EDX };
enum { NO_STATE = 0, YMM_STATE = 0x6, ZMM_STATE = 0xe6, APX_STATE = 0x80000 };

static const struct {
    const char *name;
    unsigned leaf, subleaf, reg, bit, state;
} extensions[] = {
#define ROW(macro, ...) {__VA_ARGS__},
    PROCESSOR_EXTENSIONS(ROW)
};

static unsigned saved_state(void)
{
    unsigned r[4], low, high;

    if (!__get_cpuid(1, &r[EAX], &r[EBX], &r[ECX], &r[EDX]) || !(r[ECX] & bit_OSXSAVE)) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool is_there(size_t i, unsigned state)
{
    unsigned r[4];

    if ((extensions[i].state & state) != extensions[i].state) return false;
    if (!__get_cpuid_count(extensions[i].leaf, extensions[i].subleaf, &r[EAX], &r[EBX], &r[ECX], &r[EDX])) return false;
    return r[extensions[i].reg] >> extensions[i].bit & 1;
}

/* "Intel(R) Xeon(R) CPU X5690 @ 3.47GHz" */
static void read_name(char name[49])
{
    unsigned r[4];

    memset(name, 0, 49);
    for (unsigned i = 0; i < 3; i++)
        if (__get_cpuid(0x80000002 + i, &r[EAX], &r[EBX], &r[ECX], &r[EDX])) memcpy(name + 16 * i, r, sizeof r);
}

__attribute__((constructor(101))) static void check_processor(void)
{
    const unsigned state = saved_state();
    char missing[1024] = "", name[49];

    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++)
        if (processor_needs[i] && !is_there(i, state)) {
            strcat(missing, " ");
            strcat(missing, extensions[i].name);
        }
    if (!missing[0]) return;
    read_name(name);
    dprintf(STDERR_FILENO,
            "moai: %s was built for a newer processor: this one, %s, lacks%s.  Build it here, or for all that it is to "
            "run on: make ARCH=x86-64-v3, or x86-64\n",
            program_invocation_short_name, name[0] ? name + strspn(name, " ") : "of no name", missing);
    _exit(STATUS_CONFIG);
}
#endif
