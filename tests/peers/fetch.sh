#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# fetch.sh - get DPDK's testpmd, with no more of DPDK than it needs, into a cache.
#
#   fetch.sh [--dir DIR]
#
# What it leaves in the cache (default $VIOMMU_CACHE, else ${XDG_CACHE_HOME:-~/.cache}/viommu):
#   dpdk/dpdk-testpmd   a script that runs the unpacked one (dpdk/root/) with its own loader and
#                       libraries, and with these drivers: vhost, memory pools, virtual devices
#   dpdk/version        of the package
#
# Debian's package of it depends on all of DPDK. What the program is linked with is read from the
# program itself, and only these packages are taken, and those drivers.
#
# Words and invariants: see tests/support/packages.sh.
#
# Exit status: 0 done, 1 failed (one line says why), 2 usage.

set -eu

suite=bookworm # DPDK 22.11
drivers="net_vhost mempool_ring bus_vdev"
here=$(cd "$(dirname "$0")" && pwd)
dir=
. "$here/../support/packages.sh"

usage() {
    printf 'usage: fetch.sh [--dir DIR]\n' >&2
    exit 2
}

# usable_testpmd PATH: does it start? It says what it sees, and that it knows no such option.
usable_testpmd() {
    [ -x "$1" ] && "$1" --version 2>&1 </dev/null | grep -q '^EAL: Detected CPU'
}

# package_of LIBRARY ABI: the package of librte_NAME, as Debian names them
package_of() {
    name=librte-$(echo "$1" | tr _ -)
    case $name in
    *[0-9]) echo "$name-$2" ;;
    *) echo "$name$2" ;;
    esac
}

# first_packages PROGRAM: one a line, those of the libraries that the program is linked with
first_packages() {
    readelf -d "$1" | sed -n 's/.*NEEDED.*\[librte_\(.*\)\.so\.\([0-9]*\)\].*/\1 \2/p' \
        >"$work/libraries"
    [ -s "$work/libraries" ] || die "no DPDK library found in ${1##*/}"
    for driver in $drivers; do
        echo "$driver $abi"
    done >>"$work/libraries"
    while read -r library abi; do
        package_of "$library" "$abi"
    done <"$work/libraries"
    # Those of others are few: all that are not DPDK's.
    libraries_of dpdk-dev | grep -v librte-
}

# libraries_of PACKAGE...: the packages of libraries on which they depend
libraries_of() {
    # shellcheck disable=SC2046  # several words on purpose
    private_apt apt-cache depends $(printf '%s\n' "$@" | sed "s/\$/:$host_arch/") 2>/dev/null |
        sed -n 's/^ *|*Depends: \([a-z0-9.+-]*\).*/\1/p' |
        grep -E '^(lib|zlib|ibverbs)' | grep -v -e '-dev$'
}

# all_packages: from standard input, with all libraries on which these depend, again and again
all_packages() {
    sort -u >"$work/all-packages"
    while :; do
        # shellcheck disable=SC2046  # several words on purpose
        libraries_of $(cat "$work/all-packages") | sort -u - "$work/all-packages" >"$work/more"
        ! cmp -s "$work/more" "$work/all-packages" || break
        mv "$work/more" "$work/all-packages"
    done
    cat "$work/all-packages"
}

# A driver is named without a folder, and found as the libraries are: of a folder DPDK demands that
# nobody may write to it nor to those above it, and a cache may lie under /tmp.
write_testpmd_script() {
    given=
    for driver in $drivers; do
        given="$given -d librte_$driver.so.$abi"
    done
    # shellcheck disable=SC2046
    set -- "$1" $(loader_of "$host_arch")
    cat >"$1/dpdk-testpmd" <<END
#!/bin/sh
# Made by fetch.sh: runs the unpacked testpmd with its own loader, libraries and drivers.
r=\$(cd "\$(dirname "\$0")" && pwd)/root
l=\$r/usr/lib/$2
exec "\$l/$3" --library-path "\$l" --argv0 dpdk-testpmd "\$r/usr/bin/dpdk-testpmd"$given "\$@"
END
    chmod +x "$1/dpdk-testpmd"
}

fetch_testpmd() {
    loader_of "$host_arch" >/dev/null || die "no DPDK to unpack for $host_arch"
    command -v readelf >/dev/null || die "readelf is not installed (binutils)"
    state=$work/apt
    out=$work/dpdk
    open_state "$suite"
    say "DPDK: downloading (10 MB)"
    (cd "$work" && run_apt DPDK apt-get download "dpdk-dev:$host_arch")
    unpack_root "$work/all" "$work"/dpdk-dev_*.deb
    mkdir -p "$out/root/usr/bin"
    cp "$work/all/usr/bin/dpdk-testpmd" "$out/root/usr/bin/"
    abi=$(readelf -d "$out/root/usr/bin/dpdk-testpmd" |
        sed -n 's/.*NEEDED.*\[librte_eal\.so\.\([0-9]*\)\].*/\1/p')
    first_packages "$out/root/usr/bin/dpdk-testpmd" | all_packages >"$work/packages"
    mkdir "$work/debs"
    # shellcheck disable=SC2046  # several words on purpose
    (cd "$work/debs" && run_apt DPDK apt-get download $(sed "s/\$/:$host_arch/" "$work/packages"))
    say "DPDK: unpacking"
    unpack_root "$out/root" "$work"/debs/*.deb
    write_testpmd_script "$out"
    dpkg-deb -f "$work"/dpdk-dev_*.deb Version >"$out/version"
    usable_testpmd "$out/dpdk-testpmd" || die "the unpacked testpmd does not run"
    rm -rf "$dir/dpdk"
    mv "$out" "$dir/dpdk"
    say "DPDK: $(cat "$dir/dpdk/version")"
}

# ---- main ---------------------------------------------------------------------------------------

while [ $# -gt 0 ]; do
    case $1 in
    --dir) [ $# -ge 2 ] || usage; dir=$2; shift 2 ;;
    *) usage ;;
    esac
done
choose_cache
if [ -d "$dir/dpdk" ] && usable_testpmd "$dir/dpdk/dpdk-testpmd"; then
    say "ready in $dir"
    exit 0
fi
umask 022
begin_work "$dir/lock-dpdk" "$dir/work-dpdk"
# Another one may have fetched it meanwhile.
usable_testpmd "$dir/dpdk/dpdk-testpmd" || fetch_testpmd
end_work
say "ready in $dir"
