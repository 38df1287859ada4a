"""`luthien usage`: what recorded traffic has used and cost, summed by the journal.

Reads only; a running gateway is not disturbed. Names are shown with their control characters visible, JSON is ASCII.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec

from luthien_tui.commands.given import Given
from luthien_tui.commands.log import store_url
from luthien_tui.figures import exact_usd
from proxy_core.errors import ConfigurationError, ExitCode

if TYPE_CHECKING:
    from proxy_core.journal.usage_reads import GroupBy, UsageSum

_AGO = re.compile(r"(\d{1,6})(m|h|d|w)")
_SECONDS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_WIDEST_NAME = 40
_HEADINGS = ("requests", "errors", "input", "cached", "output", "cost")


def run_usage(given: Given, *, by: str, since: str, until: str, limit: int, as_json: bool) -> int:
    """Print sums for each group, and of all. Raises ConfigurationError, StoreError."""
    names = _groups(by)
    begin, end = _moment(since, "--since"), _moment(until, "--until")
    url = store_url(given.load().settings)
    sums, total = asyncio.run(_read(url, names, begin, end, limit))
    if as_json:
        print(_json(names, begin, end, sums, total))
    else:
        print("\n".join(_table(names, sums, total)))
    return ExitCode.OK


async def _read(
    url: str, names: Sequence[GroupBy], since: float | None, until: float | None, limit: int
) -> tuple[list[UsageSum], list[UsageSum]]:
    from proxy_core.journal.usage_reads import UsageReads

    store = await UsageReads.open(url, read_only=True)
    try:
        sums = await store.usage(names, since=since, until=until, limit=limit)
        return sums, await store.usage(since=since, until=until)
    finally:
        await store.close()


def _groups(by: str) -> tuple[GroupBy, ...]:
    from difflib import get_close_matches

    from proxy_core.journal.usage_reads import GROUPS

    names = [name.strip().lower() for name in by.split(",")]
    for name in names:
        if name not in GROUPS:
            near = get_close_matches(name, GROUPS, n=1)
            meant = f"; did you mean '{near[0]}'?" if near else f"; it takes {', '.join(GROUPS)}"
            raise ConfigurationError(f"--by: '{name}' is nothing to sum by{meant}")
    return cast("tuple[GroupBy, ...]", tuple(dict.fromkeys(names)))


def _moment(text: str, option: str) -> float | None:
    """Unix time of `7d`, `36h`, `2026-01-31` or `2026-01-31T12:00`; None of nothing."""
    if not text:
        return None
    if ago := _AGO.fullmatch(text):
        return time.time() - int(ago[1]) * _SECONDS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{option}: '{text}' is no time; give 7d, 36h, 2026-01-31 or 2026-01-31T12:00 (UTC)") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _json(
    names: Sequence[str], since: float | None, until: float | None, sums: Sequence[UsageSum], total: Sequence[UsageSum]
) -> str:
    def plain(one: UsageSum) -> dict[str, Any]:
        fields: dict[str, Any] = msgspec.to_builtins(one)
        return dict(zip(names, fields.pop("group"), strict=False)) | fields

    found = {
        "by": list(names),
        "since": since,
        "until": until,
        "usage": [plain(one) for one in sums],
        "total": plain(total[0]) if total else None,
    }
    return json.dumps(found, ensure_ascii=True, allow_nan=False)


def _table(names: Sequence[str], sums: Sequence[UsageSum], total: Sequence[UsageSum]) -> list[str]:
    from luthien_tui.text import cell

    if not total:
        return ["no transaction is recorded in this time"]
    rows = [[*(_cut(cell(name) or "-") for name in one.group), *_figures(one)] for one in sums]
    if len(sums) != 1:
        rows.append(["total", *[""] * (len(names) - 1), *_figures(total[0])])
    rows.insert(0, [*names, *_HEADINGS])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) if place < len(names) else text.rjust(width) for place, (text, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return [line.rstrip() for line in lines] + _notes(total[0])


def _figures(one: UsageSum) -> list[str]:
    return [
        f"{one.requests:,}",
        f"{one.errors:,}",
        _count(one.input_tokens),
        _count(one.cached_tokens),
        _count(one.output_tokens),
        exact_usd(one.cost_usd),
    ]


def _notes(total: UsageSum) -> list[str]:
    notes = []
    if total.unpriced:
        notes.append(f"{total.unpriced:,} with a price that is not known are not in the cost; see 'prices' in the configuration")
    if total.estimated:
        notes.append(f"{total.estimated:,} with estimated tokens, because the upstream told none")
    return notes


def _count(tokens: int | None) -> str:
    return "-" if tokens is None else f"{tokens:,}"


def _cut(name: str) -> str:
    return name if len(name) <= _WIDEST_NAME else name[: _WIDEST_NAME - 1] + "…"
