/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The JSON text in a VERSION message: what each side says it can do.
 */
#ifndef VIOMMU_SERVER_VFIO_USER_VERSION_H
#define VIOMMU_SERVER_VFIO_USER_VERSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vfio_user_capabilities {
    uint64_t max_msg_fds;
    uint64_t max_data_xfer_size;
    uint64_t pgsizes;
    bool twin_socket; /* it takes a second connection, for our commands */
};

/*
 * Read the text of a client (it may be empty, and it may or may not end with NUL). What is absent,
 * or of the wrong type, gets the protocol's default. Returns 0, or -EINVAL when the text is no JSON
 * object or is absurdly long.
 */
int vfio_user_capabilities_parse(const uint8_t *text, size_t size,
                                 struct vfio_user_capabilities *capabilities);

enum {
    VFIO_USER_CAPABILITIES_ROOM = 256,
};

/* Our own text: we take maps_max regions at one time, and a descriptor of the twin socket goes
 * along, or not. Returns its size, which counts the NUL. */
size_t vfio_user_capabilities_text(char text[VFIO_USER_CAPABILITIES_ROOM], unsigned maps_max,
                                   bool twin_socket);

#endif
