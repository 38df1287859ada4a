"""Secrets taken out of bytes and JSON."""

from __future__ import annotations

import json
import random

import pytest

from proxy_core.detectors import secrets
from proxy_core.detectors.secrets import redact_formats, redact_known
from proxy_core.interceptors import redaction
from proxy_core.interceptors.redaction import redacted, redacted_lines, safe_json, safe_line

KEYS = [
    b"sk-proj-" + b"a1B2c3D4" * 5,
    b"sk-ant-api03-" + b"x_-9" * 100,
    b"AKIA" + b"ABCDEFGH12345678",
    b"-----BEGIN RSA PRIVATE KEY-----\n" + b"Zm9v+/=\n" * 200 + b"-----END RSA PRIVATE KEY-----",
    b"known credential with spaces",
]
FILLING = [b" ", b'"', b"a", b"-", b".", b"\n", b"{}", b"word ", b"sk-", b"\xc3\xa9", b"-----BEGIN "]


@pytest.mark.parametrize("seed", range(12))
def test_pieces_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(redaction, "PAUSE_S", 0)
    rng = random.Random(seed)
    parts: list[bytes] = []
    for _ in range(40):
        parts += [rng.choice(FILLING) * rng.randrange(1, 900), b" ", rng.choice(KEYS), rng.choice((b" ", b'"', b"\n"))]
    text = b"".join(parts)
    known = (KEYS[-1],)
    assert 30_000 < len(text) < secrets.PIECE_BYTES * 10
    monkeypatch.setattr(secrets, "PIECE_BYTES", 10_000_000)
    whole = redact_formats(redact_known(text, known))
    monkeypatch.setattr(redaction, "PIECE_BYTES", 20_000)
    monkeypatch.setattr(secrets, "PIECE_BYTES", 20_000)
    assert len(list(secrets.pieces(text))) > 1
    assert redacted(text, known) == whole
    assert redact_formats(redact_known(text, known)) == whole


def test_what_is_clean_stays_the_same_object() -> None:
    for size in (10, 1_000_000):
        text = b"nothing here " * (size // 13 + 1)
        assert redacted(text, (b"not-in-there",)) is text


def test_lines_lose_their_own_credentials_and_all_that_looks_like_a_key() -> None:
    key = KEYS[0].decode()
    clean = [("nothing here", ()), ("nor here, half of a pair: \ud800", (b"not-in-there",))]
    assert redacted_lines(clean) == [line for line, _ in clean]
    assert redacted_lines([]) == []
    lines = [("its secret-of-mine here", (b"secret-of-mine",)), (f"a key {key}", ()), ("nothing here", (b"secret-of-mine",))]
    assert redacted_lines(lines) == ["its [redacted] here", "a key [redacted]", "nothing here"]


@pytest.mark.parametrize(
    "secret", [b'quote"inside-77', b"back\\slash-77", b"newline\ninside-77", "Grüße-an-alle-77".encode(), b"plain-text-77"]
)
def test_json_stays_json(secret: bytes) -> None:
    value = {
        "a": [f"x {secret.decode()} y", {secret.decode(): 1}],
        "b": "-----BEGIN PRIVATE KEY-----",
        "c": "-----END PRIVATE KEY-----",
    }
    kept = json.loads(bytes(safe_json(value, (secret,))))
    assert kept["a"] == ["x [redacted] y", {"[redacted]": 1}]
    assert set(kept) == {"a", "b", "c"}


def test_what_is_no_json_becomes_a_text_and_lines_stay_lines() -> None:
    assert json.loads(safe_line(b"{ torn " + KEYS[0], ())) == "{ torn [redacted]"
    assert safe_line(b'{"a":\n 1,\r\n "b": "x\\ny"}', ()) == b'{"a":1,"b":"x\\ny"}'
    assert bytes(safe_json(object(), ())) == b"null"
