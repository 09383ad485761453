"""Consumption goes on while nobody leads: the last member serves what it has applied."""

import time

from ..checks import acknowledged, all_of, exactly_once
from ..clusters import MEMBERS, OurCluster
from ..java import all_versions
from ..process import check, free_port_base
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
