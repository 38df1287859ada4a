"""`luthien generate-config`: a file of settings to begin with, made from the settings themselves, so never out of date.

What is commented out with `#` alone is the default, or an example; explanations stand behind `# `. The file is valid as it
is, and with any of those lines uncommented.
"""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from proxy_core.errors import ConfigurationError, ExitCode
from proxy_core.settings import Settings, UpstreamSettings, default_upstreams
from proxy_core.settings_tree import model_of

WIDTH = 110
HEAD = """\
Settings of luthien. Lines that begin with a # and no blank are defaults and examples; what is not set keeps its default.
The environment and the command line beat this file. `luthien validate-config FILE` checks it, `luthien config show` tells
what holds and where it came from. ${NAME} in a value is replaced by the environment, ${NAME:-text} gives a default."""
EXAMPLES: dict[str, str] = {
    "policies": """\
- use: strip_secrets
  mode: shadow
- use: hold_for_approval
  params: {stage: tool_call, timeout_s: 600}""",
    "chains": """\
- match: {agent: "ci-*"}
  policies: []""",
    "keys": """\
ci: {sha256: "0000000000000000000000000000000000000000000000000000000000000000"}""",
    "limits.keys": """\
"*": {rpm: 600, usd_per_day: 20}""",
    "interceptors": """\
- type: printer
  enabled: true
  config: {log_requests: true, log_responses: true}""",
}
"""Of lists and mappings whose entries have settings of their own."""
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./:-]*")
_BEGINS = re.compile(r"(?m)^( *)")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def write_config(path: Path, *, api: str | None, base_url: str | None, force: bool) -> int:
    """Write the file, or print it where `path` is `-`. Raises ConfigurationError where it cannot be written."""
    if str(path) != "-" and path.is_dir():
        raise ConfigurationError(f"{path} is a folder; name the file to write")
    text = config_text(api, base_url)
    if str(path) == "-":
        sys.stdout.write(text)
        return ExitCode.OK
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        # readable for its owner alone, because keys may be written into it
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ConfigurationError(f"{path} is there already; --force writes over it") from None
    except OSError as fault:
        raise ConfigurationError(f"cannot write {path}: {fault.strerror or fault}; choose another path") from fault
    print(f"{path} is written; change it, then start with: luthien --config {path}")
    return ExitCode.OK


def config_text(api: str | None = None, base_url: str | None = None) -> str:
    """The file, for one upstream of that API, or for the usual ones. Raises ConfigurationError."""
    usual = default_upstreams()
    if api is None and base_url is not None:
        raise ConfigurationError("--base-url needs --type openai, anthropic or ollama: the API that the upstream speaks")
    if api is not None and api.lower() not in usual:
        raise ConfigurationError(f"{api!r} is no API that luthien speaks; use {', '.join(usual)}")
    upstreams = usual if api is None else {api.lower(): usual[api.lower()]}
    if base_url is not None:
        _check_address(base_url)
    lines = [f"# {line}" for line in HEAD.splitlines()]
    for name, info in Settings.model_fields.items():
        lines += ["", *_explained(info, "")]
        if name == "upstreams":
            lines += ["upstreams:", *_upstreams(upstreams, base_url)]
        else:
            lines += _setting(name, info, "", name)
    return "\n".join(lines) + "\n"


def _check_address(base_url: str) -> None:
    try:
        UpstreamSettings(api="openai", base_url=base_url)
    except ValidationError as fault:
        raise ConfigurationError(f"--base-url: {fault.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _upstreams(upstreams: dict[str, UpstreamSettings], base_url: str | None) -> list[str]:
    lines: list[str] = []
    for name, upstream in upstreams.items():
        lines += [f"  {name}:", f"    api: {upstream.api}", f"    base_url: {_value(base_url or upstream.base_url)}"]
        if upstream.api != "ollama":
            lines.append(f"    #api_key: ${{{name.upper()}_API_KEY}}")
        if name == next(iter(upstreams)):
            for key, info in UpstreamSettings.model_fields.items():
                if key in ("api", "base_url", "api_key"):
                    continue
                lines += [*_explained(info, "    "), *_setting(key, info, "    ", f"upstreams.{name}.{key}")]
    return lines


def _setting(name: str, info: FieldInfo, indent: str, path: str) -> list[str]:
    """A setting with its default, commented out; a section with those in it."""
    model, named = model_of(info.annotation)
    default = info.get_default(call_default_factory=True)
    if named and path in EXAMPLES:
        return [f"{indent}#{name}:", *textwrap.indent(_BEGINS.sub(r"\1#", EXAMPLES[path]), indent + "  ").splitlines()]
    if model is None or named or not isinstance(default, BaseModel):
        return [f"{indent}#{name}: {_value(_plain(default))}"]
    lines = [f"{indent}{name}:"]
    for field, inner in model.model_fields.items():
        lines += _explained(inner, f"{indent}  ")
        lines += _setting(field, inner, f"{indent}  ", f"{path}.{field}")
    return lines


def _explained(info: FieldInfo, indent: str) -> list[str]:
    text = " ".join((info.description or "").split())
    return [f"{indent}# {line}" for line in textwrap.wrap(text, WIDTH - len(indent), break_long_words=False)]


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _value(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
