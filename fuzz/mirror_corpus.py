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
    made["queue"] = start + tables + m_full(7, 9, 1) + queue + edits[:40] + queue
    wide = b"".join(m_path(5, leaf, iova, 8) + m_path(5, leaf, iova + 4096, 0x48)
                    for leaf in (1, 2, 3) for iova in (0, (1 << 48) - 4096, (1 << 57) - 4096))
    for quota in range(M_QUOTAS):
        start = bytes([64 | quota << 1, 4, 0, 1])
        made[f"wide-{quota}"] = start + wide + contexts + syncs + edits + selves
    return made


def seeds():
    return life_seeds()
