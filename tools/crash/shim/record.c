/* LD_PRELOAD shim of `tools.crash`: writes down every operation on one folder that outlives the process, with its data, and
 * ends the process before operation number N.
 *
 *   GUDGEON_CRASH_ROOT   the folder, absolute and without symbolic links
 *   GUDGEON_CRASH_TRACE  file to which the records below are appended; outside the folder
 *   GUDGEON_CRASH_PAGE   a page shared by all processes of the run:
 *                        [0] operations begun  [1] N, 0: never  [2] set once N was reached: nobody does anything more
 *                        [3] state of the mutex behind them
 *
 * - One operation at a time: it is done and written down under a mutex of all threads and processes, so that the order of the
 *   records is the order in which the file system saw them.
 * - A file is named by its inode, asked for at each operation: no table of descriptors has to be kept right over dup and fork.
 * - What is written to descriptor 1 is a note, not an operation: what the program has told, and when.
 * - SQLite's shared memory (`*-shm`) is left out: SQLite builds it anew from the log whenever nobody has it open.
 * - Not seen: stdio streams, io_uring, bare system calls. The harness compares its images with the folder, and finds out.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { EXIT_CODE = 86, MAGIC = 0x43525348 };

struct record { /* little endian, followed by both paths and the data */
  uint32_t magic;
  char op;
  uint8_t flags;
  uint16_t path_bytes, other_bytes, pad;
  uint32_t data_bytes;
  int64_t number;
  uint64_t inode;
  int64_t offset, size;
} __attribute__((packed));

struct page {
  volatile int64_t begun, last, crashed, ready;
  pthread_mutex_t mutex;
};

static struct page *page;
static char root[PATH_MAX], trace[PATH_MAX];
static size_t root_bytes;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
  const char *at = getenv("GUDGEON_CRASH_PAGE"), *folder = getenv("GUDGEON_CRASH_ROOT"), *file = getenv("GUDGEON_CRASH_TRACE");
  if (!at || !folder || !file) return;
  int fd = REAL(open)(at, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *map = REAL(mmap)(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (map == MAP_FAILED) return;
  snprintf(root, sizeof root, "%s", folder);
  snprintf(trace, sizeof trace, "%s", file);
  root_bytes = strlen(root);
  struct page *found = map;
  int64_t fresh = 0;
  if (__atomic_compare_exchange_n(&found->ready, &fresh, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&found->mutex, &kind);
    __atomic_store_n(&found->ready, 2, __ATOMIC_SEQ_CST);
  }
  while (__atomic_load_n(&found->ready, __ATOMIC_SEQ_CST) != 2) usleep(100);
  page = found;
}

/* ── what is meant ──────────────────────────────────────────────────────────────────────────────────────────────────── */

static int ours(const char *path) {
  size_t n = strlen(path);
  if (!page || strncmp(path, root, root_bytes) || (path[root_bytes] && path[root_bytes] != '/')) return 0;
  return !(n > 4 && !strcmp(path + n - 4, "-shm")) && !strstr(path, "-shm (deleted)");
}

static int fd_path(int fd, char *out) {
  char link[32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, out, PATH_MAX - 1);
  if (n < 0) return 0;
  out[n] = 0;
  return 1;
}

/* The absolute path of a name, whose last part need not exist and is not followed. */
static int name_path(int dir, const char *name, char *out) {
  char joined[2 * PATH_MAX], folder[PATH_MAX];
  if (!page || !name || !*name) return 0;
  if (name[0] == '/' || dir == AT_FDCWD) {
    snprintf(joined, sizeof joined, "%s", name);
  } else {
    if (!fd_path(dir, folder)) return 0;
    snprintf(joined, sizeof joined, "%s/%s", folder, name);
  }
  for (size_t n = strlen(joined); n > 1 && joined[n - 1] == '/'; n--) joined[n - 1] = 0;
  char *slash = strrchr(joined, '/');
  const char *last = slash ? slash + 1 : joined, *before = slash == joined ? "/" : slash ? joined : ".";
  if (slash) *slash = 0;
  if (!realpath(slash == joined ? "/" : before, folder)) return 0;
  return snprintf(out, PATH_MAX, "%s/%s", strcmp(folder, "/") ? folder : "", last) < PATH_MAX;
}

static int our_name(int dir, const char *name, char *out) {
  int before = errno, found = name_path(dir, name, out) && ours(out);
  errno = before;
  return found;
}

/* A regular file or folder of ours behind a descriptor. */
static int our_fd(int fd, struct stat *about, char *path) {
  int before = errno;
  int found = page && !fstat(fd, about) && (S_ISREG(about->st_mode) || S_ISDIR(about->st_mode)) && fd_path(fd, path) && ours(path);
  errno = before;
  return found;
}

/* ── writing it down ────────────────────────────────────────────────────────────────────────────────────────────────── */

static void enter(void) {
  if (pthread_mutex_lock(&page->mutex) == EOWNERDEAD) pthread_mutex_consistent(&page->mutex);
  if (page->crashed) _exit(EXIT_CODE);
}

/* The next operation begins, unless this is where it all ends. */
static int64_t next(void) {
  int before = errno;
  enter();
  int64_t number = ++page->begun;
  if (number == page->last) {
    page->crashed = 1;
    _exit(EXIT_CODE);
  }
  errno = before;
  return number;
}

static void put(int fd, const void *data, size_t size) {
  const char *at = data;
  while (size) {
    ssize_t n = REAL(write)(fd, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(EXIT_CODE + 1); /* a trace with a hole proves nothing */
    at += n, size -= n;
  }
}

static void leave(struct record r, const char *path, const char *other, const void *data) {
  int before = errno;
  int fd = REAL(open)(trace, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) _exit(EXIT_CODE + 1);
  r.magic = MAGIC;
  r.path_bytes = path ? strlen(path) : 0;
  r.other_bytes = other ? strlen(other) : 0;
  put(fd, &r, sizeof r);
  if (path) put(fd, path, r.path_bytes);
  if (other) put(fd, other, r.other_bytes);
  if (data) put(fd, data, r.data_bytes);
  close(fd);
  pthread_mutex_unlock(&page->mutex);
  errno = before;
}

static void leave_failed(int64_t number) { leave((struct record){.op = 'F', .number = number}, NULL, NULL, NULL); }

static void leave_write(int64_t number, int fd, const struct stat *about, int64_t offset, const void *data, ssize_t size) {
  int flags = fcntl(fd, F_GETFL);
  struct record r = {.op = 'W', .number = number, .inode = about->st_ino, .offset = offset};
  if (size < 0) {
    leave_failed(number);
    return;
  }
  r.flags = (flags & O_DSYNC) != 0;
  r.data_bytes = size;
  leave(r, NULL, NULL, data);
}

/* What the kernel copied by itself is read back. */
static void leave_copied(int64_t number, int fd, const struct stat *about, int64_t offset, ssize_t size) {
  char path[PATH_MAX], *data = size > 0 ? malloc(size) : NULL;
  if (size > 0) {
    fd_path(fd, path);
    int back = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    if (!data || back < 0 || pread(back, data, size, offset) != size) _exit(EXIT_CODE + 1);
    close(back);
  }
  leave_write(number, fd, about, offset, data, size);
  free(data);
}

/* ── data ───────────────────────────────────────────────────────────────────────────────────────────────────────────── */

ssize_t write(int fd, const void *data, size_t size) {
  struct stat about;
  char path[PATH_MAX];
  if (fd == 1 && page) {
    enter();
    ssize_t told = REAL(write)(fd, data, size);
    leave((struct record){.op = 'N', .data_bytes = told > 0 ? told : 0}, NULL, NULL, data);
    return told;
  }
  if (!our_fd(fd, &about, path)) return REAL(write)(fd, data, size);
  int64_t number = next();
  ssize_t n = REAL(write)(fd, data, size);
  leave_write(number, fd, &about, lseek(fd, 0, SEEK_CUR) - (n > 0 ? n : 0), data, n);
  return n;
}

#define PWRITE(name, off)                                            \
  ssize_t name(int fd, const void *data, size_t size, off offset) {  \
    struct stat about;                                               \
    char path[PATH_MAX];                                             \
    if (!our_fd(fd, &about, path)) return REAL(name)(fd, data, size, offset); \
    int64_t number = next();                                         \
    ssize_t n = REAL(name)(fd, data, size, offset);                  \
    leave_write(number, fd, &about, offset, data, n);                \
    return n;                                                        \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int count) {
  struct stat about;
  char path[PATH_MAX];
  if (!our_fd(fd, &about, path)) return REAL(writev)(fd, parts, count);
  int64_t number = next();
  ssize_t n = REAL(writev)(fd, parts, count);
  leave_copied(number, fd, &about, lseek(fd, 0, SEEK_CUR) - (n > 0 ? n : 0), n);
  return n;
}

#define PWRITEV(name, off)                                                    \
  ssize_t name(int fd, const struct iovec *parts, int count, off offset) {    \
    struct stat about;                                                        \
    char path[PATH_MAX];                                                      \
    if (!our_fd(fd, &about, path)) return REAL(name)(fd, parts, count, offset); \
    int64_t number = next();                                                  \
    ssize_t n = REAL(name)(fd, parts, count, offset);                         \
    leave_copied(number, fd, &about, offset, n);                              \
    return n;                                                                 \
  }
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

#define SENDFILE(name, off)                                          \
  ssize_t name(int to, int from, off *offset, size_t size) {         \
    struct stat about;                                               \
    char path[PATH_MAX];                                             \
    if (!our_fd(to, &about, path)) return REAL(name)(to, from, offset, size); \
    int64_t number = next();                                         \
    ssize_t n = REAL(name)(to, from, offset, size);                  \
    leave_copied(number, to, &about, lseek(to, 0, SEEK_CUR) - (n > 0 ? n : 0), n); \
    return n;                                                        \
  }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t size, unsigned flags) {
  struct stat about;
  char path[PATH_MAX];
  if (!our_fd(to, &about, path)) return REAL(copy_file_range)(from, in, to, out, size, flags);
  int64_t number = next();
  ssize_t n = REAL(copy_file_range)(from, in, to, out, size, flags);
  leave_copied(number, to, &about, (out ? *out : lseek(to, 0, SEEK_CUR)) - (n > 0 ? n : 0), n);
  return n;
}

static int sized(int64_t number, int code, const struct stat *about, int64_t size) {
  if (code) leave_failed(number);
  else leave((struct record){.op = 'T', .number = number, .inode = about->st_ino, .size = size}, NULL, NULL, NULL);
  return code;
}

#define FTRUNCATE(name, off)                                         \
  int name(int fd, off size) {                                       \
    struct stat about;                                               \
    char path[PATH_MAX];                                             \
    if (!our_fd(fd, &about, path)) return REAL(name)(fd, size);      \
    int64_t number = next();                                         \
    return sized(number, REAL(name)(fd, size), &about, size);        \
  }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

#define TRUNCATE(name, off)                                          \
  int name(const char *file, off size) {                             \
    struct stat about;                                               \
    char path[PATH_MAX];                                             \
    if (!our_name(AT_FDCWD, file, path) || stat(path, &about)) return REAL(name)(file, size); \
    int64_t number = next();                                         \
    return sized(number, REAL(name)(file, size), &about, size);      \
  }
TRUNCATE(truncate, off_t)
TRUNCATE(truncate64, off64_t)

static void leave_unknown(int64_t number, const char *path) {
  leave((struct record){.op = 'X', .number = number}, path, NULL, NULL);
}

/* Room that is given out ahead shows as a size, if at all; other modes of fallocate are told as unknown. */
static int allocated(int64_t number, int code, int mode, const struct stat *about, const char *path, int64_t end) {
  if (code) leave_failed(number);
  else if (mode & ~FALLOC_FL_KEEP_SIZE) leave_unknown(number, path);
  else if (mode || end <= about->st_size) leave_failed(number);
  else sized(number, 0, about, end);
  return code;
}

#define FALLOCATE(name, off)                                         \
  int name(int fd, int mode, off offset, off size) {                 \
    struct stat about;                                               \
    char path[PATH_MAX];                                             \
    if (!our_fd(fd, &about, path)) return REAL(name)(fd, mode, offset, size); \
    int64_t number = next();                                         \
    return allocated(number, REAL(name)(fd, mode, offset, size), mode, &about, path, offset + size); \
  }
FALLOCATE(fallocate, off_t)
FALLOCATE(fallocate64, off64_t)

#define POSIX_FALLOCATE(name, off)                                   \
  int name(int fd, off offset, off size) {                           \
    struct stat about;                                               \
    char path[PATH_MAX];                                             \
    if (!our_fd(fd, &about, path)) return REAL(name)(fd, offset, size); \
    int64_t number = next();                                         \
    return allocated(number, REAL(name)(fd, offset, size), 0, &about, path, offset + size); \
  }
POSIX_FALLOCATE(posix_fallocate, off_t)
POSIX_FALLOCATE(posix_fallocate64, off64_t)

static void *mapped(void *at, int protection, int flags, int fd) {
  struct stat about;
  char path[PATH_MAX];
  if (at == MAP_FAILED || !(protection & PROT_WRITE) || !(flags & MAP_SHARED) || fd < 0 || !our_fd(fd, &about, path)) return at;
  leave_unknown(next(), path);
  return at;
}
void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  return mapped(REAL(mmap)(at, size, protection, flags, fd, offset), protection, flags, fd);
}
void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset) {
  return mapped(REAL(mmap64)(at, size, protection, flags, fd, offset), protection, flags, fd);
}

/* ── flushes ────────────────────────────────────────────────────────────────────────────────────────────────────────── */

#define FLUSH(name, what)                                            \
  int name(int fd) {                                                 \
    struct stat about;                                               \
    char path[PATH_MAX];                                             \
    if (!our_fd(fd, &about, path)) return REAL(name)(fd);            \
    int64_t number = next();                                         \
    int code = REAL(name)(fd);                                       \
    if (code) leave_failed(number);                                  \
    else leave((struct record){.op = what, .number = number, .inode = about.st_ino}, NULL, NULL, NULL); \
    return code;                                                     \
  }
FLUSH(fsync, 'S')
FLUSH(fdatasync, 'S')
FLUSH(syncfs, 'Y')

void sync(void) {
  if (!page) {
    REAL(sync)();
    return;
  }
  int64_t number = next();
  REAL(sync)();
  leave((struct record){.op = 'Y', .number = number}, NULL, NULL, NULL);
}

/* ── names ──────────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* An open is an operation where it makes a file or empties one. */
static int opened(int dir, const char *name, int flags, mode_t mode) {
  char path[PATH_MAX];
  struct stat about;
  if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE || !our_name(dir, name, path))
    return REAL(openat)(dir, name, flags, mode);
  int there = !stat(path, &about);
  if (there ? !(flags & O_TRUNC) || !about.st_size : !(flags & O_CREAT)) return REAL(openat)(dir, name, flags, mode);
  int64_t number = next();
  int fd = REAL(openat)(dir, name, flags, mode);
  if (fd < 0) leave_failed(number);
  else if (there) sized(number, 0, &about, 0);
  else {
    fstat(fd, &about);
    leave((struct record){.op = 'C', .number = number, .inode = about.st_ino}, path, NULL, NULL);
  }
  return fd;
}

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; }

#define OPEN(name, extra)                                            \
  int name(const char *path, int flags, ...) {                       \
    va_list rest;                                                    \
    va_start(rest, flags);                                           \
    mode_t mode = mode_of(flags, rest);                              \
    va_end(rest);                                                    \
    return opened(AT_FDCWD, path, flags | extra, mode);              \
  }
OPEN(open, 0)
OPEN(open64, O_LARGEFILE)

#define OPENAT(name, extra)                                          \
  int name(int dir, const char *path, int flags, ...) {              \
    va_list rest;                                                    \
    va_start(rest, flags);                                           \
    mode_t mode = mode_of(flags, rest);                              \
    va_end(rest);                                                    \
    return opened(dir, path, flags | extra, mode);                   \
  }
OPENAT(openat, 0)
OPENAT(openat64, O_LARGEFILE)

int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* Both names, or that it leads in or out of the folder, which no image can show. */
static int moved(char op, int dir, const char *from, int to_dir, const char *to, unsigned flags, int (*act)(void *), void *with) {
  char path[PATH_MAX], other[PATH_MAX];
  int first = our_name(dir, from, path), second = our_name(to_dir, to, other);
  if (!first && !second) return act(with);
  int64_t number = next();
  int code = act(with);
  if (code) leave_failed(number);
  else if (first != second || flags > 2) leave_unknown(number, first ? path : other);
  else leave((struct record){.op = op, .flags = flags, .number = number}, path, other, NULL);
  return code;
}

struct names {
  int dir, to_dir;
  const char *from, *to;
  unsigned flags;
};
static int act_rename(void *with) {
  struct names *n = with;
  return REAL(renameat2)(n->dir, n->from, n->to_dir, n->to, n->flags);
}
static int act_link(void *with) {
  struct names *n = with;
  return REAL(linkat)(n->dir, n->from, n->to_dir, n->to, n->flags);
}

int renameat2(int dir, const char *from, int to_dir, const char *to, unsigned flags) {
  struct names n = {dir, to_dir, from, to, flags};
  return moved('R', dir, from, to_dir, to, flags, act_rename, &n);
}
int renameat(int dir, const char *from, int to_dir, const char *to) { return renameat2(dir, from, to_dir, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int dir, const char *from, int to_dir, const char *to, int flags) {
  struct names n = {dir, to_dir, from, to, flags};
  return moved('L', dir, from, to_dir, to, 0, act_link, &n);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char *target, int dir, const char *name) {
  char path[PATH_MAX];
  if (!our_name(dir, name, path)) return REAL(symlinkat)(target, dir, name);
  int64_t number = next();
  int code = REAL(symlinkat)(target, dir, name);
  if (code) leave_failed(number);
  else leave((struct record){.op = 'Z', .number = number, .data_bytes = strlen(target)}, path, NULL, target);
  return code;
}
int symlink(const char *target, const char *name) { return symlinkat(target, AT_FDCWD, name); }

int mkdirat(int dir, const char *name, mode_t mode) {
  char path[PATH_MAX];
  struct stat about = {0};
  if (!our_name(dir, name, path)) return REAL(mkdirat)(dir, name, mode);
  int64_t number = next();
  int code = REAL(mkdirat)(dir, name, mode);
  if (code) leave_failed(number);
  else {
    stat(path, &about);
    leave((struct record){.op = 'M', .number = number, .inode = about.st_ino}, path, NULL, NULL);
  }
  return code;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int unlinkat(int dir, const char *name, int flags) {
  char path[PATH_MAX];
  if (!our_name(dir, name, path)) return REAL(unlinkat)(dir, name, flags);
  int64_t number = next();
  int code = REAL(unlinkat)(dir, name, flags);
  if (code) leave_failed(number);
  else leave((struct record){.op = 'U', .number = number}, path, NULL, NULL);
  return code;
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int remove(const char *name) {
  struct stat about;
  return !lstat(name, &about) && S_ISDIR(about.st_mode) ? rmdir(name) : unlink(name);
}
