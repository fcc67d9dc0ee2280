/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of what a server and its successor say, over a socket pair: messages with and without
 * descriptors, a peer that falls silent, and one that says what nobody may.
 */
#include "handover/channel.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int pair[2];
static unsigned fds_at_start;

static unsigned open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    assert_non_null(dir);
    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n;
}

static int setup(void **state)
{
    (void)state;
    fds_at_start = open_fds();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(pair[0]);
    close(pair[1]);
    assert_int_equal(open_fds(), fds_at_start);
    return 0;
}

/* Where nothing comes. */
static uint64_t soon(void)
{
    return handover_deadline(50);
}

/* Where something is there, or comes. */
static uint64_t in_time(void)
{
    return handover_deadline(30000);
}

static void words(void **state)
{
    struct handover_message message;

    (void)state;
    assert_int_equal(handover_send(pair[0], HANDOVER_HELLO, NULL, 0, NULL, in_time()), 0);
    assert_int_equal(handover_send(pair[0], HANDOVER_REFUSAL, "no", 2, NULL, in_time()), 0);
    assert_int_equal(handover_receive(pair[1], &message, in_time()), 0);
    assert_int_equal(message.what, HANDOVER_HELLO);
    assert_int_equal(message.size, 0);
    handover_message_fini(&message);
    assert_int_equal(handover_receive(pair[1], &message, in_time()), 0);
    assert_int_equal(message.what, HANDOVER_REFUSAL);
    assert_string_equal(message.data, "no"); /* a text, though its NUL did not travel */
    handover_message_fini(&message);
}

/* So many duplicates of one file. */
static struct handover_fds many(unsigned count)
{
    struct handover_fds fds = {.fds = malloc(count * sizeof(int)), .count = count, .room = count};
    FILE *file = tmpfile();

    assert_non_null(file);
    for (unsigned i = 0; i < count; i++) {
        fds.fds[i] = dup(fileno(file));
        assert_true(fds.fds[i] >= 0);
    }
    fclose(file);
    return fds;
}

static void carry(unsigned count)
{
    struct handover_fds fds = many(count);
    struct handover_message message;
    struct stat first, last;

    assert_int_equal(handover_send(pair[0], HANDOVER_STATE, "state", 5, &fds, in_time()), 0);
    assert_int_equal(handover_receive(pair[1], &message, in_time()), 0);
    assert_int_equal(message.size, 5);
    assert_memory_equal(message.data, "state", 5);
    assert_int_equal(message.fds.count, count);
    if (count > 0) {
        assert_int_equal(fstat(fds.fds[0], &first), 0);
        assert_int_equal(fstat(message.fds.fds[count - 1], &last), 0);
        assert_int_equal(first.st_ino, last.st_ino);
    }
    handover_message_fini(&message);
    handover_fds_close(&fds);
}

static void descriptors(void **state)
{
    static const unsigned counts[] = {0, 1, 252, 253, 254, 400};

    (void)state;
    for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        carry(counts[i]);
    }
}

static void silence(void **state)
{
    struct handover_message message;

    (void)state;
    assert_int_equal(handover_receive(pair[1], &message, soon()), -ETIMEDOUT);
    assert_int_equal(send(pair[0], "viommu", 6, 0), 6);
    assert_int_equal(handover_receive(pair[1], &message, soon()), -ETIMEDOUT);
}

static void nobody_reads(void **state)
{
    size_t size = 64 << 20;
    char *data = calloc(1, size);

    (void)state;
    assert_non_null(data);
    assert_int_equal(handover_send(pair[0], HANDOVER_STATE, data, size, NULL, soon()), -ETIMEDOUT);
    free(data);
}

static void peer_goes(void **state)
{
    struct handover_message message;

    (void)state;
    close(pair[0]);
    assert_int_equal(handover_receive(pair[1], &message, HANDOVER_FOREVER), -ECONNRESET);
    assert_int_equal(handover_send(pair[1], HANDOVER_READY, NULL, 0, NULL, in_time()), -EPIPE);
    pair[0] = dup(pair[1]);
}

struct raw_header {
    char magic[8];
    uint32_t version, what;
    uint64_t size;
    uint32_t fds, zero;
};

static int receive_raw(struct raw_header header, size_t bytes, const struct handover_fds *fds)
{
    static char data[1024];
    struct handover_message message;
    int ret;

    assert_int_equal(send(pair[0], &header, sizeof(header), 0), sizeof(header));
    if (bytes > 0) {
        assert_int_equal(send(pair[0], data, bytes, 0), bytes);
    }
    if (fds) {
        /* What the real one sends after its header. */
        union {
            char room[CMSG_SPACE(64 * sizeof(int))];
            struct cmsghdr align;
        } control = {.room = {0}};
        struct iovec iov = {.iov_base = (char[]){'+'}, .iov_len = 1};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room};
        struct cmsghdr *cmsg;

        msg.msg_controllen = CMSG_SPACE(fds->count * sizeof(int));
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(fds->count * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds->fds, fds->count * sizeof(int));
        assert_int_equal(sendmsg(pair[0], &msg, 0), 1);
    }
    ret = handover_receive(pair[1], &message, in_time());
    if (ret == 0) {
        handover_message_fini(&message);
    }
    while (recv(pair[1], data, sizeof(data), MSG_DONTWAIT) > 0) {
    }
    return ret;
}

static void noise(void **state)
{
    const struct raw_header good = {"viommuHO", HANDOVER_VERSION, HANDOVER_STATE, 4, 0, 0};
    struct raw_header header = good;
    struct handover_fds fds = many(2);

    (void)state;
    assert_int_equal(receive_raw(good, 4, NULL), 0);
    header.magic[7] = 'X';
    assert_int_equal(receive_raw(header, 4, NULL), -EPROTO);
    header = good;
    header.version = HANDOVER_VERSION + 1;
    assert_int_equal(receive_raw(header, 4, NULL), -EPROTONOSUPPORT);
    header = good;
    header.what = 0;
    assert_int_equal(receive_raw(header, 4, NULL), -EPROTO);
    header.what = HANDOVER_GO + 1;
    assert_int_equal(receive_raw(header, 4, NULL), -EPROTO);
    header = good;
    header.zero = 1;
    assert_int_equal(receive_raw(header, 4, NULL), -EPROTO);
    header = good;
    header.size = HANDOVER_SIZE_MAX + 1;
    assert_int_equal(receive_raw(header, 4, NULL), -EPROTO);
    header = (struct raw_header){
        "viommuHO", HANDOVER_VERSION, HANDOVER_REFUSAL, HANDOVER_TEXT_MAX + 1, 0, 0};
    assert_int_equal(receive_raw(header, 4, NULL), -EPROTO);
    header = (struct raw_header){"viommuHO", HANDOVER_VERSION, HANDOVER_READY, 0, 1, 0};
    assert_int_equal(receive_raw(header, 0, NULL), -EPROTO);
    header = good;
    header.fds = HANDOVER_FDS_MAX + 1;
    assert_int_equal(receive_raw(header, 4, NULL), -EPROTO);
    /* Fewer, and more, than were said; and where none may be. */
    header.fds = 3;
    assert_int_equal(receive_raw(header, 4, &fds), -EPROTO);
    header.fds = 1;
    assert_int_equal(receive_raw(header, 4, &fds), -EPROTO);
    header.fds = 2;
    assert_int_equal(receive_raw(header, 4, &fds), 0);
    header.size = 5;
    assert_int_equal(receive_raw(header, 4, &fds), -EPROTO);
    handover_fds_close(&fds);
}

static void listening(void **state)
{
    char folder[] = "/tmp/viommu-handover-test-XXXXXX", path[64];
    struct stat st;
    int listener, client, server;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/socket", folder);
    assert_int_equal(handover_connect(path), -ENOENT);
    listener = handover_listen(path);
    assert_true(listener >= 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(handover_listen(path), -EADDRINUSE);
    client = handover_connect(path);
    assert_true(client >= 0);
    server = accept(listener, NULL, NULL);
    if (server < 0) { /* the look for somebody there was first in the queue */
        server = accept(listener, NULL, NULL);
    }
    assert_true(server >= 0);
    assert_true(handover_trusts(server));
    assert_true(handover_trusts(client));
    close(client);
    close(server);
    close(listener);
    assert_int_equal(handover_connect(path), -ECONNREFUSED);
    unlink(path);
    rmdir(folder);
}

static void places(void **state)
{
    struct handover_fds fds = {.count = 0};
    struct save_writer writer;
    struct save_reader reader;
    struct save_section section;
    void *data;
    size_t size;

    (void)state;
    save_writer_init(&writer, SAVE_SERVER);
    save_begin(&writer, 1, 0, 1, 0);
    handover_put_fd(&writer, &fds, 100);
    handover_put_fd(&writer, &fds, -1);
    handover_put_fd(&writer, &fds, 101);
    handover_put_fd(&writer, &fds, 100);
    handover_put_fd(&writer, &fds, 101);
    handover_put_data(&writer, "abc", 3);
    save_end(&writer);
    assert_int_equal(fds.count, 2);
    assert_int_equal(save_finish(&writer, &data, &size), 0);
    assert_int_equal(save_open(&reader, SAVE_SERVER, data, size), 0);
    assert_true(save_next(&reader, &section));
    assert_int_equal(handover_look_fd(&section, &fds), 100);
    assert_int_equal(handover_take_fd(&section, &fds), -1);
    assert_int_equal(section.error, 0);
    assert_int_equal(handover_take_fd(&section, &fds), 101);
    assert_int_equal(handover_take_fd(&section, &fds), 100);
    assert_int_equal(section.error, 0);
    assert_int_equal(handover_take_fd(&section, &fds), -1); /* it is taken */
    assert_int_equal(section.error, -EBADMSG);
    section.error = 0;
    assert_memory_equal(handover_get_data(&section, 3, &size), "abc", 3);
    assert_int_equal(size, 3);
    assert_int_equal(save_close(&section), 0);
    save_free(data);
    handover_fds_close(&fds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(words, setup, teardown),
        cmocka_unit_test_setup_teardown(descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(silence, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(peer_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(noise, setup, teardown),
        cmocka_unit_test_setup_teardown(listening, setup, teardown),
        cmocka_unit_test(places),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
