"""Sessions of the screen's pictures: fixed conversations of every kind, as a gateway would tell of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from proxy_core.control.session_infos import (
    AgentDetail,
    AgentInfo,
    Count,
    DayUse,
    Mark,
    ModelUse,
    SessionDetail,
    SessionInfo,
    StoryBlock,
    StoryMessage,
    ToolUse,
    Totals,
    Turn,
)
from proxy_core.routing.reasons import Reason
from proxy_core.verdicts import Stage, Verdict
from tests.luthien_tui.fake_plane import START, FakePlane, make_row, sample_detail, sample_plane

OPS = {"dialect": "anthropic", "operation": "messages", "path": "/v1/messages", "upstream": "anthropic",
       "model": "claude-sonnet-4-5", "agent": "claude", "session_id": "ops-7f", "stream": True}  # fmt: skip


def make_session(name: str, **changes: Any) -> SessionInfo:
    """An ordinary session that had its last request twelve seconds before the screen's clock begins."""
    values: dict[str, Any] = {
        "agent": "codex", "started_at": START - 600, "last_at": START + 88, "status": "active", "turns": 12, "link": "header",
        "models": ("gpt-5.4-mini",), "upstreams": ("openai",), "preview": "Rename the module and fix its imports.",
        "totals": make_totals(),
    }  # fmt: skip
    return SessionInfo(id=name, **{**values, **changes})


def make_totals(**changes: Any) -> Totals:
    values: dict[str, Any] = {"requests": 13, "input_tokens": 151_000, "output_tokens": 4_920, "cost_usd": 0.157, "tool_calls": 9}
    return Totals(**{**values, **changes})


def sample_infos() -> list[SessionInfo]:
    """A session of every kind, those with the latest requests first."""
    return [
        make_session("ops-7f", agent="claude", turns=4, last_at=START + 99, children=2, risk=0.82, user="anna",
                     tags=(("env", "staging"), ("team", "ops")), models=("claude-sonnet-4-5",), upstreams=("anthropic",),
                     totals=make_totals(requests=4, running=1, held=1, cost_usd=0.214, tool_calls=3, input_tokens=93_300),
                     preview="Clean up the staging server, it is out of disk."),
        make_session("ops-7f/sub-1", agent="claude", parent="ops-7f", turns=2, last_at=START + 97, models=("claude-haiku-4-5",),
                     totals=make_totals(requests=2, running=1, input_tokens=60_400, output_tokens=243, cost_usd=None)),
        make_session("refactor-a3", tags=(("team", "search"),)),
        make_session("mail-c9", agent="agent-x", turns=1, last_at=START + 41, link="inferred",
                     totals=make_totals(requests=2, running=1, errors=1, denied=1, input_tokens=2_200, output_tokens=0,
                                        cost_usd=None, tool_calls=0), preview="Write to everybody that the office is closed."),
        make_session("notes-11", agent="qwen", turns=31, last_at=START - 800, status="inactive", models=("llama3.2",),
                     totals=make_totals(requests=31, cost_usd=0.0, tool_calls=0, estimated=4), link="prefix"),
        make_session("ops-7f/sub-0", agent="claude", parent="ops-7f", turns=7, last_at=START - 90, status="active"),
        make_session("bench-2", agent="", turns=210, last_at=START - 9_000, status="completed", link="new",
                     totals=make_totals(requests=300, errors=90, unpriced=3, tool_calls=0, input_tokens=4_100_000)),
    ]  # fmt: skip


def sample_turns() -> list[Turn]:
    """A conversation with every kind of turn, tool call and mark."""
    held = Verdict(policy="hold_for_approval", stage=Stage.TOOL_CALL, mode="enforce", action="hold",
                   reason=Reason.APPROVED_EDITED, message="approved, edited by anna")  # fmt: skip
    shadow = Verdict(policy="dangerous_commands", stage=Stage.TOOL_CALL, mode="shadow", action="deny",
                     reason=Reason.DANGEROUS_COMMAND, message="rm -rf with a glob; prune -a", score=0.82)  # fmt: skip
    secret = Verdict(policy="strip_secrets", stage=Stage.REQUEST, mode="enforce", action="modify", reason=Reason.SECRET_REMOVED,
                     message="took out 1 secret")  # fmt: skip
    rm = '{"command": "rm -rf /srv/builds/2025-* && docker system prune -af"}'
    return [
        Turn(
            number=1, kind="turn",
            row=make_row(60, **OPS, input_tokens=31_000, output_tokens=96, cost_usd=0.0944, total_ms=2_800.0, verdict="modify"),
            said=(StoryMessage(role="user", blocks=(StoryBlock(
                kind="text", text="Clean up the staging server, it is out of disk. The login is in the note."),)),),
            marks=(Mark(verdict=secret, where="request"),),
            answer=(
                StoryBlock(kind="thinking", text="Need to see what fills the disk first.\nThen remove what can be built again."),
                StoryBlock(kind="text", text="I'll look at what fills the disk and remove old builds."),
                StoryBlock(kind="tool_call", name="bash", call_id="call_01", text='{"command": "du -sh /srv/*"}'),
            ),
            tool_uses=(ToolUse(call_id="call_01", name="bash", arguments='{"command": "du -sh /srv/*"}', block=2,
                               result="41G\t/srv/builds\n2.1G\t/srv/data\n", asked_by="01J9ZK000060", answered_by="01J9ZK000064",
                               duration_s=1.2),),
        ),
        Turn(
            number=2, kind="side", known=2,
            row=make_row(63, **{**OPS, "model": "claude-haiku-4-5"}, input_tokens=400, output_tokens=8, cost_usd=0.0004,
                         total_ms=640.0, preview="Give this conversation a title."),
            said=(StoryMessage(role="user", blocks=(StoryBlock(kind="text", text="Give this conversation a title."),)),),
            answer=(StoryBlock(kind="text", text="Disk cleanup"),),
        ),
        Turn(
            number=3, kind="tool", known=2,
            row=make_row(64, **OPS, input_tokens=31_200, output_tokens=121, cost_usd=0.0954, total_ms=3_400.0, verdict="hold"),
            said=(StoryMessage(role="user", blocks=(
                StoryBlock(kind="tool_result", name="bash", call_id="call_01", text="41G\t/srv/builds\n2.1G\t/srv/data\n"),)),),
            answer=(
                StoryBlock(kind="text", text="Old builds take 41 GB. I'll remove those of last year, and let a helper check the "
                                             "logs meanwhile."),
                StoryBlock(kind="tool_call", name="bash", call_id="call_02", text=rm),
                StoryBlock(kind="tool_call", name="task", call_id="call_03", text='{"description": "Check /var/log for errors"}'),
            ),
            tool_uses=(
                ToolUse(call_id="call_02", name="bash", arguments=rm, block=1, result="exit code: 0", asked_by="01J9ZK000064",
                        answered_by="01J9ZK000090", duration_s=13.0),
                ToolUse(call_id="call_03", name="task", arguments='{"description": "Check /var/log for errors"}', block=2,
                        result="no such helper", is_error=True, duration_s=4.0, session_id="ops-7f/sub-1"),
            ),
            marks=(Mark(verdict=shadow, where="call", block=1, call_id="call_02"),
                   Mark(verdict=held, where="call", block=1, call_id="call_02")),
        ),
        Turn(
            number=4, kind="edit", known=1, dropped=3,
            row=make_row(90, **OPS, state="streaming", outcome="", started_monotonic=997.0, input_tokens=30_700,
                         output_tokens=None, cost_usd=None, ttft_ms=388.0, total_ms=None, status=200),
            said=(StoryMessage(role="user", blocks=(StoryBlock(kind="text", text="Leave the builds of December."),)),),
            answer=(StoryBlock(kind="text", text="The disk has 40 GB again; the builds of December are"),),
        ),
    ]  # fmt: skip


def sample_session() -> SessionDetail:
    infos = {info.id: info for info in sample_infos()}
    return SessionDetail(
        info=infos["ops-7f"], turns=tuple(sample_turns()), system="You keep servers healthy.\nAsk before you remove anything.",
        children=(infos["ops-7f/sub-0"], infos["ops-7f/sub-1"]),
    )  # fmt: skip


def sub_session() -> SessionDetail:
    infos = {info.id: info for info in sample_infos()}
    turn = Turn(
        number=1, kind="turn", row=make_row(80, **{**OPS, "session_id": "ops-7f/sub-1", "model": "claude-haiku-4-5"}),
        said=(StoryMessage(role="user", blocks=(StoryBlock(kind="text", text="Check /var/log for errors"),)),),
        answer=(StoryBlock(kind="text", text="Nothing unusual."),),
    )  # fmt: skip
    return SessionDetail(info=infos["ops-7f/sub-1"], turns=(turn,), parent=infos["ops-7f"])


def sample_agents() -> list[AgentDetail]:
    """Two agents, one of them with all that it uses."""
    infos = {info.id: info for info in sample_infos()}
    claude = AgentInfo(
        id="claude", first_at=START - 90_000, last_at=START + 99, sessions=41, active_sessions=3,
        models=("claude-sonnet-4-5", "claude-haiku-4-5"), workflows=("nightly",), system="You keep servers healthy.",
        totals=make_totals(requests=1_204, input_tokens=12_400_000, cost_usd=31.07, tool_calls=812, errors=6, held=9),
    )  # fmt: skip
    codex = AgentInfo(id="codex", first_at=START - 600, last_at=START + 88, sessions=1, active_sessions=1,
                      models=("gpt-5.4-mini",), totals=make_totals())  # fmt: skip
    return [
        AgentDetail(
            info=claude,
            models=(ModelUse(model="claude-sonnet-4-5", totals=make_totals(requests=1_100)),
                    ModelUse(model="claude-haiku-4-5", totals=make_totals(requests=104, cost_usd=None))),
            tools=(Count("bash", 612), Count("read_file", 180), Count("task", 20)),
            tools_offered=("bash", "read_file", "task", "web_search"),
            days=(DayUse(day="2026-02-28", totals=make_totals(requests=700)), DayUse(day="2026-03-01", totals=make_totals())),
            system="You keep servers healthy.", sessions=(infos["ops-7f"], infos["ops-7f/sub-0"]),
        ),
        AgentDetail(info=codex),
    ]  # fmt: skip


def sessions_plane() -> FakePlane:
    """The sample plane, and what it has of sessions and agents."""
    plane = sample_plane()
    plane.session_infos = sample_infos()
    plane.session_details = {detail.info.id: detail for detail in (sample_session(), sub_session())}
    plane.agent_details = sample_agents()
    turns = [turn.row for turn in sample_turns()]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Clean up the staging server, it is out of disk."}]
    for row in turns:
        body = json.dumps({"model": row.model, "max_tokens": 4096, "messages": messages}).encode()
        plane.details[row.transaction_id] = msgspec.structs.replace(sample_detail(row), request_body=body)
        messages = [*messages, {"role": "assistant", "content": "I'll look."}, {"role": "user", "content": "Leave December."}]
    return plane
