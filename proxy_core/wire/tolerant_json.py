"""Reads JSON that upstreams and clients really send, and values of any type where one type is expected.

Strict and fast first. What strict reading refuses (NaN, lone surrogates, invalid UTF-8, a byte order mark, integers of
thousands of digits) is repaired and read again, and `problem` says so. Nothing here raises on bad bytes except
the decoders given to `read`, whose errors `read` catches.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

Value = TypeVar("Value")
JsonObject = dict[str, Any]

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, MemoryError, OverflowError)
"""What a decoder raises on bytes that it cannot read."""
NOT_JSON = "the body is not JSON"
_EMPTY_OBJECT: JsonObject = {}
_EMPTY_LIST: list[Any] = []
_MAX_DIGITS = 4000
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def read(body: bytes, parse: Callable[[bytes], Value]) -> tuple[Value | None, str | None]:
    """`parse(body)`, on a repaired body where the body itself cannot be read; else None, with the problem."""
    try:
        return parse(body), None
    except UNREADABLE:
        pass
    repaired, problem = repair(body)
    if repaired is None:
        return None, problem
    try:
        return parse(repaired), problem
    except UNREADABLE as error:
        return None, f"the body has another shape than its API's: {type(error).__name__}"


def repair(body: bytes) -> tuple[bytes | None, str]:
    """Strict JSON with the body's readable values, and what was wrong; None where there is no JSON."""
    problem = "the JSON has values that JSON does not know; they were read as null"
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = body.decode("utf-8-sig", "replace")
        problem = "the body is not valid UTF-8; it was read with replacements"
    if not text.strip():
        return None, "the body is empty"
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_int=_bounded_int, parse_float=_finite)
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), problem
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            return None, "the JSON ends early"
        return None, NOT_JSON
    except RecursionError:
        return None, "the JSON is nested too deeply"
    except (ValueError, MemoryError):
        return None, NOT_JSON


def _no_constant(_: str) -> None:
    return None


def _bounded_int(digits: str) -> int | None:
    if len(digits) > _MAX_DIGITS:
        return None
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def plain(raw: bytes | msgspec.Raw) -> Any:
    """Any JSON value. Raises one of UNREADABLE."""
    return _any.decode(raw)


def raw_items(raw: msgspec.Raw) -> list[bytes]:
    """The exact bytes of each item of a JSON array; empty where `raw` is something else. Raises one of UNREADABLE."""
    if first_byte(raw) != b"[":
        return []
    return [bytes(item) for item in _raw_list.decode(raw)]


def first_byte(raw: msgspec.Raw) -> bytes:
    """`[`, `{`, `"` or the first byte of a number or word; empty where there is no value."""
    return memoryview(raw)[:1].tobytes()


def encode(value: Any) -> bytes:
    """JSON of a value that was read; empty where it cannot be written."""
    try:
        return _encoder.encode(value)
    except (*UNREADABLE, TypeError):
        return b""


def as_object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else _EMPTY_OBJECT


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else _EMPTY_LIST


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def as_text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def as_json_text(value: Any) -> str:
    """Text as it is; anything else but null as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else encode(value).decode("utf-8", "replace")


def as_index(value: Any, default: int = 0) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else default


def as_count(value: Any) -> int | None:
    """A token count; None for anything that cannot be one."""
    return value if type(value) is int and 0 <= value < 2**63 else None


def total(*counts: int | None) -> int | None:
    """The sum of what was reported; None where nothing was, or where the sum cannot be a count."""
    known = [count for count in counts if count is not None]
    return as_count(sum(known)) if known else None
