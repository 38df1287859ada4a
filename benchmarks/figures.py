"""Arithmetic on measured values: percentiles, medians and a summary of a list of latencies."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

__all__ = ["median", "percentile", "rounded", "spread_us"]


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile of values in ascending order; 0 of none."""
    if not ascending:
        return 0.0
    rank = max(0, -(-len(ascending) * percent // 100) - 1)
    return ascending[int(rank)]


def spread_us(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and max of values in microseconds, and how many there were."""
    ascending = sorted(values)
    return {
        "count": len(ascending),
        "p50_us": rounded(percentile(ascending, 50)),
        "p99_us": rounded(percentile(ascending, 99)),
        "max_us": rounded(ascending[-1] if ascending else 0.0),
    }


def rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")
