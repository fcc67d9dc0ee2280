/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guest_test.c - /init of the test guest: a stock Linux kernel, VFIO, and edu devices behind VT-d.
 *
 * It loads the kernel modules that /modules.order names, checks what the kernel says of the IOMMU,
 * takes each edu device and checks what its DMA can and cannot do, prints one line a check and at
 * the end "guest: ok" or "guest: FAILED n".  Then it powers the machine off.
 *
 * Words of the kernel command line:
 *   viommu.edu=N      N edu devices must be there (default: at least one)
 *   viommu.pages=N    pages of the scattered test (default 64)
 *   viommu.storm=N    map and unmap cycles (default 300)
 *   viommu.log-all    wait wherever the driver's rate limit would keep a fault out of its log
 *   viommu.qemu-unit  the unit is QEMU's own, not ours
 *   viommu.reboot     ask on the console what to do at the end: a line "reboot" (in order), "reset"
 *                     (at once, translation and mappings still active) or "off"
 *   iommu.strict=1    checked against what the kernel made of it
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "device_checks.h"
#include "kmsg.h"
#include "report.h"
#include "vfio.h"

enum {
    MAX_EDU = 8,
    CAP_CACHING_MODE = 1 << 7,
    ECAP_INTERRUPT_REMAPPING = 1 << 3,
    ANSWER_TIMEOUT_MS = 20000,
    LOG_LINES_ON_FAILURE = 60,
};

static char command_line[2048];

static bool read_file(const char *path, char *to, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0) {
        return false;
    }
    n = read(fd, to, size - 1);
    close(fd);
    if (n < 0) {
        return false;
    }
    to[n] = '\0';
    to[strcspn(to, "\n")] = '\0';
    return true;
}

/* Is this word on the command line?  Returns what follows it, or NULL. */
static const char *word(const char *name)
{
    const char *p = command_line;
    size_t len = strlen(name);

    while ((p = strstr(p, name)) != NULL) {
        if (p == command_line || p[-1] == ' ') {
            return p + len;
        }
        p += len;
    }
    return NULL;
}

static unsigned number(const char *name, unsigned otherwise)
{
    const char *p = word(name);

    return p ? (unsigned)strtoul(p, NULL, 0) : otherwise;
}

static void set_up(void)
{
    struct utsname u;

    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    if (mount("proc", "/proc", "proc", 0, NULL) || mount("sysfs", "/sys", "sysfs", 0, NULL) ||
        (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY)) {
        check(false, "mount /proc, /sys and /dev");
    }
    read_file("/proc/cmdline", command_line, sizeof(command_line));
    if (uname(&u) == 0) {
        note("guest: kernel %s, %ld CPUs", u.release, sysconf(_SC_NPROCESSORS_ONLN));
    }
}

static void load_modules(void)
{
    FILE *list = fopen("/modules.order", "re");
    char path[256];

    while (list && fgets(path, sizeof(path), list)) {
        int fd;

        path[strcspn(path, "\n")] = '\0';
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)) {
            check(false, "load %s", path);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    if (list) {
        fclose(list);
    } else {
        check(false, "open /modules.order");
    }
}

/* Linux does without them in a guest as small as this unless told. */
static void allow_huge_pages(void)
{
    int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "always", 6) != 6) {
        note("no huge pages");
    }
    if (fd >= 0) {
        close(fd);
    }
}

/* What the kernel found, from its log and from /sys. */
static void check_unit(void)
{
    char cap[32] = "0", ecap[32] = "0", address[32] = "?";
    unsigned long long c, e;

    report_detail("no line \"DMAR: Intel(R) Virtualization Technology for Directed I/O\"");
    check(kmsg_find("DMAR: Intel(R) Virtualization Technology for Directed I/O") != NULL,
          "the kernel's VT-d driver runs");
    kmsg_show("DMAR: DRHD base");
    kmsg_show("DMAR: dmar0");
    report_detail("no /sys/class/iommu/dmar0");
    if (!check(read_file("/sys/class/iommu/dmar0/intel-iommu/cap", cap, sizeof(cap)),
               "the unit is there: dmar0")) {
        return;
    }
    read_file("/sys/class/iommu/dmar0/intel-iommu/ecap", ecap, sizeof(ecap));
    read_file("/sys/class/iommu/dmar0/intel-iommu/address", address, sizeof(address));
    c = strtoull(cap, NULL, 16);
    e = strtoull(ecap, NULL, 16);
    note("guest: unit at %s, cap %s, ecap %s%s%s", address, cap, ecap,
         c & CAP_CACHING_MODE ? ", caching mode" : "",
         e & ECAP_INTERRUPT_REMAPPING ? ", interrupt remapping" : "");
    report_detail("the unit was not reset: %s", "\"Translation already enabled\" in the log");
    check(!kmsg_find("ranslation already enabled") && !kmsg_find("ranslation is enabled"),
          "translation was off when the kernel came");
    /* With caching mode the kernel is strict whatever it was asked for. */
    if (word("iommu.strict=1") || c & CAP_CACHING_MODE) {
        report_detail("no such line in the log");
        check(kmsg_find("TLB invalidation policy: strict mode") || c & CAP_CACHING_MODE,
              "the kernel invalidates strictly");
    } else {
        report_detail("no such line in the log");
        check(kmsg_find("TLB invalidation policy: lazy mode") != NULL,
              "the kernel invalidates lazily");
    }
}

static void check_group(struct edu *edu)
{
    char path[128], type[32] = "";
    struct stat st;
    int error;

    snprintf(path, sizeof(path), "/sys/class/iommu/dmar0/devices/%s", edu->bdf);
    check(stat(path, &st) == 0, "%s: behind dmar0", edu->bdf);
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group/type", edu->bdf);
    read_file(path, type, sizeof(type));
    report_detail("type is \"%s\"", type);
    check(strncmp(type, "DMA", 3) == 0, "%s: has an IOMMU group of type %s", edu->bdf, type);
    error = vfio_bind(edu->bdf, &edu->group);
    errno = -error;
    check(error == 0, "%s: bound to vfio-pci, group %u", edu->bdf, edu->group);
}

static void check_devices(void)
{
    struct plan plan = {number("viommu.pages=", 64), number("viommu.storm=", 300),
                        word("viommu.qemu-unit") != NULL};
    struct station stations[MAX_EDU];
    struct edu edus[MAX_EDU];
    unsigned found = edu_find(edus, MAX_EDU);
    unsigned wanted = number("viommu.edu=", 0);

    report_detail("found %u, wanted %u", found, wanted);
    if (!check(found > 0 && (wanted == 0 || found == wanted), "%u edu devices", found)) {
        return;
    }
    for (unsigned i = 0; i < found; i++) {
        check_group(&edus[i]);
    }
    for (unsigned i = 0; i < found; i++) {
        if (!station_open(&stations[i], &edus[i])) {
            return;
        }
        check_allowed(&stations[i], &plan);
        check_refused(&stations[i], &plan);
    }
    if (found > 1) {
        check_isolation(&stations[0], &stations[1]);
    }
    for (unsigned i = 0; i < found; i++) {
        station_close(&stations[i]);
    }
    if (found > 1) {
        check_shared_domain(&edus[0], &edus[1]);
    }
    /* Open again, so that an abrupt reset meets live mappings. */
    if (word("viommu.reboot")) {
        for (unsigned i = 0; i < found; i++) {
            station_open(&stations[i], &edus[i]);
        }
    }
}

static void check_log(void)
{
    static const char *const complaints[] = {
        "DMAR: ERROR", "DMAR: VT-d detected", "DMAR: [Firmware", "BUG:", "WARNING:", "Call Trace",
        "soft lockup", "self-detected stall",
    };
    unsigned strays = kmsg_strays();
    const char *line = NULL;

    report_detail("%u of them", strays);
    check(strays == 0, "no fault that was not provoked");
    for (unsigned i = 0; i < sizeof(complaints) / sizeof(complaints[0]) && !line; i++) {
        line = kmsg_find(complaints[i]);
    }
    report_detail("%s", line);
    check(!line, "no complaint in the log");
}

/* Ask the harness outside what comes next; it alone remembers across a reboot. */
static void ask(char *answer, size_t size)
{
    struct pollfd p = {.fd = 0, .events = POLLIN};

    printf("guest: reboot, reset or off?\n");
    fflush(stdout);
    answer[0] = '\0';
    if (poll(&p, 1, ANSWER_TIMEOUT_MS) == 1) {
        ssize_t n = read(0, answer, size - 1);

        answer[n > 0 ? n : 0] = '\0';
    }
}

static void finish(void)
{
    char answer[32] = "off";

    if (word("viommu.reboot")) {
        ask(answer, sizeof(answer));
    }
    sync();
    if (strncmp(answer, "reset", 5) == 0) {
        int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);

        if (fd >= 0 && write(fd, "b", 1) == 1) {
            pause();
        }
    }
    reboot(strncmp(answer, "re", 2) == 0 ? RB_AUTOBOOT : RB_POWER_OFF);
    for (;;) {
        pause();
    }
}

int main(void)
{
    set_up();
    if (kmsg_open(word("viommu.log-all") != NULL)) {
        check(false, "open /dev/kmsg");
    }
    allow_huge_pages();
    load_modules();
    check_unit();
    check_devices();
    check_log();
    if (report_failures()) {
        kmsg_show_last(LOG_LINES_ON_FAILURE);
        printf("guest: FAILED %u\n", report_failures());
    } else {
        printf("guest: ok\n");
    }
    fflush(stdout);
    finish();
}
