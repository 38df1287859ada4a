"""What is prepared for a policy, and what it would do."""

from __future__ import annotations

from typing import Any

import pytest

from luthien_tui.policy_changes import Pending, as_text, as_typed, from_typed, moved, next_mode, what_if
from proxy_core.control.plane import ParamInfo
from tests.luthien_tui.fake_plane import make_policy


def number(**changes: Any) -> ParamInfo:
    values: dict[str, Any] = {"kind": "number", "value": 0.5, "minimum": 0.0, "maximum": 1.0, "step": 0.05, "tunable": True}
    return ParamInfo(name="threshold", **{**values, **changes})


def test_modes_go_round() -> None:
    assert [next_mode("off"), next_mode("shadow"), next_mode("enforce")] == ["shadow", "enforce", "off"]


@pytest.mark.parametrize(
    ("changes", "value", "steps", "expected"),
    [
        ({}, 0.5, 1, 0.55),
        ({}, 0.55, -1, 0.5),
        ({}, 0.95, 10, 1.0),
        ({}, 0.2, -10, 0.0),
        ({"step": 0.01}, 0.1 + 0.2, 1, 0.31),
        ({"minimum": 1.0, "maximum": 86_400.0, "step": 30.0}, 600.0, 10, 900.0),
        ({"kind": "integer", "minimum": 2.0, "maximum": 16.0, "step": 1.0}, 3, -10, 2),
        ({}, None, 1, 0.05),
        ({}, float("nan"), 1, 0.05),
    ],
)
def test_numbers_move_on_their_grid_within_their_bounds(changes: dict[str, Any], value: Any, steps: int, expected: float) -> None:
    found = moved(number(**changes), value, steps)
    assert found == expected
    assert isinstance(found, int) == (changes.get("kind") == "integer")


def test_what_another_threshold_would_have_done() -> None:
    scores = (0.1, 0.5, 0.5, 0.7, 0.9)
    assert what_if((), 0.5, 0.6) == "no scores yet"
    assert what_if(scores, 0.5, 0.5) == "last 5 scores: 4 at or above 0.50"
    assert what_if(scores, 0.5, 0.7) == "last 5 scores: 4 at or above 0.50 → 2 at 0.70"


def test_a_change_that_says_nothing_new_is_none() -> None:
    policy = make_policy("p")
    pending = Pending()
    pending.set_mode(policy, "shadow")
    pending.set_value(policy.params[0], 0.7)
    assert pending
    pending.set_mode(policy, "enforce")
    pending.set_value(policy.params[0], 0.5)
    assert not pending


def test_true_is_not_one() -> None:
    pending = Pending()
    pending.set_value(ParamInfo(name="n", kind="json", value=1), True)
    assert pending.params == {"n": True}


def test_parameters_that_are_gone_are_forgotten() -> None:
    pending = Pending(params={"gone": 1, "threshold": 0.5})
    pending.settle(make_policy("p"))
    assert not pending


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("text", " as it is\n", " as it is\n"),
        ("number", " 0.25 ", 0.25),
        ("integer", "7", 7),
        ("number", "", None),
        ("json", '[1, {"a": null}]', [1, {"a": None}]),
    ],
)
def test_what_is_typed_becomes_a_value(kind: Any, text: str, value: Any) -> None:
    assert from_typed(ParamInfo(name="p", kind=kind, value=None), text) == value


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("number", "much", "give a number"),
        ("integer", "1.5", "give a whole number"),
        ("json", "{", "this is not JSON: line 1"),
        ("json", "[" * 100_000, "this is not JSON that can be read"),
    ],
)
def test_what_cannot_be_read_says_why(kind: Any, text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        from_typed(ParamInfo(name="p", kind=kind, value=None), text)


def test_values_as_text() -> None:
    assert [as_text(one) for one in (0.5, 1e-5, "x", True, None, [1])] == ["0.50", "1e-05", "x", "true", "null", "[1]"]
    param = ParamInfo(name="p", kind="json", value={"a": [1]})
    assert from_typed(param, as_typed(param, param.value)) == param.value
