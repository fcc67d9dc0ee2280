/* SPDX-License-Identifier: BSD-2-Clause */
/* See unix_socket.h. */
#include "unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    LOCK_TRIES = 200,
    LOCK_WAIT_MS = 10,
};

static int make_address(const char *path, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (!*path) {
        return -ENOENT; /* an empty name would be one in no file system */
    }
    if (strlen(path) >= sizeof(address->sun_path)) {
        return -ENAMETOOLONG;
    }
    memcpy(address->sun_path, path, strlen(path));
    return 0;
}

static int new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd < 0 ? -errno : fd;
}

static int connect_to(const struct sockaddr_un *address)
{
    int fd = new_socket(), ret;

    if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
        ret = -errno;
        close(fd);
        return ret;
    }
    return fd;
}

int unix_socket_connect(const char *path)
{
    struct sockaddr_un address;
    int ret = make_address(path, &address);

    return ret < 0 ? ret : connect_to(&address);
}

/* Make way for a socket at the address: remove one that nobody serves. */
static int remove_stale(const struct sockaddr_un *address)
{
    struct stat st;
    int fd;

    if (lstat(address->sun_path, &st) < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (!S_ISSOCK(st.st_mode)) {
        return -EEXIST;
    }
    fd = connect_to(address);
    if (fd >= 0) {
        close(fd);
        return -EADDRINUSE;
    }
    if (fd != -ECONNREFUSED) {
        return fd == -EAGAIN ? -EADDRINUSE : fd; /* its queue is full: it is in use */
    }
    return unlink(address->sun_path) < 0 ? -errno : 0;
}

static int bind_and_listen(int fd, const struct sockaddr_un *address, mode_t mode)
{
    mode_t before = umask(0777);
    int ret;

    umask(before | (0777 & ~mode));
    ret = bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
    umask(before);
    if (ret == 0 && listen(fd, 4) < 0) {
        ret = -errno;
        unlink(address->sun_path);
    }
    return ret;
}

/* Returns a descriptor that holds the lock on the folder of a path; -EACCES when the folder may not
 * be read: it cannot be locked then. */
static int lock_folder(const char *path)
{
    char name[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    int fd, ret = -EBUSY;

    memcpy(name, path, strlen(path) + 1);
    fd = open(dirname(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    for (int i = 0; i < LOCK_TRIES && ret == -EBUSY; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            return fd;
        }
        ret = errno == EWOULDBLOCK || errno == EINTR ? -EBUSY : -errno;
        if (ret == -EBUSY) {
            poll(NULL, 0, LOCK_WAIT_MS);
        }
    }
    close(fd);
    return ret;
}

int unix_socket_listen(const char *path, mode_t mode)
{
    struct sockaddr_un address;
    int ret = make_address(path, &address), folder = -1, fd = -1;

    if (ret == 0) {
        ret = folder = lock_folder(path);
    }
    if (ret >= 0 || ret == -EACCES) {
        ret = remove_stale(&address);
    }
    if (ret == 0) {
        ret = fd = new_socket();
    }
    if (ret >= 0) {
        ret = bind_and_listen(fd, &address, mode);
    }
    if (folder >= 0) {
        close(folder);
    }
    if (ret < 0 && fd >= 0) {
        close(fd);
    }
    return ret < 0 ? ret : fd;
}

void unix_socket_remove(const char *path, const struct stat *file)
{
    struct stat st;

    if (lstat(path, &st) == 0 && st.st_dev == file->st_dev && st.st_ino == file->st_ino) {
        unlink(path);
    }
}
