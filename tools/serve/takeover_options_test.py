#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""takeover_options_test.py VIOMMU - the options of a server that is taken over, where they are none for the successor."""

import os
import socket
import struct

from server_process import Server
from takeover_test import DEVICE, VIOMMU, Guest, expect, main, relay, successor


def crc32c(data):
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82f63b78 if value & 1 else 0)
        table.append(value)
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xff]
    return crc ^ 0xffffffff


def with_options(data, options):
    """A saved service, with other options in its first section."""
    size, = struct.unpack_from("<Q", data, 48)
    body = data[56:60] + struct.pack("<I", len(options))
    for option in options:
        body += struct.pack("<Q", len(option) + 1) + option.encode() + b"\0"
    whole = data[:48] + struct.pack("<Q", len(body)) + body + data[56 + size:]
    whole[16:24] = struct.pack("<Q", len(whole))
    whole[28:32] = struct.pack("<I", crc32c(whole[:28] + whole[32:]))
    return whole


def test_options_of_another_world(folder):
    """Options that the successor does not know, or has other ideas of, are said to be the other server's; that one is told."""
    unit, edu = "--vtd=vtd", "--device=edu,at=05.0,socket=edu"
    far = "--device=vfio-user:far,at=05.0,socket=edu"
    unknown = "an option that this one does not know: "
    wrong = "the other server's options are none for this one: "
    with Server(VIOMMU, folder, DEVICE + ["--handover", "over"]) as first:
        guest = Guest(folder)
        for number, (options, wanted) in enumerate([
                ([unit, edu, "--frobnicate=1"], unknown + "--frobnicate=1"),
                ([unit, edu, "--caching"], unknown + "--caching"),
                ([unit, edu, "--caching-mode=1"], unknown),
                ([unit, edu, "--width"], unknown + "--width"),
                (["--help"], unknown + "--help"),
                (["--usage"], unknown + "--usage"),
                (["--HANG=1000"], unknown + "--HANG"),
                (["--takeover=over"], unknown + "--takeover"),
                ([unit, edu, "--handover=over"], unknown + "--handover"),
                ([unit, "--", edu], unknown + "--"),
                ([unit, edu, "-c"], unknown + "-c"),
                ([unit, "edu"], unknown + "edu"),
                ([unit, ""], unknown),
                ([], wrong + "--vtd SOCKET or --virtio SOCKET is needed"),
                ([unit, edu, "--width=47"], wrong + "--width: '47'"),
                ([unit, unit, edu], wrong + "--vtd is given twice"),
                ([unit, "--device=fax,at=05.0,socket=fax"], wrong + "--device: 'fax' is no kind"),
                ([unit, far + ",isolate"], wrong + "--handover: a server with a vfio-user"),
                ([unit] + [edu] * 33, wrong + "--device: more than 32"),
                ([unit, edu] + ["--caching-mode"] * 5000, "it makes no sense"),
                (["--virtio=vtd", edu], "it makes no sense"),
                ([unit], "it makes no sense")], 1):

            def other(peer, head, data, got, options=options):
                data = with_options(data, options)
                peer.sendall(head[:16] + struct.pack("<Q", len(data)) + head[24:] + data)
                socket.send_fds(peer, [b"+"], got)

            thread = relay(folder, other)
            with successor(folder, "relay", ready=False) as second:
                expect("%s: 1, and why" % options[:3], second.wait() == 1
                       and wanted in second.output() and "Try" not in second.output(), second.output())
            thread.join()
            os.unlink(os.path.join(folder, "relay"))
            guest.check(str(options[:3]), b"goes on")
            expect("%s: the first one is told" % options[:3], first.output().count("it could not load the state") == number,
                   first.output())
        guest.close()
        expect("the first one ends by itself only", first.stop() == 0)


if __name__ == "__main__":
    main(globals())
