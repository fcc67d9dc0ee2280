/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: what the engine keeps, and the rules of its lock.
 *
 *     engine -> VMs (sorted by id) -> contexts -> slots (table.h)
 *                   |                    `-> queue of slots that await their flush
 *                   |-> index: the slots that map its frames (index.h), and aliases
 *                   `-> devices, with their reserved ranges
 *
 * Life of a slot: FREE, CLAIMED (in the index; references taken), LIVE, LEAVING, PENDING (in the
 * queue; not where one call unmaps and flushes one page), FREE or REVOKED. Between two states the
 * engine's lock is given up and an operation of the embedder runs; CLAIMED and LEAVING say whose
 * turn it is: only the call that made them so changes such a slot. Of a slot that is CLAIMED, LIVE,
 * LEAVING or PENDING the page reference is held, of a writable one the type reference, too (one of
 * MMIO: none). References are dropped in pv_flush(), after a flush of the real IOMMU that began
 * when the slot was PENDING; or in single.c, by a call that made its slot LEAVING, unmapped it, and
 * flushed it itself.
 *
 * Locking. One mutex an engine, held for a step of one slot, or a few dozen, and never while an
 * operation of the embedder runs. What must outlive such a gap is counted: `users` of a VM and of a
 * context. A VM or context that is about to go says so (dying, closing), is not found by new calls,
 * and is freed when nobody uses it. So whatever happens inside an operation of the embedder happens
 * between two steps.
 */
#ifndef VIOMMU_PV_ENGINE_H
#define VIOMMU_PV_ENGINE_H

#include "pv/index.h"

#include <errno.h>
#include <pthread.h>

#include <viommu/pv.h>

#include "range/range_set.h"

/*
 * Frames of a VM whose pages a call is about to refer to, or is dropping references of: they are
 * nobody's only when that is over. Others are not concerned: else a VM that maps and unmaps without
 * end, or asks to without the privilege, would keep another one's pages from ever being free.
 */
struct pv_hold {
    struct pv_hold *next;
    struct pv_hold **at;
    uint64_t first;
    uint64_t last;
};

/* A slot's references, to be dropped outside the lock. It stays where it is meanwhile. */
struct pv_put {
    struct pv_hold hold; /* of the VM that was named; or none, where one before it covers it */
    struct pv_vm *vm;    /* that was named */
    struct pv_vm *owner; /* that the page belongs to, when it is another; or NULL. Used until it is
                            done */
    uint64_t handle;
    uint8_t order;
    uint8_t perm;
    uint8_t flags;
    bool holds; /* `vm` is used until it is done; false: another sees to that */
};

/* A reserved range that devices of a context need. */
struct pv_identity {
    struct viommu_pv_range range;
    unsigned users; /* devices */
};

struct pv_context {
    struct pv_vm *vm;
    void *space;
    uint32_t id;
    uint64_t serial;
    unsigned users;     /* calls that are in it */
    unsigned devices;   /* attached, or about to be */
    bool closing;       /* being freed */
    bool isolated;      /* a flush failed, and no whole one was called for that succeeded since */
    unsigned isolating; /* calls that are about to cut its devices off */
    uint64_t failures;  /* how many flushes failed */
    struct pv_tree tree;
    /* The queue: places head to tail of a ring; NULL where a slot has been flushed already. */
    struct pv_slot **queue;
    uint64_t head;
    uint64_t tail;
    uint64_t leaving; /* slots on their way into it */
    uint64_t frames;  /* of the slots in it and on their way */
    uint64_t pending; /* slots in it */
    uint64_t revoked; /* slots that are REVOKED */
    uint64_t hint;    /* map_foreign: where to look for a gap */
    /* What is mapped one to one; changed by whoever moves devices of the VM. */
    struct pv_identity *identities;
    size_t identity_count;
};

/* A device: one function, or several that are in one context, always. */
struct pv_device {
    struct pv_device *next;
    struct pv_context *context;
    bool nowhere; /* a move could be neither ended nor undone: it is in no space */
    uint32_t *functions;
    size_t function_count;
    struct viommu_pv_range *ranges; /* of all functions, sorted, none meets another */
    size_t range_count;
};

enum pv_enabling {
    PV_NOT_ENABLED = 0,
    PV_ENABLING,
    PV_ENABLED,
};

/* A page that is taken away by force: where the last call came to. */
struct pv_revoking {
    struct pv_walk walk;
    bool there; /* the walk has begun */
    bool busy;  /* a call is at it */
    bool retry; /* contexts that are isolated, too */
};

enum {
    PV_REVOKING = 4, /* pages of a VM that are taken away at the same time without beginning anew */
};

struct pv_vm {
    uint32_t id;
    uint64_t serial;
    unsigned users;        /* calls that are about it, as mapper or owner */
    struct pv_hold *holds; /* references of its pages are being taken or dropped: no slot's */
    bool dying;
    bool coming;   /* it is not whole yet: no call of the hypervisor's finds it */
    bool empty;    /* it began so */
    bool moving;   /* a device is being moved */
    bool dropping; /* a call drops the default mappings */
    bool removing; /* a call takes the VM apart */
    enum pv_enabling enabling;
    uint64_t cursor;              /* of drop_default */
    struct pv_context **contexts; /* by id; NULL where there is none */
    uint64_t context_count;
    uint64_t mappings; /* slots in all contexts */
    uint64_t tables;
    struct pv_device *devices;
    uint64_t generation;              /* of the devices' ranges */
    struct viommu_pv_range *reserved; /* of all devices, sorted, each once; none meets another */
    size_t reserved_count;
    struct pv_index index;
    struct pv_alias *aliases; /* of its pages that others have as theirs */
    uint64_t alias_count;
    struct range_set leaving; /* frames that are about to be removed */
    struct pv_revoking revoking[PV_REVOKING];
    /* While it dies, where the call that takes it apart has come to. */
    struct pv_walk walk; /* in the index, where that has begun */
    bool walking;
    bool retrying;          /* contexts that are isolated, too */
    struct pv_alias *alias; /* the next one, or NULL */
};

enum {
    PV_NEAR = 16,
};

struct viommu_pv {
    pthread_mutex_t lock;
    struct viommu_pv_config config;
    const struct viommu_pv_ops *ops;
    void *opaque;
    uint64_t seed;
    uint64_t ring;      /* places of a context's queue, a power of two, less one */
    uint64_t serial;    /* the last one given */
    struct pv_vm **vms; /* sorted by id */
    size_t vm_count;
    struct pv_vm *near[PV_NEAR]; /* those that were found last, by the end of their ids; or NULL */
};

/* Where a search through the caller's slots has come to. */
struct pv_search {
    uint64_t count;        /* of those that were found */
    uint64_t device_frame; /* the next one, in that context */
    uint64_t serial;       /* the context's; 0: not begun */
    uint32_t context;
    unsigned seen;
};

/* A call that runs, or is to go on. */
struct viommu_pv_call {
    uint16_t operation;
    uint32_t caller;
    uint64_t caller_serial;  /* the VM as it was; another has another */
    uint64_t named_serial;   /* 0: not looked at yet */
    uint64_t context_serial; /* likewise */
    bool may_yield;
    uint64_t done;
    uint64_t stopped;
    uint64_t place; /* map_foreign: items that were looked at; reserved: ranges that were copied;
                       find: 1 when `search` goes on */
    struct pv_search search;
    union {
        struct viommu_pv_reserved_call reserved;
        struct viommu_pv_alloc_call alloc;
        struct viommu_pv_free_call free;
        struct viommu_pv_attach_call attach;
        struct viommu_pv_map_call map;
        struct viommu_pv_flush_call flush;
        struct viommu_pv_lookup_call lookup;
        struct viommu_pv_find_call find;
        struct viommu_pv_foreign_call foreign;
        struct viommu_pv_acknowledge_call acknowledge;
    } in;
    /* What follows a structure, of the call or of the answer. */
    uint64_t *frames;
    struct viommu_pv_item *items;
    struct viommu_pv_range *ranges;
    struct viommu_pv_place *places;
    union {
        struct viommu_pv_answer answer;
        struct viommu_pv_caps caps;
        struct viommu_pv_reserved reserved;
        struct viommu_pv_alloc alloc;
        struct viommu_pv_lookup lookup;
        struct viommu_pv_find find;
        struct viommu_pv_acknowledged acknowledged;
    } out;
};

/* While a call runs: the VM, the context and the VM that was named, all counted as used. */
struct pv_run {
    struct viommu_pv *pv;
    bool enabled; /* the VM has enabled the interface */
    struct viommu_pv_call *call;
    struct pv_vm *vm;
    struct pv_context *context; /* or NULL */
    struct pv_vm *named;        /* or NULL */
    int entered;                /* what entering the context and so on came to */
    unsigned some;              /* map: so many pages may be mapped together now */
    bool held;                  /* map: they are held */
    struct pv_hold hold;
};

/* ---- engine.c ---- */

#ifdef VIOMMU_TESTING
/* The most steps that this thread made while it held a lock. */
extern _Thread_local struct pv_held {
    unsigned long before;
    unsigned long most;
} pv_held;

/* Told before and after what a guest wrote is copied, of which nothing is read otherwise; or NULL.
 */
extern _Thread_local void (*pv_reading)(const void *from, size_t size, bool begins);
#endif

static inline void pv_lock(struct viommu_pv *pv)
{
    pthread_mutex_lock(&pv->lock);
#ifdef VIOMMU_TESTING
    pv_held.before = pv_steps;
#endif
}

static inline void pv_unlock(struct viommu_pv *pv)
{
#ifdef VIOMMU_TESTING
    if (pv_steps - pv_held.before > pv_held.most) {
        pv_held.most = pv_steps - pv_held.before;
    }
#endif
    pthread_mutex_unlock(&pv->lock);
}

/* Others have their turn. With the lock. */
static inline void pv_give_way(struct viommu_pv *pv)
{
    pv_unlock(pv);
    pv_lock(pv);
}

struct pv_vm *pv_vm_search(struct viommu_pv *pv, uint32_t id);

/* Under the lock. A VM that is dying is found, too. */
static inline struct pv_vm *pv_vm_find(struct viommu_pv *pv, uint32_t id)
{
    struct pv_vm *near = pv->near[id % PV_NEAR];

    return near && near->id == id ? near : pv_vm_search(pv, id);
}

/* The VM is in use until it is let go. With the lock. */
static inline void pv_hold(struct pv_vm *vm, struct pv_hold *hold, uint64_t first, uint64_t last)
{
    hold->next = vm->holds;
    hold->at = &vm->holds;
    hold->first = first;
    hold->last = last;
    if (hold->next) {
        hold->next->at = &hold->next;
    }
    vm->holds = hold;
}

static inline void pv_let_go(const struct pv_hold *hold)
{
    *hold->at = hold->next;
    if (hold->next) {
        hold->next->at = hold->at;
    }
}

/* A VM that has nothing and that nobody uses is found no more, and can be freed. With the lock. */
void pv_vm_take_out(struct viommu_pv *pv, struct pv_vm *vm);
void pv_vm_free(struct pv_vm *vm);
/* Whether a frame of the VM's, or any in [first, last], is about to be removed. */
static inline bool pv_vm_leaving(const struct pv_vm *vm, uint64_t first, uint64_t last)
{
    return vm->leaving.map.root && range_set_meets(&vm->leaving, first, last);
}

/* The first such frame in [*frame, last], which *frame becomes. */
static inline bool pv_vm_leaving_next(const struct pv_vm *vm, uint64_t *frame, uint64_t last)
{
    struct range_run run;

    if (!vm->leaving.map.root || !range_map_from(&vm->leaving.map, *frame, &run) ||
        run.first > last) {
        return false;
    }
    *frame = run.first > *frame ? run.first : *frame;
    return true;
}

/* ---- context.c: contexts and devices ---- */

/* Makes a context with this id, or (UINT32_MAX) the lowest that is free. */
int pv_context_create(struct viommu_pv *pv, struct pv_vm *vm, uint32_t *id);
/* Nobody uses it, no slot is in use, no device attached. Takes the lock for itself. */
void pv_context_free(struct viommu_pv *pv, struct pv_context *context);
/*
 * Takes every slot of a context away, and flushes. With the lock; gives it up meanwhile. Returns 0;
 * VIOMMU_PENDING: it should yield, or another call has slots of it; -EIO.
 */
int pv_context_clear(struct viommu_pv *pv, struct pv_context *context, bool may_yield);
/* Takes all devices of a VM away, whatever they were at. VIOMMU_PENDING: one is being moved. */
int pv_devices_remove(struct viommu_pv *pv, struct pv_vm *vm);
/* Whether device frames meet what is reserved; *met (or NULL) becomes the first range that they
   meet. With the lock. */
bool pv_reserved_search(const struct pv_vm *vm, uint64_t first, uint64_t last,
                        struct viommu_pv_range *met);

static inline bool pv_reserved_meets(const struct pv_vm *vm, uint64_t first, uint64_t last,
                                     struct viommu_pv_range *met)
{
    return vm->reserved_count && pv_reserved_search(vm, first, last, met);
}

int pv_run_reserved(struct pv_run *run);
int pv_run_enable(struct pv_run *run);
int pv_run_alloc(struct pv_run *run);
int pv_run_free(struct pv_run *run);
int pv_run_attach(struct pv_run *run);

/* ---- flush.c: from unmapped to free ---- */

/*
 * Flushes what is PENDING in [first, last] now, and drops its references. With the lock; gives it
 * up meanwhile. Returns 0 or -EIO.
 */
int pv_flush(struct viommu_pv *pv, struct pv_context *context, uint64_t first, uint64_t last);
/*
 * A flush failed, or an unmapping: devices may reach what they should not, and are cut off. From
 * the first moment no call changes the context. With the lock; gives it up meanwhile. Returns -EIO.
 */
int pv_isolate(struct viommu_pv *pv, struct pv_context *context);
/*
 * All of the context has been flushed since `failures` was what the context had: that ends its
 * isolation, unless another flush failed, or one that did is still cutting devices off. With the
 * lock.
 */
void pv_isolation_ends(struct pv_context *context, uint64_t failures);
/* Takes a slot into the index of the VM it names, and makes an alias for an owner (or NULL). */
int pv_slot_link(struct pv_slot *slot, struct pv_vm *named, struct pv_vm *owner);
/*
 * Takes it out; what there is to be dropped for it. `held` (or NULL) is a VM that is held until
 * that is done, and so need not be once more. With the lock.
 */
void pv_slot_unlink(struct viommu_pv *pv, struct pv_slot *slot, struct pv_vm *held,
                    struct pv_put *put);
/* A slot's context has it no more. With the lock. */
void pv_slot_remove(struct pv_slot *slot);
/* Slots side by side that were claimed are removed; so is the room that was made for them since the
   caller had so many `tables`, because it counts. */
void pv_slots_give_up(const struct pv_run *run, struct pv_slot *slots, unsigned count,
                      uint64_t tables);
/* With the lock again, when it has been dropped: the VMs that it names are held no more. */
void pv_put_end(const struct pv_put *put);
/* Drops what was taken for pages. With the lock; gives it up meanwhile. */
void pv_put_all(struct viommu_pv *pv, const struct pv_put *puts, unsigned count);

int pv_run_flush(struct pv_run *run);

/* ---- map.c ---- */

/* One page to be mapped. */
struct pv_item {
    uint64_t frame;
    uint64_t device_frame;
    unsigned order;
    uint32_t perm;
    uint32_t flags;
};

/* Maps it, whole, or nothing has changed. Without the lock. Returns 0 or the negative status. */
int pv_map_item(struct pv_run *run, const struct pv_item *item);

/*
 * The real IOMMU says that it may have mapped a slot that is CLAIMED, or will: what may be there is
 * taken away as any mapping is, and keeps its references until a flush has succeeded. With the
 * lock; gives it up meanwhile.
 */
void pv_map_unknown(struct viommu_pv *pv, struct pv_slot *slot);

/* What a call comes to for which the embedder's map has returned this. */
static inline int pv_map_error(int error)
{
    return error == 0 || error == -EIO || error == -EADDRNOTAVAIL ? error : -ENOSPC;
}

/* Whether the call should yield now. Without the lock. */
bool pv_should_yield(const struct pv_run *run);
/* The privilege of the caller over the pages of another VM. Without the lock. */
static inline bool pv_may_use(const struct pv_run *run, uint32_t vm, uint32_t perm)
{
    return vm == run->vm->id || run->pv->ops->may_use(run->pv->opaque, run->vm->id, vm, perm);
}

int pv_run_foreign(struct pv_run *run);

/* ---- range.c: the pages of a call, several together ---- */

/* Whether the numbers of a call that maps or unmaps are in range. */
int pv_check_numbers(const struct viommu_pv *pv, const struct viommu_pv_map_call *in);
/* What is checked before the first page is looked at. With the lock. */
int pv_enter_map(struct pv_run *run);
int pv_run_map(struct pv_run *run);

/* ---- single.c: a call of one page ---- */

/*
 * Carries out a call that maps or unmaps one page of order 0, with no flag but DEFER; of its
 * structure no more is there than caller, operation, may_yield, and what came in. Without the lock.
 * Returns true, and *error is 0 or the negative status, `done` and `stopped` are written; false
 * when something is special about it, and nothing has been done.
 */
bool pv_run_single(struct viommu_pv *pv, struct viommu_pv_call *call, int *error);

/* ---- unmap.c ---- */

/* Whether a page of so many frames may await its flush. With the lock. */
static inline bool pv_queue_has_room(const struct viommu_pv *pv, const struct pv_context *context,
                                     uint64_t frames)
{
    uint64_t max = pv->config.deferred_max;

    return context->tail - context->head + context->leaving < max &&
           (context->frames == 0 || context->frames + frames <= max);
}

/* Slots side by side that were LEAVING await their flush. With the lock. */
static inline void pv_queue_add(const struct viommu_pv *pv, struct pv_slot *slots, unsigned count)
{
    struct pv_context *context = slots->context;
    struct pv_slot **queue = context->queue;
    uint64_t tail = context->tail;

    for (unsigned i = 0; i < count; i++) {
        slots[i].state = PV_SLOT_PENDING;
        queue[(tail + i) & pv->ring] = &slots[i];
    }
    context->tail = tail + count;
    context->pending += count;
}

/*
 * Makes a LIVE slot PENDING: unmaps it in the real IOMMU. With the lock; gives it up meanwhile.
 * Flushes before where there is no room to wait, and afterwards where the page is larger than what
 * may. Returns 0; -EAGAIN when the slot is not LIVE any more, or a queue of others' making is in
 * the way; -EIO: it is as it was.
 */
int pv_unmap_slot(struct viommu_pv *pv, struct pv_slot *slot, uint8_t flags);
/* The same of a slot that the caller has made LEAVING; an error other than -EAGAIN is -EIO. */
int pv_unmap_leaving(struct viommu_pv *pv, struct pv_slot *slot, uint8_t flags);
/*
 * The same of slots of order 0 that are LIVE, side by side in one table, as many as the queue has
 * room for: *count becomes how many are PENDING; those after them are as they were. Asks whether to
 * yield between two, if that may be. Returns 0; -EAGAIN: there is no room; VIOMMU_PENDING; or -EIO.
 */
int pv_unmap_run(struct viommu_pv *pv, struct pv_slot *slots, unsigned *count, bool may_yield);

int pv_enter_unmap(struct pv_run *run);
int pv_run_unmap(struct pv_run *run);
/* One that yielded must not go on: what it has unmapped is flushed. Without the lock. */
void pv_unmap_stopped(struct pv_run *run);

/* ---- lookup.c ---- */

/* Slots of the caller that map a frame of the named VM. */
struct pv_wanted {
    uint64_t frame;
    bool live;                      /* or all that hold references */
    struct viommu_pv_place *places; /* the first `room` are written down */
    uint32_t room;
};

/*
 * How many there are (`search`). With the lock; gives it up meanwhile. Returns 0, or VIOMMU_PENDING
 * to yield: it goes on when it is called again.
 */
int pv_places(struct pv_run *run, const struct pv_wanted *wanted);
int pv_run_lookup(struct pv_run *run);
int pv_run_find(struct pv_run *run);

/* ---- remove.c: pages and VMs go ---- */

int pv_run_acknowledge(struct pv_run *run);

/* ---- call.c ---- */

/* A call is in its VM, context and named VM no more, and does not look at them again. With the
   lock. */
void pv_leave(struct pv_run *run);

/*
 * Takes the context and the VM that a call names, and counts them as used. Without the lock.
 * Returns 0 or the negative status; what was taken is given back when the call ends or yields.
 */
int pv_enter_context(struct pv_run *run, uint32_t id);
int pv_enter_named(struct pv_run *run, uint32_t id);
/* The same with the lock. */
int pv_enter_context_locked(struct pv_run *run, uint32_t id);
int pv_enter_named_locked(struct pv_run *run, uint32_t id);

#ifdef VIOMMU_TESTING
/* Checks all that is said above, with nobody at work; NULL, or what is wrong. */
const char *pv_check(struct viommu_pv *pv);
#endif

#endif
