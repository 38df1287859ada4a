"""Private authorities, proxies and their failures: the way to an upstream is what the settings say, or a clear error."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Certificate, make_certificate
from tests.conftest import StartGateway
from tests.fault_upstream import FaultUpstream
from tests.gateway.asking import CHAT, ONE_OF_EACH_DIALECT, Asking, error_message, name_of
from tests.gateway_fixtures import RunningGateway
from tests.raw_http import RawResponse
from tests.tiny_proxy import TinyProxy


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def only(asking: Asking, url: str, **more: Any) -> dict[str, Any]:
    return {"only": {"api": asking.dialect, "base_url": url, **more}}


async def ask(gateway: RunningGateway, asking: Asking = CHAT) -> RawResponse:
    return await gateway.ask("POST", asking.path, asking.bytes(stream=True), {"authorization": "Bearer sk-canary-key-12345"})


async def test_private_authority(start_gateway: StartGateway, certificate: Certificate) -> None:
    async with FaultUpstream(tls=certificate.server_context()) as upstream:
        gateway = await start_gateway(upstreams=only(CHAT, upstream.url, ca_file=str(certificate.authority)))
        response = await ask(gateway)
        assert (response.status, response.body) == (200, upstream.last.sent_body)


@pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
async def test_unknown_authority_is_502_and_nothing_is_sent(
    start_gateway: StartGateway, certificate: Certificate, asking: Asking
) -> None:
    async with FaultUpstream(tls=certificate.server_context()) as upstream:
        gateway = await start_gateway(upstreams=only(asking, upstream.url))
        response = await ask(gateway, asking)
        assert response.status == 502
        assert "ca_file" in error_message(response, asking.dialect)
        assert not upstream.exchanges
        row = await gateway.row()
        assert (row.outcome, row.status) == ("error", 502)


@pytest.mark.parametrize(("name", "days"), [("other.example", 2), ("localhost", -1)], ids=["other name", "expired"])
async def test_certificate_that_does_not_fit_is_502(start_gateway: StartGateway, tmp_path: Path, name: str, days: int) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    made = make_certificate(folder, name, days=days)
    async with FaultUpstream(tls=made.server_context()) as upstream:
        gateway = await start_gateway(upstreams=only(CHAT, upstream.url, ca_file=str(made.authority)))
        response = await ask(gateway)
        assert response.status == 502
        assert "TLS" in error_message(response, "openai")
        assert not upstream.exchanges


async def test_plain_upstream_where_tls_is_expected_is_502(start_gateway: StartGateway) -> None:
    heard = b""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += await reader.read(65_536)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        gateway = await start_gateway(upstreams=only(CHAT, url))
        assert (await ask(gateway)).status == 502
    assert heard
    assert b"sk-canary" not in heard


async def test_tls_upstream_where_none_is_expected_is_502(start_gateway: StartGateway, certificate: Certificate) -> None:
    async with FaultUpstream(tls=certificate.server_context()) as upstream:
        gateway = await start_gateway(upstreams=only(CHAT, upstream.url.replace("https://", "http://")))
        assert (await ask(gateway)).status == 502
        assert not upstream.exchanges


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_authority_that_cannot_be_read_is_502_with_the_remedy(
    start_gateway: StartGateway, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    gateway = await start_gateway(upstreams=only(CHAT, "https://localhost:1", ca_file=str(path)))
    response = await ask(gateway)
    assert response.status == 502
    assert "PEM" in error_message(response, "openai")


async def test_proxy_of_the_settings(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    async with TinyProxy() as proxy:
        gateway = await start_gateway(upstreams=only(CHAT, upstream.url, proxy=proxy.url))
        response = await ask(gateway)
        assert (response.status, response.body) == (200, upstream.last.sent_body)
        assert proxy.asked == [f"POST {upstream.url}/v1/chat/completions"]


async def test_proxy_with_a_password(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    async with TinyProxy() as proxy:
        gateway = await start_gateway(upstreams=only(CHAT, upstream.url, proxy=proxy.url.replace("//", "//user:pass@")))
        assert (await ask(gateway)).status == 200
        assert b"basic dXNlcjpwYXNz" in proxy.heads[0].replace(b"Basic", b"basic")


async def test_tunnel_to_a_tls_upstream(start_gateway: StartGateway, certificate: Certificate) -> None:
    async with TinyProxy() as proxy, FaultUpstream(tls=certificate.server_context()) as upstream:
        settings = only(CHAT, upstream.url, proxy=proxy.url, ca_file=str(certificate.authority))
        gateway = await start_gateway(upstreams=settings)
        response = await ask(gateway)
        assert (response.status, response.body) == (200, upstream.last.sent_body)
        assert proxy.asked == [f"CONNECT localhost:{upstream.port}"]
        assert b"sk-canary" not in proxy.heads[0]


async def test_proxies_of_the_environment(
    start_gateway: StartGateway, upstream: FaultUpstream, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with TinyProxy() as proxy, FaultUpstream(tls=certificate.server_context()) as secure:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        gateway = await start_gateway(upstreams=only(CHAT, upstream.url))
        assert (await ask(gateway)).status == 200
        gateway = await start_gateway(upstreams=only(CHAT, secure.url, ca_file=str(certificate.authority)))
        assert (await ask(gateway)).status == 200
        assert [line.split(" ")[0] for line in proxy.asked] == ["POST", "CONNECT"]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        gateway = await start_gateway(upstreams=only(CHAT, upstream.url))
        assert (await ask(gateway)).status == 200
        assert len(proxy.asked) == 2


async def test_proxy_that_refuses_is_502(start_gateway: StartGateway, certificate: Certificate) -> None:
    async with TinyProxy(refuse=407) as proxy, FaultUpstream(tls=certificate.server_context()) as upstream:
        gateway = await start_gateway(upstreams=only(CHAT, upstream.url, proxy=proxy.url))
        response = await ask(gateway)
        assert response.status == 502
        assert "407" in error_message(response, "openai")


async def test_proxy_that_is_not_there_is_502(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(upstreams=only(CHAT, upstream.url, proxy="http://user:canary-pass@127.0.0.1:9"))
    response = await ask(gateway)
    assert response.status == 502
    assert "canary-pass" not in error_message(response, "openai")
    assert not upstream.exchanges
