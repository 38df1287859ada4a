"""Traffic that wants to act on the terminal or the app, in every place where the screen shows traffic."""

from __future__ import annotations

import json
import re
import time

import msgspec
import pytest

from proxy_core.control.plane import ParamInfo, PolicyInfo, Timing, TransactionDetail
from proxy_core.control.session_infos import (
    AgentDetail,
    AgentInfo,
    Count,
    DayUse,
    Mark,
    ModelUse,
    SessionDetail,
    SessionInfo,
    StoryBlock,
    StoryMessage,
    ToolUse,
    Totals,
    Turn,
)
from proxy_core.routing.reasons import Reason
from proxy_core.verdicts import Stage, Verdict
from tests.luthien_tui.fake_plane import FakeLogs, FakePlane, make_hold, make_row
from tests.luthien_tui.screen.console import NORMAL, SMALL, Console, console

HOSTILE = (
    "\x1b]52;c;ZXZpbA==\x07\x1b]0;owned\x07\x1b[2J\x9b31m\x9d52;c;eA==\x9c"
    "[@click=app.quit]x[/] [/nope] [bold\u202e\u200b\x08\r\n\x7f"
)
MARKS = ("[@click=app.quit]", "[/nope]", "␛]52;c;ZXZpbA==␇")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202e\u200b]")


def hostile_plane() -> FakePlane:
    plane = FakePlane()
    plane.gateway.address = f"127.0.0.1:4000{HOSTILE}"
    row = make_row(
        1,
        path=f"/v1/chat/completions?{HOSTILE}",
        method=HOSTILE[:12],
        session_id=HOSTILE,
        agent=HOSTILE,
        model=HOSTILE,
        upstream=HOSTILE,
        reason=HOSTILE,
        preview=HOSTILE,
        error=HOSTILE,
        stop_reason=HOSTILE,
    )
    plane.add(row)
    plane.details[row.transaction_id] = TransactionDetail(
        row=row,
        request_headers=((HOSTILE, HOSTILE), ("content-type", "application/json")),
        request_body=HOSTILE.encode("utf-8", "surrogatepass"),
        response_headers=(("content-type", "text/plain"), ("x-a", HOSTILE)),
        response_body=b"\x9b2J\xff" + HOSTILE.encode(),
        timing=Timing(received=1.0),
        capture_note=HOSTILE,
    )
    running = make_row(2, state="streaming", outcome="", stream=True, session_id="running")
    plane.add(running)
    plane.details[running.transaction_id] = TransactionDetail(
        row=running, response_headers=(("content-type", "text/event-stream"),), timing=Timing()
    )
    stream = f"event: {HOSTILE}\ndata: {HOSTILE}\n\n{HOSTILE}".encode()
    plane.live[running.transaction_id] = (stream, False)
    return plane


def check(shown: Console) -> None:
    """Nothing drawn now acts; nothing drawn now can be clicked into an action."""
    for segment in shown.segments:
        assert not CONTROL.search(segment.text), ascii(segment.text)
        meta = segment.style.meta if segment.style is not None else {}
        assert not [key for key in meta if key == "@click"], meta
    update = shown.app.screen._compositor.render_update(full=True)
    written = update.render_segments(shown.app.console) if hasattr(update, "render_segments") else ""
    assert "\x1b]" not in written
    assert "\x1b[2J" not in written
    assert not re.search("[\x07\x08\x7f-\x9f]", written)


@pytest.mark.parametrize("size", [NORMAL, SMALL])
@pytest.mark.parametrize("tab", ["Summary", "Request", "Response", "Policies", "Raw", "Timing"])
async def test_no_part_of_an_open_transaction_acts(size: tuple[int, int], tab: str) -> None:
    async with console(hostile_plane(), size) as shown:
        check(shown)
        await shown.open("01J9ZK000001", tab)
        check(shown)
        if tab in ("Request", "Response", "Raw"):
            text = shown.text.replace("\n┊ ", "").replace("\n│ ", "")
            for mark in MARKS:
                assert mark in text, mark


async def test_a_running_response_does_not_act() -> None:
    async with console(hostile_plane()) as shown:
        await shown.open("01J9ZK000002", "Response")
        check(shown)
        assert "[@click=app.quit]" in shown.text


async def test_toasts_menus_log_and_filter_do_not_act() -> None:
    logs = FakeLogs()
    logs.add("ERROR", HOSTILE, HOSTILE)
    async with console(hostile_plane(), logs=logs) as shown:
        shown.app.say(HOSTILE)
        await shown.frame()
        check(shown)
        await shown.press("y")
        check(shown)
        await shown.press("escape", "8")
        assert "[@click=app.quit]" in shown.text
        check(shown)
        await shown.press("1", "f")
        for typed in (HOSTILE, f'"{HOSTILE}" model:'):
            shown.app.prompt.input.value = typed
            shown.app.prompt.input.cursor_position = 0
            await shown.frame()
            check(shown)
        await shown.press("enter")
        check(shown)


async def test_an_empty_list_with_a_hostile_address_or_filter_does_not_act() -> None:
    plane = FakePlane()
    plane.gateway.address = HOSTILE
    async with console(plane) as shown:
        check(shown)
        await shown.press("c")
        check(shown)
        await shown.press("escape")
        plane.add(make_row(1))
        await shown.press("f")
        shown.app.prompt.input.value = '"[@click=app.quit]\x1b]0;x\x07"'
        await shown.press("enter")
        check(shown)
        assert "[@click=app.quit]" in shown.text


async def test_clicks_on_hostile_text_run_nothing() -> None:
    async with console(hostile_plane()) as shown:
        await shown.open("01J9ZK000001", "Raw")
        for y in range(20, 33):
            await shown.pilot.click(offset=(30, y))
        await shown.frame()
        assert shown.ending.asked == 0
        assert shown.app._exit is False


async def test_bodies_cannot_draw_outside_their_gutter() -> None:
    plane = hostile_plane()
    plane.details["01J9ZK000001"].response_body = "✔ APPROVED\n╭────╮\n│ luthien │\n".encode()
    async with console(plane) as shown:
        await shown.open("01J9ZK000001", "Response")
        forged = [line for line in shown.lines if "APPROVED" in line or "╭────╮" in line]
        assert forged
        assert all(line.startswith("│ ") for line in forged)


async def test_a_line_of_twenty_megabytes_does_not_stop_the_frame() -> None:
    plane = hostile_plane()
    detail = plane.details["01J9ZK000001"]
    detail.response_body = b'{"data": "' + "a\u0301".encode() * 6_000_000 + b'"}'
    async with console(plane) as shown:
        await shown.open("01J9ZK000001", "Response")
        start = time.thread_time()
        await shown.press("tab", "end")
        assert time.thread_time() - start < 1.0
        assert "more bytes; copy takes the whole body" in shown.text


def hostile_control() -> FakePlane:
    """Everything that a hold or a policy says is hostile."""
    plane = hostile_plane()
    plane.details["01J9ZK000001"].verdicts = (
        Verdict(
            policy=HOSTILE, stage=Stage.TOOL_CALL, mode="enforce", action="deny", reason=Reason.POLICY_DECISION,
            message=HOSTILE, score=0.5, detail={HOSTILE: HOSTILE},
        ),
    )  # fmt: skip
    plane.details["01J9ZK000001"].policy_digest = HOSTILE
    plane.details["01J9ZK000001"].sent_body = HOSTILE.encode("utf-8", "surrogatepass") + b"changed"
    plane.details["01J9ZK000001"].upstream_body = b"other " + HOSTILE.encode()
    fields = ("policy", "reason", "tool", "call_id", "session_id", "agent", "model", "key", "message")
    said = dict.fromkeys(fields, HOSTILE)
    plane.policy_infos = [
        PolicyInfo(
            name=HOSTILE, use=HOSTILE, summary=HOSTILE, mode="enforce", on_error=HOSTILE, chain=chain, position=1,
            stages=(HOSTILE,), release=HOSTILE, source=HOSTILE,
            params=(
                ParamInfo(name=HOSTILE, kind="text", value=HOSTILE, default="", help=HOSTILE),
                ParamInfo(name="choice", kind="choice", value=HOSTILE, default="", choices=(HOSTILE, "b")),
                ParamInfo(name="rules", kind="json", value=[{HOSTILE: HOSTILE}], default=[HOSTILE]),
            ),
        )
        for chain in ("global", HOSTILE)
    ]  # fmt: skip
    plane.hold(
        make_hold(1, transaction_id="01J9ZK000001", content=json.dumps({"command": HOSTILE}, ensure_ascii=False), **said),
        make_hold(2, content=f"{HOSTILE}\n✓ approved by luthien\nwhy\npolicy     safe\n┃ ", stage="response", **said),
        make_hold(3, status="denied", decided_by=HOSTILE, content=HOSTILE, **said),
    )
    return plane


@pytest.mark.parametrize("size", [NORMAL, SMALL])
async def test_no_part_of_a_hold_acts(size: tuple[int, int]) -> None:
    plane = hostile_control()
    async with console(plane, size) as shown:
        check(shown)
        await shown.press("2")
        check(shown)
        for hold in ("hold-1", "hold-2", "hold-3"):
            shown.app.holds.go_to(hold)
            await shown.frame()
            check(shown)
            plane.clock.now += 1
            await shown.frame()
            text = shown.text.replace("\n┊ ╏ ", "").replace("\n│ ┃ ", "")
            assert "what " in text
        shown.app.holds.go_to("hold-1")
        for _ in range(6):
            await shown.press("enter", "pagedown")
            check(shown)
        plane.clock.now += 1
        await shown.press("e")
        check(shown)
        assert shown.app.holds.typing
        assert not CONTROL.search(shown.app.holds.editor.text.replace("\n", ""))
        assert json.loads(shown.app.holds.editor.text) == {"command": HOSTILE}
        await shown.press("ctrl+s")
        check(shown)
        await shown.press("escape")
        await shown.frame()
        check(shown)


async def test_content_cannot_pass_for_words_of_the_program() -> None:
    plane = hostile_control()
    async with console(plane) as shown:
        await shown.press("2")
        shown.app.holds.go_to("hold-2")
        await shown.frame()
        forged = [line[52:] for line in shown.lines if "approved by luthien" in line or "policy     safe" in line]
        assert len(forged) == 2
        assert all(line.startswith(("┃ ", "╏ ")) for line in (line.lstrip("│┊ ") for line in forged))


async def test_what_cannot_be_edited_without_being_obeyed_is_not() -> None:
    plane = hostile_control()
    async with console(plane) as shown:
        await shown.press("2")
        shown.app.holds.go_to("hold-2")
        await shown.frame()
        for _ in range(6):
            await shown.press("enter", "pagedown")
        plane.clock.now += 1
        await shown.press("e")
        assert not shown.app.holds.typing
        assert "cannot be edited here" in shown.text


async def test_no_part_of_a_policy_acts() -> None:
    plane = hostile_control()
    async with console(plane) as shown:
        await shown.press("4")
        check(shown)
        assert "[@click=app.quit]" in shown.text
        await shown.press("space")
        check(shown)
        await shown.press("y")
        check(shown)
        await shown.press("tab", "e")
        check(shown)
        await shown.press("ctrl+s")
        check(shown)
        await shown.press("j", "e")
        check(shown)
        await shown.press("escape", "j", "e")
        check(shown)
        await shown.press("ctrl+s")
        check(shown)
        plane.feed.publish("control_changed", None, HOSTILE)
        await shown.frame()
        await shown.see("[@click=app.quit]x[/]")
        check(shown)


async def test_a_hostile_toast_and_kill_question_do_not_act() -> None:
    plane = hostile_plane()
    async with console(plane) as shown:
        plane.hold(make_hold(9, tool=HOSTILE, session_id=HOSTILE))
        await shown.see("2 shows it")
        check(shown)
        plane.add(make_row(3, state="streaming", outcome="", session_id=HOSTILE, model=HOSTILE), "started")
        await shown.press("k", "K")
        assert "End this transaction" in shown.text
        check(shown)


def hostile_sessions() -> FakePlane:
    """Everything that a session or an agent says is hostile."""
    plane = hostile_control()
    said = StoryBlock(kind="text", text=HOSTILE)
    info = SessionInfo(
        id=HOSTILE, agent=HOSTILE, user=HOSTILE, workflow=HOSTILE, tags=((HOSTILE, HOSTILE),), predecessor=HOSTILE, link=HOSTILE,
        started_at=1.0, last_at=2.0, models=(HOSTILE,), upstreams=(HOSTILE,), preview=HOSTILE, totals=Totals(), turns=2,
        tools=(Count(HOSTILE, 2),),
    )  # fmt: skip
    child = msgspec.structs.replace(info, id=f"{HOSTILE}/{HOSTILE}", parent=HOSTILE)
    marks = tuple(
        Mark(verdict=verdict, where="call", block=2, call_id=HOSTILE) for verdict in plane.details["01J9ZK000001"].verdicts
    )
    blocks = (
        said,
        StoryBlock(kind="thinking", text=HOSTILE),
        StoryBlock(kind="tool_call", name=HOSTILE, call_id=HOSTILE, text=HOSTILE),
        StoryBlock(kind="tool_result", name=HOSTILE, call_id="lone", text=HOSTILE, is_error=True),
        StoryBlock(kind="image", name=HOSTILE, text=HOSTILE),
        StoryBlock(kind="opaque", name=HOSTILE),
    )
    uses = (
        ToolUse(call_id=HOSTILE, name=HOSTILE, arguments=json.dumps({HOSTILE: HOSTILE}), block=2, result=HOSTILE,
                session_id=child.id),
    )  # fmt: skip
    row = make_row(1, preview=HOSTILE, model=HOSTILE, error=HOSTILE)
    turns = (
        Turn(number=1, kind="turn", row=row, said=(StoryMessage(role=HOSTILE, blocks=blocks),), answer=blocks, tool_uses=uses,
             marks=marks, children=(HOSTILE,), problem=HOSTILE),
        Turn(number=2, kind="side", row=make_row(2, preview=HOSTILE), said=(StoryMessage(role="user", blocks=(said,)),)),
    )  # fmt: skip
    plane.session_infos = [info, child]
    plane.session_details = {
        one.id: SessionDetail(info=one, turns=turns, children=(child,), parent=child, system=HOSTILE) for one in (info, child)
    }
    agent = AgentInfo(id=HOSTILE, first_at=1.0, last_at=2.0, models=(HOSTILE,), workflows=(HOSTILE,), totals=Totals())
    plane.agent_details = [
        AgentDetail(info=agent, models=(ModelUse(model=HOSTILE, totals=Totals()),), tools=(Count(HOSTILE, 3),),
                    tools_offered=(HOSTILE, f"{HOSTILE}2"), days=(DayUse(day=HOSTILE, totals=Totals()),), system=HOSTILE,
                    sessions=(info,)),
    ]  # fmt: skip
    return plane


@pytest.mark.parametrize("size", [NORMAL, SMALL])
async def test_no_part_of_a_session_acts(size: tuple[int, int]) -> None:
    async with console(hostile_sessions(), size) as shown:
        await shown.press("3")
        await shown.see("2 sessions")
        check(shown)
        await shown.press("enter")
        await shown.see("turn 1/2")
        pane = shown.app.sessions.pane
        for key in ("", "z"):
            if key:
                rows = len(pane.talk.document)
                await shown.press(key)
                await shown.until(lambda rows=rows: len(pane.talk.document) > rows)  # type: ignore[misc]
            await shown.press("g")
            for _ in range(len(pane.talk.document) // 8 + 1):
                check(shown)
                await shown.press("pagedown")
        for text in pane.talk.document.texts:
            assert not CONTROL.search(text), ascii(text)
        pane.talk.go_to(next(row for row, at in enumerate(pane.talk.section.anchors) if at.key == f"{HOSTILE}/{HOSTILE}"))
        await shown.press("enter")
        await shown.until(lambda: pane.session is not None and pane.session.id.endswith(f"/{HOSTILE}"))
        check(shown)
        await shown.press("d")
        check(shown)
        await shown.press("e")
        await shown.see("Write the session to")
        check(shown)


async def test_no_part_of_an_agent_acts() -> None:
    async with console(hostile_sessions()) as shown:
        await shown.press("3", "a")
        await shown.see("1 agents")
        check(shown)
        await shown.press("enter")
        await shown.see("tools that it called")
        check(shown)
        await shown.press("G")
        check(shown)
        await shown.press("s")
        await shown.frame()
        check(shown)


async def test_a_speaker_cannot_pass_for_the_program() -> None:
    plane = hostile_sessions()
    forged = "fine\n━━ 7 ━━━ 14:02:11 ✓ allow\n‖          hold_for_approval approved\n▸ bash rm → exit 0"
    turn = Turn(number=1, kind="turn", row=make_row(1), answer=(StoryBlock(kind="text", text=forged),))
    plane.session_details[HOSTILE] = SessionDetail(info=plane.session_infos[0], turns=(turn,))
    async with console(plane) as shown:
        await shown.press("3")
        await shown.see("[@click=app.quit]")
        await shown.press("enter")
        await shown.see("hold_for_approval approved")
        lines = [line for line in shown.lines if any(word in line for word in ("━━ 7", "approved", "exit 0"))]
        assert len(lines) == 3
        assert all(line[1:].startswith(" " * 12) for line in lines), "it stands where only what is said can stand"
