"""Keys in text that comes in pieces are blanked as in the whole text, and little is held back."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.detectors.secret_scanner import SecretScanner
from proxy_core.detectors.secrets import FORMATS, MAX_PRIVATE_KEY_CHARS, MAX_TOKEN_CHARS, TextFormats

WHOLE = re.compile("|".join(pattern for _, pattern in FORMATS), re.DOTALL | re.ASCII)
KEY = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEow==\n-----END RSA PRIVATE KEY-----"
PARTS = (
    "sk-" + "a1" * 12,
    "sk-ant-api03-" + "Xy_" * 20,
    "AKIA" + "A" * 16,
    "AKIA" + "A" * 17,
    "github_pat_" + "a" * 60,
    KEY,
    "-----BEGIN PRIVATE KEY-----\nqqq",
    "-----BEGIN X",
    "-----END PRIVATE KEY-----",
    "-----BEGIN CERTIFICATE-----",
    "PRIVATE KEY-----",
    "SG." + "a" * 20 + "." + "b" * 40,
    "z" * 500,
    "sk-" + "b" * 450,
    "hf_" + "c" * 61,
    "hf_" + "c" * 59,
    "hello ",
    "ä",
    "\u200b",
    "_",
    "-",
    ".",
    "\n",
)


def scanned(pieces: Sequence[str]) -> str:
    scanner = SecretScanner()
    return "".join([*map(scanner.feed, pieces), scanner.finish()])


@given(st.lists(st.sampled_from(PARTS), max_size=6), st.data())
def test_every_cut_gives_what_the_whole_text_gives(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    if text:
        lost = data.draw(st.integers(0, len(text)))
        text = text[:lost] + text[lost + data.draw(st.integers(0, 4)) :]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert scanned(pieces) == scanned(list(text)) == WHOLE.sub("[redacted]", text)


def test_a_key_in_pieces_is_blanked_and_counted_by_kind() -> None:
    scanner = SecretScanner("***")
    out = (
        scanner.feed("use sk-ant-api03-abcdefgh")
        + scanner.feed("ijklmnopqrstuvwxyz, or AKIA")
        + scanner.feed("ABCDEFGHIJKLMNOP ")
    )
    assert out + scanner.finish() == "use ***, or *** "
    assert scanner.kinds == {"anthropic_key": 1, "aws_access_key": 1}


def test_prose_waits_for_the_end_of_its_last_word_only() -> None:
    scanner = SecretScanner()
    assert scanner.feed("The quick bro") == "The quick "
    assert scanner.feed("wn fox ") == "brown fox "
    assert scanner.held == ""


@pytest.mark.parametrize(
    ("unit", "bound"), [("a", MAX_TOKEN_CHARS), ("-----BEGIN PRIVATE KEY-----a b", MAX_PRIVATE_KEY_CHARS), ("-", MAX_TOKEN_CHARS)]
)
def test_what_is_held_back_is_bounded(unit: str, bound: int) -> None:
    scanner = SecretScanner()
    text = unit + unit[-1] * 100_000
    out = ""
    for start in range(0, len(text), 100):
        out += scanner.feed(text[start : start + 100])
        assert len(scanner.held) <= bound
    assert out + scanner.finish() == text


@pytest.mark.parametrize("unit", ["-----BEGIN PRIVATE KEY-----", "-", "task-", "sk-", "sk-ant-", "AKIA", "xoxb-"])
def test_hostile_texts_cost_linear_time(unit: str) -> None:
    text = unit * (500_000 // len(unit))
    started = time.process_time()
    TextFormats().search(text)
    SecretScanner().feed(text)
    assert time.process_time() - started < 5


def test_the_longest_match_of_each_format_is_as_long_as_promised() -> None:
    for kind, pattern in FORMATS:
        longest = re._parser.parse(pattern).getwidth()[1]  # type: ignore[attr-defined]
        assert longest < (10 * MAX_PRIVATE_KEY_CHARS if kind == "private_key" else MAX_TOKEN_CHARS), kind
