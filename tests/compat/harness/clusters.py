"""Clusters that cases run against: one of ours, or the original's from its published jars."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from . import remoting
from .java import Jars
from .paths import FAST_TRY, SERVER_VERSION, binaries
from .process import Child, Failure, check, free_port_base, run, wait_until

CLUSTER = "RaftCluster"
GROUP = "RaftNode00"
MEMBERS = ("n0", "n1", "n2")

# Every port of a cluster lies within this many of its base; brokers also take their listenPort - 2 and + 1.
PORTS = range(0, 50)


class Ports:
    """How a cluster's ports follow from its base: the same numbers as `fast-try.sh --port-base`."""

    def __init__(self, base: int):
        self.base = base
        self.namesrv = base
        self.broker = {member: base + 11 + 10 * number for number, member in enumerate(MEMBERS)}
        self.peer = {member: base + 41 + number for number, member in enumerate(MEMBERS)}


class Cluster:
    """What a case may ask of the cluster it runs against."""

    kind = ""

    def __init__(self, folder: Path, base: int | None = None):
        self.folder = folder
        self.ports = Ports(free_port_base(PORTS) if base is None else base)
        self.namesrv = f"127.0.0.1:{self.ports.namesrv}"

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def leader(self) -> str | None:
        """Id of the member registered as broker 0, if there is one."""
        address = remoting.members(self.namesrv, GROUP).get(0)
        return next((m for m, port in self.ports.broker.items() if address == f"127.0.0.1:{port}"), None)

    def wait_ready(self, seconds: float) -> None:
        """Waits until all members are registered and one of them is the leader."""

        def ready():
            found = remoting.members(self.namesrv, GROUP)
            return 0 in found and len(found) == len(MEMBERS)

        wait_until(ready, seconds, f"a leader and two followers to be registered at {self.namesrv}")

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError


class OurCluster(Cluster):
    """A nameserver and three members of ours, through fast-try.sh."""

    kind = "ours"

    def __init__(
        self,
        folder: Path,
        base: int | None = None,
        settings: tuple[str, ...] = (),
        namesrv: str | None = None,
        endpoint: bool = False,
    ):
        super().__init__(folder, base)
        self.settings = settings
        self.endpoint = endpoint
        self.other_namesrv = namesrv
        if namesrv:
            self.namesrv = namesrv

    def start(self) -> None:
        options = ["--port-base", self.ports.base]
        if not self.endpoint:
            # As the original's: clients are told the address of the member that leads.
            options.append("--no-leader-endpoint")
        for setting in self.settings:
            options += ["--set", setting]
        if self.other_namesrv:
            options += ["--namesrv", self.other_namesrv]
        self._fast_try("start", *options)
        if not self.endpoint:
            self.wait_ready(30)

    def stop(self) -> None:
        with contextlib.suppress(Failure):
            self._fast_try("stop")

    def _fast_try(self, action: str, *options) -> str:
        done = run([FAST_TRY, action, "--dir", self.folder, *options], seconds=120)
        check(done.returncode == 0, f"fast-try.sh {action} exited with {done.returncode}:\n{done.stdout[-3000:]}")
        return done.stdout

    def kill(self, member: str) -> str:
        return self._fast_try("kill", member)

    def kill_leader(self) -> str:
        return self._fast_try("kill-leader")

    def restart(self, member: str) -> str:
        return self._fast_try("restart", member)


class StockCluster(Cluster):
    """The original: a nameserver and three DLedger brokers from the published jars. Survives the process that started it."""

    kind = "stock"

    def __init__(self, folder: Path, base: int | None = None, settings: tuple[str, ...] = ()):
        super().__init__(folder, base)
        self.settings = settings
        self.jars = Jars(SERVER_VERSION)
        # Benchmarks raise these; the tests need little.
        self.broker_memory = os.environ.get("STOCK_BROKER_MEMORY", "-Xms256m -Xmx256m -XX:MaxDirectMemorySize=512m").split()

    def start(self) -> None:
        self.jars.fetch()
        self.start_one("namesrv")
        for member in MEMBERS:
            self.start_one(member)
        self.wait_ready(90)

    def stop(self) -> None:
        for name in (*MEMBERS, "namesrv"):
            self._signal(name, signal.SIGTERM)
        for name in (*MEMBERS, "namesrv"):
            with contextlib.suppress(Failure):
                wait_until(lambda name=name: self.pid(name) is None, 15, f"{name} to stop")
            self._signal(name, signal.SIGKILL)

    def kill(self, member: str) -> str:
        pid = self.pid(member)
        check(pid, f"{member} is not running")
        self._signal(member, signal.SIGKILL)
        return f"killed {member} (pid {pid}) at {time.time() * 1000:.0f} ms"

    def restart(self, member: str) -> str:
        self._signal(member, signal.SIGTERM)
        wait_until(lambda: self.pid(member) is None, 60, f"{member} to stop")
        self.start_one(member)
        return f"restarted {member} (pid {self.pid(member)})"

    def start_one(self, name: str) -> None:
        """Starts the nameserver or one member unless it runs, and waits for its boot line."""
        if self.pid(name):
            return
        server = "org.apache.rocketmq.namesrv.NamesrvStartup" if name == "namesrv" else "org.apache.rocketmq.broker.BrokerStartup"
        memory = ("-Xms64m", "-Xmx128m") if name == "namesrv" else tuple(self.broker_memory)
        home = self.folder / f"{name}.home"
        conf = self._conf(name)
        options = (*memory, "-XX:+UseSerialGC", f"-Drocketmq.home.dir={home}")
        command = self.jars.command(server, ["-c", conf], home, None, options)
        log = self.folder / "logs" / f"{name}.out"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w", encoding="utf-8") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "ROCKETMQ_HOME": str(home)},
            )
        self._pid_file(name).write_text(str(process.pid), encoding="utf-8")

        def booted():
            if process.poll() is not None:
                raise Failure(f"the original's {name} ended with {process.returncode}; see {log}")
            return "boot success" in log.read_text(encoding="utf-8", errors="replace")

        wait_until(booted, 60, f"the original's {name} to boot (log: {log})")

    def _conf(self, name: str) -> Path:
        settings = {"listenPort": self.ports.namesrv}
        if name != "namesrv":
            store = self.folder / f"store-{name}"
            settings = {
                "brokerClusterName": CLUSTER,
                "brokerName": GROUP,
                "brokerIP1": "127.0.0.1",
                "listenPort": self.ports.broker[name],
                "namesrvAddr": self.namesrv,
                "storePathRootDir": store,
                "storePathCommitLog": store / "commitlog",
                "enableDLegerCommitLog": "true",
                "dLegerGroup": GROUP,
                "dLegerPeers": ";".join(f"{m}-127.0.0.1:{port}" for m, port in self.ports.peer.items()),
                "dLegerSelfId": name,
                "sendMessageThreadPoolNums": 4,
            }
        lines = [f"{key}={value}" for key, value in settings.items()]
        if name != "namesrv":
            lines += self.settings
        conf = self.folder / "conf" / f"{name}.conf"
        conf.parent.mkdir(parents=True, exist_ok=True)
        conf.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return conf

    def _pid_file(self, name: str) -> Path:
        return self.folder / f"{name}.pid"

    def pid(self, name: str) -> int | None:
        """Process id of the nameserver or a member, if it is alive and still the one that was started."""
        try:
            pid = int(self._pid_file(name).read_text(encoding="utf-8"))
            os.waitpid(pid, os.WNOHANG)
        except (FileNotFoundError, ValueError):
            return None
        except ChildProcessError:
            pass  # started by another process
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return None
        return pid if str(self.folder).encode() in command else None

    def _signal(self, name: str, number: int) -> None:
        if pid := self.pid(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def start_namesrv(folder: Path, port: int) -> Child:
    """Our nameserver alone, on `port`."""
    conf = folder / "namesrv.conf"
    conf.parent.mkdir(parents=True, exist_ok=True)
    conf.write_text(f"listenPort={port}\nkvConfigPath={folder}/kvConfig.json\n", encoding="utf-8")
    child = Child("mqnamesrv", [binaries() / "mqnamesrv", "-c", conf], folder / "mqnamesrv.log")
    try:
        wait_until(lambda: "boot success" in child.log.read_text(encoding="utf-8"), 10, "our nameserver to boot")
    except BaseException:
        child.kill()
        raise
    return child
