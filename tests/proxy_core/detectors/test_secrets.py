"""Every format is found where it stands, and ordinary text is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.detectors.secrets import known_secrets, redact_formats, redact_headers, redact_known, redact_query

BODY = "Ab1" * 30
KEYS = [
    f"sk-{BODY[:48]}",
    f"sk-proj-{BODY[:60]}",
    f"sk-ant-api03-{BODY[:80]}",
    f"sk-ant-oat01-{BODY[:80]}",
    f"sk-svcacct-{BODY[:40]}",
    f"sk-or-v1-{BODY[:60]}",
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    *(f"gh{kind}_{BODY[:36]}" for kind in "pousr"),
    f"github_pat_{BODY[:82]}",
    f"glpat-{BODY[:20]}",
    "xoxb-123456789012-abcdefghijkl",
    f"AIza{BODY[:35]}",
    f"sk_live_{BODY[:24]}",
    f"hf_{BODY[:34]}",
    f"npm_{BODY[:36]}",
    f"pypi-{BODY[:60]}",
    f"SG.{BODY[:22]}.{BODY[:43]}",
    f"gsk_{BODY[:52]}",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_found_where_it_stands(key: str) -> None:
    for before, after in (('{"content":"', '"}'), ("", ""), ("task-list and risk-free: ", ", thanks")):
        text = (before + key + after).encode()
        assert redact_formats(text) == (before + "[redacted]" + after).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"a task-force",
        b"risk-averse desk-top",
        b"SG. and AKIA",
        b"hf_ npm_ gsk_",
        b"chatcmpl-123",
        b"fp_44709d6fcb",
        b"msg_01XFDUDYJgAACzvnptvVoYEL",
    ],
)
def test_ordinary_text_is_left_alone(text: bytes) -> None:
    assert redact_formats(text) is text


@given(st.binary(max_size=400))
def test_nothing_else_changes(text: bytes) -> None:
    assert redact_formats(text) == text or b"[redacted]" in redact_formats(text)


def test_known_values_are_those_of_the_credentials() -> None:
    headers = [
        (b"authorization", b"Bearer my-own-token"),
        (b"x-api-key", b"another-key"),
        (b"cookie", b"c=1"),
        (b"accept", b"everything"),
    ]
    known = known_secrets(headers, b"key=in-the-query&x=1", (b"configured-key", b"short"))
    assert set(known) == {b"my-own-token", b"another-key", b"in-the-query", b"configured-key"}
    assert redact_known(b"say my-own-token twice: my-own-token", known) == b"say [redacted] twice: [redacted]"


def test_headers_keep_their_scheme_and_rate_limits_their_numbers() -> None:
    shown = redact_headers(
        [
            (b"Authorization", b"Bearer abc"),
            (b"Set-Cookie", b"a=b"),
            (b"x-goog-api-key", b"k"),
            (b"anthropic-ratelimit-tokens-remaining", b"4000"),
            (b"x-debug", b"saw token abc-secret-abc"),
        ],
        (b"abc-secret-abc",),
    )
    assert shown == [
        ("authorization", "Bearer [redacted]"),
        ("set-cookie", "[redacted]"),
        ("x-goog-api-key", "[redacted]"),
        ("anthropic-ratelimit-tokens-remaining", "4000"),
        ("x-debug", "saw token [redacted]"),
    ]


def test_a_query_keeps_all_but_credentials() -> None:
    assert (
        redact_query(b"beta=true&key=abc&api_key=d&access_token=e")
        == b"beta=true&key=[redacted]&api_key=[redacted]&access_token=[redacted]"
    )


LONG = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (f"key is sk-{LONG} here", "key is [redacted] here"),
        (f"sk-{LONG} and sk-{LONG[::-1]}", "[redacted] and [redacted]"),
        (f"sk-ant-api03-{LONG}", "[redacted]"),
        (f"sk-proj-{LONG}", "[redacted]"),
        (f"sk-ant-oat01-{LONG}", "[redacted]"),
        ("sk-short", "sk-short"),
        ("0123456789abcdef", "0123456789abcdef"),
        ("4bf92f3577b34da6a3ce929d0e0e4736", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ],
    ids=["one", "two", "api03", "proj", "oat01", "short", "16 hex", "32 hex, as in traces"],
)
def test_keys_are_taken_out_of_any_header(value: str, shown: str) -> None:
    headers = [(b"x-custom", value.encode())]
    assert redact_headers(headers) == [("x-custom", shown)]
    assert headers == [(b"x-custom", value.encode())]
