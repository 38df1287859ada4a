"""Who a request says it is from: users, tags and sessions, and nothing more of them than the limits allow."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.sessions.identity import (
    MAX_NAME_CHARS,
    MAX_TAGS,
    SESSION_TAG_HEADER,
    TAG_HEADERS,
    USER_HEADERS,
    label_of,
    person_of,
    session_in_headers,
    session_in_marks,
    tags_of,
    user_in_marks,
)


def tags(text: str, header: str = "x-cylestio-tags") -> dict[str, str]:
    return tags_of([(header.encode(), text.encode())])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user:alice@test.com,debug,env:staging", {"user": "alice@test.com", "debug": "true", "env": "staging"}),
        (" k : v , x ", {"k": "v", "x": "true"}),
        (",,a:1,, ,:nameless,", {"a": "1"}),
        ("url:https://host:1/a", {"url": "https://host:1/a"}),
        ("k:", {"k": ""}),
        ("a:1,a:2", {"a": "2"}),
        ("n" * 64 + ":1", {"n" * 64: "1"}),
        ("n" * 70 + ":1,b", {"b": "true"}),
        ("k:" + "v" * 600, {"k": "v" * 512}),
        ("team:größe,nul\x00:a\x1b[31m\u202eb", {"team": "größe", "nul?": "a?[31m?b"}),
    ],
)
@pytest.mark.parametrize("header", ["x-cylestio-tags", "x-luthien-tags"])
def test_tags(text: str, expected: dict[str, str], header: str) -> None:
    assert tags(text, header) == expected


def test_of_too_many_tags_the_first_are_kept() -> None:
    found = tags(",".join(f"t{number}:{number}" for number in range(60)) + ",t0:again")
    assert list(found) == [f"t{number}" for number in range(50)]
    assert found["t0"] == "again"


def test_headers_with_tags_add_up_and_the_session_is_a_tag_too() -> None:
    session = (b"x-cylestio-session-id", b"s-1")
    assert tags_of([(b"x-luthien-tags", b"a"), session, (b"x-cylestio-tags", b"b:2")]) == {
        "a": "true",
        "b": "2",
        "session": "s-1",
    }
    assert tags_of([session, (b"x-luthien-tags", b"session:mine")]) == {"session": "mine"}
    assert tags_of([(b"x-luthien-tags", b"caf\xe9")]) == {"café": "true"}


def jwt(claims: Any, scheme: str = "Bearer") -> bytes:
    part = base64.urlsafe_b64encode(claims if isinstance(claims, bytes) else json.dumps(claims).encode()).rstrip(b"=")
    return scheme.encode() + b" eyJhbGciOiJub25lIn0." + part + b".c2ln"


@pytest.mark.parametrize(
    ("authorization", "user"),
    [
        (jwt({"sub": "alice"}), "alice"),
        (jwt({"sub": "al"}, "bearer"), "al"),
        (jwt({"sub": "b" * 300 + "\n"}), "b" * 200),
        (jwt({"sub": 7}), ""),
        (jwt({"iss": "x"}), ""),
        (jwt(["sub"]), ""),
        (jwt(b"no json"), ""),
        (b"Bearer eyJ.no", ""),
        (b"Bearer eyJ.\xff\xfe.c", ""),
        (jwt({"sub": "alice"}, "Basic"), ""),
        (b"Bearer sk-proj-1", ""),
    ],
)
def test_the_subject_of_a_token(authorization: bytes, user: str) -> None:
    raw = [(b"authorization", authorization)]
    assert person_of(dict(raw), raw, {}).user == user


CLAUDE = "user_" + "ab" * 32 + "_account_{}_session_0b9c1d2e-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("marks", "user", "session"),
    [
        ({"user": "u-1"}, "u-1", ""),
        ({"safety_identifier": "hash", "user": "u-1"}, "hash", ""),
        ({"metadata": {"user_id": "customer 7"}, "user": "u-1"}, "customer 7", ""),
        ({"metadata": {"user_id": CLAUDE.format("acc-1")}}, "acc-1", "0b9c1d2e-0000-4000-8000-000000000001"),
        ({"metadata": {"user_id": CLAUDE.format("")}}, "user_" + "ab" * 32, "0b9c1d2e-0000-4000-8000-000000000001"),
        ({"metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s-9"}'}}, "d", "s-9"),
        ({"metadata": {"user_id": '{"account_uuid":"acc-2"}'}}, "acc-2", ""),
        ({"metadata": {"user_id": '{"session_id":""}'}}, "", ""),
        ({"metadata": {"user_id": '{"session_id":'}}, '{"session_id":', ""),
        ({"metadata": {"user_id": 7}, "user": ["x"]}, "", ""),
        ({"metadata": "user_id"}, "", ""),
        ({"metadata": {"user_id": "u" * 9_000}}, "", ""),
        ({"metadata": {"user_id": "u" * 5_000}}, "u" * 200, ""),
        ({"metadata": {"user_id": "[" * 8_000}}, "[" * 200, ""),
    ],
)
def test_marks_in_the_body(marks: dict[str, Any], user: str, session: str) -> None:
    assert (user_in_marks(marks), session_in_marks(marks)) == (user, session)


def test_a_header_names_the_user_before_anything_else_does() -> None:
    raw = [
        (b"authorization", jwt({"sub": "of the token"})),
        (b"x-cylestio-tags", b"user:of the tag"),
        (b"x-luthien-user-id", b"of the header"),
    ]
    marks = {"user": "of the body"}
    found = []
    while raw:
        found.append(person_of(dict(raw), raw, marks).user)
        if marks and b"x-luthien-user-id" not in dict(raw):
            marks = {}
        else:
            raw.pop()
    assert found == ["of the header", "of the body", "of the tag", "of the token"]


def test_an_empty_header_names_nothing() -> None:
    assert session_in_headers({b"x-session-id": b"my-session-123"}) == "my-session-123"
    assert session_in_headers({b"x-session-id": b" "}) == ""
    raw = [(b"x-luthien-user-id", b""), (b"x-luthien-tags", b"")]
    person = person_of(dict(raw), raw, {})
    assert (person.user, person.tags) == ("", {})


def test_labels_are_one_printable_line() -> None:
    assert label_of(b" \x00a\r\nb\xc2\x9b\xe2\x80\x8b ") == "?a??b??"
    assert label_of("\ud800é" + "x" * 300) == "?é" + "x" * 198


SOMETHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*USER_HEADERS, *TAG_HEADERS, SESSION_TAG_HEADER, b"authorization"])
MARKS = st.dictionaries(st.sampled_from(["metadata", "user", "safety_identifier"]), SOMETHING)


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=120)), max_size=4),
    MARKS | st.builds(lambda x: {"metadata": {"user_id": x}}, SOMETHING),
)
def test_nothing_that_a_client_sends_makes_it_fail(raw: list[tuple[bytes, bytes]], marks: dict[str, Any]) -> None:
    person = person_of(dict(raw), raw, marks)
    assert person.user.isprintable()
    assert len(person.user) <= MAX_NAME_CHARS
    assert all(name.isprintable() and value.isprintable() for name, value in person.tags.items())
    assert len(person.tags) <= MAX_TAGS
