/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes saved instances of both models, section by section, with devices that have aliases or
 * share an id, with mirrors that hold memory and lack some of it, and with too little memory.
 *
 * The input makes a state of what the instance itself saved: a section is its own, its own with
 * some bytes changed, its beginning with another end, or anything. Held: a state is refused with an
 * error that is documented, and then changes nothing: the instance's own is accepted after it, and
 * saved again to the byte; what is accepted runs, and is saved as it was loaded. Saving and loading
 * at the wrong moment are refused.
 *
 * Input: how it is made (a byte, see `begin`), which allocation fails in loading and which in
 * saving (a byte each, 0: none), how the first map calls of mirrors end (a byte, a bit each), then
 * sections (see `take_section`); or, with the highest bit of the first byte, a whole stream.
 */
#include "bytes.h"
#include "sealed.h"
#include "support/guest.h"
#include "support/virtio_spec.h"

#include <base/alloc.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES      4u
#define MIRRORS      2u
#define RAM_SIZE     0x10000u
#define STATE_MAX    32768u
#define SECTIONS_MAX 64u
#define CALLS_MAX    100000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct unit {
    struct viommu *iommu;
    struct viommu_device *devices[DEVICES];
    struct viommu_subscriber *subscribers[MIRRORS];
};

struct bed {
    struct viommu_memory *memory;
    struct viommu_iova *space;
    struct unit own;
    uint8_t kind;
    uint8_t failing; /* map calls that fail, by their number */
    unsigned calls;
    bool quiet; /* what was loaded may not be true: nobody looks */
};

struct state {
    uint8_t bytes[STATE_MAX];
    size_t size;
};

static uint8_t ram[2 * RAM_SIZE] __attribute__((aligned(4096)));
static struct bed bed;
static struct state own;
static struct state made;

/* ---- the instance ---- */

static void expect(bool holds, const char *what)
{
    if (!holds) {
        guest_die("instance state: %s", what);
    }
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct viommu *iommu = *(struct viommu **)opaque;
    size_t size = 0;
    void *data = NULL;

    expect(change->first <= change->last, "a change that ends before it begins");
    expect(viommu_save(iommu, &data, &size) == -EDEADLK &&
               viommu_load(iommu, own.bytes, own.size) == -EDEADLK,
           "saved or loaded from a callback");
    if (bed.quiet || change->kind != VIOMMU_CHANGE_MAP || bed.calls >= 8) {
        return 0;
    }
    return bed.failing >> bed.calls++ & 1 ? -EIO : 0;
}

static int on_fence(void *opaque)
{
    (void)opaque;
    return 0;
}

static void subscribe(struct unit *unit, bool adopt)
{
    for (unsigned i = 0; i < MIRRORS; i++) {
        struct viommu_subscription what = {
            .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
            .role = VIOMMU_ROLE_MIRROR,
            .form = bed.kind & 4 ? VIOMMU_FORM_POW2 : VIOMMU_FORM_RANGE,
            .mappings_max = bed.kind & 8 ? 64 : 0,
            .key = i,
            .range = {0, i ? 0x107fff : UINT64_MAX},
            .change = on_change,
            .fence = on_fence,
            .opaque = &unit->iommu,
            .adopt = adopt,
        };

        guest_ok(viommu_device_subscribe(unit->devices[i], &what, &unit->subscribers[i]),
                 "subscribe");
    }
    if (bed.kind & 0x40) { /* another of the first device's, which has the same key */
        struct viommu_subscription what = {
            .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
            .role = VIOMMU_ROLE_MIRROR,
            .form = VIOMMU_FORM_RANGE,
            .change = on_change,
            .fence = on_fence,
            .opaque = &unit->iommu,
            .adopt = adopt,
        };
        struct viommu_subscriber *subscriber;

        guest_ok(viommu_device_subscribe(unit->devices[0], &what, &subscriber), "subscribe");
    }
}

static void create(struct unit *unit, bool adopt)
{
    const struct viommu_config config = {.memory = bed.memory, .iotlb_entries = 256};
    struct viommu_vtd_config vtd = {.caching_mode = bed.kind & 2, .device_tlb = true};
    struct viommu_virtio_config virtio = {
        .features = 0x77, .probe_size = 64, .faults_max = 4, .mappings_max = 16, .domains_max = 3};
    struct viommu_device_config devices[DEVICES] = {
        {.requester = 8, .ats = !(bed.kind & 1)},
        {.requester = 9, .space = bed.space},
        {.requester = 10, .shared = true},
        {.requester = 10, .shared = true},
    };

    if (bed.kind & 8) {
        virtio.features |= VIOMMU_VIRTIO_DOMAIN_RANGE;
        virtio.domain_first = 1;
        virtio.domain_last = 5;
        virtio.domain_endpoints_max = 1;
    }
    guest_ok(bed.kind & 1 ? viommu_virtio_create(&config, &virtio, &unit->iommu)
                          : viommu_vtd_create(&config, &vtd, &unit->iommu),
             "create");
    for (unsigned i = 0; i < DEVICES; i++) {
        guest_ok(viommu_device_add(unit->iommu, &devices[i], &unit->devices[i]), "device");
    }
    expect(viommu_device_add_alias(unit->devices[0], 20) == 1, "no alias");
    if (bed.kind & 2) {
        subscribe(unit, adopt);
    }
}

static bool process(struct viommu *iommu)
{
    for (unsigned i = 0; i < CALLS_MAX; i++) {
        if (viommu_process(iommu, 0) != VIOMMU_PENDING) {
            return true;
        }
    }
    return false;
}

static void request(const struct spec_virtio_request *request)
{
    uint8_t answer[4];
    size_t written;

    (void)viommu_virtio_request(bed.own.iommu, request->bytes, request->size, answer,
                                sizeof(answer), 7, &written);
    (void)process(bed.own.iommu);
}

/* Two domains, mappings, a fault, and a request that is answered when it is saved. */
static void use_virtio(void)
{
    const struct spec_virtio_request requests[] = {
        spec_virtio_attach(1, 8, 0),
        spec_virtio_attach(2, 9, 0),
        spec_virtio_map(1, 0x2000, 0x3fff, 0x1000, 3),
        spec_virtio_map(1, 0x7000, 0x7fff, 0x100000, 1),
        spec_virtio_map(2, 0x2000, 0x9fff, 0x2000, 3),
    };
    uint8_t byte;

    guest_ok(viommu_virtio_accept(bed.own.iommu, 0x77), "accept");
    for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        request(&requests[i]);
    }
    (void)viommu_device_read(bed.own.devices[0], NULL, 0x900000, &byte, 1);
    if (bed.kind & 0x20) { /* a section holds it back */
        const struct spec_virtio_request unmap = spec_virtio_unmap(1, 0x7000, 0x7fff);
        uint8_t answer[4];
        size_t written;

        guest_ok(viommu_dma_begin(bed.own.iommu), "section");
        (void)viommu_virtio_request(bed.own.iommu, unmap.bytes, unmap.size, answer, sizeof(answer),
                                    9, &written);
    }
}

static void use_vtd(void)
{
    (void)viommu_mmio_write(bed.own.iommu, SPEC_FECTL, 4, 0);
    (void)viommu_mmio_write(bed.own.iommu, SPEC_IQA, 8, 0x3000);
    if (bed.kind & 8) {
        (void)viommu_mmio_write(bed.own.iommu, SPEC_GCMD, 4, SPEC_QIE);
    }
    (void)process(bed.own.iommu);
}

static void begin(struct fuzz_input *input)
{
    const struct viommu_iova_config space = {0};
    const struct viommu_iova_request window = {.type = VIOMMU_IOVA_MSI,
                                               .range = {0x300000, 0x3fffff}};
    const struct viommu_memory_slot slots[] = {
        {.last = RAM_SIZE - 1, .host = ram, .fd = -1},
        {.first = 0x100000, .last = 0x100000 + RAM_SIZE - 1, .host = ram + RAM_SIZE, .fd = -1},
    };
    struct viommu_iova_reservation *reservation;
    struct viommu_iova_conflict conflict;
    struct viommu_memory_batch *batch;
    struct viommu_iova_owner *owner;

    bed = (struct bed){.kind = fuzz_byte(input)};
    guest_ok(viommu_memory_create(&bed.memory), "memory");
    guest_ok(viommu_memory_batch_begin(bed.memory, &batch), "batch");
    for (unsigned i = 0; i < 2; i++) {
        guest_ok(viommu_memory_batch_add(batch, &slots[i]), "slot");
    }
    guest_ok(viommu_memory_batch_commit(batch, NULL, NULL), "commit");
    if (bed.kind & 0x10) {
        guest_ok(viommu_iova_create(&space, &bed.space), "space");
        guest_ok(viommu_iova_owner_create(bed.space, "host", &owner), "owner");
        guest_ok(viommu_iova_reserve(owner, &window, 1, &reservation, &conflict), "reserve");
    }
    create(&bed.own, false);
}

/* ---- states ---- */

static void put(const void *bytes, size_t count)
{
    if (count <= STATE_MAX - made.size) {
        memcpy(made.bytes + made.size, bytes, count);
        made.size += count;
    }
}

/* The instance's own section of a kind and number; without bytes where there is none. */
static struct save_section own_section(uint32_t kind, uint32_t number)
{
    struct save_reader reader;
    struct save_section section;

    expect(!save_open(&reader, SAVE_INSTANCE, own.bytes, own.size), "its own cannot be read");
    while (save_next(&reader, &section)) {
        if (section.kind == kind && section.instance == number) {
            return section;
        }
    }
    return (struct save_section){0};
}

static void put_literal(struct fuzz_input *input)
{
    size_t count = fuzz_number(input, 2);

    for (size_t i = 0; i < count && input->size; i++) {
        uint8_t byte = fuzz_byte(input);

        put(&byte, 1);
    }
}

/* Numbers of 1 to 8 bytes, where they are in the section or from its end on. */
static void change(struct fuzz_input *input, size_t start)
{
    unsigned count = fuzz_byte(input) & 15;

    for (unsigned i = 0; i < count; i++) {
        size_t where = fuzz_number(input, 2);
        unsigned width = 1 + (fuzz_byte(input) & 7);
        size_t at = where & 0x8000 ? made.size - (where & 0x7fff) : start + where;
        uint64_t value = fuzz_number(input, width);

        for (unsigned j = 0; j < width && at >= start && at + j < made.size; j++) {
            made.bytes[at + j] = (uint8_t)(value >> 8 * j);
        }
    }
}

/*
 * Kind, number, version and flags, a byte each; then how it is made, a byte: 0: of bytes (their
 * number, 2 bytes, and they); 1: its own; 2: its own, changed (how often, a byte; each time where,
 * 2 bytes, of how many, a byte, and they); 3: the first bytes of its own (how many, 2 bytes), and
 * then others, as with 0.
 */
static void take_section(struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    uint8_t number = fuzz_byte(input);
    uint8_t header[24] = {
        [0] = kind, [4] = number, [8] = fuzz_byte(input), [10] = fuzz_byte(input)};
    uint8_t mode = fuzz_byte(input);
    struct save_section section = own_section(kind, number);
    size_t at = made.size;
    size_t kept = section.left;
    uint64_t length;

    header[12] = mode >> 7;
    put(header, sizeof(header));
    if ((mode & 3) == 3) {
        size_t wanted = fuzz_number(input, 2);

        kept = wanted < kept ? wanted : kept;
    }
    if (mode & 3 && kept) {
        put(section.at, kept);
    }
    if ((mode & 3) == 2) {
        change(input, at + sizeof(header));
    } else if ((mode & 3) != 1) {
        put_literal(input);
    }
    length = made.size - at - sizeof(header);
    if (made.size >= at + sizeof(header)) {
        memcpy(made.bytes + at + 16, &length, 8);
    }
}

static void make(struct fuzz_input *input)
{
    uint32_t count = 0;

    made = own;
    made.size = SEALED_HEADER_SIZE;
    while (input->size && count < SECTIONS_MAX) {
        take_section(input);
        count++;
    }
    memcpy(made.bytes + 12, &count, 4);
    sealed_mend(made.bytes, made.size);
}

static void take_stream(struct fuzz_input *input)
{
    made.size = 0;
    while (input->size && made.size < STATE_MAX) {
        made.bytes[made.size++] = fuzz_byte(input);
    }
}

static int save(struct viommu *iommu, struct state *state)
{
    void *data;
    size_t size;
    int error = viommu_save(iommu, &data, &size);

    if (!error) {
        expect(size <= STATE_MAX, "a state that is too large");
        memcpy(state->bytes, data, size);
        state->size = size;
        viommu_save_free(data);
    }
    return error;
}

static bool is_same(const struct state *a, const struct state *b)
{
    return a->size == b->size && !memcmp(a->bytes, b->bytes, a->size);
}

/* Whether it has the sections of its own, in their order, with the devices in theirs. */
static bool is_like_own(void)
{
    struct save_reader readers[2];
    struct save_section made_one;
    struct save_section own_one;

    expect(!save_open(&readers[0], SAVE_INSTANCE, made.bytes, made.size), "accepted, but no state");
    expect(!save_open(&readers[1], SAVE_INSTANCE, own.bytes, own.size), "its own cannot be read");
    while (save_next(&readers[0], &made_one)) {
        if (!save_next(&readers[1], &own_one) || made_one.kind != own_one.kind ||
            made_one.instance != own_one.instance || made_one.flags ||
            (made_one.kind == 3 && memcmp(made_one.at + 1, own_one.at + 1, own_one.left - 1))) {
            return false;
        }
    }
    return !save_next(&readers[1], &own_one);
}

static void accepted(struct viommu *iommu, struct viommu_device *const *devices)
{
    static struct state again;
    uint64_t value = 0;
    int error = save(iommu, &again);

    expect(!error || error == -EBUSY, "what was loaded is not saved");
    expect(error || !is_like_own() || is_same(&again, &made), "another state");
    bed.quiet = true;
    (void)process(iommu);
    for (unsigned i = 0; i < DEVICES; i++) {
        (void)viommu_device_read(devices[i], NULL, 0x2000, &value, sizeof(value));
    }
    (void)process(iommu);
}

/* What was refused has left nothing: the instance's own is as good as before. */
static void refused(struct unit *unit)
{
    static struct state again;
    int error = viommu_load(unit->iommu, own.bytes, own.size);

    if (error) {
        guest_die("its own is refused: %d", error);
    }
    error = save(unit->iommu, &again);
    expect(error == -EBUSY || (!error && is_same(&own, &again)), "its own is another");
    bed.quiet = true;
    (void)process(unit->iommu);
}

static void load(unsigned fail)
{
    struct unit second;
    uint8_t *copy = malloc(made.size + 1);
    size_t size = 0;
    void *data = NULL;
    bool failed;
    int error;

    expect(copy, "no memory");
    memcpy(copy, made.bytes, made.size);
    create(&second, true);
    expect(viommu_save(second.iommu, &data, &size) == -EAGAIN, "saved before it was started");
    base_alloc_fail_at(fail);
    error = viommu_load(second.iommu, copy, made.size);
    failed = base_alloc_failed();
    base_alloc_fail_at(0);
    free(copy);
    expect(!error || error == -EBADMSG || error == -ENOTSUP || error == -EINVAL ||
               error == -ENODEV || (error == -ENOMEM && failed),
           "an error of another kind");
    if (error) {
        refused(&second);
    } else {
        accepted(second.iommu, second.devices);
    }
    expect(viommu_load(second.iommu, own.bytes, own.size) == -EALREADY &&
               viommu_load(second.iommu, own.bytes, 3) == -EALREADY,
           "loaded after it was started");
    viommu_destroy(second.iommu);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    unsigned fail_load;
    unsigned fail_save;
    int error;

    if (size < 5) {
        return 0;
    }
    begin(&input);
    fail_load = fuzz_byte(&input);
    fail_save = fuzz_byte(&input);
    bed.failing = fuzz_byte(&input);
    guest_ok(viommu_start(bed.own.iommu), "start");
    (void)process(bed.own.iommu);
    if (bed.kind & 1) {
        use_virtio();
    } else {
        use_vtd();
    }
    base_alloc_fail_at(fail_save);
    error = save(bed.own.iommu, &own);
    base_alloc_fail_at(0);
    expect(!error || error == -ENOMEM || error == -EBUSY, "it is not saved");
    if (!error) {
        if (bed.kind & 0x80) {
            take_stream(&input);
        } else {
            make(&input);
        }
        load(fail_load);
    }
    if ((bed.kind & 0x21) == 0x21) {
        viommu_dma_end(bed.own.iommu);
    }
    viommu_destroy(bed.own.iommu);
    if (bed.space) {
        viommu_iova_destroy(bed.space);
    }
    viommu_memory_destroy(bed.memory);
    return 0;
}
