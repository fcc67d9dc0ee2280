/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VT-d unit: its state, what is under way, and what its files offer one another.
 *
 *   unit.c       life, configuration, capabilities, work
 *   registers.c  the register file: accesses of any size, and what a write sets off
 *   command.c    GCMD, and invalidation by registers
 *   queue.c      the invalidation queue: fetch, check, start, retire
 *   invalidate.c what each invalidation does, and when it is done
 *   context.c    root and context entries
 *   translate.c  requests: untranslated, translated, translation requests
 *   kept.c       what is cached in the modes that test drivers
 *   fault.c      fault records, events and their interrupts
 *   save.c       all that, saved and restored
 *
 * Vocabulary. An *operation* is an invalidation that was started: descriptors become operations in
 * order, overlap, and retire in order. IQH, as the guest reads it, is the first descriptor that has
 * not retired: it never tells of more than what is complete. *Fetch* is where the next descriptor
 * is read.
 *
 * Invariants:
 * - vtd_state is plain data and all that there is to save, but for which bit of GCMD is under way
 *   (and whether a set-root-pointer came once more), and how many descriptors are: operations under
 *   way are those between IQH and fetch, and are started again from IQH. So are waits that a
 *   time-out was about to abort: the device that did not answer stays denied, and what is not told
 *   to it any more counts as done.
 * - A requester's context is cached only when it was present and valid; faults are never cached.
 *   (kept.c has exceptions.)
 *
 * Locking: the IOMMU's lock, but for translate.c, which runs in a section and takes the lock to
 * fetch a context or to record a fault.
 */
#ifndef VIOMMU_VTD_UNIT_H
#define VIOMMU_VTD_UNIT_H

#include "iommu/iommu.h"
#include "pagetable/pagetable.h"
#include "vtd/spec.h"

#include <viommu/vtd.h>

/* Registers that hold something; registers.c says where they are. */
enum vtd_register {
    REG_VER,
    REG_CAP,
    REG_ECAP,
    REG_GCMD,
    REG_GSTS,
    REG_RTADDR,
    REG_CCMD,
    REG_FSTS,
    REG_FECTL,
    REG_FEDATA,
    REG_FEADDR,
    REG_FEUADDR,
    REG_IQH,
    REG_IQT,
    REG_IQA,
    REG_ICS,
    REG_IECTL,
    REG_IEDATA,
    REG_IEADDR,
    REG_IEUADDR,
    REG_IQERCD,
    REG_IVA,
    REG_IOTLB,
    VTD_REGISTER_COUNT
};

/* A fault record; `high` is valid while its F bit is set. */
struct vtd_fault_record {
    uint64_t low;
    uint64_t high;
};

/* The two events that the unit has messages for. */
enum vtd_event {
    EVENT_FAULT,
    EVENT_COMPLETION,
};

/* A message that was sent, and that viommu_process has not handed on yet. */
struct vtd_message {
    uint64_t address;
    uint32_t data;
    uint32_t due;
};

/* All that a guest can see or cause, and nothing else. */
struct vtd_state {
    uint64_t reg[VTD_REGISTER_COUNT];
    struct vtd_fault_record fault[VTD_FAULT_RECORDS_MAX];
    uint64_t root;        /* RTADDR as the last set-root-pointer took it */
    uint32_t fault_index; /* the record that the next fault takes */
    uint32_t wanted;      /* TE and QIE as last commanded; GSTS follows */
    uint32_t set_root;    /* GCMD_SRTP while a set-root-pointer is not complete */
    uint32_t translating; /* requests are translated: becomes true before GSTS.TES does */
    struct vtd_message message[2]; /* by enum vtd_event */
};

/* A hostile cache puts an operation off less often than this. */
#define VTD_DELAYS 6u

/* Operations that may be under way at once; past it the queue waits. */
#define VTD_OPERATIONS 256u

enum vtd_phase {
    PHASE_LATE,   /* hostile cache: to begin */
    PHASE_DRAIN,  /* for requests that began before it */
    PHASE_AGAIN,  /* for those that could find what these had cached late */
    PHASE_TELL,   /* for subscribers that are told, mirrors that follow, windows to be released */
    PHASE_SETTLE, /* for requests with what these had cached */
    PHASE_DONE,
};

/* An invalidation under way: `phase` says what it waits for. */
struct vtd_operation {
    struct wait wait;
    uint64_t low; /* the descriptor */
    uint64_t high;
    enum vtd_phase phase;
    unsigned delay; /* in PHASE_LATE: how often it is still put off */
    bool again;   /* the IOTLB range has to be dropped once more after the drain */
    bool aborted; /* a wait descriptor that will not complete */
};

struct vtd_queue {
    struct vtd_operation operations[VTD_OPERATIONS]; /* a ring */
    uint32_t first;
    uint32_t count;
    uint32_t fetch; /* index in the guest's queue */
    uint32_t again; /* after a restore: so many to be fetched were under way when it was saved */
    bool timed_out; /* a device did not answer: reported when everything under way has retired */
    uint16_t timed_out_source;
    uint64_t started;
    uint64_t retired;
};

/* A command or a register invalidation under way; one of each kind. */
struct vtd_command {
    struct vtd_operation operation;
    bool active;
    uint64_t after; /* complete only when so many queue operations have retired */
};

/* What the mirrors of a unit's devices leave of its configuration. */
struct vtd_limits {
    uint8_t address_width; /* 0: any */
    bool no_2m;
    bool no_1g;
};

#define VTD_KEPT_BUCKETS 256

struct vtd {
    struct viommu iommu;
    struct viommu_vtd_config config; /* with the defaults filled in */
    struct vtd_limits limits;        /* of what mirrors can map */
    struct pagetable_format format;
    uint64_t cap;
    uint64_t ecap;
    struct vtd_state state;
    struct vtd_queue queue;
    struct vtd_command command; /* GCMD */
    uint32_t command_bit;       /* which of its bits is under way */
    bool set_root_again;        /* SRTP was written once more meanwhile */
    struct vtd_command context_command;
    struct vtd_command iotlb_command;
    struct vtd_kept_context *kept_contexts[VTD_KEPT_BUCKETS]; /* by source id, lists */
};

/* What is known of a requester. */
struct vtd_context {
    struct context base; /* first: requester.c frees it */
    bool translating;    /* GSTS.TES; when clear nothing below counts */
    bool fault_disable;  /* FPD */
    enum vtd_translation_type type;
    uint8_t levels;
    uint16_t domain;
    uint64_t root;
    uint64_t last; /* the last address that can be translated */
    uint64_t ticket; /* of what was kept before it was asked for (iotlb/kept.h) */
};

static inline struct vtd *vtd_of(struct viommu *iommu)
{
    return (struct vtd *)((char *)iommu - offsetof(struct vtd, iommu));
}

/* The last guest-physical address that the configured width allows. */
static inline uint64_t vtd_host_last(const struct vtd *vtd)
{
    return (1ULL << vtd->config.host_address_width) - 1;
}

/* registers.c */
void vtd_registers_reset(struct vtd *vtd);
/* Whether registers, from GCMD on, have only bits set that can be. */
bool vtd_registers_valid(const struct vtd *vtd, const uint64_t *reg);
uint64_t vtd_mmio_read(struct viommu *iommu, uint64_t offset, unsigned size);
void vtd_mmio_write(struct viommu *iommu, uint64_t offset, unsigned size, uint64_t value);

/* command.c: what a write set off, and its progress. Each step returns whether something moved. */
void vtd_command_written(struct vtd *vtd, uint32_t value, uint32_t covered);
void vtd_commands_reset(struct vtd *vtd);
/* Takes up the bit of GCMD that was under way when the state was saved; 0: none was. */
void vtd_commands_resume(struct vtd *vtd, uint32_t bit, bool set_root_again);
bool vtd_commands_step(struct vtd *vtd);
bool vtd_commands_draining(const struct vtd *vtd);
bool vtd_commands_late(const struct vtd *vtd);

/* queue.c */
void vtd_queue_reset(struct vtd *vtd);
/* The state is there: goes on from IQH. So many descriptors from there were under way. */
void vtd_queue_resume(struct vtd *vtd, uint32_t again);
bool vtd_queue_step(struct vtd *vtd, unsigned *budget);
bool vtd_queue_draining(const struct vtd *vtd);
/* Whether a descriptor could be fetched now. */
bool vtd_queue_ready(const struct vtd *vtd);
/* Whether some operation is late, and could begin. */
bool vtd_queue_late(const struct vtd *vtd);

/*
 * invalidate.c: starts an invalidation given as a descriptor, and asks how far it is. advance
 * returns whether the phase moved; when it is PHASE_DONE the operation is complete.
 */
void vtd_operation_start(struct vtd *vtd, struct vtd_operation *operation);
/* The same for one of the queue: with a hostile cache it begins late, in the queue's order. */
void vtd_operation_queue(struct vtd *vtd, struct vtd_operation *operation, bool behind_late);
/* One that is late may begin; `behind_late`: another one is before it. Returns whether it did. */
bool vtd_operation_begin(struct vtd *vtd, struct vtd_operation *operation, bool behind_late);
/* Starts one in which nothing that was cached counts any more. */
void vtd_operation_start_over(struct vtd *vtd, struct vtd_operation *operation);
bool vtd_operation_advance(struct vtd *vtd, struct vtd_operation *operation);
/* Whether it waits for requests under way. */
bool vtd_operation_draining(const struct vtd *vtd, const struct vtd_operation *operation);

/*
 * context.c: what the guest's tables say of a requester. *context points to what is remembered, or
 * to *own, and is good until the section ends; it is set even when the answer is a fault (FPD
 * counts).
 */
enum vtd_reason vtd_context_get(struct vtd *vtd, struct requester *requester,
                                struct vtd_context *own, const struct vtd_context **context);
/* Reads what the tables say now. Under the lock, in a section. */
enum vtd_reason vtd_context_fetch(struct vtd *vtd, uint16_t id, struct vtd_context *context);
/* Forgets contexts of a domain. */
void vtd_contexts_forget_domain(struct vtd *vtd, uint16_t domain);
/* What a requester's mirrors have to follow. */
void vtd_view(struct viommu *iommu, uint16_t id, struct shadow_view *out);

/* translate.c: the model's data side */
int vtd_translate(struct viommu *iommu, const struct dma_request *request,
                  struct viommu_translation *out);
int vtd_ats(struct viommu *iommu, const struct dma_request *request, struct viommu_ats_entry *out);
void vtd_refuse_interrupt(struct viommu *iommu, const struct dma_request *request);

/*
 * kept.c: as vtd_context_get, and what a walk would find, where the cache is faithful or hostile.
 * Drops are under the lock.
 */
enum vtd_reason vtd_kept_context_get(struct vtd *vtd, uint16_t id, struct vtd_context *context);
/* `compared`: bits of the source id that count, for VTD_SELECTIVE. */
void vtd_kept_contexts_drop(struct vtd *vtd, enum vtd_granularity granularity, uint16_t domain,
                            uint16_t source, uint16_t compared);
void vtd_kept_reset(struct vtd *vtd);
bool vtd_kept_page_find(struct vtd *vtd, const struct dma_request *request,
                        const struct vtd_context *context, struct pagetable_walk *walk,
                        enum vtd_reason *reason);
void vtd_kept_page_add(struct vtd *vtd, const struct dma_request *request,
                       const struct vtd_context *context, const struct pagetable_walk *walk,
                       enum vtd_reason reason);

/* fault.c */
bool vtd_take_message(struct viommu *iommu, struct viommu_interrupt *out);
void vtd_fault_record(struct vtd *vtd, const struct dma_request *request, enum vtd_reason reason);
/* Sets bits of FSTS and raises the fault event as its rules say. */
void vtd_fault_event(struct vtd *vtd, uint32_t bits);
/* FSTS, a record's F bit, or ICS changed: what follows from it. */
void vtd_fault_status_changed(struct vtd *vtd);
void vtd_completion_status_changed(struct vtd *vtd);
/* A wait descriptor with the interrupt flag completed. */
void vtd_completion_event(struct vtd *vtd);
/* FECTL or IECTL was written: a message that was pending may go out. */
void vtd_event_control_written(struct vtd *vtd, enum vtd_event event);

/* save.c */
#define VTD_SAVE_VERSION 1u
void vtd_save(struct viommu *iommu, struct save_writer *writer);
int vtd_decode(struct viommu *iommu, struct save_section *section, void **state);
void vtd_restore(struct viommu *iommu, const void *state);

#endif
