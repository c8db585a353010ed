/* Preloaded into picamera2 on a machine without /dev/dma_heap: buffers of memfd instead.
 *
 * picamera2 allocates its frames from a DMA heap, which only boards with such drivers have. Here
 * opening the heap gives a memfd, its ioctl another one of the asked size, and cache
 * synchronisation, which memory of one processor does not need, succeeds. And libcamera's virtual
 * camera (0.7) makes pictures as fast as it can: it maps each buffer from its own thread before it
 * fills it, so that call is where it is slowed down to one every FAKE_FRAME_US.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* The function of this name that this one stands before. */
#define NEXT(type, name) \
    static __typeof__(type) *next; \
    if (!next) next = dlsym(RTLD_NEXT, name)

static int is_heap(const char *path) { return path && !strncmp(path, "/dev/dma_heap/", 14); }

static int is_named(int fd, const char *name)
{
    char link[64], target[64];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, target, sizeof target - 1);
    if (length < 0) return 0;
    target[length] = 0;
    return !strncmp(target, "/memfd:", 7) && !strncmp(target + 7, name, strlen(name));
}

static int open_heap(int flags)
{
    return memfd_create("fake_heap", flags & O_CLOEXEC ? MFD_CLOEXEC : 0);
}

#define OPEN(name)                                                    \
    int name(const char *path, int flags, ...)                        \
    {                                                                 \
        NEXT(int(const char *, int, ...), #name);                 \
        mode_t mode = 0;                                              \
        va_list rest;                                                 \
        if (flags & (O_CREAT | O_TMPFILE)) {                          \
            va_start(rest, flags);                                    \
            mode = va_arg(rest, mode_t);                              \
            va_end(rest);                                             \
        }                                                             \
        return is_heap(path) ? open_heap(flags) : next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                  \
    int name(int folder, const char *path, int flags, ...)            \
    {                                                                 \
        NEXT(int(int, const char *, int, ...), #name);            \
        mode_t mode = 0;                                              \
        va_list rest;                                                 \
        if (flags & (O_CREAT | O_TMPFILE)) {                          \
            va_start(rest, flags);                                    \
            mode = va_arg(rest, mode_t);                              \
            va_end(rest);                                             \
        }                                                             \
        return is_heap(path) ? open_heap(flags) : next(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

int ioctl(int fd, unsigned long request, ...)
{
    NEXT(int(int, unsigned long, ...), "ioctl");
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if ((unsigned)request == (unsigned)DMA_HEAP_IOCTL_ALLOC && is_named(fd, "fake_heap")) {
        struct dma_heap_allocation_data *wanted = argument;
        int buffer = memfd_create("fake_dma", wanted->fd_flags & O_CLOEXEC ? MFD_CLOEXEC : 0);
        if (buffer < 0) return -1;
        if (ftruncate(buffer, wanted->len)) {
            int error = errno;
            close(buffer);
            errno = error;
            return -1;
        }
        wanted->fd = buffer;
        return 0;
    }
    if (_IOC_TYPE((unsigned)request) == 'b' && is_named(fd, "fake_dma")) return 0;
    return next(fd, request, argument);
}

static void pace(int fd)
{
    static long interval_us = -1;
    static struct timespec due;
    struct timespec now;
    char name[17] = {0};

    if (interval_us < 0) interval_us = getenv("FAKE_FRAME_US") ? atol(getenv("FAKE_FRAME_US")) : 0;
    if (!interval_us || fd < 0) return;
    if (prctl(PR_GET_NAME, name) || strncmp(name, "VirtualCam", 10) || !is_named(fd, "fake_dma"))
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (due.tv_sec < now.tv_sec || (due.tv_sec == now.tv_sec && due.tv_nsec < now.tv_nsec))
        due = now;
    else
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    due.tv_nsec += interval_us * 1000;
    for (; due.tv_nsec >= 1000000000L; due.tv_nsec -= 1000000000L) due.tv_sec++;
}

#define MMAP(name, offset_type)                                                          \
    void *name(void *address, size_t length, int protection, int flags, int fd, offset_type offset) \
    {                                                                                    \
        NEXT(void *(void *, size_t, int, int, int, offset_type), #name);              \
        pace(fd);                                                                        \
        return next(address, length, protection, flags, fd, offset);                     \
    }
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)
