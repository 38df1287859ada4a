"""A parameter as a control shows it."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class ParamInfo(Struct, kw_only=True):
    """One parameter of a policy or of routing, as a control shows it."""

    name: str
    kind: Literal["number", "integer", "boolean", "choice", "text", "json"]
    value: Any
    """As JSON; a secret reads `********`."""
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    tunable: bool = False
    """Whether it may be moved while traffic runs, with arrows and slider."""
    help: str = ""
