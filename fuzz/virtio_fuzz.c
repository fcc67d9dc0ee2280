/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes a virtio-iommu's requests and what is around them: bytes of any kind and length, answers
 * of any room, requests with fields that are nearly right; the configuration space; DMA; sections,
 * pinned windows and a subscriber that hold requests back; mirrors, which fail, too; devices that
 * come and go; resets; saved states, whole and changed; allocations that fail.
 *
 * Held after every operation: an answer lies in its room; what is pending completes, once and in
 * order; no more mappings and domains exist than are allowed; a state that is loaded is saved again
 * to the byte. Mirrors are told to map only where nothing is mapped, and to unmap only what is;
 * when all is over they hold what DMA finds.
 *
 * The first byte says how the unit is made; then each operation is a byte, the low three bits what,
 * and where the highest is set the next four say which allocation fails in it.
 */
#include "bytes.h"
#include "support/guest.h"
#include "support/virtio_spec.h"

#include <base/alloc.h>
#include <errno.h>
#include <save/stream.h>
#include <stdlib.h>

#define DEVICES 3
#define TOKENS 8
#define RESERVATIONS 4
#define WINDOWS 3
#define PAGES 16
#define HEADER_SIZE 32u
#define SECTION_SIZE 24u
#define CHECKSUM_AT 28u
#define MAPPINGS_MAX 64
#define DOMAINS_MAX 2
#define HELD_MAX 1024 /* by a mirror: more than pages, mapped once in each mapping */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct mirror {
    struct bed *bed;
    struct viommu_subscriber *subscriber;
    struct viommu_change held[HELD_MAX];
    unsigned count;
};

struct token {
    uint64_t token;
    struct mirror *mirror; /* whose it is, or NULL */
    struct viommu_change change;
};

struct bed {
    bool mirrored;
    bool lenient; /* what was loaded never was: nobody looks */
    struct mirror mirrors[DEVICES];
    struct viommu_memory *memory;
    struct viommu *iommu;
    struct viommu_device *devices[DEVICES];
    struct viommu_config config;
    struct viommu_virtio_config virtio;
    uint64_t clock;
    unsigned sections;
    struct token tokens[TOKENS]; /* of changes that were not answered */
    unsigned token_count;
    struct viommu_window *windows[WINDOWS];
    bool replaced; /* a device: another instance has them in another order */
    bool spaceless; /* no device is in the space */
    bool unlike; /* it could not be made as it was meant to be: one may not take another's state */
    uint8_t answer;
    uint64_t sent;      /* token of the last request */
    uint64_t completed; /* and of the last that was pending and is complete */
    uint64_t pending;   /* that have not completed */
    struct viommu_iova *space;
    struct viommu_iova_owner *host;
    struct viommu_iova_reservation *reservations[RESERVATIONS];
};

static uint8_t ram[PAGES * 4096] __attribute__((aligned(4096)));

static uint64_t on_clock(void *opaque)
{
    return ((struct bed *)opaque)->clock;
}

static void on_completed(void *opaque, uint64_t token, uint8_t status)
{
    struct bed *bed = opaque;

    if (bed->lenient) {
        return;
    }
    if (token <= bed->completed || token > bed->sent || !bed->pending || status > SPEC_S_NOMEM) {
        guest_die("token %llu, status %u", (unsigned long long)token, status);
    }
    bed->completed = token;
    bed->pending--;
}

/* How a change is answered. */
static int decide(struct bed *bed, struct mirror *mirror, const struct viommu_change *change)
{
    static const int errors[16] = {
        [2] = EIO, [8] = ENFILE, [9] = ENOSPC, [11] = ENOMEM, [12] = EMFILE, [14] = EDQUOT};

    if (change->first > change->last) {
        guest_die("a change that ends before it begins");
    }
    if (bed->answer % 3 == 1 && bed->token_count < TOKENS) {
        bed->tokens[bed->token_count++] = (struct token){change->token, mirror, *change};
        return VIOMMU_PENDING;
    }
    return -errors[bed->answer & 15];
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    return decide(opaque, NULL, change);
}

/* ---- mirrors ---- */

static void apply(struct mirror *mirror, const struct viommu_change *change)
{
    unsigned i = 0;

    if (change->kind == VIOMMU_CHANGE_MAP) {
        if (mirror->count == HELD_MAX) {
            guest_die("more mappings than there can be");
        }
        mirror->held[mirror->count++] = *change;
        return;
    }
    while (i < mirror->count && mirror->held[i].first != change->first) {
        i++;
    }
    if (i == mirror->count || mirror->held[i].last != change->last) {
        guest_die("an UNMAP of what is no mapping");
    }
    mirror->held[i] = mirror->held[--mirror->count];
}

static int on_mirror(void *opaque, const struct viommu_change *change)
{
    struct mirror *mirror = opaque;
    int ret;

    if (mirror->bed->lenient) {
        return 0;
    }
    for (unsigned i = 0; change->kind == VIOMMU_CHANGE_MAP && i < mirror->count; i++) {
        if (mirror->held[i].first <= change->last && mirror->held[i].last >= change->first) {
            guest_die("a MAP over a mapping");
        }
    }
    if (change->kind == VIOMMU_CHANGE_MAP &&
        (change->gpa >= sizeof(ram) || change->last - change->first >= sizeof(ram) - change->gpa ||
         change->host != ram + change->gpa)) {
        guest_die("a MAP of what is no memory");
    }
    ret = decide(mirror->bed, mirror, change);
    if (!ret) {
        apply(mirror, change);
    }
    return ret;
}

static int on_fence(void *opaque)
{
    struct mirror *mirror = opaque;

    if (!mirror->bed->lenient) {
        mirror->count = 0;
    }
    return 0;
}

/* Of the first two devices; one takes blocks, and few of them. */
static void mirror_begin(struct bed *bed, struct viommu_device *device, unsigned number, bool adopt)
{
    static const struct viommu_range allowed[] = {{0x2000, 0x1ffff}, {0x30000, 0xffffffff}};
    struct mirror *mirror = &bed->mirrors[number];
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .role = VIOMMU_ROLE_MIRROR,
        .form = number ? VIOMMU_FORM_POW2 : VIOMMU_FORM_RANGE,
        .mappings_max = number ? 12 : 0,
        .allowed = number && bed->virtio.domain_last ? allowed : NULL,
        .allowed_count = number && bed->virtio.domain_last ? 2 : 0,
        .page_sizes = number && bed->virtio.domain_last ? 0x201000 : 0,
        .change = on_mirror,
        .fence = on_fence,
        .opaque = mirror,
        .adopt = adopt,
    };

    if (bed->mirrored && number < 2) {
        mirror->bed = bed;
        if (viommu_device_subscribe(device, &what, &mirror->subscriber)) {
            bed->unlike = true;
            what.allowed = NULL;
            what.allowed_count = 0;
            what.page_sizes = 0;
            guest_ok(viommu_device_subscribe(device, &what, &mirror->subscriber), "mirror");
        }
    }
}

static void mirror_check(struct bed *bed, unsigned number)
{
    const struct mirror *mirror = &bed->mirrors[number];
    struct viommu_subscriber_status status;
    uint8_t perms[64] = {0};

    guest_ok(viommu_subscriber_status(mirror->subscriber, &status, sizeof(status)), "status");
    if (status.fenced || status.differences) {
        return;
    }
    if (status.behind || status.mappings != mirror->count) {
        guest_die("%u mappings, or %llu", mirror->count, (unsigned long long)status.mappings);
    }
    for (unsigned i = 0; i < mirror->count; i++) {
        const struct viommu_change *held = &mirror->held[i];

        for (uint64_t at = held->first; at < held->last; at += 4096) {
            struct viommu_translation out = {0};
            int ret = viommu_device_translate(bed->devices[number], NULL, at, 0, &out);

            if (ret == -EPERM) {
                return; /* denied */
            }
            if (ret || out.gpa != held->gpa + (at - held->first) || out.perm != held->perm) {
                guest_die("%#llx is mapped, and DMA: %d", (unsigned long long)at, ret);
            }
            if (at >> 12 < 64) {
                perms[at >> 12] = 1;
            }
        }
    }
    for (unsigned page = 0; page < 64; page++) {
        struct viommu_translation out;

        if (!perms[page] &&
            !viommu_device_translate(bed->devices[number], NULL, page * 4096ull, 0, &out) &&
            out.gpa < sizeof(ram)) {
            guest_die("%#x is not mapped, and DMA finds it", page);
        }
    }
}

/* A number that is nearly always small, in pages, or next to a border. */
static uint64_t any_address(struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);

    if (kind < 0xe0) {
        return (uint64_t)(kind & 0x3f) << 12;
    }
    return kind & 1 ? fuzz_number(input, 8) : -(uint64_t)(kind & 0xe) << 11;
}

static void on_revoke(void *opaque)
{
    (void)opaque;
}

/* Returns false when the id is another device's. */
static bool add_device(struct bed *bed, struct viommu *iommu, struct viommu_device **devices,
                       unsigned number, uint16_t id, bool adopt)
{
    struct viommu_device_config device = {
        .requester = id,
        .space = number < DEVICES - 1 && !bed->spaceless ? bed->space : NULL,
    };
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_UNMAP,
        .form = number ? VIOMMU_FORM_RANGE : VIOMMU_FORM_POW2,
        .change = on_change,
        .opaque = bed,
    };
    struct viommu_subscriber *subscriber;
    int ret = viommu_device_add(iommu, &device, &devices[number]);

    if (ret == -EEXIST) {
        return false;
    }
    if (ret == -ENOSPC) { /* PROBE has no room for what the space says */
        bed->unlike = true;
        device.space = NULL;
        ret = viommu_device_add(iommu, &device, &devices[number]);
    }
    guest_ok(ret, "device");
    guest_ok(viommu_device_subscribe(devices[number], &what, &subscriber), "subscribe");
    mirror_begin(bed, devices[number], number, adopt);
    return true;
}

static struct viommu *create(struct bed *bed, struct viommu_device **devices, bool adopt)
{
    struct viommu *iommu;

    guest_ok(viommu_virtio_create(&bed->config, &bed->virtio, &iommu), "create");
    for (unsigned i = 0; i < DEVICES; i++) {
        uint16_t id = bed->devices[i] ? viommu_device_requester(bed->devices[i])
                                      : (uint16_t)(8 + i);

        (void)add_device(bed, iommu, devices, i, id, adopt);
    }
    return iommu;
}

/* Takes a reservation of the space, or gives it back; the last one is a window that may move. */
static void reserve(struct bed *bed, unsigned which)
{
    struct viommu_iova_request request = {
        .type = (enum viommu_iova_type)(which % 3),
        .range = {0x20000 + which * 0x8000, 0x2ffff + which * 0x8800},
    };
    struct viommu_iova_conflict conflict;
    int ret;

    if (which == RESERVATIONS - 1) {
        request = (struct viommu_iova_request){.type = VIOMMU_IOVA_SW_MSI,
                                               .range = {0x10000, 0x10fff},
                                               .movable = true,
                                               .bounds = {0, 0x3ffff},
                                               .align = 0x1000};
    }
    if (bed->reservations[which]) {
        viommu_iova_release(bed->reservations[which]);
        bed->reservations[which] = NULL;
        return;
    }
    ret = viommu_iova_reserve(bed->host, &request, 1, &bed->reservations[which], &conflict);
    if (ret == -EEXIST && conflict.holder.kind != VIOMMU_IOVA_MAPPING) {
        guest_die("a reservation is refused, but not for a mapping");
    }
    if (ret && ret != -EEXIST && ret != -ENOSPC && ret != -EADDRNOTAVAIL) {
        guest_die("a reservation: %d", ret);
    }
}

/* Pulls a device out and puts it in again, where it was or where another one is not. */
static void replace_device(struct bed *bed, unsigned number, uint16_t id)
{
    uint16_t old = viommu_device_requester(bed->devices[number]);

    guest_ok(viommu_device_remove(bed->devices[number]), "remove");
    bed->mirrors[number].count = 0;
    bed->replaced = true;
    if (!add_device(bed, bed->iommu, bed->devices, number, id, false)) {
        (void)add_device(bed, bed->iommu, bed->devices, number, old, false);
    }
}

/* Pins a window, or releases the one that is open. */
static void window(struct bed *bed, struct fuzz_input *input, uint8_t kind)
{
    struct viommu_window **slot = &bed->windows[kind % WINDOWS];
    uint64_t first = any_address(input);
    struct viommu_range range = {first, first + 0xfff};
    struct viommu_window_request request = {
        .ranges = &range, .count = 1, .perm = 1 + kind / 64 % 3, .revoke = on_revoke};
    struct iovec iov[2];
    size_t parts = 2;

    if (*slot) {
        viommu_window_release(*slot);
        *slot = NULL;
    } else if (viommu_device_pin(bed->devices[kind / 4 % DEVICES], NULL, &request, iov, &parts,
                                 slot)) {
        *slot = NULL;
    }
}

static void release_windows(struct bed *bed)
{
    for (unsigned i = 0; i < WINDOWS; i++) {
        viommu_window_release(bed->windows[i]);
        bed->windows[i] = NULL;
    }
}

/* Limits of its own in place of the defaults. */
static void narrow(struct viommu_virtio_config *config, uint8_t kind)
{
    config->features |= VIOMMU_VIRTIO_INPUT_RANGE | VIOMMU_VIRTIO_DOMAIN_RANGE;
    config->input = (struct viommu_range){0x1000, kind & 1 ? 0xfffffffff : 0xffffffff};
    config->domain_first = 1;
    config->domain_last = 2;
    config->host_address_width = kind & 4 ? 64 : 32;
    config->page_size_mask = 0x40201000;
    config->probe_size = 256;
}

static void init(struct bed *bed, uint8_t kind)
{
    const struct viommu_iova_config space = {0};
    struct viommu_memory_slot slot = {.last = sizeof(ram) - 1, .host = ram, .fd = -1};
    struct viommu_memory_batch *batch;

    *bed = (struct bed){.clock = 1};
    guest_ok(viommu_memory_create(&bed->memory), "memory");
    guest_ok(viommu_memory_batch_begin(bed->memory, &batch), "batch");
    guest_ok(viommu_memory_batch_add(batch, &slot), "slot");
    guest_ok(viommu_memory_batch_commit(batch, NULL, NULL), "commit");
    bed->config = (struct viommu_config){
        .memory = bed->memory,
        .opaque = bed,
        .clock = on_clock,
        .iotlb_entries = 256,
        .cache_mode = kind & 32 ? VIOMMU_CACHE_HOSTILE : VIOMMU_CACHE_NORMAL,
        .cache_quota = 16,
        .cache_seed = kind,
    };
    bed->virtio = (struct viommu_virtio_config){
        .features = kind & 1 ? 0x77 : kind & 2 ? 0x0c : 0x3f,
        .bypass = kind & 4,
        .probe_size = 64,
        .domains_max = DOMAINS_MAX,
        .domain_endpoints_max = kind & 16 ? 2 : 0,
        .mappings_max = MAPPINGS_MAX,
        .faults_max = 4,
        .completed = on_completed,
    };
    if (kind & 128) {
        narrow(&bed->virtio, kind);
    }
    guest_ok(viommu_iova_create(&space, &bed->space), "space");
    guest_ok(viommu_iova_owner_create(bed->space, "host", &bed->host), "owner");
    if (kind & 8) {
        reserve(bed, 0);
    }
    bed->mirrored = kind & 64;
    bed->spaceless = (kind & 144) == 144;
    bed->iommu = create(bed, bed->devices, false);
    guest_ok(viommu_start(bed->iommu), "start");
    guest_ok(viommu_virtio_accept(bed->iommu, bed->virtio.features), "accept");
}

static struct spec_virtio_request any_request(struct fuzz_input *input)
{
    struct spec_virtio_request request;
    uint8_t kind = fuzz_byte(input);
    uint32_t domain = kind >> 3 & 3;
    uint64_t first;

    switch (kind & 7) {
    case 0:
        return spec_virtio_attach(domain, 8 + (kind >> 5 & 3), kind >> 7);
    case 1:
        return spec_virtio_detach(domain, 8 + (kind >> 5 & 3));
    case 2:
    case 3:
        first = any_address(input);
        return spec_virtio_map(domain, first, first + any_address(input) + 0xfff,
                               any_address(input), kind >> 5);
    case 4:
    case 5:
        first = any_address(input);
        return spec_virtio_unmap(domain, first, first + any_address(input) + 0xfff);
    case 6:
        return spec_virtio_probe(8 + (kind >> 5));
    default:
        request = (struct spec_virtio_request){.size = kind >> 3 == 31 ? 40 : kind >> 3};
        for (size_t i = 0; i < request.size; i++) {
            request.bytes[i] = fuzz_byte(input);
        }
        return request;
    }
}

static void send(struct bed *bed, struct fuzz_input *input, unsigned fail)
{
    struct spec_virtio_request request = any_request(input);
    size_t room = request.bytes[0] == SPEC_VIRTIO_PROBE ? fuzz_byte(input) : 4;
    uint8_t *in = malloc(request.size + 1);
    uint8_t *out = malloc(room + 1);
    size_t written = room + 1;
    int ret;

    /* Exactly as long as they are said to be: a sanitizer sees what goes beyond. */
    if (!in || !out) {
        guest_die("no memory");
    }
    memcpy(in, request.bytes, request.size);
    in = realloc(in, request.size ? request.size : 1);
    out = realloc(out, room ? room : 1);
    base_alloc_fail_at(fail);
    ret = viommu_virtio_request(bed->iommu, in, request.size, out, room, ++bed->sent, &written);
    base_alloc_fail_at(0);
    if (ret == VIOMMU_PENDING) {
        bed->pending++;
    } else if (ret && ret != -EBUSY) {
        guest_die("a request: %d", ret);
    }
    if (written > room || (ret && written)) {
        guest_die("%zu bytes of %zu", written, room);
    }
    free(in);
    free(out);
}

static void dma(struct bed *bed, struct fuzz_input *input, unsigned fail)
{
    uint8_t kind = fuzz_byte(input);
    struct viommu_device *device = bed->devices[kind % DEVICES];
    uint64_t iova = any_address(input) + (kind >> 2 & 7);
    struct viommu_translation out;
    uint8_t buf[8] = {0};

    base_alloc_fail_at(fail);
    if (kind & 0x80) {
        (void)viommu_device_translate(device, NULL, iova, kind >> 5 & 3, &out);
    } else if (kind & 0x40) {
        (void)viommu_device_write(device, NULL, iova, buf, kind >> 4 & 3);
    } else {
        (void)viommu_device_read(device, NULL, iova, buf, sizeof(buf));
    }
    base_alloc_fail_at(0);
}

static void forget_pending(struct bed *bed)
{
    bed->pending = 0;
    bed->completed = bed->sent;
    bed->token_count = 0;
}

/* Takes some bytes off the end of a section of a state; returns what the state's size is then. */
static size_t cut(unsigned char *bytes, size_t size, struct fuzz_input *input)
{
    unsigned which = fuzz_byte(input) & 7;
    size_t at = HEADER_SIZE;
    size_t gone = fuzz_number(input, 2);
    uint64_t length = 0;

    for (unsigned i = 0; at + SECTION_SIZE <= size; i++) {
        memcpy(&length, bytes + at + SECTION_SIZE - 8, 8);
        if (i == which || at + SECTION_SIZE + length == size) {
            break;
        }
        at += SECTION_SIZE + length;
    }
    gone %= length + 1;
    length -= gone;
    memcpy(bytes + at + SECTION_SIZE - 8, &length, 8);
    at += SECTION_SIZE + length;
    memmove(bytes + at, bytes + at + gone, size - at - gone);
    size -= gone;
    memcpy(bytes + 16, &size, 8);
    return size;
}

/* A state, perhaps changed, goes on in another instance. */
static void move(struct bed *bed, struct fuzz_input *input, unsigned fail)
{
    struct viommu_subscriber *mirrors[DEVICES];
    struct viommu_device *devices[DEVICES];
    uint8_t kind = fuzz_byte(input);
    struct viommu *second;
    unsigned char *bytes;
    void *again;
    void *data;
    size_t size;
    size_t size_again;
    bool changed;
    uint32_t crc;
    int ret;

    release_windows(bed);
    ret = viommu_save(bed->iommu, &data, &size);
    if (ret == -EBUSY && (bed->mirrored || bed->config.cache_mode)) {
        return; /* requests are late, or mirrors are told something */
    }
    guest_ok(ret, "save");
    bytes = data;
    changed = kind & 7;
    if (kind & 4) {
        size = cut(bytes, size, input);
    }
    for (unsigned i = 0; i < (kind & 3) && size > 88; i++) {
        size_t at = 88 + fuzz_number(input, 2) % (size - 88);

        bytes[at] ^= fuzz_byte(input);
    }
    crc = save_crc32c(0, bytes, CHECKSUM_AT);
    crc = save_crc32c(crc, bytes + HEADER_SIZE, size - HEADER_SIZE);
    for (unsigned i = 0; i < 4; i++) {
        bytes[CHECKSUM_AT + i] = (unsigned char)(crc >> 8 * i);
    }
    for (unsigned i = 0; i < DEVICES; i++) {
        mirrors[i] = bed->mirrors[i].subscriber;
    }
    second = create(bed, devices, true);
    base_alloc_fail_at(fail);
    ret = viommu_load(second, data, size);
    fail = base_alloc_failed();
    base_alloc_fail_at(0);
    if (!changed && !fail && !bed->unlike) {
        guest_ok(ret, "load");
    }
    if (!ret && !changed) {
        guest_ok(viommu_save(second, &again, &size_again), "save again");
        if (size != size_again || (!bed->replaced && memcmp(data, again, size))) {
            guest_die("another state");
        }
        viommu_save_free(again);
        viommu_destroy(bed->iommu);
        bed->iommu = second;
        memcpy(bed->devices, devices, sizeof(devices));
        bed->token_count = 0;
        bed->replaced = false;
    } else {
        struct bed kept = *bed;

        if (!ret) { /* what it says is not true: it only has to do no harm */
            for (unsigned i = 0; i < DEVICES; i++) {
                struct viommu_translation out;

                (void)viommu_device_translate(devices[i], NULL, 0x1000, VIOMMU_READ, &out);
            }
            bed->lenient = true;
            for (unsigned i = 0; i < 64 && viommu_process(second, 0) == VIOMMU_PENDING; i++) {
            }
        }
        viommu_destroy(second);
        *bed = kept;
        for (unsigned i = 0; i < DEVICES; i++) {
            bed->mirrors[i].subscriber = mirrors[i];
        }
    }
    viommu_save_free(data);
}

static void embedder(struct bed *bed, struct fuzz_input *input, unsigned fail)
{
    uint8_t kind = fuzz_byte(input);

    switch (kind & 15) {
    case 0:
        if (bed->sections < 3) {
            guest_ok(viommu_dma_begin(bed->iommu), "section");
            bed->sections++;
        }
        break;
    case 1:
        if (bed->sections) {
            viommu_dma_end(bed->iommu);
            bed->sections--;
        }
        break;
    case 2:
        if (bed->token_count) {
            struct token *token = &bed->tokens[--bed->token_count];
            int ret = viommu_change_complete(bed->iommu, token->token, kind & 16 ? -EIO : 0);

            if (!ret && token->mirror && !(kind & 16)) {
                apply(token->mirror, &token->change);
            }
        }
        break;
    case 3:
        bed->clock += (uint64_t)kind << 24;
        break;
    case 4:
        bed->answer = kind >> 4;
        break;
    case 5:
        (void)viommu_mmio_write(bed->iommu, kind & 16 ? 36 : fuzz_number(input, 2),
                                1 + (kind >> 5), fuzz_number(input, 8));
        break;
    case 6:
        base_alloc_fail_at(fail);
        if (viommu_virtio_reset(bed->iommu, ++bed->sent) == VIOMMU_PENDING) {
            bed->pending++;
        }
        base_alloc_fail_at(0);
        break;
    case 7:
        (void)viommu_virtio_accept(bed->iommu, kind & 16 ? bed->virtio.features
                                                          : fuzz_byte(input));
        break;
    case 8:
        if (kind & 16) {
            guest_ok(viommu_reset(bed->iommu), "reset");
            forget_pending(bed);
        }
        break;
    case 9:
        guest_ok(viommu_device_reset(bed->devices[(kind >> 4) % DEVICES]), "device reset");
        break;
    case 10:
        (void)viommu_device_set_requester(bed->devices[(kind >> 4) % DEVICES], 8 + (kind >> 6));
        break;
    case 11: {
        uint8_t fault[24];

        (void)viommu_virtio_fault(bed->iommu, fault, kind & 16 ? 24 : 8);
        break;
    }
    case 14:
        reserve(bed, (kind >> 4) % RESERVATIONS);
        break;
    case 12:
        replace_device(bed, (kind >> 4) % DEVICES, 8 + (kind >> 6));
        break;
    case 13:
        window(bed, input, fuzz_byte(input));
        break;
    default:
        base_alloc_fail_at(fail);
        (void)viommu_process(bed->iommu, kind >> 4);
        base_alloc_fail_at(0);
        break;
    }
}

static void check(struct bed *bed)
{
    struct viommu_virtio_status status;
    uint64_t value;

    guest_ok(viommu_virtio_status(bed->iommu, &status, sizeof(status)), "status");
    if (status.domains > DOMAINS_MAX || status.domains > status.endpoints ||
        status.endpoints > DEVICES || status.mappings > MAPPINGS_MAX || status.pending > 257 ||
        status.pending < bed->pending || status.faults_waiting > 4) {
        guest_die("%llu domains, %llu mappings, %llu pending", (unsigned long long)status.domains,
                  (unsigned long long)status.mappings, (unsigned long long)status.pending);
    }
    guest_ok(viommu_mmio_read(bed->iommu, 36, 1, &value), "bypass");
    if (value > 1) {
        guest_die("bypass is %llu", (unsigned long long)value);
    }
}

/* All that is pending completes. */
static void settle(struct bed *bed)
{
    while (bed->sections) {
        viommu_dma_end(bed->iommu);
        bed->sections--;
    }
    release_windows(bed);
    bed->answer = 0;
    for (unsigned round = 0; round < 6; round++) {
        while (viommu_process(bed->iommu, 0) == VIOMMU_PENDING) {
        }
        bed->clock += 1000000000;
    }
    bed->token_count = 0;
    if (bed->pending) {
        guest_die("%llu requests never complete", (unsigned long long)bed->pending);
    }
    for (unsigned i = 0; bed->mirrored && i < 2; i++) {
        mirror_check(bed, i);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    struct bed bed;

    init(&bed, fuzz_byte(&input));
    while (fuzz_more(&input)) {
        uint8_t operation = fuzz_byte(&input);
        unsigned fail = operation & 128 ? 1 + (operation >> 3 & 15) : 0;

        switch (operation & 7) {
        case 0:
        case 1:
        case 2:
            send(&bed, &input, fail);
            break;
        case 3:
        case 4:
            dma(&bed, &input, fail);
            break;
        case 5:
            if (fuzz_byte(&input) & 1) {
                move(&bed, &input, fail);
            } else {
                settle(&bed);
            }
            break;
        default:
            embedder(&bed, &input, fail);
            break;
        }
        check(&bed);
    }
    settle(&bed);
    viommu_destroy(bed.iommu);
    viommu_iova_destroy(bed.space);
    viommu_memory_destroy(bed.memory);
    return 0;
}
