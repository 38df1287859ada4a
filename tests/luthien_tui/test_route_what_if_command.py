"""`luthien route what-if`: what changed rules would have moved, told from the journal, and by the gateway where one runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.fault_upstream import FaultUpstream
from tests.gateway.asking import CHAT
from tests.luthien_tui.command import luthien

LENGTH = "cost.max_prompt_length_for_local"


@pytest.fixture
async def folder(start_gateway: StartGateway, upstream: FaultUpstream) -> Path:
    """A folder with a journal of three prompts and the configuration that they were sent under."""
    upstreams = {"openai": {"api": "openai", "base_url": upstream.url}, "near": {"api": "ollama", "base_url": upstream.url}}
    gateway = await start_gateway(upstreams=upstreams)
    for text in ("hi", "hello", "a longer question"):
        body = {"model": "gpt-4o-mini\x1b[31m", "messages": [{"role": "user", "content": text}]}
        await gateway.ask("POST", CHAT.path, json.dumps(body).encode())
    lines = [
        f"  {name}: {{api: {one['api']}, base_url: '{one['base_url']}', local: {str(name == 'near').lower()}}}"
        for name, one in upstreams.items()
    ]
    (gateway.data_dir / "luthien.yaml").write_text("\n".join(["upstreams:", *lines]))
    await gateway.stop()
    return gateway.data_dir


def test_moves_and_costs_are_told(folder: Path) -> None:
    result = luthien(folder, "route", "what-if", "--config", "luthien.yaml", "--data-dir", ".", "--set", f"{LENGTH}=5")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "2 of the last 3 transactions would have gone elsewhere"
    assert lines[1].split() == ["2", "openai", "→", "near"]
    assert lines[2].startswith("cost of these: ")
    assert "\x1b" not in result.stdout
    found = json.loads(
        luthien(
            folder, "route", "what-if", "--config", "luthien.yaml", "--data-dir", ".", "--set", f"{LENGTH}=5", "--json"
        ).stdout
    )
    assert (found["total"], found["moved"]) == (3, 2)
    assert found["examples"][0]["reasons"] == ["cost_prefer_local"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "give at least one change"),
        (["--set", LENGTH], "write NAME=VALUE"),
        (["--set", f"{LENGTH}=-1"], f"--set {LENGTH}: "),
        (["--set", "cost.max_prompt_lenght_for_local=1"], f"did you mean {LENGTH}"),
        (["--set", "default_provider=nowhere"], "give one of local, public"),
    ],
)
def test_what_cannot_be_tried_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], word: str) -> None:
    result = luthien(tmp_path, "route", "what-if", *arguments)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert word in result.stderr


def test_without_a_journal_it_says_so(tmp_path: Path) -> None:
    result = luthien(tmp_path, "route", "what-if", "--set", f"{LENGTH}=5")
    assert "there is no journal" in result.stderr
    assert result.returncode != 0


async def test_a_gateway_that_runs_is_asked_for_the_rules_in_force(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    upstreams = {"openai": {"api": "openai", "base_url": upstream.url}, "near": {"api": "ollama", "base_url": upstream.url}}
    gateway = await start_gateway(upstreams=upstreams)
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "four words of prompt"}]}
    await gateway.ask("POST", CHAT.path, json.dumps(body).encode())
    await gateway.plane.set_routing({LENGTH: 50}, who="ann")
    port = gateway.runtime.control_address.rpartition(":")[2]

    async def asked(*arguments: str) -> subprocess.CompletedProcess[str]:
        where = ("--data-dir", ".")
        return await asyncio.to_thread(luthien, gateway.data_dir, "route", *arguments, *where)

    moved = await asked("what-if", "--set", f"{LENGTH}=3")
    assert moved.stdout.splitlines()[:2] == ["1 of the last 1 transactions would have gone elsewhere", "       1  near → openai"]
    assert moved.stderr == f"asked the gateway with its control port at 127.0.0.1:{port}\n"
    file = gateway.data_dir / "request.json"
    file.write_text(json.dumps(body))
    for given in (("--prompt", "short"), ("--file", "request.json", "--model", "gpt-4o")):
        assert (await asked("explain", *given)).stdout.startswith("near (")
    configured = await asked("explain", "--configured", "--prompt", "short", "--json")
    assert (json.loads(configured.stdout)["upstream"], configured.stderr) == ("openai", "")
    wrong = await asked("what-if", "--set", "cost.max=3")
    assert (wrong.returncode, wrong.stderr.partition(":")[0]) == (2, "luthien")
    assert "--set cost.max: unknown rule" in wrong.stderr
    address = (gateway.data_dir / "control-address").read_text()
    assert address == gateway.runtime.control_address + "\n"
    (gateway.data_dir / "control-address").write_text("not an address")
    assert (await asked("explain", "--prompt", "short", "--control-port", port)).stdout.startswith("near (")
    (gateway.data_dir / "control-address").write_text(address)
    (gateway.data_dir / "control-token").write_text("another folder's token, which is long enough")
    other = await asked("explain", "--prompt", "short")
    assert other.stdout.startswith("openai (https://api.openai.com)")
    assert "is another folder's and was not asked" in other.stderr
    await gateway.stop()
    assert not (gateway.data_dir / "control-address").exists()


async def test_config_show_tells_what_operators_have_set_of_routing(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    await gateway.plane.set_routing({LENGTH: 50}, who="ann")
    await gateway.plane.force_local(True, who="bob")
    shown = await asyncio.to_thread(luthien, gateway.data_dir, "config", "show", "--json", "--data-dir", ".")
    found = json.loads(shown.stdout)
    rule = found["settings"][f"routing.{LENGTH}"]
    assert (rule["value"], rule["configured"]) == (50, {"value": None, "origin": "default"})
    assert rule["origin"].startswith("operator ann at ")
    assert found["warnings"] == ["every request is kept local, as bob said"]
