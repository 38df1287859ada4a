"""Changes of policies that are prepared and not in force yet, and what they would do. Pure; the gateway validates.

A number moves by its step within its bounds. What another threshold would have done is counted from the latest scores:
a policy acts at or above it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from proxy_core.control.plane import ParamInfo, PolicyInfo
from proxy_core.verdicts import Mode

MODES: tuple[Mode, ...] = ("off", "shadow", "enforce")


@dataclass(slots=True)
class Pending:
    """What the operator has prepared for one policy."""

    mode: Mode | None = None
    params: dict[str, Any] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    """Why the gateway refused it, by field: `mode`, `params.threshold`."""

    def __bool__(self) -> bool:
        return self.mode is not None or bool(self.params)

    def mode_of(self, policy: PolicyInfo) -> Mode:
        return self.mode or policy.mode

    def value_of(self, param: ParamInfo) -> Any:
        return self.params.get(param.name, param.value)

    def set_mode(self, policy: PolicyInfo, mode: Mode) -> None:
        self.mode = None if mode == policy.mode else mode
        self.wrong.pop("mode", None)

    def set_value(self, param: ParamInfo, value: Any) -> None:
        if value == param.value and isinstance(value, bool) == isinstance(param.value, bool):
            self.params.pop(param.name, None)
        else:
            self.params[param.name] = value
        self.wrong.pop(f"params.{param.name}", None)

    def settle(self, policy: PolicyInfo) -> None:
        """Forget what has come to hold meanwhile, and parameters that are gone."""
        if self.mode is not None:
            self.set_mode(policy, self.mode)
        self.settle_params(policy.params)

    def settle_params(self, params: Iterable[ParamInfo]) -> None:
        """The same for the parameters alone."""
        values = {param.name: param.value for param in params}
        for name, value in list(self.params.items()):
            if name not in values or value == values[name]:
                del self.params[name]


def next_mode(mode: Mode) -> Mode:
    """off, shadow, enforce, and again."""
    return MODES[(MODES.index(mode) + 1) % len(MODES)]


def can_move(param: ParamInfo) -> bool:
    """Whether arrows move it."""
    return param.tunable and param.kind in ("number", "integer") and param.minimum is not None and param.maximum is not None


def moved(param: ParamInfo, value: Any, steps: int) -> float | int:
    """The value so many steps on, on the grid of steps, within the bounds."""
    step = param.step or 1.0
    low, high = param.minimum or 0.0, param.maximum if param.maximum is not None else math.inf
    start = float(value) if isinstance(value, int | float) and math.isfinite(value) else low
    found = min(high, max(low, round(start + steps * step, _digits(step))))
    return round(found) if param.kind == "integer" else found


def _digits(step: float) -> int:
    return max(0, min(6, -math.floor(math.log10(step)) + 1)) if 0 < step < 1 else 2


def as_text(value: Any) -> str:
    """A value in one line, as an operator reads it."""
    if isinstance(value, float):
        return f"{value:.2f}" if round(value, 2) == value else f"{value:g}"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def as_typed(param: ParamInfo, value: Any) -> str:
    """A value as it is typed."""
    if param.kind == "json":
        return json.dumps(value, ensure_ascii=False, indent=2)
    return "" if value is None else as_text(value)


def from_typed(param: ParamInfo, text: str) -> Any:
    """What was typed, as a value. Raises ValueError, in words for people."""
    if param.kind == "text":
        return text
    stripped = text.strip()
    if param.kind in ("number", "integer"):
        try:
            return int(stripped) if param.kind == "integer" else float(stripped)
        except ValueError:
            if not stripped and param.default is None:
                return None
            raise ValueError(f"give a {'whole ' if param.kind == 'integer' else ''}number") from None
    try:
        return json.loads(stripped)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError):
        raise ValueError("this is not JSON that can be read") from None


def is_threshold(param: ParamInfo) -> bool:
    return "threshold" in param.name and can_move(param)


def what_if(scores: tuple[float, ...], value: float, other: float) -> str:
    """How many of the latest scores the policy acts on, and how many with another threshold."""
    if not scores:
        return "no scores yet"
    at_value = sum(score >= value for score in scores)
    count = f"last {len(scores):,} score{'s' if len(scores) > 1 else ''}: {at_value:,} at or above {as_text(value)}"
    if other == value:
        return count
    return f"{count} → {sum(score >= other for score in scores):,} at {as_text(other)}"
