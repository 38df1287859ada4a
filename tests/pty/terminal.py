"""A command in a pseudo terminal of its own, read on the test's loop.

`async with Terminal(arguments, environ) as terminal` starts it as the leader of a new session with the terminal as its
controlling one, so that keys, signals, hang-ups and a reader that stops reading are what they are for a user.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

SEQUENCE = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    rb"|\x1b[\]PX^_].*?(?:\x07|\x1b\\)"  # OSC, DCS, SOS, PM, APC
    rb"|\x1b[ -/]*[0-~]",  # the rest
    re.DOTALL,
)
ENTER_SCREEN = b"\x1b[?1049h"
LEAVE_SCREEN = b"\x1b[?1049l"


class Terminal:
    """One run of a command."""

    def __init__(self, command: list[str], environ: dict[str, str], *, folder: Path, size: tuple[int, int] = (120, 36)) -> None:
        self.command = command
        self.environ = environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self.folder = folder
        self.size = size
        self.output = bytearray()
        """Everything that came, escape sequences included."""
        self.reading = False
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Terminal:
        self.master, slave = os.openpty()
        columns, lines = self.size
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.modes_before = termios.tcgetattr(slave)
        self.slave = slave  # kept open, so that modes can be read after the command has ended
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=self.folder,
            env=self.environ,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.thaw()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        while self.process.poll() is None:
            await asyncio.sleep(0.01)
        self.hang_up()
        if self.slave >= 0:
            os.close(self.slave)

    # -- the terminal -------------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Read nothing more, as a terminal does that is stopped with ctrl+s or whose link hangs."""
        if self.reading:
            asyncio.get_running_loop().remove_reader(self.master)
            self.reading = False

    def thaw(self) -> None:
        """Read again."""
        if not self.reading:
            asyncio.get_running_loop().add_reader(self.master, self._read)
            self.reading = True

    def hang_up(self) -> None:
        """Close the terminal's window."""
        self.freeze()
        if self.master >= 0:
            if self.process.poll() is None and self.slave >= 0:
                os.close(self.slave)
                self.slave = -1
            os.close(self.master)
            self.master = -1

    def send(self, keys: str) -> None:
        """Type."""
        os.write(self.master, keys.encode())

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def _read(self) -> None:
        try:
            data = os.read(self.master, 65536)
        except OSError:
            data = b""
        if data:
            self.output += data
        else:
            self.freeze()
        self._arrived.set()

    # -- what it shows ------------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """What was written, without escape sequences; line by line only as far as the command wrote lines."""
        return SEQUENCE.sub(b"", bytes(self.output)).decode("utf-8", "replace")

    @property
    def modes_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.modes_before

    @property
    def screen_left(self) -> bool:
        """Whether the alternate screen is not (or no more) in use."""
        return self.output.rfind(LEAVE_SCREEN) >= self.output.rfind(ENTER_SCREEN)

    @property
    def after_screen(self) -> str:
        """Text written after the alternate screen was left."""
        return SEQUENCE.sub(b"", bytes(self.output[self.output.rfind(LEAVE_SCREEN) :])).decode("utf-8", "replace")

    async def until(self, condition: Callable[[], object], timeout_s: float = 30.0) -> None:
        """Wait until `condition` holds; it is looked at whenever something arrives, and twice a second."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing came of it in {timeout_s} s; the end of the output:\n{self.text[-3000:]}")
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), 0.5)
            except TimeoutError:
                continue

    async def shows(self, text: str, timeout_s: float = 30.0, *, after: int = 0) -> None:
        """Wait until `text` is written, behind `after` bytes of the output."""
        wanted = text.encode()
        await self.until(lambda: wanted in SEQUENCE.sub(b"", bytes(self.output[after:])), timeout_s)

    async def port(self) -> int:
        """The port that the gateway says it listens on."""
        found = re.compile(r"127\.0\.0\.1:(\d{2,5})\b")
        await self.until(lambda: found.search(self.text))
        match = found.search(self.text)
        assert match is not None
        return int(match[1])

    async def ended(self, timeout_s: float = 30.0) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        deadline = time.monotonic() + timeout_s
        while (code := self.process.poll()) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"still running after {timeout_s} s; the end of the output:\n{self.text[-3000:]}")
            await asyncio.sleep(0.01)
        if self.master >= 0 and self.reading:
            await asyncio.sleep(0)
            os.set_blocking(self.master, False)
            try:
                while data := os.read(self.master, 65536):
                    self.output += data
            except OSError:
                pass  # all is read
        return code


def sequences(output: bytes) -> set[bytes]:
    """The escape sequences in `output`, with the numbers of CSI ones taken out, so that kinds can be compared."""
    return {re.sub(rb"[0-9;]+", b"", found) if found.startswith(b"\x1b[") else found for found in SEQUENCE.findall(output)}


def stray_controls(output: bytes) -> set[bytes]:
    """Control bytes outside escape sequences that no screen writes on purpose, C1 characters included."""
    rest = SEQUENCE.sub(b"", output)
    return set(re.findall(rb"[\x00-\x06\x0b\x0c\x10-\x1f\x7f]|\xc2[\x80-\x9f]", rest))
