/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A model that does little, for tests of what all models stand on: it moves addresses by an
 * offset, keeps one register, and posts changes that a test asks for. What mirrors see of it are
 * views that a test sets, and page tables of a simple format.
 *
 * A request up to `last` is translated to iova + offset, in pages of mask + 1; others are refused.
 * 0xFEExxxxx is the interrupt range. Each change posted has a wait; what is over is seen by
 * `done`. Time is virtual unless the test asks for the host's.
 */
#ifndef VIOMMU_IOMMU_TEST_MODEL_H
#define VIOMMU_IOMMU_TEST_MODEL_H

#include "iommu/iommu.h"

#include "base/alloc.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <viommu/device.h>

#include <cmocka.h>

#define MODEL_RAM 0x40000u
#define MODEL_WAITS 16
#define MODEL_RECORDS 256
#define MODEL_MS UINT64_C(1000000)
/* Of an entry of its page tables; bits 0 and 1 are read and write. */
#define MODEL_LARGE UINT64_C(0x80)
#define MODEL_RESERVED (UINT64_C(1) << 62)

struct test_model {
    struct viommu iommu;
    struct viommu_memory *memory;
    unsigned char *ram;
    bool host_clock;
    bool woken_by_callback;
    _Atomic uint64_t now;

    uint64_t offset;
    uint64_t last;
    uint64_t mask;
    uint32_t perm;
    bool domains; /* each page is of a domain of its own, of its number */
    bool ats;
    _Atomic unsigned translations; /* calls */
    unsigned refused_interrupts;
    unsigned resets;
    unsigned destroyed;
    uint64_t reg;
    struct shadow_view view; /* of every requester, unless view_of says something else */
    void (*view_of)(struct test_model *model, uint16_t requester, struct shadow_view *out);
    unsigned tried;               /* trials that are over, and what came of the last one */
    int tried_error;
    bool no_mirrors;              /* it cannot be mirrored */
    int narrow_answer;            /* what it says to being narrowed, to what: */
    uint64_t narrow_last;
    uint64_t narrow_sizes;
    uint64_t shadow_quota;        /* of the configuration */
    enum viommu_rewrite_policy rewrite_policy;
    unsigned work;     /* pieces of work that are left; each takes one of the budget */
    unsigned messages; /* of the unit that are to be sent */

    struct wait waits[MODEL_WAITS];
    unsigned wait_count;

    struct viommu_interrupt interrupts[MODEL_RECORDS];
    unsigned interrupt_count;
    struct viommu_event events[MODEL_RECORDS];
    unsigned event_count;
    unsigned wakes; /* calls of `wake` */
    void (*in_callback)(struct test_model *model); /* called from event and interrupt callbacks */
};

static inline struct test_model *model_of(struct viommu *iommu)
{
    return (struct test_model *)iommu;
}

static inline void model_destroy(struct viommu *iommu)
{
    model_of(iommu)->destroyed++;
    iommu_fini(iommu);
}

static inline void model_reset(struct viommu *iommu)
{
    struct test_model *model = model_of(iommu);

    model->resets++;
    model->reg = 0;
    for (unsigned i = 0; i < model->wait_count; i++) {
        notify_forget(iommu, &model->waits[i]);
    }
    model->wait_count = 0;
}

static inline uint64_t model_mmio_read(struct viommu *iommu, uint64_t offset, unsigned size)
{
    (void)offset;
    (void)size;
    return model_of(iommu)->reg;
}

static inline void model_mmio_write(struct viommu *iommu, uint64_t offset, unsigned size,
                                    uint64_t value)
{
    (void)offset;
    (void)size;
    model_of(iommu)->reg = value;
}

static inline bool model_take_message(struct viommu *iommu, struct viommu_interrupt *out)
{
    struct test_model *model = model_of(iommu);

    if (!model->messages) {
        return false;
    }
    *out = (struct viommu_interrupt){0xfee00000, model->messages--, 0xfff8, true};
    return true;
}

static inline bool model_work(struct viommu *iommu, unsigned *budget)
{
    struct test_model *model = model_of(iommu);

    while (*budget && model->work) {
        (*budget)--;
        model->work--;
    }
    return !*budget && model->work;
}

static inline bool model_draining(struct viommu *iommu)
{
    (void)iommu;
    return false;
}

static inline int model_translate(struct viommu *iommu, const struct dma_request *request,
                                  struct viommu_translation *out)
{
    struct test_model *model = model_of(iommu);

    atomic_fetch_add(&model->translations, 1);
    if (!atomic_load(&iommu->started)) {
        return -EAGAIN;
    }
    if (request->iova >> 20 == 0xfee) {
        *out = (struct viommu_translation){request->iova, 0xfff, VIOMMU_WRITE, true};
        return 0;
    }
    if (request->iova > model->last || (request->perm & ~model->perm)) {
        return -EFAULT;
    }
    *out = (struct viommu_translation){request->iova + model->offset, model->mask, model->perm,
                                       false};
    if (request->found) {
        request->found->domain = model->domains ? (int32_t)(request->iova >> 12) : 0;
    }
    return 0;
}

static inline void model_refuse_interrupt(struct viommu *iommu, const struct dma_request *request)
{
    (void)request;
    model_of(iommu)->refused_interrupts++;
}

static inline int model_ats(struct viommu *iommu, const struct dma_request *request,
                            struct viommu_ats_entry *out)
{
    struct test_model *model = model_of(iommu);

    if (!atomic_load(&iommu->started)) {
        return -EAGAIN;
    }
    if (request->iova > model->last) {
        return -EFAULT;
    }
    *out = (struct viommu_ats_entry){
        .iova = request->iova & ~model->mask,
        .gpa = (request->iova & ~model->mask) + model->offset,
        .mask = model->mask,
        .perm = model->perm,
    };
    return 0;
}

static inline bool model_has_ats(const struct viommu *iommu)
{
    return ((const struct test_model *)iommu)->ats;
}

static inline bool model_can_mirror(const struct viommu *iommu)
{
    return !((const struct test_model *)iommu)->no_mirrors;
}

static inline int model_narrow(struct viommu *iommu, uint64_t last, uint64_t page_sizes)
{
    struct test_model *model = model_of(iommu);

    model->narrow_last = last;
    model->narrow_sizes = page_sizes;
    return model->narrow_answer;
}

static inline void model_view(struct viommu *iommu, uint16_t requester, struct shadow_view *out)
{
    struct test_model *model = model_of(iommu);

    *out = model->view;
    if (model->view_of) {
        model->view_of(model, requester, out);
    }
}

static inline void model_tried(struct viommu *iommu, int error)
{
    struct test_model *model = model_of(iommu);

    model->tried++;
    model->tried_error = error;
}

static inline const struct pagetable_format *model_format(const struct viommu *iommu)
{
    static const struct pagetable_format format = {
        .read = 1,
        .write = 2,
        .large = MODEL_LARGE,
        .reserved_table = MODEL_RESERVED,
        .reserved_page = MODEL_RESERVED,
        .large_levels = 1 << 1 | 1 << 2,
    };

    (void)iommu;
    return &format;
}

static inline void model_save(struct viommu *iommu, struct save_writer *writer)
{
    save_put64(writer, model_of(iommu)->reg);
}

static inline int model_decode(struct viommu *iommu, struct save_section *section, void **state)
{
    (void)iommu;
    *state = base_alloc(sizeof(uint64_t));
    if (!*state) {
        return -ENOMEM;
    }
    *(uint64_t *)*state = save_get64(section);
    return save_close(section);
}

static inline void model_restore(struct viommu *iommu, const void *state)
{
    model_of(iommu)->reg = *(const uint64_t *)state;
}

static const struct model test_model_table = {
    .destroy = model_destroy,
    .reset = model_reset,
    .mmio_read = model_mmio_read,
    .mmio_write = model_mmio_write,
    .take_message = model_take_message,
    .work = model_work,
    .draining = model_draining,
    .translate = model_translate,
    .refuse_interrupt = model_refuse_interrupt,
    .ats = model_ats,
    .has_ats = model_has_ats,
    .can_mirror = model_can_mirror,
    .narrow = model_narrow,
    .view = model_view,
    .tried = model_tried,
    .format = model_format,
    .interrupts = {0xfee00000, 0xfeefffff},
    .id = MODEL_TEST,
    .save_version = 1,
    .save = model_save,
    .decode = model_decode,
    .restore = model_restore,
};

static inline void model_on_interrupt(void *opaque, const struct viommu_interrupt *interrupt)
{
    struct test_model *model = opaque;

    if (model->interrupt_count < MODEL_RECORDS) {
        model->interrupts[model->interrupt_count] = *interrupt;
    }
    model->interrupt_count++;
    if (model->in_callback) {
        model->in_callback(model);
    }
}

static inline void model_on_event(void *opaque, const struct viommu_event *event)
{
    struct test_model *model = opaque;

    if (model->event_count < MODEL_RECORDS) {
        model->events[model->event_count] = *event;
    }
    model->event_count++;
    if (model->in_callback) {
        model->in_callback(model);
    }
}

static inline void model_on_wake(void *opaque)
{
    ((struct test_model *)opaque)->wakes++;
}

static inline uint64_t model_clock(void *opaque)
{
    return atomic_load(&((struct test_model *)opaque)->now);
}

/* Guest addresses [first, last] lie at the same place of the model's RAM. */
static inline void model_add_ram(struct test_model *model, uint64_t first, uint64_t last,
                                 uint32_t flags)
{
    struct viommu_memory_slot slot = {
        .first = first, .last = last, .host = model->ram + first, .fd = -1, .flags = flags};
    struct viommu_memory_batch *batch;

    assert_int_equal(viommu_memory_batch_begin(model->memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
}

/* The instance, in the memory that there is; not started. */
static inline void model_begin(struct test_model *model)
{
    struct viommu_config config = {
        .memory = model->memory,
        .callbacks = {.interrupt = model_on_interrupt,
                      .event = model_on_event,
                      .wake = model->woken_by_callback ? model_on_wake : NULL},
        .opaque = model,
        .clock = model->host_clock ? NULL : model_clock,
        .ack_timeout_ms = 100,
        .iotlb_entries = 256,
        .rewrite_policy = model->rewrite_policy,
        .shadow_quota = model->shadow_quota,
    };

    assert_int_equal(iommu_init(&model->iommu, &test_model_table, &config), 0);
}

/*
 * Everything, with an empty guest memory; not started. The caller may have set host_clock,
 * woken_by_callback, rewrite_policy and shadow_quota.
 */
static inline void model_create(struct test_model *model)
{
    assert_int_equal(viommu_memory_create(&model->memory), 0);
    model->ram = aligned_alloc(4096, MODEL_RAM);
    assert_non_null(model->ram);
    memset(model->ram, 0, MODEL_RAM);
    model_begin(model);
    model->now = 1;
    model->last = UINT64_MAX;
    model->mask = 0xfff;
    model->perm = VIOMMU_READ | VIOMMU_WRITE;
}

/* The same with RAM at 0, started. */
static inline void model_init(struct test_model *model)
{
    *model = (struct test_model){.ats = true};
    model_create(model);
    model_add_ram(model, 0, MODEL_RAM - 1, 0);
    assert_int_equal(viommu_start(&model->iommu), 0);
}

static inline void model_fini(struct test_model *model)
{
    viommu_destroy(&model->iommu);
    viommu_memory_destroy(model->memory);
    free(model->ram);
}

static inline struct viommu_device *model_device(struct test_model *model, uint16_t requester)
{
    struct viommu_device_config config = {.requester = requester, .ats = model->ats};
    struct viommu_device *device = NULL;

    assert_int_equal(viommu_device_add(&model->iommu, &config, &device), 0);
    return device;
}

static inline bool model_has_id(const struct requester *requester, const void *what)
{
    return requester->id == *(const uint16_t *)what;
}

/* Posts a change as a model does; returns what then waits for its answers. */
static inline struct wait *model_post(struct test_model *model, uint16_t requester, uint64_t first)
{
    struct viommu_change change = {
        .kind = VIOMMU_CHANGE_DEVICE_TLB,
        .requester = requester,
        .first = first,
        .last = first + 0xfff,
    };
    struct wait *wait = &model->waits[model->wait_count++];

    assert_true(model->wait_count <= MODEL_WAITS);
    *wait = (struct wait){0};
    iommu_lock(&model->iommu);
    notify_post(&model->iommu, &change, model_has_id, &requester, wait);
    iommu_kick(&model->iommu);
    iommu_unlock(&model->iommu);
    return wait;
}

static inline bool model_over(struct test_model *model, const struct wait *wait)
{
    bool over;

    iommu_lock(&model->iommu);
    model->iommu.drain_open = 0; /* as at the beginning of a model's work */
    over = !wait->deliveries && wait_drained(&model->iommu, wait);
    iommu_unlock(&model->iommu);
    return over;
}

static inline void model_process(struct test_model *model)
{
    int ret;

    do {
        ret = viommu_process(&model->iommu, 0);
        assert_true(ret >= 0);
    } while (ret == VIOMMU_PENDING);
}

static inline struct viommu_stats model_stats(struct test_model *model)
{
    struct viommu_stats stats;

    assert_int_equal(viommu_stats_get(&model->iommu, &stats, sizeof(stats)), 0);
    return stats;
}

#endif
