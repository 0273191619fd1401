/* processor.h: the extensions of x86-64 that a compiler uses unasked, when -march lets it.
 *
 * A program built for one processor and started on an older one would die of SIGILL at its first new instruction,
 * without a word.  processor_needs.c is compiled like all the rest and holds what that needs, as data; processor.c is
 * compiled for any x86-64 and looks before main, and before C++ constructs its statics. */
#ifndef MOAI_PROCESSOR_H
#define MOAI_PROCESSOR_H

/* The compiler's macro, the name in /proc/cpuinfo; where cpuid tells: leaf, subleaf, register, bit; the state that the
 * system must save (XCR0). */
#define PROCESSOR_EXTENSIONS(X)                                             \
    X(__SSE3__, "sse3 (pni)", 1, 0, ECX, 0, NO_STATE)                       \
    X(__SSSE3__, "ssse3", 1, 0, ECX, 9, NO_STATE)                           \
    X(__SSE4_1__, "sse4_1", 1, 0, ECX, 19, NO_STATE)                        \
    X(__SSE4_2__, "sse4_2", 1, 0, ECX, 20, NO_STATE)                        \
    X(__MOVBE__, "movbe", 1, 0, ECX, 22, NO_STATE)                          \
    X(__POPCNT__, "popcnt", 1, 0, ECX, 23, NO_STATE)                        \
    X(__LZCNT__, "lzcnt (abm)", 0x80000001, 0, ECX, 5, NO_STATE)            \
    X(__FMA4__, "fma4", 0x80000001, 0, ECX, 16, YMM_STATE)                  \
    X(__XOP__, "xop", 0x80000001, 0, ECX, 11, YMM_STATE)                    \
    X(__BMI__, "bmi1", 7, 0, EBX, 3, NO_STATE)                              \
    X(__BMI2__, "bmi2", 7, 0, EBX, 8, NO_STATE)                             \
    X(__AVX__, "avx", 1, 0, ECX, 28, YMM_STATE)                             \
    X(__F16C__, "f16c", 1, 0, ECX, 29, YMM_STATE)                           \
    X(__FMA__, "fma", 1, 0, ECX, 12, YMM_STATE)                             \
    X(__AVX2__, "avx2", 7, 0, EBX, 5, YMM_STATE)                            \
    X(__AVXVNNI__, "avx_vnni", 7, 1, EAX, 4, YMM_STATE)                     \
    X(__AVXIFMA__, "avx_ifma", 7, 1, EAX, 23, YMM_STATE)                    \
    X(__AVXVNNIINT8__, "avx_vnni_int8", 7, 1, EDX, 4, YMM_STATE)            \
    X(__AVXNECONVERT__, "avx_ne_convert", 7, 1, EDX, 5, YMM_STATE)          \
    X(__AVXVNNIINT16__, "avx_vnni_int16", 7, 1, EDX, 10, YMM_STATE)         \
    X(__AVX512F__, "avx512f", 7, 0, EBX, 16, ZMM_STATE)                     \
    X(__AVX512DQ__, "avx512dq", 7, 0, EBX, 17, ZMM_STATE)                   \
    X(__AVX512IFMA__, "avx512ifma", 7, 0, EBX, 21, ZMM_STATE)               \
    X(__AVX512CD__, "avx512cd", 7, 0, EBX, 28, ZMM_STATE)                   \
    X(__AVX512BW__, "avx512bw", 7, 0, EBX, 30, ZMM_STATE)                   \
    X(__AVX512VL__, "avx512vl", 7, 0, EBX, 31, ZMM_STATE)                   \
    X(__AVX512VBMI__, "avx512vbmi", 7, 0, ECX, 1, ZMM_STATE)                \
    X(__AVX512VBMI2__, "avx512_vbmi2", 7, 0, ECX, 6, ZMM_STATE)             \
    X(__GFNI__, "gfni", 7, 0, ECX, 8, NO_STATE)                             \
    X(__AVX512VNNI__, "avx512_vnni", 7, 0, ECX, 11, ZMM_STATE)              \
    X(__AVX512BITALG__, "avx512_bitalg", 7, 0, ECX, 12, ZMM_STATE)          \
    X(__AVX512VPOPCNTDQ__, "avx512_vpopcntdq", 7, 0, ECX, 14, ZMM_STATE)    \
    X(__AVX512FP16__, "avx512_fp16", 7, 0, EDX, 23, ZMM_STATE)              \
    X(__AVX512BF16__, "avx512_bf16", 7, 1, EAX, 5, ZMM_STATE)               \
    X(__APX_F__, "apx", 7, 1, EDX, 21, APX_STATE)

extern const unsigned char processor_needs[];             /* in the order of the list: 1 or 0 */

#endif
