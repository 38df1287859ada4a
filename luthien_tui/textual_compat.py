"""The few private hooks of Textual that luthien needs, all in one place.

Textual is pinned; a test fails when one of these moves. Here: a driver that a slow or dead terminal cannot block, the last
gate that no control character passes on its way to the terminal, crash reports without local variables, growth of
a scrolled widget without a layout, a toast in the place of another, the terminal's title, what an input draws, and going on
after a stop.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from rich.segment import Segment, Segments
from rich.text import Text
from textual.color import Color
from textual.filter import LineFilter
from textual.geometry import Size
from textual.widget import Widget
from textual.widgets import Input

from luthien_tui.text import typed

if TYPE_CHECKING:
    from textual.app import App
    from textual.driver import Driver
    from textual.notifications import Notification

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class ControlGate(LineFilter):
    """Deletes C0, DEL and C1 from every segment. They are zero cells wide, so nothing moves."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(segment.text.isprintable() for segment in segments):
            return segments
        return [
            segment if segment.control or segment.text.isprintable() else segment._replace(text=_CONTROL.sub("", segment.text))
            for segment in segments
        ]


class VisibleInput(Input):
    """A line to type in that draws a sign for each character that a terminal would obey or hide: what is pasted may come from
    anywhere. Its value stays as it was typed."""

    @property
    def _value(self) -> Text:
        return Text(typed(self.value), no_wrap=True, overflow="ignore", end="")


def driver_class() -> type[Driver]:
    """The driver for this platform; on POSIX one that never lets the terminal block the event loop."""
    if sys.platform == "win32":
        from textual.drivers.windows_driver import WindowsDriver

        return WindowsDriver

    from textual.drivers.linux_driver import LinuxDriver

    class PatientDriver(LinuxDriver):
        """Queues without bound; the frame pump watches `backlog` and stops drawing instead."""

        def start_application_mode(self) -> None:
            super().start_application_mode()  # type: ignore[no-untyped-call]
            if self._writer_thread is not None:
                self._writer_thread._queue.maxsize = 0

        def _sigcont_application(self, *_: object) -> None:
            """Take the terminal back only where it was given up: one that hangs up sends this signal too, and a second thread
            for its input would never end."""
            if self._must_signal_resume:
                super()._sigcont_application()

        def close(self) -> None:
            """End the writer; a terminal that takes nothing any more is given up after two seconds."""
            if self._writer_thread is not None:
                self._writer_thread._queue.put(None)
                self._writer_thread.join(timeout=2.0)

        @property
        def backlog(self) -> int:
            """Writes that the terminal has not taken yet."""
            return self._writer_thread._queue.qsize() if self._writer_thread is not None else 0

    return PatientDriver


def backlog(app: App[Any]) -> int:
    """Writes that the terminal has not taken yet; 0 for a driver that does not know."""
    return int(getattr(app._driver, "backlog", 0))


def crash_report(app: App[Any]) -> None:
    """End the app after an unhandled exception, with a traceback that shows no local variables."""
    from rich.traceback import Traceback

    app.bell()
    traceback = Traceback(show_locals=False, width=100, extra_lines=1)
    app._exit_renderables.append(Segments(app.console.render(traceback, app.console.options)))
    app._close_messages_no_wait()


def grow(widget: Widget, size: Size) -> None:
    """Give a scrolled widget another virtual size without laying out the screen."""
    widget.set_reactive(Widget.virtual_size, size)
    widget._scroll_update(size)


def jump(widget: Widget, line: int) -> None:
    """Scroll to `line` at once, without watchers, animation or layout."""
    line = max(0, min(line, widget.max_scroll_y))
    widget.set_reactive(Widget.scroll_y, float(line))
    widget.set_reactive(Widget.scroll_target_y, float(line))
    if widget.show_vertical_scrollbar:
        widget.vertical_scrollbar.position = line


def screen_lines(app: App[Any]) -> list[str]:
    """What is on the screen now, as text."""
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


def replace_toast(app: App[Any], old: Notification | None, new: Notification) -> None:
    """Show a toast in the place of another one."""
    if old is not None and old in app._notifications:
        app._unnotify(old, refresh=False)
    app._notifications.add(new)
    app._refresh_notifications()


def set_title(app: App[Any], title: str, *, first: bool) -> None:
    """Set the terminal's title; `first`: have the terminal remember the one it has. Only luthien's own printable words."""
    if app._driver is not None and title.isascii() and title.isprintable():
        app._driver.write(("\x1b[22;2t" if first else "") + f"\x1b]2;{title}\x07")


def restore_title(app: App[Any]) -> None:
    """Bring back the title that the terminal remembers."""
    if app._driver is not None:
        app._driver.write("\x1b[23;2t")
