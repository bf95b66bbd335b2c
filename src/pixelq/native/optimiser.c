// Gradient norms, and the whole optimiser step in one pass over the memory.

#include "optimiser.h"

#include <math.h>

enum {
    PIECE = 1 << 15,  // numbers in one turn
};

static inline __m512 gradient_at(const parameter *p, long at, __mmask16 lanes) {
    if (!p->working) return _mm512_maskz_loadu_ps(lanes, (const float *)p->gradient + at);
    return widen(_mm256_maskz_loadu_epi16(lanes, (const bf16 *)p->gradient + at));
}

static inline __mmask16 lanes_from(long at, long end) { return end - at >= 16 ? 0xffff : (1 << (end - at)) - 1; }

static long pieces_of(const step *s) {
    long pieces = 0;
    for (int i = 0; i < s->count; i++) pieces += (s->parameters[i].size + PIECE - 1) / PIECE;
    return pieces;
}

static const parameter *piece_at(const parameter *p, long piece, long *start, long *end) {
    for (; piece >= (p->size + PIECE - 1) / PIECE; p++) piece -= (p->size + PIECE - 1) / PIECE;
    *start = piece * PIECE;
    *end = p->size < *start + PIECE ? p->size : *start + PIECE;
    return p;
}

long norms_bytes(const step *s) { return lines(pieces_of(s) * sizeof(float)); }

// The sum of squares of each piece of the gradients.
void norms_by_team(const step *s, float *parts) {
    long pieces = pieces_of(s);
    team_loop *loop = team_share();
    for (long piece; (piece = team_take(loop)) < pieces;) {
        long at, end;
        const parameter *p = piece_at(s->parameters, piece, &at, &end);
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
}

enum { NO_CLIPPING, PER_VARIABLE, GLOBAL };

// Gradient norms [count] from the pieces' sums, and the factors that clip the gradients. A norm of NaN clips nothing.
static void clipping_factors(const step *s, const float *parts, float *norms, float *factors) {
    double all = 0;
    for (int i = 0; i < s->count; i++) {
        double sum = 0;
        for (long part = (s->parameters[i].size + PIECE - 1) / PIECE; part > 0; part--) sum += *parts++;
        norms[i] = (float)sqrt(sum);
        all += (double)norms[i] * norms[i];
    }
    for (int i = 0; i < s->count; i++) {
        double norm = s->clip == GLOBAL ? sqrt(all) : norms[i];
        factors[i] = s->clip == NO_CLIPPING || norm <= s->clip_norm ? 1.0f : (float)(s->clip_norm / norm);
    }
}

// The constants of a step, in all lanes.
typedef struct {
    __m512 rest1, beta2, rest2, scaled, epsilon, plain, kept;
} numbers;

static inline __attribute__((always_inline)) void move_piece(
    const parameter *p, long at, long end, int kind, __m512 scale, const numbers *n
) {
    for (; at < end; at += 16) {
        __mmask16 lanes = lanes_from(at, end);
        __m512 g = _mm512_mul_ps(scale, gradient_at(p, at, lanes)), change;
        __m512 m = _mm512_maskz_loadu_ps(lanes, p->first + at), v = _mm512_maskz_loadu_ps(lanes, p->second + at);
        m = _mm512_fmadd_ps(n->rest1, _mm512_sub_ps(g, m), m);
        v = _mm512_fmadd_ps(n->rest2, _mm512_mul_ps(g, g), _mm512_mul_ps(n->beta2, v));
        if (kind == ADAM) {
            __m512 rate = _mm512_div_ps(n->scaled, _mm512_add_ps(_mm512_sqrt_ps(v), n->epsilon));
            change = _mm512_mul_ps(m, _mm512_add_ps(rate, n->plain));
        } else {  // rounding may make a variance slightly negative
            __m512 variance = _mm512_max_ps(_mm512_fnmadd_ps(m, m, v), _mm512_setzero_ps());
            __m512 root = _mm512_sqrt_ps(_mm512_add_ps(variance, n->epsilon));
            change = _mm512_div_ps(_mm512_mul_ps(n->scaled, g), root);
        }
        __m512 w = _mm512_sub_ps(_mm512_mul_ps(n->kept, _mm512_maskz_loadu_ps(lanes, p->master + at)), change);
        _mm512_mask_storeu_ps(p->first + at, lanes, m);
        _mm512_mask_storeu_ps(p->second + at, lanes, v);
        _mm512_mask_storeu_ps(p->master + at, lanes, w);
        if (p->working) _mm256_mask_storeu_epi16(p->working + at, lanes, narrow(w));
    }
}

// If gradients become zero, their means decay to denormal numbers, which take ten times as long. So denormals are set
// to zero here.
void moves_by_team(const step *s, const float *parts, float *norms) {
    long pieces = pieces_of(s);
    float factors[s->count], mine[s->count];
    int known = 0;
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | FLUSH);
    numbers n = {_mm512_set1_ps((float)(1 - s->beta1)), _mm512_set1_ps((float)s->beta2), _mm512_set1_ps((float)(1 - s->beta2)),
                 _mm512_set1_ps((float)s->scaled), _mm512_set1_ps((float)s->epsilon), _mm512_set1_ps((float)s->plain),
                 _mm512_set1_ps((float)s->kept)};
    team_loop *loop = team_share();
    for (long piece; (piece = team_take(loop)) < pieces;) {
        long at, end;
        const parameter *p = piece_at(s->parameters, piece, &at, &end);
        if (!known) clipping_factors(s, parts, mine, factors), known = 1;  // each member computes it, so that none waits
        if (piece == 0) memcpy(norms, mine, s->count * sizeof(float));
        __m512 scale = _mm512_set1_ps(factors[p - s->parameters]);
        if (s->kind == ADAM) move_piece(p, at, end, ADAM, scale, &n);
        else move_piece(p, at, end, CENTRED_RMSPROP, scale, &n);
    }
    _mm_setcsr(mode);
}

typedef struct {
    const step *s;
    float *parts, *norms;
} job;

static void move_by_team(void *of) {
    const job *j = of;
    norms_by_team(j->s, j->parts);
    team_wait();
    moves_by_team(j->s, j->parts, j->norms);
}

// Update all weights; return the gradients' norms [count] before clipping.
long pixelq_move(const step *s, float *norms) {
    job j = {s, malloc(norms_bytes(s)), norms};
    if (!j.parts) return 1;
    team_run(team_threads, move_by_team, &j);
    free(j.parts);
    return 0;
}
