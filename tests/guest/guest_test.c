/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guest_test.c - /init of the test guest: a stock Linux kernel, VFIO, and edu devices behind VT-d
 * or a virtio-iommu.
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
 *   viommu.virtio     the unit is a virtio-iommu, not VT-d
 *   viommu.qemu-unit  the unit is QEMU's own, not ours
 *   viommu.hostile    the device is hostile: it attacks at the end, and the log is full of that
 *   viommu.record     print what is mapped (vfio.h)
 *   viommu.reboot     start again in the end (init.h)
 *   iommu.strict=1    checked against what the kernel made of it
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "device_checks.h"
#include "init.h"
#include "kmsg.h"
#include "report.h"
#include "unit_checks.h"
#include "vfio.h"

enum {
    MAX_EDU = 8,
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
        check_edu_group(&edus[i]);
    }
    for (unsigned i = 0; i < found; i++) {
        if (!station_open(&stations[i], &edus[i])) {
            return;
        }
        check_allowed(&stations[i], &plan);
        check_shuffle(&stations[i], &plan);
        check_refused(&stations[i], &plan);
        if (init_word("viommu.hostile")) {
            check_hostile(&stations[i]);
        }
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

int main(void)
{
    init_set_up();
    if (kmsg_open(init_word("viommu.log-all") != NULL, init_word("viommu.virtio") != NULL)) {
        check(false, "open /dev/kmsg");
    }
    allow_huge_pages();
    init_load_modules();
    if (init_word("viommu.record")) {
        vfio_record();
    }
    check_unit();
    check_devices();
    note("guest: refused %u", refused_count());
    if (!init_word("viommu.hostile")) {
        check_log();
    }
    init_finish();
}
