# ruff: noqa: E501 - one rule a line
"""Writes to files that hold credentials or configure the machine: by tools that write files, and by shell and code.

`writes_sensitive_file` gives what it finds in one tool call, with a score from 0 to 1. Paths are compared in one form: home
folders as `~`, dots resolved, small letters. Pure.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

from proxy_core.detectors.commands import UNREADABLE, Finding, read_command, reading_of, tool_words
from proxy_core.detectors.shell_runs import Run
from proxy_core.detectors.tool_arguments import plain_letters, read_arguments, texts

# fmt: off
_PATHS = (
    ("ssh_keys", 1.0, re.compile(r"(?:^|/)\.ssh(?:/|$)|authorized_keys|(?:^|/)id_(?:rsa|ed25519|ecdsa|dsa)\b|^/etc/ssh/")),
    ("accounts", 1.0, re.compile(r"^/etc/(?:passwd|shadow|group|gshadow|sudoers|pam\.d|security|ld\.so|nsswitch)|^/etc/doas")),
    ("scheduled_task", 1.0, re.compile(r"^/etc/cron|^/var/spool/cron|^/etc/anacrontab|(?:^|/)crontab$|/launch(?:agents|daemons)/|\.config/autostart/|/startup/")),
    ("system_service", 0.9, re.compile(r"/systemd/(?:system|user)/|^/etc/(?:init\.d|rc)|^/etc/profile|\.config/systemd/")),
    ("system_file", 0.9, re.compile(r"^/etc(?:/|$)|^/(?:boot|bin|sbin|lib\d*|usr/(?:local/)?(?:s?bin|lib\w*)|proc|sys)(?:/|$)|^/dev/(?!null$|stdout$|stderr$|tty$|shm/|fd/)|^[a-z]:/windows/|^/system/|^/library/|docker\.sock$")),
    ("shell_startup", 0.8, re.compile(r"(?:^|/)\.(?:bashrc|bash_profile|bash_login|bash_logout|bash_aliases|profile|zshrc|zshenv|zprofile|zlogin|kshrc|cshrc|tcshrc|inputrc|xinitrc|xprofile|xsessionrc|pam_environment)$|config/fish/|/microsoft\.powershell_profile|(?:^|/)\.(?:vimrc|emacs|tmux\.conf)$")),
    ("credentials", 0.9, re.compile(r"(?:^|/)\.(?:aws|azure|gnupg|kube|gcloud|docker|vault-token|netrc|pgpass|my\.cnf|npmrc|yarnrc|pypirc|git-credentials|terraformrc|s3cfg|boto|password-store|cargo/credentials|gem/credentials|m2/settings\.xml|config/(?:gh|gcloud|op|doctl|helm|rclone|hub)|terraform\.d/credentials)(?:[./]|$)|(?:^|/)_netrc$")),
    ("environment_file", 0.8, re.compile(r"(?:^|/)\.env(?:rc)?(?:\.(?!example$|sample$|template$|dist$|schema$)[\w.-]+)?$")),
    ("key_file", 0.8, re.compile(r"\.(?:pem|key|p12|pfx|jks|keystore|kdbx|ppk|asc)$|(?:^|/)(?:credentials|secrets?|service[-_]?account[\w-]*|client_secret[\w.-]*)\.(?:json|ya?ml|toml|ini|txt|env)$|application_default_credentials")),
    ("git_hooks", 0.8, re.compile(r"(?:^|/)\.git/(?:hooks/|config$|info/)|(?:^|/)\.(?:gitconfig|husky/)|(?:^|/)\.config/git/|(?:^|/)\.pre-commit-config\.ya?ml$")),
    ("pipeline", 0.6, re.compile(r"(?:^|/)\.(?:github/(?:workflows|actions)/|gitlab-ci\.ya?ml$|circleci/|travis\.ya?ml$|drone\.ya?ml$|woodpecker|buildkite/|gitea/workflows/)|(?:^|/)(?:jenkinsfile|azure-pipelines\.ya?ml|bitbucket-pipelines\.ya?ml|cloudbuild\.ya?ml|buildspec\.ya?ml)$")),
    ("agent_settings", 0.6, re.compile(r"(?:^|/)\.(?:claude/|codex/|cursor/|gemini/|continue/|aider|windsurf|mcp\.json$|vscode/(?:tasks|settings|launch)\.json$|idea/)|(?:^|/)(?:mcp|claude_desktop_config)\.json$")),
    ("browser_profile", 0.8, re.compile(r"(?:^|/)(?:\.mozilla/|\.config/(?:google-chrome|chromium)/|cookies\.sqlite|login data$)")),
)
# fmt: on
_HOME = re.compile(
    r"^(?:\$\{?HOME\}?|%USERPROFILE%|~[\w.-]*|/root|/home/[^/]+|/Users/[^/]+|[A-Za-z]:/Users/[^/]+)(?=/|$)", re.IGNORECASE
)
_WRITES = re.compile(
    r"write|edit|create|save|patch|replace|append|insert|update|put|upload|move|rename|copy|notebook|set_content|modify|overwrite"
    r"|download|generate_file|add_file"
)
_READS = re.compile(r"^(?:read|get|list|view|search|grep|glob|find|show|cat|open|stat|describe|fetch)")
_PATH_KEYS = frozenset(
    {
        "path",
        "file_path",
        "filepath",
        "file_name",
        "filename",
        "file",
        "target_file",
        "target",
        "destination",
        "dest",
        "to",
        "uri",
    }
    | {"notebook_path", "relative_workspace_path", "absolute_path", "relative_path", "new_path", "output_path", "output", "paths"}
    | {"files", "edits", "changes", "output_file", "save_path", "local_path"}
)
_HARMLESS_EDITOR_COMMANDS = frozenset({"view", "undo_edit", "read", "list"})
_PATCH_FILE = re.compile(
    r"^(?:\*\*\* (?:Add|Update|Delete) File: |\*\*\* Move to: |\+\+\+ (?:b/)?)([^\t\n]{1,1000})", re.MULTILINE
)
_CODE_WRITE = re.compile(
    r"\bopen\s*\(\s*[rfb]?[\"']([^\"'\n]{1,1000})[\"']\s*,\s*(?:mode\s*=\s*)?[\"'][^\"']{0,3}[wax+]"
    r"|\bPath\s*\(\s*[rf]?[\"']([^\"'\n]{1,1000})[\"']\s*\)(?:\.expanduser\(\))?\.(?:write_|open\s*\(\s*[\"'][wax]|touch|rename|symlink)"
    r"|\b(?:writeFile|appendFile|createWriteStream|copyFile|rename|symlink)(?:Sync)?\s*\(\s*[\"'`]([^\"'`\n]{1,1000})[\"'`]"
    r"|\bFile\.(?:write|open)\s*\(?\s*[\"']([^\"'\n]{1,1000})[\"']"
    r"|\bshutil\.(?:copy\w*|move)\s*\([^,\n]{1,500},\s*[rf]?[\"']([^\"'\n]{1,1000})[\"']"
)


def sensitive_path(path: str) -> tuple[str, float] | None:
    """The rule and score of a path; None where anybody may write it."""
    form = comparable_path(path)
    return next(((rule, score) for rule, score, expression in _PATHS if expression.search(form)), None)


def comparable_path(path: str) -> str:
    """A path in the form in which rules look at it."""
    plain = plain_letters(path).strip().strip("\"'").replace("\\", "/")
    plain = re.sub(r"^file://", "", plain)
    plain = _HOME.sub("~", plain)
    if not plain:
        return ""
    return re.sub(r"^//+", "/", posixpath.normpath(plain)).lower()


def writes_sensitive_file(name: str, arguments: str) -> list[Finding]:
    """What a call of the tool `name` would write that it should not. `text` of a finding is the path."""
    found: list[Finding] = []
    for path in written_paths(name, arguments):
        match = sensitive_path(path)
        if match is not None:
            found.append(Finding(match[0], match[1], (0, len(path)), path[:1_000]))
    if _writes_something(name) and read_arguments(arguments).problem is not None and arguments.lstrip()[:1] in ("{", "[", '"'):
        found.append(Finding("unreadable", UNREADABLE, (0, len(arguments)), "the arguments cannot be read"))
    for command in read_command(name, arguments).commands:
        problem = reading_of(command).problem
        if problem is not None:
            found.append(Finding("unreadable", UNREADABLE, (0, len(command.text)), problem))
    return found


def _writes_something(name: str) -> bool:
    words = tool_words(name)
    return bool(_WRITES.search(words)) and not _READS.match(words)


def written_paths(name: str, arguments: str) -> Iterator[str]:
    """Every path that a call would write."""
    read = read_arguments(arguments)
    value = read.value if read.problem is None else arguments
    for text in texts(value):
        if "*** " in text or "+++ " in text:
            yield from (found[1] for found in _PATCH_FILE.finditer(text))
    if _writes_something(name) and isinstance(value, dict) and str(value.get("command")) not in _HARMLESS_EDITOR_COMMANDS:
        yield from _named_paths(value)
    for command in read_command(name, arguments).commands:
        reading = reading_of(command)
        for run in reading.runs:
            yield from _written_by(run)
        for code in reading.codes:
            for found in _CODE_WRITE.finditer(code.text):
                yield next(group for group in found.groups() if group is not None)


def _named_paths(value: Any, depth: int = 0) -> Iterator[str]:
    if depth > 4:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            if tool_words(key) in _PATH_KEYS:
                if isinstance(inner, str):
                    yield inner
                elif isinstance(inner, list):
                    yield from (item for item in inner if isinstance(item, str))
                    yield from _named_paths(inner, depth + 1)
                else:
                    yield from _named_paths(inner, depth + 1)
            elif isinstance(inner, dict | list):
                yield from _named_paths(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_paths(inner, depth + 1)


_LAST_ARGUMENT = frozenset({"cp", "mv", "install", "ln", "rsync", "scp", "ditto"})
_ALL_ARGUMENTS = frozenset({"tee", "touch", "truncate", "ed", "ex", "vi", "vim", "nano", "emacs", "sponge", "chattr", "patch"})
_EDITORS_IN_PLACE = frozenset({"sed", "gsed", "perl", "ruby", "gawk"})
_IN_PLACE = re.compile(r"-[a-zA-Z]*i|--in-place")
_OUTPUT_OPTIONS = frozenset({"-o", "-O", "--output", "--output-document", "-f", "--output-file", "-out"})
_OUTPUT_PROGRAMS = frozenset({"curl", "wget", "ssh-keygen", "openssl", "gpg", "sort", "aria2c", "http"})


def _written_by(run: Run) -> Iterator[str]:
    """Paths that one program writes."""
    yield from (redirect.target for redirect in run.redirects if ">" in redirect.operator)
    words = [word for word in run.arguments if not word.startswith("-")]
    if run.name in _LAST_ARGUMENT and len(words) > 1:
        yield words[-1]
        if words[-1].endswith("/") or "." not in words[-1]:
            yield from (posixpath.join(words[-1], posixpath.basename(word)) for word in words[:-1])
    elif run.name in _ALL_ARGUMENTS or (
        run.name in ("sed", "perl", "ruby", "gawk", "gsed")
        and any(re.match(r"-[a-zA-Z]*i|--in-place", word) for word in run.arguments)
    ):
        yield from words
    elif run.name in ("dd", "dcfldd"):
        yield from (word[3:] for word in run.arguments if word.startswith("of="))
    elif run.name == "crontab" and not {"-l", "-r"} & set(run.arguments):
        yield "/var/spool/cron/crontab"
    elif run.name in ("visudo", "vipw"):
        yield "/etc/sudoers"
    elif run.name == "ssh-copy-id":
        yield "~/.ssh/authorized_keys"
    elif (
        run.name == "git"
        and run.arguments[:1] == ("config",)
        and {"--global", "--system"} & set(run.arguments)
        and len(words) > 2
    ):
        yield "~/.gitconfig"
    if run.name in _OUTPUT_PROGRAMS:
        for at, word in enumerate(run.arguments[:-1]):
            if word in _OUTPUT_OPTIONS:
                yield run.arguments[at + 1]
        yield from (word.split("=", 1)[1] for word in run.arguments if re.match(r"--output(?:-document|-file)?=", word))
    if run.name in ("Set-Content", "Add-Content", "Out-File"):
        yield from words
