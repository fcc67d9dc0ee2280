/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory that comes and goes, as mirrors see it.
 *
 * Memory is listened to from the first mirror on. A removal is answered later: mirrors walk to a
 * list without the slots that go, then memory may go on. What was added they walk to afterwards.
 * Where there is no memory to note a change every mirror is fenced, and the list is read anew from
 * guest memory as soon as no removal is under way.
 */
#include "iommu/iommu.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

static struct memory_note *note_create(const struct viommu_memory_slot *slots, size_t count)
{
    struct memory_note *note = base_alloc(sizeof(*note) + count * sizeof(slots[0]));

    if (note) {
        note->count = count;
        if (count) {
            memcpy(note->slots, slots, count * sizeof(slots[0]));
        }
    }
    return note;
}

static void note_append(struct viommu *iommu, struct memory_note *note)
{
    struct memory_note **link = &iommu->follow.notes;

    while (*link) {
        link = &(*link)->next;
    }
    *link = note;
    follow_want(iommu);
}

/*
 * A change could not be followed: no mirror may hold anything, and what is known of memory does not
 * count.
 */
static void lose_track(struct viommu *iommu)
{
    struct mirror *next;

    iommu->follow.memory_stale = true;
    iommu->follow.memory->count = 0;
    for (struct mirror *mirror = iommu->follow.mirrors; mirror; mirror = next) {
        next = mirror->next;
        mirror_fence_for(iommu, mirror, -ENOMEM, true, "no memory to follow guest memory");
    }
}

static void notes_free(struct viommu *iommu)
{
    struct memory_note *note;

    while (iommu->follow.notes) {
        note = iommu->follow.notes;
        iommu->follow.notes = note->next;
        base_free(note);
    }
}

/* Before the start nothing is mapped and nobody works: memory is looked at when that begins. */
static void forget_memory(struct viommu *iommu)
{
    notes_free(iommu);
    iommu->follow.memory_stale = true;
    iommu->follow.memory->count = 0;
}

static int memory_changing(void *opaque, const struct viommu_memory_change *change)
{
    struct viommu *iommu = opaque;
    struct memory_note *note;

    if (!change->removed_count) {
        return 0;
    }
    iommu_lock(iommu);
    iommu->follow.removing = true;
    if (!atomic_load(&iommu->started)) {
        forget_memory(iommu);
        iommu_unlock(iommu);
        return 0;
    }
    note = iommu->follow.memory_stale ? NULL
                                      : note_create(change->removed, change->removed_count);
    if (note) {
        note->removal = true;
        note->token = change->token;
        note_append(iommu, note);
    } else {
        lose_track(iommu);
        /* Answered when the fence functions have been called. */
        iommu->follow.stale_token = change->token;
        follow_want(iommu);
    }
    iommu_unlock(iommu);
    return VIOMMU_PENDING;
}

static void memory_changed(void *opaque, const struct viommu_memory_change *change)
{
    struct viommu *iommu = opaque;
    struct memory_note *note;

    iommu_lock(iommu);
    iommu->follow.removing = false;
    if (iommu->follow.memory_stale) {
        follow_want(iommu);
    } else if (change->added_count) {
        note = note_create(change->added, change->added_count);
        if (note) {
            note_append(iommu, note);
        } else {
            lose_track(iommu);
        }
    }
    iommu_unlock(iommu);
}

static const struct viommu_memory_listener_ops listener_ops = {
    .changing = memory_changing,
    .changed = memory_changed,
};

/* Adds a slot without the part in the interrupt range. There is room for two. */
static void list_add(struct memory_list *list, const struct viommu_memory_slot *slot,
                     const struct viommu_range *interrupts)
{
    struct viommu_memory_slot below = *slot;
    struct viommu_memory_slot above = *slot;

    list->pages += ((slot->last - slot->first) >> 12) + 1;
    if (slot->first > interrupts->last || slot->last < interrupts->first) {
        list->slots[list->count++] = *slot;
        return;
    }
    if (slot->first < interrupts->first) {
        below.last = interrupts->first - 1;
        list->slots[list->count++] = below;
    }
    if (slot->last > interrupts->last) {
        above.first = interrupts->last + 1;
        above.host = (char *)slot->host + (above.first - slot->first);
        above.fd_offset += above.first - slot->first;
        list->slots[list->count++] = above;
    }
}

static struct memory_list *list_create(size_t count)
{
    struct memory_list *list;

    if (count > SIZE_MAX / 2 / sizeof(list->slots[0])) {
        return NULL;
    }
    /* One slot, at most, is cut in two. */
    return base_alloc(sizeof(*list) + (count + 1) * sizeof(list->slots[0]));
}

static struct memory_list *list_of(const struct viommu *iommu,
                                   const struct viommu_memory_slot *slots, size_t count)
{
    struct memory_list *list = list_create(count);

    for (size_t i = 0; list && i < count; i++) {
        list_add(list, &slots[i], &iommu->model->interrupts);
    }
    return list;
}

/* Called under the memory's lock: what is there as the listener begins. */
static int first_slots(void *opaque, const struct viommu_memory_slot *slots, size_t count)
{
    struct viommu *iommu = opaque;

    iommu->follow.memory = list_of(iommu, slots, count);
    return iommu->follow.memory ? 0 : -ENOMEM;
}

int follow_memory_listen(struct viommu *iommu)
{
    if (iommu->follow.listener) {
        return 0;
    }
    return memory_listener_begin(iommu->memory, &listener_ops, iommu, first_slots,
                                 &iommu->follow.listener);
}

void follow_memory_stop(struct viommu *iommu)
{
    if (iommu->follow.listener) {
        (void)viommu_memory_listener_remove(iommu->follow.listener);
    }
    iommu->follow.listener = NULL;
    notes_free(iommu);
    base_free(iommu->follow.memory);
    iommu->follow.memory = NULL;
    base_free(iommu->follow.memory_next);
    iommu->follow.memory_next = NULL;
}

static bool note_has(const struct memory_note *note, const struct viommu_memory_slot *slot)
{
    for (size_t i = 0; i < note->count; i++) {
        if (slot->first >= note->slots[i].first && slot->last <= note->slots[i].last) {
            return true;
        }
    }
    return false;
}

static struct memory_list *list_without(const struct viommu *iommu, const struct memory_note *note)
{
    const struct memory_list *old = iommu->follow.memory;
    struct memory_list *list = list_create(old->count);

    for (size_t i = 0; list && i < old->count; i++) {
        if (!note_has(note, &old->slots[i])) {
            list_add(list, &old->slots[i], &iommu->model->interrupts);
        }
    }
    return list;
}

/* Both are sorted. */
static struct memory_list *list_with(const struct viommu *iommu, const struct memory_note *note)
{
    const struct memory_list *old = iommu->follow.memory;
    struct memory_list *list = list_create(old->count + note->count);
    size_t i = 0;
    size_t j = 0;

    while (list && (i < old->count || j < note->count)) {
        if (j == note->count || (i < old->count && old->slots[i].first < note->slots[j].first)) {
            list_add(list, &old->slots[i++], &iommu->model->interrupts);
        } else {
            list_add(list, &note->slots[j++], &iommu->model->interrupts);
        }
    }
    return list;
}

static struct memory_list *list_anew(struct viommu *iommu)
{
    const struct memory_snapshot *snapshot;
    struct memory_list *list;

    (void)epoch_enter(iommu->epoch); /* cannot fail in viommu_process */
    snapshot = memory_snapshot(iommu->memory);
    list = list_of(iommu, snapshot->slots, snapshot->count);
    epoch_leave(iommu->epoch);
    return list;
}

void follow_memory_catch_up(struct viommu *iommu)
{
    struct memory_note *note;

    /* While a removal is under way nobody can tell what will be there. */
    if (!iommu->follow.memory_stale || iommu->follow.removing || iommu->follow.notes) {
        return;
    }
    note = note_create(NULL, 0);
    if (note) {
        note->rebuild = true;
        iommu->follow.memory_stale = false;
        iommu->follow.notes = note;
    }
}

int follow_memory_settle(struct viommu *iommu)
{
    struct memory_list *list;

    if (iommu->follow.removing) {
        return -EBUSY;
    }
    if (!epoch_enter(iommu->epoch)) {
        return -ENOMEM;
    }
    list = list_anew(iommu);
    epoch_leave(iommu->epoch);
    if (!list) {
        return -ENOMEM;
    }
    notes_free(iommu);
    iommu->follow.memory_stale = false;
    base_free(iommu->follow.memory);
    iommu->follow.memory = list;
    return 0;
}

bool follow_memory_begin(struct viommu *iommu)
{
    const struct memory_note *note = iommu->follow.notes;

    if (note->rebuild) {
        iommu->follow.memory_next = list_anew(iommu);
    } else {
        iommu->follow.memory_next = note->removal ? list_without(iommu, note)
                                                  : list_with(iommu, note);
    }
    if (!iommu->follow.memory_next) {
        lose_track(iommu);
        return false;
    }
    return true;
}

/* Memory may go on with what it wanted to remove. */
static void removal_answer(struct viommu *iommu, uint64_t token)
{
    (void)viommu_memory_listener_complete(iommu->follow.listener, token);
}

void follow_memory_end(struct viommu *iommu)
{
    struct memory_note *note = iommu->follow.notes;

    if (iommu->follow.memory_next) {
        base_free(iommu->follow.memory);
        iommu->follow.memory = iommu->follow.memory_next;
        iommu->follow.memory_next = NULL;
        if (iommu->follow.memory_stale) {
            iommu->follow.memory->count = 0; /* track was lost meanwhile */
        }
    }
    iommu->follow.notes = note->next;
    if (note->removal) {
        removal_answer(iommu, note->token);
    }
    base_free(note);
}

void follow_memory_answer_stale(struct viommu *iommu)
{
    uint64_t token = iommu->follow.stale_token;

    if (token) {
        iommu->follow.stale_token = 0;
        removal_answer(iommu, token);
    }
}
