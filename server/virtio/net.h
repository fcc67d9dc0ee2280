/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio-net function (virtio 1.3, section 5.1) whose rings are worked on by a far process: a
 * vhost-user back-end, behind an IOMMU (viommu/vhost.h). One pair of queues.
 *
 * The driver sees our function, its MAC and its link. What else is offered is what the far process
 * offers, as far as it is not told of by this function (no control queue). The driver's
 * notifications go to the far process through an eventfd, its interrupts come back through another;
 * each far process gets new ones, so that the last one, if it lives, has no part in it any more.
 *
 * The link is up while the far process is there and can do what the driver has settled on. It may
 * come late, leave, and come back: it is asked for again and again, with growing pauses. What the
 * driver had offered when it left is worked on by the next one, from where the used rings say. One
 * that offers less than the driver has settled on has to wait for a driver that settles anew: the
 * link stays down, and that is said. Nobody was there yet: only what every far process can do is
 * offered.
 *
 * A reset of the driver's ends when the far process has let go of the rings, or was cut off. One of
 * the platform does the same: the client waits for it, and rings of the next driver begin to run
 * afterwards.
 *
 * Threads: the server's one thread.
 */
#ifndef VIOMMU_SERVER_VIRTIO_NET_H
#define VIOMMU_SERVER_VIRTIO_NET_H

#include <stdbool.h>
#include <stdint.h>

#include <viommu/device.h>
#include <viommu/memory.h>

struct loop;
struct pci_function;

struct virtio_net;

enum { VIRTIO_NET_MAC_SIZE = 6 };

struct virtio_net_setup {
    const char *far;     /* the socket of the far process */
    uint32_t timeout_ms; /* that it may take to answer; 0: 1000 */
    uint8_t mac[VIRTIO_NET_MAC_SIZE];
    struct viommu_device *device; /* whose translations hold */
    struct viommu_memory *memory; /* that of the device's IOMMU */
    struct loop *loop;
};

/*
 * Makes the function, and looks for the far process at once; that it is not there is no error. All
 * that setup and name point to outlive it. Returns 0 or a negative errno.
 */
int virtio_net_create(const struct virtio_net_setup *setup, const char *name,
                      struct virtio_net **out);

/* The far process is cut off. NULL is accepted. */
void virtio_net_destroy(struct virtio_net *net);

struct pci_function *virtio_net_function(struct virtio_net *net);

/* Counters for people, a call each. */
void virtio_net_summary(const struct virtio_net *net,
                        void (*line)(const char *name, uint64_t value));

#endif
