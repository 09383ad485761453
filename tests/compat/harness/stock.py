"""Command line of the original's cluster, for comparing by hand and for benchmarks."""

import argparse
import shutil
import sys
from pathlib import Path

from . import remoting
from .clusters import GROUP, MEMBERS, StockCluster
from .process import Failure


def main() -> int:
    parser = argparse.ArgumentParser(prog="stock.sh", description="The original's nameserver and three DLedger brokers.")
    parser.add_argument("action", choices=("start", "stop", "status", "kill-leader", "kill", "restart", "clean"))
    parser.add_argument("member", nargs="?", choices=MEMBERS)
    parser.add_argument("--dir", type=Path, default=Path("/tmp/rmqstock"), help="stores, logs and pids (default %(default)s)")
    parser.add_argument("--port-base", type=int, default=22000, help="nameserver port (default %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a line for every broker conf")
    options = parser.parse_args()
    cluster = StockCluster(options.dir.absolute(), options.port_base, tuple(options.set))
    try:
        act(cluster, options)
    except Failure as failure:
        print(f"stock.sh: {failure}", file=sys.stderr)
        return 1
    return 0


def act(cluster: StockCluster, options: argparse.Namespace) -> None:
    """Carries out one action; a refusal is a Failure."""
    if options.action in ("kill", "restart") and not options.member:
        raise Failure(f"{options.action} needs a member: {', '.join(MEMBERS)}")
    match options.action:
        case "start":
            cluster.start()
            print(f"NAMESRV_ADDR={cluster.namesrv}")
        case "stop":
            cluster.stop()
        case "status":
            for name in ("namesrv", *MEMBERS):
                print(f"{name}\t{cluster.pid(name) or 'not running'}")
            for number, address in sorted(remoting.members(cluster.namesrv, GROUP).items()):
                print(f"{GROUP}\t{number}\t{address}")
        case "kill":
            print(cluster.kill(options.member))
        case "kill-leader":
            leader = cluster.leader()
            if not leader:
                raise Failure("no leader is registered")
            print(cluster.kill(leader))
        case "restart":
            print(cluster.restart(options.member))
        case "clean":
            cluster.stop()
            shutil.rmtree(cluster.folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
