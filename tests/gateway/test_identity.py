"""What a request says of whom it is for: on the row, in the journal, for policies and routing, and never upstream."""

from __future__ import annotations

import json

from proxy_core.journal.usage_reads import UsageReads
from tests.conftest import StartGateway
from tests.fault_upstream import FaultUpstream
from tests.gateway.asking import CHAT, MESSAGES
from tests.gateway_fixtures import RunningGateway

KEY = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD"


async def test_headers_name_user_and_tags_and_go_no_further(stored_gateway: RunningGateway, upstream: FaultUpstream) -> None:
    headers = {
        "X-Luthien-User-Id": "alice",
        "X-CYLESTIO-Tags": f"env:staging, debug, note:{KEY}",
        "x-cylestio-session-id": "s-1",
        "X-Cylestio-Agent-Id": "tutor",
        "x-Luthien-Anything": "x",
        "x-request-id": "mine",
    }
    await stored_gateway.ask("POST", "/agent-workflow/nightly%20build/openai/v1/chat/completions?a=%2F", CHAT.bytes(), headers)
    row = await stored_gateway.row()
    assert (row.user, row.agent, row.session_id, row.link) == ("alice", "tutor", "s-1", "header")
    assert row.workflow == "nightly build"
    assert row.tags == (("env", "staging"), ("debug", "true"), ("note", "[redacted]"), ("session", "s-1"))
    sent = upstream.last
    assert sent.target == b"/v1/chat/completions?a=%2F"
    names = {name.decode().lower() for name, _ in sent.headers}
    assert "x-request-id" in names
    assert not [name for name in names if name.startswith(("x-luthien", "x-cylestio"))]


async def test_the_body_names_the_user(gateway: RunningGateway) -> None:
    await gateway.ask("POST", CHAT.path, CHAT.bytes(safety_identifier="u-7"), CHAT.headers)
    assert (await gateway.row()).user == "u-7"
    user_id = json.dumps({"account_uuid": "acc", "session_id": "s-2"})
    await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes(metadata={"user_id": user_id}), MESSAGES.headers)
    row = await gateway.row()
    assert (row.user, row.session_id, row.link) == ("acc", "s-2", "mark")


async def test_hostile_names_are_cut_and_the_request_passes(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    body = CHAT.bytes()
    raw = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        + b"x-luthien-session-id: " + b"s" * 10_000
        + b"\r\nx-luthien-agent-id: \x9b31m" + b"a" * 10_000
        + b"\r\nx-luthien-user-id: \xe2\x80\xae" + b"u" * 10_000
        + b"\r\nx-luthien-tags: " + b",".join(b"t%d:%s" % (number, b"v" * 300) for number in range(60))
        + b"\r\nx-cylestio-tags: t1:\x9b]0;x,\xe2\x80\xae:y\r\n\r\n"
    )  # fmt: skip
    async with gateway.connect() as client:
        client.send(raw + body)
        response = await client.response(method="POST")
    assert (response.status, upstream.last.body) == (200, body)
    row = await gateway.row()
    assert (len(row.session_id), len(row.agent), len(row.user), len(row.tags)) == (200, 200, 200, 50)
    assert (row.agent[:5], row.user[:2], dict(row.tags)["t1"]) == ("?31ma", "?u", "?]0;x")


async def test_control_characters_are_refused_by_the_server_itself(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        client.send(b"GET /v1/models HTTP/1.1\r\nhost: h\r\nx-luthien-user-id: a\x1b[31m\r\n\r\n")
        assert (await client.response(method="GET")).status == 400
    assert upstream.exchanges == []


async def test_a_key_in_a_name_is_on_no_record(gateway: RunningGateway) -> None:
    headers = CHAT.headers | {"authorization": "Bearer own-secret-of-mine-1", "x-luthien-user-id": "own-secret-of-mine-1"}
    await gateway.ask("POST", f"/agent-workflow/{KEY}/v1/chat/completions", CHAT.bytes(), headers)
    row = await gateway.row()
    assert (row.user, row.workflow) == ("[redacted]", "[redacted]")
    assert row.path == "/agent-workflow/[redacted]/v1/chat/completions"


async def test_routing_and_policies_see_the_tags(start_gateway: StartGateway) -> None:
    policy = {"use": "block_dangerous_commands", "name": "mine"}
    chain = {"match": {"agent": "tutor"}, "policies": [policy]}
    gateway = await start_gateway(chains=[chain], routing={"tags": {"team:legal": "ollama"}})
    headers = CHAT.headers | {"x-cylestio-tags": "team: legal", "x-cylestio-prompt-id": "tutor"}
    await gateway.ask("POST", CHAT.path, CHAT.bytes(), headers)
    row = await gateway.row()
    assert (row.upstream, row.agent, row.tags) == ("ollama", "tutor", (("team", "legal"),))


async def test_the_clients_key_is_on_record_by_a_fingerprint(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(keys={"ci": {"key": "sk-own-ci-0123456789"}})
    for key in ("sk-own-ci-0123456789", "sk-own-xx-0123456789", "sk-own-xx-0123456789"):
        await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers | {"authorization": f"Bearer {key}"})
    await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
    sums = await UsageReads(gateway.runtime._journal.engine).usage("key")
    found = {one.group[0]: one.requests for one in sums}
    fingerprint = next(name for name in found if name.startswith("key-"))
    assert found == {"ci": 1, fingerprint: 2, "": 1}
    assert len(fingerprint) == len("key-12345678")
