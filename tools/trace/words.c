/* SPDX-License-Identifier: BSD-2-Clause */
/* See words.h. */
#include "words.h"

const char *const trace_kind_words[TRACE_KINDS] = {
    [VIOMMU_OBSERVED_RESET] = "reset",
    [VIOMMU_OBSERVED_WRITE] = "write",
    [VIOMMU_OBSERVED_COMMAND] = "command",
    [VIOMMU_OBSERVED_COMPLETED] = "completed",
    [VIOMMU_OBSERVED_DESCRIPTOR] = "descriptor",
    [VIOMMU_OBSERVED_REFUSED] = "refused",
    [VIOMMU_OBSERVED_RETIRED] = "retired",
    [VIOMMU_OBSERVED_MISS] = "miss",
    [VIOMMU_OBSERVED_FAULT] = "fault",
    [VIOMMU_OBSERVED_MESSAGE] = "message",
    [VIOMMU_OBSERVED_EVENT] = "event",
    [VIOMMU_OBSERVED_ACCEPTED] = "accepted",
    [VIOMMU_OBSERVED_REQUEST] = "request",
    [VIOMMU_OBSERVED_RESTART] = "restart",
    [VIOMMU_OBSERVED_ANSWERED] = "answered",
    [VIOMMU_OBSERVED_REQUESTER] = "requester",
    [TRACE_END] = "end",
};

const struct trace_register trace_registers[TRACE_REGISTERS] = {
    {"GSTS", 0x1c, 4, UINT64_MAX},
    {"RTADDR", 0x20, 8, UINT64_MAX},
    {"CCMD", 0x28, 8, UINT64_MAX},
    {"FSTS", 0x34, 4, 1 << 4}, /* the queue's error */
    {"FECTL", 0x38, 4, 1u << 31}, /* not whether a fault's message is pending */
    {"FEDATA", 0x3c, 4, UINT64_MAX},
    {"FEADDR", 0x40, 4, UINT64_MAX},
    {"FEUADDR", 0x44, 4, UINT64_MAX},
    {"IQH", 0x80, 8, UINT64_MAX},
    {"IQT", 0x88, 8, UINT64_MAX},
    {"IQA", 0x90, 8, UINT64_MAX},
    {"ICS", 0x9c, 4, UINT64_MAX},
    {"IECTL", 0xa0, 4, UINT64_MAX},
    {"IEDATA", 0xa4, 4, UINT64_MAX},
    {"IEADDR", 0xa8, 4, UINT64_MAX},
    {"IEUADDR", 0xac, 4, UINT64_MAX},
    {"IQERCD", 0xb0, 8, 0xf}, /* not which device failed */
    {"IOTLB", 0xf8, 8, UINT64_MAX},
};

const struct trace_switch trace_switches[TRACE_SWITCHES] = {
    {"caching-mode", offsetof(struct viommu_vtd_config, caching_mode), false},
    {"super-pages", offsetof(struct viommu_vtd_config, no_super_pages), true},
    {"pass-through", offsetof(struct viommu_vtd_config, no_pass_through), true},
    {"queue", offsetof(struct viommu_vtd_config, no_queued_invalidation), true},
    {"snoop-control", offsetof(struct viommu_vtd_config, no_snoop_control), true},
    {"device-tlb", offsetof(struct viommu_vtd_config, device_tlb), false},
};

#define NUMBER(name, member, bits)                                                                 \
    {name, offsetof(struct viommu_virtio_config, member),                                          \
     sizeof(((struct viommu_virtio_config *)0)->member), bits}

const struct trace_number trace_numbers[TRACE_NUMBERS] = {
    NUMBER("features", features, true),
    NUMBER("page-sizes", page_size_mask, true),
    NUMBER("input-first", input.first, true),
    NUMBER("input-last", input.last, true),
    NUMBER("domain-first", domain_first, false),
    NUMBER("domain-last", domain_last, false),
    NUMBER("host-width", host_address_width, false),
    NUMBER("probe-size", probe_size, false),
    NUMBER("domains-max", domains_max, false),
    NUMBER("endpoints-max", domain_endpoints_max, false),
    NUMBER("mappings-max", mappings_max, false),
    NUMBER("faults-max", faults_max, false),
};

uint64_t trace_number_get(const struct trace_number *number,
                          const struct viommu_virtio_config *config)
{
    const char *at = (const char *)config + number->offset;

    return number->size == 8   ? *(const uint64_t *)(const void *)at
           : number->size == 4 ? *(const uint32_t *)(const void *)at
                               : *(const uint8_t *)at;
}

void trace_number_set(const struct trace_number *number, struct viommu_virtio_config *config,
                      uint64_t value)
{
    char *at = (char *)config + number->offset;

    if (number->size == 8) {
        *(uint64_t *)(void *)at = value;
    } else if (number->size == 4) {
        *(uint32_t *)(void *)at = (uint32_t)value;
    } else {
        *(uint8_t *)at = (uint8_t)value;
    }
}

const char *const trace_state_words[TRACE_STATES] = {"features", "domains", "endpoints",
                                                     "mappings", "bypass"};

struct trace_state trace_state_of(struct viommu *iommu)
{
    enum { BYPASS = 36 }; /* in the configuration space */
    struct viommu_virtio_status status = {0};
    struct trace_state state;

    (void)viommu_virtio_status(iommu, &status, sizeof(status));
    state = (struct trace_state){
        .features = status.features,
        .domains = status.domains,
        .endpoints = status.endpoints,
        .mappings = status.mappings,
    };
    (void)viommu_mmio_read(iommu, BYPASS, 1, &state.bypass);
    return state;
}

const char *trace_request_word(unsigned type)
{
    static const char *const words[] = {"unknown", "attach", "detach", "map", "unmap", "probe"};

    return words[type < sizeof(words) / sizeof(words[0]) ? type : 0];
}

const char *const trace_status_words[TRACE_STATUSES] = {
    "ok", "ioerr", "unsupp", "deverr", "inval", "range", "noent", "fault", "nomem",
};

const char *trace_status_word(uint32_t status)
{
    return status < TRACE_STATUSES ? trace_status_words[status] : "none";
}

const char *trace_descriptor_word(uint64_t low)
{
    static const char *const words[] = {"unknown",    "context",         "iotlb",
                                        "device-tlb", "interrupt-cache", "wait"};
    uint64_t type = (low & 0xf) | (low >> 9 & 7) << 4;

    return words[type < sizeof(words) / sizeof(words[0]) ? type : 0];
}

const char *trace_event_word(enum viommu_event_kind kind)
{
    static const char *const words[] = {
        [VIOMMU_EVENT_FENCED] = "fenced",
        [VIOMMU_EVENT_DENIED] = "denied",
        [VIOMMU_EVENT_HOST_FAILURE] = "host-failure",
        [VIOMMU_EVENT_REENTRY] = "reentry",
        [VIOMMU_EVENT_OVERFLOW] = "overflow",
        [VIOMMU_EVENT_DIFFERS] = "differs",
        [VIOMMU_EVENT_FOLLOWS] = "follows",
        [VIOMMU_EVENT_REWRITTEN] = "rewritten",
        [VIOMMU_EVENT_STOP] = "stop",
        [VIOMMU_EVENT_BAD_ENTRY] = "bad-entry",
        [VIOMMU_EVENT_NOT_MAPPED] = "not-mapped",
        [VIOMMU_EVENT_QUOTA] = "quota",
        [VIOMMU_EVENT_OVERDUE] = "overdue",
        [VIOMMU_EVENT_CACHE_FULL] = "cache-full",
    };

    return kind < sizeof(words) / sizeof(words[0]) && words[kind] ? words[kind] : "unknown";
}
