"""What a shell text runs in the end: behind `sudo`, `env`, `sh -c`, `xargs`, `ssh`, `docker exec`, pipes into a shell, and in
the strings that a program gives to `os.system` and its like.

`read_shell` and `read_code` give every run with its plain words, and code in other languages. Pure, never raises; nesting is
bounded, and what is beyond it is named in `problem`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from msgspec import Struct

from proxy_core.detectors.shell import Command, Redirect, is_decoder, output_of, parse

MAX_DEPTH = 8
MAX_RUNS = 20_000
MAX_PIPED = 16
"""Commands of a pipe that are looked at together."""


class Run(Struct, frozen=True):
    """One program that is started."""

    name: str
    """Its name without folder and `.exe`."""
    arguments: tuple[str, ...]
    redirects: tuple[Redirect, ...] = ()
    stdin: str | None = None
    """What it reads, where that is plain to see."""
    fed_by: tuple[str, ...] = ()
    """Names of the programs before it in the pipe."""
    decoded: bool = False
    """Whether what it reads comes out of a decoder such as `base64 -d`."""
    span: tuple[int, int] = (0, 0)
    """Where it stands in the outermost text, in characters."""

    @property
    def line(self) -> str:
        return " ".join(self.arguments)


class Code(Struct, frozen=True):
    """Code of another language that is run."""

    language: str
    text: str
    span: tuple[int, int] = (0, 0)


class Reading(Struct):
    """What was found in one text."""

    runs: list[Run] = []
    codes: list[Code] = []
    problem: str | None = None


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


SHELLS = frozenset({"sh", "bash", "zsh", "dash", "ksh", "ash", "fish", "rbash", "mksh", "csh", "tcsh"})
LANGUAGES = {"python": "-c", "perl": "-e", "ruby": "-e", "node": "-e", "nodejs": "-e", "php": "-r", "lua": "-e", "deno": "eval"}
_PREFIXES: dict[str, tuple[frozenset[str], int]] = {
    "sudo": (_set("-u -g -h -p -C -T -D -R -r -t -U --user --group --host --prompt --chdir"), 0),
    "doas": (frozenset({"-u", "-C"}), 0),
    "env": (frozenset({"-u", "-C", "--unset", "--chdir"}), 0),
    "nohup": (frozenset(), 0),
    "nice": (frozenset({"-n", "--adjustment"}), 0),
    "ionice": (frozenset({"-c", "-n", "-p", "--class", "--classdata"}), 0),
    "time": (frozenset({"-f", "-o"}), 0),
    "timeout": (frozenset({"-s", "-k", "--signal", "--kill-after"}), 1),
    "stdbuf": (frozenset({"-i", "-o", "-e"}), 0),
    "setsid": (frozenset(), 0),
    "exec": (frozenset({"-a"}), 0),
    "command": (frozenset(), 0),
    "builtin": (frozenset(), 0),
    "xargs": (_set("-I -n -P -L -d -s -a -E --max-args --max-procs --replace --delimiter --arg-file"), 0),
    "parallel": (frozenset({"-j", "--jobs", "-I", "--colsep"}), 0),
    "watch": (frozenset({"-n", "--interval"}), 0),
    "chroot": (frozenset(), 1),
    "flock": (frozenset({"-w", "-E", "--timeout"}), 1),
    "strace": (frozenset({"-o", "-e", "-p", "-s"}), 0),
    "busybox": (frozenset(), 0),
    "toybox": (frozenset(), 0),
    "gosu": (frozenset(), 1),
    "su-exec": (frozenset(), 1),
    "pkexec": (frozenset({"--user"}), 0),
    "nsenter": (frozenset({"-t", "--target", "-S", "-G"}), 0),
    "unshare": (frozenset(), 0),
    "systemd-run": (frozenset({"-p", "--unit", "--property", "-u"}), 0),
    "proxychains": (frozenset({"-f"}), 0),
    "proxychains4": (frozenset({"-f"}), 0),
    "caffeinate": (frozenset({"-t", "-w"}), 0),
    "winpty": (frozenset(), 0),
    "chronic": (frozenset(), 0),
    "unbuffer": (frozenset(), 0),
}
"""Programs that start another: which of their options take a value, and how many words stand before the other one."""
_RUNNERS = frozenset({"uv", "poetry", "pipenv", "pdm", "hatch", "bundle", "mise", "conda", "rye"})
_CONTAINERS = frozenset({"docker", "podman", "nerdctl", "docker-compose", "podman-compose", "kubectl", "oc"})
_CONTAINER_VALUES = _set(
    "-e --env -u --user -w --workdir -v --volume --name -p --publish --network --net -n --namespace -c --container "
    "--context --kubeconfig -f --file --project-name --profile --env-file --entrypoint --mount --platform --index"
)
_SSH_VALUES = _set("-b -c -D -E -e -F -I -i -J -L -l -m -O -o -p -Q -R -S -W -w")


def read_shell(text: str) -> Reading:
    """Everything that a shell text runs."""
    reading = Reading([], [], None)
    _read(text, reading, 0, None)
    return reading


def read_code(text: str, language: str = "") -> Reading:
    """A program's text, and the commands that it gives to a shell."""
    reading = Reading([], [], None)
    _take_code(language, text, reading, 0, (0, min(len(text), 200)))
    return reading


def read_words(words: Sequence[str]) -> Reading:
    """A program and its arguments as they stand, without a shell."""
    reading = Reading([], [], None)
    _unwrap(Command(tuple(words)), reading, 0, (0, 0), (), None)
    return reading


def _read(text: str, reading: Reading, depth: int, span: tuple[int, int] | None) -> None:
    if depth > MAX_DEPTH or len(reading.runs) > MAX_RUNS:
        reading.problem = "the command is nested too deeply"
        return
    script = parse(text)
    reading.problem = reading.problem or script.problem
    for pipeline in script.pipelines:
        for number, command in enumerate(pipeline):
            _unwrap(command, reading, depth, span or command.span, pipeline[max(0, number - MAX_PIPED) : number], None)


def _unwrap(
    command: Command,
    reading: Reading,
    depth: int,
    span: tuple[int, int],
    before: tuple[Command, ...],
    words: tuple[str, ...] | None,
) -> None:
    """Record the command, and whatever it starts."""
    rest = list(command.words if words is None else words)
    if depth > MAX_DEPTH or len(reading.runs) > MAX_RUNS:
        reading.problem = "the command is nested too deeply"
        return
    while rest:
        stripped = _without_prefix(rest)
        if stripped is None:
            break
        if stripped and stripped[0] == "\0":
            _read(" ".join(stripped[1:]), reading, depth + 1, span)
            return
        if rest[0].endswith("xargs") and stripped:
            printed = output_of(before)
            stripped = [*stripped, *(["$(stdin)"] if printed is None else printed.split())]
        rest = stripped
    if not rest:
        if command.redirects:
            reading.runs.append(Run("", (), command.redirects, command.stdin, (), False, span))
        return
    name = program_name(rest[0])
    stdin = command.stdin if command.stdin is not None else output_of(before) if before else None
    fed_by = tuple(program_name(one.words[0]) for one in before if one.words)
    decoded = any(is_decoder(one) for one in before)
    run = Run(name, tuple(rest[1:]), command.redirects, stdin, fed_by, decoded, span)
    reading.runs.append(run)
    _follow(run, command, reading, depth)


def program_name(word: str) -> str:
    """`/bin/rm` and `rm.exe` are `rm`."""
    name = word.replace("\\", "/").rsplit("/", 1)[-1] if not word.endswith("/") else word
    return name[:-4] if name.lower().endswith(".exe") else name


def _without_prefix(words: list[str]) -> list[str] | None:
    """What a program such as `sudo` starts; None where the first word is no such program."""
    name = program_name(words[0])
    if name in _RUNNERS and len(words) > 2 and words[1] in ("run", "exec"):
        return _without_options(words[2:], frozenset({"-n", "--with", "--python", "-p"}), assignments=False)
    if name in ("npx", "bunx", "pnpx", "uvx"):
        return _without_options(words[1:], frozenset({"-p", "--package", "--from"}), assignments=False)
    known = _PREFIXES.get(name)
    if known is None:
        return None
    valued, positional = known
    if name == "command" and len(words) > 1 and words[1] in ("-v", "-V"):
        return []
    if name == "env":
        for at, word in enumerate(words[1:], 1):
            if word in ("-S", "--split-string"):
                return ["\0", *words[at + 1 :]]
            if word.startswith("-S") and len(word) > 2:
                return ["\0", word[2:], *words[at + 1 :]]
    if name in ("watch", "parallel"):
        return ["\0", *_without_options(words[1:], valued, assignments=False)]
    rest = _without_options(words[1:], valued, assignments=name in ("env", "sudo"))[positional:]
    if name == "flock" and rest[:1] == ["-c"]:
        return ["\0", *rest[1:]]
    return rest


def _without_options(words: list[str], valued: frozenset[str], *, assignments: bool) -> list[str]:
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            return words[at + 1 :]
        if word.startswith("-") and len(word) > 1:
            at += 2 if word in valued else 1
        elif assignments and re.match(r"[A-Za-z_][A-Za-z0-9_]*=", word):
            at += 1
        else:
            break
    return words[at:]


def _follow(run: Run, command: Command, reading: Reading, depth: int) -> None:
    """What a shell, an interpreter, a remote shell or a container runs."""
    name, arguments = run.name, list(run.arguments)
    language = _language(name)
    inner: str | None = None
    if name in SHELLS or name in ("su", "runuser", "script"):
        inner = _option_value(arguments, "c")
        if inner is None and name in SHELLS and all(word.startswith("-") for word in arguments):
            inner = run.stdin
        if inner is None and name in SHELLS:
            inner = next((word[2:-1] for word in arguments if word.startswith("<$(")), None)
            inner = None if inner is None else _printed(inner)
    elif name == "eval":
        inner = " ".join(arguments)
    elif name == "trap" and arguments:
        inner = arguments[0]
    elif name == "tmux" or name == "screen":
        inner = "\n".join(word for word in arguments if " " in word)
    elif name == "ssh":
        inner = " ".join(
            _without_options(_without_options(arguments, _SSH_VALUES, assignments=False)[1:], frozenset(), assignments=False)
        )
    elif name in ("cmd", "powershell", "pwsh"):
        inner = _windows_command(arguments)
    elif name == "git":
        inner = "\n".join(word.split("=!", 1)[1] for word in arguments if word.startswith("alias.") and "=!" in word)
    elif name in _CONTAINERS:
        started = _in_container(arguments)
        if started:
            _unwrap(command, reading, depth + 1, run.span, (), tuple(started))
    elif name in ("find", "fd", "fdfind"):
        for started in _executed_by_find(arguments):
            _unwrap(command, reading, depth + 1, run.span, (), tuple(started))
    if inner and inner.strip():
        _read(inner, reading, depth + 1, run.span)
    if language:
        text = _option_value(arguments, LANGUAGES[language].lstrip("-")) if language != "deno" else " ".join(arguments[1:])
        if text is None and all(word.startswith("-") for word in arguments):
            text = run.stdin
        if text:
            _take_code(language, text, reading, depth, run.span)
    elif name in ("awk", "gawk", "mawk"):
        _take_code("awk", " ".join(arguments), reading, depth, run.span)


def _printed(inner: str) -> str | None:
    script = parse(inner)
    return output_of(script.pipelines[0]) if len(script.pipelines) == 1 else None


def _language(name: str) -> str:
    if re.fullmatch(r"(?:python|pypy|ipython)[0-9.]*w?", name) or name == "py":
        return "python"
    return name if name in LANGUAGES else ""


def _option_value(arguments: list[str], letter: str) -> str | None:
    """The value of `-c`, also in `-lc`."""
    for at, word in enumerate(arguments):
        if word == "--":
            return None
        if word.startswith("--"):
            if word == "--command" and at + 1 < len(arguments):
                return arguments[at + 1]
            continue
        if word.startswith("-") and letter in word[1:]:
            tail = word[1:].partition(letter)[2]
            if at + 1 < len(arguments):
                return arguments[at + 1]
            return tail or None
    return None


def _windows_command(arguments: list[str]) -> str:
    for at, word in enumerate(arguments):
        if word.lower() in ("/c", "/k", "-c", "-command", "/command"):
            return " ".join(arguments[at + 1 :])
    return ""


def _in_container(arguments: list[str]) -> list[str]:
    """The command of `docker exec`, `docker run`, `docker compose exec` and `kubectl exec`."""
    rest = arguments
    if rest[:1] == ["compose"]:
        rest = rest[1:]
    rest = _without_options(rest, _CONTAINER_VALUES, assignments=False)
    if rest[:1] == ["container"]:
        rest = rest[1:]
    if not rest or rest[0] not in ("exec", "run"):
        return []
    if "--" in rest:
        return rest[rest.index("--") + 1 :]
    return _without_options(rest[1:], _CONTAINER_VALUES, assignments=False)[1:]


def _executed_by_find(arguments: list[str]) -> list[list[str]]:
    found: list[list[str]] = []
    at = 0
    while at < len(arguments):
        if arguments[at] in ("-exec", "-execdir", "-ok", "-okdir", "-x", "-X", "--exec", "--exec-batch"):
            end = at + 1
            while end < len(arguments) and arguments[end] not in (";", "+"):
                end += 1
            found.append(arguments[at + 1 : end])
            at = end
        at += 1
    return [one for one in found if one]


_CALL = re.compile(
    r"(?:\bos\.(?:system|popen|exec[lv]\w*|spawn\w*)|\bsubprocess\.\w+|\bPopen|\bcheck_output|\bcheck_call|\bgetoutput"
    r"|\bexecFileSync|\bexecFile|\bexecSync|\bspawnSync|\bspawn|\bshell_exec|\bpassthru|\bproc_open|\bpopen|\bsystem"
    r"|\bchild_process\.\w+|\bexec|\bOpen3\.\w+|\bos\.posix_spawn\w*|\bpty\.spawn)\s{0,4}[\( ]"
)
_LITERAL = re.compile(
    r"[rbfuRBFU]{0,2}(?:'''(.{0,20000}?)'''|\"\"\"(.{0,20000}?)\"\"\"|'((?:[^'\\\n]|\\.){0,20000})'|\"((?:[^\"\\\n]|\\.){0,20000})\"|`([^`]{0,20000})`)",
    re.DOTALL,
)
_SHELL_LINE = re.compile(r"^\s{0,40}[!%](?:sh\b|bash\b)?\s?([^\n=].{0,4000})$", re.MULTILINE)
_BACKTICKS = re.compile(r"`([^`\n]{1,4000})`|%x[({\[]([^)}\]\n]{1,4000})[)}\]]")
_MARK = re.compile(r"[()\[\]{}'\"`\n]")
_FIRST_NAME = re.compile(r"\s{0,40}[\[(]?\s{0,40}([A-Za-z_]\w{0,80})")
_WINDOW_CHARS = 2_000
_MAX_CALLS = 200


def _take_code(language: str, text: str, reading: Reading, depth: int, span: tuple[int, int]) -> None:
    reading.codes.append(Code(language, text, span))
    shells: list[str] = []
    for number, call in enumerate(_CALL.finditer(text)):
        if number >= _MAX_CALLS:
            reading.problem = reading.problem or "the code starts too many programs"
            break
        shells += _given(text, call.end())
    if language == "python":
        shells += [found[1] for found in _SHELL_LINE.finditer(text)]
    if language in ("ruby", "perl", "php"):
        shells += [found[1] or found[2] for found in _BACKTICKS.finditer(text)]
    for shell in shells:
        _read(shell, reading, depth + 1, span)


def _given(text: str, at: int) -> list[str]:
    """The shell texts that a call's arguments may be: the first string, and all strings as words."""
    end = min(len(text), at + _WINDOW_CHARS)
    literals: list[str] = []
    position = at
    nesting = 1
    while nesting > 0 and (mark := _MARK.search(text, position, end)):
        letter = mark.group()
        position = mark.end()
        if letter in "([{":
            nesting += 1
        elif letter in ")]}":
            nesting -= 1
        elif letter == "\n":
            if nesting <= 1 and literals:
                break
        elif literal := _LITERAL.match(text, mark.start()):
            literals.append(next((group for group in literal.groups() if group is not None), ""))
            position = literal.end()
    if not literals:
        name = _FIRST_NAME.match(text, at)
        assigned = re.search(rf"\b{name[1]}\s{{0,40}}=\s{{0,40}}", text) if name else None
        if assigned:
            literal = _LITERAL.match(text, assigned.end())
            if literal:
                return [next((group for group in literal.groups() if group is not None), "")]
            listed = text[assigned.end() : assigned.end() + 1]
            return _given(text, assigned.end() + 1) if listed == "[" else []
        return []
    unescaped = [literal.replace("\\n", "\n").replace('\\"', '"').replace("\\'", "'") for literal in literals]
    return [unescaped[0]] if len(unescaped) == 1 else [unescaped[0], shlex.join(unescaped)]
