"""Files that their owner alone can read, written a whole line at a time.

A folder made here is 0700, a file 0600; a folder that was there before keeps its mode. What could be written in part only is
taken back, so that a full disk leaves no torn line. All raise OSError.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_OPEN = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def private_folder(folder: Path) -> None:
    """Make a folder and the ones around it that are missing."""
    if folder.is_dir():
        return
    private_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


def append(file: Path, data: bytes, *, head: bytes = b"") -> None:
    """Add `data` at the end of a file, all of it or nothing; a new file begins with `head`."""
    descriptor, size = _opened(file, _OPEN | os.O_APPEND)
    try:
        _write(descriptor, data if size else head + data, size)
    finally:
        os.close(descriptor)


def append_again(file: Path, data: bytes) -> None:
    """The same for a file that this process has written to before; spares looking at it."""
    descriptor = os.open(file, _OPEN | os.O_APPEND, 0o600)
    try:
        if (written := os.write(descriptor, data)) < len(data):
            _write(descriptor, data[written:], os.fstat(descriptor).st_size - written)
    finally:
        os.close(descriptor)


def create(file: Path, data: bytes) -> None:
    """Write a new file. Raises FileExistsError where there is one."""
    descriptor, _ = _opened(file, _OPEN | os.O_EXCL)
    try:
        _write(descriptor, data, 0)
    finally:
        os.close(descriptor)


def replace_tail(file: Path, tail: bytes, data: bytes) -> bool:
    """Write `data` in place of `tail` at the end of a file; False where the file does not end so."""
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # another process may write the same session's; closing it gives it free
        start = os.fstat(descriptor).st_size - len(tail)
        if start < 0 or os.pread(descriptor, len(tail), start) != tail:
            return False
        os.lseek(descriptor, start, os.SEEK_SET)
        try:
            _write(descriptor, data, start)
        except OSError:
            os.pwrite(descriptor, tail, start)
            raise
        return True
    finally:
        os.close(descriptor)


def hold(file: Path) -> int | None:
    """Keep a file for this process until the descriptor is closed; None where another process keeps it."""
    descriptor, _ = _opened(file, _OPEN)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _opened(file: Path, flags: int) -> tuple[int, int]:
    """A descriptor, and the size of the file."""
    try:
        descriptor = os.open(file, flags, 0o600)
    except FileNotFoundError:
        private_folder(file.parent)
        descriptor = os.open(file, flags, 0o600)
    status = os.fstat(descriptor)
    if status.st_mode & 0o177:
        os.fchmod(descriptor, 0o600)
    return descriptor, status.st_size


def _write(descriptor: int, data: bytes, start: int) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, start)
        raise
