#!/bin/bash
# A whole cluster on one machine: one nameserver and three broker processes, a member of every group in each. See fast-try.sh help.
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
set -uo pipefail

MEMBERS=(n0 n1 n2)
DEFAULT_DIR=/tmp/rmqstore
DEFAULT_BASE=9876
GROUPS_MAX=9
BOOT_SECONDS=30
STOP_SECONDS=45

usage() {
    cat <<'TEXT'
usage: fast-try.sh ACTION [OPTIONS]

  start             start what does not run yet; wait until all have booted and a leader is registered
  stop              shut all down (SIGTERM, and kill -9 for what is still there after 45 s)
  status            what runs, and mqadmin clusterList
  quickstart        send 1,000 messages and consume them
  kill-leader       kill -9 the member that leads; with several groups, that leads RaftNode00 or the group that follows
  kill MEMBER       kill -9 a member: n0, n1, n2 or namesrv, or its listen port
  restart MEMBER    shut a member down if it runs, and start it

  --dir DIR         folder of stores, logs and process ids (default /tmp/rmqstore)
  --port-base PORT  only with start: the nameserver listens on PORT, the brokers on PORT+11, +21, +31 and for their peers on
                    +41, +42, +43, so that several clusters run side by side; without it the ports of deploy/conf/dledger.
                    Whoever leads also listens on PORT+5 (30905); each further group takes the ports 100 above
  --groups N        only with start: N groups (RaftNode00, RaftNode01, ...) with a member of each in every process; process i
                    prefers to lead group i (default 1, at most 9)
  --no-leader-endpoint
                    only with start: clients are told the address of the member that leads, and not one address that
                    follows leadership; they then learn of a new leader from their route, which most poll every 30 s
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
GROUP_COUNT=""
ENDPOINT=""

parse() {
    while [ $# -gt 0 ]; do
        case "$1" in
            --no-leader-endpoint) ENDPOINT=no ;;
            --dir | --port-base | --namesrv | --set | --groups)
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
                    --groups)
                        [[ "$2" =~ ^[1-$GROUPS_MAX]$ ]] || die "--groups $2 is not a number from 1 to $GROUPS_MAX"
                        GROUP_COUNT="$2"
                        ;;
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
}

# What a folder remembers: option, variable, value if it was not given.
recall_one() {
    local file="$DIR/run/$1" option="$1"
    local -n variable="$2"
    if [ -f "$file" ]; then
        [ -z "$variable" ] || [ "$variable" = "$(cat "$file")" ] || die "$DIR was started with --$option $(cat "$file")"
        variable="$(cat "$file")"
    elif [ -f "$DIR/run/namesrv-addr" ]; then
        [ -z "$variable" ] || [ "$variable" = "$3" ] || die "$DIR was started without --$option"
        variable="$3"
    fi
    variable="${variable:-$3}"
}

recall() {
    recall_one port-base BASE ""
    recall_one groups GROUP_COUNT 1
    recall_one leader-endpoint ENDPOINT yes
    recall_one namesrv-addr NAMESRV ""
    NAMESRV_ADDR="${NAMESRV:-127.0.0.1:${BASE:-$DEFAULT_BASE}}"
}

remember() {
    mkdir -p "$DIR/run" "$DIR/logs" "$DIR/conf" || die "cannot create folders in $DIR"
    echo "$BASE" >"$DIR/run/port-base"
    echo "$GROUP_COUNT" >"$DIR/run/groups"
    echo "$ENDPOINT" >"$DIR/run/leader-endpoint"
    echo "$NAMESRV" >"$DIR/run/namesrv-addr"
}

# ---- confs: those of deploy/conf with other lines in the place of some

# The conf of a process, or of its member of a further group.
conf_of() {
    local name="$1" group="${2:-0}"
    [ "$group" = 0 ] || name+="-g$group"
    echo "$DIR/conf/$name.conf"
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
    local group n
    replace_keys "$PROJECT/deploy/conf/namesrv.conf" "listenPort=${BASE:-$DEFAULT_BASE}" \
        "kvConfigPath=$DIR/namesrv/kvConfig.json" "configStorePath=$DIR/namesrv/namesrv.properties" \
        "logDir=$DIR/logs/namesrv" >"$DIR/conf/namesrv.conf"
    for ((group = 0; group < GROUP_COUNT; group++)); do
        for n in 0 1 2; do
            # A conf that is there is kept: a member's settings must not change under its store by a later start.
            [ -f "$(conf_of "n$n" "$group")" ] || write_conf "$n" "$group" >"$(conf_of "n$n" "$group")"
        done
    done
}

write_conf() {
    local n="$1" group="$2" above=$((100 * $2)) name="RaftNode0$2" store="$DIR/node0$1" peers="" peer lines
    [ "$group" = 0 ] || store+="-g$group"
    for peer in 0 1 2; do
        peers+="${peers:+;}n$peer-127.0.0.1:$((above + peer + (BASE ? BASE + 41 : 40911)))"
    done
    lines=(
        "brokerName=$name"
        "dLegerGroup=$name"
        "listenPort=$((above + 10 * n + (BASE ? BASE + 11 : 30911)))"
        "namesrvAddr=$NAMESRV_ADDR"
        "storePathRootDir=$store"
        "storePathCommitLog=$store/commitlog"
        "dLegerPeers=$peers"
        "logDir=$DIR/logs/node0$n"
    )
    [ "$ENDPOINT" = no ] || lines+=("leaderEndpoint=127.0.0.1:$((above + (BASE ? BASE + 5 : 30905)))")
    [ "$GROUP_COUNT" = 1 ] || lines+=("preferredLeaderId=n$((group % 3))")
    replace_keys "$PROJECT/deploy/conf/dledger/broker-n$n.conf" "${lines[@]}" ${SETTINGS[@]+"${SETTINGS[@]}"}
}

port_of() {
    sed -nE 's/^[[:space:]]*listenPort[[:space:]]*[=:][[:space:]]*([0-9]+).*/\1/p' "$(conf_of "$@")" | tail -1
}

# ---- processes

# The process id of a member, if it runs. The id alone is not enough: it may have been given to another process since.
pid_of() {
    local pid
    pid="$(cat "$DIR/run/$1.pid" 2>/dev/null)" || return 1
    ps -o args= -p "$pid" 2>/dev/null | grep -qF -- "-c $(conf_of "$1")" && echo "$pid"
}

start_one() {
    local name="$1" binary=mqbroker out="$DIR/logs/$1.out" pid group confs
    if pid="$(pid_of "$name")"; then
        echo "$name runs already (pid $pid)"
        return
    fi
    confs=(-c "$(conf_of "$name")")
    if [ "$name" = namesrv ]; then
        binary=mqnamesrv
    else
        for ((group = 1; group < GROUP_COUNT; group++)); do
            confs+=(-c "$(conf_of "$name" "$group")")
        done
    fi
    [ -f "$(conf_of "$name")" ] || die "$(conf_of "$name") does not exist: start the cluster first"
    # What earlier starts said is kept, but must not be taken for what this one says.
    [ ! -f "$out" ] || cat "$out" >>"$out.old"
    # setsid: Ctrl-C in the terminal that started the cluster must not end it.
    setsid "$BIN_DIR/$binary" "${confs[@]}" </dev/null >"$out" 2>&1 &
    pid=$!
    disown "$pid"
    echo "$pid" >"$DIR/run/$name.pid"
    echo "starting $name on port $(port_of "$name") (pid $pid)"
}

wait_booted() {
    local name="$1" out="$DIR/logs/$1.out" deadline=$((SECONDS + BOOT_SECONDS)) members="$GROUP_COUNT"
    [ "$name" != namesrv ] || members=1
    # One line of every member of the process.
    until [ "$(grep -c "boot success" "$out" 2>/dev/null)" = "$members" ]; do
        # Twice: between fork and exec the process does not look like itself yet.
        if ! pid_of "$name" >/dev/null && sleep 0.1 && ! pid_of "$name" >/dev/null; then
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

# The process with the leading member of a group: the one that says it is active, under an address of its own.
leader_name() {
    local group="$1" address name
    for address in $(cluster_list | awk -v group="RaftNode0$group" '$2 == group && $NF == "true" { print $4 }'); do
        for name in "${MEMBERS[@]}"; do
            [ "$(port_of "$name" "$group")" != "${address##*:}" ] || { echo "$name" && return; }
        done
    done
    return 1
}

# Whether all members of a group and its leader are registered.
is_registered() {
    local group="$1" rows name
    rows="$(cluster_list | awk -v group="RaftNode0$group" '$2 == group { print $3, $4 }')"
    for name in "${MEMBERS[@]}"; do
        grep -q ":$(port_of "$name" "$group")\$" <<<"$rows" || return
    done
    grep -q "^0 " <<<"$rows"
}

wait_leader() {
    local group="$1" deadline=$((SECONDS + BOOT_SECONDS))
    until is_registered "$group" && leader_name "$group" >/dev/null; do
        if [ $SECONDS -ge $deadline ]; then
            cluster_list >&2
            die "no leader and two followers of RaftNode0$group in nameserver $NAMESRV_ADDR within $BOOT_SECONDS s; logs are in $DIR/logs"
        fi
        sleep 0.05
    done
}

# Waits a moment for each process to lead its own group; where one does not, the group works all the same.
wait_preferred() {
    local group deadline=$((SECONDS + 10))
    for ((group = 0; group < GROUP_COUNT; group++)); do
        until [ "$(leader_name "$group")" = "n$((group % 3))" ] || [ $SECONDS -ge $deadline ]; do
            sleep 0.1
        done
    done
}

leaders() {
    local group
    if [ "$GROUP_COUNT" = 1 ]; then
        echo "leader is $(leader_name 0)"
        return
    fi
    for ((group = 0; group < GROUP_COUNT; group++)); do
        echo "RaftNode0$group is led by $(leader_name "$group")"
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
    local name started group
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
    for ((group = 0; group < GROUP_COUNT; group++)); do
        wait_leader "$group"
    done
    [ "$GROUP_COUNT" = 1 ] || wait_preferred
    leaders
    echo "serving after $(($(date +%s%3N) - started)) ms; export NAMESRV_ADDR=$NAMESRV_ADDR; logs are in $DIR/logs"
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
            [[ "${TARGET:-RaftNode00}" =~ ^RaftNode0([0-9])$ ]] || die "$TARGET is no group: RaftNode00, RaftNode01, ..."
            name="$(leader_name "${BASH_REMATCH[1]}")" || die "no leader of ${TARGET:-RaftNode00} is registered in nameserver $NAMESRV_ADDR"
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
