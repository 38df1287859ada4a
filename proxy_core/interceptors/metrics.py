"""The gateway's Prometheus metrics: counted as transactions end, read when somebody asks.

Labels hold configured names and closed sets only, never anything that a request chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from proxy_core.transaction import TransactionRow

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_OVERHEAD = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)


class GatewayMetrics:
    """All metrics of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self._requests = Counter("luthien_requests", "Transactions that ended.", ["upstream", "api", "status"], registry=registry)
        self._seconds = Histogram(
            "luthien_request_seconds", "First byte in to last byte out.", ["upstream"], buckets=_SECONDS, registry=registry
        )
        self._overhead = Histogram(
            "luthien_overhead_seconds", "Time in luthien before the request was sent on.", buckets=_OVERHEAD, registry=registry
        )
        self._first_token = Histogram(
            "luthien_time_to_first_token_seconds",
            "First byte in to first token.",
            ["upstream"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter("luthien_tokens", "Tokens as reported.", ["upstream", "direction"], registry=registry)
        self._cost = Counter("luthien_cost_usd", "Cost of all transactions with a known price.", registry=registry)
        self._cancelled = Counter(
            "luthien_upstream_cancelled", "Upstream requests cut because the client left or luthien stopped.", registry=registry
        )
        self._requests_of = lru_cache(maxsize=1_000)(self._requests.labels)
        self._seconds_of = lru_cache(maxsize=100)(self._seconds.labels)
        self._first_token_of = lru_cache(maxsize=100)(self._first_token.labels)
        self._tokens_of = lru_cache(maxsize=200)(self._tokens.labels)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when it is asked for."""
        Gauge(name, meaning, registry=self.registry).set_function(value)

    def watch_counts(self, name: str, meaning: str, label: str, counts: Callable[[], Mapping[str, int]]) -> None:
        """Add a counter with one label whose values somebody else keeps."""
        self.registry.register(_Counts(name, meaning, label, counts))

    def finished(self, row: TransactionRow) -> None:
        """Count a transaction that has ended."""
        upstream = row.upstream or "none"
        self._requests_of(upstream, row.dialect or "none", str(row.status or 0)).inc()
        if row.total_ms is not None:
            self._seconds_of(upstream).observe(row.total_ms / 1e3)
        if row.overhead_ms is not None:
            self._overhead.observe(row.overhead_ms / 1e3)
        if row.ttft_ms is not None:
            self._first_token_of(upstream).observe(row.ttft_ms / 1e3)
        if row.input_tokens:
            self._tokens_of(upstream, "input").inc(row.input_tokens)
        if row.output_tokens:
            self._tokens_of(upstream, "output").inc(row.output_tokens)
        if row.cost_usd:
            self._cost.inc(row.cost_usd)

    def cancelled(self) -> None:
        self._cancelled.inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Counts(Collector):
    def __init__(self, name: str, meaning: str, label: str, counts: Callable[[], Mapping[str, int]]) -> None:
        self._name, self._meaning, self._label, self._counts = name, meaning, label, counts

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._meaning, labels=[self._label])
        for value, count in self._counts().items():
            family.add_metric([value], count)
        yield family
