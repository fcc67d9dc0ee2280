/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors that another process gave: looked at, and closed, without ever waiting for whoever
 * is behind them.
 *
 * A file system can be a process (FUSE). To ask one of its files for its size (fstat) or for its
 * file system (fstatfs) sends that process a request and waits for the answer, and so does closing
 * the file, though others have it, too. A TCP socket can be made such that closing it waits for its
 * peer; a terminal, for its line. Who closes one of these may wait for ever, and nothing ends that
 * but the end of the process behind it.
 *
 * So a descriptor is only closed when it is something whose closing waits for nobody; any other one
 * is *put aside*, and stays open as long as this process. Nobody honest gives us such a descriptor.
 * Once FOREIGN_ASIDE_MAX are put aside nobody is given room for descriptors any more: the kernel
 * drops those that find no room.
 *
 * What remains. A file that the kernel drops is not waited for, but a TCP socket is (SO_LINGER), as
 * long as its owner said: one that finds no room, one that lies unread in a socket of ours that is
 * closed, or in an AF_UNIX socket that was itself sent. No program can keep out of that before
 * Linux 6.16. And at the end of this process the kernel closes what is put aside, so that the
 * process, whose memory is given back by then, stays in the table of processes until whoever it is
 * that has to answer does so, or ends.
 *
 * Threads: any.
 */
#ifndef VIOMMU_BACKENDS_COMMON_FOREIGN_H
#define VIOMMU_BACKENDS_COMMON_FOREIGN_H

#include <stdbool.h>
#include <sys/types.h>

enum { FOREIGN_ASIDE_MAX = 64 };

/* Which file it is: the same for all its descriptors, and for no other file's. */
struct foreign_identity {
    dev_t device;
    ino_t inode;
};

/* Returns 0 or a negative errno. */
int foreign_identify(int fd, struct foreign_identity *identity);

/* Is it a regular file, and none of a file system that is a process? Which one, where `identity` is
   not NULL. */
bool foreign_is_file(int fd, struct foreign_identity *identity);

/* Is it an eventfd or one of its like, and no file, pipe, socket or device? */
bool foreign_is_anonymous(int fd);

/* Does closing it wait for nobody? */
bool foreign_closes_at_once(int fd);

/* Closes it, or puts it aside. */
void foreign_close(int fd);

/* How many were put aside. */
unsigned foreign_aside(void);

#endif
