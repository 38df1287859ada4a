"""Parameters of policies without their secrets: for whatever is shown, recorded or logged.

A parameter that its model declares as a secret reads `********`, and so does a value that stands under a secret's name inside a
larger one, or in a policy inside another one. Texts that look like a key are redacted wherever they stand.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr

from proxy_core.detectors.secrets import is_secret_header, redact_formats
from proxy_core.errors import ConfigurationError
from proxy_core.policies.registry import policy_class

HIDDEN = "********"
_UNDECLARED = re.compile(r"(?:^|_)(?:api_?key|password|secret|credentials?|(?:access|auth|bearer)_token)$")
"""Names of texts that are secrets, although their author did not say so."""


def masked(params: BaseModel, *, only_set: bool = False) -> dict[str, Any]:
    """The parameters as JSON without secrets; with `only_set` those alone that somebody gave."""
    dumped = params.model_dump(mode="json", by_alias=True, exclude_unset=only_set)
    secret = secret_names(type(params))
    return {
        name: (value if value in (None, "") else HIDDEN) if name in secret else without_secrets(value)
        for name, value in dumped.items()
    }


def masked_raw(use: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as they are written in a configuration, for the policy that `use` names."""
    found: dict[str, Any] = without_secrets({"use": use, "params": dict(params)})["params"]
    return found


@lru_cache(maxsize=256)
def secret_names(model: type[BaseModel]) -> frozenset[str]:
    """The parameters that are secrets themselves."""
    return frozenset(
        info.alias or name
        for name, info in model.model_fields.items()
        if any(
            part in (SecretStr, SecretBytes) or (part is str and _UNDECLARED.search(name))
            for part in plain_types(info.annotation)
        )
    )


@lru_cache(maxsize=256)
def _holding_secrets(model: type[BaseModel]) -> frozenset[str]:
    """Parameters that are secrets or have one inside: of a nested policy nobody but their declaration tells."""
    inside = {info.alias or name for name, info in model.model_fields.items() if _has_secret(info.annotation, {model})}
    return secret_names(model) | inside


def _has_secret(annotation: Any, seen: set[Any]) -> bool:
    if annotation in (SecretStr, SecretBytes):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in seen:
            return False
        seen.add(annotation)
        return any(_has_secret(info.annotation, seen) for info in annotation.model_fields.values())
    return any(_has_secret(part, seen) for part in get_args(annotation) if get_origin(annotation) is not Literal)


def plain_types(annotation: Any) -> Iterator[Any]:
    """The alternatives of an annotation, without `Annotated` around them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from plain_types(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from plain_types(part)
    else:
        yield annotation


def without_secrets(value: Any, name: str = "") -> Any:
    """A JSON value with whatever is or looks like a secret masked."""
    if isinstance(value, str):
        if value and _names_a_secret(name):
            return HIDDEN
        if set(value) == {"*"}:
            return HIDDEN  # pydantic's own mask, of a secret deeper inside
        raw = value.encode("utf-8", "replace")
        kept = redact_formats(raw)
        return value if kept == raw else kept.decode("utf-8", "replace")
    if isinstance(value, dict):
        nested = _nested_secrets(value)
        if nested is not None:
            return {**value, "params": {inner: _of_nested(inner, one, nested) for inner, one in value["params"].items()}}
        return {inner: without_secrets(one, str(inner)) for inner, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(one, name) for one in value]
    return value


def _nested_secrets(value: dict[str, Any]) -> frozenset[str] | None:
    """Of a policy inside another one, the parameters that are secrets; None where `value` is no policy."""
    use, params = value.get("use"), value.get("params")
    if not isinstance(use, str) or not isinstance(params, dict):
        return None
    try:
        return _holding_secrets(policy_class(use).params_model)
    except ConfigurationError:  # one of a file: its names must do
        return frozenset(name for name in params if _names_a_secret(str(name)))


def _of_nested(name: str, value: Any, secret: frozenset[str]) -> Any:
    if name in secret:
        return value if value in (None, "") else HIDDEN
    return without_secrets(value)


def _names_a_secret(name: str) -> bool:
    return is_secret_header(name.lower().replace("_", "-"))


def holds_hidden(value: Any) -> bool:
    """Whether a masked secret stands somewhere in it."""
    if isinstance(value, dict):
        return any(map(holds_hidden, value.values()))
    if isinstance(value, list | tuple):
        return any(map(holds_hidden, value))
    return bool(value == HIDDEN)
