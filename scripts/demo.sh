#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# demo.sh - what `make demo` runs: the story in one process, then a Debian kernel on QEMU that
# drives the unit, edu devices and a disk behind it, and at last a virtio-iommu. Ends with the line
# "demo: ok". Without QEMU (no network, another system) all but the first part is left out, and it
# says so.
set -eu

cd "$(dirname "$0")/.."
cannot_run=77
skipped=

echo '== building'
scripts/build.sh plain

echo
echo '== part 1: an in-process guest, a VT-d unit and one device'
build/plain/examples/story

# A part that needs a guest: say what it is, boot, and go on without it where none can run.
guest_part() {
    title=$1
    shift
    [ -z "$skipped" ] || return 0
    echo
    echo "== $title"
    status=0
    python3 -B tests/guest/run.py --viommu build/plain/tools/viommu --kernel 6.12 "$@" || status=$?
    case $status in
    0) ;;
    "$cannot_run") skipped=$title ;;
    *)
        echo 'demo: failed'
        exit "$status"
        ;;
    esac
}

echo
echo 'A Linux kernel of Debian on QEMU comes next, the unit served by "viommu serve".'
echo 'The first time, QEMU and the kernel are downloaded: about 180 MB.'
guest_part 'part 2: the guest takes devices through VFIO, which may reach what it maps, and no more' \
    --strict --smp 2 --checks --summary
guest_part 'part 3: the kernel writes a disk behind the unit and reads it back; strict' \
    --disk --strict --smp 4 --checks --summary
guest_part 'part 4: the same, lazily: the kernel unmaps first, and invalidates later' \
    --disk --lazy --smp 4
guest_part 'part 5: while the guest uses its disk, another server takes the place of the first' \
    --takeover --strict --smp 2 --checks
guest_part 'part 6: a virtio-iommu in place of the VT-d unit: devices by VFIO, mapped by requests' \
    --model virtio --strict --smp 2 --checks --summary
guest_part 'part 7: the disk behind the virtio-iommu, lazily' \
    --model virtio --disk --lazy --smp 4 --summary
if [ -n "$skipped" ]; then
    echo "from \"$skipped\" on all was skipped: no QEMU or kernel can be had here (why: see above)"
fi
echo 'demo: ok'
