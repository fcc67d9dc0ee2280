/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of an endpoint stand on: a client, an endpoint with a function that records, and a
 * check at the end that no descriptor was left behind. Included once by each test program.
 */
#ifndef VIOMMU_SERVER_VFIO_USER_TEST_FIXTURE_H
#define VIOMMU_SERVER_VFIO_USER_TEST_FIXTURE_H

#include "recorder.h"
#include "test_client.h"

static struct recorder recorder;
static struct vfio_user_endpoint endpoint;
static struct test_client client;
static unsigned fds_at_start;

/* Connected, nothing said yet. */
static inline int setup_raw(void **state)
{
    (void)state;
    fds_at_start = support_open_fds();
    recorder_init(&recorder);
    test_client_open(&client, &endpoint, &recorder.function);
    return 0;
}

/* Connected and agreed on a version. */
static inline int setup(void **state)
{
    setup_raw(state);
    test_client_negotiate(&client);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    test_client_close(&client);
    assert_int_equal(support_open_fds(), fds_at_start);
    assert_null(recorder.function.bus);
    return 0;
}

#endif
