# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the fuzz target of saved instances; make_corpus.py writes them. See instance_fuzz.c."""
import struct

VIRTIO, MIRRORS, POW2, LIMITS, SPACE, PENDING, TWO, RAW = (1 << bit for bit in range(8))
INSTANCE, MODEL, DEVICE, MIRROR = range(1, 5)
DEVICES = 4
OPTIONAL = 1
END = 0x8000
CAPS = 19  # bytes in front of a VT-d unit's registers
CONFIG = 46  # bytes of a virtio-iommu's configuration, at the beginning of its section


def start(kind, load=0, save=0, failing=0):
    return bytes([kind, load, save, failing])


def literal(kind, data=b"", number=0, version=1, flags=0, odd=0):
    return bytes([kind, number, version, flags, odd << 7]) + struct.pack("<H", len(data)) + data


def same(kind, number=0, version=1, flags=0):
    return bytes([kind, number, version, flags, 1])


def change(kind, *changes, number=0):
    """Changes are (where, how many bytes, value); END | n is n bytes before the end."""
    out = bytes([kind, number, 1, 0, 2, len(changes)])
    for where, width, value in changes:
        out += struct.pack("<HB", where, width - 1) + value.to_bytes(width, "little")
    return out


def prefix(kind, keep, data, number=0):
    return bytes([kind, number, 1, 0, 3]) + struct.pack("<HH", keep, len(data)) + data


def devices(skip=()):
    return [same(DEVICE, number) for number in range(DEVICES) if number not in skip]


# Devices are saved from the last to the first: two that share id 10, then 9, and 8 with alias 20.
SECOND, FIRST = 2, 3


def mirrors():
    return [same(MIRROR, SECOND), same(MIRROR, FIRST)]


def whole(model=None, instance=None, device=None, mirror=None):
    return b"".join([instance or same(INSTANCE), model or same(MODEL), *(device or devices()),
                     *(mirrors() if mirror is None else mirror)])


# ---- a virtio-iommu's own section

def mapping(first, last=None, target=0x1000, tag=3):
    return struct.pack("<QQQB", first, first + 0xfff if last is None else last, target, tag)


def domain(number, *mappings, bypass=0, count=None):
    return struct.pack("<IBI", number, bypass, len(mappings) if count is None else count) + b"".join(mappings)


def virtio(domains=(), endpoints=(), faults=(), requests=(), accepted=0x77, bypass=0, counts=(None,) * 4, more=b""):
    parts = [domains, [struct.pack("<HI", *one) for one in endpoints],
             [struct.pack("<BIHQ", *one) for one in faults], [struct.pack("<QB", *one) for one in requests]]
    out = struct.pack("<QB", accepted, bypass)
    for part, count in zip(parts, counts):
        out += struct.pack("<I", len(part) if count is None else count) + b"".join(part)
    return out + more


def virtio_states():
    one = domain(1, mapping(0x2000), mapping(0x3000, 0x5fff, 0, 1))
    two = domain(2, mapping(0x2000))
    both, ends = (one, two), ((8, 1), (9, 2))
    good = virtio(both, ends, ((1, 0x101, 8, 0x1000), (3, 2, 9, 5)), ((5, 0), (6, 8)))
    yield "good", good
    for cut in range(1, len(good)):
        if cut < 24 or cut % 3 == 0:
            yield "cut-%03d" % cut, good[:-cut]
    yield "longer", good + b"x"
    yield "accepted", virtio(accepted=1 << 40)
    yield "bypass", virtio(bypass=1)
    yield "bypass-2", virtio(bypass=2)
    yield "no-domains", virtio()
    yield "domains-many", virtio([domain(i) for i in range(4)])
    yield "domains-lie", virtio(counts=(3, 0, 0, 0))
    yield "domain-bypass", virtio((domain(1, bypass=1),), ((8, 1),))
    yield "domain-bypass-mapped", virtio((domain(1, mapping(0), bypass=1),), ((8, 1),))
    yield "domain-bypass-2", virtio((domain(1, bypass=2),), ((8, 1),))
    yield "domains-turned", virtio((two, one), ends)
    yield "domains-same", virtio((one, one), ends)
    yield "domain-unused", virtio(both, ((8, 1),))
    yield "domain-low", virtio((domain(0),), ((8, 0),))
    yield "domain-high", virtio((domain(6),), ((8, 6),))
    yield "domain-last", virtio((domain(0xffffffff),), ((8, 0xffffffff),))
    yield "mappings-many", virtio((domain(1, *(mapping(0x1000 * i) for i in range(17))),), ((8, 1),))
    yield "mappings-lie", virtio((domain(1, count=5),), ((8, 1),))
    yield "mapping-tag", virtio((domain(1, mapping(0, tag=0x80)),), ((8, 1),))
    yield "mapping-mmio", virtio((domain(1, mapping(0, tag=7)),), ((8, 1),))
    yield "mapping-none", virtio((domain(1, mapping(0, tag=0)),), ((8, 1),))
    yield "mapping-odd", virtio((domain(1, mapping(1)),), ((8, 1),))
    yield "mapping-back", virtio((domain(1, mapping(0x2000, 0xfff)),), ((8, 1),))
    yield "mapping-high", virtio((domain(1, mapping(1 << 60)),), ((8, 1),))
    yield "mapping-target", virtio((domain(1, mapping(0, target=0xfffffffffffff000)),), ((8, 1),))
    yield "mappings-turned", virtio((domain(1, mapping(0x2000), mapping(0)),), ((8, 1),))
    yield "mappings-over", virtio((domain(1, mapping(0, 0x2fff), mapping(0x1000)),), ((8, 1),))
    yield "endpoint-unknown", virtio((one,), ((8, 1), (77, 1)))
    yield "endpoint-domain", virtio((one,), ((8, 3),))
    yield "endpoints-turned", virtio(both, ((9, 2), (8, 1)))
    yield "endpoints-same", virtio((one,), ((8, 1), (8, 1)))
    yield "endpoints-many", virtio((one,), ((8, 1), (10, 1), (20, 1)))
    yield "endpoint-closed", virtio((domain(1, mapping(0x300000)),), ((9, 1),))
    yield "endpoint-beside", virtio((domain(1, mapping(0x2ff000)),), ((8, 1), (9, 1)))
    yield "endpoints-lie", virtio((one,), ((8, 1),), counts=(None, 9, 0, 0))
    yield "faults-many", virtio(faults=[(0, 0, 8, 0)] * 5)
    yield "faults-full", virtio(faults=[(2, 0x102, 8, 0)] * 4)
    yield "fault-reason", virtio(faults=((3, 1, 8, 0),) * 2 + ((4, 1, 8, 0),))
    yield "fault-flags", virtio(faults=((0, 8, 8, 0),))
    yield "faults-lie", virtio(counts=(0, 0, 4, 0))
    yield "requests-many", virtio(requests=[(i, 0) for i in range(257)])
    yield "requests-full", virtio(requests=[(i, 0) for i in range(256)])
    yield "request-status", virtio(requests=((1, 9),))
    yield "requests-lie", virtio(counts=(0, 0, 0, 7))


# ---- a mirror's

def held(form, *mappings, missing=(), fenced=0, key=0, span=(0, 2**64 - 1), counts=(None, None)):
    """key, form, fenced, range; what it was given; what of that failed."""
    out = struct.pack("<IBBQQ", key, form, fenced, *span)
    for part, count in zip((mappings, missing), counts):
        out += struct.pack("<Q", len(part) if count is None else count) + b"".join(part)
    return out


def mirror_states(form):
    low, high = mapping(0, 0xffff, 0), mapping(0x100000, 0x10ffff, 0x100000)
    yield "good", held(form, low, high)
    for cut in (1, 5, 9, 20, 33, 41, 60, 70, 80, 87):
        yield "cut-%d" % cut, held(form, low, high)[:-cut]
    yield "longer", held(form, low) + b"x"
    yield "missing", held(form, low, high, missing=(high,))
    yield "all-missing", held(form, low, missing=(low,))
    yield "missing-twice", held(form, low, missing=(low, low))
    yield "missing-part", held(form, low, missing=(mapping(0, 0x7fff, 0),))
    yield "missing-end", held(form, mapping(0x1000, 0xffff, 0x1000), missing=(mapping(0x8000, 0xffff, 0x8000),))
    yield "missing-inside", held(form, mapping(0x1000, 0xffff, 0x1000), missing=(mapping(0x9000, 0x9fff, 0x9000),))
    yield "missing-two", held(form, mapping(0x1000, 0x3fff, 0x1000),
                              missing=(mapping(0x1000, 0x1fff, 0x1000), mapping(0x2000, 0x3fff, 0x2000)))
    yield "missing-behind", held(form, low, missing=(mapping(0x8000, 0x10fff, 0x8000),))
    yield "missing-nothing", held(form, low, missing=(mapping(0x20000),))
    yield "missing-elsewhere", held(form, low, missing=(mapping(0, 0xffff, 0x1000),))
    yield "missing-perm", held(form, low, missing=(mapping(0, 0xffff, 0, 1),))
    yield "missing-odd", held(form, mapping(0, 0xffff, 0x1000), missing=(mapping(0, 0xfff, 0x1000),))
    yield "missing-back", held(form, low, missing=(mapping(0x2000, 0x1fff, 0),))
    yield "missing-lie", held(form, low, counts=(None, 1))
    yield "form", held(2)
    yield "other-form", held(1 - form, low)
    yield "fenced", held(form, fenced=1)
    yield "fenced-holds", held(form, low, fenced=1)
    yield "fenced-2", held(form, fenced=2)
    yield "key", held(form, low, key=5)
    yield "range", held(form, span=(0, 5))
    yield "range-first", held(form, span=(1, 2**64 - 1))
    yield "back", held(form, mapping(0x2000, 0x1fff))
    yield "turned", held(form, high, low)
    yield "over", held(form, low, low)
    yield "perm", held(form, mapping(0, tag=0))
    yield "perm-4", held(form, mapping(0, tag=4))
    yield "wraps", held(form, mapping(0, 0xffff, 2**64 - 0x1000))
    yield "everything", held(form, mapping(0, 2**64 - 1, 0))
    yield "all-but-one", held(form, mapping(0x1000, 2**64 - 1, 0x1000), missing=(mapping(2**63, 2**64 - 1, 2**63),))
    yield "all-missing-whole", held(form, mapping(0, 2**64 - 1, 0), missing=(mapping(0, 2**64 - 1, 0),))
    yield "top", held(form, mapping(2**64 - 0x1000, 2**64 - 1, 0))
    yield "many-blocks", held(form, mapping(0, (1 << 40) - 1, 0x1000))
    yield "lie", held(form, counts=(2, 0))


ID_8, ID_9 = struct.pack("<BBHH", 2, 2, 8, 20), struct.pack("<BBH", 0, 1, 9)


def seeds():
    out = {}
    for kind in range(0, 0x80, 1):
        if kind & 0x60 != 0x60:
            out["own-%02x" % kind] = start(kind) + whole(mirror=mirrors() if kind & MIRRORS else ())
    for kind in (MIRRORS, MIRRORS | POW2, MIRRORS | TWO, VIRTIO | MIRRORS, VIRTIO | MIRRORS | POW2):
        for failing in (1, 2, 3, 0x0f, 0xff):
            out["differences-%02x-%02x" % (kind, failing)] = start(kind, 0, 0, failing) + whole()
    for name, state in virtio_states():
        for kind in (VIRTIO, VIRTIO | LIMITS | SPACE | MIRRORS):
            if kind == VIRTIO or "-" in name:
                out["virtio-%02x-%s" % (kind, name)] = start(kind) + whole(prefix(MODEL, CONFIG, state))
    for at in (0, 8, 16, 24, 32, 36, 40, 41, 42):
        out["virtio-config-%d" % at] = start(VIRTIO) + whole(change(MODEL, (at, 1, 0x5a)))
    out["virtio-config-short"] = start(VIRTIO) + whole(prefix(MODEL, 20, b""))
    for form in (0, 1):
        kind = MIRRORS | (0 if form else POW2)
        for name, state in mirror_states(form):
            out["mirror-%d-%s" % (form, name)] = start(kind) + whole(
                mirror=[same(MIRROR, SECOND), literal(MIRROR, state, FIRST)])
    out["mirror-limit"] = start(MIRRORS | LIMITS) + whole()
    # VT-d: events that wait and are not masked; commands under way in every wrong way; a queue that stands.
    gcmd, gsts, fsts, fectl, ics, iectl = (CAPS + 8 * i for i in (0, 1, 4, 5, 12, 13))
    te, srtp, qie = 1 << 31, 1 << 30, 1 << 26
    for number, changes in enumerate((
            [(fectl, 4, 1 << 30)], [(fectl, 4, 3 << 30)], [(fectl, 4, 3 << 30), (fsts, 4, 1)],
            [(fectl, 4, 1 << 30), (fsts, 4, 1)], [(fsts, 4, 0x300)], [(fsts, 4, 0x302)], [(fsts, 4, 2)],
            *([(at, 4, value)] for at in range(CAPS, CAPS + 8 * 21, 8) for value in (1 << 30, 3 << 30, 1)))):
        out["vtd-event-%02d" % number] = start(LIMITS) + whole(change(MODEL, *changes), mirror=())
    for status in (0, te, qie, te | qie, srtp):
        for command in (0, te, srtp, qie, 5):
            for translating in (0, te):
                for set_root in (0, srtp):
                    out["vtd-command-%x-%x-%d-%d" % (status >> 26, command >> 26, translating >> 31, set_root >> 30)] = \
                        start(0) + whole(change(MODEL, (gsts, 4, status), (END | 9, 4, command), (END | 5, 1, set_root != 0),
                                                (END | 45, 4, translating), (END | 49, 4, set_root)), mirror=())
    for number, (status, faults) in enumerate(((0, 0), (qie, 0), (qie, 0x10), (qie, 0x20), (qie, 0x40))):
        for again in (1, 256, 257):
            out["vtd-queue-%d-%d" % (number, again)] = start(LIMITS) + whole(change(
                MODEL, (gsts, 4, status), (fsts, 4, faults), (END | 4, 4, again)), mirror=())
    # Each register, and each number behind the fault records, says what no guest brings about.
    for at in (0, 8, 16, 17, *range(CAPS, CAPS + 8 * 36, 4)):
        for value in (1, 0xffffffff):
            out["vtd-%03d-%08x" % (at, value)] = start(LIMITS) + whole(change(MODEL, (at, 4, value)), mirror=())
    for back in range(1, 0x60, 2):
        for value in (0x81,):
            out["vtd-end-%02x-%02x" % (back, value)] = start(LIMITS) + whole(change(MODEL, (END | back, 1, value)), mirror=())
    # The frame: order, versions, numbers, what may be passed over, what is lacking.
    frames = {
        "none": b"", "instance-only": same(INSTANCE), "model-only": same(INSTANCE) + same(MODEL),
        "turned": same(MODEL) + same(INSTANCE), "twice": same(INSTANCE) * 2,
        "optional": literal(9, b"abc", flags=OPTIONAL) + same(INSTANCE) + literal(0, flags=OPTIONAL) + whole()[5:] +
        literal(200, flags=OPTIONAL),
        "unknown-first": literal(9) + whole(), "unknown-last": whole() + literal(9), "device-last": whole() + same(DEVICE),
        "version-0": bytes([INSTANCE, 0, 0, 0, 1]), "version-2": bytes([INSTANCE, 0, 2, 0, 1]),
        "mirror-version": whole(mirror=[same(MIRROR, 0, 9)]), "odd": literal(INSTANCE, bytes(8), odd=1),
        "instance-short": whole(instance=literal(INSTANCE, bytes(7))),
        "instance-long": whole(instance=literal(INSTANCE, bytes(9))),
        "other-model": whole(instance=change(INSTANCE, (0, 4, 77))),
        "more-devices": whole(instance=change(INSTANCE, (4, 4, 5))),
        "device-number": whole(device=[same(DEVICE, 1)]),
        "device-flags": whole(device=[*devices((FIRST,)), change(DEVICE, (0, 1, 8), number=FIRST)]),
        "device-shared": whole(device=[*devices((FIRST,)), change(DEVICE, (0, 1, 1), number=FIRST)]),
        "device-no-ids": whole(device=[*devices((FIRST,)), change(DEVICE, (1, 1, 0), number=FIRST)]),
        "device-many-ids": whole(device=[*devices((FIRST,)), change(DEVICE, (1, 1, 255), number=FIRST)]),
        "device-fewer-ids": whole(device=[*devices((FIRST,)), literal(DEVICE, struct.pack("<BBH", 2, 1, 8), FIRST)]),
        "device-other-id": whole(device=[*devices((FIRST,)), change(DEVICE, (2, 2, 99), number=FIRST)]),
        "device-other-alias": whole(device=[*devices((FIRST,)), change(DEVICE, (4, 2, 99), number=FIRST)]),
        "device-denied": whole(device=[change(DEVICE, (0, 1, 5)), same(DEVICE, 1),
                                       change(DEVICE, (0, 1, 4), number=SECOND),
                                       change(DEVICE, (0, 1, 6), number=FIRST)]),
        "device-turned": whole(device=[*devices((SECOND, FIRST)), literal(DEVICE, ID_8, SECOND),
                                       literal(DEVICE, ID_9, FIRST)],
                               mirror=[same(MIRROR, SECOND), same(MIRROR, FIRST)]),
        "device-turned-mirrors": whole(device=[*devices((SECOND, FIRST)), literal(DEVICE, ID_8, SECOND),
                                               literal(DEVICE, ID_9, FIRST)],
                                       mirror=[literal(MIRROR, held(1), SECOND),
                                               literal(MIRROR, held(1, key=1, span=(0, 0x107fff)), FIRST)]),
        "device-thrice": whole(device=[*devices((FIRST,)), same(DEVICE, FIRST), same(DEVICE, FIRST)]),
        "device-same": whole(device=[*devices((FIRST,)), literal(DEVICE, ID_9, FIRST)]),
        "device-shared-thrice": whole(device=[*devices((SECOND, FIRST)),
                                              literal(DEVICE, struct.pack("<BBH", 1, 1, 10), SECOND)]),
        "device-long": whole(device=[*devices((FIRST,)), literal(DEVICE, ID_8 + b"x", FIRST)]),
        "mirror-of-nobody": whole(mirror=[*mirrors(), literal(MIRROR, held(1), 9)]),
        "mirror-early": same(INSTANCE) + same(MODEL) + same(MIRROR, SECOND),
        "mirror-short": whole(mirror=[literal(MIRROR, b"abc", FIRST)]),
        "mirror-twice": whole(mirror=[same(MIRROR, FIRST), same(MIRROR, FIRST), same(MIRROR, SECOND)]),
        "mirror-once": whole(mirror=[same(MIRROR, FIRST)]),
    }
    for name, frame in frames.items():
        out["frame-" + name] = start(MIRRORS) + frame
        out["frame-two-" + name] = start(MIRRORS | TWO) + frame
    out["raw"] = start(RAW) + b"vIOMMU\r\n" + bytes(24)
    out["raw-short"] = start(RAW) + b"vIOMMU"
    # Too little memory: in loading, in saving.
    full = whole(prefix(MODEL, CONFIG, dict(virtio_states())["good"]))
    for fail in range(1, 24):
        out["load-fails-%02d" % fail] = start(VIRTIO | MIRRORS | SPACE, fail, 0, 1) + full
        out["load-fails-vtd-%02d" % fail] = start(MIRRORS | POW2, fail, 0, 3) + whole()
    for fail in range(1, 5):
        out["save-fails-%d" % fail] = start(MIRRORS | POW2 | VIRTIO, 0, fail) + whole()
    return out
