"""Secrets are taken out before anything is sent; what was taken out is counted, never shown."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from proxy_core.policies.base import Release
from proxy_core.policies.strip_secrets import StripSecretsParams, StripSecretsPolicy
from proxy_core.policies.testing import (
    STREAMED,
    Outcome,
    assert_chunking_invariant,
    context_for,
    request_body,
    run_request,
    run_response,
)
from proxy_core.policies.text_policy import TEXT_OPERATIONS
from proxy_core.wire.dialects import Operation

KEY = "sk-ant-api03-" + "aB3_" * 20
PEM = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----"
HEADERS = (
    (b"authorization", b"Bearer sk-client-0123456789abcdef"),
    (b"x-api-key", b"key-0123456789"),
    (b"cookie", b"session=1"),
    (b"x-internal-user", b"ann"),
    (b"x-internal-team", b"red"),
    (b"content-type", b"application/json"),
)


def policy(**params: object) -> StripSecretsPolicy:
    return StripSecretsPolicy(StripSecretsParams.model_validate(params))


async def asked(text: str = "", *, operation: Operation = Operation.CHAT, body: bytes | None = None, **params: object) -> Outcome:
    return await run_request(policy(**params), context_for(operation, body, text=text, headers=HEADERS))


def names(outcome: Outcome) -> list[str]:
    return [name.decode() for name, _ in outcome.context.request_headers]


class TestHeaders:
    async def test_cookies_go_and_the_credential_stays(self) -> None:
        outcome = await asked("hello")
        assert names(outcome) == ["authorization", "x-api-key", "x-internal-user", "x-internal-team", "content-type"]
        assert outcome.verdict.detail == {"kinds": {"header": 1}, "total": 1}
        assert outcome.body == request_body(Operation.CHAT, "hello")

    async def test_patterns_take_more_but_never_a_credential(self) -> None:
        assert names(await asked(header_patterns=["X-Internal-.*", ".*"], headers=[])) == ["authorization", "x-api-key"]

    async def test_a_credential_goes_where_it_is_named(self) -> None:
        assert "authorization" not in names(await asked(headers=["Authorization"]))


class TestRequests:
    @pytest.mark.parametrize("operation", sorted(TEXT_OPERATIONS, key=str))
    async def test_keys_in_the_texts_of_every_dialect_are_blanked(self, operation: Operation) -> None:
        outcome = await asked(f"use {KEY} please", operation=operation, headers=[])
        assert outcome.text == "use [redacted] please"
        assert (outcome.verdict.action, outcome.verdict.reason) == ("modify", "secret_removed")
        assert outcome.verdict.detail == {"kinds": {"anthropic_key": 1}, "total": 1}

    async def test_tool_arguments_stay_json(self) -> None:
        arguments = json.dumps({"files": [f"{PEM[:27]} x", {"y": f"z {PEM[-25:]}"}], "token": KEY, "n": 1.0})
        call = {"id": "c", "type": "function", "function": {"name": "write", "arguments": arguments}}
        body = json.dumps({"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]}).encode()
        outcome = await asked(body=body, headers=[])
        sent = json.loads(outcome.body)["messages"][0]["tool_calls"][0]["function"]["arguments"]
        assert json.loads(sent) == json.loads(arguments) | {"token": "[redacted]"}

    async def test_an_escaped_key_in_tool_arguments_is_blanked(self) -> None:
        block = {"type": "tool_use", "id": "t", "name": "run", "input": {"cmd": f'echo "{KEY}"'}}
        body = json.dumps({"model": "m", "messages": [{"role": "assistant", "content": [block]}]}).encode()
        outcome = await asked(operation=Operation.MESSAGES, body=body.replace(b"sk-", b"\\u0073k-"), headers=[])
        assert json.loads(outcome.body)["messages"][0]["content"][0]["input"] == {"cmd": 'echo "[redacted]"'}

    async def test_own_literals_patterns_and_the_clients_own_key_go(self) -> None:
        text = "sk-client-0123456789abcdef, badge 4711 of Projekt Grün"
        outcome = await asked(text, literals=["Projekt Grün"], patterns=[r"badge \d+"], marker="*", headers=[], formats=False)
        assert outcome.text == "*, * of *"
        assert outcome.verdict.detail == {"kinds": {"known": 1, "literal": 1, "pattern": 1}, "total": 3}

    async def test_what_is_switched_off_stays(self) -> None:
        text = f"{KEY} sk-client-0123456789abcdef"
        assert (await asked(text, headers=[], formats=False, known=False)).text == text

    async def test_nothing_to_take_out_changes_no_byte(self) -> None:
        body = b'{ "messages" : [ {"role":"user","content":"Gr\\u00fc\\u00dfe \xf0\x9f\x98\x80"} ] , "n":1.00 }'
        outcome = await asked(body=body, headers=[])
        assert outcome.body == body
        assert (outcome.verdict.action, outcome.verdict.reason) == ("allow", "passed")

    @pytest.mark.parametrize(
        ("operation", "body", "sent"),
        [
            (Operation.CHAT, b"{broken " + KEY.encode(), b"{broken [redacted]"),
            (Operation.OTHER, b"name=" + KEY.encode(), b"name=[redacted]"),
            (Operation.OTHER, b"\xff\xfe" + KEY.encode(), b"\xff\xfe" + KEY.encode()),
        ],
    )
    async def test_a_body_that_cannot_be_read_is_searched_as_it_is(self, operation: Operation, body: bytes, sent: bytes) -> None:
        outcome = await asked(operation=operation, body=body, headers=[])
        assert outcome.body == sent
        assert outcome.verdict.ran == "partial"

    async def test_no_secret_stands_in_a_verdict(self) -> None:
        outcome = await asked(f"{KEY} geheimnis", literals=["geheimnis"])
        said = outcome.verdict.message + json.dumps(outcome.verdict.detail)
        assert "aB3_" not in said
        assert "geheimnis" not in said
        assert "geheimnis" not in repr(StripSecretsParams(literals=["geheimnis"]))


class TestAnswers:
    async def test_answers_are_left_alone_unless_asked_for(self) -> None:
        outcome = await run_response(policy(), text=KEY)
        assert (outcome.text, outcome.verdict.ran) == (KEY, "skipped")

    @pytest.mark.parametrize("operation", STREAMED)
    def test_the_same_in_a_whole_and_in_every_cut(self, operation: Operation) -> None:
        text = f"a {KEY}, b AKIA{'A' * 16} c {PEM} Grün. sk-{'x' * 30}"
        strip = policy(responses=True, literals=["Grün"])
        assert assert_chunking_invariant(strip, text, operation=operation) == (
            "a [redacted], b [redacted] c [redacted] [redacted]. [redacted]"
        )

    def test_own_patterns_see_each_text_whole(self) -> None:
        strip = policy(responses=True, patterns=[r"badge.*4711"])
        assert strip.release_mode() is Release.BLOCK
        assert assert_chunking_invariant(strip, f"the badge is {KEY} and 4711.") == "the [redacted]."

    async def test_kinds_are_counted_in_streams_too(self) -> None:
        outcome = await run_response(policy(responses=True), pieces=[KEY[:20], KEY[20:], " ", KEY], stream=True)
        assert outcome.verdict.detail == {"kinds": {"anthropic_key": 2}, "total": 2}


@pytest.mark.parametrize(
    "params",
    [{"patterns": ["["]}, {"patterns": ["a*"]}, {"header_patterns": ["("]}, {"literals": ["abc"]}, {"headers": [""]}, {"x": 1}],
)
def test_wrong_parameters_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        StripSecretsParams.model_validate(params)
