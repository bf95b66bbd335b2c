// Threads that work on one thing together.
//
// As OpenMP, but that they give their processors away as soon as there is nothing to do: OpenMP's go on looking for work
// for milliseconds, on processors that games are waiting for.

#pragma once

#include <stdatomic.h>

// A loop whose turns the members of a team take one by one.
typedef struct {
    _Alignas(64) atomic_long taken;
} team_loop;

// Lets all members of a team of `threads` call `work` with `of`, the caller being one of them; returns when all are done.
// While another caller has the threads, and within a team, the caller is a team of its own.
void team_run(int threads, void (*work)(void *), void *of);

// Inside of `work`:
int team_member(void);       // who of the team this is, from 0
team_loop *team_share(void);  // the next loop; all members must ask for the same ones, no more than 32 between two waits
void team_wait(void);        // until all members have come here

// The next turn, from 0; from some turn on, the loop is over.
static inline long team_take(team_loop *loop) { return atomic_fetch_add_explicit(&loop->taken, 1, memory_order_relaxed); }

// Threads that kernels called from this thread are to use.
extern _Thread_local int team_threads;
