/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the far server can do: the text of its answer to VERSION, which is JSON.
 *
 * Only a few members are of interest, those of the object "capabilities" in the outermost object:
 * numbers, and "twin_socket", an object with a flag and a number. Everything else is looked at only
 * as far as it must be JSON. The text is the far server's: its length and its depth are bounded,
 * each byte is looked at once, and nothing is allocated.
 */
#ifndef VIOMMU_BACKENDS_VFIO_USER_CAPABILITIES_H
#define VIOMMU_BACKENDS_VFIO_USER_CAPABILITIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vfio_user_far_capabilities {
    uint64_t max_msg_fds;
    uint64_t max_data_xfer_size;
    uint64_t max_dma_maps;
    uint64_t pgsizes;
    bool twin_socket;       /* DMA commands come on a socket of their own */
    uint64_t twin_fd_index; /* which of the descriptors that came along that is */
};

/*
 * Read the text; it may end with a NUL, or be empty: what it does not say has the protocol's
 * default. Returns 0, or -EPROTO for what is no JSON, too long, too deep, or makes no sense: a
 * member of interest that is something else than it should be, or a limit of 0.
 */
int vfio_user_far_capabilities_parse(const uint8_t *text, size_t size,
                                     struct vfio_user_far_capabilities *capabilities);

#endif
