"""A session of the gateway as a file beside the operator, wherever the gateway is.

Turns are asked for by the page and written as they come, in steps that leave the loop free. The file is for its owner alone, and
never takes the place of another.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from proxy_core.control.plane import ControlNotFound, ControlPlane
from proxy_core.control.session_export import ExportFormat, export, file_name
from proxy_core.control.session_infos import SessionInfo, Turn

PAGE = 100
PIECES = 50
"""Pieces of the file that are written at once."""
NAMES = 1_000
"""So many files of one name there may be."""


async def export_session(plane: ControlPlane, session_id: str, form: ExportFormat, folder: Path) -> Path:
    """Write the session into the folder; gives the file. Raises ControlNotFound, OSError, LuthienError."""
    detail = await plane.session(session_id, after=0, limit=1)
    if detail is None:
        raise ControlNotFound("the gateway does not know this session any more")
    path, number = await asyncio.to_thread(_create, folder, file_name(session_id, form))
    pieces: list[str] = []
    try:
        async for piece in export(detail.info, _turns(plane, detail.info), form):
            pieces.append(piece)
            if len(pieces) >= PIECES:
                await asyncio.to_thread(_write, number, pieces)
                pieces = []
        await asyncio.to_thread(_write, number, pieces)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(number)
    return path


async def _turns(plane: ControlPlane, info: SessionInfo) -> AsyncIterator[Turn]:
    after = 0
    while True:
        detail = await plane.session(info.id, after=after, limit=PAGE)
        if detail is None or not detail.turns:
            return
        for turn in detail.turns:
            yield turn
            await asyncio.sleep(0)
        after = detail.turns[-1].number


def _create(folder: Path, name: str) -> tuple[Path, int]:
    stem, _, ending = name.rpartition(".")
    for number in range(1, NAMES):
        path = folder / (name if number == 1 else f"{stem}-{number}.{ending}")
        try:
            return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
    raise FileExistsError(f"there are {NAMES:,} files of that name")


def _write(number: int, pieces: list[str]) -> None:
    written = memoryview("".join(pieces).encode("utf-8", "replace"))
    while written:
        written = written[os.write(number, written) :]
