"""docs/writing-policies.md, followed to the letter: a policy of one's own, tested, and running in a live gateway."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from proxy_core.policies.registry import policy_class
from proxy_core.policies.testing import context_for
from proxy_core.settings import Settings
from proxy_core.wire.dialects import Operation
from tests.conftest import StartGateway
from tests.gateway.asking import CHAT, MESSAGES, Asking
from tests.luthien_tui.command import clean_environ, luthien

PAGE = (Path(__file__).parents[2] / "docs" / "writing-policies.md").read_text("utf-8")
BLOCKS = re.findall(r"```(python|yaml)\n(.*?)```", PAGE, re.S)
POLICY, TEST, PARAMS = (text for language, text in BLOCKS if language == "python")
CONFIG = next(text for language, text in BLOCKS if language == "yaml")


@pytest.fixture
def followed(tmp_path: Path) -> Path:
    """The folder of somebody who followed the page."""
    assert luthien(tmp_path, "policies", "new", "all_caps").returncode == 0
    (tmp_path / "policies" / "all_caps.py").write_text(POLICY, "utf-8")
    (tmp_path / "policies" / "test_all_caps.py").write_text(TEST, "utf-8")
    (tmp_path / "luthien.yaml").write_text(CONFIG, "utf-8")
    return tmp_path


def test_the_policy_is_as_short_as_it_says() -> None:
    body = [line for line in POLICY.splitlines() if line.strip() and not line.startswith(("from ", "import "))]
    assert len(body) <= 20


def test_its_test_passes_and_the_configuration_is_valid(followed: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "policies"]
    result = subprocess.run(command, cwd=followed, env=clean_environ(followed), capture_output=True, text=True, check=False)
    assert "2 passed" in result.stdout, result.stdout
    valid = luthien(followed, "validate-config", "luthien.yaml")
    assert valid.returncode == 0, valid.stderr
    shown = luthien(followed, "policies", "list", "--config", "luthien.yaml")
    assert "all_caps                       Answers in capital letters." in shown.stdout


@pytest.mark.parametrize(
    ("asking", "operation"), [(CHAT, Operation.CHAT), (MESSAGES, Operation.MESSAGES)], ids=["openai", "anthropic"]
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_it_runs_in_a_live_gateway(
    followed: Path, start_gateway: StartGateway, asking: Asking, operation: Operation, stream: bool
) -> None:
    gateway = await start_gateway(policies=yaml.safe_load(CONFIG)["policies"], policy_paths=[str(followed / "policies")])
    response = await gateway.ask("POST", asking.path, asking.bytes(stream=stream), asking.headers)
    context = context_for(operation)
    context.set_response(200, [(b"content-type", (response.header("content-type") or "").encode())], response.body)
    assert context.answer is not None
    assert context.answer.complete
    assert context.answer.text
    assert context.answer.text == context.answer.text.upper()
    assert [(one.policy, one.ran) for one in (await gateway.detail()).verdicts] == [("all_caps", "ran")]


def test_the_other_examples_work_too(tmp_path: Path) -> None:
    (tmp_path / "calm.py").write_text(PARAMS, "utf-8")
    assert policy_class("calm", Settings(policy_paths=[str(tmp_path)])).params_model().model_dump() == {
        "words": ["never"],
        "threshold": 0.5,
    }
