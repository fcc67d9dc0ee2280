/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interrupts over eventfds; interrupts.h describes the data.
 */
#include "interrupts.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../shared_eventfd.h"
#include "common/foreign.h"

void vfio_user_interrupts_init(struct vfio_user_interrupts *interrupts)
{
    memset(interrupts, 0, sizeof(*interrupts));
    for (unsigned index = 0; index < VFIO_PCI_NUM_IRQS; index++) {
        for (unsigned i = 0; i < VFIO_USER_MAX_VECTORS; i++) {
            interrupts->vector[index][i].eventfd = -1;
        }
    }
}

static void set_eventfd(struct vfio_user_vector *vector, int eventfd)
{
    if (vector->eventfd >= 0) {
        close(vector->eventfd);
    }
    vector->eventfd = eventfd;
}

static void clear_index(struct vfio_user_interrupts *interrupts, unsigned index)
{
    for (unsigned i = 0; i < VFIO_USER_MAX_VECTORS; i++) {
        set_eventfd(&interrupts->vector[index][i], -1);
        interrupts->vector[index][i].pending = false;
    }
    if (index == VFIO_PCI_INTX_IRQ_INDEX) {
        interrupts->intx_masked = false;
    }
}

void vfio_user_interrupts_clear(struct vfio_user_interrupts *interrupts)
{
    for (unsigned index = 0; index < VFIO_PCI_NUM_IRQS; index++) {
        clear_index(interrupts, index);
    }
}

void vfio_user_interrupts_reset(struct vfio_user_interrupts *interrupts)
{
    for (unsigned index = 0; index < VFIO_PCI_NUM_IRQS; index++) {
        for (unsigned i = 0; i < VFIO_USER_MAX_VECTORS; i++) {
            interrupts->vector[index][i].pending = false;
        }
    }
    interrupts->intx_level = false;
    interrupts->intx_masked = false;
}

void vfio_user_interrupts_set_count(struct vfio_user_interrupts *interrupts, unsigned index,
                                    unsigned count)
{
    if (index < VFIO_PCI_NUM_IRQS && count <= VFIO_USER_MAX_VECTORS) {
        interrupts->count[index] = count;
    }
}

int vfio_user_interrupts_info(const struct vfio_user_interrupts *interrupts,
                              struct vfio_irq_info *info)
{
    if (info->index >= VFIO_PCI_NUM_IRQS) {
        return -EINVAL;
    }
    info->count = interrupts->count[info->index];
    info->flags = 0;
    if (info->count > 0) {
        info->flags = VFIO_IRQ_INFO_EVENTFD;
        info->flags |= info->index == VFIO_PCI_INTX_IRQ_INDEX
                           ? VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED
                           : VFIO_IRQ_INFO_NORESIZE;
    }
    return 0;
}

/* One that a client filled up to its limit is readable as it is, so no interrupt is lost. */
static void signal_eventfd(struct vfio_user_interrupts *interrupts, int eventfd)
{
    if (shared_eventfd_signal(eventfd)) {
        interrupts->signalled++;
    }
}

static void trigger_vector(struct vfio_user_interrupts *interrupts, struct vfio_user_vector *vector)
{
    if (vector->eventfd >= 0) {
        vector->pending = false;
        signal_eventfd(interrupts, vector->eventfd);
    } else {
        vector->pending = true;
    }
}

static void update_intx(struct vfio_user_interrupts *interrupts)
{
    struct vfio_user_vector *intx = &interrupts->vector[VFIO_PCI_INTX_IRQ_INDEX][0];

    if (interrupts->intx_level && !interrupts->intx_masked && intx->eventfd >= 0) {
        interrupts->intx_masked = true;
        signal_eventfd(interrupts, intx->eventfd);
    }
}

void vfio_user_interrupts_trigger(struct vfio_user_interrupts *interrupts, unsigned index,
                                  unsigned vector)
{
    assert(index < VFIO_PCI_NUM_IRQS && index != VFIO_PCI_INTX_IRQ_INDEX);
    if (vector < interrupts->count[index]) {
        trigger_vector(interrupts, &interrupts->vector[index][vector]);
    }
}

void vfio_user_interrupts_set_level(struct vfio_user_interrupts *interrupts, bool level)
{
    interrupts->intx_level = level;
    update_intx(interrupts);
}

/* Is this descriptor an eventfd? Where /proc cannot tell, it may be one of its like, none of which
 * has whoever writes to it, or closes it, wait for the client. */
static bool is_eventfd(int fd)
{
    static const char expected[] = "anon_inode:[eventfd]";
    char path[32], name[64];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    n = readlink(path, name, sizeof(name));
    return n < 0 ? foreign_is_anonymous(fd)
                 : (size_t)n == sizeof(expected) - 1 && memcmp(name, expected, (size_t)n) == 0;
}

int vfio_user_interrupts_accept(const int *fds, unsigned n_fds)
{
    for (unsigned i = 0; i < n_fds; i++) {
        int flags = fcntl(fds[i], F_GETFL);

        if (flags < 0 || !is_eventfd(fds[i])) {
            return -EINVAL;
        }
        if (!(flags & O_NONBLOCK) && fcntl(fds[i], F_SETFL, flags | O_NONBLOCK) < 0) {
            return -errno;
        }
    }
    return 0;
}

/* Assign eventfds to set->count vectors, or take theirs away when none came. */
static int assign_eventfds(struct vfio_user_interrupts *interrupts, const struct vfio_irq_set *set,
                           int *fds, unsigned n_fds)
{
    struct vfio_user_vector *vectors = &interrupts->vector[set->index][set->start];
    int ret;

    if (set->count == 0 || (n_fds != 0 && n_fds != set->count)) {
        return -EINVAL;
    }
    ret = vfio_user_interrupts_accept(fds, n_fds);
    if (ret < 0) {
        return ret;
    }
    for (unsigned i = 0; i < set->count; i++) {
        set_eventfd(&vectors[i], n_fds ? fds[i] : -1);
        if (n_fds) {
            fds[i] = -1;
        }
        if (n_fds && vectors[i].pending) {
            trigger_vector(interrupts, &vectors[i]);
        }
    }
    if (set->index == VFIO_PCI_INTX_IRQ_INDEX) {
        interrupts->intx_masked = false;
        update_intx(interrupts);
    }
    return 0;
}

/* Mask, unmask or trigger one vector. */
static void act(struct vfio_user_interrupts *interrupts, unsigned index, unsigned vector,
                uint32_t action)
{
    if (action == VFIO_IRQ_SET_ACTION_MASK) {
        interrupts->intx_masked = true;
    } else if (action == VFIO_IRQ_SET_ACTION_UNMASK) {
        interrupts->intx_masked = false;
        update_intx(interrupts);
    } else if (index == VFIO_PCI_INTX_IRQ_INDEX) {
        if (interrupts->vector[index][vector].eventfd >= 0) {
            signal_eventfd(interrupts, interrupts->vector[index][vector].eventfd);
        }
    } else {
        trigger_vector(interrupts, &interrupts->vector[index][vector]);
    }
}

/* Is exactly one of the bits in mask set? */
static bool exactly_one(uint32_t flags, uint32_t mask)
{
    flags &= mask;
    return flags != 0 && (flags & (flags - 1)) == 0;
}

int vfio_user_interrupts_set(struct vfio_user_interrupts *interrupts,
                             const struct vfio_irq_set *set, const uint8_t *data, size_t data_size,
                             int *fds, unsigned n_fds)
{
    uint32_t type = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
    uint32_t action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
    unsigned limit;

    if ((set->flags & ~(type | action)) != 0 ||
        !exactly_one(set->flags, VFIO_IRQ_SET_DATA_TYPE_MASK) ||
        !exactly_one(set->flags, VFIO_IRQ_SET_ACTION_TYPE_MASK) ||
        set->index >= VFIO_PCI_NUM_IRQS) {
        return -EINVAL;
    }
    limit = interrupts->count[set->index];
    if (set->start > limit || set->count > limit - set->start ||
        (type == VFIO_IRQ_SET_DATA_BOOL && data_size != set->count) ||
        (type != VFIO_IRQ_SET_DATA_EVENTFD && n_fds != 0)) {
        return -EINVAL;
    }
    if (action != VFIO_IRQ_SET_ACTION_TRIGGER &&
        (set->index != VFIO_PCI_INTX_IRQ_INDEX || type == VFIO_IRQ_SET_DATA_EVENTFD)) {
        return -ENOTSUP;
    }
    if (type == VFIO_IRQ_SET_DATA_EVENTFD) {
        return assign_eventfds(interrupts, set, fds, n_fds);
    }
    if (set->count == 0 && type == VFIO_IRQ_SET_DATA_NONE &&
        action == VFIO_IRQ_SET_ACTION_TRIGGER && set->start == 0) {
        clear_index(interrupts, set->index);
        return 0;
    }
    for (unsigned i = 0; i < set->count; i++) {
        if (type == VFIO_IRQ_SET_DATA_NONE || data[i]) {
            act(interrupts, set->index, set->start + i, action);
        }
    }
    return 0;
}
