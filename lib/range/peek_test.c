/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Look-ups beside changes, step by step and in one thread.
 *
 * A *scene* is a map, and what another thread does to it. All nodes exist beforehand, so the map is
 * nothing but words at places that stay: there is an *image* of them before the change and one
 * after it. A look-up is made on the first; before each load that it makes, the map can become
 * another: what it is after the change, or *torn*, with any words of the old and any of the new,
 * as a store or a load that is late makes it. Each load is tried, and each pair of loads.
 *
 * A look-up that met a change has to say that it did; else it has to be right. Nodes are of fifteen
 * entries, so that small maps are high ones. Where nodes have no entry there is rubbish, which must
 * not be followed.
 */
#define RANGE_LEAF  15
#define RANGE_INNER 15

#include "range/check.c"
#include "range/gap.c"
#include "range/peek.c"
#include "range/range_map.c"
#include "range/tree.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGE      UINT64_C(0x1000)
#define NODES_MAX 512
#define WORDS     (sizeof(struct range_map) / sizeof(uint64_t))
#define VERSION   (offsetof(struct range_map, version) / sizeof(uint64_t))
#define RUBBISH   UINT64_C(0xa5a5a5a5a5a5a5a5)

enum { BEFORE, AFTER, IMAGES };

struct scene {
    const char *name;
    size_t runs;                            /* of a page, every second page */
    void (*prepare)(struct range_map *map); /* more, or NULL */
    void (*change)(struct range_map *map);
    unsigned page; /* what is asked for: it, and some around it */
};

static struct range_map map;

static struct {
    struct range_node *node;
    size_t words;
    uint64_t *images[IMAGES];
} nodes[NODES_MAX];

static unsigned node_count;
static uint64_t map_images[IMAGES][WORDS];

/* ---- images ---- */

static void node_add(struct range_node *node, unsigned level)
{
    size_t size = tree_node_size(level);

    assert_true(node_count < NODES_MAX);
    nodes[node_count].node = node;
    nodes[node_count].words = size / sizeof(uint64_t);
    for (unsigned i = 0; i < IMAGES; i++) {
        nodes[node_count].images[i] = malloc(size);
        assert_non_null(nodes[node_count].images[i]);
    }
    node_count++;
}

/* Fills what has no entry. */
static void litter(struct range_node *node, unsigned level, unsigned from)
{
    for (unsigned i = from; i < tree_capacity(level); i++) {
        tree_entries(node, level)[i] = (struct range_entry){RUBBISH, {RUBBISH}, {RUBBISH}};
    }
}

static void nodes_below(struct range_node *node, unsigned level,
                        void (*each)(struct range_node *, unsigned))
{
    each(node, level);
    for (unsigned i = 0; level && i < node->count; i++) {
        nodes_below(tree_entries(node, level)[i].child, level - 1, each);
    }
}

static void litter_used(struct range_node *node, unsigned level)
{
    litter(node, level, (unsigned)node->count);
}

static void litter_all(void)
{
    if (map.height) {
        nodes_below(map.root, map.height - 1, litter_used);
    }
    for (unsigned kind = 0; kind < 2; kind++) {
        for (struct range_node *node = map.spare[kind].nodes; node; node = node->next) {
            litter(node, kind, 0);
        }
    }
}

static void collect(void)
{
    if (map.height) {
        nodes_below(map.root, map.height - 1, node_add);
    }
    for (unsigned kind = 0; kind < 2; kind++) {
        for (struct range_node *node = map.spare[kind].nodes; node; node = node->next) {
            node_add(node, kind);
        }
    }
}

static void take_image(unsigned which)
{
    litter_all();
    memcpy(map_images[which], &map, sizeof(map));
    for (unsigned i = 0; i < node_count; i++) {
        memcpy(nodes[i].images[which], nodes[i].node, nodes[i].words * sizeof(uint64_t));
    }
}

static void show_image(unsigned which)
{
    memcpy(&map, map_images[which], sizeof(map));
    for (unsigned i = 0; i < node_count; i++) {
        memcpy(nodes[i].node, nodes[i].images[which], nodes[i].words * sizeof(uint64_t));
    }
}

static uint64_t random_state;

static bool random_bit(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return random_state >> 63;
}

/* Each word is an old one or a new one. The version says that a change is under way. */
static void show_torn(void)
{
    uint64_t words[WORDS];

    for (unsigned i = 0; i < WORDS; i++) {
        words[i] = map_images[random_bit()][i];
    }
    words[VERSION] = map_images[BEFORE][VERSION] + 1;
    memcpy(&map, words, sizeof(map));
    for (unsigned i = 0; i < node_count; i++) {
        uint64_t *to = (uint64_t *)nodes[i].node;

        for (size_t j = 0; j < nodes[i].words; j++) {
            to[j] = nodes[i].images[random_bit()][j];
        }
    }
}

/* ---- the other thread ---- */

static struct {
    unsigned step;  /* the next one */
    unsigned first; /* when the map becomes another */
    unsigned then;  /* when it is what it is after the change */
    bool torn;      /* what it is between */
} other;

static void at_step(void)
{
    unsigned step = other.step++;

    if (step == other.first && other.torn) {
        show_torn();
    } else if (step == other.first || step == other.then) {
        show_image(AFTER);
    }
}

/* ---- one look-up ---- */

struct answer {
    enum range_peek kind;
    struct range_run run;
    uint64_t version;
};

static struct answer ask(uint64_t address)
{
    struct answer answer = {.kind = RANGE_CHANGES};

    other.step = 0;
    tree_peek_step = at_step;
    answer.kind = range_map_peek(&map, address, &answer.run, &answer.version);
    tree_peek_step = NULL;
    return answer;
}

/* What is so in an image. */
static struct answer truth(unsigned which, uint64_t address)
{
    struct answer answer = {.kind = RANGE_FREE, .version = map_images[which][VERSION]};

    show_image(which);
    if (range_map_find(&map, address, &answer.run)) {
        answer.kind = RANGE_FOUND;
    }
    return answer;
}

static void expect_same(const struct answer *a, const struct answer *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->version, b->version);
    if (a->kind == RANGE_FOUND) {
        assert_memory_equal(&a->run, &b->run, sizeof(a->run));
    }
}

/* How many steps a look-up has that nobody disturbs. */
static unsigned undisturbed(uint64_t address)
{
    struct answer wanted = truth(BEFORE, address);
    struct answer answer;

    other.first = other.then = UINT32_MAX;
    answer = ask(address);
    expect_same(&answer, &wanted);
    return other.step;
}

/*
 * The first step is before the version is read, the last one is after everything. A check of the
 * version follows each of the others.
 */
static void disturbed(uint64_t address, unsigned steps)
{
    struct answer old = truth(BEFORE, address);
    struct answer new = truth(AFTER, address);

    for (unsigned first = 0; first < steps; first++) {
        struct answer answer;

        show_image(BEFORE);
        other.first = first;
        other.torn = false;
        other.then = UINT32_MAX;
        answer = ask(address);
        if (!first) {
            expect_same(&answer, &new);
        } else if (first == steps - 1) {
            expect_same(&answer, &old);
        } else {
            assert_int_equal(answer.kind, RANGE_CHANGES);
        }
        other.torn = true;
        for (unsigned then = first + 1; then <= steps; then++) {
            show_image(BEFORE);
            other.then = then;
            answer = ask(address);
            if (first == steps - 1) {
                expect_same(&answer, &old);
            } else {
                assert_int_equal(answer.kind, RANGE_CHANGES);
            }
        }
    }
}

/* ---- scenes ---- */

static void put(struct range_map *to, uint64_t first, uint64_t last)
{
    /* A target that would be no place of a node. */
    struct range_run run = {first, last, first ^ UINT64_C(0x5a5a000000000000), 3};

    assert_int_equal(range_map_insert(to, &run), 0);
}

static uint64_t at_page(unsigned page)
{
    return page * PAGE;
}

static void fill_page_21(struct range_map *to)
{
    for (unsigned i = 0; i < 40; i++) {
        put(to, at_page(21) + 2 * i, at_page(21) + 2 * i);
    }
}

static void take(struct range_map *from, unsigned first, unsigned last)
{
    struct range_erased erased;

    assert_int_equal(
        range_map_erase_inside(from, at_page(first), at_page(last) + PAGE - 1, &erased), 0);
    assert_true(erased.count > 0);
}

static void insert_one(struct range_map *to)
{
    put(to, at_page(21), at_page(21));
}

static void erase_one(struct range_map *from)
{
    take(from, 20, 20);
}

static void erase_many(struct range_map *from)
{
    take(from, 8, 60);
}

static void erase_nearly_all(struct range_map *from)
{
    take(from, 0, 18);
    take(from, 22, UINT16_MAX);
}

static void erase_all(struct range_map *from)
{
    take(from, 0, UINT16_MAX);
}

/* Leaves go, and are used for other addresses. */
static void reuse(struct range_map *both)
{
    take(both, 8, 60);
    for (unsigned i = 0; i < 60; i++) {
        put(both, at_page(2001) + 2 * i * PAGE, at_page(2001) + 2 * i * PAGE);
    }
}

/* The same place leads elsewhere. */
static void replace(struct range_map *both)
{
    struct range_run run = {at_page(20), at_page(20) + PAGE - 1, 0x1234000, 1};

    take(both, 20, 20);
    assert_int_equal(range_map_insert(both, &run), 0);
}

static void split(struct range_map *both)
{
    assert_int_equal(range_map_split(both, at_page(20) + 0x800), 0);
}

static void merge(struct range_map *both)
{
    assert_true(range_map_merge(both, at_page(20)));
}

static void cut_middle(struct range_map *both)
{
    assert_int_equal(range_map_cut(both, at_page(20) + 0x400, at_page(20) + 0x7ff), 0);
}

static void cut_front(struct range_map *both)
{
    assert_int_equal(range_map_cut(both, at_page(19), at_page(20) + 0x7ff), 0);
}

static void cut_end(struct range_map *both)
{
    assert_int_equal(range_map_cut(both, at_page(20) + 0x10, at_page(21)), 0);
}

static void retag(struct range_map *both)
{
    assert_int_equal(range_map_retag(both, at_page(20), at_page(20) + PAGE - 1, 1), 0);
}

static const struct scene scenes[] = {
    {"the first run", 0, NULL, insert_one, 21},
    {"the last run goes", 1, NULL, erase_all, 0},
    {"a run comes", 12, NULL, insert_one, 20},
    {"a run goes", 12, NULL, erase_one, 20},
    {"the root is split", 15, NULL, insert_one, 20},
    {"the root is split often", 15, NULL, fill_page_21, 20},
    {"the root goes", 30, NULL, erase_nearly_all, 20},
    {"all goes", 200, NULL, erase_all, 20},
    {"leaves are split", 200, NULL, fill_page_21, 20},
    {"leaves are merged", 200, fill_page_21, erase_many, 20},
    {"inner nodes are split", 900, NULL, fill_page_21, 20},
    {"inner nodes are merged", 900, NULL, erase_nearly_all, 20},
    {"leaves are used again", 200, NULL, reuse, 20},
    {"replaced", 200, NULL, replace, 20},
    {"split", 200, NULL, split, 20},
    {"merged", 200, split, merge, 20},
    {"cut in two", 200, NULL, cut_middle, 20},
    {"cut at the front", 200, NULL, cut_front, 20},
    {"cut at the end", 200, NULL, cut_end, 20},
    {"another tag", 200, NULL, retag, 20},
};

static void put_runs(size_t runs)
{
    for (unsigned i = 0; i < runs; i++) {
        put(&map, at_page(2 * i), at_page(2 * i) + PAGE - 1);
    }
}

static void open_scene(const struct scene *scene)
{
    size_t memory;

    range_map_init(&map);
    put_runs(scene->runs);
    if (scene->prepare) {
        scene->prepare(&map);
    }
    assert_int_equal(range_map_reserve(&map, 100), 0);
    node_count = 0;
    collect();
    take_image(BEFORE);
    memory = range_map_memory(&map);
    scene->change(&map);
    assert_int_equal(range_map_memory(&map), memory); /* nothing came, nothing went */
    take_image(AFTER);
    assert_true(map_images[AFTER][VERSION] > map_images[BEFORE][VERSION]);
    assert_int_equal(map_images[AFTER][VERSION] % 2, 0);
}

static void close_scene(void)
{
    show_image(AFTER);
    range_map_check(&map);
    for (unsigned i = 0; i < node_count; i++) {
        free(nodes[i].images[BEFORE]);
        free(nodes[i].images[AFTER]);
    }
    range_map_fini(&map);
}

static void test_scenes(void **state)
{
    (void)state;
    random_state = 1;
    for (unsigned i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++) {
        const struct scene *scene = &scenes[i];
        const uint64_t addresses[] = {
            at_page(scene->page),
            at_page(scene->page) + 0x7ff,
            at_page(scene->page) + PAGE,
            at_page(50) + 1,
            at_page(2003),
            UINT64_MAX,
        };

        open_scene(scene);
        for (unsigned j = 0; j < sizeof(addresses) / sizeof(addresses[0]); j++) {
            unsigned steps = undisturbed(addresses[j]);

            assert_true(steps >= 4);
            disturbed(addresses[j], steps);
        }
        close_scene();
    }
}

/* A change that is over when the look-up begins, and one that is under way all the time. */
static void test_only_odd_versions_hide(void **state)
{
    struct answer answer;

    (void)state;
    open_scene(&scenes[3]);
    show_image(BEFORE);
    other.first = other.then = UINT32_MAX;
    answer = ask(at_page(20));
    assert_int_equal(answer.kind, RANGE_FOUND);
    assert_true(range_map_is(&map, answer.version));
    map.version++;
    assert_int_equal(ask(at_page(20)).kind, RANGE_CHANGES);
    assert_false(range_map_is(&map, answer.version));
    map.version++;
    assert_int_equal(ask(at_page(20)).kind, RANGE_FOUND);
    assert_false(range_map_is(&map, answer.version));
    close_scene();
}

/* What is taken out is kept until it is asked back; and while a map changes nobody is told. */
static void test_keeps_and_trims(void **state)
{
    struct range_erased erased;
    struct range_run run;
    uint64_t version;
    size_t most;

    (void)state;
    range_map_init(&map);
    range_map_keep(&map);
    put_runs(1000);
    assert_int_equal(range_map_peek(&map, 2 * PAGE, &run, &version), RANGE_FOUND);
    most = range_map_memory(&map);
    assert_int_equal(range_map_erase_inside(&map, 0, UINT64_MAX, &erased), 0);
    assert_int_equal(erased.count, 1000);
    assert_false(range_map_is(&map, version));
    assert_int_equal(range_map_memory(&map), most);
    range_map_trim(&map);
    assert_true(range_map_memory(&map) < most / 4);
    assert_int_equal(range_map_peek(&map, 2 * PAGE, &run, &version), RANGE_FREE);
    map.version++;
    assert_int_equal(range_map_peek(&map, 2 * PAGE, &run, &version), RANGE_CHANGES);
    map.version++;
    range_map_fini(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scenes),
        cmocka_unit_test(test_only_odd_versions_hide),
        cmocka_unit_test(test_keeps_and_trims),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
