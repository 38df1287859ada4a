"""What requests come to, as SQL: the sums that make `Totals`, over transactions and their newest outcomes.

`running` counts the requests without an outcome; whether they still run, the store cannot know.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select

from proxy_core.journal.listing import latest_outcome
from proxy_core.journal.schema import outcomes, transactions
from proxy_core.totals import Totals

FAILED = ("refused", "error", "truncated", "lost")
DAY_NS = 86_400_000_000_000
MINUTE_NS = 60_000_000_000
_UNPRICED_OPERATIONS = ("models", "count_tokens", "other")


def count_if(condition: ColumnElement[bool]) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _sum(column: ColumnElement[Any]) -> Any:
    return func.coalesce(func.sum(column), 0)


MODEL: ColumnElement[Any] = case((transactions.c.model != "", transactions.c.model), else_=func.coalesce(outcomes.c.model, ""))
"""As the client named it, else as the upstream did."""
UPSTREAM: ColumnElement[Any] = case(
    (func.coalesce(outcomes.c.upstream, "") != "", outcomes.c.upstream), else_=transactions.c.upstream
)
"""Where the request went at last."""
UNPRICED = and_(
    outcomes.c.cost_usd.is_(None),
    or_(outcomes.c.input_tokens.is_not(None), outcomes.c.output_tokens.is_not(None)),
    transactions.c.operation.not_in(_UNPRICED_OPERATIONS),
)
"""Whether a request used tokens for which nobody knows a price."""
SUMS = (
    func.count().label("requests"),
    count_if(outcomes.c.seq.is_(None)).label("running"),
    _sum(outcomes.c.input_tokens).label("input_tokens"),
    _sum(outcomes.c.output_tokens).label("output_tokens"),
    _sum(outcomes.c.cached_tokens).label("cached_tokens"),
    _sum(outcomes.c.cache_write_tokens).label("cache_write_tokens"),
    _sum(outcomes.c.reasoning_tokens).label("reasoning_tokens"),
    _sum(outcomes.c.estimated).label("estimated"),
    func.sum(outcomes.c.cost_usd).label("cost_usd"),
    count_if(UNPRICED).label("unpriced"),
    _sum(outcomes.c.tool_calls).label("tool_calls"),
    count_if(outcomes.c.outcome.in_(FAILED)).label("errors"),
    count_if(outcomes.c.outcome == "cancelled").label("cancelled"),
    count_if(outcomes.c.verdict == "flag").label("flagged"),
    count_if(outcomes.c.verdict == "modify").label("modified"),
    count_if(outcomes.c.verdict == "hold").label("held"),
    count_if(outcomes.c.verdict == "deny").label("denied"),
)
"""One column for each field of `Totals`, of the same name."""


def totals_of(one: Any) -> Totals:
    """A row with the columns of `SUMS`."""
    cost = None if one.cost_usd is None else float(one.cost_usd)
    counts = {name: int(getattr(one, name)) for name in Totals.__struct_fields__ if name != "cost_usd"}
    return Totals(cost_usd=cost, **counts)


def joined(*columns: Any) -> Select[Any]:
    """A query of these columns over every transaction with its newest outcome, if it has one."""
    return select(*columns).select_from(transactions.outerjoin(outcomes, latest_outcome()))
