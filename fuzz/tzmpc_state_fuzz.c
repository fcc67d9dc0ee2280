/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes the decoder of saved MPCs. The input is a stream; its length and checksum are made right
 * first, unless the first byte says that it is as it is. The MPC has 70 blocks, or 40 of 32 bytes
 * where the first byte says so. What is accepted saves itself as the same bytes, and its registers
 * and memory can be used; what is not leaves it as it was.
 */
#include <viommu/save.h>
#include <viommu/tzmpc.h>

#include "save/stream.h"
#include "sealed.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REGISTERS 0x10000000u
#define REGISTERS_SIZE 0x1000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bed {
    struct viommu_bus *bus;
    struct viommu_space *space;
    struct viommu_tzmpc *mpc;
    uint64_t size;
    unsigned block_bits;
};

static void expect(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "tzmpc state: %s\n", what);
        abort();
    }
}

static void build(struct bed *bed)
{
    const struct viommu_region_config all = {.kind = VIOMMU_REGION_CONTAINER, .last = UINT32_MAX};
    struct viommu_tzmpc_config config = {.size = bed->size, .block_bits = bed->block_bits};
    struct viommu_region *behind;
    struct viommu_region *root;

    expect(!viommu_bus_create(&bed->bus) && !viommu_region_create(bed->bus, &all, &behind) &&
               !viommu_region_create(bed->bus, &all, &root) &&
               !viommu_space_create(behind, &config.space) &&
               !viommu_space_create(root, &bed->space) &&
               !viommu_tzmpc_create(bed->bus, &config, &bed->mpc) &&
               !viommu_region_add(root, viommu_tzmpc_memory(bed->mpc), 0, 0) &&
               !viommu_region_add(root, viommu_tzmpc_registers(bed->mpc), REGISTERS, 0) &&
               !viommu_bus_commit(bed->bus),
           "no MPC");
}

static void *saved(struct bed *bed, size_t *size)
{
    void *data;

    expect(!viommu_tzmpc_save(bed->mpc, &data, size), "it is not saved");
    return data;
}

/* Every register is read and every block accessed, in both worlds. */
static void use(struct bed *bed)
{
    for (unsigned secure = 0; secure < 2; secure++) {
        const struct viommu_bus_attrs attrs = {.secure = secure};
        uint32_t word = 0;

        for (uint64_t at = 0; at < bed->size; at += UINT64_C(1) << bed->block_bits) {
            (void)viommu_space_read(bed->space, at, &word, sizeof(word), &attrs);
        }
        for (unsigned at = 0; at < REGISTERS_SIZE; at += 4) {
            expect(!viommu_space_read(bed->space, REGISTERS + at, &word, sizeof(word), &attrs),
                   "a register is not read");
            expect(!viommu_space_write(bed->space, REGISTERS + at, &word, sizeof(word), &attrs),
                   "a register is not written");
        }
    }
}

/* A second MPC comes to the same state. */
static void again(const struct bed *bed, const void *data, size_t size)
{
    struct bed other = {.size = bed->size, .block_bits = bed->block_bits};
    size_t size_again;
    void *data_again;

    build(&other);
    expect(!viommu_tzmpc_load(other.mpc, data, size), "what it saved is not loaded");
    expect(viommu_tzmpc_interrupt(other.mpc) == viommu_tzmpc_interrupt(bed->mpc),
           "another interrupt");
    data_again = saved(&other, &size_again);
    expect(size == size_again && !memcmp(data, data_again, size), "it is another");
    viommu_save_free(data_again);
    viommu_bus_destroy(other.bus);
}

static void try(struct bed *bed, const unsigned char *bytes, size_t size)
{
    size_t before_size;
    size_t after_size;
    void *before = saved(bed, &before_size);
    int error = viommu_tzmpc_load(bed->mpc, bytes, size);
    void *after = saved(bed, &after_size);

    expect(!error || error == -EBADMSG || error == -ENOTSUP || error == -EINVAL,
           "an error of another kind");
    expect(!error || (before_size == after_size && !memcmp(before, after, after_size)),
           "refused, but changed");
    if (!error) {
        again(bed, after, after_size);
        use(bed);
    }
    viommu_save_free(before);
    viommu_save_free(after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bed bed = {.size = 70 * 4096, .block_bits = 12};
    unsigned char *bytes;

    if (!size || size > 1 << 16) {
        return 0;
    }
    if (data[0] & 2) {
        bed.size = 40 * 32;
        bed.block_bits = 5;
    }
    bytes = malloc(size);
    expect(bytes, "no memory");
    memcpy(bytes, data + 1, size - 1);
    if (size - 1 >= SEALED_HEADER_SIZE && !(data[0] & 1)) {
        sealed_mend(bytes, size - 1);
    }
    build(&bed);
    try(&bed, bytes, size - 1);
    viommu_bus_destroy(bed.bus);
    free(bytes);
    return 0;
}
