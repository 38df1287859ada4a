"""The door of the control port: nobody comes in without the token, and no page of another origin at all."""

from __future__ import annotations

import inspect
import json
from typing import cast

import pytest
from starlette.routing import Route

from proxy_core.api import token
from proxy_core.api.app import control_app
from proxy_core.api.guard import MAX_BODY_BYTES, Guard
from proxy_core.api.server import ControlServer
from proxy_core.control.plane import ControlPlane
from tests.proxy_core.api.control_port import TOKEN, ControlPort, control_port

JSON = {"content-type": "application/json"}
WRONG = ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é" * 43, TOKEN[:-1] + "\u00e9"]


def every_route() -> list[tuple[str, str]]:
    """Method and path of every route that the app has, the documentation's too."""
    found: list[tuple[str, str]] = []
    for route in control_app(cast(ControlPlane, None)).routes:
        assert isinstance(route, Route), "a kind of route that this test does not know"
        found.extend((method, route.path) for method in sorted(route.methods or ()))
    return [(method, path.replace("{", "").replace("}", "")) for method, path in found]


ROUTES = every_route()


def test_all_routes_are_known() -> None:
    assert {path for _, path in ROUTES} >= {"/api/state", "/api/events", "/api/transactions/transaction_id/kill", "/docs"}
    assert len(ROUTES) >= 13


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_refuses_who_may_not_come_in(control: ControlPort, method: str, path: str) -> None:
    refusals: list[tuple[int, str | None, dict[str, str]]] = [
        (401, None, {}),
        (401, "wrong" * 10, {}),
        (421, TOKEN, {"host": "evil.example"}),
        (403, TOKEN, {"origin": "http://evil.example"}),
        (403, TOKEN, {"sec-fetch-site": "cross-site"}),
    ]
    for status, given, headers in refusals:
        answer = await control.ask(method, path, token=given, headers=headers)
        assert answer.status == status, (given, headers)
        assert method == "HEAD" or set(answer.json()["error"]) == {"code", "message"}
        assert not any(name.startswith("access-control") for name, _ in answer.headers)


async def test_the_right_token_opens(control: ControlPort) -> None:
    assert (await control.ask("GET", "/api/state")).status == 200
    assert (await control.ask("GET", "/api/state", token=None, headers={"Authorization": f"bearer  {TOKEN}"})).status == 200


@pytest.mark.parametrize("given", WRONG)
async def test_a_wrong_token_does_not(control: ControlPort, given: str) -> None:
    latin = given.encode("utf-8").decode("latin-1")
    answer = await control.ask("GET", "/api/state", token=latin)
    assert answer.status == 401
    assert answer.header("www-authenticate") == 'Bearer realm="luthien"'


@pytest.mark.parametrize("scheme", ["Basic", "Token", ""])
async def test_the_token_counts_as_bearer_only(control: ControlPort, scheme: str) -> None:
    assert (await control.ask("GET", "/api/state", token=None, headers={"authorization": f"{scheme} {TOKEN}"})).status == 401


async def test_two_authorizations_are_none(control: ControlPort) -> None:
    async with control.connect() as client:
        client.send(
            f"GET /api/state HTTP/1.1\r\nhost: {control.host}\r\nauthorization: Bearer wrong\r\n"
            f"authorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        assert (await client.response()).status == 401


async def test_a_token_in_the_address_or_a_cookie_is_none(control: ControlPort) -> None:
    assert (await control.ask("GET", f"/api/state?token={TOKEN}", token=None)).status == 401
    assert (await control.ask("GET", "/api/state", token=None, headers={"cookie": f"luthien_docs={TOKEN}"})).status == 401


async def test_whoever_is_forwarded_for_counts_for_nothing(control: ControlPort) -> None:
    headers = {
        "x-forwarded-for": "127.0.0.1",
        "x-real-ip": "127.0.0.1",
        "forwarded": "for=127.0.0.1",
        "x-forwarded-host": "localhost",
    }
    assert (await control.ask("GET", "/api/state", token=None, headers=headers)).status == 401


def test_tokens_are_compared_in_constant_time() -> None:
    assert "compare_digest" in inspect.getsource(token.is_token)
    source = inspect.getsource(Guard)
    assert "== self._token" not in source
    assert "== self._cookie" not in source


# --- the Host, and who sends a browser here ---


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
async def test_the_loopbacks_names_are_ours(control: ControlPort, name: str) -> None:
    assert (await control.ask("GET", "/api/state", headers={"host": f"{name}:{control.port}"})).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "localhost",
        "localhost:1",
        "127.0.0.1.evil.example:{port}",
        "localhost.:{port}",
        "[::2]:{port}",
    ],
)
async def test_a_name_that_was_bound_to_us_is_not(control: ControlPort, host: str) -> None:
    answer = await control.ask("GET", "/api/state", headers={"host": host.format(port=control.port)})
    assert answer.status == 421
    assert "control.allowed_hosts" in answer.json()["error"]["message"]


async def test_other_names_are_ours_when_they_are_set() -> None:
    async with control_port(allowed_hosts=["Luthien.Example", "box:9000"]) as control:
        for host, status in [("luthien.example", 200), ("luthien.example:8443", 200), ("box:9000", 200), ("box:9001", 421)]:
            assert (await control.ask("GET", "/api/state", headers={"host": host})).status == status, host


async def test_pages_of_our_own_origin_may_ask(control: ControlPort) -> None:
    headers = {"origin": f"http://{control.host}", "sec-fetch-site": "same-origin"}
    assert (await control.ask("GET", "/api/state", headers=headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost:3000"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site"},
    ],
)
async def test_pages_of_another_origin_may_not(control: ControlPort, headers: dict[str, str]) -> None:
    answer = await control.ask("GET", "/api/state", headers=headers)
    assert answer.status == 403


async def test_a_preflight_gets_nothing(control: ControlPort) -> None:
    asked = {"origin": "http://evil.example", "access-control-request-method": "PATCH"}
    answer = await control.ask("OPTIONS", "/api/policies/strip_secrets", token=None, headers=asked)
    assert answer.status == 403
    assert not any(name.startswith("access-control") for name, _ in answer.headers)


# --- what a write must be ---


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""])
async def test_a_write_that_is_no_json_is_refused(control: ControlPort, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    answer = await control.ask("PATCH", "/api/policies/strip_secrets", body=b'{"mode": "off"}', headers=headers)
    assert answer.status == 415
    assert control.plane.policy_infos[0].mode == "enforce"


async def test_json_with_a_charset_is_json(control: ControlPort) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    answer = await control.ask("PATCH", "/api/policies/strip_secrets", body=b'{"mode": "off"}', headers=headers)
    assert answer.status == 200


async def test_a_body_is_bounded(control: ControlPort) -> None:
    path = "/api/policies/strip_secrets"
    assert (await control.ask("PATCH", path, body=b" " * (MAX_BODY_BYTES + 1), headers=JSON)).status == 413
    async with control.connect() as client:
        client.send(
            f"PATCH {path} HTTP/1.1\r\nhost: {control.host}\r\nauthorization: Bearer {TOKEN}\r\n"
            "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(17):
            client.send(chunk)
        assert (await client.response()).status == 413
    fits = json.dumps({"params": {"threshold": 0.25}}).encode().ljust(MAX_BODY_BYTES)
    assert (await control.ask("PATCH", path, body=fits, headers=JSON)).status == 200


async def test_nothing_of_a_refused_request_is_read(control: ControlPort) -> None:
    """The refusal comes although the body never does."""
    async with control.connect() as client:
        client.send(
            f"PATCH /api/policies/x HTTP/1.1\r\nhost: {control.host}\r\ncontent-type: application/json\r\n"
            "content-length: 1000\r\n\r\n".encode()
        )
        assert (await client.response()).status == 401


async def test_every_answer_closes_the_usual_holes(control: ControlPort) -> None:
    for path, given in [("/api/state", TOKEN), ("/api/state", None), ("/nothing", TOKEN), ("/docs", TOKEN)]:
        answer = await control.ask("GET", path, token=given)
        assert answer.header("cache-control") == "no-store"
        assert answer.header("x-content-type-options") == "nosniff"
        assert "frame-ancestors 'none'" in (answer.header("content-security-policy") or "")
        assert answer.header("server") is None


# --- the documentation in a browser ---


async def test_a_browser_opens_the_documentation_with_the_token_once(control: ControlPort) -> None:
    answer = await control.ask("GET", f"/docs?token={TOKEN}", token=None, headers={"sec-fetch-site": "none"})
    assert answer.status == 303
    assert answer.header("location") == "/docs"
    cookies = answer.all("set-cookie")
    assert len(cookies) == 2
    assert all("HttpOnly" in one and "SameSite=Strict" in one and TOKEN not in one for one in cookies)
    cookie = {"cookie": f"other=1; {cookies[0].partition(';')[0]}"}
    page = await control.ask("GET", "/docs", token=None, headers=cookie)
    assert page.status == 200
    assert b"/api/policies" in page.body
    assert b"<script" not in page.body
    assert (await control.ask("GET", "/openapi.json", token=None, headers=cookie)).status == 200
    for path in ("/api/state", "/docs/", "/api/transactions"):
        assert (await control.ask("GET", path, token=None, headers=cookie)).status == 401
    assert (await control.ask("POST", "/docs", token=None, headers=cookie)).status == 401


@pytest.mark.parametrize("query", ["token=wrong", f"token={TOKEN}&token=x", f"tokens={TOKEN}", "token="])
async def test_the_documentation_stays_closed_without_it(control: ControlPort, query: str) -> None:
    assert (await control.ask("GET", f"/docs?{query}", token=None)).status == 401


async def test_another_site_cannot_send_a_browser_to_the_login(control: ControlPort) -> None:
    answer = await control.ask("GET", f"/docs?token={TOKEN}", token=None, headers={"sec-fetch-site": "cross-site"})
    assert answer.status == 403


async def test_a_server_that_is_closed_answers_nobody() -> None:
    async with control_port() as control:
        assert (await control.ask("GET", "/api/state")).status == 200
        port = control
    assert isinstance(port.server, ControlServer)
    with pytest.raises(ConnectionError):
        await port.ask("GET", "/api/state")
