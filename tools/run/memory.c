/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memory room: RAM and ROM come and go, and the guest (or the embedder) reads and writes them.
 *
 * Each slot is anonymous memory of this process. Memory of a removed slot is unmapped only when the
 * library says that its batch is complete; so a use after that is a crash, and tests see it. A
 * batch keeps what it adds and what it removes until then:
 *
 *     slots      in guest memory
 *     batch      open: what it would add and which ranges it would remove
 *     pending    committed batches that wait for DMA under way
 */
#include "run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    PAGE = 4096,
    READ_MAX = 16 << 20,
    SHORT_DATA = 64, /* so many bytes are printed; of more a hash */
    FNV_PRIME_LOW = 0x1b3,
};

struct slot {
    struct slot *next;
    uint64_t first;
    uint64_t last;
    void *host;
    bool readonly;
};

struct range {
    struct range *next;
    uint64_t first;
    uint64_t last;
};

struct batch {
    struct batch *next; /* in the list of pending ones */
    struct run *run;
    struct viommu_memory_batch *handle;
    struct slot *added;
    struct range *ranges;
    struct slot *removed; /* once committed */
};

struct memory_room {
    struct slot *slots;
    struct batch *open;
    struct batch *pending;
    unsigned done; /* batches that were pending and completed */
};

static bool in_slots(const struct slot *slot, struct memory_place *place)
{
    for (; slot; slot = slot->next) {
        if (place->gpa >= slot->first && place->gpa <= slot->last &&
            place->size - 1 <= slot->last - place->gpa &&
            place->host == (uint8_t *)slot->host + (place->gpa - slot->first)) {
            place->readonly = slot->readonly;
            return true;
        }
    }
    return false;
}

bool memory_is_at(const struct run *run, struct memory_place *place)
{
    const struct memory_room *room = run->memory_room;
    bool found = in_slots(room->slots, place);

    for (const struct batch *batch = room->pending; batch && !found; batch = batch->next) {
        found = in_slots(batch->removed, place);
    }
    return found;
}

static void slots_unmap(struct slot **list)
{
    while (*list) {
        struct slot *slot = *list;

        *list = slot->next;
        munmap(slot->host, slot->last - slot->first + 1);
        free(slot);
    }
}

static void batch_free(struct batch *batch)
{
    for (const struct slot *slot = batch->removed; slot; slot = slot->next) {
        mirrors_lose_memory(batch->run, slot->host, slot->last - slot->first + 1);
        pins_lose_memory(batch->run, slot->host, slot->last - slot->first + 1);
    }
    while (batch->ranges) {
        struct range *range = batch->ranges;

        batch->ranges = range->next;
        free(range);
    }
    slots_unmap(&batch->added);
    slots_unmap(&batch->removed);
    free(batch);
}

bool memory_room_init(struct run *run)
{
    run->memory_room = run_alloc(sizeof(*run->memory_room));
    if (!viommu_memory_create(&run->memory)) {
        return true;
    }
    free(run->memory_room);
    return false;
}

void memory_room_process(struct run *run)
{
    viommu_memory_process(run->memory);
}

void memory_room_fini(struct run *run)
{
    struct memory_room *room = run->memory_room;

    viommu_memory_process(run->memory);
    if (room->open) {
        viommu_memory_batch_abort(room->open->handle);
        batch_free(room->open);
    }
    viommu_memory_destroy(run->memory);
    while (room->pending) {
        struct batch *batch = room->pending;

        room->pending = batch->next;
        batch_free(batch);
    }
    slots_unmap(&room->slots);
    free(room);
}

/* The library's word that nothing can touch the removed slots any more. */
static void batch_done(void *opaque)
{
    struct batch *batch = opaque;
    struct memory_room *room = batch->run->memory_room;
    struct batch **at = &room->pending;

    while (*at != batch) {
        at = &(*at)->next;
    }
    *at = batch->next;
    room->done++;
    batch_free(batch);
}

static struct batch *batch_open(struct run *run)
{
    struct batch *batch = run_alloc(sizeof(*batch));
    int error = viommu_memory_batch_begin(run->memory, &batch->handle);

    batch->run = run;
    if (!error) {
        return batch;
    }
    result_errno(&run->result, error);
    free(batch);
    return NULL;
}

static int batch_add(struct batch *batch, uint64_t first, uint64_t size, uint32_t flags)
{
    struct slot *slot;
    int error;
    void *host;

    if (!size || size - 1 > UINT64_MAX - first) {
        return -EINVAL;
    }
    host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                -1, 0);
    if (host == MAP_FAILED) {
        return -ENOMEM;
    }
    slot = run_alloc(sizeof(*slot));
    *slot = (struct slot){batch->added, first, first + (size - 1), host,
                          flags & VIOMMU_MEMORY_READONLY};
    batch->added = slot;
    error = viommu_memory_batch_add(batch->handle, &(struct viommu_memory_slot){
        .first = first, .last = slot->last, .host = host, .fd = -1, .flags = flags});
    return error;
}

static int batch_remove(struct batch *batch, uint64_t first, uint64_t size)
{
    struct range *range;

    if (!size || size - 1 > UINT64_MAX - first) {
        return -EINVAL;
    }
    range = run_alloc(sizeof(*range));
    *range = (struct range){batch->ranges, first, first + (size - 1)};
    batch->ranges = range;
    return viommu_memory_batch_remove(batch->handle, range->first, range->last);
}

static bool in_ranges(const struct batch *batch, const struct slot *slot)
{
    for (const struct range *range = batch->ranges; range; range = range->next) {
        if (slot->first >= range->first && slot->last <= range->last) {
            return true;
        }
    }
    return false;
}

/* Takes over what the batch did: removed slots go to the batch, added ones to the room. */
static void batch_applied(struct memory_room *room, struct batch *batch)
{
    for (struct slot **at = &room->slots; *at;) {
        struct slot *slot = *at;

        if (!in_ranges(batch, slot)) {
            at = &slot->next;
            continue;
        }
        *at = slot->next;
        slot->next = batch->removed;
        batch->removed = slot;
    }
    while (batch->added) {
        struct slot *slot = batch->added;

        batch->added = slot->next;
        slot->next = room->slots;
        room->slots = slot;
    }
}

static void batch_commit(struct run *run, struct batch *batch)
{
    struct memory_room *room = run->memory_room;
    int status;

    batch->next = room->pending;
    room->pending = batch;
    status = viommu_memory_batch_commit(batch->handle, batch_done, batch);
    if (status >= 0) {
        batch_applied(room, batch);
    }
    if (status != VIOMMU_PENDING) {
        room->pending = batch->next;
        batch_free(batch);
    }
    result_errno(&run->result, status);
    if (status == -EADDRNOTAVAIL) {
        iova_result_refused(run);
    }
}

static bool range_arguments(struct run *run, uint64_t *at, uint64_t *size)
{
    return arg_number(run, "at", at) && arg_number(run, "size", size);
}

/* One change in a batch of its own. */
static void add_at_once(struct run *run, uint32_t flags)
{
    struct batch *batch;
    uint64_t at;
    uint64_t size;
    int error;

    if (!range_arguments(run, &at, &size)) {
        return;
    }
    batch = batch_open(run);
    if (!batch) {
        return;
    }
    error = batch_add(batch, at, size, flags);
    if (!error) {
        batch_commit(run, batch);
        return;
    }
    result_errno(&run->result, error);
    viommu_memory_batch_abort(batch->handle);
    batch_free(batch);
}

static void do_ram(struct run *run)
{
    add_at_once(run, 0);
}

static void do_rom(struct run *run)
{
    struct memory_room *room = run->memory_room;
    uint8_t *bytes = NULL;
    size_t size = 0;

    if (run->line.word_count > 3 && !arg_data(run, &bytes, &size)) {
        return;
    }
    add_at_once(run, VIOMMU_MEMORY_READONLY);
    if (!run->failed && !strcmp(run->result.status, "ok") && bytes) {
        struct slot *slot = room->slots;

        if (size > slot->last - slot->first + 1) {
            run_error(run, NULL, "the contents are larger than the ROM");
        } else {
            memcpy(slot->host, bytes, size);
        }
    }
    free(bytes);
}

static void do_ram_remove(struct run *run)
{
    struct batch *batch;
    uint64_t at;
    uint64_t size;
    int error;

    if (!range_arguments(run, &at, &size)) {
        return;
    }
    batch = batch_open(run);
    if (!batch) {
        return;
    }
    error = batch_remove(batch, at, size);
    if (!error) {
        batch_commit(run, batch);
        return;
    }
    result_errno(&run->result, error);
    viommu_memory_batch_abort(batch->handle);
    batch_free(batch);
}

static void do_batch_begin(struct run *run)
{
    if (run->memory_room->open) {
        run_error(run, NULL, "a batch is open already");
    } else {
        run->memory_room->open = batch_open(run);
    }
}

/* The open batch, or an error. */
static struct batch *open_batch(struct run *run)
{
    if (!run->memory_room->open) {
        run_error(run, NULL, "no batch is open: `batch begin` opens one");
    }
    return run->memory_room->open;
}

static void do_batch_add(struct run *run)
{
    uint32_t flags = arg_flag(run, "readonly") ? VIOMMU_MEMORY_READONLY : 0;
    uint64_t at;
    uint64_t size;

    if (open_batch(run) && range_arguments(run, &at, &size)) {
        result_errno(&run->result, batch_add(run->memory_room->open, at, size, flags));
    }
}

static void do_batch_remove(struct run *run)
{
    uint64_t at;
    uint64_t size;

    if (open_batch(run) && range_arguments(run, &at, &size)) {
        result_errno(&run->result, batch_remove(run->memory_room->open, at, size));
    }
}

static void do_batch_commit(struct run *run)
{
    struct batch *batch = open_batch(run);

    if (!batch) {
        return;
    }
    run->memory_room->open = NULL;
    batch_commit(run, batch);
}

static void do_batch_abort(struct run *run)
{
    struct batch *batch = open_batch(run);

    if (!batch) {
        return;
    }
    run->memory_room->open = NULL;
    viommu_memory_batch_abort(batch->handle);
    batch_free(batch);
}

static void do_memory_status(struct run *run)
{
    int status = viommu_memory_process(run->memory);
    unsigned pending = 0;

    for (const struct batch *batch = run->memory_room->pending; batch; batch = batch->next) {
        pending++;
    }
    result_errno(&run->result, status);
    result_decimal(&run->result, "pending", pending);
    result_decimal(&run->result, "done", run->memory_room->done);
}

static uint64_t hash(const uint8_t *bytes, size_t size)
{
    uint64_t value = 0xcbf29ce484222325;

    for (size_t i = 0; i < size; i++) {
        value = (value ^ bytes[i]) * (((uint64_t)1 << 40) + FNV_PRIME_LOW);
    }
    return value;
}

static bool is_text(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] < ' ' || bytes[i] > '~') {
            return false;
        }
    }
    return size != 0;
}

static void result_number_of(struct run *run, const uint8_t *bytes, size_t size)
{
    static const char *const names[] = {[1] = "u8", [2] = "u16", [4] = "u32", [8] = "u64"};
    uint64_t value = 0;

    if (size > 8 || !size || (size & (size - 1))) {
        return;
    }
    for (size_t i = 0; i < size; i++) {
        value |= (uint64_t)bytes[i] << 8 * i;
    }
    result_hex(&run->result, names[size], value);
}

void memory_result_bytes(struct run *run, const uint8_t *bytes, size_t size)
{
    char hex[2 * SHORT_DATA + 1] = "";

    if (size > SHORT_DATA) {
        result_hex(&run->result, "hash", hash(bytes, size));
        return;
    }
    for (size_t i = 0; i < size; i++) {
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    }
    result_word(&run->result, "data", hex);
    if (is_text(bytes, size)) {
        result_text(&run->result, "text", (const char *)bytes, size);
    }
    result_number_of(run, bytes, size);
}

static void do_write(struct run *run)
{
    uint64_t at;
    uint8_t *bytes;
    size_t size;

    if (!arg_number(run, "at", &at) || !arg_data(run, &bytes, &size)) {
        return;
    }
    result_errno(&run->result, viommu_memory_write(run->memory, at, bytes, size));
    free(bytes);
}

/* The arguments at and len, and room for so many bytes; NULL with an error said. */
static uint8_t *buffer_arguments(struct run *run, uint64_t *at, size_t *size)
{
    uint64_t length = 0;

    if (!arg_number(run, "at", at) || !arg_number_max(run, "len", READ_MAX, &length)) {
        return NULL;
    }
    *size = (size_t)length;
    return run_alloc(*size);
}

static void do_zero(struct run *run)
{
    uint64_t at;
    size_t size;
    uint8_t *bytes = buffer_arguments(run, &at, &size);

    if (bytes) {
        result_errno(&run->result, viommu_memory_write(run->memory, at, bytes, size));
    }
    free(bytes);
}

/* Reads the bytes that the arguments name; NULL, with a result that says why, when that fails. */
static uint8_t *read_arguments(struct run *run, size_t *size)
{
    uint64_t at;
    uint8_t *bytes = buffer_arguments(run, &at, size);
    int error;

    if (!bytes) {
        return NULL;
    }
    error = viommu_memory_read(run->memory, at, bytes, *size);
    result_errno(&run->result, error);
    if (error) {
        free(bytes);
        return NULL;
    }
    return bytes;
}

static void do_read(struct run *run)
{
    size_t size;
    uint8_t *bytes = read_arguments(run, &size);

    if (bytes) {
        memory_result_bytes(run, bytes, size);
    }
    free(bytes);
}

static void do_hash(struct run *run)
{
    size_t size;
    uint8_t *bytes = read_arguments(run, &size);

    if (bytes) {
        result_hex(&run->result, "hash", hash(bytes, size));
    }
    free(bytes);
}

bool guest_read(struct run *run, uint64_t gpa, void *buffer, size_t size)
{
    int error = viommu_memory_read(run->memory, gpa, buffer, size);

    if (error) {
        run_error(run, NULL, "no guest memory at 0x%" PRIx64 " to read", gpa);
    }
    return !error;
}

bool guest_write(struct run *run, uint64_t gpa, const void *buffer, size_t size)
{
    int error = viommu_memory_write(run->memory, gpa, buffer, size);

    if (error) {
        run_error(run, NULL, "no guest memory at 0x%" PRIx64 " to write", gpa);
    }
    return !error;
}

uint64_t guest_read64(struct run *run, uint64_t gpa)
{
    uint8_t bytes[8] = {0};
    uint64_t value = 0;

    guest_read(run, gpa, bytes, sizeof(bytes));
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        value |= (uint64_t)bytes[i] << 8 * i;
    }
    return value;
}

void guest_write64(struct run *run, uint64_t gpa, uint64_t value)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(value >> 8 * i);
    }
    guest_write(run, gpa, bytes, sizeof(bytes));
}

const struct command memory_commands[] = {
    {"ram", "at size", "Adds RAM to the guest's memory.", do_ram},
    {"rom", "at size " DATA_ARGUMENTS, "Adds ROM with the given contents.", do_rom},
    {"ram-remove", "at size", "Removes the RAM and ROM in a range; pending while DMA may touch it.",
     do_ram_remove},
    {"batch begin", "", "Opens a batch of changes of guest memory.", do_batch_begin},
    {"batch add", "at size [readonly!]", "Adds RAM, or ROM, in the open batch.", do_batch_add},
    {"batch remove", "at size", "Removes what lies in a range in the open batch.", do_batch_remove},
    {"batch commit", "",
     "Applies the open batch as a whole; pending while DMA may touch what goes.", do_batch_commit},
    {"batch abort", "", "Forgets the open batch.", do_batch_abort},
    {"memory status", "",
     "Tells how many changes of memory are pending, and how many that were are done.",
     do_memory_status},
    {"write", "at " DATA_ARGUMENTS, "Writes guest memory as the guest.", do_write},
    {"zero", "at len", "Writes zeros to guest memory.", do_zero},
    {"read", "at len", "Reads guest memory.", do_read},
    {"hash", "at len", "Hashes guest memory: equal contents, equal hash.", do_hash},
    {0},
};
