"""What a policy says about itself: the words that `luthien policies list`, the documentation, the API and the screen share.

Everything is read from the class and its parameters' model, so a description cannot differ from what runs.
"""

from __future__ import annotations

import inspect
import json
import sys
import typing
from typing import Any

from msgspec import Struct
from pydantic import BaseModel
from pydantic_core import PydanticUndefined, to_jsonable_python

from proxy_core.policies.base import ControlPolicy, Release


class ParamDescription(Struct, frozen=True, kw_only=True):
    """One parameter of a policy."""

    name: str
    kind: str
    """What it takes, in words: `text`, `whole number`, `one of request, response, both`, …"""
    required: bool
    default: Any = None
    """JSON value; None where it is required."""
    meaning: str = ""
    tunable: bool = False
    """Whether an operator may move it while traffic runs; then `low`, `high` and `step` are set."""
    low: float | None = None
    high: float | None = None
    step: float | None = None
    fields: tuple[ParamDescription, ...] = ()
    """Where it is an object, or a list or mapping of objects of one kind: what stands in each."""


class PolicyDescription(Struct, frozen=True, kw_only=True):
    """One policy that a chain can use."""

    name: str
    """Registry name, as in `use: name`."""
    summary: str
    text: str
    """The class's docstring; where that is one paragraph, followed by the rest of its module's."""
    source: str
    """`built in`, `package NAME` or `file PATH`."""
    stages: tuple[str, ...]
    """`request`, `response`; empty where `acts_by` is not `class`."""
    acts_by: str
    """What says on which stages it acts: the `class`, its `place` in the chain, or its `params`."""
    operations: tuple[str, ...]
    """The operations that it reads; empty for all."""
    release: str
    """What it keeps back of a stream with its usual parameters: `pass`, `tail`, `block` or `full`."""
    sends: bool
    on_error: str
    """What happens where it fails and the configuration says nothing."""
    deadline_s: float
    waits_for_people: bool
    params: tuple[ParamDescription, ...]
    problem: str = ""
    """Why it cannot be used, where it cannot; then the rest is empty."""


def described(policy: type[ControlPolicy[Any]], source: str) -> PolicyDescription:
    """The description of a policy's class."""
    text = inspect.cleandoc(policy.__doc__ or "")
    module = inspect.getdoc(sys.modules.get(policy.__module__)) or ""
    if "\n\n" not in text and (more := module.partition("\n\n")[2]):
        text = f"{text}\n\n{more}"
    own = policy.acts_on is not ControlPolicy.acts_on
    acts_by = "params" if own else "place" if policy.stages is None else "class"
    return PolicyDescription(
        name=policy.registry_name(),
        summary=policy.summary or " ".join(text.partition("\n\n")[0].split()),
        text=text,
        source=source,
        stages=tuple(sorted(stage.value for stage in policy.stages or ())) if acts_by == "class" else (),
        acts_by=acts_by,
        operations=tuple(sorted(operation.value for operation in policy.operations or ())),
        release=_release(policy).name.lower(),
        sends=policy.sends,
        on_error=policy.default_on_error,
        deadline_s=policy.default_deadline_s,
        waits_for_people=policy.waits_for_people,
        params=params_of(policy.params_model),
    )


def broken(name: str, source: str, problem: str) -> PolicyDescription:
    """The description of something that is no policy, although it stands where one should."""
    return PolicyDescription(
        name=name,
        summary="",
        text="",
        source=source,
        stages=(),
        acts_by="",
        operations=(),
        release="",
        sends=False,
        on_error="",
        deadline_s=0,
        waits_for_people=False,
        params=(),
        problem=problem,
    )


def _release(policy: type[ControlPolicy[Any]]) -> Release:
    """With default parameters where there are some, else what the class alone says."""
    try:
        return policy(policy.params_model()).release_mode()
    except Exception:  # it needs parameters
        if policy.release is not None:
            return policy.release
        return Release.PASS if policy.streams() else Release.FULL


def params_of(model: type[BaseModel], depth: int = 3) -> tuple[ParamDescription, ...]:
    """The parameters in the order in which the model declares them, objects inside objects down to `depth`."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    required = set(schema.get("required", ()))
    found = []
    for name, info in model.model_fields.items():
        field = schema["properties"][info.alias or name]
        default = info.get_default(call_default_factory=True) if not info.is_required() else None
        low, high = field.get("minimum"), field.get("maximum")
        inside = models_in(info.annotation)
        found.append(
            ParamDescription(
                name=info.alias or name,
                kind=_kind(field, definitions),
                required=(info.alias or name) in required,
                default=None if default is PydanticUndefined else _json_value(default),
                meaning=" ".join((info.description or "").split()),
                tunable=bool(field.get("tunable")),
                low=low,
                high=high,
                step=field.get("step"),
                fields=params_of(inside[0], depth - 1) if len(inside) == 1 and depth > 1 else (),
            )
        )
    return tuple(found)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation names, however deep: `list[M] | None` names M."""
    if arguments := typing.get_args(annotation):
        return [model for argument in arguments for model in models_in(argument)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def _json_value(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return to_jsonable_python(value, fallback=str)


_SIMPLE = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "nothing"}


def _kind(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        named = definitions.get(name, {})
        return _kind(named, {}) if "enum" in named or "const" in named else _object(named)
    if "enum" in field:
        return "one of " + ", ".join(str(option) for option in field["enum"])
    if "const" in field:
        return f"{field['const']}"
    if "discriminator" in field and (kinds := field["discriminator"].get("mapping")):
        return f"object whose type is one of {', '.join(kinds)}"
    if options := field.get("anyOf") or field.get("oneOf"):
        words = dict.fromkeys(_kind(option, definitions) for option in options if option.get("type") != "null")
        return " or ".join(words)
    kind = field.get("type")
    if kind == "array":
        if "prefixItems" in field:
            return "[" + ", ".join(_kind(item, definitions) for item in field["prefixItems"]) + "]"
        item = _kind(field["items"], definitions) if field.get("items") else ""
        return f"list of {item}" if item else "list"
    if kind == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"mapping of text to {_kind(field['additionalProperties'], definitions) or 'anything'}"
    if kind == "object":
        return _object(field)
    return _SIMPLE.get(str(kind), "anything" if kind is None else str(kind)) + _bounds(field)


def _object(field: dict[str, Any]) -> str:
    names = list(field.get("properties", ()))
    return "{" + ", ".join(names) + "}" if names else "mapping"


def _bounds(field: dict[str, Any]) -> str:
    low = (
        f", from {field['minimum']}"
        if "minimum" in field
        else (f", above {field['exclusiveMinimum']}" if "exclusiveMinimum" in field else "")
    )
    high = (
        f" up to {field['maximum']}"
        if "maximum" in field
        else (f" below {field['exclusiveMaximum']}" if "exclusiveMaximum" in field else "")
    )
    return low + ("," if high and not low else "") + high


def as_json(description: PolicyDescription) -> dict[str, Any]:
    """A description as JSON values."""
    import msgspec

    built: dict[str, Any] = json.loads(msgspec.json.encode(description))
    return built
