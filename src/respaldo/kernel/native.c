/*
 * The four verbs of the kernel: cut, scan, gather, scatter.
 *
 * Everything above "Python" is plain C over plain memory and file descriptors: no Python, no globals, no state between
 * calls, safe on any number of threads at once (two scans of one *descriptor* share its offset and are not).
 * RESPALDO_NO_PYTHON leaves the Python part out, for fuzzers. respaldo.kernel.reference states the same results in
 * Python; both are compared bit by bit. All multi-byte fields are little-endian; their layouts are in
 * respaldo/kernel/layout.py.
 *
 * cut. Let w(p) be the 64 bytes before position p and, with arithmetic modulo 2^64,
 *
 *     gear(p) = sum of table[w(p)[63 - i]] * 2^i over i = 0 … 63
 *
 * so gear(p + 1) = 2 * gear(p) + table[byte at p], whatever came before the window: multiplied by 2^64 it is gone. A
 * chunk that starts at s ends at the first p = s + L, minimum <= L < maximum, for which
 *
 *     gear(p) < 2^56   and   SipHash-2-4(key, w(p)) < (L < average ? strict : loose)
 *
 * and at s + maximum where there is none. As minimum >= 64, the window never reaches back over s: the end of a chunk
 * is a function of the bytes since its start and of nothing else. Hence cut(x ‖ y) = cut(x, not final), followed by
 * cut(rest of x ‖ y). The gear hash only thins out the places where the PRF is asked (1 in 256); it decides nothing
 * that is meant to stay secret.
 *
 * scan. A directory becomes three columns in the order of memcmp of the names; two scans with equal bytes mean an
 * unchanged directory. Every entry has a row, or has vanished meanwhile.
 *
 * gather. Row i of the result speaks about bytes [S(i), S(i) + length) of `out`, S(i) being the sum of the sizes
 * before i. A file without CHANGED and without error was, from its first fstat to its second, the one that the rows
 * describe.
 *
 * scatter. Under its final name a file is whole or absent, and a name that exists is never replaced. With PRIVATE, a file
 * has its final name from the first: for a directory that is to get its own name when the files in it are whole.
 */

#ifndef RESPALDO_NO_PYTHON
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#endif

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <linux/fs.h>

/* Raised whenever a signature, a layout or a result changes; the package refuses a native module of another one. */
#define KERNEL_REVISION 3

/* ------------------------------------------------------------------------------------------------ little-endian -- */

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define LE32(x) __builtin_bswap32(x)
#define LE64(x) __builtin_bswap64(x)
#else
#define LE32(x) (x)
#define LE64(x) (x)
#endif

static inline uint32_t get32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, 4);
    return LE32(value);
}

static inline uint64_t get64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, 8);
    return LE64(value);
}

static inline void put32(uint8_t *to, uint32_t value)
{
    value = LE32(value);
    memcpy(to, &value, 4);
}

static inline void put64(uint8_t *to, uint64_t value)
{
    value = LE64(value);
    memcpy(to, &value, 8);
}

/* ------------------------------------------------------------------------------------------------------ layouts -- */

enum {
    META_SIZE = 40,   /* mode, uid, gid, attributes: u32; size: u64; mtime_ns, btime_ns: i64 */
    IDENT_SIZE = 24,  /* ino: u64; ctime_ns: i64; nlink, flags: u32 */
    GATHER_SIZE = 24, /* length: u64; error: i32; flags, attributes, reserved: u32 */
    SCATTER_SIZE = 12 /* error: i32; stage, flags: u32 */
};

enum { META_MODE = 0, META_UID = 4, META_GID = 8, META_ATTRIBUTES = 12, META_LENGTH = 16, META_MTIME = 24, META_BTIME = 32 };
enum { IDENT_INO = 0, IDENT_CTIME = 8, IDENT_NLINK = 16, IDENT_FLAGS = 20 };

enum {
    ENTRY_MOUNT = 1,
    ENTRY_SPARSE = 2,
    ENTRY_RECENT = 4,
    ENTRY_IMMUTABLE = 8,
    ENTRY_APPEND = 16,
    ENTRY_NODUMP = 32,
    ENTRY_FAILED = 64
};

enum { SCAN_IGNORE_INO = 1, SCAN_IGNORE_CTIME = 2, SCAN_TRUST_TIMES = 4, SCAN_OPTIONS = 7 };
enum { GATHER_CHANGED = 1, GATHER_XATTRS = 2, GATHER_NOT_REGULAR = 4 };
enum { SCATTER_OWNER = 1, SCATTER_SYNC = 2, SCATTER_SPARSE = 4, SCATTER_PRIVATE = 8, SCATTER_OPTIONS = 15 };
enum { SCATTER_OWNER_FAILED = 1 };

enum stage { STAGE_OK, STAGE_CHECK, STAGE_OPEN, STAGE_WRITE, STAGE_OWNER, STAGE_MODE, STAGE_TIMES, STAGE_CLOSE, STAGE_RENAME };

/* The inode flags that a user can set and a restore gives back: secure deletion, undelete, compress, synchronous,
 * immutable, append-only, no dump, no atime, journal data, no tail merging, synchronous directory, top directory, no
 * copy-on-write, direct access, project inheritance. The others (extents, encrypted, verity, inline data …) describe the file system's own doing. */
#define INODE_FLAGS UINT32_C(0x2283C0FF)

#define PREFIX_MAX 200
#define HOLE 4096u

/* What the C library's headers may lack (musl, older glibc). */
#ifndef STATX_ATTR_IMMUTABLE
#define STATX_ATTR_IMMUTABLE 0x10
#define STATX_ATTR_APPEND 0x20
#define STATX_ATTR_NODUMP 0x40
#endif
#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x2000
#endif
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

static int rename_noreplace(int dir_fd, const char *from, const char *to)
{
#ifdef __GLIBC__
    return renameat2(dir_fd, from, dir_fd, to, RENAME_NOREPLACE);
#else
    return (int)syscall(SYS_renameat2, dir_fd, from, dir_fd, to, RENAME_NOREPLACE);
#endif
}

/* Seconds and nanoseconds as nanoseconds, saturated: a file system may hold any 64-bit second. */
static inline int64_t time_ns(int64_t s, int64_t ns)
{
    int64_t value;
    if (s < 0 && ns > 0) { /* both parts towards zero, so that the product overflows only where the sum does */
        s += 1;
        ns -= 1000000000;
    }
    if (__builtin_mul_overflow(s, INT64_C(1000000000), &value) || __builtin_add_overflow(value, ns, &value))
        return s < 0 || ns < 0 ? INT64_MIN : INT64_MAX;
    return value;
}

/* A name that stays in its directory. */
static bool name_is_safe(const char *name)
{
    if (name[0] == '\0' || strchr(name, '/') != NULL)
        return false;
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* ---------------------------------------------------------------------------------------------------------- cut -- */

enum { WINDOW = 64 };

struct cutter {
    uint64_t table[256];
    uint64_t key[2];
    size_t minimum, average, maximum;
    uint64_t strict, loose;
};

struct lengths {
    uint32_t *rows;
    size_t count, room;
};

static inline uint64_t rotate(uint64_t x, int by)
{
    return (x << by) | (x >> (64 - by));
}

#define SIP_ROUND                                                                                                      \
    do {                                                                                                               \
        v0 += v1, v1 = rotate(v1, 13) ^ v0, v0 = rotate(v0, 32);                                                       \
        v2 += v3, v3 = rotate(v3, 16) ^ v2;                                                                            \
        v0 += v3, v3 = rotate(v3, 21) ^ v0;                                                                            \
        v2 += v1, v1 = rotate(v1, 17) ^ v2, v2 = rotate(v2, 32);                                                       \
    } while (0)

/* SipHash-2-4 (Aumasson and Bernstein, 2012) of exactly one window. */
static inline uint64_t siphash_window(const uint64_t key[2], const uint8_t *window)
{
    uint64_t v0 = key[0] ^ UINT64_C(0x736f6d6570736575), v1 = key[1] ^ UINT64_C(0x646f72616e646f6d);
    uint64_t v2 = key[0] ^ UINT64_C(0x6c7967656e657261), v3 = key[1] ^ UINT64_C(0x7465646279746573);
    for (int i = 0; i <= WINDOW; i += 8) {
        uint64_t word = i < WINDOW ? get64(window + i) : (uint64_t)WINDOW << 56;
        v3 ^= word;
        SIP_ROUND;
        SIP_ROUND;
        v0 ^= word;
    }
    v2 ^= 0xff;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    SIP_ROUND;
    return v0 ^ v1 ^ v2 ^ v3;
}

#define CANDIDATE (UINT64_C(1) << 56)

/* The first position p in [from, to) with gear(p) < 2^56, or `to`; *gear goes from gear(from) to gear(p). */
static inline size_t next_candidate(const uint8_t *data, const uint64_t *table, size_t from, size_t to, uint64_t *gear)
{
    uint64_t h = *gear;
    size_t p = from;
#define STEP(i)                                                                                                        \
    if (h < CANDIDATE) {                                                                                               \
        p += (i);                                                                                                      \
        break;                                                                                                         \
    }                                                                                                                  \
    h = (h << 1) + table[data[p + (i)]]
    for (;;) {
        if (to - p < 8) {
            while (p < to && h >= CANDIDATE)
                h = (h << 1) + table[data[p++]];
            break;
        }
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
        STEP(4);
        STEP(5);
        STEP(6);
        STEP(7);
        p += 8;
    }
#undef STEP
    *gear = h;
    return p;
}

/* The length of the chunk at the start of `data`; 0 where more bytes are needed to tell. */
static size_t cut_one(const struct cutter *c, const uint8_t *data, size_t length, bool final)
{
    if (length <= c->minimum)
        return final ? length : 0;
    size_t end = length < c->maximum ? length : c->maximum;
    size_t middle = c->average < end ? c->average : end;
    size_t p = c->minimum;
    uint64_t gear = 0;
    for (size_t i = p - WINDOW; i < p; i++)
        gear = (gear << 1) + c->table[data[i]];
    for (int part = 0; part < 2; part++) {
        size_t to = part == 0 ? middle : end;
        uint64_t threshold = part == 0 ? c->strict : c->loose;
        while ((p = next_candidate(data, c->table, p, to, &gear)) < to) {
            if (siphash_window(c->key, data + p - WINDOW) < threshold)
                return p;
            gear = (gear << 1) + c->table[data[p++]];
        }
    }
    if (length >= c->maximum)
        return c->maximum;
    return final ? length : 0;
}

/* Appends the lengths of all chunks; -1 when memory ran out. */
static int cut_all(const struct cutter *c, const uint8_t *data, size_t length, bool final, struct lengths *out)
{
    while (length > 0) {
        size_t chunk = cut_one(c, data, length, final);
        if (chunk == 0)
            break;
        if (out->count == out->room) {
            size_t room = out->room > 0 ? out->room * 2 : 64;
            uint32_t *rows = room <= SIZE_MAX / 4 ? realloc(out->rows, room * 4) : NULL;
            if (rows == NULL)
                return -1;
            out->rows = rows;
            out->room = room;
        }
        put32((uint8_t *)&out->rows[out->count++], (uint32_t)chunk);
        data += chunk;
        length -= chunk;
    }
    return 0;
}

/* --------------------------------------------------------------------------------------------------------- scan -- */

struct entry {
    uint64_t order; /* the first eight bytes of the name, big-endian: settles nearly every comparison */
    uint64_t ino;   /* d_ino */
    size_t name;    /* offset in `arena` */
    size_t row;     /* of `meta` and `ident`, before sorting by name */
    uint8_t type;   /* d_type */
};

/* What getdents64(2) gives; no header has it. */
struct record {
    uint64_t ino, offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

struct listing {
    char *arena; /* names with their NULs, as the directory gave them */
    size_t arena_used, arena_room;
    struct entry *entries;
    size_t count, room;
    uint8_t *meta, *ident;
};

static void listing_free(struct listing *l)
{
    free(l->arena);
    free(l->entries);
    free(l->meta);
    free(l->ident);
}

static uint64_t first_bytes(const char *name)
{
    uint64_t order = 0;
    for (int i = 0; i < 8; i++) {
        order |= (uint64_t)(uint8_t)name[i] << (56 - 8 * i);
        if (name[i] == '\0')
            break;
    }
    return order;
}

static int listing_add(struct listing *l, const char *name, size_t length, uint64_t ino, uint8_t type)
{
    if (length + 1 > l->arena_room - l->arena_used) {
        size_t room = l->arena_room > 0 ? l->arena_room * 2 : 8192;
        while (room - l->arena_used < length + 1)
            room *= 2;
        char *arena = realloc(l->arena, room);
        if (arena == NULL)
            return -1;
        l->arena = arena;
        l->arena_room = room;
    }
    if (l->count == l->room) {
        size_t room = l->room > 0 ? l->room * 2 : 128;
        struct entry *entries = room <= SIZE_MAX / sizeof *entries ? realloc(l->entries, room * sizeof *entries) : NULL;
        if (entries == NULL)
            return -1;
        l->entries = entries;
        l->room = room;
    }
    memcpy(l->arena + l->arena_used, name, length);
    l->arena[l->arena_used + length] = '\0';
    l->entries[l->count++] = (struct entry){first_bytes(l->arena + l->arena_used), ino, l->arena_used, 0, type};
    l->arena_used += length + 1;
    return 0;
}

/* Reads the whole directory; 0 or an errno. */
static int listing_read(struct listing *l, int dir_fd)
{
    enum { SMALL = 32768, BIG = 1 << 20 };
    _Alignas(8) char small[SMALL];
    char *buffer = small, *big = NULL;
    size_t size = SMALL;
    int error = 0;
    if (lseek(dir_fd, 0, SEEK_SET) < 0)
        return errno;
    for (;;) {
        long got = syscall(SYS_getdents64, dir_fd, buffer, size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            error = errno;
        if (got <= 0)
            break;
        for (size_t at = 0; at < (size_t)got;) {
            const struct record *r = (const struct record *)(const void *)(buffer + at);
            size_t length = strnlen(r->name, r->length - offsetof(struct record, name));
            at += r->length;
            if (length <= 2 && r->name[0] == '.' && (length == 1 || r->name[1] == '.'))
                continue;
            if (listing_add(l, r->name, length, r->ino, r->type) < 0) {
                error = ENOMEM;
                break;
            }
        }
        if (error != 0)
            break;
        if (big == NULL && l->count > 256 && (big = malloc(BIG)) != NULL) {
            buffer = big;
            size = BIG;
        }
    }
    free(big);
    return error;
}

static int by_ino(const void *a, const void *b)
{
    const struct entry *x = *(const struct entry *const *)a, *y = *(const struct entry *const *)b;
    return (x->ino > y->ino) - (x->ino < y->ino);
}

struct named {
    const char *name;
    struct entry *entry;
};

static int by_name(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    if (x->entry->order != y->entry->order)
        return x->entry->order < y->entry->order ? -1 : 1;
    return strcmp(x->name, y->name); /* compares as unsigned bytes; names hold no NUL, so it is memcmp's order */
}

static void put_failed(const struct entry *e, int error, unsigned options, uint8_t *meta, uint8_t *ident)
{
    memset(meta, 0, META_SIZE);
    memset(ident, 0, IDENT_SIZE);
    put32(meta + META_MODE, (uint32_t)e->type << 12); /* DT_* are the type bits of st_mode, shifted */
    put64(ident + IDENT_INO, options & (SCAN_IGNORE_INO | SCAN_TRUST_TIMES) ? 0 : e->ino);
    put32(ident + IDENT_NLINK, (uint32_t)error);
    put32(ident + IDENT_FLAGS, ENTRY_FAILED);
}

/* Writes the rows of one entry; false when it has vanished. */
static bool put_entry(int dir_fd, const struct stat *dir, const char *name, const struct entry *e, int64_t recent_ns,
                      unsigned options, uint8_t *meta, uint8_t *ident)
{
    struct statx s;
    int got;
    do
        got = statx(dir_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_BTIME, &s);
    while (got < 0 && errno == EINTR);
    if (got < 0) {
        if (errno == ENOENT)
            return false;
        put_failed(e, errno, options, meta, ident);
        return true;
    }
    uint32_t type = s.stx_mode & S_IFMT, flags = 0;
    uint64_t length = 0;
    if (type == S_IFREG || type == S_IFLNK)
        length = s.stx_size;
    else if (type == S_IFBLK || type == S_IFCHR)
        length = (uint64_t)s.stx_rdev_major << 32 | s.stx_rdev_minor;
    int64_t mtime_ns = time_ns(s.stx_mtime.tv_sec, s.stx_mtime.tv_nsec);
    int64_t ctime_ns = time_ns(s.stx_ctime.tv_sec, s.stx_ctime.tv_nsec);
    uint64_t attributes = s.stx_attributes & s.stx_attributes_mask;

    /* Files of an overlay may show the devices of its layers: of them the kernel knows better, where it tells. */
    bool elsewhere = makedev(s.stx_dev_major, s.stx_dev_minor) != dir->st_dev;
    if (type != S_IFDIR && (s.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT))
        elsewhere = false;
    if (elsewhere || (attributes & STATX_ATTR_MOUNT_ROOT))
        flags |= ENTRY_MOUNT;
    if (type == S_IFREG && s.stx_blocks < s.stx_size / 512 + (s.stx_size % 512 != 0))
        flags |= ENTRY_SPARSE;
    if (!(options & SCAN_TRUST_TIMES) &&
        (mtime_ns >= recent_ns || (ctime_ns >= recent_ns && !(options & SCAN_IGNORE_CTIME))))
        flags |= ENTRY_RECENT;
    if (attributes & STATX_ATTR_IMMUTABLE)
        flags |= ENTRY_IMMUTABLE;
    if (attributes & STATX_ATTR_APPEND)
        flags |= ENTRY_APPEND;
    if (attributes & STATX_ATTR_NODUMP)
        flags |= ENTRY_NODUMP;

    put32(meta + META_MODE, s.stx_mode);
    put32(meta + META_UID, s.stx_uid);
    put32(meta + META_GID, s.stx_gid);
    put32(meta + META_ATTRIBUTES, 0);
    put64(meta + META_LENGTH, length);
    put64(meta + META_MTIME, (uint64_t)mtime_ns);
    put64(meta + META_BTIME,
          s.stx_mask & STATX_BTIME ? (uint64_t)time_ns(s.stx_btime.tv_sec, s.stx_btime.tv_nsec) : 0);
    bool trust = options & SCAN_TRUST_TIMES;
    put64(ident + IDENT_INO, trust || (options & SCAN_IGNORE_INO) ? 0 : s.stx_ino);
    put64(ident + IDENT_CTIME, trust || (options & SCAN_IGNORE_CTIME) ? 0 : (uint64_t)ctime_ns);
    put32(ident + IDENT_NLINK, trust || type == S_IFDIR ? 0 : s.stx_nlink);
    put32(ident + IDENT_FLAGS, flags);
    return true;
}

/* Lists and stats; 0 or an errno. On success `sorted` (to be freed) holds the entries in the order of their names,
 * `*count` of them, each with its row in l->meta and l->ident. */
static int scan_directory(struct listing *l, int dir_fd, int64_t recent_ns, unsigned options, struct named **sorted,
                          size_t *count)
{
    struct stat dir;
    if (fstat(dir_fd, &dir) < 0)
        return errno;
    int error = listing_read(l, dir_fd);
    if (error != 0)
        return error;
    size_t n = l->count, kept = 0;
    struct entry **queue = malloc((n + 1) * sizeof *queue);
    *sorted = malloc((n + 1) * sizeof **sorted);
    l->meta = malloc((n + 1) * META_SIZE);
    l->ident = malloc((n + 1) * IDENT_SIZE);
    if (queue == NULL || *sorted == NULL || l->meta == NULL || l->ident == NULL) {
        free(queue);
        return ENOMEM;
    }
    bool ascending = true;
    for (size_t i = 0; i < n; i++) {
        queue[i] = &l->entries[i];
        ascending = ascending && (i == 0 || queue[i - 1]->ino <= queue[i]->ino);
    }
    /* In the order of inodes: a cold inode table is then read once, forwards. */
    if (!ascending)
        qsort(queue, n, sizeof *queue, by_ino);
    for (size_t i = 0; i < n; i++) {
        struct entry *e = queue[i];
        const char *name = l->arena + e->name;
        if (!put_entry(dir_fd, &dir, name, e, recent_ns, options, l->meta + kept * META_SIZE, l->ident + kept * IDENT_SIZE))
            continue;
        e->row = kept;
        (*sorted)[kept++] = (struct named){name, e};
    }
    free(queue);
    qsort(*sorted, kept, sizeof **sorted, by_name);
    /* A directory that changes while it is read may give a name twice. */
    size_t unique = 0;
    for (size_t i = 0; i < kept; i++)
        if (unique == 0 || strcmp((*sorted)[unique - 1].name, (*sorted)[i].name) != 0)
            (*sorted)[unique++] = (*sorted)[i];
    *count = unique;
    return 0;
}

/* ------------------------------------------------------------------------------------------------------- gather -- */

static int64_t mtime_of(const struct stat *s)
{
    return time_ns(s->st_mtim.tv_sec, s->st_mtim.tv_nsec);
}

static int64_t ctime_of(const struct stat *s)
{
    return time_ns(s->st_ctim.tv_sec, s->st_ctim.tv_nsec);
}

static int open_to_read(int dir_fd, const char *name)
{
    /* O_NONBLOCK: a FIFO that took the file's place must not block. O_NOATIME is the owner's privilege. */
    int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, fd;
    do
        fd = openat(dir_fd, name, flags | O_NOATIME);
    while (fd < 0 && errno == EINTR);
    if (fd >= 0 || errno != EPERM)
        return fd;
    do
        fd = openat(dir_fd, name, flags);
    while (fd < 0 && errno == EINTR);
    return fd;
}

/* Reads up to `length` bytes and one more; *more says that there was one. 0 or an errno. */
static int read_exactly(int fd, uint8_t *out, size_t length, size_t *done, bool *more)
{
    *done = 0;
    for (;;) {
        uint8_t beyond;
        struct iovec into[2] = {{out + *done, length - *done}, {&beyond, 1}};
        ssize_t got = readv(fd, into, 2);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        *more = (size_t)got > length - *done;
        *done += *more ? length - *done : (size_t)got;
        /* A read that came back short after the last expected byte met the end of the file. */
        if (got == 0 || *done == length)
            return 0;
    }
}

static void gather_one(int dir_fd, const char *name, const uint8_t *meta, const uint8_t *ident, uint8_t *out, uint8_t *row)
{
    uint64_t length = get64(meta + META_LENGTH), ino = get64(ident + IDENT_INO);
    int64_t ctime_ns = (int64_t)get64(ident + IDENT_CTIME);
    uint32_t flags = 0, attributes = 0;
    size_t done = 0;
    int error = 0, fd = -1;
    struct stat before, after;

    if (!name_is_safe(name)) {
        error = EINVAL;
        goto end;
    }
    if ((fd = open_to_read(dir_fd, name)) < 0 || fstat(fd, &before) < 0) {
        error = errno;
        goto end;
    }
    if (!S_ISREG(before.st_mode)) {
        flags = GATHER_CHANGED | GATHER_NOT_REGULAR;
        goto end;
    }
    if ((ino != 0 && ino != before.st_ino) || (uint64_t)before.st_size != length ||
        mtime_of(&before) != (int64_t)get64(meta + META_MTIME) || (ctime_ns != 0 && ctime_ns != ctime_of(&before)))
        flags |= GATHER_CHANGED;
    bool more = false;
    if ((error = read_exactly(fd, out, (size_t)length, &done, &more)) != 0)
        goto end;
    if (more || done < length)
        flags |= GATHER_CHANGED;
    if (fstat(fd, &after) < 0) {
        error = errno;
        goto end;
    }
    if (mtime_of(&before) != mtime_of(&after) || ctime_of(&before) != ctime_of(&after) || before.st_size != after.st_size)
        flags |= GATHER_CHANGED;
    /* An error other than "not supported" (a list that is too long, say) leaves it to the caller to look. */
    ssize_t listed = flistxattr(fd, NULL, 0);
    if (listed > 0 || (listed < 0 && errno != ENOTSUP && errno != ENOSYS))
        flags |= GATHER_XATTRS;
    unsigned int inode_flags = 0; /* an int, whatever the number of the request says */
    if (ioctl(fd, FS_IOC_GETFLAGS, &inode_flags) == 0)
        attributes = inode_flags & INODE_FLAGS;
end:
    if (fd >= 0)
        close(fd);
    put64(row, done);
    put32(row + 8, (uint32_t)error);
    put32(row + 12, flags);
    put32(row + 16, attributes);
    put32(row + 20, 0);
}

static void gather_all(int dir_fd, const char *names, const uint8_t *meta, const uint8_t *ident, size_t count, uint8_t *out,
                       uint8_t *rows)
{
    for (size_t i = 0; i < count; i++) {
        gather_one(dir_fd, names, meta, ident, out, rows);
        names += strlen(names) + 1;
        out += get64(meta + META_LENGTH);
        meta += META_SIZE;
        ident += IDENT_SIZE;
        rows += GATHER_SIZE;
    }
}

/* ------------------------------------------------------------------------------------------------------ scatter -- */

struct outcome {
    int error;
    enum stage stage;
    uint32_t flags;
};

/* A place in a file's content, held as consecutive pieces. */
struct cursor {
    const struct iovec *piece;
    size_t within;
};

static void cursor_move(struct cursor *c, size_t by)
{
    while (by > 0 && by >= c->piece->iov_len - c->within) {
        by -= c->piece->iov_len - c->within;
        c->piece++;
        c->within = 0;
    }
    c->within += by;
}

/* Says whether the next `length` bytes are zeros. */
static bool cursor_at_zeros(struct cursor c, size_t length)
{
    while (length > 0) {
        const uint8_t *at = (const uint8_t *)c.piece->iov_base + c.within;
        size_t here = c.piece->iov_len - c.within;
        if (here > length)
            here = length;
        if (here > 0 && (at[0] != 0 || memcmp(at, at + 1, here - 1) != 0))
            return false;
        length -= here;
        c.piece++;
        c.within = 0;
    }
    return true;
}

/* Writes the next `length` bytes at `offset` and moves on; 0 or an errno. */
static int write_range(int fd, struct cursor *c, off_t offset, size_t length)
{
    enum { BATCH = 64 };
    while (length > 0) {
        struct iovec batch[BATCH];
        int count = 0;
        size_t within = c->within, asked = 0;
        for (const struct iovec *piece = c->piece; asked < length && count < BATCH; piece++) {
            size_t here = piece->iov_len - within;
            if (here > length - asked)
                here = length - asked;
            if (here > 0)
                batch[count++] = (struct iovec){(uint8_t *)piece->iov_base + within, here};
            asked += here;
            within = 0;
        }
        ssize_t written = pwritev(fd, batch, count, offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return errno;
        if (written == 0)
            return EIO;
        cursor_move(c, (size_t)written);
        offset += written;
        length -= (size_t)written;
    }
    return 0;
}

/* Writes all but the blocks of zeros, one stretch of data after another; 0 or an errno. */
static int write_sparse(int fd, struct cursor c, size_t length)
{
    struct cursor data = c; /* where the stretch starts that is not written yet */
    size_t start = 0, at = 0;
    /* First the size: writing beyond the end, XFS sets space aside behind it, also that of the holes. */
    if (length >= HOLE && ftruncate(fd, (off_t)length) < 0)
        return errno;
    while (at < length) {
        size_t block = length - at < HOLE ? length - at : HOLE;
        bool hole = block == HOLE && cursor_at_zeros(c, HOLE);
        cursor_move(&c, block);
        at += block;
        if (!hole && at < length)
            continue;
        size_t stop = hole ? at - HOLE : at;
        int error = write_range(fd, &data, (off_t)start, stop - start);
        if (error != 0)
            return error;
        start = at;
        data = c;
    }
    return 0;
}

/* Gives the finished temporary its name without replacing anything; 0 or an errno. */
static int rename_new(int dir_fd, const char *temporary, const char *name)
{
    struct stat s;
    if (rename_noreplace(dir_fd, temporary, name) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return errno;
    if (linkat(dir_fd, temporary, dir_fd, name, 0) == 0)
        return unlinkat(dir_fd, temporary, 0) == 0 ? 0 : errno;
    if (errno != EPERM && errno != ENOTSUP && errno != EOPNOTSUPP && errno != ENOSYS)
        return errno;
    /* No atomic way is left (FAT by FUSE): whoever creates the name between these two calls loses it. */
    if (fstatat(dir_fd, name, &s, AT_SYMLINK_NOFOLLOW) == 0)
        return EEXIST;
    if (errno != ENOENT)
        return errno;
    return renameat(dir_fd, temporary, dir_fd, name) == 0 ? 0 : errno;
}

/* Gives the open file owner, mode and time, in this order: chown clears set-id bits. */
static struct outcome set_metadata(int fd, const uint8_t *meta, unsigned options)
{
    struct outcome done = {0, STAGE_OK, 0};
    uint32_t mode = get32(meta + META_MODE) & 07777, uid = get32(meta + META_UID), gid = get32(meta + META_GID);
    bool owned = false;
    if (options & SCATTER_OWNER) {
        /* -1 would mean "as it is", and succeed. */
        owned = uid != UINT32_MAX && gid != UINT32_MAX && fchown(fd, uid, gid) == 0;
        if (!owned)
            done.flags |= SCATTER_OWNER_FAILED;
    } else if (mode & (S_ISUID | S_ISGID)) {
        struct stat s;
        if (fstat(fd, &s) < 0)
            return (struct outcome){errno, STAGE_OWNER, 0};
        owned = s.st_uid == uid && s.st_gid == gid;
    }
    /* A set-id bit on a file of another owner would lend out the wrong identity. */
    if (!owned)
        mode &= ~(uint32_t)(S_ISUID | S_ISGID);
    if (fchmod(fd, (mode_t)mode) < 0)
        return (struct outcome){errno, STAGE_MODE, done.flags};
    int64_t mtime_ns = (int64_t)get64(meta + META_MTIME), s = mtime_ns / 1000000000, ns = mtime_ns % 1000000000;
    if (ns < 0) {
        ns += 1000000000;
        s -= 1;
    }
    if ((int64_t)(time_t)s != s)
        return (struct outcome){EOVERFLOW, STAGE_TIMES, done.flags};
    struct timespec times[2] = {{0, UTIME_OMIT}, {(time_t)s, (long)ns}};
    if (futimens(fd, times) < 0)
        return (struct outcome){errno, STAGE_TIMES, done.flags};
    return done;
}

static struct outcome scatter_one(int dir_fd, const char *name, const uint8_t *meta, const struct iovec *pieces,
                                  size_t count, const char *temporary, unsigned options)
{
    uint64_t length = 0;
    for (size_t i = 0; i < count; i++)
        if (__builtin_add_overflow(length, pieces[i].iov_len, &length))
            return (struct outcome){EINVAL, STAGE_CHECK, 0};
    if (length != get64(meta + META_LENGTH) || length > SSIZE_MAX || !name_is_safe(name))
        return (struct outcome){EINVAL, STAGE_CHECK, 0};

    int fd;
    if (options & SCATTER_PRIVATE)
        temporary = name;
    do
        fd = openat(dir_fd, temporary, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return (struct outcome){errno, STAGE_OPEN, 0};

    struct cursor c = {pieces, 0};
    struct outcome done = {0, STAGE_WRITE, 0};
    done.error = options & SCATTER_SPARSE ? write_sparse(fd, c, (size_t)length) : write_range(fd, &c, 0, (size_t)length);
    if (done.error == 0)
        done = set_metadata(fd, meta, options);
    if (done.error == 0 && (options & SCATTER_SYNC)) {
        int synced;
        do
            synced = fdatasync(fd);
        while (synced < 0 && errno == EINTR);
        if (synced < 0)
            done.error = errno, done.stage = STAGE_WRITE;
    }
    if (close(fd) < 0 && done.error == 0)
        done.error = errno, done.stage = STAGE_CLOSE;
    if (done.error == 0 && temporary != name && (done.error = rename_new(dir_fd, temporary, name)) != 0)
        done.stage = STAGE_RENAME;
    if (done.error != 0)
        unlinkat(dir_fd, temporary, 0);
    return done;
}

static void scatter_all(int dir_fd, const char *names, const uint8_t *meta, const uint8_t *counts, size_t count,
                        const struct iovec *pieces, const char *prefix, unsigned options, uint8_t *rows)
{
    char temporary[PREFIX_MAX + 24];
    bool stopped = false;
    for (size_t i = 0; i < count; i++) {
        size_t n = get32(counts + 4 * i);
        struct outcome done = {ECANCELED, STAGE_OPEN, 0};
        if (!stopped) {
            snprintf(temporary, sizeof temporary, "%s%zu", prefix, i);
            done = scatter_one(dir_fd, names, meta + i * META_SIZE, pieces, n, temporary, options);
        }
        /* The next file would meet the same: the target as a whole is what failed. */
        stopped = stopped || done.error == ENOSPC || done.error == EDQUOT || done.error == EROFS;
        put32(rows, (uint32_t)done.error);
        put32(rows + 4, done.stage);
        put32(rows + 8, done.flags);
        names += strlen(names) + 1;
        pieces += n;
        rows += SCATTER_SIZE;
    }
}

/* Counts names; false unless every one ends with a NUL. */
static bool count_names(const char *names, size_t length, size_t *count)
{
    *count = 0;
    for (size_t i = 0; i < length; i++)
        *count += names[i] == '\0';
    return length == 0 || names[length - 1] == '\0';
}

/* Sums the sizes of `count` meta rows; false when the sum overflows. */
static bool sum_lengths(const uint8_t *meta, size_t count, uint64_t *sum)
{
    *sum = 0;
    for (size_t i = 0; i < count; i++)
        if (__builtin_add_overflow(*sum, get64(meta + i * META_SIZE + META_LENGTH), sum))
            return false;
    return true;
}

/* Sums `count` counts; no more than fit into memory, so that the sum cannot overflow. */
static uint64_t sum_counts(const uint8_t *counts, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += get32(counts + 4 * i);
    return sum;
}

/* ------------------------------------------------------------------------------------------------------- Python -- */

#ifndef RESPALDO_NO_PYTHON

/* An integer, or anything with __index__, in [0, 2^64). */
static int to_u64(PyObject *object, void *to)
{
    PyObject *integer = PyNumber_Index(object);
    if (integer == NULL)
        return 0;
    unsigned long long value = PyLong_AsUnsignedLongLong(integer);
    Py_DECREF(integer);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
            PyErr_Clear();
            PyErr_SetString(PyExc_ValueError, "integer outside 0 … 2**64 - 1");
        }
        return 0;
    }
    *(uint64_t *)to = value;
    return 1;
}

/* An integer in [-2^63, 2^63). */
static int to_i64(PyObject *object, void *to)
{
    PyObject *integer = PyNumber_Index(object);
    if (integer == NULL)
        return 0;
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(integer, &overflow);
    Py_DECREF(integer);
    if (value == -1 && overflow == 0 && PyErr_Occurred())
        return 0;
    if (overflow != 0) {
        PyErr_SetString(PyExc_ValueError, "integer outside -2**63 … 2**63 - 1");
        return 0;
    }
    *(int64_t *)to = value;
    return 1;
}

/* A descriptor: an integer in [0, 2^31). AT_FDCWD is none: every path here hangs on a directory that was opened. */
static int to_fd(PyObject *object, void *to)
{
    int64_t value;
    if (!to_i64(object, &value))
        return 0;
    if (value < 0 || value > INT_MAX) {
        PyErr_SetString(PyExc_ValueError, "not a file descriptor");
        return 0;
    }
    *(int *)to = (int)value;
    return 1;
}

static int check_options(int64_t options, int known)
{
    if (options >= 0 && (options & ~(int64_t)known) == 0)
        return 1;
    PyErr_SetString(PyExc_ValueError, "unknown options");
    return 0;
}

static PyObject *value_error(const char *text)
{
    PyErr_SetString(PyExc_ValueError, text);
    return NULL;
}

PyDoc_STRVAR(cut_doc, "cut(data, table, sip_key, minimum, average, maximum, strict, loose, final)\n--\n\n"
                      "Cuts a buffer into content-defined chunks; see respaldo.kernel.");

static PyObject *kernel_cut(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"data", "table", "sip_key", "minimum", "average", "maximum", "strict", "loose", "final", NULL};
    Py_buffer data, table, key;
    PyObject *sizes[3], *result = NULL;
    struct cutter c;
    int final;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*y*y*OOOO&O&p:cut", keywords, &data, &table, &key, &sizes[0], &sizes[1],
                                     &sizes[2], to_u64, &c.strict, to_u64, &c.loose, &final))
        return NULL;
    int64_t minimum, average, maximum;
    if (!to_i64(sizes[0], &minimum) || !to_i64(sizes[1], &average) || !to_i64(sizes[2], &maximum))
        goto end;
    if (table.len != 2048) {
        value_error("table must be 2048 bytes");
        goto end;
    }
    if (key.len != 16) {
        value_error("sip_key must be 16 bytes");
        goto end;
    }
    if (minimum < WINDOW || minimum > average || average > maximum || maximum > INT32_MAX) {
        value_error("64 <= minimum <= average <= maximum < 2**31 does not hold");
        goto end;
    }
    c.minimum = (size_t)minimum;
    c.average = (size_t)average;
    c.maximum = (size_t)maximum;
    for (int i = 0; i < 256; i++)
        c.table[i] = get64((const uint8_t *)table.buf + 8 * i);
    for (int i = 0; i < 2; i++)
        c.key[i] = get64((const uint8_t *)key.buf + 8 * i);

    struct lengths out = {NULL, 0, 0};
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = cut_all(&c, data.buf, (size_t)data.len, final != 0, &out);
    Py_END_ALLOW_THREADS
    if (failed)
        PyErr_NoMemory();
    else
        result = PyBytes_FromStringAndSize((const char *)out.rows, (Py_ssize_t)(out.count * 4));
    free(out.rows);
end:
    PyBuffer_Release(&data);
    PyBuffer_Release(&table);
    PyBuffer_Release(&key);
    return result;
}

PyDoc_STRVAR(scan_doc, "scan(dir_fd, recent_ns, options)\n--\n\n"
                       "Lists and stats a whole directory; see respaldo.kernel.");

static PyObject *kernel_scan(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"dir_fd", "recent_ns", "options", NULL};
    int dir_fd, error;
    int64_t recent_ns, options;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O&O&:scan", keywords, to_fd, &dir_fd, to_i64, &recent_ns, to_i64,
                                     &options) ||
        !check_options(options, SCAN_OPTIONS))
        return NULL;

    struct listing l = {0};
    struct named *sorted = NULL;
    size_t count = 0, names_length = 0;
    char *names = NULL;
    uint8_t *rows = NULL;
    Py_BEGIN_ALLOW_THREADS
    error = scan_directory(&l, dir_fd, recent_ns, (unsigned)options, &sorted, &count);
    if (error == 0) {
        /* Both columns in one block: meta, then ident. */
        names = malloc(l.arena_used + 1);
        rows = malloc((count + 1) * (META_SIZE + IDENT_SIZE));
        if (names == NULL || rows == NULL)
            error = ENOMEM;
    }
    if (error == 0)
        for (size_t i = 0; i < count; i++) {
            size_t length = strlen(sorted[i].name) + 1, row = sorted[i].entry->row;
            memcpy(names + names_length, sorted[i].name, length);
            memcpy(rows + i * META_SIZE, l.meta + row * META_SIZE, META_SIZE);
            memcpy(rows + count * META_SIZE + i * IDENT_SIZE, l.ident + row * IDENT_SIZE, IDENT_SIZE);
            names_length += length;
        }
    free(sorted);
    listing_free(&l);
    Py_END_ALLOW_THREADS

    PyObject *result = NULL;
    if (error == ENOMEM) {
        PyErr_NoMemory();
    } else if (error != 0) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        result = Py_BuildValue("(y#y#y#)", names, (Py_ssize_t)names_length, (const char *)rows,
                               (Py_ssize_t)(count * META_SIZE), (const char *)rows + count * META_SIZE,
                               (Py_ssize_t)(count * IDENT_SIZE));
    }
    free(names);
    free(rows);
    return result;
}

PyDoc_STRVAR(gather_doc, "gather(dir_fd, names, meta, ident, out)\n--\n\n"
                         "Reads many regular files of one directory; see respaldo.kernel.");

static PyObject *kernel_gather(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"dir_fd", "names", "meta", "ident", "out", NULL};
    int dir_fd;
    Py_buffer names, meta, ident, out = {0};
    PyObject *into, *result = NULL;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&y*y*y*O:gather", keywords, to_fd, &dir_fd, &names, &meta, &ident, &into))
        return NULL;
    if (PyObject_GetBuffer(into, &out, PyBUF_WRITABLE) < 0) /* rather than w*, which makes a TypeError of every error */
        goto end;
    size_t count = (size_t)meta.len / META_SIZE, named;
    uint64_t sum;
    if (!count_names(names.buf, (size_t)names.len, &named) || named != count || (size_t)meta.len % META_SIZE != 0 ||
        (size_t)ident.len % IDENT_SIZE != 0 || (size_t)ident.len / IDENT_SIZE != count)
        value_error("names, meta and ident do not hold the same number of rows");
    else if (!sum_lengths(meta.buf, count, &sum) || sum > (uint64_t)out.len)
        value_error("out is shorter than the files together");
    else {
        uint8_t *rows = malloc((count + 1) * GATHER_SIZE);
        if (rows == NULL) {
            PyErr_NoMemory();
        } else {
            Py_BEGIN_ALLOW_THREADS
            gather_all(dir_fd, names.buf, meta.buf, ident.buf, count, out.buf, rows);
            Py_END_ALLOW_THREADS
            result = PyBytes_FromStringAndSize((const char *)rows, (Py_ssize_t)(count * GATHER_SIZE));
        }
        free(rows);
    }
end:
    PyBuffer_Release(&out);
    PyBuffer_Release(&names);
    PyBuffer_Release(&meta);
    PyBuffer_Release(&ident);
    return result;
}

PyDoc_STRVAR(scatter_doc, "scatter(dir_fd, names, meta, counts, pieces, prefix, options)\n--\n\n"
                          "Creates many regular files in one directory; see respaldo.kernel.");

static PyObject *kernel_scatter(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"dir_fd", "names", "meta", "counts", "pieces", "prefix", "options", NULL};
    int dir_fd;
    Py_buffer names, meta, counts, prefix;
    PyObject *sequence, *result = NULL;
    int64_t options;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&y*y*y*Oy*O&:scatter", keywords, to_fd, &dir_fd, &names, &meta, &counts,
                                     &sequence, &prefix, to_i64, &options))
        return NULL;
    size_t count = (size_t)meta.len / META_SIZE, named, held = 0, total = 0;
    char prefix_text[PREFIX_MAX + 1] = {0};
    Py_buffer *views = NULL;
    struct iovec *pieces = NULL;
    uint8_t *rows = NULL;
    if (!check_options(options, SCATTER_OPTIONS))
        goto end;
    if (!count_names(names.buf, (size_t)names.len, &named) || named != count || (size_t)meta.len % META_SIZE != 0 ||
        (size_t)counts.len % 4 != 0 || (size_t)counts.len / 4 != count) {
        value_error("names, meta and counts do not hold the same number of rows");
        goto end;
    }
    if (prefix.len == 0 || prefix.len > PREFIX_MAX || memchr(prefix.buf, '/', (size_t)prefix.len) != NULL ||
        memchr(prefix.buf, '\0', (size_t)prefix.len) != NULL) {
        value_error("prefix must be 1 to 200 bytes without slash and NUL");
        goto end;
    }
    memcpy(prefix_text, prefix.buf, (size_t)prefix.len);
    if (!PySequence_Check(sequence)) {
        PyErr_SetString(PyExc_TypeError, "pieces must be a sequence of buffers");
        goto end;
    }
    Py_ssize_t length = PySequence_Size(sequence);
    if (length < 0)
        goto end;
    total = (size_t)length;
    if (sum_counts(counts.buf, count) != total) {
        value_error("counts do not add up to the number of pieces");
        goto end;
    }
    views = calloc(total + 1, sizeof *views);
    pieces = calloc(total + 1, sizeof *pieces);
    rows = malloc((count + 1) * SCATTER_SIZE);
    if (views == NULL || pieces == NULL || rows == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    for (; held < total; held++) {
        PyObject *piece = PySequence_GetItem(sequence, (Py_ssize_t)held);
        if (piece == NULL)
            goto end;
        int got = PyObject_GetBuffer(piece, &views[held], PyBUF_SIMPLE);
        Py_DECREF(piece); /* the view keeps it */
        if (got < 0)
            goto end;
        pieces[held] = (struct iovec){views[held].buf, (size_t)views[held].len};
    }
    Py_BEGIN_ALLOW_THREADS
    scatter_all(dir_fd, names.buf, meta.buf, counts.buf, count, pieces, prefix_text, (unsigned)options, rows);
    Py_END_ALLOW_THREADS
    result = PyBytes_FromStringAndSize((const char *)rows, (Py_ssize_t)(count * SCATTER_SIZE));
end:
    while (held > 0)
        PyBuffer_Release(&views[--held]);
    free(views);
    free(pieces);
    free(rows);
    PyBuffer_Release(&names);
    PyBuffer_Release(&meta);
    PyBuffer_Release(&counts);
    PyBuffer_Release(&prefix);
    return result;
}

#define VERB(name)                                                                                                     \
    {                                                                                                                  \
        #name, (PyCFunction)(void (*)(void))kernel_##name, METH_VARARGS | METH_KEYWORDS, name##_doc                    \
    }

static PyMethodDef methods[] = {VERB(cut), VERB(scan), VERB(gather), VERB(scatter), {NULL, NULL, 0, NULL}};

static int module_exec(PyObject *module)
{
    return PyModule_AddIntConstant(module, "REVISION", KERNEL_REVISION);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)module_exec}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "respaldo.kernel._native", "The verbs of respaldo.kernel in C.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}

#endif
