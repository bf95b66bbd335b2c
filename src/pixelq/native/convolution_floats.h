// A convolution's products of float32 numbers, each widened from bfloat16 once. Included by convolution.h.

#pragma once

enum {
    FILTER_WORDS = 2 * WORDS,  // in 16 packed filters of 32 weights
    NEAR = 128,                // pixels whose gradients are packed at once, so that they stay in the L1 cache
};

// Two rows of a packed tile of filters, from their pairs.
static inline void store_pairs(__m512i pairs, long row, uint32_t *packed) {
    _mm512_storeu_si512(packed + 2 * row * TILE, _mm512_slli_epi32(pairs, 16));
    _mm512_storeu_si512(packed + (2 * row + 1) * TILE, _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff0000)));
}

// The inputs of a filter row at 16 consecutive positions are contiguous, and those of neighbours overlap.
static long strip_numbers(const convolution *c) { return (TILE - 1 + c->kernel) * (long)c->channels; }

static inline int products_at_once(const convolution *c) { return slices(c); }

static inline void begin_sums(accumulators *acc, float *sums) { (void)acc, memset(sums, 0, 4 * WORDS * sizeof(float)); }

static inline void end_sums(accumulators *acc, float *sums) { (void)acc, (void)sums; }

// Multiply a filter row's inputs at two times 16 positions by one or two tiles of filters.
static inline __attribute__((always_inline)) void add_products(
    accumulators *acc, float *sums, const convolution *c, const char *a0, const char *a1, int slice,
    const char *b0, const char *b1, int many, float *strip
) {
    (void)acc, (void)slice;
    long numbers = strip_numbers(c);
    for (int i = 0; i < 2; i++, sums += 2 * WORDS) {
        const bf16 *from = (const bf16 *)(i ? a1 : a0);
        for (long at = 0; at < numbers; at += TILE)
            _mm512_storeu_ps(strip + at, widen(_mm256_loadu_si256((const __m256i *)(from + at))));
        ORDER();
        multiply_tile(sums, sums + WORDS, (const char *)strip, c->channels * 4L, 4, DEPTH * 4, b0, b1, FILTER_WORDS * 4,
                      slices(c), many - 1);
    }
}

static int most_pixels(const convolution *c) { return (void)c, NEAR; }

static long packed_gradient_numbers(const convolution *c) {  // in bfloat16 numbers
    return 2 * (c->filters * (long)NEAR + DEPTH * (NEAR + shift_of(c, c->kernel * c->kernel - 1)));
}

// 16 numbers of each of `all` pixels, zeros from pixel `count` on, as [all][16]. Returns their sum over pixels, from `sum` on.
static inline __m512 spread16(const bf16 *from, int count, int all, long pixel, __m512 sum, float *to) {
    for (int at = 0; at < all; at++, from += pixel, to += TILE) {
        __m512 numbers = at < count ? widen(_mm256_loadu_si256((const __m256i *)from)) : _mm512_setzero_ps();
        sum = _mm512_add_ps(sum, numbers);
        _mm512_storeu_ps(to, numbers);
    }
    return sum;
}

// Filter gradients dw [filters][weights] and db [filters], set or added to, from `pixels` pixels of the output's gradient and
// of the input; `left` pixels of the input are valid. The gradient has the input's layout, [in_w][in_w][filters] an image,
// with zeros past the output. So a tap's gradient is a product with the input some pixels later, and the input is packed
// once for all taps.
static void filter_gradients(
    const convolution *c, int pixels, int left, const bf16 *in, const bf16 *dy, float *dw, float *db, int add, bf16 *scratch
) {
    int steps = (pixels + DEPTH - 1) / DEPTH, deep = steps * DEPTH, taps = c->kernel * c->kernel;
    int reach = deep + shift_of(c, taps - 1);
    long all = weights_of(c);
    float *a = (float *)scratch, *b0 = a + (long)c->filters * deep, *b1 = b0 + (long)reach * TILE;
    __m512 none = _mm512_setzero_ps();
    for (int filter = 0; filter < c->filters; filter += TILE) {
        __m512 bias = add ? _mm512_loadu_ps(db + filter) : none;
        _mm512_storeu_ps(db + filter, spread16(dy + filter, pixels, deep, c->filters, bias, a + (long)filter * deep));
    }
    accumulators acc;
    begin_tiles(&acc);
    for (int channel = 0; channel < c->channels; channel += DEPTH) {
        spread16(in + channel, left, reach, c->channels, none, b0);
        spread16(in + channel + TILE, left, reach, c->channels, none, b1);
        ORDER();
        for (int tap = 0; tap < taps; tap++) {
            const char *from0 = (const char *)(b0 + shift_of(c, tap) * TILE), *from1 = (const char *)(b1 + shift_of(c, tap) * TILE);
            long number_at = (long)tap * c->channels + channel, to0 = unfolded(c, number_at), to1 = unfolded(c, number_at + TILE);
            for (int filter = 0; filter < c->filters; filter += TILE) {
                float *to = dw + filter * all;
                zero_tiles(&acc);
                if (add) load_tiles(&acc, to + to0, to + to1, NULL, NULL, all * 4, 1);
                multiply_tile(acc.c[0], acc.c[1], (const char *)(a + (long)filter * deep), 4, TILE * 4, DEPTH * TILE * 4,
                              from0, from1, DEPTH * TILE * 4, steps, 1);
                store_tiles(&acc, to + to0, to + to1, NULL, NULL, all * 4, 1);
            }
        }
    }
    end_tiles(&acc);
}
