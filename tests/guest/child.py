# SPDX-License-Identifier: BSD-2-Clause
"""child.py - processes that a test starts, and what may go wrong with it.

Vocabulary.  "Child": a process started here; all end when this one does.
"""

import ctypes
import signal
import subprocess

END_SECONDS = 20  # how long a signal may take, however slow the machine is


class CannotRun(Exception):
    """This machine lacks something."""


class Failed(Exception):
    """A boot did not do what it should."""


def check_memory(needed_mib):
    """Raises CannotRun with less memory than that."""
    try:
        with open("/proc/meminfo", encoding="ascii") as f:
            mib = [int(line.split()[1]) // 1024 for line in f if line.startswith("MemAvailable")]
    except OSError:
        return
    if mib and mib[0] < needed_mib:
        raise CannotRun("%d MiB of memory are free, %d are needed" % (mib[0], needed_mib))


def die_with_parent():
    """In a child, before exec: end when run.py is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Child:
    """A process of ours, in a session of its own so that a Ctrl-C does not reach it."""

    def __init__(self, name, command, **more):
        self.name = name
        try:
            self.process = subprocess.Popen(command, start_new_session=True,
                                            preexec_fn=die_with_parent, **more)
        except OSError as e:
            raise CannotRun("cannot start %s: %s" % (command[0], e)) from e

    def stop(self, signals=(signal.SIGTERM, signal.SIGKILL), seconds=END_SECONDS):
        """End it; returns its exit status."""
        for s in signals:
            if self.process.poll() is not None:
                break
            self.process.send_signal(s)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        return self.process.wait()
