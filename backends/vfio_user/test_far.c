/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The far server and the world around the client; see test_far.h.
 */
#include "vfio_user/test_far.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* ---- the server ------------------------------------------------------------------------------ */

void test_far_send_raw(int fd, const void *data, size_t size, const int *fds, unsigned n_fds)
{
    assert_int_equal(support_send_fds(fd, data, size, fds, n_fds), size);
}

void test_far_send(int fd, struct vfio_user_header header, const void *first, size_t first_size,
                   const void *second, size_t second_size, const int *fds, unsigned n_fds)
{
    uint8_t *message;

    header.size = (uint32_t)(sizeof(header) + first_size + second_size);
    message = malloc(header.size);
    assert_non_null(message);
    memcpy(message, &header, sizeof(header));
    if (first_size) {
        memcpy(message + sizeof(header), first, first_size);
    }
    if (second_size) {
        memcpy(message + sizeof(header) + first_size, second, second_size);
    }
    test_far_send_raw(fd, message, header.size, fds, n_fds);
    free(message);
}

static void close_fds(struct test_far *far)
{
    for (unsigned i = 0; i < far->n_fds; i++) {
        close(far->fds[i]);
    }
    far->n_fds = 0;
}

void test_far_forget(struct test_far *far)
{
    close_fds(far);
    free(far->payload);
    far->payload = NULL;
}

/* A whole header comes from one read, as some servers want it. */
static int receive_header(struct test_far *far, int fd)
{
    union {
        char room[CMSG_SPACE(VFIO_USER_MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = &far->header, .iov_len = sizeof(far->header)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.room,
        .msg_controllen = sizeof(control.room),
    };
    ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n == 0 || (n < 0 && (errno == EAGAIN || errno == ECONNRESET))) {
        return 0;
    }
    assert_int_equal(n, sizeof(far->header));
    assert_false(msg.msg_flags & MSG_CTRUNC);
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
        far->n_fds = (unsigned)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(far->fds, CMSG_DATA(cmsg), far->n_fds * sizeof(int));
    }
    return 1;
}

int test_far_receive(struct test_far *far, int fd)
{
    size_t have = 0;

    close_fds(far);
    if (!receive_header(far, fd)) {
        return 0;
    }
    assert_in_range(far->header.size, sizeof(far->header),
                    sizeof(far->header) + VFIO_USER_MAX_PAYLOAD);
    far->payload_size = far->header.size - sizeof(far->header);
    free(far->payload);
    far->payload = malloc(far->payload_size + 1);
    assert_non_null(far->payload);
    while (have < far->payload_size) {
        ssize_t n = recv(fd, far->payload + have, far->payload_size - have, MSG_DONTWAIT);

        assert_true(n > 0);
        have += (size_t)n;
    }
    return 1;
}

const struct test_region *test_far_find(const struct test_far *far, uint64_t address)
{
    for (unsigned i = 0; i < far->region_count; i++) {
        const struct vfio_user_dma_map *map = &far->regions[i].map;

        if (address >= map->address && address - map->address < map->size) {
            return &far->regions[i];
        }
    }
    return NULL;
}

static int take_error(struct test_far *far)
{
    int error = far->refuse;

    far->refuse = 0;
    return error;
}

static int map(struct test_far *far)
{
    struct test_region region = {.file = far->n_fds};
    int error = far->refuse_map ? far->refuse_map : take_error(far);

    far->refuse_map = 0;
    assert_int_equal(far->payload_size, sizeof(region.map));
    memcpy(&region.map, far->payload, sizeof(region.map));
    assert_int_equal(region.map.argsz, sizeof(region.map));
    assert_true(far->n_fds <= 1);
    assert_int_equal(region.map.flags & ~3u, 0);
    assert_true(region.map.size &&
                region.map.address + (region.map.size - 1) >= region.map.address);
    far->maps++;
    far->files += far->n_fds;
    if (error || (far->region_size_max && region.map.size > far->region_size_max)) {
        return error ? error : EINVAL;
    }
    for (unsigned i = 0; i < far->region_count; i++) {
        const struct vfio_user_dma_map *other = &far->regions[i].map;

        assert_true(region.map.address + (region.map.size - 1) < other->address ||
                    other->address + (other->size - 1) < region.map.address);
    }
    if (far->region_count == (far->regions_max ? far->regions_max : REGIONS_MAX)) {
        return ENOSPC;
    }
    far->regions[far->region_count++] = region;
    far->most = far->region_count > far->most ? far->region_count : far->most;
    return 0;
}

static int unmap(struct test_far *far, struct vfio_user_dma_unmap *answer)
{
    int error = take_error(far);

    assert_int_equal(far->payload_size, sizeof(*answer));
    assert_int_equal(far->n_fds, 0);
    memcpy(answer, far->payload, sizeof(*answer));
    assert_int_equal(answer->argsz, sizeof(*answer));
    if (answer->flags & VFIO_DMA_UNMAP_FLAG_ALL) {
        assert_true(answer->address == 0 && answer->size == 0);
        far->unmap_alls++;
        far->region_count = error ? far->region_count : 0;
        return error;
    }
    assert_int_equal(answer->flags, 0);
    far->unmaps++;
    for (unsigned i = 0; i < far->region_count && !error; i++) {
        const struct vfio_user_dma_map *map = &far->regions[i].map;

        if (map->address == answer->address && map->size == answer->size) {
            far->regions[i] = far->regions[--far->region_count];
            return 0;
        }
    }
    assert_int_not_equal(error, 0); /* else it is not exactly one */
    return error;
}

static void answer_version(struct test_far *far)
{
    static const struct vfio_user_version version = {0, 0};
    struct vfio_user_header header = far->header;
    bool twin = strstr(far->capabilities, "\"twin_socket\":{\"supported\":true");
    int pair[2];

    assert_true(far->payload_size > sizeof(version));
    assert_int_equal(far->payload[far->payload_size - 1], 0);
    assert_non_null(strstr((const char *)far->payload + sizeof(version),
                           "\"twin_socket\":{\"supported\":true}"));
    header.flags = VFIO_USER_TYPE_REPLY;
    if (twin) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        far->twin = pair[0];
    }
    test_far_send(far->fd, header, &version, sizeof(version), far->capabilities,
                  strlen(far->capabilities) + 1, &pair[1], twin);
    if (twin) {
        close(pair[1]);
    }
}

static void answer(struct test_far *far, const struct vfio_user_header *command, int error,
                   const struct vfio_user_dma_unmap *unmapped)
{
    struct vfio_user_header header = {
        .id = command->id,
        .command = command->command,
        .flags = VFIO_USER_TYPE_REPLY | (error ? VFIO_USER_ERROR : 0),
        .error = (uint32_t)error,
    };

    test_far_send(far->fd, header, unmapped,
                  command->command == VFIO_USER_DMA_UNMAP && !error ? sizeof(*unmapped) : 0, NULL,
                  0, NULL, 0);
}

void test_far_release(struct test_far *far)
{
    assert_true(far->holds);
    far->holds = false;
    answer(far, &far->held, 0, &far->held_unmap);
}

void test_far_step(struct test_far *far)
{
    while (test_far_receive(far, far->fd)) {
        struct vfio_user_dma_unmap unmapped = {0};
        int error = 0;

        if ((far->header.flags & VFIO_USER_TYPE_MASK) != VFIO_USER_TYPE_COMMAND) {
            far->answers++;
            continue;
        }
        switch (far->header.command) {
        case VFIO_USER_VERSION:
            if (far->capabilities) {
                answer_version(far);
            }
            continue;
        case VFIO_USER_DMA_MAP:
            error = map(far);
            break;
        case VFIO_USER_DMA_UNMAP:
            error = unmap(far, &unmapped);
            break;
        default:
            break;
        }
        if (far->header.flags & VFIO_USER_NO_REPLY) {
            continue;
        }
        if (far->hold) {
            assert_false(far->holds);
            far->held = far->header;
            far->held_unmap = unmapped;
            far->holds = true;
        } else {
            answer(far, &far->header, error, &unmapped);
        }
    }
    close_fds(far);
}

void test_far_dma(int fd, uint16_t command, uint32_t flags, uint16_t id, uint64_t address,
                  uint64_t count, const void *data, size_t size)
{
    struct vfio_user_header header = {.id = id, .command = command, .flags = flags};
    struct vfio_user_dma_access access = {.address = address, .count = count};

    test_far_send(fd, header, &access, sizeof(access), data, size, NULL, 0);
}

/* ---- the world ------------------------------------------------------------------------------- */

static void on_event(void *opaque, const struct viommu_event *event)
{
    ((struct test_world *)opaque)->events[event->kind]++;
}

static void on_interrupt(void *opaque, const struct viommu_interrupt *interrupt)
{
    struct test_world *world = opaque;

    world->interrupts++;
    world->interrupt = *interrupt;
}

static void on_ready(void *opaque)
{
    ((struct test_world *)opaque)->ready++;
}

static void on_failed(void *opaque, int error)
{
    struct test_world *world = opaque;

    world->failed++;
    world->error = error;
}

static uint64_t on_clock(void *opaque)
{
    return ((const struct test_world *)opaque)->clock;
}

static void make_memory(struct test_world *world, size_t size, bool without_file)
{
    struct viommu_memory_batch *batch;
    struct viommu_memory_slot slot = {.last = size - 1, .fd = -1};

    world->memory_fd = memfd_create("guest", MFD_CLOEXEC);
    assert_true(world->memory_fd >= 0);
    assert_int_equal(ftruncate(world->memory_fd, (off_t)(size + 0x10000)), 0);
    world->ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, world->memory_fd, 0x10000);
    assert_ptr_not_equal(world->ram, MAP_FAILED);
    slot.host = world->ram;
    if (!without_file) {
        slot.fd = world->memory_fd;
        slot.fd_offset = 0x10000;
    }
    assert_int_equal(viommu_memory_create(&world->memory), 0);
    assert_int_equal(viommu_memory_batch_begin(world->memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
}

void test_world_connect(struct test_world *world, const struct test_wanted *wanted)
{
    struct viommu_vfio_user_config config = wanted->client;
    const char *capabilities = world->far.capabilities;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    world->far = (struct test_far){
        .fd = pair[0],
        .twin = -1,
        .capabilities = capabilities ? capabilities : USUAL_CAPABILITIES,
        .region_size_max = UINT64_C(8) << 40,
    };
    config.device = world->device;
    config.fd = pair[1];
    /* Machines that run tests are busy. */
    config.timeout_ms = config.timeout_ms ? config.timeout_ms : 30000;
    config.ready = on_ready;
    config.failed = on_failed;
    config.opaque = world;
    assert_int_equal(viommu_vfio_user_create(&config, &world->client), 0);
}

void test_world_disconnect(struct test_world *world)
{
    assert_int_equal(viommu_subscriber_destroy(world->mirror), 0);
    world->mirror = NULL;
    viommu_vfio_user_destroy(world->client);
    world->client = NULL;
    test_far_forget(&world->far);
    if (world->far.fd >= 0) {
        close(world->far.fd);
    }
    if (world->far.twin >= 0) {
        close(world->far.twin);
    }
    world->far.fd = world->far.twin = -1;
}

void test_world_connect_silently(struct test_world *world, uint32_t timeout_ms)
{
    world->far.capabilities = "";
    test_world_disconnect(world);
    test_world_connect(world, &(struct test_wanted){.client.timeout_ms = timeout_ms});
    assert_int_equal(test_far_receive(&world->far, world->far.fd), 1);
    assert_int_equal(world->far.header.command, VFIO_USER_VERSION);
}

void test_far_answer_version(struct test_far *far, uint16_t major, uint16_t minor, const char *text,
                             uint32_t flags, const int *fds, unsigned n_fds)
{
    struct vfio_user_header header = far->header;
    struct vfio_user_version version = {major, minor};

    header.flags = VFIO_USER_TYPE_REPLY | flags;
    header.error = flags ? EINVAL : 0;
    test_far_send(far->fd, header, &version, sizeof(version), text, strlen(text) + 1, fds, n_fds);
}

void test_world_reconnect(struct test_world *world)
{
    world->far.capabilities = USUAL_CAPABILITIES;
    test_world_disconnect(world);
    test_world_connect(world, &(struct test_wanted){0});
    test_world_settle(world);
}

bool test_world_is_readable(struct test_world *world)
{
    struct pollfd poll_fd = {viommu_vfio_user_event_fd(world->client), POLLIN, 0};

    return poll(&poll_fd, 1, 0) == 1;
}

void test_world_expect_failed(struct test_world *world, int error)
{
    unsigned before = world->failed;

    assert_int_equal(viommu_vfio_user_process(world->client), error);
    assert_int_equal(world->failed, before + 1);
    assert_int_equal(world->error, error);
    /* Once; and nothing is left to wait for. */
    assert_int_equal(viommu_vfio_user_process(world->client), error);
    assert_int_equal(world->failed, before + 1);
    assert_int_equal(viommu_vfio_user_send(world->client, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0,
                                           NULL, 0, NULL, NULL),
                     -EPIPE);
    assert_false(test_world_is_readable(world));
}

void test_world_open(struct test_world *world, const struct test_wanted *wanted)
{
    static const struct test_wanted usual;
    struct guest_config config;
    struct viommu_device_config device = {.requester = REQUESTER};

    wanted = wanted ? wanted : &usual;
    memset(world, 0, sizeof(*world));
    world->fds_at_start = support_open_fds();
    world->clock = 1000000000;
    world->far.fd = world->far.twin = -1;
    config = (struct guest_config){
        .vtd = {.caching_mode = !wanted->no_caching_mode},
        .callbacks = {.event = on_event, .interrupt = on_interrupt},
        .opaque = world,
        .clock = on_clock,
        .ram_pages = wanted->ram_pages ? wanted->ram_pages : 1024,
    };
    make_memory(world, config.ram_pages * GUEST_PAGE, wanted->memory_without_file);
    config.memory = world->memory;
    config.ram = world->ram;
    guest_ok(guest_init(&world->guest, &config), "guest");
    assert_int_equal(viommu_device_add(world->guest.iommu, &device, &world->device), 0);
    guest_set_root(&world->guest);
    guest_queue_on(&world->guest);
    world->table = guest_page(&world->guest);
    guest_attach(&world->guest, REQUESTER, DOMAIN, world->table, LEVELS, SPEC_TT_UNTRANSLATED);
    guest_command(&world->guest, SPEC_TE, true);
    guest_process(&world->guest);
    if (!wanted->no_client) {
        test_world_connect(world, wanted);
        test_world_settle(world);
    }
}

void test_world_close(struct test_world *world)
{
    test_world_disconnect(world);
    assert_int_equal(viommu_device_remove(world->device), 0);
    guest_fini(&world->guest);
    viommu_memory_destroy(world->memory);
    munmap(world->ram, world->guest.ram_size);
    close(world->memory_fd);
    assert_int_equal(support_open_fds(), world->fds_at_start);
}

void test_world_settle(struct test_world *world)
{
    for (unsigned quiet = 0, rounds = 0; quiet < 3; rounds++) {
        unsigned before = world->far.maps + world->far.unmaps + world->far.unmap_alls;

        assert_true(rounds < 1000000);
        (void)viommu_process(world->guest.iommu, 0);
        if (world->client) {
            (void)viommu_vfio_user_process(world->client);
        }
        if (world->far.fd >= 0) {
            test_far_step(&world->far);
        }
        quiet =
            before == world->far.maps + world->far.unmaps + world->far.unmap_alls ? quiet + 1 : 0;
    }
}

void test_world_subscribe(struct test_world *world)
{
    struct viommu_subscription what;

    assert_int_equal(viommu_vfio_user_subscription(world->client, &what), 0);
    assert_int_equal(viommu_device_subscribe(world->device, &what, &world->mirror), 0);
    test_world_settle(world);
}

void test_world_map(struct test_world *world, uint64_t iova, uint64_t gpa, unsigned pages,
                    uint64_t flags)
{
    for (unsigned i = 0; i < pages; i++) {
        guest_map(&world->guest, world->table, LEVELS, iova + i * GUEST_PAGE, gpa + i * GUEST_PAGE,
                  1, flags);
    }
}

void test_world_unmap(struct test_world *world, uint64_t iova, unsigned pages)
{
    test_world_map(world, iova, 0, pages, 0);
}

void test_world_invalidate(struct test_world *world)
{
    struct guest *guest = &world->guest;

    guest_queue_put(guest, spec_iotlb_invalidate(SPEC_DOMAIN, DOMAIN, 0, 0, false));
    guest->status_value++;
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, guest->status_value));
    guest_queue_kick(guest);
}

bool test_world_invalidated(struct test_world *world)
{
    return (uint32_t)guest_load(&world->guest, world->guest.status) == world->guest.status_value;
}

static int transfer(struct test_world *world, int fd, uint16_t command, uint64_t address,
                    const void *data, size_t count)
{
    static uint16_t id;
    struct vfio_user_dma_access access;
    bool reads = command == VFIO_USER_DMA_READ;

    id++;
    test_far_dma(fd, command, 0, id, address, count, data, reads ? 0 : count);
    assert_int_equal(viommu_vfio_user_process(world->client), 0);
    assert_int_equal(test_far_receive(&world->far, fd), 1);
    assert_int_equal(world->far.header.id, id);
    assert_int_equal(world->far.header.command, command);
    if (world->far.header.flags != VFIO_USER_TYPE_REPLY) {
        assert_int_equal(world->far.header.flags, VFIO_USER_TYPE_REPLY | VFIO_USER_ERROR);
        assert_true(world->far.header.error > 0);
        assert_int_equal(world->far.payload_size, 0);
        return -(int)world->far.header.error;
    }
    assert_int_equal(world->far.payload_size, sizeof(access) + (reads ? count : 0));
    memcpy(&access, world->far.payload, sizeof(access));
    assert_true(access.address == address && access.count == count);
    return 0;
}

int test_world_read(struct test_world *world, int fd, uint64_t address, void *data, size_t size)
{
    int ret = transfer(world, fd, VFIO_USER_DMA_READ, address, NULL, size);

    if (ret == 0) {
        memcpy(data, world->far.payload + sizeof(struct vfio_user_dma_access), size);
    }
    return ret;
}

int test_world_write(struct test_world *world, int fd, uint64_t address, const void *data,
                     size_t size)
{
    return transfer(world, fd, VFIO_USER_DMA_WRITE, address, data, size);
}

struct viommu_vfio_user_statistics test_world_statistics(const struct test_world *world)
{
    struct viommu_vfio_user_statistics statistics;

    assert_int_equal(viommu_vfio_user_statistics(world->client, &statistics, sizeof(statistics)),
                     0);
    return statistics;
}
