"""Logs: one line, no control characters, no credentials, private files, a bounded ring."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from proxy_core import logs

SEEN = "canary-7f3a19c2d4"


@pytest.fixture
def ring() -> Iterator[logs.LogRing]:
    """A ring, with the process's logging put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs.OWN_LOGGERS}
    last_resort, raises = logging.lastResort, logging.raiseExceptions
    yield logs.LogRing(100)
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)
    logging.lastResort, logging.raiseExceptions = last_resort, raises
    logging.captureWarnings(False)


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SEEN}",
        f"authorization='Basic {SEEN}'",
        f'{{"authorization": "Bearer {SEEN}"}}',
        f"'x-api-key': '{SEEN}'",
        f"api_key={SEEN}",
        f"bearer {SEEN}",
        f"key sk-proj-{SEEN} was used",
        f"postgresql+asyncpg://user:{SEEN}@host/name",
        f"Cookie: {SEEN}",
        f"proxy-authorization: {SEEN}",
    ],
)
def test_credentials_never_reach_a_handler(ring: logs.LogRing, tmp_path: Path, text: str) -> None:
    file = tmp_path / "logs" / "luthien.log"
    logs.configure("INFO", ring, stderr=False, file=file)
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("luthien").exception("failed: %s", text)
    (line,) = ring.since(0)
    assert SEEN not in line.message
    assert "[redacted]" in line.message
    assert SEEN not in file.read_text()


def test_ordinary_words_stay() -> None:
    text = "token count 12, basic configuration, secretary, the key is missing, https://a.example:8000/x@y"
    assert logs.redact(text) == text


def test_a_message_stays_one_harmless_line(ring: logs.LogRing, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "luthien.log"
    logs.configure("INFO", ring, stderr=True, file=file, stderr_level="INFO")
    logging.getLogger("luthien").info("model %s", "a\n2026-01-01 ERROR forged\r\x1b]52;c;UFdO\x07\x9b31m\u2028\u202e")
    assert len(ring.since(0)) == 1
    for text in (file.read_text(), capsys.readouterr().err, ring.since(0)[0].message + "\n"):
        assert text.count("\n") == 1
        assert not [c for c in text.removesuffix("\n") if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c in "\u2028\u202e"]


def test_traces_are_in_the_file_alone_and_cannot_forge_a_line(ring: logs.LogRing, tmp_path: Path) -> None:
    file = tmp_path / "luthien.log"
    logs.configure("INFO", ring, stderr=False, file=file)
    try:
        raise ValueError("first\n2026-01-01 00:00:00.000 ERROR forged: x")
    except ValueError:
        logging.getLogger("luthien").exception("it failed")
    assert "Traceback" not in ring.since(0)[0].message
    first, *rest = file.read_text().splitlines()
    assert "it failed | ValueError: first\\n" in first
    assert rest
    assert all(line.startswith("    | ") for line in rest)


@pytest.mark.parametrize("copies", [3, 0])
def test_files_are_private_and_rotate(ring: logs.LogRing, tmp_path: Path, copies: int) -> None:
    file = tmp_path / "logs" / "luthien.log"
    logs.configure("INFO", ring, stderr=False, file=file, form=logs.Form(max_bytes=2_000, copies=copies))
    for number in range(200):
        logging.getLogger("luthien").info("line %s", number)
    files = list(file.parent.iterdir())
    assert len(files) == 1 + copies
    assert {one.stat().st_mode & 0o777 for one in files} == {0o600}
    assert max(one.stat().st_size for one in files) <= 2_000
    assert "line 199" in file.read_text()


def test_messages_as_json_are_one_object_a_line(ring: logs.LogRing, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "luthien.log"
    logs.configure("INFO", ring, stderr=True, file=file, stderr_level="INFO", form=logs.Form(as_json=True))
    try:
        raise ValueError(f"Authorization: Bearer {SEEN}")
    except ValueError:
        logging.getLogger("luthien").exception("it failed\n%s", "é\x1b")
    for text in (file.read_text(), capsys.readouterr().err):
        assert text.isascii()
        found = json.loads(text)
        assert (found["level"], found["logger"]) == ("ERROR", "luthien")
        assert found["message"].startswith("it failed\\né\\e | ValueError: Authorization: [redacted]")
        assert found["trace"].startswith("Traceback")
        assert SEEN not in text
        assert datetime.fromisoformat(found["time"]).tzinfo is not None


def test_the_ring_is_bounded_and_numbered() -> None:
    ring = logs.LogRing(3)
    for number in range(5):
        ring.emit(logging.LogRecord("luthien", logging.ERROR, "", 0, "line %s", (number,), None))
    assert [line.message for line in ring.since(0)] == ["line 2", "line 3", "line 4"]
    assert [line.sequence for line in ring.since(4)] == [5]
    assert ring.since(5) == []
    assert [line.message for line in ring.last_errors(2)] == ["line 3", "line 4"]


def test_levels_hold_for_own_loggers_and_libraries_are_kept_quiet(ring: logs.LogRing) -> None:
    logs.configure("DEBUG", ring, stderr=False, file=None)
    logging.getLogger("proxy_core.gateway").debug("own")
    logging.getLogger("some.library").info("theirs")
    logging.getLogger("some.library").warning("their warning")
    assert [line.message for line in ring.since(0)] == ["own", "their warning"]
    assert logging.lastResort is None


def test_wrong_arguments_of_a_message_do_no_harm(ring: logs.LogRing) -> None:
    logs.configure("INFO", ring, stderr=False, file=None)
    logging.getLogger("luthien").info("%d of %d", "x")
    assert "%d of %d" in ring.since(0)[0].message


def test_a_closed_stderr_is_silence(ring: logs.LogRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = (tmp_path / "gone").open("w")
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("INFO", ring, stderr=True, file=None)
    stream.close()
    logging.getLogger("luthien").error("into the void")
    assert ring.since(0)[0].message == "into the void"


def test_a_cancellation_is_no_error(ring: logs.LogRing) -> None:
    logs.configure("INFO", ring, stderr=False, file=None)
    try:
        raise asyncio.CancelledError
    except asyncio.CancelledError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    assert ring.since(0) == []
