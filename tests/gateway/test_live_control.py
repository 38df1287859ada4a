"""Policies that change under traffic: no request is lost, and each sees exactly one version of the chain, the recorded one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy_core.control.plane import ControlInvalid
from proxy_core.journal.store import JournalStore
from proxy_core.runtime import GatewayRuntime
from proxy_core.settings import Settings
from proxy_core.settings_sources import LoadedSettings
from proxy_core.tasks import spawn
from tests.fault_upstream import FaultUpstream
from tests.gateway.asking import CHAT
from tests.gateway_fixtures import RunningGateway, settings_for

CHANGES = 80
CLIENTS = 16
WORD = re.compile(r"(?:capital|France|w\d{4})")


class Told:
    """What one client got, and what the upstream got for it."""

    def __init__(self, number: int, transaction_id: str, body: str) -> None:
        self.number = number
        self.transaction_id = transaction_id
        self.body = body


class Live:
    """A gateway whose configuration is what the test says."""

    def __init__(self, upstream: FaultUpstream, database_url: str | None) -> None:
        self._upstream = upstream
        self._database_url = database_url
        self.word = "w0000"
        self.gateway: RunningGateway

    def settings(self) -> Settings:
        """Two policies that must agree on a word, in requests and in answers, beside others to toggle."""

        def replacing(name: str, found: str) -> dict[str, Any]:
            params = {"replacements": [[found, self.word]], "apply_to": "both"}
            return {"use": "string_replacement", "name": name, "params": params}

        policies = [
            replacing("first", "capital"),
            {"use": "noop"},
            {"use": "hold_for_approval", "mode": "off"},
            replacing("second", "France"),
        ]
        journal = {"database_url": self._database_url}
        return settings_for(self._upstream.url, policies=policies, control={"port": 0}, journal=journal)

    def load(self) -> LoadedSettings:
        return LoadedSettings(self.settings(), {})

    @property
    def digest(self) -> str:
        return self.gateway.runtime._policies.chains.default.digest


@asynccontextmanager
async def live_gateway(upstream: FaultUpstream, folder: Path, database_url: str | None = None) -> AsyncIterator[Live]:
    live = Live(upstream, database_url)
    folder.mkdir()
    runtime = GatewayRuntime(live.settings(), data_dir=folder, load=live.load)
    await runtime.start()
    live.gateway = RunningGateway(runtime, live.settings(), folder)
    try:
        yield live
    finally:
        await live.gateway.stop()


async def ask(session: aiohttp.ClientSession, url: str, number: int) -> Told:
    body = {**CHAT.body, "messages": [{"role": "user", "content": f"The capital of France, number {number}?"}]}
    async with session.post(url, json={**body, "stream": number % 2 == 0}) as response:
        text = await response.text()
        assert response.status == 200, text
        return Told(number, response.headers["x-luthien-transaction-id"], text)


def text_of(body: str) -> str:
    """What the answer says, of a stream too."""
    if not body.startswith("data:"):
        return str(json.loads(body)["choices"][0]["message"]["content"])
    events = [json.loads(line[5:]) for line in body.split("\n\n") if line.startswith("data: {")]
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in events if one["choices"])


async def under_traffic(live: Live, change: Callable[[int], Any]) -> list[Told]:
    """Make the changes while clients ask without a pause; what they were told."""
    told: list[Told] = []
    numbers = iter(range(10**9))
    ended = asyncio.Event()
    url = live.gateway.url + CHAT.path

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:

        async def client() -> None:
            while not ended.is_set():
                told.append(await ask(session, url, next(numbers)))

        clients = [spawn(client(), name="client") for _ in range(CLIENTS)]
        try:
            for number in range(CHANGES):
                asked = len(told)
                await change(number)
                while len(told) < asked + 3:  # so that each version sees traffic
                    assert not any(one.done() for one in clients), "a client failed"
                    await asyncio.sleep(0)
        finally:
            ended.set()
            await asyncio.gather(*clients)
        return told


@pytest.mark.parametrize("how", ["operator", "file", "both"])
async def test_no_request_is_lost_and_each_sees_one_version(upstream: FaultUpstream, tmp_path: Path, how: str) -> None:
    async with live_gateway(upstream, tmp_path / "data") as live:
        word_of = {live.digest: live.word}

        async def change(number: int) -> None:
            if how == "file" or (how == "both" and number % 5 == 0):
                live.word = f"w{number + 1:04d}"
                assert await live.gateway.runtime.reload()
            elif number % 2:
                await live.gateway.plane.set_policy("noop", mode=("off", "shadow", "enforce")[number % 3], who="ann")
            else:
                await live.gateway.plane.set_policy("hold_for_approval", params={"timeout_s": 1 + number}, who="ann")
            word_of[live.digest] = live.word

        told = await under_traffic(live, change)
        got = {re.search(r"number (\d+)", one.body.decode())[1]: one.body.decode() for one in upstream.exchanges}  # type: ignore[index]
        assert len(upstream.exchanges) == len(told) == len(got)
        store = await JournalStore.open(f"sqlite+aiosqlite:///{live.gateway.data_dir / 'luthien.db'}")
        decided = await store.decided([one.transaction_id for one in told])
        await store.close()
        versions_seen = set()
        for one in told:
            digest = decided[one.transaction_id].policy_digest
            versions_seen.add(digest)
            word = word_of[digest]
            assert WORD.findall(got[str(one.number)]) == [word, word]
            assert WORD.findall(text_of(one.body)) == [word, word]
            assert [said.action for said in decided[one.transaction_id].verdicts if said.policy == "first"] == [
                "modify",
                "modify",
            ]
        assert len(versions_seen) > 10
        assert {row.outcome for row in await live.gateway.rows()} == {"ok"}


async def test_what_operators_set_is_there_after_a_restart(
    upstream: FaultUpstream, tmp_path: Path, database_url: str | None
) -> None:
    async with live_gateway(upstream, tmp_path / "data", database_url) as live:
        await live.gateway.plane.set_policy("first", mode="off", who="ann")
        with pytest.raises(ControlInvalid):
            await live.gateway.plane.set_policy("first", params={"replacements": "no list"}, who="ann")
        digest = live.digest
        await live.gateway.restart()
        assert live.digest == digest
        info = next(one for one in live.gateway.plane.policies() if one.name == "first")
        assert (info.mode, info.source.startswith("operator ann at 20")) == ("off", True)
        response = await live.gateway.ask("POST", CHAT.path, CHAT.bytes())
        assert WORD.findall(text_of(response.body.decode())) == ["capital", "w0000"]


async def test_decisions_are_counted_for_screen_and_metrics(upstream: FaultUpstream, tmp_path: Path) -> None:
    async with live_gateway(upstream, tmp_path / "data") as live:
        for _ in range(3):
            await live.gateway.ask("POST", CHAT.path, CHAT.bytes())
        infos = {one.name: one for one in live.gateway.plane.policies()}
        assert (infos["first"].hits_1h, infos["first"].acted_1h, infos["noop"].acted_1h) == (3, 3, 0)
        assert infos["first"].p50_ms is not None
        metrics = (await live.gateway.ask("GET", "/metrics")).body.decode()
        assert 'luthien_policy_decisions_total{action="modify",mode="enforce",policy="first"}' in metrics
