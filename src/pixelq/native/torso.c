// Three convolutions with a ReLU after each, forward and backward.
//
// Arrays are dense, channels last, with shapes as in the comments. The pixels of a filter's step are folded into one pixel
// with as many times the channels, so that every convolution has stride 1. Then a filter's inputs from one row are
// contiguous, and the inputs at the next pixel begin one pixel later. So a convolution is a matrix product without copies:
// 32 numbers of each of 16 consecutive pixels are a tile. Tiles run over the ends of rows, where a few sums are unused: an
// output [out][out] has its places at y · (width of the input) + x.

#include "layers.h"

#include <math.h>

enum {
    BLOCK = 8,     // images in one turn, so that they stay in a core's cache
    NEAR = 192,    // filters times steps of gradients that are packed at once
    PIECE = 1024,  // gradients that are summed in one turn
    SHARES = 4,    // parts of a batch with separate sums, so that sums do not depend on the number of threads
    IN1 = SIDE / 4,
    IN2 = OUT1 / 2,
    IN3 = OUT2,
};

// Convert an image's pixels from [4][84][84] bytes to [21][21] of [4][4][4] bfloat16, less the background. Differences of
// bytes need no rounding.
static void weave_planes(const uint8_t *planes, const float *background, bf16 *woven) {
    __m512 dark = _mm512_set1_ps(background ? *background : 0.0f);
    for (int y = 0; y < SIDE; y++)
        for (int part = 0; part < 6; part++) {
            int x = part < 5 ? part * 16 : SIDE - 16;
            __m512i p[4];
            for (int i = 0; i < 4; i++) {
                __m128i bytes = _mm_loadu_si128((const __m128i *)(planes + (i * SIDE + y) * SIDE + x));
                p[i] = _mm512_castps_si512(_mm512_sub_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)), dark));
            }
            __m512i low = _mm512_or_si512(_mm512_srli_epi32(p[0], 16), p[1]);
            __m512i high = _mm512_or_si512(_mm512_srli_epi32(p[2], 16), p[3]);
            __m512i left, right;
            interleave_words(low, high, &left, &right);
            bf16 *to = woven + (y / 4 * IN1 + x / 4) * 64L + y % 4 * 16;
            _mm256_storeu_si256((__m256i *)to, _mm512_castsi512_si256(left));
            _mm256_storeu_si256((__m256i *)(to + 64), _mm512_extracti64x4_epi64(left, 1));
            _mm256_storeu_si256((__m256i *)(to + 128), _mm512_castsi512_si256(right));
            _mm256_storeu_si256((__m256i *)(to + 192), _mm512_extracti64x4_epi64(right, 1));
        }
}

// Input [images][in_w][in_w][channels], filters of kernel × kernel. A pixel of the input has `fold` × `fold` original pixels
// of channels / fold². The weights are stored for the original pixels:
// [filters][fold · kernel][fold · kernel][channels / fold²].
typedef struct {
    int in_w, channels, kernel, fold, filters;
    int positions;  // output positions of an image, [filters] each
    long in_image, out_image;
} convolution;

static int slices(const convolution *c) { return c->kernel * c->channels / DEPTH; }  // in a filter's input from one row

static long weights_of(const convolution *c) { return (long)c->kernel * c->kernel * c->channels; }  // of one filter

// The offset in a filter's weights of 16 numbers of its input [kernel][kernel][channels].
static long unfolded(const convolution *c, long number) {
    int run = c->channels / c->fold;  // adjacent numbers of an original row in a folded pixel
    long tap = number / c->channels, inside = number % c->channels;
    long y = tap / c->kernel * c->fold + inside / run;
    return (y * c->kernel + tap % c->kernel) * run + inside % run;
}

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
            transpose_to(r, packed + (tile * all + at) / DEPTH * WORDS);
        }
}

// Pack weights [outputs][taps][inputs] as B tiles of the backward convolution, from outputs to inputs:
// [inputs/16][taps back][outputs/32]. Backward tap t is forward tap `tap[t]`.
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
        to[tile] = (filters16){packed + at * weights_of(c) / 2, out + at, bias ? bias + at : NULL,
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

// Sums of two times 16 positions by two tiles of filters, [2][2][16][16], with the first position, and the offset of the
// image's output from the first image's.
typedef struct {
    _Alignas(64) float sums[4 * WORDS];
    int at[2];
    long image[2];
} block;

// The use of sums. Forward: output = max(least, scale · sum + bias). Backward: output = sum where `active` > 0; `active` has
// the same positions, `active_pixel` numbers apart. `places` maps positions to the output.
typedef struct {
    const int32_t *places;
    float scale, least;
    long active_pixel;
    int back;
} ending;

static inline __attribute__((always_inline)) void finish(const block *b, int i, int j, const filters16 *by, ending e) {
    const float *sums = b->sums + (2 * i + j) * WORDS;
    __m512 shift = e.back ? _mm512_setzero_ps() : widen(_mm256_loadu_si256((const __m256i *)by->bias));
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++) {  // no branches: a wrong prediction would restart products that have begun
        __m512 sum = _mm512_loadu_ps(sums + r * TILE);
        if (e.back) {
            __m256i on = _mm256_loadu_si256((const __m256i *)(by->active + (b->at[i] + r) * e.active_pixel));
            sum = _mm512_maskz_mov_ps(_mm256_cmpgt_epi16_mask(on, _mm256_setzero_si256()), sum);
        } else {
            sum = _mm512_max_ps(_mm512_fmadd_ps(sum, _mm512_set1_ps(e.scale), shift), _mm512_set1_ps(e.least));
        }
        bf16 *to = by->out + b->image[i] + e.places[b->at[i] + r];
        _mm256_storeu_si256((__m256i *)to, narrow(sum));
    }
}

// Convolve images with the given tiles of filters. A block's outputs are computed from its sums between the products of
// the next block, where the processor would only wait.
static inline __attribute__((always_inline)) void convolve(
    const convolution *c, int images, const bf16 *in, int tiles, const filters16 *by, ending e
) {
    int each = (c->positions + TILE - 1) / TILE, pieces = images * each, deep = slices(c);
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
                    if (many == 2) multiply(&acc, a0 + slice * 64, a1 + slice * 64, pixel, 64, b0, b1, 64, 1, 2, 2);
                    else multiply(&acc, a0 + slice * 64, a1 + slice * 64, pixel, 64, b0, b1, 64, 1, 2, 1);
                    if (--until > 0 || next >= unfinished) continue;
                    finish(before, next / many, next % many, two + next % many, e);
                    next++, until = every;
                }
            for (; next < unfinished; next++) finish(before, next / many, next % many, two + next % many, e);
            store_sums(&acc, now->sums);
            unfinished = 2 * many;
        }
        const block *last = blocks + (pieces - 1) / 2 % 2;
        for (int next = 0; next < unfinished; next++) finish(last, next / many, next % many, two + next % many, e);
    }
    end_tiles(&acc);
}

static void convolve_forward(
    const convolution *c, int images, const bf16 *in, int tiles, const filters16 *by, const int32_t *places, float scale,
    int relu
) {
    convolve(c, images, in, tiles, by, (ending){places, scale, relu ? 0.0f : -INFINITY, 0, 0});
}

static void convolve_back(
    const convolution *c, const bf16 *in, int tiles, const filters16 *by, const int32_t *places, long active_pixel
) {
    convolve(c, 1, in, tiles, by, (ending){places, 1.0f, 0.0f, active_pixel, 1});
}

static int shift_of(const convolution *c, int tap) { return tap / c->kernel * c->in_w + tap % c->kernel; }  // in pixels

// Number of product steps over pixels with gradients packed at once, so that they stay in the L1 cache.
static int near_steps(const convolution *c) { return c->filters < 64 ? NEAR / c->filters : NEAR / 64; }

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
    int all = images * c->in_w * c->in_w, most = near_steps(c) * DEPTH - 1;
    for (int first = 0; first < all; first += most) {
        int part = all - first < most ? all - first : most;
        const bf16 *from = in + (long)first * c->channels;
        filter_gradients(c, part, all - first, from, dy + (long)first * c->filters, dw, db, add || first, scratch);
    }
}

// The three convolutions, and their numbers of weights.
typedef struct {
    convolution c1, c2, c3;
    long n1, n2, n3;
} torso;

static convolution layer(int in_w, int channels, int kernel, int fold, int out, int filters) {
    return (convolution){in_w, channels, kernel, fold, filters, (out - 1) * in_w + out, (long)in_w * in_w * channels,
                         (long)out * out * filters};
}

static torso torso_of(const sizes *s) {
    return (torso){layer(IN1, 64, 2, 4, OUT1, s->f1), layer(IN2, 4 * s->f1, 2, 2, OUT2, s->f2),
                   layer(IN3, s->f2, 3, 1, OUT3, s->f3), 256L * s->f1, 16L * s->f1 * s->f2, 9L * s->f2 * s->f3};
}

static const int STARTS[4] = {0, 16, 32, SPOTS - 16};  // starts of groups of 16 spots that cover all spots

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

// Places of the three outputs; the first output is folded for the second layer.
typedef struct {
    int32_t of1[IN1 * OUT1], of2[IN2 * OUT2], of3[IN3 * OUT3];
} places;

static void places_forward(const sizes *s, places *p) {
    find_places(OUT1, IN1, 2, 4L * IN2 * s->f1, 4L * s->f1, 2L * s->f1, s->f1, p->of1);
    find_places(OUT2, IN2, 1, (long)IN3 * s->f2, s->f2, 0, 0, p->of2);
    find_places(OUT3, IN3, 1, (long)OUT3 * s->f3, s->f3, 0, 0, p->of3);
}

static long packed_bytes(const sizes *s) {
    torso t = torso_of(s);
    return lines((t.n1 + t.n2 + t.n3) * sizeof(bf16));
}

long torso_packed_bytes(const sizes *s) { return packed_bytes(s) + lines(sizeof(places)); }

// The tiles of packed filters.
static places *places_behind(const sizes *s, const uint32_t *packed) { return (places *)((char *)packed + packed_bytes(s)); }

// Images in one turn: fewer for a small batch, so that more threads have work.
static int block_of(int batch) { return batch >= 16 ? BLOCK / 2 : 2; }

long torso_own_bytes(const sizes *s, int batch) {
    int block = block_of(batch);
    return activations_bytes(s, block) + lines(block * (first_size(s) + features_size(s)) * sizeof(bf16)) + PIXELS;
}

void torso_pack_by_team(const sizes *s, const weights *w, uint32_t *packed) {
    torso t = torso_of(s);
    pack_filters(&t.c1, w->w1, packed);
    pack_filters(&t.c2, w->w2, packed + t.n1 / 2);
    pack_filters(&t.c3, w->w3, packed + (t.n1 + t.n2) / 2);
    team_loop *once = team_share();
    if (team_take(once) == 0) places_forward(s, places_behind(s, packed));
}

// The convolutions of one or two networks on woven images, with a ReLU after each, optionally normalised before it. The first
// convolution runs for both networks at once: an image's tiles are loaded once. `other` is room for its output for the second
// network. Two networks have no norms.
static void features_of(
    const sizes *s, int images, const activations *at, int networks, const seen *by, int first, bf16 *other, bf16 *a3
) {
    torso t = torso_of(s);
    const places *p = places_behind(s, by->packed);
    int tiles1 = s->f1 / TILE;
    filters16 filters[2 * tiles1 + (s->f2 + s->f3) / TILE], *f2 = filters + 2 * tiles1, *f3 = f2 + s->f2 / TILE;
    bf16 *a1[2] = {at->a1, other};
    const norms *n1 = by->norms;
    const before_norms *before = &at->before;
    bf16 *z[3] = {before->sums[0], before->sums[1], before->sums[2]};  // what is normalised, in its place if it isn't kept
    if (!z[0]) z[0] = at->a1, z[1] = at->a2, z[2] = a3;
    for (int n = 0; n < networks; n++)
        all_filters(&t.c1, by[n].packed, n1 ? z[0] : a1[n], by[n].w->b1, NULL, filters + n * tiles1);
    convolve_forward(&t.c1, images, at->woven, networks * tiles1, filters, p->of1, 1.0f / 255.0f, !n1);
    if (n1) norm_forward(s, n1, 0, images, z[0], before->statistics[0], at->a1);
    for (int n = 0; n < networks; n++) {
        const uint32_t *p2 = by[n].packed + t.n1 / 2, *p3 = p2 + t.n2 / 2;
        bf16 *features = by[n].features + first * features_size(s);
        all_filters(&t.c2, p2, z[1], by[n].w->b2, NULL, f2);
        all_filters(&t.c3, p3, z[2], by[n].w->b3, NULL, f3);
        convolve_forward(&t.c2, images, a1[n], s->f2 / TILE, f2, p->of2, 1.0f, !n1);
        if (n1) norm_forward(s, n1, 1, images, z[1], before->statistics[1], at->a2);
        convolve_forward(&t.c3, images, at->a2, s->f3 / TILE, f3, p->of3, 1.0f, !n1);
        if (n1) norm_forward(s, n1, 2, images, z[2], before->statistics[2], a3);
        for (int i = 0; i < images; i++) flatten(s->f3, a3 + i * features_size(s), features + i * features_size(s));
    }
}

// An image's planes [4][84][84]; if they must be read, in `room`, which stays in the L1 cache.
static const uint8_t *planes_of(const images *from, long image, uint8_t *room) {
    if (from->others && image >= from->first_other) return from->others + (image - from->first_other) * PIXELS;
    if (from->bytes) return from->bytes + image * PIXELS;
    for (int plane = 0; plane < 4; plane++)
        if (!from->read(from->store, from->slots[4 * image + plane], (char *)room + plane * SIDE * SIDE))
            atomic_store(from->failed, 1);
    return room;
}

// The features of images for each network; with `kept` the intermediate results are kept.
void torso_features_by_team(
    const sizes *s, int batch, const images *obs, int networks, const seen *by, const activations *kept, void *own
) {
    int block = block_of(batch);
    bf16 *other = (bf16 *)((char *)own + activations_bytes(s, block)), *a3 = other + block * first_size(s);
    uint8_t *room = (uint8_t *)own + torso_own_bytes(s, batch) - PIXELS;
    team_loop *blocks = team_share();
    for (int first; (first = (int)team_take(blocks) * block) < batch;) {
        int count = batch - first < block ? batch - first : block;
        activations at = kept ? activations_from(s, kept, first) : activations_in(s, block, own);
        for (int i = 0; i < count; i++)
            weave_planes(planes_of(obs, first + i, room), obs->background, at.woven + (long)i * PIXELS);
        ORDER();
        features_of(s, count, &at, networks, by, first, other, a3);
    }
}

static void add_up(int count, long size, long distance, const float *shares, float scale, bf16 *to) {
    for (long at = 0; at < size; at += 16) {
        __m512 sum = _mm512_loadu_ps(shares + at);
        for (int share = 1; share < count; share++) sum = _mm512_add_ps(sum, _mm512_loadu_ps(shares + share * distance + at));
        sum = _mm512_mul_ps(sum, _mm512_set1_ps(scale));
        _mm256_storeu_si256((__m256i *)(to + at), narrow(sum));
    }
}

// The gradient of an image's active features [filters][7][7], channels last, in an image [9][9].
static void spread_active(int filters, const bf16 *features, const bf16 *dfeatures, bf16 *to) {
    for (int filter = 0; filter < filters; filter += DEPTH)
        for (int part = 0; part < 4; part++) {
            __m512i r[16];
            for (int i = 0; i < 16; i++) {
                __m512i half[2];
                for (int odd = 0; odd < 2; odd++) {
                    long at = (filter + 2L * i + odd) * SPOTS + STARTS[part];
                    __m256i value = _mm256_loadu_si256((const __m256i *)(features + at));
                    __m256i slope = _mm256_loadu_si256((const __m256i *)(dfeatures + at));
                    __mmask16 on = _mm256_cmpgt_epi16_mask(value, _mm256_setzero_si256());
                    half[odd] = _mm512_cvtepu16_epi32(_mm256_maskz_mov_epi16(on, slope));
                }
                r[i] = _mm512_or_si512(half[0], _mm512_slli_epi32(half[1], 16));
            }
            transpose(r);
            for (int i = 0; i < 16; i++) {
                int spot = STARTS[part] + i;
                _mm512_storeu_si512(to + (spot / OUT3 * IN3 + spot % OUT3) * (long)filters + filter, r[i]);
            }
        }
}

// The backward pass from gradients of a block's outputs. They have the inputs' layout [images][in_w][in_w], with zeros past an
// output. So the zeros after the end of a row or an image also precede the next one, and a convolution runs through all
// images as if they were one row.
typedef struct {
    convolution to2, to1;  // from the third layer's output gradient to the second's; from there to the first's
    long frame2, frame3;   // zeros before the second's and the third's gradients, read from the first position
    long g1, g2, g3;       // numbers of gradients
} way_back;

static way_back way_back_of(const sizes *s, int images) {
    way_back w = {.to2 = layer(IN3, s->f3, 3, 1, OUT3, s->f2), .to1 = layer(IN2, s->f2, 2, 1, OUT2, 4 * s->f1)};
    w.to2.positions = images * IN3 * IN3, w.to1.positions = images * IN2 * IN2;
    w.frame3 = (long)shift_of(&w.to2, 8) * s->f3, w.frame2 = (long)shift_of(&w.to1, 3) * s->f2;
    w.g1 = (long)images * IN1 * IN1 * s->f1, w.g2 = w.to1.positions * (long)s->f2, w.g3 = w.to2.positions * (long)s->f3;
    return w;
}

// Places of a block's gradients, by position.
typedef struct {
    int32_t of2[BLOCK * IN3 * IN3], of1[BLOCK * IN2 * IN2];
} places_back;

static void places_of_way_back(const sizes *s, places_back *p) {
    for (int image = 0; image < BLOCK; image++) {
        for (int at = 0; at < IN3 * IN3; at++)
            p->of2[image * IN3 * IN3 + at] = (image * IN2 * IN2 + at / IN3 * IN2 + at % IN3) * s->f2;
        for (int at = 0; at < IN2 * IN2; at++)  // the first of four, with more rows and columns between
            p->of1[image * IN2 * IN2 + at] = (image * IN1 * IN1 + at / IN2 * 2 * IN1 + at % IN2 * 2) * s->f1;
    }
}

static long share_size_of(int batch) { return (batch + SHARES - 1) / SHARES; }

// Size of a share: gradients of all filters, then of the biases, then of each norm's gains and shifts.
static long share_numbers(const sizes *s, const norms *n) {
    torso t = torso_of(s);
    long numbers = t.n1 + t.n2 + t.n3 + s->f1 + s->f2 + s->f3;
    for (int layer = 0; n && layer < 3; layer++) numbers += 2 * norm_numbers(s, n, layer);
    return numbers;
}

// Gradients of a block's outputs, with their frames of zeros.
static long block_numbers(const sizes *s) {
    way_back w = way_back_of(s, BLOCK);
    return (w.g1 + w.frame2 + w.g2 + w.frame3 + w.g3 + 31) / 32 * 32;
}

long torso_packed_back_bytes(const sizes *s) {
    torso t = torso_of(s);
    return lines((t.n2 + t.n3) * sizeof(bf16));
}

long torso_shares_bytes(const sizes *s, const norms *n) { return lines(SHARES * share_numbers(s, n) * sizeof(float)); }

long torso_own_back_bytes(const sizes *s) {
    torso t = torso_of(s);
    long widest = packed_gradient_numbers(&t.c1), second = packed_gradient_numbers(&t.c2);
    long third = packed_gradient_numbers(&t.c3);
    if (second > widest) widest = second;
    if (third > widest) widest = third;
    return lines((block_numbers(s) + widest) * sizeof(bf16));
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

// A block's gradients, backward through a layer's norm. The gradients of all norms' gains and shifts begin at `to`.
static void normalise_back(
    const sizes *s, const norms *n, int layer, int images, const before_norms *before, bf16 *slopes, float *to, int add
) {
    for (int earlier = 0; earlier < layer; earlier++) to += 2 * norm_numbers(s, n, earlier);
    float *dshift = to + norm_numbers(s, n, layer);
    norm_back(s, n, layer, images, before->sums[layer], before->statistics[layer], slopes, to, dshift, add);
    ORDER();
}

// Gradients of filters, biases and norms for each part of the batch, from the features' gradient [batch][f3][7][7].
void torso_shares_by_team(
    const sizes *s, const norms *n, int batch, const uint32_t *packed, const activations *all, const bf16 *features,
    const bf16 *dfeatures, float *shares, void *own
) {
    torso t = torso_of(s);
    way_back w = way_back_of(s, BLOCK);
    places_back places;
    int share_size = (int)share_size_of(batch), tiles1 = s->f1 / TILE;
    bf16 *frame3 = own, *g3 = frame3 + w.frame3, *frame2 = g3 + w.g3, *g2 = frame2 + w.frame2, *g1 = g2 + w.g2;
    bf16 *scratch = frame3 + block_numbers(s);
    filters16 back2[s->f2 / TILE], back1[4 * tiles1];
    int ready = 0;
    team_loop *parts = team_share();
    for (long turn; (turn = team_take(parts)) * share_size < batch;) {
        int start = (int)turn * share_size;
        if (!ready) {
            places_of_way_back(s, &places);
            memset(own, 0, block_numbers(s) * sizeof(bf16));
            ready = 1;
        }
        float *d1 = shares + turn * share_numbers(s, n), *d2 = d1 + t.n1, *d3 = d2 + t.n2, *e1 = d3 + t.n3,
              *e2 = e1 + s->f1, *e3 = e2 + s->f2, *behind = e3 + s->f3;
        int end = start + share_size < batch ? start + share_size : batch;
        for (int first = start; first < end; first += BLOCK) {
            int images = end - first < BLOCK ? end - first : BLOCK, add = first > start;
            activations at = activations_from(s, all, first);
            for (int i = 0; i < images; i++) {
                long from = (first + i) * features_size(s);
                spread_active(s->f3, features + from, dfeatures + from, g3 + (long)i * IN3 * IN3 * s->f3);
            }
            ORDER();
            w = way_back_of(s, images);
            if (n) normalise_back(s, n, 2, images, &at.before, g3, behind, add);
            all_filters(&w.to2, packed, g2, NULL, at.a2, back2);
            convolve_back(&w.to2, frame3, s->f2 / TILE, back2, places.of2, s->f2);
            if (n) normalise_back(s, n, 1, images, &at.before, g2, behind, add);
            all_filters(&w.to1, packed + t.n3 / 2, g1, NULL, at.a1, back1);
            for (int tile = 0; tile < 4 * tiles1; tile++) {  // a quarter for every other row and column
                int quarter = tile / tiles1;
                back1[tile].out = g1 + (quarter / 2 * IN1 + quarter % 2) * (long)s->f1 + tile % tiles1 * TILE;
            }
            convolve_back(&w.to1, frame2, 4 * tiles1, back1, places.of1, 4L * s->f1);
            if (n) normalise_back(s, n, 0, images, &at.before, g1, behind, add);
            all_filter_gradients(&t.c3, images, at.a2, g3, d3, e3, add, scratch);
            all_filter_gradients(&t.c2, images, at.a1, g2, d2, e2, add, scratch);
            all_filter_gradients(&t.c1, images, at.woven, g1, d1, e1, add, scratch);
        }
    }
}

// Sum the shares of all parts.
void torso_gradients_by_team(
    const sizes *s, int batch, const float *shares, const weights *gradients, const norms *norm_gradients
) {
    torso t = torso_of(s);
    const weights *g = gradients;
    const norms *n = norm_gradients;
    int count = (int)((batch + share_size_of(batch) - 1) / share_size_of(batch)), tensors = 6;
    long step = share_numbers(s, n);
    bf16 *to[12] = {g->w1, g->w2, g->w3, g->b1, g->b2, g->b3};
    long numbers[12] = {t.n1, t.n2, t.n3, s->f1, s->f2, s->f3};
    for (int layer = 0; n && layer < 3; layer++, tensors += 2) {
        to[tensors] = n->gain[layer], to[tensors + 1] = n->shift[layer];
        numbers[tensors] = numbers[tensors + 1] = norm_numbers(s, n, layer);
    }
    for (int i = 0; i < tensors; shares += numbers[i++]) {
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
    images obs;
    const activations *kept;  // for the backward pass, or NULL
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
    seen by = {&f->w, f->packed, f->features, NULL};
    torso_features_by_team(&f->s, f->batch, &f->obs, 1, &by, f->kept, own);
}

// Three convolutions of obs [batch][4][84][84] less the background, with a ReLU after each. `woven`, `a1` and `a2` are kept for
// the backward pass, or NULL.
long pixelq_torso_forward(
    int batch, int f1, int f2, int f3, const uint8_t *obs, const float *background, bf16 *w1, bf16 *b1, bf16 *w2, bf16 *b2,
    bf16 *w3, bf16 *b3, bf16 *woven, bf16 *a1, bf16 *a2, bf16 *features
) {
    activations kept = {.woven = woven, .a1 = a1, .a2 = a2};
    forward f = {.s = {f1, f2, f3, 0, 0}, .w = {w1, b1, w2, b2, w3, b3}, .batch = batch,
                 .obs = {.bytes = obs, .background = background}, .kept = woven ? &kept : NULL, .features = features};
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
    torso_shares_by_team(&b->s, NULL, b->batch, b->packed, &b->all, b->features, b->dfeatures, b->shares,
                         b->own + team_member() * torso_own_back_bytes(&b->s));
    team_wait();
    torso_gradients_by_team(&b->s, b->batch, b->shares, &b->gradients, NULL);
}

// Gradients of the weights, from the features' gradient [batch][f3][7][7] and the results kept by the forward pass.
long pixelq_torso_backward(
    int batch, int f1, int f2, int f3, bf16 *w2, bf16 *w3, bf16 *woven, bf16 *a1, bf16 *a2, const bf16 *features,
    const bf16 *dfeatures, bf16 *dw1, bf16 *db1, bf16 *dw2, bf16 *db2, bf16 *dw3, bf16 *db3
) {
    backward b = {.s = {f1, f2, f3, 0, 0}, .w = {.w2 = w2, .w3 = w3}, .gradients = {dw1, db1, dw2, db2, dw3, db3},
                  .batch = batch, .all = {.woven = woven, .a1 = a1, .a2 = a2}, .features = features, .dfeatures = dfeatures};
    long packed = torso_packed_back_bytes(&b.s), shared = packed + torso_shares_bytes(&b.s, NULL);
    char *scratch = aligned_alloc(64, shared + team_threads * torso_own_back_bytes(&b.s));
    if (!scratch) return 1;
    b.packed = (uint32_t *)scratch, b.shares = (float *)(scratch + packed), b.own = scratch + shared;
    team_run(team_threads, backward_by_team, &b);
    free(scratch);
    return 0;
}
