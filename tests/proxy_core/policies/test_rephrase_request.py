"""Requests are rephrased by rules, by added words, or by a model; the original is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from proxy_core.errors import ConfigurationError, UpstreamUnreachable
from proxy_core.policies.registry import build_policy
from proxy_core.policies.rephrase_request import RephraseRequestParams, RephraseRequestPolicy
from proxy_core.policies.testing import FakeServices, Outcome, answer_body, context_for, request_body, run_request
from proxy_core.settings import Settings
from proxy_core.transaction import WholeResponse
from proxy_core.wire.dialects import Operation

MODEL = {"upstream": "openai", "model": "gpt-small", "instructions": "Make it shorter."}


def policy(**params: object) -> RephraseRequestPolicy:
    return RephraseRequestPolicy(RephraseRequestParams.model_validate(params))


async def asked(
    text: str = "Hello", *, operation: Operation = Operation.CHAT, body: bytes | None = None, **params: object
) -> Outcome:
    return await run_request(policy(**params), context_for(operation, body, text=text))


def says(*texts: str) -> FakeServices:
    bodies = [answer_body(Operation.CHAT, text) for text in texts]
    return FakeServices([WholeResponse(status=200, headers=[], body=body, upstream="openai") for body in bodies])


def chat(*messages: tuple[str, Any]) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": role, "content": content} for role, content in messages]}).encode()


def contents(outcome: Outcome) -> list[Any]:
    return [message["content"] for message in json.loads(outcome.body)["messages"]]


class TestRules:
    async def test_are_applied_in_order_to_what_users_said(self) -> None:
        rules = [{"find": "utilize", "replace": "use"}, {"find": r"\buse(\w+)", "replace": r"U\1", "regex": True}]
        body = chat(("system", "utilizes"), ("user", "utilizes"), ("assistant", "utilizes"), ("user", "utilizer"))
        outcome = await asked(body=body, rules=rules)
        assert contents(outcome) == ["utilizes", "Us", "utilizes", "Ur"]
        assert (outcome.verdict.action, outcome.verdict.reason) == ("modify", "request_rephrased")
        assert outcome.verdict.detail["replacements"] == 4
        assert outcome.context.data["original_request"] == body

    async def test_other_roles_can_be_chosen(self) -> None:
        body = chat(("system", "old"), ("user", "old"))
        outcome = await asked(body=body, rules=[{"find": "old", "replace": "new"}], roles=["system"])
        assert contents(outcome) == ["new", "old"]

    async def test_that_match_nothing_change_no_byte(self) -> None:
        outcome = await asked(rules=[{"find": "absent"}])
        assert outcome.body == request_body(Operation.CHAT, "Hello")
        assert (outcome.verdict.action, outcome.verdict.reason) == ("allow", "passed")
        assert "original_request" not in outcome.context.data


class TestAddedWords:
    async def test_stand_around_what_the_user_said_last(self) -> None:
        parts = [
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": "data:,"}},
            {"type": "text", "text": "z"},
        ]
        body = chat(("user", "first"), ("assistant", "x"), ("user", parts))
        outcome = await asked(body=body, prepend="<", append=">")
        assert contents(outcome) == ["first", "x", [parts[0] | {"text": "<a"}, parts[1], parts[2] | {"text": "z>"}]]

    @pytest.mark.parametrize("operation", [Operation.CHAT, Operation.MESSAGES, Operation.RESPONSES, Operation.OLLAMA_GENERATE])
    async def test_stand_behind_the_system_prompt(self, operation: Operation) -> None:
        body = request_body(operation, "Hello", system="Be kind.")
        outcome = await asked(operation=operation, body=body, system_append=" Be brief.")
        assert outcome.text.splitlines() == ["Be kind. Be brief.", "Hello"]

    @pytest.mark.parametrize("operation", [Operation.CHAT, Operation.MESSAGES, Operation.RESPONSES, Operation.OLLAMA_CHAT])
    async def test_become_a_system_prompt_where_there_is_none(self, operation: Operation) -> None:
        outcome = await asked(operation=operation, system_append=" Be brief.")
        assert sorted(outcome.text.splitlines()) == ["Be brief.", "Hello"]
        assert outcome.verdict.detail["system_appended"] is True
        same = json.loads(request_body(operation, "Hello"))
        assert {name: value for name, value in json.loads(outcome.body).items() if name in same and name != "messages"} == {
            name: value for name, value in same.items() if name != "messages"
        }

    async def test_have_no_place_in_a_completion(self) -> None:
        outcome = await asked(operation=Operation.COMPLETIONS, system_append="Be brief.")
        assert outcome.text == "Hello"


class TestAModel:
    async def test_rewrites_what_the_user_said_last(self) -> None:
        services = says("Short.")
        context = context_for(body=chat(("user", "first"), ("user", "A very long question")), services=services)
        outcome = await run_request(policy(model=MODEL, append="!"), context)
        assert contents(outcome) == ["first", "Short.!"]
        question = json.loads(services.sent[0]["body"])
        assert question["model"] == "gpt-small"
        assert question["messages"][0]["content"].startswith("Make it shorter.")
        assert question["messages"][1]["content"] == "<text>\nA very long question\n</text>"
        assert outcome.verdict.detail["asked"] is True

    async def test_is_asked_once_for_a_text_that_comes_back_as_history(self) -> None:
        rewriting = policy(model=MODEL)
        services = says("Short.", "Two.")
        await run_request(rewriting, context_for(body=chat(("user", "Long")), services=services))
        later = chat(("user", "Long"), ("assistant", "x"), ("user", "Longer"))
        outcome = await run_request(rewriting, context_for(body=later, services=services))
        assert contents(outcome) == ["Short.", "x", "Two."]
        again = await run_request(rewriting, context_for(body=later, services=services))
        assert contents(again) == ["Short.", "x", "Two."]
        assert len(services.sent) == 2

    @pytest.mark.parametrize("answer", ["", "  ", "<text></text>"])
    async def test_that_says_nothing_is_a_fault(self, answer: str) -> None:
        outcome = await run_request(policy(model=MODEL), context_for(services=says(answer)))
        assert outcome.denied is not None
        assert outcome.verdict.reason == "judge_unreadable"

    async def test_that_cannot_be_asked_leaves_it_to_on_error(self) -> None:
        services = FakeServices([UpstreamUnreachable("down")])
        outcome = await run_request(policy(model=MODEL, prepend="x"), context_for(services=services), on_error="allow")
        assert (outcome.denied, outcome.text) == (None, "Hello")
        assert (outcome.verdict.ran, outcome.verdict.reason) == ("error", "judge_unavailable")

    async def test_is_not_paid_for_to_count_tokens(self) -> None:
        services = says("Short.")
        outcome = await run_request(policy(model=MODEL), context_for(Operation.COUNT_TOKENS, services=services))
        assert (outcome.text, services.sent) == ("Hello", [])

    async def test_must_stand_at_an_upstream_that_is_configured(self) -> None:
        with pytest.raises(ConfigurationError, match=r"params\.model\.upstream"):
            build_policy("rephrase_request", {"model": MODEL | {"upstream": "nowhere"}}, Settings(), "policies[0]")


async def test_nothing_to_rephrase_passes() -> None:
    for body in (chat(), chat(("user", "")), chat(("assistant", "only me"))):
        outcome = await asked(body=body, prepend="x", model=MODEL)
        assert outcome.body == body
        assert outcome.verdict.action == "allow"


@pytest.mark.parametrize("body", [b"", b"\xff", b'{"messages":[],"messages":[]}'])
async def test_a_body_that_cannot_be_read_passes_and_that_is_said(body: bytes) -> None:
    outcome = await asked(body=body, prepend="x", system_append="y")
    assert outcome.body == body
    assert outcome.verdict.ran == "unsupported"


@pytest.mark.parametrize(
    "params",
    [
        {"rules": [{"find": ""}]},
        {"rules": [{"find": "[", "regex": True}]},
        {"rules": [{"find": "a*", "regex": True}]},
        {"rules": [{"find": "a", "replace": r"\2", "regex": True}]},
        {"model": {"upstream": "openai", "model": "m"}},
        {"roles": ["nobody"]},
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RephraseRequestParams.model_validate(params)
