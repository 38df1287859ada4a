"""Lets in clients that send a configured key, and nobody else.

A key is taken from `Authorization: Bearer`, `x-api-key` or `api-key`. Keys are compared by their SHA-256 in constant time,
so how long it takes tells nothing of them. What is refused gets 401 in the client's dialect; no key is ever echoed.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import ClassVar, Self

from pydantic import Field, field_validator

from proxy_core.policies.base import ControlPolicy, PolicyDenied, PolicyParams
from proxy_core.routing.reasons import Reason
from proxy_core.settings import ClientKeySettings, Settings
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage

_KEY_HEADERS = (b"x-api-key", b"api-key")


class ClientApiKeyAuthParams(PolicyParams):
    keys: dict[str, ClientKeySettings] = Field(default_factory=dict)
    """The keys by name, each with `key` or its `sha256`, and `active`; where none stand here, those of the section `keys`."""
    forward_key: bool = False
    """Whether the client's key goes on to the upstream; else it is taken out, and the upstream's own is used."""

    @field_validator("keys")
    @classmethod
    def _can_be_compared(cls, keys: dict[str, ClientKeySettings]) -> dict[str, ClientKeySettings]:
        for name, one in keys.items():
            if one.sha256 is None and (one.key is None or not one.key.get_secret_value()):
                raise ValueError(f"key '{name}' needs 'key' or 'sha256'")
        return keys


class ClientApiKeyAuthPolicy(ControlPolicy[ClientApiKeyAuthParams]):
    """Lets in clients that send a configured key, and nobody else."""

    params_model = ClientApiKeyAuthParams
    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.REQUEST})

    def __init__(self, params: ClientApiKeyAuthParams) -> None:
        super().__init__(params)
        self._digests = [(name, _digest_of(one), one.active) for name, one in params.keys.items()]

    @classmethod
    def built(cls, params: ClientApiKeyAuthParams, settings: Settings, place: str) -> Self:
        """Take the keys of the settings where the parameters name none."""
        if not params.keys and settings.keys:
            params = ClientApiKeyAuthParams(keys=settings.keys, forward_key=params.forward_key)
        return cls(params)

    async def apply(self, context: TransactionContext) -> TransactionContext:
        sent = _sent_keys(context)
        if not sent:
            raise PolicyDenied(
                Reason.CLIENT_KEY_MISSING, "send a key of this gateway as 'Authorization: Bearer KEY' or 'x-api-key'", status=401
            )
        known = ""
        for key in sent:
            found, active = self._find(key)
            if active:
                context.key = found
                if not self.params.forward_key:
                    for header in (b"authorization", *_KEY_HEADERS):
                        context.remove_header(header)
                context.verdict("allow", Reason.PASSED, key=found)
                return context
            known = known or found
        if known:
            raise PolicyDenied(Reason.CLIENT_KEY_INACTIVE, "this key is switched off", status=401)
        raise PolicyDenied(Reason.CLIENT_KEY_UNKNOWN, "this key is not known here", status=401)

    def _find(self, key: bytes) -> tuple[str, bool]:
        """Name of the key and whether it is active; every configured key is compared, whichever it is."""
        digest = hashlib.sha256(key).digest()
        name, accepted = "", False
        for one, wanted, active in self._digests:
            if hmac.compare_digest(digest, wanted) and not accepted:
                name, accepted = one, active
        return name, accepted


def _digest_of(one: ClientKeySettings) -> bytes:
    if one.sha256 is not None:
        return bytes.fromhex(one.sha256)
    return hashlib.sha256(one.key.get_secret_value().encode("utf-8") if one.key else b"").digest()


def _sent_keys(context: TransactionContext) -> list[bytes]:
    """The keys that the client sent, each once, in order."""
    found: dict[bytes, None] = {}
    for name, value in context.request_headers:
        if name == b"authorization":
            scheme, _, token = value.strip().partition(b" ")
            if scheme.lower() == b"bearer" and token.strip():
                found[token.strip()] = None
        elif name in _KEY_HEADERS and value.strip():
            found[value.strip()] = None
    return list(found)[:8]
