#!/usr/bin/env bash
# The package for arm64, built with Debian's own cross toolchain in a Debian of its own (target/package/arm64), so that neither
# this machine's Rust nor its list of architectures is touched. `./dev dist --arm64` calls this. Needs root and debootstrap.
#
#   packaging/arm64.sh [--try]
#
# --try starts the built node under qemu, reports an event, and looks at the alarm.
set -euo pipefail
cd "$(dirname "$0")/.."

triple=aarch64-unknown-linux-gnu
root=$PWD/target/package/arm64
PATH=$PATH:/usr/sbin:/sbin

say() { printf '%s\n' "$*" >&2; }
fail() { say "arm64.sh: $*"; exit 1; }

if [ -z "${KLAXON_ARM64_INSIDE:-}" ]; then
    [ "$(id -u)" -eq 0 ] || fail "it takes root to make a Debian"
    [ -d target/package/man ] || fail "the manual pages are missing; build this machine's package first: ./dev dist"
    out=${CARGO_TARGET_DIR:-target}/dist
    mkdir -p "$out"
    # Mounts of its own, which go with it.
    KLAXON_ARM64_INSIDE=$(realpath "$out") exec unshare --mount --propagation private bash "$0" "$@"
fi

# debian NAME SUITE: the smallest one, in target/package.
debian() {
    [ ! -e "$1/etc/debian_version" ] || return 0
    rm -rf "$1.new"
    mkdir -p "$1.new"
    debootstrap --variant=minbase "$2" "$1.new" >&2 || fail "debootstrap does not work here"
    mv "$1.new" "$1"
}

# in_root ROOT COMMAND…: with the network and the certificates of this machine.
in_root() {
    local root=$1 pass=() name
    shift
    for name in http_proxy https_proxy HTTP_PROXY HTTPS_PROXY no_proxy NO_PROXY; do
        [ -z "${!name:-}" ] || pass+=("$name=${!name}")
    done
    chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        "${pass[@]}" "$@" </dev/null
}

toolchain() {
    debian "$root" bookworm
    [ ! -e "$root/toolchain-is-whole" ] || return 0
    say "Debian's cross toolchain"
    local mirror
    mirror=$(sed -n 's/^deb \([^ ]*\) bookworm main.*/\1/p' "$root/etc/apt/sources.list")
    # Debian 12 has a new Rust among its security updates.
    printf 'deb %s bookworm main\ndeb %s-security bookworm-security main\n' "$mirror" "${mirror%/}" >"$root/etc/apt/sources.list"
    cp packaging/cross.sh "$root/root/"
    in_root "$root" bash /root/cross.sh install arm64 >&2
    touch "$root/toolchain-is-whole"
}

build() {
    mkdir -p "$root/src" "$root/out" "$root/cargo"
    mount --bind "$PWD" "$root/src"
    mount --bind "$KLAXON_ARM64_INSIDE" "$root/out"
    mount -t proc proc "$root/proc"
    [ ! -d /etc/ssl/certs ] || mount --bind /etc/ssl/certs "$root/etc/ssl/certs"
    cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
    local epoch
    epoch=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.lock)
    in_root "$root" SOURCE_DATE_EPOCH="$epoch" CARGO_HOME=/cargo CARGO_TARGET_DIR=/build KLAXON_TOOLS=/tools \
        bash /src/packaging/cross.sh run arm64 bash /src/packaging/deb.sh --target "$triple" --out /out >&2
}

toolchain
[ "${1:-}" = --toolchain ] || build
