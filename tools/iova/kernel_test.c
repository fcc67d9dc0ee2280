/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of asking VFIO and iommufd, against a kernel that this program plays: device files are
 * plain files of a folder, and `ioctl` is its own, which the linker takes in place of libc's. (The
 * real ones are met by the tests with guests.)
 */
#include "kernel.h"

#include "vfio/test_answer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define DEVICE "0000:01:00.0"
#define IOAS 5

enum step {
    GROUP_STATUS,
    SET_CONTAINER,
    SET_IOMMU,
    GET_INFO,
    BIND,
    ALLOC,
    ATTACH,
    IOVA_RANGES,
    STEPS,
};

static char folder[PATH_MAX / 2];
static struct kernel_paths paths;

static struct {
    bool not_viable;
    unsigned steps[STEPS]; /* how often */
    enum step failing;
    int error; /* of that step; 0: none fails */
    struct test_answer answer;
    unsigned ranges; /* of iommufd's answer */
    unsigned maps;
} kernel;

/* The requests of iommufd and of VFIO's devices, as the kernel has them. */
struct request {
    uint32_t size;
    uint32_t flags;
    uint32_t id;
    uint32_t device;
};

struct ranges_request {
    uint32_t size;
    uint32_t ioas;
    uint32_t count;
    uint32_t reserved;
    uint64_t ranges;
    uint64_t alignment;
};

static bool is(int fd, const char *name)
{
    char link[64];
    char path[PATH_MAX] = "";
    char expected[PATH_MAX];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    snprintf(expected, sizeof(expected), "%s/dev/%s", folder, name);
    return readlink(link, path, sizeof(path) - 1) > 0 && !strcmp(path, expected);
}

static int refuse(int error)
{
    errno = error;
    return -1;
}

/* Takes one step, which may be the one that fails. */
static int step(enum step step, bool right)
{
    kernel.steps[step]++;
    if (!right) {
        return refuse(EBADF);
    }
    return kernel.error && kernel.failing == step ? refuse(kernel.error) : 0;
}

static int get_info(struct vfio_iommu_type1_info *info)
{
    uint32_t room = info->argsz;

    if (step(GET_INFO, kernel.steps[SET_IOMMU])) {
        return -1;
    }
    memcpy(info, kernel.answer.bytes,
           room < kernel.answer.size ? sizeof(*info) : kernel.answer.size);
    info->argsz = (uint32_t)kernel.answer.size;
    info->cap_offset = room < kernel.answer.size ? 0 : info->cap_offset;
    return 0;
}

static int iova_ranges(struct ranges_request *request)
{
    uint64_t *ranges = (uint64_t *)(uintptr_t)request->ranges;
    uint32_t room = request->count;

    if (step(IOVA_RANGES, request->ioas == IOAS && kernel.steps[ATTACH])) {
        return -1;
    }
    request->alignment = 4096;
    request->count = kernel.ranges;
    for (uint32_t i = 0; i < room && i < kernel.ranges; i++) {
        ranges[2 * i] = i * 0x100000;
        ranges[2 * i + 1] = i * 0x100000 + 0xffff;
    }
    return room < kernel.ranges ? refuse(EMSGSIZE) : 0;
}

static int on_vfio(int fd, unsigned long number, void *argument)
{
    switch (number) {
    case VFIO_GET_API_VERSION:
        return 0;
    case VFIO_CHECK_EXTENSION:
        return 1;
    case VFIO_GROUP_GET_STATUS:
        ((struct vfio_group_status *)argument)->flags =
            kernel.not_viable ? 0 : VFIO_GROUP_FLAGS_VIABLE;
        return step(GROUP_STATUS, is(fd, "vfio/7"));
    case VFIO_GROUP_SET_CONTAINER:
        return step(SET_CONTAINER, is(fd, "vfio/7") && is(*(int *)argument, "vfio/vfio"));
    case VFIO_SET_IOMMU:
        return step(SET_IOMMU, is(fd, "vfio/vfio") && kernel.steps[SET_CONTAINER] &&
                                   (uintptr_t)argument == VFIO_TYPE1v2_IOMMU);
    case VFIO_IOMMU_GET_INFO:
        return get_info(argument);
    case VFIO_IOMMU_MAP_DMA:
        kernel.maps++;
        return refuse(EPERM);
    default:
        return 0; /* what unmaps */
    }
}

/* In place of libc's. */
int ioctl(int fd, unsigned long number, ...)
{
    struct request *request;
    va_list arguments;
    void *argument;

    va_start(arguments, number);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    request = argument;
    switch (number) {
    case _IO(VFIO_TYPE, VFIO_BASE + 18):
        return step(BIND, is(fd, "vfio/devices/vfio3") && request->size == 16 &&
                              is((int)request->id, "iommu"));
    case _IO(';', 0x81):
        request->id = IOAS;
        return step(ALLOC, is(fd, "iommu") && request->size == 12 && kernel.steps[BIND]);
    case _IO(VFIO_TYPE, VFIO_BASE + 19):
        return step(ATTACH, is(fd, "vfio/devices/vfio3") && request->size == 12 &&
                                request->id == IOAS);
    case _IO(';', 0x84):
        return iova_ranges(argument);
    case _IO(';', 0x85):
        kernel.maps++;
        return refuse(EPERM);
    case _IO(';', 0x86):
        return 0;
    default:
        return on_vfio(fd, number, argument);
    }
}

static void path_of(char *path, const char *name)
{
    snprintf(path, PATH_MAX, "%s/%s", folder, name);
}

static void make_file(const char *name)
{
    char path[PATH_MAX];
    int fd;

    path_of(path, name);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void make_folder(const char *name)
{
    char path[PATH_MAX];

    path_of(path, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void remove_name(const char *name)
{
    char path[PATH_MAX];

    path_of(path, name);
    assert_int_equal(remove(path), 0);
}

static const char *const folders[] = {"sys", "sys/bus", "sys/bus/pci", "sys/bus/pci/devices",
                                      "sys/bus/pci/devices/" DEVICE,
                                      "sys/bus/pci/devices/" DEVICE "/vfio-dev",
                                      "sys/bus/pci/devices/" DEVICE "/vfio-dev/vfio3",
                                      "dev", "dev/vfio", "dev/vfio/devices"};
static const char *const files[] = {"dev/vfio/vfio", "dev/vfio/7", "dev/vfio/devices/vfio3",
                                    "dev/iommu"};
#define GROUP "sys/bus/pci/devices/" DEVICE "/iommu_group"

static int begin(void **state)
{
    static char sysfs[PATH_MAX];
    static char dev[PATH_MAX];
    static char template[] = "/tmp/viommu-kernel-XXXXXX";
    const struct viommu_range ranges[] = {{0, 0xfedfffff}, {0xfef00000, 0x7fffffffff}};
    char path[PATH_MAX];

    (void)state;
    memset(&kernel, 0, sizeof(kernel));
    kernel.ranges = 9;
    answer_begin(&kernel.answer, VFIO_IOMMU_INFO_CAPS | VFIO_IOMMU_INFO_PGSIZES, 0x1000);
    answer_add_ranges(&kernel.answer, ranges, 2);
    strcpy(template + sizeof(template) - 7, "XXXXXX");
    assert_non_null(mkdtemp(template));
    assert_non_null(realpath(template, folder));
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        make_folder(folders[i]);
    }
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        make_file(files[i]);
    }
    path_of(path, GROUP);
    assert_int_equal(symlink("../../../kernel/iommu_groups/7", path), 0);
    path_of(sysfs, "sys");
    path_of(dev, "dev");
    paths = (struct kernel_paths){sysfs, dev};
    return 0;
}

static int end(void **state)
{
    char path[PATH_MAX];

    (void)state;
    assert_int_equal(kernel.maps, 0);
    path_of(path, GROUP);
    (void)remove(path);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        path_of(path, files[i]);
        (void)remove(path);
    }
    for (size_t i = sizeof(folders) / sizeof(folders[0]); i--;) {
        path_of(path, folders[i]);
        (void)remove(path);
    }
    return rmdir(folder);
}

/* How many files are open: none stays so. */
static unsigned open_files(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void test_group(void **state)
{
    unsigned group = 0;

    (void)state;
    assert_true(kernel_find_group(&paths, DEVICE, &group));
    assert_int_equal(group, 7);
    assert_false(kernel_find_group(&paths, "0000:02:00.0", &group));
    remove_name(GROUP);
    assert_false(kernel_find_group(&paths, DEVICE, &group));
}

static void test_vfio(void **state)
{
    struct kernel_answer answer;
    unsigned before = open_files();

    (void)state;
    assert_true(kernel_ask_vfio(&paths, 7, &answer));
    assert_string_equal(answer.who, "VFIO group 7");
    assert_int_equal(answer.count, 2);
    assert_int_equal(answer.ranges[0].last, 0xfedfffff);
    assert_int_equal(answer.ranges[1].first, 0xfef00000);
    assert_int_equal(answer.ranges[1].last, 0x7fffffffff);
    free(answer.ranges);
    /* It does not say: any address. */
    answer_begin(&kernel.answer, VFIO_IOMMU_INFO_PGSIZES, 0x1000);
    assert_true(kernel_ask_vfio(&paths, 7, &answer));
    assert_int_equal(answer.count, 1);
    assert_int_equal(answer.ranges[0].last, UINT64_MAX);
    free(answer.ranges);
    assert_int_equal(open_files(), before);
}

static void test_vfio_that_fails(void **state)
{
    struct kernel_answer answer;
    unsigned before = open_files();

    (void)state;
    kernel.error = EPERM;
    for (kernel.failing = GROUP_STATUS; kernel.failing <= GET_INFO; kernel.failing++) {
        assert_false(kernel_ask_vfio(&paths, 7, &answer));
        assert_null(answer.ranges);
        assert_int_equal(kernel.steps[kernel.failing], 1);
        memset(kernel.steps, 0, sizeof(kernel.steps));
    }
    kernel.error = 0;
    kernel.not_viable = true;
    assert_false(kernel_ask_vfio(&paths, 7, &answer));
    assert_int_equal(kernel.steps[SET_CONTAINER], 0);
    kernel.not_viable = false;
    assert_false(kernel_ask_vfio(&paths, 8, &answer)); /* no such group */
    answer_begin(&kernel.answer, VFIO_IOMMU_INFO_CAPS, 0);
    answer_add_ranges(&kernel.answer, NULL, 0); /* no address at all */
    assert_false(kernel_ask_vfio(&paths, 7, &answer));
    remove_name("dev/vfio/vfio");
    assert_false(kernel_ask_vfio(&paths, 7, &answer));
    assert_int_equal(open_files(), before);
}

static void test_iommufd(void **state)
{
    struct kernel_answer answer;
    unsigned before = open_files();

    (void)state;
    assert_true(kernel_ask_iommufd(&paths, DEVICE, &answer));
    assert_string_equal(answer.who, "iommufd " DEVICE);
    assert_int_equal(answer.count, 9);
    assert_int_equal(answer.ranges[8].last, 0x80ffff);
    free(answer.ranges);
    assert_int_equal(open_files(), before);
}

static void test_iommufd_that_fails(void **state)
{
    struct kernel_answer answer;
    unsigned before = open_files();

    (void)state;
    kernel.error = EBUSY;
    for (kernel.failing = BIND; kernel.failing <= IOVA_RANGES; kernel.failing++) {
        assert_false(kernel_ask_iommufd(&paths, DEVICE, &answer));
        assert_null(answer.ranges);
        assert_int_equal(kernel.steps[kernel.failing], 1);
        memset(kernel.steps, 0, sizeof(kernel.steps));
    }
    kernel.error = 0;
    kernel.ranges = 0;
    assert_false(kernel_ask_iommufd(&paths, DEVICE, &answer));
    assert_false(kernel_ask_iommufd(&paths, "0000:02:00.0", &answer));
    remove_name("dev/vfio/devices/vfio3");
    assert_false(kernel_ask_iommufd(&paths, DEVICE, &answer));
    remove_name("dev/iommu");
    assert_false(kernel_ask_iommufd(&paths, DEVICE, &answer));
    assert_int_equal(open_files(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_group, begin, end),
        cmocka_unit_test_setup_teardown(test_vfio, begin, end),
        cmocka_unit_test_setup_teardown(test_vfio_that_fails, begin, end),
        cmocka_unit_test_setup_teardown(test_iommufd, begin, end),
        cmocka_unit_test_setup_teardown(test_iommufd_that_fails, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
