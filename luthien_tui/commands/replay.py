"""The work of `luthien replay`: reads the recordings, runs them, prints what differs.

Text of the traffic is shown with its control characters visible, JSON is ASCII. Progress and complaints go to stderr.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from luthien_tui.commands.given import Given
from luthien_tui.commands.log import store_url
from luthien_tui.figures import exact_usd
from luthien_tui.loop import new_loop
from proxy_core import logs
from proxy_core.control.diff import common_start
from proxy_core.control.filters import Filter, FilterError, parse
from proxy_core.errors import ConfigurationError, ExitCode
from proxy_core.settings import Settings
from proxy_core.settings_sources import data_dir

if TYPE_CHECKING:
    from proxy_core.replay.comparing import Difference
    from proxy_core.replay.exchanges import Exchange, Recording
    from proxy_core.replay.live import Live
    from proxy_core.replay.replaying import Replayed
    from proxy_core.replay.summary import Summary

MAX_SHOWN_PROBLEMS = 50
MAX_EXCERPT = 100
MAX_DIFF_LINES = 400
MAX_COMPARED_LINES = 2_000
CONTEXT_LINES = 3
JOURNAL_LIMIT = 1_000
"""Transactions of the journal that are replayed where no limit is given."""


@dataclass(frozen=True)
class Wanted:
    """What the command line asked for."""

    paths: Sequence[Path]
    delay_s: float = 0.0
    speed: float | None = None
    to: str | None = None
    yes: bool = False
    diff: bool = False
    check: bool = False
    limit: int | None = None
    journal: bool = False
    filter_text: str = ""
    record: bool = False
    as_json: bool = False


def run_replay(given: Given, wanted: Wanted) -> int:
    """Replay and print; returns the exit code. Raises ConfigurationError, StoreError, ListenError."""
    if wanted.journal == bool(wanted.paths):
        raise ConfigurationError("give files or folders of recordings, or --journal")
    if wanted.filter_text and not wanted.journal:
        raise ConfigurationError("--filter goes with --journal")
    try:
        chosen = parse(wanted.filter_text)
    except FilterError as fault:
        raise ConfigurationError(f"--filter: {fault}") from fault
    loaded = given.load()
    logs.configure(loaded.settings.logging.level, logs.LogRing(), stderr=False, file=None)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_run(loaded.settings, wanted, chosen))
    except ConfigurationError as fault:
        raise ConfigurationError(loaded.placed(str(fault))) from fault


async def _run(settings: Settings, wanted: Wanted, chosen: Filter) -> int:
    from proxy_core.replay.live import live
    from proxy_core.replay.preparing import offline_settings
    from proxy_core.replay.replaying import Pace, Replay
    from proxy_core.replay.summary import Counting

    way = live(settings, wanted.to, keep=wanted.record) if wanted.to is not None else None
    recording = await _recording(settings, wanted, chosen)
    _complain(recording)
    if way is not None and not wanted.yes:
        await _confirm(recording, way)
    used = way.settings if way is not None else offline_settings(settings, keep=wanted.record)
    counting = Counting(recording)
    report = _json_report if wanted.as_json else _text_report
    done = 0
    with _folder(settings, keep=wanted.record) as folder, _progress(len(recording.exchanges)) as show:
        pace = Pace(delay_s=wanted.delay_s, speed=wanted.speed)
        target = way.target if way is not None else None
        async with Replay(used, folder, pace=pace, target=target, new_ids=wanted.record) as replay:
            try:
                async for one in replay.run(recording.exchanges):
                    counting.take(one)
                    done += 1
                    if lines := report(one, diff=wanted.diff):
                        show(None)
                        print(lines, flush=True)
                    show(done)
            except asyncio.CancelledError:
                show(None)
                _say("luthien: interrupted; the sums are of what was replayed until now")
                _print_summary(counting.summary(), as_json=wanted.as_json)
                raise
    summary = counting.summary()
    _print_summary(summary, as_json=wanted.as_json)
    return ExitCode.CRASH if summary.problems or (wanted.check and summary.different) else ExitCode.OK


async def _recording(settings: Settings, wanted: Wanted, chosen: Filter) -> Recording:
    if not wanted.journal:
        from proxy_core.replay.reading import read_recordings

        return await asyncio.to_thread(read_recordings, wanted.paths, limit=wanted.limit)
    from proxy_core.journal.store import JournalStore
    from proxy_core.replay.from_journal import read_journal

    store = await JournalStore.open(store_url(settings), read_only=True)
    try:
        return await read_journal(store, chosen, wanted.limit or JOURNAL_LIMIT)
    finally:
        await store.close()


async def _confirm(recording: Recording, way: Live) -> None:
    """Say how much would be sent and what it may cost, and ask. Raises ConfigurationError where the answer is no."""
    from proxy_core.replay.live import estimate

    expected = await estimate(recording.exchanges, way)
    unknown = f"; {expected.unknown:,} more have no known price" if expected.unknown else ""
    what = f"{expected.requests:,} requests go to {way.name}, for about {exact_usd(expected.usd)}{unknown}"
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{what}. Give --yes to send them")
    _say(f"luthien: {what}. Send them? [y/N] ", end="")
    answer = await asyncio.to_thread(sys.stdin.readline)
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigurationError("nothing was sent")


@contextmanager
def _folder(settings: Settings, *, keep: bool) -> Iterator[Path]:
    """Where the replaying gateway keeps its journal: a place that is gone afterwards, unless it is to be kept."""
    if keep:
        yield data_dir(settings)
        return
    with tempfile.TemporaryDirectory(prefix="luthien-replay-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


# --- what is printed ---


def _complain(recording: Recording) -> None:
    from luthien_tui.text import cell

    for problem in recording.problems[:MAX_SHOWN_PROBLEMS]:
        _say(f"luthien: {cell(problem.where)}: {cell(problem.message)}")
    if (more := recording.broken - MAX_SHOWN_PROBLEMS) > 0:
        _say(f"luthien: and {more:,} more")


def _say(text: str, end: str = "\n") -> None:
    print(text, file=sys.stderr, end=end, flush=True)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A function that shows how far it is, on a terminal only; None takes the line away."""
    shown = sys.stderr.isatty()

    def show(done: int | None) -> None:
        if shown:
            _say("\r\x1b[K" if done is None else f"\r\x1b[Kreplayed {done:,} of {total:,}", end="")

    try:
        yield show
    finally:
        show(None)


def _json_report(one: Replayed, *, diff: bool) -> str:
    exchange, outcome = one.exchange, one.outcome
    found: dict[str, Any] = {
        "transaction_id": exchange.transaction_id,
        "where": exchange.where,
        "kind": exchange.kind,
        "path": exchange.path,
        "skipped": one.skipped,
        "redacted": list(exchange.redacted),
        "notes": one.notes,
        "differences": msgspec.to_builtins(one.differences),
    }
    if outcome is not None:
        found["status"] = outcome.answer.status if outcome.answer is not None else None
        found |= {
            name: msgspec.to_builtins(getattr(outcome.facts, name)) for name in ("outcome", "verdict", "verdicts", "cost_usd")
        }
    return json.dumps(found, ensure_ascii=True, allow_nan=False)


def _text_report(one: Replayed, *, diff: bool) -> str:
    """The differences of one transaction, a line each; empty where there is nothing to say."""
    from luthien_tui.text import cell

    if not one.differences and not one.skipped and not one.notes:
        return ""
    exchange = one.exchange
    lines = [f"{cell(exchange.name)}  {cell(exchange.method)} {cell(exchange.path)}{_beside(exchange)}"]
    if one.skipped:
        lines.append(f"  not replayed: {one.skipped}")
    for difference in one.differences:
        lines += _difference(difference, diff=diff)
    lines += [f"  note: {cell(note)}" for note in one.notes]
    return "\n".join(lines)


def _beside(exchange: Exchange) -> str:
    from luthien_tui.text import cell

    return f"  ({cell(exchange.where)})" if exchange.where != exchange.name else ""


def _difference(difference: Difference, *, diff: bool) -> list[str]:
    from luthien_tui.text import cell, visible

    before, after = difference.before, difference.after
    kind = difference.kind.replace("_", " ")
    if diff and (len(before) + len(after) > MAX_EXCERPT or "\n" in before + after):
        lines, note = _lines_that_differ(visible(before).splitlines(), visible(after).splitlines())
        cut = [f"    … {len(lines) - MAX_DIFF_LINES:,} more lines"] if len(lines) > MAX_DIFF_LINES else note
        return [f"  {kind}", *(f"    {line}" for line in lines[:MAX_DIFF_LINES]), *cut]
    start = _common(before, after)
    return [f"  {kind:<10}  {cell(_excerpt(before, start))} → {cell(_excerpt(after, start))}"]


def _lines_that_differ(one: list[str], other: list[str]) -> tuple[list[str], list[str]]:
    """A diff, and what is to be said of it. Of long texts only a part is compared: the work grows with the square."""
    note = []
    if max(len(one), len(other)) > MAX_COMPARED_LINES:
        start = max(0, common_start(one, other) - CONTEXT_LINES)
        one, other = one[start : start + MAX_COMPARED_LINES], other[start : start + MAX_COMPARED_LINES]
        note = [f"    … compared are {MAX_COMPARED_LINES:,} lines from line {start + 1:,} on"]
    return list(difflib.unified_diff(one, other, "recorded", "replayed", lineterm="", n=CONTEXT_LINES)), note


def _common(before: str, after: str) -> int:
    """Where two texts begin to differ, a little earlier."""
    if max(len(before), len(after)) <= MAX_EXCERPT:
        return 0
    return max(0, common_start(before, after) - MAX_EXCERPT // 4)


def _excerpt(text: str, start: int) -> str:
    piece = text[start : start + MAX_EXCERPT]
    return f"{'…' if start else ''}{piece}{'…' if start + MAX_EXCERPT < len(text) else ''}" or "nothing"


def _print_summary(total: Summary, *, as_json: bool) -> None:
    print(json.dumps({"summary": msgspec.to_builtins(total)}) if as_json else _summary(total), flush=True)


def _summary(total: Summary) -> str:
    from luthien_tui.text import cell

    kinds = ", ".join(f"{kind.replace('_', ' ')} {count:,}" for kind, count in total.differences.items())
    lines = [
        f"{total.replayed:,} of {total.transactions:,} transactions replayed: {total.same:,} the same, "
        f"{total.different:,} different{f' ({kinds})' if kinds else ''}"
    ]
    lines += [f"  {count:,} not replayed: {cell(why)}" for why, count in total.skipped.items()]
    verdicts = sorted({*total.verdicts_before, *total.verdicts})
    if total.verdicts_before:
        changes = (f"{one} {total.verdicts_before.get(one, 0):,} → {total.verdicts.get(one, 0):,}" for one in verdicts)
    else:
        changes = (f"{one} {total.verdicts[one]:,}" for one in verdicts)
    if verdicts:
        lines.append(f"  verdicts: {', '.join(changes)}")
        lines.append(f"  tokens: {_tokens(total)}")
        lines.append(f"  cost: {_costs(total)}")
    lines += [f"  {count:,} times: {cell(note)}" for note, count in total.notes.items()]
    if total.left:
        lines.append(f"  {total.left:,} had a client that left; they are in no sum")
    if total.redacted:
        lines.append(f"  {total.redacted:,} were recorded with secrets taken out of their bodies; policies see what is left")
    if total.unanswered:
        lines.append(f"  {total.unanswered:,} have no recorded end")
    if total.guessed:
        lines.append(f"  {total.guessed:,} answers were tied to their request by order alone; they may belong to another")
    if total.others:
        lines.append(f"  {total.others:,} entries are no requests of an API and were left out")
    if total.problems:
        lines.append(f"  {total.problems:,} lines, entries or files could not be used")
    return "\n".join(lines)


def _tokens(total: Summary) -> str:
    now = f"{total.input_tokens:,} in, {total.output_tokens:,} out"
    if not total.verdicts_before:
        return now
    return f"{total.input_tokens_before:,} in, {total.output_tokens_before:,} out → {now}"


def _costs(total: Summary) -> str:
    unknown = f" ({total.unknown_cost:,} unknown)" if total.unknown_cost else ""
    before = f"{exact_usd(total.cost_usd_before)} → " if total.verdicts_before else ""
    return f"{before}{exact_usd(total.cost_usd)}{unknown}"
