# SPDX-License-Identifier: BSD-2-Clause
"""setups.py - the ways to run.

Vocabulary.  "Setup": one way to run: what is tested, kernel, strict or lazy, number of CPUs.
"Kind": what is tested.  "Model": which IOMMU the guest has, VT-d or a virtio-iommu.
"""

from disk_file import Disk
from echo import ECHOES
from units import BackendUnit, QemuUnit, ServedUnit

KERNELS = ["6.1", "6.12", "7.2"]
IOMMUFD_KERNEL = "6.12-iommufd"
# The kernels that have a driver of virtio-iommu.  The newer one is run strictly only: lazily it
# hangs now and then when it shuts down with a disk.
VIRTIO_KERNELS = ["6.12", "7.2"]
DISK_KINDS = {"disk": ", a disk", "failures": ", a disk that fails",
              "killed": ", killed with a disk", "takeover": ", taken over",
              "far": ", a disk's process that dies", "bench": ", figures"}
NET_KINDS = {"net": ", an interface", "crashes": ", an interface whose far process crashes"}
OTHER_KINDS = {"device": "", "mirror": ", mirrored", "hostile": ", a hostile device", "vfio": ", VFIO backend",
               "iommufd": ", iommufd backend"}
# Where the disk is in a process of its own: what that has of the guest's memory.
FARS = {None: "", "mapped": ", in another process", "isolated": ", isolated", "hostile": ""}
IOMMUS = {"on": "", "off": "intel_iommu=off", "none": "no unit"}
FRAMES, FRAMES_FULL = 5000, 100000
# Until a far process counts as one that hangs.  One that polls leaves little of a small machine to
# others; and where hanging is tested only that may be taken for it.
PATIENCE_MS = {"net": 30000, "crashes": 5000}
# The driver of a virtio-iommu is a module. Where this machine is busy it may come so late that the
# kernel would use devices without it.
PATIENT = "deferred_probe_timeout=120"
# Of the kernel's own limits some are too patient for a test.
IMPATIENT = ["nvme_core.io_timeout=4", "nvme_core.admin_timeout=4", "nvme_core.max_retries=1"]


KIND_OPTIONS = {
    "mirror": "compare what a mirror of the devices is told with what the guest maps",
    "disk": "a disk: written whole by many threads, read back, compared with its file",
    "failures": "the disk's file fails, transfers do not end, the controller is reset",
    "killed": "QEMU is killed while it uses the disk, and the next one connects",
    "takeover": "another server takes over while the guest uses disk and edu",
    "net": "an interface whose rings another process has: all frames come back",
    "crashes": "that process dies, hangs, and says what makes no sense",
    "far": "the disk is in another process: what that maps; it is killed, and started again",
    "hostile": "a device in a process that tries to reach everything",
    "bench": "reads a second and mappings a second, with the unit and without",
}


class Setup:
    """One way to run.  kind: "device" (the unit and edu devices), "mirror" (and what a mirror of
    them is told); the backend that is tested, "vfio" or "iommufd"; or what is done with a disk
    (DISK_KINDS) or an interface (NET_KINDS).  iommu: "on"; "off", where the kernel leaves the unit
    alone; or "none".  model: "vtd" or "virtio".  far: of a disk, None, "mapped" or "isolated"; of
    the kind "hostile", that.  echo: of an interface, who has its rings."""

    def __init__(self, kernel, strict=True, smp=1, kind="device", iommu="on", model="vtd", far=None,
                 echo="ours"):
        self.kernel, self.strict, self.smp, self.kind = kernel, strict, smp, kind
        self.iommu, self.model = iommu, model
        self.far = "hostile" if kind == "hostile" else far or ("mapped" if kind == "far" else None)
        self.echo = echo if kind in NET_KINDS else None

    def mode(self):
        if self.iommu != "on":
            return IOMMUS[self.iommu]
        return ("virtio, " if self.model == "virtio" else "") + \
            ("strict" if self.strict else "lazy") + FARS[self.far]

    def __str__(self):
        kinds = dict(OTHER_KINDS, **DISK_KINDS, **NET_KINDS)
        return "kernel %s, %s, %d CPU%s%s%s" % (self.kernel, self.mode(), self.smp,
                                                "s" if self.smp > 1 else "", kinds[self.kind],
                                                " (%s)" % self.echo if self.echo else "")

    def patience(self, args):
        """How many times as long as others it may take: waiting is part of some."""
        if self.kind in NET_KINDS:
            return 3 + args.frames // 10000
        return 3 if self.kind in DISK_KINDS or self.kind in ("hostile", "vfio", "iommufd") else 1

    def unit(self, args, directory):
        disk = Disk(directory, args.disk_mib) if self.kind in DISK_KINDS else None
        if self.kind in ("vfio", "iommufd"):
            return BackendUnit(args, self.kind == "iommufd")
        echo = ECHOES[self.echo](directory) if self.echo else None
        if self.kind != "mirror" and not args.viommu:
            return QemuUnit(args, self.model, disk, self.iommu != "none", echo)
        unit = ServedUnit(args, directory, self.model, self.kind == "mirror", disk,
                          self.iommu != "none", self.far, echo)
        # A process that maps the guest's memory reaches it without a word.
        unit.translates = self.iommu == "on" and self.far != "mapped"
        unit.cuts_off = self.kind == "failures"
        # A device that is cut off, or a machine that is killed.
        unit.refuses = self.kind in ("failures", "killed", "far")
        unit.dies = self.kind == "far" and self.far == "mapped"
        unit.reads_all = self.kind != "bench"
        unit.hands_over = self.kind == "takeover"
        unit.patience_ms = PATIENCE_MS.get(self.kind)
        return unit

    def words(self, args, part):
        """Of the kernel command line."""
        if self.iommu != "on":
            words = ["intel_iommu=off", "viommu.off"]
        else:
            words = ["viommu.virtio", PATIENT] if self.model == "virtio" else ["intel_iommu=on"]
            words += ["iommu.strict=1"] if self.strict else []
        if self.kind in DISK_KINDS:
            words.append("viommu.part=" + part)
        if self.kind in NET_KINDS:
            words += ["viommu.part=" + part, "viommu.frames=%d" % args.frames]
        if self.kind == "bench":
            words.append("viommu.bench-ms=%d" % args.bench_ms)
        if self.kind == "takeover":
            words.append("viommu.takeovers=%d" % args.takeovers)
        return words + (IMPATIENT if self.kind in ("failures", "far") else [])


def modes_of(model):
    """Pairs: a kernel, and whether it invalidates strictly."""
    if model == "virtio":
        return [("6.12", True), ("6.12", False), ("7.2", True)]
    return [(k, strict) for k in ("6.1", "6.12") for strict in (True, False)]


def matrix(kind="device", model="vtd", far=None):
    return [Setup(k, strict, smp, kind, model=model, far=far) for k, strict in modes_of(model)
            for smp in (1, 4)]


def disk_setups():
    """All that is done with a disk, but for figures."""
    out = matrix("disk") + [Setup("6.12", smp=4, kind="disk", iommu=i) for i in ("none", "off")]
    for kind in ("failures", "killed", "takeover"):
        out += [Setup("6.12", True, 4, kind), Setup("6.1", False, 4, kind)]
    return out


def virtio_setups():
    """All that is done behind a virtio-iommu, but for figures."""
    out = matrix("device", "virtio") + matrix("disk", "virtio")
    for kind in ("mirror", "failures", "killed", "takeover"):
        out += [Setup(k, strict, 4, kind, model="virtio") for k, strict in modes_of("virtio")
                if strict or kind != "mirror"]
    return out


def net_setups():
    """All that is done with an interface."""
    modes = [("6.12", True, "vtd"), ("6.1", False, "vtd"), ("6.12", True, "virtio")]
    return [Setup(k, strict, 4, kind, model=model, echo=echo) for k, strict, model in modes
            for kind in NET_KINDS for echo in ECHOES]


def far_setups():
    """Devices in other processes, but for figures."""
    out = [Setup("6.12", smp=4, kind="hostile"), Setup("6.12", smp=4, kind="hostile", model="virtio")]
    for far in ("mapped", "isolated"):
        for smp in (1, 4):
            out += [Setup("6.12", True, smp, "disk", far=far), Setup("6.1", False, smp, "disk", far=far),
                    Setup("6.12", False, smp, "disk", model="virtio", far=far)]
        out += [Setup("6.12", True, 4, "far", far=far), Setup("6.1", False, 1, "far", far=far),
                Setup("6.12", True, 4, "far", model="virtio", far=far)]
    return out


def bench_setups(args):
    """What is compared, in one run."""
    if args.process:
        return far_bench_setups(args)
    modes = [("none", True, "vtd"), ("off", True, "vtd"), ("on", False, "vtd"), ("on", True, "vtd"),
             ("on", False, "virtio"), ("on", True, "virtio")]
    return [Setup(k, strict, args.smp, "bench", iommu, model) for k in args.kernel
            for iommu, strict, model in modes if model == "vtd" or k in VIRTIO_KERNELS]


def far_bench_setups(args):
    """A disk in another process against one in the unit's own.  Where a mirror follows a VT-d unit the
    kernel is strict, whatever it is asked for; behind a virtio-iommu it need not be."""
    modes = [("none", True, "vtd", None)]
    for far in (None, "mapped", "isolated"):
        modes += [("on", strict, "vtd", far) for strict in (False, True) if strict or far != "mapped"]
        modes += [("on", strict, "virtio", far) for strict in (False, True)]
    return [Setup(k, strict, args.smp, "bench", iommu, model, far) for k in args.kernel
            for iommu, strict, model, far in modes if model == "vtd" or k in VIRTIO_KERNELS]


def backend_setups(args):
    if args.backend == "iommufd":
        return [Setup(IOMMUFD_KERNEL, smp=args.smp, kind="iommufd")]
    return [Setup(k, smp=args.smp, kind="vfio") for k in args.kernel]


def setups_of(args):
    if args.full:
        kinds = [(k, kind) for kind in ("mirror", "vfio") for k in ("6.1", "6.12")]
        kinds.append((IOMMUFD_KERNEL, "iommufd"))
        return matrix() + [Setup(k, smp=4, kind=kind) for k, kind in kinds] + disk_setups() + \
            net_setups() + virtio_setups() + far_setups()
    if args.backend:
        return backend_setups(args)
    kind = args.kind or "device"
    if args.matrix:
        return matrix(kind, args.model, args.process)
    if kind == "bench":
        return bench_setups(args)
    return [Setup(k, args.strict, args.smp, kind, args.iommu, args.model, args.process, args.echo)
            for k in args.kernel]
