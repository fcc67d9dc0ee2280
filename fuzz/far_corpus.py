# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the vfio_user_client fuzz target: far servers that get far, and some that do not."""
import struct

ISOLATE, MIRROR, TWIN, SILENT, TEXT, FEW = 1, 2, 4, 8, 16, 32

BEHAVE, RECEIVE, MAP, INVALIDATE, UNIT, SEND, CLOCK, RESET, CONNECT, PROCESS = 4, 5, 6, 7, 8, 9, 10, 11, 12, 13

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


process = op(PROCESS)
behave = op(BEHAVE)
unit = op(UNIT, 15)
follow = op(INVALIDATE) + (unit + behave + process) * 4
begin = process + unit + behave + process + unit + behave + process
mapped = mapping(0, 4) + mapping(8, 3, 1) + mapping(20, 8, 3, True)


def seeds():
    out = {}
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
