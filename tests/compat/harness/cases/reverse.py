"""One side ours, the other the original's: a nameserver with the other's broker registered in it."""

from .. import remoting
from ..clusters import CLUSTER, PORTS, OurCluster, Ports, StockCluster, start_namesrv
from ..java import Jars
from ..paths import JAVA_VERSIONS
from ..process import Child, check, free_port_base, wait_until
from ..registry import JAVA, Context, plain_case
from .admin import Table
from .quickstart import quickstart

BROKER = "java-broker"


def start_java_broker(ctx: Context, port: int, namesrv: str) -> Child:
    """A single broker of the original, no Raft, registered in `namesrv`."""
    store = ctx.work / "store"
    settings = {
        "brokerClusterName": CLUSTER,
        "brokerName": BROKER,
        "brokerId": 0,
        "brokerIP1": "127.0.0.1",
        "listenPort": port,
        "namesrvAddr": namesrv,
        "storePathRootDir": store,
        "storePathCommitLog": store / "commitlog",
        "mappedFileSizeCommitLog": 64 * 1024 * 1024,
    }
    conf = ctx.work / "broker.conf"
    conf.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")
    home = ctx.work / "broker.home"
    options = ("-Xms256m", "-Xmx256m", "-XX:MaxDirectMemorySize=256m", "-XX:+UseSerialGC", f"-Drocketmq.home.dir={home}")
    command = ctx.jars.command("org.apache.rocketmq.broker.BrokerStartup", ["-c", conf], home, None, options)
    return Child("java-broker", command, ctx.work / "java-broker.log", env={"ROCKETMQ_HOME": str(home)})


@plain_case("reverse/java-broker-in-our-namesrv", JAVA, shared=False, only="ours")
def java_broker(ctx: Context) -> None:
    """A broker of the original, registered in our nameserver, serves both versions' quickstart."""
    ports = Ports(free_port_base(PORTS))
    namesrv = f"127.0.0.1:{ports.namesrv}"
    with start_namesrv(ctx.work, ports.namesrv) as server, start_java_broker(ctx, ports.broker["n0"], namesrv) as broker:
        wait_until(lambda: 0 in remoting.members(namesrv, BROKER), 60, "the Java broker to be registered in our nameserver")
        for version in JAVA_VERSIONS:
            jars = Jars(version)
            jars.fetch()
            quickstart(Context(ctx.cluster, ctx.work / version, ctx.scale, jars), namesrv)
        with ctx.jars.mqadmin(ctx.work, namesrv) as admin:
            rows = Table(admin("clusterList")).rows
        check([row[1:3] for row in rows] == [[BROKER, "0"]], f"clusterList shows {rows}")
        # A broker that goes away on purpose is gone from the route at once.
        broker.terminate()
        wait_until(lambda: not remoting.members(namesrv, BROKER), 10, "the stopped broker to be unregistered")
        check(server.running(), "our nameserver ended")


@plain_case("reverse/our-brokers-in-java-namesrv", JAVA, shared=False, only="ours")
def java_namesrv(ctx: Context) -> None:
    """Our three members, registered in a nameserver of the original, serve both versions' quickstart."""
    stock = StockCluster(ctx.work / "stock")
    try:
        stock.start_one("namesrv")
        with OurCluster(ctx.work / "ours", base=stock.ports.base, namesrv=stock.namesrv) as ours:
            for version in JAVA_VERSIONS:
                jars = Jars(version)
                jars.fetch()
                quickstart(Context(ours, ctx.work / version, ctx.scale, jars), stock.namesrv)
    finally:
        stock.stop()
