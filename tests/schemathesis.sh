#!/usr/bin/env bash
# The interface against its own description: schemathesis makes requests of it, good ones and bad ones, and looks whether each
# answer is one that the description promises. `./dev test` calls this. KLAXON_LONG: more requests. KLAXON_SEED: other requests.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=4.32.5
seed=${KLAXON_SEED:-1}
examples=${KLAXON_LONG:+250}
examples=${examples:-12}
target=${CARGO_TARGET_DIR:-target}
venv=$target/schemathesis/$VERSION

say() { printf '%s\n' "$*" >&2; }
fail() { say "schemathesis.sh: $*"; exit 1; }

if [ ! -e "$venv/whole" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "schemathesis==$VERSION" ||
        fail "schemathesis $VERSION cannot be installed"
    touch "$venv/whole"
fi

cargo build --quiet --locked --bin klaxon
dir=$(mktemp -d)
node='' forwarder='' reporter=''
clean_up() {
    for pid in $node $forwarder $reporter; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap clean_up EXIT

# A copy: somebody may build while this runs. Few alarms, so that their limit is met as well.
cp "$target/debug/klaxon" "$dir/klaxon"
printf '[http]\nlisten = "127.0.0.1:0"\n[traps]\nlisten = "127.0.0.1:0"\n[snmp.agent]\nlisten = "127.0.0.1:0"\n[engine]\nactive_alarms_max = 200\n' >"$dir/node.toml"
"$dir/klaxon" run --config "$dir/node.toml" --data "$dir/data" >"$dir/out" 2>"$dir/log" &
node=$!
python3 tests/schemathesis/forward.py "$dir/data/klaxon.sock" "$dir/port" &
forwarder=$!
for _ in $(seq 600); do
    address=$(sed -n 's,.*\(http://[0-9.:]*\).*,\1,p' "$dir/out" | head -n1)
    [ -n "$address" ] && [ -s "$dir/port" ] && break
    kill -0 "$node" 2>/dev/null || { cat "$dir/log" >&2; fail "the node does not start"; }
    sleep 0.1
done
[ -n "$address" ] && [ -s "$dir/port" ] || fail "the node did not start in time"
socket=http://127.0.0.1:$(cat "$dir/port")

# Something to be shown and acted on, again and again: what is tested purges alarms, too.
report() {
    printf '[%s,%s]' '{"resource":"host=a.port=1","alarm_type":"disk.full","severity":"major"}' \
        '{"resource":"host=b","alarm_type":"cpu.high","severity":"critical","lease_s":60}' |
        curl -sf -H 'content-type: application/json' -d @- "$address/api/v1/events" >/dev/null
}
report || fail "the node takes no events"
KLAXON_ALARM=$(curl -sf "$address/api/v1/alarms?resource=host%3Db" | sed -n 's/.*"alarms":\[{"id":"\([0-9a-f-]*\)".*/\1/p')
[ -n "$KLAXON_ALARM" ] || fail "the alarm is not there"
export KLAXON_ALARM
while sleep 0.1; do report || true; done &
reporter=$!

curl -sf "$address/openapi.json" >"$dir/openapi.json" || fail "the node does not describe itself"
schemathesis=$(realpath "$venv/bin/schemathesis")
config=$(realpath tests/schemathesis/config.toml)
# ask ADDRESS ARGUMENTS…
ask() {
    local address=$1
    shift
    # In a folder of its own: it leaves a cache where it is started. By one worker: Python 3.11 cannot parse in two threads at a time
    # (AST constructor recursion depth mismatch).
    (cd "$dir" && "$schemathesis" --config-file "$config" run "$dir/openapi.json" --url "$address" --seed "$seed" --no-color \
        --max-examples "$examples" --generation-database none --continue-on-failure --workers 1 --request-timeout 30 "$@")
}
# token ROLE: one that is good for it.
token() { "$dir/klaxon" --node "$dir/data/klaxon.sock" token create "of-$1" --role "$1"; }
failed=''
# What would call elsewhere, to wherever chance says.
calls=(--exclude-path /api/v1/uplink/join --exclude-path /api/v1/uplink/rehome)
# Streams have no end. Whoever shows nothing may read and report here; and then everybody who is known by a token.
ask "$address" --exclude-path /api/v1/stream || failed=yes
for role in reader operator publisher admin; do
    say "for the role $role"
    # What tokens there are is the business of the next round.
    ask "$address" --exclude-path /api/v1/stream --exclude-path '/api/v1/tokens/{name}' "${calls[@]}" \
        --header "Authorization: Bearer $(token "$role")" || failed=yes
done
# Over the Unix socket everything is allowed.
ask "$socket" --include-tag operators --include-tag starlingx || failed=yes

kill -0 "$node" 2>/dev/null || { cat "$dir/log" >&2; fail "the node died"; }
kill -TERM "$node"
wait "$node" || fail "the node ended badly"
node=''
if grep -E 'panicked|ERROR' "$dir/log" >&2; then fail "the node's log tells of errors"; fi
[ -z "$failed" ] || fail "the interface is not what its description says; repeat with KLAXON_SEED=$seed"
