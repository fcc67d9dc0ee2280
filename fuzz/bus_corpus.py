# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the fuzz targets of buses that are used, or made, wrongly; make_corpus.py writes them. See
bus_fuzz.c and bus_made_fuzz.c."""
import struct

ANSWER, SPACE, CPU, WALK, MAKE_CPU, MAKE_REGION, MAKE, WAIT = range(8)
BEGIN, END, SET, ACCESS, SAFE, FILL, FLUSH_PAGE, FLUSH = range(8)
NOWHERE, OTHERS, ONE = 0x80, 8, 16  # or an index as `last` says
BUS, MPC, TREE = 0, 1, 2
RAM, CHAIN = 0x8000, 0xe000
FOREVER = 63  # a page without an end


def op(what, *parts, fail=0):
    return bytes([what | fail << 3]) + b"".join(
        part if isinstance(part, bytes) else bytes([part]) for part in parts)


def short(value):
    return struct.pack("<H", value)


def answer(iommu, page=12, perm=3, target=RAM, space=2, refused=0, first=0, last=0xffff, flags=0):
    return op(ANSWER, iommu | flags | space << 5, page | perm << 6, short(first), short(last),
              short(target >> 8), refused)


def space(way, number, at, length, flags=0):
    """way: 0 read, 1 write, 2 where it leads, 3 ranges."""
    return op(SPACE, number | way << 5 | flags, short(at), length)


def cpu(what, number=0, at=0, more=0, index=0, secure=0):
    return op(CPU, number | index << 2 | what << 4 | secure << 7, short(at), more)


def begin(number=0, spaces=(0, 0)):
    return cpu(BEGIN, number) + b"".join(cpu(SET, number, 0, which, index, index)
                                         for index, which in enumerate(spaces))


def reach(number=0, at=0, use=0, length=8, index=0):
    return cpu(ACCESS, number, at, use | length << 2, index)


def wait(what, more=0, fail=0):
    return op(WAIT, what | more << 3, fail=fail)


def make_cpu(indexes=0, bits=0, entries=0, notifiers=0, fail=0):
    return op(MAKE_CPU, indexes, bits, short(entries), short(notifiers), fail=fail)


def make_region(kind, which=0, last=0xfff, offset=0, where=0, fail=0):
    return op(MAKE_REGION, kind | where << 3, which, short(last), short(offset), fail=fail)


def make_mpc(bits=12, blocks=70, flags=0, at=RAM, odd=0, value=0xff, fail=0):
    return op(MAKE, MPC, bits | flags, struct.pack("<L", blocks)[:3], short(at), odd, value, fail=fail)


def make_bus(kind, fail=0):
    return op(MAKE, BUS, kind, fail=fail)


def every_way(number, at, length=8):
    return b"".join(space(way, number, at, length, secure) for way in range(3) for secure in (0, 8))


def seeds():
    out = {}
    # First of all: a thread that finds no memory, before one leaves any.
    out["a-thread-without-memory"] = b"\0" + wait(5, 2) + wait(5, 0) + wait(5, 1) + wait(0)

    # One that has what it needs, where nothing is: the root is off.
    out["a-thread-where-the-root-is-off"] = b"\0" + wait(5) + wait(4, 0x10) + wait(4) + wait(5, 2) + wait(5, 4)

    # An IOMMU leads nowhere, to another bus, by an index that it does not have, by pages of any size.
    odd = b"".join(answer(iommu, page, perm, RAM, to, flags=flags) + every_way(0, 0x2000 * iommu + 0xffc)
                   for iommu in (0, 1) for page in (0, 12, FOREVER) for perm in (0, 1, 2, 3)
                   for to, flags in ((2, 0), (3, 0), (0, NOWHERE), (2, ONE)))
    for number in range(0, len(odd), 3200):
        out["answers-%d" % (number // 3200)] = b"\0" + odd[number:number + 3200]
    # Refusals: ignored, errors, positive numbers, taken back at once or forever, by way of itself.
    refusals = b"".join(answer(iommu, perm=perm, refused=error) + every_way(0, 0x2000 * iommu)
                        for iommu in (0, 1) for error in range(8) for perm in (0, 1))
    out["refusals"] = b"\0" + refusals
    # The one without `refused`, behind another; a loop of IOMMUs.
    out["refused-by-nobody"] = b"\0" + answer(0, space=1, target=0x2000) + \
        answer(3, perm=0) + every_way(0, 0) + answer(3, perm=3, space=0, target=0, page=FOREVER) + every_way(0, 0)

    # Registers: errors of every kind; pieces; each accesses the next; the IOMMU's owner's own.
    for chain in (0, 1):
        errors = b"".join(wait(7, chain | error << 2) + every_way(0, CHAIN + 0x10 * chain, length)
                          for error in range(8) for length in (1, 3, 4, 16))
        out["registers-fail-%d" % chain] = b"\0" + errors
    out["registers-in-a-chain"] = b"\0" + space(1, 0, CHAIN + 8, 4) + space(1, 0, CHAIN + 0x18, 4) + \
        space(1, 0, CHAIN + 0x10 * 17 + 8, 4) + wait(3) + wait(3, 1)
    own = b"".join(answer(1, page=FOREVER, target=CHAIN, space=0) + space(way, 0, 0x2000 + at, 4)
                   for way in (0, 1) for at in (0x30, 0x20, 0x34))
    out["registers-of-the-owner"] = b"\0" + own
    out["changed-in-a-callback"] = b"\0" + begin(0) + reach(0, 0) + reach(0, CHAIN + 4, 1, 4) + \
        space(1, 0, CHAIN + 4, 4) + cpu(SAFE) + cpu(BEGIN) + reach(0, CHAIN + 4, 1, 4) + cpu(END) + cpu(END) + \
        space(1, 0, CHAIN + 4, 4) + space(1, 0, CHAIN + 0x14, 16)

    # CPUs: page tables that say anything; several on a thread; runs in runs; asked too often.
    tables = b"".join(op(WALK, error << 4 | attrs << 3 | perm, short(0)) +
                      b"".join(reach(1, at, use, 8) + cpu(FILL, 1, at) for at in (0, RAM, 0xc000, CHAIN)
                               for use in (0, 1, 2))
                      for error in (0, 1, 2, 3) for attrs in (0, 1) for perm in (0, 1, 7))
    for number in range(0, len(tables), 1500):
        out["cpu-tables-%d" % (number // 1500)] = b"\0" + begin(1) + tables[number:number + 1500]
    two = begin(0) + begin(1) + begin(2, (3, 3))
    pages = b"".join(reach(number, at) + reach(number, at, 1) for number in range(3)
                     for at in (0, 0x1000, 0x2000, RAM, 0xa000, CHAIN))
    asks = answer(0) + answer(1) + wait(1)
    safe = cpu(SAFE, 0) + cpu(SAFE, 1) + cpu(SAFE, 2)
    out["cpu-beside-another"] = b"\0" + two + pages + asks + safe + pages + asks + cpu(SAFE, 1) + wait(1) + \
        cpu(SAFE, 0) + wait(1) + wait(0) + cpu(BEGIN, 0) + asks + safe + cpu(END, 0) + safe + cpu(END, 1) + \
        safe + cpu(END, 0) + cpu(END, 2) + wait(1) + wait(2) + wait(0)
    out["cpu-called-back"] = b"\0" + two + reach(0, CHAIN + 12, 1, 4) + reach(1, CHAIN + 12, 1, 4) + \
        cpu(BEGIN, 1) + reach(0, CHAIN + 12, 1, 4) + reach(1, CHAIN + 12, 1, 4) + reach(0, CHAIN + 4, 1, 4)
    out["cpu-elsewhere"] = b"\0" + wait(5, 4) + space(1, 0, CHAIN + 4, 4) + begin(1) + reach(1) + cpu(END, 1) + \
        wait(5, 4)
    out["iommu-gone"] = b"\0" + two + pages + wait(4, 0x10) + safe + pages + wait(4, 0x11) + wait(0) + \
        cpu(END, 0) + cpu(END, 1) + cpu(END, 2) + wait(0) + wait(0)
    out["cpu-wrongly"] = b"\0" + reach(0) + cpu(FILL) + cpu(SET, 0, 0, 3) + cpu(SET, 0, 0, 0, 3) + \
        cpu(FLUSH_PAGE, 0, 0, 0, 3) + begin(0) + cpu(SET, 0, 0, 4) + reach(0) + reach(0, index=3) + \
        reach(0, use=3) + cpu(FILL, index=3) + begin(0) + reach(0, 0x1f, 0, 63) + cpu(FLUSH)
    for kind in range(8):
        many = b"".join(reach(0, at, 0, 2, index) for at in range(0, 0x8000, 0x400) for index in (0, 1))
        out["cpu-many-%d" % kind] = bytes([kind]) + begin(0) + answer(2, space=2) + many[:1500] + \
            cpu(FLUSH, 0, 0, 1) + many[:600] + answer(0, perm=1, first=0, last=3) + answer(0, flags=ONE) + \
            answer(1, flags=OTHERS) + answer(1, first=9, last=8) + many[:300] + cpu(FLUSH, 0, 0, 1) + \
            answer(0) + many[:200]
    out["cpu-asked-too-often"] = b"\0" + begin(0) + pages[:60] + wait(6) + wait(6, 1) + cpu(SAFE) + pages[:60]
    far = answer(0, space=1, target=0) + answer(2, space=1, target=0x2000) + answer(3, space=0, target=0x2000) + \
        answer(1, space=2, target=0) + answer(4, space=2, target=0x2000) + answer(5, space=2)
    out["cpu-behind-six"] = b"\0" + begin(0) + far + reach(0) + cpu(FILL) + \
        answer(5, space=0, target=0, page=FOREVER) + reach(0) + cpu(FILL) + space(2, 0, 0, 0)
    hops = answer(0, space=1, target=0) + answer(2, space=1, target=0x2000) + answer(3, space=2)
    out["cpu-behind-three"] = b"\0" + begin(0) + hops + reach(0) + reach(0, 0x10) + answer(3, perm=1) + \
        reach(0) + reach(0, 0, 1) + wait(4, 0) + reach(0) + wait(4, 4) + reach(0)

    for number in range(3):
        out["ranges-%d" % number] = b"\0" + space(3, number, 0, 0, 0x80) + space(3, number, 0, 0) + space(3, number, 0, 0, 0x10)
    return out


def made_seeds():
    out = {}
    # What is made wrongly, and with too little memory.
    for name, configs in (("cpu", [make_cpu(*one) for one in (
            (17,), (16, 16), (0, 9), (0, 17), (0, 10, 15), (0, 0, 24), (0, 0, 0xc001), (0, 0, 0x401),
            (0, 0, 16, 4097), (0, 0, 16, 4096), (1, 12, 16, 1), (0, 0, 8))]),
            ("region", [make_region(kind, which, last, offset, where) for kind in range(8)
                        for which, last, offset, where in
                        ((0, 0xfff, 0, 0), (1, 0xfff, 0, 0), (2, 0xfff, 0, 3), (3, 0xfff, 0, 1), (4, 8, 0x1f, 2),
                         (5, 8, 0, 0), (0x46, 0x1f, 0, 0), (0x44, 0xffff, 0x3f, 0), (0x44, 0x1f, 0x1f, 0))]),
            ("mpc", [make_mpc(*one) for one in (
                (12,), (0,), (4,), (5,), (20, 3), (21,), (12, 0), (12, 70, 0x40), (12, 70, 0x80),
                (12, 70, 0, RAM, 1), (12, 70, 0, RAM, 2), (12, 70, 0, RAM, 3), (20, 70, 0, 0x1f),
                (5, 0xffffff, 0, 0), (5, 0xffffff, 0, 0, 4), (12, 33, 0, RAM, 2, 0), (12, 64), (5, 1 << 23))])):
        out["wrong-" + name] = b"".join(configs)
    poor = b"".join(make_cpu(2, 12, 16, 1, fail) + make_region(1, 0x44, fail=fail) +
                    make_region(5, 4, fail=fail) + make_mpc(fail=fail) + make_bus(3, fail)
                    for fail in range(1, 12))
    out["no-memory"] = poor
    out["buses"] = b"".join(make_bus(kind) for kind in (0, 1, 7, 0x0f, 0x17, 0x1f, 0x1e, 0x40, 0x4f, 0xbf))
    # Trees that are high, wide or deep: of nothing, of registers; side by side, over each other, out of sight.
    for flags in (0, 0x20, 0x40, 0x60):
        for odd in range(0, 32, 5):
            for pair, heights in enumerate(((3, 18), (19, 20), (31,))):
                out["tree-%02x-%02x-%d" % (flags, odd, pair)] = b"".join(
                    op(MAKE, TREE, high | flags, odd) for high in heights)
    return out
