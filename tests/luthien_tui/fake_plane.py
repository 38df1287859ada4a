"""A gateway for the screen's tests: fixed rows, a clock that is set by hand, and no traffic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from proxy_core.control.change_infos import ChangeInfo
from proxy_core.control.feed import Feed, FeedKind, FeedRecord
from proxy_core.control.plane import (
    ControlConflict,
    ControlInvalid,
    ControlNotFound,
    GatewayState,
    HoldInfo,
    ParamInfo,
    PolicyInfo,
    Timing,
    TransactionDetail,
)
from proxy_core.control.route_params import changed, route_params
from proxy_core.control.routing_infos import DecisionInfo, Moved, RoutingInfo, UpstreamInfo, WhatIf
from proxy_core.control.rows import TransactionRow
from proxy_core.control.session_filters import parse_sessions
from proxy_core.control.session_infos import (
    AgentDetail,
    AgentInfo,
    Dashboard,
    SessionDetail,
    SessionInfo,
    SessionPage,
    Totals,
    Turn,
)
from proxy_core.errors import BadRequest
from proxy_core.logs import LogLine
from proxy_core.routing.explaining import Explanation, endpoint_of, explain, request_of
from proxy_core.routing.reasons import Reason
from proxy_core.routing.router import Router, rules_of
from proxy_core.routing.upstreams import Upstreams
from proxy_core.settings import RoutingSettings, Settings
from proxy_core.verdicts import Stage, Verdict

START = 1_772_373_731.0
"""2026-03-01 14:02:11 UTC."""


class FakeClock:
    """Steady seconds that move only when told."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeLogs:
    """Messages given by the test."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []

    def add(self, level: str, logger: str, message: str) -> None:
        number = len(self.lines) + 1
        self.lines.append(LogLine(number, START + number, level, logger, message))

    def since(self, sequence: int) -> list[LogLine]:
        return self.lines[sequence:]


class FakePlane:
    """Answers as a gateway would, from what the test put in."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.feed = Feed()
        self.details: dict[str, TransactionDetail] = {}
        self.live: dict[str, tuple[bytes, bool]] = {}
        self.past: list[TransactionRow] = []
        self.session_infos: list[SessionInfo] = []
        self.session_details: dict[str, SessionDetail] = {}
        self.agent_details: list[AgentDetail] = []
        self.policy_infos: list[PolicyInfo] = []
        self.hold_infos: list[HoldInfo] = []
        self.routing_settings = Settings()
        self.forced = False
        self.routing_reasons: tuple[tuple[str, int], ...] = ()
        self.upstream_infos: list[UpstreamInfo] = []
        self.decisions: list[DecisionInfo] = []
        self.killed: list[tuple[str, str]] = []
        """Transaction and who asked, of each `kill` that found it running."""
        self.shutdowns = 0
        self.gateway = GatewayState(
            address="127.0.0.1:4000",
            status="serving",
            started_at=START,
            active=0,
            total=0,
            store="sqlite",
            journal_status="ok",
            journal_queue=0,
            journal_oldest_ms=0.0,
            spilled=0,
            loop_lag_ms=2.0,
            upstreams=(("openai", "https://api.openai.com"),),
        )

    def wall(self) -> float:
        """Unix time; a hundred seconds after START when the test begins."""
        return START + self.clock.now - 900.0

    def state(self) -> GatewayState:
        return msgspec.structs.replace(self.gateway, sequence=self.feed.last_sequence)

    def events(self, after: int, limit: int = 2_000) -> tuple[list[FeedRecord], int]:
        return self.feed.since(after, limit)

    async def history(self, limit: int, before: str | None = None) -> list[TransactionRow]:
        start = 0 if before is None else next(i for i, row in enumerate(self.past) if row.transaction_id == before) + 1
        return self.past[start : start + limit]

    async def detail(self, transaction_id: str) -> TransactionDetail | None:
        return self.details.get(transaction_id)

    def live_body(self, transaction_id: str, offset: int) -> tuple[bytes, bool] | None:
        if transaction_id not in self.live:
            return None
        body, ended = self.live[transaction_id]
        return body[offset:], ended

    async def sessions(
        self,
        *,
        filter: str = "",  # noqa: A002 - its name everywhere
        tags: Sequence[str] = (),
        agent: str = "",
        status: str = "",
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionPage:
        means, start = parse_sessions(filter), int(cursor or 0)
        found = [info for info in self.session_infos if means(info)]
        more = str(start + limit) if len(found) > start + limit else None
        return SessionPage(sessions=tuple(found[start : start + limit]), next=more)

    async def session(
        self, session_id: str, *, after: int | None = None, before: int | None = None, limit: int = 200
    ) -> SessionDetail | None:
        detail = self.session_details.get(session_id)
        if detail is None:
            return None
        turns = [turn for turn in detail.turns if turn.number > (after or 0) and (before is None or turn.number < before)]
        turns = turns[:limit] if after is not None else turns[-limit:]
        first = turns[0].number if turns else 1
        return msgspec.structs.replace(detail, turns=tuple(turns), before=first if first > 1 else None)

    async def agents(self) -> list[AgentInfo]:
        return [detail.info for detail in self.agent_details]

    async def agent(self, agent_id: str) -> AgentDetail | None:
        return next((detail for detail in self.agent_details if detail.info.id == agent_id), None)

    def story(self, session_id: str) -> AsyncIterator[Turn]:
        raise AssertionError("the screen does not ask for this")

    async def session_tags(self) -> dict[str, dict[str, int]]:
        raise AssertionError("the screen does not ask for this")

    async def changes(self, limit: int, before: int | None = None) -> list[ChangeInfo]:
        raise AssertionError("the screen does not ask for this")

    async def dashboard(self) -> Dashboard:
        return Dashboard(at=self.wall(), since=START, today=Totals(), last_hour=Totals())

    def policies(self) -> list[PolicyInfo]:
        return list(self.policy_infos)

    async def set_policy(
        self, name: str, *, mode: str | None = None, params: dict[str, Any] | None = None, who: str = "operator"
    ) -> PolicyInfo:
        place = next((i for i, one in enumerate(self.policy_infos) if one.name == name), None)
        if place is None:
            raise ControlNotFound(f"there is no policy '{name}'")
        old = self.policy_infos[place]
        if mode not in (None, "enforce", "shadow", "off"):
            raise ControlInvalid("mode", "use enforce, shadow or off")
        known = {one.name: one for one in old.params}
        for field, value in (params or {}).items():
            if field not in known:
                raise ControlInvalid(f"params.{field}", "there is no such parameter")
            low, high = known[field].minimum, known[field].maximum
            if isinstance(value, int | float) and ((low is not None and value < low) or (high is not None and value > high)):
                raise ControlInvalid(f"params.{field}", f"use a value between {low:g} and {high:g}")
            known[field] = msgspec.structs.replace(known[field], value=value)
        new = msgspec.structs.replace(
            old, mode=mode or old.mode, params=tuple(known.values()), source=f"operator {who} at 14:02:11"
        )
        self.policy_infos[place] = new
        self.feed.publish("control_changed", None, f"policy {name} by {who}")
        return new

    def holds(self, *, decided: bool = False) -> list[HoldInfo]:
        pending = [one for one in self.hold_infos if one.status == "pending"]
        return pending + [one for one in self.hold_infos if one.status != "pending"] if decided else pending

    async def decide_hold(
        self, hold_id: str, *, decision: str, shown: str, edited: str | None = None, reason: str = "", who: str = "operator"
    ) -> HoldInfo:
        place, hold = self._hold(hold_id)
        if hold.status != "pending":
            raise ControlConflict(f"already {hold.status} by {hold.decided_by or 'the clock'}")
        if shown != hold.shown:
            raise ControlConflict("what was shown has changed")
        if decision not in ("approve", "edit", "deny"):
            raise ControlInvalid("decision", "use approve, edit or deny")
        if decision == "edit":
            try:
                json.loads(edited or "")
            except ValueError as error:
                raise ControlInvalid("edited", f"this is not JSON: {error}") from error
        status = {"approve": "approved", "edit": "edited", "deny": "denied"}[decision]
        self.hold_infos[place] = msgspec.structs.replace(
            hold, status=status, content=hold.content if edited is None else edited, decided_by=who, message=reason
        )
        self.feed.publish("released", None, hold_id)
        return self.hold_infos[place]

    async def extend_hold(self, hold_id: str, seconds: float, *, who: str = "operator") -> HoldInfo:
        place, hold = self._hold(hold_id)
        if hold.status != "pending":
            raise ControlConflict(f"already {hold.status}")
        self.hold_infos[place] = msgspec.structs.replace(hold, deadline=hold.deadline + seconds)
        self.feed.publish("held", None, hold_id)
        return self.hold_infos[place]

    def explain_route(self, *, path: str, model: str, prompt: str, tags: str = "", body: bytes | None = None) -> Explanation:
        settings = Settings.model_validate({"routing": {"sensitivity": {"keywords": ["internal"]}}})
        upstreams = Upstreams(settings)
        try:
            body = body or request_of(endpoint_of(path, upstreams), model, prompt)
        except BadRequest as error:
            raise ControlInvalid("path", str(error)) from error
        return explain(Router(settings, upstreams), upstreams, path=path, body=body, tags=tags)

    def routing(self) -> RoutingInfo:
        settings = self.routing_settings
        rules = msgspec.structs.replace(rules_of(settings.routing), force_local=self.forced)
        return RoutingInfo(
            rules=route_params(settings.routing, RoutingSettings(), tuple(settings.upstreams)),
            keywords=len(rules.keywords),
            rules_digest=rules.digest,
            override="local" if self.forced else "",
            source="file",
            reasons=self.routing_reasons,
            upstreams=tuple(self.upstream_infos),
            recent=tuple(self.decisions),
        )

    async def set_routing(self, params: dict[str, Any], *, local: bool | None = None, who: str = "operator") -> RoutingInfo:
        self.forced = self.forced if local is None else local
        settings = self.routing_settings
        wanted = changed(settings.routing, params, tuple(settings.upstreams))
        self.routing_settings = settings.model_copy(update={"routing": wanted})
        self.feed.publish("control_changed", None, f"routing by {who}")
        return self.routing()

    async def force_local(self, on: bool, *, who: str = "operator") -> RoutingInfo:
        self.forced = on
        self.feed.publish("control_changed", None, f"routing by {who}")
        return self.routing()

    async def set_upstream(self, name: str, state: str, *, who: str = "operator") -> RoutingInfo:
        place = next((i for i, one in enumerate(self.upstream_infos) if one.name == name), None)
        if place is None:
            raise ControlNotFound(f"there is no upstream '{name}'")
        wanted: Any = state
        self.upstream_infos[place] = msgspec.structs.replace(self.upstream_infos[place], state=wanted)
        self.feed.publish("control_changed", None, f"upstream {name} by {who}")
        return self.routing()

    async def what_if(self, params: dict[str, Any], *, limit: int = 1_000) -> WhatIf:
        """One transaction moves for every hundred characters of the threshold."""
        settings = self.routing_settings
        wanted = changed(settings.routing, params, tuple(settings.upstreams))
        count = (wanted.cost.max_prompt_length_for_local or 0) // 100
        return WhatIf(
            total=limit,
            unread=0,
            moved=count,
            moves=(Moved(from_upstream="openai", to_upstream="ollama", count=count),) if count else (),
            cost_before_usd=count * 0.01,
            cost_after_usd=0.0,
            unknown_cost=0,
            examples=(),
        )

    async def kill(self, transaction_id: str, *, who: str = "operator") -> bool:
        found = transaction_id in self.live and not self.live[transaction_id][1]
        if found:
            self.killed.append((transaction_id, who))
            self.live[transaction_id] = (self.live[transaction_id][0], True)
        return found

    def _hold(self, hold_id: str) -> tuple[int, HoldInfo]:
        for place, hold in enumerate(self.hold_infos):
            if hold.id == hold_id:
                return place, hold
        raise ControlNotFound(f"there is no hold '{hold_id}'")

    def hold(self, *holds: HoldInfo) -> None:
        """Let these wait for the operator."""
        for hold in holds:
            self.hold_infos.append(hold)
            self.feed.publish("held", None, hold.id)

    def settle(self, hold_id: str, status: Any, who: str) -> None:
        """Let somebody else decide."""
        place, hold = self._hold(hold_id)
        self.hold_infos[place] = msgspec.structs.replace(hold, status=status, decided_by=who)
        self.feed.publish("released", None, hold_id)

    def add(self, row: TransactionRow, *kinds: FeedKind) -> TransactionRow:
        """Publish a row; without kinds as its state suggests."""
        self.gateway.total += 1
        self.gateway.active += row.state != "done"
        for kind in kinds or (("started", "finished") if row.state == "done" else ("started",)):
            self.feed.publish(kind, row)
        return row


def make_row(number: int, **changes: Any) -> TransactionRow:
    """A finished, ordinary transaction; `changes` make it another one."""
    values: dict[str, Any] = {
        "transaction_id": f"01J9ZK{number:06d}",
        "started_at": START + number,
        "started_monotonic": 940.0 + number,
        "path": "/v1/chat/completions",
        "dialect": "openai",
        "operation": "chat",
        "state": "done",
        "outcome": "ok",
        "session_id": "refactor-a3",
        "agent": "codex",
        "model": "gpt-5.4-mini",
        "upstream": "openai",
        "reason": "default",
        "status": 200,
        "input_tokens": 12_100,
        "output_tokens": 410,
        "cost_usd": 0.0131,
        "ttft_ms": 280.0,
        "total_ms": 3_100.0,
        "overhead_ms": 0.7,
        "request_bytes": 18_233,
        "response_bytes": 4_120,
        "chunks": 37,
        "preview": "Rename the module and fix its imports.",
        "stop_reason": "stop",
    }
    values.update(changes)
    return TransactionRow(**values)


def make_policy(name: str, **changes: Any) -> PolicyInfo:
    """A policy as the gateway would describe it."""
    values: dict[str, Any] = {
        "use": name,
        "summary": "Does what its name says.",
        "mode": "enforce",
        "on_error": "deny",
        "position": 1,
        "stages": ("request",),
        "params": (
            ParamInfo(name="threshold", kind="number", value=0.5, default=0.5, minimum=0.0, maximum=1.0, step=0.01, tunable=True),
        ),
    }
    return PolicyInfo(name=name, **{**values, **changes})


def make_hold(number: int, **changes: Any) -> HoldInfo:
    """A tool call that waits for the operator since `number` seconds before START + 100."""
    content = changes.get("content", '{"command": "rm -rf build"}')
    values: dict[str, Any] = {
        "transaction_id": f"01J9ZK{number:06d}",
        "stage": "tool_call",
        "policy": "hold_for_approval",
        "reason": "the call matches the hold's filter",
        "content": content,
        "shown": hashlib.sha256(f"tool_call\0bash\0{content}".encode(errors="surrogatepass")).hexdigest(),
        "created": START + 100 - number,
        "deadline": START + 700 - number,
        "session_id": "ops-7f",
        "agent": "claude",
        "model": "claude-sonnet-4-5",
        "tool": "bash",
        "call_id": f"call_{number}",
    }
    return HoldInfo(id=f"hold-{number}", **{**values, **changes})


def sample_policies() -> list[PolicyInfo]:
    """A chain with a policy of every kind."""
    minutes = tuple((place * place // 40 + place // 3) % 23 for place in range(60))
    threshold = ParamInfo(
        name="threshold", kind="number", value=0.5, default=0.5, minimum=0.0, maximum=1.0, step=0.05, tunable=True,
        help="A call whose worst finding is at or above it is blocked.",
    )  # fmt: skip
    return [
        make_policy(
            "strip_secrets", summary="Takes secrets out of requests before they are sent.", release="tail", source="file",
            hits_1h=412, acted_1h=12, acted_today=31, per_minute=minutes, p50_ms=0.08, p99_ms=0.1,
            params=(
                ParamInfo(name="marker", kind="text", value="[redacted]", default="[redacted]", help="What stands for a secret."),
                ParamInfo(name="responses", kind="boolean", value=True, default=False, help="Whether answers are blanked too."),
                ParamInfo(name="patterns", kind="json", value=["internal-[0-9]+"], default=[]),
            ),
        ),
        make_policy(
            "send_backend_request", summary="Sends the request.", sends=True, position=2, params=(), hits_1h=1_204, stages=(),
        ),
        make_policy(
            "dangerous_commands", use="block_dangerous_commands", summary="Blocks commands that destroy data.", position=3,
            on_error="hold", release="block", stages=("response",), hits_1h=96, acted_1h=4, acted_today=9,
            per_minute=minutes[::-1], p50_ms=0.2, p99_ms=0.3, source="operator anna at 13:40:02",
            recent_scores=tuple(round(place % 20 * 0.05, 2) for place in range(1_000)),
            params=(
                threshold,
                ParamInfo(name="action", kind="choice", value="block", default="block", choices=("block", "flag")),
            ),
        ),
        make_policy(
            "pii", mode="shadow", on_error="allow", position=4, release="tail", hits_1h=980, shadow_1h=31, per_minute=minutes,
            p50_ms=0.3, p99_ms=0.4, errors_1h=2,
        ),
        make_policy("tool_call_judge", mode="off", position=5, release="block", stages=("response",)),
    ]  # fmt: skip


def held_plane() -> FakePlane:
    """A plane where three things wait, one of them a call of a transaction in the live view, and two were decided."""
    plane = sample_plane()
    plane.policy_infos = sample_policies()
    row = plane.add(
        make_row(
            11, dialect="anthropic", operation="messages", path="/v1/messages", upstream="anthropic", model="claude-sonnet-4-5",
            agent="claude", session_id="ops-7f", state="held", outcome="", verdict="hold", started_monotonic=949.0,
            output_tokens=96, cost_usd=None, ttft_ms=412.0, total_ms=None, stream=True,
            preview="Clean up the staging server, it is out of disk.",
        ),
        "started",
    )  # fmt: skip
    plane.details[row.transaction_id] = sample_detail(row)
    plane.details[row.transaction_id].verdicts = (
        Verdict(
            policy="dangerous_commands", stage=Stage.TOOL_CALL, mode="shadow", action="deny", reason=Reason.DANGEROUS_COMMAND,
            message="rm -rf with a glob", score=0.82, ms=0.3,
        ),
    )  # fmt: skip
    plane.hold(
        make_hold(
            42, transaction_id=row.transaction_id, waiting=2,
            content='{"command": "rm -rf /srv/builds/2025-* && docker system prune -af"}',
            reason="POST /v1/messages: matches tool:bash args:\"rm -rf\"\ndangerous_commands deny dangerous_command 0.82",
        ),
        make_hold(30, tool="send_mail", session_id="mail-c9", agent="agent-x", model="gpt-5.4", on_timeout="approve",
                  content=json.dumps({"to": "all@example.com", "body": "Dear all,\n\nthe office is closed.\n\nBest"})),
        make_hold(5, stage="request", tool="", call_id="", session_id="notes-11", content='{"model": "llama3.2"}'),
        make_hold(90, status="denied", decided_by="anna", message="not on a Friday"),
        make_hold(95, status="expired", tool="deploy", content="{}"),
    )  # fmt: skip
    return plane


def sample_rows() -> list[TransactionRow]:
    """One row of every kind that the live view shows."""
    anthropic = {"dialect": "anthropic", "operation": "messages", "path": "/v1/messages", "upstream": "anthropic"}
    unknown: dict[str, Any] = {"output_tokens": None, "cost_usd": None, "ttft_ms": None, "total_ms": None}
    return [
        make_row(0),
        make_row(1, output_tokens=388, input_tokens=12_600, ttft_ms=301.0, total_ms=2_800.0, verdict="modify"),
        make_row(
            2,
            **anthropic,
            model="claude-sonnet-4-5",
            agent="claude",
            session_id="ops-7f",
            input_tokens=31_000,
            output_tokens=960,
            cost_usd=0.1074,
            ttft_ms=412.0,
            total_ms=51_400.0,
            stop_reason="tool_use",
            tool_calls=1,
            stream=True,
        ),
        make_row(
            3,
            dialect="ollama",
            operation="ollama_chat",
            path="/api/chat",
            upstream="local",
            model="llama3.2",
            agent="qwen",
            session_id="notes-11",
            input_tokens=402,
            output_tokens=120,
            cost_usd=0.0,
            ttft_ms=90.0,
            total_ms=812.0,
            verdict="route",
        ),
        make_row(
            4,
            model="gpt-4o",
            session_id="bench-2",
            agent="",
            status=429,
            outcome="error",
            error="rate limit reached",
            input_tokens=1_000,
            **{**unknown, "total_ms": 104.0},
        ),
        make_row(
            5,
            model="gpt-5.4",
            session_id="mail-c9",
            agent="agent-x",
            status=400,
            outcome="refused",
            verdict="deny",
            input_tokens=2_200,
            **{**unknown, "total_ms": 2.0},
            error="denied by policy",
        ),
        make_row(
            6,
            model="o4-mini",
            session_id="bench-2",
            agent="",
            outcome="truncated",
            output_tokens=77,
            cost_usd=None,
            total_ms=6_020.0,
            error="the upstream closed the stream before its end",
            stream=True,
        ),
        make_row(
            7,
            **anthropic,
            model="claude-haiku-4-5",
            agent="claude",
            session_id="ops-7f/sub-1",
            outcome="cancelled",
            output_tokens=31,
            cost_usd=0.0004,
            total_ms=940.0,
            stream=True,
        ),
        make_row(
            8,
            session_id="",
            agent="",
            model="text-embedding-3-small",
            operation="embeddings",
            path="/v1/embeddings",
            input_tokens=880,
            output_tokens=None,
            cost_usd=0.00002,
            ttft_ms=61.0,
            total_ms=64.0,
        ),
        make_row(
            9,
            **anthropic,
            model="claude-haiku-4-5",
            agent="claude",
            session_id="ops-7f/sub-1",
            state="streaming",
            outcome="",
            started_monotonic=997.0,
            input_tokens=30_200,
            status=200,
            **{**unknown, "ttft_ms": 388.0},
            stream=True,
        ),
        make_row(
            10,
            model="gpt-5.4",
            session_id="mail-c9",
            agent="agent-x",
            state="waiting",
            outcome="",
            status=None,
            started_monotonic=998.5,
            input_tokens=None,
            **unknown,
            stream=True,
        ),
    ]


def sample_plane() -> FakePlane:
    """A plane with a row of every kind, and the details of two of them."""
    plane = FakePlane()
    for number, row in enumerate(sample_rows()):
        if row.state == "done":
            row.started_monotonic = 943.0 + (0, 2, 9, 17, 18, 26, 27, 27, 46)[number]
        plane.add(row)
        plane.details[row.transaction_id] = sample_detail(row)
    controlled(plane.details["01J9ZK000002"])
    running = next(row for row in sample_rows() if row.state == "streaming")
    plane.live[running.transaction_id] = (b"".join(anthropic_events("The disk is full of old builds.", done=False)), False)
    plane.gateway.total = 1_204
    return plane


def controlled(detail: TransactionDetail) -> None:
    """Let policies have had their say on a transaction, and have changed both of its bodies."""
    detail.policy_digest = "7f3a19c2d4e8"
    detail.verdicts = (
        Verdict(
            policy="strip_secrets", stage=Stage.REQUEST, mode="enforce", action="modify", reason=Reason.SECRET_REMOVED,
            message="took out 1 secret", ms=0.11, detail={"openai_key": 1},
        ),
        Verdict(
            policy="dangerous_commands", stage=Stage.TOOL_CALL, mode="shadow", action="deny", reason=Reason.DANGEROUS_COMMAND,
            message="rm -rf with a glob; prune -a", score=0.82, ms=0.34,
        ),
        Verdict(policy="pii", stage=Stage.RESPONSE, mode="enforce", ran="unsupported", reason=Reason.UNSUPPORTED_DIALECT),
    )  # fmt: skip
    detail.sent_body = detail.request_body.replace(b"out of disk.", b"out of disk. Ask first.")
    detail.upstream_body = b"".join(anthropic_events("I'll remove everything at once."))


def anthropic_events(text: str, *, done: bool = True) -> list[bytes]:
    """A stream of the Anthropic dialect, word by word."""

    def event(name: str, **fields: Any) -> bytes:
        return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()

    events = [
        event("message_start", message={"id": "msg_01", "role": "assistant", "content": [], "usage": {"input_tokens": 31000}}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    ]
    for word in text.split(" "):
        events.append(event("content_block_delta", index=0, delta={"type": "text_delta", "text": f"{word} "}))
    if done:
        events += [
            event("content_block_stop", index=0),
            event(
                "content_block_start", index=1, content_block={"type": "tool_use", "id": "call_01", "name": "bash", "input": {}}
            ),
            event(
                "content_block_delta",
                index=1,
                delta={
                    "type": "input_json_delta",
                    "partial_json": '{"command": "rm -rf /srv/builds/2025-* && docker system prune -af"}',
                },
            ),
            event("content_block_stop", index=1),
            event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 960}),
            event("message_stop"),
        ]
    return events


def sample_detail(row: TransactionRow) -> TransactionDetail:
    """Bodies that suit the row."""
    question = "Clean up the staging server, it is out of disk."
    if row.dialect == "anthropic":
        request = {
            "model": row.model,
            "max_tokens": 4096,
            "stream": True,
            "system": "You keep servers healthy.",
            "messages": [{"role": "user", "content": question}],
            "tools": [{"name": "bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}}],
        }
        done = row.state == "done"
        response = b"".join(anthropic_events("I'll look at what fills the disk and remove old builds.", done=done))
        kind = "text/event-stream; charset=utf-8"
    else:
        request = {
            "model": row.model,
            "messages": [
                {"role": "system", "content": "You are a careful engineer."},
                {"role": "user", "content": row.preview},
            ],
            "temperature": 0.2,
        }
        if row.outcome == "error":
            answer: dict[str, Any] = {"error": {"message": row.error, "type": "rate_limit_error", "code": "rate_limit_exceeded"}}
        else:
            answer = {
                "id": "chatcmpl-9",
                "object": "chat.completion",
                "model": row.model,
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": "Done: 14 files changed.\nAll tests pass."},
                    }
                ],
                "usage": {"prompt_tokens": row.input_tokens, "completion_tokens": row.output_tokens},
            }
        response = b"" if row.state != "done" else json.dumps(answer).encode()
        kind = "application/json"
    return TransactionDetail(
        row=row,
        request_headers=(
            ("host", "127.0.0.1:4000"),
            ("authorization", "[redacted]"),
            ("content-type", "application/json"),
            ("user-agent", "sdk/2.1"),
        ),
        request_body=json.dumps(request).encode(),
        response_headers=(("content-type", kind), ("request-id", "req_011CVa"), ("retry-after", "2")),
        response_body=response,
        timing=Timing(
            received=0.3,
            recorded=0.9,
            connected=41.2,
            responded=268.0,
            first_token=row.ttft_ms,
            last_byte=row.total_ms,
            finished=None if row.total_ms is None else row.total_ms + 0.6,
        ),
    )


def make_upstream(name: str, **changes: Any) -> UpstreamInfo:
    """An upstream that fares well."""
    values: dict[str, Any] = {
        "name": name, "api": "openai", "base_url": f"https://{name}.example", "local": False, "state": "active",
        "breaker": "closed", "in_flight": 2, "rps": 0.4, "p50_ms": 812.0, "p99_ms": 4_210.0, "error_rate": 0.0,
        "requests_1h": 412, "cost_usd_1h": 1.42,
    }  # fmt: skip
    return UpstreamInfo(**{**values, **changes})


def make_decision(number: int, **changes: Any) -> DecisionInfo:
    """Where a transaction went that no rule was for."""
    values: dict[str, Any] = {
        "at": START + number, "transaction_id": f"01J9ZK{number:06d}", "model": "gpt-5.4-mini", "upstream": "openai",
        "reasons": ("default",), "rule": "default",
    }  # fmt: skip
    return DecisionInfo(**{**values, **changes})


def routed_plane() -> FakePlane:
    """A gateway that routes by keywords and cost, with an upstream that fails."""
    plane = sample_plane()
    cost = {"max_prompt_length_for_local": 500}
    plane.routing_settings = Settings.model_validate(
        {"routing": {"cost": cost, "sensitivity": {"keywords": ["internal", "confidential"]}}}
    )
    plane.upstream_infos = [
        make_upstream("openai"),
        make_upstream("anthropic", error_rate=0.31, requests_1h=96, breaker="open", in_flight=0, p99_ms=30_000.0),
        make_upstream("ollama", local=True, requests_1h=214, cost_usd_1h=0.0, rps=0.1, p50_ms=240.0, p99_ms=960.0),
    ]
    plane.routing_reasons = (("default", 480), ("cost_prefer_local", 171), ("sensitive_keyword_match", 43), ("tag_rule", 28))
    reasons = (
        ("ollama", "sensitive_keyword_match", "sensitivity"), ("openai", "default", "default"),
        ("ollama", "cost_prefer_local", "cost"), ("anthropic", "tag_rule", "tag"), ("", "sensitive_keyword_match", "sensitivity"),
    )  # fmt: skip
    for number in range(40):
        upstream, reason, rule = reasons[number % len(reasons)]
        model = "llama3.2" if upstream == "ollama" else "claude-sonnet-4-5" if upstream == "anthropic" else "gpt-5.4-mini"
        plane.decisions.insert(0, make_decision(number, upstream=upstream, reasons=(reason,), rule=rule, model=model))
    return plane
