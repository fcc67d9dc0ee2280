#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# build.sh NAME [MESON OPTION...] - configures build/NAME, or configures it again with these
# options, and builds it. Quiet: what was said is in build/NAME.log, and is shown when something
# fails.
set -eu

cd "$(dirname "$0")/.."
name=${1:-}
case $name in
'' | -* | */*)
    echo 'usage: build.sh NAME [MESON OPTION...]' >&2
    exit 2
    ;;
esac
shift
folder=build/$name
log=$folder.log
mkdir -p build

run() {
    "$@" >>"$log" 2>&1 && return 0
    { grep -A 8 -E '^FAILED| error:|ERROR:' "$log" || tail -n 60 "$log"; } | head -n 80 >&2
    echo "build.sh: $1 failed; all of it is in $log" >&2
    exit 1
}

: >"$log"
if [ -f "$folder/build.ninja" ]; then
    # Again even with the same options: new scenarios are found by that.
    run meson setup --reconfigure "$folder" "$@"
else
    rm -rf "$folder"
    run meson setup "$folder" "$@"
fi
run ninja -k 0 -C "$folder"
