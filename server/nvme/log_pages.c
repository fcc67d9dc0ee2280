/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Log pages: errors, health, firmware, changed namespaces, commands supported. Reading one lets
 * events of its kind be told again, unless the guest asks for them to be retained.
 */
#include "device.h"

#include <string.h>

enum {
    PAGE_MAX = 4096,
    ERROR_SIZE = 64,
    SMART_SIZE = 512,
    FIRMWARE_SIZE = 512,
    CHANGED_SIZE = 4096,
    COMMANDS_SIZE = 4096,
    SMART_UNIT = 512 * 1000, /* bytes in one unit of "data units read" */
};

void nvme_log_error(struct nvme *nvme, const struct nvme_request *request, uint16_t status)
{
    struct nvme_state *state = &nvme->state;

    state->error_count++;
    state->errors[state->error_count % NVME_ERRORS_MAX] = (struct nvme_error){
        .count = state->error_count,
        .lba = request->lba,
        .nsid = request->nsid,
        .sqid = request->sqid,
        .cid = request->cid,
        .status = status,
    };
}

/* The newest first. Entries that were never filled are zero. */
static size_t error_log(const struct nvme *nvme, uint8_t *data)
{
    for (unsigned i = 0; i < NVME_ERRORS_MAX; i++) {
        const struct nvme_error *error =
            &nvme->state.errors[(nvme->state.error_count - i) % NVME_ERRORS_MAX];
        uint8_t *entry = data + i * ERROR_SIZE;

        if (error->count == 0) {
            continue;
        }
        nvme_put(entry, 0, 8, error->count);
        nvme_put(entry, 8, 2, error->sqid);
        nvme_put(entry, 10, 2, error->cid);
        nvme_put(entry, 12, 2, (uint64_t)error->status << 1);
        nvme_put(entry, 14, 2, 0xffff); /* which byte of the command is at fault: not told */
        nvme_put(entry, 16, 8, error->lba);
        nvme_put(entry, 24, 4, error->nsid);
    }
    return NVME_ERRORS_MAX * ERROR_SIZE;
}

uint8_t nvme_critical_warning(const struct nvme *nvme)
{
    const struct nvme_features *features = &nvme->state.features;

    return NVME_TEMPERATURE >= features->temperature_over ||
                   NVME_TEMPERATURE <= features->temperature_under
               ? NVME_WARNING_TEMPERATURE
               : 0;
}

static size_t smart_log(const struct nvme *nvme, uint8_t *data)
{
    const struct nvme_state *state = &nvme->state;

    nvme_put(data, 0, 1, nvme_critical_warning(nvme));
    nvme_put(data, 1, 2, NVME_TEMPERATURE);
    nvme_put(data, 3, 1, 100); /* available spare, in percent */
    nvme_put(data, 4, 1, 10);  /* its threshold */
    nvme_put(data, 32, 8, (state->bytes_read + SMART_UNIT - 1) / SMART_UNIT);
    nvme_put(data, 48, 8, (state->bytes_written + SMART_UNIT - 1) / SMART_UNIT);
    nvme_put(data, 64, 8, state->read_commands);
    nvme_put(data, 80, 8, state->write_commands);
    nvme_put(data, 176, 8, state->error_count);
    return SMART_SIZE;
}

static size_t firmware_log(uint8_t *data)
{
    size_t length = strlen(VIOMMU_VERSION);

    nvme_put(data, 0, 1, 1); /* slot 1 is active */
    memset(data + 8, ' ', 8);
    memcpy(data + 8, VIOMMU_VERSION, length < 8 ? length : 8);
    return FIRMWARE_SIZE;
}

static size_t changed_namespaces(const struct nvme *nvme, uint8_t *data)
{
    nvme_put(data, 0, 4, nvme->state.namespace_changed);
    return CHANGED_SIZE;
}

/* Bit 0: supported. Bit 1: changes blocks of a namespace. */
static size_t commands_log(uint8_t *data)
{
    static const uint8_t admin[] = {
        NVME_ADMIN_DELETE_SQ,    NVME_ADMIN_CREATE_SQ,    NVME_ADMIN_GET_LOG_PAGE,
        NVME_ADMIN_DELETE_CQ,    NVME_ADMIN_CREATE_CQ,    NVME_ADMIN_IDENTIFY,
        NVME_ADMIN_ABORT,        NVME_ADMIN_SET_FEATURES, NVME_ADMIN_GET_FEATURES,
        NVME_ADMIN_ASYNC_EVENT,
    };
    uint8_t *io = data + 1024;

    for (size_t i = 0; i < sizeof(admin); i++) {
        nvme_put(data, admin[i] * 4u, 4, 1);
    }
    nvme_put(io, NVME_IO_FLUSH * 4, 4, 1);
    nvme_put(io, NVME_IO_READ * 4, 4, 1);
    nvme_put(io, NVME_IO_WRITE * 4, 4, 3);
    nvme_put(io, NVME_IO_WRITE_ZEROES * 4, 4, 3);
    nvme_put(io, NVME_IO_DATASET_MANAGEMENT * 4, 4, 3);
    return COMMANDS_SIZE;
}

/* Fill in a page. Returns its size, or 0 when there is none of this number. */
static size_t fill(const struct nvme *nvme, unsigned page, uint8_t *data)
{
    switch (page) {
    case NVME_LOG_ERROR:
        return error_log(nvme, data);
    case NVME_LOG_SMART:
        return smart_log(nvme, data);
    case NVME_LOG_FIRMWARE:
        return firmware_log(data);
    case NVME_LOG_CHANGED_NAMESPACES:
        return changed_namespaces(nvme, data);
    case NVME_LOG_COMMANDS:
        return commands_log(data);
    default:
        return 0;
    }
}

static void page_was_read(struct nvme *nvme, unsigned page)
{
    switch (page) {
    case NVME_LOG_ERROR:
        nvme_events_seen(nvme, NVME_EVENT_ERROR);
        break;
    case NVME_LOG_SMART:
        nvme_events_seen(nvme, NVME_EVENT_SMART);
        break;
    case NVME_LOG_CHANGED_NAMESPACES:
        nvme->state.namespace_changed = false;
        nvme_events_seen(nvme, NVME_EVENT_NOTICE);
        break;
    default:
        break;
    }
}

uint16_t nvme_get_log_page(struct nvme *nvme, const struct nvme_sqe *sqe)
{
    unsigned page = sqe->dw10 & 0xff;
    bool retain = sqe->dw10 & 0x8000;
    uint64_t length = (((uint64_t)(sqe->dw11 & 0xffff) << 16 | sqe->dw10 >> 16) + 1) * 4;
    uint64_t offset = (uint64_t)sqe->dw13 << 32 | sqe->dw12;
    uint8_t data[PAGE_MAX] = {0};
    size_t size = fill(nvme, page, data);
    uint16_t status;

    if (size == 0) {
        return NVME_INVALID_LOG_PAGE | NVME_DNR;
    }
    if (offset % 4 != 0 || offset > size || length > NVME_TRANSFER_MAX ||
        (page == NVME_LOG_SMART && sqe->nsid != 0 && sqe->nsid != NVME_NSID_ALL)) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    size -= (size_t)offset;
    status = nvme_copy_out(nvme, sqe, data + offset, size < length ? size : (size_t)length,
                           (size_t)length);
    if (status == NVME_OK && !retain) {
        page_was_read(nvme, page);
    }
    return status;
}
