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

int serve_file_open(const char *path, int flags)
{
    int fd = open(path, (flags & ~O_TRUNC) | O_CLOEXEC, 0666);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    ret = lock(fd, flags);
    if (ret < 0) {
        close(fd);
        return ret;
    }
    return fd;
}

const char *serve_file_error(int error)
{
    return error == -EADDRINUSE ? "another device or server has it" : strerror(-error);
}
