"""Where things are: the project, what it built, and the cache for what is fetched (never inside the project)."""

import os
import shutil
from pathlib import Path

COMPAT = Path(__file__).resolve().parent.parent
PROJECT = COMPAT.parent.parent
CACHE = Path(os.environ.get("RAFTMQ_CACHE", Path.home() / ".cache" / "raftmq"))
FAST_TRY = PROJECT / "deploy" / "bin" / "fast-try.sh"

# The last 4.x line and the newest 5.x on Maven Central; servers are started from the newest only.
JAVA_VERSIONS = ("4.9.8", "5.5.0")
SERVER_VERSION = JAVA_VERSIONS[-1]


def binaries() -> Path:
    """Folder of mqbroker, mqnamesrv, mqadmin and quickstart."""
    if "RAFTMQ_BIN_DIR" in os.environ:
        return Path(os.environ["RAFTMQ_BIN_DIR"])
    return Path(os.environ.get("CARGO_TARGET_DIR", CACHE / "target")) / "release"


def missing_tools(*names: str) -> list[str]:
    """Those of the named commands that are not on the PATH."""
    return [name for name in names if shutil.which(name) is None]
