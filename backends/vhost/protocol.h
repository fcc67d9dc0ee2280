/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The wire format of vhost-user, as far as it is spoken here. All numbers are in the byte order of
 * the machine.
 *
 * A message is a header and a payload of header.size bytes. The front-end (that is us) asks on the
 * first socket, and is answered there in the order of its questions: those that ask for something
 * get it, and those with VHOST_USER_NEED_REPLY a 64-bit number, 0 for success. The back-end asks on
 * a second socket, which the front-end hands to it. Descriptors come with the first byte of their
 * message.
 */
#ifndef VIOMMU_VHOST_PROTOCOL_H
#define VIOMMU_VHOST_PROTOCOL_H

#include <linux/vhost_types.h>
#include <stdint.h>

enum vhost_user_request {
    VHOST_USER_GET_FEATURES = 1,
    VHOST_USER_SET_FEATURES = 2,
    VHOST_USER_SET_OWNER = 3,
    VHOST_USER_SET_MEM_TABLE = 5,
    VHOST_USER_SET_VRING_NUM = 8,
    VHOST_USER_SET_VRING_ADDR = 9,
    VHOST_USER_SET_VRING_BASE = 10,
    VHOST_USER_GET_VRING_BASE = 11,
    VHOST_USER_SET_VRING_KICK = 12,
    VHOST_USER_SET_VRING_CALL = 13,
    VHOST_USER_GET_PROTOCOL_FEATURES = 15,
    VHOST_USER_SET_PROTOCOL_FEATURES = 16,
    VHOST_USER_GET_QUEUE_NUM = 17,
    VHOST_USER_SET_VRING_ENABLE = 18,
    VHOST_USER_SET_BACKEND_REQ_FD = 21,
    VHOST_USER_IOTLB_MSG = 22,
};

/* What a back-end asks. */
enum vhost_user_backend_request {
    VHOST_USER_BACKEND_IOTLB_MSG = 1,
};

/* Of vhost_user_header.flags. */
#define VHOST_USER_VERSION      1u
#define VHOST_USER_VERSION_MASK 3u
#define VHOST_USER_REPLY        4u
#define VHOST_USER_NEED_REPLY   8u

struct vhost_user_header {
    uint32_t request;
    uint32_t flags;
    uint32_t size;
};

/* Device features that concern the transport; the others are the device's own. */
#define VHOST_FEATURE_LOG_ALL           (UINT64_C(1) << 26)
#define VHOST_FEATURE_PROTOCOL_FEATURES (UINT64_C(1) << 30)
#define VHOST_FEATURE_VERSION_1         (UINT64_C(1) << 32)
#define VHOST_FEATURE_ACCESS_PLATFORM   (UINT64_C(1) << 33)
#define VHOST_FEATURE_RING_PACKED       (UINT64_C(1) << 34)

/* Protocol features. */
#define VHOST_USER_F_MQ          (UINT64_C(1) << 0)
#define VHOST_USER_F_REPLY_ACK   (UINT64_C(1) << 3)
#define VHOST_USER_F_BACKEND_REQ (UINT64_C(1) << 5)

/* So many regions a table has at most. */
#define VHOST_USER_REGIONS_MAX 8

struct vhost_user_region {
    uint64_t gpa;
    uint64_t size;
    uint64_t uaddr;  /* by which rings and IOTLB messages name what lies in it */
    uint64_t offset; /* in the file */
};

struct vhost_user_memory {
    uint32_t count;
    uint32_t padding;
    struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
};

/* With a descriptor of KICK or CALL: the ring, or'ed with this where there is none. */
#define VHOST_USER_NO_FD (UINT64_C(1) << 8)

/* The largest message that may come: an IOTLB message. */
#define VHOST_USER_PAYLOAD_IN_MAX sizeof(struct vhost_iotlb_msg)

_Static_assert(sizeof(struct vhost_user_header) == 12, "a header has 12 bytes");
_Static_assert(sizeof(struct vhost_iotlb_msg) == 32, "an IOTLB message is padded to 32 bytes");
_Static_assert(sizeof(struct vhost_vring_addr) == 40, "and a ring's addresses take 40");

#endif
