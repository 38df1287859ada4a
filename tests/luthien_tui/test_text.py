"""The door for traffic text: everything that acts or hides is shown."""

from __future__ import annotations

import json
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from luthien_tui.text import MAX_MARKS, cell, content, decode, exact, hides, json_escaped, typed, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, äöü, 漢字, 😀", "plain text, äöü, 漢字, 😀"),
        ("\x1b]52;c;ZXZpbA==\x07", "␛]52;c;ZXZpbA==␇"),
        ("\x1b[2J\x1b[1;1H", "␛[2J␛[1;1H"),
        ("\x9b31m\x9d0;title\x9c", "\\x9b31m\\x9d0;title\\x9c"),
        ("a\x00b\x08c\x7fd", "a␀b␈c␡d"),
        ("abc\u202edef\u202c", "abc⟨U+202E⟩def⟨U+202C⟩"),
        ("a\u200bb\ufeffc\u00add", "a⟨U+200B⟩b⟨U+FEFF⟩c⟨U+00AD⟩d"),
        ("pay\U000e0068\U000e0069!", "pay⟨hidden tags: hi⟩!"),
        ("\ue0b0\udc80", "⟨U+E0B0⟩⟨U+DC80⟩"),
        ("x\u3164y\u115f", "x⟨U+3164⟩y⟨U+115F⟩"),
        ("❤\ufe0f", "❤"),
        ("a\ufe00\ufe0f\ufe0f", "a⟨U+FE00⟩⟨U+FE0F⟩⟨U+FE0F⟩"),
        ("e\u0301", "e\u0301"),
        ("[@click=app.quit]x[/]", "[@click=app.quit]x[/]"),
        ("two\nlines\r\nthree\rfour", "two\nlines\nthree␍four"),
        ("a\tb", "a    b"),
    ],
)
def test_shows_what_would_act(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_cell_is_one_line() -> None:
    assert cell("a\nb\r\nc\rd\te\x1b") == "a↵b↵c↵d⇥e␛"


def test_long_runs_of_combining_marks_are_cut() -> None:
    shown = visible("a" + "\u0301" * 10_000 + "b")
    assert shown == "a" + "\u0301" * MAX_MARKS + f"⟨+{10_000 - MAX_MARKS} marks⟩b"


@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_nothing_that_acts_or_hides_comes_through(text: str) -> None:
    for shown in (visible(text), cell(text)):
        for character in shown.replace("\n", ""):
            assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"), ascii(character)
    assert "\n" not in cell(text)
    assert cell_len(cell(text)) >= 0
    visible(text).encode()


@given(st.text(max_size=60))
def test_showing_twice_changes_nothing(text: str) -> None:
    assert visible(visible(text)) == visible(text)


def test_content_has_no_markup() -> None:
    shown = content("[@click=app.quit]see[/] [/nope] \x1b[2J")
    assert shown.plain == "[@click=app.quit]see[/] [/nope] ␛[2J"
    assert not shown.spans


def test_bytes_that_are_not_text_are_shown() -> None:
    assert decode(b"ok \xff\xfe \xc3\xa4") == "ok \\xff\\xfe ä"


@pytest.mark.parametrize("unit", ["plain words and more of them\n", "\x1b[31m\u202e漢字 \x9b"])
def test_a_megabyte_is_quick(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    visible(text[:1_000])
    start = time.thread_time()
    visible(text)
    assert time.thread_time() - start < 1.0


def test_exact_shows_every_blank_that_could_hide_something() -> None:
    assert exact("ls" + " " * 40 + "; rm") == "ls⟨40 blanks⟩; rm"
    assert exact("a  b ") == "a  b␠"
    assert exact("    indented") == "    indented"
    assert exact("    ") == "␠␠␠␠"
    assert exact("a\tb\rc") == "a⇥b␍c"
    assert exact("a\u00a0b\u3000c") == "a⟨U+00A0⟩b⟨U+3000⟩c"
    assert exact("\u2764\ufe0f") == "\u2764⟨U+FE0F⟩"
    assert exact("\x1b[2J\u202e") == "␛[2J⟨U+202E⟩"


@given(st.text())
def test_exact_is_one_line_that_does_not_act(text: str) -> None:
    shown = exact(text)
    assert not hides(shown)
    assert "\n" not in shown


@given(st.text())
def test_what_is_typed_keeps_its_places_and_does_not_act(text: str) -> None:
    shown = typed(text)
    assert len(shown) == len(text)
    assert not hides(shown)
    assert "\n" not in shown


@given(st.text())
def test_escaped_text_means_the_same_in_json(text: str) -> None:
    written = json.dumps({"command": text}, ensure_ascii=False)
    escaped = json_escaped(written)
    assert not hides(escaped)
    assert json.loads(escaped) == {"command": text}
