/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sources_checks.c - reading reserved addresses from a live kernel.  See sources_checks.h.
 *
 * What a reader says is compared with another file of the kernel's about the same thing: the
 * windows of a bridge with the resources that the kernel keeps for it, the windows of the host
 * bridge with those of the bridges, and with RAM.
 */
#include "sources_checks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <viommu/iova_source.h>

#include "report.h"

enum {
    FILE_MAX = 65536,
    CONFIG_MAX = 4096,
    REQUESTS_MAX = 64,
    PCI_CLASS_BRIDGE = 0x0604,
    RESOURCE_MEMORY = 0x200,    /* the kernel's IORESOURCE_MEM */
    BRIDGE_RESOURCES = 13,      /* lines of a bridge's file `resource` before its windows */
    WINDOWS = 4,
};

static const uint64_t msi_first = 0xfee00000, msi_last = 0xfeefffff;
static const uint64_t wide_memory = 32ull << 20, wide_prefetchable = 1ull << 30;

static bool dumping;

/* A file, whole, and a zero behind it; -1 when it cannot be read. */
static ssize_t read_whole(const char *path, void *to, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t size = 0;
    ssize_t n = 0;

    while (fd >= 0 && size < room && (n = read(fd, (char *)to + size, room - size)) > 0) {
        size += (size_t)n;
    }
    if (fd >= 0) {
        close(fd);
    }
    if (fd < 0 || n < 0 || size == room) {
        return -1;
    }
    ((char *)to)[size] = '\0';
    return (ssize_t)size;
}

static void dump(const char *path, const void *data, size_t size)
{
    if (!dumping) {
        return;
    }
    printf("# source: %s ", path);
    for (size_t i = 0; i < size; i++) {
        printf("%02x", ((const uint8_t *)data)[i]);
    }
    printf("\n");
}

static bool has_msi_window(const struct viommu_iova_request *requests, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (requests[i].type == VIOMMU_IOVA_MSI && requests[i].range.first == msi_first &&
            requests[i].range.last == msi_last) {
            return true;
        }
    }
    return false;
}

static void check_group(const char *number)
{
    static char text[FILE_MAX];
    struct viommu_iova_request requests[REQUESTS_MAX];
    size_t count = REQUESTS_MAX;
    char path[96];
    ssize_t size;
    int error;

    snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%.16s/reserved_regions", number);
    size = read_whole(path, text, sizeof(text));
    if (size < 0) {
        check(false, "read %s", path);
        return;
    }
    dump(path, text, (size_t)size);
    error = viommu_iova_read_reserved_regions(text, (size_t)size, requests, &count);
    report_detail("%s", error ? strerror(-error) : text);
    check(!error && has_msi_window(requests, count),
          "group %s: %zu reserved regions, the interrupt window among them", number, count);
}

static void check_groups(void)
{
    DIR *directory = opendir("/sys/kernel/iommu_groups");
    struct dirent *entry;
    unsigned groups = 0;

    while (directory && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] != '.') {
            check_group(entry->d_name);
            groups++;
        }
    }
    if (directory) {
        closedir(directory);
    }
    check(groups > 0, "%u IOMMU groups", groups);
}

/* ---- bridges ---- */

struct window {
    uint64_t first, last;
};

static uint64_t bytes(const struct window *w)
{
    return w->last - w->first + 1;
}

/* What the kernel keeps for a bridge's memory windows, in its order: 32-bit, prefetchable. */
static unsigned kernel_windows(const char *folder, struct window windows[WINDOWS])
{
    char path[300], text[4096];
    unsigned found = 0, line = 0;

    snprintf(path, sizeof(path), "%s/resource", folder);
    if (read_whole(path, text, sizeof(text)) < 0) {
        return 0;
    }
    for (char *at = text; at && *at && found < WINDOWS; line++) {
        uint64_t first, last, flags;

        if (line >= BRIDGE_RESOURCES &&
            sscanf(at, "%" SCNx64 " %" SCNx64 " %" SCNx64, &first, &last, &flags) == 3 &&
            flags & RESOURCE_MEMORY && last > first) {
            windows[found++] = (struct window){first, last};
        }
        at = strchr(at, '\n');
        at = at ? at + 1 : NULL;
    }
    return found;
}

static uint64_t number_in(const char *folder, const char *name)
{
    char path[300], text[64] = "";

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    read_whole(path, text, sizeof(text));
    return strtoull(text, NULL, 0);
}

static bool same_windows(const struct viommu_pci_bridge *bridge, const struct window *windows,
                         unsigned count)
{
    bool same = bridge->window_count == count;

    for (unsigned i = 0; same && i < count; i++) {
        same = bridge->windows[i].first == windows[i].first &&
               bridge->windows[i].last == windows[i].last;
    }
    return same;
}

struct bridges {
    unsigned count, wide, upstream, redirecting;
};

static void check_bridge(const char *folder, const char *name,
                         const struct viommu_pci_bridge *bridge, struct bridges *all)
{
    struct window windows[WINDOWS];
    unsigned count = kernel_windows(folder, windows);

    report_detail("%u windows, the kernel has %u", bridge->window_count, count);
    check(same_windows(bridge, windows, count), "bridge %s: %u windows, as the kernel has them",
          name, count);
    for (unsigned i = 0; i < count; i++) {
        note("guest: %s forwards %#" PRIx64 "-%#" PRIx64, name, windows[i].first, windows[i].last);
    }
    check(bridge->secondary == number_in(folder, "secondary_bus_number") &&
              bridge->subordinate == number_in(folder, "subordinate_bus_number"),
          "bridge %s: bus %u to %u below it", name, bridge->secondary, bridge->subordinate);
    all->count++;
    all->wide += count == 2 && bytes(&windows[0]) >= wide_memory &&
                 bytes(&windows[1]) >= wide_prefetchable;
    all->upstream += bridge->upstream;
    all->redirecting += bridge->redirects;
}

static void check_function(const char *name, struct bridges *all)
{
    static uint8_t config[CONFIG_MAX + 1];
    struct viommu_pci_bridge bridge;
    char folder[256], path[300];
    bool is_bridge;
    ssize_t size;
    int error;

    snprintf(folder, sizeof(folder), "/sys/bus/pci/devices/%.16s", name);
    snprintf(path, sizeof(path), "%s/config", folder);
    size = read_whole(path, config, sizeof(config));
    if (size < 0) {
        check(false, "read %s", path);
        return;
    }
    is_bridge = number_in(folder, "class") >> 8 == PCI_CLASS_BRIDGE;
    error = viommu_pci_bridge_read(config, (size_t)size, &bridge);
    if (!is_bridge) {
        report_detail("%s", strerror(-error));
        check(error == -ENODEV, "%s is no bridge", name);
    } else {
        dump(path, config, (size_t)size);
        errno = -error;
        if (check(!error, "%s is a bridge", name)) {
            check_bridge(folder, name, &bridge, all);
        }
    }
}

static void check_functions(struct bridges *all)
{
    DIR *directory = opendir("/sys/bus/pci/devices");
    struct dirent *entry;

    while (directory && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] != '.') {
            check_function(entry->d_name, all);
        }
    }
    if (directory) {
        closedir(directory);
    }
    report_detail("%u bridges, %u wide, %u upstream ports, %u that redirect", all->count, all->wide,
                  all->upstream, all->redirecting);
    check(all->count >= 4 && all->wide == 1 && all->upstream == 1,
          "%u bridges: one with windows as large as asked for, one the upstream port of a switch",
          all->count);
    check(all->redirecting > 0, "%u of them send all requests up to the IOMMU", all->redirecting);
}

/* ---- the host bridge ---- */

static bool inside(const struct viommu_iova_request *requests, size_t count, const struct window *w)
{
    for (size_t i = 0; i < count; i++) {
        if (w->first >= requests[i].range.first && w->last <= requests[i].range.last) {
            return true;
        }
    }
    return false;
}

static bool meets_ram(char *text, const struct viommu_iova_request *requests, size_t count)
{
    for (char *at = text; at && *at; at = strchr(at, '\n'), at = at ? at + 1 : NULL) {
        uint64_t first, last;
        int end = 0;

        if (*at == ' ' || sscanf(at, "%" SCNx64 "-%" SCNx64 " : System RAM%n", &first, &last,
                                 &end) != 2 || !end) {
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            if (first <= requests[i].range.last && last >= requests[i].range.first) {
                return true;
            }
        }
    }
    return false;
}

/* Every memory window of every bridge on bus 0 is in a window of the host bridge. */
static void check_bridges_inside(const struct viommu_iova_request *requests, size_t count)
{
    DIR *directory = opendir("/sys/bus/pci/devices");
    unsigned all = 0, found = 0;
    struct dirent *entry;

    while (directory && (entry = readdir(directory)) != NULL) {
        struct window windows[WINDOWS];
        char folder[256];
        unsigned n;

        snprintf(folder, sizeof(folder), "/sys/bus/pci/devices/%.16s", entry->d_name);
        n = kernel_windows(folder, windows);
        all += n;
        for (unsigned i = 0; i < n; i++) {
            found += inside(requests, count, &windows[i]);
        }
    }
    if (directory) {
        closedir(directory);
    }
    report_detail("%u of %u", found, all);
    check(all > 0 && found == all, "all %u windows of bridges are in the host bridge's", all);
}

static void check_iomem(void)
{
    static char text[FILE_MAX];
    struct viommu_iova_request requests[REQUESTS_MAX];
    size_t count = REQUESTS_MAX;
    ssize_t size = read_whole("/proc/iomem", text, sizeof(text));
    int error;

    if (size < 0) {
        check(false, "read /proc/iomem");
        return;
    }
    dump("/proc/iomem", text, (size_t)size);
    error = viommu_iova_read_iomem(text, (size_t)size, requests, &count);
    errno = -error;
    if (!check(!error && count > 1, "/proc/iomem: %zu windows of the host bridge", count)) {
        return;
    }
    check(!meets_ram(text, requests, count), "none of them is where RAM is");
    check_bridges_inside(requests, count);
}

void check_sources(bool dump_too)
{
    struct bridges bridges = {0};

    dumping = dump_too;
    check_groups();
    check_functions(&bridges);
    check_iomem();
}
