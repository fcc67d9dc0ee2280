/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's vhost, whose descriptor is one end of a pair of sockets here and whose ioctls are
 * the test's: the messages are as the kernel's header has them.
 */
#include "vhost/test_far.h"

#include "vhost/private.h"

#include <linux/vhost.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

static struct {
    uint64_t features;
    uint64_t chosen;
    bool refuse_get;
    bool refuse_set;
} kernel;

/* Instead of the C library's. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    uint64_t *features;

    (void)fd;
    va_start(arguments, request);
    features = va_arg(arguments, uint64_t *);
    va_end(arguments);
    if ((request == VHOST_GET_BACKEND_FEATURES && kernel.refuse_get) ||
        (request == VHOST_SET_BACKEND_FEATURES && kernel.refuse_set)) {
        errno = ENOTTY;
        return -1;
    }
    if (request == VHOST_GET_BACKEND_FEATURES) {
        *features = kernel.features;
    } else {
        assert_int_equal(request, VHOST_SET_BACKEND_FEATURES);
        kernel.chosen = *features;
    }
    return 0;
}

static unsigned interrupts; /* so many calls are cut short by a signal */
static bool takes_a_part;

static bool interrupted(void)
{
    if (!interrupts) {
        return false;
    }
    interrupts--;
    errno = EINTR;
    return true;
}

ssize_t read(int fd, void *bytes, size_t size)
{
    return interrupted() ? -1 : syscall(SYS_read, fd, bytes, size);
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    if (size == sizeof(struct vhost_msg_v2) && takes_a_part) {
        return (ssize_t)size - 1;
    }
    if (size == sizeof(struct vhost_msg_v2) && interrupted()) {
        return -1;
    }
    return syscall(SYS_write, fd, bytes, size);
}

/* The kernel's own end: a message a read. */
static int bed_kernel(struct bed *bed)
{
    struct viommu_vhost_config config = bed_config(bed);
    int ends[2];
    int ret;

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    config.kind = VIOMMU_VHOST_KERNEL;
    config.fd = ends[0];
    bed->far.fd = ends[1];
    ret = viommu_vhost_create(&config, &bed->vhost);
    if (ret) {
        close(ends[0]);
        bed->vhost = NULL;
    }
    return ret;
}

static void bed_kernel_start(struct bed *bed)
{
    bed_init(bed);
    kernel.features = UINT64_C(1) << VHOST_BACKEND_F_IOTLB_MSG_V2 | 0xf0;
    assert_int_equal(bed_kernel(bed), 0);
    assert_int_equal(viommu_vhost_process(bed->vhost), 0);
    assert_int_equal(bed->ready, 1);
}

static void kernel_miss(struct bed *bed, uint64_t iova, uint8_t perm)
{
    struct vhost_msg_v2 message = {.type = VHOST_IOTLB_MSG_V2};

    message.iotlb = (struct vhost_iotlb_msg){.iova = iova, .perm = perm, .type = VHOST_IOTLB_MISS};
    assert_int_equal(send(bed->far.fd, &message, sizeof(message), 0), sizeof(message));
    assert_true(bed_has_work(bed));
    (void)viommu_vhost_process(bed->vhost);
}

/* What was written, byte by byte as the kernel reads it; size 0: nothing. */
static struct vhost_msg_v2 kernel_read(struct bed *bed)
{
    struct vhost_msg_v2 message = {0};
    uint8_t bytes[128];
    ssize_t n = recv(bed->far.fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n >= 0) {
        assert_int_equal(n, sizeof(message));
        memcpy(&message, bytes, sizeof(message));
        assert_int_equal(message.type, VHOST_IOTLB_MSG_V2);
        assert_int_equal(message.asid, 0);
    }
    return message;
}

static void test_kernel_is_told(void **state)
{
    struct vhost_msg_v2 m;
    struct bed bed;

    (void)state;
    /* The layout that the kernel reads. */
    assert_int_equal(sizeof(m), 72);
    assert_int_equal(offsetof(struct vhost_msg_v2, iotlb), 8);
    assert_int_equal(offsetof(struct vhost_iotlb_msg, perm), 24);
    assert_int_equal(offsetof(struct vhost_iotlb_msg, type), 25);

    bed_kernel_start(&bed);
    assert_true(kernel.chosen == UINT64_C(1) << VHOST_BACKEND_F_IOTLB_MSG_V2);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R | SPEC_W);
    bed_map(&bed, 0x201000, 0x51000, SPEC_R | SPEC_W);
    kernel_miss(&bed, 0x200800, VHOST_ACCESS_RO);
    m = kernel_read(&bed);
    assert_int_equal(m.iotlb.type, VHOST_IOTLB_UPDATE);
    assert_int_equal(m.iotlb.perm, VHOST_ACCESS_RW);
    assert_true(m.iotlb.iova == 0x200000 && m.iotlb.size == 0x2000);
    assert_ptr_equal((void *)(uintptr_t)m.iotlb.uaddr, bed.ram + 0x50000);

    /* It is done when it is written. */
    bed_unmap(&bed, 0x201000);
    bed_flush_begin(&bed, 0x201000, 0);
    assert_true(bed_flushed(&bed));
    m = kernel_read(&bed);
    assert_int_equal(m.iotlb.type, VHOST_IOTLB_INVALIDATE);
    assert_true(m.iotlb.iova == 0x201000 && m.iotlb.size == 0x1000);
    bed_flush_begin(&bed, 0x201000, 0);
    assert_true(bed_flushed(&bed));
    assert_int_equal(kernel_read(&bed).iotlb.size, 0);
    assert_int_equal(bed_statistics(&bed).acknowledged, 1);
    assert_int_equal(bed_statistics(&bed).skipped, 1);

    /* Refused, remembered, healed. */
    kernel_miss(&bed, 0x300000, VHOST_ACCESS_WO);
    assert_int_equal(kernel_read(&bed).iotlb.size, 0);
    assert_int_equal(bed_faults(&bed), 1);
    bed_map(&bed, 0x300000, 0x60000, SPEC_W);
    bed.clock += 10 * FAR_MS;
    assert_int_equal(viommu_vhost_process(bed.vhost), 0);
    m = kernel_read(&bed);
    assert_true(m.iotlb.iova == 0x300000 && m.iotlb.perm == VHOST_ACCESS_WO);

    /* Of rings and connections it knows nothing. */
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 0), -EINVAL);
    assert_int_equal(viommu_vhost_reconnect(bed.vhost, -1), -ENOTSUP);
    bed_fini(&bed);
}

/* Two slots that follow one another in this process, and in the device's addresses: still two. */
static void test_runs_end_with_a_slot(void **state)
{
    struct viommu_memory_slot slots[2];
    struct vhost_msg_v2 m;
    struct bed bed;

    (void)state;
    bed_kernel_start(&bed);
    for (unsigned i = 0; i < 2; i++) {
        slots[i] = bed_slot(&bed, 16 + 2 * i, 17 + 2 * i, 0);
        slots[i].first += (i + 1ull) << 30;
        slots[i].last += (i + 1ull) << 30;
    }
    bed_slots(&bed, slots, 2);
    for (unsigned i = 0; i < 4; i++) {
        bed_map(&bed, 0x200000 + i * 0x1000, slots[i / 2].first + i % 2 * 0x1000, SPEC_R);
    }
    for (unsigned i = 0; i < 2; i++) {
        kernel_miss(&bed, 0x200000 + (1 + i) * 0x1000, VHOST_ACCESS_RO);
        m = kernel_read(&bed);
        assert_int_equal(m.iotlb.type, VHOST_IOTLB_UPDATE);
        assert_true(m.iotlb.iova == 0x200000 + i * 0x2000 && m.iotlb.size == 0x2000);
        assert_ptr_equal((void *)(uintptr_t)m.iotlb.uaddr, slots[i].host);
    }
    bed_fini(&bed);
}

static void test_memory_goes(void **state)
{
    struct viommu_memory_batch *batch;
    struct viommu_memory_slot extra;
    struct vhost_msg_v2 m;
    struct bed bed;

    (void)state;
    bed_kernel_start(&bed);
    extra = bed_slot(&bed, 1, 1, 0);
    extra.first += 1u << 30;
    extra.last += 1u << 30;
    extra.fd = -1; /* the kernel needs no file */
    bed_slots(&bed, &extra, 1);
    bed_map(&bed, 0x200000, extra.first, SPEC_R);
    kernel_miss(&bed, 0x200000, VHOST_ACCESS_RO);
    m = kernel_read(&bed);
    assert_ptr_equal((void *)(uintptr_t)m.iotlb.uaddr, bed.ram + 4096);
    assert_int_equal(viommu_memory_batch_begin(bed.guest.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_remove(batch, extra.first, extra.last), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    m = kernel_read(&bed);
    assert_int_equal(m.iotlb.type, VHOST_IOTLB_INVALIDATE);
    assert_true(m.iotlb.iova == 0 && m.iotlb.size > 0x201000);
    kernel_miss(&bed, 0x200000, VHOST_ACCESS_RO);
    assert_int_equal(kernel_read(&bed).iotlb.size, 0);
    bed_fini(&bed);
}

static void on_done(void *opaque)
{
    *(bool *)opaque = true;
}

/* It cannot be told that memory goes: that stays until it is cut off. */
static void test_memory_goes_untold(void **state)
{
    struct viommu_memory_batch *batch;
    struct bed bed;
    bool done = false;

    (void)state;
    bed_kernel_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    kernel_miss(&bed, 0x200000, VHOST_ACCESS_RO);
    for (struct vhost_msg_v2 m = {0}; write(bed.vhost->fd, &m, sizeof(m)) > 0;) {
        /* until it is full */
    }
    assert_int_equal(viommu_memory_batch_begin(bed.guest.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_remove(batch, 0, FAR_PAGES * 4096 - 1), 0);
    (void)viommu_memory_batch_commit(batch, on_done, &done);
    assert_false(done);
    assert_int_equal(viommu_vhost_process(bed.vhost), -EAGAIN);
    viommu_memory_process(bed.guest.memory);
    assert_true(done);
    bed_fini(&bed);
}

static void test_kernel_lacks_something(void **state)
{
    struct bed bed;

    (void)state;
    bed_init(&bed);
    kernel.features = 1;
    assert_int_equal(bed_kernel(&bed), -ENOTSUP);
    far_close(&bed.far);
    kernel.features = UINT64_MAX;
    kernel.refuse_get = true;
    assert_int_equal(bed_kernel(&bed), -ENOTSUP);
    far_close(&bed.far);
    kernel.refuse_get = false;
    kernel.refuse_set = true;
    assert_int_equal(bed_kernel(&bed), -ENOTSUP);
    kernel.refuse_set = false;
    bed_fini(&bed);
}

/* It takes no message: the guest's invalidation may not seem done. */
static void test_kernel_fails(void **state)
{
    struct viommu_subscriber_status status;
    struct bed bed;

    (void)state;
    bed_kernel_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    kernel_miss(&bed, 0x200000, VHOST_ACCESS_RO);
    assert_int_equal(kernel_read(&bed).iotlb.type, VHOST_IOTLB_UPDATE);
    /* Full. */
    for (struct vhost_msg_v2 m = {0}; write(bed.vhost->fd, &m, sizeof(m)) > 0;) {
        /* until it is */
    }
    bed_flush_begin(&bed, 0x200000, 0);
    (void)viommu_subscriber_status(bed.vhost->subscriber, &status, sizeof(status));
    assert_true(status.fenced);
    assert_int_equal(viommu_vhost_process(bed.vhost), -EAGAIN);
    assert_int_equal(bed.failed, 1);
    assert_true(bed_flushed(&bed));
    bed_fini(&bed);
}

static void test_kernel_says_nonsense(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct vhost_msg_v2 message = {.type = VHOST_IOTLB_MSG_V2};
        struct bed bed;

        bed_kernel_start(&bed);
        message.iotlb.type = i == 0 ? VHOST_IOTLB_UPDATE : VHOST_IOTLB_MISS;
        message.iotlb.perm = 1;
        message.type = i == 1 ? VHOST_IOTLB_MSG : VHOST_IOTLB_MSG_V2;
        assert_true(send(bed.far.fd, &message, sizeof(message) - (i == 2), 0) > 0);
        assert_int_equal(viommu_vhost_process(bed.vhost), -EPROTO);
        assert_int_equal(bed.failed, 1);
        /* Who has a copy of its descriptor has nothing of the guest's. */
        message = kernel_read(&bed);
        assert_int_equal(message.iotlb.type, VHOST_IOTLB_INVALIDATE);
        assert_true(message.iotlb.iova == 0 && message.iotlb.size == UINT64_MAX);
        bed_fini(&bed);
    }
}

static void test_signals_are_no_errors(void **state)
{
    struct bed bed;

    (void)state;
    bed_kernel_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    interrupts = 8; /* of the wake-ups' reads, too, then of the message's and of the answer */
    kernel_miss(&bed, 0x200000, VHOST_ACCESS_RO);
    assert_int_equal(interrupts, 0);
    assert_int_equal(kernel_read(&bed).iotlb.type, VHOST_IOTLB_UPDATE);
    assert_int_equal(bed.failed, 0);
    bed_unmap(&bed, 0x200000);
    interrupts = 2;
    bed_flush_begin(&bed, 0x200000, 0);
    assert_int_equal(interrupts, 0);
    assert_int_equal(kernel_read(&bed).iotlb.type, VHOST_IOTLB_INVALIDATE);
    assert_true(bed_flushed(&bed));
    assert_int_equal(bed.failed, 0);
    bed_fini(&bed);
}

/* A part of a message is none. */
static void test_kernel_takes_a_part(void **state)
{
    struct bed bed;

    (void)state;
    bed_kernel_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    kernel_miss(&bed, 0x200000, VHOST_ACCESS_RO);
    takes_a_part = true;
    bed_unmap(&bed, 0x200000);
    bed_flush_begin(&bed, 0x200000, 0);
    takes_a_part = false;
    assert_int_equal(viommu_vhost_process(bed.vhost), -EIO);
    assert_int_equal(bed.failed, 1);
    assert_true(bed_flushed(&bed));
    bed_fini(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernel_is_told),
        cmocka_unit_test(test_runs_end_with_a_slot),
        cmocka_unit_test(test_memory_goes),
        cmocka_unit_test(test_memory_goes_untold),
        cmocka_unit_test(test_kernel_lacks_something),
        cmocka_unit_test(test_kernel_fails),
        cmocka_unit_test(test_kernel_says_nonsense),
        cmocka_unit_test(test_signals_are_no_errors),
        cmocka_unit_test(test_kernel_takes_a_part),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
