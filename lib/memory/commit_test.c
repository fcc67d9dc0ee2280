/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of how batches are carried out: listeners, drains, completion, the order of batches, want
 * of memory. Threads under load are in load_test.c.
 *
 * A drain is held up by a section of the test's own thread. The `log` of a listener is a letter a
 * call: b before (changing), a after (changed). Assertions are made on the main thread only; others
 * count what they find wrong.
 */
#include "memory/test_memory.h"

#include "base/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

struct recorder {
    struct viommu_memory *memory;
    struct viommu_memory_listener *listener;
    int answer;        /* of changing */
    char log[32];
    uint64_t token;
    size_t removed_count;
    size_t added_count;
    uint64_t removed_first; /* of the first slot */
    uint64_t added_first;
    bool old_seen_before; /* what could be reached at the time of the calls */
    bool new_seen_before;
    bool old_seen_after;
    bool new_seen_after;
};

static void record(struct recorder *recorder, const struct viommu_memory_change *change, char what)
{
    size_t length = strlen(recorder->log);

    if (length + 1 < sizeof(recorder->log)) {
        recorder->log[length] = what;
    }
    recorder->token = change->token;
    recorder->removed_count = change->removed_count;
    recorder->added_count = change->added_count;
    recorder->removed_first = change->removed_count ? change->removed[0].first : 0;
    recorder->added_first = change->added_count ? change->added[0].first : 0;
}

static int on_changing(void *opaque, const struct viommu_memory_change *change)
{
    struct recorder *recorder = opaque;

    record(recorder, change, 'b');
    recorder->old_seen_before = test_present(recorder->memory, recorder->removed_first);
    recorder->new_seen_before = test_present(recorder->memory, recorder->added_first);
    return recorder->answer;
}

static void on_changed(void *opaque, const struct viommu_memory_change *change)
{
    struct recorder *recorder = opaque;

    record(recorder, change, 'a');
    recorder->old_seen_after = test_present(recorder->memory, recorder->removed_first);
    recorder->new_seen_after = test_present(recorder->memory, recorder->added_first);
}

static const struct viommu_memory_listener_ops recorder_ops = {
    .changing = on_changing,
    .changed = on_changed,
};

static void listen(struct recorder *recorder, struct viommu_memory *memory, int answer)
{
    *recorder = (struct recorder){.memory = memory, .answer = answer};
    assert_int_equal(
        viommu_memory_listener_add(memory, &recorder_ops, recorder, &recorder->listener), 0);
}

static void count_done(void *opaque)
{
    ++*(unsigned *)opaque;
}

static int setup(void **state)
{
    return viommu_memory_create((struct viommu_memory **)state);
}

static int teardown(void **state)
{
    viommu_memory_destroy(*state);
    return 0;
}

static void test_listener_hears_before_and_after(void **state)
{
    struct viommu_memory_batch *batch;
    struct recorder recorder;
    uint64_t first_token;

    assert_int_equal(test_add_one(*state, PAGE, 1, 0), 0); /* before it listens */
    assert_int_equal(test_add_one(*state, 3 * PAGE, 1, 0), 0);
    listen(&recorder, *state, 0);
    batch = test_begin(*state);
    test_remove(batch, 0, 4);
    test_add(batch, 9 * PAGE, 1, 0);
    test_add(batch, 8 * PAGE, 1, 0);
    test_add(batch, 10 * PAGE, 1, 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    assert_string_equal(recorder.log, "ba");
    assert_int_equal(recorder.removed_count, 2);
    assert_int_equal(recorder.added_count, 3);
    assert_int_equal(recorder.removed_first, PAGE);
    assert_int_equal(recorder.added_first, 8 * PAGE);
    assert_true(recorder.old_seen_before);
    assert_false(recorder.new_seen_before);
    assert_false(recorder.old_seen_after);
    assert_true(recorder.new_seen_after);
    first_token = recorder.token;
    assert_int_equal(viommu_memory_listener_complete(recorder.listener, first_token), -ENOENT);

    assert_int_equal(test_remove_one(*state, 8 * PAGE, 3), 0);
    assert_string_equal(recorder.log, "baba");
    assert_int_not_equal(recorder.token, first_token);
    assert_int_equal(viommu_memory_listener_remove(recorder.listener), 0);
    assert_int_equal(test_add_one(*state, PAGE, 1, 0), 0);
    assert_string_equal(recorder.log, "baba");
}

static void test_refused_batch_is_not_told(void **state)
{
    struct recorder recorder;

    listen(&recorder, *state, 0);
    assert_int_equal(test_remove_one(*state, 0, 1), -ENOENT);
    assert_string_equal(recorder.log, "");
    assert_int_equal(viommu_memory_process(*state), 0);
}

static void test_listener_without_functions(void **state)
{
    static const struct viommu_memory_listener_ops nothing;
    struct viommu_memory_listener *listener;

    assert_int_equal(viommu_memory_listener_add(*state, &nothing, NULL, &listener), 0);
    assert_int_equal(test_add_one(*state, 0, 1, 0), 0);
    assert_int_equal(test_remove_one(*state, 0, 1), 0);
    assert_int_equal(viommu_memory_listener_remove(listener), 0);
}

static void test_answer_by_token(void **state)
{
    struct viommu_memory_batch *batch;
    struct recorder slow;
    struct recorder quick;
    unsigned done = 0;

    assert_int_equal(test_add_one(*state, 0, 1, 0), 0);
    listen(&slow, *state, VIOMMU_PENDING);
    listen(&quick, *state, 0);
    batch = test_begin(*state);
    test_remove(batch, 0, 1);
    assert_int_equal(viommu_memory_batch_commit(batch, count_done, &done), VIOMMU_PENDING);
    assert_string_equal(slow.log, "b");
    assert_string_equal(quick.log, "b"); /* all are told before any is waited for */
    assert_true(test_present(*state, 0));
    assert_int_equal(viommu_memory_process(*state), VIOMMU_PENDING);
    assert_false(test_readable(*state, 5)); /* the answer will wake us, nothing else does */
    assert_int_equal(viommu_memory_listener_complete(slow.listener, slow.token + 1000), -ENOENT);
    assert_int_equal(viommu_memory_listener_complete(quick.listener, slow.token), -ENOENT);
    assert_int_equal(viommu_memory_listener_complete(quick.listener, quick.token), -ENOENT);
    assert_int_equal(viommu_memory_process(*state), VIOMMU_PENDING);
    assert_int_equal(viommu_memory_listener_complete(slow.listener, slow.token), 0);
    assert_int_equal(viommu_memory_listener_complete(slow.listener, slow.token), -ENOENT);
    assert_int_equal(done, 0);
    assert_true(test_readable(*state, 0));
    assert_int_equal(viommu_memory_process(*state), 0);
    assert_int_equal(done, 1);
    assert_string_equal(slow.log, "ba");
    assert_string_equal(quick.log, "ba");
    assert_false(test_present(*state, 0));
    assert_false(test_readable(*state, 5));
}

static void test_section_holds_up_removal(void **state)
{
    struct viommu_memory_batch *batch = test_begin(*state);
    struct recorder recorder;
    unsigned done = 0;

    assert_int_equal(test_add_one(*state, 0, 1, 0), 0);
    listen(&recorder, *state, 0);
    test_remove(batch, 0, 1);
    assert_true(epoch_enter(memory_epoch(*state)));
    assert_int_equal(viommu_memory_batch_commit(batch, count_done, &done), VIOMMU_PENDING);
    assert_false(test_present(*state, 0)); /* gone for the next access, but not complete */
    for (unsigned i = 0; i < 8; i++) {
        assert_true(test_readable(*state, 5000)); /* a section ends untold: it is polled */
        assert_int_equal(viommu_memory_process(*state), VIOMMU_PENDING);
    }
    assert_string_equal(recorder.log, "b");
    assert_int_equal(done, 0);
    epoch_leave(memory_epoch(*state));
    assert_true(test_readable(*state, 5000));
    assert_int_equal(viommu_memory_process(*state), 0);
    assert_string_equal(recorder.log, "ba");
    assert_int_equal(done, 1);
    assert_false(test_readable(*state, 5));
    assert_int_equal(viommu_memory_process(*state), 0);
    assert_int_equal(done, 1);
}

static void test_section_does_not_hold_up_addition(void **state)
{
    unsigned done = 0;
    struct viommu_memory_batch *batch = test_begin(*state);
    const struct memory_snapshot *snapshot;

    test_add(batch, 0, 1, 0);
    assert_true(epoch_enter(memory_epoch(*state)));
    snapshot = memory_snapshot(*state);
    assert_int_equal(viommu_memory_batch_commit(batch, count_done, &done), 0);
    assert_int_equal(done, 0);
    assert_true(test_present(*state, 0));
    assert_int_equal(snapshot->count, 0); /* what the section uses stays as it was */
    epoch_leave(memory_epoch(*state));
}

static void test_batches_are_judged_by_what_was_accepted(void **state)
{
    struct recorder recorder;

    assert_int_equal(test_add_one(*state, 0, 1, 0), 0);
    listen(&recorder, *state, VIOMMU_PENDING);
    assert_int_equal(test_remove_one(*state, 0, 1), VIOMMU_PENDING);
    assert_int_equal(test_remove_one(*state, 0, 1), -ENOENT);
    assert_int_equal(test_add_one(*state, 0, 2, 4), VIOMMU_PENDING); /* it will be free */
    assert_int_equal(test_add_one(*state, PAGE, 1, 0), -EEXIST);
    assert_int_equal(test_remove_one(*state, 0, 1), -EINVAL);
    assert_string_equal(recorder.log, "b"); /* one after the other */
    assert_true(test_present(*state, 0));
    assert_false(test_present(*state, PAGE));
    assert_int_equal(viommu_memory_listener_complete(recorder.listener, recorder.token), 0);
    assert_int_equal(viommu_memory_process(*state), VIOMMU_PENDING);
    assert_string_equal(recorder.log, "bab");
    assert_false(test_present(*state, 0));
    assert_int_equal(viommu_memory_listener_complete(recorder.listener, recorder.token), 0);
    assert_int_equal(viommu_memory_process(*state), 0);
    assert_string_equal(recorder.log, "baba");
    assert_true(test_present(*state, PAGE));
}

static void test_done_is_called_by_process_only(void **state)
{
    struct viommu_memory_batch *batch = test_begin(*state);
    unsigned first = 0;
    unsigned second = 0;

    assert_int_equal(test_add_one(*state, 0, 1, 0), 0);
    test_remove(batch, 0, 1);
    assert_true(epoch_enter(memory_epoch(*state)));
    assert_int_equal(viommu_memory_batch_commit(batch, count_done, &first), VIOMMU_PENDING);
    epoch_leave(memory_epoch(*state));
    batch = test_begin(*state);
    test_add(batch, 0, 1, 0);
    assert_int_equal(viommu_memory_batch_commit(batch, count_done, &second), 0);
    assert_int_equal(first, 0);
    assert_true(test_readable(*state, 0));
    assert_int_equal(viommu_memory_process(*state), 0);
    assert_int_equal(first, 1);
    assert_int_equal(second, 0); /* it was complete at once */
    assert_false(test_readable(*state, 5));
}

static void test_new_listener_hears_of_later_batches(void **state)
{
    struct recorder early;
    struct recorder late;

    listen(&early, *state, VIOMMU_PENDING);
    assert_int_equal(test_add_one(*state, 0, 1, 0), VIOMMU_PENDING);
    listen(&late, *state, 0);
    assert_int_equal(viommu_memory_listener_complete(early.listener, early.token), 0);
    assert_int_equal(viommu_memory_process(*state), 0);
    assert_string_equal(late.log, "");
    early.answer = 0;
    assert_int_equal(test_add_one(*state, PAGE, 1, 0), 0);
    assert_string_equal(late.log, "ba");
}

static void test_removed_listener_is_not_waited_for(void **state)
{
    struct recorder one;
    struct recorder two;

    listen(&one, *state, VIOMMU_PENDING);
    listen(&two, *state, VIOMMU_PENDING);
    assert_int_equal(test_add_one(*state, 0, 1, 0), VIOMMU_PENDING);
    assert_int_equal(viommu_memory_listener_remove(one.listener), 0);
    assert_int_equal(viommu_memory_process(*state), VIOMMU_PENDING);
    assert_int_equal(viommu_memory_listener_remove(two.listener), 0);
    assert_true(test_readable(*state, 0));
    assert_int_equal(viommu_memory_process(*state), 0);
    assert_string_equal(one.log, "b");
    assert_string_equal(two.log, "b");
    assert_true(test_present(*state, 0));
}

static void test_destroy_with_pending_batches(void **state)
{
    struct viommu_memory *memory;
    struct recorder recorder;
    unsigned done = 0;
    struct viommu_memory_batch *batch;

    (void)state;
    assert_int_equal(viommu_memory_create(&memory), 0);
    assert_int_equal(test_add_one(memory, 0, 1, 0), 0);
    batch = test_begin(memory);
    test_remove(batch, 0, 1);
    assert_true(epoch_enter(memory_epoch(memory)));
    assert_int_equal(viommu_memory_batch_commit(batch, count_done, &done), VIOMMU_PENDING);
    epoch_leave(memory_epoch(memory));
    listen(&recorder, memory, VIOMMU_PENDING);
    assert_int_equal(test_add_one(memory, 0, 1, 0), VIOMMU_PENDING);
    assert_int_equal(test_add_one(memory, PAGE, 1, 0), VIOMMU_PENDING);
    viommu_memory_destroy(memory); /* one is finished, one waits, one has not begun */
    assert_int_equal(done, 0);
}

static void test_no_memory_for_a_commit(void **state)
{
    struct viommu_memory_listener *none;
    struct recorder recorder;
    unsigned long n;
    int error = -ENOMEM;

    assert_int_equal(test_add_one(*state, 0, 1, 0), 0);
    listen(&recorder, *state, 0);
    for (n = 1; error; n++) {
        struct viommu_memory_batch *batch = test_begin(*state);

        test_remove(batch, 0, 1);
        test_add(batch, PAGE, 1, 0);
        base_alloc_fail_at(n);
        error = viommu_memory_batch_commit(batch, NULL, NULL);
        base_alloc_fail_at(0);
        assert_true(error == 0 || error == -ENOMEM);
        assert_string_equal(recorder.log, error ? "" : "ba");
        assert_int_equal(test_present(*state, 0), error != 0);
    }
    assert_true(n > 3); /* it did fail, at more than one place */
    base_alloc_fail_at(1);
    assert_int_equal(viommu_memory_listener_add(*state, &recorder_ops, &recorder, &none), -ENOMEM);
    base_alloc_fail_at(0);
}

/* A listener that tries what it may not, and what it may. */
struct trespasser {
    struct viommu_memory *memory;
    struct viommu_memory *other;
    struct viommu_memory_listener *self;
    int results[5];
    int other_process;
};

static void trespass(struct trespasser *trespasser)
{
    static const struct viommu_memory_listener_ops nothing;
    struct viommu_memory_listener *listener;
    struct viommu_memory_batch *batch;

    trespasser->results[0] = viommu_memory_batch_begin(trespasser->memory, &batch);
    if (!trespasser->results[0]) {
        trespasser->results[1] = viommu_memory_batch_commit(batch, NULL, NULL);
    }
    trespasser->results[2] = viommu_memory_listener_remove(trespasser->self);
    trespasser->results[3] =
        viommu_memory_listener_add(trespasser->memory, &nothing, NULL, &listener);
    trespasser->results[4] = viommu_memory_process(trespasser->memory);
    trespasser->other_process = viommu_memory_process(trespasser->other);
}

static int trespass_changing(void *opaque, const struct viommu_memory_change *change)
{
    (void)change;
    trespass(opaque);
    return 0;
}

static void trespass_changed(void *opaque, const struct viommu_memory_change *change)
{
    (void)change;
    trespass(opaque);
}

static void check_trespasser(struct trespasser *trespasser)
{
    assert_int_equal(trespasser->results[0], 0);
    assert_int_equal(trespasser->results[1], -EDEADLK);
    assert_int_equal(trespasser->results[2], -EDEADLK);
    assert_int_equal(trespasser->results[3], -EDEADLK);
    assert_int_equal(trespasser->results[4], VIOMMU_PENDING);
    assert_int_equal(trespasser->other_process, 0);
    memset(trespasser->results, 0, sizeof(trespasser->results));
}

static void test_refused_inside_a_listener(void **state)
{
    static const struct viommu_memory_listener_ops before = {.changing = trespass_changing};
    static const struct viommu_memory_listener_ops after = {.changed = trespass_changed};
    struct trespasser trespasser = {.memory = *state};

    assert_int_equal(viommu_memory_create(&trespasser.other), 0);
    assert_int_equal(viommu_memory_listener_add(*state, &before, &trespasser, &trespasser.self), 0);
    assert_int_equal(test_add_one(*state, 0, 1, 0), 0);
    check_trespasser(&trespasser);
    assert_int_equal(viommu_memory_listener_remove(trespasser.self), 0);
    assert_int_equal(viommu_memory_listener_add(*state, &after, &trespasser, &trespasser.self), 0);
    assert_int_equal(test_add_one(*state, PAGE, 1, 0), 0);
    check_trespasser(&trespasser);
    assert_true(test_finish(*state));
    viommu_memory_destroy(trespasser.other);
}

/* A done function that makes use of all it may do. */
struct sequel {
    struct viommu_memory *memory;
    struct recorder recorder;
    unsigned left; /* how often it goes on */
    unsigned calls;
    unsigned wrong;
};

static void go_on(void *opaque)
{
    struct sequel *sequel = opaque;
    struct viommu_memory_batch *batch;
    struct viommu_memory_slot slot = test_slot((1 + sequel->calls) * PAGE, 1, 0);

    sequel->calls++;
    sequel->wrong += viommu_memory_process(sequel->memory) != VIOMMU_PENDING;
    if (sequel->left == 0) {
        sequel->wrong += viommu_memory_listener_remove(sequel->recorder.listener) != 0;
        return;
    }
    sequel->left--;
    sequel->wrong += viommu_memory_batch_begin(sequel->memory, &batch) != 0;
    sequel->wrong += viommu_memory_batch_add(batch, &slot) != 0;
    sequel->wrong += viommu_memory_batch_commit(batch, go_on, sequel) != VIOMMU_PENDING;
}

static void test_done_may_commit(void **state)
{
    struct sequel sequel = {.memory = *state, .left = 10};
    struct viommu_memory_batch *batch = test_begin(*state);

    listen(&sequel.recorder, *state, VIOMMU_PENDING);
    test_add(batch, 0, 1, 0);
    assert_int_equal(viommu_memory_batch_commit(batch, go_on, &sequel), VIOMMU_PENDING);
    sequel.recorder.answer = 0;
    assert_int_equal(
        viommu_memory_listener_complete(sequel.recorder.listener, sequel.recorder.token), 0);
    assert_true(test_finish(*state));
    assert_int_equal(sequel.calls, 11);
    assert_int_equal(sequel.wrong, 0);
    assert_string_equal(sequel.recorder.log, "bababababababababababa");
    assert_true(test_present(*state, 10 * PAGE));
}

static void destroy_memory(void *opaque)
{
    viommu_memory_destroy(opaque);
}

static void test_done_may_destroy(void **state)
{
    struct viommu_memory *memory;
    struct viommu_memory_batch *batch;

    (void)state;
    assert_int_equal(viommu_memory_create(&memory), 0);
    assert_int_equal(test_add_one(memory, 0, 1, 0), 0);
    batch = test_begin(memory);
    test_remove(batch, 0, 1);
    assert_true(epoch_enter(memory_epoch(memory)));
    assert_int_equal(viommu_memory_batch_commit(batch, destroy_memory, memory), VIOMMU_PENDING);
    epoch_leave(memory_epoch(memory));
    assert_int_equal(viommu_memory_process(memory), 0);
}

/* A listener whose call waits, and a thread that is in it. */
struct blocker {
    struct viommu_memory *memory;
    struct viommu_memory_listener *listener;
    pthread_barrier_t inside;
    pthread_barrier_t leave;
    _Atomic bool left;
    _Atomic bool removed;
    _Atomic unsigned wrong;
    int result; /* of the commit */
    unsigned done;
};

static int block_changing(void *opaque, const struct viommu_memory_change *change)
{
    struct blocker *blocker = opaque;

    (void)change;
    pthread_barrier_wait(&blocker->inside);
    pthread_barrier_wait(&blocker->leave);
    atomic_store(&blocker->left, true);
    return 0;
}

static const struct viommu_memory_listener_ops blocker_ops = {.changing = block_changing};

static void *commit_and_block(void *arg)
{
    struct blocker *blocker = arg;
    struct viommu_memory_batch *batch;
    struct viommu_memory_slot slot = test_slot(0, 1, 0);

    if (viommu_memory_batch_begin(blocker->memory, &batch) ||
        viommu_memory_batch_add(batch, &slot)) {
        atomic_fetch_add(&blocker->wrong, 1);
        return NULL;
    }
    blocker->result = viommu_memory_batch_commit(batch, NULL, NULL);
    return NULL;
}

static pthread_t blocker_start(struct blocker *blocker, struct viommu_memory *memory)
{
    pthread_t thread;

    blocker->memory = memory;
    pthread_barrier_init(&blocker->inside, NULL, 2);
    pthread_barrier_init(&blocker->leave, NULL, 2);
    assert_int_equal(
        viommu_memory_listener_add(memory, &blocker_ops, blocker, &blocker->listener), 0);
    assert_int_equal(pthread_create(&thread, NULL, commit_and_block, blocker), 0);
    pthread_barrier_wait(&blocker->inside);
    return thread;
}

static void blocker_end(struct blocker *blocker, pthread_t thread)
{
    pthread_barrier_wait(&blocker->leave);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&blocker->inside);
    pthread_barrier_destroy(&blocker->leave);
    assert_int_equal(atomic_load(&blocker->wrong), 0);
}

static void *remove_blocker(void *arg)
{
    struct blocker *blocker = arg;

    atomic_fetch_add(&blocker->wrong, viommu_memory_listener_remove(blocker->listener) != 0);
    atomic_fetch_add(&blocker->wrong, !atomic_load(&blocker->left));
    atomic_store(&blocker->removed, true);
    return NULL;
}

static void test_removal_waits_for_the_call(void **state)
{
    static struct blocker blocker;
    struct recorder bystander;
    pthread_t committer = blocker_start(&blocker, *state);
    pthread_t remover;

    listen(&bystander, *state, 0); /* who is not in a call is removed at once */
    assert_int_equal(viommu_memory_listener_remove(bystander.listener), 0);
    assert_int_equal(pthread_create(&remover, NULL, remove_blocker, &blocker), 0);
    usleep(20000);
    assert_false(atomic_load(&blocker.removed));
    blocker_end(&blocker, committer);
    pthread_join(remover, NULL);
    assert_true(atomic_load(&blocker.removed));
    assert_int_equal(atomic_load(&blocker.wrong), 0);
    assert_int_equal(blocker.result, 0);
    assert_true(test_present(*state, 0));
}

/* While one thread is in a listener, others come and go; what they left is done, and told of. */
static void test_work_that_met_a_driver(void **state)
{
    static struct blocker blocker;
    pthread_t committer = blocker_start(&blocker, *state);
    struct viommu_memory_batch *batch = test_begin(*state);

    test_add(batch, PAGE, 1, 0);
    assert_int_equal(viommu_memory_batch_commit(batch, count_done, &blocker.done), VIOMMU_PENDING);
    assert_int_equal(test_add_one(*state, PAGE, 1, 0), -EEXIST);
    assert_int_equal(viommu_memory_process(*state), VIOMMU_PENDING);
    assert_false(test_present(*state, 0));
    blocker_end(&blocker, committer);
    assert_int_equal(blocker.result, 0);
    assert_true(test_readable(*state, 5000));

    pthread_barrier_init(&blocker.inside, NULL, 1); /* it need not block any more */
    pthread_barrier_init(&blocker.leave, NULL, 1);
    assert_true(test_finish(*state));
    assert_int_equal(blocker.done, 1);
    assert_true(test_present(*state, PAGE));
    pthread_barrier_destroy(&blocker.inside);
    pthread_barrier_destroy(&blocker.leave);
}

/* Who was told "pending" because of a driver hears when there is nothing pending any more. */
static void test_process_that_met_a_driver(void **state)
{
    static struct blocker blocker;
    pthread_t committer = blocker_start(&blocker, *state);

    assert_int_equal(viommu_memory_process(*state), VIOMMU_PENDING);
    blocker_end(&blocker, committer);
    assert_int_equal(blocker.result, 0);
    assert_true(test_readable(*state, 5000));
    assert_int_equal(viommu_memory_process(*state), 0);
    assert_false(test_readable(*state, 5));
}

/* A listener whose answer comes from another thread before its call has returned. */
struct hasty {
    struct viommu_memory_listener *listener;
    uint64_t token;
    int first;
    int second;
};

static void *complete_twice(void *arg)
{
    struct hasty *hasty = arg;

    hasty->first = viommu_memory_listener_complete(hasty->listener, hasty->token);
    hasty->second = viommu_memory_listener_complete(hasty->listener, hasty->token);
    return NULL;
}

static int answer_early(void *opaque, const struct viommu_memory_change *change)
{
    struct hasty *hasty = opaque;
    pthread_t thread;

    hasty->token = change->token;
    if (pthread_create(&thread, NULL, complete_twice, hasty)) {
        return 0;
    }
    pthread_join(thread, NULL); /* would not end if we were under a lock */
    return VIOMMU_PENDING;
}

static void test_answer_before_the_call_returns(void **state)
{
    static const struct viommu_memory_listener_ops ops = {.changing = answer_early};
    struct hasty hasty = {.first = 1};

    assert_int_equal(viommu_memory_listener_add(*state, &ops, &hasty, &hasty.listener), 0);
    assert_int_equal(test_add_one(*state, 0, 1, 0), 0);
    assert_int_equal(hasty.first, 0);
    assert_int_equal(hasty.second, -ENOENT);
    assert_true(test_present(*state, 0));
}

int main(void)
{
#define COMMIT_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        COMMIT_TEST(test_listener_hears_before_and_after),
        COMMIT_TEST(test_refused_batch_is_not_told),
        COMMIT_TEST(test_listener_without_functions),
        COMMIT_TEST(test_answer_by_token),
        COMMIT_TEST(test_section_holds_up_removal),
        COMMIT_TEST(test_section_does_not_hold_up_addition),
        COMMIT_TEST(test_batches_are_judged_by_what_was_accepted),
        COMMIT_TEST(test_done_is_called_by_process_only),
        COMMIT_TEST(test_new_listener_hears_of_later_batches),
        COMMIT_TEST(test_removed_listener_is_not_waited_for),
        cmocka_unit_test(test_destroy_with_pending_batches),
        COMMIT_TEST(test_no_memory_for_a_commit),
        COMMIT_TEST(test_refused_inside_a_listener),
        COMMIT_TEST(test_done_may_commit),
        cmocka_unit_test(test_done_may_destroy),
        COMMIT_TEST(test_removal_waits_for_the_call),
        COMMIT_TEST(test_work_that_met_a_driver),
        COMMIT_TEST(test_process_that_met_a_driver),
        COMMIT_TEST(test_answer_before_the_call_returns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
