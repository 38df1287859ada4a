"""The way to an upstream: request bytes out, response bytes in, over aiohttp's connection pool.

What is sent is exactly what the caller gives: no header is added but `host` and `content-length`, nothing is decoded,
no redirect is followed, no cookie kept. Failures become UpstreamError with a message that names the upstream, never a key.

`httpx` callers use `handle_async_request`; the gateway calls `send`, which does the same without httpx's types.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import lru_cache, partial
from types import TracebackType
from typing import Any

import aiohttp
import httpx
from aiohttp.abc import ResolveResult
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.tracing import Trace
from msgspec import Struct
from yarl import URL

from proxy_core.errors import UpstreamError, UpstreamTimeout, UpstreamTLSError, UpstreamUnreachable
from proxy_core.routing.response_protocol import ResponseProtocol
from proxy_core.routing.upstreams import Upstream

RawHeaders = list[tuple[bytes, bytes]]

POOL_IDLE_S = 30.0


class UpstreamResponse:
    """A response whose body is still to come. Call `close` in every case; after a whole body the connection is kept."""

    __slots__ = ("_key", "_pool", "_protocol", "connected_at", "headers", "pump", "read", "status")

    def __init__(self, pool: _Pool, key: ConnectionKey, protocol: ResponseProtocol, connected_at: float) -> None:
        self._pool: _Pool | None = pool
        self._key = key
        self._protocol = protocol
        self.status = protocol.status
        self.headers = protocol.headers
        """As received and in order, hop-by-hop headers included."""
        self.connected_at = connected_at
        """The loop's clock when a connection was ready."""
        self.read: Callable[[], Awaitable[bytes]] = protocol.piece
        """Waits for what has come of the body since the last call; empty at its end. Raises UpstreamError."""
        self.pump: Callable[[Callable[[bytes], bool]], Awaitable[None]] = protocol.pump
        """Hands each piece to a function as it comes, until that returns False or the body ends. Raises UpstreamError."""

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read, so that `read` would return at once with nothing."""
        return self._protocol.ended and not self._protocol.has_pieces

    @property
    def waiting(self) -> bool:
        """Whether a piece of the body, or its end, is there already."""
        return self._protocol.ended or self._protocol.has_pieces

    async def ends_within(self, seconds: float) -> bool:
        """Whether the upstream ends the body within this time, in order or not; nothing is read."""
        try:
            async with asyncio.timeout(seconds):
                await self._protocol.end()
        except TimeoutError:
            return False
        except UpstreamError:
            return True
        return True

    def close(self) -> None:
        """Give the connection back to the pool if the body has ended, else cut it, which cancels the upstream."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.give_back(self._key, self._protocol)


class _Pool(aiohttp.TCPConnector):
    """aiohttp's pool of connections (DNS, TLS, proxies, reuse), with our reader on each of them."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self._factory = partial(ResponseProtocol, loop=named["loop"])  # type: ignore[assignment]
        self.public_only: set[tuple[str, int]] = set()
        """Hosts and ports that may not lead to a private address."""

    async def _resolve_host(self, host: str, port: int, traces: Sequence[Trace] | None = None) -> list[ResolveResult]:
        """The addresses that may be connected to: what was looked up is what is used, so no second answer slips in."""
        found = await super()._resolve_host(host, port, traces)
        if (host, port) not in self.public_only:
            return found
        public = [one for one in found if _is_public(one["host"])]
        if not public:
            raise _PrivateAddress(f"{host} leads to a private address")
        return public

    async def take(self, recipe: _Recipe, connect_s: float) -> ResponseProtocol:
        """A connection, one that waits or a new one within that time; it is given back with `give_back`. Raises what aiohttp
        does."""
        # What `connect` does for one that waits, without the objects that it makes around each use.
        waiting = self._conns.get(recipe.key)
        if waiting is not None:
            oldest = time.monotonic() - POOL_IDLE_S
            while waiting:
                protocol, since = waiting.popleft()
                if not waiting:
                    del self._conns[recipe.key]
                if since >= oldest and protocol.is_connected() and isinstance(protocol, ResponseProtocol):
                    self._acquired.add(protocol)
                    return protocol
                protocol.close()
        connection = await self.connect(recipe.request, [], aiohttp.ClientTimeout(connect=connect_s, ceil_threshold=1e9))
        taken = connection.protocol
        if not isinstance(taken, ResponseProtocol) or taken.transport is None:
            connection.close()
            raise aiohttp.ServerDisconnectedError("the connection was closed")
        # It belongs to the pool's set of those in use; the object that would give it back when it is forgotten does not.
        connection._protocol = None
        return taken

    def give_back(self, key: ConnectionKey, protocol: ResponseProtocol) -> None:
        """Keep the connection for the next request if its answer has ended in order, else cut it."""
        self._release(key, protocol)

    def cut(self, key: ConnectionKey, protocol: ResponseProtocol) -> None:
        self._release(key, protocol, should_close=True)


class _PrivateAddress(aiohttp.ClientError):
    """A name leads to addresses that are not allowed."""


def _is_public(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global and not address.is_multicast


class _Recipe(Struct, frozen=True):
    """How to reach one upstream; made once."""

    name: str
    """How errors call it."""
    key: ConnectionKey
    """How the pool calls connections to it."""
    request: ClientRequest
    """What the pool must know to connect; never sent itself."""
    prefix: str
    """What stands before the API's path in a request line."""
    proxy_credential: bytes | None
    """For a proxy that reads the requests themselves; a tunnel's is sent when it is opened."""


def _proxy_of_environment(url: URL) -> str | None:
    """The proxy that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name for an address."""
    if url.host is None or urllib.request.proxy_bypass(url.host):
        return None
    return urllib.request.getproxies().get(url.scheme)


class UpstreamTransport(httpx.AsyncBaseTransport):
    """Sends requests to upstreams over one pool of connections."""

    def __init__(self, *, max_connections: int = 1_000, only_to: str | None = None) -> None:
        """`only_to` is an address, `http://HOST:PORT`, that every upstream is reached at: then nothing goes anywhere else."""
        self._max_connections = max_connections
        self._only_to = only_to
        self._connector: _Pool | None = None
        self._recipes: dict[str, _Recipe] = {}

    async def send(self, upstream: Upstream, method: str, target: bytes, headers: RawHeaders, body: bytes) -> UpstreamResponse:
        """Send one request and wait for the response's headers. `target` is the API's raw path with its query.

        `headers` go out as they are, after `host`; the caller has dropped hop-by-hop ones and `content-length`.
        Raises UpstreamError; cancelling it closes the connection.
        """
        recipe = self._recipes.get(upstream.name) or await self._prepare(upstream)
        connector = self._connector
        if connector is None:
            raise UpstreamUnreachable("luthien is shutting down")
        try:
            protocol = await connector.take(recipe, upstream.timeouts.connect_s)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            failure = _translate(error, upstream)
            failure.unsent = True
            raise failure from error
        connected_at = protocol.now()
        protocol.begin(recipe.name, without_body=method == "HEAD", first_byte_s=upstream.timeouts.first_byte_s)
        if recipe.proxy_credential is not None:
            headers = [*headers, (b"proxy-authorization", recipe.proxy_credential)]
        try:
            protocol.write(_request_bytes(method, recipe.prefix, target, upstream.host_header, headers, body))
            await protocol.head()
        except BaseException:
            connector.cut(recipe.key, protocol)
            raise
        protocol.limit_idle(upstream.timeouts.idle_s)
        return UpstreamResponse(connector, recipe.key, protocol, connected_at)

    async def _prepare(self, upstream: Upstream) -> _Recipe:
        """What the pool must know to connect: made once for each upstream, and never sent itself."""
        loop = asyncio.get_running_loop()
        if self._connector is None:
            self._connector = _Pool(limit=self._max_connections, keepalive_timeout=POOL_IDLE_S, ttl_dns_cache=60, loop=loop)
        elsewhere = self._only_to
        url = URL((elsewhere or upstream.base_url) + "/", encoded=True)
        proxy: URL | None = None
        if elsewhere is None:
            proxy = URL(upstream.proxy or await asyncio.to_thread(_proxy_of_environment, url) or "") or None
        credential: bytes | None = None
        if proxy is not None and proxy.user:
            credential = aiohttp.encode_basic_auth(proxy.user, proxy.password or "").encode("ascii")
            proxy = proxy.with_user(None)
        context: ssl.SSLContext | bool = True
        if upstream.ca_file and elsewhere is None:
            try:
                context = await asyncio.to_thread(ssl.create_default_context, cafile=upstream.ca_file)
            except (OSError, ssl.SSLError) as error:
                raise UpstreamTLSError(
                    f"the ca_file of upstream '{upstream.name}' cannot be read: {error}; give a PEM file"
                ) from error
        if not upstream.allow_private and proxy is None and elsewhere is None and url.host is not None and url.port is not None:
            self._connector.public_only.add((url.host, url.port))
        absolute = proxy is not None and url.scheme == "http"
        tunnel = {"Proxy-Authorization": credential.decode("ascii")} if credential and not absolute else None
        request = ClientRequest("GET", url, loop=loop, ssl=context, proxy=proxy, proxy_headers=tunnel)
        recipe = _Recipe(
            name=_name(upstream),
            key=request.connection_key,
            request=request,
            prefix=upstream.base_url if absolute else upstream.path_prefix if elsewhere is None else "",
            proxy_credential=credential if absolute else None,
        )
        self._recipes[upstream.name] = recipe
        return recipe

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The same for callers that speak httpx; `request.extensions["upstream"]` names the Upstream to use."""
        upstream: Upstream = request.extensions["upstream"]
        body = await request.aread()
        skipped = (b"host", b"content-length", b"transfer-encoding", b"connection")
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in skipped]
        response = await self.send(upstream, request.method, request.url.raw_path, headers, body)
        return httpx.Response(response.status, headers=response.headers, stream=_ResponseStream(response), request=request)

    async def aclose(self) -> None:
        connector, self._connector = self._connector, None
        self._recipes.clear()
        if connector is not None:
            await connector.close()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()


class _ResponseStream(httpx.AsyncByteStream):
    def __init__(self, response: UpstreamResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self._response.read():
            yield chunk

    async def aclose(self) -> None:
        self._response.close()


def _request_bytes(
    method: str, prefix: str, target: bytes, host: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> bytes:
    lines = [b"%b%b HTTP/1.1" % (_request_line_start(method, prefix), target), b"host: " + host, *map(b": ".join, headers)]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(b"content-length: %d" % len(body))
    lines += (b"", body)
    return b"\r\n".join(lines)


@lru_cache(maxsize=256)
def _request_line_start(method: str, prefix: str) -> bytes:
    return f"{method} {prefix}".encode("ascii")


def _name(upstream: Upstream) -> str:
    return f"upstream '{upstream.name}' ({upstream.base_url})"


def _translate(error: BaseException, upstream: Upstream) -> UpstreamError:
    """One of our errors for whatever went wrong while connecting, with the upstream's name and address and a remedy."""
    where = _name(upstream)
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        reason = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
        return UpstreamTLSError(f"TLS to {where} failed: {reason}; set its ca_file if it has a private authority")
    if isinstance(error, _PrivateAddress):
        return UpstreamUnreachable(f"{where} is not connected to: {error}; see its setting 'allow_private'")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return UpstreamUnreachable(f"the proxy refused the way to {where} with status {error.status}; check its settings")
    if isinstance(error, TimeoutError | aiohttp.ServerTimeoutError):
        limit = upstream.timeouts.connect_s
        return UpstreamTimeout(f"{where} was not reached within {limit:g} s; see 'routing.timeouts.connect_s'")
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error.strerror or error.os_error
        return UpstreamUnreachable(f"{where} cannot be reached: {reason}; is it running?")
    return UpstreamUnreachable(f"{where} cannot be reached: {error or type(error).__name__}")
