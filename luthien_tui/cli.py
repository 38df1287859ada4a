"""The `luthien` command: what each sub-command is called and takes.

Textual is imported only when a screen starts, and everything else only by the command that needs it. An error on purpose is
one line `luthien: …` on stderr and the exit code of its class; a defect leaves its trace in the log file.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from luthien_tui.commands import config_group, keys_group, policies_group, route_group
from luthien_tui.commands.ending import complain, crashed, flush, silence
from luthien_tui.commands.export_command import export
from luthien_tui.commands.given import SERVING, STORED, AsJson, Given, takes
from luthien_tui.commands.replay_command import replay
from proxy_core.errors import ExitCode, LuthienError

app = typer.Typer(
    name="luthien",
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(config_group.group, name="config")
app.add_typer(policies_group.group, name="policies")
app.add_typer(keys_group.group, name="keys")
app.add_typer(route_group.group, name="route")

UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
"""Base of every complaint about the command line; its module moves between versions of typer."""

FLUSH_S = 1.0
"""A terminal has so long to take the last words."""

ShowVersion = Annotated[bool, typer.Option("--version", "-v", help="Print the version and exit.")]


@app.callback(invoke_without_command=True)
@takes(*SERVING)
def root(context: typer.Context, given: Given, version: ShowVersion = False) -> None:
    """A control room for AI agents: an LLM gateway, and its live screen.

    Point your SDK at http://127.0.0.1:4000 (`luthien env` prints the lines) and watch its traffic.

    \b
    Examples:
      luthien                        gateway and screen
      luthien --no-ui --port 8080    gateway alone
      luthien demo                   look around without a key or network
      luthien --base-url http://localhost:8000 --type openai
    """
    context.obj = given
    if version:
        _print_version(as_json=False)
        raise typer.Exit(ExitCode.OK)
    if context.invoked_subcommand is None:
        raise typer.Exit(_serve(given))


@app.command()
@takes(*SERVING)
def run(given: Given) -> None:
    """Start gateway and screen; the same as `luthien` alone.

    \b
    Example:
      luthien run --config luthien.yaml --no-ui
    """
    raise typer.Exit(_serve(given))


@app.command()
@takes("screen", "host", "port", "log_level", "no_mouse", "control_port")
def demo(given: Given) -> None:
    """Look around: a built-in upstream and a few agents at work, no key, no network, nothing kept.

    \b
    Example:
      luthien demo
    """
    raise typer.Exit(_serve(given, demo=True))


@app.command()
@takes("config", "host", "port")
def env(
    given: Given,
    shell: Annotated[str | None, typer.Option("--shell", metavar="NAME", help="sh, fish or powershell [from SHELL].")] = None,
    unset: Annotated[bool, typer.Option("--unset", help="Print the lines that undo it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the lines that point SDKs and coding agents at luthien.

    \b
    Examples:
      eval "$(luthien env)"
      luthien env --shell fish | source
      eval "$(luthien env --unset)"
    """
    from luthien_tui.commands.env import print_env

    print_env(given.load().settings, os.environ, shell=shell, unset=unset, as_json=as_json)


@app.command()
@takes("config", "host", "port", "data_dir", "database_url")
def doctor(given: Given, as_json: AsJson = False) -> None:
    """Check what luthien needs, with a fix for whatever is wrong. Exits 1 if something failed.

    \b
    Examples:
      luthien doctor
      luthien doctor --json
    """
    from luthien_tui.commands.doctor import run_doctor

    raise typer.Exit(run_doctor(given, as_json=as_json))


@app.command()
@takes(*STORED)
def log(
    given: Given,
    filter_text: Annotated[
        str, typer.Option("--filter", metavar="EXPR", help="Only these, such as 'status>=400 model:gpt-*'.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one transaction a line.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones until ctrl+c.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, metavar="N", help="At most this many of the latest.")] = 50,
    body: Annotated[bool, typer.Option("--body", help="With the recorded bodies.")] = False,
) -> None:
    """Read the journal: recorded transactions, oldest first.

    \b
    Examples:
      luthien log --filter 'status>=400'
      luthien log --follow --json | jq .model
    """
    from luthien_tui.commands.log import run_log

    raise typer.Exit(run_log(given, filter_text, as_json=as_json, follow=follow, limit=limit, body=body))


@app.command()
@takes(*STORED)
def usage(
    given: Given,
    by: Annotated[
        str,
        typer.Option(
            "--by", metavar="NAMES", help="session, agent, model, key, user, upstream, day, workflow, or several: day,model."
        ),
    ] = "day",
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="From then on: 7d, 36h, or 2026-01-31 in UTC.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Up to then.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, metavar="N", help="At most this many lines.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Sum tokens and cost of recorded traffic.

    \b
    Examples:
      luthien usage --by model --since 7d
      luthien usage --by day,agent --json
    """
    from luthien_tui.commands.usage import run_usage

    raise typer.Exit(run_usage(given, by=by, since=since, until=until, limit=limit, as_json=as_json))


app.command("replay")(replay)
app.command("export")(export)


@app.command("generate-config")
def generate_config(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write; - is stdout.")],
    api: Annotated[
        str | None, typer.Option("--type", metavar="API", help="With one upstream: openai, anthropic or ollama [all three].")
    ] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", metavar="URL", help="Its address.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a file of settings to begin with: valid, with every default and what it means in comments.

    \b
    Examples:
      luthien generate-config luthien.yaml
      luthien generate-config - --type anthropic
    """
    from luthien_tui.commands.generate import write_config

    raise typer.Exit(write_config(path, api=api, base_url=base_url, force=force))


@app.command("validate-config")
def validate_config(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to check.")], as_json: AsJson = False
) -> None:
    """Check a file of settings and its policies; every fault is one line with its place. Exits 2 if there is one.

    \b
    Example:
      luthien validate-config luthien.yaml
    """
    from luthien_tui.commands.validate import validate

    raise typer.Exit(validate(path, as_json=as_json))


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
        return complain(str(fault), fault.exit_code)
    except UsageError as fault:
        command = getattr(getattr(fault, "ctx", None), "command_path", "luthien")
        message = fault.format_message() if hasattr(fault, "format_message") else str(fault)
        if not message.strip() or type(fault).__name__ == "NoArgsIsHelpError":
            print(message)
            return ExitCode.USAGE
        return complain(
            f"{' '.join(message.split()).replace('Value error, ', '').rstrip('.')}. Try '{command} --help'.", ExitCode.USAGE
        )
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        silence(sys.stdout)
        return ExitCode.OK
    except SystemExit as ending:
        if not isinstance(ending.__context__, BrokenPipeError):
            raise
        silence(sys.stdout)  # typer's own end where nobody reads any more
        return ExitCode.OK
    except Exception as defect:
        return crashed(defect)


def main() -> None:
    """The console script."""
    code = int(run_cli(sys.argv[1:]))
    flushing = threading.Thread(target=flush, daemon=True)
    flushing.start()
    flushing.join(timeout=FLUSH_S)
    if flushing.is_alive() or (code == ExitCode.CRASH and threading.active_count() > 1):
        os._exit(code)  # a terminal that takes nothing, or a thread that a defect left behind, must not keep the process
    sys.exit(code)


if __name__ == "__main__":
    main()
