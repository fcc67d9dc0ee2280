/* SPDX-License-Identifier: BSD-2-Clause */
/* See file.h. */
#include "file.h"

#include <errno.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int lock(int fd, int flags)
{
    int how = (flags & O_ACCMODE) == O_RDONLY ? LOCK_SH : LOCK_EX;
    struct stat st;

    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        return 0;
    }
    if (flock(fd, how | LOCK_NB) < 0) {
        return errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
    }
    if ((flags & O_TRUNC) && S_ISREG(st.st_mode) && ftruncate(fd, 0) < 0) {
        return -errno;
    }
    return 0;
}

/* Opens without waiting for whoever is at the other end of a FIFO; what follows may wait. */
static int open_now(const char *path, int flags)
{
    int fd = open(path, (flags & ~O_TRUNC) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
    int error;

    if (fd >= 0 && fcntl(fd, F_SETFL, flags & O_ACCMODE) < 0) {
        error = errno;
        close(fd);
        return -error;
    }
    return fd < 0 ? -errno : fd;
}

int serve_file_open(const char *path, int flags)
{
    int fd = open_now(path, flags);
    int ret;

    if (fd < 0) {
        return fd;
    }
    ret = lock(fd, flags);
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

bool serve_file_is_disk(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
}

const char *serve_file_error(int error)
{
    return error == -EADDRINUSE ? "another device or server has it"
           : error == -ENXIO    ? "it is a FIFO that nobody reads, or a socket"
                                : strerror(-error);
}
