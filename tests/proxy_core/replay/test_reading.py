"""Recordings of other programs, and broken ones: what is read, what is tied to what, and what is said of the rest."""

from __future__ import annotations

import base64
import gzip
import json
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_core.errors import ConfigurationError
from proxy_core.interceptors.recording_format import Request, Response, UpstreamAnswer, body_of, write_record
from proxy_core.replay.exchanges import Answered, pieces_of
from proxy_core.replay.preparing import why_not
from proxy_core.replay.reading import CHANGED, read_recordings
from tests.recordings import (
    START,
    anthropic_stream,
    asked,
    chat,
    chat_answer,
    entry,
    failed,
    har,
    messages,
    told,
    write_lines,
)


def test_cylestios_lines_give_the_bytes_that_were_sent(tmp_path: Path) -> None:
    stream = anthropic_stream("Paris is nice")
    ask = messages("Grüße", stream=True)
    write_lines(
        tmp_path / "recording_001.jsonl",
        asked("/agent-workflow/wf1/v1/messages", ask, query="beta=true"),
        told(stream, end=0.05, took_ms=41.1, stream=True),
    )

    found = read_recordings([tmp_path])

    assert not found.problems
    (one,) = found.exchanges
    assert (one.kind, one.method, one.target) == ("cylestio", "POST", b"/agent-workflow/wf1/v1/messages?beta=true")
    assert one.body == ask, "the size tells in which form the JSON was"
    assert one.redacted == ("headers",)
    assert one.upstream is not None
    assert one.upstream is one.client
    assert one.upstream.body == stream
    assert one.upstream.is_stream
    assert [stream[:end].count(b"\n\n") for end, _ in pieces_of(one.upstream)] == list(range(1, stream.count(b"\n\n") + 1))


def test_answers_without_ids_go_to_the_requests_that_began_when_they_say(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "r.jsonl",
        asked("/v1/messages", messages("slow", stream=True), at=0.0),
        asked("/v1/chat/completions", chat("other"), at=0.1, provider="openai"),
        asked("/v1/messages", messages("quick", stream=True), at=5.0),
        told(anthropic_stream("quick"), end=5.2, took_ms=200, stream=True),
        told(chat_answer("other"), end=6.0, took_ms=5_900),
        told(anthropic_stream("slow"), end=9.0, took_ms=9_000, stream=True),
    )

    found = read_recordings([file])

    assert found.guessed == 0
    for one in found.exchanges:
        assert one.client is not None
        said = json.loads(one.body)["messages"][0]["content"]
        assert said.encode() in one.client.body


def test_where_times_say_nothing_the_first_that_waits_is_taken_and_counted(tmp_path: Path) -> None:
    lines = [
        asked("/v1/chat/completions", chat("a"), provider="openai"),
        asked("/v1/chat/completions", chat("b"), provider="openai"),
        told(chat_answer("a"), end=1, took_ms=1_000),
        told(chat_answer("b"), end=1, took_ms=1_000),
    ]
    for line in lines:
        for name in ("start_time", "end_time"):
            line.pop(name, None)

    found = read_recordings([write_lines(tmp_path / "r.jsonl", *lines)])

    assert [one.client.body for one in found.exchanges if one.client is not None] == [chat_answer("a"), chat_answer("b")]
    assert found.guessed == 1


def test_an_error_and_a_request_without_an_end(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "r.jsonl",
        asked("/v1/messages", messages("late")),
        failed("ReadTimeout", "too late", "/v1/messages"),
        asked("/v1/messages", messages("never")),
    )

    found = read_recordings([file])

    late, never = found.exchanges
    assert (late.fault, late.fault_status) == ("too late", 504)
    assert (never.fault, never.upstream, never.client) == ("", None, None)
    assert found.unanswered == 1


def test_broken_lines_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    good = [asked("/v1/messages", messages("hi")), told(anthropic_stream("x"), end=0.1, took_ms=100)]
    first = write_lines(tmp_path / "a_2.jsonl", "{broken", good[0], "", '{"type": "unknown"}', good[1], good[1])
    write_lines(tmp_path / "a_10.jsonl", {**good[0], "body": {"size": 1, "type": "binary", "content": "%"}}, good[1])
    (tmp_path / "b.har").write_text('{"log": {"entries": [1, {"request": {"url": 5}}, {"response": {}}]}}')
    (tmp_path / "c.har").write_text('{"log": ')
    (tmp_path / "d.jsonl.gz").write_bytes(b"\x1f\x8bno gzip at all")
    (tmp_path / "notes.txt").write_text("not looked at")

    found = read_recordings([tmp_path])

    assert [one.where.removeprefix(f"{tmp_path}/") for one in found.problems] == [
        "a_2.jsonl:1",
        "a_2.jsonl:4",
        "a_2.jsonl:6",
        "a_10.jsonl:1",
        "b.har: entry 1",
        "b.har: entry 3",
        "c.har",
        "d.jsonl.gz",
    ]
    assert len(found.exchanges) == 1
    assert str(first) in found.exchanges[0].where
    assert found.others == 1


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no recording at"):
        read_recordings([tmp_path / "nothing.jsonl"])
    with pytest.raises(ConfigurationError, match="no recording in"):
        read_recordings([tmp_path])


def test_a_har_of_devtools(tmp_path: Path) -> None:
    stream = b"".join(b"data: %d\n\n" % n for n in range(4)) + b"data: [DONE]\n\n"
    tree = har(
        entry("https://api.openai.com/v1/chat/completions?x=1", chat("hi"), chat_answer("hello")),
        entry(
            "https://openrouter.ai/api/v1/chat/completions",
            chat("hi", stream=True),
            b"",
            mime="text/event-stream",
            text=base64.b64encode(stream).decode(),
            encoding="base64",
        ),
        entry("https://example.org/app.js", b"", b"console.log()", mime="text/javascript"),
        entry("http://localhost:11434/api/chat", chat("hi"), b'{"done":true}', status=0),
    )
    file = tmp_path / "session.har.gz"
    file.write_bytes(gzip.compress(b"\xef\xbb\xbf" + json.dumps(tree).encode()))

    found = read_recordings([file])

    assert not found.problems
    assert found.others == 1
    assert [one.target for one in found.exchanges] == [b"/v1/chat/completions?x=1", b"/v1/chat/completions", b"/api/chat"]
    plain, streamed, given_up = found.exchanges
    assert plain.upstream is not None
    assert (plain.body, plain.upstream.body) == (chat("hi"), chat_answer("hello"))
    assert plain.upstream.headers == [(b"content-type", b"application/json")], "the body has no encoding any more"
    assert (b"content-type", b"application/json") in plain.headers
    assert streamed.upstream is not None
    assert streamed.upstream.body == stream
    assert streamed.stream
    assert len(pieces_of(streamed.upstream)) == 5
    assert given_up.upstream is None


def test_records_of_several_files_and_limits(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        answer = Response(format=1, transaction_id=f"t{number}", status_code=200, body=body_of(b"{}"), upstream=UpstreamAnswer())
        ask = Request(format=1, transaction_id=f"t{number}", path="/v1/models", method="GET", start_time=START + number)
        (tmp_path / f"recording_{number}.jsonl").write_bytes(write_record(answer if number == 9 else ask))
        (tmp_path / f"recording_{number}_b.jsonl").write_bytes(write_record(ask if number == 9 else answer))

    found = read_recordings([tmp_path], limit=2)

    assert [one.transaction_id for one in found.exchanges] == ["t1", "t9"]
    assert [one.message for one in found.problems] == ["the request that this line belongs to is not in the recording"]


def test_a_recording_larger_than_what_is_held(tmp_path: Path) -> None:
    big = "x" * 300_000
    records = [
        one
        for number in range(20)
        for one in (
            asked("/v1/messages", messages(f"{number}: {big}"), at=number),
            told(anthropic_stream(big), end=number + 0.1, took_ms=100, stream=True),
        )
    ]
    file = write_lines(tmp_path / "a.jsonl", *records)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(file.read_bytes(), 1))
    entries = [entry("https://api.openai.com/v1/chat/completions", chat(big), chat_answer(big)) for _ in range(20)]
    (tmp_path / "c.har").write_text(json.dumps(har(*entries)))
    del records, entries

    tracemalloc.start()
    found = read_recordings([tmp_path])
    seen = sum(len(one.body) for one in found.exchanges)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (len(found.exchanges), found.unanswered, found.problems) == (60, 0, [])
    assert seen > 60 * len(big)
    assert peak < 8_000_000


def test_what_is_changed_after_it_was_looked_at_is_not_replayed(tmp_path: Path) -> None:
    lines = [asked("/v1/messages", messages("hi")), told(anthropic_stream("x"), end=0.1, took_ms=100)]
    first, second = write_lines(tmp_path / "a.jsonl", *lines), write_lines(tmp_path / "b.jsonl", *lines)
    found = read_recordings([first, second])
    first.write_bytes(first.read_bytes()[:-200])
    second.unlink()

    assert [why_not(one) for one in found.exchanges] == [
        CHANGED,
        "the recording cannot be read any more: No such file or directory",
    ]


def test_pieces_without_times_are_events_and_keep_what_was_recorded() -> None:
    body = b"data: 1\n\ndata: 2\n\ndata: 3\n\ntail"
    headers = [(b"content-type", b"text/event-stream")]
    whole = Answered(status=200, headers=headers, body=body, duration_ms=100.0)
    begun = Answered(
        status=200, headers=headers, body=body, chunks=[(4, 10.0), (2, 11.0), (9, 20.0), (999, 30.0)], duration_ms=50.0
    )

    assert pieces_of(whole) == [
        (9, 50.0),
        (18, pytest.approx(66.67, abs=0.01)),
        (27, pytest.approx(83.33, abs=0.01)),
        (31, 100.0),
    ]
    assert pieces_of(begun) == [(4, 10.0), (9, 20.0), (18, 30.0), (27, 40.0), (31, 50.0)]
    assert pieces_of(Answered(status=200, body=b"{}")) == [(2, None)]
    assert pieces_of(Answered(status=200)) == []


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_stands_in_a_recording_it_is_read_or_named(data: st.DataObject) -> None:
    """Lines with bytes changed, fields of other types, records out of place: nothing raises, nothing is lost unsaid."""
    records: list[dict[str, Any]] = [
        asked("/v1/messages", messages("hi", stream=True)),
        told(anthropic_stream("x"), end=0.1, took_ms=100, stream=True),
        json.loads(write_record(Request(format=1, transaction_id="t", path="/v1/models"))),
        json.loads(write_record(Response(format=1, transaction_id="t", status_code=200, body=body_of(b"{}")))),
    ]
    for record in records:
        for name in data.draw(st.sets(st.sampled_from(sorted(record)), max_size=2)):
            record[name] = data.draw(st.sampled_from([None, -1, 99, 1e400, "", "\r\nx: y", [], {}, [["a"]], {"size": -1}]))
    lines = [json.dumps(record).encode() for record in records]
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, 3))
        at = data.draw(st.integers(0, len(lines[place])))
        lines[place] = lines[place][:at] + data.draw(st.binary(max_size=4)) + lines[place][at:]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "r.jsonl"
        file.write_bytes(b"\n".join(lines))

        found = read_recordings([file])

        for one in found.exchanges:
            assert one.target.startswith(b"/")
            assert pieces_of(one.upstream) is not None if one.upstream is not None else True
        assert len(found.problems) + 2 * len(found.exchanges) >= 2
        assert all(one.where.startswith(str(file)) and one.message for one in found.problems)
