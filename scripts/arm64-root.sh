#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# arm64-root.sh - unpacks the arm64 libraries that the tests need (cmocka, jansson) into
# build/arm64-root, and writes build/arm64-root.ini, which names that folder to meson.
#
# The machine's own package state is not touched: apt works in a private folder, with arm64 as its
# only architecture and the machine's own sources. Done again only when something is missing.
set -eu

cd "$(dirname "$0")/.."
root=$PWD/build/arm64-root
work=$PWD/build/arm64-root.work
packages='libcmocka0 libcmocka-dev libjansson4 libjansson-dev'

private_apt() {
    apt-get -q -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Debug::NoLocking=1 \
        -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=3 \
        -o APT::Update::Post-Invoke::= -o APT::Update::Post-Invoke-Success::= \
        -o Dir::State="$work/state" -o Dir::State::lists="$work/lists" \
        -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" "$@" \
        >>"$work/log" 2>&1 </dev/null
}

fail() {
    tail -n 20 "$work/log" >&2
    echo "arm64-root.sh: cannot $1" >&2
    exit 1
}

if [ ! -d "$root" ]; then
    rm -rf "$work"
    mkdir -p "$work/state" "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
    : >"$work/status"
    private_apt update || fail 'read the arm64 package lists'
    # shellcheck disable=SC2086  # a list of words on purpose
    (cd "$work" && private_apt download $packages) || fail 'download the arm64 packages'
    for package in "$work"/*.deb; do
        dpkg-deb -x "$package" "$work/root"
    done
    mv "$work/root" "$root"
    rm -rf "$work"
fi
printf "[constants]\narm64_root = '%s'\n" "$root" >"$root.ini"
