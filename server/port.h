/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A port: one PCI function offered on one Unix socket, to one client after the other.
 *
 * Waiting, the port listens. Connected, it serves its client and does not listen (the next client
 * waits in the socket's queue). When the client goes, the function is reset, the client's memory is
 * let go, and the port listens again.
 */
#ifndef VIOMMU_SERVER_PORT_H
#define VIOMMU_SERVER_PORT_H

#include <stdbool.h>
#include <sys/stat.h>

#include "loop.h"
#include "handover/fds.h"
#include "vfio_user/endpoint.h"

struct port {
    struct loop *loop;
    struct pci_function *function;
    const char *path;
    struct stat file; /* what path named when the port was opened: the socket */
    bool connected;
    bool paused; /* nothing is watched */
    struct loop_source listener;
    struct loop_source client;
    struct vfio_user_endpoint endpoint;
    unsigned clients; /* that came, in all */
};

/*
 * Offer the function on a socket at path (both must outlive the port). A socket file that nobody
 * serves is replaced. Returns 0; -EADDRINUSE when somebody serves it; -EEXIST when path is
 * something else than a socket; -ENOENT when it is empty; -ENAMETOOLONG; or another negative
 * errno.
 */
int port_open(struct port *port, struct loop *loop, struct pci_function *function,
              const char *path);

/* Serve a socket that is already connected, once; there is no listener. */
int port_open_connected(struct port *port, struct loop *loop, struct pci_function *function,
                        int fd);

/* Drop the client, and remove the socket file. */
void port_close(struct port *port);

/* Take nothing in any more, neither clients nor commands; and go on. */
void port_pause(struct port *port);
int port_resume(struct port *port);

/*
 * State for another process that goes on with the port: its sockets, and the endpoint's own (see
 * vfio_user/endpoint_state.h). Save a paused one, into the section that is open; the port stays as
 * it is.
 */
void port_save(struct port *port, struct save_writer *writer, struct handover_fds *fds);

/* Makes a port of what was saved; it is paused. Returns 0 or a negative errno; then and later
 * port_discard gives it up, so that its client, the function and the socket file notice nothing. */
int port_load(struct port *port, struct loop *loop, struct pci_function *function, const char *path,
              struct save_section *section, struct handover_fds *fds);
void port_discard(struct port *port);

/* Something may have been sent outside of the port's own events: watch for what is needed now. */
void port_update(struct port *port);

#endif
