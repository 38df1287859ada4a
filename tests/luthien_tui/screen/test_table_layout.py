"""The columns fill the width, whatever it is."""

from __future__ import annotations

import pytest

from luthien_tui.figures import age, count, duration, exact_usd, rate, share, size, sparkline, usd
from luthien_tui.widgets.transaction_table import EXPENDABLE, layout


@pytest.mark.parametrize("width", range(59, 260))
def test_columns_fill_the_width_exactly(width: int) -> None:
    columns = layout(width)
    assert 1 + sum(cells for _, cells in columns) + len(columns) - 1 == width
    assert all(cells >= column.width for column, cells in columns)


@pytest.mark.parametrize(
    ("width", "names"),
    [
        (79, "time session model status verdict cost total"),
        (119, "time session agent model via status verdict in out cost ttft total"),
        (179, "time session agent model via status verdict in out cost ttft total preview"),
    ],
)
def test_columns_of_each_size(width: int, names: str) -> None:
    assert [column.name for column, _ in layout(width)] == names.split()


def test_the_least_useful_goes_first() -> None:
    assert [name for name in EXPENDABLE if name not in {column.name for column, _ in layout(59)}] == ["cost", "time"]


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (count(None), "–"),
        (count(0), "0"),
        (count(999), "999"),
        (count(12_100), "12.1k"),
        (count(999_990), "1.0M"),
        (usd(None), "–"),
        (usd(0), "$0"),
        (usd(0.00002), "<$.0001"),
        (usd(0.0042), "$0.0042"),
        (usd(0.0131), "$0.013"),
        (usd(2.414), "$2.41"),
        (usd(1e6), "$1,000,000"),
        (exact_usd(None), "-"),
        (exact_usd(0), "$0.0000"),
        (exact_usd(0.00002), "<$0.0001"),
        (exact_usd(1204.5), "$1,204.5000"),
        (duration(None), "–"),
        (duration(0.3), "0.3ms"),
        (duration(2), "2ms"),
        (duration(999.6), "1.0s"),
        (duration(51_400), "51.4s"),
        (duration(100_000), "1:40"),
        (duration(3_723_000), "1:02:03"),
        (age(0.4), "now"),
        (age(12.2), "12s"),
        (age(3_599), "59m"),
        (age(7_300), "2h"),
        (age(200_000), "2d"),
        (share(None), "–"),
        (share(0), "0%"),
        (share(0.004), "0.4%"),
        (share(0.12), "12%"),
        (rate(0), "0"),
        (rate(12.44), "12.4"),
        (rate(1_800), "1.8k"),
        (size(812), "812 B"),
        (size(4_120), "4.1 kB"),
        (size(1_300_000), "1.3 MB"),
    ],
)
def test_figures(shown: str, text: str) -> None:
    assert shown == text


def test_sparkline_scales_to_the_largest() -> None:
    assert sparkline([0, 1, 4, 8], 4) == " ▁▄█"
    assert sparkline([1, 9, 0, 0, 3, 0], 3) == "█ ▃"
    assert sparkline([5], 3) == "  █"
    assert sparkline([0, 0], 2) == "  "
