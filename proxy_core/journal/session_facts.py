"""What is known of a session or of a group of requests, and how two parts of it come to a whole. Values only, no store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from proxy_core.journal.listing import read_tags
from proxy_core.journal.request_sums import totals_of
from proxy_core.totals import Totals

SHOWN_NAMES = 20
MAX_GROUPS = 5_000
MAX_TAGS = 100
"""Tags of one session that are remembered, the newest first; clients can give each request others."""
MAX_TOOLS = 200
_Name = TypeVar("_Name")


class SessionFacts(Struct, kw_only=True):
    """What the journal knows of one session."""

    id: str
    last_seq: int
    """Number of its latest request."""
    started_ns: int
    last_ns: int
    turns: int = 0
    """Requests of its conversation: neither beside it nor refused."""
    totals: Totals
    agent: str = ""
    user: str = ""
    workflow: str = ""
    tags: dict[str, str] = {}
    parent: str = ""
    predecessor: str = ""
    link: str = ""
    models: tuple[str, ...] = ()
    """The latest first."""
    upstreams: tuple[str, ...] = ()
    """The latest first."""
    tools: dict[str, int] = {}
    children: int = 0
    preview: str = ""


class Group(Struct, kw_only=True):
    """Requests that have something in common; what they were not grouped by is empty."""

    agent: str = ""
    session_id: str = ""
    model: str = ""
    workflow: str = ""
    day: int = 0
    """Days since 1970, in UTC."""
    first_ns: int
    last_ns: int
    totals: Totals


def take(found: dict[str, SessionFacts], one: Any) -> None:
    """Add one row of `_by_session`; the latest rows come first."""
    more = SessionFacts(
        id=one.session_id,
        last_seq=one.last_seq,
        started_ns=one.first_ns,
        last_ns=one.last_ns,
        turns=int(one.turns),
        totals=totals_of(one),
        user=one.user,
        workflow=one.workflow,
        tags=dict(read_tags(one.tags)) if one.tags else {},
        parent=one.parent,
        predecessor=one.predecessor,
        models=(one.model,) if one.model else (),
        upstreams=(one.upstream,) if one.upstream else (),
    )
    whole = together(found.get(one.session_id), more)
    assert whole is not None  # noqa: S101 - one of the two is there
    found[one.session_id] = whole


def together(later: SessionFacts | None, earlier: SessionFacts | None) -> SessionFacts | None:
    """What two parts of a session come to; neither is changed."""
    if later is None or earlier is None:
        only = later or earlier
        if only is None:
            return None
        return msgspec.structs.replace(only, totals=msgspec.structs.replace(only.totals), tools=dict(only.tools))
    totals = msgspec.structs.replace(later.totals)
    totals.add(earlier.totals)
    tools = dict(later.tools)
    add_counts(tools, earlier.tools, MAX_TOOLS)
    return SessionFacts(
        id=later.id,
        last_seq=max(later.last_seq, earlier.last_seq),
        started_ns=min(later.started_ns, earlier.started_ns),
        last_ns=max(later.last_ns, earlier.last_ns),
        turns=later.turns + earlier.turns,
        totals=totals,
        user=later.user or earlier.user,
        workflow=later.workflow or earlier.workflow,
        tags=_newest(later.tags, earlier.tags),
        parent=later.parent or earlier.parent,
        predecessor=later.predecessor or earlier.predecessor,
        models=_names((*later.models, *earlier.models)),
        upstreams=_names((*later.upstreams, *earlier.upstreams)),
        tools=tools,
    )


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))[:SHOWN_NAMES]


def merge(groups: dict[tuple[str, str, str], Group], more: Group) -> None:
    key = (more.agent, more.model, more.workflow)
    known = groups.get(key)
    if known is None:
        if len(groups) < MAX_GROUPS:
            groups[key] = msgspec.structs.replace(more, totals=msgspec.structs.replace(more.totals))
        return
    known.first_ns, known.last_ns = min(known.first_ns, more.first_ns), max(known.last_ns, more.last_ns)
    known.totals.add(more.totals)


def add_tools(counts: dict[str, int], stored: str, times: int) -> None:
    called = msgspec.json.decode(stored, type=dict[str, int])
    add_counts(counts, {name: count * times for name, count in called.items()}, MAX_TOOLS)


def add_counts(counts: dict[_Name, int], more: Mapping[_Name, int], most: int) -> None:
    """Count `more` too, of at most so many names."""
    for name, count in more.items():
        if name in counts or len(counts) < most:
            counts[name] = counts.get(name, 0) + count


def _newest(later: dict[str, str], earlier: dict[str, str]) -> dict[str, str]:
    if earlier == later:
        return later
    return dict(list({**later, **{name: value for name, value in earlier.items() if name not in later}}.items())[:MAX_TAGS])
