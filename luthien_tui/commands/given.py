"""Options that more than one command takes, defined once, and the settings they lead to.

A command names those that it takes: `@takes("config", "data_dir")`. It gets them as one `given`, in which those that stood
before the sub-command count too: `luthien --port 1 env` is `luthien env --port 1`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from proxy_core.settings_sources import LoadedSettings, load, working_dotenv

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML file of settings; LUTHIEN_CONFIG names one too.")
]
_Host = Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on [127.0.0.1].")]
_Port = Annotated[int | None, typer.Option("--port", metavar="N", help="Port to listen on; 0 takes a free one [4000].")]
_ControlPort = Annotated[
    int | None, typer.Option("--control-port", metavar="N", help="Port of the control API; 0 takes a free one [4001].")
]
_DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="FOLDER", help="Folder of the journal, keys and logs; LUTHIEN_DATA_DIR too.")
]
_DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", metavar="URL", help="Journal elsewhere: postgresql+asyncpg://… or sqlite+aiosqlite:///PATH."),
]
_BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", help="Use this one upstream; with --type, or where just one is configured."),
]
_UpstreamType = Annotated[str | None, typer.Option("--type", metavar="API", help="Its API: openai, anthropic or ollama.")]
_ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", help="Key where the client sends none; other users of the machine can see it here."),
]
_LogLevel = Annotated[str | None, typer.Option("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR [INFO].")]
_NoMouse = Annotated[bool, typer.Option("--no-mouse", help="Leave the mouse to the terminal.")]
_Screen = Annotated[bool | None, typer.Option("--ui/--no-ui", help="Insist on the screen, or do without [screen in a terminal].")]
_OPTIONS: dict[str, Any] = {
    "screen": _Screen,
    "config": _Config,
    "host": _Host,
    "port": _Port,
    "data_dir": _DataDir,
    "database_url": _DatabaseUrl,
    "base_url": _BaseUrl,
    "type": _UpstreamType,
    "api_key": _ApiKey,
    "log_level": _LogLevel,
    "no_mouse": _NoMouse,
    "control_port": _ControlPort,
}
"""By the field of `Given` that each one sets."""
SERVING = tuple(_OPTIONS)
"""What a command takes that starts the gateway."""
STORED = ("config", "data_dir", "database_url")
"""What a command takes that reads or writes the store."""


@dataclass(frozen=True)
class Given:
    """What the command line said; None where it said nothing."""

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    data_dir: Path | None = None
    database_url: str | None = None
    base_url: str | None = None
    type: str | None = None
    api_key: str | None = None
    log_level: str | None = None
    no_mouse: bool = False
    screen: bool | None = None
    control_port: int | None = None

    def over(self, outer: Given | None) -> Given:
        """These options, and those of `outer` where nothing was said: `luthien --port 1 env` is `luthien env --port 1`."""
        if outer is None:
            return self
        said = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None and value is not False}
        if self.screen is False:
            said["screen"] = False
        return replace(outer, **said)

    def config_file(self) -> Path | None:
        """The file of settings that was named."""
        named = os.environ.get("LUTHIEN_CONFIG")
        return self.config or (Path(named) if named else None)

    def load(self) -> LoadedSettings:
        """Settings from every source. Raises ConfigurationError."""
        overrides: dict[str, object] = {
            "server.host": self.host,
            "server.port": self.port,
            "control.port": self.control_port,
            "data_dir": str(self.data_dir.expanduser().absolute()) if self.data_dir is not None else None,
            "journal.database_url": self.database_url,
            "logging.level": self.log_level,
            "ui.mouse": False if self.no_mouse else None,
            "base_url": self.base_url,
            "type": self.type,
            "api_key": self.api_key,
        }
        return load(self.config_file(), overrides, os.environ, working_dotenv())


def takes(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options behind its own, and hand them to it as `given`."""

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "given"]
        here = [one for one in own if one.annotation is typer.Context]

        @wraps(command)
        def run(*, context: typer.Context, **values: Any) -> None:
            given = Given(**{name: values.pop(name) for name in names}).over(context.find_root().obj)
            command(given=given, **values, **({"context": context} if here else {}))

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("context", keyword, annotation=typer.Context),
            *(one.replace(kind=keyword) for one in own if one not in here),
            *(
                inspect.Parameter(name, keyword, annotation=_OPTIONS[name], default=False if name == "no_mouse" else None)
                for name in names
            ),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return with_options
