"""`luthien route explain`: which rule decides where a request goes, and what every other rule says.

The rules are those in force, where a gateway runs over this data folder; else those of the configuration.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from luthien_tui.commands.running_gateway import ask_running
from proxy_core.control.plane import ControlInvalid
from proxy_core.errors import BadRequest, ConfigurationError, ExitCode
from proxy_core.logs import escaped
from proxy_core.routing.explaining import Explanation, endpoint_of, explain, request_of
from proxy_core.routing.router import Router
from proxy_core.routing.upstreams import Upstreams
from proxy_core.settings import Settings
from proxy_core.wire.editing import UnreadableBody, set_field


def print_explanation(
    settings: Settings,
    *,
    path: str,
    model: str,
    prompt: str | None,
    file: Path | None,
    tags: str,
    configured: bool,
    as_json: bool,
) -> int:
    """Print where a request would go. Nothing is sent. With `configured` a gateway that runs is not asked.

    Raises ConfigurationError.
    """
    if (prompt is None) == (file is None):
        raise ConfigurationError("give either --prompt TEXT or --file REQUEST.json")
    whole = _read(file) if file is not None else None
    found = None
    if not configured:
        found = _ask(settings, path=path, model=model, prompt=prompt or "", whole=whole, tags=tags)
    if found is None:
        upstreams = Upstreams(settings)
        try:
            body = _body(upstreams, path=path, model=model, prompt=prompt or "", whole=whole, file=file)
            found = explain(Router(settings, upstreams), upstreams, path=path, body=body, tags=tags)
        except BadRequest as fault:
            raise ConfigurationError(f"--path: {fault}") from fault
    if as_json:
        print(json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False))
    else:
        _print(found)
    return ExitCode.OK


def _read(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as fault:
        raise ConfigurationError(f"cannot read {file}: {fault.strerror or fault}") from fault


def _ask(settings: Settings, *, path: str, model: str, prompt: str, whole: bytes | None, tags: str) -> Explanation | None:
    """What the gateway that runs says; None where none does."""
    question = {"path": path, "model": model, "prompt": prompt, "tags": tags}
    if whole is not None:
        question["body"] = whole.decode("utf-8", "replace")
    try:
        return ask_running(settings, "/api/routing/explain", question, Explanation)
    except ControlInvalid as fault:
        raise ConfigurationError(f"--{fault.field}: {fault.message}") from fault


def _body(upstreams: Upstreams, *, path: str, model: str, prompt: str, whole: bytes | None, file: Path | None) -> bytes:
    if whole is None:
        return request_of(endpoint_of(path, upstreams), model, prompt)
    if not model:
        return whole
    try:
        return set_field(whole, "model", model)
    except UnreadableBody as fault:
        raise ConfigurationError(f"--model: {file} has no place for it: {fault}") from fault


def _print(found: Explanation) -> None:
    where = f"{found.upstream} ({found.base_url})" if found.upstream else "nowhere: it is refused"
    model = f", model {found.model}" if found.model else ""
    print(escaped(f"{where}{model}"))
    print(f"reasons: {', '.join(found.reasons)}")
    rows = [(one.rule, one.outcome, one.upstream or "-", one.why) for one in found.considered]
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    for row in rows:
        columns = "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=False))
        print(escaped(f"  {columns}  {row[3]}"))
