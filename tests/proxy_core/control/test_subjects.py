"""What policies' filters find: the tool call, the verdicts before it, and everything that the live view knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy_core.control.filters import FIELDS, ROWS, FilterError, parse
from proxy_core.control.subjects import ANYTHING, SUBJECT_FIELDS, Subject, parse_subject
from proxy_core.policies.testing import answer_body, context_for
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import SessionView, TransactionContext
from proxy_core.verdicts import Action, Mode, Stage, Verdict
from proxy_core.wire.dialects import Operation

ARGUMENTS = '{"command":"rm -rf /srv/Builds"}'


def said(policy: str, action: Action = "flag", *, mode: Mode = "enforce", **more: Any) -> Verdict:
    return Verdict(policy=policy, stage=Stage.TOOL_CALL, mode=mode, action=action, **more)


def call(arguments: str = ARGUMENTS, *verdicts: Verdict, tool: str = "bash", call_id: str = "call_1") -> Subject:
    context = context_for(text="Clean up the staging server", key="ci-main")
    context.session = SessionView("ops-7f")
    context.agent = "codex"
    context.policy = "hold_for_approval"
    context.verdicts.extend(verdicts)
    return Subject(context, stage=Stage.TOOL_CALL, content=arguments, tool=tool, arguments=arguments, call_id=call_id)


JUDGED = said("tool_call_judge", "allow", score=0.4, reason=Reason.PASSED)
FLAGGED = said("block_dangerous_commands", "flag", reason=Reason.DANGEROUS_COMMAND)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", True),
        ("stage:tool_call", True),
        ("stage:request", False),
        ("tool:bash", True),
        ("tool:BASH*", True),
        ("tool:sh", False),
        ("tool!=bash", False),
        ('args:"rm -rf"', True),
        ("args:rm*builds", True),
        ("args:mkfs", False),
        ("not args:mkfs", True),
        ("args!=mkfs", True),
        ("key:ci-*", True),
        ("session:ops-7f agent:codex", True),
        ("upstream:openai dialect:openai operation:chat", True),
        ("upstream:local", False),
        ("path:/v1/chat*", True),
        ("is:tool not is:stream", True),
        ("builds", True),
        ('"/srv/builds"', True),
        ("staging", False),
        ("verdict:flag", True),
        ("verdict:deny", False),
        ("policy:tool_call_judge", True),
        ("policy:block_*", True),
        ("reason:dangerous_command", True),
        ("score>0.3", True),
        ("score>0.5", False),
        ("reason:default policy:routing", True),
        ("tool:bash (verdict:flag or score>0.9)", True),
    ],
)
def test_finds(text: str, found: bool) -> None:
    assert parse_subject(text).matches(call(ARGUMENTS, JUDGED, FLAGGED)) is found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("policy:tool_call_judge verdict:flag", False),
        ("policy:block_dangerous_commands verdict:flag", True),
        ("policy:tool_call_judge score>0.3", True),
        ("policy:block_dangerous_commands score>0.3", False),
        ("policy:tool_call_judge tool:bash score>0.3", True),
        ("policy:tool_call_judge (verdict:flag)", True),
        ("not policy:leaked_api_key_detection", True),
        ("not (policy:tool_call_judge verdict:flag)", True),
        ("policy!=tool_call_judge verdict:flag", True),
    ],
)
def test_terms_side_by_side_are_about_one_verdict(text: str, found: bool) -> None:
    assert parse_subject(text).matches(call(ARGUMENTS, JUDGED, FLAGGED)) is found


def test_which_verdicts_count() -> None:
    own = said("hold_for_approval", "hold")
    shadow = said("tool_call_judge", "deny", mode="shadow")
    other_call = said("tool_allow_deny", "deny", detail={"call_id": "call_2"})
    subject = call(ARGUMENTS, own, shadow, other_call)
    for text in ("verdict:hold", "policy:tool_call_judge", "policy:tool_allow_deny"):
        assert not parse_subject(text).matches(subject), text
    assert parse_subject("policy:tool_allow_deny").matches(call(ARGUMENTS, other_call, call_id="call_2"))


def test_a_policy_that_said_nothing_has_allowed() -> None:
    subject = call(ARGUMENTS, FLAGGED)
    subject.context.passed = {"strip_secrets": 0.1, "block_dangerous_commands": 0.1, "hold_for_approval": 0.1}
    assert parse_subject("policy:strip_secrets verdict:allow reason:passed").matches(subject)
    assert not parse_subject("policy:block_dangerous_commands verdict:allow").matches(subject)
    assert not parse_subject("policy:hold_for_approval").matches(subject)


def test_a_policy_in_shadow_mode_hears_the_others() -> None:
    context = context_for()
    context.verdicts.append(said("tool_call_judge", "deny", mode="shadow"))
    copy = context.fork()
    subject = Subject(copy, stage=Stage.TOOL_CALL, content="{}", tool="bash", arguments="{}")
    assert parse_subject("policy:tool_call_judge verdict:deny").matches(subject)


@pytest.mark.parametrize(
    "arguments", [r'{"command":"\u0072m -rf /"}', r'{"c":["x",{"d":"\u0072\u006d -rf /"}]}', r'{"rm\u0020-rf":1}']
)
def test_escapes_hide_nothing(arguments: str) -> None:
    assert parse_subject('args:"rm -rf"').matches(call(arguments))
    assert parse_subject('"rm -rf"').matches(call(arguments))


@pytest.mark.parametrize("arguments", ["", "no json \\", '{"a":', "[" * 5_000 + "\\", "\ud800\\"])
def test_arguments_that_are_no_json_are_searched_as_they_are(arguments: str) -> None:
    assert parse_subject("not args:zzz").matches(call(arguments))


def response(body: bytes, content_type: bytes = b"application/json") -> TransactionContext:
    context = context_for(Operation.MESSAGES)
    context.set_response(200, [(b"content-type", content_type)], body)
    return context


def test_a_whole_answer_is_searched_by_what_it_says() -> None:
    body = answer_body(Operation.MESSAGES, "The key is \N{SNOWMAN} under the mat")
    escaped = json.dumps(json.loads(body)).encode()
    subject = Subject(response(escaped), stage=Stage.RESPONSE, content=escaped.decode())
    for text in ("stage:response", "status:200", '"\N{SNOWMAN} under the mat"', "out>0", "tools=0", "stop:end_turn"):
        assert parse_subject(text).matches(subject), text
    assert not parse_subject("is:tool").matches(subject)


def test_what_is_not_known_yet_matches_no_comparison() -> None:
    subject = Subject(context_for(), stage=Stage.REQUEST, content="{}")
    for text in ("status>0", "out<9", "latency<9", "score<2"):
        assert not parse_subject(text).matches(subject), text


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("tol:bash", 1, "did you mean 'tool'"),
        ("tool:bash polcy:x", 11, "did you mean 'policy'"),
        ("score:high", 7, "'high' is no number"),
        ("tool>5", 5, "text"),
        ("args:", 6, "needs a value"),
    ],
)
def test_names_the_column_of_a_mistake(text: str, column: int, says: str) -> None:
    with pytest.raises(FilterError) as raised:
        parse_subject(text)
    assert raised.value.column == column
    assert says in raised.value.message


def test_every_field_of_a_row_is_one_of_a_subject() -> None:
    assert set(FIELDS) <= set(SUBJECT_FIELDS)
    for field in SUBJECT_FIELDS.values():
        parse_subject(field.example)
    assert parse_subject("  ") is ANYTHING
    assert not ANYTHING


def test_the_page_on_holds_has_every_field_of_its_own() -> None:
    page = (Path(__file__).parents[3] / "docs" / "holds.md").read_text("utf-8")
    own = [field for name, field in SUBJECT_FIELDS.items() if name not in FIELDS or field.meaning != FIELDS[name].meaning]
    assert len(own) > len(ROWS.other_fields)
    for field in own:
        assert f"| `{field.name}` | {field.meaning} | `{field.example}` |" in page


def test_a_filter_over_rows_says_what_only_policies_can_ask() -> None:
    assert ROWS.other_fields | set(FIELDS) == set(SUBJECT_FIELDS)
    for name in ROWS.other_fields:
        with pytest.raises(FilterError, match="of a policy only"):
            parse(f"{name}:x")


@pytest.mark.parametrize("text", ['policy:a verdict:flag tool:b "x y"', 'not (policy:a or args:"rm -rf") score>=0.5', "a or b:c"])
def test_canonical_form_means_the_same(text: str) -> None:
    try:
        first = parse_subject(text)
    except FilterError:
        return
    assert str(parse_subject(str(first))) == str(first)
