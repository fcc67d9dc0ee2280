/* SPDX-License-Identifier: BSD-2-Clause */
/* Rows of descriptors; see vectors.h. */
#include "vectors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void relay_vectors_fini(struct relay_vectors *vectors)
{
    for (unsigned index = 0; index < VFIO_PCI_NUM_IRQS; index++) {
        for (uint32_t i = 0; i < vectors->count[index]; i++) {
            if (vectors->fds[index][i] >= 0) {
                close(vectors->fds[index][i]);
            }
        }
        free(vectors->fds[index]);
    }
    memset(vectors, 0, sizeof(*vectors));
}

int relay_vectors_reserve(struct relay_vectors *vectors, const struct far_info *info,
                          uint32_t index)
{
    uint32_t count = info->irqs[index].count;
    int *row;

    if (vectors->fds[index] || count == 0) {
        return 0;
    }
    row = malloc(count * sizeof(*row));
    if (!row) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        row[i] = -1;
    }
    vectors->fds[index] = row;
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
        }
    }
}

int relay_vectors_next(const struct relay_vectors *vectors, uint32_t *index, uint32_t *vector)
{
    for (; *index < VFIO_PCI_NUM_IRQS; ++*index, *vector = 0) {
        for (; *vector < vectors->count[*index]; ++*vector) {
            if (vectors->fds[*index][*vector] >= 0) {
                return vectors->fds[*index][*vector];
            }
        }
    }
    return -1;
}
