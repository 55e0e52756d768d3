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
    local list
    list=$(sha256sum <packaging/cross.sh)
    # What is there may be of an earlier list.
    [ "$(cat "$root/toolchain-is-whole" 2>/dev/null)" != "$list" ] || return 0
    say "Debian's cross toolchain"
    local mirror
    mirror=$(sed -n 's/^deb \([^ ]*\) bookworm main.*/\1/p' "$root/etc/apt/sources.list")
    # Debian 12 has a new Rust among its security updates.
    printf 'deb %s bookworm main\ndeb %s-security bookworm-security main\n' "$mirror" "${mirror%/}" >"$root/etc/apt/sources.list"
    cp packaging/cross.sh "$root/root/"
    in_root "$root" bash /root/cross.sh install arm64 >&2
    printf '%s\n' "$list" >"$root/toolchain-is-whole"
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

# The qemu of Debian 13: that of Debian 12 (7.2) hangs when a program starts threads.
qemu() {
    [ ! -x "$root/qemu/usr/bin/qemu-aarch64" ] || return 0
    say "qemu"
    mkdir -p "$root/qemu" "$root/var/lib/apt/lists-trixie/partial"
    sed '/security/d; s/bookworm/trixie/' "$root/etc/apt/sources.list" >"$root/qemu/sources.list"
    local options=(-o Dir::Etc::sourcelist=/qemu/sources.list -o Dir::Etc::sourceparts=/none -o Dir::State::lists=/var/lib/apt/lists-trixie)
    in_root "$root" apt-get "${options[@]}" update -qq
    in_root "$root" sh -c 'cd /qemu && apt-get "$@" download -qq qemu-user:amd64 && dpkg -x qemu-user_*.deb . && rm qemu-user_*.deb' - \
        "${options[@]}" >&2
}

# Start, ready, an event, the alarm, a kill, the alarm again, an end as it should be.
try() {
    local dir node klaxon=("$root/qemu/usr/bin/qemu-aarch64" -L "$root" "$root/build/$triple/dist/klaxon")
    dir=$(mktemp -d)
    printf '[http]\nlisten = "127.0.0.1:0"\n' >"$dir/node.toml"
    start() {
        "${klaxon[@]}" run --config "$dir/node.toml" --data "$dir/data" >"$dir/out" 2>&1 &
        node=$!
        local deadline=$((SECONDS + 60))
        until timeout 20 "${klaxon[@]}" --node "$dir/data/klaxon.sock" ready >/dev/null 2>&1; do
            kill -0 "$node" 2>/dev/null && [ $SECONDS -lt $deadline ] ||
                { cat "$dir/out" >&2; kill -KILL "$node" 2>/dev/null || true; fail "the node does not start under qemu"; }
            sleep 0.2
        done
    }
    shown() {
        timeout 20 "${klaxon[@]}" --node "$dir/data/klaxon.sock" alarms | grep -q disk.full || fail "the alarm is not there $1"
    }
    start
    timeout 20 "${klaxon[@]}" --node "$dir/data/klaxon.sock" event send --resource host=a --type disk.full --severity major >&2
    shown "after the event"
    kill -KILL "$node"
    wait "$node" 2>/dev/null || true
    start
    shown "after a kill"
    kill -TERM "$node"
    wait "$node" || fail "the node ended badly"
    rm -rf "$dir"
    say "the program for arm64 runs under qemu"
}

toolchain
build
if [ "${1:-}" = --try ]; then
    qemu
    try
fi
