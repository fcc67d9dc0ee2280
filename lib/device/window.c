/* SPDX-License-Identifier: BSD-2-Clause */
/* Pins windows, and releases them. Structures, invariants and locking: window.h. */
#include "device/window.h"

#include "base/alloc.h"
#include "device/dma.h"

#define PAGE_MASK 0xfffULL

/* A pin under way. */
struct pin {
    struct viommu_device *device;
    struct viommu_window *window;
    struct dma_request request; /* of the page that is at hand */
    struct dma_found found;
    const struct memory_snapshot *memory;
    struct iovec *iov;
    size_t iov_room;
    size_t iov_count;
    size_t slot_room;
    size_t run_room;
};

/* Returns 0 or -EINVAL. */
static int request_check(const struct viommu_window_request *request)
{
    uint64_t bytes = 0;

    if (!request->count || request->count > VIOMMU_WINDOW_RANGES_MAX || !request->revoke ||
        !request->perm || (request->perm & ~(uint32_t)(VIOMMU_READ | VIOMMU_WRITE))) {
        return -EINVAL;
    }
    for (size_t i = 0; i < request->count; i++) {
        const struct viommu_range *range = &request->ranges[i];

        if (range->first > range->last ||
            range->last - range->first >= VIOMMU_WINDOW_BYTES_MAX - bytes) {
            return -EINVAL;
        }
        bytes += range->last - range->first + 1;
    }
    return 0;
}

/* Ranges that follow one another are kept as one. */
static void ranges_set(struct viommu_window *window, const struct viommu_window_request *request)
{
    for (size_t i = 0; i < request->count; i++) {
        const struct viommu_range *range = &request->ranges[i];
        size_t count = window->range_count;

        if (count && range->first && window->ranges[count - 1].last == range->first - 1) {
            window->ranges[count - 1].last = range->last;
        } else {
            window->ranges[window->range_count++] = *range;
        }
    }
}

static struct viommu_window *window_create(struct viommu_device *device,
                                           const struct viommu_window_request *request)
{
    struct viommu_window *window =
        base_alloc(sizeof(*window) + request->count * sizeof(window->ranges[0]));

    if (window) {
        window->iommu = device->iommu;
        window->device = device;
        window->list = &device->windows;
        window->revoke = request->revoke;
        window->fence = request->fence;
        window->opaque = request->opaque;
        window->perm = request->perm;
        window->slots = window->own_slots;
        window->runs = window->own_runs;
        ranges_set(window, request);
    }
    return window;
}

void window_free(struct viommu_window *window)
{
    if (window->slots != window->own_slots) {
        base_free(window->slots);
    }
    if (window->runs != window->own_runs) {
        base_free(window->runs);
    }
    base_free(window);
}

void window_origin_add(struct window_origin *origin, const struct dma_found *found, bool first)
{
    uint8_t shift = (uint8_t)(IOTLB_PAGE_SHIFT + 9 * found->level);

    if (first) {
        *origin = (struct window_origin){.domain = found->domain, .shift = shift};
        return;
    }
    if (origin->domain != found->domain) {
        origin->domain = WINDOW_DOMAIN_ANY; /* it belongs to each of them */
    }
    origin->shift = shift > origin->shift ? shift : origin->shift;
}

/* An array of twice the room, that began as `own`, a part of the window; NULL without memory. */
static void *grow(void *array, const void *own, size_t size, size_t *room)
{
    void *grown = base_realloc_array(array == own ? NULL : array, *room * 2, size);

    if (grown && array == own) {
        memcpy(grown, own, *room * size);
    }
    *room *= grown ? 2 : 1;
    return grown;
}

/* Remembers that the window leads to a slot. There are few, and the last one is the likeliest. */
static int note_slot(struct pin *pin, const struct viommu_memory_slot *slot)
{
    struct viommu_window *window = pin->window;
    struct window_slot *slots = window->slots;

    for (size_t i = window->slot_count; i--;) {
        if (slots[i].first == slot->first) {
            return 0;
        }
    }
    if (window->slot_count == pin->slot_room) {
        slots = grow(slots, window->own_slots, sizeof(*slots), &pin->slot_room);
        if (!slots) {
            return -ENOMEM;
        }
        window->slots = slots;
    }
    slots[window->slot_count++] = (struct window_slot){slot->first, slot->last, slot->host};
    return 0;
}

static int note_run(struct pin *pin, uint64_t gpa, size_t len)
{
    struct viommu_window *window = pin->window;
    struct window_run *runs = window->runs;
    struct window_run *last = window->run_count ? &runs[window->run_count - 1] : NULL;

    if (last && last->gpa + last->size == gpa) {
        last->size += len;
        return 0;
    }
    if (window->run_count == pin->run_room) {
        runs = grow(runs, window->own_runs, sizeof(*runs), &pin->run_room);
        if (!runs) {
            return -ENOMEM;
        }
        window->runs = runs;
    }
    runs[window->run_count++] = (struct window_run){.gpa = gpa, .size = len};
    return 0;
}

static int add_iov(struct pin *pin, char *host, size_t len)
{
    struct iovec *last = pin->iov_count ? &pin->iov[pin->iov_count - 1] : NULL;

    if (last && (char *)last->iov_base + last->iov_len == host) {
        last->iov_len += len;
        return 0;
    }
    if (pin->iov_count == pin->iov_room) {
        return -ENOSPC;
    }
    pin->iov[pin->iov_count++] = (struct iovec){.iov_base = host, .iov_len = len};
    return 0;
}

/*
 * On a bus no request both reads and writes: the one that is refused is recorded. Returns false
 * when neither is by now.
 */
static bool record_refusal(struct pin *pin)
{
    struct dma_request request = pin->request;
    struct viommu_translation translation;

    request.quiet = false;
    request.perm = VIOMMU_WRITE;
    if (dma_translate(&request, &translation)) {
        return true;
    }
    request.perm = VIOMMU_READ;
    return dma_translate(&request, &translation) != 0;
}

static int translate(struct pin *pin, uint64_t iova, struct viommu_translation *out)
{
    int ret;

    pin->request.iova = iova;
    pin->request.quiet = pin->request.perm == (VIOMMU_READ | VIOMMU_WRITE);
    pin->found = (struct dma_found){0};
    ret = dma_translate(&pin->request, out);
    if (ret == -EFAULT && pin->request.quiet && !record_refusal(pin)) {
        /* Other entries than before: the guest is changing them, or a cache lost the old ones. */
        pin->request.quiet = false;
        pin->found = (struct dma_found){0};
        ret = dma_translate(&pin->request, out);
    }
    return ret;
}

/* Pins one page, or a part of one. */
static int pin_page(struct pin *pin, uint64_t iova, size_t len)
{
    const struct viommu_memory_slot *slot;
    struct viommu_translation translation;
    int ret = translate(pin, iova, &translation);

    if (ret) {
        return ret;
    }
    window_origin_add(&pin->window->origin, &pin->found, !pin->window->pages++);
    slot = translation.interrupt ? NULL : memory_find(pin->memory, translation.gpa);
    if (!slot) {
        return -ENXIO;
    }
    if ((pin->request.perm & VIOMMU_WRITE) && (slot->flags & VIOMMU_MEMORY_READONLY)) {
        return -EROFS;
    }
    ret = note_slot(pin, slot);
    ret = ret ? ret : note_run(pin, translation.gpa, len);
    /* A slot's borders are those of pages: it holds all of this one. */
    return ret ? ret : add_iov(pin, (char *)slot->host + (translation.gpa - slot->first), len);
}

static int pin_range(struct pin *pin, const struct viommu_range *range)
{
    uint64_t at = range->first;

    for (;;) {
        uint64_t page_last = at | PAGE_MASK;
        uint64_t last = page_last < range->last ? page_last : range->last;
        int ret = pin_page(pin, at, (size_t)(last - at) + 1);

        if (ret || last == range->last) {
            return ret;
        }
        at = last + 1;
    }
}

static void link_window(struct window_list *list, struct viommu_window *window)
{
    window->list = list;
    window->next = list->first;
    window->link = &list->first;
    if (window->next) {
        window->next->link = &window->next;
    }
    list->first = window;
    list->pages += window->pages;
    atomic_fetch_add_explicit(&list->count, 1, memory_order_relaxed);
}

static void unlink_window(struct viommu_window *window)
{
    struct window_list *list = window->list;

    *window->link = window->next;
    if (window->next) {
        window->next->link = window->link;
    }
    list->pages -= window->pages;
    /* Who sees that nothing is open sees that the pointers are not used any more. */
    atomic_fetch_sub_explicit(&list->count, 1, memory_order_release);
}

/* From here on invalidations find it. */
static int publish(struct pin *pin)
{
    struct window_list *list = &pin->device->windows;
    struct viommu_window *window = pin->window;
    int ret = -EBUSY;

    pthread_mutex_lock(&list->lock);
    if (atomic_load_explicit(&list->count, memory_order_relaxed) < VIOMMU_WINDOWS_MAX &&
        list->pages + window->pages <= VIOMMU_WINDOWS_PAGES_MAX) {
        link_window(list, window);
        counter_add(&list->pinned, 1);
        counter_add(&list->pages_pinned, window->pages);
        ret = 0;
    }
    pthread_mutex_unlock(&list->lock);
    return ret;
}

/* In a section. */
static int pin_all(struct pin *pin, const struct viommu_dma_attrs *attrs,
                   const struct viommu_window_request *request)
{
    struct viommu *iommu = pin->device->iommu;
    int ret;

    pin->window->birth = epoch_time(iommu->epoch);
    pin->memory = memory_snapshot(iommu->memory);
    ret = dma_request_init(&pin->request, pin->device, attrs, 0, request->perm);
    pin->request.found = &pin->found;
    for (size_t i = 0; !ret && i < request->count; i++) {
        ret = pin_range(pin, &request->ranges[i]);
    }
    if (ret) {
        return ret;
    }
    pin->window->id = pin->request.requester->id;
    pin->window->alias = attrs ? attrs->alias : 0;
    return publish(pin);
}

/* Before a device's first pin: invalidations look at the windows of those only that have some. */
static int join(struct viommu_device *device)
{
    struct viommu *iommu = device->iommu;
    int ret;

    iommu_lock(iommu);
    ret = windows_listen(iommu);
    if (!ret && !atomic_load_explicit(&device->pins, memory_order_relaxed)) {
        device->next_pinned = iommu->windows.devices;
        iommu->windows.devices = device;
        atomic_store_explicit(&device->pins, true, memory_order_release);
    }
    iommu_unlock(iommu);
    return ret;
}

int viommu_device_pin(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                      const struct viommu_window_request *request, struct iovec *iov,
                      size_t *iov_count, struct viommu_window **out)
{
    struct pin pin = {
        .device = device,
        .iov = iov,
        .iov_room = *iov_count,
        .slot_room = sizeof(pin.window->own_slots) / sizeof(pin.window->own_slots[0]),
        .run_room = sizeof(pin.window->own_runs) / sizeof(pin.window->own_runs[0]),
    };
    int ret = request_check(request);

    if (!ret && attrs && attrs->type != VIOMMU_DMA_UNTRANSLATED) {
        ret = -EINVAL;
    }
    if (!ret && !atomic_load_explicit(&device->pins, memory_order_acquire)) {
        ret = join(device);
    }
    if (ret) {
        return ret;
    }
    pin.window = window_create(device, request);
    if (!pin.window || !epoch_enter(device->iommu->epoch)) {
        base_free(pin.window);
        return -ENOMEM;
    }
    ret = pin_all(&pin, attrs, request);
    epoch_leave(device->iommu->epoch);
    if (ret) {
        window_free(pin.window);
        return ret;
    }
    *iov_count = pin.iov_count;
    *out = pin.window;
    return 0;
}

/*
 * As most are released. Returns false for one that is wanted, or without a device; or that was
 * handled when a reset gave it up: somebody may still be at it.
 */
static bool release_quickly(struct viommu_window *window)
{
    struct window_list *list = window->list;
    bool quick;

    pthread_mutex_lock(&list->lock);
    quick = !window->wanted && !window->handled && window->device;
    if (quick) {
        unlink_window(window);
    }
    pthread_mutex_unlock(&list->lock);
    return quick;
}

/*
 * Waits until no other thread is in one of the window's functions. Returns false inside one: who
 * called it frees the window. Under the lock, given up meanwhile.
 */
static bool wait_for_calls(struct viommu *iommu, struct viommu_window *window)
{
    if (window->calling && pthread_equal(window->caller, pthread_self())) {
        window->released = true;
        return false;
    }
    while (window->calling) {
        pthread_cond_wait(&iommu->notify.idle, &iommu->lock);
    }
    return true;
}

static void release_slowly(struct viommu_window *window)
{
    struct viommu *iommu = window->iommu;
    bool last;

    iommu_lock(iommu);
    pthread_mutex_lock(&window->list->lock);
    unlink_window(window);
    pthread_mutex_unlock(&window->list->lock);
    window_unwant(iommu, window);
    if (wait_for_calls(iommu, window)) {
        window_free(window);
    }
    last = iommu->windows.destroyed && !atomic_load(&iommu->windows.orphans.count);
    iommu_unlock(iommu);
    if (last) {
        iommu->model->destroy(iommu);
    }
}

void viommu_window_release(struct viommu_window *window)
{
    if (!window) {
        return;
    }
    if (release_quickly(window)) {
        window_free(window);
    } else {
        release_slowly(window);
    }
}

static void leave_pinned(struct viommu *iommu, const struct viommu_device *device)
{
    struct viommu_device **link = &iommu->windows.devices;

    while (*link && *link != device) {
        link = &(*link)->next_pinned;
    }
    if (*link) {
        *link = device->next_pinned;
    }
}

void windows_orphan(struct viommu *iommu, struct viommu_device *device)
{
    struct window_list *orphans = &iommu->windows.orphans;
    struct viommu_window *window;

    leave_pinned(iommu, device);
    while ((window = device->windows.first)) {
        pthread_mutex_lock(&device->windows.lock);
        unlink_window(window);
        pthread_mutex_unlock(&device->windows.lock);
        window->device = NULL;
        pthread_mutex_lock(&orphans->lock);
        link_window(orphans, window);
        pthread_mutex_unlock(&orphans->lock);
    }
}

void window_list_init(struct window_list *list)
{
    pthread_mutex_init(&list->lock, NULL);
}

void window_list_fini(struct window_list *list)
{
    pthread_mutex_destroy(&list->lock);
}
