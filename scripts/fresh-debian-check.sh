#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# fresh-debian-check.sh [FOLDER] - does what the README promises hold on a bare Debian 12? For
# maintainers; as root.
#
# Makes a bare bookworm (debootstrap, from the mirror that this machine's apt sources name) in
# FOLDER, or a new one under /var/tmp, with nothing added but make and git, clones what is committed
# here into it, and runs `make test` and `make demo` there. The folder is removed when all went well
# and it was made here. What is mounted into it is unmounted at the end, whatever happens.
#
# CHECK_COMMANDS (default "make test && make demo") may name others.
set -eu

top=$(cd "$(dirname "$0")/.." && pwd)
commands=${CHECK_COMMANDS:-make test && make demo}
die() {
    echo "fresh-debian-check.sh: $1" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || die 'needs root (debootstrap, chroot)'
for tool in debootstrap git; do
    command -v "$tool" >/dev/null 2>&1 || die "needs $tool: apt-get install $tool"
done

made=
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    root=$(cd "$1" && pwd)
else
    root=$(mktemp -d /var/tmp/viommu-fresh.XXXXXX)
    made=yes
fi
chmod 755 "$root"

unmount() {
    for place in dev/shm dev/pts dev proc sys; do
        if mountpoint -q "$root/$place" 2>/dev/null; then
            umount "$root/$place" || umount -l "$root/$place" || true
        fi
    done
}
trap unmount EXIT
trap 'exit 130' INT TERM

# The first archive here that has bookworm itself.
# shellcheck disable=SC2016  # apt expands these
archive=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "bookworm" && $2 !~ /security/ { print $2; exit }')
[ -n "$archive" ] || die 'no bookworm in the apt sources of this machine'

if [ ! -x "$root/usr/bin/apt-get" ]; then
    echo "== bootstrapping bookworm into $root"
    debootstrap --variant=minbase --include=make,git bookworm "$root" "$archive" \
        >"$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; exit 1; }
    rm -f "$root.log"
fi
for file in /etc/resolv.conf /etc/hosts; do
    [ ! -e "$file" ] || cp -L "$file" "$root$file"
done
# How to reach the network through a proxy, if apt is told.
apt-config dump | grep -i '^Acquire::https*::Proxy ' >"$root/etc/apt/apt.conf.d/90proxy" || true

mkdir -p "$root/dev" "$root/proc" "$root/sys"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
mountpoint -q "$root/sys" || mount -t sysfs -o ro sysfs "$root/sys"
if ! mountpoint -q "$root/dev"; then
    # A small /dev of its own: what is done to it does not reach this machine.
    mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
    for device in null zero full random urandom tty; do
        cp -a "/dev/$device" "$root/dev/$device"
    done
    ln -s /proc/self/fd "$root/dev/fd"
    for stream in 0:stdin 1:stdout 2:stderr; do
        ln -s "/proc/self/fd/${stream%%:*}" "$root/dev/${stream#*:}"
    done
    mkdir "$root/dev/shm" "$root/dev/pts"
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
fi

echo '== cloning what is committed'
rm -rf "$root/root/viommu"
git clone -q --no-hardlinks "$top" "$root/root/viommu"

echo "== in the bare system: $commands"
status=0
chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    TERM="${TERM:-dumb}" LC_ALL=C.UTF-8 \
    ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
    sh -c "cd /root/viommu && $commands" || status=$?
if [ "$status" = 0 ]; then
    echo 'fresh-debian-check: ok'
    if [ -n "$made" ]; then
        unmount
        trap - EXIT
        rm -rf --one-file-system "$root"
    fi
else
    echo "fresh-debian-check: failed ($status); the system is in $root"
fi
exit "$status"
