"""One of several policies, by condition: which is taken, what is remembered, and streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy_core.errors import ConfigurationError
from proxy_core.policies.base import ControlPolicy, Release
from proxy_core.policies.registry import build_policy
from proxy_core.policies.testing import FakeServices, answer_body, context_for, run_request, run_response
from proxy_core.routing.reasons import Reason
from proxy_core.settings import Settings
from proxy_core.transaction import WholeResponse
from proxy_core.verdicts import Stage
from proxy_core.wire.dialects import Operation
from tests.proxy_core.policies.marks import mark, settings_with_marks


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with_marks(tmp_path)


def says(word: str) -> dict[str, Any]:
    return {"type": "contains", "left": {"path": "request.last_user_text"}, "right": word}


def branching(settings: Settings, *branches: Any, default: Any = None) -> ControlPolicy[Any]:
    params = {"branches": [{"if": condition, "then": then} for condition, then in branches], "default": default}
    return build_policy("branching", params, settings)


@pytest.mark.parametrize(("text", "order"), [("red blue", ["request R"]), ("blue", ["request B"]), ("green", ["request D"])])
async def test_the_first_that_holds_runs_and_later_ones_do_not(settings: Settings, text: str, order: list[str]) -> None:
    policy = branching(settings, (says("red"), mark("R")), (says("blue"), mark("B")), default=mark("D"))
    outcome = await run_request(policy, context_for(text=text))
    assert outcome.context.data["order"] == order
    taken, ran = outcome.verdicts
    assert (taken.policy, taken.reason) == ("branching", Reason.BRANCH_TAKEN)
    assert ran.policy == f"branching/{order[0][-1]}"


async def test_none_holds_and_there_is_no_default(settings: Settings) -> None:
    policy = branching(settings, (says("red"), mark("R")))
    context = context_for(text="green")
    body = context.request_body
    outcome = await run_request(policy, context)
    assert outcome.body == body
    assert outcome.verdict.reason is Reason.NO_BRANCH
    assert (await run_response(policy, outcome.context, text="yes")).text == "yes"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_choice_of_the_request_holds_for_its_response(settings: Settings, stream: bool) -> None:
    policy = branching(settings, (says("red"), mark("R")), default=mark("D"))
    asked = await run_request(policy, context_for(text="red", stream=stream))
    asked.context.edit_request_texts(lambda part: "somebody changed it")
    outcome = await run_response(policy, asked.context, text="yes", stream=stream)
    assert outcome.text == "yesR"
    assert [one.reason for one in asked.verdicts + outcome.verdicts].count(Reason.BRANCH_TAKEN) == 1


async def test_the_response_can_decide_where_the_policy_stands_after_the_send(settings: Settings) -> None:
    failed = {"type": "greater_than_or_equal", "left": {"path": "response.status"}, "right": 400}
    policy = branching(settings, (failed, mark("F")), default=mark("D"))
    policy.placed(before_send=False)
    assert policy.release_mode() is Release.PASS
    for status, word in ((200, "D"), (500, "F")):
        context = context_for()
        context.stage = Stage.RESPONSE
        context.set_response(status, [(b"content-type", b"application/json")], answer_body(Operation.CHAT, "x"))
        await policy.apply(context)
        assert context.data["order"] == [f"response {word}"]
    text = {"type": "contains", "left": {"path": "response.text"}, "right": "x"}
    reads = branching(settings, (text, mark("F")))
    reads.placed(before_send=False)
    assert reads.release_mode() is Release.FULL


async def test_two_of_the_same_name_keep_their_own_choice(settings: Settings) -> None:
    red = {"branches": [{"if": says("red"), "then": mark("R")}]}
    blue = {"branches": [{"if": says("blue"), "then": mark("B")}], "default": mark("D")}
    policies = [{"use": "branching", "params": red}, {"use": "branching", "params": blue}]
    policy = build_policy("serial", {"policies": policies}, settings)
    asked = await run_request(policy, context_for(text="red"))
    assert asked.context.data["order"] == ["request R", "request D"]
    assert [one.policy for one in asked.verdicts] == [
        "serial/branching",
        "serial/branching/R",
        "serial/branching-2",
        "serial/branching-2/D",
    ]
    outcome = await run_response(policy, asked.context, text="x", stream=True)
    assert outcome.text == "xRD"


@pytest.mark.parametrize(("text", "order"), [("red", ["send"]), ("green", ["request M", "response M"])])
async def test_where_one_branch_gets_the_answer_itself_the_others_get_it_too(
    settings: Settings, text: str, order: list[str]
) -> None:
    headers = [(b"content-type", b"application/json")]
    answer = WholeResponse(status=200, headers=headers, body=answer_body(Operation.CHAT, "yes"), upstream="openai")
    services = FakeServices([answer])
    policy = branching(settings, (says("red"), {"use": "sender"}), default=mark("M"))
    outcome = await run_request(policy, context_for(text=text, services=services))
    assert outcome.context.data["order"] == order
    assert outcome.context.response_status == 200
    assert len(services.sent) == 1


def test_the_form_of_luthien_control_means_the_same(settings: Settings) -> None:
    condition = {
        "type": "equals",
        "left": {"type": "transaction_path", "path": "request.payload.model"},
        "right": {"type": "static", "value": "gpt-4o"},
        "comparator": "equals",
    }
    theirs = build_policy(
        "BranchingPolicy",
        {
            "cond_to_policy_map": {json.dumps(condition): {"name": "A", "type": "MarkPolicy", "word": "A"}},
            "default_policy": {"type": "mark", "config": {"word": "D"}},
        },
        settings,
    )
    del condition["comparator"]
    ours = branching(settings, (condition, mark("A")), default={"use": "mark", "params": {"word": "D"}})
    assert [child.name for child in theirs.children] == ["A", "mark"]  # type: ignore[attr-defined]
    assert [child.policy.params.word for child in theirs.children] == ["A", "D"]  # type: ignore[attr-defined]
    text = json.dumps(ours.params.model_dump(mode="json", by_alias=True))
    assert build_policy("branching", json.loads(text), settings).params == ours.params


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({"branches": [{"if": says("x")}]}, "branches[0].then: missing"),
        (
            {"branches": [{"if": {"type": "equal"}, "then": mark("A")}]},
            "branches[0].if.type: 'equal' is unknown; did you mean 'equals'?",
        ),
        (
            {"branches": [{"if": {"type": "equals", "left": {"path": "x"}, "right": 1}, "then": mark("A")}]},
            "branches[0].if.left.path: the path 'x' leads nowhere",
        ),
        (
            {"branches": [{"if": {"type": "regex_match", "left": "a", "right": "["}, "then": mark("A")}]},
            "branches[0].if: '[' is no regular expression",
        ),
        ({"branches": [{"if": says("x"), "then": {"use": "mark"}}]}, "branches[0].then.params.word: missing"),
        ({"default": {"use": "nop"}}, "default.use: no policy is called 'nop'; did you mean 'noop'?"),
        ({"branch": []}, "branch: unknown parameter; did you mean branches?"),
        ({"cond_to_policy_map": {"{": mark("A")}}, ": the key '{' of cond_to_policy_map is no condition as JSON text"),
    ],
)
def test_faults_name_their_place(settings: Settings, params: Any, line: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        build_policy("branching", params, settings)
    assert str(refused.value).startswith(f"params{line}" if line.startswith(":") else f"params.{line}"), refused.value


def test_endless_nesting_is_refused(settings: Settings) -> None:
    condition: dict[str, Any] = says("x")
    policy: dict[str, Any] = {"use": "noop"}
    for _ in range(5_000):
        condition = {"type": "not", "condition": condition}
        policy = {"use": "serial", "params": {"policies": [policy]}}
    with pytest.raises(ConfigurationError, match="conditions are nested more than 50 deep"):
        build_policy("branching", {"branches": [{"if": condition, "then": {"use": "noop"}}]}, settings)
    with pytest.raises(ConfigurationError, match="policies are nested more than 20 deep"):
        build_policy("serial", policy["params"], settings)
