// Tile products with AMX.
//
// Source: Intel Architecture Instruction Set Extensions Programming Reference, chapter 3, "Intel AMX instruction set".

#pragma once

#include <sys/syscall.h>
#include <unistd.h>

// The accumulators are in the processor.
typedef struct {
    char nothing;
} accumulators;

// Ask the system for the use of tiles. Returns 0 if it grants them.
static inline int ask_for_tiles(void) {
    enum { REQUEST = 0x1023, TILE_DATA = 18 };
    return (int)syscall(SYS_arch_prctl, REQUEST, TILE_DATA);
}

static inline void begin_tiles(accumulators *acc) {
    (void)acc;
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int tile = 0; tile < 8; tile++) config.row_bytes[tile] = 64, config.rows[tile] = TILE;
    ORDER();
    _tile_loadconfig(&config);
}

static inline void end_tiles(accumulators *acc) {
    (void)acc;
    _tile_release();
}

static inline void zero_tiles(accumulators *acc) {
    (void)acc;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

// C[i][j] += Σ A[i] B[j] over `steps` steps in depth, for i < many_a, j < many_b.
static inline __attribute__((always_inline)) void multiply(
    accumulators *acc, const char *a0, const char *a1, long a_row, long a_step,
    const char *b0, const char *b1, long b_step, int steps, int many_a, int many_b
) {
    (void)acc;
    for (int step = 0; step < steps; step++) {
        _tile_loadd(4, a0 + step * a_step, a_row);
        _tile_loadd(6, b0 + step * b_step, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (many_b > 1) {
            _tile_loadd(7, b1 + step * b_step, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (many_a > 1) {
            _tile_loadd(5, a1 + step * a_step, a_row);
            _tile_dpbf16ps(2, 5, 6);
            if (many_b > 1) _tile_dpbf16ps(3, 5, 7);
        }
    }
}

#define multiply_ready multiply  // numbers are bfloat16 in any case

// Load or store C[i][j] for i < many_a and both j; rows lie `row` bytes apart.
static inline __attribute__((always_inline)) void load_tiles(
    accumulators *acc, const float *c00, const float *c01, const float *c10, const float *c11, long row, int many_a
) {
    (void)acc;
    _tile_loadd(0, c00, row);
    _tile_loadd(1, c01, row);
    if (many_a < 2) return;
    _tile_loadd(2, c10, row);
    _tile_loadd(3, c11, row);
}

static inline __attribute__((always_inline)) void store_tiles(
    const accumulators *acc, float *c00, float *c01, float *c10, float *c11, long row, int many_a
) {
    (void)acc;
    _tile_stored(0, c00, row);
    _tile_stored(1, c01, row);
    if (many_a < 2) return;
    _tile_stored(2, c10, row);
    _tile_stored(3, c11, row);
}
