"""Every fault of an upstream, alone and with another that stands in, without policies and with them.

What must hold each time: no storm, nothing done twice, nothing sent elsewhere once the client has a byte of the answer, and a
record that says what happened.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.certificates import Certificate, make_certificate
from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import ONE_OF_EACH_DIALECT, RESPONSES, Asking, name_of
from tests.gateway_fixtures import RunningGateway

SECRET = "sk-ant-api03-" + "x7K" * 31 + "AA"
POLICIES = [{"use": "strip_secrets"}, {"use": "tool_allow_deny", "params": {"deny": ["rm"]}}]
TIMES = {"connect_s": 20.0, "first_byte_s": 0.5, "idle_s": 0.5}


@dataclass(frozen=True)
class Trouble:
    """A fault, and what comes of it."""

    name: str
    fault: Fault | None
    """None: nobody answers at this address."""
    status: int
    """What the client gets where nobody stands in; 200 for an answer that breaks off."""
    moves: bool
    """Whether another upstream takes it."""
    arrives: bool = True
    """Whether the upstream sees the request."""
    whole: bool = False
    """Whether the client gets a whole answer all the same."""
    tls: bool = False


TROUBLES = [
    Trouble("refused", None, 502, moves=True, arrives=False),
    Trouble("tls", Fault(), 502, moves=True, arrives=False, tls=True),
    Trouble("reset", Fault(reset_after=-1), 502, moves=False),
    Trouble("reset after first byte", Fault(reset_after=1), 200, moves=False),
    Trouble("stall before first byte", Fault(stall_after=-1), 504, moves=False),
    Trouble("stall after first byte", Fault(stall_after=1), 200, moves=False),
    Trouble("429", Fault(status=429, headers=[("retry-after", "1")]), 429, moves=True),
    Trouble("500", Fault(status=500), 500, moves=True),
    Trouble("502", Fault(status=502), 502, moves=True),
    Trouble("503", Fault(status=503), 503, moves=True),
    Trouble("504", Fault(status=504), 504, moves=False),
    Trouble("529", Fault(status=529), 529, moves=True),
    Trouble("400", Fault(status=400), 400, moves=False),
    Trouble("drip", Fault(drip=True), 200, moves=False, whole=True),
]
each_trouble = pytest.mark.parametrize("trouble", TROUBLES, ids=lambda one: one.name)
each_dialect = pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
with_and_without = pytest.mark.parametrize("policies", [[], POLICIES], ids=["plain", "policies"])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def second() -> AsyncIterator[FaultUpstream]:
    async with FaultUpstream() as fault_upstream:
        yield fault_upstream


@pytest.fixture
async def troubled(trouble: Trouble, certificate: Certificate) -> AsyncIterator[FaultUpstream]:
    """The upstream in trouble; its certificate is one that nobody trusts."""
    tls = certificate.server_context() if trouble.tls else None
    async with FaultUpstream(tls=tls) as fault_upstream:
        if trouble.fault is not None:
            fault_upstream.faults.append(trouble.fault)
        yield fault_upstream


async def ask(gateway: RunningGateway, asking: Asking) -> tuple[int, bytes, bool]:
    """Status, body and whether it is whole, of one stream."""
    async with gateway.connect() as client:
        client.request("POST", asking.path, asking.bytes(stream=True), asking.headers)
        response = await client.response(method="POST")
    return response.status, response.body, response.status == 200 and response.whole and asking.terminator in response.body


def upstreams_of(asking: Asking, trouble: Trouble, troubled: FaultUpstream, second: FaultUpstream | None) -> dict[str, Any]:
    url = "http://127.0.0.1:1" if trouble.fault is None else troubled.url
    upstreams: dict[str, Any] = {"one": {"api": asking.dialect, "base_url": url}}
    if second is not None:
        upstreams["two"] = {"api": asking.dialect, "base_url": second.url, "priority": 1}
    return upstreams


@each_trouble
@each_dialect
@with_and_without
async def test_alone_it_is_sent_once_and_the_client_is_told(
    start_gateway: StartGateway, troubled: FaultUpstream, trouble: Trouble, asking: Asking, policies: list[Any]
) -> None:
    gateway = await start_gateway(
        upstreams=upstreams_of(asking, trouble, troubled, None), routing={"timeouts": TIMES}, policies=policies
    )
    status, _, whole = await ask(gateway, asking)
    assert status == trouble.status
    assert whole is trouble.whole
    assert len(troubled.exchanges) == int(trouble.arrives)
    row = await gateway.row_when(lambda row: row.outcome != "")
    assert (row.upstream, row.reason) == ("one", "default")
    assert row.outcome == ("ok" if trouble.whole else "truncated" if trouble.status == 200 else "error")
    (view,) = gateway.runtime._gateway.pool.views()
    assert (view.in_flight, view.breaker) == (0, "closed")


@each_trouble
@each_dialect
@with_and_without
async def test_another_stands_in_where_nothing_happens_twice(
    start_gateway: StartGateway,
    troubled: FaultUpstream,
    second: FaultUpstream,
    trouble: Trouble,
    asking: Asking,
    policies: list[Any],
) -> None:
    gateway = await start_gateway(
        upstreams=upstreams_of(asking, trouble, troubled, second), routing={"timeouts": TIMES}, policies=policies
    )
    status, _, whole = await ask(gateway, asking)
    assert len(troubled.exchanges) == int(trouble.arrives)
    assert len(second.exchanges) == int(trouble.moves)
    row = await gateway.row_when(lambda row: row.outcome != "")
    if trouble.moves:
        assert (status, whole, row.outcome) == (200, True, "ok")
        assert (row.upstream, row.reason) == ("two", "default,fallback_after_failure")
    else:
        assert (status, whole) == (trouble.status, trouble.whole)
        assert (row.upstream, row.reason) == ("one", "default")


@each_trouble
@with_and_without
async def test_both_in_trouble_get_one_attempt_each(
    start_gateway: StartGateway, troubled: FaultUpstream, second: FaultUpstream, trouble: Trouble, policies: list[Any]
) -> None:
    asking = ONE_OF_EACH_DIALECT[0]
    second.faults.append(Fault(status=503))
    gateway = await start_gateway(
        upstreams=upstreams_of(asking, trouble, troubled, second),
        routing={"timeouts": TIMES, "retries": {"max_attempts": 10, "same_upstream": False}},
        policies=policies,
    )
    status, _, _ = await ask(gateway, asking)
    assert status == (503 if trouble.moves else trouble.status)
    assert len(troubled.exchanges) + len(second.exchanges) == int(trouble.arrives) + int(trouble.moves)


@pytest.mark.parametrize("status", [500, 502])
async def test_what_an_upstream_keeps_is_not_made_twice(
    start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream, status: int
) -> None:
    """The Responses API stores its answers: one that failed may be there."""
    trouble = Trouble("", Fault(status=status), status, moves=False)
    upstream.faults.append(Fault(status=status))
    gateway = await start_gateway(upstreams=upstreams_of(RESPONSES, trouble, upstream, second))
    assert (await ask(gateway, RESPONSES))[0] == status
    assert not second.exchanges


@pytest.mark.parametrize("fault", [Fault(reset_after=-1), Fault(stall_after=-1), Fault(status=504)])
async def test_who_accepts_that_it_may_run_twice_gets_more_attempts(
    start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream, fault: Fault
) -> None:
    asking = ONE_OF_EACH_DIALECT[0]
    upstream.faults.append(fault)
    gateway = await start_gateway(
        upstreams=upstreams_of(asking, Trouble("", fault, 0, moves=True), upstream, second),
        routing={"timeouts": TIMES, "retries": {"unsafe": True}},
    )
    assert (await ask(gateway, asking))[0] == 200
    assert len(second.exchanges) == 1


@with_and_without
async def test_an_outage_of_all_makes_no_storm(
    start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream, policies: list[Any]
) -> None:
    """A hundred requests, and nobody is well: a fifth more attempts at most, and three that are always free."""
    asking = ONE_OF_EACH_DIALECT[0]
    fault = Fault(status=500)
    upstream.faults.extend([fault] * 300)
    second.faults.extend([fault] * 300)
    gateway = await start_gateway(
        upstreams=upstreams_of(asking, Trouble("", fault, 500, moves=True), upstream, second),
        routing={
            "breaker": {"failures": 1_000, "min_requests": 1_000},
            "retries": {"max_attempts": 5, "same_upstream": True, "backoff_s": 0.001},
        },
        policies=policies,
    )

    async def one() -> int:
        return (await gateway.ask("POST", asking.path, asking.bytes(), asking.headers)).status

    statuses = [status for _ in range(5) for status in await asyncio.gather(*(one() for _ in range(20)))]
    assert set(statuses) == {500}
    assert 100 < len(upstream.exchanges) + len(second.exchanges) <= 123


async def test_policies_act_once_whatever_is_tried(
    start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream
) -> None:
    asking = ONE_OF_EACH_DIALECT[0]
    upstream.faults.append(Fault(status=503))
    gateway = await start_gateway(
        upstreams=upstreams_of(asking, TROUBLES[9], upstream, second), policies=[{"use": "strip_secrets"}]
    )
    body = {**asking.body, "messages": [{"role": "user", "content": f"my key is {SECRET}"}]}
    response = await gateway.ask("POST", asking.path, json.dumps(body).encode(), asking.headers)
    assert response.status == 200
    assert upstream.last.body == second.last.body
    assert SECRET.encode() not in second.last.body
    detail = await gateway.detail()
    assert [one.policy for one in detail.verdicts] == ["strip_secrets", "routing"]
    assert detail.row.reason == "default,fallback_after_failure"
