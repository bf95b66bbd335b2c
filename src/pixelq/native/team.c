#include "team.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

enum {
    SPINS = 1000,  // looks at what is waited for before falling asleep, some 50 µs: as long as it takes to wake up
    LOOPS = 32,
    MOST = 256,  // threads
};

typedef struct {
    int members;
    _Alignas(64) atomic_int arrived;  // at the next wait
    _Alignas(64) atomic_int waits;    // that are over
    team_loop loops[LOOPS];
} team;

static struct {
    pthread_mutex_t used;  // by the caller that has the threads
    pthread_mutex_t lock;  // of those who fall asleep
    pthread_cond_t changed;
    atomic_int sleepers;
    int threads;  // that were started
    int calls_before[MOST];
    void (*work)(void *);
    void *of;
    team team;
    _Alignas(64) atomic_int calls;
    _Alignas(64) atomic_int finished;  // threads with the last call
    _Alignas(64) atomic_int done;      // calls that all have finished
} pool = {.used = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static _Thread_local struct {
    team *team;
    int member, loop;
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

static void wait_while(atomic_int *number, int is) {
    for (int spin = 0; spin < SPINS; spin++, rest())
        if (atomic_load_explicit(number, memory_order_acquire) != is) return;
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.sleepers, 1);  // before the last look, as `increase` looks after it has increased
    while (atomic_load(number) == is) pthread_cond_wait(&pool.changed, &pool.lock);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.lock);
}

static void increase(atomic_int *number) {
    atomic_fetch_add(number, 1);
    if (!atomic_load(&pool.sleepers)) return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.changed);
    pthread_mutex_unlock(&pool.lock);
}

// Before anybody goes on: nobody has arrived at the next wait, nor taken part in a loop.
static void reset(team *t, int loops) {
    atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
    for (int loop = 0; loop < loops; loop++) atomic_store_explicit(&t->loops[loop].taken, 0, memory_order_relaxed);
}

static void work_as(team *t, int member, void (*work)(void *), void *of) {
    my.team = t, my.member = member, my.loop = 0;
    work(of);
    my.team = NULL;
}

static void *live(void *calls_before) {
    int member = (int)((int *)calls_before - pool.calls_before) + 1, calls = *(int *)calls_before;
    for (;; calls++) {
        wait_while(&pool.calls, calls);
        if (member < pool.team.members) work_as(&pool.team, member, pool.work, pool.of);
        if (atomic_fetch_add(&pool.finished, 1) + 1 == pool.threads) increase(&pool.done);
    }
    return NULL;
}

// After a fork, the child has none of the threads, and nobody who sleeps.
static void forget(void) {
    pthread_mutex_init(&pool.used, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.changed, NULL);
    atomic_store(&pool.sleepers, 0);
    pool.threads = 0;
}

static void start(int threads) {
    static int remembered;
    if (!remembered && threads) remembered = !pthread_atfork(NULL, NULL, forget);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for Python's threads
    for (; pool.threads < threads && pool.threads < MOST; pool.threads++) {
        pthread_t thread;
        pool.calls_before[pool.threads] = atomic_load(&pool.calls);
        if (pthread_create(&thread, NULL, live, pool.calls_before + pool.threads)) break;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void team_run(int threads, void (*work)(void *), void *of) {
    if (threads < 2 || my.team || pthread_mutex_trylock(&pool.used)) {
        team alone, *outer = my.team;
        int member = my.member, loop = my.loop;
        alone.members = 1;
        atomic_init(&alone.waits, 0);
        reset(&alone, LOOPS);
        work_as(&alone, 0, work, of);
        my.team = outer, my.member = member, my.loop = loop;
        return;
    }
    start(threads - 1);
    pool.team.members = threads - 1 < pool.threads ? threads : pool.threads + 1;
    reset(&pool.team, LOOPS);
    pool.work = work, pool.of = of;
    atomic_store(&pool.finished, 0);
    int done = atomic_load(&pool.done);
    increase(&pool.calls);
    work_as(&pool.team, 0, work, of);
    if (pool.threads) wait_while(&pool.done, done);
    pthread_mutex_unlock(&pool.used);
}

int team_member(void) { return my.member; }

team_loop *team_share(void) { return my.team->loops + my.loop++; }

void team_wait(void) {
    team *t = my.team;
    int waits = atomic_load(&t->waits);
    if (atomic_fetch_add(&t->arrived, 1) + 1 < t->members) {
        wait_while(&t->waits, waits);
    } else {
        reset(t, my.loop);
        increase(&t->waits);
    }
    my.loop = 0;
}
