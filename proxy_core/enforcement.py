"""What the policies do with one transaction: which chain it takes, its context, its verdicts, and what came of both.

The gateway asks at the fixed points of a transaction's way; nothing here sends a byte. A transaction whose chain has nothing
to run has no Control at all, and pays nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from proxy_core.credentials import CREDENTIAL_HEADERS, sent_key, without_credentials
from proxy_core.policies.base import Release
from proxy_core.policies.chain import Chain, Chains, Shadows, worst
from proxy_core.policy_services import PolicyServices
from proxy_core.routing.reasons import Reason
from proxy_core.running import RawHeaders, Running
from proxy_core.sessions.identity import OUR_HEADER_PREFIXES
from proxy_core.settings import ClientKeySettings
from proxy_core.transaction import Route, SessionView, TransactionContext
from proxy_core.verdicts import Verdict
from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Answer
from proxy_core.wire.dialects import READ_OPERATIONS, Endpoint
from proxy_core.wire.headers import request_headers


class ChainSource(Protocol):
    """Who knows the chains in force."""

    @property
    def chains(self) -> Chains:
        """The present version; read once for each transaction."""
        ...

    def note(self, verdicts: Sequence[Verdict]) -> None:
        """Take the verdicts of a finished transaction into the statistics."""
        ...


class Control:
    """The policies' side of one transaction."""

    __slots__ = (
        "_clock",
        "_source",
        "altered",
        "chain",
        "context",
        "denied",
        "digest",
        "first_token_offset",
        "late",
        "services",
        "settled",
        "shadows",
        "upstream_answer",
        "upstream_body",
        "upstream_status",
        "waiting",
    )

    def __init__(self, chain: Chain, context: TransactionContext, services: PolicyServices, source: ChainSource) -> None:
        self.chain = chain
        self.digest = chain.digest
        self.context = context
        self.services = services
        self.late: Callable[[list[Verdict]], None] = _lost
        """Takes verdicts that come after the outcome."""
        self.shadows = Shadows(self._late)
        self._source = source
        self.settled = False
        self.denied = False
        """Whether a policy ended the answer's stream."""
        self.upstream_answer: Answer | None = None
        """What the upstream said, where a stream was read for the policies."""
        self.altered = False
        """Whether the client's stream differs from the upstream's."""
        self.first_token_offset = 0
        """Bytes of the upstream's stream before the event that carries the first token."""
        self.upstream_body: bytes | None = None
        """The upstream's body, where it is not what the client gets."""
        self.upstream_status: int | None = None
        self.waiting = False
        """Whether the answer is kept back for the policies just now."""

    @property
    def reads_response(self) -> bool:
        """Whether a policy looks at answers of this operation."""
        return bool(self.chain.response) and self.context.operation in READ_OPERATIONS

    async def before_send(self) -> None:
        """Run the policies on the request. Raises PolicyDenied and what a sending policy could not send."""
        context = self.context
        if self.reads_response:
            context.set_header(b"accept-encoding", b"identity")
        self.context = await self.chain.run_request(context, self.shadows)
        self.services.context = self.context

    async def on_whole(self) -> None:
        """Run the policies on the whole response that the context has. Raises PolicyDenied."""
        self.context = await self.chain.run_response(self.context, self.shadows)

    @property
    def streams(self) -> bool:
        """Whether all policies see the answer's stream event by event."""
        return self.chain.release < Release.FULL

    async def settle(self) -> None:
        """Everything that can be said before the record is written."""
        if self.settled:
            return
        self.settled = True
        await self.shadows.settle()
        context = self.context
        readable = context.operation in READ_OPERATIONS and codec_for(context.operation) is not None
        self.chain.close(context, Reason.NOT_RUN if readable else Reason.NOT_APPLICABLE)
        self._source.note(context.verdicts)

    def _late(self, verdicts: list[Verdict]) -> None:
        self._source.note(verdicts)
        self.late(verdicts)

    @property
    def verdict(self) -> str:
        """The transaction's verdict as it stands; `hold` while something waits for a person."""
        return "hold" if self.services.waiting else worst(self.context.verdicts)

    @property
    def reasons(self) -> str:
        """Codes of what enforcing policies did, in order, comma-separated; empty where they did nothing."""
        codes = [one.reason for one in self.context.verdicts if one.mode == "enforce" and one.action != "allow"]
        return ",".join(dict.fromkeys(codes))


def _lost(verdicts: list[Verdict]) -> None:
    raise RuntimeError("nobody takes late verdicts")


class Enforcement:
    """Gives each transaction the chain that is in force for it."""

    def __init__(
        self,
        *,
        source: ChainSource,
        services: Callable[[Running], PolicyServices],
        keys: Mapping[str, ClientKeySettings],
        digest: Callable[[bytes], bytes],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._source = source
        self._services = services
        self._digest = digest
        self._now = time.monotonic
        self.use_keys(keys)

    def use_keys(self, keys: Mapping[str, ClientKeySettings]) -> None:
        """Know clients by these keys from now on."""
        self._names = {_sha256(one): name for name, one in keys.items()}

    def begin(self, running: Running, endpoint: Endpoint, predecessor: str) -> Control | None:
        """The policies' side of a transaction that is about to be recorded; None where no policy would run."""
        chains = self._source.chains
        upstream = running.upstream
        if chains.idle or upstream is None:
            return None
        row = running.row
        key = self.key_name(running)
        chain = chains.choose(upstream=upstream.name, key=key, agent=row.agent, session=row.session_id)
        if chain.idle:
            return None
        target = endpoint.path.encode("latin-1")
        if running.query:
            target += b"?" + running.query
        services = self._services(running)
        started, now = running.started, self._now
        context = TransactionContext(
            transaction_id=row.transaction_id,
            dialect=endpoint.dialect,
            operation=endpoint.operation,
            method=running.method,
            target=target,
            headers=client_headers(running),
            body=running.body,
            base_url=upstream.base_url,
            stream=row.stream,
            route=Route(upstream.name, row.reason, upstream.api),
            services=services,
            session=SessionView(row.session_id, predecessor, row.parent_session, row.link, row.side),
            agent=row.agent,
            key=key,
            user=row.user,
            workflow=row.workflow,
            tags=running.tags,
            timing=running.timing,
            clock=lambda: (now() - started) * 1e3,
        )
        services.context = context
        return Control(chain, context, services, self._source)

    def key_name(self, running: Running) -> str:
        """The name of the client's key, else a fingerprint that tells nothing of it; empty where it sent none."""
        if running.key is None:
            running.key = self._told_key(running)
        return running.key

    def _told_key(self, running: Running) -> str:
        if running.client_key is not None:
            return running.client_key.name
        for name, value in running.headers:
            if name in CREDENTIAL_HEADERS:
                secret = sent_key(value)
                known = self._names.get(hashlib.sha256(secret).hexdigest()) if self._names else None
                return known or f"key-{self._digest(secret)[:4].hex()}"
        return ""


def client_headers(running: Running) -> RawHeaders:
    """The client's headers as they may go upstream."""
    headers = request_headers(running.headers, OUR_HEADER_PREFIXES)
    return headers if running.client_key is None else without_credentials(headers)


def _sha256(one: ClientKeySettings) -> str:
    if one.sha256 is not None:
        return one.sha256
    return hashlib.sha256(one.key.get_secret_value().encode()).hexdigest() if one.key is not None else ""
