#!/bin/bash
# Installs what is missing to build RaftMQ on Debian or Ubuntu; with --tests also what its tests need.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
set -euo pipefail

case "${1:-}" in
    "") TESTS=false ;;
    --tests) TESTS=true ;;
    *) die "usage: setup.sh [--tests]" ;;
esac

has() { command -v "$1" >/dev/null 2>&1; }

PACKAGES=()

# need COMMAND PACKAGE: the package is wanted unless the command is there.
need() { has "$1" || PACKAGES+=("$2"); }

# The newest package of the distribution whose name matches a pattern, e.g. libclang1-19.
newest_package() { apt-cache pkgnames | grep -E "$1" | sort -V | tail -1; }

apt() {
    local command=(apt-get -qq -o Dpkg::Use-Pty=0 "$@")
    if [ "$(id -u)" = 0 ]; then
        DEBIAN_FRONTEND=noninteractive "${command[@]}"
    elif has sudo; then
        sudo DEBIAN_FRONTEND=noninteractive "${command[@]}"
    else
        die "missing: ${PACKAGES[*]}. Install them, or run this as root."
    fi
}

need gcc gcc
need g++ g++
need ps procps
need setsid util-linux
need git git
# RocksDB's bindings are made by libclang with the headers that come with it. It is found where Debian has it without
# LIBCLANG_PATH; setting that would only build RocksDB again wherever it was built without.
LIBCLANG_WANTED=true
if [ -n "${LIBCLANG_PATH:-}" ]; then
    LIBCLANG_WANTED=false
else
    for headers in /usr/lib/llvm-*/lib/clang/*/include/stddef.h; do
        if ls "${headers%%/lib/clang/*}"/lib/libclang*.so* >/dev/null 2>&1; then
            LIBCLANG_WANTED=false
        fi
    done
fi
if $TESTS; then
    need python3 python3
    need javac default-jdk-headless
    need mvn maven
    need go golang-go
fi

if [ ${#PACKAGES[@]} -gt 0 ] || $LIBCLANG_WANTED; then
    has apt-get || die "missing: ${PACKAGES[*]-} $($LIBCLANG_WANTED && echo libclang). Only apt-get is known to this script: install them by hand."
    echo "setup: apt-get update"
    apt update
    if $LIBCLANG_WANTED; then
        version="$(newest_package '^libclang1-[0-9]+$')"
        [ -n "$version" ] || die "this distribution has no package libclang1-N"
        PACKAGES+=("$version" "libclang-common-${version##*-}-dev")
    fi
    echo "setup: installing ${PACKAGES[*]}"
    apt install -y --no-install-recommends "${PACKAGES[@]}"
fi

WANTED="$(sed -nE 's/^rust-version = "([0-9.]+)"/\1/p' "$PROJECT/Cargo.toml")"
if ! has cargo || ! has rustc; then
    die "no Rust toolchain: install Rust $WANTED or newer (https://www.rust-lang.org/tools/install) and run this again"
fi
FOUND="$(rustc --version | awk '{ print $2 }')"
if [ "$(printf '%s\n%s\n' "$WANTED" "${FOUND%%-*}" | sort -V | head -1)" != "$WANTED" ]; then
    die "rustc is $FOUND, $WANTED or newer is needed (rustup update)"
fi
if $TESTS; then
    for component in rustfmt clippy; do
        if ! cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1; then
            has rustup || die "cargo has no $component: install it with your toolchain"
            echo "setup: rustup component add $component"
            rustup component add "$component"
        fi
    done
    if ! has java || [ "$(java -version 2>&1 | sed -nE '1s/.*"(1\.)?([0-9]+).*/\2/p')" -lt 11 ]; then
        die "java is missing or older than 11"
    fi
fi
echo "setup: rustc $FOUND, $(gcc --version | head -1)$($TESTS && echo ", $(java -version 2>&1 | head -1), $(go version)")"
