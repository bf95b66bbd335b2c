// Three convolutions with a ReLU after each, backward: the gradients of their weights.

#include "torso.h"

enum {
    PIECE = 1024,  // gradients that are summed in one turn
    SHARES = 4,    // parts of a batch with separate sums, so that sums do not depend on the number of threads
};

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
