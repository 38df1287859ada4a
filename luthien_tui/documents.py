"""Texts prepared for the screen: wrapped to a width, safe for a terminal, coloured line by line only when drawn.

Nothing here knows a widget, and every builder may run in a thread. JSON is laid out without being parsed, so numbers
and repeated keys appear exactly as sent; escaped letters are shown as letters, and inline data longer than DATA_LIMIT is folded.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator

from rich.cells import cell_len, chop_cells

from luthien_tui.text import decode, visible

Piece = tuple[str, str]
Lexer = Callable[[str, int], list[Piece]]

SHOWN_LIMIT = 8 * 1024 * 1024
"""Bytes of a body that are shown; `copy` takes all of it."""
DATA_LIMIT = 2_048
"""Characters of an unbroken string after which laid-out JSON folds it."""
MATCH_LIMIT = 10_000
WORDS_LIMIT = 4_000
"""Characters of a line that is not ASCII above which it is not broken between words."""


class Document:
    """Rows of text; a row that continues the one above says so."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.continued = bytearray()
        """For each row 0: a line begins; 1: the line above goes on; 2: it goes on inside a string."""

    def __len__(self) -> int:
        return len(self.texts)

    def pieces(self, index: int) -> list[Piece]:
        """The row with its tones."""
        return [(self.texts[index], "")]

    def add(self, line: str, width: int) -> None:
        """Append one line of safe text, wrapped to `width` cells."""
        in_string = False
        for place, row in enumerate(wrap(line, width)):
            self.texts.append(row)
            self.continued.append(0 if place == 0 else 2 if in_string else 1)
            if (row.count('"') - row.count('\\"')) % 2:
                in_string = not in_string

    def find(self, wanted: str) -> list[tuple[int, int, int]]:
        """Every match, case ignored, as (row, from, to); one that runs over a wrapped row has one entry a row."""
        if not wanted:
            return []
        offsets: list[int] = []
        parts: list[str] = []
        position = 0
        texts, continued = list(self.texts), bytes(self.continued)  # a running response may grow meanwhile
        for text, continues in zip(texts, continued, strict=False):
            if not continues and parts:
                parts.append("\n")
                position += 1
            offsets.append(position)
            lowered = text.lower()
            parts.append(lowered if len(lowered) == len(text) else text)
            position += len(text)
        everything, needle = "".join(parts), wanted.lower()
        matches: list[tuple[int, int, int]] = []
        start = everything.find(needle)
        while start >= 0 and len(matches) < MATCH_LIMIT:
            end = start + len(needle)
            row = bisect_right(offsets, start) - 1
            while row < len(offsets) and offsets[row] < end:
                length = len(texts[row])
                low, high = max(0, start - offsets[row]), min(length, end - offsets[row])
                if high > low:
                    matches.append((row, low, high))
                row += 1
            start = everything.find(needle, end)
        return matches


class LexedDocument(Document):
    """Text whose tones a lexer gives when a row is drawn."""

    def __init__(self, lexer: Lexer) -> None:
        super().__init__()
        self.lexer = lexer

    def pieces(self, index: int) -> list[Piece]:
        return self.lexer(self.texts[index], self.continued[index])


class PieceDocument(Document):
    """Lines of luthien's own words with given tones; wrapped text keeps the tone of its line."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[Piece]] = []

    def pieces(self, index: int) -> list[Piece]:
        return self.rows[index]

    def line(self, *pieces: Piece) -> None:
        """One row, not wrapped."""
        self.rows.append(list(pieces))
        self.texts.append("".join(text for text, _ in pieces))
        self.continued.append(False)

    def block(self, text: str, width: int, *, head: Piece, indent: int, tone: str = "") -> None:
        """Text of the traffic beside a head, wrapped with an indent."""
        first = True
        for line in visible(text).split("\n"):
            for place, row in enumerate(wrap(line, max(8, width - indent))):
                lead = (head[0].ljust(indent), head[1]) if first else (" " * indent, "")
                self.rows.append([lead, (row, tone)])
                self.texts.append(lead[0] + row)
                self.continued.append(place > 0)
                first = False


def wrap(line: str, width: int) -> list[str]:
    """The line in rows of at most `width` cells, broken after a space or an escaped line end where one is near."""
    width = max(4, width)
    if line.isascii():
        if len(line) <= width and "\\n" not in line:
            return [line]
        return list(_wrap_ascii(line, width))
    if cell_len(line) <= width and "\\n" not in line:
        return [line]
    rows: list[str] = []
    for part in _split_escapes(line):
        if cell_len(part) <= width:
            rows.append(part)
        else:
            rows += chop_cells(part, width) if len(part) > WORDS_LIMIT else _wrap_wide(part, width)
    return rows


def _wrap_wide(part: str, width: int) -> Iterator[str]:
    while cell_len(part) > width:
        row = chop_cells(part[: width + 1], width)[0]
        space = row.rfind(" ", len(row) - len(row) // 3)
        row = row[: space + 1] if space > 0 else row
        yield row
        part = part[len(row) :]
    yield part


def _wrap_ascii(line: str, width: int) -> Iterator[str]:
    for part in _split_escapes(line):
        start = 0
        while len(part) - start > width:
            end = start + width
            space = part.rfind(" ", end - width // 3, end)
            cut = space + 1 if space > 0 else end
            yield part[start:cut]
            start = cut
        yield part[start:]


def _split_escapes(line: str) -> list[str]:
    if "\\n" not in line:
        return [line]
    parts = re.split(r"(?<=[^\\]\\n)(?=[^\"])", line)
    return parts if len(parts) < 20_000 else [line]


_JSON = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*"?)(?P<colon>\s*:)?|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)'
    r"|(?P<literal>\b(?:true|false|null)\b)|(?P<rest>[^\"\-\dtfn]+|.)"
)
_STRING_END = re.compile(r'(?:[^"\\]|\\.)*"?')


def lex_json(row: str, continued: int) -> list[Piece]:
    """Tones of one row of JSON; 2: the row begins inside a string."""
    pieces: list[Piece] = []
    start = 0
    if continued == 2 and (end := _STRING_END.match(row)) is not None:
        pieces.append((end[0], "string"))
        start = end.end()
    for token in _JSON.finditer(row, start):
        if token["string"] is not None:
            pieces.append((token["string"], "name" if token["colon"] else "string"))
            if token["colon"]:
                pieces.append((token["colon"], "quiet"))
        elif token["number"] is not None:
            pieces.append((token["number"], "number"))
        elif token["literal"] is not None:
            pieces.append((token["literal"], "literal"))
        else:
            pieces.append((token["rest"], "quiet" if token["rest"].strip() in ("{", "}", "[", "]", ",", "},", "],") else ""))
    return pieces


def lex_sse(row: str, continued: int) -> list[Piece]:
    """Tones of one event: its name, then its data."""
    if continued:
        return lex_json(row, continued)
    name, space, value = row.partition("  ")
    if not space or name.startswith(":"):
        return [(row, "quiet")]
    return [(name, "quiet" if name == "data" else "accent"), (space, ""), *lex_json(value, 0)]


class EventRows:
    """Turns the lines of an event stream into one line an event: its name and its data. Comments stay, blank lines go."""

    def __init__(self) -> None:
        self._name = ""

    def lines(self, text: str) -> list[str]:
        rows: list[str] = []
        for line in text.split("\n"):
            field, _, value = line.removesuffix("\r").partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                self._name = value
            elif field == "data":
                rows.append(f"{self._name or 'data'}  {value}")
            elif not field and not value:
                self._name = ""
            else:
                rows.append(line.removesuffix("\r"))
        return rows


def lex_headers(row: str, continued: int) -> list[Piece]:
    """Tones of one header line."""
    name, colon, value = row.partition(":")
    return [(row, "")] if continued or not colon else [(name, "name"), (colon, "quiet"), (value, "")]


def lex_plain(row: str, continued: int) -> list[Piece]:
    return [(row, "")]


_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+|"', re.DOTALL)


def lay_out_json(text: str) -> Iterator[str]:
    """Lines of indented JSON, token by token; nothing is parsed or changed, and bad JSON is laid out too."""
    depth, line, opened = 0, "", False
    for token in _TOKEN.finditer(text):
        part = token[0]
        if part in "}]" and len(part) == 1:
            depth = max(0, depth - 1)
            if opened:
                line += part
            else:
                yield line
                line = "  " * depth + part
            opened = False
            continue
        if opened:
            yield line
            line = "  " * depth
            opened = False
        if part in "{[" and len(part) == 1:
            line += part
            depth += 1
            opened = True
        elif part == ",":
            yield line + ","
            line = "  " * depth
        elif part == ":":
            line += ": "
        else:
            line += _fold_data(_ESCAPED.sub(_letter, part) if "\\u" in part else part)
    if line.strip():
        yield line


_ESCAPED = re.compile(r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|[0-9a-f]{4})", re.IGNORECASE)


def _letter(escape: re.Match[str]) -> str:
    """The letter that an escape stands for; what would act or hide stays an escape."""
    high, _, low = escape[2].partition("\\u")
    code = int(high, 16) if not low else 0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low[:4], 16) - 0xDC00
    letter = chr(code)
    return escape[1] + letter if code >= 0xA0 and letter.isprintable() else escape[0]


def _fold_data(token: str) -> str:
    if len(token) <= DATA_LIMIT or " " in token[:DATA_LIMIT] or "\\n" in token[:DATA_LIMIT]:
        return token
    return f'{token[:60]}… {len(token) - 2:,} characters"'


def is_event_stream(body: bytes, content_type: str) -> bool:
    return "event-stream" in content_type or body[:6] in (b"data: ", b"data:{", b"event:")


def body_lexer(body: bytes, content_type: str) -> Lexer:
    if is_event_stream(body, content_type):
        return lex_sse
    return lex_json if body.lstrip()[:1] in (b"{", b"[") else lex_plain


def looks_binary(body: bytes) -> bool:
    head = body[:2_048]
    return b"\x00" in head or sum(byte < 9 or 13 < byte < 32 for byte in head) > len(head) // 10


def body_document(body: bytes, content_type: str, width: int, *, laid_out: bool = True) -> Document:
    """A body as rows: JSON laid out, events and lines as they came, binary as a hex dump."""
    cut = body[:SHOWN_LIMIT]
    if looks_binary(cut):
        document: Document = hex_document(cut)
    else:
        lexer = body_lexer(cut, content_type)
        document = LexedDocument(lexer)
        if lexer is lex_sse and laid_out:
            for line in EventRows().lines(decode(cut)):
                document.add(visible(line), width)
        elif lexer is lex_json and laid_out and not _is_lines(cut):
            for line in lay_out_json(decode(cut)):
                document.add(visible(line).replace("\n", "␊"), width)
        else:
            add_lines(document, decode(cut), width)
    if len(body) > len(cut):
        document.add(f"… {len(body) - len(cut):,} more bytes; copy takes the whole body", width)
    return document


def _is_lines(body: bytes) -> bool:
    """Whether the body is one JSON value a line (NDJSON)."""
    first, _, rest = body.strip().partition(b"\n")
    return first.endswith(b"}") and rest.lstrip()[:1] == b"{"


def add_lines(document: Document, text: str, width: int) -> None:
    """Append text as it came, line by line."""
    for line in visible(text).removesuffix("\n").split("\n"):
        document.add(line.removesuffix("␍"), width)


def hex_document(body: bytes, limit: int = 65_536) -> Document:
    """The first bytes of something that is not text."""
    document = PieceDocument()
    document.line((f"binary, {len(body):,} bytes", "quiet"))
    for offset in range(0, min(len(body), limit), 16):
        row = body[offset : offset + 16]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in row)
        document.line((f"{offset:08x}  ", "quiet"), (f"{row.hex(' '):<48}", "number"), (letters, ""))
    return document
