"""What single programs do to files, disks, processes and the network, told from their arguments.

Each function gives the rules that a run meets, with their scores (see `command_rules`). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from proxy_core.detectors.command_rules import DESTRUCTIVE_WORD, MILD_WORD
from proxy_core.detectors.shell_runs import Run

MAX_LINE_CHARS = 20_000
"""A longer list of arguments counts as unreadable."""
DISK = re.compile(r"^/dev/(?:sd|hd|vd|xvd|nvme|mmcblk|disk|rdisk|md|dm-|mapper/|loop|mem\b|kmem\b|port\b)")
SYSTEM_FILE = re.compile(
    r"^/(?:etc/(?:passwd|shadow|sudoers|fstab|hosts|ssh/)|boot/|bin/|sbin/|lib|usr/(?:bin|sbin|lib)/|proc/sys|sys/)"
)


_SCRATCH = re.compile(
    r"^(?:/tmp/|/var/tmp/|/private/tmp/|\$\{?TMPDIR(?::-/tmp)?\}?/|\$\{?RUNNER_TEMP\}?/|/dev/shm/)[^/.$*][^$]*$"
)
_ARTEFACT = re.compile(
    r"(?:^|/)(?:node_modules|dist|build|target|out|coverage|htmlcov|__pycache__|\.pytest_cache|\.mypy_cache|\.ruff_cache|\.next"
    r"|\.nuxt|\.turbo|\.cache|\.parcel-cache|\.tox|\.nox|\.eggs|[\w.-]+\.egg-info|\.gradle|tmp|temp|\.venv|venv|env)(?:/\*?)?$"
    r"|\.(?:o|pyc|pyo|class|log|tmp|bak|swp|orig|rej|pid|sock|lock|out|map)$"
)
_WHOLE = re.compile(
    r"^(?:/+\.?\*?|/+\.\.?/?|~[\w-]*/?\*?|\$\{?HOME\}?/?\*?|\*|\.\*|\./?\*?|\.\./?\*?|\{\}|\$PWD/?\*?|\$\(pwd\)/?\*?|[A-Za-z]:[\\/]*\*?"
    r"|/(?:bin|boot|dev|etc|home|lib\w*|opt|proc|root|run|sbin|srv|sys|usr|var|mnt|media|Users|System|Library|Applications|tmp|private)"
    r"/?\*?|/home/[^/]+/?\*?|/Users/[^/]+/?\*?|/(?:usr|var|etc|boot|lib)/.*)$"
)
_PRECIOUS = re.compile(
    r"(?i)(?:^|/)(?:\.env[\w.]*|\.git|\.ssh|\.aws|\.kube|\.gnupg|\.github|docker-compose[\w.-]*|compose\.ya?ml|Dockerfile|Makefile"
    r"|pyproject\.toml|package\.json|[\w.-]+\.(?:db|sqlite3?|sql|pem|key|kdbx|tfstate|dump|bak\.gz))/?$"
)
_SOURCE = re.compile(
    r"\.(?:py|pyi|js|jsx|ts|tsx|go|rs|java|kt|c|h|cc|cpp|hpp|rb|php|cs|swift|scala|sh|ya?ml|toml|json|md|html|css|vue|tf)$"
)


def _rm(run: Run) -> Iterator[tuple[str, float]]:
    flags = {letter for word in run.arguments if re.match(r"-[a-zA-Z]", word) for letter in word[1:]}
    long = {word for word in run.arguments if word.startswith("--")}
    recursive = bool(flags & {"r", "R", "d"}) or "--recursive" in long
    force = "f" in flags or "--force" in long
    ended = False
    targets: list[str] = []
    for word in run.arguments:
        if word == "--" and not ended:
            ended = True
        elif ended or not word.startswith("-"):
            targets.append(word)
    if "--no-preserve-root" in long:
        yield "delete_recursively", 1.0
    for target in targets:
        tidy = re.sub(r"/{2,}", "/", re.sub(r"/(?:\./)+", "/", target))
        if _WHOLE.match(tidy) and not _SCRATCH.match(tidy):
            yield ("delete_recursively", 1.0) if recursive else ("delete_file", 0.7 if "*" in tidy or force else 0.5)
        elif _SCRATCH.match(tidy) and ".." not in tidy:
            continue
        elif _PRECIOUS.search(tidy):
            yield "delete_precious", 0.7
        elif _ARTEFACT.search(tidy) and ".." not in tidy and not tidy.startswith("/"):
            yield "delete_artefact", 0.2
        elif recursive:
            yield "delete_recursively", 0.7
        elif _SOURCE.search(tidy) or force:
            yield "delete_file", 0.5
        else:
            yield "delete_file", 0.3


def _find(run: Run) -> Iterator[tuple[str, float]]:
    if "-delete" in run.arguments:
        start = next((word for word in run.arguments if not word.startswith("-")), ".")
        narrow = "-name" in run.arguments and any(_ARTEFACT.search(word.strip("*")) for word in run.arguments)
        yield (
            "delete_recursively",
            0.3 if _SCRATCH.match(start) else 0.8 if _WHOLE.match(start) and start[:1] in "/~$" else 0.3 if narrow else 0.6,
        )


def _dd(run: Run) -> Iterator[tuple[str, float]]:
    for word in run.arguments:
        if word.startswith("of="):
            if DISK.match(word[3:]):
                yield "disk_wipe", 1.0
            elif SYSTEM_FILE.match(word[3:]):
                yield "system_file", 0.9


def _chmod(run: Run) -> Iterator[tuple[str, float]]:
    words = [word for word in run.arguments if not re.match(r"-[a-zA-Z]*[RvcfhLPH]", word) and not word.startswith("--")]
    recursive = any(re.match(r"-[a-zA-Z]*R", word) or word == "--recursive" for word in run.arguments)
    targets = words[1:]
    mode = words[0] if words else ""
    if any(_WHOLE.match(re.sub(r"/{2,}", "/", target)) for target in targets) and (recursive or run.name != "chmod"):
        yield "permissions", 0.9
    elif run.name == "chmod" and re.match(r"^(?:0?[0-7]?777|a[+=]rwx|ugo[+=]rwx|\+rwx|o\+w|a\+w)$", mode):
        yield "permissions", 0.7 if recursive else 0.6
    elif run.name == "chmod" and re.match(r"^(?:0?[2467][0-7]{3}|[ugoa]*\+[rwx]*s)", mode):
        yield "set_user_id", 0.8
    elif recursive:
        yield "permissions", 0.5
    elif any(SYSTEM_FILE.match(target) for target in targets):
        yield "permissions", 0.7


def _kill(run: Run) -> Iterator[tuple[str, float]]:
    words = list(run.arguments)
    if words and words[0] in ("-s", "--signal", "-n"):
        words = words[2:]
    elif len(words) > 1 and re.match(r"-(?:[0-9]+|[A-Z]+)$", words[0]):
        words = words[1:]
    if "-1" in words or "1" in words:
        yield "kill_all", 0.9


def _mv(run: Run) -> Iterator[tuple[str, float]]:
    words = [word for word in run.arguments if not word.startswith("-")]
    if len(words) > 1 and words[-1] == "/dev/null":
        yield "delete_file", 0.8
    elif words and any(_WHOLE.match(word) and not word.startswith((".", "*")) for word in words[:-1]):
        yield "move_system", 0.8
    if run.name in ("cp", "ln", "install", "tee", "mv"):
        targets = words if run.name == "tee" else words[-1:]
        if any(DISK.match(word) for word in targets):
            yield "disk_wipe", 1.0
        if any(SYSTEM_FILE.match(word) for word in targets):
            yield "system_file", 0.8


def _netcat(run: Run) -> Iterator[tuple[str, float]]:
    if any(re.match(r"-[a-z]*[ec]$", word) or word in ("--exec", "--sh-exec") for word in run.arguments):
        yield "reverse_shell", 0.9
    elif any(re.match(r"-[a-z]*l", word) for word in run.arguments):
        yield "open_port", 0.5


def _socat(run: Run) -> Iterator[tuple[str, float]]:
    if re.search(r"(?i)\b(?:exec|system):", run.line[:MAX_LINE_CHARS]):
        yield "reverse_shell", 0.9


_HTTP_DELETE = re.compile(r"(?:^|\s)(?:-X\s?|--request[= ]|--method[= ])DELETE\b")
_HTTP_UPLOAD = re.compile(
    r"(?:^|\s)(?:-T\s?|--upload-file[= ]|-d\s?@|--data\S*[= ]@|-F\s?\S*=@|--post-file[= ])\S*"
    r"(?:\.env|id_rsa|\.ssh|shadow|passwd|credentials|\.aws|\.pem)"
)
_HTTP_ACTION = re.compile(r"(?i)_delete_by_query|/shutdown\b|/_close\b|/doDelete\b|/kill\b")
_HTTP_POST = re.compile(r"(?i)\bPOST\b|-d\b")


def _curl(run: Run) -> Iterator[tuple[str, float]]:
    line = run.line[:MAX_LINE_CHARS]
    if _HTTP_UPLOAD.search(line):
        yield "upload_secret", 0.9
    if _HTTP_DELETE.search(line) or (_HTTP_ACTION.search(line) and _HTTP_POST.search(line)):
        yield "remote_delete", 0.6


_DELETING_OPTIONS = ("--delete", "--delete-records", "--remove")


def platform(run: Run) -> Iterator[tuple[str, float]]:
    """Words such as `delete` among the first words of a platform's command line."""
    words = [word for word in run.arguments if not word.startswith("-") or word in _DELETING_OPTIONS]
    for number, word in enumerate(words[:6]):
        if number and "=" in word:
            continue
        if word in _DELETING_OPTIONS or DESTRUCTIVE_WORD.match(word):
            base = word.rpartition(":")[2]
            yield "platform_delete", 0.5 if MILD_WORD.match(base) else 0.7
            return


BY_FUNCTION: dict[str, Callable[[Run], Iterator[tuple[str, float]]]] = {
    "rm": _rm,
    "unlink": _rm,
    "rmdir": lambda run: iter([("delete_file", 0.3)] if run.arguments else []),
    "find": _find,
    "dd": _dd,
    "dcfldd": _dd,
    "chmod": _chmod,
    "chown": _chmod,
    "chgrp": _chmod,
    "setfacl": _chmod,
    "kill": _kill,
    "mv": _mv,
    "cp": _mv,
    "tee": _mv,
    "ln": _mv,
    "install": _mv,
    "nc": _netcat,
    "ncat": _netcat,
    "netcat": _netcat,
    "socat": _socat,
    "curl": _curl,
    "wget": _curl,
    "http": _curl,
}
