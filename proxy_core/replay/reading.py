"""Finds recordings in files and folders and reads them: luthien's and Cylestio's JSON lines, and HAR.

What kind a file is, its content tells. What cannot be read is a Problem with file and line, and reading goes on behind it; only
a path that does not exist is an error. Files may be gzipped. Everything is read once to know what is there and what is broken,
and each transaction again when its turn comes, so that a recording may be larger than memory.
"""

from __future__ import annotations

import gzip
import mmap
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Struct

from proxy_core.errors import ConfigurationError
from proxy_core.interceptors.recording_format import (
    Body,
    Error,
    Facts,
    PolicyCall,
    Record,
    Request,
    Response,
    UnreadableRecord,
    bytes_of,
    pairs_of,
    read_record,
)
from proxy_core.replay.exchanges import (
    Answered,
    AskedByPolicy,
    Exchange,
    RawHeaders,
    Recording,
    carried_over,
    check,
    usual_target,
)
from proxy_core.replay.har import exchanges_of_har
from proxy_core.replay.kept import Exchanges, FileSource, Kept, Spool, pack
from proxy_core.replay.pairing import Line, Pairing
from proxy_core.wire.encodings import UnreadableEncoding, decoded

NAMES = ("*.jsonl", "*.har", "*.jsonl.gz", "*.har.gz")
"""What is looked for in folders."""
CHANGED = "the recording was changed while it was replayed"
_CUT_BY_CYLESTIO = b"[TRUNCATED - size exceeds"
_NUMBERS = re.compile(r"(\d+)")


def read_recordings(paths: Sequence[Path], *, limit: int | None = None) -> Recording:
    """Everything that the files and folders hold, the first `limit` transactions of it. Raises ConfigurationError."""
    found, spool = Recording(problems=[]), Spool()
    kept: list[Kept] = []
    for path in paths:
        pairing = Pairing()
        for file in _files(path):
            _read_file(file, pairing, found, spool, kept)
        sound = (pair for pair in pairing.pairs if not pair.is_broken)
        kept.extend(_Lines(pair.asked, pair.ended, pair.started_at, pair.is_answered) for pair in sound)
        found.guessed += pairing.guessed
    kept.sort(key=lambda one: one.started_at or 0.0)
    if limit is not None:
        del kept[limit:]
    found.exchanges = Exchanges(kept)
    found.unanswered = sum(1 for one in kept if not one.is_answered)
    return found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted({file for name in NAMES for file in path.rglob(name) if file.is_file()}, key=_in_order)
        if not files:
            raise ConfigurationError(f"there is no recording in {path}: no file is named {', '.join(NAMES)}")
        return files
    if not path.exists():
        raise ConfigurationError(f"there is no recording at {path}")
    return [path]


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Numbers in names by their value: `recording_2` before `recording_10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _NUMBERS.split(str(path))]


def _read_file(file: Path, pairing: Pairing, found: Recording, spool: Spool, kept: list[Kept]) -> None:
    try:
        with _opened(file) as opened:
            if _is_har(opened):
                kept.extend(pack(one, spool) for one in exchanges_of_har(_whole(opened, file), str(file), found))
                return
            opened.seek(0)
            source = spool if file.suffix == ".gz" else FileSource(file)
            for line, record in _records(opened, str(file), source, found):
                _take(line, record, pairing, found)
    except (OSError, EOFError, zlib.error) as error:
        found.trouble(str(file), f"cannot be read: {getattr(error, 'strerror', None) or error}")


def _opened(file: Path) -> IO[bytes]:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")  # type: ignore[return-value]


def _whole(opened: IO[bytes], file: Path) -> bytes | mmap.mmap:
    opened.seek(0)
    return opened.read() if file.suffix == ".gz" else mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


def _is_har(opened: IO[bytes]) -> bool:
    """A HAR is one object with `log`; a line of ours or Cylestio's has its `type` first."""
    head = opened.read(4_096).lstrip(b"\xef\xbb\xbf \t\r\n")
    return re.match(rb'\{\s*"log"\s*:', head) is not None


def _records(opened: IO[bytes], file: str, source: FileSource | Spool, found: Recording) -> Iterator[tuple[Line, Record]]:
    start = 0
    for number, raw in enumerate(opened, 1):
        if raw.strip():
            begins = start if isinstance(source, FileSource) else source.add(raw)
            line = Line(file, number, source, begins, len(raw))
            try:
                yield line, read_record(raw)
            except UnreadableRecord as error:
                found.trouble(line.where, f"this line is no record: {error}")
        start += len(raw)


def _take(line: Line, record: Record, pairing: Pairing, found: Recording) -> None:
    """Tie a record to the others, and see whether it can be used; it is read again when its turn comes."""
    pair = pairing.take(line, record)
    if isinstance(pair, str):
        found.trouble(line.where, pair)
        return
    try:
        if isinstance(record, Request):
            check(_exchange(record, line.where))
        else:
            ended = Exchange(where="", kind="", method="GET", target=b"/", headers=[], body=b"")
            _add_end(ended, record)
            check(ended)
            pair.is_answered = ended.client is not None or ended.upstream is not None or bool(ended.fault)
    except ValueError as error:
        found.trouble(line.where, str(error))
        pair.is_broken = True


class _Lines(Struct, frozen=True):
    """An exchange in the lines of its file."""

    asked: Line
    ended: Line | None
    started_at: float | None
    is_answered: bool

    def load(self) -> Exchange:
        line = self.asked
        try:
            asked = read_record(line.source.read(line.start, line.size))
            if isinstance(asked, Request):
                exchange = _exchange(asked, line.where)
                if self.ended is not None:
                    line = self.ended
                    _add_end(exchange, read_record(line.source.read(line.start, line.size)))
                return exchange
            why = CHANGED
        except ValueError:
            why = CHANGED
        except OSError as error:
            why = f"the recording cannot be read any more: {error.strerror or error}"
        return Exchange(where=line.where, kind="", method="", target=b"", headers=[], body=b"", lost=why)


# --- records as exchanges ---


def _add_end(exchange: Exchange, record: Record) -> None:
    if isinstance(record, Response):
        _add_response(exchange, record)
    elif isinstance(record, Error):
        _add_error(exchange, record)


def _exchange(asked: Request, where: str) -> Exchange:
    path, query = asked.path, asked.query
    if not path:
        parts = urlsplit(asked.url)  # raises ValueError
        path, query = parts.path, parts.query
    if not asked.format:
        path = quote(path, safe="/%:@!$&'()*+,;=~-._")  # Cylestio writes it decoded
    target = path.encode("latin-1", "replace") + (b"?" + query.encode("latin-1", "replace") if query else b"")
    body = bytes_of(asked.body)
    return Exchange(
        where=where,
        kind="luthien" if asked.format else "cylestio",
        transaction_id=asked.transaction_id,
        method=asked.method if asked.format else asked.method.upper(),
        target=usual_target(target),
        headers=pairs_of(asked.headers, asked.header_list),
        body=body,
        started_at=asked.start_time,
        session_id=asked.session_id or "",
        provider=asked.provider or "",
        model=asked.model or "",
        stream=bool(asked.is_streaming),
        redacted=(redacted := _redacted(asked)),
        body_redacted="body" in redacted,
        cut=_is_cut(asked.body, body),
    )


def _redacted(record: Request | Response) -> tuple[str, ...]:
    named = list(record.redacted)
    if record.body is not None and record.body.redacted and "body" not in named:
        named.append("body")
    if not record.format and any(value == "[REDACTED]" for value in record.headers.values()):
        named.append("headers")
    return tuple(named)


def _is_cut(body: Body | None, content: bytes) -> bool:
    return (body is not None and body.truncated) or content.startswith(_CUT_BY_CYLESTIO)


def _add_response(exchange: Exchange, record: Response) -> None:
    body = bytes_of(record.body)
    headers = pairs_of(record.headers, record.header_list)
    cut = _is_cut(record.body, body)
    client = Answered(
        status=record.status_code, headers=readable(headers, body), body=body, duration_ms=record.duration_ms, complete=not cut
    )
    exchange.client = client
    exchange.facts = record.facts
    exchange.cut = exchange.cut or cut
    exchange.redacted = tuple(dict.fromkeys((*exchange.redacted, *_redacted(record))))
    client.redacted = "body" in _redacted(record)
    if not record.format:
        exchange.upstream = client
        return
    exchange.calls = tuple(_call(one) for one in record.calls)
    said = record.upstream
    if said is not None:
        own = said.body is not None
        said_body = bytes_of(said.body) if own else body
        exchange.upstream = Answered(
            status=said.status_code or record.status_code,
            headers=readable(pairs_of(said.headers, said.header_list) or headers, said_body),
            body=said_body,
            chunks=list(record.chunks),
            duration_ms=record.duration_ms,
            complete=said.complete,
            redacted=said.body.redacted if said.body is not None else client.redacted,
        )
        if own:
            exchange.upstream.chunks = carried_over(record.chunks, len(body), exchange.upstream)
        exchange.upstream_api = said.api
        exchange.cut = exchange.cut or _is_cut(said.body, said_body)
    elif record.facts is not None:
        explain_without_upstream(exchange, record.facts)


def _call(call: PolicyCall) -> AskedByPolicy:
    body = bytes_of(call.body)
    headers = readable(pairs_of(call.headers, call.header_list), body)
    return AskedByPolicy(
        upstream=call.upstream,
        target=call.target.encode("latin-1", "replace"),
        body=bytes_of(call.request),
        answer=Answered(status=call.status_code, headers=headers, body=body, redacted=call.body.redacted),
    )


def _add_error(exchange: Exchange, record: Error) -> None:
    exchange.facts = record.facts
    if record.facts is not None and record.facts.outcome != "error":
        return
    exchange.fault = record.error_message or record.error_type or "the upstream did not answer"
    exchange.fault_code = record.error_type
    exchange.fault_status = 504 if "timeout" in record.error_type.lower() else 502


def explain_without_upstream(exchange: Exchange, facts: Facts) -> None:
    """What stands behind an answer that came from no upstream, as far as luthien itself recorded: a failure of the upstream's.

    An answer that a policy got itself stands for the upstream's."""
    client = exchange.client
    if client is None:
        return
    if facts.outcome == "error" and client.status >= 500:
        exchange.fault_status = client.status
        exchange.fault_code, message = error_words(client.body)
        exchange.fault = message or facts.error or "the upstream did not answer"
    elif facts.outcome == "ok" and facts.upstream:
        exchange.upstream = client


def error_words(body: bytes) -> tuple[str, str]:
    """Code and message of an error body, whatever its dialect; empty where it has none."""
    try:
        error = msgspec.json.decode(body).get("error")
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
        return "", ""
    if isinstance(error, str):
        return "", error
    if not isinstance(error, dict):
        return "", ""
    code, message = error.get("code"), error.get("message")
    return code if isinstance(code, str) else "", message if isinstance(message, str) else ""


def readable(headers: RawHeaders, body: bytes) -> RawHeaders:
    """The headers of a body as it was recorded: without a content encoding that the recorder has undone."""
    encoding = next((value for name, value in headers if name == b"content-encoding"), b"")
    if not encoding or not body:
        return headers
    try:
        decoded(body, encoding.decode("latin-1"), 1)
    except UnreadableEncoding:
        return [one for one in headers if one[0] != b"content-encoding"]
    return headers
