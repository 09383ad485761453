"""The published Go client."""

from .. import golang
from ..checks import acknowledged, all_of, exactly_once, intact, queue_offsets_contiguous
from ..process import check
from ..registry import Context, plain_case
from .send import bodies

GO = ("go",)


def produce(ctx: Context, action: str, topic: str, count: int, **options) -> list[dict]:
    with golang.start(golang.build(), action, ctx.work, ctx.namesrv, topic=topic, count=count, **options) as producer:
        check(producer.wait(90) == 0, f"the producer failed (log: {producer.log})")
        return acknowledged(producer)


def consume(ctx: Context, topic: str, wanted, name: str = "go-push", **options) -> list[dict]:
    with golang.start(
        golang.build(), "push", ctx.work, ctx.namesrv, name=name, topic=topic, group=f"{topic}-group", **options
    ) as consumer:
        consumer.wait_for(*all_of(wanted))
        check(consumer.finish() == 0, f"the consumer did not end cleanly (log: {consumer.log})")
        return consumer.of("got")


def round_trip(ctx: Context, action: str, count: int) -> None:
    topic = f"compat-{action}-go"
    sent = produce(ctx, action, topic, count)
    check(len(sent) == count, f"{len(sent)} of {count} sends were answered")
    queue_offsets_contiguous(sent)
    got = consume(ctx, topic, bodies(sent))
    exactly_once(sent, got)
    intact(got)


@plain_case("go/sync", GO)
def sync(ctx: Context) -> None:
    round_trip(ctx, "sync", 60 * ctx.scale)


@plain_case("go/async", GO)
def send_async(ctx: Context) -> None:
    round_trip(ctx, "async", 100 * ctx.scale)


@plain_case("go/batch", GO)
def batch(ctx: Context) -> None:
    round_trip(ctx, "batch", 100 * ctx.scale)


@plain_case("go/orderly", GO)
def orderly(ctx: Context) -> None:
    """A selector keeps each order in one queue, an orderly consumer keeps it in order."""
    topic = "compat-orderly-go"
    sent = produce(ctx, "ordered", topic, 100)
    got = consume(ctx, topic, bodies(sent), orderly="true")
    exactly_once(sent, got)
    steps: dict[str, int] = {}
    for record in got:
        order, step = record["body"].rsplit("-", 2)[1:]
        check(int(step) == steps.get(order, -1) + 1, f"order {order}: step {step} came after {steps.get(order)}")
        steps[order] = int(step)


@plain_case("go/resume", GO)
def resume(ctx: Context) -> None:
    """A second run of a group goes on where the first one stopped."""
    topic = "compat-resume-go"
    first = produce(ctx, "sync", topic, 30, prefix="first")
    got = consume(ctx, topic, bodies(first), name="go-push-1")
    second = produce(ctx, "sync", topic, 30, prefix="second")
    got += consume(ctx, topic, bodies(second), name="go-push-2")
    exactly_once(first + second, got)


@plain_case("go/admin", GO)
def admin(ctx: Context) -> None:
    """The Go admin client creates a topic, lists it, and deletes it."""
    leader = f"127.0.0.1:{ctx.cluster.ports.broker[ctx.cluster.leader()]}"
    with golang.start(golang.build(), "admin", ctx.work, ctx.namesrv, topic="compat-admin-go", broker=leader) as child:
        check(child.wait(60) == 0, f"the admin calls failed (log: {child.log})")
        steps = [record["step"] for record in child.of("admin")]
    check(steps == ["created", "listed", "deleted"], f"steps {steps}")
