/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes pinned windows, and what a space closes to devices, of both models: ranges of any kind,
 * over slots of memory that come, go and are replaced (by others of other borders, by ROM) while
 * windows are open; tables and mappings that change; devices that share an id, have aliases, get
 * other ids, go and come back; reservations down to single bytes; mirrors that limit the space;
 * allocations that fail, and calls on a thread that has never been here.
 *
 * Held: a pin gives exactly the bytes that DMA finds, in order; what makes no sense is refused as
 * documented; no batch of memory is complete while a window that was pinned before it leads to what
 * it removed; no mirror is told to map what is closed; a device of a virtio-iommu reaches none of
 * it. When all windows are released, and time has passed, nothing is left to do.
 *
 * The first byte says how the unit is made (see `init`), then each operation is a byte: the low
 * three bits what, the others which allocation fails in it (0: none).
 */
#include "window_guest.h"

#include <pthread.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t on_clock(void *opaque)
{
    return ((struct bed *)opaque)->clock;
}

static void on_observe(void *opaque, const struct viommu_observation *observation)
{
    (void)opaque;
    if (!observation->index) {
        guest_die("an observation without a number");
    }
}

/* ---- windows ---- */

static void release(struct window *window)
{
    struct viommu_window *open = window->window;

    window->window = NULL;
    viommu_window_release(open);
}

static void on_revoke(void *opaque)
{
    struct window *window = opaque;

    if (!window->window) {
        guest_die("a window that is released is asked back");
    }
    if (window->obliging) {
        release(window);
    }
}

static int on_fence(void *opaque)
{
    struct window *window = opaque;

    return window->obliging ? 0 : -EIO;
}

/* What the device writes is where the window says, or what is there is what it reads. */
static void check_byte(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                       uint64_t iova, uint8_t *host, uint32_t perm)
{
    uint8_t before = *host;
    uint8_t byte = (uint8_t)~before;

    if (perm & VIOMMU_WRITE) {
        guest_ok(viommu_device_write(device, attrs, iova, &byte, 1), "a write");
    } else {
        *host = byte;
        byte = before;
        guest_ok(viommu_device_read(device, attrs, iova, &byte, 1), "a read");
    }
    if (*host == before || byte == before) {
        guest_die("%#llx is pinned somewhere else", (unsigned long long)iova);
    }
    *host = before;
}

/* Every byte of a window is the one that a request of the device's own finds. */
static void check_window(struct bed *bed, const struct window *window, struct viommu_device *device,
                         const struct viommu_dma_attrs *attrs,
                         const struct viommu_window_request *request)
{
    const struct iovec *iov = window->iov;
    size_t in = 0;

    for (size_t i = 0; i < request->count; i++) {
        uint64_t at = request->ranges[i].first;
        uint64_t left = request->ranges[i].last - at + 1;

        while (left) {
            uint64_t here = 4096 - (at & 4095);
            uint8_t *host = (uint8_t *)iov->iov_base + in;

            here = here < left ? here : left;
            if (iov == window->iov + window->iov_count || here > iov->iov_len - in) {
                guest_die("a window ends before what was asked for");
            }
            if (!bed->hostile && (host < ram || host >= ram + TABLES_END)) {
                check_byte(device, attrs, at, host, request->perm);
            }
            at += here;
            left -= here;
            in += here;
            if (in == iov->iov_len) {
                iov++;
                in = 0;
            }
        }
    }
    if (iov != window->iov + window->iov_count) {
        guest_die("a window of more than was asked for");
    }
}

/*
 * A device, its alias, what is allowed and the room in a byte each, what is wrong with it in
 * another, then the ranges: their number, and each a page, an offset and a length.
 */
static void pin(struct bed *bed, struct fuzz_input *input)
{
    static struct viommu_range ranges[VIOMMU_WINDOW_RANGES_MAX + 1];
    static const int refusals[] = {EFAULT, ENXIO, EROFS, EPERM, ENOSPC, 0};
    uint8_t who = fuzz_byte(input);
    uint8_t how = fuzz_byte(input);
    uint8_t wrong = fuzz_byte(input);
    uint8_t count = fuzz_byte(input);
    struct window *window = &bed->windows[how % WINDOWS];
    struct viommu_device *device = bed->devices[who % DEVICES];
    const struct viommu_dma_attrs attrs = {.alias = who >> 2 & 3,
                                           .type = wrong == 1 ? VIOMMU_DMA_TRANSLATED : 0};
    struct viommu_window_request request = {
        .ranges = ranges,
        .count = count & 7,
        .perm = wrong == 2 ? 4 : who >> 4 & 3,
        .revoke = wrong == 3 ? NULL : on_revoke,
        .fence = who & 0x40 ? on_fence : NULL,
        .opaque = window,
    };
    struct viommu_window *out = NULL;
    size_t room = how >> 4 ? how >> 4 : IOVS;
    bool senseless = (wrong && wrong < 4) || !request.count || !request.perm;
    int ret;

    for (size_t i = 0; i < request.count; i++) {
        uint16_t where = (uint16_t)fuzz_number(input, 2);
        uint16_t length = (uint16_t)fuzz_number(input, 2);

        ranges[i].first = (uint64_t)(where & 0x3ff) << 12 | (where & 0xfc00) >> 5;
        ranges[i].last =
            ranges[i].first + ((uint64_t)(length & 0x7fff) << (length & 0x8000 ? 4 : 0));
    }
    if (!device || window->window) {
        release(window);
        return;
    }
    if (wrong == 4 && request.count) { /* ends before it begins, or is too large */
        ranges[0].last = who & 1 ? ranges[0].first - 1 : ranges[0].first + VIOMMU_WINDOW_BYTES_MAX;
        senseless = true;
    }
    if (wrong == 5) {
        for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
            ranges[i] = (struct viommu_range){0x3000, 0x3000};
        }
        request.count = sizeof(ranges) / sizeof(ranges[0]);
        senseless = true;
    }
    room = room < IOVS ? room : IOVS;
    window->iov_count = room;
    ret = viommu_device_pin(device, wrong || attrs.alias ? &attrs : NULL, &request, window->iov,
                            &window->iov_count, &out);
    if (senseless ? ret != -EINVAL : ret == -EINVAL && !attrs.alias) {
        guest_die("a pin: %d, where %s", ret, senseless ? "it makes no sense" : "all is right");
    }
    if (ret) {
        if (ret != -EINVAL) {
            expect(ret, refusals, "pin");
        }
        return;
    }
    base_alloc_fail_at(0);
    if (window->iov_count > room) {
        guest_die("more than there is room for");
    }
    window->bed = bed;
    window->window = out;
    window->batch = bed->batch;
    window->obliging = wrong & 0x80;
    check_window(bed, window, device, &attrs, &request);
}

/* As many as a device can have open. */
static void pin_many(struct bed *bed)
{
    static struct viommu_window *many[VIOMMU_WINDOWS_MAX + 1];
    const struct viommu_range range = {0x3000, 0x3fff};
    struct window window = {.bed = bed};
    const struct viommu_window_request request = {
        .ranges = &range, .count = 1, .perm = VIOMMU_READ, .revoke = on_revoke, .opaque = &window};
    struct viommu_device *device = bed->devices[0];
    size_t count = 0;
    int ret = 0;

    while (device && !ret && count < sizeof(many) / sizeof(many[0])) {
        struct iovec iov;
        size_t room = 1;

        ret = viommu_device_pin(device, NULL, &request, &iov, &room, &many[count]);
        count += !ret;
    }
    if (count > VIOMMU_WINDOWS_MAX) {
        guest_die("more windows than a device can have");
    }
    while (count) {
        viommu_window_release(many[--count]);
    }
}

/* ---- the space ---- */

/* What is reserved now meets a range. */
static bool is_closed(const struct bed *bed, uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < RESERVATIONS; i++) {
        struct viommu_range range;

        if (bed->reservations[i]) {
            range = viommu_iova_reservation_range(bed->reservations[i]);
            if (viommu_iova_reservation_type(bed->reservations[i]) !=
                    VIOMMU_IOVA_DIRECT_RELAXABLE &&
                range.first <= last && range.last >= first) {
                return true;
            }
        }
    }
    return false;
}

/* A device of a virtio-iommu finds nothing in what is closed to it. */
static void check_closed(struct bed *bed, uint64_t iova)
{
    for (unsigned i = 0; bed->virtio && i < SPACED; i++) {
        struct viommu_translation out;

        if (bed->devices[i] &&
            !viommu_device_translate(bed->devices[i], NULL, iova, VIOMMU_READ, &out) &&
            !out.interrupt) {
            guest_die("%#llx is closed, and device %u finds %#llx", (unsigned long long)iova, i,
                      (unsigned long long)out.gpa);
        }
    }
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct mirror *mirror = opaque;
    unsigned i = 0;

    if (change->kind == VIOMMU_CHANGE_MAP) {
        if (mirror->device < SPACED && is_closed(mirror->bed, change->first, change->last)) {
            guest_die("%#llx is closed, and is mapped", (unsigned long long)change->first);
        }
        if (mirror->count == HELD_MAX) {
            return -ENOSPC;
        }
        mirror->held[mirror->count++] = (struct viommu_range){change->first, change->last};
        return 0;
    }
    while (i < mirror->count && mirror->held[i].first != change->first) {
        i++;
    }
    if (i < mirror->count) {
        mirror->held[i] = mirror->held[--mirror->count];
    }
    return 0;
}

static int on_mirror_fence(void *opaque)
{
    ((struct mirror *)opaque)->count = 0;
    return 0;
}

/* No mirror of a device in the space holds some of what has become closed. */
static void check_held(const struct bed *bed)
{
    for (unsigned i = 0; i < MIRRORS; i++) {
        const struct mirror *mirror = &bed->mirrors[i];

        for (unsigned j = 0; mirror->subscriber && mirror->device < SPACED && j < mirror->count;
             j++) {
            if (is_closed(bed, mirror->held[j].first, mirror->held[j].last)) {
                guest_die("%#llx is closed, and is held",
                          (unsigned long long)mirror->held[j].first);
            }
        }
    }
}

/* Reserves, or gives back: the number and the type, then the first byte and how many follow. */
static void reserve(struct bed *bed, struct fuzz_input *input)
{
    static const int refusals[] = {EEXIST, EADDRNOTAVAIL, EINVAL, ENOSPC, ERANGE, 0};
    uint8_t kind = fuzz_byte(input);
    uint64_t first = fuzz_number(input, 2) << 8;
    uint64_t more = fuzz_number(input, 2) << 8 | 0xff;
    struct viommu_iova_reservation **place = &bed->reservations[(kind & 7) % RESERVATIONS];
    struct viommu_iova_request request = {
        .type = (enum viommu_iova_type)((kind >> 3 & 7) % VIOMMU_IOVA_TYPES),
        .range = {first, first + more}};
    struct viommu_iova_conflict conflict;
    int ret;

    if (kind & 64) { /* at the other end, or all there is */
        request.range.first = kind & 128 ? 0 : -first - more - 1;
        request.range.last = kind & 128 ? UINT64_MAX : -first - 1;
    }
    if (request.type == VIOMMU_IOVA_SW_MSI) {
        request.range = (struct viommu_range){first & ~0xfffull, (first & ~0xfffull) + 0x1fff};
        request.movable = true;
        request.bounds = (struct viommu_range){0, 0xfffff};
        request.align = 0x1000;
    }
    if (*place) {
        viommu_iova_release(*place);
        *place = NULL;
        return;
    }
    ret = viommu_iova_reserve(bed->host, &request, 1, place, &conflict);
    expect(ret, refusals, "reserve");
    base_alloc_fail_at(0);
    if (ret) {
        *place = NULL;
    } else if (request.type != VIOMMU_IOVA_DIRECT && request.type != VIOMMU_IOVA_DIRECT_RELAXABLE) {
        check_closed(bed, viommu_iova_reservation_range(*place).first);
        check_held(bed);
    }
}

static void subscribe(struct bed *bed, uint8_t kind)
{
    static const int refusals[] = {EEXIST, EADDRINUSE, EADDRNOTAVAIL, ENOSPC, ENOTSUP, ERANGE, 0};
    static const struct viommu_range allowed[] = {{0, 0xfffff}, {0x140000, 0x7fffffffffffull}};
    struct mirror *mirror = &bed->mirrors[kind % MIRRORS];
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .role = VIOMMU_ROLE_MIRROR,
        .form = kind & 4 ? VIOMMU_FORM_RANGE : VIOMMU_FORM_POW2,
        .allowed = kind & 8 ? allowed : NULL,
        .allowed_count = kind & 8 ? 2 : 0,
        .change = on_change,
        .fence = on_mirror_fence,
        .opaque = mirror,
    };
    unsigned device = kind & 2 ? DEVICES - 1 : kind % MIRRORS;

    if (kind & 16) { /* a cache of the device's, which hears of what goes */
        what = (struct viommu_subscription){
            .kinds = VIOMMU_CHANGE_UNMAP, .form = what.form, .change = on_change, .opaque = mirror};
    }

    if (mirror->subscriber) {
        guest_ok(viommu_subscriber_destroy(mirror->subscriber), "unsubscribe");
        mirror->subscriber = NULL;
    } else if (bed->devices[device]) {
        int ret;

        mirror->bed = bed;
        mirror->device = device;
        mirror->count = 0;
        ret = viommu_device_subscribe(bed->devices[device], &what, &mirror->subscriber);
        expect(ret, refusals, "subscribe");
        mirror->subscriber = ret ? NULL : mirror->subscriber;
    }
}

/* ---- devices ---- */

static void add_device(struct bed *bed, unsigned number, bool identity)
{
    static const int refusals[] = {EEXIST, ENOSPC, ERANGE, 0};
    const struct viommu_iova_config config = {.identity = true};
    struct viommu_iova *other = NULL;
    struct viommu_device_config device = {
        .requester = (uint16_t)(number < 2 ? 8 + number : 10),
        .shared = number >= 2,
        .ats = !bed->virtio && number != 1,
        .space = number < SPACED ? bed->space : NULL,
    };

    if (identity && !viommu_iova_create(&config, &other)) {
        int ret;

        device.space = other;
        ret = viommu_device_add(bed->iommu, &device, &bed->devices[number]);
        if (ret != -EINVAL && !base_alloc_failed()) {
            guest_die("a device of an identity space: %d", ret);
        }
        viommu_iova_destroy(other);
        bed->devices[number] = NULL;
    } else {
        int ret = viommu_device_add(bed->iommu, &device, &bed->devices[number]);

        expect(ret, refusals, "device");
        bed->devices[number] = ret ? NULL : bed->devices[number];
    }
}

static void remove_device(struct bed *bed, unsigned number)
{
    for (unsigned i = 0; i < MIRRORS; i++) {
        if (bed->mirrors[i].device == number) {
            bed->mirrors[i].subscriber = NULL;
        }
    }
    guest_ok(viommu_device_remove(bed->devices[number]), "remove");
    bed->devices[number] = NULL;
}

static void change_device(struct bed *bed, uint8_t kind)
{
    static const int refusals[] = {EEXIST, ENOSPC, ERANGE, 0};
    unsigned number = kind % DEVICES;
    struct viommu_device *device = bed->devices[number];
    int ret = 0;

    if (!device) {
        add_device(bed, number, kind & 4);
        return;
    }
    switch (kind >> 3 & 7) {
    case 0:
        remove_device(bed, number);
        break;
    case 1:
        ret = viommu_device_set_requester(device, 8 + (kind >> 6) + 4 * (kind >> 2 & 1));
        break;
    case 2:
    case 3:
        ret = viommu_device_add_alias(device, 20 + (kind >> 6) + 4 * (kind >> 2 & 1));
        ret = ret > 0 ? 0 : ret;
        break;
    case 4:
        guest_ok(viommu_device_remove_aliases(device), "aliases");
        break;
    default:
        guest_ok(viommu_device_reset(device), "device reset");
        break;
    }
    expect(ret, refusals, "a change of a device");
}

/* ---- the embedder ---- */

static void process(struct bed *bed, unsigned budget, unsigned rounds)
{
    static const int refusals[] = {0};
    int ret = VIOMMU_PENDING;

    for (unsigned i = 0; i < rounds && ret == VIOMMU_PENDING; i++) {
        ret = viommu_process(bed->iommu, budget);
    }
    expect(ret == VIOMMU_PENDING ? 0 : ret, refusals, "work");
    (void)viommu_memory_process(bed->memory);
}

struct elsewhere {
    struct bed *bed;
    uint8_t kind;
};

/* A thread's first section needs memory, and there is none: it is refused, whatever it asks for. */
static void *run_elsewhere(void *opaque)
{
    const struct elsewhere *elsewhere = opaque;
    struct bed *bed = elsewhere->bed;
    const struct viommu_range range = {0x3000, 0x3fff};
    struct window window = {.bed = bed};
    const struct viommu_window_request request = {
        .ranges = &range, .count = 1, .perm = VIOMMU_READ, .revoke = on_revoke, .opaque = &window};
    struct viommu_device *device = bed->devices[0];
    struct viommu_window *out;
    struct viommu_ats_entry entry;
    struct iovec iov;
    size_t room = 1;
    int ret = -ENOMEM;

    switch (elsewhere->kind & 3) {
    case 0:
    case 1:
        base_alloc_fail_at(1);
        (void)viommu_process(bed->iommu, 0);
        break;
    case 2:
        base_alloc_fail_at(1);
        ret = device ? viommu_device_ats_translate(device, NULL, 0, 4096, false, &entry, 1) : ret;
        break;
    default:
        base_alloc_fail_at(2);
        ret = device ? viommu_device_pin(device, NULL, &request, &iov, &room, &out) : ret;
        if (!ret) {
            viommu_window_release(out);
        }
        break;
    }
    if (base_alloc_failed() && ret != -ENOMEM) {
        guest_die("without memory for a section: %d", ret);
    }
    return NULL;
}

/* Opens a section, or ends it: what begins meanwhile waits. */
static void change_section(struct bed *bed)
{
    if (bed->section) {
        viommu_dma_end(bed->iommu);
        bed->section = false;
    } else {
        bed->section = !viommu_dma_begin(bed->iommu);
    }
}

static void embedder(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);

    switch (kind & 7) {
    case 0:
    case 1:
        process(bed, kind >> 3, 1 + (kind >> 3));
        break;
    case 2:
        bed->clock += (uint64_t)(kind >> 3) * 100000000;
        break;
    case 3: {
        struct elsewhere elsewhere = {bed, kind >> 3};
        pthread_t thread;

        guest_ok(pthread_create(&thread, NULL, run_elsewhere, &elsewhere), "thread");
        guest_ok(pthread_join(thread, NULL), "join");
        break;
    }
    case 4:
        if (kind >> 3 == 31) {
            pin_many(bed);
        } else if (kind >> 3 == 30) {
            guest_ok(viommu_reset(bed->iommu), "reset");
        } else if (kind >> 3 == 29) {
            change_section(bed);
        } else if (bed->devices[0] && !bed->virtio) {
            struct viommu_ats_entry entries[3];

            (void)viommu_device_ats_translate(bed->devices[0], NULL, (kind >> 3) * 4096ull, 0x3000,
                                              kind & 8, entries, 3);
        }
        break;
    case 5:
        subscribe(bed, kind >> 3);
        break;
    default:
        change_device(bed, fuzz_byte(input));
        break;
    }
}

/* ---- a life ---- */

static void create(struct bed *bed)
{
    const struct viommu_config config = {
        .memory = bed->memory,
        .opaque = bed,
        .clock = on_clock,
        .iotlb_entries = 256,
        .cache_mode = bed->hostile ? VIOMMU_CACHE_HOSTILE : VIOMMU_CACHE_NORMAL,
        .cache_quota = 16,
        .cache_seed = bed->kind,
    };
    const struct viommu_vtd_config vtd = {
        .caching_mode = true, .device_tlb = true, .address_width = bed->kind & 4 ? 39 : 0};
    const struct viommu_virtio_config virtio = {.features = 0x77, .probe_size = 240};

    guest_ok(bed->virtio ? viommu_virtio_create(&config, &virtio, &bed->iommu)
                         : viommu_vtd_create(&config, &vtd, &bed->iommu),
             "create");
    for (unsigned i = 0; i < DEVICES && !(bed->kind & 32); i++) {
        add_device(bed, i, false);
    }
    guest_ok(viommu_start(bed->iommu), "start");
    for (unsigned i = 0; i < DEVICES && bed->kind & 32; i++) {
        add_device(bed, i, false);
    }
}

static void begin_guest(struct bed *bed)
{
    memset(ram, 0, sizeof(ram));
    if (bed->virtio) {
        guest_ok(viommu_virtio_accept(bed->iommu, 0x77), "accept");
        (void)viommu_mmio_write(bed->iommu, SPEC_CONFIG_BYPASS, 1, bed->kind >> 6 & 1);
        for (uint8_t i = 0; i < 3; i++) {
            attach(bed, i);
        }
        return;
    }
    guest_ok(viommu_mmio_read(bed->iommu, SPEC_ECAP, 8, &bed->iotlb), "capabilities");
    bed->iotlb = (bed->iotlb >> 8 & 0x3ff) * 16;
    store(ROOT, CONTEXT | 1);
    for (uint8_t i = 0; i < 3; i++) {
        attach(bed, i);
    }
    for (uint64_t level = 0; level < 3; level++) {
        store(TABLE + 4096 * level, (TABLE + 4096 * (level + 1)) | 3);
    }
    write_register(bed, SPEC_RTADDR, 8, ROOT);
    write_register(bed, SPEC_GCMD, 4, SPEC_SRTP);
    if (!(bed->kind & 64)) {
        write_register(bed, SPEC_GCMD, 4, SPEC_TE);
    }
}

/*
 * The bits of the first byte: the model, a cache that is hostile (2), a narrow unit (4), watched
 * (8), the space goes first (16), devices that come late (32), translation off (64).
 */
static void init(struct bed *bed, uint8_t kind)
{
    const struct viommu_iova_config config = {0};
    const struct viommu_watcher watcher = {.observe = on_observe};
    const struct viommu_memory_slot slots[] = {
        {.last = sizeof(ram) - 1, .host = ram, .fd = -1},
        {.first = LARGE, .last = LARGE + sizeof(large) - 1, .host = large, .fd = -1},
    };
    struct viommu_memory_batch *batch;

    *bed = (struct bed){.kind = kind, .virtio = kind & 1, .hostile = kind & 2, .clock = 1};
    guest_ok(viommu_memory_create(&bed->memory), "memory");
    guest_ok(viommu_memory_batch_begin(bed->memory, &batch), "batch");
    guest_ok(viommu_memory_batch_add(batch, &slots[0]), "slot");
    guest_ok(viommu_memory_batch_add(batch, &slots[1]), "slot");
    guest_ok(viommu_memory_batch_commit(batch, NULL, NULL), "commit");
    for (uint8_t i = 0; i < PLACES; i++) {
        change_memory(bed, i | 64);
    }
    guest_ok(viommu_iova_create(&config, &bed->space), "space");
    guest_ok(viommu_iova_owner_create(bed->space, "host", &bed->host), "owner");
    create(bed);
    begin_guest(bed);
    process(bed, 0, ROUNDS);
    if (kind & 8) {
        guest_ok(viommu_watch(bed->iommu, &watcher), "watch");
    }
}

/* All windows are released, and time passes: nothing is left to do. */
static void settle(struct bed *bed)
{
    for (unsigned i = 0; i < WINDOWS; i++) {
        release(&bed->windows[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        process(bed, 0, ROUNDS);
        bed->clock += UINT64_C(10000000000);
    }
    if (viommu_process(bed->iommu, 0) || bed->changing) {
        guest_die("work is left, or memory stays");
    }
}

static void end(struct bed *bed)
{
    bool space_first = bed->kind & 16;

    if (bed->section) {
        change_section(bed);
    }
    if (space_first) {
        viommu_iova_destroy(bed->space);
    } else {
        settle(bed);
    }
    viommu_destroy(bed->iommu);
    for (unsigned i = 0; i < WINDOWS; i++) { /* what is left of the instance goes with the last */
        release(&bed->windows[i]);
    }
    if (!space_first) {
        viommu_iova_destroy(bed->space);
    }
    viommu_memory_destroy(bed->memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    static struct bed bed;

    init(&bed, fuzz_byte(&input));
    while (fuzz_more(&input)) {
        uint8_t operation = fuzz_byte(&input);

        base_alloc_fail_at(operation >> 3);
        switch (operation & 7) {
        case 0:
        case 1:
            pin(&bed, &input);
            break;
        case 2:
        case 3:
            guest(&bed, &input);
            break;
        case 4:
            change_memory(&bed, fuzz_byte(&input));
            break;
        case 5:
            reserve(&bed, &input);
            break;
        default:
            embedder(&bed, &input);
            break;
        }
        base_alloc_fail_at(0);
    }
    end(&bed);
    return 0;
}
