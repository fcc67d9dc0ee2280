/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue room: invalidation, by descriptors in a queue and by registers.
 *
 * `queue` sets an invalidation queue up in guest memory. Each `inv` operation writes one descriptor
 * at the runner's own tail and, unless held back, moves the unit's tail behind it. Its status says
 * what became of the queue: done (the head has come to the tail), waiting, error (FSTS has IQE or
 * ITE), queued (held back), or off.
 */
#include "run.h"

#include <stdlib.h>
#include <string.h>

enum {
    PAGE = 4096,
    DESCRIPTOR = 16,
    PAGES_MAX = 128,
    GSTS = 0x1c,
    GSTS_QIES_BIT = 26,
    GCMD = 0x18,
    CCMD = 0x28,
    FSTS = 0x34,
    FSTS_QUEUE_ERRORS = 0x50, /* IQE and ITE */
    IQH = 0x80,
    IQT = 0x88,
    IQA = 0x90,
    TYPE_CONTEXT = 1,
    TYPE_IOTLB = 2,
    TYPE_DEVICE_TLB = 3,
    TYPE_IEC = 4,
    TYPE_WAIT = 5,
};

static const uint32_t gsts_kept = 0x96ffffff;

struct queue {
    uint64_t at;
    uint64_t size; /* bytes */
    uint64_t tail; /* offset of the next descriptor */
};

void queue_destroy(struct queue *queue)
{
    free(queue);
}

static struct queue *unit_queue(struct run *run)
{
    struct unit *unit = run_unit(run);

    if (unit && !unit->queue) {
        run_error(run, NULL, "there is no queue: `queue at size` sets one up");
    }
    return unit ? unit->queue : NULL;
}

/* Lets the unit work, then says how head and tail stand. */
static void report(struct run *run, bool held_back)
{
    uint64_t head;
    uint64_t tail;

    run_settle(run);
    head = register_get(run, IQH, 8);
    tail = register_get(run, IQT, 8);
    if (!(register_get(run, GSTS, 4) >> GSTS_QIES_BIT & 1)) {
        result_status(&run->result, "off");
    } else if (register_get(run, FSTS, 4) & FSTS_QUEUE_ERRORS) {
        result_status(&run->result, "error");
    } else if (held_back) {
        result_status(&run->result, "queued");
    } else {
        result_status(&run->result, head == tail ? "done" : "waiting");
    }
    result_hex(&run->result, "head", head);
    result_hex(&run->result, "tail", tail);
}

static void enable(struct run *run, bool on)
{
    uint32_t value = (uint32_t)register_get(run, GSTS, 4) & gsts_kept;
    uint32_t bit = 1u << GSTS_QIES_BIT;

    register_set(run, GCMD, 4, on ? value | bit : value & ~bit);
    run_settle(run);
}

static void do_queue(struct run *run)
{
    struct unit *unit = run_unit(run);
    uint64_t at;
    uint64_t size = PAGE;
    uint64_t pages;

    if (!unit || !arg_number(run, "at", &at) || !arg_number(run, "size", &size)) {
        return;
    }
    pages = size / PAGE;
    if (size % PAGE || !pages || pages > PAGES_MAX || (pages & (pages - 1))) {
        run_error(run, NULL, "a queue has 4k times a power of two, 512k at most");
        return;
    }
    if (at % PAGE) {
        run_error(run, NULL, "a queue is aligned to 4k");
        return;
    }
    free(unit->queue);
    unit->queue = run_alloc(sizeof(*unit->queue));
    *unit->queue = (struct queue){at, size, 0};
    enable(run, false);
    register_set(run, IQT, 8, 0);
    register_set(run, IQA, 8, at | (unsigned)__builtin_ctzll(pages));
    if (!arg_flag(run, "off")) {
        enable(run, true);
    }
    report(run, false);
}

static void do_queue_status(struct run *run)
{
    if (run_unit(run)) {
        report(run, false);
    }
}

/* Writes a descriptor at the tail, or in place of an earlier one, and moves the tail. */
static void push(struct run *run, uint64_t low, uint64_t high)
{
    struct queue *queue = unit_queue(run);
    bool held_back = arg_flag(run, "hold");
    uint64_t extra_low = 0;
    uint64_t extra_high = 0;
    uint64_t at;

    if (!queue || !arg_number(run, "low", &extra_low) || !arg_number(run, "high", &extra_high)) {
        return;
    }
    at = queue->tail;
    if (!arg_number(run, "instead", &at)) {
        return;
    }
    guest_write64(run, queue->at + at, low | extra_low);
    guest_write64(run, queue->at + at + 8, high | extra_high);
    if (run->failed) {
        return;
    }
    if (arg_given(run, "instead")) {
        report(run, true);
        return;
    }
    queue->tail = (queue->tail + DESCRIPTOR) % queue->size;
    if (!held_back) {
        register_set(run, IQT, 8, queue->tail);
    }
    report(run, held_back);
}

static void do_tail(struct run *run)
{
    struct queue *queue = unit_queue(run);
    uint64_t to;

    if (!queue) {
        return;
    }
    to = queue->tail;
    if (!arg_number(run, "to", &to)) {
        return;
    }
    register_set(run, IQT, 8, to);
    if (arg_given(run, "to")) {
        queue->tail = to % queue->size;
    }
    report(run, false);
}

/* Granularities by their code; 0 is reserved and can be asked for, too. */
static const char *const context_granularities[] = {"none", "global", "domain", "device", NULL};
static const char *const iotlb_granularities[] = {"none", "global", "domain", "page", NULL};

struct context_request {
    unsigned granularity;
    uint64_t domain;
    uint16_t requester;
    uint64_t mask;
};

static bool context_arguments(struct run *run, struct context_request *request)
{
    *request = (struct context_request){0};
    return arg_choice(run, "granularity", context_granularities, &request->granularity) &&
           arg_number_max(run, "domain", UINT16_MAX, &request->domain) &&
           arg_requester(run, "dev", &request->requester) &&
           arg_number_max(run, "mask", 3, &request->mask);
}

static void do_inv_context(struct run *run)
{
    struct context_request request;

    if (context_arguments(run, &request)) {
        push(run, TYPE_CONTEXT | (uint64_t)request.granularity << 4 | request.domain << 16 |
                      (uint64_t)request.requester << 32 | request.mask << 48, 0);
    }
}

struct iotlb_request {
    unsigned granularity;
    uint64_t domain;
    uint64_t iova;
    uint64_t mask;
    bool hint;
};

static bool iotlb_arguments(struct run *run, struct iotlb_request *request)
{
    *request = (struct iotlb_request){.hint = arg_flag(run, "hint")};
    return arg_choice(run, "granularity", iotlb_granularities, &request->granularity) &&
           arg_number_max(run, "domain", UINT16_MAX, &request->domain) &&
           arg_number(run, "iova", &request->iova) &&
           arg_number_max(run, "mask", 63, &request->mask);
}

/* IVA and the upper half of a descriptor have the same fields. */
static uint64_t iotlb_address(const struct iotlb_request *request)
{
    return (request->iova & ~(uint64_t)(PAGE - 1)) | (request->hint ? 1 << 6 : 0) | request->mask;
}

static void do_inv_iotlb(struct run *run)
{
    struct iotlb_request request;
    uint64_t drain;

    if (!iotlb_arguments(run, &request)) {
        return;
    }
    drain = arg_flag(run, "drain") ? 3 << 6 : 0;
    push(run, TYPE_IOTLB | (uint64_t)request.granularity << 4 | drain | request.domain << 16,
         iotlb_address(&request));
}

/* The address of a device-TLB invalidation: the lowest zero bit above bit 11 tells the size. */
static bool device_tlb_range(struct run *run, uint64_t *address)
{
    uint64_t iova = 0;
    uint64_t size = PAGE;

    if (arg_flag(run, "global")) {
        *address = 0x7ffffffffffff001;
        return true;
    }
    if (!arg_number(run, "iova", &iova) || !arg_number(run, "size", &size)) {
        return false;
    }
    if (size < PAGE || (size & (size - 1)) || iova % size) {
        run_error(run, NULL, "size is a power of two from 4k on, and iova a multiple of it");
        return false;
    }
    *address = iova | (size > PAGE ? ((size / 2 - 1) & ~(uint64_t)(PAGE - 1)) | 1 : 0);
    return true;
}

static void do_inv_device_tlb(struct run *run)
{
    uint16_t requester;
    uint64_t address;
    uint64_t pending = 0;

    if (arg_requester(run, "dev", &requester) && device_tlb_range(run, &address) &&
        arg_number_max(run, "max-pending", 31, &pending)) {
        push(run, TYPE_DEVICE_TLB | pending << 16 | (uint64_t)requester << 32, address);
    }
}

static void do_inv_iec(struct run *run)
{
    uint64_t index = 0;
    uint64_t mask = 0;
    uint64_t by_index = arg_given(run, "index") ? 1 << 4 : 0;

    if (arg_number_max(run, "index", UINT16_MAX, &index) &&
        arg_number_max(run, "mask", 31, &mask)) {
        push(run, TYPE_IEC | by_index | mask << 27 | index << 32, 0);
    }
}

static void do_inv_wait(struct run *run)
{
    uint64_t low = TYPE_WAIT;
    uint64_t data = 0;
    uint64_t at = 0;

    if (!arg_number_max(run, "status", UINT32_MAX, &data) || !arg_number(run, "at", &at)) {
        return;
    }
    if (arg_given(run, "status") != arg_given(run, "at")) {
        run_error(run, NULL, "status= and at= go together: what to write, and where");
        return;
    }
    low |= arg_flag(run, "interrupt") ? 1 << 4 : 0;
    low |= arg_given(run, "status") ? 1 << 5 : 0;
    low |= arg_flag(run, "fence") ? 1 << 6 : 0;
    push(run, low | data << 32, at);
}

static void do_inv_raw(struct run *run)
{
    push(run, 0, 0);
}

/* The word for the granularity that a register says was performed. */
static void result_performed(struct run *run, const char *const *names, uint64_t value,
                             unsigned low, bool busy)
{
    result_status(&run->result, busy ? "waiting" : "done");
    result_word(&run->result, "performed", names[value >> low & 3]);
}

static void do_reg_inv_context(struct run *run)
{
    struct context_request request;
    uint64_t value;

    if (!run_unit(run) || !context_arguments(run, &request)) {
        return;
    }
    register_set(run, CCMD, 8,
                 (uint64_t)1 << 63 | (uint64_t)request.granularity << 61 | request.mask << 32 |
                     (uint64_t)request.requester << 16 | request.domain);
    run_settle(run);
    value = register_get(run, CCMD, 8);
    result_performed(run, context_granularities, value, 59, value >> 63);
}

static void do_reg_inv_iotlb(struct run *run)
{
    struct iotlb_request request;
    uint64_t drain;
    uint64_t value;
    uint64_t at;

    if (!run_unit(run) || !iotlb_arguments(run, &request)) {
        return;
    }
    drain = arg_flag(run, "drain") ? (uint64_t)3 << 48 : 0;
    at = register_iotlb_offset(run);
    register_set(run, at, 8, iotlb_address(&request));
    register_set(run, at + 8, 8,
                 (uint64_t)1 << 63 | (uint64_t)request.granularity << 60 | drain |
                     request.domain << 32);
    run_settle(run);
    value = register_get(run, at + 8, 8);
    result_performed(run, iotlb_granularities, value, 57, value >> 63);
}

#define PUSH " [low=] [high=] [instead=] [hold!]"

const struct command queue_commands[] = {
    {"queue", "at [size] [off!]", "Sets an invalidation queue up, and switches it on.", do_queue},
    {"queue status", "", "Tells how the queue stands.", do_queue_status},
    {"tail", "[to]", "Moves the tail behind what was held back, or to a byte offset.", do_tail},
    {"inv context", "granularity [domain=] [dev=] [mask=]" PUSH,
     "Invalidates context entries: global, domain, or device with a function mask.",
     do_inv_context},
    {"inv iotlb", "granularity [domain=] [iova=] [mask=] [hint!] [drain!]" PUSH,
     "Invalidates the IOTLB: global, domain, or page with an address mask.", do_inv_iotlb},
    {"inv device-tlb", "dev [iova] [size] [global!] [max-pending=]" PUSH,
     "Tells a device to invalidate its device-TLB.", do_inv_device_tlb},
    {"inv iec", "[index=] [mask=]" PUSH, "Invalidates interrupt entries: all, or from an index.",
     do_inv_iec},
    {"inv wait", "[status=] [at=] [interrupt!] [fence!]" PUSH,
     "Waits for what stands before it: then writes a status, or interrupts.", do_inv_wait},
    {"inv raw", "low high [instead=] [hold!]", "Pushes a descriptor of any bits.", do_inv_raw},
    {"reg-inv context", "granularity [domain=] [dev=] [mask=]",
     "Invalidates context entries by CCMD.", do_reg_inv_context},
    {"reg-inv iotlb", "granularity [domain=] [iova=] [mask=] [hint!] [drain!]",
     "Invalidates the IOTLB by IVA and IOTLB.", do_reg_inv_iotlb},
    {0},
};
