/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes units of any configuration, in any order of calls: devices, mirrors that narrow what a
 * guest is offered, and requests before and after the start; requests of the other model; calls
 * from inside a change; accesses to the interrupt addresses, by untranslated requests, lists and
 * translation requests; mirrors that fail with every error.
 *
 * Held: a configuration is taken, or refused with -EINVAL; what is not allowed inside a change is
 * -EDEADLK; what the other model knows is refused; a structure is filled up to the size that is
 * given for it; nothing is translated before the start.
 *
 * The first byte says which model, and whether the input has its configuration; then each operation
 * is a byte, the low three bits what, the others which allocation fails in it (0: none).
 */
#include "bytes.h"
#include "support/guest.h"
#include "support/virtio_spec.h"

#include <base/alloc.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES 4u
#define LIST    6u
#define ROUNDS  3000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bed {
    struct viommu_memory *memory;
    struct viommu *iommu;
    bool virtio;
    bool started;
    struct viommu_device *devices[DEVICES];
    struct viommu_subscriber *mirrors[DEVICES];
    uint8_t answer;
    uint64_t token;
    bool pending;
    uint64_t clock;
};

static uint8_t ram[0x20000] __attribute__((aligned(4096)));

static void check(bool holds, const char *what)
{
    if (!holds) {
        guest_die("units: %s", what);
    }
}

/* ---- configurations ---- */

static struct viommu_vtd_config any_vtd(struct fuzz_input *input)
{
    static const uint8_t widths[] = {0, 39, 48, 57, 40, 64, 255, 38};
    uint8_t widths_of = fuzz_byte(input);
    uint8_t flags = fuzz_byte(input);
    struct viommu_vtd_config config = {
        .address_width = widths[widths_of & 7],
        .host_address_width = (widths_of >> 3) ? (uint8_t)(33 + (widths_of >> 3)) : 0,
        .caching_mode = flags & 1,
        .no_super_pages = flags & 2,
        .no_pass_through = flags & 4,
        .no_queued_invalidation = flags & 8,
        .no_snoop_control = flags & 16,
        .device_tlb = flags & 32,
    };

    config.domain_bits = fuzz_byte(input) % 20;
    config.fault_records = (uint16_t)fuzz_number(input, 2);
    return config;
}

static struct viommu_virtio_config any_virtio(struct fuzz_input *input)
{
    uint8_t range = fuzz_byte(input);
    unsigned bits = range >> 3 & 15;
    struct viommu_virtio_config config = {
        .features = fuzz_number(input, 2),
        .page_size_mask = fuzz_number(input, 5),
        .domain_first = fuzz_byte(input),
        .domain_last = fuzz_byte(input),
        .host_address_width = fuzz_byte(input) % 80,
        .bypass = range & 0x80,
        .probe_size = (uint32_t)fuzz_number(input, 3),
        .faults_max = (uint32_t)fuzz_number(input, 3),
    };

    config.input.first = (uint64_t)(range & 7) << 12;
    config.input.last =
        bits == 15 ? UINT64_MAX : (UINT64_C(1) << (bits < 14 ? 11 + 4 * bits : 63)) - 1;
    return config;
}

static uint64_t on_clock(void *opaque)
{
    return ((struct bed *)opaque)->clock;
}

static void on_interrupt(void *opaque, const struct viommu_interrupt *interrupt)
{
    (void)opaque;
    check(interrupt->address >> 20 == 0xfee, "an interrupt from elsewhere");
}

static int create(struct bed *bed, struct fuzz_input *input, bool virtio, bool any,
                  struct viommu **out)
{
    const struct viommu_config config = {.memory = bed->memory,
                                         .iotlb_entries = 256,
                                         .ack_timeout_ms = 10,
                                         .clock = on_clock,
                                         .callbacks = {.interrupt = on_interrupt},
                                         .opaque = bed};
    struct viommu_vtd_config vtd = {.caching_mode = true, .device_tlb = true};
    struct viommu_virtio_config plain = {.probe_size = 240, .faults_max = 2};

    if (virtio) {
        plain = any ? any_virtio(input) : plain;
        return viommu_virtio_create(&config, &plain, out);
    }
    vtd = any ? any_vtd(input) : vtd;
    return viommu_vtd_create(&config, &vtd, out);
}

/* ---- changes ---- */

/* Nothing that changes the unit may be called from here. */
static void reenter(struct bed *bed)
{
    struct viommu_device_config config = {.requester = 99};
    struct spec_virtio_request probe = spec_virtio_probe(8);
    struct viommu_device *device = NULL;
    uint8_t out[256];
    size_t written;
    uint64_t value;

    check(viommu_process(bed->iommu, 0) == -EDEADLK &&
              viommu_device_add(bed->iommu, &config, &device) == -EDEADLK &&
              viommu_device_remove(bed->devices[0]) == (bed->devices[0] ? -EDEADLK : 0) &&
              viommu_mmio_write(bed->iommu, 0, 4, 0) == -EDEADLK &&
              viommu_reset(bed->iommu) == -EDEADLK,
          "called from inside a change");
    (void)viommu_mmio_read(bed->iommu, 0, 4, &value);
    if (bed->virtio && bed->started) {
        check(viommu_virtio_request(bed->iommu, probe.bytes, probe.size, out, sizeof(out), 0,
                                    &written) == -EDEADLK &&
                  viommu_virtio_reset(bed->iommu, 0) == -EDEADLK &&
                  viommu_virtio_accept(bed->iommu, 0) == -EDEADLK,
              "a request from inside a change");
    }
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    static const int errors[] = {0, -EIO, -ENOMEM, -EMFILE, -ENFILE, -EDQUOT, -ENOSPC, -EINVAL};
    struct bed *bed = opaque;

    check(change->first <= change->last, "a change that ends before it begins");
    reenter(bed);
    if (bed->answer & 8 && !bed->pending) {
        bed->pending = true;
        bed->token = change->token;
        return VIOMMU_PENDING;
    }
    return errors[bed->answer & 7];
}

static int on_fence(void *opaque)
{
    struct bed *bed = opaque;

    bed->pending = false;
    return bed->answer & 16 ? -EIO : 0;
}

static void subscribe(struct bed *bed, struct fuzz_input *input)
{
    static const uint64_t sizes[] = {0, 0x1000, 0x201000, 0x40201000, 0x40001000, 0x200000};
    uint8_t kind = fuzz_byte(input);
    uint8_t more = fuzz_byte(input);
    unsigned which = kind & 3;
    unsigned bits = more & 63;
    struct viommu_range allowed = {(uint64_t)(more >> 7) << 13,
                                   bits ? (UINT64_C(2) << bits) - 1 : 0xfffff000};
    struct viommu_subscription what = {
        .kinds = kind & 4 ? VIOMMU_CHANGE_UNMAP | VIOMMU_CHANGE_DEVICE_TLB
                          : VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .role = kind & 4 ? VIOMMU_ROLE_CACHE : VIOMMU_ROLE_MIRROR,
        .form = kind & 8 ? VIOMMU_FORM_RANGE : VIOMMU_FORM_POW2,
        .page_sizes = kind & 4 ? 0 : sizes[(kind >> 4 & 7) % 6],
        .allowed = kind & 4 || !(kind & 0x80) ? NULL : &allowed,
        .allowed_count = kind & 4 || !(kind & 0x80) ? 0 : 1,
        .mappings_max = more & 64 && !(kind & 4) ? 2 : 0,
        .change = on_change,
        .fence = kind & 4 ? NULL : on_fence,
        .opaque = bed,
    };

    if (bed->mirrors[which]) {
        (void)viommu_subscriber_destroy(bed->mirrors[which]);
        bed->mirrors[which] = NULL;
    } else if (bed->devices[which] &&
               viommu_device_subscribe(bed->devices[which], &what, &bed->mirrors[which])) {
        bed->mirrors[which] = NULL;
    }
}

/* ---- what devices do ---- */

static uint64_t any_address(struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    uint64_t low = fuzz_number(input, 2);

    switch (kind & 7) {
    case 0:
        return 0xfee00000 + (low & 0xfffff);
    case 1:
        return 0xfedff000 + (low & 0x1fff);
    case 2:
        return 0xfeeff000 + (low & 0x1fff);
    case 3:
        return -low - 1;
    case 4:
        return fuzz_number(input, 8);
    default:
        return low << 4;
    }
}

static void use(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    uint8_t more = fuzz_byte(input);
    struct viommu_device *device = bed->devices[kind & 3];
    const struct viommu_dma_attrs attrs = {.type = (enum viommu_dma_type)(more & 3),
                                           .alias = more >> 2 & 3};
    const struct viommu_dma_attrs *how = more & 0x80 ? &attrs : NULL;
    uint64_t iova = any_address(input);
    uint32_t perm = kind >> 6;
    struct viommu_ats_entry entries[LIST];
    struct viommu_translation out;
    uint64_t list[LIST];
    size_t done = 0;
    uint8_t bytes[16] = {1, 2, 3, 4};
    int ret = 0;

    if (!device) {
        return;
    }
    for (unsigned i = 0; i < LIST; i++) {
        list[i] = iova + 0x800 * i;
    }
    switch (kind >> 2 & 7) {
    case 0:
        ret = viommu_device_translate(device, how, iova, perm, &out);
        break;
    case 1:
        ret = viommu_device_write(device, how, iova, bytes, more & 15);
        break;
    case 2:
        ret = viommu_device_read(device, how, iova, bytes, more & 15);
        break;
    case 3:
        ret = viommu_device_translate_many(device, how, list, more % (LIST + 1), perm, list, &done);
        check(done <= more % (LIST + 1), "more than there are");
        break;
    case 4:
        ret =
            viommu_device_ats_translate(device, how, iova, any_address(input), kind & 0x40, entries,
                                        more & 0x40         ? 0
                                        : (more & 7) < LIST ? more & 7
                                                            : UINT32_MAX);
        check(ret <= (int)LIST, "more entries than there is room for");
        ret = ret > 0 ? 0 : ret;
        break;
    case 5:
        ret = viommu_device_write(device, how, iova & ~UINT64_C(3), bytes, 4);
        break;
    case 6:
        ret = viommu_device_add_alias(device, kind >> 6 | 0x40);
        ret = ret > 0 ? 0 : ret;
        break;
    default:
        ret = viommu_device_remove_aliases(device);
        break;
    }
    check(bed->started || ret || (kind >> 2 & 7) > 5 ||
              ((kind >> 2 & 7) == 3 && !(more % (LIST + 1))),
          "a translation before the start");
}

/* ---- what an embedder and a driver do ---- */

static void call_other(struct bed *bed, uint8_t kind)
{
    struct viommu_virtio_status status;
    struct viommu_stats stats;
    const struct viommu_vtd_config vtd = {
        .caching_mode = kind & 16, .device_tlb = kind & 32, .address_width = kind & 64 ? 39 : 0};
    struct spec_virtio_request probe = spec_virtio_probe(8);
    uint8_t out[300];
    size_t written = 1;
    uint64_t value;
    int ret;

    memset(&status, 0x5a, sizeof(status));
    ret = viommu_virtio_status(bed->iommu, &status, kind & 8 ? 8 : sizeof(status));
    check(ret == (bed->virtio ? 0 : -EINVAL), "the status of another model");
    check(!(kind & 8) || status.endpoints == 0x5a5a5a5a5a5a5a5a, "more than there is room for");
    check(viommu_stats_get(bed->iommu, &stats, kind & 8 ? 16 : sizeof(stats)) == 0, "no counters");
    ret = viommu_vtd_configure(bed->iommu, &vtd);
    check(ret != -EINVAL || bed->virtio, "a configuration that is one");
    check(!bed->virtio || ret == -EINVAL, "another model is configured");
    if (!bed->virtio) {
        check(viommu_virtio_request(bed->iommu, probe.bytes, probe.size, out, sizeof(out), 0,
                                    &written) == -EINVAL &&
                  viommu_virtio_reset(bed->iommu, 0) == -EINVAL &&
                  !viommu_virtio_features(bed->iommu) &&
                  viommu_virtio_accept(bed->iommu, 0) == -EINVAL &&
                  viommu_virtio_fault(bed->iommu, out, 24) == -EINVAL,
              "requests of another model");
    } else {
        (void)viommu_virtio_fault(bed->iommu, out, kind & 8 ? 7 : 24);
        (void)viommu_virtio_features(bed->iommu);
    }
    for (unsigned i = 0; i < 16; i++) {
        (void)viommu_mmio_read(bed->iommu, 0x20 + i * 4, 1u << (kind & 3), &value);
    }
}

static void request(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    uint64_t first = (uint64_t)(fuzz_byte(input) & 31) << 12;
    uint64_t last = first + ((uint64_t)(fuzz_byte(input) & 7) << 12) + 0xfff;
    struct spec_virtio_request made =
        kind & 1   ? spec_virtio_map(1, first, last, first, kind >> 4 & 7)
        : kind & 2 ? spec_virtio_unmap(1, first, last)
        : kind & 4 ? spec_virtio_detach(1, 8 + (kind >> 6))
        : kind & 8 ? spec_virtio_probe(8 + (kind >> 6))
                   : spec_virtio_attach(1, 8 + (kind >> 6), kind >> 5 & 1);
    uint8_t out[300];
    size_t written = 0;
    int ret;

    if (kind == 0xff) { /* all there is, one to one */
        made = spec_virtio_map(1, 0, UINT64_MAX, 0, 3);
    }
    if (!bed->virtio) {
        (void)viommu_mmio_write(bed->iommu, (uint64_t)(kind & 63) * 4, kind & 64 ? 8 : 4,
                                first << 16 | last);
        return;
    }
    ret = viommu_virtio_request(bed->iommu, made.bytes, made.size, out, sizeof(out), 5, &written);
    check(bed->started || ret == -EAGAIN, "a request before the start");
}

static void process(struct bed *bed)
{
    for (unsigned i = 0; i < ROUNDS && viommu_process(bed->iommu, 0) == VIOMMU_PENDING; i++) {
        bed->clock += 1000000;
    }
}

/* What all models have in common, wrong in one way or none. */
static void try_common(struct bed *bed, uint8_t which, uint8_t value)
{
    struct viommu_config config = {
        .memory = which == 1 ? NULL : bed->memory,
        .iotlb_entries = which == 2   ? value * 64u
                         : which == 3 ? 1u << (value & 31)
                                      : 0,
        .rewrite_policy = (enum viommu_rewrite_policy)(which == 4 ? value & 7 : 0),
        .cache_mode = (enum viommu_cache_mode)(which == 5 ? value & 7 : 0),
        .cache_quota = which == 6 ? (uint32_t)value << 24 : 0};
    const struct viommu_vtd_config vtd = {0};
    struct viommu *iommu = NULL;
    int ret = viommu_vtd_create(&config, &vtd, &iommu);

    check(ret == 0 || ret == -EINVAL || ret == -ENOMEM,
          "a configuration is refused in a way of its own");
    check(ret || which != 1, "a unit without memory");
    viommu_destroy(iommu);
}

static void live(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    unsigned which = kind >> 4 & 3;

    switch (kind & 15) {
    case 0:
    case 1:
        bed->started |= !viommu_start(bed->iommu);
        break;
    case 2:
        bed->answer = kind >> 4 | (fuzz_byte(input) & 16);
        break;
    case 3:
        process(bed);
        break;
    case 4:
        if (bed->pending) {
            bed->pending = false;
            (void)viommu_change_complete(bed->iommu, bed->token, kind & 16 ? -EIO : 0);
        }
        break;
    case 5:
        call_other(bed, fuzz_byte(input));
        break;
    case 6:
        (void)viommu_reset(bed->iommu);
        break;
    case 7:
        if (bed->virtio) {
            int ret = viommu_virtio_accept(
                bed->iommu, kind & 16 ? viommu_virtio_features(bed->iommu) : kind >> 5);

            check(bed->started || ret == -EAGAIN || ret == -EINVAL, "accepted before the start");
        }
        break;
    case 8:
        if (bed->virtio) {
            int ret = viommu_virtio_reset(bed->iommu, 4);

            check(bed->started || ret == -EAGAIN, "reset before the start");
        }
        break;
    case 9:
        if (bed->devices[which] && !viommu_device_remove(bed->devices[which])) {
            bed->devices[which] = NULL;
            bed->mirrors[which] = NULL;
        }
        break;
    case 10:
        if (bed->devices[which]) {
            (void)viommu_device_set_requester(bed->devices[which], fuzz_byte(input));
        }
        break;
    case 11:
        if (bed->devices[which]) {
            (void)viommu_device_reset(bed->devices[which]);
        }
        break;
    case 12:
        try_common(bed, fuzz_byte(input), fuzz_byte(input));
        break;
    default:
        bed->clock += UINT64_C(1) << (20 + (kind >> 4));
        (void)viommu_process(bed->iommu, 1 + (kind >> 4));
        break;
    }
}

static void add_device(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    struct viommu_device_config config = {
        .requester = 8 + (kind >> 5), .shared = kind & 4, .ats = kind & 8};
    struct viommu_device **place = &bed->devices[kind & 3];

    if (!*place && viommu_device_add(bed->iommu, &config, place)) {
        *place = NULL;
    }
}

static void try_create(struct bed *bed, struct fuzz_input *input)
{
    struct viommu *iommu = NULL;
    uint8_t kind = fuzz_byte(input);
    int ret = create(bed, input, kind & 1, true, &iommu);

    check(ret == 0 || ret == -EINVAL || ret == -ENOMEM,
          "a configuration is refused in a way of its own");
    check(ret == 0 ? iommu != NULL : iommu == NULL, "a unit, or none");
    viommu_destroy(iommu);
}

static bool begin(struct bed *bed, struct fuzz_input *input)
{
    const struct viommu_memory_slot slot = {.last = sizeof(ram) - 1, .host = ram, .fd = -1};
    struct viommu_memory_batch *batch;
    uint8_t kind = fuzz_byte(input);

    *bed = (struct bed){.virtio = kind & 1, .clock = 1};
    guest_ok(viommu_memory_create(&bed->memory), "memory");
    guest_ok(viommu_memory_batch_begin(bed->memory, &batch), "batch");
    guest_ok(viommu_memory_batch_add(batch, &slot), "slot");
    guest_ok(viommu_memory_batch_commit(batch, NULL, NULL), "commit");
    return !create(bed, input, kind & 1, kind & 2, &bed->iommu);
}

static void end(struct bed *bed)
{
    base_alloc_fail_at(0);
    bed->answer = 0;
    viommu_destroy(bed->iommu);
    viommu_memory_destroy(bed->memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    static struct bed bed;

    if (begin(&bed, &input)) {
        while (fuzz_more(&input)) {
            uint8_t operation = fuzz_byte(&input);

            base_alloc_fail_at(operation >> 3);
            switch (operation & 7) {
            case 0:
                try_create(&bed, &input);
                break;
            case 1:
                add_device(&bed, &input);
                break;
            case 2:
                subscribe(&bed, &input);
                break;
            case 3:
            case 4:
                use(&bed, &input);
                break;
            case 5:
                request(&bed, &input);
                break;
            default:
                live(&bed, &input);
                break;
            }
            base_alloc_fail_at(0);
        }
    }
    end(&bed);
    return 0;
}
