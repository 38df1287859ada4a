"""Texts for the viewer: laid out without change, wrapped, searched."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthien_tui.documents import (
    DATA_LIMIT,
    Document,
    EventRows,
    LexedDocument,
    body_document,
    lay_out_json,
    lex_json,
    lex_sse,
    wrap,
)

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=12,
)


@given(values, st.booleans())
def test_laid_out_json_means_the_same(value: object, spaces: bool) -> None:
    text = json.dumps(value, separators=None if spaces else (",", ":"))
    assert json.loads("\n".join(lay_out_json(text))) == value


def test_laid_out_json_looks_like_json() -> None:
    text = '{"a":[1,2.50,{"b":"x\\ny"}],"empty":{},"none":[],"a":1e400}'
    assert "\n".join(lay_out_json(text)).splitlines() == [
        "{",
        '  "a": [',
        "    1,",
        "    2.50,",
        "    {",
        '      "b": "x\\ny"',
        "    }",
        "  ],",
        '  "empty": {},',
        '  "none": [],',
        '  "a": 1e400',
        "}",
    ]


def test_escaped_letters_are_shown_and_what_acts_stays_escaped() -> None:
    text = r'["\u4e09 \ud83d\ude00 \u001b[2J \u202e \u0022 \\u4e09 \\\u4e09 \ud83d"]'
    assert "".join(lay_out_json(text)).strip(" []") == r'"三 😀 \u001b[2J \u202e \u0022 \\u4e09 \\三 \ud83d"'


@given(st.text(max_size=80))
def test_anything_can_be_laid_out(text: str) -> None:
    joined = "".join("".join(lay_out_json(text)).split())
    assert joined == "".join(text.split()) or '"' in text


def test_inline_data_is_folded_but_prose_is_not() -> None:
    data = "A" * (DATA_LIMIT + 1)
    assert "…" in "\n".join(lay_out_json(json.dumps({"image": data})))
    prose = "a word " * DATA_LIMIT
    assert prose in "\n".join(lay_out_json(json.dumps({"text": prose})))


@given(st.text(st.characters(exclude_characters="\n"), max_size=300), st.integers(4, 40))
def test_wrapping_loses_nothing(line: str, width: int) -> None:
    rows = wrap(line, width)
    assert "".join(rows) == line
    if line.isascii():
        assert all(len(row) <= width for row in rows)


@pytest.mark.parametrize(
    ("lexer", "row"), [(lex_json, '"a": -1.5, true "open'), (lex_sse, 'delta  {"a": [null]}'), (lex_sse, ": ping")]
)
@pytest.mark.parametrize("continued", [0, 1, 2])
def test_a_lexer_keeps_every_character(lexer: object, row: str, continued: int) -> None:
    assert callable(lexer)
    assert "".join(text for text, _ in lexer(row, continued)) == row


def test_a_wrapped_string_stays_a_string() -> None:
    document = LexedDocument(lex_json)
    document.add('"text": "' + "word " * 20 + '", "n": 5', 40)
    assert document.continued[0] == 0
    assert set(document.continued[1:]) == {2}
    assert document.pieces(1) == [(document.texts[1], "string")]
    tones = {tone for text, tone in document.pieces(len(document) - 1) if text.strip() == "5"}
    assert tones == {"number"}


def test_one_row_an_event() -> None:
    text = ": ping\r\nevent: delta\ndata: {}\n\ndata: 1\ndata: 2\n\nid: 7\n"
    assert EventRows().lines(text) == [": ping", "delta  {}", "data  1", "data  2", "id: 7"]


def test_search_ignores_case_and_crosses_wrapped_rows() -> None:
    document = Document()
    document.add("The needle is in the NEEDLE stack", 10)
    document.add("none", 10)
    found = document.find("needle")
    assert ["".join(document.texts[row][low:high]) for row, low, high in found] == ["needle", "NEEDLE"]
    across = document.find("le is in")
    assert "".join(document.texts[row][low:high] for row, low, high in across) == "le is in"
    assert document.find("") == []
    assert document.find("stacknone") == []


def test_hostile_bodies_become_rows_that_do_not_act() -> None:
    body = b'{"a": "\x1b]52;c;eA==\x07 \xc2\x9b2J", \xff}'
    rows = body_document(body, "application/json", 40).texts
    assert all(character.isprintable() for row in rows for character in row)
    assert any("␛]52;c;eA==␇" in row for row in rows)


def test_binary_is_shown_in_hex() -> None:
    rows = body_document(b"\x00\x01PNG" * 10, "image/png", 80).texts
    assert rows[0] == "binary, 50 bytes"
    assert rows[1].startswith("00000000  00 01 50 4e 47")


def test_lines_of_json_stay_lines() -> None:
    rows = body_document(b'{"a":1}\n{"a":2}\n', "application/x-ndjson", 80).texts
    assert rows == ['{"a":1}', '{"a":2}']
