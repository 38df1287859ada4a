"""The OpenAPI document tells of every route, every answer and every field, and the page made of it needs no script."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from proxy_core.api.app import control_app, document
from proxy_core.api.openapi import field_words
from proxy_core.api.reference import api_reference, page
from proxy_core.api.shapes import TransactionDetails
from proxy_core.control.plane import ControlPlane, HoldInfo, PolicyInfo

app = control_app(cast(ControlPlane, None))
DOCUMENT = document(app)
ROUTES = [(path, method, route) for path, methods in DOCUMENT["paths"].items() for method, route in methods.items()]


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if "$ref" in value else set()
        return found.union(*(references(inner) for inner in value.values()))
    return set().union(*(references(inner) for inner in value)) if isinstance(value, list) else set()


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert {name.rpartition("/")[2] for name in references(DOCUMENT)} <= set(schemas)
    assert set(schemas) >= {
        "GatewayState",
        "TransactionRow",
        "TransactionDetails",
        "PolicyInfo",
        "HoldInfo",
        "Verdict",
        "Decision",
    }
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)


@pytest.mark.parametrize(("path", "method", "route"), ROUTES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_route_says_what_it_gives(path: str, method: str, route: dict[str, Any]) -> None:
    assert route["summary"]
    content = route["responses"]["200"]["content"]
    assert all("$ref" in one["schema"] or one["schema"] == {"type": "string"} for one in content.values())
    assert "401" in route["responses"]
    for status, one in route["responses"].items():
        if status != "200":
            assert one["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer")


def test_every_route_but_the_documentation_is_in_it() -> None:
    served = {route.path_format for route in app.routes if route.path not in ("/docs", "/openapi.json", "/mcp")}  # type: ignore[attr-defined]
    assert served == set(DOCUMENT["paths"])


def test_fields_carry_the_words_of_the_code() -> None:
    assert field_words(HoldInfo)["shown"].startswith("SHA-256 over")
    properties = DOCUMENT["components"]["schemas"]["HoldInfo"]["properties"]
    assert properties["shown"]["description"] == field_words(HoldInfo)["shown"]
    assert set(properties) == set(HoldInfo.__struct_fields__)
    assert set(DOCUMENT["components"]["schemas"]["PolicyInfo"]["properties"]) == set(PolicyInfo.__struct_fields__)
    assert set(DOCUMENT["components"]["schemas"]["TransactionDetails"]["properties"]) == set(TransactionDetails.__struct_fields__)


def test_the_document_is_json_and_asks_for_the_token() -> None:
    assert msgspec.json.decode(msgspec.json.encode(DOCUMENT))["openapi"].startswith("3.1")
    assert DOCUMENT["security"] == [{"token": []}]
    assert DOCUMENT["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_the_page_has_every_route_and_nothing_from_elsewhere() -> None:
    html = page(DOCUMENT)
    text = api_reference()
    for path, method, _ in ROUTES:
        assert f"<h2>{method.upper()} {path}</h2>" in html
        assert f"## {method.upper()} {path}\n" in text
    for forbidden in ("<script", "<link", "<img", "@import", "url("):
        assert forbidden not in html
