/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the NVM Express base specification (1.4) fixes: registers, entries of queues, opcodes,
 * status codes. Only what the controller uses is here.
 *
 * A status is kept as it stands in a completion entry without the phase bit: code in bits 7:0,
 * type in bits 10:8, "more" in bit 13, "do not retry" in bit 14.
 *
 * All structures are little endian in memory, as is every host that the server supports.
 */
#ifndef VIOMMU_SERVER_NVME_SPEC_H
#define VIOMMU_SERVER_NVME_SPEC_H

#include <stdint.h>

enum nvme_register {
    NVME_REG_CAP = 0x00,
    NVME_REG_VS = 0x08,
    NVME_REG_INTMS = 0x0c,
    NVME_REG_INTMC = 0x10,
    NVME_REG_CC = 0x14,
    NVME_REG_CSTS = 0x1c,
    NVME_REG_AQA = 0x24,
    NVME_REG_ASQ = 0x28,
    NVME_REG_ACQ = 0x30,
    NVME_REG_DOORBELLS = 0x1000,
};

#define NVME_VERSION UINT32_C(0x00010400)

#define NVME_CC_EN          UINT32_C(1)
#define NVME_CC_CSS(cc)     ((cc) >> 4 & 7)
#define NVME_CC_MPS(cc)     ((cc) >> 7 & 15)
#define NVME_CC_AMS(cc)     ((cc) >> 11 & 7)
#define NVME_CC_SHN(cc)     ((cc) >> 14 & 3)
#define NVME_CC_IOSQES(cc)  ((cc) >> 16 & 15)
#define NVME_CC_IOCQES(cc)  ((cc) >> 20 & 15)
#define NVME_CC_WRITABLE    UINT32_C(0x00fffff1)
#define NVME_CC_WHEN_STOPPED UINT32_C(0x00003ff0) /* AMS, MPS, CSS */

#define NVME_CSTS_RDY           UINT32_C(1)
#define NVME_CSTS_CFS           UINT32_C(2)
#define NVME_CSTS_SHST          UINT32_C(0xc)
#define NVME_CSTS_SHST_OCCURRING UINT32_C(0x4)
#define NVME_CSTS_SHST_COMPLETE UINT32_C(0x8)

/* An entry of a submission queue. */
struct nvme_sqe {
    uint8_t opcode;
    uint8_t flags; /* 1:0 fused, 7:6 PRP or SGL */
    uint16_t cid;
    uint32_t nsid;
    uint32_t dw2;
    uint32_t dw3;
    uint64_t metadata;
    uint64_t prp1;
    uint64_t prp2;
    uint32_t dw10;
    uint32_t dw11;
    uint32_t dw12;
    uint32_t dw13;
    uint32_t dw14;
    uint32_t dw15;
};
_Static_assert(sizeof(struct nvme_sqe) == 64, "as specified");

/* An entry of a completion queue. */
struct nvme_cqe {
    uint32_t result;
    uint32_t reserved;
    uint16_t sq_head;
    uint16_t sqid;
    uint16_t cid;
    uint16_t status; /* bit 0: phase */
};
_Static_assert(sizeof(struct nvme_cqe) == 16, "as specified");

/* A range of dataset management. */
struct nvme_dsm_range {
    uint32_t attributes;
    uint32_t blocks;
    uint64_t lba;
};
_Static_assert(sizeof(struct nvme_dsm_range) == 16, "as specified");

#define NVME_FLAGS_FUSED 0x03
#define NVME_FLAGS_PSDT  0xc0

#define NVME_NSID_ALL UINT32_C(0xffffffff)

enum nvme_admin_opcode {
    NVME_ADMIN_DELETE_SQ = 0x00,
    NVME_ADMIN_CREATE_SQ = 0x01,
    NVME_ADMIN_GET_LOG_PAGE = 0x02,
    NVME_ADMIN_DELETE_CQ = 0x04,
    NVME_ADMIN_CREATE_CQ = 0x05,
    NVME_ADMIN_IDENTIFY = 0x06,
    NVME_ADMIN_ABORT = 0x08,
    NVME_ADMIN_SET_FEATURES = 0x09,
    NVME_ADMIN_GET_FEATURES = 0x0a,
    NVME_ADMIN_ASYNC_EVENT = 0x0c,
};

enum nvme_io_opcode {
    NVME_IO_FLUSH = 0x00,
    NVME_IO_WRITE = 0x01,
    NVME_IO_READ = 0x02,
    NVME_IO_WRITE_ZEROES = 0x08,
    NVME_IO_DATASET_MANAGEMENT = 0x09,
};

#define NVME_RW_BLOCKS(dw12) (((dw12) & 0xffff) + 1)
#define NVME_RW_DEALLOCATE   (UINT32_C(1) << 25)
#define NVME_RW_PRINFO       (UINT32_C(15) << 26)
#define NVME_RW_FUA          (UINT32_C(1) << 30)
#define NVME_DSM_DEALLOCATE  UINT32_C(4)

enum nvme_status {
    NVME_OK = 0,
    NVME_INVALID_OPCODE = 0x001,
    NVME_INVALID_FIELD = 0x002,
    NVME_COMMAND_ID_CONFLICT = 0x003,
    NVME_DATA_TRANSFER_ERROR = 0x004,
    NVME_INTERNAL_ERROR = 0x006,
    NVME_ABORT_REQUESTED = 0x007,
    NVME_ABORTED_SQ_DELETION = 0x008,
    NVME_INVALID_NAMESPACE = 0x00b,
    NVME_COMMAND_SEQUENCE_ERROR = 0x00c,
    NVME_PRP_OFFSET_INVALID = 0x013,
    NVME_NAMESPACE_WRITE_PROTECTED = 0x020,
    NVME_LBA_OUT_OF_RANGE = 0x080,
    NVME_CAPACITY_EXCEEDED = 0x081,
    NVME_COMPLETION_QUEUE_INVALID = 0x100,
    NVME_INVALID_QUEUE_ID = 0x101,
    NVME_INVALID_QUEUE_SIZE = 0x102,
    NVME_ASYNC_EVENT_LIMIT = 0x105,
    NVME_INVALID_INTERRUPT_VECTOR = 0x108,
    NVME_INVALID_LOG_PAGE = 0x109,
    NVME_INVALID_QUEUE_DELETION = 0x10c,
    NVME_FEATURE_NOT_SAVEABLE = 0x10d,
    NVME_FEATURE_NOT_CHANGEABLE = 0x10e,
    NVME_FEATURE_NOT_NAMESPACE_SPECIFIC = 0x10f,
    NVME_WRITE_FAULT = 0x280,
    NVME_UNRECOVERED_READ_ERROR = 0x281,

    NVME_STATUS_MORE = 0x2000,
    NVME_DNR = 0x4000, /* do not retry */
};

enum nvme_identify_cns {
    NVME_CNS_NAMESPACE = 0x00,
    NVME_CNS_CONTROLLER = 0x01,
    NVME_CNS_ACTIVE_NAMESPACES = 0x02,
    NVME_CNS_NAMESPACE_DESCRIPTORS = 0x03,
};

enum nvme_log_page {
    NVME_LOG_ERROR = 0x01,
    NVME_LOG_SMART = 0x02,
    NVME_LOG_FIRMWARE = 0x03,
    NVME_LOG_CHANGED_NAMESPACES = 0x04,
    NVME_LOG_COMMANDS = 0x05,
};

enum nvme_feature {
    NVME_FEATURE_ARBITRATION = 0x01,
    NVME_FEATURE_POWER = 0x02,
    NVME_FEATURE_TEMPERATURE = 0x04,
    NVME_FEATURE_ERROR_RECOVERY = 0x05,
    NVME_FEATURE_WRITE_CACHE = 0x06,
    NVME_FEATURE_QUEUES = 0x07,
    NVME_FEATURE_COALESCING = 0x08,
    NVME_FEATURE_VECTOR = 0x09,
    NVME_FEATURE_ATOMICITY = 0x0a,
    NVME_FEATURE_ASYNC_EVENTS = 0x0b,
};

/* Types of asynchronous events, and what they tell. */
enum nvme_event_type {
    NVME_EVENT_ERROR = 0,
    NVME_EVENT_SMART = 1,
    NVME_EVENT_NOTICE = 2,
    NVME_EVENT_TYPES = 3,
};

enum nvme_event_info {
    NVME_EVENT_INVALID_DOORBELL = 0,       /* of type ERROR: no such queue */
    NVME_EVENT_INVALID_DOORBELL_VALUE = 1, /* of type ERROR */
    NVME_EVENT_SMART_TEMPERATURE = 1,      /* of type SMART */
    NVME_EVENT_NAMESPACE_CHANGED = 0,      /* of type NOTICE */
};

/* The bits of feature 0x0b that can be set: warnings of SMART, namespace attributes. */
#define NVME_ASYNC_SMART      UINT32_C(0x1f)
#define NVME_ASYNC_NAMESPACES UINT32_C(0x100)

#define NVME_WARNING_TEMPERATURE 0x02

#endif
