"""Admits requests within their limits, and settles what they have used.

A request is admitted by all rules that hold for it or by none; one that is refused has used nothing up. One that goes to another
upstream is admitted there anew, in that upstream's limits and with its price. Rates are those of this gateway; budgets are those
of the store. However a transaction ends, its admission is settled once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from proxy_core.errors import AdmissionRefused, BudgetExhausted, ModelNotAllowed, RateLimited
from proxy_core.ids import new_ulid
from proxy_core.journal.client_keys import KeyLimits
from proxy_core.limits.accounts import NANO, Line, Refusal, ends_at, in_usd, periods_at
from proxy_core.limits.buckets import Bucket
from proxy_core.limits.estimate import FREE, Tokens, expected, seen
from proxy_core.limits.ledgers import Ledger
from proxy_core.limits.rate_headers import Rate, rate_headers
from proxy_core.limits.rules import Rule, rules_for
from proxy_core.routing.reasons import Reason
from proxy_core.routing.upstreams import Upstream
from proxy_core.sessions.prices import PriceBook
from proxy_core.settings import LimitsSettings
from proxy_core.tasks import spawn
from proxy_core.wire.conversation import Usage
from proxy_core.wire.dialects import READ_OPERATIONS, Dialect, Operation

RawHeaders = list[tuple[bytes, bytes]]
MAX_BUCKETS = 20_000
"""Beyond it, buckets that are full are forgotten: they are the same as new ones."""
SETTLE_WITHIN_S = 2.0
"""The last piece of an answer waits no longer for its budgets to be settled."""
What = Literal["requests", "tokens"]


class Asked(Struct):
    """What is told of a request before it is sent."""

    key: str
    own: KeyLimits | None
    """What the key was made with."""
    agent: str
    upstream: Upstream
    model: str
    """As the client calls it; empty where it cannot be read."""
    operation: Operation
    method: str
    body: bytes
    model_there: str = ""
    """As the upstream calls it, by which its price is known; empty where that is the same."""
    by_policy: bool = False
    """Whether a policy sends it on behalf of a client: then it is none of the client's requests a minute."""


class Used(Struct):
    """What is known of a transaction at its end."""

    outcome: str
    sent: bool
    """Whether anything went to an upstream."""
    tokens: int | None
    usd: float | None
    received_bytes: int
    stream: bool


class _Taken(Struct):
    """What was taken from one bucket."""

    what: What
    bucket: Bucket
    amount: float
    there: bool
    """Whether it is the upstream's bucket."""


class _Booking(Struct):
    """What was reserved in budgets."""

    name: str
    lines: tuple[Line, ...]
    reserved: bool
    price: Callable[[Tokens], float | None]


class Admission:
    """One request that was admitted, until it is settled."""

    __slots__ = ("_ledger", "_lines", "_name", "_price", "_reserved", "_taken", "at", "before", "costs", "rates", "settled")

    def __init__(self, ledger: Ledger, before: Tokens, *, costs: bool) -> None:
        self._ledger = ledger
        self.costs = costs
        """Whether it may cost anything."""
        self._taken: list[_Taken] = []
        self._name = ""
        self._lines: tuple[Line, ...] = ()
        self._reserved = False
        self._price: Callable[[Tokens], float | None] = _no_price
        self.before = before
        """What it may use at most."""
        self.at = ""
        """The upstream that it may go to; empty for none."""
        self.rates: list[Rate] = []
        self.settled = False

    def headers(self, present: RawHeaders) -> RawHeaders:
        """Headers that tell what is left, beside those that are present."""
        return rate_headers(self.rates, present)

    def take(self, at: str, taken: list[_Taken], booking: _Booking) -> None:
        """From now on it may go to this upstream."""
        self.at = at
        self._taken += taken
        self.rates = [Rate(one.what, one.bucket.capacity, one.bucket.level, one.bucket.full_in_s) for one in self._taken]
        self._name, self._lines, self._reserved, self._price = booking.name, booking.lines, booking.reserved, booking.price

    async def leave(self, *, attempted: bool) -> None:
        """It may go to no upstream now: what is reserved is free again, and what its upstream gave is given back, but for
        requests that were made. Goes on to its end if its caller is stopped."""
        for one in [one for one in self._taken if one.there]:
            self._taken.remove(one)
            if one.what == "tokens" or not attempted:
                one.bucket.settle(one.amount, 0)
        reserved, self._reserved = self._reserved, False
        self.at, self._lines = "", ()
        if reserved:
            work = self._ledger.settle(self._name, 0)
            await asyncio.wait([spawn(work, name="settle a budget")], timeout=SETTLE_WITHIN_S)

    async def give_back(self) -> None:
        """Others are asked in its place, each with an admission of its own: only the client's request stays counted."""
        if self.settled:
            return
        self.settled = True
        for one in self._taken:
            if one.what == "tokens" and not one.there:
                one.bucket.settle(one.amount, 0)
        await self.leave(attempted=False)

    async def settle(self, used: Used) -> None:
        """Put right what was taken and reserved; only the first call counts. Goes on to its end if its caller is stopped."""
        if self.settled:
            return
        self.settled = True
        guess = self._guess(used)
        broken_off = used.outcome in ("cancelled", "truncated")
        for bucket in [one.bucket for one in self._taken if one.what == "tokens"]:
            tokens = used.tokens or 0
            if used.tokens is None or broken_off:
                # A guess never takes more than there can be: nobody waits for hours because of one.
                tokens = max(tokens, min(guess.total, int(bucket.capacity)))
            bucket.settle(self.before.total, tokens)
        if not self._lines:
            return
        usd = used.usd or 0.0
        if used.usd is None or broken_off:
            usd = max(usd, self._price(guess) or 0.0)
        nano_usd = round(usd * NANO)
        if self._reserved:
            work = self._ledger.settle(self._name, nano_usd)
        elif nano_usd:
            work = self._ledger.charge(self._lines, nano_usd)
        else:
            return
        # A store that hangs keeps no client waiting; the task goes on.
        await asyncio.wait([spawn(work, name="settle a budget")], timeout=SETTLE_WITHIN_S)

    def _guess(self, used: Used) -> Tokens:
        """What the transaction has used, told by what came of its answer: for where the answer does not say so itself."""
        if not used.sent or used.outcome == "error":
            return _NOTHING
        if not used.received_bytes or used.outcome == "refused":
            return self.before
        return seen(self.before, used.received_bytes, stream=used.stream)


_NOTHING = Tokens(0, 0)


def _no_price(tokens: Tokens) -> float | None:
    return None


class Limiter:
    """The limits of one gateway."""

    def __init__(
        self,
        settings: LimitsSettings,
        *,
        ledger: Ledger,
        prices: PriceBook,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock` is monotonic, for rates; `wall` is Unix time, for days and months. Both in seconds."""
        self._ledger = ledger
        self._prices = prices
        self._clock = clock
        self._wall = wall
        self._buckets: dict[tuple[str, What], Bucket] = {}
        self._sweep_at = MAX_BUCKETS
        self.use(settings)

    def use(self, settings: LimitsSettings) -> None:
        """These limits hold from now on; what was used stays used."""
        self._settings = settings
        self.active = bool(settings.keys or settings.agents or settings.upstreams)
        """Whether the configuration limits anything."""

    async def admit(self, asked: Asked) -> Admission | None:
        """Let a request pass, and take what it may use; None where nothing limits it. Raises AdmissionRefused."""
        rules = self._rules(asked)
        if not rules:
            return None
        _check_models(rules, asked)
        costs = asked.method == "POST" and asked.operation not in FREE
        before = expected(asked.operation, asked.body, self._settings.assumed_output_tokens) if costs else _NOTHING
        admission = Admission(self._ledger, before, costs=costs)
        await self._take_all(admission, rules, rules, asked)
        return admission

    async def move(self, admission: Admission | None, asked: Asked, *, attempted: bool) -> Admission | None:
        """Let a request that was admitted to one upstream go to another, in its limits and with its price.

        `attempted` tells whether the other has had it. Raises AdmissionRefused: then it may go nowhere until it is moved again.
        """
        if admission is None:
            return await self.admit(asked)
        if not admission.settled and admission.at != asked.upstream.name:
            await admission.leave(attempted=attempted)
            rules = self._rules(asked)
            there = tuple(rule for rule in rules if rule.kind == "upstream")
            _check_models(there, asked)
            await self._take_all(admission, there, rules, asked)
        return admission

    def _rules(self, asked: Asked) -> tuple[Rule, ...]:
        return rules_for(self._settings, key=asked.key, own=asked.own, agent=asked.agent, upstream=asked.upstream.name)

    async def _take_all(self, admission: Admission, rates: tuple[Rule, ...], budgets: tuple[Rule, ...], asked: Asked) -> None:
        """Take from the buckets of some rules, reserve in the budgets of others, or do nothing and raise AdmissionRefused."""
        before = admission.before
        taken = self._take(rates, before, by_policy=asked.by_policy)
        booking = _Booking(new_ulid(int(self._wall() * 1e3)), (), False, self._pricing(asked))
        try:
            if admission.costs and any(rule.budgeted for rule in budgets):
                await self._reserve(booking, budgets, asked, before)
        except BaseException as error:
            for one in taken:
                one.bucket.settle(one.amount, 0)
            if not isinstance(error, AdmissionRefused):
                # It may have been reserved before the caller was stopped.
                spawn(self._ledger.settle(booking.name, 0), name="settle a budget")
            raise
        admission.take(asked.upstream.name, taken, booking)

    def _take(self, rules: tuple[Rule, ...], before: Tokens, *, by_policy: bool) -> list[_Taken]:
        """Take from all buckets, or from none and tell which one is empty."""
        now = self._clock()
        wanted: list[_Taken] = []
        for rule in rules:
            there = rule.kind == "upstream"
            limits: tuple[tuple[What, int | None, int | None, float], ...] = (
                ("requests", rule.rpm, rule.burst, 0.0 if by_policy and not there else 1.0),
                ("tokens", rule.tpm, None, float(before.total)),
            )
            for what, limit, at_once, amount in limits:
                if limit is None or not amount:
                    continue
                bucket = self._bucket(rule.scope, what, limit, at_once, now)
                wait_s = bucket.wait_s(amount)
                if wait_s > 0:
                    raise _rate_limited(rule, what, limit, bucket, wait_s)
                wanted.append(_Taken(what, bucket, amount, there))
        for one in wanted:
            one.bucket.take(one.amount)
        return wanted

    def _bucket(self, scope: str, what: What, limit: int, at_once: int | None, now: float) -> Bucket:
        bucket = self._buckets.get((scope, what))
        if bucket is None:
            if len(self._buckets) >= self._sweep_at:
                self._buckets = {place: one for place, one in self._buckets.items() if one.look(now) < one.capacity}
                # Where all are in use, looking through them for each new one would be the work of all for each.
                self._sweep_at = max(MAX_BUCKETS, 2 * len(self._buckets))
            bucket = self._buckets[scope, what] = Bucket.full(limit, now, at_once)
        bucket.look(now, limit, at_once)
        return bucket

    def _pricing(self, asked: Asked) -> Callable[[Tokens], float | None]:
        """The price of tokens in USD; None where it is not known. A model of one's own costs nothing."""
        upstream = asked.upstream
        unknown = 0.0 if upstream.api is Dialect.OLLAMA else None
        if asked.operation not in READ_OPERATIONS:
            return lambda tokens: unknown
        prices, model = self._prices, asked.model_there or asked.model

        def price(tokens: Tokens) -> float | None:
            usd = prices.cost_usd(upstream, model, Usage(input_tokens=tokens.input, output_tokens=tokens.output))
            return unknown if usd is None else usd

        return price

    async def _reserve(self, booking: _Booking, rules: tuple[Rule, ...], asked: Asked, before: Tokens) -> None:
        """Reserve the estimate in all budgets.

        What costs nothing needs no reservation: where it ends up costing something, that is counted at its end.
        """
        if not self._prices.ready:
            await self._prices.load()
        usd = booking.price(before)
        if usd is None and self._settings.unknown_price == "deny":
            model = f"the model '{asked.model[:100]}'" if asked.model else "this request"
            scopes = [rule.scope for rule in rules if rule.budgeted]
            raise BudgetExhausted(
                Reason.PRICE_UNKNOWN,
                f"a budget holds, and the price of {model} is not known; see 'limits.unknown_price'",
                scope=scopes[0] if len(scopes) == 1 else "",
            )
        # Of an unknown price the least is reserved: whatever becomes known of it at the end is counted then.
        estimate = max(1, round((usd or 0.0) * NANO))
        day, month = periods_at(self._wall())
        booking.lines = tuple(
            Line(rule.scope, period, limit, estimate)
            for rule in rules
            for period, limit in ((day, rule.day_nano_usd), (month, rule.month_nano_usd))
            if limit is not None
        )
        if usd == 0:
            return
        refusal = await self._ledger.reserve(booking.name, booking.lines)
        if refusal is not None:
            raise _exhausted(refusal)
        booking.reserved = True


def _check_models(rules: tuple[Rule, ...], asked: Asked) -> None:
    """Only requests that make something name a model; those that do must name one that is allowed."""
    if asked.method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        return
    for rule in rules:
        if not rule.allows(asked.model):
            what = f"the model '{asked.model[:100]}'" if asked.model else "a request without a model that can be read"
            raise ModelNotAllowed(
                Reason.MODEL_NOT_ALLOWED,
                f"{_who(rule.scope)} may not use {what}; allowed are: {', '.join(rule.models)}",
                scope=rule.scope,
            )


def _rate_limited(rule: Rule, what: What, limit: int, bucket: Bucket, wait_s: float) -> RateLimited:
    milliseconds = math.ceil(wait_s * 1e3)
    headers = [
        (b"retry-after", str(math.ceil(wait_s)).encode("ascii")),
        (b"retry-after-ms", str(milliseconds).encode("ascii")),
        *rate_headers([Rate(what, bucket.capacity, bucket.level, bucket.full_in_s)], []),
    ]
    message = f"{_who(rule.scope)} has reached its limit of {limit:,} {what} a minute; try again in {milliseconds / 1e3:g} s"
    return RateLimited(Reason.RATE_LIMITED, message, headers, scope=rule.scope)


def _exhausted(refusal: Refusal) -> BudgetExhausted:
    line = refusal.line
    span = "day" if len(line.period) > len("2026-01") else "month"
    left = (
        f"${refusal.spent / NANO:.6f} spent, ${refusal.reserved / NANO:.6f} reserved, "
        f"${line.estimate / NANO:.6f} needed at most for this request"
    )
    return BudgetExhausted(
        Reason.BUDGET_EXHAUSTED,
        f"{_who(line.scope)} has used up its budget of {in_usd(line.limit / NANO)} for the {span}: {left}; "
        f"the next {span} begins at {ends_at(line.period):%Y-%m-%dT%H:%M:%SZ}",
        scope=line.scope,
    )


def _who(scope: str) -> str:
    kind, _, name = scope.partition(":")
    return f"the {kind} '{name[:100]}'"
