/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors that go along with saved state: a list, in which the state names them by place.
 *
 * The same structure serves both ends. Who saves puts descriptors, which stay its own. Who loads
 * owns the list: an object takes those that it keeps, looks at those that it needs once, and what
 * is left is closed.
 */
#ifndef VIOMMU_SERVER_HANDOVER_FDS_H
#define VIOMMU_SERVER_HANDOVER_FDS_H

#include <stddef.h>

#include "save/stream.h"

enum {
    HANDOVER_FDS_MAX = 16384,
};

struct handover_fds {
    int *fds; /* -1: it was taken */
    size_t count;
    size_t room;
};

/* Gives up the list; the descriptors stay whose they are. */
void handover_fds_fini(struct handover_fds *fds);

/* Closes what nobody took, and gives up the list. */
void handover_fds_close(struct handover_fds *fds);

/* Adds one to the list, unless it is there. Returns its place, -ENOMEM, or -ENOSPC. */
int handover_fds_add(struct handover_fds *fds, int fd);

/* Saves a descriptor; -1 is none. */
void handover_put_fd(struct save_writer *writer, struct handover_fds *fds, int fd);

/*
 * The descriptor that the state names next: to keep, or to look at. -1 when there is none. A place
 * that is not in the list, or was taken, spoils the section.
 */
int handover_take_fd(struct save_section *section, struct handover_fds *fds);
int handover_look_fd(struct save_section *section, const struct handover_fds *fds);

/* Some bytes with their number before them; those read lie in the section. Where there are more
 * than `most` the section is spoilt, and NULL returned. */
void handover_put_data(struct save_writer *writer, const void *data, size_t size);
const void *handover_get_data(struct save_section *section, size_t most, size_t *size);

#endif
