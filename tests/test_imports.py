"""What a process imports: the gateway no user interface, and nothing that the first request does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.luthien_tui.command import clean_environ

SERVE = """
import asyncio, sys, threading, urllib.request, os, signal
from pathlib import Path
import luthien_tui.embed as embed
from luthien_tui.cli import run_cli

found = []
def say(text):
    def ask():
        address = text.split("http://")[1].split(" ")[0]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        found.append(opener.open(f"http://{address}/health").status)
        found.append(sorted(sys.modules))
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=ask).start()
embed.say = say
code = run_cli(["--no-ui", "--port", "0"])
assert code == 0, code
assert found[0] == 200
unwanted = {"textual", "fastapi", "mcp", "alembic", "presidio_analyzer", "yaml", "sqlalchemy.orm"} & set(found[1])
unwanted |= {"sqlalchemy.dialects.postgresql"} & set(found[1])  # the store is an SQLite file
assert not unwanted, f"imported before the first request was served: {sorted(unwanted)}"
"""


def run(program: str, folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=folder,
        env=clean_environ(folder),
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_part_of_the_gateway_imports_a_user_interface(tmp_path: Path) -> None:
    program = (
        "import sys, pkgutil, importlib, proxy_core\n"
        "for module in pkgutil.walk_packages(proxy_core.__path__, 'proxy_core.'):\n"
        "    if '.migrations' not in module.name:\n"
        "        importlib.import_module(module.name)\n"
        "found = {'textual', 'typer', 'luthien_tui'} & set(sys.modules)\n"  # rich comes with httpx's own command
        "assert not found, found"
    )
    run(program, tmp_path)


def test_serving_without_a_screen_imports_only_what_it_needs(tmp_path: Path) -> None:
    run(SERVE, tmp_path)
    run(SERVE, tmp_path)  # with a journal that exists


def test_the_engine_without_its_orm_is_the_same_for_everybody(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from proxy_core.journal.async_engine import AsyncEngine\n"
        "assert 'sqlalchemy.orm' not in sys.modules\n"
        "from sqlalchemy.ext.asyncio import AsyncEngine as same, AsyncSession\n"
        "assert AsyncEngine is same and AsyncSession.__module__ == 'sqlalchemy.ext.asyncio.session'"
    )
    run(program, tmp_path)


@pytest.mark.parametrize("arguments", [["--help"], ["env"], ["config", "show"], ["version"], ["doctor", "--port", "0"]])
def test_no_other_command_imports_the_screen(tmp_path: Path, arguments: list[str]) -> None:
    program = (
        f"import sys; from luthien_tui.cli import run_cli; run_cli({arguments!r})\n"
        "assert 'textual' not in sys.modules and 'rich' not in sys.modules, 'the screen was imported'"
    )
    run(program, tmp_path)
