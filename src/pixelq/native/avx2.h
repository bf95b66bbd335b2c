// The AVX512 instructions that the kernels use, each made of two AVX2 instructions, for processors without AVX512.
//
// Names and meanings are those of `immintrin.h`, which is included before. A mask has 16 bits, as there.

#pragma once

typedef struct {
    __m256 low, high;
} wide_floats;

typedef struct {
    __m256i low, high;
} wide_words;

#define __m512 wide_floats
#define __m512i wide_words
#define __mmask16 unsigned

#define WIDE static inline __attribute__((always_inline))

// A vector with all ones where the mask's bit is set, zeros elsewhere.
WIDE wide_words wide_of_mask(unsigned mask) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i low = _mm256_and_si256(_mm256_set1_epi32(mask), bits), high = _mm256_and_si256(_mm256_set1_epi32(mask >> 8), bits);
    return (wide_words){_mm256_cmpeq_epi32(low, bits), _mm256_cmpeq_epi32(high, bits)};
}

#define WIDE_UNARY(type, name, one) \
    WIDE type wide_##name(type a) { return (type){one(a.low), one(a.high)}; }
#define WIDE_BINARY(type, name, one) \
    WIDE type wide_##name(type a, type b) { return (type){one(a.low, b.low), one(a.high, b.high)}; }
#define WIDE_TERNARY(type, name, one) \
    WIDE type wide_##name(type a, type b, type c) { return (type){one(a.low, b.low, c.low), one(a.high, b.high, c.high)}; }

WIDE_BINARY(wide_floats, add_ps, _mm256_add_ps)
WIDE_BINARY(wide_floats, sub_ps, _mm256_sub_ps)
WIDE_BINARY(wide_floats, mul_ps, _mm256_mul_ps)
WIDE_BINARY(wide_floats, div_ps, _mm256_div_ps)
WIDE_BINARY(wide_floats, max_ps, _mm256_max_ps)
WIDE_UNARY(wide_floats, sqrt_ps, _mm256_sqrt_ps)
WIDE_TERNARY(wide_floats, fmadd_ps, _mm256_fmadd_ps)
WIDE_TERNARY(wide_floats, fnmadd_ps, _mm256_fnmadd_ps)
WIDE_BINARY(wide_words, add_epi32, _mm256_add_epi32)
WIDE_BINARY(wide_words, and_si512, _mm256_and_si256)
WIDE_BINARY(wide_words, or_si512, _mm256_or_si256)
WIDE_BINARY(wide_words, unpacklo_epi32, _mm256_unpacklo_epi32)
WIDE_BINARY(wide_words, unpackhi_epi32, _mm256_unpackhi_epi32)
WIDE_BINARY(wide_words, unpacklo_epi64, _mm256_unpacklo_epi64)
WIDE_BINARY(wide_words, unpackhi_epi64, _mm256_unpackhi_epi64)

WIDE wide_floats wide_set1_ps(float a) { return (wide_floats){_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
WIDE wide_floats wide_setzero_ps(void) { return (wide_floats){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
WIDE wide_words wide_set1_epi32(int a) { return (wide_words){_mm256_set1_epi32(a), _mm256_set1_epi32(a)}; }
WIDE wide_words wide_setzero_si512(void) { return (wide_words){_mm256_setzero_si256(), _mm256_setzero_si256()}; }

WIDE wide_floats wide_loadu_ps(const void *from) {
    return (wide_floats){_mm256_loadu_ps(from), _mm256_loadu_ps((const float *)from + 8)};
}

WIDE void wide_storeu_ps(void *to, wide_floats a) {
    _mm256_storeu_ps(to, a.low);
    _mm256_storeu_ps((float *)to + 8, a.high);
}

WIDE wide_words wide_loadu_si512(const void *from) {
    return (wide_words){_mm256_loadu_si256(from), _mm256_loadu_si256((const __m256i *)from + 1)};
}

WIDE void wide_storeu_si512(void *to, wide_words a) {
    _mm256_storeu_si256(to, a.low);
    _mm256_storeu_si256((__m256i *)to + 1, a.high);
}

WIDE wide_floats wide_maskz_loadu_ps(unsigned mask, const float *from) {
    if (mask == 0xffff) return wide_loadu_ps(from);
    wide_words on = wide_of_mask(mask);
    return (wide_floats){_mm256_maskload_ps(from, on.low), _mm256_maskload_ps(from + 8, on.high)};
}

WIDE void wide_mask_storeu_ps(float *to, unsigned mask, wide_floats a) {
    if (mask == 0xffff) {
        wide_storeu_ps(to, a);
        return;
    }
    wide_words on = wide_of_mask(mask);
    _mm256_maskstore_ps(to, on.low, a.low);
    _mm256_maskstore_ps(to + 8, on.high, a.high);
}

WIDE wide_words wide_castps_si512(wide_floats a) {
    return (wide_words){_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)};
}

WIDE wide_floats wide_castsi512_ps(wide_words a) {
    return (wide_floats){_mm256_castsi256_ps(a.low), _mm256_castsi256_ps(a.high)};
}

WIDE wide_floats wide_maskz_mov_ps(unsigned mask, wide_floats a) {
    return wide_castsi512_ps(wide_and_si512(wide_of_mask(mask), wide_castps_si512(a)));
}

WIDE float wide_reduce_add_ps(wide_floats a) {
    __m256 eight = _mm256_add_ps(a.low, a.high);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

#define wide_cmp_ps_mask(a, b, how) \
    ((unsigned)_mm256_movemask_ps(_mm256_cmp_ps((a).low, (b).low, how)) \
     | (unsigned)_mm256_movemask_ps(_mm256_cmp_ps((a).high, (b).high, how)) << 8)
#define wide_slli_epi32(a, by) ((wide_words){_mm256_slli_epi32((a).low, by), _mm256_slli_epi32((a).high, by)})
#define wide_srli_epi32(a, by) ((wide_words){_mm256_srli_epi32((a).low, by), _mm256_srli_epi32((a).high, by)})

WIDE wide_words wide_cvtepu16_epi32(__m256i a) {
    return (wide_words){_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)),
                        _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1))};
}

WIDE wide_words wide_cvtepu8_epi32(__m128i a) {
    return (wide_words){_mm256_cvtepu8_epi32(a), _mm256_cvtepu8_epi32(_mm_srli_si128(a, 8))};
}

WIDE wide_floats wide_cvtepi32_ps(wide_words a) {
    return (wide_floats){_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)};
}

WIDE __m256i wide_cvtepi32_epi16(wide_words a) {
    wide_words half = wide_and_si512(a, wide_set1_epi32(0xffff));
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(half.low, half.high), 0xd8);
}

WIDE __m256i wide_castsi512_si256(wide_words a) { return a.low; }
WIDE wide_words wide_castsi256_si512(__m256i a) { return (wide_words){a, a}; }
#define wide_extracti64x4_epi64(a, half) ((half) ? (a).high : (a).low)
#define wide_inserti64x4(a, b, half) ((half) ? (wide_words){(a).low, b} : (wide_words){b, (a).high})

// Quarters 0 and 2 of both, or 1 and 3.
WIDE wide_words wide_shuffle_i32x4(wide_words a, wide_words b, int how) {
    if (how == 0x88)
        return (wide_words){_mm256_permute2x128_si256(a.low, a.high, 0x20), _mm256_permute2x128_si256(b.low, b.high, 0x20)};
    return (wide_words){_mm256_permute2x128_si256(a.low, a.high, 0x31), _mm256_permute2x128_si256(b.low, b.high, 0x31)};
}

// The last word of b, then all words of a but its last; `by` must be 15.
WIDE wide_words wide_alignr_epi32(wide_words a, wide_words b, int by) {
    (void)by;
    __m256i before_low = _mm256_permute2x128_si256(b.high, a.low, 0x21);
    __m256i before_high = _mm256_permute2x128_si256(a.low, a.high, 0x21);
    return (wide_words){_mm256_alignr_epi8(a.low, before_low, 12), _mm256_alignr_epi8(a.high, before_high, 12)};
}

WIDE unsigned half_cmpgt_epi16_mask(__m256i a, __m256i b) {
    __m256i on = _mm256_cmpgt_epi16(a, b);
    return _mm_movemask_epi8(_mm_packs_epi16(_mm256_castsi256_si128(on), _mm256_extracti128_si256(on, 1)));
}

WIDE __m256i half_maskz_mov_epi16(unsigned mask, __m256i a) {
    const __m256i bits = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768);
    __m256i on = _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16((short)mask), bits), bits);
    return _mm256_and_si256(on, a);
}

WIDE __m256i half_maskz_loadu_epi16(unsigned mask, const void *from) {
    if (mask == 0xffff) return _mm256_loadu_si256(from);
    uint16_t numbers[16] = {0};
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) numbers[i] = ((const uint16_t *)from)[i];
    return _mm256_loadu_si256((const __m256i *)numbers);
}

WIDE void half_mask_storeu_epi16(void *to, unsigned mask, __m256i a) {
    if (mask == 0xffff) {
        _mm256_storeu_si256(to, a);
        return;
    }
    uint16_t numbers[16];
    _mm256_storeu_si256((__m256i *)numbers, a);
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1) ((uint16_t *)to)[i] = numbers[i];
}

// `narrow` of eight numbers, in words.
WIDE __m256i narrow_half(__m256 numbers) {
    __m256i bits = _mm256_castps_si256(numbers), high = _mm256_srli_epi32(bits, 16);
    __m256i half = _mm256_add_epi32(_mm256_and_si256(high, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7fff));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
    __m256i none = _mm256_castps_si256(_mm256_cmp_ps(numbers, numbers, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), none);
}

WIDE __m256i narrow_wide(wide_floats numbers) {
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(narrow_half(numbers.low), narrow_half(numbers.high)), 0xd8);
}

// 16 words of a and 16 of b, side by side.
WIDE void interleave_words(wide_words a, wide_words b, wide_words *first, wide_words *second) {
    wide_words odd = wide_unpackhi_epi32(a, b), even = wide_unpacklo_epi32(a, b);
    *first = (wide_words){_mm256_permute2x128_si256(even.low, odd.low, 0x20), _mm256_permute2x128_si256(even.low, odd.low, 0x31)};
    *second =
        (wide_words){_mm256_permute2x128_si256(even.high, odd.high, 0x20), _mm256_permute2x128_si256(even.high, odd.high, 0x31)};
}

// The same for 32 half words each.
WIDE void interleave_halves(wide_words a, wide_words b, wide_words *first, wide_words *second) {
    __m256i x = _mm256_unpacklo_epi16(a.low, b.low), y = _mm256_unpackhi_epi16(a.low, b.low);
    *first = (wide_words){_mm256_permute2x128_si256(x, y, 0x20), _mm256_permute2x128_si256(x, y, 0x31)};
    x = _mm256_unpacklo_epi16(a.high, b.high), y = _mm256_unpackhi_epi16(a.high, b.high);
    *second = (wide_words){_mm256_permute2x128_si256(x, y, 0x20), _mm256_permute2x128_si256(x, y, 0x31)};
}

#define _mm512_add_ps wide_add_ps
#define _mm512_sub_ps wide_sub_ps
#define _mm512_mul_ps wide_mul_ps
#define _mm512_div_ps wide_div_ps
#define _mm512_max_ps wide_max_ps
#define _mm512_sqrt_ps wide_sqrt_ps
#define _mm512_fmadd_ps wide_fmadd_ps
#define _mm512_fnmadd_ps wide_fnmadd_ps
#define _mm512_add_epi32 wide_add_epi32
#define _mm512_and_si512 wide_and_si512
#define _mm512_or_si512 wide_or_si512
#define _mm512_unpacklo_epi32 wide_unpacklo_epi32
#define _mm512_unpackhi_epi32 wide_unpackhi_epi32
#define _mm512_unpacklo_epi64 wide_unpacklo_epi64
#define _mm512_unpackhi_epi64 wide_unpackhi_epi64
#define _mm512_set1_ps wide_set1_ps
#define _mm512_setzero_ps wide_setzero_ps
#define _mm512_set1_epi32 wide_set1_epi32
#define _mm512_setzero_si512 wide_setzero_si512
#define _mm512_load_ps wide_loadu_ps
#define _mm512_loadu_ps wide_loadu_ps
#define _mm512_store_ps wide_storeu_ps
#define _mm512_storeu_ps wide_storeu_ps
#define _mm512_loadu_si512 wide_loadu_si512
#define _mm512_store_si512 wide_storeu_si512
#define _mm512_storeu_si512 wide_storeu_si512
#define _mm512_maskz_loadu_ps wide_maskz_loadu_ps
#define _mm512_mask_storeu_ps wide_mask_storeu_ps
#define _mm512_maskz_mov_ps wide_maskz_mov_ps
#define _mm512_castps_si512 wide_castps_si512
#define _mm512_castsi512_ps wide_castsi512_ps
#define _mm512_reduce_add_ps wide_reduce_add_ps
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask wide_cmp_ps_mask
#undef _mm512_slli_epi32
#define _mm512_slli_epi32 wide_slli_epi32
#undef _mm512_srli_epi32
#define _mm512_srli_epi32 wide_srli_epi32
#define _mm512_cvtepu16_epi32 wide_cvtepu16_epi32
#define _mm512_cvtepu8_epi32 wide_cvtepu8_epi32
#define _mm512_cvtepi32_ps wide_cvtepi32_ps
#define _mm512_cvtepi32_epi16 wide_cvtepi32_epi16
#define _mm512_castsi512_si256 wide_castsi512_si256
#define _mm512_castsi256_si512 wide_castsi256_si512
#undef _mm512_extracti64x4_epi64
#define _mm512_extracti64x4_epi64 wide_extracti64x4_epi64
#undef _mm512_inserti64x4
#define _mm512_inserti64x4 wide_inserti64x4
#undef _mm512_shuffle_i32x4
#define _mm512_shuffle_i32x4 wide_shuffle_i32x4
#undef _mm512_alignr_epi32
#define _mm512_alignr_epi32 wide_alignr_epi32
#define _mm256_cmpgt_epi16_mask half_cmpgt_epi16_mask
#define _mm256_maskz_mov_epi16 half_maskz_mov_epi16
#define _mm256_maskz_loadu_epi16 half_maskz_loadu_epi16
#define _mm256_mask_storeu_epi16 half_mask_storeu_epi16
