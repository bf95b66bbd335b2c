// Three convolutions with a ReLU after each, forward and backward.
//
// Arrays are dense, channels last, with shapes as in the comments. The pixels of a filter's step are folded into one pixel
// with as many times the channels, so that every convolution has stride 1. Then a filter's inputs from one row are
// contiguous, and the inputs at the next pixel begin one pixel later. So a convolution is a matrix product without copies:
// its sums are over numbers that lie one after the other. An output [out][out] has its places at y · (width of the input) + x.

#include "convolution.h"

enum {
    BLOCK = 8,     // images in one turn, so that they stay in a core's cache
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
    return lines(packed_words(t.n1 + t.n2 + t.n3) * sizeof(uint32_t));
}

long torso_packed_bytes(const sizes *s) { return packed_bytes(s) + lines(sizeof(places)); }

// The tiles of packed filters.
static places *places_behind(const sizes *s, const uint32_t *packed) { return (places *)((char *)packed + packed_bytes(s)); }

// Images in one turn: fewer for a small batch, so that more threads have work.
static int block_of(int batch) { return batch >= 16 ? BLOCK / 2 : 2; }

static long most_floats_bytes(const convolution *c, int count) {
    long most = 0;
    for (int i = 0; i < count; i++)
        if (image_floats(c + i) > most) most = image_floats(c + i);
    return lines(most * sizeof(float));
}

static long floats_bytes(const sizes *s) {
    torso t = torso_of(s);
    convolution all[3] = {t.c1, t.c2, t.c3};
    return most_floats_bytes(all, 3);
}

long torso_own_bytes(const sizes *s, int batch) {
    int block = block_of(batch);
    long outputs = lines(block * (first_size(s) + features_size(s)) * sizeof(bf16));
    return activations_bytes(s, block) + outputs + floats_bytes(s) + PIXELS;
}

void torso_pack_by_team(const sizes *s, const weights *w, uint32_t *packed) {
    torso t = torso_of(s);
    pack_filters(&t.c1, w->w1, packed);
    pack_filters(&t.c2, w->w2, packed + packed_words(t.n1));
    pack_filters(&t.c3, w->w3, packed + packed_words(t.n1 + t.n2));
    team_loop *once = team_share();
    if (team_take(once) == 0) places_forward(s, places_behind(s, packed));
}

// The convolutions of one or two networks on woven images, with a ReLU after each, optionally normalised before it. The first
// convolution runs for both networks at once: an image's tiles are loaded once. `other` is room for its output for the second
// network. Two networks have no norms.
static void features_of(
    const sizes *s, int images, const activations *at, int networks, const seen *by, int first, bf16 *other, bf16 *a3,
    float *floats
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
    convolve_forward(&t.c1, images, at->woven, networks * tiles1, filters, p->of1, 1.0f / 255.0f, !n1, floats);
    if (n1) norm_forward(s, n1, 0, images, z[0], before->statistics[0], at->a1);
    for (int n = 0; n < networks; n++) {
        const uint32_t *p2 = by[n].packed + packed_words(t.n1), *p3 = p2 + packed_words(t.n2);
        bf16 *features = by[n].features + first * features_size(s);
        all_filters(&t.c2, p2, z[1], by[n].w->b2, NULL, f2);
        all_filters(&t.c3, p3, z[2], by[n].w->b3, NULL, f3);
        convolve_forward(&t.c2, images, a1[n], s->f2 / TILE, f2, p->of2, 1.0f, !n1, floats);
        if (n1) norm_forward(s, n1, 1, images, z[1], before->statistics[1], at->a2);
        convolve_forward(&t.c3, images, at->a2, s->f3 / TILE, f3, p->of3, 1.0f, !n1, floats);
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
    float *floats = (float *)(room - floats_bytes(s));
    team_loop *blocks = team_share();
    for (int first; (first = (int)team_take(blocks) * block) < batch;) {
        int count = batch - first < block ? batch - first : block;
        activations at = kept ? activations_from(s, kept, first) : activations_in(s, block, own);
        for (int i = 0; i < count; i++)
            weave_planes(planes_of(obs, first + i, room), obs->background, at.woven + (long)i * PIXELS);
        ORDER();
        features_of(s, count, &at, networks, by, first, other, a3, floats);
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
    return lines(packed_words(t.n2 + t.n3) * sizeof(uint32_t));
}

long torso_shares_bytes(const sizes *s, const norms *n) { return lines(SHARES * share_numbers(s, n) * sizeof(float)); }

static long floats_back_bytes(const sizes *s) {
    way_back w = way_back_of(s, 1);
    convolution all[2] = {w.to2, w.to1};
    return most_floats_bytes(all, 2);
}

long torso_own_back_bytes(const sizes *s) {
    torso t = torso_of(s);
    long widest = packed_gradient_numbers(&t.c1), second = packed_gradient_numbers(&t.c2);
    long third = packed_gradient_numbers(&t.c3);
    if (second > widest) widest = second;
    if (third > widest) widest = third;
    return lines((block_numbers(s) + widest) * sizeof(bf16)) + floats_back_bytes(s);
}

void torso_pack_back_by_team(const sizes *s, const weights *w, uint32_t *packed) {
    int taps[9];
    for (int t = 0; t < 9; t++) taps[t] = 8 - t;
    pack_filters_back(w->w3, s->f3, 9, s->f2, taps, 9, packed);
    packed += packed_words(9L * s->f2 * s->f3);
    for (int p = 0; p < 4; p++, packed += packed_words(4L * s->f1 * s->f2)) {
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
    float *floats = (float *)((char *)own + torso_own_back_bytes(s) - floats_back_bytes(s));
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
            convolve_back(&w.to2, images, frame3, s->f2 / TILE, back2, places.of2, s->f2, floats);
            if (n) normalise_back(s, n, 1, images, &at.before, g2, behind, add);
            all_filters(&w.to1, packed + packed_words(t.n3), g1, NULL, at.a1, back1);
            for (int tile = 0; tile < 4 * tiles1; tile++) {  // a quarter for every other row and column
                int quarter = tile / tiles1;
                back1[tile].out = g1 + (quarter / 2 * IN1 + quarter % 2) * (long)s->f1 + tile % tiles1 * TILE;
            }
            convolve_back(&w.to1, images, frame2, 4 * tiles1, back1, places.of1, 4L * s->f1, floats);
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
