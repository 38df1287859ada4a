"""Arithmetic on measured values: percentiles, medians, ratios of pairs and a summary of a list of latencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median, stdev

__all__ = ["mean_of_ratios", "median", "percentile", "rounded", "spread_us"]

EDGES = 8
"""One pair of so many is left out at each end: a stall of the machine that met one of two loads."""


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


def mean_of_ratios(groups: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, float]:
    """Geometric mean of the ratios of pairs, without those at the edges of each group, and its standard error.

    The error comes from how far the groups are apart, because what differs between two of them meets all of their pairs. All
    values are above 0. Raises ValueError for fewer than two groups, or where one is empty.
    """
    means: list[float] = []
    for pairs in groups:
        logs = sorted(math.log(upper / lower) for upper, lower in pairs)
        edge = len(logs) // EDGES
        means.append(fmean(logs[edge : len(logs) - edge]))
    ratio = math.exp(fmean(means))
    return ratio, ratio * stdev(means) / math.sqrt(len(means))
