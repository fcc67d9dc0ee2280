/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The JSON text in a VERSION message: what each side says it can do.
 */
#ifndef VIOMMU_SERVER_VFIO_USER_VERSION_H
#define VIOMMU_SERVER_VFIO_USER_VERSION_H

#include <stddef.h>
#include <stdint.h>

struct vfio_user_capabilities {
    uint64_t max_msg_fds;
    uint64_t max_data_xfer_size;
    uint64_t pgsizes;
};

/*
 * Read the text of a client (it may be empty, and it may or may not end with NUL). What is absent,
 * or of the wrong type, gets the protocol's default. Returns 0, or -EINVAL when the text is no JSON
 * object or is absurdly long.
 */
int vfio_user_capabilities_parse(const uint8_t *text, size_t size,
                                 struct vfio_user_capabilities *capabilities);

/* Our own text. size counts the NUL. */
const char *vfio_user_capabilities_text(size_t *size);

#endif
