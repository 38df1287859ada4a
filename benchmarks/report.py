"""How results are shown and kept: tables for a reader, one JSON document for a program."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from benchmarks.suites import SuiteResult
from benchmarks.targets import Judgement, Results

RATIOS = ("requests_per_s", "cpu_us", "p50_us", "p99_us", "rss_mb", "request_p50_us", "first_token_p50_us", "event_p50_us")


def suite_table(name: str, found: SuiteResult) -> str:
    """One suite: a row a figure, a column a proxy, and the ratio to nginx beside those that have one."""
    proxies = list(found)
    keys = list(dict.fromkeys(key for figures in found.values() for key in figures))
    width = max((len(key) for key in keys), default=0)
    lines = [name, "  " + " " * width + "".join(f"  {proxy:>24}" for proxy in proxies)]
    for key in keys:
        cells = "".join(f"  {cell(found, proxy, key):>24}" for proxy in proxies)
        lines.append(f"  {key:<{width}}{cells}")
    return "\n".join(lines)


def cell(found: SuiteResult, proxy: str, key: str) -> str:
    """A figure, and in brackets how many times nginx's it is."""
    value = found[proxy].get(key)
    if value is None:
        return "-"
    base = found.get("nginx", {}).get(key)
    ratio = f" ({value / base:.2f}x)" if base and proxy != "nginx" and key in RATIOS else ""
    return number(value) + ratio


def number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:g}"


def target_table(judgements: Iterable[Judgement]) -> str:
    """One line a target: what was found, the bound, and whether it holds."""
    lines = ["targets"]
    for judgement in judgements:
        target = judgement.target
        word = {True: "pass", False: "FAIL", None: "not measured"}[judgement.met]
        value = "-" if judgement.value is None else f"{judgement.value:.2f}"
        sign = ">=" if target.at_least else "<="
        lines.append(f"  {word:<13}{value:>9} {target.unit:<3} {sign} {target.bound:g} {target.unit:<3} {target.what}")
    return "\n".join(lines)


def document(
    machine: dict[str, str | int | float],
    options: dict[str, object],
    results: Results,
    judgements: Iterable[Judgement],
    notes: list[str],
    finished_at: str,
) -> dict[str, object]:
    """Everything, for `--json` and the results folder."""
    return {
        "finished_at": finished_at,
        "machine": machine,
        "options": options,
        "results": results,
        "targets": [
            {
                "suite": judgement.target.suite,
                "what": judgement.target.what,
                "unit": judgement.target.unit,
                "bound": judgement.target.bound,
                "at_least": judgement.target.at_least,
                "value": judgement.value,
                "met": judgement.met,
            }
            for judgement in judgements
        ],
        "notes": notes,
    }


def write(path: Path, content: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
