"""Commands that destroy data, stop what runs, or open a machine to others: found in what a tool call would run.

`read_command` takes the commands out of a tool call of any agent; `dangerous` reads one as a shell would, as far as that is
possible without running it, and gives the worst it finds with a score from 0 to 1. Pure; no list of patterns over raw text,
so a mention in quotes is not a command, and quotes, variables, wrappers and encodings do not hide one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from msgspec import Struct

from proxy_core.detectors.command_functions import BY_FUNCTION, DISK, MAX_LINE_CHARS, SYSTEM_FILE, platform
from proxy_core.detectors.command_rules import (
    BY_PROGRAM,
    CODE,
    HARMLESS,
    PLATFORMS,
    SQL,
    SQL_PROGRAMS,
)
from proxy_core.detectors.shell_runs import MAX_PIPED, SHELLS, Reading, Run, read_code, read_shell, read_words
from proxy_core.detectors.tool_arguments import Arguments, plain_letters, read_arguments, texts

UNREADABLE = 0.5
"""The score of what is too long or too deep to be read."""
_MAX_TEXT_CHARS = 1_000


class Finding(Struct, frozen=True):
    """Something found in a command."""

    rule: str
    score: float
    """0 to 1."""
    span: tuple[int, int]
    """Where, in characters of the command."""
    text: str = ""
    """The program and its arguments as they were understood, shortened."""


class ToolCommand(Struct, frozen=True):
    """Something that a tool call would run."""

    kind: Literal["shell", "words", "code", "sql"]
    text: str
    words: tuple[str, ...] = ()
    """Of `words`: program and arguments, run without a shell."""


class ToolCommands(Struct, frozen=True):
    """What a tool call would run."""

    commands: tuple[ToolCommand, ...]
    problem: str | None = None
    """Why the arguments could not be read, where the tool is one that runs commands."""


_SHELL_TOOL = re.compile(
    r"(?:^|[_.\-/: ])(?:ba|z|k|c|da|fi)?sh(?:ell)?(?:$|[_.\-/: ])|shell|terminal|exec|(?:^|_)run|command|(?:^|_)cmd"
    r"|console|subprocess"
)
_CODE_TOOL = re.compile(r"python|ipython|jupyter|notebook|code|repl|javascript|(?:^|_)node(?:$|_)|ruby|perl|script")
_SQL_TOOL = re.compile(r"sql|query|database|(?:^|_)db(?:$|_)|postgres|mongo|redis")
_COMMAND_KEYS = frozenset(
    {
        "command",
        "cmd",
        "commands",
        "cmds",
        "shell_command",
        "bash_command",
        "command_line",
        "commandline",
        "argv",
        "cmdline",
        "script",
    }
)
_CODE_KEYS = frozenset({"code", "source", "program", "python_code", "cell", "new_source"})
_SQL_KEYS = frozenset({"sql", "query", "statement", "queries", "statements"})
_PLAIN_KEYS = frozenset(
    {"description", "explanation", "reason", "thought", "workdir", "cwd", "timeout", "justification", "path", "file_path"}
)


def tool_words(name: str) -> str:
    """A tool's name in small letters with `_` between its words: `runCommand` is `run_command`."""
    plain = plain_letters(name).strip()
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain).lower()


def runs_commands(name: str) -> bool:
    """Whether a tool's name says that it runs commands or code."""
    words = tool_words(name)
    return bool(_SHELL_TOOL.search(words) or _CODE_TOOL.search(words))


def read_command(name: str, arguments: str) -> ToolCommands:
    """What a call of the tool `name` with these arguments (JSON text) would run."""
    words = tool_words(name)
    shell, code, sql = bool(_SHELL_TOOL.search(words)), bool(_CODE_TOOL.search(words)), bool(_SQL_TOOL.search(words))
    read = read_arguments(arguments)
    if read.problem is not None:
        return _unreadable(arguments, read, shell=shell, code=code)
    value = read.value
    if isinstance(value, str):
        value = {"command" if shell else "code" if code else "sql" if sql else "text": value}
    elif isinstance(value, list):
        value = {"command": value}
    if not isinstance(value, dict):
        return ToolCommands(())
    return ToolCommands(tuple(_commands(value, shell=shell, code=code, sql=sql, language=words)))


def _unreadable(arguments: str, read: Arguments, *, shell: bool, code: bool) -> ToolCommands:
    """Tools with free text as their input are read as such; JSON that broke is a problem."""
    if not (shell or code):
        return ToolCommands((), None)
    broken = arguments.lstrip()[:1] in ("{", "[", '"')
    kind: Literal["shell", "code"] = "shell" if shell else "code"
    return ToolCommands((ToolCommand(kind, arguments),), read.problem if broken else None)


def _commands(
    fields: dict[str, Any], *, shell: bool, code: bool, sql: bool, language: str, depth: int = 0
) -> Iterator[ToolCommand]:
    for key, value in fields.items():
        word = tool_words(key)
        if isinstance(value, dict) and depth < 5:
            yield from _commands(value, shell=shell, code=code, sql=sql, language=language, depth=depth + 1)
        elif word in _COMMAND_KEYS:
            yield from _given(value, code=code and not shell)
        elif word in _CODE_KEYS:
            for text in texts(value):
                yield ToolCommand("code", text)
                if shell:
                    yield ToolCommand("shell", text)
        elif word in _SQL_KEYS and (sql or shell or code):
            yield from (ToolCommand("sql", text) for text in texts(value))
        elif word not in _PLAIN_KEYS:
            if shell:
                yield from _given(value, code=False)
            elif code:
                yield from (ToolCommand("code", text) for text in texts(value))
            elif sql:
                yield from (ToolCommand("sql", text) for text in texts(value))


def _given(value: Any, *, code: bool) -> Iterator[ToolCommand]:
    """A command as text, as a list of words, or as a list of commands."""
    if isinstance(value, str):
        yield ToolCommand("code" if code else "shell", value)
    elif isinstance(value, list):
        words = tuple(item for item in value if isinstance(item, str))
        if words:
            yield ToolCommand("words", " ".join(words), words)
        for item in value:
            if isinstance(item, str) and " " in item:
                yield ToolCommand("shell", item)
            elif isinstance(item, dict | list):
                yield from (ToolCommand("shell", text) for text in texts(item))


def reading_of(command: ToolCommand) -> Reading:
    """What a command runs in the end."""
    if command.kind == "words":
        return read_words([plain_letters(word) for word in command.words])
    if command.kind == "shell":
        return read_shell(plain_letters(command.text))
    return read_code(command.text, "python") if command.kind == "code" else Reading([], [], None)


def dangerous(command: ToolCommand | str) -> Finding | None:
    """The worst thing that a command (shell text, or as `read_command` gives it) would do; None where nothing was found."""
    return worst(findings(ToolCommand("shell", command) if isinstance(command, str) else command))


def findings(command: ToolCommand) -> list[Finding]:
    """Everything dangerous that a command would do."""
    if command.kind == "sql":
        return list(_sql(command.text, (0, len(command.text))))
    reading = reading_of(command)
    found = list(_findings(reading))
    if command.kind == "shell":
        bomb = _FORK_BOMB.search(command.text[:MAX_LINE_CHARS])
        if bomb:
            found.append(Finding("fork_bomb", 1.0, bomb.span(), bomb.group()))
    if reading.problem is not None:
        found.append(Finding("unreadable", UNREADABLE, (0, len(command.text)), reading.problem))
    return found


def worst(found: Iterable[Finding]) -> Finding | None:
    """The finding with the highest score."""
    return max(found, key=lambda finding: finding.score, default=None)


def _findings(reading: Reading) -> Iterator[Finding]:
    for run in reading.runs:
        for rule, score in _rules_for(run):
            yield Finding(rule, score, run.span, f"{run.name} {run.line}".strip()[:_MAX_TEXT_CHARS])
    for code in reading.codes:
        for rule, score, expression in CODE:
            match = expression.search(code.text)
            if match:
                yield Finding(rule, score, code.span, match.group()[:_MAX_TEXT_CHARS])


def _rules_for(run: Run) -> Iterator[tuple[str, float]]:
    name, line = run.name, run.line
    if len(line) > MAX_LINE_CHARS:
        if name in BY_PROGRAM or name in BY_FUNCTION:
            yield "unreadable", UNREADABLE
        line = line[:MAX_LINE_CHARS]
    yield from _by_pipe(run)
    yield from _by_redirect(run)
    if name in ("echo", "printf", "grep", "rg", "man", "which", "type", "cat", "ls"):
        return
    if HARMLESS.search(line):
        return
    known = name if name in BY_PROGRAM else name.lower()
    subject = _git_arguments(run.arguments) if known == "git" else line
    for rule, score, expression in BY_PROGRAM.get(known, ()):
        if expression.search(subject):
            yield rule, score
    function = BY_FUNCTION.get(known)
    if function is not None:
        yield from function(run)
    if known.startswith("mkfs") or known in ("mke2fs", "mkdosfs", "mkntfs", "newfs"):
        yield "disk_format", 1.0
    if known in PLATFORMS:
        yield from platform(run)
    if known in SQL_PROGRAMS or known.upper() in _SQL_WORDS or _BARE_SHELL_CALL.match(name):
        for text in (f"{name} {line}" if known not in SQL_PROGRAMS else line, run.stdin or ""):
            yield from ((finding.rule, finding.score) for finding in _sql(text, run.span))


_SQL_WORDS = frozenset({"DROP", "TRUNCATE", "DELETE", "UPDATE", "ALTER", "FLUSHALL", "FLUSHDB", "SHUTDOWN"})
_BARE_SHELL_CALL = re.compile(r"^(?:db|rs|sh)\.")
_BARE_REDIS = re.compile(r"(?i)^(?:FLUSHALL|FLUSHDB)(?:\s+(?:A?SYNC))?\s*$|^SHUTDOWN(?:\s+(?:NO)?SAVE)\s*$")
_MAX_SQL_CHARS = 100_000
_SQL_COMMENT = re.compile(r"/\*(?:[^*]|\*(?!/)){0,4000}\*/|--[^\n]{0,4000}")


def _sql(text: str, span: tuple[int, int]) -> Iterator[Finding]:
    plain = _SQL_COMMENT.sub(" ", plain_letters(text[:_MAX_SQL_CHARS])).strip()
    for rule, score, expression in SQL:
        match = expression.search(plain)
        if match:
            yield Finding(rule, score, span, match.group()[:_MAX_TEXT_CHARS])
    if _BARE_REDIS.search(plain[:200]):
        yield Finding("database_drop", 0.8, span, plain[:100])


def _git_arguments(arguments: tuple[str, ...]) -> str:
    """Git's arguments without the options in front of its command."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        at += 2 if arguments[at] in ("-C", "-c", "--git-dir", "--work-tree", "--namespace") else 1
    return " ".join(arguments[at:])[:MAX_LINE_CHARS]


_FETCHERS = frozenset(
    {"curl", "wget", "fetch", "http", "https", "aria2c", "lynx", "Invoke-WebRequest", "iwr", "irm", "nc", "ncat"}
)
_INTERPRETER = re.compile(
    r"^(?:python|perl|ruby|node|php|osascript|pwsh|powershell|iex|Invoke-Expression|source|\.|eval)[0-9.]*$"
)


def _by_pipe(run: Run) -> Iterator[tuple[str, float]]:
    """Something fetched or decoded that is run at once."""
    interpreter = run.name in SHELLS or _INTERPRETER.match(run.name)
    if not interpreter:
        if run.name in ("su", "bash") and run.decoded:
            yield "encoded_program", 0.8
        return
    takes_input = all(word.startswith("-") or word == "/dev/stdin" for word in run.arguments)
    if run.fed_by and takes_input:
        if len(run.fed_by) >= MAX_PIPED or any(name in _FETCHERS for name in run.fed_by):
            yield "fetched_program", 0.8
        elif run.decoded:
            yield "encoded_program", 0.8
        elif run.name in SHELLS and run.fed_by[-1] == "history":
            yield "history_program", 0.6
    words = " ".join(run.arguments)[:MAX_LINE_CHARS]
    if re.search(r"[<$]\(\s*(?:sudo\s+)?(?:curl|wget|fetch)\b|`\s*(?:curl|wget)\b", words):
        yield "fetched_program", 0.8


def _by_redirect(run: Run) -> Iterator[tuple[str, float]]:
    for redirect in run.redirects:
        if ">" not in redirect.operator:
            if "/dev/tcp/" in redirect.target or "/dev/udp/" in redirect.target:
                yield "reverse_shell", 0.9
            continue
        if DISK.match(redirect.target):
            yield "disk_wipe", 1.0
        elif redirect.target.startswith(("/dev/tcp/", "/dev/udp/")):
            yield "reverse_shell", 0.9
        elif SYSTEM_FILE.match(redirect.target):
            yield "system_file", 0.9
        elif redirect.target.endswith("_history"):
            yield "cover_tracks", 0.6


_FORK_BOMB = re.compile(r"([\w:.]{1,40})\s{0,9}\(\)\s{0,9}\{\s{0,9}\1\s{0,9}\|\s{0,9}\1\s{0,9}&")
