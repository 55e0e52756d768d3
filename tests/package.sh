#!/usr/bin/env bash
# The Debian package in a Debian of its own: installed, started by a real systemd, used, upgraded, removed and purged.
# `./dev test` and `./dev package-test` call this. KLAXON_PACKAGE_PROFILE=dev packs the development build, which takes the
# same way at a fraction of the building time; without it, it is the build that is shipped.
#
# It needs root, debootstrap and systemd-nspawn. The Debian is made once, in target/package, and each run lays an overlay over it.
# With CI=true whatever is missing is a failure; else the test is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "package.sh: $*"; exit 1; }
skip() {
    [ "${CI:-}" != true ] || fail "$*"
    say "package.sh: skipped: $*"
    exit 0
}

profile=${KLAXON_PACKAGE_PROFILE:-dist}
target=${CARGO_TARGET_DIR:-target}
base=$PWD/target/package/bookworm
PATH=$PATH:/usr/sbin:/sbin

[ "$(id -u)" -eq 0 ] || skip "it takes root to make a Debian and to start a systemd"
for tool in debootstrap systemd-nspawn nsenter dpkg-deb unshare; do
    command -v "$tool" >/dev/null || skip "there is no $tool here"
done

if [ -z "${KLAXON_PACKAGE_INSIDE:-}" ]; then
    out=$target/package-test
    rm -rf "$out"
    mkdir -p "$out"
    version=$(cargo pkgid --package klaxon | sed 's/.*[#@]//')
    packaging/deb.sh --profile "$profile" --deb-version "$version-1" --out "$out" >/dev/null
    packaging/deb.sh --profile "$profile" --deb-version "$version-2" --out "$out" --as-built >/dev/null
    if [ ! -e "$base/etc/debian_version" ]; then
        say "making a Debian"
        rm -rf "$base.new"
        mkdir -p "$base.new"
        debootstrap --variant=minbase --include=adduser,dbus,systemd,systemd-sysv bookworm "$base.new" >"$out/debootstrap.log" 2>&1 ||
            { tail -n 20 "$out/debootstrap.log" >&2; skip "debootstrap does not work here"; }
        rm -rf "$base.new"/var/cache/apt/archives/*.deb
        mv "$base.new" "$base"
    fi
    # Mounts of its own, which go with it.
    KLAXON_PACKAGE_INSIDE=$(realpath "$out") exec unshare --mount --propagation private bash "$0"
fi

debs=("$KLAXON_PACKAGE_INSIDE"/*-1_*.deb "$KLAXON_PACKAGE_INSIDE"/*-2_*.deb)
dir=$(mktemp -d)
log=$KLAXON_PACKAGE_INSIDE/nspawn.log
machine='' system='' hierarchy=''
clean_up() {
    local status=$?
    if [ -n "$system" ] && [ $status -ne 0 ]; then
        say "--- the node's log:"
        inside journalctl --unit klaxon --no-pager --lines 40 >&2 || true
    fi
    if [ -n "$machine" ]; then
        # It shuts the system down; one that does not go is ended.
        kill -TERM "$machine" 2>/dev/null || true
        for _ in $(seq 400); do
            kill -0 "$machine" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$machine" 2>/dev/null || true
        wait "$machine" 2>/dev/null || true
    fi
    umount --lazy "$dir"/chroot/root "$dir"/booted/root "$dir"/chroot "$dir"/booted 2>/dev/null || true
    rm -rf --one-file-system "$dir"
    if [ -n "$hierarchy" ]; then
        find "$hierarchy" -depth -type d -exec rmdir {} + 2>/dev/null || true
    fi
}
trap clean_up EXIT

# A copy of the Debian that costs nothing; what is changed in it lies in memory.
overlay() {
    mkdir "$dir/$1"
    mount -t tmpfs -o size=4G tmpfs "$dir/$1"
    mkdir "$dir/$1/upper" "$dir/$1/work" "$dir/$1/root"
    mount -t overlay -o "lowerdir=$base,upperdir=$dir/$1/upper,workdir=$dir/$1/work" overlay "$dir/$1/root"
    cp "${debs[@]}" "$dir/$1/root/root/"
}

ENVIRONMENT=(env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive)
# inside COMMAND…: in the system that was started.
inside() { inside_with_input "$@" </dev/null; }
inside_with_input() {
    nsenter --target "$system" --mount --uts --ipc --net --pid --cgroup --root --wd -- "${ENVIRONMENT[@]}" "$@"
}
# in_chroot COMMAND…: where no systemd runs.
in_chroot() { chroot "$dir/chroot/root" "${ENVIRONMENT[@]}" "$@" </dev/null; }

# is WHAT EXPECTED FOUND
is() { [ "$2" = "$3" ] || fail "$1 is \"$3\" and should be \"$2\""; }
# has WHAT PART FOUND
has() { case "$3" in *"$2"*) ;; *) fail "$1 lacks \"$2\": $3" ;; esac; }
# wait_for WHAT COMMAND…
wait_for() {
    local what=$1 deadline=$((SECONDS + 30))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "waited in vain: $what"
        sleep 0.1
    done
}
main_pid() { inside systemctl show klaxon --property MainPID --value; }
mode() { "$1" stat --format '%a %U:%G' "$2"; }
# One of the alarms that `klaxon alarms` shows.
alarm_is_there() {
    local alarms
    alarms=$(inside klaxon alarms)
    has "the list $1" disk.full "$alarms"
}

say "the package, where no systemd runs"
overlay chroot
in_chroot dpkg --install "/root/$(basename "${debs[0]}")" >"$dir/dpkg.log" 2>&1 || { cat "$dir/dpkg.log" >&2; fail "dpkg cannot install it"; }
is "the program's mode" "755 root:root" "$(mode in_chroot /usr/bin/klaxon)"
is "the settings' mode" "640 root:klaxon" "$(mode in_chroot /etc/klaxon/klaxon.toml)"
is "the store's mode" "750 klaxon:klaxon" "$(mode in_chroot /var/lib/klaxon)"
has "the list of settings" " /etc/klaxon/klaxon.toml " "$(in_chroot dpkg-query --show --showformat '${Conffiles}' klaxon)"
is "the user" "/var/lib/klaxon:/usr/sbin/nologin" "$(in_chroot getent passwd klaxon | cut -d: -f6-7)"
has "the check of the settings" "is right" "$(in_chroot klaxon check /etc/klaxon/klaxon.toml)"
for file in /usr/share/man/man1/klaxon.1.gz /usr/share/man/man1/klaxon-alarms-ack.1.gz /usr/share/bash-completion/completions/klaxon \
    /usr/share/zsh/vendor-completions/_klaxon /usr/share/fish/vendor_completions.d/klaxon.fish /usr/lib/sysctl.d/10-klaxon.conf \
    /usr/share/doc/klaxon/copyright /usr/share/doc/klaxon/changelog.Debian.gz /usr/share/doc/klaxon/libraries.gz; do
    in_chroot test -s "$file" || fail "$file is missing"
done
in_chroot dpkg --purge klaxon >/dev/null 2>&1 || fail "dpkg cannot purge it"
for file in /usr/bin/klaxon /etc/klaxon /var/lib/klaxon /usr/share/doc/klaxon; do
    in_chroot test ! -e "$file" || fail "$file is still there after the purge"
done

say "a system with systemd"
overlay booted
# A group of processes of its own: the machine's own are not moved.
control=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET) || skip "there is no cgroup2 here"
hierarchy=$control/klaxon-package-$$
mkdir "$hierarchy"
flags=(--quiet --directory "$dir/booted/root" --register=no --private-network --console=pipe --boot)
# Where no systemd is that could give it a place, it takes that which it has.
[ -d /run/systemd/system ] || flags+=(--keep-unit)
(
    echo "$BASHPID" >"$hierarchy/cgroup.procs"
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 exec systemd-nspawn "${flags[@]}" </dev/null >"$log" 2>&1
) &
machine=$!
deadline=$((SECONDS + 30))
until system=$(pgrep --parent "$machine" --full systemd/systemd) && inside timeout 20 systemctl is-system-running --wait >/dev/null 2>&1; do
    # Degraded is good enough; some unit of Debian's may not like it here.
    if [ -n "$system" ] && [ "$(inside systemctl is-system-running 2>/dev/null)" = degraded ]; then break; fi
    kill -0 "$machine" 2>/dev/null && [ $SECONDS -lt $deadline ] || { tail -n 20 "$log" >&2; system=''; skip "no systemd can be started here"; }
    sleep 0.1
done

say "install"
inside dpkg --install "/root/$(basename "${debs[0]}")" >"$dir/dpkg.log" 2>&1 || { cat "$dir/dpkg.log" >&2; fail "dpkg cannot install it"; }
is "the service" active "$(inside systemctl is-active klaxon)"
is "the service at boot" enabled "$(inside systemctl is-enabled klaxon)"
is "what systemd says of the unit" "" "$(inside systemd-analyze verify --man=no /lib/systemd/system/klaxon.service 2>&1)"
is "readiness" ready "$(inside klaxon ready)"
is "the socket's mode" "660 klaxon:klaxon" "$(mode inside /run/klaxon/klaxon.sock)"
is "its folder's mode" "755 klaxon:klaxon" "$(mode inside /run/klaxon)"
is "the store's mode" "750 klaxon:klaxon" "$(mode inside /var/lib/klaxon)"
status=$(inside cat "/proc/$(main_pid)/status")
field() { printf '%s\n' "$status" | sed -n "s/^$1:[[:space:]]*//p" | cut -f1; }
is "the node's user" "$(inside id --user klaxon)" "$(field Uid)"
# CAP_NET_BIND_SERVICE is bit 10.
is "what the node may do" 0000000000000400 "$(field CapEff)"
is "what it could ever do" 0000000000000400 "$(field CapBnd)"
is "new privileges" 1 "$(field NoNewPrivs)"
is "its filter of system calls" 2 "$(field Seccomp)"
is "its open files" 65536 "$(inside systemctl show klaxon --property LimitNOFILE --value)"

say "use"
inside klaxon event send --resource host=web-1.filesystem=/var --type disk.full --severity major --text '91 % used' >/dev/null
alarm_is_there "after the event"
inside adduser --quiet --disabled-password --gecos '' anna
has "the list for others" disk.full "$(inside runuser -u anna -- klaxon alarms)"
id=$(inside klaxon alarms | sed -n 's/ .*disk\.full.*//p')
if told=$(inside runuser -u anna -- klaxon alarms ack "$id" 2>&1); then fail "whoever is not in the group can act: $told"; fi
has "what she is told" "adduser YOU klaxon" "$told"
inside adduser --quiet anna klaxon
inside runuser -u anna -- klaxon alarms ack "$id" -m 'on it' >/dev/null || fail "a member of the group cannot act"
has "history" anna "$(inside klaxon history)"

say "reload"
inside sed -i 's/^#history_max_age = .*/history_max_age = "30d"/' /etc/klaxon/klaxon.toml
pid=$(main_pid)
inside systemctl reload klaxon
wait_for "new settings" inside sh -c 'journalctl --unit klaxon --no-pager | grep -q "new settings are in force.*store.history_max_age"'
inside cp /etc/klaxon/klaxon.toml /root/good.toml
inside sed -i 's/^history_max_age = .*/history_max_age = "long"/' /etc/klaxon/klaxon.toml
if inside systemctl reload klaxon 2>/dev/null; then fail "settings with a mistake are taken up"; fi
has "what is wrong" "store.history_max_age" "$(inside journalctl --unit klaxon --no-pager --lines 5)"
inside cp /root/good.toml /etc/klaxon/klaxon.toml
is "the process after reloads" "$pid" "$(main_pid)"
is "readiness after reloads" ready "$(inside klaxon ready)"

say "what the node sees of its machine"
printf '\n[collect.units]\ninterval = "1s"\n' | inside_with_input tee -a /etc/klaxon/klaxon.toml >/dev/null
inside systemctl reload klaxon
inside systemd-run --quiet --unit broken false || true
wait_for "a failed unit is an alarm" inside sh -c 'klaxon alarms | grep -q "unit=broken.service *unit.failed"'
inside systemctl reset-failed broken
wait_for "and no more when it is reset" inside sh -c '! klaxon alarms | grep -q unit.failed'
wait_for "every collector has looked" inside sh -c '! klaxon collect --json | grep -q "\"state\":\"starting\""'
collectors=$(inside klaxon collect --json)
case "$collectors" in *'"state":"failed"'*) fail "a collector does not work in the unit: $collectors" ;; esac
if seen=$(inside klaxon alarms | grep disk.read-only); then fail "what is read-only in the unit only is an alarm: $seen"; fi
inside grep -qi ':00A2 ' /proc/net/udp /proc/net/udp6 || fail "nobody listens for traps on port 162"

say "kill"
inside sh -c "kill -KILL $pid"
# The service waits 5 s before it comes back.
wait_for "the node is back" inside sh -c "[ \$(systemctl show klaxon --property MainPID --value) != $pid ] && klaxon ready"
alarm_is_there "after the kill"

say "upgrade"
pid=$(main_pid)
inside dpkg --install "/root/$(basename "${debs[1]}")" >"$dir/dpkg.log" 2>&1 || { cat "$dir/dpkg.log" >&2; fail "dpkg cannot upgrade it"; }
has "the version" "-2" "$(inside dpkg-query --show --showformat '${Version}' klaxon)"
is "the service after the upgrade" active "$(inside systemctl is-active klaxon)"
[ "$(main_pid)" != "$pid" ] || fail "the node was not started anew by the upgrade"
alarm_is_there "after the upgrade"
has "history after the upgrade" anna "$(inside klaxon history)"
has "the settings after the upgrade" 'history_max_age = "30d"' "$(inside cat /etc/klaxon/klaxon.toml)"

say "remove, install again"
inside dpkg --remove klaxon >/dev/null 2>&1 || fail "dpkg cannot remove it"
if inside systemctl is-active --quiet klaxon; then fail "the service runs after it was removed"; fi
inside test ! -e /usr/bin/klaxon || fail "the program is there after it was removed"
inside test -d /var/lib/klaxon/journal || fail "the data is gone after the program was removed"
has "the settings after the removal" 'history_max_age = "30d"' "$(inside cat /etc/klaxon/klaxon.toml)"
inside dpkg --install "/root/$(basename "${debs[1]}")" >/dev/null 2>&1 || fail "dpkg cannot install it again"
alarm_is_there "after the removal and a new installation"

say "purge"
inside dpkg --purge klaxon >"$dir/dpkg.log" 2>&1 || { cat "$dir/dpkg.log" >&2; fail "dpkg cannot purge it"; }
for file in /usr/bin/klaxon /etc/klaxon /var/lib/klaxon /run/klaxon /lib/systemd/system/klaxon.service /usr/lib/sysctl.d/10-klaxon.conf \
    /etc/systemd/system/multi-user.target.wants/klaxon.service; do
    inside test ! -e "$file" -a ! -L "$file" || fail "$file is still there after the purge"
done
if inside dpkg-query --show klaxon >/dev/null 2>&1; then fail "dpkg still knows it after the purge"; fi
say "the package is right"
