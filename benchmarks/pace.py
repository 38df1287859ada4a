"""A load generator: `python -m benchmarks.pace PORT --rate 500 --seconds 10`, figures as one line of JSON.

With a rate it is an open loop: requests start when the clock says so, and a latency counts from that moment, so that a
stalled gateway cannot slow the load that measures it. Without a rate it keeps every connection busy (the stand-in for wrk).
Ends by itself after `seconds`, plus the answers still on their way (at most 5 s).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import deque

from benchmarks.figures import percentile
from benchmarks.plain_client import question, request_bytes

GRACE_S = 5.0
AT_ONCE, TURNS = 100, 10
"""Sessions that run beside each other, and requests of each."""


class Line(asyncio.Protocol):
    """One connection; tells the load when its answer is whole."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.transport: asyncio.Transport | None = None
        self.received = bytearray()
        self.due = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, request: bytes, due: float) -> None:
        assert self.transport is not None
        self.due = due
        self.busy = True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self._whole():
            status = int(self.received[9:12])
            self.received.clear()
            self.busy = False
            self.load.answered(self, status)

    def _whole(self) -> bool:
        head = self.received.find(b"\r\n\r\n")
        if head < 0:
            return False
        at = self.received.lower().find(b"content-length:", 0, head)
        if at >= 0:
            length = int(self.received[at + 15 : self.received.find(b"\r", at)])
            return len(self.received) >= head + 4 + length
        return self.received.endswith(b"0\r\n\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        self.load.lost(self)


class Load:
    """The requests of one run."""

    def __init__(self, port: int, requests: list[bytes], connections: int, rate: float) -> None:
        self.port = port
        self.requests = requests
        self.connections = connections
        self.rate = rate
        self.idle: deque[Line] = deque()
        self.latencies_us: list[float] = []
        self.late_us: list[float] = []
        """How late each request was sent: by a busy machine, or for want of an idle connection."""
        self.bad_status = 0
        self.broken = 0
        self.started = 0
        self.running = 0
        self.ended = False

    async def run(self, seconds: float) -> dict[str, float]:
        loop = asyncio.get_running_loop()
        lines = [(await loop.create_connection(lambda: Line(self), "127.0.0.1", self.port))[1] for _ in range(self.connections)]
        self.idle.extend(lines)
        begin = time.perf_counter()
        while (now := time.perf_counter()) < begin + seconds and self.broken < self.connections:
            if self.rate:
                while self.idle and self.started < (now - begin) * self.rate:
                    self.start(self.idle.popleft(), begin + self.started / self.rate)
            else:
                while self.idle:
                    self.start(self.idle.popleft(), time.perf_counter())
            await asyncio.sleep(0.001)
        self.ended = True
        took = time.perf_counter() - begin
        while self.running and time.perf_counter() < begin + seconds + GRACE_S:
            await asyncio.sleep(0.01)
        for line in lines:
            if line.transport is not None:
                line.transport.abort()
        return self.figures(took)

    def start(self, line: Line, due: float) -> None:
        request = self.requests[self.started % len(self.requests)]
        self.started += 1
        self.running += 1
        self.late_us.append((time.perf_counter() - due) * 1e6)
        line.send(request, due)

    def answered(self, line: Line, status: int) -> None:
        self.running -= 1
        self.latencies_us.append((time.perf_counter() - line.due) * 1e6)
        self.bad_status += status != 200
        if not self.rate and not self.ended:
            self.start(line, time.perf_counter())
        else:
            self.idle.append(line)

    def lost(self, line: Line) -> None:
        if line.busy:
            self.running -= 1
            self.broken += 1
        elif line in self.idle:
            self.idle.remove(line)

    def figures(self, seconds: float) -> dict[str, float]:
        values = sorted(self.latencies_us)
        return {
            "requests": len(values),
            "seconds": round(seconds, 6),
            "p50_us": percentile(values, 50),
            "p90_us": percentile(values, 90),
            "p99_us": percentile(values, 99),
            "max_us": values[-1] if values else 0.0,
            "sent_late_p99_us": percentile(sorted(self.late_us), 99),
            "bad_status": self.bad_status,
            "broken": self.broken,
            "unanswered": self.running,
        }


def in_sessions(shape: str, *, stream: bool, count: int) -> list[bytes]:
    """Requests of a hundred sessions at a time, which take turns; each has ten and another one begins in its place."""
    made: list[bytes] = []
    for number in range(count):
        place = number % AT_ONCE
        session = f"{os.getpid()}-{place}-{(number // AT_ONCE + place) // TURNS}"
        body = question(shape, stream=stream, text=f"Watch {number}. What lies west?")
        made.append(request_bytes(shape, body, x_luthien_session_id=session))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pace", description="Send requests at a steady rate.")
    parser.add_argument("port", type=int, help="loopback port to send to")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0 keeps every connection busy")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--shape", choices=("openai", "anthropic"), default="openai")
    parser.add_argument("--stream", action="store_true", help="ask for streams")
    parser.add_argument("--spread", action="store_true", help="1000 different conversations instead of one")
    parser.add_argument("--sessions", action="store_true", help="named sessions of ten requests each, a hundred at a time")
    given = parser.parse_args()
    if given.sessions:
        requests = in_sessions(given.shape, stream=given.stream, count=int(given.rate * given.seconds) + 1)
    else:
        texts = [f"Watch {number}. What lies west?" for number in range(1000 if given.spread else 1)]
        requests = [request_bytes(given.shape, question(given.shape, stream=given.stream, text=text)) for text in texts]
    load = Load(given.port, requests, given.connections, given.rate)
    print(json.dumps(asyncio.run(load.run(given.seconds))))


if __name__ == "__main__":
    main()
