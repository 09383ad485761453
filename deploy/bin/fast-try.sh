#!/bin/bash
# A whole cluster on one machine: one nameserver and the three members of a group. See fast-try.sh help.
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
set -uo pipefail

MEMBERS=(n0 n1 n2)
DEFAULT_DIR=/tmp/rmqstore
DEFAULT_BASE=9876
BOOT_SECONDS=30
STOP_SECONDS=20

usage() {
    cat <<'TEXT'
usage: fast-try.sh ACTION [OPTIONS]

  start             start what does not run yet; wait until all have booted and a leader is registered
  stop              shut all down (SIGTERM, and kill -9 for what is still there after 20 s)
  status            what runs, and mqadmin clusterList
  quickstart        send 1,000 messages and consume them
  kill-leader       kill -9 the member that leads
  kill MEMBER       kill -9 a member: n0, n1, n2 or namesrv, or its listen port
  restart MEMBER    shut a member down if it runs, and start it

  --dir DIR         folder of stores, logs and process ids (default /tmp/rmqstore)
  --port-base PORT  only with start: the nameserver listens on PORT, the brokers on PORT+11, +21, +31 and for their peers on
                    +41, +42, +43, so that several clusters run side by side; without it the ports of deploy/conf/dledger
  --namesrv ADDR    only with start: register in this nameserver and start none
  --set KEY=VALUE   only with start: a line for every broker's conf, before the first start of a folder; may be repeated

A folder remembers the options it was started with: the other actions, and a later start, need only --dir.
TEXT
}

# ---- settings: the command line, then what the folder remembers

ACTION=""
TARGET=""
DIR="$DEFAULT_DIR"
BASE=""
NAMESRV=""
SETTINGS=()

parse() {
    while [ $# -gt 0 ]; do
        case "$1" in
            --dir | --port-base | --namesrv | --set)
                [ $# -ge 2 ] || die "$1 needs a value"
                case "$1" in
                    --dir) DIR="$2" ;;
                    --port-base)
                        if ! [[ "$2" =~ ^[0-9]{4,5}$ ]] || [ "$2" -lt 1024 ] || [ "$2" -gt 65000 ]; then
                            die "--port-base $2 is not a number from 1024 to 65000"
                        fi
                        BASE="$2"
                        ;;
                    --namesrv) NAMESRV="$2" ;;
                    --set)
                        [[ "$2" == *=* ]] || die "--set $2 is not KEY=VALUE"
                        SETTINGS+=("$2")
                        ;;
                esac
                shift
                ;;
            -h | --help | help) usage && exit 0 ;;
            -*) die "unknown option $1; fast-try.sh help shows all" ;;
            *)
                if [ -z "$ACTION" ]; then
                    ACTION="$1"
                elif [ -z "$TARGET" ]; then
                    TARGET="$1"
                else
                    die "too many arguments: $1"
                fi
                ;;
        esac
        shift
    done
    mkdir -p "$DIR" || die "cannot create $DIR"
    DIR="$(cd "$DIR" && pwd)"
    PORT_FILE="$DIR/run/port-base"
    NAMESRV_FILE="$DIR/run/namesrv-addr"
}

recall() {
    if [ -f "$PORT_FILE" ]; then
        [ -z "$BASE" ] || [ "$BASE" = "$(cat "$PORT_FILE")" ] || die "$DIR was started with --port-base $(cat "$PORT_FILE")"
        BASE="$(cat "$PORT_FILE")"
    fi
    if [ -f "$NAMESRV_FILE" ]; then
        [ -z "$NAMESRV" ] || [ "$NAMESRV" = "$(cat "$NAMESRV_FILE")" ] || die "$DIR was started with --namesrv $(cat "$NAMESRV_FILE")"
        NAMESRV="$(cat "$NAMESRV_FILE")"
    fi
    NAMESRV_ADDR="${NAMESRV:-127.0.0.1:${BASE:-$DEFAULT_BASE}}"
}

remember() {
    mkdir -p "$DIR/run" "$DIR/logs" "$DIR/conf" || die "cannot create folders in $DIR"
    [ -z "$BASE" ] || echo "$BASE" >"$PORT_FILE"
    [ -z "$NAMESRV" ] || echo "$NAMESRV" >"$NAMESRV_FILE"
}

# ---- confs

# The stock confs serve as they are; another folder, other ports or more settings give copies in DIR/conf with those lines replaced.
conf_of() {
    local name="$1"
    if [ "$DIR" = "$DEFAULT_DIR" ] && [ -z "$BASE$NAMESRV" ] && [ ! -f "$DIR/conf/$name.conf" ]; then
        case "$name" in
            namesrv) echo "$PROJECT/deploy/conf/namesrv.conf" ;;
            *) echo "$PROJECT/deploy/conf/dledger/broker-$name.conf" ;;
        esac
    else
        echo "$DIR/conf/$name.conf"
    fi
}

# Puts `key=value` lines in the place of those keys' lines in a conf.
replace_keys() {
    local from="$1" keys="" line
    shift
    for line in "$@"; do
        keys+="${keys:+|}${line%%=*}"
    done
    grep -vE "^[[:space:]]*($keys)[[:space:]]*[=:]" "$from"
    printf '%s\n' "$@"
}

write_confs() {
    local n name peers="" port
    [ "$DIR" != "$DEFAULT_DIR" ] || [ -n "$BASE$NAMESRV" ] || [ ${#SETTINGS[@]} -gt 0 ] || return 0
    replace_keys "$PROJECT/deploy/conf/namesrv.conf" "listenPort=${BASE:-$DEFAULT_BASE}" \
        "kvConfigPath=$DIR/namesrv/kvConfig.json" "configStorePath=$DIR/namesrv/namesrv.properties" \
        "logDir=$DIR/logs/namesrv" >"$DIR/conf/namesrv.conf"
    for n in 0 1 2; do
        port=$((BASE ? BASE + 41 + n : 40911 + n))
        peers+="${peers:+;}n$n-127.0.0.1:$port"
    done
    for n in 0 1 2; do
        name="n$n"
        # A conf that is there is kept: a member's settings must not change under its store by a later start.
        [ ! -f "$DIR/conf/$name.conf" ] || continue
        replace_keys "$PROJECT/deploy/conf/dledger/broker-$name.conf" \
            "listenPort=$((BASE ? BASE + 11 + 10 * n : 30911 + 10 * n))" \
            "namesrvAddr=$NAMESRV_ADDR" \
            "storePathRootDir=$DIR/node0$n" \
            "storePathCommitLog=$DIR/node0$n/commitlog" \
            "dLegerPeers=$peers" \
            "logDir=$DIR/logs/node0$n" \
            ${SETTINGS[@]+"${SETTINGS[@]}"} >"$DIR/conf/$name.conf"
    done
}

port_of() {
    sed -nE 's/^[[:space:]]*listenPort[[:space:]]*[=:][[:space:]]*([0-9]+).*/\1/p' "$(conf_of "$1")" | tail -1
}

# ---- processes

# The process id of a member, if it runs. The id alone is not enough: it may have been given to another process since.
pid_of() {
    local pid
    pid="$(cat "$DIR/run/$1.pid" 2>/dev/null)" || return 1
    ps -o args= -p "$pid" 2>/dev/null | grep -qF -- "-c $(conf_of "$1")" && echo "$pid"
}

start_one() {
    local name="$1" binary=mqbroker out="$DIR/logs/$1.out" pid
    if pid="$(pid_of "$name")"; then
        echo "$name runs already (pid $pid)"
        return
    fi
    [ "$name" != namesrv ] || binary=mqnamesrv
    [ -f "$(conf_of "$name")" ] || die "$(conf_of "$name") does not exist: start the cluster first"
    # What earlier starts said is kept, but must not be taken for what this one says.
    [ ! -f "$out" ] || cat "$out" >>"$out.old"
    # setsid: Ctrl-C in the terminal that started the cluster must not end it.
    setsid "$BIN_DIR/$binary" -c "$(conf_of "$name")" </dev/null >"$out" 2>&1 &
    pid=$!
    disown "$pid"
    echo "$pid" >"$DIR/run/$name.pid"
    echo "starting $name on port $(port_of "$name") (pid $pid)"
}

wait_booted() {
    local name="$1" out="$DIR/logs/$1.out" deadline=$((SECONDS + BOOT_SECONDS))
    until grep -q "boot success" "$out" 2>/dev/null; do
        # Twice: between fork and exec the process does not look like itself yet.
        if ! pid_of "$name" >/dev/null && sleep 0.1 && ! pid_of "$name" >/dev/null && ! grep -q "boot success" "$out"; then
            tail -n 20 "$out" >&2
            die "$name did not start; its output is in $out"
        fi
        [ $SECONDS -lt $deadline ] || die "$name has not booted within $BOOT_SECONDS s; its output is in $out"
        sleep 0.05
    done
}

stop_one() {
    local name="$1" pid
    pid="$(pid_of "$name")" || return 0
    kill "$pid" 2>/dev/null
    echo "stopping $name (pid $pid)"
}

wait_stopped() {
    local name="$1" pid deadline=$((SECONDS + STOP_SECONDS))
    while pid="$(pid_of "$name")"; do
        if [ $SECONDS -ge $deadline ]; then
            echo "$name (pid $pid) has not stopped within $STOP_SECONDS s: kill -9"
            kill -9 "$pid" 2>/dev/null
            sleep 0.2
            break
        fi
        sleep 0.05
    done
    rm -f "$DIR/run/$name.pid"
}

# ---- the cluster

cluster_list() {
    "$BIN_DIR/mqadmin" clusterList -n "$NAMESRV_ADDR" 2>/dev/null
}

# Address of the group's member that is registered as broker 0.
leader_address() {
    cluster_list | awk '$2 == "RaftNode00" && $3 == 0 { print $4 }'
}

leader_name() {
    local address name
    address="$(leader_address)"
    [ -n "$address" ] || return 1
    for name in "${MEMBERS[@]}"; do
        [ "$(port_of "$name")" != "${address##*:}" ] || { echo "$name" && return; }
    done
    return 1
}

wait_leader() {
    local deadline=$((SECONDS + BOOT_SECONDS))
    until [ "$(cluster_list | awk '$2 == "RaftNode00"' | wc -l)" -ge ${#MEMBERS[@]} ] && [ -n "$(leader_address)" ]; do
        if [ $SECONDS -ge $deadline ]; then
            cluster_list >&2
            die "no leader and two followers in nameserver $NAMESRV_ADDR within $BOOT_SECONDS s; logs are in $DIR/logs"
        fi
        sleep 0.05
    done
}

# n0, n1, n2, namesrv, or one of their ports → the name.
resolve() {
    local name
    [ -n "$TARGET" ] || die "$ACTION needs a member: ${MEMBERS[*]}, namesrv, or a listen port"
    for name in "${MEMBERS[@]}" namesrv; do
        [ -f "$(conf_of "$name")" ] || die "no cluster was started in $DIR"
        if [ "$TARGET" = "$name" ] || [ "$TARGET" = "$(port_of "$name")" ]; then
            echo "$name"
            return
        fi
    done
    die "$TARGET is no member: ${MEMBERS[*]}, namesrv, or a listen port"
}

kill_one() {
    local name="$1" pid now
    pid="$(pid_of "$name")" || die "$name does not run"
    kill -9 "$pid" || die "cannot kill $name (pid $pid)"
    now="$(date +%s%3N)"
    rm -f "$DIR/run/$name.pid"
    echo "killed $name (port $(port_of "$name"), pid $pid) at $now ms, $(date -d "@${now:0:-3}" +%H:%M:%S).${now: -3}"
}

start_all() {
    local name started
    ensure_built
    remember
    write_confs
    started="$(date +%s%3N)"
    if [ -z "$NAMESRV" ]; then
        start_one namesrv
        wait_booted namesrv
    fi
    for name in "${MEMBERS[@]}"; do
        start_one "$name"
    done
    for name in "${MEMBERS[@]}"; do
        wait_booted "$name"
    done
    wait_leader
    echo "leader is $(leader_name || leader_address), after $(($(date +%s%3N) - started)) ms; export NAMESRV_ADDR=$NAMESRV_ADDR; logs are in $DIR/logs"
}

status() {
    local name pid
    for name in namesrv "${MEMBERS[@]}"; do
        [ "$name" != namesrv ] || [ -z "$NAMESRV" ] || continue
        if pid="$(pid_of "$name")"; then
            echo "$name: port $(port_of "$name"), pid $pid"
        else
            echo "$name: not running"
        fi
    done
    cluster_list || die "nameserver $NAMESRV_ADDR cannot be asked"
}

main() {
    parse "$@"
    recall
    case "$ACTION" in
        start) start_all ;;
        stop)
            for name in "${MEMBERS[@]}" namesrv; do stop_one "$name"; done
            for name in "${MEMBERS[@]}" namesrv; do wait_stopped "$name"; done
            ;;
        status) status ;;
        quickstart)
            "$BIN_DIR/quickstart" producer -n "$NAMESRV_ADDR" || die "the producer failed"
            "$BIN_DIR/quickstart" consumer -n "$NAMESRV_ADDR" -c 1000 || die "the consumer failed"
            ;;
        kill-leader)
            name="$(leader_name)" || die "no leader is registered in nameserver $NAMESRV_ADDR"
            kill_one "$name"
            ;;
        kill)
            name="$(resolve)" || exit 1
            kill_one "$name"
            ;;
        restart)
            ensure_built
            name="$(resolve)" || exit 1
            stop_one "$name"
            wait_stopped "$name"
            start_one "$name"
            wait_booted "$name"
            ;;
        "") usage >&2 && exit 1 ;;
        *) die "unknown action $ACTION; fast-try.sh help shows all" ;;
    esac
}

main "$@"
