# SPDX-License-Identifier: BSD-2-Clause
"""qmp.py - tell a running QEMU to stop and to go on, through its machine protocol (QMP).

One JSON object a line, both ways: a greeting, then an answer to each command; events may come
between.
"""

import json
import socket
import time

from child import Failed

SECONDS = 20


class Qmp:
    """A connection to the QEMU that listens on this path."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        end = time.monotonic() + SECONDS
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError as e:
                if time.monotonic() > end:
                    raise Failed("QMP: %s" % e) from e
                time.sleep(0.05)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.lines.readline()
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        """Do it; returns what QEMU answers."""
        try:
            self.socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
            for line in self.lines:
                answer = json.loads(line)
                if "error" in answer:
                    raise Failed("QMP: %s: %s" % (name, answer["error"].get("desc")))
                if "return" in answer:
                    return answer["return"]
        except OSError as e:
            raise Failed("QMP: %s: %s" % (name, e)) from e
        raise Failed("QMP: QEMU ended")

    def close(self):
        self.lines.close()
        self.socket.close()
