// Three convolutions with a ReLU after each, forward and back.
//
// Arrays are dense and lie in memory as comments say, channels last. Nothing is copied to make a matrix product of a
// convolution: what a filter sees of one row of pixels is contiguous, so 32 numbers of it are a row of a tile, and what
// it sees from the next pixel on is a fixed number of bytes away.

#include "tiles.h"

enum {
    BLOCK = 8,              // images worked on at once, so that they stay in a core's cache
    NEAR = 256,             // pixels whose gradients are packed at once, if an image has no more
    MOST_PIXELS = 21 * 20,  // of an image that are packed
    SHARES = 4,             // parts of a batch with sums of their own, so that sums do not depend on the number of threads
};

// Pixels of an image, [4][84][84] bytes to [84][84][4] bfloat16, 0 to 255.
static void weave_planes(const uint8_t *planes, bf16 *woven) {
    enum { PIXELS = 84 * 84 };
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    for (int at = 0; at < PIXELS; at += 16) {
        __m512i p[4];
        for (int i = 0; i < 4; i++) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)(planes + i * PIXELS + at));
            p[i] = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)));
        }
        __m512i low = _mm512_or_si512(_mm512_srli_epi32(p[0], 16), p[1]);
        __m512i high = _mm512_or_si512(_mm512_srli_epi32(p[2], 16), p[3]);
        _mm512_storeu_si512(woven + 4 * at, _mm512_permutex2var_epi32(low, first, high));
        _mm512_storeu_si512(woven + 4 * at + 32, _mm512_permutex2var_epi32(low, second, high));
    }
}

// Input [images][in_h][in_w][channels], filters of kernel × kernel, output [images][out × out pixels][filters], whose
// pixels may lie apart: strides in numbers.
typedef struct {
    int in_w, channels, kernel, stride, out, filters;
    long in_image, out_image, out_row, out_pixel;
} convolution;

static int slices(const convolution *c) { return c->kernel * c->channels / DEPTH; }  // of a row that a filter sees

// Weights [filters][kernel][kernel][channels] as B tiles [filters/16][kernel][slices].
static void pack_filters(const convolution *c, const bf16 *weight, uint32_t *packed) {
    int depth = c->kernel * c->kernel * c->channels;
#pragma omp for
    for (int tile = 0; tile < c->filters / TILE; tile++)
        pack_rows(weight + (long)tile * TILE * depth, TILE, depth, depth, packed + (long)tile * depth / DEPTH * WORDS);
}

// Weights [outputs][taps][inputs] of a convolution as B tiles of the one that leads back from its outputs to its
// inputs; tap t of the way back is tap `tap[t]` of the way there: [inputs/16][taps back][outputs/32].
static void pack_filters_back(
    const bf16 *weight, int outputs, int taps, int inputs, const int *tap, int taps_back, uint32_t *packed
) {
#pragma omp for
    for (int tile = 0; tile < inputs / TILE; tile++) {
        uint32_t *to = packed + (long)tile * taps_back * (outputs / DEPTH) * WORDS;
        for (int t = 0; t < taps_back; t++)
            for (int o = 0; o < outputs; o += 2, to += 16) {
                const bf16 *from = weight + ((long)o * taps + tap[t]) * inputs + tile * TILE;
                _mm512_storeu_si512(to, weave16(from, from + (long)taps * inputs));
            }
    }
}

// Convolve images. Forward (bias given): output = max(0, scale · sum + bias). Back: output = sum where `active` > 0,
// `active` lying as the output does, but for its images.
static void convolve(
    const convolution *c, int images, const bf16 *in, const uint32_t *packed, bf16 *out,
    float scale, const bf16 *bias, const bf16 *active, long active_image, long active_row, long active_pixel
) {
    int across = (c->out + TILE - 1) / TILE, rows = c->out / across, deep = slices(c), tiles = c->filters / TILE;
    int pieces = images * c->out * across;
    long in_row = (long)c->in_w * c->channels, a_row = (long)c->stride * c->channels * sizeof(bf16);
    float sums[4 * WORDS];
    configure(rows);
    for (int tile = 0; tile < tiles; tile += 2) {
        int many_b = tile + 1 < tiles ? 2 : 1;
        const char *b0 = (const char *)(packed + (long)tile * c->kernel * deep * WORDS);
        const char *b1 = b0 + (long)c->kernel * deep * WORDS * 4;
        for (int piece = 0; piece < pieces; piece += 2) {
            int many_a = piece + 1 < pieces ? 2 : 1;
            const bf16 *a[2] = {in, in}, *mask[2];
            bf16 *to[2];
            for (int i = 0; i < many_a; i++) {
                int x = (piece + i) % across * rows, y = (piece + i) / across % c->out, image = (piece + i) / across / c->out;
                a[i] = in + image * c->in_image + y * c->stride * in_row + (long)x * c->stride * c->channels;
                to[i] = out + image * c->out_image + y * c->out_row + x * c->out_pixel + tile * TILE;
                mask[i] = active + image * active_image + y * active_row + x * active_pixel + tile * TILE;
            }
            zero_tiles();
            for (int ky = 0; ky < c->kernel; ky++) {
                const char *a0 = (const char *)(a[0] + ky * in_row), *a1 = (const char *)(a[1] + ky * in_row);
                long b = (long)ky * deep * WORDS * 4;
                if (many_a == 2 && many_b == 2) multiply(a0, a1, a_row, 64, b0 + b, b1 + b, WORDS * 4, deep, 2, 2);
                else multiply(a0, a1, a_row, 64, b0 + b, b1 + b, WORDS * 4, deep, many_a, many_b);
            }
            store_tiles(sums);
            for (int i = 0; i < many_a; i++)
                for (int j = 0; j < many_b; j++) {
                    __m512 shift = _mm512_setzero_ps();
                    if (bias) {
                        shift = widen(_mm256_loadu_si256((const __m256i *)(bias + (tile + j) * TILE)));
                    }
                    for (int r = 0; r < rows; r++) {
                        __m512 sum = _mm512_loadu_ps(sums + (2 * i + j) * WORDS + r * TILE);
                        if (bias) {
                            sum = _mm512_max_ps(_mm512_fmadd_ps(sum, _mm512_set1_ps(scale), shift), _mm512_setzero_ps());
                        } else {
                            __m256i on = _mm256_loadu_si256((const __m256i *)(mask[i] + r * active_pixel + j * TILE));
                            sum = _mm512_maskz_mov_ps(_mm256_cmpgt_epi16_mask(on, _mm256_setzero_si256()), sum);
                        }
                        _mm256_storeu_si256(
                            (__m256i *)(to[i] + r * c->out_pixel + j * TILE), (__m256i)_mm512_cvtneps_pbh(sum));
                    }
                }
        }
    }
    _tile_release();
}

// Gradients of filters: dw [filters][kernel][kernel][channels] and db [filters], set or added to, from the input and
// the gradient of the output, for so many images. Scratch: (filters + 32) · pixels numbers of bfloat16, pixels rounded
// up to 32, and one more row of them.
static void filter_gradients(
    const convolution *c, int images, const bf16 *in, const bf16 *dy, float *dw, float *db, int add, bf16 *scratch
) {
    // of a kernel two strides long, the second half sees in one row of output what the first sees in the next; so that is
    // packed once for both, with one more row of pixels, where gradients are zero
    int folds = c->kernel == 2 * c->stride && c->out % 2 == 0 && (c->out + 1) * c->stride <= c->in_w;
    int deep = slices(c), pixels = 0;
    long in_row = (long)c->in_w * c->channels, all = (long)c->kernel * c->kernel * c->channels;
    int32_t in_at[BLOCK * MOST_PIXELS + DEPTH], dy_at[BLOCK * MOST_PIXELS + DEPTH];
    static const bf16 NONE[DEPTH] = {0};
    for (int image = 0; image < images; image++)
        for (int y = 0; y < c->out + folds; y++)
            for (int x = 0; x < c->out; x++, pixels++) {
                in_at[pixels] = image * c->in_image + y * c->stride * in_row + x * c->stride * c->channels;
                dy_at[pixels] = y < c->out ? image * c->out_image + y * c->out_row + x * c->out_pixel : -1;
            }
    int steps = (pixels + DEPTH - 1) / DEPTH;
    for (; pixels < steps * DEPTH; pixels++) in_at[pixels] = 0, dy_at[pixels] = -1;
    long next_row = folds ? c->out / 2 * 16 : 0, words = (long)steps * WORDS + next_row;
    uint32_t *a = (uint32_t *)scratch;  // [filters/16][steps] tiles
    uint32_t *b0 = a + (long)c->filters / TILE * steps * WORDS, *b1 = b0 + words;
    memset(b0 + words - next_row, 0, next_row * 4);
    memset(b1 + words - next_row, 0, next_row * 4);
    for (int tile = 0; tile < c->filters / TILE; tile++) {
        __m512 bias = _mm512_setzero_ps();
        for (int step = 0; step < steps; step++) {
            __m512i r[16];
            for (int i = 0; i < 16; i++) {
                int k = step * DEPTH + 2 * i;
                r[i] = weave16(dy_at[k] < 0 ? NONE : dy + dy_at[k] + tile * TILE,
                               dy_at[k + 1] < 0 ? NONE : dy + dy_at[k + 1] + tile * TILE);
                bias = _mm512_add_ps(bias, _mm512_castsi512_ps(_mm512_slli_epi32(r[i], 16)));
                bias = _mm512_add_ps(bias, _mm512_castsi512_ps(_mm512_and_si512(r[i], _mm512_set1_epi32(0xffff0000))));
            }
            transpose_to(r, a + ((long)tile * steps + step) * WORDS);
        }
        if (add) bias = _mm512_add_ps(bias, _mm512_loadu_ps(db + tile * TILE));
        _mm512_storeu_ps(db + tile * TILE, bias);
    }
    configure(TILE);
    for (int seen = 0; seen < (folds ? c->stride : c->kernel) * deep; seen++) {
        const bf16 *from = in + seen / deep * in_row + seen % deep * DEPTH;
        for (int k = 0; k < steps * DEPTH; k += 2) weave32(from + in_at[k], from + in_at[k + 1], b0 + k * 8, b1 + k * 8);
        ORDER();
        for (int half = 0; half <= folds; half++)
            for (int tile = 0; tile < c->filters / TILE; tile += 2) {
                int many_a = tile + 1 < c->filters / TILE ? 2 : 1;
                const char *a0 = (const char *)(a + (long)tile * steps * WORDS), *a1 = a0 + (long)steps * WORDS * 4;
                const char *from0 = (const char *)(b0 + half * next_row), *from1 = (const char *)(b1 + half * next_row);
                float *to = dw + tile * TILE * all + (seen + half * c->stride * deep) * DEPTH;
                zero_tiles();
                if (add) {
                    _tile_loadd(0, to, all * 4);
                    _tile_loadd(1, to + TILE, all * 4);
                    if (many_a > 1) {
                        _tile_loadd(2, to + TILE * all, all * 4);
                        _tile_loadd(3, to + TILE * all + TILE, all * 4);
                    }
                }
                if (many_a > 1) multiply(a0, a1, 64, WORDS * 4, from0, from1, WORDS * 4, steps, 2, 2);
                else multiply(a0, a1, 64, WORDS * 4, from0, from1, WORDS * 4, steps, 1, 2);
                _tile_stored(0, to, all * 4);
                _tile_stored(1, to + TILE, all * 4);
                if (many_a > 1) {
                    _tile_stored(2, to + TILE * all, all * 4);
                    _tile_stored(3, to + TILE * all + TILE, all * 4);
                }
            }
    }
    _tile_release();
}

// The same of more images, so many at a time that what they are packed into stays in the first cache.
static void all_filter_gradients(
    const convolution *c, int images, const bf16 *in, const bf16 *dy, float *dw, float *db, int add, bf16 *scratch
) {
    int span = NEAR / (c->out * c->out);
    if (span < 1) span = 1;
    for (int first = 0; first < images; first += span) {
        int part = images - first < span ? images - first : span;
        filter_gradients(c, part, in + first * c->in_image, dy + first * c->out_image, dw, db, add || first, scratch);
    }
}

enum { SIDE = 84, OUT1 = 20, OUT2 = 9, OUT3 = 7, PAD2 = OUT2 + 2, PAD3 = OUT3 + 4, SPOTS = OUT3 * OUT3 };

static convolution layer(int in_w, int channels, int kernel, int stride, int out, int filters) {
    convolution c = {in_w, channels, kernel, stride, out, filters, (long)in_w * in_w * channels,
                     (long)out * out * filters, (long)out * filters, filters};
    return c;
}

static const int STARTS[4] = {0, 16, 32, SPOTS - 16};  // of 16 spots each, which are all of them

// The last layer's output [7][7][filters] as features [filters][7][7].
static void flatten(int filters, const bf16 *output, bf16 *features) {
    for (int filter = 0; filter < filters; filter += DEPTH)
        for (int part = 0; part < 4; part++) {
            __m512i r[16];
            for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(output + (STARTS[part] + i) * (long)filters + filter);
            transpose(r);
            for (int i = 0; i < 16; i++) {  // a word holds two filters
                bf16 *to = features + (filter + 2L * i) * SPOTS + STARTS[part];
                _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(r[i]));
                _mm256_storeu_si256((__m256i *)(to + SPOTS), _mm512_cvtepi32_epi16(_mm512_srli_epi32(r[i], 16)));
            }
        }
}

// Three convolutions, a ReLU after each.
//   obs [batch][4][84][84]; w1 [f1][8][8][4], w2 [f2][4][4][f1], w3 [f3][3][3][f2], biases;
//   woven [batch][84][84][4], a1 [batch][20][20][f1] and a2 [batch][9][9][f2] are kept for the way back, or NULL;
//   features [batch][f3][7][7].
int pixelq_torso_forward(
    int batch, int f1, int f2, int f3, const uint8_t *obs, const bf16 *w1, const bf16 *b1, const bf16 *w2,
    const bf16 *b2, const bf16 *w3, const bf16 *b3, bf16 *woven, bf16 *a1, bf16 *a2, bf16 *features
) {
    convolution c1 = layer(SIDE, 4, 8, 4, OUT1, f1), c2 = layer(OUT1, f1, 4, 2, OUT2, f2),
                c3 = layer(OUT2, f2, 3, 1, OUT3, f3);
    long n1 = 256L * f1, n2 = 16L * f1 * f2, n3 = 9L * f2 * f3;
    uint32_t *packed = aligned_alloc(64, (n1 + n2 + n3) * sizeof(bf16));
    if (!packed) return 1;
    uint32_t *p1 = packed, *p2 = p1 + n1 / 2, *p3 = p2 + n2 / 2;
    int failed = 0, block = batch >= 16 ? BLOCK / 2 : 2;
#pragma omp parallel
    {
        long image = c1.in_image + c1.out_image + c2.out_image + c3.out_image;
        bf16 *mine = aligned_alloc(64, (size_t)block * image * sizeof(bf16) + 64);
        if (!mine) {
#pragma omp atomic write
            failed = 1;
        }
        pack_filters(&c1, w1, p1);
        pack_filters(&c2, w2, p2);
        pack_filters(&c3, w3, p3);
#pragma omp for schedule(dynamic, 1)
        for (int first = 0; first < batch; first += block) {
            if (!mine) continue;
            int images = batch - first < block ? batch - first : block;
            bf16 *x = woven ? woven + first * c1.in_image : mine;
            bf16 *y1 = a1 ? a1 + first * c1.out_image : mine + block * c1.in_image;
            bf16 *y2 = a2 ? a2 + first * c2.out_image : mine + block * (c1.in_image + c1.out_image);
            bf16 *y3 = mine + block * (c1.in_image + c1.out_image + c2.out_image);
            for (int i = 0; i < images; i++) weave_planes(obs + (first + i) * c1.in_image, x + i * c1.in_image);
            ORDER();
            convolve(&c1, images, x, p1, y1, 1.0f / 255.0f, b1, x, 0, 0, 0);
            convolve(&c2, images, y1, p2, y2, 1.0f, b2, x, 0, 0, 0);
            convolve(&c3, images, y2, p3, y3, 1.0f, b3, x, 0, 0, 0);
            for (int i = 0; i < images; i++) flatten(f3, y3 + i * (long)SPOTS * f3, features + (first + i) * (long)f3 * SPOTS);
        }
        free(mine);
    }
    free(packed);
    return failed;
}

static void add_up(int count, long size, long distance, const float *shares, float scale, bf16 *to) {
#pragma omp for
    for (long at = 0; at < size; at += 16) {
        __m512 sum = _mm512_loadu_ps(shares + at);
        for (int share = 1; share < count; share++) sum = _mm512_add_ps(sum, _mm512_loadu_ps(shares + share * distance + at));
        sum = _mm512_mul_ps(sum, _mm512_set1_ps(scale));
        _mm256_storeu_si256((__m256i *)(to + at), (__m256i)_mm512_cvtneps_pbh(sum));
    }
}

// The gradient of an image's features [filters][7][7] where they are above zero, channels last, rows `to_row` apart.
static void spread_active(int filters, const bf16 *features, const bf16 *dfeatures, bf16 *to, long to_row) {
    for (int filter = 0; filter < filters; filter += DEPTH)
        for (int part = 0; part < 4; part++) {
            __m512i r[16];
            for (int i = 0; i < 16; i++) {
                __m512i half[2];
                for (int odd = 0; odd < 2; odd++) {
                    long at = (filter + 2L * i + odd) * SPOTS + STARTS[part];
                    __m256i value = _mm256_loadu_si256((const __m256i *)(features + at));
                    __mmask16 on = _mm256_cmpgt_epi16_mask(value, _mm256_setzero_si256());
                    half[odd] = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(on, dfeatures + at));
                }
                r[i] = _mm512_or_si512(half[0], _mm512_slli_epi32(half[1], 16));
            }
            transpose(r);
            for (int i = 0; i < 16; i++) {
                int spot = STARTS[part] + i;
                _mm512_storeu_si512(to + spot / OUT3 * to_row + spot % OUT3 * (long)filters + filter, r[i]);
            }
        }
}

// Gradients of the weights from that of the features, [batch][f3][7][7], and what was kept on the way there.
int pixelq_torso_backward(
    int batch, int f1, int f2, int f3, const bf16 *w2, const bf16 *w3, const bf16 *woven, const bf16 *a1,
    const bf16 *a2, const bf16 *features, const bf16 *dfeatures, bf16 *dw1, bf16 *db1, bf16 *dw2, bf16 *db2,
    bf16 *dw3, bf16 *db3
) {
    convolution c1 = layer(SIDE, 4, 8, 4, OUT1, f1), c2 = layer(OUT1, f1, 4, 2, OUT2, f2),
                c3 = layer(OUT2, f2, 3, 1, OUT3, f3);
    // gradients of the second and third output have a frame of zeros, which the way back reads
    c2.out_row = (long)PAD2 * f2, c2.out_image = (long)PAD2 * PAD2 * f2;
    c3.out_row = (long)PAD3 * f3, c3.out_image = (long)PAD3 * PAD3 * f3;
    convolution back3 = layer(PAD3, f3, 3, 1, OUT2, f2);
    back3.out_image = c2.out_image, back3.out_row = c2.out_row;
    // every other pixel of the second layer's input, in rows and in columns, is a convolution of 2 × 2 by itself
    convolution back2 = layer(PAD2, f2, 2, 1, OUT1 / 2, f1);
    back2.out_image = c1.out_image, back2.out_row = 2L * OUT1 * f1, back2.out_pixel = 2L * f1;
    long n1 = 256L * f1, n2 = 16L * f1 * f2, n3 = 9L * f2 * f3, sums = n1 + n2 + n3 + f1 + f2 + f3;
    uint32_t *packed = aligned_alloc(64, (n2 + n3) * sizeof(bf16));
    float *shares = aligned_alloc(64, SHARES * sums * sizeof(float));
    int failed = !packed || !shares;
    uint32_t *p3 = packed, *p2 = packed + n3 / 2;
    int taps3[9], taps2[4][4];
    for (int t = 0; t < 9; t++) taps3[t] = 8 - t;
    for (int p = 0; p < 4; p++)
        for (int t = 0; t < 4; t++) taps2[p][t] = (p / 2 + 2 * (1 - t / 2)) * 4 + p % 2 + 2 * (1 - t % 2);
    int share_size = (batch + SHARES - 1) / SHARES;
    int count = (batch + share_size - 1) / share_size;
    if (!failed) {
#pragma omp parallel
        {
            long widest = (long)(f1 + DEPTH) * (BLOCK * MOST_PIXELS + OUT1 + DEPTH);
            long other = (long)(f2 + DEPTH) * (BLOCK * OUT2 * OUT2 + DEPTH);
            long third = (long)(f3 + DEPTH) * (BLOCK * SPOTS + DEPTH);
            if (other > widest) widest = other;
            if (third > widest) widest = third;
            long size = BLOCK * (c1.out_image + c2.out_image + c3.out_image);
            bf16 *mine = aligned_alloc(64, ((size + widest) * sizeof(bf16) + 127) / 64 * 64);
            if (!mine) {
#pragma omp atomic write
                failed = 1;
            } else {
                memset(mine, 0, size * sizeof(bf16));
            }
            pack_filters_back(w3, f3, 9, f2, taps3, 9, p3);
            for (int p = 0; p < 4; p++) pack_filters_back(w2, f2, 16, f1, taps2[p], 4, p2 + p * n2 / 8);
#pragma omp for schedule(dynamic, 1)
            for (int share = 0; share < count; share++) {
                if (!mine) continue;
                float *d1 = shares + share * sums, *d2 = d1 + n1, *d3 = d2 + n2, *e1 = d3 + n3, *e2 = e1 + f1, *e3 = e2 + f2;
                bf16 *g1 = mine, *g2 = g1 + BLOCK * c1.out_image, *g3 = g2 + BLOCK * c2.out_image,
                     *scratch = mine + (size + 31) / 32 * 32;
                int end = (share + 1) * share_size < batch ? (share + 1) * share_size : batch;
                for (int first = share * share_size; first < end; first += BLOCK) {
                    int images = end - first < BLOCK ? end - first : BLOCK, add = first > share * share_size;
                    for (int i = 0; i < images; i++) {
                        long from = (first + i) * (long)f3 * SPOTS;
                        spread_active(f3, features + from, dfeatures + from, g3 + i * c3.out_image + 2 * c3.out_row + 2L * f3, c3.out_row);
                    }
                    ORDER();
                    const bf16 *x = woven + first * c1.in_image, *y1 = a1 + first * c2.in_image, *y2 = a2 + first * c3.in_image;
                    convolve(&back3, images, g3, p3, g2 + c2.out_row + f2, 1.0f, NULL,
                             y2, c3.in_image, (long)OUT2 * f2, f2);
                    for (int p = 0; p < 4; p++) {
                        long corner = (p / 2 * OUT1 + p % 2) * (long)f1;
                        convolve(&back2, images, g2, p2 + p * n2 / 8, g1 + corner, 1.0f, NULL,
                                 y1 + corner, c2.in_image, 2L * OUT1 * f1, 2L * f1);
                    }
                    all_filter_gradients(&c3, images, y2, g3 + 2 * c3.out_row + 2L * f3, d3, e3, add, scratch);
                    all_filter_gradients(&c2, images, y1, g2 + c2.out_row + f2, d2, e2, add, scratch);
                    all_filter_gradients(&c1, images, x, g1, d1, e1, add, scratch);
                }
            }
            if (!failed) {
                add_up(count, n1, sums, shares, 1.0f / 255.0f, dw1);
                add_up(count, n2, sums, shares + n1, 1.0f, dw2);
                add_up(count, n3, sums, shares + n1 + n2, 1.0f, dw3);
                add_up(count, f1, sums, shares + n1 + n2 + n3, 1.0f, db1);
                add_up(count, f2, sums, shares + n1 + n2 + n3 + f1, 1.0f, db2);
                add_up(count, f3, sums, shares + n1 + n2 + n3 + f1 + f2, 1.0f, db3);
            }
            free(mine);
        }
    }
    free(packed);
    free(shares);
    return failed;
}
