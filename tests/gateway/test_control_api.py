"""The control API of a real gateway: what an operator sees of the traffic, and does to it, from outside."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from proxy_core.errors import ExitCode, ListenError
from proxy_core.runtime import GatewayRuntime
from proxy_core.tasks import spawn
from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, EVERY, MESSAGES, ONE_OF_EACH_DIALECT, Asking, name_of, stream_error_message
from tests.gateway_fixtures import RunningGateway, settings_for
from tests.proxy_core.api.control_port import Event, EventReader, following
from tests.raw_http import RawClient, RawResponse

SHOUT = {"use": "string_replacement", "params": {"replacements": [["Paris", "PARIS"], ["capital", "centre"]], "apply_to": "both"}}
HOLD_REQUESTS = {"use": "hold_for_approval", "params": {"stage": "request"}}


class Operator:
    """Somebody with the token."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.address = gateway.plane.state().control
        self.url = f"http://{self.address}"
        self.token = (gateway.data_dir / "control-token").read_text().strip()

    async def ask(self, method: str, path: str, given: Any = None, **headers: str) -> RawResponse:
        host, _, port = self.address.rpartition(":")
        pairs = {"authorization": f"Bearer {self.token}", **headers}
        body = b""
        if given is not None:
            body = json.dumps(given).encode()
            pairs["content-type"] = "application/json"
        async with RawClient(host, int(port)) as client:
            client.request(method, path, body, pairs)
            return await client.response(method=method)

    async def get(self, path: str) -> Any:
        answer = await self.ask("GET", path)
        assert answer.status == 200, answer.body
        return answer.json()

    async def held(self) -> dict[str, Any]:
        """The first thing that waits, as soon as one does."""
        async with asyncio.timeout(30):
            while True:
                if holds := (await self.get("/api/holds"))["holds"]:
                    found: dict[str, Any] = holds[0]
                    return found
                await asyncio.sleep(0.01)


async def until(reader: EventReader, kind: str) -> list[Event]:
    """The events up to the first of this kind."""
    found = [await reader.next()]
    while found[-1].event != kind:
        found.append(await reader.next())
    return found


async def test_the_token_is_made_at_the_first_start_and_kept(gateway: RunningGateway) -> None:
    file = gateway.data_dir / "control-token"
    token = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (await Operator(gateway).ask("GET", "/api/state")).status == 200
    await gateway.restart()
    assert file.read_text() == token
    assert (await Operator(gateway).ask("GET", "/api/state")).status == 200
    assert (await Operator(gateway).ask("GET", "/api/state", authorization="Bearer x")).status == 401


async def test_state_tells_of_the_gateway(gateway: RunningGateway) -> None:
    state = await Operator(gateway).get("/api/state")
    assert (state["address"], state["status"], state["total"]) == (f"{gateway.host}:{gateway.port}", "serving", 0)
    await gateway.ask("POST", CHAT.path, CHAT.bytes())
    state = await Operator(gateway).get("/api/state")
    assert (state["total"], state["active"]) == (1, 0)
    assert state["sequence"] >= 3


async def test_the_data_plane_serves_no_control(gateway: RunningGateway) -> None:
    token = Operator(gateway).token
    for path in ("/api/state", "/api/policies", "/docs", "/openapi.json"):
        answer = await gateway.ask("GET", path, headers={"authorization": f"Bearer {token}"})
        assert b'"address"' not in answer.body
        assert b'"policies"' not in answer.body
        assert b'"openapi"' not in answer.body


async def test_events_of_a_transaction_in_order_and_again(gateway: RunningGateway) -> None:
    operator = Operator(gateway)
    async with following(operator.url, operator.token) as reader:
        await reader.next()
        await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True))
        seen = await until(reader, "finished")
    assert [one.event for one in seen] == ["started", "routed", "first_token", "finished"]
    assert {one.data["row"]["transaction_id"] for one in seen} == {(await gateway.row()).transaction_id}
    async with following(operator.url, operator.token, last=seen[1].id) as reader:
        again = await until(reader, "finished")
    assert [(one.id, one.event) for one in again[1:]] == [(one.id, one.event) for one in seen[2:]]


async def test_readers_of_events_burden_no_client(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    """Readers that never read: requests are as quick as without them, and all are in the journal."""
    operator = Operator(gateway)
    host, _, port = operator.address.rpartition(":")
    readers = [RawClient(host, int(port)) for _ in range(5)]
    for reader in readers:
        await reader.__aenter__()
        reader.request("GET", "/api/events", headers={"authorization": f"Bearer {operator.token}"})
        assert (await reader.head()).status == 200
    async with gateway.connect() as client:
        for _ in range(200):
            client.request("POST", CHAT.path, CHAT.bytes())
            assert (await client.response()).status == 200
    assert len(await gateway.rows()) == 200
    for reader in readers:
        await reader.__aexit__()


async def test_transactions_are_listed_with_those_that_run(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    operator = Operator(gateway)
    for asking in EVERY:
        await gateway.ask("POST", asking.path, asking.bytes(), asking.headers)
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(stream=True), Fault(stall_after=2).header())
        await client.head()
        listed = (await operator.get("/api/transactions"))["transactions"]
        assert [row["operation"] for row in listed] == ["chat", *(one.name for one in reversed(EVERY))]
        assert (listed[0]["state"], listed[0]["outcome"]) == ("streaming", "")
        assert {row["state"] for row in listed[1:]} == {"done"}
        running = await operator.get("/api/transactions?filter=is:running")
        assert [row["transaction_id"] for row in running["transactions"]] == [listed[0]["transaction_id"]]
        detail = await operator.get(f"/api/transactions/{listed[0]['transaction_id']}")
        assert detail["response"]["final"].startswith("data: ")
    page = await operator.get("/api/transactions?filter=dialect:ollama&limit=1")
    rest = await operator.get(f"/api/transactions?filter=dialect:ollama&limit=5&cursor={page['next']}")
    names = [row["operation"] for row in page["transactions"] + rest["transactions"]]
    assert names == ["ollama_generate", "ollama_chat"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
async def test_what_policies_changed_is_shown_for_streams_too(start_gateway: StartGateway, asking: Asking, stream: bool) -> None:
    gateway = await start_gateway(policies=[SHOUT])
    answer = await gateway.ask("POST", asking.path, asking.bytes(stream=stream), asking.headers)
    assert b"PARIS" in answer.body.replace(b'"', b"")
    detail = await Operator(gateway).get(f"/api/transactions/{(await gateway.row()).transaction_id}")
    request, response = detail["request"], detail["response"]
    assert request["original"] == asking.bytes(stream=stream).decode()
    assert "centre of France" in request["final"]
    assert [(one["path"], one["kind"]) for one in request["diff"]] == [("messages[0].content[0].text", "changed")]
    assert response["changed"] is True
    assert response["final"] == answer.body.decode()
    assert "Paris" in response["original"].replace('"', "")
    (change,) = response["diff"]
    assert change["path"] == "content[0].text"
    assert change["after"] == change["before"].replace("Paris", "PARIS").replace("capital", "centre") != change["before"]
    assert len(detail["policy_digest"]) >= 8
    assert {one["action"] for one in detail["verdicts"]} >= {"modify"}


# --- kill ---


@pytest.mark.parametrize("policies", [[], [SHOUT]], ids=["untouched", "through policies"])
@pytest.mark.parametrize("asking", EVERY, ids=name_of)
async def test_a_stream_that_is_killed_ends_in_its_dialects_error(
    start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking, policies: list[dict[str, Any]]
) -> None:
    gateway = await start_gateway(policies=policies)
    operator = Operator(gateway)
    async with gateway.connect() as client:
        client.request("POST", asking.path, asking.bytes(stream=True), {**asking.headers, **Fault(stall_after=2).header()})
        transaction_id = (await client.head()).header("x-luthien-transaction-id")
        path = f"/api/transactions/{transaction_id}/kill"
        answering = spawn(_rest(client), name="the rest")
        await upstream.arrived()
        answer = await operator.ask("POST", path, **{"x-luthien-operator": "ann"})
        assert (answer.status, answer.json()) == (200, {"transaction_id": transaction_id, "killed": True})
        body = await answering
    message = stream_error_message(body, asking)
    assert "ann ended this" in message
    async with asyncio.timeout(30):
        await upstream.last.peer_gone.wait()
    row = await gateway.row_when(lambda row: row.state == "done" and row.outcome != "lost")
    assert (row.transaction_id, row.outcome) == (transaction_id, "refused")
    assert "ann ended this" in row.error
    assert (await operator.ask("POST", path)).status == 409


async def test_a_request_that_waits_is_killed(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    operator = Operator(gateway)
    async with gateway.connect() as client:
        client.request("POST", MESSAGES.path, MESSAGES.bytes(), {**MESSAGES.headers, **Fault(stall_after=-1).header()})
        await upstream.arrived()
        (running,) = (await operator.get("/api/transactions?filter=is:running"))["transactions"]
        assert (await operator.ask("POST", f"/api/transactions/{running['transaction_id']}/kill")).status == 200
        answer = await client.response()
    assert answer.status == 400
    assert answer.header("x-should-retry") == "false"
    assert answer.json()["type"] == "error"


async def test_a_held_request_is_killed(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(policies=[HOLD_REQUESTS])
    operator = Operator(gateway)
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes())
        hold = await operator.held()
        answer = await operator.ask("POST", f"/api/transactions/{hold['transaction_id']}/kill")
        assert answer.status == 200, answer.body
        assert (await client.response()).status == 400
    given = {"decision": "approve", "shown": hold["shown"]}
    assert not upstream.exchanges
    assert (await operator.get("/api/holds"))["holds"] == []
    assert (await operator.ask("POST", f"/api/holds/{hold['id']}", given)).status in (404, 409)


async def _rest(client: RawClient) -> bytes:
    """The body after a head that was read already."""
    answer = RawResponse(200, "1.1", [])
    assert await client._chunked(answer)
    return b"".join(chunk for _, chunk in answer.chunks)


# --- holds and policies ---


@pytest.mark.parametrize("decision", ["approve", "deny"])
async def test_a_held_request_is_decided(start_gateway: StartGateway, upstream: FaultUpstream, decision: str) -> None:
    gateway = await start_gateway(policies=[HOLD_REQUESTS])
    operator = Operator(gateway)
    async with following(operator.url, operator.token) as reader:
        await reader.next()
        async with gateway.connect() as client:
            client.request("POST", CHAT.path, CHAT.bytes())
            hold = await operator.held()
            assert "capital of France" in hold["content"]
            path = f"/api/holds/{hold['id']}"
            stale = await operator.ask("POST", path, {"decision": "approve", "shown": "0" * 64})
            assert stale.status == 409
            given = {"decision": decision, "shown": hold["shown"], "reason": "not on a Friday"}
            decided = await operator.ask("POST", path, given, **{"x-luthien-operator": "ann"})
            assert decided.status == 200, decided.body
            assert decided.json()["decided_by"] == "ann"
            assert (await operator.ask("POST", path, given)).status == 409
            answer = await client.response()
        kinds = [one.event for one in await until(reader, "finished")]
    assert kinds.index("held") < kinds.index("released")
    if decision == "approve":
        assert answer.status == 200
    else:
        assert answer.status == 400
        assert "not on a Friday" in answer.json()["error"]["message"]
        assert not upstream.exchanges
    assert (await operator.get("/api/holds"))["holds"] == []
    assert [one["id"] for one in (await operator.get("/api/holds?decided=true"))["holds"]] == [hold["id"]]


async def test_only_one_of_many_decisions_counts(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(policies=[HOLD_REQUESTS])
    operator = Operator(gateway)
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes())
        hold = await operator.held()
        given = [{"decision": one, "shown": hold["shown"]} for one in ("approve", "deny") * 5]
        answers = await asyncio.gather(*(operator.ask("POST", f"/api/holds/{hold['id']}", one) for one in given))
        assert sorted(one.status for one in answers) == [200] + [409] * 9
        (winner,) = [one.json() for one in answers if one.status == 200]
        assert (await client.response()).status == (200 if winner["status"] == "approved" else 400)


async def test_a_policy_is_switched_while_traffic_runs(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(policies=[SHOUT])
    operator = Operator(gateway)
    (policy,) = [one for one in (await operator.get("/api/policies"))["policies"] if one["use"] == "string_replacement"]
    assert policy["mode"] == "enforce"

    async def answered() -> tuple[bytes, dict[str, Any]]:
        body = (await gateway.ask("POST", CHAT.path, CHAT.bytes())).body
        return body, await operator.get(f"/api/transactions/{(await gateway.row()).transaction_id}")

    enforced, before = await answered()
    async with following(operator.url, operator.token) as reader:
        await reader.next()
        changed = await operator.ask(
            "PATCH", f"/api/policies/{policy['name']}", {"mode": "shadow"}, **{"x-luthien-operator": "ann"}
        )
        assert (changed.status, changed.json()["mode"]) == (200, "shadow")
        told = (await until(reader, "control_changed"))[-1]
    assert "ann" in told.data["note"]
    shadowed, after = await answered()
    assert b"PARIS" in enforced
    assert b"PARIS" not in shadowed
    assert before["policy_digest"] != after["policy_digest"]
    assert {one["mode"] for one in after["verdicts"]} >= {"shadow"}
    wrong = await operator.ask("PATCH", f"/api/policies/{policy['name']}", {"params": {"apply_to": "nobody"}})
    assert wrong.status == 422
    assert wrong.json()["detail"][0]["loc"] == ["params", "apply_to"]
    assert (await answered())[0] == shadowed
    await gateway.restart()
    again = await Operator(gateway).get(f"/api/policies/{policy['name']}")
    assert again["mode"] == "shadow"


# --- life ---


async def test_a_taken_port_is_an_error_that_names_the_remedy(upstream: FaultUpstream, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        settings = settings_for(upstream.url, control={"port": other.getsockname()[1]})
        with pytest.raises(ListenError, match="--control-port") as found:
            await GatewayRuntime(settings, data_dir=tmp_path).start()
    assert found.value.exit_code == ExitCode.CANNOT_START


async def test_it_can_be_left_out(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(control={"enabled": False})
    assert gateway.plane.state().control == ""
    assert not (gateway.data_dir / "control-token").exists()


async def test_it_answers_while_the_gateway_drains_and_ends_with_it(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    operator = Operator(gateway)
    async with following(operator.url, operator.token) as reader, gateway.connect() as client:
        await reader.next()
        client.request("POST", CHAT.path, CHAT.bytes(stream=True), Fault(interval_s=0.05).header())
        await client.head()
        gateway.runtime.begin_shutdown()
        assert (await operator.get("/api/state"))["status"] == "draining"
        begun = time.monotonic()
        async with asyncio.timeout(8):
            await gateway.runtime.wait_closed()
        assert (await until(reader, "finished"))[-1].data["row"]["outcome"] == "ok"
        with pytest.raises(EOFError):
            await reader.next()
    assert time.monotonic() - begun < 4
    with pytest.raises(ConnectionError):
        await operator.ask("GET", "/api/state")


async def test_no_key_is_in_any_answer(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    canary = "sk-proj-" + "c4nary" * 8
    gateway = await start_gateway(
        upstreams={"openai": {"api": "openai", "base_url": upstream.url, "api_key": canary + "-configured"}},
        policies=[
            {"use": "add_api_key", "params": {"api_key": canary + "-policy"}},
            {"use": "strip_secrets", "params": {"literals": ["a plain c4nary"]}},
            {"use": "serial", "params": {"policies": [{"use": "strip_secrets", "params": {"literals": ["a deep c4nary"]}}]}},
            SHOUT,
        ],
        keys={"ann": {"key": canary + "-client"}},
    )
    operator = Operator(gateway)
    headers = {"authorization": f"Bearer {canary}", "x-api-key": canary}
    async with following(operator.url, operator.token) as reader:
        await reader.next()
        await gateway.ask("POST", CHAT.path, CHAT.bytes(user=canary), headers)
        upstream.faults.append(Fault(status=401, echo_key=True))
        await gateway.ask("POST", CHAT.path, CHAT.bytes(), headers)
        events = await until(reader, "finished") + await until(reader, "finished")
    seen = json.dumps([one.data for one in events])
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(stream=True, user=canary), {**headers, **Fault(stall_after=2).header()})
        await client.head()
        listed = (await operator.get("/api/transactions"))["transactions"]
        paths = ["/api/state", "/api/policies", "/api/holds?decided=true", "/api/transactions", "/docs", "/openapi.json"]
        paths += [f"/api/transactions/{row['transaction_id']}" for row in listed]
        for path in paths:
            seen += (await operator.ask("GET", path)).body.decode()
        seen += (await gateway.ask("GET", "/config")).body.decode()
    assert len(listed) == 3
    assert "c4nary" not in seen
    assert operator.token not in seen
