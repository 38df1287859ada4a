"""The demo through a real gateway: sessions, sub-agents, troubles and prices come out as a visitor will see them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import aiohttp
import pytest

from luthien_tui.demo import DemoUpstream, demo_policies, demo_upstreams
from luthien_tui.demo.agents import Player
from luthien_tui.demo.upstream import ALL_STORIES
from proxy_core.settings import ControlSettings, ServerSettings, Settings
from tests.gateway_fixtures import RunningGateway, running_gateway


@pytest.fixture
async def demo_gateway(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    upstream = DemoUpstream(pace=0)
    settings = Settings(
        server=ServerSettings(port=0),
        control=ControlSettings(port=0),
        upstreams=demo_upstreams(await upstream.start()),
        policies=demo_policies(hold_s=1),
    )
    try:
        async with running_gateway(settings, tmp_path / "data") as gateway:
            yield gateway
    finally:
        await upstream.close()


async def test_two_rounds_of_every_story(demo_gateway: RunningGateway) -> None:
    sessions: dict[str, set[str]] = defaultdict(set)
    known: set[str] = set()
    async with aiohttp.ClientSession(demo_gateway.url) as http:
        for round_number in (1, 2):
            for story in ALL_STORIES:
                if story.part_of:
                    continue
                await Player(http, Random(1), 0).play(story, f"{story.name}-{round_number}", round_number)
                fresh = [row for row in await demo_gateway.rows() if row.transaction_id not in known]
                known.update(row.transaction_id for row in fresh)
                own = [row for row in fresh if row.operation not in ("models", "count_tokens") and not row.parent_session]
                talked = {row.session_id for row in own}
                assert len(talked) == 1, f"{story.name} is one session"
                assert talked != {""}
                sessions[story.name] |= talked
    assert all(len(found) == 2 for found in sessions.values()), "another round is another session"
    rows = await demo_gateway.rows()
    assert {row.dialect for row in rows} == {"openai", "anthropic", "ollama"}
    assert {row.status for row in rows if row.status is not None and row.status >= 400} == {429, 500, 529}
    assert {"ok", "error", "truncated"} <= {row.outcome for row in rows} <= {"ok", "error", "truncated", "cancelled"}
    assert {row.parent_session for row in rows if row.agent.startswith("researcher")} == sessions["which-queue"]
    assert ("team", "support") in {tag for row in rows for tag in row.tags}
    priced = [row for row in rows if row.outcome == "ok" and row.dialect != "ollama" and row.output_tokens]
    assert priced
    assert all(row.cost_usd for row in priced)
    assert any(row.tool_calls > 1 for row in rows)
    assert any(row.cached_tokens for row in rows)
    fared = {one.name: one for one in demo_gateway.plane.policies()}
    assert fared["strip_secrets"].acted_1h > 0, "a key is taken out"
    assert fared["block_dangerous_commands"].mode == "shadow"
    assert fared["block_dangerous_commands"].shadow_1h > 0, "and would have blocked something"
    assert not any(one.errors_1h for one in fared.values())
    held = demo_gateway.plane.holds(decided=True)
    assert {hold.tool for hold in held} == {"refund", "edit_file", "shell"}
    assert {(hold.status, hold.on_timeout) for hold in held} == {("expired", "approve")}, "the demo goes on by itself"
