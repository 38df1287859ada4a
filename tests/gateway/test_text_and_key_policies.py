"""Policies on texts and keys in a real gateway: what clients, upstreams and the journal see of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.fault_payloads import TEXT, answer
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, EVERY, MESSAGES, Asking, error_message, name_of
from tests.gateway.test_secrets_stay_out import stored_bytes

HOUSE_KEY = "house-key-of-no-known-form-0123456789"
CLIENT_KEY = "client-key-of-no-known-form-987654321"
PASTED = "sk-ant-api03-" + "pastedKEY_" * 8


def decoded(asking: Asking, body: bytes) -> str:
    from proxy_core.wire.codec import codec_for
    from proxy_core.wire.dialects import Operation

    codec = codec_for(Operation(asking.name))
    assert codec is not None
    decoder = codec.stream_decoder()
    decoder.feed(body)
    answer = decoder.finish()
    assert (answer.complete, answer.problem) == (True, None)
    return answer.text


@pytest.mark.parametrize("asking", EVERY, ids=name_of)
@pytest.mark.parametrize("stream", [False, True])
async def test_words_are_replaced_in_answers_of_every_dialect(
    start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking, stream: bool
) -> None:
    plain = await (await start_gateway()).ask("POST", asking.path, asking.bytes(stream=stream), asking.headers)
    word = TEXT.split()[1]
    replaced = {"use": "string_replacement", "params": {"replacements": [[word, "<" + word + ">"]]}}
    gateway = await start_gateway(policies=[replaced])
    response = await gateway.ask("POST", asking.path, asking.bytes(stream=stream), asking.headers)
    assert response.status == 200
    if stream:
        assert decoded(asking, response.body) == decoded(asking, plain.body).replace(word, f"<{word}>")
    else:
        assert json.loads(response.body) == json.loads(plain.body.replace(word.encode(), f"<{word}>".encode()))
    row = await gateway.row()
    assert row.verdict == "modify"


async def test_a_stream_of_announced_length_may_get_another(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(policies=[{"use": "string_replacement", "params": {"replacements": [["capital", "town"]]}}])
    length = len(answer("POST", CHAT.path, {}, CHAT.bytes(stream=True)).body)
    upstream.faults.append(Fault(content_length=length))
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True), CHAT.headers)
    assert response.whole
    assert response.header("content-length") is None
    assert b"town" in response.body
    assert response.body.endswith(CHAT.terminator)


async def test_an_upstream_that_ends_a_choice_twice_does_no_harm(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(policies=[{"use": "string_replacement", "params": {"replacements": [["capital", "town"]]}}])
    choices = [("the cap", None), ("ital", "length"), ("", "length")]
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": why}]} for text, why in choices]
    body = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + "data: [DONE]\n\n"
    upstream.faults.append(Fault(body=body))
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True), CHAT.headers)
    events = [json.loads(one[6:]) for one in response.body.split(b"\n\n") if one.startswith(b"data: {")]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in events) == "the town"
    assert [why for one in events if (why := one["choices"][0]["finish_reason"])] == ["length"]
    assert response.body.endswith(CHAT.terminator)


async def test_a_client_is_known_by_its_key_and_the_house_key_goes_upstream(
    start_gateway: StartGateway, upstream: FaultUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOUSE_KEY", HOUSE_KEY)
    gateway = await start_gateway(
        keys={"ann": {"key": CLIENT_KEY}},
        policies=[
            {"use": "client_api_key_auth"},
            {"use": "leaked_api_key_detection"},
            {"use": "add_api_key", "params": {"source": "environment", "env": "HOUSE_KEY"}},
            {"use": "request_logging", "params": {"headers": True, "body": "preview", "when": "both", "level": "WARNING"}},
        ],
    )
    for asking, header in ((CHAT, b"authorization"), (MESSAGES, b"x-api-key")):
        upstream.faults.append(Fault(status=401, echo_key=True))
        await gateway.ask("POST", asking.path, asking.bytes(), asking.headers | {"authorization": f"Bearer {CLIENT_KEY}"})
        sent = dict(upstream.last.headers)
        assert sent[header].endswith(HOUSE_KEY.encode())
        assert CLIENT_KEY.encode() not in upstream.last.head
        refused = await gateway.ask("POST", asking.path, asking.bytes(), asking.headers | {"x-api-key": "somebody"})
        assert refused.status == 401
        assert "not known" in error_message(refused, asking.dialect)
    asked = len(upstream.exchanges)
    leak = CHAT.bytes(messages=[{"role": "user", "content": PASTED}])
    refused = await gateway.ask("POST", CHAT.path, leak, CHAT.headers | {"authorization": f"Bearer {CLIENT_KEY}"})
    assert (refused.status, len(upstream.exchanges)) == (403, asked)
    await gateway.stop()
    stored = stored_bytes(tmp_path)
    for secret in (CLIENT_KEY, PASTED):
        assert secret.encode() not in stored


async def test_a_key_that_a_policy_added_is_not_recorded_where_an_upstream_repeats_it(
    start_gateway: StartGateway, upstream: FaultUpstream, tmp_path: Path
) -> None:
    gateway = await start_gateway(policies=[{"use": "add_api_key", "params": {"source": "config", "api_key": HOUSE_KEY}}])
    upstream.faults.append(Fault(status=401, echo_key=True))
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
    assert HOUSE_KEY.encode() in response.body
    await gateway.stop()
    assert HOUSE_KEY.encode() not in stored_bytes(tmp_path)


async def test_what_is_stripped_never_leaves(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(policies=[{"use": "strip_secrets"}])
    body = MESSAGES.bytes(messages=[{"role": "user", "content": f"use {PASTED}, please"}])
    response = await gateway.ask("POST", MESSAGES.path, body, MESSAGES.headers | {"x-api-key": "mine", "cookie": "a=b"})
    assert response.status == 200
    sent = dict(upstream.last.headers)
    assert json.loads(upstream.last.body)["messages"][0]["content"] == "use [redacted], please"
    assert sent[b"x-api-key"] == b"mine"
    assert b"cookie" not in sent
    assert sent[b"content-length"] == str(len(upstream.last.body)).encode()
