"""Gateway and screen in one loop: order of start, signals, order of shutdown.

The gateway listens before the screen starts, so that a taken port or a broken store is one line on a plain terminal. A signal
or a key drains, a second one forces. The screen can crash or its terminal vanish: then the gateway stops in order, or goes
on without it, as `ui.on_close` says; clients notice neither.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from luthien_tui.lifeline import Lifeline
from luthien_tui.loop import QuietCollector, new_loop
from proxy_core import logs
from proxy_core.errors import ExitCode, LuthienError
from proxy_core.settings import Settings
from proxy_core.settings_sources import LoadedSettings
from proxy_core.tasks import spawn

if TYPE_CHECKING:
    from proxy_core.runtime import GatewayRuntime

log = logging.getLogger(__name__)
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
HANG_UP_S = 0.3
"""A terminal that goes away is gone so long after the signal at the latest."""
START_GRACE_S = 1.5
"""A signal during the start lets it come to its end for so long; a second one does not."""
FORCE_AFTER_S = 5.0
"""After a defect of the session itself, transactions have so long to finish."""
FORCED_BY = 3
"""So many signals end a screen that no longer reacts."""
PLAIN_SCREEN = b"\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?2004l\x1b[<u\x1b[?25h\x1b[m"
"""Leaves every mode that a screen may have set."""


class Companion(Protocol):
    """Something that lives beside the gateway, such as the demo's agents."""

    async def prepare(self, settings: Settings) -> Settings:
        """Before the gateway starts; the settings that it starts with."""
        ...

    def begin(self, address: str) -> None:
        """The gateway serves."""
        ...

    def leave(self) -> None:
        """The gateway is about to stop; may come more than once."""
        ...

    async def end(self) -> None:
        """The gateway has stopped."""
        ...


@dataclass(frozen=True)
class Launch:
    """What is started."""

    settings: Settings
    data_dir: Path
    ring: logs.LogRing
    log_file: Path | None = None
    remark: str = ""
    """Why there is no screen, for the one line that is said."""
    demo: bool = False
    companion: Companion | None = None
    load: Callable[[], LoadedSettings] | None = None
    """Reads all sources of settings anew; without it they stay as they are."""
    config: Path | None = None
    """The configuration file, to be watched."""


def run_headless(launch: Launch) -> int:
    """Serve until a signal. Returns the exit code; raises ListenError or StoreError where it cannot start."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_Session(launch).run(screen=False))


def run_with_ui(launch: Launch) -> int:
    """Serve and show the screen until it is left. Returns the exit code; raises as `run_headless` does."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        code = runner.run(_Session(launch).run(screen=True))
    for line in launch.ring.last_errors():  # under a screen nobody saw them
        say(f"luthien: {line.level.lower()}: {line.message}")
    return code


class _Session:
    """One life of the gateway, from its socket to its last record."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.signals: list[str] = []
        self.on_signal: Callable[[str], None] = lambda name: None
        self.screen_left = False
        self.serving = False
        self.lifeline = Lifeline()

    async def run(self, *, screen: bool) -> int:
        """Start, serve, end; whatever happens after the start, the journal is closed."""
        try:
            early = await self._start()
            if early is not None:
                return early
            try:
                return await self._serve(screen=screen)
            finally:
                while not self.closing.done():
                    self.begin_shutdown()
                    await asyncio.wait([self.closing], timeout=FORCE_AFTER_S)
                self.collector.stop()
        finally:
            if self.launch.companion is not None:
                await self.launch.companion.end()

    async def _serve(self, *, screen: bool) -> int:
        self.collector.start()
        self.serving = True
        if self.launch.companion is not None:
            self.launch.companion.begin(self.runtime.address)
        return await (self._with_ui() if screen else self._headless())

    async def _headless(self) -> int:
        about = self._about()
        say(f"luthien: serving on http://{self.runtime.address} ({about})")
        return await self._serve_headless()

    async def _with_ui(self) -> int:
        try:
            crashed = await self._show()
        finally:
            self.on_signal = self._stop_on_signal
        if self.closing.done():
            return await self._closed()
        stay = self.launch.settings.ui.on_close == "headless" and (crashed or self.screen_left)
        if not stay:
            if crashed:
                say("luthien: the screen ended by a defect; stopping the gateway")
            self.begin_shutdown()
            code = await self._closed()
            return ExitCode.CRASH if crashed else code
        if crashed:
            said = self.launch.settings.logging
            logs.configure(said.level, self.launch.ring, stderr=True, file=self.launch.log_file, form=logs.form_of(said))
            say(f"luthien: the screen ended; the gateway goes on at http://{self.runtime.address} (ctrl+c stops it)")
        log.warning("going on without a screen")
        return await self._serve_headless()

    async def _start(self) -> int | None:
        """Bring the gateway up. Returns an exit code where a signal came first."""
        loop = asyncio.get_running_loop()
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                loop.add_signal_handler(number, self._received, number)
        from proxy_core.runtime import GatewayRuntime

        companion = self.launch.companion
        settings = self.launch.settings if companion is None else await companion.prepare(self.launch.settings)
        self.runtime: GatewayRuntime = GatewayRuntime(
            settings,
            data_dir=self.launch.data_dir,
            demo=self.launch.demo,
            load=self.launch.load,
            config=self.launch.config,
        )
        starting = spawn(self._try_to_start(), name="start")

        def give_up(name: str) -> None:
            # a start that is nearly through ends in better order than one that is cut off
            loop.call_later(START_GRACE_S if len(self.signals) == 1 else 0, starting.cancel)

        self.on_signal = give_up
        if self.signals:
            give_up(self.signals[0])
        await asyncio.wait([starting])
        self.on_signal = self._stop_on_signal
        interrupted = ExitCode.INTERRUPTED if "SIGINT" in self.signals else ExitCode.OK
        if starting.cancelled():
            return interrupted
        if (fault := starting.result()) is not None:
            raise fault
        self.closing = spawn(self.runtime.wait_closed(), name="wait for the end")
        if self.signals:
            self.begin_shutdown()
            await self.closing
            return interrupted
        self.collector = QuietCollector(loop, self._activity)
        return None

    def _activity(self) -> tuple[int, int]:
        state = self.runtime.plane.state()
        return state.active, state.total

    async def _try_to_start(self) -> LuthienError | None:
        """A fault on purpose is returned, because it is said in one line and belongs in no log of dead tasks."""
        try:
            await self.runtime.start()
        except LuthienError as fault:
            return fault
        return None

    def begin_shutdown(self) -> None:
        """Drain; a second time, force."""
        if self.launch.companion is not None:
            self.launch.companion.leave()
        self.runtime.begin_shutdown()

    def _received(self, number: signal.Signals) -> None:
        if number is signal.SIGHUP:
            # What remains of the terminal may be cleared away only after the signal.
            asyncio.get_running_loop().call_later(0 if self.lifeline.is_cut() else HANG_UP_S, self._hung_up_or_asked)
            return
        self.signals.append(number.name)
        self.on_signal(number.name)

    def _hung_up_or_asked(self) -> None:
        if not self.lifeline.is_cut():
            if self.serving:
                spawn(self.runtime.reload(), name="read the configuration again")
        elif signal.SIGHUP.name not in self.signals:
            # a window that closes tells its session's leader and its foreground group, which may both be us
            self.signals.append(signal.SIGHUP.name)
            self.on_signal(signal.SIGHUP.name)

    def _stop_on_signal(self, name: str) -> None:
        log.info("%s: stopping", name)
        self.begin_shutdown()

    async def _serve_headless(self) -> int:
        self.on_signal = self._stop_on_signal
        return await self._closed()

    async def _closed(self) -> int:
        """Wait until everything is written and closed."""
        await self.closing
        return ExitCode.OK

    async def _show(self) -> bool:
        """Run the screen until it ends; returns whether it ended by a defect."""
        from luthien_tui.app import LuthienApp

        terminal = Terminal()
        app = LuthienApp(
            self.runtime.plane,
            ui=self.launch.settings.ui,
            logs=self.launch.ring,
            begin_shutdown=self.begin_shutdown,
            wait_closed=self.runtime.wait_closed,
        )
        running = spawn(app.run_async(mouse=self.launch.settings.ui.mouse), name="screen")
        loop = asyncio.get_running_loop()

        def on_signal(name: str) -> None:
            if running.done():
                self._stop_on_signal(name)
            elif len(self.signals) >= FORCED_BY:
                self.begin_shutdown()
                running.cancel()
            elif not app.is_running:
                loop.call_later(0.05, on_signal, name)
            elif name == "SIGHUP" and self.launch.settings.ui.on_close == "headless":
                self.screen_left = True
                app.call_later(app.exit)
            else:
                app.call_later(app.begin_shutdown_from_signal, name)

        self.on_signal = on_signal
        settling = loop.call_later(2.0, self.collector.settle)
        await asyncio.wait([running])
        settling.cancel()
        if running.cancelled():
            terminal.restore()
            return False
        defect = running.exception()
        if defect is not None:
            terminal.restore()
        elif app.return_code:
            defect = getattr(app, "_exception", None)  # Textual keeps it for its own report alone
        if "SIGHUP" in self.signals:
            detach()
        else:
            terminal.restore_modes()
        if defect is None and not app.return_code:
            return False
        log.error("the screen ended by a defect", exc_info=defect)
        return True

    def _about(self) -> str:
        state = self.runtime.plane.state()
        upstreams = ", ".join(name for name, _ in state.upstreams)
        control = f"control API at http://{state.control}" if state.control else ""
        parts = (self.launch.remark, f"upstreams {upstreams}", f"journal in {state.store}", control, "ctrl+c stops")
        return "; ".join(part for part in parts if part)


class Terminal:
    """How the terminal was before the screen, to put it back where the screen could not."""

    def __init__(self) -> None:
        import termios

        self._termios = termios
        self._modes: list[Any] | None
        try:
            self._modes = termios.tcgetattr(sys.stdin.fileno())
        except (termios.error, OSError, ValueError):
            self._modes = None

    def restore_modes(self) -> None:
        """Line discipline only; a terminal that is gone is left alone."""
        if self._modes is None:
            return
        try:
            self._termios.tcsetattr(sys.stdin.fileno(), self._termios.TCSANOW, self._modes)
        except (self._termios.error, OSError, ValueError):
            self._modes = None

    def restore(self) -> None:
        """Line discipline, and out of the alternate screen."""
        try:
            os.write(sys.stderr.fileno(), PLAIN_SCREEN)
        except (OSError, ValueError):
            return
        self.restore_modes()


def say(text: str) -> None:
    """One line on stderr. A closed one is no error, and one that takes nothing is not waited for."""
    try:
        number = sys.__stderr__.fileno() if sys.__stderr__ is not None else -1
        if number >= 0 and select.select([], [number], [], 0)[1]:
            os.write(number, f"{logs.escaped(text)}\n".encode())
    except (OSError, ValueError):
        return


def detach() -> None:
    """Let go of a terminal that is gone, so that nothing fails by writing to it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)
