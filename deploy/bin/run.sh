#!/bin/bash
# From a fresh machine to a running cluster: installs what is missing, builds, starts a nameserver and three members, sends and
# consumes 1,000 messages, prints clusterList. The cluster keeps running; with --stop it is stopped at the end.
BIN="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
set -euo pipefail

STOP=false
OPTIONS=()
for option in "$@"; do
    case "$option" in
        --stop) STOP=true ;;
        -h | --help)
            echo "usage: run.sh [--stop] [options of fast-try.sh start]"
            exit 0
            ;;
        *) OPTIONS+=("$option") ;;
    esac
done

# Only the folder matters after the start: it remembers the rest.
FOLDER=()
for ((i = 0; i < ${#OPTIONS[@]}; i++)); do
    [ "${OPTIONS[i]}" != --dir ] || FOLDER=(--dir "${OPTIONS[i + 1]:-}")
done

"$BIN/setup.sh"
"$BIN/build.sh"
"$BIN/fast-try.sh" start ${OPTIONS[@]+"${OPTIONS[@]}"}
# A failure from here on must not leave a cluster behind that was to be stopped.
if $STOP; then
    trap '"$BIN/fast-try.sh" stop ${FOLDER[@]+"${FOLDER[@]}"}' EXIT
fi
"$BIN/fast-try.sh" quickstart ${FOLDER[@]+"${FOLDER[@]}"} | awk '
    # A thousand lines each way tell no more than their number and the last of them.
    /SEND_OK/ { sent++; last = $0; next }
    /Receive New Messages/ { received++; last = $0; next }
    { print }
    END { print last; printf "sent %d, received %d\n", sent, received; exit !(sent >= 1000 && received >= 1000) }'
"$BIN/fast-try.sh" status ${FOLDER[@]+"${FOLDER[@]}"}
$STOP || echo "The cluster keeps running: stop it with deploy/bin/fast-try.sh stop${FOLDER[*]:+ ${FOLDER[*]}}"
