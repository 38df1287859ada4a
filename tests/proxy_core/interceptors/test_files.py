"""Files that interceptors write: private, whole lines, nothing torn."""

from __future__ import annotations

import json
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy_core.interceptors import files
from proxy_core.interceptors import recording_format as recording
from proxy_core.interceptors.base import Interceptor
from proxy_core.interceptors.event_recorder import EventRecorder, EventRecorderConfig, file_stem
from proxy_core.interceptors.events import Event, EventMaker
from proxy_core.interceptors.http_recorder import HttpRecorder, HttpRecorderConfig
from proxy_core.interceptors.message_logger import MessageLogger, MessageLoggerConfig
from proxy_core.interceptors.surroundings import Surroundings
from tests.proxy_core.interceptors.traffic import pair_for, sse

BODY = {"model": "m", "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]}
ANSWER = {
    "id": "c",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
}
KEY = "sk-proj-" + "a1B2c3D4" * 5


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Every file of this process ends at `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


_clock = count(10.0, 10.0)
"""Later at each look."""


def at(folder: Path) -> Surroundings:
    return Surroundings(data_dir=folder)


def give(one: Interceptor[Any], operation: str = "chat", body: Any = BODY, answer: Any = ANSWER, **more: Any) -> None:
    """One transaction, and its events."""
    outcome = more.pop("outcome", None)
    begun, finished = pair_for(operation, body, answer, outcome, **more)
    one.begun(begun)
    one.finished(finished)
    maker = EventMaker()
    one.events([*maker.events_of(begun), *maker.events_of(finished)])
    one.flush(next(_clock))


def lines_of(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}


def test_a_line_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "lines"
    files.append(file, b"x" * 900)
    assert modes(tmp_path / "a") == {0o700, 0o600}
    with largest_file(1_000), pytest.raises(OSError):
        files.append(file, b"y" * 200)
    assert file.read_bytes() == b"x" * 900
    file.chmod(0o644)
    files.append(file, b"z")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_document_grows_at_its_end_or_stays(tmp_path: Path) -> None:
    file = tmp_path / "doc"
    files.create(file, b"[1\n]}\n")
    assert files.replace_tail(file, b"\n]}\n", b",2\n]}\n")
    assert not files.replace_tail(file, b"\n}}\n", b"never")
    with largest_file(50), pytest.raises(OSError):
        files.replace_tail(file, b"\n]}\n", b"," + b"3" * 100 + b"\n]}\n")
    assert file.read_bytes() == b"[1,2\n]}\n"
    with pytest.raises(OSError):
        link = tmp_path / "link"
        link.symlink_to(file)
        files.append(link, b"x")


# --- message_logger ---


def test_conversations_are_logged_as_they_are_said(tmp_path: Path) -> None:
    one = MessageLogger(MessageLoggerConfig(directory=str(tmp_path / "m")), at(tmp_path))
    give(one, user="alice", tags=(("team", "sea"),), workflow="wf", parent_session="s-0")
    stream = sse(
        {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "yo"}, "finish_reason": "stop"}]}, done=True
    )
    give(one, body={**BODY, "stream": True}, answer=stream, number=2)
    give(one, answer={"error": {"message": "no", "code": "bad_model"}}, outcome={"status": 404, "outcome": "error"}, number=3)
    give(one, body=b'{\n "model": "m",\n "messages": []\n}', number=4)
    one.close()
    lines = lines_of(tmp_path / "m" / "message_log.jsonl")
    assert [line["direction"] for line in lines] == ["request", "response"] * 2 + ["request", "error"] + ["request", "response"]
    first, answered = lines[:2]
    assert first["request"] == BODY
    assert first["transaction_id"] == answered["transaction_id"]
    assert (first["session_id"], first["model"], first["provider"]) == ("s-1", "m", "openai")
    assert first["metadata"] == {
        "path": "/v1/chat/completions", "method": "POST", "is_streaming": False, "agent": "agent-1", "user": "alice",
        "workflow": "wf", "parent_session": "s-0", "tags": {"team": "sea"},
    }  # fmt: skip
    assert answered["response"] == ANSWER
    assert (answered["metadata"]["status_code"], answered["metadata"]["duration_ms"]) == (200, 250.0)
    assert lines[3]["response"]["raw_sse"] == stream.decode()
    assert lines[3]["response"]["content"] == [{"role": "assistant", "content": "yo"}]
    assert lines[5]["error"] == {"type": "bad_model", "message": "no"}
    assert modes(tmp_path / "m") == {0o700, 0o600}


def test_system_prompts_and_metadata_can_be_left_out(tmp_path: Path) -> None:
    config = MessageLoggerConfig(directory=str(tmp_path), filename="log", include_system_prompts=False, include_metadata=False)
    one = MessageLogger(config, at(tmp_path))
    give(one)
    give(one, operation="messages", body={"model": "c", "system": "Be kind.", "messages": BODY["messages"][1:]}, number=2)
    give(one, operation="responses", body={"model": "m", "instructions": "Be kind.", "input": "hi"}, number=3)
    one.close()
    assert b"kind" not in (tmp_path / "log").read_bytes()
    lines = lines_of(tmp_path / "log")
    assert lines[0]["request"]["messages"] == BODY["messages"][1:]
    assert not any("metadata" in line for line in lines)


def test_lines_wait_for_others_but_not_for_long(tmp_path: Path) -> None:
    one = MessageLogger(MessageLoggerConfig(directory=str(tmp_path), buffer_size=5), at(tmp_path))
    log = tmp_path / "message_log.jsonl"
    one.flush(10.0)
    one.begun(pair_for("chat", BODY, ANSWER)[0])
    one.flush(10.5)
    assert not log.exists()
    one.flush(11.1)
    assert len(lines_of(log)) == 1
    for _ in range(5):
        one.begun(pair_for("chat", BODY, ANSWER)[0])
    one.flush(11.2)
    assert len(lines_of(log)) == 6


@pytest.mark.parametrize("redact", [True, False])
def test_credentials_of_the_request_never_stay(tmp_path: Path, redact: bool) -> None:
    one = MessageLogger(MessageLoggerConfig(directory=str(tmp_path), redact_credentials=redact), at(tmp_path))
    own = b'own"key\\of-the-client-77'
    content = f"mine {own.decode()} theirs {KEY}"
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    give(one, body=body, secrets=(own,))
    one.close()
    said = lines_of(tmp_path / "message_log.jsonl")[0]["request"]["messages"][0]["content"]
    assert said == f"mine [redacted] theirs {'[redacted]' if redact else KEY}"


# --- event_recorder ---


def test_each_session_has_a_file_that_begins_with_what_it_is(tmp_path: Path) -> None:
    one = EventRecorder(EventRecorderConfig(output_dir=str(tmp_path / "e")), at(tmp_path))
    give(one)
    give(one, session_id="../../etc/passwd", number=2)
    give(one, session_id="", number=3)
    one.close()
    found = sorted(path.name for path in (tmp_path / "e").iterdir())
    assert len(found) == 3
    assert {"session_s-1.jsonl", "session_none.jsonl"} < set(found)
    first, *events = lines_of(tmp_path / "e" / "session_s-1.jsonl")
    assert first["_metadata"]["session_id"] == "s-1"
    assert set(first["_metadata"]) == {"format", "session_id", "created_at", "interceptor"}
    assert [event["name"] for event in events] == ["session.start", "llm.call.start", "llm.call.finish"]
    assert modes(tmp_path / "e") == {0o700, 0o600}


def test_names_of_sessions_become_names_of_files() -> None:
    names = ["a/b", "a_b", "..", ".", "x" * 300, "x" * 301, "ü", "", "con\x00trol", "A.b-c_1"]
    stems = [file_stem(name) for name in names]
    assert len(set(stems)) == len(names)
    assert all(len(stem) < 140 and "/" not in stem and stem.isascii() and stem.isprintable() for stem in stems)
    assert file_stem("A.b-c_1") == "session_A.b-c_1"


@pytest.mark.parametrize("pretty", [True, False])
def test_a_session_can_be_one_document_that_grows(tmp_path: Path, pretty: bool) -> None:
    config = EventRecorderConfig(output_dir=str(tmp_path), file_format="json", pretty_print=pretty)
    for number in range(3):  # three lives of luthien
        one = EventRecorder(config, at(tmp_path))
        give(one, number=number)
        one.close()
        document = json.loads((tmp_path / "session_s-1.json").read_bytes())
        assert len(document["events"]) == 3 * (number + 1)
        assert document["_metadata"]["session_id"] == "s-1"
    assert (b"\n  " in (tmp_path / "session_s-1.json").read_bytes()) is pretty
    with (tmp_path / "session_s-1.json").open("ab") as torn:
        torn.write(b'{"half')
    one = EventRecorder(config, at(tmp_path))
    give(one, number=9)
    assert len(json.loads((tmp_path / "session_s-1.2.json").read_bytes())["events"]) == 3


# --- http_recorder ---


def records(folder: Path) -> list[recording.Record]:
    return [recording.read_record(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines()]


def test_what_passed_can_be_read_back_to_the_byte(tmp_path: Path) -> None:
    one = HttpRecorder(HttpRecorderConfig(output_dir=str(tmp_path / "h")), at(tmp_path))
    odd = b'{ "model":"m",\r\n\t"messages": [{"role":"user","content":"\xc3\xa9\\u00e9"}] }\n'
    headers = [(b"host", b"h:1"), (b"x-twice", b"1"), (b"x-twice", b"2")]
    give(one, body=odd, headers=headers, query=b"beta=true&api_key=geheim-0815", user="u")
    give(one, answer=b"\x00\xff\xfe binary", outcome={"verdict": "flag", "cost_usd": 0.5}, number=2)
    give(one, outcome={"outcome": "cancelled", "status": None, "error": "the client left", "body": b""}, number=3)
    request, response, _, second, _, error = records(tmp_path / "h")
    assert isinstance(request, recording.Request) and isinstance(response, recording.Response)
    assert recording.bytes_of(request.body) == odd
    assert recording.pairs_of(request.headers, request.header_list) == headers
    assert (request.transaction_id, request.query) == (response.transaction_id, "beta=true&api_key=[redacted]")
    assert request.redacted == ["query"]
    assert json.loads(recording.bytes_of(response.body)) == ANSWER
    assert response.upstream is not None and response.upstream.body is None
    assert isinstance(second, recording.Response) and second.body is not None and second.facts is not None
    assert recording.bytes_of(second.body) == b"\x00\xff\xfe binary"
    assert (second.body.encoding, second.facts.verdict, second.facts.cost_usd) == ("base64", "flag", 0.5)
    assert isinstance(error, recording.Error)
    assert (error.error_type, error.error_message) == ("cancelled", "the client left")
    assert modes(tmp_path / "h") == {0o700, 0o600}


def test_files_change_after_so_many_lines_and_at_each_start(tmp_path: Path) -> None:
    config = HttpRecorderConfig(output_dir=str(tmp_path), max_events_per_file=3)
    for number in range(2):
        one = HttpRecorder(config, at(tmp_path))
        for again in range(2):
            give(one, number=10 * number + again)
        one.close()
    assert [len(lines_of(tmp_path / f"recording_{n:03d}.jsonl")) for n in (1, 2, 3, 4)] == [3, 1, 3, 1]


def test_less_is_recorded_where_less_is_asked_for(tmp_path: Path) -> None:
    config = HttpRecorderConfig(output_dir=str(tmp_path), include_headers=False, include_timing=False, max_body_size_mb=0.0001)
    one = HttpRecorder(config, at(tmp_path))
    give(one, body={**BODY, "padding": "x" * 500})
    request, response = records(tmp_path)
    assert isinstance(request, recording.Request) and isinstance(response, recording.Response)
    assert request.headers == {} and response.headers == {}
    assert request.start_time is None and response.duration_ms is None and response.chunks == []
    assert request.body is not None and request.body.truncated
    assert len(recording.bytes_of(request.body)) == 104 < request.body.size


@pytest.mark.parametrize("redact", [True, False])
@pytest.mark.parametrize("encoding", [b"", b"gzip", b"deflate"])
def test_a_recording_has_no_key_whatever_it_is_packed_in(tmp_path: Path, redact: bool, encoding: bytes) -> None:
    import gzip
    import zlib

    own = b"own-key-of-the-client-77"
    pack = {b"gzip": gzip.compress, b"deflate": zlib.compress}.get(encoding, bytes)
    plain = json.dumps({"error": {"message": f"bad key {own.decode()} or {KEY}"}}).encode()
    one = HttpRecorder(HttpRecorderConfig(output_dir=str(tmp_path), redact_sensitive_headers=redact), at(tmp_path))
    sent = [(b"authorization", b"Bearer " + own), (b"cookie", b"a=b-c-d-e-f"), (b"x-note", b"see " + own)]
    given = [(b"content-encoding", encoding), (b"set-cookie", b"x=" + own)] if encoding else []
    outcome = {
        "status": 401,
        "outcome": "error",
        "body": pack(plain),
        "headers": given,
        "answer_error": f"x: {own.decode()} {KEY}",
    }
    give(one, body=b"{}", answer=plain, outcome=outcome, headers=sent, secrets=(own,), path="/v1/" + own.decode())
    whole = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert own not in whole
    assert KEY.encode() not in whole
    assert (b"a=b-c-d-e-f" in whole) is (not redact)
    response = records(tmp_path)[1]
    assert isinstance(response, recording.Response)
    assert b"bad key [redacted] or [redacted]" in recording.bytes_of(response.body)
    assert "body" in response.redacted


# --- all of them ---


def each(folder: Path) -> list[Interceptor[Any]]:
    return [
        MessageLogger(MessageLoggerConfig(directory=str(folder)), at(folder)),
        EventRecorder(EventRecorderConfig(output_dir=str(folder)), at(folder)),
        EventRecorder(EventRecorderConfig(output_dir=str(folder), file_format="json"), at(folder)),
        HttpRecorder(HttpRecorderConfig(output_dir=str(folder)), at(folder)),
    ]


@pytest.mark.parametrize("at_number", range(4))
def test_lines_that_cannot_be_written_are_counted_and_the_next_ones_are_written(tmp_path: Path, at_number: int) -> None:
    folder = tmp_path / "out"
    folder.write_text("a file where the folder should be")
    one = each(folder)[at_number]
    with pytest.raises(OSError):
        give(one)
    lost = one.dropped
    assert lost in (2, 3)
    folder.unlink()
    give(one, number=2)
    one.close()
    assert one.dropped == lost
    (file,) = folder.iterdir()
    assert b'"T0000000000000000000000002"' in file.read_bytes() or b"session.start" in file.read_bytes()


@pytest.mark.parametrize("at_number", range(4))
def test_a_full_disk_leaves_whole_lines(tmp_path: Path, at_number: int) -> None:
    one = each(tmp_path / "out")[at_number]
    give(one)
    with largest_file(6_000):
        for number in range(2, 30):
            try:
                give(one, number=number)
            except OSError:
                pass
    give(one, number=30)
    one.close()
    assert one.dropped > 0
    for file in (tmp_path / "out").iterdir():
        if file.suffix == ".json":
            json.loads(file.read_bytes())
        else:
            for line in file.read_bytes().splitlines():
                msgspec.json.decode(line)


def test_events_are_what_is_written() -> None:
    event = Event(timestamp="t", trace_id="", span_id="", name="n", agent_id="a", session_id="s", attributes={"x": 1})
    assert json.loads(event.line)["attributes"] == {"x": 1}
    assert list(json.loads(event.line)) == [
        "schema_version", "timestamp", "trace_id", "span_id", "name", "level", "agent_id", "session_id", "attributes"
    ]  # fmt: skip
