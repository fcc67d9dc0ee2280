/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mappings of client memory and the SIGBUS handler that guards them; client_memory.h has the idea.
 *
 * The handler calls mmap, which POSIX does not list as async-signal-safe; on Linux it is a plain
 * system call, and the handler runs only for a synchronous fault inside one of our mappings.
 */
#include "client_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "client_file.h"
#include "common/foreign.h"

struct client_mapping {
    struct client_mapping *_Atomic next;
    struct client_mapping *previous;
    uint8_t *address; /* whole pages of the file around what was asked for */
    size_t size;
    size_t page_size; /* of the file: huge pages are replaced whole */
    size_t skip;      /* from address to the first byte that was asked for */
    int prot;
    struct client_file *file; /* NULL: it could not be kept open */
};

static struct client_mapping *_Atomic mappings;
static unsigned count; /* of the mappings */
static atomic_uint_fast64_t losses;
static struct sigaction previous_action;

/* Put zero pages over what is lost. Returns false when the address is not ours. */
static bool recover(uintptr_t address)
{
    struct client_mapping *mapping = atomic_load(&mappings);
    size_t page, length;

    while (mapping && address - (uintptr_t)mapping->address >= mapping->size) {
        mapping = atomic_load(&mapping->next);
    }
    if (!mapping) {
        return false;
    }
    page = (address - (uintptr_t)mapping->address) & ~(mapping->page_size - 1);
    length = mapping->size - page;
    if (mmap(mapping->address + page, length, mapping->prot,
             MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
        return false;
    }
    atomic_fetch_add(&losses, 1);
    return true;
}

static void handle_sigbus(int signal_number, siginfo_t *info, void *context)
{
    int saved_errno = errno;

    (void)context;
    if (!recover((uintptr_t)info->si_addr)) {
        /* Not ours: let the fault happen again, with whoever was in charge before. */
        sigaction(signal_number, &previous_action, NULL);
    }
    errno = saved_errno;
}

int client_memory_guard(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER}, current;

    if (sigaction(SIGBUS, NULL, &current) < 0) {
        return -errno;
    }
    if ((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == handle_sigbus) {
        return 0;
    }
    previous_action = current;
    action.sa_sigaction = handle_sigbus;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}

static size_t file_page_size(int fd)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    struct statfs fs;

    if (fstatfs(fd, &fs) == 0 && (unsigned long)fs.f_type == HUGETLBFS_MAGIC &&
        (size_t)fs.f_bsize > page_size) {
        return (size_t)fs.f_bsize;
    }
    return page_size;
}

static int check_file(int fd, uint64_t offset, uint64_t size)
{
    uint64_t mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;
    struct stat st;

    if (fcntl(fd, F_GETFD) < 0) {
        return -errno;
    }
    /* Pages of a FUSE file come from a process that may be the client's, and may never come. */
    if (!foreign_is_file(fd, NULL)) {
        return -EINVAL;
    }
    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    if (size == 0 || size > SIZE_MAX / 2 || ((offset | size) & mask) != 0 ||
        offset > (uint64_t)st.st_size || size > (uint64_t)st.st_size - offset) {
        return -EINVAL;
    }
    return 0;
}

static void enlist(struct client_mapping *mapping)
{
    struct client_mapping *next = atomic_load(&mappings);

    atomic_store(&mapping->next, next);
    if (next) {
        next->previous = mapping;
    }
    atomic_store(&mappings, mapping);
    count++;
}

static void delist(struct client_mapping *mapping)
{
    struct client_mapping *next = atomic_load(&mapping->next);

    if (mapping->previous) {
        atomic_store(&mapping->previous->next, next);
    } else {
        atomic_store(&mappings, next);
    }
    if (next) {
        next->previous = mapping->previous;
    }
    count--;
}

/* Map the whole pages of the file that hold [offset, offset + size): a huge page cannot be mapped,
 * replaced or unmapped in parts. */
static int map_pages(struct client_mapping *mapping, int fd, uint64_t offset, uint64_t size)
{
    uint64_t mask = mapping->page_size - 1;
    uint64_t first = offset & ~mask;
    void *address;

    mapping->skip = (size_t)(offset - first);
    mapping->size = (size_t)((mapping->skip + size + mask) & ~mask);
    address =
        mmap(NULL, mapping->size, mapping->prot, MAP_SHARED | MAP_NORESERVE, fd, (off_t)first);
    if (address == MAP_FAILED) {
        return -errno;
    }
    mapping->address = address;
    return 0;
}

int client_mapping_create(int fd, uint64_t offset, uint64_t size, bool writable,
                          struct client_mapping **out)
{
    struct client_mapping *mapping;
    int ret = check_file(fd, offset, size);

    if (ret < 0) {
        return ret;
    }
    if (count >= CLIENT_MAPPINGS_MAX) {
        return -ENOSPC;
    }
    mapping = calloc(1, sizeof(*mapping));
    if (!mapping) {
        return -ENOMEM;
    }
    mapping->page_size = file_page_size(fd);
    mapping->prot = PROT_READ | (writable ? PROT_WRITE : 0);
    ret = map_pages(mapping, fd, offset, size);
    if (ret < 0) {
        free(mapping);
        return ret;
    }
    mapping->file = client_file_get(fd);
    enlist(mapping);
    *out = mapping;
    return 0;
}

void client_mapping_destroy(struct client_mapping *mapping)
{
    if (mapping) {
        munmap(mapping->address, mapping->size);
        client_file_put(mapping->file);
        delist(mapping);
        free(mapping);
    }
}

void *client_mapping_address(const struct client_mapping *mapping)
{
    return mapping->address + mapping->skip;
}

int client_mapping_fd(const struct client_mapping *mapping)
{
    return mapping->file ? client_file_fd(mapping->file) : -1;
}

uint64_t client_memory_losses(void)
{
    return atomic_load(&losses);
}
