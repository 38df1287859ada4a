"""A gateway for the screen's tests: fixed rows, a clock that is set by hand, and no traffic."""

from __future__ import annotations

import json
from typing import Any

from proxy_core.control.feed import Feed, FeedKind, FeedRecord
from proxy_core.control.plane import GatewayState, Timing, TransactionDetail
from proxy_core.control.rows import TransactionRow
from proxy_core.logs import LogLine

START = 1_772_373_731.0
"""2026-03-01 14:02:11 UTC."""


class FakeClock:
    """Steady seconds that move only when told."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeLogs:
    """Messages given by the test."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []

    def add(self, level: str, logger: str, message: str) -> None:
        number = len(self.lines) + 1
        self.lines.append(LogLine(number, START + number, level, logger, message))

    def since(self, sequence: int) -> list[LogLine]:
        return self.lines[sequence:]


class FakePlane:
    """Answers as a gateway would, from what the test put in."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.feed = Feed()
        self.details: dict[str, TransactionDetail] = {}
        self.live: dict[str, tuple[bytes, bool]] = {}
        self.past: list[TransactionRow] = []
        self.shutdowns = 0
        self.gateway = GatewayState(
            address="127.0.0.1:4000",
            status="serving",
            started_at=START,
            active=0,
            total=0,
            store="sqlite",
            journal_status="ok",
            journal_queue=0,
            journal_oldest_ms=0.0,
            spilled=0,
            loop_lag_ms=2.0,
            upstreams=(("openai", "https://api.openai.com"),),
        )

    def state(self) -> GatewayState:
        return GatewayState(**{name: getattr(self.gateway, name) for name in self.gateway.__struct_fields__})

    def events(self, after: int, limit: int = 2_000) -> tuple[list[FeedRecord], int]:
        return self.feed.since(after, limit)

    async def history(self, limit: int, before: str | None = None) -> list[TransactionRow]:
        return self.past[:limit]

    async def detail(self, transaction_id: str) -> TransactionDetail | None:
        return self.details.get(transaction_id)

    def live_body(self, transaction_id: str, offset: int) -> tuple[bytes, bool] | None:
        if transaction_id not in self.live:
            return None
        body, ended = self.live[transaction_id]
        return body[offset:], ended

    def add(self, row: TransactionRow, *kinds: FeedKind) -> TransactionRow:
        """Publish a row; without kinds as its state suggests."""
        self.gateway.total += 1
        self.gateway.active += row.state != "done"
        for kind in kinds or (("started", "finished") if row.state == "done" else ("started",)):
            self.feed.publish(kind, row)
        return row


def make_row(number: int, **changes: Any) -> TransactionRow:
    """A finished, ordinary transaction; `changes` make it another one."""
    values: dict[str, Any] = {
        "transaction_id": f"01J9ZK{number:06d}",
        "started_at": START + number,
        "started_monotonic": 940.0 + number,
        "path": "/v1/chat/completions",
        "dialect": "openai",
        "operation": "chat",
        "state": "done",
        "outcome": "ok",
        "session_id": "refactor-a3",
        "agent": "codex",
        "model": "gpt-5.4-mini",
        "upstream": "openai",
        "reason": "default",
        "status": 200,
        "input_tokens": 12_100,
        "output_tokens": 410,
        "cost_usd": 0.0131,
        "ttft_ms": 280.0,
        "total_ms": 3_100.0,
        "overhead_ms": 0.7,
        "request_bytes": 18_233,
        "response_bytes": 4_120,
        "chunks": 37,
        "preview": "Rename the module and fix its imports.",
        "stop_reason": "stop",
    }
    values.update(changes)
    return TransactionRow(**values)


def sample_rows() -> list[TransactionRow]:
    """One row of every kind that the live view shows."""
    anthropic = {"dialect": "anthropic", "operation": "messages", "path": "/v1/messages", "upstream": "anthropic"}
    unknown: dict[str, Any] = {"output_tokens": None, "cost_usd": None, "ttft_ms": None, "total_ms": None}
    return [
        make_row(0),
        make_row(1, output_tokens=388, input_tokens=12_600, ttft_ms=301.0, total_ms=2_800.0, verdict="modify"),
        make_row(
            2,
            **anthropic,
            model="claude-sonnet-4-5",
            agent="claude",
            session_id="ops-7f",
            input_tokens=31_000,
            output_tokens=960,
            cost_usd=0.1074,
            ttft_ms=412.0,
            total_ms=51_400.0,
            stop_reason="tool_use",
            tool_calls=1,
            stream=True,
        ),
        make_row(
            3,
            dialect="ollama",
            operation="ollama_chat",
            path="/api/chat",
            upstream="local",
            model="llama3.2",
            agent="qwen",
            session_id="notes-11",
            input_tokens=402,
            output_tokens=120,
            cost_usd=0.0,
            ttft_ms=90.0,
            total_ms=812.0,
            verdict="route",
        ),
        make_row(
            4,
            model="gpt-4o",
            session_id="bench-2",
            agent="",
            status=429,
            outcome="error",
            error="rate limit reached",
            input_tokens=1_000,
            **{**unknown, "total_ms": 104.0},
        ),
        make_row(
            5,
            model="gpt-5.4",
            session_id="mail-c9",
            agent="agent-x",
            status=400,
            outcome="refused",
            verdict="deny",
            input_tokens=2_200,
            **{**unknown, "total_ms": 2.0},
            error="denied by policy",
        ),
        make_row(
            6,
            model="o4-mini",
            session_id="bench-2",
            agent="",
            outcome="truncated",
            output_tokens=77,
            cost_usd=None,
            total_ms=6_020.0,
            error="the upstream closed the stream before its end",
            stream=True,
        ),
        make_row(
            7,
            **anthropic,
            model="claude-haiku-4-5",
            agent="claude",
            session_id="ops-7f/sub-1",
            outcome="cancelled",
            output_tokens=31,
            cost_usd=0.0004,
            total_ms=940.0,
            stream=True,
        ),
        make_row(
            8,
            session_id="",
            agent="",
            model="text-embedding-3-small",
            operation="embeddings",
            path="/v1/embeddings",
            input_tokens=880,
            output_tokens=None,
            cost_usd=0.00002,
            ttft_ms=61.0,
            total_ms=64.0,
        ),
        make_row(
            9,
            **anthropic,
            model="claude-haiku-4-5",
            agent="claude",
            session_id="ops-7f/sub-1",
            state="streaming",
            outcome="",
            started_monotonic=997.0,
            input_tokens=30_200,
            status=200,
            **{**unknown, "ttft_ms": 388.0},
            stream=True,
        ),
        make_row(
            10,
            model="gpt-5.4",
            session_id="mail-c9",
            agent="agent-x",
            state="waiting",
            outcome="",
            status=None,
            started_monotonic=998.5,
            input_tokens=None,
            **unknown,
            stream=True,
        ),
    ]


def sample_plane() -> FakePlane:
    """A plane with a row of every kind, and the details of two of them."""
    plane = FakePlane()
    for number, row in enumerate(sample_rows()):
        if row.state == "done":
            row.started_monotonic = 943.0 + (0, 2, 9, 17, 18, 26, 27, 27, 46)[number]
        plane.add(row)
        plane.details[row.transaction_id] = sample_detail(row)
    running = next(row for row in sample_rows() if row.state == "streaming")
    plane.live[running.transaction_id] = (b"".join(anthropic_events("The disk is full of old builds.", done=False)), False)
    plane.gateway.total = 1_204
    return plane


def anthropic_events(text: str, *, done: bool = True) -> list[bytes]:
    """A stream of the Anthropic dialect, word by word."""

    def event(name: str, **fields: Any) -> bytes:
        return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()

    events = [
        event("message_start", message={"id": "msg_01", "role": "assistant", "content": [], "usage": {"input_tokens": 31000}}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    ]
    for word in text.split(" "):
        events.append(event("content_block_delta", index=0, delta={"type": "text_delta", "text": f"{word} "}))
    if done:
        events += [
            event("content_block_stop", index=0),
            event(
                "content_block_start", index=1, content_block={"type": "tool_use", "id": "call_01", "name": "bash", "input": {}}
            ),
            event(
                "content_block_delta",
                index=1,
                delta={
                    "type": "input_json_delta",
                    "partial_json": '{"command": "rm -rf /srv/builds/2025-* && docker system prune -af"}',
                },
            ),
            event("content_block_stop", index=1),
            event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 960}),
            event("message_stop"),
        ]
    return events


def sample_detail(row: TransactionRow) -> TransactionDetail:
    """Bodies that suit the row."""
    question = "Clean up the staging server, it is out of disk."
    if row.dialect == "anthropic":
        request = {
            "model": row.model,
            "max_tokens": 4096,
            "stream": True,
            "system": "You keep servers healthy.",
            "messages": [{"role": "user", "content": question}],
            "tools": [{"name": "bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}}],
        }
        done = row.state == "done"
        response = b"".join(anthropic_events("I'll look at what fills the disk and remove old builds.", done=done))
        kind = "text/event-stream; charset=utf-8"
    else:
        request = {
            "model": row.model,
            "messages": [
                {"role": "system", "content": "You are a careful engineer."},
                {"role": "user", "content": row.preview},
            ],
            "temperature": 0.2,
        }
        if row.outcome == "error":
            answer: dict[str, Any] = {"error": {"message": row.error, "type": "rate_limit_error", "code": "rate_limit_exceeded"}}
        else:
            answer = {
                "id": "chatcmpl-9",
                "object": "chat.completion",
                "model": row.model,
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": "Done: 14 files changed.\nAll tests pass."},
                    }
                ],
                "usage": {"prompt_tokens": row.input_tokens, "completion_tokens": row.output_tokens},
            }
        response = b"" if row.state != "done" else json.dumps(answer).encode()
        kind = "application/json"
    return TransactionDetail(
        row=row,
        request_headers=(
            ("host", "127.0.0.1:4000"),
            ("authorization", "[redacted]"),
            ("content-type", "application/json"),
            ("user-agent", "sdk/2.1"),
        ),
        request_body=json.dumps(request).encode(),
        response_headers=(("content-type", kind), ("request-id", "req_011CVa"), ("retry-after", "2")),
        response_body=response,
        timing=Timing(
            received=0.3,
            recorded=0.9,
            connected=41.2,
            responded=268.0,
            first_token=row.ttft_ms,
            last_byte=row.total_ms,
            finished=None if row.total_ms is None else row.total_ms + 0.6,
        ),
    )
