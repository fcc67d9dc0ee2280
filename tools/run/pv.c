/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The paravirtual room, as the hypervisor: an engine (viommu/pv.h) on a simulated one, its VMs and
 * pages. The calls of guests are in pv_call.c.
 */
#include "pv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../parse.h"

struct pv_room *pv_room(struct run *run)
{
    if (!run->pv || !run->pv->pv) {
        run_error(run, NULL, "there is no engine: `pv engine` makes one");
        return NULL;
    }
    return run->pv;
}

bool pv_arg_32(struct run *run, const char *name, uint32_t *out)
{
    uint64_t value = *out;

    if (!arg_number(run, name, &value)) {
        return false;
    }
    *out = (uint32_t)value; /* -1 is all ones */
    return true;
}

bool pv_arg_vm(struct run *run, const char *name, uint32_t *out)
{
    uint64_t value = *out;

    if (!arg_number_max(run, name, HYPERVISOR_VMS - 1, &value)) {
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

static void destroy(struct pv_room *room)
{
    if (!room) {
        return;
    }
    viommu_pv_cancel(room->pv, room->rest);
    room->hypervisor.flush_fails = false;
    for (uint32_t vm = 0; room->pv && vm < HYPERVISOR_VMS; vm++) {
        while (viommu_pv_vm_destroy(room->pv, vm) == VIOMMU_PENDING) {
        }
    }
    (void)viommu_pv_destroy(room->pv);
    for (struct hypervisor_asked *asked; (asked = hypervisor_asked_take(&room->hypervisor));) {
        free(asked);
    }
    free(room->out);
    free(room);
}

void pv_destroy(struct run *run)
{
    destroy(run->pv);
    run->pv = NULL;
}

/* ---- the engine ---- */

/* The operations that a table can lack, in its order. */
static const char *const operations[] = {
    "lookup",         "prepare",         "get-page", "put-page",     "get-type",
    "put-type",       "mark-dirty",      "may-call", "may-use",      "reserved",
    "context-create", "context-destroy", "attach",   "identity",     "map",
    "unmap",          "flush",           "isolate",  "drop-default", "yield",
    "give-back",      "acknowledged",    NULL,
};

static void do_engine(struct run *run)
{
    struct pv_room *room = run_alloc(sizeof(*room));
    struct viommu_pv_config *config = &room->config;
    unsigned missing = 0;

    room->ops = hypervisor_ops;
    config->ops = &room->ops;
    config->opaque = &room->hypervisor;
    if (!arg_number(run, "frame-max", &config->frame_max) ||
        !arg_number(run, "device-frame-max", &config->device_frame_max) ||
        !arg_number(run, "orders", &config->orders) ||
        !arg_number(run, "count-max", &config->count_max) ||
        !arg_number(run, "mappings-max", &config->mappings_max) ||
        !arg_number(run, "tables-max", &config->tables_max) ||
        !pv_arg_32(run, "contexts-max", &config->contexts_max) ||
        !pv_arg_32(run, "items-max", &config->items_max) ||
        !pv_arg_32(run, "deferred-max", &config->deferred_max) ||
        !arg_choice(run, "without", operations, &missing)) {
        free(room);
        return;
    }
    if (arg_given(run, "without")) {
        memset((uint8_t *)&room->ops + missing * sizeof(void (*)(void)), 0, sizeof(void (*)(void)));
    }
    pv_destroy(run);
    run->pv = room;
    result_errno(&run->result, viommu_pv_create(config, &room->pv));
}

static void do_vm(struct run *run)
{
    struct pv_room *room = pv_room(run);
    uint64_t pieces = 0;
    uint32_t vm = 0;
    int error;

    if (!room || !pv_arg_vm(run, "vm", &vm) || !arg_number(run, "default", &pieces)) {
        return;
    }
    error = viommu_pv_vm_add(room->pv, vm, !arg_given(run, "default"));
    if (!error) {
        hypervisor_vm_begin(&room->hypervisor, vm, pieces);
    }
    result_errno(&run->result, error);
}

static void do_destroy(struct run *run)
{
    struct pv_room *room = pv_room(run);
    uint32_t vm = 0;
    int error;

    if (!room || !pv_arg_vm(run, "vm", &vm)) {
        return;
    }
    do {
        error = viommu_pv_vm_destroy(room->pv, vm);
    } while (error == VIOMMU_PENDING && !arg_flag(run, "once"));
    if (!error) {
        hypervisor_vm_end(&room->hypervisor, vm);
    }
    result_errno(&run->result, error);
}

static void do_status(struct run *run)
{
    struct pv_room *room = pv_room(run);
    struct viommu_pv_vm_status status = {0};
    uint32_t vm = 0;

    if (!room || !pv_arg_vm(run, "vm", &vm)) {
        return;
    }
    result_errno(&run->result, viommu_pv_vm_status(room->pv, vm, &status, sizeof(status)));
    result_decimal(&run->result, "mappings", status.mappings);
    result_decimal(&run->result, "pending", status.pending);
    result_decimal(&run->result, "revoked", status.revoked);
    result_decimal(&run->result, "mapped", status.mapped);
    result_decimal(&run->result, "tables", status.tables);
    result_decimal(&run->result, "contexts", status.contexts);
    result_decimal(&run->result, "isolated", status.isolated);
    result_switch(&run->result, "enabled", status.enabled);
    result_switch(&run->result, "dying", status.dying);
    result_decimal(&run->result, "default", room->hypervisor.vms[vm].default_left);
    result_decimal(&run->result, "prepared", room->hypervisor.prepared);
    result_decimal(&run->result, "flushes", room->hypervisor.flushes);
    result_decimal(&run->result, "acknowledged", room->hypervisor.acknowledged);
}

/* ---- devices ---- */

size_t pv_arg_ranges(struct run *run, const char *name, struct viommu_pv_range *out, size_t room)
{
    const char *text = line_argument(&run->line, name)->value;
    size_t count = 0;
    char *copy = run_copy_text(text);
    char *rest = NULL;

    for (char *word = strtok_r(copy, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        char *dash = strchr(word, '-');

        if (dash) {
            *dash = '\0';
        }
        if (count == room || !number_value(word, &out[count].first) ||
            !number_value(dash ? dash + 1 : word, &out[count].last)) {
            run_error(run, text, "%s is FIRST-LAST, joined by commas, %zu at most", name, room);
            count = 0;
            break;
        }
        count++;
    }
    free(copy);
    return count;
}

static void do_device(struct run *run)
{
    struct pv_room *room = pv_room(run);
    struct hypervisor_device *device;
    uint32_t vm = 0;
    uint32_t id = 0;
    int error;

    if (!room || !pv_arg_vm(run, "vm", &vm) || !pv_arg_32(run, "device", &id)) {
        return;
    }
    device = hypervisor_device_add(&room->hypervisor, vm, id);
    if (!device) {
        run_error(run, NULL, "there are as many devices as there can be");
        return;
    }
    if (arg_given(run, "reserved")) {
        device->reserved_count = pv_arg_ranges(run, "reserved", device->reserved, 4);
        if (!device->reserved_count) {
            device->there = false;
            return;
        }
    }
    error = viommu_pv_device_add(room->pv, vm, id);
    device->there = error == 0;
    result_errno(&run->result, error);
}

static void do_device_remove(struct run *run)
{
    struct pv_room *room = pv_room(run);
    uint32_t vm = 0;
    uint32_t id = 0;
    int error;

    if (!room || !pv_arg_vm(run, "vm", &vm) || !pv_arg_32(run, "device", &id)) {
        return;
    }
    error = viommu_pv_device_remove(room->pv, vm, id);
    if (!error) {
        hypervisor_device(&room->hypervisor, vm, id)->there = false;
    }
    result_errno(&run->result, error);
}

/* What a device reaches: a page of a VM, or itself where it is mapped one to one. */
static void do_dma(struct run *run)
{
    struct pv_room *room = pv_room(run);
    const struct hypervisor_translation *found;
    const struct hypervisor_device *device;
    uint64_t device_frame = 0;
    uint64_t handle;
    uint32_t vm = 0;
    uint32_t id = 0;

    if (!room || !pv_arg_vm(run, "vm", &vm) || !pv_arg_32(run, "device", &id) ||
        !arg_number(run, "device-frame", &device_frame)) {
        return;
    }
    device = hypervisor_device(&room->hypervisor, vm, id);
    if (!device) {
        run_error(run, NULL, "there is no such device");
        return;
    }
    found = hypervisor_translate(device, device_frame);
    if (!found) {
        result_status(&run->result, "refused");
        return;
    }
    handle = found->handle + (device_frame - found->device_frame);
    if (handle < HYPERVISOR_VMS * HYPERVISOR_FRAMES) {
        result_decimal(&run->result, "owner", handle / HYPERVISOR_FRAMES);
        result_decimal(&run->result, "page", handle % HYPERVISOR_FRAMES);
        result_switch(&run->result, "free", room->hypervisor.pages[handle].free);
    } else {
        result_switch(&run->result, "identity", true);
    }
    result_perm(&run->result, "perm", found->perm);
    result_switch(&run->result, "stale", found->stale);
}

/* ---- pages ---- */

static const char *const states[] = {"ram",    "read-only", "dirty-logged", "paged-out",
                                     "shared", "on-demand", "mmio",         NULL};

/* A frame of a VM's. */
static bool arg_frame(struct run *run, const char *vm_name, const char *name, uint32_t *vm,
                      uint64_t *frame)
{
    return pv_arg_vm(run, vm_name, vm) && arg_number_max(run, name, HYPERVISOR_FRAMES - 1, frame);
}

static void tell_page(struct run *run, const struct hypervisor_frame *at)
{
    result_word(&run->result, "state", at->page || at->state ? states[at->state] : "none");
    if (at->page) {
        result_decimal(&run->result, "owner", at->page->owner);
        result_decimal(&run->result, "refs", at->page->refs);
        result_decimal(&run->result, "types", at->page->types);
        result_decimal(&run->result, "dirty", at->page->dirty);
    }
}

static void do_page(struct run *run)
{
    struct pv_room *room = pv_room(run);
    struct hypervisor_frame *at;
    uint32_t owner = 0;
    uint64_t of = 0;
    uint64_t frame = 0;
    unsigned state = 0;
    uint32_t vm = 0;

    if (!room || !arg_frame(run, "vm", "frame", &vm, &frame) ||
        !arg_frame(run, "owner", "owner-frame", &owner, &of) ||
        !arg_choice(run, "state", states, &state)) {
        return;
    }
    at = &room->hypervisor.vms[vm].frames[frame];
    if (arg_given(run, "owner-frame")) {
        at->page = room->hypervisor.vms[owner].frames[of].page;
    }
    if (arg_given(run, "state")) {
        at->state = (enum viommu_pv_page_state)state;
        at->page = state == VIOMMU_PV_PAGE_ON_DEMAND ? NULL : at->page;
    }
    if (arg_flag(run, "typed")) {
        at->page->typed = true;
    }
    if (arg_flag(run, "gone")) {
        *at = (struct hypervisor_frame){.page = NULL};
    }
    tell_page(run, at);
}

/* Gives a page away for good, if nobody refers to it. */
static void do_reuse(struct run *run)
{
    struct pv_room *room = pv_room(run);
    struct hypervisor_frame *at;
    uint64_t frame = 0;
    uint32_t vm = 0;

    if (!room || !arg_frame(run, "vm", "frame", &vm, &frame)) {
        return;
    }
    at = &room->hypervisor.vms[vm].frames[frame];
    if (!at->page || at->page->refs) {
        result_status(&run->result, at->page ? "busy" : "not-found");
        return;
    }
    at->page->free = true;
    *at = (struct hypervisor_frame){.page = NULL};
}

static void page_call(struct run *run,
                      int (*call)(struct viommu_pv *pv, uint32_t vm, uint64_t frame))
{
    struct pv_room *room = pv_room(run);
    uint64_t frame = 0;
    uint32_t vm = 0;

    if (room && arg_frame(run, "vm", "frame", &vm, &frame)) {
        result_errno(&run->result, call(room->pv, vm, frame));
    }
}

static void do_remove(struct run *run)
{
    page_call(run, viommu_pv_page_remove);
}

static void do_revoke(struct run *run)
{
    page_call(run, viommu_pv_page_revoke);
}

static void do_settle(struct run *run)
{
    page_call(run, viommu_pv_page_settle);
}

static void do_asked(struct run *run)
{
    struct pv_room *room = pv_room(run);
    struct hypervisor_asked *asked = room ? hypervisor_asked_take(&room->hypervisor) : NULL;

    if (!asked) {
        result_status(&run->result, "none");
        return;
    }
    result_decimal(&run->result, "mapper", asked->mapper);
    result_decimal(&run->result, "context", asked->context);
    result_decimal(&run->result, "device-frame", asked->device_frame);
    result_decimal(&run->result, "vm", asked->vm);
    result_decimal(&run->result, "frame", asked->frame);
    free(asked);
}

/* ---- what it answers ---- */

static const char *const failures[] = {"flush", "attach", "map", NULL};

static void do_fail(struct run *run)
{
    struct pv_room *room = pv_room(run);
    unsigned which = 0;
    bool on = true;

    if (!room || !arg_choice(run, "what", failures, &which) || !arg_switch(run, "switch", &on)) {
        return;
    }
    *(bool *[]){&room->hypervisor.flush_fails, &room->hypervisor.attach_fails,
                &room->hypervisor.map_fails}[which] = on;
}

static void do_yield(struct run *run)
{
    struct pv_room *room = pv_room(run);

    if (room) {
        room->hypervisor.yield_asked = 0;
        (void)arg_number(run, "every", &room->hypervisor.yield_every);
    }
}

static void do_privilege(struct run *run)
{
    struct pv_room *room = pv_room(run);
    uint32_t other = 0;
    uint32_t vm = 0;
    bool on = true;

    if (!room || !pv_arg_vm(run, "vm", &vm) || !pv_arg_vm(run, "other", &other) ||
        !arg_switch(run, "switch", &on)) {
        return;
    }
    room->hypervisor.vms[vm].refused &= ~(1u << other);
    room->hypervisor.vms[vm].refused |= on ? 0 : 1u << other;
}

static void do_allow(struct run *run)
{
    static const char *const calls[] = {"none",   "caps",   "reserved",    "enable",      "alloc",
                                        "free",   "attach", "map",         "unmap",       "flush",
                                        "lookup", "find",   "map-foreign", "acknowledge", NULL};
    struct pv_room *room = pv_room(run);
    unsigned which = 0;
    bool on = true;

    if (!room || !arg_choice(run, "call", calls, &which) || !arg_switch(run, "switch", &on)) {
        return;
    }
    room->hypervisor.refused_calls &= ~(1u << which);
    room->hypervisor.refused_calls |= on ? 0 : 1u << which;
}

static void do_bare(struct run *run)
{
    struct pv_room *room = pv_room(run);

    if (room) {
        result_switch(&run->result, "bare", room->hypervisor.bare);
    }
}

const struct command pv_commands[] = {
    {"pv engine",
     "[frame-max=] [device-frame-max=] [orders=] [count-max=] [mappings-max=] [tables-max=]"
     " [contexts-max=] [items-max=] [deferred-max=] [without=]",
     "Makes an engine of paravirtual operations, in the place of the last one; without: the table"
     " lacks an operation.",
     do_engine},
    {"pv vm", "vm [default=]", "A VM comes to be, empty, or with pieces of a default map.", do_vm},
    {"pv destroy", "vm [once!]", "A VM dies; once: one call only.", do_destroy},
    {"pv status", "vm", "Tells how a VM stands.", do_status},
    {"pv device", "vm device [reserved=]", "A device becomes a VM's.", do_device},
    {"pv device-remove", "vm device", "It is no more.", do_device_remove},
    {"pv dma", "vm device device-frame", "What a device reaches, also by what is not flushed.",
     do_dma},
    {"pv bare", "", "Whether a device was ever without a range that it needs.", do_bare},
    {"pv page", "vm frame [state=] [owner=] [owner-frame=] [typed!] [gone!]",
     "Tells of a page, and changes what a VM has at a frame.", do_page},
    {"pv reuse", "vm frame", "Gives a page away, if nobody refers to it.", do_reuse},
    {"pv remove", "vm frame", "A page is to be removed: its mappers are asked to give it back.",
     do_remove},
    {"pv revoke", "vm frame", "It is taken away by force.", do_revoke},
    {"pv settle", "vm frame", "It was removed, or stays.", do_settle},
    {"pv asked", "", "Takes the next question to give a page back.", do_asked},
    {"pv fail", "what switch", "Makes flush, attach or map fail.", do_fail},
    {"pv yield", "every", "How often a long call is made to yield; 0: never.", do_yield},
    {"pv privilege", "vm other switch", "Whether a VM may use another one's pages.", do_privilege},
    {"pv allow", "call switch", "Whether VMs may make a kind of call.", do_allow},
    {0},
};
