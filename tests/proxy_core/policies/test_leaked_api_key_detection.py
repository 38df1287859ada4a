"""A request that holds a key is refused with 403, and the key is never shown."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from proxy_core.policies.leaked_api_key_detection import LeakedApiKeyDetectionParams, LeakedApiKeyDetectionPolicy
from proxy_core.policies.testing import Outcome, context_for, request_body, run_request
from proxy_core.policies.text_policy import TEXT_OPERATIONS
from proxy_core.wire.dialects import Operation

OPENAI = "sk-" + "aB3" * 16
SLACK = "xoxb-" + "1a-" * 17
GITHUB = "github_pat_" + "a" * 22 + "_" + "b" * 59


async def asked(text: str, operation: Operation = Operation.CHAT, body: bytes | None = None, **params: object) -> Outcome:
    policy = LeakedApiKeyDetectionPolicy(LeakedApiKeyDetectionParams.model_validate(params))
    return await run_request(policy, context_for(operation, body, text=text))


@pytest.mark.parametrize(
    "key",
    [
        OPENAI,
        SLACK,
        GITHUB,
        "sk-ant-api03-" + "x" * 80,
        "sk-proj-" + "y" * 100,
        "AKIA" + "A" * 16,
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----",
    ],
)
async def test_keys_are_found_and_not_shown(key: str) -> None:
    outcome = await asked(f"my key is {key}, keep it")
    assert outcome.denied is not None
    assert outcome.denied.face.status == 403
    assert (outcome.verdict.action, outcome.verdict.reason) == ("deny", "secret_leaked")
    assert key[8:] not in str(outcome.denied) + outcome.verdict.message + json.dumps(outcome.verdict.detail)


@pytest.mark.parametrize("text", ["", "sk-" + "a" * 47, "task-" + "a" * 60, "nothing here", "sk-", "😀\u202e\x00"])
async def test_other_texts_pass_unchanged(text: str) -> None:
    outcome = await asked(text)
    assert outcome.denied is None
    assert outcome.body == request_body(Operation.CHAT, text)
    assert (outcome.verdict.action, outcome.verdict.reason) == ("allow", "passed")


@pytest.mark.parametrize("operation", sorted(TEXT_OPERATIONS, key=str))
async def test_every_dialect_is_searched(operation: Operation) -> None:
    assert (await asked(f"key: {OPENAI}", operation)).denied is not None


async def test_tool_results_arguments_and_earlier_messages_are_searched() -> None:
    def chat(*messages: dict[str, object]) -> bytes:
        return json.dumps({"model": "m", "messages": [*messages, {"role": "user", "content": "go on"}]}).encode()

    call = {"id": "c", "type": "function", "function": {"name": "run", "arguments": json.dumps({"cmd": f"echo {OPENAI}"})}}
    for body in (
        chat({"role": "user", "content": [{"type": "text", "text": OPENAI}]}),
        chat({"role": "assistant", "content": None, "tool_calls": [call]}),
        chat({"role": "tool", "tool_call_id": "c", "content": f"OPENAI_API_KEY={OPENAI}"}),
        chat({"role": "system", "content": OPENAI}),
    ):
        outcome = await asked("", body=body)
        assert outcome.denied is not None, body


async def test_an_escaped_key_is_found() -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in OPENAI)
    body = b'{"messages":[{"role":"user","content":"%b"}]}' % escaped.encode()
    assert (await asked("", body=body)).denied is not None


async def test_a_body_that_cannot_be_read_is_searched_as_it_is() -> None:
    assert (await asked("", body=b"{" + OPENAI.encode())).denied is not None
    outcome = await asked("", body=b"\xff{harmless")
    assert (outcome.denied, outcome.verdict.ran) == (None, "partial")


async def test_own_patterns_stand_in_place_of_the_usual_ones() -> None:
    assert (await asked("badge 4711", patterns=[r"badge \d+"])).denied is not None
    assert (await asked(OPENAI, patterns=[r"badge \d+"])).denied is None
    assert (await asked(OPENAI, patterns=[])).denied is not None


async def test_other_bodies_are_unsupported_and_that_is_said() -> None:
    outcome = await asked("", Operation.OTHER, body=OPENAI.encode())
    assert (outcome.denied, outcome.verdict.ran) == (None, "unsupported")


async def test_in_shadow_mode_it_says_what_it_would_have_refused() -> None:
    outcome = await run_request(
        LeakedApiKeyDetectionPolicy(LeakedApiKeyDetectionParams()), context_for(text=OPENAI), mode="shadow"
    )
    assert (outcome.denied, outcome.verdict.mode, outcome.verdict.action) == (None, "shadow", "deny")


@pytest.mark.parametrize("pattern", ["[", "(?P<a", "", "a{99999999999999999999}"])
def test_patterns_that_are_none_are_refused(pattern: str) -> None:
    with pytest.raises(ValidationError):
        LeakedApiKeyDetectionParams(patterns=[pattern])
