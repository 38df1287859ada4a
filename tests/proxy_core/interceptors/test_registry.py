"""Which interceptors there are, what they are told, and what is refused."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from proxy_core.app import shown_settings
from proxy_core.errors import ConfigurationError
from proxy_core.interceptors import registry
from proxy_core.interceptors.base import Config, Finished, Interceptor
from proxy_core.interceptors.surroundings import Surroundings
from proxy_core.settings import Settings
from proxy_core.settings_shown import shown
from tests.proxy_core.interceptors.traffic import pair_for

DEFAULTS: dict[str, dict[str, Any]] = {
    "printer": {
        "log_requests": True,
        "log_responses": True,
        "log_body": False,
        "show_sessions": True,
        "show_llm_calls": True,
        "show_tools": True,
    },
    "message_logger": {
        "directory": "./message_logs",
        "filename": "message_log.jsonl",
        "include_system_prompts": True,
        "include_metadata": True,
        "buffer_size": 10,
        "redact_credentials": True,
    },
    "event_recorder": {"output_dir": "./event_logs", "file_format": "jsonl", "pretty_print": False, "include_metadata": True},
    "http_recorder": {
        "output_dir": "./http_recordings",
        "max_events_per_file": 100,
        "include_headers": True,
        "include_timing": True,
        "max_body_size_mb": 100,
        "redact_sensitive_headers": True,
    },
    "live_trace": {
        "server_port": 7100,
        "server_host": "127.0.0.1",
        "auto_open_browser": True,
        "max_events": 10_000,
        "retention_minutes": 30,
        "refresh_interval": 2,
        "storage_mode": "memory",
        "db_path": "./trace_data/live_trace.db",
        "enable_presidio": True,
        "session_completion_timeout": 30,
        "completion_check_interval": 10,
    },
}
PAGE = Path(__file__).parents[3] / "docs" / "interceptors.md"


def settings(*interceptors: dict[str, Any], **sections: Any) -> Settings:
    return Settings.model_validate({"interceptors": list(interceptors)} | sections)


def faults(*interceptors: dict[str, Any], **sections: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        registry.build_interceptors(settings(*interceptors, **sections), Path("/nowhere"))
    return str(refused.value).splitlines()


@pytest.mark.parametrize("kind", DEFAULTS)
def test_the_keys_of_cylestio_and_their_defaults_hold(kind: str) -> None:
    assert registry.config_model(kind)().model_dump() == DEFAULTS[kind]


def test_every_type_and_key_is_documented() -> None:
    page = PAGE.read_text()
    for kind in registry.known_types():
        assert f"`{kind}`" in page
        for name, info in registry.config_model(kind).model_fields.items():
            assert f"`{name}`" in page, f"{kind}.{name}"
            assert info.description, f"{kind}.{name}"


def test_unknown_types_and_keys_are_refused_with_the_nearest_known_one() -> None:
    found = faults(
        {"type": "http_recoder"},
        {"type": "printer", "config": {"log_request": True}},
        {"type": "http_recorder", "config": {"max_events_per_file": 0}},
        {"type": "live_trace", "config": {"server_prt": 7}},
        {"type": "rate_limit", "enabled": False},
    )
    assert "interceptors[0].type: no interceptor has the type 'http_recoder'; did you mean 'http_recorder'?" in found
    assert "interceptors[1].config.log_request: unknown parameter; did you mean log_requests?" in found
    assert any(line.startswith("interceptors[2].config.max_events_per_file: ") for line in found)
    assert "interceptors[3].config.server_prt: unknown parameter; did you mean server_port?" in found
    assert any(line.startswith("interceptors[4].type: no interceptor has the type 'rate_limit'; known here: ") for line in found)


def test_nothing_runs_where_nothing_is_enabled() -> None:
    off = {"type": "printer", "enabled": False}
    assert registry.build_interceptors(settings(off, {"type": "live_trace"}), Path("/nowhere")) is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:4000/v1/events", "http://localhost:4001/x"])
def test_events_are_never_sent_to_luthien_itself(url: str) -> None:
    (fault,) = faults({"type": "trace", "config": {"url": url}})
    assert fault.startswith("interceptors[0].config.url: ")
    assert "luthien itself" in fault


@pytest.mark.parametrize("config", [{}, {"url": "collector"}, {"url": "https://user:secretword@collector/x"}])
def test_a_collector_needs_an_address(config: dict[str, Any]) -> None:
    (fault,) = faults({"type": "trace", "config": config})
    assert fault.startswith("interceptors[0].config.url: ")
    assert "secretword" not in fault


def test_secrets_of_interceptors_are_not_shown() -> None:
    key = "collector-key-0123456789"
    known = {
        "type": "cylestio_trace",
        "config": {"api_url": "https://c.example/v1", "access_key": key, "headers": {"x-other": key}},
    }
    unknown = {"type": "somebodys", "config": {"anything": key}}
    loaded = settings(known, unknown)
    for seen in (shown_settings(loaded)["interceptors"], shown(loaded)["interceptors"]):
        assert key not in str(seen)
        assert "https://c.example/v1" in str(seen)
        assert [one["type"] for one in seen] == ["cylestio_trace", "somebodys"]
        assert seen[1]["config"] == {"anything": "[set]"}


def test_live_trace_is_answered_key_by_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="proxy_core.interceptors.registry")
    config = {"server_port": 7200, "max_events": 5, "session_completion_timeout": 12}
    registry.build_interceptors(settings({"type": "live_trace", "config": config}), Path("/nowhere"))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 + len(config)
    for name in config:
        assert sum(f"live_trace: {name}: " in line for line in said) == 1
    warned = {record.getMessage().split(": ")[1] for record in caplog.records if record.levelname == "WARNING"}
    assert warned == {"server_port", "max_events"}, "what has no effect"


class _OwnConfig(Config):
    every: int = 1


class Own(Interceptor[_OwnConfig]):
    config_model = _OwnConfig

    def finished(self, finished: Finished) -> None:
        """Nothing to do."""


class NotOne:
    """No interceptor."""


@pytest.mark.parametrize(
    ("value", "config", "fault"),
    [
        ("tests.proxy_core.interceptors.test_registry:Own", {"every": 2}, ""),
        ("tests.proxy_core.interceptors.test_registry:Own", {"evry": 2}, "did you mean every?"),
        ("tests.proxy_core.interceptors.test_registry:NotOne", {}, "is no Interceptor"),
        ("tests.proxy_core.interceptors.nowhere:Own", {}, "cannot be loaded"),
    ],
)
def test_packages_bring_interceptors_of_their_own(
    monkeypatch: pytest.MonkeyPatch, value: str, config: dict[str, Any], fault: str
) -> None:
    entry = importlib.metadata.EntryPoint("own", value, registry.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [entry] if group == registry.GROUP else [])
    one = {"type": "own", "config": config}
    if fault:
        assert fault in faults(one)[0]
        return
    built = registry.build_interceptors(settings(one), Path("/nowhere"))
    assert built is not None
    assert built.dropped() == {"own": 0}
    assert "own" in registry.known_types()


def test_the_example_of_the_page_works(tmp_path: Path) -> None:
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), names)
    notes = tmp_path / "slow.txt"
    own = names["SlowCalls"](names["SlowCallsConfig"](above_ms=100, file=str(notes)), Surroundings(data_dir=tmp_path))
    own.finished(pair_for("chat", {"model": "m", "messages": []}, {"id": "c", "choices": []})[1])
    assert notes.read_text() == "m 250 ms\n"


def test_the_configuration_of_the_page_is_valid() -> None:
    import yaml

    text = PAGE.read_text().split("```yaml\n")[1].split("```")[0]
    built = registry.build_interceptors(settings(**yaml.safe_load(text)), Path("/nowhere"))
    assert built is not None
    assert list(built.dropped()) == ["printer", "http_recorder", "trace"]
