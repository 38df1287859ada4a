"""Content encodings: undone for reading only, with a bound, never on the way to the client."""

from __future__ import annotations

import zlib

MAX_DECODED_BYTES = 64 * 1024 * 1024


class UnreadableEncoding(ValueError):
    """The body cannot be decoded; the message says why."""


def decoded(body: bytes, encoding: str, limit: int = MAX_DECODED_BYTES) -> bytes:
    """`body` without its content encoding, at most `limit` bytes of it. Raises UnreadableEncoding."""
    for one in reversed([part.strip().lower() for part in encoding.split(",")]):
        if one in ("", "identity"):
            continue
        try:
            if one in ("gzip", "x-gzip"):
                body = zlib.decompressobj(wbits=31).decompress(body, limit)
            elif one == "deflate":
                body = _deflate(body, limit)
            elif one == "zstd":
                import zstandard

                body = zstandard.ZstdDecompressor().decompressobj().decompress(body)[:limit]
            elif one == "br":
                import brotli

                body = _brotli(brotli, body, limit)
            else:
                raise UnreadableEncoding(f"content encoding {one!r} is not known")
        except UnreadableEncoding:
            raise
        except Exception as error:  # each library raises an exception of its own; all mean the same here
            raise UnreadableEncoding(f"the body is not valid {one}: {error}") from error
    return body


def _deflate(body: bytes, limit: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, limit)
    except zlib.error:
        return zlib.decompressobj(wbits=-15).decompress(body, limit)


def _brotli(brotli: object, body: bytes, limit: int) -> bytes:
    decompressor = brotli.Decompressor()  # type: ignore[attr-defined]
    parts: list[bytes] = []
    length = 0
    for start in range(0, len(body), 65_536):
        part: bytes = decompressor.process(body[start : start + 65_536])
        parts.append(part)
        length += len(part)
        if length >= limit:
            break
    return b"".join(parts)[:limit]
