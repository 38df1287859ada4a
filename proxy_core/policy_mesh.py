"""Policy Mesh's own HTTP surface: `/v1/chat`, `/v1/routes`, `/v1/audit/{request_id}`, `/v1/health`, `/v1/metrics`.

A chat is a transaction like any other: the rules choose its upstream, it is sent in that upstream's own API, and the way leads
through the gateway, its policies and its journal. The answer is always 200 and says how it went; a body that is none is 422.
What the audit tells is in the journal before the answer leaves. A prompt is told of by a keyed hash, never in the open.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct
from prometheus_client import Counter, Histogram
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from proxy_core.credentials import require_credential, without_credentials
from proxy_core.errors import ClientGone, KeyRefused, LuthienError
from proxy_core.gateway import Gateway
from proxy_core.ids import ulid_of, uuid_of
from proxy_core.interceptors.metrics import GatewayMetrics
from proxy_core.journal.journal import Journal
from proxy_core.journal.records import LateVerdicts
from proxy_core.limits.client_keys import KeyCheck
from proxy_core.routing.decision import LOCAL, PUBLIC, decide
from proxy_core.routing.reasons import Reason
from proxy_core.routing.router import Router
from proxy_core.routing.upstreams import Upstream, Upstreams
from proxy_core.settings import Settings
from proxy_core.transaction_row import TransactionRow
from proxy_core.verdicts import Stage, Verdict
from proxy_core.wire.codec import codec_for
from proxy_core.wire.dialects import Dialect, Endpoint, Operation

log = logging.getLogger(__name__)

Answer = Callable[[Request], Awaitable[Response]]

AUDIT_PREFIX = "/v1/audit/"
PATHS = frozenset({"/v1/chat", "/v1/routes", "/v1/health", "/v1/metrics"})
EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PROVIDERS = (LOCAL, "openai", "anthropic", "ollama")
FAILURES = (None, "timeout", "auth_error", "client_error", "server_error", "unknown")
_VERDICT = "policy_mesh"
"""The name under which the journal has what the audit tells."""
_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_ENDPOINTS = {
    Dialect.OPENAI: Endpoint(Dialect.OPENAI, Operation.CHAT, "/v1/chat/completions", Dialect.OPENAI),
    Dialect.ANTHROPIC: Endpoint(Dialect.ANTHROPIC, Operation.MESSAGES, "/v1/messages", Dialect.ANTHROPIC),
    Dialect.OLLAMA: Endpoint(Dialect.OLLAMA, Operation.OLLAMA_CHAT, "/api/chat", Dialect.OLLAMA),
}
_DEFAULT_MODELS = {
    Dialect.OPENAI: "gpt-3.5-turbo",
    Dialect.ANTHROPIC: "claude-3-5-sonnet-20241022",
    Dialect.OLLAMA: "llama2",
}
"""Where neither the client nor `default_model` of the upstream names one."""
_MAX_TOKENS = 1024
_OF_THE_OUTER_BODY = frozenset(
    {b"content-length", b"content-type", b"content-encoding", b"transfer-encoding", b"accept-encoding", b"expect"}
)


class ChatMessage(BaseModel):
    role: str
    content: str


class ChatRequest(BaseModel):
    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = None


class ChatAnswer(Struct, kw_only=True):
    """The body of every answer to a chat."""

    request_id: str
    provider: str
    """`local`, or the API of an upstream that is not."""
    reason_codes: list[str]
    content: str | None = None
    error: str | None = None


class _Captured:
    """What the gateway answers to a transaction that is begun here."""

    def __init__(self, request: Request, body: bytes, missing: LuthienError | None) -> None:
        self._request = request
        self._body: bytes | None = body
        self._missing = missing
        self.row: TransactionRow | None = None
        self.status = 0
        self.body = bytearray()

    def begun(self, row: TransactionRow) -> None:
        self.row = row

    async def receive(self) -> MutableMapping[str, Any]:
        """The request's body, once; then whatever the client does. Raises what must end it before it is sent."""
        if self._missing is not None:
            raise self._missing
        if self._body is None:
            return await self._request.receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")


class PolicyMesh:
    """The routes, over a gateway that serves."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        router: Router,
        upstreams: Upstreams,
        journal: Journal,
        metrics: GatewayMetrics,
        settings: Settings,
        keys: KeyCheck | None,
    ) -> None:
        """`keys` is who lets clients in, None where none are asked for."""
        self._gateway = gateway
        self._router = router
        self._upstreams = upstreams
        self._journal = journal
        self._metrics = metrics
        self._max_body_bytes = settings.server.max_body_bytes
        self._passes_keys_on = settings.server.auth == "passthrough"
        self._audits = settings.server.audit
        self._keys = keys
        registry = metrics.registry
        self._chats = Counter("chat_requests", "Chats by POST /v1/chat.", ["provider", "status"], registry=registry)
        self._latency = Histogram(
            "chat_request_latency_seconds", "Time of a chat.", ["provider"], buckets=_BUCKETS, registry=registry
        )
        self.routes = [
            Route("/v1/chat", self._chat, methods=["POST"]),
            Route("/v1/routes", self._guarded(self._routes), methods=["GET"]),
            Route(AUDIT_PREFIX + "{request_id}", self._guarded(self._audit), methods=["GET"]),
            Route("/v1/health", self._health, methods=["GET"]),
            Route("/v1/metrics", self._guarded(self._exposition), methods=["GET"]),
        ]

    def _guarded(self, answer: Answer) -> Answer:
        """The same for who has a key, where keys are asked for."""

        async def guarded(request: Request) -> Response:
            if self._keys is not None:
                try:
                    await self._keys.require(request.scope["headers"], request.scope["query_string"])
                except KeyRefused as refused:
                    return JSONResponse({"detail": str(refused)}, refused.face.status)
            return await answer(request)

        return guarded

    # --- a chat ---

    async def _chat(self, request: Request) -> Response:
        try:
            raw = await self._body(request)
        except ClientGone:
            return Response(status_code=499)
        if raw is None:
            limit = f"the body has more than {self._max_body_bytes:,} bytes"
            return JSONResponse({"detail": limit}, 413, headers={"connection": "close"})
        try:
            asked = ChatRequest.model_validate_json(raw)
        except ValidationError as fault:
            errors = fault.errors(include_url=False, include_context=False, include_input=False)
            return JSONResponse({"detail": [{**one, "loc": ["body", *one["loc"]]} for one in errors]}, 422)
        except RecursionError:
            return JSONResponse({"detail": [{"type": "json_invalid", "loc": ["body"], "msg": "nested too deeply"}]}, 422)
        answer = await self._transact(request, asked)
        text = json.dumps(msgspec.to_builtins(answer))  # all ASCII: an upstream's text may be no Unicode
        return Response(text, media_type="application/json", headers={"x-request-id": answer.request_id})

    async def _body(self, request: Request) -> bytes | None:
        """None where it is larger than the limit. Raises ClientGone."""
        body = bytearray()
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone("the client left before its request was complete")
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body)

    async def _transact(self, request: Request, asked: ChatRequest) -> ChatAnswer:
        started = time.perf_counter()
        headers = [one for one in request.scope["headers"] if one[0] not in _OF_THE_OUTER_BODY]
        if self._passes_keys_on:
            # A client's own key would be meant for one provider, and here the rules choose it.
            headers = without_credentials(headers)
        upstream, reasons = self._choose(headers, asked)
        endpoint = _ENDPOINTS[upstream.api if upstream is not None else Dialect.OPENAI]
        missing = self._missing_key(upstream, headers)
        captured = _Captured(request, _body_for(endpoint, asked, upstream), missing)
        headers += [(b"content-type", b"application/json"), (b"accept-encoding", b"identity")]
        if endpoint.dialect is Dialect.ANTHROPIC:
            headers = [one for one in headers if one[0] != b"anthropic-version"] + [(b"anthropic-version", b"2023-06-01")]
        path = endpoint.path
        scope = {
            **request.scope,
            "path": path,
            "raw_path": path.encode("ascii"),
            "query_string": b"",
            "headers": headers,
            "extensions": {},
        }
        await self._gateway(scope, captured.receive, captured.send, begun=captured.begun)
        row = captured.row
        if row is None:
            raise LuthienError("a chat was not begun")
        content, error, failure = _outcome(endpoint.operation, captured, row, no_key=missing is not None)
        if row.upstream and missing is None:
            upstream, reasons = self._upstreams.by_name.get(row.upstream), row.reason.split(",")
        answer = ChatAnswer(
            request_id=uuid_of(row.transaction_id),
            provider=_provider(upstream),
            reason_codes=reasons,
            content=content,
            error=error,
        )
        seconds = time.perf_counter() - started
        self._chats.labels(answer.provider, "error" if failure else "success").inc()
        self._latency.labels(answer.provider).observe(seconds)
        await self._record(row, answer, asked, failure, seconds)
        return answer

    def _choose(self, headers: list[tuple[bytes, bytes]], asked: ChatRequest) -> tuple[Upstream | None, list[str]]:
        """Where the rules send the chat: every upstream can take it, because it is put into that upstream's own form."""
        endpoint = _ENDPOINTS[Dialect.OPENAI]
        body = _body_for(endpoint, asked, None)
        question = self._router.question(endpoint, headers=headers, body=body, model=asked.model or "")
        everyone = tuple(msgspec.structs.replace(one, takes=True) for one in question.upstreams)
        usual = question.usual or next((one.name for one in everyone if not one.local), everyone[0].name)
        decision = decide(msgspec.structs.replace(question, upstreams=everyone, usual=usual), self._router.rules)
        return self._upstreams.by_name.get(decision.upstream), list(decision.reasons)

    def _missing_key(self, upstream: Upstream | None, headers: list[tuple[bytes, bytes]]) -> LuthienError | None:
        """The error of a provider that nobody has given a key for: it is not even asked."""
        if upstream is None or upstream.local or upstream.api is Dialect.OLLAMA or upstream.api_key is not None:
            return None
        try:
            require_credential(headers, upstream.name)
        except LuthienError as error:
            return error
        return None

    # --- what is known afterwards ---

    async def _record(
        self, row: TransactionRow, answer: ChatAnswer, asked: ChatRequest, failure: str | None, seconds: float
    ) -> None:
        prompt = next((one.content for one in reversed(asked.messages) if one.role == "user"), "")
        # Numbers alone: of texts the capture mode `metadata` would keep the length.
        detail = {
            "provider": PROVIDERS.index(answer.provider),
            "passed_over": Reason.CAPABILITY_MISSING in answer.reason_codes,
            "failure": FAILURES.index(failure),
            "latency_ms": round(seconds * 1e3, 3),
            "prompt_hash": list(self._journal.digest(prompt.encode("utf-8", "surrogatepass"))),
            "prompt_length": len(prompt),
        }
        said = Verdict(policy=_VERDICT, stage=Stage.REQUEST, mode="enforce", reason=Reason(answer.reason_codes[0]), detail=detail)
        try:
            await self._journal.append(LateVerdicts(transaction_id=row.transaction_id, at_ns=time.time_ns(), verdicts=(said,)))
        except LuthienError as error:
            log.warning("the audit of %s is not in the journal: %s", row.transaction_id, error)

    async def _audit(self, request: Request) -> Response:
        request_id = request.path_params["request_id"]
        transaction_id = ulid_of(request_id) if self._audits else None
        try:
            stored = await self._journal.store.detail(transaction_id) if transaction_id is not None else None
        except (SQLAlchemyError, OSError) as error:
            log.warning("the audit of %s cannot be read: %s", transaction_id, str(error).splitlines()[0])
            stored = None
        for verdict in stored.verdicts if stored is not None else ():
            if stored is not None and verdict.policy == _VERDICT:
                return JSONResponse({"request_id": request_id, **_audit_of(stored.row, verdict)})
        return JSONResponse({"detail": "Audit record not found"}, 404)

    async def _routes(self, request: Request) -> Response:
        rules = self._router.rules
        everyone = self._upstreams.by_name.values()
        named = self._upstreams.by_name.get(rules.default_provider)
        local = named.local if named is not None else rules.default_provider == LOCAL
        public = self._upstreams.usual(Dialect.OPENAI) or next((one for one in everyone if not one.local), None)
        if named is not None and not named.local:
            public = named
        return JSONResponse(
            {
                "rule_order": ["sensitivity", "cost", "default"],
                "sensitivity_keyword_count": len(rules.keywords),
                "cost_max_prompt_length_for_local": rules.max_prompt_length_for_local,
                "usd_cost_mode_active": rules.by_usd,
                "cost_max_usd_for_local": rules.max_usd_for_local,
                "llm_input_usd_per_1m_tokens": rules.input_usd_per_1m_tokens,
                "cost_chars_per_token": rules.chars_per_token,
                "default_provider": LOCAL if local else PUBLIC,
                "available_public_provider": public.api.value if public is not None and not public.local else None,
            }
        )

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _exposition(self, request: Request) -> Response:
        return Response(self._metrics.exposition(), headers={"content-type": EXPOSITION_TYPE})


def _body_for(endpoint: Endpoint, asked: ChatRequest, upstream: Upstream | None) -> bytes:
    """The chat in the form of the endpoint's API."""
    default = upstream.default_model if upstream is not None else None
    model = asked.model or default or _DEFAULT_MODELS[endpoint.dialect]
    messages = [{"role": one.role, "content": one.content} for one in asked.messages]
    fields: dict[str, Any] = {"model": model, "messages": messages, "stream": False}
    if endpoint.dialect is Dialect.ANTHROPIC:
        system = [one.content for one in asked.messages if one.role == "system"]
        fields["messages"] = [one for one in messages if one["role"] != "system"]
        fields["max_tokens"] = _MAX_TOKENS
        if system:
            fields["system"] = "\n".join(system)
    return json.dumps(fields).encode("ascii")


def _audit_of(row: TransactionRow, verdict: Verdict) -> dict[str, Any]:
    """The audit of a chat, from what `_record` put into the journal."""
    detail = verdict.detail
    codes: list[str] = [verdict.reason, *([Reason.CAPABILITY_MISSING] if detail["passed_over"] else [])]
    if row.upstream and row.reason.partition(",")[0] == verdict.reason:
        codes = row.reason.split(",")  # with what became of it on the way
    failure = FAILURES[detail["failure"]]
    return {
        "decision": f"provider={PROVIDERS[detail['provider']]},reason_codes={','.join(codes)}",
        "status": "error" if failure else "success",
        "latency_ms": detail["latency_ms"],
        "failure_category": failure,
        "prompt_hash": bytes(detail["prompt_hash"]).hex(),
        "prompt_length": detail["prompt_length"],
        "created_at": datetime.fromtimestamp(row.started_at, UTC).isoformat(),
    }


def _outcome(
    operation: Operation, captured: _Captured, row: TransactionRow, *, no_key: bool
) -> tuple[str | None, str | None, str | None]:
    """Content, error and category of failure, of which either the first or the other two are there."""
    body, status = bytes(captured.body), captured.status
    codec = codec_for(operation)
    if codec is None:
        raise LuthienError("a chat in a form that nobody reads")
    answer = codec.read_response(body)
    said = answer.error.message if answer.error is not None else ""
    if status >= 400 or not status:
        own = row.ttft_ms is None
        return None, said or row.error or f"status {status}", _category(status, own=own, no_key=no_key)
    if said:
        return None, said, "unknown"
    if answer.problem is not None or not answer.complete:
        return None, f"the answer cannot be read: {answer.problem or 'it is not whole'}", "unknown"
    separator = "\n" if operation is Operation.MESSAGES else ""
    texts = [block.text for block in answer.blocks if hasattr(block, "text")]
    return separator.join(texts), None, None


def _category(status: int, *, own: bool, no_key: bool) -> str:
    """`own`: the upstream has said nothing, the status is luthien's."""
    if no_key or status == 401:
        return "auth_error"
    if own and status == 504:
        return "timeout"
    if 400 <= status < 500:
        return "client_error"
    return "unknown" if own else "server_error"


def _provider(upstream: Upstream | None) -> str:
    return LOCAL if upstream is None or upstream.local else upstream.api.value
