/*
 * Runs a harness without libFuzzer: random inputs for a number of seconds, or the files that are named.
 *
 *     harness SECONDS [SEED]        harness -- FILE…
 *
 * Each input has a seed of its own, one more than the input before. When one fails, its seed is printed, and
 * `harness 0 SEED` tries it again.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

enum { SIZE_MAX_BYTES = 16384 };

static uint64_t state, current;

/* The last words of a run that fails, in a signal handler or before a sanitizer ends the process. */
static void tell(void)
{
    char text[64];
    int length = snprintf(text, sizeof text, "failed with seed %llu\n", (unsigned long long)current);
    if (length > 0 && write(STDERR_FILENO, text, (size_t)length) < 0)
        _exit(1);
}

static void on_abort(int number)
{
    tell();
    signal(number, SIG_DFL);
    raise(number);
}

#if defined(__SANITIZE_ADDRESS__)
void __sanitizer_set_death_callback(void (*callback)(void));
#else
#define __sanitizer_set_death_callback(callback) (void)(callback)
#endif

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Noise, runs, repetitions and small numbers, one after another: what a chunker, a name or a length may stumble over. */
static size_t draw_input(uint8_t *input)
{
    size_t size = draw() % (draw() % 4 == 0 ? SIZE_MAX_BYTES : 1024), at = 0;
    while (at < size) {
        size_t stretch = draw() % (draw() % 3 == 0 ? 4096 : 64) + 1, period = draw() % 70 + 1;
        unsigned kind = draw() % 4;
        uint8_t byte = (uint8_t)draw();
        for (size_t i = 0; i < stretch && at < size; i++, at++) {
            if (kind == 0)
                input[at] = byte;
            else if (kind == 1 && at >= period)
                input[at] = input[at - period];
            else if (kind == 2)
                input[at] = (uint8_t)(draw() % 8);
            else
                input[at] = (uint8_t)draw();
        }
    }
    return size;
}

static int run_file(const char *path)
{
    static uint8_t input[1 << 20];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    size_t size = fread(input, 1, sizeof input, file);
    fclose(file);
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (copy == NULL)
        return 1;
    memcpy(copy, input, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--") == 0) {
        int failed = 0;
        for (int i = 2; i < argc; i++)
            failed |= run_file(argv[i]);
        return failed;
    }
    double seconds = argc > 1 ? atof(argv[1]) : 10;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
    struct timespec start, now;
    uint64_t runs = 0;
    uint8_t buffer[SIZE_MAX_BYTES];
    signal(SIGABRT, on_abort);
    __sanitizer_set_death_callback(tell);
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        current = seed + runs;
        state = current * UINT64_C(0x9e3779b97f4a7c15) | 1;
        size_t size = draw_input(buffer);
        uint8_t *input = malloc(size > 0 ? size : 1);
        if (input == NULL)
            return 1;
        memcpy(input, buffer, size);
        LLVMFuzzerTestOneInput(input, size);
        free(input);
        runs++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9 < seconds);
    printf("%llu inputs from seed %llu\n", (unsigned long long)runs, (unsigned long long)seed);
    return 0;
}
