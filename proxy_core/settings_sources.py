"""Where settings come from: defaults < YAML file < environment < command line, with the origin of each value.

`load` returns validated settings or raises one ConfigurationError whose message has a line for each fault: what is wrong,
where it was set, what would be right. Values of secrets never appear in it. YAML is imported only where a file is given.
Names that other programs use too (`OPENAI_BASE_URL`, `LLM_TYPE`, …) are understood; one that points back at luthien itself
is ignored with a warning, because shells that send their clients here export exactly that.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from proxy_core.errors import ConfigurationError, StoreError
from proxy_core.settings import PolicySettings, Settings, UpstreamSettings, default_upstreams

PREFIX = "LUTHIEN_"
DEFAULT = "default"
NOT_SETTINGS = frozenset({"LUTHIEN_CONFIG"})
SHORT_NAMES = {
    "LUTHIEN_HOST": ("server", "host"),
    "LUTHIEN_PORT": ("server", "port"),
    "LUTHIEN_DATABASE_URL": ("journal", "database_url"),
    "LUTHIEN_LOG_LEVEL": ("logging", "level"),
}
"""Variables named like the command's own options."""
"""Names with the prefix that are no settings."""

SHARED_NAMES = {
    "DATABASE_URL": ("journal", "database_url"),
    "LOG_LEVEL": ("logging", "level"),
    "PROVIDER_TIMEOUT_SECONDS": ("routing", "timeouts", "total_s"),
    "SENSITIVITY_KEYWORDS": ("routing", "sensitivity", "keywords"),
    "COST_MAX_PROMPT_LENGTH_FOR_LOCAL": ("routing", "cost", "max_prompt_length_for_local"),
    "DEFAULT_PROVIDER": ("routing", "default_provider"),
}
"""Environment names that luthien shares with other programs, and the setting each one is."""

SHARED_LISTS = frozenset({"SENSITIVITY_KEYWORDS"})
"""Those that are lists: their items stand between commas."""

SHARED_BASE_URLS = {
    "TARGET_BACKEND_URL": "openai",
    "OPENAI_BASE_URL": "openai",
    "ANTHROPIC_BASE_URL": "anthropic",
    "OLLAMA_BASE_URL": "ollama",
}
"""Base URLs by environment name; each sets the upstream of that name, or else the first one of that API."""

SHARED_API_KEYS = {"OPENAI_API_KEY": "openai", "ANTHROPIC_API_KEY": "anthropic"}
"""Keys by environment name; each is used only with its provider's own address or one that came from the environment."""

ONE_UPSTREAM_NAMES = ("LLM_BASE_URL", "LLM_TYPE", "LLM_API_KEY")
"""Together these replace all upstreams by one."""

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

Place = tuple[str, ...]
_PLACE_PARTS = re.compile(r"[.\[\]]+")
_FAULT_PLACE = re.compile(r"^((?:policies|chains|keys|holds)[\w.\[\]-]*):")


@dataclass(frozen=True)
class LoadedSettings:
    """Settings, and for each dotted path where its value came from: `default`, `file config.yaml:3`,
    `environment NAME` or `command line --option`."""

    settings: Settings
    origins: dict[str, str]
    warnings: tuple[str, ...] = ()
    places: Mapping[Place, str] = field(default_factory=dict)
    """Origins by place in the tree, also inside lists: `("policies", "2", "mode")`."""

    def origin_of(self, dotted: str) -> str:
        """Origin of a place such as `policies[2].params.threshold`, or of the nearest part of the tree around it."""
        place = tuple(part for part in _PLACE_PARTS.split(dotted) if part)
        return next((self.places[place[:end]] for end in range(len(place), 0, -1) if place[:end] in self.places), DEFAULT)

    def placed(self, faults: str) -> str:
        """Fault lines that begin with a place, such as `policies[2].use: …`, with where it was set."""
        return "\n".join(
            _FAULT_PLACE.sub(lambda found: f"{found[1]} ({self.origin_of(found[1])}):", line) for line in faults.splitlines()
        )


@dataclass
class Layers:
    """The tree as it grows, layer by layer, and who set what."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def put(self, place: Place, value: Any, origin: str) -> None:
        """Set one value; what was below or beside it in an earlier layer stays unless it is this very place."""
        node = self.tree
        for name in place[:-1]:
            inner = node.get(name)
            if not isinstance(inner, dict):
                inner = node[name] = {}
            node = inner
        for known in [known for known in self.origins if known[: len(place)] == place]:
            del self.origins[known]
        node[place[-1]] = value
        self._mark(place, value, origin)

    def _mark(self, place: Place, value: Any, origin: str) -> None:
        self.origins[place] = origin
        if isinstance(value, dict):
            for name, inner in value.items():
                self._mark((*place, str(name)), inner, origin)

    def get(self, place: Place) -> Any:
        node: Any = self.tree
        for name in place:
            if not isinstance(node, dict) or name not in node:
                return None
            node = node[name]
        return node

    def origin(self, place: Place) -> str:
        """Origin of a place, or of the nearest part of the tree around it that somebody set."""
        for length in range(len(place), 0, -1):
            if (known := self.origins.get(place[:length])) is not None:
                return known
        return DEFAULT

    def raise_faults(self) -> None:
        if self.faults:
            raise ConfigurationError("\n".join(dict.fromkeys(self.faults)))


def load(config: Path | None, overrides: Mapping[str, object], environ: Mapping[str, str], dotenv: Path | None) -> LoadedSettings:
    """Merge all sources and validate.

    `overrides` maps dotted paths (`server.port`) to values of the command line, plus `base_url`, `type` and `api_key`, which
    together replace all upstreams by one; None means not given. `dotenv` is read where it is a file; names that `environ` has
    win over it.
    """
    layers = Layers()
    variables = _with_dotenv(environ, dotenv, layers)
    if config is not None:
        from proxy_core.settings_file import read_file

        read_file(config, {name: value for name, (value, _) in variables.items()}, layers)
    layers.raise_faults()
    _apply_prefixed(variables, layers)
    own = _own_address(layers, overrides)
    _apply_shared(variables, layers, own)
    _apply_options(overrides, layers)
    layers.raise_faults()
    _complete_upstreams(layers)
    _place_policy_paths(config, layers)
    settings = _validated(layers)
    _refuse_loops(settings, layers)
    _refuse_unknown_upstreams(settings, layers)
    layers.raise_faults()
    return LoadedSettings(settings, _origins_of(settings, layers), tuple(layers.warnings), layers.origins)


# -- environment ------------------------------------------------------------------------------------------------------


def _with_dotenv(environ: Mapping[str, str], dotenv: Path | None, layers: Layers) -> dict[str, tuple[str, str]]:
    """Name → (value, origin). Empty values count as unset, as shells have no other way to say so."""
    found: dict[str, tuple[str, str]] = {}
    if dotenv is not None and dotenv.is_file():
        from dotenv.parser import parse_stream

        try:
            with dotenv.open(encoding="utf-8") as stream:
                bindings = list(parse_stream(stream))
        except (OSError, UnicodeDecodeError) as fault:
            raise ConfigurationError(f"cannot read {dotenv}: {_reason(fault)}; make it readable or remove it") from fault
        for binding in bindings:
            if binding.error:
                layers.warnings.append(f"{dotenv}:{binding.original.line} is not NAME=value; the line is ignored")
            elif binding.key and binding.value:
                found[binding.key] = (binding.value, f"environment {binding.key} ({dotenv.name}:{binding.original.line})")
    found.update({name: (value, f"environment {name}") for name, value in environ.items() if value})
    return found


def _reason(fault: Exception) -> str:
    return fault.strerror or str(fault) if isinstance(fault, OSError) else "it is not UTF-8 text"


def _apply_prefixed(variables: Mapping[str, tuple[str, str]], layers: Layers) -> None:
    for name, (text, origin) in sorted(variables.items()):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        place = SHORT_NAMES.get(name) or tuple(part.lower() for part in name.removeprefix(PREFIX).split("__"))
        kind = _kind_at(place)
        if place == ("policy_paths",):
            layers.faults.append(f"policy_paths ({origin}): it names code to run, so only the configuration file may set it")
        elif kind is None:
            _unknown_variable(name, origin, place, layers)
        elif (around := _list_around(place)) is not None:
            _apply_json_list(around, place, text, origin, layers)
        elif kind == "tree":
            _apply_json(place, text, origin, layers)
        else:
            if place[0] == "upstreams":
                _seed_upstreams(layers)
            layers.put(place, text, origin)


def _apply_json(place: Place, text: str, origin: str, layers: Layers) -> None:
    import json

    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, dict):
        layers.put(place, value, origin)
    else:
        layers.faults.append(f"{'.'.join(place)} ({origin}): give a JSON object, or one value as {_variable_of((*place, '…'))}")


def _apply_json_list(around: Place, place: Place, text: str, origin: str, layers: Layers) -> None:
    import json

    try:
        value = json.loads(text) if place == around else None
    except ValueError:
        value = None
    if isinstance(value, list):
        layers.put(around, value, origin)
    else:
        layers.faults.append(f"{'.'.join(place)} ({origin}): give a JSON list as {_variable_of(around)}")


def _unknown_variable(name: str, origin: str, place: Place, layers: Layers) -> None:
    near = nearest(name, [_variable_of(known) for known in known_places()])
    if near is None:
        same_leaf = [known for known in known_places() if known[-1] == place[-1]]
        near = _variable_of(same_leaf[0]) if same_leaf else None
    if len(place) == 1:
        # Without the double underscore it may well be somebody else's.
        layers.warnings.append(f"{name} is no setting and is ignored" + (f"; did you mean {near}?" if near else ""))
        return
    hint = f"did you mean {near}?" if near else "`luthien config show` lists what there is"
    layers.faults.append(f"unknown setting {'.'.join(place)} ({origin}); {hint}")


def _variable_of(place: Place) -> str:
    return PREFIX + "__".join(place).upper()


def _apply_shared(variables: Mapping[str, tuple[str, str]], layers: Layers, own: tuple[str, int] | None) -> None:
    for name, place in SHARED_NAMES.items():
        if name in variables and not layers.origins.get(place, DEFAULT).startswith("environment " + PREFIX):
            text, origin = variables[name]
            items = [item for one in text.split(",") if (item := one.strip())]
            layers.put(place, items if name in SHARED_LISTS else text, origin)
    _apply_one_upstream_variables(variables, layers, own)
    for name, api in SHARED_BASE_URLS.items():
        if name not in variables:
            continue
        url, origin = variables[name]
        if own is not None and _is_own(url, own):
            layers.warnings.append(f"{origin} points at luthien itself ({url}); it is ignored as an upstream")
            continue
        upstream = _upstream_for(api, layers)
        if upstream is None:
            layers.warnings.append(f"{origin} is ignored: no upstream speaks the {api} API")
        elif not layers.origin(("upstreams", upstream, "base_url")).startswith(("environment LUTHIEN_", "environment LLM_")):
            layers.put(("upstreams", upstream, "base_url"), url, origin)
    for name, api in SHARED_API_KEYS.items():
        if name in variables and (upstream := _upstream_for(api, layers)) is not None:
            place = ("upstreams", upstream, "api_key")
            if layers.get(place) is None and _may_use_shared_key(upstream, api, layers):
                layers.put(place, *variables[name])


def _apply_one_upstream_variables(variables: Mapping[str, tuple[str, str]], layers: Layers, own: tuple[str, int] | None) -> None:
    url, api, key = (variables.get(name, (None, ""))[0] for name in ONE_UPSTREAM_NAMES)
    if url is None and (api is None or key is None):
        return
    if url is not None and own is not None and _is_own(url, own):
        layers.warnings.append(f"environment LLM_BASE_URL points at luthien itself ({url}); it is ignored as an upstream")
        return
    if api is None:
        layers.warnings.append("environment LLM_BASE_URL is set without LLM_TYPE; openai is assumed")
    origins = tuple(variables.get(name, (None, DEFAULT))[1] for name in ONE_UPSTREAM_NAMES)
    _put_one_upstream(layers, url, api or "openai", key, origins)


def _seed_upstreams(layers: Layers) -> None:
    """Where nothing has set upstreams yet, put the default ones so that single values can be laid over them."""
    if "upstreams" not in layers.tree:
        tree = {name: upstream.model_dump(include={"api", "base_url"}) for name, upstream in default_upstreams().items()}
        layers.put(("upstreams",), tree, DEFAULT)


def _upstream_for(api: str, layers: Layers) -> str | None:
    _seed_upstreams(layers)
    upstreams = layers.tree["upstreams"]
    if not isinstance(upstreams, dict):
        return None
    speaking = [name for name, value in upstreams.items() if isinstance(value, dict) and value.get("api", name) == api]
    return api if api in speaking else next(iter(speaking), None)


def _may_use_shared_key(upstream: str, api: str, layers: Layers) -> bool:
    """A provider's key goes to that provider, or where the same environment sends it; never to an address of a file."""
    place = ("upstreams", upstream, "base_url")
    url = layers.get(place)
    usual = default_upstreams()[api].base_url
    return url is None or str(url).rstrip("/").removesuffix("/v1") == usual or layers.origin(place).startswith("environment ")


# -- command line -----------------------------------------------------------------------------------------------------


def _apply_options(overrides: Mapping[str, object], layers: Layers) -> None:
    given = {name: value for name, value in overrides.items() if value is not None}
    url, api, key = (given.pop(name, None) for name in ONE_UPSTREAM_OPTIONS)
    for dotted, value in given.items():
        layers.put(tuple(dotted.split(".")), value, f"command line {OPTIONS.get(dotted, dotted)}")
    if url is None and api is None and key is None:
        return
    if api is None:
        option = "--base-url" if url is not None else "--api-key"
        layers.faults.append(f"{option} needs --type openai, anthropic or ollama: the API that the upstream speaks")
        return
    origins = ("command line --base-url", "command line --type", "command line --api-key")
    _put_one_upstream(layers, url, str(api), key, origins)


def _put_one_upstream(layers: Layers, url: object, api: str, key: object, origins: tuple[str, ...]) -> None:
    api = api.strip().lower()
    if api not in default_upstreams():
        layers.faults.append(f"{api!r} is no API that luthien speaks ({origins[1]}); use openai, anthropic or ollama")
        return
    place = ("upstreams", api)
    layers.put(("upstreams",), {}, origins[1])
    layers.put((*place, "api"), api, origins[1])
    layers.put((*place, "base_url"), url or default_upstreams()[api].base_url, origins[0] if url else DEFAULT)
    if key is not None:
        layers.put((*place, "api_key"), key, origins[2])


# -- the whole tree ---------------------------------------------------------------------------------------------------


def _complete_upstreams(layers: Layers) -> None:
    """An upstream may leave out its API where its name says it, and its address where its API has a usual one."""
    upstreams = layers.tree.get("upstreams")
    if not isinstance(upstreams, dict):
        return
    usual = default_upstreams()
    for name, upstream in upstreams.items():
        if not isinstance(upstream, dict):
            continue
        if "api" not in upstream and name in usual:
            layers.put(("upstreams", name, "api"), name, DEFAULT)
        if "base_url" not in upstream and upstream.get("api") in tuple(usual):
            layers.put(("upstreams", name, "base_url"), usual[upstream["api"]].base_url, DEFAULT)


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
        for error in fault.errors(include_url=False):
            place = tuple(str(part) for part in error["loc"])
            dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])[1:]
            origin = layers.origin(place)
            layers.faults.append(_fault_line(place, dotted, error["type"], error["msg"], error.get("input"), origin))
        raise ConfigurationError("\n".join(layers.faults)) from None


def _fault_line(place: Place, dotted: str, kind: str, message: str, value: Any, origin: str) -> str:
    if kind == "extra_forbidden":
        return f"unknown setting {dotted} ({origin}); {_near_setting(place)}"
    if kind == "missing":
        return f"{dotted} is missing ({origin}); give it a value"
    message = message.removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if place[-1] in SECRET_LEAVES or isinstance(value, dict) or len(shown := repr(value)) > 60 or shown in message.split():
        return f"{dotted} ({origin}): {message}"
    return f"{dotted} ({origin}): {message}, not {shown}"


def _near_setting(place: Place) -> str:
    siblings = sorted({known[len(place) - 1] for known in _known_beside(place)})
    if (near := nearest(place[-1], siblings)) is not None:
        return f"did you mean {near}?"
    elsewhere = [".".join(known) for known in known_places() if known[-1] == place[-1]]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    return f"known here: {', '.join(siblings)}"


def _known_beside(place: Place) -> list[Place]:
    def fits(known: Place) -> bool:
        around = zip(known[: len(place) - 1], place[:-1], strict=False)
        return len(known) >= len(place) and all(a in ("*", b) for a, b in around)

    return [known for known in known_places() if fits(known)]


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that `word` was most likely meant to be."""
    import difflib

    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.72)), None)


def known_places(model: type[BaseModel] = Settings, around: Place = ()) -> list[Place]:
    """Every setting as a place in the tree; `*` stands for a name that the user chooses, or a place in a list."""
    found: list[Place] = []
    for name, info in model.model_fields.items():
        inner, named = _model_of(info.annotation)
        place = (*around, name, "*") if named and inner is not None else (*around, name)
        found.extend(known_places(inner, place) if inner is not None else [place])
    return found


def _model_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model inside an annotation (`M`, `M | None`, `dict[str, M]`, `list[M]`), and whether names stand before it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if get_origin(annotation) in (dict, list):
        return _model_of(get_args(annotation)[-1])[0], True
    for argument in get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument, False
    return None, False


def _kind_at(place: Place) -> str | None:
    """`leaf`, `tree` or None where the tree has no such place."""
    for known in known_places():
        if all(a in ("*", b) for a, b in zip(known, place, strict=False)) and len(known) >= len(place):
            return "leaf" if len(known) == len(place) else "tree"
    return None


def _list_around(place: Place) -> Place | None:
    """The list that is at `place` or around it."""
    model: type[BaseModel] | None = Settings
    for at, name in enumerate(place):
        info = model.model_fields.get(name) if model is not None else None
        if info is None:
            return None  # a name that the user chose, and what is below it
        if get_origin(info.annotation) is list:
            return place[: at + 1]
        model = _model_of(info.annotation)[0]
    return None


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


def shown(value: Any) -> Any:
    """A value as it may be printed: secrets say only whether they are set, URLs lose their password."""
    if isinstance(value, SecretStr):
        return "(set, hidden)"
    if isinstance(value, PolicySettings):
        from proxy_core.policies.masking import masked_raw

        named = {name: getattr(value, name) for name in type(value).model_fields}
        return {**named, "params": masked_raw(value.use, value.params)}
    if isinstance(value, BaseModel):
        return {name: shown(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {name: shown(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shown(inner) for inner in value]
    if isinstance(value, str) and "://" in value and "@" in value:
        scheme, _, rest = value.partition("://")
        user = rest.rpartition("@")[0].partition(":")[0]
        return f"{scheme}://{user}:***@{rest.rpartition('@')[2]}"
    return value


# -- loops ------------------------------------------------------------------------------------------------------------


def _own_address(layers: Layers, overrides: Mapping[str, object]) -> tuple[str, int] | None:
    host = overrides.get("server.host") or layers.get(("server", "host")) or "127.0.0.1"
    port = overrides.get("server.port")
    port = layers.get(("server", "port")) if port is None else port
    try:
        number = 4000 if port is None else int(str(port))
    except ValueError:
        return None  # validation will say so
    return (str(host), number) if number else None


def _is_own(url: str, own: tuple[str, int]) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url if "://" in url else "http://" + url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return False  # validation will say so
    host, listening = (parts.hostname or "").lower(), own[0].lower()
    if port != own[1]:
        return False
    here = host in ("localhost", "::1", "0.0.0.0", "::") or host.startswith("127.")  # noqa: S104 - compared, not bound
    return host == listening or (
        here and (listening in ("localhost", "::1", "0.0.0.0", "::") or listening.startswith("127."))  # noqa: S104
    )


def _refuse_loops(settings: Settings, layers: Layers) -> None:
    own = (settings.server.host, settings.server.port)
    for name, upstream in settings.upstreams.items():
        if own[1] and _is_own(upstream.base_url, own):
            place = ("upstreams", name, "base_url")
            layers.faults.append(
                f"{'.'.join(place)} ({layers.origin(place)}): {upstream.base_url} is luthien's own address; "
                "give the provider's, or move luthien with --port"
            )


# -- routing ----------------------------------------------------------------------------------------------------------


def _refuse_unknown_upstreams(settings: Settings, layers: Layers) -> None:
    from proxy_core.routing.router import unknown_upstreams

    for place, name in unknown_upstreams(settings):
        near = nearest(name, [*settings.upstreams, "local", "public"])
        hint = f"did you mean {near}?" if near else f"there are {', '.join(settings.upstreams)}"
        layers.faults.append(f"{'.'.join(place)} ({layers.origin(place)}): no upstream is called {name!r}; {hint}")


# -- the data folder --------------------------------------------------------------------------------------------------


def data_dir_path(settings: Settings) -> Path:
    """Where state is kept; nothing is created."""
    if settings.data_dir:
        return Path(settings.data_dir).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("luthien", appauthor=False)


def data_dir(settings: Settings) -> Path:
    """The folder of the store, keys and logs, created readable for its owner alone.

    A folder that was there before keeps its mode, because it may be anyone's; the files put into it are 0600.
    Raises StoreError where it cannot be written.
    """
    folder = data_dir_path(settings)
    fix = "choose another folder with --data-dir or LUTHIEN_DATA_DIR, or make this one writable"
    try:
        fresh = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if fresh or not settings.data_dir:
            folder.chmod(stat.S_IRWXU)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as fault:
        raise StoreError(f"cannot write to the data folder {folder}: {fault.strerror or fault}; {fix}") from fault
    return folder


def working_dotenv() -> Path | None:
    """`.env` of the working folder."""
    try:
        return Path(os.getcwd()) / ".env"  # noqa: PTH109 - the folder may be gone
    except OSError:
        return None


__all__ = [
    "LoadedSettings",
    "UpstreamSettings",
    "data_dir",
    "data_dir_path",
    "known_places",
    "load",
    "nearest",
    "shown",
    "working_dotenv",
]
