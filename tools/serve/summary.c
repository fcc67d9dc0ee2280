/* SPDX-License-Identifier: BSD-2-Clause */
/* The counters of the unit and of the devices; see summary.h. */
#include "summary.h"

#include <inttypes.h>
#include <stdio.h>

#include <viommu/iommu.h>

#include "kind.h"
#include "service.h"

void summary_print_line(const char *what, uint64_t n)
{
    printf("  %-36s %" PRIu64 "\n", what, n);
}

/* What only the guest of a VT-d unit does. */
static void print_vtd(const struct viommu_stats *stats)
{
    summary_print_line("context invalidations, global", stats->context_invalidations[0]);
    summary_print_line("context invalidations, domain", stats->context_invalidations[1]);
    summary_print_line("context invalidations, device", stats->context_invalidations[2]);
    summary_print_line("IOTLB invalidations, global", stats->iotlb_invalidations[0]);
    summary_print_line("IOTLB invalidations, domain", stats->iotlb_invalidations[1]);
    summary_print_line("IOTLB invalidations, page", stats->iotlb_invalidations[2]);
    summary_print_line("device-TLB invalidations", stats->device_tlb_invalidations);
    summary_print_line("interrupt-cache invalidations", stats->interrupt_cache_invalidations);
    summary_print_line("wait descriptors completed", stats->waits_completed);
    summary_print_line("queue errors", stats->queue_errors);
    summary_print_line("interrupts of the unit", stats->interrupts_sent);
}

/* What only the guest of a virtio-iommu does. */
static void print_virtio(const struct virtio_iommu *virtio, const struct viommu_stats *stats)
{
    struct viommu_virtio_status status;

    viommu_virtio_status(virtio->unit.iommu, &status, sizeof(status));
    summary_print_line("IOTLB invalidations, page", stats->iotlb_invalidations[2]);
    summary_print_line("requests of the guest", virtio->requests);
    summary_print_line("of them not carried out", status.refused);
    summary_print_line("of them answered later", virtio->pended);
    summary_print_line("that made no sense to the queue", virtio->malformed);
    summary_print_line("domains now", status.domains);
    summary_print_line("endpoints attached now", status.endpoints);
    summary_print_line("mappings now", status.mappings);
    summary_print_line("faults told to the guest", virtio->faults_told);
    summary_print_line("faults that wait for a buffer", status.faults_waiting);
    summary_print_line("fault buffers refused", virtio->buffers_refused);
    summary_print_line("fault buffers not in memory", virtio->faults_dropped);
    summary_print_line("queues broken", virtio->pci.needed_resets);
}

static void print_unit(const struct service *service)
{
    struct viommu_stats stats;

    viommu_stats_get(service->unit->iommu, &stats, sizeof(stats));
    summary_print_line("clients of the unit", service->unit_port.clients);
    summary_print_line("translations", stats.translations);
    summary_print_line("IOTLB hits", stats.iotlb_hits);
    summary_print_line("page walks", stats.walks);
    summary_print_line("bytes read by devices", stats.bytes_read);
    summary_print_line("bytes written by devices", stats.bytes_written);
    summary_print_line("requests refused", stats.refused);
    summary_print_line("faults recorded", stats.faults_recorded);
    summary_print_line("faults without room", stats.faults_lost);
    if (service->options->iommu == SERVE_VIRTIO) {
        print_virtio(&service->virtio, &stats);
    } else {
        print_vtd(&stats);
    }
    summary_print_line("windows pinned", stats.windows_pinned);
    summary_print_line("windows revoked", stats.windows_revoked);
    summary_print_line("windows overdue", stats.windows_overdue);
    summary_print_line("windows looked at and left", stats.windows_kept);
    summary_print_line("mappings made by mirrors", stats.calls_map);
    summary_print_line("mappings taken away by mirrors", stats.calls_unmap);
    summary_print_line("pages interrupted in mirrors", stats.pages_interrupted);
    summary_print_line("interrupt messages delivered", service->unit->messages_sent);
    summary_print_line("interrupt messages lost", service->unit->messages_lost);
}

static void print_direct(const struct service *service)
{
    uint64_t pinned = 0, revoked = 0;

    for (unsigned i = 0; i < service->device_count; i++) {
        pinned += service->devices[i].direct.pinned;
        revoked += service->devices[i].direct.revoked;
    }
    summary_print_line("windows pinned", pinned);
    summary_print_line("windows revoked", revoked);
}

void summary_print(const struct service *service)
{
    puts("viommu serve: summary");
    if (service->unit) {
        print_unit(service);
    } else {
        print_direct(service);
    }
    for (unsigned i = 0; i < service->device_count; i++) {
        const struct served_device *served = &service->devices[i];

        printf("%s\n", served->name);
        served->kind->summarize(served);
    }
    fflush(stdout);
}
