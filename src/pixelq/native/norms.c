// Layer normalisation of what convolutions give (Ba et al. 2016, eq. 3 and 4), and its ReLU: of each pixel over its channels,
// or of all of a layer.

#include "layers.h"

#include <math.h>

static const int SIDES[3] = {OUT1, OUT2, OUT3}, FRAMES[3] = {SIDE / 4, OUT1 / 2, OUT2};

// What a convolution gives, [side][side][channels]; folded, as the next one wants it, it is [side/2][side/2][2][2][channels].
// Its gradient lies in a frame, [frame][frame][channels].
typedef struct {
    int side, frame, folded, channels;
} planes;

static planes planes_of(const sizes *s, int layer) {
    const int filters[3] = {s->f1, s->f2, s->f3};
    return (planes){SIDES[layer], FRAMES[layer], layer == 0, filters[layer]};
}

static long pixels_of(const planes *p) { return (long)p->side * p->side; }

// Where a pixel lies, in pixels.
static inline long place_of(const planes *p, int y, int x) {
    int fold = p->folded;
    long block = (long)(y >> fold) * (p->side >> fold) + (x >> fold);
    return fold ? 4 * block + 2 * (y & 1) + (x & 1) : block;
}

long norm_numbers(const sizes *s, const norms *n, int layer) {
    planes p = planes_of(s, layer);
    return n->whole ? pixels_of(&p) * p.channels : p.channels;
}

long before_norms_bytes(const sizes *s, int images) {
    long bytes = 0;
    for (int layer = 0; layer < 3; layer++) {
        planes p = planes_of(s, layer);
        bytes += lines(images * pixels_of(&p) * p.channels * sizeof(bf16)) + lines(images * pixels_of(&p) * 2 * sizeof(float));
    }
    return bytes;
}

before_norms before_norms_in(const sizes *s, int images, void *memory) {
    before_norms b;
    char *at = memory;
    for (int layer = 0; layer < 3; layer++) {
        planes p = planes_of(s, layer);
        b.sums[layer] = (bf16 *)at, at += lines(images * pixels_of(&p) * p.channels * sizeof(bf16));
        b.statistics[layer] = (float *)at, at += lines(images * pixels_of(&p) * 2 * sizeof(float));
    }
    return b;
}

before_norms before_norms_from(const sizes *s, const before_norms *all, int image) {
    before_norms b = {{0}, {0}};
    for (int layer = 0; layer < 3 && all->sums[layer]; layer++) {
        planes p = planes_of(s, layer);
        b.sums[layer] = all->sums[layer] + image * pixels_of(&p) * p.channels;
        b.statistics[layer] = all->statistics[layer] + image * pixels_of(&p) * 2;
    }
    return b;
}

static inline __m512 numbers_at(const bf16 *from) { return widen(_mm256_loadu_si256((const __m256i *)from)); }

// Mean and 1 / deviation.
static inline void describe(const bf16 *sums, long count, float epsilon, float *to) {
    __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (long at = 0; at < count; at += TILE) sum = _mm512_add_ps(sum, numbers_at(sums + at));
    to[0] = _mm512_reduce_add_ps(sum) / count;
    for (long at = 0; at < count; at += TILE) {
        __m512 centred = _mm512_sub_ps(numbers_at(sums + at), _mm512_set1_ps(to[0]));
        squares = _mm512_fmadd_ps(centred, centred, squares);
    }
    to[1] = 1 / sqrtf(_mm512_reduce_add_ps(squares) / count + epsilon);
}

// What the ReLU lets through of a pixel.
static inline void let_through(
    int channels, const bf16 *sums, const float *statistics, const bf16 *gain, const bf16 *shift, bf16 *out
) {
    __m512 mean = _mm512_set1_ps(statistics[0]), rate = _mm512_set1_ps(statistics[1]);
    for (int c = 0; c < channels; c += TILE) {
        __m512 normal = _mm512_mul_ps(_mm512_sub_ps(numbers_at(sums + c), mean), rate);
        __m512 number = _mm512_fmadd_ps(normal, numbers_at(gain + c), numbers_at(shift + c));
        _mm256_storeu_si256((__m256i *)(out + c), narrow(_mm512_max_ps(number, _mm512_setzero_ps())));
    }
}

void norm_forward(
    const sizes *s, const norms *n, int layer, int images, const bf16 *sums, float *statistics, bf16 *out
) {
    planes p = planes_of(s, layer);
    long pixels = pixels_of(&p), size = pixels * p.channels;
    float own[2];
    for (long image = 0; image < images; image++, sums += size, out += size) {
        float *known = statistics ? statistics + image * pixels * 2 : own;
        if (n->whole) describe(sums, size, n->epsilon, known);
        for (int y = 0; y < p.side; y++)
            for (int x = 0; x < p.side; x++) {
                long place = place_of(&p, y, x), at = place * p.channels;
                float *of = n->whole || !statistics ? known : known + place * 2;
                if (!n->whole) describe(sums + at, p.channels, n->epsilon, of);
                long weight = n->whole ? ((long)y * p.side + x) * p.channels : 0;
                let_through(p.channels, sums + at, of, n->gain[layer] + weight, n->shift[layer] + weight, out + at);
            }
    }
}

// Sums over what was normalised together: of gradients, and of their products with the normal numbers.
typedef struct {
    __m512 slopes, along;
} totals;

// Adds a pixel's; adds to the gradients of its gains and shifts, too.
static inline void add_pixel(
    int channels, const bf16 *sums, const float *statistics, const bf16 *gain, const bf16 *slopes, float *dgain, float *dshift,
    totals *to
) {
    __m512 mean = _mm512_set1_ps(statistics[0]), rate = _mm512_set1_ps(statistics[1]);
    for (int c = 0; c < channels; c += TILE) {
        __m512 slope = numbers_at(slopes + c), normal = _mm512_mul_ps(_mm512_sub_ps(numbers_at(sums + c), mean), rate);
        _mm512_storeu_ps(dgain + c, _mm512_fmadd_ps(slope, normal, _mm512_loadu_ps(dgain + c)));
        _mm512_storeu_ps(dshift + c, _mm512_add_ps(slope, _mm512_loadu_ps(dshift + c)));
        slope = _mm512_mul_ps(slope, numbers_at(gain + c));
        to->slopes = _mm512_add_ps(to->slopes, slope);
        to->along = _mm512_fmadd_ps(slope, normal, to->along);
    }
}

// A pixel's gradients become those of its sums, by the means of both totals.
static inline void lead_back(
    int channels, const bf16 *sums, const float *statistics, const bf16 *gain, float slopes_mean, float along_mean, bf16 *slopes
) {
    __m512 mean = _mm512_set1_ps(statistics[0]), rate = _mm512_set1_ps(statistics[1]);
    __m512 less = _mm512_set1_ps(slopes_mean), part = _mm512_set1_ps(along_mean);
    for (int c = 0; c < channels; c += TILE) {
        __m512 normal = _mm512_mul_ps(_mm512_sub_ps(numbers_at(sums + c), mean), rate);
        __m512 slope = _mm512_sub_ps(_mm512_mul_ps(numbers_at(slopes + c), numbers_at(gain + c)), less);
        slope = _mm512_mul_ps(_mm512_fnmadd_ps(normal, part, slope), rate);
        _mm256_storeu_si256((__m256i *)(slopes + c), narrow(slope));
    }
}

void norm_back(
    const sizes *s, const norms *n, int layer, int images, const bf16 *sums, const float *statistics, bf16 *slopes,
    float *dgain, float *dshift, int add
) {
    planes p = planes_of(s, layer);
    const bf16 *gain = n->gain[layer];
    long pixels = pixels_of(&p), numbers = norm_numbers(s, n, layer), count = n->whole ? pixels * p.channels : p.channels;
    if (!add) memset(dgain, 0, numbers * sizeof(float)), memset(dshift, 0, numbers * sizeof(float));
    for (int image = 0; image < images; image++, sums += pixels * p.channels, statistics += pixels * 2) {
        bf16 *frame = slopes + (long)image * p.frame * p.frame * p.channels;
        totals t = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (int turn = 0; turn <= n->whole; turn++)  // all of a layer needs the sums of all its pixels first
            for (int y = 0; y < p.side; y++)
                for (int x = 0; x < p.side; x++) {
                    long place = place_of(&p, y, x), weight = n->whole ? ((long)y * p.side + x) * p.channels : 0;
                    const bf16 *from = sums + place * p.channels;
                    const float *of = statistics + (n->whole ? 0 : place * 2);
                    bf16 *to = frame + ((long)y * p.frame + x) * p.channels;
                    if (turn == 0) add_pixel(p.channels, from, of, gain + weight, to, dgain + weight, dshift + weight, &t);
                    if (turn < n->whole) continue;
                    float less = _mm512_reduce_add_ps(t.slopes) / count, part = _mm512_reduce_add_ps(t.along) / count;
                    lead_back(p.channels, from, of, gain + weight, less, part, to);
                    if (!n->whole) t = (totals){_mm512_setzero_ps(), _mm512_setzero_ps()};
                }
    }
}
