"""The gateway's Prometheus metrics: counted as transactions end, read when somebody asks.

Labels hold configured names and closed sets only, never anything that a request chooses.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from proxy_core.transaction_row import TransactionRow

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_OVERHEAD = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)


class GatewayMetrics(Collector):
    """All metrics of one gateway, in a registry of its own.

    What every transaction counts is kept in plain numbers: prometheus-client's own counters cost more than the rest of
    the record, and are only needed when somebody scrapes.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counts: dict[tuple[str, str, int | None], _Count] = {}
        """By upstream, API and status."""
        self._cost = 0.0
        self._cancelled = 0
        self._followers: list[Callable[[TransactionRow], None]] = []
        self.registry.register(self)

    def follow(self, take: Callable[[TransactionRow], None]) -> None:
        """Give every transaction that ends to somebody else who counts; `take` must be quick."""
        self._followers.append(take)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when it is asked for."""
        Gauge(name, meaning, registry=self.registry).set_function(value)

    def watch_counts(self, name: str, meaning: str, label: str, counts: Callable[[], Mapping[str, int]]) -> None:
        """Add a counter with one label whose values somebody else keeps."""
        self.registry.register(_Counts(name, meaning, (label,), lambda: {(value,): count for value, count in counts().items()}))

    def watch_labelled(
        self, name: str, meaning: str, labels: Sequence[str], counts: Callable[[], Mapping[tuple[str, ...], int]]
    ) -> None:
        """Add a counter with several labels whose values somebody else keeps."""
        self.registry.register(_Counts(name, meaning, labels, counts))

    def finished(self, row: TransactionRow) -> None:
        """Count a transaction that has ended."""
        key = (row.upstream, row.dialect, row.status)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count()
        count.requests += 1
        if row.total_ms is not None:
            count.seconds.observe(row.total_ms / 1e3)
        if row.overhead_ms is not None:
            count.overhead.observe(row.overhead_ms / 1e3)
        if row.ttft_ms is not None:
            count.first_token.observe(row.ttft_ms / 1e3)
        count.input_tokens += row.input_tokens or 0
        count.output_tokens += row.output_tokens or 0
        if row.cost_usd:
            self._cost += row.cost_usd
        for take in self._followers:
            take(row)

    def cancelled(self) -> None:
        self._cancelled += 1

    def collect(self) -> Iterable[Metric]:
        """What the registry asks for at a scrape."""
        requests = CounterMetricFamily("luthien_requests", "Transactions that ended.", labels=["upstream", "api", "status"])
        by_upstream: dict[str, _Count] = {}
        everything = _Count()
        for (name, dialect, status), count in self._counts.items():
            requests.add_metric((name or "none", dialect or "none", str(status or 0)), count.requests)
            by_upstream.setdefault(name or "none", _Count()).add(count)
            everything.add(count)
        tokens = CounterMetricFamily("luthien_tokens", "Tokens as reported.", labels=["upstream", "direction"])
        seconds = HistogramMetricFamily("luthien_request_seconds", "First byte in to last byte out.", labels=["upstream"])
        first_token = HistogramMetricFamily(
            "luthien_time_to_first_token_seconds", "First byte in to first token.", labels=["upstream"]
        )
        overhead = HistogramMetricFamily("luthien_overhead_seconds", "Time in luthien before the request was sent on.", labels=[])
        for name, count in by_upstream.items():
            for direction, sum_of in (("input", count.input_tokens), ("output", count.output_tokens)):
                if sum_of:
                    tokens.add_metric((name, direction), sum_of)
            count.seconds.show(seconds, (name,))
            count.first_token.show(first_token, (name,))
        everything.overhead.show(overhead, ())
        yield requests
        yield tokens
        yield CounterMetricFamily("luthien_cost_usd", "Cost of all transactions with a known price.", value=self._cost)
        yield CounterMetricFamily(
            "luthien_upstream_cancelled",
            "Upstream requests cut because the client left or luthien stopped.",
            value=self._cancelled,
        )
        yield seconds
        yield first_token
        yield overhead

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Histogram:
    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def add(self, other: _Histogram) -> None:
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    def show(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Add it to a metric, where anything was observed."""
        if any(self.counts):
            bounds = [str(bound) for bound in self.bounds] + ["+Inf"]
            family.add_metric(labels, list(zip(bounds, accumulate(self.counts), strict=True)), self.sum)


class _Count:
    """What is counted for one upstream, API and status: one look-up a transaction."""

    __slots__ = ("first_token", "input_tokens", "output_tokens", "overhead", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.seconds = _Histogram(_SECONDS)
        self.first_token = _Histogram(_SECONDS)
        self.overhead = _Histogram(_OVERHEAD)

    def add(self, other: _Count) -> None:
        self.requests += other.requests
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.seconds.add(other.seconds)
        self.first_token.add(other.first_token)
        self.overhead.add(other.overhead)


class _Counts(Collector):
    def __init__(
        self, name: str, meaning: str, labels: Sequence[str], counts: Callable[[], Mapping[tuple[str, ...], int]]
    ) -> None:
        self._name, self._meaning, self._labels, self._counts = name, meaning, labels, counts

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, count in self._counts().items():
            family.add_metric(values, count)
        yield family
