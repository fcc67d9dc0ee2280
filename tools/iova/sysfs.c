/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices, their groups and the bridges above them, as sysfs has them; see sysfs.h. */
#include "sysfs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <viommu/iova_source.h>

enum {
    REGIONS_MAX = 256,
    FILE_MAX = 1 << 20, /* large machines have thousands of lines in /proc/iomem */
    CONFIG_MAX = 4096,
    ADDRESS_LENGTH = 12, /* 0000:00:00.0 */
};

static bool fail(const char *what, int error)
{
    fprintf(stderr, "viommu iova: %s: %s\n", what, strerror(error < 0 ? -error : error));
    return false;
}

/* DDDD:BB:DD.F, all of a name. */
static bool is_address(const char *name)
{
    static const char form[] = "xxxx:xx:xx.x";

    for (size_t i = 0; i < ADDRESS_LENGTH; i++) {
        if (form[i] == 'x' ? !isxdigit((unsigned char)name[i]) : name[i] != form[i]) {
            return false;
        }
    }
    return !name[ADDRESS_LENGTH];
}

/* Reads a file whole; false with *missing when it is not there. */
static bool read_file(const char *path, void *data, size_t room, size_t *size, bool *missing)
{
    FILE *file = fopen(path, "rb");

    *missing = !file && errno == ENOENT;
    if (!file) {
        return *missing ? false : fail(path, errno);
    }
    *size = fread(data, 1, room, file);
    if (ferror(file) || *size == room) {
        fclose(file);
        /* Configuration space is as long as its room at most, a text is shorter. */
        return *size == CONFIG_MAX && room == CONFIG_MAX ? true : fail(path, EIO);
    }
    fclose(file);
    return true;
}

static bool has_owner(const struct viommu_iova *space, const char *name)
{
    struct viommu_iova_reserved *entries;
    size_t count = 0;
    bool found = false;

    (void)viommu_iova_reserved(space, NULL, &count, NULL);
    entries = calloc(count + 1, sizeof(*entries));
    if (entries && !viommu_iova_reserved(space, entries, &count, NULL)) {
        for (size_t i = 0; i < count; i++) {
            found = found || !strcmp(entries[i].owner, name);
        }
    }
    free(entries);
    return found;
}

/* Adds an owner with its reservations. */
static bool add(struct viommu_iova *space, const char *name,
                const struct viommu_iova_request *requests, size_t count)
{
    struct viommu_iova_reservation *reservations[REGIONS_MAX];
    struct viommu_iova_owner *owner;
    int error;

    error = viommu_iova_owner_create(space, name, &owner);
    error = error ? error : viommu_iova_reserve(owner, requests, count, reservations, NULL);
    return error ? fail(name, error) : true;
}

static bool add_group(struct viommu_iova *space, const char *directory, const char *device)
{
    static char text[FILE_MAX];
    struct viommu_iova_request requests[REGIONS_MAX];
    char path[PATH_MAX + 64];
    size_t count = REGIONS_MAX;
    size_t size;
    bool missing;
    int error;

    snprintf(path, sizeof(path), "%s/iommu_group/reserved_regions", directory);
    if (!read_file(path, text, sizeof(text), &size, &missing)) {
        if (missing) {
            fprintf(stderr, "viommu iova: %s: in no IOMMU group\n", device);
        }
        return missing;
    }
    error = viommu_iova_read_reserved_regions(text, size, requests, &count);
    return error ? fail(path, error) : add(space, device, requests, count);
}

/* Reads a bridge; *is_one is false for another device. */
static bool read_bridge(const char *directory, struct viommu_pci_bridge *bridge, bool *is_one)
{
    uint8_t config[CONFIG_MAX];
    char path[PATH_MAX + 64];
    size_t size;
    bool missing;
    int error;

    *is_one = false;
    snprintf(path, sizeof(path), "%s/config", directory);
    if (!read_file(path, config, sizeof(config), &size, &missing)) {
        return missing ? fail(path, ENOENT) : false;
    }
    error = viommu_pci_bridge_read(config, size, bridge);
    *is_one = !error;
    return error && error != -ENODEV ? fail(path, error) : true;
}

static bool add_windows(struct viommu_iova *space, const char *name,
                        const struct viommu_pci_bridge *bridge)
{
    struct viommu_iova_request requests[2] = {{0}};

    if (!bridge->window_count || has_owner(space, name)) {
        return true;
    }
    for (unsigned i = 0; i < bridge->window_count; i++) {
        requests[i].type = VIOMMU_IOVA_P2P;
        requests[i].range = bridge->windows[i];
    }
    return add(space, name, requests, bridge->window_count);
}

/* Adds the windows of all bridges in a folder: those that lie beside one another. */
static bool add_beside(struct viommu_iova *space, const char *folder)
{
    DIR *directory = opendir(folder);
    struct dirent *entry;
    bool done = directory ? true : fail(folder, errno);

    while (done && (entry = readdir(directory))) {
        struct viommu_pci_bridge bridge;
        char path[PATH_MAX + 300];
        bool is_one;

        if (!is_address(entry->d_name)) {
            continue;
        }
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        done = read_bridge(path, &bridge, &is_one) &&
               (!is_one || add_windows(space, entry->d_name, &bridge));
    }
    if (directory) {
        closedir(directory);
    }
    return done;
}

/* Goes up from a device's folder: each folder above that has a PCI address is a bridge. */
static bool add_bridges(struct viommu_iova *space, char *directory)
{
    char *slash = strrchr(directory, '/');

    for (;;) {
        struct viommu_pci_bridge bridge;
        bool is_one;

        *slash = 0;
        slash = strrchr(directory, '/');
        if (!slash || !is_address(slash + 1)) {
            return true;
        }
        if (!read_bridge(directory, &bridge, &is_one)) {
            return false;
        }
        if (is_one && !bridge.upstream && !bridge.redirects) {
            *slash = 0;
            if (!add_beside(space, directory)) {
                return false;
            }
            *slash = '/';
        }
    }
}

bool sysfs_add_device(struct viommu_iova *space, const char *root, const char *device)
{
    char path[PATH_MAX];
    char *directory;
    bool done;

    if (!is_address(device)) {
        fprintf(stderr, "viommu iova: --device: '%s' is not SEGMENT:BUS:DEV.FN, as 0000:01:00.0\n",
                device);
        return false;
    }
    snprintf(path, sizeof(path), "%s/bus/pci/devices/%s", root, device);
    directory = realpath(path, NULL);
    if (!directory) {
        return fail(path, errno);
    }
    done = add_group(space, directory, device) && add_bridges(space, directory);
    free(directory);
    return done;
}

bool sysfs_add_host_bridges(struct viommu_iova *space, const char *path)
{
    static char text[FILE_MAX];
    struct viommu_iova_request requests[REGIONS_MAX];
    size_t count = REGIONS_MAX;
    size_t size;
    bool missing;
    int error;

    if (!read_file(path, text, sizeof(text), &size, &missing)) {
        return missing ? fail(path, ENOENT) : false;
    }
    error = viommu_iova_read_iomem(text, size, requests, &count);
    return error ? fail(path, error) : add(space, "host bridges", requests, count);
}
