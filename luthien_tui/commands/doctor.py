"""`luthien doctor`: what luthien needs, whether it is there, and the fix for what is not.

Nothing is changed but the data folder, which is created as a start would. Each finding is `ok`, `warn` (works, with a
drawback) or `fail` (luthien or a part of it cannot work). Upstreams are asked concurrently with a HEAD, without any key.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import sqlite3
import stat
import sys
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from time import time
from typing import Literal

from msgspec import Struct, to_builtins

from luthien_tui.commands.env import reachable_root
from luthien_tui.commands.given import Given
from luthien_tui.commands.probe import Answer, head, listener_name
from luthien_tui.launch import missing_terminal
from proxy_core.errors import ConfigurationError, ExitCode, LuthienError
from proxy_core.logs import escaped, redact
from proxy_core.settings import Settings
from proxy_core.settings_sources import LoadedSettings, data_dir, data_dir_path

WAL_RESET_FIXED = (3, 51, 3)
"""First SQLite without the WAL-reset bug, which can corrupt a file that several processes write."""
CLOCK_LIMIT_S = 30.0
PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


class Finding(Struct, frozen=True):
    """What one check found."""

    check: str
    status: Literal["ok", "warn", "fail"]
    says: str
    fix: str = ""


def run_doctor(given: Given, *, as_json: bool) -> int:
    """Print all findings; exit code 1 if one of them is a failure."""
    findings = asyncio.run(examine(given))
    failed = any(finding.status == "fail" for finding in findings)
    if as_json:
        print(json.dumps({"ok": not failed, "findings": to_builtins(findings)}, indent=2))
    else:
        _print_text(findings)
    return ExitCode.CRASH if failed else ExitCode.OK


async def examine(given: Given) -> list[Finding]:
    """Every finding, in the order of reading."""
    findings = [python_version(), *packages(), sqlite_version()]
    try:
        loaded = given.load()
    except ConfigurationError as fault:
        return [*findings, *(Finding("settings", "fail", line, "correct it there") for line in str(fault).splitlines())]
    settings = loaded.settings
    findings += settings_findings(loaded)
    folder_findings = folder(settings)
    findings += folder_findings
    data_port = await port(settings)
    findings += [data_port, await control_port(settings, running=data_port.says.startswith("luthien is running"))]
    if not any(finding.status == "fail" for finding in folder_findings):
        findings.append(await store(settings))
    findings += terminal(os.environ)
    findings += proxies(os.environ, settings)
    findings += await upstreams(loaded)
    return findings


def python_version() -> Finding:
    return Finding("python", "ok", f"Python {platform.python_version()}")


def packages() -> list[Finding]:
    found = []
    for name, needed in (("textual", True), ("uvicorn", True), ("uvloop", False)):
        try:
            found.append(Finding(name, "ok", f"{name} {version_of(name)}"))
        except PackageNotFoundError:
            fix = f"install it: python3 -m pip install {name}"
            found.append(Finding(name, "fail" if needed else "warn", f"{name} is not installed", fix))
    return found


def sqlite_version() -> Finding:
    says = f"SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info < WAL_RESET_FIXED:
        says += "; before 3.51.3 several writing processes can damage a file, and luthien has exactly one, which is safe"
    return Finding("sqlite", "ok", says)


def settings_findings(loaded: LoadedSettings) -> list[Finding]:
    changed = sum(origin != "default" for origin in loaded.origins.values())
    found = [Finding("settings", "ok", f"valid, {changed} set by you (`luthien config show`)")]
    found += [Finding("settings", "warn", warning, "unset it if it is not meant for luthien") for warning in loaded.warnings]
    return found


def folder(settings: Settings) -> list[Finding]:
    """The data folder: there, writable, private, with private files, with room."""
    try:
        path = data_dir(settings)
    except LuthienError as fault:
        return [Finding("data folder", "fail", str(fault), "choose another with --data-dir")]
    found = [Finding("data folder", "ok", str(path))]
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        found[0] = Finding("data folder", "warn", f"{path} can be entered by others", f"chmod 700 {path}")
    open_files = [
        entry.name
        for entry in path.iterdir()
        if entry.is_file() and not entry.is_symlink() and stat.S_IMODE(entry.stat().st_mode) & 0o077 and _is_ours(entry)
    ]
    if open_files:
        names = " ".join(str(path / name) for name in sorted(open_files))
        found.append(
            Finding("file permissions", "warn", f"readable by others: {', '.join(sorted(open_files))}", f"chmod 600 {names}")
        )
    else:
        found.append(Finding("file permissions", "ok", "files are private"))
    free = shutil.disk_usage(path).free
    if free < 500_000_000:
        found.append(Finding("disk", "warn", f"{free // 1_000_000} MB free for the journal", "make room, or use --data-dir"))
    else:
        found.append(Finding("disk", "ok", f"{free / 1e9:.1f} GB free"))
    return found


def _is_ours(entry: Path) -> bool:
    return entry.name.startswith("luthien.db") or entry.name in ("control-token", "signing-key")


async def port(settings: Settings) -> Finding:
    """Whether the address can be listened on, or luthien already does."""
    host, number = settings.server.host, settings.server.port
    if number == 0:
        return Finding("port", "ok", "any free port will be taken")
    try:
        server = await asyncio.start_server(lambda reader, writer: None, host, number)
    except OSError as fault:
        try:
            who = await listener_name(reachable_root(settings))
        except (OSError, TimeoutError, ValueError):
            who = ""
        if who == "luthien":
            return Finding("port", "ok", f"luthien is running on {host}:{number}")
        taken = "it is taken by another program" if who else str(fault.strerror or fault)
        return Finding("port", "fail", f"cannot listen on {host}:{number}: {taken}", "stop it, or choose another with --port")
    server.close()
    await server.wait_closed()
    if host not in ("127.0.0.1", "::1", "localhost"):
        fix = "leave out --host unless other machines have to reach it"
        return Finding("port", "warn", f"{host}:{number} is free; others in the network can use your keys through it", fix)
    return Finding("port", "ok", f"{host}:{number} is free")


async def control_port(settings: Settings, *, running: bool) -> Finding:
    """Whether the control API can be served; `running`: luthien is there already, and this is its port."""
    host, number = settings.control.host, settings.control.port
    if not settings.control.enabled:
        return Finding("control port", "ok", "the control API is switched off")
    if number == 0:
        return Finding("control port", "ok", "any free port will be taken")
    try:
        server = await asyncio.start_server(lambda reader, writer: None, host, number)
    except OSError as fault:
        if running:
            return Finding("control port", "ok", f"taken on {host}:{number}, by the luthien that is running")
        fix = "stop what is there, or choose another with --control-port"
        return Finding("control port", "fail", f"cannot listen on {host}:{number}: {fault.strerror or fault}", fix)
    server.close()
    await server.wait_closed()
    if host not in ("127.0.0.1", "::1", "localhost"):
        fix = "leave control.host out unless other machines have to reach it"
        return Finding("control port", "warn", f"{host}:{number} is free; its token goes over the network unencrypted", fix)
    return Finding("control port", "ok", f"{host}:{number} is free")


async def store(settings: Settings) -> Finding:
    """Whether the journal can be written. SQLite is tried with a transaction that is rolled back."""
    url = settings.journal.database_url
    if url is None or url.startswith("sqlite"):
        path = Path(url.partition(":///")[2]) if url else data_dir_path(settings) / "luthien.db"
        return await asyncio.to_thread(_try_sqlite, path)
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    from proxy_core.journal.async_engine import create_async_engine

    fix = "start it and check user, password and name in journal.database_url"
    engine = create_async_engine(url)
    try:
        async with asyncio.timeout(5), engine.begin() as connection:
            version = (await connection.execute(text("show server_version"))).scalar_one()
            await connection.execute(text("create temporary table luthien_doctor (n int) on commit drop"))
    except (OSError, SQLAlchemyError, TimeoutError) as fault:
        reason = " ".join(str(fault).split())[:160] or type(fault).__name__
        return Finding("store", "fail", f"Postgres: {redact(reason)}", fix)
    finally:
        await engine.dispose()
    return Finding("store", "ok", f"Postgres {version} is writable")


def _try_sqlite(path: Path) -> Finding:
    fix = f"make {path} writable, or choose another folder with --data-dir"
    if not path.exists():
        writable = os.access(path.parent, os.W_OK)
        says = f"{path} will be created" if writable else f"{path.parent} is not writable"
        return Finding("store", "ok" if writable else "fail", says, "" if writable else fix)
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=3, isolation_level=None)
        try:
            connection.execute("begin immediate")
            connection.execute("create table luthien_doctor (n integer)")
            connection.execute("rollback")
            sound = connection.execute("pragma quick_check(1)").fetchone()[0] if path.stat().st_size < 200_000_000 else "ok"
        finally:
            connection.close()
    except sqlite3.Error as fault:
        return Finding("store", "fail", f"{path}: {fault}", fix)
    if sound != "ok":
        return Finding("store", "fail", f"{path} is damaged: {sound}", "move it away; luthien starts a new one")
    return Finding("store", "ok", f"{path} is writable ({path.stat().st_size / 1e6:.1f} MB)")


def terminal(environ: Mapping[str, str]) -> list[Finding]:
    """Size, kind, colours and characters of the terminal; luthien itself needs none."""
    missing = missing_terminal()
    if missing:
        return [Finding("terminal", "warn", f"none here ({missing}): luthien runs without a screen", "start it in a terminal")]
    size = shutil.get_terminal_size()
    kind = environ.get("TERM", "")
    found = []
    if size.columns < 60 or size.lines < 15:
        found.append(Finding("terminal", "warn", f"{size.columns}x{size.lines} is too small", "make it 80x24 or larger"))
    else:
        found.append(Finding("terminal", "ok", f"{size.columns}x{size.lines}, TERM={kind or 'unset'}"))
    if environ.get("NO_COLOR"):
        found.append(Finding("colours", "ok", "off, by NO_COLOR; words and signs say everything"))
    elif environ.get("COLORTERM") in ("truecolor", "24bit") or "256" in kind or "direct" in kind:
        found.append(Finding("colours", "ok", "256 or more"))
    else:
        found.append(
            Finding("colours", "warn", f"TERM={kind or 'unset'} promises few", "export TERM=xterm-256color if it can more")
        )
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding == "utf8":
        found.append(Finding("characters", "ok", "UTF-8"))
    else:
        found.append(Finding("characters", "warn", f"encoding is {encoding or 'unknown'}", "export LANG=C.UTF-8"))
    return found


def proxies(environ: Mapping[str, str], settings: Settings) -> list[Finding]:
    """Proxies of the environment: upstreams are reached through them, and clients must not look for luthien there."""
    present = sorted({name.upper() for name in PROXY_NAMES if environ.get(name)})
    if not present:
        return [Finding("proxies", "ok", "none in the environment")]
    host = settings.server.host
    bypassed = (environ.get("NO_PROXY") or environ.get("no_proxy") or "").replace(" ", "").split(",")
    says = f"{', '.join(present)}: upstreams are reached through it"
    if host in bypassed or "*" in bypassed:
        return [Finding("proxies", "ok", says)]
    return [Finding("proxies", "warn", f"{says}, and clients may look for {host} there", 'eval "$(luthien env)" sets NO_PROXY')]


async def upstreams(loaded: LoadedSettings) -> list[Finding]:
    """Ask every upstream at once; the clock is compared with the first Date that came back.

    One that the user named and that does not answer is a failure; a default one may be unused.
    """
    settings = loaded.settings
    names = list(settings.upstreams)
    answers = await asyncio.gather(*(head(settings.upstreams[name], environ=os.environ) for name in names))
    found = [_upstream_finding(name, loaded, answer) for name, answer in zip(names, answers, strict=True)]
    dated = next((answer for answer in answers if answer.date), None)
    return [*found, clock(dated.date if dated else "", time())]


def _upstream_finding(name: str, loaded: LoadedSettings, answer: Answer) -> Finding:
    upstream = loaded.settings.upstreams[name]
    check = f"upstream {name}"
    if answer.status is not None:
        way = " through a proxy" if answer.proxied else ""
        return Finding(check, "ok", f"{upstream.base_url} answers{way} in {answer.milliseconds:.0f} ms")
    local = upstream.api == "ollama" and "localhost" in upstream.base_url
    fix = "start it (`ollama serve`), or leave it if you do not use it" if local else "check base_url, network, proxy and ca_file"
    status: Literal["warn", "fail"] = "warn" if loaded.origins[f"upstreams.{name}.base_url"] == "default" else "fail"
    return Finding(check, status, f"{upstream.base_url}: {redact(answer.fault)}", fix)


def clock(date: str, now: float) -> Finding:
    """How far this clock is from an upstream's."""
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return Finding("clock", "warn", "not compared: no upstream told the time", "connect to the network and try again")
    off = now - theirs
    if abs(off) > CLOCK_LIMIT_S:
        return Finding("clock", "warn", f"{abs(off):.0f} s {'ahead' if off > 0 else 'behind'}", "let the system set it (NTP)")
    return Finding("clock", "ok", "agrees with the upstreams")


def _print_text(findings: list[Finding]) -> None:
    signs = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        print(f"{signs[finding.status]}  {escaped(finding.check):<{width}}  {escaped(finding.says)}")
        if finding.fix:
            print(f"      {'':<{width}}  fix: {escaped(finding.fix)}")
    counts = {status: sum(finding.status == status for finding in findings) for status in ("ok", "warn", "fail")}
    print(f"{counts['ok']} ok, {counts['warn']} to know, {counts['fail']} failed")
