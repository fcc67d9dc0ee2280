/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * testpmd as a child: see far.h. Its commands wait in a pipe before it is there to read them.
 */
#include "far.h"

#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { START_SECONDS = 60 };

/* A packet that finds no room waits for it, 20 s and more, and is not dropped. */
static const char commands[] = "set fwd io retry\nset burst tx delay 20 retry 1000000\nstart\n";

void far_init(struct far *far, const char *program, const char *directory, const char *log)
{
    memset(far, 0, sizeof(*far));
    far->program = program;
    far->log = log;
    if ((size_t)snprintf(far->socket, sizeof(far->socket), "%s/vhost.sock", directory) >=
        sizeof(far->socket)) {
        guest_die("%s: too long a path for a socket", directory);
    }
}

/* "(0,1)@(CPUs)": two threads, on whatever CPUs this process may run. */
static void format_cpus(char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "(0,1)@(");
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set)) {
        guest_die("sched_getaffinity: %s", strerror(errno));
    }
    for (int cpu = 0; cpu < CPU_SETSIZE && used < size; cpu++) {
        if (CPU_ISSET(cpu, &set)) {
            used += (size_t)snprintf(text + used, size - used, "%d,", cpu);
        }
    }
    snprintf(text + used - 1, size - used + 1, ")");
}

_Noreturn static void run(const struct far *far, int console)
{
    char cpus[4096];
    char device[256];
    int log = open(far->log ? far->log : "/dev/null", O_WRONLY | O_CREAT | O_APPEND, 0666);

    format_cpus(cpus, sizeof(cpus));
    snprintf(device, sizeof(device), "net_vhost0,iface=%s,queues=1,iommu-support=1", far->socket);
    if (log < 0 || dup2(console, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0 ||
        prctl(PR_SET_PDEATHSIG, SIGKILL)) {
        _exit(126);
    }
    execl(far->program, far->program, "--no-huge", "--no-shconf", "-m", "256", "--no-pci",
          "--no-telemetry", "--lcores", cpus, "--vdev", device, "--", "-i",
          "--total-num-mbufs=2048", "--no-lsc-interrupt", "--disable-link-check", (char *)NULL);
    _exit(127);
}

static int try_to_connect(const struct far *far)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path, far->socket, sizeof(address.sun_path));
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        close(fd);
        fd = -1;
    }
    return fd;
}

int far_start(struct far *far)
{
    int pipe_fds[2];

    unlink(far->socket); /* of one that was killed: it would refuse to listen there */
    if (pipe2(pipe_fds, O_CLOEXEC)) {
        guest_die("pipe: %s", strerror(errno));
    }
    far->console = pipe_fds[1];
    if (write(far->console, commands, sizeof(commands) - 1) != sizeof(commands) - 1) {
        guest_die("pipe: %s", strerror(errno));
    }
    far->pid = fork();
    if (far->pid < 0) {
        guest_die("fork: %s", strerror(errno));
    }
    if (!far->pid) {
        run(far, pipe_fds[0]);
    }
    close(pipe_fds[0]);
    for (unsigned i = 0; i < START_SECONDS * 100; i++) {
        int fd = try_to_connect(far);

        if (fd >= 0) {
            return fd;
        }
        if (waitpid(far->pid, NULL, WNOHANG) == far->pid) {
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    guest_die("%s does not listen%s%s", far->program, far->log ? "; see " : "",
              far->log ? far->log : "");
}

void far_stop(struct far *far)
{
    int status;

    if (kill(far->pid, SIGSTOP) || waitpid(far->pid, &status, WUNTRACED) != far->pid ||
        !WIFSTOPPED(status)) {
        guest_die("%s does not stop", far->program);
    }
}

void far_kill(struct far *far)
{
    if (far->pid) {
        kill(far->pid, SIGKILL);
        waitpid(far->pid, NULL, 0);
        close(far->console);
        unlink(far->socket);
        far->pid = 0;
    }
}
