# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the takeover fuzz target: states of endpoints, saved in each shape, or wrong in one way."""
import struct

ENDPOINT, RAW = 1, 0x80
PAYLOAD, UNREAD, TWIN, BARE, LISTENS = 4, 8, 16, 32, 64
NONE = 2**32 - 1
# Vectors by index, of an edu; the descriptors of the saved state, by place: the socket, what came with half a message or
# else the eventfd, memory.
COUNTS = (1, 1, 0, 0, 0)


def data(content=b""):
    return struct.pack("<Q", len(content)) + content


def header(size):
    return struct.pack("<HHIII", 1, 9, size, 0, 0)


def connection(fd=0, head=b"", more=b"", lost=0, fds=(), count=None, output=b""):
    return struct.pack("<I", fd) + data(head) + data(more) + \
        struct.pack("<BI", lost, len(fds) if count is None else count) + b"".join(struct.pack("<I", one) for one in fds) + data(output)


def interrupts(counts=COUNTS, fds=(NONE, 1)):
    out, fds = b"", list(fds)
    for count in counts:
        out += struct.pack("<I", count)
        out += b"".join(struct.pack("<IB", fds.pop(0) if fds else NONE, 0) for _ in range(count))
    return out + b"\0\0"


def region(first=0x1000, last=0x1fff, offset=0, flags=3, fd=2):
    return struct.pack("<QQQBI", first, last, offset, flags, fd)


def state(most=65536, error=0, main=None, twin=b"\0", vectors=None, regions=(region(),)):
    return struct.pack("<BQQQBIH", 1, 8, most, 4096, 1, error, 0) + (connection() if main is None else main) + twin + \
        (interrupts() if vectors is None else vectors) + struct.pack("<I", len(regions)) + b"".join(regions)


def seeds():
    out = {}
    for shape in range(0, 128, 4):
        out["shape-%d" % shape] = bytes([ENDPOINT | shape])
        out["shape-cut-%d" % shape] = bytes([ENDPOINT | shape, 30])
        for number in range(1, 5):
            out["shape-fails-%d-%d" % (shape, number)] = bytes([ENDPOINT | shape, 0, number])
    raw = {
        "good": state(), "error": state(error=32), "error-none": state(error=4096), "listens": state(),
        "no-socket": state(main=connection(NONE)), "file": state(main=connection(2)), "lost": state(main=connection(lost=1)),
        "output": state(main=connection(output=b"12345678")), "output-long": state(main=connection()[:-8] + struct.pack("<Q", 2**40)),
        "half-header": state(main=connection(head=header(32)[:9])), "half-header-more": state(main=connection(head=header(32)[:9], more=b"1")),
        "header": state(main=connection(head=header(32))), "payload": state(main=connection(head=header(32), more=b"12345")),
        "header-short": state(main=connection(head=header(15))), "header-empty": state(main=connection(head=header(16))),
        "header-huge": state(main=connection(head=header(2**20 + 64))), "payload-whole": state(main=connection(head=header(32), more=bytes(16))),
        "fds": state(main=connection(fds=(1, NONE))), "fds-many": state(main=connection(count=9)),
        "fds-cut": state(main=connection(fds=(1, 77))), "fds-map": state(main=connection(head=header(48), more=bytes(5), fds=(NONE,))),
        "twin": state(twin=b"\1\0\0" + connection(1), vectors=interrupts(fds=())),
        "twin-most": state(most=2**40, twin=b"\1\0\0" + connection(1), vectors=interrupts(fds=())),
        "twin-none": state(most=0, twin=b"\1\0\0" + connection(1), vectors=interrupts(fds=())),
        "twin-received": state(twin=b"\1\0\0" + connection(1, head=b"123"), vectors=interrupts(fds=())),
        "twin-payload": state(twin=b"\1\0\0" + connection(1, head=header(32), more=b"1"), vectors=interrupts(fds=())),
        "vectors-other": state(vectors=interrupts((1, 2, 0, 0, 0))), "vectors-file": state(vectors=interrupts(fds=(NONE, 2))),
        "vectors-socket": state(main=connection(NONE), vectors=interrupts(fds=(0,))),
        "regions": state(regions=(region(0, 0xfff, 0, 1), region(0x1000, 0x1fff, 0, 2), region(0x2000, 0x2fff, 0, 0, NONE))),
        "regions-meet": state(regions=(region(), region())), "region-back": state(regions=(region(0x1000, 0xfff),)),
        "region-flags": state(regions=(region(flags=7),)), "region-fd": state(regions=(region(fd=9),)),
        "regions-cut": state()[:-9],
    }
    for name, body in raw.items():
        out["endpoint-" + name] = bytes([ENDPOINT | RAW | (LISTENS if name == "listens" else 0)]) + body
        out["endpoint-twin-" + name] = bytes([ENDPOINT | RAW | TWIN]) + body
    return out
