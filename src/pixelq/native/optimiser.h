// An optimiser step for a team of threads, as in layers.h.

#pragma once

#include "team.h"
#include "tiles.h"

typedef struct {
    long size;
    const void *gradient;  // bfloat16, or float32 if there is no working copy
    float *master, *first, *second;
    bf16 *working;  // bfloat16 copy for the network; NULL: it uses the master
} parameter;

enum { ADAM, CENTRED_RMSPROP };

// g = clipped gradient; m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; then
//   ADAM             θ ← kept · θ − m · (scaled / (√v + epsilon) + plain)
//   CENTRED_RMSPROP  θ ← kept · θ − g · scaled / √(v − m² + epsilon)
typedef struct {
    const parameter *parameters;
    int count, kind, clip;  // clip: 0 none, 1 each gradient by its own norm, 2 all by their joint norm
    double clip_norm, beta1, beta2, scaled, epsilon, plain, kept;
} step;

long norms_bytes(const step *s);
void norms_by_team(const step *s, float *parts);
void moves_by_team(const step *s, const float *parts, float *norms);
