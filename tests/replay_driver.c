// Calls the kernels of the replay memory with numbers made by a rule, and prints what they answer: for processors that
// only an emulator plays.

#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    long rows, games;
    const uint8_t *actions;
    const float *rewards;
    const uint8_t *terminated, *truncated, *ignored, *ages;
} ring;

long pixelq_tree_set(double *nodes, int levels, int count, const int64_t *leaves, const double *values);
long pixelq_tree_find(const double *nodes, int levels, int count, const double *targets, int64_t *leaves);
long pixelq_transitions(
    const ring *r, int n_step, double gamma, int count, const int64_t *rows, const int64_t *games,
    int64_t *actions, float *returns, float *discounts, int64_t *slots
);

enum { LEVELS = 6, LEAVES = 1 << LEVELS, COUNT = 12, ROWS = 40, GAMES = 3, CELLS = ROWS * GAMES };

static uint64_t state = 1;

static uint64_t chance(uint64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
}

int main(void) {
    static double nodes[2 * LEAVES], values[LEAVES], targets[COUNT];
    static int64_t leaves[LEAVES], found[COUNT];
    for (int i = 0; i < LEAVES; i++) leaves[i] = i, values[i] = (double)chance(1000) / 7;
    pixelq_tree_set(nodes, LEVELS, LEAVES, leaves, values);
    for (int i = 0; i < COUNT; i++) targets[i] = nodes[1] * (i + 0.5) / COUNT;
    pixelq_tree_find(nodes, LEVELS, COUNT, targets, found);
    printf("%.17g:", nodes[1]);
    for (int i = 0; i < COUNT; i++) printf(" %d", (int)found[i]);

    static uint8_t actions[CELLS], terminated[CELLS], truncated[CELLS], ignored[CELLS], ages[CELLS];
    static float rewards[CELLS], returns[COUNT], discounts[COUNT];
    static int64_t rows[COUNT], games[COUNT], taken[COUNT], slots[2 * COUNT * 4];
    for (int i = 0; i < CELLS; i++) {
        actions[i] = chance(4), rewards[i] = (float)chance(100) / 9, ages[i] = chance(6);
        terminated[i] = !chance(7), truncated[i] = !chance(9), ignored[i] = !chance(11);
    }
    ring r = {ROWS, GAMES, actions, rewards, terminated, truncated, ignored, ages};
    for (int i = 0; i < COUNT; i++) rows[i] = chance(ROWS), games[i] = chance(GAMES);
    pixelq_transitions(&r, 3, 0.99, COUNT, rows, games, taken, returns, discounts, slots);
    printf("\n");
    for (int i = 0; i < COUNT; i++) printf("%d %.9g %.9g; ", (int)taken[i], returns[i], discounts[i]);
    long sum = 0;
    for (int i = 0; i < 2 * COUNT * 4; i++) sum = sum * 31 % 1000003 + slots[i];
    printf("\n%ld\n", sum);
    return 0;
}
