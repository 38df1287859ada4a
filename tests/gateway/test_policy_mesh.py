"""Policy Mesh's own surface: what its clients send and get, and what of it is in the journal."""

from __future__ import annotations

import json
import sqlite3
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import StartGateway
from tests.fault_payloads import TEXT
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway_fixtures import RunningGateway
from tests.raw_http import RawResponse

RULES = {
    "sensitivity": {"keywords": ["confidential"]},
    "cost": {"max_prompt_length_for_local": 20},
    "default_provider": "public",
}
LONG = "Tell me all about the capital of France."


@pytest.fixture
def start(start_gateway: StartGateway, upstream: FaultUpstream) -> Any:
    async def start(routing: dict[str, Any] | None = None, **sections: Any) -> RunningGateway:
        upstreams = {
            "openai": {"api": "openai", "base_url": upstream.url, "api_key": "sk-house-openai"},
            "anthropic": {"api": "anthropic", "base_url": upstream.url, "api_key": "sk-house-anthropic"},
            "ollama": {"api": "ollama", "base_url": upstream.url},
        }
        return await start_gateway(upstreams=upstreams, routing=RULES if routing is None else routing, **sections)

    return start


async def chat(gateway: RunningGateway, text: str, **more: Any) -> RawResponse:
    body = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}], **more}
    return await gateway.ask("POST", "/v1/chat", json.dumps(body).encode(), {"content-type": "application/json"})


@pytest.mark.parametrize(
    ("text", "provider", "reason", "target", "model"),
    [
        ("what is confidential about this long prompt?", "local", "sensitive_keyword_match", b"/api/chat", "llama2"),
        ("short", "local", "cost_prefer_local", b"/api/chat", "llama2"),
        (LONG, "openai", "default", b"/v1/chat/completions", "gpt-3.5-turbo"),
    ],
)
async def test_a_chat_goes_where_the_rules_say(
    start: Any, upstream: FaultUpstream, text: str, provider: str, reason: str, target: bytes, model: str
) -> None:
    gateway = await start()
    response = await chat(gateway, text)
    assert response.status == 200
    answer = response.json()
    assert answer == {
        "request_id": response.header("x-request-id"),
        "provider": provider,
        "reason_codes": [reason],
        "content": TEXT,
        "error": None,
    }
    UUID(answer["request_id"])
    assert upstream.last.target == target
    assert upstream.last.json()["model"] == model
    row = await gateway.row()
    assert (row.upstream, row.reason, row.path) == ("ollama" if provider == "local" else provider, reason, target.decode())


async def test_anthropic_gets_system_messages_in_its_own_field(start: Any, upstream: FaultUpstream) -> None:
    gateway = await start({"default_provider": "anthropic"})
    answer = (await chat(gateway, LONG)).json()
    assert (answer["provider"], answer["reason_codes"]) == ("anthropic", ["default"])
    assert TEXT in answer["content"]
    sent = upstream.last
    assert sent.json() == {
        "model": "claude-3-5-sonnet-20241022",
        "messages": [{"role": "user", "content": LONG}],
        "stream": False,
        "max_tokens": 1024,
        "system": "Be brief.",
    }
    assert (sent.header("x-api-key"), sent.header("anthropic-version")) == ("sk-house-anthropic", "2023-06-01")


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"messages": []}', b'{"messages": [{"role": "user"}]}', b"no JSON", b'{"messages": [{"role": "u", "content": 3}]}'],
)
async def test_what_is_no_chat_is_422_and_sent_nowhere(start: Any, upstream: FaultUpstream, body: bytes) -> None:
    gateway = await start()
    response = await gateway.ask("POST", "/v1/chat", body)
    assert response.status == 422
    assert response.json()["detail"][0]["loc"][0] == "body"
    assert not upstream.exchanges
    assert not await gateway.rows()


@pytest.mark.parametrize(
    ("fault", "category"),
    [
        (Fault(status=401), "auth_error"),
        (Fault(status=404), "client_error"),
        (Fault(status=503), "server_error"),
        (Fault(stall_after=-1), "timeout"),
        (Fault(reset_after=-1), "unknown"),
        (Fault(body="no JSON"), "unknown"),
    ],
)
@pytest.mark.parametrize("provider", ["openai", "anthropic", "ollama"])
async def test_a_failure_is_200_and_says_of_what_kind_it_is(
    start: Any, upstream: FaultUpstream, fault: Fault, category: str, provider: str
) -> None:
    gateway = await start({"default_provider": provider, "timeouts": {"first_byte_s": 0.2}})
    upstream.faults.append(fault)
    response = await chat(gateway, LONG)
    answer = response.json()
    assert (response.status, answer["content"]) == (200, None)
    assert answer["error"]
    audit = (await gateway.ask("GET", f"/v1/audit/{answer['request_id']}")).json()
    assert (audit["status"], audit["failure_category"]) == ("error", category)


async def test_without_a_key_a_provider_is_not_asked(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(upstreams={"openai": {"api": "openai", "base_url": upstream.url}})
    response = await gateway.ask(
        "POST", "/v1/chat", b'{"messages": [{"role": "user", "content": "hi"}]}', {"authorization": "Bearer sk-mine"}
    )
    answer = response.json()
    assert (answer["provider"], answer["reason_codes"], answer["content"]) == ("openai", ["default"], None)
    audit = (await gateway.ask("GET", f"/v1/audit/{answer['request_id']}")).json()
    assert audit["failure_category"] == "auth_error"
    assert not upstream.exchanges
    assert (await gateway.row()).outcome == "refused"


async def test_a_keyword_with_nothing_local_is_refused_here_too(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    upstreams = {"openai": {"api": "openai", "base_url": upstream.url, "api_key": "sk-house"}}
    gateway = await start_gateway(upstreams=upstreams, routing=RULES)
    answer = (await chat(gateway, "confidential")).json()
    assert answer["reason_codes"] == ["sensitive_keyword_match", "capability_missing"]
    assert "must stay local" in answer["error"]
    assert not upstream.exchanges


async def test_the_audit_outlives_a_restart_and_tells_no_prompt(start: Any, upstream: FaultUpstream) -> None:
    from hashlib import sha256

    gateway = await start(journal={"capture": "metadata"})
    answer = (await chat(gateway, LONG)).json()
    await gateway.restart()
    response = await gateway.ask("GET", f"/v1/audit/{answer['request_id']}")
    audit = response.json()
    assert set(audit) == {
        "request_id", "decision", "status", "latency_ms", "failure_category", "prompt_hash", "prompt_length", "created_at",
    }  # fmt: skip
    assert audit["request_id"] == answer["request_id"]
    assert audit["decision"] == "provider=openai,reason_codes=default"
    assert (audit["status"], audit["failure_category"], audit["prompt_length"]) == ("success", None, len(LONG))
    assert audit["latency_ms"] > 0
    assert "T" in audit["created_at"]
    assert len(audit["prompt_hash"]) == 32
    assert audit["prompt_hash"] not in sha256(LONG.encode()).hexdigest()
    again = (await chat(gateway, LONG)).json()
    assert (await gateway.ask("GET", f"/v1/audit/{again['request_id']}")).json()["prompt_hash"] == audit["prompt_hash"]


async def test_what_is_no_chat_has_no_audit(start: Any) -> None:
    from proxy_core.ids import uuid_of
    from tests.gateway.asking import CHAT

    gateway = await start()
    await gateway.ask("POST", CHAT.path, CHAT.bytes())
    other = uuid_of((await gateway.row()).transaction_id)
    for name in (other, "0" * 8 + "-0000-0000-0000-" + "0" * 12, "x", "..", "%2e%2e"):
        assert (await gateway.ask("GET", f"/v1/audit/{name}")).status == 404, name


async def test_the_rules_are_told_without_a_keyword_or_a_key(start: Any) -> None:
    gateway = await start()
    response = await gateway.ask("GET", "/v1/routes")
    assert response.json() == {
        "rule_order": ["sensitivity", "cost", "default"],
        "sensitivity_keyword_count": 1,
        "cost_max_prompt_length_for_local": 20,
        "usd_cost_mode_active": False,
        "cost_max_usd_for_local": None,
        "llm_input_usd_per_1m_tokens": None,
        "cost_chars_per_token": 4.0,
        "default_provider": "public",
        "available_public_provider": "openai",
    }
    assert b"confidential" not in response.body
    assert b"sk-" not in response.body
    assert (await (await start({"default_provider": "local"})).ask("GET", "/v1/routes")).json()["default_provider"] == "local"


async def test_health_and_metrics(start: Any) -> None:
    gateway = await start()
    assert (await gateway.ask("GET", "/v1/health")).json() == {"status": "ok"}
    await chat(gateway, "short")
    response = await gateway.ask("GET", "/v1/metrics")
    assert "version=0.0.4" in (response.header("content-type") or "")
    assert b'chat_requests_total{provider="local",status="success"} 1.0' in response.body
    assert b'chat_request_latency_seconds_bucket{le="0.05",provider="local"}' in response.body


async def test_the_paths_are_described_without_anything_from_elsewhere(start: Any) -> None:
    gateway = await start()
    response = await gateway.ask("GET", "/docs")
    assert response.header("content-type") == "text/html; charset=utf-8"
    page = response.body.decode()
    for path in ("/v1/chat", "/v1/routes", "/v1/audit/{request_id}", "/v1/health", "/v1/metrics"):
        assert path in page
    assert "<script" not in page
    assert "http" not in page
    assert gateway.settings.upstreams["openai"].base_url not in page


async def test_policies_see_chats_too(start: Any, upstream: FaultUpstream) -> None:
    word = TEXT.split()[1]
    replaced = {"use": "string_replacement", "params": {"replacements": [[word, "***"]]}}
    gateway = await start(policies=[replaced])
    assert (await chat(gateway, LONG)).json()["content"] == TEXT.replace(word, "***")
    assert (await gateway.row()).verdict == "modify"


@pytest.mark.parametrize("auth", ["gateway", "both"])
async def test_who_has_no_key_sees_neither_audit_nor_rules_nor_figures(start: Any, auth: str) -> None:
    digest = sha256(b"lth_team").hexdigest()
    gateway = await start(server={"auth": auth}, keys={"team": {"sha256": digest}})
    held = {"authorization": "Bearer lth_team"}
    body = json.dumps({"messages": [{"role": "user", "content": "short"}]}).encode()
    answer = await gateway.ask("POST", "/v1/chat", body, held | {"content-type": "application/json"})
    for path in (f"/v1/audit/{answer.json()['request_id']}", "/v1/routes", "/v1/metrics"):
        for headers in ({}, {"authorization": "Bearer sk-other"}, {"authorization": "Bearer lth_other"}):
            refused = await gateway.ask("GET", path, headers=headers)
            assert (refused.status, list(refused.json())) == (401, ["detail"])
        assert (await gateway.ask("GET", path, headers=held)).status == 200
    assert (await gateway.ask("GET", "/v1/health")).status == 200


async def test_an_audit_that_is_switched_off_knows_nothing(start: Any) -> None:
    gateway = await start(server={"audit": False})
    answer = await chat(gateway, "short")
    assert answer.status == 200
    assert (await gateway.ask("GET", f"/v1/audit/{answer.header('x-request-id')}")).status == 404


async def test_the_audit_names_who_stood_in(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    one = {"api": "openai", "base_url": upstream.url, "api_key": "sk-house"}
    gateway = await start_gateway(upstreams={"one": one, "two": {**one, "priority": 1}}, routing=RULES)
    upstream.faults.append(Fault(status=503))
    answer = (await chat(gateway, LONG)).json()
    assert answer["reason_codes"] == ["default", "fallback_after_failure"]
    audit = (await gateway.ask("GET", f"/v1/audit/{answer['request_id']}")).json()
    assert audit["decision"] == "provider=openai,reason_codes=default,fallback_after_failure"


async def test_an_audit_that_cannot_be_read_is_not_found(start: Any) -> None:
    gateway = await start()
    answer = (await chat(gateway, LONG)).json()
    path = f"/v1/audit/{answer['request_id']}"
    with sqlite3.connect(gateway.data_dir / "luthien.db") as store:
        store.execute("alter table outcomes rename to lost")
    assert (await gateway.ask("GET", path)).status == 404
    with sqlite3.connect(gateway.data_dir / "luthien.db") as store:
        store.execute("alter table lost rename to outcomes")
    assert (await gateway.ask("GET", path)).status == 200
