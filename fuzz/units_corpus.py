# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the fuzz target of units of any configuration; make_corpus.py writes them. See units_fuzz.c."""
import struct

VTD, VIRTIO, ANY = 0, 1, 2
CREATE, ADD, SUBSCRIBE, USE, _, REQUEST, LIVE = range(7)
START, _, ANSWER, PROCESS, COMPLETE, OTHER, RESET, ACCEPT, DRIVER_RESET, REMOVE, RENAME, ADMIT, COMMON, BUDGET = range(14)
TRANSLATE, WRITE, READ, MANY, ATS, MESSAGE, ALIAS, NO_ALIAS = range(8)
INTERRUPT, BELOW, ABOVE, TOP, ANYWHERE, LOW = range(6)


def op(what, *parts, fail=0):
    return bytes([what | fail << 3]) + b"".join(p if isinstance(p, bytes) else bytes([p]) for p in parts)


def vtd(width=0, host=0, flags=0, bits=0, records=0):
    return bytes([width | host << 3, flags, bits]) + struct.pack("<H", records)


def virtio(span=0x58, features=0x77, pages=0, first=0, last=0, host=0, probe=0, faults=0, bypass=0):
    return bytes([span | bypass << 7]) + struct.pack("<HQ", features, pages)[:7] + bytes([first, last, host]) + \
        struct.pack("<L", probe)[:3] + struct.pack("<L", faults)[:3]


def create(model, config, fail=0):
    return op(CREATE, model, config, fail=fail)


def live(what, more=0, *rest, fail=0):
    return op(LIVE, what | more << 4, *rest, fail=fail)


def add(number, shared=0, ats=0, fail=0, index=None):
    return op(ADD, number | shared << 2 | ats << 3 | (number if index is None else index) << 5, fail=fail)


def mirror(number, sizes=0, last=None, form=1, cache=0, few=0, late=0, fail=0):
    return op(SUBSCRIBE, number | cache << 2 | form << 3 | sizes << 4 | (last is not None) << 7,
              (last or 0) | few << 6 | late << 7, fail=fail)


def use(what, number, where=LOW, low=0x100, perm=1, more=0x04, length=None, fail=0):
    out = op(USE, number | what << 2 | perm << 6, more, where, struct.pack("<H", low), fail=fail)
    return out if length is None else out + bytes([LOW]) + struct.pack("<H", length)


def every_use(number):
    return b"".join(use(what, number, where, low, perm, more, 0x800 if what == ATS else None)
                    for what in (TRANSLATE, WRITE, READ, MANY, ATS, MESSAGE) for where in (INTERRUPT, BELOW, ABOVE, TOP, LOW)
                    for low in (0, 0xfff) for perm in (0, 1, 2) for more in (4, 0x84))


def attach(number):
    return op(REQUEST, number << 6, 0, 0)


def mapped(page, more=0, perm=3):
    return op(REQUEST, 1 | perm << 4, page, more)


def unmapped(page, more=0):
    return op(REQUEST, 2, page, more)


def seeds():
    out = {}
    vtds = [vtd(*one) for one in ((0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,), (2, 1), (2, 3), (2, 19), (2, 20), (2, 0, 0, 3), (2, 0, 0, 4),
                                  (2, 0, 0, 5), (2, 0, 0, 16), (2, 0, 0, 17), (2, 0, 0, 18), (2, 0, 0, 0, 1), (2, 0, 0, 0, 256),
                                  (2, 0, 0, 0, 257), (2, 0, 0, 0, 65535), (2, 0, 0x28), (2, 0, 0x20), (2, 0, 8), (2, 0, 0x1f))]
    virtios = [virtio(**one) for one in (
        {}, {"features": 0}, {"features": 0x37}, {"features": 0x7f}, {"features": 0x3f}, {"features": 0x8077}, {"features": 0x77 & ~4},
        {"features": 4}, {"pages": 0x1000}, {"pages": 0x200000}, {"pages": 0x800}, {"pages": 1 << 30}, {"pages": 1 << 31}, {"pages": 1},
        {"span": 7}, {"span": 0x08}, {"span": 0x0a}, {"span": 0x78}, {"span": 0x59}, {"first": 5, "last": 4}, {"first": 4, "last": 5},
        {"first": 3}, {"host": 31}, {"host": 32}, {"host": 64}, {"host": 65}, {"probe": 23}, {"probe": 24}, {"probe": 65536},
        {"probe": 65537}, {"faults": 65536}, {"faults": 65537}, {"bypass": 1}, {"features": 0x37, "bypass": 1})]
    out["configurations"] = bytes([VTD]) + b"".join(create(VTD, one) for one in vtds) + b"".join(create(VIRTIO, one) for one in virtios)
    out["common"] = bytes([VTD]) + b"".join(live(COMMON, 0, which, value) for which in range(7)
                                            for value in (0, 1, 2, 3, 4, 7, 8, 10, 24, 25, 255))
    for fail in range(1, 12):
        out["common-no-memory-%02d" % fail] = bytes([VTD]) + live(COMMON, 0, 0, 0, fail=fail) + live(COMMON, 0, 5, 2, fail=fail)
        out["no-memory-%02d" % fail] = bytes([fail & 1]) + create(VTD, vtds[0], fail) + create(VIRTIO, virtios[0], fail) + \
            add(0, fail=fail) + add(1, 0, 1, fail=fail) + add(0) + mirror(0, fail=fail) + live(START, fail=fail) + live(START) + \
            mirror(1, cache=1, fail=fail) + attach(0) + mapped(1) + use(TRANSLATE, 0, fail=fail) + use(ALIAS, 0, fail=fail) + \
            op(REQUEST, 1 | 3 << 4, 5, 0, fail=fail) + op(REQUEST, 0, 0, 0, fail=fail) + live(PROCESS)
    for model in (VTD, VIRTIO):
        two = add(0, 0, model == VTD) + add(1, 0, model == VTD) + add(2, 1, 0, index=3) + add(3, 1, 0, index=3)
        setup = two + live(START) + live(ACCEPT, 1) + attach(0) + attach(1) + mapped(1, 3)
        alias = b"".join(use(ALIAS, 0, perm=n) for n in range(4))
        name = "vtd" if model == VTD else "virtio"
        out["early-" + name] = bytes([model]) + two + every_use(0)[:2600] + live(ACCEPT) + live(DRIVER_RESET) + attach(0) + \
            live(OTHER, 0, 0) + live(OTHER, 0, 8) + live(RESET)
        for part, half in enumerate((slice(0, 1500), slice(1500, 3000), slice(3000, None))):
            out["uses-%s-%d" % (name, part)] = bytes([model]) + setup + alias + every_use(0)[half]
        out["lists-" + name] = bytes([model]) + setup + b"".join(
            use(MANY, 0, where, low, perm, more) for where in (LOW, INTERRUPT, BELOW) for low in (0x0fe, 0x100, 0x400, 0xfff)
            for perm in (0, 1, 3) for more in range(7))
        out["translations-" + name] = bytes([model]) + setup + b"".join(
            use(ATS, number, LOW, low, perm, more, length) for number in (0, 1, 2) for low in (0, 0x100, 0x3ff) for perm in (0, 1)
            for more in (0, 1, 5, 6, 0x40, 0x85, 0x8d) for length in (0, 0x800))
        out["others-" + name] = bytes([model]) + two + b"".join(live(OTHER, 0, n) for n in range(0, 128, 5)) + live(START) + \
            b"".join(live(OTHER, 0, n) for n in range(0, 128, 5))
        out["configured-" + name] = bytes([model]) + b"".join(live(OTHER, 0, n) for n in (0x20, 0x30, 0)) + mirror(0) + \
            add(0, 0, 1) + live(OTHER, 0, 0) + live(OTHER, 0, 0x10) + mirror(0) + live(OTHER, 0, 0x20) + live(OTHER, 0, 0x70)
        for form in (0, 1):
            narrow = b"".join(mirror(0, sizes, last, form, few=few) + mirror(0) for sizes in range(6)
                              for last, few in ((None, 0), (11, 0), (12, 0), (29, 1), (37, 0), (38, 1), (39, 0), (46, 0), (47, 0), (55, 1), (56, 0)))
            out["narrow-%s-%d" % (name, form)] = bytes([model]) + two + narrow + live(START) + narrow
        for width in (1, 2, 3):
            out["narrow-width-%d-%s" % (width, name)] = bytes([model | ANY]) + (vtd(width, 0, 0x21) if model == VTD else virtio()) + two + \
                b"".join(mirror(0, sizes, last) + mirror(0) for sizes in (3, 2, 1) for last in (56, 47, 46, 38, 37)) + \
                mirror(0, 2, 47) + mirror(1, 2, 38) + live(START) + attach(0) + mapped(3)
        for answer in range(16):
            out["answers-%s-%d" % (name, answer)] = bytes([model]) + two + mirror(0, form=answer & 1) + mirror(1, few=1) + live(START) + \
                live(ACCEPT, 1) + live(PROCESS) + attach(0) + attach(1) + mapped(1) + live(PROCESS) + live(ANSWER, answer, 16 * (answer & 1)) + \
                mapped(4, 2) + mapped(8) + live(BUDGET, 3) + live(COMPLETE) + live(PROCESS) + unmapped(1) + live(BUDGET, 3) + \
                live(COMPLETE, answer & 1) + live(PROCESS) + attach(1) + live(REMOVE, 1) + live(ADMIT, 0) + live(RENAME, 0, 33) + \
                live(DRIVER_RESET) + live(ANSWER) + live(PROCESS) + live(RESET) + live(PROCESS)
    for what, config in (("no-input", virtio(features=0x77 & ~1)), ("small", virtio(span=0x18)), ("large-pages", virtio(pages=0x200000)),
                         ("late", virtio(span=0x5f)), ("none-lower", virtio(features=0x74))):
        out["narrow-" + what] = bytes([VIRTIO | ANY]) + config + add(0) + b"".join(
            mirror(0, sizes, last, late=late) + mirror(0) for sizes in (1, 2, 3, 4, 0) for last in (None, 11, 12, 13, 20, 30, 46, 62)
            for late in (0, 1)) + live(START) + mirror(0)
    out["whole"] = bytes([VIRTIO | ANY]) + virtio(span=0x78, host=64) + add(0) + live(START) + live(ACCEPT, 1) + attach(0) + \
        every_use(0)[:1200] + op(REQUEST, 0xff, 0, 0) + every_use(0)[:1200] + live(OTHER, 0, 3)
    out["bypass"] = bytes([VIRTIO | ANY]) + virtio(bypass=1) + add(0) + add(1) + live(START) + every_use(0)[:2000] + live(REMOVE, 0) + \
        use(TRANSLATE, 1)
    return out
