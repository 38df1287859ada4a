"""The folder of the store, keys and logs."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

from proxy_core.errors import StoreError
from proxy_core.settings import Settings


def data_dir_path(settings: Settings) -> Path:
    """Where state is kept; nothing is created."""
    if settings.data_dir:
        return Path(settings.data_dir).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("luthien", appauthor=False)


def data_dir(settings: Settings) -> Path:
    """The folder of the store, keys and logs, created readable for its owner alone.

    A folder that was there before keeps its mode, because it may be anyone's; the files put into it are 0600.
    Raises StoreError where it cannot be written.
    """
    folder = data_dir_path(settings)
    fix = "choose another folder with --data-dir or LUTHIEN_DATA_DIR, or make this one writable"
    try:
        fresh = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if fresh or not settings.data_dir:
            folder.chmod(stat.S_IRWXU)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as fault:
        raise StoreError(f"cannot write to the data folder {folder}: {fault.strerror or fault}; {fix}") from fault
    return folder
