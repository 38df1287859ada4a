"""Calls of tools and what came back, in a few words: the argument that matters, how it ended.

The texts are the model's and the tool's own; what is given here has been made safe for one line of the screen.
"""

from __future__ import annotations

import json
import re

from luthien_tui.text import cell

READ_LIMIT = 20_000
"""Characters of arguments or of a result that are looked at for a summary."""
WORDS_LIMIT = 400
"""Characters that a summary has at most."""
_TELLING = (
    "command", "cmd", "script", "code", "file_path", "filepath", "path", "filename", "notebook_path", "pattern", "query",
    "url", "prompt", "description", "question", "name",
)  # fmt: skip
"""Arguments that say what a call does, in this order."""
_EXIT = re.compile(
    r"(?:process |command )?(?:exit(?:ed)?|return(?:ed)?)(?: with)?[ _]?(?:code|status)?\s*[:=]?\s*(-?\d{1,3})\b", re.IGNORECASE
)
_EXIT_FIELDS = ("exit_code", "exitCode", "returncode", "return_code", "exit_status")


def arguments_in_words(arguments: str) -> str:
    """`rm -rf build` of `{"command": "rm -rf build"}`; else the arguments side by side."""
    value = _json(arguments)
    if not isinstance(value, dict):
        return _short(arguments)
    for name in _TELLING:
        if isinstance(found := value.get(name), str) and found.strip():
            return _short(found)
        if isinstance(found, list) and found and all(isinstance(part, str) for part in found):
            return _short(" ".join(found))
    return _short(", ".join(f"{name}: {_plain(part)}" for name, part in value.items()))


def result_in_words(result: str, *, is_error: bool) -> tuple[str, bool]:
    """`exit 0`, or how the result begins; and whether it tells of a failure."""
    code = _exit_code(result)
    if code is not None:
        return f"exit {code}", is_error or code != 0
    text = result.strip()
    first, _, rest = text.partition("\n")
    if not text:
        return ("failed" if is_error else "nothing"), is_error
    more = rest.count("\n") + 1 if rest.strip() else 0
    return _short(first) + (f" +{more} line{'s' if more > 1 else ''}" if more else ""), is_error


def _exit_code(result: str) -> int | None:
    value = _json(result)
    if isinstance(value, dict):
        metadata = value.get("metadata")
        for fields in (value, metadata if isinstance(metadata, dict) else {}):
            for name in _EXIT_FIELDS:
                if isinstance(code := fields.get(name), int):
                    return code
        return None
    lines = result[:READ_LIMIT].strip().split("\n")
    for line in (lines[0], lines[-1] if len(result) <= READ_LIMIT else ""):
        found = _EXIT.fullmatch(line.strip().strip("[]()<>.").strip())
        if found:
            return int(found[1])
    return None


def _json(text: str) -> object:
    """The value that a text is as JSON; None where it is none, or too long to look at."""
    if text[:1] not in ("{", "[") or len(text) > READ_LIMIT:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    lines = [line.strip() for line in text[: 4 * WORDS_LIMIT].strip().split("\n")]
    return cell(" ⏎ ".join(line for line in lines if line)[:WORDS_LIMIT])
