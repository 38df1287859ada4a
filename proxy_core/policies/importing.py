"""Files of other programs, as luthien's configuration: `luthien policies import FILE`.

Understood are Luthien Control's policies (JSON), Luthien Proxy's (YAML), Policy Mesh's rules (JSON) and Cylestio
Perimeter's configuration (YAML). Each means here what it meant there, or is refused with its place in the file: nothing is
left out in silence. What comes out is loaded once before it is given to anybody, so it is valid.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from proxy_core.errors import ConfigurationError
from proxy_core.policies.importing_source import Source

MAX_BYTES = 10 * 1024 * 1024
MAX_VALUES = 50_000
VARIABLE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
STAND_IN = "https://imported.example"
"""Value of variables that are not set when a translation is checked; they are needed only when it is used."""


class Imported(Struct, frozen=True):
    """One file, translated."""

    program: str
    """The program whose file it was."""
    tree: dict[str, Any]
    """luthien's settings."""
    text: str
    """The same as YAML."""
    notes: list[str]
    """What the operator should know: what has moved elsewhere, and what changes nothing here."""


class Importer(Protocol):
    """Translates one program's files."""

    def __call__(self, value: dict[str, Any], source: Source, environ: Mapping[str, str]) -> dict[str, Any]: ...


def import_file(path: Path, environ: Mapping[str, str]) -> Imported:
    """Translate a file. Raises ConfigurationError with a line for each fault and its place."""
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise ConfigurationError(f"cannot read {path}: {fault.strerror or fault}") from fault
    if len(content) > MAX_BYTES:
        raise ConfigurationError(f"{path} is larger than {MAX_BYTES // 2**20} MiB; that is no configuration")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    return import_text(text, environ, str(path))


def import_text(text: str, environ: Mapping[str, str], name: str = "the file") -> Imported:
    """Translate a text. Raises ConfigurationError with a line for each fault and its place."""
    value = _parsed(text, name)
    program, translate = _importer(value, name)
    source = Source()
    tree = translate(value, source, environ)
    source.raise_faults()
    written = _written(tree, program)
    _check(written, environ)
    return Imported(program, tree, written, source.notes)


def _importer(value: dict[str, Any], name: str) -> tuple[str, Importer]:
    from proxy_core.policies import importing_control, importing_mesh, importing_perimeter, importing_successor

    if "type" in value:
        return "Luthien Control", importing_control.translate
    if "policy" in value:
        return "Luthien Proxy", importing_successor.translate
    if "sensitivity" in value or "default_provider" in value:
        return "Policy Mesh", importing_mesh.translate
    if "llm" in value or "interceptors" in value:
        return "Cylestio Perimeter", importing_perimeter.translate
    if "policies" in value or "upstreams" in value:
        raise ConfigurationError(f"{name} looks like luthien's own configuration; use it with --config")
    raise ConfigurationError(
        f"{name} is of no program that luthien knows: expected 'type' (Luthien Control), 'policy' (Luthien Proxy), "
        "'sensitivity' (Policy Mesh) or 'llm' (Cylestio Perimeter) at the top"
    )


# -- reading ----------------------------------------------------------------------------------------------------------


def _parsed(text: str, name: str) -> dict[str, Any]:
    try:
        value = _json(text) if text.lstrip().startswith(("{", "[")) else _yaml(text, name)
    except RecursionError:
        raise ConfigurationError(f"{name} is nested too deeply") from None
    except json.JSONDecodeError as fault:
        raise ConfigurationError(f"{name}:{fault.lineno}: not JSON: {fault.msg[:1].lower()}{fault.msg[1:]}") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{name} has to hold an object at the top")
    count = 0
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            raise ConfigurationError(f"{name} holds more than {MAX_VALUES:,} values; aliases may repeat without end")
        if isinstance(one, dict):
            if not all(isinstance(key, str) for key in one):
                raise ConfigurationError(f"{name}: every key has to be text")
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
        elif not isinstance(one, str | int | float | bool | None) or (isinstance(one, float) and not math.isfinite(one)):
            raise ConfigurationError(f"{name}: {one!r} is no JSON value; write it as text")
    return value


def _json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ConfigurationError(f"the key {key[:60]!r} stands twice in one object; keep one")
            found[key] = value
        return found

    return json.loads(text, object_pairs_hook=once)


def _yaml(text: str, name: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise ConfigurationError(f"{name}:{line}: not YAML: {fault.problem or fault.context}") from None
    except (yaml.YAMLError, ValueError) as fault:
        raise ConfigurationError(f"{name}: not YAML: {' '.join(str(fault).split())}") from None


# -- writing ----------------------------------------------------------------------------------------------------------


def _written(tree: dict[str, Any], program: str) -> str:
    import yaml

    class Plain(yaml.SafeDumper):
        """Writes a value wherever it stands, without references."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    body = yaml.dump(tree, Dumper=Plain, sort_keys=False, allow_unicode=True, width=120)
    return f"# made by `luthien policies import` from a file of {program}\n{body}"


def _check(text: str, environ: Mapping[str, str]) -> None:
    """Load the translation as the gateway would."""
    from proxy_core.interceptors.registry import check_interceptors
    from proxy_core.policies.chain import build_chains
    from proxy_core.settings_sources import load

    variables = {name: environ.get(name) or STAND_IN for name in VARIABLE.findall(text)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "imported.yaml"
        file.write_text(text, "utf-8")
        try:
            settings = load(file, {}, variables, None).settings
            build_chains(settings)
            check_interceptors(settings)
        except ConfigurationError as fault:
            lines = str(fault).replace(" (file imported.yaml:", " (translated, line ")
            raise ConfigurationError("\n".join(f"it cannot be used here: {line}" for line in lines.splitlines())) from fault
