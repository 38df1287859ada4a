"""The `luthien` command: help, exit codes, errors in one line, data as JSON."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxy_core.errors import ExitCode
from tests.luthien_tui.command import clean_environ, luthien

COMMANDS = [
    [],
    ["run"],
    ["demo"],
    ["env"],
    ["doctor"],
    ["log"],
    ["config", "show"],
    ["generate-config"],
    ["validate-config"],
    ["version"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "luthien")
def test_every_command_has_help_with_an_example(tmp_path: Path, command: list[str]) -> None:
    result = luthien(tmp_path, *command, "--help")
    assert result.returncode == 0
    assert "Example" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--prot", "1"], "luthien: No such option: --prot"),
        (["envv"], "luthien: No such command 'envv'. Did you mean 'env'?"),
        (["--port", "x"], "luthien: Invalid value for '--port'"),
        (
            ["--no-ui", "--port", "70000"],
            "luthien: server.port (command line --port): input should be less than or equal to 65535",
        ),
        (["--no-ui", "--base-url", "http://x"], "luthien: --base-url needs --type"),
        (["--no-ui", "--type", "gemini"], "luthien: 'gemini' is no API that luthien speaks (command line --type)"),
        (["--no-ui", "--config", "absent.yaml"], "luthien: cannot read absent.yaml: No such file or directory"),
        (["--ui"], "luthien: --ui needs a terminal, but stdin is not one"),
        (["log", "--filter", "nonsense:1"], "luthien: --filter: column 1: "),
        (["env", "--shell", "tcl"], "luthien: --shell 'tcl' is not known; use sh, fish, powershell"),
        (["validate-config"], "luthien: Missing argument 'PATH'."),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], line: str) -> None:
    result = luthien(tmp_path, *arguments)
    assert result.returncode == ExitCode.USAGE
    assert result.stdout == ""
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_every_fault_of_a_file_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "luthien.yaml").write_text("server: {prot: 1}\nui: {rows: 1}\n")
    result = luthien(tmp_path, "validate-config", "luthien.yaml")
    assert result.returncode == ExitCode.USAGE
    assert result.stderr.splitlines() == [
        "luthien.yaml:1:10: unknown setting server.prot; did you mean port?",
        "luthien.yaml:2:6: ui.rows: input should be greater than or equal to 100, not 1",
    ]


def test_hostile_values_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "luthien.yaml").write_text('server: {host: 1, "\\e]52;c;UFdO\\a": 1}\n')
    result = luthien(tmp_path, "validate-config", "luthien.yaml")
    assert "\x1b" not in result.stderr
    assert "\\e]52" in result.stderr


def test_a_store_that_cannot_be_written_is_exit_4(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file in the way")
    result = luthien(tmp_path, "--no-ui", "--port", "0")
    assert result.returncode == ExitCode.STORE
    assert result.stderr.startswith("luthien: cannot write to the data folder ")
    assert result.stderr.count("\n") == 1


def test_version(tmp_path: Path) -> None:
    from proxy_core import __version__

    assert luthien(tmp_path, "--version").stdout == luthien(tmp_path, "-v").stdout == f"luthien {__version__}\n"
    assert json.loads(luthien(tmp_path, "version", "--json").stdout)["luthien"] == __version__


def test_env_can_be_evaluated_and_undone(tmp_path: Path) -> None:
    lines = luthien(tmp_path, "env", "--port", "4123", "--shell", "sh").stdout
    undo = luthien(tmp_path, "env", "--unset", "--shell", "sh").stdout
    script = f'{lines}\necho "$OPENAI_BASE_URL $ANTHROPIC_BASE_URL $OLLAMA_HOST"\n{undo}\necho "[${{OPENAI_BASE_URL-}}]"'
    said = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True).stdout
    assert said == "http://127.0.0.1:4123/v1 http://127.0.0.1:4123 http://127.0.0.1:4123\n[]\n"


def test_env_in_other_forms(tmp_path: Path) -> None:
    assert "set -gx OPENAI_BASE_URL 'http://127.0.0.1:4000/v1'" in luthien(tmp_path, "env", SHELL="/usr/bin/fish").stdout
    assert "$env:OLLAMA_HOST = 'http://[::1]:4000'" in luthien(tmp_path, "--host", "::", "env", "--shell", "pwsh").stdout
    found = json.loads(luthien(tmp_path, "env", "--json").stdout)
    assert {"name": "ANTHROPIC_BASE_URL", "value": "http://127.0.0.1:4000"}.items() <= found["variables"][2].items()
    behind = luthien(tmp_path, "env", HTTP_PROXY="http://proxy.example:1", NO_PROXY="corp.example").stdout
    assert "export NO_PROXY='corp.example,127.0.0.1'" in behind


def test_env_leaves_out_what_no_upstream_speaks(tmp_path: Path) -> None:
    found = luthien(tmp_path, "--base-url", "http://x.example", "--type", "ollama", "env").stdout
    assert "OLLAMA_HOST" in found
    assert "OPENAI" not in found


def test_config_show_names_the_origin_and_hides_secrets(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("server:\n  port: 4100\njournal:\n  database_url: postgres://u:hunter2@h/d\n")
    environ = {"OPENAI_API_KEY": "sk-hunter2"}
    text = luthien(tmp_path, "config", "show", "--config", "c.yaml", **environ).stdout
    assert "file c.yaml:2" in text
    found = json.loads(luthien(tmp_path, "--config", "c.yaml", "config", "show", "--json", **environ).stdout)["settings"]
    assert found["server.port"] == {"value": 4100, "origin": "file c.yaml:2"}
    assert found["upstreams.openai.api_key"] == {"value": "(set, hidden)", "origin": "environment OPENAI_API_KEY"}
    assert found["journal.database_url"]["value"] == "postgresql+asyncpg://u:***@h/d"
    assert "hunter2" not in text + json.dumps(found)


def test_options_after_a_command_win_over_those_before_it(tmp_path: Path) -> None:
    assert ":4124" in luthien(tmp_path, "--port", "4123", "env", "--port", "4124").stdout
    assert ":4123" in luthien(tmp_path, "--port", "4123", "env").stdout


def test_a_config_file_can_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("server: {port: 4101}")
    assert ":4101" in luthien(tmp_path, "env", LUTHIEN_CONFIG="c.yaml").stdout


@pytest.mark.parametrize("command", ["config show", "policies list --json"])
def test_output_to_a_reader_that_leaves_is_quiet(tmp_path: Path, command: str) -> None:
    """The second is longer than a pipe takes at once."""
    program = f"{sys.executable} -m luthien_tui.cli {command} | head -1"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean_environ(tmp_path),
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environ = {"LLM_BASE_URL": "http://127.0.0.1:1", "LLM_TYPE": "openai"}
        result = luthien(tmp_path, "doctor", "--json", "--port", port, **environ)
    assert result.returncode == 1
    found = {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert found["port"]["status"] == "fail"
    assert "--port" in found["port"]["fix"]
    assert found["control port"]["status"] == "ok"
    assert found["upstream openai"]["status"] == "fail"
    assert found["store"]["status"] == "ok"
    assert found["data folder"]["status"] == "ok"
    assert found["terminal"]["status"] == "warn"


def test_doctor_and_the_start_name_a_taken_control_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        told = luthien(tmp_path, "doctor", "--json", "--port", "0", LUTHIEN_CONTROL__PORT=port)
        started = luthien(tmp_path, "--no-ui", "--port", "0", "--control-port", port)
    found = {finding["check"]: finding for finding in json.loads(told.stdout)["findings"]}
    assert found["control port"]["status"] == "fail"
    assert started.returncode == ExitCode.CANNOT_START
    assert started.stderr.count("\n") == 1
    assert "--control-port" in started.stderr
    assert "--control-port" in found["control port"]["fix"]


def test_doctor_is_content_where_upstreams_answer(tmp_path: Path, answering_port: int) -> None:
    environ = {"LLM_BASE_URL": f"http://127.0.0.1:{answering_port}", "LLM_TYPE": "openai"}
    result = luthien(tmp_path, "doctor", "--port", "0", **environ)
    assert result.returncode == 0, result.stdout
    assert f"http://127.0.0.1:{answering_port} answers" in result.stdout
    assert "agrees with the upstreams" in result.stdout


def test_doctor_tells_faulty_settings_and_open_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "control-token").write_text("x")
    (tmp_path / "data" / "control-token").chmod(0o644)
    (tmp_path / "data" / "luthien.db").write_bytes(b"not a database, " * 100)
    os.chmod(tmp_path / "data" / "luthien.db", 0o600)  # noqa: PTH101
    found = {finding["check"]: finding for finding in json.loads(luthien(tmp_path, "doctor", "--json").stdout)["findings"]}
    assert found["file permissions"]["status"] == "warn"
    assert "chmod 600" in found["file permissions"]["fix"]
    assert found["store"]["status"] == "fail"
    wrong = luthien(tmp_path, "doctor", LOG_LEVEL="loud")
    assert wrong.returncode == 1
    assert "logging.level (environment LOG_LEVEL)" in wrong.stdout


async def test_config_show_tells_what_operators_have_set(tmp_path: Path) -> None:
    from proxy_core.control.feed import Feed
    from proxy_core.control.policy_book import PolicyBook
    from proxy_core.journal.journal import Journal
    from proxy_core.policies.stats import PolicyStats
    from proxy_core.settings_sources import load

    file = tmp_path / "c.yaml"
    file.write_text(
        "policies:\n"
        "  - use: hold_for_approval\n"
        "    mode: shadow\n"
        "  - use: add_api_key\n"
        "    params: {source: config, api_key: '${KEY}'}\n"
        "chains:\n"
        "  - match: {agent: 'x*'}\n"
        "    policies: [{use: noop}]\n"
    )
    environ = {"KEY": "sk-canary-7f3a19c2d4e5f6a7b8c9d0e1"}
    (tmp_path / "data").mkdir()
    settings = load(file, {}, environ, None).settings
    journal = await Journal.open(settings.journal, tmp_path / "data")
    book = PolicyBook(settings, journal=journal, feed=Feed(), stats=PolicyStats(), clock_ns=lambda: 1_795_000_000 * 10**9)
    await book.set_policy("hold_for_approval", mode="off", params={"timeout_s": 30}, who="ann")
    await journal.close()

    text = luthien(tmp_path, "config", "show", "--config", "c.yaml", **environ).stdout
    found = json.loads(luthien(tmp_path, "config", "show", "--json", "--config", "c.yaml", **environ).stdout)["settings"]
    operator = "operator ann at 2026-11-18T11:06:40Z"
    assert found["policies[0].mode"] == {
        "value": "off",
        "origin": operator,
        "configured": {"value": "shadow", "origin": "file c.yaml:3"},
    }
    assert found["policies[0].params.timeout_s"]["configured"] == {"value": 600.0, "origin": "default"}
    assert found["policies[1].params.api_key"] == {"value": "********", "origin": "file c.yaml:5"}
    assert found["chains[0].match.agent"] == {"value": "x*", "origin": "file c.yaml:7"}
    assert found["chains[0].policies[0].use"] == {"value": "noop", "origin": "file c.yaml:8"}
    assert f'{operator} (in place of "shadow", file c.yaml:3)' in text
    assert "canary" not in text + json.dumps(found)

    file.write_text(file.read_text().replace("mode: shadow", "mode: enforce"))
    later = json.loads(luthien(tmp_path, "config", "show", "--json", "--config", "c.yaml", **environ).stdout)["settings"]
    assert later["policies[0].mode"] == {"value": "enforce", "origin": "file c.yaml:3"}


def test_config_show_needs_no_journal(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("policies: [{use: noop}]\n")
    result = luthien(tmp_path, "config", "show", "--config", "c.yaml")
    assert (result.returncode, result.stderr) == (0, "")
    assert "policies[0].use" in result.stdout
    assert not (tmp_path / "data").exists()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "luthien.db").write_text("no database")
    result = luthien(tmp_path, "config", "show", "--config", "c.yaml")
    assert result.returncode == 0
    assert "warning: what operators have set is not known: " in result.stdout
