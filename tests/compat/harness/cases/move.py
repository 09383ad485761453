"""Moving in: a store that the original wrote is imported, and its clients go on where they were."""

import json
import shutil

from ..checks import exactly_once, in_queue_order, intact
from ..clusters import GROUP, MEMBERS, OurCluster, StockCluster
from ..paths import binaries
from ..process import check, run, wait_until
from ..registry import JAVA, Context, plain_case
from .send import bodies, consume, produce

# Small segments, so that the original's log has several.
SEGMENT = 1024 * 1024
QUEUES = 8


class StockBroker(StockCluster):
    """A nameserver and one plain broker of the original: no DLedger, no other members."""

    def start(self) -> None:
        self.settings = (*self.settings, "enableDLegerCommitLog=false", "brokerId=0")
        self.jars.fetch()
        for name in ("namesrv", "n0"):
            self.start_one(name)
        wait_until(lambda: self.leader() == "n0", 60, "the plain broker to be registered")


@plain_case("import/dledger", JAVA, shared=False, only="ours")
def dledger(ctx: Context) -> None:
    """The store of a DLedger leader."""
    move(ctx, StockCluster)


@plain_case("import/plain", JAVA, shared=False, only="ours")
def plain(ctx: Context) -> None:
    """The store of a broker without replication."""
    move(ctx, StockBroker)


def move(ctx: Context, kind: type[StockCluster]) -> None:
    """Sends, consumes a part, stops the original, imports, and compares what is consumed with what was acknowledged."""
    stock = kind(ctx.work / "stock", settings=(f"mappedFileSizeCommitLog={SEGMENT}",))
    with stock:
        old = Context(stock, ctx.work / "old", ctx.scale, ctx.jars)
        consumed = produce(old, "sync", "moved", 60 * ctx.scale, queues=QUEUES, prefix="consumed")
        got = consume(old, "moved", bodies(consumed), name="Push-old", group="moved-group")
        exactly_once(consumed, got)
        left = produce(old, "batch", "moved", 95 * ctx.scale, name="Produce-left", prefix="left")
        # Enough for more than one segment.
        other = produce(old, "async", "moved-other", 6000 * ctx.scale, name="Produce-other")
        leader = stock.leader()
        check(leader, "the original has no leader")
    store = stock.folder / f"store-{leader}"

    ours = OurCluster(ctx.work / "ours")
    try:
        report = import_store(ours, store)
        sent = len(consumed) + len(left) + len(other)
        check(report["messages"] >= sent, f"{report['messages']} messages were imported, {sent} were sent: {report}")
        ours.start()
        new = Context(ours, ctx.work / "new", ctx.scale, ctx.jars)
        # The group goes on where it was; another one begins at the first message.
        forget_physical_offsets(consumed + left + other)
        got = consume(new, "moved", bodies(left), name="Push-on", group="moved-group")
        exactly_once(left, got)
        got = consume(new, "moved", bodies(consumed + left), name="Push-anew", group="moved-anew", orderly="true")
        exactly_once(consumed + left, got)
        intact(got)
        in_queue_order(got)
        got = consume(new, "moved-other", bodies(other), name="Push-other", group="moved-other-group")
        exactly_once(other, got)

        more = produce(new, "sync", "moved", 3 * QUEUES, name="Produce-more", prefix="more")
        next_offsets(consumed + left, more)
        got = consume(new, "moved", bodies(more), name="Push-more", group="moved-group")
        exactly_once(more, got)
    finally:
        ours.stop()
    for number, member in enumerate(MEMBERS):
        said = storetool("verify", ours.folder / f"node0{number}", "--json")
        check(said["records"] == report["messages"] + len(more), f"{member} has {said['records']} messages")


def import_store(ours: OurCluster, store) -> dict:
    """Makes the store of n0 from `store`. The other members begin with nothing."""
    # Only a start writes the confs.
    ours.start()
    ours.stop()
    for number in range(len(MEMBERS)):
        shutil.rmtree(ours.folder / f"node0{number}")
    conf = ours.folder / "conf" / "n0.conf"
    arguments = ("import", "--from", store, "-c", conf, "--json")
    planned = storetool(*arguments, "--dry-run")
    report = storetool(*arguments)
    check(planned["messages"] == report["messages"], f"a dry run counts {planned['messages']}, the import {report['messages']}")
    check(not report["leftOut"], f"messages were left out: {report['leftOut']}")
    return report


def storetool(*arguments) -> dict:
    done = run([binaries() / "storetool", *arguments])
    check(done.returncode == 0, f"storetool {arguments[0]} exited with {done.returncode}:\n{done.stdout[-3000:]}")
    # Progress stands on lines of its own.
    return json.loads(done.stdout.splitlines()[-1])


def forget_physical_offsets(sent: list[dict]) -> None:
    """Imported messages stand at other places of the log, which their offset ids tell; all else stays."""
    for record in sent:
        check(record["broker"] == GROUP, f"{record['body']} was sent to {record['broker']}")
        del record["offsetId"]


def next_offsets(before: list[dict], after: list[dict]) -> None:
    """New messages continue each queue where the imported ones end."""
    ends: dict[str, int] = {}
    for record in before:
        ends[record["queue"]] = max(ends.get(record["queue"], 0), int(record["offset"]) + 1)
    for record in sorted(after, key=lambda record: int(record["offset"])):
        end = ends.get(record["queue"], 0)
        check(int(record["offset"]) == end, f"queue {record['queue']} went on at {record['offset']} instead of {end}")
        ends[record["queue"]] = end + 1
