"""Several consumers of one group."""

from collections import Counter

from ..checks import acknowledged, all_of, exactly_once
from ..process import Child, check, wait_until
from ..registry import Context, java_case
from .send import bodies, consume, produce, topic_of

QUEUES = 8


def held(consumer: Child) -> list[str]:
    """Queues that a push consumer said last that it holds."""
    said = consumer.of("queues")
    ids = said[-1]["ids"] if said else ""
    return ids.split(",") if ids else []


def shared_by(consumers: list[Child]) -> bool:
    """Whether the consumers hold all queues, no queue twice, none of them more than one above another."""
    holdings = [held(consumer) for consumer in consumers]
    queues = [queue for holding in holdings for queue in holding]
    sizes = [len(holding) for holding in holdings]
    return sorted(queues, key=int) == [str(n) for n in range(QUEUES)] and max(sizes) - min(sizes) <= 1


@java_case("broadcast")
def broadcast(ctx: Context) -> None:
    """Two broadcasting consumers each receive everything."""
    topic = topic_of(ctx, "broadcast")
    first = produce(ctx, "sync", topic, 20)
    options = {"topic": topic, "group": f"{topic}-group", "broadcast": "true"}
    with ctx.java("Push", "Push-a", instance="a", **options) as a, ctx.java("Push", "Push-b", instance="b", **options) as b:
        for consumer in (a, b):
            consumer.wait_for(*all_of(bodies(first)))
        second = produce(ctx, "sync", topic, 30, name="Produce-2", prefix=f"{topic}-2")
        for consumer in (a, b):
            consumer.wait_for(*all_of(bodies(second)))
            check(consumer.finish() == 0, f"a consumer did not end cleanly (log: {consumer.log})")
            exactly_once(first + second, consumer.of("got"))


@java_case("resume")
def resume(ctx: Context) -> None:
    """A group whose consumer was stopped goes on where it stopped: nothing twice, nothing left out."""
    topic = topic_of(ctx, "resume")
    first = produce(ctx, "sync", topic, 40)
    got = consume(ctx, topic, bodies(first), name="Push-1")
    second = produce(ctx, "sync", topic, 40, name="Produce-2", prefix=f"{topic}-2")
    got += consume(ctx, topic, bodies(second), name="Push-2")
    exactly_once(first + second, got)


@java_case("rebalance")
def rebalance(ctx: Context) -> None:
    """Three consumers share the queues; one is killed and the others take its queues over, missing nothing."""
    topic = topic_of(ctx, "rebalance")
    sent = produce(ctx, "sync", topic, 16, queues=QUEUES)
    options = {"topic": topic, "group": f"{topic}-group"}
    consumers = [ctx.java("Push", f"Push-{n}", instance=f"c{n}", **options) for n in range(3)]
    try:
        wait_until(lambda: shared_by(consumers), 60, "three consumers to share the queues")
        with ctx.java("Produce", "Produce-loop", mode="loop", topic=topic, count=0, pause=10, prefix=f"{topic}-loop") as producer:
            producer.wait_for(lambda p: len(p.of("sent")) >= 100, 30, "100 messages to be sent")
            consumers[0].kill()
            survivors = consumers[1:]
            wait_until(lambda: shared_by(survivors), 60, "two consumers to take over the queues of the killed one")
            before = len(producer.of("sent"))
            producer.wait_for(lambda p: len(p.of("sent")) >= before + 100, 30, "100 more messages to be sent")
            check(producer.finish() == 0, f"the producer failed (log: {producer.log})")
            sent += acknowledged(producer)
        wanted = set(bodies(sent))

        def received() -> Counter:
            return Counter(record["body"] for consumer in consumers for record in consumer.of("got"))

        wait_until(lambda: wanted <= received().keys(), 60, "every message to be received by one of the consumers")
        check(wanted == received().keys(), "messages were received that nobody sent")
        for consumer in survivors:
            check(consumer.finish() == 0, f"a consumer did not end cleanly (log: {consumer.log})")
    finally:
        for consumer in consumers:
            consumer.kill()
