/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listening, accepting, and letting go of clients; see port.h.
 */
#include "port.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "unix_socket.h"
#include "vfio_user/endpoint_state.h"

static int listen_again(struct port *port)
{
    return port->listener.fd < 0 ? 0 : loop_add(port->loop, &port->listener);
}

static void drop_client(struct port *port)
{
    loop_remove(port->loop, &port->client);
    vfio_user_endpoint_fini(&port->endpoint);
    port->connected = false;
}

static void client_ready(void *opaque, uint32_t events)
{
    struct port *port = opaque;
    int ret = vfio_user_endpoint_ready(&port->endpoint);

    if (ret == 0 && (events & (EPOLLHUP | EPOLLERR)) && !(events & EPOLLIN)) {
        ret = -ECONNRESET;
    }
    if (ret < 0) {
        drop_client(port);
        server_log("%s: client left%s%s", port->function->name, ret == -ECONNRESET ? "" : ": ",
                   ret == -ECONNRESET ? "" : strerror(-ret));
        ret = listen_again(port);
        if (ret < 0) {
            server_log("%s: cannot listen: %s", port->function->name, strerror(-ret));
        }
    }
}

static struct loop_source client_source(struct port *port, int fd)
{
    return (struct loop_source){
        .fd = fd,
        .events = EPOLLIN,
        .ready = client_ready,
        .opaque = port,
    };
}

static int connect_client(struct port *port, int fd)
{
    int ret = vfio_user_endpoint_init(&port->endpoint, port->function, fd);

    if (ret < 0) {
        close(fd);
        return ret;
    }
    port->client = client_source(port, fd);
    ret = loop_add(port->loop, &port->client);
    if (ret < 0) {
        vfio_user_endpoint_fini(&port->endpoint);
        return ret;
    }
    port->connected = true;
    port->clients++;
    return 0;
}

static void listener_ready(void *opaque, uint32_t events)
{
    struct port *port = opaque;
    int fd = accept4(port->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    int ret;

    (void)events;
    if (fd < 0) {
        return;
    }
    loop_remove(port->loop, &port->listener);
    ret = connect_client(port, fd);
    if (ret < 0) {
        server_log("%s: cannot serve a client: %s", port->function->name, strerror(-ret));
        listen_again(port);
    } else {
        server_log("%s: client connected", port->function->name);
    }
}

static struct loop_source listener_source(struct port *port, int fd)
{
    return (struct loop_source){
        .fd = fd,
        .events = EPOLLIN,
        .ready = listener_ready,
        .opaque = port,
    };
}

static void port_init(struct port *port, struct loop *loop, struct pci_function *function)
{
    memset(port, 0, sizeof(*port));
    port->loop = loop;
    port->function = function;
    port->listener.fd = -1;
}

int port_open(struct port *port, struct loop *loop, struct pci_function *function, const char *path)
{
    int ret, fd = unix_socket_listen(path, 0777);

    port_init(port, loop, function);
    if (fd < 0) {
        return fd;
    }
    port->path = path;
    port->listener = listener_source(port, fd);
    ret = lstat(path, &port->file) < 0 ? -errno : listen_again(port);
    if (ret < 0) {
        port_close(port);
    }
    return ret;
}

int port_open_connected(struct port *port, struct loop *loop, struct pci_function *function, int fd)
{
    port_init(port, loop, function);
    return connect_client(port, fd);
}

void port_close(struct port *port)
{
    if (port->connected) {
        drop_client(port);
    } else if (port->listener.fd >= 0) {
        loop_remove(port->loop, &port->listener);
    }
    if (port->listener.fd >= 0) {
        unix_socket_remove(port->path, &port->file);
        close(port->listener.fd);
        port->listener.fd = -1;
    }
}

void port_update(struct port *port)
{
    if (port->connected) {
        vfio_user_endpoint_update(&port->endpoint);
    }
    if (port->connected && !port->paused) {
        loop_set_events(port->loop, &port->client, vfio_user_endpoint_events(&port->endpoint));
    }
}

void port_pause(struct port *port)
{
    port->paused = true;
    if (port->connected) {
        loop_remove(port->loop, &port->client);
    } else if (port->listener.fd >= 0) {
        loop_remove(port->loop, &port->listener);
    }
}

int port_resume(struct port *port)
{
    port->paused = false;
    if (!port->connected) {
        return listen_again(port);
    }
    /* What waits to be sent may have come while it was paused, or from another process. */
    port->client.events = vfio_user_endpoint_events(&port->endpoint);
    return loop_add(port->loop, &port->client);
}

void port_save(struct port *port, struct save_writer *writer, struct handover_fds *fds)
{
    handover_put_fd(writer, fds, port->listener.fd);
    save_put64(writer, port->file.st_dev);
    save_put64(writer, port->file.st_ino);
    save_put8(writer, port->connected);
    if (port->connected) {
        vfio_user_endpoint_save(&port->endpoint, writer, fds);
    }
}

/* Is it a socket that listens? */
static bool is_listener(int fd)
{
    int listens = 0;
    socklen_t length = sizeof(listens);

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens;
}

int port_load(struct port *port, struct loop *loop, struct pci_function *function, const char *path,
              struct save_section *section, struct handover_fds *fds)
{
    int ret;

    port_init(port, loop, function);
    port->path = path;
    port->paused = true;
    port->listener = listener_source(port, handover_take_fd(section, fds));
    port->file.st_dev = save_get64(section);
    port->file.st_ino = save_get64(section);
    port->connected = save_get8(section) != 0;
    if (!is_listener(port->listener.fd)) {
        save_spoil(section);
    }
    if (section->error || !port->connected) {
        port->connected = false;
        return section->error;
    }
    ret = vfio_user_endpoint_load(&port->endpoint, function, section, fds);
    port->client = client_source(port, port->endpoint.connection.fd);
    return ret;
}

void port_discard(struct port *port)
{
    if (!port->paused) {
        port_pause(port);
    }
    if (port->connected) {
        vfio_user_endpoint_discard(&port->endpoint);
        port->connected = false;
    }
    if (port->listener.fd >= 0) {
        close(port->listener.fd);
        port->listener.fd = -1;
    }
}
