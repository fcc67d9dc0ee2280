/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes mirrors: tables of any content (linked to themselves, and many times), contexts, commands,
 * invalidations by registers and queue, memory that comes and goes, mirrors of every kind that
 * answer late, never, or with errors, small quotas and small budgets.
 *
 * Every call must keep the rules (support/recorder.h). At the end the input's failures are over,
 * everything is invalidated, and what each mirror holds is compared with what its device's DMA
 * finds, both ways.
 *
 * Memory: 24 pages from 0 (page 1: the root table, page 2: the context table of bus 0, page 3: the
 * queue, page 4 on: tables), and a slot at EXTRA that may be RAM, ROM, or not there.
 */
#include "bytes.h"
#include "support/guest.h"
#include "support/recorder.h"

#include <errno.h>
#include <string.h>

#define RAM_PAGES 24
#define ROOT 0x1000ull
#define CONTEXT 0x2000ull
#define QUEUE 0x3000ull
#define TABLES 0x4000ull
#define EXTRA 0x200000ull
#define EXTRA_PAGES 160
#define DEVICES 2
#define MIRRORS 4
#define PLACES 32
#define CALLS_MAX 4000000u
#define WORK_MAX 500u /* calls: one look at about half as many tables as it may see */

struct fuzz {
    struct guest guest;
    struct viommu_device *devices[DEVICES];
    uint16_t requesters[DEVICES];
    struct mirror {
        struct fuzz *fuzz;
        unsigned device;
        struct viommu_subscriber *subscriber;
        struct recorder recorder;
    } mirrors[MIRRORS];
    struct recorder_memory memory;
    struct viommu_memory_slot extra;
    bool extra_present;
    bool removing; /* a batch is under way */
    uint8_t answer;
    uint64_t clock;
    uint64_t places[PLACES]; /* addresses that the input mapped */
    unsigned place_count;
    unsigned work; /* calls of viommu_process, of those that do much */
    bool given_up; /* the guest has: its tables are empty */
    bool wide; /* 57-bit device addresses */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t extra_host[EXTRA_PAGES * GUEST_PAGE] __attribute__((aligned(4096)));

static void fail(void *opaque, const char *text)
{
    struct mirror *mirror = opaque;

    guest_die("mirror %u: %s", (unsigned)(mirror - mirror->fuzz->mirrors), text);
}

static int answer(void *opaque, const struct viommu_change *change)
{
    const struct fuzz *fuzz = ((struct mirror *)opaque)->fuzz;

    switch (change->kind == VIOMMU_CHANGE_SKIPPED ? 0 : fuzz->answer & 7) {
    case 1:
        return VIOMMU_PENDING;
    case 2:
        return change->kind == VIOMMU_CHANGE_MAP ? -ENOSPC : 0;
    case 3:
        return -EIO;
    case 4:
        return change->kind == VIOMMU_CHANGE_MAP ? VIOMMU_PENDING : 0;
    default:
        return 0;
    }
}

static void subscribe(struct fuzz *fuzz, unsigned number, uint8_t kind, uint8_t more)
{
    static const uint64_t limits[4] = {0, 0, 3, 40};
    static const uint32_t differences[4] = {0, 0, 2, 20};
    static const struct viommu_range holes[2] = {{0, 0x2fffff}, {0x301000, UINT64_MAX}};
    struct mirror *mirror = &fuzz->mirrors[number];
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP |
                 (kind & 1 ? VIOMMU_CHANGE_REPLACE : 0) | (kind & 2 ? VIOMMU_CHANGE_SKIPPED : 0),
        .form = kind & 4 ? VIOMMU_FORM_RANGE : VIOMMU_FORM_POW2,
        .role = VIOMMU_ROLE_MIRROR,
        .mappings_max = limits[kind >> 3 & 3],
        .differences_max = differences[kind >> 5 & 3],
        .unmap_spans = (kind & 0x84) == 0x84,
    };

    if (more & 2) {
        what.range.first = (more & 0xf0ull) << 8;
        what.range.last = 0x400fff + (more & 0xf0ull) * 512;
    }
    if (more & 4) {
        what.allowed = holes;
        what.allowed_count = 2;
    }
    recorder_init(&mirror->recorder, &what);
    mirror->fuzz = fuzz;
    mirror->device = more & 1;
    mirror->recorder.memory = &fuzz->memory;
    mirror->recorder.requester = fuzz->requesters[mirror->device];
    mirror->recorder.answer = answer;
    mirror->recorder.fail = fail;
    mirror->recorder.opaque = mirror;
    mirror->recorder.without_periods = true;
    guest_ok(viommu_device_subscribe(fuzz->devices[mirror->device], &mirror->recorder.what,
                                     &mirror->subscriber),
             "subscribe");
}

static void unsubscribe(struct mirror *mirror)
{
    guest_ok(viommu_subscriber_destroy(mirror->subscriber), "unsubscribe");
    mirror->subscriber = NULL;
    recorder_fini(&mirror->recorder);
}

/* Work. */

/*
 * A few tables that lead to each other are a million, which each of many commands has looked at:
 * that ends, but late. When it has lasted long enough the guest leaves nothing but its queue.
 */
static void give_up(struct fuzz *fuzz)
{
    memset(fuzz->guest.ram, 0, QUEUE);
    memset(fuzz->guest.ram + TABLES, 0, RAM_PAGES * GUEST_PAGE - TABLES);
    fuzz->given_up = true;
}

static void process(struct fuzz *fuzz, unsigned budget, unsigned calls)
{
    int result = VIOMMU_PENDING;

    for (unsigned i = 0; i < calls && result == VIOMMU_PENDING; i++) {
        result = viommu_process(fuzz->guest.iommu, budget);
        fuzz->work += !budget;
        if (fuzz->work >= WORK_MAX && !fuzz->given_up) {
            give_up(fuzz);
        }
    }
    if (result != 0 && result != VIOMMU_PENDING) {
        guest_die("viommu_process: %d", result);
    }
    if (result && calls == CALLS_MAX) {
        guest_die("viommu_process does not end");
    }
}

static bool complete(struct fuzz *fuzz, int status)
{
    bool some = false;

    for (unsigned i = 0; i < MIRRORS; i++) {
        struct recorder *recorder = &fuzz->mirrors[i].recorder;
        uint64_t token = recorder->pending.token;
        int result;

        if (!fuzz->mirrors[i].subscriber || !recorder->outstanding) {
            continue;
        }
        some = true;
        recorder_complete(recorder, status);
        result = viommu_change_complete(fuzz->guest.iommu, token, status);
        if (result) {
            guest_die("viommu_change_complete: %d", result);
        }
    }
    return some;
}

/* Goes on with a change of memory; true when none is under way. */
static bool memory_done(struct fuzz *fuzz)
{
    if (!fuzz->removing) {
        return true;
    }
    if (viommu_memory_process(fuzz->guest.memory) == VIOMMU_PENDING) {
        return false;
    }
    fuzz->removing = false;
    fuzz->memory.count = 1;
    for (unsigned i = 0; i < MIRRORS; i++) {
        if (fuzz->mirrors[i].subscriber) {
            recorder_no_host(&fuzz->mirrors[i].recorder, extra_host, sizeof(extra_host));
        }
    }
    return true;
}

static void change_memory(struct fuzz *fuzz, bool rom)
{
    struct viommu_memory_batch *batch;
    int result;

    if (!memory_done(fuzz)) {
        return;
    }
    guest_ok(viommu_memory_batch_begin(fuzz->guest.memory, &batch), "batch");
    if (fuzz->extra_present) {
        guest_ok(viommu_memory_batch_remove(batch, fuzz->extra.first, fuzz->extra.last), "remove");
    } else {
        fuzz->extra.flags = rom ? VIOMMU_MEMORY_READONLY : 0;
        fuzz->memory.slots[1] = fuzz->extra;
        fuzz->memory.count = 2;
        guest_ok(viommu_memory_batch_add(batch, &fuzz->extra), "add");
    }
    result = viommu_memory_batch_commit(batch, NULL, NULL);
    if (result && result != VIOMMU_PENDING) {
        guest_die("commit: %d", result);
    }
    fuzz->removing = fuzz->extra_present;
    fuzz->extra_present = !fuzz->extra_present;
    if (!fuzz->extra_present && !result) {
        memory_done(fuzz);
    }
}

/* The guest. */

static uint64_t any_entry(struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);

    switch (kind >> 6) {
    case 0: /* to a page of RAM */
        return (uint64_t)(kind % RAM_PAGES) << 12 | 3;
    case 1:
        return EXTRA | (uint64_t)(kind & 31) << 12 | 1 | (kind & 32 ? 2 : 0);
    case 2: /* a super page, or one of the others with odd bits */
        return kind & 32 ? fuzz_number(input, 1) << 12 | SPEC_PS | (kind & 3)
                         : (uint64_t)(kind & 31) << 12 | 3 | 1ull << (fuzz_byte(input) & 63);
    default:
        return kind & 32 ? fuzz_number(input, 8) : 0;
    }
}

static void store(struct fuzz *fuzz, uint64_t page, uint64_t index, uint64_t entry)
{
    if (page * GUEST_PAGE != QUEUE) {
        guest_store(&fuzz->guest, page % RAM_PAGES * GUEST_PAGE + index % 512 * 8, entry);
    }
}

/* Some entries of one page, alike or one after another. */
static void store_some(struct fuzz *fuzz, struct fuzz_input *input)
{
    uint8_t page = fuzz_byte(input);
    unsigned first = (unsigned)fuzz_number(input, 2);
    unsigned count = 1u << (page >> 5);
    uint64_t entry = any_entry(input);

    for (unsigned i = 0; i < count; i++) {
        store(fuzz, page & 31, first + i, first & 0x8000 ? entry + i * GUEST_PAGE : entry);
    }
}

static void store_path(struct fuzz *fuzz, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    unsigned levels = 3 + (kind & 1) * (fuzz->wide ? 2 : 1);
    unsigned leaf = 1 + (kind >> 1 & 3) % 3;
    uint64_t iova = fuzz->wide ? fuzz_number(input, 6) << 9 : fuzz_number(input, 5) << 8;
    uint64_t table = TABLES / GUEST_PAGE;

    fuzz->places[fuzz->place_count++ % PLACES] = iova & ~0xfffull;
    for (unsigned level = levels; level >= leaf; level--) {
        uint64_t entry = any_entry(input);

        if (level > leaf) {
            entry = (4 + (kind >> 3) % (RAM_PAGES - 4)) * GUEST_PAGE | 3;
            kind = (uint8_t)(kind * 5 + 13);
        } else if (level > 1) {
            entry = (entry & 0x83) | SPEC_PS;
        }
        store(fuzz, table, iova >> (3 + 9 * level), entry);
        table = entry >> 12;
    }
}

static void store_context(struct fuzz *fuzz, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    uint64_t slot = CONTEXT + fuzz->requesters[kind & 1] % 256 * 16u;
    uint64_t table = TABLES + (uint64_t)(kind >> 6) * GUEST_PAGE;

    guest_store(&fuzz->guest, slot + 8,
                (1 + (kind >> 1 & 1) * (fuzz->wide ? 2 : 1)) | (uint64_t)(1 + (kind >> 5 & 1))
                                                                   << 8);
    guest_store(&fuzz->guest, slot,
                (kind >> 2 & 3) == 3 ? 0 : table | 1 | (uint64_t)(kind >> 2 & 2) << 2);
}

static void invalidate(struct fuzz *fuzz, struct fuzz_input *input)
{
    struct guest *guest = &fuzz->guest;
    uint8_t kind = fuzz_byte(input);
    unsigned granularity = kind >> 1 & 3;
    uint64_t address = 0;

    if (!(kind & 1) && granularity == SPEC_SELECTIVE) {
        address = kind & 64 ? fuzz->places[kind >> 3 & 7] : fuzz_number(input, 5) << 8;
    }
    if (guest_read(guest, SPEC_GSTS, 4) & SPEC_QIE) {
        guest_queue_put(guest, kind & 1 ? spec_context_invalidate(granularity, kind >> 5, 8, 3)
                                        : spec_iotlb_invalidate(granularity, 1 + (kind >> 5 & 1),
                                                                address, kind >> 3 & 31, false));
        if (kind & 128) {
            guest_queue_kick(guest);
        }
    } else if (kind & 1) {
        guest_write(guest, SPEC_CCMD, 8,
                    1ull << 63 | (uint64_t)granularity << 61 | 3ull << 32 | 8u << 16 | kind >> 5);
    } else {
        guest_write(guest, guest->iotlb_offset, 8, (address & ~0xfffull) | (kind >> 3 & 15));
        guest_write(guest, guest->iotlb_offset + 8, 8,
                    1ull << 63 | (uint64_t)granularity << 60 |
                        (uint64_t)(1 + (kind >> 5 & 1)) << 32);
    }
}

static void command(struct fuzz *fuzz, uint8_t kind)
{
    struct guest *guest = &fuzz->guest;
    uint32_t status = (uint32_t)guest_read(guest, SPEC_GSTS, 4) & SPEC_GSTS_STICKY;

    switch (kind & 3) {
    case 0:
        guest_write(guest, SPEC_GCMD, 4, status ^ SPEC_TE);
        break;
    case 1:
        guest_write(guest, SPEC_RTADDR, 8, kind & 4 ? ROOT : (uint64_t)(kind >> 3) << 12);
        guest_write(guest, SPEC_GCMD, 4, status | SPEC_SRTP);
        break;
    case 2:
        if (!(status & SPEC_QIE)) {
            guest->queue_tail = 0;
            guest_write(guest, SPEC_IQT, 8, 0);
            guest_write(guest, SPEC_IQA, 8, QUEUE);
        }
        guest_write(guest, SPEC_GCMD, 4, status ^ SPEC_QIE);
        break;
    default:
        guest_write(guest, SPEC_FSTS, 4, SPEC_IQE | SPEC_ICE | SPEC_ITE);
        break;
    }
}

/* The embedder. */

static void reset_device(struct fuzz *fuzz, unsigned device)
{
    for (unsigned i = 0; i < MIRRORS; i++) {
        if (fuzz->mirrors[i].subscriber && fuzz->mirrors[i].device == device) {
            fuzz->mirrors[i].recorder.fenced = false;
        }
    }
    guest_ok(viommu_device_reset(fuzz->devices[device]), "device reset");
}

static void renumber(struct fuzz *fuzz, unsigned device)
{
    fuzz->requesters[device] ^= 0x40;
    for (unsigned i = 0; i < MIRRORS; i++) {
        if (fuzz->mirrors[i].subscriber && fuzz->mirrors[i].device == device) {
            fuzz->mirrors[i].recorder.requester = fuzz->requesters[device];
        }
    }
    guest_ok(viommu_device_set_requester(fuzz->devices[device], fuzz->requesters[device]),
             "renumber");
}

static void embedder(struct fuzz *fuzz, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    uint8_t argument = kind >> 3;
    struct mirror *mirror = &fuzz->mirrors[argument % MIRRORS];

    switch (kind & 7) {
    case 0:
        process(fuzz, argument, 1);
        break;
    case 1:
        process(fuzz, 1, 1 + argument * 8u);
        break;
    case 2:
        fuzz->clock += (uint64_t)argument * 50 * 1000000;
        break;
    case 3:
        fuzz->answer = argument;
        break;
    case 4:
        complete(fuzz, argument & 1 ? -EIO : 0);
        break;
    case 5:
        if (mirror->subscriber) {
            unsubscribe(mirror);
        } else {
            subscribe(fuzz, argument % MIRRORS, fuzz_byte(input), fuzz_byte(input));
        }
        break;
    case 6:
        change_memory(fuzz, argument & 1);
        break;
    default:
        if (argument & 2) {
            reset_device(fuzz, argument & 1);
        } else if (argument & 4) {
            renumber(fuzz, argument & 1);
        } else if (argument == 24) {
            reset_device(fuzz, 0);
            reset_device(fuzz, 1);
            guest_ok(viommu_reset(fuzz->guest.iommu), "reset");
        }
        break;
    }
}

/* The end: everything is made good, invalidated and compared. */

static void settle(struct fuzz *fuzz)
{
    fuzz->answer = 0;
    do {
        process(fuzz, 0, CALLS_MAX);
    } while (complete(fuzz, 0) || !memory_done(fuzz));
}

static void wait_bits(struct fuzz *fuzz, uint64_t offset, unsigned size, uint64_t bits,
                      uint64_t value)
{
    settle(fuzz);
    if ((guest_read(&fuzz->guest, offset, size) & bits) != value) {
        guest_die("register %#llx is %#llx", (unsigned long long)offset,
                  (unsigned long long)guest_read(&fuzz->guest, offset, size));
    }
}

static void invalidate_all(struct fuzz *fuzz)
{
    struct guest *guest = &fuzz->guest;

    guest_write(guest, SPEC_CCMD, 8, 1ull << 63 | 1ull << 61);
    wait_bits(fuzz, SPEC_CCMD, 8, 1ull << 63, 0);
    guest_write(guest, guest->iotlb_offset + 8, 8, 1ull << 63 | 1ull << 60);
    wait_bits(fuzz, guest->iotlb_offset + 8, 8, 1ull << 63, 0);
}

static void make_good(struct fuzz *fuzz)
{
    struct guest *guest = &fuzz->guest;

    settle(fuzz);
    guest_write(guest, SPEC_FSTS, 4, SPEC_IQE | SPEC_ICE | SPEC_ITE);
    settle(fuzz);
    for (unsigned i = 0; i < 8; i++) {
        fuzz->clock += 1100000000;
        settle(fuzz);
    }
    /* With the queue off, whatever it held, and the root table where it belongs. */
    guest_write(guest, SPEC_GCMD, 4, SPEC_TE);
    settle(fuzz);
    guest_write(guest, SPEC_RTADDR, 8, ROOT);
    guest_write(guest, SPEC_GCMD, 4, SPEC_TE | SPEC_SRTP);
    wait_bits(fuzz, SPEC_GSTS, 4, SPEC_TE | SPEC_SRTP | SPEC_QIE, SPEC_TE | SPEC_SRTP);
    reset_device(fuzz, 0);
    reset_device(fuzz, 1);
    settle(fuzz);
    invalidate_all(fuzz);
    if (fuzz->given_up) {
        invalidate_all(fuzz); /* its tables may have gone in the midst of that */
    }
}

static void check_mapped(struct fuzz *fuzz, const struct mirror *mirror, uint64_t address,
                         const struct recorder_mapping *mapping)
{
    struct viommu_translation out;
    uint64_t gpa = mapping->gpa + (address - mapping->first);
    int result = viommu_device_translate(fuzz->devices[mirror->device], NULL, address,
                                         mapping->perm, &out);

    if (result == -EPERM) {
        return; /* the device's other mirror was fenced */
    }
    if (result || out.gpa != gpa) {
        guest_die("%#llx is mapped to %#llx perm %u, but DMA finds %d, %#llx",
                  (unsigned long long)address, (unsigned long long)gpa, mapping->perm, result,
                  (unsigned long long)out.gpa);
    }
}

static bool may_map(const struct recorder *recorder, uint64_t address)
{
    const struct viommu_range *range = &recorder->what.range;

    return !spec_in_interrupt_range(address) &&
           (!(range->first || range->last) ||
            (range->first <= address && address <= range->last)) &&
           !(recorder->what.allowed_count && address >> 12 == 0x300);
}

static void check_place(struct fuzz *fuzz, const struct mirror *mirror, uint64_t address)
{
    const struct recorder_mapping *mapping = recorder_find(&mirror->recorder, address);
    struct viommu_translation out;
    uint8_t byte;
    int result = viommu_device_read(fuzz->devices[mirror->device], NULL, address, &byte, 1);

    if (result || !may_map(&mirror->recorder, address) ||
        viommu_device_translate(fuzz->devices[mirror->device], NULL, address, 1, &out) ||
        out.interrupt) {
        return;
    }
    if (!mapping || mapping->first > address) {
        guest_die("%#llx leads to %#llx, but is not mapped", (unsigned long long)address,
                  (unsigned long long)out.gpa);
    }
}

static void check_mirror(struct fuzz *fuzz, struct mirror *mirror)
{
    const struct recorder *recorder = &mirror->recorder;
    struct viommu_subscriber_status status;

    viommu_subscriber_status(mirror->subscriber, &status, sizeof(status));
    if (status.fenced != recorder->fenced ||
        (!status.fenced && status.mappings != recorder->mapped.count)) {
        guest_die("status: fenced %d, %llu mappings; it is %d and %zu", status.fenced,
                  (unsigned long long)status.mappings, recorder->fenced, recorder->mapped.count);
    }
    for (size_t i = 0; i < recorder->mapped.count && i < 200; i++) {
        check_mapped(fuzz, mirror, recorder->mapped.list[i].first, &recorder->mapped.list[i]);
        check_mapped(fuzz, mirror, recorder->mapped.list[i].last, &recorder->mapped.list[i]);
    }
    for (unsigned i = 0; i < PLACES && !status.fenced && !status.differences; i++) {
        check_place(fuzz, mirror, fuzz->places[i]);
    }
}

static uint64_t fuzz_clock(void *opaque)
{
    return ((struct fuzz *)opaque)->clock;
}

static void init(struct fuzz *fuzz, struct fuzz_input *input)
{
    static const uint64_t quotas[4] = {0x8000, 0x20000, 0x40000, 0x80000};
    uint8_t first = fuzz_byte(input);
    struct guest_config config = {
        .vtd = {.caching_mode = true, .address_width = first & 1 ? 39 : first & 64 ? 57 : 48},
        .opaque = fuzz,
        .clock = fuzz_clock,
        .ram_pages = RAM_PAGES,
        .iotlb_entries = 256,
        .shadow_quota = quotas[first >> 1 & 3],
        .rewrite_policy = (first >> 3 & 7) % 3,
    };

    memset(fuzz, 0, sizeof(*fuzz));
    fuzz->clock = 1000000000;
    fuzz->wide = config.vtd.address_width == 57;
    guest_ok(guest_init(&fuzz->guest, &config), "guest");
    fuzz->guest.queue = QUEUE;
    fuzz->guest.queue_entries = 256;
    fuzz->memory.count = 1;
    fuzz->memory.slots[0] = (struct viommu_memory_slot){
        .last = RAM_PAGES * GUEST_PAGE - 1,
        .host = fuzz->guest.ram,
        .fd = -1,
    };
    fuzz->extra = (struct viommu_memory_slot){
        .first = EXTRA,
        .last = EXTRA + sizeof(extra_host) - 1,
        .host = extra_host,
        .fd = -1,
    };
    for (unsigned i = 0; i < DEVICES; i++) {
        struct viommu_device_config device = {.requester = (uint16_t)(8 + i)};

        fuzz->requesters[i] = device.requester;
        guest_ok(viommu_device_add(fuzz->guest.iommu, &device, &fuzz->devices[i]), "device");
        guest_store(&fuzz->guest, CONTEXT + device.requester * 16u + 8, 2 | 1 << 8);
        guest_store(&fuzz->guest, CONTEXT + device.requester * 16u, TABLES | 1);
    }
    guest_store(&fuzz->guest, ROOT, CONTEXT | 1);
    subscribe(fuzz, 0, fuzz_byte(input), 0);
    subscribe(fuzz, 1, fuzz_byte(input), fuzz_byte(input));
    guest_write(&fuzz->guest, SPEC_RTADDR, 8, ROOT);
    guest_write(&fuzz->guest, SPEC_GCMD, 4, SPEC_SRTP);
    guest_write(&fuzz->guest, SPEC_GCMD, 4, SPEC_TE);
    process(fuzz, 0, CALLS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    static struct fuzz fuzz;

    init(&fuzz, &input);
    while (fuzz_more(&input)) {
        switch (fuzz_byte(&input) & 7) {
        case 0:
            store_some(&fuzz, &input);
            break;
        case 1:
            store_path(&fuzz, &input);
            break;
        case 2:
            store_context(&fuzz, &input);
            break;
        case 3:
        case 4:
            invalidate(&fuzz, &input);
            break;
        case 5:
            command(&fuzz, fuzz_byte(&input));
            break;
        default:
            embedder(&fuzz, &input);
            break;
        }
    }
    make_good(&fuzz);
    for (unsigned i = 0; i < MIRRORS; i++) {
        if (fuzz.mirrors[i].subscriber) {
            check_mirror(&fuzz, &fuzz.mirrors[i]);
            unsubscribe(&fuzz.mirrors[i]);
        }
    }
    guest_fini(&fuzz.guest);
    return 0;
}
