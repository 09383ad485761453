# shellcheck shell=bash
# Sourced by the scripts beside it: where the project, its builds and its binaries are.

PROJECT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# Outside of the clone, so that a fresh clone on the same machine need not build RocksDB again.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/raftmq/target}"
BIN_DIR="${RAFTMQ_BIN_DIR:-$CARGO_TARGET_DIR/release}"
BINARIES=(mqbroker mqnamesrv mqadmin quickstart storetool)

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# RocksDB's C++ is the longest part of a build and depends on nothing of ours, yet cargo would build it again for every other choice
# of packages (their features reach its build script). So it is built once, kept beside the builds, and linked from there.
rocksdb_once() {
    local version built
    version="$(awk '/^name = "librocksdb-sys"$/ { getline; gsub(/version = |"/, ""); print }' "$PROJECT/Cargo.lock")"
    export ROCKSDB_STATIC=1 ROCKSDB_LIB_DIR="$CARGO_TARGET_DIR/rocksdb-$version"
    [ -f "$ROCKSDB_LIB_DIR/librocksdb.a" ] && return
    echo "building RocksDB $version (once; about 10 minutes on two free cores)"
    ROCKSDB_COMPILE=1 cargo build --release --locked -p rocksdb || return
    # shellcheck disable=SC2012 # names without blanks; the newest is the one just built
    built="$(ls -t "$CARGO_TARGET_DIR"/release/build/librocksdb-sys-*/out/librocksdb.a | head -1)"
    mkdir -p "$ROCKSDB_LIB_DIR"
    cp "$built" "$ROCKSDB_LIB_DIR/librocksdb.a.part" && mv "$ROCKSDB_LIB_DIR/librocksdb.a.part" "$ROCKSDB_LIB_DIR/librocksdb.a"
}

# Builds the binaries unless all are there.
ensure_built() {
    local name
    for name in "${BINARIES[@]}"; do
        if [ ! -x "$BIN_DIR/$name" ]; then
            [ -z "${RAFTMQ_BIN_DIR:-}" ] || die "$BIN_DIR has no $name"
            "$PROJECT/deploy/bin/build.sh" >&2 || die "the build failed"
            return
        fi
    done
}
