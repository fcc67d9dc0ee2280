/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of endpoints that are saved, and go on elsewhere with the same client: with what was agreed
 * on, half a message, replies nobody has read, interrupts and memory. And of state that is wrong.
 */
#include "endpoint_state.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../clock.h"
#include "../log.h"
#include "test_fixture.h"
#include "test_twin.h"

enum {
    PAGE = 4096,
};

static struct recorder next_recorder;
static struct vfio_user_endpoint next_endpoint;

/* A saved endpoint. The descriptors are duplicates, as another process would have them. */
struct saved {
    void *data;
    size_t size;
    struct handover_fds fds;
};

static void save(struct saved *saved)
{
    struct save_writer writer;

    memset(saved, 0, sizeof(*saved));
    assert_null(vfio_user_endpoint_unsaveable(&endpoint));
    save_writer_init(&writer, SAVE_SERVER);
    save_begin(&writer, 1, 0, 1, 0);
    vfio_user_endpoint_save(&endpoint, &writer, &saved->fds);
    save_end(&writer);
    assert_int_equal(save_finish(&writer, &saved->data, &saved->size), 0);
    for (size_t i = 0; i < saved->fds.count; i++) {
        saved->fds.fds[i] = dup(saved->fds.fds[i]);
        assert_true(saved->fds.fds[i] >= 0);
    }
}

static void open_section(const struct saved *saved, struct save_section *section)
{
    struct save_reader reader;

    assert_int_equal(save_open(&reader, SAVE_SERVER, saved->data, saved->size), 0);
    assert_true(save_next(&reader, section));
}

static void saved_fini(struct saved *saved)
{
    handover_fds_close(&saved->fds);
    save_free(saved->data);
}

/* The client is served by another endpoint from now on; the first one is gone. */
static void move(void)
{
    struct save_section section;
    struct saved saved;

    save(&saved);
    vfio_user_endpoint_discard(&endpoint);
    recorder_init(&next_recorder);
    open_section(&saved, &section);
    assert_int_equal(vfio_user_endpoint_load(&next_endpoint, &next_recorder.function, &section,
                                             &saved.fds),
                     0);
    assert_int_equal(save_close(&section), 0);
    saved_fini(&saved);
    client.endpoint = &next_endpoint;
}

static int setup_memory(void **state)
{
    server_log_to(NULL);
    return setup(state);
}

static int setup_raw_memory(void **state)
{
    server_log_to(NULL);
    return setup_raw(state);
}

static int memory_file(size_t size)
{
    int fd = memfd_create("memory", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static void commands_go_on(void **state)
{
    uint32_t value = 7;

    (void)state;
    assert_int_equal(test_client_write(&client, 0, 8, &value, 4), 0);
    move();
    assert_int_equal(recorder.resets, 0);
    assert_int_equal(test_client_write(&client, 0, 16, &value, 4), 0);
    memcpy(&value, next_recorder.bar0 + 16, 4);
    assert_int_equal(value, 7);
    /* It was agreed on a version: not again. */
    assert_int_equal(test_client_command(&client, VFIO_USER_VERSION, "\0\0\0\0", 4), -EINVAL);
}

static void nothing_said_yet(void **state)
{
    uint32_t value;

    (void)state;
    move();
    assert_int_equal(test_client_read(&client, 0, 0, &value, 4), -EINVAL);
    test_client_negotiate(&client);
    assert_int_equal(test_client_read(&client, 0, 0, &value, 4), 0);
}

/* A write of 4 bytes to BAR0, cut after `first` bytes; a descriptor comes with the first. */
static void half_a_message_at(size_t first)
{
    struct {
        struct vfio_user_header header;
        struct vfio_user_region_access access;
        uint32_t value;
        uint32_t unused;
    } message = {
        .header = {.id = 99, .command = VFIO_USER_REGION_WRITE, .size = 36},
        .access = {.offset = 4, .count = 4},
        .value = 0xabcd,
    };
    int fd = memory_file(PAGE);
    uint32_t value;

    test_client_send_raw(&client, &message, first, &fd, 1);
    close(fd);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    move();
    assert_int_equal(next_endpoint.connection.n_fds, 1);
    test_client_send_raw(&client, (uint8_t *)&message + first, 36 - first, NULL, 0);
    assert_int_equal(vfio_user_endpoint_ready(&next_endpoint), 0);
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.id, 99);
    assert_int_equal(client.header.flags, VFIO_USER_TYPE_REPLY);
    memcpy(&value, next_recorder.bar0 + 4, 4);
    assert_int_equal(value, 0xabcd);
}

static void half_a_header(void **state)
{
    (void)state;
    half_a_message_at(9);
}

static void a_header_alone(void **state)
{
    (void)state;
    half_a_message_at(16);
}

static void half_a_payload(void **state)
{
    (void)state;
    half_a_message_at(33);
}

/* Replies that the client has not read, more than its socket takes. */
static void unread_replies(void **state)
{
    const struct vfio_user_region_access access = {.region = 2, .count = VFIO_USER_MAX_DATA};

    (void)state;
    for (int i = 0; i < 2; i++) {
        test_client_send(&client, VFIO_USER_REGION_READ, 0, &access, sizeof(access), NULL, 0);
        assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    }
    assert_true(vfio_user_connection_pending(&endpoint.connection));
    move();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(test_client_receive(&client), 1);
        assert_int_equal(client.payload_size, sizeof(access) + VFIO_USER_MAX_DATA);
        assert_int_equal(client.payload[sizeof(access) + VFIO_USER_MAX_DATA - 1], 0x22);
        assert_int_equal(vfio_user_endpoint_ready(&next_endpoint), 0);
    }
    assert_int_equal(test_client_receive(&client), 0);
}

static void interrupts_go_on(void **state)
{
    const uint32_t flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    int fds[3];

    (void)state;
    test_open_eventfds(fds, 3);
    assert_int_equal(test_client_set_irqs(&client, flags, VFIO_PCI_MSI_IRQ_INDEX, 1, 2, NULL, 0,
                                          fds, 2), 0);
    assert_int_equal(test_client_set_irqs(&client, flags, VFIO_PCI_INTX_IRQ_INDEX, 0, 1, NULL, 0,
                                          &fds[2], 1), 0);
    pci_function_message_interrupt(&recorder.function, 0); /* has no eventfd: is remembered */
    pci_function_line_interrupt(&recorder.function, true);
    assert_int_equal(test_eventfd_count(fds[2]), 1);
    move();
    pci_function_message_interrupt(&next_recorder.function, 1);
    pci_function_message_interrupt(&next_recorder.function, 2);
    assert_int_equal(test_eventfd_count(fds[0]), 1);
    assert_int_equal(test_eventfd_count(fds[1]), 1);
    assert_int_equal(test_client_set_irqs(&client, flags, VFIO_PCI_MSI_IRQ_INDEX, 0, 1, NULL, 0,
                                          fds, 1), 0);
    assert_int_equal(test_eventfd_count(fds[0]), 1);
    /* The line is high and masked: unmasked, it is signalled again. */
    assert_int_equal(test_eventfd_count(fds[2]), 0);
    assert_int_equal(test_client_set_irqs(&client, VFIO_IRQ_SET_DATA_NONE |
                                                       VFIO_IRQ_SET_ACTION_UNMASK,
                                          VFIO_PCI_INTX_IRQ_INDEX, 0, 1, NULL, 0, NULL, 0), 0);
    assert_int_equal(test_eventfd_count(fds[2]), 1);
    test_close_all(fds, 3);
}

static void memory_goes_on(void **state)
{
    int fd = memory_file(8 * PAGE);

    (void)state;
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(test_client_map(&client, i * PAGE, PAGE, i * PAGE, 3, fd), 0);
    }
    assert_int_equal(test_client_map(&client, 16 * PAGE, PAGE, 5 * PAGE, 1, fd), 0);
    assert_int_equal(test_client_map(&client, 32 * PAGE, PAGE, 0, 1, -1), 0);
    close(fd);
    move();
    assert_int_equal(recorder.unmaps, 5);
    assert_int_equal(next_recorder.maps, 5);
    assert_int_equal(next_recorder.region.first, 32 * PAGE);
    assert_false(next_recorder.with_fd);
    assert_int_equal(test_client_map(&client, PAGE, PAGE, 0, 3, -1), -EEXIST);
    assert_int_equal(test_client_unmap(&client, 16 * PAGE, PAGE, 0), 0);
    assert_int_equal(next_recorder.unmaps, 1);
    assert_int_equal((uintptr_t)next_recorder.unmapped_cookie, 16 * PAGE + 1);
}

/* The next one that the first endpoint sends carries the number after the last. */
static void messages_of_its_own(void **state)
{
    (void)state;
    recorder.function.bus->write_message(recorder.function.bus_opaque, 0xfee00000, 1);
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.id, 0);
    move();
    next_recorder.function.bus->write_message(next_recorder.function.bus_opaque, 0xfee00000, 2);
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.id, 1);
    assert_int_equal(client.header.command, VFIO_USER_DMA_WRITE);
}

/* The client notices nothing on its twin socket either. */
static void twin_goes_on(void **state)
{
    struct test_twin twin;
    const struct pci_bus_ops *bus;
    uint32_t value;

    (void)state;
    test_twin_start(&twin, test_twin_negotiate(&client, TEST_TWIN_WANTED));
    bus = recorder.function.bus;
    assert_int_equal(bus->read_memory(&endpoint, TEST_TWIN_BASE, &value, 4, clock_ms() + 10000), 0);
    move();
    assert_true(next_endpoint.client.twin_socket);
    bus = next_recorder.function.bus;
    assert_int_equal(bus->read_memory(&next_endpoint, TEST_TWIN_BASE, &value, 4,
                                      clock_ms() + 10000), 0);
    assert_int_equal(twin.reads, 2);
    assert_int_equal(next_endpoint.client_dma.next_id, 2);
    assert_int_equal(bus->write_message(&next_endpoint, 0xfee00000, 1), 0);
    /* One that cannot be asked any more is given up by the next process, too. */
    twin.how = TWIN_OTHER_ID;
    assert_int_equal(bus->read_memory(&next_endpoint, TEST_TWIN_BASE, &value, 4,
                                      clock_ms() + 10000), -EPROTO);
    endpoint = next_endpoint;
    next_recorder.function.bus_opaque = &endpoint;
    move();
    assert_int_equal(bus->read_memory(&next_endpoint, TEST_TWIN_BASE, &value, 4, 0), -EPROTO);
    assert_int_equal(vfio_user_endpoint_ready(&next_endpoint), -EPROTO);
    assert_int_equal(twin.reads, 3);
    test_twin_stop(&twin);
}

static void twice(void **state)
{
    uint32_t value = 3;

    (void)state;
    move();
    /* And back, by exchanging the two. */
    endpoint = next_endpoint;
    next_recorder.function.bus_opaque = &endpoint;
    client.endpoint = &endpoint;
    move();
    assert_int_equal(test_client_write(&client, 0, 0, &value, 4), 0);
}

static void held_back(void **state)
{
    int fd = memory_file(PAGE);
    struct vfio_user_dma_unmap unmap = {.argsz = sizeof(unmap), .size = PAGE};

    (void)state;
    assert_int_equal(test_client_map(&client, 0, PAGE, 0, 3, fd), 0);
    close(fd);
    recorder.unmapping = true;
    test_client_send(&client, VFIO_USER_DMA_UNMAP, 0, &unmap, sizeof(unmap), NULL, 0);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    assert_non_null(vfio_user_endpoint_unsaveable(&endpoint));
    recorder.unmapping = false;
    vfio_user_endpoint_update(&endpoint);
    assert_int_equal(test_client_receive(&client), 1);
    move();
}

static void more_files_than_are_kept(void **state)
{
    (void)state;
    for (uint64_t i = 0; i <= 64; i++) {
        int fd = memory_file(PAGE);

        assert_int_equal(test_client_map(&client, i * PAGE, PAGE, 0, 3, fd), 0);
        close(fd);
    }
    assert_non_null(vfio_user_endpoint_unsaveable(&endpoint));
    assert_int_equal(test_client_unmap(&client, 64 * PAGE, PAGE, 0), 0);
    move();
    assert_int_equal(next_recorder.maps, 64);
}

/* Loads bytes that may be anything. They make an endpoint or an error, and nothing is left. */
static int try(const struct saved *saved, const uint8_t *bytes, size_t size)
{
    struct save_section section = {.kind = 1, .version = 1, .at = bytes, .left = size};
    struct handover_fds fds = {.fds = malloc(saved->fds.count * sizeof(int))};
    unsigned before = support_open_fds();
    int ret;

    assert_non_null(fds.fds);
    for (size_t i = 0; i < saved->fds.count; i++) {
        fds.fds[fds.count++] = dup(saved->fds.fds[i]);
    }
    recorder_init(&next_recorder);
    ret = vfio_user_endpoint_load(&next_endpoint, &next_recorder.function, &section, &fds);
    vfio_user_endpoint_discard(&next_endpoint);
    handover_fds_close(&fds);
    assert_int_equal(next_recorder.maps, next_recorder.unmaps);
    assert_int_equal(next_recorder.resets, 0);
    assert_null(next_recorder.function.bus);
    assert_int_equal(support_open_fds(), before);
    return ret < 0 ? ret : save_close(&section);
}

/* Where fields are in a state of which the first connection is in the middle of a payload. */
enum {
    AT_ERROR = 26,
    AT_HEADER = 44, /* its length is before it */
    AT_TWIN_HEADER = 104,
    REGION_SIZE = 29, /* the last one ends the state */
};

static int try_number(const struct saved *saved, uint8_t *bytes, size_t size, size_t at,
                      uint32_t value)
{
    uint32_t before;
    int ret;

    memcpy(&before, bytes + at, sizeof(before));
    memcpy(bytes + at, &value, sizeof(value));
    ret = try(saved, bytes, size);
    memcpy(bytes + at, &before, sizeof(before));
    return ret;
}

/* A header at `at` that is only so long: bytes go away there, or come. */
static int try_header(const struct saved *saved, const uint8_t *bytes, size_t size, size_t at,
                      size_t had, uint64_t length)
{
    uint8_t *other = calloc(1, size + 16);
    int ret;

    assert_non_null(other);
    memcpy(other, bytes, at + (had < length ? had : length));
    memcpy(other + at - sizeof(length), &length, sizeof(length));
    memcpy(other + at + length, bytes + at + had, size - at - had);
    ret = try(saved, other, size - had + length);
    free(other);
    return ret;
}

static void fields_that_are_wrong(const struct saved *saved, uint8_t *bytes, size_t size)
{
    assert_int_equal(try_number(saved, bytes, size, AT_ERROR, 4095), 0);
    assert_int_equal(try_number(saved, bytes, size, AT_ERROR, 4096), -EBADMSG);
    /* Four bytes of the payload have come: it is longer, and no longer than may be. */
    assert_int_equal(try_number(saved, bytes, size, AT_HEADER + 4, 16 + 5), 0);
    assert_int_equal(try_number(saved, bytes, size, AT_HEADER + 4, 16 + 4), -EBADMSG);
    assert_int_equal(try_number(saved, bytes, size, AT_HEADER + 4, 16), -EBADMSG);
    assert_int_equal(try_number(saved, bytes, size, AT_HEADER + 4, 16 + VFIO_USER_MAX_PAYLOAD), 0);
    assert_int_equal(try_number(saved, bytes, size, AT_HEADER + 4, 17 + VFIO_USER_MAX_PAYLOAD),
                     -EBADMSG);
    /* A payload after half a header; a part of an answer on the twin socket. */
    assert_int_equal(try_header(saved, bytes, size, AT_HEADER, 16, 16), 0);
    assert_int_equal(try_header(saved, bytes, size, AT_HEADER, 16, 9), -EBADMSG);
    assert_int_equal(try_header(saved, bytes, size, AT_TWIN_HEADER, 0, 0), 0);
    assert_int_equal(try_header(saved, bytes, size, AT_TWIN_HEADER, 0, 3), -EBADMSG);
    /* A region that ends before it begins. */
    assert_int_equal(try_number(saved, bytes, size, size - REGION_SIZE, PAGE), -EBADMSG);
}

static void state_that_is_wrong(void **state)
{
    int twin = test_twin_negotiate(&client, TEST_TWIN_WANTED);
    const uint32_t flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    struct save_section section;
    struct saved saved;
    uint8_t *bytes;
    int fd = memory_file(4 * PAGE), event;

    (void)state;
    test_open_eventfds(&event, 1);
    assert_int_equal(test_client_map(&client, 0, PAGE, PAGE, 3, fd), 0);
    assert_int_equal(test_client_set_irqs(&client, flags, VFIO_PCI_MSI_IRQ_INDEX, 0, 1, NULL, 0,
                                          &event, 1), 0);
    test_client_send_raw(&client, "\x01\x00\x0a\x00\x20\0\0\0\0\0\0\0\0\0\0\0half", 20, &fd, 1);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    save(&saved);
    open_section(&saved, &section);
    bytes = malloc(section.left);
    assert_non_null(bytes);
    memcpy(bytes, section.at, section.left);

    assert_int_equal(try(&saved, bytes, section.left), 0);
    for (size_t size = 0; size < section.left; size++) {
        assert_int_equal(try(&saved, bytes, size), -EBADMSG);
    }
    for (size_t i = 0; i < section.left; i++) {
        for (unsigned change = 1; change < 256; change *= 5) {
            bytes[i] ^= (uint8_t)change;
            try(&saved, bytes, section.left);
            bytes[i] ^= (uint8_t)change;
        }
    }
    fields_that_are_wrong(&saved, bytes, section.left);
    /* The client notices none of it. */
    assert_int_equal(try(&saved, bytes, section.left), 0);
    test_client_send_raw(&client, "0123456789ab", 12, NULL, 0);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    assert_int_equal(test_client_receive(&client), 1);
    saved_fini(&saved);
    free(bytes);
    close(fd);
    close(event);
    close(twin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(commands_go_on, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(nothing_said_yet, setup_raw, teardown),
        cmocka_unit_test_setup_teardown(half_a_header, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(a_header_alone, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(half_a_payload, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(unread_replies, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(interrupts_go_on, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(memory_goes_on, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(messages_of_its_own, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(twice, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(held_back, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(more_files_than_are_kept, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(state_that_is_wrong, setup_raw_memory, teardown),
        cmocka_unit_test_setup_teardown(twin_goes_on, setup_raw_memory, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
