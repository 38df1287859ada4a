"""Policy Mesh's file of rules, as part of the settings: what it says lies over `routing` of the configuration file.

Its keys are that program's, and mean here what they mean there: keywords count within words too, in what the user wrote last.
Unknown keys at the top are told as a warning, as that program leaves them alone; everything else that is wrong is a fault.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from proxy_core.settings_layers import FILE, Fault, Layers
from proxy_core.settings_tree import Place, nearest

PLACE: Place = ("routing", "policy_file")
MAX_BYTES = 1_000_000
_KEY = re.compile(r"\.([a-z0-9_]+)")


def read_rules(layers: Layers, beside: Path | None) -> None:
    """Lay the rules over the tree, where a file of them is named. `beside` is the folder of the configuration file."""
    named, origin = layers.get(PLACE), layers.origin(PLACE)
    if not isinstance(named, str):
        return
    path = Path(named).expanduser()
    if origin.startswith(FILE) and beside is not None:
        path = beside / path
    layers.put(PLACE, str(path.absolute()), origin)
    text = _text(path, layers)
    if text is None:
        return
    value = _object(text, path, layers)
    if value is not None:
        _lay(_rules(value, text, path, layers), (), origin, text, path, layers)


def _text(path: Path, layers: Layers) -> str | None:
    try:
        content = path.read_bytes()
        if len(content) > MAX_BYTES:
            layers.fault(PLACE, ".".join(PLACE), f": {path} is larger than {MAX_BYTES:,} bytes")
            return None
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        layers.fault(PLACE, ".".join(PLACE), f": {path} is not UTF-8 text")
    except OSError as fault:
        layers.fault(PLACE, ".".join(PLACE), f": cannot read {path}: {fault.strerror or fault}")
    return None


def _object(text: str, path: Path, layers: Layers) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as fault:
        layers.complain(f"{path}:{fault.lineno}: not JSON: {fault.msg[:1].lower()}{fault.msg[1:]}")
        return None
    except RecursionError:
        value = None
    if not isinstance(value, dict):
        layers.complain(f"{path}:1: it has to hold an object with sensitivity and cost")
        return None
    return value


def _rules(value: dict[str, Any], text: str, path: Path, layers: Layers) -> dict[str, Any]:
    from proxy_core.policies.importing_mesh import SECTIONS, rules
    from proxy_core.policies.importing_source import Source

    for name in [name for name in value if name not in SECTIONS]:
        near = nearest(name, list(SECTIONS))
        hint = f"; did you mean {near}?" if near else ""
        layers.warnings.append(f"{path.name}:{_line(text, name)}: {name} is no key of such a file and is ignored{hint}")
    source = Source()
    found = rules({name: one for name, one in value.items() if name in SECTIONS}, source)
    for said in source.faults:
        where = said.partition(": ")[0]
        line = _line(text, *_KEY.findall(where))
        layers.faults.append(Fault(f"{path.name}:{line}: {said}", said, "routing.policy_file", f"{FILE}{path.name}:{line}"))
    return found if not source.faults else {}


def _lay(found: dict[str, Any], around: Place, named_by: str, text: str, path: Path, layers: Layers) -> None:
    for name, value in found.items():
        place = (*around, name)
        if isinstance(value, dict):
            _lay(value, place, named_by, text, path, layers)
            continue
        setting: Place = ("routing", *place)
        said = layers.origins.get(setting, "")
        if said.startswith(FILE) and named_by.startswith(FILE):
            also = "routing.policy_file"
            layers.fault(setting, ".".join(setting), f": {also} ({named_by}) says where requests go too; keep one")
        elif not said or said.startswith(FILE):
            layers.put(setting, value, f"{FILE}{path.name}:{_line(text, name)}")


def _line(text: str, *keys: str) -> int:
    """The line on which the innermost of these keys stands, or else the one around it, or the first."""
    for key in reversed(keys):
        if found := re.search(rf'"{re.escape(key)}"\s*:', text):
            return text.count("\n", 0, found.start()) + 1
    return 1
