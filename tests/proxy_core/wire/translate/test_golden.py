"""A second opinion: another gateway's golden translations, where the environment names a file of them.

LUTHIEN_TRANSLATION_GOLDEN is a JSONL file, plain or gzipped. Compared is what a translation means; where luthien's words differ
on purpose, `evals.translation` says why.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from evals.translation import ON_PURPOSE, Row, compare, rows_of

_FILE = os.environ.get("LUTHIEN_TRANSLATION_GOLDEN", "")
pytestmark = pytest.mark.skipif(not _FILE, reason="LUTHIEN_TRANSLATION_GOLDEN names no file")


def rows() -> list[Any]:
    return [pytest.param(row, id=row.name) for row in rows_of(Path(_FILE))] if _FILE else []


@pytest.mark.parametrize("row", rows())
def test_it_means_the_same(row: Row) -> None:
    found = compare(row)
    assert not found.problem
    assert set(found.fields) <= set(ON_PURPOSE)
