/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * init.c - what every /init of the test guest does.  See init.h.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "kmsg.h"
#include "report.h"

enum {
    ANSWER_TIMEOUT_MS = 20000,
    ASKED_TIMEOUT_MS = 60000,
    LOG_LINES_ON_FAILURE = 60,
};

static char command_line[2048];

bool init_read_file(const char *path, char *to, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0) {
        return false;
    }
    n = read(fd, to, size - 1);
    close(fd);
    if (n < 0) {
        return false;
    }
    to[n] = '\0';
    to[strcspn(to, "\n")] = '\0';
    return true;
}

/* Is this word on the command line?  Returns what follows it, or NULL. */
const char *init_word(const char *name)
{
    const char *p = command_line;
    size_t len = strlen(name);

    while ((p = strstr(p, name)) != NULL) {
        if (p == command_line || p[-1] == ' ') {
            return p + len;
        }
        p += len;
    }
    return NULL;
}

unsigned init_number(const char *name, unsigned otherwise)
{
    const char *p = init_word(name);

    return p ? (unsigned)strtoul(p, NULL, 0) : otherwise;
}

void init_set_up(void)
{
    struct utsname u;

    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    if (mount("proc", "/proc", "proc", 0, NULL) || mount("sysfs", "/sys", "sysfs", 0, NULL) ||
        (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY)) {
        check(false, "mount /proc, /sys and /dev");
    }
    init_read_file("/proc/cmdline", command_line, sizeof(command_line));
    if (uname(&u) == 0) {
        note("guest: kernel %s, %ld CPUs", u.release, sysconf(_SC_NPROCESSORS_ONLN));
    }
}

void init_load_modules(void)
{
    FILE *list = fopen("/modules.order", "re");
    char path[256];

    while (list && fgets(path, sizeof(path), list)) {
        int fd;

        path[strcspn(path, "\n")] = '\0';
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)) {
            check(false, "load %s", path);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    if (list) {
        fclose(list);
    } else {
        check(false, "open /modules.order");
    }
}

/* A line from the harness outside, or nothing. */
static void read_answer(char *answer, size_t size, int timeout_ms)
{
    struct pollfd p = {.fd = 0, .events = POLLIN};

    answer[0] = '\0';
    if (poll(&p, 1, timeout_ms) == 1) {
        ssize_t n = read(0, answer, size - 1);

        answer[n > 0 ? n : 0] = '\0';
    }
}

/* What comes next?  The harness alone remembers across a reboot. */
static void ask_for_the_end(char *answer, size_t size)
{
    printf("guest: reboot, reset or off?\n");
    fflush(stdout);
    read_answer(answer, size, ANSWER_TIMEOUT_MS);
}

bool init_ask(const char *what)
{
    char answer[128];

    printf("guest: ask: %s\n", what);
    fflush(stdout);
    read_answer(answer, sizeof(answer), ASKED_TIMEOUT_MS);
    answer[strcspn(answer, "\n")] = '\0';
    if (strcmp(answer, "done") != 0) {
        report_detail("the answer to \"%s\" is \"%s\"", what, answer);
        return check(false, "outside, it was done");
    }
    return true;
}

static void print_result(void)
{
    if (report_failures()) {
        kmsg_show_last(LOG_LINES_ON_FAILURE);
        printf("guest: FAILED %u\n", report_failures());
    } else {
        printf("guest: ok\n");
    }
    fflush(stdout);
}

void init_finish(void)
{
    char answer[32] = "off";

    print_result();
    if (init_word("viommu.reboot")) {
        ask_for_the_end(answer, sizeof(answer));
    }
    sync();
    if (strncmp(answer, "reset", 5) == 0) {
        int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);

        if (fd >= 0 && write(fd, "b", 1) == 1) {
            pause();
        }
    }
    reboot(strncmp(answer, "re", 2) == 0 ? RB_AUTOBOOT : RB_POWER_OFF);
    for (;;) {
        pause();
    }
}
