/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames there and back: see traffic.h.
 */
#include "traffic.h"

#include <sched.h>
#include <string.h>

enum { PATIENCE_SECONDS = 30, LENGTH_MIN = NET_HEADER + NET_FRAME_MIN };

uint8_t traffic_perm(struct random *random)
{
    static const uint8_t perms[] = {
        LEDGER_READ, LEDGER_WRITE, LEDGER_READ | LEDGER_WRITE, LEDGER_READ | LEDGER_WRITE};

    return perms[random_below(random, 4)];
}

static bool can_receive(const struct traffic *traffic, unsigned number)
{
    return traffic->world->pages[BUFFERS_FIRST + number].perm & LEDGER_WRITE;
}

static bool can_send(const struct traffic *traffic, unsigned number)
{
    return traffic->world->pages[BUFFERS_FIRST + number].perm & LEDGER_READ;
}

/* A free buffer that will do, from a random place on; BUFFERS: none. */
static unsigned find_free(struct traffic *traffic,
                          bool (*will_do)(const struct traffic *traffic, unsigned number))
{
    unsigned at = random_below(&traffic->random, BUFFERS);

    for (unsigned i = 0; i < BUFFERS; i++) {
        unsigned number = (at + i) % BUFFERS;

        if (!traffic->busy[number] && will_do(traffic, number)) {
            return number;
        }
    }
    return BUFFERS;
}

static struct net_buffer buffer_of(struct traffic *traffic, unsigned number, unsigned length)
{
    unsigned page = BUFFERS_FIRST + number;

    traffic->busy[number] = true;
    return (struct net_buffer){
        .iova = world_iova(page),
        .host = world_host(traffic->world, traffic->world->pages[page].gpa),
        .offset = (uint16_t)random_below(&traffic->random, GUEST_PAGE - length + 1),
        .length = (uint16_t)length,
        .owner = &traffic->busy[number],
    };
}

static unsigned refill(struct traffic *traffic)
{
    struct net *net = &traffic->world->net;
    unsigned done = 0;

    while (net->rings[0].lent_count < RECEIVE_POSTED) {
        unsigned number = find_free(traffic, can_receive);
        struct net_buffer buffer;

        if (number == BUFFERS) {
            break;
        }
        buffer = buffer_of(traffic, number, NET_HEADER + NET_FRAME_MAX);
        net_receive_into(net, &buffer);
        done++;
    }
    if (done) {
        net_kick(net, 0);
    }
    return done;
}

/* Frames that were lost are not waited for. */
static uint64_t under_way(const struct net *net)
{
    uint64_t lent = net->rings[1].lent_count;
    uint64_t away = net->sent - net->expected;

    return net->may_lose || lent > away ? lent : away;
}

static unsigned send(struct traffic *traffic)
{
    struct net *net = &traffic->world->net;
    unsigned done = 0;

    while (!traffic->quiet && under_way(net) < SEND_OUTSTANDING) {
        unsigned number = find_free(traffic, can_send);
        struct net_buffer buffer;

        if (number == BUFFERS) {
            break;
        }
        buffer = buffer_of(
            traffic, number,
            LENGTH_MIN + random_below(&traffic->random, NET_FRAME_MAX - NET_FRAME_MIN));
        net_send(net, &buffer);
        done++;
    }
    if (done) {
        net_kick(net, 1);
    }
    return done;
}

static unsigned take_back(struct traffic *traffic)
{
    struct net *net = &traffic->world->net;
    struct net_buffer buffer;
    unsigned done = 0;

    for (unsigned ring = 0; ring < 2; ring++) {
        while (net_take_back(net, ring, &buffer)) {
            *(bool *)buffer.owner = false;
            done++;
        }
    }
    return done;
}

static void publish(struct traffic *traffic)
{
    const struct net *net = &traffic->world->net;

    atomic_store(&traffic->received, net->received);
    atomic_store(&traffic->outstanding, under_way(net));
    if (net->wrong[0]) {
        atomic_store(&traffic->wrong, true);
    }
}

static void *work(void *arg)
{
    struct traffic *traffic = arg;

    while (!atomic_load(&traffic->stop)) {
        unsigned done;

        pthread_mutex_lock(&traffic->lock);
        done = refill(traffic) + take_back(traffic) + send(traffic);
        publish(traffic);
        pthread_mutex_unlock(&traffic->lock);
        if (!done) {
            world_sleep(20);
        } else {
            sched_yield(); /* the lock is not fair */
        }
    }
    return NULL;
}

void traffic_start(struct traffic *traffic, struct world *world)
{
    memset(traffic, 0, sizeof(*traffic));
    traffic->world = world;
    traffic->random.state = 1;
    pthread_mutex_init(&traffic->lock, NULL);
    for (unsigned i = 0; i < BUFFERS; i++) {
        uint8_t perm = i % 3 ? LEDGER_READ | LEDGER_WRITE : LEDGER_READ;

        world_map(world, BUFFERS_FIRST + i, world_take(world), perm);
    }
    world_flush(world, FLUSH_DOMAIN);
    guest_ok(-pthread_create(&traffic->thread, NULL, work, traffic), "pthread_create");
}

void traffic_stop(struct traffic *traffic)
{
    atomic_store(&traffic->stop, true);
    pthread_join(traffic->thread, NULL);
    pthread_mutex_destroy(&traffic->lock);
}

static const char *wait_for(struct traffic *traffic, const _Atomic uint64_t *counter,
                            uint64_t wanted, bool exactly)
{
    uint64_t end = world_now() + PATIENCE_SECONDS * 1000000000ull;
    unsigned failed = atomic_load(&traffic->world->failed);

    for (;;) {
        uint64_t now = atomic_load(counter);

        if (atomic_load(&traffic->wrong)) {
            return traffic->world->net.wrong;
        }
        if (exactly ? now == wanted : now >= wanted) {
            return NULL;
        }
        if (atomic_load(&traffic->world->failed) != failed) {
            return "the front-end fails meanwhile";
        }
        if (world_now() > end) {
            return "frames do not come back";
        }
        world_sleep(100);
    }
}

const char *traffic_wait(struct traffic *traffic, unsigned frames)
{
    return wait_for(traffic, &traffic->received, atomic_load(&traffic->received) + frames, false);
}

const char *traffic_pause(struct traffic *traffic)
{
    pthread_mutex_lock(&traffic->lock);
    traffic->quiet = true; /* what was published before this does not say that nothing follows */
    pthread_mutex_unlock(&traffic->lock);
    return wait_for(traffic, &traffic->outstanding, 0, true);
}

void traffic_go_on(struct traffic *traffic)
{
    pthread_mutex_lock(&traffic->lock);
    traffic->quiet = false;
    pthread_mutex_unlock(&traffic->lock);
}

void traffic_may_lose(struct traffic *traffic, bool may)
{
    pthread_mutex_lock(&traffic->lock);
    traffic->world->net.may_lose = may;
    pthread_mutex_unlock(&traffic->lock);
}

unsigned traffic_take(struct traffic *traffic, unsigned *pages, unsigned count)
{
    unsigned at;
    unsigned taken = 0;

    pthread_mutex_lock(&traffic->lock);
    at = random_below(&traffic->random, BUFFERS);
    for (unsigned i = 0; i < BUFFERS && taken < count; i++) {
        unsigned number = (at + i) % BUFFERS;

        if (!traffic->busy[number]) {
            traffic->busy[number] = true;
            pages[taken++] = BUFFERS_FIRST + number;
        }
    }
    pthread_mutex_unlock(&traffic->lock);
    return taken;
}

void traffic_give_back(struct traffic *traffic, const unsigned *pages, unsigned count)
{
    pthread_mutex_lock(&traffic->lock);
    for (unsigned i = 0; i < count; i++) {
        traffic->busy[pages[i] - BUFFERS_FIRST] = false;
    }
    pthread_mutex_unlock(&traffic->lock);
}
