"""The credential of a request: which headers carry one, and how a configured key takes its place."""

from __future__ import annotations

from proxy_core.wire.dialects import Dialect

RawHeaders = list[tuple[bytes, bytes]]
CREDENTIAL_HEADERS = (b"authorization", b"x-api-key", b"api-key")


def is_credential(name: bytes) -> bool:
    """Whether a header (lower case) carries a credential."""
    return name in CREDENTIAL_HEADERS


def add_credential(headers: RawHeaders, dialect: Dialect, api_key: str) -> None:
    """Give the configured key where there is none."""
    if any(is_credential(name) for name, _ in headers):
        return
    if dialect is Dialect.ANTHROPIC:
        headers.append((b"x-api-key", api_key.encode()))
    else:
        headers.append((b"authorization", b"Bearer " + api_key.encode()))
