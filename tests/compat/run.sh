#!/bin/bash
# Published RocketMQ clients and tools, unchanged, against our cluster: one PASS or FAIL line per case. See run.sh --help.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PYTHONPATH="$here" exec python3 -B -m harness "$@"
