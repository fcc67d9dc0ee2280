/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Get Features and Set Features. No feature can be saved: the saved value is the default, and a
 * controller reset brings it back.
 */
#include "device.h"

enum select {
    SELECT_CURRENT = 0,
    SELECT_DEFAULT = 1,
    SELECT_SAVED = 2,
    SELECT_CAPABILITIES = 3,
};

#define CAPABILITY_OF_NAMESPACE UINT32_C(2)
#define CAPABILITY_CHANGEABLE   UINT32_C(4)

#define SET_SAVE             (UINT32_C(1) << 31)
#define ERROR_RECOVERY_DULBE UINT32_C(0x10000)
#define VECTOR_UNCOALESCED   UINT32_C(0x10000)
#define TEMPERATURE_UNDER(dw11) (((dw11) >> 20 & 3) == 1)

static const struct nvme_features defaults = {
    .temperature_over = 343,
    .write_cache = 1,
};

void nvme_features_init(struct nvme *nvme)
{
    nvme->state.features = defaults;
}

static bool of_namespace(uint32_t feature)
{
    return feature == NVME_FEATURE_ERROR_RECOVERY;
}

static unsigned vectors(const struct nvme *nvme)
{
    return pci_config_msix_vectors(&nvme->function.config);
}

static uint32_t queue_counts(const struct nvme *nvme)
{
    return (nvme->config.queues - 1) << 16 | (nvme->config.queues - 1);
}

/* TMPSEL 0 is the composite temperature; sensors do not exist. Over and under have a value each. */
static uint16_t temperature(const struct nvme_features *features, uint32_t dw11, uint32_t *value)
{
    if ((dw11 >> 16 & 15) != 0 || (dw11 >> 20 & 3) > 1) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    *value = TEMPERATURE_UNDER(dw11) ? features->temperature_under : features->temperature_over;
    return NVME_OK;
}

static uint16_t vector_config(const struct nvme *nvme, const struct nvme_features *features,
                              uint32_t dw11, uint32_t *value)
{
    uint32_t vector = dw11 & 0xffff;

    if (vector >= vectors(nvme)) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    *value = vector | (features->vector_uncoalesced >> vector & 1 ? VECTOR_UNCOALESCED : 0);
    return NVME_OK;
}

static uint16_t get_value(const struct nvme *nvme, const struct nvme_features *features,
                          uint32_t feature, uint32_t dw11, uint32_t *value)
{
    switch (feature) {
    case NVME_FEATURE_ARBITRATION:
        *value = features->arbitration;
        return NVME_OK;
    case NVME_FEATURE_POWER:
        *value = features->power;
        return NVME_OK;
    case NVME_FEATURE_TEMPERATURE:
        return temperature(features, dw11, value);
    case NVME_FEATURE_ERROR_RECOVERY:
        *value = features->error_recovery;
        return NVME_OK;
    case NVME_FEATURE_WRITE_CACHE:
        *value = features->write_cache;
        return NVME_OK;
    case NVME_FEATURE_QUEUES:
        *value = queue_counts(nvme);
        return NVME_OK;
    case NVME_FEATURE_COALESCING:
        *value = features->coalescing;
        return NVME_OK;
    case NVME_FEATURE_VECTOR:
        return vector_config(nvme, features, dw11, value);
    case NVME_FEATURE_ATOMICITY:
        *value = features->atomicity;
        return NVME_OK;
    case NVME_FEATURE_ASYNC_EVENTS:
        *value = features->async_events;
        return NVME_OK;
    default:
        return NVME_INVALID_FIELD | NVME_DNR;
    }
}

uint16_t nvme_get_features(struct nvme *nvme, const struct nvme_sqe *sqe, uint32_t *result)
{
    uint32_t feature = sqe->dw10 & 0xff, select = sqe->dw10 >> 8 & 7;
    const struct nvme_features *source =
        select == SELECT_CURRENT ? &nvme->state.features : &defaults;
    uint32_t value = 0;
    uint16_t status = get_value(nvme, source, feature, sqe->dw11, &value);

    if (select > SELECT_CAPABILITIES) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    if (status == NVME_OK && of_namespace(feature) && sqe->nsid != 1) {
        return NVME_INVALID_NAMESPACE | NVME_DNR;
    }
    if (status == NVME_OK) {
        *result = select != SELECT_CAPABILITIES
                      ? value
                      : CAPABILITY_CHANGEABLE |
                            (of_namespace(feature) ? CAPABILITY_OF_NAMESPACE : 0);
    }
    return status;
}

/* Only before queues for I/O are made. What is asked for does not matter: there are as many as
 * there are. */
static uint16_t set_queues(const struct nvme *nvme, uint32_t dw11, uint32_t *result)
{
    if ((dw11 & 0xffff) == 0xffff || dw11 >> 16 == 0xffff) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    for (unsigned i = 1; i <= nvme->config.queues; i++) {
        if (nvme->state.cq[i].exists) {
            return NVME_COMMAND_SEQUENCE_ERROR | NVME_DNR;
        }
    }
    *result = queue_counts(nvme);
    return NVME_OK;
}

static uint16_t set_temperature(struct nvme *nvme, uint32_t dw11)
{
    uint32_t old;
    uint16_t status = temperature(&nvme->state.features, dw11, &old);

    if (status == NVME_OK) {
        if (TEMPERATURE_UNDER(dw11)) {
            nvme->state.features.temperature_under = dw11 & 0xffff;
        } else {
            nvme->state.features.temperature_over = dw11 & 0xffff;
        }
        nvme_check_temperature(nvme);
    }
    return status;
}

static uint16_t set_vector(struct nvme *nvme, uint32_t dw11)
{
    uint32_t vector = dw11 & 0xffff;

    if (vector >= vectors(nvme)) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    if (dw11 & VECTOR_UNCOALESCED) {
        nvme->state.features.vector_uncoalesced |= UINT64_C(1) << vector;
    } else {
        nvme->state.features.vector_uncoalesced &= ~(UINT64_C(1) << vector);
    }
    return NVME_OK;
}

static uint16_t set_if(bool valid, uint32_t *field, uint32_t value)
{
    if (!valid) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    *field = value;
    return NVME_OK;
}

static uint16_t set_value(struct nvme *nvme, uint32_t feature, uint32_t dw11, uint32_t *result)
{
    struct nvme_features *features = &nvme->state.features;
    uint16_t status;

    switch (feature) {
    case NVME_FEATURE_ARBITRATION:
        return set_if(true, &features->arbitration, dw11 & 0xffffff07);
    case NVME_FEATURE_POWER:
        return set_if((dw11 & 0x1f) == 0, &features->power, dw11 & 0xff); /* one state: 0 */
    case NVME_FEATURE_TEMPERATURE:
        return set_temperature(nvme, dw11);
    case NVME_FEATURE_ERROR_RECOVERY:
        return set_if(!(dw11 & ERROR_RECOVERY_DULBE), &features->error_recovery, dw11 & 0xffff);
    case NVME_FEATURE_WRITE_CACHE:
        return set_if(true, &features->write_cache, dw11 & 1);
    case NVME_FEATURE_QUEUES:
        return set_queues(nvme, dw11, result);
    case NVME_FEATURE_COALESCING:
        return set_if(true, &features->coalescing, dw11 & 0xffff);
    case NVME_FEATURE_VECTOR:
        return set_vector(nvme, dw11);
    case NVME_FEATURE_ATOMICITY:
        return set_if(true, &features->atomicity, dw11 & 1);
    case NVME_FEATURE_ASYNC_EVENTS:
        status = set_if(true, &features->async_events,
                        dw11 & (NVME_ASYNC_SMART | NVME_ASYNC_NAMESPACES));
        nvme_check_temperature(nvme);
        return status;
    default:
        return NVME_INVALID_FIELD | NVME_DNR;
    }
}

uint16_t nvme_set_features(struct nvme *nvme, const struct nvme_sqe *sqe, uint32_t *result)
{
    uint32_t feature = sqe->dw10 & 0xff, ignored;

    /* A feature that is not known is just that, whatever else was asked for. */
    if (get_value(nvme, &nvme->state.features, feature, sqe->dw11, &ignored) != NVME_OK) {
        return NVME_INVALID_FIELD | NVME_DNR;
    }
    if (sqe->dw10 & SET_SAVE) {
        return NVME_FEATURE_NOT_SAVEABLE | NVME_DNR;
    }
    if (of_namespace(feature)) {
        if (sqe->nsid != 1 && sqe->nsid != NVME_NSID_ALL) {
            return NVME_INVALID_NAMESPACE | NVME_DNR;
        }
    } else if (sqe->nsid != 0 && sqe->nsid != NVME_NSID_ALL) {
        return NVME_FEATURE_NOT_NAMESPACE_SPECIFIC | NVME_DNR;
    }
    return set_value(nvme, feature, sqe->dw11, result);
}
