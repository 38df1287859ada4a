"""Filters over sessions: the filter language with the words of a list of sessions.

`agent:codex cost>1 is:active and not tool:bash`. A field with several values, such as `model`, means any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy_core.control.filter_language import FilterField, Kind, Language, Test
from proxy_core.control.session_infos import SessionInfo

FIELDS: dict[str, FilterField] = {}
"""Every field of a session by name, in the order of the documentation."""


def _text(name: str, meaning: str, example: str, get: Callable[[SessionInfo], str]) -> None:
    FIELDS[name] = FilterField(name, "text", meaning, example, text=get)


def _texts(name: str, meaning: str, example: str, get: Callable[[SessionInfo], Sequence[str]]) -> None:
    FIELDS[name] = FilterField(name, "search", meaning, example, text=lambda info: "\n".join(get(info)).lower())


def _number(name: str, kind: Kind, meaning: str, example: str, get: Callable[[SessionInfo], float | None]) -> None:
    FIELDS[name] = FilterField(name, kind, meaning, example, number=get)


def _tags(info: SessionInfo) -> list[str]:
    return [f"{name}:{value}" if value else name for name, value in info.tags]


_text("session", "session id", "session:refactor*", lambda info: info.id)
_text("agent", "agent", "agent:codex", lambda info: info.agent)
_text("user", "user, as the client says", "user:anna", lambda info: info.user)
_text("workflow", "workflow of its path", "workflow:nightly", lambda info: info.workflow)
_text("parent", "session that started it as a sub-agent", "parent:refactor*", lambda info: info.parent)
_text("link", "how its latest request was told to be of it", "link:inferred", lambda info: info.link)
_text("status", "active, inactive, completed", "status:active", lambda info: info.status)
_texts("tag", "a tag, as name or name:value", "tag:team:legal", _tags)
_texts("model", "a model that it asked for", "model:claude", lambda info: info.models)
_texts("upstream", "an upstream that answered it", "upstream:local", lambda info: info.upstreams)
_texts("tool", "a tool that an answer called", "tool:bash", lambda info: [tool.name for tool in info.tools])
_number("turns", "count", "requests of its conversation, neither beside it nor refused", "turns>20", lambda info: info.turns)
_number("requests", "count", "all requests", "requests>100", lambda info: info.totals.requests)
_number("cost", "usd", "price in USD, as far as it is known", "cost>=$0.50", lambda info: info.totals.cost_usd)
_number("tokens", "count", "input and output tokens", "tokens>100k", lambda info: info.totals.tokens)
_number("in", "count", "input tokens", "in>80k", lambda info: info.totals.input_tokens)
_number("out", "count", "output tokens", "out<1k", lambda info: info.totals.output_tokens)
_number("cached", "count", "cached input tokens", "cached=0", lambda info: info.totals.cached_tokens)
_number("tools", "count", "tool calls", "tools>50", lambda info: info.totals.tool_calls)
_number("errors", "count", "requests that failed", "errors>0", lambda info: info.totals.errors)
_number("denied", "count", "requests that were denied", "denied>0", lambda info: info.totals.denied)
_number("held", "count", "requests that were held", "held>0", lambda info: info.totals.held)
_number("modified", "count", "requests that were changed", "modified>0", lambda info: info.totals.modified)
_number("children", "count", "sub-sessions", "children>0", lambda info: info.children)
_number("risk", "score", "risk from 0 to 1, where it is known", "risk>0.5", lambda info: info.risk)
_number("took", "ms", "from its first request to its latest", "took>1h", lambda info: (info.last_at - info.started_at) * 1e3)
FIELDS["is"] = FilterField("is", "is", "active, inactive, completed, running, error, tool, sub, inferred, acted", "is:running")

_IS: dict[str, Test] = {
    "active": lambda info: info.status == "active",
    "inactive": lambda info: info.status == "inactive",
    "completed": lambda info: info.status == "completed",
    "running": lambda info: info.totals.running > 0,
    "error": lambda info: info.totals.errors > 0,
    "tool": lambda info: info.totals.tool_calls > 0,
    "sub": lambda info: bool(info.parent),
    "inferred": lambda info: info.link == "inferred",
    "acted": lambda info: info.totals.flagged + info.totals.modified + info.totals.held + info.totals.denied > 0,
}


def _searched(info: SessionInfo) -> str:
    texts = (info.id, info.agent, info.user, info.workflow, *info.models, *info.upstreams, *_tags(info), info.preview)
    return "\n".join(texts).lower()


SESSIONS = Language(FIELDS, _IS, _searched)
"""What may be asked of a session."""


def parse_sessions(text: str) -> Test:
    """The test of a filter over sessions; an empty one means every session. Raises FilterError."""
    compiled = SESSIONS.compile(text)
    return _every if compiled is None else compiled[1]


def _every(info: SessionInfo) -> bool:
    return True


def has_tags(info: SessionInfo, wanted: Sequence[str]) -> bool:
    """Whether all these tags, each `name` or `name:value`, are there."""
    known = dict(info.tags)
    for one in wanted:
        name, colon, value = one.partition(":")
        if name not in known or (colon and known[name] != value):
            return False
    return True
