"""Reading what operators did: changes of the control settings, and holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Row, Select, and_, func, select

from proxy_core.hold_record import HoldRecord
from proxy_core.journal.async_engine import AsyncEngine
from proxy_core.journal.bodies import unpack
from proxy_core.journal.schema import control_changes, holds

ROUTING = "routing:"
"""Stands before `declared` in changes of routing, so that no policy's name can be taken for theirs."""


class RecordedChange(Struct, kw_only=True):
    """Something that was set otherwise."""

    sequence: int
    at_ns: int
    who: str
    source: str
    what: str
    before: dict[str, Any]
    after: dict[str, Any]
    digest_before: str
    digest_after: str


class RecordedOverride(Struct, kw_only=True):
    """What an operator has set for a policy in place of the configuration's."""

    mode: str | None = None
    params: dict[str, Any] = {}
    """The parameters that were set, and only those."""
    who: str
    at_ns: int
    declared: str
    """Keyed hash of the configuration's own entry at that time."""


class RecordedRouting(Struct, kw_only=True):
    """What an operator has set of routing."""

    override: dict[str, Any]
    who: str
    at_ns: int
    declared: str
    """As it was recorded, with ROUTING before it."""


class ControlReads:
    """The part of the journal's reader that is about operators."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def control_changes(self, limit: int, before: int | None = None) -> list[RecordedChange]:
        """What was set otherwise, newest first, at most `limit`; older than the change with the sequence number `before`."""
        query = select(control_changes).order_by(control_changes.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(control_changes.c.seq < before)
        return [
            RecordedChange(
                sequence=one.seq,
                at_ns=one.at_ns,
                who=one.who,
                source=one.source,
                what=one.what,
                before=msgspec.json.decode(one.before),
                after=msgspec.json.decode(one.after),
                digest_before=one.digest_before,
                digest_after=one.digest_after,
            )
            for one in await self._all(query)
        ]

    async def latest_policy_overrides(self) -> dict[str, RecordedOverride]:
        """What operators have set for policies, by name: of each policy the latest word, left out where it was taken back."""
        other = control_changes.alias("other")
        about = and_(other.c.override.is_not(None), other.c.declared.not_like(f"{ROUTING}%"))
        latest = select(func.max(other.c.seq)).where(about).group_by(other.c.what)
        query = select(control_changes).where(control_changes.c.seq.in_(latest)).order_by(control_changes.c.seq)
        found: dict[str, RecordedOverride] = {}
        for one in await self._all(query):
            override = msgspec.json.decode(one.override)
            if isinstance(override, dict) and override:
                mode, params = override.get("mode"), override.get("params")
                found[one.what] = RecordedOverride(
                    mode=mode if isinstance(mode, str) else None,
                    params=params if isinstance(params, dict) else {},
                    who=one.who,
                    at_ns=one.at_ns,
                    declared=one.declared,
                )
        return found

    async def latest_routing_overrides(self) -> dict[str, RecordedRouting]:
        """What operators have set of routing, by what it concerns: the latest word on each."""
        other = control_changes.alias("other")
        latest = select(func.max(other.c.seq)).where(other.c.declared.like(f"{ROUTING}%")).group_by(other.c.what)
        query = select(control_changes).where(control_changes.c.seq.in_(latest))
        found: dict[str, RecordedRouting] = {}
        for one in await self._all(query):
            override = msgspec.json.decode(one.override) if one.override is not None else None
            if isinstance(override, dict):
                found[one.what] = RecordedRouting(override=override, who=one.who, at_ns=one.at_ns, declared=one.declared)
        return found

    async def holds(
        self, limit: int, *, pending: bool = False, before: int | None = None, transaction_id: str | None = None
    ) -> list[HoldRecord]:
        """Holds as they stand, newest first, at most `limit`; `before` is a time of beginning in Unix nanoseconds."""
        other = holds.alias("other")
        newest = (
            select(func.max(other.c.seq).label("newest"), func.min(other.c.seq).label("first")).group_by(other.c.id).subquery()
        )
        first = holds.alias("first")
        query = (
            select(holds, first.c.content.label("first_content"), first.c.facts.label("first_facts"))
            .join(newest, holds.c.seq == newest.c.newest)
            .join(first, first.c.seq == newest.c.first)
            .order_by(holds.c.created_ns.desc(), holds.c.seq.desc())
            .limit(limit)
        )
        if pending:
            query = query.where(holds.c.status == "pending")
        if before is not None:
            query = query.where(holds.c.created_ns < before)
        if transaction_id is not None:
            query = query.where(holds.c.transaction_id == transaction_id)
        return [_hold(one) for one in await self._all(query)]

    async def _all(self, query: Select[Any]) -> Sequence[Row[Any]]:
        async with self._engine.connect() as connection:
            found: Sequence[Row[Any]] = (await connection.execute(query)).all()
            return found


def _hold(one: Any) -> HoldRecord:
    facts = msgspec.json.decode(one.first_facts) | msgspec.json.decode(one.facts)
    return HoldRecord(
        id=one.id,
        transaction_id=one.transaction_id,
        stage=one.stage,
        policy=one.policy,
        why=one.why,
        content=unpack(one.first_content).decode("utf-8", "replace"),
        shown=one.shown,
        created_ns=one.created_ns,
        deadline_ns=one.deadline_ns,
        status=one.status,
        decided_by=one.decided_by,
        message=one.message,
        edited=None if one.edited is None else unpack(one.edited).decode("utf-8", "replace"),
        at_ns=one.at_ns,
        **facts,
    )
