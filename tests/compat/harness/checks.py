"""What must hold between what was acknowledged and what was received."""

from collections import Counter, defaultdict

from .process import Child, check


def acknowledged(producer: Child) -> list[dict]:
    """The `@sent` records of a producer that must have failed nothing."""
    failed = producer.of("failed")
    check(not failed, f"{len(failed)} sends failed, the first: {failed[0] if failed else ''}")
    sent = producer.of("sent")
    check(all(record["status"] == "SEND_OK" for record in sent), f"statuses: {Counter(record['status'] for record in sent)}")
    return sent


def queue_offsets_contiguous(sent: list[dict]) -> None:
    """A topic that only this producer wrote to has offsets 0, 1, 2, … in every queue, each given out once."""
    by_queue = defaultdict(list)
    for record in sent:
        by_queue[record["queue"]].append(int(record["offset"]))
    for queue, offsets in by_queue.items():
        check(sorted(offsets) == list(range(len(offsets))), f"queue {queue} acknowledged the offsets {sorted(offsets)}")


def all_of(bodies, seconds: float = 40):
    """A condition for `Child.wait_for`: every one of `bodies` was received."""
    wanted = set(bodies)
    return (
        lambda consumer: wanted <= {record["body"] for record in consumer.of("got")},
        seconds,
        f"{len(wanted)} messages to be received",
    )


def exactly_once(sent: list[dict], got: list[dict]) -> None:
    """Every acknowledged message was received once, nothing else was, and place and ids are those acknowledged."""
    seen = Counter(record["body"] for record in got)
    acked = {record["body"]: record for record in sent}
    missing = [body for body in acked if body not in seen]
    check(not missing, f"{len(missing)} of {len(acked)} acknowledged messages were not received, e.g. {missing[:3]}")
    strange = [body for body in seen if body not in acked]
    check(not strange, f"{len(strange)} messages were received that nobody sent, e.g. {strange[:3]}")
    repeated = [body for body, times in seen.items() if times > 1]
    check(not repeated, f"{len(repeated)} messages were received more than once, e.g. {repeated[:3]}")
    for record in got:
        same_place(acked[record["body"]], record)


def same_place(sent: dict, got: dict) -> None:
    """Queue, offset and both ids of a received message are those that its producer was told."""
    for field in ("queue", "offset", "id", "offsetId", "broker"):
        if sent.get(field) and got.get(field):
            check(
                sent[field] == got[field], f"{got['body']}: {field} was acknowledged as {sent[field]}, received as {got[field]}"
            )


def in_queue_order(got: list[dict]) -> None:
    """Within each queue, messages arrived by ascending offset."""
    last: dict[str, int] = {}
    for record in got:
        offset = int(record["offset"])
        before = last.get(record["queue"], -1)
        check(offset > before, f"queue {record['queue']}: offset {offset} came after {before}")
        last[record["queue"]] = offset


def intact(got: list[dict]) -> None:
    """Keys, tags and user properties, ASCII or not, came through."""
    for record in got:
        number = record["number"]
        check(record["text"] == f"größe 漢字 {number}", f"{record['body']}: property text arrived as {record['text']!r}")
        check(record["tags"] == f"Tag{int(number) % 3}", f"{record['body']}: tags arrived as {record['tags']!r}")
        check(record["keys"] == record["body"], f"{record['body']}: keys arrived as {record['keys']!r}")
