"""Sends each request once, with some of its fields replaced, to a chosen upstream.

The endpoint must be a configured upstream: a request can reach no other. Fields that are not named keep their bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field

from proxy_core.errors import ConfigurationError, UnknownUpstream
from proxy_core.policies.add_api_key import put_key
from proxy_core.policies.base import ControlPolicy, PolicyFault, PolicyParams
from proxy_core.routing.reasons import Reason
from proxy_core.settings import Settings
from proxy_core.transaction import Route, TransactionContext
from proxy_core.wire.dialects import Dialect
from proxy_core.wire.editing import UnreadableBody


class BackendCallSpec(PolicyParams):
    """What is put in place of the client's."""

    model: str | None = None
    """Name of the model."""
    api_endpoint: str | None = None
    """Root of a configured upstream, such as `https://api.openai.com/v1`, or its name; None keeps the client's."""
    api_key_env_var: str | None = None
    """Environment variable with the key for the client's own upstream; another upstream uses the key of its settings."""
    request_args: dict[str, Any] = Field(default_factory=dict)
    """Other fields of the request's body."""


class BackendCallParams(PolicyParams):
    backend_call_spec: BackendCallSpec = BackendCallSpec()
    """What is sent otherwise than the client asked."""


class BackendCallPolicy(ControlPolicy[BackendCallParams]):
    """Sends each request once, with model, upstream and other fields as configured."""

    params_model: ClassVar[type[PolicyParams]] = BackendCallParams
    sends: ClassVar[bool] = True
    default_deadline_s: ClassVar[float] = 600.0

    def __init__(self, params: BackendCallParams, *, environment: Mapping[str, str] = os.environ) -> None:
        super().__init__(params)
        self._environment = environment

    @classmethod
    def built(cls, params: BackendCallParams, settings: Settings, place: str) -> Self:
        """Refuse an endpoint that is no configured upstream. Raises ConfigurationError."""
        endpoint = params.backend_call_spec.api_endpoint
        roots = {_root(one.base_url) for one in settings.upstreams.values()}
        if endpoint is not None and endpoint not in settings.upstreams and _root(endpoint) not in roots:
            where = f"{place}.params" if place else "params"
            raise ConfigurationError(
                f"{where}.backend_call_spec.api_endpoint: no upstream has this base_url; add one under 'upstreams'"
            )
        return cls(params)

    async def apply(self, context: TransactionContext) -> TransactionContext:
        """Send and wait. Raises UpstreamError."""
        if context.shadow:
            context.verdict("allow", Reason.NOT_APPLICABLE, "a copy sends nothing", ran="skipped")
            return context
        spec = self.params.backend_call_spec
        before = context.route.upstream
        name = self._upstream(context)
        fields = ({"model": spec.model} if spec.model is not None else {}) | spec.request_args
        try:
            for field, value in fields.items():
                context.set_request_field(field, value)
        except UnreadableBody as error:
            raise PolicyFault(Reason.UNSUPPORTED_DIALECT, str(error)) from error
        if spec.api_key_env_var is not None and name == before:
            variable = spec.api_key_env_var
            put_key(context, self._environment.get(variable), f"the environment variable {variable}")
        answer = await context.services.send(context, upstream=name)
        context.set_response(answer.status, answer.headers, answer.body)
        context.verdict(
            "route" if name != before else "modify" if fields else "allow",
            Reason.BACKEND_SET,
            upstream=name,
            instead_of=before,
            fields=sorted(fields),
            status=answer.status,
            cost_usd=answer.cost_usd,
        )
        return context

    def _upstream(self, context: TransactionContext) -> str:
        """The upstream that is asked, as the transaction's route. Raises PolicyFault."""
        endpoint = self.params.backend_call_spec.api_endpoint
        if endpoint is None:
            return context.route.upstream
        try:
            name = context.services.upstream_at(_root(endpoint)) if "://" in endpoint else endpoint
            if name is None:
                raise PolicyFault(Reason.POLICY_ERROR, "no configured upstream has the URL of 'api_endpoint'")
            api = context.services.upstream_dialect(name)
        except UnknownUpstream as error:
            raise PolicyFault(Reason.POLICY_ERROR, str(error)) from error
        if api is not context.dialect and not (context.dialect is Dialect.OPENAI and api is Dialect.OLLAMA):
            raise PolicyFault(
                Reason.UNSUPPORTED_DIALECT,
                f"upstream '{name}' speaks the API of {api.value}, and the client that of {context.dialect.value}",
            )
        if name != context.route.upstream:
            context.route = Route(name, Reason.BACKEND_SET, api)
        return name


def _root(url: str) -> str:
    """The URL in the form in which upstreams are configured."""
    root = url.strip().rstrip("/")
    for tail in ("/v1", "/api"):
        root = root.removesuffix(tail)
    return root
