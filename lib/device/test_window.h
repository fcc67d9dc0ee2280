/* SPDX-License-Identifier: BSD-2-Clause */
/* For tests of windows: who holds one, and what that one was told. */
#ifndef VIOMMU_DEVICE_TEST_WINDOW_H
#define VIOMMU_DEVICE_TEST_WINDOW_H

#include "iommu/test_model.h"

#define HOLDER_IOV 64

struct holder {
    /* How it pins: zero is for reading, with all the room there is. */
    uint32_t perm;
    size_t room;
    bool no_room;
    bool no_fence;
    /* What it does when it is called. */
    bool release_in_revoke;
    bool release_in_fence;
    int fence_answer;
    void (*in_revoke)(struct holder *holder);

    struct viommu_window *window;
    struct iovec iov[HOLDER_IOV];
    size_t iov_count;
    unsigned revoked;
    unsigned fenced;
};

static inline void holder_release(struct holder *holder)
{
    viommu_window_release(holder->window);
    holder->window = NULL;
}

static inline void holder_on_revoke(void *opaque)
{
    struct holder *holder = opaque;

    holder->revoked++;
    if (holder->in_revoke) {
        holder->in_revoke(holder);
    }
    if (holder->release_in_revoke) {
        holder_release(holder);
    }
}

static inline int holder_on_fence(void *opaque)
{
    struct holder *holder = opaque;

    holder->fenced++;
    if (holder->release_in_fence) {
        holder_release(holder);
    }
    return holder->fence_answer;
}

static inline int holder_pin(struct holder *holder, struct viommu_device *device,
                             const struct viommu_range *ranges, size_t count)
{
    struct viommu_window_request request = {
        .ranges = ranges,
        .count = count,
        .perm = holder->perm ? holder->perm : VIOMMU_READ,
        .revoke = holder_on_revoke,
        .fence = holder->no_fence ? NULL : holder_on_fence,
        .opaque = holder,
    };

    holder->iov_count = holder->no_room ? 0 : holder->room ? holder->room : HOLDER_IOV;
    return viommu_device_pin(device, NULL, &request, holder->iov, &holder->iov_count,
                             &holder->window);
}

static inline void add_slots(struct test_model *model, const struct viommu_memory_slot *slots,
                             size_t count)
{
    struct viommu_memory_batch *batch;

    assert_int_equal(viommu_memory_batch_begin(model->memory, &batch), 0);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(viommu_memory_batch_add(batch, &slots[i]), 0);
    }
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
}

static const struct window_concern everything = {0, UINT64_MAX, WINDOW_DOMAIN_ANY, 0, 0};

/*
 * An operation that takes something away, as a model carries one out. Every address leads elsewhere
 * from then on.
 */
static inline struct wait *model_ask(struct test_model *model, const struct window_concern *concern)
{
    struct viommu *iommu = &model->iommu;
    struct wait *wait = &model->waits[model->wait_count++];

    assert_true(model->wait_count <= MODEL_WAITS);
    *wait = (struct wait){0};
    model->offset += 0x1000;
    iommu_lock(iommu);
    wait_drain(iommu, wait);
    assert_true(epoch_drained(iommu->epoch, wait->drain));
    windows_concern(&wait->windows, concern);
    (void)windows_ask(iommu, &wait->windows, wait->drain);
    iommu_unlock(iommu);
    return wait;
}

/* Whether it is over, when all has been done that can be. */
static inline bool model_released(struct test_model *model, struct wait *wait)
{
    bool ret;

    model_process(model);
    iommu_lock(&model->iommu);
    ret = windows_over(&wait->windows);
    iommu_unlock(&model->iommu);
    return ret;
}

/* The list of those that are wanted, and where its parts begin, are as window.h says. */
static inline void model_check_wanted(const struct test_model *model)
{
    const struct windows *windows = &model->iommu.windows;
    unsigned part = 0; /* stopped, to be fenced, asked, to be asked */

    for (const struct viommu_window *w = windows->wanted; w; w = w->next_wanted) {
        part = w == windows->to_fence && part < 1 ? 1 : part;
        part = w == windows->to_expire && part < 2 ? 2 : part;
        part = w == windows->to_call ? 3 : part;
        assert_true(w->wanted);
        assert_ptr_equal(*w->wanted_link, w);
        assert_int_equal(w->overdue, part < 2);
        assert_int_equal(w->stopped, part < 1);
        for (const struct window_wait *wait = w->waits; wait; wait = wait->next) {
            assert_ptr_equal(wait->at, w);
            assert_ptr_equal(*wait->link, wait);
        }
    }
    assert_null(*windows->wanted_end);
}

#endif
