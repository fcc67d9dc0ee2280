/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The files of client memory, kept open: a successor of this server must map them anew.
 *
 * A client sends a descriptor for each region and each connection, mostly of one and the same file.
 * A file is kept once, whatever the number of regions, and counted; at most CLIENT_FILES_MAX are
 * kept, so that a client cannot use this process's descriptors up.
 *
 * Locking: none, one thread.
 */
#ifndef VIOMMU_SERVER_CLIENT_FILE_H
#define VIOMMU_SERVER_CLIENT_FILE_H

enum {
    CLIENT_FILES_MAX = 64,
};

struct client_file;

/* The file behind a descriptor, which stays the caller's. NULL: it cannot be kept. */
struct client_file *client_file_get(int fd);

/* NULL is accepted. */
void client_file_put(struct client_file *file);

/* Stays the file's. */
int client_file_fd(const struct client_file *file);

#endif
