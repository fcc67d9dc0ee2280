/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Saving and loading an endpoint; endpoint_state.h says what for.
 *
 * Order in the section: the endpoint's own fields, the connection, the twin socket, the interrupts,
 * the DMA regions.
 * Memory comes last, so that all the rest is known to be right before anything is mapped.
 */
#include "endpoint_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../client_file.h"

enum {
    /* A kept output is as much as may wait before no command is taken in, and one reply. */
    OUTPUT_MAX = VFIO_USER_OUTPUT_LIMIT + (2 << 20),
    REGION_READABLE = 1,
    REGION_WRITABLE = 2,
};

const char *vfio_user_endpoint_unsaveable(const struct vfio_user_endpoint *endpoint)
{
    if (endpoint->holding) {
        return "client memory is still in use";
    }
    for (size_t i = 0; i < endpoint->dma.n; i++) {
        if (endpoint->dma.ranges[i]->file_lost) {
            return "its client has more memory files than are kept";
        }
    }
    return NULL;
}

/* ---- the connection ------------------------------------------------------------------------- */

static void save_connection(struct vfio_user_connection *connection, struct save_writer *writer,
                            struct handover_fds *fds)
{
    size_t head = connection->received < sizeof(connection->header) ? connection->received
                                                                    : sizeof(connection->header);

    handover_put_fd(writer, fds, connection->fd);
    handover_put_data(writer, &connection->header, head);
    handover_put_data(writer, connection->payload, connection->received - head);
    save_put8(writer, connection->fds_lost);
    save_put32(writer, connection->n_fds);
    for (unsigned i = 0; i < connection->n_fds; i++) {
        handover_put_fd(writer, fds, connection->fds[i]);
    }
    if (vfio_user_connection_pending(connection)) {
        handover_put_data(writer, connection->output + connection->output_first,
                          connection->output_end - connection->output_first);
    } else {
        handover_put_data(writer, NULL, 0);
    }
}

/* Copies what was read, or does nothing where nothing was. */
static uint8_t *copy(struct save_section *section, const void *data, size_t size, size_t room)
{
    uint8_t *bytes = data && room > 0 ? malloc(room) : NULL;

    if (bytes) {
        memcpy(bytes, data, size);
    } else if (data && room > 0 && !section->error) {
        section->error = -ENOMEM;
    }
    return bytes;
}

/* The part of a message that has come. */
static void load_received(struct vfio_user_connection *connection, struct save_section *section)
{
    size_t head, more, payload;
    const void *bytes = handover_get_data(section, sizeof(connection->header), &head);

    if (bytes) {
        memcpy(&connection->header, bytes, head);
    }
    bytes = handover_get_data(section, VFIO_USER_MAX_PAYLOAD, &more);
    connection->received = head;
    if (head < sizeof(connection->header)) {
        if (more > 0) {
            save_spoil(section);
        }
        return;
    }
    /* A header that is whole belongs to a message that is not, else it would have been handled. */
    if (connection->header.size <= sizeof(connection->header) ||
        connection->header.size > sizeof(connection->header) + VFIO_USER_MAX_PAYLOAD ||
        more >= connection->header.size - sizeof(connection->header)) {
        save_spoil(section);
        return;
    }
    payload = connection->header.size - sizeof(connection->header);
    connection->payload = copy(section, bytes, more, payload);
    connection->payload_room = connection->payload ? payload : 0;
    connection->received += more;
}

static void load_connection(struct vfio_user_connection *connection, struct save_section *section,
                            struct handover_fds *fds)
{
    const void *bytes;
    size_t size;
    uint32_t count;
    int is_listener = 0;
    socklen_t length = sizeof(is_listener);

    connection->fd = handover_take_fd(section, fds);
    if (connection->fd < 0 || getsockopt(connection->fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listener,
                                         &length) < 0 || is_listener) {
        save_spoil(section);
    }
    load_received(connection, section);
    connection->fds_lost = save_get8(section) != 0;
    count = save_get32(section);
    if (count > VFIO_USER_MAX_FDS) {
        save_spoil(section);
    }
    for (uint32_t i = 0; i < count && !section->error; i++) {
        connection->fds[connection->n_fds++] = handover_take_fd(section, fds);
    }
    bytes = handover_get_data(section, OUTPUT_MAX, &size);
    connection->output = copy(section, bytes, size, size);
    connection->output_room = connection->output_end = connection->output ? size : 0;
}

/* The twin socket. Requests are over when it is saved: only a post may be on its way. */
static void save_client_dma(struct vfio_user_client_dma *dma, struct save_writer *writer,
                            struct handover_fds *fds)
{
    save_put8(writer, dma->open);
    if (dma->open) {
        save_put16(writer, dma->next_id);
        save_connection(&dma->connection, writer, fds);
    }
}

static void load_client_dma(struct vfio_user_endpoint *endpoint, struct save_section *section,
                            struct handover_fds *fds)
{
    struct vfio_user_client_dma *dma = &endpoint->client_dma;
    uint64_t most = endpoint->client.max_data_xfer_size;

    if (save_get8(section) == 0) {
        return;
    }
    dma->next_id = save_get16(section);
    dma->transfer_max = most < VFIO_USER_MAX_DATA ? (size_t)most : VFIO_USER_MAX_DATA;
    dma->error = endpoint->error;
    dma->open = true;
    load_connection(&dma->connection, section, fds);
    if (dma->connection.received > 0 || most == 0) {
        save_spoil(section);
    }
}

/* ---- interrupts ----------------------------------------------------------------------------- */

static void save_interrupts(const struct vfio_user_interrupts *interrupts,
                            struct save_writer *writer, struct handover_fds *fds)
{
    for (unsigned index = 0; index < VFIO_PCI_NUM_IRQS; index++) {
        save_put32(writer, interrupts->count[index]);
        for (unsigned i = 0; i < interrupts->count[index]; i++) {
            handover_put_fd(writer, fds, interrupts->vector[index][i].eventfd);
            save_put8(writer, interrupts->vector[index][i].pending);
        }
    }
    save_put8(writer, interrupts->intx_level);
    save_put8(writer, interrupts->intx_masked);
}

static void load_vector(struct vfio_user_vector *vector, struct save_section *section,
                        struct handover_fds *fds)
{
    vector->eventfd = handover_take_fd(section, fds);
    vector->pending = save_get8(section) != 0;
    if (vector->eventfd >= 0 && vfio_user_interrupts_accept(&vector->eventfd, 1) < 0) {
        save_spoil(section);
    }
}

/* The counts are those of the function, and known. */
static void load_interrupts(struct vfio_user_interrupts *interrupts, struct save_section *section,
                            struct handover_fds *fds)
{
    for (unsigned index = 0; index < VFIO_PCI_NUM_IRQS; index++) {
        if (save_get32(section) != interrupts->count[index]) {
            save_spoil(section);
        }
        for (unsigned i = 0; i < interrupts->count[index] && !section->error; i++) {
            load_vector(&interrupts->vector[index][i], section, fds);
        }
    }
    interrupts->intx_level = save_get8(section) != 0;
    interrupts->intx_masked = save_get8(section) != 0;
}

/* ---- client memory -------------------------------------------------------------------------- */

static void save_regions(const struct vfio_user_dma_table *dma, struct save_writer *writer,
                         struct handover_fds *fds)
{
    save_put32(writer, (uint32_t)dma->n);
    for (size_t i = 0; i < dma->n; i++) {
        const struct vfio_user_dma_range *range = dma->ranges[i];

        save_put64(writer, range->first);
        save_put64(writer, range->last);
        save_put64(writer, range->file_offset);
        save_put8(writer, (uint8_t)((range->readable ? REGION_READABLE : 0) |
                                    (range->writable ? REGION_WRITABLE : 0)));
        handover_put_fd(writer, fds, range->file ? client_file_fd(range->file) : -1);
    }
}

static int load_region(struct vfio_user_endpoint *endpoint, struct save_section *section,
                       const struct handover_fds *fds)
{
    struct pci_dma_region region;
    uint8_t flags;
    int fd;

    region.first = save_get64(section);
    region.last = save_get64(section);
    region.file_offset = save_get64(section);
    flags = save_get8(section);
    fd = handover_look_fd(section, fds);
    region.readable = flags & REGION_READABLE;
    region.writable = flags & REGION_WRITABLE;
    if (region.first > region.last || (flags & ~(REGION_READABLE | REGION_WRITABLE))) {
        save_spoil(section);
    }
    return section->error ? section->error : vfio_user_endpoint_map(endpoint, &region, fd);
}

static int load_regions(struct vfio_user_endpoint *endpoint, struct save_section *section,
                        const struct handover_fds *fds)
{
    uint32_t count = save_get32(section);
    int ret = section->error;

    for (uint32_t i = 0; i < count && ret == 0; i++) {
        ret = load_region(endpoint, section, fds);
    }
    return ret;
}

/* ---- all ------------------------------------------------------------------------------------ */

void vfio_user_endpoint_save(struct vfio_user_endpoint *endpoint, struct save_writer *writer,
                             struct handover_fds *fds)
{
    vfio_user_connection_settle(&endpoint->connection);
    save_put8(writer, endpoint->negotiated);
    save_put64(writer, endpoint->client.max_msg_fds);
    save_put64(writer, endpoint->client.max_data_xfer_size);
    save_put64(writer, endpoint->client.pgsizes);
    save_put8(writer, endpoint->client.twin_socket);
    save_put32(writer, (uint32_t)-endpoint->error);
    save_put16(writer, endpoint->next_id);
    save_connection(&endpoint->connection, writer, fds);
    save_client_dma(&endpoint->client_dma, writer, fds);
    save_interrupts(&endpoint->interrupts, writer, fds);
    save_regions(&endpoint->dma, writer, fds);
}

int vfio_user_endpoint_load(struct vfio_user_endpoint *endpoint, struct pci_function *function,
                            struct save_section *section, struct handover_fds *fds)
{
    uint32_t error;

    memset(endpoint, 0, sizeof(*endpoint));
    vfio_user_endpoint_attach(endpoint, function);
    endpoint->negotiated = save_get8(section) != 0;
    endpoint->client.max_msg_fds = save_get64(section);
    endpoint->client.max_data_xfer_size = save_get64(section);
    endpoint->client.pgsizes = save_get64(section);
    endpoint->client.twin_socket = save_get8(section) != 0;
    error = save_get32(section);
    endpoint->next_id = save_get16(section);
    if (error > 4095) {
        save_spoil(section); /* no errno is */
    } else {
        endpoint->error = -(int)error;
    }
    load_connection(&endpoint->connection, section, fds);
    load_client_dma(endpoint, section, fds);
    load_interrupts(&endpoint->interrupts, section, fds);
    return load_regions(endpoint, section, fds);
}
