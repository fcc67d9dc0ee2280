/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An endpoint's state, for another process that goes on with its client: what was agreed on, the
 * message of which a part has come, what is still to be sent, interrupts, and client memory.
 *
 * Not in it: the function's own state and its configuration space.
 */
#ifndef VIOMMU_SERVER_VFIO_USER_ENDPOINT_STATE_H
#define VIOMMU_SERVER_VFIO_USER_ENDPOINT_STATE_H

#include "endpoint.h"
#include "handover/fds.h"

/* Why it cannot be handed over now or at all, for people; NULL: it can. */
const char *vfio_user_endpoint_unsaveable(const struct vfio_user_endpoint *endpoint);

/* Writes the state into the section that is open. The endpoint stays as it is and may go on. */
void vfio_user_endpoint_save(struct vfio_user_endpoint *endpoint, struct save_writer *writer,
                             struct handover_fds *fds);

/*
 * Makes an endpoint that goes on with the function, which is that of the one saved. Client memory
 * is mapped. Returns 0, or a negative errno: -EBADMSG when the state makes no sense. The endpoint
 * is then to be given up by _discard.
 */
int vfio_user_endpoint_load(struct vfio_user_endpoint *endpoint, struct pci_function *function,
                            struct save_section *section, struct handover_fds *fds);

#endif
