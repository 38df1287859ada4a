"""Policies of the operator's own, each in one Python file that is called like it: `all_caps.py` holds `AllCaps`.

A file is code that runs with the gateway's rights, so only files of the folders that the configuration file names (or the
`policies` folder beside it and in the data folder) are ever read, and only when a chain uses that policy. A file that has
changed is read again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

from proxy_core.errors import ConfigurationError
from proxy_core.policies.base import ControlPolicy

_loaded: dict[Path, tuple[tuple[int, int], type[ControlPolicy[Any]]]] = {}
_lock = Lock()


def files(paths: Iterable[str]) -> list[Path]:
    """The policy files that `paths` (files or folders) hold, in order; a name that was there before is left out."""
    found: dict[str, Path] = {}
    for text in paths:
        path = Path(text).expanduser()
        inside = sorted(path.glob("*.py")) if path.is_dir() else [path]
        for file in inside:
            hidden = file.name.startswith(("_", ".", "test_")) or file.stem.endswith("_test") or file.stem == "conftest"
            if file.suffix == ".py" and not hidden and file.is_file():
                found.setdefault(file.stem, file)
    return list(found.values())


def find(name: str, paths: Iterable[str]) -> Path | None:
    """The file of the policy `name`."""
    return next((file for file in files(paths) if file.stem == name), None)


def policy_in(file: Path) -> type[ControlPolicy[Any]]:
    """The policy that a file holds. Raises ConfigurationError that names the file, and the line where there is one."""
    file = file.absolute()
    try:
        status = file.stat()
    except OSError as fault:
        raise ConfigurationError(f"cannot read {file}: {fault.strerror or fault}") from fault
    mark = (status.st_mtime_ns, status.st_size)
    with _lock:
        known = _loaded.get(file)
        if known is not None and known[0] == mark:
            return known[1]
        found = policy_of_module(_executed(file), file.stem)
        if found is None:
            wanted = "".join(part.capitalize() for part in file.stem.split("_"))
            raise ConfigurationError(
                f"{file} holds no policy called {file.stem!r}; write `class {wanted}(ControlPolicy[…])` in it"
            )
        _loaded[file] = (mark, found)
        return found


def policy_of_module(module: ModuleType, name: str) -> type[ControlPolicy[Any]] | None:
    """The policy called `name` that the module itself defines."""
    for value in vars(module).values():
        own = isinstance(value, type) and issubclass(value, ControlPolicy) and value.__module__ == module.__name__
        if own and value.registry_name() == name:
            return value  # type: ignore[no-any-return]
    return None


def _executed(file: Path) -> ModuleType:
    name = f"luthien_policy_{file.stem}"
    try:
        source = file.read_bytes()
        # compiled here, because the import system's cache takes two versions of one second for the same
        code = compile(source, str(file), "exec", dont_inherit=True)
        module = ModuleType(name)
        module.__file__ = str(file)
        before = sys.modules.get(name)
        sys.modules[name] = module  # models look their module up there
        try:
            exec(code, module.__dict__)  # noqa: S102 - it is a policy that the operator put there
        except BaseException:
            if before is not None:
                sys.modules[name] = before
            else:
                del sys.modules[name]
            raise
    except SyntaxError as fault:
        raise ConfigurationError(f"{file}:{fault.lineno or 1}: {fault.msg}") from fault
    except OSError as fault:
        raise ConfigurationError(f"cannot read {file}: {fault.strerror or fault}") from fault
    except KeyboardInterrupt:
        raise
    except BaseException as fault:  # one that would end the process too: a file may not do that
        raise ConfigurationError(
            f"{file}:{_line(fault, file)}: {type(fault).__name__}: {' '.join(str(fault).split())}"
        ) from fault
    return module


def _line(fault: BaseException, file: Path) -> int:
    """Where in `file` it went wrong."""
    line = 1
    trace = fault.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
