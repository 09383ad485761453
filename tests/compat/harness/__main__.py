"""Runs the cases and says of each whether it passed."""

import argparse
import fnmatch
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from . import cases as _registered  # noqa: F401
from .clusters import Cluster, OurCluster, StockCluster
from .java import all_versions
from .paths import PROJECT, binaries, missing_tools
from .process import Failure, check, run
from .registry import Case, Context, cases

LONG_SCALE = 20


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [case for case in cases(all_versions()) if wanted(case, options)]
    if options.list:
        print("\n".join(case.name for case in chosen))
        return 0
    if not chosen:
        print(f"no case is called {' or '.join(options.case)}; --list shows all", file=sys.stderr)
        return 2
    work = Path(tempfile.mkdtemp(prefix="raftmq-compat-"))
    try:
        failed = Run(options, work).all(chosen)
    except Failure as failure:
        print(f"FAIL  {failure}")
        failed = True
    if failed or options.keep:
        print(f"logs: {work}")
    else:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="few messages per case (the default)")
    length.add_argument("--long", action="store_true", help=f"{LONG_SCALE} times as many messages")
    parser.add_argument(
        "--target",
        choices=("ours", "stock"),
        default="ours",
        help="the cluster under test; stock is the original, to check the cases themselves",
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases and exit")
    parser.add_argument("--keep", action="store_true", help="keep logs and stores when all passed")
    parser.add_argument("case", nargs="*", help="names or patterns such as 'java-5*/send*' or go; all without")
    return parser.parse_args()


def wanted(case: Case, options: argparse.Namespace) -> bool:
    if case.only and case.only != options.target:
        return False
    names = options.case
    return not names or any(
        fnmatch.fnmatch(case.name, name) or case.name.startswith(name) or name == case.name.split("/")[1] for name in names
    )


class Run:
    """One run: the shared cluster, started when first needed, and the verdicts."""

    def __init__(self, options: argparse.Namespace, work: Path):
        self.options = options
        self.work = work
        self.cluster: Cluster | None = None
        self.passed = self.failed = self.skipped = 0

    def all(self, chosen: list[Case]) -> bool:
        """Runs the cases; returns whether any failed."""
        if self.options.target == "ours" and "RAFTMQ_BIN_DIR" not in os.environ and not (binaries() / "mqbroker").exists():
            print("building first", flush=True)
            check(run([PROJECT / "deploy" / "bin" / "build.sh"], seconds=7200).returncode == 0, "deploy/bin/build.sh failed")
        try:
            for case in chosen:
                self.one(case)
            if self.cluster and self.options.target == "ours":
                self.judge("cluster/no-panic", lambda: no_panic(self.cluster))
        finally:
            if self.cluster:
                self.cluster.stop()
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        return self.failed > 0

    def one(self, case: Case) -> None:
        if missing := missing_tools(*case.tools):
            self.skipped += 1
            print(
                f"SKIP  {case.name}  !!! not installed: {', '.join(missing)} (deploy/bin/setup.sh --tests installs it)",
                flush=True,
            )
            return

        if case.jars:
            case.jars.fetch()
        if case.shared:
            self.start_cluster()

        def action():
            work = self.work / case.name.replace("/", "-")
            work.mkdir(parents=True)
            case.action(Context(self.cluster, work, LONG_SCALE if self.options.long else 1, case.jars))

        self.judge(case.name, action)

    def start_cluster(self) -> None:
        """Starts the shared cluster before the first case that uses it; its time is not that case's."""
        if self.cluster:
            return
        kind = OurCluster if self.options.target == "ours" else StockCluster
        self.cluster = kind(self.work / "cluster")
        started = time.monotonic()
        self.cluster.start()
        print(f"{kind.kind} cluster at {self.cluster.namesrv} after {time.monotonic() - started:.1f} s", flush=True)

    def judge(self, name: str, action) -> None:
        """Runs one action and prints its verdict line."""
        started = time.monotonic()
        try:
            action()
        except Failure as failure:
            verdict, text = "FAIL", str(failure)
        except Exception:  # a mistake in a case must not end the run
            verdict, text = "FAIL", traceback.format_exc()
        else:
            verdict, text = "PASS", ""
        seconds = time.monotonic() - started
        if verdict == "PASS":
            self.passed += 1
        else:
            self.failed += 1
        print(f"{verdict}  {name}  {seconds:.1f} s", flush=True)
        if text:
            print("".join(f"      {line}\n" for line in text.splitlines()), end="", flush=True)


def no_panic(cluster: Cluster) -> None:
    """No member said that a thread panicked, whatever the clients made of it."""
    for log in cluster.folder.rglob("*"):
        if log.is_file() and log.suffix in (".log", ".out"):
            text = log.read_text(encoding="utf-8", errors="replace")
            check("panicked at" not in text, f"a thread panicked, see {log}")


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    sys.exit(main())
