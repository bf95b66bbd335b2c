// The first half of an update of deep Q-learning in one call: from transitions to errors and gradients.
//
// Between the layers there are a few hundred numbers, for which PyTorch takes some sixty operations, and longer than for
// the layers.

#include "tiles.h"

#include <math.h>

int pixelq_torso_forward(
    int batch, int f1, int f2, int f3, const uint8_t *obs, const bf16 *w1, const bf16 *b1, const bf16 *w2,
    const bf16 *b2, const bf16 *w3, const bf16 *b3, bf16 *woven, bf16 *a1, bf16 *a2, bf16 *features);
int pixelq_torso_backward(
    int batch, int f1, int f2, int f3, const bf16 *w2, const bf16 *w3, const bf16 *woven, const bf16 *a1,
    const bf16 *a2, const bf16 *features, const bf16 *dfeatures, bf16 *dw1, bf16 *db1, bf16 *dw2, bf16 *db2,
    bf16 *dw3, bf16 *db3);
int pixelq_dense_forward(int batch, int depth, int units, const bf16 *x, const bf16 *w, const bf16 *bias, float *hidden);
int pixelq_dense_backward(
    int batch, int depth, int units, const bf16 *x, const bf16 *w, const float *hidden, const float *dhidden,
    bf16 *dx, bf16 *dw, bf16 *dbias);

// Weights and biases of three convolutions, a dense layer and the outputs; or their gradients.
typedef struct {
    bf16 *w1, *b1, *w2, *b2, *w3, *b3, *w4, *b4;
    float *w5, *b5;
} weights;

enum { HUBER, SQUARED, HALF_SQUARED };
enum { PIXELS = 84 * 84 * 4, FIRST = 20 * 20, SECOND = 9 * 9, THIRD = 7 * 7 };  // of an image, and of the layers' outputs

typedef struct {
    int f1, f2, f3, units, actions;  // three times filters, units of the dense layer, outputs
} sizes;

typedef struct {
    sizes of;
    int doubled;     // the online network chooses the next action
    int penalty;     // of the three above
    float terminal;  // the reward where the discount is 0; NaN: what it was
    weights online, target, gradients;
} learner;

// What is kept of a forward pass for the way back; all but `features` and `hidden` may be NULL.
typedef struct {
    bf16 *woven, *a1, *a2, *features;
    float *hidden;
} kept;

static int values(const sizes *s, const weights *w, int batch, const uint8_t *obs, const kept *k, float *q) {
    if (pixelq_torso_forward(batch, s->f1, s->f2, s->f3, obs, w->w1, w->b1, w->w2, w->b2, w->w3, w->b3,
                             k->woven, k->a1, k->a2, k->features) ||
        pixelq_dense_forward(batch, THIRD * s->f3, s->units, k->features, w->w4, w->b4, k->hidden))
        return 1;
    for (int i = 0; i < batch; i++)
        for (int a = 0; a < s->actions; a++) {
            __m512 sum = _mm512_setzero_ps();
            for (int unit = 0; unit < s->units; unit += TILE) {
                __m512 hidden = _mm512_loadu_ps(k->hidden + (long)i * s->units + unit);
                sum = _mm512_fmadd_ps(hidden, _mm512_loadu_ps(w->w5 + (long)a * s->units + unit), sum);
            }
            q[i * s->actions + a] = _mm512_reduce_add_ps(sum) + w->b5[a];
        }
    return 0;
}

// Values [batch][actions] of observations [batch][4][84][84].
int pixelq_q_values(const sizes *s, const weights *w, int batch, const uint8_t *obs, float *q) {
    long features = (long)THIRD * s->f3, bytes = batch * (features * sizeof(bf16) + s->units * sizeof(float));
    float *hidden = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!hidden) return 1;
    kept k = {.hidden = hidden, .features = (bf16 *)(hidden + (long)batch * s->units)};
    int failed = values(s, w, batch, obs, &k, q);
    free(hidden);
    return failed;
}

// The first of the largest; one that is no number is larger than all.
static int largest(const float *q, int actions) {
    int best = 0;
    for (int a = 1; a < actions && !isnan(q[best]); a++)
        if (!(q[a] <= q[best])) best = a;
    return best;
}

static float penalty_of(int penalty, float error, float *slope) {
    if (penalty == HUBER) {
        float size = fabsf(error), inner = size > 1.0f ? 1.0f : size;
        *slope = error > 1.0f ? 1.0f : error < -1.0f ? -1.0f : error;
        return 0.5f * inner * inner + (size - inner);
    }
    *slope = penalty == SQUARED ? 2.0f * error : error;
    return (penalty == SQUARED ? 1.0f : 0.5f) * error * error;
}

// From the slope of the loss in the value of each action taken: the output layer's gradients, and dhidden.
static void outputs_backward(
    const learner *l, int batch, const int64_t *action, const float *slope, const float *hidden, float *dhidden
) {
    const sizes *s = &l->of;
    const weights *g = &l->gradients;
    memset(g->w5, 0, (size_t)s->actions * s->units * sizeof(float));
    memset(g->b5, 0, s->actions * sizeof(float));
    for (int i = 0; i < batch; i++) {
        long row = (long)i * s->units, of = action[i] * s->units;
        __m512 by = _mm512_set1_ps(slope[i]);
        g->b5[action[i]] += slope[i];
        for (int unit = 0; unit < s->units; unit += TILE) {
            float *to = g->w5 + of + unit;
            _mm512_storeu_ps(to, _mm512_fmadd_ps(by, _mm512_loadu_ps(hidden + row + unit), _mm512_loadu_ps(to)));
            _mm512_storeu_ps(dhidden + row + unit, _mm512_mul_ps(by, _mm512_loadu_ps(l->online.w5 + of + unit)));
        }
    }
}

// Bytes of scratch that `pixelq_q_learning` needs for each transition.
int pixelq_q_learning_scratch(const learner *l) {
    const sizes *s = &l->of;
    int numbers = PIXELS + FIRST * s->f1 + SECOND * s->f2 + 2 * THIRD * s->f3;
    return numbers * (int)sizeof(bf16) + (2 * s->units + 2 * s->actions + 1) * (int)sizeof(float);
}

// From transitions [batch] to the online network's values q [batch][actions], the errors [batch], the mean loss [1] and
// the gradients of all weights. The weights of the transitions lie `weight_step` numbers apart: 0 if there is one for all.
int pixelq_q_learning(
    const learner *l, int batch, const uint8_t *obs, const int64_t *action, const float *reward, const float *discount,
    const uint8_t *next_obs, const float *weight, int weight_step, float *q, float *error, float *loss, void *scratch
) {
    const sizes *s = &l->of;
    long features = (long)THIRD * s->f3, size = batch;
    kept k = {.hidden = scratch};
    float *dhidden = k.hidden + size * s->units, *next = dhidden + size * s->units, *selector = next + size * s->actions,
          *slope = selector + size * s->actions;
    k.features = (bf16 *)(slope + size);
    bf16 *dfeatures = k.features + size * features;
    kept in_passing = k;
    k.woven = dfeatures + size * features, k.a1 = k.woven + size * PIXELS, k.a2 = k.a1 + size * FIRST * s->f1;
    int failed = values(s, &l->target, batch, next_obs, &in_passing, next) ||
                 (l->doubled && values(s, &l->online, batch, next_obs, &in_passing, selector)) ||
                 values(s, &l->online, batch, obs, &k, q);
    double sum = 0;
    for (int i = 0; i < batch && !failed; i++) {
        const float *row = next + i * s->actions;
        float bootstrap = row[largest(l->doubled ? selector + i * s->actions : row, s->actions)];
        float r = discount[i] == 0.0f && !isnan(l->terminal) ? l->terminal : reward[i];
        error[i] = r + discount[i] * bootstrap - q[i * s->actions + action[i]];
        float by = weight[(long)i * weight_step], penalty = penalty_of(l->penalty, error[i], slope + i);
        sum += by * penalty;
        slope[i] *= -by / batch;
    }
    *loss = (float)(sum / batch);
    if (!failed) {
        const weights *w = &l->online, *g = &l->gradients;
        outputs_backward(l, batch, action, slope, k.hidden, dhidden);
        failed = pixelq_dense_backward(batch, (int)features, s->units, k.features, w->w4, k.hidden, dhidden, dfeatures,
                                       g->w4, g->b4) ||
                 pixelq_torso_backward(batch, s->f1, s->f2, s->f3, w->w2, w->w3, k.woven, k.a1, k.a2, k.features,
                                       dfeatures, g->w1, g->b1, g->w2, g->b2, g->w3, g->b3);
    }
    return failed;
}
