/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The conversation about translations: MISS, UPDATE, INVALIDATE.
 *
 * An UPDATE tells of a *run*: device addresses that follow one another in one region of the far
 * side's memory, with one permission. It is grown around the page that is asked for, by looking at
 * a bounded number of pages to either side; that is silent. It never reaches into what the far side
 * may hold already: some back-ends ignore an UPDATE that begins where they have one. What is asked
 * for again, and is as it was, is told again, no more than that.
 *
 * Some back-ends drop whole pieces where an INVALIDATE meets a part of one, or only touches its
 * beginning. So what is told of here may be gone though `held` still has it, which is harmless;
 * but a ring of which this is true is told anew, unasked: its far side may be asleep.
 *
 * A page that is larger than 4 KiB is dropped whole when the guest invalidates a part of it, as
 * hardware does. Its level (0: 4 KiB, 1: 2 MiB, 2: 1 GiB) is kept for that in `held`.
 */
#include "vhost/private.h"

#include "device/dma.h"

#include <assert.h>
#include <string.h>

#define PERMS           ((uint32_t)VIOMMU_READ | VIOMMU_WRITE)
#define TAG_LEVEL_SHIFT 2

/* Begins a section, as threads that come here can (private.h). */
static void enter(struct viommu_vhost *vhost)
{
    bool entered = epoch_enter(vhost->iommu->epoch);

    assert(entered);
    (void)entered;
}

static void leave(struct viommu_vhost *vhost)
{
    epoch_leave(vhost->iommu->epoch);
}

/* ---- what is held ---- */

static uint64_t held_tag(uint32_t perm, unsigned level)
{
    return perm | (uint64_t)level << TAG_LEVEL_SHIFT;
}

static uint32_t held_perm(const struct range_run *run)
{
    return (uint32_t)run->tag & PERMS;
}

static unsigned held_level(const struct range_run *run)
{
    return (unsigned)(run->tag >> TAG_LEVEL_SHIFT);
}

static void hold_all(struct viommu_vhost *vhost)
{
    range_map_fini(&vhost->held);
    vhost->all_held = true;
}

static void hold_nothing(struct viommu_vhost *vhost)
{
    range_map_fini(&vhost->held);
    vhost->all_held = false;
    vhost->held_level = 0;
}

static void hold(struct viommu_vhost *vhost, const struct range_run *run)
{
    unsigned level = held_level(run);

    vhost->held_level = vhost->held_level > level ? vhost->held_level : level;
    /* Where it has this already the insertion fails, and nothing is new. */
    if (vhost->held.count >= VHOST_HELD_MAX || range_map_insert(&vhost->held, run) == -ENOMEM) {
        hold_all(vhost);
    }
}

static void hold_not(struct viommu_vhost *vhost, uint64_t first, uint64_t last)
{
    if (!first && last >= VHOST_LAST) {
        hold_nothing(vhost);
        return;
    }
    if (!vhost->all_held && range_map_cut(&vhost->held, first, last)) {
        hold_all(vhost);
    }
    if (!vhost->all_held && !vhost->held.count) {
        vhost->held_level = 0;
    }
}

static bool holds_in(const struct viommu_vhost *vhost, uint64_t first, uint64_t last)
{
    struct range_run run;

    return vhost->all_held || (range_map_from(&vhost->held, first, &run) && run.first <= last);
}

/* Whether pages of a level, or larger ones, may be held in [first, last]. */
static bool holds_level_in(const struct viommu_vhost *vhost, unsigned level, uint64_t first,
                           uint64_t last)
{
    struct range_cursor cursor;
    struct range_run run;

    if (vhost->all_held) {
        return true;
    }
    range_cursor_seek(&cursor, &vhost->held, first);
    while (range_cursor_next(&cursor, last, &run)) {
        if (held_level(&run) >= level) {
            return true;
        }
    }
    return false;
}

/* A range, wider where it meets a part of larger pages. */
static void widen(const struct viommu_vhost *vhost, uint64_t *first, uint64_t *last)
{
    for (unsigned level = 1; level <= vhost->held_level; level++) {
        uint64_t mask = (UINT64_C(0x1000) << 9 * level) - 1;

        if (holds_level_in(vhost, level, *first & ~mask, *last | mask)) {
            *first &= ~mask;
            *last |= mask;
        }
    }
}

/* ---- messages ---- */

static void say(struct viommu_vhost *vhost, const struct vhost_iotlb_msg *message,
                const struct vhost_wait *wait)
{
    if (vhost->config.kind == VIOMMU_VHOST_KERNEL) {
        vhost_kernel_put(vhost, message);
    } else {
        vhost_front_put(vhost, VHOST_USER_IOTLB_MSG, message, sizeof(*message), wait);
    }
}

/* Whether an area of the ring meets [first, last]. */
static bool ring_meets(const struct vhost_ring *ring, uint64_t first, uint64_t last)
{
    const struct viommu_vhost_ring *setup = &ring->setup;
    const struct viommu_range areas[] = {
        {setup->descriptors, setup->descriptors + 16u * setup->size - 1},
        {setup->available, setup->available + 2u * setup->size + 5},
        {setup->used, setup->used + 8u * setup->size + 5},
    };

    for (unsigned i = 0; i < 3; i++) {
        if (areas[i].first <= last && areas[i].last >= first) {
            return true;
        }
    }
    return false;
}

/* The far side may drop, of what it holds, all that meets or follows a range. */
static void rings_lose(struct viommu_vhost *vhost, uint64_t first, uint64_t last)
{
    struct range_run run;

    if (vhost->all_held) {
        first = 0;
        last = UINT64_MAX;
    }
    if (range_map_find(&vhost->held, first, &run)) {
        first = run.first;
    }
    if (range_map_find(&vhost->held, last, &run)) {
        last = run.last;
    }
    if (last < VHOST_LAST && range_map_find(&vhost->held, last + 1, &run)) {
        last = run.last;
    }
    for (unsigned i = 0; i < vhost->config.rings; i++) {
        struct vhost_ring *ring = &vhost->rings[i];

        if (ring->state == VHOST_RING_ON && ring_meets(ring, first, last)) {
            ring->resend = true;
            vhost->rings_due = true;
            wake_kick(&vhost->wake);
        }
    }
}

/* Tells it to drop [first, last]; `wait` is what then waits. last is VHOST_LAST at most. */
static void invalidate(struct viommu_vhost *vhost, uint64_t first, uint64_t last,
                       const struct vhost_wait *wait)
{
    struct vhost_iotlb_msg message = {
        .iova = first,
        .size = last - first + 1,
        .type = VHOST_IOTLB_INVALIDATE,
    };

    rings_lose(vhost, first, last);
    hold_not(vhost, first, last);
    vhost->statistics.invalidations++;
    if (vhost->config.kind != VIOMMU_VHOST_KERNEL) {
        if (!vhost->dropping++) {
            vhost->dropped_first = first;
            vhost->dropped_last = last;
        }
        vhost->dropped_first = first < vhost->dropped_first ? first : vhost->dropped_first;
        vhost->dropped_last = last > vhost->dropped_last ? last : vhost->dropped_last;
    }
    say(vhost, &message, wait);
}

static void invalidate_own(struct viommu_vhost *vhost, uint64_t first, uint64_t last)
{
    struct vhost_wait wait = {.kind = VHOST_WAIT_DROP};

    invalidate(vhost, first, last, &wait);
}

void vhost_iotlb_dropped(struct viommu_vhost *vhost)
{
    vhost->statistics.acknowledged++;
    vhost->dropping--;
}

void vhost_iotlb_drop(struct viommu_vhost *vhost)
{
    if (vhost_alive(vhost) && holds_in(vhost, 0, VHOST_LAST)) {
        invalidate_own(vhost, 0, VHOST_LAST);
    }
}

void vhost_iotlb_idle(struct viommu_vhost *vhost)
{
    vhost->denied_count = 0;
    vhost->denied_next = 0;
    vhost->retry_at = 0;
}

void vhost_iotlb_forget(struct viommu_vhost *vhost)
{
    hold_nothing(vhost);
    vhost->dropping = 0;
    vhost_iotlb_idle(vhost);
}

/* ---- look-ups ---- */

/* Device addresses [first, last] that lead to memory, as an entry of the tables says. */
struct piece {
    uint64_t first;
    uint64_t last;
    uint64_t key; /* of `first` */
    uint64_t gpa; /* of the address asked for */
    unsigned region;
    uint32_t perm;
    unsigned level;
};

static uint64_t key_at(const struct piece *piece, uint64_t iova)
{
    return piece->key + (iova - piece->first);
}

static void clip(struct piece *piece, uint64_t first, uint64_t last)
{
    if (piece->first < first) {
        piece->key += first - piece->first;
        piece->first = first;
    }
    if (piece->last > last) {
        piece->last = last;
    }
}

/* What the tables have to allow, for a far side that asks for `perm`. */
static uint32_t perm_needed(const struct viommu_vhost *vhost, uint32_t perm)
{
    return vhost->config.writable_is_readable && (perm & VIOMMU_WRITE) ? VIOMMU_WRITE : perm;
}

/* Under the device's own id, untranslated: nothing about it can be wrong. */
static struct dma_request request_of(const struct viommu_vhost *vhost, uint64_t iova, uint32_t perm)
{
    struct dma_request request;

    (void)dma_request_init(&request, vhost->config.device, NULL, iova, perm);
    return request;
}

/*
 * What an address leads to, silently. Returns 0; -EFAULT, -EPERM or -EAGAIN as translating does;
 * -ENXIO: to nothing that the far side has; -EROFS.
 */
static int look(struct viommu_vhost *vhost, uint64_t iova, uint32_t perm, struct piece *piece)
{
    struct dma_found found = {0};
    struct viommu_translation translation;
    struct vhost_place place;
    struct dma_request request;
    uint64_t before;
    uint64_t after;
    int ret;

    perm = perm_needed(vhost, perm);
    request = request_of(vhost, iova, perm);
    request.quiet = true;
    request.found = &found;
    ret = dma_translate(&request, &translation);
    if (ret) {
        return ret;
    }
    if (translation.interrupt || !vhost_table_find(&vhost->table, translation.gpa, &place)) {
        return -ENXIO;
    }
    translation.perm &= place.readonly ? (uint32_t)VIOMMU_READ : PERMS;
    if (perm_needed(vhost, PERMS) == VIOMMU_WRITE && (translation.perm & VIOMMU_WRITE)) {
        translation.perm |= VIOMMU_READ;
    }
    if (perm & ~translation.perm) {
        return -EROFS;
    }
    before = iova & translation.mask;
    if (before > translation.gpa - place.first) {
        before = translation.gpa - place.first;
    }
    after = ~iova & translation.mask;
    if (after > place.last - translation.gpa) {
        after = place.last - translation.gpa;
    }
    *piece = (struct piece){
        .first = iova - before,
        .last = iova + after,
        .key = place.key - before,
        .gpa = translation.gpa,
        .region = place.region,
        .perm = translation.perm,
        .level = found.level,
    };
    return 0;
}

/*
 * The guest hears of a refusal. On a bus no request both reads and writes: the one that is refused
 * is recorded. Returns false where neither is by now.
 */
static bool refuse_aloud(struct viommu_vhost *vhost, uint64_t iova, uint32_t perm)
{
    static const uint32_t order[] = {VIOMMU_WRITE, VIOMMU_READ};

    perm = perm_needed(vhost, perm);
    for (unsigned i = 0; i < 2; i++) {
        struct dma_request request = request_of(vhost, iova, order[i]);
        struct viommu_translation translation;

        if ((perm & order[i]) && dma_translate(&request, &translation)) {
            return true;
        }
    }
    return false;
}

/* ---- runs ---- */

/* Whether `next`, which allows what the run does, continues it at `at`, an address of both. */
static bool continues(const struct piece *run, const struct piece *next, uint64_t at)
{
    return next->region == run->region && key_at(next, at) == key_at(run, at);
}

static void grow(struct viommu_vhost *vhost, struct piece *run, uint64_t first, uint64_t last)
{
    struct piece next;

    for (unsigned i = 0; i < VHOST_LOOK_PAGES && run->last < last; i++) {
        uint64_t at = run->last + 1;

        if (look(vhost, at, run->perm, &next) || !continues(run, &next, at)) {
            break;
        }
        run->last = next.last < last ? next.last : last;
        run->level = run->level > next.level ? run->level : next.level;
    }
    for (unsigned i = 0; i < VHOST_LOOK_PAGES && run->first > first; i++) {
        uint64_t at = run->first - 1;

        if (look(vhost, at, run->perm, &next) || !continues(run, &next, at)) {
            break;
        }
        clip(&next, first, at);
        run->key = next.key;
        run->first = next.first;
        run->level = run->level > next.level ? run->level : next.level;
    }
}

/*
 * Where a run around `iova`, whose page is `piece`, may lie: what is held there and is different is
 * dropped first, what is held beside it is left alone.
 */
static void make_room(struct viommu_vhost *vhost, uint64_t iova, const struct piece *piece,
                      struct viommu_range *limits)
{
    struct range_run run;

    if (vhost->all_held) {
        /* Nobody knows what it has there: begin anew. */
        invalidate_own(vhost, 0, VHOST_LAST);
    }
    if (range_map_find(&vhost->held, iova, &run)) {
        if (range_run_target(&run, iova) == key_at(piece, iova) && held_perm(&run) == piece->perm &&
            held_level(&run) >= piece->level) {
            limits->first = run.first > limits->first ? run.first : limits->first;
            limits->last = run.last < limits->last ? run.last : limits->last;
            return;
        }
        invalidate_own(vhost, run.first, run.last);
    }
    if (range_map_before(&vhost->held, iova, &run) && run.last >= limits->first) {
        limits->first = run.last + 1;
    }
    if (range_map_from(&vhost->held, iova, &run) && run.first <= limits->last) {
        limits->last = run.first - 1;
    }
}

/*
 * Tells the far side of the run around `iova`, inside of `limits`, whose page is *piece, which
 * becomes the run.
 */
static void update(struct viommu_vhost *vhost, uint64_t iova, struct piece *piece,
                   struct viommu_range limits)
{
    struct vhost_iotlb_msg message;
    struct range_run run;

    make_room(vhost, iova, piece, &limits);
    clip(piece, limits.first, limits.last);
    grow(vhost, piece, limits.first, limits.last);
    message = (struct vhost_iotlb_msg){
        .iova = piece->first,
        .size = piece->last - piece->first + 1,
        .uaddr = piece->key,
        .perm = (uint8_t)piece->perm,
        .type = VHOST_IOTLB_UPDATE,
    };
    run = (struct range_run){piece->first, piece->last, piece->key,
                             held_tag(piece->perm, piece->level)};
    hold(vhost, &run);
    vhost->statistics.updates++;
    say(vhost, &message, NULL);
}

/* ---- refusals ---- */

/* Not later than a moment from now, whatever else is refused meanwhile. */
static void retry_soon(struct viommu_vhost *vhost, uint64_t pause)
{
    uint64_t at = vhost_now(vhost) + pause;

    at += at ? 0 : 1; /* a clock may begin at 0, which is "never" */
    vhost->retry_pause = pause;
    if (!vhost->retry_at || at < vhost->retry_at) {
        vhost->retry_at = at;
        wake_kick(&vhost->wake);
    }
}

static void deny(struct viommu_vhost *vhost, uint64_t iova, uint32_t perm)
{
    struct vhost_denied *denied;

    vhost->statistics.denied++;
    retry_soon(vhost, VHOST_RETRY_FIRST_NS);
    for (unsigned i = 0; i < vhost->denied_count; i++) {
        denied = &vhost->denied[i];
        if (denied->iova >> 12 == iova >> 12 && denied->perm == perm) {
            denied->iova = iova;
            return;
        }
    }
    if (vhost->denied_count < VHOST_DENIED_MAX) {
        denied = &vhost->denied[vhost->denied_count++];
    } else {
        denied = &vhost->denied[vhost->denied_next++ % VHOST_DENIED_MAX];
    }
    *denied = (struct vhost_denied){iova, perm};
}

/* Answers one that is allowed by now. Returns false where it is not. */
static bool heal(struct viommu_vhost *vhost, const struct vhost_denied *denied)
{
    const struct viommu_range everywhere = {0, VHOST_LAST};
    struct piece piece;
    bool found;

    enter(vhost);
    found = !look(vhost, denied->iova, denied->perm, &piece);
    if (found) {
        update(vhost, denied->iova, &piece, everywhere);
    }
    leave(vhost);
    return found;
}

static void denied_retry(struct viommu_vhost *vhost)
{
    unsigned i = 0;

    while (i < vhost->denied_count && vhost_alive(vhost) && !vhost_is_busy(vhost)) {
        if (heal(vhost, &vhost->denied[i])) {
            vhost->denied[i] = vhost->denied[--vhost->denied_count];
            vhost->statistics.healed++;
        } else {
            i++;
        }
    }
}

static void denied_meet(struct viommu_vhost *vhost, uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < vhost->denied_count; i++) {
        if (vhost->denied[i].iova >= first && vhost->denied[i].iova <= last) {
            retry_soon(vhost, 0);
            return;
        }
    }
}

/* In a section. */
static void answer(struct viommu_vhost *vhost, uint64_t iova, uint32_t perm)
{
    const struct viommu_range everywhere = {0, VHOST_LAST};
    struct piece piece;
    int ret = look(vhost, iova, perm, &piece);
    if (ret == -EFAULT && !refuse_aloud(vhost, iova, perm)) {
        /* Other entries than before: the guest is changing them. */
        ret = look(vhost, iova, perm, &piece);
    }
    if (ret) {
        deny(vhost, iova, perm);
    } else {
        update(vhost, iova, &piece, everywhere);
    }
}

void vhost_iotlb_asked(struct viommu_vhost *vhost, const struct vhost_iotlb_msg *message)
{
    uint32_t perm = message->perm;

    if (message->type != VHOST_IOTLB_MISS || !perm || (perm & ~PERMS)) {
        vhost_break(vhost, -EPROTO);
        return;
    }
    vhost->statistics.misses++;
    if (message->iova > VHOST_LAST) {
        vhost->statistics.denied++;
    } else {
        enter(vhost);
        answer(vhost, message->iova, perm);
        leave(vhost);
    }
}

/* ---- rings ---- */

/* Tells of `size` bytes from `first` on. */
static bool tell_area(struct viommu_vhost *vhost, uint64_t first, uint64_t size)
{
    uint64_t last = (first + size - 1) | 0xfff;
    struct viommu_range limits = {first & ~UINT64_C(0xfff), last < VHOST_LAST ? last : VHOST_LAST};
    uint64_t at = first;
    struct piece piece;

    while (at <= first + size - 1 && vhost_alive(vhost)) {
        if (look(vhost, at, VIOMMU_READ, &piece)) {
            return false;
        }
        update(vhost, at, &piece, limits);
        at = piece.last + 1;
    }
    return true;
}

static bool tell_ring(struct viommu_vhost *vhost, const struct viommu_vhost_ring *setup)
{
    bool told;

    enter(vhost);
    told = tell_area(vhost, setup->descriptors, 16u * setup->size);
    told &= tell_area(vhost, setup->available, 2u * setup->size + 6);
    told &= tell_area(vhost, setup->used, 8u * setup->size + 6);
    leave(vhost);
    return told;
}

/* Returns whether some of a ring's memory is nowhere, or was dropped again meanwhile. */
static bool tell_rings(struct viommu_vhost *vhost)
{
    bool missing = false;

    if (!vhost->rings_due || vhost_is_busy(vhost)) {
        return false;
    }
    vhost->rings_due = false;
    for (unsigned i = 0; i < vhost->config.rings; i++) {
        struct vhost_ring *ring = &vhost->rings[i];

        if (!ring->resend || ring->state != VHOST_RING_ON) {
            continue;
        }
        if (vhost_is_busy(vhost)) {
            vhost->rings_due = true;
            return missing;
        }
        ring->resend = false;
        if (!tell_ring(vhost, &ring->setup) || ring->resend) {
            ring->resend = true;
            missing = true;
        }
    }
    vhost->rings_due = false;
    return missing;
}

void vhost_iotlb_work(struct viommu_vhost *vhost, uint64_t now)
{
    bool due = vhost->retry_at && now >= vhost->retry_at;
    bool missing;

    vhost->rings_due |= due;
    missing = tell_rings(vhost);
    if (due) {
        uint64_t pause = 2 * vhost->retry_pause;

        pause = pause < VHOST_RETRY_FIRST_NS ? VHOST_RETRY_FIRST_NS : pause;
        vhost->retry_pause = pause < VHOST_RETRY_LAST_NS ? pause : VHOST_RETRY_LAST_NS;
        denied_retry(vhost);
        vhost->retry_at = vhost->denied_count ? now + vhost->retry_pause : 0;
    }
    if (missing && !vhost->retry_at) {
        vhost->retry_pause = due ? vhost->retry_pause : VHOST_RETRY_FIRST_NS;
        vhost->retry_at = now + vhost->retry_pause;
    }
}

bool vhost_iotlb_load16(struct viommu_vhost *vhost, uint64_t iova, uint16_t *value)
{
    struct piece piece;
    bool found;

    enter(vhost);
    found = !look(vhost, iova, VIOMMU_READ, &piece) &&
            !viommu_memory_load16(vhost->config.memory, piece.gpa, value);
    leave(vhost);
    return found;
}

/* ---- changes ---- */

int vhost_iotlb_changed(struct viommu_vhost *vhost, const struct viommu_change *change)
{
    struct vhost_wait wait = {.kind = VHOST_WAIT_CHANGE, .token = change->token};
    uint64_t first = change->first;
    uint64_t last = change->last < VHOST_LAST ? change->last : VHOST_LAST;

    if (vhost->state == VIOMMU_VHOST_FAILED) {
        return 0;
    }
    denied_meet(vhost, first, change->last);
    if (first > last) {
        return 0;
    }
    widen(vhost, &first, &last);
    last = last < VHOST_LAST ? last : VHOST_LAST;
    if (!holds_in(vhost, first, last) &&
        (!vhost->dropping || last < vhost->dropped_first || first > vhost->dropped_last)) {
        vhost->statistics.skipped++;
        return 0;
    }
    if (vhost->wait_count == VHOST_WAITS_MAX) {
        vhost_break(vhost, -ENOBUFS);
        return -ENOBUFS; /* nobody would remember to answer */
    }
    invalidate(vhost, first, last, &wait);
    /* The kernel has done it when it has taken the message. */
    return vhost->config.kind == VIOMMU_VHOST_KERNEL ? vhost->error : VIOMMU_PENDING;
}
