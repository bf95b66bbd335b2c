// The Nature network (2015) and its layers, computed by a team of threads.
//
// Every member of the team calls a function that ends in `_by_team` with the same arguments, except `own`, the member's own
// scratch memory. The members share the work and do not wait at the end. Call `team_wait` before you use the results.

#pragma once

#include "team.h"
#include "tiles.h"

enum { SIDE = 84, OUT1 = 20, OUT2 = 9, OUT3 = 7, PIXELS = SIDE * SIDE * 4, SPOTS = OUT3 * OUT3 };

// Filters of the three convolutions, units of the dense layer, outputs.
typedef struct {
    int f1, f2, f3, units, actions;
} sizes;

// Weights and biases of these layers, or their gradients.
//   w1 [f1][8][8][4], w2 [f2][4][4][f1], w3 [f3][3][3][f2], w4 [units][f3][7][7], w5 [actions][units]
typedef struct {
    bf16 *w1, *b1, *w2, *b2, *w3, *b3, *w4, *b4;
    float *w5, *b5;
} weights;

// Layer normalisation between each convolution and its ReLU; or its gradients.
typedef struct {
    bf16 *gain[3], *shift[3];  // [channels], or [side][side][channels] of all of a layer
    int whole;                 // over all of a layer; otherwise each pixel over its channels
    float epsilon;             // added to the variance
} norms;

// What they normalise, for the way back; NULL: nothing is kept.
typedef struct {
    bf16 *sums[3];         // of convolutions, [images][side][side][channels]
    float *statistics[3];  // mean and 1 / deviation [images][side][side][2]; the first of an image, if all is normalised at once
} before_norms;

// The convolutions' intermediate results; the features are [images][f3][7][7].
typedef struct {
    bf16 *woven, *a1, *a2;  // [images][84][84][4], [images][20][20][f1], [images][9][9][f2]
    before_norms before;
} activations;

static inline long first_size(const sizes *s) { return (long)OUT1 * OUT1 * s->f1; }
static inline long second_size(const sizes *s) { return (long)OUT2 * OUT2 * s->f2; }
static inline long features_size(const sizes *s) { return (long)SPOTS * s->f3; }

static inline long activations_bytes(const sizes *s, int images) {
    return lines(images * (PIXELS + first_size(s) + second_size(s)) * sizeof(bf16));
}

static inline activations activations_in(const sizes *s, int images, void *memory) {
    bf16 *woven = memory, *a1 = woven + (long)images * PIXELS;
    return (activations){woven, a1, a1 + images * first_size(s), {{0}, {0}}};
}

long before_norms_bytes(const sizes *s, int images);
before_norms before_norms_in(const sizes *s, int images, void *memory);
before_norms before_norms_from(const sizes *s, const before_norms *all, int image);

static inline activations activations_from(const sizes *s, const activations *all, int image) {
    return (activations){all->woven + (long)image * PIXELS, all->a1 + image * first_size(s), all->a2 + image * second_size(s),
                         before_norms_from(s, &all->before, image)};
}

// Gains of a layer, 0 to 2; or its shifts.
long norm_numbers(const sizes *s, const norms *n, int layer);
// Of so many images: normalise sums, which may be where the output goes; statistics are kept, or NULL.
void norm_forward(
    const sizes *s, const norms *n, int layer, int images, const bf16 *sums, float *statistics, bf16 *out);
// `slopes`, in frames of zeros as in `torso_back.c`, become gradients of the sums; gradients of gains and shifts are set or
// added to.
void norm_back(
    const sizes *s, const norms *n, int layer, int images, const bf16 *sums, const float *statistics, bf16 *slopes,
    float *dgain, float *dshift, int add);

// A source of images [4][84][84] uint8: the bytes of all images, or planes that are read when needed.
typedef struct {
    const uint8_t *bytes;  // or NULL
    int (*read)(const void *store, int64_t slot, char *plane);  // 1 if it worked
    const void *store;
    const int64_t *slots;  // four planes an image
    atomic_int *failed;
    const uint8_t *others;  // bytes of those from some number on, or NULL
    long first_other;
    const float *background;  // what is subtracted from each pixel, a whole number up to 255; or NULL
} images;

// The same, starting at a later image.
static inline images images_from(images all, long image) {
    if (all.bytes) all.bytes += image * PIXELS;
    else all.slots += image * 4;
    all.first_other -= image;
    return all;
}

// The convolutions of one network.
typedef struct {
    const weights *w;
    const uint32_t *packed;  // the network's filters
    bf16 *features;          // output
    const norms *norms;      // or NULL
} seen;

long torso_packed_bytes(const sizes *s);
long torso_own_bytes(const sizes *s, int batch);
void torso_pack_by_team(const sizes *s, const weights *w, uint32_t *packed);
// For one network or two.
void torso_features_by_team(
    const sizes *s, int batch, const images *obs, int networks, const seen *by, const activations *kept, void *own);

long torso_packed_back_bytes(const sizes *s);
// `n`: NULL of networks without.
long torso_shares_bytes(const sizes *s, const norms *n);
long torso_own_back_bytes(const sizes *s);
void torso_pack_back_by_team(const sizes *s, const weights *w, uint32_t *packed);
void torso_shares_by_team(
    const sizes *s, const norms *n, int batch, const uint32_t *packed, const activations *all, const bf16 *features,
    const bf16 *dfeatures, float *shares, void *own);
void torso_gradients_by_team(
    const sizes *s, int batch, const float *shares, const weights *gradients, const norms *norm_gradients);

// A dense layer with one or two parts of equal size over the same inputs: w [units][depth], b [units]; or their gradients.
// For noisy layers, b includes the noise. `dense_hidden_by_team` makes w from means, scales and noise, and keeps it if there
// is memory for it. The gradients are for the means, and the gradients of the noise scales follow from them and from the
// noise of inputs and outputs.
typedef struct {
    int parts, units;  // units in each part
    struct {
        bf16 *w, *b, *w_sigma, *b_sigma;
        const float *noise_in, *noise_out;
        const bf16 *w_mean;  // of noisy weights, or NULL
    } part[2];
} dense;

static inline int all_units(const dense *d) { return d->parts * d->units; }

// x [batch][depth], hidden [batch][all units].
long dense_packed_bytes(int batch, int depth);
void dense_pack_by_team(int batch, int depth, const bf16 *x, uint32_t *packed);
long dense_own_bytes(int depth);  // of noisy weights that are not kept
// With a ReLU, or without.
void dense_hidden_by_team(int batch, int depth, const dense *d, const uint32_t *packed, int relu, float *hidden, void *own);

long dense_packed_back_bytes(int batch, int depth);
long dense_slopes_bytes(int batch, int units);
long dense_own_back_bytes(int units);
void dense_pack_back_by_team(int batch, int depth, const bf16 *x, uint32_t *packed);
// `hidden`: NULL if the forward pass had no ReLU.
void dense_slopes_by_team(int batch, const dense *gradients, const float *hidden, const float *dhidden, number *slopes);
// `dx` is multiplied by a scale.
void dense_gradients_by_team(
    int batch, int depth, const dense *d, const dense *gradients, const uint32_t *packed, const number *slopes, float scale,
    bf16 *dx, void *own);

// A linear output layer in float32: w [outputs][units], b [outputs]; or the gradients, as in a dense layer. Rows of hidden
// [batch] lie `row` numbers apart.
typedef struct {
    int units, outputs;
    float *w, *b, *w_sigma, *b_sigma;
    const float *noise_in, *noise_out;
} linear;

long linear_own_bytes(const linear *l);
long linear_own_back_bytes(const linear *l, int batch);
void linear_by_team(const linear *l, int batch, const float *hidden, long row, float *outputs, void *own);
void linear_back_by_team(
    const linear *l, const linear *gradients, int batch, const float *hidden, long row, const float *doutputs,
    float *dhidden, void *own);
