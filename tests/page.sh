#!/usr/bin/env bash
# The page at `/` in a real browser: Chromium, led by playwright. `./dev test` calls this. Leaves pictures of it in target/page.
# Builds nothing: KLAXON_BIN, or the development build that is there. KLAXON_PAGE_ONLY=NAME runs the checks with NAME in theirs.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=1.65.2
target=${CARGO_TARGET_DIR:-target}
venv=$target/playwright/$VERSION
klaxon=${KLAXON_BIN:-$target/debug/klaxon}

say() { printf '%s\n' "$*" >&2; }
fail() { say "page.sh: $*"; exit 1; }
# What is missing ends a run of CI, and elsewhere only this test.
lacks() {
    [ "${CI:-}" != true ] || fail "$*"
    say "page.sh: skipped: $*"
    exit 0
}

[ -x "$klaxon" ] || fail "there is no $klaxon; build it first: cargo build --bin klaxon"
chromium=$(command -v chromium || command -v chromium-browser) || lacks "there is no chromium; ./dev setup installs it"
command -v python3 >/dev/null || lacks "there is no python3; ./dev setup installs it"
if [ ! -e "$venv/whole" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "playwright==$VERSION" ||
        lacks "playwright $VERSION cannot be installed"
    touch "$venv/whole"
fi

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# A copy: somebody may build while this runs.
cp "$klaxon" "$dir/klaxon"
mkdir -p "$target/page"
# The driver is a program of its own; a warning of its runtime is no news of the page.
status=0
NODE_OPTIONS=--no-warnings "$venv/bin/python" tests/page/page.py "$dir/klaxon" "$chromium" "$dir" "$target/page" || status=$?
[ "$status" -ne 77 ] || lacks "$chromium does not start"
exit "$status"
