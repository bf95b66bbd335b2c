// A convolution's products of pairs of bfloat16 numbers. Included by convolution.h.

#pragma once

enum { NEAR = 192 };  // filters times steps of gradients that are packed at once

static int slices(const convolution *c) { return c->kernel * c->channels / DEPTH; }  // in a filter's input from one row

static long image_floats(const convolution *c) { return (void)c, 0; }

// Sums of two times 16 positions by two tiles of filters, [2][2][16][16], with the first position, and the offset of the
// image's output from the first image's.
typedef struct {
    _Alignas(64) float sums[4 * WORDS];
    int at[2];
    long image[2];
} block;

static inline __attribute__((always_inline)) void finish_tile(const block *b, int i, int j, const filters16 *by, ending e) {
    const float *sums = b->sums + (2 * i + j) * WORDS;
    __m512 bias = bias_of(by, e);
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++)  // no branches: a wrong prediction would restart products that have begun
        finish(_mm512_loadu_ps(sums + r * TILE), bias, b->at[i] + r, b->image[i], by, e);
}

// Convolve images with the given tiles of filters; on the way back all images are one row. A block's outputs are computed from
// its sums between the products of the next block, where the processor would only wait.
static inline __attribute__((always_inline)) void convolve(
    const convolution *c, int images, const bf16 *in, int tiles, const filters16 *by, ending e, float *floats
) {
    (void)floats;
    int each = (c->positions + TILE - 1) / TILE, pieces = e.back ? each : images * each, deep = slices(c);
    long row = (long)c->in_w * c->channels * sizeof(bf16), pixel = c->channels * sizeof(bf16);
    block blocks[2];
    accumulators acc;
    begin_tiles(&acc);
    for (int tile = 0; tile < tiles; tile += 2) {
        int many = tile + 1 < tiles ? 2 : 1, every = c->kernel * deep / (2 * many), unfinished = 0;
        const filters16 *two = by + tile;
        for (int first = 0; first < pieces; first += 2) {
            block *now = blocks + first / 2 % 2, *before = blocks + !(first / 2 % 2);
            const char *a0, *a1, *b0 = (const char *)two[0].packed, *b1 = (const char *)two[many - 1].packed;
            for (int i = 0; i < 2; i++) {  // the last tile twice, if their number is odd
                int number = first + i < pieces ? first + i : first, image = number / each, at = number % each * TILE;
                if (at > c->positions - TILE) at = c->positions - TILE;
                now->at[i] = at, now->image[i] = image * c->out_image;
                a0 = a1, a1 = (const char *)(in + image * c->in_image) + at * pixel;
            }
            zero_tiles(&acc);
            int next = 0, until = every;
            for (int ky = 0; ky < c->kernel; ky++, a0 += row, a1 += row)
                for (int slice = 0; slice < deep; slice++, b0 += WORDS * 4, b1 += WORDS * 4) {
                    const char *from0 = a0 + slice * 64, *from1 = a1 + slice * 64;
                    if (many == 2) multiply(&acc, from0, from1, pixel, 64, b0, b1, 64, 1, 2, 2);
                    else multiply(&acc, from0, from1, pixel, 64, b0, b1, 64, 1, 2, 1);
                    for (until--; until <= 0 && next < unfinished; until += every, next++)
                        finish_tile(before, next / many, next % many, two + next % many, e);
                }
            for (; next < unfinished; next++) finish_tile(before, next / many, next % many, two + next % many, e);
            store_sums(&acc, now->sums);
            unfinished = 2 * many;
        }
        const block *last = blocks + (pieces - 1) / 2 % 2;
        for (int next = 0; next < unfinished; next++) finish_tile(last, next / many, next % many, two + next % many, e);
    }
    end_tiles(&acc);
}

// Number of product steps over pixels with gradients packed at once, so that they stay in the L1 cache.
static int near_steps(const convolution *c) { return c->filters < 64 ? NEAR / c->filters : NEAR / 64; }

static int most_pixels(const convolution *c) { return near_steps(c) * DEPTH - 1; }  // one more, if they are shifted

static long packed_gradient_numbers(const convolution *c) {
    long pixels = near_steps(c) * (long)DEPTH;
    return 2 * c->filters * pixels + DEPTH * (pixels + shift_of(c, c->kernel * c->kernel - 1));
}

// Pack the gradients dy [pixels][filters] as A tiles [filters/16][steps], then the same shifted by one pixel. Their sum is
// added to db [filters], or stored there.
static void pack_gradients(
    const convolution *c, int pixels, int steps, const bf16 *dy, float *db, int add, uint32_t *packed
) {
    static const bf16 NONE[TILE] = {0};
    uint32_t *later = packed + c->filters / TILE * steps * (long)WORDS;
    for (int tile = 0; tile < c->filters; tile += TILE) {
        __m512 bias = add ? _mm512_loadu_ps(db + tile) : _mm512_setzero_ps();
        __m512i r[16];
        for (int step = 0; step < steps; step++, packed += WORDS, later += WORDS) {
            for (int i = 0; i < 16; i++) {
                int at = step * DEPTH + 2 * i;
                const bf16 *even = dy + (long)at * c->filters + tile;
                r[i] = weave16(at < pixels ? even : NONE, at + 1 < pixels ? even + c->filters : NONE);
                bias = _mm512_add_ps(bias, _mm512_castsi512_ps(_mm512_slli_epi32(r[i], 16)));
                bias = _mm512_add_ps(bias, _mm512_castsi512_ps(_mm512_and_si512(r[i], _mm512_set1_epi32(0xffff0000))));
            }
            transpose(r);
            for (int i = 0; i < 16; i++) {  // a row is 32 pixels of one filter
                __m512i before = step ? _mm512_loadu_si512(packed - WORDS + i * 16) : _mm512_setzero_si512();
                __m512i word_before = _mm512_alignr_epi32(r[i], before, 15);
                _mm512_storeu_si512(packed + i * 16, r[i]);
                _mm512_storeu_si512(
                    later + i * 16, _mm512_or_si512(_mm512_slli_epi32(r[i], 16), _mm512_srli_epi32(word_before, 16)));
            }
        }
        _mm512_storeu_ps(db + tile, bias);
    }
}

// Filter gradients dw [filters][weights] and db [filters], set or added to, from `pixels` pixels of the output's gradient and
// of the input; `left` pixels of the input are valid. The gradient has the input's layout, [in_w][in_w][filters] an image,
// with zeros past the output. So a tap's gradient is a product with the input some pixels later, and the input is packed
// once for all taps. It is packed in pairs of pixels, so for odd distances the output's gradient is shifted by one pixel.
static void filter_gradients(
    const convolution *c, int pixels, int left, const bf16 *in, const bf16 *dy, float *dw, float *db, int add, bf16 *scratch
) {
    int steps = (pixels + DEPTH) / DEPTH, taps = c->kernel * c->kernel;  // one pixel more, if it is shifted
    int tiles = c->filters / TILE;
    long all = weights_of(c), next = (long)steps * WORDS * 4;
    uint32_t *a = (uint32_t *)scratch, *b0 = a + 2L * tiles * steps * WORDS;
    long words = (steps * DEPTH + shift_of(c, taps - 1)) / 2 * 16L;  // for half of a product's channels
    uint32_t *b1 = b0 + words;
    pack_gradients(c, pixels, steps, dy, db, add, a);
    accumulators acc;
    begin_tiles(&acc);
    for (int channel = 0; channel < c->channels; channel += DEPTH) {
        static const bf16 NONE[DEPTH] = {0};
        for (int at = 0; at < words / 8; at += 2) {
            const bf16 *even = in + (long)at * c->channels + channel;
            weave32(at < left ? even : NONE, at + 1 < left ? even + c->channels : NONE, b0 + at * 8, b1 + at * 8);
        }
        ORDER();
        for (int number = 0; number < 2 * taps; number++) {  // taps at an even distance in pixels come first
            int tap = number % taps, shift = shift_of(c, tap), odd = shift % 2;
            if (odd != number / taps) continue;
            const char *from0 = (const char *)(b0 + shift / 2 * 16), *from1 = (const char *)(b1 + shift / 2 * 16);
            long number_at = (long)tap * c->channels + channel, to0 = unfolded(c, number_at), to1 = unfolded(c, number_at + TILE);
            for (int tile = 0; tile < tiles; tile += 2) {
                int many = tile + 1 < tiles ? 2 : 1;
                const char *a0 = (const char *)a + (odd * tiles + tile) * next;
                float *to = dw + tile * TILE * all, *more = to + TILE * all;
                zero_tiles(&acc);
                if (add) load_tiles(&acc, to + to0, to + to1, more + to0, more + to1, all * 4, many);
                if (many > 1) multiply(&acc, a0, a0 + next, 64, WORDS * 4, from0, from1, WORDS * 4, steps, 2, 2);
                else multiply(&acc, a0, a0, 64, WORDS * 4, from0, from1, WORDS * 4, steps, 1, 2);
                store_tiles(&acc, to + to0, to + to1, more + to0, more + to1, all * 4, many);
            }
        }
    }
    end_tiles(&acc);
}

// The same from `images` images, in runs of pixels that ignore the images' ends.
static void all_filter_gradients(
    const convolution *c, int images, const bf16 *in, const bf16 *dy, float *dw, float *db, int add, bf16 *scratch
) {
    int all = images * c->in_w * c->in_w, most = most_pixels(c);
    for (int first = 0; first < all; first += most) {
        int part = all - first < most ? all - first : most;
        const bf16 *from = in + (long)first * c->channels;
        filter_gradients(c, part, all - first, from, dy + (long)first * c->filters, dw, db, add || first, scratch);
    }
}
