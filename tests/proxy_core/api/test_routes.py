"""The control API's routes: shapes, errors that name the field, and no word of a secret."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from proxy_core.api.operator import operator_name
from proxy_core.control.plane import GatewayState, HoldInfo, PolicyInfo, Timing, TransactionDetail
from proxy_core.control.routing_infos import RoutingInfo
from proxy_core.control.rows import TransactionRow
from proxy_core.routing.reasons import Reason
from proxy_core.settings import Settings
from proxy_core.verdicts import Stage, Verdict
from tests.luthien_tui.fake_plane import make_hold, make_row, make_upstream
from tests.proxy_core.api.control_port import TOKEN, ControlPort
from tests.raw_http import RawResponse


def fault(answer: RawResponse, status: int) -> tuple[str, str]:
    assert answer.status == status, answer.body
    assert answer.header("content-type") == "application/json"
    error = answer.json()["error"]
    return error["code"], error["message"]


async def test_state(control: ControlPort) -> None:
    answer = await control.ask("GET", "/api/state")
    assert msgspec.json.decode(answer.body, type=GatewayState) == control.plane.state()
    assert answer.json()["status"] == "serving"


# --- transactions ---


async def test_transactions_by_pages(control: ControlPort) -> None:
    known = [row.transaction_id for row in control.plane.past]
    found: list[str] = []
    cursor = ""
    pages = 0
    while True:
        page = (await control.ask("GET", f"/api/transactions?limit=8{cursor}")).json()
        assert set(page) == {"transactions", "next"}
        found += [row["transaction_id"] for row in page["transactions"]]
        pages += 1
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == known
    assert pages == 4


async def test_transactions_by_filter(control: ControlPort) -> None:
    for row in control.plane.past[3:30:5]:
        row.status = 500
    page = (await control.ask("GET", "/api/transactions?filter=status%3E%3D500&limit=4")).json()
    assert [row["status"] for row in page["transactions"]] == [500] * 4
    rest = (await control.ask("GET", f"/api/transactions?filter=status%3E%3D500&cursor={page['next']}")).json()
    assert len(rest["transactions"]) == 2
    assert rest["next"] is None
    row = msgspec.convert(rest["transactions"][0], TransactionRow)
    assert row == next(one for one in control.plane.past if one.transaction_id == row.transaction_id)


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("limit=0", ["limit"]),
        ("limit=1001", ["limit"]),
        ("limit=x", ["limit"]),
        ("cursor=1", ["cursor"]),
        ("cursor=01J9ZK'%20or%201=1--0000000", ["cursor"]),
        ("filter=nonsense:1", ["filter"]),
        ("filter=(", ["filter"]),
    ],
)
async def test_a_query_that_cannot_be_taken(control: ControlPort, query: str, place: list[str]) -> None:
    answer = await control.ask("GET", f"/api/transactions?{query}")
    assert fault(answer, 422)[0] == "invalid"
    assert [one["loc"] for one in answer.json()["detail"]] == [place]


async def test_a_transaction_with_what_policies_changed(control: ControlPort) -> None:
    row = control.plane.past[0]
    request = {"model": "m", "messages": [{"role": "user", "content": "my key is hunter2"}]}
    sent = {"model": "m", "messages": [{"role": "user", "content": "my key is [gone]"}]}

    def stream(*pieces: str) -> bytes:
        chunks = [{"id": "x", "choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
        return b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks) + b"data: [DONE]\n\n"

    control.plane.details[row.transaction_id] = TransactionDetail(
        row=row,
        request_headers=(("authorization", "Bearer [redacted]"),),
        request_body=json.dumps(request).encode(),
        sent_body=json.dumps(sent).encode(),
        upstream_body=stream("he", "llo"),
        response_headers=(("content-type", "text/event-stream"),),
        response_body=stream("HE", "LLO"),
        timing=Timing(received=0.3),
        verdicts=(Verdict(policy="caps", stage=Stage.RESPONSE, mode="enforce", action="modify", reason=Reason.TEXT_REPLACED),),
        policy_digest="abc123",
    )
    answer = (await control.ask("GET", f"/api/transactions/{row.transaction_id}")).json()
    assert answer["row"]["transaction_id"] == row.transaction_id
    assert answer["policy_digest"] == "abc123"
    assert answer["verdicts"][0]["reason"] == "text_replaced"
    assert answer["timing"]["received"] == 0.3
    assert answer["request"]["headers"] == [["authorization", "Bearer [redacted]"]]
    assert json.loads(answer["request"]["original"]) == request
    assert json.loads(answer["request"]["final"]) == sent
    assert answer["request"]["changed"] is True
    assert answer["request"]["diff"] == [
        {
            "path": "messages[0].content[0].text",
            "kind": "changed",
            "before": "my key is hunter2",
            "after": "my key is [gone]",
            "cut": False,
        }
    ]
    assert answer["response"]["changed"] is True
    assert [(one["before"], one["after"]) for one in answer["response"]["diff"]] == [("hello", "HELLO")]


async def test_a_transaction_that_nobody_changed(control: ControlPort) -> None:
    row = control.plane.past[1]
    answer = (await control.ask("GET", f"/api/transactions/{row.transaction_id}")).json()
    for side in ("request", "response"):
        assert answer[side]["final"] == answer[side]["original"] != ""
        assert answer[side]["changed"] is False
        assert answer[side]["diff"] == []
        assert answer[side]["encoding"] == "utf-8"


async def test_bodies_that_are_no_text(control: ControlPort) -> None:
    row = control.plane.past[2]
    row.operation = "other"
    control.plane.details[row.transaction_id] = TransactionDetail(
        row=row, request_body=b"\xff\x00", sent_body=b"text", response_body="snö \ud7ff".encode(), timing=Timing()
    )
    answer = (await control.ask("GET", f"/api/transactions/{row.transaction_id}")).json()
    assert answer["request"]["encoding"] == "base64"
    assert base64.b64decode(answer["request"]["original"]) == b"\xff\x00"
    assert base64.b64decode(answer["request"]["final"]) == b"text"
    assert answer["response"]["final"] == "snö \ud7ff"


async def test_half_a_surrogate_pair_is_carried(control: ControlPort) -> None:
    control.plane.hold_infos = [make_hold(1, content="a\ud800b")]
    holds = (await control.ask("GET", "/api/holds")).json()["holds"]
    assert holds[0]["content"] == "a\ud800b"


async def test_a_large_transaction(control: ControlPort) -> None:
    row = control.plane.past[3]
    long = json.dumps({"messages": [{"role": "user", "content": "x" * 3_000_000}]}).encode()
    control.plane.details[row.transaction_id] = TransactionDetail(
        row=row, request_body=long, sent_body=long.replace(b"xx", b"xy", 1), timing=Timing()
    )
    answer = (await control.ask("GET", f"/api/transactions/{row.transaction_id}")).json()
    assert len(answer["request"]["final"]) == len(long)
    (change,) = answer["request"]["diff"]
    assert change["cut"] is True
    assert len(change["before"]) < 5_000


@pytest.mark.parametrize("name", ["01J9ZK", "x" * 26, "..%2f..%2fetc", "%00", "x" * 64])
async def test_a_transaction_that_is_not_there(control: ControlPort, name: str) -> None:
    assert fault(await control.ask("GET", f"/api/transactions/{name}"), 404)[0] == "not_found"
    assert fault(await control.ask("POST", f"/api/transactions/{name}/kill"), 404)[0] == "not_found"


async def test_kill(control: ControlPort) -> None:
    row = make_row(77, transaction_id="01J9ZK" + "0" * 18 + "77", state="streaming", outcome="")
    control.plane.live[row.transaction_id] = (b"data: so far", False)
    control.plane.details[row.transaction_id] = TransactionDetail(row=row, timing=Timing())
    path = f"/api/transactions/{row.transaction_id}/kill"
    answer = await control.ask("POST", path, headers={"x-luthien-operator": "  ann\t "})
    assert (answer.status, answer.json()) == (200, {"transaction_id": row.transaction_id, "killed": True})
    assert control.plane.killed == [(row.transaction_id, "ann")]
    code, message = fault(await control.ask("POST", path), 409)
    assert (code, "not run any more" in message) == ("conflict", True)


# --- routing ---


async def test_a_route_is_explained(control: ControlPort) -> None:
    answer = (await control.ask("GET", "/api/routing/explain?model=gpt-4o&prompt=our%20internal%20plan")).json()
    assert (answer["upstream"], answer["rule"], answer["reasons"]) == ("ollama", "sensitivity", ["sensitive_keyword_match"])
    assert [one["rule"] for one in answer["considered"]] == ["explicit", "model", "sensitivity", "tag", "cost", "default"]
    assert fault(await control.ask("GET", "/api/routing/explain?path=/nowhere"), 422)[0] == "invalid"


async def test_routing_is_told_and_changed(control: ControlPort) -> None:
    told = (await control.ask("GET", "/api/routing")).json()
    assert msgspec.convert(told, RoutingInfo) == control.plane.routing()
    change = {"params": {"cost.max_prompt_length_for_local": 500}, "override": "local"}
    answer = (await control.ask("PATCH", "/api/routing", change)).json()
    assert answer["override"] == "local"
    assert {one["name"]: one["value"] for one in answer["rules"]}["cost.max_prompt_length_for_local"] == 500
    assert (await control.ask("PATCH", "/api/routing", {"override": ""})).json()["override"] == ""


async def test_an_upstream_is_drained_and_taken_back(control: ControlPort) -> None:
    control.plane.upstream_infos = [make_upstream("openai")]
    for state in ("drained", "frozen", "active"):
        answer = (await control.ask("PATCH", "/api/upstreams/openai", {"state": state})).json()
        assert answer["upstreams"][0]["state"] == state
    assert fault(await control.ask("PATCH", "/api/upstreams/none", {"state": "frozen"}), 404)[0] == "not_found"
    changes: list[dict[str, Any]] = [{"state": "off"}, {}, {"state": None}, {"state": "frozen", "for": 5}]
    for change in changes:
        assert fault(await control.ask("PATCH", "/api/upstreams/openai", change), 422)[0] == "invalid"


async def test_changed_rules_are_tried_on_recorded_traffic(control: ControlPort) -> None:
    given = {"params": {"cost.max_prompt_length_for_local": 300}, "limit": 50}
    answer = (await control.ask("POST", "/api/routing/what-if", given)).json()
    assert (answer["total"], answer["moved"]) == (50, 3)
    assert control.plane.routing_settings.routing.cost.max_prompt_length_for_local is None


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"params": {"cost.max_prompt_length_for_local": -1}}, ["params", "cost", "max_prompt_length_for_local"]),
        ({"params": {"cost.max_prompt_length_for_local": True}}, ["params", "cost", "max_prompt_length_for_local"]),
        ({"params": {"cost.max_prompt_length_for_local": "9"}}, ["params", "cost", "max_prompt_length_for_local"]),
        ({"params": {"cost.chars_per_token": None}}, ["params", "cost", "chars_per_token"]),
        ({"params": {"cost.chars_per_token": 0.5}}, ["params", "cost", "chars_per_token"]),
        ({"params": {"default_provider": "nowhere"}}, ["params", "default_provider"]),
        ({"params": {"sensitivity.scope": "all"}}, ["params", "sensitivity", "scope"]),
        ({"params": {"sensitivity.keywords": []}}, ["params", "sensitivity", "keywords"]),
        ({"params": {"cost.chars": 5}}, ["params", "cost", "chars"]),
    ],
)
async def test_rules_that_cannot_be_taken_name_the_field(control: ControlPort, given: Any, place: list[str]) -> None:
    for method, path in (("PATCH", "/api/routing"), ("POST", "/api/routing/what-if")):
        answer = await control.ask(method, path, given)
        assert fault(answer, 422)[0] == "invalid"
        assert [one["loc"] for one in answer.json()["detail"]] == [place]
    assert control.plane.routing_settings == Settings()


async def test_a_change_of_routing_says_what_it_changes(control: ControlPort) -> None:
    changes: list[dict[str, Any]] = [{}, {"params": {}}, {"override": "cloud"}, {"overide": "local"}]
    for change in changes:
        assert fault(await control.ask("PATCH", "/api/routing", change), 422)[0] == "invalid"
    for limit in (0, 5_001):
        given = {"params": {"cost.chars_per_token": 4}, "limit": limit}
        assert fault(await control.ask("POST", "/api/routing/what-if", given), 422)[0] == "invalid"


# --- policies ---


async def test_policies(control: ControlPort) -> None:
    answer = (await control.ask("GET", "/api/policies")).json()
    assert answer["next"] is None
    assert msgspec.convert(answer["policies"], list[PolicyInfo]) == control.plane.policy_infos
    one = (await control.ask("GET", "/api/policies/strip_secrets")).json()
    assert one == answer["policies"][0]
    assert one["params"][0]["tunable"] is True
    assert fault(await control.ask("GET", "/api/policies/none"), 404)[0] == "not_found"


async def test_a_policy_is_changed(control: ControlPort) -> None:
    answer = await control.ask("PATCH", "/api/policies/strip_secrets", {"mode": "shadow", "params": {"threshold": 0.9}})
    assert answer.status == 200
    assert (answer.json()["mode"], answer.json()["params"][0]["value"]) == ("shadow", 0.9)
    assert answer.json()["source"].startswith("operator api")


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"mode": "of"}, ["mode"]),
        ({"mode": 1}, ["mode"]),
        ({"params": {"threshold": 2}}, ["params", "threshold"]),
        ({"params": {"treshold": 0.5}}, ["params", "treshold"]),
        ({"params": [1]}, ["params"]),
        ({"mod": "off"}, ["mod"]),
        ({}, ["mode"]),
        ([], []),
        (None, []),
    ],
)
async def test_a_change_that_cannot_be_taken_names_the_field(control: ControlPort, given: Any, place: list[str]) -> None:
    body = json.dumps(given).encode() if given is not None else b""
    answer = await control.ask("PATCH", "/api/policies/strip_secrets", body=body, headers={"content-type": "application/json"})
    assert fault(answer, 422)[0] == "invalid"
    assert [one["loc"] for one in answer.json()["detail"]] == [place]
    assert control.plane.policy_infos[0].mode == "enforce"
    assert control.plane.policy_infos[0].params[0].value == 0.5


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"mode": NaN}'])
async def test_a_body_that_is_no_json(control: ControlPort, body: bytes) -> None:
    answer = await control.ask("PATCH", "/api/policies/strip_secrets", body=body, headers={"content-type": "application/json"})
    assert answer.status in (400, 422)
    assert set(answer.json()["error"]) == {"code", "message"}


async def test_a_value_that_was_refused_is_not_repeated(control: ControlPort) -> None:
    answer = await control.ask("PATCH", "/api/policies/strip_secrets", {"mode": "sk-secret-canary", "params": "canary-2"})
    assert answer.status == 422
    assert b"canary" not in answer.body


# --- holds ---


async def test_holds(control: ControlPort) -> None:
    answer = (await control.ask("GET", "/api/holds")).json()
    assert [one["id"] for one in answer["holds"]] == ["hold-1", "hold-2"]
    assert answer["next"] is None
    assert set(answer["holds"][0]) >= {
        "id", "transaction_id", "stage", "reason", "content", "shown", "created", "deadline"
    }  # fmt: skip
    decided = (await control.ask("GET", "/api/holds?decided=true")).json()
    assert msgspec.convert(decided["holds"], list[HoldInfo]) == control.plane.hold_infos


async def test_a_hold_is_decided_once(control: ControlPort) -> None:
    shown = control.plane.hold_infos[0].shown
    given = {"decision": "deny", "shown": shown, "reason": "not today"}
    answer = await control.ask("POST", "/api/holds/hold-1", given, headers={"x-luthien-operator": "ann"})
    assert answer.status == 200
    assert (answer.json()["status"], answer.json()["decided_by"], answer.json()["message"]) == ("denied", "ann", "not today")
    assert fault(await control.ask("POST", "/api/holds/hold-1", given), 409)[0] == "conflict"
    assert fault(await control.ask("POST", "/api/holds/hold-9", given), 404)[0] == "not_found"


async def test_a_decision_on_something_else_than_was_shown(control: ControlPort) -> None:
    answer = await control.ask("POST", "/api/holds/hold-1", {"decision": "approve", "shown": "0" * 64})
    assert fault(answer, 409)[0] == "conflict"
    assert control.plane.hold_infos[0].status == "pending"


@pytest.mark.parametrize("edited", ['{"command": "ls"}', {"command": "ls"}])
async def test_a_hold_is_edited(control: ControlPort, edited: Any) -> None:
    given = {"decision": "edit", "shown": control.plane.hold_infos[0].shown, "edited": edited}
    answer = await control.ask("POST", "/api/holds/hold-1", given)
    assert (answer.json()["status"], json.loads(answer.json()["content"])) == ("edited", {"command": "ls"})


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"decision": "edit"}, ["edited"]),
        ({"decision": "edit", "edited": "{"}, ["edited"]),
        ({"decision": "approve", "edited": "{}"}, ["edited"]),
        ({"decision": "maybe"}, ["decision"]),
        ({"decision": "deny", "shown": None}, ["shown"]),
        ({"decision": "deny", "reason": "x" * 2_001}, ["reason"]),
        ({"decision": "deny", "because": "x"}, ["because"]),
    ],
)
async def test_a_decision_that_cannot_be_taken(control: ControlPort, given: dict[str, Any], place: list[str]) -> None:
    given = {"shown": control.plane.hold_infos[0].shown, **given}
    answer = await control.ask("POST", "/api/holds/hold-1", given)
    assert fault(answer, 422)[0] == "invalid"
    assert [one["loc"] for one in answer.json()["detail"]] == [place]
    assert control.plane.hold_infos[0].status == "pending"


async def test_a_hold_gets_more_time(control: ControlPort) -> None:
    before = control.plane.hold_infos[0].deadline
    answer = await control.ask("POST", "/api/holds/hold-1/extend", {"seconds": 60})
    assert answer.json()["deadline"] == before + 60
    for seconds in (0, -1, 1e9, "NaN", None):
        assert fault(await control.ask("POST", "/api/holds/hold-1/extend", {"seconds": seconds}), 422)[0] == "invalid"
    assert fault(await control.ask("POST", "/api/holds/hold-3/extend", {"seconds": 1}), 409)[0] == "conflict"


# --- the rest ---


async def test_what_is_not_there(control: ControlPort) -> None:
    assert fault(await control.ask("GET", "/api/nothing"), 404)[0] == "not_found"
    assert fault(await control.ask("POST", "/api/state"), 405)[0] == "method_not_allowed"


async def test_a_defect_tells_nothing(control: ControlPort, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> GatewayState:
        raise RuntimeError("canary of the inside")

    control.plane.state = broken  # type: ignore[method-assign]
    answer = await control.ask("GET", "/api/state")
    assert fault(answer, 500)[0] == "internal_error"
    assert b"canary" not in answer.body
    assert "the control API failed" in caplog.text


async def test_the_token_is_in_no_answer(control: ControlPort) -> None:
    for path in ("/api/state", "/api/policies", "/api/transactions", "/openapi.json", "/docs", "/api/nothing"):
        assert TOKEN.encode() not in (await control.ask("GET", path)).body


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (None, "api"),
        ("", "api"),
        ("ann", "ann"),
        ("a\x1b[31mb", "a[31mb"),
        ("x" * 100, "x" * 64),
        ("\u202e\n", "api"),
        (" é ", "é"),
    ],
)
def test_names_of_operators_are_clean(given: str | None, name: str) -> None:
    assert operator_name(given) == name
