"""The screen over a gateway that serves: what a key decides is what the client gets; a screen that stands still stops nothing."""

from __future__ import annotations

import asyncio

from proxy_core.tasks import spawn
from tests.conftest import StartGateway
from tests.fault_payloads import TOOL_NAME
from tests.fault_upstream import FaultUpstream
from tests.gateway.holding import EACH_TOOL_ASKING, OTHER_ARGUMENTS, holding, same_json
from tests.gateway_fixtures import RunningGateway
from tests.luthien_tui.screen.operated import operated
from tests.raw_http import RawResponse

ANTHROPIC = EACH_TOOL_ASKING[2]


def ask(gateway: RunningGateway) -> asyncio.Task[RawResponse]:
    asking = ANTHROPIC.asking
    return spawn(gateway.ask("POST", asking.path, ANTHROPIC.body(stream=True), asking.headers), name="client")


async def test_an_edit_by_keys_is_what_the_client_gets(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(policies=holding(), holds={"heartbeat_s": 0.05})
    async with operated(gateway) as shown:
        client = ask(gateway)
        await shown.see("2 Holds ●1")
        await shown.see("‖ held 0:0")
        await shown.press("2")
        await shown.see(f"tool call  {TOOL_NAME}")
        await shown.see("seen whole")
        await shown.press("e")
        shown.app.holds.editor.load_text('{"city": 7}')
        await shown.press("ctrl+s")
        await shown.see("schema does not allow it")
        shown.app.holds.editor.load_text(OTHER_ARGUMENTS)
        await shown.press("ctrl+s")
        answer = ANTHROPIC.read((await client).body, stream=True)
        (call,) = [block for block in answer.blocks if hasattr(block, "arguments")]
        assert same_json(call.arguments, OTHER_ARGUMENTS)
        await shown.see("approved, edited by operator")
        await shown.press("1", "k", "enter")
        await shown.until(lambda: shown.app.live.detail.detail is not None)
        shown.app.live.detail.show_tab("Policies")
        await shown.see("approved_edited")
        await shown.see("as the upstream gave it → as the client got it")
        await shown.see("city")


async def test_a_denial_by_keys_reaches_the_client_with_its_reason(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(policies=holding(), holds={"heartbeat_s": 0.05})
    async with operated(gateway) as shown:
        client = ask(gateway)
        await shown.see("2 Holds ●1")
        await shown.press("2")
        await shown.see("seen whole")
        await shown.press("x", *"not today".replace(" ", "_"), "enter")
        assert b"not_today" in (await client).body
        await shown.see("denied by operator")


async def test_a_frozen_screen_holds_nothing_up(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(policies=holding(timeout_s=1), holds={"heartbeat_s": 0.05})
    async with operated(gateway) as shown:
        client = ask(gateway)
        response = await client
        assert b"not approved in time" in response.body
        assert "●" not in shown.text.splitlines()[1]
        await shown.press("2")
        await shown.see("expired")


async def test_a_policy_changed_by_keys_holds_for_the_next_request(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(policies=holding(), holds={"heartbeat_s": 0.05})
    async with operated(gateway) as shown:
        await shown.press("4")
        await shown.see("hold_for_approval")
        await shown.press("space")
        await shown.see("Turn hold_for_approval off?")
        await shown.press("y", "enter")
        await shown.until(lambda: gateway.plane.policies()[0].mode == "off")
        await shown.see("hold_for_approval set by operator")
        assert (await ask(gateway)).status == 200
        assert not gateway.plane.holds(decided=True)


async def test_a_killed_stream_ends_for_its_client(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(policies=holding(), holds={"heartbeat_s": 0.05})
    async with operated(gateway) as shown:
        client = ask(gateway)
        await shown.see("‖ held")
        await shown.press("k", "K")
        await shown.see("End this transaction now?")
        await shown.press("y")
        assert b"error" in (await client).body
        await shown.until(lambda: not gateway.plane.holds())
