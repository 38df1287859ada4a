"""TransactionContext: one transaction as policies see it, read it and change it.

Before the send `response` is None; after it both are there. The cheap forms (`request_body`, `request_headers`,
`response_body`, …) and the httpx forms (`request`, `response`) are two views of the same thing: what a policy changes in
one shows in the other. Views are computed when asked for, so a policy pays for what it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from proxy_core.routing.reasons import Reason
from proxy_core.verdicts import SEVERITY, Action, Mode, Ran, Stage, Verdict
from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Answer, Block, Conversation, Usage
from proxy_core.wire.dialects import Dialect, Operation
from proxy_core.wire.headers import value_of

if TYPE_CHECKING:
    import httpx

    from proxy_core.wire.editing import TextPart

RawHeaders = list[tuple[bytes, bytes]]


class SessionView(Struct, frozen=True):
    """The session that the transaction belongs to."""

    session_id: str = ""
    predecessor: str = ""
    """The expired session that it continues."""
    parent: str = ""
    """The session whose agent started this one's."""
    link: str = ""
    """How the session was told: `header`, `mark`, `response`, `prefix`, `inferred`, `new` or `none`."""
    side: bool = False
    """Whether this request stands beside the conversation: a title, a summary, a memory."""


class Route(Struct, frozen=True):
    """Where the request goes, and why."""

    upstream: str
    """Name of a configured upstream."""
    reason: str
    """A value of Reason."""
    dialect: Dialect
    """The API that the upstream speaks."""


class WholeResponse(Struct, frozen=True, kw_only=True):
    """An upstream's whole answer to one request."""

    status: int
    headers: RawHeaders
    """Without hop-by-hop headers and content encoding."""
    body: bytes
    """Decoded."""
    upstream: str
    answer: Answer | None = None
    """None where the body is not of an operation that luthien reads."""
    cost_usd: float | None = None
    ms: float = 0.0


class HoldOutcome(Struct, frozen=True, kw_only=True):
    """How a hold ended."""

    decision: str
    """`approve`, `edit` or `deny`."""
    reason: Reason
    """APPROVED, APPROVED_EDITED, DENIED_BY_OPERATOR, HOLD_EXPIRED, HOLD_CAP_REACHED, HOLD_SHUTDOWN."""
    message: str = ""
    """What the operator says to the client, where something was denied."""
    edited: str | None = None
    """The new content after `edit`: of a tool call its arguments as JSON text, of a request or response its body."""
    who: str = ""


class Services(Protocol):
    """What a policy may ask of the gateway."""

    async def send(
        self, context: TransactionContext, *, upstream: str | None = None, target: bytes | None = None, body: bytes | None = None
    ) -> WholeResponse:
        """Send the context's request, or one like it, and read the whole answer.

        The cost is counted as the transaction's. Raises UpstreamError.
        """
        ...

    async def hold(
        self,
        context: TransactionContext,
        *,
        stage: Stage,
        why: str,
        content: str,
        timeout_s: float,
        on_timeout: str,
        tool: str = "",
        call_id: str = "",
        tool_schema: str = "",
    ) -> HoldOutcome:
        """Put something before the operator and wait. Raises ClientGone where the client leaves."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether something of this transaction is before the operator."""
        ...

    def upstream_dialect(self, name: str) -> Dialect:
        """The API that the upstream `name` speaks. Raises UnknownUpstream."""
        ...

    def upstream_at(self, url: str) -> str | None:
        """Name of the configured upstream whose root is `url`; None where none is. A request can never reach another."""
        ...

    def secrets(self, context: TransactionContext) -> tuple[bytes, ...]:
        """The credentials known in this transaction: never to be shown or recorded."""
        ...


class Snapshot:
    """What a transaction was before a policy touched it."""

    __slots__ = ("_state", "context")

    def __init__(self, context: TransactionContext, state: tuple[Any, ...]) -> None:
        self.context = context
        self._state = state

    def restore(self) -> None:
        context = self.context
        (
            context._method,
            context._target,
            context._request_headers,
            context._request_body,
            context._response_status,
            context._response_headers,
            context._response_body,
            context.route,
        ) = self._state
        context._request = context._response = context._conversation = context._answer = None


class TransactionContext:
    """One transaction on its way through the policies."""

    def __init__(
        self,
        *,
        transaction_id: str,
        dialect: Dialect,
        operation: Operation,
        method: str,
        target: bytes,
        headers: RawHeaders,
        body: bytes,
        base_url: str = "",
        stream: bool = False,
        route: Route,
        services: Services,
        session: SessionView = SessionView(),  # noqa: B008 - immutable
        agent: str = "",
        key: str = "",
        user: str = "",
        workflow: str = "",
        tags: dict[str, str] | None = None,
        timing: dict[str, float] | None = None,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.transaction_id = transaction_id
        self.dialect = dialect
        """The dialect that the client speaks."""
        self.operation = operation
        self.stream = stream
        """Whether the client asked for a stream, and after the send: whether the answer is one."""
        self.data: dict[Any, Any] = {}
        """For policies: anything that a later one should know."""
        self.session = session
        self.agent = agent
        self.key = key
        """Name of the client's key where it is configured, else a short fingerprint; never the key."""
        self.user = user
        """Whom the request is made for, as the client says."""
        self.workflow = workflow
        """From a path that begins with `/agent-workflow/{id}`."""
        self.tags = dict(tags) if tags else {}
        self.route = route
        self.services = services
        self.verdicts: list[Verdict] = []
        self.passed: dict[str, float] = {}
        """Policies that ran and had nothing to say, with the time they took, in ms."""
        self.earlier: tuple[Verdict, ...] = ()
        """On the copy of a policy in shadow mode: what was said before it; `verdicts` holds the copy's own."""
        self.timing = timing if timing is not None else {}
        """Milliseconds since the first byte of the request, by point."""
        self.shadow = False
        """Whether this is the copy that a policy in shadow mode works on: what it does here changes nothing."""
        self.policy = ""
        """Name of the policy that is running."""
        self.stage = Stage.REQUEST
        self._mode: Mode = "enforce"
        self._clock = clock
        self._method = method
        self._target = target
        self._request_headers = headers
        self._request_body = body
        self._base_url = base_url
        self._response_status: int | None = None
        self._response_headers: RawHeaders = []
        self._response_body = b""
        self._request: httpx.Request | None = None
        self._response: httpx.Response | None = None
        self._request_seen: Any = None
        self._response_seen: Any = None
        self._conversation: Conversation | None = None
        self._answer: Answer | None = None

    # --- the request that goes upstream ---

    @property
    def method(self) -> str:
        return self._method

    @property
    def target(self) -> bytes:
        """Path and query as they go to the upstream, percent-encoded."""
        self.settle()
        return self._target

    @property
    def request_headers(self) -> RawHeaders:
        """End-to-end headers in order, names in lower case. Change them through `set_header` and `remove_header`."""
        self.settle()
        return self._request_headers

    @property
    def request_body(self) -> bytes:
        self.settle()
        return self._request_body

    @request_body.setter
    def request_body(self, body: bytes) -> None:
        self.settle()
        self._request_body = body
        self._request = self._conversation = None

    def header(self, name: bytes) -> str:
        """The request's header, empty where it is absent."""
        return value_of(self.request_headers, name)

    def set_header(self, name: bytes, value: bytes) -> None:
        """Put a header into the request, in place of any of that name (lower case)."""
        self._request_headers = [one for one in self.request_headers if one[0] != name] + [(name, value)]
        self._request = None

    def remove_header(self, name: bytes) -> int:
        """Take all headers of that name (lower case) out of the request, and say how many there were."""
        before = self.request_headers
        self._request_headers = [one for one in before if one[0] != name]
        self._request = None
        return len(before) - len(self._request_headers)

    @property
    def request(self) -> httpx.Request | None:
        """The request that goes upstream, as httpx has it. Changes to it count."""
        if self._request is None:
            import httpx

            url = (self._base_url or "http://upstream") + self._target.decode("latin-1")
            headers = [*self._request_headers]
            self._request = httpx.Request(self._method, url, headers=headers, content=self._request_body)
            self._request_seen = (self._request.url, list(self._request.headers.raw), self._request_body)
        return self._request

    @request.setter
    def request(self, request: httpx.Request | None) -> None:
        self._request = request
        self._request_seen = None
        self.settle()

    @property
    def conversation(self) -> Conversation:
        """The request as a person reads it. One that cannot be read has `problem` set."""
        self.settle()
        if self._conversation is None:
            codec = codec_for(self.operation)
            self._conversation = (
                codec.read_request(self._request_body)
                if codec is not None
                else Conversation(problem=f"luthien does not read bodies of operation '{self.operation.value}'")
            )
        return self._conversation

    def edit_request_texts(self, edit: Callable[[TextPart], str | None]) -> int:
        """Give every text of the request to `edit`, which returns the new text, or None to leave it; how many changed.

        Untouched messages keep their bytes. Raises UnreadableBody where the body cannot be read.
        """
        from proxy_core.wire.editing import edit_request_texts

        body, changed = edit_request_texts(self.operation, self.request_body, edit)
        if changed:
            self.request_body = body
        return changed

    def set_request_field(self, name: str, value: Any) -> None:
        """Set one top-level field of the request's JSON body; the others keep their bytes. Raises UnreadableBody."""
        from proxy_core.wire.editing import set_field

        self.request_body = set_field(self.request_body, name, value)

    # --- the response that goes to the client ---

    @property
    def response_status(self) -> int | None:
        """None before the send."""
        self.settle()
        return self._response_status

    @property
    def response_headers(self) -> RawHeaders:
        self.settle()
        return self._response_headers

    @property
    def response_body(self) -> bytes:
        """The whole body where it is there; empty while a stream runs."""
        self.settle()
        return self._response_body

    @response_body.setter
    def response_body(self, body: bytes) -> None:
        self.settle()
        self._response_body = body
        self._response = self._answer = None

    def set_response(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Give the transaction a response; before the send this means that nothing is sent."""
        self._response_status, self._response_headers, self._response_body = status, headers, body
        self._response = self._answer = None

    @property
    def response(self) -> httpx.Response | None:
        """The response as httpx has it, None before the send. Changes to it count."""
        if self._response is None and self._response_status is not None:
            import httpx

            self._response = httpx.Response(
                self._response_status, headers=self._response_headers, content=self._response_body, request=self.request
            )
            self._response_seen = (self._response_status, list(self._response.headers.raw), self._response_body)
        return self._response

    @response.setter
    def response(self, response: httpx.Response | None) -> None:
        self._response = response
        self._response_seen = None
        if response is None:
            self._response_status, self._response_headers, self._response_body = None, [], b""
            self._answer = None
        self.settle()

    @property
    def answer(self) -> Answer | None:
        """The response as a person reads it; None before the send and where nobody can read it."""
        self.settle()
        if self._answer is None and self._response_status is not None:
            codec = codec_for(self.operation)
            if codec is None:
                return None
            if value_of(self._response_headers, b"content-type").startswith(("text/event-stream", "application/x-ndjson")):
                decoder = codec.stream_decoder()
                decoder.feed(self._response_body)
                self._answer = decoder.finish()
            else:
                self._answer = codec.read_response(self._response_body)
        return self._answer

    @property
    def usage(self) -> Usage | None:
        answer = self.answer
        return answer.usage if answer is not None else None

    def edit_answer(self, edit: Callable[[Block], Sequence[Block] | None]) -> int:
        """Give every block of the response to `edit`, which returns what stands in its place, or None to leave it.

        Works on JSON bodies and on whole streams; ids, indices, order and stop reason stay legal. Returns how many
        blocks changed. Raises UnreadableBody.
        """
        from proxy_core.wire.editing import edit_answer

        content_type = value_of(self.response_headers, b"content-type")
        body, changed = edit_answer(self.operation, content_type, self.response_body, edit)
        if changed:
            self.response_body = body
        return changed

    # --- what policies say ---

    def verdict(
        self,
        action: Action,
        reason: Reason,
        message: str = "",
        *,
        ran: Ran = "ran",
        score: float | None = None,
        stage: Stage | None = None,
        **detail: Any,
    ) -> None:
        """Record what the running policy did. A policy that says nothing gets `allow`, `passed` from the chain.

        Raises ValueError for an action or reason that does not exist.
        """
        if action not in SEVERITY:
            raise ValueError(f"a verdict's action is one of {', '.join(SEVERITY)}; not {action!r}")
        self.verdicts.append(
            Verdict(
                policy=self.policy,
                stage=stage or self.stage,
                mode=self._mode,
                ran=ran,
                action=action,
                reason=Reason(reason),
                message=message[:2_000],
                score=score,
                at_ms=round(self._clock(), 3),
                detail=detail,
            )
        )

    def fork(self) -> TransactionContext:
        """A copy for a policy in shadow mode: it shares what never changes and owns what may."""
        self.settle()
        copy = TransactionContext.__new__(TransactionContext)
        copy.__dict__.update(self.__dict__)
        copy.data = dict(self.data)
        copy.tags = dict(self.tags)
        copy.verdicts = []
        copy.earlier = (*self.earlier, *self.verdicts)
        copy._request = copy._response = None
        copy.shadow = True
        copy._mode = "shadow"
        return copy

    @property
    def largest_body(self) -> int:
        """Bytes of the larger of the two bodies."""
        if self._request is not None or self._response is not None:
            self.settle()
        return max(len(self._request_body), len(self._response_body))

    def view(self, policy: str) -> TransactionContext:
        """The same transaction as one policy of a stream has it: what it says is said under its own name."""
        view = TransactionContext.__new__(TransactionContext)
        view.__dict__.update(self.__dict__)
        view.policy = policy
        return view

    def snapshot(self) -> Snapshot:
        """The state that a policy may change, to be put back if it fails halfway."""
        if self._request is not None or self._response is not None:
            self.settle()
        return Snapshot(
            self,
            (
                self._method,
                self._target,
                self._request_headers,
                self._request_body,
                self._response_status,
                self._response_headers,
                self._response_body,
                self.route,
            ),
        )

    def settle(self) -> None:
        """Take over what was changed in the httpx forms."""
        request = self._request
        if request is not None:
            now = (request.url, list(request.headers.raw), request.content)
            seen = self._request_seen
            if seen is None or now != seen:
                self._take_request(request, headers_changed=seen is None or now[1] != seen[1])
                self._request_seen = now
        response = self._response
        if response is not None:
            there = (response.status_code, list(response.headers.raw), response.content)
            if self._response_seen is None or there != self._response_seen:
                self._response_status, self._response_body = there[0], there[2]
                self._response_headers = [(name.lower(), value) for name, value in there[1]]
                self._response_seen = there
                self._answer = None

    def _take_request(self, request: httpx.Request, *, headers_changed: bool) -> None:
        self._method = request.method
        self._target = request.url.raw_path
        if headers_changed:
            own = (b"host", b"content-length", b"transfer-encoding")
            self._request_headers = [(name.lower(), value) for name, value in request.headers.raw if name.lower() not in own]
        if request.content != self._request_body:
            self._request_body = request.content
            self._conversation = None
