"""Several policies as one: order, streams, names of verdicts, and what becomes of a fault inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy_core.errors import ConfigurationError
from proxy_core.policies.base import ControlPolicy, Release
from proxy_core.policies.chain import build_chains
from proxy_core.policies.registry import build_policy
from proxy_core.policies.testing import FakeServices, answer_body, context_for, run_request, run_response
from proxy_core.routing.reasons import Reason
from proxy_core.settings import PolicySettings, Settings
from proxy_core.transaction import WholeResponse
from proxy_core.verdicts import Stage
from proxy_core.wire.dialects import Operation
from tests.proxy_core.policies.marks import mark, settings_with_marks

OPERATIONS = [Operation.CHAT, Operation.RESPONSES, Operation.MESSAGES, Operation.OLLAMA_CHAT]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with_marks(tmp_path)


def serial(settings: Settings, *policies: Any) -> ControlPolicy[Any]:
    return build_policy("serial", {"policies": list(policies)}, settings)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_the_first_goes_first_in_both_directions(settings: Settings, operation: Operation) -> None:
    policy = serial(settings, mark("A"), mark("B"))
    context = context_for(operation, text="hi")
    asked = await run_request(policy, context)
    assert asked.text == "hiAB"
    whole = await run_response(policy, asked.context, text="yes")
    assert whole.text == "yesAB"
    assert whole.context.data["order"] == ["request A", "request B", "response A", "response B"]
    for outcome in (asked, whole):
        assert [verdict.policy for verdict in outcome.verdicts] == ["serial/A", "serial/B"]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_stream_goes_through_in_order(settings: Settings, operation: Operation) -> None:
    policy = serial(settings, mark("A"), {"use": "serial", "name": "inner", "params": {"policies": [mark("B"), mark("C")]}})
    assert policy.streams()
    assert policy.release_mode() is Release.PASS
    outcome = await run_response(policy, context_for(operation, stream=True), pieces=["x", "y"], stream=True, chunk_bytes=7)
    assert outcome.text == "xABCyABC"
    assert {(one.policy, one.reason) for one in outcome.verdicts} == {
        ("serial/A", Reason.PASSED),
        ("serial/inner/B", Reason.PASSED),
        ("serial/inner/C", Reason.PASSED),
    }


async def test_one_that_needs_the_whole_answer_makes_all_wait_for_it(settings: Settings) -> None:
    policy = serial(settings, mark("A"), {"use": "whole"})
    assert policy.release_mode() is Release.FULL
    outcome = await run_response(policy, context_for(stream=True), pieces=["x", "y"], stream=True)
    assert outcome.context.data["order"] == ["response A", "response whole"]
    assert outcome.text == "xyA"


async def test_an_empty_one_passes_everything(settings: Settings) -> None:
    policy = serial(settings)
    context = context_for(text="hi")
    body = context.request_body
    assert (await run_request(policy, context)).body == body
    outcome = await run_response(policy, context_for(stream=True), pieces=["x"], stream=True)
    assert outcome.text == "x"


async def test_a_denial_inside_names_who_denied(settings: Settings) -> None:
    policy = serial(settings, mark("A"), mark("B", "deny request"), mark("C"))
    outcome = await run_request(policy, context_for())
    assert outcome.denied is not None
    assert outcome.denied.policy == "serial/B"
    assert [(one.policy, one.action) for one in outcome.verdicts] == [("serial/A", "allow"), ("serial/B", "deny")]


async def test_a_denial_inside_a_stream_names_who_denied(settings: Settings) -> None:
    policy = serial(settings, mark("A"), mark("B", "deny response"), mark("C"))
    outcome = await run_response(policy, context_for(stream=True), pieces=["x"], stream=True)
    assert outcome.denied is not None
    assert [one.policy for one in outcome.verdicts if one.action == "deny"] == ["serial/B"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_inside_is_the_whole_ones_and_names_who_failed(settings: Settings, stream: bool) -> None:
    policy = serial(settings, mark("A"), mark("B", "fault response"))
    outcome = await run_response(policy, context_for(stream=stream), text="x", stream=stream)
    assert outcome.denied is not None
    fault = next(one for one in outcome.verdicts if one.ran == "error")
    assert (fault.policy, fault.reason, fault.message) == ("serial", Reason.POLICY_ERROR, "B: ValueError: broken")
    allowed = await run_response(policy, context_for(stream=stream), text="x", stream=stream, on_error="allow")
    assert allowed.denied is None
    assert "x" in allowed.text


async def test_in_shadow_mode_nothing_changes(settings: Settings) -> None:
    policy = serial(settings, mark("A"), {"use": "placed"})
    context = context_for(text="hi")
    asked = await run_request(policy, context, mode="shadow")
    assert asked.text == "hi"
    assert "order" not in context.data
    outcome = await run_response(policy, context_for(stream=True), pieces=["x"], stream=True, mode="shadow")
    assert outcome.text == "x"
    assert {one.policy for one in outcome.verdicts} == {"serial/A"}


async def test_one_that_acts_by_place_acts_where_the_whole_stands(settings: Settings) -> None:
    inner = {"use": "serial", "params": {"policies": [{"use": "serial", "params": {"policies": [{"use": "placed"}]}}]}}
    for place, expected in ((0, "request placed"), (1, "response placed")):
        entries = [{"use": "sender"}]
        entries.insert(place, inner)
        found = settings.model_copy(update={"policies": [PolicySettings.model_validate(one) for one in entries]})
        chain = build_chains(found).default
        assert [entry.name for entry in (chain.request if place == 0 else chain.response)] == ["serial"]
        entry = (chain.request or chain.response)[0]
        context = context_for()
        if place == 1:
            context.set_response(200, [], b"{}")
            context.stage = Stage.RESPONSE
        await entry.policy.apply(context)
        assert context.data["order"] == [expected]


@pytest.mark.parametrize("sender", ["sender", "SendBackendRequest"])
async def test_one_that_gets_the_answer_itself(settings: Settings, sender: str) -> None:
    answer = WholeResponse(
        status=200, headers=[(b"content-type", b"application/json")], body=answer_body(Operation.CHAT, "yes"), upstream="openai"
    )
    services = FakeServices([answer])
    policy = serial(settings, mark("A"), {"use": sender}, mark("B"))
    assert policy.sends
    outcome = await run_request(policy, context_for(text="hi", services=services))
    order = [one for one in outcome.context.data["order"] if one != "send"]
    assert order == ["request A", "response A", "response B"]
    assert b"hiA" in services.sent[0]["body"]
    assert outcome.context.answer is not None
    assert outcome.context.answer.text == "yesAB"


@pytest.mark.parametrize(
    ("policies", "lines"),
    [
        ([{"use": "mark"}, {"use": "marc"}], ["policies[0].params.word: missing", "policies[1].use: no policy is called 'marc'"]),
        ([{"use": "sender"}, {"use": "sender"}], ["policies: only one policy can send, and sender and sender-2 both do"]),
        ([{"use": "whole", "mode": "shadow"}], ["policies[0].mode: unknown parameter; known here: use, name, params"]),
        (
            [{"use": "serial", "params": {"policies": [{"use": "mark", "params": {"wort": "A"}}]}}],
            [
                "policies[0].params.policies[0].params.word: missing",
                "policies[0].params.policies[0].params.wort: unknown parameter; did you mean word?",
            ],
        ),
    ],
)
def test_faults_name_their_place(settings: Settings, policies: list[Any], lines: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        serial(settings, *policies)
    found = str(refused.value).splitlines()
    assert len(found) == len(lines)
    for said, line in zip(found, lines, strict=True):
        assert said.startswith("params." + line), said


@pytest.mark.parametrize(
    "nested",
    [
        {"use": "mark", "params": {"word": "A"}},
        {"type": "mark", "config": {"word": "A"}},
        {"type": "mark", "word": "A"},
        {"type": "MarkPolicy", "name": "MarkPolicy", "word": "A"},
        {"type": "MarkPolicy", "config": {"name": "MarkPolicy", "word": "A"}},
    ],
)
def test_the_forms_of_luthien_control_mean_the_same(settings: Settings, nested: Any) -> None:
    policy = build_policy("CompoundPolicy", {"policies": [nested]}, settings)
    child = policy.children[0]  # type: ignore[attr-defined]
    assert child.policy.params.word == "A"
    again = build_policy("serial", policy.params.model_dump(mode="json", by_alias=True), settings)
    assert again.params == policy.params
