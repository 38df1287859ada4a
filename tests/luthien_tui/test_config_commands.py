"""`luthien generate-config` and `validate-config`: files that are valid however they are uncommented, and faults placed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from luthien_tui.commands.config import check_parts, print_settings
from luthien_tui.commands.generate import config_text
from luthien_tui.commands.validate import validate
from proxy_core.errors import ConfigurationError, ExitCode
from proxy_core.settings import Settings
from proxy_core.settings_sources import load
from proxy_core.settings_tree import known_places
from tests.luthien_tui.command import luthien

KEYS = {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2"}


@pytest.mark.parametrize("api", [None, "openai", "anthropic", "ollama"])
def test_a_generated_file_means_the_defaults_and_every_line_of_it_can_be_uncommented(tmp_path: Path, api: str | None) -> None:
    file = tmp_path / "luthien.yaml"
    text = config_text(api)
    file.write_text(text)
    assert max(map(len, text.splitlines())) <= 125
    settings = load(file, {}, {}, None).settings
    usual = Settings()
    assert settings == (usual if api is None else usual.model_copy(update={"upstreams": {api: usual.upstreams[api]}}))
    file.write_text(re.sub(r"(?m)^( *)#(?! )", r"\1", text))
    loaded = load(file, {}, KEYS, None)
    check_parts(loaded)
    assert [one.use for one in loaded.settings.policies] == ["strip_secrets", "hold_for_approval"]


def test_a_generated_file_names_every_setting() -> None:
    lines = [line.strip().removeprefix("#") for line in config_text().splitlines()]
    named = {line.partition(":")[0] for line in lines if re.match(r"[a-z_0-9]+:", line)}
    assert {place[-1] for place in known_places() if "*" not in place} <= named


def test_an_upstream_of_ones_own_is_written_with_its_address(tmp_path: Path) -> None:
    (tmp_path / "luthien.yaml").write_text(config_text("Anthropic", "http://models.example:8000/v1"))
    (upstream,) = load(tmp_path / "luthien.yaml", {}, {}, None).settings.upstreams.values()
    assert (upstream.api, upstream.base_url) == ("anthropic", "http://models.example:8000")
    for api, url, words in (("gemini", None, "'gemini' is no API"), (None, "http://x.example", "--base-url needs --type")):
        with pytest.raises(ConfigurationError, match=words):
            config_text(api, url)


def test_generating_and_checking_as_a_user_does(tmp_path: Path) -> None:
    made = luthien(tmp_path, "generate-config", "luthien.yaml", "--type", "openai")
    assert made.returncode == 0, made.stderr
    file = tmp_path / "luthien.yaml"
    assert file.stat().st_mode & 0o777 == 0o600
    again = luthien(tmp_path, "generate-config", "luthien.yaml")
    assert (again.returncode, again.stderr) == (2, "luthien: luthien.yaml is there already; --force writes over it\n")
    assert luthien(tmp_path, "generate-config", "luthien.yaml", "--force", "--type", "ollama").returncode == 0
    printed = luthien(tmp_path, "generate-config", "-", "--type", "ollama")
    assert printed.stdout == file.read_text()
    said = luthien(tmp_path, "validate-config", "luthien.yaml")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("luthien.yaml is valid\n  listens on   127.0.0.1:4000, control 127.0.0.1:")
    assert "upstreams    ollama (ollama at http://localhost:11434)" in said.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-", "--type", "mistral"), "'mistral' is no API that luthien speaks; use openai, anthropic, ollama"),
        (
            ("-", "--type", "openai", "--base-url", "http://a b"),
            "--base-url: 'http://a b' is not a URL like https://api.openai.com",
        ),
        ((".", "--force"), ". is a folder; name the file to write"),
        (("no/such/folder.yaml",), "cannot write no/such/folder.yaml: No such file or directory; choose another path"),
    ],
)
def test_what_cannot_be_generated(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    made = luthien(tmp_path, "generate-config", *arguments)
    assert (made.returncode, made.stdout, made.stderr) == (2, "", f"luthien: {said}\n")


def test_every_fault_has_its_line_and_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        'server: {host: "${HOME}", prot: 1}\n'
        "routing:\n"
        "  cost:\n"
        "  sensitivity:\n"
        "    keywords: [a]\n"
        "    scope: everything\n"
        "upstreams: {openai: {api_key: '$${LITERAL} ${NOT_SET_ANYWHERE:-x}', base_ur: http://x}}\n"
    )
    assert validate(file, as_json=False) == ExitCode.USAGE
    assert capsys.readouterr().err.splitlines() == [
        f"{file}:1:27: unknown setting server.prot; did you mean port?",
        f"{file}:6:5: routing.sensitivity.scope: input should be 'conversation' or 'last_user', not 'everything'",
        f"{file}:7:69: unknown setting upstreams.openai.base_ur; did you mean base_url?",
    ]
    file.write_text("policies:\n  - use: noop\n  - use: string_replacment\nlogging: {level: ${NOT_SET_ANYWHERE}}\n")
    assert validate(file, as_json=True) == ExitCode.USAGE
    found = json.loads(capsys.readouterr().out)
    assert (found["valid"], found["faults"][0]["setting"]) == (False, "logging.level")
    assert (found["faults"][0]["line"], found["faults"][0]["column"]) == (4, 18)
    file.write_text(file.read_text().partition("logging")[0])
    validate(file, as_json=True)
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert (fault["setting"], fault["line"], fault["column"]) == ("policies[1].use", 3, 5)
    assert "did you mean 'string_replacement'?" in fault["message"]
    file.write_text(
        "policies: [{use: nop}]\ninterceptors:\n  - type: printer\n"
        "    config: {log_body: [1], log_bodys: true}\n  - type: printr\n"
    )
    validate(file, as_json=False)
    said = capsys.readouterr().err.splitlines()
    assert [(line.split(": ")[0].removeprefix(f"{file}:"), line.rpartition(" ")[2]) for line in said] == [
        ("1:13", "'noop'?"),
        ("4:14", "boolean"),
        ("4:29", "log_body?"),
        ("5:5", "'printer'?"),
    ]
    file.write_text("server: {port: 1\n")
    validate(file, as_json=False)
    assert (
        capsys.readouterr().err
        == f"{file}:2:1: expected ',' or '}}', but got '<stream end>'; check the indentation and quotes there\n"
    )
    validate(tmp_path / "absent.yaml", as_json=True)
    assert "No such file" in json.loads(capsys.readouterr().out)["faults"][0]["message"]


def test_interceptors_are_shown_without_their_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(
        "interceptors:\n  - type: printer\n  - type: trace\n    config: {url: http://c.example, access_key: hunter2}\n"
    )
    print_settings(load(tmp_path / "c.yaml", {"data_dir": str(tmp_path)}, {}, None), as_json=True)
    printed = capsys.readouterr().out
    found = json.loads(printed)["settings"]
    assert found["interceptors[0].type"] == {"value": "printer", "origin": "file c.yaml:2"}
    assert found["interceptors[1].config.url"] == {"value": "http://c.example", "origin": "file c.yaml:4"}
    assert found["interceptors[1].config.access_key"]["value"] == "********"
    assert "hunter2" not in printed


def test_a_valid_file_is_told_in_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "routing: {sensitivity: {keywords: [a, b]}, default_provider: public}\npolicies: [{use: noop, mode: shadow}]\n"
        "interceptors: [{type: printer}, {type: http_recorder, enabled: false}]\n"
        "journal: {database_url: postgres://u:hunter2@h/d}\n"
    )
    assert validate(file, as_json=True) == ExitCode.OK
    printed = capsys.readouterr().out
    found = json.loads(printed)
    assert (found["valid"], found["faults"]) == (True, [])
    assert found["summary"]["routing"] == ["2 keywords", "else public"]
    assert found["summary"]["policies"] == ["noop (shadow)"]
    assert found["summary"]["interceptors"] == ["printer", "http_recorder (off)"]
    assert found["summary"]["journal"] == ["postgresql", "redacted"]
    assert "hunter2" not in printed
