"""Sends recorded traffic through a real gateway and compares both sides with the recording, byte for byte.

    python -m evals.fidelity DIR [--json] [--limit N] [--seed S]

DIR holds cassettes, errors and agent_cli_traffic as `.jsonl.gz`. Checked for each row: method, path with query, end-to-end
headers and body as the upstream got them; status, end-to-end headers and body as the client got them; what the journal
kept; usage and tool calls against a second, plain reading. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evals.loopback_http import Client, Headers, Planned, Upstream
from evals.plain_reader import Reading, normal_arguments, read_plainly
from evals.recorded import Exchange, load
from proxy_core.runtime import GatewayRuntime
from proxy_core.settings import Settings
from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Answer
from proxy_core.wire.dialects import find_endpoint
from proxy_core.wire.encodings import decoded

_ONE_HOP = frozenset(
    {
        *("connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
_OURS = "x-luthien-"
MAX_CUTS = 40
TIMEOUT_S = 20.0


@dataclass
class Difference:
    """One thing that is not as recorded."""

    row: str
    provider: str
    api: str
    what: str
    expected: str
    found: str


class Comparison:
    """Collects what differs, and counts what was compared."""

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.compared: Counter[str] = Counter()
        self.rows: dict[str, Counter[str]] = defaultdict(Counter)

    def expect(self, exchange: Exchange, what: str, expected: object, found: object) -> None:
        self.compared[what] += 1
        if expected != found:
            shown, other = _around(expected, found)
            self.differences.append(Difference(exchange.name, exchange.provider, exchange.api, what, shown, other))


def _around(expected: object, found: object) -> tuple[str, str]:
    """Both values, cut to where they begin to differ."""
    one, two = str(expected), str(found)
    start = next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    start = max(0, start - 40)
    return one[start : start + 200], two[start : start + 200]


def end_to_end(headers: Headers) -> Headers:
    """What a proxy has to hand on: names in lower case, in order, without what belongs to one hop or to us."""
    named = {word.strip().lower() for name, value in headers if name.lower() == "connection" for word in value.split(",")}
    kept = [(name.lower(), value.strip()) for name, value in headers]
    return [one for one in kept if one[0] not in _ONE_HOP and one[0] not in named and not one[0].startswith(_OURS)]


def sendable(headers: Headers) -> Headers:
    """Recorded headers that can be sent again: no pseudo headers, no framing, nothing that is no Latin-1 text."""
    return [
        (name, value.strip())
        for name, value in headers
        if name.lower() not in _ONE_HOP and not name.startswith(":") and value.isprintable() and (name + value).isascii()
    ]


def planned_answer(exchange: Exchange, dice: random.Random) -> Planned:
    """The recorded answer, compressed again where it was compressed, cut somewhere else each time."""
    headers = sendable(exchange.response_headers)
    body = exchange.response_body
    encodings = [value.lower() for name, value in headers if name.lower() == "content-encoding"]
    if encodings == ["gzip"] and body:
        body = gzip.compress(body, mtime=0)
    else:
        headers = [(name, value) for name, value in headers if name.lower() != "content-encoding"]
    if exchange.streamed and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/x-ndjson" if exchange.reader == "ollama" else "text/event-stream"))
    cuts = [dice.randint(0, len(body)) for _ in range(dice.randint(0, min(MAX_CUTS, len(body))))]
    framing = dice.choice(["chunked", "chunked", "close"] if exchange.streamed else ["length", "length", "chunked", "close"])
    return Planned(exchange.status, headers, body, cuts, framing)


class Fidelity:
    """One run over all rows."""

    def __init__(self, gateway: GatewayRuntime, upstream: Upstream, seed: int) -> None:
        self._gateway = gateway
        self._upstream = upstream
        self._dice = random.Random(seed)
        host, _, port = gateway.address.rpartition(":")
        self._client = Client(host.strip("[]"), int(port))
        self.result = Comparison()

    async def row(self, exchange: Exchange) -> None:
        """Send one recorded request and compare everything."""
        result = self.result
        result.rows[exchange.provider][exchange.api] += 1
        planned = self._upstream.planned = planned_answer(exchange, self._dice)
        self._upstream.seen.clear()
        headers = sendable(exchange.request_headers)
        target = exchange.path + (f"?{exchange.query}" if exchange.query else "")
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._client.request(exchange.method, target, headers, exchange.request_body)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            result.expect(exchange, "an answer", "an answer", type(error).__name__)
            await self._client.close()
            return
        result.expect(exchange, "requests that reached the upstream", 1, len(self._upstream.seen))
        if len(self._upstream.seen) != 1:
            return
        seen = self._upstream.seen[0]
        result.expect(exchange, "request line", (exchange.method, target), seen.first_line[:2])
        result.expect(exchange, "request headers", end_to_end(headers), end_to_end(seen.headers))
        result.expect(exchange, "request body", exchange.request_body, seen.body)
        result.expect(exchange, "status", str(exchange.status), response.first_line[1])
        result.expect(exchange, "response headers", end_to_end(planned.headers), end_to_end(response.headers))
        without_body = exchange.method == "HEAD" or exchange.status in (204, 304)
        result.expect(exchange, "response body", b"" if without_body else planned.body, response.body)
        result.expect(exchange, "whole response", False, response.truncated)
        transaction_id = dict(response.headers).get("x-luthien-transaction-id", "")
        await self._journal(exchange, planned, transaction_id)

    async def _journal(self, exchange: Exchange, planned: Planned, transaction_id: str) -> None:
        """Compare the record, and what was read from the body."""
        result = self.result
        detail = await self._gateway.plane.detail(transaction_id) if transaction_id else None
        result.expect(exchange, "a record", True, detail is not None)
        if detail is None:
            return
        if not detail.redacted and not detail.capture_note:
            result.expect(exchange, "recorded request body", exchange.request_body, detail.request_body)
            encoding = dict(detail.response_headers).get("content-encoding", "")
            result.expect(exchange, "recorded response body", decoded(planned.body, encoding), detail.response_body)
        result.expect(exchange, "recorded status", exchange.status, detail.row.status)
        plain = plain_reading(exchange)
        if plain is None or exchange.method == "GET":
            result.compared["rows without a plain reading"] += 1
            return
        row = detail.row
        recorded = {
            "input": row.input_tokens,
            "output": row.output_tokens,
            "cached": row.cached_tokens,
            "reasoning": row.reasoning_tokens,
        }
        told = {} if exchange.reader == "count_tokens" else plain.usage
        expected = {name: told.get(name) for name in recorded}
        result.expect(exchange, "usage in the record", expected, recorded)
        result.expect(exchange, "tool calls in the record", len(plain.tool_calls), row.tool_calls)
        outcome = "error" if exchange.status >= 400 or plain.is_error else "ok" if plain.ended else "truncated"
        result.expect(exchange, "outcome in the record", outcome, row.outcome)
        self._decoded(exchange, plain)

    def _decoded(self, exchange: Exchange, plain: Reading) -> None:
        """Compare what the codec reads from the whole body and from a stream cut anywhere."""
        endpoint = find_endpoint(exchange.path, False, ())
        codec = codec_for(endpoint.operation) if endpoint else None
        if codec is None:
            return
        if exchange.streamed:
            decoder = codec.stream_decoder()
            body = exchange.response_body
            cuts = sorted(self._dice.randint(0, len(body)) for _ in range(MAX_CUTS))
            for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
                decoder.feed(body[start:end])
            answer = decoder.finish()
        else:
            answer = codec.read_response(exchange.response_body)
        self.result.expect(exchange, "decoded usage", plain.usage, usage_of(answer))
        calls = [(call.call_id, call.name, normal_arguments(call.arguments)) for call in answer.tool_calls]
        self.result.expect(exchange, "decoded tool calls", plain.tool_calls, calls)
        self.result.expect(exchange, "decoded text", plain.text, answer.text)
        self.result.expect(exchange, "decoded error", plain.is_error, answer.error is not None)
        if exchange.streamed:
            self.result.expect(exchange, "decoded end", plain.ended, answer.complete)

    async def close(self) -> None:
        await self._client.close()


def plain_reading(exchange: Exchange) -> Reading | None:
    """The second reading; None where the body is not of an API that is read, or no JSON."""
    if exchange.reader is None or not exchange.response_body.strip():
        return None
    streamed = exchange.streamed and exchange.response_body.lstrip()[:1] != b"{"
    try:
        return read_plainly(exchange.reader, exchange.response_body, streamed)
    except (ValueError, KeyError, TypeError):
        return None


def usage_of(answer: Answer) -> dict[str, int]:
    """Usage in the plain reader's words."""
    usage = answer.usage
    if usage is None:
        return {}
    counts = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached": usage.cached_input_tokens,
        "written": usage.cache_write_tokens,
        "reasoning": usage.reasoning_tokens,
        "written 1h": usage.cache_write_1h_tokens,
        "audio in": usage.input_audio_tokens,
        "audio out": usage.output_audio_tokens,
        "searches": usage.web_searches,
    }
    return {name: count for name, count in counts.items() if count is not None}


async def run(folder: Path, limit: int | None, seed: int) -> tuple[Comparison, Counter[str]]:
    """All rows, one after another."""
    left_out: Counter[str] = Counter()
    exchanges = list(load(folder, left_out))
    if limit is not None:
        exchanges = random.Random(seed).sample(exchanges, min(limit, len(exchanges)))
    upstream = Upstream()
    await upstream.start()
    base_url = f"http://127.0.0.1:{upstream.port}"
    settings = Settings.model_validate(
        {
            "server": {"port": 0, "drain_s": 1.0},
            "control": {"port": 0},
            "upstreams": {api: {"api": api, "base_url": base_url} for api in ("openai", "anthropic", "ollama")},
            "prices": {"estimate_usage": False},
        }
    )
    with tempfile.TemporaryDirectory(prefix="luthien-fidelity-") as data_dir:
        gateway = GatewayRuntime(settings, data_dir=Path(data_dir))
        await gateway.start()
        fidelity = Fidelity(gateway, upstream, seed)
        try:
            for exchange in exchanges:
                await fidelity.row(exchange)
        finally:
            await fidelity.close()
            gateway.begin_shutdown()
            await gateway.wait_closed()
            await upstream.stop()
    return fidelity.result, left_out


def summary(result: Comparison, left_out: Counter[str]) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "rows": sum(sum(apis.values()) for apis in result.rows.values()),
        "by_provider": {provider: dict(sorted(apis.items())) for provider, apis in sorted(result.rows.items())},
        "compared": dict(result.compared.most_common()),
        "left_out": dict(left_out.most_common()),
        "differences": [asdict(difference) for difference in result.differences],
    }


def print_summary(found: dict[str, Any]) -> None:
    """The same for a reader."""
    print(f"{found['rows']} rows sent")
    for provider, apis in found["by_provider"].items():
        print(f"  {provider:14} " + ", ".join(f"{api} {count}" for api, count in apis.items()))
    print("compared: " + ", ".join(f"{what} {count}" for what, count in found["compared"].items()))
    print(f"left out: {sum(found['left_out'].values())}")
    for reason, count in found["left_out"].items():
        print(f"  {count:4} {reason}")
    print(f"{len(found['differences'])} differences")
    for one in found["differences"]:
        print(f"  {one['row']} {one['provider']} {one['api']}: {one['what']}")
        print(f"    expected {one['expected']!r}")
        print(f"    found    {one['found']!r}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m evals.fidelity", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="folder with the recorded traffic")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--limit", type=int, help="send only so many rows, drawn at random")
    parser.add_argument("--seed", type=int, default=1, help="where bodies are cut, and which rows are drawn")
    arguments = parser.parse_args()
    result, left_out = asyncio.run(run(arguments.folder, arguments.limit, arguments.seed))
    found = summary(result, left_out)
    if arguments.json:
        json.dump(found, sys.stdout, indent=2)
        print()
    else:
        print_summary(found)
    return 1 if result.differences else 0


if __name__ == "__main__":
    sys.exit(main())
