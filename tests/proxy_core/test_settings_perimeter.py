"""Configuration files of Cylestio Gateway load as they are, and mean here what they say there."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy_core.errors import ConfigurationError
from proxy_core.settings_sources import LoadedSettings, load

BASIC = """
server:
  port: 4000
  host: "0.0.0.0"
  workers: 1
llm:
  base_url: "https://api.openai.com/"
  type: "openai"
  api_key: "${OPENAI_API_KEY}"
  timeout: 30
  max_retries: 3
interceptors:
  - type: "printer"
    enabled: true
    config:
      log_requests: true
      log_responses: true
  - type: message_logger
    enabled: false
logging:
  level: "INFO"
  format: "json"
  file: "${LOG_FOLDER}/gateway.log"
  max_file_size: 10485760
  backup_count: 5
"""
TRACED = """
llm: {base_url: http://models.example:8000, type: Anthropic, api_key: }
session:
  enabled: true
  max_sessions: 500
  session_ttl_seconds: 120
interceptors:
  - type: live_trace
    config: {server_port: 7100, auto_open_browser: false, storage_mode: sqlite}
live_trace:
  session_completion_timeout: 45
logging: {level: debug, format: detailed}
"""


def loaded(folder: Path, text: str) -> LoadedSettings:
    file = folder / "config.yaml"
    file.write_text(text)
    return load(file, {}, {"OPENAI_API_KEY": "sk-1", "LOG_FOLDER": "/var/log"}, None)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text)
    return str(caught.value).splitlines()


def test_the_usual_file(tmp_path: Path) -> None:
    found = loaded(tmp_path, BASIC)
    settings = found.settings
    assert found.warnings == ()
    assert settings.server.host == "0.0.0.0"
    ((name, upstream),) = settings.upstreams.items()
    assert (name, upstream.api, upstream.base_url) == ("openai", "openai", "https://api.openai.com")
    assert upstream.api_key is not None
    assert upstream.api_key.get_secret_value() == "sk-1"
    assert upstream.timeouts is not None
    assert (upstream.timeouts.first_byte_s, upstream.timeouts.idle_s, upstream.timeouts.total_s) == (30, 30, 600)
    assert (settings.routing.retries.max_attempts, settings.routing.retries.same_upstream) == (4, True)
    assert [(one.type, one.enabled) for one in settings.interceptors] == [("printer", True), ("message_logger", False)]
    assert settings.interceptors[0].config == {"log_requests": True, "log_responses": True}
    logging = settings.logging
    assert (logging.format, logging.file, logging.max_file_size, logging.backup_count) == (
        "json",
        "/var/log/gateway.log",
        10485760,
        5,
    )
    assert found.origins["upstreams.openai.base_url"] == "file config.yaml:7"
    assert found.origins["upstreams.openai.timeouts.idle_s"] == "file config.yaml:10"
    assert found.origins["routing.retries.max_attempts"] == "file config.yaml:11"


def test_a_file_with_sessions_and_a_live_trace(tmp_path: Path) -> None:
    found = loaded(tmp_path, TRACED)
    settings = found.settings
    assert list(settings.upstreams) == ["anthropic"]
    assert settings.upstreams["anthropic"].api_key is None
    assert (settings.sessions.max_sessions, settings.sessions.ttl_s) == (500, 120)
    assert settings.interceptors[0].config["session_completion_timeout"] == 45
    assert (settings.logging.level, settings.logging.format) == ("DEBUG", "text")
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llm: {base_url: http://x.example}\n", "llm.type is missing (file config.yaml:1); use openai, anthropic, ollama"),
        (
            "llm:\n  type: antropic\n",
            "llm.type (file config.yaml:2): 'antropic' is no API that luthien speaks; did you mean anthropic?",
        ),
        ("llm:\n  type: openai\n  baseurl: x\n", "unknown setting llm.baseurl (file config.yaml:3); did you mean base_url?"),
        (
            "llm: {type: openai, base_url: gopher://x}\n",
            "llm.base_url (file config.yaml:1): 'gopher://x' is not a URL like https://api.openai.com",
        ),
        ("llm: {type: openai, timeout: -1}\n", "llm.timeout (file config.yaml:1): input should be greater than 0, not -1"),
        (
            "llm: {type: openai, max_retries: 10}\n",
            "llm.max_retries (file config.yaml:1): give a whole number from 0 to 9, not 10",
        ),
        ("llm: openai\n", "llm (file config.yaml:1): give a mapping of base_url, type, api_key, timeout, max_retries"),
        (
            "llm: {type: openai}\nupstreams:\n  openai: {}\n",
            "llm (file config.yaml:1): upstreams (file config.yaml:2) says where requests go too; keep one",
        ),
        (
            "llm: {type: openai, max_retries: 2}\nrouting: {retries: {max_attempts: 3}}\n",
            "llm.max_retries (file config.yaml:1): routing.retries.max_attempts (file config.yaml:2) says the same; keep one",
        ),
        (
            "sessions: {ttl_s: 5}\nsession:\n  session_ttl_seconds: 6\n",
            "session.session_ttl_seconds (file config.yaml:3): sessions.ttl_s (file config.yaml:1) says the same; keep one",
        ),
        ("session: {max_sesions: 5}\n", "unknown setting session.max_sesions (file config.yaml:1); did you mean max_sessions?"),
        (
            "session: {max_sessions: 0}\n",
            "session.max_sessions (file config.yaml:1): input should be greater than or equal to 10, not 0",
        ),
        (
            "interceptors:\n  - {type: live_trace, config: {completion_check_interval: 1}}\n"
            "live_trace: {completion_check_interval: 2}\n",
            "live_trace.completion_check_interval (file config.yaml:3): interceptors[0].config.completion_check_interval "
            "(file config.yaml:2) says the same; keep one",
        ),
        ("logging: {format: xml}\n", "logging.format (file config.yaml:1): input should be 'text' or 'json', not 'xml'"),
    ],
)
def test_what_is_wrong_is_told_in_the_words_of_the_file(tmp_path: Path, text: str, expected: str) -> None:
    assert faults(tmp_path, text) == [expected]


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = "server: {prt: 1}\nllm: {typ: openai, base_url: '${NOT_SET}'}\nsesion: {}\nsession: {ttl: 1}\nui: {rows: few}\n"
    assert [one.partition(" (")[0] for one in faults(tmp_path, text)] == [
        "unknown setting server.prt",
        "llm.type is missing",
        "unknown setting llm.typ",
        "llm.base_url",
        "unknown setting sesion",
        "unknown setting session.ttl",
        "ui.rows",
    ]


def test_what_has_no_effect_here_is_a_warning(tmp_path: Path) -> None:
    text = "server: {workers: 4}\nsession: {enabled: false}\nlive_trace: {session_completion_timeout: 1}\n"
    assert [one.partition(" (")[0] for one in loaded(tmp_path, text).warnings] == [
        "server.workers",
        "session.enabled",
        "live_trace",
    ]
