# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the vhost target: what a back-end says, right, or wrong in one way."""
import struct

(RAW, ANSWER, LIE, MISS, FDS, MAP, FLUSH, RING, PROCESS, TIME, MEMORY, RECONNECT, DEVICE, READ, CLOSE,
 TABLES) = range(16)
(FAULT, CREATE, ASK, SETUP, FLOOD, FLIP, SLOT, FAR, LOOK, THREAD, BACK, STOP, ALIAS, WINDOW,
 RENEW) = range(16, 31)
KERNEL, RINGS, SMALL, WRITES, FILES, MANY, FAILS, MORE = 1, 2, 4, 8, 16, 32, 64, 128
QUIET, NO_CLOCK, TIGHT, EAGER, BESIDE, NO_MQ, NAMED, ZERO = 1, 2, 4, 8, 16, 32, 64, 128
(FCNTL, EPOLL_CREATE, EPOLL_CTL, SOCKETPAIR, SENDMSG, RECVMSG, READ_CALL, WRITE, FSTAT, GET_FEATURES,
 SET_FEATURES) = range(1, 12)
INTR, NOMEM, MFILE, AGAIN, IO, RESET, PARTLY = 0, 1, 2, 3, 4, 5, 128
BASE, LARGE = 0x100000, 0x200000


def op(what, *more, fail=0):
    return bytes([what | (0x80 | (fail - 1) << 4 if fail else 0)]) + bytes(more or (0,))


def raw(socket, data):
    return op(RAW) + bytes([socket << 7 | len(data)]) + data


def message(request, flags, payload, size=None):
    return struct.pack("<III", request, flags, len(payload) if size is None else size) + payload


def iotlb(iova, perm, kind, size=0):
    return struct.pack("<QQQBB6x", iova, size, 0, perm, kind)


def fault(call, nth=0, how=NOMEM):
    """The nth of these calls fails in the operation that follows."""
    return op(FAULT, call, nth, how)


def ask(iova, perm=1, flags=0):
    return op(ASK, perm, flags) + struct.pack("<Q", iova)


def set_up(ring, size, descriptors, available, used, fds=0, following=0):
    return op(SETUP, ring) + struct.pack("<HHQQQB", size, following, descriptors, available, used, fds)


def window(page, to, perm=3):
    """Page of BASE onwards to one of the slots, or (0x80) of RAM."""
    return op(WINDOW, to) + struct.pack("<HB", page, perm)


def slot(which, file, place, kind=0):
    return op(SLOT, which, file, place, kind)


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
    asked = bytes([RINGS]) + op(MISS, 4, 3) + op(PROCESS) + op(FLUSH, 1, 0) + op(PROCESS) + op(READ)
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
    for fail in range(1, 9):
        # Thirty-one pieces are one leaf: to cut one of them in the midst takes another.
        out[f"cut-a-full-leaf-{fail}"] = (bytes([KERNEL]) + op(PROCESS) + op(TABLES, 40) + op(MISS, 40, 3) + op(ALIAS) + b"".join(
            ask(0x80000000 + i * 0x1000) for i in range(30)) + op(PROCESS) + op(FLUSH, 5, 0) + op(PROCESS, fail=fail) +
            op(FLUSH, 6, 0) + op(PROCESS) + op(MISS, 4, 3) + op(PROCESS) + op(FLUSH, 0, 9) + op(PROCESS))
    for start in (RINGS, KERNEL):
        out[f"unread-{start}"] = bytes([start]) + (op(MAP, 5, 20, 3) + op(MISS, 20, 0xf3) + op(PROCESS)) * 120 + TURN
    out["accept"] = (bytes([0]) + TURN * 12 + op(DEVICE, 2) + op(RING, 0x40) + TURN + op(DEVICE, 2) + op(CLOSE) + op(PROCESS) +
                     op(RECONNECT) + op(READ) + op(LIE, 2 | 5 << 2, 0) + struct.pack("<Q", 1 << 32 | 1 << 33) + TURN * 8)
    out["less-features"] = (bytes([RINGS]) + op(RING, 2) + op(RING, 3) + TURN * 3 + op(DEVICE, 2) + op(RING, 0x40) + TURN + op(CLOSE) +
                            op(PROCESS) + op(RECONNECT) + TURN * 8)
    out.update(embedder_seeds(talk, again))
    out.update(fault_seeds(talk, again))
    out.update(flood_seeds())
    out.update(memory_seeds(talk))
    return out


def embedder_seeds(talk, again):
    """What the embedder calls, in every order; callbacks, a clock of the host's, two who call from elsewhere."""
    out = {}
    gone = op(CLOSE) + op(PROCESS)
    for more in (QUIET, NO_CLOCK, TIGHT, EAGER, BESIDE, NAMED, EAGER | BESIDE, QUIET | NO_CLOCK | NAMED):
        out[f"more-{more}"] = (bytes([RINGS | MORE, more]) + talk + op(MISS, 200, 0x72) + op(PROCESS) + op(TIME, 1) + op(TIME, 20) +
                               op(MEMORY) + TURN + op(MEMORY) + TURN * 2 + op(RING, 0x42) + TURN * 3 + op(FLUSH, 0, 0x80) +
                               op(PROCESS) + op(TIME, 30) + again + gone + op(RECONNECT) + TURN * 9 + op(FDS, 6) + op(PROCESS))
        out[f"more-kernel-{more}"] = (bytes([KERNEL | MORE, more]) + op(PROCESS) + talk + op(MEMORY) + op(MAP, 9, 0x81, 3) +
                                      op(MISS, 36, 3) + op(PROCESS) + op(MEMORY) + op(PROCESS) + op(BACK) + op(CLOSE) + op(PROCESS))
    out["created-wrong"] = bytes([0]) + b"".join(op(CREATE, what) for what in (1, 2, 4, 8, 16, 32, 0, 64, 128, 0xff))
    out["statistics"] = bytes([RINGS]) + b"".join(op(LOOK, size) for size in (0, 8, 55, 56, 57, 127))
    out["first-call"] = bytes([RINGS]) + op(THREAD) + op(PROCESS) + TURN
    out["back-too-early"] = bytes([RINGS]) + op(BACK) + op(BACK, 1) + TURN + gone + op(BACK, 1) + op(BACK) + TURN * 8
    out["back-while-denied"] = bytes([RINGS]) + op(MISS, 4, 3) + op(PROCESS) + op(FLUSH, 1, 0) + gone + op(BACK) + op(RECONNECT) + TURN * 8
    out["stopped-while-gone"] = bytes([RINGS]) + gone + op(STOP, 0) + op(STOP, 0) + op(STOP, 77) + op(RECONNECT) + TURN * 8 + op(STOP, 0)
    out["stopped-before-it-is-processed"] = bytes([RINGS]) + op(CLOSE) + op(RING, 0x42) + op(STOP, 1) + op(MEMORY) + op(PROCESS)
    out["fewer-features"] = (bytes([0]) + op(FAR, 0xff) + TURN * 8 + op(DEVICE, 2) + op(RING, 0x40) + TURN + gone + op(FAR, 1) +
                             op(RECONNECT) + TURN * 8 + op(STOP, 0) + op(RECONNECT) + TURN * 8 + op(DEVICE, 2))
    out["fewer-features-no-ring"] = (bytes([0]) + op(FAR, 0xff) + TURN * 8 + op(DEVICE, 2) + gone + op(FAR, 1) + op(RECONNECT) + TURN * 8)
    for start in (MANY, 0):
        out[f"few-rings-{start}"] = bytes([start | MORE, NO_MQ]) + TURN * 8 + op(RING, 0x40) + TURN
    renewals = b"".join(op(RENEW, ring, fds) for ring, fds in ((255, 0), (0, 4), (0, 64), (0, 1), (0, 16), (0, 0), (0, 0x22), (0, 2), (0, 32)))
    for start in (RINGS, 0):
        out[f"renewed-{start}"] = (bytes([start]) + TURN * 8 + renewals + gone + renewals + op(STOP, 0) + renewals + op(RECONNECT) + TURN * 8)
    out["used-ring-is-nowhere"] = bytes([RINGS]) + op(MAP, 2, 0, 0) + op(FLUSH, 2, 0) + TURN * 2 + gone + op(RECONNECT) + TURN * 8
    out["asked-before-the-table"] = (bytes([RINGS]) + gone + op(RECONNECT) + TURN * 2 + op(READ) + op(ANSWER, 1) + op(MISS, 4, 3) + op(PROCESS) +
                                     op(READ) + TURN * 8)
    stop = op(RING, 0x42) + op(PROCESS) + op(READ) + op(ANSWER, 0)
    for name, state in {"elsewhere": (1, 5), "too-far": (0, 65536)}.items():
        out[f"stops-{name}"] = bytes([RINGS]) + TURN * 2 + stop + raw(0, message(11, 5, struct.pack("<II", *state))) + op(PROCESS) + again
    top = 2**64 - 4096
    good = (0x1000, 0x2000, 0x3000)
    rings = (set_up(9, 256, *good) + set_up(0, 256, *good, fds=4) + set_up(0, 256, *good, fds=64) + set_up(0, 256, *good, fds=1) +
             set_up(0, 256, *good, fds=16) + set_up(0, 65535, *good) + set_up(0, 32768, *good, fds=0x22) + op(STOP, 0))
    for i, place in enumerate(((0x1008, 0x2000, 0x3000), (0x1000, 0x2001, 0x3000), (0x1000, 0x2000, 0x3002), (2**64 - 1, 0, 0),
                               (2**64 - 16, 0, 0), (top, 0, 0), (0, 2**64 - 4, 0), (0, 0, 2**64 - 4))):
        rings += set_up(1, 256, *place)
    out["rings-everywhere"] = (bytes([0]) + TURN * 8 + rings + TURN * 4 + set_up(1, 16, top, LARGE, top + 256) + TURN * 4 +
                               op(TIME, 1) * 3 + TURN)
    out["rings-in-a-large-page"] = (bytes([0]) + TURN * 8 + op(MAP, 0, 0, 0x83) + set_up(0, 16, LARGE + 0x1000, LARGE + 0x2000, LARGE + 0x8000) +
                                    TURN * 4 + op(FLUSH, 0x43, 0) + TURN * 4)
    out["interrupts"] = bytes([RINGS]) + ask(0xfee00000) + ask(0xfeefffff, 2) + ask(2**64 - 1) + ask(2**64 - 2) + op(PROCESS) + TURN
    # The one that is late first was asked for last.
    two = op(MAP, 20, 50, 1) + op(MAP, 24, 54, 1) + op(MISS, 80, 1) + op(MISS, 96, 1) + op(PROCESS) + TURN * 2
    out["late-out-of-order"] = (bytes([RINGS]) + two + op(FLUSH, 20, 0) + op(PROCESS) + op(RING, 0x43) + op(TIME, 3) + op(FLUSH, 24, 0) +
                                op(PROCESS) + op(ANSWER, 0) + op(TIME, 5) + op(TIME, 2) + op(TIME, 2))
    out["dropped-above"] = bytes([RINGS]) + two + op(FLUSH, 24, 0) + op(PROCESS) + op(FLUSH, 22, 0) + op(FLUSH, 26, 0) + op(PROCESS) + TURN * 2
    out["time-begins-at-0"] = (bytes([RINGS | MORE, ZERO]) + op(MISS, 80, 1) + op(PROCESS) + op(MAP, 20, 50, 1) + op(FLUSH, 20, 0) + op(PROCESS) +
                               TURN + op(TIME, 1) + TURN)
    out["accepted-what-is-not-there"] = bytes([0]) + TURN * 8 + op(DEVICE, 10) + op(DEVICE, 2) + op(RING, 0x40) + TURN
    out["late-before-it-is-tried-again"] = (bytes([RINGS]) + op(MISS, 200, 3) + op(PROCESS) + op(TIME, 1) * 12 + op(TIME, 10) * 6 +
                                            op(TIME, 60) * 2 + op(MISS, 4, 3) + TURN + op(FLUSH, 1, 0) + op(PROCESS) + TURN)
    return out


def fault_seeds(talk, again):
    """The host's calls fail: when it is created, when it connects again, and while it talks."""
    out = {}
    for call in range(1, 12):
        for start in (0, KERNEL):
            for nth in range(5 if call in (FCNTL, EPOLL_CTL) else 2 if call in (EPOLL_CREATE, SOCKETPAIR, SET_FEATURES) else 1):
                for how in (NOMEM << 3, PARTLY) if call == GET_FEATURES else (NOMEM << 3,):
                    out[f"created-without-{start}-{call}-{nth}-{how}"] = bytes([start | FAILS, call << 4, nth | how]) + TURN
    # No operation follows.
    for call in range(12):
        out[f"a-fault-and-no-more-{call}"] = bytes([RINGS]) + fault(call)
    out["created-with-no-memory-left"] = bytes([RINGS]) + fault(0) + op(CREATE, 128)
    out["a-queue-that-is-full"] = bytes([RINGS]) + op(MISS, 4, 3) + op(PROCESS) + op(FLUSH, 6, 6) * 128
    gone = op(CLOSE) + op(PROCESS)
    for call in (FCNTL, EPOLL_CTL, SOCKETPAIR):
        for nth in range(6):
            out[f"back-without-{call}-{nth}"] = bytes([RINGS]) + gone + fault(call, nth) + op(RECONNECT) + op(RECONNECT) + TURN * 8 + talk
    for fail in (1, 2, 3):
        out[f"back-without-memory-{fail}"] = bytes([RINGS]) + gone + op(RECONNECT, fail=fail) + op(RECONNECT) + TURN * 8
    for how in (INTR, NOMEM, AGAIN, IO, RESET, PARTLY):
        for call in (SENDMSG, RECVMSG, READ_CALL, WRITE):
            for start in (RINGS, KERNEL):
                out[f"talk-{start}-{call}-{how}"] = (bytes([start]) + op(PROCESS) + b"".join(
                    op(TABLES, 40) + op(MISS, 4, 0x33) + fault(call, nth, how) + op(PROCESS) + TURN + fault(call, 0, how) + op(FLUSH, 5, 0) +
                    TURN for nth in range(3)) + again)
    for nth in range(8):
        out[f"no-copies-{nth}"] = bytes([0]) + TURN * 6 + fault(FCNTL, nth, MFILE) + op(RING, 0x40) + op(PROCESS) + op(RECONNECT) + TURN * 8
        out[f"no-watch-{nth}"] = (bytes([RINGS | MORE, TIGHT]) + fault(EPOLL_CTL, nth) + op(FLOOD, 40, 8) + op(PROCESS) + TURN * 3)
    out["no-copy-of-the-other-end"] = bytes([0]) + op(ANSWER, 255) + op(PROCESS) + op(ANSWER, 255) + fault(FCNTL, 0, MFILE) + op(PROCESS) + again
    for fail in range(1, 8):
        out[f"memory-is-lost-{fail}"] = (bytes([RINGS]) + slot(9, 0, 0) + TURN + fault(0, fail - 1) + slot(2, 1, 0) + b"".join(
            slot(i, 0, i) for i in range(3, 8)) + op(MEMORY, fail=fail) + slot(0x82, 0, 0) + op(BACK) +
            op(PROCESS) + slot(0x83, 0, 0) + op(MEMORY) + op(RECONNECT, fail=1) + op(RECONNECT, fail=2) + op(RECONNECT) + TURN * 8 + talk)
        out[f"memory-is-lost-beside-{fail}"] = (bytes([RINGS | MORE, BESIDE]) + op(MEMORY, fail=fail) + op(PROCESS) + op(MEMORY) +
                                                op(MEMORY) + op(RECONNECT) + TURN * 8 + talk)
    return out


def flood_seeds():
    """More than is read, answered or remembered."""
    out = {}
    for start, more in ((RINGS, TIGHT), (RINGS, 0), (KERNEL, 0)):
        begin = bytes([start | MORE, more]) + op(PROCESS) + op(ALIAS)
        out[f"flood-unread-{start}-{more}"] = (begin + op(FLOOD, 79, 8) + op(RING, 0x43) + op(RING, 0x40) + op(FLUSH, 0, 2) + op(PROCESS) +
                                               op(TIME, 1) + op(READ) + op(PROCESS) + TURN * 4)
        out[f"flood-replies-{start}-{more}"] = begin + op(FLOOD, 79, 3) * 3 + TURN * 4
        out[f"flood-replies-read-{start}-{more}"] = begin + (op(FLOOD, 20, 3) + op(READ)) * 4 + TURN * 4
        whole = bytes([start & KERNEL | MORE, more]) + TURN * 8 + op(RING, 0x40) + TURN * 2 + op(ALIAS) + op(MAP, 0, 0, 0x83) + op(MISS, 8, 0x1b)
        out[f"flood-until-all-is-held-{start}-{more}"] = (whole + op(PROCESS) + op(FLOOD, 62, 14) + b"".join(
            ask(0x80000000 + (4032 + i) * 0x1000) + op(PROCESS) + op(READ) for i in range(65)) + op(FLUSH, 40, 0) +
            op(PROCESS) + TURN * 3 + op(MISS, 4, 3) + op(PROCESS) + op(DEVICE, 0) + op(FLUSH, 0, 0x80) + TURN * 3)
        out[f"flood-remembered-{start}-{more}"] = (begin + op(FLOOD, 67, 14) + op(FLUSH, 0, 0x80) + TURN * 3 + op(FLOOD, 67, 14) + op(MISS, 4, 3) +
                                                   TURN * 3)
        out[f"flood-denied-{start}-{more}"] = bytes([start | MORE, more]) + op(PROCESS) + op(FLOOD, 5, 14) + op(ALIAS) + op(TIME, 10) + TURN * 3
        out[f"flips-{start}-{more}"] = (begin + op(FLIP, 79) + op(FLOOD, 1, 0) + op(FLUSH, 0, 0x80) + op(RING, 0x43) + op(TIME, 1) + TURN * 20 +
                                        op(MISS, 4, 3) + TURN * 3)
        out[f"denied-while-busy-{start}-{more}"] = (bytes([start | MORE, more]) + op(PROCESS) + op(FLOOD, 3, 10) + op(ALIAS) + op(FLOOD, 79, 8) +
                                                    op(TIME, 10) + op(TIME, 50) + TURN * 4)
        for fail in range(1, 5):
            out[f"cut-where-it-is-full-{start}-{more}-{fail}"] = (begin + op(FLOOD, 40, 14) + b"".join(
                op(FLUSH, page, 0, fail=fail) + op(MISS, 4 * page, 1, fail=fail) + op(PROCESS, fail=fail) + TURN for page in (0, 1, 20)) +
                op(FLUSH, 0, 3) + op(PROCESS) + op(MISS, 4, 3) + TURN * 2)
    return out


def memory_seeds(talk):
    """Slots of many files, at all sorts of places; pages that lead there."""
    out = {}
    all_files = b"".join(slot(i, i, 0) for i in range(6))
    go = op(MAP, 20, 0x80, 3) + window(21, 0) + window(22, 4) + op(MISS, 80, 0x33) + op(PROCESS) + TURN
    for start in (RINGS, RINGS | FILES, KERNEL):
        out[f"slots-{start}"] = bytes([start]) + all_files + TURN + go + slot(0x80, 0, 0) + TURN + slot(0x85, 0, 0) + slot(0x89, 0, 0) + TURN + talk
        out[f"slots-too-many-{start}"] = bytes([start]) + b"".join(slot(i, i, 0) for i in range(10)) + TURN + op(RECONNECT) + TURN * 8
        out[f"slots-same-place-{start}"] = (bytes([start]) + b"".join(slot(i, 0, 5, 3 - i % 4) for i in range(12)) + TURN + go + talk +
                                            b"".join(slot(0x80 | i, 0, 0) for i in range(12)) + TURN)
        out[f"slots-follow-{start}"] = (bytes([start]) + b"".join(slot(i, 1, 4 * i, 3) for i in (3, 1, 0, 2, 9, 8)) + TURN +
                                        b"".join(window(i, i) for i in range(16)) + op(MISS, 16, 3) + TURN * 2 + talk)
        out[f"slots-no-file-{start}"] = (bytes([start]) + slot(0, 10, 0) + slot(1, 11, 0) + slot(2, 1, 0x80) + slot(3, 2, 0xff) +
                                         slot(4, 3, 0) + slot(5, 6, 0) + slot(6, 12, 1) + TURN + b"".join(window(i, 4 * i) for i in range(7)) +
                                         op(MISS, 0, 0x73) + TURN * 2 + op(MEMORY) + TURN + op(MEMORY) + TURN)
        far_off = b"".join(slot(2 * i, i, 0) + slot(2 * i + 1, i, 0x80 | i) for i in range(6))
        out[f"slots-far-apart-{start}"] = bytes([start]) + far_off + TURN + go + talk
    for nth in range(3):
        out[f"slots-unknown-{nth}"] = bytes([RINGS]) + fault(FSTAT, nth) + slot(0, 1, 0) + TURN + go
    wide = b"".join(window(i, 0x80 | i) for i in range(128))
    out["a-window-of-one-run"] = bytes([RINGS]) + wide + ask(BASE + 0x10000) + op(PROCESS) + TURN + op(FLUSH, 0, 0x80) + TURN * 2
    out["a-window-seen-from-its-end"] = bytes([RINGS]) + wide + ask(BASE + 0x7f000) + op(PROCESS) + TURN + op(FLUSH, 0x1f, 7) + TURN * 2
    mixed = slot(15, 12, 124, 3) + op(MEMORY) + TURN
    out["large-beside-small"] = (bytes([RINGS]) + mixed + b"".join(window(255 - i, 63 - i) for i in range(4)) + op(MAP, 0, 0, 0xc3) +
                                 ask(LARGE) + ask(LARGE - 0x1000) + TURN + op(FLUSH, 0x41, 0) + TURN + ask(LARGE - 0x2000) + TURN)
    out["small-becomes-large"] = (bytes([RINGS]) + window(256, 0x80) + window(257, 0x81) + ask(LARGE) + TURN + op(MAP, 0, 0, 0x83) + ask(LARGE) +
                                  ask(LARGE + 0x1000) + TURN + op(FLUSH, 0x50, 0) + TURN)
    return out
