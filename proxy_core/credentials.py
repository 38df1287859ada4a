"""The credential of a request: which headers carry one, and how a configured key takes its place."""

from __future__ import annotations

from proxy_core.errors import UpstreamKeyMissing
from proxy_core.routing.reasons import Reason
from proxy_core.wire.dialects import Dialect

RawHeaders = list[tuple[bytes, bytes]]
CREDENTIAL_HEADERS = (b"authorization", b"x-api-key", b"api-key")
LUTHIEN_KEY = b"lth_"
"""How a key of luthien's own begins."""


def is_credential(name: bytes) -> bool:
    """Whether a header (lower case) carries a credential."""
    return name in CREDENTIAL_HEADERS


def sent_key(value: bytes) -> bytes:
    """The key in a header's value, its scheme aside."""
    secret = value.strip()
    return secret[7:].strip() if secret[:7].lower() == b"bearer " else secret


def without_credentials(headers: RawHeaders) -> RawHeaders:
    """The headers of a client that came with a key of luthien's: what is meant for luthien goes no further."""
    return [one for one in headers if one[0] not in CREDENTIAL_HEADERS and LUTHIEN_KEY not in one[1]]


def require_credential(headers: RawHeaders, upstream: str) -> None:
    """Make sure that something has taken the place of luthien's own key. Raises UpstreamKeyMissing."""
    if not any(is_credential(name) for name, _ in headers):
        raise UpstreamKeyMissing(
            Reason.UPSTREAM_KEY_MISSING,
            f"upstream '{upstream}' has no key to take the place of yours; set 'upstreams.{upstream}.api_key'",
        )


def add_credential(headers: RawHeaders, dialect: Dialect, api_key: str) -> bool:
    """Give the configured key where there is none. Returns whether it was given."""
    if any(is_credential(name) for name, _ in headers):
        return False
    if dialect is Dialect.ANTHROPIC:
        headers.append((b"x-api-key", api_key.encode()))
    else:
        headers.append((b"authorization", b"Bearer " + api_key.encode()))
    return True
