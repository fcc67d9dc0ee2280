#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""mirror_trace.py - does what a mirror was told equal what the guest mapped?

    mirror_trace.py CONSOLE BDF=TRACE [BDF=TRACE ...]

CONSOLE is the guest's console with the lines of vfio.h ("# vfio: map ..."); TRACE is what
`viommu serve --device edu,mirror=FILE` wrote of the device BDF (0000:00:05.0).

The guest's operations give the states that the device's mappings go through, one an operation; the
trace gives the calls.  A call of VFIO ends only after the mirror was told, so the trace has to pass
through exactly these states, in order.  Checked besides: nothing is mapped where something is, only
whole mappings are unmapped, and between two states nothing is touched that is the same in both,
except that an unmap takes unchanged pages along which are one mapping with a changed one.

Vocabulary.  "State": pages that the device reaches, {iova: (gpa, perm)}.  "Step": from one state to
the next.  "Loose" step: the kernel takes the device from one domain to another, and tries things
out in it; then only the state at the end counts.
"""

import json
import re
import sys

PAGE = 4096
PERMS = {1: "r", 2: "w", 3: "rw"}


class Mismatch(Exception):
    """The mirror was told something else than what the guest did."""


class Step:
    """The state after an operation of the guest."""

    def __init__(self, text, state, loose):
        self.text, self.state, self.loose = text, state, loose


class Container:
    """A VFIO container of the guest, and the devices in it."""

    def __init__(self, devices):
        self.devices, self.state, self.used = devices, {}, False


def add_range(state, first, gpa, size, perm):
    for at in range(0, size, PAGE):
        state[first + at] = (gpa + at, perm)


def guest_steps(console):
    """{BDF: [Step]} of what the guest's lines tell."""
    groups, containers, steps, parts = {}, {}, {}, []
    for line in re.findall(r"^# vfio: (.*)$", console, re.M):
        word, *rest = line.split()
        if word == "group":
            groups[rest[0]] = rest[2]
            steps.setdefault(rest[2], [])
            continue
        numbers = [int(n, 16) for n in rest]
        if word == "part":
            parts.append(numbers)
            continue
        if word == "open":
            containers[numbers[0]] = Container([groups[g] for g in rest[1:]])
            continue
        there = containers[numbers[0]]
        loose = word == "close" or not there.used
        state = dict(there.state)
        if word == "map":
            for iova, gpa, size in parts:
                add_range(state, iova, gpa, size, PERMS[numbers[3]])
            parts = []
        elif word == "unmap":
            for iova in range(numbers[1], numbers[1] + numbers[2], PAGE):
                state.pop(iova, None)
        else:
            state = {}
            del containers[numbers[0]]
        for bdf in there.devices:
            steps[bdf].append(Step(line, state, loose))
        there.state, there.used = state, True
    return steps


class Mirror:
    """What the mirror holds, as its trace has it: whole mappings, none over another."""

    def __init__(self):
        self.mappings = {}      # first: (last, gpa, perm)
        self.pages = 0
        self.calls = self.along = 0

    def apply(self, call):
        """Does one call; returns (first, last, gpa, perm) of the mapping."""
        first, last = int(call["first"], 16), int(call["last"], 16)
        self.calls += 1
        if call["answer"] != 0:
            raise Mismatch("an answer that is not 0: %s" % call)
        if call["call"] == "map":
            mapping = (last, int(call["gpa"], 16), call["perm"])
            for other, (end, _, _) in self.mappings.items():
                if first <= end and other <= last:
                    raise Mismatch("mapped over [%#x, %#x]: %s" % (other, end, call))
            self.mappings[first] = mapping
            self.pages += (last + 1 - first) // PAGE
        elif call["call"] == "unmap":
            mapping = self.mappings.pop(first, None)
            if mapping is None or mapping[:2] != (last, int(call["gpa"], 16)):
                raise Mismatch("no such mapping to unmap: %s" % call)
            self.pages -= (last + 1 - first) // PAGE
        else:
            raise Mismatch("no call that was expected: %s" % call)
        return (first,) + mapping

    def state(self):
        state = {}
        for first, (last, gpa, perm) in self.mappings.items():
            add_range(state, first, gpa, last + 1 - first, perm)
        return state

    def is_at(self, state):
        return self.pages == len(state) and self.state() == state


def check_touched(mirror, call, mapping, before, after):
    """A call in the middle of a step that is not loose."""
    first, last, gpa, perm = mapping
    changed = kept = 0
    for iova in range(first, last + 1, PAGE):
        here = (gpa + iova - first, perm)
        if call["call"] == "map":
            if after.get(iova) != here:
                raise Mismatch("mapped what the guest did not map: %s" % call)
        elif before.get(iova) == after.get(iova):
            kept += 1
        else:
            changed += 1
    if kept and not changed:
        raise Mismatch("unmapped, and nothing of it changed: %s" % call)
    mirror.along += kept


def difference(mirror, wanted):
    """In words: how the mirror differs from a state."""
    held = mirror.state() if mirror.pages < 1 << 20 else {}
    missing = sorted(set(wanted) - set(held))
    more = sorted(set(held) - set(wanted))
    other = sorted(i for i in wanted if i in held and held[i] != wanted[i])
    return "; ".join("%d %s, the first %#x" % (len(pages), what, pages[0]) for pages, what in
                     ((missing, "missing"), (more, "too many"), (other, "different")) if pages)


def follow(calls, steps):
    """Goes through the trace and the steps together; returns the Mirror, or raises Mismatch."""
    mirror = Mirror()
    before, at = {}, 0

    def advance():
        nonlocal before, at
        while at < len(steps) and mirror.is_at(steps[at].state):
            before, at = steps[at].state, at + 1

    for call in calls:
        mapping = mirror.apply(call)
        if at < len(steps) and not steps[at].loose:
            check_touched(mirror, call, mapping, before, steps[at].state)
        advance()
    if at < len(steps):
        raise Mismatch("after \"%s\" the mirror never held what the guest had: %s"
                       % (steps[at].text, difference(mirror, steps[at].state) or "order"))
    return mirror


def compare(console, trace, bdf):
    """Returns a sentence; raises Mismatch."""
    steps = guest_steps(console).get(bdf, [])
    if not steps:
        raise Mismatch("the guest did not tell what it mapped for %s" % bdf)
    try:
        calls = [json.loads(line) for line in trace.splitlines()]
    except ValueError as e:
        raise Mismatch("the trace of %s cannot be read: %s" % (bdf, e)) from e
    try:
        mirror = follow(calls, steps)
    except Mismatch as e:
        raise Mismatch("%s: %s" % (bdf, e)) from e
    return "%s: mirrored exactly after each of %d operations, %d calls, %d unchanged pages along" \
        % (bdf, len(steps), mirror.calls, mirror.along)


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: mirror_trace.py CONSOLE BDF=TRACE [BDF=TRACE ...]")
    with open(sys.argv[1], encoding="utf-8", errors="replace") as f:
        console = f.read()
    try:
        for argument in sys.argv[2:]:
            bdf, path = argument.split("=", 1)
            with open(path, encoding="ascii") as f:
                print(compare(console, f.read(), bdf))
    except Mismatch as e:
        sys.exit("mirror_trace.py: %s" % e)


if __name__ == "__main__":
    main()
