"""The published mqadmin against the cluster, and ours against the same cluster with the same columns."""

import json
import re

from ..checks import exactly_once
from ..clusters import CLUSTER, GROUP
from ..paths import binaries
from ..process import check, run, wait_until
from ..registry import JAVA, Context, java_case, plain_case
from .send import bodies, consume, produce, topic_of


class Table:
    """A table as mqadmin prints it: a header line of `#Name` columns, then rows split at runs of blanks."""

    def __init__(self, printed: str):
        lines = printed.splitlines()
        start = next((n for n, line in enumerate(lines) if line.startswith("#")), None)
        check(start is not None, f"no table was printed but:\n{printed}")
        self.columns = re.split(r"\s{2,}|\s+(?=#)", lines[start].strip())
        self.rows = []
        for line in lines[start + 1 :]:
            if not line.strip():
                break
            # Against a newer broker of the original, clusterList of 4.9 prints a stack trace before each row.
            if not line.startswith(("\tat ", "java.lang.")):
                self.rows.append(line.split())


def cluster_list(ctx: Context, admin) -> None:
    printed = admin("clusterList")
    # A newer broker of the original does not have the figure under the name that 4.9 reads.
    check(ctx.cluster.kind == "stock" or "Exception" not in printed, f"clusterList printed:\n{printed[:400]}")
    table = Table(printed)
    check(table.columns[:5] == ["#Cluster Name", "#Broker Name", "#BID", "#Addr", "#Version"], f"columns {table.columns}")
    check(len(table.rows) == 3, f"clusterList has {len(table.rows)} rows")
    check([row[:2] for row in table.rows] == [[CLUSTER, GROUP]] * 3, f"rows {table.rows}")
    check(table.rows[0][2] == "0", f"the first row is not the leader's: {table.rows[0]}")
    addresses = {row[3] for row in table.rows}
    check(addresses == {f"127.0.0.1:{port}" for port in ctx.cluster.ports.broker.values()}, f"addresses {addresses}")
    for row in table.rows:
        check(re.fullmatch(r"V\d_\d+_\d+(_SNAPSHOT)?", row[4]), f"version {row[4]!r}")
        check(re.fullmatch(r"[\d.]+\(\d+,\d+ms\)", row[5]), f"InTPS {row[5]!r}")


def topic_route(admin, topic: str, queues: int) -> None:
    route = as_json(admin("topicRoute", "-t", topic))
    (broker,) = route["brokerDatas"]
    check(broker["brokerName"] == GROUP and broker["cluster"] == CLUSTER, f"broker {broker}")
    check("0" in broker["brokerAddrs"] and len(broker["brokerAddrs"]) == 3, f"addresses {broker['brokerAddrs']}")
    (data,) = route["queueDatas"]
    seen = (data["readQueueNums"], data["writeQueueNums"], data["perm"])
    check(seen == (queues, queues, 6), f"queues and perm are {seen}")


def topic_status(admin, topic: str, queues: int, messages: int) -> None:
    table = Table(admin("topicStatus", "-t", topic))
    expected = ["#Broker Name", "#QID", "#Min Offset", "#Max Offset", "#Last Updated"]
    check(table.columns == expected, f"columns {table.columns}")
    check([row[1] for row in table.rows] == [str(n) for n in range(queues)], f"rows {table.rows}")
    total = sum(int(row[3]) - int(row[2]) for row in table.rows)
    check(total == messages, f"topicStatus counts {total} messages, {messages} were sent")
    for row in table.rows:
        if row[3] != "0":
            check(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", " ".join(row[4:6])), f"last updated: {row[4:]}")


def consumer_progress(admin, topic: str, group: str, messages: int) -> None:
    printed = admin("consumerProgress", "-g", group)
    table = Table(printed)
    check(
        table.columns[:5] == ["#Topic", "#Broker Name", "#QID", "#Broker Offset", "#Consumer Offset"], f"columns {table.columns}"
    )
    rows = [row for row in table.rows if row[0] == topic]
    check(sum(int(row[3]) for row in rows) == messages, f"broker offsets in {rows}")
    check(sum(int(row[4]) for row in rows) == messages, f"consumer offsets in {rows}")
    check(re.search(r"Diff Total: 0\b", printed), f"no zero total in:\n{printed}")


@java_case("mqadmin")
def mqadmin(ctx: Context) -> None:
    """clusterList, updateTopic, topicList, topicRoute, topicStatus, consumerProgress, brokerStatus, deleteTopic."""
    with ctx.jars.mqadmin(ctx.work, ctx.namesrv) as admin:
        every_command(ctx, admin)


def every_command(ctx: Context, admin) -> None:
    topic, queues, count = topic_of(ctx, "admin"), 6, 30
    group = f"{topic}-group"
    cluster_list(ctx, admin)
    printed = admin("updateTopic", "-c", CLUSTER, "-t", topic, "-r", str(queues), "-w", str(queues))
    check(re.search(r"^create topic to 127\.0\.0\.1:\d+ success\.$", printed, re.M), f"updateTopic printed:\n{printed}")
    check(
        f"topicName={topic}, readQueueNums={queues}, writeQueueNums={queues}, perm=RW-" in printed,
        f"updateTopic printed:\n{printed}",
    )
    check(topic in admin("topicList").splitlines(), "topicList does not have the new topic")
    topic_route(admin, topic, queues)
    topic_status(admin, topic, queues, 0)
    sent = produce(ctx, "sync", topic, count)
    topic_status(admin, topic, queues, count)
    exactly_once(sent, consume(ctx, topic, bodies(sent), group=group))
    consumer_progress(admin, topic, group, count)
    with ctx.java("Push", "Push-online", topic=topic, group=group, instance="online") as consumer:
        consumer.wait_for(lambda c: c.of("queues"), 30, "the consumer to be given queues")
        rows = [row for row in Table(admin("consumerProgress")).rows if row[0] == group]
        check(len(rows) == 1 and rows[0][1] == "1", f"the running group is shown as {rows}")
        consumer.finish()
    leader = f"127.0.0.1:{ctx.cluster.ports.broker[ctx.cluster.leader()]}"
    printed = admin("brokerStatus", "-b", leader)
    for key in ("brokerVersionDesc", "bootTimestamp", "runtime", "msgPutTotalTodayNow", "commitLogMaxOffset"):
        check(re.search(rf"^{key}\s+: \S", printed, re.M), f"brokerStatus has no {key}:\n{printed[:1500]}")
    printed = admin("deleteTopic", "-c", CLUSTER, "-t", topic)
    check(f"delete topic [{topic}] from cluster [{CLUSTER}] success." in printed, f"deleteTopic printed:\n{printed}")
    check(f"delete topic [{topic}] from NameServer success." in printed, f"deleteTopic printed:\n{printed}")
    wait_until(lambda: topic not in admin("topicList").splitlines(), 20, "topicList to be without the deleted topic")


@plain_case("tools/our-mqadmin", JAVA)
def our_mqadmin(ctx: Context) -> None:
    """Our mqadmin prints what the newest published one prints of the same cluster, column for column and row for row."""
    topic = topic_of(ctx, "columns")
    sent = produce(ctx, "sync", topic, 20)
    exactly_once(sent, consume(ctx, topic, bodies(sent)))
    with ctx.jars.mqadmin(ctx.work, ctx.namesrv) as admin:
        # Rates and times differ from call to call; everything else must not.
        for command, stable in (
            (["clusterList"], 5),
            (["topicStatus", "-t", topic], 6),
            (["consumerProgress", "-g", f"{topic}-group"], 5),
        ):
            same_table(command[0], Table(ours_printed(ctx, command)), Table(admin(*command)), stable)
        route = ["topicRoute", "-t", topic]
        mine, original = as_json(ours_printed(ctx, route)), as_json(admin(*route))
        check(mine == original, f"topicRoute: {mine} instead of {original}")
        mine, original = (set(printed.split()) for printed in (ours_printed(ctx, ["topicList"]), admin("topicList")))
        check(mine == original, f"topicList: {mine ^ original} are not in both")


def same_table(command: str, ours: Table, theirs: Table, stable: int) -> None:
    check(ours.columns == theirs.columns, f"{command}: columns {ours.columns} instead of {theirs.columns}")
    mine, original = ([row[:stable] for row in table.rows] for table in (ours, theirs))
    check(mine == original, f"{command}: rows {mine} instead of {original}")


def as_json(printed: str) -> dict:
    """JSON in which fastjson left numeric keys without quotes."""
    return json.loads(re.sub(r"([{,]\s*)(\d+):", r'\1"\2":', printed))


def ours_printed(ctx: Context, command: list[str]) -> str:
    done = run([binaries() / "mqadmin", *command, "-n", ctx.namesrv], seconds=20)
    check(done.returncode == 0, f"our mqadmin {command[0]} exited with {done.returncode}:\n{done.stdout}")
    return done.stdout
