"""`luthien validate-config`: every fault of a file of settings with its line and column, or what it says in short.

The environment counts as it does at a start, because a file may refer to it. Nothing is opened, created or sent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from luthien_tui.commands.config import check_parts
from luthien_tui.commands.given import Given
from proxy_core.errors import ConfigurationError, ExitCode
from proxy_core.logs import escaped, redact
from proxy_core.settings import PolicySettings, Settings
from proxy_core.settings_layers import Fault, SettingsInvalid
from proxy_core.settings_sources import LoadedSettings


def validate(path: Path, *, as_json: bool) -> int:
    """Check a file and print what is found. Returns the exit code, 0 or 2."""
    loaded, faults = _checked(path)
    if as_json:
        print(json.dumps(_as_json(path, loaded, faults), indent=2))
    elif loaded is not None:
        _print_summary(path, loaded)
    else:
        for one in faults:
            print(escaped(redact(_line(path, one))), file=sys.stderr)
    return ExitCode.OK if loaded is not None else ExitCode.USAGE


def _checked(path: Path) -> tuple[LoadedSettings | None, Sequence[Fault]]:
    """The settings, or what is wrong with them."""
    try:
        loaded = Given(config=path).load()
        check_parts(loaded)
    except SettingsInvalid as invalid:
        return None, invalid.faults
    except ConfigurationError as fault:
        return None, [Fault(line, line) for line in str(fault).splitlines()]
    return loaded, ()


def _line(path: Path, fault: Fault) -> str:
    """A fault as compilers and editors write it, `luthien.yaml:3:7: …`."""
    return f"{path}:{fault.mark[0]}:{fault.mark[1]}: {fault.message}" if fault.mark is not None else fault.text


def _as_json(path: Path, loaded: LoadedSettings | None, faults: Sequence[Fault]) -> dict[str, Any]:
    found: dict[str, Any] = {"file": str(path), "valid": loaded is not None, "faults": [_fault_as_json(one) for one in faults]}
    if loaded is not None:
        found |= {"warnings": list(loaded.warnings), "summary": dict(_summary(loaded.settings))}
    return found


def _fault_as_json(fault: Fault) -> dict[str, Any]:
    line, column = fault.mark or (None, None)
    found = {"setting": fault.path or None, "line": line, "column": column, "origin": fault.origin or None}
    return {**found, "message": redact(fault.message), "did_you_mean": fault.near or None}


# -- what a file says -------------------------------------------------------------------------------------------------


def _print_summary(path: Path, loaded: LoadedSettings) -> None:
    print(f"{escaped(str(path))} is valid")
    for name, said in _summary(loaded.settings):
        print(f"  {name:<12} {escaped(', '.join(said) or 'none')}")
    for warning in loaded.warnings:
        print(f"warning: {escaped(warning)}")


def _summary(settings: Settings) -> list[tuple[str, list[str]]]:
    server, control, routing = settings.server, settings.control, settings.routing
    listens = [f"{server.host}:{server.port}"]
    if control.enabled:
        listens.append(f"control {control.host}:{control.port}")
    rules = [f"{len(routing.sensitivity.keywords)} keywords"] if routing.sensitivity.keywords else []
    rules += [f"{len(routing.models)} models"] if routing.models else []
    rules += [f"{len(routing.tags)} tags"] if routing.tags else []
    cost = (routing.cost.max_prompt_length_for_local, routing.cost.max_usd_for_local)
    rules += ["cost"] if cost != (None, None) else []
    rules += [f"else {routing.default_provider}"] if routing.default_provider else []
    chains = [f"{len(settings.chains)} other chains"] if settings.chains else []
    store = urlsplit(settings.journal.database_url).scheme.partition("+")[0] if settings.journal.database_url else "sqlite"
    return [
        ("listens on", listens),
        ("upstreams", [f"{name} ({one.api} at {one.base_url})" for name, one in settings.upstreams.items()]),
        ("routing", rules),
        ("policies", [_policy(one) for one in settings.policies] + chains),
        ("interceptors", [one.type if one.enabled else f"{one.type} (off)" for one in settings.interceptors]),
        ("journal", [store, settings.journal.capture]),
    ]


def _policy(one: PolicySettings) -> str:
    name = one.name or one.use
    return name if one.mode == "enforce" else f"{name} ({one.mode})"
