/*
 * Makes system calls fail on purpose: loaded with LD_PRELOAD, told what to do by FAULTS, a list such as
 * "renameat2=22,linkat=1,readv=grow,pwrite=short". A number is the errno to fail with; "short" transfers one byte at a
 * time, "interrupt" fails every other call with EINTR, "grow" and "touch" change the file before it is read.
 */
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The value of `name` in FAULTS, or "". */
static const char *fault(const char *name)
{
    static char value[32];
    const char *at = getenv("FAULTS");
    size_t length = strlen(name);
    while (at != NULL && *at != '\0') {
        size_t item = strcspn(at, ",");
        if (item > length && strncmp(at, name, length) == 0 && at[length] == '=') {
            snprintf(value, sizeof value, "%.*s", (int)(item - length - 1), at + length + 1);
            return value;
        }
        at += item + (at[item] == ',');
    }
    return "";
}

/* Whether the call is to fail; errno says with what. */
static int failing(const char *name)
{
    static int calls;
    const char *what = fault(name);
    if (strcmp(what, "interrupt") == 0) {
        errno = EINTR;
        return calls++ % 2 == 0;
    }
    errno = atoi(what);
    return errno != 0;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    return failing("renameat2") ? -1 : NEXT(renameat2)(from_dir, from, to_dir, to, flags);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    return failing("linkat") ? -1 : NEXT(linkat)(from_dir, from, to_dir, to, flags);
}

int fchown(int fd, uid_t uid, gid_t gid)
{
    return failing("fchown") ? -1 : NEXT(fchown)(fd, uid, gid);
}

int fchmod(int fd, mode_t mode)
{
    return failing("fchmod") ? -1 : NEXT(fchmod)(fd, mode);
}

int futimens(int fd, const struct timespec times[2])
{
    return failing("futimens") ? -1 : NEXT(futimens)(fd, times);
}

int fdatasync(int fd)
{
    return failing("fdatasync") ? -1 : NEXT(fdatasync)(fd);
}

/* Only files that are open for writing alone: what scatter makes, and little else. */
int close(int fd)
{
    int fails = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY && failing("close"), error = errno;
    int done = (int)syscall(SYS_close, fd);
    errno = fails ? error : errno;
    return fails ? -1 : done;
}

static void change(int fd, const char *how)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (strcmp(how, "grow") == 0) {
        int again = open(path, O_WRONLY | O_APPEND);
        if (again < 0 || write(again, "+", 1) != 1)
            abort();
        close(again);
    }
    if (strcmp(how, "touch") == 0) {
        struct timespec times[2] = {{0, UTIME_OMIT}, {1, 1}};
        if (NEXT(futimens)(fd, times) < 0)
            abort();
    }
    if (strcmp(how, "shrink") == 0 && truncate(path, 1) < 0)
        abort();
}

ssize_t readv(int fd, const struct iovec *iov, int count)
{
    const char *what = fault("readv");
    if (failing("readv"))
        return -1;
    change(fd, what);
    if (strcmp(what, "short") == 0)
        for (int i = 0; i < count; i++)
            if (iov[i].iov_len > 0)
                return read(fd, iov[i].iov_base, 1);
    return NEXT(readv)(fd, iov, count);
}

static ssize_t write_at(int fd, const struct iovec *iov, int count, off_t offset)
{
    if (failing("pwrite"))
        return -1;
    if (strcmp(fault("pwrite"), "short") == 0) {
        struct iovec one = {iov[0].iov_base, iov[0].iov_len < 3 ? iov[0].iov_len : 3};
        return syscall(SYS_pwritev, fd, &one, 1, offset, 0);
    }
    return syscall(SYS_pwritev, fd, iov, count, offset, 0);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    return write_at(fd, iov, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t offset)
{
    return write_at(fd, iov, count, offset);
}

ssize_t pwrite(int fd, const void *buffer, size_t length, off_t offset)
{
    return write_at(fd, &(struct iovec){(void *)buffer, length}, 1, offset);
}

ssize_t pwrite64(int fd, const void *buffer, size_t length, off64_t offset)
{
    return write_at(fd, &(struct iovec){(void *)buffer, length}, 1, offset);
}
