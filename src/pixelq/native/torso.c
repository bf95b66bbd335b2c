// Three convolutions with a ReLU after each, forward.

#include "torso.h"

// Convert an image's pixels from [4][84][84] bytes to [21][21] of [4][4][4] bfloat16, less the background. Differences of
// bytes need no rounding.
static void weave_planes(const uint8_t *planes, const float *background, bf16 *woven) {
    __m512 dark = _mm512_set1_ps(background ? *background : 0.0f);
    for (int y = 0; y < SIDE; y++)
        for (int part = 0; part < 6; part++) {
            int x = part < 5 ? part * 16 : SIDE - 16;
            __m512i p[4];
            for (int i = 0; i < 4; i++) {
                __m128i bytes = _mm_loadu_si128((const __m128i *)(planes + (i * SIDE + y) * SIDE + x));
                p[i] = _mm512_castps_si512(_mm512_sub_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)), dark));
            }
            __m512i low = _mm512_or_si512(_mm512_srli_epi32(p[0], 16), p[1]);
            __m512i high = _mm512_or_si512(_mm512_srli_epi32(p[2], 16), p[3]);
            __m512i left, right;
            interleave_words(low, high, &left, &right);
            bf16 *to = woven + (y / 4 * IN1 + x / 4) * 64L + y % 4 * 16;
            _mm256_storeu_si256((__m256i *)to, _mm512_castsi512_si256(left));
            _mm256_storeu_si256((__m256i *)(to + 64), _mm512_extracti64x4_epi64(left, 1));
            _mm256_storeu_si256((__m256i *)(to + 128), _mm512_castsi512_si256(right));
            _mm256_storeu_si256((__m256i *)(to + 192), _mm512_extracti64x4_epi64(right, 1));
        }
}

// The last layer's output [7][7][filters] as features [filters][7][7].
static void flatten(int filters, const bf16 *output, bf16 *features) {
    for (int filter = 0; filter < filters; filter += DEPTH)
        for (int part = 0; part < 4; part++) {
            __m512i r[16];
            for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(output + (STARTS[part] + i) * (long)filters + filter);
            transpose(r);
            for (int i = 0; i < 16; i++) {  // a word holds two filters
                bf16 *to = features + (filter + 2L * i) * SPOTS + STARTS[part];
                _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(r[i]));
                _mm256_storeu_si256((__m256i *)(to + SPOTS), _mm512_cvtepi32_epi16(_mm512_srli_epi32(r[i], 16)));
            }
        }
}

// Places of the three outputs; the first output is folded for the second layer.
typedef struct {
    int32_t of1[IN1 * OUT1], of2[IN2 * OUT2], of3[IN3 * OUT3];
} places;

static void places_forward(const sizes *s, places *p) {
    find_places(OUT1, IN1, 2, 4L * IN2 * s->f1, 4L * s->f1, 2L * s->f1, s->f1, p->of1);
    find_places(OUT2, IN2, 1, (long)IN3 * s->f2, s->f2, 0, 0, p->of2);
    find_places(OUT3, IN3, 1, (long)OUT3 * s->f3, s->f3, 0, 0, p->of3);
}

static long packed_bytes(const sizes *s) {
    torso t = torso_of(s);
    return lines(packed_words(t.n1 + t.n2 + t.n3) * sizeof(uint32_t));
}

long torso_packed_bytes(const sizes *s) { return packed_bytes(s) + lines(sizeof(places)); }

// The tiles of packed filters.
static places *places_behind(const sizes *s, const uint32_t *packed) { return (places *)((char *)packed + packed_bytes(s)); }

// Images in one turn: fewer for a small batch, so that more threads have work.
static int block_of(int batch) { return batch >= 16 ? BLOCK / 2 : 2; }

static long floats_bytes(const sizes *s) {
    torso t = torso_of(s);
    convolution all[3] = {t.c1, t.c2, t.c3};
    return most_floats_bytes(all, 3);
}

long torso_own_bytes(const sizes *s, int batch) {
    int block = block_of(batch);
    long outputs = lines(block * (first_size(s) + features_size(s)) * sizeof(bf16));
    return activations_bytes(s, block) + outputs + floats_bytes(s) + PIXELS;
}

void torso_pack_by_team(const sizes *s, const weights *w, uint32_t *packed) {
    torso t = torso_of(s);
    pack_filters(&t.c1, w->w1, packed);
    pack_filters(&t.c2, w->w2, packed + packed_words(t.n1));
    pack_filters(&t.c3, w->w3, packed + packed_words(t.n1 + t.n2));
    team_loop *once = team_share();
    if (team_take(once) == 0) places_forward(s, places_behind(s, packed));
}

// The convolutions of one or two networks on woven images, with a ReLU after each, optionally normalised before it. The first
// convolution runs for both networks at once: an image's tiles are loaded once. `other` is room for its output for the second
// network. Two networks have no norms.
static void features_of(
    const sizes *s, int images, const activations *at, int networks, const seen *by, int first, bf16 *other, bf16 *a3,
    float *floats
) {
    torso t = torso_of(s);
    const places *p = places_behind(s, by->packed);
    int tiles1 = s->f1 / TILE;
    filters16 filters[2 * tiles1 + (s->f2 + s->f3) / TILE], *f2 = filters + 2 * tiles1, *f3 = f2 + s->f2 / TILE;
    bf16 *a1[2] = {at->a1, other};
    const norms *n1 = by->norms;
    const before_norms *before = &at->before;
    bf16 *z[3] = {before->sums[0], before->sums[1], before->sums[2]};  // what is normalised, in its place if it isn't kept
    if (!z[0]) z[0] = at->a1, z[1] = at->a2, z[2] = a3;
    for (int n = 0; n < networks; n++)
        all_filters(&t.c1, by[n].packed, n1 ? z[0] : a1[n], by[n].w->b1, NULL, filters + n * tiles1);
    convolve_forward(&t.c1, images, at->woven, networks * tiles1, filters, p->of1, 1.0f / 255.0f, !n1, floats);
    if (n1) norm_forward(s, n1, 0, images, z[0], before->statistics[0], at->a1);
    for (int n = 0; n < networks; n++) {
        const uint32_t *p2 = by[n].packed + packed_words(t.n1), *p3 = p2 + packed_words(t.n2);
        bf16 *features = by[n].features + first * features_size(s);
        all_filters(&t.c2, p2, z[1], by[n].w->b2, NULL, f2);
        all_filters(&t.c3, p3, z[2], by[n].w->b3, NULL, f3);
        convolve_forward(&t.c2, images, a1[n], s->f2 / TILE, f2, p->of2, 1.0f, !n1, floats);
        if (n1) norm_forward(s, n1, 1, images, z[1], before->statistics[1], at->a2);
        convolve_forward(&t.c3, images, at->a2, s->f3 / TILE, f3, p->of3, 1.0f, !n1, floats);
        if (n1) norm_forward(s, n1, 2, images, z[2], before->statistics[2], a3);
        for (int i = 0; i < images; i++) flatten(s->f3, a3 + i * features_size(s), features + i * features_size(s));
    }
}

// An image's planes [4][84][84]; if they must be read, in `room`, which stays in the L1 cache.
static const uint8_t *planes_of(const images *from, long image, uint8_t *room) {
    if (from->others && image >= from->first_other) return from->others + (image - from->first_other) * PIXELS;
    if (from->bytes) return from->bytes + image * PIXELS;
    for (int plane = 0; plane < 4; plane++)
        if (!from->read(from->store, from->slots[4 * image + plane], (char *)room + plane * SIDE * SIDE))
            atomic_store(from->failed, 1);
    return room;
}

// The features of images for each network; with `kept` the intermediate results are kept.
void torso_features_by_team(
    const sizes *s, int batch, const images *obs, int networks, const seen *by, const activations *kept, void *own
) {
    int block = block_of(batch);
    bf16 *other = (bf16 *)((char *)own + activations_bytes(s, block)), *a3 = other + block * first_size(s);
    uint8_t *room = (uint8_t *)own + torso_own_bytes(s, batch) - PIXELS;
    float *floats = (float *)(room - floats_bytes(s));
    team_loop *blocks = team_share();
    for (int first; (first = (int)team_take(blocks) * block) < batch;) {
        int count = batch - first < block ? batch - first : block;
        activations at = kept ? activations_from(s, kept, first) : activations_in(s, block, own);
        for (int i = 0; i < count; i++)
            weave_planes(planes_of(obs, first + i, room), obs->background, at.woven + (long)i * PIXELS);
        ORDER();
        features_of(s, count, &at, networks, by, first, other, a3, floats);
    }
}

typedef struct {
    sizes s;
    weights w;
    int batch;
    images obs;
    const activations *kept;  // for the backward pass, or NULL
    bf16 *features;
    uint32_t *packed;
    char *own;
    long own_bytes;
} forward;

static void forward_by_team(void *of) {
    const forward *f = of;
    char *own = f->own + team_member() * f->own_bytes;
    torso_pack_by_team(&f->s, &f->w, f->packed);
    team_wait();
    seen by = {&f->w, f->packed, f->features, NULL};
    torso_features_by_team(&f->s, f->batch, &f->obs, 1, &by, f->kept, own);
}

// Three convolutions of obs [batch][4][84][84] less the background, with a ReLU after each. `woven`, `a1` and `a2` are kept for
// the backward pass, or NULL.
long pixelq_torso_forward(
    int batch, int f1, int f2, int f3, const uint8_t *obs, const float *background, bf16 *w1, bf16 *b1, bf16 *w2, bf16 *b2,
    bf16 *w3, bf16 *b3, bf16 *woven, bf16 *a1, bf16 *a2, bf16 *features
) {
    activations kept = {.woven = woven, .a1 = a1, .a2 = a2};
    forward f = {.s = {f1, f2, f3, 0, 0}, .w = {w1, b1, w2, b2, w3, b3}, .batch = batch,
                 .obs = {.bytes = obs, .background = background}, .kept = woven ? &kept : NULL, .features = features};
    f.own_bytes = torso_own_bytes(&f.s, batch);
    char *scratch = aligned_alloc(64, torso_packed_bytes(&f.s) + team_threads * f.own_bytes);
    if (!scratch) return 1;
    f.packed = (uint32_t *)scratch, f.own = scratch + torso_packed_bytes(&f.s);
    team_run(team_threads, forward_by_team, &f);
    free(scratch);
    return 0;
}
