/* Loaded before libc into a broker under test: flushes of its commit log take long or fail, and its wall clock is off, while
 * files say so. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The milliseconds a flush is to take, -1 when it is to fail, 0 when all is well. */
static long wanted(void) {
    const char *path = getenv("RAFTMQ_TEST_FLUSH");
    char text[32];
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return 0;
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    text[size > 0 ? size : 0] = 0;
    return strtol(text, NULL, 10);
}

static int is_log(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    path[size > 0 ? size : 0] = 0;
    return strstr(path, "/commitlog/") != NULL;
}

/* Whether the flush is to fail, after the time that it is to take. */
static int hampered(int fd) {
    if (!is_log(fd))
        return 0;
    struct timespec step = {0, 10 * 1000 * 1000};
    for (long waited = 0; waited < wanted(); waited += 10)
        nanosleep(&step, NULL);
    if (wanted() >= 0)
        return 0;
    errno = EIO;
    return 1;
}

int fdatasync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return hampered(fd) ? -1 : next(fd);
}

int fsync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return hampered(fd) ? -1 : next(fd);
}

/* How far the wall clock is off, in nanoseconds. Looked at too often to open a file each time. */
static long long none;
static volatile long long *shift = &none;

__attribute__((constructor)) static void look_at_the_clock(void) {
    const char *path = getenv("RAFTMQ_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        shift = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = next(clock, time);
    if (failed || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
        return failed;
    long long off = *shift, nanos = time->tv_nsec + off % 1000000000;
    time->tv_sec += off / 1000000000;
    if (nanos < 0)
        nanos += 1000000000, time->tv_sec--;
    if (nanos >= 1000000000)
        nanos -= 1000000000, time->tv_sec++;
    time->tv_nsec = nanos;
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone; /* as libc, which knows none either */
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    if (place)
        *place = now.tv_sec;
    return now.tv_sec;
}
