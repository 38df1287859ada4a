"""Bytes and JSON without secrets, for what interceptors write.

JSON stays JSON: what is taken out is found in the encoded bytes, which is quick; where that would break the JSON (a secret that
a quote or a backslash belongs to, or a private key that spans values) it is taken out text by text. A large body is looked
through in pieces with pauses, because the gateway may share a CPU with this.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from proxy_core.detectors.secrets import PIECE_BYTES, pieces, redact_formats, redact_known

MAX_DEPTH = 200
PAUSE_S = 0.0002
_KEY_ENDS = b"PRIVATE KEY-----"


def redacted(text: bytes, secrets: Sequence[bytes]) -> bytes:
    """`text` without known credentials, in either form that they have in JSON, and all that looks like a key; the same object
    where there is nothing to take out."""
    known = redact_known(text, secrets_in_json(tuple(secrets)) if secrets else ())
    return redact_formats(known) if len(known) <= PIECE_BYTES else _in_pieces(known)


def redacted_lines(lines: Sequence[tuple[str, tuple[bytes, ...]]]) -> list[str]:
    """Lines without the credentials that stand beside each, and all that looks like a key."""
    # Nearly always there is nothing to find: one search over all lines tells.
    together = "\n".join([line for line, _ in lines]).encode("utf-8", "replace")
    known = frozenset([secret for secrets in {secrets for _, secrets in lines} for secret in secrets])
    if redacted(together, tuple(known)) is together:
        return [line for line, _ in lines]
    return [redacted(line.encode("utf-8", "replace"), secrets).decode("utf-8", "replace") for line, secrets in lines]


def _in_pieces(text: bytes) -> bytes:
    kept: list[bytes] = []
    changed = False
    for piece in pieces(text):
        kept.append(redact_formats(piece))
        changed = changed or kept[-1] is not piece
        time.sleep(PAUSE_S)
    return b"".join(kept) if changed else text


def safe_json(value: Any, secrets: Sequence[bytes]) -> Raw:
    """`value` as JSON on one line, without known credentials and all that looks like a key."""
    try:
        encoded = bytes(value) if isinstance(value, Raw) else msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        return Raw(b"null")
    return Raw(safe_line(encoded, secrets))


def safe_line(encoded: bytes, secrets: Sequence[bytes], *, formats: bool = True) -> bytes:
    """The same for JSON that is encoded already; what is no JSON becomes a JSON text. Without `formats` known credentials alone
    are taken out."""
    known = secrets_in_json(tuple(secrets)) if secrets else ()
    kept = redacted(encoded, secrets) if formats else redact_known(encoded, known)
    if kept is not encoded and _KEY_ENDS in encoded:
        return _text_by_text(encoded, secrets, formats)
    try:
        if kept is not encoded:
            msgspec.json.decode(kept, type=Raw)
        return on_one_line(kept)
    except (msgspec.DecodeError, RecursionError):
        return _text_by_text(encoded, secrets, formats)


def on_one_line(encoded: bytes) -> bytes:
    """JSON without line breaks between its parts; as it is where it has none. Raises msgspec.DecodeError."""
    return msgspec.json.format(encoded, indent=-1) if b"\n" in encoded or b"\r" in encoded else encoded


def _text_by_text(encoded: bytes, secrets: Sequence[bytes], formats: bool) -> bytes:
    def clean(value: Any, depth: int) -> Any:
        if isinstance(value, str):
            raw = redact_known(value.encode("utf-8", "replace"), secrets)
            return (redact_formats(raw) if formats else raw).decode("utf-8", "replace")
        if depth > MAX_DEPTH:
            return None
        if isinstance(value, list):
            return [clean(one, depth + 1) for one in value]
        if isinstance(value, dict):
            return {clean(name, depth + 1): clean(one, depth + 1) for name, one in value.items()}
        return value

    try:
        return msgspec.json.encode(clean(msgspec.json.decode(encoded), 0))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return msgspec.json.encode(clean(encoded.decode("utf-8", "replace"), 0))


@lru_cache(maxsize=1_000)
def secrets_in_json(secrets: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Credentials, and their other forms inside a JSON text."""
    return (*secrets, *(other for secret in secrets if (other := _in_json(secret)) != secret))


def _in_json(secret: bytes) -> bytes:
    try:
        return msgspec.json.encode(secret.decode("utf-8"))[1:-1]
    except UnicodeDecodeError:
        return secret
