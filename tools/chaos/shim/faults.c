/* LD_PRELOAD shim of `gudgeon chaos`: a wrong wall clock and a slow disk for one process, changed while it runs.
 *
 * The page is a file of four int64, named by GUDGEON_CHAOS_PAGE and shared with the harness:
 *   [0] ns added to CLOCK_REALTIME   [1] ns that each flush waits   [2] how often the clock was read wrong
 *   [3] how many flushes waited
 * The monotonic clock is left alone, as a stepped clock leaves it alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t none[4];
static volatile int64_t *page = none;

__attribute__((constructor)) static void begin(void) {
  const char *name = getenv("GUDGEON_CHAOS_PAGE");
  int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return;
  void *at = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at != MAP_FAILED) page = at;
  close(fd);
}

static int real_clock(clockid_t id, struct timespec *out) {
  static int (*next)(clockid_t, struct timespec *);
  if (!next) next = dlsym(RTLD_NEXT, "clock_gettime");
  return next(id, out);
}

int clock_gettime(clockid_t id, struct timespec *out) {
  int code = real_clock(id, out);
  int64_t offset = page[0];
  if (code || !offset || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)) return code;
  int64_t ns = (int64_t)out->tv_sec * 1000000000 + out->tv_nsec + offset;
  if (ns < 0) ns = 0;
  out->tv_sec = ns / 1000000000;
  out->tv_nsec = ns % 1000000000;
  __atomic_add_fetch(&page[2], 1, __ATOMIC_RELAXED);
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
  struct timespec now;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  out->tv_sec = now.tv_sec;
  out->tv_usec = now.tv_nsec / 1000;
  return 0;
}

static void wait_first(void) {
  int64_t ns = page[1];
  if (ns <= 0) return;
  struct timespec pause = {ns / 1000000000, ns % 1000000000};
  nanosleep(&pause, NULL);
  __atomic_add_fetch(&page[3], 1, __ATOMIC_RELAXED);
}

int fsync(int fd) {
  static int (*next)(int);
  if (!next) next = dlsym(RTLD_NEXT, "fsync");
  wait_first();
  return next(fd);
}

int fdatasync(int fd) {
  static int (*next)(int);
  if (!next) next = dlsym(RTLD_NEXT, "fdatasync");
  wait_first();
  return next(fd);
}
