"""Sessions, agents and the dashboard as front ends see them: small structs, the same in this process and over the API.

All text of the traffic in them is redacted and bounded, and hostile: it is shown only through a sanitiser. None is unknown,
never zero. A session belongs to one agent; what it cost, called and met is counted in `Totals`, as it is for agents and days.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from proxy_core.control.rows import TransactionRow
from proxy_core.totals import Totals as Totals
from proxy_core.verdicts import Verdict

SessionStatus = Literal["active", "inactive", "completed"]
"""`active`: a request runs, or the last one began less than five minutes ago; `completed`: quiet for longer than the time to
live of sessions, so that no request continues it any more; `inactive`: between the two."""
TurnKind = Literal["turn", "tool", "retry", "edit", "side"]
"""`turn`: a person (or program) said something; `tool`: only results of tools came back; `retry`: the same request again;
`edit`: earlier messages are not what they were (edited, shortened, branched off); `side`: a title, a memory and the like, or no
conversation at all (a list of models, a count of tokens, embeddings)."""
BlockKind = Literal["text", "thinking", "tool_call", "tool_result", "image", "opaque"]


class Count(Struct, frozen=True):
    """How often something of that name came."""

    name: str
    count: int


class SessionInfo(Struct, kw_only=True):
    """One session, as a line of a list."""

    id: str
    agent: str = ""
    user: str = ""
    workflow: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    """Name and value; the value may be empty. The newest of each name."""
    parent: str = ""
    """The session that started this one as a sub-agent; empty for most."""
    predecessor: str = ""
    """The expired session that this one continues; empty for most."""
    link: str = ""
    """How its latest request was told to be of it: `header`, `mark`, `response`, `prefix`, `inferred` or `new`."""
    started_at: float
    """Unix time in seconds of its first request."""
    last_at: float
    """Unix time in seconds of its latest request."""
    status: SessionStatus = "active"
    turns: int = 0
    """Requests of its conversation: neither beside it nor refused."""
    models: tuple[str, ...] = ()
    """As clients named them, the latest first."""
    upstreams: tuple[str, ...] = ()
    """The latest first."""
    totals: Totals
    children: int = 0
    """Sub-sessions that it started."""
    tools: tuple[Count, ...] = ()
    """Tools that answers called, the most called first, at most 20."""
    preview: str = ""
    """The beginning of what its latest request's user said."""
    risk: float | None = None
    """0 to 1; None where nothing has judged it."""


class SessionCounts(Struct, frozen=True, kw_only=True):
    """How the gateway has told the sessions of requests since its start."""

    active: int = 0
    """Sessions with a request within their time to live, at most those remembered."""
    hits: int = 0
    """Requests whose session was known."""
    misses: int = 0
    """Requests that opened one."""
    created: int = 0
    inferred: int = 0
    """Requests whose session was told without the beginning of its history."""
    evicted: int = 0
    """Sessions forgotten because there were more than may be remembered."""
    expired: int = 0
    """Sessions that nothing continued within their time to live."""


class SessionPage(Struct, kw_only=True):
    """Sessions, those with the latest requests first."""

    sessions: tuple[SessionInfo, ...]
    next: str | None = None
    """The cursor of the page after this one; None at the end."""
    counts: SessionCounts = SessionCounts()
    """Of the whole gateway, whatever was asked for."""


class StoryBlock(Struct, frozen=True, kw_only=True):
    """One part of a message."""

    kind: BlockKind
    text: str = ""
    """What it says: of a call its arguments as JSON text, of a result what the tool said, of a picture where it is, of
    something opaque empty. At most 20,000 characters."""
    name: str = ""
    """Of a call and of a result the tool; of a picture its kind; of something opaque what it called itself."""
    call_id: str = ""
    is_error: bool = False
    """Of a result: whether the tool failed."""
    omitted: int = 0
    """Characters that are left off at the end of `text`."""


class StoryMessage(Struct, frozen=True, kw_only=True):
    """One message of a request."""

    role: str
    """`system`, `developer`, `user`, `assistant`, `tool`, or the wire's own word."""
    blocks: tuple[StoryBlock, ...] = ()


class Mark(Struct, frozen=True, kw_only=True):
    """What a policy said, and where it acted."""

    verdict: Verdict
    where: Literal["request", "answer", "call"]
    block: int | None = None
    """Position from 0 in the turn's `answer`; None where it is about the whole, or the block did not come through."""
    call_id: str = ""
    """Of `call`: the call."""


class ToolUse(Struct, kw_only=True):
    """One call of a tool that an answer asked for, and what came back."""

    call_id: str
    name: str
    arguments: str = ""
    """JSON text exactly as the model gave it, at most 20,000 characters."""
    block: int = 0
    """Position of the call in the turn's `answer`."""
    result: str | None = None
    """What the tool said; None while nothing came back. At most 20,000 characters."""
    is_error: bool = False
    asked_by: str = ""
    """Transaction whose answer asked."""
    answered_by: str = ""
    """Transaction whose request brought the result; empty while nothing came back."""
    duration_s: float | None = None
    """From the end of the answer that asked to the beginning of the request that brought the result."""
    session_id: str = ""
    """The sub-session that the call started; empty for most."""
    omitted: int = 0
    """Characters that are left off at the end of `arguments` and `result`."""


class Turn(Struct, kw_only=True):
    """One request of a session and its answer: what is new in it, not the history again."""

    number: int
    """From 1, in order of arrival."""
    kind: TurnKind
    row: TransactionRow
    """Model, upstream, status, outcome, verdict, tokens, cost, times; of a running one as it is now."""
    said: tuple[StoryMessage, ...] = ()
    """The messages that the request has and the one before it (and its answer) has not; at most 200."""
    said_omitted: int = 0
    """New messages that are left off before them."""
    known: int = 0
    """Messages of the request that were told already."""
    dropped: int = 0
    """Messages of the request before that this one has no more."""
    answer: tuple[StoryBlock, ...] = ()
    """What came back; of a running one, so far. As the client got it, after the policies."""
    tool_uses: tuple[ToolUse, ...] = ()
    """The calls of `answer`, in order."""
    marks: tuple[Mark, ...] = ()
    """What policies said, in the order in which they said it; those that only let it pass are left out,
    but for what a person approved."""
    children: tuple[str, ...] = ()
    """Sub-sessions that began while this was the latest turn and that no call is known for."""
    problem: str = ""
    """Why request or answer cannot be read here; empty where both can."""

    @property
    def transaction_id(self) -> str:
        return self.row.transaction_id

    @property
    def started_at(self) -> float:
        return self.row.started_at


class SessionDetail(Struct, kw_only=True):
    """One session with its turns."""

    info: SessionInfo
    turns: tuple[Turn, ...]
    """Oldest first."""
    before: int | None = None
    """Number of the first turn here, where there are earlier ones to ask for; None where there are none."""
    children: tuple[SessionInfo, ...] = ()
    """Sub-sessions, in order of their beginning, at most 200."""
    parent: SessionInfo | None = None
    system: str = ""
    """The system prompt of its first turn here, at most 20,000 characters."""


class ModelUse(Struct, kw_only=True):
    """One model, and what its requests came to."""

    model: str
    totals: Totals


class DayUse(Struct, kw_only=True):
    """One day, and what its requests came to."""

    day: str
    """As `2026-01-31`, in UTC."""
    totals: Totals


class AgentInfo(Struct, kw_only=True):
    """One agent, as a line of a list."""

    id: str
    first_at: float
    """Unix time in seconds of its first request."""
    last_at: float
    sessions: int = 0
    active_sessions: int = 0
    models: tuple[str, ...] = ()
    """The most used first, at most 20."""
    workflows: tuple[str, ...] = ()
    totals: Totals
    system: str = ""
    """The beginning of its system prompt, at most 200 characters."""


class AgentDetail(Struct, kw_only=True):
    """One agent with what it uses."""

    info: AgentInfo
    models: tuple[ModelUse, ...] = ()
    """The most used first."""
    tools: tuple[Count, ...] = ()
    """Tools that answers called, the most called first, at most 100."""
    tools_offered: tuple[str, ...] = ()
    """Tools that its latest request offered, at most 200."""
    days: tuple[DayUse, ...] = ()
    """The latest 30 days with requests, oldest first."""
    system: str = ""
    """The system prompt of its latest request, at most 20,000 characters."""
    sessions: tuple[SessionInfo, ...] = ()
    """Its latest 20."""


class Dashboard(Struct, kw_only=True):
    """How things stand, in one look."""

    at: float
    """Unix time in seconds."""
    since: float
    """Unix time in seconds at which today began, in UTC."""
    today: Totals
    last_hour: Totals
    per_minute: tuple[int, ...] = ()
    """Requests in each of the last 60 minutes, oldest first."""
    cost_per_hour_usd: float | None = None
    """Cost of the last hour; None where no price is known."""
    sessions: int = 0
    """Sessions with a request today; at most 50,000 are counted."""
    session_counts: SessionCounts = SessionCounts()
    active_sessions: int = 0
    agents: int = 0
    """Agents with a request today."""
    p50_ms: float | None = None
    """Total time of requests of the last hour."""
    p99_ms: float | None = None
    top_agents: tuple[AgentInfo, ...] = ()
    """By requests today, at most 10; counted over today."""
    top_sessions: tuple[SessionInfo, ...] = ()
    """By requests today, at most 10; counted over today."""
    top_models: tuple[ModelUse, ...] = ()
    """By requests today, at most 10."""
    top_tools: tuple[Count, ...] = ()
    """By calls today, at most 10."""
    errors: tuple[Count, ...] = ()
    """What went wrong today, by kind (outcome and status), the most frequent first, at most 10."""
    latest_errors: tuple[TransactionRow, ...] = ()
    """Requests of today that failed, the newest first, at most 10."""
