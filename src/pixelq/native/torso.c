// Three convolutions with a ReLU after each, forward and back.
//
// Arrays are dense and lie in memory as comments say, channels last. Nothing is copied to make a matrix product of a
// convolution: what a filter sees of one row of pixels is contiguous, so 32 numbers of it are a row of a tile, and what
// it sees from the next pixel on is a fixed number of bytes away.

#include "layers.h"

enum {
    BLOCK = 8,              // images worked on at once, so that they stay in a core's cache
    NEAR = 256,             // pixels whose gradients are packed at once, if an image has no more
    MOST_PIXELS = 21 * 20,  // of an image that are packed
    PIECE = 1024,           // gradients that one thread adds up at once
    SHARES = 4,             // parts of a batch with sums of their own, so that sums do not depend on the number of threads
};

// Pixels of an image, [4][84][84] bytes to [84][84][4] bfloat16, 0 to 255.
static void weave_planes(const uint8_t *planes, bf16 *woven) {
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    for (int at = 0; at < SIDE * SIDE; at += 16) {
        __m512i p[4];
        for (int i = 0; i < 4; i++) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)(planes + i * SIDE * SIDE + at));
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
    team_loop *tiles = team_share();
    for (long tile; (tile = team_take(tiles)) < c->filters / TILE;)
        pack_rows(weight + tile * TILE * depth, TILE, depth, depth, packed + tile * depth / DEPTH * WORDS);
}

// Weights [outputs][taps][inputs] of a convolution as B tiles of the one that leads back from its outputs to its
// inputs; tap t of the way back is tap `tap[t]` of the way there: [inputs/16][taps back][outputs/32].
static void pack_filters_back(
    const bf16 *weight, int outputs, int taps, int inputs, const int *tap, int taps_back, uint32_t *packed
) {
    team_loop *tiles = team_share();
    for (long tile; (tile = team_take(tiles)) < inputs / TILE;) {
        uint32_t *to = packed + tile * taps_back * (outputs / DEPTH) * WORDS;
        for (int t = 0; t < taps_back; t++)
            for (int o = 0; o < outputs; o += 2, to += 16) {
                const bf16 *from = weight + ((long)o * taps + tap[t]) * inputs + tile * TILE;
                _mm512_storeu_si512(to, weave16(from, from + (long)taps * inputs));
            }
    }
}

// 16 filters, and what becomes of their sums.
typedef struct {
    const uint32_t *packed;
    bf16 *out;
    const bf16 *bias, *active;
} filters16;

// Those of a convolution, one after the other.
static void all_filters(
    const convolution *c, const uint32_t *packed, bf16 *out, const bf16 *bias, const bf16 *active, filters16 *to
) {
    for (int tile = 0; tile < c->filters / TILE; tile++) {
        long at = (long)tile * TILE;
        to[tile] = (filters16){packed + (long)tile * c->kernel * slices(c) * WORDS, out + at, bias ? bias + at : NULL,
                               active ? active + at : NULL};
    }
}

// Convolve images by so many tiles of filters. Forward (bias given): output = max(0, scale · sum + bias). Back: output =
// sum where `active` > 0, `active` lying as the output does, but for its images.
static void convolve(
    const convolution *c, int images, const bf16 *in, int tiles, const filters16 *by, float scale, long active_image,
    long active_row, long active_pixel
) {
    int across = (c->out + TILE - 1) / TILE, rows = c->out / across, deep = slices(c);
    int pieces = images * c->out * across;
    long in_row = (long)c->in_w * c->channels, a_row = (long)c->stride * c->channels * sizeof(bf16);
    float sums[4 * WORDS];
    configure(rows);
    for (int tile = 0; tile < tiles; tile += 2) {
        int many_b = tile + 1 < tiles ? 2 : 1;
        const filters16 *two = by + tile;
        const char *b0 = (const char *)two[0].packed, *b1 = (const char *)two[many_b - 1].packed;
        for (int piece = 0; piece < pieces; piece += 2) {
            int many_a = piece + 1 < pieces ? 2 : 1;
            const bf16 *a[2] = {in, in};
            long to[2], mask[2];
            for (int i = 0; i < many_a; i++) {
                int x = (piece + i) % across * rows, y = (piece + i) / across % c->out, image = (piece + i) / across / c->out;
                a[i] = in + image * c->in_image + y * c->stride * in_row + (long)x * c->stride * c->channels;
                to[i] = image * c->out_image + y * c->out_row + x * c->out_pixel;
                mask[i] = image * active_image + y * active_row + x * active_pixel;
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
                    const bf16 *bias = two[j].bias;
                    __m512 shift = _mm512_setzero_ps();
                    if (bias) shift = widen(_mm256_loadu_si256((const __m256i *)bias));
                    for (int r = 0; r < rows; r++) {
                        __m512 sum = _mm512_loadu_ps(sums + (2 * i + j) * WORDS + r * TILE);
                        if (bias) {
                            sum = _mm512_max_ps(_mm512_fmadd_ps(sum, _mm512_set1_ps(scale), shift), _mm512_setzero_ps());
                        } else {
                            __m256i on = _mm256_loadu_si256((const __m256i *)(two[j].active + mask[i] + r * active_pixel));
                            sum = _mm512_maskz_mov_ps(_mm256_cmpgt_epi16_mask(on, _mm256_setzero_si256()), sum);
                        }
                        _mm256_storeu_si256(
                            (__m256i *)(two[j].out + to[i] + r * c->out_pixel), (__m256i)_mm512_cvtneps_pbh(sum));
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

enum { PAD2 = OUT2 + 2, PAD3 = OUT3 + 4 };

static convolution layer(int in_w, int channels, int kernel, int stride, int out, int filters) {
    convolution c = {in_w, channels, kernel, stride, out, filters, (long)in_w * in_w * channels,
                     (long)out * out * filters, (long)out * filters, filters};
    return c;
}

// The three convolutions, and numbers of their weights.
typedef struct {
    convolution c1, c2, c3;
    long n1, n2, n3;
} torso;

static torso torso_of(const sizes *s) {
    return (torso){
        layer(SIDE, 4, 8, 4, OUT1, s->f1), layer(OUT1, s->f1, 4, 2, OUT2, s->f2), layer(OUT2, s->f2, 3, 1, OUT3, s->f3),
        256L * s->f1, 16L * s->f1 * s->f2, 9L * s->f2 * s->f3,
    };
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

long torso_packed_bytes(const sizes *s) {
    torso t = torso_of(s);
    return lines((t.n1 + t.n2 + t.n3) * sizeof(bf16));
}

// Images that a thread works on at once: fewer of a small batch, so that there is work for more threads.
static int block_of(int batch) { return batch >= 16 ? BLOCK / 2 : 2; }

long torso_own_bytes(const sizes *s, int batch) {
    int block = block_of(batch);
    return activations_bytes(s, block) + lines(block * (first_size(s) + features_size(s)) * sizeof(bf16));
}

void torso_pack_by_team(const sizes *s, const weights *w, uint32_t *packed) {
    torso t = torso_of(s);
    pack_filters(&t.c1, w->w1, packed);
    pack_filters(&t.c2, w->w2, packed + t.n1 / 2);
    pack_filters(&t.c3, w->w3, packed + (t.n1 + t.n2) / 2);
}

// What one or two networks make of woven images, each convolution with a ReLU. The first one is both networks' at once:
// an image's tiles are loaded for both. `other` has room for what it makes for the second network.
static void features_of(
    const sizes *s, int images, const activations *at, int networks, const seen *by, int first, bf16 *other, bf16 *a3
) {
    torso t = torso_of(s);
    int tiles1 = s->f1 / TILE;
    filters16 filters[2 * tiles1 + (s->f2 + s->f3) / TILE], *f2 = filters + 2 * tiles1, *f3 = f2 + s->f2 / TILE;
    bf16 *a1[2] = {at->a1, other};
    for (int n = 0; n < networks; n++) all_filters(&t.c1, by[n].packed, a1[n], by[n].w->b1, NULL, filters + n * tiles1);
    convolve(&t.c1, images, at->woven, networks * tiles1, filters, 1.0f / 255.0f, 0, 0, 0);
    for (int n = 0; n < networks; n++) {
        const uint32_t *p2 = by[n].packed + t.n1 / 2, *p3 = p2 + t.n2 / 2;
        bf16 *features = by[n].features + first * features_size(s);
        all_filters(&t.c2, p2, at->a2, by[n].w->b2, NULL, f2);
        all_filters(&t.c3, p3, a3, by[n].w->b3, NULL, f3);
        convolve(&t.c2, images, a1[n], s->f2 / TILE, f2, 1.0f, 0, 0, 0);
        convolve(&t.c3, images, at->a2, s->f3 / TILE, f3, 1.0f, 0, 0, 0);
        for (int i = 0; i < images; i++) flatten(s->f3, a3 + i * features_size(s), features + i * features_size(s));
    }
}

// What each of the networks makes of images [batch][4][84][84]; what it makes on the way is kept, if `kept` is given.
void torso_features_by_team(
    const sizes *s, int batch, const uint8_t *obs, int networks, const seen *by, const activations *kept, void *own
) {
    int block = block_of(batch);
    bf16 *other = (bf16 *)((char *)own + activations_bytes(s, block)), *a3 = other + block * first_size(s);
    team_loop *blocks = team_share();
    for (int first; (first = (int)team_take(blocks) * block) < batch;) {
        int images = batch - first < block ? batch - first : block;
        activations at = kept ? activations_from(s, kept, first) : activations_in(s, block, own);
        for (int i = 0; i < images; i++) weave_planes(obs + (long)(first + i) * PIXELS, at.woven + (long)i * PIXELS);
        ORDER();
        features_of(s, images, &at, networks, by, first, other, a3);
    }
}

static void add_up(int count, long size, long distance, const float *shares, float scale, bf16 *to) {
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

// The convolutions that lead back from the gradient of the third layer's output to the second's, and from there to the
// first's. Gradients of the second and third output have a frame of zeros, which the way back reads.
typedef struct {
    convolution back3, back2;
} torso_back;

static torso_back torso_back_of(const sizes *s, torso *t) {
    t->c2.out_row = (long)PAD2 * s->f2, t->c2.out_image = (long)PAD2 * PAD2 * s->f2;
    t->c3.out_row = (long)PAD3 * s->f3, t->c3.out_image = (long)PAD3 * PAD3 * s->f3;
    torso_back b = {layer(PAD3, s->f3, 3, 1, OUT2, s->f2), layer(PAD2, s->f2, 2, 1, OUT1 / 2, s->f1)};
    b.back3.out_image = t->c2.out_image, b.back3.out_row = t->c2.out_row;
    // every other pixel of the second layer's input, in rows and in columns, is a convolution of 2 × 2 by itself
    b.back2.out_image = t->c1.out_image, b.back2.out_row = 2L * OUT1 * s->f1, b.back2.out_pixel = 2L * s->f1;
    return b;
}

static long share_size_of(int batch) { return (batch + SHARES - 1) / SHARES; }

// Numbers of a share: gradients of all filters, then of the biases.
static long share_numbers(const sizes *s) {
    torso t = torso_of(s);
    return t.n1 + t.n2 + t.n3 + s->f1 + s->f2 + s->f3;
}

// Gradients of a block's outputs, framed.
static long framed_numbers(const sizes *s) {
    torso t = torso_of(s);
    torso_back_of(s, &t);
    return (BLOCK * (t.c1.out_image + t.c2.out_image + t.c3.out_image) + 31) / 32 * 32;
}

long torso_packed_back_bytes(const sizes *s) {
    torso t = torso_of(s);
    return lines((t.n2 + t.n3) * sizeof(bf16));
}

long torso_shares_bytes(const sizes *s) { return lines(SHARES * share_numbers(s) * sizeof(float)); }

long torso_own_back_bytes(const sizes *s) {
    long widest = (long)(s->f1 + DEPTH) * (BLOCK * MOST_PIXELS + OUT1 + DEPTH);
    long second = (long)(s->f2 + DEPTH) * (BLOCK * OUT2 * OUT2 + DEPTH);
    long third = (long)(s->f3 + DEPTH) * (BLOCK * SPOTS + DEPTH);
    if (second > widest) widest = second;
    if (third > widest) widest = third;
    return lines((framed_numbers(s) + widest) * sizeof(bf16));
}

void torso_pack_back_by_team(const sizes *s, const weights *w, uint32_t *packed) {
    int taps[9];
    for (int t = 0; t < 9; t++) taps[t] = 8 - t;
    pack_filters_back(w->w3, s->f3, 9, s->f2, taps, 9, packed);
    packed += 9L * s->f2 * s->f3 / 2;
    for (int p = 0; p < 4; p++, packed += 2L * s->f1 * s->f2) {
        for (int t = 0; t < 4; t++) taps[t] = (p / 2 + 2 * (1 - t / 2)) * 4 + p % 2 + 2 * (1 - t % 2);
        pack_filters_back(w->w2, s->f2, 16, s->f1, taps, 4, packed);
    }
}

// Gradients of filters and biases, a part of the batch each, from that of the features, [batch][f3][7][7].
void torso_shares_by_team(
    const sizes *s, int batch, const uint32_t *packed, const activations *all, const bf16 *features, const bf16 *dfeatures,
    float *shares, void *own
) {
    torso t = torso_of(s);
    torso_back b = torso_back_of(s, &t);
    int share_size = (int)share_size_of(batch);
    bf16 *g1 = own, *g2 = g1 + BLOCK * t.c1.out_image, *g3 = g2 + BLOCK * t.c2.out_image, *scratch = g1 + framed_numbers(s);
    memset(own, 0, framed_numbers(s) * sizeof(bf16));
    const uint32_t *p2 = packed + t.n3 / 2;
    filters16 back[(s->f1 > s->f2 ? s->f1 : s->f2) / TILE];
    team_loop *parts = team_share();
    for (int start; (start = (int)team_take(parts) * share_size) < batch;) {
        float *d1 = shares + start / share_size * share_numbers(s), *d2 = d1 + t.n1, *d3 = d2 + t.n2, *e1 = d3 + t.n3,
              *e2 = e1 + s->f1, *e3 = e2 + s->f2;
        int end = start + share_size < batch ? start + share_size : batch;
        for (int first = start; first < end; first += BLOCK) {
            int images = end - first < BLOCK ? end - first : BLOCK, add = first > start;
            activations at = activations_from(s, all, first);
            for (int i = 0; i < images; i++) {
                long from = (first + i) * features_size(s);
                bf16 *inside = g3 + i * t.c3.out_image + 2 * t.c3.out_row + 2L * s->f3;
                spread_active(s->f3, features + from, dfeatures + from, inside, t.c3.out_row);
            }
            ORDER();
            all_filters(&b.back3, packed, g2 + t.c2.out_row + s->f2, NULL, at.a2, back);
            convolve(&b.back3, images, g3, s->f2 / TILE, back, 1.0f, t.c3.in_image, (long)OUT2 * s->f2, s->f2);
            for (int p = 0; p < 4; p++) {
                long corner = (p / 2 * OUT1 + p % 2) * (long)s->f1;
                all_filters(&b.back2, p2 + p * t.n2 / 8, g1 + corner, NULL, at.a1 + corner, back);
                convolve(&b.back2, images, g2, s->f1 / TILE, back, 1.0f, t.c2.in_image, 2L * OUT1 * s->f1, 2L * s->f1);
            }
            all_filter_gradients(&t.c3, images, at.a2, g3 + 2 * t.c3.out_row + 2L * s->f3, d3, e3, add, scratch);
            all_filter_gradients(&t.c2, images, at.a1, g2 + t.c2.out_row + s->f2, d2, e2, add, scratch);
            all_filter_gradients(&t.c1, images, at.woven, g1, d1, e1, add, scratch);
        }
    }
}

// The sums of all parts.
void torso_gradients_by_team(const sizes *s, int batch, const float *shares, const weights *gradients) {
    torso t = torso_of(s);
    const weights *g = gradients;
    int count = (int)((batch + share_size_of(batch) - 1) / share_size_of(batch));
    long step = share_numbers(s);
    bf16 *to[6] = {g->w1, g->w2, g->w3, g->b1, g->b2, g->b3};
    long numbers[6] = {t.n1, t.n2, t.n3, s->f1, s->f2, s->f3};
    for (int i = 0; i < 6; shares += numbers[i++]) {
        team_loop *pieces = team_share();
        for (long at; (at = team_take(pieces) * PIECE) < numbers[i];) {
            long size = numbers[i] - at < PIECE ? numbers[i] - at : PIECE;
            add_up(count, size, step, shares + at, i ? 1.0f : 1.0f / 255.0f, to[i] + at);
        }
    }
}

typedef struct {
    sizes s;
    weights w;
    int batch;
    const uint8_t *obs;
    const activations *kept;  // for the way back, or NULL
    bf16 *features;
    uint32_t *packed;
    char *own;
    long own_bytes;
} forward;

static void forward_by_team(void *of) {
    const forward *f = of;
    char *own = f->own + team_member() * f->own_bytes;
    torso_pack_by_team(&f->s, &f->w, f->packed);
    team_wait();
    seen by = {&f->w, f->packed, f->features};
    torso_features_by_team(&f->s, f->batch, f->obs, 1, &by, f->kept, own);
}

// Three convolutions, a ReLU after each, of obs [batch][4][84][84]; `woven`, `a1` and `a2` are kept for the way back, or
// NULL.
long pixelq_torso_forward(
    int batch, int f1, int f2, int f3, const uint8_t *obs, bf16 *w1, bf16 *b1, bf16 *w2, bf16 *b2, bf16 *w3, bf16 *b3,
    bf16 *woven, bf16 *a1, bf16 *a2, bf16 *features
) {
    activations kept = {woven, a1, a2};
    forward f = {.s = {f1, f2, f3, 0, 0}, .w = {w1, b1, w2, b2, w3, b3}, .batch = batch, .obs = obs,
                 .kept = woven ? &kept : NULL, .features = features};
    f.own_bytes = torso_own_bytes(&f.s, batch);
    char *scratch = aligned_alloc(64, torso_packed_bytes(&f.s) + team_threads * f.own_bytes);
    if (!scratch) return 1;
    f.packed = (uint32_t *)scratch, f.own = scratch + torso_packed_bytes(&f.s);
    team_run(team_threads, forward_by_team, &f);
    free(scratch);
    return 0;
}

typedef struct {
    sizes s;
    weights w, gradients;
    int batch;
    activations all;
    const bf16 *features, *dfeatures;
    uint32_t *packed;
    float *shares;
    char *own;
} backward;

static void backward_by_team(void *of) {
    const backward *b = of;
    torso_pack_back_by_team(&b->s, &b->w, b->packed);
    team_wait();
    torso_shares_by_team(&b->s, b->batch, b->packed, &b->all, b->features, b->dfeatures, b->shares,
                         b->own + team_member() * torso_own_back_bytes(&b->s));
    team_wait();
    torso_gradients_by_team(&b->s, b->batch, b->shares, &b->gradients);
}

// Gradients of the weights from that of the features, [batch][f3][7][7], and what was kept on the way there.
long pixelq_torso_backward(
    int batch, int f1, int f2, int f3, bf16 *w2, bf16 *w3, bf16 *woven, bf16 *a1, bf16 *a2, const bf16 *features,
    const bf16 *dfeatures, bf16 *dw1, bf16 *db1, bf16 *dw2, bf16 *db2, bf16 *dw3, bf16 *db3
) {
    backward b = {.s = {f1, f2, f3, 0, 0}, .w = {.w2 = w2, .w3 = w3}, .gradients = {dw1, db1, dw2, db2, dw3, db3},
                  .batch = batch, .all = {woven, a1, a2}, .features = features, .dfeatures = dfeatures};
    long packed = torso_packed_back_bytes(&b.s), shared = packed + torso_shares_bytes(&b.s);
    char *scratch = aligned_alloc(64, shared + team_threads * torso_own_back_bytes(&b.s));
    if (!scratch) return 1;
    b.packed = (uint32_t *)scratch, b.shares = (float *)(scratch + packed), b.own = scratch + shared;
    team_run(team_threads, backward_by_team, &b);
    free(scratch);
    return 0;
}
