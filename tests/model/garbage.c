/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory and registers full of garbage: see garbage.h.
 *
 * Memory holds random words, half of them shaped like entries and descriptors that lead somewhere,
 * so that walks and the queue go deep. Only what holds for any guest is checked: calls return, DMA
 * returns a documented error, FSTS.PPF agrees with the records, the unit's work ends.
 */
#include "garbage.h"

#include "../support/guest.h"
#include "../support/random.h"

#include <errno.h>
#include <time.h>

#define PAGES 32
#define DEVICES 3

struct garbage {
    struct random random;
    struct guest guest;
    struct viommu_device *devices[DEVICES];
    uint64_t seed;
};

static uint64_t any_word(struct garbage *garbage)
{
    uint64_t word = random_u64(&garbage->random);

    switch (random_below(&garbage->random, 6)) {
    case 0:
        return word;
    case 1:
        return random_below(&garbage->random, 8) | (word & 3) << 4 | (word & 0x70000);
    case 2:
        return 0;
    default: /* a pointer into memory */
        return (word % PAGES) << 12 | (word >> 32 & 0x83) | 1;
    }
}

static void fill(struct garbage *garbage)
{
    for (uint64_t at = 0; at < PAGES * GUEST_PAGE; at += 8) {
        guest_store(&garbage->guest, at, any_word(garbage));
    }
}

static uint64_t any_iova(struct garbage *garbage)
{
    uint64_t word = random_u64(&garbage->random);

    switch (random_below(&garbage->random, 4)) {
    case 0:
        return word;
    case 1:
        return word & 0xffffffffffff;
    case 2:
        return 0xfee00000 | (word & 0xfffff);
    default:
        return word & 0x3fffff;
    }
}

static bool known_error(int error)
{
    return error == 0 || error == -EFAULT || error == -ENXIO || error == -EROFS ||
           error == -EINVAL || error == -EPERM || error == -ENOTSUP;
}

static void dma(struct garbage *garbage)
{
    static uint8_t buf[20000];
    struct viommu_device *device = garbage->devices[random_below(&garbage->random, DEVICES)];
    struct viommu_dma_attrs attrs = {.type = random_below(&garbage->random, 4)};
    uint64_t iova = any_iova(garbage);
    size_t len = random_below(&garbage->random, sizeof(buf));
    struct viommu_ats_entry entries[4];
    struct viommu_translation out;
    int result;

    switch (random_below(&garbage->random, 4)) {
    case 0:
        result = viommu_device_read(device, &attrs, iova, buf, len);
        break;
    case 1:
        result = viommu_device_write(device, &attrs, iova, buf, len & 7);
        break;
    case 2:
        result = viommu_device_translate(device, &attrs, iova,
                                         random_below(&garbage->random, 4), &out);
        break;
    default:
        result = viommu_device_ats_translate(device, &attrs, iova, 1 + len, len & 1, entries, 4);
        if (result > 0 && result <= 4) {
            result = 0;
        }
        break;
    }
    if (!known_error(result)) {
        guest_die("garbage --seed %llu: DMA returned %d", (unsigned long long)garbage->seed,
                  result);
    }
}

static void poke(struct garbage *garbage)
{
    static const uint8_t offsets[] = {0x18, 0x18, 0x18, 0x20, 0x28, 0x34, 0x38, 0x80, 0x88,
                                      0x88, 0x90, 0x9c, 0xa0, 0xb0, 0xb8};
    unsigned size = 1 + random_below(&garbage->random, 8);
    uint64_t offset = offsets[random_below(&garbage->random, sizeof(offsets))];
    uint64_t value = any_word(garbage);

    if (random_percent(&garbage->random, 40)) {
        offset = random_below(&garbage->random, 0x2010);
    } else if (random_percent(&garbage->random, 70)) {
        size = 4u << random_below(&garbage->random, 2);
    }
    if (offset == SPEC_GCMD && random_percent(&garbage->random, 80)) {
        value = SPEC_TE | SPEC_QIE | (value & 1 ? SPEC_SRTP : 0);
    } else if (random_percent(&garbage->random, 20)) {
        value = random_u64(&garbage->random);
    }
    guest_write(&garbage->guest, offset, size, value);
    guest_read(&garbage->guest, random_below(&garbage->random, 0x2010),
               1 + random_below(&garbage->random, 8));
}

static void check_faults(struct garbage *garbage)
{
    struct guest *guest = &garbage->guest;
    uint32_t status = (uint32_t)guest_read(guest, SPEC_FSTS, 4);
    bool pending = false;

    for (unsigned i = 0; i < guest->fault_count; i++) {
        pending |= guest_read(guest, guest->fault_offset + 16 * i + 8, 8) >> 63;
    }
    if (pending != !!(status & SPEC_PPF)) {
        guest_die("garbage --seed %llu: FSTS %#x, records %s", (unsigned long long)garbage->seed,
                  status, pending ? "pending" : "clear");
    }
}

static uint64_t seconds(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec;
}

void garbage_run(uint64_t seed, uint64_t steps)
{
    static const uint8_t widths[] = {39, 48, 57};
    struct garbage garbage = {.random = {seed}, .seed = seed};
    uint64_t start = seconds();
    struct guest_config config = {
        .vtd =
            {
                .address_width = widths[seed % 3],
                .device_tlb = seed & 2,
                .fault_records = (uint16_t)(1 + (seed * 7 & 255)),
                .host_address_width = seed & 4 ? 52 : 36,
            },
        .ram_pages = PAGES,
        .iotlb_entries = 256,
    };

    guest_ok(guest_init(&garbage.guest, &config), "guest");
    for (unsigned i = 0; i < DEVICES; i++) {
        struct viommu_device_config device = {
            .requester = (uint16_t)(i * 0x107),
            .ats = seed & 2,
        };

        guest_ok(viommu_device_add(garbage.guest.iommu, &device, &garbage.devices[i]), "device");
    }
    fill(&garbage);
    for (uint64_t step = 0; step < steps; step++) {
        switch (random_below(&garbage.random, 8)) {
        case 0:
        case 1:
        case 2:
            poke(&garbage);
            break;
        case 3:
            viommu_process(garbage.guest.iommu, 1 + random_below(&garbage.random, 8));
            break;
        case 4:
            guest_store(&garbage.guest, random_below(&garbage.random, PAGES * 512) * 8ull,
                        any_word(&garbage));
            break;
        default:
            dma(&garbage);
            break;
        }
        if (step % 64 == 0) {
            guest_process(&garbage.guest);
            check_faults(&garbage);
        }
        if (seconds() - start > 60) {
            guest_die("garbage --seed %llu takes too long", (unsigned long long)seed);
        }
    }
    guest_fini(&garbage.guest);
}
