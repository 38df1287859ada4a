"""`luthien env`: the lines that point SDKs and coding agents at luthien.

Only variables that the clients themselves read. Where a proxy is set in the environment, luthien's own address is taken out
of its way, because otherwise the clients would look for luthien behind it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from proxy_core.errors import ConfigurationError
from proxy_core.settings import Settings

SHELLS = ("sh", "fish", "powershell")
CLIENTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "openai": (
        ("OPENAI_BASE_URL", "/v1", "OpenAI SDKs, Codex, LangChain, most agents"),
        ("OPENAI_API_BASE", "/v1", "aider, LiteLLM, older OpenAI clients"),
    ),
    "anthropic": (("ANTHROPIC_BASE_URL", "", "Anthropic SDKs, Claude Code"),),
    "ollama": (("OLLAMA_HOST", "", "Ollama's library and command"),),
}
"""For each API: variable, what follows the root, and who reads it."""


def reachable_root(settings: Settings) -> str:
    """URL at which clients on this machine reach the data plane."""
    host, port = settings.server.host, settings.server.port
    if port == 0:
        raise ConfigurationError("server.port is 0, so the port is known only once luthien runs; give --port")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def exports(settings: Settings, environ: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Variable, value and who reads it, for each API that an upstream speaks."""
    root = reachable_root(settings)
    found: list[tuple[str, str, str]] = []
    for api in dict.fromkeys(upstream.api for upstream in settings.upstreams.values()):
        found.extend((name, root + tail, readers) for name, tail, readers in CLIENTS[api])
    host = root.removeprefix("http://").rpartition(":")[0].strip("[]")
    proxied = any(environ.get(name) for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"))
    bypassed = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if proxied and host not in bypassed.replace(" ", "").split(",") and bypassed.strip() != "*":
        value = ",".join(part for part in (bypassed.strip().strip(","), host) if part)
        found.extend((name, value, "clients behind your proxy") for name in ("NO_PROXY", "no_proxy"))
    return found


def chosen_shell(asked: str | None, environ: Mapping[str, str]) -> str:
    """The shell to write for; raises ConfigurationError for one that is not known."""
    if asked is None:
        return "fish" if environ.get("SHELL", "").endswith("/fish") else "sh"
    known = {"bash": "sh", "zsh": "sh", "dash": "sh", "ksh": "sh", "pwsh": "powershell"}
    name = known.get(asked.lower(), asked.lower())
    if name not in SHELLS:
        raise ConfigurationError(f"--shell {asked!r} is not known; use {', '.join(SHELLS)}")
    return name


def line(shell: str, name: str, value: str | None) -> str:
    """One assignment, or one removal where `value` is None."""
    if value is None:
        removal = {"sh": f"unset {name}", "fish": f"set -e {name}", "powershell": f"Remove-Item Env:{name} -ErrorAction Ignore"}
        return removal[shell]
    quoted = "'" + value.replace("'", {"sh": "'\\''", "fish": "\\'", "powershell": "''"}[shell]) + "'"
    return {"sh": f"export {name}={quoted}", "fish": f"set -gx {name} {quoted}", "powershell": f"$env:{name} = {quoted}"}[shell]


def print_env(settings: Settings, environ: Mapping[str, str], *, shell: str | None, unset: bool, as_json: bool) -> None:
    """Print the lines to stdout, each with who reads it as a comment above."""
    found = exports(settings, environ)
    name_of_shell = chosen_shell(shell, environ)
    if as_json:
        rows = [{"name": name, "value": value, "read_by": readers} for name, value, readers in found]
        removals = [line(name_of_shell, name, None) for name, _, _ in found]
        print(json.dumps({"base_url": reachable_root(settings), "variables": rows, "unset": removals}, indent=2))
        return
    said = ""
    for name, value, readers in found:
        if readers != said and not unset:
            print(f"# {readers}")
            said = readers
        print(line(name_of_shell, name, None if unset else value))
