# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the vhost target: what a back-end says, right, or wrong in one way."""
import struct

(RAW, ANSWER, LIE, MISS, FDS, MAP, FLUSH, RING, PROCESS, TIME, MEMORY, RECONNECT, DEVICE, READ, CLOSE,
 TABLES) = range(16)
KERNEL, RINGS, SMALL, WRITES, FILES, MANY, FAILS = 1, 2, 4, 8, 16, 32, 64


def op(what, *more, fail=0):
    return bytes([what | (0x80 | (fail - 1) << 4 if fail else 0)]) + bytes(more or (0,))


def raw(socket, data):
    return op(RAW) + bytes([socket << 7 | len(data)]) + data


def message(request, flags, payload, size=None):
    return struct.pack("<III", request, flags, len(payload) if size is None else size) + payload


def iotlb(iova, perm, kind, size=0):
    return struct.pack("<QQQBB6x", iova, size, 0, perm, kind)


TURN = op(ANSWER, 255) + op(PROCESS)


def seeds():
    talk = (op(TABLES, 40) + op(MISS, 4, 0x33) + op(PROCESS) + TURN + op(MAP, 5, 20, 1) + op(FLUSH, 5, 0) +
            op(PROCESS) + TURN + op(MISS, 20, 1) + op(PROCESS) + op(MAP, 5, 20, 3) + op(MISS, 20, 2) +
            op(PROCESS) + op(FLUSH, 0, 0x80) + TURN * 2)
    denied = op(MISS, 200, 0x72) + op(PROCESS) + op(MAP, 30, 7, 3) + op(TIME, 50) + op(FLUSH, 30, 1) + TURN
    rings = op(RING, 0x42) + op(RING, 0x43) + TURN * 2 + op(RING, 0x50) + op(RING, 0xb9) + TURN * 2
    memory = (op(MEMORY) + TURN + op(MAP, 9, 0x81, 3) + op(MISS, 36, 3) + op(PROCESS) + op(MEMORY) + op(PROCESS) +
              TURN * 2)
    again = op(CLOSE) + op(PROCESS) + op(RECONNECT) + TURN * 8 + talk
    late = op(MISS, 4, 3) + op(PROCESS) + op(FLUSH, 1, 0) + op(TIME, 30) + op(DEVICE) + again
    out = {}
    for start in (RINGS, 0):
        out[f"talk-{start}"] = bytes([start]) + TURN * 8 + talk
        out[f"denied-{start}"] = bytes([start]) + TURN * 8 + denied
        out[f"rings-{start}"] = bytes([start]) + TURN * 8 + rings
        out[f"memory-{start}"] = bytes([start]) + TURN * 8 + memory
        out[f"again-{start}"] = bytes([start]) + TURN * 8 + again
        out[f"late-{start}"] = bytes([start]) + TURN * 8 + late
    for start in (0, SMALL):
        for turns in range(1, 7):
            out[f"begin-{start}-{turns}"] = (bytes([start]) + TURN * turns + op(READ) + op(LIE, 0, 0) +
                                             b"\xff" * 8 + op(PROCESS) + again)
    asked = bytes([RINGS]) + op(MISS, 4, 3) + op(PROCESS) + op(FLUSH, 1, 0) + op(READ)
    miss = iotlb(0x101000, 1, 1)
    for name, data in {
            "unasked": raw(0, message(1, 5, bytes(8))), "short": raw(0, message(22, 5, bytes(4))),
            "long": raw(0, message(22, 5, bytes(32))), "huge": raw(0, message(22, 5, b"", 2**32 - 1)),
            "refused": raw(0, message(22, 5, b"\1" + bytes(7))), "version": raw(0, message(22, 6, bytes(8))),
            "no-reply": raw(0, message(22, 1, bytes(8))), "pieces": raw(1, message(1, 9, miss)[:20]) + op(PROCESS) +
            raw(1, message(1, 9, miss)[20:]) + op(PROCESS), "other": raw(1, message(3, 1, miss)),
            "update": raw(1, message(1, 1, iotlb(0x101000, 1, 2, 4096))), "cut": raw(1, message(1, 1, miss[:26])),
            "no-access": raw(1, message(1, 1, iotlb(0x101000, 0, 1))), "top": op(MISS, 0x80, 8) + op(MISS, 0xff, 0xf8),
            "fds": op(FDS, 6), "fds-asked": op(FDS, 7), "closed": op(CLOSE, 1), "reply": raw(1, message(1, 5, miss)),
    }.items():
        out[f"lie-{name}"] = asked + data + op(PROCESS) + again
    for fail in range(1, 5):
        out[f"fail-{fail}"] = (bytes([RINGS]) + op(MISS, 4, 3, fail=fail) + op(PROCESS, fail=fail) +
                               op(FLUSH, 1, 0, fail=fail) + op(PROCESS, fail=fail) + op(MEMORY, fail=fail) +
                               op(RING, 0x43, fail=fail) + TURN + op(CLOSE) + op(PROCESS, fail=fail) +
                               op(RECONNECT, fail=fail) + TURN * 8 + op(RECONNECT) + TURN * 8)
    kernel = bytes([KERNEL]) + op(PROCESS)
    two = struct.pack("<II", 2, 0)
    out["kernel"] = kernel + talk + denied + memory + op(DEVICE, 5) + op(PROCESS)
    out["kernel-raw"] = kernel + raw(0, two + miss + bytes(32)) + op(PROCESS) + raw(0, miss) + op(PROCESS)
    out["kernel-old"] = kernel + raw(0, struct.pack("<II", 1, 0) + miss + bytes(32)) + op(PROCESS)
    out["kernel-gone"] = kernel + op(CLOSE) + op(PROCESS) + op(FLUSH, 1, 0) + op(PROCESS)
    out["another-id"] = bytes([RINGS]) + talk + op(DEVICE, 1) + TURN * 2 + op(DEVICE, 5) + TURN + op(DEVICE, 3) + TURN * 2
    apart = b"".join(op(MAP, i, (i * 7) % 64, 3) for i in range(16, 32))
    for fail in range(1, 8):
        out[f"held-{fail}"] = (bytes([RINGS]) + apart + b"".join(op(MISS, 4 * i, 3) + op(PROCESS, fail=fail) for i in range(32)) +
                               op(FLUSH, 20, 0, fail=fail) + op(PROCESS) + TURN + op(MISS, 80, 3) + op(PROCESS) + op(DEVICE, 0) +
                               op(FLUSH, 0, 0x80) + op(PROCESS) + TURN * 2)
        out[f"cut-{fail}"] = (bytes([RINGS]) + op(TABLES, 0) + op(MISS, 0, 3) + op(PROCESS) + b"".join(
            op(MAP, i, 63 - i, 3) + op(FLUSH, i, 0, fail=fail) + TURN for i in range(3, 30, 4)))
    far_apart = b"".join(op(MAP, i, (i * 7) % 64, 3) for i in range(78))
    for fail in range(1, 4):
        out[f"held-many-{fail}"] = (bytes([RINGS]) + far_apart + b"".join(op(MISS, 4 * i, 0xf3) + op(PROCESS, fail=fail) + op(READ)
                                    for i in (0, 15, 30, 45, 60, 62)) + (op(FLUSH, 20, 0, fail=fail) + op(PROCESS) + TURN) * 2 +
                                    op(MISS, 80, 3) + op(PROCESS) + op(RING, 0x40) + op(FLUSH, 0, 0x80) + op(DEVICE, 0) + TURN * 2)
    large = op(MAP, 0, 0, 0x83) + op(MISS, 8, 0x1b) + op(PROCESS) + TURN + op(FLUSH, 0x41, 0) + op(PROCESS) + TURN
    wide = large + op(MISS, 0x48, 0xb) + op(PROCESS) + op(FLUSH, 0x43, 1) + TURN + op(MAP, 0, 0, 0x81) + op(FLUSH, 0x50, 9) + TURN * 2
    out["large"] = bytes([RINGS]) + wide + talk
    for start in (RINGS | WRITES, RINGS | FILES, RINGS | WRITES | FILES, RINGS | MANY, MANY, MANY | SMALL, KERNEL | WRITES,
                  KERNEL | FILES):
        body = (TURN * 8 + wide + apart + b"".join(op(MAP, i, 60 + i, 3) + op(MISS, 4 * i, 2) + op(PROCESS) for i in range(4)) +
                op(MAP, 6, 6, 2) + op(MISS, 24, 3) + op(MISS, 24, 1) + op(PROCESS) + TURN)
        out[f"kinds-{start}"] = bytes([start]) + body + talk + denied + rings + memory + again
    for fail in range(1, 12):
        for start in (0, RINGS | FILES, KERNEL):
            out[f"created-{start}-{fail}"] = bytes([start | FAILS, fail]) + TURN * 8 + op(MISS, 4, 3) + op(PROCESS) + TURN
    out["odd-rings"] = bytes([RINGS]) + b"".join(op(RING, what) for what in (0xf0, 0xf8, 0xe8, 0xea, 0xe0, 0xd0)) + TURN * 2
    out["stop-large"] = (bytes([RINGS]) + op(RING, 0x42) + op(PROCESS) + op(READ) +
                         raw(0, message(11, 5, struct.pack("<II", 0, 70000))) + op(PROCESS) + again)
    out["flood"] = bytes([RINGS]) + apart + (op(MISS, 64, 0xf3) * 8 + op(PROCESS)) * 20 + TURN * 3
    out["flood-unread"] = bytes([RINGS]) + (op(MAP, 5, 20, 3) + op(MISS, 20, 3) + op(FLUSH, 5, 0) + op(PROCESS)) * 90 + TURN * 3
    for start in (RINGS, KERNEL):
        out[f"unread-{start}"] = bytes([start]) + (op(MAP, 5, 20, 3) + op(MISS, 20, 0xf3) + op(PROCESS)) * 120 + TURN
    out["accept"] = (bytes([0]) + TURN * 12 + op(DEVICE, 2) + op(RING, 0x40) + TURN + op(DEVICE, 2) + op(CLOSE) + op(PROCESS) +
                     op(RECONNECT) + op(READ) + op(LIE, 2 | 5 << 2, 0) + struct.pack("<Q", 1 << 32 | 1 << 33) + TURN * 8)
    out["less-features"] = (bytes([RINGS]) + op(RING, 2) + op(RING, 3) + TURN * 3 + op(DEVICE, 2) + op(RING, 0x40) + TURN + op(CLOSE) +
                            op(PROCESS) + op(RECONNECT) + TURN * 8)
    return out
