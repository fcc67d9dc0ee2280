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
 *   viommu.record     print what is mapped (vfio.h)
 *   viommu.reboot     start again in the end (init.h)
 *   iommu.strict=1    checked against what the kernel made of it
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device_checks.h"
#include "init.h"
#include "kmsg.h"
#include "report.h"
#include "vfio.h"

enum {
    MAX_EDU = 8,
    CAP_CACHING_MODE = 1 << 7,
    ECAP_INTERRUPT_REMAPPING = 1 << 3,
};

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
    if (!check(init_read_file("/sys/class/iommu/dmar0/intel-iommu/cap", cap, sizeof(cap)),
               "the unit is there: dmar0")) {
        return;
    }
    init_read_file("/sys/class/iommu/dmar0/intel-iommu/ecap", ecap, sizeof(ecap));
    init_read_file("/sys/class/iommu/dmar0/intel-iommu/address", address, sizeof(address));
    c = strtoull(cap, NULL, 16);
    e = strtoull(ecap, NULL, 16);
    note("guest: unit at %s, cap %s, ecap %s%s%s", address, cap, ecap,
         c & CAP_CACHING_MODE ? ", caching mode" : "",
         e & ECAP_INTERRUPT_REMAPPING ? ", interrupt remapping" : "");
    report_detail("the unit was not reset: %s", "\"Translation already enabled\" in the log");
    check(!kmsg_find("ranslation already enabled") && !kmsg_find("ranslation is enabled"),
          "translation was off when the kernel came");
    /* With caching mode the kernel is strict whatever it was asked for. */
    if (init_word("iommu.strict=1") || c & CAP_CACHING_MODE) {
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
    init_read_file(path, type, sizeof(type));
    report_detail("type is \"%s\"", type);
    check(strncmp(type, "DMA", 3) == 0, "%s: has an IOMMU group of type %s", edu->bdf, type);
    error = vfio_bind(edu->bdf, &edu->group);
    errno = -error;
    check(error == 0, "%s: bound to vfio-pci, group %u", edu->bdf, edu->group);
}

static void check_devices(void)
{
    struct plan plan = {init_number("viommu.pages=", 64), init_number("viommu.storm=", 300),
                        init_word("viommu.qemu-unit") != NULL};
    struct station stations[MAX_EDU];
    struct edu edus[MAX_EDU];
    unsigned found = edu_find(edus, MAX_EDU);
    unsigned wanted = init_number("viommu.edu=", 0);

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
        check_shuffle(&stations[i], &plan);
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
    if (init_word("viommu.reboot")) {
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

int main(void)
{
    init_set_up();
    if (kmsg_open(init_word("viommu.log-all") != NULL)) {
        check(false, "open /dev/kmsg");
    }
    allow_huge_pages();
    init_load_modules();
    if (init_word("viommu.record")) {
        vfio_record();
    }
    check_unit();
    check_devices();
    check_log();
    init_finish();
}
