# SPDX-License-Identifier: BSD-2-Clause
"""far.py - the process that has the guest's disk, where that is not the one with the unit; and what it
has mapped of the guest's memory.

The guest's own tables say what the disk may reach: with the guest stopped they are read from its
memory, as VT-d reads them, and compared with /proc/PID/maps of the disk's process.

Vocabulary.  "Page": 4 KiB of the guest's memory by its number; all RAM is below 2 GiB here, where
guest-physical addresses are places in QEMU's memory file.
"""

import glob
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time

from child import Child, Failed

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))
from hostile_far import HostileFar  # noqa: E402

START_SECONDS = 10
SETTLE_SECONDS = 5
PAGE = 4096
MEMORY_FILE = "memfd:memory-backend-memfd"
RTADDR = 0x20
MAPS_LINE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+ +(.*)$")
ADDRESS = 0x000ffffffffff000
LARGE = 1 << 7
# Of the guest of a hostile device: its memory, and what it lets the device reach (iova.h).
HOSTILE_RAM = 512 << 20
HOSTILE_WINDOW = (0x08000000, 0x08000fff)
ATTACK_SECONDS = 5


class GuestMemory:
    """The memory of the QEMU at the other end of this QMP connection."""

    def __init__(self, qmp):
        self.qmp = qmp
        pid = struct.unpack("iII", qmp.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        files = [path for path in glob.glob("/proc/%d/fd/*" % pid) if MEMORY_FILE in os.readlink(path)]
        if not files:
            raise Failed("QEMU's memory file is not found")
        self.fd = os.open(files[0], os.O_RDONLY)

    def close(self):
        os.close(self.fd)

    def register(self, address):
        """8 bytes of a register, as the guest would read them."""
        text = self.qmp.command("human-monitor-command", **{"command-line": "xp /1gx 0x%x" % address})
        return int(text.split(":")[1].split()[0], 16)

    def entries(self, table):
        """Of a page of a table: its 64-bit words."""
        return struct.unpack("<512Q", os.pread(self.fd, PAGE, table & ADDRESS))

    def leaves(self, table, level):
        """Pages that a table maps."""
        for entry in self.entries(table):
            if entry & 3 == 0:
                continue
            if level == 1 or entry & LARGE:
                first = (entry & ADDRESS) // PAGE
                yield from range(first, first + (1 << 9 * (level - 1)))
            else:
                yield from self.leaves(entry, level - 1)

    def reachable(self, base, devfn):
        """The pages that a function of bus 0 reaches by the tables of the unit whose registers are
        there."""
        root = self.entries(self.register(base + RTADDR))
        low, high = self.entries(root[0])[2 * devfn:2 * devfn + 2] if root[0] & 1 else (0, 0)
        if not low & 1:
            return set()
        return set(self.leaves(low, (high & 7) + 2))


def mapped_pages(pid):
    """Pages of the guest's memory that a process has mapped."""
    pages = set()
    with open("/proc/%d/maps" % pid, encoding="utf-8", errors="replace") as f:
        for line in f:
            found = MAPS_LINE.match(line)
            if found and MEMORY_FILE in found.group(4):
                first, end, offset = (int(found.group(i), 16) for i in (1, 2, 3))
                pages.update(range(offset // PAGE, (offset + end - first) // PAGE))
    return pages


class FarProcess:
    """`viommu serve --iommu none` with the disk. isolated: it may have no memory of the guest's."""

    def __init__(self, args, directory, device, isolated):
        self.args, self.device, self.isolated = args, device, isolated
        self.path = os.path.join(directory, "far.sock")
        self.log_path = os.path.join(directory, "far.log")
        self.child = None
        self.largest = self.compared = 0
        self.killed_at = self.next_at = None  # ns of the monotonic clock

    def start(self, log, mode="wb"):
        if self.child:
            return
        if self.killed_at:
            self.next_at = time.monotonic_ns()
        if os.path.exists(self.path):
            os.unlink(self.path)
        command = [self.args.viommu, "serve", "--iommu", "none", "--device",
                   self.device.replace("SOCKET", self.path)]
        with open(self.log_path, mode) as out:
            self.child = Child("the far viommu serve", command, stdout=out, stderr=subprocess.STDOUT,
                               stdin=subprocess.DEVNULL)
        log.write("# %s\n" % " ".join(command))
        end = time.monotonic() + START_SECONDS
        while not os.path.exists(self.path):
            if self.child.process.poll() is not None or time.monotonic() > end:
                raise Failed("the far viommu serve does not listen: %s" % self.output().strip())
            time.sleep(0.01)

    def output(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def stop(self):
        """As Ctrl-C does; it must have lived until then."""
        if not self.child:
            return
        child, self.child = self.child, None
        early = child.process.poll()
        status = child.stop((signal.SIGINT, signal.SIGKILL))
        if early is not None or status != 0:
            raise Failed("the far viommu serve ended with status %d%s"
                         % (status, "" if early is None else ", early"))

    def end(self):
        if self.child:
            self.child.stop()
            self.child = None

    def kill(self):
        """Without warning."""
        self.killed_at = time.monotonic_ns()
        self.child.stop((signal.SIGKILL,))
        self.child = None

    def compare(self, wanted):
        """wanted: the pages that it should have mapped, or None: only few."""
        pid = self.child.process.pid
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            mapped = mapped_pages(pid)
            if self.isolated and mapped:
                raise Failed("the far process maps %d pages of the guest's memory" % len(mapped))
            if self.isolated or (mapped == wanted if wanted is not None else len(mapped) < 1 << 14):
                break
            if time.monotonic() > end:
                more, less = mapped - (wanted or set()), (wanted or set()) - mapped
                raise Failed("the far process maps %d pages, %d of them wrongly, and %d are missing"
                             % (len(mapped), len(more), len(less)))
            time.sleep(0.05)
        self.largest = max(self.largest, len(mapped))
        self.compared += wanted is not None or self.isolated

    def judge(self):
        """Returns a sentence."""
        if not self.compared and not self.largest:
            return "the disk is in another process"
        if self.isolated:
            return "the disk's process maps nothing of the guest's memory, seen %d times" % self.compared
        return "the disk's process maps what the guest's tables say, compared %d times, and at most " \
            "%d KiB" % (self.compared, self.largest * 4)


class HostileDevice:
    """An edu of a server that is not to be trusted (hostile_far.py), in this process."""

    isolated = True
    said = ""

    def __init__(self, directory):
        self.path = os.path.join(directory, "hostile.sock")
        self.far = None

    def start(self, _log):
        if not self.far:
            self.far = HostileFar(self.path)

    def stop(self):
        if self.far:
            self.far.close()
            self.far = None

    end = stop

    @staticmethod
    def output():
        return ""

    def reach_some(self, seconds, write=None):
        """Pages of the guest, chosen at random: how many were tried. None may be reached."""
        end = time.monotonic() + seconds
        tried = 0
        while time.monotonic() < end:
            page = random.randrange(0, HOSTILE_RAM, PAGE)
            if HOSTILE_WINDOW[0] <= page <= HOSTILE_WINDOW[1]:
                continue
            reached = self.far.reach(page, page, PAGE, write)
            if reached:
                raise Failed("the hostile device %s 0x%x" % ("writes" if write else "reads", page))
            tried += 1
        return tried

    def attack(self):
        """Less than the guest waits for (init.c)."""
        wrong = self.far.catalogue([HOSTILE_WINDOW]) + self.far.strange_commands()
        if wrong:
            raise Failed("the hostile device: %s" % wrong)
        read = self.reach_some(ATTACK_SECONDS)
        written = self.reach_some(ATTACK_SECONDS, b"hostile." * 8)
        if self.far.fds_seen:
            raise Failed("the hostile device was given descriptors")
        self.said = "the hostile device had no file, and reached nothing: %d pages read, %d written " \
            "in vain" % (read, written)

    def judge(self):
        if not self.said:
            raise Failed("there was no attack")
        return self.said
