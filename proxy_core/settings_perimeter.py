"""Sections of Cylestio Gateway's configuration, in luthien's own: `llm`, `session`, `live_trace` and `server.workers`.

`interceptors` and `logging` are called and built alike here. What is set in both words is refused, with both named; what cannot
have an effect here is told as a warning.
"""

from __future__ import annotations

from typing import Any

from proxy_core.settings import default_upstreams
from proxy_core.settings_layers import Layers, dotted
from proxy_core.settings_tree import Place, nearest

LLM = ("base_url", "type", "api_key", "timeout", "max_retries")
SESSION = {"enabled": None, "max_sessions": ("sessions", "max_sessions"), "session_ttl_seconds": ("sessions", "ttl_s")}
LIVE_TRACE = ("session_completion_timeout", "completion_check_interval")
MOST_RETRIES = 9


def understand(layers: Layers) -> None:
    """Move what the file says in these sections to where it belongs here, and note what is wrong with it."""
    _workers(layers)
    _session(layers)
    _live_trace(layers)
    _llm(layers)
    layers.drop(("llm",))


def _llm(layers: Layers) -> None:
    section = _section(layers, "llm", LLM)
    if section is None:
        return
    if "upstreams" in layers.tree:
        layers.fault(("llm",), "llm", f": upstreams ({layers.origin(('upstreams',))}) says where requests go too; keep one")
        return
    origin = layers.origin(("llm",))
    api = section.get("type")
    if not isinstance(api, str) or api.strip().lower() not in default_upstreams():
        near = nearest(api.strip().lower(), list(default_upstreams())) if isinstance(api, str) else None
        hint = f"did you mean {near}?" if near else f"use {', '.join(default_upstreams())}"
        said = "llm.type is missing" if api is None else "llm.type"
        layers.fault(
            ("llm", "type"), said, f"; {hint}" if api is None else f": {api!r} is no API that luthien speaks; {hint}", near or ""
        )
        return
    api = api.strip().lower()
    place: Place = ("upstreams", api)
    layers.put(("upstreams",), {api: {}}, origin)
    layers.put(("llm", "type"), api, layers.origin(("llm", "type")))
    layers.move(("llm", "type"), (*place, "api"))
    for name in ("base_url", "api_key"):
        if name in section:
            layers.move(("llm", name), (*place, name))
    if "timeout" in section:
        # it is the longest silence there, before the first byte and between two
        layers.put(("llm", "idle"), section["timeout"], layers.origin(("llm", "timeout")))
        layers.move(("llm", "timeout"), (*place, "timeouts", "first_byte_s"))
        layers.move(("llm", "idle"), (*place, "timeouts", "idle_s"))
        layers.written[*place, "timeouts", "idle_s"] = "llm.timeout"
    if "max_retries" in section:
        _retries(layers, section["max_retries"])


def _retries(layers: Layers, value: Any) -> None:
    """Further attempts at the same upstream, as there is no other."""
    here: Place = ("llm", "max_retries")
    retries: Place = ("routing", "retries")
    for name in ("max_attempts", "same_upstream"):
        if layers.get((*retries, name)) is not None:
            return _said_twice(layers, here, (*retries, name))
    try:
        count = int(str(value))
    except ValueError:
        count = -1
    if not 0 <= count <= MOST_RETRIES or isinstance(value, bool):
        return layers.fault(here, "llm.max_retries", f": give a whole number from 0 to {MOST_RETRIES}, not {value!r}")
    origin = layers.origin(here)
    layers.put((*retries, "max_attempts"), count + 1, origin)
    layers.put((*retries, "same_upstream"), count > 0, origin)


def _session(layers: Layers) -> None:
    section = _section(layers, "session", tuple(SESSION))
    if section is None:
        return
    if str(section.get("enabled", True)).strip().lower() in ("false", "no", "off", "0"):
        layers.warnings.append(
            f"session.enabled ({layers.origin(('session', 'enabled'))}) has no effect: sessions are always told"
        )
    for name, place in SESSION.items():
        if place is None or name not in section:
            continue
        if layers.get(place) is not None:
            _said_twice(layers, ("session", name), place)
        else:
            layers.move(("session", name), place)
    layers.drop(("session",))


def _live_trace(layers: Layers) -> None:
    section = _section(layers, "live_trace", LIVE_TRACE)
    if section is None:
        return
    listed = layers.get(("interceptors",))
    for at, one in enumerate(listed if isinstance(listed, list) else ()):
        if not isinstance(one, dict) or one.get("type") != "live_trace":
            continue
        config = one.get("config")
        if config is None:
            config = one["config"] = {}
        for name in section if isinstance(config, dict) else ():
            here: Place = ("interceptors", str(at), "config", name)
            if name in config:
                _said_twice(layers, ("live_trace", name), here)
            else:
                config[name] = section[name]
                layers.origins[here] = layers.origin(("live_trace", name))
                layers.written[here] = f"live_trace.{name}"
        break
    else:
        if section:
            layers.warnings.append(f"live_trace ({layers.origin(('live_trace',))}) has no effect without that interceptor")
    layers.drop(("live_trace",))


def _workers(layers: Layers) -> None:
    place: Place = ("server", "workers")
    workers = layers.get(place)
    if workers is None:
        return
    if str(workers) != "1":
        layers.warnings.append(
            f"server.workers ({layers.origin(place)}) has no effect: one process serves; start more on one Postgres"
        )
    layers.drop(place)


# -- parts ------------------------------------------------------------------------------------------------------------


def _section(layers: Layers, name: str, known: tuple[str, ...]) -> dict[str, Any] | None:
    """The section without what it leaves open; None where there is none, or where it is no section."""
    if name not in layers.tree:
        return None
    section = layers.tree[name]
    if not isinstance(section, dict):
        layers.fault((name,), name, f": give a mapping of {', '.join(known)}")
        layers.drop((name,))
        return None
    for key in [key for key in section if key not in known]:
        near = nearest(key, list(known)) or ""
        hint = f"did you mean {near}?" if near else f"known here: {', '.join(known)}"
        layers.fault((name, key), f"unknown setting {name}.{key}", f"; {hint}", near)
    return {key: value for key, value in section.items() if value is not None and key in known}


def _said_twice(layers: Layers, one: Place, other: Place) -> None:
    path = layers.written.get(other, dotted(other))
    layers.fault(one, ".".join(one), f": {path} ({layers.origin(other)}) says the same; keep one")
