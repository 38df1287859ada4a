"""`luthien policies`: looking, trying, writing, importing, as a user does it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy_core.errors import ExitCode
from proxy_core.policies.registry import BUILT_IN
from proxy_core.policies.sample_bodies import answer_body, answer_stream, request_body
from proxy_core.wire.dialects import Operation
from tests.luthien_tui.command import clean_environ, luthien

COMMANDS = [[], ["list"], ["show"], ["new"], ["test"], ["import"]]
REPLACE = '{"replacements": [["foo", "bar"]], "apply_to": "both"}'


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "policies")
def test_every_command_has_help(tmp_path: Path, command: list[str]) -> None:
    result = luthien(tmp_path, "policies", *command, "--help")
    assert result.returncode == 0
    assert ("Example" in result.stdout) == bool(command)


def test_the_list_has_them_all(tmp_path: Path) -> None:
    text = luthien(tmp_path, "policies", "list")
    assert text.returncode == 0, text.stderr
    found = json.loads(luthien(tmp_path, "policies", "list", "--json").stdout)["policies"]
    assert [one["name"] for one in found] == list(BUILT_IN)
    for one in found:
        assert one["name"] in text.stdout
        assert one["summary"] in text.stdout
    judge = next(one for one in found if one["name"] == "tool_call_judge")
    threshold = next(param for param in judge["params"] if param["name"] == "threshold")
    assert (threshold["tunable"], threshold["low"], threshold["high"]) == (True, 0, 1)


def test_one_is_shown_under_any_of_its_names(tmp_path: Path) -> None:
    for name in ("string_replacement", "StringReplacementPolicy"):
        shown = luthien(tmp_path, "policies", "show", name).stdout
        assert shown.startswith("string_replacement: ")
        assert 'apply_to: one of request, response, both; default "response"' in shown
    wrong = luthien(tmp_path, "policies", "show", "string_replacment")
    assert wrong.returncode == ExitCode.USAGE
    assert wrong.stderr == "luthien: no policy is called 'string_replacment'; did you mean 'string_replacement'?\n"


@pytest.mark.parametrize("name", ["block_swearing", "BlockSwearing", "block-swearing", "BlockSwearingPolicy"])
def test_a_new_policy_has_one_name_however_it_is_written(tmp_path: Path, name: str) -> None:
    made = luthien(tmp_path, "policies", "new", name)
    assert made.returncode == 0, made.stderr
    assert sorted(file.name for file in (tmp_path / "policies").iterdir()) == ["block_swearing.py", "test_block_swearing.py"]


def test_a_new_policy_has_a_test_that_passes(tmp_path: Path) -> None:
    luthien(tmp_path, "policies", "new", "BlockSwearing")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "policies"],
        cwd=tmp_path,
        env=clean_environ(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "3 passed" in result.stdout


def test_a_new_policy_runs_from_the_configuration(tmp_path: Path) -> None:
    luthien(tmp_path, "policies", "new", "block_swearing")
    (tmp_path / "luthien.yaml").write_text("policies: [{use: block_swearing, params: {words: [darn]}}]\n")
    (tmp_path / "request.json").write_bytes(request_body(Operation.CHAT, "Darn it."))
    assert luthien(tmp_path, "validate-config", "luthien.yaml").returncode == 0
    tried = luthien(
        tmp_path,
        "--config",
        "luthien.yaml",
        "policies",
        "test",
        "block_swearing",
        "--input",
        "request.json",
        "--params",
        '{"words": ["darn"]}',
        "--json",
    )
    assert json.loads(tried.stdout)["phases"][0]["denied"] == "the word 'darn' is not allowed here"
    unknown = luthien(tmp_path, "policies", "show", "block_swearing")
    assert unknown.returncode == ExitCode.USAGE  # without the file nobody said that this folder holds code to run


@pytest.mark.parametrize("name", ["noop", "NoopPolicy", "class", "1st", "../evil", "a b", "", "test_mine", "ä"])
def test_names_that_cannot_be_given(tmp_path: Path, name: str) -> None:
    result = luthien(tmp_path, "policies", "new", name)
    assert result.returncode == ExitCode.USAGE
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "policies").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    luthien(tmp_path, "policies", "new", "mine", "--dir", "own")
    result = luthien(tmp_path, "policies", "new", "mine", "--dir", "own")
    assert result.returncode == ExitCode.USAGE
    assert "is there already" in result.stderr


def tried(folder: Path, content: bytes, *arguments: str, name: str = "string_replacement", params: str = REPLACE) -> Any:
    (folder / "input").write_bytes(content)
    result = luthien(folder, "policies", "test", name, "--input", "input", "--params", params, "--json", *arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("content", "operation", "stages"),
    [
        (request_body(Operation.CHAT, "foo"), "chat", ["request"]),
        (request_body(Operation.MESSAGES, "foo", system="x"), "messages", ["request"]),
        (request_body(Operation.RESPONSES, "foo"), "responses", ["request"]),
        (answer_body(Operation.CHAT, "foo"), "chat", ["response"]),
        (answer_body(Operation.MESSAGES, "foo"), "messages", ["response"]),
        (answer_body(Operation.RESPONSES, "foo"), "responses", ["response"]),
        (answer_body(Operation.OLLAMA_CHAT, "foo"), "ollama_chat", ["response"]),
        (answer_body(Operation.OLLAMA_GENERATE, "foo"), "ollama_generate", ["response"]),
        (answer_stream(Operation.CHAT, ["f", "oo"]), "chat", ["response"]),
        (answer_stream(Operation.MESSAGES, ["f", "oo"]), "messages", ["response"]),
        (answer_stream(Operation.RESPONSES, ["f", "oo"]), "responses", ["response"]),
        (answer_stream(Operation.OLLAMA_CHAT, ["f", "oo"]), "ollama_chat", ["response"]),
    ],
)
def test_a_file_says_itself_what_it_is(tmp_path: Path, content: bytes, operation: str, stages: list[str]) -> None:
    found = tried(tmp_path, content)
    assert found["operation"] == operation
    assert [phase["stage"] for phase in found["phases"]] == stages
    phase = found["phases"][0]
    assert phase["changed"]
    assert "foo" not in json.dumps(phase["after"])
    assert [verdict["action"] for verdict in phase["verdicts"]] == ["modify"]


def test_a_request_and_its_response(tmp_path: Path) -> None:
    whole = {
        "request": json.loads(request_body(Operation.CHAT, "foo")),
        "response": json.loads(answer_body(Operation.CHAT, "foo")),
    }
    found = tried(tmp_path, json.dumps(whole).encode())
    assert [(phase["stage"], phase["changed"], phase["stream"]) for phase in found["phases"]] == [
        ("request", True, False),
        ("response", True, False),
    ]
    streamed = tried(tmp_path, json.dumps(whole).encode(), "--stream")
    assert streamed["phases"][1]["stream"]
    text = luthien(tmp_path, "policies", "test", "string_replacement", "--input", "input", "--params", REPLACE)
    assert "before:" in text.stdout
    assert "string_replacement: modify text_replaced (ran)" in text.stdout


def test_a_policy_that_gets_the_answer_itself_gets_that_of_the_file(tmp_path: Path) -> None:
    whole = {
        "request": json.loads(request_body(Operation.CHAT, "hi")),
        "response": json.loads(answer_body(Operation.CHAT, "yes")),
    }
    found = tried(tmp_path, json.dumps(whole).encode(), name="backend_sampling", params="{}")
    assert any(verdict["reason"] == "samples_taken" for phase in found["phases"] for verdict in phase["verdicts"])


@pytest.mark.parametrize(
    ("content", "arguments", "line"),
    [
        (b"{}", [], "luthien: the file does not say which API it belongs to; add --operation with one of chat"),
        (b"no", [], "luthien: the file is neither a JSON object nor a stream (SSE or NDJSON)"),
        (b"{}", ["--operation", "chta"], "luthien: no operation is called 'chta'; did you mean chat?"),
        (b"{}", ["--params", "{"], "luthien: --params is not JSON"),
        (b"{}", ["--params", "[]"], "luthien: --params has to be a JSON object"),
        (b"{}", ["--params", '{"replacement": []}'], "luthien: params.replacements: missing; give it a value"),
    ],
)
def test_what_cannot_be_tried_is_one_line(tmp_path: Path, content: bytes, arguments: list[str], line: str) -> None:
    (tmp_path / "input").write_bytes(content)
    given = [] if "--params" in arguments else ["--params", REPLACE]
    result = luthien(tmp_path, "policies", "test", "string_replacement", "--input", "input", *given, *arguments)
    assert result.returncode == ExitCode.USAGE
    assert result.stderr.startswith(line), result.stderr
    assert result.stdout == ""


def test_an_import_is_valid_and_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('{"type": "SerialPolicy", "config": {"policies": [{"type": "NoopPolicy"}]}}')
    first = luthien(tmp_path, "policies", "import", "policy.json", "--out", "luthien.yaml")
    assert first.returncode == 0, first.stderr
    assert first.stdout == ""
    assert "read as a file of Luthien Control; luthien.yaml is valid" in first.stderr
    assert luthien(tmp_path, "validate-config", "luthien.yaml").returncode == 0
    again = luthien(tmp_path, "policies", "import", "policy.json", "--out", "luthien.yaml")
    assert again.returncode == ExitCode.USAGE
    assert "is there already" in again.stderr
    assert luthien(tmp_path, "policies", "import", "policy.json").stdout == (tmp_path / "luthien.yaml").read_text("utf-8")


def test_hostile_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('{"type": "\\u001b]52;c;x\\u0007"}')
    result = luthien(tmp_path, "policies", "import", "policy.json")
    assert "\x1b" not in result.stderr


def test_every_fault_of_a_chain_is_a_line_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "luthien.yaml").write_text(
        "policies:\n"
        "  - use: strip_secret\n"
        "  - use: serial\n"
        "    params:\n"
        "      policies:\n"
        "        - {use: string_replacement, params: {replacements: [[foo]]}}\n"
        "  - use: backend_sampling\n"
        "    params: {sample: 3}\n"
    )
    result = luthien(tmp_path, "validate-config", "luthien.yaml")
    assert result.returncode == ExitCode.USAGE
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    for line, place, said in zip(
        lines,
        [
            "2:5: policies[0].use",
            "6:61: policies[1].params.policies[0].params.replacements[0][1]",
            "8:14: policies[2].params.sample",
        ],
        ["did you mean 'strip_secrets'?", "missing", "unknown parameter; did you mean samples?"],
        strict=True,
    ):
        assert line.startswith(f"luthien.yaml:{place}"), line
        assert said in line


def test_no_screen_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from luthien_tui.cli import run_cli; run_cli(['policies', 'list'])\n"
        "assert 'textual' not in sys.modules, 'the screen was imported'"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=clean_environ(tmp_path), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
