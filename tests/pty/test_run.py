"""`luthien run` as Cylestio Gateway's users call it: with its configuration file, with options over it, with options alone."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest

from tests.fault_upstream import FaultUpstream
from tests.pty.conftest import chat
from tests.pty.test_reload import served

pytestmark = pytest.mark.pty

FILE = """
server: {port: 4000, host: 127.0.0.1, workers: 1}
llm:
  base_url: "URL/"
  type: "openai"
  api_key: "${TEAM_KEY}"
  timeout: 30
  max_retries: 1
interceptors:
  - {type: printer, enabled: false, config: {log_requests: true}}
session: {enabled: true, max_sessions: 500, session_ttl_seconds: 60}
logging: {level: INFO, format: json, file: ./logs/gateway.log, max_file_size: 100000, backup_count: 2}
"""


async def test_a_configuration_of_cylestio_serves(tmp_path: Path, upstream: FaultUpstream, client: aiohttp.ClientSession) -> None:
    (tmp_path / "config.yaml").write_text(FILE.replace("URL", upstream.url))
    arguments = ("run", "--config", "config.yaml", "--log-level", "DEBUG")
    async with served(tmp_path, upstream, *arguments, TEAM_KEY="sk-of-the-team") as gateway:
        await chat(client, gateway.port)
        assert upstream.last.header("authorization") == "Bearer sk-of-the-team"
        async with client.get(f"http://127.0.0.1:{gateway.port}/config") as answer:
            shown = await answer.json()
    assert shown["logging"]["level"] == "DEBUG"
    assert (shown["sessions"]["max_sessions"], shown["sessions"]["ttl_s"]) == (500, 60)
    log = tmp_path / "logs" / "gateway.log"
    assert log.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert not (tmp_path / "data" / "logs" / "luthien.log").exists()


async def test_options_alone_name_the_upstream_and_its_key(
    tmp_path: Path, upstream: FaultUpstream, client: aiohttp.ClientSession
) -> None:
    options = ("run", "--base-url", upstream.url, "--type", "openai", "--api-key", "sk-of-the-option", "--host", "127.0.0.1")
    async with served(tmp_path, upstream, *options, LOG_LEVEL="INFO") as gateway:
        await chat(client, gateway.port)
        assert upstream.last.header("authorization") == "Bearer sk-of-the-option"
