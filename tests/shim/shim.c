/* What disks, kernels and clocks do to a process, done to it on purpose: preloaded into a node by the tests.
 *
 *   KLAXON_SHIM_CLOCK=FILE     CLOCK_REALTIME is off by the seconds that FILE holds, read anew each time.
 *   KLAXON_SHIM_SYNC_FAIL=FILE while FILE exists, fdatasync and fsync of a segment fail with EIO.
 *   KLAXON_SHIM_SYNC_LIES=1    fdatasync and fsync of a segment do nothing and say that all went well.
 *   KLAXON_SHIM_FULL=FILE      FILE holds two numbers, N and M: N writes to a segment go well, the M behind them meet a full disk.
 *                              Read once, as below.
 *   KLAXON_SHIM_NODES=DIR      for a process with several nodes: while a file NAME.full stands beside a node's folder NAME, writes to its
 *                              segments meet a full disk, and NAME.met says that one did; and for threads that have the name of a file in DIR, CLOCK_REALTIME is
 *                              off by the seconds in it.
 *   KLAXON_SHIM_KILL=FILE      FILE holds two numbers, N and PERCENT: of the N-th write to a segment from now on only so many
 *                              percent are written, then the process is killed. 100 kills it right behind the sync of that
 *                              write. The file is read once, at the first write after it has appeared, and removed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int is_segment(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 4) return 0;
    path[length] = 0;
    return strcmp(path + length - 4, ".seg") == 0;
}

static int kill_after = -1, kill_percent = -1, kill_at_sync = 0;
static int full_after = -1, full_times = 0;

/* Takes the two numbers of an order that has appeared, unless one is being carried out. */
static void look_for(const char *name, int *first, int *second) {
    const char *file = getenv(name);
    if (*first >= 0 || !file) return;
    FILE *order = fopen(file, "r");
    if (!order) return;
    if (fscanf(order, "%d %d", first, second) != 2) *first = -1;
    fclose(order);
    unlink(file);
}

/* Whether the disk of the node whose segment this is has no room. */
static int is_full_node(int fd) {
    if (!getenv("KLAXON_SHIM_NODES")) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 8);
    if (length < 0) return 0;
    path[length] = 0;
    char *journal = strstr(path, "/journal/");
    if (!journal) return 0;
    strcpy(journal, ".full");
    if (access(path, F_OK) != 0) return 0;
    strcpy(journal, ".met");
    FILE *met = fopen(path, "w");
    if (met) fclose(met);
    return 1;
}

/* Whether this write is to meet a full disk. */
static int is_full(int fd) {
    if (!is_segment(fd)) return 0;
    if (is_full_node(fd)) return 1;
    look_for("KLAXON_SHIM_FULL", &full_after, &full_times);
    if (full_after < 0) return 0;
    if (full_after > 0) {
        full_after--;
        return 0;
    }
    if (full_times-- > 0) return 1;
    full_after = -1;
    return 0;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    pause();
}

typedef ssize_t (*write_fn)(int, const void *, size_t);
typedef ssize_t (*pwrite_fn)(int, const void *, size_t, off_t);

/* How much of this write is to be done before the process dies; -1 if it is to live. */
static ssize_t share(int fd, size_t count) {
    if (!is_segment(fd)) return -1;
    look_for("KLAXON_SHIM_KILL", &kill_after, &kill_percent);
    if (kill_after < 0 || kill_after-- > 0) return -1;
    kill_after = -1;
    if (kill_percent >= 100) {
        kill_at_sync = 1;
        return -1;
    }
    return (ssize_t)(count * (size_t)kill_percent / 100);
}

ssize_t write(int fd, const void *buffer, size_t count) {
    static write_fn real;
    if (!real) real = (write_fn)dlsym(RTLD_NEXT, "write");
    if (is_full(fd)) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t part = share(fd, count);
    if (part < 0) return real(fd, buffer, count);
    if (part > 0) real(fd, buffer, (size_t)part);
    die();
    return -1;
}

static ssize_t shimmed_pwrite(int fd, const void *buffer, size_t count, off_t offset) {
    static pwrite_fn real;
    if (!real) real = (pwrite_fn)dlsym(RTLD_NEXT, "pwrite64");
    if (is_full(fd)) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t part = share(fd, count);
    if (part < 0) return real(fd, buffer, count, offset);
    if (part > 0) real(fd, buffer, (size_t)part, offset);
    die();
    return -1;
}

ssize_t pwrite64(int fd, const void *buffer, size_t count, off_t offset) { return shimmed_pwrite(fd, buffer, count, offset); }
ssize_t pwrite(int fd, const void *buffer, size_t count, off_t offset) { return shimmed_pwrite(fd, buffer, count, offset); }

static int shimmed_sync(int fd, const char *name) {
    const char *file = getenv("KLAXON_SHIM_SYNC_FAIL");
    if (file && is_segment(fd) && access(file, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    if (getenv("KLAXON_SHIM_SYNC_LIES") && is_segment(fd)) return 0;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int outcome = real(fd);
    if (kill_at_sync && is_segment(fd)) die();
    return outcome;
}

int fdatasync(int fd) { return shimmed_sync(fd, "fdatasync"); }
int fsync(int fd) { return shimmed_sync(fd, "fsync"); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int outcome = real(clock, now);
    const char *file = getenv("KLAXON_SHIM_CLOCK");
    char path[512], name[17] = "";
    const char *nodes = getenv("KLAXON_SHIM_NODES");
    if (nodes && clock == CLOCK_REALTIME && prctl(PR_GET_NAME, name) == 0 && strncmp(name, "node-", 5) == 0) {
        snprintf(path, sizeof path, "%s/%s", nodes, name);
        file = path;
    }
    if (outcome == 0 && clock == CLOCK_REALTIME && file) {
        FILE *offset = fopen(file, "r");
        long seconds = 0;
        if (offset) {
            if (fscanf(offset, "%ld", &seconds) == 1) now->tv_sec += seconds;
            fclose(offset);
        }
    }
    return outcome;
}
