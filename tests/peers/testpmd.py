#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""testpmd.py - DPDK's testpmd as a vhost-user back-end that sends back what it receives.

    testpmd.py SOCKET                 listens at SOCKET and echoes until its input ends, or SIGTERM;
                                      then prints its statistics
    testpmd.py --find                 fetches it (fetch.sh) if need be, and prints its path

In Python:

    with Testpmd(socket) as testpmd:      # listens now
        ...
        print(testpmd.statistics()["rx_packets"])

Vocabulary.  "Port": what testpmd has of one vhost socket; `queues` pairs of rings each.  "Forward":
what is done with a packet: "io" sends it back as it is, "macswap" with its two addresses exchanged.

Exit status: 0, 1 failed, 2 usage, 77 this machine cannot run it.
"""

import argparse
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True  # leave no __pycache__ beside the sources
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "guest"))
from child import CannotRun, Child, Failed  # noqa: E402

PROMPT = "testpmd> "
MEMORY_MIB = 256
BUFFERS = 2048
START_SECONDS = 60
COMMAND_SECONDS = 30


def cache_directory():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("VIOMMU_CACHE") or os.path.join(base, "viommu")


def path_in_cache():
    return os.path.join(cache_directory(), "dpdk", "dpdk-testpmd")


def find():
    """The path of testpmd; it is fetched first. Raises CannotRun."""
    done = subprocess.run([os.path.join(HERE, "fetch.sh")], check=False, stdin=subprocess.DEVNULL,
                          stdout=sys.stderr)
    if done.returncode:
        raise CannotRun("no DPDK testpmd (see above)")
    return path_in_cache()


def arguments(socket, queues=1, iommu=True):
    """The options with which testpmd serves one socket. It forwards on one thread, and has another
    for its console; they are not bound to CPUs."""
    cpus = ",".join(str(c) for c in sorted(os.sched_getaffinity(0)))
    device = "net_vhost0,iface=%s,queues=%d%s" % (socket, queues,
                                                  ",iommu-support=1" if iommu else "")
    return ["--no-huge", "--no-shconf", "-m", str(MEMORY_MIB), "--no-pci", "--no-telemetry",
            "--lcores", "(0,1)@(%s)" % cpus, "--vdev", device, "--", "-i",
            "--total-num-mbufs=%d" % BUFFERS, "--no-lsc-interrupt", "--disable-link-check",
            "--rxq=%d" % queues, "--txq=%d" % queues]


class Testpmd:
    """One testpmd. What it says goes to `log`, a path, and is kept in `said`."""

    def __init__(self, socket, queues=1, iommu=True, forward="io", log=None, program=None):
        self.socket = socket
        self.queues = queues
        self.iommu = iommu
        self.forward = forward
        self.program = program or find()
        self.log = open(log, "wb") if log else None
        self.said = ""
        self.more = threading.Condition()
        self.child = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Starts it, or starts it again after its end. Returns when it listens and forwards."""
        if os.path.exists(self.socket):
            os.unlink(self.socket)  # what a killed one left: it would refuse to listen there
        # Its console is a terminal's, for else much of what it says would stay in a buffer.
        self.terminal, far = pty.openpty()
        with self.more:
            self.said = ""
        self.child = Child("testpmd", [self.program, *arguments(self.socket, self.queues,
                                                                self.iommu)],
                           stdin=far, stdout=far, stderr=far)
        os.close(far)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            self._wait(PROMPT, 0, START_SECONDS)
            # A packet that finds no room waits for it, 20 s and more, and is not dropped.
            self.command("set fwd %s retry" % self.forward)
            self.command("set burst tx delay 20 retry 1000000")
            self.command("start")
            if not os.path.exists(self.socket):
                raise Failed("testpmd does not listen at %s" % self.socket)
        except BaseException:
            self.kill()
            raise

    def _read(self):
        while True:
            try:
                data = os.read(self.terminal, 65536)
            except OSError:  # EIO: nobody has the far end
                data = b""
            if not data:
                with self.more:
                    self.more.notify_all()
                return
            if self.log:
                self.log.write(data)
                self.log.flush()
            with self.more:
                self.said += data.decode("utf-8", "replace").replace("\r", "")
                self.more.notify_all()

    def _wait(self, text, since, seconds):
        """Waits until `text` was said after `since`; returns what was said before it."""
        end = time.monotonic() + seconds
        with self.more:
            while True:
                at = self.said.find(text, since)
                if at >= 0:
                    return self.said[since:at]
                left = end - time.monotonic()
                if left <= 0 or not self.reader.is_alive():
                    raise Failed("testpmd did not answer; it said: %s" % self.said[-2000:])
                self.more.wait(min(left, 0.5))

    def command(self, text, seconds=COMMAND_SECONDS):
        """Enters a command; returns what it says until it prompts again."""
        with self.more:
            since = len(self.said)
        os.write(self.terminal, text.encode() + b"\n")
        return self._wait(PROMPT, since, seconds)

    def statistics(self, port=0):
        """{"rx_packets": ..., "rx_missed", "rx_bytes", "rx_errors", "rx_nombuf", "tx_..."}"""
        said = self.command("show port stats %d" % port)
        return {name.lower().replace("-", "_"): int(value)
                for name, value in re.findall(r"([RT]X-(?:packets|missed|bytes|errors|nombuf)): +(\d+)",
                                              said)}

    def pid(self):
        return self.child.process.pid

    def signal(self, number):
        """SIGSTOP and SIGCONT: it hangs, and goes on."""
        self.child.process.send_signal(number)

    def kill(self):
        """Ends it at once, as a crash does."""
        self._end((signal.SIGKILL,))

    def stop(self):
        """Ends it in order; returns its exit status."""
        if self.child and self.child.process.poll() is None:
            try:
                os.write(self.terminal, b"quit\n")
                self.child.process.wait(5)
            except (OSError, subprocess.TimeoutExpired):
                pass
        return self._end((signal.SIGTERM, signal.SIGKILL))

    def _end(self, signals):
        if not self.child:
            return None
        status = self.child.stop(signals)
        self.child = None
        self.reader.join(5)
        os.close(self.terminal)
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        return status


def serve(args):
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with Testpmd(args.socket, args.queues, forward=args.forward, log=args.log) as testpmd:
        print("listening", flush=True)
        while not ended.is_set() and testpmd.child.process.poll() is None:
            ready, _, _ = select.select([sys.stdin], [], [], 0.2)
            if ready and not sys.stdin.readline():
                break
        if testpmd.child.process.poll() is not None:
            raise Failed("testpmd ended by itself")
        for name, value in testpmd.statistics().items():
            print("%s %d" % (name, value))
    return 0


def main():
    parser = argparse.ArgumentParser(description="DPDK's testpmd as a vhost-user back-end")
    parser.add_argument("socket", nargs="?", metavar="SOCKET", help="where it listens")
    parser.add_argument("--find", action="store_true", help="fetch it, print its path")
    parser.add_argument("--queues", type=int, default=1, metavar="N", help="pairs of rings (1)")
    parser.add_argument("--forward", default="io", metavar="HOW", help="io (the default), macswap")
    parser.add_argument("--log", metavar="FILE", help="what testpmd says")
    args = parser.parse_args()
    if args.find == bool(args.socket):
        parser.error("a socket, or --find")
    try:
        if args.find:
            print(find())
            return 0
        return serve(args)
    except CannotRun as e:
        print("testpmd.py: error: %s" % e, file=sys.stderr)
        return 77
    except Failed as e:
        print("testpmd.py: error: %s" % e, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
