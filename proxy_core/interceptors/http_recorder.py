"""`http_recorder`: requests and answers as they were, for replay, in the lines of `recording_format`.

The transaction's id ties the lines of a request and its answer, streams keep the time of every chunk, and what is no text is
base64. A new file begins after so many lines and at each start of luthien; two processes never share one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field

from proxy_core.interceptors import files
from proxy_core.interceptors import recording_format as recording
from proxy_core.interceptors.base import Begun, Config, Finished, Interceptor, RawHeaders, timestamp_of
from proxy_core.interceptors.surroundings import Surroundings
from proxy_core.journal.said import plain
from proxy_core.policy_services import Call
from proxy_core.verdicts import Verdict
from proxy_core.wire.encodings import UnreadableEncoding, decoded
from proxy_core.wire.headers import value_of

_NAME = re.compile(r"recording_(\d{1,9})\.jsonl")


class HttpRecorderConfig(Config):
    output_dir: str = "./http_recordings"
    """Folder of the files, from the working folder."""
    max_events_per_file: int = Field(default=100, ge=1, le=10_000_000)
    """Lines of one file."""
    include_headers: bool = True
    """Whether headers are recorded."""
    include_timing: bool = True
    """Whether times are recorded, those of the chunks of streams among them."""
    max_body_size_mb: float = Field(default=100, ge=0, le=10_000)
    """Largest body recorded, in MB of 1,048,576 bytes; of a larger one the beginning."""
    redact_sensitive_headers: bool = True
    """Whether all headers that carry credentials are blanked; the credentials of the request itself always are."""


class HttpRecorder(Interceptor[HttpRecorderConfig]):
    """Records traffic for replay."""

    config_model = HttpRecorderConfig
    times_chunks = True

    def __init__(self, config: HttpRecorderConfig, surroundings: Surroundings) -> None:
        super().__init__(config, surroundings)
        self._folder = Path(config.output_dir).expanduser().absolute()
        self._max_bytes = int(config.max_body_size_mb * 1_048_576)
        self._lines: list[bytes] = []
        self._file: Path | None = None
        self._in_file = 0
        self._number = 0
        """Of the latest file."""

    def begun(self, begun: Begun) -> None:
        redacted: list[str] = []
        query = begun.shown_query
        if query and query.encode("latin-1") != begun.query:
            redacted.append("query")
        named, listed, body = self._parts(begun, begun.headers, begun.body, begun.shown_body, len(begun.body), redacted)
        path = begun.path
        target = f"{path}?{query}" if query else path
        timing = self.config.include_timing
        self._add(
            recording.Request(
                format=recording.FORMAT,
                transaction_id=begun.transaction_id,
                timestamp=timestamp_of(begun.started_at),
                method=begun.method,
                url=f"http://{named.get('host', 'localhost')}{target}",
                path=path,
                query=query or None,
                headers=named,
                header_list=listed,
                body=body,
                session_id=begun.session_id or None,
                provider=begun.dialect or None,
                model=begun.model or None,
                is_streaming=begun.stream,
                start_time=begun.started_at if timing else None,
                redacted=redacted,
            )
        )

    def finished(self, finished: Finished) -> None:
        begun, timing = finished.begun, self.config.include_timing
        duration, end = (finished.total_ms, finished.finished_at) if timing else (None, None)
        if finished.status is None:
            self._add(
                recording.Error(
                    format=recording.FORMAT,
                    transaction_id=begun.transaction_id,
                    timestamp=timestamp_of(finished.finished_at),
                    error_type=finished.outcome,
                    error_message=finished.error,
                    method=begun.method,
                    path=begun.path,
                    duration_ms=duration,
                    end_time=end,
                    facts=_facts(finished),
                )
            )
            return
        redacted: list[str] = []
        sizes = finished.body, finished.shown_body, finished.body_bytes
        named, listed, body = self._parts(begun, finished.headers, *sizes, redacted)
        self._add(
            recording.Response(
                format=recording.FORMAT,
                transaction_id=begun.transaction_id,
                timestamp=timestamp_of(finished.finished_at),
                status_code=finished.status,
                headers=named,
                header_list=listed,
                body=body,
                duration_ms=duration,
                end_time=end,
                chunks=finished.arrivals if timing else [],
                upstream=self._upstream(finished, named, listed),
                calls=[self._call(begun, one) for one in finished.calls],
                facts=_facts(finished),
                redacted=redacted,
            )
        )

    def flush(self, now: float) -> None:
        lines, self._lines = self._lines, []
        while lines:
            room = self.config.max_events_per_file - self._in_file
            try:
                if self._file is None or room <= 0:
                    self._file, self._in_file = self._begin_file(), 0
                    room = self.config.max_events_per_file
                files.append(self._file, b"".join(lines[:room]))
            except OSError:
                self.dropped += len(lines)
                raise
            self._in_file += min(room, len(lines))
            lines = lines[room:]

    def close(self) -> None:
        self.flush(0.0)

    def _add(self, record: recording.Record) -> None:
        self._lines.append(recording.write_record(record))

    def _begin_file(self) -> Path:
        """Make the next file. Raises OSError."""
        if not self._number:  # looked for once: a folder may have many files
            files.private_folder(self._folder)
            taken = [int(found[1]) for one in self._folder.iterdir() if (found := _NAME.fullmatch(one.name))]
            self._number = max(taken, default=0)
        while True:
            self._number += 1
            file = self._folder / f"recording_{self._number:03d}.jsonl"
            try:
                files.create(file, b"")
            except FileExistsError:
                continue  # of another process
            return file

    def _parts(
        self, begun: Begun, headers: RawHeaders, raw: bytes, body: bytes, size: int, redacted: list[str]
    ) -> tuple[dict[str, str], list[tuple[str, str]] | None, recording.Body]:
        """Headers in two forms and body as they may be written; `redacted` gets the names of those that differ. `raw` is the
        body as it was, `body` what of it may be written."""
        encoding = value_of(headers, b"content-encoding")
        if encoding and encoding != "identity" and (readable := _decoded(raw, encoding)) is not None:
            clean = begun.redacted(readable)
            if clean != readable:
                # What is taken out cannot be encoded again as it was: the body stands here without its encoding.
                body = clean
                headers = [one for one in headers if one[0] not in (b"content-encoding", b"content-length")]
        changed = body is not raw and body != raw
        if changed:
            redacted.append("body")
        cut = body[: self._max_bytes]
        full = size if not changed or size > len(raw) else len(body)
        shown, hidden = self._headers(begun, headers)
        if hidden:
            redacted.append("headers")
        return *recording.named_and_listed(shown), recording.body_of(cut, size=full, redacted=changed and len(cut) == len(body))

    def _headers(self, begun: Begun, headers: RawHeaders) -> tuple[list[tuple[str, str]], bool]:
        """Headers as they may be written, and whether something was taken out."""
        if not self.config.include_headers:
            return [], False
        if self.config.redact_sensitive_headers:
            return begun.shown_headers(headers)
        clean = [(name, begun.redacted(value)) for name, value in headers]
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in clean], clean != headers

    def _call(self, begun: Begun, call: Call) -> recording.PolicyCall:
        came = call.response
        # Headers of an upstream hold no credentials of the client's, but may repeat them.
        named, listed = recording.named_and_listed(begun.shown_headers(came.headers)[0] if self.config.include_headers else [])
        return recording.PolicyCall(
            upstream=call.upstream,
            target=begun.redacted(call.target).decode("latin-1"),
            request=self._clean(begun, call.body),
            status_code=came.status,
            headers=named,
            header_list=listed,
            body=self._clean(begun, came.body),
        )

    def _clean(self, begun: Begun, raw: bytes) -> recording.Body:
        clean = begun.redacted(raw)
        return recording.body_of(clean[: self._max_bytes], size=len(clean), redacted=clean != raw)

    def _upstream(
        self, finished: Finished, named: dict[str, str], listed: list[tuple[str, str]] | None
    ) -> recording.UpstreamAnswer | None:
        if not finished.upstream_answered or (finished.error and not finished.arrivals):
            return None
        body = None
        if finished.upstream_body is not None:
            came = finished.begun.redacted(finished.upstream_body)
            cut = came[: self._max_bytes]
            body = recording.body_of(cut, size=len(came), redacted=came != finished.upstream_body)
        return recording.UpstreamAnswer(
            name=finished.upstream,
            api=finished.begun.dialect if finished.translated else finished.upstream_api,
            status_code=finished.upstream_status or finished.status or 0,
            headers=named,
            header_list=listed,
            body=body,
            complete=finished.complete,
        )


def _facts(finished: Finished) -> recording.Facts:
    begun = finished.begun
    return recording.Facts(
        outcome=finished.outcome,
        verdict=finished.verdict,
        verdicts=[_verdict(begun, one) for one in finished.verdicts],
        session_id=begun.session_id,
        agent=begun.agent,
        upstream=finished.upstream,
        reason=finished.reason,
        model=finished.model,
        input_tokens=finished.input_tokens,
        output_tokens=finished.output_tokens,
        cached_tokens=finished.cached_tokens,
        reasoning_tokens=finished.reasoning_tokens,
        estimated=finished.estimated,
        cost_usd=finished.cost_usd,
        stop_reason=finished.stop_reason,
        tool_calls=finished.tool_calls,
        error=finished.error or finished.answer_error,
    )


def _verdict(begun: Begun, one: Verdict) -> recording.RecordedVerdict:
    detail: Any = plain(one.detail, begun.redacted_text)
    return recording.RecordedVerdict(
        policy=str(one.policy),
        stage=str(getattr(one.stage, "value", one.stage)),
        action=str(one.action),
        reason=str(getattr(one.reason, "value", one.reason)),
        mode=str(one.mode),
        ran=str(one.ran),
        message=begun.redacted_text(one.message),
        score=one.score,
        detail=detail if isinstance(detail, dict) else {},
    )


def _decoded(raw: bytes, encoding: str) -> bytes | None:
    try:
        return decoded(raw, encoding)
    except UnreadableEncoding:
        return None
