/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model test lets devices read, write and translate, and checks what comes of it.
 */
#include "outcome.h"

#include <errno.h>
#include <string.h>

#define LENGTH_MAX 6000
#define PIECES_MAX 3

/* The part of an access that lies in one page, with what may come of it. */
struct piece {
    uint64_t iova;
    size_t offset; /* in the buffer */
    size_t len;
    struct outcomes outcomes;
};

struct access {
    struct world_device *device;
    struct viommu_dma_attrs attrs;
    struct request request;
    uint64_t iova;
    size_t len;
    bool write;
    unsigned count;
    unsigned done; /* pieces that came before the one that failed, or all */
    struct piece pieces[PIECES_MAX];
    uint8_t buf[LENGTH_MAX];
};

static struct access access; /* too large for a stack; the test has one thread */

/* Where an access was allowed lately: to be tried again, so that caches matter. */
static struct {
    struct world_device *device;
    uint64_t iova;
} recent[8];
static unsigned recent_next;
static bool again;

static void remember(void)
{
    recent[recent_next].device = access.device;
    recent[recent_next].iova = access.iova & ~0xfffull;
    recent_next = (recent_next + 1) % 8;
}

static uint64_t choose_page(struct world *world)
{
    return again ? access.iova : world_any_page(world);
}

static bool choose_requester(struct world *world)
{
    unsigned which = world_below(world, 8);

    access.device = world_any_device(world);
    again = world_percent(world, 60) && recent[which].device && recent[which].device->device;
    if (again) {
        access.device = recent[which].device;
        access.iova = recent[which].iova;
    }
    if (!access.device) {
        return false;
    }
    memset(&access.attrs, 0, sizeof(access.attrs));
    access.request = (struct request){.requester = access.device->requester};
    if (access.device->alias_count && world_percent(world, again ? 5 : 30)) {
        access.attrs.alias = 1 + world_below(world, access.device->alias_count);
        access.request.requester = access.device->aliases[access.attrs.alias - 1];
    }
    return true;
}

static void nothing_recorded(struct world *world)
{
    if (!world_faults_equal(world, &world->faults)) {
        struct outcomes none = {.request = access.request};

        outcomes_fail(world, &none, "a request that was not refused changed the fault registers");
    }
}

static const struct outcome *refused(struct world *world, const struct outcomes *outcomes)
{
    const struct outcome *outcome = outcomes_refused(world, outcomes);

    if (!outcome) {
        outcomes_fail(world, outcomes, "refused, which is wrong or wrongly recorded");
    }
    return outcome;
}

/* viommu_device_translate */

static void translate(struct world *world)
{
    struct viommu_translation out;
    struct outcomes outcomes;
    uint64_t offset = world_below(world, 4096);
    int result;

    access.request.iova = choose_page(world);
    access.request.need = world_below(world, 4);
    access.request.dword = true;
    if (spec_in_interrupt_range(access.request.iova)) {
        if (access.request.need == (SPEC_R | SPEC_W) || !world->translating) {
            return;
        }
        offset &= ~3ull;
    }
    world_note(world, "translate %04x %#llx needs %u", access.request.requester,
               (unsigned long long)(access.request.iova + offset), access.request.need);
    outcomes_collect(world, &access.request, &outcomes);
    memset(&out, 0, sizeof(out));
    guest_ok(viommu_dma_begin(world->guest.iommu), "section");
    result = viommu_device_translate(access.device->device, &access.attrs,
                                     access.request.iova + offset, access.request.need, &out);
    viommu_dma_end(world->guest.iommu);
    world->accesses++;
    if (access.device->denied) {
        if (result != -EPERM) {
            outcomes_fail(world, &outcomes, "a denied device got %d", result);
        }
        return;
    }
    outcomes_note(world, &outcomes);
    if (result == -EFAULT) {
        refused(world, &outcomes);
        return;
    }
    if (result) {
        outcomes_fail(world, &outcomes, "translate returned %d", result);
    }
    world->allowed++;
    access.iova = access.request.iova;
    remember();
    for (unsigned i = 0; i < outcomes.count; i++) {
        const struct outcome *outcome = &outcomes.list[i];

        if (!outcome->refused && out.interrupt == outcome->interrupt &&
            (outcome->interrupt || out.gpa == outcome->gpa + offset) && out.mask >= 0xfff &&
            out.mask <= outcome->mask && (out.mask & (out.mask + 1)) == 0 &&
            (outcome->interrupt || out.perm == outcome->perm)) {
            nothing_recorded(world);
            return;
        }
    }
    if (spec_in_interrupt_range(access.request.iova)) {
        return; /* a zero-length read there: any answer will do */
    }
    outcomes_fail(world, &outcomes, "translated to %#llx mask %#llx perm %u%s",
                  (unsigned long long)out.gpa, (unsigned long long)out.mask, out.perm,
                  out.interrupt ? " interrupt" : "");
}

/* viommu_device_read and viommu_device_write */

static bool choose_range(struct world *world)
{
    uint64_t offset = world_below(world, 4096);
    unsigned kind = world_below(world, 10);

    access.iova = choose_page(world);
    if (kind < 3) {
        access.len = 4;
        offset &= ~3ull;
    } else if (kind < 4) {
        access.len = 0;
    } else if (kind < 7) {
        access.len = 1 + world_below(world, 64);
    } else if (kind < 8) { /* across a page border, a few bytes on each side */
        access.len = 8;
        offset = 4092 - 4 * world_below(world, 2);
    } else {
        /* Pages may lead to one place: no byte of a write may be overwritten by a later one. */
        access.len = 1 + world_below(world, access.write ? 4096 : LENGTH_MAX);
    }
    if (world_keeps(world) && access.write && access.len > 4096 - offset) {
        /* What the tables say between the pages of one write is not to be known here. */
        access.len = 4096 - offset;
    }
    access.iova += offset;
    return access.len == 0 || access.iova <= UINT64_MAX - (access.len - 1);
}

/* Cuts the access at pages; false when it reaches a page that the test does not follow. */
static bool cut(struct world *world)
{
    size_t done = 0;

    access.count = 0;
    do {
        struct piece *piece = &access.pieces[access.count++];
        struct request request = access.request;
        uint64_t at = access.iova + done;
        size_t room = 4096 - (at & 0xfff);

        piece->iova = at;
        piece->offset = done;
        piece->len = access.len - done < room ? access.len - done : room;
        done += piece->len;
        request.iova = at & ~0xfffull;
        request.need = !access.len ? 0 : access.write ? SPEC_W : SPEC_R;
        request.zero_write = !access.len && access.write;
        request.dword = access.write && piece->len == 4 && !(at & 3);
        if (history_page_index(&world->history, at) < 0) {
            return false;
        }
        if (spec_in_interrupt_range(at) && !world->translating && !request.dword) {
            return false;
        }
        outcomes_collect(world, &request, &piece->outcomes);
    } while (done < access.len);
    return true;
}

static uint8_t *host_of(struct world *world, uint64_t gpa, size_t len, bool shadow)
{
    struct ram_slot *slot = ram_find(&world->ram, gpa, len);

    if (!slot) {
        return NULL;
    }
    return (shadow ? slot->shadow : slot->host) + (gpa - slot->first);
}

/*
 * Whether the piece was done, by one of the right translations; a write is taken as right, if
 * asked.
 */
static bool piece_done(struct world *world, const struct piece *piece, bool accept)
{
    const uint8_t *buf = access.buf + piece->offset;
    bool found = !piece->len;

    for (unsigned i = 0; i < piece->outcomes.count && piece->len; i++) {
        const struct outcome *outcome = &piece->outcomes.list[i];
        uint64_t gpa = outcome->gpa + (piece->iova & 0xfff);
        uint8_t *host = host_of(world, gpa, piece->len, false);

        if (outcome->interrupt && access.write) {
            return true; /* counted by the caller */
        }
        if (outcome->refused || !host || memcmp(host, buf, piece->len) ||
            (access.write && ram_find(&world->ram, gpa, piece->len)->rom)) {
            continue;
        }
        found = true;
        if (!access.write || !accept) {
            return true;
        }
        if (memcmp(host_of(world, gpa, piece->len, true), buf, piece->len)) {
            ram_accept(&world->ram, gpa, piece->len); /* it changed: this is where it went */
            world->dirty = true;
            return true;
        }
    }
    return found;
}

/* Whether some right translation of the piece leads to no memory (or, for -EROFS, to ROM). */
static bool piece_misses(struct world *world, const struct piece *piece, int error)
{
    for (unsigned i = 0; i < piece->outcomes.count; i++) {
        const struct outcome *outcome = &piece->outcomes.list[i];
        uint64_t gpa = outcome->gpa + (piece->iova & 0xfff);
        struct ram_slot *slot = ram_find(&world->ram, gpa, piece->len ? piece->len : 1);

        if (!outcome->refused && (error == -ENXIO ? !slot : slot && slot->rom)) {
            return true;
        }
    }
    return false;
}

static void check_memory(struct world *world, const struct outcomes *outcomes)
{
    uint64_t where;

    if (!ram_check(&world->ram, &where)) {
        outcomes_fail(world, outcomes, "guest memory at %#llx changed, where nobody may write",
                      (unsigned long long)where);
    }
}

static bool all_done_before(struct world *world, unsigned end, bool accept)
{
    for (unsigned i = 0; i < end; i++) {
        if (!piece_done(world, &access.pieces[i], accept)) {
            return false;
        }
    }
    return true;
}

/*
 * Some piece was refused or missed memory: those before it are done, and it explains `result`.
 * Where several could explain it (the fault was not recorded), the last whose predecessors are done
 * does.
 */
static void check_partial(struct world *world, int result)
{
    for (unsigned at = access.count; at--;) {
        struct piece *piece = &access.pieces[at];

        if (all_done_before(world, at, false) &&
            (result == -EFAULT ? outcomes_refused(world, &piece->outcomes) != NULL
                               : piece_misses(world, piece, result))) {
            all_done_before(world, at, true);
            access.done = at;
            if (result != -EFAULT) {
                nothing_recorded(world);
            }
            return;
        }
    }
    outcomes_fail(world, &access.pieces[0].outcomes, "access of %zu bytes at %#llx: error %d",
                  access.len, (unsigned long long)access.iova, result);
}

/* The first page of a write may have been a page table: then the others go by what it says now. */
static void follow_own_writes(struct world *world)
{
    struct request request;

    if (!access.write || access.count == 1 || !piece_done(world, &access.pieces[0], true) ||
        !world->dirty) {
        return;
    }
    history_refresh(&world->history);
    world->dirty = false;
    outcomes_note(world, &access.pieces[0].outcomes);
    request = access.pieces[1].outcomes.request;
    outcomes_collect(world, &request, &access.pieces[1].outcomes);
}

static void check_access(struct world *world, int result)
{
    struct outcomes *first = &access.pieces[0].outcomes;

    world->accesses++;
    access.done = 0;
    follow_own_writes(world);
    if (access.device->denied) {
        if (result != -EPERM) {
            outcomes_fail(world, first, "a denied device got %d", result);
        }
    } else if (result == 0) {
        world->allowed++;
        remember();
        access.done = access.count;
        for (unsigned i = 0; i < access.count; i++) {
            if (!piece_done(world, &access.pieces[i], true)) {
                outcomes_fail(world, &access.pieces[i].outcomes, "%s, but not this memory",
                              access.write ? "written" : "read");
            }
        }
        nothing_recorded(world);
    } else if (result == -EFAULT || result == -ENXIO || (result == -EROFS && access.write)) {
        check_partial(world, result);
    } else {
        outcomes_fail(world, first, "access returned %d", result);
    }
    if (access.write) {
        check_memory(world, first);
    }
}

/* How many pages of the access became messages: each page is a packet of its own. */
static unsigned messages_due(void)
{
    unsigned due = 0;

    for (unsigned i = 0; i < access.done && access.write; i++) {
        due += access.pieces[i].outcomes.list[0].interrupt;
    }
    return due;
}

static void read_or_write(struct world *world)
{
    uint64_t messages = world->device_messages_seen;
    int result;

    access.write = world_percent(world, 50);
    if (!choose_range(world) || !cut(world)) {
        return;
    }
    world_note(world, "%s %04x%s %#llx + %zu", access.write ? "write" : "read",
               access.request.requester,
               access.request.type == VIOMMU_DMA_TRANSLATED ? " (translated)" : "",
               (unsigned long long)access.iova, access.len);
    for (size_t i = 0; i < access.len; i++) {
        access.buf[i] = (uint8_t)random_u64(&world->random);
    }
    if (access.write) {
        result = viommu_device_write(access.device->device, &access.attrs, access.iova, access.buf,
                                     access.len);
    } else {
        result = viommu_device_read(access.device->device, &access.attrs, access.iova, access.buf,
                                    access.len);
    }
    check_access(world, result);
    for (unsigned i = 0; i < access.count && i <= access.done && result != -EPERM; i++) {
        outcomes_note(world, &access.pieces[i].outcomes);
    }
    if (world->device_messages_seen != messages + messages_due()) {
        outcomes_fail(world, &access.pieces[0].outcomes, "a device's message came %llu times",
                      (unsigned long long)(world->device_messages_seen - messages));
    }
    world_refresh(world);
}

void world_forget_recent(void)
{
    memset(recent, 0, sizeof(recent));
    recent_next = 0;
}

struct world_device *world_recent(struct world *world, uint64_t *iova)
{
    unsigned which = world_below(world, 8);

    if (!recent[which].device || !recent[which].device->device) {
        return NULL;
    }
    *iova = recent[which].iova;
    return recent[which].device;
}

void world_access(struct world *world)
{
    if (!choose_requester(world)) {
        return;
    }
    if (world_percent(world, 30)) {
        translate(world);
    } else {
        read_or_write(world);
    }
}

/* ATS */

/* Whether an entry says of a page what one of the outcomes does. */
static bool entry_explained(const struct viommu_ats_entry *entry, uint64_t page,
                            const struct outcomes *outcomes)
{
    bool found = false;

    for (unsigned i = 0; i < outcomes->count && !found; i++) {
        const struct outcome *outcome = &outcomes->list[i];

        found = !outcome->refused && entry->perm == outcome->perm &&
                (!entry->perm || entry->untranslated_only ||
                 entry->gpa + (page - entry->iova) == outcome->gpa) &&
                entry->untranslated_only == outcome->untranslated_only;
    }
    return found;
}

_Noreturn static void entry_fail(struct world *world, const struct viommu_ats_entry *entry,
                                 const struct outcomes *outcomes)
{
    outcomes_fail(world, outcomes, "ATS entry %#llx mask %#llx gpa %#llx perm %u%s",
                  (unsigned long long)entry->iova, (unsigned long long)entry->mask,
                  (unsigned long long)entry->gpa, entry->perm,
                  entry->untranslated_only ? " untranslated-only" : "");
}

static void check_entry(struct world *world, const struct viommu_ats_entry *entry)
{
    struct request request = access.request;
    struct outcomes outcomes;

    if ((entry->mask & (entry->mask + 1)) || entry->mask < 0xfff || entry->iova & entry->mask) {
        world_fail(world, "an ATS entry at %#llx has mask %#llx", (unsigned long long)entry->iova,
                   (unsigned long long)entry->mask);
    }
    for (unsigned i = 0; i < world->history.page_count && !world_keeps(world); i++) {
        uint64_t page = world->history.pages[i];

        if ((page ^ entry->iova) & ~entry->mask) {
            continue;
        }
        if (page != (access.iova & ~0xfffull) && !entry->perm) {
            continue; /* nothing there: its size is of no use */
        }
        request.iova = page;
        outcomes_collect(world, &request, &outcomes);
        if (!entry_explained(entry, page, &outcomes)) {
            entry_fail(world, entry, &outcomes);
        }
    }
}

/*
 * For a cache that keeps: the page of each entry that was looked up for it, and the one more that
 * ended the run. Of other pages in an entry something else may be known.
 */
static void check_looked_up(struct world *world, const struct viommu_ats_entry *entries,
                            unsigned count, unsigned room, uint64_t last)
{
    struct request request = access.request;
    struct outcomes outcomes;
    uint64_t next;

    for (unsigned i = 0; i < count; i++) {
        request.iova = i ? entries[i].iova : access.request.iova;
        outcomes_collect(world, &request, &outcomes);
        if (!entry_explained(&entries[i], request.iova, &outcomes)) {
            entry_fail(world, &entries[i], &outcomes);
        }
        outcomes_note(world, &outcomes);
    }
    next = entries[count - 1].iova + entries[count - 1].mask + 1;
    if (count < room && next - 1 < last) {
        request.iova = next;
        outcomes_collect(world, &request, &outcomes);
        outcomes_note(world, &outcomes);
    }
}

static void ats_request(struct world *world)
{
    struct viommu_ats_entry entries[8];
    unsigned count = 1 + world_below(world, 8);
    struct outcomes outcomes;
    uint64_t len;
    int result;

    access.request.type = VIOMMU_DMA_TRANSLATION;
    access.request.iova = choose_page(world);
    access.request.no_write = world_percent(world, 30);
    access.iova = access.request.iova + world_below(world, 4096);
    len = 1 + world_below(world, 5 * 4096);
    if (len - 1 > UINT64_MAX - access.iova) {
        return;
    }
    world_note(world, "ATS request %04x %#llx + %llu%s, up to %u", access.request.requester,
               (unsigned long long)access.iova, (unsigned long long)len,
               access.request.no_write ? " no-write" : "", count);
    outcomes_collect(world, &access.request, &outcomes);
    memset(entries, 0, sizeof(entries));
    result = viommu_device_ats_translate(access.device->device, &access.attrs, access.iova, len,
                                         access.request.no_write, entries, count);
    world->accesses++;
    if (access.device->denied) {
        if (result != -EPERM) {
            outcomes_fail(world, &outcomes, "a denied device got %d", result);
        }
        return;
    }
    if (result == -EFAULT) {
        outcomes_note(world, &outcomes);
        refused(world, &outcomes);
        return;
    }
    if (result < 1 || (unsigned)result > count) {
        outcomes_fail(world, &outcomes, "ATS request returned %d", result);
    }
    world->allowed++;
    if ((access.iova ^ entries[0].iova) & ~entries[0].mask) {
        outcomes_fail(world, &outcomes, "the first ATS entry is for %#llx",
                      (unsigned long long)entries[0].iova);
    }
    for (int i = 0; i < result; i++) {
        if (i && entries[i].iova != entries[i - 1].iova + entries[i - 1].mask + 1) {
            outcomes_fail(world, &outcomes, "ATS entries %d and %d do not abut", i - 1, i);
        }
        check_entry(world, &entries[i]);
    }
    if (world_keeps(world)) {
        check_looked_up(world, entries, (unsigned)result, count, access.iova + (len - 1));
    }
    nothing_recorded(world);
}

void world_translated(struct world *world)
{
    if (!choose_requester(world) || !access.device->ats) {
        return;
    }
    if (world_percent(world, 60)) {
        ats_request(world);
        return;
    }
    access.attrs.type = VIOMMU_DMA_TRANSLATED;
    access.request.type = VIOMMU_DMA_TRANSLATED;
    read_or_write(world);
}
