/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtio-iommu: its state, what is under way, and what its files offer one another.
 *
 *   unit.c       life, configuration and its space, features, work
 *   request.c    requests: decoded, checked, carried out, answered
 *   domain.c     domains, endpoints and mappings
 *   mirror.c     what mirrors are asked, and hold; requests that wait for their turn
 *   operation.c  what takes something away, and when that is complete
 *   translate.c  what devices ask for
 *   reserved.c   addresses that endpoints may not use
 *   fault.c      faults that wait for a buffer of the driver's
 *   save.c       all that, saved and restored
 *
 * Vocabulary. A *domain* is a set of mappings, or a bypass; it exists while an endpoint is attached
 * to it. An *endpoint* is a requester id. The *number* of a domain stands for it where 16 bits have
 * to do (the translation cache, pinned windows): domains may share one, and then are invalidated
 * together. An *operation* is a request, a reset, a change of `bypass` or an endpoint's going that
 * takes something away, or that waits for others or for mirrors; they complete in order.
 *
 * Invariants:
 * - Each endpoint that is attached is the id of a requester. Each domain has an endpoint.
 * - `domains` and `endpoints` are indices: a run of one address for each id, whose target is the
 *   struct virtio_domain. `mappings` is the sum of all maps' counts.
 * - A domain's `closed` is what is closed to its endpoints, and no mapping of it meets that.
 * - A request that fails has changed nothing.
 * - While mirrors try a change (lib/shadow/trial.h), requests wait for their turn, undone: there is
 *   one such change, and the run that it brings, or those that it takes, are in the map. Of these
 *   `mappings` counts the one that comes and not those that go (`leaving`).
 * - A page is cached only under the lock: none is cached late, after it was dropped.
 * - A requester's context says what `endpoints` and `bypass` say, or is not there.
 *
 * - Mappings that a section may look into are memory until it ends: domains are freed, and the
 *   nodes of their maps given back, only after a drain. No context names a domain that is handed to
 *   the epoch: it is forgotten before.
 *
 * Locking: the IOMMU's lock, for all changes. A translation that is not cached looks into the
 * mappings without it (range_map_peek), and takes it when that tells nothing: the address is not
 * mapped, or just now, or mirrors have a say.
 */
#ifndef VIOMMU_VIRTIO_UNIT_H
#define VIOMMU_VIRTIO_UNIT_H

#include "iommu/iommu.h"
#include "iova/cover.h"
#include "range/range_map.h"
#include "virtio/spec.h"

#include <viommu/virtio.h>

struct virtio_domain {
    struct mappings mappings; /* first: whoever is the last to use them frees the domain */
    uint32_t id;
    bool bypass;
    uint32_t endpoints; /* attached; 0: the domain is gone, though mirrors may use its mappings */
    uint64_t serial;    /* of all that were ever made, from 1 */
    struct range_map closed; /* to its endpoints: a cover */
    size_t leaving;     /* mappings that are being taken away */
    uint64_t drain; /* the last that began after mappings went: then what is kept of them goes */
};

/* Operations that may be under way at once; past it requests are turned away. */
#define VIRTIO_OPERATIONS 256u
/* A request is put off less often than that, with a hostile cache. */
#define VIRTIO_DELAYS 6u

enum virtio_phase {
    PHASE_DONE,   /* or not begun */
    PHASE_QUEUED, /* for its turn: nothing was done */
    PHASE_TRY,    /* for mirrors, which may refuse */
    PHASE_DRAIN,  /* for requests that began before it */
    PHASE_TELL,   /* for subscribers that are told, and windows to be released */
    PHASE_SETTLE, /* for requests with what these had cached */
    PHASE_FOLLOW, /* for mirrors, which follow meanwhile */
};

struct virtio_operation {
    struct virtio_operation *next;
    struct wait wait;
    enum virtio_phase phase;
    uint32_t domain;      /* that lost mappings: its id */
    uint64_t serial;      /* and which of that id it is; 0: none did */
    uint64_t drain;       /* its first one */
    bool tried;           /* nobody looks into the mappings without the lock after that drain */
    bool tells; /* somebody waits for its token */
    uint64_t token;
    uint64_t number; /* for those who watch, and: */
    uint8_t written; /* of its answer, by whoever is told */
    uint8_t status;
    uint8_t in[VIRTIO_MAP_SIZE]; /* QUEUED: the request, */
    size_t in_size;              /* as long as it was */
    unsigned late;               /* with a hostile cache: how often it is still put off */
};

/* What mirrors are trying. */
struct virtio_trial {
    struct virtio_operation *operation; /* NULL: nobody waits for it any more */
    enum virtio_request_type type;      /* MAP, UNMAP, ATTACH */
    struct virtio_domain *domain;       /* MAP, UNMAP: it may be gone */
    uint32_t id;                        /* ATTACH: of the domain, */
    uint16_t endpoint;
    bool bypass;
};

/*
 * What no request asked for: `bypass` changed, an attached endpoint has gone with its device or its
 * id, or addresses were closed to one in bypass mode. One operation at a time, begun again when
 * more came meanwhile.
 */
struct virtio_unasked {
    struct virtio_operation operation;
    bool active;
    bool again;
    bool bypass; /* what it is begun for next: this, */
    bool gone;   /* that, */
    bool closed; /* and addresses that are closed to endpoints in bypass mode */
};

/* A fault, as it is reported. */
struct virtio_fault {
    uint8_t reason;
    uint32_t flags;
    uint32_t endpoint;
    uint64_t address;
};

struct virtio_faults {
    struct virtio_fault *ring; /* config.faults_max */
    uint32_t first;
    uint32_t count;
    bool told; /* that some wait */
};

struct virtio {
    struct viommu iommu;
    struct viommu_virtio_config config; /* with the defaults filled in */
    uint64_t granule;                   /* bytes - 1 */
    uint64_t accepted;                  /* features */
    bool bypass;                        /* the field of the configuration space */

    struct range_map domains;   /* by id */
    struct range_map endpoints; /* by id */
    struct virtio_domain *recent; /* that a request named last, while it exists; or NULL */
    uint64_t mappings;
    uint64_t serial; /* of the last domain */
    struct virtio_faults faults;

    struct virtio_operation *first; /* in order, complete or not */
    struct virtio_operation **end;
    unsigned count;
    /* One that needs no memory: nearly all are complete before the next one begins. */
    struct virtio_operation ready;
    bool ready_used;
    bool telling; /* `completed` is called just now, of one that is not in the order any more, */
    pthread_t teller; /* by this thread */
    struct virtio_unasked unasked;
    struct virtio_trial trial;

    uint64_t taken; /* requests and resets, answered or not: the last one's number */
    uint64_t requests;
    uint64_t refused;
};

/* What is known of a requester. */
struct virtio_context {
    struct context base; /* first: requester.c frees it */
    bool bypass;         /* its addresses are guest-physical; without: by the tag */
    int32_t number;      /* of its domain, or WINDOW_DOMAIN_NONE */
    /* Where it does not bypass; to be used by a section that found this, or under the lock. */
    const struct virtio_domain *domain;
};

static inline struct virtio *virtio_of(struct viommu *iommu)
{
    return (struct virtio *)((char *)iommu - offsetof(struct virtio, iommu));
}

static inline uint16_t virtio_number(const struct virtio_domain *domain)
{
    return (uint16_t)domain->serial;
}

/* Whether endpoints that are not attached reach all memory. */
static inline bool virtio_bypasses(const struct virtio *virtio)
{
    return virtio->config.features & VIOMMU_VIRTIO_BYPASS_CONFIG
               ? virtio->bypass
               : (virtio->accepted & VIOMMU_VIRTIO_BYPASS) != 0;
}

/* Whether an endpoint of this domain, or of none, does. */
static inline bool virtio_reaches_all(const struct virtio *virtio,
                                      const struct virtio_domain *domain)
{
    return domain ? domain->bypass : virtio_bypasses(virtio);
}

static inline bool virtio_in_interrupt_range(uint64_t address)
{
    return address >= VIRTIO_INTERRUPT_FIRST && address <= VIRTIO_INTERRUPT_LAST;
}

/* unit.c: the instance, or NULL for one of another model. */
struct virtio *virtio_checked(struct viommu *iommu);

/* domain.c: each says what a request is answered. */
struct virtio_domain *virtio_domain_find(struct virtio *virtio, uint32_t id);
struct virtio_domain *virtio_endpoint_domain(const struct virtio *virtio, uint32_t endpoint);
/* `operation` (or NULL, when nothing can be under way) begins what the request takes away. */
uint8_t virtio_attach(struct virtio *virtio, uint32_t id, struct requester *requester, bool bypass,
                      struct virtio_operation **operation);
uint8_t virtio_detach(struct virtio *virtio, struct virtio_domain *domain,
                      struct requester *requester, struct virtio_operation **operation);
uint8_t virtio_map(struct virtio *virtio, struct virtio_domain *domain,
                   const struct range_run *run, struct virtio_operation **operation);
/* Whether it may be attached: OK, or why not. */
uint8_t virtio_may_attach(struct virtio *virtio, uint32_t id,
                          const struct requester *requester, bool bypass);
uint8_t virtio_unmap(struct virtio *virtio, struct virtio_domain *domain, uint64_t first,
                     uint64_t last, struct virtio_operation **operation);
/* Nothing is attached any more, and no domain is left. */
void virtio_domains_drop(struct virtio *virtio);
/* A requester has gone. */
void virtio_requester_gone(struct viommu *iommu, struct requester *requester);
/*
 * For save.c, which builds domains aside: adds one to an index, or an endpoint of one. Returns 0,
 * -EEXIST or -ENOMEM.
 */
int virtio_index_add(struct range_map *index, uint32_t id, struct virtio_domain *domain);
struct virtio_domain *virtio_index_find(const struct range_map *index, uint32_t id);
/* The next one of an index, from *id on, or NULL; *id becomes its id. */
struct virtio_domain *virtio_index_next(const struct range_map *index, uint32_t *id);
/* Frees an index of domains, with these. */
void virtio_domains_free(struct range_map *domains);

/* domain.c: the request's operation, or a new one. False: there is no memory. */
bool virtio_operation_need(struct virtio *virtio, struct virtio_operation **operation);

/* request.c: carries out what waited for its turn, until something is tried, or is late. */
void virtio_requests_run(struct virtio *virtio);
/* The first request that waits for its turn, or NULL. */
struct virtio_operation *virtio_request_queued(const struct virtio *virtio);
/* With a hostile cache requests begin late. Returns whether one still is. */
bool virtio_requests_late(struct virtio *virtio);

/* mirror.c */
void virtio_view(struct viommu *iommu, uint16_t requester, struct shadow_view *out);
int virtio_narrow(struct viommu *iommu, uint64_t last, uint64_t page_sizes);
void virtio_tried(struct viommu *iommu, int error);
/* Whether mirrors of the domain's endpoints may map all of a mapping. */
bool virtio_mirrors_allow(const struct virtio *virtio, const struct virtio_domain *domain,
                          const struct range_run *run);
/*
 * Has mirrors try a mapping that is in the map, or that mappings of a domain go. `operation` waits
 * for it.
 */
void virtio_try_map(struct virtio *virtio, struct virtio_domain *domain,
                    const struct range_run *run, struct virtio_operation *operation);
void virtio_try_unmap(struct virtio *virtio, struct virtio_domain *domain, uint64_t first,
                      uint64_t last, struct virtio_operation *operation);
/*
 * ATTACH where mirrors may refuse: what they are to have is tried, and then virtio_attach follows.
 * Returns false when there is nothing to try; otherwise *status is what the request is answered, if
 * it is not pending then.
 */
bool virtio_try_attach(struct virtio *virtio, uint32_t id, const struct requester *requester,
                       bool bypass, struct virtio_operation **operation, uint8_t *status);
/* Nobody waits for what is tried, and it is not to come about; what waits for its turn ends. */
void virtio_trial_cancel(struct virtio *virtio);

/* request.c: whether the addresses of a mapping are such that it may be made: OK, or why not. */
uint8_t virtio_addresses_check(const struct virtio *virtio, const struct range_run *run);

/* reserved.c: what is closed to an endpoint that comes to a domain, or leaves it. Returns 0 or
   -ENOMEM. */
int virtio_domain_close(struct virtio_domain *domain, const struct closed *closed);
void virtio_domain_open(struct virtio_domain *domain, const struct closed *closed);
/* Whether no mapping of the domain is there. */
bool virtio_domain_fits(const struct virtio_domain *domain, const struct closed *closed);
/* Whether a range meets what an endpoint of the domain may not use. */
bool virtio_is_reserved(const struct virtio_domain *domain, uint64_t first, uint64_t last);
/* Writes the properties of an endpoint; there is room for them. */
void virtio_put_properties(const struct virtio *virtio, const struct requester *requester,
                           uint8_t *at);
/* Of struct model. */
int virtio_closing(struct viommu *iommu, struct requester *requester, const struct closed *closed,
                   struct viommu_iova_side *holder);
void virtio_closed(struct viommu *iommu, struct requester *requester, const struct closed *closed);
bool virtio_maps(struct viommu *iommu, const struct requester *requester, uint64_t first,
                 uint64_t size, uint64_t *behind);

/*
 * operation.c: one that was not begun. NULL without memory, which it needs only while another one
 * is under way.
 */
struct virtio_operation *virtio_operation_new(struct virtio *virtio);
void virtio_operation_free(struct virtio *virtio, struct virtio_operation *operation);
/*
 * Takes [first, last] of a domain away, without one, where that is complete at once, as nearly
 * always: nothing is under way, no subscriber is there, no window, and no section is open. Where it
 * is not nothing was done that virtio_operation_pages would not do again.
 */
bool virtio_pages_at_once(struct virtio *virtio, struct virtio_domain *domain, uint64_t first,
                          uint64_t last);
/* It takes [first, last] of a domain away. */
void virtio_operation_pages(struct virtio *virtio, struct virtio_operation *operation,
                            struct virtio_domain *domain, uint64_t first, uint64_t last);
/* What a requester reached is not what it reaches now. */
void virtio_operation_endpoint(struct virtio *virtio, struct virtio_operation *operation,
                               struct requester *requester);
/* The same for all that are not attached, because `bypass` changed; for windows of one that is
   gone; for those in bypass mode, to one of which more is closed; for all of them. */
void virtio_bypass_changed(struct virtio *virtio);
void virtio_endpoint_gone(struct virtio *virtio);
void virtio_bypass_closed(struct virtio *virtio);
void virtio_operation_everyone(struct virtio *virtio, struct virtio_operation *operation);
/* Moves one that was begun on as far as it can. Whether it is complete. */
bool virtio_operation_complete(struct virtio *virtio, struct virtio_operation *operation);
/* Puts one that was begun, or has nothing to wait for (phase DONE), into the order. */
void virtio_operation_append(struct virtio *virtio, struct virtio_operation *operation);
/* Takes the oldest one out of the order when it is complete, or NULL. */
struct virtio_operation *virtio_operation_take(struct virtio *virtio);
/* Moves all on, as far as they can. */
void virtio_operations_advance(struct virtio *virtio);
bool virtio_operations_draining(const struct virtio *virtio);
/* They end unheard. */
void virtio_operations_forget(struct virtio *virtio);

/* translate.c */
int virtio_translate(struct viommu *iommu, const struct dma_request *request,
                     struct viommu_translation *out);
void virtio_refuse_interrupt(struct viommu *iommu, const struct dma_request *request);

/* fault.c. Under the lock. */
void virtio_fault_record(struct virtio *virtio, const struct dma_request *request,
                         enum virtio_fault_reason reason);
void virtio_faults_clear(struct virtio *virtio);

/* save.c */
#define VIRTIO_SAVE_VERSION 1u
void virtio_save(struct viommu *iommu, struct save_writer *writer);
int virtio_decode(struct viommu *iommu, struct save_section *section, void **state);
void virtio_restore(struct viommu *iommu, const void *state);
void virtio_discard(void *state);

#endif
