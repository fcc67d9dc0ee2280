# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the fuzz target of handovers; make_corpus.py writes them. See handover_fuzz.c."""
import struct

RECEIVE, TALK, NAMES, PATHS = range(4)
HELLO, STATE, REFUSAL, READY, GO = range(1, 6)
END, FEW, CLOSED, NOW = 1, 2, 4, 8
LISTEN, CONNECT, SOCKET, LEAVE, FILE, NAMELESS, NOBODY, REMOVE, NOWHERE, TRUST, OTHER, CROWD = range(12)


def header(what, size=0, fds=0, version=2, magic=b"viommuHO", zero=0):
    return struct.pack("<8sIIQII", magic, version, what, size, fds, zero)


def piece(data, fds=0):
    return bytes([fds]) + struct.pack("<H", len(data)) + data


def receive(*pieces, flags=END, more=0):
    return bytes([RECEIVE, flags | more << 4]) + b"".join(pieces)


def talk(what, size, fds, flags=0):
    return bytes([TALK, flags, what - 1]) + struct.pack("<HH", size, fds)


def names(flags, *which, changes=(), less=None):
    out = bytes([NAMES, flags | len(changes) << 4, len(which), *which])
    for at, value in changes:
        out += struct.pack("<HB", at, value)
    return out if less is None else out + bytes([less])


def seeds():
    out = {}
    state = header(STATE, 5, 2)
    messages = {
        "hello": [piece(header(HELLO))], "all": [piece(header(what, 3) + b"abc") for what in range(1, 6)],
        "state": [piece(state + b"hallo"), piece(b"+", 2)],
        "state-split": [piece(state[:7]), piece(state[7:] + b"ha"), piece(b"llo"), piece(b"+", 2)],
        "state-many": [piece(header(STATE, 1, 255) + b"x"), piece(b"+", 253), piece(b"+", 2)],
        "fds-with-header": [piece(header(HELLO), 1)], "fds-with-data": [piece(header(STATE, 4)), piece(b"abcd", 3)],
        "fds-too-few": [piece(state + b"hallo"), piece(b"+", 1)],
        "fds-too-many": [piece(state + b"hallo"), piece(b"+", 3)],
        "fds-none": [piece(state + b"hallo"), piece(b"+")], "cut": [piece(state + b"hal")], "cut-header": [piece(state[:9])],
        "nothing": [], "magic": [piece(header(HELLO, magic=b"viommuHX"))],
        "version": [piece(header(HELLO, version=1))], "what-0": [piece(header(0))], "what-6": [piece(header(6))],
        "zero": [piece(header(HELLO, zero=1))], "text-long": [piece(header(REFUSAL, 513))],
        "state-long": [piece(header(STATE, (1 << 30) + 1))], "fds-long": [piece(header(STATE, 0, 16385))],
        "hello-fds": [piece(header(HELLO, 0, 1))],
        "text-longest": [piece(header(REFUSAL, 512) + b"x" * 512)],
    }
    for name, pieces in messages.items():
        out["receive-" + name] = receive(*pieces)
        out["waits-" + name] = receive(*pieces, flags=0)
    out["receive-names"] = receive(*messages["state"], flags=END, more=8)
    out["receive-names-few"] = receive(*messages["state"], flags=END | FEW, more=8)
    for more in range(0, 6):
        out["receive-few-%d" % more] = receive(*messages["state-many"], flags=END | FEW, more=more)
    out["receive-closed"] = receive(flags=CLOSED)
    out["receive-now"] = receive(flags=NOW)
    for number, (what, size, fds) in enumerate(((HELLO, 0, 0), (STATE, 60000, 0), (STATE, 9, 1), (STATE, 5, 600),
                                                (REFUSAL, 512, 0), (STATE, 65535, 253), (HELLO, 0, 3), (GO, 999, 0))):
        for flags in (0, 1, 2, 4, 8, 9, 10, 12, 0x20, 0x40, 0x49, 0x10, 0x80):
            out["talk-%d-%02x" % (number, flags)] = talk(what, size, fds, flags)
    out["names"] = names(0, 0, 1, 0, 2, 0x80, 1)
    out["names-many"] = names(1, *range(100))
    out["names-full"] = names(2, 0)
    out["names-full-nothing"] = names(3)
    out["names-short"] = names(0, 0, 1, less=3)
    for less in (1, 5, 13, 17):
        out["names-cut-%d" % less] = names(8, 0, 1, 2, less=less)
    out["names-limit"] = names(4, 0)
    for at in range(0, 24, 2):
        for value in (1, 0xff):
            out["names-changed-%d-%02x" % (at, value)] = names(0, 0, 1, 2, changes=((at, value),))
    out["names-twice-taken"] = names(0, 0, 0, 0, 0)
    for name, steps in (("used", (LISTEN, CONNECT, CONNECT, LISTEN, REMOVE | 16, REMOVE | 32, REMOVE, CONNECT)),
                        ("stale", (LISTEN, LEAVE, CONNECT, LISTEN, LEAVE, LISTEN)),
                        ("file", (FILE, LISTEN, CONNECT)), ("names", (NAMELESS, NAMELESS | 16, NOBODY, NOBODY | 16)),
                        ("nowhere", (NOWHERE, TRUST, REMOVE)), ("full", (SOCKET | 16, CROWD, CROWD, LISTEN, CONNECT)),
                        ("other-user", (OTHER, CONNECT, OTHER)), ("deaf", (SOCKET, LISTEN, LEAVE, LISTEN))):
        out["paths-" + name] = bytes([PATHS, *steps])
    return out
