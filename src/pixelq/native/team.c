#include "team.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

enum {
    SPINS = 1000,  // checks before a waiting thread sleeps: some 50 µs, as long as waking up takes
    LOOPS = 32,
    MOST = 256,             // threads
    STAGE = 1 << 16,        // above any number of threads
    CLOSED = STAGE - 1,     // in place of the number of members
    NO_MORE_TURNS = 1 << 20,
};

// A stage is the work between two waits.
typedef struct {
    int members;
    _Alignas(64) atomic_long stage;  // number from 0, times STAGE, plus its present members or CLOSED
    team_loop loops[LOOPS];
    team_loop over;  // the loop of a finished stage
} team;

static struct {
    pthread_mutex_t used;  // held by the caller that has the threads
    pthread_mutex_t lock;  // for sleepers
    pthread_cond_t changed;
    atomic_int sleepers;
    int threads;         // started so far
    int numbers[MOST];   // 0, 1, …
    void (*work)(void *);
    void *of;
    long first_stage;  // of the present call
    team team;
    _Alignas(64) atomic_long calls;
    _Alignas(64) atomic_long entered;  // twice the count of entries, plus 1 while entry is open
    _Alignas(64) atomic_long left;     // count of exits
} pool = {.used = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static _Thread_local struct {
    team *team;
    int member, loop;
    long stage;
    enum { OUTSIDE, INSIDE, TOO_LATE } where;  // relative to that stage
} my;

_Thread_local int team_threads = 1;

long pixelq_threads(int threads) {
    team_threads = threads;
    return 0;
}

static inline void rest(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

static void wait_until(atomic_long *number, long least) {
    for (int spin = 0; spin < SPINS; spin++, rest())
        if (atomic_load_explicit(number, memory_order_acquire) >= least) return;
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.sleepers, 1);  // before the last check, because `wake` checks after the change
    while (atomic_load(number) < least) pthread_cond_wait(&pool.changed, &pool.lock);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.lock);
}

static void wake(void) {
    if (!atomic_load(&pool.sleepers)) return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.changed);
    pthread_mutex_unlock(&pool.lock);
}

static void reset_loops(team *t) {
    for (int loop = 0; loop < LOOPS; loop++) atomic_store_explicit(&t->loops[loop].taken, 0, memory_order_relaxed);
}

// Join the stage, unless it is over.
static void enter_stage(void) {
    atomic_long *stage = &my.team->stage;
    long now = atomic_load(stage);
    my.where = TOO_LATE;
    while (now / STAGE == my.stage && now % STAGE != CLOSED)
        if (atomic_compare_exchange_weak(stage, &now, now + 1)) {
            my.where = INSIDE;
            return;
        }
}

// Leave the stage after all turns are taken. The last member to leave opens the next stage: then all turns are done.
static void leave_stage(void) {
    team *t = my.team;
    if (my.where == OUTSIDE) enter_stage();
    if (my.where == INSIDE && atomic_fetch_sub(&t->stage, 1) % STAGE == 1) {
        long empty = my.stage * STAGE;
        if (atomic_compare_exchange_strong(&t->stage, &empty, empty + CLOSED)) {
            reset_loops(t);
            atomic_store(&t->stage, (my.stage + 1) * STAGE);
            wake();
        }
    }
    my.loop = 0, my.where = OUTSIDE, my.stage++;
}

static void work_as(team *t, int member, long stage, void (*work)(void *), void *of) {
    my.team = t, my.member = member, my.loop = 0, my.stage = stage, my.where = OUTSIDE;
    work(of);
    leave_stage();
    if (member == 0) wait_until(&t->stage, my.stage * STAGE);
    my.team = NULL;
}

static int enter_call(void) {
    long now = atomic_load(&pool.entered);
    while (now % 2)
        if (atomic_compare_exchange_weak(&pool.entered, &now, now + 2)) return 1;
    return 0;
}

static void *live(void *number) {
    int member = *(int *)number + 1;
    for (long calls = 0;; wait_until(&pool.calls, calls + 1)) {
        calls = atomic_load(&pool.calls);
        if (!enter_call()) continue;
        if (member < pool.team.members) work_as(&pool.team, member, pool.first_stage, pool.work, pool.of);
        atomic_fetch_add(&pool.left, 1);
        wake();
    }
    return NULL;
}

// After a fork, the child has no threads and no sleepers.
static void forget(void) {
    pthread_mutex_init(&pool.used, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.changed, NULL);
    atomic_store(&pool.sleepers, 0);
    atomic_store(&pool.entered, 0);
    atomic_store(&pool.left, 0);
    atomic_store(&pool.team.stage, 0);
    reset_loops(&pool.team);
    pool.threads = 0;
}

static void start(int threads) {
    static int remembered;
    if (!remembered && threads) remembered = !pthread_atfork(NULL, NULL, forget);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // Python's threads handle signals
    for (; pool.threads < threads && pool.threads < MOST; pool.threads++) {
        pthread_t thread;
        pool.numbers[pool.threads] = pool.threads;
        if (pthread_create(&thread, NULL, live, pool.numbers + pool.threads)) break;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void team_run(int threads, void (*work)(void *), void *of) {
    if (threads < 2 || my.team || pthread_mutex_trylock(&pool.used)) {
        team alone;
        alone.members = 1;
        atomic_init(&alone.stage, 0);
        reset_loops(&alone);
        __typeof__(my) outer = my;
        work_as(&alone, 0, 0, work, of);
        my = outer;
        return;
    }
    start(threads - 1);
    pool.team.members = threads - 1 < pool.threads ? threads : pool.threads + 1;
    pool.work = work, pool.of = of, pool.first_stage = atomic_load(&pool.team.stage) / STAGE;
    atomic_fetch_add(&pool.entered, 1);
    atomic_fetch_add(&pool.calls, 1);
    wake();
    work_as(&pool.team, 0, pool.first_stage, work, of);
    long entered = atomic_fetch_sub(&pool.entered, 1) / 2;
    wait_until(&pool.left, entered);
    pthread_mutex_unlock(&pool.used);
}

int team_member(void) { return my.member; }

team_loop *team_share(void) {
    if (my.where == OUTSIDE) enter_stage();
    if (my.where == INSIDE) return my.team->loops + my.loop++;
    atomic_store_explicit(&my.team->over.taken, NO_MORE_TURNS, memory_order_relaxed);
    return &my.team->over;
}

void team_wait(void) {
    leave_stage();
    wait_until(&my.team->stage, my.stage * STAGE);
}
