/* A wall clock that a test may move while a program runs. Loaded before a program by LD_PRELOAD.
 *
 * $CLOCK_FILE holds one number of 64 bits, in this machine's own order: by how many milliseconds the wall clock is ahead of
 * the true one; negative is behind. The file is mapped, so whatever is written to it holds from then on.
 *
 * Moved is what asks for the wall clock: clock_gettime of CLOCK_REALTIME and CLOCK_REALTIME_COARSE, gettimeofday, time.
 * Nothing else is: monotonic clocks, sleeps, waits, timers and the times of files go on as they are. So it is what a wrong
 * or stepped clock is to a program that measures durations with the monotonic one. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*true_clock)(clockid_t, struct timespec *);
static const volatile int64_t *ahead_ms;

__attribute__((constructor)) static void prepare(void) {
  const char *path = getenv("CLOCK_FILE");
  int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead_ms, PROT_READ, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) {
    fputs("clock: CLOCK_FILE cannot be mapped\n", stderr);
    _exit(127);
  }
  close(file);
  true_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  ahead_ms = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  /* Another library's constructor may ask before ours has run. */
  if (true_clock == NULL)
    true_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int failed = true_clock(clock, now);
  if (failed || ahead_ms == NULL || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
    return failed;
  int64_t ahead = *ahead_ms;
  now->tv_sec += ahead / 1000;
  now->tv_nsec += ahead % 1000 * 1000000;
  if (now->tv_nsec >= 1000000000) {
    now->tv_nsec -= 1000000000;
    now->tv_sec += 1;
  } else if (now->tv_nsec < 0) {
    now->tv_nsec += 1000000000;
    now->tv_sec -= 1;
  }
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec precise;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *now) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  if (now != NULL)
    *now = precise.tv_sec;
  return precise.tv_sec;
}
