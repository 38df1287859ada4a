"""What a policy's filter is asked about: one request, response or tool call, and what was said of it before.

The language is that of the rows of the live view, with fields for the tool call, the client's key and earlier verdicts.
Everything is computed when a filter asks for it, and once. Text is searched both as it stands and with its JSON escapes
undone, so `\\u0072m` does not hide `rm`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import replace

from proxy_core.control.filter_language import FilterError, FilterField, Language, Test
from proxy_core.control.filters import FIELDS, ROWS
from proxy_core.control.rows import TransactionRow
from proxy_core.routing.reasons import Reason
from proxy_core.verdicts import Stage, Verdict
from proxy_core.wire.conversation import Block, TextBlock, ThinkingBlock, ToolCallBlock, ToolResultBlock

if TYPE_CHECKING:
    from proxy_core.transaction import TransactionContext

__all__ = ["ANYTHING", "SUBJECT_FIELDS", "FilterError", "Subject", "SubjectFilter", "parse_subject"]


class Subject:
    """One thing that a filter is asked about."""

    def __init__(
        self, context: TransactionContext, *, stage: Stage, content: str, tool: str = "", arguments: str = "", call_id: str = ""
    ) -> None:
        self.context = context
        self.stage = stage
        self.content = content
        """Of a tool call its arguments, of a request or response its body."""
        self.tool = tool
        self.arguments = arguments
        self.call_id = call_id

    @cached_property
    def row(self) -> TransactionRow:
        """The transaction as it is now, without what is not known yet."""
        context = self.context
        row = TransactionRow(
            transaction_id=context.transaction_id,
            started_at=0.0,
            method=context.method,
            path=context.target.partition(b"?")[0].decode("latin-1"),
            dialect=context.dialect.value,
            operation=context.operation.value,
            state="waiting" if self.stage is Stage.REQUEST else "streaming",
            session_id=context.session.session_id,
            agent=context.agent,
            model=context.conversation.model or "",
            upstream=context.route.upstream,
            reason=context.route.reason,
            status=context.response_status,
            stream=context.stream,
            request_bytes=len(context.request_body),
            response_bytes=len(context.response_body),
            tool_calls=1 if self.stage is Stage.TOOL_CALL else 0,
            user=context.user,
            tags=tuple(context.tags.items()),
            workflow=context.workflow,
            parent_session=context.session.parent,
            link=context.session.link,
            side=context.session.side,
        )
        if self.stage is not Stage.RESPONSE or (answer := context.answer) is None:
            return row
        usage = answer.usage
        return replace(
            row,
            tool_calls=len(answer.tool_calls),
            stop_reason=answer.stop_reason or "",
            error=answer.error.message if answer.error else "",
            input_tokens=usage.input_tokens if usage else None,
            output_tokens=usage.output_tokens if usage else None,
            cached_tokens=usage.cached_input_tokens if usage else None,
        )

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What other policies said of it: in force, or in shadow mode where the asking policy is in shadow mode itself.

        The route counts as a verdict of `routing`; a policy that said nothing has allowed. What was said of another tool
        call of the same answer is left out.
        """
        context = self.context
        said = [
            one
            for one in (*context.earlier, *context.verdicts)
            if one.policy != context.policy
            and (context.shadow or one.mode == "enforce")
            and (not self.call_id or one.detail.get("call_id", self.call_id) == self.call_id)
        ]
        route = Verdict(
            policy="routing", stage=Stage.REQUEST, mode="enforce", action="route", reason=cast(Reason, context.route.reason)
        )
        heard = {one.policy for one in said}
        silent = [
            Verdict(policy=name, stage=context.stage, mode="enforce")
            for name in context.passed
            if name not in heard and name != context.policy
        ]
        return (route, *silent, *said)

    @cached_property
    def lowered_arguments(self) -> str:
        return _with_escapes_undone(self.arguments).lower()

    @cached_property
    def searched(self) -> str:
        """All text of it, in lower case."""
        pieces = [self.tool, _with_escapes_undone(self.content)]
        if self.stage is Stage.RESPONSE and (answer := self.context.answer) is not None:
            pieces += _texts(answer.blocks)
        row = self.row
        pieces += [row.transaction_id, row.session_id, row.agent, row.model, row.upstream, row.path]
        return "\n".join(pieces).lower()


def _texts(blocks: Iterable[Block]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, TextBlock | ThinkingBlock):
            yield block.text
        elif isinstance(block, ToolCallBlock):
            yield block.name
            yield _with_escapes_undone(block.arguments)
        elif isinstance(block, ToolResultBlock):
            yield block.content


def _with_escapes_undone(text: str) -> str:
    """The text, and the strings of its JSON where an escape could hide something."""
    if "\\" not in text:
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    strings: list[str] = []
    waiting = [found]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            strings.append(one)
        elif isinstance(one, list):
            waiting.extend(reversed(one))
        elif isinstance(one, dict):
            for name, value in reversed(one.items()):
                waiting += [value, name]
    return "\n".join([text, *strings])


def _of_row(field: FilterField) -> FilterField:
    """The same field, asked of a subject's row."""
    text, texts, number = field.text, field.texts, field.number
    return FilterField(
        field.name,
        field.kind,
        field.meaning,
        field.example,
        text=None if text is None else _through_row(text),
        texts=None if texts is None else _through_row(texts),
        number=None if number is None else _through_row(number),
    )


def _through_row(get: Callable[[TransactionRow], Any]) -> Callable[[Subject], Any]:
    return lambda subject: get(subject.row)


_OWN = (
    FilterField(
        "stage", "text", "what is looked at: request, response, tool_call", "stage:tool_call", text=lambda one: str(one.stage)
    ),
    FilterField("tool", "text", "name of the tool that is called", "tool:bash*", text=lambda one: one.tool),
    FilterField("args", "search", "text of the tool call's arguments", 'args:"rm -rf"', text=lambda one: one.lowered_arguments),
    FilterField("key", "text", "name of the client's key", "key:ci-*", text=lambda one: one.context.key),
    FilterField(
        "verdict",
        "text",
        "an earlier verdict: allow, flag, modify, route, hold, deny",
        "verdict:flag",
        text=lambda said: str(said.action),
        of_part=True,
    ),
    FilterField("policy", "text", "who gave it", "policy:tool_call_judge", text=lambda said: str(said.policy), of_part=True),
    FilterField(
        "reason", "text", "its reason code", "reason:dangerous_command", text=lambda said: str(said.reason), of_part=True
    ),
    FilterField("score", "score", "its score", "score>0.5", number=lambda said: said.score, of_part=True),
)
SUBJECT_FIELDS: dict[str, FilterField] = {name: _of_row(field) for name, field in FIELDS.items()} | {
    field.name: field for field in _OWN
}
"""Every field of a subject by name."""


def _word(test: Test) -> Test:
    return lambda subject: test(subject.row)


_LANGUAGE = Language(
    SUBJECT_FIELDS,
    {word: _word(test) for word, test in ROWS.words.items()},
    lambda subject: str(subject.searched),
    parts=lambda subject: subject.verdicts,
)


@dataclass(frozen=True, slots=True)
class SubjectFilter:
    """A compiled filter over subjects. `str()` gives it in canonical form, which parses to the same filter."""

    source: str
    matches: Callable[[Subject], bool]

    def __str__(self) -> str:
        return self.source

    def __bool__(self) -> bool:
        return bool(self.source)


def _anything(subject: Subject) -> bool:
    return True


ANYTHING = SubjectFilter("", _anything)


def parse_subject(text: str) -> SubjectFilter:
    """The filter over subjects that `text` describes; an empty one means every subject.

    Terms on verdicts that stand side by side are about one and the same verdict. Raises FilterError.
    """
    compiled = _LANGUAGE.compile(text)
    return ANYTHING if compiled is None else SubjectFilter(*compiled)
