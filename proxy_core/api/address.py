"""Where the control API of a data folder's gateway listens: a file beside its token, for commands that ask the gateway.

It is there while the gateway runs. One that was killed leaves it behind, so nobody may listen there any more.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

FILE_NAME = "control-address"
_MAX_BYTES = 512

log = logging.getLogger(__name__)


def publish_address(data_dir: Path, address: str) -> None:
    """Say that the gateway of `data_dir` has its control API at `address`, HOST:PORT."""
    path = data_dir / FILE_NAME
    draft = path.with_name(f".{FILE_NAME}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "w") as file:
            file.write(address + "\n")
        draft.replace(path)
    except OSError as error:
        log.warning("commands must be told where the control API is: %s cannot be written: %s", path, error.strerror or error)


def withdraw_address(data_dir: Path, address: str) -> None:
    """Take it back, unless another gateway has said where it is."""
    if known_address(data_dir) == split(address):
        (data_dir / FILE_NAME).unlink(missing_ok=True)


def known_address(data_dir: Path) -> tuple[str, int] | None:
    """Host and port; None where nobody has said so."""
    try:
        with (data_dir / FILE_NAME).open("rb") as file:
            return split(file.read(_MAX_BYTES).decode("ascii", "replace").strip())
    except OSError:
        return None


def split(address: str) -> tuple[str, int] | None:
    """Host and port of HOST:PORT, where a host of IPv6 may stand in brackets."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    return host.strip("[]"), int(port)
