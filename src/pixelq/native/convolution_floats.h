// A convolution's products of float32 numbers, each widened from bfloat16 once. Included by convolution.h.
//
// A group of output positions stays in registers, from the first weight to the last. Its positions may lie anywhere in an image,
// so no sum is made for the ends of rows; and what a filter row would multiply above or below an image is left out.

#pragma once

enum {
#ifdef WITH_AVX2
    GROUP = 6,   // the most positions whose sums are in registers at once
    BESIDE = 1,  // tiles of filters, or of channels, at once
#else
    GROUP = 7,  // with 8 the compiler moves each position's pointer, and such a loop has too many instructions
    BESIDE = 2,
#endif
    NEAR = 128,  // pixels whose gradients are packed at once, so that they stay in the L1 cache
};

static int out_of(const convolution *c) { return c->in_w - c->kernel + 1; }  // the output's side

static int last_shift(const convolution *c) { return shift_of(c, c->kernel * c->kernel - 1); }

// Numbers of an image, with the frame that precedes it on the way back.
static long image_floats(const convolution *c) { return ((long)c->in_w * c->in_w + last_shift(c)) * c->channels; }

static void widen_all(const bf16 *from, long numbers, float *to) {
    for (long at = 0; at < numbers; at += TILE) _mm512_storeu_ps(to + at, widen(_mm256_loadu_si256((const __m256i *)(from + at))));
}

// Sums of `rows` positions by 16 filters, or by 32 with `both`, [2][rows][16]. The inputs of position r begin at from[r]. A filter
// has `high` rows of `wide` numbers each; the inputs for the next row lie `row` numbers later.
static inline __attribute__((always_inline)) void sum_group(
    int rows, int both, const float *const *from, long row, int high, long wide, const float *b0, const float *b1, float *sums
) {
    __m512 s0[GROUP], s1[GROUP];
    const float *a[GROUP];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) a[r] = from[r], s0[r] = s1[r] = _mm512_setzero_ps();
    for (int y = 0; y < high; y++) {
        for (long k = 0; k < wide; k++, b0 += TILE, b1 += TILE)
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                s0[r] = _mm512_fmadd_ps(_mm512_set1_ps(a[r][k]), _mm512_loadu_ps(b0), s0[r]);
                if (both) s1[r] = _mm512_fmadd_ps(_mm512_set1_ps(a[r][k]), _mm512_loadu_ps(b1), s1[r]);
            }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) a[r] += row;
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        _mm512_storeu_ps(sums + r * TILE, s0[r]);
        if (both) _mm512_storeu_ps(sums + (rows + r) * TILE, s1[r]);
    }
}

static __attribute__((noinline)) void sum_rows(
    int rows, int both, const float *const *from, long row, int high, long wide, const float *b0, const float *b1, float *sums
) {
#define OF_ROWS(n) \
    case n: \
        if (BESIDE > 1 && both) sum_group(n, 1, from, row, high, wide, b0, b1, sums); \
        else sum_group(n, 0, from, row, high, wide, b0, b1, sums); \
        break;
    switch (rows) {
        OF_ROWS(4)
        OF_ROWS(5)
        OF_ROWS(6)
#ifndef WITH_AVX2
        OF_ROWS(7)
#endif
        default: abort();  // groups of these layers' positions have no other sizes
    }
#undef OF_ROWS
}

// Rows `from` to `until` of an image's outputs, for which the filter rows `first` to `last` meet the image.
typedef struct {
    int from, until, first, last;
} band;

// Convolve images with the given tiles of filters. `floats` is room for an image.
static inline __attribute__((always_inline)) void convolve(
    const convolution *c, int images, const bf16 *in, int tiles, const filters16 *by, ending e, float *floats
) {
    int out = out_of(c), side = e.back ? c->in_w : out, bands = 0, outer = c->kernel - 1;
    long wide = (long)c->kernel * c->channels, all = (long)c->in_w * c->in_w;
    band each[5] = {0};  // of these layers: 3, or 5
    if (e.back)  // each of the outer rows is a band
        for (int y = 0; y < side; y = each[bands++].until)
            each[bands] = (band){y, y == outer ? out : y + 1, y < outer ? outer - y : 0, y < out ? c->kernel : side - y};
    else each[bands++] = (band){0, out, 0, c->kernel};
    accumulators acc;
    begin_tiles(&acc);
    for (int image = 0; image < images; image++) {
        widen_all(in + image * c->in_image, (all + (e.back ? last_shift(c) : 0)) * c->channels, floats);
        for (int tile = 0; tile < tiles; tile += BESIDE) {
            int many = tile + BESIDE <= tiles ? BESIDE : 1;
            __m512 bias[2] = {bias_of(by + tile, e), bias_of(by + tile + many - 1, e)};
            for (const band *b = each; b < each + bands; b++) {
                int positions = (b->until - b->from) * side, groups = (positions + GROUP - 1) / GROUP, y = b->from, x = 0;
                long begin = b->first * wide * TILE;
                const float *b0 = (const float *)by[tile].packed + begin, *b1 = (const float *)by[tile + many - 1].packed + begin;
                for (int group = 0; group < groups; group++) {
                    int rows = positions / groups + (group < positions % groups);
                    const float *from[GROUP];
                    int at[GROUP];
                    float sums[2 * GROUP * TILE];
                    for (int r = 0; r < rows; r++) {
                        at[r] = y * c->in_w + x;
                        from[r] = floats + (at[r] + (long)b->first * c->in_w) * c->channels;
                        if (++x == side) x = 0, y++;
                    }
                    sum_rows(rows, many > 1, from, (long)c->in_w * c->channels, b->last - b->first, wide, b0, b1, sums);
                    for (int j = 0; j < many; j++)
                        for (int r = 0; r < rows; r++)
                            finish(_mm512_loadu_ps(sums + (j * rows + r) * TILE), bias[j], at[r] + (e.back ? image * all : 0),
                                   e.back ? 0 : image * c->out_image, by + tile + j, e);
                }
            }
        }
    }
    end_tiles(&acc);
}

// Rows of outputs whose gradients are packed at once.
static int near_rows(const convolution *c) { return NEAR / out_of(c); }

// The most pixels of the input that belong to them; between two images there are pixels that begin no output.
static long near_pixels(const convolution *c) {
    int rows = near_rows(c);
    return (rows + (rows / out_of(c) + 1L) * (c->kernel - 1)) * c->in_w + last_shift(c);
}

static long packed_gradient_numbers(const convolution *c) {  // in bfloat16 numbers
    return 2 * (c->filters * (long)NEAR + BESIDE * TILE * near_pixels(c));
}

// 16 numbers of each of `count` pixels, as [count][16]. Returns their sum over pixels, from `sum` on.
static inline __m512 spread16(const bf16 *from, long count, long pixel, __m512 sum, float *to) {
    for (long at = 0; at < count; at++, from += pixel, to += TILE) {
        __m512 numbers = widen(_mm256_loadu_si256((const __m256i *)from));
        sum = _mm512_add_ps(sum, numbers);
        _mm512_storeu_ps(to, numbers);
    }
    return sum;
}

// Gradients of `count` filters by 16 channels of a tap, or by 32 with `both`: added to, or set. A filter's gradients lie `filter`
// numbers apart. a: gradients of the output [rows][wide][16]; the inputs of a row begin at pixel row_at[row] of b0 and b1.
static inline __attribute__((always_inline)) void gradients_of(
    int count, int both, float *d0, float *d1, long filter, int add, const float *a, const float *b0, const float *b1,
    const long *row_at, int rows, int wide
) {
    __m512 s0[TILE / 2], s1[TILE / 2];
#pragma GCC unroll 8
    for (int r = 0; r < count; r++) {
        s0[r] = add ? _mm512_loadu_ps(d0 + r * filter) : _mm512_setzero_ps();
        if (both) s1[r] = add ? _mm512_loadu_ps(d1 + r * filter) : _mm512_setzero_ps();
    }
    for (int row = 0; row < rows; row++) {
        const float *x0 = b0 + row_at[row] * TILE, *x1 = b1 + row_at[row] * TILE;
        for (int x = 0; x < wide; x++, a += TILE, x0 += TILE, x1 += TILE)
#pragma GCC unroll 8
            for (int r = 0; r < count; r++) {
                s0[r] = _mm512_fmadd_ps(_mm512_set1_ps(a[r]), _mm512_loadu_ps(x0), s0[r]);
                if (both) s1[r] = _mm512_fmadd_ps(_mm512_set1_ps(a[r]), _mm512_loadu_ps(x1), s1[r]);
            }
    }
#pragma GCC unroll 8
    for (int r = 0; r < count; r++) {
        _mm512_storeu_ps(d0 + r * filter, s0[r]);
        if (both) _mm512_storeu_ps(d1 + r * filter, s1[r]);
    }
}

// Filter gradients dw [filters][weights] and db [filters], set or added to, from the inputs of images and the gradients of their
// outputs, which have the input's layout, [in_w][in_w][filters] an image. A tap's gradient is a product with the input some
// pixels later, so the input is packed once for all taps.
static void all_filter_gradients(
    const convolution *c, int images, const bf16 *in, const bf16 *dy, float *dw, float *db, int add, bf16 *scratch
) {
    int out = out_of(c), most = near_rows(c), taps = c->kernel * c->kernel;
    long weights = weights_of(c), near = near_pixels(c), row_at[NEAR];
    float *a = (float *)scratch, *b0 = a + (long)c->filters * NEAR, *b1 = b0 + (BESIDE - 1) * near * TILE;
    accumulators acc;
    begin_tiles(&acc);
    for (int first = 0; first < images * out; first += most, add = 1) {
        int rows = images * out - first < most ? images * out - first : most;
        for (int row = 0; row < rows; row++) row_at[row] = ((first + row) / out * (long)c->in_w + (first + row) % out) * c->in_w;
        long begin = row_at[0];
        for (int filter = 0; filter < c->filters; filter += TILE) {
            __m512 bias = add ? _mm512_loadu_ps(db + filter) : _mm512_setzero_ps();
            for (int row = 0; row < rows; row++)
                bias = spread16(dy + row_at[row] * c->filters + filter, out, c->filters, bias,
                                a + ((long)filter * most + row * TILE) * out);
            _mm512_storeu_ps(db + filter, bias);
        }
        for (int row = 0; row < rows; row++) row_at[row] -= begin;
        long pixels = row_at[rows - 1] + out + last_shift(c);
        for (int channel = 0; channel < c->channels; channel += BESIDE * TILE) {
            const bf16 *from = in + begin * c->channels + channel;
            spread16(from, pixels, c->channels, _mm512_setzero_ps(), b0);
            if (BESIDE > 1) spread16(from + TILE, pixels, c->channels, _mm512_setzero_ps(), b1);
            for (int tap = 0; tap < taps; tap++) {
                long number_at = (long)tap * c->channels + channel, later = (long)shift_of(c, tap) * TILE;
                long to0 = unfolded(c, number_at), to1 = BESIDE > 1 ? unfolded(c, number_at + TILE) : to0;
                for (int filter = 0; filter < c->filters; filter += TILE) {
                    const float *of = a + (long)filter * most * out;
#define OF_FILTERS(at, count) \
    gradients_of(count, BESIDE > 1, dw + (filter + at) * weights + to0, dw + (filter + at) * weights + to1, weights, add, of + at, \
                 b0 + later, b1 + later, row_at, rows, out);
#ifdef WITH_AVX2
                    OF_FILTERS(0, 6) OF_FILTERS(6, 5) OF_FILTERS(11, 5)
#else
                    OF_FILTERS(0, 8) OF_FILTERS(8, 8)
#endif
#undef OF_FILTERS
                }
            }
        }
    }
    end_tiles(&acc);
}
