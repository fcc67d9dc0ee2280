#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""serve_test.py VIOMMU - tests of `viommu serve` as a process: how it starts, serves and ends."""

import os
import signal
import sys
import tempfile

from server_process import Server

VIOMMU = sys.argv[1]
failures = []


def expect(what, condition, detail=""):
    if not condition:
        failures.append(what)
        print("not ok %s %s" % (what, detail))


def test_signals(folder):
    """Whatever ends a terminal's program ends it with a summary."""
    for number in signal.SIGHUP, signal.SIGINT, signal.SIGTERM:
        with Server(VIOMMU, folder, ["--device", "edu,at=05.0,socket=edu"]) as server:
            status = server.stop(number)
            expect("%s ends it with a summary" % number.name, status == 0
                   and "summary" in server.output() and "IOTLB hits" in server.output(), server.output())
        expect("%s: no socket stays" % number.name, not os.path.exists(os.path.join(folder, "edu")))


def test_one_file_two_devices(folder):
    mirror = "edu,at=%s,socket=%s,mirror=one"
    with Server(VIOMMU, folder, ["--caching-mode", "--device", mirror % ("05.0", "a"),
                                 "--device", mirror % ("06.0", "b")], ready=False) as server:
        expect("two devices on one file are refused", server.wait() == 1
               and "edu 00:06.0" in server.output() and "another device or server has it"
               in server.output(), server.output())
    with Server(VIOMMU, folder, ["--caching-mode", "--device", mirror % ("05.0", "a")]):
        with open(os.path.join(folder, "one"), "w", encoding="ascii") as f:
            f.write("kept")
        with Server(VIOMMU, folder, ["--caching-mode", "--device", mirror % ("05.0", "b")],
                    vtd="vtd2", ready=False) as second:
            expect("two servers on one file are refused", second.wait() == 1
                   and "another" in second.output(), second.output())
        with open(os.path.join(folder, "one"), encoding="ascii") as f:
            expect("and the file stays as it was", f.read() == "kept")


def test_nothing_to_open(folder):
    for options, wanted in [(["--device", "edu,at=05.0,socket=no/where"], "no/where"),
                            (["--device", "edu,at=05.0,socket=a", "--device", "edu,at=05.0,socket=b"],
                             "two devices"),
                            (["--caching-mode", "--device", "edu,at=05.0,socket=a,mirror=no/file"], "no/file")]:
        with Server(VIOMMU, folder, options, ready=False) as server:
            expect("%s: 1 and a message" % options[-1], server.wait() == 1
                   and wanted in server.output(), server.output())
        expect("%s: no socket stays" % options[-1], not os.path.exists(os.path.join(folder, "vtd")))


for test in [value for name, value in sorted(globals().items()) if name.startswith("test_")]:
    with tempfile.TemporaryDirectory(prefix="viommu-serve-") as where:
        test(where)
print("failed" if failures else "ok")
sys.exit(1 if failures else 0)
