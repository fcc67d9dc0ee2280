/* SPDX-License-Identifier: BSD-2-Clause */
/* Rows of descriptors; see vectors.h. */
#include "vectors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "loop.h"
#include "shared_eventfd.h"

/* What the far server was given in the place of a client's. */
struct relay_own_vector {
    struct loop_source source; /* fd -1: nothing */
    const int *client;         /* the entry that it stands for */
};

void relay_vectors_init(struct relay_vectors *vectors, struct loop *loop)
{
    *vectors = (struct relay_vectors){.loop = loop};
}

static void drop_own(struct relay_vectors *vectors, uint32_t index, uint32_t vector)
{
    struct loop_source *source = &vectors->own[index][vector].source;

    if (source->fd >= 0) {
        loop_remove(vectors->loop, source);
        close(source->fd);
        source->fd = -1;
    }
}

static void pass_on(void *opaque, uint32_t events)
{
    const struct relay_own_vector *own = opaque;

    (void)events;
    if (shared_eventfd_take(own->source.fd)) {
        (void)shared_eventfd_signal(*own->client);
    }
}

void relay_vectors_cut(struct relay_vectors *vectors)
{
    for (unsigned index = 0; index < VFIO_PCI_NUM_IRQS && vectors->loop; index++) {
        for (uint32_t i = 0; i < vectors->count[index]; i++) {
            struct relay_own_vector *own = &vectors->own[index][i];

            if (own->source.fd >= 0) {
                pass_on(own, 0); /* what it said last */
                drop_own(vectors, index, i);
            }
        }
    }
}

void relay_vectors_fini(struct relay_vectors *vectors)
{
    for (unsigned index = 0; index < VFIO_PCI_NUM_IRQS; index++) {
        for (uint32_t i = 0; i < vectors->count[index]; i++) {
            if (vectors->fds[index][i] >= 0) {
                close(vectors->fds[index][i]);
            }
        }
        free(vectors->fds[index]);
        free(vectors->own[index]);
    }
    relay_vectors_init(vectors, vectors->loop);
}

int relay_vectors_reserve(struct relay_vectors *vectors, const struct far_info *info,
                          uint32_t index)
{
    uint32_t count = info->irqs[index].count;
    struct relay_own_vector *own = NULL;
    int *row;

    if (vectors->fds[index] || count == 0) {
        return 0;
    }
    row = malloc(count * sizeof(*row));
    if (vectors->loop) {
        own = calloc(count, sizeof(*own));
    }
    if (!row || (vectors->loop && !own)) {
        free(row);
        free(own);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        row[i] = -1;
        if (own) {
            own[i].source = (struct loop_source){
                .fd = -1, .events = EPOLLIN, .ready = pass_on, .opaque = &own[i]};
            own[i].client = &row[i];
        }
    }
    vectors->fds[index] = row;
    vectors->own[index] = own;
    vectors->count[index] = count;
    return 0;
}

void relay_vectors_set(struct relay_vectors *vectors, uint32_t index, uint32_t start,
                       uint32_t count, int *fds)
{
    for (uint32_t i = 0; i < count; i++) {
        int *place = &vectors->fds[index][start + i];

        if (*place >= 0) {
            close(*place);
        }
        *place = fds ? fds[i] : -1;
        if (fds) {
            fds[i] = -1;
        } else if (vectors->loop) {
            drop_own(vectors, index, start + i);
        }
    }
}

bool relay_vectors_next(const struct relay_vectors *vectors, uint32_t *index, uint32_t *vector)
{
    for (; *index < VFIO_PCI_NUM_IRQS; ++*index, *vector = 0) {
        for (; *vector < vectors->count[*index]; ++*vector) {
            if (vectors->fds[*index][*vector] >= 0) {
                return true;
            }
        }
    }
    return false;
}

int relay_vectors_give(struct relay_vectors *vectors, uint32_t index, uint32_t vector)
{
    struct loop_source *source;
    int ret;

    if (!vectors->loop) {
        return vectors->fds[index][vector];
    }
    source = &vectors->own[index][vector].source;
    if (source->fd >= 0) {
        return source->fd;
    }
    source->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    ret = source->fd < 0 ? -errno : loop_add(vectors->loop, source);
    if (ret < 0) {
        drop_own(vectors, index, vector);
        return ret;
    }
    return source->fd;
}
