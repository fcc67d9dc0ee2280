/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What tests of saved states share: a state, and where things are in that of a unit with 8 fault
 * records and one device; and a unit that goes on in another instance.
 */
#ifndef VIOMMU_VTD_TEST_SAVE_H
#define VIOMMU_VTD_TEST_SAVE_H

#include "vtd/test_unit.h"

#include "base/alloc.h"
#include "save/stream.h"
#include "vtd/unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_SIZE 32u
#define CHECKSUM_AT 28u
#define SECTION_SIZE 24u
/* Behind the header and the first section, which has 8 bytes. */
#define MODEL_AT (HEADER_SIZE + SECTION_SIZE + 8)
#define BODY_AT (MODEL_AT + SECTION_SIZE)

/* Where things are in the model's section of a unit with 8 fault records. */
#define AT_HOST_WIDTH 16u
#define AT_REG(i) (19u + 8 * ((i) - REG_GCMD))
#define AT_FAULT(i) (AT_REG(VTD_REGISTER_COUNT) + 16 * (i))
#define AT_ROOT AT_FAULT(8)
#define AT_INDEX (AT_ROOT + 8)
#define AT_WANTED (AT_INDEX + 4)
#define AT_SET_ROOT (AT_WANTED + 4)
#define AT_TRANSLATING (AT_SET_ROOT + 4)
#define AT_MESSAGE(i) (AT_TRANSLATING + 4 + 16 * (i))
#define AT_COMMAND AT_MESSAGE(2)
#define AT_SRTP_AGAIN (AT_COMMAND + 4)
#define AT_AGAIN (AT_SRTP_AGAIN + 1)
#define BODY_END (AT_AGAIN + 4)

struct stream {
    unsigned char *data;
    size_t size;
};

static struct unit unit;

static const struct viommu_vtd_config plain;

static inline struct stream save(struct viommu *iommu)
{
    struct stream stream;
    void *data;

    assert_int_equal(viommu_save(iommu, &data, &stream.size), 0);
    stream.data = data;
    return stream;
}

static inline void store(struct stream *stream, size_t at, uint64_t value, unsigned bytes)
{
    assert_true(at + bytes <= stream->size);
    for (unsigned i = 0; i < bytes; i++) {
        stream->data[at + i] = (unsigned char)(value >> 8 * i);
    }
}

static inline void seal(struct stream *stream)
{
    uint32_t crc = save_crc32c(0, stream->data, CHECKSUM_AT);

    crc = save_crc32c(crc, stream->data + HEADER_SIZE, stream->size - HEADER_SIZE);
    store(stream, CHECKSUM_AT, crc, 4);
}

/* An instance like the unit's, with its device, not started. */
static inline struct viommu *second_of(const struct unit *from, struct viommu_device **device)
{
    struct viommu_device_config config = {.requester = from->id,
                                          .ats = from->guest.vtd.device_tlb};
    struct viommu *second;

    assert_int_equal(guest_second(&from->guest, &second), 0);
    assert_int_equal(viommu_device_add(second, &config, device), 0);
    return second;
}

/* The unit goes on in another instance. */
static inline void take_over(struct unit *from)
{
    struct stream stream = save(from->guest.iommu);
    struct stream again;
    struct viommu_device *device;
    struct viommu *second = second_of(from, &device);

    assert_int_equal(viommu_load(second, stream.data, stream.size), 0);
    /* What was loaded is what was saved, to the byte. */
    again = save(second);
    assert_int_equal(again.size, stream.size);
    assert_memory_equal(again.data, stream.data, stream.size);
    viommu_save_free(again.data);
    viommu_save_free(stream.data);
    guest_take_over(&from->guest, second);
    from->device = device;
}

#endif
