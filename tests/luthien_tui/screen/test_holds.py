"""What an operator does with what waits, by keys, and what comes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from textual.events import Paste

from tests.luthien_tui.fake_plane import FakePlane, anthropic_events, held_plane, make_hold
from tests.luthien_tui.screen.console import NORMAL, SMALL, Console, console

LONG = json.dumps({"command": "\n".join(f"echo step {number}" for number in range(80)) + "\nrm -rf /"})


async def settled(shown: Console) -> None:
    """Look at what is displayed for longer than a key may be on its way."""
    await shown.frame()
    shown.plane.clock.now += 0.6
    await shown.frame()


async def at_holds(shown: Console) -> None:
    await shown.press("2")
    await settled(shown)


def status(plane: FakePlane, hold_id: str) -> str:
    return next(hold.status for hold in plane.hold_infos if hold.id == hold_id)


def waits(*holds: Any) -> FakePlane:
    plane = FakePlane()
    plane.hold(*holds)
    return plane


# --- the queue ---------------------------------------------------------------------------------------------------


async def test_a_new_hold_is_told_of_and_takes_no_focus() -> None:
    plane = held_plane()
    plane.hold_infos.clear()
    async with console(plane) as shown:
        before = shown.app.focused
        assert "2 Holds ●" not in shown.text
        plane.hold(make_hold(1))
        await shown.see("2 Holds ●1")
        assert "held: bash of ops-7f · 2 shows it" in shown.text
        assert shown.app.focused is before
        assert shown.app.view == "live"


async def test_new_holds_are_one_toast() -> None:
    async with console(waits(make_hold(1))) as shown:
        for number in range(2, 30):
            shown.plane.hold(make_hold(number))
            await shown.frame()
        await shown.see("29 new holds wait for you · 2 shows them")
        assert shown.text.count("2 shows") == 1
        assert len(shown.app._notifications) == 1
        await shown.press("2")
        await shown.until(lambda: not len(shown.app._notifications))


async def test_the_title_counts_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = FakePlane()
    async with console(plane) as shown:
        written: list[str] = []
        driver = shown.app._driver
        assert driver is not None
        monkeypatch.setattr(driver, "write", written.append)
        plane.hold(make_hold(1, tool="\x1b]0;x\x07"), make_hold(2))
        await shown.frame()
        plane.settle("hold-1", "denied", "anna")
        await shown.frame()
        shown.app.alerts.leave()
        titles = [text for text in written if "]2;" in text or "[23;2t" in text]
        assert titles == ["\x1b[22;2t\x1b]2;luthien (2 held)\x07", "\x1b]2;luthien (1 held)\x07", "\x1b[23;2t"]


async def test_the_queue_shows_age_time_left_stage_and_who_waits() -> None:
    async with console(held_plane()) as shown:
        await at_holds(shown)
        queue = "\n".join(line[:50] for line in shown.lines)
        assert "0:42 ███████░ denies in 9:18" in queue
        assert "2 wait" in queue
        assert "tool call bash" in queue
        assert "approves in" in queue
        assert "✗ denied by anna" in queue
        shown.plane.clock.now += 30
        await shown.frame()
        assert "1:12 ███████░ denies in 8:47" in shown.text


async def test_the_gateway_is_asked_only_when_the_feed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = held_plane()
    async with console(plane) as shown:
        asked: list[bool] = []
        monkeypatch.setattr(plane, "holds", lambda *, decided=False: asked.append(decided) or [])
        for _ in range(20):
            await shown.frame()
        assert not asked
        plane.hold(make_hold(7))
        await shown.frame()
        assert asked == [False]


async def test_the_live_row_counts_up_and_leads_to_its_hold() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        assert "‖ held 0:42" in shown.text
        plane.clock.now += 5
        await shown.frame()
        assert "‖ held 0:47" in shown.text
        await shown.press("G", "x")
        assert shown.app.view == "holds"
        assert status(plane, "hold-42") == "pending"
        assert shown.app.holds.queue.selected_id == "hold-42"
        assert not shown.app.holds.typing


# --- decisions ---------------------------------------------------------------------------------------------------


async def test_approves_what_is_shown_and_goes_to_the_next() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        assert "rm -rf /srv/builds" in shown.text
        assert "seen whole" in shown.text
        await shown.press("a")
        await shown.until(lambda: status(plane, "hold-42") == "approved")
        await shown.until(lambda: shown.app.holds.queue.selected_id == "hold-30")
        assert "approved: bash" in shown.text
        assert "send_mail" in shown.text


async def test_a_key_on_its_way_does_not_decide_on_the_next() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.press("a")
        await shown.until(lambda: shown.app.holds.queue.selected_id == "hold-30")
        await shown.press("a", "a", "x", "t", "e")
        assert status(plane, "hold-30") == "pending"
        assert not shown.app.holds.typing
        await settled(shown)
        await shown.press("a")
        await shown.until(lambda: status(plane, "hold-30") == "approved")


async def test_keys_quicker_than_the_screen_decide_on_nothing() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        shown.app.holds.queue.move(1)
        shown.app.holds.approve()
        shown.app.holds.deny()
        await shown.frame()
        assert {hold.status for hold in plane.hold_infos[:3]} == {"pending"}
        assert not shown.app.holds.typing


async def test_what_goes_on_below_must_be_seen_before_it_is_approved() -> None:
    plane = waits(make_hold(1, content=LONG))
    async with console(plane) as shown:
        await at_holds(shown)
        assert "more lines below: scroll to see them, then approve" in shown.text
        await shown.press("a", "e")
        assert status(plane, "hold-1") == "pending"
        assert not shown.app.holds.typing
        assert "look at all of it first" in shown.text
        await shown.press("enter")
        while "more line" in shown.text:
            assert not shown.app.holds.can_approve
            await shown.press("pagedown")
        assert "seen whole" in shown.text
        await shown.press("a")
        await shown.until(lambda: status(plane, "hold-1") == "approved")


async def test_what_goes_on_below_can_be_denied() -> None:
    plane = waits(make_hold(1, content=LONG))
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.press("x", "enter")
        await shown.until(lambda: status(plane, "hold-1") == "denied")


async def test_blanks_hide_no_tail() -> None:
    plane = waits(make_hold(1, content='{"command": "ls' + " " * 5_000 + '; rm -rf /"}'))
    async with console(plane) as shown:
        await at_holds(shown)
        assert "⟨5000 blanks⟩; rm -rf /" in shown.text


async def test_denies_with_a_reason() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.press("x")
        await shown.type("not on a friday")
        assert "enter deny" in shown.lines[-1]
        await shown.press("enter")
        await shown.until(lambda: status(plane, "hold-42") == "denied")
        assert plane.hold_infos[0].message == "not on a friday"


async def test_escape_leaves_a_denial_alone() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.press("x", "n", "o", "escape")
        assert not shown.app.holds.typing
        assert status(plane, "hold-42") == "pending"


async def test_edits_and_approves_what_was_edited() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.press("e")
        assert "ctrl+s approve this text" in shown.lines[-1]
        shown.app.holds.editor.load_text('{"command": "ls"')
        await shown.press("ctrl+s")
        await shown.see("edited: this is not JSON")
        assert status(plane, "hold-42") == "pending"
        shown.app.holds.editor.load_text('{"command": "ls"}')
        await shown.press("ctrl+s")
        await shown.until(lambda: status(plane, "hold-42") == "edited")
        assert plane.hold_infos[0].content == '{"command": "ls"}'
        assert not shown.app.holds.typing


async def test_escape_leaves_an_edit_alone_and_letters_only_type() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.press("e", "x", "a", "t", "q", "escape")
        assert not shown.app.holds.typing
        assert {hold.status for hold in plane.hold_infos[:3]} == {"pending"}
        assert plane.shutdowns == 0


async def test_gives_more_time() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        before = plane.hold_infos[0].deadline
        await shown.press("t")
        await shown.until(lambda: plane.hold_infos[0].deadline == before + 300)
        await shown.see("denies in 14:17")
        assert shown.app.holds.queue.selected_id == "hold-42"


async def test_somebody_else_was_quicker() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        place, hold = plane._hold("hold-42")
        plane.hold_infos[place] = type(hold)(
            **{**{f: getattr(hold, f) for f in hold.__struct_fields__}, "status": "denied", "decided_by": "anna"}
        )
        await shown.press("a")
        await shown.see("already denied by anna")
        assert status(plane, "hold-42") == "denied"


async def test_a_decision_made_elsewhere_moves_nothing() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        plane.settle("hold-42", "denied", "anna")
        await shown.frame()
        assert shown.app.holds.queue.selected_id == "hold-42"
        assert "✗ denied by anna" in shown.text
        await settled(shown)
        await shown.press("a", "x")
        assert status(plane, "hold-42") == "denied"
        assert not shown.app.holds.typing


async def test_what_has_changed_is_refused_and_shown_anew() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        plane.hold_infos[0] = make_hold(42, content='{"command": "rm -rf /"}')
        await shown.press("a")
        await shown.see("what was shown has changed")
        await shown.see('rm -rf /"')
        assert status(plane, "hold-42") == "pending"
        assert not shown.app.holds.can_approve


async def test_a_new_hold_does_not_come_before_the_one_that_is_read() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.press("j")
        await settled(shown)
        plane.hold(make_hold(200, content='{"command": "evil"}'))
        await shown.frame()
        assert shown.app.holds.queue.selected_id == "hold-30"
        assert "2 Holds ●4" in shown.text
        await shown.press("a")
        await shown.until(lambda: status(plane, "hold-30") == "approved")
        assert status(plane, "hold-200") == "pending"


async def test_an_edit_goes_on_while_others_come_and_is_refused_if_decided_meanwhile() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.press("e")
        plane.hold(make_hold(201))
        plane.settle("hold-42", "expired", "luthien")
        await shown.frame()
        assert shown.app.holds.typing
        assert "rm -rf /srv" in shown.app.holds.editor.text
        await shown.press("ctrl+s")
        await shown.see("already expired by luthien")
        assert not shown.app.holds.typing


# --- what never decides ------------------------------------------------------------------------------------------


async def test_clicks_and_pastes_never_decide() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        for y in range(2, 36):
            for x in (5, 20, 55, 70, 90):
                await shown.pilot.click(offset=(x, y))
        await settled(shown)
        shown.app.screen.post_message(Paste("a\nx\nyes\n"))
        await settled(shown)
        assert {hold.status for hold in plane.hold_infos if hold.id in ("hold-42", "hold-30", "hold-5")} == {"pending"}


async def test_palette_and_help_do_not_decide() -> None:
    plane = held_plane()
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.press("ctrl+p")
        await shown.type("approve")
        await shown.press("down", "enter", "escape", "escape")
        await settled(shown)
        await shown.press("question_mark")
        await shown.type("Let what is shown")
        await shown.press("enter")
        await shown.see("press its key while you look at it")
        assert {hold.status for hold in plane.hold_infos[:3]} == {"pending"}


async def test_at_80_columns_what_is_not_shown_is_not_decided_on() -> None:
    plane = held_plane()
    async with console(plane, SMALL) as shown:
        await at_holds(shown)
        assert "what will happen" not in shown.text
        await shown.press("a")
        await shown.see("what will happen")
        await shown.press("a")
        assert status(plane, "hold-42") == "pending"
        await settled(shown)
        await shown.press("a")
        await shown.until(lambda: status(plane, "hold-42") == "approved")


@pytest.mark.parametrize("size", [NORMAL, SMALL])
async def test_nothing_to_decide_is_said(size: tuple[int, int]) -> None:
    async with console(FakePlane(), size) as shown:
        await at_holds(shown)
        assert "Nothing waits for you." in shown.text
        await shown.press("a", "e", "x", "t", "enter", "escape", "j", "k", "G", "g")
        shown.plane.hold(make_hold(3))
        await shown.until(lambda: shown.app.holds.queue.selected_id == "hold-3")
        await shown.press("a")
        assert status(shown.plane, "hold-3") == "pending"


async def test_a_megabyte_is_prepared_off_the_loop_and_can_be_approved_once_seen() -> None:
    plane = waits(make_hold(1, stage="request", tool="", content=json.dumps({"x": "word " * 200_000})))
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.see("more lines below")
        await shown.press("enter", "G")
        await settled(shown)
        assert "seen whole" in shown.text


async def test_what_is_too_long_to_be_shown_can_only_be_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luthien_tui.hold_documents.SHOWN_LIMIT", 100)
    plane = waits(make_hold(1, content=LONG))
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.press("a")
        assert "it can only be denied here" in shown.text
        assert status(plane, "hold-1") == "pending"


async def test_a_response_is_told_as_it_reads_and_shown_exactly() -> None:
    plane = held_plane()
    plane.hold_infos.clear()
    stream = b"".join(anthropic_events("Everything is gone.")).decode()
    plane.hold(make_hold(1, stage="response", tool="", call_id="", transaction_id="01J9ZK000002", content=stream))
    async with console(plane) as shown:
        await at_holds(shown)
        assert "response   POST /v1/messages" in shown.text
        assert "answer     Everything is gone." in shown.text
        assert "▸ tool     bash" in shown.text
        assert "┃ event: message_start" in shown.text
        assert not shown.app.holds.can_approve
        await shown.press("enter")
        while "more line" in shown.text:
            await shown.press("pagedown")
        assert shown.app.holds.can_approve


async def test_what_comes_behind_a_window_is_not_seen() -> None:
    plane = FakePlane()
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.press("question_mark")
        plane.hold(make_hold(1))
        await settled(shown)
        await settled(shown)
        assert not shown.app.holds.can_approve
        await shown.press("escape")
        await settled(shown)
        assert shown.app.holds.can_approve


async def test_another_width_keeps_the_lock() -> None:
    plane = waits(make_hold(1, content=LONG))
    async with console(plane) as shown:
        await at_holds(shown)
        await shown.pilot.resize_terminal(180, 40)
        await settled(shown)
        assert "more lines below" in shown.text
        assert not shown.app.holds.can_approve
