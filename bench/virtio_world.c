/* SPDX-License-Identifier: BSD-2-Clause */
/* Making what the rows `virtio-*` work on, and looking whether it is right. */
#include "virtio_world.h"

#include "guest.h"
#include "virtio_spec.h"

#include <errno.h>

#define SAMPLES 64

static void put(uint8_t *at, struct spec_virtio_request request)
{
    memcpy(at, request.bytes, request.size);
}

void virtio_put_map(uint8_t *at, uint64_t place)
{
    uint64_t iova = virtio_iova(place);

    put(at, spec_virtio_map(VIRTIO_DOMAIN, iova, iova + 0xfff, virtio_gpa(place), SPEC_MAP_RW));
}

void virtio_put_unmap(uint8_t *at, uint64_t place)
{
    uint64_t iova = virtio_iova(place);

    put(at, spec_virtio_unmap(VIRTIO_DOMAIN, iova, iova + 0xfff));
}

bool virtio_send(struct virtio_world *world, const uint8_t *requests, uint64_t count)
{
    uint32_t refused = 0;
    size_t written;
    uint8_t out[4];

    for (uint64_t i = 0; i < count; i++) {
        int ret = viommu_virtio_request(world->iommu, requests + i * VIRTIO_REQUEST, VIRTIO_REQUEST,
                                        out, sizeof(out), i, &written);

        refused |= (uint32_t)ret | out[0] | (written != 4);
    }
    return !refused;
}

bool virtio_send_baseline(struct virtio_world *world, const uint8_t *requests, uint64_t count)
{
    uint32_t refused = 0;
    uint8_t out[4];

    for (uint64_t i = 0; i < count; i++) {
        size_t written = baseline_virtio_request(
            &world->baseline, requests + i * VIRTIO_REQUEST, VIRTIO_REQUEST, out, sizeof(out));

        refused |= (uint32_t)out[0] | (written != 4);
    }
    return !refused;
}

static void attach(struct virtio_world *world, uint32_t endpoint)
{
    struct spec_virtio_request request = spec_virtio_attach(VIRTIO_DOMAIN, endpoint, 0);
    uint8_t bytes[VIRTIO_REQUEST] = {0};

    put(bytes, request);
    if (!virtio_send(world, bytes, 1) || !virtio_send_baseline(world, bytes, 1)) {
        guest_die("attaching an endpoint");
    }
}

static void create(struct virtio_world *world, uint32_t entries)
{
    struct viommu_config config = {.iotlb_entries = entries};
    struct viommu_virtio_config virtio = {.mappings_max = (uint32_t)world->places};

    guest_ok(viommu_memory_create(&world->memory), "making a memory");
    config.memory = world->memory;
    guest_ok(viommu_virtio_create(&config, &virtio, &world->iommu), "making a virtio-iommu");
    for (unsigned i = 0; i < VIRTIO_DEVICES; i++) {
        struct viommu_device_config device = {.requester = (uint16_t)(VIRTIO_ENDPOINT + i)};

        guest_ok(viommu_device_add(world->iommu, &device, &world->devices[i]), "adding a device");
    }
    guest_ok(viommu_start(world->iommu), "starting");
    guest_ok(viommu_virtio_accept(world->iommu, viommu_virtio_features(world->iommu)),
             "accepting features");
    baseline_virtio_init(&world->baseline, world->places);
}

void virtio_world_init(struct virtio_world *world, uint64_t mappings, uint32_t entries)
{
    uint64_t place = 0;

    *world = (struct virtio_world){.mappings = mappings, .places = 1};
    while (world->places < 2 * mappings) {
        world->places *= 2;
    }
    create(world, entries);
    for (unsigned i = 0; i < VIRTIO_DEVICES; i++) {
        attach(world, VIRTIO_ENDPOINT + i);
    }
    for (uint64_t i = 0; i < mappings; i++) {
        uint8_t request[VIRTIO_REQUEST];

        virtio_put_map(request, place);
        if (!virtio_send(world, request, 1) || !virtio_send_baseline(world, request, 1)) {
            guest_die("mapping a page");
        }
        place = virtio_next(world, place);
    }
    world->window.next = place;
    world->baseline_window.next = place;
}

void virtio_world_fini(struct virtio_world *world)
{
    baseline_virtio_fini(&world->baseline);
    viommu_destroy(world->iommu);
    viommu_memory_destroy(world->memory);
}

/* Where the library has the place, or 0. */
static uint64_t ask(struct virtio_world *world, uint64_t place)
{
    struct viommu_translation out;

    return viommu_device_translate(world->devices[1], NULL, virtio_iova(place) + 1, VIOMMU_WRITE,
                                   &out)
               ? 0
               : out.gpa;
}

static uint64_t ask_baseline(struct virtio_world *world, uint64_t place)
{
    uint64_t gpa;

    return baseline_virtio_translate(&world->baseline, VIRTIO_ENDPOINT + 1, virtio_iova(place) + 1,
                                     VIOMMU_WRITE, &gpa)
               ? gpa
               : 0;
}

static bool window_ok(struct virtio_world *world, struct virtio_window window,
                      uint64_t (*where)(struct virtio_world *world, uint64_t place))
{
    bool ok = true;

    for (unsigned i = 0; ok && i < SAMPLES && i < world->mappings; i++) {
        ok = where(world, window.oldest) == virtio_gpa(window.oldest) + 1 &&
             !where(world, window.next);
        window.oldest = virtio_next(world, window.oldest);
        window.next = virtio_next(world, window.next);
    }
    return ok;
}

bool virtio_window_ok(struct virtio_world *world)
{
    struct viommu_virtio_status status;

    guest_ok(viommu_virtio_status(world->iommu, &status, sizeof(status)), "asking for the status");
    return status.mappings == world->mappings && window_ok(world, world->window, ask);
}

bool virtio_window_ok_baseline(struct virtio_world *world)
{
    return world->baseline.mappings == world->mappings &&
           window_ok(world, world->baseline_window, ask_baseline);
}
