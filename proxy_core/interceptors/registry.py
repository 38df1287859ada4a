"""Finds interceptors by name and builds them from the configuration.

A type means: a built-in interceptor, else one of an installed package (entry-point group `luthien.interceptors`). Nothing else
is imported. An unknown type or key, or a value out of bounds, raises ConfigurationError with a line for each fault and the
nearest known word.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from proxy_core.errors import ConfigurationError
from proxy_core.interceptors.surroundings import Surroundings
from proxy_core.policies.masking import masked
from proxy_core.policies.registry import fault_lines, nearest
from proxy_core.settings import InterceptorSettings, Settings

if TYPE_CHECKING:
    from proxy_core.interceptors.base import Interceptor
    from proxy_core.interceptors.dispatch import Watcher
    from proxy_core.interceptors.live_trace import LiveTraceConfig
    from proxy_core.interceptors.process import InterceptorProcess

log = logging.getLogger(__name__)

GROUP = "luthien.interceptors"
"""The entry-point group of installed packages."""

BUILT_IN: dict[str, str] = {
    "printer": "printer:Printer",
    "message_logger": "message_logger:MessageLogger",
    "event_recorder": "event_recorder:EventRecorder",
    "http_recorder": "http_recorder:HttpRecorder",
    "trace": "trace:Trace",
}
"""Types that come with luthien, and where their classes are."""

LIVE_TRACE = "live_trace"
"""A type that is answered by other parts of luthien."""
ALIASES = {"cylestio_trace": "trace"}
"""Other names of types."""


def known_types() -> list[str]:
    """All types that can be used here; nothing is imported."""
    return [*BUILT_IN, LIVE_TRACE, *(name for name in _entry_points() if name not in BUILT_IN)]


def build_interceptors(settings: Settings, data_dir: Path, *, quiet: bool = False) -> InterceptorProcess | None:
    """The interceptors of a gateway, not yet started; None where none is on. Says in the log what becomes of settings that
    belong elsewhere here, unless it is `quiet`. Raises ConfigurationError."""
    if not settings.interceptors:
        return None  # and nothing is imported for it
    from proxy_core.interceptors.process import InterceptorProcess

    surroundings = Surroundings(
        data_dir=data_dir,
        own_addresses=_own_addresses(settings),
        session_idle_s=_idle_s(settings),
        max_sessions=settings.sessions.max_sessions,
    )
    watchers = build_watchers(settings.interceptors, surroundings, quiet=quiet)
    return InterceptorProcess(watchers, settings.interceptors, surroundings) if watchers else None


def build_watchers(wanted: Sequence[InterceptorSettings], surroundings: Surroundings, *, quiet: bool = False) -> list[Watcher]:
    """Those that are on. Raises ConfigurationError with a line for each fault."""
    from proxy_core.interceptors import live_trace
    from proxy_core.interceptors.dispatch import Watcher

    faults: list[str] = []
    watchers: list[Watcher] = []
    for at, one in enumerate(wanted):
        try:
            built = _built(one, surroundings, f"interceptors[{at}]")
        except ConfigurationError as fault:
            faults += str(fault).splitlines()
            continue
        if isinstance(built, live_trace.LiveTraceConfig):
            if one.enabled and not quiet:
                for level, note in live_trace.notes(built):
                    log.log(level, "%s", note)
        elif one.enabled:
            watchers.append(Watcher(ALIASES.get(one.type, one.type), built))
    if faults:
        raise ConfigurationError("\n".join(faults))
    return watchers


def check_interceptors(settings: Settings) -> None:
    """Build them once without running any. Raises ConfigurationError with a line for each fault."""
    build_interceptors(settings, Path(), quiet=True)


def shown_config(one: InterceptorSettings) -> dict[str, Any]:
    """An interceptor's keys as anyone may see them: without secrets, and nothing of a type that is not known."""
    try:
        model = config_model(one.type)
        return masked(model.model_validate(one.config), only_set=True)
    except (ConfigurationError, ValidationError):
        return dict.fromkeys(one.config, "[set]")


def config_model(kind: str) -> type[BaseModel]:
    """The keys of a type. Raises ConfigurationError."""
    if kind == LIVE_TRACE:
        from proxy_core.interceptors.live_trace import LiveTraceConfig

        return LiveTraceConfig
    return interceptor_class(kind).config_model


def interceptor_class(kind: str) -> type[Interceptor[Any]]:
    """The class of a type other than `live_trace`. Raises ConfigurationError, with the nearest known type."""
    from proxy_core.interceptors.base import Interceptor

    name = ALIASES.get(kind, kind)
    if name in BUILT_IN:
        module, _, called = BUILT_IN[name].partition(":")
        found: type[Interceptor[Any]] = getattr(importlib.import_module(f"proxy_core.interceptors.{module}"), called)
        return found
    entry = _entry_points().get(name)
    if entry is None:
        known = known_types()
        near = nearest(kind, known) or nearest(kind, ALIASES)
        hint = f"did you mean {near!r}?" if near else f"known here: {', '.join(known)}"
        raise ConfigurationError(f"no interceptor has the type {kind!r}; {hint}")
    try:
        cls = entry.load()
    except Exception as fault:
        said = " ".join(str(fault).split()) or type(fault).__name__
        raise ConfigurationError(f"the interceptor {kind!r} of the package cannot be loaded ({entry.value}): {said}") from fault
    if not (isinstance(cls, type) and issubclass(cls, Interceptor)):
        raise ConfigurationError(f"{entry.value}, which the package names as the interceptor {kind!r}, is no Interceptor")
    return cls


def _built(one: InterceptorSettings, surroundings: Surroundings, place: str) -> Interceptor[Any] | LiveTraceConfig:
    from proxy_core.interceptors.live_trace import LiveTraceConfig

    try:
        model = config_model(one.type)
    except ConfigurationError as fault:
        raise ConfigurationError(f"{place}.type: {fault}") from fault
    try:
        config = model.model_validate(one.config)
    except ValidationError as fault:
        raise ConfigurationError("\n".join(fault_lines(model, fault, f"{place}.config"))) from None
    if isinstance(config, LiveTraceConfig):
        return config
    try:
        return interceptor_class(one.type)(config, surroundings)
    except ConfigurationError as fault:
        raise ConfigurationError(f"{place}.config.{fault}") from fault
    except Exception as fault:
        said = " ".join(str(fault).split()) or type(fault).__name__
        raise ConfigurationError(f"{place}: {one.type} cannot be built: {said}") from fault


def _entry_points() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _idle_s(settings: Settings) -> float:
    """The inactivity that ends a session: as `live_trace` says, where it is on and says so."""
    from proxy_core.interceptors import live_trace

    for one in settings.interceptors:
        if one.type == LIVE_TRACE and one.enabled:
            try:
                idle = live_trace.idle_of(live_trace.LiveTraceConfig.model_validate(one.config))
            except ValidationError:
                continue  # building it says what is wrong
            if idle is not None:
                return idle
    return settings.sessions.ttl_s


def _own_addresses(settings: Settings) -> tuple[tuple[str, int], ...]:
    loopback = ("localhost", "127.0.0.1", "::1")
    found: list[tuple[str, int]] = []
    for host, port in ((settings.server.host, settings.server.port), (settings.control.host, settings.control.port)):
        if port:
            found += [(name, port) for name in (host, *loopback)]
    return tuple(found)


__all__: Sequence[str] = (
    "build_interceptors",
    "build_watchers",
    "check_interceptors",
    "config_model",
    "interceptor_class",
    "known_types",
    "shown_config",
)
