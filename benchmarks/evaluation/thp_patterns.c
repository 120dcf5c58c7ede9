// What `python -m benchmarks.evaluation thp` measures: PATTERN MIB SPARSE_MIB ADVISED.
//
// Prints "ready PID", and then for each round its CPU time in ns. SPARSE_MIB are reserved beside it, of which one page in
// 16 is written once: what most programs have, and what huge pages fill up.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define HUGE (2ul << 20)
#define PAGE 4096ul
#define WIDE 68ul
#define PLANE (WIDE * WIDE) // cells of a plane of the grid: no power of two, which all would meet in one set of the cache
#define HOT_OF_BLOCK (HUGE / 8)

static char *area(size_t bytes, int advised) {
    char *start = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) exit(3);
    start += -(uintptr_t)start % HUGE;
    if (advised && madvise(start, bytes, MADV_HUGEPAGE)) exit(4);
    return start;
}

static int64_t cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

// A seven-point stencil from one grid into another, along the axis whose neighbours are a plane apart.
static void stencil(const double *from, double *to, size_t planes) {
    for (size_t cell = WIDE + 1; cell < PLANE - WIDE - 1; cell++)
        for (size_t plane = 1; plane + 1 < planes; plane++) {
            const double *at = from + plane * PLANE + cell;
            to[plane * PLANE + cell] = (at[0] + at[-1] + at[1] + at[-(long)WIDE] + at[WIDE] + at[-(long)PLANE] + at[PLANE]) / 7;
        }
}

static uint64_t state = 88172645463325252ull;
static uint64_t next(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    size_t bytes = strtoul(argv[2], NULL, 10) << 20, sparse_bytes = strtoul(argv[3], NULL, 10) << 20;
    int advised = atoi(argv[4]);
    prctl(PR_SET_THP_DISABLE, 1, 2, 0, 0); // where huge pages are always on: only if advised (Linux 6.18)
    char *sparse = area(sparse_bytes, advised), *hot = area(bytes, advised);
    for (size_t at = 0; at < sparse_bytes; at += 16 * PAGE) sparse[at] = 1;
    int eighth = !strcmp(argv[1], "eighth");
    for (size_t at = 0; at < bytes; at += PAGE)
        if (!eighth || at % HUGE < HOT_OF_BLOCK) hot[at] = 1;
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (uint64_t sum = 0;; fprintf(stderr, "%s", sum == 42 ? "" : "")) {
        int64_t began_ns = cpu_ns();
        if (!strcmp(argv[1], "stencil")) {
            size_t planes = bytes / 2 / sizeof(double) / PLANE;
            stencil((double *)hot, (double *)hot + planes * PLANE, planes);
        } else {
            for (int n = 0; n < 8000000; n++) {
                uint64_t pick = next() % bytes;
                if (eighth) pick = (pick & ~(HUGE - 1)) + pick % HOT_OF_BLOCK;
                sum += hot[pick]++;
            }
        }
        printf("%lld\n", (long long)(cpu_ns() - began_ns));
        fflush(stdout);
    }
}
