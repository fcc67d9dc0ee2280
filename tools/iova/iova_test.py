#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""iova_test.py VIOMMU - `viommu iova` on a sysfs of its own making."""
import json
import os
import struct
import subprocess
import sys
import tempfile

TOOL = sys.argv[1]
RR_UF = 0x14


def port(prefetch, acs=0, kind=4):
    """Configuration space of a port with a 64-bit window; kind: 4 root, 5 upstream, 6 downstream."""
    first, last = prefetch
    space = bytearray(4096)
    space[4:8] = struct.pack("<HH", 7, 0x10)
    space[0x0e] = 1
    space[0x34] = 0x40
    space[0x20:0x30] = struct.pack("<HHHHII", 0xfff0, 0, (first >> 16 & 0xfff0) | 1,
                                   (last >> 16 & 0xfff0) | 1, first >> 32, last >> 32)
    space[0x40:0x44] = struct.pack("<HH", 0x10, 2 | kind << 4)
    space[0x100:0x108] = struct.pack("<IHH", 0x0001000d, 0x1f, acs)
    return bytes(space)


class Sysfs:
    def __init__(self, root):
        self.root = root
        self.groups = root + "/kernel/iommu_groups"
        os.makedirs(root + "/bus/pci/devices")
        os.makedirs(self.groups)

    def add(self, path, config, regions=None):
        folder = "%s/devices/pci0000:00/%s" % (self.root, path)
        name = path.split("/")[-1]
        os.makedirs(folder, exist_ok=True)
        with open(folder + "/config", "wb") as file:
            file.write(config)
        if regions is not None:
            if not os.path.islink(folder + "/iommu_group"):
                group = "%s/%d" % (self.groups, len(os.listdir(self.groups)))
                os.makedirs(group)
                os.symlink(group, folder + "/iommu_group")
            with open(folder + "/iommu_group/reserved_regions", "w") as file:
                file.write(regions)
        link = "%s/bus/pci/devices/%s" % (self.root, name)
        if not os.path.islink(link):
            os.symlink(folder, link)

    def run(self, *arguments, status=0):
        result = subprocess.run([TOOL, "iova", "--sysfs", self.root, *arguments],
                                capture_output=True, text=True)
        assert result.returncode == status, (arguments, result)
        return result.stdout, result.stderr

    def json(self, *arguments, status=0):
        return json.loads(self.run("--json", *arguments, status=status)[0])


ENDPOINT = bytes(4096)
MSI = "0x00000000fee00000 0x00000000feefffff msi\n"
WINDOW = (0x800000000, 0x9ffffffff)
OTHER = (0xa00000000, 0xaffffffff)
DEVICE = "0000:01:00.0"


def windows(said):
    return sorted((e["first"], e["owner"]) for e in said["reserved"] if e["type"] == "p2p")


def test_root_port(sysfs):
    """A window at the guest's memory is in its way, unless the port redirects."""
    sysfs.add("0000:00:01.0", port(WINDOW))
    sysfs.add("0000:00:02.0", port(OTHER))
    sysfs.add("0000:00:1f.0", ENDPOINT)
    sysfs.add("0000:00:01.0/" + DEVICE, ENDPOINT, MSI)
    said = sysfs.json("-d", DEVICE, "-m", "64g")
    assert windows(said) == [("0x800000000", "0000:00:01.0"), ("0xa00000000", "0000:00:02.0")]
    assert [e["type"] for e in said["reserved"]] == ["msi", "p2p", "p2p"], said
    assert {"first": "0xb00000000", "last": "0xffffffffffffffff"} in said["usable"]
    pc, high, virt = said["layouts"]
    assert (pc["fits"], high["fits"], virt["fits"]) == (False, True, False)
    assert pc["memory"] == {"first": "0x100000000", "last": "0x107fffffff"}
    assert pc["meets"]["type"] == "p2p" and pc["meets"]["owner"] in ("0000:00:01.0", "0000:00:02.0")
    assert virt["meets"]["first"] in ("0xfee00000", "0x800000000", "0xa00000000")
    text, _ = sysfs.run("-d", DEVICE, "-l", "0x0-0x7fffffff,0x800000000-0x8ffffffff", status=1)
    assert "does not fit: memory 0x800000000-0x8ffffffff meets p2p 0x800000000-0x9ffffffff of " \
           "0000:00:01.0" in text, text
    # Both bits of ACS.
    for acs, count in ((RR_UF, 0), (0x04, 2), (0x10, 2)):
        sysfs.add("0000:00:01.0", port(WINDOW, acs))
        assert len(windows(sysfs.json("-d", DEVICE))) == count
    # Without root 64 bytes can be read: ACS is not seen.
    sysfs.add("0000:00:01.0", port(WINDOW, RR_UF)[:64])
    assert len(windows(sysfs.json("-d", DEVICE))) == 2


def test_switch(sysfs):
    """Each port of a switch is asked for itself; what is sent upwards passes the upstream port."""
    up = "0000:00:01.0/0000:02:00.0"
    device = "0000:04:00.0"
    sysfs.add("0000:00:01.0", port(WINDOW, RR_UF))
    sysfs.add(up, port(WINDOW, 0, 5))
    sysfs.add(up + "/0000:03:00.0", port((0x800000000, 0x8000fffff), RR_UF, 6))
    sysfs.add(up + "/0000:03:01.0", port((0x900000000, 0x9000fffff), RR_UF, 6))
    sysfs.add(up + "/0000:03:00.0/" + device, ENDPOINT, MSI)
    assert windows(sysfs.json("-d", device)) == []
    sysfs.add(up + "/0000:03:00.0", port((0x800000000, 0x8000fffff), 0, 6))
    assert windows(sysfs.json("-d", device)) == [("0x800000000", "0000:03:00.0"),
                                                 ("0x900000000", "0000:03:01.0")]


def test_several_and_manual(sysfs):
    """Devices below one port name its windows once; what is given by hand counts, too."""
    sysfs.add("0000:00:01.0", port(WINDOW))
    for name in (DEVICE, "0000:01:00.1"):
        sysfs.add("0000:00:01.0/" + name, ENDPOINT, MSI)
    said = sysfs.json("-d", DEVICE, "-d", "0000:01:00.1", "--limit", "0x0-0x7fffffffff",
                      "--reserve", "direct:0x1000-0x1fff")
    assert len(windows(said)) == 1
    assert sorted(e["owner"] for e in said["reserved"]) == [
        "0000:00:01.0", DEVICE, "0000:01:00.1", "manual"], said
    assert said["usable"][0] == {"first": "0x0", "last": "0xfff"}
    assert said["usable"][-1]["last"] == "0x7fffffffff"
    assert said["can_be_mapped"] == [
        {"owner": "manual", "ranges": [{"first": "0x0", "last": "0x7fffffffff"}]}], said
    text, _ = sysfs.run("--limit", "0x0-0x7fffffffff", "-l", "0x0-0xffffffffff", status=1)
    assert "meets limit 0x8000000000-0xffffffffffffffff of manual" in text, text
    assert "can be mapped\n  0x0000000000000000  0x0000007fffffffff  manual\n" in text, text


def test_host_bridges(sysfs):
    path = sysfs.root + "/iomem"
    with open(path, "w") as file:
        file.write("00001000-0009fbff : System RAM\n000a0000-000bffff : PCI Bus 0000:00\n"
                   "80000000-febfffff : PCI Bus 0000:00\n"
                   "  fe000000-fe1fffff : PCI Bus 0000:01\n")
    said = sysfs.json("--host-bridges", path, "-m", "3g")
    assert windows(said) == [("0x80000000", "host bridges"), ("0xa0000", "host bridges")]
    assert [layout["fits"] for layout in said["layouts"]] == [True, True, False]
    with open(path, "a") as file:
        file.write("".join(f"  {n:08x}-{n:08x} : Local APIC\n" for n in range(10000)))
    assert windows(sysfs.json("--host-bridges", path)) == windows(said)
    with open(path, "w") as file:
        file.write("00000000-00000000 : PCI Bus 0000:00\n")
    assert "Permission denied" in sysfs.run("--host-bridges", path, status=1)[1]
    sysfs.run("--host-bridges", path + "x", status=1)


def test_without_a_kernel(sysfs):
    """What VFIO and iommufd say, where there are none (kernel_test.c has the rest)."""
    sysfs.add("0000:00:03.0", ENDPOINT, MSI)
    dev = ["--dev", sysfs.root + "/dev"]
    text = sysfs.run("-d", "0000:00:03.0", "--vfio", *dev, status=1)[1]
    assert "/dev/vfio/vfio: No such file" in text and "vfio loaded" in text, text
    text = sysfs.run("-d", "0000:00:03.0", "--iommufd", *dev, status=1)[1]
    assert "vfio-dev: No such file" in text, text
    text = sysfs.run("--reserve", "p2p:1-2", "--vfio", status=2)[1]
    assert "give --device" in text, text
    assert sysfs.json("-d", "0000:00:03.0")["can_be_mapped"] == []


def test_failures(sysfs):
    sysfs.add("0000:00:03.0", ENDPOINT)
    assert "no IOMMU group" in sysfs.run("-d", "0000:00:03.0")[1]
    assert "No such file" in sysfs.run("-d", "0000:0f:00.0", status=1)[1]
    sysfs.run("-d", "../../etc", status=1)
    sysfs.add("0000:00:04.0", ENDPOINT, "nonsense\n")
    sysfs.run("-d", "0000:00:04.0", status=1)
    for bad in ([], ["--limit", "5-4"], ["--limit", "x"], ["--reserve", "p2p"],
                ["--reserve", "p3p:1-2"], ["--limit", "0-9", "-m", "0"], ["--limit", "0-9", "-l", "1"]):
        sysfs.run(*bad, status=2)


for test in (test_root_port, test_switch, test_several_and_manual,
             test_host_bridges, test_without_a_kernel, test_failures):
    with tempfile.TemporaryDirectory() as folder:
        test(Sysfs(os.path.realpath(folder) + "/sys"))
    print("ok", test.__name__)
