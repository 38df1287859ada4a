"""Keys that pass through luthien, or are configured in it, are in no file, log, metric or page of it."""

from __future__ import annotations

import base64
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import zstandard

from proxy_core import logs
from tests.conftest import StartGateway
from tests.fault_payloads import TEXT
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, MESSAGES, OLLAMA_CHAT, Asking
from tests.gateway_fixtures import RunningGateway

BEARER = "sk-proj-CANARYbearer0123456789abcdefghijklmnopqrstuv"
ANTHROPIC = "sk-ant-api03-CANARYanthropic0123456789abcdefghijklmnop-AA"
PLAIN = "CANARYplain-no-known-form-but-still-a-secret-77"
COOKIE = "CANARYcookie-0123456789abcdef"
IN_QUERY = "CANARYquery+key/0123456789"
CONFIGURED = "CANARYconfigured-0123456789abcdef"
CANARIES = [BEARER, ANTHROPIC, PLAIN, COOKIE, IN_QUERY, CONFIGURED]

HEADERS = [
    {"authorization": f"Bearer {BEARER}"},
    {"authorization": f"Bearer {PLAIN}"},
    {"authorization": f"Basic {base64.b64encode(f'user:{PLAIN}'.encode()).decode()}"},
    {"x-api-key": ANTHROPIC},
    {"x-api-key": PLAIN},
    {"api-key": PLAIN},
    {"x-goog-api-key": PLAIN},
    {"cookie": f"session={COOKIE}; other={PLAIN}"},
    {"proxy-authorization": f"Basic {PLAIN}"},
]


def forms(secret: str) -> Iterator[bytes]:
    """A secret in the forms that it could lie around in."""
    raw = secret.encode()
    yield raw
    yield quote(secret, safe="").encode()
    yield base64.b64encode(raw)[:-4].rstrip(b"=")
    yield raw.hex().encode()


@pytest.fixture
def every_log(gateway_folder: Path) -> Iterator[Path]:
    """All logging at its most talkative, in a file as the command writes it."""
    path = gateway_folder / "luthien.log"
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    logs.configure("DEBUG", logs.LogRing(), stderr=False, file=path)
    yield path
    for handler in [one for one in root.handlers if one not in before[1]]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(before[0])
    for handler in before[1]:
        if handler not in root.handlers:
            root.addHandler(handler)


@pytest.fixture
def gateway_folder(tmp_path: Path) -> Path:
    return tmp_path


def stored_bytes(folder: Path) -> bytes:
    """Everything in the folder: files as they are, and each value of the store unpacked."""
    found = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for path in folder.rglob("*.db"):
        with sqlite3.connect(path) as store:
            tables = [name for (name,) in store.execute("select name from sqlite_master where type = 'table'")]
            for table in tables:
                for row in store.execute(f"select * from {table}"):
                    found += [unpacked(value) for value in row if isinstance(value, bytes | str)]
        store.close()
    return b"\n".join(found)


def unpacked(value: bytes | str) -> bytes:
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    try:
        return data + zstandard.ZstdDecompressor().decompress(data[1:], max_output_size=1 << 24)
    except zstandard.ZstdError:
        return data


def assert_absent(where: str, data: bytes) -> None:
    for secret in CANARIES:
        for form in forms(secret):
            place = data.find(form)
            assert place < 0, f"{where} has {form!r}: …{data[max(0, place - 60) : place + len(form) + 20]!r}"


async def use(gateway: RunningGateway, upstream: FaultUpstream, *, pasted: bool) -> None:
    """Traffic with a key in every place where one can be."""
    for headers in HEADERS:
        for asking in (CHAT, MESSAGES, OLLAMA_CHAT):
            await gateway.ask("POST", asking.path, asking.bytes(), headers)
            upstream.faults.append(Fault(status=401, echo_key=True))
            await gateway.ask("POST", asking.path, asking.bytes(stream=True), headers)
            assert upstream.last.sent_body
    for name in ("key", "api_key", "access_token"):
        await gateway.ask("GET", f"/v1/models?{name}={quote(IN_QUERY, safe='')}&x=1")
        await gateway.ask("GET", f"/v1/models?x=1&{name}={IN_QUERY}")
    set_cookie = [("set-cookie", f"session={COOKIE}; HttpOnly"), ("x-api-key", PLAIN)]
    upstream.faults.append(Fault(headers=set_cookie))
    await gateway.ask("POST", CHAT.path, CHAT.bytes(), {"authorization": f"Bearer {PLAIN}"})
    for body in (f"Bearer {BEARER}", f"my key is {ANTHROPIC} ok?") if pasted else ():
        message = [{"role": "user", "content": body}]
        await gateway.ask("POST", CHAT.path, CHAT.bytes(messages=message))
    upstream.faults.append(Fault(reset_after=2))
    await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True), {"authorization": f"Bearer {PLAIN}"})
    upstream.faults.append(Fault(garbage=f"HTTP/1.1 {PLAIN}\r\n\r\n"))
    await gateway.ask("POST", CHAT.path, CHAT.bytes(), {"authorization": f"Bearer {PLAIN}"})
    await gateway.ask("GET", "/nowhere", headers={"authorization": f"Bearer {PLAIN}"})
    await gateway.ask("GET", "/v1/../x", headers={"x-api-key": PLAIN, "cookie": f"a={COOKIE}"})


@pytest.mark.parametrize("capture", ["full", "redacted", "metadata"])
async def test_no_sink_has_a_key(
    start_gateway: StartGateway, upstream: FaultUpstream, every_log: Path, capture: str, capfd: pytest.CaptureFixture[str]
) -> None:
    configured = {"api": "ollama", "base_url": upstream.url, "api_key": CONFIGURED}
    plain = {api: {"api": api, "base_url": upstream.url} for api in ("openai", "anthropic")}
    gateway = await start_gateway(journal={"capture": capture}, upstreams={**plain, "ollama": configured})
    await use(gateway, upstream, pasted=capture != "full")
    for path in ("/metrics", "/config", "/health", "/readyz"):
        page = await gateway.ask("GET", path)
        assert page.status == 200
        assert_absent(path, page.body)
    for row in await gateway.rows():
        detail = await gateway.plane.detail(row.transaction_id)
        assert detail is not None
        assert_absent("a detail's headers", repr((detail.request_headers, detail.response_headers, row)).encode())
        assert_absent("a detail's bodies", detail.request_body + detail.response_body)
    await gateway.stop()
    await gateway.runtime.wait_closed()
    assert every_log.exists()
    assert_absent("the log", every_log.read_bytes())
    out, err = capfd.readouterr()
    assert_absent("the terminal", (out + err).encode())
    stored = stored_bytes(gateway.data_dir)
    if capture != "metadata":
        assert b"Incorrect API key provided" in stored, "the search does not see what is stored"
    assert_absent("the data folder", stored)


async def test_metadata_capture_stores_nothing_that_was_said(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(journal={"capture": "metadata"})
    said = "Zanzibar-in-the-question"
    answered = "Timbuktu-in-the-error"
    message = [{"role": "user", "content": said}]
    for asking in (CHAT, MESSAGES, OLLAMA_CHAT):
        await gateway.ask("POST", asking.path, asking.bytes(messages=message))
        body = f'{{"type":"error","error":{{"type":"t","message":"{answered}"}}}}'
        upstream.faults.append(Fault(status=400, body=body))
        await gateway.ask("POST", asking.path, asking.bytes(messages=message))
    assert [row.status for row in await gateway.rows()] == [400, 200] * 3
    await gateway.stop()
    stored = stored_bytes(gateway.data_dir)
    for text in (said, answered, TEXT):
        assert text.encode() not in stored


async def test_live_rows_have_no_key(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    await use(gateway, upstream, pasted=True)
    for record in gateway.plane.events(0)[0]:
        assert_absent("the feed", repr(record.row).encode())


async def test_client_gets_the_key_that_the_record_leaves_out(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    for asking, headers in ((CHAT, {"authorization": f"Bearer {PLAIN}"}), (MESSAGES, {"x-api-key": ANTHROPIC})):
        upstream.faults.append(Fault(status=401, echo_key=True))
        await _ask_and_stop_at_the_key(gateway, asking, headers)


async def _ask_and_stop_at_the_key(gateway: RunningGateway, asking: Asking, headers: dict[str, str]) -> None:
    response = await gateway.ask("POST", asking.path, asking.bytes(), headers)
    key = next(iter(headers.values())).removeprefix("Bearer ")
    assert key.encode() in response.body, "the client still gets what the upstream said"
    detail = await gateway.detail()
    assert detail.redacted
    assert key.encode() not in detail.response_body


async def test_files_are_for_the_owner_alone(gateway: RunningGateway) -> None:
    await gateway.ask("POST", CHAT.path, CHAT.bytes())
    for path in gateway.data_dir.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_key_cut_by_chunk_boundaries_is_found(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    upstream.faults.append(Fault(insert={"1": f'data: {{"echo":"{PLAIN}"}}\n\n'}, drip=True))
    await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True), {"authorization": f"Bearer {PLAIN}"})
    detail = await gateway.detail()
    assert detail.redacted
    assert PLAIN.encode() not in detail.response_body


async def test_compressed_answer_with_a_key_is_kept_without_it(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    upstream.faults.append(Fault(status=401, echo_key=True, gzip=True))
    await gateway.ask("POST", CHAT.path, CHAT.bytes(), {"authorization": f"Bearer {PLAIN}", "accept-encoding": "gzip"})
    detail = await gateway.detail()
    assert_absent("the detail", detail.response_body)
    await gateway.stop()
    for path in gateway.data_dir.rglob("*.db"):
        with sqlite3.connect(path) as store:
            bodies = [unpacked(body) for (body,) in store.execute("select body from outcomes")]
        store.close()
        assert all(PLAIN.encode() not in _gunzipped(body) for body in bodies)


def _gunzipped(data: bytes) -> bytes:
    import gzip
    import zlib

    place = data.find(b"\x1f\x8b\x08")
    if place < 0:
        return data
    try:
        return data + zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data[place:])
    except (zlib.error, gzip.BadGzipFile):
        return data
