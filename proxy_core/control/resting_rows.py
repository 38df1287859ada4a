"""Rows at rest: those of ended transactions, kept as bytes, in which they take less than half the room.

A row that was put to rest and is read again is another object with the same values. Putting one to rest and reading it take
less than a microsecond each.
"""

from __future__ import annotations

from typing import Any, Literal, get_origin

from msgspec import defstruct
from msgspec.msgpack import Decoder, Encoder
from msgspec.structs import astuple, fields

from proxy_core.control.rows import TransactionRow

_RestingRow: Any = defstruct(
    "_RestingRow",
    [(field.name, str if get_origin(field.type) is Literal else field.type) for field in fields(TransactionRow)],
    bases=(TransactionRow,),
    array_like=True,
    gc=False,
    kw_only=True,
)
_encode = Encoder().encode_into
_buffer = bytearray()
_decode = Decoder(_RestingRow).decode


def at_rest(row: TransactionRow | bytes) -> TransactionRow | bytes:
    """The row as bytes; itself while it may still change, and where it holds a text or a number that no bytes can say."""
    if isinstance(row, bytes) or row.state != "done":
        return row
    try:
        _encode(astuple(row), _buffer)  # `encode` would leave each row a larger block than it needs
        return bytes(_buffer)
    except (UnicodeEncodeError, OverflowError):
        return row


def awake(row: TransactionRow | bytes) -> TransactionRow:
    """The row to be read."""
    if isinstance(row, TransactionRow):
        return row
    found: TransactionRow = _decode(row)
    found.__class__ = TransactionRow  # the same layout; the class that is decoded differs only in how it is written
    return found
