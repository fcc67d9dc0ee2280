# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the serve fuzz target: services handed over whole, cut, changed, of other versions, with other descriptors."""
import struct

VTD, VIRTIO, MIRROR, DISK, CLIENTS, TABLES, OFFERS, NAMES, WRONG = 1, 2, 3, 4, 8, 16, 32, 64, 128
GO, HANGS_UP, NO, OTHER, NO_STATE, HELLO, NOTHING, NOBODY, UNSEALED = range(9)
DEAF = 16
PUT, CUT, REPLACE, DROP, SWAP, REPEAT, HEAD, INSERT, FRAME, SHORTER, FD = range(11)
EVERYTHING, SECTIONS = MIRROR | CLIENTS | TABLES | DISK, 7
NONE = 2**32 - 1
AT = b"/proc/self/fd/900/"
EDU = b"--device=edu,at=05.0,socket=" + AT + b"edu"


def start(shape=CLIENTS, word=GO, fails=0, left=0):
    return bytes([shape, word, fails, left])


def put(section, place, *values):
    return b"".join(struct.pack("<BBHB", PUT, section, place + i, value) for i, value in enumerate(values))


def cut(section, by):
    return struct.pack("<BBH", CUT, section, by)


def replace(section, content):
    return struct.pack("<BBH", REPLACE, section, len(content)) + content


def head(section, place, value):
    return bytes([HEAD, section, place, value])


def insert(section, place, content):
    return struct.pack("<BBHB", INSERT, section, place, len(content)) + content


def options(*words, folder=0, count=None):
    """The first section, with other options."""
    body = struct.pack("<II", folder, len(words) if count is None else count)
    return replace(0, body + b"".join(struct.pack("<Q", len(word)) + word for word in words))


def command(*words):
    return options(*(word + b"\0" for word in words))


def whole_seeds():
    """What is served, and what is said: nothing is changed."""
    out = {}
    for unit in (0, VTD, VIRTIO, MIRROR):
        for more in (0, CLIENTS, CLIENTS | DISK, CLIENTS | TABLES, CLIENTS | TABLES | DISK, CLIENTS | OFFERS,
                     CLIENTS | TABLES | DISK | OFFERS | NAMES, CLIENTS | OFFERS | WRONG):
            out["whole-%d" % (unit | more)] = start(unit | more)
        for word in range(1, UNSEALED):
            out["said-%d-%d" % (unit, word)] = start(unit | CLIENTS | TABLES | DISK, word)
    out["said-newer"] = start(word=NOTHING | UNSEALED)
    out["said-to-nobody"] = start(word=GO | DEAF)
    out.update(("nobody-%d" % why, start(word=NOBODY, fails=why)) for why in range(4))
    return out


def failing_seeds():
    """Something of the host's fails, at each place in turn."""
    out = {"fails-%d" % number: start(EVERYTHING, fails=number) for number in [*range(1, 30), *range(30, 230, 20)]}
    for shape in (EVERYTHING, VIRTIO | OFFERS):
        for left in range(1, 18):
            out["starved-%d-%d" % (shape, left)] = start(shape, left=left)
    for left in range(1, 5):
        out["starved-names-%d" % left] = start(EVERYTHING | OFFERS | NAMES, left=left)
    return out


def frame_seeds():
    """Headers of the whole and of sections; what is cut, lost, twice there, or in another place."""
    out = {"unsealed": start(word=UNSEALED | GO) + put(0, 0, 1)}
    for place, value in ((0, 0), (8, 0), (8, 2), (12, 2), (15, 1), (24, 0), (24, 1), (27, 1)):
        out["frame-%d-%d" % (place, value)] = start() + bytes([FRAME, place, value])
    for section in range(SECTIONS):
        for place, value in ((0, 0), (0, 1), (0, 4), (4, 7), (8, 0), (8, 2), (10, 1), (12, 1), (16, 1), (23, 255)):
            out["head-%d-%d-%d" % (section, place, value)] = start(EVERYTHING) + head(section, place, value)
        for by in (1, 30, 65535):
            out["cut-%d-%d" % (section, by)] = start(EVERYTHING) + cut(section, by)
        out["dropped-%d" % section] = start(EVERYTHING) + bytes([DROP, section])
        out["twice-%d" % section] = start(EVERYTHING) + bytes([REPEAT, section])
        out["longer-%d" % section] = start(EVERYTHING) + insert(section, 65535, b"1")
        for other in range(section):
            out["swapped-%d-%d" % (section, other)] = start(EVERYTHING) + bytes([SWAP, section, other])
        for place in (0, 4, 5, 9, 12, 20, 21, 25, 40, 60, 100, 4200):
            out["put-%d-%d" % (section, place)] = start(EVERYTHING) + put(section, place, 255)
    for by in (1, 8, 24, 1000, 65535):
        out["shorter-%d" % by] = start() + struct.pack("<BH", SHORTER, by)
    return out


def descriptor_seeds():
    out = {}
    for place in range(12):
        for what in range(8):
            out["fd-%d-%d" % (place, what)] = start(EVERYTHING) + bytes([FD, place, what])
    # Where the state names them: the folder, the listener, the mirror, the disk's file.
    for shape, section, places in ((CLIENTS, 0, 1), (CLIENTS, 1, 2), (CLIENTS, 2, 1), (MIRROR | CLIENTS, 2, 2), (DISK, 3, 2)):
        for at in range(places):
            for value in (0, 9, NONE):
                out["named-%d-%d-%d-%d" % (shape, section, at, value & 255)] = start(shape) + \
                    put(section, at, *struct.pack("<I", value))
    return out


def option_seeds():
    unit, mirror, disk = b"--vtd=" + AT + b"unit", EDU + b",mirror=m", b"--device=nvme,at=06.0,socket=d,file=f,"
    commands = {
        "none": (), "same": (b"--iommu=none", EDU), "moved": (b"--iommu=none", EDU.replace(b"05.0", b"06.0")),
        "kind": (b"--iommu=none", b"--device=fax,at=05.0,socket=e"), "two": (b"--iommu=none", EDU, EDU),
        "many": (b"--iommu=none",) + (EDU,) * 33, "vtd": (unit, EDU), "virtio": (b"--virtio=" + AT + b"unit", EDU),
        "no-device": (b"--iommu=none",), "unit-alone": (unit,), "unit-twice": (unit, unit), "both": (unit, b"--virtio=v", EDU),
        "unknown": (b"--frobnicate",), "help": (b"--help",), "usage": (b"--usage",), "hang": (b"--HANG=9",), "dashes": (b"--",),
        "word": (b"edu",), "short": (b"-c",), "nothing": (b"",), "value-none": (unit, EDU, b"--width"), "value": (unit, EDU, b"--caching-mode=1"),
        "takeover": (b"--takeover=x",), "handover": (b"--handover=x",), "trace": (b"--trace=x",),
        "mirror": (unit, b"--caching-mode", mirror), "mirror-not": (unit, mirror), "mirror-none": (b"--iommu=none", mirror),
        "disk": (b"--iommu=none", disk[:-1]), "disk-keys": (b"--iommu=none", disk + b"readonly,lba=4096,queues=2,workers=1,serial=abc"),
        "disk-lba": (b"--iommu=none", disk + b"lba=1000"), "disk-queues": (b"--iommu=none", disk + b"queues=64"),
        "disk-serial": (b"--iommu=none", disk + b"serial=\x7f"), "disk-twice": (b"--iommu=none", disk + b"lba=512,lba=512"),
        "far": (unit, b"--device=vfio-user:far,at=05.0,socket=e,isolate"), "far-net": (unit, b"--device=vhost-user-net:far,at=05.0,socket=e,mac=02:00:00:00:00:01,timeout=7"),
        "far-own": (unit, b"--isolate", b"--device=vfio-user:e,at=05.0,socket=e"), "far-no-unit": (b"--iommu=none", b"--device=vfio-user:far,at=05.0,socket=e"),
        "isolate": (unit, b"--isolate", b"--device=vhost-user-net:far,at=05.0,socket=e"), "colon": (unit, b"--device=edu:far,at=05.0,socket=e"),
        "iommu": (b"--iommu=other", EDU), "iommu-no-socket": (b"--iommu=vtd", EDU), "iommu-virtio": (b"--iommu=virtio", EDU),
        "no-socket": (EDU,), "socket-empty": (b"--vtd=", EDU), "socket-dash": (b"--vtd=-", EDU),
        "vtd-of-virtio": (b"--virtio=v", b"--caching-mode", EDU), "virtio-of-vtd": (unit, b"--bypass=on", EDU),
        "unit-of-none": (b"--iommu=none", b"--width=48", EDU),
    }
    disks = (b"file=", b"readonly=1,file=f", b"queues=0,file=f", b"queues=x,file=f", b"serial=\t,file=f", b"lba=512", b"colour=red,file=f")
    for number, text in enumerate(disks):
        commands["disk-wrong-%d" % number] = (b"--iommu=none", disk[:-7] + text)
    for number, text in enumerate((b"at=05.0,socket", b"at=05,socket=e", b"at=05.0x,socket=e", b"at=", b"", b"at=05.0", b"at=100:05.0,socket=e")):
        commands["edu-wrong-%d" % number] = (b"--iommu=none", b"--device=edu," + text)
    commands["far-colon"] = (unit, b"--caching-mode", b"--device=vfio-user,at=05.0,socket=e")
    commands["far-nobody"] = (unit, b"--caching-mode", b"--device=vfio-user:,at=05.0,socket=e")
    commands["far-unit"] = (unit, b"--caching-mode", b"--device=vfio-user:" + AT + b"unit,at=05.0,socket=e")
    commands["virtio-mirror"] = (b"--iommu=virtio", b"--virtio=" + AT + b"unit", mirror)
    for text in (b"width=39", b"width=47", b"width=0", b"host-width=36", b"host-width=53", b"host-width=99", b"host-width=30", b"host-width=0", b"width=57", b"domain-bits=2", b"domain-bits=18", b"fault-records=257", b"ack-timeout=60001",
                 b"iotlb-entries=128", b"iotlb-entries=256", b"iotlb-entries=300",
                 b"ack-timeout=10", b"ack-timeout=9", b"cache-mode=normal", b"cache-mode=faithful", b"cache-mode=hostile,seed=3", b"cache-mode=odd",
                 b"caching-mode", b"device-tlb", b"no-super-pages", b"no-pass-through", b"no-queued-invalidation", b"no-snoop-control",
                 b"domain-bits=5", b"domain-bits=8", b"fault-records=0", b"fault-records=256"):
        commands["vtd-" + text.decode()] = (unit, EDU, b"--" + text)
    for text in (b"width=32", b"width=31", b"width=64", b"host-width=64", b"host-width=31", b"bypass=on", b"bypass=off", b"bypass=so", b"page-sizes=4k:2m",
                 b"page-sizes=2k", b"page-sizes=3k", b"page-sizes=4k:", b"page-sizes=2g", b"page-sizes=0", b"page-sizes=4kx", b"width=65", b"host-width=65", b"domains-max=32m", b"mappings-max=4g", b"probe-size=128k", b"domains-max=7", b"domains-max=0", b"mappings-max=9",
                 b"mappings-max=0", b"probe-size=24", b"probe-size=8"):
        commands["virtio-" + text.decode()] = (b"--virtio=" + AT + b"unit", EDU, b"--" + text)
    out = {}
    for name, words in commands.items():
        shape = VTD if name.startswith(("vtd-", "far")) else VIRTIO if name.startswith("virtio-") else 0
        out["options-" + name] = start(shape | CLIENTS) + command(*words)
    raw = {
        "open": options(b"--iommu=none\0", EDU), "empty": options(b"--iommu=none\0", b""), "fewer": options(b"--iommu=none\0", count=2),
        "more": options(b"--iommu=none\0", EDU + b"\0", count=1), "count": options(count=97), "count-whole": options(*[b"--caching-mode\0"] * 120), "count-huge": options(count=2**32 - 1),
        "long": options(b"--iommu=none\0", b"--vtd=" + b"x" * 8300 + b"\0"), "folder-none": options(b"--iommu=none\0", EDU + b"\0", folder=NONE),
        "folder-other": options(b"--iommu=none\0", EDU + b"\0", folder=1), "folder-far": options(b"--iommu=none\0", EDU + b"\0", folder=99),
        "size-huge": replace(0, struct.pack("<IIQ", 0, 1, 2**63)), "nul-inside": options(b"--iommu=none\0--help\0", EDU + b"\0"),
    }
    for name, change in raw.items():
        out["options-raw-" + name] = start() + change
    return out


def seeds():
    return {**whole_seeds(), **failing_seeds(), **frame_seeds(), **descriptor_seeds(), **option_seeds()}
