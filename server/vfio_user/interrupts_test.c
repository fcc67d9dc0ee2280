/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the interrupt commands: every form of SET_IRQS, right and wrong, and what the client
 * then hears.
 */
#include "interrupts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "../log.h"
#include "test_fixture.h"

static bool no_proc;

/* Instead of the C library's. */
ssize_t readlink(const char *path, char *target, size_t size)
{
    if (no_proc) {
        errno = ENOENT;
        return -1;
    }
    return syscall(SYS_readlinkat, AT_FDCWD, path, target, size);
}

static void irq_info(void **state)
{
    static const unsigned counts[VFIO_PCI_NUM_IRQS] = {1, RECORDER_VECTORS, RECORDER_MSIX_VECTORS,
                                                       0, 0};
    struct vfio_irq_info info;

    (void)state;
    for (uint32_t i = 0; i < VFIO_PCI_NUM_IRQS; i++) {
        info = (struct vfio_irq_info){.argsz = sizeof(info), .index = i};
        assert_int_equal(
            test_client_command(&client, VFIO_USER_DEVICE_GET_IRQ_INFO, &info, sizeof(info)), 0);
        memcpy(&info, client.payload, sizeof(info));
        assert_int_equal(info.count, counts[i]);
        assert_int_equal(info.index, i);
        assert_int_equal((info.flags & VFIO_IRQ_INFO_EVENTFD) != 0, counts[i] != 0);
    }
    info = (struct vfio_irq_info){.argsz = sizeof(info), .index = VFIO_PCI_NUM_IRQS};
    assert_int_equal(
        test_client_command(&client, VFIO_USER_DEVICE_GET_IRQ_INFO, &info, sizeof(info)), -EINVAL);
    info = (struct vfio_irq_info){.argsz = 8};
    assert_int_equal(
        test_client_command(&client, VFIO_USER_DEVICE_GET_IRQ_INFO, &info, sizeof(info)), -EINVAL);
}

#define EVENTFD_TRIGGER (VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER)
#define NONE_TRIGGER    (VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER)
#define BOOL_TRIGGER    (VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER)
#define NONE_MASK       (VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK)
#define NONE_UNMASK     (VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK)

static int set_irqs(uint32_t flags, uint32_t index, uint32_t start, uint32_t count, const int *fds,
                    unsigned n_fds)
{
    return test_client_set_irqs(&client, flags, index, start, count, NULL, 0, fds, n_fds);
}

static void msi_by_eventfd_in_stages(void **state)
{
    const uint32_t msi = VFIO_PCI_MSI_IRQ_INDEX;
    uint8_t which[8] = {0, 1, 0, 0, 0, 0, 0, 1};
    int fds[RECORDER_VECTORS];

    (void)state;
    test_open_eventfds(fds, RECORDER_VECTORS);
    /* First one vector without a descriptor, as clients do when the guest enables the capability.
     */
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, msi, 0, 1, NULL, 0), 0);
    pci_function_message_interrupt(&recorder.function, 3);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, msi, 0, 8, fds, 8), 0);
    /* What came before its descriptor is not lost. */
    assert_int_equal(test_eventfd_count(fds[3]), 1);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, msi, 8, 8, fds + 8, 8), 0);
    pci_function_message_interrupt(&recorder.function, 15);
    pci_function_message_interrupt(&recorder.function, 15);
    pci_function_message_interrupt(&recorder.function, 16);
    assert_int_equal(test_eventfd_count(fds[15]), 2);
    /* The client triggers some itself. */
    assert_int_equal(test_client_set_irqs(&client, BOOL_TRIGGER, msi, 0, 8, which, 8, NULL, 0), 0);
    assert_int_equal(test_eventfd_count(fds[0]), 0);
    assert_int_equal(test_eventfd_count(fds[1]), 1);
    assert_int_equal(test_eventfd_count(fds[7]), 1);
    assert_int_equal(set_irqs(NONE_TRIGGER, msi, 2, 2, NULL, 0), 0);
    assert_int_equal(test_eventfd_count(fds[2]), 1);
    assert_int_equal(test_eventfd_count(fds[3]), 1);
    assert_int_equal(test_eventfd_count(fds[4]), 0);
    /* Take one back, then all. */
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, msi, 2, 1, NULL, 0), 0);
    pci_function_message_interrupt(&recorder.function, 2);
    assert_int_equal(test_eventfd_count(fds[2]), 0);
    assert_int_equal(set_irqs(NONE_TRIGGER, msi, 0, 0, NULL, 0), 0);
    pci_function_message_interrupt(&recorder.function, 15);
    assert_int_equal(test_eventfd_count(fds[15]), 0);
    test_close_all(fds, RECORDER_VECTORS);
}

/* Only while the guest has MSI-X enabled do vectors mean those of MSI-X. */
static void msix_when_it_is_enabled(void **state)
{
    const uint16_t enable = PCI_MSIX_FLAGS_ENABLE;
    struct pci_config *config = &recorder.function.config;
    int fds[2];

    (void)state;
    test_open_eventfds(fds, 2);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, VFIO_PCI_MSI_IRQ_INDEX, 0, 1, fds, 1), 0);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, fds + 1, 1), 0);
    pci_function_message_interrupt(&recorder.function, 0);
    assert_int_equal(test_eventfd_count(fds[0]), 1);
    assert_int_equal(test_eventfd_count(fds[1]), 0);
    pci_config_write(config, config->msix + PCI_MSIX_FLAGS, &enable, sizeof(enable));
    pci_function_message_interrupt(&recorder.function, 0);
    assert_int_equal(test_eventfd_count(fds[0]), 0);
    assert_int_equal(test_eventfd_count(fds[1]), 1);
    /* The last vector, before it has a descriptor; and one too far. */
    pci_function_message_interrupt(&recorder.function, RECORDER_MSIX_VECTORS - 1);
    pci_function_message_interrupt(&recorder.function, RECORDER_MSIX_VECTORS);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX, RECORDER_MSIX_VECTORS - 1,
                              1, fds, 1),
                     0);
    assert_int_equal(test_eventfd_count(fds[0]), 1);
    test_close_all(fds, 2);
}

static void intx_is_a_level_that_masks_itself(void **state)
{
    const uint32_t intx = VFIO_PCI_INTX_IRQ_INDEX;
    int fd;

    (void)state;
    test_open_eventfds(&fd, 1);
    pci_function_line_interrupt(&recorder.function, true);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, intx, 0, 1, &fd, 1), 0);
    assert_int_equal(test_eventfd_count(fd), 1);
    pci_function_line_interrupt(&recorder.function, true);
    assert_int_equal(test_eventfd_count(fd), 0);
    assert_int_equal(set_irqs(NONE_UNMASK, intx, 0, 1, NULL, 0), 0);
    assert_int_equal(test_eventfd_count(fd), 1);
    pci_function_line_interrupt(&recorder.function, false);
    assert_int_equal(set_irqs(NONE_UNMASK, intx, 0, 1, NULL, 0), 0);
    assert_int_equal(test_eventfd_count(fd), 0);
    assert_int_equal(set_irqs(NONE_MASK, intx, 0, 1, NULL, 0), 0);
    pci_function_line_interrupt(&recorder.function, true);
    assert_int_equal(test_eventfd_count(fd), 0);
    assert_int_equal(set_irqs(NONE_UNMASK, intx, 0, 1, NULL, 0), 0);
    assert_int_equal(test_eventfd_count(fd), 1);
    assert_int_equal(set_irqs(NONE_TRIGGER, intx, 0, 1, NULL, 0), 0);
    assert_int_equal(test_eventfd_count(fd), 1);
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_RESET, NULL, 0), 0);
    pci_function_line_interrupt(&recorder.function, true);
    assert_int_equal(test_eventfd_count(fd), 1);
    assert_int_equal(set_irqs(NONE_TRIGGER, intx, 0, 0, NULL, 0), 0);
    pci_function_line_interrupt(&recorder.function, false);
    pci_function_line_interrupt(&recorder.function, true);
    assert_int_equal(test_eventfd_count(fd), 0);
    close(fd);
}

static void irq_sets_that_cannot_be(void **state)
{
    const uint32_t msi = VFIO_PCI_MSI_IRQ_INDEX;
    struct vfio_irq_set set = {.argsz = 19, .flags = NONE_TRIGGER};
    uint8_t bools[4] = {1, 1, 1, 1};
    int fds[8], pipe_fds[2], regular = memfd_create("no eventfd", MFD_CLOEXEC);

    (void)state;
    test_open_eventfds(fds, 8);
    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(set_irqs(0, msi, 0, 0, NULL, 0), -EINVAL);
    assert_int_equal(set_irqs(VFIO_IRQ_SET_DATA_NONE, msi, 0, 1, NULL, 0), -EINVAL);
    assert_int_equal(set_irqs(UINT32_MAX, msi, 0, 1, NULL, 0), -EINVAL);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER | VFIO_IRQ_SET_DATA_NONE, msi, 0, 1, fds, 1),
                     -EINVAL);
    assert_int_equal(set_irqs(NONE_TRIGGER | VFIO_IRQ_SET_ACTION_MASK, msi, 0, 1, NULL, 0),
                     -EINVAL);
    assert_int_equal(set_irqs(NONE_TRIGGER | 0x40, msi, 0, 1, NULL, 0), -EINVAL);
    assert_int_equal(set_irqs(NONE_TRIGGER, VFIO_PCI_NUM_IRQS, 0, 0, NULL, 0), -EINVAL);
    assert_int_equal(set_irqs(NONE_TRIGGER, UINT32_MAX, 0, 0, NULL, 0), -EINVAL);
    assert_int_equal(set_irqs(NONE_TRIGGER, msi, RECORDER_VECTORS + 1, 0, NULL, 0), -EINVAL);
    assert_int_equal(set_irqs(NONE_TRIGGER, msi, RECORDER_VECTORS, 1, NULL, 0), -EINVAL);
    assert_int_equal(set_irqs(NONE_TRIGGER, msi, 1, UINT32_MAX, NULL, 0), -EINVAL);
    assert_int_equal(set_irqs(NONE_TRIGGER, msi, UINT32_MAX, UINT32_MAX, NULL, 0), -EINVAL);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, msi, 0, 8, fds, 7), -EINVAL);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, msi, 0, 1, fds, 2), -EINVAL);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, msi, 0, 0, NULL, 0), -EINVAL);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, msi, 0, 0, fds, 1), -EINVAL);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, msi, RECORDER_VECTORS - 1, 2, fds, 2), -EINVAL);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, VFIO_PCI_ERR_IRQ_INDEX, 0, 1, fds, 1), -EINVAL);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX, RECORDER_MSIX_VECTORS, 1,
                              fds, 1),
                     -EINVAL);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, msi, 0, 1, &regular, 1), -EINVAL);
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, msi, 0, 1, &pipe_fds[1], 1), -EINVAL);
    assert_int_equal(set_irqs(NONE_TRIGGER, msi, 0, 1, fds, 1), -EINVAL);
    assert_int_equal(set_irqs(NONE_MASK, msi, 0, 1, NULL, 0), -ENOTSUP);
    assert_int_equal(set_irqs(VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK,
                              VFIO_PCI_INTX_IRQ_INDEX, 0, 1, fds, 1),
                     -ENOTSUP);
    assert_int_equal(test_client_set_irqs(&client, BOOL_TRIGGER, msi, 0, 5, bools, 4, NULL, 0),
                     -EINVAL);
    assert_int_equal(test_client_set_irqs(&client, BOOL_TRIGGER, msi, 0, 3, bools, 4, NULL, 0),
                     -EINVAL);
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_SET_IRQS, &set, sizeof(set)),
                     -EINVAL);
    /* An index without vectors may be switched off, and nothing else. */
    assert_int_equal(set_irqs(NONE_TRIGGER, VFIO_PCI_ERR_IRQ_INDEX, 0, 0, NULL, 0), 0);
    test_close_all(fds, 8);
    close(regular);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static void a_full_eventfd_does_not_stop_us(void **state)
{
    uint64_t full = UINT64_MAX - 1;
    int fd = eventfd(0, EFD_CLOEXEC); /* a blocking one */

    (void)state;
    assert_int_equal(write(fd, &full, sizeof(full)), sizeof(full));
    assert_int_equal(set_irqs(EVENTFD_TRIGGER, VFIO_PCI_MSI_IRQ_INDEX, 0, 1, &fd, 1), 0);
    assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
    pci_function_message_interrupt(&recorder.function, 0);
    assert_true(test_eventfd_count(fd) >= full);
    close(fd);
}

/* Nothing is believed for that. */
static void where_proc_is_not(void **state)
{
    int pipe_fds[2], fd = eventfd(0, EFD_CLOEXEC), file = memfd_create("no eventfd", MFD_CLOEXEC);
    int of_pipe, of_file, of_eventfd;

    (void)state;
    assert_int_equal(pipe(pipe_fds), 0);
    no_proc = true;
    of_pipe = vfio_user_interrupts_accept(&pipe_fds[1], 1);
    of_file = vfio_user_interrupts_accept(&file, 1);
    of_eventfd = vfio_user_interrupts_accept(&fd, 1);
    no_proc = false;
    assert_int_equal(of_pipe, -EINVAL);
    assert_int_equal(of_file, -EINVAL);
    assert_int_equal(of_eventfd, 0);
    close(fd);
    close(file);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(irq_info),
        TEST(msi_by_eventfd_in_stages),
        TEST(msix_when_it_is_enabled),
        TEST(intx_is_a_level_that_masks_itself),
        TEST(irq_sets_that_cannot_be),
        TEST(a_full_eventfd_does_not_stop_us),
        TEST(where_proc_is_not),
    };

    server_log_to(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
