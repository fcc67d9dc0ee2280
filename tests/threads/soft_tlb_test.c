/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A soft TLB in front of the unit: threads that act for a device keep what they translated, and use
 * it without asking again. A subscriber drops what the guest invalidates, from the thread that does
 * the unit's work, while the others go on. When the guest's wait descriptor has completed, no
 * thread may touch the page by what it had kept.
 */
#include "crew.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define PAGES 4
#define USERS 3
#define REQUESTER 0x0010
#define DOMAIN 3
#define FIRST_IOVA 0x80000000ull
#define POISON 0xa5

struct soft_tlb {
    struct guest guest;
    struct crew crew;
    struct viommu_device *device;
    uint64_t pages[PAGES];
    uint64_t entries[PAGES];
    pthread_mutex_t lock;
    uint8_t *kept[PAGES]; /* host address; NULL: ask. Under the lock */
    uint64_t dropped;     /* under the lock */
    _Atomic uint64_t asked;
    _Atomic uint64_t used;
};

static int drop(void *opaque, const struct viommu_change *change)
{
    struct soft_tlb *tlb = opaque;

    pthread_mutex_lock(&tlb->lock);
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t iova = FIRST_IOVA + i * GUEST_PAGE;

        if (iova <= change->last && iova + GUEST_PAGE - 1 >= change->first && tlb->kept[i]) {
            tlb->kept[i] = NULL;
            tlb->dropped++;
        }
    }
    pthread_mutex_unlock(&tlb->lock);
    return 0;
}

/*
 * Now and then a thread is slow where it matters: between asking and keeping, between that and use.
 */
static void linger(struct random *random)
{
    if (random_below(random, 2) == 0) {
        crew_sleep(random_below(random, 100));
    }
}

/* Host address of a page, or NULL where the guest does not let the device. In a section. */
static uint8_t *look_up(struct soft_tlb *tlb, unsigned page, struct random *random)
{
    struct viommu_translation translation;
    uint8_t *host;

    pthread_mutex_lock(&tlb->lock);
    host = tlb->kept[page];
    pthread_mutex_unlock(&tlb->lock);
    if (host) {
        return host;
    }
    atomic_fetch_add_explicit(&tlb->asked, 1, memory_order_relaxed);
    if (viommu_device_translate(tlb->device, NULL, FIRST_IOVA + page * GUEST_PAGE, VIOMMU_WRITE,
                                &translation)) {
        return NULL;
    }
    host = guest_host(&tlb->guest, translation.gpa);
    linger(random);
    pthread_mutex_lock(&tlb->lock);
    tlb->kept[page] = host;
    pthread_mutex_unlock(&tlb->lock);
    return host;
}

static void *use(void *arg)
{
    static _Atomic uint64_t users;
    struct soft_tlb *tlb = arg;
    unsigned slot = 64 * (unsigned)atomic_fetch_add(&users, 1);
    struct random random = {slot + 1};

    while (crew_working(&tlb->crew)) {
        uint8_t *host;

        guest_ok(viommu_dma_begin(tlb->guest.iommu), "section");
        host = look_up(tlb, random_below(&random, PAGES), &random);
        linger(&random);
        if (host) {
            if (host[slot] == POISON) {
                guest_die("a page was read by a translation that had been invalidated");
            }
            host[slot] = 2;
            atomic_fetch_add_explicit(&tlb->used, 1, memory_order_relaxed);
        }
        viommu_dma_end(tlb->guest.iommu);
        crew_sleep(1);
    }
    return NULL;
}

static void prepare(struct soft_tlb *tlb)
{
    struct guest *guest = &tlb->guest;
    struct guest_config config = {.ack_timeout_ms = 20000};
    struct viommu_device_config device = {.requester = REQUESTER};
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .range = {FIRST_IOVA, FIRST_IOVA + PAGES * GUEST_PAGE - 1},
        .change = drop,
        .opaque = tlb,
    };
    struct viommu_subscriber *subscriber;
    uint64_t table;

    pthread_mutex_init(&tlb->lock, NULL);
    guest_ok(guest_init(guest, &config), "guest");
    table = crew_pages(guest, PAGES, FIRST_IOVA, tlb->pages, tlb->entries);
    guest_ok(viommu_device_add(guest->iommu, &device, &tlb->device), "device");
    guest_ok(viommu_device_subscribe(tlb->device, &what, &subscriber), "subscribe");
    guest_attach(guest, REQUESTER, DOMAIN, table, 4, SPEC_TT_UNTRANSLATED);
    guest_set_root(guest);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
}

/* The guest lends a page to the device, takes it back, and uses it for something else. */
static void one_round(struct soft_tlb *tlb, struct random *random)
{
    unsigned page = random_below(random, PAGES);
    uint64_t iova = FIRST_IOVA + page * GUEST_PAGE;
    uint8_t *host = guest_host(&tlb->guest, tlb->pages[page]);
    bool whole = random_below(random, 4) == 0;

    memset(host, 1, GUEST_PAGE);
    guest_store(&tlb->guest, tlb->entries[page], tlb->pages[page] | 3);
    crew_sleep(random_below(random, 200));
    guest_store(&tlb->guest, tlb->entries[page], 0);
    guest_queue_put(&tlb->guest, spec_iotlb_invalidate(whole ? SPEC_DOMAIN : SPEC_SELECTIVE, DOMAIN,
                                                       whole ? 0 : iova, 0, false));
    guest_queue_wait(&tlb->guest);
    memset(host, POISON, GUEST_PAGE);
    crew_sleep(random_below(random, 50));
    crew_check_page(host, POISON, "a page was written by a translation that had been invalidated");
}

static bool shows_something(struct soft_tlb *tlb)
{
    bool dropped;

    pthread_mutex_lock(&tlb->lock);
    dropped = tlb->dropped > 0;
    pthread_mutex_unlock(&tlb->lock);
    return dropped && tlb->used;
}

int main(void)
{
    static struct soft_tlb tlb;
    struct random random = {1};
    struct crew_processor processor = {&tlb.crew, &tlb.guest, 4, 0};
    struct crew_time time;
    unsigned rounds = 0;

    prepare(&tlb);
    tlb.guest.processed_elsewhere = true;
    crew_start(&tlb.crew, crew_process, &processor);
    for (unsigned i = 0; i < USERS; i++) {
        crew_start(&tlb.crew, use, &tlb);
    }
    time = crew_begin();
    while (crew_more(&time, shows_something(&tlb))) {
        one_round(&tlb, &random);
        rounds++;
    }
    crew_stop(&tlb.crew);
    tlb.guest.processed_elsewhere = false;
    guest_process(&tlb.guest);
    printf("soft TLB: %u rounds, %llu uses, %llu of them asked, %llu dropped\n", rounds,
           (unsigned long long)tlb.used, (unsigned long long)tlb.asked,
           (unsigned long long)tlb.dropped);
    if (!shows_something(&tlb)) {
        guest_die("nothing was used, or nothing dropped");
    }
    guest_fini(&tlb.guest);
    printf("soft TLB: ok\n");
    return 0;
}
