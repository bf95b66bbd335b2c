// Threads that work on one thing together.
//
// As OpenMP, but for two things. They give their processors away as soon as there is nothing to do: OpenMP's go on looking
// for work for milliseconds, on processors that games are waiting for. And nobody waits for a thread that has no processor,
// unless it is in the middle of a turn: those who are there do the work, and who comes late goes on from where they are.

#pragma once

#include <stdatomic.h>

// A loop whose turns the members of a team take one by one.
typedef struct {
    _Alignas(64) atomic_long taken;
} team_loop;

// Lets up to so many threads call `work` with `of`, the caller being one of them; returns when all is done. While another
// caller has the threads, and within a team, the caller is a team of its own.
void team_run(int threads, void (*work)(void *), void *of);

// Inside of `work` all that is done is turns of loops: what comes between two waits may be over before a member comes to it.
int team_member(void);        // who of the team this is, from 0
team_loop *team_share(void);  // the next loop; all members ask for the same ones, no more than 32 between two waits
void team_wait(void);         // until all turns of the loops since the last wait are done

// The next turn, from 0; from some turn on, the loop is over.
static inline long team_take(team_loop *loop) { return atomic_fetch_add_explicit(&loop->taken, 1, memory_order_relaxed); }

// Threads that kernels called from this thread are to use.
extern _Thread_local int team_threads;
