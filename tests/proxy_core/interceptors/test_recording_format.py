"""A record written is the record read, whatever bytes it holds, and one line that any JSON reader takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.interceptors.recording_format import (
    Error,
    Facts,
    RecordedVerdict,
    Request,
    Response,
    UnreadableRecord,
    UpstreamAnswer,
    body_of,
    bytes_of,
    headers_of,
    pairs_of,
    read_record,
    write_record,
)

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
JSON_BODIES = st.builds(
    lambda value, indent, ascii_only, around: (
        around + json.dumps(value, indent=indent, ensure_ascii=ascii_only) + around
    ).encode("utf-8", "surrogatepass"),
    JSON_VALUES,
    st.sampled_from([None, None, 2]),
    st.booleans(),
    st.sampled_from(["", "", " ", "\r\n"]),
)
BODIES = st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")) | JSON_BODIES
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"accept", b"x-a", b"set-cookie"]), st.binary(max_size=12).filter(lambda value: b"\n" not in value)
    ),
    max_size=5,
)


@given(request=BODIES, answer=BODIES, headers=HEADERS)
def test_bytes_come_back_as_they_were(request: bytes, answer: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    named, listed = headers_of(headers)
    asked = Request(transaction_id="t1", path="/v1/x%2f", query="a=1&b", headers=named, header_list=listed, body=body_of(request))
    told = Response(
        transaction_id="t1",
        status_code=200,
        body=body_of(answer),
        chunks=[(3, 0.25), (len(answer), 1.5)],
        upstream=UpstreamAnswer(name="openai", status_code=200, body=body_of(request)),
        facts=Facts(outcome="ok", verdicts=[RecordedVerdict(policy="p", stage="request", action="flag", reason="passed")]),
    )

    lines = [write_record(asked), write_record(told)]

    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines)
    assert json.loads(lines[0])["type"] == "request"
    read, said = (read_record(line) for line in lines)
    assert isinstance(read, Request)
    assert isinstance(said, Response)
    assert bytes_of(read.body) == request
    assert read.body is not None
    assert read.body.size == len(request)
    assert bytes_of(said.body) == answer
    assert said.upstream is not None
    assert bytes_of(said.upstream.body) == request
    assert pairs_of(read.headers, read.header_list) == headers
    assert (read.path, read.query, said.chunks, said.facts) == (asked.path, asked.query, told.chunks, told.facts)


def test_a_json_body_stands_in_the_line_as_json() -> None:
    line = json.loads(write_record(Request(body=body_of(b'{"model": "m",\n "n":1}'))))

    assert line["body"] == {"size": 22, "type": "json", "content": {"model": "m", "n": 1}, "raw": '{"model": "m",\n "n":1}'}


def test_less_than_the_whole_says_so() -> None:
    cut = body_of(b'{"a":', size=9)
    cleaned = body_of(b'{"key":"[redacted]"}', size=60, redacted=True)

    assert (cut.size, cut.type, cut.truncated, bytes_of(cut)) == (9, "text", True, b'{"a":')
    assert (cleaned.type, cleaned.truncated, bytes_of(cleaned)) == ("json", False, b'{"key":"[redacted]"}')


@pytest.mark.parametrize(
    "original",
    [b'{"model":"m","text":"\xc3\xa4"}', b'{"model": "m", "n": 1.5}', b'{"model":"m","text":"\\u00e4"}', b'{"a": "\\u00e4"}'],
)
def test_json_that_another_program_wrote_down_anew_gets_its_form_back_by_its_size(original: bytes) -> None:
    content = json.dumps(json.loads(original), ensure_ascii=False)
    body = f'{{"size":{len(original)},"type":"json","content":{content}}}'
    line = f'{{"type":"request","timestamp":"t","path":"/p","query":null,"headers":{{}},"body":{body}}}'
    record = read_record(line.encode())

    assert isinstance(record, Request)
    assert bytes_of(record.body) == original


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b'{"type":"other"}', b'{"type":"response","status_code":"x"}', b"\xff\n", b"[" * 5_000]
)
def test_a_broken_line_is_refused(line: bytes) -> None:
    with pytest.raises(UnreadableRecord):
        read_record(line)


def test_a_body_that_is_not_what_it_says_is_refused() -> None:
    record = read_record(b'{"type":"response","status_code":200,"body":{"size":3,"type":"binary","content":"%%%"}}')

    assert isinstance(record, Response)
    with pytest.raises(UnreadableRecord):
        bytes_of(record.body)


def test_an_error_of_another_program() -> None:
    line = b'{"type":"error","timestamp":"t","error_type":"ReadTimeout","error_message":"late","method":"POST","path":"/p"}'

    assert read_record(line) == Error(timestamp="t", error_type="ReadTimeout", error_message="late", method="POST", path="/p")
