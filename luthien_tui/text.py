"""The only door through which text of the traffic reaches the screen.

`visible()` shows what a terminal would obey or hide: control, bidirectional, zero-width, private and tag characters appear
as signs, long runs of combining marks are cut. Nothing is silently removed but the single presentation selector after
an emoji. `cell()` gives one line for a table, `exact()` a line of something that is decided on, where every blank counts. The
result is plain `str` for segments; `content()` wraps it for widgets.
Nothing here reads markup, and nobody may hand text of the traffic to a widget by another way.
"""

from __future__ import annotations

import json
import re
import unicodedata

from textual.content import Content

MAX_MARKS = 4
"""Combining marks shown on one character."""
_TAGS = re.compile("[\U000e0020-\U000e007f]+")
_PRESENTATION = re.compile("(?<![\ufe0e\ufe0f])[\ufe0e\ufe0f](?![\ufe0e\ufe0f])")
_BLANK = frozenset((0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0, 0x2028, 0x2029, *range(0xFE00, 0xFE10)))
_BLANK_RANGES = (range(0x180B, 0x1810), range(0xE0100, 0xE01F0))
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


class _Signs(dict[int, str | int]):
    """What stands for a character; learnt one character at a time."""

    def __missing__(self, code: int) -> str | int:
        sign: str | int = code
        if code < 0x20:
            sign = chr(0x2400 + code)
        elif code == 0x7F:
            sign = "␡"
        elif 0x80 <= code < 0xA0:
            sign = f"\\x{code:02x}"
        elif code in _BLANK or any(code in blank for blank in _BLANK_RANGES) or unicodedata.category(chr(code)) in _HIDDEN:
            sign = f"⟨U+{code:04X}⟩"
        if len(self) > 20_000:
            self.clear()
        self[code] = sign
        return sign


class _ExactSigns(_Signs):
    """Blanks that are no plain space are signs too."""

    def __missing__(self, code: int) -> str | int:
        if code != 0x20 and unicodedata.category(chr(code)) == "Zs":
            self[code] = f"⟨U+{code:04X}⟩"
            return self[code]
        return super().__missing__(code)


_LINES = _Signs({0x0A: 0x0A, 0x09: "    "})
_CELLS = _Signs({0x0A: "↵", 0x0D: "↵", 0x09: "⇥"})
_EXACT = _ExactSigns({0x09: "⇥", 0x0A: "↵"})
_LONG_BLANK = re.compile(" {8,}| +$")
_marks: re.Pattern[str] | None = None


def visible(text: str) -> str:
    """`text` of many lines, safe for a terminal: line feeds stay, everything else that acts is shown as a sign."""
    if text.isascii() and text.isprintable():
        return text
    if not text.isascii():
        text = _calm(text)
    return text.replace("\r\n", "\n").translate(_LINES)


def cell(text: str) -> str:
    """`text` in one line: line ends and tabs become signs too."""
    if text.isascii() and text.isprintable():
        return text
    if not text.isascii():
        text = _calm(text)
    return text.replace("\r\n", "\n").translate(_CELLS)


def exact(line: str) -> str:
    """One line of which nothing may be overlooked: as `cell`, with every selector, every blank that is no plain space, blanks at
    the end and long runs of them as signs."""
    if not line.isascii():
        line = _mark_runs().sub(_cut_marks, _TAGS.sub(_show_tags, line))
    lead = len(line) - len(line.lstrip(" ")) if line.strip(" ") else 0
    return line[:lead] + _LONG_BLANK.sub(_count_blanks, line[lead:]).translate(_EXACT)


def typed(text: str) -> str:
    """What is typed or pasted in a line, one sign for each character, so that the cursor stands where it should."""
    if text.isascii() and text.isprintable():
        return text
    return "".join([letter if (sign := _EXACT[ord(letter)]) == ord(letter) else _one_sign(sign) for letter in text])


def _one_sign(sign: str | int) -> str:
    return sign if isinstance(sign, str) and len(sign) == 1 else "\ufffd"


def hides(text: str) -> bool:
    """Whether a terminal would obey or hide something in it; line ends and tabs aside."""
    return any(_EXACT[ord(letter)] != ord(letter) for letter in set(text) if letter not in "\n\t")


def json_escaped(text: str) -> str:
    """The text with everything that would act or hide written as JSON escapes it, so that it means the same in JSON's strings."""
    return "".join(_json_letter(letter) for letter in text) if hides(text) else text


def _json_letter(letter: str) -> str:
    if letter in "\n\t" or _EXACT[ord(letter)] == ord(letter):
        return letter
    return json.dumps(letter)[1:-1] if letter != "\x7f" else "\\u007f"


def _count_blanks(run: re.Match[str]) -> str:
    return f"⟨{len(run[0])} blanks⟩" if len(run[0]) >= 8 else "␠" * len(run[0])


def content(text: str) -> Content:
    """`text` for a widget, without markup."""
    return Content(visible(text))


def decode(body: bytes) -> str:
    """Bytes of a body as text; what is not UTF-8 appears as `\\xNN`."""
    return body.decode("utf-8", "backslashreplace")


def _calm(text: str) -> str:
    text = _TAGS.sub(_show_tags, text)
    text = _PRESENTATION.sub("", text)
    return _mark_runs().sub(_cut_marks, text)


def _show_tags(run: re.Match[str]) -> str:
    hidden = "".join(chr(ord(tag) - 0xE0000) for tag in run[0]).replace("\x7f", "␡")
    return f"⟨hidden tags: {hidden}⟩"


def _cut_marks(run: re.Match[str]) -> str:
    return f"{run[0][:MAX_MARKS]}⟨+{len(run[0]) - MAX_MARKS} marks⟩"


def _mark_runs() -> re.Pattern[str]:
    """Runs of too many combining marks; the class of marks is gathered once, on the first text that is not ASCII."""
    global _marks
    if _marks is None:
        ranges: list[list[int]] = []
        for code in (
            *range(0x0300, 0x3100),
            *range(0xA600, 0xAC00),
            *range(0xFB00, 0xFE30),
            *range(0x10000, 0x12000),
            *range(0x1D100, 0x1F000),
        ):
            if unicodedata.category(chr(code)) in ("Mn", "Me"):
                if ranges and ranges[-1][1] == code - 1:
                    ranges[-1][1] = code
                else:
                    ranges.append([code, code])
        marks = "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges)
        _marks = re.compile(f"[{marks}]{{{MAX_MARKS + 1},}}")
    return _marks
