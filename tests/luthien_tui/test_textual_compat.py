"""The private hooks of Textual that luthien leans on are where they were."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest
from rich.segment import ControlType, Segment
from rich.style import Style
from textual.app import App, ComposeResult
from textual.color import Color
from textual.drivers._writer_thread import WriterThread
from textual.drivers.linux_driver import LinuxDriver
from textual.widget import Widget

from luthien_tui import textual_compat
from luthien_tui.textual_compat import ControlGate
from tests.luthien_tui.fake_plane import FakePlane
from tests.luthien_tui.screen.console import console


def test_the_hooks_have_not_moved() -> None:
    assert "_queue" in inspect.getsource(WriterThread.__init__)
    assert "_queue.put" in inspect.getsource(WriterThread.write)
    assert "_writer_thread" in inspect.getsource(LinuxDriver.start_application_mode)
    assert "_writer_thread.stop" in inspect.getsource(LinuxDriver.close)
    assert "_must_signal_resume = True" in inspect.getsource(LinuxDriver._sigtstp_application)
    assert "self._fatal_error()" in inspect.getsource(App._handle_exception)
    assert "show_locals=True" in inspect.getsource(App._fatal_error)
    assert "get_line_filters" in inspect.getsource(Widget.get_line_filters)
    assert list(inspect.signature(Widget._scroll_update).parameters) == ["self", "virtual_size"]
    assert list(inspect.signature(Widget.render_lines).parameters) == ["self", "crop"]


def test_the_gate_deletes_control_characters_and_nothing_else() -> None:
    red = Style(color="red")
    gate = ControlGate()
    clean = [Segment("plain ", red), Segment("漢字 ␛")]
    assert gate.apply(clean, Color(0, 0, 0)) is clean
    move = Segment("\x1b[2;3H", None, [(ControlType.CURSOR_MOVE_TO, 2, 3)])
    dirty = [Segment("a\x1b]0;x\x07b", red), Segment("\x9b2J"), Segment("ok"), move]
    assert gate.apply(dirty, Color(0, 0, 0)) == [Segment("a]0;xb", red), Segment("2J"), Segment("ok"), move]


@pytest.mark.skipif(sys.platform == "win32", reason="the POSIX driver")
def test_the_driver_never_waits_for_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class NeverWrites(WriterThread):
        def run(self) -> None:
            return

    def start(driver: Any) -> None:
        driver._writer_thread = NeverWrites(sys.__stderr__)
        driver._writer_thread.start()

    monkeypatch.setattr(LinuxDriver, "start_application_mode", start)
    driver: Any = object.__new__(textual_compat.driver_class())
    driver._writer_thread = None
    assert driver.backlog == 0
    driver.start_application_mode()
    for number in range(500):
        driver._writer_thread.write(str(number))
    assert driver.backlog == 500
    driver.close()


async def test_a_crash_shows_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        local_secret = "sk-" + "secret" * 3
        raise RuntimeError(f"a defect of length {len(local_secret)}")

    with pytest.raises(RuntimeError):
        async with console(FakePlane()) as shown:
            shown.app.call_later(broken)
            await shown.pilot.pause()
            await shown.pilot.pause()
    output = capsys.readouterr()
    assert "sk-secret" not in output.out + output.err


async def test_growing_a_widget_lays_nothing_out() -> None:
    async with console(FakePlane()) as shown:
        table = shown.app.live.table
        laid_out = shown.app.screen._layout_required
        textual_compat.grow(table, table.size.with_height(5_000))
        assert shown.app.screen._layout_required == laid_out
        assert table.max_scroll_y > 4_000
        textual_compat.jump(table, 1_234)
        assert table.scroll_offset.y == 1_234


async def test_a_toast_can_take_the_place_of_another_and_of_one_that_is_gone() -> None:
    from textual.notifications import Notification

    app: App[None] = App()
    async with app.run_test(notifications=True) as pilot:
        first, second, third = (Notification(text) for text in ("one", "two", "three"))
        textual_compat.replace_toast(app, None, first)
        textual_compat.replace_toast(app, first, second)
        await pilot.pause()
        assert [toast.message for toast in app._notifications] == ["two"]
        app.clear_notifications()
        textual_compat.replace_toast(app, second, third)
        await pilot.pause()
        assert [toast.message for toast in app._notifications] == ["three"]


async def test_the_title_takes_only_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    app: App[None] = App()
    async with app.run_test():
        written: list[str] = []
        assert app._driver is not None
        monkeypatch.setattr(app._driver, "write", written.append)
        textual_compat.set_title(app, "luthien (2 held)", first=True)
        textual_compat.set_title(app, "x\x07\x1b[2J", first=False)
        textual_compat.restore_title(app)
        assert written == ["\x1b[22;2t\x1b]2;luthien (2 held)\x07", "\x1b[23;2t"]


async def test_an_input_draws_signs_for_what_would_act() -> None:
    class Typing(App[None]):
        def compose(self) -> ComposeResult:
            yield textual_compat.VisibleInput("a\u202eb\x1b]0;x\x07", id="line")

    app = Typing()
    async with app.run_test(size=(40, 5)) as pilot:
        await pilot.pause()
        drawn = "\n".join(textual_compat.screen_lines(app))
        assert "a\ufffdb\u241b]0;x\u2407" in drawn
        assert app.query_one("#line", textual_compat.VisibleInput).value == "a\u202eb\x1b]0;x\x07"
