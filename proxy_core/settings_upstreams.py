"""Upstreams before they are validated: the usual ones, one in place of them all, and addresses that lead back here."""

from __future__ import annotations

from collections.abc import Mapping

from proxy_core.settings import Settings, default_upstreams
from proxy_core.settings_layers import DEFAULT, Layers


def seed_upstreams(layers: Layers) -> None:
    """Where nothing has set upstreams yet, put the default ones so that single values can be laid over them."""
    if "upstreams" not in layers.tree:
        tree = {name: upstream.model_dump(include={"api", "base_url"}) for name, upstream in default_upstreams().items()}
        layers.put(("upstreams",), tree, DEFAULT)


def upstream_for(api: str, layers: Layers) -> str | None:
    seed_upstreams(layers)
    upstreams = layers.tree["upstreams"]
    if not isinstance(upstreams, dict):
        return None
    speaking = [name for name, value in upstreams.items() if isinstance(value, dict) and value.get("api", name) == api]
    return api if api in speaking else next(iter(speaking), None)


def only_upstream(layers: Layers) -> tuple[str, str] | None:
    """Name and API of the one upstream that is configured; None where there is none, or another number."""
    upstreams = layers.tree.get("upstreams")
    if not isinstance(upstreams, dict) or len(upstreams) != 1:
        return None
    ((name, upstream),) = upstreams.items()
    return (name, str(upstream.get("api", name))) if isinstance(upstream, dict) else None


def put_one_upstream(layers: Layers, url: object, api: str, key: object, origins: tuple[str, ...]) -> None:
    """Put one upstream in place of all. `origins` are those of address, API and key."""
    api = api.strip().lower()
    if api not in default_upstreams():
        layers.complain(f"{api!r} is no API that luthien speaks ({origins[1]}); use openai, anthropic or ollama")
        return
    place = ("upstreams", api)
    layers.put(("upstreams",), {}, origins[1])
    layers.put((*place, "api"), api, origins[1])
    layers.put((*place, "base_url"), url or default_upstreams()[api].base_url, origins[0] if url else DEFAULT)
    if key is not None:
        layers.put((*place, "api_key"), key, origins[2])


def complete_upstreams(layers: Layers) -> None:
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


def own_address(layers: Layers, overrides: Mapping[str, object]) -> tuple[str, int] | None:
    host = overrides.get("server.host") or layers.get(("server", "host")) or "127.0.0.1"
    port = overrides.get("server.port")
    port = layers.get(("server", "port")) if port is None else port
    try:
        number = 4000 if port is None else int(str(port))
    except ValueError:
        return None  # validation will say so
    return (str(host), number) if number else None


def is_own(url: str, own: tuple[str, int]) -> bool:
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


def refuse_loops(settings: Settings, layers: Layers) -> None:
    own = (settings.server.host, settings.server.port)
    for name, upstream in settings.upstreams.items():
        if own[1] and is_own(upstream.base_url, own):
            place = ("upstreams", name, "base_url")
            remedy = "give the provider's, or move luthien with --port"
            layers.fault(place, ".".join(place), f": {upstream.base_url} is luthien's own address; {remedy}")
