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
    };

    return kind < sizeof(words) / sizeof(words[0]) && words[kind] ? words[kind] : "unknown";
}
