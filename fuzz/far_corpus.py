# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the vfio_user_client fuzz target: far servers that get far, and some that do not."""
import struct

ISOLATE, MIRROR, TWIN, SILENT, TEXT, FEW, HASTY, NO_FILE = 1, 2, 4, 8, 16, 32, 64, 128

BEHAVE, RECEIVE, MAP, INVALIDATE, UNIT, SEND, CLOCK, RESET, CONNECT, PROCESS, FAIL, MORE = 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15

# Kinds of CONNECT: a client that nobody listens to; the server's ends are closed; another client of what is no socket.
BARE, CLOSE, CLOSE_TWIN, OTHER = 1, 4, 5, 8
NO_FD, UNWATCHED, PATH, LEFT, FULL = range(5)
# Kinds of MORE.
MISUSE, STARVE, CHANGE, EARLIER, ERRNO, FLOOD, CHATTY, WITH_FDS = range(8)
EINTR, ENFILE, ETOOMANYREFS, ENOBUFS, EMFILE, ENOMEM, EIO, EPIPE = range(8)
EPOLL = 8
# How a change is called: what, and with what.
UNMAP, REPLACE, DEVICE_TLB, HUGE, FILELESS, BAD_FD, FENCE = 1, 2, 3, 4, 8, 16, 32

DMA_READ, DMA_WRITE = 11, 12


def op(number, kind=0):
    return bytes([number | kind << 4])


def say(kind, *rest):
    return op(0) + bytes([kind]) + b"".join(rest)


def dma(read, address, count, data=b"", twin=False, far=False, flags=0):
    """An address from the mapped window on, or (far) any."""
    kind = 4 | read | (8 if twin else 0) | (32 if far else 0) | flags
    return say(kind, struct.pack("<Q", address) if far else address.to_bytes(3, "little"), struct.pack("<H", count), data)


def mapping(first, count=1, perm=3, scattered=False):
    return op(MAP) + bytes([first, perm | (count - 1) << 2 | (128 if scattered else 0)])


def command(number, size=4, answered=True, fd=False):
    """From the embedder."""
    return op(SEND) + bytes([(4 if answered else 0) | (2 if fd else 0) | 1]) + struct.pack("<H", size) + bytes([number])


def more(kind, *operands):
    return op(MORE, kind) + bytes(operands)


def change(how, page=0):
    return more(CHANGE, how | 0xc0, page)


def earlier(n, error=None, size=0, fds=0, right=True, nameless=False):
    """An answer to the n-th command before the last."""
    how = (error is not None) | (2 if right else 0) | (4 if nameless else 0) | fds << 3
    return more(EARLIER, n, how) + (b"" if error is None else struct.pack("<I", error)) + size.to_bytes(3, "little")


def flood(n, size):
    return more(FLOOD, n) + size.to_bytes(3, "little")


def with_fds(fds, data):
    return more(WITH_FDS, len(data), fds) + data


def other(kind, left=0, fail=None):
    """Another client of what is no good; with so many descriptors, and a failed allocation."""
    return (b"" if fail is None else op(FAIL, fail)) + op(CONNECT, OTHER | kind) + bytes([left])


process = op(PROCESS)
behave = op(BEHAVE)
unit = op(UNIT, 15)
follow = op(INVALIDATE) + (unit + behave + process) * 14  # a change a round
begin = process + unit + behave + process + unit + behave + process
mapped = mapping(0, 4) + mapping(8, 3, 1) + mapping(20, 8, 3, True)


def text_seeds():
    """What a server says of itself: each way in which such a text is right, and each in which it is not."""
    twin = b'"twin_socket":{"supported":%s,"fd_index":%s}'
    whole = [b' {\t"capabilities"\n:\r{ "max_msg_fds" : 8 , "pgsizes":4096 } } ', b'{"a":1} x', b'{"a":1}}', b'{"capabilities":{"max_msg_fds":x}}',
             b'{"capabilities":{"max_msg_fds":1.}}', b'{"a":tru', b'{"a":nule}', b'{"a":nul',
             b'{1:2}', b'{"a', b'{"a\x01":1}', b'{"a\\', b'{"a\\"":1}', b'{"a":-', b'{"a":1.', b'{"a":1.5', b'{"a":1e', b'{"a":1e+5}',
             b'{"a":1E-5}', b'{"a":1e+}', b'{"a":12', b'{"a"1}', b'{"a":1', b'{"a":[1', b'{"a":[1,]}', b'{"a":[]}', b'{"a":',
             b'{"a":true,"b":false,"c":"d","e":{},"f":null}', b'{"a":' + b'{"a":' * 20, b'{"a":' + b'[' * 20, b"x", b'{"a":1}' + b" " * 16384,
             b'{"capabilities":{"max_msg_fds":"8"}}', b'{"capabilities":{"max_msg_fds":-8}}', b'{"capabilities":{"max_msg_fds":8.0}}',
             b'{"capabilities":{"max_data_xfer_size":0}}', b'{"capabilities":{"max_dma_maps":0}}', b'{"capabilities":[]}',
             b'{"capabilities":{"max_data_xfer_size":512,"max_dma_maps":2}}', b'{"capabilities":{"max_msg_fds":0}}']
    for supported, index in ((b"true", b"0"), (b"true", b"9"), (b"1", b"0"), (b"true", b"-1"), (b"false", b"0")):
        whole.append(b'{"capabilities":{' + twin % (supported, index) + b"}}")
    whole.append(b'{"capabilities":{"twin_socket":{"supported":true}}}')
    whole.append(b'{"capabilities":{"twin_socket":{"fd_index":0,"other":1}}}')
    return whole


def misuse_seeds():
    """An embedder that does what it may, and what it may not; a host that has nothing left."""
    out = {}
    up = bytes([MIRROR]) + begin + mapped
    quiet = bytes([SILENT | MIRROR]) + op(RECEIVE)
    out["misuse"] = up + more(MISUSE) + follow + more(MISUSE) + op(CONNECT, CLOSE) + process + more(MISUSE)
    for kind in (NO_FD, UNWATCHED, PATH, LEFT, FULL, 5):
        out["other-%d" % kind] = up + b"".join(other(kind, left) for left in range(6)) + \
            b"".join(other(kind, 0, fail) for fail in range(6)) + follow
        out["other-errno-%d" % kind] = up + b"".join(
            more(ERRNO, error) + other(kind) for number in range(8) for error in (number, number | EPOLL)) + follow
    out["bare"] = up + op(CONNECT, BARE) + begin + mapped + follow + say(2, b"\0") + process + process
    out["bare-isolated"] = bytes([ISOLATE | SILENT]) + op(CONNECT, BARE) + op(RECEIVE) + say(3) + process + op(RECEIVE) + \
        say(2 | 16, b"\x0c\0") + process + behave + process + dma(1, 0, 64, far=True) + process
    out["file-none"] = bytes([MIRROR | NO_FILE]) + begin + mapped + follow + dma(1, 0, 64) + process
    for number in range(8):
        for error in (number, number | EPOLL):
            again = more(ERRNO, error)
            out["errno-%d" % error] = up + follow + again + command(9) + process + again + dma(1, 0, 64) + process + again + \
                mapping(0, 4, 0) + op(INVALIDATE) + unit + behave + process + unit + op(CONNECT) + begin + op(RESET) + follow
            out["errno-twin-%d" % error] = bytes([SILENT | MIRROR | TWIN]) + op(RECEIVE) + say(3) + again + process + begin
    for left in range(4):
        out["starved-%d" % left] = up + follow + say(1 | 7 << 4, b"\x0b\0\0\x10", bytes(16)) + more(STARVE, left) + process + \
            command(9) + op(RECEIVE) + say(2 | 7 << 5, b"\0") + more(STARVE, left) + process + \
            command(9, 0xffff, False) * 6 + more(STARVE, left) + command(9, 4, True, True) + behave + process + follow
        out["starved-map-%d" % left] = up + op(INVALIDATE) + unit + op(RECEIVE) + say(2 | 2 << 5, b"\0") + \
            more(STARVE, left) + process + behave + process
        text = b'\0\0\0\0{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}'
        out["starved-version-%d" % left] = quiet + say(2 | 1 << 5, bytes([len(text)]), text) + more(STARVE, left) + process
    few = b'{"capabilities":{"max_msg_fds":1}}'
    out["fds-few"] = bytes([TEXT | MIRROR]) + struct.pack("<H", len(few)) + few + begin + op(SEND) + b"\xdf\4\0\x08" + process
    out["fds-bad"] = up + op(SEND) + b"\xd7\4\0\x08" + op(SEND) + b"\xdf\4\0\x08" + command(9, 0xffff, False) * 6 + \
        op(SEND) + b"\xd7\4\0\x08" + op(SEND) + b"\xdf\4\0\x08" + behave + process + behave + process
    for fds in (8, 9, 16, 17, 20):
        out["fds-many-%d" % fds] = up + command(9) + op(RECEIVE) + \
            with_fds(fds, struct.pack("<HHIII", 9, 11, 32, 0, 0) + bytes(16)) + process + earlier(0, fds=fds) + process
    out["half-a-message"] = up + (op(FAIL, 0) + command(9, 0xffff, False)) * 6 + process
    out["half-an-answer"] = up + follow + (dma(1, 0, 0xf000) + op(FAIL, 1) + process) * 8 + process
    out["stream"] = up + command(9) * 50 + op(RECEIVE) * 60 + flood(49, 130000) + process * 60 + behave + process
    out["stream-small"] = up + command(9) * 60 + op(RECEIVE) * 60 + flood(59, 100) + process * 3 + behave + process
    out["chatty"] = up + more(CHATTY) + dma(0, 0xfee00000, 4, b"AAAA", far=True) + process + behave + process + \
        dma(0, 0xfee00000, 4, b"AAAA", far=True) * 2 + op(CONNECT, CLOSE) + process
    out["late-timer"] = bytes([HASTY | MIRROR]) + begin + op(CLOCK, 15) + process + process + command(9) + behave + process + \
        op(CLOCK, 15) + command(9) + process + behave + process
    out["error-large"] = up + b"".join(command(9) + op(RECEIVE) + earlier(0, error) + process
                                       for error in (0, 4095, 4096, 2**32 - 1))
    return out


def fence_seeds():
    """Changes and fences that the embedder calls, answered in another order, twice, or never."""
    out = {}
    up = bytes([MIRROR]) + begin
    take = op(RECEIVE)
    for how in (0, UNMAP, REPLACE, DEVICE_TLB, HUGE, HUGE | UNMAP, FILELESS, BAD_FD, FENCE):
        out["change-%d" % how] = up + change(how) + behave + process + change(how, 9) + take + earlier(0) + process + \
            change(FENCE) + behave + process
    out["changes-many"] = up + command(9) * 248 + b"".join(change(n & 1, n) for n in range(10)) + change(FENCE) + process + \
        change(0) + change(FENCE) + process + change(0)
    # An UNMAP that is answered before the MAP; two of one; a MAP that is refused then.
    out["unmap-first"] = up + change(0) + change(UNMAP) + take * 2 + earlier(0) + process + earlier(1) + process + \
        change(0, 1) + change(UNMAP, 1) + change(UNMAP, 1) + take * 3 + earlier(0) + earlier(1) + process + \
        earlier(2, 12) + process + change(FENCE) + behave + process
    out["map-refused-late"] = up + change(0) + change(FENCE) + take * 2 + earlier(1, 12) + process + earlier(0) + process + \
        change(0) + take + earlier(0, 12) + process + change(FENCE) + process
    out["fence-twice"] = up + change(0) + change(FENCE) + change(FENCE) + take * 3 + earlier(1) + process + earlier(0) + \
        process + change(FENCE) + process
    out["fence-of-nothing"] = up + change(FENCE) + process + change(0) + take + earlier(0) + process + change(UNMAP) + take + \
        earlier(0) + process + change(FENCE) + process
    full = up + change(0) + take + earlier(0) + process + command(9, 0xffff, False) * 6
    out["fence-full"] = full + change(FENCE) + change(FENCE) + change(0) + process + change(FENCE) + process
    out["fence-left"] = full + op(CONNECT, CLOSE) + change(FENCE) + change(0) + process + change(FENCE)
    out["fence-gone"] = up + change(0) + op(CONNECT, CLOSE) + change(FENCE) + change(0) + process + change(FENCE)
    out["fence-failed"] = full + op(FAIL, 0) + change(FENCE) + process
    out["unmap-size"] = up + change(0) + change(UNMAP) + take * 2 + earlier(0, size=24, right=False) + process
    out["nameless"] = up + change(0) + change(UNMAP) + take * 2 + earlier(1, nameless=True) + earlier(0, nameless=True) + process
    out["map-fds"] = up + change(0) + take + earlier(0, fds=2) + process
    isolated = bytes([ISOLATE | SILENT]) + take + say(3) + process + take
    out["isolated-left"] = isolated + say(2 | 16, b"\x0c\0") + op(CONNECT, CLOSE) + process
    out["isolated-pieces-fds"] = isolated + earlier(0, fds=1) + process
    return out


def odd_seeds():
    """Answers that are wrong in one way, servers that are late or full, allocations that fail."""
    out = {}
    quiet = bytes([SILENT | MIRROR]) + op(RECEIVE)
    for name, version in (("major", b"\1\0\0\0"), ("minor", b"\0\0\xff\xff"), ("cut", b"\0\0\0")):
        out["version-" + name] = quiet + say(2, bytes([len(version)]), version) + process + behave + process
    for text in (b"", b"\0"):
        out["version-bare-%d" % len(text)] = quiet + say(2, bytes([4 + len(text)]), bytes(4), text) + begin + mapped + follow
    for fds in range(1, 5):  # none is a stream socket of this host
        text = b'\0\0\0\0{"capabilities":{"twin_socket":{"supported":true,"fd_index":%d}}}' % (fds - 1)
        out["version-twin-%d" % fds] = quiet + say(2 | fds << 5, bytes([len(text)]), text) + process
    up = bytes([MIRROR]) + begin + mapped
    asked = up + follow + mapping(0, 4, 0) + op(INVALIDATE) + unit
    for name, answer in (("unmap-short", say(2, b"\4", bytes(4))), ("unmap-other", say(2, b"\x18", bytes(24))),
                         ("unmap-error-0", say(2 | 16, b"\0\0")), ("unmap-error-255", say(2 | 16, b"\xff\0")),
                         ("unmap-fds", say(2 | 7 << 5, b"\x18", bytes(24)))):
        out["answer-" + name] = asked + op(RECEIVE) + answer + process + unit + behave + process
    out["answer-map-long"] = up + op(INVALIDATE) + unit + op(RECEIVE) + say(2, b"\4", bytes(4)) + process
    for command_number, flags in ((2, 1), (0, 1), (9, 1), (9, 3), (2, 2), (3, 0x21)):
        for number in (0x01, 0x11, 0x21, 0xf1):
            out["id-%d-%d-%d" % (command_number, flags, number)] = asked + say(1 | number & 0xf0, bytes(
                [command_number, flags, 0, 24]), bytes(24)) + process
    hangs = asked + op(CLOCK, 15) + unit + op(CLOCK, 15) + unit
    for name, answer in (("refused", say(2 | 16, b"\x10\0")), ("unanswered", op(CONNECT, 4)), ("done", say(3))):
        out["fence-" + name] = hangs + op(RECEIVE) * 3 + answer + process + unit + process + op(RESET) + follow
    for number, message in enumerate(((0, 1, 0, 24), (9, 1, 0, 24), (3, 0x21, 16, 0), (0, 1, 0, 0))):
        out["same-id-%d" % number] = asked + op(RECEIVE) + say(1 | 128, bytes(message), bytes(24)) + process + follow
    few = b'{"capabilities":{"max_dma_maps":2}}'
    out["few-of-both"] = bytes([TEXT | MIRROR | FEW]) + struct.pack("<H", len(few)) + few + begin + mapped + follow
    out["isolated-few-of-both"] = bytes([TEXT | ISOLATE | FEW]) + struct.pack("<H", len(few)) + few + begin
    taken = up + command(9) * 3 + process + behave + process + command(9) * 3
    out["id-of-before"] = taken + b"".join(say(1, bytes([9, 1, 0, 0])) + process for _ in range(2))
    for name, message in (("read-short", say(1, b"\x0b\0\0\x08", bytes(8))), ("read-long", say(1, b"\x0b\0\0\x11", bytes(17))),
                          ("read-fds", say(1 | 16, b"\x0b\0\0\x10", bytes(16))),
                          ("read-lost", say(1 | 15 << 4, b"\x0b\0\0\x10", bytes(16))),
                          ("write-cut", say(1, b"\x0c\0\0\x14", bytes(8) + b"\x08" + bytes(11))),
                          ("write-huge", say(4 | 64 | 128, bytes(3), struct.pack("<Q", 2**20 + 1), b"\x40", bytes(64))),
                          ("read-all", say(5 | 64, bytes(3), struct.pack("<Q", 2**64 - 1))),
                          ("read-none-left", say(1 | 16, b"\x0b\0\0\x10", bytes(16)) + more(STARVE, 0))):
        out["odd-" + name] = up + follow + message + process
    out["answers-many"] = up + follow + (dma(1, 0, 0x4000) * 12 + process) * 24 + behave * 3 + process + behave
    out["write-only"] = up + mapping(30, 2, 2) + follow + dma(0, 0x1e000 % 0x18000, 64, bytes(64)) + process + \
        mapping(30, 2, 0) + op(INVALIDATE) + unit + op(RECEIVE) + op(RECEIVE) + say(2 | 16, b"\x10\0") + process + follow
    out["sends"] = up + b"".join(command(number) for number in (1, 2, 3, 11, 12)) + op(SEND) + b"\xff\0\0\x09" + \
        op(SEND) + b"\xf7\4\0\x09" + op(SEND) + b"\xef\4\0\x09" + op(SEND) + b"\xe7\4\0\x09" + process + behave + process
    out["sends-many"] = up + command(9) * 300 + process + behave + process
    out["sends-large"] = up + command(9, 0xffff, False) * 60 + process + behave + process
    out["sends-dead"] = up + command(9) + op(CONNECT, 4) + command(9) + command(9) + process + command(9)
    out["answers-unread"] = up + follow + (dma(1, 0, 0xf000) * 4 + process) * 12 + behave * 3 + process + behave
    for mode in (MIRROR, ISOLATE, MIRROR | TWIN, SILENT):
        hasty = bytes([mode | HASTY]) + begin + mapped
        out["hasty-%d" % mode] = hasty + op(INVALIDATE) + unit + command(9) + op(CLOCK, 15) + process + command(9) + \
            op(CONNECT) + begin + behave + process + op(CLOCK, 15) + process + command(9) + op(CLOCK, 15) + process
    for isolated in (ISOLATE, ISOLATE | FEW):
        refused = bytes([isolated | SILENT]) + op(RECEIVE) + say(3) + process + op(RECEIVE)
        out["isolated-pieces-%d" % isolated] = refused + say(2 | 16, b"\x0c\0") + process + behave + process + \
            dma(1, 0, 64, far=True) + process
        out["isolated-refused-%d" % isolated] = refused + (say(2 | 16, b"\x0c\0") + process + op(RECEIVE)) * 40
    for fail in range(8):
        failing = b"".join(op(FAIL, fail) + one for one in (
            behave, process, unit, mapping(0, 4), op(INVALIDATE), unit, behave, process, dma(1, 0, 64), process,
            dma(0, 0, 64, bytes(64)), process, command(9, 300), process, behave, process))
        for mode in (MIRROR, ISOLATE, MIRROR | TWIN):
            out["fails-%d-%d" % (mode, fail)] = bytes([mode]) + op(FAIL, fail) + op(CONNECT) + failing + begin + follow
            out["fails-full-%d-%d" % (mode, fail)] = bytes([mode]) + begin + mapped + follow + \
                command(9, 0xffff, False) * 6 + (op(FAIL, fail) + command(9, 0xf000, True, True)) * 2 + behave + \
                (dma(1, 0, 0xf000) + op(FAIL, fail) + process) * 6 + (dma(0, 0, 0x2000, bytes(0x2000)) + op(FAIL, fail) +
                                                                     process) * 2 + behave + process
    out.update(misuse_seeds())
    out.update(fence_seeds())
    for number, text in enumerate(text_seeds()):
        out[f"says-{number}"] = bytes([TEXT | MIRROR]) + struct.pack("<H", len(text)) + text + begin + mapped + follow
    return out


def seeds():
    out = odd_seeds()
    for name, mode in (("mirror", MIRROR), ("isolated", ISOLATE), ("twin", MIRROR | TWIN),
                       ("isolated-twin", ISOLATE | TWIN), ("few", MIRROR | FEW), ("plain", 0)):
        twin = bool(mode & TWIN)
        transfers = b"".join(dma(read, address, 64, b"" if read else bytes(64), twin)
                             for address in (0, 0x8010, 0x14ff0, 0x17000) for read in (1, 0)) + process + behave
        commands = command(9) + command(10, 300) + command(13, 0, False) + command(8, 24, True, True)
        out[name] = bytes([mode]) + begin + mapped + follow + transfers + commands + process + behave + process + \
            mapping(1, 2, 0) + mapping(20, 8, 0) + follow + transfers + op(CONNECT) + begin + op(RESET) + follow + \
            transfers
        # A server that dies while a change waits, then another.
        out[name + "-dies"] = bytes([mode]) + begin + mapped + follow + mapping(0, 4, 0) + op(INVALIDATE) + unit + \
            op(CONNECT, 4) + process + unit + op(CONNECT) + begin + op(RESET) + follow
        out[name + "-hangs"] = bytes([mode]) + begin + mapped + follow + mapping(0, 4, 0) + op(INVALIDATE) + unit + \
            op(CLOCK, 15) + unit + behave + process + op(RESET) + follow
        out[name + "-refuses"] = bytes([mode]) + begin + mapped + op(INVALIDATE) + unit + op(RECEIVE) + \
            say(2 | 16, bytes([12, 0])) + process + unit + behave + process + mapping(0, 4, 0) + op(INVALIDATE) + unit + \
            op(RECEIVE) + say(2 | 16, bytes([16, 0])) + process + unit + behave + process
    for number, text in enumerate((
            b'{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":65536,"max_dma_maps":64,"pgsizes":4096}}\0',
            b'{"capabilities":{"twin_socket":{"supported":true,"fd_index":0},"a":[1,-2.5e3,null,{"b":"\\u0041"}]}}\0',
            b'{"capabilities":{"twin_socket":{"supported":false}},"x":[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]}\0', b'{}',
            b'{"capabilities":{"max_msg_fds":18446744073709551616}}', b'[', b'{"capabilities":{"pgsizes":0}}')):
        out[f"text-{number}"] = bytes([TEXT | MIRROR]) + struct.pack("<H", len(text)) + text + begin + mapped + follow
    quiet = bytes([SILENT | MIRROR])
    out["silent-error"] = quiet + op(RECEIVE) + say(2 | 16, bytes([22, 0])) + process
    out["silent-short"] = quiet + op(RECEIVE) + say(2, bytes([3]), b"abc") + process
    out["silent-dma"] = quiet + dma(1, 0, 4) + process
    out["early"] = quiet + command(9) + op(RECEIVE) + say(3) + begin
    odd = bytes([MIRROR | TWIN]) + begin + mapped + follow
    for number, header in enumerate((struct.pack("<HHIII", 1, 11, 8, 0, 0), struct.pack("<HHIII", 1, 11, 2**31, 0, 0),
                                     struct.pack("<HHIII", 1, 9, 16, 1, 0), struct.pack("<HHIII", 1, 2, 16, 2, 0))):
        for twin in (0, 8):
            out[f"raw-{number}-{twin}"] = odd + say(twin, bytes([len(header)]), header) + process
    out["kinds"] = odd + b"".join(say(1 | twin, bytes([number, flags, 0, 16]), bytes(16))
                                  for number in range(15) for flags in (0, 16) for twin in (0, 8)) + process * 3
    out["far"] = odd + b"".join(dma(read, address, 4, b"" if read else b"AAAA", far=True)
                                for address in (0xfee00000, 2**64 - 2, 2**48, 0x40000ffe) for read in (1, 0)) + process
    out["counts"] = odd + b"".join(say(4 | 1 | 64, bytes(3) + struct.pack("<Q", count))
                                   for count in (0, 2**20, 2**20 + 1, 2**32, 2**64 - 1)) + process * 3
    out["flood"] = odd + (dma(1, 0, 0x4000) * 20 + process) * 6 + behave + process
    out["twice"] = odd + command(13, 0) + op(RECEIVE) + say(3) + say(3) + process
    out["unasked"] = odd + command(13, 0, False) + op(RECEIVE) + say(3) + process
    return out
