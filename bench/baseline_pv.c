/* SPDX-License-Identifier: BSD-2-Clause */
/* Paravirtual operations the way that is common. See baseline_pv.h. */
#include "baseline_pv.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <string.h>

/* A mapping. */
struct entry {
    uint64_t device_frame;
    uint64_t frame;
    uint64_t handle;
    struct base_vm *owner;
    struct entry *next; /* that map the same frame */
    struct entry *prev;
    uint32_t perm;
    bool pending; /* unmapped, and awaits its flush */
};

struct base_vm {
    uint32_t id;
    GHashTable *frames; /* of this VM: the first entry that maps it */
    GTree *tree;        /* what it maps, by device frame */
    GPtrArray *pending;
    uint64_t mappings;
};

struct base_pv {
    pthread_mutex_t lock;
    struct viommu_pv_config config;
    const struct viommu_pv_ops *ops;
    GHashTable *vms;
};

static gint compare(gconstpointer a, gconstpointer b, gpointer data)
{
    (void)data;
    return (uintptr_t)a < (uintptr_t)b ? -1 : (uintptr_t)a > (uintptr_t)b;
}

/* A frame is its own key: nothing is followed to compare two. The bench's are below 2^32. */
static gpointer key(uint64_t frame)
{
    return GSIZE_TO_POINTER(frame);
}

struct base_pv *base_pv_create(const struct viommu_pv_config *config)
{
    struct base_pv *pv = g_new0(struct base_pv, 1);

    pthread_mutex_init(&pv->lock, NULL);
    pv->config = *config;
    pv->ops = config->ops;
    pv->vms = g_hash_table_new(g_int_hash, g_int_equal);
    return pv;
}

void base_pv_destroy(struct base_pv *pv)
{
    g_hash_table_unref(pv->vms);
    pthread_mutex_destroy(&pv->lock);
    g_free(pv);
}

void base_pv_vm_add(struct base_pv *pv, uint32_t id)
{
    struct base_vm *vm = g_new0(struct base_vm, 1);

    vm->id = id;
    vm->frames = g_hash_table_new(g_direct_hash, NULL);
    vm->tree = g_tree_new_full(compare, NULL, NULL, NULL);
    vm->pending = g_ptr_array_new();
    g_hash_table_insert(pv->vms, &vm->id, vm);
}

/* ---- who maps a frame ---- */

static void link_in(struct entry *entry)
{
    GHashTable *frames = entry->owner->frames;
    struct entry *first = g_hash_table_lookup(frames, key(entry->frame));

    if (first) {
        entry->prev = first;
        entry->next = first->next;
        if (first->next) {
            first->next->prev = entry;
        }
        first->next = entry;
    } else {
        g_hash_table_insert(frames, key(entry->frame), entry);
    }
}

static void link_out(struct entry *entry)
{
    GHashTable *frames = entry->owner->frames;

    if (entry->next) {
        entry->next->prev = entry->prev;
    }
    if (entry->prev) {
        entry->prev->next = entry->next;
    } else if (entry->next) {
        g_hash_table_insert(frames, key(entry->frame), entry->next);
    } else {
        g_hash_table_remove(frames, key(entry->frame));
    }
}

/* ---- flushing ---- */

/* Of an entry that is in no tree any more, or whose tree goes. */
static void let_go(const struct base_pv *pv, struct entry *entry)
{
    link_out(entry);
    if (entry->perm & VIOMMU_PV_WRITE) {
        pv->ops->put_type(pv->config.opaque, 0, entry->handle);
    }
    pv->ops->put_page(pv->config.opaque, 0, entry->handle);
    g_free(entry);
}

static void drop(const struct base_pv *pv, struct base_vm *vm, struct entry *entry)
{
    g_tree_remove(vm->tree, key(entry->device_frame));
    vm->mappings--;
    let_go(pv, entry);
}

static void flush(const struct base_pv *pv, struct base_vm *vm)
{
    if (vm->pending->len == 0 || pv->ops->flush(pv->config.opaque, vm, 0, UINT64_MAX)) {
        return;
    }
    for (guint i = 0; i < vm->pending->len; i++) {
        drop(pv, vm, g_ptr_array_index(vm->pending, i));
    }
    g_ptr_array_set_size(vm->pending, 0);
}

/* ---- one page ---- */

/* Whether a slot is free; one that awaits its flush becomes so. */
static int make_free(const struct base_pv *pv, struct base_vm *vm, uint64_t device_frame)
{
    const struct entry *entry = g_tree_lookup(vm->tree, key(device_frame));

    if (entry && !entry->pending) {
        return -EEXIST;
    }
    if (entry) {
        flush(pv, vm);
    }
    return vm->mappings < pv->config.mappings_max ? 0 : -ENOSPC;
}

static int judge(const struct viommu_pv_page *page, const struct base_vm *owner, uint32_t perm)
{
    if (page->owner != owner->id) {
        return -EPERM;
    }
    switch (page->state) {
    case VIOMMU_PV_PAGE_RAM:
        return 0;
    case VIOMMU_PV_PAGE_READ_ONLY:
        return perm & VIOMMU_PV_WRITE ? -EACCES : 0;
    default:
        return -EAGAIN;
    }
}

static int refer(const struct base_pv *pv, uint32_t vm, uint64_t frame, uint64_t handle,
                 uint32_t perm)
{
    if (pv->ops->get_page(pv->config.opaque, vm, frame, 0, handle)) {
        return -ENOENT;
    }
    if ((perm & VIOMMU_PV_WRITE) && pv->ops->get_type(pv->config.opaque, 0, handle)) {
        pv->ops->put_page(pv->config.opaque, 0, handle);
        return -EBUSY;
    }
    return 0;
}

static int map_page(const struct base_pv *pv, struct base_vm *vm, struct base_vm *owner,
                    uint64_t frame, uint64_t device_frame, uint32_t perm)
{
    struct viommu_pv_page page;
    struct entry *entry;
    int error;

    if (pv->ops->lookup(pv->config.opaque, owner->id, frame, 0, &page)) {
        return -ENOENT;
    }
    error = judge(&page, owner, perm);
    error = error ? error : make_free(pv, vm, device_frame);
    error = error ? error : refer(pv, owner->id, frame, page.handle, perm);
    if (error) {
        return error;
    }
    entry = g_new(struct entry, 1);
    *entry = (struct entry){.device_frame = device_frame,
                            .frame = frame,
                            .handle = page.handle,
                            .owner = owner,
                            .perm = perm};
    g_tree_insert(vm->tree, key(device_frame), entry);
    vm->mappings++;
    link_in(entry);
    if (pv->ops->map(pv->config.opaque, vm, device_frame, 0, page.handle, perm)) {
        drop(pv, vm, entry);
        return -ENOSPC;
    }
    return 0;
}

static int unmap_page(const struct base_pv *pv, struct base_vm *vm, uint32_t owner, uint64_t frame,
                      uint64_t device_frame)
{
    struct entry *entry = g_tree_lookup(vm->tree, key(device_frame));

    if (!entry || entry->pending) {
        return -ENXIO;
    }
    if (entry->owner->id != owner || entry->frame != frame) {
        return -ESTALE;
    }
    if (vm->pending->len >= pv->config.deferred_max) {
        flush(pv, vm);
    }
    if (pv->ops->unmap(pv->config.opaque, vm, device_frame, 0)) {
        return -EIO;
    }
    entry->pending = true;
    g_ptr_array_add(vm->pending, entry);
    return 0;
}

/* ---- calls ---- */

static int check(const struct base_pv *pv, const struct viommu_pv_map_call *in, size_t in_size)
{
    bool map = in->head.operation == VIOMMU_PV_MAP;

    if (in->head.version != VIOMMU_PV_VERSION || in->head.size != sizeof(*in) ||
        in_size < sizeof(*in) || in->zero || in->context || in->order ||
        (in->flags & ~(uint32_t)(map ? 0 : VIOMMU_PV_DEFER)) ||
        (in->perm & ~(uint32_t)(VIOMMU_PV_READ | VIOMMU_PV_WRITE)) || map != (in->perm != 0)) {
        return -EINVAL;
    }
    if (in->count > pv->config.count_max || in->frame > pv->config.frame_max ||
        in->device_frame > pv->config.device_frame_max ||
        (in->count && (in->count - 1 > pv->config.frame_max - in->frame ||
                       in->count - 1 > pv->config.device_frame_max - in->device_frame))) {
        return -ERANGE;
    }
    return 0;
}

static int carry_out(const struct base_pv *pv, struct base_vm *vm,
                     const struct viommu_pv_map_call *in, uint64_t *done)
{
    bool map = in->head.operation == VIOMMU_PV_MAP;
    struct base_vm *owner = g_hash_table_lookup(pv->vms, &in->vm);
    int error = 0;

    if (!owner) {
        return -ESRCH;
    }
    if (map && owner != vm && !pv->ops->may_use(pv->config.opaque, vm->id, owner->id, in->perm)) {
        return -EPERM;
    }
    while (!error && *done < in->count) {
        uint64_t frame = in->frame + *done;
        uint64_t device_frame = in->device_frame + *done;

        error = map ? map_page(pv, vm, owner, frame, device_frame, in->perm)
                    : unmap_page(pv, vm, owner->id, frame, device_frame);
        *done += !error;
    }
    if (!map && !(in->flags & VIOMMU_PV_DEFER)) {
        flush(pv, vm);
    }
    return error;
}

void base_pv_call(struct base_pv *pv, uint32_t id, const void *bytes, size_t size,
                  struct viommu_pv_answer *out)
{
    struct viommu_pv_map_call in;
    struct base_vm *vm;
    uint64_t done = 0;
    int error;

    memcpy(&in, bytes, size < sizeof(in) ? size : sizeof(in));
    pthread_mutex_lock(&pv->lock);
    vm = g_hash_table_lookup(pv->vms, &id);
    error = vm ? check(pv, &in, size) : -ESHUTDOWN;
    if (!error && !pv->ops->may_call(pv->config.opaque, id, in.head.operation)) {
        error = -EPERM;
    }
    error = error ? error : carry_out(pv, vm, &in, &done);
    pthread_mutex_unlock(&pv->lock);
    *out = (struct viommu_pv_answer){
        .version = VIOMMU_PV_VERSION,
        .operation = in.head.operation,
        .size = sizeof(*out),
        .status = (uint32_t)-error,
        .done = done,
        .stopped = error ? in.device_frame + done : 0,
    };
}

/* ---- death ---- */

struct death {
    const struct base_pv *pv;
    struct base_vm *vm;
};

static gboolean unmap_each(gpointer at, gpointer value, gpointer data)
{
    const struct death *death = data;
    const struct entry *entry = value;

    (void)at;
    (void)death->pv->ops->unmap(death->pv->config.opaque, death->vm, entry->device_frame, 0);
    return FALSE;
}

static gboolean let_each_go(gpointer at, gpointer value, gpointer data)
{
    const struct death *death = data;

    (void)at;
    let_go(death->pv, value);
    return FALSE;
}

/* All is unmapped, then flushed once, then let go of; the tree goes whole. */
void base_pv_vm_destroy(struct base_pv *pv, uint32_t id)
{
    struct base_vm *vm = g_hash_table_lookup(pv->vms, &id);
    struct death death = {pv, vm};

    pthread_mutex_lock(&pv->lock);
    flush(pv, vm);
    g_tree_foreach(vm->tree, unmap_each, &death);
    (void)pv->ops->flush(pv->config.opaque, vm, 0, UINT64_MAX);
    g_tree_foreach(vm->tree, let_each_go, &death);
    g_hash_table_remove(pv->vms, &id);
    pthread_mutex_unlock(&pv->lock);
    g_hash_table_unref(vm->frames);
    g_tree_unref(vm->tree);
    g_ptr_array_unref(vm->pending);
    g_free(vm);
}
