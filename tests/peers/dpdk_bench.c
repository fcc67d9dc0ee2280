/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Figures of the vhost front-end with DPDK's testpmd at the other end (run.py --bench starts this).
 *
 *   dpdk_bench TESTPMD DIRECTORY [--log FILE] [--rounds N] [--json]
 *
 * A frame is sent out of each of many pages, whose memory is scattered: so testpmd asks for each
 * (a MISS, answered by an UPDATE), and holds each. Then the guest invalidates them. A round is all
 * of that once for each way of invalidating; what is compared is compared within a round.
 */
#include "world.h"

#include "random.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    RECEIVE_FIRST = RING_PAGES,
    RECEIVE_PAGES = 192,
    SEND_FIRST = 256, /* a window of 2 MiB begins inside: pages of one range are aligned */
    SEND_PAGES = 512,
    UNDER_WAY = 128,
    LENGTH = 128,
    ROUNDS_MAX = 1000,
    SIDES_MAX = 8,
};

struct side {
    const char *name;
    double ns[ROUNDS_MAX]; /* for one */
};

struct row {
    const char *name;
    const char *what;
    const char *unit;
    struct side sides[SIDES_MAX];
    unsigned count;
};

struct bench {
    struct world world;
    int alone; /* a connection of its own to testpmd */
    unsigned rounds;
    bool json;
    bool lent[WINDOW_PAGES];
    uint64_t misses;
};

/* ---- frames ---- */

static void receive_into(struct bench *bench, unsigned page)
{
    struct world *world = &bench->world;
    struct net_buffer buffer = {
        .iova = world_iova(page),
        .host = world_host(world, world->pages[page].gpa),
        .length = NET_HEADER + NET_FRAME_MAX,
        .owner = &bench->lent[page],
    };

    bench->lent[page] = true;
    net_receive_into(&world->net, &buffer);
}

static void take_back(struct bench *bench)
{
    struct net *net = &bench->world.net;
    struct net_buffer buffer;
    bool received = false;

    while (net_take_back(net, 0, &buffer)) {
        receive_into(bench, (unsigned)((bool *)buffer.owner - bench->lent));
        received = true;
    }
    if (received) {
        net_kick(net, 0);
    }
    while (net_take_back(net, 1, &buffer)) {
        *(bool *)buffer.owner = false;
    }
    if (net->wrong[0]) {
        guest_die("%s", net->wrong);
    }
}

/* A frame out of each page; returns how long it took until all were back, in ns. */
static uint64_t send_from_all(struct bench *bench)
{
    struct world *world = &bench->world;
    struct net *net = &world->net;
    uint64_t begin = world_now();
    unsigned sent = 0;

    while (sent < SEND_PAGES || net->expected < net->sent || net->rings[1].lent_count) {
        bool any = false;

        for (; sent < SEND_PAGES && net->sent - net->expected < UNDER_WAY; sent++) {
            unsigned page = SEND_FIRST + sent;
            struct net_buffer buffer = {
                .iova = world_iova(page),
                .host = world_host(world, world->pages[page].gpa),
                .length = LENGTH,
                .owner = &bench->lent[page],
            };

            net_send(net, &buffer);
            any = true;
        }
        if (any) {
            net_kick(net, 1);
        }
        take_back(bench);
        world_work(world);
        if (world_now() - begin > 60000000000ull) {
            guest_die("frames do not come back");
        }
    }
    return world_now() - begin;
}

/* ---- invalidations ---- */

/* As guest_queue_wait, which yields its CPU: on a busy machine that takes long. */
static void wait_for_queue(struct bench *bench)
{
    struct guest *guest = &bench->world.guest;
    _Atomic uint32_t *status = guest_host(guest, guest->status);
    uint32_t value = ++guest->status_value;
    uint64_t begin = world_now();

    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, value));
    guest_queue_kick(guest);
    while (le32toh(atomic_load(status)) != value) {
        world_work(&bench->world);
        if (world_now() - begin > 60000000000ull) {
            guest_die("a wait descriptor does not complete");
        }
    }
}

/* One page each, so many before each wait. */
static uint64_t invalidate_pages(struct bench *bench, unsigned batch)
{
    struct guest *guest = &bench->world.guest;
    uint64_t begin = world_now();

    for (unsigned i = 0; i < SEND_PAGES; i++) {
        guest_queue_put(guest, spec_iotlb_invalidate(SPEC_SELECTIVE, WORLD_DOMAIN,
                                                     world_iova(SEND_FIRST + i), 0, false));
        if ((i + 1) % batch == 0) {
            wait_for_queue(bench);
        }
    }
    return world_now() - begin;
}

/* One aligned range of 128 pages after another. */
static uint64_t invalidate_ranges(struct bench *bench)
{
    struct guest *guest = &bench->world.guest;
    uint64_t begin = world_now();

    for (unsigned i = 0; i < SEND_PAGES; i += 128) {
        guest_queue_put(guest, spec_iotlb_invalidate(SPEC_SELECTIVE, WORLD_DOMAIN,
                                                     world_iova(SEND_FIRST + i), 7, false));
        wait_for_queue(bench);
    }
    return world_now() - begin;
}

static uint64_t invalidate_domain(struct bench *bench)
{
    struct guest *guest = &bench->world.guest;
    uint64_t begin = world_now();

    guest_queue_put(guest, spec_iotlb_invalidate(SPEC_DOMAIN, WORLD_DOMAIN, 0, 0, false));
    wait_for_queue(bench);
    return world_now() - begin;
}

/* What nobody holds: no message. */
static uint64_t invalidate_unheld(struct bench *bench)
{
    return invalidate_pages(bench, 1);
}

/* ---- a connection without anything: what testpmd takes for an answer ---- */

static void say(int fd, uint32_t request, uint32_t flags, const void *payload, uint32_t size,
                uint64_t *answer)
{
    uint8_t bytes[64];
    uint32_t header[3] = {request, 1 | flags, size};

    memcpy(bytes, header, sizeof(header));
    if (size) {
        memcpy(bytes + sizeof(header), payload, size);
    }
    if (send(fd, bytes, sizeof(header) + size, MSG_NOSIGNAL) != (ssize_t)(sizeof(header) + size) ||
        (answer && (recv(fd, header, sizeof(header), MSG_WAITALL) != sizeof(header) ||
                    recv(fd, answer, sizeof(*answer), MSG_WAITALL) != sizeof(*answer)))) {
        guest_die("testpmd: %s", strerror(errno));
    }
}

static void connect_alone(struct bench *bench)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint64_t number;
    uint64_t features = 1ull << 30 | 1ull << 32 | 1ull << 33;
    uint64_t protocol = 1ull << 3;

    bench->alone = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(address.sun_path, bench->world.far.socket, sizeof(address.sun_path));
    if (bench->alone < 0 ||
        connect(bench->alone, (struct sockaddr *)&address, sizeof(address))) {
        guest_die("connect: %s", strerror(errno));
    }
    say(bench->alone, 1, 0, NULL, 0, &number);
    say(bench->alone, 15, 0, NULL, 0, &number);
    say(bench->alone, 16, 0, &protocol, 8, NULL);
    say(bench->alone, 3, 0, NULL, 0, NULL);
    say(bench->alone, 2, 0, &features, 8, NULL);
}

static uint64_t invalidate_alone(struct bench *bench)
{
    uint64_t begin = world_now();

    for (unsigned i = 0; i < SEND_PAGES; i++) {
        uint64_t payload[4] = {world_iova(SEND_FIRST + i), GUEST_PAGE, 0, 3 << 8};
        uint64_t answer;

        say(bench->alone, 22, 1u << 3, payload, sizeof(payload), &answer);
    }
    return world_now() - begin;
}

/* ---- the rows ---- */

static const struct way {
    const char *name;
    uint64_t (*run)(struct bench *bench);
    unsigned batch; /* of invalidate_pages, without `run` */
    bool unheld;    /* testpmd does not hold the pages then */
} ways[] = {
    {"viommu, one page at a time", NULL, 1, false},
    {"viommu, 16 pages, then a wait", NULL, 16, false},
    {"viommu, 128 pages, then a wait", NULL, 128, false},
    {"viommu, ranges of 128 pages", invalidate_ranges, 0, false},
    {"viommu, the domain", invalidate_domain, 0, false},
    {"viommu, what is not held", invalidate_unheld, 0, true},
    {"a message and its answer, alone", invalidate_alone, 0, true},
};

enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The p-th of 100 parts of the values. */
static double part(const double *values, unsigned count, unsigned p)
{
    double sorted[ROUNDS_MAX];

    memcpy(sorted, values, count * sizeof(*values));
    qsort(sorted, count, sizeof(*sorted), compare);
    return sorted[(count - 1) * p / 100];
}

static void print_ratio(const struct bench *bench, const struct side *side, const struct side *base)
{
    double ratios[ROUNDS_MAX];

    for (unsigned i = 0; i < bench->rounds; i++) {
        ratios[i] = side->ns[i] / base->ns[i];
    }
    printf("    %s   %.2fx the time of %s (%.2f to %.2f)\n", side->name,
           part(ratios, bench->rounds, 50), base->name, part(ratios, bench->rounds, 25),
           part(ratios, bench->rounds, 75));
}

static void print_row(const struct bench *bench, const struct row *row)
{
    const struct side *base = &row->sides[row->count - 1];

    if (bench->json) {
        for (unsigned i = 0; i < row->count; i++) {
            printf("{\"row\": \"%s\", \"side\": \"%s\", \"ns\": %.1f}\n", row->name,
                   row->sides[i].name, part(row->sides[i].ns, bench->rounds, 50));
        }
        return;
    }
    printf("%s: %s\n", row->name, row->what);
    for (unsigned i = 0; i < row->count; i++) {
        double ns = part(row->sides[i].ns, bench->rounds, 50);

        printf("  %-34s %10.0f ns %-16s %10.0f a second\n", row->sides[i].name, ns, row->unit,
               1e9 / ns);
    }
    for (unsigned i = 0; i + 1 < row->count; i++) {
        print_ratio(bench, &row->sides[i], base);
    }
}

static void prepare(struct bench *bench)
{
    struct world *world = &bench->world;
    struct random random = {3};
    unsigned order[SEND_PAGES];

    for (unsigned i = 0; i < RECEIVE_PAGES; i++) {
        world_map(world, RECEIVE_FIRST + i, world_take(world), LEDGER_READ | LEDGER_WRITE);
    }
    for (unsigned i = 0; i < SEND_PAGES; i++) {
        unsigned at = random_below(&random, i + 1);

        order[i] = order[at];
        order[at] = i;
    }
    for (unsigned i = 0; i < SEND_PAGES; i++) {
        uint64_t gpa = world_take(world);

        world_give(world, world_take(world)); /* a gap: no two pages are one run */
        world_map(world, SEND_FIRST + order[i], gpa, LEDGER_READ);
    }
    world_flush(world, FLUSH_DOMAIN);
    for (unsigned i = 0; i < RECEIVE_PAGES; i++) {
        receive_into(bench, RECEIVE_FIRST + i);
    }
    net_kick(&world->net, 0);
    send_from_all(bench);
}

/* Nothing of what is sent from is held, but all else is. */
static void begin_round(struct bench *bench)
{
    send_from_all(bench);
    invalidate_pages(bench, 128);
}

static void run_frames(struct bench *bench, unsigned round, struct row *row)
{
    uint64_t misses = world_statistics(&bench->world).misses;

    row->sides[0].ns[round] = (double)send_from_all(bench) / SEND_PAGES;
    bench->misses += world_statistics(&bench->world).misses - misses;
    row->sides[1].ns[round] = (double)send_from_all(bench) / SEND_PAGES;
}

static void run_way(struct bench *bench, unsigned round, const struct way *way, struct side *side)
{
    struct viommu_vhost_statistics before;
    struct viommu_vhost_statistics after;
    uint64_t ns;

    if (!way->unheld) {
        send_from_all(bench);
    }
    before = world_statistics(&bench->world);
    ns = way->run ? way->run(bench) : invalidate_pages(bench, way->batch);
    after = world_statistics(&bench->world);
    side->name = way->name;
    side->ns[round] = (double)ns / SEND_PAGES;
    if ((after.acknowledged == before.acknowledged) != way->unheld) {
        guest_die("%s: %llu were acknowledged", way->name,
                  (unsigned long long)(after.acknowledged - before.acknowledged));
    }
}

int main(int argc, char **argv)
{
    static struct bench bench;
    static struct row invalidations = {
        .name = "dpdk-invalidate",
        .what = "scattered pages that testpmd holds, until it has acknowledged",
        .unit = "a page",
        .count = WAYS,
    };
    static struct row frames = {
        .name = "dpdk-update",
        .what = "a frame there and back out of each of 512 pages, UPDATEd when it asks",
        .unit = "a frame",
        .sides = {{.name = "each page is asked for"}, {.name = "all pages are held"}},
        .count = 2,
    };
    struct world_options options = {.bare = true};

    if (argc < 3) {
        fprintf(stderr, "usage: dpdk_bench TESTPMD DIRECTORY [--log FILE] [--rounds N] [--json]\n");
        return 2;
    }
    options.program = argv[1];
    options.directory = argv[2];
    bench.rounds = 20;
    for (int i = 3; i < argc; i++) {
        bench.json = bench.json || !strcmp(argv[i], "--json");
        if (i + 1 < argc && !strcmp(argv[i], "--log")) {
            options.log = argv[i + 1];
        } else if (i + 1 < argc && !strcmp(argv[i], "--rounds")) {
            bench.rounds = (unsigned)atoi(argv[i + 1]);
        }
    }
    if (bench.rounds < 1 || bench.rounds > ROUNDS_MAX) {
        bench.rounds = ROUNDS_MAX;
    }
    world_init(&bench.world, &options);
    connect_alone(&bench);
    prepare(&bench);
    for (unsigned i = 0; i < bench.rounds; i++) {
        begin_round(&bench);
        run_frames(&bench, i, &frames);
        for (unsigned way = 0; way < WAYS; way++) {
            run_way(&bench, i, &ways[way], &invalidations.sides[way]);
        }
    }
    print_row(&bench, &invalidations);
    print_row(&bench, &frames);
    printf("# %.0f MISSes a round, one for each page that is asked for\n",
           (double)bench.misses / bench.rounds);
    close(bench.alone);
    world_fini(&bench.world);
    return 0;
}
