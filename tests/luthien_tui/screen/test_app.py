"""What an operator does, by keys, and what is seen then."""

from __future__ import annotations

import base64

import pytest

from luthien_tui.widgets.quit_screen import DrainScreen, QuitScreen
from proxy_core.settings import UiSettings
from tests.luthien_tui.fake_plane import FakeLogs, FakePlane, anthropic_events, make_row, sample_detail, sample_plane
from tests.luthien_tui.screen.console import NORMAL, SMALL, Console, console

STREAMING = "01J9ZK000009"


def filled(count: int = 100) -> FakePlane:
    plane = FakePlane()
    for number in range(count):
        row = plane.add(make_row(number))
        plane.details[row.transaction_id] = sample_detail(row)
    return plane


def last_row(shown: Console) -> str:
    """The lowest row of the table."""
    return shown.lines[3 + shown.app.live.table.visible_lines - 1]


# --- the list ----------------------------------------------------------------------------------------------------


async def test_follows_until_the_selection_moves_up_and_again_after_G() -> None:
    plane = filled()
    async with console(plane) as shown:
        plane.add(make_row(200, session_id="newest"))
        await shown.frame()
        assert "newest" in last_row(shown)
        await shown.press("k")
        assert "PAUSED" in shown.text
        for number in range(201, 211):
            plane.add(make_row(number, session_id="later"))
        await shown.frame()
        assert "later" not in shown.text
        assert "+10 new · G to follow" in shown.text
        await shown.press("G")
        assert "later" in last_row(shown)
        assert "FOLLOW" in shown.text
        assert "new · G" not in shown.text


async def test_the_pill_counts_down_as_the_operator_scrolls() -> None:
    plane = filled()
    async with console(plane) as shown:
        await shown.press("k")
        for number in range(200, 240):
            plane.add(make_row(number))
        await shown.frame()
        await shown.press("pagedown")
        assert "+40 new" not in shown.text
        assert " new · G to follow" in shown.text


async def test_selection_stays_on_its_transaction_while_the_list_moves() -> None:
    plane = filled(10)
    async with console(plane, ui=UiSettings(rows=100)) as shown:
        await shown.press("k", "k", "k")
        chosen = shown.app.live.table.selected_id
        for number in range(200, 300):
            plane.add(make_row(number))
        await shown.frame()
        assert shown.app.live.table.selected_id == chosen
        await shown.press("j")
        index = shown.app.rows.index(chosen or "")
        if index is not None:
            moved_to = shown.app.rows.index(shown.app.live.table.selected_id or "")
            assert moved_to == index + 1


async def test_the_window_stays_on_its_rows_when_old_ones_are_dropped() -> None:
    plane = filled(100)
    async with console(plane, ui=UiSettings(rows=100)) as shown:
        await shown.press("k")
        top = shown.lines[3]
        for number in range(100, 130):
            plane.add(make_row(number))
        await shown.frame()
        assert shown.app.rows.dropped
        assert shown.lines[3] == top


async def test_home_end_and_pages() -> None:
    async with console(filled(), SMALL) as shown:
        table = shown.app.live.table
        await shown.press("g")
        assert table.selected_id == "01J9ZK000000"
        await shown.press("pagedown")
        assert table.selected_id == f"01J9ZK{table.size.height - 2:06d}"
        await shown.press("end")
        assert table.selected_id == "01J9ZK000099"
        assert table.follow


async def test_running_rows_show_their_age_and_only_they_are_drawn_again() -> None:
    plane = filled(5)
    plane.add(make_row(50, state="streaming", outcome="", total_ms=None, started_monotonic=995.0, session_id="live-one"))
    async with console(plane) as shown:
        assert " 5.0s" in next(line for line in shown.lines if "live-one" in line)
        plane.clock.now += 7
        await shown.frame()
        assert " 12.0s" in next(line for line in shown.lines if "live-one" in line)


async def test_a_row_changes_when_its_transaction_ends() -> None:
    plane = FakePlane()
    row = plane.add(make_row(1, state="streaming", outcome="", total_ms=None, cost_usd=None))
    async with console(plane) as shown:
        assert "streaming" in shown.text
        row.state, row.outcome, row.total_ms, row.cost_usd = "done", "truncated", 4_000.0, 0.25
        plane.feed.publish("finished", row)
        await shown.frame()
        assert "truncated" in shown.text
        assert "$0.250" in shown.text
        assert "streaming" not in shown.text


async def test_space_holds_the_list_still_while_traffic_goes_on() -> None:
    plane = filled(3)
    async with console(plane) as shown:
        await shown.press("space")
        plane.add(make_row(9, session_id="unseen"))
        await shown.frame()
        assert "FROZEN" in shown.text
        assert "unseen" not in shown.text
        await shown.press("space")
        assert "unseen" in shown.text


async def test_a_click_selects_and_a_second_opens() -> None:
    async with console(filled(10)) as shown:
        await shown.pilot.click("#table", offset=(20, 3))
        await shown.frame()
        assert shown.app.live.table.selected_id == "01J9ZK000002"
        await shown.pilot.click("#table", offset=(20, 3))
        await shown.see("Rename the module")


async def test_history_stands_before_what_happens_now() -> None:
    plane = FakePlane()
    plane.past = [make_row(3, session_id="yesterday"), make_row(2)]
    plane.add(make_row(9, session_id="today"))
    async with console(plane) as shown:
        await shown.app.load_history()
        await shown.frame()
        sessions = [line.split()[1] for line in shown.lines[3:6]]
        assert sessions == ["refactor-a3", "yesterday", "today"]


async def test_lost_feed_records_are_counted() -> None:
    plane = FakePlane()
    plane.feed = type(plane.feed)(capacity=5)
    for number in range(9):
        plane.add(make_row(number), "finished")
    async with console(plane) as shown:
        assert "4 skipped" in shown.text
        assert shown.app.rows.total == 5


# --- filter and search -------------------------------------------------------------------------------------------


async def test_filter_shows_matches_and_counts_and_escape_clears_it() -> None:
    async with console(sample_plane()) as shown:
        await shown.press("f")
        await shown.type("status>=400")
        assert "refactor-a3" in shown.text
        await shown.press("enter")
        assert "2/11" in shown.text
        assert "refactor-a3" not in shown.text
        await shown.press("escape")
        assert "refactor-a3" in shown.text
        assert "2/11" not in shown.text


async def test_a_mistake_names_its_column_and_the_old_filter_stays() -> None:
    async with console(sample_plane()) as shown:
        await shown.press("f")
        await shown.type("model:gpt*")
        await shown.press("enter")
        before = shown.app.rows.filter
        await shown.press("f")
        await shown.type(" latenzy>1")
        await shown.press("enter")
        assert "column 12: no field 'latenzy'; did you mean 'latency'?" in shown.text
        assert shown.app.prompt.is_open
        assert shown.app.rows.filter is before
        await shown.press("escape")
        assert not shown.app.prompt.is_open
        assert shown.app.rows.filter is before
        assert "model:gpt*" in shown.text


async def test_new_rows_are_filtered_as_they_come() -> None:
    plane = filled(3)
    async with console(plane) as shown:
        await shown.press("f")
        await shown.type("session:wanted")
        await shown.press("enter")
        plane.add(make_row(20, session_id="wanted"))
        plane.add(make_row(21, session_id="other"))
        await shown.frame()
        assert "1/5" in shown.text
        assert "wanted" in shown.lines[3]
        assert "other" not in shown.text


async def test_a_filter_that_hides_rows_makes_no_new_ones() -> None:
    plane = filled(60)
    async with console(plane) as shown:
        await shown.press("k")
        plane.add(make_row(70, session_id="fresh"))
        await shown.frame()
        assert "+1 new" in shown.text
        await shown.press("f")
        await shown.type("id:*0")
        await shown.press("enter")
        assert " new · G" not in shown.text
        await shown.press("escape")
        assert " new · G" not in shown.text
        plane.add(make_row(71, session_id="fresher"))
        await shown.frame()
        assert "+1 new" in shown.text


async def test_opening_keeps_the_selected_row_in_sight() -> None:
    async with console(filled(60)) as shown:
        await shown.press("k", "enter")
        await shown.see("14 files changed")
        assert any(line.startswith("▶") for line in shown.lines)


async def test_a_single_late_moment_is_no_trouble_but_a_lasting_one_is() -> None:
    plane = filled(1)
    async with console(plane) as shown:
        plane.gateway.loop_lag_ms = 359.0
        await shown.frame()
        assert "lag 359ms" in shown.text
        assert "loop lags" not in shown.text
        for _ in range(4):
            await shown.frame()
        assert "▲ loop lags 359ms" in shown.text


async def test_search_marks_matches_and_steps_through_them() -> None:
    plane = sample_plane()
    async with console(plane) as shown:
        await shown.open("01J9ZK000002", "Response")
        await shown.press("slash")
        await shown.type("content_block_delta")
        await shown.press("enter")
        assert "/ content_block_delta  1/24" in shown.text
        await shown.press("n")
        assert "  2/24" in shown.text
        await shown.press("N", "N")
        assert "  24/24" in shown.text
        await shown.press("slash")
        await shown.type("zzz")
        await shown.press("enter")
        assert "nothing found" in shown.text


# --- the open transaction ----------------------------------------------------------------------------------------


async def test_enter_opens_tabs_turn_and_escape_closes() -> None:
    async with console(sample_plane()) as shown:
        await shown.open("01J9ZK000000")
        assert "Rename the module and fix its imports." in shown.text
        assert "14 files changed" in shown.text
        await shown.press("right")
        await shown.see('"temperature": 0.2')
        await shown.press("left", "left")
        await shown.see("upstream connected")
        await shown.press("escape")
        assert "upstream connected" not in shown.text
        assert not shown.app.live.detail.is_open


async def test_the_open_transaction_follows_the_selection() -> None:
    async with console(sample_plane()) as shown:
        await shown.open("01J9ZK000000")
        await shown.press("j", "j")
        await shown.see("Clean up the staging server")


async def test_at_80_columns_it_covers_the_list() -> None:
    async with console(sample_plane(), SMALL) as shown:
        await shown.open("01J9ZK000002")
        assert "verdict" not in shown.text
        assert shown.app.focused is shown.app.live.detail.body
        await shown.press("escape")
        assert "verdict" in shown.text
        assert shown.app.focused is shown.app.live.table


async def test_a_running_response_grows_and_then_stands() -> None:
    plane = sample_plane()
    async with console(plane) as shown:
        await shown.open(STREAMING, "Response")
        assert "builds. " in shown.text
        body, _ = plane.live[STREAMING]
        plane.live[STREAMING] = (body + b'event: ping\ndata: {"half": ', False)
        await shown.see('{"half":')
        plane.live[STREAMING] = (plane.live[STREAMING][0] + b"true}\n\n", False)
        await shown.see('ping  {"half": true}')
        row = plane.details[STREAMING].row
        row.state, row.outcome, row.total_ms = "done", "ok", 5_000.0
        plane.details[STREAMING].response_body = b"".join(anthropic_events("It is done. " * 20))
        plane.feed.publish("finished", row)
        await shown.until(lambda: not shown.app.live.detail.is_growing)
        await shown.press("tab", "end")
        await shown.see("message_stop")


async def test_a_response_that_ends_stays_where_it_was_read() -> None:
    plane = sample_plane()
    events = b"".join(anthropic_events("word " * 60, done=False))
    plane.live[STREAMING] = (events, False)
    async with console(plane) as shown:
        await shown.open(STREAMING, "Response")
        body = shown.app.live.detail.body
        assert body.top == body.max_scroll_y > 0
        read = body.top
        row = plane.details[STREAMING].row
        row.state, row.outcome, row.total_ms = "done", "ok", 5_000.0
        plane.details[STREAMING].response_body = events + anthropic_events("")[-1]
        plane.feed.publish("finished", row)
        await shown.until(lambda: not shown.app.live.detail.is_growing and not shown.app.live.detail._loading)
        assert body.top == read


async def test_a_transaction_without_a_record_says_so() -> None:
    plane = filled(1)
    plane.details.clear()
    async with console(plane) as shown:
        await shown.press("enter")
        await shown.see("Its record is not at hand any more.")


async def test_a_part_that_cannot_be_shown_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    from luthien_tui import detail_documents

    def broken(*args: object) -> None:
        raise ValueError("a defect")

    async with console(sample_plane()) as shown:
        monkeypatch.setattr(detail_documents, "summary_document", broken)
        await shown.press("enter")
        await shown.see("This part cannot be shown: ValueError.")
        await shown.press("right")
        await shown.see('"model": "gpt-5.4"')


# --- taking along ------------------------------------------------------------------------------------------------


def copied(shown: Console) -> str:
    return shown.app.clipboard


async def test_copies_and_says_what_and_how_much() -> None:
    async with console(sample_plane()) as shown:
        await shown.press("g", "y", "i")
        await shown.see("copied the id: 12 bytes")
        assert copied(shown) == "01J9ZK000000"
        await shown.press("y", "b")
        await shown.until(lambda: copied(shown).startswith("{"))
        assert '"temperature": 0.2' in copied(shown)
        await shown.press("y", "c")
        await shown.until(lambda: copied(shown).startswith("curl"))
        assert "http://127.0.0.1:4000/v1/chat/completions" in copied(shown)
        assert "[redacted]" not in copied(shown)
        assert "$OPENAI_API_KEY" in copied(shown)


async def test_copies_the_literal_text_and_refuses_too_much() -> None:
    plane = sample_plane()
    async with console(plane) as shown:
        plane.details["01J9ZK000000"].response_body = b"\x1b]52;c;eA==\x07 plain"
        await shown.press("g", "y", "r")
        await shown.until(lambda: "plain" in copied(shown))
        assert copied(shown) == "\x1b]52;c;eA==\x07 plain"
        plane.details["01J9ZK000000"].response_body = b"x" * 80_000
        await shown.press("y", "r")
        await shown.see("80,000 bytes are more than")
        assert "plain" in copied(shown)


async def test_copies_a_setup_line_while_empty() -> None:
    async with console(FakePlane()) as shown:
        await shown.press("c", "a")
        await shown.until(lambda: bool(copied(shown)))
        assert copied(shown) == "export ANTHROPIC_BASE_URL=http://127.0.0.1:4000"


async def test_the_clipboard_is_reached_by_osc_52(monkeypatch: pytest.MonkeyPatch) -> None:
    async with console(sample_plane()) as shown:
        written: list[str] = []
        driver = shown.app._driver
        assert driver is not None
        monkeypatch.setattr(driver, "write", written.append)
        shown.app.copying.to_clipboard("text", "id")
        assert f"\x1b]52;c;{base64.b64encode(b'text').decode()}\a" in written


# --- program -----------------------------------------------------------------------------------------------------


async def test_quits_at_once_when_nothing_runs() -> None:
    plane = filled(2)
    async with console(plane) as shown:
        await shown.press("q")
        assert shown.ending.asked == 1
        assert isinstance(shown.app.screen, DrainScreen)
        shown.ending.closed.set()
        await shown.until(lambda: shown.app.return_code == 0 and shown.app._exit)


async def test_quitting_asks_first_while_something_runs() -> None:
    async with console(sample_plane()) as shown:
        await shown.press("ctrl+q")
        assert isinstance(shown.app.screen, QuitScreen)
        assert "2 in flight: q again or y to drain and quit" in shown.text
        await shown.press("escape")
        assert shown.ending.asked == 0
        await shown.press("q", "q")
        await shown.until(lambda: isinstance(shown.app.screen, DrainScreen))
        assert shown.ending.asked == 1
        await shown.press("q")
        assert shown.ending.asked == 2
        assert "Ending now" in shown.text
        await shown.press("q")
        assert shown.ending.asked == 2


async def test_a_signal_drains_without_asking_and_a_second_forces() -> None:
    async with console(sample_plane()) as shown:
        await shown.press("question_mark")
        shown.app.call_later(shown.app.begin_shutdown_from_signal, "SIGTERM")
        await shown.see("Draining, 2 in flight (SIGTERM)")
        assert shown.ending.asked == 1
        shown.app.call_later(shown.app.begin_shutdown_from_signal, "SIGTERM")
        await shown.until(lambda: shown.ending.asked == 2)


async def test_the_count_of_what_drains_goes_down() -> None:
    plane = sample_plane()
    async with console(plane) as shown:
        await shown.press("q", "y")
        await shown.see("Draining, 2 in flight")
        plane.gateway.active = 1
        await shown.see("Draining, 1 in flight")
        plane.gateway.active = 0
        await shown.see("Closing the journal")


async def test_themes_are_tried_out_and_escape_brings_the_old_one_back() -> None:
    async with console(sample_plane()) as shown:
        assert shown.app.theme == "luthien"
        await shown.press("T")
        await shown.type("nord")
        assert shown.app.theme == "nord"
        await shown.press("escape")
        assert shown.app.theme == "luthien"
        await shown.press("T")
        await shown.type("gruvbox")
        await shown.press("enter")
        assert shown.app.theme == "gruvbox"


async def test_another_theme_repaints_every_line() -> None:
    def colours(shown: Console) -> set[object]:
        return {segment.style.bgcolor for segment in shown.segments if segment.style is not None}

    async with console(sample_plane()) as shown:
        await shown.open("01J9ZK000002", "Request")
        before = colours(shown)
        shown.app.theme = "textual-light"
        await shown.until(lambda: not before & colours(shown))
        shown.app.theme = "luthien"
        await shown.until(lambda: colours(shown) == before)


async def test_every_theme_draws_every_tone() -> None:
    async with console(sample_plane()) as shown:
        for name in shown.app.available_themes:
            shown.app.theme = name
            await shown.frame()
            assert "refactor-a3" in shown.text


async def test_an_unknown_theme_is_named() -> None:
    async with console(FakePlane(), ui=UiSettings(theme="pink")) as shown:
        assert shown.app.theme == "luthien"
        await shown.see("there is no theme 'pink'")


async def test_errors_in_the_log_are_counted_until_they_are_seen() -> None:
    logs = FakeLogs()
    async with console(sample_plane(), logs=logs) as shown:
        logs.add("ERROR", "proxy_core.journal", "disk is full")
        await shown.frame()
        assert "8 Log ✗1" in shown.text
        await shown.press("8")
        assert "disk is full" in shown.text
        await shown.press("1")
        assert "✗1" not in shown.text


async def test_growing_again_after_it_was_too_small() -> None:
    async with console(sample_plane(), NORMAL) as shown:
        await shown.pilot.resize_terminal(40, 8)
        await shown.see("luthien needs 60x15, this is 40x8")
        await shown.pilot.resize_terminal(*NORMAL)
        await shown.see("refactor-a3")


async def test_nothing_is_drawn_while_the_terminal_does_not_keep_up(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = filled(1)
    async with console(plane) as shown:
        assert shown.app._driver is not None
        monkeypatch.setattr(shown.app._driver, "backlog", 5, raising=False)
        plane.add(make_row(7, session_id="later"))
        await shown.frame()
        assert shown.app.rows.total == 1
        monkeypatch.setattr(shown.app._driver, "backlog", 4, raising=False)
        await shown.frame()
        assert shown.app.rows.total == 2
