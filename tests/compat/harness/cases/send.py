"""The ways to send, each read back by a push consumer."""

from ..checks import acknowledged, all_of, exactly_once, in_queue_order, intact, queue_offsets_contiguous
from ..process import check
from ..registry import Context, java_case


def topic_of(ctx: Context, name: str) -> str:
    """A topic of the case's own: nothing else ever writes to it."""
    version = ctx.jars.version.replace(".", "_") if ctx.jars else "go"
    return f"compat-{name}-{version}"


def produce(ctx: Context, mode: str, topic: str, count: int, name: str = "Produce", **options) -> list[dict]:
    """Runs the producer driver to its end and returns what was acknowledged."""
    with ctx.java("Produce", name, mode=mode, topic=topic, count=count, **options) as producer:
        status = producer.wait(60 + count / 20)
        check(status == 0, f"the producer exited with {status} (log: {producer.log})")
        return acknowledged(producer)


def consume(ctx: Context, topic: str, bodies, name: str = "Push", **options) -> list[dict]:
    """Runs a push consumer until it has received `bodies`, ends it cleanly, returns all that it got."""
    options.setdefault("group", f"{topic}-group")
    with ctx.java("Push", name, topic=topic, instance=name, **options) as consumer:
        consumer.wait_for(*all_of(bodies))
        check(consumer.finish() == 0, f"the consumer did not end cleanly (log: {consumer.log})")
        return consumer.of("got")


def bodies(sent: list[dict]) -> list[str]:
    return [record["body"] for record in sent]


def round_trip(ctx: Context, mode: str, count: int, **options) -> None:
    topic = topic_of(ctx, mode)
    sent = produce(ctx, mode, topic, count, **options)
    check(len(sent) == count, f"{len(sent)} of {count} sends were answered")
    queue_offsets_contiguous(sent)
    got = consume(ctx, topic, bodies(sent))
    exactly_once(sent, got)
    intact(got)


@java_case("sync")
def sync(ctx: Context) -> None:
    round_trip(ctx, "sync", 60 * ctx.scale)


@java_case("async")
def send_async(ctx: Context) -> None:
    round_trip(ctx, "async", 200 * ctx.scale)


@java_case("batch")
def batch(ctx: Context) -> None:
    round_trip(ctx, "batch", 205 * ctx.scale, batch=10)


@java_case("oneway")
def oneway(ctx: Context) -> None:
    topic = topic_of(ctx, "oneway")
    count = 100 * ctx.scale
    with ctx.java("Produce", mode="oneway", topic=topic, count=count) as producer:
        check(producer.wait(60) == 0, f"the producer failed (log: {producer.log})")
        sent = producer.of("thrown") + acknowledged(producer)
    check(len(sent) == count + 1, f"{len(sent)} of {count + 1} sends were made")
    got = consume(ctx, topic, bodies(sent))
    exactly_once(sent, got)


@java_case("ordered")
def ordered(ctx: Context) -> None:
    """Orders picked to queues by a selector stay in their order, through an orderly consumer."""
    topic = topic_of(ctx, "ordered")
    sent = produce(ctx, "selector", topic, 200 * ctx.scale, orders=10)
    queue_offsets_contiguous(sent)
    got = consume(ctx, topic, bodies(sent), orderly="true")
    exactly_once(sent, got)
    in_queue_order(got)
    steps: dict[str, int] = {}
    for record in got:
        order, step = record["body"].rsplit("-", 2)[1:]
        check(int(step) == steps.get(order, -1) + 1, f"order {order}: step {step} came after {steps.get(order)}")
        steps[order] = int(step)


@java_case("size-limits")
def size_limits(ctx: Context) -> None:
    """A body of exactly maxMessageSize passes, one byte more is refused by the broker with MESSAGE_ILLEGAL (13)."""
    topic = topic_of(ctx, "size")
    limit = 4 * 1024 * 1024
    sizes = [1, 64 * 1024, 1024 * 1024]
    # The original's DLedger mode cannot take a body of the size that its own configuration allows.
    if ctx.cluster.kind != "stock":
        sizes.append(limit)
    sent = []
    for size in sizes:
        sent += produce(ctx, "size", topic, 1, name=f"Produce-{size}", bytes=size)
    sent += produce(ctx, "size", topic, 1, name="Produce-compressed", bytes=300_000, compress="true")
    with ctx.java("Produce", "Produce-over", mode="size", topic=topic, bytes=limit + 1, retries=0) as producer:
        producer.wait(60)
        failed = producer.of("failed")
    check(len(failed) == 1 and failed[0]["code"] == "13", f"{limit + 1} bytes: {failed or 'was acknowledged'}")
    large = [record for record in sent if int(record["body"].split(":")[0]) >= 64 * 1024]
    got = consume(ctx, topic, bodies(large))
    check({record["body"] for record in large} <= {record["body"] for record in got}, "a large body came back changed")
    check(len(got) == len(sent), f"{len(sent)} messages were sent, {len(got)} received")
