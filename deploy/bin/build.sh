#!/bin/bash
# Builds all binaries into $CARGO_TARGET_DIR/release (without it $HOME/.cache/raftmq/target/release).
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
set -euo pipefail

cd "$PROJECT"
rocksdb_once
# The whole workspace: the tests then find its crates built with the same features.
cargo build --release --locked --workspace --bins "$@"
echo "built: $CARGO_TARGET_DIR/release/{$(IFS=,; echo "${BINARIES[*]}")}"
