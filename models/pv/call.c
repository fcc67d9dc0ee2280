/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: calls are read, carried out, and answered.
 *
 * The bytes of a call are copied once, then checked, then used; those of an answer are written
 * once, at the end. A call that yields is kept with all that it was told and has found; when it
 * goes on, the VMs and the context are looked for again, and are the same ones or the call is over.
 */
#include "pv/engine.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structures are used as they come");
_Static_assert(EPERM == VIOMMU_PV_EPERM && ENOENT == VIOMMU_PV_ENOENT && ESRCH == VIOMMU_PV_ESRCH &&
                   EIO == VIOMMU_PV_EIO && ENXIO == VIOMMU_PV_ENXIO && EBADF == VIOMMU_PV_EBADF &&
                   EAGAIN == VIOMMU_PV_EAGAIN && EACCES == VIOMMU_PV_EACCES &&
                   EBUSY == VIOMMU_PV_EBUSY && EEXIST == VIOMMU_PV_EEXIST &&
                   ENODEV == VIOMMU_PV_ENODEV && EINVAL == VIOMMU_PV_EINVAL &&
                   ENOSPC == VIOMMU_PV_ENOSPC && ERANGE == VIOMMU_PV_ERANGE &&
                   ENOTEMPTY == VIOMMU_PV_ENOTEMPTY && EOPNOTSUPP == VIOMMU_PV_EOPNOTSUPP &&
                   EADDRNOTAVAIL == VIOMMU_PV_EADDRNOTAVAIL && ESHUTDOWN == VIOMMU_PV_ESHUTDOWN &&
                   EALREADY == VIOMMU_PV_EALREADY && ESTALE == VIOMMU_PV_ESTALE,
               "statuses are this system's numbers");

_Static_assert(sizeof(struct viommu_pv_range) == sizeof(struct viommu_pv_frames) &&
                   offsetof(struct viommu_pv_range, last) ==
                       offsetof(struct viommu_pv_frames, last),
               "ranges are answered as they are kept");

enum {
    RANGES_MAX = 65536,
};

/* ---- what a call must look like: 0, -EINVAL or -ERANGE ---- */

static int check_head(const struct viommu_pv *pv, const struct viommu_pv_call *call)
{
    (void)pv;
    (void)call;
    return 0;
}

static int check_reserved(const struct viommu_pv *pv, const struct viommu_pv_call *call)
{
    (void)pv;
    return call->in.reserved.room > RANGES_MAX ? -ERANGE : 0;
}

static int check_alloc(const struct viommu_pv *pv, const struct viommu_pv_call *call)
{
    (void)pv;
    return call->in.alloc.flags || call->in.alloc.zero ? -EINVAL : 0;
}

static int check_free(const struct viommu_pv *pv, const struct viommu_pv_call *call)
{
    (void)pv;
    return call->in.free.zero ? -EINVAL : 0;
}

static bool is_perm(uint32_t perm)
{
    return perm && !(perm & ~(uint32_t)(VIOMMU_PV_READ | VIOMMU_PV_WRITE));
}

static int check_map(const struct viommu_pv *pv, const struct viommu_pv_call *call)
{
    const struct viommu_pv_map_call *in = &call->in.map;

    (void)pv;
    return in->zero || in->flags & ~(uint32_t)VIOMMU_PV_MMIO || !is_perm(in->perm) ? -EINVAL : 0;
}

static int check_unmap(const struct viommu_pv *pv, const struct viommu_pv_call *call)
{
    const struct viommu_pv_map_call *in = &call->in.map;

    (void)pv;
    return in->zero || in->flags & ~(uint32_t)VIOMMU_PV_DEFER || in->perm ? -EINVAL : 0;
}

static int check_flush(const struct viommu_pv *pv, const struct viommu_pv_call *call)
{
    const struct viommu_pv_flush_call *in = &call->in.flush;

    (void)pv;
    if (in->flags & ~(uint32_t)VIOMMU_PV_WHOLE || in->first > in->last) {
        return -EINVAL;
    }
    return in->flags & VIOMMU_PV_WHOLE && in->last ? -EINVAL : 0;
}

static int check_lookup(const struct viommu_pv *pv, const struct viommu_pv_call *call)
{
    (void)pv;
    return call->in.lookup.zero ? -EINVAL : 0;
}

static int check_find(const struct viommu_pv *pv, const struct viommu_pv_call *call)
{
    return call->in.find.room > pv->config.items_max ? -ERANGE : 0;
}

static int check_foreign(const struct viommu_pv *pv, const struct viommu_pv_call *call)
{
    const struct viommu_pv_foreign_call *in = &call->in.foreign;

    if (in->zero || in->flags & ~(uint32_t)VIOMMU_PV_MMIO || !is_perm(in->perm)) {
        return -EINVAL;
    }
    return in->count > pv->config.items_max ? -ERANGE : 0;
}

static int check_acknowledge(const struct viommu_pv *pv, const struct viommu_pv_call *call)
{
    (void)pv;
    return call->in.acknowledge.zero ? -EINVAL : 0;
}

static int run_caps(struct pv_run *run)
{
    const struct viommu_pv_config *config = &run->pv->config;
    struct viommu_pv_caps *caps = &run->call->out.caps;

    caps->frame_max = config->frame_max;
    caps->device_frame_max = config->device_frame_max;
    caps->orders = config->orders;
    caps->count_max = config->count_max;
    caps->mappings_max = config->mappings_max;
    caps->tables_max = config->tables_max;
    caps->contexts_max = config->contexts_max;
    caps->items_max = config->items_max;
    caps->deferred_max = config->deferred_max;
    return 0;
}

/* ---- kinds of calls ---- */

struct kind {
    size_t in;
    size_t out;
    int (*check)(const struct viommu_pv *pv, const struct viommu_pv_call *call);
    int (*run)(struct pv_run *run);
    bool enabled; /* only once the VM has enabled the interface */
    /* What is entered, with the lock, when the call begins or goes on; or NULL. What that comes to
       is told when the call's turn comes: `entered`. */
    int (*enter)(struct pv_run *run);
};

static const struct kind kinds[] = {
    [VIOMMU_PV_CAPS] = {sizeof(struct viommu_pv_head), sizeof(struct viommu_pv_caps), check_head,
                        run_caps, false, NULL},
    [VIOMMU_PV_RESERVED] = {sizeof(struct viommu_pv_reserved_call),
                            sizeof(struct viommu_pv_reserved), check_reserved, pv_run_reserved,
                            false, NULL},
    [VIOMMU_PV_ENABLE] = {sizeof(struct viommu_pv_head), sizeof(struct viommu_pv_answer),
                          check_head, pv_run_enable, false, NULL},
    [VIOMMU_PV_CONTEXT_ALLOC] = {sizeof(struct viommu_pv_alloc_call),
                                 sizeof(struct viommu_pv_alloc), check_alloc, pv_run_alloc, true,
                                 NULL},
    [VIOMMU_PV_CONTEXT_FREE] = {sizeof(struct viommu_pv_free_call), sizeof(struct viommu_pv_answer),
                                check_free, pv_run_free, true, NULL},
    [VIOMMU_PV_ATTACH] = {sizeof(struct viommu_pv_attach_call), sizeof(struct viommu_pv_answer),
                          check_head, pv_run_attach, true, NULL},
    [VIOMMU_PV_MAP] = {sizeof(struct viommu_pv_map_call), sizeof(struct viommu_pv_answer),
                       check_map, pv_run_map, true, pv_enter_map},
    [VIOMMU_PV_UNMAP] = {sizeof(struct viommu_pv_map_call), sizeof(struct viommu_pv_answer),
                         check_unmap, pv_run_unmap, false, pv_enter_unmap},
    [VIOMMU_PV_FLUSH] = {sizeof(struct viommu_pv_flush_call), sizeof(struct viommu_pv_answer),
                         check_flush, pv_run_flush, false, NULL},
    [VIOMMU_PV_LOOKUP] = {sizeof(struct viommu_pv_lookup_call), sizeof(struct viommu_pv_lookup),
                          check_lookup, pv_run_lookup, false, NULL},
    [VIOMMU_PV_FIND] = {sizeof(struct viommu_pv_find_call), sizeof(struct viommu_pv_find),
                        check_find, pv_run_find, false, NULL},
    [VIOMMU_PV_MAP_FOREIGN] = {sizeof(struct viommu_pv_foreign_call),
                               sizeof(struct viommu_pv_answer), check_foreign, pv_run_foreign, true,
                               NULL},
    [VIOMMU_PV_ACKNOWLEDGE] = {sizeof(struct viommu_pv_acknowledge_call),
                               sizeof(struct viommu_pv_acknowledged), check_acknowledge,
                               pv_run_acknowledge, false, NULL},
};

static const struct kind *kind_of(unsigned operation)
{
    return operation && operation < sizeof(kinds) / sizeof(kinds[0]) ? &kinds[operation] : NULL;
}

/* ---- reading ---- */

/* Copies what a guest may change meanwhile; nothing is read again, by the compiler neither. */
static void copy_in(void *to, const void *from, size_t size)
{
#ifdef VIOMMU_TESTING
    if (pv_reading) {
        pv_reading(from, size, true);
    }
#endif
    memcpy(to, from, size);
    atomic_signal_fence(memory_order_seq_cst);
#ifdef VIOMMU_TESTING
    if (pv_reading) {
        pv_reading(from, size, false);
    }
#endif
}

/* Bytes that follow the structure of a call. */
static size_t in_rest(const struct viommu_pv_call *call)
{
    return call->operation == VIOMMU_PV_MAP_FOREIGN ? call->in.foreign.count * sizeof(uint64_t) : 0;
}

/* Bytes that may follow the structure of an answer. */
static size_t out_room(const struct viommu_pv_call *call)
{
    switch (call->operation) {
    case VIOMMU_PV_RESERVED:
        return call->in.reserved.room * sizeof(struct viommu_pv_range);
    case VIOMMU_PV_FIND:
        return call->in.find.room * sizeof(struct viommu_pv_place);
    case VIOMMU_PV_MAP_FOREIGN:
        return call->in.foreign.count * sizeof(struct viommu_pv_item);
    default:
        return 0;
    }
}

/* Memory for what follows the structures; ranges are allocated when it is known how many. */
static int allocate(struct viommu_pv_call *call)
{
    if (call->operation == VIOMMU_PV_FIND && call->in.find.room) {
        call->places = base_alloc_array(call->in.find.room, sizeof(*call->places));
        return call->places ? 0 : -ENOSPC;
    }
    if (call->operation == VIOMMU_PV_MAP_FOREIGN && call->in.foreign.count) {
        call->frames = base_alloc_array(call->in.foreign.count, sizeof(*call->frames));
        call->items = base_alloc_array(call->in.foreign.count, sizeof(*call->items));
        return call->frames && call->items ? 0 : -ENOSPC;
    }
    return 0;
}

/* Reads a call of which `read` bytes have come, the head at least; each byte once. Returns 0 or the
   negative status. */
static int decode(const struct viommu_pv *pv, struct viommu_pv_call *call, size_t read,
                  const uint8_t *in, size_t in_size, size_t out_size)
{
    const struct viommu_pv_head *head = &call->in.map.head; /* each kind begins with it */
    const struct kind *kind = kind_of(head->operation);
    int error;

    if (head->version != VIOMMU_PV_VERSION) {
        return -EINVAL;
    }
    if (!kind) {
        return -EOPNOTSUPP;
    }
    if (head->size < kind->in || head->size > in_size) {
        return -EINVAL;
    }
    if (kind->in > read) {
        copy_in((uint8_t *)&call->in + read, in + read, kind->in - read);
    }
    if (kind->out > sizeof(call->out.answer)) {
        memset((uint8_t *)&call->out + sizeof(call->out.answer), 0,
               kind->out - sizeof(call->out.answer));
    }
    error = kind->check(pv, call);
    if (error) {
        return error;
    }
    if (head->size != kind->in + in_rest(call) || out_size < kind->out + out_room(call)) {
        return -EINVAL;
    }
    error = allocate(call);
    if (!error && call->frames) {
        copy_in(call->frames, in + kind->in, in_rest(call));
    }
    return error;
}

/* ---- carrying out ---- */

/* The caller, as it was when the call began, and what else is entered then. With the lock. */
static int enter(struct pv_run *run, struct pv_vm *vm)
{
    const struct kind *kind = kind_of(run->call->operation);

    if (!vm || vm->serial != run->call->caller_serial || vm->dying) {
        return -ESHUTDOWN;
    }
    vm->users++;
    run->vm = vm;
    run->enabled = vm->enabling == PV_ENABLED;
    run->entered = kind->enter ? kind->enter(run) : 0;
    return 0;
}

int pv_enter_context_locked(struct pv_run *run, uint32_t id)
{
    struct viommu_pv_call *call = run->call;
    struct pv_context *context = NULL;
    int error = 0;

    if (id < run->pv->config.contexts_max) {
        context = run->vm->contexts[id];
    }
    if (!context || context->closing ||
        (call->context_serial && call->context_serial != context->serial)) {
        error = -EBADF;
    } else {
        call->context_serial = context->serial;
        context->users++;
        run->context = context;
    }
    return error;
}

int pv_enter_context(struct pv_run *run, uint32_t id)
{
    int error;

    pv_lock(run->pv);
    error = pv_enter_context_locked(run, id);
    pv_unlock(run->pv);
    return error;
}

int pv_enter_named_locked(struct pv_run *run, uint32_t id)
{
    struct viommu_pv_call *call = run->call;
    struct pv_vm *vm;
    int error = 0;

    vm = pv_vm_find(run->pv, id == VIOMMU_PV_SELF ? run->vm->id : id);
    if (call->named_serial && (!vm || vm->serial != call->named_serial || vm->dying)) {
        error = -ESHUTDOWN; /* it was there when the call began */
    } else if (!vm || vm->dying) {
        error = vm ? -ESHUTDOWN : -ESRCH;
    } else {
        call->named_serial = vm->serial;
        vm->users++;
        run->named = vm;
    }
    return error;
}

int pv_enter_named(struct pv_run *run, uint32_t id)
{
    int error;

    pv_lock(run->pv);
    error = pv_enter_named_locked(run, id);
    pv_unlock(run->pv);
    return error;
}

void pv_leave(struct pv_run *run)
{
    if (run->held) {
        pv_let_go(&run->hold);
    }
    if (run->named) {
        run->named->users--;
    }
    if (run->context) {
        run->context->users--;
    }
    if (run->vm) {
        run->vm->users--;
    }
    run->held = false;
    run->named = NULL;
    run->context = NULL;
    run->vm = NULL;
}

/* Carries a call out that was entered (`error`) as far as it comes: 0, VIOMMU_PENDING, or the
   negative status. */
static int carry_out(struct pv_run *run, int error)
{
    struct viommu_pv *pv = run->pv;
    const struct kind *kind = kind_of(run->call->operation);

    if (!error && !pv->ops->may_call(pv->opaque, run->vm->id, run->call->operation)) {
        error = -EPERM;
    }
    if (!error && kind->enabled && !run->enabled) {
        error = -EAGAIN;
    }
    if (!error) {
        error = kind->run(run);
    } else if (run->call->operation == VIOMMU_PV_UNMAP) {
        pv_unmap_stopped(run);
    }
    if (run->vm) {
        pv_lock(pv);
        pv_leave(run);
        pv_unlock(pv);
    }
    return error;
}

/* A call goes on. */
static int go_on(struct viommu_pv *pv, struct viommu_pv_call *call)
{
    struct pv_run run = {.pv = pv, .call = call};
    int error;

    pv_lock(pv);
    error = enter(&run, pv_vm_find(pv, call->caller));
    pv_unlock(pv);
    return carry_out(&run, error);
}

/* ---- answering ---- */

/* What was not looked at has the status of the call, whatever it was that ended it. */
static void fail_rest(struct viommu_pv_call *call, int error)
{
    for (; error && call->items && call->place < call->in.foreign.count; call->place++) {
        call->items[call->place].status = (uint32_t)-error;
    }
}

static void release(struct viommu_pv_call *call)
{
    if (call->frames || call->items || call->ranges || call->places) {
        base_free(call->frames);
        base_free(call->items);
        base_free(call->ranges);
        base_free(call->places);
    }
}

/* Writes what each answer begins with; `size` is that of all. Returns it. */
static size_t answer_fixed(const struct viommu_pv_call *call, int error, size_t size, uint8_t *out)
{
    uint64_t stopped = error ? call->stopped : 0;
    uint64_t head = VIOMMU_PV_VERSION | (uint64_t)call->operation << 16 | (uint64_t)size << 32;
    uint64_t status = (uint32_t)-error;

    /* Eight bytes at a time, as they are: what was put together in memory would be waited for. */
    memcpy(out, &head, 8);
    memcpy(out + 8, &status, 8);
    memcpy(out + 16, &call->done, 8);
    memcpy(out + 24, &stopped, 8);
    return size;
}

/* Writes the answer: of `fixed` bytes, and what follows. Returns its size. */
static size_t answer(const struct viommu_pv_call *call, int error, size_t fixed, uint8_t *out)
{
    const void *rest = NULL;
    size_t head = sizeof(struct viommu_pv_answer);
    size_t size = 0;

    if (call->items) {
        rest = call->items;
        size = out_room(call);
    } else if (call->places) {
        rest = call->places;
        size = (size_t)call->done * sizeof(*call->places);
    } else if (call->ranges) {
        rest = call->ranges;
        size = (size_t)call->done * sizeof(*call->ranges);
    }
    if (fixed > head) {
        memcpy(out + head, (const uint8_t *)&call->out + head, fixed - head);
    }
    if (size) {
        memcpy(out + fixed, rest, size);
    }
    return answer_fixed(call, error, fixed + size, out);
}

static size_t answer_kind(const struct viommu_pv_call *call, int error, uint8_t *out)
{
    return answer(call, error, kind_of(call->operation)->out, out);
}

/* A new call, whose caller, operation and head are there. What else is read, and what is answered,
   is written when it is known how much. */
static void begin(struct viommu_pv_call *call)
{
    call->caller_serial = 0;
    call->named_serial = 0;
    call->context_serial = 0;
    call->done = 0;
    call->stopped = 0;
    call->place = 0;
    call->frames = NULL;
    call->items = NULL;
    call->ranges = NULL;
    call->places = NULL;
}

static uint16_t read_16(const uint8_t *in)
{
    uint16_t value;

    copy_in(&value, in, sizeof(value));
    return value;
}

static uint32_t read_32(const uint8_t *in)
{
    uint32_t value;

    copy_in(&value, in, sizeof(value));
    return value;
}

static uint64_t read_64(const uint8_t *in)
{
    uint64_t value;

    copy_in(&value, in, sizeof(value));
    return value;
}

static void read_head(struct viommu_pv_head *head, const uint8_t *in)
{
    head->version = read_16(in);
    head->operation = read_16(in + offsetof(struct viommu_pv_head, operation));
    head->size = read_32(in + offsetof(struct viommu_pv_head, size));
}

/* What follows the head. Member by member: the CPU has just written them so, where the caller is
   not in another address space, and would wait for what it reads in larger pieces. */
static void read_map(struct viommu_pv_map_call *map, const uint8_t *in)
{
    map->context = read_32(in + offsetof(struct viommu_pv_map_call, context));
    map->vm = read_32(in + offsetof(struct viommu_pv_map_call, vm));
    map->frame = read_64(in + offsetof(struct viommu_pv_map_call, frame));
    map->device_frame = read_64(in + offsetof(struct viommu_pv_map_call, device_frame));
    map->count = read_64(in + offsetof(struct viommu_pv_map_call, count));
    map->order = read_32(in + offsetof(struct viommu_pv_map_call, order));
    map->perm = read_32(in + offsetof(struct viommu_pv_map_call, perm));
    map->flags = read_32(in + offsetof(struct viommu_pv_map_call, flags));
    map->zero = read_32(in + offsetof(struct viommu_pv_map_call, zero));
}

/* Reads the head of a call, and all of one that maps or unmaps: most are such. Returns how many
   bytes. */
static size_t read_first(struct viommu_pv_call *call, const uint8_t *in, size_t in_size)
{
    struct viommu_pv_map_call *map = &call->in.map;

    read_head(&map->head, in);
    call->operation = map->head.operation;
    if ((call->operation != VIOMMU_PV_MAP && call->operation != VIOMMU_PV_UNMAP) ||
        in_size < sizeof(*map)) {
        return sizeof(map->head);
    }
    read_map(map, in);
    return sizeof(*map);
}

/* Whether a call that was read so far maps or unmaps one page of order 0, and is well formed. */
static bool is_single(const struct viommu_pv_call *call, size_t read)
{
    const struct viommu_pv_map_call *in = &call->in.map;

    if (read != sizeof(*in) || in->head.version != VIOMMU_PV_VERSION ||
        in->head.size != sizeof(*in) || in->count != 1 || in->order || in->zero) {
        return false;
    }
    return call->operation == VIOMMU_PV_MAP
               ? is_perm(in->perm) && !in->flags
               : !in->perm && !(in->flags & ~(uint32_t)VIOMMU_PV_DEFER);
}

/* Keeps a call that yielded, or carries it out to its end. */
static int keep(struct viommu_pv *pv, struct viommu_pv_call *call, struct viommu_pv_call **rest)
{
    struct viommu_pv_call *kept = base_alloc(sizeof(*kept));

    if (kept) {
        *kept = *call;
        *rest = kept;
        return VIOMMU_PENDING;
    }
    call->may_yield = false;
    return go_on(pv, call);
}

/* A call from its beginning, of which `read` bytes have come. */
static __attribute__((noinline)) int whole(struct viommu_pv *pv, struct viommu_pv_call *call,
                                           size_t read, const void *in, size_t in_size, void *out,
                                           size_t out_size, size_t *written,
                                           struct viommu_pv_call **rest)
{
    struct pv_run run = {.pv = pv, .call = call};
    struct pv_vm *caller;
    int malformed;
    int error = 0;

    begin(call);
    malformed = read ? decode(pv, call, read, in, in_size, out_size) : 0;
    if (!malformed && (call->operation == VIOMMU_PV_MAP || call->operation == VIOMMU_PV_UNMAP)) {
        call->stopped = call->in.map.device_frame; /* if it is refused as a whole */
    }
    pv_lock(pv);
    caller = pv_vm_find(pv, call->caller);
    if (caller && read && !malformed) {
        call->caller_serial = caller->serial;
        error = enter(&run, caller);
    }
    pv_unlock(pv);
    if (!caller || !read) {
        release(call);
        return caller ? -EINVAL : -ENOENT;
    }
    if (malformed) {
        release(call);
        call->frames = NULL;
        call->items = NULL;
        call->places = NULL;
        *written = answer(call, malformed, sizeof(struct viommu_pv_answer), out);
        return 0;
    }
    error = carry_out(&run, error);
    if (error == VIOMMU_PENDING) {
        error = keep(pv, call, rest);
        if (error == VIOMMU_PENDING) {
            return error;
        }
    }
    fail_rest(call, error);
    *written = answer_kind(call, error, out);
    release(call);
    return 0;
}

int viommu_pv_call(struct viommu_pv *pv, uint32_t vm, const void *in, size_t in_size, void *out,
                   size_t out_size, size_t *written, struct viommu_pv_call **rest)
{
    struct viommu_pv_call call; /* filled in as far as it is needed */
    size_t read = 0;            /* nothing, where there is too little for a head or an answer */
    int error;

    *written = 0;
    call.operation = 0;
    call.caller = vm;
    call.may_yield = rest != NULL;
    if (in_size >= sizeof(struct viommu_pv_head) && out_size >= sizeof(struct viommu_pv_answer)) {
        read = read_first(&call, in, in_size);
    }
    if (is_single(&call, read) && pv_run_single(pv, &call, &error)) {
        *written = answer_fixed(&call, error, sizeof(struct viommu_pv_answer), out);
        return 0;
    }
    return whole(pv, &call, read, in, in_size, out, out_size, written, rest);
}

int viommu_pv_resume(struct viommu_pv *pv, struct viommu_pv_call *rest, void *out, size_t out_size,
                     size_t *written)
{
    int error;

    *written = 0;
    if (out_size < kind_of(rest->operation)->out + out_room(rest)) {
        return -EINVAL;
    }
    error = go_on(pv, rest);
    if (error == VIOMMU_PENDING) {
        return error;
    }
    fail_rest(rest, error);
    *written = answer_kind(rest, error, out);
    viommu_pv_cancel(pv, rest);
    return 0;
}

void viommu_pv_cancel(struct viommu_pv *pv, struct viommu_pv_call *rest)
{
    (void)pv;
    if (rest) {
        release(rest);
        base_free(rest);
    }
}
