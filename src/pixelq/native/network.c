// A network: forward to its outputs, and backward from the outputs' gradient to the gradients of all weights.
//
// The loss between the two passes is the caller's. The network has three convolutions, optionally normalised before their
// ReLUs; then one or two streams. A stream is a dense layer with a ReLU, optionally normalised before it, and linear outputs
// in float32. Two streams are a value and advantages of actions.

#include "layers.h"

#include <math.h>

// With scales of noise, weights are means; the noise is given for inputs and outputs, NULL: none.
typedef struct {
    bf16 *w, *b, *w_sigma, *b_sigma;
    float *out_w, *out_b, *out_w_sigma, *out_b_sigma;
    bf16 *gain, *shift;  // of layer normalisation before the ReLU, or NULL
    const float *noise_in, *noise_out, *out_noise_in, *out_noise_out;
} stream;

typedef struct {
    sizes of;           // units: in a stream
    int streams, each;  // outputs an action
    weights torso;      // of the three convolutions
    stream stream[2];
    float epsilon;  // of the streams' layer normalisation
    norms planes;   // of the convolutions
} network;  // or its gradients

enum { PAIR = 2 * TILE };

static const norms *norms_of(const network *n) { return n->planes.gain[0] ? &n->planes : NULL; }

static int outputs_of(const network *n, int s) { return n->streams == 2 && s == 0 ? n->each : n->of.actions * n->each; }

// Scratch memory of a pass.
typedef struct {
    uint32_t *filters, *filters_back, *rows, *columns;  // packed for the products
    activations kept;
    bf16 *features, *dfeatures;
    number *slopes;
    float *hidden, *dhidden;     // [batch][streams][units]
    float *normal, *rates;       // before gain and shift, the same shape; 1 / deviation [batch][streams]
    float *parts[2], *dparts[2];  // outputs of two streams, and their gradients
    struct {
        bf16 *w, *b;
        float *out_w, *out_b;
    } noisy[2];  // weights with their noise
    float *shares;
} scratch;

static void *take(char *memory, long *used, long bytes) {
    void *taken = memory + *used;
    *used += lines(bytes);
    return taken;
}

// Lay it out in memory; return its size in bytes.
static long lay_out(const network *n, int batch, int back, char *memory, scratch *x) {
    *x = (scratch){0};
    const sizes *s = &n->of;
    int depth = (int)features_size(s), units = n->streams * s->units;
    long used = 0, numbers = (long)batch * depth * sizeof(bf16), floats = (long)batch * units * sizeof(float);
    x->filters = take(memory, &used, torso_packed_bytes(s));
    x->rows = take(memory, &used, dense_packed_bytes(batch, depth));
    x->features = take(memory, &used, numbers);
    x->hidden = take(memory, &used, floats);
    for (int i = 0; i < n->streams; i++) {
        long outputs = outputs_of(n, i);
        if (n->streams == 2) x->parts[i] = take(memory, &used, batch * outputs * sizeof(float));
        if (n->streams == 2 && back) x->dparts[i] = take(memory, &used, batch * outputs * sizeof(float));
        if (!n->stream[i].w_sigma) continue;
        if (back) x->noisy[i].w = take(memory, &used, (long)s->units * depth * sizeof(bf16));
        x->noisy[i].b = take(memory, &used, s->units * sizeof(bf16));
        x->noisy[i].out_w = take(memory, &used, outputs * s->units * sizeof(float));
        x->noisy[i].out_b = take(memory, &used, outputs * sizeof(float));
    }
    if (n->stream[0].gain) {
        x->normal = take(memory, &used, floats);
        x->rates = take(memory, &used, (long)batch * n->streams * sizeof(float));
    }
    if (!back) return used;
    x->filters_back = take(memory, &used, torso_packed_back_bytes(s));
    x->columns = take(memory, &used, dense_packed_back_bytes(batch, depth));
    x->kept = activations_in(s, batch, take(memory, &used, activations_bytes(s, batch)));
    if (norms_of(n)) x->kept.before = before_norms_in(s, batch, take(memory, &used, before_norms_bytes(s, batch)));
    x->dfeatures = take(memory, &used, numbers);
    x->slopes = take(memory, &used, dense_slopes_bytes(batch, units));
    x->dhidden = take(memory, &used, floats);
    x->shares = take(memory, &used, torso_shares_bytes(s, norms_of(n)));
    return used;
}

// Bytes of memory for a forward pass, with or without a later backward pass.
long pixelq_network_scratch(const network *n, int batch, int back) {
    scratch x;
    return lay_out(n, batch, back, NULL, &x);
}

static dense dense_of(const network *n, const scratch *x) {
    dense d = {n->streams, n->of.units, {{0}}};
    for (int i = 0; i < n->streams; i++) {
        const stream *s = n->stream + i;
        d.part[i].w = s->w, d.part[i].b = s->b;
        if (!x || !s->noise_in) continue;
        d.part[i].w = x->noisy[i].w, d.part[i].b = x->noisy[i].b;
        d.part[i].w_mean = s->w, d.part[i].w_sigma = s->w_sigma;
        d.part[i].noise_in = s->noise_in, d.part[i].noise_out = s->noise_out;
    }
    return d;
}

static linear linear_of(const network *n, const scratch *x, int i) {
    const stream *s = n->stream + i;
    int noisy = x && s->out_noise_in;
    return (linear){.units = n->of.units, .outputs = outputs_of(n, i), .w = noisy ? x->noisy[i].out_w : s->out_w,
                    .b = noisy ? x->noisy[i].out_b : s->out_b};
}

static long own_bytes_of(const network *n, int batch) {
    long most = torso_own_bytes(&n->of, batch);
    long others[3] = {torso_own_back_bytes(&n->of), dense_own_back_bytes(n->streams * n->of.units),
                      dense_own_bytes((int)features_size(&n->of))};
    for (int i = 0; i < 3; i++)
        if (others[i] > most) most = others[i];
    for (int i = 0; i < n->streams; i++) {
        linear l = linear_of(n, NULL, i);
        if (linear_own_bytes(&l) > most) most = linear_own_bytes(&l);
        if (linear_own_back_bytes(&l, batch) > most) most = linear_own_back_bytes(&l, batch);
    }
    return most;
}

// Further bytes of memory for any pass, with the present number of threads.
long pixelq_network_own(const network *n, int batch) { return team_threads * own_bytes_of(n, batch); }

// Biases with their noise, and weights of the outputs.
static void make_noisy(const network *n, const scratch *x, int i) {
    const stream *s = n->stream + i;
    int units = n->of.units, outputs = outputs_of(n, i);
    team_loop *hidden = team_share(), *last = team_share();
    if (s->noise_in)
        for (int unit; (unit = (int)team_take(hidden) * TILE) < units;) {
            __m512 mean = widen(_mm256_loadu_si256((const __m256i *)(s->b + unit)));
            __m512 sigma = widen(_mm256_loadu_si256((const __m256i *)(s->b_sigma + unit)));
            mean = _mm512_fmadd_ps(sigma, _mm512_loadu_ps(s->noise_out + unit), mean);
            _mm256_storeu_si256((__m256i *)(x->noisy[i].b + unit), narrow(mean));
        }
    if (s->out_noise_in)
        for (int o; (o = (int)team_take(last)) < outputs;) {
            for (long at = (long)o * units, k = 0; k < units; k += TILE, at += TILE) {
                __m512 noise = _mm512_mul_ps(_mm512_set1_ps(s->out_noise_out[o]), _mm512_loadu_ps(s->out_noise_in + k));
                __m512 w = _mm512_fmadd_ps(_mm512_loadu_ps(s->out_w_sigma + at), noise, _mm512_loadu_ps(s->out_w + at));
                _mm512_storeu_ps(x->noisy[i].out_w + at, w);
            }
            x->noisy[i].out_b[o] = s->out_b[o] + s->out_b_sigma[o] * s->out_noise_out[o];
        }
}

// Layer normalisation of a dense layer, and its ReLU (Ba et al. 2016, eq. 3 and 4). Replaces the sums in `hidden` by the
// ReLU's output.
static void normalise(const network *n, int batch, const scratch *x) {
    int units = n->of.units;
    team_loop *rows = team_share();
    for (long i; (i = team_take(rows)) < (long)batch * n->streams;) {
        const stream *s = n->stream + i % n->streams;
        float *hidden = x->hidden + i * units, *normal = x->normal + i * units;
        __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
        for (int u = 0; u < units; u += TILE) sum = _mm512_add_ps(sum, _mm512_loadu_ps(hidden + u));
        __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / units);
        for (int u = 0; u < units; u += TILE) {
            __m512 centred = _mm512_sub_ps(_mm512_loadu_ps(hidden + u), mean);
            squares = _mm512_fmadd_ps(centred, centred, squares);
            _mm512_storeu_ps(normal + u, centred);
        }
        x->rates[i] = 1 / sqrtf(_mm512_reduce_add_ps(squares) / units + n->epsilon);
        __m512 rate = _mm512_set1_ps(x->rates[i]);
        for (int u = 0; u < units; u += TILE) {
            __m512 number = _mm512_mul_ps(_mm512_loadu_ps(normal + u), rate);
            __m512 gain = widen(_mm256_loadu_si256((const __m256i *)(s->gain + u)));
            __m512 shift = widen(_mm256_loadu_si256((const __m256i *)(s->shift + u)));
            _mm512_storeu_ps(normal + u, number);
            _mm512_storeu_ps(hidden + u, _mm512_max_ps(_mm512_fmadd_ps(number, gain, shift), _mm512_setzero_ps()));
        }
    }
}

// The gradient behind the ReLU, for 16 units.
static inline __m512 let_back(const float *hidden, const float *dhidden) {
    __mmask16 on = _mm512_cmp_ps_mask(_mm512_loadu_ps(hidden), _mm512_setzero_ps(), _CMP_GT_OQ);
    return _mm512_maskz_loadu_ps(on, dhidden);
}

// Gradients of gains and shifts.
static void normalise_gains_back(const network *n, const network *gradients, int batch, const scratch *x) {
    int units = n->of.units, all = n->streams * units;
    team_loop *columns = team_share();
    for (int u; (u = (int)team_take(columns) * TILE) < all;) {
        __m512 gain = _mm512_setzero_ps(), shift = _mm512_setzero_ps();
        for (long i = 0, at = u; i < batch; i++, at += all) {
            __m512 slope = let_back(x->hidden + at, x->dhidden + at);
            gain = _mm512_fmadd_ps(slope, _mm512_loadu_ps(x->normal + at), gain);
            shift = _mm512_add_ps(shift, slope);
        }
        const stream *to = gradients->stream + u / units;
        _mm256_storeu_si256((__m256i *)(to->gain + u % units), narrow(gain));
        _mm256_storeu_si256((__m256i *)(to->shift + u % units), narrow(shift));
    }
}

// Turn `dhidden` into the gradient of the sums before normalisation.
static void normalise_back(const network *n, int batch, const scratch *x) {
    int units = n->of.units;
    team_loop *rows = team_share();
    for (long i; (i = team_take(rows)) < (long)batch * n->streams;) {
        const stream *s = n->stream + i % n->streams;
        const float *hidden = x->hidden + i * units, *normal = x->normal + i * units;
        float *dhidden = x->dhidden + i * units;
        __m512 sum = _mm512_setzero_ps(), along = _mm512_setzero_ps();
        for (int u = 0; u < units; u += TILE) {
            __m512 gain = widen(_mm256_loadu_si256((const __m256i *)(s->gain + u)));
            __m512 slope = _mm512_mul_ps(let_back(hidden + u, dhidden + u), gain);
            sum = _mm512_add_ps(sum, slope);
            along = _mm512_fmadd_ps(slope, _mm512_loadu_ps(normal + u), along);
            _mm512_storeu_ps(dhidden + u, slope);
        }
        __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / units);
        __m512 part = _mm512_set1_ps(_mm512_reduce_add_ps(along) / units), rate = _mm512_set1_ps(x->rates[i]);
        for (int u = 0; u < units; u += TILE) {
            __m512 slope = _mm512_sub_ps(_mm512_loadu_ps(dhidden + u), mean);
            slope = _mm512_fnmadd_ps(_mm512_loadu_ps(normal + u), part, slope);
            _mm512_storeu_ps(dhidden + u, _mm512_mul_ps(slope, rate));
        }
    }
}

// outputs [batch][actions][each] = value [batch][each] + advantage [batch][actions][each] − its mean over the actions.
static void combine(const network *n, int batch, float *const *parts, float *outputs) {
    int actions = n->of.actions, each = n->each;
    team_loop *rows = team_share();
    for (int i; (i = (int)team_take(rows)) < batch;) {
        const float *value = parts[0] + (long)i * each, *advantage = parts[1] + (long)i * actions * each;
        float *to = outputs + (long)i * actions * each, base[each];
        for (int k = 0; k < each; k++) base[k] = 0;
        for (int a = 0; a < actions; a++)
            for (int k = 0; k < each; k++) base[k] += advantage[a * each + k];
        for (int k = 0; k < each; k++) base[k] = value[k] - base[k] / actions;
        for (int a = 0; a < actions; a++)
            for (int k = 0; k < each; k++) to[a * each + k] = advantage[a * each + k] + base[k];
    }
}

// The backward pass.
static void separate(const network *n, int batch, const float *doutputs, float *const *dparts) {
    int actions = n->of.actions, each = n->each;
    team_loop *rows = team_share();
    for (int i; (i = (int)team_take(rows)) < batch;) {
        const float *from = doutputs + (long)i * actions * each;
        float *value = dparts[0] + (long)i * each, *advantage = dparts[1] + (long)i * actions * each;
        for (int k = 0; k < each; k++) value[k] = 0;
        for (int a = 0; a < actions; a++)
            for (int k = 0; k < each; k++) value[k] += from[a * each + k];
        for (int a = 0; a < actions; a++)
            for (int k = 0; k < each; k++) advantage[a * each + k] = from[a * each + k] - value[k] / actions;
    }
}

typedef struct {
    const network *n, *gradients;
    int batch, back;
    images obs;
    float *outputs;
    const float *doutputs;
    scratch x;
    char *own;
    long own_bytes;
} passing;

static void forward(const passing *p) {
    const network *n = p->n;
    const scratch *x = &p->x;
    const sizes *s = &n->of;
    char *own = p->own + team_member() * p->own_bytes;
    int depth = (int)features_size(s), units = n->streams * s->units;
    torso_pack_by_team(s, &n->torso, x->filters);
    for (int i = 0; i < n->streams; i++) make_noisy(n, x, i);
    team_wait();
    seen by = {&n->torso, x->filters, x->features, norms_of(n)};
    torso_features_by_team(s, p->batch, &p->obs, 1, &by, p->back ? &x->kept : NULL, own);
    team_wait();
    dense_pack_by_team(p->batch, depth, x->features, x->rows);
    team_wait();
    dense d = dense_of(n, x);
    dense_hidden_by_team(p->batch, depth, &d, x->rows, !x->normal, x->hidden, own);
    team_wait();
    if (x->normal) {
        normalise(n, p->batch, x);
        team_wait();
    }
    for (int i = 0; i < n->streams; i++) {
        linear l = linear_of(n, x, i);
        float *to = n->streams == 2 ? x->parts[i] : p->outputs;
        linear_by_team(&l, p->batch, x->hidden + i * s->units, units, to, own);
    }
    if (n->streams < 2) return;
    team_wait();
    combine(n, p->batch, x->parts, p->outputs);
}

static void backward(const passing *p) {
    const network *n = p->n, *g = p->gradients;
    const scratch *x = &p->x;
    const sizes *s = &n->of;
    char *own = p->own + team_member() * p->own_bytes;
    int depth = (int)features_size(s), units = n->streams * s->units;
    torso_pack_back_by_team(s, &n->torso, x->filters_back);
    dense_pack_back_by_team(p->batch, depth, x->features, x->columns);
    if (n->streams == 2) {
        separate(n, p->batch, p->doutputs, x->dparts);
        team_wait();
    }
    dense d = dense_of(n, x), dd = dense_of(g, NULL);
    for (int i = 0; i < n->streams; i++) {
        const stream *to = g->stream + i, *from = n->stream + i;
        linear l = linear_of(n, x, i), dl = linear_of(g, NULL, i);
        if (from->noise_in) {
            dd.part[i].w_sigma = to->w_sigma, dd.part[i].b_sigma = to->b_sigma;
            dd.part[i].noise_in = from->noise_in, dd.part[i].noise_out = from->noise_out;
            dl.w_sigma = to->out_w_sigma, dl.b_sigma = to->out_b_sigma;
            dl.noise_in = from->out_noise_in, dl.noise_out = from->out_noise_out;
        }
        linear_back_by_team(&l, &dl, p->batch, x->hidden + i * s->units, units, n->streams == 2 ? x->dparts[i] : p->doutputs,
                            x->dhidden + i * s->units, own);
    }
    team_wait();
    if (x->normal) {
        normalise_gains_back(n, g, p->batch, x);
        team_wait();
        normalise_back(n, p->batch, x);
        team_wait();
    }
    dense_slopes_by_team(p->batch, &dd, x->normal ? NULL : x->hidden, x->dhidden, x->slopes);
    team_wait();
    float scale = n->streams == 2 ? sqrtf(0.5f) : 1.0f;  // where the gradients of two streams meet
    dense_gradients_by_team(p->batch, depth, &d, &dd, x->columns, x->slopes, scale, x->dfeatures, own);
    team_wait();
    torso_shares_by_team(s, norms_of(n), p->batch, x->filters_back, &x->kept, x->features, x->dfeatures, x->shares, own);
    team_wait();
    torso_gradients_by_team(s, p->batch, x->shares, &g->torso, norms_of(g));
}

// Losses of distributions have denormal gradients, each of which would take a hundred times as long.
static void without_denormals(void (*work)(const passing *), const passing *of) {
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | FLUSH);
    work(of);
    _mm_setcsr(mode);
}

static void forward_by_team(void *of) { without_denormals(forward, of); }

static void backward_by_team(void *of) { without_denormals(backward, of); }

// Compute the outputs [batch][actions][each] of images, with memory for a backward pass if one follows. Returns 1 if planes
// could not be read.
long pixelq_network_forward(
    const network *n, int batch, const images *obs, int back, float *outputs, void *memory, void *own
) {
    atomic_int failed = 0;
    passing p = {.n = n, .batch = batch, .back = back, .obs = *obs, .outputs = outputs, .own = own,
                 .own_bytes = own_bytes_of(n, batch)};
    p.obs.failed = &failed;
    lay_out(n, batch, back, memory, &p.x);
    team_run(team_threads, forward_by_team, &p);
    return atomic_load(&failed);
}

// Compute the gradients of all weights from the outputs' gradient and the forward pass's memory.
long pixelq_network_backward(
    const network *n, const network *gradients, int batch, const float *doutputs, void *memory, void *own
) {
    passing p = {.n = n, .gradients = gradients, .batch = batch, .back = 1, .doutputs = doutputs, .own = own,
                 .own_bytes = own_bytes_of(n, batch)};
    lay_out(n, batch, 1, memory, &p.x);
    team_run(team_threads, backward_by_team, &p);
    return 0;
}
