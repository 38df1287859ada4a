"""The filter language: what it finds, what it says about mistakes, and that it is fast."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.control.filters import EVERYTHING, FIELDS, FilterError, fields_table, parse
from proxy_core.control.rows import TransactionRow


def row(**values: Any) -> TransactionRow:
    base: dict[str, Any] = {
        "transaction_id": "01J9AB",
        "started_at": 0.0,
        "model": "Claude-Sonnet-4-5",
        "upstream": "anthropic",
        "session_id": "ops-7f",
        "agent": "claude",
        "status": 200,
        "state": "done",
        "outcome": "ok",
        "total_ms": 1_500.0,
        "cost_usd": 0.02,
        "input_tokens": 8_000,
        "output_tokens": 100,
        "path": "/v1/messages",
        "preview": "Clean up the staging server",
        "user": "alice@example.com",
        "tags": (("env", "Prod"), ("debug", "true")),
        "workflow": "nightly",
        "parent_session": "ops-1",
        "link": "inferred",
        "side": True,
        "estimated": True,
    }
    return TransactionRow(**{**base, **values})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", True),
        ("model:claude*", True),
        ("model:gpt*", False),
        ("model:claude", False),
        ("model:*sonnet*", True),
        ("via:anthropic upstream:ANTHROPIC", True),
        ("model!=gpt-4o", True),
        ("status:200", True),
        ("status:2*", True),
        ("status:2xx", True),
        ("status:4*", False),
        ("status!=4xx", True),
        ("status>=400", False),
        ("status=200", True),
        ("latency>800", True),
        ("latency>1.5s", False),
        ("latency>=1.5s", True),
        ("total<1m", True),
        ("cost>$0.01", True),
        ("cost>0.05", False),
        ("in>=8k out<1k", True),
        ("tokens>8k", True),
        ("tokens>0.1M", False),
        ("is:done", True),
        ("user:alice* workflow:nightly parent:ops-1 link:inferred", True),
        ("user:bob", False),
        ("tag:env", True),
        ("tag:env:prod", True),
        ("tag:env:*od tag:debug", True),
        ("tag:env:staging or tag:prod", False),
        ("tag!=env", False),
        ("tag!=env:staging", True),
        ("side:yes estimated:yes is:side is:estimated", True),
        ("side:no or estimated:no", False),
        ('example.com "debug:true"', True),
        ("is:running or is:error", False),
        ("staging", True),
        ('"clean up"', True),
        ('"up clean"', False),
        ("stag*server", True),
        ("not model:gpt* and status:200", True),
        ("not (model:claude* or status:500)", False),
        ("model:gpt* or staging via:anthropic", True),
        ("(model:gpt* or staging) via:openai", False),
        ("NOT model:gpt* AND staging", True),
        ("ops-7f 01j9ab", True),
    ],
)
def test_finds(text: str, found: bool) -> None:
    assert parse(text).matches(row()) is found


@pytest.mark.parametrize("text", ["latency>0", "latency<1", "latency=0", "latency!=5", "not latency>0 and latency<9"])
def test_an_unknown_number_matches_no_comparison(text: str) -> None:
    assert not parse(text).matches(row(total_ms=None))


def test_an_unknown_status_matches_no_glob() -> None:
    assert not parse("status:*").matches(row(status=None))
    assert not parse("status!=4*").matches(row(status=None))


def test_what_waits_for_a_person_is_held() -> None:
    assert parse("is:held is:running").matches(row(state="held"))
    assert not parse("is:held").matches(row())


def test_failed_in_any_way_is_an_error() -> None:
    for outcome in ("error", "truncated", "refused"):
        assert parse("is:error").matches(row(outcome=outcome))
    assert not parse("is:error").matches(row(outcome="cancelled"))


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("modle:gpt*", 1, "did you mean 'model'"),
        ("model:gpt* latenzy>800", 12, "did you mean 'latency'"),
        ("model>5", 6, "text"),
        ("latency>fast", 9, "'fast' is no number"),
        ("latency>5GB", 9, "ms, s, m"),
        ("in>$5", 4, "no number"),
        ("status:", 8, "needs a value"),
        ("model: gpt", 7, "needs a value"),
        ('model:"gpt', 7, "never closed"),
        ('"gpt', 1, "never closed"),
        ("(model:gpt*", 1, "never closed"),
        ("model:gpt*)", 11, "unexpected ')'"),
        ("()", 2, "missing"),
        ("a and", 6, "missing at the end"),
        ("a or or b", 6, "missing before 'or'"),
        ("and a", 1, "missing before 'and'"),
        ("not", 4, "missing at the end"),
        ("is:sleeping", 4, "running"),
        ("is>running", 4, "colon"),
        ("zzzzqq:1", 1, "quote the word"),
        ("(" * 60 + "a" + ")" * 60, 51, "50 deep"),
    ],
)
def test_names_the_column_of_a_mistake(text: str, column: int, says: str) -> None:
    with pytest.raises(FilterError) as raised:
        parse(text)
    assert raised.value.column == column
    assert says in raised.value.message
    assert str(raised.value).startswith(f"column {column}: ")


def test_what_can_still_become_right_is_unfinished() -> None:
    for text in ("status:", "(a", "a and", '"a'):
        with pytest.raises(FilterError) as raised:
            parse(text)
        assert raised.value.unfinished, text
    with pytest.raises(FilterError) as raised:
        parse("modle:a")
    assert not raised.value.unfinished


terms = st.sampled_from(
    ["model:gpt*", "status>=400", "latency>1.5s", "cost<$2", "is:error", "staging", '"two words"', 'session:"a b"', "in!=5k"]
)
expressions = st.recursive(
    terms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"{pair[0]} {pair[1]}"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} or {pair[1]})"),
        inner.map(lambda text: f"not ({text})"),
    ),
    max_leaves=8,
)


@given(expressions)
def test_canonical_form_means_the_same(text: str) -> None:
    first = parse(text)
    again = parse(str(first))
    assert str(again) == str(first)
    for sample in (row(), row(status=500, outcome="error", total_ms=None), row(model="gpt-4o", session_id="a b", cost_usd=3.0)):
        assert first.matches(sample) is again.matches(sample)


@given(st.text(max_size=40))
def test_any_text_parses_or_names_a_column(text: str) -> None:
    try:
        parse(text).matches(row())
    except FilterError as error:
        assert 1 <= error.column <= len(text) + 1


def test_no_filter_is_false() -> None:
    assert not EVERYTHING
    assert parse("a")
    assert parse("   ") is EVERYTHING


def test_every_example_in_the_table_parses() -> None:
    table = fields_table()
    for field in FIELDS.values():
        assert f"| `{field.name}` |" in table
        parse(field.example)


def test_three_terms_cost_little() -> None:
    matches = parse("model:claude* latency>800 and not upstream:local").matches
    sample = row()
    best = min(_seconds(matches, sample) for _ in range(5))
    assert best / 2_000 < 10e-6


def _seconds(matches: Any, sample: TransactionRow) -> float:
    start = time.thread_time()
    for _ in range(2_000):
        matches(sample)
    return time.thread_time() - start
