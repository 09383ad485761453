"""The published Java artifacts: fetching them, compiling our drivers against them, running both."""

import os
import re
import shutil
from pathlib import Path

from .paths import CACHE, COMPAT, JAVA_VERSIONS
from .process import Child, Failure, run

SOURCES = COMPAT / "java"

# A handful of small JVMs share two cores with the cluster under test: start fast, stay small.
SMALL_HEAP = ("-Xms32m", "-Xmx160m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
# What the 4.x and 5.x servers and clients reach into on a JDK newer than the one they were built for.
OPENED = (
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens=java.base/jdk.internal.ref=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
)

# Without it the 5.x classes configure themselves from whichever server's jar comes first, and say so at length.
LOGBACK = """<configuration>
  <appender name="FILE" class="org.apache.rocketmq.logging.ch.qos.logback.core.FileAppender">
    <file>{home}/logs/client.log</file>
    <encoder><pattern>%d %level %logger - %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="FILE"/></root>
</configuration>
"""
# The 4.x mqadmin reads its own file, from ROCKETMQ_HOME, and does not start without it.
TOOLS_LOGBACK = '<configuration><root level="OFF"/></configuration>\n'


class Jars:
    """One fetched version: its class path and how to run classes of it."""

    def __init__(self, version: str):
        self.version = version
        self.folder = CACHE / "java" / version
        self.lib = self.folder / "lib"
        self.classes = self.folder / "drivers"

    def fetch(self) -> None:
        """Fetches by Maven into the cache once per pom, and compiles the drivers when they changed."""
        pom = SOURCES / f"pom-{self.version}.xml"
        self._once("jars", [pom], self._copy_jars, pom)
        sources = sorted(SOURCES.glob("*.java"))
        self._once("drivers", [pom, *sources], self._compile, sources)

    def _once(self, what: str, inputs: list[Path], action, argument) -> None:
        """Runs `action` unless the stamp says it was done for exactly these inputs."""
        stamp = self.folder / f"{what}.stamp"
        key = "".join(f"{path.name}\n{path.read_text(encoding='utf-8')}\n" for path in inputs)
        if stamp.exists() and stamp.read_text(encoding="utf-8") == key:
            return
        action(argument)
        stamp.write_text(key, encoding="utf-8")

    def _copy_jars(self, pom: Path) -> None:
        print(f"fetching the published RocketMQ {self.version} jars into {self.lib}", flush=True)
        shutil.rmtree(self.lib, ignore_errors=True)
        self.lib.mkdir(parents=True)
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={self.lib}"]
        done = run(["mvn", "-B", "-q", "-f", pom, *goal], seconds=1200)
        if done.returncode != 0:
            raise Failure(f"mvn could not fetch RocketMQ {self.version}:\n{done.stdout[-2000:]}")

    def _compile(self, sources: list[Path]) -> None:
        shutil.rmtree(self.classes, ignore_errors=True)
        self.classes.mkdir(parents=True)
        command = ["javac", "-J-Xmx256m", "-nowarn", "-encoding", "UTF-8", "-cp", f"{self.lib}/*"]
        done = run([*command, "-d", self.classes, *sources], seconds=300)
        if done.returncode != 0:
            raise Failure(f"javac against RocketMQ {self.version} failed:\n{done.stdout[-4000:]}")

    def command(self, main: str, arguments: list, home: Path, namesrv: str | None, options: tuple = SMALL_HEAP) -> list:
        """A java command line for `main`, a client when it has a nameserver; everything it writes goes below `home`."""
        home.mkdir(parents=True, exist_ok=True)
        properties = [f"-Duser.home={home}"]
        if namesrv:
            logback = home / "logback.xml"
            logback.write_text(LOGBACK.format(home=home), encoding="utf-8")
            tools_logback = home / "tools-logback.xml"
            tools_logback.write_text(TOOLS_LOGBACK, encoding="utf-8")
            properties += [
                f"-Drocketmq.namesrv.addr={namesrv}",
                f"-Drmq.logback.configurationFile={logback}",
                f"-Dlogback.configurationFile={tools_logback}",
                f"-Drocketmq.client.logRoot={home}/logs",
                "-Drocketmq.client.logLevel=WARN",
            ]
        classpath = f"{self.classes}:{self.lib}/*"
        return ["java", *options, *OPENED, *properties, "-cp", classpath, main, *arguments]

    def start(self, main: str, arguments: list, work: Path, namesrv: str, name: str | None = None) -> Child:
        """Starts `main` as a child that logs below `work`."""
        name = name or main.rpartition(".")[2]
        command = self.command(main, arguments, work / f"{name}.home", namesrv)
        return Child(name, command, work / f"{name}.log")

    def mqadmin(self, work: Path, namesrv: str) -> "MqAdmin":
        """The published mqadmin, ready to be called."""
        return MqAdmin(self, work, namesrv)


class MqAdmin:
    """The published mqadmin; call it with a command and its options to get what it prints."""

    def __init__(self, jars: Jars, work: Path, namesrv: str):
        home = work / "mqadmin.home"
        (home / "conf").mkdir(parents=True, exist_ok=True)
        (home / "conf" / "logback_tools.xml").write_text(TOOLS_LOGBACK, encoding="utf-8")
        (home / "conf" / "tools.yml").write_text("", encoding="utf-8")
        command = jars.command("Admin", [], home, namesrv, (*SMALL_HEAP, f"-Drocketmq.home.dir={home}"))
        self._child = Child("mqadmin", command, work / "mqadmin.log", env={"ROCKETMQ_HOME": str(home)})
        self._namesrv = namesrv
        self._calls = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._child.kill()

    def __call__(self, *words: str) -> str:
        """Runs one command and returns what it printed, without the lines of the JVM and its loggers."""
        self._child.write("\t".join([*words, "-n", self._namesrv]))
        self._calls += 1
        self._child.wait_for(lambda child: len(child.of("end")) >= self._calls, 60, f"mqadmin {words[0]} to end")
        runs = re.split(r"^@end$", self._child.log.read_text(encoding="utf-8"), flags=re.M)
        noise = ("RocketMQLog:WARN", "SLF4J", "log4j:", "WARNING:", "OpenJDK", "Picked up")
        return "\n".join(line for line in runs[self._calls - 1].splitlines() if not line.startswith(noise)).strip()


def all_versions() -> list[Jars]:
    """The versions under test; RAFTMQ_JAVA_VERSIONS (blank-separated) narrows them."""
    wanted = os.environ.get("RAFTMQ_JAVA_VERSIONS", "").split() or JAVA_VERSIONS
    return [Jars(version) for version in wanted]
