"""Budgets: what was spent of each, and what is reserved for requests that are under way.

Amounts are whole billionths of a USD. A request reserves its estimate in all its budgets or in none. It may where estimate,
reservations and spending fit the limit together, or where something is left and nothing is reserved: so however many requests
run at once, the last one alone can go over a limit. Days and months are those of UTC.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

NANO = 1_000_000_000


class Line(Struct, frozen=True):
    """One budget that a request draws on."""

    scope: str
    """`key:NAME`, `agent:NAME` or `upstream:NAME`."""
    period: str
    """A day, `2026-01-31`, or a month, `2026-01`."""
    limit: int
    estimate: int


class Account(Struct):
    """One budget in one period."""

    spent: int = 0
    reserved: int = 0


class Refusal(Struct, frozen=True):
    """The budget that a request does not fit in, as it stood."""

    line: Line
    spent: int
    reserved: int


class Accounts:
    """The budgets of one process."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str], Account] = {}
        self._reservations: dict[str, tuple[Line, ...]] = {}

    def put(self, scope: str, period: str, spent: int) -> None:
        """What was spent before."""
        self._accounts[scope, period] = Account(spent)

    def spent(self, scope: str, period: str) -> int:
        account = self._accounts.get((scope, period))
        return account.spent if account is not None else 0

    def reserve(self, name: str, lines: Sequence[Line]) -> Refusal | None:
        """Reserve in all, or tell which one refuses."""
        for line in lines:
            account = self._accounts.get((line.scope, line.period), _NEW)
            fits = account.spent + account.reserved + line.estimate <= line.limit
            if not fits and not (account.reserved == 0 and account.spent < line.limit):
                return Refusal(line, account.spent, account.reserved)
        for line in lines:
            self._accounts.setdefault((line.scope, line.period), Account()).reserved += line.estimate
        self._reservations[name] = tuple(lines)
        return None

    def settle(self, name: str, spent: int) -> tuple[Line, ...]:
        """Turn a reservation into what was spent; returns its lines, none where there is no such reservation."""
        lines = self._reservations.pop(name, ())
        for line in lines:
            account = self._accounts[line.scope, line.period]
            account.reserved -= line.estimate
            account.spent += spent
            if not account.spent and not account.reserved:
                del self._accounts[line.scope, line.period]
        return lines

    def charge(self, lines: Sequence[Line], spent: int) -> None:
        """What was spent without a reservation."""
        for line in lines:
            self._accounts.setdefault((line.scope, line.period), Account()).spent += spent

    def forget(self, periods: Sequence[str], *, unless: Container[tuple[str, str]] = ()) -> None:
        """Drop the accounts of all periods but these, where nothing is reserved in them; those that are still wanted stay."""
        old = [place for place, one in self._accounts.items() if place[1] not in periods and not one.reserved]
        for place in old:
            if place not in unless:
                del self._accounts[place]


_NEW = Account()


def periods_at(now: float) -> tuple[str, str]:
    """The day and the month of a Unix time."""
    at = datetime.fromtimestamp(now, UTC)
    return at.strftime("%Y-%m-%d"), at.strftime("%Y-%m")


def in_usd(amount: float) -> str:
    """An amount of USD for people: `$5`, `$1,250.5`, `$0.000001`."""
    whole, _, rest = f"{amount:,.9f}".partition(".")
    rest = rest.rstrip("0")
    return f"${whole}.{rest}" if rest else f"${whole}"


def ends_at(period: str) -> datetime:
    """When the next day or month begins."""
    if len(period) > len("2026-01"):
        return datetime.fromisoformat(period).replace(tzinfo=UTC) + timedelta(days=1)
    year, month = int(period[:4]), int(period[5:])
    return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
