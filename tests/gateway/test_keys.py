"""Keys of luthien's own: who is let in, what the upstream gets to see, and what is on record."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path

import pytest

from proxy_core.journal.client_keys import ClientKeys, KeyLimits
from proxy_core.journal.store import JournalStore
from tests.conftest import StartGateway
from tests.fault_upstream import FaultUpstream
from tests.gateway.asking import CHAT, EVERY, MESSAGES, OLLAMA_CHAT, ONE_OF_EACH_DIALECT, Asking, error_message, name_of
from tests.gateway_fixtures import APIS, RunningGateway

UPSTREAM_KEY = "sk-proj-upstreams-own-key-000000000000000000"
CLIENTS_OWN = "sk-proj-clients-own-key-11111111111111111111"


def with_keys(upstream: FaultUpstream, auth: str, **more: object) -> dict[str, object]:
    """Sections of a gateway that asks for keys, and has keys of the upstreams."""
    upstreams = {api: {"api": api, "base_url": upstream.url, "api_key": UPSTREAM_KEY} for api in APIS}
    return {"server": {"auth": auth}, "upstreams": upstreams, **more}


async def new_key(gateway: RunningGateway, name: str = "ci", limits: KeyLimits | None = None) -> str:
    """Make a key the way `luthien keys create` does, beside the running gateway."""
    store = await store_of(gateway)
    try:
        return await store.create(name, limits or KeyLimits(), "tester")
    finally:
        await store.close()


async def store_of(gateway: RunningGateway) -> ClientKeys:
    url = gateway.settings.journal.database_url
    return await ClientKeys.open(url or f"sqlite+aiosqlite:///{gateway.data_dir / 'luthien.db'}")


async def recorded_key(gateway: RunningGateway) -> str:
    """Name of the key with which the newest transaction came."""
    newest = (await gateway.row()).transaction_id
    store = await JournalStore.open(f"sqlite+aiosqlite:///{gateway.data_dir / 'luthien.db'}")
    try:
        found = await store.detail(newest)
        assert found is not None
        return found.key
    finally:
        await store.close()


def bearer(asking: Asking, key: str) -> dict[str, str]:
    return {**asking.headers, "authorization": f"Bearer {key}"}


@pytest.mark.parametrize("asking", EVERY, ids=name_of)
async def test_a_key_is_taken_at_once_and_the_upstreams_own_takes_its_place(
    start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking
) -> None:
    gateway = await start_gateway(**with_keys(upstream, "gateway"))
    key = await new_key(gateway)
    sent = asking.headers | ({"x-api-key": key} if asking.dialect == "anthropic" else {"authorization": f"bearer {key}"})
    assert (await gateway.ask("POST", asking.path, asking.bytes(), sent)).status == 200
    seen = upstream.last
    wanted = {"x-api-key": UPSTREAM_KEY} if asking.dialect == "anthropic" else {"authorization": f"Bearer {UPSTREAM_KEY}"}
    assert {name: seen.header(name) for name in wanted} == wanted
    assert key.encode() not in seen.head
    assert await recorded_key(gateway) == "ci"


@pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
async def test_without_a_key_of_this_gateway_nobody_passes(
    start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking
) -> None:
    gateway = await start_gateway(**with_keys(upstream, "gateway"))
    for key, reason in (("", "key_missing"), (CLIENTS_OWN, "key_unknown"), ("lth_" + "x" * 43, "key_unknown")):
        headers = bearer(asking, key) if key else asking.headers
        answer = await gateway.ask("POST", asking.path, asking.bytes(), headers)
        assert answer.status == 401
        assert answer.header("x-should-retry") == "false"
        assert "key" in error_message(answer, asking.dialect)
        assert answer.header("x-luthien-reason") == reason
        row = await gateway.row()
        assert (row.outcome, row.status, row.reason, row.verdict) == ("refused", 401, reason, "deny")
    assert not upstream.exchanges


async def test_a_large_body_of_a_stranger_is_not_kept(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(**with_keys(upstream, "gateway"))
    answer = await gateway.ask("POST", CHAT.path, CHAT.bytes(padding="x" * 3_000_000), CHAT.headers)
    assert answer.status == 401
    assert (await gateway.detail()).request_body == b""


async def test_a_revoked_key_is_refused_within_a_moment(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(**with_keys(upstream, "gateway"))
    key = await new_key(gateway)
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, key))).status == 200
    store = await store_of(gateway)
    assert await store.revoke("ci", "tester")
    await store.close()
    async with asyncio.timeout(30):
        while (answer := await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, key))).status == 200:
            await asyncio.sleep(0.05)
    assert answer.status == 401
    assert "revoked" in error_message(answer, "openai")
    assert (await gateway.row()).reason == "key_revoked"
    again = await new_key(gateway)
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, again))).status == 200
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, key))).status == 401


async def test_keys_outlive_a_restart_and_hold_on_every_store(
    start_gateway: StartGateway, upstream: FaultUpstream, database_url: str | None
) -> None:
    journal = {"database_url": database_url} if database_url else {}
    gateway = await start_gateway(**with_keys(upstream, "gateway", journal=journal))
    key = await new_key(gateway)
    await gateway.restart()
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, key))).status == 200


async def test_both_takes_a_luthien_key_or_passes_the_clients_own_on(
    start_gateway: StartGateway, upstream: FaultUpstream
) -> None:
    gateway = await start_gateway(**with_keys(upstream, "both"))
    key = await new_key(gateway)
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, CLIENTS_OWN))).status == 200
    assert upstream.last.header("authorization") == f"Bearer {CLIENTS_OWN}"
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, key))).status == 200
    assert upstream.last.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, "lth_" + "x" * 43))).status == 401
    two = [("authorization", f"Bearer {CLIENTS_OWN}"), ("x-api-key", key), ("content-type", "application/json")]
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), dict(two))).status == 200
    assert key.encode() not in upstream.last.head
    assert upstream.last.header("authorization") == f"Bearer {UPSTREAM_KEY}"


@pytest.mark.parametrize("auth", ["passthrough", "gateway", "both"])
async def test_a_luthien_key_is_never_sent_on(start_gateway: StartGateway, upstream: FaultUpstream, auth: str) -> None:
    gateway = await start_gateway(**with_keys(upstream, auth))
    key = await new_key(gateway)
    for target, headers in (
        (CHAT.path, bearer(CHAT, key)),
        (CHAT.path, bearer(CHAT, key) | {"x-forwarded-key": key, "cookie": f"k={key}"}),
        (f"{CHAT.path}?api_key={key}", CHAT.headers),
        (f"{CHAT.path}?api_key={key}", bearer(CHAT, key)),
    ):
        answer = await gateway.ask("POST", target, CHAT.bytes(), headers)
        assert (answer.status == 200) is (auth != "passthrough" and "?" not in target)
    assert not any(key.encode() in one.head for one in upstream.exchanges)


async def test_keys_of_the_configuration_let_in_too(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    secret, hashed = "a-key-of-the-configuration", "another-key-of-it"
    keys = {
        "alice": {"key": secret},
        "bob": {"sha256": hashlib.sha256(hashed.encode()).hexdigest()},
        "eve": {"key": "eves-old-key", "active": False},
    }
    gateway = await start_gateway(**with_keys(upstream, "gateway", keys=keys))
    for key, name in ((secret, "alice"), (hashed, "bob")):
        assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, key))).status == 200
        assert await recorded_key(gateway) == name
        assert key.encode() not in upstream.last.head
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, "eves-old-key"))).status == 401
    assert (await gateway.row()).reason == "key_revoked"


async def test_an_upstream_without_a_key_is_told_of(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(server={"auth": "gateway"})
    key = await new_key(gateway)
    for asking in (CHAT, MESSAGES):
        answer = await gateway.ask("POST", asking.path, asking.bytes(), bearer(asking, key))
        assert answer.status == 403
        assert answer.header("x-should-retry") == "false"
        assert f"upstreams.{asking.dialect}.api_key" in error_message(answer, asking.dialect)
        row = await gateway.row()
        assert (row.outcome, row.reason) == ("refused", "upstream_key_missing")
    assert not upstream.exchanges
    # Ollama asks for none.
    assert (await gateway.ask("POST", OLLAMA_CHAT.path, OLLAMA_CHAT.bytes(), bearer(OLLAMA_CHAT, key))).status == 200
    assert upstream.last.header("authorization") is None


async def test_policies_may_give_the_key_that_the_upstream_has_not(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    policies = [{"use": "add_api_key", "params": {"source": "config", "api_key": UPSTREAM_KEY}}]
    gateway = await start_gateway(server={"auth": "gateway"}, policies=policies)
    key = await new_key(gateway)
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, key))).status == 200
    assert key.encode() not in upstream.last.head


async def test_keys_stand_nowhere(start_gateway: StartGateway, upstream: FaultUpstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    gateway = await start_gateway(**with_keys(upstream, "gateway"))
    key = await new_key(gateway)
    body = CHAT.bytes(user=f"my key is {key}")
    assert (await gateway.ask("POST", CHAT.path, body, bearer(CHAT, key))).status == 200
    assert (await gateway.ask("POST", CHAT.path, body, bearer(CHAT, key[:-1] + "?"))).status == 401
    config = await gateway.ask("GET", "/config")
    assert key not in config.body.decode()
    assert UPSTREAM_KEY not in config.body.decode()
    await gateway.stop()
    for file in Path(gateway.data_dir).rglob("*"):
        if file.is_file():
            assert key.encode() not in file.read_bytes(), file
    assert key not in caplog.text


@pytest.mark.parametrize(
    ("host", "auth", "warned"),
    [("0.0.0.0", "passthrough", True), ("0.0.0.0", "both", False), ("127.0.0.1", "passthrough", False)],
)
async def test_an_open_door_is_warned_of(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture, host: str, auth: str, warned: bool
) -> None:
    await start_gateway(server={"host": host, "auth": auth})
    assert ("server.auth" in caplog.text) is warned
