/* SPDX-License-Identifier: BSD-2-Clause */
/* Making the guest of mirrored.h, and what its driver does. */
#include "mirrored.h"

#include <endian.h>
#include <stdlib.h>

#define ENTRY_FLAGS (SPEC_R | SPEC_W)
#define POLLS 1000000
#define TARGETS_ALIGN (1ULL << 21)
/* Where no target is, as in a PC: the interrupt range lies there. */
#define HOLE 0xc0000000ULL
#define HOLE_SIZE (1ULL << 30)

/* ---- pages ---- */

static unsigned slot_of(const struct mirrored *m, uint64_t page)
{
    unsigned per_table = m->layout.per_table;

    return (unsigned)(page % per_table) * (MIRRORED_ENTRIES / per_table);
}

uint64_t mirrored_iova(const struct mirrored *m, uint64_t page)
{
    uint64_t table = page / m->layout.per_table;

    return MIRRORED_IOVA + (table * MIRRORED_ENTRIES + slot_of(m, page)) * GUEST_PAGE;
}

uint64_t mirrored_gpa(const struct mirrored *m, uint64_t page)
{
    uint64_t target = m->layout.scattered ? mirrored_next(page, m->pages) : page;
    uint64_t gpa = m->targets + target * GUEST_PAGE;

    return gpa < HOLE ? gpa : gpa + HOLE_SIZE;
}

static void store_entry(struct mirrored *m, uint64_t page, uint64_t value)
{
    uint64_t *entry = &m->tables[page / m->layout.per_table][slot_of(m, page)];

    __atomic_store_n(entry, htole64(value), __ATOMIC_RELEASE);
}

void mirrored_clear(struct mirrored *m, uint64_t page)
{
    store_entry(m, page, 0);
}

void mirrored_restore(struct mirrored *m, uint64_t page)
{
    store_entry(m, page, mirrored_gpa(m, page) | ENTRY_FLAGS);
}

/* ---- the guest ---- */

static void make_table(struct mirrored *m, uint64_t table)
{
    uint64_t first = table * m->layout.per_table;
    uint64_t entry = guest_map(&m->guest, m->root, MIRRORED_LEVELS, mirrored_iova(m, first),
                               mirrored_gpa(m, first), 1, ENTRY_FLAGS);

    m->tables[table] = guest_host(&m->guest, entry & ~(GUEST_PAGE - 1));
    for (unsigned i = 1; i < m->layout.per_table; i++) {
        mirrored_restore(m, first + i);
    }
}

static void make_tables(struct mirrored *m)
{
    uint64_t table = 0;

    m->root = guest_page(&m->guest);
    m->tables = calloc(m->layout.tables, sizeof(*m->tables));
    if (!m->tables) {
        guest_die("no memory for the bench");
    }
    for (uint64_t i = 0; i < m->layout.tables; i++) {
        make_table(m, table);
        table = mirrored_next(table, m->layout.tables);
    }
}

static void add_devices(struct mirrored *m)
{
    for (unsigned i = 0; i < m->layout.devices; i++) {
        struct viommu_device_config device = {.requester = viommu_requester(0, i + 1, 0)};

        guest_attach(&m->guest, device.requester, MIRRORED_DOMAIN, m->root, MIRRORED_LEVELS,
                     SPEC_TT_UNTRANSLATED);
        guest_ok(viommu_device_add(m->guest.iommu, &device, &m->mirrors[i].device),
                 "adding a device");
    }
}

void mirrored_init(struct mirrored *m, const struct mirrored_layout *layout)
{
    uint64_t tables = layout->tables + layout->tables / MIRRORED_ENTRIES + 64;
    /* Patience, for a mirror that answers later may share a busy machine with us. */
    struct guest_config config = {.vtd = {.caching_mode = true}, .ack_timeout_ms = 20000};

    *m = (struct mirrored){.layout = *layout};
    m->pages = layout->tables * layout->per_table;
    m->targets = (tables * GUEST_PAGE + TARGETS_ALIGN - 1) & ~(TARGETS_ALIGN - 1);
    config.ram_pages = m->targets / GUEST_PAGE + m->pages;
    if (config.ram_pages > HOLE / GUEST_PAGE) {
        config.ram_pages += HOLE_SIZE / GUEST_PAGE;
    }
    guest_ok(guest_init(&m->guest, &config), "making a guest");
    make_tables(m);
    add_devices(m);
    guest_set_root(&m->guest);
    guest_command(&m->guest, SPEC_TE, true);
}

void mirrored_fini(struct mirrored *m)
{
    mirrored_unsubscribe(m);
    guest_fini(&m->guest);
    free(m->tables);
}

/* ---- mirrors ---- */

static int change(void *opaque, const struct viommu_change *change)
{
    struct mirror *mirror = opaque;
    uint64_t pages = (change->last - change->first + 1) / GUEST_PAGE;

    switch (change->kind) {
    case VIOMMU_CHANGE_MAP:
        mirror->maps++;
        mirror->mapped += pages;
        break;
    case VIOMMU_CHANGE_UNMAP:
        mirror->unmaps++;
        mirror->mapped -= pages;
        break;
    default:
        mirror->others++;
    }
    return 0;
}

static int fence(void *opaque)
{
    struct mirror *mirror = opaque;

    mirror->fences++;
    return 0;
}

static bool subscribe(struct mirror *mirror)
{
    const struct viommu_subscription subscription = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = change,
        .fence = fence,
        .opaque = mirror,
    };

    mirror->mapped = 0;
    return !viommu_device_subscribe(mirror->device, &subscription, &mirror->subscriber);
}

static bool follows(const struct mirror *mirror)
{
    struct viommu_subscriber_status status;

    viommu_subscriber_status(mirror->subscriber, &status, sizeof(status));
    return !status.behind && !status.fenced;
}

static bool all_follow(const struct mirrored *m)
{
    bool ok = true;

    for (unsigned i = 0; ok && i < m->layout.devices; i++) {
        ok = follows(&m->mirrors[i]);
    }
    return ok;
}

bool mirrored_subscribe(struct mirrored *m)
{
    for (unsigned i = 0; i < m->layout.devices; i++) {
        if (!subscribe(&m->mirrors[i])) {
            return false;
        }
    }
    guest_process(&m->guest);
    return all_follow(m);
}

void mirrored_unsubscribe(struct mirrored *m)
{
    for (unsigned i = 0; i < m->layout.devices; i++) {
        viommu_subscriber_destroy(m->mirrors[i].subscriber);
        m->mirrors[i].subscriber = NULL;
    }
    guest_process(&m->guest);
}

bool mirrored_hold(const struct mirrored *m, uint64_t pages)
{
    for (unsigned i = 0; i < m->layout.devices; i++) {
        const struct mirror *mirror = &m->mirrors[i];

        if (mirror->mapped != pages || mirror->others || mirror->fences) {
            return false;
        }
    }
    return true;
}

uint64_t mirrored_calls(const struct mirrored *m)
{
    uint64_t calls = 0;

    for (unsigned i = 0; i < m->layout.devices; i++) {
        calls += m->mirrors[i].maps + m->mirrors[i].unmaps;
    }
    return calls;
}

/* ---- invalidations ---- */

bool mirrored_sync(struct mirrored *m)
{
    struct viommu *iommu = m->guest.iommu;
    uint64_t offset = m->guest.iotlb_offset + 8;
    uint64_t busy = 1ULL << 63;
    uint64_t value = busy;

    viommu_mmio_write(iommu, offset, 8,
                      busy | (uint64_t)SPEC_DOMAIN << 60 | (uint64_t)MIRRORED_DOMAIN << 32);
    for (unsigned i = 0; (value & busy) && i < POLLS; i++) {
        viommu_process(iommu, 0);
        viommu_mmio_read(iommu, offset, 8, &value);
    }
    return !(value & busy);
}

bool mirrored_sync_pages(struct mirrored *m, const uint64_t *pages, unsigned count)
{
    struct guest *guest = &m->guest;
    uint64_t head = ~0ULL;

    for (unsigned i = 0; i < count; i++) {
        guest_queue_put(guest, spec_iotlb_invalidate(SPEC_SELECTIVE, MIRRORED_DOMAIN,
                                                     mirrored_iova(m, pages[i]), 0, true));
    }
    viommu_mmio_write(guest->iommu, SPEC_IQT, 8, guest->queue_tail * 16ULL);
    for (unsigned i = 0; head != guest->queue_tail * 16ULL && i < POLLS; i++) {
        viommu_process(guest->iommu, 0);
        viommu_mmio_read(guest->iommu, SPEC_IQH, 8, &head);
    }
    return head == guest->queue_tail * 16ULL;
}

struct viommu_stats mirrored_stats(struct mirrored *m)
{
    struct viommu_stats stats;

    viommu_stats_get(m->guest.iommu, &stats, sizeof(stats));
    return stats;
}
