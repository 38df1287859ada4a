"""Every state of the screen as text, at the two sizes that matter most."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.luthien_tui.fake_plane import FakePlane, held_plane, make_hold, make_row, routed_plane, sample_plane, sample_policies
from tests.luthien_tui.screen.console import SIZES, WIDE, console

Golden = Callable[[str, str], None]
ANTHROPIC, STREAMING, FAILED = "01J9ZK000002", "01J9ZK000009", "01J9ZK000004"
both_sizes = pytest.mark.parametrize("size", SIZES)


@both_sizes
async def test_live(size: str, golden: Golden) -> None:
    async with console(sample_plane(), SIZES[size]) as shown:
        golden(f"live_{size}", shown.text)


@both_sizes
async def test_empty(size: str, golden: Golden) -> None:
    async with console(FakePlane(), SIZES[size]) as shown:
        golden(f"empty_{size}", shown.text)


@both_sizes
async def test_demo_is_marked(size: str, golden: Golden) -> None:
    plane = FakePlane()
    plane.gateway.demo = True
    async with console(plane, SIZES[size]) as shown:
        golden(f"demo_{size}", shown.text)


@both_sizes
@pytest.mark.parametrize("tab", ["Summary", "Request", "Response", "Policies", "Raw", "Timing"])
async def test_detail(size: str, tab: str, golden: Golden) -> None:
    async with console(sample_plane(), SIZES[size]) as shown:
        await shown.open(ANTHROPIC, tab)
        golden(f"detail_{tab.lower()}_{size}", shown.text)


@both_sizes
async def test_a_failed_transaction_says_why(size: str, golden: Golden) -> None:
    async with console(sample_plane(), SIZES[size]) as shown:
        await shown.open(FAILED)
        golden(f"failed_{size}", shown.text)


async def test_wide_has_the_detail_at_the_right(golden: Golden) -> None:
    async with console(sample_plane(), WIDE) as shown:
        await shown.open(ANTHROPIC)
        golden("detail_180x40", shown.text)


@both_sizes
async def test_a_running_response(size: str, golden: Golden) -> None:
    async with console(sample_plane(), SIZES[size]) as shown:
        await shown.open(STREAMING, "Response")
        golden(f"streaming_{size}", shown.text)


@both_sizes
async def test_routing(size: str, golden: Golden) -> None:
    async with console(routed_plane(), SIZES[size]) as shown:
        await shown.press("5", "right", "right")
        await shown.see("would move 7")
        golden(f"routing_{size}", shown.text)


@both_sizes
async def test_log(size: str, golden: Golden) -> None:
    async with console(sample_plane(), SIZES[size]) as shown:
        await shown.press("8")
        golden(f"log_{size}", shown.text)


@both_sizes
async def test_help(size: str, golden: Golden) -> None:
    async with console(sample_plane(), SIZES[size]) as shown:
        await shown.press("question_mark")
        golden(f"help_{size}", shown.text)


@both_sizes
async def test_filter_that_cannot_be_read(size: str, golden: Golden) -> None:
    async with console(sample_plane(), SIZES[size]) as shown:
        await shown.press("f")
        await shown.type("model:gpt* latenzy>800")
        golden(f"filter_error_{size}", shown.text)


@both_sizes
async def test_filter_that_hides_all(size: str, golden: Golden) -> None:
    async with console(sample_plane(), SIZES[size]) as shown:
        await shown.press("f")
        await shown.type("model:gemini*")
        await shown.press("enter")
        golden(f"filter_none_{size}", shown.text)


@both_sizes
async def test_new_rows_while_paused(size: str, golden: Golden) -> None:
    plane = sample_plane()
    for number in range(20, 60):
        plane.add(make_row(number))
    async with console(plane, SIZES[size]) as shown:
        await shown.press("k", "k")
        for number in range(60, 97):
            plane.add(make_row(number))
        await shown.frame()
        golden(f"paused_{size}", shown.text)


@both_sizes
async def test_trouble_is_in_the_first_line(size: str, golden: Golden) -> None:
    plane = sample_plane()
    plane.gateway.journal_status = "spilling"
    plane.gateway.spilled = 312
    plane.gateway.journal_queue = 48
    plane.gateway.loop_lag_ms = 61.0
    async with console(plane, SIZES[size]) as shown:
        golden(f"trouble_{size}", shown.text)


@both_sizes
async def test_quit_asks_while_something_runs(size: str, golden: Golden) -> None:
    async with console(sample_plane(), SIZES[size]) as shown:
        await shown.press("q")
        golden(f"quit_{size}", shown.text)
        await shown.press("y")
        golden(f"draining_{size}", shown.text)


@both_sizes
async def test_copy_menu(size: str, golden: Golden) -> None:
    async with console(sample_plane(), SIZES[size]) as shown:
        await shown.press("y")
        golden(f"copy_{size}", shown.text)


async def test_the_least_size(golden: Golden) -> None:
    async with console(sample_plane(), (60, 15)) as shown:
        golden("live_60x15", shown.text)
        await shown.open(ANTHROPIC)
        golden("detail_60x15", shown.text)


async def test_too_small(golden: Golden) -> None:
    async with console(sample_plane(), (50, 10)) as shown:
        golden("too_small_50x10", shown.text)


@both_sizes
async def test_what_waits_in_the_live_view(size: str, golden: Golden) -> None:
    plane = held_plane()
    async with console(plane, SIZES[size]) as shown:
        shown.app.clear_notifications()
        await shown.press("G", "k", "j")
        golden(f"live_held_{size}", shown.text)


@both_sizes
async def test_holds(size: str, golden: Golden) -> None:
    plane = held_plane()
    async with console(plane, SIZES[size]) as shown:
        await shown.press("2")
        plane.clock.now += 1
        await shown.frame()
        golden(f"holds_{size}", shown.text)
        await shown.press("j", "enter")
        plane.clock.now += 1
        await shown.frame()
        golden(f"holds_story_{size}", shown.text)


@both_sizes
async def test_holds_where_more_is_below(size: str, golden: Golden) -> None:
    plane = FakePlane()
    plane.hold(make_hold(9, content="\n".join(f"step {number}" for number in range(60))))
    async with console(plane, SIZES[size]) as shown:
        await shown.press("2", "enter")
        golden(f"holds_locked_{size}", shown.text)


@both_sizes
async def test_editing_and_denying_a_hold(size: str, golden: Golden) -> None:
    plane = held_plane()
    async with console(plane, SIZES[size]) as shown:
        await shown.press("2", "enter")
        plane.clock.now += 1
        await shown.frame()
        await shown.press("x")
        golden(f"holds_denying_{size}", shown.text)
        await shown.press("escape", "e")
        shown.app.holds.editor.load_text("{")
        await shown.press("ctrl+s")
        await shown.see("not JSON")
        golden(f"holds_editing_{size}", shown.text)


@both_sizes
async def test_policies(size: str, golden: Golden) -> None:
    plane = sample_plane()
    plane.policy_infos = sample_policies()
    async with console(plane, SIZES[size]) as shown:
        await shown.press("4")
        golden(f"policies_{size}", shown.text)
        await shown.press("j", "j", "right", "right")
        golden(f"policies_pending_{size}", shown.text)


@both_sizes
async def test_nothing_to_control(size: str, golden: Golden) -> None:
    async with console(FakePlane(), SIZES[size]) as shown:
        await shown.press("2")
        golden(f"holds_none_{size}", shown.text)
        await shown.press("4")
        golden(f"policies_none_{size}", shown.text)


async def test_wide_has_the_panel_at_the_right(golden: Golden) -> None:
    plane = held_plane()
    async with console(plane, WIDE) as shown:
        await shown.press("4")
        golden("policies_180x40", shown.text)
        await shown.press("2")
        golden("holds_180x40", shown.text)
