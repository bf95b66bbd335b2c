// Tile products with AVX512 or AVX2, for processors without AMX.
//
// Accumulators are in the L1 cache. A product loads some of their rows into registers and stores them after its last step.
// Each number of A fills one more register, or comes directly from memory, for all columns.
//
// With AVX512-BF16 a number is a pair of bfloat16. Without it, numbers are float32: B tiles are packed as [32][16], and `multiply`
// widens A. What is multiplied more than once is widened once; for convolutions see convolution_floats.h.
//
// Source: Intel Architecture Instruction Set Extensions Programming Reference, chapter 2, "VDPBF16PS".

#pragma once

#ifdef WITH_AVX512_BF16
enum { NUMBERS = TILE };  // numbers in the depth of a tile
#else
#define WITH_FLOAT_TILES
enum { NUMBERS = DEPTH };
#endif

typedef struct {
    _Alignas(64) float c[4][WORDS];
    unsigned mode;  // the previous control register
#ifndef WITH_AVX512_BF16
    _Alignas(64) float a[2][TILE * DEPTH];
#endif
} accumulators;

static inline int ask_for_tiles(void) { return 0; }

// Until `end_tiles`, float32 denormals count as zero, as they do for AMX.
static inline void begin_tiles(accumulators *acc) {
    acc->mode = _mm_getcsr();
    _mm_setcsr(acc->mode | FLUSH);
}

static inline void end_tiles(accumulators *acc) { _mm_setcsr(acc->mode); }

static inline void zero_tiles(accumulators *acc) { memset(acc->c, 0, sizeof acc->c); }

static inline __attribute__((always_inline)) __m512 add_product(__m512 sum, const char *a, const char *b) {
#ifdef WITH_AVX512_BF16
    int32_t pair;
    memcpy(&pair, a, sizeof pair);
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)_mm512_loadu_si512(b));
#else
    float number;
    memcpy(&number, a, sizeof number);
    return _mm512_fmadd_ps(_mm512_set1_ps(number), _mm512_loadu_ps(b), sum);
#endif
}

// Multiply `rows` rows of A by one B or by both; each number of A is loaded once.
static inline __attribute__((always_inline)) void multiply_rows(
    int rows, int both, float *c0, float *c1, const char *a, long a_row, long a_number, long a_step,
    const char *b0, const char *b1, long b_step, int steps
) {
    __m512 s0[TILE], s1[TILE];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        s0[r] = _mm512_load_ps(c0 + r * TILE);
        if (both) s1[r] = _mm512_load_ps(c1 + r * TILE);
    }
    for (int step = 0; step < steps; step++, a += a_step, b0 += b_step, b1 += b_step)
        for (int k = 0; k < NUMBERS; k++)
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                s0[r] = add_product(s0[r], a + r * a_row + k * a_number, b0 + k * 64);
                if (both) s1[r] = add_product(s1[r], a + r * a_row + k * a_number, b1 + k * 64);
            }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        _mm512_store_ps(c0 + r * TILE, s0[r]);
        if (both) _mm512_store_ps(c1 + r * TILE, s1[r]);
    }
}

// As many rows as registers allow, beside the registers for A and B.
static inline __attribute__((always_inline)) void multiply_tile(
    float *c0, float *c1, const char *a, long row, long number, long a_step, const char *b0, const char *b1, long b_step,
    int steps, int both
) {
#ifdef WITH_AVX2
    for (int j = 0; j <= both; j++) {
        float *c = j ? c1 : c0;
        const char *b = j ? b1 : b0;
        multiply_rows(6, 0, c, c, a, row, number, a_step, b, b, b_step, steps);
        multiply_rows(5, 0, c + 6 * TILE, c, a + 6 * row, row, number, a_step, b, b, b_step, steps);
        multiply_rows(5, 0, c + 11 * TILE, c, a + 11 * row, row, number, a_step, b, b, b_step, steps);
    }
#else
    if (!both) multiply_rows(16, 0, c0, c1, a, row, number, a_step, b0, b1, b_step, steps);
    else
        for (int r = 0; r < TILE; r += 8)
            multiply_rows(8, 1, c0 + r * TILE, c1 + r * TILE, a + r * row, row, number, a_step, b0, b1, b_step, steps);
#endif
}

// C[i][j] += Σ A[i] B[j] over `steps` steps in depth, for i < many_a, j < many_b; A is ready to multiply.
static inline __attribute__((always_inline)) void multiply_ready(
    accumulators *acc, const char *a0, const char *a1, long a_row, long a_step,
    const char *b0, const char *b1, long b_step, int steps, int many_a, int many_b
) {
    for (int i = 0; i < many_a; i++)
        multiply_tile(acc->c[2 * i], acc->c[2 * i + 1], i ? a1 : a0, a_row, 4, a_step, b0, b1, b_step, steps,
                      many_b - 1);
}

#ifdef WITH_AVX512_BF16

#define multiply multiply_ready

#else

// The same for A in bfloat16.
static inline __attribute__((always_inline)) void multiply(
    accumulators *acc, const char *a0, const char *a1, long a_row, long a_step,
    const char *b0, const char *b1, long b_step, int steps, int many_a, int many_b
) {
    for (int step = 0; step < steps; step++, a0 += a_step, a1 += a_step, b0 += b_step, b1 += b_step) {
        for (int i = 0; i < many_a; i++)
            for (int r = 0; r < TILE; r++) {
                const char *from = (i ? a1 : a0) + r * a_row;
                _mm_prefetch(from + 2 * a_step, _MM_HINT_T0);  // rows may lie pages apart
                _mm512_store_ps(acc->a[i] + r * DEPTH, widen(_mm256_loadu_si256((const __m256i *)from)));
                _mm512_store_ps(acc->a[i] + r * DEPTH + TILE, widen(_mm256_loadu_si256((const __m256i *)from + 1)));
            }
        multiply_ready(acc, (char *)acc->a[0], (char *)acc->a[1], DEPTH * 4, 0, b0, b1, 0, 1, many_a, many_b);
    }
}

#endif

// Load or store C[i][j] for i < many_a and both j; rows lie `row` bytes apart.
static inline void load_tiles(
    accumulators *acc, const float *c00, const float *c01, const float *c10, const float *c11, long row, int many_a
) {
    const float *from[4] = {c00, c01, c10, c11};
    for (int tile = 0; tile < 2 * many_a; tile++)
        for (int r = 0; r < TILE; r++)
            _mm512_store_ps(acc->c[tile] + r * TILE, _mm512_loadu_ps((const char *)from[tile] + r * row));
}

static inline void store_tiles(
    const accumulators *acc, float *c00, float *c01, float *c10, float *c11, long row, int many_a
) {
    float *to[4] = {c00, c01, c10, c11};
    for (int tile = 0; tile < 2 * many_a; tile++)
        for (int r = 0; r < TILE; r++)
            _mm512_storeu_ps((char *)to[tile] + r * row, _mm512_load_ps(acc->c[tile] + r * TILE));
}
