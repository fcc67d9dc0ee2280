/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * net.h - a network interface of the guest's kernel, and frames that are to come back from it.
 *
 * Every frame has a number, and its length and bytes follow from that: so one that was lost,
 * changed or returned twice is seen.  Functions are of one thread.
 */
#ifndef VIOMMU_GUEST_NET_H
#define VIOMMU_GUEST_NET_H

#include <stdbool.h>
#include <stdint.h>

enum {
    NET_FRAMES_MAX = 1 << 20,
};

struct net {
    char name[16];      /* "eth0" */
    char bdf[16];       /* "0000:00:11.0" */
    uint8_t mac[6];
    int index;
    int fd;             /* a packet socket, or -1 */
};

/* Wait for the kernel's interface and open it; what fails is reported. */
bool net_open(struct net *net);
void net_close(struct net *net);

/* Take the driver off the device; and give it back, and open the interface anew. */
bool net_unbind(struct net *net);
bool net_bind(struct net *net);

/* Wait until the link is up, or down. */
bool net_wait_link(const struct net *net, bool up, unsigned seconds);

/* Whether the driver and the device have agreed on a feature. */
bool net_has_feature(const struct net *net, unsigned bit);

/* How frames fared. */
struct net_echo {
    unsigned back;      /* different ones */
    unsigned wrong;     /* changed, or none of ours */
    unsigned twice;
    unsigned again;     /* sent more than once: they had not come back */
    double seconds;
};

/*
 * Send frames, and wait for each to come back; those that do not are sent again where `lossy`. 
 * Ends when all are back, or when none has come for some seconds.  Returns whether all came back,
 * once each unless lossy, and unchanged.
 */
bool net_echo(const struct net *net, unsigned frames, bool lossy, struct net_echo *echo);

/* Print what the kernel counted. */
void net_show_counters(const struct net *net);

/* Send frames, and do not wait for them. */
void net_send_some(const struct net *net, unsigned frames);

#endif
