/* linear.h: the linear maps of a layer, y = x W^T, and what belongs to a weight: the one place where weights meet
 * products.  Storage other than a dense matrix, scales, and adapters on some of its rows belong here, behind the same
 * calls, so that the text of a layer stays as it is.
 *
 * W (out, in) is this rank's block; N tokens.  Nothing here communicates: over the tensor axis a rank's y is its
 * columns, or its part of a sum, as the map is split. */
#ifndef MOAI_LINEAR_H
#define MOAI_LINEAR_H

#include "src/params/ctx.h"
#include "src/params/params.h"

typedef struct linear {
    tensor w;                                 /* (out, in) in the model's dtype; a view of the flat weights, borrowed */
    tensor dw;                                /* (out, in) fp32 likewise, of the gradients */
    bool is_trained;                          /* else it is frozen: linear_dw computes nothing */
    bool adds;                                /* dw holds a part of this step's gradient: the next product is added */
} linear;

/* The weight of a norm, one row: (1, H) or (1, head_dim). */
typedef struct norm_weight {
    tensor w, dw;                             /* as above; a norm's backward always adds */
} norm_weight;

/* A rank's parameters: their table, and the flat buffers that it describes. */
typedef struct flat_params {
    const param_table *table;
    void *weights;                            /* of dt */
    dtype dt;
    float *grads;                             /* NULL: none */
    bool trains;
} flat_params;

/* Views of parameter NAME.  {0} where this rank does not hold it. */
linear linear_view(const flat_params *, const char *name);
norm_weight norm_view(const flat_params *, const char *name);
/* Neighbours in the flat buffers as one map: the rows of a, then those of b. */
linear linear_join(linear a, linear b);

void linear_forward(const moai_ctx *, tensor y, tensor x, const linear *);            /* y (N, out) = x (N, in) W^T */
void linear_add(const moai_ctx *, tensor y, tensor z, tensor x, const linear *);      /* y = z + x W^T; y is not z */
void linear_dx(const moai_ctx *, tensor dx, tensor dy, const linear *);               /* dx (N, in) = dy (N, out) W */
/* The weight's gradient, dy^T x: what a step's first product writes, later ones add to (gradients_begin). */
void linear_dw(const moai_ctx *, linear *, tensor dy, tensor x);

#endif
