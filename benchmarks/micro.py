"""Microseconds of the pieces on the way of a request: `python -m benchmarks.micro [WORDS] [--json]`.

Each piece runs alone in this process, long enough to be timed, several times; the best counts, since noise only adds.
Not a target: it tells which piece a slower benchmark comes from.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path

from benchmarks.figures import rounded
from benchmarks.mock_upstream import ANSWERS, anthropic_event, compact, openai_event
from proxy_core.control.feed import Feed
from proxy_core.control.filters import parse
from proxy_core.control.rows import TransactionRow
from proxy_core.control.view import TransactionList
from proxy_core.detectors.secrets import known_secrets, redact_formats, redact_headers
from proxy_core.ids import new_ulid
from proxy_core.journal.backends import open_backend
from proxy_core.journal.records import Intent, Outcome, Record
from proxy_core.journal.rows import RowBuilder
from proxy_core.wire.codec import codec_for
from proxy_core.wire.dialects import Operation, find_endpoint
from proxy_core.wire.glance import glance, preview
from proxy_core.wire.sse import SseParser
from proxy_core.wire.terminator import terminator_scan

SHARE_S = 0.05
REPEATS = 5
KEY = b"k" * 32
RequestHeaders = list[tuple[bytes, bytes]]
HEADERS: RequestHeaders = [
    (b"host", b"127.0.0.1:4000"),
    (b"authorization", b"Bearer sk-benchmark-0123456789"),
    (b"content-type", b"application/json"),
    (b"accept", b"application/json"),
    (b"user-agent", b"OpenAI/Python 2.1.0"),
    (b"x-stainless-lang", b"python"),
    (b"x-stainless-retry-count", b"0"),
    (b"accept-encoding", b"gzip, deflate"),
]

Measured = Iterator[tuple[str, Callable[[], object], int]]
"""A name, what to run, and how many things one run of it does."""


def conversation(turns: int) -> bytes:
    """A chat request with `turns` questions and answers before the last question."""
    messages = [{"role": "system", "content": "You are the pilot of a coasting ship. " * 4}]
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Leg {turn}: which landmark do we keep to starboard?"})
        messages.append({"role": "assistant", "content": "The white tower on the bluff, a hand's breadth off the bow. " * 3})
    messages.append({"role": "user", "content": "What lies a day's sail west of the harbour?"})
    return compact({"model": "gpt-4o-mini", "messages": messages, "max_tokens": 64})


def stream_chunks(make: Callable[[int, int], bytes | None]) -> list[bytes]:
    """One chunk an event, as they arrive from the upstream."""
    chunks: list[bytes] = []
    while event := make(len(chunks), 32):
        chunks.append(event)
    return chunks


def best_us(run: Callable[[], object]) -> float:
    """Microseconds of one call."""
    count = 1
    while True:
        begin = time.perf_counter()
        for _ in range(count):
            run()
        took = time.perf_counter() - begin
        if took >= SHARE_S / 4 or count >= 1 << 20:
            break
        count *= 4
    best = took / count
    for _ in range(REPEATS):
        begin = time.perf_counter()
        for _ in range(count):
            run()
        best = min(best, (time.perf_counter() - begin) / count)
    return best * 1e6


def wire_pieces() -> Measured:
    chat = codec_for(Operation.CHAT)
    messages = codec_for(Operation.MESSAGES)
    assert chat is not None
    assert messages is not None
    short, long = conversation(0), conversation(20)
    yield "find endpoint", lambda: find_endpoint("/v1/chat/completions", False, ()), 1
    yield "find codec", lambda: codec_for(Operation.CHAT), 1
    yield "glance, 2 messages", lambda: glance(short), 1
    yield "glance, 42 messages", lambda: glance(long), 1
    looked = glance(long)
    yield "preview", lambda: preview(looked.history), 1
    yield "chat request decoded, 42 messages", lambda: chat.read_request(long), 1
    answer = compact(ANSWERS["openai"])
    yield "chat answer decoded", lambda: chat.read_response(answer), 1
    anthropic_answer = compact(ANSWERS["anthropic"])
    yield "messages answer decoded", lambda: messages.read_response(anthropic_answer), 1
    for name, codec, operation, make in (
        ("chat", chat, Operation.CHAT, openai_event),
        ("messages", messages, Operation.MESSAGES, anthropic_event),
    ):
        chunks = stream_chunks(make)

        def decode(codec: object = codec, chunks: list[bytes] = chunks) -> None:
            decoder = codec.stream_decoder()  # type: ignore[attr-defined]
            for chunk in chunks:
                decoder.feed(chunk)
            decoder.finish()

        def split(chunks: list[bytes] = chunks) -> None:
            parser = SseParser()
            for chunk in chunks:
                parser.feed(chunk)

        def scan(operation: Operation = operation, chunks: list[bytes] = chunks) -> None:
            terminator = terminator_scan(operation, "text/event-stream")
            assert terminator is not None
            for chunk in chunks:
                terminator.feed(chunk)

        yield f"{name} stream: decoded, per event", decode, len(chunks)
        yield f"{name} stream: split into events, per event", split, len(chunks)
        yield f"{name} stream: terminator looked for, per event", scan, len(chunks)


def session_pieces() -> Measured:
    from proxy_core.sessions.detector import SessionDetector

    numbers = iter(range(1 << 40))
    detector = SessionDetector(
        digest=RowBuilder(key=KEY, capture="redacted").digest,
        new_id=lambda: f"session-{next(numbers)}",
        ttl_s=3600,
        max_sessions=10_000,
        clock=time.monotonic,
    )
    headers = dict(HEADERS)
    for turns in (0, 20):
        body = conversation(turns)
        looked = glance(body)
        yield f"session of {len(looked.history)} messages", partial(detector.belonging, headers, looked, body), 1
    grown = cycle([(glance(body), body) for body in map(conversation, range(550, 570))])
    yield "session of 150 kB, a turn more", lambda: detector.belonging(headers, *next(grown)), 1
    yield "transaction id", lambda: new_ulid(1_735_689_600_000), 1


def secret_pieces() -> Measured:
    body = conversation(20)
    yield "known secrets of a request", lambda: known_secrets(HEADERS, b""), 1
    yield "headers redacted", lambda: redact_headers(HEADERS), 1
    yield f"body of {len(body)} bytes redacted", lambda: redact_formats(body), 1


def intent_of(body: bytes, number: int, builder: RowBuilder) -> Intent:
    looked = glance(body)
    return Intent(
        transaction_id=new_ulid(1_735_689_600_000 + number),
        started_ns=1_735_689_600_000_000_000 + number,
        method="POST",
        path="/v1/chat/completions",
        query=b"",
        dialect="openai",
        operation="chat",
        session_id="session-1",
        predecessor="",
        agent="agent-1",
        model="gpt-4o-mini",
        upstream="openai",
        reason="default",
        stream=False,
        client="127.0.0.1:50000",
        preview=preview(looked.history),
        headers=HEADERS,
        body=body,
        pieces=tuple((builder.digest(part), part) for part in looked.history),
        chain=b"c" * 16,
        history_length=len(looked.history),
        secrets=(b"sk-benchmark-0123456789",),
    )


def outcome_of(intent: Intent, body: bytes) -> Outcome:
    return Outcome(
        transaction_id=intent.transaction_id,
        finished_ns=intent.started_ns + 1_000_000,
        outcome="ok",
        status=200,
        verdict="allow",
        headers=[(b"content-type", b"application/json"), (b"x-request-id", b"req_bench")],
        body=body,
        body_bytes=len(body),
        complete=True,
        model="gpt-4o-mini",
        response_id="chatcmpl-bench",
        input_tokens=21,
        output_tokens=37,
        timing={"received": 0.1, "recorded": 0.6, "connected": 0.7, "responded": 1.2, "last_byte": 1.3, "finished": 1.9},
        error="",
        answer_error="",
        stop_reason="stop",
        tool_calls=0,
        secrets=intent.secrets,
    )


def journal_pieces(folder: Path) -> Measured:
    builder = RowBuilder(key=KEY, capture="redacted")
    answer = compact(ANSWERS["openai"])
    stream = b"".join(stream_chunks(openai_event))
    for turns in (0, 20):
        intent = intent_of(conversation(turns), 0, builder)
        count = intent.history_length
        yield f"intent to row, {count} messages known", partial(builder.build, [intent]), 1
    outcome = outcome_of(intent, answer)
    yield "outcome to row, JSON", lambda: builder.build([outcome]), 1
    streamed = outcome_of(intent, stream)
    yield f"outcome to row, stream of {len(stream)} bytes", lambda: builder.build([streamed]), 1

    loop = asyncio.new_event_loop()
    try:
        backend = loop.run_until_complete(open_backend(f"sqlite+aiosqlite:///{folder / 'bench.db'}", sync="process"))
        numbers = iter(range(1 << 40))
        for size in (2, 32, 256):

            def commit(size: int = size) -> None:
                records: list[Record] = []
                for _ in range(size // 2):
                    intent = intent_of(conversation(0), next(numbers), builder)
                    records += (intent, outcome_of(intent, answer))
                loop.run_until_complete(backend.write(builder, records))

            yield f"batch of {size} records committed, per record", commit, size
        loop.run_until_complete(backend.close())
    finally:
        loop.close()


def control_pieces() -> Measured:
    feed = Feed()
    row = TransactionRow(transaction_id="0" * 26, started_at=0.0, path="/v1/chat/completions", model="gpt-4o-mini", status=200)
    yield "feed record published", lambda: feed.publish("finished", row), 1
    yield "feed read, 500 records", lambda: feed.since(feed.last_sequence - 500), 500
    shown = TransactionList(50_000)
    numbers = iter(range(1 << 40))
    yield "new row folded in", lambda: shown.fold(TransactionRow(transaction_id=f"{next(numbers):026}", started_at=0.0)), 1
    chosen = parse("status>=400 or model:gpt-4* latency>800")
    yield "row tested by a filter of three terms", lambda: chosen.matches(row), 1


@contextmanager
def pieces() -> Iterator[Measured]:
    def all_of_them(folder: Path) -> Measured:
        yield from wire_pieces()
        yield from session_pieces()
        yield from secret_pieces()
        yield from journal_pieces(folder)
        yield from control_pieces()

    with tempfile.TemporaryDirectory(prefix="luthien-micro-") as folder:
        yield all_of_them(Path(folder))


def row_bytes(count: int = 10_000) -> float:
    """Memory of one finished row in the live view."""
    shown = TransactionList(count)
    tracemalloc.start()
    for number in range(count):
        row = TransactionRow(transaction_id=f"{number:026}", started_at=number * 1.5, started_monotonic=number * 1.25)
        row.session_id, row.preview = f"session-{number}", f"Watch {number}. What lies a day's sail west of the harbour?"
        row.total_ms, row.ttft_ms, row.overhead_ms = number * 0.5, number * 0.25, number * 0.125
        shown.fold(row)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / count


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro", description="Microseconds of single pieces.")
    parser.add_argument("words", nargs="*", help="only pieces whose name holds one of these")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: dict[str, float] = {}
    with pieces() as measured:
        for name, run, count in measured:
            if given.words and not any(word in name for word in given.words):
                continue
            found[name] = rounded(best_us(run) / count)
            if not given.json:
                print(f"{found[name]:>10g} us  {name}", flush=True)
    if given.json:
        print(json.dumps({"microseconds": found, "row_bytes": rounded(row_bytes()), "sqlite": sqlite3.sqlite_version}, indent=2))
    elif not given.words:
        print(f"{row_bytes():>10.0f} B   a finished row in the live view")
    return 0


if __name__ == "__main__":
    sys.exit(main())
