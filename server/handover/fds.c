/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors beside saved state; see fds.h. */
#include "handover/fds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint32_t none = UINT32_MAX;

void handover_fds_fini(struct handover_fds *fds)
{
    free(fds->fds);
    memset(fds, 0, sizeof(*fds));
}

void handover_fds_close(struct handover_fds *fds)
{
    for (size_t i = 0; i < fds->count; i++) {
        if (fds->fds[i] >= 0) {
            close(fds->fds[i]);
        }
    }
    handover_fds_fini(fds);
}

int handover_fds_add(struct handover_fds *fds, int fd)
{
    /* Regions of one file follow one another, so the last ones are looked at first. */
    for (size_t i = fds->count; i > 0; i--) {
        if (fds->fds[i - 1] == fd) {
            return (int)(i - 1);
        }
    }
    if (fds->count == HANDOVER_FDS_MAX) {
        return -ENOSPC;
    }
    if (fds->count == fds->room) {
        size_t room = fds->room ? 2 * fds->room : 64;
        int *more = realloc(fds->fds, room * sizeof(*more));

        if (!more) {
            return -ENOMEM;
        }
        fds->fds = more;
        fds->room = room;
    }
    fds->fds[fds->count] = fd;
    return (int)fds->count++;
}

void handover_put_fd(struct save_writer *writer, struct handover_fds *fds, int fd)
{
    int place = fd < 0 ? 0 : handover_fds_add(fds, fd);

    if (place < 0 && !writer->error) {
        writer->error = place;
    }
    save_put32(writer, fd < 0 ? none : (uint32_t)place);
}

/* The place that is named next; the list's length when none is. */
static size_t get_place(struct save_section *section, const struct handover_fds *fds)
{
    uint32_t place = save_get32(section);

    if (section->error || place == none) {
        return fds->count;
    }
    if (place >= fds->count || fds->fds[place] < 0) {
        save_spoil(section);
        return fds->count;
    }
    return place;
}

int handover_take_fd(struct save_section *section, struct handover_fds *fds)
{
    size_t place = get_place(section, fds);
    int fd = -1;

    if (place < fds->count) {
        fd = fds->fds[place];
        fds->fds[place] = -1;
    }
    return fd;
}

int handover_look_fd(struct save_section *section, const struct handover_fds *fds)
{
    size_t place = get_place(section, fds);

    return place < fds->count ? fds->fds[place] : -1;
}

void handover_put_data(struct save_writer *writer, const void *data, size_t size)
{
    save_put64(writer, size);
    save_put_bytes(writer, data, size);
}

const void *handover_get_data(struct save_section *section, size_t most, size_t *size)
{
    uint64_t count = save_get64(section);

    *size = 0;
    if (count > most) {
        save_spoil(section);
    }
    if (section->error) {
        return NULL;
    }
    *size = (size_t)count;
    return save_get_bytes(section, *size);
}
