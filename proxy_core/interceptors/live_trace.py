"""`live_trace`: the settings of Cylestio's dashboard, understood and answered by what luthien has in its place.

There is no second server and nothing is downloaded: the screen, the control API and the journal do its work. Every key is
checked; those that are set are named in the log at the start, with where to set the like.
"""

from __future__ import annotations

import logging
from typing import Literal

from pydantic import Field

from proxy_core.interceptors.base import Config


class LiveTraceConfig(Config):
    server_port: int = Field(default=7100, ge=0, le=65_535)
    """Port of the dashboard. Here: `control.port`."""
    server_host: str = "127.0.0.1"
    """Its address. Here: `control.host`."""
    auto_open_browser: bool = True
    """Here: nothing opens, the screen is in the terminal."""
    max_events: int = Field(default=10_000, ge=1)
    """Events kept. Here: `ui.rows` on screen, everything in the journal."""
    retention_minutes: float = Field(default=30, gt=0)
    """Time that they are kept. Here: the journal keeps them."""
    refresh_interval: float = Field(default=2, gt=0)
    """Here: the screen follows at once."""
    storage_mode: Literal["memory", "sqlite"] = "memory"
    """Here: always stored, in the journal."""
    db_path: str = "./trace_data/live_trace.db"
    """File of the store. Here: `journal.database_url`."""
    enable_presidio: bool = True
    """Here: the detectors are built in."""
    session_completion_timeout: float = Field(default=30, gt=0, le=86_400)
    """Seconds without a request after which a session counts as ended: taken over for the event `session.end`."""
    completion_check_interval: float = Field(default=10, gt=0)
    """Here: looked at four times a second."""


_PLACES = {
    "server_port": "there is no second server; the control API has 'control.port'",
    "server_host": "there is no second server; the control API has 'control.host'",
    "auto_open_browser": "no browser opens; the screen is in the terminal",
    "max_events": "the screen has 'ui.rows', the journal keeps everything",
    "retention_minutes": "the journal keeps everything",
    "refresh_interval": "the screen follows at once",
    "storage_mode": "everything is stored, in the journal",
    "db_path": "the store has 'journal.database_url'",
    "enable_presidio": "the detectors are built in, and policies use them",
    "session_completion_timeout": "taken over: after so long without a request the event session.end comes",
    "completion_check_interval": "ends of sessions are looked for four times a second",
}
_TAKEN_OVER = frozenset({"session_completion_timeout"})


def notes(config: LiveTraceConfig) -> list[tuple[int, str]]:
    """What becomes of it, a line for each key that is set, with its level: what has no effect here is a warning."""
    lines = [
        (
            logging.INFO,
            "interceptor live_trace: the screen (views Transactions and Sessions) and the control API are its dashboard",
        )
    ]
    for name in config.model_fields_set:
        level = logging.INFO if name in _TAKEN_OVER else logging.WARNING
        lines.append((level, f"interceptor live_trace: {name}: {_PLACES[name]}"))
    return lines


def idle_of(config: LiveTraceConfig) -> float | None:
    """The idle time of sessions, where it is set."""
    return config.session_completion_timeout if "session_completion_timeout" in config.model_fields_set else None
