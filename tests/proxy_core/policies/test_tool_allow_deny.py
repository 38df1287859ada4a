"""ToolAllowDeny: calls by list and by rule, and denied calls in other letters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy_core.policies.testing import Outcome, context_for, run_response
from proxy_core.policies.tool_allow_deny import ToolAllowDenyParams, ToolAllowDenyPolicy
from proxy_core.transaction import TransactionContext
from proxy_core.wire.conversation import ToolCallBlock
from tests.proxy_core.policies.tool_calls import LS, READ, RM, Call, whole_answer

NO_RM = {"tool": "Bash", "arguments": {"command": r"rm\s+-rf"}}


def policy(**params: Any) -> ToolAllowDenyPolicy:
    return ToolAllowDenyPolicy(ToolAllowDenyParams.model_validate(params))


async def ran(calls: list[Call], **params: Any) -> Outcome:
    context = context_for()
    return await run_response(policy(**params), context, body=whole_answer(context.operation, "", calls))


async def decided(name: str, arguments: Any, **params: Any) -> str:
    """`allow` or `deny`, and nothing else, of one call."""
    context: TransactionContext = context_for()
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    decision = await policy(**params).decide(context, ToolCallBlock("call_1", name, text))
    action = context.verdicts[-1].action
    assert (decision.kind == "allow") == (action == "allow")
    return action


async def test_a_denied_tool_is_taken_out_of_the_answer() -> None:
    outcome = await ran([RM, READ], deny=["Bash"])

    assert outcome.answer is not None
    assert [call.name for call in outcome.answer.tool_calls] == ["Read"]
    assert outcome.text == "[Tool call `Bash` was blocked by policy]"
    assert [(verdict.action, verdict.reason) for verdict in outcome.verdicts] == [
        ("deny", "tool_not_allowed"),
        ("allow", "passed"),
    ]


async def test_with_a_list_of_what_is_allowed_all_else_is_denied() -> None:
    assert await decided("Read", {}, allow=["Read", "mcp__docs__*"]) == "allow"
    assert await decided("mcp__docs__search", {}, allow=["Read", "mcp__docs__*"]) == "allow"
    assert await decided("Bash", {}, allow=["Read", "mcp__docs__*"]) == "deny"
    assert await decided("Bash", {}, allow=["Read"], default="allow") == "allow"
    assert await decided("Bash", {}) == "allow"
    assert await decided("Bash", {}, default="deny") == "deny"


async def test_what_is_denied_wins_over_what_is_allowed() -> None:
    assert await decided("Bash", {}, allow=["*"], deny=["Bash"]) == "deny"


async def test_rules_look_at_arguments_and_the_first_that_holds_decides() -> None:
    rules = [{"tool": "Bash", "arguments": {"command": "^git status$"}, "action": "allow"}, NO_RM]

    assert await decided("Bash", {"command": "git status"}, rules=rules, default="deny") == "allow"
    assert await decided("Bash", {"command": "rm -rf /"}, rules=rules) == "deny"
    assert await decided("Bash", {"command": "ls"}, rules=rules) == "allow"
    assert await decided("Shell", {"command": "rm -rf /"}, rules=rules) == "allow"


async def test_rules_reach_into_objects_and_lists() -> None:
    rules = [{"tool": "*", "arguments": {"files.*.path": r"^/etc/"}}]

    assert await decided("Edit", {"files": [{"path": "a.txt"}, {"path": "/etc/passwd"}]}, rules=rules) == "deny"
    assert await decided("Edit", {"files": [{"path": "a.txt"}]}, rules=rules) == "allow"


async def test_patterns_see_canonical_json() -> None:
    rules = [{"pattern": r'"a":1,"b":2'}]

    assert await decided("X", '{ "b" : 2,\n "a" : 1 }', rules=rules) == "deny"
    assert await decided("X", '{"a": 1, "b": 3}', rules=rules) == "allow"


@pytest.mark.parametrize(
    "arguments",
    [
        "{broken",
        '{"command": "ls", "command": "rm -rf /"}',
        '{"command": NaN}',
        "[" * 5000,
        "rm -rf /",
        '{"command": "ls"} extra',
    ],
)
async def test_arguments_that_cannot_be_read_meet_every_rule_of_denial(arguments: str) -> None:
    assert await decided("Bash", arguments, rules=[NO_RM]) == "deny"
    assert await decided("Read", arguments, rules=[NO_RM]) == "allow"
    allowing = [{"tool": "Bash", "arguments": {"command": "."}, "action": "allow"}]
    assert await decided("Bash", arguments, rules=allowing, default="deny") == "deny"


async def test_a_call_without_a_name_is_denied() -> None:
    assert await decided("", {}, deny=["Bash"]) == "deny"
    assert await decided("\u200b ", {}, allow=["*"]) == "deny"


VARIANTS = [
    ("bash", {"command": "rm -rf /"}),
    ("BASH", {"command": "rm -rf /"}),
    ("Ｂash", {"command": "rm -rf /"}),
    ("B\u200bash", {"command": "rm -rf /"}),
    (" Bash ", {"command": "rm -rf /"}),
    ("functions.Bash", {"command": "rm -rf /"}),
    ("Bash", {"command": "RM -RF /"}),
    ("Bash", {"command": "rm \t\n  -rf /"}),
    ("Bash", {"command": "ｒｍ -rf /"}),
    ("Bash", {"command": "r\u00adm -rf /"}),
    ("Bash", {"Command": "rm -rf /"}),
    ("Bash", {"timeout": 5, "command": "rm -rf /"}),
    ("Bash", '{ "command"  :"rm -rf /" }'),
    ("Bash", '{"comm\\u0061nd": "\\u0072m -rf /"}'),
    ("Bash", json.dumps(json.dumps({"command": "rm -rf /"}))),
]


@pytest.mark.parametrize(("name", "arguments"), VARIANTS)
async def test_a_denied_call_is_denied_in_other_letters_too(name: str, arguments: Any) -> None:
    assert await decided(name, arguments, rules=[NO_RM]) == "deny"
    assert await decided(name, arguments, deny=["Bash"]) == "deny"


async def test_what_is_allowed_must_be_so_to_the_letter() -> None:
    assert await decided("bash", {}, allow=["Bash"]) == "deny"
    assert await decided("Ｂash", {}, allow=["Bash"]) == "deny"


@settings(max_examples=100, deadline=None)
@given(
    before=st.dictionaries(st.text(max_size=5).filter(lambda key: key.casefold() != "command"), st.integers(), max_size=4),
    spaces=st.text(alphabet=" \t\n", min_size=1, max_size=5),
    upper=st.booleans(),
    indent=st.one_of(st.none(), st.integers(0, 4)),
)
async def test_spaces_order_of_keys_and_capitals_change_no_denial(
    before: dict[str, int], spaces: str, upper: bool, indent: int | None
) -> None:
    command = f"rm{spaces}-rf /"
    arguments = before | {"command": command.upper() if upper else command}

    assert await decided("Bash", json.dumps(arguments, indent=indent), rules=[NO_RM]) == "deny"
    assert await decided("Bash", json.dumps(arguments, indent=indent), rules=[{"pattern": r"rm\s+-rf"}]) == "deny"


async def test_the_message_is_what_the_agent_reads() -> None:
    outcome = await ran([LS], deny=["Bash"], message="{tool_name} is off. Use Read.")

    assert outcome.text == "Bash is off. Use Read."


@pytest.mark.parametrize(
    "params", [{"rules": [{"pattern": "["}]}, {"rules": [{"arguments": {"a": "("}}]}, {"default": "maybe"}, {"alow": []}]
)
def test_what_is_wrong_is_refused_when_it_is_loaded(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        policy(**params)
