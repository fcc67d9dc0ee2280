/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The paravirtual room, as guests: their calls, and what they are answered. The status is that of
 * the ABI, in lower case. A call that yields is gone on with at once, unless it says `once`; then
 * `pv resume` goes on, or `pv cancel` forgets it.
 */
#include "pv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    OUT_ROOM = 1 << 14,
    ITEMS_MAX = 64,
};

static const struct {
    uint32_t status;
    const char *word;
} words[] = {
    {VIOMMU_PV_OK, "ok"},
    {VIOMMU_PV_EPERM, "eperm"},
    {VIOMMU_PV_ENOENT, "enoent"},
    {VIOMMU_PV_ESRCH, "esrch"},
    {VIOMMU_PV_EIO, "eio"},
    {VIOMMU_PV_ENXIO, "enxio"},
    {VIOMMU_PV_EBADF, "ebadf"},
    {VIOMMU_PV_EAGAIN, "eagain"},
    {VIOMMU_PV_EACCES, "eacces"},
    {VIOMMU_PV_EBUSY, "ebusy"},
    {VIOMMU_PV_EEXIST, "eexist"},
    {VIOMMU_PV_ENODEV, "enodev"},
    {VIOMMU_PV_EINVAL, "einval"},
    {VIOMMU_PV_ENOSPC, "enospc"},
    {VIOMMU_PV_ERANGE, "erange"},
    {VIOMMU_PV_ENOTEMPTY, "enotempty"},
    {VIOMMU_PV_EOPNOTSUPP, "eopnotsupp"},
    {VIOMMU_PV_EADDRNOTAVAIL, "eaddrnotavail"},
    {VIOMMU_PV_ESHUTDOWN, "eshutdown"},
    {VIOMMU_PV_EALREADY, "ealready"},
    {VIOMMU_PV_ESTALE, "estale"},
};

static const char *status_word(uint32_t status)
{
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (words[i].status == status) {
            return words[i].word;
        }
    }
    return "unknown";
}

/* What was answered, whole; what is not there is zero. */
union answer {
    struct viommu_pv_answer head;
    struct viommu_pv_caps caps;
    struct viommu_pv_reserved reserved;
    struct viommu_pv_alloc alloc;
    struct viommu_pv_lookup lookup;
    struct viommu_pv_find find;
    struct viommu_pv_acknowledged acknowledged;
    uint8_t bytes[OUT_ROOM];
};

/* Tells how a call stands; false when there is no answer. */
static bool tell(struct run *run, struct pv_room *room, int ret, union answer *answer)
{
    if (ret) {
        result_errno(&run->result, ret);
        return false;
    }
    memcpy(answer, room->out, OUT_ROOM);
    room->rest = NULL;
    result_status(&run->result, status_word(answer->head.status));
    return true;
}

/* Makes a call. False when it is not answered: it yielded, or cannot be made. */
static bool send(struct run *run, struct pv_room *room, uint32_t vm, const void *in, size_t size,
                 union answer *answer)
{
    size_t written;
    int ret;

    if (room->rest) {
        run_error(run, NULL, "there is a call that yielded: resume or cancel it");
        return false;
    }
    room->out = room->out ? room->out : run_alloc(OUT_ROOM);
    memset(room->out, 0, OUT_ROOM);
    ret = viommu_pv_call(room->pv, vm, in, size, room->out, OUT_ROOM, &written, &room->rest);
    while (ret == VIOMMU_PENDING && !(line_argument(&run->line, "once"))) {
        ret = viommu_pv_resume(room->pv, room->rest, room->out, OUT_ROOM, &written);
    }
    return tell(run, room, ret, answer);
}

static struct viommu_pv_head head(unsigned operation, size_t size)
{
    return (struct viommu_pv_head){VIOMMU_PV_VERSION, (uint16_t)operation, (uint32_t)size};
}

/* The room and the VM that calls. */
static struct pv_room *begin(struct run *run, uint32_t *vm)
{
    struct pv_room *room = pv_room(run);

    return room && pv_arg_vm(run, "vm", vm) ? room : NULL;
}

static void tell_range(struct run *run, const union answer *answer)
{
    result_decimal(&run->result, "done", answer->head.done);
    if (answer->head.status) {
        result_decimal(&run->result, "stopped", answer->head.stopped);
    }
}

/* ---- map, unmap, flush ---- */

static void ranged(struct run *run, unsigned operation, uint32_t perm, uint32_t flags)
{
    struct viommu_pv_map_call in = {.head = head(operation, sizeof(in)),
                                    .vm = VIOMMU_PV_SELF,
                                    .count = 1,
                                    .perm = perm,
                                    .flags = flags};
    union answer answer;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);

    if (room && pv_arg_32(run, "context", &in.context) && pv_arg_32(run, "of", &in.vm) &&
        arg_number(run, "frame", &in.frame) && arg_number(run, "device-frame", &in.device_frame) &&
        arg_number(run, "count", &in.count) && pv_arg_32(run, "order", &in.order) &&
        arg_perm(run, "perm", &in.perm) && send(run, room, vm, &in, sizeof(in), &answer)) {
        tell_range(run, &answer);
    }
}

static void do_map(struct run *run)
{
    ranged(run, VIOMMU_PV_MAP, VIOMMU_PV_READ | VIOMMU_PV_WRITE,
           arg_flag(run, "mmio") ? VIOMMU_PV_MMIO : 0);
}

static void do_unmap(struct run *run)
{
    ranged(run, VIOMMU_PV_UNMAP, 0, arg_flag(run, "defer") ? VIOMMU_PV_DEFER : 0);
}

static void do_flush(struct run *run)
{
    struct viommu_pv_flush_call in = {.head = head(VIOMMU_PV_FLUSH, sizeof(in))};
    union answer answer;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);

    in.flags = arg_given(run, "first") ? 0 : VIOMMU_PV_WHOLE;
    if (room && pv_arg_32(run, "context", &in.context) && arg_number(run, "first", &in.first)) {
        in.last = in.first;
        if (arg_number(run, "last", &in.last)) {
            (void)send(run, room, vm, &in, sizeof(in), &answer);
        }
    }
}

/* Frames, joined by commas. */
static size_t arg_frames(struct run *run, uint64_t *out)
{
    struct viommu_pv_range ranges[ITEMS_MAX];
    size_t count = pv_arg_ranges(run, "frames", ranges, ITEMS_MAX);
    size_t frames = 0;

    for (size_t i = 0; i < count; i++) {
        for (uint64_t at = ranges[i].first; at <= ranges[i].last && frames < ITEMS_MAX; at++) {
            out[frames++] = at;
        }
    }
    return frames;
}

static void tell_items(struct run *run, const union answer *answer, size_t count)
{
    const struct viommu_pv_item *items = (const void *)(answer->bytes + sizeof(answer->head));
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (!out) {
        run_error(run, NULL, "out of memory");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (items[i].status) {
            fprintf(out, "%s%s", i ? "," : "", status_word(items[i].status));
        } else {
            fprintf(out, "%s%llu", i ? "," : "", (unsigned long long)items[i].device_frame);
        }
    }
    fclose(out);
    result_word(&run->result, "items", text);
    free(text);
}

static void do_foreign(struct run *run)
{
    struct {
        struct viommu_pv_foreign_call call;
        uint64_t frames[ITEMS_MAX];
    } in = {.call = {.device_frame_max = UINT64_MAX, .perm = 3}};
    union answer answer;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);
    size_t size;

    if (!room || !pv_arg_32(run, "context", &in.call.context) ||
        !pv_arg_32(run, "of", &in.call.vm) || !arg_perm(run, "perm", &in.call.perm)) {
        return;
    }
    in.call.device_frame_max =
        room->config.device_frame_max ? room->config.device_frame_max : (UINT64_C(1) << 36) - 1;
    in.call.count = (uint32_t)arg_frames(run, in.frames);
    if (!in.call.count || !arg_number(run, "max", &in.call.device_frame_max)) {
        return;
    }
    size = sizeof(in.call) + in.call.count * sizeof(in.frames[0]);
    in.call.head = head(VIOMMU_PV_MAP_FOREIGN, size);
    if (send(run, room, vm, &in, size, &answer)) {
        result_decimal(&run->result, "done", answer.head.done);
        if (answer.head.size > sizeof(answer.head)) {
            tell_items(run, &answer, in.call.count);
        }
    }
}

/* ---- contexts ---- */

static void do_enable(struct run *run)
{
    struct viommu_pv_head in = head(VIOMMU_PV_ENABLE, sizeof(in));
    union answer answer;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);

    if (room) {
        (void)send(run, room, vm, &in, sizeof(in), &answer);
    }
}

static void do_alloc(struct run *run)
{
    struct viommu_pv_alloc_call in = {.head = head(VIOMMU_PV_CONTEXT_ALLOC, sizeof(in))};
    union answer answer;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);

    if (room && send(run, room, vm, &in, sizeof(in), &answer)) {
        result_decimal(&run->result, "context", answer.alloc.context);
    }
}

static void do_free(struct run *run)
{
    struct viommu_pv_free_call in = {.head = head(VIOMMU_PV_CONTEXT_FREE, sizeof(in))};
    union answer answer;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);

    if (room && pv_arg_32(run, "context", &in.context)) {
        (void)send(run, room, vm, &in, sizeof(in), &answer);
    }
}

static void do_attach(struct run *run)
{
    struct viommu_pv_attach_call in = {.head = head(VIOMMU_PV_ATTACH, sizeof(in))};
    union answer answer;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);

    if (room && pv_arg_32(run, "device", &in.device) && pv_arg_32(run, "context", &in.context)) {
        (void)send(run, room, vm, &in, sizeof(in), &answer);
    }
}

/* ---- asking ---- */

static void do_caps(struct run *run)
{
    struct viommu_pv_head in = head(VIOMMU_PV_CAPS, sizeof(in));
    union answer answer;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);

    if (!room || !send(run, room, vm, &in, sizeof(in), &answer)) {
        return;
    }
    result_decimal(&run->result, "version", answer.head.version);
    result_hex(&run->result, "frame-max", answer.caps.frame_max);
    result_hex(&run->result, "device-frame-max", answer.caps.device_frame_max);
    result_hex(&run->result, "orders", answer.caps.orders);
    result_decimal(&run->result, "count-max", answer.caps.count_max);
    result_decimal(&run->result, "mappings-max", answer.caps.mappings_max);
    result_decimal(&run->result, "tables-max", answer.caps.tables_max);
    result_decimal(&run->result, "contexts-max", answer.caps.contexts_max);
    result_decimal(&run->result, "items-max", answer.caps.items_max);
    result_decimal(&run->result, "deferred-max", answer.caps.deferred_max);
}

static void do_reserved(struct run *run)
{
    struct viommu_pv_reserved_call in = {
        .head = head(VIOMMU_PV_RESERVED, sizeof(in)), .device = VIOMMU_PV_ALL, .room = ITEMS_MAX};
    union answer answer;
    const struct viommu_pv_frames *frames;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);

    if (!room || !pv_arg_32(run, "device", &in.device) || !pv_arg_32(run, "room", &in.room) ||
        !send(run, room, vm, &in, sizeof(in), &answer)) {
        return;
    }
    frames = (const void *)(answer.bytes + sizeof(answer.reserved));
    result_decimal(&run->result, "count", answer.reserved.count);
    result_decimal(&run->result, "told", answer.head.done);
    result_decimal(&run->result, "generation", answer.reserved.generation);
    if (answer.head.done) {
        result_decimal(&run->result, "first", frames[0].first);
        result_decimal(&run->result, "last", frames[answer.head.done - 1].last);
    }
}

static void do_lookup(struct run *run)
{
    struct viommu_pv_lookup_call in = {.head = head(VIOMMU_PV_LOOKUP, sizeof(in))};
    union answer answer;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);

    if (room && pv_arg_32(run, "context", &in.context) &&
        arg_number(run, "device-frame", &in.device_frame) &&
        send(run, room, vm, &in, sizeof(in), &answer) && !answer.head.status) {
        result_decimal(&run->result, "vm", answer.lookup.vm);
        result_decimal(&run->result, "frame", answer.lookup.frame);
        result_perm(&run->result, "perm", answer.lookup.perm);
        result_decimal(&run->result, "order", answer.lookup.order);
    }
}

static void do_find(struct run *run)
{
    struct viommu_pv_find_call in = {.head = head(VIOMMU_PV_FIND, sizeof(in)), .room = ITEMS_MAX};
    union answer answer;
    const struct viommu_pv_place *places;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);

    if (!room || !pv_arg_32(run, "of", &in.vm) || !arg_number(run, "frame", &in.frame) ||
        !send(run, room, vm, &in, sizeof(in), &answer)) {
        return;
    }
    places = (const void *)(answer.bytes + sizeof(answer.find));
    result_decimal(&run->result, "count", answer.find.count);
    if (answer.head.done) {
        result_decimal(&run->result, "context", places[0].context);
        result_decimal(&run->result, "device-frame", places[0].device_frame);
        result_perm(&run->result, "perm", places[0].perm);
    }
}

static void do_acknowledge(struct run *run)
{
    struct viommu_pv_acknowledge_call in = {.head = head(VIOMMU_PV_ACKNOWLEDGE, sizeof(in))};
    union answer answer;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);

    if (room && pv_arg_32(run, "of", &in.vm) && arg_number(run, "frame", &in.frame) &&
        send(run, room, vm, &in, sizeof(in), &answer) && !answer.head.status) {
        result_decimal(&run->result, "remaining", answer.acknowledged.remaining);
    }
}

/* ---- any bytes, and what yielded ---- */

static void do_raw(struct run *run)
{
    union answer answer;
    uint32_t vm = 0;
    struct pv_room *room = begin(run, &vm);
    uint8_t *data;
    size_t size;

    if (room && arg_data(run, &data, &size)) {
        (void)send(run, room, vm, data, size, &answer);
        free(data);
    }
}

static void do_resume(struct run *run)
{
    struct pv_room *room = pv_room(run);
    union answer answer;
    size_t written;

    if (!room) {
        return;
    }
    if (!room->rest) {
        result_status(&run->result, "none");
        return;
    }
    if (tell(run, room, viommu_pv_resume(room->pv, room->rest, room->out, OUT_ROOM, &written),
             &answer)) {
        tell_range(run, &answer);
    }
}

static void do_cancel(struct run *run)
{
    struct pv_room *room = pv_room(run);

    if (room) {
        viommu_pv_cancel(room->pv, room->rest);
        room->rest = NULL;
    }
}

const struct command pv_call_commands[] = {
    {"pv caps", "vm", "Asks what there is.", do_caps},
    {"pv reserved", "vm [device=] [room=]", "Asks for reserved ranges.", do_reserved},
    {"pv enable", "vm [once!]", "Enables the interface: drops the default map.", do_enable},
    {"pv alloc", "vm", "Makes a context.", do_alloc},
    {"pv free", "vm context [once!]", "Frees a context, with what is mapped in it.", do_free},
    {"pv attach", "vm device context", "Moves a device to a context.", do_attach},
    {"pv map", "vm context of frame device-frame [count] [perm] [order=] [mmio!] [once!]",
     "Maps frames of a VM (-1: its own).", do_map},
    {"pv unmap", "vm context of frame device-frame [count] [order=] [perm=] [defer!] [once!]",
     "Unmaps them.", do_unmap},
    {"pv flush", "vm context [first] [last]", "Flushes a context, or a range of it.", do_flush},
    {"pv lookup", "vm context device-frame", "What is mapped at a device frame.", do_lookup},
    {"pv find", "vm of frame", "Where a frame is mapped.", do_find},
    {"pv foreign", "vm context of frames [perm] [max=]",
     "Maps frames of another VM where there is room; an item is its device frame, or a status.",
     do_foreign},
    {"pv acknowledge", "vm of frame", "Says that a frame was given back.", do_acknowledge},
    {"pv raw", "vm " DATA_ARGUMENTS, "Makes a call of any bytes.", do_raw},
    {"pv resume", "", "Goes on with a call that yielded.", do_resume},
    {"pv cancel", "", "Forgets it.", do_cancel},
    {0},
};
