/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the tracing backend: every kind of line, byte for byte but for the times; alone and in
 * front of another; and writes that come short, are interrupted or fail. For those, `write` is this
 * program's own, which the linker takes in place of libc's: it does what a test asks for, once
 * each, and is the real one otherwise.
 */
#include <viommu/trace.h>

#include "base/alloc.h"
#include "iommu/test_model.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TEXT 8192
#define ID 0x1b /* 00:03.3 */

/* What the next writes do: so many bytes, 0, or a negative errno. */
static int writes[2];
static unsigned write_count;
static unsigned writes_done;

/* In place of libc's. */
ssize_t write(int fd, const void *bytes, size_t size)
{
    int wanted = 0;

    if (writes_done < write_count) {
        wanted = writes[writes_done++];
        if (wanted <= 0) {
            errno = -wanted;
            return wanted ? -1 : 0;
        }
    }
    return syscall(SYS_write, fd, bytes, wanted ? (size_t)wanted : size);
}

static void next_write(int first)
{
    writes[0] = first;
    write_count = 1;
    writes_done = 0;
}

static void next_writes(int first, int second)
{
    next_write(first);
    writes[1] = second;
    write_count = 2;
}

/* ---- a subscriber behind the trace */

static struct {
    struct viommu_change last;
    unsigned changes;
    unsigned fences;
    int answer;
    int fence_answer;
} behind;

static int on_change(void *opaque, const struct viommu_change *change)
{
    assert_ptr_equal(opaque, &behind);
    behind.last = *change;
    behind.changes++;
    return behind.answer;
}

static int on_fence(void *opaque)
{
    assert_ptr_equal(opaque, &behind);
    behind.fences++;
    return behind.fence_answer;
}

static const struct viommu_range allowed[] = {{0, 0xffff}, {0x20000, 0xfffff}};

static const struct viommu_subscription mirror = {
    .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP | VIOMMU_CHANGE_REPLACE |
             VIOMMU_CHANGE_DEVICE_TLB,
    .form = VIOMMU_FORM_RANGE,
    .role = VIOMMU_ROLE_MIRROR,
    .change = on_change,
    .opaque = &behind,
    .fence = on_fence,
    .allowed = allowed,
    .allowed_count = 2,
    .page_sizes = 0x1000,
    .unmap_spans = true,
    .mappings_max = 7,
};

static const struct viommu_subscription cache = {
    .kinds = VIOMMU_CHANGE_UNMAP | VIOMMU_CHANGE_DEVICE_TLB,
    .change = on_change,
    .opaque = &behind,
};

/* ---- what was written */

static int file;

static int setup(void **state)
{
    (void)state;
    memset(&behind, 0, sizeof(behind));
    file = memfd_create("trace", 0);
    assert_true(file >= 0);
    write_count = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(file);
    return 0;
}

/* Puts N in place of the number after each `name`. */
static void mask(char *text, const char *name)
{
    for (char *at = strstr(text, name); at; at = strstr(at, name)) {
        size_t digits;

        at += strlen(name);
        digits = strspn(at, "0123456789");
        assert_true(digits > 0);
        *at = 'N';
        memmove(at + 1, at + digits, strlen(at + digits) + 1);
    }
}

static void expect(const char *lines)
{
    char text[TEXT];
    ssize_t length = pread(file, text, sizeof(text) - 1, 0);

    assert_true(length >= 0);
    text[length] = '\0';
    mask(text, "\"time\":");
    mask(text, "\"took\":");
    assert_string_equal(text, lines);
}

static struct viommu_trace *create(const struct viommu_subscription *next, bool skips,
                                   struct viommu_subscription *what)
{
    struct viommu_trace_config config = {.fd = file, .next = next, .skips = skips};
    struct viommu_trace *trace;

    assert_int_equal(viommu_trace_create(&config, &trace), 0);
    viommu_trace_subscription(trace, what);
    return trace;
}

static struct viommu_trace *create_alone(const struct viommu_subscription *as, bool skips,
                                         struct viommu_subscription *what)
{
    struct viommu_trace_config config = {.fd = file, .what = *as, .skips = skips};
    struct viommu_trace *trace;

    assert_int_equal(viommu_trace_create(&config, &trace), 0);
    viommu_trace_subscription(trace, what);
    return trace;
}

static int tell(const struct viommu_subscription *what, enum viommu_change_kind kind,
                enum viommu_cause cause, uint32_t perm)
{
    struct viommu_change change = {
        .kind = kind,
        .requester = ID,
        .first = 0x1000,
        .last = 0x1fff,
        .token = 7,
        .cause = cause,
        .perm = perm,
        .gpa = 0x5000,
        .fd = -1,
    };

    return what->change(what->opaque, &change);
}

#define LINE(index, call) \
    "{\"index\":" #index ",\"time\":N,\"call\":\"" call \
    "\",\"requester\":\"00:03.3\",\"first\":\"0x1000\",\"last\":\"0x1fff\""
#define GPA ",\"gpa\":\"0x5000\""
#define PERM(perm) ",\"perm\":\"" perm "\""
#define CAUSE(cause) ",\"cause\":\"" cause "\""
#define ANSWER(answer) ",\"token\":7,\"answer\":" answer ",\"took\":N}\n"

static void test_every_kind(void **state)
{
    struct viommu_subscription what;
    struct viommu_trace *trace = create(&mirror, true, &what);

    (void)state;
    assert_int_equal(tell(&what, VIOMMU_CHANGE_MAP, VIOMMU_CAUSE_PAGES, 3), 0);
    assert_int_equal(tell(&what, VIOMMU_CHANGE_UNMAP, VIOMMU_CAUSE_DOMAIN, 0), 0);
    assert_int_equal(tell(&what, VIOMMU_CHANGE_REPLACE, VIOMMU_CAUSE_GLOBAL, 1), 0);
    assert_int_equal(tell(&what, VIOMMU_CHANGE_MAP, VIOMMU_CAUSE_CONTEXT, 2), 0);
    assert_int_equal(tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0), 0);
    assert_int_equal(behind.changes, 5);
    assert_int_equal(tell(&what, VIOMMU_CHANGE_SKIPPED, VIOMMU_CAUSE_MEMORY, 3), 0);
    assert_int_equal(tell(&what, VIOMMU_CHANGE_SKIPPED, VIOMMU_CAUSE_REPLAY, 0), 0);
    assert_int_equal(tell(&what, VIOMMU_CHANGE_MAP, VIOMMU_CAUSE_RETRY, 1), 0);
    assert_int_equal(tell(&what, VIOMMU_CHANGE_MAP, VIOMMU_CAUSES, 1), 0);
    assert_int_equal(tell(&what, (enum viommu_change_kind)32, VIOMMU_CAUSE_PAGES, 1), 0);
    assert_int_equal(what.fence(what.opaque), 0);
    assert_int_equal(behind.changes, 7);
    assert_int_equal(behind.fences, 1);
    expect(LINE(1, "map") GPA PERM("rw") CAUSE("pages") ANSWER("0")
           LINE(2, "unmap") GPA CAUSE("domain") ANSWER("0")
           LINE(3, "replace") GPA PERM("r") CAUSE("global") ANSWER("0")
           LINE(4, "map") GPA PERM("w") CAUSE("context") ANSWER("0")
           LINE(5, "device-tlb") ANSWER("0")
           LINE(6, "skipped") GPA PERM("rw") CAUSE("memory") ANSWER("0")
           LINE(7, "skipped") PERM("none") CAUSE("replay") ANSWER("0")
           LINE(8, "map") GPA PERM("r") CAUSE("retry") ANSWER("0")
           LINE(9, "map") GPA PERM("r") CAUSE("unknown") ANSWER("0")
           LINE(10, "unknown") GPA PERM("r") CAUSE("pages") ANSWER("0")
           "{\"index\":11,\"time\":N,\"call\":\"fence\",\"answer\":0,\"took\":N}\n");
    assert_int_equal(viommu_trace_destroy(trace), 0);
}

static void test_answers(void **state)
{
    struct viommu_subscription what;
    struct viommu_trace *trace = create(&mirror, false, &what);

    (void)state;
    behind.answer = VIOMMU_PENDING;
    assert_int_equal(tell(&what, VIOMMU_CHANGE_UNMAP, VIOMMU_CAUSE_PAGES, 0), VIOMMU_PENDING);
    behind.answer = -ENOSPC;
    assert_int_equal(tell(&what, VIOMMU_CHANGE_MAP, VIOMMU_CAUSE_PAGES, 3), -ENOSPC);
    assert_int_equal(behind.last.kind, VIOMMU_CHANGE_MAP);
    assert_int_equal(behind.last.gpa, 0x5000);
    assert_int_equal(behind.last.token, 7);
    behind.fence_answer = -EIO;
    assert_int_equal(what.fence(what.opaque), -EIO);
    expect(LINE(1, "unmap") GPA CAUSE("pages") ANSWER("\"pending\"")
           LINE(2, "map") GPA PERM("rw") CAUSE("pages") ANSWER("-28")
           "{\"index\":3,\"time\":N,\"call\":\"fence\",\"answer\":-5,\"took\":N}\n");
    assert_int_equal(viommu_trace_destroy(trace), 0);
}

static void test_alone(void **state)
{
    struct viommu_subscription as = mirror;
    struct viommu_subscription what;
    struct viommu_trace *trace;

    (void)state;
    as.change = NULL;
    as.fence = NULL;
    trace = create_alone(&as, true, &what);
    assert_int_equal(tell(&what, VIOMMU_CHANGE_MAP, VIOMMU_CAUSE_PAGES, 3), 0);
    assert_int_equal(what.fence(what.opaque), 0);
    expect(LINE(1, "map") GPA PERM("rw") CAUSE("pages") ANSWER("0")
           "{\"index\":2,\"time\":N,\"call\":\"fence\",\"answer\":0,\"took\":N}\n");
    assert_int_equal(behind.changes + behind.fences, 0);
    assert_int_equal(viommu_trace_destroy(trace), 0);
}

static void test_subscriptions(void **state)
{
    struct viommu_subscription as = mirror;
    struct viommu_subscription what;
    struct viommu_trace *trace = create(&as, false, &what);

    (void)state;
    assert_int_equal(what.kinds, mirror.kinds);
    assert_int_equal(what.role, VIOMMU_ROLE_MIRROR);
    assert_int_equal(what.form, VIOMMU_FORM_RANGE);
    assert_int_equal(what.page_sizes, 0x1000);
    assert_int_equal(what.mappings_max, 7);
    assert_true(what.unmap_spans);
    assert_ptr_not_equal(what.allowed, allowed);
    assert_memory_equal(what.allowed, allowed, sizeof(allowed));
    viommu_trace_destroy(trace);
    /* Everything is allowed; skips are asked for. */
    as.allowed = NULL;
    as.allowed_count = 0;
    trace = create_alone(&as, true, &what);
    assert_null(what.allowed);
    assert_int_equal(what.kinds, mirror.kinds | VIOMMU_CHANGE_SKIPPED);
    viommu_trace_destroy(trace);
    /* A cache has neither skips nor a fence. */
    trace = create(&cache, true, &what);
    assert_int_equal(what.kinds, cache.kinds);
    assert_null(what.fence);
    viommu_trace_destroy(trace);
    assert_int_equal(viommu_trace_destroy(NULL), 0);
}

static void test_skips_that_next_wants(void **state)
{
    struct viommu_subscription as = mirror;
    struct viommu_subscription what;
    struct viommu_trace *trace;

    (void)state;
    as.kinds |= VIOMMU_CHANGE_SKIPPED;
    trace = create(&as, false, &what);
    tell(&what, VIOMMU_CHANGE_SKIPPED, VIOMMU_CAUSE_PAGES, 3);
    assert_int_equal(behind.changes, 1);
    viommu_trace_destroy(trace);
}

static void test_bad_configurations(void **state)
{
    struct viommu_subscription next = mirror;
    struct viommu_trace_config config = {.fd = file, .next = &next};
    struct viommu_trace *trace;

    (void)state;
    assert_int_equal(viommu_trace_create(NULL, &trace), -EINVAL);
    assert_int_equal(viommu_trace_create(&config, NULL), -EINVAL);
    config.fd = -1;
    assert_int_equal(viommu_trace_create(&config, &trace), -EINVAL);
    config.fd = file;
    next.change = NULL;
    assert_int_equal(viommu_trace_create(&config, &trace), -EINVAL);
    next = mirror;
    next.fence = NULL;
    assert_int_equal(viommu_trace_create(&config, &trace), -EINVAL);
    next = mirror;
    next.allowed = NULL;
    assert_int_equal(viommu_trace_create(&config, &trace), -EINVAL);
    next = mirror;
    for (unsigned n = 1; n <= 2; n++) {
        base_alloc_fail_at(n);
        assert_int_equal(viommu_trace_create(&config, &trace), -ENOMEM);
    }
    base_alloc_fail_at(0);
}

/* In front of a cache of a real instance. */
static void test_in_an_instance(void **state)
{
    static struct test_model model;
    struct viommu_subscription what;
    struct viommu_subscriber *subscriber;
    struct viommu_trace *trace = create(&cache, false, &what);
    struct viommu_device *device;

    (void)state;
    model_init(&model);
    device = model_device(&model, ID);
    assert_int_equal(viommu_device_subscribe(device, &what, &subscriber), 0);
    model_post(&model, ID, 0x1000);
    model_process(&model);
    assert_int_equal(behind.changes, 1);
    assert_int_equal(viommu_subscriber_destroy(subscriber), 0);
    model_fini(&model);
    assert_int_equal(behind.last.kind, VIOMMU_CHANGE_DEVICE_TLB);
    assert_int_equal(viommu_trace_destroy(trace), 0);
    assert_true(lseek(file, 0, SEEK_END) > 0);
}

/* ---- writing */

#define DEVICE_TLB(index) LINE(index, "device-tlb") ANSWER("0")

static void test_interrupted_and_short(void **state)
{
    struct viommu_subscription what;
    struct viommu_trace *trace = create(&cache, false, &what);

    (void)state;
    next_write(-EINTR);
    tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0);
    next_writes(10, 1);
    tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0);
    expect(DEVICE_TLB(1) DEVICE_TLB(2));
    assert_int_equal(viommu_trace_destroy(trace), 0);
}

static void test_failing_writes(void **state)
{
    struct viommu_subscription what;
    struct viommu_trace *trace = create(&cache, false, &what);

    (void)state;
    next_write(-ENOSPC); /* line 1 is lost */
    assert_int_equal(tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0), 0);
    tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0);
    next_writes(10, -EFBIG); /* of line 3 the beginning comes through */
    tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0);
    next_write(-EAGAIN); /* of line 4 nothing */
    tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0);
    tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0);
    next_writes(10, -EFBIG); /* line 6 as line 3 */
    tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0);
    next_writes(1, 0); /* of line 7 the line break that ends line 6 */
    tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0);
    tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0);
    assert_int_equal(behind.changes, 8);
    expect(DEVICE_TLB(2) "{\"index\":3\n" DEVICE_TLB(5) "{\"index\":6\n" DEVICE_TLB(8));
    assert_int_equal(viommu_trace_destroy(trace), -EIO);
}

static void test_full_pipe(void **state)
{
    struct viommu_trace_config config = {.next = &cache};
    struct viommu_subscription what;
    struct viommu_trace *trace;
    char page[4096] = {0};
    int ends[2];

    (void)state;
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    while (write(ends[1], page, sizeof(page)) > 0) {
    }
    config.fd = ends[1];
    assert_int_equal(viommu_trace_create(&config, &trace), 0);
    viommu_trace_subscription(trace, &what);
    assert_int_equal(tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0), 0);
    while (read(ends[0], page, sizeof(page)) > 0) {
    }
    assert_int_equal(tell(&what, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_CAUSE_PAGES, 0), 0);
    assert_true(read(ends[0], page, sizeof(page)) > 11);
    assert_memory_equal(page, "{\"index\":2,", 11);
    assert_int_equal(behind.changes, 2);
    assert_int_equal(viommu_trace_destroy(trace), -EAGAIN);
    close(ends[0]);
    close(ends[1]);
}

static void test_closed_file(void **state)
{
    struct viommu_subscription what;
    struct viommu_trace *trace = create(&mirror, false, &what);

    (void)state;
    close(file);
    assert_int_equal(tell(&what, VIOMMU_CHANGE_MAP, VIOMMU_CAUSE_PAGES, 3), 0);
    assert_int_equal(what.fence(what.opaque), 0);
    assert_int_equal(behind.changes + behind.fences, 2);
    assert_int_equal(viommu_trace_destroy(trace), -EBADF);
    file = memfd_create("trace", 0); /* for the end of the test to close */
}

/* The widest of everything stays within a line's buffer. */
static void test_longest_line(void **state)
{
    struct viommu_subscription what;
    struct viommu_trace *trace = create_alone(&mirror, false, &what);
    struct viommu_change change = {
        .kind = VIOMMU_CHANGE_REPLACE,
        .requester = UINT16_MAX,
        .first = UINT64_MAX - 1,
        .last = UINT64_MAX,
        .token = UINT64_MAX,
        .cause = VIOMMU_CAUSE_CONTEXT,
        .perm = UINT32_MAX,
        .gpa = UINT64_MAX,
    };

    (void)state;
    what.change(what.opaque, &change);
    expect("{\"index\":1,\"time\":N,\"call\":\"replace\",\"requester\":\"ff:1f.7\","
           "\"first\":\"0xfffffffffffffffe\",\"last\":\"0xffffffffffffffff\","
           "\"gpa\":\"0xffffffffffffffff\",\"perm\":\"rw\",\"cause\":\"context\","
           "\"token\":18446744073709551615,\"answer\":0,\"took\":N}\n");
    viommu_trace_destroy(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_subscriptions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_skips_that_next_wants, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_configurations, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_an_instance, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupted_and_short, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failing_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_pipe, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closed_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_longest_line, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
