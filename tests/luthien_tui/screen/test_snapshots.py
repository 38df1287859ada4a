"""Pictures of the states that carry the colours; the report of a failing run shows both sides."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from luthien_tui.app import LuthienApp
from tests.luthien_tui.fake_plane import FakePlane, held_plane, sample_plane
from tests.luthien_tui.fake_sessions import sessions_plane
from tests.luthien_tui.screen.console import NORMAL, SIZES, Console, Ending, make_app

Snapshot = Callable[..., bool]


def steps(plane: FakePlane, act: Callable[[Console], Any] | None = None) -> Callable[[Pilot[None]], Any]:
    """What happens before the picture is taken."""

    async def run(pilot: Pilot[None]) -> None:
        assert isinstance(pilot.app, LuthienApp)
        shown = Console(pilot.app, plane, Ending(), pilot)
        await shown.frame()
        await shown.frame()
        if act is not None:
            await act(shown)
        await shown.settle()

    return run


@pytest.mark.parametrize("size", SIZES)
def test_live(size: str, snap_compare: Snapshot) -> None:
    plane = sample_plane()
    assert snap_compare(make_app(plane), terminal_size=SIZES[size], run_before=steps(plane))


@pytest.mark.parametrize("size", SIZES)
def test_an_open_transaction(size: str, snap_compare: Snapshot) -> None:
    plane = sample_plane()
    opened = steps(plane, lambda shown: shown.open("01J9ZK000002", "Request"))
    assert snap_compare(make_app(plane), terminal_size=SIZES[size], run_before=opened)


def test_empty(snap_compare: Snapshot) -> None:
    plane = FakePlane()
    assert snap_compare(make_app(plane), terminal_size=NORMAL, run_before=steps(plane))


def test_help(snap_compare: Snapshot) -> None:
    plane = sample_plane()
    helped = steps(plane, lambda shown: shown.press("question_mark"))
    assert snap_compare(make_app(plane), terminal_size=NORMAL, run_before=helped)


def test_holds(snap_compare: Snapshot) -> None:
    plane = held_plane()

    async def queued(shown: Console) -> None:
        await shown.press("2")
        await shown.see("dangerous_commands ✗ denied")

    assert snap_compare(make_app(plane), terminal_size=NORMAL, run_before=steps(plane, queued))


def test_a_conversation(snap_compare: Snapshot) -> None:
    plane = sessions_plane()

    async def opened(shown: Console) -> None:
        await shown.press("3")
        await shown.see("7 sessions")
        await shown.press("enter")
        await shown.see("40 GB again")
        await shown.press("g", "right", "right")

    assert snap_compare(make_app(plane), terminal_size=NORMAL, run_before=steps(plane, opened))


def test_policies(snap_compare: Snapshot) -> None:
    plane = held_plane()

    async def moved(shown: Console) -> None:
        await shown.press("4", "j", "j", "right")
        shown.app.clear_notifications()
        await shown.frame()

    assert snap_compare(make_app(plane), terminal_size=NORMAL, run_before=steps(plane, moved))


def test_no_tone_is_a_literal_colour() -> None:
    from luthien_tui.widgets.paint import TONE_CSS

    assert not re.search(r"#[0-9a-f]{3,8}\b|\b(red|green|blue|yellow|cyan|white|black)\b", TONE_CSS)
