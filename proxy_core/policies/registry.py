"""Finds policies by name and builds them from parameters.

A name means: a built-in policy (one module each beside this one), else one of an installed package (entry-point group
`luthien.policies`), else a file of `policy_paths` that is called like it. Class names (`SerialPolicy`, `AddApiKeyHeader`)
mean the policy of that name. Nothing else is ever imported: a name from a file or from the API is looked up, never
executed. A policy that cannot be had raises ConfigurationError with a line for each fault, and the nearest known word.
"""

from __future__ import annotations

import difflib
import importlib
import re
import typing
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError

from proxy_core.errors import ConfigurationError
from proxy_core.policies import local_files
from proxy_core.policies.base import ControlPolicy
from proxy_core.policies.described import PolicyDescription, broken, described, models_in
from proxy_core.settings import Settings

AnyPolicy = ControlPolicy[Any]

BUILT_IN: tuple[str, ...] = (
    "send_backend_request",
    "request_logging",
    "add_api_key",
    "strip_secrets",
    "rephrase_request",
    "rephrase_response",
    "backend_sampling",
    "rank_and_select_response",
    "serial",
    "branching",
    "client_api_key_auth",
    "add_api_key_header",
    "add_api_key_header_from_env",
    "set_backend",
    "model_name_replacement",
    "leaked_api_key_detection",
    "backend_call",
    "noop",
    "string_replacement",
    "tool_allow_deny",
    "tool_call_judge",
    "simple_llm",
    "block_dangerous_commands",
    "block_sensitive_file_writes",
    "block_web_requests",
    "hold_for_approval",
)
"""Registry names of the policies that come with luthien, in the order of the documentation; each is a module here."""

ALIASES = {
    "compound": "serial",
    "multi_serial": "serial",
    "no_op": "noop",
    "simple_no_op": "noop",
    "send_backend": "send_backend_request",
}
"""Other names that other programs, or older files, use."""

GROUP = "luthien.policies"
"""The entry-point group of installed packages."""

_CLASS_NAME = re.compile(r"[A-Z][A-Za-z0-9]{0,99}")
_REGISTRY_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


def registry_name(use: str) -> str:
    """The registry name that `use` stands for: a registry name, an alias or a class name. It need not exist."""
    name = use
    if _CLASS_NAME.fullmatch(use):
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", use.removesuffix("Policy")).lower()
    return ALIASES.get(name, name)


def policy_class(use: str, settings: Settings | None = None) -> type[AnyPolicy]:
    """The class of the policy that `use` names. Raises ConfigurationError, with the nearest known name."""
    name = registry_name(use)
    if _REGISTRY_NAME.fullmatch(name):
        if name in BUILT_IN:
            return _built_in(name)
        if (entry := _entry_points().get(name)) is not None:
            return _from_package(entry, name)
        paths = settings.policy_paths if settings is not None else []
        if (file := local_files.find(name, paths)) is not None:
            return local_files.policy_in(file)
    raise ConfigurationError(f"no policy is called {use!r}; {_hint(use, name, settings)}")


def build_policy(use: str, params: dict[str, Any], settings: Settings, place: str = "") -> AnyPolicy:
    """The policy `use` with its parameters.

    Raises ConfigurationError with a line for each fault: `params.threshold: …`, with `place` in front (`policies[2]`).
    """
    around = f"{place}." if place else ""
    try:
        cls = policy_class(use, settings)
    except ConfigurationError as fault:
        raise ConfigurationError(f"{around}use: {fault}") from fault
    try:
        checked = cls.params_model.model_validate(params)
    except ValidationError as fault:
        raise ConfigurationError("\n".join(fault_lines(cls.params_model, fault, f"{around}params"))) from None
    try:
        return cls.built(checked, settings, place)
    except ConfigurationError:
        raise
    except Exception as fault:
        said = " ".join(str(fault).split()) or type(fault).__name__
        raise ConfigurationError(f"{around}params: {use} cannot be built: {said}") from fault


def registered(settings: Settings | None = None) -> list[PolicyDescription]:
    """Every policy that can be used here: built-in ones, then those of packages, then those of files.

    One that cannot be loaded is there with its `problem`. This imports them all.
    """
    found = [described(_built_in(name), "built in") for name in BUILT_IN]
    taken = set(BUILT_IN)
    for name, entry in sorted(_entry_points().items()):
        source = f"package {entry.dist.name}" if entry.dist is not None else f"entry point {entry.value}"
        found.append(_described_or_broken(name, source, taken, partial(_from_package, entry, name)))
    found.extend(
        _described_or_broken(file.stem, f"file {file}", taken, partial(local_files.policy_in, file))
        for file in local_files.files(settings.policy_paths if settings is not None else [])
    )
    return found


def _described_or_broken(name: str, source: str, taken: set[str], load: Callable[[], type[AnyPolicy]]) -> PolicyDescription:
    if name in taken:
        return broken(name, source, f"another policy is called {name!r} already; rename this one")
    taken.add(name)
    try:
        return described(load(), source)
    except ConfigurationError as fault:
        return broken(name, source, str(fault))


def known_names(settings: Settings | None = None) -> list[str]:
    """Registry names of all policies; nothing is imported."""
    paths = settings.policy_paths if settings is not None else []
    return [*BUILT_IN, *_entry_points(), *(file.stem for file in local_files.files(paths))]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was most likely meant to be."""
    words = list(known)
    if close := difflib.get_close_matches(word, words, n=1, cutoff=0.6):
        return close[0]
    begun = [one for one in words if len(word) > 2 and one.lower().startswith(word.lower())]
    return min(begun, key=len, default=None)


# -- where classes come from ------------------------------------------------------------------------------------------


def _built_in(name: str) -> type[AnyPolicy]:
    module = importlib.import_module(f"proxy_core.policies.{name}")
    found = local_files.policy_of_module(module, name)
    if found is None:
        raise ConfigurationError(f"the module of the built-in policy {name!r} holds no such policy")
    return found


def _entry_points() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _from_package(entry: Any, name: str) -> type[AnyPolicy]:
    try:
        cls = entry.load()
    except Exception as fault:
        said = " ".join(str(fault).split()) or type(fault).__name__
        raise ConfigurationError(f"the policy {name!r} of the package cannot be loaded ({entry.value}): {said}") from fault
    if not (isinstance(cls, type) and issubclass(cls, ControlPolicy)):
        raise ConfigurationError(f"{entry.value}, which the package names as the policy {name!r}, is no ControlPolicy")
    return cls


# -- faults -----------------------------------------------------------------------------------------------------------


def _hint(use: str, name: str, settings: Settings | None) -> str:
    if ":" in use or "." in use:
        return "a policy is named, never loaded by its module; see docs/writing-policies.md for policies of your own"
    known = known_names(settings)
    near = nearest(name, known) or nearest(name, ALIASES)
    return f"did you mean {ALIASES.get(near, near)!r}?" if near else "`luthien policies list` shows them all"


def fault_lines(model: type[BaseModel], fault: ValidationError, around: str) -> list[str]:
    """A line for each fault of what `model` refused: where, what, and what would be right."""
    return list(dict.fromkeys(_fault_line(model, error, around) for error in fault.errors()))


def _fault_line(model: type[BaseModel], error: Any, around: str) -> str:
    loc, models = _walked(model, tuple(error["loc"]), unknown_last=error["type"] == "extra_forbidden")
    place = around + dotted(loc)
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if error["type"] == "extra_forbidden":
        known = list(dict.fromkeys(info.alias or name for model in models for name, info in model.model_fields.items()))
        near = nearest(str(loc[-1]), known)
        if near:
            return f"{place}: unknown parameter; did you mean {near}?"
        return f"{place}: unknown parameter; " + (f"known here: {', '.join(known)}" if known else "there are none here")
    if error["type"] == "missing":
        return f"{place}: missing; give it a value"
    if error["type"] == "union_tag_invalid":
        kinds = re.findall(r"'([^']*)'", error["ctx"]["expected_tags"])
        near = nearest(str(error["ctx"]["tag"]), kinds)
        hint = f"did you mean {near!r}?" if near else f"known here: {', '.join(kinds)}"
        return f"{place}.{error['ctx']['discriminator'].strip(chr(39))}: {error['ctx']['tag']!r} is unknown; {hint}"
    return f"{place}: {message[:1].lower()}{message[1:]}"


def dotted(loc: Iterable[int | str]) -> str:
    """A place inside JSON: `.policies[2].use`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)


def _walked(
    model: type[BaseModel], loc: tuple[int | str, ...], *, unknown_last: bool
) -> tuple[list[int | str], list[type[BaseModel]]]:
    """The place as a person would write it, without the words that pydantic adds for unions, and the models that stand there.

    With `unknown_last` the last name belongs to no model, and the models are those around it.
    """
    models: list[type[BaseModel]] = [model]
    place: list[int | str] = []
    for at, part in enumerate(loc):
        if unknown_last and at == len(loc) - 1:
            return [*place, part], models
        fields = [info for one in models for name, info in one.model_fields.items() if part in (name, info.alias)]
        if isinstance(part, int) or fields or not models:
            place.append(part)
        elif tagged := [one for one in models if _is_tagged(one, str(part))]:
            models = tagged
            continue
        if fields:
            models = [inner for info in fields for inner in models_in(info.annotation)]
    return place, models


def _is_tagged(model: type[BaseModel], tag: str) -> bool:
    info = model.model_fields.get("type")
    return info is not None and tag in typing.get_args(info.annotation)
