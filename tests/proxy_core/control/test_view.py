"""The live view without a screen: order, capacity, filters while rows change."""

from __future__ import annotations

import random
import time
from typing import Any

from proxy_core.control.filters import EVERYTHING, parse
from proxy_core.control.rows import TransactionRow
from proxy_core.control.view import AWAKE, TransactionList


def row(number: int, **values: Any) -> TransactionRow:
    return TransactionRow(transaction_id=f"t{number:05d}", started_at=float(number), **values)


def filtered(rows: TransactionList, text: str) -> None:
    rows.set_filter(parse(text))
    while rows.filtering:
        rows.advance(1.0, time.perf_counter)


def ids(rows: TransactionList) -> list[str]:
    return [each.transaction_id for each in rows.shown]


def test_keeps_the_order_of_arrival_and_changes_in_place() -> None:
    rows = TransactionList(100)
    first = row(1)
    assert rows.fold(first)
    assert rows.fold(row(2))
    first.status = 200
    assert not rows.fold(first)
    assert ids(rows) == ["t00001", "t00002"]
    assert rows.index("t00002") == 1
    assert rows.index("nobody") is None


def test_drops_the_oldest_above_the_capacity() -> None:
    rows = TransactionList(100)
    for number in range(250):
        rows.fold(row(number))
    assert 100 <= rows.total <= 105
    assert rows.shown[-1].transaction_id == "t00249"
    assert rows.row("t00000") is None
    assert rows.dropped == 250 - rows.total
    assert rows.index("t00249") == rows.total - 1


def test_a_row_appears_and_leaves_as_it_changes() -> None:
    rows = TransactionList(100)
    running = [row(number, state="streaming") for number in range(5)]
    for each in running:
        rows.fold(each)
    filtered(rows, "status>=400")
    assert ids(rows) == []
    running[3].status = 500
    rows.fold(running[3])
    running[1].status = 404
    rows.fold(running[1])
    assert ids(rows) == ["t00001", "t00003"]
    running[3].status = 200
    rows.fold(running[3])
    assert ids(rows) == ["t00001"]
    assert rows.index("t00003") is None
    assert rows.nearest("t00003") == 0


def test_a_new_filter_takes_over_only_when_it_has_seen_all() -> None:
    rows = TransactionList(5_000)
    for number in range(2_000):
        rows.fold(row(number, status=500 if number % 2 else 200))
    rows.set_filter(parse("status:500"))
    assert len(rows.shown) == 2_000
    assert not rows.advance(0.0, time.perf_counter)
    assert rows.filtering
    assert 0 < rows.progress < 1
    rows.fold(row(2_001, status=500))
    changed = rows.row("t00000")
    assert changed is not None
    changed.status = 500
    rows.fold(changed)
    while not rows.advance(0.0, time.perf_counter):
        pass
    assert len(rows.shown) == 1_002
    assert rows.shown[0].transaction_id == "t00000"
    assert rows.shown[-1].transaction_id == "t02001"
    assert str(rows.filter) == "status:500"


def test_no_filter_is_in_force_at_once() -> None:
    rows = TransactionList(100)
    rows.fold(row(1))
    filtered(rows, "status:500")
    rows.set_filter(EVERYTHING)
    assert ids(rows) == ["t00001"]
    assert not rows.filtering


def test_history_comes_before_what_is_known_and_only_once() -> None:
    rows = TransactionList(10)
    rows.fold(row(5, status=500))
    rows.prepend([row(3), row(4, status=500), row(5)])
    assert ids(rows) == ["t00003", "t00004", "t00005"]
    assert rows.shown[2].status == 500
    filtered(rows, "status:500")
    assert ids(rows) == ["t00004", "t00005"]
    rows.prepend([row(1, status=500), row(2)])
    assert ids(rows) == ["t00001", "t00004", "t00005"]
    assert rows.index("t00005") == 2
    rows.fold(row(6, status=500))
    assert rows.index("t00006") == 3


def test_history_never_pushes_out_what_is_newer() -> None:
    rows = TransactionList(3)
    rows.fold(row(9))
    rows.prepend([row(number) for number in range(5)])
    assert ids(rows) == ["t00003", "t00004", "t00009"]


def test_rows_that_rest_are_read_filtered_and_changed_like_all_others() -> None:
    rows = TransactionList(2 * AWAKE)
    folded = [row(number, state="done", status=500 if number % 2 else 200) for number in range(AWAKE + 500)]
    folded[7].state = "streaming"
    for each in folded:
        rows.fold(each)
    assert rows.row("t00007") is folded[7]
    assert rows.row("t00008") is not folded[8]
    assert list(rows.shown) == folded
    assert [rows.shown[place] for place in range(len(folded))] == folded
    assert rows.shown[5:9] == folded[5:9]
    assert rows.shown[-1] == folded[-1]
    filtered(rows, "status:500")
    assert list(rows.shown) == folded[1::2]
    assert rows.shown[4:6] == [folded[9], folded[11]]
    folded[7].state, folded[7].status = "done", 204
    changed = rows.row("t00008")
    assert changed is not None
    changed.status = 500
    for each in (folded[7], changed):
        assert not rows.fold(each)
    assert ids(rows)[:5] == ["t00001", "t00003", "t00005", "t00008", "t00009"]
    assert rows.row("t00007") == folded[7]
    rows.set_filter(EVERYTHING)
    for number in range(len(folded), len(folded) + 2 * AWAKE):
        rows.fold(row(number, state="done"))
    assert rows.total <= 2 * AWAKE + AWAKE // 25
    assert ids(rows) == [f"t{number:05d}" for number in range(rows.dropped, len(folded) + 2 * AWAKE)]


def test_always_equals_a_plain_filtering_of_all_rows() -> None:
    dice = random.Random(7)
    rows = TransactionList(200)
    known: dict[str, TransactionRow] = {}
    for step in range(3_000):
        if not known or dice.random() < 0.4:
            each = row(step, status=None)
            known[each.transaction_id] = each
        else:
            each = dice.choice([*known.values()][-60:])
            each.status = dice.choice([200, 404, 500, None])
        rows.fold(each)
        if dice.random() < 0.02:
            rows.set_filter(parse(dice.choice(["", "status>=400", "status:200", "not status:200"])))
        rows.advance(0.0, time.perf_counter)
        if step % 50 == 0:
            while rows.filtering:
                rows.advance(1.0, time.perf_counter)
            kept = [*known.values()][-rows.total :]
            assert list(rows.shown) == [each for each in kept if rows.filter.matches(each)]
            for place, each in enumerate(rows.shown):
                assert rows.index(each.transaction_id) == place
