"""A blocking HTTP/1.1 client on a bare socket: what a latency is measured with, so that no client library is in the figure.

One connection, one request at a time, `Content-Length` and chunked bodies. Times are CLOCK_MONOTONIC in microseconds, the
clock the upstream of the benchmarks stamps its events with.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.processes import BenchmarkError

SENT_AT = re.compile(rb'"sent_us":(\d+)')
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


def now_us() -> float:
    return time.monotonic_ns() / 1000


def question(shape: str, *, stream: bool, text: str = "What lies a day's sail west of the harbour?") -> bytes:
    """A small request body."""
    body: dict[str, object] = {"model": "claude-sonnet-4-5" if shape == "anthropic" else "gpt-4o-mini", "max_tokens": 64}
    if stream:
        body["stream"] = True
    body["messages"] = [{"role": "user", "content": text}]
    return json.dumps(body, separators=(",", ":")).encode()


def request_bytes(shape: str, body: bytes, **headers: object) -> bytes:
    """The whole request; `x_mock_gap_us=…` becomes the header `x-mock-gap-us`."""
    lines = [f"POST {PATHS[shape]} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json", f"content-length: {len(body)}"]
    if shape == "anthropic":
        lines += ["x-api-key: sk-ant-benchmark", "anthropic-version: 2023-06-01"]
    else:
        lines.append("authorization: Bearer sk-benchmark")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    received_us: float
    data: bytes

    @property
    def delay_us(self) -> float | None:
        """From its sending by the upstream to its arrival here; None for an event that is not stamped."""
        found = SENT_AT.search(self.data)
        return self.received_us - int(found[1]) if found else None


class Connection:
    """A kept-alive connection to a loopback port."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._waiting = b""

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and read its whole answer: status and body."""
        self._socket.sendall(request)
        status, pieces = self._answer()
        return status, b"".join(pieces)

    def events(self, request: bytes) -> Iterator[Event]:
        """Send a request and yield the events of its stream as they arrive."""
        self._socket.sendall(request)
        status, pieces = self._answer()
        if status != 200:
            raise BenchmarkError(f"a stream was answered with status {status}")
        held = b""
        for piece in pieces:
            arrived = now_us()
            held += piece
            *whole, held = held.split(b"\n\n")
            for event in whole:
                yield Event(arrived, event)

    def _more(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            raise BenchmarkError("the proxy closed the connection inside an answer")
        self._waiting += data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._waiting:
            self._more()
        before, _, self._waiting = self._waiting.partition(mark)
        return before

    def _answer(self) -> tuple[int, Iterator[bytes]]:
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        if "chunked" in headers.get("transfer-encoding", ""):
            return status, self._chunks()
        return status, self._sized(int(headers.get("content-length", "0")))

    def _sized(self, length: int) -> Iterator[bytes]:
        while len(self._waiting) < length:
            self._more()
        body, self._waiting = self._waiting[:length], self._waiting[length:]
        yield body

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._until(b"\r\n").split(b";")[0], 16):
            while len(self._waiting) < size + 2:
                self._more()
            chunk, self._waiting = self._waiting[:size], self._waiting[size + 2 :]
            yield chunk
        self._until(b"\r\n")
