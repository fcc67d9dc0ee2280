# SPDX-License-Identifier: BSD-2-Clause
"""Seeds of the fuzz target of paravirtual operations; make_corpus.py writes them. See pv_fuzz.c."""
import random
import struct

SELF = ALL = 0xffffffff


def raw(operation, body=b"", vm=0, fail=0, step=0, room=1, version=0):
    """A call; the target makes version and size right when they are zero here."""
    call = struct.pack("<HHI", version, operation, 0) + body
    return bytes([fail, step, len(call), room, vm]) + call


def map_call(frame, device_frame, count=1, order=0, perm=3, flags=0, of=SELF, context=0):
    return struct.pack("<IIQQQIIII", context, of, frame, device_frame, count, order, perm, flags, 0)


def operate(*values, fail=0, step=0):
    """A random operation of test_random.h."""
    return bytes([fail, step, 0]) + bytes(values) + bytes(8 - len(values))


def foreign(frames, context=0, of=1, last=4095, perm=3):
    return struct.pack("<IIQIIII", context, of, last, perm, 0, len(frames), 0) + \
        struct.pack(f"<{len(frames)}Q", *frames)


def calls(fail=0, step=0):
    """Every kind of call, as it goes well."""
    def one(operation, body=b""):
        return raw(operation, body, fail=fail, step=step)
    return [
        one(1), one(2, struct.pack("<II", ALL, 8)), one(3), one(4, bytes(8)),
        one(7, map_call(0, 0, 4)), one(7, map_call(512, 512, order=9, of=1)),
        one(7, map_call(0, 70, 3, of=2, context=1)),
        one(10, struct.pack("<IIQ", 0, 0, 2)), one(11, struct.pack("<IIQ", SELF, 4, 1)),
        one(12, foreign([1, 2, 3])), one(6, struct.pack("<II", 1, 1)),
        one(8, map_call(0, 0, 2, perm=0, flags=1)), one(8, map_call(2, 2, 2, perm=0)),
        one(9, struct.pack("<IIQQ", 0, 0, 0, 1)), one(9, struct.pack("<IIQQ", 0, 1, 0, 0)),
        one(13, struct.pack("<IIQ", 0, 0, 1)), one(6, struct.pack("<II", 1, 0)),
        one(5, struct.pack("<II", 1, 0)),
    ]


def seeds():
    out = {}
    device = operate(0x2e, 0, 1)  # VM 0 gets device 1
    for how in range(4):
        out[f"calls-{how}"] = bytes([how]) + device + b"".join(calls())
    for step in range(1, 24):
        out[f"step-{step}"] = bytes([step & 3]) + device + b"".join(calls(step=step))
    for fail in range(1, 5):
        out[f"allocation-{fail}"] = bytes([1]) + b"".join(calls(fail=fail))
    out["malformed"] = bytes([0]) + b"".join(
        raw(operation, bytes(8), version=version) for operation in range(16) for version in (0, 3))
    out["short"] = bytes([0]) + b"".join(
        raw(7, map_call(0, 0)[:cut], room=room) for cut in (0, 8, 40) for room in (0, 1, 32))
    out["fields"] = bytes([0]) + device + b"".join(calls())[:200] + b"".join((
        raw(8, map_call(0, 0, perm=3, flags=0)), raw(8, map_call(0, 0, perm=0, flags=4)), raw(8, map_call(0, 0, perm=1)),
        raw(7, map_call(0, 0, perm=0)), raw(7, map_call(0, 0, perm=4)), raw(7, map_call(0, 0, flags=1)),
        raw(7, map_call(0, 0, flags=2)), raw(9, struct.pack("<IIQQ", 0, 2, 0, 1)), raw(9, struct.pack("<IIQQ", 0, 0, 2, 1)),
        raw(9, struct.pack("<IIQQ", 0, 1, 0, 5)), raw(10, struct.pack("<IIQ", 0, 1, 2)),
        raw(11, struct.pack("<IIQ", SELF, 17, 1)), raw(11, struct.pack("<IIQ", SELF, 0, 1)),
        raw(12, foreign([], perm=3)), raw(12, foreign([1], perm=0)), raw(12, foreign([1] * 5)[:-8]),
        raw(12, foreign([1])[:32] + struct.pack("<II", 17, 0)), raw(12, foreign([1])[:36] + b"\1\0\0\0"),
        raw(12, foreign([1], perm=3)[:28] + struct.pack("<III", 2, 0, 0)), raw(13, struct.pack("<IIQ", 0, 1, 1))))
    random.seed(7)
    for number in range(24):
        data = bytes([number & 3])
        for _ in range(60):
            data += operate(*[random.randrange(256) for _ in range(8)],
                            step=random.choice([0, 0, 0, random.randrange(256)]))
        out[f"random-{number}"] = data
    return out
