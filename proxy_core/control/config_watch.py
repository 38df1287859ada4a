"""The configuration while the gateway runs: a file that was changed is taken in, whole or not at all.

Looked at once a second (and when somebody asks, as SIGHUP does), off the event loop. A file is read when it has stayed the same
for a moment, because editors write in pieces. What cannot be read or is not valid changes nothing, and the log says which line
is at fault. Policies, chains, routing, holds, keys, limits and the log's level change at once and in one step; of anything else
the log says once that it takes effect at the next start.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from proxy_core.control.policy_book import PolicyBook
from proxy_core.control.route_book import RouteBook
from proxy_core.control.route_params import differing
from proxy_core.errors import ConfigurationError, LuthienError
from proxy_core.interceptors.registry import check_interceptors
from proxy_core.policies import local_files
from proxy_core.policies.masking import masked
from proxy_core.settings import Section, Settings
from proxy_core.settings_sources import LoadedSettings
from proxy_core.tasks import spawn

log = logging.getLogger(__name__)

_RULES = ("sensitivity", "cost", "default_provider", "policy_file", "on_unsupported", "models", "tags")
_SENDING = ("timeouts", "retries", "breaker")
LIVE = frozenset(
    {
        *("policies", "chains", "policy_paths", "holds", "keys", "limits", "prices", "logging.level"),
        *(f"routing.{name}" for name in (*_RULES, *_SENDING)),
    }
)
"""What changes while the gateway runs, as sections and settings."""
RECORDED = ("holds", "keys", "limits", "prices", "logging")
"""Sections whose changes are recorded whole; of routing what differs is, and policies record their own."""
LOOK_EVERY_S = 1.0
SETTLE_S = 0.25
"""A file that was changed is read when it has not changed again for so long."""

Mark = tuple[tuple[str, int, int, int], ...]
"""Path, time of change, size and number of each file that is there."""


class ConfigWatch:
    """Takes changes of the configuration into a running gateway."""

    def __init__(
        self,
        *,
        load: Callable[[], LoadedSettings],
        book: PolicyBook,
        routes: RouteBook,
        apply: Callable[[Settings], None],
        file: Path | None = None,
        started_with: Settings,
        look_every_s: float = LOOK_EVERY_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        """`load` reads all sources anew and may block; `apply` puts holds, keys, limits and the log's level in force at once."""
        self._load = load
        self._book = book
        self._routes = routes
        self._apply = apply
        self._file = file.absolute() if file is not None else None
        self._waits_for_start = started_with
        self._look_every_s = look_every_s
        self._settle_s = settle_s
        self._reading = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._seen: Mark = ()

    def start(self) -> None:
        """Look at the files from now on; without one there is nothing to look at."""
        if self._watched():
            self._seen = _mark(self._watched())
            self._task = spawn(self._look(), name="watch the configuration")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def reload(self) -> bool:
        """Read the configuration anew and put in force what can be. Returns whether it was valid; never raises."""
        async with self._reading:
            try:
                loaded = await asyncio.to_thread(self._load)
            except LuthienError as fault:
                self._refused(str(fault))
                return False
            try:
                await self._take(loaded)
            except ConfigurationError as fault:
                self._refused(loaded.placed(str(fault)))
                return False
            except LuthienError as fault:
                self._refused(str(fault))
                return False
            return True

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._look_every_s)
            mark = await asyncio.to_thread(_mark, self._watched())
            if mark == self._seen:
                continue
            await asyncio.sleep(self._settle_s)
            if await asyncio.to_thread(_mark, self._watched()) != mark:
                continue  # it is still being written
            there = self._file is None or any(path == str(self._file) for path, *_ in mark)
            self._seen = mark
            if there:
                await self.reload()
            else:
                log.warning("%s is gone; what it said stays in force", self._name)

    async def _take(self, loaded: LoadedSettings) -> None:
        wanted, present = loaded.settings, self._book.settings
        if wanted.interceptors != self._waits_for_start.interceptors:
            check_interceptors(wanted)
        live = _with_live(present, wanted)
        others = {
            section: (_shown(getattr(present, section)), _shown(getattr(live, section)))
            for section in RECORDED
            if getattr(live, section) != getattr(present, section)
        }
        if live.routing != present.routing:
            others["routing"] = differing(present.routing, live.routing)
        async with self._routes.taking(live, self._name) as (take_routes, digests):

            def then() -> None:
                take_routes()
                self._apply(live)

            lines = await self._book.take_settings(live, who=self._name, others=others, digests={"routing": digests}, then=then)
        for warning in loaded.warnings:
            log.warning("%s", warning)
        for line in lines:
            log.info("%s changed %s", self._name, line)
        waiting = _changed_elsewhere(live, wanted)
        later = [name for name in _changed_elsewhere(self._waits_for_start, wanted) if name in waiting]
        if later:
            log.warning("%s changed %s, which takes effect at the next start", self._name, ", ".join(later))
        if not lines and not later:
            log.info("the configuration was read again; nothing in it has changed")
        self._waits_for_start = wanted

    @property
    def _name(self) -> str:
        return self._file.name if self._file is not None else "environment"

    def _watched(self) -> list[Path]:
        """The configuration file, the file of rules, and the files of the operator's own policies."""
        files = [self._file] if self._file is not None else []
        if (rules := self._book.settings.routing.policy_file) is not None:
            files.append(Path(rules))
        return [*files, *local_files.files(self._book.settings.policy_paths)]

    def _refused(self, faults: str) -> None:
        """Every fault is a line, and names its place."""
        for line in faults.splitlines():
            log.error("the configuration was not taken, the one before it stays in force: %s", line)


def _mark(files: Iterable[Path]) -> Mark:
    found = []
    for file in files:
        try:
            status = os.stat(file)  # noqa: PTH116 - one call, in a thread
        except OSError:
            continue
        found.append((str(file), status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def _shown(value: Any) -> dict[str, Any]:
    """A section as JSON without secrets."""
    if isinstance(value, BaseModel):
        return masked(value)
    return {name: masked(one) for name, one in value.items()}


def _with_live(present: Section, wanted: Section, around: str = "") -> Any:
    """The present settings with those of the wanted ones that change while the gateway runs."""
    update: dict[str, Any] = {}
    for name in type(present).model_fields:
        path = f"{around}{name}"
        if path in LIVE:
            update[name] = getattr(wanted, name)
        elif any(one.startswith(f"{path}.") for one in LIVE):
            update[name] = _with_live(getattr(present, name), getattr(wanted, name), f"{path}.")
    return present.model_copy(update=update)


def _changed_elsewhere(before: BaseModel, after: BaseModel, around: str = "") -> list[str]:
    """Dotted names of the settings that differ and do not change while the gateway runs."""
    found: list[str] = []
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if f"{around}{name}" in LIVE or old == new:
            continue
        if isinstance(old, BaseModel) and isinstance(new, BaseModel):
            found += _changed_elsewhere(old, new, f"{around}{name}.")
        else:
            found.append(f"{around}{name}")
    return found
