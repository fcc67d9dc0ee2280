#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# bench.sh [OPTION...] - builds the benchmarks optimised and runs them (build/bench/bench/bench
# --help); without options also those with DPDK's testpmd, when it has been fetched.
set -eu

cd "$(dirname "$0")/.."
CC=gcc scripts/build.sh bench --buildtype=release -Dbench=enabled -Dtests=disabled
ninja -C build/bench --quiet bench/bench tests/peers/dpdk_bench
build/bench/bench/bench "$@"
[ $# = 0 ] || exit 0
status=0
tests/peers/run.py --bench build/bench/tests/peers/dpdk_bench --no-fetch || status=$?
if [ "$status" = 77 ]; then
    echo 'left out: dpdk-invalidate, dpdk-update (see above)'
    exit 0
fi
exit "$status"
