#!/usr/bin/env bash
# Debian's own toolchain for another architecture, in a Debian 12 whose root we are: packaging/arm64.sh and docker/Dockerfile.
#
#   packaging/cross.sh install ARCH           the packages that building for it takes; ARCH as Debian writes it
#   packaging/cross.sh run ARCH COMMAND…      a command that finds them; $TRIPLE is what cargo calls the architecture
set -euo pipefail

what=$1 arch=$2
shift 2
case "$arch" in
    amd64) gnu=x86_64-linux-gnu ;;
    arm64) gnu=aarch64-linux-gnu ;;
    *) printf 'cross.sh: nobody has tried to build for %s\n' "$arch" >&2; exit 1 ;;
esac
export TRIPLE=${gnu%%-*}-unknown-linux-gnu
native=$(dpkg --print-architecture)

case "$what" in
    install)
        # g++, make, OpenSSL and zlib are for librdkafka.
        packages=(rustc-web cargo-web gcc g++ make pkg-config libc6-dev ca-certificates dpkg-dev xz-utils)
        if [ "$arch" != "$native" ]; then
            dpkg --add-architecture "$arch"
            # The libraries themselves, too: by them the package's dependencies are found out.
            packages+=("gcc-${gnu//_/-}" "g++-${gnu//_/-}" "libc6-dev-$arch-cross" "libstd-rust-web-dev:$arch" "libc6:$arch" "libgcc-s1:$arch")
        fi
        packages+=("libssl-dev:$arch" "zlib1g-dev:$arch")
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "${packages[@]}"
        ;;
    run)
        # C code and linking.
        export "CC_${TRIPLE//-/_}=$gnu-gcc"
        linker=CARGO_TARGET_${TRIPLE//-/_}_LINKER
        export "${linker^^}=$gnu-gcc"
        # librdkafka's configure script, and whoever looks for its libraries. What runs here is compiled as ever.
        export HOST_CC=gcc HOST_CXX=g++ CC=$gnu-gcc CXX=$gnu-g++ AR=$gnu-ar LD=$gnu-ld NM=$gnu-nm STRIP=$gnu-strip RANLIB=$gnu-ranlib
        export PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR=/usr/lib/$gnu/pkgconfig:/usr/share/pkgconfig
        exec "$@"
        ;;
    *) printf 'cross.sh: install or run?\n' >&2; exit 2 ;;
esac
