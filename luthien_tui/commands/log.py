"""`luthien log`: what the journal holds, as aligned text or JSON lines.

Reads only; a running gateway is not disturbed. Text of the traffic is shown with its control characters visible, JSON is
ASCII, so that neither can act on the terminal.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from luthien_tui.commands.given import Given
from luthien_tui.figures import exact_usd
from proxy_core.control.filters import Filter, FilterError, parse
from proxy_core.control.rows import TransactionRow
from proxy_core.errors import ConfigurationError, ExitCode
from proxy_core.settings import Settings
from proxy_core.settings_sources import data_dir_path

if TYPE_CHECKING:
    from proxy_core.journal.store import Decided, JournalStore, Stored

Write = Callable[["TransactionRow", "Stored | None", "Decided | None"], str]
PAGE = 500
FOLLOW_EVERY_S = 0.5
HIDDEN_FIELDS = frozenset({"started_monotonic", "version", "state", "chunks"})
HEADINGS = (
    f"{'time':<19}  {'session':<14}  {'model':<22}  {'via':<10}  {'st':>3}  {'outcome':<9}  "
    f"{'in':>7}  {'out':>6}  {'cost':>9}  {'total':>8}  id"
)


def run_log(given: Given, filter_text: str, *, as_json: bool, follow: bool, limit: int, body: bool) -> int:
    """Print the latest `limit` transactions that the filter means, oldest first. Raises ConfigurationError, StoreError."""
    try:
        chosen = parse(filter_text)
    except FilterError as fault:
        raise ConfigurationError(f"--filter: {fault}") from fault
    settings = given.load().settings
    url = store_url(settings)
    try:
        asyncio.run(_print(url, chosen, as_json=as_json, follow=follow, limit=limit, body=body))
    except KeyboardInterrupt:
        if not follow:  # following ends no other way
            raise
    return ExitCode.OK


def store_url(settings: Settings) -> str:
    """Where the journal is kept."""
    return settings.journal.database_url or f"sqlite+aiosqlite:///{data_dir_path(settings) / 'luthien.db'}"


async def _print(url: str, chosen: Filter, *, as_json: bool, follow: bool, limit: int, body: bool) -> None:
    from proxy_core.journal.store import JournalStore

    store = await JournalStore.open(url, read_only=True)
    write: Write = json_line if as_json else text_line()

    async def print_all(rows: Sequence[TransactionRow]) -> None:
        """What policies said is read for all at once, and only where it is printed."""
        decided = await store.decided([row.transaction_id for row in rows]) if as_json else {}
        for row in rows:
            detail = await store.detail(row.transaction_id) if body else None
            print(write(row, detail, decided.get(row.transaction_id)), flush=follow)

    try:
        newest = await store.last_sequence() if follow else 0
        if not as_json and sys.stdout.isatty():
            print(HEADINGS)
        await print_all(await _latest(store, chosen, limit))
        while follow:
            rows = await store.rows_after(newest, PAGE)
            newest = rows[-1][0] if rows else newest
            await print_all([row for _, row in rows if chosen.matches(row)])
            if len(rows) < PAGE:
                await asyncio.sleep(FOLLOW_EVERY_S)
    finally:
        await store.close()


async def _latest(store: JournalStore, chosen: Filter, limit: int) -> list[TransactionRow]:
    found: list[TransactionRow] = []
    before: str | None = None
    while len(found) < limit:
        rows = await store.rows(PAGE, before)
        found.extend(row for row in rows if chosen.matches(row))
        if len(rows) < PAGE:
            break
        before = rows[-1].transaction_id
    return found[:limit][::-1]


def json_line(row: TransactionRow, detail: Stored | None, decided: Decided | None = None) -> str:
    """One transaction as a line of ASCII JSON; bodies that are not UTF-8 have `\\\\xNN` in their place."""
    found: dict[str, Any] = {name: value for name, value in msgspec.to_builtins(row).items() if name not in HIDDEN_FIELDS}
    found["policy_digest"] = decided.policy_digest if decided is not None else ""
    found["verdicts"] = msgspec.to_builtins(decided.verdicts) if decided is not None else []
    if detail is not None:
        found["request_headers"] = detail.request_headers
        found["response_headers"] = detail.response_headers
        found["request_body"] = detail.request_body.decode("utf-8", "backslashreplace")
        found["response_body"] = detail.response_body.decode("utf-8", "backslashreplace")
        for name, changed in (("sent_body", detail.sent_body), ("upstream_body", detail.upstream_body)):
            found[name] = None if changed is None else changed.decode("utf-8", "backslashreplace")
        found["redacted"] = detail.redacted
        found["bodies_kept"] = detail.bodies_kept
        found["timing"] = detail.timing
    return json.dumps(found, ensure_ascii=True, allow_nan=False)


def text_line() -> Write:
    """A writer of aligned lines; hostile characters become visible signs."""
    from luthien_tui.text import cell, decode, visible

    def column(text: str, width: int) -> str:
        safe = cell(text) or "-"
        return safe if len(safe) <= width else safe[: width - 1] + "…"

    def write(row: TransactionRow, detail: Stored | None, decided: Decided | None) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.started_at))
        line = (
            f"{when:<19}  {column(row.session_id, 14):<14}  {column(row.model, 22):<22}  {column(row.upstream, 10):<10}  "
            f"{row.status or '-':>3}  {row.outcome or 'running':<9}  {_count(row.input_tokens):>7}  "
            f"{_count(row.output_tokens):>6}  {exact_usd(row.cost_usd):>9}  {_seconds(row.total_ms):>8}  "
            f"{cell(row.transaction_id)}"
        )
        if row.error:
            line += f"  {cell(row.error)}"
        if detail is None:
            return line
        parts = [line, *_part(">", visible(decode(detail.request_body))), *_part("<", visible(decode(detail.response_body)))]
        if not detail.bodies_kept:
            parts.append("    (bodies were not kept: journal.capture is metadata)")
        return "\n".join(parts)

    return write


def _part(mark: str, text: str) -> list[str]:
    return [f"    {mark} {line}" for line in text.splitlines()]


def _count(tokens: int | None) -> str:
    return "-" if tokens is None else str(tokens)


def _seconds(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds / 1000:.2f}s"
