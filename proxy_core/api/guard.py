"""The door of the control port: one ASGI callable in front of everything behind it, so that no route can be left open.

In this order: the Host must be ours (421), a browser must come from our own pages (403), the token must be right (401), a
write must be JSON (415) and small (413). No CORS header is ever sent, forwarded-for headers count for nothing, and a refused
request is never parsed. The documentation also opens with a cookie that is good for nothing else: a browser gets it by
`GET /docs?token=…`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from proxy_core.api.token import is_token

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MAX_BODY_BYTES = 1024 * 1024
BODY_TIMEOUT_S = 10.0
DOCUMENT_PATHS = frozenset({"/docs", "/openapi.json"})
COOKIE = "luthien_docs"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_EVERYWHERE: Headers = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; form-action 'none'"),
]


class Refused(Exception):
    """The request is not let in."""

    def __init__(self, status: int, code: str, message: str, headers: Headers | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or []


class Guard:
    """Lets requests through to `app` that may come in. `port` is the one that is listened on."""

    def __init__(self, app: App, *, token: str, host: str, port: int, allowed_hosts: Sequence[str] = ()) -> None:
        self._app = app
        self._token = token
        self._cookie = hmac.new(token.encode(), b"luthien docs", sha256).hexdigest()
        own = {f"{name}:{port}" for name in _LOOPBACK}
        if host not in ("0.0.0.0", "::", ""):  # noqa: S104 - these name no host
            own.add(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        self._hosts = own | {name.strip().lower() for name in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        headers: Headers = scope["headers"]

        async def send_closed(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in _EVERYWHERE if pair[0] not in present)]
            await send(message)

        try:
            host = self._check_host(headers)
            _check_browser(headers, host)
            if self._is_login(scope):
                await _redirect(send_closed, self._cookie)
                return
            self._check_token(scope, headers)
            body = await self._take_body(scope, headers, receive)
        except Refused as refusal:
            await _refuse(send_closed, refusal)
        else:
            await self._app(scope, _replay(body, receive), send_closed)

    def _check_host(self, headers: Headers) -> str:
        hosts = [value for name, value in headers if name == b"host"]
        host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
        if not host or (host not in self._hosts and _name_of(host) not in self._hosts):
            raise Refused(
                421,
                "wrong_host",
                "the control API does not answer under this Host; name it in 'control.allowed_hosts' to allow it",
            )
        return host

    def _is_login(self, scope: Scope) -> bool:
        """Whether this is a browser that shows the token to read the documentation. Raises Refused for a wrong one."""
        if scope["path"] != "/docs" or scope["method"] != "GET" or not scope["query_string"]:
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if not given:
            return False
        if len(given) != 1 or not is_token(given[0], self._token):
            raise _unauthorized()
        return True

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) == 1:
            scheme, _, credentials = given[0].decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" and is_token(credentials.strip(), self._token):
                return
        elif not given and scope["path"] in DOCUMENT_PATHS and scope["method"] in _READS and self._has_cookie(headers):
            return
        raise _unauthorized()

    def _has_cookie(self, headers: Headers) -> bool:
        for name, value in headers:
            if name == b"cookie":
                try:
                    found = SimpleCookie(value.decode("latin-1")).get(COOKIE)
                except CookieError:
                    continue
                if found is not None and is_token(found.value, self._cookie):
                    return True
        return False

    async def _take_body(self, scope: Scope, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body of a write; None for a read, whose body nobody looks at."""
        if scope["method"] in _READS:
            return None
        kinds = [value for name, value in headers if name == b"content-type"]
        lengths = [value for name, value in headers if name == b"content-length"]
        if lengths and lengths[0].isdigit() and int(lengths[0]) > MAX_BODY_BYTES:
            raise _too_large()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _read_body(receive)
        except TimeoutError as error:
            raise Refused(408, "request_timeout", "the body did not arrive in time") from error
        is_json = len(kinds) == 1 and kinds[0].split(b";")[0].strip().lower() == b"application/json"
        if not is_json and (body or kinds):
            raise Refused(415, "not_json", "send the body as JSON, with content-type: application/json")
        return body


def _name_of(host: str) -> str:
    """A Host without its port."""
    return host[: host.rindex("]") + 1] if "]" in host else host.partition(":")[0]


def _check_browser(headers: Headers, host: str) -> None:
    """A page of another origin gets nothing, whatever it knows."""
    for name, value in headers:
        if name == b"origin" and value.decode("latin-1").lower() not in (f"http://{host}", f"https://{host}"):
            raise Refused(403, "foreign_origin", "the control API does not answer pages of another origin")
        if name == b"sec-fetch-site" and value.strip().lower() not in (b"same-origin", b"none"):
            raise Refused(403, "foreign_origin", "the control API does not answer pages of another origin")


def _unauthorized() -> Refused:
    return Refused(
        401,
        "unauthorized",
        "this needs 'Authorization: Bearer TOKEN'; the token is in the file control-token of luthien's data folder",
        [(b"www-authenticate", b'Bearer realm="luthien"')],
    )


def _too_large() -> Refused:
    return Refused(413, "too_large", f"the body is larger than {MAX_BODY_BYTES:,} bytes", [(b"connection", b"close")])


async def _read_body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "incomplete", "the body is not whole")
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > MAX_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes | None, receive: Receive) -> Receive:
    """What the app receives: the body that was read already, then whatever comes."""
    if body is None:
        return receive
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


async def _refuse(send: Send, refusal: Refused) -> None:
    body = json.dumps({"error": {"code": refusal.code, "message": str(refusal)}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *refusal.headers]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _redirect(send: Send, cookie: str) -> None:
    """To the documentation, without the token in the address."""
    headers: Headers = [(b"location", b"/docs"), (b"content-length", b"0")]
    for path in sorted(DOCUMENT_PATHS):
        headers.append((b"set-cookie", f"{COOKIE}={cookie}; Path={path}; HttpOnly; SameSite=Strict".encode("ascii")))
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
