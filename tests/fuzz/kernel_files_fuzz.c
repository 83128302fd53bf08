/*
 * Fuzzes `scatter`, `scan` and `gather` as a circle: files of any names and pieces are written to the working directory,
 * which has to be empty, listed, and read back. What scatter says it wrote must be there, whole, and nothing else.
 *
 * An input is a byte of options and a list of files: a byte for the length of the name, the name, a byte for the number
 * of pieces (its high bit makes the size wrong), and for each piece a byte of kind and two of length. Kind 0 is zeros, 1
 * a byte that repeats, 2 zeros up to where a block of the file ends, any other bytes of the input.
 */
#define RESPALDO_NO_PYTHON 1
#include "../../src/respaldo/kernel/native.c"

enum { FILES = 24, PIECES = 70, NAME = 20 };

struct input {
    const uint8_t *at;
    size_t left;
};

struct batch {
    size_t count, pieces;
    char names[FILES * (NAME + 1)];
    size_t names_length;
    const char *name[FILES];
    uint8_t meta[FILES * META_SIZE], counts[FILES * 4];
    struct iovec piece[FILES * PIECES];
    uint8_t *content[FILES]; /* the pieces, joined */
    size_t length[FILES];
};

static void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

static unsigned take(struct input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

/* Memory of exactly this length, so that an access beyond its end is seen. */
static void *exactly(const void *from, size_t length)
{
    void *made = malloc(length);
    check(made != NULL || length == 0, "memory");
    if (from != NULL && length > 0)
        memcpy(made, from, length);
    return made;
}

static struct iovec read_piece(struct input *in, size_t before)
{
    unsigned kind = take(in) % 8;
    size_t length = take(in) | (size_t)(take(in) & 0x0f) << 8;
    if (kind == 2)
        length += HOLE - (before + length) % HOLE;
    uint8_t *made = exactly(NULL, length);
    if (length > 0)
        memset(made, kind == 1 ? 0xaa : 0, length);
    for (size_t i = 0; kind > 2 && i < length && in->left > 0; i++)
        made[i] = (uint8_t)take(in);
    return (struct iovec){made, length};
}

static void read_file(struct input *in, struct batch *b)
{
    size_t at = b->count++, length = take(in) % (NAME + 1);
    char *name = b->names + b->names_length;
    for (size_t i = 0; i < length; i++) {
        char c = (char)take(in);
        name[i] = c != '\0' ? c : '.';
    }
    name[length] = '\0';
    b->names_length += length + 1;
    b->name[at] = name;
    unsigned header = take(in), pieces = header % (PIECES + 1);
    for (unsigned i = 0; i < pieces; i++) {
        struct iovec piece = read_piece(in, b->length[at]);
        b->content[at] = realloc(b->content[at], b->length[at] + piece.iov_len + 1);
        check(b->content[at] != NULL, "memory");
        if (piece.iov_len > 0)
            memcpy(b->content[at] + b->length[at], piece.iov_base, piece.iov_len);
        b->length[at] += piece.iov_len;
        b->piece[b->pieces++] = piece;
    }
    uint8_t *meta = b->meta + at * META_SIZE;
    put32(meta + META_MODE, S_IFREG | 0600 | (header & 0x40 ? S_ISUID : 0));
    put32(meta + META_UID, geteuid());
    put32(meta + META_GID, getegid());
    put64(meta + META_LENGTH, b->length[at] + (header >> 7));
    put64(meta + META_MTIME, (uint64_t)(header << 24) - 1);
    put32(b->counts + 4 * at, pieces);
}

static void read_back(int dir, const struct batch *b, const uint8_t *rows)
{
    struct listing l = {0};
    struct named *sorted = NULL;
    size_t count = 0, made = 0, total = 0, names_length = 0;
    check(scan_directory(&l, dir, INT64_MAX, 0, &sorted, &count) == 0, "the directory can be listed");
    for (size_t i = 0; i < b->count; i++)
        made += get32(rows + i * SCATTER_SIZE) == 0;
    check(count == made, "there are as many files as were made");

    char *names = exactly(NULL, l.arena_used);
    uint8_t *meta = exactly(NULL, count * META_SIZE), *ident = exactly(NULL, count * IDENT_SIZE);
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(sorted[i].name) + 1, row = sorted[i].entry->row;
        check(i == 0 || strcmp(sorted[i - 1].name, sorted[i].name) < 0, "names ascend");
        memcpy(names + names_length, sorted[i].name, length);
        memcpy(meta + i * META_SIZE, l.meta + row * META_SIZE, META_SIZE);
        memcpy(ident + i * IDENT_SIZE, l.ident + row * IDENT_SIZE, IDENT_SIZE);
        names_length += length;
    }
    size_t named;
    uint64_t sum;
    check(count_names(names, names_length, &named) && named == count, "names are counted");
    check(sum_lengths(meta, count, &sum), "sizes are summed");
    uint8_t *out = exactly(NULL, (size_t)sum), *found = exactly(NULL, count * GATHER_SIZE);
    gather_all(dir, names, meta, ident, count, out, found);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = found + i * GATHER_SIZE;
        size_t at = 0;
        while (at < b->count && (get32(rows + at * SCATTER_SIZE) != 0 || strcmp(b->name[at], sorted[i].name) != 0))
            at++;
        check(at < b->count, "every file was asked for");
        check(get64(row) == b->length[at] && get32(row + 8) == 0, "every file is read whole");
        check((get32(row + 12) & ~(uint32_t)GATHER_XATTRS) == 0, "and did not change");
        check(b->length[at] == 0 || memcmp(out + total, b->content[at], b->length[at]) == 0, "files hold their pieces");
        check(get64(meta + i * META_SIZE + META_MTIME) == get64(b->meta + at * META_SIZE + META_MTIME), "and their time");
        total += b->length[at];
        check(unlinkat(dir, sorted[i].name, 0) == 0, "files can be removed");
    }
    free(names);
    free(meta);
    free(ident);
    free(out);
    free(found);
    free(sorted);
    listing_free(&l);
}

/* Directories are small here; what grows with them is tried by itself. */
static void grow_listing(struct input in)
{
    struct listing l = {0};
    char name[256];
    memset(name, 'n', sizeof name);
    for (size_t i = 0; i < 1500 && in.left > 0; i++)
        check(listing_add(&l, name, take(&in), i, 0) == 0, "memory");
    for (size_t i = 0, at = 0; i < l.count; i++) {
        check(l.entries[i].name == at && l.entries[i].ino == i, "names lie one after another");
        at += strlen(l.arena + at) + 1;
        check(at <= l.arena_used && l.arena_used <= l.arena_room, "within the arena");
    }
    listing_free(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    struct input in = {input, size};
    struct batch *b = calloc(1, sizeof *b);
    int dir = open(".", O_RDONLY | O_DIRECTORY);
    check(b != NULL && dir >= 0, "a place to work in");
    unsigned options = take(&in) & SCATTER_OPTIONS;
    grow_listing(in);
    while (in.left > 0 && b->count < FILES)
        read_file(&in, b);

    char *names = exactly(b->names, b->names_length);
    uint8_t *meta = exactly(b->meta, b->count * META_SIZE), *counts = exactly(b->counts, b->count * 4);
    struct iovec *pieces = exactly(b->piece, b->pieces * sizeof *pieces);
    uint8_t *rows = exactly(NULL, b->count * SCATTER_SIZE);
    scatter_all(dir, names, meta, counts, b->count, pieces, ".t", options, rows);
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *row = rows + i * SCATTER_SIZE;
        bool wrong = get64(meta + i * META_SIZE + META_LENGTH) != b->length[i] || !name_is_safe(b->name[i]);
        check((get32(row + 4) == STAGE_CHECK) == wrong, "rows that contradict themselves are refused, and no others");
        check((get32(row) == 0) == (get32(row + 4) == STAGE_OK), "an error has a stage");
    }
    read_back(dir, b, rows);

    free(names);
    free(meta);
    free(counts);
    free(pieces);
    free(rows);
    for (size_t i = 0; i < b->pieces; i++)
        free(b->piece[i].iov_base);
    for (size_t i = 0; i < b->count; i++)
        free(b->content[i]);
    free(b);
    close(dir);
    return 0;
}
