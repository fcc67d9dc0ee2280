/* SPDX-License-Identifier: BSD-2-Clause */
/* --device vhost-user-net: a virtio-net function whose rings a vhost-user back-end works on. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "kind.h"
#include "log.h"
#include "parse.h"
#include "service.h"
#include "summary.h"
#include "virtio/net.h"

enum {
    MAC_GROUP = 1, /* in its first byte: an address of many */
    MAC_LOCAL = 2, /* given here, not by a maker */
    TIMEOUT_MAX_MS = 60000,
};

static bool set_mac(struct serve_device_options *device, const char *value)
{
    struct serve_net_options *own = &device->net;
    unsigned bytes[VIRTIO_NET_MAC_SIZE], any = 0;
    int end = 0;

    if (strspn(value, "0123456789abcdefABCDEF:") != strlen(value) ||
        sscanf(value, "%2x:%2x:%2x:%2x:%2x:%2x%n", &bytes[0], &bytes[1], &bytes[2], &bytes[3],
               &bytes[4], &bytes[5], &end) != VIRTIO_NET_MAC_SIZE ||
        value[end] || bytes[0] & MAC_GROUP) {
        return false;
    }
    for (unsigned i = 0; i < VIRTIO_NET_MAC_SIZE; i++) {
        own->mac[i] = (uint8_t)bytes[i];
        any |= bytes[i];
    }
    own->mac_given = true;
    return any != 0;
}

static bool set_timeout(struct serve_device_options *device, const char *value)
{
    uint64_t number;

    if (!parse_number(value, &number) || number == 0 || number > TIMEOUT_MAX_MS) {
        return false;
    }
    device->net.timeout_ms = (unsigned)number;
    return true;
}

static const struct serve_key keys[] = {
    {"timeout", "1 to 60000", false, set_timeout},
    {"mac", "the address of one interface, as 02:00:00:00:00:01", false, set_mac},
    {0},
};

static int open_net(struct served_device *served, const struct serve_device_options *options)
{
    struct virtio_net_setup setup = {
        .far = options->far,
        .timeout_ms = options->net.timeout_ms,
        /* Devices of one guest differ. */
        .mac = {MAC_LOCAL, 'v', 'i', 'o', (uint8_t)(options->requester >> 8),
                (uint8_t)options->requester},
        .device = served->behind,
        .memory = served->memory,
        .loop = served->loop,
    };
    int ret;

    if (options->net.mac_given) {
        memcpy(setup.mac, options->net.mac, sizeof(setup.mac));
    }
    if (strlen(options->far) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
        /* Nobody will ever be there. */
        server_log("%s: cannot connect to %s: %s", served->name, options->far,
                   service_far_error(-ENAMETOOLONG));
        return -ENAMETOOLONG;
    }
    ret = virtio_net_create(&setup, served->name, &served->net);
    if (ret < 0) {
        server_log("cannot make %s: %s", served->name, strerror(-ret));
        return ret;
    }
    served->function = virtio_net_function(served->net);
    return 0;
}

static int close_net(struct served_device *served)
{
    virtio_net_destroy(served->net);
    return 0;
}

static void summarize(const struct served_device *served)
{
    virtio_net_summary(served->net, summary_print_line);
}

/* What the far process has of the guest's memory, and where its rings are, is said on a connection
 * whose other end cannot be told that it is another process now: no handover. */
const struct serve_kind serve_kind_vhost_user_net = {
    .name = "vhost-user-net",
    .far = "the socket of a vhost-user back-end",
    .needs_unit = true,
    .keys = keys,
    .open = open_net,
    .close = close_net,
    .summarize = summarize,
};
