/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One PCI function served to one vfio-user client: every command of the protocol, carried out on a
 * struct pci_function.
 *
 * Life: init attaches the function to a connected socket; _ready is called whenever the socket is;
 * fini, when _ready returned an error or the server ends, resets the function, removes all client
 * memory and closes everything that the client gave.
 *
 * A command is checked completely before it acts. What is wrong with it becomes an error reply;
 * the connection is given up only when its framing is lost. Commands are handled in the order they
 * come, one at a time, and none blocks; an unmap that has to wait keeps back those after it, so
 * that a client cannot pile them up. Reply-type messages of the client (to our DMA_WRITE) are
 * ignored.
 *
 * What we ask of the client goes over its twin socket, if it has one (client_dma.h): there we wait
 * for answers, so a command may take as long as a DMA of the function does, which has its limit.
 *
 * Invariants: nothing but VERSION is obeyed before a VERSION succeeded; the DMA table lists exactly
 * the regions that the function was told of. One thread at a time.
 */
#ifndef VIOMMU_SERVER_VFIO_USER_ENDPOINT_H
#define VIOMMU_SERVER_VFIO_USER_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "../pci_function.h"
#include "vfio_user/connection.h"
#include "client_dma.h"
#include "dma_table.h"
#include "interrupts.h"
#include "version.h"

struct vfio_user_endpoint {
    struct pci_function *function;
    struct vfio_user_connection connection;
    struct vfio_user_interrupts interrupts;
    struct vfio_user_dma_table dma;
    struct vfio_user_capabilities client;
    struct vfio_user_client_dma client_dma;
    bool negotiated;
    int error;        /* sending failed outside of _ready: the next _ready returns it */
    uint16_t next_id; /* of commands that we send */
    /* An unmap that is answered (or over, if it wants no reply) when nothing uses what was unmapped
     * any more. No command is taken in meanwhile. */
    bool holding;
    struct vfio_user_header held;
    struct vfio_user_dma_unmap held_reply;
    uint8_t *buffer; /* data of a region read, kept between commands while it is small */
    size_t buffer_room;
    uint64_t commands;      /* handled */
    uint64_t refused;       /* answered with an error */
    uint64_t messages_lost; /* interrupt messages that the client was too slow for */
    bool told_no_twin;      /* people know that its memory cannot be reached by messages */
};

/* Map client memory, as a command does. fd is -1 without a file, and stays the caller's. Returns 0
 * or a negative errno. */
int vfio_user_endpoint_map(struct vfio_user_endpoint *endpoint, const struct pci_dma_region *region,
                           int fd);

/* Take over a connected socket and attach the function to it. Returns 0 or a negative errno (the
 * socket is then still the caller's). */
int vfio_user_endpoint_init(struct vfio_user_endpoint *endpoint, struct pci_function *function,
                            int fd);

/* With the connection there, the part of _init that concerns the function. */
void vfio_user_endpoint_attach(struct vfio_user_endpoint *endpoint, struct pci_function *function);

void vfio_user_endpoint_fini(struct vfio_user_endpoint *endpoint);

/* The same, without a word to the function or the client, when another process goes on with them:
 * only descriptors are closed, and client memory unmapped. */
void vfio_user_endpoint_discard(struct vfio_user_endpoint *endpoint);

/* The socket is readable or writable: go on, for a bounded number of commands. Returns 0, or a
 * negative errno when the connection is over: -ECONNRESET is the client's ordinary leave. */
int vfio_user_endpoint_ready(struct vfio_user_endpoint *endpoint);

/* The function or its memory may have changed outside of _ready: send what waited for that. */
void vfio_user_endpoint_update(struct vfio_user_endpoint *endpoint);

/* The poll events (POLLIN, POLLOUT) that the endpoint waits for. */
uint32_t vfio_user_endpoint_events(const struct vfio_user_endpoint *endpoint);

#endif
