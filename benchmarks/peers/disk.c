/* The yardstick: what the disk takes from a program that does nothing else.
 *
 * disk FOLDER THREADS SIZE MESSAGES SECONDS
 *
 * Each thread has a Maildir of its own in FOLDER and stores messages of SIZE octets there, one
 * after the other, each durable before the next begins: write in tmp/, fsync, rename to new/, fsync
 * of new/. No message begins after SECONDS, or beyond MESSAGES of all threads together. Standard
 * output has one line: messages, seconds, user and system CPU seconds, milliseconds a message in
 * the median and at 99 %, KiB resident at most.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* No write takes more at a time, and none needs more memory. */
#define PIECE (1L << 20)

struct worker {
    pthread_t thread;
    int tmp, new;
    double *times;
    long count, room;
};

static long size;
static atomic_long left;
static double deadline;
static char *octets;

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static int directory(int base, const char *name)
{
    if (mkdirat(base, name, 0700) < 0)
        fail(name);
    int made = openat(base, name, O_RDONLY | O_DIRECTORY);
    if (made < 0)
        fail(name);
    return made;
}

static void store(struct worker *worker)
{
    char name[32];
    snprintf(name, sizeof name, "%ld", worker->count);
    int file = openat(worker->tmp, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (file < 0)
        fail("open");
    for (long written = 0; written < size;) {
        long rest = size - written;
        long done = write(file, octets, rest < PIECE ? rest : PIECE);
        if (done < 0)
            fail("write");
        written += done;
    }
    if (fsync(file) < 0)
        fail("fsync of a file");
    if (close(file) < 0)
        fail("close");
    if (renameat(worker->tmp, name, worker->new, name) < 0)
        fail("rename");
    if (fsync(worker->new) < 0)
        fail("fsync of a directory");
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    for (;;) {
        double begin = now();
        if (begin >= deadline || atomic_fetch_sub(&left, 1) < 1)
            return NULL;
        store(worker);
        if (worker->count == worker->room) {
            worker->room = 2 * worker->room + 64;
            worker->times = realloc(worker->times, worker->room * sizeof *worker->times);
            if (!worker->times)
                fail("memory");
        }
        worker->times[worker->count++] = now() - begin;
    }
}

static int order(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static double percentile(const double *times, long count, int percent)
{
    long place = (count * percent + 99) / 100;
    return times[place > 0 ? place - 1 : 0] * 1000;
}

/* Not ru_maxrss, which is never less than that of the process that this one was forked from. */
static long peak_kib(void)
{
    char line[256];
    long kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    if (!status)
        fail("/proc/self/status");
    while (fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            break;
    fclose(status);
    return kib;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: disk FOLDER THREADS SIZE MESSAGES SECONDS\n");
        return 2;
    }
    int folder = open(argv[1], O_RDONLY | O_DIRECTORY);
    if (folder < 0)
        fail(argv[1]);
    long threads = atol(argv[2]);
    size = atol(argv[3]);
    left = atol(argv[4]);
    octets = malloc(PIECE);
    struct worker *workers = calloc(threads, sizeof *workers);
    if (!octets || !workers)
        fail("memory");
    memset(octets, 'x', PIECE);
    for (long index = 0; index < threads; index++) {
        char name[32];
        snprintf(name, sizeof name, "u%ld", index);
        int base = directory(folder, name);
        workers[index].tmp = directory(base, "tmp");
        workers[index].new = directory(base, "new");
        if (fsync(base) < 0 || close(base) < 0)
            fail(name);
    }
    if (fsync(folder) < 0)
        fail(argv[1]);

    double begin = now();
    deadline = begin + atof(argv[5]);
    for (long index = 0; index < threads; index++)
        if ((errno = pthread_create(&workers[index].thread, NULL, work, &workers[index])))
            fail("thread");
    long count = 0;
    for (long index = 0; index < threads; index++) {
        pthread_join(workers[index].thread, NULL);
        count += workers[index].count;
    }
    double seconds = now() - begin;

    if (!count) {
        fprintf(stderr, "no message was stored\n");
        return 1;
    }
    double *times = malloc(count * sizeof *times);
    if (!times)
        fail("memory");
    long filled = 0;
    for (long index = 0; index < threads; index++) {
        memcpy(times + filled, workers[index].times, workers[index].count * sizeof *times);
        filled += workers[index].count;
    }
    qsort(times, count, sizeof *times, order);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec
                 + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("%ld %.6f %.6f %.6f %.6f %ld\n", count, seconds, cpu, percentile(times, count, 50),
           percentile(times, count, 99), peak_kib());
    return 0;
}
