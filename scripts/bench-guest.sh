#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# bench-guest.sh [OPTION...] - builds the command optimised, boots a guest with a disk with the unit
# and without, several times in turn, and prints what it measured (tests/guest/run.py --help).
set -eu

cd "$(dirname "$0")/.."
CC=gcc scripts/build.sh bench --buildtype=release -Dbench=enabled -Dtests=disabled
exec python3 -B tests/guest/run.py --viommu build/bench/tools/viommu --bench --smp 2 "$@"
