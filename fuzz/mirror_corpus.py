# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the mirror target: what mirrors follow (mirror_fuzz.c)."""
import struct

M_QUOTAS = 4


def m_some(page, first, kind, log=0, step=0, more=b""):
    """2^log entries of a page, alike or (step) one after another."""
    where = bytes([0, page | log << 5]) + struct.pack("<H", first | step << 15)
    return where + bytes([kind]) + more


def m_full(page, kind, step=0):
    return b"".join(m_some(page, first, kind, 7, step) for first in range(0, 512, 128))


def m_path(levels, leaf, iova, entry):
    where = struct.pack("<Q", iova >> 9)[:6] if levels == 5 else struct.pack("<Q", iova >> 8)[:5]
    return (bytes([1, (levels > 3) | (leaf - 1) << 1]) + where +
            b"\x00" * (levels - leaf) + bytes([entry]))


def m_context(device, levels, type_, domain=0, table=0):
    return bytes([2, device | (levels - 3) << 1 | type_ << 2 | domain << 5 | table << 6])


def m_context_flush(granularity=1):
    return bytes([3, 1 | granularity << 1])


def m_flush(granularity=1, domain=0, page=0, mask=0):
    out = bytes([3, granularity << 1 | domain << 5 | mask << 3])
    return out + (struct.pack("<Q", page << 4)[:5] if granularity == 3 else b"")


def m_command(kind):
    return bytes([5, kind])


def m_embedder(kind, argument=0, more=b""):
    return bytes([6, kind | argument << 3]) + more


M_PROCESS, M_STEP, M_CLOCK, M_ANSWER, M_COMPLETE, M_SUBSCRIBE, M_MEMORY, M_DEVICE = range(8)


def life_seeds():
    made = {}
    run = m_embedder(M_PROCESS, 31) * 4
    steps = m_embedder(M_STEP, 31) * 4 + m_embedder(M_PROCESS, 0) * 4
    tables = b""
    for levels in (3, 4):
        for leaf in (1, 2, 3):
            for iova in (0, 0x1ff000, 0x3ffff000, 0xfee00000, (1 << 12 + 9 * levels) - 4096):
                tables += m_path(levels, leaf, iova, 8) + m_path(levels, leaf, iova + 4096, 0x48)
    contexts = b"".join(m_context(d, levels, t, d, d) + m_context_flush() + run
                        for d in (0, 1) for levels in (3, 4) for t in (0, 2, 3, 1))
    syncs = b"".join(m_flush(g, d, page, mask) + run for g in (1, 2, 3) for d in (0, 1)
                     for page in (0, 0x1ff) for mask in (0, 1))
    memory = b"".join(m_embedder(M_MEMORY, rom) + run for rom in (0, 0, 1, 1, 0))
    edits = b""
    for kind in (0x40, 0x41, 0x60, 0, 5, 0xc0, 0x80 | 3, 0xa0 | 3):
        edits += m_some(7, 0x1f0, kind, 5, 1, b"\x00") + m_flush(2) + run
        edits += m_some(7, 0x1f8, kind, 2, 0, b"\x00") + m_flush(3, 0, 0x1f9, 0) + run
    commands = b"".join(m_command(kind) + run for kind in (0, 0, 4 | 1, 2, 3, 2, 0, 0))
    devices = b"".join(m_embedder(M_DEVICE, a) + run for a in (2, 3, 4, 5, 4, 24)) + commands[:8]
    failures = b"".join(m_embedder(M_ANSWER, answer) + edits[:60] + m_embedder(M_CLOCK, 3) + run +
                        m_embedder(M_COMPLETE, answer & 1) + run + m_embedder(M_CLOCK, 12) + run +
                        m_embedder(M_ANSWER, 0) + m_embedder(M_DEVICE, 2) + run
                        for answer in (1, 2, 3, 4))
    subscribe = b"".join(m_embedder(M_SUBSCRIBE, m, bytes([k, k * 7 & 0xf7])) + run
                         for k in (0, 4, 7, 0x84, 0x0c, 0x2c, 0x54) for m in (2, 3))
    body = tables + contexts + syncs + edits + memory
    for quota in range(M_QUOTAS):
        for i, kind in enumerate((0, 4, 7, 0x84, 0x57)):
            start = bytes([quota << 1 | i << 3 & 0x38, kind, kind ^ 4, 0])
            made[f"life-{quota}-{i}"] = start + body
    start = bytes([4, 4, 0, 1])
    made["commands"] = start + tables + edits + commands + syncs + devices + edits
    made["failures"] = start + tables + failures + syncs
    made["subscribe"] = start + tables + subscribe + edits + subscribe
    # A table that leads to itself from each entry; one that leads twice; one table in 2^18 places.
    selves = m_full(4, 4) + m_flush() + steps + m_flush(2) + steps
    twice = m_some(4, 0, 4, 1) + m_flush() + steps + m_some(4, 511, 4) + m_flush(2) + steps
    many = (m_some(4, 0, 5) + m_full(5, 6) + m_full(6, 7) + m_full(7, 0x40) + m_flush() + steps +
            m_full(7, 0x41, 1) + m_flush(2) + steps + m_full(6, 0xc0) + m_flush() + steps)
    for quota in range(M_QUOTAS):
        for name, hostile in (("selves", selves), ("twice", twice), ("many", many)):
            made[f"{name}-{quota}"] = bytes([quota << 1, 4, 0, 1]) + hostile
    queue = m_command(2) + (m_flush(2) * 100 + m_flush(2, 4)) * 2 + steps
    # As many tables as are looked at, nearly, with nothing in them; and so many commands that look.
    made["many-commands"] = bytes([0, 4, 0, 1]) + m_full(6, 7) + m_full(5, 6) + m_some(4, 0, 5, 1) + \
        m_some(4, 2, 5, 0) + queue
    made["queue"] = start + tables + m_full(7, 9, 1) + queue + edits[:40] + queue
    wide = b"".join(m_path(5, leaf, iova, 8) + m_path(5, leaf, iova + 4096, 0x48)
                    for leaf in (1, 2, 3) for iova in (0, (1 << 48) - 4096, (1 << 57) - 4096))
    for quota in range(M_QUOTAS):
        start = bytes([64 | quota << 1, 4, 0, 1])
        made[f"wide-{quota}"] = start + wide + contexts + syncs + edits + selves
    return made



# What the tables of the walk's seeds lead to: EXTRA, which is there from the beginning on.
EXTRA, LARGE = 0x200000, 0x80
ONE, TWO = 0, 1  # of two trees; their pages of each level
TREES = {ONE: (4, 8, 9, 10), TWO: (5, 11, 12, 13)}


def m_raw(page, first, entry, log=0, step=0):
    return m_some(page, first, 0xe0, log, step, struct.pack("<Q", entry))


def m_all(page, entry, step=1):
    return b"".join(m_raw(page, first, entry + first * 4096 * step, 7, step) for first in range(0, 512, 128))


def m_tree(which, leaf=1):
    pages = TREES[which]
    return b"".join(m_some(pages[i], 0, pages[i + 1]) for i in range(4 - leaf))


def walk_seeds():
    work = m_embedder(M_PROCESS, 31)
    run = work * 4
    steps = m_embedder(M_STEP, 31) * 4 + m_embedder(M_PROCESS, 0) * 4
    sync, gone, hole = m_flush(2) + run, 0xc0, 0x98
    begin = m_embedder(M_MEMORY) + run + m_tree(ONE)
    leaf, upper = TREES[ONE][3], TREES[ONE][2]

    def alone(count, first=0, page=leaf, gpa=EXTRA):
        """Pages that follow one another, each a mapping of its own."""
        return b"".join(m_raw(page, i, gpa + i * 4096 + 3) + m_flush(3, 0, i) + work for i in range(first, first + count))

    def change(first, log, gpa, perm=3):
        return m_raw(leaf, first, gpa + perm, log, 1) + sync

    def switch(which):
        return m_context(0, 4, 0, 0, which) + m_context_flush() + run + m_flush() + steps

    cut = m_some(upper, 0, gone) + m_some(upper, 1, gone)
    many = begin + m_all(leaf, EXTRA + 3, 0) + m_some(upper, 1, leaf) + m_flush() + steps
    some = m_some(leaf, 0, gone, 7) + m_some(leaf, 200, gone, 5) + m_some(leaf, 300, 9)
    holes = begin + m_raw(leaf, 0, EXTRA + 3) + m_some(leaf, 1, hole, 7, 0, b"\0") + m_raw(leaf, 150, EXTRA + 3) + \
        m_some(leaf, 151, hole, 7, 0, b"\0") + m_raw(leaf, 290, EXTRA + 0x2003, 2, 1) + sync
    lives = {
        "spans": many + cut + m_flush() + steps,
        "spans-some": many + some + sync + m_all(leaf, EXTRA + 0x1003, 0) + sync + cut + m_flush() + steps,
        "spans-fail": begin + m_embedder(M_ANSWER, 2) + m_raw(leaf, 3, EXTRA + 3, 2) + sync + m_embedder(M_ANSWER) +
        m_raw(leaf, 7, EXTRA + 3, 2) + m_raw(leaf, 0, EXTRA + 3, 1) + sync + m_some(leaf, 0, gone, 4) + sync,
        "holes": holes + m_some(leaf, 0, gone, 7) + m_some(leaf, 128, gone, 7) + m_some(leaf, 256, gone, 7) + m_flush() + steps,
        "holes-cut": holes + m_some(upper, 0, gone) + m_flush() + steps,
        "holes-large": holes + m_raw(upper, 0, EXTRA + LARGE + 3) + m_flush() + steps + m_some(upper, 0, leaf) + m_flush() + steps,
        "crowded": begin + alone(45) + m_raw(leaf, 10, EXTRA + 0x90003) + sync + m_some(leaf, 20, gone) + sync +
        change(18, 2, EXTRA + 18 * 4096) + alone(10, 50) + cut + m_flush() + steps,
        "crowded-parts": begin + b"".join(m_raw(leaf, 4 * i, EXTRA + 4 * i * 4096 + 3) + m_flush(3, 0, 4 * i) + work
                                          for i in range(36)) +
        b"".join(change(4 * i + 1, 1, EXTRA + (4 * i + 1) * 4096) for i in range(0, 12, 2)) + change(0, 6, EXTRA) + steps,
        "odd": begin + m_tree(TWO, 2) + m_raw(TREES[TWO][2], 0, EXTRA + LARGE + 3) + alone(80) +
        m_raw(leaf, 80, EXTRA + 80 * 4096 + 3, 6, 1) + sync + switch(TWO) + switch(ONE) + switch(TWO) + change(40, 0, EXTRA) +
        switch(ONE) + switch(TWO),
        "odd-first": begin + m_tree(TWO, 2) + m_raw(TREES[TWO][2], 0, EXTRA + LARGE + 3) + switch(TWO) + alone(3) +
        m_raw(leaf, 3, EXTRA + 3 * 4096 + 3, 6, 1) + switch(ONE) + m_raw(leaf, 1, EXTRA + 0x1003, 5, 1) + m_flush() + steps +
        m_raw(leaf, 0, EXTRA + 0x3003, 5) + m_flush() + steps + switch(TWO) + switch(ONE),
        "replace": begin + change(4, 2, EXTRA) + change(4, 2, EXTRA + 0x10000) + change(2, 3, EXTRA) + change(5, 1, EXTRA + 0x8000) +
        change(4, 0, EXTRA) + change(4, 0, EXTRA + 0x1000) + change(3, 1, EXTRA) + change(4, 1, EXTRA + 0x4000) +
        change(4, 0, EXTRA, 1) + change(3, 2, EXTRA + 0x20000, 1),
        "parts": begin + b"".join(
            m_all(leaf, EXTRA + 3, step) + m_some(upper, 0, leaf) + m_flush() + steps + m_some(upper, 0, gone) +
            m_flush(3, 0, 5, 0) + run + m_flush(3, 0, 64, 3) + run + m_flush(3, 0, 0, 2) + run + m_flush() + steps +
            m_some(leaf, 0, gone, 4) + m_some(leaf, 500, gone, 4) + m_some(upper, 0, leaf) + m_flush() + steps +
            m_some(upper, 0, gone) + m_flush(3, 0, 8, 2) + run + m_flush(3, 0, 12, 3) + run + m_flush(3, 0, 508, 2) + run
            for step in (1, 0)),
        "unusable": begin + m_raw(leaf, 3, 1 << 51 | EXTRA + 3) + sync + sync + m_raw(leaf, 3, 1 << 51 | EXTRA + 0x1003) +
        m_flush(3, 0, 3) + run + m_raw(leaf, 2, EXTRA + 3) + sync + m_flush(3, 0, 3) + run + m_all(leaf, LARGE | 3) + sync + sync,
    }
    # A page of 1 GiB becomes a table whose first blocks say the same, and comes back.
    huge = m_embedder(M_MEMORY) + run + m_some(4, 0, 8) + m_raw(8, 0, LARGE | 3) + m_flush() + steps
    blocks = m_raw(9, 0, LARGE | 3) + m_raw(9, 1, 0x200000 | LARGE | 3) + m_raw(9, 2, 0x400000 | LARGE | 3)
    halves = m_raw(10, 0, 3, 7, 1) + m_raw(10, 128, 128 * 4096 + 3, 7, 1)
    rest = m_raw(10, 256, 256 * 4096 + 3, 7, 1) + m_raw(10, 384, 384 * 4096 + 3, 7, 1)
    lives["huge"] = huge + blocks + m_some(8, 0, 9) + m_flush() + steps + m_raw(8, 0, LARGE | 3) + m_flush() + steps
    lives["huge-pages"] = huge + m_some(8, 0, 9) + m_some(9, 0, 10) + halves + m_flush() + steps + rest + m_flush() + steps + \
        m_raw(8, 0, LARGE | 3) + m_flush() + steps
    lives["huge-alike"] = huge + m_some(8, 0, 9) + m_some(9, 0, 10) + m_all(10, 3, 0) + m_flush() + steps + \
        m_raw(8, 0, LARGE | 3) + m_flush() + steps
    # The two mirrors: blocks; ranges; ranges that are replaced; spans; few of each; all of it.
    made = {}
    for name, life in lives.items():
        for number, (one, other) in enumerate(((0, 4), (0x84, 7), (0x1c, 0x18), (0x9f, 0x87))):
            made[f"walk-{name}-{number}"] = bytes([6, one, other, 0]) + life
    for quota in range(3):
        for one, other in ((4, 0), (0x84, 0x1c)):
            for name in ("odd", "odd-first", "crowded"):
                made[f"walk-{name}-quota-{quota}-{one}"] = bytes([quota << 1, one, other, 0]) + lives[name]
    return made


def seeds():
    return {**life_seeds(), **walk_seeds()}
