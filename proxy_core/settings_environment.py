"""Settings from the environment and `.env`: `LUTHIEN_…` with `__` between the parts, and names that other programs use too.

One of these that points back at luthien itself is ignored with a warning, because shells that send their clients here export
exactly that. Empty values count as unset.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from proxy_core.errors import ConfigurationError
from proxy_core.settings import default_upstreams
from proxy_core.settings_layers import DEFAULT, Layers
from proxy_core.settings_tree import Place, kind_at, known_places, list_around, nearest
from proxy_core.settings_upstreams import is_own, put_one_upstream, seed_upstreams, upstream_for

PREFIX = "LUTHIEN_"
NOT_SETTINGS = frozenset({"LUTHIEN_CONFIG"})
"""Names with the prefix that are no settings."""

SHORT_NAMES = {
    "LUTHIEN_HOST": ("server", "host"),
    "LUTHIEN_PORT": ("server", "port"),
    "LUTHIEN_DATABASE_URL": ("journal", "database_url"),
    "LUTHIEN_LOG_LEVEL": ("logging", "level"),
}
"""Variables named like the command's own options."""

SHARED_NAMES = {
    "DATABASE_URL": ("journal", "database_url"),
    "LOG_LEVEL": ("logging", "level"),
    "PROVIDER_TIMEOUT_SECONDS": ("routing", "timeouts", "total_s"),
    "SENSITIVITY_KEYWORDS": ("routing", "sensitivity", "keywords"),
    "COST_MAX_PROMPT_LENGTH_FOR_LOCAL": ("routing", "cost", "max_prompt_length_for_local"),
    "DEFAULT_PROVIDER": ("routing", "default_provider"),
    "POLICY_FILE": ("routing", "policy_file"),
    "AUDIT_ENABLED": ("server", "audit"),
}
"""Environment names that luthien shares with other programs, and the setting each one is."""

SHARED_LISTS = frozenset({"SENSITIVITY_KEYWORDS"})
"""Those that are lists: their items stand between commas."""

SHARED_BASE_URLS = {
    "TARGET_BACKEND_URL": "openai",
    "OPENAI_BASE_URL": "openai",
    "ANTHROPIC_BASE_URL": "anthropic",
    "OLLAMA_BASE_URL": "ollama",
    "LOCAL_LLM_URL": "ollama",
}
"""Base URLs by environment name; each sets the upstream of that name, or else the first one of that API."""

SHARED_API_KEYS = {"OPENAI_API_KEY": "openai", "ANTHROPIC_API_KEY": "anthropic", "LOCAL_LLM_API_KEY": "ollama"}
"""Keys by environment name; each is used only with its provider's own address or one that came from the environment."""

PUBLIC_URL, PUBLIC_KEY = "PUBLIC_LLM_URL", "PUBLIC_LLM_API_KEY"
"""Address and key of Anthropic's upstream where `anthropic` stands in the address, else of OpenAI's."""

ONE_UPSTREAM_NAMES = ("LLM_BASE_URL", "LLM_TYPE", "LLM_API_KEY")
"""Together these replace all upstreams by one."""


def with_dotenv(environ: Mapping[str, str], dotenv: Path | None, layers: Layers) -> dict[str, tuple[str, str]]:
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


def apply_prefixed(variables: Mapping[str, tuple[str, str]], layers: Layers) -> None:
    for name, (text, origin) in sorted(variables.items()):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        place = SHORT_NAMES.get(name) or tuple(part.lower() for part in name.removeprefix(PREFIX).split("__"))
        kind = kind_at(place)
        if place == ("policy_paths",):
            layers.complain(f"policy_paths ({origin}): it names code to run, so only the configuration file may set it")
        elif kind is None:
            _unknown_variable(name, origin, place, layers)
        elif (around := list_around(place)) is not None:
            _apply_json_list(around, place, text, origin, layers)
        elif kind == "tree":
            _apply_json(place, text, origin, layers)
        else:
            if place[0] == "upstreams":
                seed_upstreams(layers)
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
        layers.complain(f"{'.'.join(place)} ({origin}): give a JSON object, or one value as {_variable_of((*place, '…'))}")


def _apply_json_list(around: Place, place: Place, text: str, origin: str, layers: Layers) -> None:
    import json

    try:
        value = json.loads(text) if place == around else None
    except ValueError:
        value = None
    if isinstance(value, list):
        layers.put(around, value, origin)
    else:
        layers.complain(f"{'.'.join(place)} ({origin}): give a JSON list as {_variable_of(around)}")


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
    layers.complain(f"unknown setting {'.'.join(place)} ({origin}); {hint}")


def _variable_of(place: Place) -> str:
    return PREFIX + "__".join(place).upper()


def apply_shared(variables: Mapping[str, tuple[str, str]], layers: Layers, own: tuple[str, int] | None) -> None:
    for name, place in SHARED_NAMES.items():
        if name in variables and not layers.origins.get(place, DEFAULT).startswith("environment " + PREFIX):
            text, origin = variables[name]
            items = [item for one in text.split(",") if (item := one.strip())]
            layers.put(place, items if name in SHARED_LISTS else text, origin)
    _apply_one_upstream_variables(variables, layers, own)
    public = _public_api(variables)
    for name, api in {**SHARED_BASE_URLS, PUBLIC_URL: public}.items():
        if name not in variables:
            continue
        url, origin = variables[name]
        if own is not None and is_own(url, own):
            layers.warnings.append(f"{origin} points at luthien itself ({url}); it is ignored as an upstream")
            continue
        upstream = upstream_for(api, layers)
        if upstream is None:
            layers.warnings.append(f"{origin} is ignored: no upstream speaks the {api} API")
        elif not layers.origin(("upstreams", upstream, "base_url")).startswith(("environment LUTHIEN_", "environment LLM_")):
            layers.put(("upstreams", upstream, "base_url"), url, origin)
    for name, api in {PUBLIC_KEY: public, **SHARED_API_KEYS}.items():
        if name in variables and (upstream := upstream_for(api, layers)) is not None:
            place = ("upstreams", upstream, "api_key")
            if layers.get(place) is None and _may_use_shared_key(upstream, api, layers):
                layers.put(place, *variables[name])


def _public_api(variables: Mapping[str, tuple[str, str]]) -> str:
    return "anthropic" if "anthropic" in variables.get(PUBLIC_URL, ("", ""))[0] else "openai"


def name_public(variables: Mapping[str, tuple[str, str]], layers: Layers) -> None:
    """Where the environment names a public provider of another API than most clients speak, `public` means that one."""
    place = ("routing", "default_provider")
    if PUBLIC_URL in variables and _public_api(variables) == "anthropic" and layers.get(place) == "public":
        upstream = upstream_for("anthropic", layers)
        if upstream is not None:
            layers.put(place, upstream, variables[PUBLIC_URL][1])


def _apply_one_upstream_variables(variables: Mapping[str, tuple[str, str]], layers: Layers, own: tuple[str, int] | None) -> None:
    url, api, key = (variables.get(name, (None, ""))[0] for name in ONE_UPSTREAM_NAMES)
    if url is None and (api is None or key is None):
        return
    if url is not None and own is not None and is_own(url, own):
        layers.warnings.append(f"environment LLM_BASE_URL points at luthien itself ({url}); it is ignored as an upstream")
        return
    if api is None:
        layers.warnings.append("environment LLM_BASE_URL is set without LLM_TYPE; openai is assumed")
    origins = tuple(variables.get(name, (None, DEFAULT))[1] for name in ONE_UPSTREAM_NAMES)
    put_one_upstream(layers, url, api or "openai", key, origins)


def _may_use_shared_key(upstream: str, api: str, layers: Layers) -> bool:
    """A provider's key goes to that provider, or where the same environment sends it; never to an address of a file."""
    place = ("upstreams", upstream, "base_url")
    url = layers.get(place)
    usual = default_upstreams()[api].base_url
    return url is None or str(url).rstrip("/").removesuffix("/v1") == usual or layers.origin(place).startswith("environment ")
