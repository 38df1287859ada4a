"""What other rules would have made of recorded traffic: each recorded request is decided twice, and the two are compared.

Both decisions are made now, over the present upstreams, so that only the rules tell them apart. Requests are read from the
journal once, a few at a time, and off the loop; kept of them is what the rules must know, not their texts. A body whose secrets
were taken out may be a little shorter than it was.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from proxy_core.control.routing_infos import Moved, MovedExample, WhatIf
from proxy_core.errors import BadRequest
from proxy_core.journal.store import JournalStore, RecordedRequest
from proxy_core.routing.decision import Candidate, Decision, Question, RoutingRules, decide
from proxy_core.routing.explaining import endpoint_of
from proxy_core.routing.keywords import find_keyword
from proxy_core.routing.reasons import Reason
from proxy_core.routing.router import Router
from proxy_core.routing.upstreams import Upstream, Upstreams, speaks
from proxy_core.transaction_row import TransactionRow
from proxy_core.wire.conversation import Usage
from proxy_core.wire.dialects import READ_OPERATIONS, Dialect, Endpoint
from proxy_core.wire.glance import glance

MAX_TRANSACTIONS = 5_000
READ_AT_ONCE = 25
"""Requests that are in memory with their bodies at once."""
EXAMPLES = 20
_READ = frozenset(operation.value for operation in READ_OPERATIONS)

Way = tuple[tuple[str, ...], bool]
"""How keywords are looked for: the words, and whether as whole words. Requests that were read for one way serve it alone."""


class Prices(Protocol):
    def cost_usd(self, upstream: Upstream, model: str, usage: Usage) -> float | None: ...


class _Past(Struct, frozen=True):
    """A recorded request as the rules see it."""

    question: Question
    endpoint: Endpoint


class RouteWhatIf:
    """Decides recorded traffic anew. One question at a time."""

    def __init__(self, *, router: Router, upstreams: Upstreams, store: JournalStore, prices: Prices) -> None:
        self._router = router
        self._upstreams = upstreams
        self._store = store
        self._prices = prices
        self._asking = asyncio.Lock()
        self._read: dict[Way, dict[str, _Past | None]] = {}
        """None stands for a request that cannot be decided anew."""

    async def ask(self, before: RoutingRules, after: RoutingRules, limit: int) -> WhatIf:
        """Compare what two sets of rules make of the latest `limit` transactions."""
        async with self._asking:
            limit = max(1, min(limit, MAX_TRANSACTIONS))
            rows = [row for row in await self._store.rows(limit) if row.operation in _READ]
            ways = dict.fromkeys(((before.keywords, before.whole_words), (after.keywords, after.whole_words)))
            self._read = {way: self._read.get(way, {}) for way in ways}
            for way in ways:
                await self._look_up(rows, way)
            return await asyncio.to_thread(self._compare, rows, before, after)

    async def _look_up(self, rows: Sequence[TransactionRow], way: Way) -> None:
        """Read those that are not known yet, and forget those that nobody asks for any more."""
        known = self._read[way]
        self._read[way] = known = {row.transaction_id: known[row.transaction_id] for row in rows if row.transaction_id in known}
        unknown = [row for row in rows if row.transaction_id not in known]
        for start in range(0, len(unknown), READ_AT_ONCE):
            part = {row.transaction_id: row for row in unknown[start : start + READ_AT_ONCE]}
            requests = await self._store.requests(list(part))
            known.update(dict.fromkeys(part))
            known.update(await asyncio.to_thread(self._questions, requests, part, way))

    def _questions(
        self, requests: Sequence[RecordedRequest], rows: Mapping[str, TransactionRow], way: Way
    ) -> dict[str, _Past | None]:
        return {one.transaction_id: self._question(one, rows[one.transaction_id], way) for one in requests}

    def _question(self, request: RecordedRequest, row: TransactionRow, way: Way) -> _Past | None:
        if not request.body_kept:
            return None
        try:
            endpoint = endpoint_of(request.path, self._upstreams)
        except BadRequest:
            return None
        by_policy = row.reason.partition(",")[0] == Reason.BACKEND_SET and row.upstream in self._upstreams.by_name
        question = self._router.question(
            endpoint,
            headers=[(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in request.headers],
            body=request.body,
            model=glance(request.body).model,
            asked=(row.upstream, Reason.BACKEND_SET) if by_policy else None,
            read_text=True,
        )
        return _Past(_short(replace(question, upstreams=self._able(question.upstreams, endpoint, request.body)), way), endpoint)

    def _able(self, candidates: Sequence[Candidate], endpoint: Endpoint, body: bytes) -> tuple[Candidate, ...]:
        """The upstreams with what this very request allows: another dialect must be able to say it."""
        said: dict[Dialect, bool] = {}
        found: list[Candidate] = []
        for one in candidates:
            upstream = self._upstreams.by_name[one.name]
            if one.takes and not speaks(upstream.api, endpoint):
                if upstream.api not in said:
                    said[upstream.api] = self._router.translation(upstream, endpoint, body) is not None
                one = replace(one, takes=said[upstream.api])
            found.append(one)
        return tuple(found)

    # --- comparing ---

    def _compare(self, rows: Sequence[TransactionRow], before: RoutingRules, after: RoutingRules) -> WhatIf:
        first, second = self._read[before.keywords, before.whole_words], self._read[after.keywords, after.whole_words]
        moves: Counter[tuple[str, str]] = Counter()
        examples: list[MovedExample] = []
        total = unread = unknown = 0
        cost_before = cost_after = 0.0
        for row in rows:
            one, other = first[row.transaction_id], second[row.transaction_id]
            if one is None or other is None:
                unread += 1
                continue
            total += 1
            was, would = decide(one.question, before), decide(other.question, after)
            if was.upstream == would.upstream:
                continue
            moves[was.upstream, would.upstream] += 1
            costs = self._cost(row, was, one), self._cost(row, would, one)
            if costs[0] is None or costs[1] is None:
                unknown += 1
            else:
                cost_before += costs[0]
                cost_after += costs[1]
            if len(examples) < EXAMPLES:
                examples.append(
                    MovedExample(
                        transaction_id=row.transaction_id,
                        model=row.model,
                        from_upstream=was.upstream,
                        to_upstream=would.upstream,
                        reasons=tuple(would.reasons),
                    )
                )
        ordered = sorted(moves.items(), key=lambda one: (-one[1], one[0]))
        return WhatIf(
            total=total,
            unread=unread,
            moved=sum(moves.values()),
            moves=tuple(Moved(from_upstream=pair[0], to_upstream=pair[1], count=count) for pair, count in ordered),
            cost_before_usd=cost_before,
            cost_after_usd=cost_after,
            unknown_cost=unknown,
            examples=tuple(examples),
        )

    def _cost(self, row: TransactionRow, decision: Decision, past: _Past) -> float | None:
        """What the transaction's tokens cost at the upstream of a decision, in USD; None where nobody knows."""
        upstream = self._upstreams.by_name.get(decision.upstream)
        if upstream is None or upstream.local:
            return 0.0
        if row.upstream == upstream.name:
            return row.cost_usd
        usage = Usage(
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            cached_input_tokens=row.cached_tokens,
            reasoning_tokens=row.reasoning_tokens,
        )
        model = self._router.model_there(upstream, past.endpoint, past.question.model) or past.question.model
        return self._prices.cost_usd(upstream, model, usage)


def _short(question: Question, way: Way) -> Question:
    """The question without its texts: of them only the keyword that is there, so that the rules say the same."""
    keywords, whole_words = way
    if question.texts is None:
        return question
    found = find_keyword(question.texts, keywords, whole_words=whole_words) if keywords else None
    return replace(question, texts=() if found is None else (keywords[found],))
