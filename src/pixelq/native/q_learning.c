// A deep Q-learning update in one call: from transitions to errors, gradients and new weights.
//
// The loss has only a few hundred numbers, but PyTorch needs some sixty operations for them and more time than for the
// layers. One call also wakes the threads once, not once a layer.

#include "layers.h"
#include "optimiser.h"

#include <math.h>

enum { HUBER, SQUARED, HALF_SQUARED };

typedef struct {
    sizes of;
    int doubled;     // the online network chooses the next action
    int penalty;     // one of the three above
    float terminal;  // replaces the reward where the discount is 0; NaN: keep the reward
    weights online, target, gradients;
} learner;

typedef struct {
    images obs;
    const int64_t *action;
    const float *reward, *discount;
    images next_obs;
    const float *weight;
    int size, weight_step;  // stride of the importance weights; 0: one weight for all
} transitions;

static dense dense_of(const sizes *s, const weights *w) { return (dense){1, s->units, {{w->w4, w->b4}}}; }

// Values [batch][actions] of hidden [batch][units].
static void outputs(const sizes *s, const weights *w, int batch, const float *hidden, float *q) {
    for (int i = 0; i < batch; i++)
        for (int a = 0; a < s->actions; a++) {
            __m512 sum = _mm512_setzero_ps();
            for (int unit = 0; unit < s->units; unit += TILE) {
                __m512 h = _mm512_loadu_ps(hidden + (long)i * s->units + unit);
                sum = _mm512_fmadd_ps(h, _mm512_loadu_ps(w->w5 + (long)a * s->units + unit), sum);
            }
            q[i * s->actions + a] = _mm512_reduce_add_ps(sum) + w->b5[a];
        }
}

typedef struct {
    const sizes *s;
    const weights *w;
    int batch;
    images obs;
    uint32_t *filters, *rows;
    bf16 *features;
    float *hidden;
    char *own;
    long own_bytes;
} acting;

static void values_by_team(void *of) {
    const acting *a = of;
    int depth = (int)features_size(a->s);
    torso_pack_by_team(a->s, a->w, a->filters);
    team_wait();
    seen by = {a->w, a->filters, a->features, NULL};
    torso_features_by_team(a->s, a->batch, &a->obs, 1, &by, NULL, a->own + team_member() * a->own_bytes);
    team_wait();
    dense_pack_by_team(a->batch, depth, a->features, a->rows);
    team_wait();
    dense d = dense_of(a->s, a->w);
    dense_hidden_by_team(a->batch, depth, &d, a->rows, 1, a->hidden, NULL);
}

static void *take(char *memory, long *used, long bytes) {
    void *taken = memory + *used;
    *used += lines(bytes);
    return taken;
}

// Values [batch][actions] of observations, which are bytes.
long pixelq_q_values(const sizes *s, const weights *w, int batch, const images *obs, float *q) {
    acting a = {.s = s, .w = w, .batch = batch, .obs = *obs, .own_bytes = torso_own_bytes(s, batch)};
    int depth = (int)features_size(s);
    char *memory = NULL;
    for (int laid_out = 0; laid_out < 2; laid_out++) {
        long used = 0;
        a.filters = take(memory, &used, torso_packed_bytes(s));
        a.rows = take(memory, &used, dense_packed_bytes(batch, depth));
        a.features = take(memory, &used, (long)batch * depth * sizeof(bf16));
        a.hidden = take(memory, &used, (long)batch * s->units * sizeof(float));
        a.own = take(memory, &used, team_threads * a.own_bytes);
        if (!laid_out && !(memory = aligned_alloc(64, used))) return 1;
    }
    team_run(team_threads, values_by_team, &a);
    outputs(s, w, batch, a.hidden, q);
    free(memory);
    return 0;
}

// The index of the first maximum; NaN counts as the largest.
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

// Scratch memory of an update.
typedef struct {
    uint32_t *filters, *target_filters, *filters_back, *rows, *target_rows, *columns;  // packed for the products
    activations kept;
    // next observations by the target network; next observations by the online one (if needed), then observations
    bf16 *next_features, *chosen_features, *features, *dfeatures;
    number *slopes;
    float *next_hidden, *chosen_hidden, *hidden, *dhidden;
    float *penalty, *push;  // of each transition: its loss, and the loss's derivative by its action's value
    float *shares, *parts;
    char *own;  // one for each thread
    long own_bytes;
} scratch;

// Lay it out in memory; return its size in bytes.
static long lay_out(const learner *l, int batch, const step *o, char *memory, scratch *x) {
    const sizes *s = &l->of;
    int depth = (int)features_size(s), online = l->doubled ? 2 : 1;
    long used = 0, numbers = (long)batch * depth * sizeof(bf16), units = (long)batch * s->units * sizeof(float);
    x->filters = take(memory, &used, torso_packed_bytes(s));
    x->target_filters = take(memory, &used, torso_packed_bytes(s));
    x->filters_back = take(memory, &used, torso_packed_back_bytes(s));
    x->rows = take(memory, &used, dense_packed_bytes(online * batch, depth));
    x->target_rows = take(memory, &used, dense_packed_bytes(batch, depth));
    x->columns = take(memory, &used, dense_packed_back_bytes(batch, depth));
    x->kept = activations_in(s, batch, take(memory, &used, activations_bytes(s, batch)));
    x->next_features = take(memory, &used, numbers);
    x->chosen_features = take(memory, &used, online * numbers);
    x->features = x->chosen_features + (online - 1L) * batch * depth;
    x->next_hidden = take(memory, &used, units);
    x->chosen_hidden = take(memory, &used, online * units);
    x->hidden = x->chosen_hidden + (online - 1L) * batch * s->units;
    x->dfeatures = take(memory, &used, numbers);
    x->slopes = take(memory, &used, dense_slopes_bytes(batch, s->units));
    x->dhidden = take(memory, &used, units);
    x->penalty = take(memory, &used, batch * sizeof(float));
    x->push = take(memory, &used, batch * sizeof(float));
    x->shares = take(memory, &used, torso_shares_bytes(s, NULL));
    x->parts = take(memory, &used, o ? norms_bytes(o) : 0);
    long forward = torso_own_bytes(s, batch), back = torso_own_back_bytes(s), dense = dense_own_back_bytes(s->units);
    x->own_bytes = forward > back ? forward : back;
    if (dense > x->own_bytes) x->own_bytes = dense;
    x->own = take(memory, &used, team_threads * x->own_bytes);
    return used;
}

// From the dense layer forward to the errors, and back to the gradient of the dense layer's outputs.
static void errors_by_team(const learner *l, const transitions *t, const scratch *x, float *q, float *error) {
    const sizes *s = &l->of;
    float next[s->actions], selector[s->actions];
    team_loop *loop = team_share();
    for (int i; (i = (int)team_take(loop)) < t->size;) {
        long row = (long)i * s->units;
        outputs(s, &l->target, 1, x->next_hidden + row, next);
        if (l->doubled) outputs(s, &l->online, 1, x->chosen_hidden + row, selector);
        outputs(s, &l->online, 1, x->hidden + row, q + (long)i * s->actions);
        float bootstrap = next[largest(l->doubled ? selector : next, s->actions)];
        float r = t->discount[i] == 0.0f && !isnan(l->terminal) ? l->terminal : t->reward[i];
        error[i] = r + t->discount[i] * bootstrap - q[i * s->actions + t->action[i]];
        float weight = t->weight[(long)i * t->weight_step], slope;
        x->penalty[i] = weight * penalty_of(l->penalty, error[i], &slope);
        x->push[i] = -weight * slope / t->size;
        __m512 by = _mm512_set1_ps(x->push[i]);
        for (int unit = 0; unit < s->units; unit += TILE) {
            __m512 w = _mm512_loadu_ps(l->online.w5 + t->action[i] * s->units + unit);
            _mm512_storeu_ps(x->dhidden + row + unit, _mm512_mul_ps(by, w));
        }
    }
}

// The mean loss, the mean value, and the output layer's gradients.
static void outputs_back(
    const learner *l, const transitions *t, const scratch *x, const float *q, float *mean_loss, float *mean_q
) {
    const sizes *s = &l->of;
    const weights *g = &l->gradients;
    double sum = 0, values = 0;
    memset(g->w5, 0, (size_t)s->actions * s->units * sizeof(float));
    memset(g->b5, 0, s->actions * sizeof(float));
    for (int i = 0; i < t->size; i++) {
        float *to = g->w5 + t->action[i] * s->units;
        __m512 by = _mm512_set1_ps(x->push[i]);
        sum += x->penalty[i];
        g->b5[t->action[i]] += x->push[i];
        for (int unit = 0; unit < s->units; unit += TILE) {
            __m512 h = _mm512_loadu_ps(x->hidden + (long)i * s->units + unit);
            _mm512_storeu_ps(to + unit, _mm512_fmadd_ps(by, h, _mm512_loadu_ps(to + unit)));
        }
    }
    for (int i = 0; i < t->size * s->actions; i++) values += q[i];
    *mean_loss = (float)(sum / t->size), *mean_q = (float)(values / (t->size * s->actions));
}

// Bytes of scratch that `pixelq_q_learning` needs for so many transitions, with the present number of threads.
long pixelq_q_learning_scratch(const learner *l, int batch, const step *o) {
    scratch x;
    return lay_out(l, batch, o, NULL, &x);
}

typedef struct {
    const learner *l;
    const transitions *t;  // of the first update
    const step *steps;
    int count;
    scratch x;
    float *q, *error, *means, *norms;
    atomic_int *failed;
} updates;

static void update_by_team(const updates *u, int number) {
    const learner *l = u->l;
    const scratch *x = &u->x;
    transitions of_this = *u->t, *t = &of_this;
    long before = (long)number * t->size;
    t->obs = images_from(t->obs, before), t->next_obs = images_from(t->next_obs, before);
    t->obs.failed = t->next_obs.failed = u->failed;
    t->weight += before * t->weight_step, t->action += before, t->reward += before, t->discount += before;
    float *q = u->q + before * l->of.actions, *error = u->error + before;
    const sizes *s = &l->of;
    const weights *w = &l->online, *g = &l->gradients;
    int size = t->size, depth = (int)features_size(s), online = l->doubled ? 2 * size : size;
    char *own = x->own + team_member() * x->own_bytes;
    torso_pack_by_team(s, w, x->filters);
    torso_pack_by_team(s, &l->target, x->target_filters);
    torso_pack_back_by_team(s, w, x->filters_back);
    team_wait();
    seen next[2] = {{&l->target, x->target_filters, x->next_features, NULL}, {w, x->filters, x->chosen_features, NULL}};
    seen now = {w, x->filters, x->features, NULL};
    torso_features_by_team(s, size, &t->next_obs, l->doubled ? 2 : 1, next, NULL, own);
    torso_features_by_team(s, size, &t->obs, 1, &now, &x->kept, own);
    team_wait();
    dense_pack_by_team(size, depth, x->next_features, x->target_rows);
    dense_pack_by_team(online, depth, x->chosen_features, x->rows);
    dense_pack_back_by_team(size, depth, x->features, x->columns);
    team_wait();
    dense of_target = dense_of(s, &l->target), of_online = dense_of(s, w), slopes = dense_of(s, g);
    dense_hidden_by_team(size, depth, &of_target, x->target_rows, 1, x->next_hidden, NULL);
    dense_hidden_by_team(online, depth, &of_online, x->rows, 1, x->chosen_hidden, NULL);
    team_wait();
    errors_by_team(l, t, x, q, error);
    team_wait();
    team_loop *once = team_share();
    if (team_take(once) == 0) outputs_back(l, t, x, q, u->means + number, u->means + u->count + number);
    dense_slopes_by_team(size, &slopes, x->hidden, x->dhidden, x->slopes);
    team_wait();
    dense_gradients_by_team(size, depth, &of_online, &slopes, x->columns, x->slopes, 1.0f, x->dfeatures, own);
    team_wait();
    torso_shares_by_team(s, NULL, size, x->filters_back, &x->kept, x->features, x->dfeatures, x->shares, own);
    team_wait();
    torso_gradients_by_team(s, size, x->shares, g, NULL);
    if (!u->steps) return;
    const step *o = u->steps + number;
    team_wait();
    norms_by_team(o, x->parts);
    team_wait();
    moves_by_team(o, x->parts, u->norms + (long)number * o->count);
}

static void updates_by_team(void *of) {
    const updates *u = of;
    for (int number = 0; number < u->count; number++, team_wait()) update_by_team(u, number);
}

// Run `count` updates of `t->size` transitions each. Writes the online values q [transitions][actions], errors
// [transitions], mean losses and values [2][count], and all gradients. With `steps` [count] it also updates the weights and
// writes gradient norms [count][weights]. Returns 1 if planes could not be read.
long pixelq_q_learning(
    const learner *l, const transitions *t, int count, const step *steps, float *q, float *error, float *means, float *norms,
    void *memory
) {
    atomic_int failed = 0;
    updates u = {.l = l, .t = t, .steps = steps, .count = count, .q = q, .error = error, .means = means, .norms = norms,
                 .failed = &failed};
    lay_out(l, t->size, steps, memory, &u.x);
    team_run(team_threads, updates_by_team, &u);
    return atomic_load(&failed);
}
