#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# bench.sh [OPTION...] - builds the benchmarks optimised and runs them (build/bench/bench/bench
# --help).
set -eu

cd "$(dirname "$0")/.."
CC=gcc scripts/build.sh bench --buildtype=release -Dbench=enabled -Dtests=disabled
ninja -C build/bench --quiet bench/bench
exec build/bench/bench/bench "$@"
