"""The control API in words, made from its OpenAPI document: `docs/api.md`, and the page that the gateway serves at /docs.

The served page is plain HTML without a script and without anything from elsewhere: it opens where there is no network, and
nothing foreign ever runs beside the token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple, cast

from proxy_core.control import filters, session_filters
from proxy_core.control.filter_language import FilterField
from proxy_core.control.plane import ControlPlane


class Part(NamedTuple):
    """A piece of the page."""

    kind: str
    """`h1`, `h2`, `h3`, `p`, `code` or `table`."""
    text: str = ""
    rows: Sequence[Sequence[str]] = ()
    """Of a table; the first is its head."""


INTRO = (
    Part("h1", "Control API"),
    Part(
        "p",
        "luthien serves it on a port of its own, 127.0.0.1:4001 by default (`control.port`, `--control-port`; "
        "`control.enabled: false` turns it off). Whatever the screen can do, this can do.",
    ),
    Part(
        "p",
        "Every request needs the token: `Authorization: Bearer TOKEN`. It is in the file `control-token` of the data folder, "
        "which only you can read; luthien makes it at the first start. In a browser, `/docs?token=TOKEN` opens this page and "
        "the OpenAPI document at `/openapi.json`; the cookie that it sets opens nothing else.",
    ),
    Part(
        "code",
        "token=$(cat ~/.local/share/luthien/control-token)\n"
        'curl -H "Authorization: Bearer $token" http://127.0.0.1:4001/api/state\n'
        'curl -N -H "Authorization: Bearer $token" http://127.0.0.1:4001/api/events\n'
        'curl -X PATCH -H "Authorization: Bearer $token" -H "content-type: application/json" \\\n'
        '     -d \'{"mode": "shadow"}\' http://127.0.0.1:4001/api/policies/strip_secrets',
    ),
    Part(
        "p",
        "The Host must be the loopback's (`localhost`, `127.0.0.1` or `[::1]`, with the port) or one of `control.allowed_hosts`, "
        "else 421. Pages of another origin get 403, whatever they know. Writes are JSON (415) and 1 MiB at most (413). "
        "`x-luthien-operator: NAME` says who you are, for the record.",
    ),
    Part(
        "p",
        'An error is `{"error": {"code", "message"}}`; with 422, `detail` names each wrong field. A list is '
        '`{"<plural>": […], "next": cursor}`, with null at the end.',
    ),
)
_METHODS = ("get", "post", "patch", "put", "delete")


def api_reference() -> str:
    """The page docs/api.md, without the line that says how it was made."""
    from proxy_core.api.app import control_app, document

    app = control_app(cast(ControlPlane, None))  # routes are described without being called
    return "\n\n".join(_markdown(part) for part in _parts(document(app))) + "\n"


def page(document: dict[str, Any]) -> str:
    """The page at /docs."""
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
        "code,pre{font:13px/1.4 ui-monospace,monospace;background:#f3f3f3}pre{padding:.8rem;overflow:auto}"
        "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.2rem .5rem;text-align:left;vertical-align:top}"
    )
    title = escape(document["info"]["title"])
    body = "\n".join(_html(part) for part in _parts(document))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>'
        f"<body>{body}</body></html>"
    )


# --- from the document to parts ---


def _parts(document: dict[str, Any]) -> Iterator[Part]:
    yield from INTRO
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield from _route(document, path, method, methods[method])
    yield Part("h2", "Filters")
    yield Part(
        "p",
        "Terms joined by `and`, `or`, `not` and parentheses; side by side is `and`, a bare word searches. "
        "Text takes globs, numbers are compared and take units. Of transactions:",
    )
    yield _filter_fields(filters.FIELDS)
    yield Part("p", "Of sessions:")
    yield _filter_fields(session_filters.FIELDS)
    yield Part("h2", "Shapes")
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield Part("h3", name)
        if words := " ".join(str(schema.get("description", "")).split()):
            yield Part("p", words)
        if "enum" in schema:
            yield Part("p", f"One of {_type_of(schema)}.")
        else:
            yield _fields(schema)


def _filter_fields(fields: Mapping[str, FilterField]) -> Part:
    rows = [(f"`{field.name}`", field.meaning, f"`{field.example}`") for field in fields.values()]
    return Part("table", rows=[("field", "meaning", "example"), *rows])


def _route(document: dict[str, Any], path: str, method: str, route: dict[str, Any]) -> Iterator[Part]:
    yield Part("h2", f"{method.upper()} {path}")
    yield Part("p", _sentence(route["summary"]))
    if "description" in route:
        yield Part("p", " ".join(route["description"].split()))
    rows = [
        (f"`{one['name']}`", one["in"], _type_of(one["schema"]), one.get("description", ""))
        for one in route.get("parameters", ())
    ]
    if rows:
        yield Part("table", rows=[("parameter", "in", "type", "meaning"), *rows])
    if "requestBody" in route:
        (content,) = route["requestBody"]["content"].values()
        yield Part("p", f"Takes {_type_of(content['schema'])}.")
    answers = [
        (status, " or ".join(_type_of(content["schema"]) for content in one.get("content", {}).values()), one["description"])
        for status, one in sorted(route["responses"].items())
    ]
    yield Part("table", rows=[("status", "gives", "meaning"), *answers])


def _fields(schema: dict[str, Any]) -> Part:
    rows = [(f"`{name}`", _type_of(one), one.get("description", "")) for name, one in schema.get("properties", {}).items()]
    return Part("table", rows=[("field", "type", "meaning"), *rows])


def _type_of(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type_of(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{one}`" if one else "empty" for one in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        inner: dict[str, Any] = schema.get("items") or next(iter(schema.get("prefixItems", ())), {})
        return f"list of {_type_of(inner)}"
    if isinstance(kind, list):
        kind = " or ".join(kind)
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if key in schema
    ]
    return f"{kind} {', '.join(bounds)}".strip()


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


# --- from parts to text ---


def _markdown(part: Part) -> str:
    if part.kind == "table":
        head, *rows = part.rows
        lines = [head, ["---"] * len(head), *rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    if part.kind == "code":
        return f"```sh\n{part.text}\n```"
    return "#" * int(part.kind[1]) + f" {part.text}" if part.kind.startswith("h") else part.text


def _html(part: Part) -> str:
    if part.kind == "table":
        head, *rows = part.rows
        lines = [("th", head), *(("td", row) for row in rows)]
        return (
            "<table>"
            + "".join("<tr>" + "".join(f"<{t}>{_inline(c)}</{t}>" for c in row) + "</tr>" for t, row in lines)
            + "</table>"
        )
    if part.kind == "code":
        return f"<pre>{escape(part.text)}</pre>"
    return f"<{part.kind}>{_inline(part.text)}</{part.kind}>"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
