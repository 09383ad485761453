"""Single messages: found by key, unique key, id and offset, with the published mqadmin and with ours."""

import re

from ..clusters import GROUP
from ..process import check
from ..registry import JAVA, Context, java_case, plain_case
from .admin import Table, ours_printed
from .send import produce, topic_of

# What queryMsgById prints of a message, and no two runs agree on.
LABELS = ("OffsetID", "Topic", "Tags", "Keys", "Queue ID", "Queue Offset", "CommitLog Offset", "Reconsume Times")
LABELS += ("Born Timestamp", "Store Timestamp", "Born Host", "Store Host", "System Flag", "Properties", "Message Body Path")


def fields(printed: str) -> dict[str, str]:
    """The `Label:   value` lines of one message."""
    found = re.findall(r"^([A-Z][A-Za-z ]+): +(.*)$", printed, re.M)
    return {label: value.strip() for label, value in found if label in LABELS}


def properties(text: str) -> set[str]:
    """Java prints a map in the order of its hashes."""
    return set(text.strip("{}").split(", "))


def message_is(printed: str, sent: dict, has_id: bool) -> dict[str, str]:
    seen = fields(printed)
    for label, key in (("Queue ID", "queue"), ("Queue Offset", "offset")):
        check(seen.get(label) == str(sent[key]), f"{label} of {sent} is shown as:\n{printed}")
    check(seen.get("Keys") == f"[{sent['body']}]", f"keys of {sent} are shown as:\n{printed}")
    check(not has_id or seen.get("OffsetID") == sent["offsetId"], f"id of {sent} is shown as:\n{printed}")
    with open(seen["Message Body Path"], encoding="utf-8") as body:
        check(body.read() == sent["body"], f"the body of {sent} is another")
    return seen


def every_query(ctx: Context, topic: str, sent: dict) -> list[tuple[list[str], bool]]:
    """Commands that find this message, and whether they print its offset message id."""
    offset = ["queryMsgByOffset", "-t", topic, "-b", GROUP, "-i", str(sent["queue"]), "-o", str(sent["offset"])]
    commands = [(["queryMsgByUniqueKey", "-t", topic, "-i", sent["id"]], False), (offset, True)]
    if ctx.jars.version.startswith("4."):
        # It takes no topic, and so no unique key.
        return [*commands, (["queryMsgById", "-i", sent["offsetId"]], True)]
    by_id = [(["queryMsgById", "-t", topic, "-i", sent[key]], True) for key in ("offsetId", "id")]
    return [*commands, *by_id]


@java_case("lookup")
def lookup(ctx: Context) -> None:
    """queryMsgByKey, queryMsgByUniqueKey, queryMsgById, queryMsgByOffset; cleanExpiredCQ and its like."""
    topic = topic_of(ctx, "lookup")
    sent = produce(ctx, "sync", topic, 12)
    with ctx.jars.mqadmin(ctx.work, ctx.namesrv) as admin:
        # Only one: in one process, queryMsgByUniqueKey of the original works once.
        record = sent[-1]
        # The newest tools add a column for an index that is not ours.
        rows = [row[:3] for row in Table(admin("queryMsgByKey", "-t", topic, "-k", record["body"])).rows]
        check(rows == [[record["id"], str(record["queue"]), str(record["offset"])]], f"queryMsgByKey: {rows} for {record}")
        for command, has_id in every_query(ctx, topic, record):
            message_is(admin(*command), record, has_id)
        unknown = admin("queryMsgByKey", "-t", topic, "-k", "no-such-key")
        check("no message" in unknown, f"a key that no message has: {unknown[:500]}")
        if not ctx.jars.version.startswith("4."):
            early = admin("queryMsgByKey", "-t", topic, "-k", sent[0]["body"], "-e", "1000")
            check("no message" in early, f"a time before all messages: {early[:500]}")
        for command in ("cleanExpiredCQ", "cleanUnusedTopic", "deleteExpiredCommitLog"):
            printed = admin(command)
            check(printed == "success", f"{command} printed {printed!r}")


@plain_case("tools/our-lookup", JAVA)
def our_lookup(ctx: Context) -> None:
    """Ours prints of a message what the newest published one prints."""
    topic = topic_of(ctx, "our-lookup")
    sent = produce(ctx, "sync", topic, 4)[2]
    with ctx.jars.mqadmin(ctx.work, ctx.namesrv) as admin:
        by_key = ["queryMsgByKey", "-t", topic, "-k", sent["body"]]
        ours, theirs = Table(ours_printed(ctx, by_key)), Table(admin(*by_key))
        check(ours.columns == theirs.columns[:3], f"{ours.columns} instead of {theirs.columns}")
        check(ours.rows == [row[:3] for row in theirs.rows], f"{ours.rows} instead of {theirs.rows}")
        for command, has_id in every_query(ctx, topic, sent):
            ours = message_is(ours_printed(ctx, command), sent, has_id)
            theirs = message_is(admin(*command), sent, has_id)
            check(properties(ours.pop("Properties")) == properties(theirs.pop("Properties")), f"{command}: properties differ")
            check(ours == theirs, f"{command}: {ours} instead of {theirs}")
        for command in ("cleanExpiredCQ", "cleanUnusedTopic", "deleteExpiredCommitLog"):
            check(ours_printed(ctx, [command]).strip() == "success", f"our {command}")
