/* SPDX-License-Identifier: BSD-2-Clause */
/* The far server and the world around the relay; see test_far.h. */
#include "test_far.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "unix_socket.h"
#include "vfio_user/test_client.h"

enum {
    PATIENCE_MS = 30000,
};

/* ---- the far server -------------------------------------------------------------------------- */

void test_far_listen(struct test_far *far)
{
    assert_int_equal(far->listener, -1);
    far->listener = unix_socket_listen(far->path, 0777);
    assert_true(far->listener >= 0);
}

static void drop(struct test_far *far)
{
    if (far->connected) {
        vfio_user_connection_fini(&far->connection);
        far->connected = false;
    }
    for (unsigned i = 0; i < TEST_VECTORS; i++) {
        if (far->eventfds[i] >= 0) {
            close(far->eventfds[i]);
        }
        far->eventfds[i] = -1;
    }
}

void test_far_leave(struct test_far *far)
{
    drop(far);
    if (far->listener >= 0) {
        close(far->listener);
        unlink(far->path);
        far->listener = -1;
    }
}

static bool accept_one(struct test_far *far)
{
    int fd = far->listener >= 0 && !far->connected
                 ? accept4(far->listener, NULL, NULL, SOCK_CLOEXEC)
                 : -1;

    if (fd < 0) {
        return false;
    }
    assert_int_equal(vfio_user_connection_init(&far->connection, fd), 0);
    far->connected = true;
    far->connections++;
    memset(far->count, 0, sizeof(far->count));
    far->log_count = 0;
    return true;
}

/* Send what it is to, or something odd in its place. Returns false when it left. */
static bool far_answer(struct test_far *far, const struct vfio_user_message *command, int error,
                       const void *data, size_t size, int fd)
{
    struct vfio_user_header header = {
        .id = command->header.id,
        .command = command->header.command,
        .flags = VFIO_USER_TYPE_REPLY | (error ? VFIO_USER_ERROR : 0),
        .error = (uint32_t)error,
    };
    enum test_odd odd = header.command == far->odd_command ? far->odd : TEST_ODD_NONE;
    uint8_t bytes[4096 + 2] = {0};

    assert_true(size <= 4096);
    if (odd != TEST_ODD_NONE && far->odd_skip > 0) {
        far->odd_skip--;
        odd = TEST_ODD_NONE;
    } else if (odd != TEST_ODD_NONE && far->odd_times > 0 && --far->odd_times == 0) {
        far->odd = TEST_ODD_NONE;
    }
    if (size > 0) {
        memcpy(bytes, data, size);
    }
    switch (odd) {
    case TEST_ODD_SILENT:
        return true;
    case TEST_ODD_LEAVE:
        drop(far);
        return false;
    case TEST_ODD_SHORT:
        size = size > 2 ? size - 2 : 0;
        break;
    case TEST_ODD_LONG:
        size += 2;
        break;
    case TEST_ODD_OTHER:
        memset(bytes, 0xa5, size < 16 ? size : 16);
        break;
    case TEST_ODD_FRAME:
        header.size = 3;
        assert_int_equal(send(far->connection.fd, &header, sizeof(header), MSG_NOSIGNAL), 16);
        return true;
    case TEST_ODD_NUMBER:
        header.id ^= 0x55;
        break;
    case TEST_ODD_REFUSE:
        header.flags |= VFIO_USER_ERROR;
        header.error = EBUSY;
        size = 0;
        break;
    default:
        break;
    }
    if (vfio_user_connection_send_fds(&far->connection, header, bytes, size, NULL, 0, &fd,
                                      fd >= 0) < 0) {
        drop(far);
    }
    return far->connected;
}

static bool answer_region_info(struct test_far *far, const struct vfio_user_message *command)
{
    struct vfio_region_info answer = {.argsz = sizeof(answer)}, asked;
    struct vfio_region_info_cap_sparse_mmap cap = {
        .header = {.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1},
        .nr_areas = far->areas,
    };
    uint8_t data[256];
    int fd = -1;

    memcpy(&asked, command->payload, sizeof(asked));
    answer.index = asked.index;
    if (asked.index == 0 || asked.index == VFIO_PCI_CONFIG_REGION_INDEX) {
        answer.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
        answer.size = asked.index == 0 ? TEST_BAR_SIZE : sizeof(far->config);
    } else if (asked.index == VFIO_PCI_ROM_REGION_INDEX) {
        answer.flags = VFIO_REGION_INFO_FLAG_READ;
        answer.size = 0x1000;
    }
    if (asked.index == 0 && far->file >= 0) {
        fd = far->file;
        answer.flags |= VFIO_REGION_INFO_FLAG_MMAP;
        answer.offset = 0x1000;
    }
    if (asked.index == 0 && far->file >= 0 && far->areas > 0) {
        answer.argsz = (uint32_t)(sizeof(answer) + sizeof(cap) +
                                  far->areas * sizeof(struct vfio_region_sparse_mmap_area));
        answer.flags |= VFIO_REGION_INFO_FLAG_CAPS;
        answer.cap_offset = sizeof(answer);
        memcpy(data + sizeof(answer), &cap, sizeof(cap));
    }
    for (unsigned i = 0; i < far->areas; i++) {
        const struct vfio_region_sparse_mmap_area area = {.offset = 0x1000ull * i, .size = 0x1000};

        memcpy(data + sizeof(answer) + sizeof(cap) + i * sizeof(area), &area, sizeof(area));
    }
    memcpy(data, &answer, sizeof(answer));
    return far_answer(far, command, 0, data, answer.argsz, fd);
}

static bool answer_irqs(struct test_far *far, struct vfio_user_message *command)
{
    struct vfio_irq_set set;

    memcpy(&set, command->payload, sizeof(set));
    if (set.index == VFIO_PCI_MSIX_IRQ_INDEX && (set.flags & VFIO_IRQ_SET_DATA_EVENTFD)) {
        assert_true(set.start + set.count <= far->vectors);
        assert_true(command->n_fds <= far->max_fds);
        assert_true(command->n_fds == 0 || command->n_fds == set.count);
        for (unsigned i = 0; i < set.count; i++) {
            int *place = &far->eventfds[set.start + i];

            if (*place >= 0) {
                close(*place);
            }
            *place = command->n_fds ? command->fds[i] : -1;
            if (command->n_fds) {
                command->fds[i] = -1;
            }
        }
    }
    return far_answer(far, command, 0, NULL, 0, -1);
}

static uint8_t *place_of(struct test_far *far, const struct vfio_user_region_access *access)
{
    size_t size = access->region == 0 ? sizeof(far->bar) : sizeof(far->config);

    assert_true(access->region == 0 || access->region == VFIO_PCI_CONFIG_REGION_INDEX);
    assert_true(access->offset <= size && access->count <= size - access->offset);
    return (access->region == 0 ? far->bar : far->config) + access->offset;
}

static bool answer_access(struct test_far *far, const struct vfio_user_message *command)
{
    struct vfio_user_region_access access;
    uint8_t answer[4096];

    memcpy(&access, command->payload, sizeof(access));
    memcpy(answer, &access, sizeof(access));
    if (command->header.command == VFIO_USER_REGION_READ) {
        memcpy(answer + sizeof(access), place_of(far, &access), access.count);
        return far_answer(far, command, 0, answer, sizeof(access) + access.count, -1);
    }
    assert_int_equal(command->payload_size, sizeof(access) + access.count);
    memcpy(place_of(far, &access), command->payload + sizeof(access), access.count);
    return far_answer(far, command, 0, answer, sizeof(access), -1);
}

static bool answer_version(struct test_far *far, const struct vfio_user_message *command)
{
    char answer[64] = {0};
    int size = snprintf(answer + 4, sizeof(answer) - 4, "{\"capabilities\":{\"max_msg_fds\":%u%s}}",
                        far->max_fds, far->capabilities ? far->capabilities : "");

    return far_answer(far, command, 0, answer, (size_t)size + 5, -1);
}

static bool handle(struct test_far *far, struct vfio_user_message *command)
{
    const struct vfio_user_device_info device = {
        .argsz = sizeof(device),
        .flags = VFIO_DEVICE_FLAGS_PCI | (far->no_reset ? 0 : VFIO_DEVICE_FLAGS_RESET),
        .num_regions = VFIO_PCI_NUM_REGIONS + 2,
        .num_irqs = VFIO_PCI_NUM_IRQS,
    };
    struct vfio_irq_info irqs;

    assert_true(command->header.command < 16);
    far->count[command->header.command]++;
    if (far->log_count < TEST_LOG_MAX) {
        far->log[far->log_count++] = command->header.command;
    }
    switch (command->header.command) {
    case VFIO_USER_VERSION:
        return answer_version(far, command);
    case VFIO_USER_DMA_MAP:
        far->mapped_files += command->n_fds;
        return far_answer(far, command, 0, NULL, 0, -1);
    case VFIO_USER_DMA_UNMAP:
        return far_answer(far, command, 0, command->payload, command->payload_size, -1);
    case VFIO_USER_DEVICE_GET_INFO:
        return far_answer(far, command, 0, &device, sizeof(device), -1);
    case VFIO_USER_DEVICE_GET_REGION_INFO:
        return answer_region_info(far, command);
    case VFIO_USER_DEVICE_GET_IRQ_INFO:
        memcpy(&irqs, command->payload, sizeof(irqs));
        irqs.flags = VFIO_IRQ_INFO_EVENTFD;
        irqs.count = irqs.index == VFIO_PCI_MSIX_IRQ_INDEX ? far->vectors : irqs.index == 0;
        return far_answer(far, command, 0, &irqs, sizeof(irqs), -1);
    case VFIO_USER_DEVICE_SET_IRQS:
        return answer_irqs(far, command);
    case VFIO_USER_REGION_READ:
    case VFIO_USER_REGION_WRITE:
        return answer_access(far, command);
    case VFIO_USER_DEVICE_GET_REGION_IO_FDS:
        return far_answer(far, command, 0, command->payload, command->payload_size, far->file);
    case VFIO_USER_DEVICE_RESET:
        memset(far->bar, 0, sizeof(far->bar));
        return far_answer(far, command, 0, NULL, 0, -1);
    default:
        return far_answer(far, command, ENOTSUP, NULL, 0, -1);
    }
}

void test_far_step(struct test_far *far)
{
    struct vfio_user_message message;
    int ret = 1;

    accept_one(far);
    while (far->connected && !far->hold && ret > 0) {
        ret = vfio_user_connection_receive(&far->connection, &message);
        if (ret > 0 && !handle(far, &message)) {
            return;
        }
    }
    if (ret < 0) {
        drop(far);
    }
}

/* ---- the world ------------------------------------------------------------------------------- */

void test_relay_open(struct test_relay *test, bool isolate)
{
    static const struct viommu_vtd_config config = {.caching_mode = true};
    const struct viommu_device_config device = {.requester = 0x30};
    struct relay_config wanted = {
        .name = "relay",
        .isolate = isolate,
        .answer_ms = TEST_ANSWER_MS,
        .join_ms = TEST_JOIN_MS,
    };
    char folder[] = "/tmp/viommu-relay-XXXXXX";

    memset(test, 0, sizeof(*test));
    test->fds_at_start = support_open_fds();
    test->memory_fd = -1;
    assert_non_null(mkdtemp(folder));
    snprintf(test->path, sizeof(test->path), "%s/far", folder);
    assert_int_equal(loop_init(&test->loop), 0);
    assert_int_equal(vtd_function_init(&test->vtd, "vtd", &config, NULL), 0);
    assert_int_equal(viommu_start(test->vtd.unit.iommu), 0);
    assert_int_equal(viommu_device_add(test->vtd.unit.iommu, &device, &test->device), 0);
    test->far.path = test->path;
    test->far.listener = test->far.file = -1;
    test->far.vectors = TEST_VECTORS;
    test->far.max_fds = VFIO_USER_MAX_FDS;
    memset(test->far.eventfds, 0xff, sizeof(test->far.eventfds));
    test_far_listen(&test->far);
    wanted.path = test->path;
    wanted.device = test->device;
    assert_int_equal(relay_open(&test->relay, &test->loop, &wanted), 0);
}

void test_relay_close(struct test_relay *test)
{
    if (test->attached) {
        test_relay_detach(test);
    }
    relay_close(&test->relay);
    test_far_leave(&test->far);
    if (test->memory_fd >= 0) {
        test_relay_unmap(test);
    }
    viommu_device_remove(test->device);
    vtd_function_fini(&test->vtd);
    loop_fini(&test->loop);
    *strrchr(test->path, '/') = '\0';
    assert_int_equal(rmdir(test->path), 0);
    assert_int_equal(support_open_fds(), test->fds_at_start);
}

void test_relay_attach(struct test_relay *test)
{
    static const char version[] = "\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8}}";
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(vfio_user_connection_init(&test->client, fds[0]), 0);
    assert_int_equal(vfio_user_endpoint_init(&test->endpoint, &test->relay.function, fds[1]), 0);
    test->attached = true;
    assert_int_equal(test_relay_command(test, VFIO_USER_VERSION, version, sizeof(version), NULL),
                     0);
}

void test_relay_detach(struct test_relay *test)
{
    vfio_user_endpoint_fini(&test->endpoint);
    vfio_user_connection_fini(&test->client);
    test->attached = false;
}

void test_relay_step(struct test_relay *test)
{
    int ret;

    if (test->attached) {
        assert_int_equal(vfio_user_endpoint_ready(&test->endpoint), 0);
    }
    do {
        ret = loop_step(&test->loop, 0);
        assert_true(ret >= 0);
    } while (ret > 0);
    unit_process(&test->vtd.unit);
    test_far_step(&test->far);
}

static void nap(void)
{
    const struct timespec time = {.tv_nsec = 200000};

    nanosleep(&time, NULL);
}

void test_relay_until(struct test_relay *test, enum relay_state state)
{
    uint64_t end = clock_ms() + PATIENCE_MS;

    do {
        test_relay_step(test);
        assert_true(clock_ms() < end);
        nap();
    } while (test->relay.state != state);
}

void test_relay_wait(struct test_relay *test, bool (*condition)(const struct test_relay *test))
{
    uint64_t end = clock_ms() + PATIENCE_MS;

    while (!condition(test)) {
        assert_true(clock_ms() < end);
        test_relay_step(test);
        nap();
    }
}

void test_relay_for(struct test_relay *test, unsigned ms)
{
    uint64_t end = clock_ms() + ms;

    while (clock_ms() < end) {
        test_relay_step(test);
        nap();
    }
}

uint16_t test_relay_send(struct test_relay *test, uint16_t command, uint32_t flags,
                         const void *data, size_t size, const int *fds, unsigned n_fds)
{
    struct vfio_user_header header = {.id = ++test->next_id, .command = command, .flags = flags};

    assert_int_equal(
        vfio_user_connection_send_fds(&test->client, header, data, size, NULL, 0, fds, n_fds), 0);
    return header.id;
}

bool test_relay_receive(struct test_relay *test, struct test_answer *answer)
{
    struct vfio_user_message message;

    assert_int_equal(vfio_user_connection_flush(&test->client), 0);
    if (vfio_user_connection_receive(&test->client, &message) != 1) {
        return false;
    }
    *answer = (struct test_answer){.id = message.header.id, .size = message.payload_size, .fd = -1};
    assert_int_equal(message.header.flags & VFIO_USER_TYPE_MASK, VFIO_USER_TYPE_REPLY);
    assert_true(message.payload_size <= sizeof(answer->data));
    memcpy(answer->data, message.payload, message.payload_size);
    if (message.header.flags & VFIO_USER_ERROR) {
        assert_true(message.header.error > 0);
        answer->error = -(int)message.header.error;
    }
    if (message.n_fds > 0) {
        answer->fd = message.fds[0];
        message.fds[0] = -1;
    }
    return true;
}

int test_relay_command(struct test_relay *test, uint16_t command, const void *data, size_t size,
                       struct test_answer *answer)
{
    uint64_t end = clock_ms() + PATIENCE_MS;
    uint16_t id = test_relay_send(test, command, 0, data, size, NULL, 0);
    struct test_answer own;

    answer = answer ? answer : &own;
    while (!test_relay_receive(test, answer)) {
        assert_true(clock_ms() < end);
        test_relay_step(test);
        nap();
    }
    assert_int_equal(answer->id, id);
    return answer->error;
}

int test_relay_read32(struct test_relay *test, uint32_t region, uint64_t offset, uint32_t *value)
{
    struct vfio_user_region_access access = {.offset = offset, .region = region, .count = 4};
    struct test_answer answer;
    int ret = test_relay_command(test, VFIO_USER_REGION_READ, &access, sizeof(access), &answer);

    if (ret == 0) {
        assert_int_equal(answer.size, sizeof(access) + 4);
        assert_memory_equal(answer.data, &access, sizeof(access));
        memcpy(value, answer.data + sizeof(access), 4);
    }
    return ret;
}

int test_relay_write32(struct test_relay *test, uint32_t region, uint64_t offset, uint32_t value)
{
    struct {
        struct vfio_user_region_access access;
        uint32_t value;
    } data = {{.offset = offset, .region = region, .count = 4}, value};
    struct test_answer answer;
    int ret = test_relay_command(test, VFIO_USER_REGION_WRITE, &data, 20, &answer);

    if (ret == 0) {
        assert_int_equal(answer.size, sizeof(data.access));
        assert_memory_equal(answer.data, &data.access, sizeof(data.access));
    }
    return ret;
}

void test_relay_map(struct test_relay *test, unsigned pages)
{
    const struct pci_dma_region region = {
        .last = 4096ull * pages - 1,
        .readable = true,
        .writable = true,
    };

    test->memory_fd = memfd_create("ram", MFD_CLOEXEC);
    test->memory_last = region.last;
    assert_int_equal(ftruncate(test->memory_fd, 4096 * pages), 0);
    assert_int_equal(
        unit_memory_ops.map(&test->vtd.unit, &region, test->memory_fd, &test->memory_cookie), 0);
}

void test_relay_unmap(struct test_relay *test)
{
    unit_memory_ops.unmap(&test->vtd.unit, 0, test->memory_last, test->memory_cookie);
    close(test->memory_fd);
    test->memory_fd = -1;
}

int test_relay_set_eventfds(struct test_relay *test, uint32_t index, uint32_t start, uint32_t count,
                            const int *fds, unsigned n_fds)
{
    const struct vfio_irq_set set = {
        .argsz = sizeof(set),
        .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        .index = index,
        .start = start,
        .count = count,
    };
    struct test_answer answer;
    uint64_t end = clock_ms() + 30000;

    test_relay_send(test, VFIO_USER_DEVICE_SET_IRQS, 0, &set, sizeof(set), fds, n_fds);
    while (!test_relay_receive(test, &answer)) {
        test_relay_step(test);
        assert_true(clock_ms() < end);
    }
    return answer.error;
}

int test_relay_set_irqs(struct test_relay *test, uint32_t flags, uint32_t index, uint32_t start,
                        uint32_t count, const char *data, size_t size)
{
    const struct vfio_irq_set set = {
        .argsz = sizeof(set),
        .flags = flags,
        .index = index,
        .start = start,
        .count = count,
    };
    char message[128];

    memcpy(message, &set, sizeof(set));
    memcpy(message + sizeof(set), data, size);
    return test_relay_command(test, VFIO_USER_DEVICE_SET_IRQS, message, sizeof(set) + size, NULL);
}

void test_relay_ask_for_bar(struct test_relay *test, uint32_t argsz, struct test_answer *answer)
{
    struct vfio_region_info region = {.argsz = argsz};

    assert_int_equal(
        test_relay_command(test, VFIO_USER_DEVICE_GET_REGION_INFO, &region, sizeof(region), answer),
        0);
}

/* While the far server is there, and no good. */
void test_relay_stays_away(struct test_relay *test)
{
    unsigned connections = test->far.connections;

    while (test->far.connections < connections + 2) {
        test_relay_step(test);
        assert_int_not_equal(test->relay.state, RELAY_UP);
    }
}
