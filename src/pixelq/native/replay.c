// What sampling from a replay memory does for each transition by itself.

#include "team.h"

#include <stdint.h>
#include <string.h>

// LZ4_decompress_safe_usingDict of liblz4.
typedef int decompressor(const char *from, char *to, int size, int capacity, const char *dictionary, int dictionary_size);

// Compressed planes by slots, in segments of so many.
typedef struct {
    const uint32_t *starts;                           // of each slot's block in its segment's arena
    const uint16_t *sizes;
    const char *const *arenas, *const *dictionaries;  // of the segments; NULL: there is none
    long slots;                                       // of a segment
    long open_from, open_to;                          // slots of the segment being written, in place of another one
    const char *open_arena, *open_dictionary;
    int bytes;                                        // of a plane, and of a dictionary
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

// The plane of a slot, zeros if it is below 0; 0 if it is damaged, or was never written.
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

// The planes of slots to `to`, one after the other.
long pixelq_read_planes(const blocks *from, int count, const int64_t *slots, char *to) {
    planes p = {from, count, slots, to, 0};
    team_run(team_threads / 2, planes_by_team, &p);  // games are playing on the others
    return atomic_load(&p.failed);
}

// Rows of what is known of each step of each game, the newest overwriting the oldest.
typedef struct {
    long rows, games;
    const uint8_t *actions;
    const float *rewards;
    const uint8_t *terminated, *truncated, *ignored;
    const uint8_t *ages;  // steps since the game began
} ring;

static long at(const ring *r, int64_t row, int64_t game) { return (row + r->rows) % r->rows * r->games + game; }

enum { STACK = 4 };

// The slots of the planes that are seen at a row, oldest first; -1 before the game began.
static void stack_of(const ring *r, int64_t row, int64_t game, int64_t *slots) {
    int age = r->ages[at(r, row, game)];
    for (int back = STACK - 1; back >= 0; back--) *slots++ = back > age ? -1 : at(r, row - back, game);
}

// Transitions of n steps that begin at rows of games: slots of the planes seen at their beginnings, [count, 4], then of
// those seen at their ends.
long pixelq_transitions(
    const ring *r, int n_step, double gamma, int count, const int64_t *rows, const int64_t *games,
    int64_t *actions, float *returns, float *discounts, int64_t *slots
) {
    for (int i = 0; i < count; i++) {
        double sum = 0, discount = 1;
        int64_t row = rows[i], game = games[i], end = row;
        for (int step = 0; step < n_step; step++) {
            long now = at(r, row + step, game);
            if (r->ignored[now]) break;  // the game was given up without a flag in the row before
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

// A complete binary tree of so many levels below its root, which is node 1, the children of n being 2n and 2n + 1: give
// leaves new values, and every node above them the sum of its children.
long pixelq_tree_set(double *nodes, int levels, int count, const int64_t *leaves, const double *values) {
    for (int i = 0; i < count; i++) nodes[leaves[i] + (1L << levels)] = values[i];
    for (int i = 0; i < count; i++)
        for (int64_t node = (leaves[i] + (1L << levels)) >> 1; node; node >>= 1)
            nodes[node] = nodes[2 * node] + nodes[2 * node + 1];
    return 0;
}

// The leaves in which running sums reach the targets.
long pixelq_tree_find(const double *nodes, int levels, int count, const double *targets, int64_t *leaves) {
    for (int i = 0; i < count; i++) {
        double rest = targets[i];
        int64_t node = 1;
        for (int level = 0; level < levels; level++) {
            node *= 2;
            // rounding may carry a target past the last value: never into an empty half
            if (rest >= nodes[node] && nodes[node + 1] > 0) rest -= nodes[node++];
        }
        leaves[i] = node - (1L << levels);
    }
    return 0;
}
