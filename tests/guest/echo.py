# SPDX-License-Identifier: BSD-2-Clause
"""echo.py - the far process of a guest's network interface: who has its rings, and what is done to it.

Vocabulary.  "Far process": a vhost-user back-end that sends every frame back; ours
(tests/peers/vhost_echo.c), or DPDK's testpmd (tests/peers/testpmd.py).
"""

import os
import re
import signal
import subprocess
import sys
import time

from child import CannotRun, Child, Failed

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers")
ECHO_SOURCES = ["vhost_echo.c", "vhost_echo_frames.c"]
START_SECONDS = 10


class Echo:
    """What both have.  start() returns when it listens."""

    def __init__(self, directory):
        self.directory = directory
        self.socket = os.path.join(directory, "echo.sock")
        self.log = os.path.join(directory, "echo.log")

    def ask(self, what):
        """What the guest asks for; raises Failed when it cannot be done."""
        if what in ("kill", "kill and start"):
            self.kill()
        if what in ("start", "kill and start"):
            self.start()
        elif what == "garbage":
            self.garbage()
        elif what in ("stop", "continue"):
            self.signal(signal.SIGSTOP if what == "stop" else signal.SIGCONT)
        elif what != "kill":
            raise Failed("the guest asks for \"echo: %s\"" % what)

    def files(self):
        """What it said."""
        return [self.log] if os.path.exists(self.log) else []

    def judge(self):
        """After stop(): what is wrong raises Failed; returns more of a sentence."""
        return ""


class OwnEcho(Echo):
    """Ours, built here and now."""

    def __init__(self, directory):
        super().__init__(directory)
        self.program = os.path.join(directory, "vhost-echo")
        self.child = None
        self.violations = []

    def build(self):
        if os.path.exists(self.program):
            return
        command = [os.environ.get("CC", "cc"), "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-o",
                   self.program] + [os.path.join(PEERS, f) for f in ECHO_SOURCES]
        try:
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)
        except OSError as e:
            raise CannotRun("vhost-echo: %s" % e) from e
        if done.returncode:
            raise CannotRun("vhost-echo does not build:\n%s" % done.stdout)

    def start(self):
        self.build()
        if self.child:
            return
        with open(self.log, "wb") as log:
            self.child = Child("vhost-echo", [self.program, self.socket], stdout=log,
                               stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        end = time.monotonic() + START_SECONDS
        while not os.path.exists(self.socket):
            if self.child.process.poll() is not None or time.monotonic() > end:
                raise Failed("vhost-echo does not listen")
            time.sleep(0.01)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def look(self):
        """It tells of what its front-end should not do."""
        self.violations += re.findall("^violation: (.*)$", self.said(), re.M)

    def signal(self, number):
        self.child.process.send_signal(number)

    def garbage(self):
        self.signal(signal.SIGUSR1)

    def kill(self):
        if self.child:
            self.child.stop((signal.SIGKILL,))
            self.look()
        self.child = None
        if os.path.exists(self.socket):
            os.unlink(self.socket)

    def stop(self):
        if not self.child:
            return
        child, self.child = self.child, None
        if child.process.poll() is not None:
            raise Failed("vhost-echo ended early, with status %d" % child.process.returncode)
        status = child.stop((signal.SIGTERM, signal.SIGKILL))
        self.look()
        violations, self.violations = self.violations, []
        if violations:
            raise Failed("vhost-echo: %s" % "; ".join(violations[:3]))
        if status != 0:
            raise Failed("vhost-echo ended with status %d" % status)

    def judge(self):
        frames = re.search(r"frames (\d+), misses (\d+)", self.said())
        return "; %s frames, asked %s times" % frames.groups() if frames else ""


class TestpmdEcho(Echo):
    """DPDK's testpmd."""

    def __init__(self, directory):
        super().__init__(directory)
        sys.path.insert(0, PEERS)
        from testpmd import Testpmd  # pylint: disable=import-outside-toplevel
        self.testpmd = Testpmd(self.socket, log=self.log)
        self.frames = None

    def start(self):
        if not self.testpmd.child:
            self.testpmd.start()

    def signal(self, number):
        self.testpmd.signal(number)

    def garbage(self):
        """It never says what makes no sense: it dies instead."""
        self.kill()
        self.start()

    def kill(self):
        self.testpmd.kill()

    def stop(self):
        if self.testpmd.child:
            self.frames = self.testpmd.statistics().get("rx_packets")
        self.testpmd.stop()

    def judge(self):
        return "; %s frames through testpmd" % self.frames


ECHOES = {"ours": OwnEcho, "testpmd": TestpmdEcho}
