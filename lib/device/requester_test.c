/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of devices and their ids: adding, removing, sharing, aliases, new ids, and that what was
 * known of an
 * id is not used for another.
 */
#include "base/alloc.h"
#include "iommu/test_model.h"

#include <errno.h>

static struct test_model model;

static int setup(void **state)
{
    (void)state;
    model_init(&model);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    model_fini(&model);
    return 0;
}

static int add(uint16_t id, bool shared, struct viommu_device **out)
{
    struct viommu_device_config config = {.requester = id, .shared = shared};

    return viommu_device_add(&model.iommu, &config, out);
}

static bool known(uint16_t id)
{
    bool found;

    iommu_lock(&model.iommu);
    found = requester_find(&model.iommu, id) != NULL;
    iommu_unlock(&model.iommu);
    return found;
}

static void test_unique_ids(void **state)
{
    struct viommu_device *a;
    struct viommu_device *b;

    (void)state;
    assert_int_equal(add(0x10, false, &a), 0);
    assert_int_equal(viommu_device_requester(a), 0x10);
    assert_int_equal(add(0x10, false, &b), -EEXIST);
    assert_int_equal(add(0x10, true, &b), -EEXIST);
    assert_int_equal(viommu_device_remove(a), 0);
    assert_false(known(0x10));
    assert_int_equal(add(0x10, false, &b), 0);
    assert_int_equal(viommu_device_remove(NULL), 0);
}

/* Behind a bridge: all must say so. */
static void test_shared_ids(void **state)
{
    struct viommu_device *devices[3];
    struct viommu_device *other;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(add(0x10, true, &devices[i]), 0);
    }
    assert_int_equal(add(0x10, false, &other), -EEXIST);
    assert_int_equal(viommu_device_remove(devices[1]), 0);
    assert_int_equal(viommu_device_remove(devices[0]), 0);
    assert_true(known(0x10));
    assert_int_equal(viommu_device_requester(devices[2]), 0x10);
    assert_int_equal(viommu_device_remove(devices[2]), 0);
    assert_false(known(0x10));
    assert_int_equal(add(0x10, false, &other), 0);
}

static void test_every_id(void **state)
{
    static struct viommu_device *devices[0x10000];

    (void)state;
    for (unsigned id = 0; id < 0x10000; id += 3) {
        assert_int_equal(add((uint16_t)id, false, &devices[id]), 0);
    }
    for (unsigned id = 0; id < 0x10000; id += 3) {
        assert_int_equal(viommu_device_requester(devices[id]), id);
        assert_true(known((uint16_t)id));
        assert_false(known((uint16_t)(id + 1)));
        assert_int_equal(viommu_device_remove(devices[id]), 0);
        assert_false(known((uint16_t)id));
    }
}

static void test_ats_needs_support(void **state)
{
    struct viommu_device_config config = {.requester = 1, .ats = true};
    struct viommu_device *device;

    (void)state;
    model.ats = false;
    assert_int_equal(viommu_device_add(&model.iommu, &config, &device), -ENOTSUP);
    assert_false(known(1));
    model.ats = true;
    assert_int_equal(viommu_device_add(&model.iommu, &config, &device), 0);
}

static void test_no_memory(void **state)
{
    struct viommu_device *device;
    unsigned n = 0;
    int ret;

    (void)state;
    do {
        base_alloc_fail_at(++n);
        ret = add(0x10, false, &device);
        assert_int_equal(ret, base_alloc_failed() ? -ENOMEM : 0);
        assert_int_equal(known(0x10), ret == 0);
    } while (ret);
    assert_int_equal(n, 3); /* a device and a requester */
    base_alloc_fail_at(1);
    assert_int_equal(viommu_device_set_requester(device, 0x11), -ENOMEM);
    assert_int_equal(viommu_device_requester(device), 0x10);
    base_alloc_fail_at(1);
    assert_int_equal(viommu_device_add_alias(device, 0x12), -ENOMEM);
    base_alloc_fail_at(0);
    assert_int_equal(viommu_device_add_alias(device, 0x12), 1);
}

/* ---- new ids --------------------------------------------------------------------------------- */

static void test_set_requester(void **state)
{
    struct viommu_device *a;
    struct viommu_device *b;

    (void)state;
    assert_int_equal(add(0x10, false, &a), 0);
    assert_int_equal(add(0x20, false, &b), 0);
    assert_int_equal(viommu_device_set_requester(a, 0x20), -EEXIST);
    assert_int_equal(viommu_device_requester(a), 0x10);
    assert_int_equal(viommu_device_set_requester(a, 0x10), 0);
    assert_int_equal(viommu_device_set_requester(a, 0x30), 0);
    assert_int_equal(viommu_device_requester(a), 0x30);
    assert_false(known(0x10));
    /* A chain of buses renumbered: each takes what the next has left. */
    assert_int_equal(viommu_device_set_requester(b, 0x10), 0);
    assert_int_equal(viommu_device_set_requester(a, 0x20), 0);
}

static void test_set_requester_of_shared(void **state)
{
    struct viommu_device *devices[2];
    struct viommu_device *own;

    (void)state;
    assert_int_equal(add(0x10, true, &devices[0]), 0);
    assert_int_equal(add(0x10, true, &devices[1]), 0);
    assert_int_equal(add(0x20, false, &own), 0);
    assert_int_equal(viommu_device_set_requester(devices[0], 0x20), -EEXIST);
    assert_int_equal(viommu_device_set_requester(devices[0], 0x30), 0);
    assert_int_equal(viommu_device_requester(devices[1]), 0x10);
    assert_int_equal(viommu_device_set_requester(devices[1], 0x30), 0);
    assert_false(known(0x10));
    assert_int_equal(viommu_device_set_requester(own, 0x30), -EEXIST);
}

/* What was known of the old id is not used for the new one, nor when the old comes back. */
static void test_knowledge_goes_with_the_id(void **state)
{
    struct viommu_device *device;
    struct requester *requester;
    struct context *context;

    (void)state;
    assert_int_equal(add(0x10, false, &device), 0);
    for (unsigned i = 0; i < 4; i++) {
        context = base_alloc(sizeof(*context));
        assert_non_null(context);
        requester = atomic_load(&device->requesters[0]);
        assert_null(atomic_load(&requester->context));
        atomic_store(&requester->context, context);
        assert_int_equal(viommu_device_set_requester(device, i & 1 ? 0x10 : 0x20), 0);
    }
    requester = atomic_load(&device->requesters[0]);
    assert_null(atomic_load(&requester->context));
}

/* ---- aliases --------------------------------------------------------------------------------- */

static void test_aliases(void **state)
{
    struct viommu_device *device;
    struct viommu_device *other;
    struct viommu_dma_attrs attrs = {0};
    struct viommu_translation out;

    (void)state;
    assert_int_equal(add(0x10, false, &device), 0);
    assert_int_equal(add(0x20, false, &other), 0);
    assert_int_equal(viommu_device_add_alias(device, 0x10), -EEXIST);
    assert_int_equal(viommu_device_add_alias(device, 0x20), -EEXIST);
    for (uint16_t i = 1; i <= VIOMMU_ALIASES_MAX; i++) {
        attrs.alias = i;
        assert_int_equal(viommu_device_translate(device, &attrs, 0, VIOMMU_READ, &out), -EINVAL);
        assert_int_equal(viommu_device_add_alias(device, 0x100 + i), i);
        assert_int_equal(viommu_device_translate(device, &attrs, 0, VIOMMU_READ, &out), 0);
    }
    assert_int_equal(viommu_device_add_alias(device, 0x200), -ENOSPC);
    assert_false(known(0x200));
    assert_int_equal(viommu_device_set_requester(other, 0x101), -EEXIST);
    assert_int_equal(viommu_device_requester(device), 0x10);
    assert_int_equal(viommu_device_remove_aliases(device), 0);
    assert_int_equal(viommu_device_translate(device, &attrs, 0, VIOMMU_READ, &out), -EINVAL);
    assert_int_equal(viommu_device_set_requester(other, 0x101), 0);
    assert_int_equal(viommu_device_add_alias(device, 0x102), 1);
    /* They go with the device. */
    assert_int_equal(viommu_device_remove(device), 0);
    assert_false(known(0x102));
    assert_false(known(0x10));
}

/* ---- forgetting ------------------------------------------------------------------------------ */

static void know(struct viommu_device *device)
{
    struct requester *requester = atomic_load(&device->requesters[0]);
    struct context *context;

    if (!atomic_load(&requester->context)) {
        context = base_alloc(sizeof(*context));
        assert_non_null(context);
        atomic_store(&requester->context, context);
    }
}

/* A mask chooses the bits of the id that are compared. */
static void test_forget_by_mask(void **state)
{
    static const uint16_t ids[] = {0x0000, 0x0001, 0x0006, 0x0007, 0x0008, 0x0100, 0xfff8, 0xffff};
    static const uint16_t masks[] = {0, 0xffff, 0xfffb, 0xfff9, 0xfff8, 0xff00};
    struct viommu_device *devices[8];

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(add(ids[i], false, &devices[i]), 0);
    }
    for (unsigned m = 0; m < 6; m++) {
        for (unsigned target = 0; target < 8; target++) {
            for (unsigned i = 0; i < 8; i++) {
                know(devices[i]);
            }
            iommu_lock(&model.iommu);
            requesters_forget(&model.iommu, ids[target], masks[m]);
            iommu_unlock(&model.iommu);
            for (unsigned i = 0; i < 8; i++) {
                struct requester *requester = atomic_load(&devices[i]->requesters[0]);
                bool match = (ids[i] & masks[m]) == (ids[target] & masks[m]);

                assert_int_equal(atomic_load(&requester->context) == NULL, match);
            }
        }
    }
}

/* ---- threads --------------------------------------------------------------------------------- */

/* A device whose id changes while it issues requests. */
static _Atomic bool stop;

static void *request_thread(void *arg)
{
    struct viommu_translation out;

    while (!atomic_load(&stop)) {
        assert_int_equal(viommu_device_translate(arg, NULL, 0x1000, VIOMMU_READ, &out), 0);
    }
    return NULL;
}

static void test_new_id_while_running(void **state)
{
    struct viommu_device *device;
    pthread_t thread;

    (void)state;
    assert_int_equal(add(0x10, false, &device), 0);
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, request_thread, device), 0);
    for (unsigned i = 0; i < 2000; i++) {
        assert_int_equal(viommu_device_set_requester(device, (uint16_t)(0x20 + i % 50)), 0);
        know(device);
        assert_int_equal(viommu_device_requester(device), 0x20 + i % 50);
        model_process(&model); /* frees what nobody sees any more */
    }
    atomic_store(&stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unique_ids, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared_ids, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_id, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ats_needs_support, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set_requester, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set_requester_of_shared, setup, teardown),
        cmocka_unit_test_setup_teardown(test_knowledge_goes_with_the_id, setup, teardown),
        cmocka_unit_test_setup_teardown(test_aliases, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forget_by_mask, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_id_while_running, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
