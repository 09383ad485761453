"""The published Go client: our driver is built against it once, outside of the project."""

import os
from pathlib import Path

from .paths import CACHE, COMPAT
from .process import Child, Failure, run

SOURCE = COMPAT / "go"


def build() -> Path:
    """Builds the driver into the cache; Go itself knows when nothing has changed."""
    binary = CACHE / "go" / "driver"
    binary.parent.mkdir(parents=True, exist_ok=True)
    command = ["go", "build", "-mod=readonly", "-o", binary, "."]
    done = run(command, seconds=600, cwd=SOURCE)
    if done.returncode != 0:
        raise Failure(f"go build failed:\n{done.stdout[-3000:]}")
    return binary


def start(binary: Path, action: str, work: Path, namesrv: str, name: str | None = None, **options) -> Child:
    """Starts one action of the driver as a child that logs below `work`."""
    name = name or f"go-{action}"
    home = work / f"{name}.home"
    home.mkdir(parents=True, exist_ok=True)
    arguments = [part for option, value in options.items() for part in (f"-{option}", str(value))]
    env = {"HOME": str(home), "ROCKETMQ_GO_LOG_LEVEL": "warn", "GOGC": os.environ.get("GOGC", "100")}
    return Child(name, [binary, action, "-namesrv", namesrv, *arguments], work / f"{name}.log", env=env)
