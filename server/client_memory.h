/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Client memory mapped into this process, and surviving a client that takes it away.
 *
 * A client hands us a file descriptor of guest memory. The file may be truncated at any time, and
 * an access past its new end raises SIGBUS; so does one to a huge page that the system does not
 * have, whether the file is sealed against shrinking or not. A handler then puts zero pages over
 * the mapping, from the page that was touched to the mapping's end: with the file cut short
 * everything beyond that page is gone as well. The access is repeated and sees zeros. It is
 * counted, and the owner reports it (see client_memory_losses).
 *
 * Live mappings form a list, changed only by the server's thread and walked by the handler, which
 * runs on whichever thread touched the memory; so no other thread may use a mapping that is being
 * destroyed, which its owner sees to anyway. A SIGBUS anywhere else ends the process as it would
 * have done before.
 */
#ifndef VIOMMU_SERVER_CLIENT_MEMORY_H
#define VIOMMU_SERVER_CLIENT_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

enum {
    /* Live mappings at one time. Linux gives a process 65530 areas of memory, and the handler needs
     * a second one for each mapping; and the work of a change of memory grows with their number. */
    CLIENT_MAPPINGS_MAX = 16384,
};

struct client_mapping;

/* Install the SIGBUS handler, unless it is in place. Returns 0 or a negative errno. */
int client_memory_guard(void);

/*
 * Map size bytes of a regular file (memfd, hugetlbfs and tmpfs files are) at offset. Returns 0;
 * -EINVAL for something that is no such file, an empty or unaligned range, or one past the file's
 * end; -ENOSPC with CLIENT_MAPPINGS_MAX mappings; or mmap's negative errno. fd stays the caller's.
 */
int client_mapping_create(int fd, uint64_t offset, uint64_t size, bool writable,
                          struct client_mapping **out);

/* Unmap; NULL is accepted. */
void client_mapping_destroy(struct client_mapping *mapping);

void *client_mapping_address(const struct client_mapping *mapping);

/* A descriptor of the file, for who maps it elsewhere; good as long as the mapping. -1: it could
 * not be kept open (client_file.h says when). */
int client_mapping_fd(const struct client_mapping *mapping);

/* How many times, in all, a mapping was found to have lost its file's pages. */
uint64_t client_memory_losses(void);

#endif
