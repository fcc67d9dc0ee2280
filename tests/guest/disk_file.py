# SPDX-License-Identifier: BSD-2-Clause
"""disk_file.py - the host's side of the guest's disk: its file, what is done to it, what is in it.

Vocabulary.  "Sector", "generation", "mark": see disk.h.  The guest prints the marks of all sectors
when it has done; the file must hold just that.
"""

import os
import re
import struct

from child import Failed

SECTOR = 512
WORDS = SECTOR // 8
MARK_ZEROS = 0
MARK_UNKNOWN = 0xffff
MARK_LINE = re.compile(r"^# disk: (\d+) (\d+) (\d+)$", re.M)
READ_SECTORS = 2048


def mask():
    """What is mixed into each sector, a word after the other (disk.c has the rule)."""
    x, words = 0x9e3779b97f4a7c15, []
    for _ in range(WORDS):
        x ^= x << 13 & 0xffffffffffffffff
        x ^= x >> 7
        x ^= x << 17 & 0xffffffffffffffff
        words.append(x)
    return int.from_bytes(struct.pack("<%dQ" % WORDS, *words), "little")


# A sector is one number of 4096 bits: every word is i << 56 | generation << 32 | sector.
EACH_WORD = sum(1 << 64 * i for i in range(WORDS))
NUMBERED = sum(i << 64 * i + 56 for i in range(WORDS))
MASK = mask()


def sector_bytes(sector, generation):
    """What a sector of this generation holds."""
    if generation == MARK_ZEROS:
        return bytes(SECTOR)
    word = generation << 32 | sector
    return ((NUMBERED + word * EACH_WORD) ^ MASK).to_bytes(SECTOR, "little")


class Disk:
    """A file that a device serves as a disk."""

    def __init__(self, directory, mib):
        self.path = os.path.join(directory, "disk.img")
        self.hold = os.path.join(directory, "disk.hold")
        self.fail = os.path.join(directory, "disk.fail")
        self.size = mib << 20

    def create(self):
        """Anew, and nothing is done to it."""
        for path in (self.path, self.hold, self.fail):
            if os.path.exists(path):
                os.unlink(path)
        with open(self.path, "wb") as f:
            f.truncate(self.size)

    def ask(self, what):
        """What the guest asks for; returns whether it was about the disk."""
        if what in ("fail", "hold"):
            with open(getattr(self, what), "wb"):
                pass
        elif what in ("work", "release"):
            os.unlink(self.fail if what == "work" else self.hold)
        elif what in ("truncate", "restore"):
            os.truncate(self.path, self.size // 2 if what == "truncate" else self.size)
        else:
            return False
        return True

    def judge(self, console):
        """Compare the file with the marks on the console; returns a sentence."""
        marks = [tuple(int(n) for n in m) for m in MARK_LINE.findall(console)]
        at = compared = 0
        if os.path.getsize(self.path) != self.size:
            raise Failed("the disk's file has another size than before")
        with open(self.path, "rb") as f:
            for first, last, mark in marks:
                if first != at:
                    raise Failed("the marks of sectors from %d on are missing" % at)
                at = last + 1
                if mark != MARK_UNKNOWN:
                    compare(f, first, last, mark)
                    compared += last + 1 - first
        if at * SECTOR != self.size:
            raise Failed("the guest told of %d sectors, %d wanted" % (at, self.size // SECTOR))
        if not compared:
            raise Failed("the guest knows of no sector what is in it")
        return "the file on the host holds what the guest wrote: %d of %d sectors compared" \
            % (compared, at)


def compare(f, first, last, mark):
    f.seek(first * SECTOR)
    for start in range(first, last + 1, READ_SECTORS):
        count = min(READ_SECTORS, last + 1 - start)
        found = f.read(count * SECTOR)
        wanted = b"".join(sector_bytes(s, mark) for s in range(start, start + count))
        if found != wanted:
            wrong = next(i for i in range(count) if found[i * SECTOR:(i + 1) * SECTOR] !=
                         wanted[i * SECTOR:(i + 1) * SECTOR])
            raise Failed("the disk's file: sector %d does not hold generation %d"
                         % (start + wrong, mark))
