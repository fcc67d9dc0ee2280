/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files that stand behind served devices. One that is written belongs to one device alone, one that
 * is only read may belong to several: each is locked (flock) while it is open, which keeps off
 * other servers, and other devices of this one, too.
 */
#ifndef VIOMMU_TOOLS_SERVE_FILE_H
#define VIOMMU_TOOLS_SERVE_FILE_H

#include <fcntl.h>
#include <stdbool.h>

/*
 * Opens as open() does, with O_CLOEXEC, and locks regular files and block devices. O_TRUNC empties
 * a regular file when the lock is taken. Waits for nobody: a FIFO that is written needs its reader.
 * Returns the descriptor, -EADDRINUSE when another has it, or open's negative errno.
 */
int serve_file_open(const char *path, int flags);

/* Whether it is a regular file or a block device, which can be a disk. */
bool serve_file_is_disk(int fd);

/* Its errors, for people. */
const char *serve_file_error(int error);

#endif
