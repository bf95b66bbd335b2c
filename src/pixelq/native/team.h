// A team of threads that share the turns of loops.
//
// It differs from OpenMP in two ways. Idle threads sleep at once; OpenMP's spin for milliseconds on processors that games
// need. And no thread waits for one without a processor, unless that one is in the middle of a turn: the running threads
// do the work, and a late thread joins where they are.

#pragma once

#include <stdatomic.h>

// A loop: the members of a team take its turns one by one.
typedef struct {
    _Alignas(64) atomic_long taken;
} team_loop;

// Call `work(of)` on up to `threads` threads, the caller included; return when all is done. While another caller has the
// threads, and within a team, the caller works alone.
void team_run(int threads, void (*work)(void *), void *of);

// `work` may only run turns of loops: a stage may be over before a member reaches it.
int team_member(void);        // this thread's number in the team, from 0
team_loop *team_share(void);  // the next loop; all members ask for the same loops, at most 32 between two waits
void team_wait(void);         // wait until all turns of the loops since the last wait are done

// The next turn, from 0. The caller ends the loop after its last turn.
static inline long team_take(team_loop *loop) { return atomic_fetch_add_explicit(&loop->taken, 1, memory_order_relaxed); }

// Number of threads for kernels that this thread calls.
extern _Thread_local int team_threads;
