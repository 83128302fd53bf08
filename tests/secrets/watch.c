/* Watches a process from within, by LD_PRELOAD: with which modes it makes files, directories and sockets, and whether a
 * needle is in anything that it writes, to whatever file, or gives to a program on its command line. Temporary files are
 * seen as well, and modes as they are at the first moment.
 *
 * WATCH_LOG: where to append lines: "F 600 path", "D 700 path", "S 600 path", "W needle path", "X needle argument".
 * WATCH_NEEDLES: one a line, in hex.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum { NEEDLES_MAX = 400, NEEDLE_BYTES_MAX = 4096 };

static char log_path[4096];
static struct { size_t length; unsigned char bytes[NEEDLE_BYTES_MAX]; } needles[NEEDLES_MAX];
static int needles_count;

__attribute__((constructor)) static void prepare(void) {
  const char *log = getenv("WATCH_LOG"), *file = getenv("WATCH_NEEDLES");
  if (!log || !file) return;
  snprintf(log_path, sizeof log_path, "%s", log);
  FILE *in = fopen(file, "re");
  static char line[2 * NEEDLE_BYTES_MAX + 2];
  while (in && needles_count < NEEDLES_MAX && fgets(line, sizeof line, in)) {
    size_t n = 0;
    unsigned byte;
    while (n < NEEDLE_BYTES_MAX && sscanf(line + 2 * n, "%2x", &byte) == 1) needles[needles_count].bytes[n++] = byte;
    if (n) needles[needles_count++].length = n;
  }
  if (in) fclose(in);
}

static void say(const char *what, const char *number, const char *path) {
  char line[8192];
  if (!*log_path) return;
  int n = snprintf(line, sizeof line, "%s %s %.4000s\n", what, number, path);
  int fd = (int)syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
  if (fd < 0) _exit(99);
  if (syscall(SYS_write, fd, line, (size_t)n) != n) _exit(99);
  syscall(SYS_close, fd);
}

static void path_of(int fd, char *path, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
  path[n < 0 ? 0 : n] = 0;
}

static void mode(const char *what, int fd, const struct stat *st, const char *more) {
  char number[16], path[8192];
  snprintf(number, sizeof number, "%o", st->st_mode & 07777);
  path_of(fd, path, 4096);
  if (more) {
    strncat(path, "/", sizeof path - strlen(path) - 1);
    strncat(path, more, sizeof path - strlen(path) - 1);
  }
  say(what, number, path);
}

static int made(int fd, int flags) {
  struct stat st;
  if (fd >= 0 && (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) && !fstat(fd, &st) && S_ISREG(st.st_mode))
    mode("F", fd, &st, NULL);
  return fd;
}

static void look(int fd, const void *bytes, size_t length) {
  char number[16], path[4096];
  for (int i = 0; i < needles_count; i++)
    if (memmem(bytes, length, needles[i].bytes, needles[i].length)) {
      snprintf(number, sizeof number, "%d", i);
      path_of(fd, path, sizeof path);
      say("W", number, path);
    }
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define MODE_OF(flags) \
  mode_t bits = 0; \
  if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { va_list a; va_start(a, flags); bits = va_arg(a, mode_t); va_end(a); }

int open(const char *path, int flags, ...) { MODE_OF(flags) REAL(open); return made(real(path, flags, bits), flags); }
int open64(const char *path, int flags, ...) { MODE_OF(flags) REAL(open64); return made(real(path, flags, bits), flags); }
int openat(int dir, const char *path, int flags, ...) {
  MODE_OF(flags) REAL(openat);
  return made(real(dir, path, flags, bits), flags);
}
int openat64(int dir, const char *path, int flags, ...) {
  MODE_OF(flags) REAL(openat64);
  return made(real(dir, path, flags, bits), flags);
}

static int made_directory(int result, int dir, const char *path) {
  struct stat st;
  if (!result && !fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW)) {
    if (dir == AT_FDCWD || *path == '/') {
      char number[16];
      snprintf(number, sizeof number, "%o", st.st_mode & 07777);
      say("D", number, path);
    } else {
      mode("D", dir, &st, path);
    }
  }
  return result;
}

int mkdir(const char *path, mode_t bits) { REAL(mkdir); return made_directory(real(path, bits), AT_FDCWD, path); }
int mkdirat(int dir, const char *path, mode_t bits) { REAL(mkdirat); return made_directory(real(dir, path, bits), dir, path); }

int bind(int fd, const struct sockaddr *address, socklen_t length) {
  REAL(bind);
  int result = real(fd, address, length);
  const char *path = ((const struct sockaddr_un *)address)->sun_path;
  struct stat st;
  if (!result && address->sa_family == AF_UNIX && *path && !stat(path, &st)) {
    char number[16];
    snprintf(number, sizeof number, "%o", st.st_mode & 07777);
    say("S", number, path);
  }
  return result;
}

ssize_t write(int fd, const void *bytes, size_t length) { REAL(write); look(fd, bytes, length); return real(fd, bytes, length); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
  REAL(pwrite);
  look(fd, bytes, length);
  return real(fd, bytes, length, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
  REAL(pwrite64);
  look(fd, bytes, length);
  return real(fd, bytes, length, at);
}
ssize_t writev(int fd, const struct iovec *pieces, int count) {
  REAL(writev);
  for (int i = 0; i < count; i++) look(fd, pieces[i].iov_base, pieces[i].iov_len);
  return real(fd, pieces, count);
}
ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t at) {
  REAL(pwritev);
  for (int i = 0; i < count; i++) look(fd, pieces[i].iov_base, pieces[i].iov_len);
  return real(fd, pieces, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t at) {
  REAL(pwritev64);
  for (int i = 0; i < count; i++) look(fd, pieces[i].iov_base, pieces[i].iov_len);
  return real(fd, pieces, count, at);
}

static void look_at_words(char *const *words) {
  char number[16];
  for (int at = 0; words && words[at]; at++)
    for (int i = 0; i < needles_count; i++)
      if (memmem(words[at], strlen(words[at]), needles[i].bytes, needles[i].length)) {
        snprintf(number, sizeof number, "%d", i);
        say("X", number, words[0]);
      }
}

int execve(const char *path, char *const *words, char *const *environment) {
  REAL(execve);
  look_at_words(words);
  look_at_words(environment);
  return real(path, words, environment);
}
int execv(const char *path, char *const *words) { REAL(execv); look_at_words(words); look_at_words(environ); return real(path, words); }
