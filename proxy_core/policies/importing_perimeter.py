"""Cylestio Perimeter's configuration: address, upstream, sessions, log level, and which interceptors ran.

What its interceptors recorded luthien's journal records anyway, so those change nothing; one that did something else is
refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy_core.policies.importing_source import Source, literal
from proxy_core.policies.registry import nearest
from proxy_core.settings import default_upstreams

RECORDED = {
    "printer": "the screen shows what it printed",
    "message_logger": "the journal records what it wrote; `luthien log --json --body` reads it",
    "event_recorder": "the journal records what it wrote; `luthien log --json` reads it",
    "http_recorder": "the journal records what it wrote; `luthien log --json --body` reads it",
    "live_trace": "the screen shows what its dashboard showed",
}
"""Interceptors whose work luthien does anyway."""
UNMATCHED = ("cylestio_trace", "test_recorder", "rate_limit", "auth", "custom_logging")
WITHOUT_EFFECT = {
    "server.workers": "it was never used there",
    "llm.max_retries": "it was never used there",
    "logging.format": "luthien's log has one form",
    "logging.file": "luthien's log is in the data folder",
    "logging.max_file_size": "luthien's log is in the data folder",
    "logging.backup_count": "luthien's log is in the data folder",
    "session.enabled": "luthien always finds sessions",
}
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
    logging = _section(top, "logging", ("level", "format", "file", "max_file_size", "backup_count"), source)
    if logging.get("level") is not None:
        tree["logging"] = {"level": _text(logging["level"])}
    for at, one in enumerate(source.items(top.get("interceptors"), "$.interceptors")):
        _interceptor(one, f"$.interceptors[{at}]", source)
    if source.section(top.get("live_trace"), "$.live_trace", ("session_completion_timeout", "completion_check_interval")):
        source.note("live_trace: the screen shows what its dashboard showed")
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
    return {"upstreams": {api: upstream}}


def _interceptor(value: Any, place: str, source: Source) -> None:
    one = source.section(value, place, ("type", "enabled", "config"))
    name = source.text(one.get("type"), f"{place}.type")
    if not name:
        return
    if one.get("enabled") is False:
        source.note(f"the interceptor {name} was switched off and is left out")
    elif name in RECORDED:
        source.note(f"the interceptor {name} is left out: {RECORDED[name]}")
    elif name in UNMATCHED:
        source.refuse(f"{place}.type", f"the interceptor {name!r} has no counterpart here; remove it")
    else:
        near = nearest(name, RECORDED)
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join(RECORDED)}"
        source.refuse(f"{place}.type", f"no interceptor is called {name!r}; {hint}")


def _text(value: Any) -> Any:
    """A value as it stands; a variable was understood there only where it was the whole text."""
    return value if isinstance(value, str) and REFERENCE.fullmatch(value) else literal(value)


def _refer_to_text_only(value: Any, place: str, source: Source) -> None:
    if isinstance(value, str) and REFERENCE.fullmatch(value):
        source.refuse(place, "a variable cannot be checked here; write the number")
