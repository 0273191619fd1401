/* nf4.cuh: the 16 values of the codes (nf4.h) on their way to a kernel. */
#ifndef MOAI_NF4_CUH
#define MOAI_NF4_CUH

#include "src/ops/nf4.h"

struct nf4_table {
    float value[16];
};

static inline nf4_table nf4_table_of_values()
{
    nf4_table t;
    for (int i = 0; i < 16; i++) t.value[i] = nf4_values[i];
    return t;
}

#endif
