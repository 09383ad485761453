"""Child processes whose output is read line by line, and waiting for conditions with a deadline."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path


class Failure(Exception):
    """A check that did not hold; its text is the case's verdict."""


def check(condition: object, text: str) -> None:
    """Fails the running case with `text` unless `condition` holds."""
    if not condition:
        raise Failure(text)


def wait_until(condition, seconds: float, what: str, every: float = 0.1):
    """Returns the first truthy value of `condition()`; fails after `seconds`, naming `what` was awaited."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds:g} s for {what}")
        time.sleep(every)


class Child:
    """One child process. Lines starting with `@` are records (`@kind<TAB>name=value…`); the rest is log text."""

    def __init__(self, name: str, command: list, log: Path, env: dict | None = None, cwd: Path | None = None):
        self.name = name
        self.log = log
        self.records: list[dict] = []
        self._changed = threading.Condition()
        self._at_end = False
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        with open(self.log, "w", encoding="utf-8") as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                if line.startswith("@"):
                    with self._changed:
                        self.records.append(parse_record(line))
                        self._changed.notify_all()
        with self._changed:
            self._at_end = True
            self._changed.notify_all()

    def of(self, kind: str) -> list[dict]:
        """Records of one kind so far, oldest first."""
        with self._changed:
            return [record for record in self.records if record["kind"] == kind]

    def wait_for(self, condition, seconds: float, what: str):
        """Waits until `condition(self)` is truthy, waking on every record; fails when the child ends before."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition(self)
            if value:
                return value
            with self._changed:
                ended = self._at_end
                left = deadline - time.monotonic()
                if not ended and left > 0:
                    self._changed.wait(min(left, 0.5))
            if ended or left <= 0:
                if value := condition(self):
                    return value
                how = f"{self.name} ended" if ended else f"waited {seconds:g} s"
                raise Failure(f"{how}: {what} (log: {self.log})")

    def write(self, line: str) -> None:
        """Writes one line to the child's input."""
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def finish(self, seconds: float = 30) -> int:
        """Closes the child's input, which asks our drivers to shut down cleanly, and waits for its end."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        return self.wait(seconds)

    def wait(self, seconds: float) -> int:
        """Waits for the end of the child and of its output; returns the exit status."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"{self.name} did not end within {seconds:g} s (log: {self.log})") from None
        self._reader.join(10)
        return status

    def kill(self) -> None:
        """kill -9; harmless when it has already ended."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
        self._reader.join(10)

    def terminate(self, seconds: float = 30) -> int:
        """SIGTERM, then waits for the end."""
        if self._process.poll() is None:
            self._process.terminate()
        return self.wait(seconds)

    def running(self) -> bool:
        return self._process.poll() is None


def parse_record(line: str) -> dict:
    """`@kind<TAB>name=value…` as a dict; numbers stay text, since ids and offsets are compared, not added."""
    kind, *fields = line.rstrip("\n").split("\t")
    record = {"kind": kind[1:]}
    for field in fields:
        name, _, value = field.partition("=")
        record[name] = value
    return record


def run(command: list, seconds: float = 120, env: dict | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Runs to the end and returns what it printed on both streams together."""
    try:
        return subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    except subprocess.TimeoutExpired as late:
        raise Failure(f"{Path(str(command[0])).name} took more than {seconds:g} s; it printed:\n{late.stdout}") from None


def free_port_base(offsets: range, first: int = 21000, last: int = 29000) -> int:
    """A base below the ephemeral range such that base + every offset can be bound now."""
    start = first + os.getpid() % 40 * 200
    for base in [*range(start, last, 200), *range(first, start, 200)]:
        if all(_can_bind(base + offset) for offset in offsets):
            return base
    raise Failure(f"no free block of {len(offsets)} ports between {first} and {last}")


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
