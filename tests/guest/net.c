/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * net.c - see net.h.
 */
#include "net.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "init.h"
#include "report.h"

enum {
    ETHERTYPE = 0x88b5,     /* for experiments */
    HEADER = 14,
    FRAME_MIN = 60,
    FRAME_MAX = 1514,
    IN_FLIGHT = 128,
    QUIET_MS = 60000,       /* then no more will come */
    AGAIN_MS = 500,         /* then what is missing is sent again */
    WAIT_SECONDS = 20,
    SOCKET_BUFFER = 8 << 20,
};

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- the interface ---- */

/* The PCI function of an interface: .../0000:00:11.0/virtio1 is what its "device" leads to. */
static bool find_bdf(const char *name, char *bdf, size_t size)
{
    char path[96], *real, *slash;
    bool found = false;

    snprintf(path, sizeof(path), "/sys/class/net/%s/device", name);
    real = realpath(path, NULL);
    slash = real ? strrchr(real, '/') : NULL;
    if (slash) {
        *slash = '\0';
        slash = strrchr(real, '/');
        found = slash && strlen(slash + 1) < size;
    }
    if (found) {
        strcpy(bdf, slash + 1);
    }
    free(real);
    return found;
}

/* The first interface that is a PCI device's. */
static bool find(struct net *net)
{
    DIR *dir = opendir("/sys/class/net");
    struct dirent *entry;
    bool found = false;

    while (dir && !found && (entry = readdir(dir))) {
        if (entry->d_name[0] != '.' && strlen(entry->d_name) < sizeof(net->name) &&
            find_bdf(entry->d_name, net->bdf, sizeof(net->bdf))) {
            strcpy(net->name, entry->d_name);
            found = true;
        }
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

static bool bring_up(struct net *net)
{
    struct ifreq request = {0};

    strcpy(request.ifr_name, net->name);
    if (ioctl(net->fd, SIOCGIFHWADDR, &request)) {
        return false;
    }
    memcpy(net->mac, request.ifr_hwaddr.sa_data, sizeof(net->mac));
    if (ioctl(net->fd, SIOCGIFINDEX, &request)) {
        return false;
    }
    net->index = request.ifr_ifindex;
    if (ioctl(net->fd, SIOCGIFFLAGS, &request)) {
        return false;
    }
    request.ifr_flags |= IFF_UP;
    return ioctl(net->fd, SIOCSIFFLAGS, &request) == 0;
}

static bool open_socket(struct net *net)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE)};
    int size = SOCKET_BUFFER, on = 1;

    net->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETHERTYPE));
    if (net->fd < 0 || !bring_up(net)) {
        return false;
    }
    /* The kernel's queue in front of the driver's drops frames that have waited for long. */
    if (setsockopt(net->fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on))) {
        return false;
    }
    setsockopt(net->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    address.sll_ifindex = net->index;
    return bind(net->fd, (const struct sockaddr *)&address, sizeof(address)) == 0;
}

bool net_open(struct net *net)
{
    uint64_t end = now_ms() + WAIT_SECONDS * 1000;

    memset(net, 0, sizeof(*net));
    net->fd = -1;
    while (!find(net) && now_ms() < end) {
        usleep(20000);
    }
    report_detail("there is none in /sys/class/net");
    return check(net->name[0], "an interface") &&
           check(open_socket(net), "%s, which is %s, is opened", net->name, net->bdf);
}

void net_close(struct net *net)
{
    if (net->fd >= 0) {
        close(net->fd);
    }
    net->fd = -1;
}

static bool tell_driver(const char *what, const char *bdf)
{
    char path[64];
    bool told;
    int fd;

    snprintf(path, sizeof(path), "/sys/bus/pci/drivers/virtio-pci/%s", what);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    told = fd >= 0 && write(fd, bdf, strlen(bdf)) == (ssize_t)strlen(bdf);
    if (fd >= 0) {
        close(fd);
    }
    return told;
}

bool net_unbind(struct net *net)
{
    net_close(net);
    return tell_driver("unbind", net->bdf);
}

bool net_bind(struct net *net)
{
    return tell_driver("bind", net->bdf) && net_open(net);
}

bool net_wait_link(const struct net *net, bool up, unsigned seconds)
{
    uint64_t end = now_ms() + 1000 * (uint64_t)seconds;
    char path[64], value[8];

    snprintf(path, sizeof(path), "/sys/class/net/%s/carrier", net->name);
    for (;;) {
        if (init_read_file(path, value, sizeof(value)) && (value[0] == '1') == up) {
            return true;
        }
        if (now_ms() > end) {
            return false;
        }
        usleep(10000);
    }
}

bool net_has_feature(const struct net *net, unsigned bit)
{
    char path[64], value[80] = "";

    snprintf(path, sizeof(path), "/sys/class/net/%s/device/features", net->name);
    return init_read_file(path, value, sizeof(value)) && strlen(value) > bit && value[bit] == '1';
}

/* ---- frames ---- */

static unsigned frame_size(uint64_t number)
{
    return FRAME_MIN + (unsigned)(number * 37 % (FRAME_MAX - FRAME_MIN + 1));
}

/* Returns its length. */
static unsigned make_frame(const struct net *net, uint64_t number, uint8_t *frame)
{
    unsigned size = frame_size(number);
    uint64_t word = number * UINT64_C(0x9e3779b97f4a7c15) + 1;

    memcpy(frame, net->mac, 6);
    memcpy(frame + 6, net->mac, 6);
    frame[12] = ETHERTYPE >> 8;
    frame[13] = ETHERTYPE & 0xff;
    memcpy(frame + HEADER, &number, 8);
    for (unsigned at = HEADER + 8; at < size; at += 8) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        memcpy(frame + at, &word, size - at < 8 ? size - at : 8);
    }
    return size;
}

static bool send_frame(const struct net *net, uint64_t number)
{
    uint8_t frame[FRAME_MAX];
    unsigned size = make_frame(net, number, frame);

    return send(net->fd, frame, size, 0) == (ssize_t)size;
}

/* What is known while frames are under way. */
struct run {
    const struct net *net;
    struct net_echo *echo;
    uint64_t base;          /* the number of the first: no two runs share numbers */
    unsigned frames;
    uint8_t *seen;          /* a byte a frame */
    uint64_t last;          /* when one came back that had not */
};

/* Take what has come. */
static void take(struct run *run)
{
    uint8_t frame[2048], wanted[FRAME_MAX];
    ssize_t size;

    while ((size = recv(run->net->fd, frame, sizeof(frame), 0)) >= 0) {
        uint64_t number = UINT64_MAX;

        if (size >= HEADER + 8) {
            memcpy(&number, frame + HEADER, 8);
        }
        if ((unsigned)size != frame_size(number) ||
            make_frame(run->net, number, wanted) != (unsigned)size ||
            memcmp(frame, wanted, (size_t)size) != 0) {
            run->echo->wrong++;
        } else if (number - run->base >= run->frames) {
            continue; /* of before: the far process had kept it */
        } else if (run->seen[number - run->base]) {
            run->echo->twice++;
        } else {
            run->seen[number - run->base] = 1;
            run->echo->back++;
            run->last = now_ms();
        }
    }
}


/* Send those that have not come back once more. */
static void send_missing(struct run *run, unsigned next)
{
    unsigned count = 0;

    for (unsigned i = 0; i < next && count < IN_FLIGHT; i++) {
        if (!run->seen[i] && send_frame(run->net, run->base + i)) {
            run->echo->again++;
            count++;
        }
    }
}

static void run_frames(struct run *run, bool lossy)
{
    uint64_t begun = now_ms(), tried = begun;
    unsigned next = 0;

    run->last = begun;
    while (run->echo->back < run->frames) {
        struct pollfd p = {.fd = run->net->fd, .events = POLLIN};
        uint64_t now;

        while (next < run->frames && next - run->echo->back < IN_FLIGHT &&
               send_frame(run->net, run->base + next)) {
            next++;
        }
        take(run);
        now = now_ms();
        if (lossy && now - run->last > AGAIN_MS && now - tried > AGAIN_MS) {
            send_missing(run, next);
            tried = now;
        }
        if (now - run->last > QUIET_MS) {
            break;
        }
        if (run->echo->back < run->frames) {
            poll(&p, 1, 20); /* the driver's queue may be full */
        }
    }
    run->echo->seconds = (double)(now_ms() - begun) / 1000;
}

bool net_echo(const struct net *net, unsigned frames, bool lossy, struct net_echo *echo)
{
    static uint64_t base;
    struct run run = {.net = net, .echo = echo, .frames = frames, .seen = calloc(frames, 1)};

    run.base = base += NET_FRAMES_MAX;
    memset(echo, 0, sizeof(*echo));
    if (!run.seen) {
        return false;
    }
    run_frames(&run, lossy);
    /* One that comes twice may come late. */
    usleep(20000);
    take(&run);
    free(run.seen);
    return echo->back == frames && !echo->wrong && (lossy || (!echo->twice && !echo->again));
}

void net_show_counters(const struct net *net)
{
    static const char *const names[] = {
        "tx_packets", "tx_dropped", "tx_errors", "rx_packets", "rx_dropped", "rx_errors",
        "rx_length_errors", "rx_missed_errors", "rx_nohandler",
    };

    struct tpacket_stats stats = {0};
    socklen_t length = sizeof(stats);
    int size = 0;

    getsockopt(net->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &length);
    length = sizeof(size);
    getsockopt(net->fd, SOL_SOCKET, SO_RCVBUF, &size, &length);
    note("the socket's: %u packets, %u dropped, room for %d bytes", stats.tp_packets,
         stats.tp_drops, size);
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[96], value[32] = "?";

        snprintf(path, sizeof(path), "/sys/class/net/%s/statistics/%s", net->name, names[i]);
        init_read_file(path, value, sizeof(value));
        note("%s %s", names[i], value);
    }
}

void net_send_some(const struct net *net, unsigned frames)
{
    for (unsigned i = 0; i < frames; i++) {
        send_frame(net, i);
    }
}
