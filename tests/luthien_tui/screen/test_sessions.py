"""Sessions on the screen, over a real gateway and the demo's conversations: found, read, followed, compared and taken along."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import aiohttp
import pytest

from luthien_tui.demo import DemoUpstream, demo_upstreams
from luthien_tui.demo.agents import Player
from luthien_tui.demo.upstream import ALL_STORIES
from proxy_core.control.session_infos import SessionDetail
from proxy_core.errors import JournalUnavailable
from proxy_core.tasks import spawn
from tests.gateway_fixtures import RunningGateway, running_gateway, settings_for
from tests.luthien_tui.fake_plane import START, FakePlane, make_row
from tests.luthien_tui.fake_sessions import make_session
from tests.luthien_tui.screen.console import SMALL, console
from tests.luthien_tui.screen.operated import Operated, operated

STORIES = {story.name: story for story in ALL_STORIES}


class Demo:
    """A gateway before the demo's upstream, and an agent that plays."""

    def __init__(self, gateway: RunningGateway, upstream: DemoUpstream) -> None:
        self.gateway = gateway
        self.upstream = upstream

    async def play(self, *names: str) -> None:
        async with aiohttp.ClientSession(self.gateway.url) as http:
            for name in names:
                await Player(http, Random(1), 0).play(STORIES[name], f"{name}-1")

    async def ask(self, session: str, text: str, **headers: str) -> None:
        """One question of a session."""
        body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": text}]}
        named = {"x-luthien-session-id": session, "x-luthien-agent-id": "asker", **headers}
        async with (
            aiohttp.ClientSession(self.gateway.url) as http,
            http.post("/v1/chat/completions", json=body, headers=named) as response,
        ):
            assert response.status == 200
            await response.read()


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Demo]:
    upstream = DemoUpstream(pace=0)
    base_url = await upstream.start()
    policies = [
        {"use": "strip_secrets"},
        {"use": "block_dangerous_commands", "mode": "shadow"},
        {"use": "hold_for_approval", "params": {"stage": "tool_call", "filter": "tool:refund"}},
    ]
    settings = settings_for(base_url, upstreams=demo_upstreams(base_url), policies=policies)
    try:
        async with running_gateway(settings, tmp_path / "data") as gateway:
            yield Demo(gateway, upstream)
    finally:
        await upstream.close()


def line(shown: Operated, text: str) -> str:
    return next(line for line in shown.text.splitlines() if text in line)


async def read(shown: Operated, session: str, text: str) -> None:
    """Open a session of the list and wait for its text."""
    await shown.press("3")
    await shown.see(session)
    shown.app.sessions.table.select(session)
    await shown.press("enter")
    await shown.see(text)


async def test_the_list_has_sub_agents_under_their_parent_with_their_figures(demo: Demo) -> None:
    await demo.play("which-queue", "flaky-test")
    async with operated(demo.gateway) as shown:
        await shown.press("3")
        await shown.see("5 sessions by last activity")
        await shown.see(" live 5  hits ")
        await shown.see("3 Sessions 5")
        lines = shown.text.splitlines()
        parent = next(place for place, text in enumerate(lines) if "which-queue-1" in text)
        below = sorted(text.split()[1] for text in lines[parent + 1 : parent + 4])
        assert below == ["/nats", "/postgres", "/redis"]
        assert "topic:queues" in lines[parent]
        flaky = line(shown, "flaky-test-1").split()
        assert "coder" in flaky
        assert "ci:true" in flaky
        assert flaky[flaky.index("coder") + 1] == "6", "turns; counting tokens is none"
        assert flaky[flaky.index("coder") + 4] == "5", "calls of tools"
        assert "✗1" in line(shown, "/redis"), "its first try was refused"
        shown.app.sessions.table.select("which-queue-1")
        await shown.press("space")
        await shown.see("which-queue-1 ▸3")
        assert "/nats" not in shown.text


async def test_a_conversation_is_read_turn_by_turn_and_calls_are_unfolded(demo: Demo) -> None:
    await demo.play("flaky-test")
    async with operated(demo.gateway) as shown:
        await read(shown, "flaky-test-1", "You are a coding agent")
        assert "[redacted]" in shown.text
        assert "strip_secrets modified secret_removed" in shown.text
        call = line(shown, "▸ bash")
        assert "pytest tests/test_cart.py" in call
        assert "→ 48 passed, 4 failed in 6.12s +1 line (" in call
        assert "AssertionError: assert" not in shown.text, "a result is folded, and not told again by the turn that brought it"
        talk = shown.app.sessions.pane.talk
        talk.go_to(next(row for row, text in enumerate(talk.document.texts) if "▸ bash" in text))
        await shown.press("enter")
        await shown.see("E  AssertionError: assert Decimal('12.30') == Decimal('11.07')")
        await shown.see('"command": "pytest tests/test_cart.py')
        await shown.press("enter")
        await shown.until(lambda: "AssertionError: assert" not in shown.text)
        await shown.press("z")
        await shown.see("def test_checkout_total(cart):")
        await shown.press("slash", *"kept_coupons", "enter")
        await shown.see("def kept_coupons():")


async def test_a_search_finds_what_is_folded(demo: Demo) -> None:
    await demo.play("flaky-test")
    async with operated(demo.gateway) as shown:
        await read(shown, "flaky-test-1", "You are a coding agent")
        talk = shown.app.sessions.pane.talk
        folded = list(talk.document.texts)
        await shown.press("slash", *"kept_coupons")
        await shown.see("def kept_coupons():")
        await shown.press("enter")
        await shown.see("kept_coupons  1/")
        assert not talk.follow
        assert "def kept_coupons" in talk.document.texts[talk.cursor]
        call = talk.here.key
        await shown.press("slash", *["backspace"] * 12, "enter")
        await shown.until(lambda: len(talk.document) < len(folded) + 30)
        assert talk.here.key == call, "the cursor stays where it was, and that stays unfolded"
        assert any("def kept_coupons" in text for text in talk.document.texts)
        assert not any("AssertionError: assert" in text for text in talk.document.texts)


async def test_a_sub_agent_is_entered_and_left(demo: Demo) -> None:
    await demo.play("which-queue")
    async with operated(demo.gateway, SMALL) as shown:
        await read(shown, "which-queue-1", "You plan changes")
        talk = shown.app.sessions.pane.talk
        talk.go_to(next(row for row, text in enumerate(talk.document.texts) if "sub-agent which-queue-1/redis" in text))
        await shown.press("enter")
        await shown.see("which-queue-1 › /redis")
        await shown.see("Redis streams as a job queue")
        assert "Rate limit reached" in shown.text
        assert "↻ again" in shown.text
        await shown.press("escape")
        await shown.see("sub-agent which-queue-1/redis")
        assert "sub-agent which-queue-1/redis" in talk.document.texts[talk.cursor], "the cursor is where it was"
        await shown.press("escape")
        await shown.see("4 sessions")


async def test_what_changed_from_the_turn_before(demo: Demo) -> None:
    await demo.play("flaky-test")
    async with operated(demo.gateway) as shown:
        await read(shown, "flaky-test-1", "You are a coding agent")
        await shown.press("g", "d")
        await shown.see("there is no turn before it to compare it with")
        await shown.press("right", "right", "right", "d")
        await shown.see("turn 2 → turn 3")
        assert "+ messages[" in shown.text
        await shown.see("E  AssertionError")
        await shown.press("escape")
        await shown.see("turn 3/7")


async def test_a_live_session_is_followed(demo: Demo) -> None:
    await demo.ask("long-talk", "How are you?")
    async with operated(demo.gateway) as shown:
        await read(shown, "long-talk", "You said “How are you?”")
        await shown.press("F")
        await shown.see("FOLLOW")
        await demo.ask("long-talk", "And now something else.")
        await shown.see("You said “And now something else.”")
        await shown.see("turn 2/2")
        await shown.press("k")
        await shown.see("PAUSED")
        place = shown.app.sessions.pane.talk.cursor
        await demo.ask("long-talk", "A third thing.")
        await shown.see("You said “A third thing.”")
        assert shown.app.sessions.pane.talk.cursor == place


async def test_a_running_answer_grows(demo: Demo) -> None:
    demo.upstream._pace = 0.5
    async with operated(demo.gateway) as shown:
        asking = spawn(demo.play("tokenizer-port"), name="agent")
        try:
            await shown.press("3")
            await shown.see("tokenizer-port-1")
            assert "▸ running" in line(shown, "tokenizer-port-1")
            await shown.press("enter")
            await shown.see("▸ streaming")
            talk = shown.app.sessions.pane.talk
            before = len(talk.document)
            await shown.until(lambda: len(talk.document) > before)
            assert talk.follow
        finally:
            demo.upstream._pace = 0
            await asking
        await shown.until(lambda: not shown.app.sessions.pane.session.is_running)  # type: ignore[union-attr]
        assert "streaming" not in "\n".join(talk.document.texts)


async def test_what_waits_is_seen_in_its_session_and_decided_from_there(demo: Demo) -> None:
    async with operated(demo.gateway) as shown:
        asking = spawn(demo.play("ticket-88213"), name="agent")
        await shown.press("3")
        await shown.see("‖ waits")
        assert "ticket-88213-1" in line(shown, "‖ waits")
        await shown.press("enter")
        await shown.see("x decide")
        await shown.press("x")
        await shown.until(lambda: shown.app.view == "holds")
        await shown.see("tool call  refund")
        await shown.see("seen whole")
        await shown.press("a")
        await shown.see("approved by operator")
        await shown.press("3")
        await shown.see("hold_for_approval")
        await asking
        await shown.until(lambda: not shown.app.sessions.pane.session.is_running)  # type: ignore[union-attr]
        texts = shown.app.sessions.pane.talk.document.texts
        call = next(row for row, text in enumerate(texts) if "▸ refund" in text)
        assert texts[call].startswith("✓ "), "the sign stands in the margin of the call"
        assert "hold_for_approval allow approved" in texts[call + 1]


async def test_a_part_of_a_turn_is_copied(demo: Demo) -> None:
    await demo.ask("short", "Hello?")
    async with operated(demo.gateway) as shown:
        await read(shown, "short", "You said")
        await shown.press("y")
        await shown.see("curl command")
        await shown.press("i")
        await shown.see("copied the id")


async def test_filter_and_sort(demo: Demo) -> None:
    await demo.play("flaky-test", "fractions")
    await demo.ask("short", "Hello?")
    async with operated(demo.gateway) as shown:
        await shown.press("3")
        await shown.see("3 sessions")
        await shown.press("f", *"tools", "greater_than_sign", "2", "enter")
        await shown.see("1 session by last activity")
        await shown.see("filter tools>2")
        assert "short" not in shown.text
        await shown.press("f", "ctrl+a", *"nonsense", "colon", "x")
        await shown.press("enter")
        await shown.see("column 1")
        await shown.press("escape", "escape")
        await shown.see("3 sessions")
        await shown.press("o", "down", "down", "down", "down", "enter")
        await shown.see("by turns")
        assert "turn▼" in shown.text
        names = [one.split()[0].lstrip("▶") for one in shown.text.splitlines()[3:6]]
        assert names[0] == "flaky-test-1"
        await shown.press("v")
        await shown.see("turn▲")


async def test_nothing_that_matches_says_how_to_go_back(demo: Demo) -> None:
    await demo.ask("short", "Hello?")
    async with operated(demo.gateway) as shown:
        await shown.press("3")
        await shown.see("short")
        await shown.press("f", *"cost", "greater_than_sign", "9", "9", "enter")
        await shown.see("No session matches cost>99")
        await shown.press("escape")
        await shown.see("short")


async def test_agents_and_their_sessions(demo: Demo) -> None:
    await demo.play("which-queue", "flaky-test")
    async with operated(demo.gateway) as shown:
        await shown.press("3", "a")
        await shown.see("5 agents")
        assert "claude-opus-5" in line(shown, "architect")
        shown.app.sessions.agents.select("coder")
        await shown.press("enter")
        await shown.see("tools that it called")
        assert "█" in line(shown, "bash")
        assert "tools that it may call and has not" in shown.text
        await shown.press("s")
        await shown.see('filter agent:"coder"')
        await shown.see("1 session")
        assert "flaky-test-1" in shown.text


async def test_from_a_turn_to_its_transaction_and_back(demo: Demo) -> None:
    await demo.play("flaky-test")
    async with operated(demo.gateway) as shown:
        await read(shown, "flaky-test-1", "You are a coding agent")
        await shown.press("right", "right", "t")
        await shown.until(lambda: shown.app.view == "live" and shown.app.live.detail.detail is not None)
        opened = shown.app.live.detail.transaction_id
        assert opened in {row.transaction_id for row in await demo.gateway.rows()}
        await shown.see("flaky-test-1")
        await shown.press("s")
        await shown.until(lambda: shown.app.view == "sessions")
        await shown.see("turn 2/7")


@pytest.mark.parametrize(("key", "ending"), [("m", "md"), ("j", "jsonl")])
async def test_a_session_is_written_to_a_file(
    demo: Demo, key: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await demo.play("flaky-test")
    async with operated(demo.gateway) as shown:
        await shown.press("3")
        await shown.see("flaky-test-1")
        for number in ("", "-2"):
            await shown.press("e")
            await shown.see("Write the session to")
            await shown.press(key)
            file = tmp_path / f"flaky-test-1{number}.{ending}"
            await shown.see("written:")
            assert file.exists()
            shown.app.clear_notifications()
        text = file.read_text()
        assert file.stat().st_mode & 0o777 == 0o600
    if ending == "jsonl":
        assert [json.loads(one)["number"] for one in text.splitlines()] == list(range(1, 8))
    else:
        assert "One sentence for the changelog" in text


async def test_a_session_that_is_gone_is_said_so(demo: Demo) -> None:
    await demo.ask("short", "Hello?")
    async with operated(demo.gateway) as shown:
        await shown.press("3")
        await shown.see("short")
        shown.app.sessions.open_session("never-was")
        await shown.see("does not know this session any more")
        await shown.press("escape")
        await shown.see("short")


async def test_the_list_costs_the_gateway_one_question_a_second_at_most(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    sessions = demo.gateway.plane.sessions

    async def count(**given: object) -> object:
        nonlocal asked
        asked += 1
        return await sessions(**given)  # type: ignore[arg-type]

    async with operated(demo.gateway) as shown:
        monkeypatch.setattr(demo.gateway.plane, "sessions", count)
        await asyncio.gather(*(demo.ask(f"many-{number}", "Hello?") for number in range(30)))
        await shown.until(lambda: shown.app.rows.total == 30)
        assert asked == 0, "nobody looks at it"
        await shown.press("3")
        await shown.see("30 sessions")
        await asyncio.gather(*(demo.ask(f"more-{number}", "Hello?") for number in range(30)))
        await shown.until(lambda: shown.app.rows.total == 60)
        assert asked <= 2
        await shown.see("60 sessions")


async def test_more_sessions_come_when_the_end_is_reached_and_stay() -> None:
    plane = FakePlane()
    plane.session_infos = [make_session(f"s-{number:03}", last_at=START - number) for number in range(450)]
    async with console(plane) as shown:
        await shown.press("3")
        await shown.see("200+ sessions")
        await shown.press("G")
        await shown.see("400+ sessions")
        plane.session_infos.insert(0, make_session("s-new", last_at=START + 1))
        plane.add(make_row(1, session_id="s-new"))
        plane.clock.now += 30
        await shown.see("401+ sessions")
        await shown.press("G")
        await shown.see("451 sessions")
        await shown.press("g")
        await shown.see("s-new")


async def test_a_store_that_does_not_answer_is_said_so_and_the_list_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = FakePlane()
    plane.session_infos = [make_session("s-1")]
    plane.session_details = {"s-1": SessionDetail(info=plane.session_infos[0], turns=())}

    async def fail(*given: object, **more: object) -> None:
        raise JournalUnavailable("the store is full")

    async with console(plane) as shown:
        await shown.press("3")
        await shown.see("1 session")
        monkeypatch.setattr(plane, "sessions", fail)
        plane.clock.now += 30
        await shown.see("the store is full")
        assert "s-1" in shown.text
        monkeypatch.setattr(plane, "session", fail)
        await shown.press("enter")
        await shown.see("the session cannot be read: the store is full")
        monkeypatch.undo()
        await shown.press("escape")
        plane.clock.now += 30
        await shown.see("1 session")


async def test_a_slow_first_answer_leaves_no_empty_list_standing(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = FakePlane()
    sessions = plane.sessions

    async def slowly(**given: object) -> object:
        plane.clock.now += 5
        return await sessions(**given)  # type: ignore[arg-type]

    monkeypatch.setattr(plane, "sessions", slowly)
    async with console(plane) as shown:
        await shown.press("3")
        await shown.see("Waiting for the first request")
        plane.session_infos.append(make_session("s-new"))
        plane.add(make_row(1, session_id="s-new"))
        plane.clock.now += 4
        await shown.see("s-new")
