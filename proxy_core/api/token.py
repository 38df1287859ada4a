"""The token of the control API: 32 random bytes in a file that only the user can read, made at the first start and kept."""

from __future__ import annotations

import hmac
import os
import secrets
from hashlib import sha256
from pathlib import Path

from proxy_core.errors import StoreError

FILE_NAME = "control-token"
_BYTES = 32
_MIN_LENGTH = 32


def control_token(data_dir: Path) -> str:
    """The token of the gateway that lives in `data_dir`; made where there is none. Raises StoreError.

    Gateways that start at once over one folder agree on one token.
    """
    path = data_dir / FILE_NAME
    try:
        found = _read(path)
        if found is None:
            _publish(path, secrets.token_urlsafe(_BYTES))
            found = _read(path)
    except OSError as error:
        raise StoreError(
            f"the control token {path} cannot be kept: {error.strerror or error}; make the folder writable, or choose "
            "another with --data-dir"
        ) from error
    if found is None:
        raise StoreError(f"the control token {path} is too short to be safe; delete the file, and luthien makes a new one")
    return found


def known_token(data_dir: Path) -> str | None:
    """The token of the gateway that lives in `data_dir`; None where there is none that can be read."""
    try:
        return _read(data_dir / FILE_NAME)
    except OSError:
        return None


def is_token(given: str, token: str) -> bool:
    """Whether `given` is the token; takes the same time for every wrong one."""
    return hmac.compare_digest(_digest(given), _digest(token))


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "replace")).digest()


def _read(path: Path) -> str | None:
    """The token in the file; None where it holds none. Closes the file to others."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        if os.fstat(handle).st_mode & 0o077:
            os.fchmod(handle, 0o600)
        token = file.read(4_096).decode("ascii", "replace").strip()
    return token if len(token) >= _MIN_LENGTH else None


def _publish(path: Path, token: str) -> None:
    """Put the token there whole, or not at all; one that is there already stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{FILE_NAME}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(token + "\n")
            file.flush()
            os.fsync(handle)
        try:
            os.link(draft, path)
        except FileExistsError:
            if path.stat().st_size == 0:
                draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
