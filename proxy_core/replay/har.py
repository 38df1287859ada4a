"""Reads HAR 1.2, as browsers and devtools export it: the entries that are requests of an API which luthien knows.

A HAR has bodies without their content encoding, and times of phases only, no pieces; streams are cut between their events.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from mmap import mmap
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from proxy_core.interceptors.recording_format import UnreadableRecord
from proxy_core.replay.exchanges import Answered, Exchange, RawHeaders, Recording, check
from proxy_core.wire.dialects import Operation, UnsafePath, find_endpoint

_BOM = b"\xef\xbb\xbf"
_NOT_TRUE_OF_BODY = (b"content-encoding", b"content-length", b"transfer-encoding")


class _Log(Struct):
    entries: list[Raw]


class _Har(Struct):
    log: _Log


def exchanges_of_har(content: bytes | mmap, file: str, found: Recording) -> Iterator[Exchange]:
    """What a HAR holds, one at a time; a broken entry is a problem that names its number."""
    whole = memoryview(content)
    try:
        entries = msgspec.json.decode(whole[3:] if whole[:3] == _BOM else whole, type=_Har).log.entries
    except msgspec.ValidationError:
        found.trouble(file, "this HAR has no list of entries under 'log'")
        return
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        found.trouble(file, f"this HAR is no JSON: {error}")
        return
    for number, raw in enumerate(entries, 1):
        where = f"{file}: entry {number}"
        try:
            exchange = _exchange(msgspec.json.decode(raw), where)
            if exchange is not None:
                check(exchange)
        except (msgspec.DecodeError, RecursionError, TypeError, ValueError) as error:
            found.trouble(where, f"this entry cannot be read: {error}")
            continue
        if exchange is None:
            found.others += 1
        else:
            yield exchange


def _exchange(entry: Any, where: str) -> Exchange | None:
    """One entry; None where it is no request of an API. Raises UnreadableRecord, TypeError, ValueError."""
    request = _get(entry, "request")
    if not isinstance(request, dict):
        raise UnreadableRecord("it has no request")
    url = urlsplit(_text(request.get("url")))
    path = _api_path(url.path)
    if path is None or request.get("method") == "OPTIONS":
        return None
    body = _posted(request.get("postData"))
    target = path + (f"?{url.query}" if url.query else "")
    return Exchange(
        where=where,
        kind="har",
        method=_text(request.get("method")).upper() or "GET",
        target=target.encode("latin-1", "replace"),
        headers=_headers(request.get("headers")),
        body=body,
        started_at=_unix(_text(entry.get("startedDateTime"))),
        model=_text(_get(_json(body), "model")),
        stream=_get(_json(body), "stream") is True,
        upstream=(said := _answer(entry)),
        client=said,
    )


def _api_path(path: str) -> str | None:
    """The part of a URL's path that begins an API's own path; None where there is none that luthien reads."""
    for start in ("/v1/", "/api/"):
        at = path.find(start)
        while at >= 0:
            candidate = path[at:]
            try:
                endpoint = find_endpoint(candidate, False, ())
            except UnsafePath:
                return None
            if endpoint is not None and endpoint.operation is not Operation.OTHER:
                return candidate
            at = path.find(start, at + 1)
    return None


def _posted(posted: Any) -> bytes:
    if not isinstance(posted, dict):
        return b""
    text = _text(posted.get("text"))
    return _from_base64(text) if posted.get("encoding") == "base64" else text.encode("utf-8", "surrogatepass")


def _answer(entry: Mapping[str, Any]) -> Answered | None:
    response = entry.get("response")
    if not isinstance(response, dict):
        return None
    status = response.get("status")
    if not isinstance(status, int) or status < 100:
        return None  # the browser gave up
    content = response.get("content")
    content = content if isinstance(content, dict) else {}
    text = _text(content.get("text"))
    body = _from_base64(text) if content.get("encoding") == "base64" else text.encode("utf-8", "surrogatepass")
    headers = [one for one in _headers(response.get("headers")) if one[0] not in _NOT_TRUE_OF_BODY]
    if not any(name == b"content-type" for name, _ in headers) and content.get("mimeType"):
        headers.append((b"content-type", _text(content["mimeType"]).encode("latin-1", "replace")))
    elapsed = entry.get("time")
    return Answered(
        status=status,
        headers=headers,
        body=body,
        duration_ms=float(elapsed) if isinstance(elapsed, int | float) and elapsed >= 0 else None,
    )


def _headers(listed: Any) -> RawHeaders:
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        return []
    pairs = [(_text(_get(one, "name")), _text(_get(one, "value"))) for one in listed]
    return [
        (name.lower().encode("latin-1", "replace"), value.encode("utf-8", "replace"))
        for name, value in pairs
        if name and not name.startswith(":")
    ]


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise UnreadableRecord(f"its content is not base64: {error}") from error


def _unix(moment: str) -> float | None:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
