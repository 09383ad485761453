"""The original's quickstart pair, straight from the example jar."""

import re

from ..process import Child, check
from ..registry import Context, java_case

COUNT = 1000
PRODUCER = "org.apache.rocketmq.example.quickstart.Producer"
CONSUMER = "org.apache.rocketmq.example.quickstart.Consumer"


def printed(child: Child) -> str:
    return child.log.read_text(encoding="utf-8", errors="replace") if child.log.exists() else ""


def received(consumer: Child) -> list[str]:
    """Message ids in the consumer's output, in the order in which they came."""
    lines = [line for line in printed(consumer).splitlines() if "Receive New Messages" in line]
    return [found for line in lines for found in re.findall(r"\bmsgId=([0-9A-F]+)", line)]


def quickstart(ctx: Context, namesrv: str) -> None:
    """Sends 1,000 messages with the example producer and receives each once with the example consumer."""
    with ctx.jars.start(PRODUCER, [], ctx.work, namesrv) as producer:
        check(producer.wait(180) == 0, f"the example producer failed (log: {producer.log})")
        results = [line for line in printed(producer).splitlines() if line.startswith("SendResult")]
    check(len(results) == COUNT, f"{len(results)} of {COUNT} sends were answered (log: {producer.log})")
    check(all("sendStatus=SEND_OK" in line for line in results), f"not every send was SEND_OK (log: {producer.log})")
    sent = {re.search(r"offsetMsgId=([0-9A-F]+)", line)[1] for line in results}
    check(len(sent) == COUNT, f"{COUNT} messages have {len(sent)} different ids")
    with ctx.jars.start(CONSUMER, [], ctx.work, namesrv) as consumer:
        consumer.wait_for(lambda c: sent <= set(received(c)), 90, f"{COUNT} messages to be received")
        # The other version's run shares topic and group, and the example never commits on its way out: only ours count.
        ours = [found for found in received(consumer) if found in sent]
        check(len(ours) == COUNT, f"{len(ours) - COUNT} messages were received more than once")


@java_case("quickstart")
def example_pair(ctx: Context) -> None:
    quickstart(ctx, ctx.namesrv)
