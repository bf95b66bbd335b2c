// Linear output layer in float32, forward and backward. It multiplies a few rows at once and keeps sums in registers.

#include "layers.h"

enum {
#ifdef WITH_AVX2
    ROWS = 6,
    VECTORS = 1,  // of 16 columns
#else
    ROWS = 8,
    VECTORS = 2,
#endif
    COLUMNS = VECTORS * TILE,
    CHUNK = 64,  // rows of a batch in one turn
};

// sums [rows][COLUMNS] = start + A [rows][depth] · B [depth][COLUMNS]; `a_row` and `a_step` are A's strides.
static inline __attribute__((always_inline)) void multiply_few(
    int rows, int depth, const float *a, long a_row, long a_step, const float *b, const __m512 *start, __m512 sums[][VECTORS]
) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++) sums[r][v] = start[v];
    for (int k = 0; k < depth; k++, a += a_step, b += COLUMNS) {
        __m512 right[VECTORS];
        for (int v = 0; v < VECTORS; v++) right[v] = _mm512_loadu_ps(b + v * TILE);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            __m512 left = _mm512_set1_ps(a[r * a_row]);
            for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_fmadd_ps(left, right[v], sums[r][v]);
        }
    }
}

// C = start + A · B for all rows of A and the first `columns` columns of B.
static void multiply_floats(
    int rows, int depth, int columns, const float *a, long a_row, long a_step, const float *b, const __m512 *start, float *c,
    long c_row
) {
    __m512 sums[ROWS][VECTORS];
    for (int row = 0; row < rows;) {
        int count = rows - row < ROWS ? 1 : ROWS;
        if (count == ROWS) multiply_few(ROWS, depth, a + row * a_row, a_row, a_step, b, start, sums);
        else multiply_few(1, depth, a + row * a_row, a_row, a_step, b, start, sums);
        for (int end = row + count, r = 0; row < end; row++, r++)
            for (int v = 0; v < VECTORS; v++) {
                int left = columns - v * TILE;
                if (left <= 0) break;
                _mm512_mask_storeu_ps(c + row * c_row + v * TILE, left >= TILE ? 0xffff : (1 << left) - 1, sums[r][v]);
            }
    }
}

long linear_own_bytes(const linear *l) { return lines((long)l->units * COLUMNS * sizeof(float)); }

long linear_own_back_bytes(const linear *l, int batch) { return lines(((long)l->outputs + batch) * COLUMNS * sizeof(float)); }

// Outputs [batch][outputs].
void linear_by_team(const linear *l, int batch, const float *hidden, long row, float *outputs, void *own) {
    float *turned = own;
    int chunks = (batch + CHUNK - 1) / CHUNK, tiles = (l->outputs + COLUMNS - 1) / COLUMNS;
    team_loop *loop = team_share();
    for (int turn; (turn = (int)team_take(loop)) < chunks * tiles;) {
        int first = turn / chunks * COLUMNS, from = turn % chunks * CHUNK, rows = batch - from < CHUNK ? batch - from : CHUNK;
        __m512 bias[VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            int at = first + v * TILE, left = l->outputs - at;
            __mmask16 lanes = left >= TILE ? 0xffff : left > 0 ? (1 << left) - 1 : 0;
            bias[v] = _mm512_maskz_loadu_ps(lanes, l->b + at);
            for (int unit = 0; unit < l->units; unit += TILE) {
                __m512i r[16];
                for (int i = 0; i < 16; i++)
                    r[i] = i < left ? _mm512_loadu_si512(l->w + (at + i) * (long)l->units + unit) : _mm512_setzero_si512();
                transpose(r);
                for (int i = 0; i < 16; i++) _mm512_storeu_si512(turned + (unit + i) * (long)COLUMNS + v * TILE, r[i]);
            }
        }
        multiply_floats(rows, l->units, l->outputs - first, hidden + from * row, row, 1, turned, bias,
                        outputs + from * (long)l->outputs + first, l->outputs);
    }
}

// Copy COLUMNS numbers of each row, without gaps.
static void gather(int rows, const float *from, long row, float *to) {
    for (int r = 0; r < rows; r++, from += row, to += COLUMNS)
        for (int v = 0; v < COLUMNS; v += TILE) _mm512_storeu_ps(to + v, _mm512_loadu_ps(from + v));
}

// Backward: from doutputs [batch][outputs] to dhidden (same layout as hidden) and the weights' gradients.
void linear_back_by_team(
    const linear *l, const linear *gradients, int batch, const float *hidden, long row, const float *doutputs,
    float *dhidden, void *own
) {
    float *of_w = own, *of_hidden = of_w + (long)l->outputs * COLUMNS;
    const __m512 nothing[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    team_loop *columns = team_share(), *once = team_share();
    for (int unit; (unit = (int)team_take(columns) * COLUMNS) < l->units;) {
        gather(l->outputs, l->w + unit, l->units, of_w);
        gather(batch, hidden + unit, row, of_hidden);
        float *dw = gradients->w + unit;
        multiply_floats(batch, l->outputs, COLUMNS, doutputs, l->outputs, 1, of_w, nothing, dhidden + unit, row);
        multiply_floats(l->outputs, batch, COLUMNS, doutputs, 1, l->outputs, of_hidden, nothing, dw, l->units);
        if (!gradients->w_sigma) continue;
        for (int o = 0; o < l->outputs; o++)
            for (int v = 0; v < COLUMNS; v += TILE) {
                __m512 noise = _mm512_mul_ps(_mm512_set1_ps(gradients->noise_out[o]),
                                             _mm512_loadu_ps(gradients->noise_in + unit + v));
                long at = (long)o * l->units + v;
                _mm512_storeu_ps(gradients->w_sigma + unit + at, _mm512_mul_ps(noise, _mm512_loadu_ps(dw + at)));
            }
    }
    if (team_take(once)) return;
    memset(gradients->b, 0, l->outputs * sizeof(float));
    for (int i = 0; i < batch; i++)
        for (int o = 0; o < l->outputs; o++) gradients->b[o] += doutputs[i * (long)l->outputs + o];
    if (gradients->b_sigma)
        for (int o = 0; o < l->outputs; o++) gradients->b_sigma[o] = gradients->b[o] * gradients->noise_out[o];
}
