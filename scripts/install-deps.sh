#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# install-deps.sh [GROUP...] - installs the Debian 12 packages that a command of the Makefile needs.
#
# Groups: build test guest guest-kernel fuzz bench docs coverage; none: build. Only what is missing
# is installed, and apt is not called when nothing is. Without root it names what is missing and
# fails. The README has the same list with reasons; scripts/checks.py compares them.
set -eu

packages_of() {
    case $1 in
    build) echo gcc libc6-dev binutils meson ninja-build pkg-config python3 libjansson-dev systemtap-sdt-dev ;;
    test) echo libcmocka-dev libglib2.0-dev libunicorn-dev clang libclang-rt-14-dev llvm mandoc "$(cross_packages)" ;;
    guest) echo gcc libc6-dev python3 xz-utils zstd lz4 "$(guest_packages)" ;;
    guest-kernel) echo flex bison bc libelf-dev ;;
    fuzz) echo clang libclang-rt-14-dev llvm ;;
    bench) echo libglib2.0-dev ;;
    docs) echo python3 doxygen ;;
    coverage) echo gcovr libcmocka-dev ;;
    *)
        echo "install-deps.sh: unknown group '$1'" >&2
        return 2
        ;;
    esac
}

# For the arm64 tests on another machine; on arm64 the plain build is already that.
cross_packages() {
    [ "$(dpkg --print-architecture)" = arm64 ] ||
        echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
}

# The guest is x86-64, whatever the machine is.
guest_packages() {
    [ "$(dpkg --print-architecture)" = amd64 ] || echo gcc-x86-64-linux-gnu libc6-dev-amd64-cross
}

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "install-deps.sh: this is no Debian system; the README names what is needed" >&2
    exit 0
fi

missing=
for group in "${@:-build}"; do
    packages=$(packages_of "$group") || exit 2
    for package in $packages; do
        case " $missing " in
        *" $package "*) ;;
        *) is_installed "$package" || missing="$missing $package" ;;
        esac
    done
done
missing=${missing# }
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "install-deps.sh: missing packages, to be installed by root:" >&2
    echo "    apt-get install $missing" >&2
    exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
run_apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
        -o APT::Install-Recommends=0 -o APT::Install-Suggests=0 "$@" >"$log" 2>&1 </dev/null
}
echo "installing: $missing"
# The lists of the machine may be absent, or too old to fetch from: then they are read first.
# shellcheck disable=SC2086  # a list of words on purpose
if ! run_apt install $missing; then
    echo "reading package lists"
    if ! run_apt update || ! run_apt install $missing; then
        tail -n 30 "$log" >&2
        echo "install-deps.sh: apt-get failed (above)" >&2
        exit 1
    fi
fi
