"""Tag filters and the pull consumers."""

from ..checks import all_of, exactly_once, in_queue_order, intact
from ..process import check
from ..registry import Context, java_case
from .send import bodies, consume, produce, topic_of


@java_case("tags")
def tags(ctx: Context) -> None:
    """A subscription to two of three tags gets those and no others."""
    topic = topic_of(ctx, "tags")
    sent = produce(ctx, "sync", topic, 60)
    wanted = [record for record in sent if int(record["body"].rpartition("-")[2]) % 3 != 1]
    got = consume(ctx, topic, bodies(wanted), tags="Tag0 || Tag2")
    exactly_once(wanted, got)


@java_case("lite-pull")
def lite_pull(ctx: Context) -> None:
    """DefaultLitePullConsumer as a member of a group."""
    topic = topic_of(ctx, "lite")
    sent = produce(ctx, "async", topic, 150 * ctx.scale)
    with ctx.java("Pull", mode="subscribe", topic=topic, group=f"{topic}-group") as consumer:
        consumer.wait_for(*all_of(bodies(sent)))
        check(consumer.finish() == 0, f"the consumer did not end cleanly (log: {consumer.log})")
        got = consumer.of("got")
    exactly_once(sent, got)
    intact(got)
    in_queue_order(got)


@java_case("lite-assign")
def lite_assign(ctx: Context) -> None:
    """DefaultLitePullConsumer with assigned queues: seek, poll, commit, read the commit back."""
    topic = topic_of(ctx, "assign")
    sent = produce(ctx, "sync", topic, 50)
    with ctx.java("Pull", mode="assign", topic=topic, group=f"{topic}-group", count=len(sent)) as consumer:
        check(consumer.wait(60) == 0, f"the consumer failed (log: {consumer.log})")
        got, queues = consumer.of("got"), consumer.of("queue")
    exactly_once(sent, got)
    in_queue_order(got)
    for queue in queues:
        count = sum(record["queue"] == queue["id"] for record in sent)
        check(int(queue["committed"]) == count, f"queue {queue['id']}: committed {queue['committed']}, consumed {count}")
        check(queue["first"] == "0", f"queue {queue['id']}: the offset for time 0 is {queue['first']}")


@java_case("classic-pull")
def classic_pull(ctx: Context) -> None:
    """DefaultMQPullConsumer: bounds, pulls to the end and beyond it, offsets by time, stored offsets."""
    topic = topic_of(ctx, "classic")
    sent = produce(ctx, "sync", topic, 50)
    group = f"{topic}-group"
    with ctx.java("Pull", mode="classic", topic=topic, group=group) as consumer:
        check(consumer.wait(90) == 0, f"the consumer failed (log: {consumer.log})")
        got, queues = consumer.of("got"), consumer.of("queue")
    exactly_once(sent, got)
    in_queue_order(got)
    for queue in queues:
        count = str(sum(record["queue"] == queue["id"] for record in sent))
        expected = {
            "min": "0",
            "max": count,
            "next": count,
            "atEnd": "NO_NEW_MSG",
            "beyond": "OFFSET_ILLEGAL",
            "corrected": count,
        }
        seen = {name: queue[name] for name in expected}
        check(seen == expected, f"queue {queue['id']}: {seen} instead of {expected}")
        check(queue["first"] == "0", f"queue {queue['id']}: the offset for time 0 is {queue['first']}")
    with ctx.java("Pull", "Offsets", mode="offsets", topic=topic, group=group) as consumer:
        check(consumer.wait(60) == 0, f"reading the offsets failed (log: {consumer.log})")
        for queue in consumer.of("queue"):
            check(queue["stored"] == queue["max"], f"queue {queue['id']}: stored {queue['stored']}, stored before {queue['max']}")
