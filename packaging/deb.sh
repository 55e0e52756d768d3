#!/usr/bin/env bash
# Makes klaxon_VERSION_ARCH.deb: builds the program, gathers in target/package what goes into the package, and packs it with
# cargo-deb (Cargo.toml says what goes where). `./dev dist` calls this, and tests/package.sh does.
#
#   packaging/deb.sh [--profile PROFILE] [--target TRIPLE] [--deb-version VERSION] [--as-built] [--out DIR]
#
# --as-built packs again what is in target/package. With --target the program cannot be run here: manual pages and completions
# are those that are in target/package already.
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_DEB=3.8.0

profile=dist triple='' version='' as_built='' out=''
while [ $# -gt 0 ]; do
    case "$1" in
        --profile) profile=$2; shift ;;
        --target) triple=$2; shift ;;
        --deb-version) version=$2; shift ;;
        --out) out=$2; shift ;;
        --as-built) as_built=yes ;;
        *) printf 'deb.sh: %s is no option\n' "$1" >&2; exit 2 ;;
    esac
    shift
done
target=${CARGO_TARGET_DIR:-target}
tools=${KLAXON_TOOLS:-$target/tools}
stage=target/package
# What is shipped can have its journal in an Apache Kafka.
features=(--features kafka)
out=${out:-$target/dist}
mkdir -p "$stage" "$out"

# The same source makes the same package, whenever and wherever it is built.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.lock)}
export SOURCE_DATE_EPOCH

install_cargo_deb() {
    [ "$("$tools/bin/cargo-deb" --version 2>/dev/null)" = "$CARGO_DEB" ] && return
    # Without its default features it takes xz from the system and needs no C library. A version that is fixed: built once.
    env -u CARGO_BUILD_BUILD_DIR cargo install --quiet --locked --no-default-features --version "$CARGO_DEB" cargo-deb \
        --root "$tools" --target-dir "$tools/build"
    rm -rf "$tools/build"
}

build() {
    local flags=(--quiet --locked --package klaxon --bin klaxon "${features[@]}" --profile "$profile") dir=$target
    [ -z "$triple" ] || { flags+=(--target "$triple"); dir+=/$triple; }
    if [ "$profile" = dist ]; then
        # No path of this machine in the program.
        export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$PWD=klaxon --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
    fi
    cargo build "${flags[@]}"
    dir+=/$([ "$profile" = dev ] && echo debug || echo "$profile")
    cp "$dir/klaxon" "$stage/klaxon"
    # The profile `dist` has stripped it already; one that was built to be tested is large.
    [ "$profile" = dist ] || strip "$stage/klaxon"
}

# What the program tells of itself.
write_pages() {
    rm -rf "$stage/man" "$stage/completions"
    mkdir -p "$stage/completions"
    "$stage/klaxon" man "$stage/man"
    "$stage/klaxon" completions bash >"$stage/completions/klaxon"
    "$stage/klaxon" completions zsh >"$stage/completions/_klaxon"
    "$stage/klaxon" completions fish >"$stage/completions/klaxon.fish"
}

# The libraries in the program, their licences, and the text of each licence once, with those it is of.
write_libraries() {
    local list=$stage/libraries.list texts=$stage/libraries.texts dir name file sum
    cargo tree --locked --package klaxon "${features[@]}" --edges normal --prefix none --no-dedupe --format '{p} {l}' |
        sed -n 's/^\([^ ]*\) v\([^ ]*\) \(.*\)$/\1-\2 \3/p' | grep -v ' (/' | grep -v '^klaxon' | LC_ALL=C sort -u >"$list"
    rm -rf "$texts"
    mkdir "$texts"
    while IFS= read -r dir; do
        name=$(basename "$dir")
        grep -q "^$name " "$list" || continue
        for file in "$dir"/LICEN[SC]E* "$dir"/COPYING* "$dir"/COPYRIGHT* "$dir"/NOTICE* "$dir"/librdkafka/LICENSES*; do
            [ -f "$file" ] || continue
            sum=$(sha256sum <"$file" | cut -c1-16)
            [ -e "$texts/$sum.text" ] || cp "$file" "$texts/$sum.text"
            printf '%s\n' "$name" >>"$texts/$sum.names"
        done
    done < <(cargo metadata --locked --format-version 1 | grep -o '"manifest_path":"[^"]*"' | sed 's/.*:"\(.*\)\/Cargo.toml"/\1/' | LC_ALL=C sort -u)
    {
        printf 'The libraries in this program, with their licences.\n\n'
        cat "$list"
        for file in "$texts"/*.names; do
            printf '\n%s\n%s\n%s\n\n' "$(printf '%.0s=' {1..78})" "$(LC_ALL=C sort -u "$file" | paste -sd ' ' | fold -s -w 78)" \
                "$(printf '%.0s-' {1..78})"
            cat "${file%.names}.text"
        done
    } | gzip -n9 >"$stage/libraries.gz"
    rm -rf "$list" "$texts"
}

# Two logs of changes: Debian's, which knows packages, and ours.
write_changelog() {
    local full=$1
    gzip -n9 <CHANGELOG.md >"$stage/changelog.gz"
    cat >"$stage/changelog" <<END
klaxon ($full) unstable; urgency=medium

  * Built from the source of version ${full%-*}. What changed in it is told in
    /usr/share/doc/klaxon/changelog.gz.

 -- The Klaxon authors <klaxon@klaxon.invalid>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
}

install_cargo_deb
if [ -z "$as_built" ]; then
    build
    [ -n "$triple" ] || write_pages
    write_libraries
fi
version=${version:-$(cargo pkgid --package klaxon | sed 's/.*[#@]//')-1}
write_changelog "$version"
flags=(--no-build --no-strip --locked --quiet --deb-version "$version" --output "$out")
[ -z "$triple" ] || flags+=(--target "$triple")
# One that is only tested need not be small.
[ "$profile" = dist ] || flags+=(--fast)
"$tools/bin/cargo-deb" "${flags[@]}"
