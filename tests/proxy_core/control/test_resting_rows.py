"""Rows at rest: the same values come back, whatever stands in them, and they take less room."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from msgspec.structs import asdict

from proxy_core.control.resting_rows import at_rest, awake
from proxy_core.control.rows import TransactionRow


def ended(**values: Any) -> TransactionRow:
    return TransactionRow(transaction_id="01M802MXBNDNG1N4D4VE30814Z", started_at=1795299112.3094788, state="done", **values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"outcome": "error", "status": 502, "verdict": "deny", "error": "the upstream\nended early", "stream": True},
        {"input_tokens": 0, "output_tokens": 2**40, "cost_usd": 0.1, "ttft_ms": 0.0, "total_ms": 1e6, "side": True},
        {"tags": (("team", "night"), ("", "")), "preview": "Grüße \x1b[31m\x00 😀", "user": "ü" * 400, "estimated": True},
    ],
)
def test_what_ended_comes_back_as_it_was(values: dict[str, Any]) -> None:
    row = ended(**values)
    resting = at_rest(row)
    assert isinstance(resting, bytes)
    found = awake(resting)
    assert type(found) is TransactionRow
    assert asdict(found) == asdict(row)
    assert found == row


def test_what_runs_is_left_as_it_is() -> None:
    row = TransactionRow(transaction_id="1", started_at=0.0, state="streaming")
    assert at_rest(row) is row
    assert awake(row) is row


@pytest.mark.parametrize("values", [{"preview": "half a \ud83d pair"}, {"input_tokens": 10**30}])
def test_what_no_bytes_can_say_is_left_as_it_is(values: dict[str, Any]) -> None:
    row = ended(**values)
    assert at_rest(row) is row


def test_takes_no_more_room_than_its_bytes() -> None:
    before = sys.getallocatedblocks()
    resting = [at_rest(ended(total_ms=number + 0.5, preview=f"question {number}")) for number in range(1_000)]
    blocks = sys.getallocatedblocks() - before
    assert blocks < 1_100, "one block for each row and none for its numbers"
    assert all(sys.getsizeof(one) < 200 for one in resting)
