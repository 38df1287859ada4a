"""Sends recorded traffic through a real gateway and compares what it cost with a second, plain computation.

    python -m evals.costs DIR [--prices FILE] [--json]

Each recorded answer is given again under its own provider's name; nothing leaves this machine. The tokens are read a second
time by `evals.plain_reader`. Without `--prices` the price table that luthien uses does the sum itself, from the raw answer; FILE
is litellm's `model_prices_and_context_window_backup.json`, another table with other authors. Where the two tables name
different prices for a model, that is told apart from a wrong sum. Exit code 1 where a sum is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evals.fidelity import plain_reading, planned_answer, sendable
from evals.loopback_http import Client, Upstream
from evals.recorded import Exchange, load
from proxy_core.routing.transport import UpstreamTransport
from proxy_core.runtime import GatewayRuntime
from proxy_core.settings import Settings

Usage = dict[str, int]
_FREE = ("count_tokens",)
_PREFIXES = {
    "api.groq.com": "groq/",
    "api.mistral.ai": "mistral/",
    "api.deepseek.com": "deepseek/",
    "api.cerebras.ai": "cerebras/",
    "api.together.xyz": "together_ai/",
    "api.voyageai.com": "voyage/",
    "api.x.ai": "xai/",
    "openrouter.ai": "openrouter/",
    "azure.com": "azure/",
}
_AUDIO = (("audio in", "input"), ("audio out", "output"))
_TIER = re.compile(r"input_cost_per_token_above_(\d+)k_tokens$")


@dataclass
class Cost:
    """What one model at one provider came to."""

    rows: int = 0
    recorded_usd: float = 0.0
    expected_usd: float = 0.0
    wrong: list[str] = field(default_factory=list)
    """Rows whose sums differ."""
    disputed: int = 0
    """Rows left out of the sums, because the two tables name different prices for them."""


@dataclass
class Found:
    costs: dict[tuple[str, str], Cost] = field(default_factory=lambda: defaultdict(Cost))
    unknown: Counter[str] = field(default_factory=Counter)
    """Rows that one side has no price for, by reason."""
    left_out: Counter[str] = field(default_factory=Counter)


class LitellmPrices:
    """The sum by litellm's table."""

    def __init__(self, file: Path) -> None:
        self._table: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))

    def rates(self, host: str, model: str) -> dict[str, Any] | None:
        """A model's entry at a provider; None where there is none, or none with prices of tokens."""
        prefix = next((prefix for end, prefix in _PREFIXES.items() if host == end or host.endswith(f".{end}")), "")
        names = [prefix + model] if prefix else [model]
        entry = next((self._table[name] for name in names if name in self._table), None)
        return entry if entry is not None and entry.get("input_cost_per_token") is not None else None

    def cost(self, host: str, model: str, usage: Usage) -> float | None:
        rates = self.rates(host, model)
        return None if rates is None else litellm_cost(rates, usage)


def litellm_cost(rates: dict[str, Any], usage: Usage) -> float:
    """Tokens times prices, each kind of token at its own price where it has one."""
    total = usage.get("input", 0)
    tiers = sorted(int(found[1]) for name in rates if (found := _TIER.search(name)) and rates[name] is not None)
    above = next((f"_above_{tier}k_tokens" for tier in reversed(tiers) if total > tier * 1_000), "")

    def price(name: str, otherwise: float) -> float:
        for one in (f"{name}{above}", name):
            if rates.get(one) is not None:
                return float(rates[one])
        return otherwise

    plain = price("input_cost_per_token", 0.0)
    output = price("output_cost_per_token", 0.0)
    cached, written, audio = usage.get("cached", 0), usage.get("written", 0), usage.get("audio in", 0)
    written_1h, said = usage.get("written 1h", 0), usage.get("audio out", 0)
    reasoning = usage.get("reasoning", 0) if rates.get("output_cost_per_reasoning_token") is not None else 0
    write = price("cache_creation_input_token_cost", plain)
    search = float((rates.get("search_context_cost_per_query") or {}).get("search_context_size_medium", 0.0))
    return (
        (total - cached - written - audio) * plain
        + cached * price("cache_read_input_token_cost", plain)
        + (written - written_1h) * write
        + written_1h * price("cache_creation_input_token_cost_above_1hr", write)
        + audio * price("input_cost_per_audio_token", plain)
        + (usage.get("output", 0) - said - reasoning) * output
        + said * price("output_cost_per_audio_token", output)
        + reasoning * price("output_cost_per_reasoning_token", output)
        + usage.get("searches", 0) * search
    )


class OwnTable:
    """The sum by genai-prices itself, given the plainly read tokens; only the arithmetic and the reading are second ones."""

    def cost(self, host: str, model: str, usage: Usage) -> float | None:
        # Each search ends a prompt: what the provider counts is their sum, and a price may depend on the size of one.
        prompts = usage.get("searches", 0) + 1
        first = usage.get("input", 0) // prompts
        inputs = [first] * (prompts - 1) + [usage.get("input", 0) - first * (prompts - 1)]
        counts = {
            "output_tokens": usage.get("output", 0),
            "cache_read_tokens": usage.get("cached", 0),
            "cache_write_tokens": usage.get("written", 0),
            "cache_write_1h_tokens": usage.get("written 1h", 0),
            "web_searches": usage.get("searches", 0),
        }
        costs = [self._one(host, model, {"input_tokens": count}) for count in inputs[1:]]
        costs.append(self._one(host, model, {"input_tokens": inputs[0], **counts}))
        return None if None in costs else math.fsum(one for one in costs if one is not None)

    def _one(self, host: str, model: str, counts: Usage) -> float | None:
        import genai_prices

        for url in (f"https://{host}", None):
            try:
                found = genai_prices.calc_price(genai_prices.Usage(**counts), model, provider_api_url=url)
            except LookupError:
                continue
            except ValueError:  # the provider's own counts contradict each other
                return None
            return float(found.total_price)
        return None


def comparable(exchange: Exchange) -> list[tuple[str, Usage]] | None:
    """The model that answered and the tokens it used, then those that it asked for advice, plainly read.

    None where no whole answer tells them, or nothing is charged.
    """
    if exchange.reader is None or exchange.reader in _FREE or exchange.method != "POST" or exchange.status >= 400:
        return None
    plain = plain_reading(exchange)
    if plain is None or plain.is_error or not plain.ended or "input" not in plain.usage:
        return None
    model = _answered(exchange)
    return [(model, plain.usage), *plain.elsewhere] if model else None


def _answered(exchange: Exchange) -> str:
    """The model that the answer names, else the request."""
    for text in (exchange.response_body, exchange.request_body):
        if found := re.search(rb'"model"\s*:\s*"((?:[^"\\]|\\.)*)"', text):
            return str(json.loads(b'"' + found[1] + b'"'))
    return ""


async def run(folder: Path, table: LitellmPrices | OwnTable) -> Found:
    """Send every row that can be compared, one after another."""
    found = Found()
    exchanges = [one for one in load(folder, found.left_out) if one.name.startswith("cassettes:")]
    rows = [(one, told) for one in exchanges if (told := comparable(one)) is not None]
    found.left_out["answers that broke off, tell no usage, or cost nothing"] += len(exchanges) - len(rows)
    upstream = Upstream()
    await upstream.start()
    names: dict[tuple[str, str], str] = {}
    for exchange, _ in rows:
        names.setdefault(_place(exchange), f"u{len(names)}")
    settings = Settings.model_validate(
        {
            "server": {"port": 0, "drain_s": 1.0},
            "control": {"port": 0},
            "upstreams": {name: {"api": api, "base_url": f"https://{host}"} for (host, api), name in names.items()},
        }
    )
    with tempfile.TemporaryDirectory(prefix="luthien-costs-") as data_dir:
        transport = UpstreamTransport(only_to=f"http://127.0.0.1:{upstream.port}")
        gateway = GatewayRuntime(settings, data_dir=Path(data_dir), transport=transport)
        await gateway.start()
        host, _, port = gateway.address.rpartition(":")
        client = Client(host.strip("[]"), int(port))
        try:
            for exchange, used in rows:
                cost = await _recorded(gateway, upstream, client, exchange, names[_place(exchange)])
                _compare(found, table, exchange, used, cost)
        finally:
            await client.close()
            gateway.begin_shutdown()
            await gateway.wait_closed()
            await upstream.stop()
    return found


def _place(exchange: Exchange) -> tuple[str, str]:
    """Host and API of the provider."""
    path = exchange.path
    api = "ollama" if path.startswith("/api/") else "anthropic" if path.startswith("/v1/messages") else "openai"
    host = exchange.host.partition(":")[0].lower()
    return host if re.fullmatch(r"[a-z0-9.-]+", host) else "recorded.invalid", api


async def _recorded(gateway: GatewayRuntime, upstream: Upstream, client: Client, exchange: Exchange, name: str) -> float | None:
    """The cost on record after the row went through the gateway."""
    import random

    upstream.planned = planned_answer(exchange, random.Random(1))
    target = f"/{name}{exchange.path}"
    response = await client.request("POST", target, sendable(exchange.request_headers), exchange.request_body)
    transaction_id = dict(response.headers).get("x-luthien-transaction-id", "")
    detail = await gateway.plane.detail(transaction_id)
    if detail is None:
        raise RuntimeError(f"{exchange.name}: no record of transaction '{transaction_id}'")
    return detail.row.cost_usd


def _compare(
    found: Found, table: LitellmPrices | OwnTable, exchange: Exchange, used: list[tuple[str, Usage]], recorded: float | None
) -> None:
    host = _place(exchange)[0]
    model = used[0][0]
    sums = [table.cost(host, *one) for one in used]
    expected = None if None in sums else math.fsum(one for one in sums if one is not None)
    if recorded is None or expected is None:
        who = "both" if recorded is None and expected is None else "luthien" if recorded is None else "the other table"
        found.unknown[f"{host} {model}: no price in {who}"] += 1
        return
    cost = found.costs[host, model]
    if not math.isclose(recorded, expected, rel_tol=1e-9, abs_tol=1e-12):
        line = f"{exchange.name}: recorded {recorded:.9f}, expected {expected:.9f}, {used}"
        if isinstance(table, LitellmPrices) and any(
            prices_differ(table.rates(host, name) or {}, host, name, told) for name, told in used
        ):
            cost.disputed += 1
            return
        cost.wrong.append(line)
    cost.rows += 1
    cost.recorded_usd += recorded
    cost.expected_usd += expected


def prices_differ(rates: dict[str, Any], host: str, model: str, usage: Usage) -> bool:
    """Whether the tables name different prices for one of the kinds of token that were used, in this amount of input."""
    own = OwnTable()
    asked: Usage = {"input": usage.get("input", 0)}
    for kind in ("input", "cached", "written", "written 1h", "output", "searches"):
        if kind in usage:
            one = asked | {kind: usage[kind]} | ({"written": usage["written 1h"]} if kind == "written 1h" else {})
            theirs, ours = litellm_cost(rates, one), own.cost(host, model, one)
            if ours is None or not math.isclose(theirs, ours, rel_tol=1e-9, abs_tol=1e-12):
                return True
    # luthien's table has no prices of audio for OpenAI's models
    return any(usage.get(kind) and rates.get(f"{way}_cost_per_audio_token") for kind, way in _AUDIO)


def summary(found: Found) -> dict[str, Any]:
    """Everything as plain data."""
    costs = sorted(found.costs.items(), key=lambda one: -one[1].recorded_usd)
    return {
        "rows": sum(cost.rows for _, cost in costs),
        "models": len([True for _, cost in costs if cost.rows]),
        "recorded_usd": math.fsum(cost.recorded_usd for _, cost in costs),
        "expected_usd": math.fsum(cost.expected_usd for _, cost in costs),
        "disputed": sum(cost.disputed for _, cost in costs),
        "by_model": [{"host": host, "model": model, **vars(cost)} for (host, model), cost in costs],
        "unknown": dict(found.unknown.most_common()),
        "left_out": dict(found.left_out.most_common()),
        "wrong": [line for _, cost in costs for line in cost.wrong],
    }


def print_summary(told: dict[str, Any]) -> None:
    """The same for a reader."""
    print(f"{'recorded USD':>14}  {'expected USD':>14}  {'rows':>5}  model")
    for one in told["by_model"]:
        notes = ["WRONG"] if one["wrong"] else []
        if one["disputed"]:
            notes.append(f"and {one['disputed']} for which the tables name different prices")
        figures = f"{one['recorded_usd']:14.9f}  {one['expected_usd']:14.9f}  {one['rows']:5}"
        print(f"{figures}  {one['model']} at {one['host']}{'  ' if notes else ''}{', '.join(notes)}")
    sums = f"recorded ${told['recorded_usd']:.9f}, expected ${told['expected_usd']:.9f}"
    print(f"{told['rows']} rows of {told['models']} models have the same price in both tables: {sums}")
    print(f"{told['disputed']} rows have different prices in the two tables")
    print(f"{sum(told['unknown'].values())} rows without a price:")
    for reason, count in told["unknown"].items():
        print(f"  {count:4} {reason}")
    print(f"left out: {sum(told['left_out'].values())}")
    for reason, count in told["left_out"].items():
        print(f"  {count:4} {reason}")
    print(f"{len(told['wrong'])} wrong sums")
    for line in told["wrong"]:
        print(f"  {line}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m evals.costs", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="folder with the recorded traffic")
    parser.add_argument("--prices", type=Path, help="litellm's table of prices, as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    table = OwnTable() if arguments.prices is None else LitellmPrices(arguments.prices)
    told = summary(asyncio.run(run(arguments.folder, table)))
    if arguments.json:
        json.dump(told, sys.stdout, indent=2)
        print()
    else:
        print_summary(told)
    return 1 if told["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
