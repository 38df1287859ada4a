"""The queue of holds: every way in, every way out, and that nothing is decided twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy_core.control.hold_subject import shown_hash
from proxy_core.control.plane import ControlConflict, ControlInvalid, ControlNotFound
from proxy_core.routing.reasons import Reason
from proxy_core.verdicts import Stage
from tests.proxy_core.control.hold_fixtures import START, HoldBench, settled, tool_call


@pytest.fixture
async def bench() -> HoldBench:
    return HoldBench()


async def test_what_is_held_is_shown_in_full(bench: HoldBench) -> None:
    client = await bench.client(tool_call(agent="codex", session_id="s-1", model="gpt-5", tool_schema="{}"), timeout_s=60)
    info = bench.only()
    assert (info.transaction_id, info.stage, info.policy, info.tool, info.call_id) == (
        "t-1",
        "tool_call",
        "hold_for_approval",
        "bash",
        "call_1",
    )
    assert info.content == '{"command":"rm -rf /srv/builds"}'
    assert (info.agent, info.session_id, info.model, info.key, info.tool_schema) == ("codex", "s-1", "gpt-5", "ci", "{}")
    assert info.shown == shown_hash("tool_call", "bash", info.content)
    assert (info.created, info.deadline, info.status, info.waiting) == (START, START + 60, "pending", 1)
    assert bench.feed[-1] == ("held", info)
    (record,) = bench.records
    assert (record.status, record.content, record.created_ns) == ("pending", info.content, int(START * 1e9))
    assert record.deadline_ns == int((START + 60) * 1e9)
    assert not client.done()
    client.cancel()


async def test_approve(bench: HoldBench) -> None:
    client = await bench.client(tool_call())
    bench.clock.advance(5)
    info = bench.decide("approve", who="ada", reason="looks right")
    assert (info.status, info.decided_by, info.message) == ("approved", "ada", "looks right")
    outcome = await client
    assert (outcome.decision, outcome.reason, outcome.edited, outcome.who) == ("approve", Reason.APPROVED, None, "ada")
    assert bench.queue.pending() == []
    assert bench.queue.pending_count == 0
    assert [one.id for one in bench.queue.recent()] == [info.id]
    assert bench.feed[-1][0] == "released"
    assert bench.statuses(info.id) == ["pending", "approved"]
    last = bench.records[-1]
    assert (last.content, last.shown, last.at_ns) == ("", info.shown, int((START + 5) * 1e9))


async def test_edit_then_approve(bench: HoldBench) -> None:
    client = await bench.client(tool_call())
    info = bench.decide("edit", edited='{"command":"ls /srv/builds"}', who="ada")
    assert info.status == "edited"
    outcome = await client
    assert (outcome.decision, outcome.reason, outcome.edited) == ("edit", Reason.APPROVED_EDITED, '{"command":"ls /srv/builds"}')
    assert bench.records[-1].edited == outcome.edited


async def test_an_edit_that_changes_nothing_is_an_approval(bench: HoldBench) -> None:
    client = await bench.client(tool_call())
    assert bench.decide("edit", edited=bench.only().content).status == "approved"
    assert (await client).decision == "approve"


async def test_deny_with_text(bench: HoldBench) -> None:
    client = await bench.client(tool_call())
    assert bench.decide("deny", reason="Use the staging host.").status == "denied"
    outcome = await client
    assert (outcome.decision, outcome.reason, outcome.message) == ("deny", Reason.DENIED_BY_OPERATOR, "Use the staging host.")


async def test_decided_once_however_many_try(bench: HoldBench) -> None:
    client = await bench.client(tool_call())
    hold = bench.only()
    bench.decide("approve", who="ada")
    for decision in ("approve", "deny"):
        with pytest.raises(ControlConflict, match="already approved by ada"):
            bench.decide(decision, hold, who="bob")
    with pytest.raises(ControlConflict, match="already approved"):
        bench.queue.extend(hold.id, 60)
    assert (await client).who == "ada"
    assert bench.statuses(hold.id) == ["pending", "approved"]


async def test_a_decision_on_something_else_than_was_shown_is_refused(bench: HoldBench) -> None:
    client = await bench.client(tool_call())
    hold = bench.only()
    for shown in ("", "0" * 64, shown_hash("tool_call", "bash", '{"command":"ls"}'), shown_hash("request", "bash", hold.content)):
        with pytest.raises(ControlConflict, match="not what is held"):
            bench.decide("approve", hold, shown=shown)
    assert not client.done()
    assert bench.statuses(hold.id) == ["pending"]
    client.cancel()


def test_the_hash_tells_tool_and_content_apart() -> None:
    hashes = {
        shown_hash("tool_call", "a", "bc"),
        shown_hash("tool_call", "ab", "c"),
        shown_hash("tool_call", "", "abc"),
        shown_hash("request", "", "abc"),
        shown_hash("tool_call", "a\n1\nb", "c"),
        shown_hash("tool_call", "a", "\ud800"),
    }
    assert len(hashes) == 6


async def test_nothing_of_that_name(bench: HoldBench) -> None:
    with pytest.raises(ControlNotFound):
        bench.queue.decide("hold-9", decision="approve", shown="")
    with pytest.raises(ControlNotFound):
        bench.queue.extend("hold-9", 60)


@pytest.mark.parametrize(
    ("decision", "more", "field"),
    [
        ("maybe", {}, "decision"),
        ("edit", {}, "edited"),
        ("approve", {"edited": "{}"}, "edited"),
        ("deny", {"edited": "{}"}, "edited"),
        ("edit", {"edited": "[1]"}, "edited"),
    ],
)
async def test_a_decision_that_cannot_be_taken_changes_nothing(
    bench: HoldBench, decision: str, more: dict[str, Any], field: str
) -> None:
    client = await bench.client(tool_call())
    with pytest.raises(ControlInvalid) as raised:
        bench.decide(decision, **more)
    assert raised.value.field == field
    assert not client.done()
    bench.decide("approve")
    assert (await client).decision == "approve"


# --- time ---


@pytest.mark.parametrize(("on_timeout", "decision"), [("deny", "deny"), ("approve", "approve")])
async def test_where_nobody_decides_the_deadline_does(bench: HoldBench, on_timeout: str, decision: str) -> None:
    client = await bench.client(tool_call(), timeout_s=60, on_timeout=on_timeout)
    hold = bench.only()
    assert hold.on_timeout == on_timeout
    bench.clock.advance(59.9)
    await settled()
    assert not client.done()
    bench.clock.advance(0.2)
    outcome = await client
    assert (outcome.decision, outcome.reason, outcome.who) == (decision, Reason.HOLD_EXPIRED, "")
    assert bench.queue.recent()[0].status == "expired"
    assert bench.queue.recent()[0].decided_by == "luthien"
    with pytest.raises(ControlConflict, match="already expired"):
        bench.decide("approve", hold)


async def test_more_time(bench: HoldBench) -> None:
    client = await bench.client(tool_call(), timeout_s=60)
    bench.clock.advance(50)
    info = bench.queue.extend(bench.only().id, 300, who="ada")
    assert info.deadline == pytest.approx(START + 360)
    assert bench.records[-1].deadline_ns == pytest.approx((START + 360) * 1e9)
    assert "ada" in bench.records[-1].message
    bench.clock.advance(305)
    await settled()
    assert not client.done()
    bench.clock.advance(6)
    assert (await client).reason is Reason.HOLD_EXPIRED


@pytest.mark.parametrize("seconds", [0, -5, float("nan"), float("inf")])
async def test_more_time_is_a_number_above_zero(bench: HoldBench, seconds: float) -> None:
    client = await bench.client(tool_call())
    with pytest.raises(ControlInvalid):
        bench.queue.extend(bench.only().id, seconds)
    client.cancel()


async def test_no_hold_waits_longer_than_a_day_from_now(bench: HoldBench) -> None:
    client = await bench.client(tool_call())
    for _ in range(3):
        info = bench.queue.extend(bench.only().id, 80_000)
    assert info.deadline == pytest.approx(START + 86_400)
    client.cancel()


async def test_a_wall_clock_that_jumps_moves_no_deadline(bench: HoldBench) -> None:
    client = await bench.client(tool_call(), timeout_s=60)
    bench.wall_offset -= 3_600
    assert bench.only().deadline - (START - 3_600) == pytest.approx(60)
    bench.clock.advance(30)
    await settled()
    assert not client.done()
    bench.clock.advance(31)
    assert (await client).reason is Reason.HOLD_EXPIRED


# --- clients that leave and come back ---


async def test_a_client_that_leaves_for_good(bench: HoldBench) -> None:
    client = await bench.client(tool_call())
    hold = bench.only()
    await bench.leave(client)
    assert client.cancelled()
    assert bench.only().waiting == 0
    bench.clock.advance(29)
    assert bench.only().status == "pending"
    bench.clock.advance(2)
    assert bench.queue.pending() == []
    assert bench.queue.recent()[0].status == "withdrawn"
    assert bench.records[-1].status == "withdrawn"
    assert "left" in bench.records[-1].message
    with pytest.raises(ControlConflict, match="already withdrawn"):
        bench.decide("approve", hold)


async def test_a_retry_joins_the_hold_that_its_first_try_left(bench: HoldBench) -> None:
    first = await bench.client(tool_call("t-1"))
    hold = bench.only()
    await bench.leave(first)
    bench.clock.advance(10)
    retry = await bench.client(tool_call("t-2", call_id="call_other"))
    joined = bench.only()
    assert (joined.id, joined.waiting, joined.transaction_id) == (hold.id, 1, "t-2")
    bench.clock.advance(60)
    assert bench.only().status == "pending"
    bench.decide("approve")
    assert (await retry).decision == "approve"
    assert [record.transaction_id for record in bench.records] == ["t-1", "t-2", "t-2"]


async def test_a_retry_beside_its_first_try_gets_the_same_one_decision(bench: HoldBench) -> None:
    first = await bench.client(tool_call("t-1"))
    retry = await bench.client(tool_call("t-2"))
    assert bench.only().waiting == 2
    await bench.leave(first)
    assert (bench.only().waiting, bench.only().transaction_id) == (1, "t-2")
    bench.clock.advance(100)
    third = await bench.client(tool_call("t-3"))
    info = bench.decide("edit", edited='{"command":"ls"}')
    assert (await retry) == (await third)
    assert bench.statuses(info.id).count("edited") == 1


async def test_a_retry_extends_no_deadline(bench: HoldBench) -> None:
    first = await bench.client(tool_call("t-1"), timeout_s=60)
    bench.clock.advance(50)
    retry = await bench.client(tool_call("t-2"), timeout_s=60)
    bench.clock.advance(11)
    assert (await first).reason is (await retry).reason is Reason.HOLD_EXPIRED


@pytest.mark.parametrize(
    "other",
    [
        {"key": "other"},
        {"policy": "second_look"},
        {"content": '{"command":"ls"}'},
        {"tool": "sh"},
        {"target": "POST /v1/responses openai"},
        {"stage": Stage.RESPONSE},
    ],
)
async def test_what_differs_in_anything_is_a_hold_of_its_own(bench: HoldBench, other: dict[str, Any]) -> None:
    first = await bench.client(tool_call("t-1"))
    second = await bench.client(tool_call("t-2", **other))
    assert len(bench.queue.pending()) == 2
    bench.decide("approve", bench.queue.pending()[0])
    await first
    await settled()
    assert not second.done()
    second.cancel()


async def test_twin_calls_of_one_answer_wait_each_for_their_own(bench: HoldBench) -> None:
    calls = [await bench.client(tool_call("t-1", call_id=name)) for name in ("call_1", "call_2")]
    twins = bench.queue.pending()
    assert [one.call_id for one in twins] == ["call_1", "call_2"]
    for call in calls:
        await bench.leave(call)
    retried = [await bench.client(tool_call("t-2", call_id=name)) for name in ("call_1", "call_2")]
    assert [one.waiting for one in bench.queue.pending()] == [1, 1]
    bench.decide("approve", twins[0])
    bench.decide("deny", twins[1])
    assert [(await call).decision for call in retried] == ["approve", "deny"]


async def test_a_decision_that_nobody_heard_goes_to_the_retry_once(bench: HoldBench) -> None:
    first = await bench.client(tool_call("t-1"))
    await bench.leave(first)
    bench.decide("approve", who="ada")
    bench.clock.advance(20)
    retry = await bench.client(tool_call("t-2"))
    assert (await retry).who == "ada"
    again = await bench.client(tool_call("t-3"))
    assert not again.done()
    assert bench.only().transaction_id == "t-3"
    again.cancel()


async def test_a_decision_that_nobody_heard_is_forgotten(bench: HoldBench) -> None:
    first = await bench.client(tool_call("t-1"))
    await bench.leave(first)
    bench.decide("approve")
    bench.clock.advance(31)
    late = await bench.client(tool_call("t-2"))
    assert not late.done()
    late.cancel()


async def test_a_decision_that_was_heard_is_not_given_again(bench: HoldBench) -> None:
    first = await bench.client(tool_call("t-1"))
    bench.decide("approve")
    await first
    second = await bench.client(tool_call("t-2"))
    assert not second.done()
    second.cancel()


async def test_a_client_that_leaves_in_the_moment_of_the_decision(bench: HoldBench) -> None:
    first = await bench.client(tool_call("t-1"))
    bench.decide("approve")
    first.cancel()
    await settled()
    assert first.cancelled()
    retry = await bench.client(tool_call("t-2"))
    assert (await retry).decision == "approve"


async def test_an_expiry_is_no_decision_for_a_retry(bench: HoldBench) -> None:
    first = await bench.client(tool_call("t-1"), timeout_s=10)
    await bench.leave(first)
    bench.clock.advance(11)
    assert bench.queue.recent()[0].status == "expired"
    retry = await bench.client(tool_call("t-2"))
    assert not retry.done()
    retry.cancel()


async def test_a_transaction_ended_on_purpose_waits_for_no_retry(bench: HoldBench) -> None:
    client = await bench.client(tool_call())
    bench.queue.no_retry("t-1")
    await bench.leave(client)
    assert bench.queue.recent()[0].status == "withdrawn"


# --- floods ---


async def test_a_flood_of_one_key_does_not_bury_the_others() -> None:
    bench = HoldBench(max_per_key=20)
    flood = [await bench.client(tool_call(f"t-{n}", content=f'{{"n":{n}}}')) for n in range(1_000)]
    assert len(bench.queue.pending()) == 20
    outcomes = [task.result() for task in flood if task.done()]
    assert len(outcomes) == 980
    assert {(one.decision, one.reason) for one in outcomes} == {("deny", Reason.HOLD_CAP_REACHED)}
    assert len({record.id for record in bench.records}) == 1_000
    other = await bench.client(tool_call("t-o", key="other"))
    assert not other.done()
    keys = [one.key for one in bench.queue.pending()]
    assert (keys.count("ci"), keys.count("other")) == (20, 1)
    retry = await bench.client(tool_call("t-r", content='{"n":0}'))
    assert not retry.done(), "a retry of what waits takes no new place"
    for one in bench.queue.pending()[:5]:
        bench.decide("deny", one)
    await settled()
    more = [await bench.client(tool_call(f"m-{n}", content=f'{{"m":{n}}}')) for n in range(6)]
    assert [task.done() for task in more] == [False] * 5 + [True]
    bench.queue.shutdown()


async def test_a_cap_over_all_keys() -> None:
    bench = HoldBench(max_total=3)
    tasks = [await bench.client(tool_call(f"t-{n}", key=f"k-{n}")) for n in range(4)]
    assert [task.done() for task in tasks] == [False, False, False, True]
    bench.queue.shutdown()


# --- the end, and the beginning after it ---


@pytest.mark.parametrize(("on_shutdown", "decision", "status"), [("deny", "deny", "denied"), ("approve", "approve", "approved")])
async def test_shutdown_ends_what_waits(on_shutdown: str, decision: str, status: str) -> None:
    bench = HoldBench(on_shutdown=on_shutdown)
    waiting = await bench.client(tool_call("t-1"))
    left = await bench.client(tool_call("t-2", content="{}"))
    await bench.leave(left)
    bench.queue.shutdown()
    outcome = await waiting
    assert (outcome.decision, outcome.reason) == (decision, Reason.HOLD_SHUTDOWN)
    assert [one.status for one in bench.queue.recent()] == ["withdrawn", status]
    late = await bench.client(tool_call("t-3"))
    assert (await late).reason is Reason.HOLD_SHUTDOWN
    assert bench.queue.pending_count == 0
    bench.clock.advance(1_000)
    assert len({record.id for record in bench.records}) == 3


async def test_a_gateway_that_died_finds_its_holds_again(bench: HoldBench) -> None:
    subject = tool_call("t-1", tool_schema='{"type":"object"}', agent="codex")
    client = await bench.client(subject)
    decided = await bench.client(tool_call("t-0", content="{}"))
    bench.decide("deny", bench.queue.pending()[1], who="ada")
    before, written = bench.only(), list(bench.records)
    for task in (client, decided):
        task.cancel()
    await settled()

    bench.queue = bench.new_queue()
    bench.clock.advance(2)
    bench.queue.restore(reversed(written))
    after = bench.only()
    assert (after.id, after.content, after.shown, after.tool_schema) == (
        before.id,
        before.content,
        before.shown,
        before.tool_schema,
    )
    assert (after.deadline, after.waiting, after.agent) == (pytest.approx(before.deadline), 0, "codex")
    assert [(one.status, one.decided_by) for one in bench.queue.recent()] == [("denied", "ada")]
    retry = await bench.client(tool_call("t-2"))
    bench.decide("approve", after)
    assert (await retry).decision == "approve"


async def test_what_nobody_comes_back_for_is_withdrawn(bench: HoldBench) -> None:
    client = await bench.client(tool_call("t-1"))
    written = list(bench.records)
    client.cancel()
    await settled()
    bench.queue = bench.new_queue()
    bench.queue.restore(written)
    bench.clock.advance(31)
    assert bench.queue.pending() == []
    assert bench.queue.recent()[0].status == "withdrawn"
    assert bench.records[-1].status == "withdrawn"


async def test_what_was_stored_redacted_or_is_overdue_is_withdrawn_at_once(bench: HoldBench) -> None:
    from msgspec.structs import replace

    clients = [await bench.client(tool_call("t-1"), timeout_s=20), await bench.client(tool_call("t-2", content='{"key":"sk-1"}'))]
    written = list(bench.records)
    for client in clients:
        client.cancel()
    await settled()
    written[1] = replace(written[1], content='{"key":"[redacted]"}')
    bench.queue = bench.new_queue()
    bench.clock.advance(21)
    bench.queue.restore(written)
    assert [one.status for one in bench.queue.recent()] == ["withdrawn", "withdrawn"]


# --- the record comes first ---


async def test_an_approval_takes_effect_when_it_is_recorded(bench: HoldBench) -> None:
    bench.unwritten = []
    client = await bench.client(tool_call("t-1"))
    hold = bench.only()
    bench.decide("approve", who="ada")
    await settled()
    assert not client.done()
    assert bench.queue.pending() == []
    assert [one.status for one in bench.queue.recent()] == ["approved"]
    with pytest.raises(ControlConflict, match="already approved by ada"):
        bench.decide("deny", hold)
    retry = await bench.client(tool_call("t-2"))
    for written in bench.unwritten:
        written.set_result(None)
    assert (await client).decision == (await retry).decision == "approve"


async def test_whoever_decided_hears_of_it_when_it_is_recorded(bench: HoldBench) -> None:
    bench.unwritten = []
    client = await bench.client(tool_call())
    bench.unwritten[0].set_result(None)
    hold = bench.decide("deny")
    recorded = asyncio.ensure_future(bench.queue.recorded(hold.id))
    await settled()
    assert not recorded.done()
    bench.unwritten[1].set_result(None)
    await recorded
    await bench.queue.recorded(hold.id)
    assert (await client).decision == "deny"


async def test_a_denial_waits_for_no_record(bench: HoldBench) -> None:
    bench.unwritten = []
    client = await bench.client(tool_call())
    bench.decide("deny")
    assert (await client).decision == "deny"


# --- hostile content ---


async def test_content_that_no_encoding_carries_is_shown_as_its_escape(bench: HoldBench) -> None:
    client = await bench.client(tool_call(content='{"a":"\ud800 é"}', tool="t\udfff"))
    info = bench.only()
    assert info.content == '{"a":"\\ud800 é"}'
    assert info.tool == "t\\udfff"
    info.content.encode()
    bench.decide("approve")
    await client


async def test_a_long_content_is_kept_whole_only_while_it_waits(bench: HoldBench) -> None:
    content = '{"a":"' + "x" * 1_000_000 + '"}'
    client = await bench.client(tool_call(content=content))
    assert bench.only().content == content
    bench.decide("approve")
    await client
    assert len(bench.queue.recent()[0].content) == 20_000


async def test_many_wait_and_each_gets_its_own(bench: HoldBench) -> None:
    bench.queue.settings = bench.queue.settings.model_copy(update={"max_per_key": 1_000})
    tasks = [await bench.client(tool_call(f"t-{n}", content=f'{{"n":{n}}}')) for n in range(200)]
    for info in bench.queue.pending():
        bench.decide("edit", info, edited=f'{{"was":{info.content}}}')
    outcomes = await asyncio.gather(*tasks)
    assert [one.edited for one in outcomes] == [f'{{"was":{{"n":{n}}}}}' for n in range(200)]
