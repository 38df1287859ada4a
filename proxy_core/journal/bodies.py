"""The forms in which bodies are stored.

A stored body starts with one byte that names its form: `0` plain, `1` zstd, `2` a recipe of pieces, `3` nothing kept.
A recipe is msgpack `[skeleton, [offset…], [hash…]]`: the body is the skeleton with each piece put in at its offset.
Pure functions over bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import zstandard

from proxy_core.journal.records import Piece

PLAIN, ZSTD, RECIPE, ABSENT = b"0", b"1", b"2", b"3"
MISSING_PIECE = b'"[not in the journal]"'
"""Stands where a part of a body is not stored."""

_encode = msgspec.msgpack.Encoder().encode


def cut(body: bytes, pieces: Sequence[Piece]) -> tuple[bytes, list[int], list[bytes]]:
    """`body` without its pieces, where each was taken out (as an offset in what remains), and their hashes.

    Any occurrence of a piece's bytes after the previous one will do: putting the same bytes back gives the same body.
    """
    if not pieces:
        return body, [], []
    rest: list[bytes] = []
    offsets: list[int] = []
    hashes: list[bytes] = []
    position = 0
    length = 0
    for digest, piece in pieces:
        found = body.find(piece, position)
        if found < 0:
            continue
        rest.append(body[position:found])
        length += found - position
        offsets.append(length)
        hashes.append(digest)
        position = found + len(piece)
    rest.append(body[position:])
    return b"".join(rest), offsets, hashes


def recipe(skeleton: bytes, offsets: Sequence[int], hashes: Sequence[bytes]) -> bytes:
    """The stored form of a body that was cut."""
    return RECIPE + _encode((skeleton, offsets, hashes))


def recipe_of(stored: bytes) -> tuple[bytes, list[int], list[bytes]] | None:
    """The recipe in a stored body, or None where it is none."""
    if stored[:1] != RECIPE:
        return None
    skeleton, offsets, hashes = msgspec.msgpack.decode(stored[1:])
    return skeleton, offsets, hashes


def unpack(stored: bytes) -> bytes:
    """A stored body that is no recipe, as it was."""
    form = stored[:1]
    if form == ZSTD:
        return zstandard.ZstdDecompressor().decompress(stored[1:], max_output_size=1 << 31)
    return b"" if form == ABSENT else stored[1:]


def assemble(skeleton: bytes, offsets: Sequence[int], hashes: Sequence[bytes], pieces: Mapping[bytes, bytes]) -> bytes:
    """Put the pieces back. Raises KeyError for a piece that is not there."""
    parts: list[bytes] = []
    position = 0
    for offset, digest in zip(offsets, hashes, strict=True):
        parts.append(skeleton[position:offset])
        parts.append(pieces[digest])
        position = offset
    parts.append(skeleton[position:])
    return b"".join(parts)
