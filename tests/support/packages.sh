# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh
#
# packages.sh - Debian packages for tests, got and unpacked without being installed. Sourced by the
# scripts that fetch other people's programs into a cache.
#
# Vocabulary.  "state": a private apt state (lists, package cache, sources); the machine's own apt
# is never changed and root is not needed.  "mirror": where packages come from; always one that the
# machine's own apt sources name.  "root": a folder into which packages are unpacked as if it were
# the file system's; a program in it is run with the loader and the libraries that are in it, too.
#
# Invariants.  A finished part is a folder of its final name: it is unpacked aside, in $work, and
# renamed last.  So whatever was interrupted is simply done again.  Two runs do not meet: flock; but
# one that finds everything there does not wait for another.
#
# Variables that the functions share: dir, the cache; work; state; host_arch.

say() { printf 'fetch: %s\n' "$*"; }
die() { printf 'fetch: error: %s\n' "$*" >&2; exit 1; }

# ---- the cache ----------------------------------------------------------------------------------

# choose_cache: $dir, where it is not set, becomes the usual one. It is made.
choose_cache() {
    : "${dir:=${VIOMMU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/viommu}}"
    mkdir -p "$dir" || die "cannot create $dir"
    dir=$(cd "$dir" && pwd)
}

# begin_work LOCK FOLDER: waits for others who hold the lock; $work is FOLDER, empty.
begin_work() {
    work=$2
    exec 9>"$1"
    flock -n 9 || { say "waiting for another fetch"; flock 9; }
    # The shell lets a child outlive a Ctrl-C for a moment; nothing it leaves behind is ever used.
    trap 'exit 130' INT TERM
    rm -rf "$work"
    mkdir -p "$work"
    host_arch=$(dpkg --print-architecture) || die "dpkg is needed"
}

end_work() {
    rmdir "$work" 2>/dev/null || rm -rf "$work"
}

# ---- mirrors ------------------------------------------------------------------------------------

# Print "URI options" for each Debian archive that the machine's apt sources name, best first.
# Both formats are read.  Security archives do not hold whole releases, so they are left out.
machine_mirrors() {
    {
        for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
            [ ! -r "$f" ] || sed -n '/^[[:space:]]*deb[[:space:]]/p' "$f"
        done | one_line_entries
        for f in /etc/apt/sources.list.d/*.sources; do
            [ ! -r "$f" ] || { cat "$f"; printf '\n\n'; }
        done | deb822_entries
    } | awk '!seen[$0]++'
}

# Entries are chosen by suite and component; $1 type is "deb" already.
wanted_entry='
function wanted(uri, suite) {
    if (uri ~ /security/ || suite ~ /security|-/)
        return 0
    return suite ~ /^(bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)\/?$/
}'

one_line_entries() {
    awk "$wanted_entry"'
    {
        opts = ""
        line = $0
        sub(/#.*/, "", line)
        if (match(line, /\[[^]]*\]/)) {
            opts = substr(line, RSTART + 1, RLENGTH - 2)
            line = substr(line, 1, RSTART - 1) " " substr(line, RSTART + RLENGTH)
        }
        split(line, f, " ")
        if (!wanted(f[2], f[3]) || line !~ / main( |$)/)
            next
        keep = ""
        n = split(opts, o, " ")
        for (i = 1; i <= n; i++)
            if (o[i] ~ /^(trusted|allow-insecure|check-valid-until)=/)
                keep = keep " " o[i]
        print f[2] keep
    }'
}

deb822_entries() {
    awk "$wanted_entry"'
    function flush_stanza(   nu, ns, i, j, u, s, ok, keep) {
        if (v["types"] ~ /(^| )deb( |$)/ && v["enabled"] !~ /^ *(no|false|0)/ &&
            (" " v["components"] " ") ~ / main /) {
            keep = ""
            if (v["trusted"] != "") keep = keep " trusted=" v["trusted"]
            if (v["check-valid-until"] != "")
                keep = keep " check-valid-until=" v["check-valid-until"]
            nu = split(v["uris"], u, " ")
            ns = split(v["suites"], s, " ")
            for (i = 1; i <= nu; i++) {
                ok = 0
                for (j = 1; j <= ns; j++)
                    ok = ok || wanted(u[i], s[j])
                if (ok)
                    print u[i] keep
            }
        }
        split("", v)
        key = ""
    }
    /^[[:space:]]*#/ { next }
    /^[[:space:]]*$/ { flush_stanza(); next }
    /^[[:space:]]/ { sub(/^[[:space:]]+/, ""); v[key] = v[key] " " $0; next }
    {
        key = tolower($0)
        sub(/:.*/, "", key)
        val = $0
        sub(/^[^:]*:[[:space:]]*/, "", val)
        v[key] = val
    }
    END { flush_stanza() }'
}

# ---- the private apt state ----------------------------------------------------------------------

private_apt() {
    tool=$1
    shift
    "$tool" -q -o Dir::State="$state" -o Dir::State::lists="$state/lists" \
        -o Dir::State::status="$state/status" -o Dir::State::extended_states="$state/extended" \
        -o Dir::Cache="$state/cache" -o Dir::Cache::archives="$state/archives" \
        -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Debug::NoLocking=1 -o APT::Sandbox::User= -o APT::Install-Recommends=0 \
        -o APT::Architectures::=amd64 -o APT::Get::Assume-Yes=1 -o APT::Update::Post-Invoke::= \
        -o APT::Update::Error-Mode=any -o Acquire::Languages=none -o Acquire::Retries=2 \
        -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 "$@"
}

# open_state SUITE...: make $state usable with these suites, from the first mirror that answers.
open_state() {
    [ "$(cat "$state/suites" 2>/dev/null)" != "$*" ] || return 0
    for t in apt-get apt-cache dpkg-deb python3 tar xz zstd; do
        command -v "$t" >/dev/null 2>&1 || die "$t is not installed (see README.md)"
    done
    rm -rf "$state"
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    : >"$state/status"
    machine_mirrors >"$state/mirrors"
    [ -s "$state/mirrors" ] || die "no Debian archive found in /etc/apt/sources.list*"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    signed=
    [ ! -r "$keyring" ] || signed="signed-by=$keyring"
    while read -r uri opts; do
        for s in "$@"; do
            echo "deb [ arch=$host_arch,amd64 $signed $opts ] $uri $s main"
        done >"$state/sources.list"
        say "reading package lists ($*)"
        if private_apt apt-get update >"$state/log" 2>&1 </dev/null; then
            echo "$*" >"$state/suites"
            return 0
        fi
        sed -n 's/^[EW]: /fetch:   &/p' "$state/log" | head -n 5 >&2
    done <"$state/mirrors"
    die "the mirror in this machine's apt sources cannot be reached, or has no $*"
}

# run_apt WHAT COMMAND...: with the output kept, and shown only when it fails
run_apt() {
    what=$1
    shift
    private_apt "$@" >"$state/log" 2>&1 </dev/null && return 0
    tail -n 5 "$state/log" | sed 's/^/fetch:   /' >&2
    die "$what: download failed"
}

# ---- roots --------------------------------------------------------------------------------------

# loader_of ARCHITECTURE: the folder of its libraries, and its loader's name
loader_of() {
    case $1 in
    amd64) echo x86_64-linux-gnu ld-linux-x86-64.so.2 ;;
    arm64) echo aarch64-linux-gnu ld-linux-aarch64.so.1 ;;
    *) return 1 ;;
    esac
}

# unpack_root ROOT PACKAGE...: files of packages into one root; documents are left out
unpack_root() {
    root=$1
    shift
    mkdir -p "$root/usr"
    # Debian merges /lib into /usr/lib; a package that still says /lib must land there too.
    for d in lib lib64 bin; do
        mkdir -p "$root/usr/$d"
        [ -L "$root/$d" ] || ln -s "usr/$d" "$root/$d"
    done
    for p in "$@"; do
        dpkg-deb --fsys-tarfile "$p" | tar -x --keep-directory-symlink -C "$root" \
            --no-same-owner || die "cannot unpack ${p##*/}"
    done
    rm -rf "$root/usr/share/doc" "$root/usr/share/locale"
}
