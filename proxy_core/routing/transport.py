"""The way to an upstream: request bytes out, response bytes in, over aiohttp's connection pool.

What is sent is exactly what the caller gives: no header is added but `host` and `content-length`, nothing is decoded,
no redirect is followed, no cookie kept. Failures become UpstreamError with a message that names the upstream, never a key.

`httpx` callers use `handle_async_request`; the gateway calls `send`, which does the same without httpx's types.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from types import TracebackType
from typing import Any

import aiohttp
import httpx
from aiohttp.client_reqrep import ClientRequest
from aiohttp.helpers import get_env_proxy_for_url
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from proxy_core.errors import UpstreamError, UpstreamInvalid, UpstreamTimeout, UpstreamTLSError, UpstreamUnreachable
from proxy_core.routing.upstreams import Upstream

RawHeaders = list[tuple[bytes, bytes]]

MAX_RESPONSE_HEADER_LINE = 64 * 1024
MAX_RESPONSE_HEADERS = 1_000
READ_BUFFER_BYTES = 256 * 1024
POOL_IDLE_S = 30.0
_EMPTY_STATUSES = frozenset({204, 304})


class UpstreamResponse:
    """A response whose body is still to come. Call `close` in every case; after a whole body the connection is kept."""

    __slots__ = ("_connection", "_stream", "_upstream", "connected_at", "headers", "status")

    def __init__(
        self,
        *,
        status: int,
        headers: RawHeaders,
        upstream: Upstream,
        connection: Any,
        stream: aiohttp.StreamReader | None,
        connected_at: float,
    ) -> None:
        self.status = status
        self.headers = headers
        """As received and in order, hop-by-hop headers included."""
        self.connected_at = connected_at
        """The loop's clock when a connection was ready."""
        self._upstream = upstream
        self._connection = connection
        self._stream = stream

    async def read(self) -> bytes:
        """The next piece of the body as it arrived; empty at its end. Raises UpstreamError."""
        stream = self._stream
        if stream is None:
            return b""
        try:
            return await stream.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError, TimeoutError) as error:
            raise _translate(error, self._upstream, "while it was answering") from error

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read already, so that `read` would return at once with nothing."""
        return self._stream is None or self._stream.at_eof()

    @property
    def waiting(self) -> bool:
        """Whether a piece of the body, or its end, is there already."""
        return self._stream is None or self._stream.total_bytes > 0 or self._stream.is_eof()

    async def ends_within(self, seconds: float) -> bool:
        """Whether the upstream ends the body within this time; nothing is read."""
        if self._stream is None:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._stream.wait_eof()
        except TimeoutError:
            return False
        except (aiohttp.ClientError, HttpProcessingError, OSError):
            return True
        return True

    def close(self) -> None:
        """Give the connection back to the pool if the body was read to its end, else cut it, which cancels the upstream."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._stream is None or self._stream.is_eof():
            connection.release()
        else:
            connection.close()


class UpstreamTransport(httpx.AsyncBaseTransport):
    """Sends requests to upstreams over one pool of connections."""

    def __init__(self, *, max_connections: int = 1_000) -> None:
        self._max_connections = max_connections
        self._connector: aiohttp.TCPConnector | None = None
        self._recipes: dict[str, tuple[ClientRequest, aiohttp.ClientTimeout, bool]] = {}

    async def send(self, upstream: Upstream, method: str, target: bytes, headers: RawHeaders, body: bytes) -> UpstreamResponse:
        """Send one request and wait for the response's headers. `target` is the API's raw path with its query.

        `headers` go out as they are, after `host`; the caller has dropped hop-by-hop ones and `content-length`.
        Raises UpstreamError; cancelling it closes the connection.
        """
        recipe, timeout, absolute = self._recipes.get(upstream.name) or await self._prepare(upstream)
        connector = self._connector
        if connector is None:
            raise UpstreamUnreachable("luthien is shutting down")
        try:
            connection = await connector.connect(recipe, [], timeout)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _translate(error, upstream, "to connect") from error
        loop = asyncio.get_running_loop()
        connected_at = loop.time()
        try:
            protocol = connection.protocol
            transport = connection.transport
            if protocol is None or transport is None:
                raise UpstreamUnreachable(f"upstream '{upstream.name}' closed the connection")
            protocol.set_response_params(
                skip_payload=method == "HEAD",
                read_until_eof=True,
                auto_decompress=False,
                read_timeout=upstream.timeouts.first_byte_s,
                read_bufsize=READ_BUFFER_BYTES,
                max_line_size=MAX_RESPONSE_HEADER_LINE,
                max_field_size=MAX_RESPONSE_HEADER_LINE,
                max_headers=MAX_RESPONSE_HEADERS,
            )
            prefix = upstream.base_url if absolute else upstream.path_prefix
            transport.write(_request_bytes(method, prefix, target, upstream.host_header, headers, body))
            protocol.start_timeout()
            message, stream = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:
                message, stream = await protocol.read()
            if message.code == 101:
                raise UpstreamInvalid(f"upstream '{upstream.name}' switched protocols without being asked")
            protocol.read_timeout = upstream.timeouts.idle_s
            if not stream.is_eof():
                protocol.start_timeout()
        except (aiohttp.ClientError, HttpProcessingError, OSError, TimeoutError) as error:
            connection.close()
            raise _translate(error, upstream, "before it answered") from error
        except BaseException:
            connection.close()
            raise
        empty = method == "HEAD" or message.code in _EMPTY_STATUSES
        return UpstreamResponse(
            status=message.code,
            headers=list(message.raw_headers),
            upstream=upstream,
            connection=connection,
            stream=None if empty else stream,
            connected_at=connected_at,
        )

    async def _prepare(self, upstream: Upstream) -> tuple[ClientRequest, aiohttp.ClientTimeout, bool]:
        """What the pool must know to connect: made once for each upstream, and never sent itself."""
        loop = asyncio.get_running_loop()
        if self._connector is None:
            self._connector = aiohttp.TCPConnector(
                limit=self._max_connections, keepalive_timeout=POOL_IDLE_S, ttl_dns_cache=60, loop=loop
            )
        url = URL(upstream.base_url + "/", encoded=True)
        proxy = URL(upstream.proxy) if upstream.proxy else None
        auth = None
        if proxy is None:
            try:
                proxy, auth = await asyncio.to_thread(get_env_proxy_for_url, url)
            except LookupError:
                pass
        elif proxy.user:
            auth = aiohttp.BasicAuth(proxy.user, proxy.password or "")
            proxy = proxy.with_user(None)
        context: ssl.SSLContext | bool = True
        if upstream.ca_file:
            try:
                context = await asyncio.to_thread(ssl.create_default_context, cafile=upstream.ca_file)
            except (OSError, ssl.SSLError) as error:
                raise UpstreamTLSError(
                    f"the ca_file of upstream '{upstream.name}' cannot be read: {error}; give a PEM file"
                ) from error
        recipe = ClientRequest("GET", url, loop=loop, ssl=context, proxy=proxy, proxy_auth=auth)
        timeout = aiohttp.ClientTimeout(connect=upstream.timeouts.connect_s, ceil_threshold=1e9)
        absolute = proxy is not None and url.scheme == "http"
        self._recipes[upstream.name] = (recipe, timeout, absolute)
        return self._recipes[upstream.name]

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
    parts = [_request_line_start(method, prefix), target, b" HTTP/1.1\r\nhost: ", host, b"\r\n"]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    if body or method in ("POST", "PUT", "PATCH"):
        parts.append(b"content-length: %d\r\n" % len(body))
    parts.append(b"\r\n")
    parts.append(body)
    return b"".join(parts)


@lru_cache(maxsize=256)
def _request_line_start(method: str, prefix: str) -> bytes:
    return f"{method} {prefix}".encode("ascii")


def _translate(error: BaseException, upstream: Upstream, when: str) -> UpstreamError:
    """One of our errors for whatever went wrong below, with the upstream's name and address and a remedy."""
    where = f"upstream '{upstream.name}' ({upstream.base_url})"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        reason = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
        return UpstreamTLSError(f"TLS to {where} failed: {reason}; set its ca_file if it has a private authority")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return UpstreamUnreachable(f"the proxy refused the way to {where} with status {error.status}; check its settings")
    if isinstance(error, TimeoutError | aiohttp.ServerTimeoutError):
        return UpstreamTimeout(f"{where} took too long {when}; the limits are under 'routing.timeouts'")
    if isinstance(error, aiohttp.ClientConnectorError):
        return UpstreamUnreachable(f"{where} cannot be reached: {error.os_error.strerror or error.os_error}; is it running?")
    if isinstance(error, HttpProcessingError):
        return UpstreamInvalid(f"{where} sent something that is not HTTP: {error.message.splitlines()[0][:200]}")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return UpstreamInvalid(f"{where} closed the connection {when}")
    if isinstance(error, aiohttp.ClientPayloadError):
        return UpstreamInvalid(f"{where} ended its answer in the middle")
    return UpstreamUnreachable(f"the connection to {where} was lost {when}: {error or type(error).__name__}")
