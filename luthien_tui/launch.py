"""From options to a running gateway: settings, data folder, logs, and whether there is a screen."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from luthien_tui.commands.given import Given
from proxy_core import logs
from proxy_core.errors import ConfigurationError, StoreError
from proxy_core.settings_sources import LoadedSettings, data_dir

log = logging.getLogger(__name__)


def serve(given: Given, *, demo: bool = False) -> int:
    """Start and run until the end; returns the exit code. Raises LuthienError where it cannot start."""
    missing = missing_terminal()
    if given.screen and missing:
        raise ConfigurationError(f"--ui needs a terminal, but {missing}; leave out --ui to run without a screen")
    screen = given.screen is not False and not missing
    remark = f"no screen: {missing}" if missing and given.screen is None else ""
    if demo:
        from luthien_tui.commands.demo import run_demo

        return run_demo(given, screen=screen, remark=remark)
    loaded = given.load()
    folder = data_dir(loaded.settings)
    ring, log_file = start_logs(loaded, folder, screen=screen)
    from luthien_tui.embed import Launch, run_headless, run_with_ui

    launch = Launch(loaded.settings, folder, ring, log_file, remark, load=given.load, config=given.config_file())
    try:
        return run_with_ui(launch) if screen else run_headless(launch)
    except ConfigurationError as fault:
        raise ConfigurationError(loaded.placed(str(fault))) from fault


def missing_terminal() -> str:
    """Why no screen can be shown; empty where one can."""
    if not _is_terminal(sys.stdin):
        return "stdin is not one"
    if not _is_terminal(sys.stderr):
        return "stderr is not one"
    if os.environ.get("TERM") == "dumb":
        return "TERM is dumb"
    return ""


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False  # closed, or absent


def start_logs(loaded: LoadedSettings, folder: Path, *, screen: bool) -> tuple[logs.LogRing, Path]:
    """Ring and file; stderr too where no screen is painted on it. Raises StoreError where the file cannot be opened."""
    ring = logs.LogRing()
    said = loaded.settings.logging
    file = Path(said.file).expanduser().absolute() if said.file else folder / "logs" / "luthien.log"
    stderr_level = said.level if loaded.origins.get("logging.level", "default") != "default" else "WARNING"
    try:
        logs.configure(said.level, ring, stderr=not screen, file=file, stderr_level=stderr_level, form=logs.form_of(said))
    except OSError as fault:
        fix = "choose another with logging.file" if said.file else "make it writable, or choose another folder with --data-dir"
        raise StoreError(f"cannot write the log file {file}: {fault.strerror or fault}; {fix}") from fault
    for warning in loaded.warnings:
        log.warning("%s", warning)
    return ring, file
