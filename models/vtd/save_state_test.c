/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of which states a unit takes, and that it keeps nothing of one that it refuses. */
#include "vtd/test_save.h"

/* ---- what is refused ------------------------------------------------------------------------- */

static const struct viommu_vtd_config no_queue = {.no_queued_invalidation = true};

struct change {
    size_t at; /* in the body of the model's section, */
    uint64_t value;
    unsigned bytes;
};

/* What loading the state with some changes comes to; where it fails the state itself is loaded. */
static int load_changed(const struct change *changes, unsigned count)
{
    struct stream stream = save(unit.guest.iommu);
    struct viommu_device *device;
    struct viommu *second = second_of(&unit, &device);
    struct stream copy = {malloc(stream.size), stream.size};
    int ret;

    assert_non_null(copy.data);
    memcpy(copy.data, stream.data, stream.size);
    for (unsigned i = 0; i < count; i++) {
        store(&copy, BODY_AT + changes[i].at, changes[i].value, changes[i].bytes);
    }
    seal(&copy);
    ret = viommu_load(second, copy.data, copy.size);
    if (ret) {
        struct stream again;

        assert_int_equal(viommu_load(second, stream.data, stream.size), 0);
        again = save(second);
        assert_memory_equal(again.data, stream.data, stream.size);
        viommu_save_free(again.data);
    } else {
        struct stream again = save(second);

        assert_memory_equal(again.data, copy.data, copy.size);
        viommu_save_free(again.data);
    }
    viommu_destroy(second);
    free(copy.data);
    viommu_save_free(stream.data);
    return ret;
}

static void expect(int ret, struct change first, struct change second)
{
    struct change changes[2] = {first, second};

    assert_int_equal(load_changed(changes, second.bytes ? 2 : 1), ret);
}

#define NOTHING ((struct change){0})
#define REG(i, value) ((struct change){AT_REG(i), value, 8})
#define FIELD(at, value) ((struct change){at, value, 4})

/* Bits that a register can have; from the register tables of the specification. */
static uint64_t possible(unsigned reg)
{
    switch (reg) {
    case REG_GSTS:
        return 1u << 31 | 1u << 30 | 1u << 26;
    case REG_RTADDR:
        return ~0x3ffull;
    case REG_CCMD:
        return 7ull << 61 | 3ull << 59 | 0x3ffffffffull;
    case REG_FSTS:
        return 0xff73;
    case REG_FECTL:
    case REG_IECTL:
        return 3u << 30;
    case REG_FEDATA:
    case REG_IEDATA:
        return 0xffff;
    case REG_FEADDR:
    case REG_IEADDR:
        return 0xfffffffc;
    case REG_FEUADDR:
    case REG_IEUADDR:
        return 0xffffffff;
    case REG_IQH:
    case REG_IQT:
        return 0x7fff0;
    case REG_IQA:
        return ~0xfffull | 0x807;
    case REG_ICS:
        return 1;
    case REG_IQERCD:
        return 0xffffffff0000000full;
    case REG_IVA:
        return ~0xf80ull;
    case REG_IOTLB:
        return 1ull << 63 | 3ull << 60 | 3ull << 57 | 0x3ffffull << 32;
    default:
        return 0;
    }
}

static void test_bits_of_registers(void **state)
{
    (void)state;
    unit_init(&unit, &plain);
    for (unsigned reg = REG_GCMD; reg < VTD_REGISTER_COUNT; reg++) {
        for (unsigned bit = 0; bit < 64; bit++) {
            if (!(possible(reg) >> bit & 1)) {
                expect(-EBADMSG, REG(reg, 1ull << bit), NOTHING);
            }
        }
    }
    expect(0, REG(REG_IQA, 0xfffffffffffff807), REG(REG_IQT, 0x7fff0));
    expect(0, REG(REG_IVA, 0xfffffffffffff07f), REG(REG_CCMD, 0xf8000003ffffffff));
    expect(0, REG(REG_IOTLB, 0xb603ffff00000000), REG(REG_IQERCD, 0xffffffff0000000f));
    expect(0, REG(REG_RTADDR, 0xfffffffffffffc00), REG(REG_IQH, 0x7fff0));
    expect(0, REG(REG_FEUADDR, 0xffffffff), REG(REG_FEDATA, 0xffff));
    unit_fini(&unit);
    /* Those of a queue that is not there. */
    unit_init(&unit, &no_queue);
    for (unsigned reg = REG_IQH; reg <= REG_IQERCD; reg++) {
        expect(-EBADMSG, REG(reg, possible(reg)), NOTHING);
    }
    expect(-EBADMSG, REG(REG_GSTS, SPEC_QIE), NOTHING);
    expect(-EBADMSG, FIELD(AT_WANTED, SPEC_QIE), NOTHING);
    expect(-EBADMSG, FIELD(AT_COMMAND, SPEC_QIE), NOTHING);
    unit_fini(&unit);
}

static void test_faults_that_cannot_be(void **state)
{
    uint64_t fault = FRCD_F | 5ull << 32 | 0x28;

    (void)state;
    unit_init(&unit, &plain);
    expect(0, (struct change){AT_FAULT(3) + 8, fault, 8}, REG(REG_FSTS, SPEC_PPF | 3 << 8));
    expect(-EBADMSG, (struct change){AT_FAULT(3) + 8, fault, 8}, NOTHING);
    expect(-EBADMSG, REG(REG_FSTS, SPEC_PPF), NOTHING);
    expect(-EBADMSG, REG(REG_FSTS, 8 << 8), NOTHING);
    expect(0, REG(REG_FSTS, 7 << 8), FIELD(AT_INDEX, 7));
    expect(-EBADMSG, FIELD(AT_INDEX, 8), NOTHING);
    expect(-EBADMSG, FIELD(AT_INDEX, UINT32_MAX), NOTHING);
    expect(-EBADMSG, (struct change){AT_FAULT(0), 1, 8}, NOTHING);
    expect(-EBADMSG, (struct change){AT_FAULT(7), 1ull << 48, 8}, NOTHING);
    expect(0, (struct change){AT_FAULT(7), 0xfffffffff000, 8}, NOTHING);
    for (unsigned bit = 0; bit < 63; bit++) {
        bool may = bit < 16 || bit == 28 || (bit >= 32 && bit < 40) || bit >= 60;

        expect(may ? 0 : -EBADMSG, (struct change){AT_FAULT(1) + 8, 1ull << bit, 8}, NOTHING);
    }
    unit_fini(&unit);
}

static void test_messages_that_cannot_be(void **state)
{
    (void)state;
    unit_init(&unit, &plain);
    for (unsigned i = 0; i < 2; i++) {
        expect(-EBADMSG, FIELD(AT_MESSAGE(i), 1), NOTHING);
        expect(-EBADMSG, FIELD(AT_MESSAGE(i) + 8, 0x10000), NOTHING);
        expect(-EBADMSG, FIELD(AT_MESSAGE(i) + 12, 2), NOTHING);
        expect(0, FIELD(AT_MESSAGE(i) + 12, 1), FIELD(AT_MESSAGE(i), 0xfee00000));
    }
    /* Pending: only while it is masked, and for a reason. */
    expect(0, REG(REG_FECTL, 3u << 30), REG(REG_FSTS, SPEC_PFO));
    expect(-EBADMSG, REG(REG_FECTL, 1u << 30), REG(REG_FSTS, SPEC_PFO));
    expect(-EBADMSG, REG(REG_FECTL, 3u << 30), NOTHING);
    expect(0, REG(REG_IECTL, 3u << 30), REG(REG_ICS, 1));
    expect(-EBADMSG, REG(REG_IECTL, 1u << 30), REG(REG_ICS, 1));
    expect(-EBADMSG, REG(REG_IECTL, 3u << 30), NOTHING);
    unit_fini(&unit);
}

static void test_commands_that_cannot_be(void **state)
{
    static const struct {
        uint32_t status, wanted, set_root, translating, command;
        uint8_t again;
        uint32_t descriptors;
        int ret;
    } cases[] = {
        {SPEC_TE | SPEC_SRTP | SPEC_QIE, SPEC_TE | SPEC_QIE, 0, SPEC_TE, 0, 0, 0, 0},
        {0, SPEC_TE | SPEC_QIE, SPEC_SRTP, 0, 0, 0, 0, 0},
        {0, SPEC_TE, 0, SPEC_TE, SPEC_TE, 0, 0, 0},
        {0, 0, 0, SPEC_TE, SPEC_TE, 0, 0, 0}, /* switched off again, before it was on */
        {SPEC_TE, SPEC_TE, 0, 0, SPEC_TE, 0, 0, 0},
        {0, 0, SPEC_SRTP, 0, SPEC_SRTP, 1, 0, 0},
        {SPEC_QIE, 0, 0, 0, SPEC_QIE, 0, 256, 0},
        {SPEC_QIE, SPEC_QIE, 0, 0, 0, 0, 1, 0},
        {0, SPEC_SRTP, 0, 0, 0, 0, 0, -EBADMSG},
        {0, 1, 0, 0, 0, 0, 0, -EBADMSG},
        {0, 0, 1, 0, 0, 0, 0, -EBADMSG},
        {0, 0, 0, 1, 0, 0, 0, -EBADMSG},
        {0, 0, 0, 0, 1, 0, 0, -EBADMSG},
        {0, 0, 0, SPEC_TE, 0, 0, 0, -EBADMSG},
        {SPEC_TE, 0, 0, 0, 0, 0, 0, -EBADMSG},
        {0, 0, 0, 0, SPEC_TE, 0, 0, -EBADMSG},
        {SPEC_TE, 0, 0, SPEC_TE, SPEC_TE, 0, 0, -EBADMSG},
        {SPEC_TE, 0, SPEC_SRTP, 0, SPEC_SRTP, 0, 0, -EBADMSG},
        {SPEC_TE, 0, 0, 0, SPEC_QIE, 0, 0, -EBADMSG},
        {SPEC_SRTP, 0, SPEC_SRTP, 0, 0, 0, 0, -EBADMSG},
        {0, 0, 0, 0, SPEC_SRTP, 0, 0, -EBADMSG},
        {0, 0, SPEC_SRTP, 0, 0, 1, 0, -EBADMSG},
        {0, 0, SPEC_SRTP, 0, SPEC_SRTP, 2, 0, -EBADMSG},
        {0, 0, 0, 0, 0, 0, 1, -EBADMSG},
        {SPEC_QIE, SPEC_QIE, 0, 0, 0, 0, 257, -EBADMSG},
    };

    (void)state;
    unit_init(&unit, &plain);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const struct change changes[] = {
            REG(REG_GSTS, cases[i].status),
            FIELD(AT_WANTED, cases[i].wanted),
            FIELD(AT_SET_ROOT, cases[i].set_root),
            FIELD(AT_TRANSLATING, cases[i].translating),
            FIELD(AT_COMMAND, cases[i].command),
            {AT_SRTP_AGAIN, cases[i].again, 1},
            FIELD(AT_AGAIN, cases[i].descriptors),
        };

        assert_int_equal(load_changed(changes, 7), cases[i].ret);
    }
    expect(-EBADMSG, (struct change){AT_ROOT, 0x200, 8}, NOTHING);
    for (unsigned bit = 4; bit <= 6; bit += 2) {
        const struct change changes[] = {
            REG(REG_GSTS, SPEC_QIE),
            FIELD(AT_WANTED, SPEC_QIE),
            FIELD(AT_AGAIN, 1),
            REG(REG_FSTS, 1u << bit),
        };

        assert_int_equal(load_changed(changes, 4), -EBADMSG);
    }
    unit_fini(&unit);
}

static void test_another_configuration(void **state)
{
    (void)state;
    unit_init(&unit, &plain);
    for (size_t at = 0; at < 19; at++) {
        expect(-EINVAL, (struct change){at, 0xa5, 1}, NOTHING);
    }
    unit_fini(&unit);
}

/* The frame is right, and sections are missing, too many, or out of order. */
static void expect_sections(int ret, const unsigned *kinds, unsigned count, uint16_t flags)
{
    struct stream stream = save(unit.guest.iommu);
    struct viommu_device *device;
    struct viommu *second = second_of(&unit, &device);
    struct save_reader reader;
    struct save_section sections[4]; /* by kind: instance, model, device */
    struct save_writer writer;
    void *data;
    size_t size;

    assert_int_equal(save_open(&reader, SAVE_INSTANCE, stream.data, stream.size), 0);
    for (unsigned i = 1; i < 4; i++) {
        assert_true(save_next(&reader, &sections[i]));
        assert_int_equal(sections[i].kind, i);
    }
    save_writer_init(&writer, SAVE_INSTANCE);
    for (unsigned i = 0; i < count; i++) {
        const struct save_section *section = kinds[i] < 4 && kinds[i] ? &sections[kinds[i]] : NULL;

        save_begin(&writer, kinds[i], 0, 1, section ? 0 : flags);
        if (section) {
            save_put_bytes(&writer, section->at, section->left);
        }
        save_end(&writer);
    }
    assert_int_equal(save_finish(&writer, &data, &size), 0);
    assert_int_equal(viommu_load(second, data, size), ret);
    viommu_save_free(data);
    viommu_save_free(stream.data);
    viommu_destroy(second);
}

#define SECTIONS(...)                                                                              \
    (const unsigned[]){__VA_ARGS__}, sizeof((const unsigned[]){__VA_ARGS__}) / sizeof(unsigned)

static void test_sections(void **state)
{
    (void)state;
    unit_init(&unit, &plain);
    expect_sections(0, SECTIONS(1, 2, 3), 0);
    expect_sections(0, SECTIONS(100, 1, 101, 2, 0, 3, 102), SAVE_OPTIONAL);
    expect_sections(-ENOTSUP, SECTIONS(100, 1, 2, 3), 0);
    expect_sections(-ENOTSUP, SECTIONS(1, 2, 3, 100), 0);
    expect_sections(-EBADMSG, SECTIONS(1, 2), 0);
    expect_sections(-EBADMSG, SECTIONS(1, 3), 0);
    expect_sections(-EBADMSG, SECTIONS(2, 1, 3), 0);
    expect_sections(-EBADMSG, SECTIONS(1, 2, 3, 3), 0);
    expect_sections(-EBADMSG, SECTIONS(1, 2, 3, 1), 0);
    expect_sections(-EBADMSG, SECTIONS(1, 2, 3, 4), 0);
    unit_fini(&unit);
}

/* What is in the other sections. */
static void test_instances_and_devices(void **state)
{
    static const struct {
        size_t at;
        uint64_t value;
        unsigned bytes;
        int ret;
    } cases[] = {
        {HEADER_SIZE + SECTION_SIZE, 2, 4, -EINVAL},     /* another model */
        {HEADER_SIZE + SECTION_SIZE + 4, 2, 4, -ENODEV}, /* more devices */
        {HEADER_SIZE + SECTION_SIZE + 4, 0, 4, -ENODEV},
        {BODY_AT + BODY_END + SECTION_SIZE, 8, 1, -EBADMSG},
        {BODY_AT + BODY_END + SECTION_SIZE, 1, 1, -ENODEV}, /* shared */
        {BODY_AT + BODY_END + SECTION_SIZE, 2, 1, -ENODEV}, /* with a device-TLB */
        {BODY_AT + BODY_END + SECTION_SIZE, 4, 1, 0},       /* denied */
        {BODY_AT + BODY_END + SECTION_SIZE + 1, 0, 1, -EBADMSG},
        {BODY_AT + BODY_END + SECTION_SIZE + 1, 9, 1, -EBADMSG},
        {BODY_AT + BODY_END + SECTION_SIZE + 1, 2, 1, -EBADMSG}, /* more ids than there are */
        {BODY_AT + BODY_END + SECTION_SIZE + 2, 7, 2, -ENODEV},
    };

    (void)state;
    unit_init(&unit, &plain);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct stream stream = save(unit.guest.iommu);
        struct viommu_device *device;
        struct viommu *second = second_of(&unit, &device);
        struct viommu_translation out;

        store(&stream, cases[i].at, cases[i].value, cases[i].bytes);
        seal(&stream);
        assert_int_equal(viommu_load(second, stream.data, stream.size), cases[i].ret);
        if (!cases[i].ret) {
            assert_int_equal(viommu_device_translate(device, NULL, 0, VIOMMU_READ, &out), -EPERM);
        }
        viommu_destroy(second);
        viommu_save_free(stream.data);
    }
    unit_fini(&unit);
}

static void test_aliases(void **state)
{
    struct stream stream;
    struct viommu_device *device;
    struct viommu *second;

    (void)state;
    unit_init(&unit, &plain);
    assert_int_equal(viommu_device_add_alias(unit.device, 0x40), 1);
    assert_int_equal(viommu_device_add_alias(unit.device, 0x41), 2);
    stream = save(unit.guest.iommu);
    second = second_of(&unit, &device);
    assert_int_equal(viommu_load(second, stream.data, stream.size), -ENODEV);
    assert_int_equal(viommu_device_add_alias(device, 0x41), 1);
    assert_int_equal(viommu_device_add_alias(device, 0x40), 2);
    assert_int_equal(viommu_load(second, stream.data, stream.size), -ENODEV);
    assert_int_equal(viommu_device_remove_aliases(device), 0);
    assert_int_equal(viommu_device_add_alias(device, 0x40), 1);
    assert_int_equal(viommu_device_add_alias(device, 0x41), 2);
    assert_int_equal(viommu_load(second, stream.data, stream.size), 0);
    viommu_destroy(second);
    viommu_save_free(stream.data);
    unit_fini(&unit);
}

/* Of devices that share an id each is what it was. */
static void test_shared_ids(void **state)
{
    const struct viommu_device_config shared = {.requester = 0x50, .shared = true};
    struct viommu_device *devices[3];
    struct viommu_translation out;
    struct stream stream;
    struct viommu *second;
    struct viommu_device *device;

    (void)state;
    unit_init(&unit, &plain);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(viommu_device_add(unit.guest.iommu, &shared, &devices[i]), 0);
    }
    stream = save(unit.guest.iommu);
    second = second_of(&unit, &device);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(viommu_device_add(second, &shared, &devices[i]), 0);
    }
    /* The newest comes first: this is the one in the middle. */
    store(&stream, BODY_AT + BODY_END + 2 * SECTION_SIZE + 4, 5, 1);
    seal(&stream);
    assert_int_equal(viommu_load(second, stream.data, stream.size), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(viommu_device_translate(devices[i], NULL, 0, VIOMMU_READ, &out),
                         i == 1 ? -EPERM : 0);
    }
    viommu_destroy(second);
    viommu_save_free(stream.data);
    unit_fini(&unit);
}

/* Every section is cut short, with a frame that is right. */
static void test_short_sections(void **state)
{
    struct stream stream;
    struct viommu_device *device;
    struct viommu *second;
    struct save_reader reader;
    struct save_section sections[3];
    struct save_writer writer;
    void *data;
    size_t size;

    (void)state;
    unit_init(&unit, &plain);
    stream = save(unit.guest.iommu);
    second = second_of(&unit, &device);
    assert_int_equal(save_open(&reader, SAVE_INSTANCE, stream.data, stream.size), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(save_next(&reader, &sections[i]));
    }
    for (unsigned cut = 0; cut < 3; cut++) {
        for (size_t left = 0; left < sections[cut].left; left++) {
            save_writer_init(&writer, SAVE_INSTANCE);
            for (unsigned i = 0; i < 3; i++) {
                save_begin(&writer, sections[i].kind, 0, 1, 0);
                save_put_bytes(&writer, sections[i].at, i == cut ? left : sections[i].left);
                save_end(&writer);
            }
            assert_int_equal(save_finish(&writer, &data, &size), 0);
            assert_int_equal(viommu_load(second, data, size), -EBADMSG);
            viommu_save_free(data);
        }
    }
    assert_int_equal(viommu_load(second, stream.data, stream.size), 0);
    viommu_destroy(second);
    viommu_save_free(stream.data);
    unit_fini(&unit);
}

/* Every section has a version and a length, and says so. */
static void test_versions_and_lengths(void **state)
{
    struct stream stream;
    struct viommu_device *device;
    struct viommu *second;
    size_t at = HEADER_SIZE;

    (void)state;
    unit_init(&unit, &plain);
    stream = save(unit.guest.iommu);
    second = second_of(&unit, &device);
    assert_int_equal(stream.data[MODEL_AT + 16] | stream.data[MODEL_AT + 17] << 8, BODY_END);
    for (unsigned i = 0; i < 3; i++) {
        uint32_t length = (uint32_t)stream.data[at + 16] | (uint32_t)stream.data[at + 17] << 8;

        store(&stream, at + 8, 2, 2);
        seal(&stream);
        assert_int_equal(viommu_load(second, stream.data, stream.size), -ENOTSUP);
        store(&stream, at + 8, 0, 2);
        seal(&stream);
        assert_int_equal(viommu_load(second, stream.data, stream.size), -EBADMSG);
        store(&stream, at + 8, 1, 2);
        store(&stream, at + 4, 1, 4); /* its number */
        seal(&stream);
        assert_int_equal(viommu_load(second, stream.data, stream.size), -EBADMSG);
        store(&stream, at + 4, 0, 4);
        at += SECTION_SIZE + length;
    }
    assert_int_equal(at, stream.size);
    seal(&stream);
    assert_int_equal(viommu_load(second, stream.data, stream.size), 0);
    viommu_destroy(second);
    viommu_save_free(stream.data);
    unit_fini(&unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_of_registers),
        cmocka_unit_test(test_faults_that_cannot_be),
        cmocka_unit_test(test_messages_that_cannot_be),
        cmocka_unit_test(test_commands_that_cannot_be),
        cmocka_unit_test(test_another_configuration),
        cmocka_unit_test(test_sections),
        cmocka_unit_test(test_instances_and_devices),
        cmocka_unit_test(test_aliases),
        cmocka_unit_test(test_shared_ids),
        cmocka_unit_test(test_short_sections),
        cmocka_unit_test(test_versions_and_lengths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
