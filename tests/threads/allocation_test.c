/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every allocation fails once, one after another, through a life of the library: each call returns
 * 0 or a documented error, nothing leaks (the address sanitizer looks), nothing crashes, and what
 * was created before the failure still works and can be destroyed.
 */
#include "base/alloc.h"

#include "../support/guest.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#define LIVES_MAX 2000

static unsigned failures; /* calls of this life that failed */

/*
 * Whether the call succeeded. It may fail for lack of memory, or because a device that could not be
 * told of an invalidation was denied; anything else ends the test.
 */
static bool good(int result, const char *what)
{
    if (result == -ENOMEM || (result == -EPERM && base_alloc_failed())) {
        failures++;
        return false;
    }
    if (result < 0) {
        guest_die("%s: %d", what, result);
    }
    return true;
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    (void)change;
    return *(int *)opaque;
}

/* A thread's first section needs memory: its DMA may fail, and nothing else. */
static void *dma_of_new_thread(void *arg)
{
    uint8_t buf[16] = {0};

    good(viommu_device_write(arg, NULL, 0x1000, buf, sizeof(buf)), "write of a new thread");
    good(viommu_device_write(arg, NULL, 0x1000, buf, sizeof(buf)), "its second write");
    return NULL;
}

static void dma(struct guest *guest, struct viommu_device *device, bool ats)
{
    struct viommu_ats_entry entry;
    struct viommu_translation translation;
    uint8_t buf[64] = {0};
    pthread_t thread;
    int result;

    good(viommu_device_write(device, NULL, 0x1000, buf, sizeof(buf)), "write");
    good(viommu_device_read(device, NULL, 0x1000, buf, sizeof(buf)), "read");
    if (good(viommu_dma_begin(guest->iommu), "section")) {
        good(viommu_device_translate(device, NULL, 0x1000, VIOMMU_READ, &translation), "translate");
        viommu_dma_end(guest->iommu);
    }
    result = viommu_device_read(device, NULL, 0x5000, buf, 1);
    if (result != -EFAULT && good(result, "read")) {
        guest_die("a read without a mapping: %d", result);
    }
    if (ats) {
        good(viommu_device_ats_translate(device, NULL, 0x1000, 4096, false, &entry, 1), "ATS");
    }
    if (!pthread_create(&thread, NULL, dma_of_new_thread, device)) {
        pthread_join(thread, NULL);
    }
}

/* The guest cannot be told of a lack of memory: what it asks for must complete. */
static void invalidate(struct guest *guest)
{
    for (unsigned i = 0; i < 20; i++) {
        guest_queue_put(guest, spec_iotlb_invalidate(SPEC_SELECTIVE, 1, 0x1000, 0, false));
        guest_queue_put(guest, spec_device_tlb_invalidate(0x10, 0x1000, 0));
    }
    guest_queue_put(guest, spec_context_invalidate(SPEC_GLOBAL, 0, 0, 0));
    guest_queue_wait(guest);
}

static void change_memory(struct guest *guest)
{
    static uint8_t extra[GUEST_PAGE] __attribute__((aligned(4096)));
    struct viommu_memory_slot slot = {
        .first = 0x80000000,
        .last = 0x80000fff,
        .host = extra,
        .fd = -1,
    };

    for (unsigned adding = 2; adding--;) {
        struct viommu_memory_batch *batch;
        int result;

        if (!good(viommu_memory_batch_begin(guest->memory, &batch), "batch")) {
            return;
        }
        result = adding ? viommu_memory_batch_add(batch, &slot)
                        : viommu_memory_batch_remove(batch, slot.first, slot.last);
        if (!good(result, "batch item")) {
            viommu_memory_batch_abort(batch);
            return;
        }
        result = viommu_memory_batch_commit(batch, NULL, NULL);
        if (!good(result, "commit")) {
            return; /* ended, whatever was returned */
        }
        while (viommu_memory_process(guest->memory) == VIOMMU_PENDING) {
            viommu_process(guest->iommu, 0);
        }
    }
}

static void live_with_devices(struct guest *guest)
{
    static int answer = 0;
    struct viommu_device_config config = {.requester = 0x10, .ats = true};
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB,
        .change = on_change,
        .opaque = &answer,
    };
    struct viommu_subscriber *subscriber;
    struct viommu_device *device;
    struct viommu_device *second;

    if (!good(viommu_device_add(guest->iommu, &config, &device), "device")) {
        return;
    }
    good(viommu_device_subscribe(device, &what, &subscriber), "subscribe");
    dma(guest, device, true);
    good(viommu_device_add_alias(device, 0x11), "alias");
    config.requester = 0x20;
    if (good(viommu_device_add(guest->iommu, &config, &second), "second device")) {
        good(viommu_device_set_requester(second, 0x28), "renumber");
        guest_ok(viommu_device_remove(second), "remove");
    }
    invalidate(guest);
    dma(guest, device, true);
    change_memory(guest);
    guest_ok(viommu_reset(guest->iommu), "reset");
    guest_process(guest);
}

static void live(void)
{
    struct guest_config config = {
        .vtd = {.device_tlb = true},
        .ram_pages = 64,
        .iotlb_entries = 256,
    };
    struct guest guest;
    uint64_t table;

    if (!good(guest_init(&guest, &config), "guest")) {
        return;
    }
    table = guest_page(&guest);
    guest_map(&guest, table, 4, 0x1000, guest_page(&guest), 1, 3);
    guest_attach(&guest, 0x10, 1, table, 4, SPEC_TT_ALL);
    guest_set_root(&guest);
    guest_queue_on(&guest);
    guest_command(&guest, SPEC_TE, true);
    live_with_devices(&guest);
    guest_fini(&guest);
}

int main(void)
{
    unsigned long n;

    live(); /* whatever is allocated once for the process */
    for (n = 1; n < LIVES_MAX; n++) {
        failures = 0;
        base_alloc_fail_at(n);
        live();
        if (!base_alloc_failed()) {
            break;
        }
        base_alloc_fail_at(0);
        printf("allocation %lu fails: %u calls failed\n", n, failures);
    }
    base_alloc_fail_at(0);
    if (n == LIVES_MAX || n < 5) {
        guest_die("%lu allocations: the test shows nothing", n);
    }
    failures = 0;
    live();
    if (failures) {
        guest_die("memory lacks though nothing fails");
    }
    printf("allocation: ok (%lu allocations)\n", n - 1);
    return 0;
}
