"""Filters over transactions: one way to say which rows are meant, for views, logs and exports.

`verdict:deny model:claude* latency>800 and not upstream:local`. `control.filter_language` has the grammar;
`control.subjects` has the vocabulary of what policies look at, which knows these fields too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from proxy_core.control import filter_language
from proxy_core.control.filter_language import FilterError, FilterField, Kind, Language, Test
from proxy_core.control.rows import TransactionRow

__all__ = ["EVERYTHING", "FIELDS", "ROWS", "Filter", "FilterError", "FilterField", "fields_table", "parse"]


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled filter. `str()` gives it in canonical form, which parses to the same filter."""

    source: str
    matches: Callable[[TransactionRow], bool]
    """Whether a row is meant."""

    def __str__(self) -> str:
        return self.source

    def __bool__(self) -> bool:
        return bool(self.source)


FIELDS: dict[str, FilterField] = {}
"""Every field of a row by name, in the order of the documentation."""


_YES = {True: "yes", False: "no"}


def _names_of(tags: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in tags:
        yield name
        yield f"{name}:{value}"


def _text(name: str, meaning: str, example: str, get: Callable[[TransactionRow], str]) -> None:
    FIELDS[name] = FilterField(name, "text", meaning, example, text=get)


def _number(name: str, kind: Kind, meaning: str, example: str, get: Callable[[TransactionRow], float | None]) -> None:
    FIELDS[name] = FilterField(name, kind, meaning, example, number=get)


_text("verdict", "what policies decided: allow, flag, modify, route, hold, deny", "verdict:deny", lambda row: row.verdict)
_text("outcome", "how it ended: ok, error, truncated, cancelled, refused", "outcome:truncated", lambda row: row.outcome)
_text("state", "where it is: receiving, waiting, held, streaming, done", "state:streaming", lambda row: row.state)
_text("model", "model as the client named it", "model:claude*", lambda row: row.model)
_text("session", "session id", "session:refactor*", lambda row: row.session_id)
_text("agent", "agent", "agent:codex", lambda row: row.agent)
_text("user", "whom it was made for, as the client says", "user:alice*", lambda row: row.user)
FIELDS["tag"] = FilterField(
    "tag", "text", "a tag by its name, or by name and value", "tag:env:prod*", texts=lambda row: _names_of(row.tags)
)
_text("workflow", "id from a path that begins with /agent-workflow", "workflow:nightly", lambda row: row.workflow)
_text("parent", "session that started this one's agent", "parent:s-7*", lambda row: row.parent_session)
_text("link", "how the session was told: header, mark, response, prefix, inferred, new", "link:inferred", lambda row: row.link)
_text("side", "whether it stands beside the conversation (titles, memory): yes, no", "side:no", lambda row: _YES[row.side])
_text("upstream", "upstream that answered", "upstream:openai", lambda row: row.upstream)
_text("via", "the same as upstream", "via:local", lambda row: row.upstream)
_text("dialect", "API family: openai, anthropic, ollama", "dialect:anthropic", lambda row: row.dialect)
_text("operation", "what was asked: chat, messages, responses, embeddings, …", "operation:chat", lambda row: row.operation)
_text("method", "HTTP method", "method:post", lambda row: row.method)
_text("path", "raw path of the request", "path:/v1/messages*", lambda row: row.path)
_text("id", "transaction id", "id:01j9*", lambda row: row.transaction_id)
_text("reason", "routing reason code", "reason:default*", lambda row: row.reason)
_text("error", "what went wrong", "error:*timed?out*", lambda row: row.error)
_text("stop", "why the model stopped", "stop:tool*", lambda row: row.stop_reason)
_number("status", "status", "HTTP status; with a glob, or compared", "status>=400", lambda row: row.status)
_number("latency", "ms", "total time", "latency>800", lambda row: row.total_ms)
_number("total", "ms", "the same as latency", "total>2s", lambda row: row.total_ms)
_number("ttft", "ms", "time to the first token", "ttft<300ms", lambda row: row.ttft_ms)
_number("overhead", "ms", "time spent in luthien before sending", "overhead>5", lambda row: row.overhead_ms)
_number("cost", "usd", "price in USD", "cost>=$0.05", lambda row: row.cost_usd)
_number("in", "count", "input tokens", "in>8k", lambda row: row.input_tokens)
_number("out", "count", "output tokens", "out=0", lambda row: row.output_tokens)
_number("tokens", "count", "input and output tokens", "tokens>100k", lambda row: row.tokens)
_number("cached", "count", "cached input tokens", "cached>0", lambda row: row.cached_tokens)
_text("estimated", "whether its tokens are an estimate: yes, no", "estimated:yes", lambda row: _YES[row.estimated])
_number("bytes", "bytes", "response bytes so far", "bytes>1M", lambda row: row.response_bytes)
_number("chunks", "count", "response chunks so far", "chunks>10", lambda row: row.chunks)
_number("tools", "count", "tool calls in the answer", "tools>0", lambda row: row.tool_calls)
FIELDS["is"] = FilterField(
    "is", "is", "running, held, stream, error (failed in any way), done, tool, side, estimated", "is:running"
)

_IS: dict[str, Test] = {
    "running": lambda row: row.state != "done",
    "held": lambda row: row.state == "held",
    "done": lambda row: row.state == "done",
    "stream": lambda row: row.stream,
    "error": lambda row: row.outcome in ("error", "truncated", "refused"),
    "tool": lambda row: row.tool_calls > 0,
    "side": lambda row: row.side,
    "estimated": lambda row: row.estimated,
}


def _searched(row: TransactionRow) -> str:
    tags = "\n".join(_names_of(row.tags)) if row.tags else ""
    return (
        f"{row.transaction_id}\n{row.session_id}\n{row.agent}\n{row.user}\n{row.workflow}\n{tags}\n"
        f"{row.model}\n{row.upstream}\n{row.path}\n{row.error}\n{row.preview}"
    ).lower()


ROWS = Language(
    FIELDS,
    _IS,
    _searched,
    other_fields=frozenset({"stage", "tool", "args", "policy", "score", "key"}),
    elsewhere="'{}' may be asked in the filter of a policy only",
)
"""What may be asked of a row."""


def parse(text: str) -> Filter:
    """The filter over rows that `text` describes; an empty one means every row. Raises FilterError."""
    compiled = ROWS.compile(text)
    return EVERYTHING if compiled is None else Filter(*compiled)


def _everything(row: TransactionRow) -> bool:
    return True


EVERYTHING = Filter("", _everything)


def fields_table() -> str:
    """The fields as a Markdown table, for the documentation."""
    return filter_language.fields_table(FIELDS)
