/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The example hypervisor: what it and the processes of its VMs say to each other, and what all of
 * them know from the start.
 *
 * Each process has two sockets, which keep messages apart. On `calls` it asks, and waits for one
 * answer. On `events` it is told things, and answers nothing. Nobody waits longer than PATIENCE.
 */
#ifndef HYPERVISOR_WIRE_H
#define HYPERVISOR_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <viommu/pv_abi.h>

enum {
    PAGE = 4096,
    PATIENCE = 60, /* seconds; a machine may be busy */
    /* VMs, and the pages that they begin with. */
    GUEST = 1,
    GUEST_PAGES = 8,
    BALLOONED = 3, /* the guest's frame that it gives away */
    MAPPER = 2,    /* models a device for the guest */
    MAPPER_PAGES = 1,
    NEWCOMER = 3, /* gets the page that the guest gave away */
    VM_COUNT = 3,
    /* Where each word of a page is that the device works on. */
    WORD_IN = 0,  /* the guest writes it, the device reads it */
    WORD_OUT = 8, /* and writes it here, more by one each time */
};

#define GREETING UINT64_C(0x1000000)

/* What the mapper does when it is asked to give a page back; what the guest does, and what the
   hypervisor leaves out. */
enum manner {
    GIVES_BACK = 0,
    REFUSES,      /* it goes on as if it had not been asked */
    DIES,         /* its process ends at once */
    DIES_IN_CALL, /* it ends in the middle of the call that gives the page back */
    GUEST_DIES,   /* it gives back; the guest ends in the middle of giving its page away */
    CARELESS, /* it gives back, but the hypervisor does not flush: the example's proof must fail */
};

enum kind {
    /* calls */
    CALL_PV = 1,   /* `body` is a call of viommu/pv_abi.h; so is that of the answer */
    CALL_READY,    /* the process has done its part of the beginning */
    CALL_DOORBELL, /* the mapper's device has its ring at device frame `value` */
    CALL_BALLOON,  /* the guest gives its frame `value` away, and has unmapped it */
    CALL_DONE,     /* the guest, the newcomer: all was as it should be (`value` 1), or was not */
    ANSWER,        /* `value` 0: done */
    /* events */
    EVENT_BEGIN,     /* the mapper: the guest is ready; the newcomer: it has machine page `value` */
    EVENT_GIVE_BACK, /* the mapper: device frame `value`, where it has BALLOONED */
    EVENT_LOOK,      /* the newcomer: look at the page */
    EVENT_END,
};

enum {
    BODY = 512,
};

struct message {
    uint32_t kind;
    uint32_t size; /* of the body */
    uint64_t value;
    uint8_t body[BODY];
};

/* The mapper's ring, at the start of its page: the device works on these device frames in turn. */
struct ring {
    uint64_t count;
    uint64_t device_frames[GUEST_PAGES];
};

/* One process of a VM: its ends of the sockets, and its pages, mapped one after another. */
struct process {
    int calls;
    int events;
    int machine; /* the machine's memory: what a VM maps of it, nobody checks in this example */
    uint8_t *pages;
    enum manner manner;
};

/* Sends without waiting. False: the other side is gone, or does not read. */
bool wire_send(int fd, const struct message *message);
/* Receives what is there, or (`wait`) waits PATIENCE for it. False: gone, late, or no message. */
bool wire_receive(int fd, struct message *message, bool wait);

/* Maps pages of the machine's memory, from machine page `first` on; false without. */
bool process_map(struct process *process, uint64_t first, size_t count);
/* The processes; each returns its exit status. The newcomer has no page yet. */
int guest_main(const struct process *process);
int mapper_main(const struct process *process);
int newcomer_main(struct process *process);

#endif
