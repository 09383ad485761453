/* Loaded before libc into a broker under test: flushes of its commit log take long or fail while a file says so. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int fdatasync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (is_log(fd)) {
        struct timespec step = {0, 10 * 1000 * 1000};
        for (long waited = 0; waited < wanted(); waited += 10)
            nanosleep(&step, NULL);
        if (wanted() < 0) {
            errno = EIO;
            return -1;
        }
    }
    return next(fd);
}
