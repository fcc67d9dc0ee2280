#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""disk_file_test.py - do disk_file.py and figures.py find what is wrong, and count right?"""

import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import disk_file  # noqa: E402
import figures  # noqa: E402
from child import Failed  # noqa: E402

SECTORS = 2048
CONSOLE = """\
ok 1 something else
# disk: 0 99 7
# disk: 100 199 0
# disk: 200 299 65535
# disk: 300 2047 8
"""


def mark_of(sector):
    return 7 if sector < 100 else 0 if sector < 200 else 5 if sector < 300 else 8


class DiskFile(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.disk = disk_file.Disk(self.directory.name, 1)
        self.disk.create()
        self.sectors = [disk_file.sector_bytes(s, mark_of(s)) for s in range(SECTORS)]

    def judge(self, console=CONSOLE):
        with open(self.disk.path, "wb") as f:
            f.write(b"".join(self.sectors))
        return self.disk.judge(console)

    def refused(self, text, console=CONSOLE):
        with self.assertRaisesRegex(Failed, text):
            self.judge(console)

    def test_all_sectors_differ(self):
        other = {disk_file.sector_bytes(s, g) for s in range(SECTORS) for g in (1, 2)}
        self.assertEqual(len(other), 2 * SECTORS)

    def test_a_good_file(self):
        self.assertIn("1948 of 2048 sectors compared", self.judge())

    def test_a_wrong_bit(self):
        for s in (0, 99, 100, 300, SECTORS - 1):
            good, wrong = self.sectors[s], bytearray(self.sectors[s])
            wrong[511] ^= 1
            self.sectors[s] = bytes(wrong)
            self.refused("sector %d does not hold" % s)
            self.sectors[s] = good

    def test_sectors_in_each_others_place(self):
        self.sectors[1], self.sectors[2] = self.sectors[2], self.sectors[1]
        self.refused("sector 1 ")

    def test_what_was_there_before(self):
        self.sectors[400] = disk_file.sector_bytes(400, 7)
        self.refused("sector 400 does not hold generation 8")

    def test_half_a_sector(self):
        s = self.sectors[3]
        self.sectors[3] = s[256:] + s[:256]
        self.refused("sector 3 ")

    def test_another_size(self):
        self.sectors.append(bytes(512))
        self.refused("another size")

    def test_marks_are_missing(self):
        lines = CONSOLE.splitlines(True)
        for i in range(1, len(lines)):
            self.refused("missing|told of", "".join(lines[:i] + lines[i + 1:]))

    def test_nothing_is_known(self):
        self.refused("knows of no sector", "# disk: 0 2047 65535\n")

    def test_what_the_guest_asks_for(self):
        for begin, end, path in (("hold", "release", self.disk.hold),
                                 ("fail", "work", self.disk.fail)):
            self.assertTrue(self.disk.ask(begin))
            self.assertTrue(os.path.exists(path))
            self.assertTrue(self.disk.ask(end))
            self.assertFalse(os.path.exists(path))
        self.disk.ask("truncate")
        self.assertEqual(os.path.getsize(self.disk.path), SECTORS * 256)
        self.disk.ask("restore")
        self.assertEqual(os.path.getsize(self.disk.path), SECTORS * 512)
        self.assertFalse(self.disk.ask("something else"))


class Figures(unittest.TestCase):
    def test_ratios_are_of_one_round(self):
        rounds = [[{"reads-one": 100.0}, {"reads-one": 50.0, "map-unmap": 1234.0}],
                  [{"reads-one": 10.0}, {"reads-one": 5.0, "map-unmap": 1234.0}]]
        lines = figures.table(["off", "on"], rounds)
        self.assertIn("| random reads of 4 KiB, one at a time | 55 | 28 (0.50) |", lines)
        self.assertIn("| VFIO: a page mapped and unmapped | - | 1,234 |", lines)


if __name__ == "__main__":
    unittest.main()
