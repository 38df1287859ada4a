"""Where requests go in a real gateway with a cloud upstream and a local one: what each gets, and what the journal has."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, EVERY, MESSAGES, OLLAMA_CHAT, RESPONSES, Asking, error_message, name_of
from tests.gateway_fixtures import RunningGateway

SENSITIVE = {"sensitivity": {"keywords": ["internal"]}}


@pytest.fixture
async def local() -> AsyncIterator[FaultUpstream]:
    async with FaultUpstream() as fault_upstream:
        yield fault_upstream


@pytest.fixture
def start(start_gateway: StartGateway, upstream: FaultUpstream, local: FaultUpstream) -> Any:
    async def start(routing: dict[str, Any], *, near: dict[str, Any] | None = None, **sections: Any) -> RunningGateway:
        upstreams = {
            "openai": {"api": "openai", "base_url": upstream.url},
            "anthropic": {"api": "anthropic", "base_url": upstream.url},
            "near": {"api": "ollama", "base_url": local.url, **(near or {})},
        }
        return await start_gateway(upstreams=upstreams, routing=routing, **sections)

    return start


def said(text: str, **more: Any) -> bytes:
    return json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}).encode()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_with_a_keyword_goes_to_the_local_upstream(
    start: Any, upstream: FaultUpstream, local: FaultUpstream, stream: bool
) -> None:
    gateway = await start(SENSITIVE)
    response = await gateway.ask(
        "POST", CHAT.path, said("our internal plan", stream=stream), {"authorization": "Bearer sk-client"}
    )
    assert response.status == 200
    assert not upstream.exchanges
    assert local.last.json()["messages"][0]["content"] == "our internal plan"
    assert local.last.header("authorization") is None, "the client's key is meant for the upstream that it asked for"
    assert response.header("x-luthien-upstream") == "near"
    assert response.header("x-luthien-reason") == "sensitive_keyword_match"
    row = await gateway.row()
    assert (row.upstream, row.reason) == ("near", "sensitive_keyword_match")


async def test_everything_else_goes_where_its_path_says_unchanged(
    start: Any, upstream: FaultUpstream, local: FaultUpstream
) -> None:
    gateway = await start(SENSITIVE, near={"models": {"gpt-*": "llama3.2"}})
    for asking in (CHAT, RESPONSES, MESSAGES):
        body = b" " + asking.bytes()
        response = await gateway.ask("POST", asking.path, body, {**asking.headers, "authorization": "Bearer sk-client"})
        assert response.header("x-luthien-reason") == "default"
        assert upstream.last.body == body
        assert upstream.last.header("authorization") == "Bearer sk-client"
    assert not local.exchanges


def blocks(*content: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


HIDDEN: list[Any] = [
    (CHAT, {"messages": [{"role": "system", "content": "internal"}, {"role": "user", "content": "hi"}]}),
    (
        CHAT,
        {
            "messages": [
                {"role": "user", "content": "INTERNAL"},
                {"role": "assistant", "content": "ok"},
                {"role": "user", "content": "hi"},
            ]
        },
    ),
    (CHAT, {"messages": [{"role": "user", "content": "hi"}, {"role": "tool", "tool_call_id": "c", "content": "internal.txt"}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "inter\u200bnal"}]}]}),
    (
        CHAT,
        {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "\\u0069nternal"}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "ok"},
            ]
        },
    ),
    (RESPONSES, {"instructions": "internal", "input": "hi"}),
    (RESPONSES, {"input": [{"type": "function_call_output", "call_id": "c", "output": "internal"}]}),
    (RESPONSES, {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "internal"}]}]}),
]


@pytest.mark.parametrize(("asking", "body"), HIDDEN)
@pytest.mark.parametrize("path", ["", "/openai"])
async def test_no_part_of_a_conversation_hides_a_keyword_from_the_rule(
    start: Any, upstream: FaultUpstream, local: FaultUpstream, asking: Asking, body: dict[str, Any], path: str
) -> None:
    gateway = await start(SENSITIVE)
    payload = json.dumps({"model": "m", **body}).encode()
    assert (await gateway.ask("POST", path + asking.path, payload)).header("x-luthien-upstream") == "near"
    assert not upstream.exchanges


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        {"system": "internal", "messages": [{"role": "user", "content": "hi"}]},
        blocks({"type": "tool_result", "tool_use_id": "t", "content": "internal"}),
        blocks({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "internal"}}),
        blocks({"type": "tool_use", "id": "t", "name": "f", "input": {"path": "internal"}}),
        blocks({"type": "not_yet_known", "deep": [{"text": "internal"}]}),
    ],
)
async def test_where_nothing_local_takes_it_a_keyword_is_refused(
    start_gateway: StartGateway, upstream: FaultUpstream, body: dict[str, Any], stream: bool
) -> None:
    gateway = await start_gateway(upstreams={"anthropic": {"api": "anthropic", "base_url": upstream.url}}, routing=SENSITIVE)
    payload = json.dumps({"model": "claude-sonnet-5", "max_tokens": 9, "stream": stream, **body}).encode()
    response = await gateway.ask("POST", MESSAGES.path, payload, MESSAGES.headers)
    assert (response.status, response.header("x-should-retry")) == (400, "false")
    assert "must stay local" in error_message(response, "anthropic")
    assert not upstream.exchanges
    row = await gateway.row()
    assert (row.outcome, row.verdict, row.upstream) == ("refused", "deny", "")
    assert row.reason == "sensitive_keyword_match,capability_missing"


async def test_a_compressed_body_is_looked_into_and_an_unreadable_one_stays_local(
    start: Any, upstream: FaultUpstream, local: FaultUpstream
) -> None:
    gateway = await start(SENSITIVE)
    zipped = await gateway.ask("POST", CHAT.path, gzip.compress(said("internal")), {"content-encoding": "gzip"})
    assert zipped.header("x-luthien-reason") == "sensitive_keyword_match"
    strange = await gateway.ask("POST", CHAT.path, said("hi"), {"content-encoding": "x-unheard-of"})
    assert strange.header("x-luthien-reason") == "content_unreadable"
    harmless = await gateway.ask("POST", CHAT.path, gzip.compress(said("hi")), {"content-encoding": "gzip"})
    assert harmless.header("x-luthien-reason") == "default"
    file = await gateway.ask(
        "POST", "/v1/files", b"--x\r\n\r\nour Internal notes\r\n--x--", {"content-type": "multipart/form-data"}
    )
    assert file.header("x-luthien-upstream") == "near"
    assert len(upstream.exchanges) == 1


@pytest.mark.parametrize("asking", EVERY, ids=name_of)
async def test_models_are_called_as_the_upstream_calls_them(start: Any, local: FaultUpstream, asking: Asking) -> None:
    names = {"gpt-4o-mini": "llama3.2", "llama3.2": "llama3.2:3b", "claude-*": "none"}
    gateway = await start({"cost": {"max_prompt_length_for_local": 1_000}}, near={"models": names})
    response = await gateway.ask("POST", asking.path, asking.bytes(mood="ann"), asking.headers)
    if asking is MESSAGES:
        assert response.header("x-luthien-reason") == "default,capability_missing"
        return
    assert response.header("x-luthien-reason") == "cost_prefer_local"
    sent = json.loads(asking.bytes(mood="ann"))
    assert local.last.json() == {**sent, "model": names[sent["model"]]}
    detail = await gateway.detail()
    assert json.loads(detail.request_body) == sent
    assert detail.sent_body is not None
    assert json.loads(detail.sent_body)["model"] == names[sent["model"]]


async def test_a_default_model_is_for_requests_that_a_rule_sends_there(start: Any, local: FaultUpstream) -> None:
    gateway = await start({"cost": {"max_prompt_length_for_local": 1_000}}, near={"default_model": "llama3.2"})
    await gateway.ask("POST", CHAT.path, said("hi"))
    assert local.last.json()["model"] == "llama3.2"
    await gateway.ask("POST", OLLAMA_CHAT.path, said("hi"))
    assert local.last.json()["model"] == "gpt-4o-mini", "who asks for Ollama asks for its models"


async def test_tags_models_and_a_default_choose(start: Any, upstream: FaultUpstream, local: FaultUpstream) -> None:
    gateway = await start({"tags": {"team:legal": "near"}, "models": {"llama*": "near"}})
    tagged = await gateway.ask("POST", CHAT.path, said("hi"), {"x-luthien-tags": "team:legal"})
    assert tagged.header("x-luthien-reason") == "tag_rule"
    named = await gateway.ask("POST", CHAT.path, said("hi", model="llama3.2"))
    assert named.header("x-luthien-reason") == "explicit_model"
    assert (await gateway.ask("POST", CHAT.path, said("hi"))).header("x-luthien-upstream") == "openai"
    gateway = await start({"default_provider": "local"})
    assert (await gateway.ask("POST", CHAT.path, said("hi"))).header("x-luthien-upstream") == "near"
    assert (await gateway.ask("GET", "/v1/models")).header("x-luthien-upstream") == "openai"


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_rules_see_what_policies_made_of_a_request(
    start: Any, upstream: FaultUpstream, local: FaultUpstream, mode: str
) -> None:
    masked = {"use": "string_replacement", "mode": mode, "params": {"replacements": [["internal", "***"]], "apply_to": "request"}}
    gateway = await start(SENSITIVE, policies=[masked])
    response = await gateway.ask("POST", CHAT.path, said("our internal plan"))
    assert response.header("x-luthien-upstream") == ("openai" if mode == "enforce" else "near")
    assert all(b"internal" not in one.body for one in upstream.exchanges)


async def test_a_policy_can_put_in_what_must_stay_local(start: Any, upstream: FaultUpstream, local: FaultUpstream) -> None:
    added = {"use": "string_replacement", "params": {"replacements": [["plan", "internal plan"]], "apply_to": "request"}}
    gateway = await start(SENSITIVE, policies=[added])
    assert (await gateway.ask("POST", CHAT.path, said("our plan"))).header("x-luthien-upstream") == "near"
    assert not upstream.exchanges


async def test_no_policy_takes_a_keyword_to_the_cloud(start: Any, upstream: FaultUpstream, local: FaultUpstream) -> None:
    for policy in (
        {"use": "set_backend", "params": {"upstream": "openai"}},
        {"use": "backend_call", "params": {"backend_call_spec": {"api_endpoint": "openai"}}},
        {"use": "backend_sampling", "params": {"samples": 2}},
    ):
        gateway = await start(SENSITIVE, policies=[policy])
        await gateway.ask("POST", CHAT.path, said("our internal plan"))
        assert not upstream.exchanges, policy["use"]


async def test_no_failure_and_no_policy_takes_a_compressed_keyword_to_the_cloud(
    start_gateway: StartGateway, upstream: FaultUpstream, local: FaultUpstream
) -> None:
    upstreams = {
        "cloud": {"api": "openai", "base_url": upstream.url, "priority": 0},
        "near": {"api": "openai", "base_url": local.url, "local": True, "priority": 0},
    }
    for policies in ([], [{"use": "backend_sampling", "params": {"samples": 2}}]):
        gateway = await start_gateway(upstreams=upstreams, routing=SENSITIVE, policies=policies)
        for path in ("", "/near", "/cloud"):
            local.faults.append(Fault(status=429))
            await gateway.ask("POST", path + CHAT.path, gzip.compress(said("internal")), {"content-encoding": "gzip"})
            local.faults.clear()
    assert local.exchanges
    assert not upstream.exchanges


async def test_with_policies_a_keyword_that_nothing_local_takes_is_denied(
    start_gateway: StartGateway, upstream: FaultUpstream
) -> None:
    gateway = await start_gateway(
        upstreams={"anthropic": {"api": "anthropic", "base_url": upstream.url}},
        routing=SENSITIVE,
        policies=[{"use": "strip_secrets"}],
    )
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "internal"}]}).encode()
    response = await gateway.ask("POST", MESSAGES.path, body, MESSAGES.headers)
    assert response.status == 400
    assert not upstream.exchanges
    detail = await gateway.detail()
    assert (detail.row.outcome, detail.row.verdict, detail.row.upstream) == ("refused", "deny", "")
    assert detail.row.reason == "sensitive_keyword_match,capability_missing"
    assert ("routing", "deny") in [(one.policy, one.action) for one in detail.verdicts]


async def test_a_rule_that_names_no_upstream_is_refused_at_the_start(tmp_path: Any) -> None:
    from proxy_core.errors import ConfigurationError
    from proxy_core.settings_sources import load

    file = tmp_path / "luthien.yaml"
    file.write_text("routing:\n  default_provider: opnai\n  tags: {a: nowhere}\n")
    with pytest.raises(ConfigurationError) as refused:
        load(file, {}, {}, None)
    assert str(refused.value).splitlines() == [
        "routing.default_provider (file luthien.yaml:2): no upstream is called 'opnai'; did you mean openai?",
        "routing.tags.a (file luthien.yaml:3): no upstream is called 'nowhere'; there are openai, anthropic, ollama",
    ]


def test_the_names_of_policy_mesh_are_understood() -> None:
    from proxy_core.settings_sources import load

    names = {
        "SENSITIVITY_KEYWORDS": "internal, top secret,",
        "COST_MAX_PROMPT_LENGTH_FOR_LOCAL": "500",
        "DEFAULT_PROVIDER": "openai",
        "PROVIDER_TIMEOUT_SECONDS": "30",
        "OLLAMA_BASE_URL": "http://10.0.0.5:11434",
    }
    settings = load(None, {}, names, None).settings
    routing = settings.routing
    assert routing.sensitivity.keywords == ["internal", "top secret"]
    assert (routing.cost.max_prompt_length_for_local, routing.default_provider, routing.timeouts.total_s) == (500, "openai", 30)
    assert settings.upstreams["ollama"].base_url == "http://10.0.0.5:11434"
