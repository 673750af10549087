/* Preloaded: a wall clock that is ahead by as many seconds as the file in STEPPED_CLOCK says, now.
 *
 * A thread that waits until a moment of that clock waits as the kernel has it: a step forward wakes it, a step back makes
 * it wait longer. libfaketime leaves cnd_timedwait alone, by which librdkafka waits, so that a wait of a second that
 * begins under a clock an hour ahead would last an hour. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS 20000000L
#define SECOND_NS 1000000000L

static const volatile int64_t none = 0;
static const volatile int64_t *ahead_s = &none;
static int (*real_gettime)(clockid_t, struct timespec *);
static int (*real_wait)(cnd_t *, mtx_t *, const struct timespec *);

__attribute__((constructor)) static void begin(void) {
    real_wait = (int (*)(cnd_t *, mtx_t *, const struct timespec *))dlsym(RTLD_NEXT, "cnd_timedwait");
    real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("STEPPED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *seen = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead_s, PROT_READ, MAP_SHARED, file, 0);
    if (real_wait == NULL || real_gettime == NULL || seen == MAP_FAILED) abort();
    ahead_s = seen;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = real_gettime(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec at;
    if (clock_gettime(CLOCK_REALTIME, &at)) return -1;
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

time_t time(time_t *out) {
    struct timespec at;
    if (clock_gettime(CLOCK_REALTIME, &at)) return (time_t)-1;
    if (out) *out = at.tv_sec;
    return at.tv_sec;
}

/* In slices, each of which looks at the clock; the end of one is a spurious wake-up, which C allows. */
int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    struct timespec now, slice;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t rest_ns = (until->tv_sec - now.tv_sec) * SECOND_NS + until->tv_nsec - now.tv_nsec;
    int last = rest_ns <= SLICE_NS;
    int64_t wait_ns = last ? (rest_ns < 0 ? 0 : rest_ns) : SLICE_NS;
    real_gettime(CLOCK_REALTIME, &slice);
    slice.tv_nsec += wait_ns;
    if (slice.tv_nsec >= SECOND_NS) {
        slice.tv_sec += 1;
        slice.tv_nsec -= SECOND_NS;
    }
    int ended = real_wait(condition, mutex, &slice);
    return ended == thrd_timedout && !last ? thrd_success : ended;
}
