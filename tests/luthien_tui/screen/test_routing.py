"""What an operator sees of routing, and changes in it by keys."""

from __future__ import annotations

import pytest

from proxy_core.control.plane import ControlInvalid
from proxy_core.control.routing_infos import RoutingInfo
from proxy_core.errors import JournalUnavailable
from tests.luthien_tui.fake_plane import FakePlane, make_decision, make_upstream, routed_plane
from tests.luthien_tui.screen.console import SMALL, Console, console


def threshold(plane: FakePlane) -> int | None:
    return plane.routing_settings.routing.cost.max_prompt_length_for_local


def line(shown: Console, name: str) -> str:
    return next(line for line in shown.lines if name in line)


async def test_decisions_with_rule_and_reason_and_how_upstreams_fare() -> None:
    async with console(routed_plane()) as shown:
        await shown.press("5")
        assert "✗ refused" in line(shown, "14:02:50")
        assert "sensitive_keyword_match" in line(shown, "14:02:50")
        assert "cost_prefer_local" in line(shown, "14:02:48")
        assert "✗ breaker open" in line(shown, "anthropic   cloud")
        assert "● serving" in line(shown, "ollama      local")
        assert "2 keywords keep a request local" in shown.text


async def test_what_ails_an_upstream_and_when_it_is_tried_again() -> None:
    plane = routed_plane()
    probed = {"probe": "no answer within 3 s", "probed_s_ago": 2.5}
    ails = {"breaker": "open", "last_failure": "status 503", "ready_in_s": 12.0}
    plane.upstream_infos = [make_upstream("openai", **ails, **probed), make_upstream("near", probe="ok", probed_s_ago=1.0)]
    async with console(plane) as shown:
        await shown.press("5")
        assert "status 503 · again in 12.0s · probe: no answer within 3 s" in shown.text
        assert "probe: ok" not in shown.text, "who is well needs no words"


async def test_a_threshold_moves_with_its_what_if_and_holds_after_enter() -> None:
    plane = routed_plane()
    async with console(plane) as shown:
        await shown.press("5", "right", "right")
        assert "max_prompt_length_for_local 500 → 700" in shown.text
        await shown.see("would move 7 of the last 1,000: openai → ollama, $0.070 → $0")
        assert threshold(plane) == 500
        await shown.press("shift+right")
        await shown.see("would move 17 of the last 1,000")
        await shown.press("enter")
        await shown.until(lambda: threshold(plane) == 1_700)
        await shown.until(lambda: "would move" not in shown.text)


async def test_escape_drops_what_is_prepared() -> None:
    plane = routed_plane()
    async with console(plane) as shown:
        await shown.press("5", "right", "escape")
        assert "pending" not in shown.text
        assert threshold(plane) == 500


async def test_a_rule_that_is_not_set_is_set_by_arrows_or_typed() -> None:
    plane = routed_plane()
    async with console(plane) as shown:
        await shown.press("5", "j")
        assert "not set" in line(shown, "▶max_usd_for_local")
        await shown.press("right")
        assert "max_usd_for_local null → 0.0005" in shown.text
        await shown.press("escape", "e")
        await shown.see("ctrl+s take")
        await shown.type("0.02")
        await shown.press("ctrl+s")
        await shown.press("enter")
        await shown.until(lambda: plane.routing_settings.routing.cost.max_usd_for_local == 0.02)


async def test_a_choice_is_picked() -> None:
    plane = routed_plane()
    async with console(plane) as shown:
        await shown.press("5", "j", "j", "j", "j", "e")
        await shown.see("substring")
        await shown.press("down", "enter")
        assert "match word → substring" in shown.text
        await shown.press("enter")
        await shown.until(lambda: plane.routing_settings.routing.sensitivity.match == "substring")


async def test_u_takes_back_the_last_change_once() -> None:
    plane = routed_plane()
    async with console(plane) as shown:
        await shown.press("5", "u")
        assert threshold(plane) == 500
        await shown.press("right", "enter")
        await shown.until(lambda: threshold(plane) == 600)
        await shown.press("u")
        await shown.until(lambda: threshold(plane) == 500)
        await shown.press("u")
        assert threshold(plane) == 500


async def test_keeping_everything_local_asks_and_is_seen_everywhere() -> None:
    plane = routed_plane()
    async with console(plane) as shown:
        await shown.press("5", "L")
        assert "Keep every request local?" in shown.text
        await shown.press("escape")
        assert not plane.forced
        await shown.press("L", "y")
        await shown.until(lambda: plane.forced)
        await shown.see("EVERYTHING STAYS LOCAL")
        await shown.press("1")
        await shown.see("5 Routing ■local")
        await shown.press("5", "u")
        await shown.until(lambda: not plane.forced)
        await shown.until(lambda: "■local" not in shown.text)


async def test_an_upstream_is_drained_frozen_and_taken_back() -> None:
    plane = routed_plane()
    async with console(plane) as shown:
        await shown.press("5", "d")
        assert plane.upstream_infos[0].state == "active", "no upstream is chosen"
        await shown.press(*["j"] * 7, "d")
        await shown.until(lambda: plane.upstream_infos[0].state == "drained")
        await shown.see("◐ drained")
        await shown.press("z")
        await shown.until(lambda: plane.upstream_infos[0].state == "frozen")
        await shown.see("■ frozen")
        await shown.press("u")
        await shown.until(lambda: plane.upstream_infos[0].state == "drained")
        await shown.press("d")
        await shown.until(lambda: plane.upstream_infos[0].state == "active")


async def test_what_the_gateway_refuses_is_said_and_stays_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = routed_plane()
    faults: list[Exception] = [ControlInvalid("params.cost.max_prompt_length_for_local", "that is too long")]

    async def refuse(params: dict[str, object], **more: object) -> RoutingInfo:
        raise faults[-1]

    async with console(plane) as shown:
        monkeypatch.setattr(plane, "set_routing", refuse)
        await shown.press("5", "right", "enter")
        await shown.see("✗ that is too long")
        faults.append(JournalUnavailable("the store is full"))
        await shown.press("enter")
        await shown.see("not done: the store is full")
        assert "max_prompt_length_for_local 500 → 600" in shown.text


async def test_a_change_from_elsewhere_is_seen_at_once() -> None:
    plane = routed_plane()
    async with console(plane) as shown:
        await shown.press("5")
        await plane.set_routing({"cost.max_prompt_length_for_local": 900}, who="ann")
        await shown.see("900 ├")


async def test_hostile_names_act_on_nothing() -> None:
    plane = routed_plane()
    plane.decisions = [make_decision(1, model="\x1b[31mgpt\u202e\x07" + "x" * 300, reasons=("a\x1b]0;t\x07",), rule="")]
    plane.upstream_infos = [make_upstream("openai", base_url="\x1b[2J")]
    plane.routing_reasons = (("\x1b[31mcode", 3),)
    async with console(plane, SMALL) as shown:
        await shown.press("5", "G", "tab", "j", "G", "g", "tab")
        assert not any("\x1b" in segment.text or "\u202e" in segment.text or "\x07" in segment.text for segment in shown.segments)


async def test_nothing_routed_yet_is_said_so() -> None:
    async with console(FakePlane(), SMALL) as shown:
        await shown.press("5", "G", "d", "z", "u", "j", "k")
        assert "Nothing was routed yet" in shown.text
