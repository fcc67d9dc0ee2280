#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# fetch.sh - get a QEMU that has vfio-user-pci, and Debian kernels for the guest, into a cache.
#
#   fetch.sh [--dir DIR] [--kernel 6.1|6.12|7.2|6.12-iommufd ...]  (default: kernel 6.12)
#
# What it leaves in the cache (default $VIOMMU_CACHE, else ${XDG_CACHE_HOME:-~/.cache}/viommu):
#   qemu/qemu-system-x86_64   a link to the system's QEMU if that is new enough, else a script that
#                             runs an unpacked one (qemu/root/) with its own loader and libraries
#   kernel-V/                 vmlinux, bzImage, version, modules/*.ko (not compressed),
#                             modules.builtin. Kernel 6.12-iommufd is built here, from Debian's
#                             source (build_kernel.sh; 5 minutes on 2 CPUs): no kernel of Debian's
#                             has iommufd. It has no bzImage.
#
# Words and invariants: see tests/support/packages.sh.
#
# Exit status: 0 done, 1 failed (one line says why), 2 usage.

set -eu

qemu_suite=trixie-backports     # QEMU >= 10.1 for a Debian that has an older one
base_suite=trixie               # its libraries, and kernel 6.12
here=$(cd "$(dirname "$0")" && pwd)
dir=
kernels=
. "$here/../support/packages.sh"

usage() {
    printf 'usage: fetch.sh [--dir DIR] [--kernel 6.1|6.12|7.2|6.12-iommufd ...]\n' >&2
    exit 2
}

# suite_of KERNEL: the Debian release that has it
suite_of() {
    case $1 in
    6.1) echo bookworm ;;
    6.12 | 6.12-iommufd) echo trixie ;;
    7.2) echo trixie-backports ;;
    *) return 1 ;;
    esac
}

# have_kernel KERNEL: is it there, with all modules that are wanted now?
have_kernel() {
    case $1 in
    6.1 | *-iommufd) [ -d "$dir/kernel-$1" ] ;; # without a driver of virtio-iommu
    *) [ -f "$dir/kernel-$1/modules/virtio-iommu.ko" ] ;;
    esac
}

# ---- QEMU ---------------------------------------------------------------------------------------

# usable_qemu PATH: does it run, and is it 10.1 or newer?
usable_qemu() {
    [ -x "$1" ] || return 1
    v=$("$1" --version 2>/dev/null | sed -n 's/.*version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    # shellcheck disable=SC2086  # two words on purpose
    set -- ${v:-0 0}
    [ "$1" -gt 10 ] || { [ "$1" -eq 10 ] && [ "$2" -ge 1 ]; }
}

write_qemu_script() {
    # shellcheck disable=SC2046
    set -- "$1" $(loader_of "$host_arch")
    cat >"$1/qemu-system-x86_64" <<END
#!/bin/sh
# Made by fetch.sh: runs the unpacked QEMU with its own loader and libraries.
r=\$(cd "\$(dirname "\$0")" && pwd)/root
l=\$r/usr/lib/$2
QEMU_MODULE_DIR=\$l/qemu
export QEMU_MODULE_DIR
exec "\$l/$3" --library-path "\$l" --argv0 qemu-system-x86_64 \\
    "\$r/usr/bin/qemu-system-x86_64" -L "\$r/usr/share/qemu" -L "\$r/usr/share/seabios" "\$@"
END
    chmod +x "$1/qemu-system-x86_64"
}

fetch_qemu() {
    if usable_qemu "$dir/qemu/qemu-system-x86_64"; then
        return 0
    fi
    rm -rf "$dir/qemu" "$work/qemu"
    system=$(command -v qemu-system-x86_64 || true)
    if [ -n "$system" ] && usable_qemu "$system"; then
        say "QEMU: the system's own, $("$system" --version | head -n 1)"
        mkdir -p "$work/qemu"
        ln -s "$system" "$work/qemu/qemu-system-x86_64"
        mv "$work/qemu" "$dir/qemu"
        return 0
    fi
    loader_of "$host_arch" >/dev/null ||
        die "no QEMU >= 10.1 here, and none to unpack for $host_arch"
    state=$work/apt-qemu
    open_state "$base_suite" "$qemu_suite"
    say "QEMU: downloading (40 MB)"
    run_apt QEMU apt-get -d -t "$qemu_suite" install "qemu-system-x86:$host_arch"
    say "QEMU: unpacking"
    unpack_root "$work/qemu/root" "$state"/archives/*.deb
    write_qemu_script "$work/qemu"
    usable_qemu "$work/qemu/qemu-system-x86_64" || die "the unpacked QEMU does not run"
    mv "$work/qemu" "$dir/qemu"
    rm -rf "$state"
    say "QEMU: $("$dir/qemu/qemu-system-x86_64" --version | head -n 1)"
}

# ---- kernels ------------------------------------------------------------------------------------

# newest_image KERNEL: its cloud image; a suite may have several of one version, and later versions
newest_image() {
    private_apt apt-cache pkgnames "linux-image-$1" 2>/dev/null |
        sed -n "/^linux-image-$1[.+-].*-cloud-amd64\$/p" | sort -V | tail -n 1
}

# packages_of IMAGE: it, or where it is empty, the parts that it depends on
packages_of() {
    parts=$(private_apt apt-cache depends "$1:amd64" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-\(base\|binary\|modules\)-[0-9][^:]*\).*/\1:amd64/p')
    echo "${parts:-$1:amd64}"
}

fetch_kernel() {
    k=$1
    out=$dir/kernel-$k
    ! have_kernel "$k" || return 0
    state=$work/apt-kernel-$k
    open_state "$(suite_of "$k")"
    image=$(newest_image "$k")
    [ -n "$image" ] || die "$(suite_of "$k") has no kernel $k (a linux-image-$k...-cloud-amd64)"
    say "kernel $k: downloading $image"
    rm -rf "$work/kernel-$k" "$work/unpack-$k"
    mkdir -p "$work/kernel-$k/modules" "$work/unpack-$k"
    # shellcheck disable=SC2046  # several words on purpose
    (cd "$work/unpack-$k" && run_apt "kernel $k" apt-get download $(packages_of "$image"))
    say "kernel $k: unpacking"
    for p in "$work/unpack-$k"/*.deb; do
        dpkg-deb -x "$p" "$work/unpack-$k" || die "cannot unpack ${p##*/}"
    done
    collect_kernel "$work/unpack-$k" "$work/kernel-$k"
    rm -rf "$out" # of a time when fewer modules were wanted
    mv "$work/kernel-$k" "$out"
    rm -rf "$work/unpack-$k" "$state"
    say "kernel $k: $(cat "$out/version")"
}

# source_kernel KERNEL: built from Debian's source. Sources and objects (3 GB) go when it is done.
source_kernel() {
    out=$dir/kernel-$1
    ! have_kernel "$1" || return 0
    package=linux-source-${1%-*}
    state=$work/apt-kernel-$1
    open_state "$(suite_of "$1")"
    say "kernel $1: downloading $package (150 MB)"
    mkdir -p "$work/kernel-$1" "$work/unpack-$1"
    (cd "$work/unpack-$1" && run_apt "kernel $1" apt-get download "$package")
    say "kernel $1: unpacking"
    for p in "$work/unpack-$1"/*.deb; do
        dpkg-deb -x "$p" "$work/unpack-$1" || die "cannot unpack ${p##*/}"
        rm "$p"
    done
    mkdir "$work/source-$1"
    tar -x -J --strip-components=1 --no-same-owner -C "$work/source-$1" \
        -f "$work/unpack-$1/usr/src/$package.tar.xz" || die "cannot unpack $package.tar.xz"
    rm -rf "$work/unpack-$1"
    say "kernel $1: building (about 5 minutes on 2 CPUs)"
    "$here/build_kernel.sh" "$work/source-$1" "$work/kernel-$1" >"$dir/kernel-$1.log" 2>&1 || {
        tail -n 5 "$dir/kernel-$1.log" | sed 's/^/fetch:   /' >&2
        die "kernel $1 does not build ($dir/kernel-$1.log)"
    }
    mv "$work/kernel-$1" "$out"
    rm -rf "$work/source-$1" "$state" "$dir/kernel-$1.log"
    say "kernel $1: $(cat "$out/version")"
}

# collect_kernel FROM TO: the image, and the modules of VFIO and of IOMMUs, out of unpacked packages
collect_kernel() {
    mods=$(find "$1/lib/modules" "$1/usr/lib/modules" -name modules.builtin 2>/dev/null | head -n 1)
    [ -n "$mods" ] || die "the kernel package has no modules.builtin"
    cp "$mods" "$2/modules.builtin"
    mods=$(dirname "$mods")
    basename "$mods" >"$2/version"
    find "$mods" \( -name 'vfio*.ko*' -o -name 'irqbypass.ko*' -o \
        -name 'virtio-iommu.ko*' -o -name 'virtio.ko*' -o -name 'virtio_ring.ko*' -o \
        -name 'virtio_pci*.ko*' \) \
        -exec cp {} "$2/modules/" \;
    for m in "$2"/modules/*; do
        case $m in
        *.ko.xz) xz -d "$m" ;;
        *.ko.zst) zstd -q -d --rm "$m" ;;
        *.ko.gz) gzip -d "$m" ;;
        esac
    done
    cp "$1"/boot/vmlinuz-* "$2/bzImage" 2>/dev/null || cp "$mods/vmlinuz" "$2/bzImage" ||
        die "the kernel package has no kernel image"
    python3 "$here/extract_vmlinux.py" "$2/bzImage" "$2/vmlinux" ||
        die "cannot take vmlinux out of the kernel image"
}

# all_there: is there nothing to do?
all_there() {
    usable_qemu "$dir/qemu/qemu-system-x86_64" || return 1
    for k in $kernels; do
        have_kernel "$k" || return 1
    done
}

# ---- main ---------------------------------------------------------------------------------------

while [ $# -gt 0 ]; do
    case $1 in
    --dir) [ $# -ge 2 ] || usage; dir=$2; shift 2 ;;
    --kernel)
        shift
        [ $# -gt 0 ] || usage
        while [ $# -gt 0 ]; do
            case $1 in -*) break ;; esac
            suite_of "$1" >/dev/null || die "unknown kernel $1 (6.1, 6.12, 7.2 or 6.12-iommufd)"
            kernels="$kernels $1"
            shift
        done ;;
    *) usage ;;
    esac
done
: "${kernels:=6.12}"
choose_cache
if all_there; then
    say "ready in $dir"
    exit 0
fi
begin_work "$dir/lock" "$dir/work"
fetch_qemu
for k in $kernels; do
    case $k in
    *-iommufd) source_kernel "$k" ;;
    *) fetch_kernel "$k" ;;
    esac
done
end_work
say "ready in $dir"
