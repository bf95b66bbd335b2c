// Norms of gradients, and Adam's step with all that goes with it in one pass over the memory.

#include "tiles.h"

#include <math.h>

enum {
    PIECE = 1 << 15,  // numbers that are worked on at once
    FLUSH = 0x8040,   // of the control register: numbers below float32's normal ones are zero
};

typedef struct {
    long size;
    const void *gradient;  // bfloat16, or float32 where there is no working copy
    float *master, *first, *second;
    bf16 *working;  // or NULL: the master is what the network works with
} parameter;

static inline __m512 gradient_at(const parameter *p, long at, __mmask16 lanes) {
    if (!p->working) return _mm512_maskz_loadu_ps(lanes, (const float *)p->gradient + at);
    return widen(_mm256_maskz_loadu_epi16(lanes, (const bf16 *)p->gradient + at));
}

static inline __mmask16 lanes_from(long at, long end) { return end - at >= 16 ? 0xffff : (1 << (end - at)) - 1; }

static long pieces_of(int count, const parameter *parameters) {
    long pieces = 0;
    for (int i = 0; i < count; i++) pieces += (parameters[i].size + PIECE - 1) / PIECE;
    return pieces;
}

static const parameter *piece_at(const parameter *p, long piece, long *start, long *end) {
    for (; piece >= (p->size + PIECE - 1) / PIECE; p++) piece -= (p->size + PIECE - 1) / PIECE;
    *start = piece * PIECE;
    *end = p->size < *start + PIECE ? p->size : *start + PIECE;
    return p;
}

// Norms of the gradients, [count].
int pixelq_norms(int count, const parameter *parameters, float *norms) {
    long pieces = pieces_of(count, parameters);
    float *parts = malloc(pieces * sizeof(float));
    if (!parts) return 1;
#pragma omp parallel for schedule(dynamic, 4)
    for (long piece = 0; piece < pieces; piece++) {
        long at, end;
        const parameter *p = piece_at(parameters, piece, &at, &end);
        __m512 sum[4];
        for (int i = 0; i < 4; i++) sum[i] = _mm512_setzero_ps();
        for (; at + 64 <= end; at += 64)
            for (int i = 0; i < 4; i++) {
                __m512 g = gradient_at(p, at + 16 * i, 0xffff);
                sum[i] = _mm512_fmadd_ps(g, g, sum[i]);
            }
        for (; at < end; at += 16) {
            __m512 g = gradient_at(p, at, lanes_from(at, end));
            sum[0] = _mm512_fmadd_ps(g, g, sum[0]);
        }
        parts[piece] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
    }
    long piece = 0;
    for (int i = 0; i < count; i++) {
        double sum = 0;
        for (long part = (parameters[i].size + PIECE - 1) / PIECE; part > 0; part--) sum += parts[piece++];
        norms[i] = (float)sqrt(sum);
    }
    free(parts);
    return 0;
}

enum { NO_CLIPPING, PER_VARIABLE, GLOBAL };

// What gradients of such norms are multiplied by to be clipped; a norm that is no number gives none.
static void clipping_factors(int count, const float *norms, int clip, double clip_norm, float *factors) {
    double all = 0;
    for (int i = 0; i < count; i++) all += (double)norms[i] * norms[i];
    for (int i = 0; i < count; i++) {
        double norm = clip == GLOBAL ? sqrt(all) : norms[i];
        factors[i] = clip == NO_CLIPPING || norm <= clip_norm ? 1.0f : (float)(clip_norm / norm);
    }
}

// Means of gradients that have become zero fade until they are no normal numbers, with which arithmetic takes ten times
// as long; so here these are zero.
//
// g = clipped gradient; m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; θ ← θ − m · (scaled / (√v + epsilon) + plain)
int pixelq_adam(
    int count, const parameter *parameters, const float *norms, int clip, double clip_norm, double beta1, double beta2,
    double scaled, double epsilon, double plain
) {
    long pieces = pieces_of(count, parameters);
    float factors[count];
    clipping_factors(count, norms, clip, clip_norm, factors);
#pragma omp parallel for schedule(dynamic, 4)
    for (long piece = 0; piece < pieces; piece++) {
        long at, end;
        const parameter *p = piece_at(parameters, piece, &at, &end);
        unsigned mode = _mm_getcsr();
        _mm_setcsr(mode | FLUSH);
        __m512 scale = _mm512_set1_ps(factors[p - parameters]);
        for (; at < end; at += 16) {
            __mmask16 lanes = lanes_from(at, end);
            __m512 g = _mm512_mul_ps(scale, gradient_at(p, at, lanes));
            __m512 m = _mm512_maskz_loadu_ps(lanes, p->first + at), v = _mm512_maskz_loadu_ps(lanes, p->second + at);
            m = _mm512_fmadd_ps(_mm512_set1_ps((float)(1 - beta1)), _mm512_sub_ps(g, m), m);
            v = _mm512_fmadd_ps(_mm512_set1_ps((float)(1 - beta2)), _mm512_mul_ps(g, g), _mm512_mul_ps(_mm512_set1_ps((float)beta2), v));
            __m512 rate = _mm512_div_ps(_mm512_set1_ps((float)scaled), _mm512_add_ps(_mm512_sqrt_ps(v), _mm512_set1_ps((float)epsilon)));
            rate = _mm512_add_ps(rate, _mm512_set1_ps((float)plain));
            __m512 w = _mm512_fnmadd_ps(m, rate, _mm512_maskz_loadu_ps(lanes, p->master + at));
            _mm512_mask_storeu_ps(p->first + at, lanes, m);
            _mm512_mask_storeu_ps(p->second + at, lanes, v);
            _mm512_mask_storeu_ps(p->master + at, lanes, w);
            if (p->working) _mm256_mask_storeu_epi16(p->working + at, lanes, (__m256i)_mm512_cvtneps_pbh(w));
        }
        _mm_setcsr(mode);
    }
    return 0;
}
