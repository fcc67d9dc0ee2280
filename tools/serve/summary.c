/* SPDX-License-Identifier: BSD-2-Clause */
/* The counters of the unit and of the devices; see summary.h. */
#include "summary.h"

#include <inttypes.h>
#include <stdio.h>

#include <viommu/iommu.h>

#include "kind.h"
#include "service.h"

static void print_line(const char *what, uint64_t n)
{
    printf("  %-32s %" PRIu64 "\n", what, n);
}

static void print_unit(const struct service *service)
{
    struct viommu_stats stats;

    viommu_stats_get(service->vtd.iommu, &stats, sizeof(stats));
    print_line("clients of the unit", service->vtd_port.clients);
    print_line("translations", stats.translations);
    print_line("IOTLB hits", stats.iotlb_hits);
    print_line("page walks", stats.walks);
    print_line("bytes read by devices", stats.bytes_read);
    print_line("bytes written by devices", stats.bytes_written);
    print_line("requests refused", stats.refused);
    print_line("faults recorded", stats.faults_recorded);
    print_line("faults without room", stats.faults_lost);
    print_line("context invalidations, global", stats.context_invalidations[0]);
    print_line("context invalidations, domain", stats.context_invalidations[1]);
    print_line("context invalidations, device", stats.context_invalidations[2]);
    print_line("IOTLB invalidations, global", stats.iotlb_invalidations[0]);
    print_line("IOTLB invalidations, domain", stats.iotlb_invalidations[1]);
    print_line("IOTLB invalidations, page", stats.iotlb_invalidations[2]);
    print_line("device-TLB invalidations", stats.device_tlb_invalidations);
    print_line("interrupt-cache invalidations", stats.interrupt_cache_invalidations);
    print_line("wait descriptors completed", stats.waits_completed);
    print_line("queue errors", stats.queue_errors);
    print_line("mappings made by mirrors", stats.calls_map);
    print_line("mappings taken away by mirrors", stats.calls_unmap);
    print_line("pages interrupted in mirrors", stats.pages_interrupted);
    print_line("interrupts of the unit", stats.interrupts_sent);
    print_line("interrupt messages delivered", service->vtd.messages_sent);
    print_line("interrupt messages lost", service->vtd.messages_lost);
}

static void print_direct(const struct service *service)
{
    uint64_t pinned = 0, revoked = 0;

    for (unsigned i = 0; i < service->device_count; i++) {
        pinned += service->devices[i].direct.pinned;
        revoked += service->devices[i].direct.revoked;
    }
    print_line("windows pinned", pinned);
    print_line("windows revoked", revoked);
}

void summary_print(const struct service *service)
{
    struct summary summary = {.transfers = 0};

    for (unsigned i = 0; i < service->device_count; i++) {
        const struct served_device *served = &service->devices[i];

        served->kind->count(served, &summary);
    }
    puts("viommu serve: summary");
    print_line("device transfers done", summary.transfers);
    print_line("device transfers refused", summary.refusals);
    if (service->has_unit) {
        print_unit(service);
    } else {
        print_direct(service);
    }
    fflush(stdout);
}
