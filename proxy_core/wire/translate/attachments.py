"""Pictures and documents between data URLs, base64 sources and bare base64. Never fetches anything."""

from __future__ import annotations

import re
from base64 import b64decode

from proxy_core.wire.translate.form import Attachment

_DATA_URL = re.compile(r"data:([^;,]{1,200})(?:;[^;,]{0,200})*;base64,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_MAGIC = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"%PDF", "application/pdf"))


def from_url(kind: str, url: str, name: str = "") -> Attachment | None:
    """What a URL refers to, inline or remote; None for a data URL of another form than base64."""
    if url[:5].lower() != "data:":
        return Attachment(kind, "", url=url, name=name)
    found = _DATA_URL.match(url)
    if found is None:
        return None
    data = url[found.end() :]
    return Attachment(kind, found.group(1).lower(), data, name=name) if _BASE64.fullmatch(data) else None


def data_url(attachment: Attachment) -> str:
    """The URL that stands for it in dialects that know URLs only."""
    return attachment.url or f"data:{attachment.media_type};base64,{attachment.data}"


def text_in(attachment: Attachment) -> str | None:
    """The text of a document that is one; None where its bytes are none."""
    try:
        return b64decode(attachment.data).decode("utf-8")
    except ValueError:
        return None


def from_base64(data: str) -> Attachment | None:
    """A picture of which the bytes alone are known; None where they are not base64."""
    if not _BASE64.fullmatch(data):
        return None
    return Attachment("image", _sniffed(data), data)


def _sniffed(data: str) -> str:
    try:
        start = b64decode(data[:24])
    except ValueError:
        start = b""
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for magic, media_type in _MAGIC if start.startswith(magic)), "image/png")
