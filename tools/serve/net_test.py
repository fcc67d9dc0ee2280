#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""net_test.py VIOMMU - tests of `viommu serve --device vhost-user-net:SOCKET` by its command line: what is refused,
back-ends that are not there, say nothing, leave, or talk nonsense, and what people are told."""

import os
import select
import signal
import socket
import struct
import sys
import tempfile
import time

from server_process import Server
from vfio_user_client import CONFIG, SECONDS, Client

VIOMMU = sys.argv[1]
NET_ID = 0x10411af4
KEYS = ",at=07.0,socket=near"
HEADER = struct.Struct("<III")  # request, flags, size
failures = []


def expect(what, condition, detail=""):
    if not condition:
        failures.append(what)
        print("not ok %s %s" % (what, detail))


def serve(folder, keys="", more=(), ready=True):
    return Server(VIOMMU, folder, list(more) + ["--device", "vhost-user-net:far" + KEYS + keys], ready=ready)


def check_end(server):
    expect("Ctrl-C: 0 and a summary", server.stop(signal.SIGINT) == 0 and
           "far process left" in server.output(), server.output())


def test_usage(folder):
    device = "vhost-user-net:far" + KEYS
    for options, vtd, wanted in [
            (["--device", "vhost-user-net" + KEYS], "vtd", "vhost-user-net:SOCKET is needed"),
            (["--device", "vhost-user-net:" + KEYS], "vtd", "vhost-user-net:SOCKET is needed"),
            (["--device", "vhost-user-net:near" + KEYS], "vtd", "vhost-user-net:near: that is served here"),
            (["--device", "vhost-user-net:vtd" + KEYS], "vtd", "vhost-user-net:vtd: that is served here"),
            (["--device", device, "--device", "edu,at=05.0,socket=far"], "vtd", "that is served here"),
            (["--device", device + ",mac=01:00:00:00:00:00"], "vtd", "mac: '01:00:00:00:00:00' is not"),
            (["--device", device + ",mac=00:00:00:00:00:00"], "vtd", "mac: '00:00:00:00:00:00' is not"),
            (["--device", device + ",mac=02:00:00:00:00"], "vtd", "mac: '02:00:00:00:00' is not"),
            (["--device", device + ",timeout=0"], "vtd", "timeout: '0' is not"),
            (["--device", device + ",isolate"], "vtd", "has no key 'isolate'"),
            (["--isolate", "--device", device], "vtd", "vhost-user-net works in the guest's memory"),
            (["--device", device, "--isolate"], "vtd", "vhost-user-net works in the guest's memory"),
            (["--iommu", "none", "--device", device], None, "--iommu none has none"),
            (["--handover", "h", "--device", device], "vtd", "cannot be handed over")]:
        with Server(VIOMMU, folder, options, vtd=vtd, ready=False) as server:
            expect("%s: 2 and a message" % options, server.wait() == 2 and wanted in server.output(),
                   server.output())
    long = "n" * 200
    with Server(VIOMMU, folder, ["--device", "vhost-user-net:" + long + KEYS], ready=False) as server:
        expect("a name that is too long: 1 and a message", server.wait() == 1 and long in server.output() and
               "107 bytes at most" in server.output(), server.output())


def test_nobody_there(folder):
    with serve(folder) as server:
        server.wait_for("waiting for far: ")
        device = Client(os.path.join(folder, "near"))
        expect("the function is there", device.read32(CONFIG, 0) == NET_ID)
        device.close()
        check_end(server)


def test_no_socket(folder):
    with open(os.path.join(folder, "far"), "w", encoding="ascii"):
        pass
    with serve(folder) as server:
        server.wait_for("waiting for far: ")
        check_end(server)


def be_bad(listener, server, answer, wanted):
    """Answers like this, and leaves when it is said what came of it. Where the machine is slow that may be that nothing
    was answered: then again."""
    end = time.monotonic() + SECONDS
    while wanted not in server.output() and time.monotonic() < end:
        far = listener.accept()[0]
        far.recv(HEADER.size)
        if answer:
            far.sendall(answer)
        while answer is not None and wanted not in server.output() and time.monotonic() < end:
            if select.select([listener], [], [], 0.02)[0]:
                break
        far.close()
    server.wait_for(wanted)


def test_bad(folder):
    """One back-end after the other, and the function stays."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(folder, "far"))
    listener.listen()
    listener.settimeout(SECONDS)
    with serve(folder, ",timeout=300") as server:
        device = Client(os.path.join(folder, "near"))
        for answer, wanted in [(None, "far is gone: it left"),
                               (HEADER.pack(99, 5, 0), "far is gone: what it says makes no sense"),
                               (b"", "far is gone: it does not answer")]:
            be_bad(listener, server, answer, wanted)
            expect("the function is there", device.read32(CONFIG, 0) == NET_ID)
        device.close()
        check_end(server)
    listener.close()


def main():
    for test in test_usage, test_nobody_there, test_no_socket, test_bad:
        with tempfile.TemporaryDirectory(prefix="viommu-net-") as folder:
            test(folder)
    return 1 if failures else 0


sys.exit(main())
