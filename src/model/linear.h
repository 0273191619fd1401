/* linear.h: the linear maps of a layer, y = x W^T, and what belongs to a weight: the one place where weights meet
 * products: how it is stored and what is attached to it, behind calls that leave the text of a layer as it is.
 *
 * W (out, in) is this rank's block; N tokens.  Nothing here communicates: over the tensor axis a rank's y is its
 * columns, or its part of a sum, as the map is split. */
#ifndef MOAI_LINEAR_H
#define MOAI_LINEAR_H

#include "src/params/ctx.h"
#include "src/params/params.h"

enum { MOST_JOINED = 3 };

/* Of rows [row0, row0 + b.rows) of a map: they gain B (scale A x). */
typedef struct lora_part {
    int64_t row0;
    tensor b, db;                             /* (n, rank) */
    uint64_t dropout_key;                     /* of this adapter among others */
} lora_part;

typedef struct linear {
    tensor w;                                 /* (out, in) in the model's dtype; a view of the flat weights, borrowed;
                                                 without data where it is stored in 4 bits */
    bool is_nf4;
    const uint8_t *codes;                     /* see nf4.h; w is then made in scratch for each product */
    const float *absmax;
    tensor dw;                                /* (out, in) fp32 likewise, of the gradients */
    bool is_trained;                          /* else it is frozen: linear_dw computes nothing of W */
    bool adds;                                /* dw, da and db hold a part of this step's gradients: the next products
                                                 are added */
    tensor a, da;                             /* (n_adapters rank, in): the adapters' A, one below the other */
    lora_part adapters[MOST_JOINED];
    int64_t col0, global_cols;                /* in's place in the whole matrix */
    int n_adapters;                           /* W is frozen where there are any, and they are trained */
} linear;

/* What adapters make of a micro-batch; {0} of a map that has none. */
typedef struct linear_acts {
    tensor low, dlow;                         /* (N, n_adapters rank): scale A x, and of the gradient scale B^T dy */
    tensor kept;                              /* low for the backward: low itself, or a copy where x does not stay */
} linear_acts;

/* The weight of a norm, one row: (1, H) or (1, head_dim). */
typedef struct norm_weight {
    tensor w, dw;                             /* as above; a norm's backward always adds */
} norm_weight;

/* A rank's parameters: their tables, and the flat buffers that these describe. */
typedef struct flat_params {
    const param_table *trained, *frozen;
    void *weights, *frozen_weights;           /* of dt */
    const uint8_t *codes;                     /* of the frozen in 4 bits */
    const float *absmax;
    dtype dt;
    float *grads;                             /* of the trained; NULL: none */
    bool trains;
} flat_params;

const param *flat_find(const flat_params *, const char *name);              /* NULL when this rank does not hold it */
/* Views of parameter NAME.  {0} where this rank does not hold it.  A map comes with its adapter. */
linear linear_view(const flat_params *, const char *name);
norm_weight norm_view(const flat_params *, const char *name);
/* Neighbours in the flat buffers as one map: the rows of a, then those of b; their A are neighbours, too. */
linear linear_join(linear a, linear b);
/* Lays out x (rows, cols), the input of a map made of `maps` (lora_config.h): with room for its low behind the columns
 * where adapters are folded into the product. */
tensor linear_input_plan(const moai_ctx *, arena *kept, int64_t rows, int64_t cols, unsigned maps);
/* Lays out the rest, in `kept` and `shared`.  x_stays: until the backward, or all of this is then done again. */
void linear_acts_plan(linear_acts *, const moai_ctx *, unsigned maps, tensor x, bool x_stays, arena *kept,
                      arena *shared);

/* y (N, out) = x (N, in) W^T, and the adapters' part.  acts may be NULL of a map without any, here and below. */
void linear_forward(const moai_ctx *, tensor y, tensor x, const linear *, const linear_acts *);
void linear_add(const moai_ctx *, tensor y, tensor z, tensor x, const linear *, const linear_acts *);  /* y = z + ... */
/* dx (N, in) = dy (N, out) W, and the adapters' part; with it goes the gradient of their B, and acts->dlow for
 * linear_dw, which follows. */
void linear_dx(const moai_ctx *, tensor dx, tensor dy, const linear *, const linear_acts *);
/* The other gradients of what is trained, dy^T x of W: what a step's first product writes, later ones add to
 * (gradients_begin). */
void linear_dw(const moai_ctx *, linear *, tensor dy, tensor x, const linear_acts *);

#endif
