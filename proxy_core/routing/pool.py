"""Several upstreams that stand in for each other: which takes a request, and whether it has room.

Members are ordered by priority, then by session (rendezvous hashing over weights, so a session stays with one and only its own
sessions move when one goes); those of another API come after all of its own. Those that do badly come last, but where nobody
else is left they are tried all the same. What a path, a policy or a tag names goes there or nowhere. Room is given in the order
in which it was asked for.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Container, Iterator
from hashlib import blake2b

from msgspec import Struct

from proxy_core.errors import UpstreamBusy, UpstreamFrozen
from proxy_core.routing.health import BreakerRules, Health, HealthView, OperatorState
from proxy_core.routing.reasons import Reason
from proxy_core.routing.upstreams import Choice, Upstream, Upstreams, speaks
from proxy_core.settings import BreakerSettings, RoutingSettings
from proxy_core.wire.dialects import Dialect, Endpoint

Chance = Callable[[], float]
May = Callable[[Upstream], bool]

MOVES = frozenset(
    {
        Reason.DEFAULT,
        Reason.EXPLICIT_MODEL,
        Reason.COST_PREFER_LOCAL,
        Reason.SENSITIVE_KEYWORD_MATCH,
        Reason.CONTENT_UNREADABLE,
        Reason.OPERATOR_OVERRIDE,
    }
)
"""Reasons with which another upstream may take the place of the chosen one. A path, a policy or a tag names just that one."""
_MAX_REASONS = 64
"""Characters that the journal has for reason codes."""


class _Key(Struct):
    secret: str
    rests_until: float = 0.0


class Seat:
    """One request's room at an upstream, until `leave`."""

    __slots__ = ("_left", "_member", "_trying", "health", "key")

    def __init__(self, member: Member) -> None:
        self._member = member
        self._left = False
        self.health = member.health
        self._trying = member.health.begin()
        self.key = member.only_key or member.key()
        """The configured key to send; None where there is none."""

    def key_refused(self, rest_s: float) -> bool:
        """Do not use this key for a while. Returns whether there is another that may be used now."""
        return self.key is not None and self._member.rest_key(self.key, rest_s)

    @property
    def has_fresh_key(self) -> bool:
        """Whether a key may be used now that has not just been refused."""
        return self._member.has_fresh_key

    def leave(self) -> None:
        """The request is over; only the first call counts."""
        if not self._left:
            self._left = True
            self.health.end(trying=self._trying)
            if self._member.waiting:
                self._member.call_next()


class Member:
    """One upstream with its health, keys and room."""

    def __init__(self, upstream: Upstream, rules: BreakerRules, *, clock: Callable[[], float], chance: Chance) -> None:
        self.upstream = upstream
        self.health = Health(upstream.name, rules, clock=clock, chance=chance)
        self._clock = clock
        self._keys = [_Key(secret) for secret in upstream.keys]
        self.only_key = upstream.api_key if len(self._keys) == 1 else None
        self._limit = upstream.max_concurrency
        self.waiting: deque[asyncio.Future[None]] = deque()
        """Requests in the queue."""

    @property
    def has_room(self) -> bool:
        return self._limit is None or self.health.in_flight < self._limit

    def seat(self) -> Seat | None:
        """Room for one request, if there is any at once. Raises UpstreamFrozen."""
        if self.health.operator == "frozen":
            raise UpstreamFrozen(Reason.OPERATOR_OVERRIDE, f"an operator has frozen upstream '{self.upstream.name}'")
        if self._limit is not None and (self.waiting or self.health.in_flight >= self._limit):
            return None
        return Seat(self)

    def beside(self, other: Seat | None) -> Seat | None:
        """Room for a request of who has room here already: waiting for more would be waiting for oneself."""
        if other is None or other.health is not self.health or self.health.operator == "frozen":
            return None
        return Seat(self)

    async def wait(self) -> Seat:
        """Room for one request, waited for. Raises UpstreamBusy, UpstreamFrozen."""
        await self._wait()
        try:
            return self.seat() or Seat(self)
        except UpstreamFrozen:
            self.call_next()
            raise

    async def _wait(self) -> None:
        name, limit = self.upstream.name, self._limit
        if len(self.waiting) >= self.upstream.queue:
            raise _busy(f"upstream '{name}' is busy with {limit} requests, and {len(self.waiting)} wait")
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            async with asyncio.timeout(self.upstream.queue_timeout_s):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():
                # Room was kept for this one in the moment in which it was stopped: the next one has it.
                self.health.in_flight -= 1
                self.call_next()
            elif turn in self.waiting:
                self.waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise _busy(f"upstream '{name}' had no room within {self.upstream.queue_timeout_s:g} s") from error
            raise
        # The room that was kept for it is taken by its seat.
        self.health.in_flight -= 1

    def call_next(self) -> None:
        """Let in who waits, as far as there is room."""
        while self.waiting and self.has_room:
            turn = self.waiting.popleft()
            if not turn.done():
                self.health.in_flight += 1
                turn.set_result(None)

    def key(self) -> str | None:
        """The first key that does not rest, or the one that rests the shortest; None where there is none."""
        if not self._keys:
            return None
        now = self._clock()
        return next((one for one in self._keys if one.rests_until <= now), min(self._keys, key=_rests_until)).secret

    def rest_key(self, secret: str, seconds: float) -> bool:
        now = self._clock()
        for one in self._keys:
            if one.secret == secret:
                one.rests_until = max(one.rests_until, now + seconds)
        return self.has_fresh_key

    @property
    def has_fresh_key(self) -> bool:
        now = self._clock()
        return any(one.rests_until <= now for one in self._keys)


def _rests_until(key: _Key) -> float:
    return key.rests_until


def _busy(message: str) -> UpstreamBusy:
    return UpstreamBusy(Reason.UPSTREAM_BUSY, message, [(b"retry-after", b"1")])


class Pool:
    """All upstreams of a gateway, and who stands in for whom."""

    def __init__(
        self, upstreams: Upstreams, routing: RoutingSettings, *, clock: Callable[[], float], chance: Chance = random.random
    ) -> None:
        rules = _rules(routing.breaker)
        self._upstreams = upstreams
        self._chance = chance
        self.members = {name: Member(upstream, rules, clock=clock, chance=chance) for name, upstream in upstreams.by_name.items()}
        self.pooled = any(one.priority is not None or one.stands_in_for for one in upstreams.by_name.values())
        """Whether any upstream stands in for another; else each request goes where it is routed."""
        self.turns = self.pooled or any(len(upstream.keys) > 1 for upstream in upstreams.by_name.values())
        """Whether a request that failed may go elsewhere, or with another key."""
        self._order: dict[tuple[Dialect, Dialect], tuple[Member, ...]] = {}
        self._foreign: dict[tuple[Dialect, Dialect], tuple[Member, ...]] = {}

    def use(self, settings: BreakerSettings) -> None:
        """Let breakers go by these settings from now on."""
        for one in self.members.values():
            one.health.use(_rules(settings))

    def set_state(self, name: str, state: OperatorState) -> None:
        """Drain or freeze an upstream, or take it back. Raises KeyError."""
        self.members[name].health.set_state(state)

    def views(self) -> list[HealthView]:
        """All upstreams, in the order of the configuration."""
        return [member.health.view() for member in self.members.values()]

    def pick(self, choice: Choice, endpoint: Endpoint, session_id: str, may: May) -> Choice:
        """The upstream that takes a request which the rules send to `choice`; `may` tells where it may go as well."""
        ranked: list[Member] = []
        best: Member | None = None
        for one in self._ranked(choice.upstream, choice.reason, endpoint, session_id, may):
            ranked.append(one)
            if _willing(one) and one.health.ready and one.has_room:
                best = one
                break
        if not ranked:
            return choice
        if best is None:
            willing = [one for one in ranked if _willing(one)]
            best = next((one for one in willing if one.health.ready), willing[0] if willing else ranked[0])
        if best is ranked[0]:
            return Choice(best.upstream, choice.reason)
        first = ranked[0].health
        why = Reason.OPERATOR_OVERRIDE if first.operator != "active" else Reason.UPSTREAM_UNHEALTHY
        if first.operator == "active" and first.ready:
            why = Reason.UPSTREAM_BUSY
        return Choice(best.upstream, with_reason(choice.reason, why))

    def another(self, tried: Container[str], choice: Choice, endpoint: Endpoint, session_id: str, may: May) -> Upstream | None:
        """One that has not been tried yet and is ready to take the request; None where there is none."""
        for one in self._ranked(choice.upstream, choice.reason, endpoint, session_id, may):
            if one.upstream.name not in tried and _willing(one) and one.health.ready and one.has_room:
                return one.upstream
        return None

    def _ranked(self, chosen: Upstream, reason: str, endpoint: Endpoint, session_id: str, may: May) -> Iterator[Member]:
        """Those that may take the request, best first; none where nobody stands in for the chosen one."""
        first = reason.partition(",")[0]
        mine = self.members[chosen.name]
        if not self.pooled or first not in MOVES:
            return
        members, foreign = self._members(endpoint), self._stand_ins(endpoint)
        groups: tuple[tuple[Member, ...], ...]
        if mine in members:
            groups = (members, foreign)
        elif mine in foreign:
            groups = ((mine,), tuple(one for one in foreign if one.upstream.api is chosen.api), members, foreign)
        else:
            return
        seen: set[str] = set()
        for group in groups:
            ordered = self._by_session(group, session_id)
            if first != Reason.DEFAULT and mine in group:
                ordered.sort(key=lambda one: one is not mine)
            for one in ordered:
                if one.upstream.name not in seen and (one is mine or may(one.upstream)):
                    yield one
                seen.add(one.upstream.name)

    def _members(self, endpoint: Endpoint) -> tuple[Member, ...]:
        """Those that stand in for each other and take the request as it is."""
        known = self._order.get((endpoint.api, endpoint.dialect))
        if known is None:
            usual = self._upstreams.usual(endpoint.api)
            known = tuple(
                one
                for one in self.members.values()
                if speaks(one.upstream.api, endpoint) and (one.upstream.priority is not None or one.upstream is usual)
            )
            self._order[endpoint.api, endpoint.dialect] = known
        return known

    def _stand_ins(self, endpoint: Endpoint) -> tuple[Member, ...]:
        """Those of other APIs that take what none of these can."""
        known = self._foreign.get((endpoint.api, endpoint.dialect))
        if known is None:
            members = self._members(endpoint)
            known = tuple(
                one for one in self.members.values() if endpoint.api in one.upstream.stands_in_for and one not in members
            )
            self._foreign[endpoint.api, endpoint.dialect] = known
        return known

    def _by_session(self, members: tuple[Member, ...], session_id: str) -> list[Member]:
        seed = session_id or f"{self._chance()}"
        return sorted(members, key=lambda one: (one.upstream.priority or 0, _score(seed, one.upstream)))


def _rules(one: BreakerSettings) -> BreakerRules:
    return BreakerRules(one.failures, one.rate, one.min_requests, one.window_s, one.pause_s, one.max_pause_s)


def _willing(member: Member) -> bool:
    return member.health.operator == "active"


def _score(seed: str, upstream: Upstream) -> float:
    """Lowest wins; each upstream wins its share of the seeds by weight (weighted rendezvous hashing)."""
    digest = blake2b(f"{seed}\n{upstream.name}".encode("utf-8", "replace"), digest_size=8).digest()
    return -math.log((int.from_bytes(digest, "big") + 1) / (1 << 64)) / upstream.weight


def with_reason(reasons: str, code: Reason) -> str:
    """Codes with one more behind them, within what the journal takes: the first and the last stay."""
    if code in reasons.split(","):
        return reasons
    longer = f"{reasons},{code}" if reasons else str(code)
    if len(longer) > _MAX_REASONS:
        longer = f"{reasons.partition(',')[0]},{code}"
    return longer if len(longer) <= _MAX_REASONS else str(code)
