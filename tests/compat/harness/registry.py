"""The list of cases and what one is given when it runs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from .clusters import Cluster
from .java import Jars
from .paths import SERVER_VERSION


@dataclasses.dataclass
class Context:
    """What a case works with. `work` is its own folder; `scale` multiplies message counts."""

    cluster: Cluster
    work: Path
    scale: int
    jars: Jars | None = None

    @property
    def namesrv(self) -> str:
        return self.cluster.namesrv

    def java(self, main: str, name: str | None = None, **options):
        """Starts one of our Java drivers, or a published class when its name has dots."""
        arguments = [part for option, value in options.items() for part in (f"--{option}", str(value))]
        return self.jars.start(main, arguments, self.work, self.namesrv, name)


@dataclasses.dataclass
class Case:
    """One entry of the list. `tools` are commands without which it is skipped; `shared` cases use the common cluster."""

    name: str
    action: Callable[[Context], None]
    jars: Jars | None
    tools: tuple[str, ...]
    shared: bool
    only: str | None


_java: list[tuple] = []
_other: list[tuple] = []

JAVA = ("java", "javac", "mvn")


def java_case(name: str, only: str | None = None):
    """Registers a case that runs once for each published Java version against the common cluster."""

    def register(action):
        _java.append((name, action, only))
        return action

    return register


def plain_case(name: str, tools: tuple[str, ...] = (), shared: bool = True, only: str | None = None):
    """Registers a case that runs once. `only` names the kind of cluster it makes sense for."""

    def register(action):
        _other.append((name, action, tools, shared, only))
        return action

    return register


def cases(versions: list[Jars]) -> list[Case]:
    """All cases in the order in which they run."""
    found = [
        Case(f"java-{jars.version}/{name}", action, jars, JAVA, True, only) for jars in versions for name, action, only in _java
    ]
    # Cases with servers or tools of the original in them use the newest version's jars.
    newest = Jars(SERVER_VERSION)
    found += [
        Case(name, action, newest if "java" in tools else None, tools, shared, only)
        for name, action, tools, shared, only in _other
    ]
    return found
