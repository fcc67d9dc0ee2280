/* SPDX-License-Identifier: BSD-2-Clause */
/* A table of files; see client_file.h. */
#include "client_file.h"

#include <fcntl.h>
#include <stddef.h>
#include <unistd.h>

#include "common/foreign.h"

struct client_file {
    unsigned users; /* 0: the place is free */
    int fd;
    int access; /* O_RDONLY, O_RDWR */
    dev_t device;
    ino_t number;
};

static struct client_file files[CLIENT_FILES_MAX];

struct client_file *client_file_get(int fd)
{
    struct client_file *place = NULL;
    struct foreign_identity it;
    int flags = fcntl(fd, F_GETFL), own;

    if (flags < 0 || !foreign_is_file(fd, &it)) {
        return NULL;
    }
    for (unsigned i = 0; i < CLIENT_FILES_MAX; i++) {
        struct client_file *file = &files[i];

        if (file->users == 0) {
            place = place ? place : file;
        } else if (file->device == it.device && file->number == it.inode &&
                   file->access == (flags & O_ACCMODE)) {
            file->users++;
            return file;
        }
    }
    own = place ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (own < 0) {
        return NULL;
    }
    *place = (struct client_file){
        .users = 1,
        .fd = own,
        .access = flags & O_ACCMODE,
        .device = it.device,
        .number = it.inode,
    };
    return place;
}

void client_file_put(struct client_file *file)
{
    if (file && --file->users == 0) {
        close(file->fd);
    }
}

int client_file_fd(const struct client_file *file)
{
    return file->fd;
}
