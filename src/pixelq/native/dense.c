// A dense layer with a ReLU, forward and back.

#include "tiles.h"

#include <sys/syscall.h>
#include <unistd.h>

// Asks the system for the use of tiles; 0 if it grants it.
int pixelq_begin(void) {
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    return (int)syscall(SYS_arch_prctl, REQUEST, TILE_DATA);
}

// hidden [batch][units] float32 = max(0, x [batch][depth] · w [units][depth] + bias [units]).
int pixelq_dense_forward(int batch, int depth, int units, const bf16 *x, const bf16 *w, const bf16 *bias, float *hidden) {
    int steps = depth / DEPTH, tiles = (batch + TILE - 1) / TILE;
    uint32_t *packed = aligned_alloc(64, (long)tiles * steps * WORDS * 4);
    if (!packed) return 1;
#pragma omp parallel
    {
        float sums[4 * WORDS];
#pragma omp for
        for (int tile = 0; tile < tiles; tile++) {
            int count = batch - tile * TILE < TILE ? batch - tile * TILE : TILE;
            pack_rows(x + (long)tile * TILE * depth, count, depth, depth, packed + (long)tile * steps * WORDS);
        }
        ORDER();
        configure(TILE);
#pragma omp for schedule(dynamic, 1)
        for (int unit = 0; unit < units; unit += 2 * TILE)
            for (int tile = 0; tile < tiles; tile += 2) {
                int many_b = tile + 1 < tiles ? 2 : 1;
                const char *a0 = (const char *)(w + (long)unit * depth), *a1 = a0 + (long)TILE * depth * sizeof(bf16);
                const char *b0 = (const char *)(packed + (long)tile * steps * WORDS), *b1 = b0 + (long)steps * WORDS * 4;
                zero_tiles();
                if (many_b == 2) multiply(a0, a1, depth * sizeof(bf16), 64, b0, b1, WORDS * 4, steps, 2, 2);
                else multiply(a0, a1, depth * sizeof(bf16), 64, b0, b1, WORDS * 4, steps, 2, 1);
                store_tiles(sums);
                for (int i = 0; i < 2; i++) {
                    __m512 shift = widen(_mm256_loadu_si256((const __m256i *)(bias + unit + i * TILE)));
                    for (int j = 0; j < many_b; j++) {
                        __m512i r[16];
                        for (int k = 0; k < 16; k++) r[k] = _mm512_loadu_si512(sums + (2 * i + j) * WORDS + k * 16);
                        transpose(r);
                        for (int k = 0; k < 16 && (tile + j) * TILE + k < batch; k++)
                            _mm512_storeu_ps(hidden + ((long)(tile + j) * TILE + k) * units + unit + i * TILE,
                                             _mm512_max_ps(_mm512_add_ps(_mm512_castsi512_ps(r[k]), shift), _mm512_setzero_ps()));
                    }
                }
            }
        _tile_release();
    }
    free(packed);
    return 0;
}

// Pairs of columns of x [batch][depth] from `at` on, rows beyond the batch zero, as B tiles [2][over_batch].
static void pack_columns(int batch, int depth, const bf16 *x, int at, int over_batch, uint32_t *packed) {
    static const bf16 NONE[DEPTH] = {0};
    uint32_t *second = packed + over_batch * WORDS;
    for (int b = 0; b < over_batch * DEPTH; b += 2)
        weave32(b < batch ? x + (long)b * depth + at : NONE, b + 1 < batch ? x + (b + 1L) * depth + at : NONE,
                packed + b * 8, second + b * 8);
}

// Two rows of 16 sums side by side, [rows][depth].
static inline void store_rows(const float *sums, int rows, long depth, bf16 *to) {
    for (int r = 0; r < rows; r++) {
        const float *row = sums + r / TILE * 2 * WORDS + r % TILE * TILE;
        __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + WORDS), _mm512_loadu_ps(row));
        _mm512_storeu_si512(to + r * depth, both);
    }
}

// From dhidden [batch][units] float32, the gradient of `hidden`: dx [batch][depth], dw [units][depth], dbias [units].
int pixelq_dense_backward(
    int batch, int depth, int units, const bf16 *x, const bf16 *w, const float *hidden, const float *dhidden,
    bf16 *dx, bf16 *dw, bf16 *dbias
) {
    enum { PAIR = 2 * TILE };
    int over_units = units / DEPTH, over_batch = (batch + DEPTH - 1) / DEPTH;
    long padded = (long)over_batch * DEPTH, pair_words = 2L * over_batch * WORDS;
    // the gradient where a unit is active, [padded][units]; A tiles of its transpose, [units/16][over_batch]; B tiles of
    // x, [depth/32][2][over_batch]
    bf16 *d = aligned_alloc(64, (2 * padded * units + padded * depth) * sizeof(bf16));
    if (!d) return 1;
    uint32_t *turned = (uint32_t *)(d + padded * units), *packed = turned + padded * units / 2;
    int failed = 0;
#pragma omp parallel
    {
        float sums[4 * WORDS];
        uint32_t *mine = aligned_alloc(64, 2L * over_units * WORDS * 4);
        if (!mine) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for nowait
        for (int at = 0; at < depth; at += PAIR)
            pack_columns(batch, depth, x, at, over_batch, packed + at / PAIR * pair_words);
#pragma omp for
        for (int unit = 0; unit < units; unit += TILE) {
            __m512 bias = _mm512_setzero_ps();
            for (int b = 0; b < padded; b++) {
                __m512 g = _mm512_setzero_ps();
                if (b < batch) {
                    __mmask16 on = _mm512_cmp_ps_mask(_mm512_loadu_ps(hidden + (long)b * units + unit), g, _CMP_GT_OQ);
                    g = _mm512_maskz_loadu_ps(on, dhidden + (long)b * units + unit);
                }
                bias = _mm512_add_ps(bias, g);
                _mm256_storeu_si256((__m256i *)(d + (long)b * units + unit), (__m256i)_mm512_cvtneps_pbh(g));
            }
            _mm256_storeu_si256((__m256i *)(dbias + unit), (__m256i)_mm512_cvtneps_pbh(bias));
            for (int step = 0; step < over_batch; step++) {
                __m512i r[16];
                for (int i = 0; i < 16; i++) {
                    const bf16 *even = d + (step * DEPTH + 2L * i) * units + unit;
                    r[i] = weave16(even, even + units);
                }
                transpose_to(r, turned + ((long)unit / TILE * over_batch + step) * WORDS);
            }
        }
        ORDER();
        configure(TILE);
        // along the rows of dw, which are pages apart
#pragma omp for schedule(dynamic, 1) nowait
        for (int unit = 0; unit < units; unit += PAIR)
            for (int at = 0; at < depth; at += PAIR) {
                const char *a0 = (const char *)(turned + (long)unit / TILE * over_batch * WORDS);
                const char *b0 = (const char *)(packed + at / PAIR * pair_words);
                long next = (long)over_batch * WORDS * 4;
                zero_tiles();
                multiply(a0, a0 + next, 64, WORDS * 4, b0, b0 + next, WORDS * 4, over_batch, 2, 2);
                store_tiles(sums);
                store_rows(sums, PAIR, depth, dw + (long)unit * depth + at);
            }
#pragma omp for schedule(dynamic, 7)
        for (int at = 0; at < depth; at += PAIR) {
            if (!mine) continue;
            uint32_t *w0 = mine, *w1 = w0 + over_units * WORDS;
            for (int u = 0; u < units; u += 2) {
                const bf16 *row = w + (long)u * depth + at;
                _mm_prefetch((const char *)(row + PAIR), _MM_HINT_T0);  // rows are pages apart, so nobody else does
                _mm_prefetch((const char *)(row + depth + PAIR), _MM_HINT_T0);
                weave32(row, row + depth, w0 + u * 8, w1 + u * 8);
            }
            ORDER();
            for (int b = 0; b < batch; b += PAIR) {
                const char *a0 = (const char *)(d + (long)b * units), *a1 = a0 + (long)TILE * units * sizeof(bf16);
                zero_tiles();
                multiply(a0, a1, units * sizeof(bf16), 64, (char *)w0, (char *)w1, WORDS * 4, over_units, 2, 2);
                store_tiles(sums);
                store_rows(sums, batch - b < PAIR ? batch - b : PAIR, depth, dx + (long)b * depth + at);
            }
        }
        _tile_release();
        free(mine);
    }
    free(d);
    return failed;
}
