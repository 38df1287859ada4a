"""Cylestio Perimeter's configuration: address, upstream, sessions, log and interceptors, in luthien's own words.

Such a file can also be used as it is, with `--config`. What luthien has no part for is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy_core.policies.importing_source import Source, literal
from proxy_core.policies.registry import nearest
from proxy_core.settings import default_upstreams

UNMATCHED = ("test_recorder", "rate_limit", "auth", "custom_logging")
WITHOUT_EFFECT = {
    "server.workers": "it was never used there",
    "session.enabled": "luthien always finds sessions",
}
LIVE_TRACE = ("session_completion_timeout", "completion_check_interval")
LOG = ("level", "format", "file", "max_file_size", "backup_count")
MOST_RETRIES = 9
REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


def translate(value: dict[str, Any], source: Source, environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that mean the same."""
    known = ("server", "llm", "interceptors", "logging", "session", "live_trace", "cylestio")
    top = source.section(value, "$", known)
    tree: dict[str, Any] = {}
    server = _section(top, "server", ("host", "port", "workers"), source)
    if given := {key: _text(server[key]) for key in ("host", "port") if server.get(key) is not None}:
        tree["server"] = given
    _refer_to_text_only(given.get("port"), "$.server.port", source)
    tree |= _upstream(top, source)
    session = _section(top, "session", ("enabled", "max_sessions", "session_ttl_seconds"), source)
    renamed = {"max_sessions": "max_sessions", "session_ttl_seconds": "ttl_s"}
    if found := {renamed[key]: session[key] for key in renamed if session.get(key) is not None}:
        tree["sessions"] = found
    for key in renamed:
        _refer_to_text_only(session.get(key), f"$.session.{key}", source)
    logging = _section(top, "logging", LOG, source)
    if said := {key: _text(logging[key]) for key in LOG if logging.get(key) is not None}:
        tree["logging"] = said
    live = source.section(top.get("live_trace"), "$.live_trace", LIVE_TRACE)
    listed = source.items(top.get("interceptors"), "$.interceptors")
    taken = [_interceptor(one, f"$.interceptors[{at}]", live, source) for at, one in enumerate(listed)]
    if any(taken):
        tree["interceptors"] = [one for one in taken if one]
    cylestio = source.section(top.get("cylestio"), "$.cylestio", ("enabled", "api_url", "access_key", "timeout"))
    if cylestio.get("enabled"):
        source.refuse("$.cylestio", "luthien sends nothing to cylestio.com; remove the section")
    return tree


def _section(top: dict[str, Any], name: str, known: tuple[str, ...], source: Source) -> dict[str, Any]:
    section = source.section(top.get(name), f"$.{name}", known)
    for key, why in WITHOUT_EFFECT.items():
        around, _, leaf = key.partition(".")
        if around == name and leaf in section:
            source.note(f"{key} is left out: {why}")
    return section


def _upstream(top: dict[str, Any], source: Source) -> dict[str, Any]:
    if "llm" not in top:
        source.refuse("$.llm", "missing; it says where requests go")
        return {}
    llm = _section(top, "llm", ("base_url", "type", "api_key", "timeout", "max_retries"), source)
    api = source.text(llm.get("type"), "$.llm.type").lower()
    url = source.text(llm.get("base_url"), "$.llm.base_url")
    apis = default_upstreams()
    if api and api not in apis:
        near = nearest(api, apis)
        source.refuse(
            "$.llm.type",
            f"{api!r} is no API that luthien speaks; " + (f"did you mean {near}?" if near else f"use {', '.join(apis)}"),
        )
        return {}
    upstream: dict[str, Any] = {"api": api, "base_url": _text(url)}
    if llm.get("api_key") is not None:
        upstream["api_key"] = _text(source.text(llm["api_key"], "$.llm.api_key"))
    if (seconds := source.number(llm.get("timeout"), "$.llm.timeout", above=True)) is not None:
        # it was the longest silence there, before the first byte and between two
        upstream["timeouts"] = {"first_byte_s": float(seconds), "idle_s": float(seconds)}
    tree: dict[str, Any] = {"upstreams": {api: upstream}}
    if (retries := source.number(llm.get("max_retries"), "$.llm.max_retries", whole=True)) is not None:
        count = min(retries, MOST_RETRIES)
        tree["routing"] = {"retries": {"max_attempts": count + 1, "same_upstream": count > 0}}
    return tree


def _interceptor(value: Any, place: str, live: dict[str, Any], source: Source) -> dict[str, Any]:
    """The interceptor of the same type; empty where it is left out or refused."""
    from proxy_core.interceptors.registry import ALIASES, LIVE_TRACE, known_types

    one = source.section(value, place, ("type", "enabled", "config"))
    name = source.text(one.get("type"), f"{place}.type")
    if not name:
        return {}
    if name in UNMATCHED:
        if one.get("enabled") is False:
            source.note(f"the interceptor {name} was switched off and is left out")
        else:
            source.refuse(f"{place}.type", f"the interceptor {name!r} has no counterpart here; remove it")
        return {}
    known = [*known_types(), *ALIASES]
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join(known)}"
        source.refuse(f"{place}.type", f"no interceptor is called {name!r}; {hint}")
        return {}
    config = one.get("config") or {}
    if not isinstance(config, dict):
        source.refuse(f"{place}.config", "has to be an object")
        return {}
    config = {key: _text(inner) for key, inner in ({**live, **config} if name == LIVE_TRACE else config).items()}
    found: dict[str, Any] = {"type": ALIASES.get(name, name)}
    if one.get("enabled") is False:
        found["enabled"] = False
    return found | ({"config": config} if config else {})


def _text(value: Any) -> Any:
    """A value as it stands; a variable was understood there only where it was the whole text."""
    return value if isinstance(value, str) and REFERENCE.fullmatch(value) else literal(value)


def _refer_to_text_only(value: Any, place: str, source: Source) -> None:
    if isinstance(value, str) and REFERENCE.fullmatch(value):
        source.refuse(place, "a variable cannot be checked here; write the number")
