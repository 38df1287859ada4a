"""`trace`: events to an HTTP collector, in batches, tried again for as long as it takes.

Threads of its own send, in spare time, so a collector that refuses, stalls or is away delays nothing but its own events. They
wait in memory, then in files of the data folder, which survive a restart and are bounded. Three ways to say a batch: a JSON
array, JSON lines, or each event in a request of its own. At least once: after a crash a collector may see events again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from hashlib import blake2b
from typing import Literal
from urllib.parse import urlsplit

import httpx
from pydantic import AliasChoices, Field, SecretStr, field_validator

from proxy_core.errors import ConfigurationError
from proxy_core.interceptors.base import Config, Interceptor
from proxy_core.interceptors.events import Event
from proxy_core.interceptors.outbox import MAX_IN_MEMORY, Outbox
from proxy_core.interceptors.seldom import Seldom
from proxy_core.interceptors.spare_time import SpareTime
from proxy_core.interceptors.surroundings import Surroundings

log = logging.getLogger(__name__)

REFUSED_FOR_GOOD = frozenset({400, 413, 415, 422})
"""Statuses after which the same events are not sent again: they would be refused again."""
FIRST_WAIT_S, LAST_WAIT_S = 0.5, 60.0
LAST_TRY_S = 1.5
"""What waits when luthien stops is sent for so long, and goes to disk then."""
MAX_ANSWER_BYTES = 65_536
_TYPES = {"array": "application/json", "lines": "application/x-ndjson", "single": "application/json"}


class TraceConfig(Config):
    url: str = Field(validation_alias=AliasChoices("url", "api_url"))
    """Where events are posted to, path included."""
    access_key: SecretStr | None = None
    """Sent as `authorization: Bearer …`; best as `${VARIABLE}`."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Further headers."""
    send: Literal["array", "lines", "single"] = "array"
    """How a batch is said: one JSON array, JSON lines, or a request for each event."""
    batch_size: int = Field(default=500, ge=1, le=10_000)
    """Events of one request at most."""
    batch_interval_s: float = Field(default=1.0, ge=0.01, le=60)
    """Longest time that an event waits for others."""
    timeout_s: float = Field(default=10.0, gt=0, le=300, validation_alias=AliasChoices("timeout_s", "timeout"))
    """Longest pause of the collector while a request is under way."""
    spool_mb: float = Field(default=64.0, ge=1, le=100_000)
    """Events kept on disk while the collector does not take them, in MB; above it the oldest are dropped and counted."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give a URL like https://collector.example.com/v1/events")
        if parts.username or parts.password:
            raise ValueError("give a credential as access_key or in headers, not in the URL")
        return value


class Trace(Interceptor[TraceConfig]):
    """Sends events to a collector."""

    config_model = TraceConfig

    def __init__(self, config: TraceConfig, surroundings: Surroundings) -> None:
        super().__init__(config, surroundings)
        parts = urlsplit(config.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if (parts.hostname or "", port) in surroundings.own_addresses:
            raise ConfigurationError(f"url: {config.url} is luthien itself; each event would make more of them")
        name = blake2b(config.url.encode("utf-8"), digest_size=6).hexdigest()
        self._outbox = Outbox(surroundings.data_dir / "spool" / f"trace-{name}", max_bytes=int(config.spool_mb * 1_048_576))
        self._closing = threading.Event()
        self._due = threading.Event()
        """A batch is full, or luthien stops."""
        self._turns = SpareTime("trace", self._send_in_spare_time, self._send_at_once)
        self._client: httpx.Client | None = None
        self._wait_s = 0.0
        """Before the next try, where the last one failed."""
        self._refused = 0
        self._seldom = Seldom(log)

    @property
    def dropped(self) -> int:  # type: ignore[override]
        return self._outbox.dropped + self._refused

    def start(self) -> None:
        try:
            self._outbox.open()
        except OSError as fault:
            self._seldom.warn("trace: %s", f"events that the collector does not take will be lost: {fault}")
        self._client = self._made_client()
        self._turns.start()

    def events(self, events: Sequence[Event]) -> None:
        for event in events:
            self._outbox.put(event.line + b"\n")
        if self._outbox.in_memory >= self.config.batch_size:
            self._due.set()
            if self._is_late():
                self._turns.hasten()

    def close(self) -> None:
        self._closing.set()
        self._due.set()
        if self._client is not None:
            self._turns.hasten()
            self._turns.join(LAST_TRY_S + 0.5)
        self._outbox.close()

    def _made_client(self) -> httpx.Client:
        config = self.config
        headers = {"user-agent": "luthien", "content-type": _TYPES[config.send]}
        if config.access_key is not None:
            headers["authorization"] = f"Bearer {config.access_key.get_secret_value()}"
        headers |= {name: value.get_secret_value() for name, value in config.headers.items()}
        return httpx.Client(headers=headers, timeout=config.timeout_s)

    def _is_late(self) -> bool:
        """Whether so much waits that it must not wait for spare time; where the collector takes nothing, haste does not help."""
        return not self._wait_s and 2 * self._outbox.in_memory >= MAX_IN_MEMORY

    # --- in its own threads ---

    def _send_in_spare_time(self) -> None:
        assert self._client is not None  # noqa: S101 - started with one
        while not self._turns.is_urgent():
            self._take_turn(self._client)

    def _send_at_once(self) -> bool:
        assert self._client is not None  # noqa: S101 - started with one
        while self._is_late() and not self._closing.is_set():
            self._take_turn(self._client)
        self._turns.calm()
        if not self._closing.is_set():  # if it is set from here on, it is urgent again
            return True
        with closing(self._client) as client:
            deadline = time.monotonic() + LAST_TRY_S
            while self._outbox.waiting and time.monotonic() < deadline and self._send_batch(client):
                pass
        return False

    def _take_turn(self, client: httpx.Client) -> None:
        """Wait until something is to be sent, and send it."""
        if self._wait_s:
            self._closing.wait(self._wait_s)
        elif not self._outbox.backlog and self._outbox.in_memory < self.config.batch_size:
            self._due.wait(self.config.batch_interval_s)
        self._due.clear()
        if self._send_batch(client):
            self._wait_s = 0.0
        else:
            self._wait_s = min(LAST_WAIT_S, max(FIRST_WAIT_S, self._wait_s * 2)) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads

    def _send_batch(self, client: httpx.Client) -> bool:
        """Send the oldest events; False where the collector does not take them now."""
        lines = self._outbox.take(self.config.batch_size)
        if not lines:
            return True
        if self.config.send == "single":
            return all(self._post(client, line[:-1], 1) for line in lines)
        body = b"".join(lines) if self.config.send == "lines" else b"[" + b",".join(line[:-1] for line in lines) + b"]"
        return self._post(client, body, len(lines))

    def _post(self, client: httpx.Client, body: bytes, count: int) -> bool:
        try:
            with client.stream("POST", self.config.url, content=body) as response:
                status = response.status_code
                size = 0
                for chunk in response.iter_raw():  # read to its end, or the connection cannot be used again
                    size += len(chunk)
                    if size > MAX_ANSWER_BYTES:
                        break
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as fault:
            return self._failed(f"{type(fault).__name__}: {fault}")
        if status < 300:
            self._outbox.done(count)
            return True
        if status in REFUSED_FOR_GOOD:
            self._refused += count
            self._outbox.done(count)
            self._seldom.warn("trace: %s", f"the collector refused {count} events for good with status {status}")
            return True
        return self._failed(f"status {status}")

    def _failed(self, why: str) -> bool:
        self._seldom.warn("trace: %s", f"the collector does not take events ({why}); they wait in the spool of the data folder")
        try:
            self._outbox.failed()
        except OSError as fault:
            self._seldom.warn("trace: %s", f"events are lost, because the spool cannot be written: {fault}")
        return False
