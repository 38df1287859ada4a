"""The `luthien` command: what each sub-command is called and takes.

Textual is imported only when a screen starts, and everything else only by the command that needs it. An error on purpose is
one line `luthien: …` on stderr and the exit code of its class; a defect leaves its trace in the log file.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, TextIO

import typer

from luthien_tui.commands.given import (
    ApiKey,
    AsJson,
    BaseUrl,
    Config,
    ControlPort,
    DatabaseUrl,
    DataDir,
    Given,
    Host,
    LogLevel,
    NoMouse,
    Port,
    Screen,
    UpstreamType,
)
from proxy_core.errors import ExitCode, LuthienError

app = typer.Typer(
    name="luthien",
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(rich_markup_mode=None, help="Look at the settings.", no_args_is_help=True)
app.add_typer(config_app, name="config")
policies_app = typer.Typer(rich_markup_mode=None, help="See, try and write policies.", no_args_is_help=True)
app.add_typer(policies_app, name="policies")

keys_app = typer.Typer(rich_markup_mode=None, help="Make, list and revoke keys for clients.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
route_app = typer.Typer(rich_markup_mode=None, help="See where requests go, and why.", no_args_is_help=True)
app.add_typer(route_app, name="route")

UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
"""Base of every complaint about the command line; its module moves between versions of typer."""

FLUSH_S = 1.0
"""A terminal has so long to take the last words."""

ShowVersion = Annotated[bool, typer.Option("--version", help="Print the version and exit.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    screen: Screen = None,
    config: Config = None,
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    base_url: BaseUrl = None,
    upstream_type: UpstreamType = None,
    api_key: ApiKey = None,
    log_level: LogLevel = None,
    no_mouse: NoMouse = False,
    control_port: ControlPort = None,
    version: ShowVersion = False,
) -> None:
    """A control room for AI agents: an LLM gateway, and its live screen.

    Point your SDK at http://127.0.0.1:4000 (`luthien env` prints the lines) and watch its traffic.

    \b
    Examples:
      luthien                        gateway and screen
      luthien --no-ui --port 8080    gateway alone
      luthien demo                   look around without a key or network
      luthien --base-url http://localhost:8000 --type openai
    """
    given = Given(
        config, host, port, data_dir, database_url, base_url, upstream_type, api_key, log_level, no_mouse, screen, control_port
    )
    context.obj = given
    if version:
        _print_version(as_json=False)
        raise typer.Exit(ExitCode.OK)
    if context.invoked_subcommand is None:
        raise typer.Exit(_serve(given))


@app.command()
def run(
    context: typer.Context,
    screen: Screen = None,
    config: Config = None,
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    base_url: BaseUrl = None,
    upstream_type: UpstreamType = None,
    api_key: ApiKey = None,
    log_level: LogLevel = None,
    no_mouse: NoMouse = False,
    control_port: ControlPort = None,
) -> None:
    """Start gateway and screen; the same as `luthien` alone.

    \b
    Example:
      luthien run --config luthien.yaml --no-ui
    """
    given = Given(
        config, host, port, data_dir, database_url, base_url, upstream_type, api_key, log_level, no_mouse, screen, control_port
    )
    raise typer.Exit(_serve(given.over(context.obj)))


@app.command()
def demo(
    context: typer.Context,
    screen: Screen = None,
    host: Host = None,
    port: Port = None,
    log_level: LogLevel = None,
    no_mouse: NoMouse = False,
    control_port: ControlPort = None,
) -> None:
    """Look around: a built-in upstream and a few agents at work, no key, no network, nothing kept.

    \b
    Example:
      luthien demo
    """
    given = Given(host=host, port=port, log_level=log_level, no_mouse=no_mouse, screen=screen, control_port=control_port)
    raise typer.Exit(_serve(given.over(context.obj), demo=True))


@app.command()
def env(
    context: typer.Context,
    shell: Annotated[str | None, typer.Option("--shell", metavar="NAME", help="sh, fish or powershell [from SHELL].")] = None,
    unset: Annotated[bool, typer.Option("--unset", help="Print the lines that undo it.")] = False,
    as_json: AsJson = False,
    config: Config = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Print the lines that point SDKs and coding agents at luthien.

    \b
    Examples:
      eval "$(luthien env)"
      luthien env --shell fish | source
      eval "$(luthien env --unset)"
    """
    from luthien_tui.commands.env import print_env

    given = Given(config=config, host=host, port=port).over(context.obj)
    print_env(given.load().settings, os.environ, shell=shell, unset=unset, as_json=as_json)


@app.command()
def doctor(
    context: typer.Context,
    as_json: AsJson = False,
    config: Config = None,
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Check what luthien needs, with a fix for whatever is wrong. Exits 1 if something failed.

    \b
    Examples:
      luthien doctor
      luthien doctor --json
    """
    from luthien_tui.commands.doctor import run_doctor

    given = Given(config=config, host=host, port=port, data_dir=data_dir, database_url=database_url).over(context.obj)
    raise typer.Exit(run_doctor(given, as_json=as_json))


@app.command()
def log(
    context: typer.Context,
    filter_text: Annotated[
        str, typer.Option("--filter", metavar="EXPR", help="Only these, such as 'status>=400 model:gpt-*'.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one transaction a line.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones until ctrl+c.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, metavar="N", help="At most this many of the latest.")] = 50,
    body: Annotated[bool, typer.Option("--body", help="With the recorded bodies.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Read the journal: recorded transactions, oldest first.

    \b
    Examples:
      luthien log --filter 'status>=400'
      luthien log --follow --json | jq .model
    """
    from luthien_tui.commands.log import run_log

    given = Given(config=config, data_dir=data_dir, database_url=database_url).over(context.obj)
    raise typer.Exit(run_log(given, filter_text, as_json=as_json, follow=follow, limit=limit, body=body))


@config_app.command("show")
def config_show(
    context: typer.Context,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Print every setting, its value and where it came from; secrets are hidden.

    \b
    Example:
      luthien config show --config luthien.yaml
    """
    from luthien_tui.commands.config import print_settings

    given = Given(config=config, data_dir=data_dir).over(context.find_root().obj)
    print_settings(given.load(), as_json=as_json)


@policies_app.command("list")
def policies_list(context: typer.Context, as_json: AsJson = False, config: Config = None, data_dir: DataDir = None) -> None:
    """List every policy: what it does, what it holds back of a stream, and its parameters. Exits 1 if one cannot be loaded.

    \b
    Example:
      luthien policies list
    """
    from luthien_tui.commands.policies import print_policies

    settings = Given(config=config, data_dir=data_dir).over(context.find_root().obj).load().settings
    raise typer.Exit(print_policies(settings, as_json_text=as_json))


@policies_app.command("show")
def policies_show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The policy.")],
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Say all about one policy, and how it is configured.

    \b
    Example:
      luthien policies show string_replacement
    """
    from luthien_tui.commands.policies import print_policy

    settings = Given(config=config, data_dir=data_dir).over(context.find_root().obj).load().settings
    raise typer.Exit(print_policy(settings, name, as_json_text=as_json))


@policies_app.command("new")
def policies_new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the policy, such as block_swearing.")],
    folder: Annotated[Path, typer.Option("--dir", metavar="FOLDER", help="Where the files go [policies].")] = Path("policies"),
) -> None:
    """Write a policy of your own, and a test that passes; then change both.

    \b
    Example:
      luthien policies new block_swearing
    """
    from luthien_tui.commands.policies import write_policy

    raise typer.Exit(write_policy(name, folder))


@policies_app.command("test")
def policies_test(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The policy.")],
    file: Annotated[
        Path,
        typer.Option("--input", metavar="FILE", help="A request, a response, a stream, or JSON with both; - is stdin."),
    ],
    params: Annotated[str, typer.Option("--params", metavar="JSON", help="Its parameters.")] = "",
    operation: Annotated[str, typer.Option("--operation", metavar="NAME", help="The API of the file [read from it].")] = "",
    stream: Annotated[bool, typer.Option("--stream", help="Try the response as a stream.")] = False,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Run a policy on recorded bodies, and print them before and after. Nothing is sent anywhere.

    \b
    Example:
      luthien policies test string_replacement --params '{"replacements": [["foo", "bar"]]}' --input answer.json
    """
    from luthien_tui.commands.policies import try_policy

    settings = Given(config=config, data_dir=data_dir).over(context.find_root().obj).load().settings
    raise typer.Exit(try_policy(settings, name, file, params=params, operation=operation, stream=stream, as_json_text=as_json))


@policies_app.command("import")
def policies_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The other program's file.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where the configuration goes [stdout].")] = None,
) -> None:
    """Translate a file of Luthien Control, Luthien Proxy, Policy Mesh or Cylestio Perimeter into luthien's configuration.

    What has no counterpart is refused, with its place in the file.

    \b
    Example:
      luthien policies import policy.json --out luthien.yaml
    """
    from luthien_tui.commands.policies import import_policies

    raise typer.Exit(import_policies(file, out))


@keys_app.command("create")
def keys_create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called in records and limits.")],
    models: Annotated[
        str | None, typer.Option("--models", metavar="NAMES", help="Models it may use, with commas between; * is any text.")
    ] = None,
    rpm: Annotated[int | None, typer.Option("--rpm", metavar="N", help="Requests a minute.")] = None,
    tpm: Annotated[int | None, typer.Option("--tpm", metavar="N", help="Tokens a minute.")] = None,
    usd_per_day: Annotated[float | None, typer.Option("--usd-per-day", metavar="USD", help="Budget for a day (UTC).")] = None,
    usd_per_month: Annotated[
        float | None, typer.Option("--usd-per-month", metavar="USD", help="Budget for a month (UTC).")
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key and print it; it cannot be shown again. A running gateway takes it within a second.

    \b
    Example:
      luthien keys create ci --models 'gpt-4o-mini,claude-*' --rpm 60 --usd-per-day 5
    """
    from luthien_tui.commands.keys import create_key

    given = Given(config=config, data_dir=data_dir, database_url=database_url).over(context.find_root().obj)
    named = [one.strip() for one in models.split(",") if one.strip()] if models is not None else None
    limits = {"models": named, "rpm": rpm, "tpm": tpm, "usd_per_day": usd_per_day, "usd_per_month": usd_per_month}
    raise typer.Exit(create_key(given, name, limits, as_json=as_json))


@keys_app.command("list")
def keys_list(
    context: typer.Context,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """List the keys with their limits; only how each one begins is known.

    \b
    Example:
      luthien keys list
    """
    from luthien_tui.commands.keys import list_keys

    given = Given(config=config, data_dir=data_dir, database_url=database_url).over(context.find_root().obj)
    raise typer.Exit(list_keys(given, as_json=as_json))


@keys_app.command("revoke")
def keys_revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key.")],
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Refuse a key from now on. A running gateway takes it within a second.

    \b
    Example:
      luthien keys revoke ci
    """
    from luthien_tui.commands.keys import revoke_key

    given = Given(config=config, data_dir=data_dir, database_url=database_url).over(context.find_root().obj)
    raise typer.Exit(revoke_key(given, name, as_json=as_json))


@route_app.command("explain")
def route_explain(
    context: typer.Context,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model that is asked for.")] = "",
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="What the user says.")] = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Or a whole request as JSON; - is stdin.")] = None,
    path: Annotated[str, typer.Option("--path", metavar="PATH", help="The path it is sent to.")] = "/v1/chat/completions",
    tags: Annotated[str, typer.Option("--tags", metavar="TAGS", help="Its tags, such as team:legal,debug.")] = "",
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Say which rule decides where a request goes, and what every other rule says of it. Nothing is sent.

    \b
    Example:
      luthien route explain --model gpt-4o-mini --prompt 'What is the capital of France?'
    """
    from luthien_tui.commands.route import print_explanation

    settings = Given(config=config, data_dir=data_dir).over(context.find_root().obj).load().settings
    raise typer.Exit(print_explanation(settings, path=path, model=model, prompt=prompt, file=file, tags=tags, as_json=as_json))


@route_app.command("what-if")
def route_what_if(
    context: typer.Context,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A changed rule; may be given again.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=5_000, help="How many of the latest to look at.")
    ] = 1_000,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Say which recorded transactions changed rules would have sent elsewhere, and what that would have cost.

    \b
    Example:
      luthien route what-if --set cost.max_prompt_length_for_local=500
    """
    from luthien_tui.commands.route_what_if import print_what_if

    settings = Given(config=config, data_dir=data_dir).over(context.find_root().obj).load().settings
    raise typer.Exit(print_what_if(settings, changes or [], limit=limit, as_json=as_json))


@app.command("validate-config")
def validate_config(path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to check.")]) -> None:
    """Check a file of settings and its policies; every fault is one line with its place. Exits 2 if there is one.

    \b
    Example:
      luthien validate-config luthien.yaml
    """
    from luthien_tui.commands.config import check_policies

    check_policies(Given(config=path).load())
    print(f"{path} is valid")


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the version.

    \b
    Example:
      luthien version --json
    """
    _print_version(as_json=as_json)


def _print_version(*, as_json: bool) -> None:
    import platform

    from proxy_core import __version__

    if as_json:
        import json

        print(json.dumps({"luthien": __version__, "python": platform.python_version()}))
    else:
        print(f"luthien {__version__}")


def _serve(given: Given, *, demo: bool = False) -> int:
    from luthien_tui.launch import serve

    return serve(given, demo=demo)


def run_cli(arguments: list[str]) -> int:
    """Run one command line; returns the exit code and never raises."""
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="luthien", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else ExitCode.OK
    except LuthienError as fault:
        return _complain(str(fault), fault.exit_code)
    except UsageError as fault:
        command = getattr(getattr(fault, "ctx", None), "command_path", "luthien")
        message = fault.format_message() if hasattr(fault, "format_message") else str(fault)
        if not message.strip() or type(fault).__name__ == "NoArgsIsHelpError":
            print(message)
            return ExitCode.USAGE
        return _complain(f"{' '.join(message.split())} Try '{command} --help'.", ExitCode.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        _silence(sys.stdout)
        return ExitCode.OK
    except Exception as defect:
        return _crashed(defect)


def _complain(message: str, code: int) -> int:
    from proxy_core.logs import escaped, redact

    for line in message.splitlines() if sys.stderr is not None else ():
        print(f"luthien: {escaped(redact(line))}", file=sys.stderr)
    return code


def _crashed(defect: Exception) -> int:
    import logging
    import traceback

    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
    files = [handler for handler in handlers if Path(handler.baseFilename).exists()]
    logging.getLogger("luthien").critical("ended by a defect", exc_info=defect)
    place = f"the trace is in {files[0].baseFilename}" if files else "the trace follows"
    code = _complain(f"a defect: {type(defect).__name__}: {' '.join(str(defect).split())}; {place}", ExitCode.CRASH)
    if not files:
        traceback.print_exception(defect)
    return code


def _silence(stream: TextIO | None) -> None:
    """Whoever read the output left; keep the interpreter from complaining about it at exit."""
    if stream is None:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            _silence(stream)


def main() -> None:
    """The console script."""
    code = int(run_cli(sys.argv[1:]))
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    flushing.join(timeout=FLUSH_S)
    if flushing.is_alive() or (code == ExitCode.CRASH and threading.active_count() > 1):
        os._exit(code)  # a terminal that takes nothing, or a thread that a defect left behind, must not keep the process
    sys.exit(code)


if __name__ == "__main__":
    main()
