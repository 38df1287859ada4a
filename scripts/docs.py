"""Writes the pages of docs/ that are made from the code, so that they cannot differ from it.

`python scripts/docs.py` writes them; `--check` changes nothing and exits 1 if one is stale.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from luthien_tui import cli
from proxy_core import settings_environment as environment
from proxy_core.api.mcp_acts import acting_tools
from proxy_core.api.mcp_reads import reading_tools
from proxy_core.api.mcp_tools import McpTool
from proxy_core.api.reference import api_reference
from proxy_core.control.plane import ControlPlane
from proxy_core.errors import ExitCode
from proxy_core.policies import registry
from proxy_core.policies.described import ParamDescription, PolicyDescription
from proxy_core.routing import reasons
from proxy_core.settings import Settings
from proxy_core.settings_tree import model_of

DOCS = Path(__file__).resolve().parent.parent / "docs"
GENERATED = "<!-- made by scripts/docs.py; change the code instead -->"

SETTINGS_INTRO = """# Settings

Every setting has a default: luthien starts with none of them. Sources, each beating the one before:

1. defaults
2. a YAML file: `--config FILE` or `LUTHIEN_CONFIG`
3. the environment, and `.env` in the working folder (the environment wins over `.env`)
4. the command line

`luthien config show` prints what holds and where each value came from; `luthien validate-config FILE` checks a file. Unknown
names are refused, with the nearest known one.

```yaml
upstreams:
  openai: {api: openai, base_url: https://api.openai.com, api_key: ${OPENAI_API_KEY}}
  anthropic: {api: anthropic}
  local: {api: ollama, base_url: http://localhost:11434}
journal: {capture: redacted}
ui: {on_close: headless}
```

`${NAME}` anywhere in a value is replaced by the environment; `${NAME:-text}` gives a default, `$${` is the text itself. An
upstream may leave out `api` where its name says it, and `base_url` where its API has a usual one. `luthien generate-config FILE`
writes a file with every default.

Files of Cylestio Gateway load as they are: `llm` (`base_url`, `type`, `api_key`, `timeout`, `max_retries`) is the one upstream,
`session` (`max_sessions`, `session_ttl_seconds`) the section `sessions`, and `live_trace` more of that interceptor's `config`.
What stands in such a section and in luthien's own too is refused.
"""

ENVIRONMENT_INTRO = """## Environment

Any setting is `LUTHIEN_` and its path in capitals with `__` between the parts: `LUTHIEN_SERVER__PORT=4100`,
`LUTHIEN_UPSTREAMS__OPENAI__API_KEY=…`. A whole section can be JSON: `LUTHIEN_ROUTING__TIMEOUTS='{"idle_s": 30}'`. An empty
value counts as unset.

Names that other programs use are understood too; `LUTHIEN_…` beats them.

| name | sets |
|---|---|
"""

ENVIRONMENT_NOTES = """
A base URL from one of these that points at luthien itself is ignored with a warning, because a shell that sends its clients here
exports exactly that. In a file or on the command line it is an error. A provider's key is used only with that provider's own
address or one that came from the environment, never with an address of a file; there, write `api_key: ${OPENAI_API_KEY}`.
"""

REFERENCE_BEGINS = "<!-- from here on made by scripts/docs.py; change the code instead -->"
REFERENCE_ENDS = "<!-- made by hand again -->"

REASONS_INTRO = """# Reason codes

Every verdict of a policy and every route says why, with one of these codes. They stand in the journal, in response headers, in
the metrics and in the API, and are a contract: a code is never renamed or given another meaning. The list is closed; policies
of your own use `policy_decision` and say the rest in their message."""

CLI_INTRO = """# Command line

`luthien` alone starts gateway and screen. Without a terminal it runs headless and says so. Options of
`luthien` also work before a sub-command.

| exit code | meaning |
|---|---|
"""


def settings_page() -> str:
    """docs/settings.md."""
    parts = [GENERATED, "", SETTINGS_INTRO]
    parts += _section(Settings, "", top=True)
    parts.append(ENVIRONMENT_INTRO + "\n".join(_environment_rows()))
    parts.append(ENVIRONMENT_NOTES)
    return "\n".join(parts).rstrip() + "\n"


def _section(model: type[BaseModel], path: str, *, top: bool = False) -> list[str]:
    rows: list[str] = []
    inner: list[str] = []
    for name, info in model.model_fields.items():
        section, named = model_of(info.annotation)
        here = f"{path}{name}"
        listed = get_origin(info.annotation) is list
        if section is not None and (path, name) == ("chains[].", "policies"):
            rows.append(_row(here, info, "as in `policies[]`"))
            continue
        if section is not None:
            inner += _section(section, f"{here}[]." if listed else f"{here}.<name>." if named else f"{here}.")
            if not top and not named and info.description:
                rows.append(_row(here, info, "as in `routing.timeouts`" if info.default is None else "see below"))
            continue
        rows.append(_row(here, info, _kind(info)))
    title = f"## `{path.rstrip('.')}`" if path else "## At the top"
    table = ["| setting | values | default | meaning |", "|---|---|---|---|", *rows, ""]
    if path == "upstreams.<name>.timeouts.":
        return []
    return [*inner, title, "", *table] if top else [title, "", *table, *inner]


def _row(path: str, info: FieldInfo, kind: str) -> str:
    default = "required" if info.is_required() else _default(info)
    return f"| `{path}` | {kind} | {default} | {' '.join((info.description or '').split())} |"


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return f"`{value}`" if value != "" else "empty"


def _kind(info: FieldInfo) -> str:
    annotation: Any = info.annotation
    bounds = _bounds(info.metadata)
    options = [kind for kind in get_args(annotation) if kind is not type(None)]
    if len(options) == 1 and type(None) in get_args(annotation):
        annotation = options[0]  # what is optional
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        bounds = bounds or _bounds([one for field in metadata for one in getattr(field, "metadata", [field])])
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{option}`" for option in get_args(annotation))
    if get_origin(annotation) in (list, dict):
        return "list of text" if get_origin(annotation) is list else "mapping"
    names = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`", SecretStr: "secret"}
    return names.get(annotation, "text") + (f", {bounds}" if bounds else "")


def _bounds(metadata: list[Any]) -> str:
    low = high = ""
    for bound in metadata:
        if (value := getattr(bound, "ge", None)) is not None:
            low = f"from {value}"
        if (value := getattr(bound, "gt", None)) is not None:
            low = f"above {value}"
        if (value := getattr(bound, "le", None)) is not None:
            high = f"up to {value}"
    return " ".join(part for part in (low, high) if part)


def _environment_rows() -> list[str]:
    rows = {name: f"`{'.'.join(place)}`" for name, place in environment.SHARED_NAMES.items()}
    for name, api in environment.SHARED_BASE_URLS.items():
        rows[name] = f"`base_url` of the upstream `{api}`, or else of the first one with that API"
    for name, api in environment.SHARED_API_KEYS.items():
        rows[name] = f"`api_key` of the same upstream for `{api}`, where it has none"
    public = "of the upstream `anthropic` where that word stands in the address, else of `openai`"
    rows[environment.PUBLIC_URL] = f"`base_url` {public}; a `default_provider` of `public` means that one"
    rows[environment.PUBLIC_KEY] = f"`api_key` {public}"
    one = ", ".join(f"`{name}`" for name in environment.ONE_UPSTREAM_NAMES)
    return [
        *(f"| `{name}` | {meaning} |" for name, meaning in rows.items()),
        f"| {one} | together: one upstream instead of all |",
    ]


def cli_page() -> str:
    """docs/cli.md."""
    group = typer.main.get_command(cli.app)
    codes = [f"| {code.value} | {_meaning(code)} |" for code in ExitCode]
    parts = [GENERATED, "", CLI_INTRO + "\n".join(codes), ""]
    for path, command in _commands("luthien", group):
        context = typer.Context(command, info_name=path, terminal_width=100, max_content_width=100)
        parts += [f"## `{path}`", "", "```text", command.get_help(context).rstrip(), "```", ""]
    return "\n".join(parts).rstrip() + "\n"


def _commands(path: str, command: Any) -> list[tuple[str, Any]]:
    found = [(path, command)]
    for name, inner in getattr(command, "commands", {}).items():
        found += _commands(f"{path} {name}", inner)
    return found


def _meaning(code: ExitCode) -> str:
    meanings = {
        ExitCode.OK: "ended as asked",
        ExitCode.CRASH: "a defect; for `doctor`: a check failed",
        ExitCode.USAGE: "a wrong option or setting",
        ExitCode.CANNOT_START: "the address is taken, or the gateway could not start",
        ExitCode.STORE: "the journal's store is not writable",
        ExitCode.INTERRUPTED: "ended by ctrl+c before it could serve",
    }
    return meanings[code]


def api_page() -> str:
    """docs/api.md."""
    return f"{GENERATED}\n\n{api_reference()}"


def policies_page() -> str:
    """docs/policies.md: written by hand, but for what stands between the marks."""
    written = (DOCS / "policies.md").read_text("utf-8")
    before, _, rest = written.partition(REFERENCE_BEGINS)
    _, _, after = rest.partition(REFERENCE_ENDS)
    parts = [REFERENCE_BEGINS, ""]
    for one in registry.registered():
        parts += _policy(one)
    return before + "\n".join(parts) + REFERENCE_ENDS + after


def _policy(one: PolicyDescription) -> list[str]:
    rest = one.text.partition("\n\n")[2]
    facts = [f"- {fact}" for fact in _facts(one)]
    parts = [f"### `{one.name}`", "", one.summary, "", *([rest, ""] if rest else []), *facts, ""]
    if one.params:
        rows = [row for param in one.params for row in _param_rows(param, "")]
        parts += ["| parameter | takes | default | meaning |", "|---|---|---|---|", *rows, ""]
    return parts


def _facts(one: PolicyDescription) -> list[str]:
    stages = {
        "class": "Acts on " + " and ".join(f"{stage}s" for stage in one.stages) + ".",
        "place": "Acts on requests where it stands before the send, on responses where it stands after it.",
        "params": "Acts on requests, responses or both, as its parameters say.",
    }
    release = {
        "pass": "Streams pass as they come.",
        "tail": "Of a stream it holds back what could still become a match.",
        "block": "Of a stream it holds back one tool call or text at a time.",
        "full": "Holds back a stream until the answer is whole.",
    }
    operations = ", ".join(f"`{name}`" for name in one.operations)
    asks_only = one.acts_by == "class" and "response" not in one.stages
    limit = "It may wait for a person." if one.waits_for_people else f"Deadline {one.deadline_s:g} s."
    found = [
        stages[one.acts_by] + ("" if asks_only or one.sends else f" {release[one.release]}"),
        f"Reads {operations}; on other operations its verdict is `unsupported`." if operations else "",
        "Gets the answer in place of the gateway." if one.sends and one.name != "send_backend_request" else "",
        f"{limit} Where it fails: `on_error: {one.on_error}`, if nothing else is configured.",
    ]
    return [fact for fact in found if fact]


def _param_rows(param: ParamDescription, around: str) -> list[str]:
    name = f"{around}{param.name}"
    default = "required" if param.required else _json_cell(param.default)
    takes = param.kind + (", tunable" if param.tunable else "")
    row = f"| `{name}` | {_cell(takes)} | {default} | {_cell(param.meaning)} |"
    inner = f"{name}[]." if param.kind.startswith("list of") else f"{name}.*." if param.kind.startswith("mapping") else f"{name}."
    return [row, *(found for field in param.fields for found in _param_rows(field, inner))]


def _json_cell(value: Any) -> str:
    if value is None:
        return "none"
    text = json.dumps(value, ensure_ascii=False)
    return f"`{_cell(text)}`" if len(text) <= 80 else "`luthien policies show` prints it"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def mcp_page() -> str:
    """docs/mcp.md: written by hand, but for the tools between the marks."""
    written = (DOCS / "mcp.md").read_text("utf-8")
    before, _, rest = written.partition(REFERENCE_BEGINS)
    _, _, after = rest.partition(REFERENCE_ENDS)
    nothing = cast(ControlPlane, None)  # tools are described without being called
    groups = {"They read:": reading_tools(nothing), "They act, with `control.mcp_write: true`:": acting_tools(nothing)}
    parts = [REFERENCE_BEGINS, ""]
    for title, tools in groups.items():
        rows = [f"| `{tool.name}` | {_arguments(tool)} | {_cell(tool.meaning)} |" for tool in tools]
        parts += [title, "", "| tool | takes | gives |", "|---|---|---|", *rows, ""]
    return before + "\n".join(parts) + REFERENCE_ENDS + after


def _arguments(tool: McpTool) -> str:
    fields = tool.arguments.model_fields.items()
    return ", ".join(f"`{name}`" if info.is_required() else f"[`{name}`]" for name, info in fields)


def reasons_page() -> str:
    """docs/reasons.md."""
    lines = inspect.getsource(reasons).splitlines()
    parts = [GENERATED, "", REASONS_INTRO]
    body = next(node for node in ast.parse("\n".join(lines)).body if isinstance(node, ast.ClassDef)).body
    for node, following in itertools.pairwise([*body, ast.Pass()]):
        if not isinstance(node, ast.Assign):
            continue
        above = lines[node.lineno - 2].strip()
        if above.startswith("# "):
            heading = above.removeprefix("# ")
            parts += ["", f"## {heading[:1].upper()}{heading[1:]}", "", "| code | meaning |", "|---|---|"]
        meaning = ast.literal_eval(following.value) if isinstance(following, ast.Expr) else ""
        parts.append(f"| `{ast.literal_eval(node.value)}` | {_cell(' '.join(meaning.split()))} |")
    return "\n".join(parts).rstrip() + "\n"


PAGES = {
    "settings.md": settings_page,
    "cli.md": cli_page,
    "api.md": api_page,
    "policies.md": policies_page,
    "mcp.md": mcp_page,
    "reasons.md": reasons_page,
}


def stale_pages() -> list[str]:
    """Names of the pages that differ from what the code says."""
    return [name for name, page in PAGES.items() if not (DOCS / name).exists() or (DOCS / name).read_text("utf-8") != page()]


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if a page is stale")
    if parser.parse_args().check:
        stale = stale_pages()
        for name in stale:
            print(f"docs/{name} is stale: run python scripts/docs.py", file=sys.stderr)
        return 1 if stale else 0
    DOCS.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
