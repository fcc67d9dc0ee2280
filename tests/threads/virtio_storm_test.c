/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A storm of MAP and UNMAP, while devices translate.
 *
 * A driver maps and unmaps pages of one domain without pause, at places in no useful order, up to
 * the limit and down again: so nodes of the domain's map are split, merged and given back all the
 * time. Device threads translate, mostly what no cache knows: they look into the map beside these
 * changes. Each answer must be the page's only possible one; some pages are always mapped, and are
 * never refused; a page that was taken away is refused from then on. Past the limit MAP is refused
 * with NOMEM. Memory is bounded by what is mapped at most, and given back.
 */
#include "crew.h"

#include "../support/virtio_spec.h"

#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define READERS 2
#define PLACES 4096u
#define ALWAYS 8u /* every so many places one is always mapped */
#define LIMIT 3000u
#define DOMAIN 1

struct storm {
    struct viommu_memory *memory;
    struct viommu *iommu;
    struct viommu_device *devices[READERS + 1]; /* the last one is the driver's own */
    struct crew crew;
    uint64_t sent;
    uint64_t completed;
    bool mapped[PLACES];
    uint64_t count;
    uint64_t full; /* how often MAP met the limit */
    _Atomic uint64_t found;
    _Atomic uint64_t refused;
};

struct reader {
    struct storm *storm;
    struct viommu_device *device;
    struct random random;
};

static uint64_t iova_of(unsigned place)
{
    return 0x100000000 + place * GUEST_PAGE;
}

static uint64_t gpa_of(unsigned place)
{
    /* Not in the order of places: an address out of another page's mapping is seen. */
    return UINT64_C(0x200000000000) + (place * UINT64_C(2654435761) & 0xfffff) * GUEST_PAGE;
}

static bool is_always(unsigned place)
{
    return place % ALWAYS == 0;
}

static void on_completed(void *opaque, uint64_t token, uint8_t status)
{
    struct storm *storm = opaque;

    guest_ok(status, "a request that was pending");
    storm->completed = token;
}

static void translate(struct reader *reader)
{
    struct storm *storm = reader->storm;
    unsigned place = random_below(&reader->random, PLACES);
    struct viommu_translation out;
    int error = viommu_device_translate(reader->device, NULL, iova_of(place) + 8, VIOMMU_WRITE,
                                        &out);

    if (!error && out.gpa != gpa_of(place) + 8) {
        guest_die("place %u leads to %#llx", place, (unsigned long long)out.gpa);
    }
    if (error && (error != -EFAULT || is_always(place))) {
        guest_die("place %u: %d", place, error);
    }
    atomic_fetch_add_explicit(error ? &storm->refused : &storm->found, 1, memory_order_relaxed);
}

static void *read_on(void *arg)
{
    struct reader *reader = arg;
    struct storm *storm = reader->storm;

    while (crew_working(&storm->crew)) {
        unsigned count = random_below(&reader->random, 40);

        guest_ok(viommu_dma_begin(storm->iommu), "section");
        for (unsigned i = 0; i < count; i++) {
            translate(reader);
        }
        viommu_dma_end(storm->iommu);
        sched_yield();
    }
    return NULL;
}

/* Returns the status, when it is complete. */
static uint8_t request(struct storm *storm, struct spec_virtio_request request)
{
    uint8_t out[4];
    size_t written;
    int ret = viommu_virtio_request(storm->iommu, request.bytes, request.size, out, sizeof(out),
                                    ++storm->sent, &written);

    if (!ret && written == sizeof(out)) {
        return out[0];
    }
    if (ret != VIOMMU_PENDING) {
        guest_die("request %u: %d", request.bytes[0], ret);
    }
    while (storm->completed < storm->sent) {
        (void)viommu_process(storm->iommu, 0);
        sched_yield();
    }
    return SPEC_S_OK;
}

static void map(struct storm *storm, unsigned place)
{
    uint8_t status = request(storm, spec_virtio_map(DOMAIN, iova_of(place), iova_of(place) + 0xfff,
                                                    gpa_of(place), SPEC_MAP_RW));
    uint8_t expected = storm->count < LIMIT ? SPEC_S_OK : SPEC_S_NOMEM;

    if (status != expected) {
        guest_die("MAP with %llu mapped: %u", (unsigned long long)storm->count, status);
    }
    storm->mapped[place] = status == SPEC_S_OK;
    storm->count += status == SPEC_S_OK;
    storm->full += status != SPEC_S_OK;
}

static void unmap(struct storm *storm, unsigned place)
{
    struct viommu_translation out;

    guest_ok(request(storm, spec_virtio_unmap(DOMAIN, iova_of(place), iova_of(place) + 0xfff)),
             "UNMAP");
    storm->mapped[place] = false;
    storm->count--;
    if (viommu_device_translate(storm->devices[READERS], NULL, iova_of(place), VIOMMU_READ, &out) !=
        -EFAULT) {
        guest_die("place %u is there after it was taken away", place);
    }
}

/* A run of places, all of them: one UNMAP of many. What is always mapped lies between. */
static void unmap_between(struct storm *storm, unsigned place)
{
    unsigned first = place - place % ALWAYS + 1;
    unsigned last = first + ALWAYS - 2;

    guest_ok(request(storm, spec_virtio_unmap(DOMAIN, iova_of(first), iova_of(last) + 0xfff)),
             "UNMAP of several");
    for (unsigned i = first; i <= last; i++) {
        storm->count -= storm->mapped[i];
        storm->mapped[i] = false;
    }
}

/* One step up or down. */
static void step(struct storm *storm, struct random *random, bool up)
{
    unsigned place = random_below(random, PLACES);

    if (is_always(place)) {
        return;
    }
    if (!storm->mapped[place]) {
        if (up || random_percent(random, 10)) {
            map(storm, place);
        }
    } else if (!up) {
        if (random_percent(random, 30)) {
            unmap_between(storm, place);
        } else {
            unmap(storm, place);
        }
    }
}

static void create(struct storm *storm)
{
    struct viommu_config config = {.opaque = storm, .iotlb_entries = 256};
    struct viommu_virtio_config virtio = {.completed = on_completed, .mappings_max = LIMIT};

    guest_ok(viommu_memory_create(&storm->memory), "memory");
    config.memory = storm->memory;
    guest_ok(viommu_virtio_create(&config, &virtio, &storm->iommu), "create");
    for (unsigned i = 0; i <= READERS; i++) {
        struct viommu_device_config device = {.requester = (uint16_t)(8 + i)};

        guest_ok(viommu_device_add(storm->iommu, &device, &storm->devices[i]), "device");
    }
    guest_ok(viommu_start(storm->iommu), "start");
    guest_ok(viommu_virtio_accept(storm->iommu, viommu_virtio_features(storm->iommu)), "accept");
    for (unsigned i = 0; i <= READERS; i++) {
        guest_ok(request(storm, spec_virtio_attach(DOMAIN, 8 + i, 0)), "ATTACH");
    }
    for (unsigned place = 0; place < PLACES; place += ALWAYS) {
        map(storm, place);
    }
}

/* Up to the limit and down to a few. */
static void cycle(struct storm *storm, struct random *random)
{
    uint64_t full = storm->full;

    while (storm->full < full + 10) {
        step(storm, random, true);
    }
    while (storm->count > PLACES / ALWAYS + 300) {
        step(storm, random, false);
    }
}

static uint64_t memory_of(struct storm *storm)
{
    struct viommu_virtio_status status;

    guest_ok(viommu_virtio_status(storm->iommu, &status, sizeof(status)), "status");
    if (status.mappings != storm->count) {
        guest_die("%llu mappings instead of %llu", (unsigned long long)status.mappings,
                  (unsigned long long)storm->count);
    }
    return status.memory;
}

static void expect_bounded(struct storm *storm, size_t most, const char *when)
{
    size_t now = mallinfo2().uordblks;

    /* Runs of half-empty nodes take up to a hundred bytes. */
    if (now > most || memory_of(storm) > LIMIT * 100) {
        guest_die("%s: %zu bytes instead of %zu; mappings take %llu", when, now, most,
                  (unsigned long long)memory_of(storm));
    }
}

static void run(struct storm *storm, size_t most)
{
    struct crew_time time = crew_begin();
    struct random random = {11};
    unsigned cycles = 0;

    do {
        cycle(storm, &random);
        expect_bounded(storm, most, "in the storm");
        cycles++;
    } while (crew_more(&time, storm->found && storm->refused));
    printf("%u cycles, %llu translations, %llu refused\n", cycles,
           (unsigned long long)storm->found, (unsigned long long)storm->refused);
}

int main(void)
{
    struct storm *storm = calloc(1, sizeof(*storm));
    struct reader readers[READERS];
    size_t before;

    create(storm);
    before = mallinfo2().uordblks;
    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = (struct reader){storm, storm->devices[i], {i + 1}};
        crew_start(&storm->crew, read_on, &readers[i]);
    }
    run(storm, before + LIMIT * 100);
    crew_stop(&storm->crew);
    if (!storm->found || !storm->refused) {
        guest_die("the threads did not meet");
    }
    /* Nobody looks any more: what an UNMAP finds kept, it gives back. */
    if (!storm->mapped[1]) {
        map(storm, 1);
    }
    unmap(storm, 1);
    if (memory_of(storm) > (storm->count + 1000) * 100) {
        guest_die("%llu mappings keep %llu bytes", (unsigned long long)storm->count,
                  (unsigned long long)memory_of(storm));
    }
    viommu_destroy(storm->iommu);
    viommu_memory_destroy(storm->memory);
    free(storm);
    return 0;
}
