"""kill -9 under load: what a client got whole has its outcome, and what the upstream saw has its intent."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import count
from pathlib import Path

import pytest

from proxy_core.journal.store import JournalStore
from proxy_core.tasks import spawn
from proxy_core.transaction_row import TransactionRow
from tests.fault_upstream import Fault, FaultUpstream
from tests.faults.gateway_process import GatewayProcess
from tests.gateway.asking import ONE_OF_EACH_DIALECT, Asking
from tests.gateway_fixtures import settings_for
from tests.raw_http import RawClient

CLIENTS = 8


class Load:
    """Clients that ask without pause until their gateway dies, and remember what they got whole."""

    def __init__(self, rng: random.Random) -> None:
        self.whole: dict[str, str] = {}
        """Mark of each request whose answer came whole, by its transaction."""
        self._numbers = count(1)
        self._rng = rng

    async def run(self, host: str, port: int, moment_s: float) -> list[asyncio.Task[None]]:
        """Start the clients and return after a moment of load."""
        before = len(self.whole)
        tasks = [spawn(self._ask_on(host, port), name=f"client {number}") for number in range(CLIENTS)]
        async with asyncio.timeout(30):
            while len(self.whole) < before + CLIENTS:  # there is load, whatever this machine does besides
                await asyncio.sleep(0.01)
        await asyncio.sleep(moment_s)
        return tasks

    async def _ask_on(self, host: str, port: int) -> None:
        try:
            async with RawClient(host, port, timeout_s=30) as client:
                while True:
                    await self._ask(client)
        except (OSError, EOFError):
            return  # the gateway was killed

    async def _ask(self, client: RawClient) -> None:
        asking: Asking = self._rng.choice(ONE_OF_EACH_DIALECT)
        mark = f"mark-{next(self._numbers)}-"
        stream = self._rng.random() < 0.5
        fault = Fault(interval_s=self._rng.choice([0.0, 0.002, 0.02])) if stream else Fault()
        content = {"prompt": mark} if "prompt" in asking.body else {"messages": [{"role": "user", "content": mark}]}
        client.request("POST", asking.path, asking.bytes(stream=stream, **content), fault.header())
        response = await client.response()
        transaction_id = response.header("x-luthien-transaction-id")
        assert response.status == 200, response.body
        assert transaction_id
        if response.whole and (not stream or asking.terminator in response.body):
            self.whole[transaction_id] = mark
        if not response.whole:
            raise EOFError


async def kill_and_check(kills: int, folder: Path, upstream: FaultUpstream, database_url: str | None) -> None:
    settings = settings_for(upstream.url, **({"journal": {"database_url": database_url}} if database_url else {}))
    told = json.loads(settings.model_dump_json(exclude_unset=True))
    rng = random.Random(9)
    load = Load(rng)
    for number in range(kills):
        process = GatewayProcess(told, folder)
        await process.start()
        clients = await load.run(process.host, process.port, rng.uniform(0.02, 0.3))
        await process.kill()
        await asyncio.gather(*clients)
        rows = await read_journal(folder, database_url)
        assert_nothing_lost(rows, load.whole, upstream)
        assert len(load.whole) > number * CLIENTS
    process = GatewayProcess(told, folder)
    await process.start()
    assert await process.stop() == 0
    assert_nothing_lost(await read_journal(folder, database_url), load.whole, upstream)


async def read_journal(folder: Path, database_url: str | None) -> list[TransactionRow]:
    """What a killed gateway has left, read as it is."""
    store = await JournalStore.open(database_url or f"sqlite+aiosqlite:///{folder / 'luthien.db'}")
    try:
        return await store.rows(1_000_000)
    finally:
        await store.close()


def assert_nothing_lost(rows: list[TransactionRow], whole: dict[str, str], upstream: FaultUpstream) -> None:
    outcomes = {row.transaction_id: row.outcome for row in rows}
    assert {outcomes.get(one, "not in the journal") for one in whole} <= {"ok"}
    intents = {row.preview for row in rows}
    seen = {_mark(exchange.body) for exchange in upstream.exchanges}
    assert len(seen) >= len(whole)
    assert seen <= intents, f"the upstream saw {sorted(seen - intents)}, which the journal does not know"


def _mark(body: bytes) -> str:
    place = body.index(b"mark-")
    return body[place : body.index(b'"', place)].decode()


async def test_three_kills_lose_nothing(tmp_path: Path, upstream: FaultUpstream) -> None:
    await kill_and_check(3, tmp_path, upstream, None)


async def test_a_kill_loses_nothing_on_postgres(tmp_path: Path, upstream: FaultUpstream, postgres_url: str) -> None:
    await kill_and_check(1, tmp_path, upstream, postgres_url)


@pytest.mark.slow
async def test_fifty_kills_lose_nothing(tmp_path: Path, upstream: FaultUpstream) -> None:
    await kill_and_check(50, tmp_path, upstream, None)
