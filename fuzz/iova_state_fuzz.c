/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes the decoder of saved IOVA spaces. The input is a stream; its length and checksum are made
 * right first, unless the first byte says that it is as it is (bit 0); the rest of that byte says
 * which allocation fails (0: none). What is accepted is a space that holds together
 * (lib/iova/check.c), saves itself and loads again as the same bytes, and can be used.
 */
#include <viommu/iova.h>
#include <viommu/save.h>

#include "base/alloc.h"
#include "save/stream.h"
#include "sealed.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "iova state: %s\n", what);
        abort();
    }
}

/* What is in it can be walked over. */
static void walk(const struct viommu_iova *space)
{
    const struct viommu_iova_owner *owner = NULL;

    while ((owner = viommu_iova_owner_next(space, owner))) {
        const struct viommu_iova_memory *memory = NULL;

        expect(*viommu_iova_owner_name(owner), "an owner without a name");
        while ((memory = viommu_iova_memory_next(owner, memory))) {
            bool declared;
            struct viommu_range range = viommu_iova_memory_range(memory, &declared);

            expect(range.first <= range.last, "memory that ends before it begins");
        }
    }
}

/* A space says the same of itself again and again, and does its work. */
static void use(struct viommu_iova *space)
{
    const struct viommu_iova_request request = {
        .type = VIOMMU_IOVA_SW_MSI, .range = {0, 0xffffff}, .movable = true, .align = 0x1000000};
    struct viommu_iova_reservation *window;
    struct viommu_iova_conflict conflict;
    struct viommu_iova_owner *owner;
    struct viommu_iova *again;
    size_t size_again;
    uint64_t at;
    size_t size;
    void *data_again;
    void *data;

    walk(space);
    expect(!viommu_iova_save(space, &data, &size), "it is not saved");
    expect(!viommu_iova_load(data, size, &again), "what it saved is not loaded");
    expect(!viommu_iova_save(again, &data_again, &size_again), "it is not saved again");
    expect(size == size_again && !memcmp(data, data_again, size), "it is another");
    viommu_save_free(data_again);
    viommu_save_free(data);
    viommu_iova_destroy(again);
    expect(!viommu_iova_owner_create(space, "new", &owner), "no owner");
    (void)viommu_iova_reserve(owner, &request, 1, &window, &conflict);
    (void)viommu_iova_alloc(owner, 1 << 20, 0, NULL, &at);
    while ((owner = viommu_iova_owner_next(space, NULL))) {
        window = viommu_iova_reservation_next(owner, NULL);
        if (window && viommu_iova_reservation_type(window) == VIOMMU_IOVA_SW_MSI) {
            (void)viommu_iova_doorbell_map(window, 0x12345000, &at, NULL);
        }
        viommu_iova_owner_destroy(owner);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct viommu_iova *space;
    unsigned char *bytes;
    bool failed;
    int ret;

    if (!size || size > 1 << 20) {
        return 0;
    }
    bytes = malloc(size);
    expect(bytes, "no memory");
    memcpy(bytes, data + 1, size - 1);
    if (size - 1 >= SEALED_HEADER_SIZE && !(data[0] & 1)) {
        sealed_mend(bytes, size - 1);
    }
    base_alloc_fail_at(data[0] >> 1);
    ret = viommu_iova_load(bytes, size - 1, &space);
    failed = base_alloc_failed();
    base_alloc_fail_at(0);
    free(bytes);
    expect(!ret || ret == -EBADMSG || ret == -ENOTSUP || (failed && ret == -ENOMEM),
           "an error of another kind");
    if (!ret) {
        use(space);
        viommu_iova_destroy(space);
    }
    return 0;
}
