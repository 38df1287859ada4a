"""The rules of routing in force: what operators change of them while traffic runs, and what becomes of it.

A change is validated, recorded, and only then put in force, by giving the router other rules in one step. A threshold that an
operator set lies over the configuration's, over restarts and other changes of it too, until the configuration says something
else of that very threshold; that everything is kept local, and that an upstream is drained or frozen, holds until an operator
takes it back. One change is made at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy.exc import SQLAlchemyError

from proxy_core.control.feed import Feed
from proxy_core.control.finishing import to_the_end
from proxy_core.control.overrides import in_words, moment
from proxy_core.control.plane import ControlInvalid, ControlNotFound
from proxy_core.control.route_params import changed, route_params, still_held, value_of
from proxy_core.control.route_stats import RouteStats
from proxy_core.control.route_what_if import Prices, RouteWhatIf
from proxy_core.control.routing_infos import RoutingInfo, UpstreamInfo, WhatIf
from proxy_core.errors import ConfigurationError, JournalUnavailable
from proxy_core.journal.control_reads import ROUTING, RecordedRouting
from proxy_core.journal.journal import Journal
from proxy_core.journal.records import ChangeSource, ControlChange
from proxy_core.routing.health import HealthView, OperatorState
from proxy_core.routing.pool import Pool
from proxy_core.routing.router import Router, rules_of, unknown_upstreams
from proxy_core.routing.upstreams import Upstreams
from proxy_core.settings import RoutingSettings, Settings
from proxy_core.transaction_row import TransactionRow

log = logging.getLogger(__name__)

RULES, FORCED, UPSTREAM = "routing", "force local", "upstream "
"""What a recorded change concerns; the name of the upstream follows."""
REMEMBERED = 10_000
"""Transactions of which the figures are taken up at the start, at most."""
HOUR_S = 3_600.0
_AT_ONCE = 200
RECORD_S = 5.0
"""A start does not wait longer for its own records."""


class _Set(Struct, frozen=True):
    """What an operator has set."""

    value: dict[str, Any]
    who: str
    at_ns: int


class RouteBook:
    """Knows the rules of a running gateway, and changes them. `clock` gives steady seconds, `clock_ns` Unix nanoseconds."""

    def __init__(
        self,
        settings: Settings,
        *,
        router: Router,
        upstreams: Upstreams,
        journal: Journal,
        feed: Feed,
        prices: Prices,
        pool: Pool,
        clock: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.stats = RouteStats(clock)
        self._configured = self._present = settings.routing
        self._router = router
        self._upstreams = upstreams
        self._journal = journal
        self._feed = feed
        self._pool = pool
        self._clock_ns = clock_ns
        self._began = clock_ns() / 1e9
        self._changing = asyncio.Lock()
        self._what_if = RouteWhatIf(router=router, upstreams=upstreams, store=journal.store, prices=prices)
        self._rules: _Set | None = None
        self._forced = False

    def info(self) -> RoutingInfo:
        """Routing as it is now."""
        rules = self._router.rules
        return RoutingInfo(
            rules=route_params(self._present, self._configured, tuple(self._upstreams.by_name)),
            keywords=len(rules.keywords),
            rules_digest=rules.digest,
            override="local" if self._forced else "",
            source="file" if self._rules is None else f"operator {self._rules.who} at {moment(self._rules.at_ns)}",
            reasons=self.stats.reasons(),
            upstreams=tuple(self._upstream(view) for view in self._pool.views()),
            recent=self.stats.recent(),
        )

    def _upstream(self, view: HealthView) -> UpstreamInfo:
        upstream, figures = self._upstreams.by_name[view.name], self.stats.of_upstream(view.name)
        return UpstreamInfo(
            name=view.name,
            api=upstream.api.value,
            base_url=upstream.base_url,
            local=upstream.local,
            state=view.operator,
            breaker=view.breaker,
            in_flight=view.in_flight,
            rps=figures.rps,
            p50_ms=figures.p50_ms,
            p99_ms=figures.p99_ms,
            error_rate=figures.error_rate,
            requests_1h=figures.requests,
            cost_usd_1h=figures.cost_usd,
            last_failure=view.last_failure,
            ready_in_s=view.ready_in_s,
            probe=view.probe,
            probed_s_ago=view.probed_s_ago,
        )

    async def what_if(self, params: Mapping[str, Any], limit: int) -> WhatIf:
        """What changed rules would have made of recorded transactions. Raises ControlInvalid."""
        rules = self._router.rules
        wanted = replace(rules_of(changed(self._present, params, self._names)), force_local=rules.force_local)
        return await self._what_if.ask(rules, wanted, limit)

    # --- changes ---

    async def set_rules(
        self, params: Mapping[str, Any], *, local: bool | None = None, who: str, source: str = "operator"
    ) -> RoutingInfo:
        """Change rules by name; None unsets one. `local` keeps everything local from now on, or no more, in the same change.

        Raises ControlInvalid, JournalUnavailable; then nothing has changed.
        """
        if not params and local is None:
            raise ControlInvalid("params", "give at least one rule to change")
        return await to_the_end(self._set(dict(params), local, who[:100], cast(ChangeSource, source)))

    async def force_local(self, on: bool, *, who: str, source: str = "operator") -> RoutingInfo:
        """Keep everything local from now on, or no more. Raises JournalUnavailable; then nothing has changed."""
        return await self.set_rules({}, local=on, who=who, source=source)

    async def set_upstream(self, name: str, state: str, *, who: str, source: str = "operator") -> RoutingInfo:
        """Drain or freeze an upstream, or take it back. Raises ControlNotFound, ControlInvalid, JournalUnavailable."""
        if name not in self._upstreams.by_name:
            raise ControlNotFound(f"there is no upstream '{name[:200]}'; there are: {', '.join(self._names)}")
        if state not in get_args(OperatorState):
            raise ControlInvalid("state", f"give one of {', '.join(get_args(OperatorState))}")
        return await to_the_end(self._set_upstream(name, cast(OperatorState, state), who[:100], cast(ChangeSource, source)))

    async def _set_upstream(self, name: str, state: OperatorState, who: str, source: ChangeSource) -> RoutingInfo:
        async with self._changing:
            present = next(view.operator for view in self._pool.views() if view.name == name)
            if state != present:
                before, after = {"state": present}, {"state": state}
                digest = self._router.rules.digest
                await self._record(f"{UPSTREAM}{name}", who, source, self._clock_ns(), before, after, after, digest)
                self._pool.set_state(name, state)
                self._tell(f"upstream {name}", who, before, after)
            return self.info()

    async def _set(self, params: dict[str, Any], local: bool | None, who: str, source: ChangeSource) -> RoutingInfo:
        async with self._changing:
            wanted = changed(self._present, params, self._names) if params else self._present
            forced = self._forced if local is None else local
            before = {name: value_of(self._present, name) for name in params}
            after = {name: value_of(wanted, name) for name in params}
            before, after = ({name: side[name] for name in params if before[name] != after[name]} for side in (before, after))
            what, rules, at_ns = FORCED, self._rules, self._clock_ns()
            override: dict[str, Any] = {"force_local": forced}
            if after:
                kept = (rules.value if rules is not None else {}) | after
                kept = {name: value for name, value in kept.items() if value != value_of(self._configured, name)}
                what, rules = RULES, _Set(kept, who, at_ns) if kept else None
                override |= _override(kept, self._configured)
            if forced != self._forced:
                before, after = before | {"force_local": self._forced}, after | {"force_local": forced}
            if after:
                digest = replace(rules_of(wanted), force_local=forced).digest
                await self._record(what, who, source, at_ns, before, after, override, digest)
                self._put_in_force(wanted, rules, forced)
                self._tell("routing", who, before, after)
            return self.info()

    async def restore(self) -> None:
        """Put in force what operators had set before the last end, as far as it still holds."""
        recorded = await self._journal.store.latest_routing_overrides()
        held = recorded.get(RULES)
        forced = forced_by(recorded)
        is_forced = forced is not None
        rules: _Set | None = None
        present = self._configured
        params = held.override.get("params") if held is not None else None
        if held is not None and isinstance(params, dict) and params:
            over = held.override.get("over")
            if not isinstance(over, dict):  # recorded before it was told of what lies below
                over = {name: value_of(self._configured, name) for name in params} if held.declared == self._declared() else {}
            present, kept = self._laid_over(self._configured, params, over)
            set_then = _Set(params, *set_by(held))
            rules = replace(set_then, value=kept) if kept else None
            if kept:
                log.info("routing is set by %s: %s", set_then.who, in_words({}, kept))
            if len(kept) < len(params):
                await self._end_overrides(set_then, kept, present, "luthien", "start", is_forced)
        if forced is not None:
            log.warning("every request is kept local, as %s said; nothing goes to a cloud until that is taken back", forced.who)
        self._put_in_force(present, rules, is_forced)
        for name in self._names:
            one = recorded.get(f"{UPSTREAM}{name}")
            state = one.override.get("state") if one is not None else None
            if one is not None and state in get_args(OperatorState) and state != "active":
                self._pool.set_state(name, cast(OperatorState, state))
                log.warning("upstream '%s' is %s, as %s said", name, state, one.who)

    @asynccontextmanager
    async def taking(self, settings: Settings, who: str) -> AsyncIterator[tuple[Callable[[], None], tuple[str, str]]]:
        """Give what puts the rules of another configuration in force, with what operators have set laid over them, and the
        digests of the rules before and after.

        No other change is made meanwhile. Raises ConfigurationError where a rule names an upstream that is not there now.
        """
        async with self._changing:
            wanted = settings.routing
            for place, name in unknown_upstreams(settings):
                if place[0] == "routing":
                    hint = "one that was added is there after the next start"
                    raise ConfigurationError(f"{'.'.join(place)}: no upstream that runs is called {name!r}; {hint}")
            before = self._rules
            params = before.value if before is not None else {}
            over = {name: value_of(self._configured, name) for name in params}
            present, kept = self._laid_over(wanted, params, over)
            rules = replace(before, value=kept) if before is not None and kept else None
            taken = False

            def put_in_force() -> None:
                nonlocal taken
                taken = True
                self._configured = wanted
                self._router.use(wanted)
                self._put_in_force(present, rules, self._forced)

            digests = self._router.rules.digest, replace(rules_of(present), force_local=self._forced).digest
            yield put_in_force, digests
            if taken and rules is not None:
                log.info("routing: what %s set lies over the configuration: %s", rules.who, in_words({}, kept))
            if taken and before is not None and len(kept) < len(params):
                await self._end_overrides(before, kept, present, who, "file", self._forced)

    async def remember(self) -> None:
        """Take up the figures of the hour before this gateway began, as far as a bounded look into the journal tells them."""
        began, before, found = self._began, None, list[tuple[float, TransactionRow]]()
        try:
            while len(found) < REMEMBERED:
                rows = await self._journal.store.rows(_AT_ONCE, before)
                # What ends from now on is counted as it ends.
                ended = [(began - row.started_at - (row.total_ms or 0.0) / 1e3, row) for row in rows if row.outcome]
                found += [(age_s, row) for age_s, row in ended if 0 < age_s < HOUR_S]
                if len(rows) < _AT_ONCE or began - rows[-1].started_at > HOUR_S:
                    break
                before = rows[-1].transaction_id
        except (SQLAlchemyError, OSError) as error:
            log.warning("the figures of routing begin anew: %s", str(error).splitlines()[0])
        self.stats.recall(sorted(found, key=lambda one: -one[0]))

    # --- parts ---

    def _laid_over(
        self, configured: RoutingSettings, params: Mapping[str, Any], over: Mapping[str, Any]
    ) -> tuple[RoutingSettings, dict[str, Any]]:
        """The configuration with what operators have set, as far as it says of that what it said then; and what that is."""
        kept = still_held(configured, params, over)
        while True:
            try:
                return changed(configured, kept, self._names), kept
            except ControlInvalid as fault:
                name = fault.field.removeprefix("params.")
                log.warning("routing: %s is not what an operator set: %s", name, fault.message)
                kept = {one: value for one, value in kept.items() if one != name} if name in kept else {}

    async def _end_overrides(
        self,
        before: _Set,
        kept: dict[str, Any],
        present: RoutingSettings,
        who: str,
        source: ChangeSource,
        forced: bool,
    ) -> None:
        """Say and record that the configuration holds again where an operator had set something."""
        ended = {name: value for name, value in before.value.items() if name not in kept}
        now = {name: value_of(present, name) for name in ended}
        log.warning("routing: the configuration holds, not what %s set: %s", before.who, in_words(ended, now))
        digest = replace(rules_of(present), force_local=forced).digest
        override = {"force_local": forced, "set_by": before.who, "set_at_ns": before.at_ns} | _override(kept, self._configured)
        try:
            told = self._record(RULES, who, source, self._clock_ns(), ended, now, override, digest)
            await asyncio.wait_for(told, RECORD_S)
        except (JournalUnavailable, TimeoutError) as fault:
            log.warning("this is not in the journal: %s", fault)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(self._upstreams.by_name)

    def _declared(self) -> str:
        """What identifies the configuration's own rules; it tells nothing of the keywords."""
        return ROUTING + self._journal.digest(msgspec.json.encode(rules_of(self._configured), order="deterministic")).hex()

    def _put_in_force(self, present: RoutingSettings, rules: _Set | None, forced: bool) -> None:
        self._present, self._rules, self._forced = present, rules, forced
        self._router.take(replace(rules_of(present), force_local=forced))

    async def _record(
        self,
        what: str,
        who: str,
        source: ChangeSource,
        at_ns: int,
        before: dict[str, Any],
        after: dict[str, Any],
        override: dict[str, Any],
        digest_after: str,
    ) -> None:
        await self._journal.append(
            ControlChange(
                at_ns=at_ns,
                who=who,
                source=source,
                what=what,
                before=before,
                after=after,
                digest_before=self._router.rules.digest,
                digest_after=digest_after,
                override=override,
                declared=self._declared(),
            )
        )

    def _tell(self, what: str, who: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        words = in_words(before, after)
        log.info("%s set by %s: %s", what, who, words)
        self._feed.publish("control_changed", None, f"{what} set by {who}: {words}"[:500])


def _override(kept: dict[str, Any], configured: RoutingSettings) -> dict[str, Any]:
    """What is recorded of what operators have set: the values, and what the configuration says below each."""
    return {"params": kept, "over": {name: value_of(configured, name) for name in kept}}


def set_by(recorded: RecordedRouting) -> tuple[str, int]:
    """Who set the rules that are recorded, and when, in Unix nanoseconds."""
    return str(recorded.override.get("set_by", recorded.who)), int(recorded.override.get("set_at_ns", recorded.at_ns))


def forced_by(recorded: Mapping[str, RecordedRouting]) -> RecordedRouting | None:
    """The latest word on what stays local, where it is that everything does."""
    said = [one for one in map(recorded.get, (RULES, FORCED)) if one is not None and "force_local" in one.override]
    latest = max(said, key=lambda one: one.at_ns, default=None)
    return latest if latest is not None and latest.override["force_local"] is True else None
