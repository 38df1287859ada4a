"""A session as a file: Markdown as a person reads it, or JSON lines with one transaction each.

Text of the traffic can break out of nothing: in Markdown it stands in fences longer than any of its own, names in code spans,
and characters that act on a terminal or turn the direction of text are shown as signs; JSON is ASCII.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from proxy_core.control.session_infos import Mark, SessionInfo, StoryBlock, ToolUse, Turn

ExportFormat = Literal["markdown", "jsonl"]
MEDIA_TYPES: dict[str, str] = {"markdown": "text/markdown; charset=utf-8", "jsonl": "application/x-ndjson"}

_HIDDEN_FIELDS = ("started_monotonic", "version", "chunks")
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\U000e0000-\U000e0fff]"
)
_TICKS = re.compile("`{3,}")
_KINDS = {
    "tool": "tool results",
    "retry": "the same request again",
    "edit": "earlier messages changed",
    "side": "beside the conversation",
}


async def export(info: SessionInfo, turns: AsyncIterator[Turn], form: ExportFormat) -> AsyncIterator[str]:
    """The file, piece by piece."""
    if form == "jsonl":
        async for turn in turns:
            yield json_line(info, turn)
        return
    yield "\n".join(_head(info)) + "\n"
    async for turn in turns:
        yield "\n".join(_turn(turn)) + "\n"


def file_name(session_id: str, form: ExportFormat) -> str:
    """A name without anything that a file system or a header could take for more."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", session_id).strip(".-")[:80] or "session"
    return f"{safe}.{'md' if form == 'markdown' else 'jsonl'}"


def json_line(info: SessionInfo, turn: Turn) -> str:
    """One transaction as a line of ASCII JSON: its row, what was said in canonical form, the answer, calls and marks."""
    row: dict[str, Any] = {name: value for name, value in msgspec.to_builtins(turn.row).items() if name not in _HIDDEN_FIELDS}
    rest = msgspec.to_builtins(turn)
    del rest["row"]
    line = {"session": info.id, "transaction": row, **rest}
    return json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n"


def _head(info: SessionInfo) -> Iterator[str]:
    totals = info.totals
    yield f"# Session {code(info.id)}"
    yield ""
    cost = "unknown" if totals.cost_usd is None else _usd(totals.cost_usd)
    if totals.unpriced and totals.cost_usd is not None:
        cost += f" and {totals.unpriced} requests of unknown price"
    facts = {
        "agent": code(info.agent),
        "user": code(info.user),
        "workflow": code(info.workflow),
        "tags": ", ".join(code(f"{name}:{value}" if value else name) for name, value in info.tags),
        "part of": code(info.parent),
        "continues": code(info.predecessor),
        "began": _moment(info.started_at),
        "latest request": _moment(info.last_at),
        "models": ", ".join(code(model) for model in info.models),
        "upstreams": ", ".join(code(upstream) for upstream in info.upstreams),
        "requests": f"{totals.requests}, {info.turns} of them turns, {totals.errors} failed",
        "tokens": f"{totals.input_tokens} in ({totals.cached_tokens} cached), {totals.output_tokens} out",
        "cost": cost,
        "tools": ", ".join(f"{code(tool.name)} {tool.count}" for tool in info.tools),
    }
    for name, value in facts.items():
        if value:
            yield f"- {name}: {value}"


def _turn(turn: Turn) -> Iterator[str]:
    row = turn.row
    yield ""
    kind = f" · {_KINDS[turn.kind]}" if turn.kind in _KINDS else ""
    yield f"## {turn.number} · {_moment(row.started_at)}{kind}"
    yield ""
    tokens = "" if row.tokens is None else f" · {row.input_tokens or 0} in, {row.output_tokens or 0} out"
    cost = "" if row.cost_usd is None else f" · {_usd(row.cost_usd)}"
    outcome = row.outcome or "running"
    via = f" via {code(row.upstream)}" if row.upstream else ""
    what = code(row.model or f"{row.method} {row.path}")
    yield f"{what}{via} · {outcome}{f' {row.status}' if row.status else ''}{tokens}{cost} · {code(row.transaction_id)}"
    for mark in turn.marks:
        yield from _mark(mark)
    if row.error:
        yield from _text("error", row.error)
    if turn.problem:
        yield from _text("cannot be read", turn.problem)
    if turn.dropped:
        yield f"\n*{turn.dropped} earlier messages are gone.*"
    if turn.said_omitted:
        yield f"\n*{turn.said_omitted} more messages before these.*"
    for message in turn.said:
        for block in message.blocks:
            yield from _block(plain(message.role), block)
    uses = {use.block: use for use in turn.tool_uses}
    for place, block in enumerate(turn.answer):
        if place in uses:
            yield from _use(uses[place])
        else:
            yield from _block("answer", block)


def _block(role: str, block: StoryBlock) -> Iterator[str]:
    if block.kind == "text":
        yield from _text(role, block.text, block.omitted)
    elif block.kind == "thinking":
        yield from _text(f"{role}, thinking", block.text, block.omitted)
    elif block.kind == "tool_result":
        failed = ", failed" if block.is_error else ""
        yield from _text(f"result of {code(block.name or block.call_id or '?')}{failed}", block.text, block.omitted)
    elif block.kind == "tool_call":
        yield from _text(f"{role} calls {code(block.name)}", block.text, block.omitted)
    else:
        yield f"\n**{role}**: *{plain(block.name)}* {code(block.text)}"


def _use(use: ToolUse) -> Iterator[str]:
    yield from _text(f"calls {code(use.name)}", use.arguments)
    if use.result is None:
        yield "\n*no result came back*"
    else:
        took = "" if use.duration_s is None else f" after {use.duration_s:.1f} s"
        yield f"\n*{'failed' if use.is_error else 'answered'}{took}, in {code(use.answered_by)}*"
    if use.session_id:
        yield f"\n*started session {code(use.session_id)}*"


def _mark(mark: Mark) -> Iterator[str]:
    verdict = mark.verdict
    acted = "would have done" if verdict.mode == "shadow" else "did"
    yield f"\n> {code(verdict.policy)} {acted}: **{verdict.action}** ({verdict.reason.value}) on the {mark.where}"
    if verdict.message:
        yield f"> {code(verdict.message)}"


def _text(title: str, text: str, omitted: int = 0) -> Iterator[str]:
    shown = _visible(text)
    fence = "`" * max(3, max((len(run) for run in _TICKS.findall(shown)), default=0) + 1)
    yield f"\n**{title}**\n"
    yield f"{fence}text"
    yield shown
    yield fence
    if omitted:
        yield f"*{omitted} more characters*"


def _visible(text: str) -> str:
    return _ACTING.sub(lambda found: _sign(found[0]), text.replace("\r\n", "\n"))


def _sign(letter: str) -> str:
    number = ord(letter)
    if number < 0x20:
        return chr(0x2400 + number)
    return "\N{SYMBOL FOR DELETE}" if number == 0x7F else f"\\u{number:04x}"


def plain(text: str) -> str:
    """Text on one line in which nothing is Markdown."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~-])", r"\\\1", " ".join(_visible(text).split()))


def code(text: str) -> str:
    """A code span on one line; empty for an empty text."""
    shown = " ".join(_visible(text).split()).replace("`", "ˋ")
    return f"`{shown}`" if shown else ""


def _usd(value: float) -> str:
    return "<$0.0001" if 0 < value < 0.0001 else f"${value:.4f}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
