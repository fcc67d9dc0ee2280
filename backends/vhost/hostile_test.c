/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A back-end that hangs, lies, floods or dies: it is cut off, what waited for it ends, nothing is
 * left open, and another one can take its place.
 */
#include "vhost/test_far.h"

#include "vhost/private.h"

/* A page that the far side holds, and an invalidation of it that it was told of. */
static void hold_and_flush(struct bed *bed)
{
    bed_map(bed, 0x200000, 0x50000, SPEC_R);
    far_miss(&bed->far, 0x200000, 1);
    bed_run(bed);
    assert_non_null(far_find(&bed->far, 0x200000, 1));
    bed->far.silent = true;
    bed_flush_begin(bed, 0x200000, 0);
    bed_run(bed);
    assert_false(bed_flushed(bed));
}

static void assert_failed(struct bed *bed, int error)
{
    assert_int_equal(bed->failed, 1);
    assert_int_equal(bed->error, error);
    assert_int_equal(viommu_vhost_state(bed->vhost), VIOMMU_VHOST_FAILED);
    assert_int_equal(viommu_vhost_process(bed->vhost), error);
    assert_int_equal(bed->failed, 1);
    assert_int_equal(viommu_vhost_features(bed->vhost), 0);
}

/* Denied, for who knows what the far side still does; let in again, with another one, it goes
   on. */
static void assert_denied_and_healed(struct bed *bed)
{
    struct viommu_translation translation;

    assert_true(bed_flushed(bed));
    assert_int_equal(viommu_device_translate(bed->device, NULL, 0x100000, 1, &translation), -EPERM);
    assert_int_equal(viommu_device_reset(bed->device), 0);
    assert_int_equal(viommu_vhost_reconnect(bed->vhost, bed_pair(bed)), 0);
    bed_run(bed);
    assert_int_equal(bed->ready, 2);
    assert_non_null(far_find(&bed->far, 0x102000, 3));
    assert_int_equal(viommu_vhost_process(bed->vhost), 0);
}

static bool far_is_cut_off(const struct far *far)
{
    char byte;

    return recv(far->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void test_never_acknowledges(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    hold_and_flush(&bed);
    bed.clock += 74 * FAR_MS;
    bed_run(&bed);
    assert_int_equal(viommu_vhost_process(bed.vhost), 0);
    assert_false(bed_flushed(&bed));
    /* Before the IOMMU's own time is over, and the guest goes on. */
    bed.clock += 2 * FAR_MS;
    assert_int_equal(viommu_vhost_process(bed.vhost), -ETIMEDOUT);
    assert_true(bed_flushed(&bed));
    assert_failed(&bed, -ETIMEDOUT);
    assert_denied_and_healed(&bed);
    bed_fini(&bed);
}

/* Nobody calls viommu_vhost_process: by the library's own time-out it is cut off all the same. */
static void test_nobody_processes(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    hold_and_flush(&bed);
    bed.clock += 99 * FAR_MS;
    assert_false(bed_flushed(&bed));
    assert_false(far_is_cut_off(&bed.far));
    bed.clock += 2 * FAR_MS;
    assert_true(bed_flushed(&bed));
    assert_true(far_is_cut_off(&bed.far));
    /* Late, but all there is to say. */
    assert_int_equal(bed.failed, 0);
    assert_true(bed_has_work(&bed));
    assert_int_equal(viommu_vhost_process(bed.vhost), -ETIMEDOUT);
    assert_failed(&bed, -ETIMEDOUT);
    assert_denied_and_healed(&bed);
    bed_fini(&bed);
}

/* What is called meanwhile finds a far side that is gone, and does not hide why. */
static void test_much_is_done_before_it_is_processed(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    hold_and_flush(&bed);
    bed.clock += 101 * FAR_MS;
    assert_true(bed_flushed(&bed));
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 0), 0);
    assert_int_equal(viommu_vhost_reconnect(bed.vhost, -1), -EBUSY);
    assert_int_equal(viommu_vhost_process(bed.vhost), -ETIMEDOUT);
    assert_int_equal(bed.stopped, 0);
    assert_failed(&bed, -ETIMEDOUT);
    bed_fini(&bed);
}

static void owe_refusal(struct far *far)
{
    far_answer(far, VHOST_USER_IOTLB_MSG, 1);
}

static void owe_garbage(struct far *far)
{
    far_send(far->fd, VHOST_USER_IOTLB_MSG, VHOST_USER_REPLY, "1234", 4);
}

/* However it ends, an INVALIDATE that is not acknowledged denies the device. */
static void test_ends_instead_of_acknowledging(void **state)
{
    const struct {
        void (*end)(struct far *far);
        int error;
    } ways[] = {
        {owe_refusal, -EIO},
        {owe_garbage, -EPROTO},
        {far_close, -ECONNRESET},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        struct bed bed;

        bed_start(&bed);
        hold_and_flush(&bed);
        ways[i].end(&bed.far);
        assert_int_equal(viommu_vhost_process(bed.vhost), ways[i].error);
        assert_failed(&bed, ways[i].error);
        assert_denied_and_healed(&bed);
        bed_fini(&bed);
    }
}

/* Its owner ends it: then nothing is wrong with the device. */
static void test_ended_before_it_acknowledges(void **state)
{
    struct viommu_translation translation;
    struct bed bed;

    (void)state;
    bed_start(&bed);
    hold_and_flush(&bed);
    viommu_vhost_destroy(bed.vhost);
    bed.vhost = NULL;
    assert_true(bed_flushed(&bed));
    assert_true(far_is_cut_off(&bed.far));
    assert_int_equal(viommu_device_translate(bed.device, NULL, 0x100000, 1, &translation), 0);
    bed_fini(&bed);
}

/* That it left is found when it is told something. */
static void test_gone_when_it_is_told(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    far_close(&bed.far);
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 0), 0);
    assert_int_equal(viommu_vhost_process(bed.vhost), -ECONNRESET);
    assert_failed(&bed, -ECONNRESET);
    bed_fini(&bed);
}

/* What is late first is not what was asked for first. */
static void test_late_out_of_order(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_start_ring(&bed, 1, 0x108000);
    bed_map(&bed, 0x300000, 0x60000, SPEC_R);
    far_miss(&bed.far, 0x300000, 1);
    hold_and_flush(&bed); /* late at 75 ms */
    bed.clock += 10 * FAR_MS;
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 1), 0); /* at 1010 */
    bed.clock += 20 * FAR_MS;
    bed_flush_begin(&bed, 0x300000, 0); /* at 105 */
    far_answer(&bed.far, VHOST_USER_IOTLB_MSG, 0);
    bed.clock += 50 * FAR_MS;
    assert_int_equal(viommu_vhost_process(bed.vhost), 0);
    bed.clock += 24 * FAR_MS;
    assert_int_equal(viommu_vhost_process(bed.vhost), 0);
    bed.clock += 2 * FAR_MS;
    assert_int_equal(viommu_vhost_process(bed.vhost), -ETIMEDOUT);
    assert_failed(&bed, -ETIMEDOUT);
    bed_fini(&bed);
}

static void test_never_answers(void **state)
{
    struct bed bed;

    (void)state;
    bed_init(&bed);
    bed_create(&bed);
    bed.clock += 999 * FAR_MS;
    assert_int_equal(viommu_vhost_process(bed.vhost), 0);
    bed.clock += 2 * FAR_MS;
    assert_int_equal(viommu_vhost_process(bed.vhost), -ETIMEDOUT);
    assert_failed(&bed, -ETIMEDOUT);
    bed_fini(&bed);
}

static void test_never_stops(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed.far.silent = true;
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 0), 0);
    bed.clock += 1001 * FAR_MS;
    assert_int_equal(viommu_vhost_process(bed.vhost), -ETIMEDOUT);
    assert_int_equal(bed.stopped, 0);
    assert_failed(&bed, -ETIMEDOUT);
    /* It was to stop: it does not go on. */
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 0), -EINVAL);
    assert_int_equal(viommu_vhost_reconnect(bed.vhost, bed_pair(&bed)), 0);
    bed_run(&bed);
    assert_int_equal(viommu_vhost_state(bed.vhost), VIOMMU_VHOST_READY);
    assert_false(bed.far.rings[0].enabled);
    bed_fini(&bed);
}

/* ---- what makes no sense ---- */

struct lie {
    const char *what;
    void (*tell)(struct far *far);
    int error;
};

static void tell_unasked(struct far *far)
{
    far_answer(far, VHOST_USER_GET_FEATURES, 0);
}

static void tell_wrong_request(struct far *far)
{
    far_answer(far, VHOST_USER_SET_OWNER, 0);
}

static void tell_no_reply(struct far *far)
{
    uint64_t number = 0;

    far_send(far->fd, VHOST_USER_IOTLB_MSG, 0, &number, 8);
}

static void tell_wrong_version(struct far *far)
{
    struct vhost_user_header header = {VHOST_USER_IOTLB_MSG, VHOST_USER_REPLY | 2, 8};
    uint64_t number = 0;

    assert_int_equal(send(far->fd, &header, sizeof(header), 0), sizeof(header));
    assert_int_equal(send(far->fd, &number, sizeof(number), 0), sizeof(number));
}

static void tell_short(struct far *far)
{
    far_send(far->fd, VHOST_USER_IOTLB_MSG, VHOST_USER_REPLY, "1234", 4);
}

static void tell_empty(struct far *far)
{
    far_send(far->fd, VHOST_USER_IOTLB_MSG, VHOST_USER_REPLY, "", 0);
}

static void tell_long(struct far *far)
{
    uint8_t bytes[33] = {0};

    far_send(far->fd, VHOST_USER_IOTLB_MSG, VHOST_USER_REPLY, bytes, sizeof(bytes));
}

static void tell_huge(struct far *far)
{
    struct vhost_user_header header = {VHOST_USER_IOTLB_MSG, VHOST_USER_REPLY | 1, UINT32_MAX};

    assert_int_equal(send(far->fd, &header, sizeof(header), 0), sizeof(header));
}

static void tell_refusal(struct far *far)
{
    far_answer(far, VHOST_USER_IOTLB_MSG, 1);
}

static void send_with_fds(int to, uint32_t request, uint32_t flags, size_t size, unsigned count)
{
    union {
        char room[CMSG_SPACE(32 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct {
        struct vhost_user_header header;
        uint8_t payload[32];
    } message = {.header = {request, flags | 1, (uint32_t)size}};
    struct iovec iov = {&message, sizeof(message.header) + size};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (unsigned i = 0; i < count; i++) {
        memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &to, sizeof(to));
    }
    assert_true(sendmsg(to, &msg, 0) > 0);
}

static void tell_with_fd(struct far *far)
{
    send_with_fds(far->fd, VHOST_USER_IOTLB_MSG, VHOST_USER_REPLY, 8, 1);
}

static void tell_with_fds(struct far *far)
{
    send_with_fds(far->fd, VHOST_USER_IOTLB_MSG, VHOST_USER_REPLY, 8, 32);
}

static void ask_with_fds(struct far *far)
{
    send_with_fds(far->requests, VHOST_USER_BACKEND_IOTLB_MSG, 0, 32, 3);
}

static void ask_something_else(struct far *far)
{
    struct vhost_iotlb_msg m = {0};

    far_send(far->requests, 2, 0, &m, sizeof(m));
}

static void ask_reply(struct far *far)
{
    struct vhost_iotlb_msg m = {.type = VHOST_IOTLB_MISS, .perm = 1};

    far_send(far->requests, VHOST_USER_BACKEND_IOTLB_MSG, VHOST_USER_REPLY, &m, sizeof(m));
}

static void ask_short(struct far *far)
{
    struct vhost_iotlb_msg m = {.type = VHOST_IOTLB_MISS, .perm = 1};

    far_send(far->requests, VHOST_USER_BACKEND_IOTLB_MSG, 0, &m, 26);
}

static void ask_update(struct far *far)
{
    struct vhost_iotlb_msg m = {.type = VHOST_IOTLB_UPDATE, .perm = 1, .size = 0x1000};

    far_send(far->requests, VHOST_USER_BACKEND_IOTLB_MSG, 0, &m, sizeof(m));
}

static void ask_for_nothing(struct far *far)
{
    far_miss(far, 0x200000, 0);
}

static void ask_to_execute(struct far *far)
{
    far_miss(far, 0x200000, 4);
}

static void ask_hang_up(struct far *far)
{
    assert_int_equal(shutdown(far->requests, SHUT_RDWR), 0);
}

static const struct lie lies[] = {
    {"a wrong request", tell_wrong_request, -EPROTO},
    {"no reply", tell_no_reply, -EPROTO},
    {"a wrong version", tell_wrong_version, -EPROTO},
    {"too short", tell_short, -EPROTO},
    {"empty", tell_empty, -EPROTO},
    {"too long", tell_long, -EPROTO},
    {"huge", tell_huge, -EPROTO},
    {"a refusal", tell_refusal, -EIO},
    {"a descriptor", tell_with_fd, -EPROTO},
    {"descriptors", tell_with_fds, -EPROTO},
    {"questions with descriptors", ask_with_fds, -EPROTO},
    {"another question", ask_something_else, -EPROTO},
    {"a question that is a reply", ask_reply, -EPROTO},
    {"a short question", ask_short, -EPROTO},
    {"an UPDATE", ask_update, -EPROTO},
    {"no access", ask_for_nothing, -EPROTO},
    {"another access", ask_to_execute, -EPROTO},
    {"one socket closed", ask_hang_up, -ECONNRESET},
};

/* As of a kernel that cannot refuse descriptors. */
static void take_descriptors(int fd)
{
    const int yes = 1;

    (void)setsockopt(fd, SOL_SOCKET, 83 /* SO_PASSRIGHTS */, &yes, sizeof(yes));
}

/* Each while the guest waits: its invalidation completes, and no descriptor is left. */
static void test_lies(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
        unsigned fds = bed_open_fds();
        struct bed bed;

        bed_start(&bed);
        hold_and_flush(&bed);
        take_descriptors(bed.vhost->main.fd);
        take_descriptors(bed.vhost->requests.fd);
        lies[i].tell(&bed.far);
        bed_run(&bed);
        if (bed.error != lies[i].error) {
            fail_msg("%s: %d", lies[i].what, bed.error);
        }
        assert_failed(&bed, lies[i].error);
        assert_true(bed_flushed(&bed));
        bed_fini(&bed);
        if (bed_open_fds() != fds) {
            fail_msg("%s: %u descriptors", lies[i].what, bed_open_fds());
        }
    }
}

/* Without a question. */
static void test_says_something_unasked(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    tell_unasked(&bed.far);
    bed_run(&bed);
    assert_failed(&bed, -EPROTO);
    bed_fini(&bed);
}

static void test_stops_elsewhere(void **state)
{
    static const struct vhost_vring_state states[] = {{1, 5}, {0, 0x10000}};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct bed bed;

        bed_start(&bed);
        bed.far.silent = true;
        assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 0), 0);
        far_answer(&bed.far, VHOST_USER_SET_VRING_ENABLE, 0);
        far_send(bed.far.fd, VHOST_USER_GET_VRING_BASE, VHOST_USER_REPLY, &states[i], 8);
        (void)viommu_vhost_process(bed.vhost);
        assert_failed(&bed, -EPROTO);
        assert_int_equal(bed.stopped, 0);
        bed_fini(&bed);
    }
}

/* A message in pieces is one message. */
static void test_speaks_slowly(void **state)
{
    struct {
        struct vhost_user_header header;
        struct vhost_iotlb_msg m;
    } __attribute__((packed)) question = {
        {VHOST_USER_BACKEND_IOTLB_MSG, VHOST_USER_VERSION | VHOST_USER_NEED_REPLY, 32},
        {.iova = 0x200000, .perm = 1, .type = VHOST_IOTLB_MISS},
    };
    uint64_t reply[3] = {1, 1, 1};
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    for (unsigned i = 0; i < sizeof(question); i++) {
        assert_null(far_find(&bed.far, 0x200000, 1));
        assert_int_equal(send(bed.far.requests, (uint8_t *)&question + i, 1, 0), 1);
        bed_run(&bed);
    }
    assert_non_null(far_find(&bed.far, 0x200000, 1));
    /* And this one wanted to know that it was heard. */
    assert_int_equal(recv(bed.far.requests, reply, sizeof(reply), MSG_DONTWAIT), 20);
    assert_int_equal(((uint32_t *)reply)[1], VHOST_USER_VERSION | VHOST_USER_REPLY);
    assert_int_equal(((uint32_t *)reply)[3], 0);
    bed_fini(&bed);
}

/* ---- floods ---- */

/* More is to be answered than is remembered: the guest's invalidation does not wait for that. */
static void test_no_room_to_wait(void **state)
{
    struct viommu_subscriber_status status;
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    while (bed.vhost->wait_count < VHOST_WAITS_MAX) {
        bed.vhost->waits[bed.vhost->wait_count++] = (struct vhost_wait){.deadline = UINT64_MAX};
    }
    bed_flush_begin(&bed, 0x200000, 0);
    (void)viommu_subscriber_status(bed.vhost->subscriber, &status, sizeof(status));
    assert_true(status.fenced);
    assert_true(bed_flushed(&bed));
    (void)viommu_vhost_process(bed.vhost);
    assert_failed(&bed, -ENOBUFS);
    bed_fini(&bed);
}

/* It asks until it is not heard any more. */
static void flood(struct bed *bed)
{
    struct {
        struct vhost_user_header header;
        struct vhost_iotlb_msg m;
    } __attribute__((packed))
    question = {{VHOST_USER_BACKEND_IOTLB_MSG, VHOST_USER_VERSION, 32},
                {.iova = 0x200000, .perm = 1, .type = VHOST_IOTLB_MISS}};
    unsigned idle = 0;

    bed_start(bed);
    bed_map(bed, 0x200000, 0x50000, SPEC_R);
    while (idle < 100) {
        bool sent = send(bed->far.requests, &question, sizeof(question), MSG_DONTWAIT) > 0;

        assert_int_equal(viommu_vhost_process(bed->vhost), 0);
        idle = sent ? 0 : idle + 1;
    }
}

static void process(struct bed *bed)
{
    while (bed_has_work(bed)) {
        assert_int_equal(viommu_vhost_process(bed->vhost), 0);
    }
}

/* It asks, and answers, more at once than is taken in at a time; what is left needs no more to
   come. */
static void test_says_much_at_once(void **state)
{
    struct bed bed;

    (void)state;
    for (unsigned count = VHOST_BUDGET - 1; count <= VHOST_BUDGET + 8; count++) {
        bed_start(&bed);
        bed_map(&bed, 0x200000, 0x50000, SPEC_R);
        for (unsigned i = 0; i < count; i++) {
            far_miss(&bed.far, 0x200000, 1);
        }
        process(&bed);
        assert_int_equal(bed_statistics(&bed).misses, count);
        bed_run(&bed);
        while (bed.vhost->wait_count < count) {
            bed.vhost->waits[(bed.vhost->wait_first + bed.vhost->wait_count++) % VHOST_WAITS_MAX] =
                (struct vhost_wait){.kind = VHOST_WAIT_ACK,
                                    .request = VHOST_USER_IOTLB_MSG,
                                    .deadline = UINT64_MAX};
        }
        for (unsigned i = 0; i < count; i++) {
            far_answer(&bed.far, VHOST_USER_IOTLB_MSG, 0);
        }
        process(&bed);
        assert_int_equal(bed.vhost->wait_count, 0);
        bed_fini(&bed);
    }
}

/* It asks, and does not read: it is asked for no more than fits, then it is not heard. */
static void test_floods_and_does_not_read(void **state)
{
    struct bed bed;

    (void)state;
    flood(&bed);
    assert_true(vhost_channel_waiting(&bed.vhost->main) < VHOST_OUT_MUCH + 4096);
    assert_false(bed_has_work(&bed));
    /* It reads: all is as before. */
    bed_run(&bed);
    assert_int_equal(viommu_vhost_state(bed.vhost), VIOMMU_VHOST_READY);
    assert_non_null(far_find(&bed.far, 0x200000, 1));
    bed_fini(&bed);
}

/*
 * A ring was to be told anew while too much waited; then all of that leaves at once, and nothing
 * more comes from a far side that is asleep.
 */
static void test_ring_is_told_after_a_flood(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    while (vhost_channel_waiting(&bed.vhost->main) <= VHOST_OUT_MUCH) {
        far_miss(&bed.far, 0x200000, 1);
        assert_int_equal(viommu_vhost_process(bed.vhost), 0);
    }
    bed.far.silent = true;
    bed_flush_begin(&bed, 0x100000, 2);
    far_answer(&bed.far, VHOST_USER_IOTLB_MSG, 0); /* it knew what was to come */
    assert_int_equal(viommu_vhost_process(bed.vhost), 0);
    assert_true(bed_flushed(&bed));
    while (bed.vhost->rings_due) {
        while (far_step(&bed.far)) {
            /* all that has left */
        }
        assert_true(bed_has_work(&bed));
        assert_int_equal(viommu_vhost_process(bed.vhost), 0);
    }
    while (far_step(&bed.far)) {
        /* and the rest */
    }
    assert_non_null(far_find(&bed.far, 0x102000, 3));
    bed_fini(&bed);
}

/* Nor is it heard when it then hangs up there: that keeps nobody awake. */
static void test_floods_and_hangs_up(void **state)
{
    struct bed bed;

    (void)state;
    flood(&bed);
    assert_int_equal(shutdown(bed.far.requests, SHUT_RDWR), 0);
    (void)viommu_vhost_process(bed.vhost);
    assert_false(bed_has_work(&bed));
    bed_run(&bed);
    assert_failed(&bed, -ECONNRESET);
    bed_fini(&bed);
}

/* It wants replies to its questions and does not read them. */
static void test_does_not_read_replies(void **state)
{
    struct {
        struct vhost_user_header header;
        struct vhost_iotlb_msg m;
    } __attribute__((packed))
    question = {{VHOST_USER_BACKEND_IOTLB_MSG, VHOST_USER_VERSION | VHOST_USER_NEED_REPLY, 32},
                {.iova = 0x200000, .perm = 1, .type = VHOST_IOTLB_MISS}};
    struct bed bed;

    (void)state;
    bed_start(&bed);
    for (unsigned i = 0; i < 100000 && !bed.failed; i++) {
        (void)send(bed.far.requests, &question, sizeof(question), MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)viommu_vhost_process(bed.vhost);
        while (far_step(&bed.far)) {
            /* it does read these */
        }
    }
    assert_failed(&bed, -ENOBUFS);
    bed_fini(&bed);
}

/* The guest invalidates without end, and the far side reads nothing. */
static void test_does_not_read_invalidations(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    for (unsigned i = 0; i < 20000 && !bed.failed; i++) {
        far_miss(&bed.far, 0x200000, 1);
        (void)viommu_vhost_process(bed.vhost);
        guest_queue_put(&bed.guest, spec_iotlb_invalidate(SPEC_SELECTIVE, 1, 0x200000, 0, false));
        guest_queue_kick(&bed.guest);
        guest_process(&bed.guest);
        if (i % 64 == 63) {
            bed.clock += 110 * FAR_MS;
            (void)viommu_vhost_process(bed.vhost);
        }
    }
    assert_int_equal(bed.failed, 1);
    assert_true(vhost_channel_waiting(&bed.vhost->main) == 0);
    bed_fini(&bed);
}

/* Somebody has a copy of the socket: there is nothing to do all the same. */
static void test_copies_are_not_polled(void **state)
{
    struct bed bed;
    int copy;

    (void)state;
    bed_start(&bed);
    copy = fcntl(bed.vhost->main.fd, F_DUPFD_CLOEXEC, 0);
    assert_true(copy >= 0);
    tell_huge(&bed.far);
    bed_run(&bed);
    assert_failed(&bed, -EPROTO);
    assert_false(bed_has_work(&bed));
    close(copy);
    bed_fini(&bed);
}

/* New refusals do not put off those that are remembered. */
static void test_refusals_without_end(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    for (unsigned i = 0; i < 10; i++) {
        bed.clock += FAR_MS / 2;
        far_miss(&bed.far, 0x300000 + i * 0x1000, 1);
        bed_run(&bed);
    }
    assert_non_null(far_find(&bed.far, 0x200000, 1));
    bed_fini(&bed);
}

/* ---- no memory, no descriptors ---- */

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_never_acknowledges),
        cmocka_unit_test(test_nobody_processes),
        cmocka_unit_test(test_much_is_done_before_it_is_processed),
        cmocka_unit_test(test_ends_instead_of_acknowledging),
        cmocka_unit_test(test_ended_before_it_acknowledges),
        cmocka_unit_test(test_gone_when_it_is_told),
        cmocka_unit_test(test_late_out_of_order),
        cmocka_unit_test(test_never_answers),
        cmocka_unit_test(test_never_stops),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_says_something_unasked),
        cmocka_unit_test(test_stops_elsewhere),
        cmocka_unit_test(test_speaks_slowly),
        cmocka_unit_test(test_no_room_to_wait),
        cmocka_unit_test(test_says_much_at_once),
        cmocka_unit_test(test_floods_and_does_not_read),
        cmocka_unit_test(test_ring_is_told_after_a_flood),
        cmocka_unit_test(test_floods_and_hangs_up),
        cmocka_unit_test(test_does_not_read_replies),
        cmocka_unit_test(test_does_not_read_invalidations),
        cmocka_unit_test(test_copies_are_not_polled),
        cmocka_unit_test(test_refusals_without_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
