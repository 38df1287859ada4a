"""A model reads each block of an answer and passes it or replaces it; what it says must be exact, or the policy has failed."""

from __future__ import annotations

import json

import pytest

from proxy_core.policies.base import PolicyDenied
from proxy_core.policies.simple_llm import SimpleLlmParams, SimpleLlmPolicy, read_action
from proxy_core.policies.testing import FakeServices, context_for, run_response
from proxy_core.wire.conversation import TextBlock, ToolCallBlock
from proxy_core.wire.dialects import Operation
from tests.proxy_core.policies.asked_models import refuses, says

PASS = '{"action": "pass"}'


def replaced_by(text: str) -> str:
    return json.dumps({"action": "replace", "blocks": [{"type": "text", "text": text}]})


def policy(**given: object) -> SimpleLlmPolicy:
    params = {"upstream": "openai", "model": "gpt-4o-mini", "instructions": "Be kind.", **given}
    return SimpleLlmPolicy(SimpleLlmParams.model_validate(params), pause_s=0.0)


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.MESSAGES, Operation.RESPONSES, Operation.OLLAMA_CHAT])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_block_is_replaced_by_what_the_model_says(operation: Operation, stream: bool) -> None:
    services = FakeServices([says(replaced_by("Good day to you."))])
    context = context_for(operation, stream=stream, services=services)
    outcome = await run_response(policy(), context, text="Go away.", stream=stream)
    assert outcome.text == "Good day to you."
    assert outcome.verdict.action == "modify"
    assert b"Go away." in services.sent[0]["body"] and b"Be kind." in services.sent[0]["body"]


async def test_what_passes_keeps_its_bytes() -> None:
    context = context_for(services=FakeServices([says(PASS)]))
    outcome = await run_response(policy(), context, text="Fine.")
    assert outcome.text == "Fine."
    assert outcome.verdict.reason == "passed"


@pytest.mark.parametrize(
    "said",
    [
        "not json",
        "[1, 2]",
        "{}",
        '{"action": "drop"}',
        '{"action": "replace"}',
        '{"action": "replace", "blocks": []}',
        '{"action": "replace", "blocks": [{"text": "no type"}]}',
        '{"action": "replace", "blocks": [{"type": "text"}]}',
        '{"action": "replace", "blocks": [{"type": "tool_use", "input": {}}]}',
        '{"action": "replace", "blocks": [{"type": "image"}]}',
    ],
)
def test_anything_else_is_no_answer(said: str) -> None:
    with pytest.raises(ValueError, match=r"the model|a (text|tool) block|a block"):
        read_action(said)


def test_answers_are_read_plain_or_fenced() -> None:
    assert read_action(PASS) is None
    assert read_action(f"```json\n{PASS}\n```") is None
    assert read_action(f"```\n{replaced_by('hi')}\n```") == [TextBlock("hi")]
    call = read_action('{"action": "replace", "blocks": [{"type": "tool_use", "name": "ls", "input": {"path": "."}}]}')
    assert call == [ToolCallBlock("", "ls", '{"path":"."}')]


@pytest.mark.parametrize(("retries", "asked"), [(2, 3), (0, 1)])
async def test_a_model_that_cannot_be_read_is_asked_again_and_then_the_answer_is_kept_back(retries: int, asked: int) -> None:
    services = FakeServices([*[says("not json")] * 5])
    outcome = await run_response(policy(max_retries=retries), context_for(services=services), text="Hi.")
    assert isinstance(outcome.denied, PolicyDenied)
    assert outcome.verdict.ran == "error"
    assert outcome.verdict.reason == "judge_unreadable"
    assert outcome.verdict.score is None
    assert len(services.sent) == asked


async def test_a_refused_credential_is_not_tried_again() -> None:
    services = FakeServices([*[refuses(401)] * 3])
    outcome = await run_response(policy(), context_for(services=services), text="Hi.")
    assert outcome.verdict.reason == "judge_unavailable"
    assert len(services.sent) == 1
