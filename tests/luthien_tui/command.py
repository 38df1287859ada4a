"""Runs the `luthien` command the way a user does: as a process, in a clean environment, with a data folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.luthien_tui.ready_command import ReadyCommand

COMMAND = (sys.executable, "-m", "luthien_tui.cli")
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")


def clean_environ(folder: Path, **more: str) -> dict[str, str]:
    """The environment without anything that is a setting."""
    environ = {name: os.environ[name] for name in KEPT if name in os.environ}
    environ |= {"LUTHIEN_DATA_DIR": str(folder / "data"), "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1"}
    environ["LUTHIEN_CONTROL__PORT"] = "0"
    return environ | more


_ready = ReadyCommand()


def luthien(folder: Path, *arguments: str, timeout_s: float = 30, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run to the end without a terminal; the working folder is `folder`."""
    return _ready.run(arguments, folder=folder, environ=clean_environ(folder, **environ), timeout_s=timeout_s)
