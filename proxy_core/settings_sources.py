"""Where settings come from: defaults < YAML file < environment < command line, with the origin of each value.

`load` returns validated settings or raises one ConfigurationError whose message has a line for each fault: what is wrong,
where it was set, what would be right. Values of secrets never appear in it. YAML is imported only where a file is given.
Names that other programs use too (`OPENAI_BASE_URL`, `LLM_TYPE`, …) are understood; one that points back at luthien itself
is ignored with a warning, because shells that send their clients here export exactly that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from proxy_core.data_folder import data_dir, data_dir_path
from proxy_core.settings import Settings
from proxy_core.settings_environment import apply_prefixed, apply_shared, name_public, with_dotenv
from proxy_core.settings_layers import DEFAULT, Fault, Layers, Mark, SettingsInvalid, fault_at, found_origin
from proxy_core.settings_shown import shown
from proxy_core.settings_tree import Place, known_names, known_places, near_setting, nearest
from proxy_core.settings_upstreams import complete_upstreams, only_upstream, own_address, put_one_upstream, refuse_loops

OPTIONS = {
    "server.host": "--host",
    "server.port": "--port",
    "control.port": "--control-port",
    "data_dir": "--data-dir",
    "journal.database_url": "--database-url",
    "logging.level": "--log-level",
    "ui.mouse": "--no-mouse",
}
"""Command line option of each setting that has one."""

ONE_UPSTREAM_OPTIONS = ("base_url", "type", "api_key")
SECRET_LEAVES = frozenset({"api_key", "api_keys", "database_url", "proxy"})
_PLACE_PARTS = re.compile(r"[.\[\]]+")
_FAULT_PLACE = re.compile(r"^((?:policies|chains|keys|holds|routing|limits|interceptors)\b\S*?):(?= )")


@dataclass(frozen=True)
class LoadedSettings:
    """Settings, and for each dotted path where its value came from: `default`, `file config.yaml:3`,
    `environment NAME` or `command line --option`."""

    settings: Settings
    origins: dict[str, str]
    warnings: tuple[str, ...] = ()
    places: Mapping[Place, str] = field(default_factory=dict)
    """Origins by place in the tree, also inside lists: `("policies", "2", "mode")`."""
    marks: Mapping[Place, Mark] = field(default_factory=dict)
    """Where in the file those stand that it has set."""

    def origin_of(self, dotted: str) -> str:
        """Origin of a place such as `policies[2].params.threshold`, or of the nearest part of the tree around it."""
        return found_origin(self.places, self.marks, _place_of(dotted))[0]

    def placed(self, faults: str) -> str:
        """Fault lines that begin with a place, such as `policies[2].use: …`, with where it was set."""
        return "\n".join(one.text for one in self.faults_in(faults))

    def faults_in(self, lines: str) -> list[Fault]:
        """The same as faults, one a line."""
        found = []
        for line in lines.splitlines():
            named = _FAULT_PLACE.match(line)
            if named is None:
                found.append(Fault(line, line))
            else:
                rest = line[named.end(1) :]
                found.append(fault_at(self.places, self.marks, _place_of(named[1]), named[1], rest))
        return found


def _place_of(dotted: str) -> Place:
    return tuple(part for part in _PLACE_PARTS.split(dotted) if part)


def load(config: Path | None, overrides: Mapping[str, object], environ: Mapping[str, str], dotenv: Path | None) -> LoadedSettings:
    """Merge all sources and validate.

    `overrides` maps dotted paths (`server.port`) to values of the command line, plus `base_url`, `type` and `api_key`, which
    together replace all upstreams by one, or lie over the only one that is configured; None means not given. `dotenv` is read
    where it is a file; names that `environ` has
    win over it.
    """
    layers = Layers()
    variables = with_dotenv(environ, dotenv, layers)
    if config is not None:
        from proxy_core.settings_file import read_file
        from proxy_core.settings_perimeter import understand

        read_file(config, {name: value for name, (value, _) in variables.items()}, layers)
        understand(layers)
    apply_prefixed(variables, layers)
    own = own_address(layers, overrides)
    apply_shared(variables, layers, own)
    if layers.get(("routing", "policy_file")) is not None:
        from proxy_core.settings_rules_file import read_rules

        read_rules(layers, config.expanduser().absolute().parent if config is not None else None)
    name_public(variables, layers)
    _apply_options(overrides, layers)
    complete_upstreams(layers)
    _place_policy_paths(config, layers)
    settings = _validated(layers)
    refuse_loops(settings, layers)
    _refuse_unknown_upstreams(settings, layers)
    layers.raise_faults()
    return LoadedSettings(settings, _origins_of(settings, layers), tuple(layers.warnings), layers.origins, layers.marks)


def _apply_options(overrides: Mapping[str, object], layers: Layers) -> None:
    given = {name: value for name, value in overrides.items() if value is not None}
    url, api, key = (given.pop(name, None) for name in ONE_UPSTREAM_OPTIONS)
    for dotted, value in given.items():
        layers.put(tuple(dotted.split(".")), value, f"command line {OPTIONS.get(dotted, dotted)}")
    if url is None and api is None and key is None:
        return
    origins = ("command line --base-url", "command line --type", "command line --api-key")
    only = only_upstream(layers)
    if only is not None and (api is None or str(api).strip().lower() == only[1]):
        for leaf, value, origin in (("base_url", url, origins[0]), ("api_key", key, origins[2])):
            if value is not None:
                layers.put(("upstreams", only[0], leaf), value, origin)
    elif api is None:
        option = "--base-url" if url is not None else "--api-key"
        layers.complain(f"{option} needs --type openai, anthropic or ollama: the API that the upstream speaks")
    else:
        put_one_upstream(layers, url, str(api), key, origins)


def _place_policy_paths(config: Path | None, layers: Layers) -> None:
    """Paths of policy files become absolute; where none are given, the usual folders that are there are taken."""
    given = layers.get(("policy_paths",))
    beside = config.expanduser().absolute().parent if config is not None else None
    if given is None:
        named = layers.get(("data_dir",))
        usual = [beside / "policies"] if beside is not None else []
        if not layers.origin(("data_dir",)).endswith(")"):  # a .env file of the working folder must not choose code to run
            usual.append(data_dir_path(Settings(data_dir=named if isinstance(named, str) else None)) / "policies")
        if found := [str(folder) for folder in usual if folder.is_dir()]:
            layers.put(("policy_paths",), found, DEFAULT)
    elif isinstance(given, list) and beside is not None:
        layers.tree["policy_paths"] = [str(beside / Path(one).expanduser()) if isinstance(one, str) else one for one in given]


def _validated(layers: Layers) -> Settings:
    try:
        return Settings.model_validate(layers.tree)
    except ValidationError as fault:
        known = {one.path for one in layers.faults}
        for error in fault.errors(include_url=False):
            place = tuple(str(part) for part in error["loc"])
            path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])[1:]
            path = layers.written.get(place, path)
            if path not in known:  # what has no value has no right one either
                layers.fault(place, *_words(place, path, error["type"], error["msg"], error.get("input")))
        raise SettingsInvalid(layers.faults) from None


def _words(place: Place, path: str, kind: str, message: str, value: Any) -> tuple[str, str, str]:
    """What is wrong, in the words before and after where it was set, and the name that was meant."""
    if kind == "extra_forbidden":
        near = near_setting(place)
        hint = f"did you mean {near}?" if near else f"known here: {', '.join(known_names(place))}"
        return f"unknown setting {path}", f"; {hint}", near
    if kind == "missing":
        return f"{path} is missing", "; give it a value", ""
    message = message.removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if kind == "model_type":
        return path, f": give a mapping of {', '.join(known_names((*place, '')))}", ""
    if place[-1] in SECRET_LEAVES:
        return path, f" {message.removeprefix('input ')}" if message.startswith("input ") else f": {message}", ""
    if isinstance(value, dict) or len(shown := repr(value)) > 60 or message.startswith(shown) or shown in message.split():
        return path, f": {message}", ""
    return path, f": {message}, not {shown}", ""


def _origins_of(settings: Settings, layers: Layers) -> dict[str, str]:
    found: dict[str, str] = {}

    def walk(value: Any, place: Place) -> None:
        if isinstance(value, BaseModel):
            for name in type(value).model_fields:
                walk(getattr(value, name), (*place, name))
        elif isinstance(value, dict) and value:
            for name, inner in value.items():
                walk(inner, (*place, name))
        else:
            found[".".join(place)] = layers.origins.get(place, DEFAULT)

    walk(settings, ())
    return found


def _refuse_unknown_upstreams(settings: Settings, layers: Layers) -> None:
    from proxy_core.routing.router import unknown_upstreams

    for place, name in unknown_upstreams(settings):
        near = nearest(name, [*settings.upstreams, "local", "public"])
        hint = f"did you mean {near}?" if near else f"there are {', '.join(settings.upstreams)}"
        layers.fault(place, ".".join(place), f": no upstream is called {name!r}; {hint}", near or "")


def working_dotenv() -> Path | None:
    """`.env` of the working folder."""
    try:
        return Path(os.getcwd()) / ".env"  # noqa: PTH109 - the folder may be gone
    except OSError:
        return None


__all__ = [
    "LoadedSettings",
    "data_dir",
    "data_dir_path",
    "known_places",
    "load",
    "nearest",
    "shown",
    "working_dotenv",
]
