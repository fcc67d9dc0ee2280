/* SPDX-License-Identifier: BSD-2-Clause */
/* Taking a service over; see takeover.h. */
#include "takeover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "handover/channel.h"
#include "kind.h"
#include "log.h"
#include "options.h"
#include "service.h"
#include "state.h"

enum {
    /* The other one may have to wait for its devices, and then has much to send. */
    STATE_MS = HANDOVER_PATIENCE_MS + 15000,
    WORD_MS = 1000,
};

static const char *explain(int error)
{
    return error == -EPERM             ? "it is of another user"
           : error == -ECONNREFUSED    ? "nobody is there"
           : error == -EPROTONOSUPPORT ? "it is of another version"
           : error == -EPROTO          ? "it does not speak as a server that is handed over does"
           : error == -ECONNRESET      ? "it hung up"
           : error == -ETIMEDOUT       ? "it takes too long"
           : error == -ECANCELED       ? "it keeps what it has"
           : error == -ENAMETOOLONG    ? "the name of a socket has 107 bytes at most"
           : error == -EMFILE          ? "this process may not have so many descriptors"
                                       : strerror(-error);
}

/* All that another process has open has to have room here. */
static void raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Names on our own command line stay good when the working folder becomes the other server's. */
static int keep_name(const char **name)
{
    char *longer;
    int folder;

    if (!*name || **name == '/') {
        return 0;
    }
    folder = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        return -errno;
    }
    if (asprintf(&longer, "/proc/self/fd/%d/%s", folder, *name) < 0) {
        close(folder);
        return -ENOMEM;
    }
    *name = longer;
    return 0;
}

/* The next message, which has to be this one. A refusal is told. */
static int expect(int fd, enum handover_what what, struct handover_message *message,
                  uint64_t deadline)
{
    int ret = handover_receive(fd, message, deadline);

    if (ret == 0 && message->what == HANDOVER_REFUSAL) {
        server_log("the other server goes on: %s", (const char *)message->data);
        ret = -ECANCELED;
    } else if (ret == 0 && message->what != what) {
        ret = -EPROTO;
    }
    if (ret < 0) {
        handover_message_fini(message);
    }
    return ret;
}

static int ask_for_state(int fd, struct handover_message *message)
{
    int ret = handover_send(fd, HANDOVER_HELLO, NULL, 0, NULL, handover_deadline(WORD_MS));

    return ret < 0 ? ret : expect(fd, HANDOVER_STATE, message, handover_deadline(STATE_MS));
}

/* Everything is loaded. Whether we are to serve is the other one's to say, however long it
   takes. */
static int ask_for_word(int fd)
{
    struct handover_message message;
    int ret = handover_send(fd, HANDOVER_READY, NULL, 0, NULL, handover_deadline(WORD_MS));

    if (ret == 0) {
        ret = expect(fd, HANDOVER_GO, &message, HANDOVER_FOREVER);
    }
    if (ret == 0) {
        handover_message_fini(&message);
    }
    return ret;
}

static int load(int fd, struct service *service, struct serve_options *options,
                struct handover_message *message)
{
    static const char refusal[] = "it could not load the state";
    int ret = service_load(service, options, message->data, message->size, &message->fds);

    if (ret < 0) {
        handover_send(fd, HANDOVER_REFUSAL, refusal, sizeof(refusal), NULL,
                      handover_deadline(WORD_MS));
    }
    return ret;
}

/* From here on it is ours. What fails now is told, and does not end it. */
static void begin(struct service *service)
{
    int ret = loop_stop_on_signals(&service->loop);

    service_trace(service);
    if (ret == 0) {
        ret = service_resume(service);
    }
    if (ret < 0) {
        server_log("not all could be resumed: %s", strerror(-ret));
    }
    handover_open(&service->handover, service);
}

int takeover_run(struct service *service, struct serve_options *options)
{
    const char *where = options->takeover;
    struct handover_message message = {.data = NULL};
    int fd = handover_connect(where);
    int ret = fd;

    raise_limit();
    if (ret >= 0) {
        ret = keep_name(&options->handover);
    }
    if (ret == 0) {
        ret = keep_name(&options->trace);
    }
    if (ret == 0) {
        ret = ask_for_state(fd, &message);
    }
    if (ret == 0) {
        ret = load(fd, service, options, &message);
    }
    if (ret == 0) {
        ret = ask_for_word(fd);
    }
    handover_message_fini(&message);
    if (fd >= 0) {
        close(fd);
    }
    if (ret < 0) {
        server_log("cannot take over from the server at %s: %s", where, explain(ret));
        return ret;
    }
    begin(service);
    return 0;
}
