"""`luthien route explain`: the rule that decides, the words of the others, and nothing sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.luthien_tui.command import luthien

RULES = """
upstreams:
  openai: {api: openai}
  anthropic: {api: anthropic}
  near: {api: ollama, models: {"gpt-*": llama3.2}}
routing:
  sensitivity: {keywords: [internal]}
  cost: {max_prompt_length_for_local: 5}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "luthien.yaml").write_text(RULES)
    return tmp_path


def test_it_says_which_rule_decides_and_what_the_others_say(folder: Path) -> None:
    result = luthien(folder, "route", "explain", "--config", "luthien.yaml", "--model", "gpt-4o", "--prompt", "our internal plan")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "near (http://localhost:11434), model llama3.2"
    assert lines[1] == "reasons: sensitive_keyword_match"
    assert [line.split()[:2] for line in lines[2:]] == [
        ["explicit", "passes"],
        ["model", "passes"],
        ["sensitivity", "decides"],
        ["tag", "passes"],
        ["cost", "passes"],
        ["default", "not"],
    ]
    assert "internal" not in result.stdout


def test_a_whole_request_is_explained_as_json(folder: Path) -> None:
    request = {"model": "qwen3", "messages": [{"role": "system", "content": "internal"}, {"role": "user", "content": "hi"}]}
    (folder / "request.json").write_text(json.dumps(request))
    result = luthien(folder, "route", "explain", "--config", "luthien.yaml", "--file", "request.json", "--json")
    found = json.loads(result.stdout)
    assert (found["upstream"], found["model"], found["rule"]) == ("near", "qwen3", "sensitivity")
    assert len(found["considered"]) == 6


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "luthien: give either --prompt TEXT or --file REQUEST.json"),
        (["--prompt", "x", "--path", "/nowhere"], "luthien: --path: luthien knows no API at '/nowhere'"),
        (["--file", "absent.json"], "luthien: cannot read absent.json: No such file or directory"),
    ],
)
def test_what_cannot_be_explained_is_one_line_and_exit_2(folder: Path, arguments: list[str], line: str) -> None:
    result = luthien(folder, "route", "explain", *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", line + "\n")
