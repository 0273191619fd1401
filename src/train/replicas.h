/* replicas.h: copies of one weight are the same bytes.  Data-parallel ranks hold the same blocks, tensor-parallel ranks
 * the same norms (and KV heads, where there are fewer of them than ranks), the first and last stage one tied
 * embedding. */
#ifndef MOAI_REPLICAS_H
#define MOAI_REPLICAS_H

#include "src/model/model.h"

/* Hashes the working weights block by block (XXH3-64) and compares every two ranks that hold the same block of the same
 * parameter.  On a difference -1 on all ranks, with the same text: the first parameter that differs and which ranks
 * hold what.  Collective over the world.  Costs a copy of the weights to the host and 16 bytes a parameter and rank. */
int replicas_check(moai_model *, moai_error *err);

#endif
