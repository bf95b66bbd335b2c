// What sampling from a replay memory does for each transition by itself.

#include "team.h"

#include <stdint.h>
#include <string.h>

// LZ4_decompress_safe_usingDict of liblz4.
typedef int decompressor(const char *from, char *to, int size, int capacity, const char *dictionary, int dictionary_size);

typedef struct {
    decompressor *decompress;
    int count, bytes;
    const char *const *blocks, *const *dictionaries;
    const int32_t *sizes;
    char *to;
    atomic_int failed;
} planes;

enum { TOGETHER = 8 };  // planes that a thread takes at once

static void planes_by_team(void *of) {
    planes *p = of;
    team_loop *loop = team_share();
    for (long first; (first = team_take(loop) * TOGETHER) < p->count;)
        for (long i = first; i < first + TOGETHER && i < p->count; i++) {
            char *plane = p->to + i * p->bytes;
            if (!p->blocks[i]) memset(plane, 0, p->bytes);
            else if (p->decompress(p->blocks[i], plane, p->sizes[i], p->bytes, p->dictionaries[i], p->bytes) != p->bytes)
                atomic_store(&p->failed, 1);
        }
}

// Planes of `bytes` each to `to`, one after the other, from blocks compressed with a dictionary that is as long as a
// plane; zeros for a block that is NULL.
long pixelq_decompress(
    decompressor *decompress, int count, const char *const *blocks, const int32_t *sizes,
    const char *const *dictionaries, int bytes, char *to
) {
    planes p = {decompress, count, bytes, blocks, dictionaries, sizes, to, 0};
    team_run(team_threads / 2, planes_by_team, &p);  // games are playing on the others
    return atomic_load(&p.failed);
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
