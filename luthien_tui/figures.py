"""Numbers as an operator reads them: short, aligned, and honest. Unknown is `–`, never 0."""

from __future__ import annotations

import time
from itertools import pairwise

UNKNOWN = "–"


def count(value: float | None) -> str:
    """`410`, `12.1k`, `3.4M`."""
    if value is None:
        return UNKNOWN
    if value < 1_000:
        return f"{value:.0f}"
    if value < 999_950:
        return f"{value / 1_000:.1f}k"
    return f"{value / 1_000_000:.1f}M"


def size(value: int) -> str:
    """Bytes: `812 B`, `4.2 kB`, `1.3 MB`."""
    if value < 1_000:
        return f"{value} B"
    if value < 999_950:
        return f"{value / 1_000:.1f} kB"
    return f"{value / 1_000_000:.1f} MB"


def usd(value: float | None) -> str:
    """`$0.013`, `$2.41`, `$120`; smaller than a hundredth of a cent shows as `<$.0001`."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "$0"
    if value < 0.0001:
        return "<$.0001"
    if value < 0.01:
        return f"${value:.4f}"
    if value < 1:
        return f"${value:.3f}"
    return f"${value:.2f}" if value < 1_000 else f"${value:,.0f}"


def exact_usd(value: float | None) -> str:
    """For columns of text: `$0.0131`, `$1,204.5000`, `-`; smaller than a hundredth of a cent is `<$0.0001`, never nothing."""
    if value is None:
        return "-"
    return "<$0.0001" if 0 < value < 0.0001 else f"${value:,.4f}"


def duration(milliseconds: float | None) -> str:
    """`2ms`, `280ms`, `3.1s`, `4:07`, `1:02:33`."""
    if milliseconds is None:
        return UNKNOWN
    if milliseconds < 9.95:
        return f"{milliseconds:.1f}ms" if milliseconds < 0.95 else f"{milliseconds:.0f}ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f}ms"
    if milliseconds < 99_950:
        return f"{milliseconds / 1_000:.1f}s"
    seconds = int(milliseconds / 1_000)
    if seconds < 3_600:
        return f"{seconds // 60}:{seconds % 60:02d}"
    return f"{seconds // 3_600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def countdown(seconds: float) -> str:
    """Seconds as a clock that runs: `0:07`, `9:18`, `1:02:33`; never below zero."""
    whole = max(0, int(seconds))
    if whole < 3_600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3_600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def share(value: float | None) -> str:
    """`0.4%`, `12%`."""
    if value is None:
        return UNKNOWN
    percent = value * 100
    return f"{percent:.1f}%" if 0 < percent < 9.95 else f"{percent:.0f}%"


def rate(value: float) -> str:
    """`0`, `0.3`, `12.4`, `128`, `1.8k`."""
    if value == 0:
        return "0"
    return f"{value:.1f}" if value < 99.95 else count(value)


def age(seconds: float) -> str:
    """How long ago: `now`, `12s`, `4m`, `2h`, `3d`."""
    if seconds < 1:
        return "now"
    if seconds < 60:
        return f"{seconds:.0f}s"
    if seconds < 3_600:
        return f"{seconds // 60:.0f}m"
    if seconds < 86_400:
        return f"{seconds // 3_600:.0f}h"
    return f"{seconds // 86_400:.0f}d"


def clock(unix_seconds: float) -> str:
    """Local time of day, `14:02:11`."""
    return time.strftime("%H:%M:%S", time.localtime(unix_seconds))


def moment(unix_seconds: float) -> str:
    """Local date and time, `2026-03-01 14:02:11`."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_seconds))


def gauge(part: float, width: int) -> tuple[str, str]:
    """A bar of `width` cells of which `part` (0 to 1) is full, as its two halves; some is left of it until nothing is."""
    full = max(1 if part > 0 else 0, min(width, round(part * width)))
    return "█" * full, "░" * (width - full)


BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: tuple[int, ...] | list[int], width: int) -> str:
    """The values as bars, scaled to the largest; `width` cells, each the largest of those that share it. Zero is a blank."""
    if not values or width <= 0:
        return " " * max(0, width)
    if len(values) > width:
        edges = [round(cell * len(values) / width) for cell in range(width + 1)]
        values = [max(values[low:high], default=0) for low, high in pairwise(edges)]
    top = max(values)
    if top == 0:
        return " " * width
    bars = "".join(BARS[max(0, -(-value * len(BARS) // top) - 1)] if value else " " for value in values)
    return bars.rjust(width)
