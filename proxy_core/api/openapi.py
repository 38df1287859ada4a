"""The OpenAPI document: FastAPI's view of the routes, msgspec's of the answers, and the words that stand in the code."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from enum import Enum
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from msgspec import Struct

from proxy_core.api.answers import returns
from proxy_core.api.shapes import (
    AgentList,
    ChangeList,
    ErrorAnswer,
    EventData,
    HoldList,
    Killed,
    PolicyList,
    SessionTags,
    TransactionDetails,
    TransactionList,
)
from proxy_core.control.plane import GatewayState
from proxy_core.control.routing_infos import RoutingInfo, WhatIf
from proxy_core.control.session_infos import AgentDetail, Dashboard, SessionDetail, SessionPage
from proxy_core.routing.explaining import Explanation

ANSWERS: tuple[type[Struct], ...] = (
    GatewayState,
    EventData,
    TransactionList,
    TransactionDetails,
    PolicyList,
    HoldList,
    Explanation,
    RoutingInfo,
    WhatIf,
    Killed,
    SessionPage,
    SessionDetail,
    SessionTags,
    AgentList,
    AgentDetail,
    Dashboard,
    ChangeList,
    ErrorAnswer,
)
_REF = "#/components/schemas/{name}"


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the app, made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        components = document.setdefault("components", {})
        schemas = {
            name: schema
            for name, schema in components.get("schemas", {}).items()
            if name not in ("HTTPValidationError", "ValidationError")
        }
        _, answers = msgspec.json.schema_components(ANSWERS, ref_template=_REF)
        for kind in _structs_of(ANSWERS):
            _add_words(answers.get(kind.__name__, {}), kind)
        components["schemas"] = {**schemas, **answers}
        components["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "The text of `control-token` in luthien's data folder."}
        }
        document["security"] = [{"token": []}]
        _replace_foreign_errors(document)
        app.openapi_schema = document
    return app.openapi_schema


def _replace_foreign_errors(document: dict[str, Any]) -> None:
    """FastAPI describes faults of parameters in its own shape, which is never sent."""
    for methods in document["paths"].values():
        for route in methods.values():
            unfit = route["responses"].get("422", {})
            if unfit.get("description") == "Validation Error":
                route["responses"]["422"] = returns(ErrorAnswer, 422)[422]


def _structs_of(kinds: tuple[type[Struct], ...]) -> list[type[Struct]]:
    """These structs and all that they are made of."""
    found: dict[type[Struct], None] = {}

    def visit(kind: msgspec.inspect.Type) -> None:
        if isinstance(kind, msgspec.inspect.StructType):
            if kind.cls in found:
                return
            found[kind.cls] = None
            for field in kind.fields:
                visit(field.type)
        elif isinstance(kind, msgspec.inspect.UnionType):
            for one in kind.types:
                visit(one)
        elif isinstance(kind, msgspec.inspect.CollectionType | msgspec.inspect.VarTupleType):
            visit(kind.item_type)
        elif isinstance(kind, msgspec.inspect.TupleType):
            for one in kind.item_types:
                visit(one)

    for kind in kinds:
        visit(msgspec.inspect.type_info(kind))
    return list(found)


def _add_words(schema: dict[str, Any], kind: type[Struct]) -> None:
    """Put the docstrings of a struct and of its fields into its schema."""
    if "description" in schema:
        schema["description"] = _in_json(schema["description"])
    for name, words in field_words(kind).items():
        if name in schema.get("properties", {}):
            schema["properties"][name]["description"] = words


def field_words(kind: type[Any]) -> dict[str, str]:
    """The docstring under each field of a class, on one line and in the words of JSON; its source is where they are."""
    if issubclass(kind, Enum):
        return {}
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - it is the source of a class
    words: dict[str, str] = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            words[statement.target.id] = _in_json(following.value.value)
    return words


def _in_json(words: str) -> str:
    """A docstring on one line, in the words of JSON."""
    return re.sub(r"\bNone\b", "null", " ".join(words.split()))
