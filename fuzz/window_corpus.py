# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the window target: pinned windows, and what a space closes to devices (window_fuzz.c)."""
import struct

VIRTIO, HOSTILE, NARROW, WATCHED, SPACE_FIRST, LATE, OFF = (1 << bit for bit in range(7))
BIG, RAM, NOWHERE, PLACE = 0, 1, 2, 3
READ, WRITE, BOTH = 1, 2, 3
EVERYTHING = 0xc0  # of a reservation: all there is
# The numbers of allocations each of which fails in a place of its own.
FAILING = {"windows": (1, 2, 3, 7), "first": (1, 2, 4, 5, 7), "allowed": (1, 2, 3, 4, 5, 8, 12, 13, 14, 17, 21),
           "reserve": (5, 15), "release": (3, 4, 8, 11), "devices": (1, 2, 5, 14), "mirror": (1, 2, 3, 4, 5, 8, 10, 13, 14, 15)}


def pin(slot, *ranges, device=0, alias=0, perm=READ, fence=False, room=0, wrong=0, fail=0):
    """Ranges are (page, offset, bytes)."""
    how = next(how for how in range(room << 4, (room << 4) + 16) if how % 6 == slot)
    out = bytes([fail << 3, device | alias << 2 | perm << 4 | fence << 6, how, wrong, len(ranges)])
    for page, offset, size in ranges:
        length = size - 1 if size <= 0x8000 else 0x8000 | (size - 1) >> 4
        out += struct.pack("<HH", page | offset << 5, length)
    return out


def table(target, first, count=1, step=1, perm=BOTH, second=0, fail=0):
    return bytes([2 | fail << 3, 0, target | step << 3 | perm << 5 | second << 7, first, count - 1])


def attach(device, detach=0, bypass=0, domain=0, alias=0):
    return bytes([2, 2, device | detach << 2 | bypass << 3 | domain << 4 | alias << 5])


def command(kind):
    return bytes([2, 3, kind])


CONTEXTS, PAGES, DOMAIN, ALL, TRANSLATION, SET_ROOT = command(0), command(9), command(5), command(1), command(2), command(3)


def memory(place, kind, fail=0):
    return bytes([4 | fail << 3, place | kind])


THERE, LATER, LONGER, OTHER, ROM = 64, 4, 8, 16, 32


def reserve(slot, kind, first, more, end=0, fail=0):
    return bytes([5 | fail << 3, slot | kind << 3 | end]) + struct.pack("<HH", first >> 8, more >> 8)


def embedder(kind, argument=0, *more, fail=0):
    return bytes([6 | fail << 3, kind | argument << 3, *more])


def process(budget=31, fail=0):
    return embedder(0, budget, fail=fail)


def clock(argument=31):
    return embedder(2, argument)


def elsewhere(what):
    return embedder(3, what)


def ats(page=0, fail=0):
    return embedder(4, page, fail=fail)


def subscribe(mirror, form=0, allowed=0, unspaced=0, cache=0, fail=0):
    return embedder(5, mirror | unspaced << 1 | form << 2 | allowed << 3 | cache << 4, fail=fail)


def device(number, what, high=0, other=0, fail=0):
    return embedder(6, 0, number | other << 2 | what << 3 | high << 6, fail=fail)


REMOVE, RENUMBER, ALIAS, UNALIAS, RESET = 0, 1, 2, 4, 5
MANY, RESET_ALL, SECTION = embedder(4, 31), embedder(4, 30), embedder(4, 29)
EVERY = TRANSLATION + TRANSLATION  # off and on


def windows():
    mapped = table(BIG, 16, 80) + table(PLACE, 0, 4) + table(PLACE + 1, 4, 4) + table(PLACE + 2, 8, 4)
    mapped += table(PLACE + 3, 12, 4) + process()
    large = pin(0, (16, 0, 79 * 4096))
    scattered = table(BIG, 128, 60, 2) + process()
    many_runs = pin(1, *((128 + 2 * i, 0, 4096) for i in range(7)), perm=BOTH)
    four = pin(2, *((4 * i, 256, 5000) for i in range(4)), perm=BOTH)
    asked = ALL + process() + process()
    life = mapped + large + scattered + many_runs + four
    yield "asked", life + asked + clock() + process() + clock() + process() * 3
    for name, change in (("other", THERE | OTHER), ("later", THERE | LATER), ("longer", THERE | LONGER),
                         ("rom", THERE | ROM), ("gone", 0)):
        for place in (0, 2):
            for first in (0, 1):  # pinned into the first page, or into the last ones only
                window = pin(2, (4 * place + 2 * first, 0, 4096), perm=BOTH, wrong=0x80)
                yield f"memory-{name}-{place}-{first}", mapped + window + memory(place, change) + asked + four + \
                    process() * 2 + memory(place, THERE) * 2 + four * 2 + process()
    for name, change in (("other", THERE | OTHER), ("later", THERE | LATER), ("longer", THERE | LONGER),
                         ("rom", THERE | ROM), ("gone", 0)):
        # The batch waits for the section, and the invalidation does not: it looks at a window into both.
        yield f"looked-{name}", mapped + pin(1, (1, 0, 64), (5, 0, 64), perm=BOTH) + ALL + SECTION + \
            memory(0, change) + process() * 2 + SECTION + process() * 2
        yield f"looked-{name}-2", mapped + pin(1, (1, 0, 64), (5, 0, 64), perm=BOTH) + ALL + SECTION + \
            memory(1, change) + process() * 2 + SECTION + process() * 2
    turn = pin(3, *((16, 2 * i, 64) for i in range(6)), perm=BOTH)
    late = turn * 9 + ALL + process() * 3 + turn
    yield "turns", mapped + (turn * 2 + table(PLACE, 16, 1) + late + table(BIG, 16, 1) + late) * 6
    yield "turns-read", mapped + (turn * 2 + table(BIG, 16, 1, perm=READ) + late + table(BIG, 16, 1)) * 6
    yield "rom", mapped + memory(1, THERE | ROM) * 2 + pin(0, (4, 0, 64), perm=BOTH) + pin(0, (4, 0, 64)) + asked
    yield "same", life + (PAGES + process() * 2 + CONTEXTS + process() * 2 + DOMAIN + process() * 2) * 2
    yield "longer-runs", mapped + table(BIG, 40, 3, 1, second=0) + large + table(PLACE, 40, 2) + asked
    yield "elsewhere-led", mapped + pin(0, (16, 0, 9000)) + table(NOWHERE, 16, 2) + asked
    yield "forbidden", mapped + pin(0, (16, 0, 9000), perm=BOTH) + table(BIG, 16, 2, perm=READ) + asked
    yield "refused", mapped + table(BIG, 240, 2, perm=READ) + table(RAM, 242, 2, perm=WRITE) + process() + \
        pin(0, (240, 0, 64), perm=BOTH) + pin(0, (242, 0, 64), perm=BOTH) + pin(0, (250, 0, 64), perm=BOTH) + \
        pin(0, (242, 0, 64), perm=WRITE) + pin(0, (15, 0, 9000)) + pin(1, (0x3ff, 0, 9))
    wrong = b"".join(pin(3, (16, 0, 64), wrong=kind, device=who) for kind in (1, 2, 3, 4, 5) for who in (0, 1))
    yield "wrong", mapped + wrong + pin(3) + pin(3, (16, 0, 64), perm=0) + pin(3, (16, 0, 64), alias=2)
    yield "no-room", mapped + pin(0, (0, 0, 4096), (16, 0, 4096), room=1) + pin(0, (0, 0, 64), (0, 64, 64), room=1)
    yield "adjoining", mapped + pin(0, (16, 0, 64), (16, 2, 64), (18, 0, 4096), (0, 0, 64)) + asked
    for n in FAILING["windows"]:
        yield f"no-memory-{n}", mapped + scattered + pin(1, *((128 + 2 * i, 0, 4096) for i in range(7)), fail=n) + \
            pin(2, *((4 * i, 256, 5000) for i in range(4)), fail=n) + asked
    for n in FAILING["first"]:
        yield f"no-memory-first-{n}", table(BIG, 1, 4) + pin(0, (1, 0, 64), fail=n) + pin(1, (1, 0, 64), device=1, fail=n) + asked
    yield "many", mapped + MANY + asked
    yield "elsewhere", mapped + large + asked + elsewhere(2) + elsewhere(3) + ALL + elsewhere(0) + process()
    aliased = device(1, ALIAS) + attach(0, alias=1) + mapped
    by_alias = pin(0, (16, 0, 64), device=1, alias=1)
    yield "alias", aliased + by_alias + CONTEXTS + asked
    yield "alias-gone", aliased + by_alias + device(1, UNALIAS) + CONTEXTS + asked + ALL + process() * 2
    yield "alias-other", aliased + by_alias + device(1, UNALIAS) + device(1, ALIAS, 1) + CONTEXTS + asked
    yield "renumbered", mapped + pin(0, (16, 0, 64)) + device(0, RENUMBER, 3, 1) + CONTEXTS + asked + ALL + process() * 2
    yield "unplugged", mapped + pin(0, (16, 0, 64)) + device(0, REMOVE) + ALL + process() + clock() + process() * 2 + \
        device(0, 0) + pin(1, (16, 0, 64)) + RESET_ALL + process() + device(0, RESET)
    yield "fenced", mapped + pin(0, (16, 0, 64), fence=True) + table(PLACE, 16, 1) + ALL + process() + clock() + \
        process() * 2 + pin(1, (16, 0, 64)) + device(0, RESET) + pin(1, (16, 0, 64))
    yield "ats", mapped + ats(16) + ats(0) + ats(8) + table(BIG, 17, 1, perm=READ) + ALL + process() + ats(16) + ats(9)
    yield "orphans", life + table(PLACE, 16, 40) + ALL + process(1)


RESERVED, MSI, SW_MSI, P2P = 2, 3, 4, 5


def spaces():
    mapped = table(BIG, 16, 80) + table(PLACE, 0, 4) + process()
    yield "reserve", mapped + b"".join(reserve(slot, kind, 0x300000 + 0x20000 * slot, 0x1000)
                                       for slot, kind in enumerate((0, 1, RESERVED, MSI, P2P))) + process() * 2
    yield "unaligned", b"".join(reserve(*one) for one in (
        (0, RESERVED, 0x100, 0x100), (1, RESERVED, 0x800, 0xf00), (2, RESERVED, 0x400, 0x100),
        (3, RESERVED, 0x301800, 0x100), (4, RESERVED, 0x301200, 0x100), (5, RESERVED, 0, 0))) + process()
    yield "first-bytes", reserve(0, RESERVED, 0x800, 0x10000) + reserve(1, RESERVED, 0, 0x10000, 0x40) + process()
    yield "last-bytes", reserve(0, RESERVED, 0x200, 0x10000, 0x40) + process()
    yield "everything", reserve(0, RESERVED, 0, 0, EVERYTHING) + device(0, REMOVE) + device(0, 0) + mapped + \
        reserve(0, RESERVED, 0, 0) + mapped
    yield "alone", b"".join(device(number, REMOVE) for number in range(3)) + reserve(0, RESERVED, 0x10000, 0x1000) * 2
    yield "movable", reserve(0, SW_MSI, 0x10000, 0) + mapped + reserve(1, RESERVED, 0x10000, 0xf00) + \
        reserve(2, SW_MSI, 0x10000, 0) + subscribe(0) + process() + reserve(3, RESERVED, 0x11000, 0x8000) + process()
    for form in (0, 1):
        for allowed in (0, 1):
            for plain in (0, 1):
                yield f"mirror-{form}-{allowed}-{plain}", subscribe(0, form, allowed, plain) + subscribe(1, form, 0) + \
                    mapped + process() * 2 + reserve(0, RESERVED, 0x10000, 0x1000) + reserve(1, RESERVED, 0x300000, 0) + \
                    reserve(2, RESERVED, 0x20000, 0x1000) + process() * 2 + subscribe(0) + reserve(0, RESERVED, 0x10000, 0) + \
                    process() + device(0, REMOVE) + device(3, REMOVE) + process()
    shared = reserve(0, RESERVED, 0x300000, 0x1000) + reserve(1, RESERVED, 0x20000, 0x800)
    yield "shared", shared + device(2, REMOVE) + mapped + device(2, 0) + device(3, REMOVE) + device(3, 0) + \
        reserve(0, RESERVED, 0, 0) + device(2, RENUMBER, 1) + device(3, RENUMBER, 1) + shared + process()
    yield "ids", shared + device(0, RENUMBER, 3, 1) + device(1, ALIAS) + device(1, ALIAS, 1) + shared + mapped + \
        device(1, UNALIAS) + device(0, RENUMBER, 0) + process()
    yield "bypass", attach(0, 1) + attach(1, 1) + attach(2, 1) + attach(0, bypass=1) + process() + reserve(0, RESERVED, 0x200000, 0xf00) + \
        reserve(1, RESERVED, 0x3000, 0x1f00) + reserve(0, RESERVED, 0, 0) + device(0, RENUMBER, 2, 1) + device(1, ALIAS) + \
        reserve(0, RESERVED, 0x202000, 0xff) + process()
    yield "held", subscribe(0, 1) + subscribe(1) + table(BIG, 16, 80) + process() * 2 + DOMAIN + process() * 2 + \
        reserve(0, RESERVED, 0x20000, 0xf00) + reserve(1, RESERVED, 0x5f000, 0xf00) + reserve(2, RESERVED, 0x60000, 0xf00) + process()
    yield "identity", device(0, REMOVE) + device(0, 0, 0, 1) + device(0, 0)
    both = (RESERVED, 0x20000, 0x800)
    yield "cache", subscribe(0, cache=1) + subscribe(1) + mapped + reserve(0, RESERVED, 0x300000, 0x100) + process()
    for n in FAILING["allowed"]:
        yield f"allowed-no-memory-{n}", subscribe(0, 1, 1) + subscribe(1, 1) + mapped + \
            reserve(0, RESERVED, 0x300000, 0x100, fail=n) + process()
    for n in FAILING["reserve"]:
        yield f"reserve-no-memory-{n}", subscribe(0) + device(1, ALIAS) + mapped + reserve(1, *both) + \
            reserve(0, RESERVED, 0x300000, 0x100, fail=n) + reserve(2, SW_MSI, 0x10000, 0, fail=n) + \
            reserve(3, RESERVED, 0x10000, 0xf00, fail=n) + process() + subscribe(0)
    for n in FAILING["release"]:
        yield f"release-no-memory-{n}", device(1, ALIAS) + reserve(0, *both) + reserve(1, RESERVED, 0x300000, 0x100) + \
            mapped + reserve(0, *both, fail=n) + process()
    for n in FAILING["devices"]:
        yield f"devices-no-memory-{n}", reserve(0, *both) + reserve(1, RESERVED, 0x300000, 0x100) + \
            device(2, REMOVE, fail=n) + device(2, 0, fail=n) + device(3, REMOVE, fail=n) + device(3, 0, fail=n) + \
            device(1, ALIAS, fail=n) + device(0, RENUMBER, 3, 1, fail=n) + process() + device(0, REMOVE) + \
            device(0, 0, fail=n) + device(0, 0)
    for n in FAILING["mirror"]:
        yield f"mirror-no-memory-{n}", mapped + subscribe(0, 1, 1, 1, fail=n) + subscribe(1, 1, 1, fail=n) + process() + \
            reserve(0, *both, fail=n) + process()


def seeds():
    """The first byte says how the unit is made; every life is led with both models."""
    made = {}
    for name, life in windows():
        for model, kind in (("vtd", 0), ("virtio", VIRTIO), ("hostile", HOSTILE)):
            made[f"{name}-{model}"] = bytes([kind]) + life
    for name, life in spaces():
        for model, kind in (("vtd", 0), ("virtio", VIRTIO)):
            made[f"{name}-{model}"] = bytes([kind]) + life
    mapped = table(BIG, 16, 80) + process()
    for kind in range(1, 7):
        life = mapped + pin(0, (16, 0, 70 * 4096)) + pin(1, (3, 0, 4096), device=1) + reserve(0, RESERVED, 0x300000, 0xff) + \
            subscribe(0, 1, 1, 1) + CONTEXTS + process() + clock() + process() + table(PLACE, 16, 4) + ALL + process()
        for model in (0, VIRTIO):
            made[f"made-{kind}-{model}"] = bytes([1 << kind | model | WATCHED * (kind > 3)]) + life
    return made
