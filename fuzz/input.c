/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bench of the fuzz targets: see input.h.
 */
#include "input.h"

#include <errno.h>
#include <string.h>

/* Requester ids of the devices; they are near each other so that function masks matter. */
static const uint16_t requesters[BENCH_DEVICES] = {0x0008, 0x0009, 0x0107};

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct bench *bench = opaque;

    if (change->first > change->last) {
        guest_die("a change of [%#llx, %#llx]", (unsigned long long)change->first,
                  (unsigned long long)change->last);
    }
    switch (bench->answer & 3) {
    case 0:
    case 1:
        return 0;
    case 2:
        if (bench->token_count < BENCH_TOKENS) {
            bench->tokens[bench->token_count++] = change->token;
        }
        return VIOMMU_PENDING;
    default:
        return -EIO;
    }
}

static void window_release(struct bench_window *window)
{
    viommu_window_release(window->window);
    window->window = NULL;
}

static void on_revoke(void *opaque)
{
    struct bench_window *window = opaque;

    if (!window->window || window->revoked++) {
        guest_die("a holder was asked twice, or for what it does not have");
    }
    if (window->policy & 1) {
        window_release(window);
    }
}

static int on_fence(void *opaque)
{
    struct bench_window *window = opaque;

    if (!window->window || window->revoked != 1 || window->fenced++) {
        guest_die("a holder was fenced twice, or unasked");
    }
    if (window->policy & 2) {
        window_release(window);
    }
    return window->policy & 4 ? -EIO : 0;
}

static uint64_t bench_clock(void *opaque)
{
    return ((struct bench *)opaque)->clock;
}

static void add_device(struct bench *bench, unsigned i)
{
    struct viommu_device_config config = {
        .requester = requesters[i],
        .ats = bench->device_tlb && i != 1,
    };
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB,
        .change = on_change,
        .opaque = bench,
    };

    guest_ok(viommu_device_add(bench->guest.iommu, &config, &bench->devices[i]), "device");
    bench->subscribers[i] = NULL;
    if (config.ats) {
        guest_ok(viommu_device_subscribe(bench->devices[i], &what, &bench->subscribers[i]),
                 "subscribe");
    }
}

void bench_init(struct bench *bench, struct fuzz_input *input)
{
    static const uint8_t host_widths[4] = {48, 36, 39, 52};
    static const uint8_t domain_bits[4] = {16, 4, 8, 0};
    static const uint16_t records[4] = {1, 3, 8, 20};
    uint8_t first = fuzz_byte(input);
    uint8_t second = fuzz_byte(input);
    struct guest_config config = {
        .vtd =
            {
                .address_width = first & 1 ? 39 : 48,
                .host_address_width = host_widths[first >> 1 & 3],
                .caching_mode = first & 8,
                .no_super_pages = first & 16,
                .no_pass_through = first & 32,
                .no_snoop_control = first & 64,
                .device_tlb = !(second & 16) && !(second & 128),
                .domain_bits = domain_bits[second & 3],
                .fault_records = records[second >> 2 & 3],
                .no_queued_invalidation = second & 16,
            },
        .opaque = bench,
        .clock = bench_clock,
        .ram_pages = BENCH_RAM_PAGES,
        .iotlb_entries = 256,
    };

    memset(bench, 0, sizeof(*bench));
    bench->clock = 1000000000;
    bench->device_tlb = config.vtd.device_tlb;
    guest_ok(guest_init(&bench->guest, &config), "guest");
    for (unsigned i = 0; i < BENCH_DEVICES; i++) {
        add_device(bench, i);
    }
}

void bench_fini(struct bench *bench)
{
    bench_settle(bench);
    for (unsigned i = 0; i < BENCH_WINDOWS; i += 2) {
        window_release(&bench->windows[i]);
    }
    guest_fini(&bench->guest);
    for (unsigned i = 1; i < BENCH_WINDOWS; i += 2) {
        window_release(&bench->windows[i]); /* what is left of the instance goes with the last */
    }
}

void bench_store(struct bench *bench, uint64_t index, uint64_t value)
{
    guest_store(&bench->guest, index % (BENCH_RAM_PAGES * 512) * 8, value);
}

/* An address near those that matter: low memory, table borders, the interrupt range, the widths. */
static uint64_t any_address(struct fuzz_input *input)
{
    static const uint64_t bases[8] = {
        0, 0x200000, 0x40000000, 0x8000000000, 0xfee00000, 1ull << 39, 1ull << 48, ~0xfffffull,
    };
    uint8_t kind = fuzz_byte(input);

    if (kind & 8) {
        return fuzz_number(input, 8);
    }
    return bases[kind & 7] + (uint64_t)(kind >> 4) * 4096 + fuzz_number(input, 2);
}

static bool documented(int result)
{
    return result == 0 || result == -EFAULT || result == -ENXIO || result == -EROFS ||
           result == -EINVAL || result == -EPERM || result == -ENOTSUP;
}

static void translate(struct bench *bench, struct viommu_device *device,
                      const struct viommu_dma_attrs *attrs, uint64_t iova, uint32_t perm)
{
    struct viommu_translation out;
    int result;

    guest_ok(viommu_dma_begin(bench->guest.iommu), "section");
    result = viommu_device_translate(device, attrs, iova, perm, &out);
    viommu_dma_end(bench->guest.iommu);
    if (!documented(result)) {
        guest_die("translate: %d", result);
    }
    if (!result && ((out.mask & (out.mask + 1)) || out.perm & ~3u ||
                    (!out.interrupt && (perm & ~out.perm)) ||
                    (out.gpa ^ iova) & out.mask & 0xfff)) {
        guest_die("translated %#llx to %#llx mask %#llx perm %u", (unsigned long long)iova,
                  (unsigned long long)out.gpa, (unsigned long long)out.mask, out.perm);
    }
}

static void ats(struct viommu_device *device, const struct viommu_dma_attrs *attrs, uint64_t iova,
                uint64_t len, bool no_write)
{
    struct viommu_ats_entry entries[5];
    int result = viommu_device_ats_translate(device, attrs, iova, len, no_write, entries, 5);

    if (result > 5 || (result <= 0 && (!documented(result) || result == 0))) {
        guest_die("ATS request: %d", result);
    }
    for (int i = 0; i < result; i++) {
        if ((entries[i].mask & (entries[i].mask + 1)) || entries[i].iova & entries[i].mask ||
            (i == 0 && (iova ^ entries[i].iova) & ~entries[i].mask) ||
            (i && entries[i].iova != entries[i - 1].iova + entries[i - 1].mask + 1) ||
            (no_write && entries[i].perm & VIOMMU_WRITE && entries[i].untranslated_only)) {
            guest_die("ATS entry %d: %#llx mask %#llx", i, (unsigned long long)entries[i].iova,
                      (unsigned long long)entries[i].mask);
        }
    }
}

void bench_dma(struct bench *bench, struct fuzz_input *input)
{
    static uint8_t buf[16384];
    uint8_t kind = fuzz_byte(input);
    struct viommu_device *device = bench->devices[(kind >> 3 & 3) % BENCH_DEVICES];
    struct viommu_dma_attrs attrs = {
        .type = kind >> 5 & 3,
        .alias = kind >> 7,
    };
    uint64_t iova = any_address(input);
    size_t len = fuzz_number(input, 2) % sizeof(buf);
    int result = 0;

    switch (kind & 7) {
    case 0:
    case 1:
        result = viommu_device_read(device, &attrs, iova, buf, len);
        break;
    case 2:
        memset(buf, (int)len, len & 31);
        result = viommu_device_write(device, &attrs, iova, buf, len & 31);
        break;
    case 3:
        result = viommu_device_write(device, &attrs, iova, buf, 4);
        break;
    case 4:
    case 5:
        translate(bench, device, &attrs, iova, len & 3);
        break;
    default:
        attrs.type = VIOMMU_DMA_TRANSLATION;
        ats(device, &attrs, iova, len, kind & 1);
        break;
    }
    if (!documented(result)) {
        guest_die("DMA: %d", result);
    }
}

/* What a pin gave: all that was asked for, and no other memory than the guest's. */
static void window_check(const struct bench *bench, const struct bench_window *window,
                         size_t count, size_t len)
{
    const uint8_t *ram = bench->guest.ram;

    for (size_t i = 0; i < count; i++) {
        const uint8_t *at = window->iov[i].iov_base;

        if (at < ram || window->iov[i].iov_len > len ||
            at + window->iov[i].iov_len > ram + bench->guest.ram_size) {
            guest_die("a window leads to other memory than the guest's");
        }
        len -= window->iov[i].iov_len;
    }
    if (len) {
        guest_die("a window of too few bytes");
    }
}

static void window_pin(struct bench *bench, struct bench_window *window,
                       struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    struct viommu_dma_attrs attrs = {.alias = kind >> 7};
    struct viommu_range ranges[2];
    struct viommu_window_request request = {
        .ranges = ranges,
        .count = 1 + (kind >> 6 & 1),
        .perm = kind & 3,
        .revoke = on_revoke,
        .fence = kind & 4 ? on_fence : NULL,
        .opaque = window,
    };
    size_t count = 8;
    size_t len = 0;
    int result;

    if (window->window) {
        window_release(window);
    }
    *window = (struct bench_window){.policy = kind >> 3 & 7};
    for (unsigned i = 0; i < request.count; i++) {
        ranges[i].first = any_address(input);
        ranges[i].last = ranges[i].first + fuzz_number(input, 2);
        len += (size_t)(ranges[i].last - ranges[i].first) + 1;
    }
    result = viommu_device_pin(bench->devices[(kind >> 3) % BENCH_DEVICES], &attrs, &request,
                               window->iov, &count, &window->window);
    if (!result) {
        window_check(bench, window, count, len);
    } else if (!documented(result) && result != -ENOSPC) {
        guest_die("pin: %d", result);
    }
}

static void change_window(struct bench *bench, uint8_t number, bool pin,
                          struct fuzz_input *input)
{
    struct bench_window *window = &bench->windows[number % BENCH_WINDOWS];

    if (pin) {
        window_pin(bench, window, input);
    } else {
        window_release(window);
    }
}

static void complete(struct bench *bench, int status)
{
    int result;

    if (!bench->token_count) {
        result = viommu_change_complete(bench->guest.iommu, bench->clock, status);
    } else {
        result = viommu_change_complete(bench->guest.iommu, bench->tokens[--bench->token_count],
                                        status);
    }
    if (result && result != -ENOENT) {
        guest_die("viommu_change_complete: %d", result);
    }
}

static void change_device(struct bench *bench, uint8_t argument)
{
    unsigned i = argument % BENCH_DEVICES;

    switch (argument / BENCH_DEVICES % 4) {
    case 0:
        guest_ok(viommu_device_reset(bench->devices[i]), "device reset");
        break;
    case 1:
        guest_ok(viommu_device_remove(bench->devices[i]), "remove");
        add_device(bench, i);
        break;
    case 2:
        guest_ok(viommu_device_set_requester(bench->devices[i], (uint16_t)(0x0200 + i)),
                 "renumber");
        guest_ok(viommu_device_set_requester(bench->devices[i], requesters[i]), "renumber");
        break;
    default:
        if (viommu_device_add_alias(bench->devices[i], (uint16_t)(0x000a + i)) < 0) {
            guest_ok(viommu_device_remove_aliases(bench->devices[i]), "aliases");
        }
        break;
    }
}

void bench_embedder(struct bench *bench, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    uint8_t argument = kind >> 3;
    int result;

    switch (kind & 7) {
    case 0:
    case 1:
        result = viommu_process(bench->guest.iommu, argument);
        if (result != 0 && result != VIOMMU_PENDING) {
            guest_die("viommu_process: %d", result);
        }
        break;
    case 2:
        bench->clock += (uint64_t)argument * 50 * 1000000;
        break;
    case 3:
        if (argument & 1) {
            guest_ok(viommu_dma_begin(bench->guest.iommu), "section");
            bench->section++;
        } else if (bench->section) {
            viommu_dma_end(bench->guest.iommu);
            bench->section--;
        }
        break;
    case 4:
        bench->answer = argument;
        break;
    case 5:
        complete(bench, argument & 1 ? -EIO : 0);
        break;
    case 6:
        change_device(bench, argument);
        break;
    default:
        if (argument == 31) {
            guest_ok(viommu_reset(bench->guest.iommu), "reset");
        } else if (argument >= 16) {
            change_window(bench, argument & 7, argument & 8, input);
        }
        break;
    }
}

static void check_faults(struct guest *guest)
{
    uint32_t status = (uint32_t)guest_read(guest, SPEC_FSTS, 4);
    unsigned index = status >> 8 & 0xff;
    bool pending = false;

    for (unsigned i = 0; i < guest->fault_count; i++) {
        uint64_t hi = guest_read(guest, guest->fault_offset + 16 * i + 8, 8);

        pending |= hi >> 63;
        if (i == index && status & SPEC_PPF && index >= guest->fault_count) {
            guest_die("FSTS %#x", status);
        }
    }
    if (pending != !!(status & SPEC_PPF)) {
        guest_die("FSTS %#x, records %s", status, pending ? "pending" : "clear");
    }
    if (status & 0xffff008c) {
        guest_die("FSTS %#x has reserved bits", status);
    }
}

void bench_check(struct bench *bench)
{
    struct guest *guest = &bench->guest;
    uint64_t head = guest_read(guest, SPEC_IQH, 8);

    if (guest_read(guest, SPEC_CAP, 8) != guest->cap ||
        guest_read(guest, SPEC_ECAP, 8) != guest->ecap || guest_read(guest, SPEC_GCMD, 4)) {
        guest_die("a read-only register changed");
    }
    if (guest_read(guest, SPEC_GSTS, 4) & ~0xc4000000ull) {
        guest_die("GSTS %#llx", (unsigned long long)guest_read(guest, SPEC_GSTS, 4));
    }
    if (head & ~0x7fff0ull) {
        guest_die("IQH %#llx", (unsigned long long)head);
    }
    if (guest_read(guest, SPEC_ICS, 4) & ~1ull) {
        guest_die("ICS");
    }
    if (bench->checks++ % 8 == 0) { /* it reads many registers */
        check_faults(guest);
    }
}

static void process_all(struct bench *bench)
{
    int result;

    for (unsigned calls = 0; (result = viommu_process(bench->guest.iommu, 64)) != 0; calls++) {
        if (result != VIOMMU_PENDING || calls > 100000) {
            guest_die("viommu_process does not end: %d", result);
        }
    }
}

void bench_settle(struct bench *bench)
{
    while (bench->section) {
        viommu_dma_end(bench->guest.iommu);
        bench->section--;
    }
    bench->answer = 0;
    /* Whoever is asked now is late the next time; what waits behind may ask others. */
    for (unsigned i = 0; i < 4; i++) {
        bench->clock += 10ull * 1000000000;
        process_all(bench);
    }
    bench->token_count = 0;
    bench->checks = 0;
    bench_check(bench);
    if (guest_read(&bench->guest, SPEC_CCMD, 8) >> 63 ||
        guest_read(&bench->guest, bench->guest.iotlb_offset + 8, 8) >> 63) {
        guest_die("a register-based invalidation never completes");
    }
}
