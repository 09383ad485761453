"""Consumption goes on when the leader dies, and while nobody leads: the last member serves what it has applied."""

import re
import time
from collections import defaultdict

from ..checks import acknowledged, all_of, exactly_once
from ..clusters import MEMBERS, OurCluster
from ..java import all_versions
from ..process import Child, check, free_port_base, wait_until
from ..registry import JAVA, Context, plain_case

MESSAGES = 400


@plain_case("reads/no-leader", JAVA, shared=False, only="ours")
def no_leader(ctx: Context) -> None:
    """A push consumer with a backlog loses two of three members. Sent to a follower before, it does not notice; reading from
    the leader, it finds the follower with its next look at the route."""
    for jars in all_versions():
        jars.fetch()
        for name, settings in (
            ("follower", ("slaveReadEnable=true", "accessMessageInMemoryMaxRatio=0")),
            ("leader", ()),
        ):
            folder = ctx.work / f"{jars.version}-{name}"
            cluster = OurCluster(folder / "cluster", free_port_base(range(0, 50)), settings)
            # How often a client looks at the route; 30 s unless somebody sets it.
            poll = 30_000 if ctx.scale > 1 else 3_000
            with cluster:
                consume_without_leader(cluster, jars, folder, name, poll)


def consume_without_leader(cluster: OurCluster, jars, folder, name: str, poll: int) -> None:
    def start(main: str, log: str, **options):
        arguments = [part for option, value in options.items() for part in (f"--{option}", str(value))]
        return jars.start(main, arguments, folder, cluster.namesrv, log)

    with start("Produce", "Produce-1", mode="sync", topic="Backlog", count=MESSAGES) as producer:
        check(producer.wait(60) == 0, f"the producer failed (log: {producer.log})")
        sent = acknowledged(producer)
    with start("Push", "Push", topic="Backlog", group="BacklogGroup", pause=20, ahead=8, poll=poll) as consumer:
        consumer.wait_for(lambda c: len(c.of("got")) >= 60, 30, "the first messages")
        # The leader suggests broker 1, which is n0, or the next follower while n0 leads.
        leader = cluster.leader()
        left = next(member for member in MEMBERS if member != leader)
        before = len(consumer.of("got"))
        for member in MEMBERS:
            if member != left:
                cluster.kill(member)
        killed = time.monotonic()
        check(before < MESSAGES / 2, f"the backlog was gone: {before} of {MESSAGES} messages")
        # What it had taken in advance says nothing.
        ahead = 8 * 8 + 2 * 4
        consumer.wait_for(lambda c: len(c.of("got")) >= before + ahead, 60, "messages from the last member")
        resumed = time.monotonic() - killed
        consumer.wait_for(*all_of([record["body"] for record in sent], 60))
        took = time.monotonic() - killed
        print(
            f"      {jars.version}, reading from the {name}, route every {poll / 1000:.0f} s: {MESSAGES - before} messages left when {left} remained alone;"
            f" {ahead} more after {resumed:.1f} s, all after {took:.1f} s",
            flush=True,
        )
        for member in MEMBERS:
            if member != left:
                cluster.restart(member)
        cluster.wait_ready(30)
        with start("Produce", "Produce-2", mode="sync", topic="Backlog", count=20, prefix="later") as producer:
            check(producer.wait(60) == 0, f"the producer failed (log: {producer.log})")
            sent += acknowledged(producer)
        consumer.wait_for(*all_of([record["body"] for record in sent], 60))
        check(consumer.finish() == 0, f"the consumer did not end cleanly (log: {consumer.log})")
        exactly_once(sent, consumer.of("got"))


@plain_case("reads/failover", JAVA, shared=False, only="ours")
def failover(ctx: Context) -> None:
    """A group of two push consumers and an orderly one read along while a producer sends and the leader is killed."""
    for jars in all_versions():
        jars.fetch()
        cluster = OurCluster(ctx.work / jars.version / "cluster", endpoint=True)
        with cluster:
            consume_through_kill(cluster, jars, ctx.work / jars.version)


def consume_through_kill(cluster: OurCluster, jars, folder) -> None:
    def start(main: str, log: str, **options) -> Child:
        arguments = [part for option, value in options.items() for part in (f"--{option}", str(value))]
        return jars.start(main, arguments, folder, cluster.namesrv, log)

    def consumer(name: str, group: str, orderly: str) -> Child:
        # The client's own time between heartbeats.
        return start("Push", name, topic="Along", group=group, instance=name, orderly=orderly, heartbeat=30_000)

    with start("Produce", "Produce-first", mode="sync", topic="Along", count=40, prefix="first") as producer:
        check(producer.wait(60) == 0, f"the producer failed (log: {producer.log})")
        sent = acknowledged(producer)
    with (
        consumer("Push-a", "AlongGroup", "false") as a,
        consumer("Push-b", "AlongGroup", "false") as b,
        consumer("Push-orderly", "OrderlyGroup", "true") as orderly,
        # As fast as a consumer can follow on a busy machine.
        start("Produce", "Produce", mode="loop", topic="Along", count=0, pause=10, timeout=3000, retries=2) as producer,
    ):
        for child in (a, b, orderly):
            # A heartbeat that loses a race inside the client is repeated only at the next one.
            child.wait_for(lambda c: len(c.of("got")) >= 100, 60, "the first messages")
        name, at = re.search(r"killed (n\d) .* at (\d+) ms", cluster.kill_leader()).groups()
        killed = int(at)
        seen = len(producer.of("sent"))
        producer.wait_for(lambda p: len(p.of("sent")) >= seen + 500, 60, f"sends after the death of {name}")
        check(producer.finish() == 0, f"the producer failed (log: {producer.log})")
        sent += producer.of("sent")
        failed = {record["body"] for record in producer.of("failed")}
        wanted = {record["body"] for record in sent}
        orderly.wait_for(*all_of(wanted, 60))
        wait_until(lambda: wanted <= {record["body"] for record in got(a, b)}, 60, "every message to be received by one of two")
        for child in (a, b, orderly):
            check(child.finish() == 0, f"a consumer did not end cleanly (log: {child.log})")
    received = {"concurrent": got(a, b), "orderly": got(orderly)}
    gaps, repeated = {}, {}
    for kind, records in received.items():
        bodies = {record["body"] for record in records}
        strange = bodies - wanted - failed
        check(not strange, f"{len(strange)} messages were received that nobody sent, e.g. {sorted(strange)[:3]}")
        gaps[kind] = max(longest_gaps(records, killed).values())
        repeated[kind] = len(records) - len(bodies)
    print(
        f"      {jars.version}: {len(sent)} messages, {len(failed)} sends failed; received more than once: {repeated};"
        f" longest time without a message of a queue around the kill: {gaps} ms",
        flush=True,
    )
    none_before_its_predecessor(got(orderly))
    # A 5.x client notices that its connection has closed. For a 4.x client that was waiting for messages on it, the pull's own
    # time out of 30 s has to pass, and the client's pause after it.
    limit = 40_000 if jars.version.startswith("4.") else 10_000
    check(max(gaps.values()) < limit, f"a queue's messages stopped for {gaps} ms, {limit} ms are allowed")


def got(*consumers: Child) -> list[dict]:
    """What the consumers received, in the order of its time."""
    return sorted((record for consumer in consumers for record in consumer.of("got")), key=lambda record: int(record["at"]))


def longest_gaps(received: list[dict], since: int) -> dict[str, int]:
    """By queue, the longest time in ms between two messages of which the later came after the time `since`."""
    times = defaultdict(list)
    for record in received:
        times[record["queue"]].append(int(record["at"]))
    return {
        queue: max((later - earlier for earlier, later in zip(at, at[1:]) if later > since), default=0)
        for queue, at in times.items()
    }


def none_before_its_predecessor(received: list[dict]) -> None:
    """Within each queue no message came before the one in front of it; a message may come again."""
    ends: dict[str, int] = defaultdict(int)
    for record in received:
        queue, offset = record["queue"], int(record["offset"])
        check(offset <= ends[queue], f"queue {queue}: offset {offset} came before {ends[queue]}")
        ends[queue] = max(ends[queue], offset + 1)
