"""Every state of the sessions view as text, at the two sizes that matter most."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.luthien_tui.fake_plane import FakePlane
from tests.luthien_tui.fake_sessions import sessions_plane
from tests.luthien_tui.screen.console import SIZES, WIDE, Console, console

Golden = Callable[[str, str], None]
both_sizes = pytest.mark.parametrize("size", SIZES)


async def opened(shown: Console) -> None:
    """Open the first session and wait for its text."""
    await shown.press("3")
    await shown.see("refactor-a3  ")
    await shown.press("enter")
    await shown.see("40 GB again")


@both_sizes
async def test_the_list(size: str, golden: Golden) -> None:
    async with console(sessions_plane(), SIZES[size]) as shown:
        await shown.press("3")
        await shown.see("7 sessions")
        golden(f"sessions_{size}", shown.text)


@both_sizes
async def test_a_conversation(size: str, golden: Golden) -> None:
    async with console(sessions_plane(), SIZES[size]) as shown:
        await opened(shown)
        await shown.press("g")
        golden(f"session_{size}", shown.text)
        await shown.press("G")
        golden(f"session_end_{size}", shown.text)


@both_sizes
async def test_everything_unfolded(size: str, golden: Golden) -> None:
    async with console(sessions_plane(), SIZES[size]) as shown:
        await opened(shown)
        await shown.press("z", "g", "right", "right")
        await shown.see("Give this conversation a title.")
        golden(f"session_unfolded_{size}", shown.text)


@both_sizes
async def test_what_changed_from_turn_to_turn(size: str, golden: Golden) -> None:
    async with console(sessions_plane(), SIZES[size]) as shown:
        await opened(shown)
        await shown.press("d")
        await shown.see("what the request brings")
        golden(f"session_diff_{size}", shown.text)


@both_sizes
async def test_agents(size: str, golden: Golden) -> None:
    async with console(sessions_plane(), SIZES[size]) as shown:
        await shown.press("3", "a")
        await shown.see("2 agents")
        golden(f"agents_{size}", shown.text)
        await shown.press("enter")
        await shown.see("tools that it called")
        golden(f"agent_{size}", shown.text)


@both_sizes
async def test_no_sessions_yet(size: str, golden: Golden) -> None:
    async with console(FakePlane(), SIZES[size]) as shown:
        await shown.press("3")
        await shown.see("Waiting for the first request")
        golden(f"sessions_none_{size}", shown.text)


async def test_wide_has_the_conversation_beside_the_list(golden: Golden) -> None:
    async with console(sessions_plane(), WIDE) as shown:
        await opened(shown)
        golden("sessions_180x40", shown.text)
