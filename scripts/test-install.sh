#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# test-install.sh - installs into a scratch prefix and uses what is there as a stranger would:
# pkg-config, the README's program against the shared and against the static library, the session
# that the README shows, the command. Prints "ok NAME" or "not ok NAME: WHY" for each check.
set -u

cd "$(dirname "$0")/.."
work=$PWD/build/test/install
prefix=$work/prefix
rm -rf "$work"
mkdir -p "$work"

failed=
check() {
    name=$1
    shift
    if "$@" >"$work/out" 2>&1; then
        echo "ok $name"
    else
        echo "not ok $name: see below"
        sed 's/^/# /' "$work/out"
        failed=yes
    fi
}

# block MARK: the fenced block that follows the comment <!-- MARK --> in the README
block() {
    awk -v mark="<!-- $1 -->" '
        $0 == mark { found = 1; next }
        found && /^```/ { if (inside) exit; inside = 1; next }
        inside' README.md
}

play() {
    truncate -s 0 "$work/ram" && truncate -s 1M "$work/ram" &&
        "$1" "$work/ram" <"$work/input" >"$work/printed" && diff -u "$work/expected" "$work/printed"
}

check install make --no-print-directory install PREFIX="$prefix"
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name viommu.pc | head -n 1)")
export PKG_CONFIG_PATH
libraries=$(pkg-config --variable=libdir viommu)

block examples/toy_device.c >"$work/toy_device.c"
block 'session: input' >"$work/input"
block 'session: output' >"$work/expected"
check readme-has-a-session test -s "$work/input" -a -s "$work/expected"

# shellcheck disable=SC2046  # several words on purpose
check compile-shared cc -Wall -Werror -o "$work/toy_shared" "$work/toy_device.c" \
    $(pkg-config --cflags --libs viommu)
LD_LIBRARY_PATH=$libraries
export LD_LIBRARY_PATH
check session-shared play "$work/toy_shared"
unset LD_LIBRARY_PATH

# shellcheck disable=SC2046
check compile-static cc -Wall -Werror -o "$work/toy_static" "$work/toy_device.c" \
    $(pkg-config --cflags viommu) "$libraries/libviommu.a"
check session-static play "$work/toy_static"

manual() {
    [ -s "$prefix/share/man/man$1/$2.$1" ] || { echo "no $2($1)"; return 1; }
}
check manual-command manual 1 viommu-serve
check manual-header manual 3 viommu_device
check manual-function manual 3 viommu_device_translate
check soname test -e "$libraries/libviommu.so.0"
check command "$prefix/bin/viommu" --version
[ -z "$failed" ]
