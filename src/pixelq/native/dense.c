// A dense layer with a ReLU, forward and backward.

#include "layers.h"

#include <math.h>

enum {
    PAIR = 2 * TILE,
    TOGETHER = 7,  // pairs of columns in one turn
};

// Ask the system for the use of tiles. Returns 0 if it grants them.
long pixelq_begin(void) { return ask_for_tiles(); }

static int tiles_of(int batch) { return (batch + TILE - 1) / TILE; }

long dense_packed_bytes(int batch, int depth) { return (long)tiles_of(batch) * (depth / DEPTH) * PACKED * 4; }

// x as B tiles [batch/16][depth/32].
void dense_pack_by_team(int batch, int depth, const bf16 *x, uint32_t *packed) {
    team_loop *tiles = team_share();
    for (long tile; (tile = team_take(tiles)) < tiles_of(batch);) {
        int count = batch - (int)tile * TILE < TILE ? batch - (int)tile * TILE : TILE;
        pack_rows(x + tile * TILE * depth, count, depth, depth, packed + tile * (depth / DEPTH) * PACKED);
    }
    ORDER();
}

long dense_own_bytes(int depth) { return lines((long)PAIR * depth * sizeof(bf16)); }

// PAIR rows of weights with their noise, from one of a part's units on.
static void make_noisy(int depth, const dense *d, int part, int unit, bf16 *to) {
    const bf16 *mean = d->part[part].w_mean, *sigma = d->part[part].w_sigma;
    for (int row = unit; row < unit + PAIR; row++)
        for (long at = (long)row * depth, k = 0; k < depth; k += TILE, at += TILE, to += TILE) {
            __m512 noise = _mm512_mul_ps(_mm512_set1_ps(d->part[part].noise_out[row]),
                                         _mm512_loadu_ps(d->part[part].noise_in + k));
            __m512 scale = widen(_mm256_loadu_si256((const __m256i *)(sigma + at)));
            __m512 middle = widen(_mm256_loadu_si256((const __m256i *)(mean + at)));
            _mm256_storeu_si256((__m256i *)to, narrow(_mm512_fmadd_ps(scale, noise, middle)));
        }
    ORDER();
}

// hidden = max(0, x · w + bias).
void dense_hidden_by_team(int batch, int depth, const dense *d, const uint32_t *packed, int relu, float *hidden, void *own) {
    int steps = depth / DEPTH, tiles = tiles_of(batch), units = all_units(d);
    __m512 least = _mm512_set1_ps(relu ? 0.0f : -INFINITY);
    float sums[4 * WORDS];
    accumulators acc;
    begin_tiles(&acc);
    team_loop *pairs = team_share();
    for (int unit; (unit = (int)team_take(pairs) * PAIR) < units;) {
        int part = unit / d->units, first = unit % d->units;
        const bf16 *bias = d->part[part].b + first;
        bf16 *w = d->part[part].w ? d->part[part].w + first * (long)depth : own;
        if (d->part[part].w_mean) make_noisy(depth, d, part, first, w);  // just before they are used, in the nearer caches
        for (int tile = 0; tile < tiles; tile += 2) {
            int many_b = tile + 1 < tiles ? 2 : 1;
            const char *a0 = (const char *)w, *a1 = a0 + (long)TILE * depth * sizeof(bf16);
            const char *b0 = (const char *)(packed + (long)tile * steps * PACKED), *b1 = b0 + (long)steps * PACKED * 4;
            zero_tiles(&acc);
            if (many_b == 2) multiply(&acc, a0, a1, depth * sizeof(bf16), 64, b0, b1, PACKED * 4, steps, 2, 2);
            else multiply(&acc, a0, a1, depth * sizeof(bf16), 64, b0, b1, PACKED * 4, steps, 2, 1);
            store_sums(&acc, sums);
            for (int i = 0; i < 2; i++) {
                __m512 shift = widen(_mm256_loadu_si256((const __m256i *)(bias + i * TILE)));
                for (int j = 0; j < many_b; j++) {
                    __m512i r[16];
                    for (int k = 0; k < 16; k++) r[k] = _mm512_loadu_si512(sums + (2 * i + j) * WORDS + k * 16);
                    transpose(r);
                    for (int k = 0; k < 16 && (tile + j) * TILE + k < batch; k++)
                        _mm512_storeu_ps(hidden + ((long)(tile + j) * TILE + k) * units + unit + i * TILE,
                                         _mm512_max_ps(_mm512_add_ps(_mm512_castsi512_ps(r[k]), shift), least));
                }
            }
        }
    }
    end_tiles(&acc);
}

// A pair of column blocks of x [batch][depth] from column `at`, as B tiles [2][over_batch]; rows past the batch are zero.
static void pack_columns(int batch, int depth, const bf16 *x, int at, int over_batch, uint32_t *packed) {
    static const bf16 NONE[DEPTH] = {0};
    for (int b = 0; b < over_batch * DEPTH; b += 2)
        pack_two(b < batch ? x + (long)b * depth + at : NONE, b + 1 < batch ? x + (b + 1L) * depth + at : NONE, b / 2,
                 packed, packed + over_batch * PACKED);
}

// Store two blocks of 16 sums side by side, [rows][depth].
static inline void store_rows(const float *sums, int rows, long depth, bf16 *to) {
    for (int r = 0; r < rows; r++) {
        const float *row = sums + r / TILE * 2 * WORDS + r % TILE * TILE;
        _mm256_storeu_si256((__m256i *)(to + r * depth), narrow(_mm512_loadu_ps(row)));
        _mm256_storeu_si256((__m256i *)(to + r * depth + TILE), narrow(_mm512_loadu_ps(row + WORDS)));
    }
}

static int over_batch_of(int batch) { return (batch + DEPTH - 1) / DEPTH; }  // number of products in a sum over a batch

long dense_packed_back_bytes(int batch, int depth) { return (long)over_batch_of(batch) * depth / TILE * PACKED * 4; }

// x as B tiles [depth/32][2][batch/32], for the weights' gradient.
void dense_pack_back_by_team(int batch, int depth, const bf16 *x, uint32_t *packed) {
    int over_batch = over_batch_of(batch);
    team_loop *columns = team_share();
    for (int at; (at = (int)team_take(columns) * PAIR) < depth;)
        pack_columns(batch, depth, x, at, over_batch, packed + at / PAIR * 2L * over_batch * PACKED);
    ORDER();
}

long dense_slopes_bytes(int batch, int units) { return 2L * over_batch_of(batch) * DEPTH * units * sizeof(number); }

// 32 rows of slopes of 16 units as an A tile.
static void turn(const number *slopes, long units, number *to) {
    __m512i r[16];
#ifdef WITH_FLOAT_TILES
    for (int half = 0; half < DEPTH; half += TILE) {
        for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(slopes + (half + i) * units);
        transpose(r);
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * DEPTH + half, r[i]);
    }
#else
    for (int i = 0; i < 16; i++) r[i] = weave16(slopes + 2 * i * units, slopes + (2 * i + 1) * units);
    transpose(r);
    for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * DEPTH, r[i]);
#endif
}

// The gradient of `hidden` for active units, [batch up to 32][units], its transpose as A tiles [units/16][batch/32],
// and the bias's gradient.
void dense_slopes_by_team(int batch, const dense *gradients, const float *hidden, const float *dhidden, number *slopes) {
    int over_batch = over_batch_of(batch), padded = over_batch * DEPTH, units = all_units(gradients);
    number *turned = slopes + (long)padded * units;
    team_loop *tiles = team_share();
    for (int unit; (unit = (int)team_take(tiles) * TILE) < units;) {
        __m512 bias = _mm512_setzero_ps();
        for (int b = 0; b < padded; b++) {
            __m512 g = _mm512_setzero_ps();
            if (b < batch) {
                __mmask16 on = 0xffff;
                if (hidden) on = _mm512_cmp_ps_mask(_mm512_loadu_ps(hidden + (long)b * units + unit), g, _CMP_GT_OQ);
                g = _mm512_maskz_loadu_ps(on, dhidden + (long)b * units + unit);
            }
            bias = _mm512_add_ps(bias, g);
            store_ready(g, slopes + (long)b * units + unit);
        }
        int part = unit / gradients->units, at = unit % gradients->units;
        _mm256_storeu_si256((__m256i *)(gradients->part[part].b + at), narrow(bias));
        if (gradients->part[part].b_sigma) {
            bias = _mm512_mul_ps(bias, _mm512_loadu_ps(gradients->part[part].noise_out + at));
            _mm256_storeu_si256((__m256i *)(gradients->part[part].b_sigma + at), narrow(bias));
        }
        for (int step = 0; step < over_batch; step++)
            turn(slopes + (long)step * DEPTH * units + unit, units, turned + ((long)unit / TILE * over_batch + step) * TILE * DEPTH);
    }
    ORDER();
}

long dense_own_back_bytes(int units) { return 2L * (units / DEPTH) * PACKED * 4; }

// Multiply every row and every column by its own number.
static inline void scale_rows(float *sums, const float *of_rows, const float *of_columns) {
    __m512 left = _mm512_loadu_ps(of_columns), right = _mm512_loadu_ps(of_columns + TILE);
    for (int r = 0; r < PAIR; r++) {
        float *row = sums + r / TILE * 2 * WORDS + r % TILE * TILE;
        __m512 by = _mm512_set1_ps(of_rows[r]);
        _mm512_storeu_ps(row, _mm512_mul_ps(_mm512_loadu_ps(row), _mm512_mul_ps(by, left)));
        _mm512_storeu_ps(row + WORDS, _mm512_mul_ps(_mm512_loadu_ps(row + WORDS), _mm512_mul_ps(by, right)));
    }
}

// Compute dx [batch][depth], and dw [units][depth] of each part.
void dense_gradients_by_team(
    int batch, int depth, const dense *d, const dense *gradients, const uint32_t *packed, const number *slopes, float scale,
    bf16 *dx, void *own
) {
    int units = all_units(d), over_units = units / DEPTH, over_batch = over_batch_of(batch);
    const number *turned = slopes + (long)over_batch * DEPTH * units;
    uint32_t *w0 = own, *w1 = w0 + over_units * PACKED;
    long tile = TILE * DEPTH * sizeof(number), row = units * sizeof(number), deep = DEPTH * sizeof(number);
    float sums[4 * WORDS];
    __m512 by = _mm512_set1_ps(scale);
    accumulators acc;
    begin_tiles(&acc);
    // along the rows of dw, which lie pages apart
    team_loop *rows = team_share(), *columns = team_share();
    for (int unit; (unit = (int)team_take(rows) * PAIR) < units;) {
        int part = unit / d->units, first = unit % d->units;
        bf16 *dw = gradients->part[part].w + (long)first * depth, *sigma = gradients->part[part].w_sigma;
        for (int at = 0; at < depth; at += PAIR) {
            const char *a0 = (const char *)turned + unit / TILE * over_batch * tile, *a1 = a0 + over_batch * tile;
            const char *b0 = (const char *)(packed + at / PAIR * 2L * over_batch * PACKED), *b1 = b0 + over_batch * PACKED * 4L;
            zero_tiles(&acc);
            multiply_ready(&acc, a0, a1, deep, tile, b0, b1, PACKED * 4, over_batch, 2, 2);
            store_sums(&acc, sums);
            store_rows(sums, PAIR, depth, dw + at);
            if (!sigma) continue;
            scale_rows(sums, gradients->part[part].noise_out + first, gradients->part[part].noise_in + at);
            store_rows(sums, PAIR, depth, sigma + (long)first * depth + at);
        }
    }
    for (int first; (first = (int)team_take(columns) * TOGETHER * PAIR) < depth;)
        for (int at = first; at < depth && at < first + TOGETHER * PAIR; at += PAIR) {
            for (int part = 0, u = 0; part < d->parts; part++)
                for (const bf16 *w = d->part[part].w + at; u < (part + 1) * d->units; u += 2, w += 2L * depth) {
                    _mm_prefetch((const char *)(w + PAIR), _MM_HINT_T0);  // rows lie pages apart
                    _mm_prefetch((const char *)(w + depth + PAIR), _MM_HINT_T0);
                    pack_two(w, w + depth, u / 2, w0, w1);
                }
            ORDER();
            for (int b = 0; b < batch; b += PAIR) {
                const char *a0 = (const char *)(slopes + (long)b * units), *a1 = a0 + TILE * row;
                zero_tiles(&acc);
                multiply_ready(&acc, a0, a1, row, deep, (char *)w0, (char *)w1, PACKED * 4, over_units, 2, 2);
                store_sums(&acc, sums);
                if (scale != 1.0f)
                    for (int i = 0; i < 4 * WORDS; i += TILE)
                        _mm512_storeu_ps(sums + i, _mm512_mul_ps(by, _mm512_loadu_ps(sums + i)));
                store_rows(sums, batch - b < PAIR ? batch - b : PAIR, depth, dx + (long)b * depth + at);
            }
        }
    end_tiles(&acc);
}

typedef struct {
    int batch, depth;
    dense of, gradients;
    const bf16 *x;
    float *hidden;
    const float *dhidden;
    bf16 *dx;
    number *slopes;
    uint32_t *packed;
    char *own;
} layer;

static void forward_by_team(void *of) {
    const layer *l = of;
    dense_pack_by_team(l->batch, l->depth, l->x, l->packed);
    team_wait();
    dense_hidden_by_team(l->batch, l->depth, &l->of, l->packed, 1, l->hidden, NULL);
}

// hidden [batch][units] float32 = max(0, x [batch][depth] · w [units][depth] + bias [units]).
long pixelq_dense_forward(int batch, int depth, int units, const bf16 *x, bf16 *w, bf16 *bias, float *hidden) {
    layer l = {.batch = batch, .depth = depth, .of = {1, units, {{w, bias}}}, .x = x, .hidden = hidden};
    l.packed = aligned_alloc(64, dense_packed_bytes(batch, depth));
    if (!l.packed) return 1;
    team_run(team_threads, forward_by_team, &l);
    free(l.packed);
    return 0;
}

static void backward_by_team(void *of) {
    const layer *l = of;
    dense_pack_back_by_team(l->batch, l->depth, l->x, l->packed);
    dense_slopes_by_team(l->batch, &l->gradients, l->hidden, l->dhidden, l->slopes);
    team_wait();
    dense_gradients_by_team(l->batch, l->depth, &l->of, &l->gradients, l->packed, l->slopes, 1.0f, l->dx,
                            l->own + team_member() * dense_own_back_bytes(l->of.units));
}

// Backward: from dhidden [batch][units] float32 to dx [batch][depth], dw [units][depth], dbias [units].
long pixelq_dense_backward(
    int batch, int depth, int units, const bf16 *x, bf16 *w, float *hidden, const float *dhidden, bf16 *dx, bf16 *dw,
    bf16 *dbias
) {
    layer l = {.batch = batch, .depth = depth, .of = {1, units, {{w}}}, .gradients = {1, units, {{dw, dbias}}}, .x = x,
               .hidden = hidden, .dhidden = dhidden, .dx = dx};
    long packed = dense_packed_back_bytes(batch, depth), shared = packed + dense_slopes_bytes(batch, units);
    char *scratch = aligned_alloc(64, shared + team_threads * dense_own_back_bytes(units));
    if (!scratch) return 1;
    l.packed = (uint32_t *)scratch, l.slopes = (number *)(scratch + packed), l.own = scratch + shared;
    team_run(team_threads, backward_by_team, &l);
    free(scratch);
    return 0;
}
