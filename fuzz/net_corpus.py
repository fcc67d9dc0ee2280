# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the virtio_net fuzz target: drivers and far processes that get far, and what goes wrong."""
import struct

(WRITE, READ, CONFIG, BEGIN, NOTIFY, READY, STOPPED, FAILED, CALL, TIME, LISTEN, ERRORS, PLATFORM, STATUS, MASTER,
 SUMMARY) = range(16)
LISTENS, LACKS, IN_MEMORY = 1, 2, 32


def op(what, operand=0, *more):
    return bytes([what | operand << 4]) + bytes(more)


def begin(features=2, more=0):
    return op(BEGIN, features, more)


def stopped(ring, place=7):
    return op(STOPPED, ring) + struct.pack("<H", place)


def config(offset, size, value):
    return op(CONFIG, size.bit_length() - 1, offset) + value.to_bytes(size, "little")


def registers():
    """All of them, in every size."""
    return b"".join(op(READ) + struct.pack("<HB", offset, size - 1)
                    for offset in list(range(0, 0x40, 4)) + [0x1000, 0x2000, 0x2006, 0x3000, 0x3ffe] for size in (1, 2, 4, 8))


BOTH = stopped(0) + stopped(1)
USE = op(NOTIFY, 0) + op(NOTIFY, 1) + op(CALL, 0) + op(CALL, 1) + op(SUMMARY)
AGAIN = op(TIME) + op(READY)
RESET = op(STATUS, 0)


def seeds():
    up = bytes([LISTENS]) + op(READY) + begin()
    whole = {
        "all": up + USE + RESET + BOTH + begin(3) + USE,
        "registers": up + registers() + b"".join(op(CONFIG, 4 + size, offset) for offset in range(0, 256, 4)
                                                 for size in (0, 2)),
        "late-driver": bytes([LISTENS]) + begin() + USE + op(READY) + USE,
        "late-far": bytes([0]) + begin() + op(TIME) * 3 + op(LISTEN) + AGAIN + USE,
        "leaves": up + USE + op(FAILED) + op(NOTIFY) + AGAIN + USE + op(FAILED, 1) + RESET + begin() + AGAIN + USE,
        "leaves-in-reset": up + RESET + stopped(0) + op(FAILED, 2) + AGAIN + begin() + USE,
        "given-up": up + op(STATUS, 8) + op(FAILED, 3) + AGAIN + BOTH + begin() + USE,
        "given-up-when-cut": up + op(FAILED, 3) + op(STATUS, 8) + AGAIN + begin() + USE,
        "half-cut": up + op(FAILED) + op(TIME) + op(MASTER, 0) + op(READY) + op(MASTER, 1) + USE,
        "master": up + op(MASTER, 0) + stopped(0) + op(MASTER, 1) + stopped(1) + USE,
        "platform": up + op(PLATFORM) + begin() + BOTH + USE + op(PLATFORM) + op(FAILED) + AGAIN + begin() + USE,
        "platform-in-reset": up + RESET + op(PLATFORM) + op(STATUS, 1) + BOTH + begin() + USE,
        "less": bytes([LISTENS]) + op(READY) + begin(7) + op(FAILED) + op(TIME) + op(READY, 2) + op(STATUS, 15) +
        op(STATUS, 7) + begin(2) + USE,
        "less-settled": bytes([LISTENS]) + op(READY) + begin(1 | 4) + op(FAILED) + op(TIME) + op(READY, 2) + op(WRITE) +
        struct.pack("<HBB", 20, 0, 15) + USE + RESET + begin(0) + USE,
        "no-translation": bytes([LISTENS]) + op(READY) + begin(2, 1) + USE,
        "one-queue": bytes([LISTENS]) + op(READY) + begin(2, 4) + USE + RESET + stopped(1) + begin(2, 8) + USE + op(FAILED) +
        AGAIN + USE,
        "errors": bytes([LISTENS]) + op(READY) + op(ERRORS, 2) + begin() + USE + op(FAILED) + op(ERRORS, 3) + op(TIME) * 4 +
        op(READY) + USE,
        "error-at-first": bytes([0]) + op(LISTEN) + op(ERRORS, 3) + op(TIME) * 5 + op(READY) + begin() + USE,
        "other-errors": bytes([0]) + op(TIME) + op(LISTEN) + op(ERRORS, 2) + op(TIME) * 2 + op(READY) + begin() + USE,
        "comes-and-goes": up + (op(FAILED, 4) + AGAIN) * 60,
        "leaves-for-long": up + op(LISTEN) + op(FAILED) + op(TIME) * 9 + op(LISTEN) + AGAIN + USE,
        "cut-twice": up + op(FAILED) + op(TIME) + op(FAILED, 2) + AGAIN + USE,
        "down": bytes([0]) + registers(),
        "features": bytes([LISTENS]) + b"".join(op(READY, 1) + struct.pack("<Q", 1 << bit) + begin(3) + op(FAILED) + RESET +
                                                op(TIME) for bit in (0, 1, 7, 11, 15, 28, 29, 34)),
    }
    msix = b"".join(config(offset, 2, 0x8000) for offset in range(0x40, 0x100, 4))
    whole["msix"] = up + msix + op(WRITE) + struct.pack("<HBH", 16, 1, 0) + USE + op(FAILED) + AGAIN + USE
    for lacking in range(1, 11):
        whole["lacks-%d" % lacking] = bytes([LISTENS | LACKS * lacking]) + op(READY) + begin() + USE + op(TIME) + op(READY) + USE
    whole["taken-back"] = up + op(CALL, 2) + op(CALL, 3) + USE
    whole["call-in-reset"] = up + RESET + op(CALL) + op(CALL, 1) + BOTH
    whole["steady"] = up + op(FAILED) + AGAIN + op(FAILED) + AGAIN + op(TIME, 3) + op(FAILED) + AGAIN + USE
    for errors in range(1, 7):
        whole["errors-%d" % errors] = up + op(FAILED) + op(ERRORS, errors) + op(TIME) * 4 + op(READY) + USE
    memory = bytes([LISTENS | IN_MEMORY]) + op(READY) + begin()
    whole["memory-leaves-while-it-stops"] = memory + op(MASTER, 0) + op(FAILED) + op(MASTER, 1) + AGAIN + USE
    whole["memory-stopped-when-gone"] = memory + op(FAILED) + op(MASTER, 0) + op(MASTER, 1) + AGAIN + USE + RESET + BOTH
    return whole
