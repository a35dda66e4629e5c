/* Shows a program another time, from LD_PRELOAD: tests/it/attacks/time.rs compiles it. EDGEWARDEN_TEST_CLOCK is
 * "+SECONDS" from now, or "@SECONDS" since 1970 at the start of each program. It takes no lock, so that a process may
 * fork at any moment; the monotonic clock and what waits by it are left alone. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long shift;

__attribute__((constructor)) static void start(void)
{
    const char *wanted = getenv("EDGEWARDEN_TEST_CLOCK");
    struct timespec now;
    if (!wanted || syscall(SYS_clock_gettime, CLOCK_REALTIME, &now) != 0)
        return;
    shift = atoll(wanted + 1) - (*wanted == '@' ? now.tv_sec : 0);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += shift;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec real;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &real);
    now->tv_sec = real.tv_sec;
    now->tv_usec = real.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec real;
    clock_gettime(CLOCK_REALTIME, &real);
    if (at)
        *at = real.tv_sec;
    return real.tv_sec;
}
