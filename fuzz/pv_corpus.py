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


def go_on(which, room=1, fail=0, step=0):
    """Goes on with a call that was kept (VM number + 4); room 1: as much as it had."""
    return bytes([fail, step, 96, which, room])


def forget(which):
    return bytes([0, 0, 97, which])


def refuse(*operations):
    return bytes([0, 0, 98]) + struct.pack("<H", sum(1 << one for one in operations))


def meanwhile(step, what, vm=0, third=0, fourth=0):
    """At a step of the next operation: a VM dies, a page goes, or another call is made."""
    return bytes([0, 0, 99, step, what, vm, third, fourth, 0, 0, 0, 0])


KEPT = 4


def kept():
    """Calls that yield and are kept, and what happens until they go on."""
    long_map = map_call(0, 0, 6, of=1)
    long_unmap = map_call(0, 0, 6, perm=0, of=1)
    dies, comes = operate(0x0e, 0, 0, 0, 0, 0, 0, 0), operate(0x1e, 0, 1)
    in_context = raw(4, bytes(8)) + raw(7, map_call(0, 0, 6, context=1), vm=KEPT)
    out = {
        "again": raw(7, long_map, vm=KEPT) + go_on(0) * 3 + go_on(0, room=8) + go_on(0) * 9,
        "forgotten": raw(7, long_map, vm=KEPT) + forget(0) + forget(1) + raw(8, long_unmap),
        "unmap": raw(7, long_map) + raw(8, long_unmap, vm=KEPT) + go_on(0) + refuse(8) + go_on(0),
        "foreign": raw(12, foreign([1, 2, 3]), vm=KEPT) + go_on(0) + refuse(12) + go_on(0),
        "caller-dies": raw(7, long_map, vm=KEPT) + dies + go_on(0),
        "caller-is-another": raw(7, long_map, vm=KEPT) + dies + comes + go_on(0),
        "named-dies": raw(7, map_call(0, 0, 6, of=0), vm=KEPT + 1) + dies + go_on(0),
        "named-is-another": raw(7, map_call(0, 0, 6, of=0), vm=KEPT + 1) + dies + comes + go_on(0),
        "unmap-of-the-dying": raw(7, map_call(0, 0, 6)) + raw(8, map_call(0, 0, 6, perm=0), vm=KEPT) + dies + go_on(0),
        "context-goes": in_context + raw(5, struct.pack("<II", 1, 0)) + go_on(0),
        "context-is-another": in_context + raw(5, struct.pack("<II", 1, 0)) + raw(4, bytes(8)) + go_on(0),
        "context-is-freed": raw(4, bytes(8)) + raw(7, map_call(0, 0, 6, context=1)) +
                            raw(5, struct.pack("<II", 1, 0), vm=KEPT) + raw(7, map_call(9, 9, context=1)) +
                            raw(5, struct.pack("<II", 1, 0)) + raw(4, bytes(8)) + go_on(0) * 2,
        "many": b"".join(raw(7, map_call(0, 20 * at, 6), vm=KEPT) for at in range(6)) + go_on(2) + go_on(7),
    }
    return {f"kept-{name}": bytes([1]) + content for name, content in out.items()}


def in_between():
    """Each of what can happen at each step of a map over a slot that waits, and of other calls."""
    waits = raw(7, map_call(1, 1)) + raw(8, map_call(1, 1, perm=0, flags=1))
    acts = [raw(7, map_call(2, 1, of=2, perm=3)), raw(8, map_call(0, 0, 2, perm=0)), raw(9, struct.pack("<IIQQ", 0, 1, 0, 0)),
            raw(12, foreign([1, 2, 3], of=0)), raw(6, struct.pack("<II", 1, 1)), raw(5, struct.pack("<II", 1, 0)),
            raw(13, struct.pack("<IIQ", 0, 0, 1)), raw(4, bytes(8)), raw(11, struct.pack("<IIQ", SELF, 4, 1))]
    out = {}
    for step in range(1, 9):
        for what in range(8):
            data = bytes([step & 1]) + operate(0x2e, 0, 1) + raw(4, bytes(8)) + raw(7, map_call(0, 0, 2))
            for act in acts:
                data += waits + meanwhile(step, what, vm=step * what & 3, third=step & 7, fourth=what & 1) + act
            out[f"meanwhile-{step}-{what}"] = data
    return out


def not_enabled():
    """VMs that have not enabled the interface, with and without a default map, and that do."""
    enable = raw(3) + raw(3)
    tries = raw(7, map_call(0, 0)) + raw(4, bytes(8)) + raw(8, map_call(0, 0, perm=0)) + raw(12, foreign([1, 2]))
    out = {}
    for how in range(4):
        out[f"enable-{how}"] = bytes([0x04 + how]) + tries + enable + tries
        out[f"enable-default-{how}"] = bytes([0x44 + how]) + tries + enable + tries
        out[f"enable-kept-{how}"] = bytes([0x44 + how]) + raw(3, vm=KEPT) + tries + enable + go_on(0) * 5 + tries
        for step in range(1, 8):
            out[f"enable-step-{how}-{step}"] = bytes([0x44 + how]) + raw(3, step=step) + raw(3) + tries
            out[f"enable-flush-{how}-{step}"] = bytes([0x44 + how]) + \
                meanwhile(step, 7) + raw(3, step=240 if step > 4 else 0) + raw(3)
    return out


def refused():
    every = b"".join(calls())
    return {f"refused-{one}": bytes([1]) + refuse(one) + every + refuse() + every for one in range(1, 14)}


def fields():
    """Each field of which a part must be zero, or has a largest number."""
    head = raw(3)[5:]
    return {"zero": bytes([0]) + head + b"".join((
        raw(5, struct.pack("<II", 1, 1)), raw(8, map_call(0, 0, perm=1)), raw(9, struct.pack("<IIQQ", 0, 1, 0, 5)),
        raw(10, struct.pack("<IIQ", 0, 1, 2)), raw(11, struct.pack("<IIQ", SELF, 17, 1)),
        raw(11, struct.pack("<IIQ", SELF, 0, 1 << 40)), raw(12, struct.pack("<IIQIIII", 0, 1, 9, 3, 0, 17, 0)),
        raw(12, struct.pack("<IIQIIII", 0, 1, 9, 3, 0, 0, 0)), raw(12, struct.pack("<IIQIIII", 0, 1, 1 << 40, 3, 0, 0, 0)),
        raw(13, struct.pack("<IIQ", 0, 1, 1)), raw(13, struct.pack("<IIQ", 0, 0, 1 << 40)), raw(13, struct.pack("<IIQ", 77, 0, 1)),
        raw(2, struct.pack("<II", ALL, 1 << 20)), raw(4, struct.pack("<II", 1, 0)), raw(4, struct.pack("<II", 0, 1))))}


def seeds():
    out = {**kept(), **in_between(), **not_enabled(), **refused(), **fields()}
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
