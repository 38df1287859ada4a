"""Parameters as controls: kinds, bounds, refusals, and no secret anywhere."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, SecretStr, field_validator

from proxy_core.control.plane import ControlInvalid
from proxy_core.control.tunables import checked, param_infos, without_hidden
from proxy_core.policies.base import PolicyParams, tunable
from proxy_core.policies.masking import HIDDEN, masked

CANARY = "sk-canary-7f3a19c2d4e5f6a7b8c9d0e1"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Params(PolicyParams):
    threshold: float = tunable(0.5, ge=0, le=1, step=0.01)
    """From where on
    it denies."""
    share: float = tunable(0.1, ge=0, le=0.5)
    count: int = Field(default=3, ge=1, le=9)
    pause_s: Annotated[float, Field(gt=0, le=60)] | None = None
    whole: bool = False
    when: Literal["early", "late"] = "early"
    colour: Colour = Colour.RED
    text: str = "x"
    replacements: list[tuple[str, str]] = Field(default_factory=list)
    tags: dict[str, str] = Field(default_factory=dict)
    key: SecretStr | None = None
    api_key: str = ""
    inner: list[dict[str, Any]] = Field(default_factory=list)

    @field_validator("text")
    @classmethod
    def _is_no_shout(cls, value: str) -> str:
        if value.isupper():
            raise ValueError("Do not shout")
        return value


def infos(**values: Any) -> dict[str, Any]:
    return {one.name: one for one in param_infos(Params(**values))}


def test_each_kind_of_field_is_a_kind_of_control() -> None:
    kinds = {name: one.kind for name, one in infos().items()}
    assert kinds == {
        "threshold": "number",
        "share": "number",
        "count": "integer",
        "pause_s": "number",
        "whole": "boolean",
        "when": "choice",
        "colour": "choice",
        "text": "text",
        "replacements": "json",
        "tags": "json",
        "key": "text",
        "api_key": "text",
        "inner": "json",
    }


def test_bounds_steps_choices_defaults_and_words() -> None:
    found = infos(threshold=0.75)
    threshold = found["threshold"]
    assert (threshold.minimum, threshold.maximum, threshold.step, threshold.tunable) == (0.0, 1.0, 0.01, True)
    assert (threshold.value, threshold.default, threshold.help) == (0.75, 0.5, "From where on it denies.")
    assert (found["share"].step, found["count"].step, found["count"].tunable) == (0.005, 1.0, False)
    assert (found["pause_s"].minimum, found["pause_s"].maximum, found["pause_s"].step) == (0.0, 60.0, 0.6)
    assert (found["when"].choices, found["colour"].choices, found["colour"].value) == (("early", "late"), ("red", "blue"), "red")
    assert (found["text"].step, found["whole"].value, found["replacements"].value) == (None, False, [])


def test_secrets_are_never_shown() -> None:
    nested = [{"use": "add_api_key", "params": {"api_key": CANARY}}, {"use": "of_a_file", "params": {"token": CANARY, "n": 1}}]
    params = Params(key=SecretStr(CANARY), api_key=CANARY, text=f"say {CANARY}", inner=[*nested, {"password": CANARY}])
    found = infos(key=SecretStr(CANARY), api_key=CANARY, text=f"say {CANARY}", inner=[*nested, {"password": CANARY}])
    assert CANARY not in repr(found) + repr(masked(params))
    assert (found["key"].value, found["api_key"].value, found["text"].value) == (HIDDEN, HIDDEN, "say [redacted]")
    assert found["inner"].value[1] == {"use": "of_a_file", "params": {"token": HIDDEN, "n": 1}}
    assert (infos()["key"].value, infos()["api_key"].value) == (None, "")
    assert masked(Params(text="y"), only_set=True) == {"text": "y"}


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"threshold": 1.5}, "params.threshold", "less than or equal to 1"),
        ({"threshold": -0.01}, "params.threshold", "greater than or equal to 0"),
        ({"threshold": "high"}, "params.threshold", "valid number"),
        ({"threshold": True}, "params.threshold", "give a number"),
        ({"threshold": float("nan")}, "params.threshold", "finite"),
        ({"threshold": float("inf")}, "params.threshold", "finite"),
        ({"threshold": None}, "params.threshold", "valid number"),
        ({"count": 2.5}, "params.count", "integer"),
        ({"when": "now"}, "params.when", "'early' or 'late'"),
        ({"treshold": 0.5}, "params.treshold", "did you mean threshold?"),
        ({"x" * 500: 1}, "params." + "x" * 100, "known here: threshold"),
        ({"replacements": [["a"]]}, "params.replacements.0.1", "field required"),
        ({"text": "SHOUT"}, "params.text", "do not shout"),
    ],
)
def test_what_is_not_valid_names_its_field(change: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ControlInvalid) as refused:
        checked(Params, {"threshold": 0.5}, change)
    assert refused.value.field == field
    assert words in refused.value.message
    assert "SHOUT" not in refused.value.message


def test_a_valid_change_is_laid_over_the_rest() -> None:
    params = checked(Params, {"count": 5, "key": "kept"}, {"threshold": 1, "replacements": [["a", "b"]]})
    assert isinstance(params, Params)
    assert (params.threshold, params.count, params.replacements) == (1.0, 5, [("a", "b")])


def test_a_masked_secret_that_comes_back_is_no_change() -> None:
    assert without_hidden({"key": HIDDEN, "threshold": 0.3}, Params) == {"threshold": 0.3}


@pytest.mark.parametrize(
    "change",
    [
        {"key": CANARY},
        {"key": None},
        {"api_key": "anything"},
        {"text": CANARY},
        {"tags": {"password": "hunter2hunter2"}},
        {"inner": [{"use": "add_api_key", "params": {"api_key": "plain"}}]},
        {"inner": [{"use": "add_api_key", "params": {"api_key": HIDDEN}}]},
    ],
)
def test_a_secret_cannot_be_set_because_changes_are_written_down(change: dict[str, Any]) -> None:
    with pytest.raises(ControlInvalid) as refused:
        without_hidden(change, Params)
    assert "secret" in refused.value.message
    assert CANARY not in str(refused.value)
