"""Where budgets are kept: in this process over its SQLite file, or in a Postgres that several gateways share.

Both survive a restart. In Postgres each reservation is a lease: of a gateway that has died, what it had reserved counts as
spent as soon as its leases are over. A budget that cannot be looked up lets nobody pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import delete, or_, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import SQLAlchemyError

from proxy_core.errors import BudgetUnavailable
from proxy_core.journal.async_engine import AsyncConnection, AsyncEngine
from proxy_core.journal.schema import budget_reservations, budgets
from proxy_core.limits.accounts import Accounts, Line, Refusal, periods_at
from proxy_core.routing.reasons import Reason
from proxy_core.tasks import spawn

if TYPE_CHECKING:
    from sqlalchemy.dialects.postgresql import Insert

log = logging.getLogger(__name__)

LEASE_S = 90.0
RENEW_EVERY_S = 20.0
RETRY_S = 1.0
LOOK_WITHIN_S = 5.0


class Ledger(Protocol):
    """Budgets of all requests, each known by a name of its own."""

    async def open(self) -> None:
        """Take up what was spent before. Raises SQLAlchemyError."""
        ...

    async def reserve(self, name: str, lines: Sequence[Line]) -> Refusal | None:
        """Reserve in all, or tell which one refuses. Raises BudgetUnavailable."""
        ...

    async def settle(self, name: str, spent: int) -> None:
        """Turn a reservation into what was spent; one that is not there is none. Never raises."""
        ...

    async def charge(self, lines: Sequence[Line], spent: int) -> None:
        """Count what was spent without a reservation. Never raises."""
        ...

    async def close(self) -> None: ...


class LocalLedger:
    """The budgets of the one process that writes an SQLite file: decided in memory, written down as they change."""

    def __init__(self, engine: AsyncEngine, wall: Callable[[], float]) -> None:
        self._engine = engine
        self._wall = wall
        self._accounts = Accounts()
        self._periods = periods_at(wall())
        self._changed: dict[tuple[str, str], None] = {}
        self._wake = asyncio.Event()
        self._closing = False
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take up what was spent this day and month."""
        query = select(budgets).where(budgets.c.period.in_(periods_at(self._wall())))
        async with self._engine.connect() as connection:
            for one in (await connection.execute(query)).all():
                self._accounts.put(one.scope, one.period, one.spent)

    async def reserve(self, name: str, lines: Sequence[Line]) -> Refusal | None:
        if (periods := periods_at(self._wall())) != self._periods:
            self._periods = periods
            self._accounts.forget(periods, unless=self._changed)
        return self._accounts.reserve(name, lines)

    async def settle(self, name: str, spent: int) -> None:
        lines = self._accounts.settle(name, spent)
        if spent:
            self._write_soon(lines)

    async def charge(self, lines: Sequence[Line], spent: int) -> None:
        self._accounts.charge(lines, spent)
        self._write_soon(lines)

    def _write_soon(self, lines: Sequence[Line]) -> None:
        if lines:
            self._changed.update({(line.scope, line.period): None for line in lines})
            self._wake.set()
            if self._writer is None:
                self._writer = spawn(self._write(), name="write budgets")

    async def close(self) -> None:
        self._closing = True
        self._wake.set()
        if self._writer is not None:
            await asyncio.wait([self._writer])

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._changed:
                places, self._changed = self._changed, {}
                try:
                    await self._store([(scope, period, self._accounts.spent(scope, period)) for scope, period in places])
                except (SQLAlchemyError, OSError) as error:
                    log.error("what was spent is not written down yet: %s", _first_line(error))
                    self._changed = places | self._changed
                    if not self._closing:
                        await asyncio.sleep(RETRY_S)
                        self._wake.set()
                        continue
            if self._closing:
                return

    async def _store(self, spent: list[tuple[str, str, int]]) -> None:
        insert = sqlite.insert(budgets)
        statement = insert.on_conflict_do_update(index_elements=["scope", "period"], set_={"spent": insert.excluded.spent})
        async with self._engine.begin() as connection:
            rows = [{"scope": scope, "period": period, "spent": amount, "reserved": 0} for scope, period, amount in spent]
            await connection.execute(statement, rows)


class SharedLedger:
    """The budgets of all gateways on one Postgres."""

    def __init__(self, engine: AsyncEngine, wall: Callable[[], float], gateway: str) -> None:
        """`gateway` is a name that no other process has."""
        self._engine = engine
        self._wall = wall
        self._gateway = gateway
        self._unsettled: dict[str, int] = {}
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._keeper = spawn(self._keep(), name="keep budgets")

    async def reserve(self, name: str, lines: Sequence[Line]) -> Refusal | None:
        try:
            async with asyncio.timeout(LOOK_WITHIN_S), self._engine.connect() as connection:
                # In one order everywhere, so that two requests never wait for each other.
                for line in sorted(lines, key=lambda line: (line.scope, line.period)):
                    if not await self._reserve(connection, name, line):
                        await connection.rollback()
                        return await _refusal(connection, line)
                await connection.commit()
                return None
        except Exception as error:  # SQLAlchemy's tree, asyncpg's own, and the system's
            log.error("budgets cannot be looked up: %s", _first_line(error))
            raise BudgetUnavailable(
                Reason.BUDGET_UNAVAILABLE, "the budgets cannot be looked up, so nothing is let through; try again"
            ) from error

    async def settle(self, name: str, spent: int) -> None:
        try:
            await self._settle(name, spent)
        except Exception as error:
            log.error("a reservation waits to be settled: %s", _first_line(error))
            self._unsettled[name] = spent

    async def charge(self, lines: Sequence[Line], spent: int) -> None:
        insert = _postgres_insert()
        changed = insert.on_conflict_do_update(
            index_elements=["scope", "period"], set_={"spent": budgets.c.spent + insert.excluded.spent}
        )
        rows = [
            {"scope": line.scope, "period": line.period, "spent": spent, "reserved": 0}
            for line in sorted(lines, key=lambda line: (line.scope, line.period))
        ]
        try:
            async with self._engine.begin() as connection:
                await connection.execute(changed, rows)
        except Exception as error:
            log.error("%s billionths of a USD are not counted: %s", spent, _first_line(error))

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        for name, spent in list(self._unsettled.items()):
            del self._unsettled[name]
            await self.settle(name, spent)

    async def _reserve(self, connection: AsyncConnection, name: str, line: Line) -> bool:
        new = {"scope": line.scope, "period": line.period, "spent": 0, "reserved": 0}
        await connection.execute(_postgres_insert().values(new).on_conflict_do_nothing())
        spent, reserved = budgets.c.spent, budgets.c.reserved
        fits = or_(spent + reserved + line.estimate <= line.limit, (reserved == 0) & (spent < line.limit))
        taken = await connection.execute(
            update(budgets)
            .where(budgets.c.scope == line.scope, budgets.c.period == line.period, fits)
            .values(reserved=reserved + line.estimate)
        )
        if not taken.rowcount:
            return False
        lease = {
            "name": name,
            "scope": line.scope,
            "period": line.period,
            "gateway": self._gateway,
            "amount": line.estimate,
            "expires_ns": self._expiry(),
        }
        await connection.execute(budget_reservations.insert().values(lease))
        return True

    async def _settle(self, name: str, spent: int) -> None:
        reservations = budget_reservations
        async with self._engine.begin() as connection:
            found = select(reservations).where(reservations.c.name == name).order_by(reservations.c.scope, reservations.c.period)
            for one in (await connection.execute(found)).all():
                await _turn(connection, one.name, one.scope, one.period, spent)

    async def _keep(self) -> None:
        """Renew this gateway's leases, settle what could not be settled, and count what dead gateways have left."""
        reservations = budget_reservations
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                async with self._engine.begin() as connection:
                    own = update(reservations).where(reservations.c.gateway == self._gateway)
                    await connection.execute(own.values(expires_ns=self._expiry()))
                for name, spent in list(self._unsettled.items()):
                    await self._settle(name, spent)
                    self._unsettled.pop(name, None)
                await self.sweep()
            except Exception as error:
                log.error("budgets cannot be kept up: %s", _first_line(error))

    async def sweep(self) -> None:
        """What a gateway that has died had reserved counts as spent."""
        reservations = budget_reservations
        over = select(reservations).where(reservations.c.expires_ns < int(self._wall() * 1e9))
        async with self._engine.begin() as connection:
            ordered = over.order_by(reservations.c.scope, reservations.c.period)
            for one in (await connection.execute(ordered)).all():
                await _turn(connection, one.name, one.scope, one.period, one.amount)

    def _expiry(self) -> int:
        return int((self._wall() + LEASE_S) * 1e9)


async def _turn(connection: AsyncConnection, name: str, scope: str, period: str, spent: int) -> None:
    """One reservation into spending, by whoever removes it first."""
    # The budget is locked before its reservation, as in reserving: never the other way round.
    budget = select(budgets.c.spent).where(budgets.c.scope == scope, budgets.c.period == period)
    await connection.execute(budget.with_for_update())
    reservations = budget_reservations
    gone = delete(reservations).where(reservations.c.name == name, reservations.c.scope == scope, reservations.c.period == period)
    amount = (await connection.execute(gone.returning(reservations.c.amount))).scalar()
    if amount is not None:
        await connection.execute(
            update(budgets)
            .where(budgets.c.scope == scope, budgets.c.period == period)
            .values(spent=budgets.c.spent + spent, reserved=budgets.c.reserved - amount)
        )


def _postgres_insert() -> Insert:
    from sqlalchemy.dialects import postgresql  # only where it is used: it is large

    return postgresql.insert(budgets)


async def _refusal(connection: AsyncConnection, line: Line) -> Refusal:
    query = select(budgets.c.spent, budgets.c.reserved).where(budgets.c.scope == line.scope, budgets.c.period == line.period)
    found = (await connection.execute(query)).first()
    return Refusal(line, found.spent, found.reserved) if found is not None else Refusal(line, 0, 0)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
