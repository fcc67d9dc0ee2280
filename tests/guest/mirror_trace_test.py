#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""mirror_trace_test.py - does mirror_trace.py find what is wrong with a trace?"""

import json
import sys
import unittest

sys.dont_write_bytecode = True
import mirror_trace  # noqa: E402

BDF = "0000:00:05.0"
CONSOLE = """\
ok 1 something else
# vfio: group 3 is 0000:00:05.0
# vfio: open 4 3
# vfio: part 8000000 5000 1000
# vfio: map 4 8000000 1000 3
# vfio: part 8010000 7000 2000
# vfio: part 8012000 3000 1000
# vfio: map 4 8010000 3000 1
# vfio: unmap 4 8010000 3000
# vfio: close 4
"""


def call(name, first, last, gpa, perm="rw", answer=0):
    return {"call": name, "first": hex(first), "last": hex(last), "gpa": hex(gpa), "perm": perm,
            "answer": answer}


# Two pages come as one mapping, and go with a domain: both are in the guest's steps.
GOOD = [
    call("map", 0x0, 0xfffff, 0x0),             # translation off
    call("unmap", 0x0, 0xfffff, 0x0),
    call("map", 0x10000, 0x11fff, 0x9000),      # the kernel tries the domain
    call("unmap", 0x10000, 0x11fff, 0x9000),
    call("map", 0x8000000, 0x8000fff, 0x5000),
    call("map", 0x8010000, 0x8011fff, 0x7000, "r"),
    call("map", 0x8012000, 0x8012fff, 0x3000, "r"),
    call("unmap", 0x8010000, 0x8011fff, 0x7000),
    call("unmap", 0x8012000, 0x8012fff, 0x3000),
    call("unmap", 0x8000000, 0x8000fff, 0x5000),
]


def compare(calls):
    return mirror_trace.compare(CONSOLE, "\n".join(json.dumps(c) for c in calls), BDF)


class MirrorTrace(unittest.TestCase):
    def refused(self, calls):
        with self.assertRaises(mirror_trace.Mismatch):
            compare(calls)

    def test_a_good_trace(self):
        self.assertIn("each of 4 operations, 10 calls, 0 unchanged", compare(GOOD))

    def test_any_call_missing(self):
        for i in range(len(GOOD)):
            self.refused(GOOD[:i] + GOOD[i + 1:])

    def test_any_call_twice(self):
        for i in range(len(GOOD)):
            self.refused(GOOD[:i] + [GOOD[i]] + GOOD[i:])

    def test_another_target(self):
        for i in range(4, len(GOOD)):
            self.refused(GOOD[:i] + [dict(GOOD[i], gpa="0x20000")] + GOOD[i + 1:])

    def test_other_permissions(self):
        self.refused(GOOD[:5] + [dict(GOOD[5], perm="rw")] + GOOD[6:])

    def test_a_failed_call(self):
        self.refused(GOOD[:5] + [dict(GOOD[5], answer=-12)] + GOOD[6:])

    def test_an_unchanged_page_is_away(self):
        away = [GOOD[9], GOOD[4]]
        self.refused(GOOD[:5] + away + GOOD[5:])

    def test_an_unchanged_page_goes_along(self):
        both = call("map", 0x8000000, 0x8001fff, 0x5000)
        console = CONSOLE.replace("part 8000000 5000 1000", "part 8000000 5000 2000") \
            .replace("unmap 4 8010000 3000", "unmap 4 8001000 1000")
        trace = GOOD[:4] + [both] + GOOD[5:7] + [dict(both, call="unmap"), GOOD[4]] + GOOD[7:]
        self.assertIn("1 unchanged pages along", mirror_trace.compare(
            console, "\n".join(json.dumps(c) for c in trace), BDF))

    def test_a_trace_that_ends_early(self):
        self.refused(GOOD[:6])

    def test_a_guest_that_told_nothing(self):
        with self.assertRaises(mirror_trace.Mismatch):
            mirror_trace.compare("", "", BDF)


if __name__ == "__main__":
    unittest.main()
