"""`luthien config show`: every setting, its value and where it came from."""

from __future__ import annotations

import json
from typing import Any

from proxy_core.errors import ConfigurationError
from proxy_core.logs import escaped
from proxy_core.settings_sources import LoadedSettings, data_dir_path, shown


def print_settings(loaded: LoadedSettings, *, as_json: bool) -> None:
    """Print the effective settings to stdout; secrets say only that they are set."""
    values = flat(shown(loaded.settings))
    if values["data_dir"] is None:
        values["data_dir"] = str(data_dir_path(loaded.settings))
    if as_json:
        rows = {path: {"value": value, "origin": loaded.origins.get(path, "default")} for path, value in values.items()}
        print(json.dumps({"settings": rows, "warnings": loaded.warnings}, indent=2))
        return
    texts = {path: escaped(json.dumps(value, ensure_ascii=False)) for path, value in values.items()}
    name_width = max(map(len, texts))
    value_width = min(44, max(map(len, texts.values())))
    for path, text in texts.items():
        print(f"{path:<{name_width}}  {text:<{value_width}}  {escaped(loaded.origins.get(path, 'default'))}")
    for warning in loaded.warnings:
        print(f"warning: {escaped(warning)}")


def check_policies(loaded: LoadedSettings) -> None:
    """Build all chains once. Raises ConfigurationError with a line for each fault."""
    from proxy_core.policies.chain import build_chains

    try:
        build_chains(loaded.settings)
    except ConfigurationError as fault:
        raise ConfigurationError(loaded.placed(str(fault))) from fault


def flat(tree: dict[str, Any], around: str = "") -> dict[str, Any]:
    """A nested dict as dotted paths."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{around}{name}"
        found.update(flat(value, f"{path}.") if isinstance(value, dict) else {path: value})
    return found
