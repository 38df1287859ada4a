"""Parameters of policies as controls: what each is set to, within which bounds, and whether a change of them is valid.

Pure functions over pydantic models. Secrets never leave: a declared one reads `********`, a value that stands under a secret's
name inside a larger one too. Because a change is written down, a secret cannot be set here either; it belongs into the
environment, named by the configuration file.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from proxy_core.control.plane import ControlInvalid, ParamInfo
from proxy_core.policies.masking import HIDDEN, holds_hidden, masked, plain_types, secret_names, without_secrets
from proxy_core.policies.registry import nearest

Kind = Literal["number", "integer", "boolean", "choice", "text", "json"]


def param_infos(params: BaseModel) -> tuple[ParamInfo, ...]:
    """Every parameter in the order in which the model declares them, with its present value."""
    values = masked(params)
    return tuple(
        ParamInfo(
            name=one.name,
            kind=one.kind,
            value=values[one.name],
            default=one.default,
            minimum=one.minimum,
            maximum=one.maximum,
            step=one.step,
            choices=one.choices,
            tunable=one.tunable,
            help=one.help,
        )
        for one in _declared(type(params))
    )


def checked(model: type[BaseModel], present: Mapping[str, Any], change: Mapping[str, Any]) -> BaseModel:
    """The parameters `present` (raw, as configured) with `change` laid over them, validated.

    Raises ControlInvalid that names the field, such as `params.threshold`.
    """
    names = {info.alias or name: info for name, info in model.model_fields.items()}
    for name, value in change.items():
        if name not in names:
            near = nearest(name, names)
            known = f"known here: {', '.join(names)}" if names else "this policy has none"
            raise ControlInvalid(f"params.{name[:100]}", f"unknown parameter; {f'did you mean {near}?' if near else known}")
        _refuse_strange(f"params.{name}", value, names[name])
    try:
        return model.model_validate({**present, **change})
    except ValidationError as fault:
        error = fault.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in ("params", *error["loc"]))
        message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
        raise ControlInvalid(place, message[:1].lower() + message[1:]) from None


def without_hidden(change: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """A change without the secrets that were only shown masked and come back untouched.

    Raises ControlInvalid for one that sets a secret.
    """
    secret = secret_names(model)
    found: dict[str, Any] = {}
    for name, value in change.items():
        if name in secret:
            if value == HIDDEN:
                continue
            raise ControlInvalid(f"params.{name}", _REMEDY)
        if holds_hidden(value):
            raise ControlInvalid(f"params.{name}", "it holds a secret that is hidden here; change it in the configuration file")
        if without_secrets(value) != value:
            raise ControlInvalid(f"params.{name}", _REMEDY)
        found[name] = value
    return found


_REMEDY = "a change is written down, so it cannot hold a secret; put it into the environment and name it in the file: ${NAME}"


# -- what a model declares --------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _declared(model: type[BaseModel]) -> tuple[ParamInfo, ...]:
    """What is the same for all values."""
    return tuple(_param(info.alias or name, info) for name, info in model.model_fields.items())


def _param(name: str, info: FieldInfo) -> ParamInfo:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    parts = [part for part in plain_types(info.annotation) if part is not type(None)]
    choices = _choices(parts)
    kind = _kind(parts, choices)
    low = high = None
    for bound in (*info.metadata, *_nested_metadata(info.annotation)):
        if isinstance(bound, Ge | Gt):
            low = bound.ge if isinstance(bound, Ge) else bound.gt
        elif isinstance(bound, Le | Lt):
            high = bound.le if isinstance(bound, Le) else bound.lt
    low, high = _number(low), _number(high)
    step = _number(extra.get("step"))
    if step is None and kind == "integer":
        step = 1.0
    elif step is None and kind == "number" and low is not None and high is not None:
        step = (high - low) / 100
    default = None if info.is_required() else info.get_default(call_default_factory=True)
    return ParamInfo(
        name=name,
        kind=kind,
        value=None,
        default=_default(default, parts),
        minimum=low,
        maximum=high,
        step=step if kind in ("number", "integer") else None,
        choices=choices,
        tunable=bool(extra.get("tunable")),
        help=" ".join((info.description or "").split()),
    )


def _nested_metadata(annotation: Any) -> Iterator[Any]:
    """Bounds inside `Annotated[float, Ge(0)] | None`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        for extra in get_args(annotation)[1:]:
            yield from extra.metadata if isinstance(extra, FieldInfo) else (extra,)
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _nested_metadata(part)


def _choices(parts: list[Any]) -> tuple[str, ...]:
    """The words to choose from, where there is nothing else to give."""
    found: list[str] = []
    for part in parts:
        if get_origin(part) is Literal:
            options = list(get_args(part))
        elif isinstance(part, type) and issubclass(part, Enum):
            options = [member.value for member in part]
        else:
            return ()
        if not all(isinstance(option, str) for option in options):
            return ()
        found += [str(option) for option in options]
    return tuple(found)


def _kind(parts: list[Any], choices: tuple[str, ...]) -> Kind:
    if choices:
        return "choice"
    if len(parts) == 2 and set(parts) == {int, float}:
        return "number"
    if len(parts) != 1:
        return "json"
    simple: dict[Any, Kind] = {bool: "boolean", int: "integer", float: "number", str: "text", SecretStr: "text"}
    return simple.get(parts[0], "json")


def _default(value: Any, parts: list[Any]) -> Any:
    if value is PydanticUndefined or value is None:
        return None
    if any(part in (SecretStr, SecretBytes) for part in parts):
        return HIDDEN if value else value
    if isinstance(value, BaseModel):
        return masked(value)
    return without_secrets(to_jsonable_python(value, fallback=str))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


# -- values -----------------------------------------------------------------------------------------------------------


def _refuse_strange(place: str, value: Any, info: FieldInfo) -> None:
    """What pydantic would take for a number, and nobody means as one."""
    parts = {part for part in plain_types(info.annotation) if part is not type(None)}
    if isinstance(value, bool) and parts and parts <= {int, float}:
        raise ControlInvalid(place, "give a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise ControlInvalid(place, "give a finite number")
