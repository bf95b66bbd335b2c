// Three convolutions with a ReLU after each: their shapes.
//
// Arrays are dense, channels last, with shapes as in the comments. The pixels of a filter's step are folded into one pixel
// with as many times the channels, so that every convolution has stride 1. Then a filter's inputs from one row are
// contiguous, and the inputs at the next pixel begin one pixel later. So a convolution is a matrix product without copies:
// its sums are over numbers that lie one after the other. An output [out][out] has its places at y · (width of the input) + x.

#pragma once

#include "convolution.h"

enum {
    BLOCK = 8,  // images in one turn, so that they stay in a core's cache
    IN1 = SIDE / 4,
    IN2 = OUT1 / 2,
    IN3 = OUT2,
};

// The three convolutions, and their numbers of weights.
typedef struct {
    convolution c1, c2, c3;
    long n1, n2, n3;
} torso;

static convolution layer(int in_w, int channels, int kernel, int fold, int out, int filters) {
    return (convolution){in_w, channels, kernel, fold, filters, (out - 1) * in_w + out, (long)in_w * in_w * channels,
                         (long)out * out * filters};
}

static torso torso_of(const sizes *s) {
    return (torso){layer(IN1, 64, 2, 4, OUT1, s->f1), layer(IN2, 4 * s->f1, 2, 2, OUT2, s->f2),
                   layer(IN3, s->f2, 3, 1, OUT3, s->f3), 256L * s->f1, 16L * s->f1 * s->f2, 9L * s->f2 * s->f3};
}

static const int STARTS[4] = {0, 16, 32, SPOTS - 16};  // starts of groups of 16 spots that cover all spots

static long most_floats_bytes(const convolution *c, int count) {
    long most = 0;
    for (int i = 0; i < count; i++)
        if (image_floats(c + i) > most) most = image_floats(c + i);
    return lines(most * sizeof(float));
}
