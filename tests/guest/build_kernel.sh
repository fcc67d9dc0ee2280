#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# build_kernel.sh SOURCE OUT - build the guest kernel that has iommufd.
#
# SOURCE is a Linux source tree (its files are written to); OUT gets vmlinux, version, config,
# modules/ (empty) and modules.builtin, as fetch.sh has them of Debian's kernels. The configuration
# is tinyconfig and iommufd.config; an option of that file which does not take effect is an error.
# fetch.sh calls this. It builds with the lowest priority: it takes minutes.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 2 ] || { echo 'usage: build_kernel.sh SOURCE OUT' >&2; exit 2; }
source=$1
out=$2

# The guest is x86-64, whatever the machine is.
kernel_make() {
    if [ "$(uname -m)" = x86_64 ]; then
        set -- ARCH=x86_64 "$@"
    else
        set -- ARCH=x86_64 CROSS_COMPILE=x86_64-linux-gnu- "$@"
    fi
    nice -n 19 make -s -C "$source" KBUILD_BUILD_USER=viommu KBUILD_BUILD_HOST=viommu "$@"
}

for t in make flex bison bc; do
    command -v "$t" >/dev/null 2>&1 || {
        echo "build_kernel.sh: $t is not installed (scripts/install-deps.sh guest-kernel)" >&2
        exit 1
    }
done
kernel_make tinyconfig
grep '^CONFIG_\|^# CONFIG_.* is not set$' "$here/iommufd.config" >>"$source/.config"
kernel_make olddefconfig
grep '^CONFIG_' "$here/iommufd.config" | while read -r line; do
    grep -qx "$line" "$source/.config" || {
        echo "build_kernel.sh: no $line in this kernel's configuration" >&2
        exit 1
    }
done
kernel_make -j"$(nproc)" vmlinux
mkdir -p "$out/modules"
cp "$source/vmlinux" "$out/vmlinux"
cp "$source/.config" "$out/config"
: >"$out/modules.builtin"
kernel_make kernelrelease >"$out/version"
