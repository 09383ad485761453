"""The deploy scripts: what an operator types, and what is said in return."""

import contextlib
import json
import os
import re
import shutil
import time

from .. import remoting
from ..clusters import GROUP, MEMBERS, OurCluster
from ..java import all_versions
from ..paths import PROJECT
from ..process import Child, Failure, check, free_port_base, run, wait_until
from ..registry import JAVA, Context, plain_case

BIN = PROJECT / "deploy" / "bin"
# Who prefers to lead which group, of as many groups as members.
PREFERRED = {f"RaftNode0{number}": member for number, member in enumerate(MEMBERS)}


def call(cluster: OurCluster, *words, expect: int = 0) -> str:
    done = run([BIN / "fast-try.sh", *words, "--dir", cluster.folder], seconds=120)
    check(done.returncode == expect, f"fast-try.sh {' '.join(map(str, words))} exited with {done.returncode}:\n{done.stdout}")
    return done.stdout


@plain_case("deploy/fast-try", shared=False, only="ours")
def fast_try(ctx: Context) -> None:
    """start, status, quickstart, kill-leader, kill by port, restart, stop; twice where once must be enough."""
    cluster = OurCluster(ctx.work / "cluster")
    try:
        started = time.monotonic()
        call(cluster, "start", "--no-leader-endpoint", "--port-base", cluster.ports.base)
        seconds = time.monotonic() - started
        check(seconds < 10, f"the start took {seconds:.1f} s")
        check("runs already" in call(cluster, "start"), "a second start did not see that all runs")
        status = call(cluster, "status")
        check(len(re.findall(rf"^RaftCluster +{GROUP} +\d", status, re.M)) == 3, f"status printed:\n{status}")
        check(call(cluster, "quickstart").count("SEND_OK") == 1000, "quickstart did not send 1,000 messages")
        leader = cluster.leader()
        killed = call(cluster, "kill-leader")
        check(re.search(rf"killed {leader} \(port \d+, pid \d+\) at \d{{13}} ms", killed), f"kill-leader printed: {killed}")
        wait_until(lambda: cluster.leader() not in (None, leader), 10, "another member to lead")
        check("does not run" in call(cluster, "kill", leader, expect=1), "a dead member was killed again")
        call(cluster, "restart", leader)
        cluster.wait_ready(10)
        call(cluster, "quickstart")
        follower = next(member for member in MEMBERS if member != cluster.leader())
        check(f"killed {follower} " in call(cluster, "kill", str(cluster.ports.broker[follower])), "kill by port")
        call(cluster, "restart", str(cluster.ports.broker[follower]))
        check("is no member" in call(cluster, "kill", "n7", expect=1), "n7 was taken for a member")
        call(cluster, "explode", expect=1)
    finally:
        call(cluster, "stop")
    call(cluster, "stop")
    check(not remoting.members(cluster.namesrv, GROUP), "something still answers after stop")


@plain_case("deploy/two-clusters", shared=False, only="ours")
def two_clusters(ctx: Context) -> None:
    """Two clusters run side by side, and settings reach the brokers."""
    with OurCluster(ctx.work / "a") as first, OurCluster(ctx.work / "b", settings=("autoCreateTopicEnable=false",)) as second:
        check(first.leader() and second.leader(), "both have a leader")
        conf = (second.folder / "conf" / "n1.conf").read_text(encoding="utf-8")
        check("autoCreateTopicEnable=false" in conf, "the setting is in the conf")
        done = run([BIN / "mqadmin", "topicList", "-n", second.namesrv])
        check(done.returncode == 0, f"mqadmin exited with {done.returncode}:\n{done.stdout}")


@plain_case("deploy/groups", JAVA, shared=False, only="ours")
def groups(ctx: Context) -> None:
    """Three groups in three processes, each led by the process that prefers it. A producer's default retries hide the death of
    any leader, without a leader endpoint too, and a restart of one process after the other."""
    for jars in all_versions():
        for options in (["--no-leader-endpoint"], []):
            by_route = bool(options)
            jars.fetch()
            folder = ctx.work / f"{jars.version}{''.join(options)}"
            cluster = OurCluster(folder / "cluster", base=free_port_base(range(0, 350)))
            try:
                started = call(cluster, "start", "--port-base", cluster.ports.base, "--groups", 3, *options)
                for group, member in PREFERRED.items():
                    check(f"{group} is led by {member}" in started, f"start printed:\n{started}")
                require_preferred(cluster, 0)
                kill_each_leader(cluster, jars, folder, by_route)
                # Told to stop, a process goes on for whoever still has an older route: half a minute, without the endpoint.
                if not jars.version.startswith("4.") and (ctx.scale > 1 or not by_route):
                    restart_each(cluster, jars, folder)
            finally:
                call(cluster, "stop")
            require_groups_named(cluster)


def status(cluster: OurCluster, group: str) -> list[dict]:
    """The members of a group and how far each is; none while nobody can be asked."""
    done = run([BIN / "mqadmin", "memberStatus", "-n", cluster.namesrv, "-g", group, "--json"])
    return json.loads(done.stdout)["members"] if done.returncode == 0 else []


def leading(cluster: OurCluster, group: str) -> str | None:
    """The member of a group that says it leads, whatever address the nameserver has of it."""
    return next((f"n{member['id']}" for member in status(cluster, group) if member["role"] == "leader"), None)


def require_preferred(cluster: OurCluster, seconds: float) -> None:
    """Each group is led by the member that prefers to, within `seconds`."""

    def leaders():
        return {group: leading(cluster, group) for group in PREFERRED}

    with contextlib.suppress(Failure):
        wait_until(lambda: leaders() == PREFERRED, seconds, "the preferred leaders")
    found = leaders()
    check(found == PREFERRED, f"within {seconds:g} s the groups are led by {found}")


def spread(cluster: OurCluster, jars, folder, name: str) -> Child:
    """A producer with the client's own defaults, which the driver has others of. The first one's topic is made in every group."""
    options = {"mode": "loop", "topic": "Spread", "count": 0, "pause": 1, "timeout": 3000, "retries": 2, "prefix": name}
    arguments = [part for option, value in options.items() for part in (f"--{option}", str(value))]
    return jars.start("Produce", arguments, folder, cluster.namesrv, name)


def more_sends(producer: Child, count: int, when: str) -> None:
    seen = len(producer.of("sent"))
    producer.wait_for(lambda p: len(p.of("sent")) >= seen + count, 30, f"{count} sends {when}")


def longest_gap(sent: list[dict], since: int) -> int:
    """The longest time, in ms, between two acknowledged sends of which the later came after the time `since`."""
    times = [int(record["at"]) for record in sent]
    return max((later - earlier for earlier, later in zip(times, times[1:]) if later > since), default=0)


def kill_each_leader(cluster: OurCluster, jars, folder, by_route: bool) -> None:
    with spread(cluster, jars, folder, "Produce") as producer:
        for group in PREFERRED:
            more_sends(producer, 300, "before the kill")
            killed = re.search(r"killed (n\d)", call(cluster, "kill-leader", group)).group(1)
            seen = len(producer.of("sent"))

            def goes_on(child, seen=seen, group=group):
                # By its route a client finds the group again within 30 s; until then the others take its sends.
                sent = child.of("sent")[seen:]
                return len(sent) >= 600 if by_route else sum(record["broker"] == group for record in sent) >= 50

            producer.wait_for(goes_on, 30, f"sends after the death of {group}'s leader")
            call(cluster, "restart", killed)
            require_preferred(cluster, 10)
        check(producer.finish() == 0, f"the producer failed (log: {producer.log})")
        failed = producer.of("failed")
        if not jars.version.startswith("4."):
            check(not failed, f"{len(failed)} sends failed, the first: {failed[:1]}")
        # A 4.x client does not notice that a connection has closed: a send that was under way on it waits its whole time out.
        check(len(failed) <= 3, f"{len(failed)} sends failed, for three deaths: {failed}")
        sent = producer.of("sent")
    by_group = {group: sum(record["broker"] == group for record in sent) for group in PREFERRED}
    print(f"      {jars.version}: {len(sent)} sends, {len(failed)} failed, three leaders killed; by group {by_group}", flush=True)
    check(min(by_group.values()) > len(sent) / 10, f"sends are spread {by_group}")


def restart_each(cluster: OurCluster, jars, folder) -> None:
    """SIGTERM to one process after the other, each of which is started again, costs no send."""
    gaps = []
    with spread(cluster, jars, folder, "Produce-rolling") as producer:
        for member in MEMBERS:
            more_sends(producer, 300, f"before {member} is told to stop")
            told = int(time.time() * 1000)
            said = call(cluster, "restart", member)
            check("kill -9" not in said, f"{member} did not stop by itself:\n{said}")
            require_preferred(cluster, 10)
            gaps.append(longest_gap(producer.of("sent"), told))
        more_sends(producer, 300, "after all were restarted")
        check(producer.finish() == 0, f"the producer failed (log: {producer.log})")
        sent, failed = producer.of("sent"), producer.of("failed")
    print(f"      {jars.version}: {len(sent)} sends, {len(failed)} failed, three restarts; longest gaps {gaps} ms", flush=True)
    check(not failed, f"{len(failed)} sends failed, the first: {failed[:1]}")


def require_groups_named(cluster: OurCluster) -> None:
    """Whatever a process with several members logs says which group it is about; what it says of its confs names the file."""
    for number in range(len(MEMBERS)):
        logs = sorted((cluster.folder / "logs" / f"node0{number}").glob("broker.*.log"))
        lines = [line for log in logs for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
        check(lines, f"n{number} has logged nothing")
        conf = re.compile(rf" {re.escape(str(cluster.folder))}/conf/n{number}(-g\d)?\.conf: ")
        nameless = [line for line in lines if not re.search(r"\bgroup=\"?RaftNode0\d", line) and not conf.search(line)]
        first = "\n".join(nameless[:5])
        check(not nameless, f"{len(nameless)} of {len(lines)} lines of n{number} name no group, the first:\n{first}")


@plain_case("deploy/endpoint", JAVA, shared=False, only="ours")
def endpoint(ctx: Context) -> None:
    """One group as fast-try.sh starts it: five kills of the leader are hidden by a producer's default retries."""
    for jars in all_versions():
        jars.fetch()
        folder = ctx.work / jars.version
        cluster = OurCluster(folder / "cluster")
        try:
            call(cluster, "start", "--port-base", cluster.ports.base)
            kill_the_leader(cluster, jars, folder)
        finally:
            call(cluster, "stop")


def all_close(cluster: OurCluster) -> bool:
    """Whether all members of the one group are there and lack nothing but what is on its way."""
    members = status(cluster, GROUP)
    return len(members) == len(MEMBERS) and all(m["answers"] and not m["recovering"] and m["lagEntries"] < 50 for m in members)


def kill_the_leader(cluster: OurCluster, jars, folder) -> None:
    kills = 5
    times = []
    with spread(cluster, jars, folder, "Produce") as producer:
        for _ in range(kills):
            more_sends(producer, 300, "before the kill")
            name, at = re.search(r"killed (n\d) .* at (\d+) ms", call(cluster, "kill-leader")).groups()
            times.append(int(at))
            more_sends(producer, 300, f"after the death of {name}")
            call(cluster, "restart", name)
            wait_until(lambda: all_close(cluster), 10, f"{name} to catch up")
        check(producer.finish() == 0, f"the producer failed (log: {producer.log})")
        sent, failed = producer.of("sent"), producer.of("failed")
    ends = [*times[1:], int(sent[-1]["at"]) + 1]
    gaps = [
        longest_gap([record for record in sent if int(record["at"]) < end], killed) for killed, end in zip(times, ends)
    ]
    print(f"      {jars.version}: {len(sent)} sends, {len(failed)} failed, {kills} kills; longest gaps {gaps} ms", flush=True)
    check(max(gaps) < 5000, f"the longest times without an acknowledgement are {gaps} ms; failed: {failed[:3]}")
    if not jars.version.startswith("4."):
        check(not failed, f"{len(failed)} of {len(sent) + len(failed)} sends failed, the first: {failed[:1]}")
    # As with several groups.
    check(len(failed) <= kills, f"{len(failed)} sends failed, for {kills} deaths: {failed}")


@plain_case("deploy/mqshutdown", shared=False, only="ours")
def mqshutdown(ctx: Context) -> None:
    """mqshutdown's call forms and texts, in a process namespace of its own: it ends every broker that it can see."""
    usage = run([BIN / "mqshutdown"])
    check(usage.stdout.startswith("Usage: mqshutdown broker | namesrv"), f"usage: {usage.stdout}")
    if os.geteuid() != 0 or not shutil.which("unshare"):
        print("      (needs root for a namespace: only the usage was checked)", flush=True)
        return
    cluster = OurCluster(ctx.work / "cluster")
    script = f"""
        {BIN}/mqshutdown broker
        {BIN}/fast-try.sh start --dir {cluster.folder} --port-base {cluster.ports.base} >/dev/null || exit 1
        {BIN}/mqshutdown broker
        {BIN}/mqshutdown namesrv
        for n in $(seq 200); do pgrep -x 'mqbroker|mqnamesrv' >/dev/null || exit 0; sleep 0.1; done
        exit 1
    """
    done = run(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c", script], seconds=90)
    check(done.returncode == 0, f"not everything ended:\n{done.stdout}")
    for line in (
        r"No mqbroker running\.",
        r"The mqbroker\(\d+ \d+ \d+\) is running\.\.\.",
        r"Send shutdown request to mqbroker\(\d+ \d+ \d+\) OK",
        r"The mqnamesrv\(\d+\) is running\.\.\.",
        r"Send shutdown request to mqnamesrv\(\d+\) OK",
    ):
        check(re.search(rf"^{line}$", done.stdout, re.M), f"no line {line} in:\n{done.stdout}")
