// Sampling from a replay buffer: the work for each transition.

#include "team.h"

#include <stdint.h>
#include <string.h>

// LZ4_decompress_safe_usingDict of liblz4.
typedef int decompressor(const char *from, char *to, int size, int capacity, const char *dictionary, int dictionary_size);

// Compressed planes by slot, in segments of `slots` planes.
typedef struct {
    const uint32_t *starts;                           // offset of each slot's block in its segment's arena
    const uint16_t *sizes;
    const char *const *arenas, *const *dictionaries;  // one a segment; NULL: none
    long slots;                                       // in a segment
    long open_from, open_to;                          // slots of the segment being written; it replaces an old one
    const char *open_arena, *open_dictionary;
    int bytes;                                        // in a plane, and in a dictionary
    decompressor *decompress;
} blocks;

typedef struct {
    const blocks *from;
    int count;
    const int64_t *slots;
    char *to;
    atomic_int failed;
} planes;

enum { TOGETHER = 8 };  // planes that a thread takes at once

// Write a slot's plane to `to`; zeros for a slot below 0. Returns 0 if the block is damaged or was never written.
int pixelq_read_plane(const void *from, int64_t slot, char *to) {
    const blocks *b = from;
    if (slot < 0) {
        memset(to, 0, b->bytes);
        return 1;
    }
    int is_open = slot >= b->open_from && slot < b->open_to;
    const char *arena = is_open ? b->open_arena : b->arenas[slot / b->slots];
    const char *dictionary = is_open ? b->open_dictionary : b->dictionaries[slot / b->slots];
    return arena
        && b->decompress(arena + b->starts[slot], to, b->sizes[slot], b->bytes, dictionary, b->bytes) == b->bytes;
}

static void planes_by_team(void *of) {
    planes *p = of;
    team_loop *loop = team_share();
    for (long first; (first = team_take(loop) * TOGETHER) < p->count;)
        for (long i = first; i < first + TOGETHER && i < p->count; i++)
            if (!pixelq_read_plane(p->from, p->slots[i], p->to + i * p->from->bytes)) atomic_store(&p->failed, 1);
}

// Write the slots' planes to `to`, one after the other. Returns 1 if one could not be read.
long pixelq_read_planes(const blocks *from, int count, const int64_t *slots, char *to) {
    planes p = {from, count, slots, to, 0};
    team_run(team_threads / 2, planes_by_team, &p);  // games use the others
    return atomic_load(&p.failed);
}

// One row a time step with all games' data; new rows overwrite the oldest.
typedef struct {
    long rows, games;
    const uint8_t *actions;
    const float *rewards;
    const uint8_t *terminated, *truncated, *ignored;
    const uint8_t *ages;  // steps since the game began
} ring;

static long at(const ring *r, int64_t row, int64_t game) { return (row + r->rows) % r->rows * r->games + game; }

enum { STACK = 4 };

// The slots of the observation at a row, oldest plane first; -1 before the game began.
static void stack_of(const ring *r, int64_t row, int64_t game, int64_t *slots) {
    int age = r->ages[at(r, row, game)];
    for (int back = STACK - 1; back >= 0; back--) *slots++ = back > age ? -1 : at(r, row - back, game);
}

// n-step transitions that begin at the given rows and games. `slots` [2][count][4]: planes of the first observations, then
// of the last ones.
long pixelq_transitions(
    const ring *r, int n_step, double gamma, int count, const int64_t *rows, const int64_t *games,
    int64_t *actions, float *returns, float *discounts, int64_t *slots
) {
    for (int i = 0; i < count; i++) {
        double sum = 0, discount = 1;
        int64_t row = rows[i], game = games[i], end = row;
        for (int step = 0; step < n_step; step++) {
            long now = at(r, row + step, game);
            if (r->ignored[now]) break;  // the game was cut off and the row before has no flag
            sum += discount * r->rewards[now];
            discount = r->terminated[now] ? 0 : discount * gamma;
            end++;
            if (r->terminated[now] || r->truncated[now]) break;
        }
        actions[i] = r->actions[at(r, row, game)];
        returns[i] = sum, discounts[i] = discount;
        stack_of(r, row, game, slots + i * STACK);
        stack_of(r, end, game, slots + (count + i) * STACK);
    }
    return 0;
}

// Set leaves of a sum tree, and every node above them to the sum of its children. The tree is complete and binary with
// `levels` levels below the root. The root is node 1; the children of n are 2n and 2n + 1.
long pixelq_tree_set(double *nodes, int levels, int count, const int64_t *leaves, const double *values) {
    for (int i = 0; i < count; i++) nodes[leaves[i] + (1L << levels)] = values[i];
    for (int i = 0; i < count; i++)
        for (int64_t node = (leaves[i] + (1L << levels)) >> 1; node; node >>= 1)
            nodes[node] = nodes[2 * node] + nodes[2 * node + 1];
    return 0;
}

// The leaves where the running sums reach the targets.
long pixelq_tree_find(const double *nodes, int levels, int count, const double *targets, int64_t *leaves) {
    for (int i = 0; i < count; i++) {
        double rest = targets[i];
        int64_t node = 1;
        for (int level = 0; level < levels; level++) {
            node *= 2;
            // rounding may move a target past the last value: never enter an empty half
            if (rest >= nodes[node] && nodes[node + 1] > 0) rest -= nodes[node++];
        }
        leaves[i] = node - (1L << levels);
    }
    return 0;
}
