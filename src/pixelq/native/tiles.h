// Tiles in AMX's format, and packing of rows into tiles.
//
// bfloat16 numbers are uint16_t. A tile is 16 rows of 64 bytes. A product takes A [16, 32] and B [32, 16] and adds to
// C [16, 16] in float32; B has its rows interleaved in pairs. There are four accumulators, two by two: C[i][j] is number
// 2 i + j.

#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t bf16;

enum {
    TILE = 16,            // rows and columns of an accumulator
    DEPTH = 32,           // bfloat16 numbers in a product's sum
    WORDS = TILE * TILE,  // 32-bit words in a tile
    FLUSH = 0x8040,       // bits of the control register: float32 denormals count as zero
};

static inline long lines(long bytes) { return (bytes + 63) / 64 * 64; }  // rounds bytes up to whole cache lines

#define ORDER() __asm__ volatile("" ::: "memory")  // finish stores to memory before tiles are loaded

#ifdef WITH_AVX2
#include "avx2.h"
#else

// 16 words of a and 16 of b, side by side.
static inline void interleave_words(__m512i a, __m512i b, __m512i *first, __m512i *second) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    *first = _mm512_permutex2var_epi32(a, low, b);
    *second = _mm512_permutex2var_epi32(a, _mm512_add_epi32(low, _mm512_set1_epi32(8)), b);
}

// The same for 32 half words each.
static inline void interleave_halves(__m512i a, __m512i b, __m512i *first, __m512i *second) {
    static const uint16_t LOW[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                     8,  40, 9,  41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i low = _mm512_loadu_si512(LOW);
    *first = _mm512_permutex2var_epi16(a, low, b);
    *second = _mm512_permutex2var_epi16(a, _mm512_add_epi16(low, _mm512_set1_epi16(16)), b);
}

#endif

// 16 bfloat16 numbers as float32.
static inline __m512 widen(__m256i numbers) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16));
}

// Round to the nearest bfloat16, ties to even.
static inline __m256i narrow(__m512 numbers) {
#ifdef __AVX512BF16__
    return (__m256i)_mm512_cvtneps_pbh(numbers);
#elif defined WITH_AVX2
    return narrow_wide(numbers);
#else
    __m512i bits = _mm512_castps_si512(numbers), high = _mm512_srli_epi32(bits, 16);
    __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    __mmask16 none = _mm512_cmp_ps_mask(numbers, numbers, _CMP_UNORD_Q);  // NaN must not become infinite
    return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, none, high, _mm512_set1_epi32(0x40)));
#endif
}

#ifdef WITH_AMX
#include "tiles_amx.h"
#else
#include "tiles_vectors.h"
#endif

#ifdef WITH_FLOAT_TILES
typedef float number;          // ready to multiply
enum { PACKED = 2 * WORDS };  // words of a B tile of such numbers
#else
typedef bf16 number;
enum { PACKED = WORDS };
#endif

// Round 16 numbers to bfloat16, and store them ready to multiply.
static inline void store_ready(__m512 numbers, number *to) {
#ifdef WITH_FLOAT_TILES
    _mm512_storeu_ps(to, widen(narrow(numbers)));
#else
    _mm256_storeu_si256((__m256i *)to, narrow(numbers));
#endif
}

// The four accumulators, [4][16][16].
static inline void store_sums(const accumulators *acc, float *to) {
    store_tiles(acc, to, to + WORDS, to + 2 * WORDS, to + 3 * WORDS, 64, 2);
}

// Transpose 16 rows of 16 words.
static inline void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

// 16 numbers of one row and 16 of the next, side by side in words.
static inline __m512i weave16(const bf16 *even, const bf16 *odd) {
    __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)even));
    __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)odd));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// The same for 32 numbers, for two tiles.
static inline void weave32(const bf16 *even, const bf16 *odd, uint32_t *first, uint32_t *second) {
    __m512i low, high;
    interleave_halves(_mm512_loadu_si512(even), _mm512_loadu_si512(odd), &low, &high);
    _mm512_storeu_si512(first, low);
    _mm512_storeu_si512(second, high);
}

// Two rows of a B tile of weights or inputs, from their pairs; `row` counts pairs, over all tiles that lie one after the other.
static inline void store_pairs(__m512i pairs, long row, uint32_t *packed) {
#ifdef WITH_FLOAT_TILES
    _mm512_storeu_si512(packed + 2 * row * TILE, _mm512_slli_epi32(pairs, 16));
    _mm512_storeu_si512(packed + (2 * row + 1) * TILE, _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff0000)));
#else
    _mm512_storeu_si512(packed + row * TILE, pairs);
#endif
}

// The same of 32 numbers of each row, for two tiles.
static inline void pack_two(const bf16 *even, const bf16 *odd, long row, uint32_t *first, uint32_t *second) {
#ifdef WITH_FLOAT_TILES
    store_pairs(weave16(even, odd), row, first);
    store_pairs(weave16(even + TILE, odd + TILE), row, second);
#else
    weave32(even, odd, first + row * TILE, second + row * TILE);
#endif
}

// Pack up to 16 rows [count][depth], `row` numbers apart, as B tiles [depth/32]; missing rows are zero.
static inline void pack_rows(const bf16 *rows, int count, long row, int depth, uint32_t *packed) {
    for (int step = 0; step < depth / DEPTH; step++) {
        __m512i r[16];
        for (int i = 0; i < 16; i++)
            r[i] = i < count ? _mm512_loadu_si512(rows + i * row + step * DEPTH) : _mm512_setzero_si512();
        transpose(r);
        for (int i = 0; i < 16; i++) store_pairs(r[i], step * TILE + i, packed);
    }
}
