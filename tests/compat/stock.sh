#!/bin/bash
# The original's cluster (nameserver and three DLedger brokers from the published jars), to compare with. See stock.sh --help.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PYTHONPATH="$here" exec python3 -B -m harness.stock "$@"
