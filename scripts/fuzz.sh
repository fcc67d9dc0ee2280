#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# fuzz.sh [TARGET...] - fuzzes each target (or these) for FUZZ_SECONDS (60), two processes each.
#
# It starts from fuzz/corpus/TARGET; new inputs are kept in build/fuzz-corpus/TARGET, and used again
# next time. What crashes is kept as build/fuzz-crashes/TARGET-*, and named at the end. To take new
# inputs into the repository: fuzz.sh --merge [TARGET...] adds those that reach something new to
# fuzz/corpus.
set -eu

cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
crashes=build/fuzz-crashes
merge=
coverage=
case ${1:-} in
--merge)
    merge=yes
    shift
    ;;
--coverage)
    coverage=yes
    shift
    ;;
esac
for target; do
    [ -f "fuzz/${target}_fuzz.c" ] || {
        echo "fuzz.sh: there is no target '$target'; there are:" fuzz/*_fuzz.c |
            sed 's:fuzz/\([a-z_]*\)_fuzz\.c:\1:g' >&2
        exit 2
    }
done

if [ -n "$coverage" ]; then
    CC=clang scripts/build.sh fuzz-coverage -Dtests=disabled -Dbench=disabled -Dbuildtype=debug \
        -Dc_args='-fprofile-instr-generate -fcoverage-mapping' -Db_lundef=false \
        -Dc_link_args='-fprofile-instr-generate'
    exec python3 -B scripts/fuzz_coverage.py build/fuzz-coverage "$@"
fi
CC=clang scripts/build.sh fuzz -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false \
    -Dtests=disabled -Dbench=disabled
if [ $# = 0 ]; then
    for program in build/fuzz/fuzz/fuzz-*; do
        [ ! -f "$program" ] || [ ! -x "$program" ] || set -- "$@" "${program##*/fuzz-}"
    done
fi
mkdir -p "$crashes"
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

failed=
for target; do
    program=build/fuzz/fuzz/fuzz-$target
    seed=fuzz/corpus/$target
    found=build/fuzz-corpus/$target
    mkdir -p "$seed" "$found"
    if [ -n "$merge" ]; then
        "$program" -merge=1 -use_counters=0 "$seed" "$found"
        continue
    fi
    echo "== $target: $seconds s"
    # A fork of two jobs reports both on one terminal, and stops at the first crash.
    # Without -entropic=0 it spends nine tenths of the time on weighing the corpus.
    if ! "$program" -fork=2 -entropic=0 -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 \
        -artifact_prefix="$crashes/$target-" "$found" "$seed" 2>"build/fuzz-$target.log"; then
        failed="$failed $target"
        tail -n 40 "build/fuzz-$target.log"
    fi
    grep '^#' "build/fuzz-$target.log" | tail -n 1
done
[ -n "$failed" ] || exit 0
echo "crashed:$failed; the inputs:"
ls "$crashes"
exit 1
