/*
 * Fuzzes `cut`: any content under any parameters is compared with the rule of native.c's head, applied place by place
 * without a rolling hash, and cut once more in two parts, which must give the same cuts.
 *
 * The first 48 bytes of an input choose keys and parameters, the rest is the content.
 */
#define RESPALDO_NO_PYTHON 1
#include "../../src/respaldo/kernel/native.c"

enum { HEAD = 48 };

static void check(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

/* gear(p) by its definition. */
static uint64_t gear_at(const struct cutter *c, const uint8_t *end)
{
    uint64_t h = 0;
    for (int i = 0; i < WINDOW; i++)
        h += c->table[end[-1 - i]] << i;
    return h;
}

static size_t expected(const struct cutter *c, const uint8_t *data, size_t length, bool final)
{
    if (length <= c->minimum)
        return final ? length : 0;
    for (size_t at = c->minimum; at < length && at < c->maximum; at++)
        if (gear_at(c, data + at) >> 56 == 0 &&
            siphash_window(c->key, data + at - WINDOW) < (at < c->average ? c->strict : c->loose))
            return at;
    if (length >= c->maximum)
        return c->maximum;
    return final ? length : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size < HEAD)
        return 0;
    struct cutter c;
    uint64_t seed = get64(input);
    unsigned narrow = input[40] % 4;
    for (int i = 0; i < 256; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        /* Narrow tables make candidates frequent, or every place one. */
        c.table[i] = narrow == 0 ? seed : (seed >> (narrow * 20)) & ~(uint64_t)(narrow == 3 ? -1 : 0);
    }
    c.key[0] = get64(input + 8);
    c.key[1] = get64(input + 16);
    c.strict = get64(input + 24);
    c.loose = get64(input + 32);
    c.minimum = WINDOW + input[41];
    c.average = c.minimum + (input[40] & 4 ? get32(input + 42) % 1024 : 0);
    c.maximum = c.average + (input[40] & 8 ? get32(input + 43) % 2048 : 0);
    bool final = input[47] & 1;

    /* A copy of exactly this length, so that a read beyond its end is seen. */
    size_t length = size - HEAD;
    uint8_t *data = malloc(length + 1);
    check(data != NULL, "memory");
    data = realloc(data, length > 0 ? length : 1);
    memcpy(data, input + HEAD, length);

    struct lengths at_once = {NULL, 0, 0}, in_parts = {NULL, 0, 0};
    check(cut_all(&c, data, length, final, &at_once) == 0, "memory");
    size_t at = 0;
    for (size_t i = 0; i < at_once.count; i++) {
        size_t chunk = get32((uint8_t *)&at_once.rows[i]);
        check(chunk == expected(&c, data + at, length - at, final), "each chunk ends where the rule says");
        at += chunk;
    }
    check(at <= length && (!final || at == length), "nothing is left over at the end");
    check(expected(&c, data + at, length - at, final) == 0, "no chunk is missed");

    size_t first = get32(input + 43) % (length + 1), done = 0;
    if (input[40] & 16 && c.minimum < length)
        first = c.minimum;
    check(cut_all(&c, data, first, false, &in_parts) == 0, "memory");
    for (size_t i = 0; i < in_parts.count; i++)
        done += get32((uint8_t *)&in_parts.rows[i]);
    check(done <= first, "chunks lie in what was given");
    check(cut_all(&c, data + done, length - done, final, &in_parts) == 0, "memory");
    check(in_parts.count == at_once.count, "parts get as many chunks as the whole");
    if (at_once.count > 0)
        check(memcmp(in_parts.rows, at_once.rows, at_once.count * 4) == 0, "parts get the cuts of the whole");

    free(at_once.rows);
    free(in_parts.rows);
    free(data);
    return 0;
}
