"""A process that has the `luthien` command imported, and forks for each command line that it is asked to run.

A test that runs a command pays for what the command does, not for half a second of imports. Each run is a process of its own,
with the environment, folder, output files and exit code that it was given; the console script's own `main` runs in it.
Asked by JSON lines on standard input, answers with one JSON line each; one run at a time.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

IMPORTED = (
    "luthien_tui.cli",
    "luthien_tui.commands.keys",
    "luthien_tui.commands.log",
    "luthien_tui.commands.policies",
    "luthien_tui.commands.route",
    "proxy_core.journal.store",
    "proxy_core.runtime",
)


class ReadyCommand:
    """Runs command lines; starts its process when it is first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self, arguments: tuple[str, ...], *, folder: Path, environ: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        out, err = folder.parent / f"{folder.name}.out", folder.parent / f"{folder.name}.err"
        asked = {
            "arguments": arguments,
            "folder": str(folder),
            "environ": environ,
            "out": str(out),
            "err": str(err),
            "timeout_s": timeout_s,
        }
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        process.stdin.flush()
        code = json.loads(process.stdout.readline())
        output, errors = out.read_text("utf-8"), err.read_text("utf-8")
        if code is None:
            raise subprocess.TimeoutExpired(["luthien", *arguments], timeout_s, output, errors)
        return subprocess.CompletedProcess(["luthien", *arguments], code, output, errors)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
            environ |= {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUTF8": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.luthien_tui.ready_command"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environ,
            )
            atexit.register(self._end, self._process)
        return self._process

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        with process:
            assert process.stdin is not None
            process.stdin.close()  # it ends with its input


def serve() -> None:
    """Run what is asked until the asker closes the pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for name in IMPORTED:
        __import__(name)
    gc.freeze()
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            answers.close()
            become(asked)
        answers.write(json.dumps(ended(pid, asked["timeout_s"])).encode() + b"\n")
        answers.flush()


def ended(pid: int, timeout_s: float) -> int | None:
    """The exit code as `subprocess` tells it; None where the time was over."""
    over = threading.Event()

    def kill() -> None:
        over.set()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(timeout_s, kill)
    timer.start()
    status = os.waitpid(pid, 0)[1]
    timer.cancel()
    return None if over.is_set() else os.waitstatus_to_exitcode(status)


def become(asked: dict[str, Any]) -> None:
    """Turn this fork into the command."""
    os.environ.clear()
    os.environ.update(asked["environ"])
    os.chdir(asked["folder"])
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, asked["out"], os.O_WRONLY), (2, asked["err"], os.O_WRONLY)):
        opened = os.open(path, flags | (os.O_CREAT | os.O_TRUNC if number else 0), 0o600)
        os.dup2(opened, number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", encoding="utf-8"), open(2, "w", encoding="utf-8")  # noqa: SIM115
    sys.argv = ["luthien", *asked["arguments"]]
    from luthien_tui.cli import main

    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
