# SPDX-License-Identifier: BSD-2-Clause
"""server_process.py - a `viommu serve` that a test started, in a folder of its own."""

import ctypes
import os
import signal
import subprocess
import time

START_SECONDS = 20
END_SECONDS = 20


def die_with_parent():
    """In the child, before exec."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Server:
    """Use it in a `with`: at its end the process is gone."""

    numbers = 0

    def __init__(self, viommu, folder, options, vtd="vtd", ready=True):
        Server.numbers += 1
        self.path = os.path.join(folder, "server-%d.log" % Server.numbers)
        command = [os.path.abspath(viommu), "serve"] + (["--vtd", vtd] if vtd else []) + options
        with open(self.path, "wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, preexec_fn=die_with_parent)
        if ready:
            self.wait_for("Ctrl-C ends")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def output(self):
        with open(self.path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def wait_for(self, text, times=1):
        """Until it has said this."""
        end = time.monotonic() + START_SECONDS
        while self.output().count(text) < times:
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError("no '%s': %s" % (text, self.output()))
            time.sleep(0.01)

    def wait(self):
        """Its exit status."""
        return self.process.wait(END_SECONDS)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.wait()
