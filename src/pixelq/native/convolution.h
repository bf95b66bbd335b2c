// A convolution on tiles: forward, from outputs back to inputs, and the gradients of its filters.

#pragma once

#include "layers.h"

#include <math.h>

// Input [images][in_w][in_w][channels], filters of kernel × kernel. A pixel of the input has `fold` × `fold` original pixels
// of channels / fold². The weights are stored for the original pixels:
// [filters][fold · kernel][fold · kernel][channels / fold²].
typedef struct {
    int in_w, channels, kernel, fold, filters;
    int positions;  // output positions of an image, [filters] each
    long in_image, out_image;
} convolution;

static long weights_of(const convolution *c) { return (long)c->kernel * c->kernel * c->channels; }  // of one filter

// The offset in a filter's weights of 16 numbers of its input [kernel][kernel][channels].
static long unfolded(const convolution *c, long number) {
    int run = c->channels / c->fold;  // adjacent numbers of an original row in a folded pixel
    long tap = number / c->channels, inside = number % c->channels;
    long y = tap / c->kernel * c->fold + inside / run;
    return (y * c->kernel + tap % c->kernel) * run + inside % run;
}

static int shift_of(const convolution *c, int tap) { return tap / c->kernel * c->in_w + tap % c->kernel; }  // in pixels

// Words of packed filters with so many weights.
static long packed_words(long weights) { return weights / (TILE * DEPTH) * PACKED; }

// Pack weights as B tiles [filters/16][kernel][slices].
static void pack_filters(const convolution *c, const bf16 *weight, uint32_t *packed) {
    long all = weights_of(c);
    team_loop *tiles = team_share();
    for (long tile; (tile = team_take(tiles)) < c->filters / TILE;)
        for (long at = 0; at < all; at += DEPTH) {
            const bf16 *these = weight + tile * TILE * all, *low = these + unfolded(c, at), *high = these + unfolded(c, at + TILE);
            __m512i r[16];
            for (int i = 0; i < 16; i++)
                r[i] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(low + i * all))),
                                          _mm256_loadu_si256((const __m256i *)(high + i * all)), 1);
            transpose(r);
            for (int i = 0; i < 16; i++) store_pairs(r[i], i, packed + (tile * all + at) / DEPTH * PACKED);
        }
}

// Pack weights [outputs][taps][inputs] as B tiles of the backward convolution, from outputs to inputs:
// [inputs/16][taps back][outputs/32]. Backward tap t is forward tap `tap[t]`.
static void pack_filters_back(
    const bf16 *weight, int outputs, int taps, int inputs, const int *tap, int taps_back, uint32_t *packed
) {
    team_loop *tiles = team_share();
    for (long tile; (tile = team_take(tiles)) < inputs / TILE;) {
        uint32_t *to = packed + tile * taps_back * (outputs / DEPTH) * PACKED;
        for (int t = 0; t < taps_back; t++)
            for (int o = 0; o < outputs; o += 2) {
                const bf16 *from = weight + ((long)o * taps + tap[t]) * inputs + tile * TILE;
                store_pairs(weave16(from, from + (long)taps * inputs), (t * outputs + o) / 2, to);
            }
    }
}

// 16 filters, and the use of their sums.
typedef struct {
    const uint32_t *packed;
    bf16 *out;
    const bf16 *bias, *active;
} filters16;

// The tiles of a convolution, one after the other.
static void all_filters(
    const convolution *c, const uint32_t *packed, bf16 *out, const bf16 *bias, const bf16 *active, filters16 *to
) {
    for (int tile = 0; tile < c->filters / TILE; tile++) {
        long at = (long)tile * TILE;
        to[tile] = (filters16){packed + packed_words(at * weights_of(c)), out + at, bias ? bias + at : NULL,
                               active ? active + at : NULL};
    }
}

// Places of an output [out][out], by position in an input `in_w` wide: numbers from the image's first, for given distances of
// rows, columns and odd rows and columns. A position past a row's end has the place of the next valid position, which is
// written later.
static void find_places(int out, int in_w, int fold, long row, long column, long odd_row, long odd_column, int32_t *places) {
    long next = 0;
    for (int at = (out - 1) * in_w + out - 1; at >= 0; at--) {
        int y = at / in_w, x = at % in_w;
        if (x < out) next = y / fold * row + y % fold * odd_row + x / fold * column + x % fold * odd_column;
        places[at] = (int32_t)next;
    }
}

// The use of sums. Forward: output = max(least, scale · sum + bias). Backward: output = sum where `active` > 0; `active` has
// the same positions, `active_pixel` numbers apart. `places` maps positions to the output.
typedef struct {
    const int32_t *places;
    float scale, least;
    long active_pixel;
    int back;
} ending;

// The output of 16 filters at position `at`, from their sums; `image` is the offset of the image's output from the first's.
static inline __attribute__((always_inline)) void finish(
    __m512 sum, __m512 bias, long at, long image, const filters16 *by, ending e
) {
    if (e.back) {
        __m256i on = _mm256_loadu_si256((const __m256i *)(by->active + at * e.active_pixel));
        sum = _mm512_maskz_mov_ps(_mm256_cmpgt_epi16_mask(on, _mm256_setzero_si256()), sum);
    } else {
        sum = _mm512_max_ps(_mm512_fmadd_ps(sum, _mm512_set1_ps(e.scale), bias), _mm512_set1_ps(e.least));
    }
    _mm256_storeu_si256((__m256i *)(by->out + image + e.places[at]), narrow(sum));
}

static inline __attribute__((always_inline)) __m512 bias_of(const filters16 *by, ending e) {
    return e.back ? _mm512_setzero_ps() : widen(_mm256_loadu_si256((const __m256i *)by->bias));
}

#ifdef WITH_FLOAT_TILES
#include "convolution_floats.h"
#else
#include "convolution_pairs.h"
#endif

static void convolve_forward(
    const convolution *c, int images, const bf16 *in, int tiles, const filters16 *by, const int32_t *places, float scale,
    int relu, float *floats
) {
    convolve(c, images, in, tiles, by, (ending){places, scale, relu ? 0.0f : -INFINITY, 0, 0}, floats);
}

static void convolve_back(
    const convolution *c, int images, const bf16 *in, int tiles, const filters16 *by, const int32_t *places, long active_pixel,
    float *floats
) {
    convolve(c, images, in, tiles, by, (ending){places, 1.0f, 0.0f, active_pixel, 1}, floats);
}
