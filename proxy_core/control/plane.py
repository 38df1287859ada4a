"""ControlPlane: all that a front end may ask of a gateway, whether in this process or elsewhere.

The user interface uses nothing else. Calls never block the loop; reads of the journal run off it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from proxy_core.control.change_infos import ChangeInfo
from proxy_core.control.feed import FeedRecord
from proxy_core.control.param_info import ParamInfo as ParamInfo
from proxy_core.control.routing_infos import RoutingInfo, WhatIf
from proxy_core.control.rows import TransactionRow
from proxy_core.control.session_infos import AgentDetail, AgentInfo, Dashboard, SessionDetail, SessionPage, Turn
from proxy_core.routing.explaining import Explanation
from proxy_core.verdicts import Mode, Verdict

Headers = tuple[tuple[str, str], ...]


class GatewayState(Struct, kw_only=True):
    """How the gateway fares, at one moment."""

    address: str
    """`host:port` of the data plane."""
    status: str
    """`serving`, `draining` or `stopped`."""
    started_at: float
    """Unix time in seconds."""
    active: int
    """Transactions that run now."""
    total: int
    """Transactions since the start."""
    store: str
    """`sqlite` or `postgres`."""
    journal_status: str
    """`ok`, `spilling` or `failing`."""
    journal_queue: int
    """Records waiting for their commit."""
    journal_oldest_ms: float
    """Age of the oldest of them, in ms."""
    spilled: int
    """Records in the spool that are not in the store yet."""
    loop_lag_ms: float
    """Worst lateness of the event loop over the last second, in ms."""
    upstreams: tuple[tuple[str, str], ...]
    """Name and base URL of each configured upstream."""
    demo: bool = False
    control: str = ""
    """`host:port` of the control API; empty where it is not served."""
    sequence: int = 0
    """Number of the newest record of the feed; 0 before the first."""


class Timing(Struct, kw_only=True):
    """Milliseconds since the first byte of the request; None where that point was not reached."""

    received: float | None = None
    """Request body read."""
    recorded: float | None = None
    """Intent durable."""
    connected: float | None = None
    """A connection to the upstream was ready."""
    responded: float | None = None
    """Response headers arrived."""
    first_token: float | None = None
    last_byte: float | None = None
    """Response body complete."""
    finished: float | None = None
    """Outcome durable."""


class TransactionDetail(Struct, kw_only=True):
    """One transaction with its bodies. Secrets are already redacted."""

    row: TransactionRow
    request_headers: Headers = ()
    request_body: bytes = b""
    response_headers: Headers = ()
    response_body: bytes = b""
    """Of a running stream, what has come so far; of an ended one, without its content encoding where it can be undone."""
    timing: Timing
    redacted: bool = False
    """Whether a secret was taken out of a body, so that it differs from what was sent."""
    capture_note: str = ""
    """Why a body is absent or cut here, if it is."""
    verdicts: tuple[Verdict, ...] = ()
    """What each policy said, in the order in which they said it."""
    policy_digest: str = ""
    """Digest of the version of the chain that this transaction saw; empty where no policy was configured."""
    address: str = ""
    """The root of the URL that it was sent to; empty where nothing was sent."""
    sent_body: bytes | None = None
    """The request body that went upstream, where policies made it differ from `request_body`."""
    upstream_body: bytes | None = None
    """The response body that the upstream gave, where policies made it differ from `response_body`."""


class PolicyInfo(Struct, kw_only=True):
    """One policy of a chain: what it is set to, and how it fared over the last hour."""

    name: str
    use: str
    """Its registry name."""
    summary: str
    mode: Mode
    on_error: str
    chain: str = "global"
    """`global`, or the selector of its chain."""
    position: int
    """From 1, in its chain."""
    stages: tuple[str, ...] = ()
    release: str = "pass"
    """What it keeps back of a stream: `pass`, `tail`, `block` or `full`."""
    sends: bool = False
    params: tuple[ParamInfo, ...] = ()
    source: str = "default"
    """Where the present mode and parameters come from: `default`, `file`, or `operator NAME at TIME`."""
    hits_1h: int = 0
    """Transactions on which it ran."""
    acted_1h: int = 0
    """Of those in enforce mode, how many it flagged, changed, held or denied."""
    shadow_1h: int = 0
    """Of those in shadow mode, how many it would have."""
    errors_1h: int = 0
    per_minute: tuple[int, ...] = ()
    """Hits in each of the last 60 minutes, oldest first."""
    p50_ms: float | None = None
    p99_ms: float | None = None
    acted_today: int = 0
    recent_scores: tuple[float, ...] = ()
    """Up to 1,000 latest scores, newest last: what another threshold would have done."""


class HoldInfo(Struct, kw_only=True):
    """Something that waits for a person, or did."""

    id: str
    transaction_id: str
    stage: Literal["request", "response", "tool_call"]
    policy: str
    reason: str
    """Why it is held, for people."""
    content: str
    """What would happen, in canonical form: of a tool call its arguments as JSON text. Hostile text: sanitise before showing."""
    shown: str
    """SHA-256 over stage, tool and content; a decision must name it."""
    created: float
    """Unix time in seconds."""
    deadline: float
    """Unix time in seconds; then `on_timeout` decides."""
    on_timeout: str = "deny"
    status: Literal["pending", "approved", "edited", "denied", "expired", "withdrawn"] = "pending"
    session_id: str = ""
    agent: str = ""
    key: str = ""
    model: str = ""
    tool: str = ""
    call_id: str = ""
    tool_schema: str = ""
    """JSON schema of the tool's arguments where the request offered one."""
    waiting: int = 1
    """Requests that wait for this one decision: the first, and retries that joined it."""
    decided_by: str = ""
    message: str = ""


class ControlConflict(Exception):
    """Somebody else was quicker, or what was shown has changed: nothing was done. The API answers 409."""


class ControlInvalid(Exception):
    """A value that cannot be taken; `field` names it. The API answers 422."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class ControlNotFound(Exception):
    """There is nothing of that name. The API answers 404."""


class ControlPlane(Protocol):
    """The gateway as an operator's tool sees it."""

    def state(self) -> GatewayState: ...

    def events(self, after: int, limit: int = 2_000) -> tuple[list[FeedRecord], int]:
        """Feed records after a sequence number, and how many were lost before them. Never waits."""
        ...

    async def history(self, limit: int, before: str | None = None) -> list[TransactionRow]:
        """Recorded transactions, those that still run among them, newest first, older than the transaction `before`."""
        ...

    async def detail(self, transaction_id: str) -> TransactionDetail | None: ...

    def live_body(self, transaction_id: str, offset: int) -> tuple[bytes, bool] | None:
        """Response bytes of a running transaction from `offset` on, and whether it has ended; None once it is forgotten."""
        ...

    async def sessions(
        self,
        *,
        filter: str = "",  # noqa: A002 - its name everywhere
        tags: Sequence[str] = (),
        agent: str = "",
        status: str = "",
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionPage:
        """Sessions, those with the latest requests first, at most `limit` (1 to 200), running requests included.

        `filter` is in the filter language of sessions (`agent:codex cost>1 is:active`), `tags` are `name` or `name:value` and
        must all be there, `agent` is exact, `status` is `active`, `inactive`, `completed` or empty. A page may be shorter than
        `limit` although there is a `next`. Raises FilterError, ControlInvalid.
        """
        ...

    async def session(
        self, session_id: str, *, after: int | None = None, before: int | None = None, limit: int = 200
    ) -> SessionDetail | None:
        """One session with its turns in order, tool calls with results and durations, policy marks, and sub-sessions.

        Of its turns the last `limit` (1 to 1,000), of those before turn number `before` where it is given; with `after` the
        first `limit` after that number: what a reader that has the others asks for. A turn may change as long as it runs, and
        its tool uses until their results have come.
        """
        ...

    def story(self, session_id: str) -> AsyncIterator[Turn]:
        """Every turn of a session in order, with texts of up to a million characters: for exports."""
        ...

    async def session_tags(self) -> dict[str, dict[str, int]]:
        """Names of tags in use, with their values and how many of the latest 20,000 tagged requests have each."""
        ...

    async def agents(self) -> list[AgentInfo]:
        """Every agent of the journal, those with the latest requests first, at most 500."""
        ...

    async def agent(self, agent_id: str) -> AgentDetail | None: ...

    async def dashboard(self) -> Dashboard:
        """Today and the last hour in one look."""
        ...

    async def changes(self, limit: int, before: int | None = None) -> list[ChangeInfo]:
        """What was set otherwise, the newest first; older than the change with the number `before`."""
        ...

    def policies(self) -> list[PolicyInfo]:
        """Every policy of every chain, in order."""
        ...

    async def set_policy(
        self, name: str, *, mode: str | None = None, params: dict[str, Any] | None = None, who: str = "operator"
    ) -> PolicyInfo:
        """Change a policy: validated, recorded, then in force for every later request.

        Raises ControlNotFound, ControlInvalid.
        """
        ...

    def holds(self, *, decided: bool = False) -> list[HoldInfo]:
        """What waits for a decision, oldest first; with `decided` also the latest ones that were."""
        ...

    async def decide_hold(
        self, hold_id: str, *, decision: str, shown: str, edited: str | None = None, reason: str = "", who: str = "operator"
    ) -> HoldInfo:
        """`approve`, `edit` or `deny`. Raises ControlNotFound, ControlConflict (decided, or `shown` is stale), ControlInvalid."""
        ...

    async def extend_hold(self, hold_id: str, seconds: float, *, who: str = "operator") -> HoldInfo:
        """Give a hold more time. Raises ControlNotFound, ControlConflict."""
        ...

    def explain_route(self, *, path: str, model: str, prompt: str, tags: str = "", body: bytes | None = None) -> Explanation:
        """Where a request would go and why; nothing is sent. `body` is a whole request in place of the prompt. Raises
        ControlInvalid for a path of no API, and for a body that has no place for the model."""
        ...

    def routing(self) -> RoutingInfo:
        """The rules in force, what was decided lately, and how each upstream fares."""
        ...

    async def set_routing(self, params: dict[str, Any], *, local: bool | None = None, who: str = "operator") -> RoutingInfo:
        """Change rules by name, such as `cost.max_prompt_length_for_local`; None unsets one. Validated, recorded, then in
        force for every later request. `local` does what `force_local` does, in the same change. Raises ControlInvalid."""
        ...

    async def force_local(self, on: bool, *, who: str = "operator") -> RoutingInfo:
        """Keep every later request local, or let the rules decide again; recorded first."""
        ...

    async def set_upstream(self, name: str, state: str, *, who: str = "operator") -> RoutingInfo:
        """`drained`, `frozen` or `active` again; recorded first. Raises ControlNotFound, ControlInvalid."""
        ...

    async def what_if(self, params: dict[str, Any], *, limit: int = 1_000) -> WhatIf:
        """What changed rules would have made of the latest recorded transactions. Changes nothing. Raises ControlInvalid."""
        ...

    async def kill(self, transaction_id: str, *, who: str = "operator") -> bool:
        """End a running transaction: the client gets its dialect's error. False where it is not running."""
        ...
