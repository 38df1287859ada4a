"""Which chain a transaction takes: by upstream, key, agent and session; and what a chain of several makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.gateway.asking import CHAT, MESSAGES
from tests.gateway_fixtures import RunningGateway

FOLDER = str(Path(__file__).parent / "naughty")


def replacing(name: str, word: str) -> dict[str, Any]:
    return {"use": "string_replacement", "name": name, "params": {"replacements": [["Paris", word]]}}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    """One chain for each selector, and one for everything else."""
    return await start_gateway(
        policies=[replacing("everyone", "Global")],
        keys={"team-a": {"key": "sk-team-a"}},
        chains=[
            {"match": {"upstream": "anthropic"}, "policies": [replacing("by-upstream", "Upstream")]},
            {"match": {"key": "team-*"}, "policies": [replacing("by-key", "Key")]},
            {"match": {"agent": "coder*"}, "policies": [replacing("by-agent", "Agent")]},
            {"match": {"session": "night-shift"}, "policies": []},
        ],
    )


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ({}, "Global"),
        ({"authorization": "Bearer sk-team-a"}, "Key"),
        ({"authorization": "Bearer sk-somebody"}, "Global"),
        ({"x-luthien-agent-id": "coder-7"}, "Agent"),
        ({"x-luthien-session-id": "night-shift"}, "Paris"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_first_chain_that_matches_is_taken(
    gateway: RunningGateway, headers: dict[str, str], word: str, stream: bool
) -> None:
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=stream), {**CHAT.headers, **headers})
    assert word.encode() in response.body


async def test_an_upstream_has_its_own_chain_and_digest(gateway: RunningGateway) -> None:
    response = await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes(), MESSAGES.headers)
    assert b"Upstream" in response.body
    first = (await gateway.detail()).policy_digest
    await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
    assert first != (await gateway.detail()).policy_digest != ""


async def test_no_upstream_hears_the_name_of_a_key_or_tag(gateway: RunningGateway, upstream: Any) -> None:
    await gateway.ask("POST", CHAT.path, CHAT.bytes(), {**CHAT.headers, "x-luthien-tags": "team:a,urgent"})
    assert upstream.last.header("x-luthien-tags") is None


async def test_a_policy_that_never_stops_is_stopped(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(policies=[{"use": "endless"}], policy_paths=[FOLDER])
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True), CHAT.headers)
    assert response.status == 400
    verdict = next(one for one in (await gateway.detail()).verdicts if one.action == "deny")
    assert verdict.reason == "policy_oversized"
    assert (await gateway.ask("GET", "/health")).status == 200
