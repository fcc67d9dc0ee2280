/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The library's vhost backend, for the test of who uses it: its functions, which write down what
 * they are called for, and what a far process does, at the test's word. One at a time; only for
 * net_test.c.
 */
#ifndef VIOMMU_SERVER_VIRTIO_TEST_VHOST_H
#define VIOMMU_SERVER_VIRTIO_TEST_VHOST_H

#include <errno.h>
#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include <viommu/vhost.h>

#include "virtio/test_driver.h"

#define ACCESS_PLATFORM (UINT64_C(1) << VIRTIO_F_ACCESS_PLATFORM)

enum { TEST_BOTH = 2 };

static struct viommu_vhost {
    bool there;
    struct viommu_vhost_config config;
    enum viommu_vhost_state state;
    int event;
    uint64_t offers;   /* the features of the far process */
    uint64_t accepted; /* told by the function */
    unsigned accepts, creations, reconnections;
    int create_error;
    struct {
        bool runs, stopping, cut;
        unsigned starts;
        struct viommu_vhost_ring setup;
    } rings[TEST_BOTH];
} far;

int viommu_vhost_create(const struct viommu_vhost_config *config, struct viommu_vhost **out)
{
    if (far.create_error < 0) {
        return far.create_error;
    }
    assert_false(far.there);
    far.there = true;
    far.config = *config;
    far.state = VIOMMU_VHOST_NEGOTIATING;
    far.event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    far.creations++;
    *out = &far;
    return 0;
}

void viommu_vhost_destroy(struct viommu_vhost *vhost)
{
    if (vhost) {
        close(vhost->event);
        close(vhost->config.fd);
        vhost->there = false;
    }
}

int viommu_vhost_event_fd(struct viommu_vhost *vhost)
{
    return vhost->event;
}

int viommu_vhost_process(struct viommu_vhost *vhost)
{
    (void)vhost;
    return 0;
}

enum viommu_vhost_state viommu_vhost_state(const struct viommu_vhost *vhost)
{
    return vhost->state;
}

uint64_t viommu_vhost_features(const struct viommu_vhost *vhost)
{
    uint64_t transport = TEST_VERSION_1 | ACCESS_PLATFORM;

    return vhost->state == VIOMMU_VHOST_READY ? vhost->offers & (vhost->config.features | transport)
                                              : 0;
}

int viommu_vhost_accept(struct viommu_vhost *vhost, uint64_t features)
{
    assert_int_equal(vhost->state, VIOMMU_VHOST_READY);
    assert_int_equal(features & ~viommu_vhost_features(vhost), 0);
    if (vhost->rings[0].runs || vhost->rings[1].runs || vhost->rings[0].stopping ||
        vhost->rings[1].stopping) {
        return -EBUSY;
    }
    vhost->accepted = features;
    vhost->accepts++;
    return 0;
}

int viommu_vhost_ring_start(struct viommu_vhost *vhost, unsigned ring,
                            const struct viommu_vhost_ring *setup)
{
    assert_int_equal(vhost->state, VIOMMU_VHOST_READY);
    assert_true(ring < vhost->config.rings && vhost->accepts > 0);
    assert_false(vhost->rings[ring].runs || vhost->rings[ring].stopping || vhost->rings[ring].cut);
    vhost->rings[ring].runs = true;
    vhost->rings[ring].starts++;
    vhost->rings[ring].setup = *setup;
    return 0;
}

int viommu_vhost_ring_stop(struct viommu_vhost *vhost, unsigned ring)
{
    if (vhost->rings[ring].cut) {
        assert_int_not_equal(vhost->state, VIOMMU_VHOST_READY);
        vhost->rings[ring].cut = false;
        return 0;
    }
    if (vhost->state != VIOMMU_VHOST_READY || !vhost->rings[ring].runs) {
        return -EINVAL;
    }
    vhost->rings[ring].runs = false;
    vhost->rings[ring].stopping = true;
    return 0;
}

int viommu_vhost_ring_renew(struct viommu_vhost *vhost, unsigned ring, int kick, int call)
{
    assert_int_equal(vhost->state, VIOMMU_VHOST_FAILED);
    assert_true(vhost->rings[ring].cut);
    vhost->rings[ring].setup.kick = kick;
    vhost->rings[ring].setup.call = call;
    return 0;
}

int viommu_vhost_reconnect(struct viommu_vhost *vhost, int fd)
{
    char byte;

    assert_int_equal(vhost->state, VIOMMU_VHOST_FAILED);
    if (viommu_device_read(vhost->config.device, NULL, 0, &byte, sizeof(byte)) == -EPERM) {
        return -EPERM;
    }
    close(vhost->config.fd);
    vhost->config.fd = fd;
    vhost->state = VIOMMU_VHOST_NEGOTIATING;
    vhost->reconnections++;
    return 0;
}

int viommu_vhost_statistics(const struct viommu_vhost *vhost,
                            struct viommu_vhost_statistics *statistics, size_t size)
{
    (void)vhost;
    memset(statistics, 0, size);
    return 0;
}

static void far_is_ready(uint64_t offers)
{
    far.offers = offers | TEST_VERSION_1 | ACCESS_PLATFORM;
    far.state = VIOMMU_VHOST_READY;
    far.accepts = 0;
    for (unsigned i = 0; i < TEST_BOTH; i++) {
        far.rings[i].runs |= far.rings[i].cut;
        far.rings[i].cut = false;
    }
    far.config.ready(far.config.opaque);
}

static void far_stopped(unsigned ring, uint16_t next)
{
    assert_true(far.rings[ring].stopping);
    far.rings[ring].stopping = false;
    far.config.stopped(far.config.opaque, ring, next);
}

static void far_failed(int error)
{
    far.state = VIOMMU_VHOST_FAILED;
    for (unsigned i = 0; i < TEST_BOTH; i++) {
        far.rings[i].cut |= far.rings[i].runs;
        far.rings[i].runs = far.rings[i].stopping = false;
        far.rings[i].setup.kick = far.rings[i].setup.call = -1; /* of the last one */
    }
    far.config.failed(far.config.opaque, error);
}

#endif
