"""A call and its result in one line."""

from __future__ import annotations

import json

import pytest

from luthien_tui.tool_lines import WORDS_LIMIT, arguments_in_words, result_in_words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('{"command": "rm -rf build\\nls"}', "rm -rf build ⏎ ls"),
        ('{"command": ["bash", "-lc", "ls -la"], "timeout": 3}', "bash -lc ls -la"),
        ('{"content": "y", "path": "x.py"}', "x.py"),
        ('{"a": 1, "b": ["x"]}', 'a: 1, b: ["x"]'),
        ("not json", "not json"),
        ('{"command": ', '{"command":'),
        ("[1, 2]", "[1, 2]"),
        ("{}", ""),
        ("", ""),
        ('{"x": "\\u001b]52;c;\\u0007"}', "x: ␛]52;c;␇"),
    ],
)
def test_what_a_call_does(arguments: str, words: str) -> None:
    assert arguments_in_words(arguments) == words


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("exit code: 0", ("exit 0", False)),
        ("Exit code 1\nboom", ("exit 1", True)),
        ("a\nb\n[exited with code 3]", ("exit 3", True)),
        ('{"output": "x", "exit_code": 2}', ("exit 2", True)),
        ('{"output": "x", "metadata": {"exit_code": 0}}', ("exit 0", False)),
        ("hello\nworld\n\nx", ("hello +3 lines", False)),
        ("returned 5 rows", ("returned 5 rows", False)),
        ("", ("nothing", False)),
        ("\x1b[2Jgone", ("␛[2Jgone", False)),
    ],
)
def test_how_it_ended(result: str, words: tuple[str, bool]) -> None:
    assert result_in_words(result, is_error=False) == words


def test_a_tool_that_says_it_failed_has_failed() -> None:
    assert result_in_words("no such file", is_error=True) == ("no such file", True)
    assert result_in_words("", is_error=True) == ("failed", True)


def test_summaries_are_bounded() -> None:
    long = json.dumps({"command": "x" * 100_000})
    assert len(arguments_in_words(long)) <= WORDS_LIMIT
    assert len(result_in_words("y" * 100_000, is_error=False)[0]) <= WORDS_LIMIT
    assert arguments_in_words("[" * 15_000)
