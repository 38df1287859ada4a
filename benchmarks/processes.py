"""Child processes of a measurement: started pinned, watched, and ended whatever happens.

A `Child` knows its whole tree. It may live in a pseudo terminal, which is read all the time as a terminal would.
Only processes started here are ever signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from benchmarks.machine import pinned

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ESCAPES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")
TAIL_BYTES = 262_144
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH", "USER")


class BenchmarkError(Exception):
    """A measurement cannot be made; the text says why."""


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without whatever could reconfigure a proxy."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**kept, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(extra or {})}


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Child:
    """A started process. Use as a context manager: leaving it ends the process and all of its descendants."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        cpus: frozenset[int] | None = None,
        terminal: tuple[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start `command`; output goes to `log`, or to a pseudo terminal of `terminal` = (columns, rows)."""
        self.command = list(command)
        self.log = log
        self.screen = bytearray()
        """The last bytes written to the terminal."""
        self.screen_bytes = 0
        self._master: int | None = None
        self._reader: threading.Thread | None = None
        env = clean_environment(environment)
        with log.open("ab") as sink, pinned(cpus):
            self.started_at = time.monotonic()
            if terminal is None:
                self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env)
            else:
                self._start_in_terminal(terminal, env)

    def _start_in_terminal(self, size: tuple[int, int], env: dict[str, str]) -> None:
        columns, rows = size
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(self.command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True)
        os.close(slave)
        self._master = master
        self._reader = threading.Thread(target=self._read_terminal, name="terminal", daemon=True)
        self._reader.start()

    def _read_terminal(self) -> None:
        assert self._master is not None
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while data := os.read(self._master, 65_536):
                self.screen_bytes += len(data)
                self.screen += data
                if len(self.screen) > 2 * TAIL_BYTES:
                    del self.screen[:-TAIL_BYTES]

    def press(self, keys: bytes) -> None:
        """Press keys on the pseudo terminal."""
        if self._master is not None:
            os.write(self._master, keys)

    def screen_text(self) -> str:
        """Recent terminal output without its escape sequences."""
        return ESCAPES.sub(b"", bytes(self.screen)).decode("utf-8", "replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def why(self) -> str:
        """The end of what it said, for an error message."""
        said = self.screen_text() if self._master is not None else self.log.read_text("utf-8", "replace")
        return said.strip()[-600:] or f"it said nothing; exit status {self.process.poll()}"

    def tree(self) -> list[int]:
        """Its pid and those of all its descendants."""
        parents: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        found = [self.process.pid]
        for pid in found:
            found.extend(parents.get(pid, ()))
        return found

    def cpu_s(self) -> float | None:
        """CPU seconds of the whole tree so far; None where the system has no /proc."""
        ticks = 0
        seen = False
        for pid in self.tree():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
                seen = True
        return ticks * TICK_S if seen else None

    def rss_mb(self) -> float | None:
        """Resident memory of the whole tree in MB (10^6 bytes); None where the system has no /proc."""
        kibibytes = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmRSS:"):
                        kibibytes += int(line.split()[1])
        return kibibytes * 1024 / 1e6 if kibibytes else None

    def stop(self, patience_s: float = 8.0) -> None:
        """Ask it to end, then make it."""
        family = self.tree() if self.alive else []
        if self.alive:
            self.process.terminate()
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        for pid in family[1:]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if self._master is not None:
            os.close(self._master)
            self._master = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
