"""The control plane of a gateway in this process: calls objects, copies nothing that is large."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from proxy_core.control.agent_book import AgentBook
from proxy_core.control.change_infos import ChangeInfo
from proxy_core.control.feed import Feed, FeedRecord
from proxy_core.control.plane import (
    ControlInvalid,
    ControlNotFound,
    GatewayState,
    Headers,
    HoldInfo,
    PolicyInfo,
    Timing,
    TransactionDetail,
)
from proxy_core.control.routing_infos import RoutingInfo, WhatIf
from proxy_core.control.session_book import SessionBook
from proxy_core.control.session_infos import (
    AgentDetail,
    AgentInfo,
    Dashboard,
    SessionCounts,
    SessionDetail,
    SessionPage,
    Turn,
)
from proxy_core.detectors.secrets import redact_formats, redact_headers, redact_known
from proxy_core.errors import BadRequest
from proxy_core.gateway import Gateway
from proxy_core.journal.journal import Journal
from proxy_core.journal.session_reads import SessionReads
from proxy_core.journal.store import Stored
from proxy_core.routing.explaining import Explanation, endpoint_of, explain, request_of
from proxy_core.routing.router import Router
from proxy_core.routing.upstreams import Upstreams
from proxy_core.running import Running
from proxy_core.transaction_row import TransactionRow
from proxy_core.wire.editing import UnreadableBody, set_field
from proxy_core.wire.encodings import UnreadableEncoding, decoded

_TIMES = ("received", "recorded", "connected", "responded", "first_token", "last_byte", "finished")


class PolicySource(Protocol):
    """Who knows the policies in force and can change them."""

    def infos(self) -> list[PolicyInfo]: ...

    async def set_policy(
        self, name: str, *, mode: str | None, params: dict[str, Any] | None, who: str, source: str
    ) -> PolicyInfo: ...


class HoldSource(Protocol):
    """Who knows what waits for a person."""

    def pending(self) -> list[HoldInfo]: ...

    def recent(self) -> list[HoldInfo]: ...

    def decide(self, hold_id: str, *, decision: str, shown: str, edited: str | None, reason: str, who: str) -> HoldInfo: ...

    def extend(self, hold_id: str, seconds: float, *, who: str) -> HoldInfo: ...

    async def recorded(self, hold_id: str) -> None:
        """Wait until what was last done with the hold is durable."""
        ...


class RouteSource(Protocol):
    """Who knows the rules of routing and can change them."""

    def info(self) -> RoutingInfo: ...

    async def set_rules(self, params: Mapping[str, Any], *, local: bool | None = None, who: str) -> RoutingInfo: ...

    async def force_local(self, on: bool, *, who: str) -> RoutingInfo: ...

    async def set_upstream(self, name: str, state: str, *, who: str) -> RoutingInfo: ...

    async def what_if(self, params: Mapping[str, Any], limit: int) -> WhatIf: ...


class LocalControlPlane:
    """ControlPlane over the parts of a running gateway. `kill` takes a transaction's id and who asks."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        journal: Journal,
        feed: Feed,
        state: Callable[[], GatewayState],
        router: Router,
        upstreams: Upstreams,
        routes: RouteSource,
        policies: PolicySource | None = None,
        holds: HoldSource | None = None,
        kill: Callable[[str, str], bool] | None = None,
        session_ttl_s: float = 3_600.0,
        session_counts: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._gateway = gateway
        self._journal = journal
        self._feed = feed
        self._state = state
        self._router = router
        self._upstreams = upstreams
        self._routes = routes
        self._policies = policies
        self._holds = holds
        self._kill = kill
        self._session_counts = session_counts
        reads = SessionReads(journal.engine)
        self._sessions = SessionBook(reads, running=gateway.running, feed=feed, ttl_s=session_ttl_s)
        self._agents = AgentBook(reads, sessions=self._sessions, running=gateway.running)

    def state(self) -> GatewayState:
        return self._state()

    def events(self, after: int, limit: int = 2_000) -> tuple[list[FeedRecord], int]:
        return self._feed.since(after, limit)

    async def history(self, limit: int, before: str | None = None) -> list[TransactionRow]:
        moment = self._sessions.moment()
        rows = await self._journal.store.rows(limit, before)
        known = {row.transaction_id: row for row in self._sessions.ended_since(moment)}
        known |= {name: one.row for name, one in self._gateway.running.items()}
        return [known.get(row.transaction_id, row) for row in rows]

    async def detail(self, transaction_id: str) -> TransactionDetail | None:
        running = self._gateway.running.get(transaction_id)
        if running is not None:
            return _of_running(running)
        stored = await self._journal.store.detail(transaction_id)
        return None if stored is None else of_stored(stored)

    def live_body(self, transaction_id: str, offset: int) -> tuple[bytes, bool] | None:
        running = self._gateway.running.get(transaction_id)
        if running is None:
            return None
        return bytes(memoryview(running.response)[offset:]), running.leaving

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
        page = await self._sessions.sessions(expression=filter, tags=tags, agent=agent, status=status, limit=limit, cursor=cursor)
        return replace(page, counts=self._counts())

    async def session(
        self, session_id: str, *, after: int | None = None, before: int | None = None, limit: int = 200
    ) -> SessionDetail | None:
        return await self._sessions.session(session_id, after=after, before=before, limit=limit)

    def story(self, session_id: str) -> AsyncIterator[Turn]:
        return self._sessions.story(session_id)

    async def session_tags(self) -> dict[str, dict[str, int]]:
        return await self._sessions.used_tags()

    async def agents(self) -> list[AgentInfo]:
        return await self._agents.agents()

    async def agent(self, agent_id: str) -> AgentDetail | None:
        return await self._agents.agent(agent_id)

    async def dashboard(self) -> Dashboard:
        return replace(await self._agents.dashboard(), session_counts=self._counts())

    def _counts(self) -> SessionCounts:
        return msgspec.convert(self._session_counts(), SessionCounts)

    async def changes(self, limit: int, before: int | None = None) -> list[ChangeInfo]:
        return [
            ChangeInfo(
                sequence=one.sequence,
                at=one.at_ns / 1e9,
                who=one.who,
                source=one.source,
                what=one.what,
                before=one.before,
                after=one.after,
                digest_before=one.digest_before,
                digest_after=one.digest_after,
            )
            for one in await self._journal.store.control_changes(limit, before)
        ]

    def policies(self) -> list[PolicyInfo]:
        return self._policies.infos() if self._policies is not None else []

    async def set_policy(
        self, name: str, *, mode: str | None = None, params: dict[str, Any] | None = None, who: str = "operator"
    ) -> PolicyInfo:
        if self._policies is None:
            raise ControlNotFound(f"there is no policy '{name}': none is configured")
        return await self._policies.set_policy(name, mode=mode, params=params, who=who, source="operator")

    def holds(self, *, decided: bool = False) -> list[HoldInfo]:
        if self._holds is None:
            return []
        return self._holds.pending() + (self._holds.recent() if decided else [])

    async def decide_hold(
        self, hold_id: str, *, decision: str, shown: str, edited: str | None = None, reason: str = "", who: str = "operator"
    ) -> HoldInfo:
        held = self._held(hold_id)
        decided = held.decide(hold_id, decision=decision, shown=shown, edited=edited, reason=reason, who=who)
        await held.recorded(hold_id)
        return decided

    async def extend_hold(self, hold_id: str, seconds: float, *, who: str = "operator") -> HoldInfo:
        held = self._held(hold_id)
        extended = held.extend(hold_id, seconds, who=who)
        await held.recorded(hold_id)
        return extended

    def explain_route(self, *, path: str, model: str, prompt: str, tags: str = "", body: bytes | None = None) -> Explanation:
        try:
            if body is None:
                body = request_of(endpoint_of(path, self._upstreams), model, prompt)
            elif model:
                body = set_field(body, "model", model)
            return explain(self._router, self._upstreams, path=path, body=body, tags=tags)
        except BadRequest as error:
            raise ControlInvalid("path", str(error)) from error
        except UnreadableBody as error:
            raise ControlInvalid("model", f"the request has no place for it: {error}") from error

    def routing(self) -> RoutingInfo:
        return self._routes.info()

    async def set_routing(self, params: dict[str, Any], *, local: bool | None = None, who: str = "operator") -> RoutingInfo:
        return await self._routes.set_rules(params, local=local, who=who)

    async def force_local(self, on: bool, *, who: str = "operator") -> RoutingInfo:
        return await self._routes.force_local(on, who=who)

    async def set_upstream(self, name: str, state: str, *, who: str = "operator") -> RoutingInfo:
        return await self._routes.set_upstream(name, state, who=who)

    async def what_if(self, params: dict[str, Any], *, limit: int = 1_000) -> WhatIf:
        return await self._routes.what_if(params, limit)

    async def kill(self, transaction_id: str, *, who: str = "operator") -> bool:
        return self._kill is not None and self._kill(transaction_id, who)

    def _held(self, hold_id: str) -> HoldSource:
        if self._holds is None:
            raise ControlNotFound(f"there is no hold '{hold_id}'")
        return self._holds


def _of_running(running: Running) -> TransactionDetail:
    control = running.control
    sent = running.sent_body if running.sent_body and running.sent_body != running.body else None
    return TransactionDetail(
        row=running.row,
        request_headers=_shown(running.headers, running.secrets),
        request_body=redact_formats(redact_known(running.body, running.secrets)),
        response_headers=_shown(running.response_headers, running.secrets),
        response_body=redact_formats(redact_known(bytes(running.response), running.secrets)),
        timing=_timing(running.timing),
        verdicts=tuple(control.context.verdicts) if control is not None else (),
        policy_digest=control.digest if control is not None else "",
        address=running.address,
        sent_body=None if sent is None else redact_formats(redact_known(sent, running.secrets)),
    )


def of_stored(stored: Stored) -> TransactionDetail:
    """What the journal has of a transaction, as front ends see it."""
    note = ""
    if not stored.bodies_kept:
        note = "bodies are not kept: journal.capture is 'metadata'"
    elif stored.response_bytes > len(stored.response_body) and not stored.redacted:
        note = f"the first {len(stored.response_body):,} of {stored.response_bytes:,} bytes are kept"
    return TransactionDetail(
        row=stored.row,
        request_headers=stored.request_headers,
        request_body=stored.request_body,
        response_headers=stored.response_headers,
        response_body=_readable(stored.response_body, dict(stored.response_headers).get("content-encoding", "")),
        timing=_timing(stored.timing),
        redacted=stored.redacted,
        capture_note=note,
        verdicts=stored.verdicts,
        policy_digest=stored.policy_digest,
        address=stored.address,
        sent_body=stored.sent_body,
        upstream_body=stored.upstream_body,
    )


def _readable(body: bytes, encoding: str) -> bytes:
    """The body without its content encoding; as it is where that cannot be undone."""
    if not encoding or not body:
        return body
    try:
        return decoded(body, encoding)
    except UnreadableEncoding:
        return body


def _shown(headers: list[tuple[bytes, bytes]], secrets: tuple[bytes, ...]) -> Headers:
    return tuple(redact_headers(headers, secrets))


def _timing(points: Mapping[str, float | None]) -> Timing:
    return Timing(**{name: points.get(name) for name in _TIMES})
