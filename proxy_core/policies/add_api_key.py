"""Puts a credential into requests: from the configuration, the environment, or what an earlier policy found.

The key stands in no verdict, message or error. A key that does not exist, or that no header can carry, is a fault, so
`on_error` decides; nothing is sent with an empty key.
"""

from __future__ import annotations

import os
from typing import ClassVar, Literal, Self

from pydantic import Field, SecretStr, model_validator

from proxy_core.policies.base import ControlPolicy, PolicyFault, PolicyParams
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.dialects import Dialect

CREDENTIAL_HEADERS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
"""The headers in which clients send keys."""

Header = Literal["auto", "authorization", "x-api-key"]


class AddApiKeyParams(PolicyParams):
    source: Literal["config", "environment", "context"] = "environment"
    """Where the key comes from: `api_key` here, an environment variable, or `context.data`."""
    api_key: SecretStr | None = None
    """The key, of source `config`; best written as `${VARIABLE}`."""
    env: str = Field(default="OPENAI_API_KEY", min_length=1)
    """Name of the variable, of source `environment`; it is read at each request."""
    context_key: str = Field(default="api_key", min_length=1)
    """Name in `context.data` under which an earlier policy left the key, of source `context`."""
    header: Header = "auto"
    """The header that carries it: `x-api-key` as it is, or `authorization` as bearer token; `auto` asks the upstream's API."""
    keep_client_key: bool = True
    """Whether a key that the client sent stays; else it is replaced."""

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.source == "config" and (self.api_key is None or not self.api_key.get_secret_value().strip()):
            raise ValueError("source 'config' needs 'api_key'")
        return self


class AddApiKeyPolicy(ControlPolicy[AddApiKeyParams]):
    """Puts an API key into requests that carry none, or into all."""

    params_model = AddApiKeyParams
    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.REQUEST})

    async def apply(self, context: TransactionContext) -> TransactionContext:
        params = self.params
        if params.keep_client_key and any(context.header(name).strip() for name in CREDENTIAL_HEADERS):
            context.verdict("allow", Reason.API_KEY_KEPT)
            return context
        key: object
        if params.source == "config":
            key, where = params.api_key, "the configuration"
        elif params.source == "environment":
            key, where = os.environ.get(params.env), f"the environment variable {params.env}"
        else:
            key, where = context.data.get(params.context_key), f"context.data['{params.context_key}']"
        put_key(context, key, where, params.header)
        return context


def put_key(context: TransactionContext, key: object, where: str, header: Header = "auto") -> None:
    """Put a key into the request, in place of the client's. `where` says where it should be. Raises PolicyFault."""
    if isinstance(key, SecretStr):
        key = key.get_secret_value()
    if isinstance(key, bytes):
        key = key.decode("latin-1")
    if not isinstance(key, str) or not key.strip():
        raise PolicyFault(Reason.API_KEY_MISSING, f"there is no key in {where}")
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise PolicyFault(Reason.API_KEY_MISSING, f"what stands in {where} is no key: it has characters that no header can carry")
    name = header
    if name == "auto":
        # Anthropic takes its OAuth tokens as bearer tokens only.
        as_token = context.route.dialect is not Dialect.ANTHROPIC or key.startswith("sk-ant-oat")
        name = "authorization" if as_token else "x-api-key"
    for other in CREDENTIAL_HEADERS:
        context.remove_header(other)
    context.set_header(name.encode("ascii"), (f"Bearer {key}" if name == "authorization" else key).encode("ascii"))
    context.verdict("modify", Reason.API_KEY_ADDED, header=name, source=where)
