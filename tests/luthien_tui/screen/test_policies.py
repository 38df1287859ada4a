"""What an operator changes in the chain, by keys, and when it is in force."""

from __future__ import annotations

import pytest

from proxy_core.control.plane import ControlInvalid, ParamInfo, PolicyInfo
from tests.luthien_tui.fake_plane import FakePlane, make_policy, make_row, sample_plane, sample_policies
from tests.luthien_tui.screen.console import Console, console


def configured(*policies: PolicyInfo) -> FakePlane:
    plane = sample_plane()
    plane.policy_infos = list(policies) or sample_policies()
    return plane


def policy(plane: FakePlane, name: str) -> PolicyInfo:
    return next(one for one in plane.policy_infos if one.name == name)


def line(shown: Console, name: str) -> str:
    return next(line for line in shown.lines if name in line)


async def test_the_chain_in_order_with_what_each_did() -> None:
    async with console(configured()) as shown:
        await shown.press("4")
        assert "1 strip_secrets" in shown.text
        assert "● sends" in line(shown, "send_backend_request")
        assert "◐ shadow" in line(shown, "pii")
        assert "allow ✗2" in line(shown, "pii")
        assert "31" in line(shown, "pii")
        assert "○ off" in line(shown, "tool_call_judge")
        assert "block" in line(shown, "dangerous_commands")


async def test_no_policy_is_said_so() -> None:
    plane = sample_plane()
    async with console(plane) as shown:
        await shown.press("4", "space", "right", "enter", "e", "j", "G", "escape", "tab")
        assert "No policy is configured" in shown.text


async def test_chains_are_grouped() -> None:
    plane = configured(make_policy("a"), make_policy("b", chain="agent codex"))
    async with console(plane) as shown:
        await shown.press("4")
        lines = [line for line in shown.lines if "chain" in line]
        assert [line.split("chain ")[1].strip() for line in lines] == ["global", "agent codex"]
        await shown.press("j")
        assert shown.app.policies.table.selected_name == "b"


async def test_a_mode_is_prepared_and_enter_puts_it_in_force() -> None:
    plane = configured()
    async with console(plane) as shown:
        await shown.press("4", "G", "space")
        assert "◐ shadow *" in line(shown, "5 tool_call_judge")
        assert "4 Policies *1" in shown.text
        assert policy(plane, "tool_call_judge").mode == "off"
        await shown.press("space")
        assert "mode off → enforce" in shown.text
        await shown.press("enter")
        await shown.until(lambda: policy(plane, "tool_call_judge").mode == "enforce")
        await shown.see("policy tool_call_judge by operator")
        assert "*" not in line(shown, "5 tool_call_judge")


async def test_escape_drops_what_was_prepared() -> None:
    plane = configured()
    async with console(plane) as shown:
        await shown.press("4", "j", "j", "right", "escape")
        assert "pending" not in shown.text
        assert policy(plane, "dangerous_commands").params[0].value == 0.5
        await shown.press("enter", "escape")
        assert policy(plane, "dangerous_commands").params[0].value == 0.5


async def test_turning_an_enforcing_policy_off_asks_with_what_it_stopped() -> None:
    plane = configured()
    async with console(plane) as shown:
        await shown.press("4", "space")
        assert "Turn strip_secrets off?" in shown.text
        assert "it acted on 31 today" in shown.text
        await shown.press("escape")
        assert "mode enforce → off" not in shown.text
        await shown.press("space", "y")
        assert "mode enforce → off" in shown.text
        assert policy(plane, "strip_secrets").mode == "enforce"
        await shown.press("enter")
        await shown.until(lambda: policy(plane, "strip_secrets").mode == "off")


async def test_arrows_move_a_threshold_and_the_what_if_follows() -> None:
    plane = configured()
    async with console(plane) as shown:
        await shown.press("4", "j", "j")
        assert "last 1,000 scores: 500 at or above 0.50" in shown.text
        await shown.press("right")
        assert "500 at or above 0.50 → 450 at 0.55" in shown.text
        await shown.press("shift+right")
        assert "500 at or above 0.50 → 0 at 1.00" in shown.text
        await shown.press("shift+left", "left", "left")
        assert "500 at or above 0.50 → 600 at 0.40" in shown.text
        assert policy(plane, "dangerous_commands").params[0].value == 0.5
        await shown.press("enter")
        await shown.until(lambda: policy(plane, "dangerous_commands").params[0].value == 0.4)
        await shown.see("600 at or above 0.40")


async def test_keys_quicker_than_the_screen_move_the_selected_policy() -> None:
    plane = configured()
    async with console(plane) as shown:
        await shown.press("4")
        shown.app.policies.table.move(2)
        assert shown.app.policies.allows("raise")
        shown.app.policies.step(1)
        await shown.frame()
        assert "threshold 0.50 → 0.55" in shown.text
        assert shown.app.policies.pending_count == 1


async def test_what_the_gateway_refuses_is_said_at_its_field_and_stays_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = configured()

    async def refuse(name: str, **change: object) -> PolicyInfo:
        raise ControlInvalid("params.threshold", "the judge allows no less than 0.6")

    async with console(plane) as shown:
        monkeypatch.setattr(plane, "set_policy", refuse)
        await shown.press("4", "j", "j", "left", "enter")
        await shown.see("✗ the judge allows no less than 0.6")
        assert "threshold 0.50 → 0.45" in shown.text
        await shown.press("right")
        assert "the judge allows" not in shown.text


async def test_booleans_choices_and_texts_are_edited() -> None:
    plane = configured()
    async with console(plane) as shown:
        await shown.press("4", "tab", "j", "e")
        assert "responses true → false" in shown.text
        await shown.press("e", "k", "enter")
        await shown.see("ctrl+s take")
        await shown.press("end", "X", "ctrl+s")
        await shown.see("marker [redacted] → [redacted]X")
        await shown.press("enter")
        await shown.until(lambda: policy(plane, "strip_secrets").params[0].value == "[redacted]X")
        await shown.press("tab", "j", "j", "tab", "j", "e")
        await shown.press("down", "enter")
        await shown.see("action block → flag")


async def test_json_is_checked_while_it_is_typed_and_by_the_gateway() -> None:
    plane = configured()
    async with console(plane) as shown:
        await shown.press("4", "tab", "G", "e")
        await shown.press("ctrl+end", "x", "ctrl+s")
        await shown.see("this is not JSON: line")
        await shown.press("backspace", "ctrl+s")
        assert "pending" not in shown.text
        await shown.press("e", "escape")
        assert "pending" not in shown.text


async def test_a_number_may_be_typed() -> None:
    slow = ParamInfo(name="timeout_s", kind="number", value=600.0, default=600.0)
    plane = configured(make_policy("hold", params=(slow,)))
    async with console(plane) as shown:
        await shown.press("4", "enter")
        await shown.press("ctrl+a", "ctrl+k", "a", "ctrl+s")
        await shown.see("give a number")
        await shown.press("backspace", "9", "0", "ctrl+s")
        await shown.see("timeout_s 600.00 → 90.00")


async def test_a_change_made_elsewhere_is_told_and_shown() -> None:
    plane = configured()
    async with console(plane) as shown:
        await shown.press("4")
        await plane.set_policy("pii", mode="enforce", who="anna")
        await shown.see("policy pii by anna")
        assert "● enforce" in line(shown, "4 pii")


async def test_what_is_prepared_survives_a_change_made_elsewhere() -> None:
    plane = configured()
    async with console(plane) as shown:
        await shown.press("4", "j", "j", "right")
        await plane.set_policy("dangerous_commands", params={"action": "flag"}, who="anna")
        await shown.see("policy dangerous_commands by anna")
        assert "threshold 0.50 → 0.55" in shown.text
        assert "flag" in line(shown, " action")
        await plane.set_policy("dangerous_commands", params={"threshold": 0.55}, who="anna")
        await shown.until(lambda: "threshold 0.50 → 0.55" not in shown.text)
        assert "pending" not in shown.text


async def test_figures_are_asked_for_only_while_they_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = configured()
    async with console(plane) as shown:
        asked: list[int] = []
        real = plane.policies
        monkeypatch.setattr(plane, "policies", lambda: asked.append(1) or real())
        for _ in range(10):
            plane.clock.now += 1
            await shown.frame()
        assert not asked
        await shown.press("4")
        asked.clear()
        for _ in range(30):
            plane.clock.now += 0.1
            await shown.frame()
        assert len(asked) == 3


async def test_a_click_prepares_nothing() -> None:
    plane = configured()
    async with console(plane) as shown:
        await shown.press("4")
        for y in range(2, 33):
            await shown.pilot.click(offset=(40, y))
        await shown.frame()
        assert "pending" not in shown.text


# --- kill --------------------------------------------------------------------------------------------------------


async def test_kills_a_running_transaction_after_asking() -> None:
    plane = sample_plane()
    plane.live["01J9ZK000099"] = (b"", False)
    plane.add(make_row(99, state="streaming", outcome="", total_ms=None), "started")
    async with console(plane) as shown:
        await shown.press("k", "K")
        assert "End this transaction now?" in shown.text
        await shown.press("escape")
        assert not plane.killed
        await shown.press("K", "enter")
        assert not plane.killed
        await shown.press("y")
        await shown.see("ended")
        assert plane.killed == [("01J9ZK000099", "operator")]


async def test_what_is_done_cannot_be_killed() -> None:
    async with console(sample_plane()) as shown:
        await shown.press("g", "K")
        assert "End this" not in shown.text
