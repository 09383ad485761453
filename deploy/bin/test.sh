#!/bin/bash
# Every check there is: format, lints, unit and property tests, the README's first command, the published clients, and the suites
# that kill processes. Installs what they need first. Goes on after a failure and exits with 1 at the end.
# Shows verdicts, and what failed once more at the end; --verbose shows all that is said. Either way it is kept, a file a step.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
set -uo pipefail

VERBOSE=no
for option; do
    [ "$option" = --verbose ] || die "unknown option $option, there is --verbose"
    VERBOSE=yes
done

cd "$PROJECT" || exit 1
BIN="$PROJECT/deploy/bin"
STARTED=$SECONDS
SUMMARY=()
PASSED=0
FAILED=0

LOGS="$CARGO_TARGET_DIR/test-logs"
rm -rf "$LOGS"
mkdir -p "$LOGS" || exit 1
VERDICTS='^(setup|building|built|error|warning|PASS|FAIL|SKIP|FAILED)|^ +(Compiling (raftmq|librocksdb)|Finished|Running) '
VERDICTS+='|^test result|FAILED$|^sent [0-9]|seeds from|^[0-9]+ passed'
REASONS=""
# Exit status of the simulation, once it has ended.
SIMULATION="$(mktemp)"
trap 'rm -f "$SIMULATION" "$SIMULATION.status"' EXIT
# The place of a panic is in its message; traces of expected ones would hide it.
export RUST_BACKTRACE=0

# What of a step's output is shown while it runs.
shown() {
    if [ "$VERBOSE" = yes ]; then
        cat
    else
        grep --line-buffered -E "$VERDICTS" || true
    fi
}

# What a step that failed said before each failure, and at its end.
reasons() {
    grep -E -B 20 -A 3 'FAILED$|^FAIL |^error' "$1" | grep -v '\.\.\. ok$' | tail -n 120
    echo '...'
    tail -n 15 "$1"
}

step() {
    local name="$1" started=$SECONDS verdict=PASS
    local log="$LOGS/${name// /-}.log"
    shift
    printf '\n==== %s\n' "$name"
    if "$@" 2>&1 | tee "$log" | shown; then
        PASSED=$((PASSED + 1))
    else
        verdict=FAIL
        FAILED=$((FAILED + 1))
        REASONS+="$(printf '\n---- %s, all of it: %s\n' "$name" "$log"; reasons "$log")"
    fi
    SUMMARY+=("$(printf '%s  %-28s %5d s' "$verdict" "$name" $((SECONDS - started)))")
    [ "$verdict" = PASS ]
}

finish() {
    [ -z "$REASONS" ] || printf '\n==== what failed%s\n' "$REASONS"
    printf '\n==== summary (all that was said: %s)\n' "$LOGS"
    printf '%s\n' "${SUMMARY[@]}"
    printf 'total %d s\n' $((SECONDS - STARTED))
    echo "$PASSED passed, $FAILED failed"
    [ "$FAILED" = 0 ]
    exit
}

# From clean to serving and back, beside whatever runs on the stock ports.
# shellcheck disable=SC2317 # called through step
first_command() {
    local folder status
    folder="$(mktemp -d)"
    "$BIN/run.sh" --stop --dir "$folder" --port-base 19600
    status=$?
    [ "$status" = 0 ] || tail -n 50 "$folder"/logs/*.out
    rm -rf "$folder"
    return "$status"
}

# Simulated groups. A workspace of its own. Their time is not the machine's, so they run beside clients that mostly wait.
start_simulation() {
    (
        renice -n 19 "$BASHPID" > /dev/null
        status=0
        cd "$PROJECT/tests/sim" && cargo fmt --check \
            && cargo clippy --release --locked --all-targets -- -D warnings \
            && cargo test --release --locked -- --nocapture || status=$?
        echo "$status" > "$SIMULATION.status"
    ) > "$SIMULATION" 2>&1 &
    SIMULATING=$!
}

# shellcheck disable=SC2317 # called through step
simulation() {
    while kill -0 "$SIMULATING" 2> /dev/null; do
        sleep 1
    done
    cat "$SIMULATION"
    # Without a status it was killed.
    return "$(cat "$SIMULATION.status" || echo 1)"
}

# The checker of registers: a Go module of its own.
# shellcheck disable=SC2317 # called through step
linearizability() {
    cd "$PROJECT/tests/linearizability" || return
    test -z "$(gofmt -l .)" && go vet ./... && go test ./...
    local status=$?
    cd "$PROJECT" || return
    return "$status"
}

# `--workspace` everywhere: another choice of packages is another choice of features, and builds everything again.
step setup "$BIN/setup.sh" --tests || finish
step format cargo fmt --all --check
step build "$BIN/build.sh" || finish
rocksdb_once || finish
step clippy cargo clippy --release --locked --workspace --all-targets -- -D warnings
step "build tests" cargo test --release --locked --workspace --no-run || finish
step "unit and property tests" cargo test --release --locked --workspace --no-fail-fast --lib --bins
step "documentation tests" cargo test --release --locked --workspace --doc
step linearizability linearizability
step "first command" first_command
# What setup installs is there: nothing may be left out for want of it.
export RAFTMQ_BIN_DIR="$BIN_DIR" RAFTMQ_TESTS_COMPLETE=1
step "suites with real processes" cargo test --release --locked --workspace --no-fail-fast --test '*' -- --nocapture
start_simulation
step compat "$PROJECT/tests/compat/run.sh" --short
step simulation simulation
finish
