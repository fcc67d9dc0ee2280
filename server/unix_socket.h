/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Unix sockets in the file system.
 *
 * A socket file whose server is gone stays behind. It is known by that nobody answers there, and
 * replaced. Two servers that start at once must not take each other's new socket for such a one, so
 * looking, removing and listening happen under a lock (flock) on the folder, where it may be read.
 */
#ifndef VIOMMU_SERVER_UNIX_SOCKET_H
#define VIOMMU_SERVER_UNIX_SOCKET_H

#include <sys/stat.h>
#include <sys/types.h>

/*
 * Listens at path; the file's mode is this one, less what umask takes away. Returns a descriptor
 * that does not block; -EADDRINUSE when somebody serves there; -EEXIST when it is something else
 * than a socket; -ENOENT when it is empty; -ENAMETOOLONG; -EBUSY when the folder stays locked; or
 * another negative errno.
 */
int unix_socket_listen(const char *path, mode_t mode);

/*
 * Removes the socket file at path, unless it is another than `file` by now: some server's that has
 * put its own there. For who still has the socket: its inode cannot be another's yet.
 */
void unix_socket_remove(const char *path, const struct stat *file);

/* Returns a descriptor that does not block, or a negative errno. */
int unix_socket_connect(const char *path);

#endif
