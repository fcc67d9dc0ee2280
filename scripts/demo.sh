#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# demo.sh - what `make demo` runs: the story in one process, then a Debian kernel on QEMU that
# drives the unit. Ends with the line "demo: ok". Without QEMU (no network, another system) the
# second part is left out, and it says so.
set -eu

cd "$(dirname "$0")/.."
cannot_run=77

echo '== building'
scripts/build.sh plain

echo
echo '== part 1: an in-process guest, a VT-d unit and one device'
build/plain/examples/story

echo
echo '== part 2: a Linux kernel of Debian on QEMU, the unit served by "viommu serve"'
echo '   (the first time, QEMU and the kernel are downloaded: about 180 MB)'
status=0
python3 -B tests/guest/run.py --viommu build/plain/tools/viommu --kernel 6.12 --strict --smp 2 \
    --checks --summary || status=$?
case $status in
0) ;;
"$cannot_run") echo 'part 2 was skipped: no QEMU or kernel can be had here (why: see above)' ;;
*)
    echo 'demo: failed'
    exit "$status"
    ;;
esac
echo 'demo: ok'
