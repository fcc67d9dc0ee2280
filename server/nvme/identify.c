/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The Identify command: what the controller and its namespace say of themselves. Fields that are
 * not named here are zero: not supported, or not reported.
 */
#include "device.h"

#include <string.h>

enum {
    DATA_SIZE = 4096,
    DESCRIPTOR_UUID = 3,
};

/* Text is padded with spaces, not ended. What cannot be printed becomes a minus. */
static void put_text(uint8_t *data, unsigned offset, unsigned size, const char *text)
{
    for (unsigned i = 0; i < size; i++) {
        char c = *text ? *text++ : ' ';

        data[offset + i] = (uint8_t)(c >= ' ' && c <= '~' ? c : '-');
    }
}

static const char *serial(const struct nvme *nvme)
{
    return nvme->config.serial ? nvme->config.serial : nvme->name;
}

/* An identifier that depends on the serial number alone (FNV-1a), in the form of a UUID. `salt`
 * makes several of one serial number. */
static void make_uuid(const struct nvme *nvme, uint8_t salt, uint8_t uuid[16])
{
    for (unsigned half = 0; half < 2; half++) {
        uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ (salt * 2u + half);

        for (const char *at = serial(nvme); *at; at++) {
            hash = (hash ^ (uint8_t)*at) * UINT64_C(0x100000001b3);
        }
        hash ^= hash >> 32;
        nvme_put(uuid, half * 8, 8, hash * UINT64_C(0x100000001b3));
    }
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x80); /* version 8: of our own making */
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

static void put_subsystem_name(const struct nvme *nvme, uint8_t *data)
{
    static const char digits[] = "0123456789abcdef";
    static const char prefix[] = "nqn.2014-08.org.nvmexpress:uuid:";
    uint8_t *at = data + 768, uuid[16];

    make_uuid(nvme, 0, uuid);
    memcpy(at, prefix, sizeof(prefix) - 1);
    at += sizeof(prefix) - 1;
    for (unsigned i = 0; i < sizeof(uuid); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *at++ = '-';
        }
        *at++ = (uint8_t)digits[uuid[i] >> 4];
        *at++ = (uint8_t)digits[uuid[i] & 15];
    }
}

static unsigned log2_of(unsigned power)
{
    return (unsigned)__builtin_ctz(power);
}

static void controller(const struct nvme *nvme, uint8_t *data)
{
    const struct pci_config *config = &nvme->function.config;

    pci_config_read(config, 0x00, data, 2);     /* VID */
    pci_config_read(config, 0x2c, data + 2, 2); /* SSVID */
    put_text(data, 4, 20, serial(nvme));
    put_text(data, 24, 40, "viommu NVMe controller");
    put_text(data, 64, 8, VIOMMU_VERSION);
    nvme_put(data, 77, 1, log2_of(NVME_TRANSFER_MAX) - 12); /* MDTS, in pages of 4 KiB */
    nvme_put(data, 78, 2, 1);                               /* CNTLID */
    nvme_put(data, 80, 4, NVME_VERSION);
    nvme_put(data, 92, 4, NVME_ASYNC_NAMESPACES);      /* OAES */
    nvme_put(data, 111, 1, 1);                         /* CNTRLTYPE: for I/O */
    nvme_put(data, 258, 1, NVME_ABORTS_MAX - 1);       /* ACL */
    nvme_put(data, 259, 1, NVME_ASYNC_REQUESTS_MAX - 1); /* AERL */
    nvme_put(data, 260, 1, 0x03);                      /* FRMW: one slot, not writable */
    nvme_put(data, 261, 1, 0x06);                      /* LPA: commands supported, offsets */
    nvme_put(data, 262, 1, NVME_ERRORS_MAX - 1);       /* ELPE */
    nvme_put(data, 266, 2, 343);                       /* WCTEMP */
    nvme_put(data, 268, 2, 353);                       /* CCTEMP */
    nvme_put(data, 512, 1, 0x66);                      /* SQES: 64 bytes */
    nvme_put(data, 513, 1, 0x44);                      /* CQES: 16 bytes */
    nvme_put(data, 516, 4, 1);                         /* NN */
    nvme_put(data, 520, 2, 0x1c); /* ONCS: dataset management, write zeroes, save and select */
    nvme_put(data, 525, 1, 0x07); /* VWC: present; flush of all namespaces, too */
    put_subsystem_name(nvme, data);
    nvme_put(data, 2048, 2, 2500); /* power state 0: 25 W at most */
}

static void namespace(const struct nvme *nvme, uint8_t *data)
{
    nvme_put(data, 0, 8, nvme->state.blocks);  /* NSZE */
    nvme_put(data, 8, 8, nvme->state.blocks);  /* NCAP */
    nvme_put(data, 16, 8, nvme->state.blocks); /* NUSE */
    nvme_put(data, 33, 1, 0x09); /* DLFEAT: deallocated blocks read as zeroes, write zeroes can */
    nvme_put(data, 99, 1, nvme->config.read_only); /* NSATTR: write protected */
    nvme_put(data, 128 + 2, 1, nvme->config.lba_shift); /* LBAF0: LBADS */
}

static void descriptors(const struct nvme *nvme, uint8_t *data)
{
    nvme_put(data, 0, 1, DESCRIPTOR_UUID);
    nvme_put(data, 1, 1, 16);
    make_uuid(nvme, 1, data + 4);
}

uint16_t nvme_identify(struct nvme *nvme, const struct nvme_sqe *sqe)
{
    uint8_t data[DATA_SIZE] = {0};

    switch (sqe->dw10 & 0xff) {
    case NVME_CNS_NAMESPACE:
        if (sqe->nsid != 1) {
            return NVME_INVALID_NAMESPACE | NVME_DNR;
        }
        /* Who asks wants to know how large it is now. */
        nvme_rescan(nvme);
        namespace(nvme, data);
        break;
    case NVME_CNS_CONTROLLER:
        controller(nvme, data);
        break;
    case NVME_CNS_ACTIVE_NAMESPACES:
        /* Those above the given one. */
        if (sqe->nsid >= NVME_NSID_ALL - 1) {
            return NVME_INVALID_NAMESPACE | NVME_DNR;
        }
        nvme_put(data, 0, 4, sqe->nsid < 1);
        break;
    case NVME_CNS_NAMESPACE_DESCRIPTORS:
        if (sqe->nsid != 1) {
            return NVME_INVALID_NAMESPACE | NVME_DNR;
        }
        descriptors(nvme, data);
        break;
    default:
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    return nvme_copy_out(nvme, sqe, data, sizeof(data), sizeof(data));
}
