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
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

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

static int connect_client(struct port *port, int fd)
{
    int ret = vfio_user_endpoint_init(&port->endpoint, port->function, fd);

    if (ret < 0) {
        close(fd);
        return ret;
    }
    port->client = (struct loop_source){
        .fd = fd,
        .events = EPOLLIN,
        .ready = client_ready,
        .opaque = port,
    };
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

/* Make way for a socket at the address: remove one that nobody serves. */
static int remove_stale(const struct sockaddr_un *address)
{
    struct stat st;
    int fd, ret;

    if (lstat(address->sun_path, &st) < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (!S_ISSOCK(st.st_mode)) {
        return -EEXIST;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    ret = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? errno : 0;
    close(fd);
    if (ret != ECONNREFUSED) {
        /* Connected, or its queue is full: it is in use. Else we may not even look. */
        return ret == 0 || ret == EAGAIN ? -EADDRINUSE : -ret;
    }
    return unlink(address->sun_path) < 0 ? -errno : 0;
}

static int open_listener(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, ret;

    if (!*path) {
        return -ENOENT; /* an empty name would be one in no file system */
    }
    if (strlen(path) >= sizeof(address.sun_path)) {
        return -ENAMETOOLONG;
    }
    memcpy(address.sun_path, path, strlen(path));
    ret = remove_stale(&address);
    if (ret < 0) {
        return ret;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4) < 0) {
        ret = -errno;
        close(fd);
        return ret;
    }
    return fd;
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
    int ret, fd = open_listener(path);

    port_init(port, loop, function);
    if (fd < 0) {
        return fd;
    }
    port->path = path;
    port->listener = (struct loop_source){
        .fd = fd,
        .events = EPOLLIN,
        .ready = listener_ready,
        .opaque = port,
    };
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

/* Remove the socket file, unless another server has put its own in this place. */
static void remove_file(const struct port *port)
{
    struct stat st;

    if (lstat(port->path, &st) == 0 && st.st_dev == port->file.st_dev &&
        st.st_ino == port->file.st_ino) {
        unlink(port->path);
    }
}

void port_close(struct port *port)
{
    if (port->connected) {
        drop_client(port);
    } else if (port->listener.fd >= 0) {
        loop_remove(port->loop, &port->listener);
    }
    if (port->listener.fd >= 0) {
        remove_file(port); /* while it is ours: its inode cannot be another's yet */
        close(port->listener.fd);
        port->listener.fd = -1;
    }
}

void port_update(struct port *port)
{
    if (port->connected) {
        vfio_user_endpoint_update(&port->endpoint);
        /* The poll and epoll names of these events have the same values. */
        loop_set_events(port->loop, &port->client, vfio_user_endpoint_events(&port->endpoint));
    }
}
