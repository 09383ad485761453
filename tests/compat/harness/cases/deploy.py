"""The deploy scripts: what an operator types, and what is said in return."""

import os
import re
import shutil
import time

from .. import remoting
from ..clusters import GROUP, MEMBERS, OurCluster
from ..java import all_versions
from ..paths import PROJECT
from ..process import check, free_port_base, run, wait_until
from ..registry import JAVA, Context, plain_case

BIN = PROJECT / "deploy" / "bin"


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
    """Three groups in three processes: a producer's default retries hide the death of any leader, without a leader endpoint too."""
    for jars in all_versions():
        for options in (["--no-leader-endpoint"], []):
            by_route = bool(options)
            jars.fetch()
            folder = ctx.work / f"{jars.version}{''.join(options)}"
            cluster = OurCluster(folder / "cluster", base=free_port_base(range(0, 350)))
            try:
                call(cluster, "start", "--port-base", cluster.ports.base, "--groups", 3, *options)
                kill_each_leader(cluster, jars, folder, by_route)
            finally:
                call(cluster, "stop")


def kill_each_leader(cluster: OurCluster, jars, folder, by_route: bool) -> None:
    # The client's own defaults, which the driver has others of. The topic does not exist: it is made in every group.
    options = {"mode": "loop", "topic": "Spread", "count": 0, "pause": 1, "timeout": 3000, "retries": 2}
    arguments = [part for option, value in options.items() for part in (f"--{option}", str(value))]
    with jars.start("Produce", arguments, folder, cluster.namesrv) as producer:
        for number in range(3):
            group = f"RaftNode0{number}"
            seen = len(producer.of("sent"))
            producer.wait_for(lambda p, seen=seen: len(p.of("sent")) >= seen + 300, 30, "sends before the kill")
            killed = re.search(r"killed (n\d)", call(cluster, "kill-leader", group)).group(1)
            seen = len(producer.of("sent"))

            def goes_on(child, seen=seen, group=group):
                # By its route a client finds the group again within 30 s; until then the others take its sends.
                sent = child.of("sent")[seen:]
                return len(sent) >= 600 if by_route else sum(record["broker"] == group for record in sent) >= 50

            producer.wait_for(goes_on, 30, f"sends after the death of {group}'s leader")
            call(cluster, "restart", killed)
        check(producer.finish() == 0, f"the producer failed (log: {producer.log})")
        failed = producer.of("failed")
        if not jars.version.startswith("4."):
            check(not failed, f"{len(failed)} sends failed, the first: {failed[:1]}")
        # A 4.x client does not notice that a connection has closed: a send that was under way on it waits its whole time out.
        check(len(failed) <= 3, f"{len(failed)} sends failed, for three deaths: {failed}")
        sent = producer.of("sent")
    spread = {broker: sum(record["broker"] == broker for record in sent) for broker in ("RaftNode00", "RaftNode01", "RaftNode02")}
    print(f"      {jars.version}: {len(sent)} sends, {len(failed)} failed, three leaders killed; by group {spread}", flush=True)
    check(min(spread.values()) > len(sent) / 10, f"sends are spread {spread}")


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
