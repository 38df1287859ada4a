"""The rules of routing that are set while the gateway runs, as controls, and whether a change of them is valid. Pure.

Names are the settings' own without `routing.`. Keywords, models and tags are not among them: they change with the configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct
from pydantic import BaseModel, ValidationError

from proxy_core.control.param_info import ParamInfo
from proxy_core.control.plane import ControlInvalid
from proxy_core.policies.registry import nearest
from proxy_core.routing.decision import LOCAL, PUBLIC
from proxy_core.settings import RoutingSettings


class _Knob(Struct, frozen=True, kw_only=True):
    kind: Literal["number", "integer", "choice"]
    low: float | None = None
    high: float | None = None
    """Where a slider ends; a typed value may be larger."""
    step: float | None = None
    choices: tuple[str, ...] = ()


_KNOBS: dict[str, _Knob] = {
    "cost.max_prompt_length_for_local": _Knob(kind="integer", low=0, high=10_000, step=100),
    "cost.max_usd_for_local": _Knob(kind="number", low=0, high=0.05, step=0.0005),
    "cost.input_usd_per_1m_tokens": _Knob(kind="number", low=0.05, high=50, step=0.05),
    "cost.chars_per_token": _Knob(kind="number", low=1, high=10, step=0.1),
    "sensitivity.match": _Knob(kind="choice", choices=("word", "substring")),
    "sensitivity.scope": _Knob(kind="choice", choices=("conversation", "last_user")),
    "default_provider": _Knob(kind="choice"),
}

_KEYWORDS = "sensitivity.keywords"


def route_params(present: RoutingSettings, configured: RoutingSettings, upstreams: Sequence[str]) -> tuple[ParamInfo, ...]:
    """Every one with its value; the default is what the configuration says."""
    found: list[ParamInfo] = []
    for name, knob in _KNOBS.items():
        value = value_of(present, name)
        choices = (LOCAL, PUBLIC, *(one for one in upstreams if one not in (LOCAL, PUBLIC)))
        high = knob.high
        if high is not None and isinstance(value, int | float):
            high = max(high, float(value))
        found.append(
            ParamInfo(
                name=name,
                kind=knob.kind,
                value=value,
                default=value_of(configured, name),
                minimum=knob.low,
                maximum=high,
                step=knob.step,
                choices=choices if name == "default_provider" else knob.choices,
                tunable=knob.kind != "choice",
                help=_help(name),
            )
        )
    return tuple(found)


def value_of(routing: RoutingSettings, name: str) -> Any:
    """The value of a rule by its name."""
    found: Any = routing
    for part in name.split("."):
        found = getattr(found, part)
    return found


def still_held(configured: RoutingSettings, params: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """What operators have set, as far as the configuration says of it what it said then (`over`), and that is another value."""
    return {
        name: value
        for name, value in params.items()
        if name in _KNOBS and name in over and over[name] == value_of(configured, name) != value
    }


def differing(before: RoutingSettings, after: RoutingSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is not the same, of each side, by dotted names; of keywords only how many there are, because they are secrets."""
    old, new = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    names = [name for name in old if old[name] != new[name]]
    left, right = {name: old[name] for name in names}, {name: new[name] for name in names}
    if _KEYWORDS in left:
        counts = len(before.sensitivity.keywords), len(after.sensitivity.keywords)
        left[_KEYWORDS], right[_KEYWORDS] = f"{counts[0]}", f"{counts[1]}" if counts[0] != counts[1] else f"{counts[1]} others"
    return left, right


def _flat(tree: dict[str, Any], around: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        section = isinstance(value, dict) and name not in ("models", "tags")
        found.update(_flat(value, f"{around}{name}.") if section else {f"{around}{name}": value})
    return found


def changed(routing: RoutingSettings, change: Mapping[str, Any], upstreams: Sequence[str]) -> RoutingSettings:
    """The settings with a change laid over them. Raises ControlInvalid that names the field, `params.cost.chars_per_token`."""
    sections: dict[str, dict[str, Any]] = {"": {}}
    for name, value in change.items():
        place = f"params.{name[:100]}"
        if name not in _KNOBS:
            near = nearest(name[:200], _KNOBS)
            known = f"did you mean {near}?" if near else f"known here: {', '.join(_KNOBS)}"
            raise ControlInvalid(place, f"unknown rule, or one that is set in the configuration; {known}")
        _refuse_strange(place, name, value, upstreams)
        section, _, field = name.rpartition(".")
        sections.setdefault(section, {})[field] = value
    try:
        tree = {section: _over(getattr(routing, section), fields) for section, fields in sections.items() if section}
        return routing.model_copy(update={**tree, **sections[""]})
    except ValidationError as fault:
        error = fault.errors(include_url=False, include_input=False)[0]
        field = str(error["loc"][0]) if error["loc"] else ""
        name = next((one for one in change if one.rpartition(".")[2] == field), field)
        raise ControlInvalid(f"params.{name}", _sentence(str(error["msg"]))) from None


def _over(section: BaseModel, fields: Mapping[str, Any]) -> BaseModel:
    return type(section).model_validate({**section.model_dump(), **fields})


def _sentence(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _refuse_strange(place: str, name: str, value: Any, upstreams: Sequence[str]) -> None:
    """What pydantic would take for a number, and nobody means as one; and upstreams that there are not."""
    knob = _KNOBS[name]
    if value is None:
        return
    if knob.kind != "choice":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ControlInvalid(place, f"give {'a whole number' if knob.kind == 'integer' else 'a number'}, or null for none")
        if not math.isfinite(value):
            raise ControlInvalid(place, "give a finite number")
        return
    choices = (LOCAL, PUBLIC, *upstreams) if name == "default_provider" else knob.choices
    if value not in choices:
        raise ControlInvalid(place, f"give one of {', '.join(choices)}")


def _help(name: str) -> str:
    model: type[BaseModel] = RoutingSettings
    *sections, field = name.split(".")
    for section in sections:
        annotation = model.model_fields[section].annotation
        assert isinstance(annotation, type)  # noqa: S101 - sections are models
        model = annotation
    return " ".join((model.model_fields[field].description or "").split())
